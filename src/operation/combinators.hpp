// Operations made of operations: time limits, all of several, one of several.
//
// A composite starts its children with callbacks that advance it. It completes at once when the last
// outcome that it needs arrives, so that a view that a child returns is still valid. Destroying a composite
// destroys its children. This part must not know what a child does.
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/optional.hpp"
#include "base/standard.hpp"
#include "operation/operation.hpp"
#include "operation/part.hpp"
#include "operation/task.hpp"

#include <cstddef>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// Keeps a callable alive together with the task that it returned.
template <class F>
#if defined(__clang__)
[[clang::no_sanitize("function")]]  // clang 14 cannot assemble what that check adds to a coroutine template
#endif
auto call_task(F f) -> std::invoke_result_t<F&> {
  co_return co_await f();
}

template <class X>
struct called {
  using type = task<>;  // after an error
};
template <class X>
  requires std::is_invocable_v<std::decay_t<X>&>
struct called<X> {
  using type = std::invoke_result_t<std::decay_t<X>&>;
};

template <class X>
struct operation_of {
  static_assert(std::is_invocable_v<std::decay_t<X>&>,
                "expected an operation, a task, or a callable that returns a task and takes no arguments: a "
                "lambda captures what it needs");
  using type = typename called<X>::type;
  static_assert(is_task<type>, "expected an operation, a task, or a callable that returns a task");
};
template <class X>
  requires is_operation<X>
struct operation_of<X> {
  using type = std::remove_cvref_t<X>;
};

/// The operation that `x` stands for: `x` itself, or the task that `x` returns when called without arguments.
template <class X>
using operation_of_t = typename operation_of<X>::type;

template <class X>
operation_of_t<X> as_operation(X&& x) {
  if constexpr (is_operation<X>) {
    static_assert(!std::is_lvalue_reference_v<X>,
                  "an operation must be passed by std::move or created in place");
    return std::forward<X>(x);
  } else {
    return call_task<std::decay_t<X>>(std::forward<X>(x));
  }
}

template <class T>
using not_void = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

/// Whether a composite may attempt this child itself: a plain operation, which keeps nothing running.
template <class Op>
concept attemptable = requires(Op& op, result<typename Op::value_type>& out) { op.attempt_for_parent(out); };

/// Ends a child that has not ended. A child that keeps nothing running may be started again.
template <class Op>
void end_child(optional<Op>& op) noexcept {
  if constexpr (attemptable<Op>) {
    if (op) op->withdraw();
  } else {
    op.reset();
  }
}

/// A child, and the time at which it is cancelled.
template <class Derived, class T, class Op>
class timed_operation : public operation<Derived, T> {
 public:
  timed_operation() = default;
  timed_operation(duration limit, Op&& op) : limit_(std::max(limit, duration::zero())), op_(std::move(op)) {}
  timed_operation(time_point deadline, Op&& op) : deadline_(deadline), at_(true), op_(std::move(op)) {}

  void keep_loan() {
    if (op_) detail::keep_loan(*op_);
  }

 protected:
  friend class operation<Derived, T>;
  using child_value = typename Op::value_type;
  static constexpr bool has_parts = true;

  /// True when the child has an outcome, or when the time limit has passed: `timed_out`.
  bool attempt_child(result<child_value>& out) {
    if (arrived_.take(out)) return true;
    if (!begun_) {
      if constexpr (attemptable<Op>) {
        if (op_->attempt_for_parent(out)) return true;
      }
      begin_child();
      return false;
    }
    if (timer_.armed() || deadline_ == time_point::max()) return false;
    if constexpr (attemptable<Op>) {
      if (op_->attempt_last(out)) return true;
    }
    out = error(errc::timed_out, 0, static_cast<const Derived&>(*this).operation_name());
    return true;
  }
  void started() {
    if (!begun_ && op_) begin_child();
  }
  void left() noexcept {
    timer_.cancel();
    begun_ = false;
    end_child(op_);
  }
  [[nodiscard]] errc check() const noexcept { return op_ ? errc::ok : errc::invalid_argument; }

 private:
  void begin_child() {
    begun_ = true;
    loop_core& loop = loop_core::current();
    if (!at_) deadline_ = add(loop.now(), limit_);
    if (deadline_ != time_point::max()) loop.arm(timer_, deadline_, *this);
    op_->start(part<&timed_operation::child_ended>(this));
  }
  void child_ended(result<child_value>&& r) { arrived_.hand_over(r, *this); }

