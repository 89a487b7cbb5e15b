#include "certificates.hpp"

#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>

namespace support {
namespace {

[[noreturn]] void give_up(const std::string& what) {
  std::fprintf(stderr, "certificates: %s\n", what.c_str());
  std::abort();
}

class folder {
 public:
  folder() {
    if (::mkdtemp(path_.data()) == nullptr) give_up("no folder " + path_);
    const std::string command = "tests/support/make_certificates.sh " + path_;
    if (std::system(command.c_str()) != 0) give_up(command + " failed; it runs from the repository's root");
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;
  ~folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/anyio_net_certificates.XXXXXX";
};

std::string from_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned value = 0;
  int bits = 0;
  for (const char c : text) {
    const std::size_t digit = digits.find(c);
    if (digit == std::string_view::npos) continue;
    value = value << 6 | static_cast<unsigned>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(value >> bits & 0xff);
  }
  return bytes;
}

}  // namespace

std::string certificate_dir() {
  static const folder made;
  return made.path();
}

std::string certificate(std::string_view name) { return certificate_dir() + '/' + std::string(name); }

std::string certificate_text(std::string_view name) {
  std::ifstream file(certificate(name), std::ios::binary);
  if (!file) give_up("there is no " + std::string(name));
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string certificate_der(std::string_view name) {
  constexpr std::string_view begin = "-----BEGIN CERTIFICATE-----";
  const std::string text = certificate_text(name);
  const std::size_t at = text.find(begin);
  if (at == std::string::npos) give_up("there is no certificate in " + std::string(name));
  const std::size_t from = at + begin.size();
  return from_base64(std::string_view(text).substr(from, text.find('-', from) - from));
}

}  // namespace support
