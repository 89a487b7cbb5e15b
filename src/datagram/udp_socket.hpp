// UDP: sockets that send to anybody, and sockets with one peer.
//
// Addresses here are numbers; opening one takes no waiting. Creating sockets and sending by host name come
// in a later part, as do batches. This part must not know names.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "datagram/datagram.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

class udp_batch;
class receive_batch_operation;
class send_batch_operation;
class send_to_host_operation;

/// How to open a UDP socket. Without `local_host` it takes every address of `family`; "::", and AF_INET6
/// without a host, are IPv6 only.
struct udp_options {
  int family = AF_UNSPEC;            ///< AF_INET or AF_INET6, as in `tcp_connect_options`
  std::string_view local_host = {};  ///< a name or an address
  std::uint16_t local_port = 0;      ///< 0: one that is free; counts without `local_host` too
  bool reuse_port = false;           ///< SO_REUSEPORT: several sockets share the datagrams of a port
  bool reuse_address = false;        ///< SO_REUSEADDR: several sockets get every multicast datagram
  /// Called between `socket` and `bind`; gives 0 or an errno.
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;  ///< what `prepare` is given
};

/// A datagram, and who sent it. `auto [data, sender] = co_await socket.receive();`
class udp_packet {
 public:
  std::string data;    ///< all of its bytes
  ip_endpoint sender;  ///< where an answer goes

  udp_packet() = default;
  /// Takes both.
  udp_packet(std::string bytes, const ip_endpoint& from) : data(std::move(bytes)), sender(from) {}
};

/// A datagram that was received into a buffer.
struct udp_received {
  std::size_t size = 0;    ///< how many bytes of it are in the buffer
  ip_endpoint sender{};    ///< where an answer goes
  bool truncated = false;  ///< it was longer than the buffer, and the rest of it is lost
};

/// The same where there is but one sender.
struct received {
  std::size_t size = 0;    ///< how many bytes of it are in the buffer
  bool truncated = false;  ///< it was longer than the buffer, and the rest of it is lost
};

namespace detail {

class udp_resource final : public datagram_resource {
 public:
  using datagram_resource::datagram_resource;
  ip_endpoint local;
  ip_endpoint remote;
};

[[nodiscard]] ip_endpoint endpoint_of(const arrival& a) noexcept;

struct udp_access;

}  // namespace detail

/// What `udp_socket::receive()` gives.
class [[nodiscard]] receive_packet_operation
    : public detail::datagram_receive<receive_packet_operation, udp_packet> {
 public:
  using datagram_receive::datagram_receive;

 private:
  friend detail::datagram_receive<receive_packet_operation, udp_packet>;
  static udp_packet make(std::string&& data, const detail::arrival& a) {
    return udp_packet(std::move(data), detail::endpoint_of(a));
  }
};

/// What `udp_socket::receive(buffer)` gives.
class [[nodiscard]] receive_from_operation
    : public detail::datagram_receive_into<receive_from_operation, udp_received> {
 public:
  using datagram_receive_into::datagram_receive_into;

 private:
  friend detail::datagram_receive_into<receive_from_operation, udp_received>;
  static udp_received make(const detail::arrival& a) { return {a.size, detail::endpoint_of(a), a.truncated}; }
};

/// What `receive()` of a connected datagram socket gives.
class [[nodiscard]] receive_datagram_operation
    : public detail::datagram_receive<receive_datagram_operation, std::string> {
 public:
  using datagram_receive::datagram_receive;

 private:
  friend detail::datagram_receive<receive_datagram_operation, std::string>;
  static std::string make(std::string&& data, const detail::arrival&) { return std::move(data); }
};

/// What `connected_udp_socket::receive(buffer)` gives.
class [[nodiscard]] receive_datagram_into_operation
    : public detail::datagram_receive_into<receive_datagram_into_operation, received> {
 public:
  using datagram_receive_into::datagram_receive_into;

 private:
  friend detail::datagram_receive_into<receive_datagram_into_operation, received>;
  static received make(const detail::arrival& a) { return {a.size, a.truncated}; }
};

