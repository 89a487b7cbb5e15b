// System calls that need no loop: files, the calendar, randomness.
#pragma once

#include "system/posix_backend.hpp"
#include "system/unique_fd.hpp"

#include <cerrno>
#include <cstdlib>
#include <ctime>

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/random.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

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
