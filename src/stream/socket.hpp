// Stream sockets: TCP and UNIX.
//
// A short read means that the kernel's buffer was empty, so the next receive waits without a system call.
// After the poller has reported an end, an error or urgent data, no further edge may come: then the socket is
// read until the kernel has no more bytes. This part must not know names, or how a connection is made.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/standard.hpp"
#include "operation/resource_operation.hpp"
#include "stream/descriptor_stream.hpp"
#include "stream/stream.hpp"
#include "system/new_socket.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A connected stream socket.
class socket_resource : public descriptor_resource {
 public:
  /// Takes over the descriptor, unless it cannot be watched. Sets `status` to 0 or a negative errno.
  socket_resource(loop_core& core, int fd, bool is_unix, int& status)
      : descriptor_resource(core, fd, status), is_unix_(is_unix) {
    poller_tells = true;
  }

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress receive_view(std::size_t max_bytes, result<std::string_view>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN ssize_t send_now(const_buffer data) override;
  ANYIO_NET_FN progress failed_send(ssize_t status, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  ANYIO_NET_FN progress finish() override;

  /// Sends bytes of a file, and adds their number to `sent`.
  progress send_file(int file, std::uint64_t offset, std::uint64_t count, std::uint64_t& sent,
                     result<void>& out);

  // --- for descriptor passing
  /// The error for a failed or empty read. `error_number` is the errno of the read, or 0 for an end.
  [[nodiscard]] error end_of_reading(int error_number, const char* operation) noexcept;
  [[nodiscard]] error end_of_writing(int error_number, const char* operation) noexcept;
  /// Whether the end of the stream was received.
  [[nodiscard]] bool ended() const noexcept { return ended_; }
  /// Records a read of `size` bytes into a buffer of `room` bytes.
  void note_read(std::size_t size, std::size_t room, bool more_may_follow) noexcept {
#if !defined(__linux__)
    more_may_follow |= is_unix_;  // there a read stops before a message with descriptors, but reports nothing
#endif
    exhausted[read_side] = size < room && !read_to_end && !more_may_follow;
  }

 private:
  template <class T, class Make>
  progress read_once(mutable_buffer into, result<T>& out, Make make);
  ssize_t read_some(void* data, std::size_t size, bool& more_may_follow);
  ssize_t read_bytes_only(void* data, std::size_t size, bool& more_may_follow);
  [[nodiscard]] int cause_of(int error_number) noexcept;
  void note_cause(int error_number) noexcept;

  int broken_ = 0;               // the first errno that broke the connection
  std::uint32_t discarded_ = 0;  // KiB discarded by finish()
  bool is_unix_;
  bool ended_ = false;
};

class tcp_resource final : public socket_resource {
 public:
  tcp_resource(loop_core& core, int fd, int& status) : socket_resource(core, fd, false, status) {}
  ip_endpoint local;
  ip_endpoint remote;
};

class unix_resource final : public socket_resource {
 public:
  unix_resource(loop_core& core, int fd, int& status) : socket_resource(core, fd, true, status) {}
  shared<const std::string> local;  // null: unnamed
  shared<const std::string> remote;
};

class socket_access;
class peek_operation;
template <side Side>
class readiness_operation;

/// setsockopt(2) for a user's socket, which may be null or closed. Errors are `os_error` and
/// `closed_resource`.
[[nodiscard]] result<> set_option_of(const resource* r, int level, int name, const void* value,
                                     socklen_t size, const char* operation);
/// getsockopt(2) for a user's socket. Returns the size of the value.
[[nodiscard]] result<socklen_t> get_option_of(const resource* r, int level, int name, void* value,
                                              socklen_t size, const char* operation);
/// An option of type int, of which the system may write only one byte.
[[nodiscard]] result<int> get_int_option_of(const resource* r, int level, int name);

/// Sets an option from a value of the user's type.
template <class T>
result<> set_value_of(const resource* r, int level, int name, const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>,
                "the value of a socket option is copied byte by byte: pass a number, a struct of the system, "
                "or a std::string_view");
  if constexpr (std::is_same_v<T, bool>) {
    const int number = value ? 1 : 0;
    return set_option_of(r, level, name, &number, sizeof number, "set_option");
  } else if constexpr (std::is_same_v<T, std::string_view>) {
    return set_option_of(r, level, name, value.data(), static_cast<socklen_t>(value.size()), "set_option");
  } else {
    return set_option_of(r, level, name, &value, sizeof value, "set_option");
  }
}

/// Returns an option as a value of the user's type.
template <class T>
result<T> get_value_of(const resource* r, int level, int name) {
  static_assert(
      std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> && std::is_default_constructible_v<T>,
      "the value of a socket option is copied byte by byte: ask for a number or a struct of the "
      "system");
  if constexpr (std::is_same_v<T, int>) {
    return get_int_option_of(r, level, name);
  } else if constexpr (std::is_same_v<T, bool>) {
    const result<int> number = get_int_option_of(r, level, name);
    return number ? result<bool>(*number != 0) : result<bool>(number.error());
  } else {
    T value{};
    const result<socklen_t> size = get_option_of(r, level, name, &value, sizeof value, "get_option");
    return size ? result<T>(value) : result<T>(size.error());
  }
}

}  // namespace detail