/// What `udp_socket::send_to` gives.
class [[nodiscard]] send_to_operation : public detail::datagram_send<send_to_operation> {
 public:
  static constexpr const char* name = "send_to";
  send_to_operation() = default;
  send_to_operation(detail::ref<detail::datagram_resource> r, detail::lent_bytes&& bytes,
                    const ip_endpoint& to)
      : datagram_send(std::move(r), std::move(bytes)), to_(to) {}

 private:
  friend detail::datagram_send<send_to_operation>;
  bool transfer(result<void>& out);
  ip_endpoint to_;
};

/// What `connected_udp_socket::send` gives.
class [[nodiscard]] send_datagram_operation : public detail::datagram_send<send_datagram_operation> {
 public:
  static constexpr const char* name = "send";
  using datagram_send::datagram_send;

 private:
  friend detail::datagram_send<send_datagram_operation>;
  bool transfer(result<void>& out) { return settle(resource_->send(bytes_.data(), nullptr, 0), out); }
};

/// What both kinds of UDP sockets have.
class ip_datagram_socket : public datagram_socket {
 public:
  /// Remembered after closing.
  [[nodiscard]] ip_endpoint local_endpoint() const noexcept {
    return resource_ ? udp().local : ip_endpoint();
  }

  /// Receives what is sent to a multicast group. The interface is, for IPv4, one of its addresses; for IPv6
  /// its number as the scope of this address or of the group's; otherwise the system chooses. `os_error`
  /// says why it failed; an address that is no group, or of the other family, is `invalid_argument`.
  result<> join_group(const ip_address& group, const ip_address& interface = {});
  /// Receives it no longer.
  result<> leave_group(const ip_address& group, const ip_address& interface = {});
  /// Through which interface multicast datagrams are sent; given in the same way. A socket for both families
  /// has one for each.
  result<> set_multicast_interface(const ip_address& interface);
  /// Whether sockets on this machine get the multicast datagrams that this one sends.
  result<> set_multicast_loop(bool on);
  /// How many hops multicast datagrams travel: 0 to 255, at first 1.
  result<> set_multicast_hops(int hops);
  /// Whether it may send to broadcast addresses.
  result<> set_broadcast(bool on);

 protected:
  ip_datagram_socket() = default;
  explicit ip_datagram_socket(detail::ref<detail::udp_resource> r) noexcept : datagram_socket(r) {}
  ip_datagram_socket(ip_datagram_socket&&) noexcept = default;
  ip_datagram_socket& operator=(ip_datagram_socket&&) noexcept = default;
  ~ip_datagram_socket() = default;

  [[nodiscard]] const detail::udp_resource& udp() const noexcept {
    return static_cast<const detail::udp_resource&>(*resource_);
  }

 private:
  result<> change_group(const ip_address& group, const ip_address& interface, bool join);
};

/// A UDP socket that receives from anybody and sends to anybody. Always bound.
///
/// A datagram is received whole and in one piece, an empty one too. What ICMP says of datagrams that were
/// sent is not told, as it is not by the system.
class udp_socket : public ip_datagram_socket {
 public:
  udp_socket() = default;

  /// Opens and binds one at once. The address stands in place of those in the options.
  static result<udp_socket> open(const ip_endpoint& local, const udp_options& options = {});
  /// Takes a bound UDP socket over. `invalid_argument` says what is wrong with it, and then it stays the
  /// caller's.
  static result<udp_socket> from_fd(int fd);

  /// The next datagram, of any size.
  [[nodiscard]] receive_packet_operation receive() { return receive_packet_operation(resource_); }
  /// The next datagram, as much of it as there is room for.
  [[nodiscard]] receive_from_operation receive(mutable_buffer into) { return {resource_, into}; }

