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

static_assert(sizeof(udp_resource) <= recycler::block_size_of[recycler::descriptors]);

/// Opens a socket. `remote` or `local` may be null, but not both.
inline result<ref<udp_resource>> open_udp(const ip_endpoint* local, const ip_endpoint* remote,
                                          const udp_options& options) {
  loop_core& core = loop_core::current();
  backend& system = core.system();
  const int family = family_of((remote != nullptr ? remote : local)->address);
  const bool mapped =
      (local != nullptr && is_mapped(local->address)) || (remote != nullptr && is_mapped(remote->address));
  new_socket socket(system, family, SOCK_DGRAM);
  if (family == AF_INET6) socket.set_option(IPPROTO_IPV6, IPV6_V6ONLY, mapped ? 0 : 1);
  if (options.reuse_address) socket.set_option(SOL_SOCKET, SO_REUSEADDR, 1);
  if (options.reuse_port) socket.set_option(SOL_SOCKET, SO_REUSEPORT, 1);
  socket.prepare(options.prepare, options.prepare_data);
  if (local != nullptr) socket.bind(socket_address(*local, family));
  if (remote != nullptr) {
    const socket_address to(*remote, family);
    socket.connect(to.get(), to.size);
  }
  socket_address own;
  socket.step("bind", [&] { return read_address(system, socket.fd(), own); });
  ref<udp_resource> made(new udp_resource(core, family, remote != nullptr));
  socket.step("watch", [&] { return made->watch(socket.fd()); });
  if (socket.failed()) return socket.failure();
  made->local = own.endpoint();
  if (remote != nullptr) made->remote = {unmapped(remote->address), remote->port};
  socket.taken_over();
  return made;
}

inline result<ref<udp_resource>> adopt_udp(int fd, bool connected, const char* what) {
  loop_core& core = loop_core::current();
  const auto adopted = adopt_socket(core.system(), fd, {what, false, SOCK_DGRAM, connected});
  if (!adopted) return adopted.error();
  ref<udp_resource> made(new udp_resource(core, adopted->local.storage.ss_family, connected));
  made->local = adopted->local.endpoint();
  made->remote = adopted->remote.endpoint();
  if (!connected && made->local.port == 0) return refusal_of(what, 0, "the socket is not bound");
  if (const int status = made->watch(fd); status < 0) return error(errc::os_error, -status, what);
  return made;
}

}  // namespace detail

ANYIO_NET_FN bool send_to_operation::transfer(result<void>& out) {
  const detail::socket_address to(to_, resource_->family());
  return settle(resource_->send(bytes_.data(), to.get(), to.size), out);
}

ANYIO_NET_FN result<udp_socket> udp_socket::open(const ip_endpoint& local, const udp_options& options) {
  return detail::datagram_access::wrap<udp_socket>(detail::open_udp(&local, nullptr, options));
}

ANYIO_NET_FN result<udp_socket> udp_socket::from_fd(int fd) {
  return detail::datagram_access::wrap<udp_socket>(detail::adopt_udp(fd, false, "udp_socket"));
}

ANYIO_NET_FN result<connected_udp_socket> connected_udp_socket::open(const ip_endpoint& remote,
                                                                     const udp_options& options) {
  if (options.local_port == 0)
    return detail::datagram_access::wrap<connected_udp_socket>(detail::open_udp(nullptr, &remote, options));
  return open(remote, {detail::any_address(remote.address.is_v6()), options.local_port}, options);
}

ANYIO_NET_FN result<connected_udp_socket> connected_udp_socket::open(const ip_endpoint& remote,
                                                                     const ip_endpoint& local,
                                                                     const udp_options& options) {
  return detail::datagram_access::wrap<connected_udp_socket>(detail::open_udp(&local, &remote, options));
}

ANYIO_NET_FN result<connected_udp_socket> connected_udp_socket::from_fd(int fd) {
  return detail::datagram_access::wrap<connected_udp_socket>(
      detail::adopt_udp(fd, true, "connected_udp_socket"));
}

