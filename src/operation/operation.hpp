// Operations, and the two ways to use one.
//
// An operation is a struct with one function: `attempt` tries, and reports whether there is an outcome. The
// base here runs the operation and passes the outcome to a coroutine or to a callback, from one slot in the
// operation itself. The loop does not touch an operation after its completion has run. This part must not
// know sockets.
//
// What an operation provides to the base (all but `name` and `attempt` have a default):
//   static constexpr const char* name     for errors and dumps
//   bool attempt(result<T>& out)          true: out is the outcome. false: something will queue this node
//   errc check()                          an error that is known before any attempt; the default is that of
//                                         an operation that was only declared
//   errc enter()                          it begins to wait, after `check`: registers it as the waiter
//   void started()                        it began without an attempt by the caller: keep bytes on loan
//   void left()                           it has an outcome or was withdrawn; the base has left its place
//   void refresh()                        the next attempt must ask the kernel
// What the bases of resources and streams provide, and few others:
//   loop_core& home()                     the loop that runs it
//   loop_core& home_if_checked()          the same, if `check` found no error
//   bool attempt_at_once(result<T>& out)  `attempt` by the caller, before it has begun
//   bool reports(result<T>& out)          it ended while it began; out is the outcome
//   bool is_refused()                     no attempt may be made: the resource is closed
//   bool in_vain()                        no attempt can succeed before something queues this node
//   void leave_place()                    it is no longer the waiter
//   void withdrawn()                      it was withdrawn; called after `left`
//   int descriptor()                      for dumps
//   std::uint32_t bytes_so_far()          for dumps: a `description::count`, of what it moved until now
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/owned.hpp"
#include "base/recycler.hpp"
#include "base/result.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "loop/ready_list.hpp"
#include "operation/callback.hpp"
#include "operation/coroutine.hpp"

#include <exception>
#include <new>
#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

template <class T>
class task;

namespace detail {

/// The outcome of an operation that ended while it began; the loop passes it on. An idle operation has none,
/// so that there is nothing to move.
class found_outcome {
 public:
  found_outcome() noexcept {}
  found_outcome(const found_outcome&) noexcept {}
  found_outcome& operator=(const found_outcome&) noexcept {
    clear();
    return *this;
  }

  [[nodiscard]] bool is_set() const noexcept { return state_ != state::none; }
  void set_done() noexcept { state_ = state::done; }
  void set(const result<void>& outcome) noexcept {
    const error e = outcome.error();
    state_ = outcome.has_value() ? state::done : state::failed;
    operation_ = e.operation().data();
    reason_ = error_access::reason_of(e);
    os_error_ = e.os_error();
    code_ = e.code();
  }
  /// Returns true.
  ANYIO_NET_HOT bool get(result<void>& out) const noexcept {
    if (state_ == state::failed) [[unlikely]]
      return complete(out, error_access::with_reason(error(code_, os_error_, operation_), reason_));
    return result_access::succeed(out);
  }
  void clear() noexcept { state_ = state::none; }

 private:
  enum class state : std::uint8_t { none, done, failed };
  // The parts of an error, which are not there before it is.
  const char* operation_;
  const char* reason_;
  int os_error_;
  errc code_;
  state state_ = state::none;
};

/// A temporary operation that was started, and its callable.
template <class Op, class F>
class detached : public pooled<recycler::operations> {
  using value = typename Op::value_type;

 public:
  static void start(Op&& op, F&& f) {
    owned<detached> block(new detached(std::move(op), std::move(f)));
    block->op_.start(completion{block.get()});
    static_cast<void>(block.release());
  }

 private:
  struct completion {
    using internal = void;
    detached* block;

    void operator()(result<value>&& r) const {
      result<value> outcome = std::move(r);
      F f = std::move(block->f_);
      delete block;  // before the call, so that an operation that it starts can reuse the memory
      if constexpr (is_result<value> && !internal_callable<F>) {  // from as_result
        if (outcome.has_value())
          return call_back<typename value::value_type>(std::move(f), *std::move(outcome));
        result_access::rethrow_foreign(outcome);
        call_back<typename value::value_type>(std::move(f), value(outcome.error()));
      } else {
        call_back<value>(std::move(f), std::move(outcome));
      }
    }
    void abandon() const {
      if constexpr (internal_callable<F>) {
        F f = std::move(block->f_);
        delete block;
        detail::abandon(f);
      } else {
        delete block;
      }
    }
    [[nodiscard]] node* owner() const noexcept { return owner_of(block->f_); }
  };

