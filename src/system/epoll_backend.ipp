// The poller on Linux: epoll, and an eventfd for wake-ups.
//
// A descriptor of the library is added once in its life, edge-triggered in both directions. A descriptor of
// the user is watched for one event at a time. This part must not know how events are used.
#pragma once

#include "base/atomic.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"
#include "system/posix_backend.hpp"

#if defined(__linux__) && !defined(ANYIO_NET_KQUEUE)

#include <cerrno>
#include <climits>
#include <cstdint>
#include <iterator>
#include <utility>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

// One conversion of the bits serves epoll and poll.
static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLPRI == POLLPRI && EPOLLERR == POLLERR &&
              EPOLLHUP == POLLHUP && EPOLLRDHUP == POLLRDHUP);

class epoll_backend final : public posix_backend {
 public:
  /// The token of the wake descriptor; no other descriptor may use it.
  static constexpr std::uint64_t wake_token = ~std::uint64_t{0};

  /// Makes a backend; null if the kernel has no descriptors left.
  [[gnu::cold]] [[nodiscard]] static std::unique_ptr<backend> make() {
    auto* const made = new epoll_backend;
    std::unique_ptr<backend> owner(made);
    if (made->open() < 0) owner.reset();
    return owner;
  }
  ~epoll_backend() override { close_own(); }

  int watch(int fd, std::uint64_t token) override {
    ANYIO_NET_ASSERT(token != wake_token);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    event.data.u64 = token;
    return ::epoll_ctl(poller_, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
  }
  void forget(int fd) override {
    epoll_event unused{};  // kernels before 2.6.9 required a non-null pointer
    ::epoll_ctl(poller_, EPOLL_CTL_DEL, fd, &unused);
  }
  int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override {
    ANYIO_NET_ASSERT(token != wake_token);
    const auto events = static_cast<std::uint32_t>(poll_interest(interest));
    return control(fd, events | EPOLLONESHOT, token, again);
  }
  ANYIO_NET_FN int wait(slice<poll_event> events, duration at_most) override;
  /// Ends the current `wait`, or else the next one. May be called from a signal handler.
  void wake() override {
    if (woken_.exchange(true)) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_fd_, &one, sizeof one);
  }
  int native_handle() const override { return poller_; }
  int wake_descriptor() const override { return wake_fd_; }
  [[gnu::cold]] int after_fork() override {
    close_own();  // first, so that two descriptor numbers are free
    woken_.store(false);
    return open();
  }

 private:
  epoll_backend() = default;

  /// Opens the two descriptors. 0 or a negative errno.
  [[gnu::cold]] int open() noexcept {
    poller_ = ::epoll_create1(EPOLL_CLOEXEC);
    if (poller_ < 0) return -errno;
    wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) return -errno;
    return control(wake_fd_, EPOLLIN, wake_token, false);
  }
  [[gnu::cold]] void close_own() noexcept {
    if (wake_fd_ >= 0) ::close(wake_fd_);
    if (poller_ >= 0) ::close(poller_);
    poller_ = wake_fd_ = -1;
  }

  /// Adds a descriptor, or changes it if it is in the poller already; `change_first` says which of the two
  /// calls to try first.
  int control(int fd, std::uint32_t events, std::uint64_t token, bool change_first) noexcept {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    if (::epoll_ctl(poller_, change_first ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0) return 0;
    if (errno != (change_first ? ENOENT : EEXIST)) return -errno;
    if (::epoll_ctl(poller_, change_first ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) == 0) return 0;
    return -errno;
  }

  int poller_ = -1;
  int wake_fd_ = -1;
  atomic<bool> woken_{false};  // a wake-up is pending; another write is not needed
};

/// Converts to milliseconds, rounded up, since a wait that ends before the timer is due would be repeated. A
/// negative limit means no limit. A limit that epoll cannot express ends early, after 24 days.
inline int epoll_timeout(duration at_most) noexcept {
  if (at_most < duration::zero()) return -1;
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(at_most);
  if (whole.count() >= INT_MAX) return INT_MAX;
  return static_cast<int>(whole.count()) + (at_most > whole ? 1 : 0);
}

ANYIO_NET_FN int epoll_backend::wait(slice<poll_event> events, duration at_most) {
  if (events.empty()) return -EINVAL;
  epoll_event ready[256];
  const auto room = static_cast<int>(std::min(events.size(), std::size(ready)));
  const int n = ::epoll_wait(poller_, ready, room, epoll_timeout(at_most));
  if (n < 0) return errno == EINTR ? 0 : -errno;
  int count = 0;
  for (int i = 0; i < n; ++i) {
    if (ready[i].data.u64 == wake_token) {
      std::uint64_t times = 0;
      [[maybe_unused]] const ssize_t drained = ::read(wake_fd_, &times, sizeof times);
      // The flag is reset after the read: this return covers a `wake` in between. With the opposite order,
      // the read could consume that call's write and leave the flag set, and no later `wake` would write.
      woken_.exchange(false);
    } else {
      events[static_cast<std::size_t>(count++)] = {ready[i].data.u64, readiness_of_poll(ready[i].events)};
    }
  }
  return count;
}

}  // namespace detail

ANYIO_NET_COLD std::unique_ptr<backend> system_backend() { return detail::epoll_backend::make(); }

}}  // namespace anyio

#endif
