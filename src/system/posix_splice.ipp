// Moving bytes between sockets inside the kernel, by splice(2). Only Linux has it.
#pragma once

#include "system/posix_backend.hpp"
#include "system/posix_files.ipp"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN splice_service& system_splices() noexcept {
  struct own final : posix_splices {};
  static constinit own splices;
  return splices;
}

#if defined(__linux__) && defined(SYS_splice)

/// splice(2), which some C libraries declare only with _GNU_SOURCE.
inline ssize_t splice_call(int from, int to, std::size_t most) noexcept {
  constexpr long move_and_nonblock = 3;  // SPLICE_F_MOVE | SPLICE_F_NONBLOCK
  return system_call([&] {
    return static_cast<ssize_t>(
        ::syscall(SYS_splice, long{from}, nullptr, long{to}, nullptr, most, move_and_nonblock));
  });
}

/// A user who has many pipes gets small ones (pipe(7)), which move bytes slower than memory does: refused.
ANYIO_NET_FN int posix_splices::open_pipe(int (&fds)[2]) {
  constexpr int get_size = 1032;  // F_GETPIPE_SZ
  constexpr int usual_size = 65536;
  const int status = system_call([&] { return ::pipe2(fds, O_CLOEXEC | O_NONBLOCK); });
  if (status < 0 || ::fcntl(fds[1], get_size) >= usual_size) return status;
  for (const int fd : fds) ::close(fd);
  return -ENOBUFS;
}

ANYIO_NET_COLD void posix_splices::grow_pipe(int pipe) {
  constexpr int set_size = 1031;       // F_SETPIPE_SZ
  constexpr int large_size = 1 << 20;  // the most for a user without privileges
  static_cast<void>(::fcntl(pipe, set_size, large_size));
}

ANYIO_NET_FN ssize_t posix_splices::splice_in(int socket, int pipe, std::size_t most) {
  restore_non_blocking(socket);  // the flag of splice concerns only the pipe
  return splice_call(socket, pipe, most);
}

ANYIO_NET_FN ssize_t posix_splices::splice_out(int pipe, int socket, std::size_t most) {
  restore_non_blocking(socket);
  sigpipe_guard guard;  // splice has no MSG_NOSIGNAL
  const ssize_t n = splice_call(pipe, socket, most);
  if (n == -EPIPE) guard.consume();
  return sent_or_error(n);
}

#else

ANYIO_NET_FN int posix_splices::open_pipe(int (&)[2]) { return -ENOSYS; }
ANYIO_NET_FN void posix_splices::grow_pipe(int) {}
ANYIO_NET_FN ssize_t posix_splices::splice_in(int, int, std::size_t) { return -ENOSYS; }
ANYIO_NET_FN ssize_t posix_splices::splice_out(int, int, std::size_t) { return -ENOSYS; }

#endif

}}}  // namespace anyio::detail