  detached(Op&& op, F&& f) : op_(std::move(op)), f_(std::move(f)) {}

  Op op_;
  F f_;
};

/// The link from a waiting coroutine to the operation that it awaits, which may lie outside the coroutine. If
/// the coroutine is destroyed while it waits, this withdraws the operation. If the operation ends the wait in
/// another way, it clears this pointer.
template <class Op>
class waiting_for {
 public:
  explicit waiting_for(Op& op) noexcept : op_(&op) {}
  waiting_for(const waiting_for&) = delete;
  waiting_for& operator=(const waiting_for&) = delete;
  ~waiting_for() {
    if (op_ != nullptr) op().withdraw();
  }

 protected:
  [[nodiscard]] Op& op() const noexcept { return static_cast<Op&>(*op_); }
  /// Returns the operation for the last time: the coroutine may destroy it next.
  [[nodiscard]] Op& take_op() noexcept { return static_cast<Op&>(*detail::exchange(op_, nullptr)); }
  node* op_;
};

/// The awaiter for `co_await` of an operation.
template <class Op>
class [[nodiscard]] awaiter : waiting_for<Op> {
 public:
  using waiting_for<Op>::waiting_for;

  bool await_ready() { return this->op().await_ready(); }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> h) {
    return this->op().await_suspend(h, &this->op_);
  }
  decltype(auto) await_resume() { return this->take_op().await_resume(); }
};

/// What an operation provides to its base unless it says otherwise, as far as that depends on no type: the
/// compiler makes it once, and not for each kind of operation.
class operation_defaults : public node, public operation_tag {
 protected:
  static constexpr bool immediate = false;  // true: always completes at once, and fairness ignores it
  static constexpr bool attempts_when_awaited = true;  // false: begins only when it has a waiter
  static constexpr bool waits_at_resource = false;     // true: its resource knows it while it waits
  static constexpr bool has_parts =
      false;  // true: other code may run when it ends, as children are destroyed

  [[nodiscard]] loop_core& home() const { return loop_core::current(); }
  [[nodiscard]] errc check() const noexcept { return made ? errc::ok : errc::invalid_argument; }
  [[nodiscard]] errc enter() { return errc::ok; }
  [[nodiscard]] bool in_vain() const noexcept { return false; }
  void started() {}
  void left() noexcept {}
  void leave_place() noexcept {}
  [[nodiscard]] bool is_refused() const noexcept { return false; }  // because its resource is closed
  void withdrawn() noexcept {}
  void refresh() noexcept {}
  [[nodiscard]] int descriptor() const noexcept { return -1; }
  [[nodiscard]] std::uint32_t bytes_so_far() const noexcept { return description::no_count; }

  struct waiter {
    suspended coroutine;
    node** place;  // the coroutine's pointer to this operation; null if it has none
  };
};

/// The base of operations. T is the type of the value.
template <class Derived, class T>
class operation : public operation_defaults {
 public:
  using value_type = T;

  operation() = default;
  explicit operation(bool usable) noexcept { made = usable; }
  operation(operation&&) noexcept = default;
  operation& operator=(operation&& other) noexcept {
    forget_awaiter();
    node::operator=(std::move(other));
    return *this;
  }
  ~operation() { forget_awaiter(); }

  /// Starts the operation. The callable takes a `result<T>` and runs once, from the loop, unless this
  /// operation is destroyed or assigned to before that.
  template <class F>
  void start(F f) & {
    static_assert(fits_named<F>,
                  "a named operation takes a trivially copyable callable of at most three pointers: capture "
                  "`this` or a pointer, or start a temporary operation, which takes any callable");
    static_assert(detail::is_callback<F, T>());
    ANYIO_NET_ASSERT(!pending() && "the operation is already pending");
    slot_.callable.put(f);
    begin_all(callback_face<F>, false);
  }
  /// Starts the operation. The loop keeps the operation and the callable, which only needs to be movable,
  /// until completion.
  template <class F>
  void start(F&& f) && {
    static_assert(detail::is_callback<std::decay_t<F>, T>());
    detached<Derived, std::decay_t<F>>::start(std::move(self()), std::decay_t<F>(std::forward<F>(f)));
  }

