// Waiting on the BSDs and macOS: kqueue, and a pipe to be woken by.
//
// Descriptors of the library's own are watched once in their life, with EV_CLEAR and both filters; those of
// others for one event at a time. On other systems ANYIO_NET_KQUEUE chooses it, over a library that brings
// <sys/event.h>. This part must not know what anyone does with an event.
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
  /// Null if the kernel has no descriptors left.
  [[nodiscard]] static std::unique_ptr<kqueue_backend> make();
  ANYIO_NET_FN ~kqueue_backend() override;

  ANYIO_NET_FN int watch(int fd, std::uint64_t token) override;
  ANYIO_NET_FN void forget(int fd) override;
  ANYIO_NET_FN int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override;
  ANYIO_NET_FN int wait(std::span<poll_event> events, duration at_most) override;
  /// From a signal handler too.
  ANYIO_NET_FN void wake() override;
  ANYIO_NET_FN int native_handle() const override;
  ANYIO_NET_FN int wake_descriptor() const override;
  ANYIO_NET_FN int after_fork() override;
  ANYIO_NET_FN int close(int fd) override;

 private:
  enum class kind : unsigned char { none, own, foreign };

  /// What is known of a descriptor, at its number. The token is here and not with the kernel, whose
  /// room for it is a pointer.
  struct entry {
    std::uint64_t token = 0;
    kind is = kind::none;
  };

  kqueue_backend() : entries_(256) {}

  /// Makes the descriptors. 0 or a negative errno.
  int open() noexcept;
  void close_own() noexcept;
  entry& entry_of(int fd);
  /// Takes the filters out. One is not there if it has told once, or its descriptor was closed.
  void remove(int fd) noexcept;
  /// Whether an entry of somebody else's is still in the poller. If its owner has closed it, it is not.
  bool still_there(int fd, const entry& e) noexcept;
  void drain_wake() noexcept;

  std::vector<entry> entries_;
  int poller_ = -1;
  int wake_fds_[2] = {-1, -1};  // read from, written to
  pid_t process_ = 0;
  std::atomic<bool> woken_{false};  // a wake-up is under way, another write would add nothing
};

}}}  // namespace anyio::detail

#endif
