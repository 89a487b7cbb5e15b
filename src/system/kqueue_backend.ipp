// The poller on the BSDs and macOS: kqueue, and a pipe for wake-ups.
//
// A descriptor of the library is added once in its life, with EV_CLEAR and both filters. A descriptor of the
// user is watched for one event at a time. On other systems ANYIO_NET_KQUEUE selects this poller, through a
// library that provides <sys/event.h>. This part must not know how events are used.
#pragma once

#include "base/atomic.hpp"
#include "base/exchange.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"
#include "system/posix_backend.hpp"

#if defined(ANYIO_NET_KQUEUE)

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/event.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A list of changes for one descriptor; each change has its own error.
class kqueue_changes {
 public:
  static constexpr int limit = 3;

  void add(int fd, int filter, int flags, unsigned fflags = 0) noexcept {
    struct kevent& change = changes_[count_++];
    // Not EV_SET, which causes a warning on some systems.
    change = {};
    change.ident = static_cast<decltype(change.ident)>(fd);
    change.filter = static_cast<decltype(change.filter)>(filter);
    change.flags = static_cast<decltype(change.flags)>(flags | EV_RECEIPT);
    change.fflags = fflags;
  }

  /// Applies the changes. With EV_RECEIPT the kernel returns only receipts, one per change, and continues
  /// after a rejected change. An interrupted call is repeated, since a repeated change does no harm. 0 or a
  /// negative errno.
  int apply(int poller) noexcept {
    const timespec at_once{};
    do {
      receipt_count_ = ::kevent(poller, changes_, count_, receipts_, count_, &at_once);
    } while (receipt_count_ < 0 && errno == EINTR);
    return receipt_count_ < 0 ? -errno : 0;
  }

  /// The errno of the change of this filter, or 0.
  int error_of(int filter) const noexcept {
    for (int i = 0; i < receipt_count_; ++i) {
      const struct kevent& receipt = receipts_[i];
      if (static_cast<int>(receipt.filter) == filter && (receipt.flags & EV_ERROR) != 0)
        return static_cast<int>(receipt.data);
    }
    return 0;
  }

 private:
  struct kevent changes_[limit];
  struct kevent receipts_[limit];
  int count_ = 0;
  int receipt_count_ = 0;
};

/// Rejects a file with -EPERM: files are always ready, and kqueue would report them endlessly. 0 or -errno.
inline int refuse_file(int fd) noexcept {
  struct stat status;
  if (::fstat(fd, &status) != 0) return -errno;
  return S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode) ? -EPERM : 0;
}

/// Converts the error of a rejected filter to the backend's result: -EPERM for a device that is always ready,
/// such as /dev/null, for which systems return different errors. A terminal that cannot be watched keeps its
/// error, since it can block.
[[gnu::cold]] inline int filter_refusal(int fd, int error_number) noexcept {
  struct stat status;
  const bool is_device = ::fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && ::isatty(fd) == 0;
  const bool is_unknown = error_number != EBADF && error_number != ENOMEM;
  return is_device && is_unknown ? -EPERM : -error_number;
}

class kqueue_backend final : public posix_backend {
 public:
  /// Makes a backend; null if the kernel has no descriptors left.
  [[gnu::cold]] [[nodiscard]] static std::unique_ptr<backend> make() {
    auto* const made = new kqueue_backend;
    std::unique_ptr<backend> owner(made);
    if (made->open() < 0) owner.reset();
    return owner;
  }
  ~kqueue_backend() override { close_own(); }

