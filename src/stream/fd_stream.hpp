// Pipes, terminals and character devices as byte streams.
//
// They are read and written until the kernel reports EAGAIN. A terminal returns one line at a time, so a
// short read does not mean that no bytes are left. This part must not know sockets.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "stream/descriptor_stream.hpp"

#include <cstddef>
#include <string_view>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A descriptor that is read and written.
class fd_resource final : public descriptor_resource {
 public:
  /// Takes over the descriptor, unless it cannot be watched. Sets `status` to 0 or a negative errno.
  fd_resource(loop_core& core, int fd, int& status);

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  progress finish() override { return progress::done; }

 private:
  [[nodiscard]] bool is_fifo();

  file_service& files_;
};

}  // namespace detail

/// A pipe, terminal or character device.
///
/// A pipe has one direction: an operation in the wrong direction fails with `os_error` and EBADF. A send to a
/// pipe whose reader is gone fails with `broken_resource` and EPIPE; a receive from a terminal that was hung
/// up, with `end_of_stream`. None of them can be half-closed: `send_eof` fails with `not_supported`, and
/// the other end of a pipe receives the end of the stream only on `close`.
///
/// A FIFO ends when its last writer has closed it, but not before its first writer has opened it. The end of
/// a FIFO or a terminal may be followed by more bytes: each later receive asks the kernel again. It waits or
/// returns bytes if another process has opened the other side since, or if the user of the terminal continues
/// to type after the end-of-file character.
class fd_stream : public descriptor_stream {
 public:
  fd_stream() = default;

  /// Takes over a descriptor that is not a socket, a regular file or a directory. The caller keeps a
  /// descriptor that is rejected. The descriptor becomes non-blocking, with every descriptor that shares its
  /// open file description (fcntl(2)): for the standard input and output of a terminal, this includes the
  /// shell's. It stays non-blocking after this stream is closed (see `release`), and the library may make it
  /// non-blocking again if other code makes it blocking.
  [[nodiscard]] static result<fd_stream> from_fd(int fd);
  [[nodiscard]] socket_stream* socket() noexcept override { return nullptr; }

 private:
  explicit fd_stream(detail::ref<detail::descriptor_resource> r) noexcept : descriptor_stream(std::move(r)) {}
};

}}  // namespace anyio