  duration limit_{};
  time_point deadline_{};
  bool at_ = false;
  bool begun_ = false;
  part_outcome<child_value> arrived_;
  optional<Op> op_;
  timer timer_;
};

}  // namespace detail

/// The operation that `fail_after` and `fail_at` return.
template <class Op>
class [[nodiscard]] timeout_operation
    : public detail::timed_operation<timeout_operation<Op>, typename Op::value_type, Op> {
 public:
  static constexpr const char* name = "timeout";
  timeout_operation() = default;
  /// `limit` is a duration or a point in time; `what` is static text, the operation of the error.
  template <class Limit>
  timeout_operation(Limit limit, Op&& op, const char* what = name)
      : detail::timed_operation<timeout_operation, typename Op::value_type, Op>(limit, std::move(op)),
        what_(what) {}

 private:
  friend class detail::operation<timeout_operation, typename Op::value_type>;
  friend class detail::timed_operation<timeout_operation, typename Op::value_type, Op>;
  [[nodiscard]] const char* operation_name() const noexcept { return what_; }
  const char* what_ = name;
  bool attempt(result<typename Op::value_type>& out) { return this->attempt_child(out); }
};

namespace detail {

template <class T>
using maybe = std::conditional_t<std::is_void_v<T>, bool, std::optional<not_void<T>>>;

/// The operation that `move_on_after` and `move_on_at` return.
template <class Op>
class [[nodiscard]] move_on_operation
    : public timed_operation<move_on_operation<Op>, maybe<typename Op::value_type>, Op> {
  using child_value = typename Op::value_type;
  using value = maybe<child_value>;

 public:
  static constexpr char own_name[] = "move_on";  // an array, since its address tells its own time limit
  static constexpr const char* name = own_name;
  using timed_operation<move_on_operation, value, Op>::timed_operation;

 private:
  friend class operation<move_on_operation, value>;
  bool attempt(result<value>& out) {
    result<child_value> r(errc::cancelled);
    if (!this->attempt_child(r)) return false;
    if (!r.has_value()) {
      const bool ran_out = r.error() == errc::timed_out && r.error().operation().data() == name;
      out = ran_out ? result<value>(value()) : result_access::failure<value>(r);
    } else if constexpr (std::is_void_v<child_value>) {
      out = result<value>(true);
    } else {
      out = result<value>(value(*std::move(r)));
    }
    return true;
  }
};

}  // namespace detail

/// Runs `x` with a time limit: returns its value, or fails with `timed_out` if the limit passes first. With a
/// limit of zero, returns only what is available at once. `what` must be static text, and says what was
/// waited for: it is the operation of the error, as in "reading the request: timed out".
template <class Rep, class Period, class X>
ANYIO_NET_LAZY auto fail_after(std::chrono::duration<Rep, Period> limit, X&& x,
                               const char* what = "timeout") {
  return timeout_operation<detail::operation_of_t<X>>(detail::to_duration(limit),
                                                      detail::as_operation(std::forward<X>(x)), what);
}
/// Runs `x` until `deadline` on the loop's clock: returns its value, or fails with `timed_out` if the
/// deadline passes first. `what` as for `fail_after`.
template <class X>
ANYIO_NET_LAZY auto fail_at(time_point deadline, X&& x, const char* what = "timeout") {
  return timeout_operation<detail::operation_of_t<X>>(deadline, detail::as_operation(std::forward<X>(x)),
                                                      what);
}
/// Runs `x` with a time limit: returns its value, or an empty optional if the limit passes first. If `x` has
/// no value: returns true, or false if the limit passes first. With a limit of zero, returns only what is
/// available at once.
template <class Rep, class Period, class X>
ANYIO_NET_LAZY auto move_on_after(std::chrono::duration<Rep, Period> limit, X&& x) {
  return detail::move_on_operation<detail::operation_of_t<X>>(detail::to_duration(limit),
                                                              detail::as_operation(std::forward<X>(x)));
}
/// Runs `x` until `deadline` on the loop's clock: returns its value, or an empty optional if the deadline
/// passes first. If `x` has no value: returns true, or false if the deadline passes first.
template <class X>
ANYIO_NET_LAZY auto move_on_at(time_point deadline, X&& x) {
  return detail::move_on_operation<detail::operation_of_t<X>>(deadline,
                                                              detail::as_operation(std::forward<X>(x)));
}

