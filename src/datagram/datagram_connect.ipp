// Choosing one of a name's addresses for a UDP socket.
#pragma once

#include "base/standard.hpp"
#include "datagram/datagram_connect.hpp"

#include <cerrno>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

inline bool is_ip_family(int family) noexcept {
  return family == AF_UNSPEC || family == AF_INET || family == AF_INET6;
}

ANYIO_NET_FN errc create_udp_socket_operation::check() const noexcept {
  const bool enough = options_.family != AF_UNSPEC || !local_host_.empty();
  return made && enough && is_ip_family(options_.family) ? errc::ok : errc::invalid_argument;
}

ANYIO_NET_FN bool create_udp_socket_operation::attempt(result<udp_socket>& out) {
  if (local_host_.empty()) {
    out = udp_socket::open({any_address(options_.family == AF_INET6), options_.local_port}, options_);
    return true;
  }
  result<std::vector<ip_endpoint>> locals(errc::cancelled);
  if (!names_.ask(*this, local_host_, options_.local_port, options_.family, locals)) return false;
  if (!locals) return complete(out, result_access::failure<udp_socket>(locals));
  drop_missing_families(loop_core::current().system(), *locals);
  error first;
  for (const ip_endpoint& local : *locals) {
    out = udp_socket::open(local, options_);
    if (out.has_value()) return true;
    if (first.code() == errc::ok) first = out.error();
    // Only an address that this machine lacks leads to the next address; a port in use does not.
    if (out.error().os_error() != EADDRNOTAVAIL && out.error().os_error() != EAFNOSUPPORT) break;
  }
  return complete(out, first);
}

ANYIO_NET_FN errc create_connected_udp_socket_operation::check() const noexcept {
  return made && is_ip_family(options_.family) ? errc::ok : errc::invalid_argument;
}

ANYIO_NET_FN bool create_connected_udp_socket_operation::attempt(result<connected_udp_socket>& out) {
  result<std::vector<ip_endpoint>> answer(errc::cancelled);
  if (!local_host_.empty() && !local_is_known_) {
    if (!names_.ask(*this, local_host_, options_.local_port, options_.family, answer)) return false;
    if (!answer) return complete(out, result_access::failure<connected_udp_socket>(answer));
    locals_ = *std::move(answer);
    local_is_known_ = true;
  }
  if (has_remote_) {
    const bool other =
        options_.family != AF_UNSPEC && (options_.family == AF_INET6) != remote_.address.is_v6();
    if (other) return complete(out, error(errc::os_error, EAFNOSUPPORT, name));
    return complete(out, connect(std::vector<ip_endpoint>(1, remote_)));
  }
  if (!names_.ask(*this, remote_host_, remote_.port, options_.family, answer)) return false;
  if (!answer) return complete(out, result_access::failure<connected_udp_socket>(answer));
  drop_missing_families(loop_core::current().system(), *answer);
  return complete(out, connect(*answer));
}

ANYIO_NET_FN result<connected_udp_socket> create_connected_udp_socket_operation::connect(
    const std::vector<ip_endpoint>& remotes) const {
  error first;
  for (const ip_endpoint& remote : remotes) {
    result<connected_udp_socket> r(errc::cancelled);
    if (locals_.empty()) {
      r = connected_udp_socket::open(remote, options_);
    } else {
      auto local = locals_.begin();
      while (local != locals_.end() && !may_reach(*local, remote)) ++local;
      if (local == locals_.end()) {
        r = error(errc::os_error, EAFNOSUPPORT, "bind");
      } else {
        r = connected_udp_socket::open(remote, *local, options_);
      }
    }
    if (r) return r;
    if (first.code() == errc::ok) first = r.error();
  }
  return first;
}

ANYIO_NET_FN void create_connected_udp_socket_operation::left() noexcept {
  names_.withdraw();
  local_is_known_ = false;
  locals_.clear();
}

}  // namespace detail

ANYIO_NET_FN bool send_to_host_operation::transfer(result<void>& out) {
  if (!is_known_) {
    result<std::vector<ip_endpoint>> answer(errc::cancelled);
    // AF_UNSPEC: a socket of both families, which `from_fd` can take over, sends to mapped IPv4 addresses.
    if (!names_.ask(*this, host_, to_.port, AF_UNSPEC, answer)) return false;
    if (!answer) return detail::complete(out, detail::result_access::failure<void>(answer));
    const bool v6 = resource_->family() == AF_INET6;
    auto found = answer->begin();
    while (found != answer->end() && found->address.is_v6() != v6) ++found;
    to_ = found != answer->end() ? *found : answer->front();
    is_known_ = true;
  }
  const detail::socket_address to(to_, resource_->family());
  return settle(resource_->send(bytes_.data(), to.get(), to.size), out);
}

}}  // namespace anyio
