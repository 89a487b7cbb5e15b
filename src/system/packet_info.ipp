// The control messages of packet information, on Linux, macOS and the BSDs.
#pragma once

#include "system/new_socket.hpp"
#include "system/packet_info.hpp"

#include <cstdint>
#include <cstring>
#include <span>

#include <netinet/in.h>
#include <sys/socket.h>

#if !defined(__linux__) && !defined(__APPLE__)
#include <net/if_dl.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Socket options, and the types of the control messages that they cause.
namespace packet_option {

#if defined(__APPLE__)
// <netinet6/in6.h> has them only if a macro was defined before its first inclusion.
inline constexpr int receive_info_v6 = 61;
inline constexpr int info_v6 = 46;
inline constexpr int receive_hops_v6 = 37;
inline constexpr int hops_v6 = 47;
inline constexpr int receive_class_v6 = 35;
inline constexpr int class_v6 = 36;
#else
inline constexpr int receive_info_v6 = IPV6_RECVPKTINFO;
inline constexpr int info_v6 = IPV6_PKTINFO;
inline constexpr int receive_hops_v6 = IPV6_RECVHOPLIMIT;
inline constexpr int hops_v6 = IPV6_HOPLIMIT;
inline constexpr int receive_class_v6 = IPV6_RECVTCLASS;
inline constexpr int class_v6 = IPV6_TCLASS;
#endif

#if defined(__linux__) || defined(__APPLE__)
inline constexpr int receive_info_v4 = IP_PKTINFO;
inline constexpr int info_v4 = IP_PKTINFO;
#else
inline constexpr int receive_info_v4 = IP_RECVDSTADDR;
inline constexpr int info_v4 = IP_RECVDSTADDR;
#endif
inline constexpr int receive_hops_v4 = IP_RECVTTL;
#if defined(__linux__)
inline constexpr int hops_v4 = IP_TTL;
inline constexpr int class_v4 = IP_TOS;
#else  // the type of the message is the option
inline constexpr int hops_v4 = IP_RECVTTL;
#if defined(IP_RECVTOS)
inline constexpr int class_v4 = IP_RECVTOS;
#else
inline constexpr int class_v4 = -1;
#endif
#endif

inline constexpr int of_v4[] = {
    receive_info_v4,
    receive_hops_v4,
#if defined(IP_RECVTOS)
    IP_RECVTOS,
#endif
#if !defined(__linux__) && !defined(__APPLE__)
    IP_RECVIF,
#endif
};
inline constexpr int of_v6[] = {receive_info_v6, receive_hops_v6, receive_class_v6};

}  // namespace packet_option

/// The content of an IPV6_PKTINFO message; `in6_pktinfo` is not visible everywhere.
struct packet_info_v6 {
  in6_addr address;
  unsigned index;
};

inline ip_address address_of(const in_addr& raw) noexcept { return ip_address::v4(ntohl(raw.s_addr)); }

/// An address to or from which a datagram goes. Those that are valid only on a link have the interface as
/// their scope.
inline ip_address address_of(const packet_info_v6& raw) noexcept {
  std::byte bytes[16];
  std::memcpy(bytes, &raw.address, sizeof bytes);
  const auto second = std::to_integer<unsigned>(bytes[1]);
  const bool on_link = bytes[0] == std::byte{0xfe} && (second & 0xc0U) == 0x80;
  const bool group_on_link = bytes[0] == std::byte{0xff} && ((second & 15U) == 1 || (second & 15U) == 2);
  return unmapped(ip_address::v6(bytes, on_link || group_on_link ? raw.index : 0));
}

/// A number that the system passes as one byte or as an int.
inline int number_in(const unsigned char* data, std::size_t size) noexcept {
  int number = 0;
  if (size < sizeof number) return size != 0 ? data[0] : 0;
  std::memcpy(&number, data, sizeof number);
  return number;
}

inline void read_info_v4(int type, const unsigned char* data, std::size_t size, packet_info& out) noexcept {
  if (type == packet_option::hops_v4 || type == IP_TTL) {
    out.hop_limit = number_in(data, size);
  } else if (type == packet_option::class_v4 || type == IP_TOS) {
    out.ecn = number_in(data, size) & 3;
#if defined(__linux__) || defined(__APPLE__)
  } else if (type == packet_option::info_v4 && size >= sizeof(in_pktinfo)) {
    in_pktinfo raw;
    std::memcpy(&raw, data, sizeof raw);
    out.interface_index = static_cast<unsigned>(raw.ipi_ifindex);
    out.local = address_of(raw.ipi_addr);
    // An answer cannot come from a broadcast address.
    if (!out.local.is_multicast() && raw.ipi_spec_dst.s_addr != 0) out.local = address_of(raw.ipi_spec_dst);
#else
  } else if (type == packet_option::info_v4 && size >= sizeof(in_addr)) {
    in_addr raw;
    std::memcpy(&raw, data, sizeof raw);
    out.local = address_of(raw);
  } else if (type == IP_RECVIF && size >= offsetof(sockaddr_dl, sdl_index) + sizeof(sockaddr_dl::sdl_index)) {
    decltype(sockaddr_dl::sdl_index) index;
    std::memcpy(&index, data + offsetof(sockaddr_dl, sdl_index), sizeof index);
    out.interface_index = index;
#endif
  }
}