namespace detail {

/// Several children at once. Completes when all children have completed, or at the first error.
template <class... Ops>
class [[nodiscard]] when_all_operation
    : public operation<when_all_operation<Ops...>, std::tuple<not_void<typename Ops::value_type>...>> {
  using value = std::tuple<not_void<typename Ops::value_type>...>;

 public:
  static constexpr const char* name = "when_all";
  when_all_operation() = default;
  explicit when_all_operation(Ops&&... ops)
    requires(sizeof...(Ops) > 0)
      : children_(std::move(ops)...) {}

  void keep_loan() {
    std::apply([](auto&... c) { (detail::keep_loan(*c.op), ...); }, children_);
  }

 private:
  friend class operation<when_all_operation, value>;
  static constexpr bool has_parts = true;
  template <std::size_t I>
  using value_of = typename std::tuple_element_t<I, std::tuple<Ops...>>::value_type;
  using indices = std::index_sequence_for<Ops...>;

  template <class Op>
  struct child {
    child() = default;
    explicit child(Op&& o) : op(std::move(o)) {}
    optional<Op> op;
    optional<not_void<typename Op::value_type>> value;
  };

  [[nodiscard]] errc check() const noexcept {
    return begin_all_ready(indices()) ? errc::ok : errc::invalid_argument;
  }
  template <std::size_t... I>
  bool begin_all_ready(std::index_sequence<I...>) const noexcept {
    return (static_cast<bool>(std::get<I>(children_).op) && ...);
  }
  bool attempt(result<value>& out) {
    if (failure_.take(out)) return true;
    started();
    if (left_over_ != 0) return false;
    collect(out, indices());
    return true;
  }
  void started() {
    if (!detail::exchange(begun_, true)) begin_children(indices());
  }
  template <std::size_t... I>
  void begin_children(std::index_sequence<I...>) {
    (std::get<I>(children_).op->start(part<&when_all_operation::template child_ended<I>>(this)), ...);
  }
  template <std::size_t... I>
  void collect(result<value>& out, std::index_sequence<I...>) {
    out = result<value>(value(std::move(*std::get<I>(children_).value)...));
  }
  void left() noexcept {
    begun_ = false;
    left_over_ = sizeof...(Ops);
    std::apply([](auto&... c) { ((end_child(c.op), c.value.reset()), ...); }, children_);
  }

  template <std::size_t I>
  void child_ended(result<value_of<I>>&& r) {
    if (!r.has_value()) {
      result<value> failure = result_access::failure<value>(r);
      return failure_.hand_over(failure, *this);
    }
    if constexpr (std::is_void_v<value_of<I>>) {
      std::get<I>(children_).value.emplace();
    } else {
      std::get<I>(children_).value.emplace(*std::move(r));
    }
    if (--left_over_ == 0) run_now(*this);
  }

  std::tuple<child<Ops>...> children_;
  std::size_t left_over_ = sizeof...(Ops);
  bool begun_ = false;
  part_outcome<value> failure_;
};

/// Several tasks of one type at once. Completes when all tasks have completed, or at the first error.
template <class T>
class [[nodiscard]] when_all_tasks_operation
    : public operation<when_all_tasks_operation<T>, std::vector<not_void<T>>> {
  using value = std::vector<not_void<T>>;

 public:
  static constexpr const char* name = "when_all";
  when_all_tasks_operation() = default;
  explicit when_all_tasks_operation(std::vector<task<T>>&& tasks)
      : operation<when_all_tasks_operation, value>(true),
        tasks_(std::move(tasks)),
        values_(tasks_.size()),
        left_over_(tasks_.size()) {}

 private:
  friend class operation<when_all_tasks_operation, value>;
  static constexpr bool has_parts = true;

  bool attempt(result<value>& out) {
    if (failure_.take(out)) return true;
    started();
    if (left_over_ != 0) return false;
    value all;
    all.reserve(values_.size());
    for (auto& v : values_) all.push_back(std::move(*v));
    out = result<value>(std::move(all));
    return true;
  }
  void started() {
    if (detail::exchange(begun_, true)) return;
    for (std::size_t i = 0; i < tasks_.size(); ++i)
      tasks_[i].start(part<&when_all_tasks_operation::child_ended>(this, i));
  }
  void left() noexcept {
    this->made = false;
    tasks_.clear();
    values_.clear();
  }
  void child_ended(std::size_t index, result<T>&& r) {
    if (!r.has_value()) {
      result<value> failure = result_access::failure<value>(r);
      return failure_.hand_over(failure, *this);
    }
    if constexpr (std::is_void_v<T>) {
      values_[index].emplace();
    } else {
      values_[index].emplace(*std::move(r));
    }
    if (--left_over_ == 0) run_now(*this);
  }

  std::vector<task<T>> tasks_;
  std::vector<optional<not_void<T>>> values_;
  std::size_t left_over_ = 0;
  bool begun_ = false;
  part_outcome<value> failure_;
};

/// Several children, of which the first to complete decides the outcome. The children begin one after
/// another, each after the first attempt of the child before it.
template <class... Ops>
class [[nodiscard]] when_any_operation
    : public operation<when_any_operation<Ops...>, std::variant<not_void<typename Ops::value_type>...>> {
  using value = std::variant<not_void<typename Ops::value_type>...>;

 public:
  static constexpr const char* name = "when_any";
  when_any_operation() = default;
  explicit when_any_operation(Ops&&... ops) : children_(optional<Ops>(std::move(ops))...) {}

  void keep_loan() {
    std::apply([](auto&... c) { (detail::keep_loan(*c), ...); }, children_);
  }

 private:
  friend class operation<when_any_operation, value>;
  template <std::size_t I>
  using value_of = typename std::tuple_element_t<I, std::tuple<Ops...>>::value_type;
  static constexpr bool attempts_when_awaited = false;
  static constexpr bool has_parts = true;

  [[nodiscard]] errc check() const noexcept {
    return std::apply([](auto&... c) { return (static_cast<bool>(c) && ...); }, children_)
               ? errc::ok
               : errc::invalid_argument;
  }
  bool attempt(result<value>& out) {
    if (arrived_.take(out)) return true;
    if (!this->pending() || begun_ == sizeof...(Ops)) return false;
    begin_next(std::index_sequence_for<Ops...>());
    if (begun_ < sizeof...(Ops)) this->core->queue(*this);
    return false;
  }
  void started() {
    keep_loan();
    begin_next(std::index_sequence_for<Ops...>());
  }
  template <std::size_t... I>
  void begin_next(std::index_sequence<I...>) {
    const std::size_t which = begun_++;
    ((I == which ? begin_child<I>() : void()), ...);
  }
  template <std::size_t I>
  void begin_child() {
    std::get<I>(children_)->start(part<&when_any_operation::template child_ended<I>>(this));
  }
  void left() noexcept {
    begun_ = 0;
    std::apply([](auto&... c) { (end_child(c), ...); }, children_);
  }

  template <std::size_t I>
  void child_ended(result<value_of<I>>&& r) {
    result<value> outcome = r.has_value() ? make<I>(std::move(r)) : result_access::failure<value>(r);
    arrived_.hand_over(outcome, *this);
  }
  template <std::size_t I, class T>
  static result<value> make(result<T>&& r) {
    if constexpr (std::is_void_v<T>) {
      return value(std::in_place_index<I>);
    } else {
      return value(std::in_place_index<I>, *std::move(r));
    }
  }

  std::tuple<optional<Ops>...> children_;
  std::size_t begun_ = 0;
  part_outcome<value> arrived_;
};

}  // namespace detail

/// Runs all arguments concurrently and returns a tuple of their values, with `std::monostate` in place of
/// void. The first error cancels the others and is raised.
template <class... Xs>
ANYIO_NET_LAZY auto when_all(Xs&&... xs) {
  return detail::when_all_operation<detail::operation_of_t<Xs>...>(
      detail::as_operation(std::forward<Xs>(xs))...);
}
/// Runs any number of tasks of one type concurrently and returns a vector of their values, in the order of
/// the tasks. The first error cancels the others and is raised.
template <class T>
ANYIO_NET_LAZY auto when_all(std::vector<task<T>> tasks) {
  return detail::when_all_tasks_operation<T>(std::move(tasks));
}

/// Runs the arguments concurrently until the first completes, and returns its value or raises its error. The
/// others are cancelled. If one completes at once, those after it do not begin.
template <class... Xs>
  requires(sizeof...(Xs) > 0)
ANYIO_NET_LAZY auto when_any(Xs&&... xs) {
  return detail::when_any_operation<detail::operation_of_t<Xs>...>(
      detail::as_operation(std::forward<Xs>(xs))...);
}

}}  // namespace anyio
