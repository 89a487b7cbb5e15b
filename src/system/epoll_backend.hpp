// The poller on Linux: epoll, and an eventfd for wake-ups.
//
// A descriptor of the library is added once in its life, edge-triggered in both directions. A descriptor of
// the user is watched for one event at a time. This part must not know how events are used.
#pragma once

#include "system/posix_backend.hpp"

#if defined(__linux__) && !defined(ANYIO_NET_KQUEUE)

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class epoll_backend final : public posix_backend {
 public:
  /// The token of the wake descriptor; no other descriptor may use it.
  static constexpr std::uint64_t wake_token = ~std::uint64_t{0};

  /// Makes a backend; null if the kernel has no descriptors left.
  [[nodiscard]] static std::unique_ptr<epoll_backend> make();
  ANYIO_NET_FN ~epoll_backend() override;

  ANYIO_NET_FN int watch(int fd, std::uint64_t token) override;
  ANYIO_NET_FN void forget(int fd) override;
  ANYIO_NET_FN int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override;
  ANYIO_NET_FN int wait(std::span<poll_event> events, duration at_most) override;
  /// Ends the current `wait`, or else the next one. May be called from a signal handler.
  ANYIO_NET_FN void wake() override;
  ANYIO_NET_FN int native_handle() const override;
  ANYIO_NET_FN int wake_descriptor() const override;
  ANYIO_NET_FN int after_fork() override;

 private:
  epoll_backend() = default;

  /// Opens the two descriptors. 0 or a negative errno.
  int open() noexcept;
  void close_own() noexcept;

  /// Adds a descriptor, or changes it if it is in the poller already; `change_first` says which of the two
  /// calls to try first.
  int control(int fd, std::uint32_t events, std::uint64_t token, bool change_first) noexcept;

  int poller_ = -1;
  int wake_fd_ = -1;
  std::atomic<bool> woken_{false};  // a wake-up is pending; another write is not needed
};

}}}  // namespace anyio::detail

#endif
