// Reading and writing descriptors that are not sockets.
#pragma once

#include "stream/fd_stream.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include <sys/socket.h>
#include <sys/uio.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// `os_error` if the descriptor was not opened for this operation, which is an error of the program;
/// `broken_resource` for all other errors, which come from the other end.
inline error fd_failure(ssize_t status, const char* operation) noexcept {
  const bool misused = status == -EBADF || status == -EINVAL || status == -EISDIR;
  return error(misused ? errc::os_error : errc::broken_resource, static_cast<int>(-status), operation);
}

ANYIO_NET_FN fd_resource::fd_resource(loop_core& core, int fd, int& status)
    : stream_resource(core), files_(files_of(core.system())) {
  registration_.fd = fd;
  status = core.watch(registration_, *this);
  file_identity identity;
  if (status == -EPERM && files_.identify(fd, identity) >= 0 && identity.is_character_device) {
    static_cast<void>(
        core.enter(registration_, *this));  // for example /dev/null: always ready, so nothing to watch
    status = 0;
  }
  if (status < 0) registration_.fd = -1;
}

ANYIO_NET_COLD bool fd_resource::is_fifo() {
  file_identity identity;
  return files_.identify(registration_.fd, identity) >= 0 && identity.is_fifo;
}

ANYIO_NET_FN progress fd_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  if (exhausted[read_side]) return progress::waiting;
  const auto read = [&] {
    const ssize_t size =
        files_.read(registration_.fd, into.data(), std::min(into.size(), loop_core::most_of_call));
    count_call(size);
    return size;
  };
  ssize_t n = read();
  if (n == 0 && is_fifo()) {
    // A FIFO that was never hung up has had no writer yet, which also reads as an end. A FIFO that was hung
    // up may hold bytes of a writer that opened and closed it since the read.
    const int bits = read_to_end ? int{ready_end} : core().system().poll_now(registration_.fd, ready_read);
    n = bits >= 0 && (static_cast<std::uint32_t>(bits) & ready_end) == 0 ? -EAGAIN : read();
  }
  if (n > 0) {
    out = static_cast<std::size_t>(n);
  } else if (n == -EAGAIN) {
    exhausted[read_side] = true;
    return progress::waiting;
  } else if (is_shortage(n)) {
    return wait_for_memory();
  } else if (n == 0 || n == -EIO) {  // EIO: the other side of the terminal is closed
    out = error(errc::end_of_stream, 0, "receive");
  } else {
    out = fd_failure(n, "receive");
  }
  return progress::done;
}

ANYIO_NET_FN progress fd_resource::send(outgoing& data, result<void>& out) {
  if (!data.done() && exhausted[write_side]) return progress::waiting;
  while (!data.done()) {
    ::iovec room[outgoing::parts_of_call];
    const std::span<const ::iovec> parts = data.gather(room);
    core().count_work(parts.size() * work_of_part, 0);
    const ssize_t n = files_.write(registration_.fd, parts);
    count_call(n);
    if (n == -EAGAIN) {
      exhausted[write_side] = true;
      return progress::waiting;
    }
    if (is_shortage(n)) return wait_for_memory();
    if (n < 0) {
      out = fd_failure(n, "send");
      return progress::done;
    }
    data.advance(static_cast<std::size_t>(n));
    if (data.rests() || (!data.done() && core().share_spent())) return progress::again;
  }
  out = result<void>();
  return progress::done;
}

ANYIO_NET_FN progress fd_resource::send_eof(result<void>& out) {
  out = error(errc::not_supported, 0, "send_eof");
  return progress::done;
}

ANYIO_NET_COLD int fd_resource::release(bool restore) noexcept {
  if (gone()) return -1;
  const int fd = registration_.fd;
  core().forget(registration_, false);
  close();
  if (restore && was_blocking) static_cast<void>(files_.make_blocking(fd));
  return fd;
}

}  // namespace detail

ANYIO_NET_FN result<fd_stream> fd_stream::from_fd(int fd) {
  constexpr const char* what = "fd_stream";
  const auto refuse = [&](int error_number, const char* reason) {
    return detail::error_access::with_reason(error(errc::invalid_argument, error_number, what), reason);
  };
  detail::loop_core& core = detail::loop_core::current();
  if (fd < 0) return refuse(EBADF, "the descriptor is negative");
  int type = 0;
  socklen_t size = sizeof type;
  const int asked = core.system().get_option(fd, SOL_SOCKET, SO_TYPE, &type, &size);
  if (asked >= 0) return refuse(0, "is a socket: use e.g. tcp_stream::from_fd");
  if (asked == -EBADF) return refuse(EBADF, "the descriptor is not open");
  if (asked == -EOPNOTSUPP) return error(errc::not_supported, EOPNOTSUPP, what);
  int status = 0;  // watched before it is changed, so that a rejected descriptor stays unchanged
  const detail::ref<detail::fd_resource> r(new detail::fd_resource(core, fd, status));
  if (status == -EPERM) return refuse(EPERM, "is a regular file or a directory");
  if (status >= 0) {
    status = detail::files_of(core.system()).adopt(fd);
    r->was_blocking = status > 0;
    if (status < 0) static_cast<void>(r->release(false));
  }
  if (status < 0) return error(errc::os_error, -status, what);
  return fd_stream(r);
}

ANYIO_NET_FN int fd_stream::release(bool restore) noexcept {
  return resource_ ? static_cast<detail::fd_resource*>(resource_.get())->release(restore) : -1;
}

}}  // namespace anyio
