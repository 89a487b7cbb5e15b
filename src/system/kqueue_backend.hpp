// The poller on the BSDs and macOS: kqueue, and a pipe for wake-ups.
//
// A descriptor of the library is added once in its life, with EV_CLEAR and both filters. A descriptor of the
// user is watched for one event at a time. On other systems ANYIO_NET_KQUEUE selects this poller, through a
// library that provides <sys/event.h>. This part must not know how events are used.
#pragma once

#include "system/posix_backend.hpp"

#if defined(ANYIO_NET_KQUEUE)

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class kqueue_backend final : public posix_backend {
 public:
  /// Makes a backend; null if the kernel has no descriptors left.
  [[nodiscard]] static std::unique_ptr<kqueue_backend> make();
  ANYIO_NET_FN ~kqueue_backend() override;

  ANYIO_NET_FN int watch(int fd, std::uint64_t token) override;
  ANYIO_NET_FN void forget(int fd) override;
  ANYIO_NET_FN int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override;
  ANYIO_NET_FN int wait(std::span<poll_event> events, duration at_most) override;
  /// Ends the current `wait`, or else the next one. May be called from a signal handler.
  ANYIO_NET_FN void wake() override;
  ANYIO_NET_FN int native_handle() const override;
  ANYIO_NET_FN int wake_descriptor() const override;
  ANYIO_NET_FN int after_fork() override;
  ANYIO_NET_FN int close(int fd) override;

 private:
  enum class kind : unsigned char { none, own, foreign };

  /// The state of a descriptor, stored at its number. The token is stored here, since the kernel has only
  /// room for a pointer.
  struct entry {
    std::uint64_t token = 0;
    kind is = kind::none;
  };

  kqueue_backend() : entries_(256) {}

  /// Opens the descriptors. 0 or a negative errno.
  int open() noexcept;
  void close_own() noexcept;
  entry& entry_of(int fd);
  /// Removes the filters. A filter is not there if it has reported once, or if its descriptor was closed.
  void remove(int fd) noexcept;
  /// Whether a descriptor of the user is still in the poller. It is not if the user has closed it.
  bool still_there(int fd, const entry& e) noexcept;
  void drain_wake() noexcept;

  std::vector<entry> entries_;
  int poller_ = -1;
  int wake_fds_[2] = {-1, -1};  // read from, written to
  pid_t process_ = 0;
  std::atomic<bool> woken_{false};  // a wake-up is pending; another write is not needed
};

}}}  // namespace anyio::detail

#endif
