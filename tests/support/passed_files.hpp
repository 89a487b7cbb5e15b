// Files whose descriptors are passed, and the descriptors of this process.
#pragma once

#include <cstddef>
#include <cstdlib>

#include <sys/stat.h>
#include <unistd.h>

#include "anyio_net.hpp"
#include "support/sockets.hpp"

namespace support {

/// A file that can be distinguished from others.
inline anyio::unique_fd make_file() {
  char name[] = "/tmp/anyio_net_test_fd.XXXXXX";
  anyio::unique_fd fd(::mkstemp(name));
  ::unlink(name);
  return fd;
}
inline ino_t file_of(int fd) {
  struct stat s {};
  return ::fstat(fd, &s) == 0 ? s.st_ino : 0;
}
/// The number of open descriptors of this process.
inline std::size_t open_count() {
  std::size_t n = 0;
  for (int fd = 0; fd < 2048; ++fd) n += is_open(fd) ? 1 : 0;
  return n;
}

}  // namespace support