  /// Sends one datagram. The bytes stay the caller's, and must stay, until it has completed; a string given
  /// as an rvalue is kept. One that is too long is `os_error` with EMSGSIZE.
  [[nodiscard]] send_to_operation send_to(const_buffer data, const ip_endpoint& to) {
    return {resource_, detail::lent_bytes(data), to};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_to_operation send_to(S&& data, const ip_endpoint& to) {
    return {resource_, detail::lent_bytes(std::move(data)), to};
  }
  /// The same to a host by name, which is looked up each time; an address is taken as it is.
  [[nodiscard]] send_to_host_operation send_to(const_buffer data, std::string_view host, std::uint16_t port);
  template <detail::string_rvalue S>
  [[nodiscard]] send_to_host_operation send_to(S&& data, std::string_view host, std::uint16_t port);

  /// Receives many datagrams a call, in place of what the batch held: at least one, and as many as are there
  /// and fit, up to some 256. The batch must stay until it has completed.
  [[nodiscard]] receive_batch_operation receive_batch(udp_batch& batch);
  /// Sends all of a batch in order, each to the address that stands by it, and gives how many: fewer than all
  /// if one failed; an error when that is the first. The batch stays as it is. Of an operation that is
  /// cancelled, times out or finds the socket closed, `sent()` tells how many went.
  [[nodiscard]] send_batch_operation send_batch(udp_batch& batch);

 private:
  friend struct detail::udp_access;
  explicit udp_socket(detail::ref<detail::udp_resource> r) noexcept : ip_datagram_socket(std::move(r)) {}
};

/// A UDP socket with one peer: it receives from no other.
///
/// When the peer's host refuses, one receive or send gives `broken_resource` with ECONNREFUSED; the socket
/// stays usable.
class connected_udp_socket : public ip_datagram_socket {
 public:
  connected_udp_socket() = default;

  /// Opens and connects one at once. Of the options `local_host` and `family` do not count.
  static result<connected_udp_socket> open(const ip_endpoint& remote, const udp_options& options = {});
  /// The same from an address of this machine.
  static result<connected_udp_socket> open(const ip_endpoint& remote, const ip_endpoint& local,
                                           const udp_options& options = {});
  /// Takes a connected UDP socket over. `invalid_argument` says what is wrong with it, and then it stays the
  /// caller's.
  static result<connected_udp_socket> from_fd(int fd);

  /// Remembered after closing.
  [[nodiscard]] ip_endpoint remote_endpoint() const noexcept {
    return resource_ ? udp().remote : ip_endpoint();
  }

  /// The next datagram, of any size.
  [[nodiscard]] receive_datagram_operation receive() { return receive_datagram_operation(resource_); }
  /// The next datagram, as much of it as there is room for.
  [[nodiscard]] receive_datagram_into_operation receive(mutable_buffer into) { return {resource_, into}; }
  /// Sends one datagram, as `udp_socket::send_to`.
  [[nodiscard]] send_datagram_operation send(const_buffer data) {
    return {resource_, detail::lent_bytes(data)};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_datagram_operation send(S&& data) {
    return {resource_, detail::lent_bytes(std::move(data))};
  }

  /// As `udp_socket::receive_batch` and `send_batch`; all goes to the peer, whatever address stands by it.
  [[nodiscard]] receive_batch_operation receive_batch(udp_batch& batch);
  /// As `udp_socket::send_batch`, to the peer.
  [[nodiscard]] send_batch_operation send_batch(udp_batch& batch);

 private:
  friend struct detail::udp_access;
  explicit connected_udp_socket(detail::ref<detail::udp_resource> r) noexcept
      : ip_datagram_socket(std::move(r)) {}
};

namespace detail {

/// Opens UDP sockets, for those who found the addresses.
struct udp_access {
  /// `remote` or `local` may be null, not both.
  static result<ref<udp_resource>> open(const ip_endpoint* local, const ip_endpoint* remote,
                                        const udp_options& options);
  static result<ref<udp_resource>> adopt(int fd, bool connected, const char* what);
  template <class Socket>
  static result<Socket> wrap(result<ref<udp_resource>>&& r) {
    if (!r) return r.error();
    return Socket(*std::move(r));
  }
  template <class Socket>
  static const ref<datagram_resource>& resource_of(const Socket& s) noexcept {
    return s.resource_;
  }
};

}  // namespace detail

}}  // namespace anyio