ANYIO_NET_COLD result<> connected_udp_socket::reconnect() { return reconnect(remote_endpoint()); }

ANYIO_NET_COLD result<> connected_udp_socket::reconnect(const ip_endpoint& remote) {
  constexpr const char* operation = "reconnect";
  if (!*this) return error(errc::closed_resource, 0, operation);
  auto& own = static_cast<detail::udp_resource&>(*resource_);
  const int family = own.family();
  const detail::socket_address to(remote, family);
  if (to.get()->sa_family != family) return error(errc::os_error, EAFNOSUPPORT, operation);
  const detail::socket_address former(own.remote, family);
  const int status = own.reconnect(to.get(), to.size, former.get(), former.size);
  detail::socket_address local;
  if (detail::read_address(own.core().system(), own.descriptor(), local) >= 0) own.local = local.endpoint();
  if (status < 0) return error(errc::os_error, -status, operation);
  own.remote = {detail::unmapped(remote.address), remote.port};
  return {};
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

template <class T>
result<> ip_datagram_socket::set_value(int level, int name, const T& value, const char* operation) {
  return detail::set_option_of(resource_.get(), level, name, &value, sizeof value, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::change_group(const ip_address& group, const ip_address& interface,
                                                       bool join) {
  const char* operation = join ? "join_group" : "leave_group";
  if (!group.is_multicast()) return error(errc::invalid_argument, 0, operation);
  if (group.is_v4()) {
    if (!interface.is_v4()) return error(errc::invalid_argument, 0, operation);
    ip_mreq request{};
    request.imr_multiaddr = detail::to_in_addr(group);
    request.imr_interface = detail::to_in_addr(interface);
    return set_value(IPPROTO_IP, join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, request, operation);
  }
  const std::uint32_t index = detail::is_given(interface) ? interface.scope_id() : group.scope_id();
  if (detail::is_given(interface) && index == 0) return error(errc::invalid_argument, 0, operation);
  ipv6_mreq request{};
  std::memcpy(&request.ipv6mr_multiaddr, group.bytes().data(), sizeof request.ipv6mr_multiaddr);
  request.ipv6mr_interface = index;
  return set_value(IPPROTO_IPV6, join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, request, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::join_group(const ip_address& group, const ip_address& interface) {
  return change_group(group, interface, true);
}

ANYIO_NET_FN result<> ip_datagram_socket::leave_group(const ip_address& group, const ip_address& interface) {
  return change_group(group, interface, false);
}

namespace detail {

/// The number of a network interface, 0 if there is none of this name.
inline std::uint32_t index_of_interface(std::string_view name) noexcept {
  char text[64];
  if (interface_lookup.index == nullptr || name.size() >= sizeof text || name.find('\0') != name.npos)
    return 0;
  text[name.copy(text, sizeof text - 1)] = '\0';
  return interface_lookup.index(text);
}

}  // namespace detail

ANYIO_NET_COLD result<> ip_datagram_socket::change_group(const ip_address& group,
                                                         std::string_view interface_name,
                                                         const ip_address& source, bool join) {
  const char* operation = join ? "join_group" : "leave_group";
  const auto refuse = [&](errc code, int error_number, const char* reason) {
    return detail::error_access::with_reason(error(code, error_number, operation), reason);
  };
  const bool v4 = group.is_v4();
  const bool has_source = source != ip_address::any_v4() && source != ip_address::any_v6();
  if (!group.is_multicast()) return refuse(errc::invalid_argument, 0, "the address is not a multicast group");
  if (has_source && source.is_v4() != v4)
    return refuse(errc::invalid_argument, 0, "the source is of another address family than the group");
  if (!*this) return error(errc::closed_resource, 0, operation);
  if (!v4 && resource_->family() == AF_INET)
    return refuse(errc::invalid_argument, 0, "the group is IPv6, and the socket is IPv4");
  std::uint32_t index = group.scope_id();
  if (!interface_name.empty()) {
    index = detail::index_of_interface(interface_name);
    if (index == 0) return refuse(errc::os_error, ENODEV, "there is no interface of this name");
  }
#if defined(MCAST_JOIN_SOURCE_GROUP)
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  if (has_source) {
    group_source_req request{};
    request.gsr_interface = index;
    detail::write_sockaddr({group, 0}, request.gsr_group);
    detail::write_sockaddr({source, 0}, request.gsr_source);
    return set_value(level, join ? MCAST_JOIN_SOURCE_GROUP : MCAST_LEAVE_SOURCE_GROUP, request, operation);
  }
  group_req request{};
  request.gr_interface = index;
  detail::write_sockaddr({group, 0}, request.gr_group);
  return set_value(level, join ? MCAST_JOIN_GROUP : MCAST_LEAVE_GROUP, request, operation);
#else
  if (v4 || has_source) return error(errc::not_supported, 0, operation);
  ipv6_mreq request{};
  std::memcpy(&request.ipv6mr_multiaddr, group.bytes().data(), sizeof request.ipv6mr_multiaddr);
  request.ipv6mr_interface = index;
  return set_value(IPPROTO_IPV6, join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, request, operation);
#endif
}

ANYIO_NET_FN result<> ip_datagram_socket::join_group(const ip_address& group, std::string_view interface_name,
                                                     const ip_address& source) {
  return change_group(group, interface_name, source, true);
}

ANYIO_NET_FN result<> ip_datagram_socket::leave_group(const ip_address& group,
                                                      std::string_view interface_name,
                                                      const ip_address& source) {
  return change_group(group, interface_name, source, false);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_multicast_interface(const ip_address& interface) {
  constexpr const char* operation = "set_multicast_interface";
  if (!*this) return error(errc::closed_resource, 0, operation);
  const bool for_v4 = interface.is_v4() && (resource_->family() == AF_INET || detail::is_given(interface));
  if (for_v4) {  // also for a socket of both families
    const in_addr address = detail::to_in_addr(interface);
    return set_value(IPPROTO_IP, IP_MULTICAST_IF, address, operation);
  }
  if (resource_->family() == AF_INET) return error(errc::invalid_argument, 0, operation);
  const unsigned index = interface.scope_id();
  if (detail::is_given(interface)) {
    if (index == 0) return error(errc::invalid_argument, 0, operation);
  } else {  // for both families, if the socket has both
    const in_addr any{};
    static_cast<void>(set_value(IPPROTO_IP, IP_MULTICAST_IF, any, operation));
  }
  return set_value(IPPROTO_IPV6, IPV6_MULTICAST_IF, index, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_multicast_loop(bool on) {
  constexpr const char* operation = "set_multicast_loop";
  if (!*this) return error(errc::closed_resource, 0, operation);
  // A socket of both families has two settings; an IPv6-only socket may reject that of IPv4.
  const unsigned char byte = on ? 1 : 0;  // some systems accept no other size
  result<> for_v4 = set_value(IPPROTO_IP, IP_MULTICAST_LOOP, byte, operation);
  if (resource_->family() == AF_INET) return for_v4;
  const unsigned value = on ? 1 : 0;
  return set_value(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, value, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_multicast_hops(int hops) {
  constexpr const char* operation = "set_multicast_hops";
  if (hops < 0 || hops > 255) return error(errc::invalid_argument, 0, operation);
  if (!*this) return error(errc::closed_resource, 0, operation);
  const auto byte = static_cast<unsigned char>(hops);
  result<> for_v4 = set_value(IPPROTO_IP, IP_MULTICAST_TTL, byte, operation);
  if (resource_->family() == AF_INET) return for_v4;
  return set_value(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, hops, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_broadcast(bool on) {
  return set_value(SOL_SOCKET, SO_BROADCAST, on ? 1 : 0, "set_broadcast");
}

}}  // namespace anyio
