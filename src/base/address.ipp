// Parsing and formatting of addresses, and conversion to and from the kernel's structures.
#pragma once

#include "base/address.hpp"
#include "base/standard.hpp"

#include <cerrno>
#include <cstring>

#include <netinet/in.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// The functions of <cctype> depend on the locale.
inline bool is_decimal_digit(char c) noexcept { return c >= '0' && c <= '9'; }

ANYIO_NET_FN bool is_decimal(std::string_view text) noexcept {
  for (const char c : text)
    if (!is_decimal_digit(c)) return false;
  return true;
}

ANYIO_NET_FN bool same_name(std::string_view a, std::string_view b) noexcept {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (lower(a[i]) != lower(b[i])) return false;
  return true;
}

// Removes a decimal number of at most `max` from the front of `text`.
inline bool take_decimal(std::string_view& text, std::uint32_t max, std::uint32_t& number) noexcept {
  std::uint64_t value = 0;
  std::size_t digits = 0;
  for (; digits < text.size() && is_decimal_digit(text[digits]); ++digits) {
    value = value * 10 + static_cast<std::uint64_t>(text[digits] - '0');
    if (value > max) return false;
  }
  if (digits == 0) return false;
  text.remove_prefix(digits);
  number = static_cast<std::uint32_t>(value);
  return true;
}

// Parses an IPv4 address; writes 4 bytes.
[[gnu::cold]] inline bool parse_v4(std::string_view text, std::byte* out) noexcept {
  for (int i = 0; i < 4; ++i) {
    if (i != 0) {
      if (!text.starts_with('.')) return false;
      text.remove_prefix(1);
    }
    const bool leading_zero = text.size() > 1 && text[0] == '0' && is_decimal_digit(text[1]);
    std::uint32_t number = 0;
    if (leading_zero || !take_decimal(text, 255, number)) return false;
    out[i] = static_cast<std::byte>(number);
  }
  return text.empty();
}

// Parses one to four hexadecimal digits; writes 2 bytes.
[[gnu::cold]] inline bool parse_v6_group(std::string_view text, std::byte* out) noexcept {
  if (text.empty() || text.size() > 4) return false;
  unsigned value = 0;
  for (const char c : text) {
    value <<= 4;
    if (is_decimal_digit(c)) {
      value |= static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value |= static_cast<unsigned>(c - 'a' + 10);
    } else if (c >= 'A' && c <= 'F') {
      value |= static_cast<unsigned>(c - 'A' + 10);
    } else {
      return false;
    }
  }
  out[0] = static_cast<std::byte>(value >> 8);
  out[1] = static_cast<std::byte>(value);
  return true;
}

// Parses an IPv6 address; writes into 16 bytes that are zero.
[[gnu::cold]] inline bool parse_v6(std::string_view text, std::byte* out) noexcept {
  constexpr std::size_t none = 17;
  std::size_t filled = 0;
  std::size_t gap = none;  // the value of `filled` at the "::"
  if (text.starts_with("::")) {
    gap = 0;
    text.remove_prefix(2);
  }
  while (!text.empty()) {
    const std::string_view group = text.substr(0, text.find(':'));
    text.remove_prefix(group.size());
    if (group.find('.') != group.npos) {  // an IPv4 address is allowed only at the end
      if (!text.empty() || filled > 12 || !parse_v4(group, out + filled)) return false;
      filled += 4;
      break;
    }
    if (filled == 16 || !parse_v6_group(group, out + filled)) return false;
    filled += 2;
    if (text.empty()) break;
    text.remove_prefix(1);
    if (text.starts_with(':')) {
      if (gap != none) return false;
      gap = filled;
      text.remove_prefix(1);
    } else if (text.empty()) {
      return false;
    }
  }
  if (gap == none) return filled == 16;
  if (filled == 16) return false;  // "::" replaces at least one group
  const std::size_t behind_gap = filled - gap;
  std::memmove(out + 16 - behind_gap, out + gap, behind_gap);
  std::memset(out + gap, 0, 16 - filled);
  return true;
}

// A scope of digits only is always a number, even if an interface has that name: each text has only one
// meaning, and digits need no system call.
[[gnu::cold]] inline bool parse_scope(std::string_view text, std::uint32_t& scope) noexcept {
  if (is_decimal(text)) {
    return take_decimal(text, 0xffffffff, scope) && text.empty();
  }
  char name[64];
  if (interface_lookup.index == nullptr || text.size() >= sizeof name || text.find('\0') != text.npos) {
    return false;
  }
  *std::copy(text.begin(), text.end(), name) = '\0';
  scope = interface_lookup.index(name);
  return scope != 0;
}