  /// The awaiter refers to the operation. (g++ 12 would copy an awaiter that is reached through a reference.)
  awaiter<Derived> operator co_await() noexcept { return awaiter<Derived>(self()); }

  /// Only for its message, where a value is wanted and an operation is given.
  template <class U>
    requires std::is_same_v<U, T>
  operator U() const {
    static_assert(!std::is_same_v<U, U>, "co_await is missing: this is an operation, not its value");
  }

  bool await_ready() { return ready_at_once<true>(); }
  /// `place`, unless null, is the place of the coroutine's pointer to this operation.
  template <class P>
  bool await_suspend(std::coroutine_handle<P> h, node** place = nullptr) {
    static_assert(ANYIO_NET_EXCEPTIONS || is_own_promise<P>,
                  "without exceptions a plain co_await works only inside an anyio::task; in a coroutine of "
                  "another type write co_await anyio::as_result(...)");
    return suspend<true>(h, place);
  }
  T await_resume() {
    result<T> r = take_outcome();
#if ANYIO_NET_EXCEPTIONS
    return std::move(r).value();
#else
    return *std::move(r);
#endif
  }

  // --- for the parts of the library
  template <bool Raises>
  bool ready_at_once() {
    ANYIO_NET_ASSERT(!pending() && "the operation is already pending");
    attempted = again = false;
    if (const errc e = self().check(); e != errc::ok) [[unlikely]] {
      if (!may_refuse_at_once()) return false;
      slot_.outcome_room() = error(e, 0, self().operation_name());
    } else {
      attempted = self().in_vain();
      if (attempted || !may_try_at_once()) return false;
      if (result<T>& out = slot_.outcome_room(); !attempt_by_caller(out)) {
        out.~result();
        attempted = true;
        return false;
      }
      leave();  // as after a wait, so that it may be used again
    }
    if (!Raises || ANYIO_NET_EXCEPTIONS || slot_.outcome.has_value()) return true;
    finished = true;  // await_suspend raises the error
    return false;
  }
  template <bool Raises, class P>
  bool suspend(std::coroutine_handle<P> h, node** place) {
    if constexpr (Raises && !ANYIO_NET_EXCEPTIONS) {
      if (finished) {
        hand_on(h.promise(), step::raising(h.promise(), take_outcome().error()));
        return true;
      }
    }
    ::new (static_cast<void*>(&slot_.coroutine)) waiter{suspended::from(h), place};
    begin_all(awaiting_face<Raises>, attempted && !again);
    awaited = true;
    return true;
  }
  ANYIO_NET_HOT result<T> take_outcome() noexcept {
    result<T> r = std::move(slot_.outcome);
    slot_.outcome.~result();
    finished = false;
    return r;
  }
  /// For a composite: checks this child and attempts it. Must not be called while the child waits.
  bool attempt_for_parent(result<T>& out) {
    if (const errc e = self().check(); e != errc::ok) {
      out = error(e, 0, self().operation_name());
      return true;
    }
    if (self().home_if_checked().blocked() || !attempt_by_caller(out)) return false;
    leave();
    return true;
  }
  /// The face with which it waits, null if it does not wait.
  [[nodiscard]] const face* waits_with() const noexcept { return pending() ? how : nullptr; }
  /// Withdraws the operation if it is pending. It may be started again.
  void withdraw() noexcept {
    if (!pending()) return;
    forget_awaiter();
    become_idle();
    self().withdrawn();
  }
  /// For a composite whose time limit has passed: one last attempt of a child that waits.
  bool attempt_last(result<T>& out) {
    self().refresh();
    if (early != errc::ok) {
      out = error(early, 0, self().operation_name());
      return true;
    }
    return make_attempt(out);
  }