  ANYIO_NET_FN int watch(int fd, std::uint64_t token) override;
  void forget(int fd) override {
    if (fd < 0 || static_cast<std::size_t>(fd) >= entries_.size()) return;
    entry& e = entries_[static_cast<std::size_t>(fd)];
    if (e.is == kind::none) return;
    remove(fd);
    e.is = kind::none;
  }
  ANYIO_NET_FN int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override;
  ANYIO_NET_FN int wait(slice<poll_event> events, duration at_most) override;
  /// Ends the current `wait`, or else the next one. May be called from a signal handler.
  void wake() override {
    if (woken_.exchange(true)) return;
    const char one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_fds_[1], &one, sizeof one);
  }
  int native_handle() const override { return poller_; }
  int wake_descriptor() const override { return wake_fds_[1]; }
  [[gnu::cold]] int after_fork() override {
    close_own();
    for (entry& e : entries_) e.is = kind::none;
    woken_.store(false);
    return open();
  }
  int close(int fd) override {
    // The kernel removes the filters, even if duplicates of the descriptor exist.
    if (fd >= 0 && static_cast<std::size_t>(fd) < entries_.size())
      entries_[static_cast<std::size_t>(fd)].is = kind::none;
    return posix_backend::close(fd);
  }

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
  [[gnu::cold]] void close_own() noexcept {
    for (int& fd : wake_fds_)
      if (const int old = detail::exchange(fd, -1); old >= 0) ::close(old);
    // In the child of a fork the number does not refer to the poller, and may refer to any other file.
    if (const int old = detail::exchange(poller_, -1); old >= 0 && process_ == ::getpid()) ::close(old);
  }
  entry& entry_of(int fd) {
    const auto index = static_cast<std::size_t>(fd);
    if (index >= entries_.size()) entries_.resize(std::max(index + 1, entries_.size() * 2));
    return entries_[index];
  }
  /// Removes the filters. A filter is not there if it has reported once, or if its descriptor was closed.
  void remove(int fd) noexcept {
    kqueue_changes changes;
    changes.add(fd, EVFILT_READ, EV_DELETE);
    changes.add(fd, EVFILT_WRITE, EV_DELETE);
#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
    changes.add(fd, EVFILT_EXCEPT, EV_DELETE);
#endif
    static_cast<void>(changes.apply(poller_));
  }
  /// Whether a descriptor of the user is still in the poller. It is not if the user has closed it.
  [[gnu::cold]] bool still_there(int fd, const entry& e) noexcept {
    // kqueue has no query: a filter that can be removed was there, and is then added again.
    kqueue_changes out;
    out.add(fd, EVFILT_READ, EV_DELETE);
    out.add(fd, EVFILT_WRITE, EV_DELETE);
    if (out.apply(poller_) < 0) return false;
    std::uint32_t interest = 0;
    if (out.error_of(EVFILT_READ) == 0) interest |= ready_read;
    if (out.error_of(EVFILT_WRITE) == 0) interest |= ready_write;
    return interest != 0 && watch_once(fd, interest, e.token, true) == 0;
  }
  void drain_wake() noexcept {
    char bytes[512];  // the poller reports any remaining bytes again
    [[maybe_unused]] const ssize_t drained = ::read(wake_fds_[0], bytes, sizeof bytes);
    // The flag is reset after the read: this return covers a `wake` in between. With the opposite order, the
    // read could consume that call's write and leave the flag set, and no later `wake` would write.
    woken_.exchange(false);
  }

  std::vector<entry> entries_;
  int poller_ = -1;
  int wake_fds_[2] = {-1, -1};  // read from, written to
  pid_t process_ = 0;
  atomic<bool> woken_{false};  // a wake-up is pending; another write is not needed
};

ANYIO_NET_COLD int kqueue_backend::open() noexcept {
  process_ = ::getpid();
  poller_ = ::kqueue();
  if (poller_ < 0) return -errno;
  // A child of fork does not inherit the queue, but a program started by exec would.
  if (::fcntl(poller_, F_SETFD, FD_CLOEXEC) < 0) return -errno;
#if defined(__APPLE__)
  if (::pipe(wake_fds_) < 0) return -errno;
  for (const int fd : wake_fds_)
    if (const int status = adopt_descriptor(fd); status < 0) return status;
#else
  if (::pipe2(wake_fds_, O_CLOEXEC | O_NONBLOCK) < 0) return -errno;
#endif
  kqueue_changes changes;
  changes.add(wake_fds_[0], EVFILT_READ, EV_ADD);
  const int status = changes.apply(poller_);
  return status < 0 ? status : -changes.error_of(EVFILT_READ);
}

