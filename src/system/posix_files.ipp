// Files, and descriptors of other kinds, as services; and calls that need no loop: the calendar, randomness.
#pragma once

#include "base/atomic.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"
#include "system/posix_backend.hpp"
#include "system/posix_backend.ipp"
#include "system/unique_fd.hpp"

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <string>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN file_service& system_files() noexcept {
  struct own final : posix_files {};
  static constinit own files;
  return files;
}

ANYIO_NET_FN path_service& system_paths() noexcept {
  struct own final : posix_paths {};
  static constinit own paths;
  return paths;
}

/// Prevents the delivery of a SIGPIPE that this thread causes, for calls without a flag for that.
/// The signal's disposition belongs to the whole process, so it is not changed.
class sigpipe_guard {
 public:
  sigpipe_guard() noexcept {
    sigset_t pipe;  // the functions that change a set are macros on some systems
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe, &before_);
    // A SIGPIPE that is pending already belongs to the program, and merges with a new one. It can be pending
    // only if it was blocked.
    was_blocked_ = sigismember(&before_, SIGPIPE) == 1;
    was_pending_ = was_blocked_ && is_pending();
  }
  sigpipe_guard(const sigpipe_guard&) = delete;
  sigpipe_guard& operator=(const sigpipe_guard&) = delete;
  ~sigpipe_guard() {
    if (!was_blocked_) ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  /// Removes the pending signal. Called after a call returned EPIPE.
  void consume() noexcept {
    if (was_pending_ || !is_pending()) return;
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
#if defined(__APPLE__) || defined(__OpenBSD__)
    int number = 0;
    ::sigwait(&pipe, &number);
#else
    const timespec at_once{};
    while (::sigtimedwait(&pipe, nullptr, &at_once) < 0 && errno == EINTR) {
    }
#endif
  }

 private:
  static bool is_pending() noexcept {
    sigset_t pending;
    sigemptyset(&pending);
    ::sigpending(&pending);
    return sigismember(&pending, SIGPIPE) == 1;
  }

  sigset_t before_{};
  bool was_blocked_ = false;
  bool was_pending_ = false;
};

ANYIO_NET_FN ssize_t posix_files::send_file(int socket, int file, std::uint64_t offset, std::size_t count) {
  if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) return -EOVERFLOW;
  restore_non_blocking(socket);
  sigpipe_guard guard;  // sendfile has no MSG_NOSIGNAL
  const ssize_t n = system_call([&]() -> ssize_t {
#if defined(__linux__)
    auto position = static_cast<off_t>(offset);
    return ::sendfile(socket, file, &position, count);
#elif defined(__APPLE__) || defined(__FreeBSD__)
    // On both systems the call may fail after it has sent some bytes, which are returned; a count of 0 means
    // the whole file.
    if (count == 0) return 0;
    const std::size_t size = std::min<std::size_t>(count, INT_MAX);
#if defined(__APPLE__)
    auto sent = static_cast<off_t>(size);
    const int r = ::sendfile(file, socket, static_cast<off_t>(offset), &sent, nullptr, 0);
#else
    off_t sent = 0;
    const int r = ::sendfile(file, socket, static_cast<off_t>(offset), size, nullptr, &sent, 0);
#endif
    return r < 0 && sent == 0 ? -1 : static_cast<ssize_t>(sent);
#else
    char block[16384];
    const ssize_t got = ::pread(file, block, std::min(count, sizeof block), static_cast<off_t>(offset));
    return got <= 0 ? got : ::send(socket, block, static_cast<std::size_t>(got), send_flags);
#endif
  });
  if (n == -EPIPE) guard.consume();
  return sent_or_error(n);
}

#if defined(__linux__) && defined(SYS_preadv2) && defined(SYS_pwritev2)
/// Calls that do not block, with or without O_NONBLOCK: preadv2(2) and pwritev2(2) with RWF_NOWAIT. Pipes
/// support the flag since Linux 6.5, terminals do not.
class nowait_calls {
 public:
  /// Makes the call and returns its result. `refused` is true if the descriptor does not support the call.
  static ssize_t make(long number, int fd, const ::iovec* parts, int count, bool& refused) noexcept {
    constexpr long nowait = 8;  // RWF_NOWAIT, which some C libraries do not define
    refused = !known.load();
    if (refused) return -EOPNOTSUPP;
    const ssize_t n = system_call([&] {
      return static_cast<ssize_t>(::syscall(number, long{fd}, parts, long{count}, -1L, -1L, nowait));
    });
    refused = n == -EOPNOTSUPP || n == -ENOSYS || n == -EINVAL;
    if (refused && n != -EINVAL) learn(fd);
    return n;
  }

