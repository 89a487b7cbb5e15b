// Signals as something to receive.
//
// The handler behind the seam only notes a signal and wakes the loops that asked for it; here each loop
// hands it to every receiver that named it, once for all that came in the meantime, as the kernel does.
// This part must not know what a handler may do.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"
#include "system/backend.hpp"

#include <concepts>
#include <cstdint>
#include <span>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The signals of one receiver; a set is a mask with a bit for each number, at number - 1.
class signal_resource final : public resource, public link {
 public:
  static constexpr int highest = 64;

  explicit signal_resource(loop_core& core);
  ~signal_resource() override { close(); }

  /// Names one more signal. 0 or a negative errno.
  [[nodiscard]] int add(int number);
  /// The lowest that came; 0 if none did.
  [[nodiscard]] int take();

 private:
  /// Hands what came to the receivers of the loop.
  static void distribute(loop_core& core);
  ANYIO_NET_FN void shut() noexcept override;

  registration registration_;
  std::uint64_t named_ = 0;
  std::uint64_t came_ = 0;
};

/// What `signal_receiver::receive` gives.
class [[nodiscard]] receive_signal_operation
    : public resource_operation<receive_signal_operation, int, signal_resource, read_side> {
 public:
  static constexpr const char* name = "receive_signal";
  receive_signal_operation() = default;
  explicit receive_signal_operation(ref<signal_resource> r) noexcept : resource_operation(std::move(r)) {}

 private:
  friend class operation<receive_signal_operation, int>;

  bool attempt(result<int>& out) {
    if (!resource_->open()) {
      out = closed();
      return true;
    }
    const int number = resource_->take();
    if (number != 0) out = number;
    return number != 0;
  }
};

}  // namespace detail

/// Receives the signals that it names, from its opening to its end, instead of what the process did with
/// them before. Every receiver of any loop that named a signal gets it; when the last of them is closed,
/// the disposition from before is back.
///
/// Signals of a kind that come faster than they are received count as one (sigaction(2)). A receiver that
/// nobody waits on does not keep `run()` going.
class signal_receiver {
 public:
  signal_receiver() = default;
  signal_receiver(signal_receiver&&) noexcept = default;
  signal_receiver& operator=(signal_receiver&& other) noexcept;
  ~signal_receiver() { close(); }

  /// For this thread's loop. `invalid_argument` with EINVAL for a number that is none, or that cannot be
  /// caught.
  template <std::convertible_to<int>... Numbers>
  [[nodiscard]] static result<signal_receiver> open(int first, Numbers... others) {
    const int numbers[] = {first, static_cast<int>(others)...};
    return open_all(numbers);
  }

  /// Whether it is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }

  /// The number of a signal that came, the lowest first if there are several.
  [[nodiscard]] detail::receive_signal_operation receive() {
    return detail::receive_signal_operation(resource_);
  }
  /// What waits makes one more attempt, then ends with `cancelled`.
  void cancel() noexcept {
    if (resource_) resource_->cancel();
  }
  /// What waits ends with `closed_resource`; what came and was not received is dropped. Again is a no-op.
  void close() noexcept {
    if (resource_) resource_->close();
  }

 private:
  explicit signal_receiver(detail::ref<detail::signal_resource> r) noexcept : resource_(std::move(r)) {}
  [[nodiscard]] static result<signal_receiver> open_all(std::span<const int> numbers);

  detail::ref<detail::signal_resource> resource_;
};

}}  // namespace anyio
