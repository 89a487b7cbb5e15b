// OpenSSL, with ANYIO_NET_OPENSSL defined.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "tls/engine/tls.hpp"

#include "base/standard.hpp"

#if defined(ANYIO_NET_OPENSSL)

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Makes a context for OpenSSL 3. Link with -lssl -lcrypto. An error in the configuration names its field:
/// "tls: private_key_file: no such file (ENOENT)".
[[nodiscard]] result<std::shared_ptr<tls_context>> openssl_context(tls_config config = {});

}}  // namespace anyio

#endif