 protected:
  [[nodiscard]] const char* operation_name() const noexcept { return Derived::name; }
  [[nodiscard]] loop_core& home_if_checked() const { return self().home(); }
  bool attempt_at_once(result<T>& out) { return self().attempt(out); }
  [[nodiscard]] bool reports(result<T>&) const noexcept { return false; }

 private:
  Derived& self() noexcept { return static_cast<Derived&>(*this); }
  const Derived& self() const noexcept { return static_cast<const Derived&>(*this); }

  [[nodiscard]] bool may_try_at_once() const {
    return Derived::immediate || (Derived::attempts_when_awaited && self().home_if_checked().spend_inline());
  }
  /// Whether a failed check may be reported at once. A caller that retries a rejected operation in a loop
  /// must not starve the task that it waits for.
  [[nodiscard]] bool may_refuse_at_once() const {
    loop_core* const here = loop_core::current_or_null();
    return here == nullptr || here->spend_await() || &self().home() != here;
  }
  /// Begins to wait. An exception goes to the caller and leaves the operation idle.
  ANYIO_NET_HOT void begin_all(const face& f, bool attempted_in_vain) {
#if ANYIO_NET_EXCEPTIONS
    try {
      begin_waiting(f, attempted_in_vain);
      begin_attempts(attempted_in_vain);
    } catch (...) {
      give_up();
      throw;
    }
#else
    begin_waiting(f, attempted_in_vain);
    begin_attempts(attempted_in_vain);
#endif
  }
  [[gnu::cold, gnu::noinline]] void give_up() noexcept { withdraw(); }
  void begin_waiting(const face& f, bool attempted_in_vain) {
    const errc e = attempted_in_vain ? errc::ok : self().check();  // before the attempt it was checked
    loop_core& on = e == errc::ok ? self().home_if_checked() : self().home();
    begin(on, f, e);
    if (on.blocked() && is_stranded(*this)) [[unlikely]]
      return;
    if (e == errc::ok) early = self().enter();
  }
  [[nodiscard]] error early_error() const noexcept {
    const error e(early, 0, self().operation_name());
    if (core == &self().home()) return e;
    return error_access::with_reason(e, "the operation's loop is blocked until this operation completes");
  }
  void begin_attempts(bool attempted_in_vain) {
    if (early == errc::ok) {
      if (!attempted_in_vain) self().started();
      if (attempted_in_vain || self().in_vain()) {
        if constexpr (!Derived::waits_at_resource) core->park(*this);
        return;
      }
    }
    core->queue(*this);
  }
  /// Clears the pointer of a coroutine that awaits this operation; the coroutine is not resumed.
  void forget_awaiter() noexcept {
    if (!pending()) [[likely]]
      return;
    if (awaited && slot_.coroutine.place != nullptr) *slot_.coroutine.place = nullptr;
  }
  void leave() noexcept {
    self().leave_place();
    self().left();
  }
  ANYIO_NET_HOT void become_idle() noexcept {
    leave();
    end_pending();
  }
  bool make_attempt(result<T>& out) {
    if (!self().is_refused()) return self().attempt(out);
    out = error(errc::closed_resource, 0, self().operation_name());
    return true;
  }
  /// One attempt by the loop. False: the operation is still pending.
  ANYIO_NET_HOT bool poll(result<T>& out) {
    if constexpr (Derived::has_parts) core->park(*this);  // so that the end of the loop finds it
    if (early != errc::ok) [[unlikely]] {
      out = early_error();
      return true;
    }
    if (cancelled) [[unlikely]]
      self().refresh();
    again = false;
    if (try_attempt(out)) [[likely]]
      return true;
    if (!cancelled) {
      if (again) {
        core->queue(*this);
      } else if constexpr (!Derived::waits_at_resource) {
        if (!linked()) core->park(*this);
      }
      return false;
    }
    out = error(errc::cancelled, 0, self().operation_name());
    return true;
  }

