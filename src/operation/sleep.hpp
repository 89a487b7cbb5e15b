// Sleeping for a duration or until a point in time.
//
// This part must not read a clock: the loop knows the time, which is virtual in a simulation.
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "operation/operation.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI {

/// The operation that `sleep` and `sleep_until` return.
class ANYIO_NET_LAZY sleep_operation : public detail::operation<sleep_operation, void> {
 public:
  static constexpr const char* name = "sleep";
  sleep_operation() = default;
  explicit sleep_operation(duration d) : operation(true), amount_(d) {}
  explicit sleep_operation(time_point deadline) : operation(true), deadline_(deadline), until_(true) {}

 private:
  friend class detail::operation<sleep_operation, void>;
  // Completes from the loop: even a sleep of zero duration lets other tasks run.
  static constexpr bool attempts_when_awaited = false;

  bool attempt(result<void>& out) {
    if (!begun_) started();
    if (waits_for_timer()) return false;
    out = result<void>();
    return true;
  }
  ANYIO_NET_HOT void started() {
    if (detail::exchange(begun_, true)) return;
    detail::loop_core& loop = detail::loop_core::current();
    const time_point time = loop.now();
    if (!until_) deadline_ = detail::add(time, amount_);
    if (deadline_ > time && deadline_ != time_point::max()) loop.arm(timer_, deadline_, *this);
  }
  [[nodiscard]] bool waits_for_timer() const noexcept {
    return timer_.armed() || deadline_ == time_point::max();
  }
  [[nodiscard]] bool in_vain() const noexcept { return begun_ && waits_for_timer(); }
  void left() noexcept {
    timer_.cancel();
    begun_ = false;
  }

  duration amount_{};
  time_point deadline_{};
  bool until_ = false;
  bool begun_ = false;
  detail::timer timer_;
};

/// Completes when the duration has passed, never before. A duration of zero or less still lets other tasks
/// run.
template <class Rep, class Period>
ANYIO_NET_LAZY sleep_operation sleep(std::chrono::duration<Rep, Period> d) {
  return sleep_operation(detail::to_duration(d));
}
/// Completes at a point in time of the loop's clock, never before. A point in the past still lets other tasks
/// run.
ANYIO_NET_LAZY inline sleep_operation sleep_until(time_point deadline) { return sleep_operation(deadline); }

}}  // namespace anyio
