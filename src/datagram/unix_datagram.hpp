// UNIX datagram sockets.
//
// Unlike UDP sockets these lose nothing: when the receiver's queue is full, a send waits. The kernel reports
// a drained queue only to connected senders, so a send also retries without an event, after pauses of 1 to 20
// ms. This part must not know what is sent.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "datagram/datagram.hpp"
#include "datagram/udp_socket.hpp"
#include "loop/timers.hpp"

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// How to open a UNIX datagram socket.
struct unix_datagram_options {
  /// The path to which it is bound; without one, no peer can answer. A stale socket file at the path, one
  /// that refuses a connection, is removed first; closing leaves the file behind.
  std::string_view local_path = {};
  /// The file's mode; ignored for an abstract name. On Linux the file never has other bits; on other systems
  /// the mode is set right after binding.
  std::optional<mode_t> local_mode = {};
};

/// A datagram, and the path of its sender; the path is empty if the sender has none.
class unix_packet {
 public:
  std::string data;    ///< all of its bytes
  std::string sender;  ///< the path for an answer

  unix_packet() = default;
  /// Constructs from both parts.
  unix_packet(std::string bytes, std::string from) : data(std::move(bytes)), sender(std::move(from)) {}
};

/// A datagram that was received into a buffer, and the path of its sender.
class unix_received {
 public:
  std::size_t size = 0;    ///< number of bytes in the buffer
  std::string sender;      ///< the path for an answer; empty if the sender has none
  bool truncated = false;  ///< the datagram was longer than the buffer, and the rest of it is lost

  unix_received() = default;
  /// Constructs from the three parts.
  unix_received(std::size_t bytes, std::string from, bool was_longer)
      : size(bytes), sender(std::move(from)), truncated(was_longer) {}
};

class send_fd_packet_operation;
class receive_fd_packet_operation;

namespace detail {

class unix_datagram_resource final : public datagram_resource {
 public:
  unix_datagram_resource(loop_core& core, bool connected) noexcept
      : datagram_resource(core, AF_UNIX, connected) {}
  std::string local;
  std::string remote;
};

/// Decides when to retry a send, where no event may arrive.
class retry_pause {
 public:
  /// Whether to try now: no pause is running, or the kernel reports room.
  [[nodiscard]] bool over(datagram_resource& socket) noexcept;
  void begin(loop_core& loop, node& target) noexcept;
  void reset() noexcept {
    timer_.cancel();
    milliseconds_ = 0;
  }

 private:
  timer timer_;
  std::uint32_t milliseconds_ = 0;
  bool tried_early_ = false;
};

/// The base of sends that retry.
template <class Derived>
class unix_datagram_send : public datagram_send<Derived> {
 public:
  unix_datagram_send() = default;
  unix_datagram_send(ref<datagram_resource> r, lent_bytes&& bytes) noexcept
      : datagram_send<Derived>(std::move(r), std::move(bytes)) {}

 protected:
  friend class operation<Derived, void>;

  bool send(const sockaddr* to, socklen_t size, result<void>& out) {
    return may_send() && sent(this->resource_->send(this->bytes_.data(), to, size), out);
  }
  /// Whether to make a call now.
  [[nodiscard]] bool may_send() noexcept { return pause_.over(*this->resource_); }
  /// Handles the status of a call.
  bool sent(int status, result<void>& out) {
    if (status == -EAGAIN) pause_.begin(this->resource_->core(), *this);
    return this->settle(status, out);
  }
  void refresh() noexcept { pause_.reset(); }
  void left() noexcept {
    datagram_send<Derived>::left();
    pause_.reset();
  }

 private:
  retry_pause pause_;
};

inline unix_packet unix_packet_of(std::string&& data, const arrival& a) {
  return unix_packet(std::move(data), a.from.path());
}
inline unix_received unix_received_of(const arrival& a) {
  return unix_received(a.size, a.from.path(), a.truncated);
}

}  // namespace detail

/// The operation that `unix_datagram_socket::receive()` returns.
using receive_unix_packet_operation = detail::datagram_receive<detail::unix_packet_of>;
/// The operation that `unix_datagram_socket::receive(buffer)` returns.
using receive_unix_into_operation = detail::datagram_receive_into<detail::unix_received_of>;

