// A value or an error.
//
// Every operation of the library completes with a result; callbacks and `as_result` receive it, and a plain
// `co_await` unwraps it. With exceptions enabled, a result can also carry a foreign exception through the
// library's own layers. The user never sees such a result: the exception is thrown again at the edge.
#pragma once

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/standard.hpp"
#include "base/traits.hpp"

#include <cstring>
#include <type_traits>
#include <utility>
#include <variant>

#if ANYIO_NET_EXCEPTIONS
#include <exception>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {

template <class T>
class result;

namespace detail {
struct result_access;
template <class T>
inline constexpr bool is_result = false;
template <class T>
inline constexpr bool is_result<result<T>> = true;
#if ANYIO_NET_EXCEPTIONS
// Out of line: std::rethrow_exception takes a copy, whose end every caller would contain.
[[noreturn, gnu::noinline, gnu::cold]] inline void rethrow(const std::exception_ptr& e) {
  std::rethrow_exception(e);
}
#endif
}  // namespace detail

// g++ 12 does not see that `state_` tells which member is alive, and warns in users' programs.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

/// A T or an error. If it holds an error, `value()` throws, or aborts with the message without exceptions;
/// `*` and `->` require a value.
template <class T = void>
class [[nodiscard]] result {
  using stored = std::conditional_t<std::is_same_v<T, void>, std::monostate, T>;

 public:
  using value_type = T;  ///< the type of the value

  result()
    requires detail::default_constructible<stored>
      : state_(state::value) {
    ::new (static_cast<void*>(&error_)) stored();
  }
  /// Constructs a result that holds a value.
  template <class U = T>
    requires(!std::is_same_v<T, void> && !std::is_same_v<std::remove_cvref_t<U>, result> &&
             !std::is_same_v<std::remove_cvref_t<U>, anyio::error> &&
             !std::is_same_v<std::remove_cvref_t<U>, errc> && detail::converts_to<U &&, stored>)
  result(U&& value) : state_(state::value) {
    ::new (static_cast<void*>(&error_)) stored(std::forward<U>(value));
  }
  /// Constructs a result that holds an error, which must not be `errc::ok`.
  result(anyio::error e) noexcept : state_(state::error) {
    ANYIO_NET_ASSERT(e.code() != errc::ok);
    ::new (static_cast<void*>(&error_)) anyio::error(e);
  }
  /// Constructs a result that holds an error without an errno.
  result(errc code) noexcept : result(anyio::error(code)) {}

  result(const result& other)
    requires detail::copy_constructible<stored>
  {
    take(other);
  }
  ANYIO_NET_HOT result(result&& other) noexcept(detail::moves_without_throwing<stored>) {
    take(std::move(other));
  }
  result& operator=(const result& other)
    requires detail::copy_constructible<stored>
  {
    if (this != &other) *this = result(other);
    return *this;
  }
  [[gnu::always_inline]] result& operator=(result&& other) noexcept(detail::moves_without_throwing<stored>) {
    if (this == &other) return *this;
    destroy();
    if constexpr (is_plain || detail::moves_without_throwing<stored>) {
      take(std::move(other));
    } else {
      const valueless_guard guard{*this};
      take(std::move(other));
    }
    return *this;
  }
  ~result() { destroy(); }

  /// Whether the result holds a value.
  [[nodiscard]] bool has_value() const noexcept { return state_ == state::value; }
  /// Whether the result holds a value.
  explicit operator bool() const noexcept { return has_value(); }

  /// The value, which must be there.
  template <class U = T>
    requires(!std::is_same_v<U, void>)
  U& operator*() & noexcept {
    ANYIO_NET_ASSERT(has_value());
    return value_;
  }
  /// The value, which must be there.
  template <class U = T>
    requires(!std::is_same_v<U, void>)
  const U& operator*() const& noexcept {
    ANYIO_NET_ASSERT(has_value());
    return value_;
  }
  /// The value, which must be there.
  template <class U = T>
    requires(!std::is_same_v<U, void>)
  U&& operator*() && noexcept {
    ANYIO_NET_ASSERT(has_value());
    return std::move(value_);
  }
  /// Only checks that the result is not an error.
  void operator*() const noexcept
    requires std::is_same_v<T, void>
  {
    ANYIO_NET_ASSERT(has_value());
  }
  /// Accesses a member of the value, which must be there.
  template <class U = T>
    requires(!std::is_same_v<U, void>)
  U* operator->() noexcept {
    ANYIO_NET_ASSERT(has_value());
    return std::addressof(value_);
  }
  /// Accesses a member of the value, which must be there.
  template <class U = T>
    requires(!std::is_same_v<U, void>)
  const U* operator->() const noexcept {
    ANYIO_NET_ASSERT(has_value());
    return std::addressof(value_);
  }