ANYIO_NET_FN int kqueue_backend::watch(int fd, std::uint64_t token) {
  if (fd < 0) return -EBADF;
  entry& e = entry_of(fd);
  if (e.is == kind::own || (e.is == kind::foreign && still_there(fd, e))) return -EEXIST;
  if (const int status = refuse_file(fd); status < 0) return status;
  kqueue_changes changes;
  changes.add(fd, EVFILT_READ, EV_ADD | EV_CLEAR);
  changes.add(fd, EVFILT_WRITE, EV_ADD | EV_CLEAR);
#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
  changes.add(fd, EVFILT_EXCEPT, EV_ADD | EV_CLEAR, NOTE_OOB);  // only some sockets have it
#endif
  if (const int status = changes.apply(poller_); status < 0) return status;
  for (const int filter : {EVFILT_READ, EVFILT_WRITE}) {
    const int error_number = changes.error_of(filter);
    // EPIPE: the other end of a pipe is closed already; the first attempt will report it.
    if (error_number == 0 || error_number == EPIPE) continue;
    remove(fd);
    return filter_refusal(fd, error_number);
  }
  e = {token, kind::own};
  return 0;
}

ANYIO_NET_FN int kqueue_backend::watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) {
  if (fd < 0) return -EBADF;
  entry& e = entry_of(fd);
  if (e.is == kind::own) return -EEXIST;
  if (const int status = refuse_file(fd); status < 0) return status;
  // Each filter reports once. A filter that is no longer wanted may still be there from an earlier call.
  kqueue_changes changes;
  const auto change = [&](int filter, std::uint32_t bit) {
    const bool wanted = (interest & bit) != 0;
    if (wanted || again || e.is == kind::foreign)
      changes.add(fd, filter, wanted ? EV_ADD | EV_ONESHOT : EV_DELETE);
    return wanted;
  };
  const bool reads = change(EVFILT_READ, ready_read);
  const bool writes = change(EVFILT_WRITE, ready_write);
  if (const int status = changes.apply(poller_); status < 0) return status;
  e = {token, kind::foreign};
  const int read_error = reads ? changes.error_of(EVFILT_READ) : 0;
  const int error_number = read_error != 0 ? read_error : writes ? changes.error_of(EVFILT_WRITE) : 0;
  if (error_number == 0) return 0;
  // If the other end of a pipe is closed, no call blocks.
  return error_number == EPIPE ? -EPERM : filter_refusal(fd, error_number);
}

/// Converts to a timespec; a negative limit means no limit. A limit that is too long for some kernels ends
/// early, after 24 days.
inline const timespec* kqueue_timeout(duration at_most, timespec& out) noexcept {
  if (at_most < duration::zero()) return nullptr;
  const duration limit = std::min<duration>(at_most, std::chrono::hours(24 * 24));
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(limit);
  out.tv_sec = static_cast<decltype(out.tv_sec)>(whole.count());
  out.tv_nsec = static_cast<decltype(out.tv_nsec)>((limit - whole).count());
  return &out;
}

inline std::uint32_t readiness_of_filter(const struct kevent& event) noexcept {
  const bool at_end = (event.flags & (EV_EOF | EV_ERROR)) != 0;
  switch (event.filter) {
    // At the end, earlier bytes may still be unread.
    case EVFILT_READ: return ready_read | (at_end ? ready_end : 0u);
    // EV_EOF of only this filter comes from a shutdown by this end; the read filter reports a hang-up too.
    case EVFILT_WRITE: return ready_write;
    default: return ready_urgent | ready_read;
  }
}

ANYIO_NET_FN int kqueue_backend::wait(slice<poll_event> events, duration at_most) {
  if (events.empty()) return -EINVAL;
  struct kevent ready[256];
  const auto room = static_cast<int>(std::min(events.size(), std::size(ready)));
  timespec limit;
  const int n = ::kevent(poller_, nullptr, 0, ready, room, kqueue_timeout(at_most, limit));
  if (n < 0) return errno == EINTR ? 0 : -errno;
  int count = 0;
  for (int i = 0; i < n; ++i) {
    const auto index = static_cast<std::size_t>(ready[i].ident);
    if (index == static_cast<std::size_t>(wake_fds_[0])) {
      drain_wake();
    } else if (index < entries_.size() && entries_[index].is != kind::none) {
      events[static_cast<std::size_t>(count++)] = {entries_[index].token, readiness_of_filter(ready[i])};
    }
  }
  return count;
}

}  // namespace detail

ANYIO_NET_COLD std::unique_ptr<backend> system_backend() { return detail::kqueue_backend::make(); }

}}  // namespace anyio

#endif