/// The operation that `unix_datagram_socket::send_to` returns.
class [[nodiscard]] send_to_path_operation : public detail::unix_datagram_send<send_to_path_operation> {
 public:
  static constexpr const char* name = "send_to";
  send_to_path_operation() = default;
  send_to_path_operation(detail::ref<detail::datagram_resource> r, detail::lent_bytes&& bytes,
                         std::string_view path)
      : unix_datagram_send(std::move(r), std::move(bytes)), to_(detail::make_unix_address(path, name)) {}

 private:
  friend detail::datagram_send<send_to_path_operation>;
  bool transfer(result<void>& out) {
    if (to_) return send(reinterpret_cast<const sockaddr*>(&to_->storage), to_->size, out);
    return detail::complete(out, to_.error());
  }
  result<detail::unix_address> to_{errc::invalid_argument};
};

/// The operation that `connected_unix_datagram_socket::send` returns.
class [[nodiscard]] send_unix_datagram_operation
    : public detail::unix_datagram_send<send_unix_datagram_operation> {
 public:
  static constexpr const char* name = "send";
  using unix_datagram_send::unix_datagram_send;

 private:
  friend detail::datagram_send<send_unix_datagram_operation>;
  bool transfer(result<void>& out) { return send(nullptr, 0, out); }
};

/// A UNIX datagram socket that receives from any sender and sends to any path. Paths may contain any bytes; a
/// leading NUL byte means Linux's abstract namespace.
class unix_datagram_socket : public datagram_socket {
 public:
  unix_datagram_socket() = default;

  /// Opens a socket at once, like `create_unix_datagram_socket`.
  static result<unix_datagram_socket> open(const unix_datagram_options& options = {});
  /// Takes over a UNIX datagram socket. On failure it stays the caller's; `invalid_argument` says what is
  /// wrong with it.
  static result<unix_datagram_socket> from_fd(int fd);

  /// The path to which it is bound, empty without one; remembered after closing.
  [[nodiscard]] std::string local_path() const;

  /// Receives the next datagram, of any size.
  [[nodiscard]] receive_unix_packet_operation receive() { return receive_unix_packet_operation(resource_); }
  /// Receives the next datagram, as many of its bytes as fit into the buffer.
  template <class = void>
  [[nodiscard]] receive_unix_into_operation receive(mutable_buffer into) {
    return {resource_, into};
  }
  /// Sends one datagram; waits while the receiver's queue is full. The bytes stay the caller's, and must stay
  /// valid until completion; the operation keeps a string passed as an rvalue. Errors are `os_error` with
  /// ENOENT if the path does not exist, ECONNREFUSED if no socket is open there any more, ENAMETOOLONG if the
  /// path is too long, and EMSGSIZE if the datagram is too long.
  [[nodiscard]] send_to_path_operation send_to(const_buffer data, std::string_view path) {
    return {resource_, detail::lent_bytes(data), path};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_to_path_operation send_to(S&& data, std::string_view path) {
    return {resource_, detail::lent_bytes(std::move(data)), path};
  }

  /// Sends one datagram with descriptors: 1 to 253 of them (SCM_MAX_FD), which the caller still owns; the
  /// message may be empty. The bytes and the span of descriptors must stay valid until completion. Errors are
  /// those of `send_to`, and `os_error` with the errno if a descriptor cannot be sent.
  template <class = void>
  [[nodiscard]] send_fd_packet_operation send_fds(const_buffer message, std::span<const int> fds,
                                                  std::string_view path);
  /// Receives the next datagram, with the descriptors that came with it, which may be none. A datagram of
  /// more than `max_bytes` raises `os_error` with EMSGSIZE, and one with more than `max_fds` descriptors
  /// `fds_truncated`; it is lost then, and its descriptors are closed. With a `max_bytes` of 0, the bytes of
  /// any datagram are dropped. `receive` drops datagrams' descriptors.
  template <class = void>
  [[nodiscard]] receive_fd_packet_operation receive_fds(std::size_t max_bytes, std::size_t max_fds);

 private:
  friend struct detail::datagram_access;
  explicit unix_datagram_socket(detail::ref<detail::unix_datagram_resource> r) noexcept
      : datagram_socket(r) {}
};

/// A UNIX datagram socket with one peer. When the peer is gone, a send raises `broken_resource` with
/// ECONNREFUSED.
class connected_unix_datagram_socket : public datagram_socket {
 public:
  connected_unix_datagram_socket() = default;

