// mbedTLS, with ANYIO_NET_MBEDTLS defined.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "tls/tls.hpp"

#include <memory>

#if defined(ANYIO_NET_MBEDTLS)

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Credentials for mbedTLS, 2.28 or 3.2 and later (not 4). Link with -lmbedtls -lmbedx509 -lmbedcrypto. What
/// is wrong with the configuration is told by its field: "tls: private_key_file: no such file (ENOENT)".
/// mbedTLS 2.28 speaks TLS 1.2 alone.
[[nodiscard]] result<std::shared_ptr<tls_context>> mbedtls_context(tls_config config = {});

}}  // namespace anyio

#endif