 private:
  /// Turns these calls off if the descriptor is a pipe: then no descriptor of this kernel supports them.
  [[gnu::cold, gnu::noinline]] static void learn(int fd) noexcept {
    struct stat status;
    if (::fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode)) known.store(false);
  }
  static inline constinit atomic<bool> known{true};
};
#endif

ANYIO_NET_FN ssize_t posix_files::read(int fd, void* data, std::size_t size) {
#if defined(__linux__) && defined(SYS_preadv2) && defined(SYS_pwritev2)
  const ::iovec part{data, size};
  bool refused;
  const ssize_t n = nowait_calls::make(SYS_preadv2, fd, &part, 1, refused);
  if (!refused) return n;
#endif
  restore_non_blocking(fd);
  return system_call([&] { return ::read(fd, data, size); });
}

ANYIO_NET_FN ssize_t posix_files::write(int fd, slice<const ::iovec> parts) {
  // The kernel rejects more than IOV_MAX parts; a short write is allowed.
  const int count = static_cast<int>(std::min<std::size_t>(parts.size(), IOV_MAX));
  sigpipe_guard guard;
  bool refused = true;
  ssize_t n = 0;
#if defined(__linux__) && defined(SYS_preadv2) && defined(SYS_pwritev2)
  n = nowait_calls::make(SYS_pwritev2, fd, parts.data(), count, refused);
#endif
  if (refused) {
    restore_non_blocking(fd);
    n = system_call([&] { return ::writev(fd, parts.data(), count); });
  }
  if (n == -EPIPE) guard.consume();
  return n;
}

ANYIO_NET_FN int posix_files::adopt(int fd) { return adopt_descriptor(fd); }

ANYIO_NET_COLD int posix_files::make_blocking(int fd) {
  const int flags = system_call([&] { return ::fcntl(fd, F_GETFL); });
  return flags < 0 ? flags : system_call([&] { return ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK); });
}

ANYIO_NET_FN int posix_files::set_close_on_exec([[maybe_unused]] int fd) {
#if defined(MSG_CMSG_CLOEXEC)
  return 0;
#else
  const int r = system_call([&] { return ::fcntl(fd, F_SETFD, FD_CLOEXEC); });
  return r < 0 ? r : 0;
#endif
}

// --- paths

[[gnu::cold]] inline file_identity identity_of(const struct stat& s) noexcept {
  return {S_ISSOCK(s.st_mode), S_ISCHR(s.st_mode), static_cast<std::uint64_t>(s.st_dev),
          static_cast<std::uint64_t>(s.st_ino), S_ISFIFO(s.st_mode)};
}

ANYIO_NET_COLD int posix_paths::identify(const char* path, file_identity& identity) {
  struct stat status;
  const int r = system_call([&] { return ::lstat(path, &status); });
  if (r >= 0) identity = identity_of(status);
  return r;
}

ANYIO_NET_COLD int posix_files::identify(int fd, file_identity& identity) {
  struct stat status;
  const int r = system_call([&] { return ::fstat(fd, &status); });
  if (r >= 0) identity = identity_of(status);
  return r;
}

ANYIO_NET_COLD int posix_paths::change_mode(const char* path, mode_t mode) {
  return system_call([&] { return ::chmod(path, mode); });
}

ANYIO_NET_COLD void posix_paths::prepare_mode([[maybe_unused]] int fd, [[maybe_unused]] mode_t mode) {
#if defined(__linux__)  // bind copies the mode from the socket's inode; only Linux sockets have one
  static_cast<void>(system_call([&] { return ::fchmod(fd, mode); }));
#endif
}

ANYIO_NET_COLD int posix_paths::unlink(const char* path) {
  return system_call([&] { return ::unlink(path); });
}

