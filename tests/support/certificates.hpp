// Certificates and keys for tests of TLS, made by make_certificates.sh, which tells what there is: once a
// process, when the first is asked for, in a folder that is removed when the process ends.
#pragma once

#include <string>
#include <string_view>

namespace support {

/// The folder they lie in.
std::string certificate_dir();

/// The path of a file there: "server.pem".
std::string certificate(std::string_view name);

/// What the file holds.
std::string certificate_text(std::string_view name);

/// The first certificate of a file as the peer is shown it.
std::string certificate_der(std::string_view name);

}  // namespace support