inline void append_decimal(std::string& out, std::uint32_t number) {
  char digits[10];
  char* first = std::end(digits);
  do {
    *--first = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  out.append(first, std::end(digits));
}

inline void append_v4(std::string& out, const std::byte* bytes) {
  for (int i = 0; i < 4; ++i) {
    if (i != 0) out += '.';
    append_decimal(out, std::to_integer<std::uint32_t>(bytes[i]));
  }
}

inline void append_v6_group(std::string& out, unsigned group) {
  int shift = 12;
  while (shift != 0 && (group >> shift) == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) out += "0123456789abcdef"[(group >> shift) & 15];
}

inline bool is_v4_mapped(const std::byte* bytes) noexcept {
  static constexpr unsigned char prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(bytes, prefix, sizeof prefix) == 0;
}

// RFC 5952: the longest run of at least two zero groups becomes "::", the first one if several are equal.
inline void append_v6(std::string& out, const std::byte* bytes) {
  if (is_v4_mapped(bytes)) {
    out += "::ffff:";
    append_v4(out, bytes + 12);
    return;
  }
  unsigned groups[8];
  for (int i = 0; i < 8; ++i) {
    groups[i] = std::to_integer<unsigned>(bytes[2 * i]) << 8 | std::to_integer<unsigned>(bytes[2 * i + 1]);
  }
  int gap = 8;
  int gap_size = 1;
  for (int i = 0; i < 8; ++i) {
    int end = i;
    while (end < 8 && groups[end] == 0) ++end;
    if (end - i > gap_size) {
      gap = i;
      gap_size = end - i;
    }
  }
  for (int i = 0; i < 8; ++i) {
    if (i == gap) {
      out += "::";
      i += gap_size - 1;
      continue;
    }
    if (i != 0 && i != gap + gap_size) out += ':';
    append_v6_group(out, groups[i]);
  }
}

[[gnu::cold]] inline void append_scope(std::string& out, std::uint32_t scope) {
  out += '%';
  char name[64];
  if (interface_lookup.name != nullptr && interface_lookup.name(scope, name)) {
    const std::string_view text(name);
    if (!is_decimal(text)) {  // `parse` would read it as a number
      out += text;
      return;
    }
  }
  append_decimal(out, scope);
}

// Returns the family, or AF_UNSPEC if `size` is too small to contain it.
inline int sockaddr_family(const sockaddr* data, socklen_t size) noexcept {
  decltype(data->sa_family) family = AF_UNSPEC;
  if (data == nullptr || size < offsetof(sockaddr, sa_family) + sizeof family) return AF_UNSPEC;
  std::memcpy(&family, reinterpret_cast<const char*>(data) + offsetof(sockaddr, sa_family), sizeof family);
  return family;
}

ANYIO_NET_COLD result<unix_address> make_unix_address(std::string_view path, const char* operation) {
  unix_address address;
  std::memset(&address, 0, sizeof address);
  address.storage.sun_family = AF_UNIX;
  constexpr std::size_t room = sizeof address.storage.sun_path;
  std::size_t length = path.size();
  if (path.starts_with('\0')) {
#if defined(__linux__)
    if (length > room) return error(errc::os_error, ENAMETOOLONG, operation);
#else
    return error(errc::not_supported, 0, operation);
#endif
  } else if (!path.empty()) {
    if (length >= room) return error(errc::os_error, ENAMETOOLONG, operation);
    if (path.find('\0') != path.npos) return error(errc::os_error, EINVAL, operation);
    ++length;  // the size includes the NUL
  }
  std::copy(path.begin(), path.end(), address.storage.sun_path);
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  set_sockaddr_size(address.storage, address.size);
  return address;
}

ANYIO_NET_COLD std::string unix_path(const sockaddr* data, socklen_t size) {
  constexpr std::size_t head = offsetof(sockaddr_un, sun_path);
  if (sockaddr_family(data, size) != AF_UNIX || size <= head) return {};
  const std::size_t room = std::min<std::size_t>(size, sizeof(sockaddr_un)) - head;
  const std::string_view path(reinterpret_cast<const char*>(data) + head, room);
#if defined(__linux__)
  if (path.front() == '\0') return std::string(path);
#endif
  return std::string(path.substr(0, path.find('\0')));
}

}}}  // namespace anyio::detail

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_FN result<ip_address> ip_address::parse(std::string_view text) {
  ip_address address;
  if (text.find(':') == text.npos) {
    if (detail::parse_v4(text, address.bytes_)) return address;
  } else {
    const std::size_t percent = text.find('%');
    address.is_v6_ = true;
    if (detail::parse_v6(text.substr(0, percent), address.bytes_) &&
        (percent == text.npos || detail::parse_scope(text.substr(percent + 1), address.scope_))) {
      return address;
    }
  }
  return error(errc::invalid_argument, 0, "ip_address");
}

ANYIO_NET_FN std::string ip_address::to_string() const {
  std::string text;
  if (is_v6_) {
    detail::append_v6(text, bytes_);
    if (scope_ != 0) detail::append_scope(text, scope_);
  } else {
    detail::append_v4(text, bytes_);
  }
  return text;
}

