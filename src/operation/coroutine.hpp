// Coroutines, run by a driver.
//
// A coroutine of the library is never resumed from inside another: it returns to its driver with the next
// step to take. So the stack does not grow, even if the compiler does not implement symmetric transfer as a
// tail call. Without exceptions, a raised error takes this way too: the driver destroys the frame, whose
// locals are destroyed innermost first, and then raises the error in the coroutine that waits for it. This
// part must not know operations.
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "loop/ready_list.hpp"

#include <coroutine>
#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

struct promise_base;

/// The next step of a driver.
struct step {
  enum kind : std::uint8_t { nothing, resume, deliver, raise };
  kind what = nothing;
  promise_base* promise = nullptr;

  [[nodiscard]] static step raising(promise_base& p, const error& e) noexcept;
};

/// Room for a callable of at most three pointers, or for another kind of waiter.
struct waiter_storage {
  alignas(void*) std::byte bytes[3 * sizeof(void*)];

  template <class W>
  void put(const W& w) noexcept {
    static_assert(std::is_trivially_copyable_v<W> && sizeof(W) <= sizeof(bytes) &&
                  alignof(W) <= alignof(void*));
    ::new (static_cast<void*>(bytes)) W(w);
  }
  template <class W>
  [[nodiscard]] W get() const noexcept {
    return *std::launder(static_cast<const W*>(static_cast<const void*>(bytes)));
  }
};

/// The face of a coroutine. It also passes the end of the coroutine to its waiter.
struct coroutine_face : face {
  step (*deliver)(promise_base&);
  step (*fail)(const waiter_storage&, error);  // the coroutine itself has been destroyed
};

/// The part of a promise that every coroutine of the library has.
struct promise_base : node, recycled {
  std::coroutine_handle<> handle;
  promise_base** owner = nullptr;  // the task's pointer to this; set once it is awaited or started
  waiter_storage waiter;
  promise_base* inner = nullptr;  // the task that this awaits; lets a chain be destroyed without recursion
  promise_base* outer = nullptr;  // the coroutine that awaits this
  list scopes;                    // the task groups that this coroutine made, so that each knows its host

  ~promise_base() {
    leave_outer();
    while (scopes.pop_front() != nullptr) continue;
  }

  void enter_outer(promise_base& waiting) noexcept {
    outer = &waiting;
    waiting.inner = this;
  }
  void leave_outer() noexcept {
    if (outer != nullptr) detail::exchange(outer, nullptr)->inner = nullptr;
  }
};

/// The coroutine that runs now. It shows whether code runs inside a given task.
inline constinit thread_local promise_base* active = nullptr;
/// The step that the coroutine that runs now requests from its driver when it returns.
inline constinit thread_local step next_step{};
/// The error of the `raise` step that a driver takes next. It is apart, so that a step fits in two registers.
inline constinit thread_local error raised_error{};

inline step step::raising(promise_base& p, const error& e) noexcept {
  raised_error = e;
  return {raise, &p};
}

void drive(step s);

/// Destroys a suspended coroutine and the tasks that it awaits, innermost first.
void destroy_chain(promise_base& whole) noexcept;

/// Destroys a suspended coroutine that ends and has a waiter.
void end_frame(promise_base& p) noexcept;

/// While this object lives, code that runs, destructors included, counts as running inside a node that is not
/// a coroutine, or inside a coroutine that is being destroyed.
class stand_in : public promise_base {
 public:
  stand_in(const face& how_of, const waiter_storage& who) noexcept : before_(detail::exchange(active, this)) {
    how = &how_of;
    waiter = who;
  }
  explicit stand_in(node& whole) noexcept : before_(detail::exchange(active, this)) {
    how = &face_of_part;
    waiter.put(&whole);
  }
  stand_in(const stand_in&) = delete;
  stand_in& operator=(const stand_in&) = delete;
  ~stand_in() { active = before_; }

