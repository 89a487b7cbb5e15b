// Resolving names to addresses and back.
//
// Addresses in text and `localhost` need no query and complete at once; RFC 6761 keeps `localhost` on this
// machine, whatever the resolver says. Other queries block, so they run on a helper thread. This part must
// not know what the addresses are for.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/result.hpp"
#include "base/standard.hpp"
#include "operation/operation.hpp"
#include "operation/part.hpp"
#include "operation/threads.hpp"
#include "system/backend.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// The result of `getnameinfo`: numbers as text where no name is known.
class name_info {
 public:
  std::string host;     ///< a name, or the address as text
  std::string service;  ///< "http", or the port as text

  name_info() = default;
  /// Constructs from both parts.
  name_info(std::string h, std::string s) noexcept : host(std::move(h)), service(std::move(s)) {}
};

namespace detail {

/// Removes addresses whose family this machine lacks, unless that would remove all of them.
void drop_missing_families(backend& system, std::vector<ip_endpoint>& all);
/// Whether a socket that is bound to `local` may connect to `remote`: both are IPv4 (mapped or not), or both
/// are IPv6.
[[nodiscard]] bool may_reach(const ip_endpoint& local, const ip_endpoint& remote) noexcept;

/// A blocking look-up of a name; it may outlive its loop.
struct name_look_up {
  shared<backend> system;
  std::string host;
  std::uint16_t port = 0;
  int family = AF_UNSPEC;
  resolved operator()() const { return names_of(*system).resolve(host, port, family); }
};

/// The operation that `getaddrinfo` returns. Its result is one endpoint or more, in the resolver's order.
class [[nodiscard]] resolve_operation : public operation<resolve_operation, std::vector<ip_endpoint>> {
 public:
  static constexpr const char* name = "getaddrinfo";
  resolve_operation() = default;
  resolve_operation(std::string host, std::uint16_t port, int family)
      : operation(true), host_(std::move(host)), port_(port), family_(family) {}

  /// Completes a look-up that needs no query; otherwise returns false.
  bool answer_at_once(result<std::vector<ip_endpoint>>& out) const;

 private:
  friend class operation<resolve_operation, std::vector<ip_endpoint>>;

  bool attempt(result<std::vector<ip_endpoint>>& out);
  void left() noexcept { call_ = {}; }

  std::string host_;
  std::uint16_t port_ = 0;
  int family_ = AF_UNSPEC;
  helper_call<name_look_up> call_;
};

/// Look-ups, one after another, as parts of an operation.
class host_look_up {
 public:
  /// Returns true if the answer is available. Otherwise starts the look-up, unless it is pending, and runs
  /// `whole` later.
  bool ask(node& whole, const std::string& host, std::uint16_t port, int family,
           result<std::vector<ip_endpoint>>& out);
  void withdraw() noexcept {
    query_.reset();
    answer_ = {};  // the whole may have ended before it took it
  }
  [[nodiscard]] node* whole() const noexcept { return whole_; }

 private:
  void answered(result<std::vector<ip_endpoint>>&& r) { answer_.hand_over(r, *whole_); }

  node* whole_ = nullptr;
  owned<resolve_operation> query_;  // null for an address in text, which needs none
  part_outcome<std::vector<ip_endpoint>> answer_;
};

struct address_look_up {
  shared<backend> system;
  ip_endpoint endpoint;
  struct names {
    int status = 0;
    std::string host;
    std::string service;
  };
  names operator()() const;
};

/// The operation that `getnameinfo` returns.
class [[nodiscard]] reverse_operation : public operation<reverse_operation, name_info> {
 public:
  static constexpr const char* name = "getnameinfo";
  reverse_operation() = default;
  explicit reverse_operation(const ip_endpoint& endpoint) : operation(true), endpoint_(endpoint) {}

 private:
  friend class operation<reverse_operation, name_info>;

  bool attempt(result<name_info>& out);
  void left() noexcept { call_ = {}; }

  ip_endpoint endpoint_;
  helper_call<address_look_up> call_;
};

}  // namespace detail

/// Resolves a host to its addresses, at least one, each with the port, in the order of the resolver (RFC
/// 6724).
///
/// An address in text, with or without a scope, resolves to itself; `localhost` and any name under it resolve
/// to ::1 and 127.0.0.1 (RFC 6761). Both complete at once, without a thread. For other names a helper thread
/// asks the system, and cancelling does not wait for it. `family` is AF_UNSPEC, AF_INET or AF_INET6; an
/// IPv4-mapped address ("::ffff:127.0.0.1") belongs to AF_INET6.
///
/// Errors: `name_resolution` if the name has no address of the family, or the address in text is of the other
/// family; `invalid_argument` if the host is empty, is longer than 253 characters, or contains a NUL or a
/// non-ASCII character (use the `xn--` form); `os_error` for errors of the system, among them EAFNOSUPPORT.
[[nodiscard]] inline detail::resolve_operation getaddrinfo(std::string_view host, std::uint16_t port,
                                                           int family = AF_UNSPEC) {
  return detail::resolve_operation(std::string(host), port, family);
}

/// Resolves an endpoint to the names of host and service; numbers where no name is known.
[[nodiscard]] inline detail::reverse_operation getnameinfo(const ip_endpoint& endpoint) {
  return detail::reverse_operation(endpoint);
}

}}  // namespace anyio
