// Waiting for descriptors that belong to others.
//
// Their owner may close one and use its number again at any time, so nothing of it stays in the poller
// beyond a wait: first a look at what is ready now, then an entry for one event, level-triggered, which is
// taken out again on completion or withdrawal. A reader and a writer share the entry. This part must not
// know what a descriptor is.
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

/// A descriptor of somebody else's that is waited for.
class raw_descriptor final : public resource, public link {
 public:
  raw_descriptor(loop_core& core, int fd) : resource(core) {
    registration_.fd = fd;
    entered_by_waits = true;
    core.raw_descriptors.insert_before(*this);
  }
  ~raw_descriptor() override { close(); }

  /// Null if nobody waits for it.
  [[nodiscard]] static raw_descriptor* find(loop_core& core, int fd) noexcept;

  [[nodiscard]] int descriptor() const noexcept override { return registration_.fd; }
  /// Has the poller tell once of what is waited for now. 0 or a negative errno.
  [[nodiscard]] int arm();
  /// Somebody does not wait any more; the entry serves the other one, or ends with the last.
  void left(side s) noexcept;

 private:
  ANYIO_NET_FN void shut() noexcept override;

  registration registration_;
  std::uint64_t token_ = 0;
  bool entered_ = false;
};

}  // namespace detail

/// What `wait_readable` and `wait_writable` give.
class [[nodiscard]] wait_operation : public detail::operation<wait_operation, void> {
 public:
  static constexpr const char* name = "wait";
  wait_operation() = default;
  wait_operation(int fd, detail::side s) noexcept : fd_(fd), side_(s) {}
  wait_operation(wait_operation&& other) noexcept = default;
  wait_operation& operator=(wait_operation&& other) noexcept;
  ~wait_operation() { leave(); }

 private:
  friend class detail::operation<wait_operation, void>;

  [[nodiscard]] const char* operation_name() const noexcept {
    return side_ == detail::read_side ? "wait_readable" : "wait_writable";
  }
  [[nodiscard]] errc check() const noexcept { return fd_ < 0 ? errc::invalid_argument : errc::ok; }
  [[nodiscard]] errc enter();
  bool attempt(result<void>& out);
  void left() noexcept { leave(); }
  [[nodiscard]] int descriptor() const noexcept { return fd_; }

  /// Whether another waits for the same, or the descriptor belongs to a stream of this loop.
  [[nodiscard]] bool busy(detail::loop_core& loop) const noexcept;
  void join(detail::loop_core& loop);
  void leave() noexcept;

  int fd_ = -1;
  detail::side side_ = detail::read_side;
  detail::ref<detail::raw_descriptor> place_;  // while it waits
};

/// Completes when a read from the descriptor would not block: ready now is ready, and so is a regular
/// file, an end of stream or an error. The descriptor stays the caller's, who calls `notify_closing`
/// before closing it while somebody waits.
///
/// One reader and one writer may wait for a descriptor at a time: `busy_resource` else, and for the
/// descriptor of a stream of this loop. `invalid_argument` if negative, `os_error` with EBADF if not open.
[[nodiscard]] inline wait_operation wait_readable(int fd) { return {fd, detail::read_side}; }
/// The same for a write.
[[nodiscard]] inline wait_operation wait_writable(int fd) { return {fd, detail::write_side}; }

/// Ends what waits for the descriptor on this thread's loop with `closed_resource`; from here on the loop
/// does not touch it. Does not close it.
void notify_closing(int fd);

}}  // namespace anyio
