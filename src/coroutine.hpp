// Coroutines, run by a driver.
//
// A coroutine of the library is never resumed from inside another: it returns to its driver and says
// what comes next, so the stack does not grow, whatever the compiler makes of symmetric transfer. An
// error raised where there are no exceptions goes the same way: the driver destroys the frame, whose
// locals so end innermost first, and then raises whoever waits for it. This part must not know
// operations.
#pragma once

#include "config.hpp"
#include "loop.hpp"
#include "ready_list.hpp"
#include "result.hpp"

#include <coroutine>
#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>

namespace anyio::inline ANYIO_NET_ABI::detail {

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
    static_assert(std::is_trivially_copyable_v<W> && sizeof(W) <= sizeof(bytes) && alignof(W) <= alignof(void*));
    ::new (static_cast<void*>(bytes)) W(w);
  }
  template <class W>
  [[nodiscard]] W get() const noexcept {
    return *std::launder(reinterpret_cast<const W*>(bytes));
  }
};

/// The face of a coroutine: also how its end reaches whoever waits.
struct coroutine_face : face {
  step (*deliver)(promise_base&);
  step (*fail)(const waiter_storage&, error);  // the coroutine itself is gone
};

/// What every coroutine of the library has.
struct promise_base : node {
  std::coroutine_handle<> handle;
  promise_base** owner = nullptr;  // where the task keeps it, set while somebody waits
  waiter_storage waiter;

  static void* operator new(std::size_t size) { return recycler::allocate(size); }
  static void operator delete(void* p, std::size_t size) noexcept { recycler::deallocate(p, size); }
};

/// The coroutine that runs now, for telling a task from its own inside.
inline constinit thread_local promise_base* active = nullptr;
/// What the coroutine that runs now wants of its driver when it returns.
inline constinit thread_local step next_step{};

void drive(step s);

/// Said by a coroutine as its last act before it suspends.
inline void hand_on(const promise_base& self, step s) {
  if (active == &self) {
    next_step = s;
  } else {
    drive(s);  // a foreign awaitable resumed it: there is no driver
  }
}

/// Whether `whole` is what runs now, or waits for it at some remove.
[[nodiscard]] bool is_active(const node& whole) noexcept;

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
  void resume() const {
    if (promise != nullptr) {
      drive({step::resume, promise, {}});
    } else {
      handle.resume();
    }
  }
};

}  // namespace anyio::inline ANYIO_NET_ABI::detail
