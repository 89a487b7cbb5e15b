// UNIX datagram sockets.
//
// Unlike UDP these lose nothing: when the receiver's queue is full a send waits. The kernel tells of a
// drained queue only to who is connected to it, so a send also tries again by itself, after pauses of 1 to
// 20 ms. This part must not know what is sent.
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
  /// Where it can be reached; without one, it can be answered by nobody. A stale socket file there, one that
  /// refuses, is removed; closing leaves the file behind.
  std::string_view local_path = {};
  /// The file's mode, not of an abstract name. On Linux the file has no other bits from the first moment;
  /// elsewhere the mode is set right after binding.
  std::optional<mode_t> local_mode = {};
};

/// A datagram, and the path of who sent it, empty for one without a name.
class unix_packet {
 public:
  std::string data;    ///< all of its bytes
  std::string sender;  ///< where an answer goes

  unix_packet() = default;
  /// Takes both.
  unix_packet(std::string bytes, std::string from) : data(std::move(bytes)), sender(std::move(from)) {}
};

namespace detail {

class unix_datagram_resource final : public datagram_resource {
 public:
  unix_datagram_resource(loop_core& core, bool connected) noexcept
      : datagram_resource(core, AF_UNIX, connected) {}
  std::string local;
  std::string remote;
};

/// When to try again, where no event may come.
class retry_pause {
 public:
  /// Whether to try now: when no pause runs, or news say that it is worth while.
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
    datagram_resource& socket = *this->resource_;
    if (!pause_.over(socket)) return false;
    const int status = socket.send(this->bytes_.data(), to, size);
    if (status == -EAGAIN) pause_.begin(socket.core(), *this);
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

struct unix_datagram_access;

}  // namespace detail

/// What `unix_datagram_socket::receive()` gives.
class [[nodiscard]] receive_unix_packet_operation
    : public detail::datagram_receive<receive_unix_packet_operation, unix_packet> {
 public:
  using datagram_receive::datagram_receive;

 private:
  friend detail::datagram_receive<receive_unix_packet_operation, unix_packet>;
  static unix_packet make(std::string&& data, const detail::arrival& a) {
    return unix_packet(std::move(data),
                       detail::unix_path(reinterpret_cast<const sockaddr*>(&a.from), a.from_size));
  }
};

/// What `unix_datagram_socket::send_to` gives.
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
    out = to_.error();
    return true;
  }
  result<detail::unix_address> to_{errc::invalid_argument};
};

/// What `connected_unix_datagram_socket::send` gives.
class [[nodiscard]] send_unix_datagram_operation
    : public detail::unix_datagram_send<send_unix_datagram_operation> {
 public:
  static constexpr const char* name = "send";
  using unix_datagram_send::unix_datagram_send;

 private:
  friend detail::datagram_send<send_unix_datagram_operation>;
  bool transfer(result<void>& out) { return send(nullptr, 0, out); }
};

/// A UNIX datagram socket that receives from anybody and sends to any path. Paths are any bytes; a leading
/// NUL is Linux's abstract namespace.
class unix_datagram_socket : public datagram_socket {
 public:
  unix_datagram_socket() = default;

  /// Opens one at once, as `create_unix_datagram_socket`.
  static result<unix_datagram_socket> open(const unix_datagram_options& options = {});
  /// Takes a UNIX datagram socket over. `invalid_argument` says what is wrong with it, and then it stays the
  /// caller's.
  static result<unix_datagram_socket> from_fd(int fd);

  /// Remembered after closing; empty without one.
  [[nodiscard]] std::string local_path() const;

  /// The next datagram, of any size.
  [[nodiscard]] receive_unix_packet_operation receive() { return receive_unix_packet_operation(resource_); }
  /// Sends one datagram; waits while the receiver's queue is full. The bytes stay the caller's, and must
  /// stay, until it has completed; a string given as an rvalue is kept. A path where there is nothing is
  /// `os_error` with ENOENT, one where nobody listens any more with ECONNREFUSED, one that is too long with
  /// ENAMETOOLONG; bytes that are too long with EMSGSIZE.
  [[nodiscard]] send_to_path_operation send_to(const_buffer data, std::string_view path) {
    return {resource_, detail::lent_bytes(data), path};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_to_path_operation send_to(S&& data, std::string_view path) {
    return {resource_, detail::lent_bytes(std::move(data)), path};
  }

 private:
  friend struct detail::unix_datagram_access;
  explicit unix_datagram_socket(detail::ref<detail::unix_datagram_resource> r) noexcept
      : datagram_socket(r) {}
};

/// A UNIX datagram socket with one peer. When the peer is gone a send gives `broken_resource` with
/// ECONNREFUSED.
class connected_unix_datagram_socket : public datagram_socket {
 public:
  connected_unix_datagram_socket() = default;

