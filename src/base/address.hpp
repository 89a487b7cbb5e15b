// Addresses as values: internet addresses and endpoints, which are parsed, formatted, and converted to and
// from the kernel's structures, and the names of UNIX sockets. The code is pure, gives equal results on every
// system and in every locale, and accepts any bytes as input; it must not make system calls. Only the system
// knows the names of network interfaces; they come through the two functions in `interface_lookup`.
#pragma once

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/result.hpp"

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <sys/socket.h>
#include <sys/un.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// An IPv4 or IPv6 address. An IPv6 address can have a scope: the interface that a link-local address
/// belongs to. The order is: IPv4 before IPv6, then by bytes, then by scope.
class ip_address {
 public:
  /// Constructs 0.0.0.0.
  constexpr ip_address() noexcept = default;

  /// Parses "127.0.0.1", "::1" or "fe80::1%eth0"; no other text may come before or after the address.
  ///
  /// IPv4 is four decimal numbers without leading zeros, since some programs read those as octal. IPv6 is
  /// any form of RFC 4291 section 2.2; a scope (RFC 4007 section 11) is an interface's number, or its name
  /// if the system knows it. "::ffff:127.0.0.1" stays IPv6. Any other text is `invalid_argument`.
  [[nodiscard]] static result<ip_address> parse(std::string_view text);

  /// 0.0.0.0; as a local address it means all IPv4 addresses of the machine.
  [[nodiscard]] static constexpr ip_address any_v4() noexcept { return {}; }
  /// "::"; as a local address it means all IPv6 addresses of the machine.
  [[nodiscard]] static constexpr ip_address any_v6() noexcept {
    ip_address address;
    address.is_v6_ = true;
    return address;
  }
  /// The loopback address 127.0.0.1.
  [[nodiscard]] static constexpr ip_address loopback_v4() noexcept { return v4(0x7f000001); }
  /// The loopback address "::1".
  [[nodiscard]] static constexpr ip_address loopback_v6() noexcept {
    ip_address address = any_v6();
    address.bytes_[15] = std::byte{1};
    return address;
  }
  /// Makes an IPv4 address from a number in host byte order: 0x7f000001 is 127.0.0.1.
  [[nodiscard]] static constexpr ip_address v4(std::uint32_t number) noexcept {
    ip_address address;
    for (std::size_t i = 0; i < 4; ++i) address.bytes_[i] = static_cast<std::byte>(number >> (24 - 8 * i));
    return address;
  }
  /// Makes an IPv6 address from bytes in network order; `scope` is the number of an interface, or 0.
  [[nodiscard]] static constexpr ip_address v6(std::span<const std::byte, 16> bytes,
                                               std::uint32_t scope = 0) noexcept {
    ip_address address = any_v6();
    for (std::size_t i = 0; i < 16; ++i) address.bytes_[i] = bytes[i];
    address.scope_ = scope;
    return address;
  }

  /// Whether this is an IPv4 address. A mapped address ("::ffff:127.0.0.1") is IPv6.
  [[nodiscard]] constexpr bool is_v4() const noexcept { return !is_v6_; }
  /// Whether this is an IPv6 address, which includes mapped addresses ("::ffff:127.0.0.1").
  [[nodiscard]] constexpr bool is_v6() const noexcept { return is_v6_; }
  /// Whether the address is in 224.0.0.0/4 or ff00::/8.
  [[nodiscard]] constexpr bool is_multicast() const noexcept {
    return is_v6_ ? bytes_[0] == std::byte{0xff} : (bytes_[0] & std::byte{0xf0}) == std::byte{0xe0};
  }
  /// The number of the interface, 0 if the address has none; always 0 for IPv4.
  [[nodiscard]] constexpr std::uint32_t scope_id() const noexcept { return scope_; }
  /// The 4 or 16 bytes of the address in network order; the span points into this object.
  [[nodiscard]] constexpr std::span<const std::byte> bytes() const noexcept {
    return std::span<const std::byte>(bytes_, is_v6_ ? 16u : 4u);
  }

  /// The canonical text (RFC 5952), with the interface's name if the system knows it, else its number.
  /// `parse` converts the text back to an equal address.
  [[nodiscard]] std::string to_string() const;

  friend constexpr bool operator==(const ip_address&, const ip_address&) noexcept = default;
  friend constexpr std::strong_ordering operator<=>(const ip_address&, const ip_address&) noexcept = default;

 private:
  // Members are in the order of comparison. The bytes that an IPv4 address does not use are zero.
  bool is_v6_ = false;
  std::byte bytes_[16] = {};
  std::uint32_t scope_ = 0;
};

static_assert(std::is_trivially_copyable_v<ip_address>);

/// An address and a port.
struct ip_endpoint {
  ip_address address{};    ///< initially 0.0.0.0
  std::uint16_t port = 0;  ///< in host byte order

  /// Parses "127.0.0.1:80", "[::1]:80" or "[fe80::1%eth0]:80". The port is a decimal number up to 65535
  /// and is required. An IPv6 address, and no other, needs brackets. Any other text is `invalid_argument`.
  [[nodiscard]] static result<ip_endpoint> parse(std::string_view text);