ANYIO_NET_COLD std::string posix_paths::absolute(const std::string& path) {
  char folder[PATH_MAX];
  if (path.starts_with('/') || ::getcwd(folder, sizeof folder) == nullptr || *folder != '/') return path;
  std::string all = folder;
  if (!all.ends_with('/')) all += '/';
  return all + path;
}

// --- without a loop

ANYIO_NET_COLD void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) {
  if (const int e = ::pthread_atfork(before, in_parent, in_child); e != 0)
    abort_with("at_fork", error(errc::os_error, e, "pthread_atfork"));
}

ANYIO_NET_FN void close_descriptor(int fd) noexcept {
  if (fd >= first_simulated_descriptor && close_simulated != nullptr) return close_simulated(fd);
  static_cast<void>(::close(fd));
}

ANYIO_NET_FN std::int64_t system_calendar() noexcept { return static_cast<std::int64_t>(std::time(nullptr)); }

/// Reads to the end of the file. 0 or a negative errno; -EFBIG if the file is larger than `limit`.
[[gnu::cold]] inline int read_all(int fd, std::string& content, std::size_t limit) {
  constexpr std::size_t step = 4096;
  for (std::size_t size = 0;;) {
    if (content.capacity() < size + step) {
      // The old memory is overwritten, since it may hold a secret.
      std::string larger;
      larger.reserve(2 * size + step);
      larger = content;
      for (volatile char& c : content) c = 0;
      content.swap(larger);
    }
    content.resize(size + step);
    const ssize_t n = ::read(fd, content.data() + size, step);
    const int error_number = errno;
    if (n > 0) size += static_cast<std::size_t>(n);
    content.resize(size);
    if (n == 0) return 0;
    if (n < 0 && error_number != EINTR) return -error_number;
    if (size > limit) return -EFBIG;
  }
}

ANYIO_NET_COLD int read_file(const char* path, std::string& content) {
  constexpr std::size_t limit = std::size_t{16} << 20;
  content.clear();
  const unique_fd fd(::open(path, O_RDONLY | O_CLOEXEC));
  if (!fd) return -errno;
  struct stat s;
  const bool sized =
      ::fstat(fd.get(), &s) == 0 && s.st_size > 0 && static_cast<std::uintmax_t>(s.st_size) <= limit;
  if (sized)
    content.reserve(static_cast<std::size_t>(s.st_size) + 4096);  // so that no copy of a secret is left
  return read_all(fd.get(), content, limit);
}

ANYIO_NET_COLD std::uint64_t system_entropy() {
  std::uint64_t value = 0;
#if defined(ANYIO_NET_KQUEUE) && !defined(__linux__)
  ::arc4random_buf(&value, sizeof value);  // all these systems have the call, and it cannot fail
  return value;
#else
  if (::getentropy(&value, sizeof value) == 0) return value;
  // The kernel or a sandbox lacks the call. No fallback to predictable values: they would not be secure.
  const int fd = ::open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  const ssize_t n = fd < 0 ? -1 : ::read(fd, &value, sizeof value);
  const int error_number = n < 0 ? errno : EIO;
  if (fd >= 0) ::close(fd);
  if (n != static_cast<ssize_t>(sizeof value))
    abort_with("no source of randomness", error(errc::os_error, error_number, "entropy"));
  return value;
#endif
}

ANYIO_NET_COLD const char* trust_file() {
  static constexpr const char* known[] = {
      "/etc/ssl/certs/ca-certificates.crt",      // Debian, Alpine
      "/etc/pki/tls/certs/ca-bundle.crt",        // Fedora
      "/etc/ssl/ca-bundle.pem",                  // openSUSE
      "/etc/ssl/cert.pem",                       // macOS, OpenBSD, FreeBSD
      "/usr/local/share/certs/ca-root-nss.crt",  // FreeBSD
  };
  // Not safe while another thread changes the environment; every TLS library that reads it has this limit.
  if (const char* chosen = std::getenv("SSL_CERT_FILE")) return chosen;  // NOLINT(concurrency-mt-unsafe)
  for (const char* path : known)
    if (::access(path, R_OK) == 0) return path;
  return nullptr;
}

}}}  // namespace anyio::detail
