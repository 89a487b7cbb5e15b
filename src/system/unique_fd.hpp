// An owner of a descriptor.
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "system/backend.hpp"

#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Owns a descriptor of any kind, and closes it when destroyed.
class unique_fd {
 public:
  unique_fd() = default;
  /// Takes ownership of the descriptor; -1 means none.
  explicit unique_fd(int fd) noexcept : fd_(fd) {}
  unique_fd(unique_fd&& other) noexcept : fd_(other.release()) {}
  unique_fd& operator=(unique_fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~unique_fd() { reset(); }

  /// The descriptor, -1 if there is none.
  [[nodiscard]] int get() const noexcept { return fd_; }
  /// Gives up ownership: the caller closes the descriptor.
  [[nodiscard]] int release() noexcept { return detail::exchange(fd_, -1); }
  /// Closes the descriptor, if there is one, and takes ownership of another.
  void reset(int fd = -1) noexcept {
    const int old = detail::exchange(fd_, fd);
    if (old >= 0) detail::close_descriptor(old);
  }
  /// Whether there is a descriptor.
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}}  // namespace anyio
