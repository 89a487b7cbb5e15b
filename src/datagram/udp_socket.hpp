// UDP: sockets that send to any address, and sockets with one peer.
//
// Addresses here are numbers, so opening a socket never waits. A later part adds host names, and another adds
// batches. This part must not know names.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "datagram/datagram.hpp"
#include "system/packet_info.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

class udp_batch;
class receive_batch_operation;
class send_batch_operation;
class send_to_host_operation;
class send_packet_operation;

/// How to open a UDP socket. Without `local_host` it is bound to every address of `family`. "::", or AF_INET6
/// without a host, means IPv6 only.
struct udp_options {
  int family = AF_UNSPEC;            ///< AF_INET or AF_INET6, as in `tcp_connect_options`
  std::string_view local_host = {};  ///< a name or an address
  std::uint16_t local_port = 0;      ///< 0: the system chooses a free port; used without `local_host` too
  bool reuse_port = false;           ///< SO_REUSEPORT: several sockets share the datagrams of a port
  bool reuse_address = false;        ///< SO_REUSEADDR: several sockets get every multicast datagram
  /// Called between socket(2) and bind(2); returns 0 or an errno.
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;  ///< passed to `prepare`
};

/// A datagram and its sender. `auto [data, sender] = co_await socket.receive();`
class udp_packet {
 public:
  std::string data;    ///< all of its bytes
  ip_endpoint sender;  ///< the address for an answer
  packet_info info;    ///< initial values unless `set_packet_info` is on; no part of structured bindings

  udp_packet() = default;
  /// Constructs from its parts.
  udp_packet(std::string bytes, const ip_endpoint& from, const packet_info& about = {})
      : data(std::move(bytes)), sender(from), info(about) {}
};

/// A datagram that was received into a buffer.
struct udp_received {
  std::size_t size = 0;    ///< number of bytes in the buffer
  ip_endpoint sender{};    ///< the address for an answer
  bool truncated = false;  ///< the datagram was longer than the buffer, and the rest of it is lost
  packet_info info{};      ///< initial values unless `set_packet_info` is on; no part of structured bindings
};

/// A datagram that was received into a buffer from a connected peer.
struct received {
  std::size_t size = 0;    ///< number of bytes in the buffer
  bool truncated = false;  ///< the datagram was longer than the buffer, and the rest of it is lost
};

namespace detail {

class udp_resource final : public datagram_resource {
 public:
  using datagram_resource::datagram_resource;
  ip_endpoint local;
  ip_endpoint remote;
};

inline udp_packet packet_of(std::string&& data, const arrival& a) {
  udp_packet packet(std::move(data), a.from.endpoint());
  if (a.info != nullptr) packet.info = *a.info;
  return packet;
}
inline udp_received received_from(const arrival& a) {
  udp_received r{a.size, a.from.endpoint(), a.truncated};
  if (a.info != nullptr) r.info = *a.info;
  return r;
}
inline std::string bytes_of(std::string&& data, const arrival&) { return std::move(data); }
inline received received_of(const arrival& a) { return {a.size, a.truncated}; }

}  // namespace detail

/// The operation that `udp_socket::receive()` returns.
using receive_packet_operation = detail::datagram_receive<detail::packet_of>;
/// The operation that `udp_socket::receive(buffer)` returns.
using receive_from_operation = detail::datagram_receive_into<detail::received_from>;
/// The operation that `receive()` of a connected datagram socket returns.
using receive_datagram_operation = detail::datagram_receive<detail::bytes_of>;
/// The operation that `connected_udp_socket::receive(buffer)` returns.
using receive_datagram_into_operation = detail::datagram_receive_into<detail::received_of>;

/// The operation that `udp_socket::send_to` returns.
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

/// The operation that `connected_udp_socket::send` returns.
class [[nodiscard]] send_datagram_operation : public detail::datagram_send<send_datagram_operation> {
 public:
  static constexpr const char* name = "send";
  using datagram_send::datagram_send;

 private:
  friend detail::datagram_send<send_datagram_operation>;
  bool transfer(result<void>& out) { return settle(resource_->send(bytes_.data(), nullptr, 0), out); }
};

/// The common base of `udp_socket` and `connected_udp_socket`.
class ip_datagram_socket : public datagram_socket {
 public:
  /// The local address and port; remembered after closing.
  [[nodiscard]] ip_endpoint local_endpoint() const noexcept {
    return resource_ ? udp().local : ip_endpoint();
  }

