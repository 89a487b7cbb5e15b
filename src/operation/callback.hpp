// What an operation is to others, and the callables that receive its outcome.
//
// A user's callable takes a `result<T>` and never sees a foreign exception in it. The library's own callables
// receive a result unchanged, and can tell who waits behind them. This part must not know how an operation
// runs.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/ready_list.hpp"

#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// The base of every operation and task. An operation does nothing until it is used in one of three ways:
/// `co_await` returns the value or raises the error; `co_await as_result(…)` returns a `result`;
/// `start(callable)` passes the `result` to the callable, which runs once, from the loop. The caller owns a
/// named operation, and cancels it by destroying it or by assigning to it. The loop owns a temporary
/// operation that was started. An idle operation may be moved, and used again.
///
/// It is declared here so that `as_result`, `fail_after` and similar names are found without qualification.
struct operation_tag {};

namespace detail {

/// An operation or a task.
template <class X>
concept is_operation = std::is_base_of_v<operation_tag, std::remove_cvref_t<X>> &&
                       requires { typename std::remove_cvref_t<X>::value_type; };

/// The library's own callables receive a result unchanged. A user's callable never receives a foreign
/// exception in a result.
template <class F>
concept internal_callable = requires { typename F::internal; };

/// Whether a callable can be called with a result, as far as that can be told without compiling the body of a
/// generic lambda.
template <class F, class T>
inline constexpr bool takes_result = true;
template <class F, class T>
  requires(!internal_callable<F> && (requires { &F::operator(); } || std::is_pointer_v<F>))
inline constexpr bool takes_result<F, T> =
    std::is_invocable_v<F&, result<T>> || std::is_invocable_v<F, result<T>>;

/// True; a callable that cannot be called with a result is told so here.
template <class F, class T>
consteval bool is_callback() {
  static_assert(
      takes_result<F, T>,
      "the callback does not take what the operation gives: its parameter is a result<T>, where T is "
      "the type that co_await gives; `auto` does as well");
  return true;
}

template <class T, class F>
void call_back(F&& f, result<T>&& r) {
  if constexpr (!internal_callable<std::remove_cvref_t<F>>) result_access::rethrow_foreign(r);
  std::forward<F>(f)(std::move(r));
}

template <class F>
node* owner_of(const F& f) noexcept {
  if constexpr (internal_callable<F> && requires { f.owner(); }) {
    return f.owner();
  } else {
    return nullptr;
  }
}

/// Called when the loop ends: the callable will not be called.
template <class F>
void abandon(const F& f) {
  if constexpr (internal_callable<F> && requires { f.abandon(); }) f.abandon();
}

/// An operation that is stored to begin later copies the bytes that it borrows from the loop's buffer.
template <class Op>
void keep_loan(Op& op) {
  if constexpr (requires { op.keep_loan(); }) op.keep_loan();
}

template <class F>
inline constexpr bool fits_named =
    std::is_trivially_copyable_v<F> && sizeof(F) <= 3 * sizeof(void*) && alignof(F) <= alignof(void*);

}  // namespace detail

}}  // namespace anyio
