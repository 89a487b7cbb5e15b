// Waiting for descriptors that the library does not own.
//
// The owner may close a descriptor and reuse its number at any time, so an entry stays in the poller only
// during a wait. A wait first checks what is ready now, and then makes an entry for one level-triggered
// event, which is removed on completion or withdrawal. A reader and a writer share the entry. This part must
// not know what a descriptor is.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"

#include <cstdint>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

class wait_operation;

namespace detail {

/// The place of such a descriptor among those of its loop.
struct raw_place : link {};

/// A descriptor that belongs to another owner and for which an operation waits.
class raw_descriptor final : public resource, public raw_place {
 public:
  raw_descriptor(loop_core& core, int fd) : resource(core) {
    registration_.fd = fd;
    entered_by_waits = true;
    core.raw_descriptors.push_back(static_cast<raw_place&>(*this));
  }
  ~raw_descriptor() override { close(); }

  /// The entry for `fd`; null if no operation waits for it.
  [[nodiscard]] static raw_descriptor* find(loop_core& core, int fd) noexcept;

  [[nodiscard]] int descriptor() const noexcept override { return registration_.fd; }
  /// Asks the poller to report once the events that are waited for now. Returns 0 or a negative errno.
  [[nodiscard]] int arm();
  /// One waiter left. The entry stays for the other waiter, and ends with the last.
  void left(side s) noexcept;

 private:
  ANYIO_NET_FN void shut() noexcept override;

  registration registration_;
  std::uint64_t token_ = 0;
  bool entered_ = false;
};

}  // namespace detail

/// The operation that `wait_readable` and `wait_writable` return.
class [[nodiscard]] wait_operation : public detail::operation<wait_operation, void> {
 public:
  static constexpr const char* name = "wait";
  wait_operation() = default;
  wait_operation(int fd, detail::side s) noexcept : operation(fd >= 0), fd_(fd), side_(s) {}
  wait_operation(wait_operation&& other) noexcept = default;
  wait_operation& operator=(wait_operation&& other) noexcept;
  ~wait_operation() { leave(); }

 private:
  friend class detail::operation<wait_operation, void>;

  [[nodiscard]] const char* operation_name() const noexcept {
    return side_ == detail::read_side ? "wait_readable" : "wait_writable";
  }
  [[nodiscard]] errc enter();
  bool attempt(result<void>& out);
  void left() noexcept { leave(); }
  [[nodiscard]] int descriptor() const noexcept { return fd_; }

  /// Whether another operation waits for the same event, or the descriptor belongs to a stream of this loop.
  [[nodiscard]] bool busy(detail::loop_core& loop) const noexcept;
  void join(detail::loop_core& loop);
  void leave() noexcept;

  int fd_ = -1;
  detail::side side_ = detail::read_side;
  detail::ref<detail::raw_descriptor> place_;  // set while this waits
};

/// Completes when a read from the descriptor would not block. It completes at once for a descriptor that is
/// ready now, a regular file, an end of stream, or an error. The caller still owns the descriptor, and must
/// call `notify_closing` before closing it while an operation waits.
///
/// One reader and one writer may wait for a descriptor at a time. Errors: `busy_resource` for a second one
/// and for the descriptor of a stream of this loop; `invalid_argument` if `fd` is negative; `os_error` with
/// EBADF if it is not open.
[[nodiscard]] inline wait_operation wait_readable(int fd) { return {fd, detail::read_side}; }
/// Completes when a write to the descriptor would not block. The rules and errors are those of
/// `wait_readable`.
[[nodiscard]] inline wait_operation wait_writable(int fd) { return {fd, detail::write_side}; }

/// Ends the operations that wait for the descriptor on this thread's loop with `closed_resource`. From then
/// on the loop does not touch the descriptor. Does not close it.
void notify_closing(int fd);

}}  // namespace anyio
