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

/// What an operation made of another begins to wait for. If that lies elsewhere, it is withdrawn with this,
/// unless it has ended, or somebody else has begun it since. One that is held by value ends with its holder
/// anyway.
template <class Op>
struct begun_elsewhere {
  void begun(Op&) noexcept {}
};
template <class Op>
struct begun_elsewhere<Op&> {
  begun_elsewhere() = default;
  begun_elsewhere(begun_elsewhere&&) noexcept {}
  begun_elsewhere& operator=(begun_elsewhere&&) = delete;
  ~begun_elsewhere() {
    if (op != nullptr && op->waits_with() == how) op->withdraw();
  }
  void begun(Op& o) noexcept {
    op = &o;
    how = o.waits_with();
  }
  Op* op = nullptr;
  const face* how = nullptr;
};

/// An operation or a task that returns its failure as a value. Op may be a reference.
template <class Op>
class [[nodiscard]] as_result_operation : public operation_tag {
  using inner = typename std::remove_reference_t<Op>::value_type;

 public:
  using value_type = result<inner>;

  as_result_operation()
    requires(!std::is_reference_v<Op>)
  = default;
  explicit as_result_operation(Op&& op) : op_(std::forward<Op>(op)) {}

  auto operator co_await() noexcept {
    if constexpr (requires { op_.awaiter_of_result(); }) {
      return op_.awaiter_of_result();
    } else {
      return as_result_awaiter<std::remove_reference_t<Op>>(op_);
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
    op_.start(wrapped<F>{f});
    begun_.begun(op_);
  }
  template <class F>
  void start(F&& f) && {
    static_assert(detail::is_callback<std::decay_t<F>, inner>());
    if constexpr (std::is_lvalue_reference_v<Op>) {
      op_.start(wrapped<std::decay_t<F>>{std::forward<F>(f)});
    } else {
      detached<as_result_operation, std::decay_t<F>>::start(std::move(*this),
                                                            std::decay_t<F>(std::forward<F>(f)));
    }
  }

 private:
  // The library's own callables take a result of a result; a user's callable takes the result.
  template <class F>
  struct wrapped {
    using internal = void;
    F f;
    void operator()(result<inner>&& r) {
      if constexpr (internal_callable<F>) {
        if (result_access::is_foreign(r)) return f(result_access::failure<result<inner>>(r));
        f(result<result<inner>>(std::move(r)));
      } else {
        call_back<inner>(f, std::move(r));
      }
    }
    node* owner() const noexcept { return owner_of(f); }
    void abandon() const { detail::abandon(f); }
  };
  Op op_;
  [[no_unique_address]] begun_elsewhere<Op> begun_;
};

}  // namespace detail

/// `co_await as_result(op)` returns a `result<T>` where `co_await op` returns a T or raises an error.
template <class Op>
  requires detail::is_operation<Op>
[[nodiscard]] detail::as_result_operation<Op> as_result(Op&& op) {
  return detail::as_result_operation<Op>(std::forward<Op>(op));
}

}}  // namespace anyio