/// The operation that `socket_stream::send_file` returns.
class [[nodiscard]] send_file_operation
    : public detail::resource_operation<send_file_operation, std::uint64_t, detail::socket_resource,
                                        detail::write_side> {
 public:
  static constexpr const char* name = "send_file";
  send_file_operation() = default;
  send_file_operation(detail::ref<detail::socket_resource> r, int file, std::uint64_t offset,
                      std::uint64_t count)
      : resource_operation(std::move(r)), offset_(offset), count_(count), file_(file) {}

 private:
  friend class detail::operation<send_file_operation, std::uint64_t>;
  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] std::uint32_t bytes_so_far() const noexcept { return detail::description::count(sent_); }
  bool attempt(result<std::uint64_t>& out);
  void left() noexcept { sent_ = 0; }

  std::uint64_t offset_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t sent_ = 0;
  int file_ = -1;
};

/// A byte stream that is a socket.
class socket_stream : public descriptor_stream {
 public:
  /// Each pending operation makes one more attempt, then ends with `cancelled`. The stream stays usable.
  void cancel() noexcept {
    if (resource_) resource_->cancel();
  }
  /// Sets a socket option of any trivially copyable type, for instance int, `linger` or `timeval`
  /// (setsockopt(2)). A bool is passed as an int, and a `std::string_view` as its bytes.
  template <class T>
  result<> set_option(int level, int name, const T& value) {
    return detail::set_value_of(resource_.get(), level, name, value);
  }
  /// Returns a socket option of any trivially copyable type, for instance int or `tcp_info` (getsockopt(2)).
  /// Bytes that the system does not write are zero.
  template <class T = int>
  [[nodiscard]] result<T> get_option(int level, int name) const {
    return detail::get_value_of<T>(resource_.get(), level, name);
  }
  /// Sends up to `count` bytes of a file from `offset` on, without copying them through the program. Returns
  /// the number of bytes sent, which is smaller if the file ends before. The file's own offset does not
  /// change. An error of the file is `os_error` and does not affect the stream.
  [[nodiscard]] send_file_operation send_file(int fd, std::uint64_t offset, std::uint64_t count);
  /// Receives at least one byte, as `receive` does, but leaves the bytes in the stream. Descriptors that come
  /// with the bytes stay there too. Peeking again returns bytes from the same place.
  [[nodiscard]] detail::peek_operation peek(mutable_buffer into);
  /// Completes when a receive would not wait: when there are bytes, at the end of the stream, or after an
  /// error, which the next receive reports. It waits as the reader of the stream, and takes nothing.
  [[nodiscard]] detail::readiness_operation<detail::read_side> wait_readable();
  /// Completes when a send would not wait, or would report an error. It waits as the writer of the stream;
  /// after `send_eof` it fails with `closed_resource`.
  [[nodiscard]] detail::readiness_operation<detail::write_side> wait_writable();
  /// Closes the stream at once, as `close` does, but a TCP connection ends with a reset (RST): the peer fails
  /// with `broken_resource` and ECONNRESET, and bytes that were not sent are dropped. Calling it on a closed
  /// stream has no effect.
  void abort() noexcept;
  /// Takes over a connected stream socket of any address family, for instance AF_VSOCK. The caller keeps a
  /// socket that is rejected. See `tcp_stream::from_fd` and `unix_stream::from_fd` for the families that have
  /// a class of their own.
  [[nodiscard]] static result<socket_stream> from_fd(int fd);
  [[nodiscard]] socket_stream* socket() noexcept override { return this; }

  socket_stream() = default;

 protected:
  friend class detail::socket_access;
  explicit socket_stream(detail::ref<detail::socket_resource> r) noexcept : descriptor_stream(std::move(r)) {}
  [[nodiscard]] detail::socket_resource* resource() const noexcept {
    return static_cast<detail::socket_resource*>(resource_.get());
  }
};

