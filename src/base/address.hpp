// Addresses as values: internet addresses and endpoints, parsed, formatted and moved in and out of
// the kernel's structures, and the names of UNIX sockets. All of it is pure, the same under every
// system and locale, and safe to feed with any bytes; it must not make system calls. The names of
// network interfaces, which only the system knows, come through two functions that the backend sets.
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

/// An IPv4 or IPv6 address; the latter with a scope, which says what interface a link-local address
/// belongs to. Ordered: IPv4 before IPv6, then by bytes, then by scope.
class ip_address {
 public:
  /// 0.0.0.0
  constexpr ip_address() noexcept = default;

  /// Reads "127.0.0.1", "::1" or "fe80::1%eth0"; nothing may stand before or after it.
  ///
  /// IPv4 is four decimal numbers without leading zeros, since some read those as octal. IPv6 is any
  /// form of RFC 4291 section 2.2; a scope (RFC 4007 section 11) is an interface's number, or its name
  /// if the system knows it. "::ffff:127.0.0.1" stays IPv6. Anything else is `invalid_argument`.
  [[nodiscard]] static result<ip_address> parse(std::string_view text);

  /// 0.0.0.0: as a local address, all of IPv4.
  [[nodiscard]] static constexpr ip_address any_v4() noexcept { return {}; }
  /// "::": as a local address, all of IPv6.
  [[nodiscard]] static constexpr ip_address any_v6() noexcept {
    ip_address address;
    address.is_v6_ = true;
    return address;
  }
  /// 127.0.0.1
  [[nodiscard]] static constexpr ip_address loopback_v4() noexcept { return v4(0x7f000001); }
  /// ::1
  [[nodiscard]] static constexpr ip_address loopback_v6() noexcept {
    ip_address address = any_v6();
    address.bytes_[15] = std::byte{1};
    return address;
  }
  /// From a number in host byte order: 0x7f000001 is 127.0.0.1.
  [[nodiscard]] static constexpr ip_address v4(std::uint32_t number) noexcept {
    ip_address address;
    for (std::size_t i = 0; i < 4; ++i) address.bytes_[i] = static_cast<std::byte>(number >> (24 - 8 * i));
    return address;
  }
  /// From bytes in network order; `scope` is the number of an interface, or 0.
  [[nodiscard]] static constexpr ip_address v6(std::span<const std::byte, 16> bytes,
                                               std::uint32_t scope = 0) noexcept {
    ip_address address = any_v6();
    for (std::size_t i = 0; i < 16; ++i) address.bytes_[i] = bytes[i];
    address.scope_ = scope;
    return address;
  }

  /// Either of the two: a mapped address is given as the IPv4 address that it stands for.
  [[nodiscard]] constexpr bool is_v4() const noexcept { return !is_v6_; }
  /// The opposite.
  [[nodiscard]] constexpr bool is_v6() const noexcept { return is_v6_; }
  /// 224.0.0.0/4 or ff00::/8.
  [[nodiscard]] constexpr bool is_multicast() const noexcept {
    return is_v6_ ? bytes_[0] == std::byte{0xff} : (bytes_[0] & std::byte{0xf0}) == std::byte{0xe0};
  }
  /// The number of the interface, 0 if none is given; always 0 for IPv4.
  [[nodiscard]] constexpr std::uint32_t scope_id() const noexcept { return scope_; }
  /// 4 or 16 bytes in network order; part of this object.
  [[nodiscard]] constexpr std::span<const std::byte> bytes() const noexcept {
    return std::span<const std::byte>(bytes_, is_v6_ ? 16u : 4u);
  }

  /// The one canonical text (RFC 5952), with the interface's name if it is known, else its number.
  /// `parse` reads it back to an equal address.
  [[nodiscard]] std::string to_string() const;

  friend constexpr bool operator==(const ip_address&, const ip_address&) noexcept = default;
  friend constexpr std::strong_ordering operator<=>(const ip_address&, const ip_address&) noexcept = default;

 private:
  // In the order of comparison. What an IPv4 address does not use is zero.
  bool is_v6_ = false;
  std::byte bytes_[16] = {};
  std::uint32_t scope_ = 0;
};

static_assert(std::is_trivially_copyable_v<ip_address>);