  /// The value. If the result holds an error, throws it; without exceptions aborts with the message.
  decltype(auto) value() & {
    check();
    if constexpr (!std::is_same_v<T, void>) return static_cast<stored&>(value_);
  }
  /// The value. If the result holds an error, throws it; without exceptions aborts with the message.
  decltype(auto) value() const& {
    check();
    if constexpr (!std::is_same_v<T, void>) return static_cast<const stored&>(value_);
  }
  /// The value. If the result holds an error, throws it; without exceptions aborts with the message.
  T value() && {
    check();
    if constexpr (!std::is_same_v<T, void>) return std::move(value_);
  }
  /// The value, or `other` if the result holds an error.
  template <class U>
    requires(!std::is_same_v<T, void>)
  T value_or(U&& other) const& {
    return has_value() ? value_ : static_cast<T>(std::forward<U>(other));
  }
  /// The value, or `other` if the result holds an error.
  template <class U>
    requires(!std::is_same_v<T, void>)
  T value_or(U&& other) && {
    return has_value() ? std::move(value_) : static_cast<T>(std::forward<U>(other));
  }

  /// The error; `errc::ok` if the result holds a value.
  [[nodiscard]] anyio::error error() const noexcept {
    return state_ == state::error ? error_ : anyio::error();
  }

 private:
  friend struct detail::result_access;
  template <class>
  friend class result;

  enum class state : std::uint8_t { value, error, foreign, invalid };

  /// Used while a value is assigned whose move may throw. If it throws, the result holds `errc::cancelled`,
  /// since the old value is gone.
  struct valueless_guard {
    result& self;
    explicit valueless_guard(result& r) noexcept : self(r) { self.state_ = state::invalid; }
    ~valueless_guard() {
      if (self.state_ != state::invalid) return;
      self.state_ = state::error;
      ::new (static_cast<void*>(&self.error_)) anyio::error(errc::cancelled);
    }
  };

  /// Whether a result is copied as plain bytes, with a value or an error. Nearly all results are.
  static constexpr bool is_plain = std::is_trivially_copyable_v<stored> &&
                                   std::is_trivially_destructible_v<stored> && sizeof(stored) <= 96;

  template <class Other>
  [[gnu::always_inline]] void take(Other&& other) {
    if (other.state_ == state::foreign) [[unlikely]] {
      take_foreign(other);
    } else if constexpr (is_plain) {
      constexpr std::size_t size =
          sizeof(stored) > sizeof(anyio::error) ? sizeof(stored) : sizeof(anyio::error);
      std::memcpy(static_cast<void*>(&error_), &other.error_, size);
    } else {
      take_object(std::forward<Other>(other));
    }
    state_ = other.state_;
  }
  // Out of line: otherwise g++ 12 at -O1 warns in users' programs about uninitialized members.
  template <class Other>
  [[gnu::noinline]] void take_object(Other&& other) {
    if (other.state_ == state::value) {
      ::new (static_cast<void*>(&error_)) stored(std::forward<Other>(other).value_);
    } else {
      ::new (static_cast<void*>(&error_)) anyio::error(other.error_);
    }
  }
  // Out of line, so that the rest is small enough to be inlined.
  [[gnu::noinline, gnu::cold]] void take_foreign([[maybe_unused]] const result& other) {
#if ANYIO_NET_EXCEPTIONS
    ::new (static_cast<void*>(&error_)) std::exception_ptr(other.foreign_);
#endif
  }
  [[gnu::noinline, gnu::cold]] void drop_foreign() noexcept {
#if ANYIO_NET_EXCEPTIONS
    foreign_.~exception_ptr();
#endif
  }
  void destroy() noexcept {
    if constexpr (!std::is_trivially_destructible_v<stored>) {
      if (state_ == state::value) value_.~stored();
    }
    if (state_ == state::foreign) [[unlikely]]
      drop_foreign();
  }
  void check() const {
    if (state_ == state::value) [[likely]]
      return;
#if ANYIO_NET_EXCEPTIONS
    if (state_ == state::foreign) detail::rethrow(foreign_);
    detail::throw_error(error_);
#else
    detail::abort_with("value() called on an error", error_);
#endif
  }

