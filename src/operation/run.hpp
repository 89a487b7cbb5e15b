// Running an operation from a plain function.
#pragma once

#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "operation/as_result.hpp"
#include "operation/combinators.hpp"
#include "operation/operation.hpp"

#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

template <class T>
struct run_done {
  using internal = void;
  result<T>* outcome;
  bool* done;
  node* runner = nullptr;  // stands for the call of `run` that waits
  void operator()(result<T>&& r) const {
    *outcome = std::move(r);
    *done = true;
  }
  [[nodiscard]] node* owner() const noexcept { return runner; }
};

/// A foreign exception may leave the loop before the caller's own operation has completed. The operation is
/// then withdrawn, since it refers to the frame of `run`.
template <class Op>
struct withdraw_at_end {
  Op& op;
};
template <class Op>
struct withdraw_at_end<Op&> {
  Op& op;
  ~withdraw_at_end() { op.withdraw(); }
};

}  // namespace detail

/// Runs an operation, a task, or a callable that returns a task, and returns its value or raises its error.
/// Without exceptions, prints the error and aborts; `run(as_result(x))` returns the result.
///
/// Uses this thread's loop if there is one that does not run. Otherwise makes a loop for this call;
/// operations that are still pending at the end are destroyed with that loop. A loop that was inherited over
/// a fork is not used before its `after_fork`.
///
/// A loop that runs continues only after this call. Inside such a loop, `x` must not wait for anything that
/// belongs to that loop, such as an operation of one of its streams: it would never complete. This fails an
/// assertion, or is `invalid_argument` without assertions; so is an operation of another loop that does not
/// run. Starting such an operation with a callback is allowed.
template <class X>
auto run(X&& x) {
  using reference = std::conditional_t<detail::is_operation<X> && std::is_lvalue_reference_v<X>, X,
                                       detail::operation_of_t<X>>;
  using T = typename std::remove_reference_t<reference>::value_type;

  detail::owned<loop> own;
  if (detail::loop_core* core = detail::loop_core::current_or_null();
      core == nullptr || core->running() || core->inherited())
    own.reset(new loop);
  const detail::ref<detail::loop_core> core(&detail::loop_core::current());

  result<T> outcome(errc::cancelled);
  bool done = false;
  {
    auto make = [&]() -> reference {
      if constexpr (std::is_lvalue_reference_v<reference>) {
        return x;
      } else {
        return detail::as_operation(std::forward<X>(x));
      }
    };
    reference op = make();
    [[maybe_unused]] const detail::withdraw_at_end<reference> guard{op};
    detail::node runner;
    const detail::loop_core::waiting_scope waits(*core, &runner);
    op.start(detail::run_done<T>{&outcome, &done, &runner});
    do {
      core->run(&done);
    } while (!done && core->alive() && !core->idle());
  }
  if (!done) {
    ANYIO_NET_ASSERT(!core->alive() && "the operation belongs to another loop");
    const error ended = core->alive() ? detail::error_access::with_reason(
                                            error(errc::invalid_argument, 0, "run"),
                                            "the operation belongs to another loop, which is not running")
                                      : error(errc::closed_resource, 0, "run");
    if constexpr (detail::is_result<T>) {
      outcome = T(ended);
    } else {
      outcome = ended;
    }
  }
#if !ANYIO_NET_EXCEPTIONS
  if (!outcome.has_value()) detail::abort_with("run", outcome.error());
#endif
  return std::move(outcome).value();
}

}}  // namespace anyio