  /// An attempt right after a check, while the operation has no waiter. An exception ends the operation, as
  /// an outcome does.
  bool attempt_by_caller(result<T>& out) {
#if ANYIO_NET_EXCEPTIONS
    try {
      return self().attempt_at_once(out);
    } catch (...) {
      leave();
      throw;
    }
#else
    return self().attempt_at_once(out);
#endif
  }

  /// An attempt by the loop. An exception from moving a user's type counts as thrown at the co_await.
  ANYIO_NET_HOT bool try_attempt(result<T>& out) {
#if ANYIO_NET_EXCEPTIONS
    try {
      return make_attempt(out);
    } catch (...) {
      out = result_access::foreign<T>(std::current_exception());
      return true;
    }
#else
    return make_attempt(out);
#endif
  }

  /// Whether there is an outcome when the loop runs it.
  ANYIO_NET_HOT bool has_outcome(result<T>& out) {
    if constexpr (Derived::has_parts) {
      const stand_in inside(*this);
      return poll(out);
    } else {
      return self().reports(out) || poll(out);
    }
  }
  /// It has an outcome, and the waiter was copied.
  ANYIO_NET_HOT void end() noexcept {
    if constexpr (Derived::has_parts) {
      const stand_in inside(*this);
      become_idle();
    } else {
      become_idle();
    }
  }

  template <class F>
  static void run_callback(node& n) {
    auto& op = static_cast<Derived&>(n);
    result<T> r = result_access::room<T>();
    if (!op.has_outcome(r)) [[unlikely]]
      return;
    F f = op.slot_.callable.template get<F>();
    op.end();
    call_back<T>(f, std::move(r));
  }
  template <class F>
  static void abandon_callback(node& n) {
    auto& op = static_cast<Derived&>(n);
    const F f = op.slot_.callable.template get<F>();
    op.become_idle();
    detail::abandon(f);
  }
  template <class F>
  static node* owner_of_callback(node& n) {
    return owner_of(static_cast<Derived&>(n).slot_.callable.template get<F>());
  }
  template <bool Raises>
  static void run_awaiting(node& n) {
    auto& op = static_cast<Derived&>(n);
    const waiter who = op.slot_.coroutine;
    if constexpr (Derived::has_parts) {  // other code asks for the waiter meanwhile
      result<T> r = result_access::room<T>();
      if (!op.has_outcome(r)) return;
      op.end();
      ::new (static_cast<void*>(&op.slot_.outcome)) result<T>(std::move(r));
    } else {
      result<T>& out = op.slot_.outcome_room();
      if (!op.has_outcome(out)) [[unlikely]] {
        out.~result();
        ::new (static_cast<void*>(&op.slot_.coroutine)) waiter(who);
        return;
      }
      op.end();
    }
    if constexpr (Raises && !ANYIO_NET_EXCEPTIONS) {
      if (!op.slot_.outcome.has_value())
        return drive(step::raising(*who.coroutine.promise, op.take_outcome().error()));
    }
    who.coroutine.resume();
  }
  static void abandon_awaiting(node& n) {
    auto& op = static_cast<Derived&>(n);
    op.forget_awaiter();
    op.become_idle();
  }
  static node* owner_of_awaiting(node& n) {
    return static_cast<Derived&>(n).slot_.coroutine.coroutine.owner();
  }
  static description describe(node& n) {
    const auto& op = static_cast<const Derived&>(n);
    return {op.operation_name(), op.descriptor(), op.bytes_so_far()};
  }

  template <class F>
  static constexpr face callback_face{run_callback<F>, abandon_callback<F>, owner_of_callback<F>, describe};
  template <bool Raises>
  static constexpr face awaiting_face{run_awaiting<Raises>, abandon_awaiting, owner_of_awaiting, describe};

  // The outcome and the waiter never exist at the same time.
  union slot {
    slot() noexcept {}
    slot(const slot&) noexcept {}
    slot& operator=(const slot&) noexcept { return *this; }
    ~slot() {}
    result<T>& outcome_room() noexcept {
      return *::new (static_cast<void*>(&outcome)) result<T>(result_access::room<T>());
    }
    waiter_storage callable;
    waiter coroutine;
    result<T> outcome;
  } slot_;
};

}  // namespace detail

}}  // namespace anyio
