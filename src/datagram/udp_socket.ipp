// Opening UDP sockets, and their multicast options.
#pragma once

#include "datagram/udp_socket.hpp"
#include "stream/socket.hpp"
#include "system/unique_fd.hpp"

#include <cerrno>
#include <cstring>

#include <netinet/in.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN ip_endpoint endpoint_of(const arrival& a) noexcept {
  const result<ip_endpoint> r =
      ip_endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&a.from), a.from_size);
  return r ? *r : ip_endpoint();
}

static_assert(sizeof(udp_resource) <= recycler::block_size_of[recycler::descriptors]);

ANYIO_NET_FN result<ref<udp_resource>> udp_access::open(const ip_endpoint* local, const ip_endpoint* remote,
                                                        const udp_options& options) {
  loop_core& core = loop_core::current();
  backend& system = core.system();
  const int family = (remote != nullptr ? remote : local)->address.is_v4() ? AF_INET : AF_INET6;
  const auto failed = [](int status, const char* operation) {
    return error(errc::os_error, -status, operation);
  };
  int status = system.open_socket(family, SOCK_DGRAM, 0);
  if (status < 0) return failed(status, "socket");
  unique_fd fd(status);

  const int on = 1;
  const auto enable = [&](int level, int name) {
    return system.set_option(fd.get(), level, name, &on, sizeof on);
  };
  if (family == AF_INET6) {
    const bool mapped =
        (local != nullptr && is_mapped(local->address)) || (remote != nullptr && is_mapped(remote->address));
    const int v6_only = mapped ? 0 : 1;
    status = system.set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only);
  }
  if (status >= 0 && options.reuse_address) status = enable(SOL_SOCKET, SO_REUSEADDR);
  if (status >= 0 && options.reuse_port) status = enable(SOL_SOCKET, SO_REUSEPORT);
  if (status < 0) return failed(status, "setsockopt");
  if (options.prepare != nullptr) {
    const int reason = options.prepare(fd.get(), options.prepare_data);
    if (reason != 0) return failed(-reason, "prepare");
  }

  sockaddr_storage address;
  if (local != nullptr) {
    const socklen_t size = fill_address(*local, family, address);
    status = system.bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size);
    if (status < 0) return failed(status, "bind");
  }
  if (remote != nullptr) {
    const socklen_t size = fill_address(*remote, family, address);
    status = system.connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size);
    if (status < 0) return failed(status, "connect");
  }

  ref<udp_resource> made(new udp_resource(core, family, remote != nullptr));
  status = read_local_endpoint(system, fd.get(), made->local);
  if (status < 0) return failed(status, "bind");
  if (remote != nullptr) made->remote = {unmapped(remote->address), remote->port};
  status = made->watch(fd.get());
  if (status < 0) return failed(status, "watch");
  static_cast<void>(fd.release());
  return made;
}

ANYIO_NET_FN result<ref<udp_resource>> udp_access::adopt(int fd, bool connected, const char* what) {
  loop_core& core = loop_core::current();
  backend& system = core.system();
  if (auto r = adopt_socket(system, fd, {what, false, SOCK_DGRAM, connected}); !r) return r.error();
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  static_cast<void>(system.local_address(fd, reinterpret_cast<sockaddr*>(&address), &size));
  ref<udp_resource> made(new udp_resource(core, address.ss_family, connected));
  made->local = local_endpoint_of(system, fd);
  if (connected) made->remote = remote_endpoint_of(system, fd);
  if (!connected && made->local.port == 0)
    return error_access::with_reason(error(errc::invalid_argument, 0, what), "the socket is not bound");
  if (const int status = made->watch(fd); status < 0) return error(errc::os_error, -status, what);
  return made;
}

}  // namespace detail

ANYIO_NET_FN bool send_to_operation::transfer(result<void>& out) {
  sockaddr_storage address;
  const socklen_t size = detail::fill_address(to_, resource_->family(), address);
  return settle(resource_->send(bytes_.data(), reinterpret_cast<const sockaddr*>(&address), size), out);
}

ANYIO_NET_FN result<udp_socket> udp_socket::open(const ip_endpoint& local, const udp_options& options) {
  return detail::udp_access::wrap<udp_socket>(detail::udp_access::open(&local, nullptr, options));
}

ANYIO_NET_FN result<udp_socket> udp_socket::from_fd(int fd) {
  return detail::udp_access::wrap<udp_socket>(detail::udp_access::adopt(fd, false, "udp_socket"));
}

ANYIO_NET_FN result<connected_udp_socket> connected_udp_socket::open(const ip_endpoint& remote,
                                                                     const udp_options& options) {
  if (options.local_port == 0)
    return detail::udp_access::wrap<connected_udp_socket>(
        detail::udp_access::open(nullptr, &remote, options));
  return open(remote,
              {remote.address.is_v4() ? ip_address::any_v4() : ip_address::any_v6(), options.local_port},
              options);
}