  /// Receives datagrams that are sent to a multicast group. `interface` is, for IPv4, one of the interface's
  /// addresses; for IPv6, an address whose scope is the interface's number. By default the group's scope
  /// applies (IPv6), or the system chooses. Errors are `os_error`, and `invalid_argument` if `group` is not a
  /// multicast address or `interface` is of the other family.
  result<> join_group(const ip_address& group, const ip_address& interface = {});
  /// Leaves a multicast group; `interface` is as for `join_group`.
  result<> leave_group(const ip_address& group, const ip_address& interface = {});
  /// Receives datagrams that are sent to a multicast group and come by the named interface ("eth0"); an empty
  /// name is the system's choice. With a `source`, only those that this address sends (source-specific
  /// multicast, RFC 3678); several sources are joined one by one. Errors are `os_error`, with ENODEV for an
  /// unknown interface, and `invalid_argument` if `group` is not a multicast address, or `source` or the
  /// socket is of the other family; `not_supported` where the system cannot do it.
  result<> join_group(const ip_address& group, std::string_view interface_name,
                      const ip_address& source = {});
  /// Leaves a group that was joined with the same arguments.
  result<> leave_group(const ip_address& group, std::string_view interface_name,
                       const ip_address& source = {});
  /// Sets the interface through which multicast datagrams are sent; `interface` is as for `join_group`. A
  /// socket of both families has one setting for each.
  result<> set_multicast_interface(const ip_address& interface);
  /// Sets whether sockets on this machine receive the multicast datagrams that this socket sends.
  result<> set_multicast_loop(bool on);
  /// Sets how many hops multicast datagrams travel: 0 to 255, initially 1.
  result<> set_multicast_hops(int hops);
  /// Sets whether the socket may send to broadcast addresses.
  result<> set_broadcast(bool on);
  /// Sets whether packets, `udp_received` and the entries of received batches have packet information. It
  /// costs a little for every datagram, and needs some KiB of memory. Errors are `os_error` and
  /// `closed_resource`; then nothing has changed.
  result<> set_packet_info(bool on);

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
  template <class T>
  result<> set_value(int level, int name, const T& value, const char* operation);
  result<> change_group(const ip_address& group, const ip_address& interface, bool join);
  result<> change_group(const ip_address& group, std::string_view interface_name, const ip_address& source,
                        bool join);
};

/// A UDP socket that receives from any address and sends to any address. It is always bound.
///
/// A datagram, even an empty one, is received whole and in one piece. ICMP errors for sent datagrams are not
/// reported, because the system does not report them.
class udp_socket : public ip_datagram_socket {
 public:
  udp_socket() = default;

  /// Opens a socket and binds it to `local`, at once. The address and port in the options are ignored.
  static result<udp_socket> open(const ip_endpoint& local, const udp_options& options = {});
  /// Takes over a bound UDP socket. On failure it stays the caller's; `invalid_argument` says what is wrong
  /// with it.
  static result<udp_socket> from_fd(int fd);

  /// Receives the next datagram, of any size.
  [[nodiscard]] receive_packet_operation receive() { return receive_packet_operation(resource_); }
  /// Receives the next datagram, as many of its bytes as fit into the buffer.
  [[nodiscard]] receive_from_operation receive(mutable_buffer into) { return {resource_, into}; }

  /// Sends one datagram. The bytes stay the caller's, and must stay valid until completion; the operation
  /// keeps a string passed as an rvalue. A datagram that is too long raises `os_error` with EMSGSIZE.
  [[nodiscard]] send_to_operation send_to(const_buffer data, const ip_endpoint& to) {
    return {resource_, detail::lent_bytes(data), to};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_to_operation send_to(S&& data, const ip_endpoint& to) {
    return {resource_, detail::lent_bytes(std::move(data)), to};
  }
  /// Sends one datagram from a local address, by an interface and with marks of its own; the socket needs
  /// `set_packet_info` only to receive. An `info` with numbers out of range, or with an address of the other
  /// family, is `invalid_argument`; an address or interface that this machine lacks is `os_error`.
  template <class = void>
  [[nodiscard]] send_packet_operation send_to(const_buffer data, const ip_endpoint& to,
                                              const packet_info& info);
  template <detail::string_rvalue S>
  [[nodiscard]] send_packet_operation send_to(S&& data, const ip_endpoint& to, const packet_info& info);
  /// Sends one datagram to a host by name, which is looked up each time; an address in text needs no look-up.
  /// The bytes stay the caller's, and must stay valid until completion; the operation keeps a string passed
  /// as an rvalue.
  [[nodiscard]] send_to_host_operation send_to(const_buffer data, std::string_view host, std::uint16_t port);
  template <detail::string_rvalue S>
  [[nodiscard]] send_to_host_operation send_to(S&& data, std::string_view host, std::uint16_t port);

  /// Receives many datagrams in one operation, in place of the batch's contents: at least one, and as many as
  /// are available and fit, up to about 256. The batch must stay valid until completion.
  [[nodiscard]] receive_batch_operation receive_batch(udp_batch& batch);
  /// Sends a batch in order, each datagram to its own address; a datagram that was received with packet
  /// information goes back from the address to which it came. Returns how many were sent: fewer than all if
  /// one failed; if the first one failed, it raises the error. The batch does not change, and must stay valid
  /// until completion. If the operation is cancelled, times out or finds the socket closed, `sent()` returns
  /// how many were sent.
  [[nodiscard]] send_batch_operation send_batch(udp_batch& batch);

 private:
  friend struct detail::datagram_access;
  explicit udp_socket(detail::ref<detail::udp_resource> r) noexcept : ip_datagram_socket(std::move(r)) {}
};

/// A UDP socket with one peer: it receives from no other address.
///
/// When the peer's host refuses a datagram, one receive or send raises `broken_resource` with ECONNREFUSED;
/// the socket stays usable.
class connected_udp_socket : public ip_datagram_socket {
 public:
  connected_udp_socket() = default;

