// mbedTLS, with ANYIO_NET_MBEDTLS defined.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "tls/engine/tls.hpp"

#include "base/standard.hpp"

#if defined(ANYIO_NET_MBEDTLS)

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Makes a context for mbedTLS, 2.28 or 3.2 and later (not 4). Link with -lmbedtls -lmbedx509 -lmbedcrypto.
/// An error in the configuration names its field: "tls: private_key_file: no such file (ENOENT)". mbedTLS
/// 2.28 supports only TLS 1.2.
[[nodiscard]] result<std::shared_ptr<tls_context>> mbedtls_context(tls_config config = {});

}}  // namespace anyio

#endif
