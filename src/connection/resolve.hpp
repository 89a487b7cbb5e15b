// From names to addresses and back.
//
// What needs no asking is answered at once: addresses in text, and `localhost`, which RFC 6761 keeps on
// this machine whatever the resolver says. The rest blocks, and so goes to a helper thread. This part must
// not know what the addresses are for.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/result.hpp"
#include "operation/operation.hpp"
#include "operation/threads.hpp"
#include "system/backend.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// What `getnameinfo` gives: numbers as text where no name is known.
class name_info {
 public:
  std::string host;     ///< a name, or the address as text
  std::string service;  ///< "http", or the port as text

  name_info() = default;
  /// Takes both.
  name_info(std::string h, std::string s) noexcept : host(std::move(h)), service(std::move(s)) {}
};

namespace detail {

/// Of several addresses leaves out those of a family that this machine lacks, unless it lacks all of them.
void drop_missing_families(backend& system, std::vector<ip_endpoint>& all);
/// Whether a socket that is bound to `local` may connect to `remote`: both are IPv4, mapped or not, or
/// neither.
[[nodiscard]] bool may_reach(const ip_endpoint& local, const ip_endpoint& remote) noexcept;

/// A blocking look-up of a name; it may outlast its loop.
struct name_look_up {
  std::shared_ptr<backend> system;
  std::string host;
  std::uint16_t port = 0;
  int family = AF_UNSPEC;
  resolved operator()() const { return names_of(*system).resolve(host, port, family); }
};

/// What `getaddrinfo` gives: one endpoint or more, in the resolver's order.
class [[nodiscard]] resolve_operation : public operation<resolve_operation, std::vector<ip_endpoint>> {
 public:
  static constexpr const char* name = "getaddrinfo";
  resolve_operation() = default;
  resolve_operation(std::string host, std::uint16_t port, int family)
      : host_(std::move(host)), port_(port), family_(family), given_(true) {}

 private:
  friend class operation<resolve_operation, std::vector<ip_endpoint>>;

  [[nodiscard]] errc check() const noexcept { return given_ ? errc::ok : errc::invalid_argument; }
  bool attempt(result<std::vector<ip_endpoint>>& out);
  /// What can be told without asking anybody.
  bool answer_at_once(result<std::vector<ip_endpoint>>& out) const;
  void left() noexcept { call_ = {}; }

  std::string host_;
  std::uint16_t port_ = 0;
  int family_ = AF_UNSPEC;
  bool given_ = false;
  helper_call<name_look_up> call_;
};

struct address_look_up {
  std::shared_ptr<backend> system;
  ip_endpoint endpoint;
  struct names {
    int status = 0;
    std::string host;
    std::string service;
  };
  names operator()() const;
};

/// What `getnameinfo` gives.
class [[nodiscard]] reverse_operation : public operation<reverse_operation, name_info> {
 public:
  static constexpr const char* name = "getnameinfo";
  reverse_operation() = default;
  explicit reverse_operation(const ip_endpoint& endpoint) : endpoint_(endpoint), given_(true) {}

 private:
  friend class operation<reverse_operation, name_info>;

  [[nodiscard]] errc check() const noexcept { return given_ ? errc::ok : errc::invalid_argument; }
  bool attempt(result<name_info>& out);
  void left() noexcept { call_ = {}; }

  ip_endpoint endpoint_;
  bool given_ = false;
  helper_call<address_look_up> call_;
};

}  // namespace detail

/// The addresses of a host, at least one, each with the port, in the order of the resolver (RFC 6724).
///
/// An address in text, with a scope or without, is itself; `localhost` and any name under it is ::1 and
/// 127.0.0.1 (RFC 6761); both at once, without a thread. Other names are asked of the system on a helper
/// thread, and cancelling does not wait for it. `family` is AF_UNSPEC, AF_INET or AF_INET6; an IPv4-mapped
/// address ("::ffff:127.0.0.1") is of AF_INET6.
///
/// Errors: `name_resolution` if the name has no address of the family, also for an address in text of the
/// other one; `invalid_argument` for a host that is empty, longer than 253 characters, or has a NUL or
/// other than ASCII in it (give the `xn--` form); `os_error` for the system's own, EAFNOSUPPORT among them.
[[nodiscard]] inline detail::resolve_operation getaddrinfo(std::string_view host, std::uint16_t port,
                                                           int family = AF_UNSPEC) {
  return detail::resolve_operation(std::string(host), port, family);
}

/// Host and service of an endpoint by name; numbers where no name is known.
[[nodiscard]] inline detail::reverse_operation getnameinfo(const ip_endpoint& endpoint) {
  return detail::reverse_operation(endpoint);
}

}}  // namespace anyio