  /// Opens a socket and connects it, at once. `local_host` and `family` of the options are ignored.
  static result<connected_udp_socket> open(const ip_endpoint& remote, const udp_options& options = {});
  /// Opens a socket, binds it to `local` and connects it, at once. Address, port and family in the options
  /// are ignored.
  static result<connected_udp_socket> open(const ip_endpoint& remote, const ip_endpoint& local,
                                           const udp_options& options = {});
  /// Takes over a connected UDP socket. On failure it stays the caller's; `invalid_argument` says what is
  /// wrong with it.
  static result<connected_udp_socket> from_fd(int fd);

  /// The peer's address and port; remembered after closing.
  [[nodiscard]] ip_endpoint remote_endpoint() const noexcept {
    return resource_ ? udp().remote : ip_endpoint();
  }

  /// Receives the next datagram, of any size.
  [[nodiscard]] receive_datagram_operation receive() { return receive_datagram_operation(resource_); }
  /// Receives the next datagram, as many of its bytes as fit into the buffer.
  [[nodiscard]] receive_datagram_into_operation receive(mutable_buffer into) { return {resource_, into}; }
  /// Sends one datagram to the peer; bytes and errors are as for `udp_socket::send_to`.
  [[nodiscard]] send_datagram_operation send(const_buffer data) {
    return {resource_, detail::lent_bytes(data)};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_datagram_operation send(S&& data) {
    return {resource_, detail::lent_bytes(std::move(data))};
  }

  /// Connects to the peer again. UDP needs this only to drop an error that the peer caused and that was not
  /// reported yet. Errors are `os_error`; the socket stays open.
  result<> reconnect();
  /// Connects to another peer in place of the former one; on failure the former one stays, as far as the
  /// system allows. The local address may change if the system chose it. Datagrams that have arrived already
  /// are still received, and pending operations go on.
  result<> reconnect(const ip_endpoint& remote);

  /// Receives many datagrams from the peer in one operation, like `udp_socket::receive_batch`.
  [[nodiscard]] receive_batch_operation receive_batch(udp_batch& batch);
  /// Sends a batch to the peer, like `udp_socket::send_batch`; the addresses in the batch are ignored.
  [[nodiscard]] send_batch_operation send_batch(udp_batch& batch);

 private:
  friend struct detail::datagram_access;
  explicit connected_udp_socket(detail::ref<detail::udp_resource> r) noexcept
      : ip_datagram_socket(std::move(r)) {}
};

namespace detail {
template <class T>
inline constexpr std::size_t bound_members = 0;  // how many members structured bindings name
template <>
inline constexpr std::size_t bound_members<udp_packet> = 2;
template <>
inline constexpr std::size_t bound_members<udp_received> = 3;
}  // namespace detail

/// For structured bindings: the data or size, the sender, and whether it is truncated. `info` came later, and
/// is not among them.
template <std::size_t I, class T>
  requires(I < detail::bound_members<std::remove_cvref_t<T>>)
[[nodiscard]] constexpr auto&& get(T&& from) noexcept {
  if constexpr (I == 1) {
    return std::forward<T>(from).sender;
  } else if constexpr (I == 2) {
    return std::forward<T>(from).truncated;
  } else if constexpr (requires { from.size; }) {
    return std::forward<T>(from).size;
  } else {
    return std::forward<T>(from).data;
  }
}

namespace detail {
template <std::size_t I, class T>
struct bound_member {
  using type = std::remove_cvref_t<decltype(anyio::get<I>(std::declval<T&>()))>;
};
}  // namespace detail

}}  // namespace anyio

template <>
struct std::tuple_size<anyio::udp_packet> : std::integral_constant<std::size_t, 2> {};
template <std::size_t I>
struct std::tuple_element<I, anyio::udp_packet> : anyio::detail::bound_member<I, anyio::udp_packet> {};
template <>
struct std::tuple_size<anyio::udp_received> : std::integral_constant<std::size_t, 3> {};
template <std::size_t I>
struct std::tuple_element<I, anyio::udp_received> : anyio::detail::bound_member<I, anyio::udp_received> {};
