// Pipes, terminals and character devices as byte streams.
//
// They are read and written until the kernel says that there is no more: a terminal gives a line at a time,
// so a short read says nothing. This part must not know sockets.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "stream/stream.hpp"

#include <cstddef>
#include <string_view>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A descriptor that is read and written, in the poller while it is open.
class fd_resource final : public stream_resource {
 public:
  /// Takes over the descriptor, unless it cannot be watched: 0 or a negative errno in `status`.
  fd_resource(loop_core& core, int fd, int& status);
  ~fd_resource() override { close(); }

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  progress finish() override { return progress::done; }
  [[nodiscard]] int descriptor() const noexcept override { return registration_.fd; }
  int release(bool restore) noexcept;
  /// Who opened it left it blocking.
  bool was_blocking = false;

 private:
  [[nodiscard]] bool is_fifo();
  void shut() noexcept override { core().forget(registration_); }
  progress wait_for_memory() noexcept {
    core().wait_for_memory(short_of_memory_, *this);
    return progress::waiting;
  }

  file_service& files_;
  registration registration_;
  starved short_of_memory_;
};

}  // namespace detail

/// A pipe, terminal or character device.
///
/// A pipe has one direction: the wrong one is `os_error` with EBADF. A pipe whose reader is gone is
/// `broken_resource` with EPIPE; a terminal that was hung up, `end_of_stream`. None of them can be
/// half-closed: `send_eof` is `not_supported`, and `close` is what the other end of a pipe sees as its end.
///
/// A FIFO ends when its last writer has closed it, not before its first one has opened it. The end of a FIFO
/// or a terminal need not be the last: each later receive asks again, and waits or gives bytes if somebody
/// has opened the other side since, or the user of the terminal types on after the end-of-file character.
class fd_stream : public byte_stream {
 public:
  fd_stream() = default;

  /// Takes over a descriptor that is no socket, no regular file and no directory;
  /// one that is refused stays the caller's. It becomes non-blocking, as does whatever shares its open file
  /// description (fcntl(2)): for standard input and output of a terminal that is the shell, too. It stays so,
  /// also when this stream is closed (see `release`), and may be made so again if somebody makes it blocking.
  [[nodiscard]] static result<fd_stream> from_fd(int fd);
  /// The descriptor, still this stream's; -1 if closed.
  [[nodiscard]] int native_handle() const noexcept { return resource_ ? resource_->descriptor() : -1; }
  /// Gives the descriptor up, open: the caller owns it. What waits ends with `closed_resource`.
  ///
  /// It stays non-blocking (O_NONBLOCK), which blocking code and other programs may not expect. `restore`:
  /// one that was blocking when `from_fd` took it over is blocking again.
  [[nodiscard]] int release(bool restore = false) noexcept;
  [[nodiscard]] socket_stream* socket() noexcept override { return nullptr; }

 private:
  explicit fd_stream(detail::ref<detail::stream_resource> r) noexcept : byte_stream(std::move(r)) {}
};

}}  // namespace anyio