  /// The text of the endpoint in the form that `parse` accepts.
  [[nodiscard]] std::string to_string() const;

  /// Converts from a structure that the kernel filled in; `data` may be unaligned, and only `size` bytes of
  /// it are read. An IPv4-mapped address becomes IPv4. Another family or a too small size is
  /// `invalid_argument`.
  [[nodiscard]] static result<ip_endpoint> from_sockaddr(const sockaddr* data, socklen_t size);

  /// Fills all of `storage` and returns the number of bytes in use.
  socklen_t to_sockaddr(sockaddr_storage& storage) const noexcept;

  friend constexpr bool operator==(const ip_endpoint&, const ip_endpoint&) noexcept = default;
  friend constexpr std::strong_ordering operator<=>(const ip_endpoint&,
                                                    const ip_endpoint&) noexcept = default;
};

static_assert(std::is_trivially_copyable_v<ip_endpoint>);

}}  // namespace anyio

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Whether a text has no character but decimal digits.
[[nodiscard]] bool is_decimal(std::string_view text) noexcept;
/// Whether two names of hosts are equal: the case of ASCII letters is ignored (RFC 4343).
[[nodiscard]] bool same_name(std::string_view a, std::string_view b) noexcept;

/// Look up a network interface by name or by number: 0 or false if there is none. `out` has room for 64
/// bytes and is NUL-terminated.
std::uint32_t interface_index(const char* name) noexcept;
bool interface_name(std::uint32_t index, char* out) noexcept;

/// The functions that convert between names and numbers of interfaces. Without them, a scope is a number.
struct interface_names {
  std::uint32_t (*index)(const char* name) noexcept = nullptr;
  bool (*name)(std::uint32_t index, char* out) noexcept = nullptr;
};
inline constinit interface_names interface_lookup{interface_index, interface_name};

// The BSDs store the length of a structure in its first member; Linux has no such member.
template <class Storage>
void set_sockaddr_size([[maybe_unused]] Storage& storage, [[maybe_unused]] socklen_t size) noexcept {
  if constexpr (requires { storage.ss_len; }) storage.ss_len = static_cast<std::uint8_t>(size);
  if constexpr (requires { storage.sun_len; }) storage.sun_len = static_cast<std::uint8_t>(size);
}

/// Does what `ip_endpoint::to_sockaddr` does, but leaves the unused part of the storage as it is.
socklen_t write_sockaddr(const ip_endpoint& endpoint, sockaddr_storage& storage) noexcept;

/// The family of the socket for an address, the unspecified address, and the machine itself.
[[nodiscard]] inline int family_of(const ip_address& a) noexcept { return a.is_v6() ? AF_INET6 : AF_INET; }
[[nodiscard]] inline ip_address any_address(bool v6) noexcept {
  return v6 ? ip_address::any_v6() : ip_address::any_v4();
}
[[nodiscard]] inline ip_address loopback_address(bool v6) noexcept {
  return v6 ? ip_address::loopback_v6() : ip_address::loopback_v4();
}
/// Whether it is an IPv4-mapped IPv6 address: "::ffff:127.0.0.1" (RFC 4291, section 2.5.5.2).
[[nodiscard]] bool is_mapped(const ip_address& address) noexcept;
/// Converts an IPv4-mapped address to IPv4, and returns any other address as it is.
[[nodiscard]] ip_address unmapped(const ip_address& address) noexcept;
/// Converts an IPv4 address to its IPv4-mapped form, and returns any other address as it is.
[[nodiscard]] ip_address mapped(const ip_address& address) noexcept;
/// Writes the address in the form that a socket of this family needs: IPv4 is mapped for an IPv6 socket, and
/// a mapped address becomes IPv4 for an IPv4 socket.
socklen_t fill_address(const ip_endpoint& endpoint, int family, sockaddr_storage& storage) noexcept;

/// The name of a UNIX socket in the kernel's form.
struct unix_address {
  sockaddr_un storage;
  socklen_t size;
};

/// Converts a path to the kernel's form. An empty path is the unnamed socket (bind on Linux then chooses any
/// free abstract name). A leading NUL is the abstract namespace, where every byte is part of the name; it is
/// `not_supported` except on Linux. Errors carry `operation`: `os_error` with ENAMETOOLONG for a path that
/// leaves no room for its NUL, or with EINVAL for a path with a NUL inside, which the kernel would truncate
/// silently.
[[nodiscard]] result<unix_address> make_unix_address(std::string_view path, const char* operation);

/// Converts the kernel's form to a path; `data` may be unaligned. `size` comes from the kernel, which also
/// counts bytes that did not fit into the caller's storage, so at most a sockaddr_un is read. The path need
/// not end with NUL. Returns an empty string for an unnamed socket and for any other family.
[[nodiscard]] std::string unix_path(const sockaddr* data, socklen_t size);

}}}  // namespace anyio::detail