/// An address and a port.
struct ip_endpoint {
  ip_address address{};    ///< 0.0.0.0 at first
  std::uint16_t port = 0;  ///< in host byte order

  /// Reads "127.0.0.1:80", "[::1]:80" or "[fe80::1%eth0]:80". The port is a decimal number up to
  /// 65535 and may not be missing, the brackets belong to IPv6. Anything else is `invalid_argument`.
  [[nodiscard]] static result<ip_endpoint> parse(std::string_view text);

  /// What `parse` reads.
  [[nodiscard]] std::string to_string() const;

  /// From what the kernel filled in; `data` may be unaligned, and is read up to `size` only. An
  /// IPv4-mapped address becomes IPv4. Another family, or too small a size: `invalid_argument`.
  [[nodiscard]] static result<ip_endpoint> from_sockaddr(const sockaddr* data, socklen_t size);

  /// Fills all of `storage` and gives the size of what is used of it.
  socklen_t to_sockaddr(sockaddr_storage& storage) const noexcept;

  friend constexpr bool operator==(const ip_endpoint&, const ip_endpoint&) noexcept = default;
  friend constexpr std::strong_ordering operator<=>(const ip_endpoint&,
                                                    const ip_endpoint&) noexcept = default;
};

static_assert(std::is_trivially_copyable_v<ip_endpoint>);

}}  // namespace anyio

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// The machine's interfaces: 0 or false if there is none. `out` has 64 bytes, and is ended by NUL.
std::uint32_t interface_index(const char* name) noexcept;
bool interface_name(std::uint32_t index, char* out) noexcept;

/// How interfaces are called; without, a scope is a number.
struct interface_names {
  std::uint32_t (*index)(const char* name) noexcept = nullptr;
  bool (*name)(std::uint32_t index, char* out) noexcept = nullptr;
};
inline constinit interface_names interface_lookup{interface_index, interface_name};

// The BSDs keep a structure's length in its first member, Linux has no such member.
template <class Storage>
void set_sockaddr_size([[maybe_unused]] Storage& storage, [[maybe_unused]] socklen_t size) noexcept {
  if constexpr (requires { storage.ss_len; }) storage.ss_len = static_cast<std::uint8_t>(size);
  if constexpr (requires { storage.sun_len; }) storage.sun_len = static_cast<std::uint8_t>(size);
}

/// `ip_endpoint::to_sockaddr`, but for the part of the storage that is not used.
socklen_t write_sockaddr(const ip_endpoint& endpoint, sockaddr_storage& storage) noexcept;

/// Whether it is IPv4 in the clothes of IPv6: "::ffff:127.0.0.1" (RFC 4291, section 2.5.5.2).
[[nodiscard]] bool is_mapped(const ip_address& address) noexcept;
/// That IPv4 address; any other as it is.
[[nodiscard]] ip_address unmapped(const ip_address& address) noexcept;
/// Of an IPv4 address the mapped one; any other as it is.
[[nodiscard]] ip_address mapped(const ip_address& address) noexcept;
/// As a socket of that family wants it: IPv4 is mapped for one of IPv6.
socklen_t fill_address(const ip_endpoint& endpoint, int family, sockaddr_storage& storage) noexcept;

/// The name of a UNIX socket as the kernel wants it.
struct unix_address {
  sockaddr_un storage;
  socklen_t size;
};

/// Empty is the unnamed socket (which bind takes as a wish for any free abstract name on Linux); a
/// leading NUL is the abstract namespace, where every byte counts, and `not_supported` but on Linux.
/// Errors carry `operation`: `os_error` with ENAMETOOLONG for a path that leaves no room for its NUL,
/// or with EINVAL for one with a NUL inside, which the kernel would cut short without a word.
[[nodiscard]] result<unix_address> make_unix_address(std::string_view path, const char* operation);

/// The other way round; `data` may be unaligned. `size` is the kernel's word, which counts what did
/// not fit into the caller's storage too, so no more than a sockaddr_un is read, and a path need not
/// end with NUL. Empty for an unnamed socket and for any other family.
[[nodiscard]] std::string unix_path(const sockaddr* data, socklen_t size);

}}}  // namespace anyio::detail
