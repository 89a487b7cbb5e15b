// An operation or a task whose failure is a value.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "operation/operation.hpp"

#include <concepts>
#include <coroutine>
#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// Awaits an operation without raising.
template <class Op>
class [[nodiscard]] as_result_awaiter : waiting_for<Op> {
 public:
  using waiting_for<Op>::waiting_for;

  bool await_ready() { return this->op().template ready_at_once<false>(); }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> h) {
    return this->op().template suspend<false>(h, &this->op_);
  }
  auto await_resume() {
    auto r = this->take_op().take_outcome();
    result_access::rethrow_foreign(r);
    return r;
  }
};

/// Passes a result of `as_result` on. The library's own callables take a result of a result; a user's
/// callable takes the result.
template <class T, class F>
struct value_callback {
  using internal = void;
  F f;
  void operator()(result<T>&& r) {
    if constexpr (internal_callable<F>) {
      if (result_access::is_foreign(r)) return f(result_access::failure<result<T>>(r));
      f(result<result<T>>(std::move(r)));
    } else {
      call_back<T>(f, std::move(r));
    }
  }
  node* owner() const noexcept { return owner_of(f); }
  void abandon() const { detail::abandon(f); }
};

/// An operation or a task that returns its failure as a value. It has no state of its own, and does not
/// convert back to the operation, which would raise.
template <class Op>
class [[nodiscard]] as_result_operation : Op {
  using inner = typename Op::value_type;

 public:
  using value_type = result<inner>;

  as_result_operation() = default;

  /// This operation, seen as one whose failure is a value.
  static as_result_operation&& seen(Op& op) noexcept {
    static_assert(sizeof(as_result_operation) == sizeof(Op));  // nothing is added
    return static_cast<as_result_operation&&>(op);
  }

  using Op::waits_with;
  using Op::withdraw;
  void keep_loan() { detail::keep_loan(static_cast<Op&>(*this)); }

  auto operator co_await() noexcept {
    if constexpr (requires(Op& op) { op.awaiter_of_result(); }) {
      return this->awaiter_of_result();
    } else {
      return as_result_awaiter<Op>(*this);
    }
  }

  /// Only for its message, where a result is wanted and an operation is given.
  template <class U>
    requires std::is_same_v<U, value_type>
  operator U() const {
    static_assert(!std::is_same_v<U, U>, "co_await is missing: this is an operation, not its result");
  }

  template <class F>
  void start(F f) & {
    static_assert(detail::is_callback<F, inner>());
    Op::start(value_callback<inner, F>{f});
  }
  template <class F>
  void start(F&& f) && {
    static_assert(detail::is_callback<std::decay_t<F>, inner>());
    detached<as_result_operation, std::decay_t<F>>::start(std::move(*this),
                                                          std::decay_t<F>(std::forward<F>(f)));
  }
};

/// `as_result` of an operation that has a name, and a reference to that. It withdraws the operation at its
/// own end if it has begun it and nobody else has begun it since.
template <class Op>
class [[nodiscard]] as_result_operation<Op&> : public operation_tag {
  using inner = typename Op::value_type;

 public:
  using value_type = result<inner>;

  explicit as_result_operation(Op& op) noexcept : op_(op) {}
  as_result_operation(as_result_operation&& other) noexcept : op_(other.op_) {}
  as_result_operation& operator=(as_result_operation&&) = delete;
  ~as_result_operation() {
    if (begun_with_ != nullptr && op_.waits_with() == begun_with_) op_.withdraw();
  }

  auto operator co_await() noexcept {
    if constexpr (requires { op_.awaiter_of_result(); }) {
      return op_.awaiter_of_result();
    } else {
      return as_result_awaiter<Op>(op_);
    }
  }

  void keep_loan() { detail::keep_loan(op_); }
  void withdraw() noexcept { op_.withdraw(); }
  [[nodiscard]] const face* waits_with() const noexcept { return op_.waits_with(); }

  /// Only for its message, where a result is wanted and an operation is given.
  template <class U>
    requires std::is_same_v<U, value_type>
  operator U() const {
    static_assert(!std::is_same_v<U, U>, "co_await is missing: this is an operation, not its result");
  }

  template <class F>
  void start(F f) & {
    static_assert(detail::is_callback<F, inner>());
    op_.start(value_callback<inner, F>{f});
    begun_with_ = op_.waits_with();
  }
  template <class F>
  void start(F&& f) && {
    static_assert(detail::is_callback<std::decay_t<F>, inner>());
    op_.start(value_callback<inner, std::decay_t<F>>{std::forward<F>(f)});
  }

 private:
  Op& op_;
  const face* begun_with_ = nullptr;
};

}  // namespace detail

/// `co_await as_result(op)` returns a `result<T>` where `co_await op` returns a T or raises an error.
///
/// A temporary operation is not moved: this returns a reference to it, as to one whose failure is a value. To
/// keep it beyond the expression, write `auto x = as_result(…)`, which moves it, not `auto&&`.
template <class Op>
  requires detail::is_operation<Op>
[[nodiscard]] decltype(auto) as_result(Op&& op ANYIO_NET_LIFETIMEBOUND) {
  if constexpr (std::is_lvalue_reference_v<Op>) {
    return detail::as_result_operation<Op>(op);
  } else {
    return detail::as_result_operation<Op>::seen(op);
  }
}

}}  // namespace anyio
