// Reading and writing descriptors that are not sockets.
#pragma once

#include "base/slice.hpp"
#include "base/standard.hpp"
#include "stream/fd_stream.hpp"
#include "system/new_socket.hpp"

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
    : descriptor_resource(core, fd, status), files_(files_of(core.system())) {
  file_identity identity;
  if (status == -EPERM && files_.identify(fd, identity) >= 0 && identity.is_character_device) {
    registration_.fd = fd;
    static_cast<void>(
        core.enter(registration_, *this));  // for example /dev/null: always ready, so nothing to watch
    status = 0;
  }
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
  } else if (must_wait(read_side, n)) {
    return progress::waiting;
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
    const slice<const ::iovec> parts = data.gather(room);
    core().count_work(parts.size() * work_of_part, 0);
    const ssize_t n = files_.write(registration_.fd, parts);
    count_call(n);
    if (must_wait(write_side, n)) return progress::waiting;
    if (n < 0) return complete<progress::done>(out, fd_failure(n, "send"));
    data.advance(static_cast<std::size_t>(n));
    if (data.rests() || (!data.done() && core().share_spent())) return progress::again;
  }
  return complete<progress::done>(out, result<void>());
}

ANYIO_NET_FN progress fd_resource::send_eof(result<void>& out) {
  return complete<progress::done>(out, error(errc::not_supported, 0, "send_eof"));
}

}  // namespace detail

ANYIO_NET_FN result<fd_stream> fd_stream::from_fd(int fd) {
  constexpr const char* what = "fd_stream";
  detail::loop_core& core = detail::loop_core::current();
  const result<int> type = detail::type_of_socket(core.system(), fd, what);
  if (!type) return type.error();
  if (*type >= 0) return detail::refusal_of(what, 0, "is a socket: use e.g. tcp_stream::from_fd");
  int status = 0;  // watched before it is changed, so that a rejected descriptor stays unchanged
  const detail::ref<detail::fd_resource> r(new detail::fd_resource(core, fd, status));
  if (status == -EPERM) return detail::refusal_of(what, EPERM, "is a regular file or a directory");
  if (status >= 0) {
    status = detail::files_of(core.system()).adopt(fd);
    r->was_blocking = status > 0;
    if (status < 0) static_cast<void>(r->release(false));
  }
  if (status < 0) return error(errc::os_error, -status, what);
  return fd_stream(r);
}

}}  // namespace anyio