 private:
  static node* owner_of_part(node& n) { return static_cast<promise_base&>(n).waiter.get<node*>(); }
  static constexpr face face_of_part{nullptr, nullptr, owner_of_part, nullptr};
  promise_base* before_;
};

/// Requests the next step. A coroutine calls it as its last action before it suspends.
inline void hand_on(const promise_base& self, step s) {
  if (active == &self) {
    next_step = s;
  } else {
    drive(s);  // an awaitable that needs the coroutine's own handle resumed it: there is no driver
  }
}

/// Whether `whole` runs now, or waits, directly or indirectly, for the coroutine that runs now. `if_unknown`
/// is the answer if a foreign coroutine stands between them.
[[nodiscard]] bool is_active(const node& whole, bool if_unknown = false) noexcept;

/// Whether a loop would wait in vain for this node, which has just begun, since it keeps the node's own loop
/// from running. Then that loop runs the node, with `invalid_argument`.
[[nodiscard]] bool is_stranded(node& n);

template <class P>
inline constexpr bool is_own_promise = std::is_base_of_v<promise_base, P>;

/// A suspended coroutine that waits for an outcome.
struct suspended {
  std::coroutine_handle<> handle;
  promise_base* promise = nullptr;  // null: not a coroutine of the library

  template <class P>
  static suspended from(std::coroutine_handle<P> h) noexcept {
    if constexpr (is_own_promise<P>) {
      return {h, &h.promise()};
    } else {
      return {h, nullptr};
    }
  }
  [[nodiscard]] node* owner() const noexcept { return promise != nullptr ? promise : unknown_owner(); }
  void resume() const {
    if (promise != nullptr) {
      drive({step::resume, promise});
    } else {
      handle.resume();
    }
  }
};

/// The object that a foreign awaitable resumes in place of a coroutine. It has the layout of a suspended
/// coroutine in g++ and clang, which begins with two functions, and resumes the coroutine under a driver.
struct resumption {
  void (*resume)(void*) = [](void* self) { drive({step::resume, static_cast<resumption*>(self)->promise}); };
  void (*destroy)(void*) = [](void* self) { static_cast<resumption*>(self)->promise->handle.destroy(); };
  promise_base* promise = nullptr;

  [[nodiscard]] std::coroutine_handle<> handle() noexcept {
    // The compiler must not see which functions these are. Clang calls coroutines with its own calling
    // convention, which is the same here, but clang 19 drops a call as undefined if it sees another function.
    void* address = this;
    asm volatile("" : "+r"(address) : : "memory");
    return std::coroutine_handle<>::from_address(address);
  }
};

template <class A>
decltype(auto) awaiter_of(A&& awaitable) {
  if constexpr (requires { std::forward<A>(awaitable).operator co_await(); }) {
    return std::forward<A>(awaitable).operator co_await();
  } else if constexpr (requires { operator co_await(std::forward<A>(awaitable)); }) {
    return operator co_await(std::forward<A>(awaitable));
  } else {
    return std::forward<A>(awaitable);
  }
}

/// A foreign awaitable inside a coroutine of this library.
template <class A>
class foreign_awaiter {
  using awaiter = decltype(awaiter_of(std::declval<A>()));

 public:
  explicit foreign_awaiter(A&& awaitable) : awaiter_(awaiter_of(std::forward<A>(awaitable))) {}

  bool await_ready() { return static_cast<bool>(awaiter_.await_ready()); }
  template <class P>
  auto await_suspend(std::coroutine_handle<P> h) {
    if constexpr (requires { awaiter_.await_suspend(std::coroutine_handle<>()); }) {
      resumption_.promise = &h.promise();
      return awaiter_.await_suspend(resumption_.handle());
    } else {
      return awaiter_.await_suspend(h);
    }
  }
  decltype(auto) await_resume() { return awaiter_.await_resume(); }

 private:
  awaiter awaiter_;
  resumption resumption_;
};

}}}  // namespace anyio::detail
