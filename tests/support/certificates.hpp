// Certificates and keys for tests of TLS, created by make_certificates.sh, which lists them: once per
// process, at the first use, in a directory that is removed when the process ends.
#pragma once

#include <string>
#include <string_view>

namespace support {

/// Their directory.
std::string certificate_dir();

/// The path of a file there: "server.pem".
std::string certificate(std::string_view name);

/// The content of the file.
std::string certificate_text(std::string_view name);

/// The first certificate of a file, as the peer receives it.
std::string certificate_der(std::string_view name);

}  // namespace support
