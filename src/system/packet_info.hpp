// Packet information: what the headers of an IP datagram say besides addresses and ports, and how it travels
// as control data of messages (RFC 3542, RFC 3168).
//
// The names and forms of the control messages differ between systems, and are known only here. Programs reach
// the conversions through a table of functions, so that programs without packet information do not link them.
// This part must not know sockets of the library.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "system/backend.hpp"

#include <cstddef>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Fields of the headers of a datagram, received or to be sent. To be sent: a member that keeps its initial
/// value is the system's choice, and so is one that the system cannot set for a single datagram (on macOS and
/// the BSDs the hop limit of IPv4, on the BSDs also its interface).
struct packet_info {
  /// Received: the address to which the datagram was sent; to a broadcast address, an own address where the
  /// system tells it. To send: the address from which it goes; a multicast group counts as none.
  ip_address local{};
  unsigned interface_index = 0;  ///< the number of the interface by which it came, or goes
  int ecn = 0;                   ///< the ECN bits, 0 to 3 (RFC 3168): 1 is ECT(1), 2 is ECT(0), 3 is CE
  int hop_limit = -1;            ///< the remaining hops (TTL of IPv4), or those to go; -1: not known

  friend bool operator==(const packet_info&, const packet_info&) = default;
};

namespace detail {

/// The traffic classes of a socket, for IPv4 and IPv6, as far as they were asked for; -1: not asked for.
struct traffic_classes {
  int v4 = -1;
  int v6 = -1;
};

/// Converts packet information from and to control data.
struct packet_info_format {
  /// Takes the information out of a received message; what is not there keeps its initial value.
  void (*read)(const message& m, packet_info& out) noexcept;
  /// Appends the information to the control data of a message to `to`; there must be `packet_info_room` bytes
  /// behind it. ECN bits are set in the socket's traffic class, which the system is asked for once.
  void (*write)(backend& system, int fd, const packet_info& info, const ip_address& to,
                traffic_classes& classes, message& m);
};

/// The largest control data that `write` appends: three messages, of 20 bytes at most.
inline constexpr std::size_t packet_info_room = CMSG_SPACE(20) + 2 * CMSG_SPACE(sizeof(int));

void read_packet_info(const message& m, packet_info& out) noexcept;
void write_packet_info(backend& system, int fd, const packet_info& info, const ip_address& to,
                       traffic_classes& classes, message& m);
inline constexpr packet_info_format packet_info_in_control{read_packet_info, write_packet_info};

/// Turns the reception of packet information on or off, for a UDP socket of this family. 0 or a negative
/// errno; then nothing has changed.
[[nodiscard]] int receive_packet_info(backend& system, int fd, int family, bool on);

/// Whether the members have values that can be sent, and the address fits to the receiver's.
[[nodiscard]] bool is_sendable(const packet_info& info, const ip_address& to) noexcept;

}  // namespace detail

}}  // namespace anyio
