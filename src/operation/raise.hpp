// Raising an error, and awaiting a result: neither waits.
#pragma once

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/result.hpp"
#include "operation/coroutine.hpp"
#include "operation/operation.hpp"

#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The awaiter for `co_await` of a result.
template <class T>
class [[nodiscard]] result_awaiter {
 public:
  explicit result_awaiter(result<T>&& r) : result_(std::move(r)) {}

  [[nodiscard]] bool await_ready() const noexcept { return ANYIO_NET_EXCEPTIONS || result_.has_value(); }
  template <class P>
  void await_suspend(std::coroutine_handle<P> h) {
    static_assert(ANYIO_NET_EXCEPTIONS || is_own_promise<P>,
                  "without exceptions a co_await of a result works only inside an anyio::task");
    if constexpr (!ANYIO_NET_EXCEPTIONS) hand_on(h.promise(), step::raising(h.promise(), result_.error()));
  }
  T await_resume() {
#if ANYIO_NET_EXCEPTIONS
    return std::move(result_).value();
#else
    return *std::move(result_);
#endif
  }

 private:
  result<T> result_;
};

/// The operation for `raise`: its outcome exists already.
template <class T>
class [[nodiscard]] result_operation : public operation<result_operation<T>, T> {
 public:
  static constexpr const char* name = "raise";
  result_operation() = default;
  explicit result_operation(result<T>&& r) : operation<result_operation, T>(true), result_(std::move(r)) {}

 private:
  friend class operation<result_operation, T>;
  static constexpr bool immediate = true;
  bool attempt(result<T>& out) {
    out = std::move(result_);
    return true;
  }
  result<T> result_{error(errc::invalid_argument, 0, name)};
};

}  // namespace detail

/// `co_await raise(e)` raises this error in the coroutine that awaits it.
[[nodiscard]] inline detail::result_operation<void> raise(error e) {
  return detail::result_operation<void>(result<void>(e));
}

/// `co_await` of a result returns its value or raises its error.
template <class T>
[[nodiscard]] detail::result_awaiter<T> operator co_await(result<T>&& r) {
  return detail::result_awaiter<T>(std::move(r));
}
/// `co_await` of a named or const result returns a copy of its value or raises its error.
template <class T>
[[nodiscard]] detail::result_awaiter<T> operator co_await(const result<T>& r) {
  return detail::result_awaiter<T>(result<T>(r));
}

}}  // namespace anyio
