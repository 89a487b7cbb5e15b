// Receiving signals.
//
// The signal handler, behind the backend, only records a signal and wakes the loops that asked for it. Here
// each loop passes the signal to every receiver that named it. Several signals of one number that arrive in
// the meantime count as one, as in the kernel. This part must not know what a signal handler may do.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "operation/resource_operation.hpp"
#include "system/backend.hpp"

#include <concepts>
#include <cstdint>
#include <span>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The place of a receiver among those of its loop.
struct receiver_place : link {};

/// The signals of one receiver; a set is a mask with a bit for each number, at number - 1.
class signal_resource final : public resource, public receiver_place {
 public:
  static constexpr int highest = 64;

  explicit signal_resource(loop_core& core);
  ~signal_resource() override { close(); }

  /// Names one more signal. Returns 0 or a negative errno.
  [[nodiscard]] int add(int number);
  /// Takes the signal with the lowest number that has arrived; 0 if there is none.
  [[nodiscard]] int take();

 private:
  [[nodiscard]] static signal_resource& at(link& place) noexcept {
    return static_cast<signal_resource&>(static_cast<receiver_place&>(place));
  }
  /// Passes the signals that have arrived to the receivers of the loop.
  static void distribute(loop_core& core);
  ANYIO_NET_FN void shut() noexcept override;

  registration registration_;
  std::uint64_t named_ = 0;
  std::uint64_t came_ = 0;
};

/// The operation that `signal_receiver::receive` returns.
class [[nodiscard]] receive_signal_operation
    : public resource_operation<receive_signal_operation, int, signal_resource, read_side> {
 public:
  static constexpr const char* name = "receive_signal";
  receive_signal_operation() = default;
  explicit receive_signal_operation(ref<signal_resource> r) noexcept : resource_operation(std::move(r)) {}

 private:
  friend class operation<receive_signal_operation, int>;

  bool attempt(result<int>& out) {
    const int number = resource_->take();
    if (number != 0) out = number;
    return number != 0;
  }
};

}  // namespace detail

/// Receives the signals that it names while it is open, in place of their previous disposition in the
/// process. Every receiver, on any loop, that named a signal receives it. When the last of these receivers is
/// closed, the previous disposition is restored.
///
/// Signals of one number that arrive faster than they are received count as one (sigaction(2)). A receiver
/// without a pending operation does not keep `run()` running.
class signal_receiver {
 public:
  signal_receiver() = default;
  signal_receiver(signal_receiver&&) noexcept = default;
  signal_receiver& operator=(signal_receiver&& other) noexcept;
  ~signal_receiver() { close(); }

  /// Opens a receiver on this thread's loop. Fails with `invalid_argument` and EINVAL for a number that is
  /// not a signal or cannot be caught.
  template <std::convertible_to<int>... Numbers>
  [[nodiscard]] static result<signal_receiver> open(int first, Numbers... others) {
    const int numbers[] = {first, static_cast<int>(others)...};
    return open_all(numbers);
  }

  /// Whether it is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }

  /// Returns the number of a signal that has arrived, the lowest first if there are several.
  [[nodiscard]] detail::receive_signal_operation receive() {
    return detail::receive_signal_operation(resource_);
  }
  /// The pending operation makes one more attempt, then ends with `cancelled`.
  void cancel() noexcept {
    if (resource_) resource_->cancel();
  }
  /// Closes the receiver. The pending operation ends with `closed_resource`; signals that have arrived but
  /// were not received are dropped. Calling it again has no effect.
  void close() noexcept {
    if (resource_) resource_->close();
  }

 private:
  explicit signal_receiver(detail::ref<detail::signal_resource> r) noexcept : resource_(std::move(r)) {}
  [[nodiscard]] static result<signal_receiver> open_all(std::span<const int> numbers);

  detail::ref<detail::signal_resource> resource_;
};

}}  // namespace anyio