  union {
    stored value_;
    anyio::error error_;
#if ANYIO_NET_EXCEPTIONS
    std::exception_ptr foreign_;
#endif
  };
  state state_;

  struct nothing_yet {};
  explicit result(nothing_yet) noexcept : state_(state::invalid) {}
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace detail {

/// Calls `f`, which may throw, from code that must not throw, such as a C library's callback or a destructor.
/// Returns false if it threw.
template <class F>
bool call_without_throwing(F&& f) noexcept {
#if ANYIO_NET_EXCEPTIONS
  try {
    f();
  } catch (...) {
    return false;
  }
#else
  f();
#endif
  return true;
}

/// The library's internal access to a result: its foreign exception, and results without content.
struct result_access {
  /// Sets an outcome that `make` returns, in place. If it throws, the outcome has no content. Returns true.
  template <class T, class Make>
  [[gnu::always_inline]] static bool complete_by(result<T>& out, Make make) {
    out.destroy();
    out.state_ = result<T>::state::invalid;
    ::new (static_cast<void*>(&out.value_)) T(make());
    out.state_ = result<T>::state::value;
    return true;
  }
  /// Sets an outcome that is an error, which must not be `errc::ok`.
  template <class T>
  static void fail(result<T>& out, const error& e) noexcept {
    ANYIO_NET_ASSERT(e.code() != errc::ok);
    out.destroy();
    ::new (static_cast<void*>(&out.error_)) error(e);
    out.state_ = result<T>::state::error;
  }
  /// Sets the outcome of an operation that gives no value. Returns true.
  static bool succeed(result<void>& out) noexcept {
    out.destroy();
    out.state_ = result<void>::state::value;
    return true;
  }
  /// Makes a result without content; it must be assigned to before any other use.
  template <class T>
  static result<T> room() noexcept {
    return result<T>(typename result<T>::nothing_yet{});
  }
#if ANYIO_NET_EXCEPTIONS
  template <class T>
  [[gnu::noinline, gnu::cold]] static result<T> foreign(const std::exception_ptr& e) {
    result<T> r = room<T>();
    ::new (static_cast<void*>(&r.error_)) std::exception_ptr(e);
    r.state_ = result<T>::state::foreign;
    return r;
  }
  template <class T>
  static std::exception_ptr foreign_of(const result<T>& r) {
    return r.state_ == result<T>::state::foreign ? r.foreign_ : nullptr;
  }
#endif
  template <class T>
  static bool is_foreign([[maybe_unused]] const result<T>& r) noexcept {
    return r.state_ == result<T>::state::foreign;
  }
  template <class T>
  ANYIO_NET_HOT static void rethrow_foreign([[maybe_unused]] const result<T>& r) {
#if ANYIO_NET_EXCEPTIONS
    if (is_foreign(r)) [[unlikely]]
      rethrow(r.foreign_);
#endif
  }
  /// Converts the error or foreign exception of a result to a result of another type.
  template <class To, class From>
  static result<To> failure(const result<From>& r) {
#if ANYIO_NET_EXCEPTIONS
    if (is_foreign(r)) return foreign<To>(r.foreign_);
#endif
    return result<To>(r.error());
  }
};

/// Sets an outcome, and returns `Done`: for functions that return whether there is one.
template <auto Done = true, class T, class Value>
[[gnu::always_inline]] inline auto complete(result<T>& out, Value&& value) {
  if constexpr (std::is_same_v<std::remove_cvref_t<Value>, error>) {
    result_access::fail(out, value);
  } else {
    out = std::forward<Value>(value);
  }
  return Done;
}

}  // namespace detail

}}  // namespace anyio