  /// Opens one at once, as `create_connected_unix_datagram_socket`.
  static result<connected_unix_datagram_socket> open(std::string_view remote_path,
                                                     const unix_datagram_options& options = {});
  /// Takes a connected UNIX datagram socket over, as `unix_datagram_socket::from_fd`.
  static result<connected_unix_datagram_socket> from_fd(int fd);

  /// Remembered after closing; empty without one.
  [[nodiscard]] std::string local_path() const;
  /// The peer's path. Remembered after closing.
  [[nodiscard]] std::string remote_path() const;

  /// The next datagram, of any size.
  [[nodiscard]] receive_datagram_operation receive() { return receive_datagram_operation(resource_); }
  /// Sends one datagram, as `unix_datagram_socket::send_to`.
  [[nodiscard]] send_unix_datagram_operation send(const_buffer data) {
    return {resource_, detail::lent_bytes(data)};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_unix_datagram_operation send(S&& data) {
    return {resource_, detail::lent_bytes(std::move(data))};
  }

 private:
  friend struct detail::unix_datagram_access;
  explicit connected_unix_datagram_socket(detail::ref<detail::unix_datagram_resource> r) noexcept
      : datagram_socket(r) {}
};

namespace detail {

/// Opens UNIX datagram sockets.
struct unix_datagram_access {
  /// Connected if there is a remote path.
  static result<ref<unix_datagram_resource>> open(const std::string_view* remote,
                                                  const unix_datagram_options& options);
  static result<ref<unix_datagram_resource>> adopt(int fd, bool connected, const char* what);
  template <class Socket>
  static result<Socket> wrap(result<ref<unix_datagram_resource>>&& r) {
    if (!r) return r.error();
    return Socket(*std::move(r));
  }
  static unix_datagram_resource& resource_of(const ref<datagram_resource>& r) noexcept {
    return static_cast<unix_datagram_resource&>(*r);
  }
};

/// Opens a UNIX datagram socket: an operation, like everything that creates, though it never waits.
template <class Socket>
class [[nodiscard]] create_unix_datagram_operation
    : public operation<create_unix_datagram_operation<Socket>, Socket> {
 public:
  static constexpr const char* name = "create_unix_datagram_socket";
  create_unix_datagram_operation() = default;
  create_unix_datagram_operation(const std::string_view* remote, const unix_datagram_options& options)
      : local_(options.local_path), mode_(options.local_mode), made_(true) {
    if (remote != nullptr) remote_ = std::string(*remote);
  }

 private:
  friend class operation<create_unix_datagram_operation, Socket>;

  [[nodiscard]] errc check() const noexcept { return made_ ? errc::ok : errc::invalid_argument; }
  bool attempt(result<Socket>& out) {
    const std::string_view remote = remote_;
    const bool connected = std::is_same_v<Socket, connected_unix_datagram_socket>;
    out = unix_datagram_access::wrap<Socket>(
        unix_datagram_access::open(connected ? &remote : nullptr, {local_, mode_}));
    return true;
  }

  std::string remote_;
  std::string local_;
  std::optional<mode_t> mode_;
  bool made_ = false;
};

}  // namespace detail

/// Opens a UNIX datagram socket.
[[nodiscard]] inline detail::create_unix_datagram_operation<unix_datagram_socket> create_unix_datagram_socket(
    const unix_datagram_options& options = {}) {
  return {nullptr, options};
}

/// Opens a UNIX datagram socket and connects it to a path. Where there is nothing it raises `os_error` with
/// ENOENT, where nobody listens any more with ECONNREFUSED.
[[nodiscard]] inline detail::create_unix_datagram_operation<connected_unix_datagram_socket>
create_connected_unix_datagram_socket(std::string_view remote_path,
                                      const unix_datagram_options& options = {}) {
  return {&remote_path, options};
}

}}  // namespace anyio
