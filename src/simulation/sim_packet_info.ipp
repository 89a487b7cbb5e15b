// Packet information and multicast groups in the simulation, in the forms of the system for which it is
// compiled.
#pragma once

#include "simulation/sim_network.hpp"
#include "system/packet_info.ipp"

#if defined(ANYIO_NET_SIM)

#include <cerrno>
#include <cstddef>
#include <cstring>

#include <netinet/in.h>
#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// There is one interface, so that an address needs no scope.
inline ip_address without_scope(const ip_address& a) {
  return a.is_v6() ? ip_address::v6(a.bytes().first<16>()) : a;
}

/// The address in a request of RFC 3678.
inline ip_address requested_address(const sockaddr_storage& storage) {
  const result<ip_endpoint> e =
      ip_endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), sizeof storage);
  return e ? without_scope(e->address) : ip_address();
}

/// Adds a socket to a multicast group, or removes it. Returns 1 if the option is not about membership.
inline int change_membership(sim_socket& s, int level, int name, const void* value, socklen_t size) {
  ip_address group;
  bool joins = false;
#if defined(MCAST_JOIN_SOURCE_GROUP)
  const bool ip_level = level == IPPROTO_IP || level == IPPROTO_IPV6;
  if (ip_level && (name == MCAST_JOIN_SOURCE_GROUP || name == MCAST_LEAVE_SOURCE_GROUP)) {
    if (size < sizeof(group_source_req)) return -EINVAL;
    group_source_req request;
    std::memcpy(&request, value, sizeof request);
    group = requested_address(request.gsr_group);
    const ip_address source = requested_address(request.gsr_source);
    if (!group.is_multicast()) return -EINVAL;
    const auto found = s.groups.find(group);
    if (name == MCAST_JOIN_SOURCE_GROUP) {
      if (found != s.groups.end() && found->second.empty()) return -EINVAL;  // it hears all
      return s.groups[group].insert(source).second ? 0 : -EADDRNOTAVAIL;
    }
    if (found == s.groups.end() || found->second.erase(source) == 0) return -EADDRNOTAVAIL;
    if (found->second.empty()) s.groups.erase(found);
    return 0;
  }
  if (ip_level && (name == MCAST_JOIN_GROUP || name == MCAST_LEAVE_GROUP)) {
    if (size < sizeof(group_req)) return -EINVAL;
    group_req request;
    std::memcpy(&request, value, sizeof request);
    group = requested_address(request.gr_group);
    joins = name == MCAST_JOIN_GROUP;
  } else
#endif
      if (level == IPPROTO_IP && (name == IP_ADD_MEMBERSHIP || name == IP_DROP_MEMBERSHIP)) {
    if (size < sizeof(ip_mreq)) return -EINVAL;
    ip_mreq request;
    std::memcpy(&request, value, sizeof request);
    group = ip_address::v4(ntohl(request.imr_multiaddr.s_addr));
    joins = name == IP_ADD_MEMBERSHIP;
  } else if (level == IPPROTO_IPV6 && (name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP)) {
    if (size < sizeof(ipv6_mreq)) return -EINVAL;
    ipv6_mreq request;
    std::memcpy(&request, value, sizeof request);
    std::byte bytes[16];
    std::memcpy(bytes, &request.ipv6mr_multiaddr, sizeof bytes);
    group = ip_address::v6(bytes);
    joins = name == IPV6_JOIN_GROUP;
  } else {
    return 1;
  }
  if (!group.is_multicast()) return -EINVAL;
  if (joins) return s.groups.try_emplace(group).second ? 0 : -EADDRINUSE;
  return s.groups.erase(group) != 0 ? 0 : -EADDRNOTAVAIL;
}

/// The packet information of a datagram that is sent: from its control data, else from options.
inline packet_info info_of_sent(const sim_socket& s, const ip_address& to, const message& m) {
  packet_info info;
  if (m.control != nullptr && m.control_size != 0) read_packet_info(m, info);
  const bool v4 = to.is_v4();
  const bool group = to.is_multicast();
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  if (info.ecn == 0) info.ecn = s.option(level, v4 ? IP_TOS : packet_option::class_v6) & 3;
  if (info.hop_limit < 0) {
    const int name =
        v4 ? (group ? IP_MULTICAST_TTL : IP_TTL) : (group ? IPV6_MULTICAST_HOPS : IPV6_UNICAST_HOPS);
    const auto chosen = s.options.find({level, name});
    info.hop_limit = chosen != s.options.end() ? chosen->second : group ? 1 : 64;
  }
  return info;
}

/// Gives a receiver the packet information for which it has set options.
inline void hand_over_info(const sim_socket& s, const packet_info& info, message& m, bool takes_control) {
  const std::size_t room = takes_control && m.control != nullptr ? m.control_size : 0;
  m.control_size = 0;
  const bool v4 = info.local.is_v4();
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  const auto give = [&](int option, int type, const auto& value) {
    if (s.option(level, option) == 0) return;
    if (m.control_size + CMSG_SPACE(sizeof value) <= room) {
      append_value(m, level, type, value);
    } else {
      m.flags |= MSG_CTRUNC;
    }
  };
  if (v4) {
#if defined(__linux__) || defined(__APPLE__)
    in_pktinfo raw{};
    raw.ipi_ifindex = static_cast<decltype(raw.ipi_ifindex)>(info.interface_index);
    std::memcpy(&raw.ipi_addr, info.local.bytes().data(), sizeof raw.ipi_addr);
    if (!info.local.is_multicast()) raw.ipi_spec_dst = raw.ipi_addr;
#else
    in_addr raw;
    std::memcpy(&raw, info.local.bytes().data(), sizeof raw);
#endif
    give(packet_option::receive_info_v4, packet_option::info_v4, raw);
    give(packet_option::receive_hops_v4, packet_option::hops_v4, info.hop_limit);
#if defined(IP_RECVTOS)
    give(IP_RECVTOS, packet_option::class_v4, static_cast<unsigned char>(info.ecn));
#endif
    return;
  }
  packet_info_v6 raw{};
  std::memcpy(&raw.address, info.local.bytes().data(), sizeof raw.address);
  raw.index = info.interface_index;
  give(packet_option::receive_info_v6, packet_option::info_v6, raw);
  give(packet_option::receive_hops_v6, packet_option::hops_v6, info.hop_limit);
  give(packet_option::receive_class_v6, packet_option::class_v6, info.ecn);
}

}}}  // namespace anyio::detail

#endif
