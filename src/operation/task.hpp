// Tasks: coroutines that are operations.
//
// A task is lazy, belongs to its owner, and is awaited or started once. Destroying a task destroys its
// frame, and with it the operation that it waits for. Its value stays in the frame until it is taken.
// Without exceptions, a raised error destroys the frame before the waiter receives the error. This part must
// not know sockets.
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/result.hpp"
#include "operation/as_result.hpp"
#include "operation/coroutine.hpp"
#include "operation/operation.hpp"
#include "operation/raise.hpp"

#include <coroutine>
#include <exception>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

template <class T>
struct promise;

template <class T>
struct promise_common : promise_base {
  result<T> outcome{errc::cancelled};

  promise_common() = default;
  task<T> get_return_object() noexcept;
  std::suspend_always initial_suspend() const noexcept { return {}; }

  struct final_awaiter {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<promise<T>> h) const noexcept {
      h.promise().finished = true;
      hand_on(h.promise(), {step::deliver, &h.promise()});
    }
    void await_resume() const noexcept {}
  };
  final_awaiter final_suspend() const noexcept { return {}; }

  template <class A>
    requires(is_operation<A> || is_result<std::remove_cvref_t<A>>)
  A&& await_transform(A&& awaitable) const noexcept {
    return std::forward<A>(awaitable);
  }
  template <class A>
  foreign_awaiter<A> await_transform(A&& awaitable) const {
    return foreign_awaiter<A>(std::forward<A>(awaitable));
  }

  void unhandled_exception() {
#if ANYIO_NET_EXCEPTIONS
    try {
      throw;
    } catch (const exception& e) {
      outcome = e.error();
    } catch (...) {
      outcome = result_access::foreign<T>(std::current_exception());
    }
#else
    std::terminate();
#endif
  }
};

template <class T>
struct promise : promise_common<T> {
  template <class U = T>
    requires std::is_constructible_v<T, U&&>
  void return_value(U&& value) {
    this->outcome = result<T>(T(std::forward<U>(value)));
  }
};

template <>
struct promise<void> : promise_common<void> {
  void return_void() { outcome = result<void>(); }
};

template <class T>
inline constexpr bool is_task = false;
template <class T>
inline constexpr bool is_task<task<T>> = true;

}  // namespace detail

/// A coroutine that returns a T. It does nothing until it is awaited or started. From then on it runs on that
/// thread's loop. Destroying it cancels it.
template <class T = void>
class ANYIO_NET_LAZY task : public operation_tag {
 public:
  using value_type = T;  ///< the type of its value
  using promise_type = detail::promise<T>;

  task() = default;
  task(task&& other) noexcept : promise_(detail::exchange(other.promise_, nullptr)) {
    ANYIO_NET_ASSERT(!under_way() && "a started task cannot be moved");
  }
  task& operator=(task&& other) noexcept {
    if (this != &other) {
      ANYIO_NET_ASSERT(!other.under_way() && "a started task cannot be moved");
      reset();
      promise_ = detail::exchange(other.promise_, nullptr);
    }
    return *this;
  }
  ~task() { reset(); }

  /// Whether it holds a coroutine.
  explicit operator bool() const& noexcept { return promise_ != nullptr; }
  /// Only for its message, where a value is wanted and a task is given.
  template <class U>
    requires(std::is_same_v<U, T> || std::is_same_v<U, bool>)
  explicit(!std::is_same_v<U, T>) operator U() const&& {
    static_assert(!std::is_same_v<U, U>, "co_await is missing: this is a task, not its value");
  }

  /// Starts the task from the loop. The callable takes a `result<T>`.
  template <class F>
  void start(F f) & {
    static_assert(
        detail::fits_named<F>,
        "a named task takes a trivially copyable callable of at most three pointers: capture `this` "
        "or a pointer, or start a temporary task, which takes any callable");
    static_assert(detail::is_callback<F, T>());
    if (promise_ == nullptr || promise_->owner != nullptr) return refuse_start(std::move(f));
    promise_->owner = &promise_;
    promise_->waiter.put(f);
    promise_->begin(detail::loop_core::current(), callback_face<F>);
    promise_->core->queue(*promise_);
  }
  /// Starts the task from the loop. The loop keeps the task and the callable, which only needs to be movable,
  /// until the task has ended.
  template <class F>
  void start(F&& f) && {
    static_assert(detail::is_callback<std::decay_t<F>, T>());
    detail::detached<task, std::decay_t<F>>::start(std::move(*this), std::decay_t<F>(std::forward<F>(f)));
  }

  // --- for the parts of the library
  /// The face of its waiter, null if it has none.
  [[nodiscard]] const detail::face* waits_with() const noexcept {
    return under_way() ? promise_->how : nullptr;
  }
  /// Destroys the coroutine if it has not ended.
  void withdraw() noexcept {
    if (promise_ != nullptr && !promise_->finished) reset();
  }
  template <bool Raises>
  class awaiter;
  awaiter<true> operator co_await() & noexcept { return awaiter<true>(*this); }
  awaiter<true> operator co_await() && noexcept { return awaiter<true>(*this); }
  awaiter<false> awaiter_of_result() noexcept { return awaiter<false>(*this); }

 private:
  friend struct detail::promise_common<T>;
  explicit task(promise_type& p) noexcept : promise_(&p) {}

  [[nodiscard]] bool under_way() const noexcept {
    return promise_ != nullptr && promise_->owner != nullptr && !promise_->finished;
  }
  promise_type& promise() const noexcept { return static_cast<promise_type&>(*promise_); }

  void reset() noexcept {
    if (promise_ == nullptr) return;
    ANYIO_NET_ASSERT((promise_->finished || !detail::is_active(*promise_)) &&
                     "a running task cannot be destroyed");
    detail::destroy_chain(*detail::exchange(promise_, nullptr));
  }
  template <class F>
  static void refuse_start(F f);

