// Waiting on Linux: epoll, and an eventfd to be woken by.
//
// Descriptors of the library's own are watched once in their life, edge-triggered in both directions;
// those of others for one event at a time. This part must not know what anyone does with an event.
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
  /// A token that nothing may be watched with.
  static constexpr std::uint64_t wake_token = ~std::uint64_t{0};

  /// Null if the kernel has no descriptors left.
  [[nodiscard]] static std::unique_ptr<epoll_backend> make();
  ANYIO_NET_FN ~epoll_backend() override;

  ANYIO_NET_FN int watch(int fd, std::uint64_t token) override;
  ANYIO_NET_FN void forget(int fd) override;
  ANYIO_NET_FN int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override;
  ANYIO_NET_FN int wait(std::span<poll_event> events, duration at_most) override;
  /// From a signal handler too.
  ANYIO_NET_FN void wake() override;
  ANYIO_NET_FN int native_handle() const override;
  ANYIO_NET_FN int wake_descriptor() const override;
  ANYIO_NET_FN int after_fork() override;

 private:
  epoll_backend() = default;

  /// Makes the two descriptors. 0 or a negative errno.
  int open() noexcept;
  void close_own() noexcept;

  /// Adds or, if it is there already, changes; `change_first` says what is more likely.
  int control(int fd, std::uint32_t events, std::uint64_t token, bool change_first) noexcept;

  int poller_ = -1;
  int wake_fd_ = -1;
  std::atomic<bool> woken_{false};  // a wake-up is under way, another write would add nothing
};

}}}  // namespace anyio::detail

#endif