/// A TCP connection. TCP_NODELAY is on unless it was turned off when the connection was made; `from_fd`
/// leaves it as it is.
class tcp_stream : public socket_stream {
 public:
  tcp_stream() = default;

  /// The address of this end. It stays available after either end has closed.
  [[nodiscard]] ip_endpoint local_endpoint() const noexcept {
    return resource_ ? tcp().local : ip_endpoint();
  }
  /// The address of the peer. It stays available after either end has closed.
  [[nodiscard]] ip_endpoint remote_endpoint() const noexcept {
    return resource_ ? tcp().remote : ip_endpoint();
  }
  /// Sets TCP_NODELAY: whether data is sent at once (tcp(7)).
  result<> set_no_delay(bool on);
  /// Probes an idle connection after `idle`, then every `interval`. The connection is broken after `count`
  /// probes without an answer.
  result<> set_keep_alive(std::chrono::seconds idle, std::chrono::seconds interval, int count);
  /// Takes over a connected TCP socket of any origin. The caller keeps a socket that is rejected. A socket
  /// that was reset meanwhile returns the bytes that arrived before, then fails with `broken_resource`; its
  /// remote endpoint is not known.
  [[nodiscard]] static result<tcp_stream> from_fd(int fd);

 private:
  friend class detail::socket_access;
  explicit tcp_stream(detail::ref<detail::tcp_resource> r) noexcept : socket_stream(std::move(r)) {}
  [[nodiscard]] const detail::tcp_resource& tcp() const noexcept {
    return static_cast<const detail::tcp_resource&>(*resource_);
  }
};

/// The process at the other end of a UNIX socket, as the kernel reports it (unix(7), SO_PEERCRED).
struct peer_credentials {
  pid_t pid = 0;  ///< its process ID; -1 if the system does not report it
  uid_t uid = 0;  ///< its effective user
  gid_t gid = 0;  ///< its effective group
};

class send_fds_operation;
class receive_fds_operation;

/// A UNIX stream connection.
class unix_stream : public socket_stream {
 public:
  unix_stream() = default;

  /// The name of this end, empty for an unnamed socket. It stays available after either end has closed.
  [[nodiscard]] std::string local_path() const;
  /// The name of the peer, empty for an unnamed socket. It stays available after either end has closed.
  [[nodiscard]] std::string remote_path() const;
  /// The credentials of the peer, now or at the time when it connected.
  [[nodiscard]] result<peer_credentials> credentials() const;
  /// Sends the descriptors with the first byte of the message, then the rest of the message. Both the message
  /// and the list of descriptors must not be empty; at most 253 descriptors are allowed (SCM_MAX_FD). The
  /// caller still owns the descriptors.
  [[nodiscard]] send_fds_operation send_fds(const_buffer message, std::span<const int> fds);
  /// Receives descriptors and the bytes around them. Both arrive in order, but a descriptor may arrive with
  /// bytes that were sent before its own message. `max_bytes` may be 0; then the bytes stay in the stream.
  [[nodiscard]] receive_fds_operation receive_fds(std::size_t max_bytes, std::size_t max_fds);
  /// Takes over a connected UNIX stream socket of any origin. The caller keeps a socket that is rejected.
  [[nodiscard]] static result<unix_stream> from_fd(int fd);

 private:
  friend class detail::socket_access;
  explicit unix_stream(detail::ref<detail::unix_resource> r) noexcept : socket_stream(std::move(r)) {}
};

/// Creates two UNIX streams that are connected to each other (socketpair(2)).
[[nodiscard]] result<std::pair<unix_stream, unix_stream>> create_unix_stream_pair();

namespace detail {

/// For the parts that make sockets. On failure the caller keeps the descriptor.
class socket_access {
 public:
  /// A null `local` is asked of the system.
  static result<tcp_stream> make_tcp(loop_core& core, int fd, const ip_endpoint* local,
                                     const ip_endpoint& remote, const char* operation);
  static socket_stream wrap(ref<socket_resource> r) { return socket_stream(std::move(r)); }
  static socket_resource* resource_of(const socket_stream& s) noexcept { return s.resource(); }
  static tcp_stream wrap_tcp(ref<tcp_resource> r) { return tcp_stream(std::move(r)); }
  /// For `from_fd`: stores what is known about the descriptor's past in the stream.
  template <class Stream>
  static result<Stream> with_past(result<Stream>&& s, const adopted_socket& past);
  static result<unix_stream> make_unix(loop_core& core, int fd, shared<const std::string> local,
                                       shared<const std::string> remote, const char* operation);
};

/// The path, null if it is empty.
[[nodiscard]] shared<const std::string> shared_path(std::string path);

}  // namespace detail

}}  // namespace anyio