ANYIO_NET_FN result<connected_udp_socket> connected_udp_socket::open(const ip_endpoint& remote,
                                                                     const ip_endpoint& local,
                                                                     const udp_options& options) {
  return detail::udp_access::wrap<connected_udp_socket>(detail::udp_access::open(&local, &remote, options));
}

ANYIO_NET_FN result<connected_udp_socket> connected_udp_socket::from_fd(int fd) {
  return detail::udp_access::wrap<connected_udp_socket>(
      detail::udp_access::adopt(fd, true, "connected_udp_socket"));
}

// --- multicast

namespace detail {

inline bool is_given(const ip_address& a) noexcept { return a != ip_address(); }

inline in_addr to_in_addr(const ip_address& a) noexcept {
  in_addr raw;
  std::memcpy(&raw, a.bytes().data(), sizeof raw);
  return raw;
}

}  // namespace detail

ANYIO_NET_FN result<> ip_datagram_socket::change_group(const ip_address& group, const ip_address& interface,
                                                       bool join) {
  const char* operation = join ? "join_group" : "leave_group";
  if (!group.is_multicast()) return error(errc::invalid_argument, 0, operation);
  if (group.is_v4()) {
    if (!interface.is_v4()) return error(errc::invalid_argument, 0, operation);
    ip_mreq request{};
    request.imr_multiaddr = detail::to_in_addr(group);
    request.imr_interface = detail::to_in_addr(interface);
    return set_raw_option(IPPROTO_IP, join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, &request, sizeof request,
                          operation);
  }
  const std::uint32_t index = detail::is_given(interface) ? interface.scope_id() : group.scope_id();
  if (detail::is_given(interface) && index == 0) return error(errc::invalid_argument, 0, operation);
  ipv6_mreq request{};
  std::memcpy(&request.ipv6mr_multiaddr, group.bytes().data(), sizeof request.ipv6mr_multiaddr);
  request.ipv6mr_interface = index;
  return set_raw_option(IPPROTO_IPV6, join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, &request, sizeof request,
                        operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::join_group(const ip_address& group, const ip_address& interface) {
  return change_group(group, interface, true);
}

ANYIO_NET_FN result<> ip_datagram_socket::leave_group(const ip_address& group, const ip_address& interface) {
  return change_group(group, interface, false);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_multicast_interface(const ip_address& interface) {
  constexpr const char* operation = "set_multicast_interface";
  if (!*this) return error(errc::closed_resource, 0, operation);
  const bool for_v4 = interface.is_v4() && (resource_->family() == AF_INET || detail::is_given(interface));
  if (for_v4) {  // also for a socket of both families
    const in_addr address = detail::to_in_addr(interface);
    return set_raw_option(IPPROTO_IP, IP_MULTICAST_IF, &address, sizeof address, operation);
  }
  if (resource_->family() == AF_INET) return error(errc::invalid_argument, 0, operation);
  const unsigned index = interface.scope_id();
  if (detail::is_given(interface)) {
    if (index == 0) return error(errc::invalid_argument, 0, operation);
  } else {  // for both families, if the socket has both
    const in_addr any{};
    static_cast<void>(set_raw_option(IPPROTO_IP, IP_MULTICAST_IF, &any, sizeof any, operation));
  }
  return set_raw_option(IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof index, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_multicast_loop(bool on) {
  constexpr const char* operation = "set_multicast_loop";
  if (!*this) return error(errc::closed_resource, 0, operation);
  // A socket of both families has two settings; an IPv6-only socket may reject that of IPv4.
  const unsigned char byte = on ? 1 : 0;  // some systems accept no other size
  result<> for_v4 = set_raw_option(IPPROTO_IP, IP_MULTICAST_LOOP, &byte, sizeof byte, operation);
  if (resource_->family() == AF_INET) return for_v4;
  const unsigned value = on ? 1 : 0;
  return set_raw_option(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &value, sizeof value, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_multicast_hops(int hops) {
  constexpr const char* operation = "set_multicast_hops";
  if (hops < 0 || hops > 255) return error(errc::invalid_argument, 0, operation);
  if (!*this) return error(errc::closed_resource, 0, operation);
  const auto byte = static_cast<unsigned char>(hops);
  result<> for_v4 = set_raw_option(IPPROTO_IP, IP_MULTICAST_TTL, &byte, sizeof byte, operation);
  if (resource_->family() == AF_INET) return for_v4;
  return set_raw_option(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_broadcast(bool on) {
  const int value = on ? 1 : 0;
  return set_raw_option(SOL_SOCKET, SO_BROADCAST, &value, sizeof value, "set_broadcast");
}

}}  // namespace anyio
