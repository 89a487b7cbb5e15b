// Stream sockets: TCP and UNIX.
//
// A short read means that the kernel's buffer was empty, so the next receive waits without a system call.
// After the poller has reported an end, an error or urgent data, no further edge may come: then the socket is
// read until the kernel has no more bytes. This part must not know names, or how a connection is made.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "operation/resource_operation.hpp"
#include "stream/descriptor_stream.hpp"
#include "stream/stream.hpp"
#include "system/new_socket.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
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
  ANYIO_NET_FN progress send_piece(const_buffer data, std::size_t& sent, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  ANYIO_NET_FN progress finish() override;

  /// Sends bytes of a file, and adds their number to `sent`.
  progress send_file(int file, std::uint64_t offset, std::uint64_t count, std::uint64_t& sent,
                     result<void>& out);

  // --- for descriptor passing
  /// The error for a failed or empty read. `error_number` is the errno of the read, or 0 for an end.
  [[nodiscard]] error end_of_reading(int error_number, const char* operation) noexcept;
  [[nodiscard]] error end_of_writing(int error_number, const char* operation) noexcept;
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
  progress failed_send(ssize_t status, result<void>& out);
  ssize_t read_some(void* data, std::size_t size, bool& more_may_follow);
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
  std::shared_ptr<const std::string> local;  // null: unnamed
  std::shared_ptr<const std::string> remote;
};

class socket_access;

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
  /// Sets a socket option of type int (setsockopt(2)).
  result<> set_option(int level, int name, int value);
  /// Returns a socket option of type int (getsockopt(2)).
  [[nodiscard]] result<int> get_option(int level, int name) const;
  /// Sends up to `count` bytes of a file from `offset` on, without copying them through the program. Returns
  /// the number of bytes sent, which is smaller if the file ends before. The file's own offset does not
  /// change. An error of the file is `os_error` and does not affect the stream.
  [[nodiscard]] send_file_operation send_file(int fd, std::uint64_t offset, std::uint64_t count);
  [[nodiscard]] socket_stream* socket() noexcept override { return this; }

 protected:
  friend class detail::socket_access;
  socket_stream() = default;
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
  static tcp_stream wrap_tcp(ref<tcp_resource> r) { return tcp_stream(std::move(r)); }
  /// For `from_fd`: stores what is known about the descriptor's past in the stream.
  template <class Stream>
  static result<Stream> with_past(result<Stream>&& s, const adopted_socket& past);
  static result<unix_stream> make_unix(loop_core& core, int fd, std::shared_ptr<const std::string> local,
                                       std::shared_ptr<const std::string> remote, const char* operation);
};

/// The path, null if it is empty.
[[nodiscard]] std::shared_ptr<const std::string> shared_path(std::string path);

/// setsockopt(2) for a user's socket, which may be null or closed. Errors are `os_error` and
/// `closed_resource`.
[[nodiscard]] result<> set_option_of(const resource* r, int level, int name, const void* value,
                                     socklen_t size, const char* operation);
/// getsockopt(2) for a user's socket. Returns the size of the value.
[[nodiscard]] result<socklen_t> get_option_of(const resource* r, int level, int name, void* value,
                                              socklen_t size, const char* operation);
/// An option of type int, of which the system may write only one byte.
[[nodiscard]] result<int> get_int_option_of(const resource* r, int level, int name);

}  // namespace detail

}}  // namespace anyio
