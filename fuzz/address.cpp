// Addresses from text and from raw socket addresses of any size. A parsed value is formatted to a text that
// parses to an equal value; texts are equal exactly if values are; raw addresses are read within their size
// (checked by a sanitizer, since the buffer has exactly that size), survive both conversions, and UNIX names
// keep every byte.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include <sys/socket.h>
#include <sys/un.h>

#include "anyio_net.hpp"
#include "support/input.hpp"

namespace {

void check_ip_address(const anyio::ip_address& a) {
  const std::string text = a.to_string();
  const auto again = anyio::ip_address::parse(text);
  FUZZ_CHECK(again.has_value());
  FUZZ_CHECK(*again == a);
  FUZZ_CHECK(again->to_string() == text);
  FUZZ_CHECK(a.bytes().size() == (a.is_v4() ? 4U : 16U));
  FUZZ_CHECK(a.is_v6() || a.scope_id() == 0);
}

void check_endpoint(const anyio::ip_endpoint& e) {
  check_ip_address(e.address);
  const std::string text = e.to_string();
  const auto again = anyio::ip_endpoint::parse(text);
  FUZZ_CHECK(again.has_value());
  FUZZ_CHECK(*again == e);
  FUZZ_CHECK(again->to_string() == text);

  sockaddr_storage storage;
  std::memset(&storage, 0xa5, sizeof storage);
  const socklen_t size = e.to_sockaddr(storage);
  FUZZ_CHECK(size <= sizeof storage);
  const auto back = anyio::ip_endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), size);
  FUZZ_CHECK(back.has_value());
  FUZZ_CHECK(back->port == e.port);
  const auto bytes = e.address.bytes();
  const bool mapped =
      e.address.is_v6() && e.address.scope_id() == 0 &&
      std::all_of(bytes.begin(), bytes.begin() + 10, [](std::byte b) { return b == std::byte{}; }) &&
      bytes[10] == std::byte{0xff} && bytes[11] == std::byte{0xff};
  if (mapped) {
    FUZZ_CHECK(back->address.is_v4());
    FUZZ_CHECK(std::equal(bytes.begin() + 12, bytes.end(), back->address.bytes().begin()));
  } else if (back->address.is_v6() || e.address.is_v4()) {
    FUZZ_CHECK(back->address == e.address);
  } else {  // mapped, with a scope that has no meaning for IPv4
    FUZZ_CHECK(std::equal(bytes.begin() + 12, bytes.end(), back->address.bytes().begin()));
  }
  // One byte less is too little.
  FUZZ_CHECK(!anyio::ip_endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), size - 1));
}

void check_text(std::string_view text) {
  // A copy without a NUL after it, so that a read beyond the end is detected.
  const auto exact = std::make_unique<char[]>(text.size());
  std::copy(text.begin(), text.end(), exact.get());
  const std::string_view view(exact.get(), text.size());
  if (const auto a = anyio::ip_address::parse(view)) {
    check_ip_address(*a);
    check_endpoint({*a, 65535});
  } else {
    FUZZ_CHECK(a.error() == anyio::errc::invalid_argument);
  }
  if (const auto e = anyio::ip_endpoint::parse(view)) {
    check_endpoint(*e);
    // Only an address, perhaps in brackets, a colon and a port are parsed as an endpoint.
    FUZZ_CHECK(!anyio::ip_address::parse(view).has_value() || e->address.is_v6());
  } else {
    FUZZ_CHECK(e.error() == anyio::errc::invalid_argument);
  }
}

void check_raw(std::span<const std::uint8_t> bytes, socklen_t said) {
  // As in the kernel, the size may include bytes that did not fit; then the whole structure is present.
  const std::size_t kept =
      std::max<std::size_t>(bytes.size(), said > sizeof(sockaddr_un) ? sizeof(sockaddr_un) : said);
  const auto exact = std::make_unique<std::uint8_t[]>(kept);
  std::copy(bytes.begin(), bytes.end(), exact.get());
  const auto* address = reinterpret_cast<const sockaddr*>(exact.get());
  if (const auto e = anyio::ip_endpoint::from_sockaddr(address, said)) check_endpoint(*e);
  const std::string path = anyio::detail::unix_path(address, said);
  FUZZ_CHECK(path.size() <= sizeof(sockaddr_un::sun_path));
  if (!path.empty() && path.front() != '\0') FUZZ_CHECK(path.find('\0') == std::string::npos);
}

void check_path(std::string_view path) {
  const auto made = anyio::detail::make_unix_address(path, "bind");
  if (!made) {
    const bool too_long = path.size() >= sizeof(sockaddr_un::sun_path);
    const bool cut_short = !path.empty() && path.front() != '\0' && path.find('\0') != std::string_view::npos;
    FUZZ_CHECK(too_long || cut_short);
    FUZZ_CHECK(made.error() == anyio::errc::os_error);
    return;
  }
  FUZZ_CHECK(made->size <= sizeof made->storage);
  const auto exact = std::make_unique<std::uint8_t[]>(made->size);
  std::memcpy(exact.get(), &made->storage, made->size);
  FUZZ_CHECK(anyio::detail::unix_path(reinterpret_cast<const sockaddr*>(exact.get()), made->size) == path);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  const unsigned how = in.byte();
  const auto rest = in.take(in.size());
  if (how == 'r') {  // raw: the stated size, then the structure
    fuzz::input raw(rest);
    const auto said = static_cast<socklen_t>(raw.byte());
    check_raw(raw.take(raw.size()), said);
  } else if (how == 'p') {
    check_path(fuzz::text_of(rest));
  } else {
    check_text(fuzz::text_of(std::span<const std::uint8_t>(data, size)));
  }
  return 0;
}