  template <class F>
  static void run(detail::node& n) {
    n.core->park(n);
    detail::drive({detail::step::resume, static_cast<promise_type*>(&n)});
  }
  template <class F>
  static void abandon(detail::node& n) {
    const F f = static_cast<promise_type&>(n).waiter.template get<F>();
    n.retire();
    detail::abandon(f);
  }
  template <class F>
  static detail::node* owner(detail::node& n) {
    return detail::owner_of(static_cast<detail::promise_base&>(n).waiter.template get<F>());
  }
  static detail::description describe(detail::node&) { return {"task"}; }
  template <class F>
  static detail::step deliver(detail::promise_base& b) {
    auto& p = static_cast<promise_type&>(b);
    F f = p.waiter.template get<F>();
    result<T> r = std::move(p.outcome);
    if (r.has_value()) {
      p.retire();
    } else {
      detail::end_frame(p);  // as without exceptions
    }
    detail::call_back<T>(f, std::move(r));
    return {};
  }
  template <class F>
  static detail::step fail(const detail::waiter_storage& waiter, error e) {
    F f = waiter.get<F>();
    detail::call_back<T>(f, result<T>(e));
    return {};
  }
  template <class F>
  static constexpr detail::coroutine_face callback_face{
      {run<F>, abandon<F>, owner<F>, describe}, deliver<F>, fail<F>};

  detail::promise_base* promise_ = nullptr;
};

/// The awaiter for `co_await` of a task. It refers to the task, whose frame holds the value.
template <class T>
template <bool Raises>
class [[nodiscard]] task<T>::awaiter {
 public:
  explicit awaiter(task& t) noexcept : task_(t) {}

  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> h) {
    static_assert(!Raises || ANYIO_NET_EXCEPTIONS || detail::is_own_promise<P>,
                  "without exceptions a plain co_await works only inside an anyio::task; in a coroutine of "
                  "another type write co_await anyio::as_result(...)");
    detail::promise_base* p = task_.promise_;
    if (p == nullptr || p->owner != nullptr) {
      failure_ = error(errc::invalid_argument, 0, "task");
      if constexpr (Raises && !ANYIO_NET_EXCEPTIONS)
        detail::hand_on(h.promise(), detail::step::raising(h.promise(), failure_.error()));
      return Raises && !ANYIO_NET_EXCEPTIONS;
    }
    p->owner = &task_.promise_;
    p->waiter.put(waiting{detail::suspended::from(h), this});
    p->how = &face;
    if constexpr (detail::is_own_promise<P>) {
      p->enter_outer(h.promise());
      detail::loop_core* loop = detail::loop_core::current_or_null();
      if (loop == nullptr || loop->spend_await()) {
        detail::hand_on(h.promise(), {detail::step::resume, p});
        return true;
      }
    }
    p->begin(detail::loop_core::current(), face);
    p->core->queue(*p);
    return true;
  }
  std::conditional_t<Raises, T, result<T>> await_resume() {
    result<T> r = failure_.has_value() ? std::move(task_.promise().outcome)
                                       : detail::result_access::failure<T>(failure_);
    if constexpr (!Raises) {
      detail::result_access::rethrow_foreign(r);
      return r;
    } else {
#if ANYIO_NET_EXCEPTIONS
      return std::move(r).value();
#else
      return *std::move(r);
#endif
    }
  }

 private:
  struct waiting {
    detail::suspended coroutine;
    awaiter* self;
  };
  static waiting who(const detail::waiter_storage& s) { return s.get<waiting>(); }

  static void run(detail::node& n) {  // awaited by a foreign coroutine, or postponed to let others run
    auto& p = static_cast<promise_type&>(n);
    p.core->park(p);
    detail::drive({detail::step::resume, &p});
  }
  static void abandon(detail::node& n) {
    n.unlink();
    const detail::face* how = n.how;
    n.retire();
    n.how = how;
  }
  static detail::node* owner(detail::node& n) {
    return who(static_cast<detail::promise_base&>(n).waiter).coroutine.owner();
  }
  static detail::step go_on(const detail::suspended& waiter) {
    if (waiter.promise != nullptr) return {detail::step::resume, waiter.promise};
    waiter.handle.resume();
    return {};
  }
  static detail::step deliver(detail::promise_base& b) {
    const waiting w = who(b.waiter);
    auto& outcome = static_cast<promise_type&>(b).outcome;
    if (outcome.has_value()) {
      b.leave_outer();
      b.retire();
    } else {
      w.self->failure_ = detail::result_access::failure<void>(outcome);
      detail::end_frame(b);  // as without exceptions
    }
    return go_on(w.coroutine);
  }
  static detail::step fail(const detail::waiter_storage& storage, error e) {
    const waiting w = who(storage);
    if constexpr (Raises) return detail::step::raising(*w.coroutine.promise, e);
    w.self->failure_ = e;
    return go_on(w.coroutine);
  }
  static constexpr detail::coroutine_face face{{run, abandon, owner, task::describe}, deliver, fail};

  task& task_;
  result<void> failure_;  // replaces the outcome when there is no frame to hold it
};

template <class T>
template <class F>
void task<T>::refuse_start(F f) {
  detail::result_operation<T>(result<T>(error(errc::invalid_argument, 0, "task"))).start(std::move(f));
}

namespace detail {

template <class T>
task<T> promise_common<T>::get_return_object() noexcept {
  auto& self = static_cast<promise<T>&>(*this);
  this->handle = std::coroutine_handle<promise<T>>::from_promise(self);
  return task<T>(self);
}

}  // namespace detail

}}  // namespace anyio
