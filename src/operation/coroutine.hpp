// Coroutines, run by a driver.
//
// A coroutine of the library is never resumed from inside another: it returns to its driver and says
// what comes next, so the stack does not grow, whatever the compiler makes of symmetric transfer. An
// error raised where there are no exceptions goes the same way: the driver destroys the frame, whose
// locals so end innermost first, and then raises whoever waits for it. This part must not know
// operations.
#pragma once

#include "base/config.hpp"
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

/// What a driver does next.
struct step {
  enum kind : std::uint8_t { nothing, resume, deliver, raise };
  kind what = nothing;
  promise_base* promise = nullptr;
  error failure;  // of raise
};

/// Room for a callable of three pointers, or for whoever else waits.
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

/// The face of a coroutine: also how its end reaches whoever waits.
struct coroutine_face : face {
  step (*deliver)(promise_base&);
  step (*fail)(const waiter_storage&, error);  // the coroutine itself is gone
};

/// What every coroutine of the library has.
struct promise_base : node, recycled {
  std::coroutine_handle<> handle;
  promise_base** owner = nullptr;  // where the task keeps it, set while somebody waits
  waiter_storage waiter;
  promise_base* inner = nullptr;  // the task that it awaits, and
  promise_base* outer = nullptr;  // the coroutine that awaits it: so a chain is destroyed without recursion
  link scopes;                    // the task groups that were made in it, which so know what they are part of

  ~promise_base() {
    leave_outer();
    while (scopes.linked()) scopes.next->unlink();
  }

  void enter_outer(promise_base& waiting) noexcept {
    outer = &waiting;
    waiting.inner = this;
  }
  void leave_outer() noexcept {
    if (outer != nullptr) std::exchange(outer, nullptr)->inner = nullptr;
  }
};

/// The coroutine that runs now, for telling a task from its own inside.
inline constinit thread_local promise_base* active = nullptr;
/// What the coroutine that runs now wants of its driver when it returns.
inline constinit thread_local step next_step{};

void drive(step s);

/// Destroys a suspended coroutine and the tasks that it awaits, innermost first.
void destroy_chain(promise_base& whole) noexcept;

/// Destroys a suspended coroutine that somebody waits for, on behalf of its end.
void end_frame(promise_base& p) noexcept;

/// While it lives, what runs or is destroyed counts as the inside of something that is no coroutine, or
/// no longer one.
class stand_in : public promise_base {
 public:
  stand_in(const face& how_of, const waiter_storage& who) noexcept : before_(std::exchange(active, this)) {
    how = &how_of;
    waiter = who;
  }
  explicit stand_in(node& whole) noexcept : before_(std::exchange(active, this)) {
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

/// The owner of what a coroutine of another kind waits for: nobody can tell what it is a part of.
alignas(node) inline constinit std::byte unknown_owner_place[sizeof(node)] = {};
inline node* unknown_owner() noexcept { return static_cast<node*>(static_cast<void*>(unknown_owner_place)); }

/// Said by a coroutine as its last act before it suspends.
inline void hand_on(const promise_base& self, step s) {
  if (active == &self) {
    next_step = s;
  } else {
    drive(s);  // an awaitable that insists on the coroutine's own handle resumed it: there is no driver
  }
}

/// Whether `whole` is what runs now, or waits for it at some remove. `if_unknown` is the answer where a
/// coroutine of another kind stands between.
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
      drive({step::resume, promise, {}});
    } else {
      handle.resume();
    }
  }
};

/// What an awaitable of another kind is given to resume in a coroutine's place. It has the layout of a
/// suspended coroutine in g++ and clang, two functions, and brings the coroutine back under a driver.
struct resumption {
  void (*resume)(void*) = [](void* self) {
    drive({step::resume, static_cast<resumption*>(self)->promise, {}});
  };
  void (*destroy)(void*) = [](void* self) { static_cast<resumption*>(self)->promise->handle.destroy(); };
  promise_base* promise = nullptr;

  [[nodiscard]] std::coroutine_handle<> handle() noexcept {
    // The compiler must not see whose functions these are: clang calls coroutines by a convention of its own,
    // which is the same here, but a call that it knows to go elsewhere it drops as undefined (clang 19).
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

/// An awaitable of another kind inside a coroutine of the library.
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