ANYIO_NET_FN result<ip_endpoint> ip_endpoint::parse(std::string_view text) {
  const error failure(errc::invalid_argument, 0, "ip_endpoint");
  const std::size_t colon = text.rfind(':');
  if (colon == text.npos) return failure;
  std::string_view host = text.substr(0, colon);
  std::string_view port = text.substr(colon + 1);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const result<ip_address> address = ip_address::parse(host);
  std::uint32_t number = 0;
  if (!address || address->is_v6() != bracketed || !detail::take_decimal(port, 65535, number) ||
      !port.empty()) {
    return failure;
  }
  return ip_endpoint{*address, static_cast<std::uint16_t>(number)};
}

ANYIO_NET_FN std::string ip_endpoint::to_string() const {
  std::string text = address.to_string();
  if (address.is_v6()) {
    text.insert(text.begin(), '[');
    text += ']';
  }
  text += ':';
  detail::append_decimal(text, port);
  return text;
}

ANYIO_NET_FN result<ip_endpoint> ip_endpoint::from_sockaddr(const sockaddr* data, socklen_t size) {
  const int family = detail::sockaddr_family(data, size);
  if (family == AF_INET && size >= sizeof(sockaddr_in)) {
    sockaddr_in raw;
    std::memcpy(&raw, data, sizeof raw);
    return ip_endpoint{ip_address::v4(ntohl(raw.sin_addr.s_addr)), ntohs(raw.sin_port)};
  }
  if (family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    sockaddr_in6 raw;
    std::memcpy(&raw, data, sizeof raw);
    std::byte bytes[16];
    std::memcpy(bytes, &raw.sin6_addr, sizeof bytes);
    ip_endpoint endpoint{ip_address::v6(bytes, raw.sin6_scope_id), ntohs(raw.sin6_port)};
    if (detail::is_v4_mapped(bytes)) endpoint.address = detail::unmapped(endpoint.address);
    return endpoint;
  }
  return error(errc::invalid_argument, 0, "ip_endpoint");
}

ANYIO_NET_FN socklen_t ip_endpoint::to_sockaddr(sockaddr_storage& storage) const noexcept {
  std::memset(&storage, 0, sizeof storage);
  return detail::write_sockaddr(*this, storage);
}

namespace detail {

ANYIO_NET_FN socklen_t write_sockaddr(const ip_endpoint& endpoint, sockaddr_storage& storage) noexcept {
  const ip_address& address = endpoint.address;
  const std::byte* const bytes = address.bytes().data();
  socklen_t size = 0;
  if (address.is_v4()) {
    sockaddr_in raw{};
    raw.sin_family = AF_INET;
    raw.sin_port = htons(endpoint.port);
    std::memcpy(&raw.sin_addr, bytes, sizeof raw.sin_addr);
    size = sizeof raw;
    std::memcpy(&storage, &raw, sizeof raw);
  } else {
    sockaddr_in6 raw{};
    raw.sin6_family = AF_INET6;
    raw.sin6_port = htons(endpoint.port);
    raw.sin6_scope_id = address.scope_id();
    std::memcpy(&raw.sin6_addr, bytes, sizeof raw.sin6_addr);
    size = sizeof raw;
    std::memcpy(&storage, &raw, sizeof raw);
  }
  set_sockaddr_size(storage, size);
  return size;
}

ANYIO_NET_FN bool is_mapped(const ip_address& address) noexcept {
  return address.is_v6() && is_v4_mapped(address.bytes().data());
}

ANYIO_NET_COLD ip_address unmapped(const ip_address& address) noexcept {
  if (!is_mapped(address)) return address;
  std::uint32_t number = 0;
  for (const std::byte b : address.bytes().last(4)) number = number << 8 | std::to_integer<std::uint32_t>(b);
  return ip_address::v4(number);
}

ANYIO_NET_COLD ip_address mapped(const ip_address& address) noexcept {
  if (address.is_v6()) return address;
  std::byte bytes[16] = {};
  bytes[10] = bytes[11] = std::byte{0xff};
  std::memcpy(bytes + 12, address.bytes().data(), 4);
  return ip_address::v6(bytes);
}

[[gnu::cold]] inline socklen_t fill_other_family(const ip_endpoint& endpoint,
                                                 sockaddr_storage& storage) noexcept {
  const ip_address& address = endpoint.address;
  return write_sockaddr({address.is_v4() ? mapped(address) : unmapped(address), endpoint.port}, storage);
}

ANYIO_NET_FN socklen_t fill_address(const ip_endpoint& endpoint, int family,
                                    sockaddr_storage& storage) noexcept {
  if (endpoint.address.is_v6() != (family == AF_INET6)) return fill_other_family(endpoint, storage);
  return write_sockaddr(endpoint, storage);
}

}  // namespace detail

}}  // namespace anyio