inline void read_info_v6(int type, const unsigned char* data, std::size_t size, packet_info& out) noexcept {
  if (type == packet_option::hops_v6) {
    out.hop_limit = number_in(data, size);
  } else if (type == packet_option::class_v6) {
    out.ecn = number_in(data, size) & 3;
  } else if (type == packet_option::info_v6 && size >= sizeof(packet_info_v6)) {
    packet_info_v6 raw;
    std::memcpy(&raw, data, sizeof raw);
    out.interface_index = raw.index;
    out.local = address_of(raw);
  }
}

ANYIO_NET_FN void read_packet_info(const message& m, packet_info& out) noexcept {
  msghdr header{};
  header.msg_control = m.control;
  header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
  const auto* const end = static_cast<const unsigned char*>(m.control) + m.control_size;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = next_control(header, c)) {
    const auto left = static_cast<std::size_t>(end - reinterpret_cast<const unsigned char*>(c));
    if (c->cmsg_len < CMSG_LEN(0) || c->cmsg_len > left) break;  // malformed
    const std::size_t size = static_cast<std::size_t>(c->cmsg_len) - CMSG_LEN(0);
    if (c->cmsg_level == IPPROTO_IP) read_info_v4(c->cmsg_type, CMSG_DATA(c), size, out);
    if (c->cmsg_level == IPPROTO_IPV6) read_info_v6(c->cmsg_type, CMSG_DATA(c), size, out);
  }
}

template <class T>
void append_value(message& m, int level, int type, const T& value) noexcept {
  append_control(m, level, type, &value, sizeof value);
}

/// The traffic class with these ECN bits; the others are those of the socket.
inline int class_with(backend& system, int fd, int level, int name, int ecn, int& known) {
  if (known < 0) {
    known = 0;
    static_cast<void>(read_option(system, fd, level, name, known));
  }
  return (known & 0xfc) | ecn;
}

inline bool is_given_local(const ip_address& a) noexcept {
  return a != ip_address::any_v4() && a != ip_address::any_v6() && !a.is_multicast();
}

ANYIO_NET_FN void write_packet_info(backend& system, int fd, const packet_info& info, const ip_address& to,
                                    traffic_classes& classes, message& m) {
  const ip_address local = unmapped(info.local);
  const bool from_local = is_given_local(local);
  if (unmapped(to).is_v4()) {
#if defined(__linux__) || defined(__APPLE__)
    if (from_local || info.interface_index != 0) {
      in_pktinfo raw{};
      raw.ipi_ifindex = static_cast<decltype(raw.ipi_ifindex)>(info.interface_index);
      if (from_local) std::memcpy(&raw.ipi_spec_dst, local.bytes().data(), sizeof raw.ipi_spec_dst);
      append_value(m, IPPROTO_IP, IP_PKTINFO, raw);
    }
#elif defined(IP_SENDSRCADDR)
    if (from_local) {
      in_addr raw;
      std::memcpy(&raw, local.bytes().data(), sizeof raw);
      append_value(m, IPPROTO_IP, IP_SENDSRCADDR, raw);
    }
#endif
#if defined(__linux__) || defined(__APPLE__) || defined(__FreeBSD__)
    if (info.ecn != 0) {
      const int value = class_with(system, fd, IPPROTO_IP, IP_TOS, info.ecn, classes.v4);
#if defined(__FreeBSD__)
      append_value(m, IPPROTO_IP, IP_TOS, static_cast<unsigned char>(value));
#else
      append_value(m, IPPROTO_IP, IP_TOS, value);
#endif
    }
#endif
#if defined(__linux__)
    if (info.hop_limit >= 0) append_value(m, IPPROTO_IP, IP_TTL, info.hop_limit);
#endif
    return;
  }
  const unsigned index = info.interface_index != 0 ? info.interface_index : local.scope_id();
  if (from_local || index != 0) {
    packet_info_v6 raw{};
    if (from_local) std::memcpy(&raw.address, local.bytes().data(), sizeof raw.address);
    raw.index = index;
    append_value(m, IPPROTO_IPV6, packet_option::info_v6, raw);
  }
  if (info.ecn != 0) {
    const int value = class_with(system, fd, IPPROTO_IPV6, packet_option::class_v6, info.ecn, classes.v6);
    append_value(m, IPPROTO_IPV6, packet_option::class_v6, value);
  }
  if (info.hop_limit >= 0) append_value(m, IPPROTO_IPV6, packet_option::hops_v6, info.hop_limit);
}

ANYIO_NET_COLD int receive_packet_info(backend& system, int fd, int family, bool on) {
  const int level = family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
  const std::span<const int> names =
      family == AF_INET6 ? std::span<const int>(packet_option::of_v6) : packet_option::of_v4;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const int status = write_option(system, fd, level, names[i], on ? 1 : 0);
    if (status >= 0) continue;
    while (i-- != 0) static_cast<void>(write_option(system, fd, level, names[i], on ? 0 : 1));
    return status;
  }
  if (family == AF_INET6) {  // for the IPv4 datagrams of a socket of both families; another rejects it
    for (const int name : packet_option::of_v4)
      static_cast<void>(write_option(system, fd, IPPROTO_IP, name, on ? 1 : 0));
  }
  return 0;
}

ANYIO_NET_FN bool is_sendable(const packet_info& info, const ip_address& to) noexcept {
  const bool in_range = info.ecn >= 0 && info.ecn <= 3 && info.hop_limit >= -1 && info.hop_limit <= 255;
  const ip_address local = unmapped(info.local);
  return in_range && (!is_given_local(local) || local.is_v4() == unmapped(to).is_v4());
}

}}}  // namespace anyio::detail