  /// Opens a socket at once, like `create_connected_unix_datagram_socket`.
  static result<connected_unix_datagram_socket> open(std::string_view remote_path,
                                                     const unix_datagram_options& options = {});
  /// Takes over a connected UNIX datagram socket. On failure it stays the caller's; `invalid_argument` says
  /// what is wrong with it.
  static result<connected_unix_datagram_socket> from_fd(int fd);

  /// The path to which it is bound, empty without one; remembered after closing.
  [[nodiscard]] std::string local_path() const;
  /// The peer's path; remembered after closing.
  [[nodiscard]] std::string remote_path() const;

  /// Receives the next datagram, of any size.
  [[nodiscard]] receive_datagram_operation receive() { return receive_datagram_operation(resource_); }
  /// Receives the next datagram, as many of its bytes as fit into the buffer.
  [[nodiscard]] receive_datagram_into_operation receive(mutable_buffer into) { return {resource_, into}; }
  /// Sends one datagram to the peer; bytes and waiting are as for `unix_datagram_socket::send_to`.
  [[nodiscard]] send_unix_datagram_operation send(const_buffer data) {
    return {resource_, detail::lent_bytes(data)};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_unix_datagram_operation send(S&& data) {
    return {resource_, detail::lent_bytes(std::move(data))};
  }

  /// Sends one datagram with descriptors: 1 to 253 of them (SCM_MAX_FD), which the caller still owns; the
  /// message may be empty. The bytes and the span of descriptors must stay valid until completion. Errors are
  /// those of `send`, and `os_error` with the errno if a descriptor cannot be sent.
  template <class = void>
  [[nodiscard]] send_fd_packet_operation send_fds(const_buffer message, std::span<const int> fds);
  /// Receives the next datagram, with the descriptors that came with it, which may be none. A datagram of
  /// more than `max_bytes` raises `os_error` with EMSGSIZE, and one with more than `max_fds` descriptors
  /// `fds_truncated`; it is lost then, and its descriptors are closed. With a `max_bytes` of 0, the bytes of
  /// any datagram are dropped. `receive` drops datagrams' descriptors.
  template <class = void>
  [[nodiscard]] receive_fd_packet_operation receive_fds(std::size_t max_bytes, std::size_t max_fds);

  /// Connects to the socket that is bound to the peer's path now, for instance after the peer was restarted.
  /// Errors are those of `open`; the socket stays open. Linux drops datagrams of the former peer that were
  /// not received yet. A pending receive goes on; a pending send is tried again, and goes to the new peer.
  result<> reconnect();
  /// Connects to another path, in place of the former peer.
  result<> reconnect(std::string_view path);

 private:
  friend struct detail::datagram_access;
  explicit connected_unix_datagram_socket(detail::ref<detail::unix_datagram_resource> r) noexcept
      : datagram_socket(r) {}
};

namespace detail {

/// Opens a UNIX datagram socket: an operation, like everything that creates, although it never waits.
template <class Socket>
class [[nodiscard]] create_unix_datagram_operation
    : public operation<create_unix_datagram_operation<Socket>, Socket> {
 public:
  static constexpr const char* name = "create_unix_datagram_socket";
  create_unix_datagram_operation() = default;
  create_unix_datagram_operation(const std::string_view* remote, const unix_datagram_options& options)
      : operation<create_unix_datagram_operation, Socket>(true),
        local_(options.local_path),
        mode_(options.local_mode) {
    if (remote != nullptr) remote_ = std::string(*remote);
  }

 private:
  friend class operation<create_unix_datagram_operation, Socket>;

  bool attempt(result<Socket>& out) {
    if constexpr (std::is_same_v<Socket, connected_unix_datagram_socket>) {
      out = Socket::open(remote_, {local_, mode_});
    } else {
      out = Socket::open({local_, mode_});
    }
    return true;
  }

  std::string remote_;
  std::string local_;
  std::optional<mode_t> mode_;
};

}  // namespace detail

/// Opens a UNIX datagram socket.
[[nodiscard]] inline detail::create_unix_datagram_operation<unix_datagram_socket> create_unix_datagram_socket(
    const unix_datagram_options& options = {}) {
  return {nullptr, options};
}

/// Opens a UNIX datagram socket and connects it to a path. Raises `os_error` with ENOENT if the path does not
/// exist, and with ECONNREFUSED if no socket is open there any more.
[[nodiscard]] inline detail::create_unix_datagram_operation<connected_unix_datagram_socket>
create_connected_unix_datagram_socket(std::string_view remote_path,
                                      const unix_datagram_options& options = {}) {
  return {&remote_path, options};
}

}}  // namespace anyio
