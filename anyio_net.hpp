// anyio_net.hpp 0.1.0: sockets for C++20 in one header.
//
// Generated: do not edit. Edit the parts in src/ and run `make`, which joins them with
// tools/make/amalgamate.py.
//
// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the anyio_net authors. The licence's text is in LICENSE.
#pragma once

// g++ would warn that parameters shadow a program's globals with the same name: `bytes`, `port`.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif

// == base/intro.hpp ===============================================================================

// anyio_net.hpp: sockets for C++20 in one header. No dependencies; uses epoll or kqueue.
//
//   #include "anyio_net.hpp"
//
//   anyio::task<> echo(anyio::tcp_stream client) {
//     for (;;) {
//       auto bytes = co_await as_result(client.receive_view());
//       if (!bytes) co_return;                    // end of stream or an error
//       co_await client.send(*bytes);
//     }
//   }
//   anyio::task<> serve() {
//     auto listener = co_await anyio::create_tcp_listener({.local_port = 1234});
//     co_await listener.serve(echo);
//   }
//   int main() { anyio::run(serve()); }
//
//   g++ -std=c++20 -O2 main.cpp
//
// Everything that can wait is an operation, and an operation is used in one of two ways:
//
//   auto n = co_await client.receive(buffer);  // in a coroutine: returns the value or raises
//   client.receive(buffer).start([](anyio::result<std::size_t> r) {});  // a callback, called from the loop
//
// Four rules hold everywhere:
//
//   1. No result is delivered inside the call that starts the operation; a callback runs once, from the loop.
//   2. Destroying a pending operation cancels it: it ends at once, its buffer is free, no data is lost.
//   3. A stream has one reader and one writer. A second one gets `busy_resource`; the first continues.
//   4. Errors are values inside the library and are raised at the edge. The end of a stream is an error,
//      never an empty read; closed, broken and busy are different errors. A program behaves the same with
//      exceptions and without.
//
// A loop belongs to one thread; only `loop_handle::post` may be called from another thread. The rest of this
// file is in layers: errors and bytes first, then the loop, operations and tasks, then streams, listeners and
// datagrams, and the definitions at the end.

// == base/config.hpp ==============================================================================

// All macros of the library.
//
// A program may define, before the first include or on the command line:
//
//   ANYIO_NET_MBEDTLS          TLS with mbedTLS, 2.28 or 3.2 and later
//   ANYIO_NET_OPENSSL          TLS with OpenSSL 3
//   ANYIO_NET_SIM              simulation, and fault injection for any backend
//   ANYIO_NET_KQUEUE           use kqueue on Linux too, through a library that provides <sys/event.h>
//   ANYIO_NET_NO_THREADS       names are resolved on the calling thread, `to_thread` is absent
//   ANYIO_NET_ASSERT(x)        checks a precondition; the default aborts, or does nothing with NDEBUG
//   ANYIO_NET_SPLIT            declarations only; one file also defines ANYIO_NET_IMPLEMENTATION
//   ANYIO_NET_IMPLEMENTATION   in split mode: this file holds the definitions
//
// The compiler tells whether exceptions are enabled. Each setting that changes a layout is part of the name
// of the inline namespace, so that translation units with different settings share no symbol.

// The version is defined only here: the build files and the packages read it from here.
#define ANYIO_NET_VERSION_MAJOR 0
#define ANYIO_NET_VERSION_MINOR 1
#define ANYIO_NET_VERSION_PATCH 0
/// The version as one number, for `#if`.
#define ANYIO_NET_VERSION \
  (ANYIO_NET_VERSION_MAJOR * 10000 + ANYIO_NET_VERSION_MINOR * 100 + ANYIO_NET_VERSION_PATCH)

#if !defined(__cpp_impl_coroutine) && !defined(__cpp_coroutines)
#error "anyio_net.hpp needs C++20 with coroutines: compile with -std=c++20"
#endif

#if !defined(ANYIO_NET_ASSERT) && defined(NDEBUG)
#define ANYIO_NET_ASSERT(x) static_cast<void>(0)
#elif !defined(ANYIO_NET_ASSERT)
// Not assert, which stores the full name of each function that uses it: 4 KB in a small program.
#define ANYIO_NET_ASSERT(x) ((x) ? static_cast<void>(0) : anyio::detail::assertion_failed(#x, __LINE__))
#endif

#if !defined(ANYIO_NET_KQUEUE) && (defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || \
                                   defined(__OpenBSD__) || defined(__DragonFly__))
#define ANYIO_NET_KQUEUE
#endif

#if defined(__cpp_exceptions)
#define ANYIO_NET_EXCEPTIONS 1
#else
#define ANYIO_NET_EXCEPTIONS 0
#endif

#if !defined(ANYIO_NET_SPLIT)
#define ANYIO_NET_FN inline  // for a function that the header defines
#define ANYIO_NET_DEFINE 1   // this file holds the definitions
#else
#define ANYIO_NET_FN
#if defined(ANYIO_NET_IMPLEMENTATION)
#define ANYIO_NET_DEFINE 1
#else
#define ANYIO_NET_DEFINE 0
#endif
#endif
/// For a function that runs rarely: optimized for size, which also reduces the compile time.
#define ANYIO_NET_COLD [[gnu::cold]] ANYIO_NET_FN

#if ANYIO_NET_EXCEPTIONS && !defined(ANYIO_NET_NO_THREADS)
#define ANYIO_NET_ABI v1
#elif ANYIO_NET_EXCEPTIONS
#define ANYIO_NET_ABI v1_no_threads
#elif !defined(ANYIO_NET_NO_THREADS)
#define ANYIO_NET_ABI v1_no_exceptions
#else
#define ANYIO_NET_ABI v1_no_exceptions_no_threads
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {
/// Prints "anyio_net.hpp:<line>: assertion failed: <what>" and aborts.
[[noreturn]] void assertion_failed(const char* what, int line) noexcept;
}}}  // namespace anyio::detail

// Translation units that share no symbol of the library would link even with different settings. Therefore
// each setting has an object that is thread-local in one state and not in the other; the linker then
// rejects the pair and prints the object's name.
#if defined(__ELF__)
extern "C" {
#if ANYIO_NET_EXCEPTIONS
__attribute__((used)) inline char anyio_net_exceptions_must_agree;
#else
__attribute__((used)) inline thread_local char anyio_net_exceptions_must_agree;
#endif
#if !defined(ANYIO_NET_NO_THREADS)
__attribute__((used)) inline char ANYIO_NET_NO_THREADS_must_agree;
#else
__attribute__((used)) inline thread_local char ANYIO_NET_NO_THREADS_must_agree;
#endif
}
#endif

// == base/error.hpp ===============================================================================

// Errors as values.
//
// An error is small, trivially copyable and never allocates, so that every layer can pass it on; only
// the code that awaits an operation decides whether the error is thrown. This part must not know the system:
// the names and descriptions of errno values come from its own table.

#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#if ANYIO_NET_EXCEPTIONS
#include <stdexcept>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {

/// The kinds of failure that a program can tell apart.
enum class errc : std::uint8_t {
  ok,
  end_of_stream,        ///< orderly end of the stream; every later receive reports it again
  closed_resource,      ///< this end was closed, even if it was broken before
  broken_resource,      ///< the peer or the kernel broke an open stream
  busy_resource,        ///< another operation of the same direction is pending
  incomplete_read,      ///< the stream ended before all requested bytes arrived
  delimiter_not_found,  ///< the buffer is full to its limit and contains no delimiter
  timed_out,
  cancelled,
  invalid_argument,
  name_resolution,  ///< a host name could not be resolved
  tls,
  fds_truncated,  ///< more descriptors arrived than requested; all of them are closed
  not_supported,
  deadlock,  ///< simulation only: every task waits, and no event can wake any of them
  os_error,  ///< a failed system call: connect, bind, listen, chmod and others
};

/// The enumerator's name, for instance "end_of_stream".
[[nodiscard]] std::string_view to_string(errc code) noexcept;

namespace detail {
/// The name of an errno value, for instance "ECONNREFUSED"; empty for an unknown value.
[[nodiscard]] std::string_view errno_name(int value) noexcept;
struct error_access;
}  // namespace detail

/// An error: the operation that failed, the reason and the errno. Operation and reason are static text.
class [[nodiscard]] error {
 public:
  constexpr error() noexcept = default;
  /// Constructs an error. `operation` must be static text; an `os_error` of 0 means that there is no errno.
  constexpr error(errc code, int os_error = 0, const char* operation = "") noexcept
      : operation_(operation), os_error_(os_error), code_(code) {}

  /// The kind of failure; `errc::ok` if there is no failure.
  [[nodiscard]] constexpr errc code() const noexcept { return code_; }
  /// The errno of the failed system call, 0 if there is none.
  [[nodiscard]] constexpr int os_error() const noexcept { return os_error_; }
  /// The operation that failed: "connect", "bind", "tls: private_key_file".
  [[nodiscard]] constexpr std::string_view operation() const noexcept { return operation_; }
  /// One line for the user: "connect: connection refused (ECONNREFUSED)".
  [[nodiscard]] std::string message() const;

  friend constexpr bool operator==(error a, errc b) noexcept { return a.code_ == b; }
  /// Compares with `os_error()`; false if the error has no errno.
  friend constexpr bool operator==(error a, std::errc b) noexcept {
    return a.os_error_ != 0 && a.os_error_ == static_cast<int>(b);
  }
  friend constexpr bool operator==(error a, error b) noexcept {
    return a.code_ == b.code_ && a.os_error_ == b.os_error_ && a.operation() == b.operation();
  }

 private:
  friend struct detail::error_access;

  const char* operation_ = "";
  const char* reason_ = nullptr;  // text of a resolver or a TLS engine, for message()
  int os_error_ = 0;
  errc code_ = errc::ok;
};

static_assert(std::is_trivially_copyable_v<error>);

/// Converts to the errno in `std::system_category` if there is one, else to the `errc` in the category
/// "anyio".
[[nodiscard]] std::error_code make_error_code(error e) noexcept;

namespace detail {
struct error_access {
  static constexpr error with_reason(error e, const char* reason) noexcept {
    e.reason_ = reason;
    return e;
  }
  static constexpr error with_operation(error e, const char* operation) noexcept {
    e.operation_ = operation;
    return e;
  }
};
}  // namespace detail

#if ANYIO_NET_EXCEPTIONS

/// The exception that a failed operation throws at its `co_await`; each `errc` has its own subclass.
class exception : public std::runtime_error {
 public:
  /// Constructs an exception whose `what()` is the error's message.
  explicit exception(const anyio::error& e) : std::runtime_error(e.message()), error_(e) {}
  /// The error that the operation failed with.
  [[nodiscard]] const anyio::error& error() const noexcept { return error_; }

 private:
  anyio::error error_;
};

// clang-format off
class end_of_stream       : public exception { using exception::exception; };
class closed_resource     : public exception { using exception::exception; };
class broken_resource     : public exception { using exception::exception; };
class busy_resource       : public exception { using exception::exception; };
class incomplete_read     : public exception { using exception::exception; };
class delimiter_not_found : public exception { using exception::exception; };
class timed_out           : public exception { using exception::exception; };
class cancelled           : public exception { using exception::exception; };
class invalid_argument    : public exception { using exception::exception; };
class name_resolution     : public exception { using exception::exception; };
class tls_error           : public exception { using exception::exception; };
class fds_truncated       : public exception { using exception::exception; };
class not_supported       : public exception { using exception::exception; };
class deadlock            : public exception { using exception::exception; };
class os_error            : public exception { using exception::exception; };
// clang-format on

#endif

namespace detail {
/// Throws the subclass that belongs to the error; without exceptions prints it and aborts.
[[noreturn]] void throw_error(const error& e);
/// Prints "anyio: <what>: <message>" and aborts.
[[noreturn]] void abort_with(const char* what, const error& e);
}  // namespace detail

}}  // namespace anyio

// == base/result.hpp ==============================================================================

// A value or an error.
//
// Every operation of the library completes with a result; callbacks and `as_result` receive it, and a plain
// `co_await` unwraps it. With exceptions enabled, a result can also carry a foreign exception through the
// library's own layers. The user never sees such a result: the exception is thrown again at the edge.

#include <cstring>
#include <memory>
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
  using stored = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

 public:
  using value_type = T;  ///< the type of the value

  result()
    requires std::is_default_constructible_v<stored>
      : state_(state::value) {
    std::construct_at(&value_);
  }
  /// Constructs a result that holds a value.
  template <class U = T>
    requires(!std::is_void_v<T> && !std::is_same_v<std::remove_cvref_t<U>, result> &&
             !std::is_same_v<std::remove_cvref_t<U>, anyio::error> &&
             !std::is_same_v<std::remove_cvref_t<U>, errc> && std::is_convertible_v<U &&, stored>)
  result(U&& value) : state_(state::value) {
    std::construct_at(&value_, std::forward<U>(value));
  }
  /// Constructs a result that holds an error, which must not be `errc::ok`.
  result(anyio::error e) noexcept : state_(state::error) {
    ANYIO_NET_ASSERT(e.code() != errc::ok);
    std::construct_at(&error_, e);
  }
  /// Constructs a result that holds an error without an errno.
  result(errc code) noexcept : result(anyio::error(code)) {}

  result(const result& other)
    requires std::is_copy_constructible_v<stored>
  {
    take(other);
  }
  result(result&& other) noexcept(std::is_nothrow_move_constructible_v<stored>) { take(std::move(other)); }
  result& operator=(const result& other)
    requires std::is_copy_constructible_v<stored>
  {
    if (this != &other) *this = result(other);
    return *this;
  }
  [[gnu::always_inline]] result& operator=(result&& other) noexcept(
      std::is_nothrow_move_constructible_v<stored>) {
    if (this == &other) return *this;
    destroy();
    if constexpr (is_plain || std::is_nothrow_move_constructible_v<stored>) {
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
    requires(!std::is_void_v<U>)
  U& operator*() & noexcept {
    ANYIO_NET_ASSERT(has_value());
    return value_;
  }
  /// The value, which must be there.
  template <class U = T>
    requires(!std::is_void_v<U>)
  const U& operator*() const& noexcept {
    ANYIO_NET_ASSERT(has_value());
    return value_;
  }
  /// The value, which must be there.
  template <class U = T>
    requires(!std::is_void_v<U>)
  U&& operator*() && noexcept {
    ANYIO_NET_ASSERT(has_value());
    return std::move(value_);
  }
  /// Only checks that the result is not an error.
  void operator*() const noexcept
    requires std::is_void_v<T>
  {
    ANYIO_NET_ASSERT(has_value());
  }
  /// Accesses a member of the value, which must be there.
  template <class U = T>
    requires(!std::is_void_v<U>)
  U* operator->() noexcept {
    ANYIO_NET_ASSERT(has_value());
    return std::addressof(value_);
  }
  /// Accesses a member of the value, which must be there.
  template <class U = T>
    requires(!std::is_void_v<U>)
  const U* operator->() const noexcept {
    ANYIO_NET_ASSERT(has_value());
    return std::addressof(value_);
  }

  /// The value. If the result holds an error, throws it; without exceptions aborts with the message.
  decltype(auto) value() & {
    check();
    if constexpr (!std::is_void_v<T>) return static_cast<stored&>(value_);
  }
  /// The value. If the result holds an error, throws it; without exceptions aborts with the message.
  decltype(auto) value() const& {
    check();
    if constexpr (!std::is_void_v<T>) return static_cast<const stored&>(value_);
  }
  /// The value. If the result holds an error, throws it; without exceptions aborts with the message.
  T value() && {
    check();
    if constexpr (!std::is_void_v<T>) return std::move(value_);
  }
  /// The value, or `other` if the result holds an error.
  template <class U>
    requires(!std::is_void_v<T>)
  T value_or(U&& other) const& {
    return has_value() ? value_ : static_cast<T>(std::forward<U>(other));
  }
  /// The value, or `other` if the result holds an error.
  template <class U>
    requires(!std::is_void_v<T>)
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
      std::construct_at(&self.error_, errc::cancelled);
    }
  };

  /// Whether a result is copied as plain bytes, with a value or an error. Nearly all results are.
  static constexpr bool is_plain = std::is_trivially_copyable_v<stored> &&
                                   std::is_trivially_destructible_v<stored> && sizeof(stored) <= 64;

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
      std::construct_at(&value_, std::forward<Other>(other).value_);
    } else {
      std::construct_at(&error_, other.error_);
    }
  }
  // Out of line, so that the rest is small enough to be inlined.
  [[gnu::noinline, gnu::cold]] void take_foreign([[maybe_unused]] const result& other) {
#if ANYIO_NET_EXCEPTIONS
    std::construct_at(&foreign_, other.foreign_);
#endif
  }
  [[gnu::noinline, gnu::cold]] void drop_foreign() noexcept {
#if ANYIO_NET_EXCEPTIONS
    std::destroy_at(&foreign_);
#endif
  }
  void destroy() noexcept {
    if constexpr (!std::is_trivially_destructible_v<stored>) {
      if (state_ == state::value) std::destroy_at(&value_);
    }
    if (state_ == state::foreign) [[unlikely]]
      drop_foreign();
  }
  void check() const {
    if (state_ == state::value) [[likely]]
      return;
#if ANYIO_NET_EXCEPTIONS
    if (state_ == state::foreign) std::rethrow_exception(foreign_);
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

/// Sets an outcome, and returns `Done`: for functions that return whether there is one.
template <auto Done = true, class T, class Value>
[[gnu::always_inline]] inline auto complete(result<T>& out, Value&& value) {
  out = std::forward<Value>(value);
  return Done;
}

/// The library's internal access to a result: its foreign exception, and results without content.
struct result_access {
  /// Makes a result without content; it must be assigned to before any other use.
  template <class T>
  static result<T> room() noexcept {
    return result<T>(typename result<T>::nothing_yet{});
  }
#if ANYIO_NET_EXCEPTIONS
  template <class T>
  [[gnu::noinline, gnu::cold]] static result<T> foreign(const std::exception_ptr& e) {
    result<T> r = room<T>();
    std::construct_at(&r.foreign_, e);
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
  static void rethrow_foreign([[maybe_unused]] const result<T>& r) {
#if ANYIO_NET_EXCEPTIONS
    if (is_foreign(r)) std::rethrow_exception(r.foreign_);
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

}  // namespace detail

}}  // namespace anyio

// == base/address.hpp =============================================================================

// Addresses as values: internet addresses and endpoints, which are parsed, formatted, and converted to and
// from the kernel's structures, and the names of UNIX sockets. The code is pure, gives equal results on every
// system and in every locale, and accepts any bytes as input; it must not make system calls. Only the system
// knows the names of network interfaces; they come through the two functions in `interface_lookup`.

#include <compare>
#include <cstddef>
#include <span>

#include <sys/socket.h>
#include <sys/un.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// An IPv4 or IPv6 address. An IPv6 address can have a scope: the interface that a link-local address
/// belongs to. The order is: IPv4 before IPv6, then by bytes, then by scope.
class ip_address {
 public:
  /// Constructs 0.0.0.0.
  constexpr ip_address() noexcept = default;

  /// Parses "127.0.0.1", "::1" or "fe80::1%eth0"; no other text may come before or after the address.
  ///
  /// IPv4 is four decimal numbers without leading zeros, since some programs read those as octal. IPv6 is
  /// any form of RFC 4291 section 2.2; a scope (RFC 4007 section 11) is an interface's number, or its name
  /// if the system knows it. "::ffff:127.0.0.1" stays IPv6. Any other text is `invalid_argument`.
  [[nodiscard]] static result<ip_address> parse(std::string_view text);

  /// 0.0.0.0; as a local address it means all IPv4 addresses of the machine.
  [[nodiscard]] static constexpr ip_address any_v4() noexcept { return {}; }
  /// "::"; as a local address it means all IPv6 addresses of the machine.
  [[nodiscard]] static constexpr ip_address any_v6() noexcept {
    ip_address address;
    address.is_v6_ = true;
    return address;
  }
  /// The loopback address 127.0.0.1.
  [[nodiscard]] static constexpr ip_address loopback_v4() noexcept { return v4(0x7f000001); }
  /// The loopback address "::1".
  [[nodiscard]] static constexpr ip_address loopback_v6() noexcept {
    ip_address address = any_v6();
    address.bytes_[15] = std::byte{1};
    return address;
  }
  /// Makes an IPv4 address from a number in host byte order: 0x7f000001 is 127.0.0.1.
  [[nodiscard]] static constexpr ip_address v4(std::uint32_t number) noexcept {
    ip_address address;
    for (std::size_t i = 0; i < 4; ++i) address.bytes_[i] = static_cast<std::byte>(number >> (24 - 8 * i));
    return address;
  }
  /// Makes an IPv6 address from bytes in network order; `scope` is the number of an interface, or 0.
  [[nodiscard]] static constexpr ip_address v6(std::span<const std::byte, 16> bytes,
                                               std::uint32_t scope = 0) noexcept {
    ip_address address = any_v6();
    for (std::size_t i = 0; i < 16; ++i) address.bytes_[i] = bytes[i];
    address.scope_ = scope;
    return address;
  }

  /// Whether this is an IPv4 address. A mapped address ("::ffff:127.0.0.1") is IPv6.
  [[nodiscard]] constexpr bool is_v4() const noexcept { return !is_v6_; }
  /// Whether this is an IPv6 address, which includes mapped addresses ("::ffff:127.0.0.1").
  [[nodiscard]] constexpr bool is_v6() const noexcept { return is_v6_; }
  /// Whether the address is in 224.0.0.0/4 or ff00::/8.
  [[nodiscard]] constexpr bool is_multicast() const noexcept {
    return is_v6_ ? bytes_[0] == std::byte{0xff} : (bytes_[0] & std::byte{0xf0}) == std::byte{0xe0};
  }
  /// The number of the interface, 0 if the address has none; always 0 for IPv4.
  [[nodiscard]] constexpr std::uint32_t scope_id() const noexcept { return scope_; }
  /// The 4 or 16 bytes of the address in network order; the span points into this object.
  [[nodiscard]] constexpr std::span<const std::byte> bytes() const noexcept {
    return std::span<const std::byte>(bytes_, is_v6_ ? 16u : 4u);
  }

  /// The canonical text (RFC 5952), with the interface's name if the system knows it, else its number.
  /// `parse` converts the text back to an equal address.
  [[nodiscard]] std::string to_string() const;

  friend constexpr bool operator==(const ip_address&, const ip_address&) noexcept = default;
  friend constexpr std::strong_ordering operator<=>(const ip_address&, const ip_address&) noexcept = default;

 private:
  // Members are in the order of comparison. The bytes that an IPv4 address does not use are zero.
  bool is_v6_ = false;
  std::byte bytes_[16] = {};
  std::uint32_t scope_ = 0;
};

static_assert(std::is_trivially_copyable_v<ip_address>);

/// An address and a port.
struct ip_endpoint {
  ip_address address{};    ///< initially 0.0.0.0
  std::uint16_t port = 0;  ///< in host byte order

  /// Parses "127.0.0.1:80", "[::1]:80" or "[fe80::1%eth0]:80". The port is a decimal number up to 65535
  /// and is required. An IPv6 address, and no other, needs brackets. Any other text is `invalid_argument`.
  [[nodiscard]] static result<ip_endpoint> parse(std::string_view text);

  /// The text of the endpoint in the form that `parse` accepts.
  [[nodiscard]] std::string to_string() const;

  /// Converts from a structure that the kernel filled in; `data` may be unaligned, and only `size` bytes of
  /// it are read. An IPv4-mapped address becomes IPv4. Another family or a too small size is
  /// `invalid_argument`.
  [[nodiscard]] static result<ip_endpoint> from_sockaddr(const sockaddr* data, socklen_t size);

  /// Fills all of `storage` and returns the number of bytes in use.
  socklen_t to_sockaddr(sockaddr_storage& storage) const noexcept;

  friend constexpr bool operator==(const ip_endpoint&, const ip_endpoint&) noexcept = default;
  friend constexpr std::strong_ordering operator<=>(const ip_endpoint&,
                                                    const ip_endpoint&) noexcept = default;
};

static_assert(std::is_trivially_copyable_v<ip_endpoint>);

}}  // namespace anyio

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Look up a network interface by name or by number: 0 or false if there is none. `out` has room for 64
/// bytes and is NUL-terminated.
std::uint32_t interface_index(const char* name) noexcept;
bool interface_name(std::uint32_t index, char* out) noexcept;

/// The functions that convert between names and numbers of interfaces. Without them, a scope is a number.
struct interface_names {
  std::uint32_t (*index)(const char* name) noexcept = nullptr;
  bool (*name)(std::uint32_t index, char* out) noexcept = nullptr;
};
inline constinit interface_names interface_lookup{interface_index, interface_name};

// The BSDs store the length of a structure in its first member; Linux has no such member.
template <class Storage>
void set_sockaddr_size([[maybe_unused]] Storage& storage, [[maybe_unused]] socklen_t size) noexcept {
  if constexpr (requires { storage.ss_len; }) storage.ss_len = static_cast<std::uint8_t>(size);
  if constexpr (requires { storage.sun_len; }) storage.sun_len = static_cast<std::uint8_t>(size);
}

/// Does what `ip_endpoint::to_sockaddr` does, but leaves the unused part of the storage as it is.
socklen_t write_sockaddr(const ip_endpoint& endpoint, sockaddr_storage& storage) noexcept;

/// The family of the socket for an address, the unspecified address, and the machine itself.
[[nodiscard]] inline int family_of(const ip_address& a) noexcept { return a.is_v6() ? AF_INET6 : AF_INET; }
[[nodiscard]] inline ip_address any_address(bool v6) noexcept {
  return v6 ? ip_address::any_v6() : ip_address::any_v4();
}
[[nodiscard]] inline ip_address loopback_address(bool v6) noexcept {
  return v6 ? ip_address::loopback_v6() : ip_address::loopback_v4();
}
/// Whether it is an IPv4-mapped IPv6 address: "::ffff:127.0.0.1" (RFC 4291, section 2.5.5.2).
[[nodiscard]] bool is_mapped(const ip_address& address) noexcept;
/// Converts an IPv4-mapped address to IPv4, and returns any other address as it is.
[[nodiscard]] ip_address unmapped(const ip_address& address) noexcept;
/// Converts an IPv4 address to its IPv4-mapped form, and returns any other address as it is.
[[nodiscard]] ip_address mapped(const ip_address& address) noexcept;
/// Writes the address in the form that a socket of this family needs: IPv4 is mapped for an IPv6 socket, and
/// a mapped address becomes IPv4 for an IPv4 socket.
socklen_t fill_address(const ip_endpoint& endpoint, int family, sockaddr_storage& storage) noexcept;

/// The name of a UNIX socket in the kernel's form.
struct unix_address {
  sockaddr_un storage;
  socklen_t size;
};

/// Converts a path to the kernel's form. An empty path is the unnamed socket (bind on Linux then chooses any
/// free abstract name). A leading NUL is the abstract namespace, where every byte is part of the name; it is
/// `not_supported` except on Linux. Errors carry `operation`: `os_error` with ENAMETOOLONG for a path that
/// leaves no room for its NUL, or with EINVAL for a path with a NUL inside, which the kernel would truncate
/// silently.
[[nodiscard]] result<unix_address> make_unix_address(std::string_view path, const char* operation);

/// Converts the kernel's form to a path; `data` may be unaligned. `size` comes from the kernel, which also
/// counts bytes that did not fit into the caller's storage, so at most a sockaddr_un is read. The path need
/// not end with NUL. Returns an empty string for an unnamed socket and for any other family.
[[nodiscard]] std::string unix_path(const sockaddr* data, socklen_t size);

}}}  // namespace anyio::detail

// == base/buffer.hpp ==============================================================================

// Views of bytes that are sent or received: a pointer and a size, constructed implicitly from any container
// of bytes, so that no caller needs a cast and every operation has one signature. The views own nothing. This
// part must not know system calls, streams or the users of the bytes.

#include <concepts>

namespace anyio { inline namespace ANYIO_NET_ABI {

class const_buffer;
class mutable_buffer;

}}  // namespace anyio

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// Exactly the types that may alias any object, so that a view of them is a view of memory. signed char
// and char8_t are not included, since programs do not store received bytes in them.
template <class T>
concept byte_type = std::same_as<T, char> || std::same_as<T, unsigned char> || std::same_as<T, std::byte>;

template <class T>
concept byte_pointer = std::is_pointer_v<T> && byte_type<std::remove_const_t<std::remove_pointer_t<T>>>;

// A container or view: it has data() and size(). The two buffer classes are excluded; otherwise a non-const
// lvalue of either class would prefer the constructor template to the copy constructor.
template <class T>
concept byte_range = !std::same_as<std::remove_cvref_t<T>, const_buffer> &&
                     !std::same_as<std::remove_cvref_t<T>, mutable_buffer> && requires(T& range) {
                       { range.data() } -> byte_pointer;
                       { range.size() } -> std::convertible_to<std::size_t>;
                     };

// A range that may be written to: data() points to non-const, and the bytes outlive the expression, because
// the argument is an lvalue or only a view of the bytes.
template <class T>
concept writable_byte_range =
    byte_range<T> && !std::is_const_v<std::remove_pointer_t<decltype(std::declval<T&>().data())>> &&
    (std::is_lvalue_reference_v<T> || std::ranges::enable_borrowed_range<std::remove_cvref_t<T>>);

/// For the overload of a send function that takes ownership of a `std::string` rvalue:
///
///     auto send(const_buffer bytes);
///     auto send(std::span<const const_buffer> parts);
///     template <detail::string_rvalue S> auto send(S&& text);   // text is a std::string&&
///
/// A plain `send(std::string&&)` would make `send("text")` ambiguous, since a literal converts to a
/// string as well as to a buffer. This template accepts only a non-const rvalue.
template <class T>
concept string_rvalue = std::same_as<T, std::string>;

}}}  // namespace anyio::detail

namespace anyio { inline namespace ANYIO_NET_ABI {

/// A view of writable bytes: a pointer and a size. It does not own the bytes; the caller keeps them alive
/// until the operation that uses the buffer has completed or been destroyed.
///
/// Converts implicitly from non-const lvalues of `std::string`, `std::vector`, `std::array` and arrays, and
/// from any `std::span`, of `char`, `unsigned char` or `std::byte`; always covers the whole container.
class mutable_buffer {
 public:
  /// Constructs an empty buffer.
  constexpr mutable_buffer() noexcept = default;

  /// Views `size` writable bytes at `data`.
  constexpr mutable_buffer(void* data, std::size_t size) noexcept : data_(data), size_(size) {}

  /// Views all of an array.
  template <detail::byte_type T, std::size_t n>
  constexpr mutable_buffer(T (&array)[n]) noexcept : data_(array), size_(n) {}

  /// Views all of a string, a vector, a span or a similar range.
  template <detail::writable_byte_range T>
  constexpr mutable_buffer(T&& range) noexcept
      : data_(range.data()), size_(static_cast<std::size_t>(range.size())) {}

  /// A pointer to the first byte.
  std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  /// The size of the buffer in bytes.
  constexpr std::size_t size() const noexcept { return size_; }
  /// Whether the buffer is empty.
  constexpr bool empty() const noexcept { return size_ == 0; }

  /// Drops the first `n` bytes from the view; `n` is at most size().
  void remove_prefix(std::size_t n) noexcept {
    ANYIO_NET_ASSERT(n <= size_);
    data_ = data() + n;
    size_ -= n;
  }

 private:
  friend class const_buffer;

  void* data_ = nullptr;  // void: a constant expression cannot cast to std::byte*, but can convert to void*
  std::size_t size_ = 0;
};

/// A view of read-only bytes: a pointer and a size. It does not own the bytes; the caller keeps them alive
/// until the operation that uses the buffer has completed or been destroyed.
///
/// Converts implicitly from `std::string_view`, `std::string`, `std::vector`, `std::array`, arrays and
/// `std::span` of `char`, `unsigned char` or `std::byte`, and from a mutable_buffer. For a `const char[N]`
/// the last element is left out if it is NUL, which is right for a literal (NULs inside are kept); a
/// `const char*` extends up to its NUL. All other types are viewed whole, also a non-const `char[N]`.
class const_buffer {
 public:
  /// Constructs an empty buffer.
  constexpr const_buffer() noexcept = default;

  /// Views `size` bytes at `data`.
  constexpr const_buffer(const void* data, std::size_t size) noexcept : data_(data), size_(size) {}

  /// Views the bytes of a mutable_buffer for reading.
  constexpr const_buffer(mutable_buffer bytes) noexcept : data_(bytes.data_), size_(bytes.size_) {}

  /// Views all of an array, without the NUL that ends a literal.
  template <class T, std::size_t n>
    requires detail::byte_type<std::remove_const_t<T>>
  constexpr const_buffer(T (&array)[n]) noexcept : data_(array), size_(n) {
    if constexpr (std::same_as<T, const char>) {
      if (array[n - 1] == '\0') --size_;
    }
  }

  /// Views the text up to its NUL, which is required; `text` is not null. This is a template, because
  /// arrays would select this overload otherwise.
  template <class T>
    requires(std::same_as<T, const char*> || std::same_as<T, char*>)
  constexpr const_buffer(const T& text) noexcept : data_(text), size_(std::char_traits<char>::length(text)) {}

  /// Views all of a string, a vector, a span or a similar range.
  template <detail::byte_range T>
  constexpr const_buffer(T&& range) noexcept
      : data_(range.data()), size_(static_cast<std::size_t>(range.size())) {}

  /// A pointer to the first byte.
  const std::byte* data() const noexcept { return static_cast<const std::byte*>(data_); }
  /// The size of the buffer in bytes.
  constexpr std::size_t size() const noexcept { return size_; }
  /// Whether the buffer is empty.
  constexpr bool empty() const noexcept { return size_ == 0; }

  /// Drops the first `n` bytes from the view; `n` is at most size().
  void remove_prefix(std::size_t n) noexcept {
    ANYIO_NET_ASSERT(n <= size_);
    data_ = data() + n;
    size_ -= n;
  }

 private:
  const void* data_ = nullptr;
  std::size_t size_ = 0;
};

}}  // namespace anyio

// == base/recycler.hpp ============================================================================

// A per-thread cache of freed blocks, in a few sizes.
//
// Coroutine frames, started operations and connections are created and destroyed at a high rate and in few
// sizes. Freed blocks are kept in one list per size class. All memory comes from `operator new`, but in
// steady state no call of it is needed. This part must not know what a block is used for.

#include <new>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

struct recycler_block {
  recycler_block* next;
};

/// The cache of one thread. It is trivial, so that an access needs no initialization guard, and all zero, so
/// that it takes no space in the program file. The first freed block finds no room and goes to
/// `recycler::refuse`, which makes room and registers `recycler::guard` to free the lists at thread exit.
struct recycler_cache {
  static constexpr std::size_t step = 32;
  static constexpr std::size_t largest = 4096;
  static constexpr std::size_t kept_bytes = std::size_t{4} << 20;  // the most that a thread keeps in `lists`

  struct pool {
    recycler_block* list = nullptr;
    std::size_t room = 0;  // how many more blocks fit
  };
  static constexpr std::size_t kept_small = 8192;
  static constexpr std::size_t kept_large = 16;

  recycler_block* lists[largest / step] = {};
  std::size_t room = 0;  // how many more bytes fit
  pool pools[3] = {};
  bool guarded = false;  // room was made; at thread exit the room becomes 0 again
};

/// Lists of blocks by size class, and pools of one block size each. Only the users of a pool take blocks from
/// it, so that the blocks of `loop::reserve` stay available for their purpose.
class recycler {
 public:
  enum pool : unsigned { operations, descriptors, large };
  /// The block size of each pool. A started operation takes a block of the first pool, and a resource of the
  /// loop takes one of the second pool; larger objects take a block by their size. Buffered bytes of a
  /// stream, for instance encrypted ones, take a block of the third pool.
  static constexpr std::size_t block_size_of[] = {512, 152, 32768};

  [[nodiscard]] static void* allocate(std::size_t size) {
    if (size > largest) [[unlikely]]
      return ::operator new(size);
    const std::size_t index = class_of(size);
    if (block* b = cache.lists[index]) {
      cache.lists[index] = b->next;
      cache.room += class_size(index);
      return b;
    }
    return ::operator new(class_size(index));
  }
  static void deallocate(void* memory, std::size_t size) noexcept {
    const std::size_t index = class_of(size);
    if (size > largest || class_size(index) > cache.room) [[unlikely]]
      return refuse(memory, size);
    cache.lists[index] = ::new (memory) block{cache.lists[index]};
    cache.room -= class_size(index);
  }

  [[nodiscard]] static void* allocate(pool from, std::size_t size) {
    if (size > block_size_of[from]) return allocate(size);
    auto& p = cache.pools[from];
    if (block* b = p.list) {
      p.list = b->next;
      ++p.room;
      return b;
    }
    return ::operator new(block_size_of[from]);
  }
  static void deallocate(pool from, void* memory, std::size_t size) noexcept {
    if (size > block_size_of[from]) return deallocate(memory, size);
    auto& p = cache.pools[from];
    if (p.room == 0) [[unlikely]]
      return refuse(from, memory);
    p.list = ::new (memory) block{p.list};
    --p.room;
  }

  /// Whether a freed block for bytes is kept: its size has a size class, or is that of the pool `large`.
  [[nodiscard]] static constexpr bool recycles_bytes(std::size_t size) noexcept {
    return size <= largest || size == block_size_of[large];
  }
  [[nodiscard]] static void* allocate_bytes(std::size_t size) {
    return size == block_size_of[large] ? allocate(large, size) : allocate(size);
  }
  static void deallocate_bytes(void* memory, std::size_t size) noexcept {
    return size == block_size_of[large] ? deallocate(large, memory, size) : deallocate(memory, size);
  }

  /// Blocks for a pool, in addition to those that it keeps anyway. The destructor frees the blocks unless
  /// `put_aside` has moved them to the pool.
  class reservation {
   public:
    reservation(pool in, std::size_t count);
    reservation(const reservation&) = delete;
    reservation& operator=(const reservation&) = delete;
    ~reservation() { free_all(blocks_); }
    void put_aside() noexcept;

   private:
    const pool in_;
    recycler_block* blocks_ = nullptr;
  };

 private:
  using block = recycler_block;
  static constexpr std::size_t step = recycler_cache::step;
  static constexpr std::size_t largest = recycler_cache::largest;
  static constexpr std::size_t kept_bytes = recycler_cache::kept_bytes;

  static inline constinit thread_local recycler_cache cache{};
  struct guard {
    ~guard() { close(); }
  };

  static constexpr std::size_t class_of(std::size_t size) noexcept {
    return size == 0 ? 0 : (size - 1) / step;
  }
  static constexpr std::size_t class_size(std::size_t index) noexcept { return (index + 1) * step; }

  static void refuse(void* memory, std::size_t size) noexcept;
  static void refuse(pool from, void* memory) noexcept;
  static void make_room() noexcept;
  static void free_all(block*& list) noexcept;
  static void close() noexcept;
};

/// A base class for objects in recycled blocks of their size, for instance coroutine promises. A promise may
/// have only these two functions, since overload resolution would try others with the coroutine's arguments.
struct recycled {
  static void* operator new(std::size_t size) { return recycler::allocate(size); }
  static void operator delete(void* p, std::size_t size) noexcept { recycler::deallocate(p, size); }
};

/// A base class like `recycled` for types that may be over-aligned: those bypass the recycler.
struct recycled_aligned : recycled {
  using recycled::operator new;
  using recycled::operator delete;
  static void* operator new(std::size_t size, std::align_val_t a) { return ::operator new(size, a); }
  static void operator delete(void* p, std::align_val_t a) noexcept { ::operator delete(p, a); }
};

/// A base class for objects in blocks of a pool. Over-aligned objects bypass the recycler.
template <recycler::pool From>
struct pooled {
  static void* operator new(std::size_t size) { return recycler::allocate(From, size); }
  static void operator delete(void* p, std::size_t size) noexcept { recycler::deallocate(From, p, size); }
  static void* operator new(std::size_t size, std::align_val_t a) { return ::operator new(size, a); }
  static void operator delete(void* p, std::align_val_t a) noexcept { ::operator delete(p, a); }
};

}}}  // namespace anyio::detail

// == base/byte_queue.hpp ==========================================================================

// A queue of bytes: appended at the end, consumed from the front.
//
// The queue allocates memory when bytes arrive and returns it to the recycler when no bytes are left, so that
// a waiting reader holds no memory. This part must not know where the bytes come from.

namespace anyio { inline namespace ANYIO_NET_ABI {

/// A queue of bytes in one contiguous block of memory. Its size is limited only by the available memory.
class byte_queue {
 public:
  byte_queue() = default;
  byte_queue(const byte_queue&) = delete;
  byte_queue& operator=(const byte_queue&) = delete;
  ~byte_queue() { release(); }

  /// Copies bytes to the end.
  void append(const_buffer bytes);
  /// All bytes of the queue, in order; valid until the next call that is not const.
  [[nodiscard]] std::span<const std::byte> data() const noexcept { return {memory_ + begin_, size()}; }
  /// All bytes of the queue as text; valid until the next call that is not const.
  [[nodiscard]] std::string_view view() const noexcept {
    return {reinterpret_cast<const char*>(memory_) + begin_, size()};
  }
  /// How many bytes the queue holds.
  [[nodiscard]] std::size_t size() const noexcept { return end_ - begin_; }
  /// Whether the queue holds no bytes.
  [[nodiscard]] bool empty() const noexcept { return begin_ == end_; }
  /// Removes the first `n` bytes; `n` is at most `size()`.
  void consume(std::size_t n) noexcept;

  /// Returns room for at least this many bytes at the end; `commit` then says how many were written there.
  [[nodiscard]] mutable_buffer prepare(std::size_t at_least);
  /// Adds the first `n` bytes of the room that `prepare` returned to the queue.
  void commit(std::size_t n) noexcept { end_ += n; }
  /// Copies bytes to the front.
  void put_back(const_buffer bytes);
  /// Releases the memory if the queue is empty.
  void trim() noexcept {
    if (empty()) release();
  }
  /// Whether the queue holds memory; an empty queue may hold none.
  [[nodiscard]] bool has_memory() const noexcept { return memory_ != nullptr; }

  static constexpr std::size_t least = 4096;        ///< the recycler's largest size class
  static constexpr std::size_t kept_limit = 65536;  ///< larger memory is freed once the queue is empty

 private:
  void rearrange(std::size_t front, std::size_t capacity);
  void release() noexcept;

  std::byte* memory_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}}  // namespace anyio

// == base/mutex.hpp ===============================================================================

// A mutex that costs nothing without threads. Only for tables that several loops share: the library's hot
// paths take no lock.

#if !defined(ANYIO_NET_NO_THREADS)
#include <mutex>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

#if !defined(ANYIO_NET_NO_THREADS)
using process_mutex = std::mutex;
using process_lock = std::lock_guard<std::mutex>;
#else
struct process_mutex {};
struct process_lock {
  explicit process_lock(process_mutex&) noexcept {}
  ~process_lock() {}  // so that an unused one causes no warning
};
#endif

}}}  // namespace anyio::detail

// == system/backend.hpp ===========================================================================

// The seam: the interface between the library and the system.
//
// Sockets and the clock go through one abstract class, `backend`; files, names, threads, signals and
// randomness go through its services. No other code makes a system call or reads errno. Each call returns a
// value >= 0 or a negative errno. Only `wait` blocks (and, on a helper thread, `resolve` and `reverse`). The
// other calls do not block even if another process that shares the open file has cleared its O_NONBLOCK;
// `accept` and `connect` need `keep_non_blocking` for this. A backend must not know its callers.

#include <cerrno>
#include <chrono>
#include <vector>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

using duration = std::chrono::nanoseconds;                 ///< the type of durations in members and results
using time_point = std::chrono::steady_clock::time_point;  ///< a time of the loop's clock, see `now`

namespace detail {

/// Returns `base + d`, or the nearest representable time if the sum would overflow.
constexpr time_point add(time_point base, duration d) {
  if (d > duration::zero() && base > time_point::max() - d) return time_point::max();
  if (d < duration::zero() && base < time_point::min() - d) return time_point::min();
  return base + d;
}

/// The state of a descriptor, as `backend::wait` and `poll_now` report it.
enum readiness : std::uint32_t {
  ready_read = 1,  // data, or a connection to accept
  ready_write = 2,
  ready_end = 4,     // end of stream, hang-up or error: read until a call reports it
  ready_urgent = 8,  // out-of-band data divides the readable bytes
};

struct poll_event {
  std::uint64_t token;
  std::uint32_t ready;  // readiness bits
};

/// One message to send or receive, with the fields of `sendmsg` and `recvmsg`.
struct message {
  std::span<const ::iovec> parts;
  sockaddr* address = nullptr;  // destination, or room for the sender
  socklen_t address_size = 0;   // in: size of the room or the address; out: of the sender's address
  void* control = nullptr;
  std::size_t control_size = 0;  // in: room or size; out: received size
  int flags = 0;                 // out: MSG_TRUNC, MSG_CTRUNC
  bool peek = false;             // in: leave the received data in the socket

  /// The size of all parts.
  [[nodiscard]] std::size_t size() const noexcept {
    std::size_t total = 0;
    for (const ::iovec& part : parts) total += part.iov_len;
    return total;
  }
};

/// The control message after `c`, or null. CMSG_NXTHDR of musl compares signed with unsigned.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
inline cmsghdr* next_control(const msghdr& header, cmsghdr* c) noexcept {
  return CMSG_NXTHDR(const_cast<msghdr*>(&header), c);
}
#pragma GCC diagnostic pop

struct file_identity {
  bool is_socket = false;
  bool is_character_device = false;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool is_fifo = false;
};

/// The result of a name look-up: endpoints, or the reason of the failure. `reason` is static text.
struct resolved {
  std::vector<ip_endpoint> endpoints;
  int status = 0;                // 0, or a negative errno (-ENOENT for an error of the resolver)
  const char* reason = nullptr;  // describes an error of the resolver
};

/// Whether a call failed because the system is short of memory, which is temporary.
[[nodiscard]] constexpr bool is_shortage(ssize_t status) noexcept {
  return status == -ENOBUFS || status == -ENOMEM;
}

/// The most calls that one attempt of an operation makes; then other operations have a turn.
inline constexpr int calls_of_attempt = 16;

// --- services: functions that few programs need. A virtual function is linked into every program that uses
// its class, so the services are separate classes, and none of them has a virtual destructor.

/// Name look-ups. `resolve` and `reverse` block, and are called on a helper thread.
class name_service {
 public:
  virtual resolved resolve(const std::string& host, std::uint16_t port, int family) = 0;
  /// Looks up the host and service of an address; the result is numeric where no name is known. 0 or a
  /// negative errno.
  virtual int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) = 0;
  /// Whether the system supports sockets of this family.
  virtual bool has_family(int family) = 0;

 protected:
  ~name_service() = default;
};

/// Calls for files, and for descriptors that the library did not open.
class file_service {
 public:
  /// Makes a descriptor non-blocking and close-on-exec. Returns 1 if it was blocking before, 0 if not, or a
  /// negative errno.
  virtual int adopt(int fd) = 0;
  /// Makes a descriptor blocking again.
  virtual int make_blocking(int fd) = 0;
  /// Makes a received descriptor close-on-exec on systems where the kernel does not do it.
  virtual int set_close_on_exec(int fd) = 0;
  virtual int identify(int fd, file_identity& identity) = 0;
  virtual ssize_t read(int fd, void* data, std::size_t size) = 0;
  virtual ssize_t write(int fd, std::span<const ::iovec> parts) = 0;
  virtual ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) = 0;

 protected:
  ~file_service() = default;
};

/// Moves bytes between sockets inside the kernel, through a pipe. A backend without it refuses to open one.
class splice_service {
 public:
  /// Opens a pipe that is non-blocking and close-on-exec; the first descriptor is the end to read from.
  virtual int open_pipe(int (&fds)[2]) = 0;
  /// Gives a pipe more room, as far as the system allows it.
  virtual void grow_pipe(int pipe) = 0;
  virtual ssize_t splice_in(int socket, int pipe, std::size_t most) = 0;
  virtual ssize_t splice_out(int pipe, int socket, std::size_t most) = 0;

 protected:
  ~splice_service() = default;
};

/// Calls for the paths of UNIX sockets.
class path_service {
 public:
  virtual int identify(const char* path, file_identity& identity) = 0;  // does not follow links
  virtual int change_mode(const char* path, mode_t mode) = 0;
  /// Sets the mode, reduced by the umask, of the file that `bind` will create for this socket. Has no effect
  /// on systems that cannot do it.
  virtual void prepare_mode(int /*fd*/, mode_t /*mode*/) {}
  virtual int unlink(const char* path) = 0;
  /// The absolute path, which stays valid if the working directory changes. Returns the path unchanged if the
  /// working directory is not known.
  virtual std::string absolute(const std::string& path) { return path; }

 protected:
  ~path_service() = default;
};

/// Many datagrams per call. Returns the number of datagrams transferred, or -errno if the first one failed.
class batch_service {
 public:
  /// Sets `emptied` if no more datagrams are there, and the poller will report the next one.
  virtual int receive_messages(int fd, std::span<message> messages, std::span<std::size_t> sizes,
                               bool& emptied) = 0;
  virtual int send_messages(int fd, std::span<const message> messages) = 0;

 protected:
  ~batch_service() = default;
};

/// A batch, one message after the other: `receive` makes one call.
template <class Receive>
int receive_each(std::span<message> messages, std::span<std::size_t> sizes, bool& emptied, Receive receive) {
  int done = 0;
  for (std::size_t i = 0; i < messages.size(); ++i, ++done) {
    const ssize_t n = receive(messages[i]);
    emptied = n == -EAGAIN;
    if (n < 0) return done != 0 ? done : static_cast<int>(n);
    sizes[i] = static_cast<std::size_t>(n);
  }
  return done;
}
/// A batch, one message after the other: `send` makes one call.
template <class Send>
int send_each(std::span<const message> messages, Send send) {
  int done = 0;
  for (const message& m : messages) {
    const ssize_t n = send(m);
    if (n < 0) return done != 0 ? done : static_cast<int>(n);
    ++done;
  }
  return done;
}

/// Helper threads.
class thread_service {
 public:
  /// Whether helper threads may be used. If not, their jobs run on the loop's thread.
  virtual bool uses_threads() const { return true; }
  /// After how many turns of the loop a job runs on the loop's thread; 0 means at once.
  virtual std::size_t turns_before_call() { return 0; }
  /// Runs `body(argument)` on a new detached thread on which all signals are blocked. 0 or -errno.
  virtual int start_thread(void (*body)(void*), void* argument) = 0;

 protected:
  ~thread_service() = default;
};

/// The time and the randomness that certificates and keys need. Not a service of a backend, since TLS engines
/// know none: see `security_of_thread`.
class security_service {
 public:
  /// The current time in seconds since 1970, for the dates of certificates.
  virtual std::int64_t calendar() = 0;
  virtual std::uint64_t entropy() = 0;

 protected:
  ~security_service() = default;
};

/// Signals for one loop. From the first `catch_signal` of a number to its last `release_signal`, an arriving
/// signal wakes the loop (`wait` returns), and `take_signal` then returns true once.
class signal_service {
 public:
  /// Starts to catch a signal; calls are counted per number. 0 or a negative errno.
  virtual int catch_signal(int number) = 0;
  virtual void release_signal(int number) = 0;
  virtual bool take_signal(int number) = 0;
  /// Sets the descriptor through which signals wake the loop from now on.
  virtual void wake_by(int) {}

 protected:
  ~signal_service() = default;
};
/// An owning pointer with its own deleter, since a virtual destructor would be linked into every program.
using signal_service_ptr = std::unique_ptr<signal_service, void (*)(signal_service*)>;

}  // namespace detail

/// The interface to the system. `system_backend()` uses the real system; other backends simulate it or add
/// faults to it.
class backend {
 public:
  backend() = default;
  backend(const backend&) = delete;
  backend& operator=(const backend&) = delete;
  virtual ~backend() = default;

  /// The current time of the clock of all timers.
  virtual time_point now() = 0;

  // --- readiness
  /// Watches both directions of a descriptor, edge-triggered, until `forget`. 0 or a negative errno; -EEXIST
  /// if the descriptor is watched already.
  virtual int watch(int fd, std::uint64_t token) = 0;
  /// Ends the watching that `watch` or `watch_once` began. Called before the descriptor is closed.
  virtual void forget(int fd) = 0;
  /// Watches a descriptor for reading, writing or both, level-triggered. Reports once (some pollers report
  /// once per direction), then nothing until the next call.
  /// `again` says that the descriptor is in the poller already.
  virtual int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) = 0;
  /// Returns the current `readiness` bits of any descriptor, also of a watched one, or -errno.
  virtual int poll_now(int fd, std::uint32_t interest) = 0;
  /// Waits until a descriptor is ready, `wake` is called, or the time is over (negative: no limit).
  /// Returns the number of events, which may be 0 at any time, or -errno.
  virtual int wait(std::span<detail::poll_event> events, duration at_most) = 0;
  /// Ends the current `wait`, or else the next one. The only function that any thread may call.
  virtual void wake() = 0;
  /// A descriptor that is readable when `wait` would return events, for embedding; -1 if there is none.
  virtual int native_handle() const = 0;
  /// Eight bytes written to this descriptor end the current `wait`, or else the next one; a signal handler
  /// uses it. The descriptor changes only in `after_fork`; -1 if there is none.
  virtual int wake_descriptor() const { return -1; }
  /// In the child of fork(2): releases the poller of the parent, and makes a new one that watches nothing.
  /// 0 or a negative errno. Not called for a backend without `native_handle`, which shares nothing.
  virtual int after_fork() { return -ENOTSUP; }

  // --- sockets: close-on-exec, non-blocking, never SIGPIPE
  virtual int open_socket(int family, int type, int protocol) = 0;           ///< socket(2)
  virtual int open_pair(int family, int type, int (&fds)[2]) = 0;            ///< socketpair(2)
  virtual int bind(int fd, const sockaddr* address, socklen_t size) = 0;     ///< bind(2)
  virtual int listen(int fd, int backlog) = 0;                               ///< listen(2)
  virtual int connect(int fd, const sockaddr* address, socklen_t size) = 0;  ///< connect(2)
  virtual int accept(int fd, sockaddr* address, socklen_t* size) = 0;        ///< accept(2)
  /// Makes the descriptor non-blocking again if another process that shares it has made it blocking. Needed
  /// before calls that have no flag such as MSG_DONTWAIT.
  virtual void keep_non_blocking(int) {}
  virtual int shutdown(int fd, int how) = 0;  ///< shutdown(2)
  /// Breaks a connection as the network could break it, as far as the system allows.
  virtual int break_connection(int fd) {
    sockaddr nowhere{};
    nowhere.sa_family = AF_UNSPEC;  // on some systems this resets a TCP connection
    return connect(fd, &nowhere, sizeof nowhere) >= 0 ? 0 : shutdown(fd, SHUT_RDWR);
  }
  /// Closes any descriptor. The number is free afterwards, also if the call returns an error.
  virtual int close(int fd) = 0;
  virtual ssize_t receive(int fd, void* data, std::size_t size) = 0;                      ///< recv(2)
  virtual ssize_t send(int fd, const void* data, std::size_t size) = 0;                   ///< send(2)
  virtual ssize_t receive_message(int fd, detail::message& m) = 0;                        ///< recvmsg(2)
  virtual ssize_t send_message(int fd, const detail::message& m) = 0;                     ///< sendmsg(2)
  virtual int get_option(int fd, int level, int name, void* value, socklen_t* size) = 0;  ///< getsockopt(2)
  virtual int set_option(int fd, int level, int name, const void* value,
                         socklen_t size) = 0;                                  ///< setsockopt(2)
  virtual int local_address(int fd, sockaddr* address, socklen_t* size) = 0;   ///< getsockname(2)
  virtual int remote_address(int fd, sockaddr* address, socklen_t* size) = 0;  ///< getpeername(2)

  // --- this backend's own services; null: the caller uses the service of the system, which is linked only
  // into programs that name it
  virtual detail::name_service* names() { return nullptr; }
  virtual detail::file_service* files() { return nullptr; }
  virtual detail::splice_service* splices() { return nullptr; }
  virtual detail::path_service* paths() { return nullptr; }
  virtual detail::batch_service* batches() { return nullptr; }
  virtual detail::thread_service* threads() { return nullptr; }
  virtual detail::signal_service* signals() { return nullptr; }

  // --- memory
  /// How many bytes of a transfer between streams in memory to move now, at least 1. Less than `wanted` only
  /// with faults.
  virtual std::size_t transfer(std::size_t wanted) { return wanted; }
};

namespace detail {

// --- functions of the system that belong to no loop

/// Counts the calls of fork(2) in the ancestry of this process, from the first loop on; it differs between a
/// child and its parent. Written only in a new child, which has one thread.
inline constinit std::uint32_t forks_so_far = 0;
/// Registers handlers for each later fork(2): the first is called before the fork, the second in the parent
/// and the third in the child (pthread_atfork(3)). A null pointer means no handler.
void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)());
void close_descriptor(int fd) noexcept;
/// Descriptors from this number on belong to a simulation. While it runs, its thread closes them through
/// `close_simulated`.
inline constexpr int first_simulated_descriptor = 1 << 30;
using close_hook = void (*)(int fd) noexcept;
inline constinit thread_local close_hook close_simulated = nullptr;
/// While a simulation runs on this thread: its time and randomness. Null means those of the system.
inline constinit thread_local security_service* security_of_thread = nullptr;
[[nodiscard]] std::int64_t system_calendar() noexcept;
[[nodiscard]] std::uint64_t system_entropy();
/// Reads a whole file. 0 or a negative errno; -EFBIG for a file of more than 16 MiB.
[[nodiscard]] int read_file(const char* path, std::string& content);
/// The path of the system's trust store (a file of CA certificates), null if there is none. The environment
/// variable SSL_CERT_FILE takes precedence.
[[nodiscard]] const char* trust_file();
[[nodiscard]] name_service& system_names() noexcept;
[[nodiscard]] file_service& system_files() noexcept;
[[nodiscard]] splice_service& system_splices() noexcept;
[[nodiscard]] path_service& system_paths() noexcept;
[[nodiscard]] batch_service& system_batches() noexcept;
[[nodiscard]] thread_service& system_threads() noexcept;
/// Makes a service whose signal handlers write to the descriptor. They stop when the service is destroyed. In
/// the child of a fork they do not write before `wake_by` names a descriptor of the child.
[[nodiscard]] signal_service_ptr system_signals(int wake_descriptor);

// --- the services of a loop on this backend

template <class Service>
Service& own_or(Service* own, Service& (*machines)() noexcept) {
  return own != nullptr ? *own : machines();
}
[[nodiscard]] inline name_service& names_of(backend& b) { return own_or(b.names(), system_names); }
[[nodiscard]] inline file_service& files_of(backend& b) { return own_or(b.files(), system_files); }
[[nodiscard]] inline splice_service& splices_of(backend& b) { return own_or(b.splices(), system_splices); }
[[nodiscard]] inline path_service& paths_of(backend& b) { return own_or(b.paths(), system_paths); }
[[nodiscard]] inline batch_service& batches_of(backend& b) { return own_or(b.batches(), system_batches); }
[[nodiscard]] inline thread_service& threads_of(backend& b) { return own_or(b.threads(), system_threads); }

}  // namespace detail

/// Makes the backend of this system: epoll on Linux, kqueue on the BSDs and macOS. Null if the poller cannot
/// be created (out of descriptors).
[[nodiscard]] std::unique_ptr<backend> system_backend();

}}  // namespace anyio

// == system/unique_fd.hpp =========================================================================

// An owner of a descriptor.

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Owns a descriptor of any kind, and closes it when destroyed.
class unique_fd {
 public:
  unique_fd() = default;
  /// Takes ownership of the descriptor; -1 means none.
  explicit unique_fd(int fd) noexcept : fd_(fd) {}
  unique_fd(unique_fd&& other) noexcept : fd_(other.release()) {}
  unique_fd& operator=(unique_fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~unique_fd() { reset(); }

  /// The descriptor, -1 if there is none.
  [[nodiscard]] int get() const noexcept { return fd_; }
  /// Gives up ownership: the caller closes the descriptor.
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  /// Closes the descriptor, if there is one, and takes ownership of another.
  void reset(int fd = -1) noexcept {
    const int old = std::exchange(fd_, fd);
    if (old >= 0) detail::close_descriptor(old);
  }
  /// Whether there is a descriptor.
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}}  // namespace anyio

// == system/new_socket.hpp ========================================================================

// Sockets by their descriptor: addresses, options, and the steps in which one is made or taken over.
//
// All kinds of sockets share these helpers, so that the same step has the same name in errors everywhere.
// This part must not know what a socket is used for.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// An address in the kernel's form, or room for one.
struct socket_address {
  sockaddr_storage storage;  // only the first `size` bytes are set
  socklen_t size = sizeof storage;

  socket_address() noexcept {}  // the storage stays as it is, since a call fills it
  explicit socket_address(const ip_endpoint& e) noexcept : size(write_sockaddr(e, storage)) {}
  /// The address in the form that a socket of this family needs, see `fill_address`.
  socket_address(const ip_endpoint& e, int family) noexcept { set(e, family); }
  void set(const ip_endpoint& e, int family) noexcept { size = fill_address(e, family, storage); }

  [[nodiscard]] sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  /// The IP endpoint; 0.0.0.0:0 if it is no IP address.
  [[nodiscard]] ip_endpoint endpoint() const noexcept {
    const result<ip_endpoint> r = ip_endpoint::from_sockaddr(get(), size);
    return r ? *r : ip_endpoint();
  }
  /// The path of a UNIX socket; empty if it has none.
  [[nodiscard]] std::string path() const { return unix_path(get(), size); }
};

/// Reads the address of this end, or of the peer. 0 or a negative errno; then the size is 0.
int read_address(backend& system, int fd, socket_address& out, bool of_peer = false);
/// The address of this end; empty if the call fails.
[[nodiscard]] inline socket_address local_address_of(backend& system, int fd) {
  socket_address a;
  read_address(system, fd, a);
  return a;
}
/// The address of the peer; empty if there is none.
[[nodiscard]] inline socket_address remote_address_of(backend& system, int fd) {
  socket_address a;
  read_address(system, fd, a, true);
  return a;
}

/// getsockopt(2). 0 or a negative errno; the value is left as it is where the system writes nothing.
template <class T>
int read_option(backend& system, int fd, int level, int name, T& value) {
  socklen_t size = sizeof value;
  return system.get_option(fd, level, name, &value, &size);
}
/// setsockopt(2). 0 or a negative errno.
template <class T>
int write_option(backend& system, int fd, int level, int name, const T& value) {
  return system.set_option(fd, level, name, &value, sizeof value);
}

/// A socket that is made step by step. After a step that failed, the later ones do nothing.
class new_socket {
 public:
  new_socket(backend& system, int family, int type) : system_(system) {
    step("socket", [&] {
      fd_.reset(system_.open_socket(family, type, 0));
      return fd_.get();
    });
  }

  /// One step, which gives a negative errno if it fails. `name` is static text, for the error.
  template <class Call>
  void step(const char* name, Call call) {
    if (status_ < 0) return;
    name_ = name;
    status_ = call();
  }
  void set_option(int level, int name, int value) {
    step("set_option", [&] { return write_option(system_, fd(), level, name, value); });
  }
  /// Calls the user's function, which returns 0 or an errno.
  void prepare(int (*function)(int fd, void* data), void* data);
  void bind(const socket_address& to) {
    step("bind", [&] { return system_.bind(fd(), to.get(), to.size); });
  }
  void connect(const sockaddr* to, socklen_t size) {
    step("connect", [&] { return system_.connect(fd(), to, size); });
  }
  void listen(int backlog) {
    step("listen", [&] { return system_.listen(fd(), backlog); });
  }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] bool failed() const noexcept { return status_ < 0; }
  [[nodiscard]] error failure() const noexcept { return error(errc::os_error, -status_, name_); }
  /// Gives up the descriptor, which has an owner now.
  void taken_over() noexcept { static_cast<void>(fd_.release()); }

 private:
  backend& system_;
  unique_fd fd_;
  const char* name_ = "";
  int status_ = 0;
};

/// The requirements of a `from_fd` function on a descriptor.
struct wanted_socket {
  const char* what;  // the prefix of the error: "tcp_stream"
  bool is_unix;
  int type;
  bool connected;
  bool listening = false;
  bool any_family = false;  // then `is_unix` is ignored
};
/// The facts that `adopt_socket` found about a descriptor.
struct adopted_socket {
  socket_address local;
  socket_address remote;  // empty unless a connected socket was wanted
  bool was_blocking = false;
  int broken = 0;  // the errno that ended the connection, which the kernel reports only once
};
/// Checks that a descriptor is such a socket, and then makes it non-blocking and close-on-exec. On failure it
/// is unchanged.
[[nodiscard]] result<adopted_socket> adopt_socket(backend& system, int fd, const wanted_socket& wanted);
/// The `invalid_argument` of a `from_fd` function.
[[nodiscard]] inline error refusal_of(const char* what, int error_number, const char* reason) noexcept {
  return error_access::with_reason(error(errc::invalid_argument, error_number, what), reason);
}
/// The type of a socket; a negative errno for a descriptor that is no socket; an error for none at all.
[[nodiscard]] result<int> type_of_socket(backend& system, int fd, const char* what);

}}}  // namespace anyio::detail

// == system/posix_backend.hpp =====================================================================

// The part of the backend that all POSIX systems share.
//
// Sockets, the clock and the services are nearly the same on all systems, and the few differences are handled
// here, so that the backend of a system adds only its poller. This part must not know how a poller waits: a
// signal wakes it through a descriptor.

#include <atomic>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class posix_backend : public backend {
 public:
  ANYIO_NET_FN time_point now() override;
  ANYIO_NET_FN int poll_now(int fd, std::uint32_t interest) override;

  ANYIO_NET_FN int open_socket(int family, int type, int protocol) override;
  ANYIO_NET_FN int open_pair(int family, int type, int (&fds)[2]) override;
  ANYIO_NET_FN int bind(int fd, const sockaddr* address, socklen_t size) override;
  ANYIO_NET_FN int listen(int fd, int backlog) override;
  ANYIO_NET_FN int connect(int fd, const sockaddr* address, socklen_t size) override;
  ANYIO_NET_FN int accept(int fd, sockaddr* address, socklen_t* size) override;
  ANYIO_NET_FN void keep_non_blocking(int fd) override;
  ANYIO_NET_FN int shutdown(int fd, int how) override;
  ANYIO_NET_FN int close(int fd) override;
  ANYIO_NET_FN ssize_t receive(int fd, void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t send(int fd, const void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t receive_message(int fd, message& m) override;
  ANYIO_NET_FN ssize_t send_message(int fd, const message& m) override;
  ANYIO_NET_FN int get_option(int fd, int level, int name, void* value, socklen_t* size) override;
  ANYIO_NET_FN int set_option(int fd, int level, int name, const void* value, socklen_t size) override;
  ANYIO_NET_FN int local_address(int fd, sockaddr* address, socklen_t* size) override;
  ANYIO_NET_FN int remote_address(int fd, sockaddr* address, socklen_t* size) override;
};

class posix_names : public name_service {
 public:
  ANYIO_NET_FN resolved resolve(const std::string& host, std::uint16_t port, int family) override;
  ANYIO_NET_FN int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) override;
  ANYIO_NET_FN bool has_family(int family) override;

 protected:
  ~posix_names() = default;

 private:
  std::atomic<signed char> has_ipv4_{-1};  // -1: not known yet
  std::atomic<signed char> has_ipv6_{-1};
};

class posix_files : public file_service {
 public:
  ANYIO_NET_FN int adopt(int fd) override;
  ANYIO_NET_FN int make_blocking(int fd) override;
  ANYIO_NET_FN int set_close_on_exec(int fd) override;
  ANYIO_NET_FN int identify(int fd, file_identity& identity) override;
  ANYIO_NET_FN ssize_t read(int fd, void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t write(int fd, std::span<const ::iovec> parts) override;
  ANYIO_NET_FN ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override;

 protected:
  ~posix_files() = default;
};

class posix_splices : public splice_service {
 public:
  ANYIO_NET_FN int open_pipe(int (&fds)[2]) override;
  ANYIO_NET_FN void grow_pipe(int pipe) override;
  ANYIO_NET_FN ssize_t splice_in(int socket, int pipe, std::size_t most) override;
  ANYIO_NET_FN ssize_t splice_out(int pipe, int socket, std::size_t most) override;

 protected:
  ~posix_splices() = default;
};

class posix_paths : public path_service {
 public:
  ANYIO_NET_FN int identify(const char* path, file_identity& identity) override;
  ANYIO_NET_FN int change_mode(const char* path, mode_t mode) override;
  ANYIO_NET_FN void prepare_mode(int fd, mode_t mode) override;
  ANYIO_NET_FN int unlink(const char* path) override;
  ANYIO_NET_FN std::string absolute(const std::string& path) override;

 protected:
  ~posix_paths() = default;
};

class posix_batches : public batch_service {
 public:
  ANYIO_NET_FN int receive_messages(int fd, std::span<message> messages, std::span<std::size_t> sizes,
                                    bool& emptied) override;
  ANYIO_NET_FN int send_messages(int fd, std::span<const message> messages) override;

 protected:
  ~posix_batches() = default;
};

class posix_threads : public thread_service {
 public:
  ANYIO_NET_FN bool uses_threads() const override;
  ANYIO_NET_FN int start_thread(void (*body)(void*), void* argument) override;

 protected:
  ~posix_threads() = default;
};

/// Makes a descriptor non-blocking and close-on-exec, and disables SIGPIPE on systems where that is a
/// property of the descriptor. Returns 1 if it was blocking before, 0 if not, or a negative errno.
[[nodiscard]] int adopt_descriptor(int fd) noexcept;
/// Opens a socket that is non-blocking and close-on-exec. Returns the descriptor or a negative errno.
[[nodiscard]] int open_posix_socket(int family, int type, int protocol) noexcept;

/// Converts readiness bits to the bits of poll(2).
[[nodiscard]] short poll_interest(std::uint32_t readiness_bits) noexcept;

/// Converts the bits of poll(2) to readiness bits. A hang-up or an error wakes both directions, and the next
/// call reports which it is. The end of the peer's data does not wake writers.
[[nodiscard]] std::uint32_t readiness_of_poll(unsigned events) noexcept;

}}}  // namespace anyio::detail

// == tls/engine/tls.hpp ===========================================================================

// TLS in this library: a hook for engines.
//
// A context holds credentials and makes engines, one per connection. An engine turns plaintext into records
// and back with five calls, over a pipe in memory. It has no socket and no loop, and calls nothing back, so
// any TLS library can serve as one, over any byte stream, and can be tested without a network. The driver of
// the engine waits, reads and sends for it. This part must not know a TLS library.

namespace anyio { inline namespace ANYIO_NET_ABI {

/// The memory between an engine and the connection below it. It outlives the engine and never moves.
class tls_pipe {
 public:
  /// Bytes that were received and not taken yet. The engine takes from the front: `rx = rx.subspan(k)`.
  std::span<const std::byte> rx;
  /// No more bytes follow those in `rx`.
  bool rx_eof = false;
  /// The engine sets this when it asked for more bytes than `rx` had.
  bool starved = false;
  /// The bytes to send. The engine appends, in any call and also if the call fails; this never fails for lack
  /// of room.
  byte_queue tx;
  /// This many bytes at the end of `tx` need not be sent before the bytes that follow them. A server's engine
  /// sets it for tickets when its handshake is complete: tickets would reset the connection of a client that
  /// has sent its data and closed.
  std::size_t may_wait = 0;
};

/// The outcome of an engine call.
enum class tls_status : std::uint8_t {
  ok,          ///< the call made progress
  want_input,  ///< the engine needs more bytes in `rx`
  closed,      ///< the peer's close_notify was received
  truncated,   ///< `rx_eof` without a close_notify
  again,       ///< no progress: call again, without waiting for input
  failed,      ///< permanent failure, see `last_error`; an alert for the peer may be in `tx`
};

/// The parameters that the handshake agreed on.
class tls_info {
 public:
  tls_info() noexcept {}

  std::string version;               ///< "TLSv1.2" or "TLSv1.3"
  std::string cipher;                ///< IANA's name, "TLS_AES_128_GCM_SHA256"
  std::string alpn;                  ///< the protocol, empty if none was agreed
  std::string server_name;           ///< the name the client asked for (RFC 6066), also at the client
  std::string peer_certificate_der;  ///< empty if the peer sent none
  bool server_side = false;          ///< whether this end is the server
  bool resumed = false;              ///< whether an earlier session was resumed
};

/// One end of a connection. Its driver makes one call at a time, makes no call after `failed`, and does not
/// call `write` after `close`.
class tls_engine {
 public:
  virtual ~tls_engine() = default;

  /// Returns `ok` once the handshake is complete; until then no plaintext is read or written.
  virtual tls_status handshake() = 0;
  /// Reads plaintext into a buffer that is not empty; `ok` means n >= 1.
  virtual tls_status read(mutable_buffer into, std::size_t& n) = 0;
  /// Takes some of the plaintext, which is not empty; `ok` means n >= 1. The bytes that it took are in `tx`
  /// on return, so the next call may pass other bytes.
  virtual tls_status write(const_buffer data, std::size_t& n) = 0;
  /// Appends a close_notify to `tx`; reading remains possible.
  virtual tls_status close() = 0;
  /// Whether the engine holds plaintext, so that `read` needs no input.
  [[nodiscard]] virtual bool pending() const = 0;
  /// The parameters of the connection; complete after the handshake.
  [[nodiscard]] virtual tls_info info() const = 0;
  /// Why the engine failed, as text for a person. It contains no secrets.
  [[nodiscard]] virtual std::string last_error() const = 0;
};

/// Whether the peer must prove its identity.
enum class tls_verify : std::uint8_t {
  none,      ///< accepts any peer: for tests
  optional,  ///< for clients: the certificate may be missing, but not wrong
  peer,
};

/// TLS 1.2 (RFC 5246) and 1.3 (RFC 8446).
enum class tls_version : std::uint8_t { v1_2, v1_3 };

/// Credentials and rules, shared by many connections. Text is PEM. Of each pair only one may be given; a
/// private key may be in the same text as its certificate. Without `ca_*` a client trusts the system's
/// authorities. The function that takes a configuration reads all of it before it returns; copies of keys and
/// passwords are overwritten after use.
struct tls_config {
  std::string_view ca_file = {};                ///< the trusted authorities
  std::string_view ca_pem = {};                 ///< the trusted authorities, as text
  std::string_view certificate_file = {};       ///< the own certificate, then the chain to the authority
  std::string_view certificate_pem = {};        ///< the certificates, as text
  std::string_view private_key_file = {};       ///< the key of the own certificate
  std::string_view private_key_pem = {};        ///< the private key, as text
  std::string_view private_key_password = {};   ///< for an encrypted key
  std::span<const std::string_view> alpn = {};  ///< protocols (RFC 7301), the preferred one first
  tls_verify verify = tls_verify::peer;         ///< client only: what it requires of the server
  /// Server only: what it requires of clients. Needs `ca_*` (`invalid_argument` without), because the
  /// system's authorities sign for anyone.
  tls_verify verify_client = tls_verify::none;
  tls_version min_version = tls_version::v1_2;  ///< rejects older versions
};

/// The hook: credentials that make engines. Loops in several threads may share a context.
class tls_context {
 public:
  virtual ~tls_context() = default;

  /// Makes an engine for a client. The name is used for SNI and to verify the server, an address only to
  /// verify it. A certificate must have either of them in its subjectAltName; its common name is ignored (RFC
  /// 9525). Returns null if the server is to be verified and there is no name, or an impossible one.
  virtual std::unique_ptr<tls_engine> client(tls_pipe& pipe, std::string_view server_name) = 0;
  /// Makes an engine for a server. Returns null without a certificate.
  virtual std::unique_ptr<tls_engine> server(tls_pipe& pipe) = 0;
  /// Adds a certificate, which a server shows to clients that ask for this name; the first label may be a
  /// wildcard, "*.example.org". Uses only certificate and private key of the configuration. Must be called
  /// before the first connection.
  virtual result<> add_certificate(std::string_view server_name, const tls_config& config);
};

/// Options of one TLS connection.
struct tls_options {
  std::string_view server_name = {};  ///< client only: the name of the server
  /// Whether both ends must send a close_notify before the connection ends. If not, a missing close_notify is
  /// an end of stream, and this end sends none.
  bool standard_compatible = true;
  std::chrono::milliseconds handshake_timeout = std::chrono::seconds(10);  ///< then raises `timed_out`
};

namespace detail {

/// An error with the engine's own text, which is kept for as long as the program runs. There are few such
/// texts, since they come from a library's tables.
[[nodiscard]] error tls_failure(const char* operation, std::string_view reason);

}  // namespace detail

}}  // namespace anyio

// == tls/engine/tls_credentials.hpp ===============================================================

// The part of a configuration that every engine handles alike: its texts and their errors, names of servers,
// sessions to resume. So the same mistake has the same error text with every TLS library. This part must not
// know a TLS library.

#include <algorithm>
#include <iterator>
#include <list>
#include <optional>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// A text of a configuration, and its field as errors name it: "tls: ca_file".
struct tls_text {
  std::string text;
  const char* field = "";

  [[nodiscard]] bool given() const noexcept { return *field != '\0'; }
  /// An `errc::tls` error that names the field; `reason` is static text.
  [[nodiscard]] error wrong(const char* reason) const noexcept {
    // The analyzer cannot follow the move of a result that holds this.
    // NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage)
    return error_access::with_reason(error(errc::tls, 0, field), reason);
  }
};

/// A configuration, with its files read. The destructor overwrites the secrets.
class tls_material {
 public:
  tls_material() = default;
  tls_material(tls_material&&) = default;
  tls_material& operator=(tls_material&&) = delete;
  ~tls_material();

  tls_text ca;           // not given: the system's authorities
  tls_text certificate;  // not given: none
  tls_text private_key;  // given if the certificate is; may be the certificate's text
  std::string password;
  std::vector<std::string> alpn;
  tls_verify verify = tls_verify::peer;
  tls_verify verify_client = tls_verify::none;
  tls_version min_version = tls_version::v1_2;
};

/// Reads the files of a configuration. The TLS library checks the contents of the texts.
[[nodiscard]] result<tls_material> read_material(const tls_config& config);
/// Reads a configuration for `add_certificate`: certificate and name are required. Removes the name's
/// trailing dot.
[[nodiscard]] result<tls_material> read_further_material(std::string& server_name, const tls_config& config);
/// Reads the authorities that the system trusts; empty if there is no such file.
[[nodiscard]] std::string read_system_trust();

/// The errors of texts and certificates, with the same text for every library.
namespace tls_reason {
inline constexpr const char* no_certificate = "contains no certificate";
inline constexpr const char* bad_certificate = "contains a certificate that cannot be read";
inline constexpr const char* no_private_key = "contains no private key";
inline constexpr const char* bad_private_key = "contains a private key that cannot be read";
inline constexpr const char* password_missing = "a password is required: the private key is encrypted";
inline constexpr const char* password_wrong = "wrong password";
inline constexpr const char* other_private_key = "the private key does not belong to the certificate";
inline constexpr const char* version_missing = "this TLS library does not support that version";

inline constexpr const char* expired = "the peer's certificate has expired";
inline constexpr const char* not_yet_valid = "the peer's certificate is not valid yet";
inline constexpr const char* self_signed = "the peer's certificate is self-signed and not trusted";
inline constexpr const char* unknown_authority = "the peer's certificate is from an unknown authority";
inline constexpr const char* other_name = "the peer's certificate is for another name";
inline constexpr const char* other_purpose = "the peer's certificate is for another purpose";
inline constexpr const char* weak = "the peer's certificate has a key or a signature that is too weak";
inline constexpr const char* revoked = "the peer's certificate has been revoked";
inline constexpr const char* unverified = "the peer's certificate cannot be verified";
inline constexpr const char* none_shown = "the peer sent no certificate";
inline constexpr const char* not_tls = "the peer sent data that is not TLS";
inline constexpr const char* bad_record = "TLS record corrupted";
inline constexpr const char* many_warnings = "the peer sent too many warning alerts";
}  // namespace tls_reason

/// The text for the number of an alert (RFC 8446, section 6): "the peer sent the alert handshake_failure".
[[nodiscard]] const char* alert_reason(int description) noexcept;

/// The server to which a client connects.
struct tls_server_identity {
  std::string name;                   // for SNI; empty for an address
  std::optional<ip_address> address;  // without a scope

  [[nodiscard]] bool known() const noexcept { return !name.empty() || address.has_value(); }
};
/// Parses an address, or a name without its trailing dot; neither is set if the text cannot be a host name.
[[nodiscard]] tls_server_identity parse_server_name(std::string_view server_name);
/// The key under which a client keeps sessions; empty for an unknown server. Names and addresses never share
/// a key.
[[nodiscard]] std::string session_key(const tls_server_identity& server);
/// Whether a name, whose first label may be "*", covers a host (RFC 9525, section 6.3).
[[nodiscard]] bool covers_name(std::string_view pattern, std::string_view host) noexcept;

/// Draws random bytes, from the simulation if one runs on this thread, so that it repeats them.
void draw_random(void* into, std::size_t size);
/// Seconds since 1970, from the simulation if one runs on this thread.
[[nodiscard]] std::int64_t calendar_now();

/// Sessions that clients may resume: the latest one of each recently used server. Any thread may use it.
template <class Session>
class tls_sessions {
 public:
  void put(const std::string& server, Session session) {
    constexpr std::size_t most = 64;
    if (server.empty()) return;
    const process_lock lock(mutex_);
    forget(server);
    sessions_.emplace_front(server, std::move(session));
    if (sessions_.size() > most) sessions_.pop_back();
  }
  /// Removes and returns a session: a TLS 1.3 ticket should be used only once (RFC 8446, appendix C.4).
  [[nodiscard]] std::optional<Session> take(const std::string& server) {
    const process_lock lock(mutex_);
    for (auto i = sessions_.begin(); i != sessions_.end(); ++i) {
      if (i->first != server) continue;
      std::optional<Session> found(std::move(i->second));
      sessions_.erase(i);
      return found;
    }
    return {};
  }

 private:
  void forget(const std::string& server) {
    for (auto i = sessions_.begin(); i != sessions_.end();)
      i = i->first == server ? sessions_.erase(i) : std::next(i);
  }

  process_mutex mutex_;
  std::list<std::pair<std::string, Session>> sessions_;
};

/// Takes received bytes out of the pipe. Returns how many, and notes if there were fewer than asked for.
inline std::size_t take_received(tls_pipe& pipe, void* into, std::size_t size) noexcept {
  const std::size_t n = std::min(size, pipe.rx.size());
  if (n < size) pipe.starved = true;
  if (n != 0) std::memcpy(into, pipe.rx.data(), n);
  pipe.rx = pipe.rx.subspan(n);
  return n;
}

/// The base of a context: the part that is alike for every TLS library. `Certificate` is a certificate with
/// its key, and has the `name` of its server. Members of Derived:
///   turn                                  held during calls of the library
///   result<> set_up(tls_material&)        called once, before any other function
///   result<> read(Certificate&, const tls_material&)
///   void trust(const std::string&)        trusts all authorities of a text that can be read
///   std::unique_ptr<Engine> make_engine(tls_pipe&, tls_server_identity&&, bool server_side)   or null
///
/// Derived allows only these in TLS 1.2: ephemeral keys on curves, so that a key that is stolen later
/// decrypts nothing, and ciphers that authenticate what they encrypt. CBC ciphers have been broken by timing
/// (Lucky 13), and a peer that has one with SHA-256 also has one with GCM: RFC 5289 introduced both. And in
/// no version a finite-field group: one replayed hello of a client would cost the server a long computation
/// (D(HE)at, CVE-2002-20001).
template <class Derived, class Certificate, class Session>
class tls_credentials : public tls_context, public std::enable_shared_from_this<Derived> {
 public:
  static result<std::shared_ptr<tls_context>> make(const tls_config& config) {
    const typename Derived::turn turn;
    result<tls_material> material = read_material(config);
    if (!material) return material.error();
    const auto made = std::make_shared<Derived>();
    made->verify = material->verify;
    made->verify_client = material->verify_client;
    made->has_certificate_ = material->certificate.given();
    made->system_trust_ = !material->ca.given();
    if (result<> r = made->set_up(*material); !r) return r.error();
    return std::shared_ptr<tls_context>(made);
  }

  std::unique_ptr<tls_engine> client(tls_pipe& pipe, std::string_view server_name) override {
    const typename Derived::turn turn;
    tls_server_identity server = parse_server_name(server_name);
    if (verify != tls_verify::none) {
      if (!server.known()) return nullptr;
      trust_system();
    }
    return derived().make_engine(pipe, std::move(server), false);
  }
  std::unique_ptr<tls_engine> server(tls_pipe& pipe) override {
    const typename Derived::turn turn;
    if (!has_certificate_) return nullptr;
    return derived().make_engine(pipe, tls_server_identity(), true);
  }
  result<> add_certificate(std::string_view server_name, const tls_config& config) override {
    const typename Derived::turn turn;
    std::string name(server_name);
    const result<tls_material> material = read_further_material(name, config);
    if (!material) return material.error();
    std::list<Certificate> added(1);  // the library may refer to its address
    added.front().name = std::move(name);
    result<> r = derived().read(added.front(), *material);
    if (r) further_.splice(further_.end(), added);
    return r;
  }

  /// The certificate for a name that a client asks for; null means the main one. An exact name has priority
  /// over a wildcard.
  [[nodiscard]] Certificate* further(std::string_view host) noexcept {
    Certificate* found = nullptr;
    for (Certificate& certificate : further_) {
      if (!covers_name(certificate.name, host)) continue;
      if (!certificate.name.starts_with("*.")) return &certificate;
      if (found == nullptr) found = &certificate;
    }
    return found;
  }

  tls_sessions<Session> sessions;
  tls_verify verify = tls_verify::peer;
  tls_verify verify_client = tls_verify::none;

 private:
  Derived& derived() noexcept { return static_cast<Derived&>(*this); }
  /// Reads the system's authorities, once, unless others are given.
  void trust_system() {
    const process_lock lock(trust_mutex_);
    if (!system_trust_) return;
    derived().trust(read_system_trust());
    system_trust_ = false;
  }

  std::list<Certificate> further_;
  bool has_certificate_ = false;
  bool system_trust_ = false;
  process_mutex trust_mutex_;
};

}}}  // namespace anyio::detail

// == tls/mbedtls/tls_mbedtls.hpp ==================================================================

// mbedTLS, with ANYIO_NET_MBEDTLS defined.

#if defined(ANYIO_NET_MBEDTLS)

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Makes a context for mbedTLS, 2.28 or 3.2 and later (not 4). Link with -lmbedtls -lmbedx509 -lmbedcrypto.
/// An error in the configuration names its field: "tls: private_key_file: no such file (ENOENT)". mbedTLS
/// 2.28 supports only TLS 1.2.
[[nodiscard]] result<std::shared_ptr<tls_context>> mbedtls_context(tls_config config = {});

}}  // namespace anyio

#endif

// == tls/openssl/tls_openssl.hpp ==================================================================

// OpenSSL, with ANYIO_NET_OPENSSL defined.

#if defined(ANYIO_NET_OPENSSL)

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Makes a context for OpenSSL 3. Link with -lssl -lcrypto. An error in the configuration names its field:
/// "tls: private_key_file: no such file (ENOENT)".
[[nodiscard]] result<std::shared_ptr<tls_context>> openssl_context(tls_config config = {});

}}  // namespace anyio

#endif

// == loop/ready_list.hpp ==========================================================================

// Nodes of the loop, and their lists.
//
// A node is anything that the loop can run: an operation, a started task, a posted call. It is in at most
// one list at a time, the loop's ready list or its list of waiting nodes, and unlinks itself in O(1) from
// any list. Its face says how it is run and who receives its result. This part must not know what an
// operation does.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class loop_core;
struct node;

/// An element of a circular list; an unlinked element points to itself.
struct link {
  link* previous = this;
  link* next = this;

  link() = default;
  link(const link&) = delete;
  link& operator=(const link&) = delete;
  ~link() { leave(); }

  [[nodiscard]] bool linked() const noexcept { return next != this; }
  void unlink() noexcept {
    previous->next = next;
    next->previous = previous;
    previous = next = this;
  }
  /// Unlinks it if it is linked: most elements that are destroyed or queued are not.
  [[gnu::always_inline]] void leave() noexcept {
    if (linked()) unlink();
  }
  /// Inserts an unlinked element before this one; before the head of a list means at the end of the list.
  void insert_before(link& element) noexcept {
    element.previous = previous;
    element.next = this;
    previous->next = &element;
    previous = &element;
  }
  /// Moves all elements of another list to the end of this one.
  void splice(link& other) noexcept {
    if (!other.linked()) return;
    previous->next = other.next;
    other.next->previous = previous;
    other.previous->next = this;
    previous = other.previous;
    other.previous = other.next = &other;
  }
};

/// The description of a node in `loop::dump`.
struct description {
  const char* operation;
  int fd = -1;
};

/// The functions that run and describe a node, and return its owner. This table is used instead of virtual
/// functions, since it can differ at each start.
struct face {
  void (*run)(node&);
  void (*abandon)(node&);  // the loop ends: destroy the callable without a call
  node* (*owner)(node&);   // the node that waits for it, null at the end of the chain
  description (*describe)(node&);
};

/// An object that the loop can run. It is pending from `begin` to `retire`; only an idle node may be moved.
struct node : link {
  const face* how = nullptr;
  loop_core* core = nullptr;  // set while pending
  std::uint32_t since = 0;    // milliseconds of the loop's clock, for dump
  errc early = errc::ok;      // an error that was found when the node began
  bool attempted = false;     // the awaiting task tried in vain: an event will queue it
  bool again = false;         // an attempt stopped to let others run: no event will arrive
  bool made = false;          // for operations of a resource: false if only declared
  bool yields = false;        // holds the place of a reader or writer only until another takes it
  // `begin` clears these four; side by side that is one store.
  bool cancelled = false;  // make one more attempt, then end as cancelled
  bool finished = false;   // the outcome is available, and will be taken soon
  bool queued = false;     // in the ready list, if it is in a list; not parked
  bool awaited = false;    // by a coroutine, not by a callable

  node() = default;
  node(node&& other) noexcept : link(), made(other.made) {
    ANYIO_NET_ASSERT(!other.pending() && "a pending operation cannot be moved");
  }
  node& operator=(node&& other) noexcept {
    ANYIO_NET_ASSERT(!other.pending() && "a pending operation cannot be moved");
    retire();
    made = other.made;
    return *this;
  }
  ~node() { retire(); }

  [[nodiscard]] bool pending() const noexcept { return core != nullptr; }
  void begin(loop_core& on, const face& f) noexcept;
  void retire() noexcept;
};

}}}  // namespace anyio::detail

// == loop/resource.hpp ============================================================================

// What operations belong to, and the counted pointer to it. The functions that need the loop itself stand in
// loop.hpp. This part must not know what a resource is used for.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

enum side : unsigned { read_side, write_side };

/// The object that operations belong to, for instance a socket. One reader and one writer may wait on it. It
/// is reference-counted, so that a stream may be moved or destroyed while operations of it exist. All
/// resources take blocks of one size, so that `loop::reserve` serves every kind.
class resource : public pooled<recycler::descriptors> {
 public:
  explicit resource(loop_core& core);
  resource(const resource&) = delete;
  resource& operator=(const resource&) = delete;
  ANYIO_NET_FN virtual ~resource();

  [[nodiscard]] loop_core& core() const noexcept { return core_; }
  [[nodiscard]] bool open() const noexcept;
  /// Whether the resource is closed completely: `close` was called, or the loop is gone.
  [[nodiscard]] bool gone() const noexcept;
  [[nodiscard]] node* waiting(side s) const noexcept { return waiting_[s]; }
  void set_waiting(side s, node* n) noexcept { waiting_[s] = n; }
  [[nodiscard]] virtual int descriptor() const noexcept { return -1; }

  /// Closes the resource at once; its waiting operations are queued and will find it closed. Calling `close`
  /// again has no effect.
  void close() noexcept;
  /// Closes the resource for its users, and queues its waiting operations. Its descriptor stays open until
  /// `close`.
  void begin_closing() noexcept;
  /// Cancels the waiting operations: each makes one more attempt and then ends with `errc::cancelled`.
  void cancel() noexcept;
  /// Handles readiness bits from the poller.
  void ready(std::uint32_t bits) noexcept;
  void wake(side s) noexcept;
  /// Called after a waiting operation was withdrawn.
  virtual void withdrawn(side) noexcept {}

  /// Per side: an attempt would only return EAGAIN until the poller reports readiness, so none is needed.
  bool exhausted[2] = {false, false};
  /// Whether `exhausted` holds for every kind of receive, which then starts by waiting for the poller.
  bool poller_tells = false;
  /// No further event may arrive: continue to read until the end of the stream.
  bool read_to_end = false;
  /// Each wait adds the descriptor to the poller again; otherwise it stays there until the resource closes.
  bool entered_by_waits = false;

 protected:
  /// Closes the descriptor and releases other resources of the system. Called once.
  virtual void shut() noexcept = 0;

 private:
  template <class T>
  friend class ref;
  friend class loop_core;

  loop_core& core_;
  node* waiting_[2] = {nullptr, nullptr};
  std::uint32_t references_ = 0;
  bool open_ = true;
  bool closing_ = false;
};

/// An entry for a resource that waits until this loop closes a descriptor, because none were left, or until
/// the system has memory again.
struct starved : link {
  resource* waiter = nullptr;
};

/// A reference-counted pointer to a resource or a loop_core.
template <class T>
class ref {
 public:
  ref() = default;
  explicit ref(T* p) noexcept : pointer_(p) {
    if (pointer_) ++pointer_->references_;
  }
  ref(const ref& other) noexcept : ref(other.pointer_) {}
  ref(ref&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
  template <class U>
    requires std::is_convertible_v<U*, T*>
  ref(const ref<U>& other) noexcept : ref(other.get()) {}
  template <class U>
    requires std::is_convertible_v<U*, T*>
  ref(ref<U>&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
  ref& operator=(ref other) noexcept {
    std::swap(pointer_, other.pointer_);
    return *this;
  }
  ~ref() {
    if (pointer_ && --pointer_->references_ == 0) [[unlikely]]
      end(pointer_);
  }
  T* get() const noexcept { return pointer_; }
  T* operator->() const noexcept { return pointer_; }
  T& operator*() const noexcept { return *pointer_; }
  explicit operator bool() const noexcept { return pointer_ != nullptr; }

 private:
  friend class resource;

  template <class U>
  friend class ref;

  // Out of line: otherwise it is inlined wherever a pointer is destroyed.
  [[gnu::noinline, gnu::cold]] static void end(T* p) noexcept { delete p; }

  T* pointer_ = nullptr;
};

/// A descriptor and its entry in the loop's table of watched descriptors.
struct registration {
  int fd = -1;
  std::uint32_t index = 0;
};

}}}  // namespace anyio::detail

// == loop/timers.hpp ==============================================================================

// Timers, ordered by deadline.
//
// A pairing heap whose elements are members of their operations: it does not allocate. Inserting a timer
// takes a few instructions, and so does removing it before its deadline, the common case. This part must not
// read a clock: the loop passes the time. (Fredman, Sedgewick, Sleator, Tarjan: The pairing heap, 1986.)

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class timer_heap;

/// A deadline, and the node to run after it has passed. The destructor cancels the timer.
class timer {
 public:
  timer() = default;
  timer(timer&& other) noexcept {
    ANYIO_NET_ASSERT(!other.armed());
    static_cast<void>(other);
  }
  timer& operator=(timer&& other) noexcept {
    ANYIO_NET_ASSERT(!other.armed());
    static_cast<void>(other);
    cancel();
    return *this;
  }
  ~timer() { cancel(); }

  [[nodiscard]] bool armed() const noexcept { return heap_ != nullptr; }
  [[nodiscard]] std::chrono::steady_clock::time_point deadline() const noexcept { return deadline_; }
  void cancel() noexcept;

 private:
  friend class timer_heap;

  bool before(const timer& other) const noexcept {
    if (deadline_ != other.deadline_) return deadline_ < other.deadline_;
    return static_cast<std::int32_t>(order_ - other.order_) < 0;  // equal deadlines: in the order of arming
  }

  timer_heap* heap_ = nullptr;
  timer* child_ = nullptr;     // the first child; children are due later
  timer* sibling_ = nullptr;   // the next child of the same parent
  timer* previous_ = nullptr;  // the previous sibling, or the parent of a first child
  node* target_ = nullptr;
  std::chrono::steady_clock::time_point deadline_;
  std::uint32_t order_ = 0;
};

class timer_heap {
 public:
  timer_heap() = default;
  timer_heap(const timer_heap&) = delete;
  timer_heap& operator=(const timer_heap&) = delete;

  void arm(timer& t, std::chrono::steady_clock::time_point deadline, node& target) noexcept {
    t.cancel();
    t.heap_ = this;
    t.deadline_ = deadline;
    t.target_ = &target;
    t.order_ = order_++;
    root_ = root_ ? meld(root_, &t) : &t;
  }
  void remove(timer& t) noexcept;

  [[nodiscard]] const timer* first() const noexcept { return root_; }
  /// Removes the first timer if it is due, and returns its node; null if no timer is due.
  node* pop_due(std::chrono::steady_clock::time_point now) noexcept {
    if (root_ == nullptr || root_->deadline_ > now) return nullptr;
    node* target = root_->target_;
    remove(*root_);
    return target;
  }

 private:
  static timer* meld(timer* a, timer* b) noexcept {
    if (b->before(*a)) std::swap(a, b);
    b->previous_ = a;
    b->sibling_ = a->child_;
    if (b->sibling_) b->sibling_->previous_ = b;
    a->child_ = b;
    return a;
  }
  static timer* meld_all(timer* first) noexcept;

  timer* root_ = nullptr;
  std::uint32_t order_ = 0;
};

inline void timer::cancel() noexcept {
  if (heap_) heap_->remove(*this);
}

}}}  // namespace anyio::detail

// == loop/loop.hpp ================================================================================

// The event loop: ready and waiting nodes, timers, descriptors, posted calls.
//
// A turn asks the poller once, then runs the ready list in rounds until the list is empty or a limit of work
// is reached, so that neither timers nor posted calls nor the poller starve. Users hold a `loop`; streams and
// operations hold its `loop_core`, which outlives the loop as long as any of them does. This part must not
// know coroutines, callbacks or protocols.

#include <limits>

#if !defined(ANYIO_NET_NO_THREADS)
#include <mutex>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {

class loop;

namespace detail {

/// Converts any duration, also a floating-point one, to nanoseconds; saturates, and NaN becomes zero.
template <class Rep, class Period>
constexpr duration to_duration(std::chrono::duration<Rep, Period> d) {
  if constexpr (std::is_same_v<decltype(d), duration>) {
    return d;
  } else {
    using seconds = std::chrono::duration<long double>;
    const long double s = std::chrono::duration_cast<seconds>(d).count();
    constexpr long double limit = 9.2e9L;  // a little less than 2^63 nanoseconds
    if (s >= limit) return duration::max();
    if (s <= -limit) return duration::min();
    if (!(s < limit)) return duration::zero();  // not a number
    if constexpr (std::is_floating_point_v<Rep>) {
      const long double ns = s * 1e9L;  // rounded up, so that a timer is never early
      const auto whole = static_cast<std::int64_t>(ns);
      return duration(whole + (static_cast<long double>(whole) < ns ? 1 : 0));
    } else {
      return std::chrono::ceil<duration>(d);
    }
  }
}

/// A posted callable.
struct posted_node : node {
  virtual ~posted_node() = default;
};

/// The state that a loop shares with its handles on other threads. All mailboxes of the process are in a
/// list, so that none of them is locked by another thread during fork(2).
struct mailbox : link {
  mailbox();
  mailbox(const mailbox&) = delete;
  mailbox& operator=(const mailbox&) = delete;
  ~mailbox();

#if !defined(ANYIO_NET_NO_THREADS)
  std::mutex mutex;
#endif
  link calls;                                   // posted nodes
  backend* system = nullptr;                    // null once the loop is gone
  std::uint32_t forks_of_owner = forks_so_far;  // in the process that owns the loop
  bool post(posted_node& call);
  /// Adds the call to the mailbox. Returns false and does nothing once the loop is gone.
  bool offer(posted_node& call);
};

class loop_core {
 public:
  explicit loop_core(std::unique_ptr<backend> system);
  loop_core(const loop_core&) = delete;
  loop_core& operator=(const loop_core&) = delete;

  /// The running loop (the innermost if there are several), or else the loop that was made last. A loop that
  /// was made after the running one began takes precedence over it. Null if there is none.
  [[nodiscard]] static loop_core* current_or_null() noexcept { return latest ? latest->core : nullptr; }
  [[nodiscard]] static loop_core& current();

  [[nodiscard]] backend& system() noexcept { return *system_; }
  /// Shares the backend with a helper thread, whose look-up may outlast the loop.
  [[nodiscard]] std::shared_ptr<backend> share_system() const noexcept { return system_; }
  [[nodiscard]] bool alive() const noexcept { return system_ != nullptr; }
  [[nodiscard]] bool running() const noexcept { return running_; }
  /// Whether this process is a child that inherited the loop by fork(2), so that the poller is the parent's.
  [[nodiscard]] bool inherited() const noexcept {
    return mail->forks_of_owner != forks_so_far && alive() && system_->native_handle() >= 0;
  }
  void after_fork();

  /// Held by a call that returns only after something has completed; outer loops that are running cannot
  /// continue meanwhile. `runner` represents the call, as the owner of the operation that it waits for; null
  /// means that the call waits until the loop is idle.
  class waiting_scope {
   public:
    explicit waiting_scope(loop_core& core, const node* runner = nullptr) noexcept;
    waiting_scope(const waiting_scope&) = delete;
    waiting_scope& operator=(const waiting_scope&) = delete;
    ~waiting_scope();

   private:
    ref<loop_core> core_;
    const waiting_scope* const before_;
    const node* const runner_before_;
    friend class loop_core;
  };
  /// Whether a call with a `waiting_scope` on another loop keeps this loop from continuing.
  [[nodiscard]] bool blocked() const noexcept { return blocked_by_ != nullptr; }
  /// Finds an inner loop with a call that waits for `root`, the last owner in a chain. The wait would never
  /// end, since the call keeps this loop from continuing. Null if there is none. A null `root` means that the
  /// owner is not known; then any waiting inner call counts.
  [[nodiscard]] loop_core* stranding(const node* root) const noexcept;
  [[nodiscard]] time_point now() { return system_->now(); }

  /// Moves a node to the end of the ready list, from any list.
  void queue(node& n) noexcept {
    n.leave();
    ready_.insert_before(n);
    n.queued = true;
  }
  /// Makes the node that was queued last run next. Used when its starter has had its turn already.
  void advance_last() noexcept {
    if (!ready_.linked()) return;
    link& last = *ready_.previous;
    last.unlink();
    round_.next->insert_before(last);
  }
  /// Moves a node to the list of waiting nodes, where it stays until something queues it.
  void park(node& n) noexcept {
    n.leave();
    parked_.insert_before(n);
    n.queued = false;
  }
  /// Whether a ready operation may still complete at once; otherwise it waits for its turn.
  [[nodiscard]] bool spend_inline() noexcept {
    if (!running_ || share_spent()) return false;
    work_ += work_of_inline;
    return true;
  }
  /// Whether an awaited task may begin at once; tasks that never wait must not starve the loop.
  [[nodiscard]] bool spend_await() noexcept {
    if (!running_) return true;
    if (await_budget_ == 0) return false;
    --await_budget_;
    work_ += work_of_await;
    return true;
  }
  /// Counts work: system calls, or work that takes as long as a call, and bytes moved.
  void count_work(std::size_t bytes, std::size_t calls = 1) noexcept {
    work_ += static_cast<std::uint32_t>(calls * work_of_call + bytes / bytes_of_unit);
  }
  /// Whether the running node has done its share of work; an attempt that could continue takes another turn.
  [[nodiscard]] bool share_spent() const noexcept { return work_ >= end_of_share_; }
  /// The most bytes per call; a larger transfer takes several calls.
  static constexpr std::size_t most_of_call = std::size_t{256} * 1024;

  void arm(timer& t, time_point deadline, node& target) noexcept { timers_.arm(t, deadline, target); }

  /// The loop's own receive buffer; the next read into it overwrites its content.
  [[nodiscard]] mutable_buffer buffer();
  /// Whether the running node received the buffer, so that a view of it may exist.
  [[nodiscard]] bool buffer_was_lent() const noexcept { return buffer_lent_ == end_of_share_; }
  /// Keeps the content of the buffer alive; the loop then reads into another buffer.
  [[nodiscard]] std::shared_ptr<const void> share_buffer() const noexcept { return buffer_; }
  [[nodiscard]] bool in_buffer(const void* p) const noexcept {
    const auto* byte = static_cast<const std::byte*>(p);
    return buffer_ != nullptr && byte >= buffer_->bytes && byte < buffer_->bytes + buffer_size;
  }
  static constexpr std::size_t buffer_size = 65536;

  /// Watches both directions of a descriptor for a resource. 0 or a negative errno.
  [[nodiscard]] int watch(registration& r, resource& owner);
  /// Returns a token for a descriptor that is watched in another way; `leave` releases the token.
  [[nodiscard]] std::uint64_t enter(registration& r, resource& owner);
  void leave(registration& r) noexcept;
  /// Whether any resource watches this descriptor. Searches all resources.
  [[nodiscard]] bool watches(int fd) const noexcept;
  /// Removes the descriptor from the poller, unless the poller belongs to the parent process.
  void unwatch(int fd) noexcept {
    if (!inherited()) system_->forget(fd);
  }
  /// Stops watching the descriptor, and closes it if `close_it` is true.
  void forget(registration& r, bool close_it = true) noexcept;
  /// Wakes the reader of the entry's resource after this loop has closed a descriptor. For calls that failed
  /// because no descriptor was free.
  void wait_for_descriptor(starved& s) noexcept {
    s.unlink();
    starved_.insert_before(s);
  }
  /// Wakes the reader and the writer of a resource after a pause. For calls that failed with ENOBUFS or
  /// ENOMEM: no event reports when the system has memory again. The pause grows from a millisecond to a
  /// quarter of a second while the attempts after it fail.
  void wait_for_memory(starved& s, resource& waiter) noexcept;

  bool turn(duration at_most);
  /// Waits until a node is ready, and runs one node. For tests.
  void step();
  /// Runs until `*done` is true, until no node is pending and no call is posted, or until `stop`.
  void run(const bool* done = nullptr);
  void stop() noexcept {
    stopped_ = true;
    next_look_ = 0;
  }
  void reserve(std::size_t descriptors, std::size_t started_operations);
  [[nodiscard]] duration time_until_next();
  [[nodiscard]] std::string dump();
  void end();
  [[nodiscard]] bool idle() const noexcept;

  void post(posted_node& call) noexcept;
  std::shared_ptr<mailbox> mail;

  /// Called after each wait of the poller, for signals. Null while no signal receiver exists.
  void (*after_wait)(loop_core&) = nullptr;
  link signal_receivers;
  signal_service_ptr own_signals{nullptr, nullptr};  // unless the backend has its own
  link raw_descriptors;                              // those that an operation waits for

  loop* object = nullptr;

 private:
  /// An entry in this thread's stack of current loops, the latest first. A loop has one entry while it lives,
  /// and a second one while it runs.
  struct claim {
    loop_core* core;
    claim* earlier;

    explicit claim(loop_core& c) noexcept : core(&c), earlier(std::exchange(latest, this)) {}
    claim(const claim&) = delete;
    claim& operator=(const claim&) = delete;
    ~claim() { withdraw(); }
    void withdraw() noexcept {
      for (claim** place = &latest; *place != nullptr; place = &(*place)->earlier) {
        if (*place != this) continue;
        *place = earlier;
        return;
      }
    }
  };
  static inline constinit thread_local claim* latest = nullptr;

  /// Held by `run`, `turn` and `step`: the loop is current, and stays in memory even if it ends meanwhile.
  struct running_scope;

  template <class T>
  friend class ref;
  friend class resource;
  friend struct node;

  /// The resources that wait for memory, their common timer, and the node that the timer runs.
  struct shortage final : node {
    explicit shortage(loop_core& c) noexcept : loop(c) { how = &face_of_shortage; }
    static void run(node& n);
    static void abandon(node& n) { n.unlink(); }
    static node* owner(node&) { return nullptr; }
    static description describe(node&) { return {"wait for memory"}; }
    static constexpr face face_of_shortage{run, abandon, owner, describe};

    loop_core& loop;
    link waiting;
    timer pause;
    std::uint32_t milliseconds = 0;
    std::uint32_t ended = 0;  // the turn in which the last pause ended
  };

  struct slot {
    resource* owner = nullptr;
    std::uint32_t generation = 0;
    union {
      std::uint32_t next_free = 0;
      int fd;  // while there is an owner
    };
  };
  static constexpr std::uint32_t no_slot = std::numeric_limits<std::uint32_t>::max();
  static constexpr int rounds_of_turn = 32;
  static constexpr int timers_of_turn = 1024;
  // Work is counted in units of about 20 ns: a turn may take about 1.3 ms, and each node in it about 10 µs.
  // The clock limits the work of user code, which is not counted.
  static constexpr std::uint32_t work_of_turn = 65536;
  static constexpr std::uint32_t work_between_looks = 4096;  // units between looks at the clock
  static constexpr std::uint32_t work_of_completion = 64;
  static constexpr std::uint32_t share_of_node = 512;
  static constexpr std::uint32_t work_of_inline = 32;
  static constexpr std::uint32_t work_of_await = 4;
  static constexpr std::uint32_t work_of_call = 96;
  static constexpr std::uint32_t bytes_of_unit = 128;
  static constexpr std::uint32_t await_budget_of_node = 128;

  [[noreturn]] static void refuse_to_run();
  bool run_ready(const bool* done);
  bool turn_is_over();
  void leave_round() noexcept;
  void poll(duration at_most);
  void take_mail();
  void dispatch(const poll_event& event) noexcept;

  std::shared_ptr<backend> system_;
  link ready_;
  link round_;  // the nodes that were ready when the current round began
  link parked_;
  claim lives_;
  timer_heap timers_;
  std::vector<slot> slots_;
  std::uint32_t free_slot_ = no_slot;
  link starved_;
  shortage shortage_{*this};
  /// The receive buffer. It is aligned, since the kernel then copies faster.
  struct alignas(64) room {
    std::byte bytes[buffer_size];
  };
  std::shared_ptr<room> buffer_;
  std::size_t pending_ = 0;
  time_point turn_began_{};
  std::uint32_t turn_milliseconds_ = 0;
  std::uint32_t references_ = 0;
  std::uint32_t work_ = 0;  // of this turn
  std::uint32_t next_look_ = work_between_looks;
  std::uint32_t end_of_share_ = 0;
  std::uint32_t await_budget_ = 0;
  std::uint32_t buffer_lent_ = 0;  // the share in which the buffer was lent
  bool running_ = false;
  bool stopped_ = false;
  const waiting_scope* waits_ = nullptr;       // the innermost call that waits on this loop
  const node* runner_ = nullptr;               // the owner that represents this call
  const waiting_scope* blocked_by_ = nullptr;  // the call on another loop that blocks this one
};

inline bool resource::open() const noexcept { return open_ && !closing_ && core_.alive(); }

inline bool resource::gone() const noexcept { return !open_ || !core_.alive(); }

inline void resource::wake(side s) noexcept {
  node* const n = waiting_[s];
  if (n != nullptr && !(n->queued && n->linked())) core_.queue(*n);  // a queued node keeps its place
}

inline void resource::ready(std::uint32_t bits) noexcept {
  if (bits & (ready_end | ready_urgent)) read_to_end = true;
  if (bits & (ready_read | ready_end | ready_urgent)) {
    exhausted[read_side] = false;
    wake(read_side);
  }
  if (bits & ready_write) {
    exhausted[write_side] = false;
    wake(write_side);
  }
}

inline void node::begin(loop_core& on, const face& f) noexcept {
  how = &f;
  core = &on;
  cancelled = finished = queued = awaited = false;
  since = on.turn_milliseconds_;
  ++on.pending_;
}

[[gnu::always_inline]] inline void node::retire() noexcept {
  leave();
  if (core != nullptr) {
    --core->pending_;
    core = nullptr;
    how = nullptr;
  }
}

template <class F>
struct posted_call final : posted_node, pooled<recycler::operations> {
  explicit posted_call(F&& f) : call(std::move(f)) {}

  static void run(node& n) {
    const std::unique_ptr<posted_call> self(static_cast<posted_call*>(&n));
    F f = std::move(self->call);
    self->retire();
    std::move(f)();
  }
  static void abandon(node& n) { delete static_cast<posted_call*>(&n); }
  static node* owner(node&) { return nullptr; }
  static description describe(node&) { return {"post"}; }
  static constexpr face face_of_call{run, abandon, owner, describe};

  F call;
};

template <class F>
posted_node& make_posted(F&& f) {
  using call = posted_call<std::decay_t<F>>;
  auto* p = new call(std::decay_t<F>(std::forward<F>(f)));
  p->how = &call::face_of_call;
  return *p;
}

}  // namespace detail

/// Posts calls to a loop from any thread; may outlive the loop. With ANYIO_NET_NO_THREADS only the loop's own
/// thread may use it.
class loop_handle {
 public:
  loop_handle() = default;

  /// Runs the callable on the loop, in the order of posting. Once the loop is gone, destroys the callable and
  /// returns false.
  template <class F>
  bool post(F&& callable) const {
    return mail_ != nullptr && mail_->post(detail::make_posted(std::forward<F>(callable)));
  }

 private:
  friend class loop;
  explicit loop_handle(std::shared_ptr<detail::mailbox> mail) : mail_(std::move(mail)) {}
  std::shared_ptr<detail::mailbox> mail_;
};

/// An event loop. It belongs to the thread that made it, and is that thread's current loop while it lives.
///
/// It may be destroyed before its streams and operations: callbacks are destroyed without a call, descriptors
/// are closed, and objects that outlive the loop return `closed_resource`.
class loop {
 public:
  /// Makes a loop on epoll (Linux) or kqueue (the BSDs and macOS). Aborts if no poller can be created.
  loop();
  /// Makes a loop on a given backend: `system_backend()`, a simulation, or a backend with faults.
  explicit loop(std::unique_ptr<backend> system);
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;
  ~loop();

  /// This thread's current loop: the one that runs, or else the one made last that still lives. Aborts if
  /// there is none.
  [[nodiscard]] static loop& current();

  /// Runs until no operation is pending and no call is posted, or until `stop()`. May be called again, but
  /// not from inside `run` or `run_once` of this loop: that fails an assertion, or without assertions raises
  /// `invalid_argument` (without exceptions: prints it and aborts). Loops may run inside one another; see
  /// `anyio::run`.
  void run() { core_->run(); }
  /// Runs one turn, which waits at most `at_most`. Returns true if something ran. Must not be called from
  /// inside `run` or `run_once` of this loop.
  template <class Rep, class Period>
  bool run_once(std::chrono::duration<Rep, Period> at_most) {
    return core_->turn(detail::to_duration(at_most));
  }
  /// Makes the current `run()` or `run_once()` return after the callback that runs now.
  void stop() { core_->stop(); }

  /// A descriptor for embedding in another event loop: readable when there is work; -1 in a simulation. Wait
  /// for it no longer than `time_until_next()`, then call `run_once` with a duration of zero.
  [[nodiscard]] int native_handle() const { return core_->system().native_handle(); }
  /// The time until the next timer: zero if something is ready, `duration::max()` if no timer is set.
  [[nodiscard]] duration time_until_next() const { return core_->time_until_next(); }

  /// Returns a handle through which other threads post calls; it may outlive the loop.
  [[nodiscard]] loop_handle handle() { return loop_handle(core_->mail); }

  /// Runs the callable from the loop, after all nodes that are ready already. Only for this loop's thread.
  template <class F>
  void post(F&& callable) {
    core_->post(detail::make_posted(std::forward<F>(callable)));
  }

  /// Reserves memory for this many connections and started operations. Up to these numbers they do not
  /// allocate, except for memory that a value owns, coroutine frames, and callables larger than three
  /// pointers. The memory of a connection is free again once its stream and its operations are destroyed or
  /// assigned to. If the memory is not available, raises `std::bad_alloc` and changes nothing.
  void reserve(std::size_t descriptors, std::size_t started_operations) {
    core_->reserve(descriptors, started_operations);
  }

  /// Makes an inherited loop usable in the child of fork(2). The loop gets its own poller and wake
  /// descriptor, all descriptors are watched again, and pending operations, timers and posted calls continue.
  /// May be called from a callback. Has no effect on a loop that was not inherited, and none on the parent.
  ///
  /// The objects of the loop then belong to the child as well as to the parent: `close` and the destructor do
  /// what they always do, and remove the socket file of a listener with `unlink_on_close`. A call that a
  /// helper thread of the parent was making ends with `os_error` and ECANCELED; a call that had not begun
  /// begins in the child. `native_handle()` may change. Aborts if no poller can be created.
  ///
  /// Without `after_fork`, a child may destroy and close inherited objects, which releases only the child's
  /// descriptors and memory, and may use its own loops. The child aborts if it runs the inherited loop.
  void after_fork() { core_->after_fork(); }

  /// Lists the pending operations, one per line: descriptor, operation, age in seconds.
  [[nodiscard]] std::string dump() const { return core_->dump(); }

 private:
  friend class detail::loop_core;
  detail::ref<detail::loop_core> core_;
};

/// The current time of this thread's loop. Use no other clock with `*_at` and `*_until`.
[[nodiscard]] time_point now();

}}  // namespace anyio

// == operation/coroutine.hpp ======================================================================

// Coroutines, run by a driver.
//
// A coroutine of the library is never resumed from inside another: it returns to its driver with the next
// step to take. So the stack does not grow, even if the compiler does not implement symmetric transfer as a
// tail call. Without exceptions, a raised error takes this way too: the driver destroys the frame, whose
// locals are destroyed innermost first, and then raises the error in the coroutine that waits for it. This
// part must not know operations.

#include <coroutine>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

struct promise_base;

/// The next step of a driver.
struct step {
  enum kind : std::uint8_t { nothing, resume, deliver, raise };
  kind what = nothing;
  promise_base* promise = nullptr;
  error failure;  // for `raise`
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
  link scopes;                    // the task groups that this coroutine made, so that each knows its host

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

/// The coroutine that runs now. It shows whether code runs inside a given task.
inline constinit thread_local promise_base* active = nullptr;
/// The step that the coroutine that runs now requests from its driver when it returns.
inline constinit thread_local step next_step{};

void drive(step s);

/// Destroys a suspended coroutine and the tasks that it awaits, innermost first.
void destroy_chain(promise_base& whole) noexcept;

/// Destroys a suspended coroutine that ends and has a waiter.
void end_frame(promise_base& p) noexcept;

/// While this object lives, code that runs, destructors included, counts as running inside a node that is not
/// a coroutine, or inside a coroutine that is being destroyed.
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

/// The owner of a node that a foreign coroutine waits for; what that coroutine is part of is unknown.
alignas(node) inline constinit std::byte unknown_owner_place[sizeof(node)] = {};
inline node* unknown_owner() noexcept { return static_cast<node*>(static_cast<void*>(unknown_owner_place)); }

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
      drive({step::resume, promise, {}});
    } else {
      handle.resume();
    }
  }
};

/// The object that a foreign awaitable resumes in place of a coroutine. It has the layout of a suspended
/// coroutine in g++ and clang, which begins with two functions, and resumes the coroutine under a driver.
struct resumption {
  void (*resume)(void*) = [](void* self) {
    drive({step::resume, static_cast<resumption*>(self)->promise, {}});
  };
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

// == operation/operation.hpp ======================================================================

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
//   bool is_refused()                     no attempt may be made: the resource is closed
//   bool in_vain()                        no attempt can succeed before something queues this node
//   void leave_place()                    it is no longer the waiter
//   void withdrawn()                      it was withdrawn; called after `left`
//   int descriptor()                      for dumps

#include <exception>

namespace anyio { inline namespace ANYIO_NET_ABI {

template <class T>
class task;

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

/// A temporary operation that was started, and its callable.
template <class Op, class F>
class detached : public pooled<recycler::operations> {
  using value = typename Op::value_type;

 public:
  static void start(Op&& op, F&& f) {
    std::unique_ptr<detached> block(new detached(std::move(op), std::move(f)));
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
  [[nodiscard]] Op& take_op() noexcept { return static_cast<Op&>(*std::exchange(op_, nullptr)); }
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

/// The base of operations. T is the type of the value.
template <class Derived, class T>
class operation : public node, public operation_tag {
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
    ANYIO_NET_ASSERT(!pending() && "the operation is already pending");
    slot_.callable.put(f);
    begin_all(callback_face<F>, false);
  }
  /// Starts the operation. The loop keeps the operation and the callable, which only needs to be movable,
  /// until completion.
  template <class F>
  void start(F&& f) && {
    detached<Derived, std::decay_t<F>>::start(std::move(self()), std::decay_t<F>(std::forward<F>(f)));
  }

  /// The awaiter refers to the operation. (g++ 12 would copy an awaiter that is reached through a reference.)
  awaiter<Derived> operator co_await() noexcept { return awaiter<Derived>(self()); }

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
    result<T>& out = *::new (static_cast<void*>(&slot_.outcome)) result<T>(result_access::room<T>());
    const errc e = self().check();
    if (e != errc::ok) {
      if (!may_refuse_at_once()) {
        std::destroy_at(&out);
        return false;
      }
      out = error(e, 0, self().operation_name());
    } else {
      attempted = self().in_vain();
      const bool try_now = !attempted && (Derived::immediate ||
                                          (Derived::attempts_when_awaited && self().home().spend_inline()));
      if (!try_now || !attempt_by_caller(out)) {
        std::destroy_at(&out);
        attempted |= try_now;
        return false;
      }
      leave();  // as after a wait, so that it may be used again
    }
    if (!Raises || ANYIO_NET_EXCEPTIONS || out.has_value()) return true;
    finished = true;  // await_suspend raises the error
    return false;
  }
  template <bool Raises, class P>
  bool suspend(std::coroutine_handle<P> h, node** place) {
    if constexpr (Raises && !ANYIO_NET_EXCEPTIONS) {
      if (finished) {
        hand_on(h.promise(), {step::raise, &h.promise(), take_outcome().error()});
        return true;
      }
    }
    ::new (static_cast<void*>(&slot_.coroutine)) waiter{suspended::from(h), place};
    begin_all(awaiting_face<Raises>, attempted && !again);
    awaited = true;
    return true;
  }
  result<T> take_outcome() noexcept {
    result<T> r = std::move(slot_.outcome);
    std::destroy_at(&slot_.outcome);
    finished = false;
    return r;
  }
  /// For a composite: checks this child and attempts it. Must not be called while the child waits.
  bool attempt_for_parent(result<T>& out) {
    if (const errc e = self().check(); e != errc::ok) {
      out = error(e, 0, self().operation_name());
      return true;
    }
    if (self().home().blocked() || !attempt_by_caller(out)) return false;
    leave();
    return true;
  }
  /// Who waits for it, null if nobody does.
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
  static constexpr bool immediate = false;  // true: always completes at once, and does not count for fairness
  static constexpr bool attempts_when_awaited = true;  // false: begins only when it has a waiter
  static constexpr bool has_parts =
      false;  // whether other code may run when it ends, such as the destructors of children

  [[nodiscard]] const char* operation_name() const noexcept { return Derived::name; }
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

  /// Passes on an outcome, or continues to wait, as when the loop runs a queued node.
  void run_now() {
    core->park(*this);
    how->run(*this);
  }

 private:
  Derived& self() noexcept { return static_cast<Derived&>(*this); }
  const Derived& self() const noexcept { return static_cast<const Derived&>(*this); }

  /// Whether a failed check may be reported at once. A caller that retries a rejected operation in a loop
  /// must not starve the task that it waits for.
  [[nodiscard]] bool may_refuse_at_once() const {
    loop_core* const here = loop_core::current_or_null();
    return here == nullptr || here->spend_await() || &self().home() != here;
  }
  /// Begins to wait. An exception goes to the caller and leaves the operation idle.
  void begin_all(const face& f, bool attempted_in_vain) {
#if ANYIO_NET_EXCEPTIONS
    try {
      begin_waiting(f);
      begin_attempts(attempted_in_vain);
    } catch (...) {
      give_up();
      throw;
    }
#else
    begin_waiting(f);
    begin_attempts(attempted_in_vain);
#endif
  }
  [[gnu::cold, gnu::noinline]] void give_up() noexcept { withdraw(); }
  void begin_waiting(const face& f) {
    loop_core& on = self().home();
    begin(on, f);
    if (on.blocked() && is_stranded(*this)) [[unlikely]]
      return;
    early = self().check();
    if (early == errc::ok) early = self().enter();
  }
  [[nodiscard]] error early_error() const noexcept {
    const error e(early, 0, self().operation_name());
    if (core == &self().home()) return e;
    return error_access::with_reason(e, "the operation's loop is blocked until this operation completes");
  }
  void begin_attempts(bool attempted_in_vain) {
    if (early == errc::ok) {
      if (!attempted_in_vain) self().started();
      if (attempted_in_vain || self().in_vain()) return core->park(*this);
    }
    core->queue(*this);
  }
  /// Clears the pointer of a coroutine that awaits this operation; the coroutine is not resumed.
  void forget_awaiter() noexcept {
    if (awaited && pending() && slot_.coroutine.place != nullptr) *slot_.coroutine.place = nullptr;
  }
  void leave() noexcept {
    self().leave_place();
    self().left();
  }
  void become_idle() noexcept {
    leave();
    retire();
  }
  bool make_attempt(result<T>& out) {
    if (!self().is_refused()) return self().attempt(out);
    out = error(errc::closed_resource, 0, self().operation_name());
    return true;
  }
  /// One attempt by the loop. False: the operation is still pending.
  bool poll(result<T>& out) {
    if constexpr (Derived::has_parts) core->park(*this);  // so that the end of the loop finds it
    if (early != errc::ok) {
      out = early_error();
      return true;
    }
    if (cancelled) self().refresh();
    again = false;
    if (try_attempt(out)) return true;
    if (!cancelled) {
      if (again) {
        core->queue(*this);
      } else if (!linked()) {
        core->park(*this);
      }
      return false;
    }
    out = error(errc::cancelled, 0, self().operation_name());
    return true;
  }

  /// An attempt while the operation has no waiter. An exception ends the operation, as an outcome does.
  bool attempt_by_caller(result<T>& out) {
#if ANYIO_NET_EXCEPTIONS
    try {
      return make_attempt(out);
    } catch (...) {
      leave();
      throw;
    }
#else
    return make_attempt(out);
#endif
  }

  /// An attempt by the loop. An exception from moving a user's type counts as thrown at the co_await.
  bool try_attempt(result<T>& out) {
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

  /// An attempt by the loop. If there is an outcome, `take` copies the waiter, and then the operation becomes
  /// idle.
  template <class Take>
  static bool finish(Derived& op, result<T>& out, Take take) {
    if constexpr (Derived::has_parts) {
      const stand_in inside(op);
      if (!op.poll(out)) return false;
      take();
      op.become_idle();
    } else {
      if (!op.poll(out)) return false;
      take();
      op.become_idle();
    }
    return true;
  }

  template <class F>
  static void run_callback(node& n) {
    auto& op = static_cast<Derived&>(n);
    result<T> r = result_access::room<T>();
    waiter_storage waiter;
    if (!finish(op, r, [&] { waiter = op.slot_.callable; })) return;
    F f = waiter.get<F>();
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
    result<T> r = result_access::room<T>();
    suspended coroutine;
    if (!finish(op, r, [&] { coroutine = op.slot_.coroutine.coroutine; })) return;
    if constexpr (Raises && !ANYIO_NET_EXCEPTIONS) {
      if (!r.has_value()) return drive({step::raise, coroutine.promise, r.error()});
    }
    ::new (static_cast<void*>(&op.slot_.outcome)) result<T>(std::move(r));
    coroutine.resume();
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
    return {op.operation_name(), op.descriptor()};
  }

  template <class F>
  static constexpr face callback_face{run_callback<F>, abandon_callback<F>, owner_of_callback<F>, describe};
  template <bool Raises>
  static constexpr face awaiting_face{run_awaiting<Raises>, abandon_awaiting, owner_of_awaiting, describe};

  struct waiter {
    suspended coroutine;
    node** place;  // the coroutine's pointer to this operation; null if it has none
  };
  // The outcome and the waiter never exist at the same time.
  union slot {
    slot() noexcept {}
    slot(const slot&) noexcept {}
    slot& operator=(const slot&) noexcept { return *this; }
    ~slot() {}
    waiter_storage callable;
    waiter coroutine;
    result<T> outcome;
  } slot_;
};

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
    if constexpr (!ANYIO_NET_EXCEPTIONS) hand_on(h.promise(), {step::raise, &h.promise(), result_.error()});
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

// == operation/as_result.hpp ======================================================================

// An operation or a task whose failure is a value.

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

  template <class F>
  void start(F f) & {
    op_.start(wrapped<F>{f});
    begun_.begun(op_);
  }
  template <class F>
  void start(F&& f) && {
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

// == operation/task.hpp ===========================================================================

// Tasks: coroutines that are operations.
//
// A task is lazy, belongs to its owner, and is awaited or started once. Destroying a task destroys its
// frame, and with it the operation that it waits for. Its value stays in the frame until it is taken.
// Without exceptions, a raised error destroys the frame before the waiter receives the error. This part must
// not know sockets.

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
      hand_on(h.promise(), {step::deliver, &h.promise(), {}});
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
class [[nodiscard]] task : public operation_tag {
 public:
  using value_type = T;  ///< the type of its value
  using promise_type = detail::promise<T>;

  task() = default;
  task(task&& other) noexcept : promise_(std::exchange(other.promise_, nullptr)) {
    ANYIO_NET_ASSERT(!under_way() && "a started task cannot be moved");
  }
  task& operator=(task&& other) noexcept {
    if (this != &other) {
      ANYIO_NET_ASSERT(!other.under_way() && "a started task cannot be moved");
      reset();
      promise_ = std::exchange(other.promise_, nullptr);
    }
    return *this;
  }
  ~task() { reset(); }

  /// Whether it holds a coroutine.
  explicit operator bool() const noexcept { return promise_ != nullptr; }

  /// Starts the task from the loop. The callable takes a `result<T>`.
  template <class F>
  void start(F f) & {
    static_assert(
        detail::fits_named<F>,
        "a named task takes a trivially copyable callable of at most three pointers: capture `this` "
        "or a pointer, or start a temporary task, which takes any callable");
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
    detail::detached<task, std::decay_t<F>>::start(std::move(*this), std::decay_t<F>(std::forward<F>(f)));
  }

  // --- for the parts of the library
  /// Who waits for it, null if nobody does.
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
    detail::destroy_chain(*std::exchange(promise_, nullptr));
  }
  template <class F>
  static void refuse_start(F f);

  template <class F>
  static void run(detail::node& n) {
    n.core->park(n);
    detail::drive({detail::step::resume, static_cast<promise_type*>(&n), {}});
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
        detail::hand_on(h.promise(), {detail::step::raise, &h.promise(), failure_.error()});
      return Raises && !ANYIO_NET_EXCEPTIONS;
    }
    p->owner = &task_.promise_;
    p->waiter.put(waiting{detail::suspended::from(h), this});
    p->how = &face;
    if constexpr (detail::is_own_promise<P>) {
      p->enter_outer(h.promise());
      detail::loop_core* loop = detail::loop_core::current_or_null();
      if (loop == nullptr || loop->spend_await()) {
        detail::hand_on(h.promise(), {detail::step::resume, p, {}});
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
    detail::drive({detail::step::resume, &p, {}});
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
    if (waiter.promise != nullptr) return {detail::step::resume, waiter.promise, {}};
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
    if constexpr (Raises) return {detail::step::raise, w.coroutine.promise, e};
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

// == operation/combinators.hpp ====================================================================

// Operations made of operations: time limits, all of several, one of several.
//
// A composite starts its children with callbacks that advance it. It completes at once when the last
// outcome that it needs arrives, so that a view that a child returns is still valid. Destroying a composite
// destroys its children. This part must not know what a child does.

#include <tuple>

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
struct operation_of {
  using type = std::invoke_result_t<std::decay_t<X>&>;
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
void end_child(std::optional<Op>& op) noexcept {
  if constexpr (attemptable<Op>) {
    if (op) op->withdraw();
  } else {
    op.reset();
  }
}

/// The callback of a child, which passes the outcome to its parent. I distinguishes the child from its
/// siblings.
template <class Parent, class T, std::size_t I = 0>
struct child_done {
  using internal = void;
  Parent* parent;
  void operator()(result<T>&& r) const { parent->template child_completed<I>(std::move(r)); }
  node* owner() const noexcept { return parent; }
};

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
  using done = child_done<timed_operation, child_value>;
  friend done;
  static constexpr bool has_parts = true;

  /// True when the child has an outcome, or when the time limit has passed: `timed_out`.
  bool attempt_child(result<child_value>& out) {
    if (arrived_ != nullptr) {
      out = std::move(*std::exchange(arrived_, nullptr));
      return true;
    }
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
    out = error(errc::timed_out, 0, Derived::name);
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
  [[nodiscard]] errc check() const noexcept { return op_.has_value() ? errc::ok : errc::invalid_argument; }

 private:
  void begin_child() {
    begun_ = true;
    loop_core& loop = loop_core::current();
    if (!at_) deadline_ = add(loop.now(), limit_);
    if (deadline_ != time_point::max()) loop.arm(timer_, deadline_, *this);
    op_->start(done{this});
  }
  template <std::size_t>
  void child_completed(result<child_value>&& r) {
    arrived_ = &r;
    this->run_now();
  }

  duration limit_{};
  time_point deadline_{};
  bool at_ = false;
  bool begun_ = false;
  result<child_value>* arrived_ = nullptr;
  std::optional<Op> op_;
  timer timer_;
};

}  // namespace detail

/// The operation that `fail_after` and `fail_at` return.
template <class Op>
class [[nodiscard]] timeout_operation
    : public detail::timed_operation<timeout_operation<Op>, typename Op::value_type, Op> {
 public:
  static constexpr const char* name = "timeout";
  using detail::timed_operation<timeout_operation, typename Op::value_type, Op>::timed_operation;

 private:
  friend class detail::operation<timeout_operation, typename Op::value_type>;
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
  static constexpr const char* name = "move_on";
  using timed_operation<move_on_operation, value, Op>::timed_operation;

 private:
  friend class operation<move_on_operation, value>;
  bool attempt(result<value>& out) {
    result<child_value> r(errc::cancelled);
    if (!this->attempt_child(r)) return false;
    if (!r.has_value()) {
      const bool ran_out = r.error() == errc::timed_out && r.error().operation() == name;
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
/// limit of zero, returns only what is available at once.
template <class Rep, class Period, class X>
[[nodiscard]] auto fail_after(std::chrono::duration<Rep, Period> limit, X&& x) {
  return timeout_operation<detail::operation_of_t<X>>(detail::to_duration(limit),
                                                      detail::as_operation(std::forward<X>(x)));
}
/// Runs `x` until `deadline` on the loop's clock: returns its value, or fails with `timed_out` if the
/// deadline passes first.
template <class X>
[[nodiscard]] auto fail_at(time_point deadline, X&& x) {
  return timeout_operation<detail::operation_of_t<X>>(deadline, detail::as_operation(std::forward<X>(x)));
}
/// Runs `x` with a time limit: returns its value, or an empty optional if the limit passes first. If `x` has
/// no value: returns true, or false if the limit passes first. With a limit of zero, returns only what is
/// available at once.
template <class Rep, class Period, class X>
[[nodiscard]] auto move_on_after(std::chrono::duration<Rep, Period> limit, X&& x) {
  return detail::move_on_operation<detail::operation_of_t<X>>(detail::to_duration(limit),
                                                              detail::as_operation(std::forward<X>(x)));
}
/// Runs `x` until `deadline` on the loop's clock: returns its value, or an empty optional if the deadline
/// passes first. If `x` has no value: returns true, or false if the deadline passes first.
template <class X>
[[nodiscard]] auto move_on_at(time_point deadline, X&& x) {
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
  template <class, class, std::size_t>
  friend struct child_done;
  static constexpr bool has_parts = true;
  using indices = std::index_sequence_for<Ops...>;

  template <class Op>
  struct child {
    child() = default;
    explicit child(Op&& o) : op(std::move(o)) {}
    std::optional<Op> op;
    std::optional<not_void<typename Op::value_type>> value;
  };

  [[nodiscard]] errc check() const noexcept {
    return begin_all_ready(indices()) ? errc::ok : errc::invalid_argument;
  }
  template <std::size_t... I>
  bool begin_all_ready(std::index_sequence<I...>) const noexcept {
    return (std::get<I>(children_).op.has_value() && ...);
  }
  bool attempt(result<value>& out) {
    if (failure_ != nullptr) {
      out = std::move(*std::exchange(failure_, nullptr));
      return true;
    }
    started();
    if (left_over_ != 0) return false;
    collect(out, indices());
    return true;
  }
  void started() {
    if (!std::exchange(begun_, true)) begin_children(indices());
  }
  template <std::size_t... I>
  void begin_children(std::index_sequence<I...>) {
    (std::get<I>(children_).op->start(child_done<when_all_operation, typename Ops::value_type, I>{this}),
     ...);
  }
  template <std::size_t... I>
  void collect(result<value>& out, std::index_sequence<I...>) {
    out = result<value>(value(*std::move(std::get<I>(children_).value)...));
  }
  void left() noexcept {
    begun_ = false;
    left_over_ = sizeof...(Ops);
    std::apply([](auto&... c) { ((end_child(c.op), c.value.reset()), ...); }, children_);
  }

  template <std::size_t I, class T>
  void child_completed(result<T>&& r) {
    if (!r.has_value()) {
      result<value> failure = result_access::failure<value>(r);
      failure_ = &failure;
      return this->run_now();
    }
    if constexpr (std::is_void_v<T>) {
      std::get<I>(children_).value.emplace();
    } else {
      std::get<I>(children_).value.emplace(*std::move(r));
    }
    if (--left_over_ == 0) this->run_now();
  }

  std::tuple<child<Ops>...> children_;
  std::size_t left_over_ = sizeof...(Ops);
  bool begun_ = false;
  result<value>* failure_ = nullptr;
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

  struct done {
    using internal = void;
    when_all_tasks_operation* parent;
    std::size_t index;
    void operator()(result<T>&& r) const { parent->child_completed(index, std::move(r)); }
    node* owner() const noexcept { return parent; }
  };
  bool attempt(result<value>& out) {
    if (failure_ != nullptr) {
      out = std::move(*std::exchange(failure_, nullptr));
      return true;
    }
    started();
    if (left_over_ != 0) return false;
    value all;
    all.reserve(values_.size());
    for (auto& v : values_) all.push_back(*std::move(v));
    out = result<value>(std::move(all));
    return true;
  }
  void started() {
    if (std::exchange(begun_, true)) return;
    for (std::size_t i = 0; i < tasks_.size(); ++i) tasks_[i].start(done{this, i});
  }
  void left() noexcept {
    this->made = false;
    tasks_.clear();
    values_.clear();
  }
  void child_completed(std::size_t index, result<T>&& r) {
    if (!r.has_value()) {
      result<value> failure = result_access::failure<value>(r);
      failure_ = &failure;
      return this->run_now();
    }
    if constexpr (std::is_void_v<T>) {
      values_[index].emplace();
    } else {
      values_[index].emplace(*std::move(r));
    }
    if (--left_over_ == 0) this->run_now();
  }

  std::vector<task<T>> tasks_;
  std::vector<std::optional<not_void<T>>> values_;
  std::size_t left_over_ = 0;
  bool begun_ = false;
  result<value>* failure_ = nullptr;
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
  explicit when_any_operation(Ops&&... ops) : children_(std::optional<Ops>(std::move(ops))...) {}

  void keep_loan() {
    std::apply([](auto&... c) { (detail::keep_loan(*c), ...); }, children_);
  }

 private:
  friend class operation<when_any_operation, value>;
  template <class, class, std::size_t>
  friend struct child_done;
  static constexpr bool attempts_when_awaited = false;
  static constexpr bool has_parts = true;

  [[nodiscard]] errc check() const noexcept {
    return std::apply([](auto&... c) { return (c.has_value() && ...); }, children_) ? errc::ok
                                                                                    : errc::invalid_argument;
  }
  bool attempt(result<value>& out) {
    if (arrived_ != nullptr) {
      out = std::move(*std::exchange(arrived_, nullptr));
      return true;
    }
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
    auto& op = *std::get<I>(children_);
    op.start(child_done<when_any_operation, typename std::remove_cvref_t<decltype(op)>::value_type, I>{this});
  }
  void left() noexcept {
    begun_ = 0;
    std::apply([](auto&... c) { (end_child(c), ...); }, children_);
  }

  template <std::size_t I, class T>
  void child_completed(result<T>&& r) {
    result<value> outcome = r.has_value() ? make<I>(std::move(r)) : result_access::failure<value>(r);
    arrived_ = &outcome;
    this->run_now();
  }
  template <std::size_t I, class T>
  static result<value> make(result<T>&& r) {
    if constexpr (std::is_void_v<T>) {
      return value(std::in_place_index<I>);
    } else {
      return value(std::in_place_index<I>, *std::move(r));
    }
  }

  std::tuple<std::optional<Ops>...> children_;
  std::size_t begun_ = 0;
  result<value>* arrived_ = nullptr;
};

}  // namespace detail

/// Runs all arguments concurrently and returns a tuple of their values, with `std::monostate` in place of
/// void. The first error cancels the others and is raised.
template <class... Xs>
[[nodiscard]] auto when_all(Xs&&... xs) {
  return detail::when_all_operation<detail::operation_of_t<Xs>...>(
      detail::as_operation(std::forward<Xs>(xs))...);
}
/// Runs any number of tasks of one type concurrently and returns a vector of their values, in the order of
/// the tasks. The first error cancels the others and is raised.
template <class T>
[[nodiscard]] auto when_all(std::vector<task<T>> tasks) {
  return detail::when_all_tasks_operation<T>(std::move(tasks));
}

/// Runs the arguments concurrently until the first completes, and returns its value or raises its error. The
/// others are cancelled. If one completes at once, those after it do not begin.
template <class... Xs>
  requires(sizeof...(Xs) > 0)
[[nodiscard]] auto when_any(Xs&&... xs) {
  return detail::when_any_operation<detail::operation_of_t<Xs>...>(
      detail::as_operation(std::forward<Xs>(xs))...);
}

}}  // namespace anyio

// == operation/descriptors.hpp ====================================================================

// Waiting for descriptors that the library does not own.
//
// The owner may close a descriptor and reuse its number at any time, so an entry stays in the poller only
// during a wait. A wait first checks what is ready now, and then makes an entry for one level-triggered
// event, which is removed on completion or withdrawal. A reader and a writer share the entry. This part must
// not know what a descriptor is.

namespace anyio { inline namespace ANYIO_NET_ABI {

class wait_operation;

namespace detail {

/// A descriptor that belongs to another owner and for which an operation waits.
class raw_descriptor final : public resource, public link {
 public:
  raw_descriptor(loop_core& core, int fd) : resource(core) {
    registration_.fd = fd;
    entered_by_waits = true;
    core.raw_descriptors.insert_before(*this);
  }
  ~raw_descriptor() override { close(); }

  /// The entry for `fd`; null if no operation waits for it.
  [[nodiscard]] static raw_descriptor* find(loop_core& core, int fd) noexcept;

  [[nodiscard]] int descriptor() const noexcept override { return registration_.fd; }
  /// Asks the poller to report once the events that are waited for now. Returns 0 or a negative errno.
  [[nodiscard]] int arm();
  /// One waiter left. The entry stays for the other waiter, and ends with the last.
  void left(side s) noexcept;

 private:
  ANYIO_NET_FN void shut() noexcept override;

  registration registration_;
  std::uint64_t token_ = 0;
  bool entered_ = false;
};

}  // namespace detail

/// The operation that `wait_readable` and `wait_writable` return.
class [[nodiscard]] wait_operation : public detail::operation<wait_operation, void> {
 public:
  static constexpr const char* name = "wait";
  wait_operation() = default;
  wait_operation(int fd, detail::side s) noexcept : operation(fd >= 0), fd_(fd), side_(s) {}
  wait_operation(wait_operation&& other) noexcept = default;
  wait_operation& operator=(wait_operation&& other) noexcept;
  ~wait_operation() { leave(); }

 private:
  friend class detail::operation<wait_operation, void>;

  [[nodiscard]] const char* operation_name() const noexcept {
    return side_ == detail::read_side ? "wait_readable" : "wait_writable";
  }
  [[nodiscard]] errc enter();
  bool attempt(result<void>& out);
  void left() noexcept { leave(); }
  [[nodiscard]] int descriptor() const noexcept { return fd_; }

  /// Whether another operation waits for the same event, or the descriptor belongs to a stream of this loop.
  [[nodiscard]] bool busy(detail::loop_core& loop) const noexcept;
  void join(detail::loop_core& loop);
  void leave() noexcept;

  int fd_ = -1;
  detail::side side_ = detail::read_side;
  detail::ref<detail::raw_descriptor> place_;  // set while this waits
};

/// Completes when a read from the descriptor would not block. It completes at once for a descriptor that is
/// ready now, a regular file, an end of stream, or an error. The caller still owns the descriptor, and must
/// call `notify_closing` before closing it while an operation waits.
///
/// One reader and one writer may wait for a descriptor at a time. Errors: `busy_resource` for a second one
/// and for the descriptor of a stream of this loop; `invalid_argument` if `fd` is negative; `os_error` with
/// EBADF if it is not open.
[[nodiscard]] inline wait_operation wait_readable(int fd) { return {fd, detail::read_side}; }
/// Completes when a write to the descriptor would not block. The rules and errors are those of
/// `wait_readable`.
[[nodiscard]] inline wait_operation wait_writable(int fd) { return {fd, detail::write_side}; }

/// Ends the operations that wait for the descriptor on this thread's loop with `closed_resource`. From then
/// on the loop does not touch the descriptor. Does not close it.
void notify_closing(int fd);

}}  // namespace anyio

// == operation/resource_operation.hpp =============================================================

// Operations that belong to a resource, where they wait as the reader or the writer. The base here makes the
// checks for closed and busy, takes the place and leaves it. This part must not know what a resource is.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// An operation that belongs to a resource: it waits there as the reader or the writer.
template <class Derived, class T, class Resource, side Side>
class resource_operation : public operation<Derived, T> {
 public:
  resource_operation() = default;
  /// Without a resource, as for a closed stream, the operation fails with `closed_resource`.
  explicit resource_operation(ref<Resource> r) noexcept
      : operation<Derived, T>(true), resource_(std::move(r)) {}
  resource_operation(resource_operation&& other) noexcept = default;
  resource_operation& operator=(resource_operation&& other) noexcept {
    if (this == &other) return *this;
    leave_for_good();
    operation<Derived, T>::operator=(std::move(other));
    resource_ = std::move(other.resource_);
    return *this;
  }
  ~resource_operation() { leave_for_good(); }

 protected:
  friend class operation<Derived, T>;

  [[nodiscard]] errc check() const noexcept {
    if (!this->made) return errc::invalid_argument;
    if (!resource_ || !resource_->open()) return errc::closed_resource;
    const node* const waiter = resource_->waiting(Side);
    return waiter != nullptr && waiter != this && !waiter->yields ? errc::busy_resource : errc::ok;
  }
  [[nodiscard]] errc enter() noexcept {
    resource_->set_waiting(Side, this);
    return errc::ok;
  }
  void leave_place() noexcept {
    if (waits()) resource_->set_waiting(Side, nullptr);
  }
  [[nodiscard]] bool is_refused() const noexcept { return !resource_->open(); }
  void withdrawn() noexcept {
    if (resource_) resource_->withdrawn(Side);
  }
  [[nodiscard]] loop_core& home() const {
    return resource_ && resource_->core().alive() ? resource_->core() : loop_core::current();
  }
  void refresh() noexcept {
    if (resource_) resource_->exhausted[Side] = false;
  }
  [[nodiscard]] int descriptor() const noexcept { return resource_ ? resource_->descriptor() : -1; }

  ref<Resource> resource_;

 private:
  [[nodiscard]] bool waits() const noexcept { return resource_ && resource_->waiting(Side) == this; }
  void leave_for_good() noexcept {
    if (!waits()) return;
    resource_->set_waiting(Side, nullptr);
    resource_->withdrawn(Side);
  }
};

}}}  // namespace anyio::detail

// == operation/run.hpp ============================================================================

// Running an operation from a plain function.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

template <class T>
struct run_done {
  using internal = void;
  std::optional<result<T>>* outcome;
  bool* done;
  node* runner = nullptr;  // stands for the call of `run` that waits
  void operator()(result<T>&& r) const {
    outcome->emplace(std::move(r));
    *done = true;
  }
  [[nodiscard]] node* owner() const noexcept { return runner; }
};

/// A foreign exception may leave the loop before the caller's own operation has completed. The operation is
/// then withdrawn, since it refers to the frame of `run`.
template <class Op>
struct withdraw_at_end {
  Op& op;
};
template <class Op>
struct withdraw_at_end<Op&> {
  Op& op;
  ~withdraw_at_end() { op.withdraw(); }
};

}  // namespace detail

/// Runs an operation, a task, or a callable that returns a task, and returns its value or raises its error.
/// Without exceptions, prints the error and aborts; `run(as_result(x))` returns the result.
///
/// Uses this thread's loop if there is one that does not run. Otherwise makes a loop for this call;
/// operations that are still pending at the end are destroyed with that loop. A loop that was inherited over
/// a fork is not used before its `after_fork`.
///
/// A loop that runs continues only after this call. Inside such a loop, `x` must not wait for anything that
/// belongs to that loop, such as an operation of one of its streams: it would never complete. This fails an
/// assertion, or is `invalid_argument` without assertions; so is an operation of another loop that does not
/// run. Starting such an operation with a callback is allowed.
template <class X>
auto run(X&& x) {
  using reference = std::conditional_t<detail::is_operation<X> && std::is_lvalue_reference_v<X>, X,
                                       detail::operation_of_t<X>>;
  using T = typename std::remove_reference_t<reference>::value_type;

  std::optional<loop> own;
  if (detail::loop_core* core = detail::loop_core::current_or_null();
      core == nullptr || core->running() || core->inherited())
    own.emplace();
  const detail::ref<detail::loop_core> core(&detail::loop_core::current());

  std::optional<result<T>> outcome;
  bool done = false;
  {
    auto make = [&]() -> reference {
      if constexpr (std::is_lvalue_reference_v<reference>) {
        return x;
      } else {
        return detail::as_operation(std::forward<X>(x));
      }
    };
    reference op = make();
    [[maybe_unused]] const detail::withdraw_at_end<reference> guard{op};
    detail::node runner;
    const detail::loop_core::waiting_scope waits(*core, &runner);
    op.start(detail::run_done<T>{&outcome, &done, &runner});
    do {
      core->run(&done);
    } while (!done && core->alive() && !core->idle());
  }
  if (!done) {
    ANYIO_NET_ASSERT(!core->alive() && "the operation belongs to another loop");
    const error ended = core->alive() ? detail::error_access::with_reason(
                                            error(errc::invalid_argument, 0, "run"),
                                            "the operation belongs to another loop, which is not running")
                                      : error(errc::closed_resource, 0, "run");
    if constexpr (detail::is_result<T>) {
      outcome.emplace(T(ended));
    } else {
      outcome.emplace(ended);
    }
  }
#if !ANYIO_NET_EXCEPTIONS
  if (!outcome->has_value()) detail::abort_with("run", outcome->error());
#endif
  return std::move(*outcome).value();
}

}}  // namespace anyio

// == operation/signals.hpp ========================================================================

// Receiving signals.
//
// The signal handler, behind the backend, only records a signal and wakes the loops that asked for it. Here
// each loop passes the signal to every receiver that named it. Several signals of one number that arrive in
// the meantime count as one, as in the kernel. This part must not know what a signal handler may do.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The signals of one receiver; a set is a mask with a bit for each number, at number - 1.
class signal_resource final : public resource, public link {
 public:
  static constexpr int highest = 64;

  explicit signal_resource(loop_core& core);
  ~signal_resource() override { close(); }

  /// Names one more signal. Returns 0 or a negative errno.
  [[nodiscard]] int add(int number);
  /// Takes the signal with the lowest number that has arrived; 0 if there is none.
  [[nodiscard]] int take();

 private:
  /// Passes the signals that have arrived to the receivers of the loop.
  static void distribute(loop_core& core);
  ANYIO_NET_FN void shut() noexcept override;

  registration registration_;
  std::uint64_t named_ = 0;
  std::uint64_t came_ = 0;
};

/// The operation that `signal_receiver::receive` returns.
class [[nodiscard]] receive_signal_operation
    : public resource_operation<receive_signal_operation, int, signal_resource, read_side> {
 public:
  static constexpr const char* name = "receive_signal";
  receive_signal_operation() = default;
  explicit receive_signal_operation(ref<signal_resource> r) noexcept : resource_operation(std::move(r)) {}

 private:
  friend class operation<receive_signal_operation, int>;

  bool attempt(result<int>& out) {
    const int number = resource_->take();
    if (number != 0) out = number;
    return number != 0;
  }
};

}  // namespace detail

/// Receives the signals that it names while it is open, in place of their previous disposition in the
/// process. Every receiver, on any loop, that named a signal receives it. When the last of these receivers is
/// closed, the previous disposition is restored.
///
/// Signals of one number that arrive faster than they are received count as one (sigaction(2)). A receiver
/// without a pending operation does not keep `run()` running.
class signal_receiver {
 public:
  signal_receiver() = default;
  signal_receiver(signal_receiver&&) noexcept = default;
  signal_receiver& operator=(signal_receiver&& other) noexcept;
  ~signal_receiver() { close(); }

  /// Opens a receiver on this thread's loop. Fails with `invalid_argument` and EINVAL for a number that is
  /// not a signal or cannot be caught.
  template <std::convertible_to<int>... Numbers>
  [[nodiscard]] static result<signal_receiver> open(int first, Numbers... others) {
    const int numbers[] = {first, static_cast<int>(others)...};
    return open_all(numbers);
  }

  /// Whether it is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }

  /// Returns the number of a signal that has arrived, the lowest first if there are several.
  [[nodiscard]] detail::receive_signal_operation receive() {
    return detail::receive_signal_operation(resource_);
  }
  /// The pending operation makes one more attempt, then ends with `cancelled`.
  void cancel() noexcept {
    if (resource_) resource_->cancel();
  }
  /// Closes the receiver. The pending operation ends with `closed_resource`; signals that have arrived but
  /// were not received are dropped. Calling it again has no effect.
  void close() noexcept {
    if (resource_) resource_->close();
  }

 private:
  explicit signal_receiver(detail::ref<detail::signal_resource> r) noexcept : resource_(std::move(r)) {}
  [[nodiscard]] static result<signal_receiver> open_all(std::span<const int> numbers);

  detail::ref<detail::signal_resource> resource_;
};

}}  // namespace anyio

// == operation/sleep.hpp ==========================================================================

// Sleeping for a duration or until a point in time.
//
// This part must not read a clock: the loop knows the time, which is virtual in a simulation.

namespace anyio { inline namespace ANYIO_NET_ABI {

/// The operation that `sleep` and `sleep_until` return.
class [[nodiscard]] sleep_operation : public detail::operation<sleep_operation, void> {
 public:
  static constexpr const char* name = "sleep";
  sleep_operation() = default;
  explicit sleep_operation(duration d) : operation(true), amount_(d) {}
  explicit sleep_operation(time_point deadline) : operation(true), deadline_(deadline), until_(true) {}

 private:
  friend class detail::operation<sleep_operation, void>;
  // Completes from the loop: even a sleep of zero duration lets other tasks run.
  static constexpr bool attempts_when_awaited = false;

  bool attempt(result<void>& out) {
    started();
    if (timer_.armed() || deadline_ == time_point::max()) return false;
    out = result<void>();
    return true;
  }
  void started() {
    if (std::exchange(begun_, true)) return;
    detail::loop_core& loop = detail::loop_core::current();
    const time_point time = loop.now();
    if (!until_) deadline_ = detail::add(time, amount_);
    if (deadline_ > time && deadline_ != time_point::max()) loop.arm(timer_, deadline_, *this);
  }
  void left() noexcept {
    timer_.cancel();
    begun_ = false;
  }

  duration amount_{};
  time_point deadline_{};
  bool until_ = false;
  bool begun_ = false;
  detail::timer timer_;
};

/// Completes when the duration has passed, never before. A duration of zero or less still lets other tasks
/// run.
template <class Rep, class Period>
[[nodiscard]] sleep_operation sleep(std::chrono::duration<Rep, Period> d) {
  return sleep_operation(detail::to_duration(d));
}
/// Completes at a point in time of the loop's clock, never before. A point in the past still lets other tasks
/// run.
[[nodiscard]] inline sleep_operation sleep_until(time_point deadline) { return sleep_operation(deadline); }

}}  // namespace anyio

// == operation/synchronization.hpp ================================================================

// Synchronization between the tasks of one loop: events, semaphores, channels.
//
// A waiter stands in a line and continues from the loop, never inside the call that woke it. It takes a
// permit or a value only at that moment, so a waiter that is cancelled before that loses nothing. None of
// these types may be used from another thread.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

class wait_line;

/// A place in a line, kept in the operation that waits.
class wait_place : public link {
 public:
  wait_place() = default;
  wait_place(wait_place&& other) noexcept : link() { static_cast<void>(other); }
  wait_place& operator=(wait_place&&) noexcept {
    unlink();
    return *this;
  }
  /// The object that this operation waits for is gone, and must not be touched.
  [[nodiscard]] bool ended() const noexcept { return now == state::ended; }

  enum class state : std::uint8_t {
    waits,
    released,  // the wait is over, even if its reason no longer holds
    ended,
  };
  node* waiter = nullptr;
  state now = state::waits;
};

/// A line of waiting operations. When the line is destroyed, the operations are queued and fail.
class wait_line {
 public:
  wait_line() = default;
  wait_line(const wait_line&) = delete;
  wait_line& operator=(const wait_line&) = delete;
  ~wait_line() { let_all_on(wait_place::state::ended); }

  void join(wait_place& place, node& waiter) noexcept {
    place.waiter = &waiter;
    place.now = wait_place::state::waits;
    head_.insert_before(place);
  }
  [[nodiscard]] bool empty() const noexcept { return !head_.linked(); }
  [[nodiscard]] wait_place* first() noexcept {
    return empty() ? nullptr : &static_cast<wait_place&>(*head_.next);
  }
  /// Lets the first operation in the line make an attempt.
  void wake_first() noexcept {
    if (wait_place* p = first()) p->waiter->core->queue(*p->waiter);
  }
  void wake_all() noexcept {
    for (link* l = head_.next; l != &head_; l = l->next) {
      node* n = static_cast<wait_place&>(*l).waiter;
      n->core->queue(*n);
    }
  }
  void release_all() noexcept { let_all_on(wait_place::state::released); }
  static void let_on(wait_place& p, wait_place::state s) noexcept {
    p.unlink();
    p.now = s;
    p.waiter->core->queue(*p.waiter);
  }
  [[nodiscard]] bool longer_than(std::size_t n) const noexcept {
    for (const link* l = head_.next; l != &head_; l = l->next)
      if (n-- == 0) return true;
    return false;
  }

 private:
  void let_all_on(wait_place::state s) noexcept {
    while (!empty()) let_on(static_cast<wait_place&>(*head_.next), s);
  }
  link head_;
};

}  // namespace detail

class event_operation;

/// A flag to wait for. It can be neither moved nor copied. It must outlive its waiters, which otherwise fail
/// with `closed_resource`.
class event {
 public:
  event() = default;
  event(const event&) = delete;
  event& operator=(const event&) = delete;

  /// Sets the flag. All current waiters complete from the loop, even if the flag is cleared at once.
  void set() noexcept {
    set_ = true;
    waiting_.release_all();
  }
  /// Clears the flag: from now on `wait` waits. Waiters that `set` has released still complete.
  void clear() noexcept { set_ = false; }
  /// Whether `wait` would complete at once.
  [[nodiscard]] bool is_set() const noexcept { return set_; }
  /// Waits until the flag is set.
  [[nodiscard]] event_operation wait();

 private:
  friend class event_operation;
  bool set_ = false;
  detail::wait_line waiting_;
};

/// The operation that `event::wait` returns.
class [[nodiscard]] event_operation : public detail::operation<event_operation, void> {
 public:
  static constexpr const char* name = "wait";
  event_operation() = default;
  explicit event_operation(event& e) : operation(true), event_(&e) {}

 private:
  friend class event;
  friend class detail::operation<event_operation, void>;

  [[nodiscard]] errc enter() {
    event_->waiting_.join(place_, *this);
    return errc::ok;
  }
  bool attempt(result<void>& out) {
    if (pending() && place_.ended()) {
      made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    if (!(pending() && place_.now == detail::wait_place::state::released) && !event_->set_) return false;
    out = result<void>();
    return true;
  }
  void left() noexcept { place_.unlink(); }

  event* event_ = nullptr;
  detail::wait_place place_;
};

inline event_operation event::wait() { return event_operation(*this); }

class semaphore;

/// One unit of a semaphore. Its destructor gives the unit back.
class [[nodiscard]] permit {
 public:
  permit() = default;
  permit(permit&& other) noexcept : semaphore_(std::exchange(other.semaphore_, nullptr)) {}
  permit& operator=(permit&& other) noexcept {
    if (this != &other) {
      release();
      semaphore_ = std::exchange(other.semaphore_, nullptr);
    }
    return *this;
  }
  ~permit() { release(); }
  /// Gives the unit back now. Calling it again has no effect.
  void release() noexcept;
  /// Whether it holds a unit.
  explicit operator bool() const noexcept { return semaphore_ != nullptr; }

 private:
  friend class semaphore;
  explicit permit(semaphore& s) noexcept : semaphore_(&s) {}
  semaphore* semaphore_ = nullptr;
};

/// Grants a limited number of permits at a time, in the order of the requests. With one permit it is a lock.
/// It must outlive its permits and its waiters.
class semaphore {
 public:
  /// Constructs a semaphore with `n` permits.
  explicit semaphore(std::size_t n) noexcept : free_(n) {}
  semaphore(const semaphore&) = delete;
  semaphore& operator=(const semaphore&) = delete;

  class acquire_operation;
  /// Waits for its turn, and returns a permit.
  [[nodiscard]] acquire_operation acquire();
  /// Returns a permit without waiting; empty if none is free, or if others wait.
  [[nodiscard]] std::optional<permit> try_acquire() noexcept {
    if (free_ == 0 || !waiting_.empty()) return std::nullopt;
    --free_;
    return permit(*this);
  }

 private:
  friend class permit;
  void give_back() noexcept {
    ++free_;
    waiting_.wake_first();
  }
  std::size_t free_;
  detail::wait_line waiting_;
};

inline void permit::release() noexcept {
  if (semaphore* s = std::exchange(semaphore_, nullptr)) s->give_back();
}

/// The operation that `semaphore::acquire` returns.
class [[nodiscard]] semaphore::acquire_operation : public detail::operation<acquire_operation, permit> {
 public:
  static constexpr const char* name = "acquire";
  acquire_operation() = default;
  explicit acquire_operation(semaphore& s) : operation(true), semaphore_(&s) {}
  acquire_operation(acquire_operation&&) = default;
  acquire_operation& operator=(acquire_operation&& other) noexcept {
    withdraw();
    operation::operator=(std::move(other));
    semaphore_ = other.semaphore_;
    return *this;
  }
  ~acquire_operation() { withdraw(); }

 private:
  friend class detail::operation<acquire_operation, permit>;

  [[nodiscard]] errc enter() {
    semaphore_->waiting_.join(place_, *this);
    return errc::ok;
  }
  bool attempt(result<permit>& out) {
    if (pending() && place_.ended()) {
      made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    const detail::wait_place* first = semaphore_->waiting_.first();
    if (semaphore_->free_ == 0 || (first != nullptr && first != &place_)) return false;
    --semaphore_->free_;
    out = result<permit>(permit(*semaphore_));
    return true;
  }
  void left() noexcept {
    if (!place_.linked()) return;
    place_.unlink();
    if (semaphore_->free_ != 0) semaphore_->waiting_.wake_first();
  }

  semaphore* semaphore_ = nullptr;
  detail::wait_place place_;
};

inline semaphore::acquire_operation semaphore::acquire() { return acquire_operation(*this); }

/// A queue between tasks. `send` waits while the queue holds `capacity` values; with a capacity of 0 it waits
/// for a receiver that takes the value. After `close`, receivers get the values that are left, then
/// `end_of_stream`; senders get `closed_resource`.
template <class T>
class channel {
 public:
  /// Constructs a channel. It allocates room for the first values here, and room for more when they arrive.
  explicit channel(std::size_t capacity) : capacity_(capacity), ring_(capacity < 63 ? capacity + 1 : 64) {}
  channel(const channel&) = delete;
  channel& operator=(const channel&) = delete;

  class send_operation;
  class receive_operation;
  /// Sends a value: waits for room, or for a receiver that takes it. A send that is
  /// cancelled before that has not sent the value.
  [[nodiscard]] send_operation send(T value) { return send_operation(*this, std::move(value)); }
  /// Receives the oldest value. A cancelled receive takes no value.
  [[nodiscard]] receive_operation receive() { return receive_operation(*this); }
  /// Sends a value without waiting. Returns false if it would have to wait, or if the channel is closed.
  [[nodiscard]] bool try_send(T value) {
    if (closed_ || !senders_.empty() || !has_room()) return false;
    put(std::move(value));
    return true;
  }
  /// Receives the oldest value without waiting; empty if there is none, or if other receivers wait.
  [[nodiscard]] std::optional<T> try_receive() {
    if (!receivers_.empty()) return std::nullopt;
    return take();
  }
  /// Closes the channel. Receivers still get the values that are left. Calling it again has no effect.
  void close() noexcept {
    closed_ = true;
    senders_.wake_all();
    receivers_.wake_all();
  }

 private:
  [[nodiscard]] bool has_room() const noexcept {
    return count_ < capacity_ || receivers_.longer_than(count_ - capacity_);
  }
  void put(T&& value) {
    if (count_ == ring_.size()) grow();
    ring_[(first_ + count_) % ring_.size()].emplace(std::move(value));
    ++count_;
    receivers_.wake_first();
  }
  std::optional<T> take() {
    std::optional<T> value;
    if (count_ != 0) {
      value.emplace(*std::move(ring_[first_]));
      ring_[first_].reset();
      first_ = (first_ + 1) % ring_.size();
      --count_;
      senders_.wake_first();
    } else if (detail::wait_place* p = closed_ ? nullptr : senders_.first()) {
      // The capacity is 0, or no value is left: takes the value directly from the sender that waits.
      auto& sender = static_cast<send_operation&>(*p->waiter);
      value.emplace(*std::move(sender.value_));
      sender.value_.reset();
      detail::wait_line::let_on(*p, detail::wait_place::state::released);
    }
    return value;
  }
  void grow() {
    std::vector<std::optional<T>> larger(ring_.size() * 2);
    for (std::size_t i = 0; i < count_; ++i) {
      larger[i].emplace(*std::move(ring_[(first_ + i) % ring_.size()]));
    }
    ring_.swap(larger);
    first_ = 0;
  }

  std::size_t capacity_;
  std::vector<std::optional<T>> ring_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  bool closed_ = false;
  detail::wait_line senders_;
  detail::wait_line receivers_;
};

/// The operation that `channel::send` returns.
template <class T>
class [[nodiscard]] channel<T>::send_operation : public detail::operation<send_operation, void> {
 public:
  static constexpr const char* name = "send";
  send_operation() = default;
  send_operation(channel& c, T&& value)
      : detail::operation<send_operation, void>(true), channel_(&c), value_(std::move(value)) {}
  send_operation(send_operation&&) noexcept = default;
  send_operation& operator=(send_operation&& other) noexcept {
    this->withdraw();
    detail::operation<send_operation, void>::operator=(std::move(other));
    channel_ = other.channel_;
    value_.reset();  // no assignment: a value only needs to be move-constructible
    if (other.value_) std::construct_at(&value_, std::move(other.value_));
    return *this;
  }
  ~send_operation() { this->withdraw(); }

 private:
  friend class channel;
  friend class detail::operation<send_operation, void>;

  [[nodiscard]] errc check() const noexcept {
    if (!this->made || !value_) return errc::invalid_argument;
    return channel_->closed_ ? errc::closed_resource : errc::ok;
  }
  [[nodiscard]] errc enter() {
    channel_->senders_.join(place_, *this);
    if (channel_->capacity_ == 0) channel_->receivers_.wake_first();
    return errc::ok;
  }
  bool attempt(result<void>& out) {
    if (this->pending() && place_.now == detail::wait_place::state::released) {
      out = result<void>();
      return true;
    }
    if (this->pending() && place_.ended()) {
      this->made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    if (channel_->closed_) {
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    const detail::wait_place* first = channel_->senders_.first();
    if ((first != nullptr && first != &place_) || !channel_->has_room()) return false;
    channel_->put(*std::move(value_));
    value_.reset();
    out = result<void>();
    return true;
  }
  void left() noexcept {
    if (!place_.linked()) return;
    place_.unlink();
    channel_->senders_.wake_first();  // there may be room for the next sender
  }

  channel* channel_ = nullptr;
  std::optional<T> value_;
  detail::wait_place place_;
};

/// The operation that `channel::receive` returns.
template <class T>
class [[nodiscard]] channel<T>::receive_operation : public detail::operation<receive_operation, T> {
 public:
  static constexpr const char* name = "receive";
  receive_operation() = default;
  explicit receive_operation(channel& c) : detail::operation<receive_operation, T>(true), channel_(&c) {}
  receive_operation(receive_operation&&) noexcept = default;
  receive_operation& operator=(receive_operation&& other) noexcept {
    this->withdraw();
    detail::operation<receive_operation, T>::operator=(std::move(other));
    channel_ = other.channel_;
    return *this;
  }
  ~receive_operation() { this->withdraw(); }

 private:
  friend class channel;
  friend class detail::operation<receive_operation, T>;

  [[nodiscard]] errc enter() {
    channel_->receivers_.join(place_, *this);
    channel_->senders_.wake_first();
    return errc::ok;
  }
  bool attempt(result<T>& out) {
    if (this->pending() && place_.ended()) {
      this->made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    const detail::wait_place* first = channel_->receivers_.first();
    if (first != nullptr && first != &place_ && !channel_->closed_) return false;
    if (std::optional<T> value = channel_->take()) {
      out = result<T>(*std::move(value));
      return true;
    }
    if (!channel_->closed_) return false;
    out = error(errc::end_of_stream, 0, name);
    return true;
  }
  void left() noexcept {
    if (!place_.linked()) return;
    place_.unlink();
    channel_->receivers_.wake_first();  // the next receiver may take the value that this one leaves
  }

  channel* channel_ = nullptr;
  detail::wait_place place_;
};

}}  // namespace anyio

// == operation/task_group.hpp =====================================================================

// Children of one scope.
//
// No child outlives its group: destroying the group destroys its children. The first error of a child ends
// the other children, and `join` raises it. Children begin from the loop, never inside the call that started
// them. This part must not know sockets.

namespace anyio { inline namespace ANYIO_NET_ABI {

class task_group;

namespace detail {

struct task_group_access;

/// Receives the outcomes of children whose errors do not cancel each other.
class outcome_sink {
 public:
  virtual void child_ended(result<void>&& outcome) = 0;
  /// The node that the children are a part of.
  [[nodiscard]] virtual node* whole() const noexcept = 0;

 protected:
  ~outcome_sink() = default;
};

/// A place among the children of a group.
struct membership : link {};

/// A child. Its node lies in the ready list until the child begins. After that, the node is the owner of the
/// operation that the child waits for.
class group_child : public node, public membership {
 public:
  explicit group_child(task_group& group) : group_(group) {}
  virtual ~group_child() = default;

  void begin_soon();
  /// Whether it runs, or may run, as far as can be known.
  [[nodiscard]] bool may_run_now() const noexcept { return in_call_ || is_active(*this, true); }
  [[nodiscard]] bool runs_now() const noexcept { return in_call_ || is_active(*this); }

  [[nodiscard]] membership& place() noexcept { return *this; }
  [[nodiscard]] static group_child& at(link& place) noexcept {
    return static_cast<group_child&>(static_cast<membership&>(place));
  }
  bool doomed = false;

 protected:
  virtual void begin_child() = 0;
  /// Reports the end of this child, and deletes it.
  void completed(result<void>&& outcome);

  bool in_call_ = false;

 private:
  static void run(node& n) {
    auto& self = static_cast<group_child&>(n);
    self.retire();
    self.how = &face_of_child;  // still used to find the owner
    self.begin_child();
  }
  static void abandon(node& n) { n.retire(); }
  static node* owner(node& n);
  static description describe(node&) { return {"task_group"}; }
  static constexpr face face_of_child{run, abandon, owner, describe};

  task_group& group_;
};

/// A child that is an operation or a task. An operation is allocated in the pool of started operations; a
/// task has its own frame.
template <class Op>
class operation_child
    : public group_child,
      public std::conditional_t<is_task<Op>, recycled_aligned, pooled<recycler::operations>> {
  using value = typename Op::value_type;

 public:
  operation_child(task_group& group, Op&& op) : group_child(group) {
    detail::keep_loan(op);
    op_.emplace(std::move(op));
  }

 protected:
  explicit operation_child(task_group& group) : group_child(group) {}
  void begin_child() override {
#if ANYIO_NET_EXCEPTIONS
    try {
      op_->start(done{this});
    } catch (...) {
      return completed(result_access::foreign<void>(std::current_exception()));
    }
#else
    op_->start(done{this});
#endif
    loop_core::current().advance_last();  // so that one sleep(0) elsewhere is enough for a child to begin
  }
  std::optional<Op> op_;

 private:
  struct done {
    using internal = void;
    operation_child* child;
    void operator()(result<value>&& r) const {
      child->completed(r.has_value() ? result<void>() : result_access::failure<void>(r));
    }
    node* owner() const noexcept { return child; }
  };
};

/// Stands for the operation of a child that is a plain function, which has none.
struct no_operation {
  using value_type = void;
};
template <>
class operation_child<no_operation> : public group_child, public pooled<recycler::operations> {
 protected:
  using group_child::group_child;
};

template <class R>
using operation_or_none = std::conditional_t<is_operation<R>, std::remove_cvref_t<R>, no_operation>;

/// A child that is a callable and its arguments, which are kept until the child ends.
template <class F, class... Args>
class callable_child final : public operation_child<operation_or_none<std::invoke_result_t<F&, Args...>>> {
  using returned = std::invoke_result_t<F&, Args...>;
  using base = operation_child<operation_or_none<returned>>;

 public:
  template <class G, class... As>
  callable_child(task_group& group, G&& f, As&&... args)
      : base(group), f_(std::forward<G>(f)), args_(std::forward<As>(args)...) {}

 private:
  void begin_child() override {
    this->in_call_ = true;
    result<void> outcome;
#if ANYIO_NET_EXCEPTIONS
    try {
      call();
    } catch (const exception& e) {
      outcome = e.error();
    } catch (...) {
      outcome = result_access::foreign<void>(std::current_exception());
    }
#else
    call();
#endif
    this->in_call_ = false;
    if constexpr (is_operation<returned>) {
      if (outcome.has_value() && !this->doomed) return base::begin_child();
    }
    this->completed(std::move(outcome));
  }
  void call() {
    if constexpr (is_operation<returned>) {
      this->op_.emplace(std::apply(f_, std::move(args_)));
    } else {
      static_cast<void>(std::apply(f_, std::move(args_)));
    }
  }

  F f_;
  std::tuple<Args...> args_;
};

}  // namespace detail

/// Runs children concurrently. It can be neither moved nor copied, and its own children must not destroy it.
class task_group {
 public:
  task_group();
  task_group(const task_group&) = delete;
  task_group& operator=(const task_group&) = delete;
  /// Cancels the children that have not ended.
  ~task_group();

  /// Adds an operation or a task as a child, which begins from the loop.
  template <class Op>
    requires detail::is_operation<Op>
  void start_soon(Op&& op) {
    static_assert(!std::is_lvalue_reference_v<Op>,
                  "an operation must be passed by std::move or created in place");
    add(new detail::operation_child<std::remove_cvref_t<Op>>(*this, std::move(op)));
  }
  /// Calls `f` with the arguments from the loop, and runs the task or operation that it returns. The callable
  /// and the arguments are kept until the child ends. Pass references as std::ref.
  template <class F, class... Args>
    requires(!detail::is_operation<F>)
  void start_soon(F&& f, Args&&... args) {
    add(new detail::callable_child<std::decay_t<F>, std::unwrap_ref_decay_t<Args>...>(
        *this, std::forward<F>(f), std::forward<Args>(args)...));
  }

  class join_operation;
  /// Completes when no child is left; raises the first error of a child. If `join` is cancelled, the children
  /// continue to run.
  [[nodiscard]] join_operation join();

  /// Cancels the children at once. A child that calls this itself ends when it next waits.
  void cancel() noexcept;

  /// The number of children that have not ended.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  friend class detail::group_child;
  friend class join_operation;

  /// Deletes the children that `cancel` could not delete at once, because the call came from inside them.
  struct reaper : detail::node {
    task_group* group = nullptr;
    static void run(detail::node& n) {
      n.retire();
      static_cast<reaper&>(n).group->end_doomed();
    }
    static void abandon(detail::node& n) { n.retire(); }
    static detail::node* owner(detail::node&) { return nullptr; }
    static detail::description describe(detail::node&) { return {"task_group"}; }
    static constexpr detail::face face_of_reaper{run, abandon, owner, describe};
  };

  friend struct detail::task_group_access;

  void add(detail::group_child* child);
  void end_children(bool (*keep)(task_group&, detail::group_child&)) noexcept;
  void end_doomed() noexcept;
  void one_less() noexcept {
    if (--size_ == 0) joining_.wake_all();
  }
  void child_completed(detail::group_child& child, result<void>&& outcome);

  detail::promise_base* host_;  // the coroutine that made the group; valid while place_ is linked
  detail::link place_;
  detail::ref<detail::loop_core> loop_;  // the loop on which the children began
  detail::outcome_sink* sink_ = nullptr;
  detail::link children_;
  std::size_t size_ = 0;
  result<void> failure_;
  detail::wait_line joining_;
  reaper reaper_;
};

/// The operation that `task_group::join` returns.
class [[nodiscard]] task_group::join_operation : public detail::operation<join_operation, void> {
 public:
  static constexpr const char* name = "join";
  join_operation() = default;
  explicit join_operation(task_group& g) : operation(true), group_(&g) {}

 private:
  friend class detail::operation<join_operation, void>;

  [[nodiscard]] detail::loop_core& home() const {
    const bool waits = made && group_->size_ != 0 && !place_.ended();
    return waits && group_->loop_->alive() ? *group_->loop_ : detail::loop_core::current();
  }
  [[nodiscard]] errc enter() {
    group_->joining_.join(place_, *this);
    return errc::ok;
  }
  bool attempt(result<void>& out) {
    if (place_.ended()) {
      made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    if (group_->size_ != 0) return false;
    out = std::exchange(group_->failure_, result<void>());
    return true;
  }
  void left() noexcept { place_.unlink(); }

  task_group* group_ = nullptr;
  detail::wait_place place_;
};

namespace detail {

/// For parts that handle the outcome of each child separately.
struct task_group_access {
  static void set_sink(task_group& group, outcome_sink& sink) noexcept { group.sink_ = &sink; }
};

}  // namespace detail

inline task_group::join_operation task_group::join() { return join_operation(*this); }

}}  // namespace anyio

// == operation/threads.hpp ========================================================================

// Blocking calls, outside the loop's thread.
//
// Name look-ups, and the callables of `to_thread::run_sync`, run on a few helper threads that the whole
// process shares. A helper is started when there is a call for it, and ends when there is none. A call whose
// operation was withdrawn is abandoned, not joined, so the call owns everything that it needs. If the system
// has no threads, or must not use them, a call runs in place. This part must not know what is called.

#if !defined(ANYIO_NET_NO_THREADS)
#include <atomic>
#include <mutex>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

class helper_pool;

/// A blocking call and its outcome. The job goes from its loop to the helpers' queue, to a helper, to the
/// mailbox of the loop and back. Its owners are counted: the operation that waits for the outcome, and the
/// place that holds the job. While the job is not with the helpers, all members except `work_` and the count
/// belong to the loop's thread.
class helper_job : public posted_node {
 public:
  explicit helper_job(void (*work)(helper_job&)) noexcept : work_(work) { how = &face_of_job; }

  /// Arranges the call; the waiter is queued afterwards. A call in place may have its outcome at once.
  /// Returns 0, or a negative errno if there is no helper and none can be started.
  [[nodiscard]] int begin(loop_core& loop, node& waiter);
  [[nodiscard]] bool begun() const noexcept { return stage_ != stage::idle; }
  [[nodiscard]] bool over() const noexcept { return stage_ == stage::over; }
  /// This process is a forked child, and the helper that was making the call is in the parent.
  [[nodiscard]] bool lost() const noexcept { return stage_ == stage::lost; }
  /// The outcome is not needed any more. False: the call is being made, and the caller must give up the job.
  [[nodiscard]] bool withdraw() noexcept;
  /// Removes one owner; the last one deletes the job.
  void release() noexcept;

 private:
  friend class helper_pool;
  enum class stage : std::uint8_t { idle, under_way, over, lost };

  void acquire() noexcept { ++owners_; }
  /// Makes the call on the loop's thread, at a moment that the system chooses.
  static void run_in_place(node& n);
  static void run(node& n);
  static void abandon(node& n);
  static node* owner(node&) { return nullptr; }
  static description describe(node&) { return {"helper thread"}; }
  static constexpr face face_of_job{run, abandon, owner, describe};
  static constexpr face face_in_place{run_in_place, abandon, owner, describe};

  void (*work_)(helper_job&);
  node* waiter_ = nullptr;
  timer turn_;
  std::size_t turns_ = 0;  // turns left until a call in place
  std::shared_ptr<mailbox> mail_;
  stage stage_ = stage::idle;
  stage next_stage_ = stage::over;  // the stage when it is back from the helpers
#if !defined(ANYIO_NET_NO_THREADS)
  std::atomic<unsigned> owners_{1};
  bool queued_ = false;  // guarded by the pool's mutex
#else
  unsigned owners_ = 1;
#endif
};

#if !defined(ANYIO_NET_NO_THREADS)

/// The helper threads of the process. A forked child has none of them: there the jobs go back to their loops,
/// which receive them if they run again after `loop::after_fork`.
class helper_pool {
 public:
  static constexpr std::size_t most_helpers = 16;

  /// Never destroyed, since an abandoned helper may still run when the process exits.
  [[nodiscard]] static helper_pool& instance();

  /// Returns 0, or a negative errno if there is no helper and none can be started.
  [[nodiscard]] int submit(backend& system, helper_job& job);
  /// Removes the job from the queue. False if a helper has begun it already.
  [[nodiscard]] bool take_back(helper_job& job) noexcept;

 private:
  helper_pool();
  static void serve();
  static void part_from_parent();
  static void give_back(helper_job& job, helper_job::stage then);

  std::mutex mutex_;
  link queue_;  // empty when there is no helper
  link performed_;
  std::size_t helpers_ = 0;
};

#endif

/// A callable that an operation runs on a helper thread. It may be moved only while idle.
template <class F>
class helper_call {
  static constexpr auto call = [](F& f) -> decltype(auto) {
    if constexpr (std::is_invocable_v<F&>) {
      return f();
    } else {
      return std::move(f)();
    }
  };

 public:
  using value_type = std::decay_t<std::invoke_result_t<decltype(call), F&>>;

  helper_call() = default;
  explicit helper_call(F&& f) : job_(new job(std::move(f))) {}
  helper_call(helper_call&& other) noexcept : job_(std::exchange(other.job_, nullptr)) {}
  helper_call& operator=(helper_call&& other) noexcept {
    if (this == &other) return *this;
    withdraw();
    if (job_ != nullptr) job_->release();
    job_ = std::exchange(other.job_, nullptr);
    return *this;
  }
  ~helper_call() {
    withdraw();
    if (job_ != nullptr) job_->release();
  }

  /// Whether it holds a callable.
  explicit operator bool() const noexcept { return job_ != nullptr; }

  /// Begins the call, or checks it. Returns true if there is an outcome; otherwise the waiter will be queued.
  bool attempt(loop_core& loop, node& waiter, const char* name, result<value_type>& out) {
    if (!job_->begun()) {
      if (const int status = job_->begin(loop, waiter); status < 0) {
        out = error(errc::os_error, -status, name);
        return true;
      }
    }
    if (job_->lost()) {  // the outcome may be half written, and is not touched
      withdraw();
      out = error_access::with_reason(error(errc::os_error, ECANCELED, name),
                                      "the helper thread exists only in the parent process");
      return true;
    }
    if (!job_->over()) return false;
    out = std::move(job_->outcome);
    return true;
  }
  /// Withdraws the call, so that it can begin again. A call that is being made is abandoned; then this is
  /// empty.
  void withdraw() noexcept {
    if (job_ == nullptr || !job_->begun() || job_->withdraw()) return;
    std::exchange(job_, nullptr)->release();
  }

 private:
  struct job final : helper_job {
    explicit job(F&& f) : helper_job(work), callable(std::move(f)) {}

    static void work(helper_job& base) {
      auto& self = static_cast<job&>(base);
#if ANYIO_NET_EXCEPTIONS
      try {
        self.make_call();
      } catch (const exception& e) {
        self.outcome = e.error();
      } catch (...) {
        self.outcome = result_access::foreign<value_type>(std::current_exception());
      }
#else
      self.make_call();
#endif
    }
    void make_call() {
      if constexpr (std::is_void_v<value_type>) {
        call(callable);
        outcome = result<void>();
      } else {
        outcome = result<value_type>(call(callable));
      }
    }

    F callable;
    result<value_type> outcome{errc::cancelled};
  };

  job* job_ = nullptr;
};

#if !defined(ANYIO_NET_NO_THREADS)

/// The operation that `to_thread::run_sync` returns.
template <class F>
class [[nodiscard]] run_sync_operation
    : public operation<run_sync_operation<F>, typename helper_call<F>::value_type> {
  using value = typename helper_call<F>::value_type;

 public:
  static constexpr const char* name = "run_sync";
  run_sync_operation() = default;
  explicit run_sync_operation(F&& f) : call_(std::move(f)) {}

 private:
  friend class operation<run_sync_operation, value>;
  static constexpr bool attempts_when_awaited = false;  // the loop makes even a call in place

  [[nodiscard]] errc check() const noexcept { return call_ ? errc::ok : errc::invalid_argument; }
  bool attempt(result<value>& out) { return this->pending() && call_.attempt(*this->core, *this, name, out); }
  void left() noexcept { call_.withdraw(); }

  helper_call<F> call_;
};

#endif

}  // namespace detail

#if !defined(ANYIO_NET_NO_THREADS)

namespace to_thread {

/// Calls `callable`, which only needs to be movable, on a helper thread and returns its value. An exception
/// that it throws is raised here unchanged. At most 16 calls run at a time in the process, name look-ups
/// included; further calls wait for their turn. Fails with `os_error` if the first helper cannot be started.
///
/// On cancellation, a call that has not begun is dropped, and a call that is being made is abandoned. An
/// abandoned call runs to its end, and its outcome is discarded. Its callable is destroyed later, on the
/// loop's thread or, if the loop is gone, on the helper. Everything that it refers to must live until then,
/// even beyond `main`.
///
/// In a simulation the call is made in place.
template <class F>
[[nodiscard]] auto run_sync(F&& callable) {
  return detail::run_sync_operation<std::decay_t<F>>(std::decay_t<F>(std::forward<F>(callable)));
}

}  // namespace to_thread

#endif

}}  // namespace anyio

// == stream/relay.hpp =============================================================================

// How a stream over another stream waits: the relay waits on the inner stream for the operation that waits on
// the outer one.
//
// The outer stream's verb calls the inner stream's verb. When that has to wait, the relay takes the reader's
// or the writer's place at the inner stream. When woken, it runs the outer operation at once, which tries
// again. So bytes taken from the inner stream always have an owner, and a cancelled wait only gives up its
// place. This part must not know how the outer stream uses the bytes.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// The place for one direction. It is never pending: it is woken but never begun, and only the operation that
/// it stands for counts as pending.
class relay final : public node {
 public:
  /// A function of the outer stream that runs when the relay is woken, with or without a waiting operation.
  using hook = void (*)(resource& outer, bool cancelled);

  /// With a hook, the relay keeps its place until it is woken or told to leave, even if no operation waits on
  /// the outer stream.
  relay(resource& outer, side s, hook woken = nullptr) noexcept : outer_(outer), woken_(woken), side_(s) {
    how = &face_of_relay;
  }
  ~relay() { leave(); }
  relay(const relay&) = delete;
  relay& operator=(const relay&) = delete;

  /// Whether another operation waits on the inner stream.
  [[nodiscard]] bool is_taken(const resource& inner) const noexcept {
    const node* waiter = inner.waiting(side_);
    return waiter != nullptr && waiter != this && !waiter->yields;
  }
  [[nodiscard]] bool waits() const noexcept { return inner_ != nullptr; }
  /// Prepares a call of the inner stream. An error if it is closed, or another operation waits there.
  [[nodiscard]] errc enter(resource& inner) noexcept {
    leave();
    if (!inner.open()) return errc::closed_resource;
    if (is_taken(inner)) return errc::busy_resource;
    // The outer stream is exhausted all the time, except after `refresh`: then the inner one has to look too.
    if (!std::exchange(outer_.exhausted[side_], true)) inner.exhausted[side_] = false;
    return errc::ok;
  }
  /// Waits on the inner stream, which the outer stream keeps alive.
  void join(resource& inner) noexcept {
    leave();
    inner_ = &inner;
    inner.set_waiting(side_, this);
  }
  /// Gives up the place, if there is one.
  void leave() noexcept {
    unlink();
    cancelled = false;
    resource* const inner = std::exchange(inner_, nullptr);
    if (inner != nullptr && inner->waiting(side_) == this) inner->set_waiting(side_, nullptr);
  }

 private:
  static void run(node& n) {
    auto& self = static_cast<relay&>(n);
    const ref<resource> alive(&self.outer_);
    const bool was_cancelled = self.cancelled;
    self.leave();
    if (self.woken_ != nullptr) self.woken_(self.outer_, was_cancelled);
    node* const waiter = self.outer_.waiting(self.side_);
    if (waiter == nullptr) return;
    if (was_cancelled) waiter->cancelled = true;
    waiter->how->run(*waiter);
    // If the operation was cancelled, its last attempt has joined again.
    if (self.outer_.waiting(self.side_) == nullptr) self.outer_.withdrawn(self.side_);
  }
  static void abandon(node& n) { n.unlink(); }
  static node* owner(node&) { return nullptr; }
  static description describe(node& n) { return {"relay", static_cast<relay&>(n).outer_.descriptor()}; }
  static constexpr face face_of_relay{run, abandon, owner, describe};

  resource& outer_;
  resource* inner_ = nullptr;  // set while the relay has a place there
  hook woken_;
  side side_;
};

}}}  // namespace anyio::detail

// == stream/lent_bytes.hpp ========================================================================

// Bytes to be sent, which belong to the caller or to the operation.
//
// A send works on the caller's bytes if possible. It keeps a string that was moved into it. It copies bytes
// in the loop's buffer, which the next receive overwrites, as soon as it has to wait. This part must not know
// how bytes are sent.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// A view of the caller's bytes, or bytes that this object owns.
class lent_bytes {
 public:
  lent_bytes() = default;
  explicit lent_bytes(const_buffer view) noexcept : view_(view) {}
  /// Owns a text. The `dropped` bytes before it are no longer needed.
  explicit lent_bytes(std::string&& text, std::size_t dropped = 0)
      : owned_(new owned(std::move(text), dropped)), view_(owned_->text) {}
  lent_bytes(lent_bytes&& other) noexcept = default;
  lent_bytes& operator=(lent_bytes&& other) noexcept = default;

  [[nodiscard]] const_buffer data() const noexcept { return view_; }
  void set_view(const_buffer view) noexcept { view_ = view; }
  /// The number of lent bytes before these that are no longer kept.
  [[nodiscard]] std::size_t dropped() const noexcept { return owned_ ? owned_->dropped : 0; }
  void start_over() noexcept {
    if (owned_) owned_->dropped = 0;
  }
  /// If the bytes lie in the loop's buffer, copies those after the first `used` bytes.
  void keep(const loop_core& loop, std::size_t used = 0) {
    if (owned_ || !loop.in_buffer(view_.data())) return;
    const auto* rest = reinterpret_cast<const char*>(view_.data()) + used;
    *this = lent_bytes(std::string(rest, view_.size() - used), used);
  }
  /// Keeps the whole loop buffer unchanged, in place of a copy of the bytes in it.
  void keep_buffer(const loop_core& loop) {
    if (!owned_) owned_.reset(new owned(std::string(), 0));
    if (!owned_->buffer) owned_->buffer = loop.share_buffer();
  }

 private:
  // Allocated separately, so that an operation that sends the caller's bytes stays small.
  struct owned : recycled {
    owned(std::string&& t, std::size_t n) noexcept : text(std::move(t)), dropped(n) {}
    std::string text;
    std::size_t dropped;
    std::shared_ptr<const void> buffer;
  };
  std::unique_ptr<owned> owned_;
  const_buffer view_;
};

}}}  // namespace anyio::detail

// == stream/stream.hpp ============================================================================

// Byte streams: their common interface, and its operations.
//
// The operations are common to all streams: sockets, memory, buffered or encrypted. Each operation works on
// the stream's resource through a few virtual verbs, and waits there as the reader or the writer. This part
// must not know names, listeners, or any particular kind of stream.

#include <sys/uio.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

class socket_stream;

namespace detail {

struct stream_access;

/// Pieces to send in order, and the progress of the send.
class outgoing {
 public:
  /// Begins after the first `offset` bytes of the first piece.
  explicit outgoing(std::span<const const_buffer> parts, std::size_t offset = 0) noexcept
      : parts_(parts), offset_(offset) {
    pass();
  }

  [[nodiscard]] bool done() const noexcept { return parts_.empty(); }
  /// Whether enough pieces were passed for one attempt; then there may be nothing at the front.
  [[nodiscard]] bool rests() const noexcept { return !done() && offset_ >= parts_.front().size(); }
  /// The rest of the first piece; not empty unless done.
  [[nodiscard]] const_buffer front() const noexcept {
    return const_buffer(parts_.front().data() + offset_, parts_.front().size() - offset_);
  }
  [[nodiscard]] std::size_t count() const noexcept { return parts_.size(); }
  /// The n-th piece that is left.
  [[nodiscard]] const_buffer piece(std::size_t n) const noexcept { return n == 0 ? front() : parts_[n]; }
  /// The largest number of pieces that one call takes.
  static constexpr std::size_t parts_of_call = 64;
  /// The pieces that are left, as many as one call takes.
  std::span<const ::iovec> gather(::iovec (&into)[parts_of_call]) const noexcept;
  void advance(std::size_t n) noexcept {
    sent_ += n;
    offset_ += n;
    pass();
  }
  [[nodiscard]] std::size_t sent() const noexcept { return sent_; }
  /// Where another attempt continues: the pieces that are left, and how many bytes of the first were sent.
  [[nodiscard]] std::span<const const_buffer> parts() const noexcept { return parts_; }
  [[nodiscard]] std::size_t offset() const noexcept { return offset_; }

 private:
  /// Drops pieces that were sent, and empty pieces too: there may be millions of them.
  void pass() noexcept {
    while (rests() && patience_ != 0) {
      --patience_;
      offset_ -= parts_.front().size();
      parts_ = parts_.subspan(1);
    }
  }
  std::span<const const_buffer> parts_;
  std::size_t offset_ = 0;
  std::size_t sent_ = 0;
  std::uint32_t patience_ = 1024;
};

/// The progress that a verb of a stream made.
enum class progress : std::uint8_t {
  done,     // there is an outcome
  waiting,  // the resource wakes the operation that waits on that side
  again,    // enough for one turn; the operation must try again, since no event will come
};

/// A byte stream as its operations see it. A verb is called only on an open resource, and by one reader and
/// one writer at a time.
class stream_resource : public resource {
 public:
  using resource::resource;

  virtual progress receive(mutable_buffer into, result<std::size_t>& out) = 0;
  /// Receives at most `max_bytes` into memory that stays unchanged until the loop continues: the loop's
  /// buffer, unless the stream has another buffer.
  ANYIO_NET_FN virtual progress receive_view(std::size_t max_bytes, result<std::string_view>& out);
  virtual progress send(outgoing& data, result<void>& out) = 0;
  /// Sends one piece, and adds to `sent`. A stream may have a shorter way than `send`.
  ANYIO_NET_FN virtual progress send_piece(const_buffer data, std::size_t& sent, result<void>& out);
  virtual progress send_eof(result<void>& out) = 0;
  /// Ends the stream in order, after `begin_closing` and before `close`. It is done when the peer has seen
  /// the end, or is gone. Waits on the read side.
  virtual progress finish() = 0;

  [[nodiscard]] bool eof_sent() const noexcept { return eof_sent_; }

 protected:
  /// Counts a system call that moved `n` bytes, or failed.
  void count_call(ssize_t n) noexcept { core().count_work(n > 0 ? static_cast<std::size_t>(n) : 0); }
  static constexpr std::size_t work_of_part = 256;  // a gathered piece counts as so many bytes

  bool eof_sent_ = false;
};

/// Guards bytes that were taken from a stream and not yet passed on. If an exception occurs before that, for
/// lack of memory, the stream is closed: no read may continue after the lost bytes.
class received_bytes {
 public:
  explicit received_bytes(resource& from) noexcept : from_(&from) {}
  received_bytes(const received_bytes&) = delete;
  received_bytes& operator=(const received_bytes&) = delete;
  ~received_bytes() {
    if (from_ != nullptr) from_->close();
  }
  void handed_over() noexcept { from_ = nullptr; }

 private:
  resource* from_;
};

/// The base of operations on streams. It turns the progress of a verb into the result of an attempt.
template <class Derived, class T, side Side>
class stream_operation : public resource_operation<Derived, T, stream_resource, Side> {
 public:
  using resource_operation<Derived, T, stream_resource, Side>::resource_operation;

 protected:
  /// True when done. Otherwise the operation takes another turn or waits.
  bool settle(progress p) noexcept {
    if (p == progress::again) this->again = true;
    return p == progress::done;
  }
};

/// The base of operations that receive. While the poller reports nothing new, they make no attempt.
template <class Derived, class T>
class stream_receive : public stream_operation<Derived, T, read_side> {
 public:
  using stream_operation<Derived, T, read_side>::stream_operation;

 protected:
  friend class operation<Derived, T>;

  [[nodiscard]] bool in_vain() const noexcept {
    return this->resource_->poller_tells && this->resource_->exhausted[read_side];
  }
};

}  // namespace detail

/// Receives into the caller's buffer, and returns the number of bytes, at least one.
class [[nodiscard]] receive_operation : public detail::stream_receive<receive_operation, std::size_t> {
 public:
  static constexpr const char* name = "receive";
  receive_operation() = default;
  receive_operation(detail::ref<detail::stream_resource> r, mutable_buffer into)
      : stream_receive(std::move(r)), into_(into) {}

 private:
  friend class detail::operation<receive_operation, std::size_t>;

  [[nodiscard]] errc check() const noexcept {
    return into_.empty() ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::size_t>& out) { return settle(resource_->receive(into_, out)); }
  mutable_buffer into_;
};

/// Returns a view of the received bytes, valid until the caller next waits or returns.
class [[nodiscard]] receive_view_operation
    : public detail::stream_receive<receive_view_operation, std::string_view> {
 public:
  static constexpr const char* name = "receive_view";
  receive_view_operation() = default;
  explicit receive_view_operation(detail::ref<detail::stream_resource> r) : stream_receive(std::move(r)) {}

 private:
  friend class detail::operation<receive_view_operation, std::string_view>;

  bool attempt(result<std::string_view>& out) {
    return settle(resource_->receive_view(static_cast<std::size_t>(-1), out));
  }
};

/// Returns a string of the received bytes, allocated only once they have arrived.
class [[nodiscard]] receive_string_operation
    : public detail::stream_receive<receive_string_operation, std::string> {
 public:
  static constexpr const char* name = "receive";
  receive_string_operation() = default;
  receive_string_operation(detail::ref<detail::stream_resource> r, std::size_t max_bytes)
      : stream_receive(std::move(r)), max_bytes_(max_bytes) {}

 private:
  friend class detail::operation<receive_string_operation, std::string>;

  [[nodiscard]] errc check() const noexcept {
    return max_bytes_ == 0 ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::string>& out) {
    result<std::string_view> view(errc::cancelled);
    if (!settle(resource_->receive_view(max_bytes_, view))) return false;
    if (view.has_value()) {
      detail::received_bytes bytes(*resource_);
      out = std::string(*view);
      bytes.handed_over();
    } else {
      out = view.error();
    }
    return true;
  }
  std::size_t max_bytes_ = 0;
};

/// Sends all of the bytes. It begins inside `start` or `co_await`, so that a view just received can be sent.
class [[nodiscard]] send_operation
    : public detail::stream_operation<send_operation, void, detail::write_side> {
 public:
  static constexpr const char* name = "send";
  send_operation() = default;
  send_operation(detail::ref<detail::stream_resource> r, const_buffer data)
      : stream_operation(std::move(r)), bytes_(data) {}
  send_operation(detail::ref<detail::stream_resource> r, std::string&& data)
      : stream_operation(std::move(r)), bytes_(std::move(data)) {}
  send_operation(detail::ref<detail::stream_resource> r, std::span<const const_buffer> parts)
      : stream_operation(std::move(r)), parts_(parts) {}

  /// The number of bytes sent, also by an operation that was cancelled or failed. An operation that was
  /// started again counts from zero.
  [[nodiscard]] std::size_t sent() const noexcept { return sent_; }
  void keep_loan();

 private:
  friend class detail::operation<send_operation, void>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<void>& out);
  void started();
  void left() noexcept;
  bool transfer(result<void>& out);
  detail::progress transfer_parts(result<void>& out);
  [[nodiscard]] detail::outgoing rest_of_parts() const noexcept;

  detail::lent_bytes bytes_;
  // The pieces, if any, replace `bytes_`. Then the view in `bytes_` says where the next attempt begins: its
  // data points to the first piece that is left, and its size is the number of bytes of that piece that were
  // sent. A null view means the beginning.
  std::span<const const_buffer> parts_;
  std::size_t sent_ = 0;
  [[no_unique_address]] error outcome_;
  bool over_ = false;     // completed in `started`, and the outcome is not yet reported
  bool restart_ = false;  // the next attempt is the first of a new send
};

/// Half-closes the stream.
class [[nodiscard]] send_eof_operation
    : public detail::stream_operation<send_eof_operation, void, detail::write_side> {
 public:
  static constexpr const char* name = "send_eof";
  send_eof_operation() = default;
  explicit send_eof_operation(detail::ref<detail::stream_resource> r) : stream_operation(std::move(r)) {}

 private:
  friend class detail::operation<send_eof_operation, void>;

  bool attempt(result<void>& out) { return settle(resource_->send_eof(out)); }
};

/// Closes the stream in order. If this operation is destroyed while it is pending, the stream closes at once.
class [[nodiscard]] aclose_operation
    : public detail::stream_operation<aclose_operation, void, detail::read_side> {
 public:
  static constexpr const char* name = "aclose";
  aclose_operation() = default;
  explicit aclose_operation(detail::ref<detail::stream_resource> r) : stream_operation(std::move(r)) {}
  aclose_operation(aclose_operation&&) = default;
  aclose_operation& operator=(aclose_operation&& other) noexcept;
  ~aclose_operation();

 private:
  friend class detail::operation<aclose_operation, void>;

  [[nodiscard]] errc check() const noexcept { return made ? errc::ok : errc::invalid_argument; }
  [[nodiscard]] bool is_refused() const noexcept { return false; }
  [[nodiscard]] errc enter() noexcept;
  bool attempt(result<void>& out);
  void left() noexcept;
  void start_closing() noexcept;
  void abandon() noexcept;

  bool begun_ = false;
  detail::timer patience_;
};

/// A stream of bytes in both directions: the base of everything in this library that sends and receives
/// bytes.
///
/// One task may receive and one may send at a time. Destroying the stream closes it at once. A
/// default-constructed or moved-from stream is closed. While the system is short of memory (ENOBUFS, ENOMEM),
/// an operation waits and tries again, with pauses that grow.
class byte_stream {
 public:
  byte_stream(byte_stream&&) noexcept = default;
  byte_stream& operator=(byte_stream&& other) noexcept;
  ANYIO_NET_FN virtual ~byte_stream();

  /// Whether this end of the stream is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }

  /// Receives at least one byte, and at most as many as the buffer has room for. Returns the number of bytes.
  /// At the end of the stream raises `end_of_stream`.
  [[nodiscard]] receive_operation receive(mutable_buffer into) { return {resource_, into}; }
  /// Receives a string of at least one byte, and at most `max_bytes` but not more than 64 KiB. The string is
  /// allocated only once bytes have arrived. If there is no memory for it, the bytes are lost, and the stream
  /// is closed.
  [[nodiscard]] receive_string_operation receive(std::size_t max_bytes = 65536) {
    return {resource_, max_bytes};
  }
  /// Receives at least one byte without a copy, and returns a view that is valid until the caller next waits
  /// or returns. The view may be passed to one send that is made before that.
  [[nodiscard]] receive_view_operation receive_view() { return receive_view_operation(resource_); }

  /// Sends all of the bytes. The caller owns the bytes, and must keep them until completion; the operation
  /// keeps a string that is passed as an rvalue.
  [[nodiscard]] send_operation send(const_buffer data) { return {resource_, data}; }
  template <detail::string_rvalue S>
  [[nodiscard]] send_operation send(S&& data) {
    return {resource_, std::move(data)};
  }
  /// Sends all pieces in order, in one system call where possible. The caller must keep the bytes and the
  /// array of pieces until completion.
  [[nodiscard]] send_operation send(std::span<const const_buffer> parts) { return {resource_, parts}; }
  /// Ends the sending direction. The peer receives `end_of_stream` after the bytes that were sent. Calling it
  /// again has no effect.
  [[nodiscard]] send_eof_operation send_eof() { return send_eof_operation(resource_); }

  /// Closes the stream so that the peer gets all bytes that were sent. Bytes that the peer still sends are
  /// discarded, for at most a second. Never fails because of the peer. Pending operations on this stream end
  /// with `closed_resource`.
  [[nodiscard]] aclose_operation aclose() { return aclose_operation(resource_); }
  /// Closes the stream at once; calling it again has no effect. Pending operations end with
  /// `closed_resource`. Sent bytes may be lost if the peer sends bytes that are not received, as TLS 1.3
  /// servers do by themselves: `aclose` loses nothing.
  ///
  /// If the program has set SO_LINGER with a time, this and the destructor block the loop until the data has
  /// been sent or the time is over (socket(7)).
  void close() noexcept {
    if (resource_) resource_->close();
  }
  /// The innermost socket, or null.
  [[nodiscard]] virtual socket_stream* socket() noexcept = 0;

 protected:
  friend struct detail::stream_access;
  byte_stream() = default;
  explicit byte_stream(detail::ref<detail::stream_resource> r) noexcept : resource_(std::move(r)) {}

  detail::ref<detail::stream_resource> resource_;
};

namespace detail {

/// For the parts that make streams, or build on one.
struct stream_access {
  static const ref<stream_resource>& resource_of(const byte_stream& s) noexcept { return s.resource_; }
};

}  // namespace detail

}}  // namespace anyio

// == stream/buffered.hpp ==========================================================================

// Reading by length and by delimiter, over any byte stream.
//
// Bytes that were read ahead lie in a buffer of the stream, which is allocated when bytes arrive and freed
// when it is empty and small. An operation first takes bytes from the buffer, and then calls the verbs of the
// inner stream, so that a cancelled operation leaves every byte for the next one. This part must not know
// sockets.

#include <bit>

namespace anyio { inline namespace ANYIO_NET_ABI {

class buffered_stream;
class unique_fd;
class unix_stream;

namespace detail {

/// Reads from the inner stream in place of its own verb, and keeps the descriptors that come with the bytes.
class fd_keeper {
 public:
  fd_keeper() = default;
  fd_keeper(const fd_keeper&) = delete;
  fd_keeper& operator=(const fd_keeper&) = delete;
  virtual ~fd_keeper() = default;
  virtual progress receive(mutable_buffer into, result<std::size_t>& out) = 0;

  /// How many bytes were added to the buffer, or went past it, so far.
  std::uint64_t arrived = 0;
  /// What the reader wants: so many bytes, or those up to this one. A read goes no further while descriptors
  /// are on their way, so that they come with the first byte of their message. 0 and -1 mean all.
  std::size_t wanted = 0;
  int last_wanted = -1;
};

class buffered_resource final : public stream_resource {
 public:
  /// `object` is the inner stream; `owned`, unless null, owns it.
  buffered_resource(ref<stream_resource> inner, byte_stream& object, std::unique_ptr<byte_stream> owned,
                    std::unique_ptr<fd_keeper> keeper = nullptr) noexcept;
  ANYIO_NET_FN ~buffered_resource() override;

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress receive_view(std::size_t max_bytes, result<std::string_view>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  ANYIO_NET_FN progress finish() override;
  void withdrawn(side s) noexcept override { relays_[s].leave(); }
  [[nodiscard]] int descriptor() const noexcept override { return inner_->descriptor(); }

  /// Reads once from the inner stream into the buffer, at most `at_most` bytes.
  progress fill(std::size_t at_most, result<std::size_t>& out);
  /// Reads once from the inner stream into `into`, past the buffer.
  progress fill_directly(mutable_buffer into, result<std::size_t>& out);
  /// Reads until `size` bytes are in the buffer. With an error, there are fewer.
  progress gather(std::size_t size, const char* name, error& failure);
  /// Moves the next `size` bytes to `into`.
  progress take_exactly(void* into, std::size_t size, const char* name, error& failure);
  /// Closes this stream. Closes the inner stream only if this stream owns it.
  void let_go() noexcept;
  [[nodiscard]] socket_stream* socket() const noexcept { return object_.socket(); }

  byte_queue bytes;
  const std::unique_ptr<fd_keeper> keeper;

 private:
  ANYIO_NET_FN void shut() noexcept override;
  template <class T, class Verb>
  progress pass(side s, const char* name, result<T>& out, Verb verb);
  progress read_view(std::size_t max_bytes, result<std::string_view>& out);
  progress keep_fds(std::size_t max_bytes, result<std::string_view>& out);

  ref<stream_resource> inner_;
  byte_stream& object_;
  std::unique_ptr<byte_stream> owned_;
  relay relays_[2];
  bool let_go_ = false;
};

/// The error of a read that ended before it had enough bytes.
[[nodiscard]] error read_failure(error e, bool bytes_are_left, const char* name) noexcept;

/// Receives a string of exactly `size` bytes.
class [[nodiscard]] receive_exactly_string_operation
    : public resource_operation<receive_exactly_string_operation, std::string, buffered_resource, read_side> {
 public:
  static constexpr const char* name = "receive_exactly";
  receive_exactly_string_operation() = default;
  receive_exactly_string_operation(ref<buffered_resource> r, std::size_t size) noexcept
      : resource_operation(std::move(r)), size_(size) {}

 private:
  friend class operation<receive_exactly_string_operation, std::string>;
  bool attempt(result<std::string>& out);
  std::size_t size_ = 0;
};

/// Fills the caller's buffer. If it does not complete, the bytes that are already there go back to the
/// stream.
class [[nodiscard]] receive_exactly_operation
    : public resource_operation<receive_exactly_operation, void, buffered_resource, read_side> {
 public:
  static constexpr const char* name = "receive_exactly";
  receive_exactly_operation() = default;
  receive_exactly_operation(ref<buffered_resource> r, mutable_buffer into) noexcept
      : resource_operation(std::move(r)), into_(into) {}
  receive_exactly_operation(receive_exactly_operation&&) = default;
  receive_exactly_operation& operator=(receive_exactly_operation&& other) noexcept;
  ~receive_exactly_operation();

 private:
  friend class operation<receive_exactly_operation, void>;
  bool attempt(result<void>& out);
  bool fail(error e, result<void>& out);
  void left() noexcept;
  void put_back();

  mutable_buffer into_;
  std::size_t filled_ = 0;
};

/// Receives an integer of a fixed size.
template <class Int>
class [[nodiscard]] receive_int_operation
    : public resource_operation<receive_int_operation<Int>, Int, buffered_resource, read_side> {
  using base = resource_operation<receive_int_operation, Int, buffered_resource, read_side>;

 public:
  static constexpr const char* name = "receive_int";
  receive_int_operation() = default;
  receive_int_operation(ref<buffered_resource> r, std::endian order) noexcept
      : base(std::move(r)), order_(order) {}

 private:
  friend class operation<receive_int_operation, Int>;
  bool attempt(result<Int>& out) {
    unsigned char bytes[sizeof(Int)];
    error failure;
    const progress p = this->resource_->take_exactly(bytes, sizeof bytes, name, failure);
    if (p == progress::again) this->again = true;
    if (p != progress::done) return false;
    if (failure.code() != errc::ok) return complete(out, failure);
    std::make_unsigned_t<Int> value = 0;
    for (std::size_t i = 0; i < sizeof bytes; ++i) {
      const unsigned char next = bytes[order_ == std::endian::big ? i : sizeof bytes - 1 - i];
      value = static_cast<std::make_unsigned_t<Int>>((sizeof bytes == 1 ? 0 : value << 8) | next);
    }
    return complete(out, static_cast<Int>(value));
  }

  std::endian order_ = std::endian::big;
};

/// Receives the bytes before a delimiter.
class [[nodiscard]] receive_until_operation
    : public resource_operation<receive_until_operation, std::string, buffered_resource, read_side> {
 public:
  static constexpr const char* name = "receive_until";
  receive_until_operation() = default;
  receive_until_operation(ref<buffered_resource> r, std::string_view delimiter, std::size_t max_bytes,
                          bool line)
      : resource_operation(std::move(r)), delimiter_(delimiter), max_bytes_(max_bytes), line_(line) {}

 private:
  friend class operation<receive_until_operation, std::string>;
  [[nodiscard]] const char* operation_name() const noexcept { return line_ ? "receive_line" : name; }
  [[nodiscard]] errc check() const noexcept {
    return delimiter_.empty() || max_bytes_ == 0 ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::string>& out);
  bool fail(error e, result<std::string>& out);
  void left() noexcept;

  std::string delimiter_;
  std::size_t max_bytes_ = 0;
  std::size_t searched_ = 0;  // no delimiter begins before this offset
  bool line_ = false;
};

}  // namespace detail

/// A stream that can also be read by length and by delimiter. It reads ahead, so all reads must go through it
/// only; sending goes directly to the inner stream. `close` and `aclose` close the inner stream too.
///
/// Constructed from a reference, it borrows the inner stream and leaves it open when destroyed. The
/// referenced stream may be moved while an operation is pending here, but not before a call of `socket()`.
/// Constructed from a pointer, it owns the inner stream.
class buffered_stream : public byte_stream {
 public:
  buffered_stream() = default;
  /// Borrows a stream, which must live as long as this one is used.
  explicit buffered_stream(byte_stream& inner);
  /// Owns a stream.
  explicit buffered_stream(std::unique_ptr<byte_stream> inner);
  /// Borrows a UNIX stream, and keeps the descriptors that come with its bytes; see `take_fds`. If a message
  /// brings so many that more than `max_fds` would be kept, they are closed, its bytes are dropped, and this
  /// read and all later ones fail with `fds_truncated`.
  buffered_stream(unix_stream& inner, std::size_t max_fds);
  buffered_stream(buffered_stream&&) noexcept = default;
  buffered_stream& operator=(buffered_stream&& other) noexcept;
  ANYIO_NET_FN ~buffered_stream() override;

  /// Receives exactly `size` bytes. If the stream ends before that, fails with `incomplete_read`, or with
  /// `end_of_stream` if no byte was left. On failure or cancellation the bytes received so far stay buffered.
  /// A size of 0 returns an empty string at once.
  [[nodiscard]] detail::receive_exactly_string_operation receive_exactly(std::size_t size) {
    return {own(), size};
  }
  /// Fills the caller's buffer completely; large reads go past the stream's own buffer. If the stream ends
  /// before that, fails with `incomplete_read`, or with `end_of_stream` if no byte was left. On failure or
  /// cancellation the bytes received so far go back to the stream.
  [[nodiscard]] detail::receive_exactly_operation receive_exactly(mutable_buffer into) {
    return {own(), into};
  }
  /// Receives the bytes before the delimiter, which is consumed but not returned. Reads no further than
  /// `max_bytes`, the delimiter included, and fails with `delimiter_not_found` once so many bytes are
  /// buffered without a delimiter. A delimiter that is buffered already is found wherever it is. Fails as
  /// `receive_exactly` at the end of the stream. An empty delimiter or a `max_bytes` of 0 is
  /// `invalid_argument`.
  [[nodiscard]] detail::receive_until_operation receive_until(std::string_view delimiter,
                                                              std::size_t max_bytes) {
    return {own(), delimiter, max_bytes, false};
  }
  /// Receives a line up to LF. It returns neither the LF nor one CR before it.
  [[nodiscard]] detail::receive_until_operation receive_line(std::size_t max_bytes = 65536) {
    return {own(), "\n", max_bytes, true};
  }
  /// Receives an integer of sizeof(Int) bytes, in network byte order unless `order` says otherwise. Fails as
  /// `receive_exactly` does.
  template <class Int>
  [[nodiscard]] detail::receive_int_operation<Int> receive_int(std::endian order = std::endian::big) {
    static_assert(std::is_integral_v<Int> && !std::is_same_v<std::remove_cv_t<Int>, bool>,
                  "receive_int receives an integer, for instance receive_int<std::uint16_t>()");
    return {own(), order};
  }
  /// Returns the descriptors that came with or before the bytes taken from this stream so far, in order; each
  /// is returned once. A descriptor belongs to the first byte of the `send_fds` that sent it. Empty unless
  /// the stream was constructed with `max_fds`.
  [[nodiscard]] std::vector<unique_fd> take_fds();
  /// Appends a copy of the bytes to the buffered bytes, as if they had been received.
  void feed_data(const_buffer data);
  /// The buffered bytes; valid until the next read or `feed_data`.
  [[nodiscard]] std::string_view buffer() const noexcept;
  [[nodiscard]] ANYIO_NET_FN socket_stream* socket() noexcept override;

 private:
  [[nodiscard]] detail::ref<detail::buffered_resource> own() const noexcept {
    return detail::ref<detail::buffered_resource>(static_cast<detail::buffered_resource*>(resource_.get()));
  }
  void let_go() noexcept;
};

}}  // namespace anyio

// == stream/copy.hpp ==============================================================================

// Moving bytes from one stream to another: `copy` in one direction, `relay` in both.
//
// A pump moves the bytes of one direction. Bytes go through memory, and through a pipe inside the kernel when
// both streams are sockets, the system can do it (splice(2)), and there are many of them. An operation waits
// as the reader and as the writer of its streams itself, so that it sees every byte that moves. This part
// must not know what kinds of streams there are, but for sockets.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// One direction: its streams, and the bytes that were taken from one and not yet sent to the other.
class pump {
 public:
  pump() = default;
  pump(byte_stream& from, byte_stream& to, bool half_closes);
  pump(pump&&) noexcept = default;
  pump& operator=(pump&&) noexcept = default;

  [[nodiscard]] errc check(const node& own) const noexcept;
  void enter(node& own) noexcept;
  void leave(node& own) noexcept;
  void refresh() noexcept;
  /// Moves bytes until it has to wait, or has done enough for one turn. Done: at the end, or an error.
  progress move(result<void>& out);
  /// Begins anew with the next use.
  void start_over() noexcept;

  [[nodiscard]] bool over() const noexcept { return over_; }
  [[nodiscard]] loop_core* core() const noexcept { return from_ ? &from_->core() : nullptr; }
  [[nodiscard]] int descriptor() const noexcept { return from_ ? from_->descriptor() : -1; }

  std::uint64_t sent = 0;
  bool moved = false;              // bytes, since this was cleared
  bool cannot_half_close = false;  // the end is over, and the other stream cannot be told

 private:
  struct store : recycled {
    byte_queue rest;
    unique_fd pipe[2];  // the end to read from, the end to write to
    std::size_t in_pipe = 0;
    std::uint32_t small_moves = 0;  // in a row
    std::uint32_t large_moves = 0;
  };
  progress step(result<void>& out);
  progress receive(result<void>& out);
  progress send_rest(result<void>& out);
  progress fill_pipe(result<void>& out);
  progress drain_pipe(result<void>& out);
  progress finish(result<void>& out);
  progress give_up_splicing(result<void>& out);
  void begin_splicing();
  void count_sent(std::size_t n) noexcept;

  ref<stream_resource> from_;
  ref<stream_resource> to_;
  std::unique_ptr<store> store_;
  bool may_splice_ = false;  // both streams are sockets
  bool half_closes_ = false;
  bool splicing_ = false;
  bool sending_ = false;  // a send is not finished
  bool ended_ = false;
  bool over_ = false;
};

}  // namespace detail

/// The operation that `copy` returns.
class [[nodiscard]] copy_operation : public detail::operation<copy_operation, std::uint64_t> {
 public:
  static constexpr const char* name = "copy";
  copy_operation() = default;
  copy_operation(byte_stream& from, byte_stream& to) : operation(true), pump_(from, to, false) {}
  copy_operation(copy_operation&&) = default;
  copy_operation& operator=(copy_operation&& other) noexcept;
  ~copy_operation() { withdraw(); }

 private:
  friend class detail::operation<copy_operation, std::uint64_t>;
  [[nodiscard]] errc check() const noexcept { return made ? pump_.check(*this) : errc::invalid_argument; }
  [[nodiscard]] errc enter() noexcept {
    pump_.enter(*this);
    return errc::ok;
  }
  bool attempt(result<std::uint64_t>& out);
  void left() noexcept { pump_.leave(*this); }
  void refresh() noexcept { pump_.refresh(); }
  [[nodiscard]] detail::loop_core& home() const;
  [[nodiscard]] int descriptor() const noexcept { return pump_.descriptor(); }

  detail::pump pump_;
};

/// How many bytes a relay moved.
struct relay_result {
  std::uint64_t a_to_b = 0;  ///< from the first stream to the second
  std::uint64_t b_to_a = 0;  ///< from the second stream to the first
};

/// Options of `relay`.
struct relay_options {
  /// How long no byte may move in either direction before the relay fails with `timed_out`.
  duration idle = duration::max();
};

/// The operation that `relay` returns.
class [[nodiscard]] relay_operation : public detail::operation<relay_operation, relay_result> {
 public:
  static constexpr const char* name = "relay";
  relay_operation() = default;
  relay_operation(byte_stream& a, byte_stream& b, relay_options options)
      : operation(true), pumps_{{a, b, true}, {b, a, true}}, idle_(options.idle) {}
  relay_operation(relay_operation&&) = default;
  relay_operation& operator=(relay_operation&& other) noexcept;
  ~relay_operation() { withdraw(); }

 private:
  friend class detail::operation<relay_operation, relay_result>;
  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] errc enter() noexcept;
  bool attempt(result<relay_result>& out);
  bool is_idle_for_too_long();
  void left() noexcept;
  void refresh() noexcept;
  [[nodiscard]] detail::loop_core& home() const;
  [[nodiscard]] int descriptor() const noexcept { return pumps_[0].descriptor(); }

  detail::pump pumps_[2];
  duration idle_ = duration::max();
  time_point last_move_{};
  detail::timer timer_;
  bool second_first_ = false;  // the directions take turns
};

/// Moves all bytes from one stream to the other, until the end of `from`, and returns their number.
/// Half-closes nothing. Both streams must live as long as this runs, and belong to the same loop.
///
/// It is the reader of `from` and the writer of `to` all the time. Between two sockets many bytes stay in the
/// kernel where the system allows it (splice(2)). An operation that was cancelled or has failed keeps the
/// bytes that it took and could not send, and continues with them if it is started again; they are lost with
/// it: at most 64 KiB, or what a pipe holds.
[[nodiscard]] copy_operation copy(byte_stream& from, byte_stream& to);

/// Connects two streams: moves bytes in both directions until both have ended, and returns how many. The end
/// of one stream half-closes the other; if that is not possible (TLS 1.2), it ends the relay. An error of
/// either stream ends the relay with that error. Leaves both streams open.
///
/// For all else see `copy`. With `idle`, fails with `timed_out` once no byte has moved in either direction
/// for so long; a part of a send that is not finished counts.
[[nodiscard]] relay_operation relay(byte_stream& a, byte_stream& b, relay_options options = {});

}}  // namespace anyio

// == stream/descriptor_stream.hpp =================================================================

// Byte streams on a descriptor of their own, which is in the poller as long as the stream is open. This part
// must not know what kind of descriptor it is.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

class descriptor_resource : public stream_resource {
 public:
  ~descriptor_resource() override { close(); }

  [[nodiscard]] int descriptor() const noexcept override { return registration_.fd; }
  int release(bool restore) noexcept;
  /// Whether a call that returned `n` found nothing to do, or no memory, which leaves the stream as it is.
  /// Then the waiting operation is woken when it may try again.
  [[nodiscard]] bool must_wait(side s, ssize_t n) noexcept {
    if (n >= 0) return false;
    if (n == -EAGAIN) {
      exhausted[s] = true;
      return true;
    }
    if (!is_shortage(n)) return false;
    core().wait_for_memory(short_of_memory_, *this);
    return true;
  }
  /// Whether the descriptor was blocking when it was taken over.
  bool was_blocking = false;

 protected:
  /// Takes over the descriptor, unless it cannot be watched: then it stays the caller's. 0 or a negative
  /// errno.
  descriptor_resource(loop_core& core, int fd, int& status) : stream_resource(core) {
    registration_.fd = fd;
    status = core.watch(registration_, *this);
    if (status < 0) registration_.fd = -1;
  }

  registration registration_;

 private:
  void shut() noexcept override { core().forget(registration_); }

  starved short_of_memory_;
};

}  // namespace detail

/// A byte stream that has a descriptor.
class descriptor_stream : public byte_stream {
 public:
  /// The descriptor, which this stream still owns; -1 if closed.
  [[nodiscard]] int native_handle() const noexcept { return resource_ ? resource_->descriptor() : -1; }
  /// Releases the open descriptor to the caller, who then owns it. Pending operations end with
  /// `closed_resource`.
  ///
  /// The descriptor stays non-blocking (O_NONBLOCK), which blocking code and other programs may not expect.
  /// With `restore`, a descriptor that was blocking when `from_fd` took it over becomes blocking again.
  [[nodiscard]] int release(bool restore = false) noexcept;

 protected:
  descriptor_stream() = default;
  explicit descriptor_stream(detail::ref<detail::descriptor_resource> r) noexcept
      : byte_stream(std::move(r)) {}
};

}}  // namespace anyio

// == stream/socket.hpp ============================================================================

// Stream sockets: TCP and UNIX.
//
// A short read means that the kernel's buffer was empty, so the next receive waits without a system call.
// After the poller has reported an end, an error or urgent data, no further edge may come: then the socket is
// read until the kernel has no more bytes. This part must not know names, or how a connection is made.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A connected stream socket.
class socket_resource : public descriptor_resource {
 public:
  /// Takes over the descriptor, unless it cannot be watched. Sets `status` to 0 or a negative errno.
  socket_resource(loop_core& core, int fd, bool is_unix, int& status)
      : descriptor_resource(core, fd, status), is_unix_(is_unix) {
    poller_tells = true;
  }

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress receive_view(std::size_t max_bytes, result<std::string_view>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_piece(const_buffer data, std::size_t& sent, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  ANYIO_NET_FN progress finish() override;

  /// Sends bytes of a file, and adds their number to `sent`.
  progress send_file(int file, std::uint64_t offset, std::uint64_t count, std::uint64_t& sent,
                     result<void>& out);

  // --- for descriptor passing
  /// The error for a failed or empty read. `error_number` is the errno of the read, or 0 for an end.
  [[nodiscard]] error end_of_reading(int error_number, const char* operation) noexcept;
  [[nodiscard]] error end_of_writing(int error_number, const char* operation) noexcept;
  /// The outcome of a call that could not send.
  progress failed_send(ssize_t status, result<void>& out);
  /// Whether the end of the stream was received.
  [[nodiscard]] bool ended() const noexcept { return ended_; }
  /// Records a read of `size` bytes into a buffer of `room` bytes.
  void note_read(std::size_t size, std::size_t room, bool more_may_follow) noexcept {
#if !defined(__linux__)
    more_may_follow |= is_unix_;  // there a read stops before a message with descriptors, but reports nothing
#endif
    exhausted[read_side] = size < room && !read_to_end && !more_may_follow;
  }

 private:
  template <class T, class Make>
  progress read_once(mutable_buffer into, result<T>& out, Make make);
  ssize_t read_some(void* data, std::size_t size, bool& more_may_follow);
  [[nodiscard]] int cause_of(int error_number) noexcept;
  void note_cause(int error_number) noexcept;

  int broken_ = 0;               // the first errno that broke the connection
  std::uint32_t discarded_ = 0;  // KiB discarded by finish()
  bool is_unix_;
  bool ended_ = false;
};

class tcp_resource final : public socket_resource {
 public:
  tcp_resource(loop_core& core, int fd, int& status) : socket_resource(core, fd, false, status) {}
  ip_endpoint local;
  ip_endpoint remote;
};

class unix_resource final : public socket_resource {
 public:
  unix_resource(loop_core& core, int fd, int& status) : socket_resource(core, fd, true, status) {}
  std::shared_ptr<const std::string> local;  // null: unnamed
  std::shared_ptr<const std::string> remote;
};

class socket_access;
class peek_operation;
template <side Side>
class readiness_operation;

/// setsockopt(2) for a user's socket, which may be null or closed. Errors are `os_error` and
/// `closed_resource`.
[[nodiscard]] result<> set_option_of(const resource* r, int level, int name, const void* value,
                                     socklen_t size, const char* operation);
/// getsockopt(2) for a user's socket. Returns the size of the value.
[[nodiscard]] result<socklen_t> get_option_of(const resource* r, int level, int name, void* value,
                                              socklen_t size, const char* operation);
/// An option of type int, of which the system may write only one byte.
[[nodiscard]] result<int> get_int_option_of(const resource* r, int level, int name);

/// Sets an option from a value of the user's type.
template <class T>
result<> set_value_of(const resource* r, int level, int name, const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>,
                "the value of a socket option is copied byte by byte: pass a number, a struct of the system, "
                "or a std::string_view");
  if constexpr (std::is_same_v<T, bool>) {
    const int number = value ? 1 : 0;
    return set_option_of(r, level, name, &number, sizeof number, "set_option");
  } else if constexpr (std::is_same_v<T, std::string_view>) {
    return set_option_of(r, level, name, value.data(), static_cast<socklen_t>(value.size()), "set_option");
  } else {
    return set_option_of(r, level, name, &value, sizeof value, "set_option");
  }
}

/// Returns an option as a value of the user's type.
template <class T>
result<T> get_value_of(const resource* r, int level, int name) {
  static_assert(
      std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> && std::is_default_constructible_v<T>,
      "the value of a socket option is copied byte by byte: ask for a number or a struct of the "
      "system");
  if constexpr (std::is_same_v<T, int>) {
    return get_int_option_of(r, level, name);
  } else if constexpr (std::is_same_v<T, bool>) {
    const result<int> number = get_int_option_of(r, level, name);
    return number ? result<bool>(*number != 0) : result<bool>(number.error());
  } else {
    T value{};
    const result<socklen_t> size = get_option_of(r, level, name, &value, sizeof value, "get_option");
    return size ? result<T>(value) : result<T>(size.error());
  }
}

}  // namespace detail

/// The operation that `socket_stream::send_file` returns.
class [[nodiscard]] send_file_operation
    : public detail::resource_operation<send_file_operation, std::uint64_t, detail::socket_resource,
                                        detail::write_side> {
 public:
  static constexpr const char* name = "send_file";
  send_file_operation() = default;
  send_file_operation(detail::ref<detail::socket_resource> r, int file, std::uint64_t offset,
                      std::uint64_t count)
      : resource_operation(std::move(r)), offset_(offset), count_(count), file_(file) {}

 private:
  friend class detail::operation<send_file_operation, std::uint64_t>;
  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<std::uint64_t>& out);
  void left() noexcept { sent_ = 0; }

  std::uint64_t offset_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t sent_ = 0;
  int file_ = -1;
};

/// A byte stream that is a socket.
class socket_stream : public descriptor_stream {
 public:
  /// Each pending operation makes one more attempt, then ends with `cancelled`. The stream stays usable.
  void cancel() noexcept {
    if (resource_) resource_->cancel();
  }
  /// Sets a socket option of any trivially copyable type, for instance int, `linger` or `timeval`
  /// (setsockopt(2)). A bool is passed as an int, and a `std::string_view` as its bytes.
  template <class T>
  result<> set_option(int level, int name, const T& value) {
    return detail::set_value_of(resource_.get(), level, name, value);
  }
  /// Returns a socket option of any trivially copyable type, for instance int or `tcp_info` (getsockopt(2)).
  /// Bytes that the system does not write are zero.
  template <class T = int>
  [[nodiscard]] result<T> get_option(int level, int name) const {
    return detail::get_value_of<T>(resource_.get(), level, name);
  }
  /// Sends up to `count` bytes of a file from `offset` on, without copying them through the program. Returns
  /// the number of bytes sent, which is smaller if the file ends before. The file's own offset does not
  /// change. An error of the file is `os_error` and does not affect the stream.
  [[nodiscard]] send_file_operation send_file(int fd, std::uint64_t offset, std::uint64_t count);
  /// Receives at least one byte, as `receive` does, but leaves the bytes in the stream. Descriptors that come
  /// with the bytes stay there too. Peeking again returns bytes from the same place.
  [[nodiscard]] detail::peek_operation peek(mutable_buffer into);
  /// Completes when a receive would not wait: when there are bytes, at the end of the stream, or after an
  /// error, which the next receive reports. It waits as the reader of the stream, and takes nothing.
  [[nodiscard]] detail::readiness_operation<detail::read_side> wait_readable();
  /// Completes when a send would not wait, or would report an error. It waits as the writer of the stream;
  /// after `send_eof` it fails with `closed_resource`.
  [[nodiscard]] detail::readiness_operation<detail::write_side> wait_writable();
  /// Closes the stream at once, as `close` does, but a TCP connection ends with a reset (RST): the peer fails
  /// with `broken_resource` and ECONNRESET, and bytes that were not sent are dropped. Calling it on a closed
  /// stream has no effect.
  void abort() noexcept;
  /// Takes over a connected stream socket of any address family, for instance AF_VSOCK. The caller keeps a
  /// socket that is rejected. See `tcp_stream::from_fd` and `unix_stream::from_fd` for the families that have
  /// a class of their own.
  [[nodiscard]] static result<socket_stream> from_fd(int fd);
  [[nodiscard]] socket_stream* socket() noexcept override { return this; }

  socket_stream() = default;

 protected:
  friend class detail::socket_access;
  explicit socket_stream(detail::ref<detail::socket_resource> r) noexcept : descriptor_stream(std::move(r)) {}
  [[nodiscard]] detail::socket_resource* resource() const noexcept {
    return static_cast<detail::socket_resource*>(resource_.get());
  }
};

/// A TCP connection. TCP_NODELAY is on unless it was turned off when the connection was made; `from_fd`
/// leaves it as it is.
class tcp_stream : public socket_stream {
 public:
  tcp_stream() = default;

  /// The address of this end. It stays available after either end has closed.
  [[nodiscard]] ip_endpoint local_endpoint() const noexcept {
    return resource_ ? tcp().local : ip_endpoint();
  }
  /// The address of the peer. It stays available after either end has closed.
  [[nodiscard]] ip_endpoint remote_endpoint() const noexcept {
    return resource_ ? tcp().remote : ip_endpoint();
  }
  /// Sets TCP_NODELAY: whether data is sent at once (tcp(7)).
  result<> set_no_delay(bool on);
  /// Probes an idle connection after `idle`, then every `interval`. The connection is broken after `count`
  /// probes without an answer.
  result<> set_keep_alive(std::chrono::seconds idle, std::chrono::seconds interval, int count);
  /// Takes over a connected TCP socket of any origin. The caller keeps a socket that is rejected. A socket
  /// that was reset meanwhile returns the bytes that arrived before, then fails with `broken_resource`; its
  /// remote endpoint is not known.
  [[nodiscard]] static result<tcp_stream> from_fd(int fd);

 private:
  friend class detail::socket_access;
  explicit tcp_stream(detail::ref<detail::tcp_resource> r) noexcept : socket_stream(std::move(r)) {}
  [[nodiscard]] const detail::tcp_resource& tcp() const noexcept {
    return static_cast<const detail::tcp_resource&>(*resource_);
  }
};

/// The process at the other end of a UNIX socket, as the kernel reports it (unix(7), SO_PEERCRED).
struct peer_credentials {
  pid_t pid = 0;  ///< its process ID; -1 if the system does not report it
  uid_t uid = 0;  ///< its effective user
  gid_t gid = 0;  ///< its effective group
};

class send_fds_operation;
class receive_fds_operation;

/// A UNIX stream connection.
class unix_stream : public socket_stream {
 public:
  unix_stream() = default;

  /// The name of this end, empty for an unnamed socket. It stays available after either end has closed.
  [[nodiscard]] std::string local_path() const;
  /// The name of the peer, empty for an unnamed socket. It stays available after either end has closed.
  [[nodiscard]] std::string remote_path() const;
  /// The credentials of the peer, now or at the time when it connected.
  [[nodiscard]] result<peer_credentials> credentials() const;
  /// Sends the descriptors with the first byte of the message, then the rest of the message. Both the message
  /// and the list of descriptors must not be empty; at most 253 descriptors are allowed (SCM_MAX_FD). The
  /// caller still owns the descriptors.
  [[nodiscard]] send_fds_operation send_fds(const_buffer message, std::span<const int> fds);
  /// Receives descriptors and the bytes around them. Both arrive in order, but a descriptor may arrive with
  /// bytes that were sent before its own message. `max_bytes` may be 0; then the bytes stay in the stream.
  [[nodiscard]] receive_fds_operation receive_fds(std::size_t max_bytes, std::size_t max_fds);
  /// Takes over a connected UNIX stream socket of any origin. The caller keeps a socket that is rejected.
  [[nodiscard]] static result<unix_stream> from_fd(int fd);

 private:
  friend class detail::socket_access;
  explicit unix_stream(detail::ref<detail::unix_resource> r) noexcept : socket_stream(std::move(r)) {}
};

/// Creates two UNIX streams that are connected to each other (socketpair(2)).
[[nodiscard]] result<std::pair<unix_stream, unix_stream>> create_unix_stream_pair();

namespace detail {

/// For the parts that make sockets. On failure the caller keeps the descriptor.
class socket_access {
 public:
  /// A null `local` is asked of the system.
  static result<tcp_stream> make_tcp(loop_core& core, int fd, const ip_endpoint* local,
                                     const ip_endpoint& remote, const char* operation);
  static socket_stream wrap(ref<socket_resource> r) { return socket_stream(std::move(r)); }
  static socket_resource* resource_of(const socket_stream& s) noexcept { return s.resource(); }
  static tcp_stream wrap_tcp(ref<tcp_resource> r) { return tcp_stream(std::move(r)); }
  /// For `from_fd`: stores what is known about the descriptor's past in the stream.
  template <class Stream>
  static result<Stream> with_past(result<Stream>&& s, const adopted_socket& past);
  static result<unix_stream> make_unix(loop_core& core, int fd, std::shared_ptr<const std::string> local,
                                       std::shared_ptr<const std::string> remote, const char* operation);
};

/// The path, null if it is empty.
[[nodiscard]] std::shared_ptr<const std::string> shared_path(std::string path);

}  // namespace detail

}}  // namespace anyio

// == stream/fd_passing.hpp ========================================================================

// Passing descriptors over UNIX streams.
//
// Descriptors are sent as control data with bytes (unix(7), SCM_RIGHTS): attached to the first chunk of a
// message and never sent again after a short write. Received descriptors get an owner before anything else
// happens, and there is always room for as many as the kernel passes at once, so that none can leak. This
// part must not know how a connection was made.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

inline constexpr std::size_t max_fds_of_message = 253;  // SCM_MAX_FD of Linux

/// Receives bytes, and the descriptors that come with them, as many as fit in the capacity of `fds`. Without
/// room for bytes it receives only descriptors. `size` is the room that the caller has, which may be larger
/// than `room`. If not all descriptors fit, the outcome is `fds_truncated`.
[[nodiscard]] progress receive_with_fds(socket_resource& from, mutable_buffer room, std::size_t size,
                                        const char* name, std::vector<unique_fd>& fds,
                                        result<std::size_t>& out);

}  // namespace detail

/// Received bytes, and the descriptors that came with them.
class fd_message {
 public:
  fd_message() = default;
  /// Constructs a message from its bytes and its descriptors.
  fd_message(std::string bytes, std::vector<unique_fd> descriptors)
      : data(std::move(bytes)), fds(std::move(descriptors)) {}

  std::string data;            ///< the bytes; empty only if `max_bytes` was 0
  std::vector<unique_fd> fds;  ///< the descriptors in the order of sending; closed unless taken
};

/// The operation that `unix_stream::send_fds` returns.
class [[nodiscard]] send_fds_operation
    : public detail::resource_operation<send_fds_operation, void, detail::socket_resource,
                                        detail::write_side> {
 public:
  static constexpr const char* name = "send_fds";
  send_fds_operation() = default;
  send_fds_operation(detail::ref<detail::socket_resource> r, const_buffer message, std::span<const int> fds)
      : resource_operation(std::move(r)), message_(message), fds_(fds) {}

 private:
  friend class detail::operation<send_fds_operation, void>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<void>& out);
  void left() noexcept { sent_ = 0; }
  ssize_t send_first();

  const_buffer message_;
  std::span<const int> fds_;
  std::size_t sent_ = 0;
};

/// The operation that `unix_stream::receive_fds` returns.
class [[nodiscard]] receive_fds_operation
    : public detail::resource_operation<receive_fds_operation, fd_message, detail::socket_resource,
                                        detail::read_side> {
 public:
  static constexpr const char* name = "receive_fds";
  receive_fds_operation() = default;
  receive_fds_operation(detail::ref<detail::socket_resource> r, std::size_t max_bytes, std::size_t max_fds)
      : resource_operation(std::move(r)), max_bytes_(max_bytes), max_fds_(max_fds) {}

 private:
  friend class detail::operation<receive_fds_operation, fd_message>;

  [[nodiscard]] errc check() const noexcept {
    return max_fds_ == 0 ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<fd_message>& out);

  std::size_t max_bytes_ = 0;
  std::size_t max_fds_ = 0;
};

}}  // namespace anyio

// == stream/fd_stream.hpp =========================================================================

// Pipes, terminals and character devices as byte streams.
//
// They are read and written until the kernel reports EAGAIN. A terminal returns one line at a time, so a
// short read does not mean that no bytes are left. This part must not know sockets.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A descriptor that is read and written.
class fd_resource final : public descriptor_resource {
 public:
  /// Takes over the descriptor, unless it cannot be watched. Sets `status` to 0 or a negative errno.
  fd_resource(loop_core& core, int fd, int& status);

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  progress finish() override { return progress::done; }

 private:
  [[nodiscard]] bool is_fifo();

  file_service& files_;
};

}  // namespace detail

/// A pipe, terminal or character device.
///
/// A pipe has one direction: an operation in the wrong direction fails with `os_error` and EBADF. A send to a
/// pipe whose reader is gone fails with `broken_resource` and EPIPE; a receive from a terminal that was hung
/// up, with `end_of_stream`. None of them can be half-closed: `send_eof` fails with `not_supported`, and
/// the other end of a pipe receives the end of the stream only on `close`.
///
/// A FIFO ends when its last writer has closed it, but not before its first writer has opened it. The end of
/// a FIFO or a terminal may be followed by more bytes: each later receive asks the kernel again. It waits or
/// returns bytes if another process has opened the other side since, or if the user of the terminal continues
/// to type after the end-of-file character.
class fd_stream : public descriptor_stream {
 public:
  fd_stream() = default;

  /// Takes over a descriptor that is not a socket, a regular file or a directory. The caller keeps a
  /// descriptor that is rejected. The descriptor becomes non-blocking, with every descriptor that shares its
  /// open file description (fcntl(2)): for the standard input and output of a terminal, this includes the
  /// shell's. It stays non-blocking after this stream is closed (see `release`), and the library may make it
  /// non-blocking again if other code makes it blocking.
  [[nodiscard]] static result<fd_stream> from_fd(int fd);
  [[nodiscard]] socket_stream* socket() noexcept override { return nullptr; }

 private:
  explicit fd_stream(detail::ref<detail::descriptor_resource> r) noexcept : descriptor_stream(std::move(r)) {}
};

}}  // namespace anyio

// == stream/memory_stream.hpp =====================================================================

// Two connected ends in memory, for tests of code that runs over a byte stream.
//
// Each end has a ring of the bytes that it has yet to receive, allocated when the first byte arrives. Sends
// of the other end copy into the ring and wait while it is full. Views go through the loop's buffer, like
// those of sockets, so that they may be sent on and outlive the stream. This part must not know the system:
// an operation here can fail only because of the other end.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// One end: the bytes on their way to it, and a pointer to the other end.
class memory_resource final : public stream_resource {
 public:
  memory_resource(loop_core& core, std::size_t capacity) noexcept
      : stream_resource(core), capacity_(capacity) {}
  ~memory_resource() override { part(); }

  static void join(memory_resource& a, memory_resource& b) noexcept {
    a.peer_ = &b;
    b.peer_ = &a;
  }

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress receive_view(std::size_t max_bytes, result<std::string_view>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  ANYIO_NET_FN progress finish() override;

 private:
  ANYIO_NET_FN void shut() noexcept override;
  /// Disconnects the two ends. The other end still receives the bytes sent to it, and can no longer send.
  void part() noexcept;
  /// Takes as many bytes as are available and fit; then wakes the peer's sender.
  std::size_t take(mutable_buffer into) noexcept;
  /// Copies in as many bytes as there is room for.
  std::size_t put(const_buffer bytes);

  memory_resource* peer_ = nullptr;  // null once either end is closed
  std::unique_ptr<std::byte[]> ring_;
  std::size_t capacity_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

}  // namespace detail

/// One end of a connection in memory. It behaves as a connected socket does. Bytes that were sent before the
/// other end closed are received first, then `end_of_stream`. A send to a closed end fails with
/// `broken_resource` and EPIPE. Closing loses no bytes, so `aclose` does not wait.
class memory_stream : public byte_stream {
 public:
  memory_stream() = default;

  [[nodiscard]] socket_stream* socket() noexcept override { return nullptr; }

 private:
  friend std::pair<memory_stream, memory_stream> create_memory_stream_pair(std::size_t capacity);
  explicit memory_stream(detail::ref<detail::stream_resource> r) noexcept : byte_stream(std::move(r)) {}
};

/// Creates two connected ends on this thread's loop. A send waits while the other end has `capacity` bytes
/// (at least one) yet to receive. No memory is allocated for them before the first byte is sent.
[[nodiscard]] std::pair<memory_stream, memory_stream> create_memory_stream_pair(std::size_t capacity = 65536);

}}  // namespace anyio

// == stream/send_queue.hpp ========================================================================

// Many writers for one stream.
//
// Writers append messages to a queue, and one operation, `run`, sends them in order, many with one call. This
// part must not know what the messages mean, or what kind of stream sends them.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {
class queue_send_operation;
class queue_flush_operation;
class queue_run_operation;
}  // namespace detail

/// A queue of messages to send on one stream, for several writers: a message is never mixed with another.
/// It can be neither moved nor copied, and must outlive the operations that it returns, which otherwise fail
/// with `closed_resource`. The stream object may be moved.
///
/// `run` has to run, for instance in a `task_group`. While it does, only the queue should send on the stream;
/// `send_eof` is allowed after `flush`.
class send_queue {
 public:
  /// Constructs a queue that holds at most `max_bytes`, or one message that is longer.
  explicit send_queue(byte_stream& to, std::size_t max_bytes = std::size_t{1} << 20)
      : to_(detail::stream_access::resource_of(to)), max_bytes_(max_bytes) {}
  send_queue(const send_queue&) = delete;
  send_queue& operator=(const send_queue&) = delete;
  ~send_queue();

  /// Appends a message and returns true. Returns false, and drops the message, if there is no room, if a
  /// `send` waits for room, or if sending has failed.
  bool try_send(std::string message);
  /// Waits until there is room, and appends the message. Messages are appended in the order of the calls. If
  /// sending has failed, raises that error. A cancelled operation appends nothing.
  [[nodiscard]] detail::queue_send_operation send(std::string message);
  /// Waits until all messages that are in the queue have been sent. Messages appended later do not count.
  [[nodiscard]] detail::queue_flush_operation flush();
  /// The number of bytes in the queue that have not been sent yet.
  [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(queued_ - sent_); }
  /// Sends what is in the queue, and what is appended later, until an error, for instance `closed_resource`
  /// when the stream is closed. From then on every call of this queue raises that error. If this operation is
  /// cancelled, the queue keeps its messages, and another `run` continues with the next byte.
  [[nodiscard]] detail::queue_run_operation run();

 private:
  friend class detail::queue_send_operation;
  friend class detail::queue_flush_operation;
  friend class detail::queue_run_operation;

  struct item : detail::recycled {
    explicit item(std::string&& t) noexcept : text(std::move(t)) {}
    std::string text;
    item* next = nullptr;
  };
  [[nodiscard]] bool has_room(std::size_t n) const noexcept {
    return queued_ == sent_ || (n <= max_bytes_ && size() <= max_bytes_ - n);
  }
  void append(std::string&& message);
  void drop_sent(std::size_t n) noexcept;
  void fail(error e) noexcept;
  [[nodiscard]] detail::progress send_some(result<void>& out);

  detail::ref<detail::stream_resource> to_;
  std::size_t max_bytes_;
  item* first_ = nullptr;
  item* last_ = nullptr;
  std::size_t sent_of_first_ = 0;
  std::uint64_t queued_ = 0;   // bytes, from the beginning
  std::uint64_t sent_ = 0;     // bytes that the stream took
  std::uint64_t flushed_ = 0;  // bytes that the stream sent, as far as is known
  error failure_;
  detail::wait_line senders_;
  detail::wait_line flushers_;
  detail::wait_line runner_;
};

namespace detail {

/// The operation that `send_queue::send` returns.
class [[nodiscard]] queue_send_operation : public operation<queue_send_operation, void> {
 public:
  static constexpr const char* name = "send";
  queue_send_operation() = default;
  queue_send_operation(send_queue& q, std::string&& text)
      : operation(true), queue_(&q), text_(std::move(text)) {}
  queue_send_operation(queue_send_operation&&) = default;
  queue_send_operation& operator=(queue_send_operation&& other) noexcept;
  ~queue_send_operation() { withdraw(); }

 private:
  friend class operation<queue_send_operation, void>;
  [[nodiscard]] errc enter() {
    queue_->senders_.join(place_, *this);
    return errc::ok;
  }
  bool attempt(result<void>& out);
  void left() noexcept;

  send_queue* queue_ = nullptr;
  std::string text_;
  wait_place place_;
};

/// The operation that `send_queue::flush` returns.
class [[nodiscard]] queue_flush_operation : public operation<queue_flush_operation, void> {
 public:
  static constexpr const char* name = "flush";
  queue_flush_operation() = default;
  explicit queue_flush_operation(send_queue& q) noexcept : operation(true), queue_(&q) {}

 private:
  friend class operation<queue_flush_operation, void>;
  [[nodiscard]] errc enter() {
    queue_->flushers_.join(place_, *this);
    return errc::ok;
  }
  void started();
  bool attempt(result<void>& out);
  void left() noexcept {
    place_.unlink();
    begun_ = false;
  }

  send_queue* queue_ = nullptr;
  std::uint64_t goal_ = 0;
  bool begun_ = false;
  wait_place place_;
};

/// The operation that `send_queue::run` returns.
class [[nodiscard]] queue_run_operation : public operation<queue_run_operation, void> {
 public:
  static constexpr const char* name = "send_queue";
  queue_run_operation() = default;
  explicit queue_run_operation(send_queue& q) noexcept : operation(true), queue_(&q), to_(q.to_) {}
  queue_run_operation(queue_run_operation&&) = default;
  queue_run_operation& operator=(queue_run_operation&& other) noexcept;
  ~queue_run_operation() { withdraw(); }

 private:
  friend class operation<queue_run_operation, void>;
  static constexpr bool attempts_when_awaited = false;
  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] errc enter();
  bool attempt(result<void>& out);
  void left() noexcept;
  [[nodiscard]] loop_core& home() const;
  void refresh() noexcept {
    if (to_) to_->exhausted[write_side] = false;
  }
  [[nodiscard]] int descriptor() const noexcept { return to_ ? to_->descriptor() : -1; }

  send_queue* queue_ = nullptr;
  ref<stream_resource> to_;
  wait_place place_;
};

}  // namespace detail

}}  // namespace anyio

// == stream/socket_waits.hpp ======================================================================

// Looking at a stream socket without taking anything: peeking, and waiting until it is ready.
//
// These operations wait in the place of the reader or the writer, like a receive or a send, so that a stream
// never has two of them. This part must not know what is done with the stream afterwards.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// The operation that `socket_stream::peek` returns.
class [[nodiscard]] peek_operation
    : public resource_operation<peek_operation, std::size_t, socket_resource, read_side> {
 public:
  static constexpr const char* name = "peek";
  peek_operation() = default;
  peek_operation(ref<socket_resource> r, mutable_buffer into)
      : resource_operation(std::move(r)), into_(into) {}

 private:
  friend class operation<peek_operation, std::size_t>;

  [[nodiscard]] errc check() const noexcept {
    return into_.empty() ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::size_t>& out);

  mutable_buffer into_;
};

/// Whether an operation on that side need not wait. Otherwise it is woken when it may look again. A negative
/// errno if the system does not tell.
[[nodiscard]] int look_at_readiness(socket_resource& r, side s);

/// The operation that `socket_stream::wait_readable` or `wait_writable` returns.
template <side Side>
class [[nodiscard]] readiness_operation
    : public resource_operation<readiness_operation<Side>, void, socket_resource, Side> {
  using base = resource_operation<readiness_operation, void, socket_resource, Side>;

 public:
  static constexpr const char* name = Side == read_side ? "wait_readable" : "wait_writable";
  readiness_operation() = default;
  explicit readiness_operation(ref<socket_resource> r) noexcept : base(std::move(r)) {}

 private:
  friend class operation<readiness_operation, void>;
  [[nodiscard]] errc check() const noexcept {
    const errc e = base::check();
    return e == errc::ok && Side == write_side && this->resource_->eof_sent() ? errc::closed_resource : e;
  }
  bool attempt(result<void>& out) {
    const int ready = look_at_readiness(*this->resource_, Side);
    if (ready == 0) return false;
    return complete(out, ready > 0 ? result<void>() : result<void>(error(errc::os_error, -ready, name)));
  }
};

}}}  // namespace anyio::detail

// == connection/listener.hpp ======================================================================

// Listeners: accepting connections, and serving them.
//
// An error that concerns a single connection does not end accepting. When descriptors or memory run out,
// accepting pauses until this loop closes a descriptor or 100 ms have passed; otherwise the poller would
// report the pending connections without end. Serving keeps its handlers apart: an error that escapes a
// handler closes only that connection. This part must not know how names resolve.

namespace anyio { inline namespace ANYIO_NET_ABI {

/// How to listen for TCP connections. An empty `local_host` means every address, over one dual-stack socket
/// where the system supports it. A name may resolve to several addresses; they share one port, also if
/// `local_port` is 0.
struct tcp_listener_options {
  /// AF_INET or AF_INET6: only addresses of this family. An IPv4-mapped address ("::ffff:127.0.0.1") belongs
  /// to AF_INET6: an IPv6 socket accepts IPv4 connections at it.
  int family = AF_UNSPEC;
  std::string_view local_host = {};  ///< a name or an address
  std::uint16_t local_port = 0;      ///< 0: the system chooses a free port
  int backlog = 65536;               ///< maximum number of pending connections; the system may lower it
  bool reuse_port = false;           ///< SO_REUSEPORT: several listeners share the connections of a port
  bool no_delay = true;              ///< TCP_NODELAY for accepted connections
  /// Called between socket(2) and bind(2); returns 0 or an errno. If IP_TRANSPARENT is set here, or before
  /// `from_fd`, an accepted stream reports as local endpoint the address to which its peer connected.
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;  ///< passed to `prepare`
};

/// How to listen at a path. A stale socket file, one that no open socket uses any more, is replaced.
struct unix_listener_options {
  std::optional<mode_t> mode = {};  ///< mode of the socket file, set between bind and listen
  int backlog = 65536;              ///< maximum number of pending connections; the system may lower it
  bool unlink_on_close = false;     ///< closing removes only the listener's own file, also after chdir(2)
};

/// How `serve` accepts connections.
struct serve_options {
  std::size_t max_connections = 0;  ///< 0: no limit; at the limit accepting pauses
  /// For a `tls_listener`: the maximum number of TLS connections that are not established yet; at the limit
  /// accepting pauses. If it is set, handshakes do not count towards `max_connections`. If it is 0, they do,
  /// and have no limit of their own.
  std::size_t max_handshakes = 0;
};

namespace detail {

/// One or several listening sockets that act as one listener.
class listener_resource final : public resource {
 public:
  struct listening_socket {
    detail::registration registration;
    ip_endpoint local;
    bool any_address;  // accepts connections to several addresses; the kernel knows the one of each
  };
  struct accepted {
    int fd = -1;
    bool any_address = false;
    ip_endpoint local;
    socket_address remote;
  };
  enum class outcome : std::uint8_t { connection, waiting, again, shortage, fatal };

  explicit listener_resource(loop_core& core) : resource(core) { starved_.waiter = this; }
  ~listener_resource() override { close(); }

  /// Takes over a listening descriptor. Returns 0, or a negative errno if it cannot be watched.
  [[nodiscard]] int add(int fd, const ip_endpoint& local, bool transparent = false);
  outcome accept(accepted& a, error& why);
  void pause(timer& t, node& waiter);
  [[nodiscard]] bool paused() const noexcept { return starved_.linked(); }
  void resume() noexcept { starved_.unlink(); }
  [[nodiscard]] int descriptor() const noexcept override {
    return sockets.empty() ? -1 : sockets.front().registration.fd;
  }
  /// Reports a problem to the pending `serve`, if there is one, when the loop runs next.
  void report(const error& e) noexcept {
    if (server == nullptr) return;
    problem = e;
    if (!server->pending()) server->begin(core(), *server->how);
    core().queue(*server);
  }

  std::vector<listening_socket> sockets;
  std::shared_ptr<const std::string> path;  // of a UNIX listener
  std::string own_path;                     // absolute path of the file to unlink on close
  file_identity own_file;                   // of that file; if it is not a socket, no file is removed
  /// Unlinks that file. Null for other listeners: programs that use only those need not link the path
  /// functions.
  void (*remove_own_file)(const listener_resource&) = nullptr;
  bool no_delay = true;
  node* server = nullptr;  // the pending `serve`; only it may accept
  error problem;

 private:
  ANYIO_NET_FN void shut() noexcept override;
  void look(const listening_socket& s);

  std::size_t next_ = 0;
  std::uint32_t in_a_row_ = 0;  // connections accepted since a call found none
  std::uint32_t known_ = 0;     // counted connections that are not accepted yet
  std::uint32_t looks_ = 0;
  starved starved_;
};

struct listener_access;

}  // namespace detail

/// The operation that `accept` returns.
template <class Stream>
class [[nodiscard]] accept_operation
    : public detail::resource_operation<accept_operation<Stream>, Stream, detail::listener_resource,
                                        detail::read_side> {
  using base =
      detail::resource_operation<accept_operation, Stream, detail::listener_resource, detail::read_side>;

 public:
  static constexpr const char* name = "accept";
  accept_operation() = default;
  explicit accept_operation(detail::ref<detail::listener_resource> r, const detail::node* server = nullptr)
      : base(std::move(r)), server_(server) {}

 private:
  friend class detail::operation<accept_operation, Stream>;

  [[nodiscard]] errc check() const noexcept {
    const errc e = base::check();
    if (e == errc::ok && this->resource_->server != server_) return errc::busy_resource;
    return e;
  }
  bool attempt(result<Stream>& out);
  void left() noexcept {
    pause_.cancel();
    if (this->resource_) this->resource_->resume();
  }
  void refresh() noexcept {
    base::refresh();
    pause_.cancel();
  }

  const detail::node* server_ = nullptr;
  detail::timer pause_;
};

namespace detail {

/// Makes a stream from an accepted connection; on failure the descriptor stays the caller's.
result<tcp_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                 const listener_resource::accepted& a, tcp_stream*);
result<unix_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                  const listener_resource::accepted& a, unix_stream*);

#if ANYIO_NET_EXCEPTIONS
/// Prints an exception that nobody handles to stderr.
void print_exception(const char* where, const std::exception_ptr& e);
#endif

#if ANYIO_NET_EXCEPTIONS
/// Whether an error handler also takes foreign exceptions. A generic lambda does not: it is for errors, and a
/// test whether it can be called with another type would compile its body.
template <class OnError>
concept takes_exceptions =
    !requires { &OnError::template operator()<error>; } && std::is_invocable_v<OnError&, std::exception_ptr>;
#endif

/// The base of a handler that begins with a handshake. It counts the established connections, and reports
/// each of them to `serving`.
struct handshaking {};

/// The state of a pending `serve`. It has its own memory block, since its handlers refer to it.
template <class Stream, class Handler, class OnError>
class serving final : public outcome_sink {
 public:
  serving(ref<listener_resource> listener, Handler&& handler, OnError&& on_error, serve_options options)
      : listener_(std::move(listener)),
        handler_(std::move(handler)),
        on_error_(keep(std::move(on_error))),
        options_(options) {
    task_group_access::set_sink(handlers_, *this);
    if constexpr (has_handshakes) handler_.serve_with(options_, &serving::established, this);
    news_.how = &problem_news::face_of_news;
    news_.self = this;
  }
  ~serving() {
    if (listener_->server == &news_) listener_->server = nullptr;
  }
  serving(const serving&) = delete;
  serving& operator=(const serving&) = delete;

  [[nodiscard]] errc check() const noexcept {
    // A listener that was closed before `serve` could begin has no connection left to serve.
    if (!listener_->open()) return was_open_ ? errc::ok : errc::closed_resource;
    const bool taken = listener_->server != nullptr || listener_->waiting(read_side) != nullptr;
    return taken ? errc::busy_resource : errc::ok;
  }
  void begin(node& server) {
    server_ = &server;
    listener_->server = &news_;
    accept_ = accept_operation<Stream>(listener_, &news_);
    accept_next();
  }
  [[nodiscard]] bool begun() const noexcept { return server_ != nullptr; }
  [[nodiscard]] bool over() const noexcept { return stopped_ && handlers_.size() == 0; }
  [[nodiscard]] const error& failure() const noexcept { return failure_; }

  void child_ended(result<void>&& outcome) override {
    if (full_) accept_next();
    if (over()) server_->core->queue(*server_);
    report(std::move(outcome));  // last: it may destroy this object
  }
  [[nodiscard]] node* whole() const noexcept override { return server_; }

 private:
  static constexpr bool has_handler = std::is_invocable_v<OnError&, const error&>;
  static constexpr bool has_handshakes = std::derived_from<Handler, handshaking>;

  struct connection_came {
    using internal = void;
    serving* self;
    void operator()(result<Stream>&& r) const { self->accepted(std::move(r)); }
    node* owner() const noexcept { return self->server_; }
  };
  struct call_handler {
    serving* self;
    auto operator()(Stream&& stream) const {
      const stand_in inside(*self->server_);
      return std::apply(self->handler_, std::forward_as_tuple(std::move(stream)));  // for any callable
    }
  };
  /// Runs when accepting reported a problem that did not end it.
  struct problem_news : node {
    serving* self = nullptr;
    static void run(node& n) {
      auto& news = static_cast<problem_news&>(n);
      serving& server = *news.self;
      news.retire();
      news.how = &face_of_news;
      server.report(error(server.listener_->problem));
    }
    static void abandon(node& n) { n.retire(); }
    static node* owner(node&) { return nullptr; }
    static description describe(node&) { return {"serve"}; }
    static constexpr face face_of_news{run, abandon, owner, describe};
  };

  void accept_next() {
    full_ = is_full();
    if (full_ && listener_->open()) return;
    full_ = false;
    accept_.start(connection_came{this});
  }
  [[nodiscard]] bool is_full() const noexcept {
    std::size_t connections = handlers_.size();
    if constexpr (has_handshakes) {
      if (options_.max_handshakes != 0) {
        const std::size_t handshakes = connections - handler_.established();
        if (handshakes >= options_.max_handshakes) return true;
        connections -= handshakes;
      }
    }
    return options_.max_connections != 0 && connections >= options_.max_connections;
  }
  static void established(void* self) {
    auto& server = *static_cast<serving*>(self);
    if (server.full_) return server.accept_next();
    if (!server.accept_.pending() || !server.is_full()) return;
    server.accept_.withdraw();
    server.full_ = true;
  }
  void accepted(result<Stream>&& r) {
#if ANYIO_NET_EXCEPTIONS
    // Memory ran out for this connection. It is closed, and the error is reported like one of a handler.
    if (result<void> lost = begin_handler(r); !lost.has_value()) {
      accept_next();
      return report(std::move(lost));
    }
    if (r.has_value()) return accept_next();
#else
    if (r.has_value()) {
      handlers_.start_soon(call_handler{this}, *std::move(r));
      return accept_next();
    }
#endif
    stopped_ = true;
    if (r.error() != errc::closed_resource) failure_ = r.error();
    if (over()) server_->core->queue(*server_);
  }
#if ANYIO_NET_EXCEPTIONS
  result<void> begin_handler(result<Stream>& r) {
    if (result_access::is_foreign(r)) return result_access::failure<void>(r);
    try {
      if (r.has_value()) handlers_.start_soon(call_handler{this}, *std::move(r));
    } catch (...) {
      return result_access::foreign<void>(std::current_exception());
    }
    return {};
  }
#endif
  /// Callers call this last: the error handler may destroy this object, but not itself.
  void report(result<void>&& outcome) {
    if (outcome.has_value()) return;
#if ANYIO_NET_EXCEPTIONS
    if (std::exception_ptr e = result_access::foreign_of(outcome)) {
      if constexpr (takes_exceptions<OnError>) {
        const std::shared_ptr<OnError> on_error = on_error_;
        const stand_in inside(*server_);
        return static_cast<void>((*on_error)(std::move(e)));
      } else {
        return print_exception("serve", e);
      }
    }
#endif
    report(outcome.error());
  }
  static std::shared_ptr<OnError> keep(OnError&& on_error) {
    if constexpr (has_handler) return std::make_shared<OnError>(std::move(on_error));
    return nullptr;
  }
  void report([[maybe_unused]] const error& e) {
    if constexpr (has_handler) {
      const std::shared_ptr<OnError> on_error = on_error_;
      const stand_in inside(*server_);
      if (e != errc::end_of_stream) static_cast<void>((*on_error)(e));
    }
  }

  ref<listener_resource> listener_;
  Handler handler_;
  std::shared_ptr<OnError> on_error_;
  serve_options options_;
  node* server_ = nullptr;
  error failure_;
  bool was_open_ = listener_->open();
  bool stopped_ = false;
  bool full_ = false;
  problem_news news_;
  accept_operation<Stream> accept_;
  task_group handlers_;
};

struct no_error_handler {};

/// The operation that `serve` returns.
template <class Stream, class Handler, class OnError>
class [[nodiscard]] serve_operation : public operation<serve_operation<Stream, Handler, OnError>, void> {
 public:
  static constexpr const char* name = "serve";
  serve_operation() = default;
  serve_operation(ref<listener_resource> listener, Handler&& handler, OnError&& on_error,
                  serve_options options)
      : operation<serve_operation, void>(true) {
    if (listener)
      state_ = std::make_unique<serving<Stream, Handler, OnError>>(std::move(listener), std::move(handler),
                                                                   std::move(on_error), options);
  }

 private:
  friend class operation<serve_operation, void>;
  static constexpr bool attempts_when_awaited = false;

  [[nodiscard]] errc check() const noexcept {
    if (!this->made) return errc::invalid_argument;
    return state_ ? state_->check() : errc::closed_resource;
  }
  bool attempt(result<void>& out) {
    if (!state_->begun()) {
      if (!this->pending())
        return false;  // a composite tests whether it is done already: it has not begun yet
      if (const errc e = state_->check(); e != errc::ok) {  // another one began first in this turn
        return complete(out, error(e, 0, name));
      }
      state_->begin(*this);
    }
    if (!state_->over()) return false;
    if (state_->failure().code() != errc::ok) return complete(out, state_->failure());
    return complete(out, result<void>());
  }
  void left() noexcept { state_.reset(); }

  std::unique_ptr<serving<Stream, Handler, OnError>> state_;
};

/// The common base of `tcp_listener` and `unix_listener`.
template <class Stream>
class listener {
 public:
  /// Whether the listener is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }

  /// Accepts the next connection. A cancelled operation accepts none.
  [[nodiscard]] accept_operation<Stream> accept() { return accept_operation<Stream>(resource_); }

  /// Accepts connections until the listener is closed, then waits for its handlers and completes. The handler
  /// takes the stream by value; it is a coroutine that returns `task<>`, or a plain function, and the
  /// operation keeps it. An error that escapes a handler closes only that connection. Destroying the
  /// operation destroys the handlers.
  template <class Handler>
    requires std::invocable<std::decay_t<Handler>&, Stream>
  [[nodiscard]] auto serve(Handler&& handler, serve_options options = {}) {
    return serve_operation<Stream, std::decay_t<Handler>, no_error_handler>(
        resource_, std::decay_t<Handler>(std::forward<Handler>(handler)), no_error_handler(), options);
  }
  /// Serves connections with an error handler. `on_error(const error&)` receives the errors of handlers,
  /// except a plain end of stream, and the errors of accepting. If it also takes a `std::exception_ptr`, it
  /// receives foreign exceptions; otherwise they are printed to stderr.
  template <class Handler, class OnError>
    requires std::invocable<std::decay_t<Handler>&, Stream> &&
             std::invocable<std::decay_t<OnError>&, const error&>
  [[nodiscard]] auto serve(Handler&& handler, OnError&& on_error, serve_options options = {}) {
    return serve_operation<Stream, std::decay_t<Handler>, std::decay_t<OnError>>(
        resource_, std::decay_t<Handler>(std::forward<Handler>(handler)),
        std::decay_t<OnError>(std::forward<OnError>(on_error)), options);
  }

  /// Closes the listener at once: `accept` and `serve` end, and connections that are not accepted yet are
  /// reset. Calling it again has no effect; the destructor calls it.
  void close() noexcept {
    if (resource_) resource_->close();
  }

 protected:
  friend struct listener_access;
  listener() = default;
  listener(listener&&) noexcept = default;
  listener& operator=(listener&& other) noexcept {
    if (this != &other) {
      close();
      resource_ = std::move(other.resource_);
    }
    return *this;
  }
  ~listener() { close(); }

  ref<listener_resource> resource_;
};

}  // namespace detail

/// Accepts TCP connections on one or several addresses.
class tcp_listener : public detail::listener<tcp_stream> {
 public:
  tcp_listener() = default;
  /// Listens on `local`, at once; the address and port in the options are ignored. "::" means IPv6 only.
  [[nodiscard]] static result<tcp_listener> open(ip_endpoint local, tcp_listener_options options = {});
  /// Takes over a listening socket, for example from systemd. On failure it stays the caller's.
  [[nodiscard]] static result<tcp_listener> from_fd(int fd);

  /// The addresses on which it listens; remembered after closing.
  [[nodiscard]] std::vector<ip_endpoint> local_endpoints() const;
  /// The port that all its addresses share.
  [[nodiscard]] std::uint16_t local_port() const noexcept;
  /// The descriptors, which stay the listener's; empty once closed.
  [[nodiscard]] std::vector<int> native_handles() const;
};

/// Accepts UNIX connections.
class unix_listener : public detail::listener<unix_stream> {
 public:
  unix_listener() = default;
  /// Takes over a listening socket. On failure it stays the caller's.
  [[nodiscard]] static result<unix_listener> from_fd(int fd);

  /// Its path or abstract name; remembered after closing.
  [[nodiscard]] std::string local_path() const;
  /// The descriptor, which stays the listener's; -1 once closed.
  [[nodiscard]] int native_handle() const noexcept { return resource_ ? resource_->descriptor() : -1; }
};

/// The operation that `create_unix_listener` returns.
class [[nodiscard]] create_unix_listener_operation
    : public detail::operation<create_unix_listener_operation, unix_listener> {
 public:
  static constexpr const char* name = "create_unix_listener";
  create_unix_listener_operation() = default;
  create_unix_listener_operation(std::string_view path, unix_listener_options options)
      : operation(!path.empty()), path_(path), options_(options) {}

 private:
  friend class detail::operation<create_unix_listener_operation, unix_listener>;
  bool attempt(result<unix_listener>& out);

  std::string path_;
  unix_listener_options options_;
};

/// Listens at a path, or at an abstract name if the first byte is NUL. A stale socket file, one that refuses
/// a connection, is removed first. A socket file in use raises `os_error` with EADDRINUSE.
[[nodiscard]] inline create_unix_listener_operation create_unix_listener(std::string_view path,
                                                                         unix_listener_options options = {}) {
  return {path, options};
}

namespace detail {

/// Listens on these addresses, with the other options.
result<tcp_listener> listen_tcp(loop_core& core, std::vector<ip_endpoint> addresses, bool dual_stack,
                                const tcp_listener_options& options);
/// The addresses of a listener without a host, and whether one socket serves both families.
std::vector<ip_endpoint> any_addresses(backend& system, int family, std::uint16_t port, bool& dual_stack);

struct listener_access {
  template <class Listener>
  static Listener make(ref<listener_resource> r) {
    Listener l;
    l.resource_ = std::move(r);
    return l;
  }
  template <class Listener>
  static const ref<listener_resource>& resource_of(const Listener& l) {
    return l.resource_;
  }
};

}  // namespace detail

template <class Stream>
bool accept_operation<Stream>::attempt(result<Stream>& out) {
  using detail::listener_resource;
  listener_resource& r = *this->resource_;
  if (r.paused() && pause_.armed()) return false;
  r.resume();
  pause_.cancel();
  listener_resource::accepted a;
  error problem;
  switch (r.accept(a, problem)) {
    case listener_resource::outcome::waiting: return false;
    case listener_resource::outcome::again: this->again = true; return false;
    case listener_resource::outcome::fatal: out = problem; return true;
    case listener_resource::outcome::shortage: break;
    case listener_resource::outcome::connection: {
      unique_fd fd(a.fd);
      out = detail::make_accepted(r.core(), r, a, static_cast<Stream*>(nullptr));
      if (out.has_value()) return static_cast<void>(fd.release()), true;
      problem = out.error();  // it cannot be watched: memory has run out
      break;
    }
  }
  r.report(problem);
  r.pause(pause_, *this);
  return false;
}

}}  // namespace anyio

// == connection/resolve.hpp =======================================================================

// Resolving names to addresses and back.
//
// Addresses in text and `localhost` need no query and complete at once; RFC 6761 keeps `localhost` on this
// machine, whatever the resolver says. Other queries block, so they run on a helper thread. This part must
// not know what the addresses are for.

namespace anyio { inline namespace ANYIO_NET_ABI {

/// The result of `getnameinfo`: numbers as text where no name is known.
class name_info {
 public:
  std::string host;     ///< a name, or the address as text
  std::string service;  ///< "http", or the port as text

  name_info() = default;
  /// Constructs from both parts.
  name_info(std::string h, std::string s) noexcept : host(std::move(h)), service(std::move(s)) {}
};

namespace detail {

/// Removes addresses whose family this machine lacks, unless that would remove all of them.
void drop_missing_families(backend& system, std::vector<ip_endpoint>& all);
/// Whether a socket that is bound to `local` may connect to `remote`: both are IPv4 (mapped or not), or both
/// are IPv6.
[[nodiscard]] bool may_reach(const ip_endpoint& local, const ip_endpoint& remote) noexcept;

/// A blocking look-up of a name; it may outlive its loop.
struct name_look_up {
  std::shared_ptr<backend> system;
  std::string host;
  std::uint16_t port = 0;
  int family = AF_UNSPEC;
  resolved operator()() const { return names_of(*system).resolve(host, port, family); }
};

/// The operation that `getaddrinfo` returns. Its result is one endpoint or more, in the resolver's order.
class [[nodiscard]] resolve_operation : public operation<resolve_operation, std::vector<ip_endpoint>> {
 public:
  static constexpr const char* name = "getaddrinfo";
  resolve_operation() = default;
  resolve_operation(std::string host, std::uint16_t port, int family)
      : operation(true), host_(std::move(host)), port_(port), family_(family) {}

 private:
  friend class operation<resolve_operation, std::vector<ip_endpoint>>;

  bool attempt(result<std::vector<ip_endpoint>>& out);
  /// Completes a look-up that needs no query; otherwise returns false.
  bool answer_at_once(result<std::vector<ip_endpoint>>& out) const;
  void left() noexcept { call_ = {}; }

  std::string host_;
  std::uint16_t port_ = 0;
  int family_ = AF_UNSPEC;
  helper_call<name_look_up> call_;
};

/// Look-ups, one after another, as a part of the operation Derived. Derived has `look_up_ended()`, which is
/// called if the answer arrives later.
template <class Derived>
class host_look_up {
 protected:
  /// Returns true if the answer is available. Otherwise starts the look-up, unless it is pending, and reports
  /// later.
  bool ask(const std::string& host, std::uint16_t port, int family, result<std::vector<ip_endpoint>>& out) {
    if (arrived_ != nullptr) {
      out = std::move(*std::exchange(arrived_, nullptr));
      asked_ = false;
      return true;
    }
    if (asked_) return false;
    child_ = resolve_operation(host, port, family);
    if (child_.attempt_for_parent(out)) return true;
    asked_ = true;
    child_.start(answered{this});
    return false;
  }
  void withdraw_question() noexcept {
    asked_ = false;
    arrived_ = nullptr;
    child_.withdraw();
  }

 private:
  struct answered {
    using internal = void;
    host_look_up* self;
    void operator()(result<std::vector<ip_endpoint>>&& r) const {
      self->arrived_ = &r;
      static_cast<Derived*>(self)->look_up_ended();
    }
    node* owner() const noexcept { return static_cast<Derived*>(self); }
  };

  resolve_operation child_;
  result<std::vector<ip_endpoint>>* arrived_ = nullptr;
  bool asked_ = false;
};

struct address_look_up {
  std::shared_ptr<backend> system;
  ip_endpoint endpoint;
  struct names {
    int status = 0;
    std::string host;
    std::string service;
  };
  names operator()() const;
};

/// The operation that `getnameinfo` returns.
class [[nodiscard]] reverse_operation : public operation<reverse_operation, name_info> {
 public:
  static constexpr const char* name = "getnameinfo";
  reverse_operation() = default;
  explicit reverse_operation(const ip_endpoint& endpoint) : operation(true), endpoint_(endpoint) {}

 private:
  friend class operation<reverse_operation, name_info>;

  bool attempt(result<name_info>& out);
  void left() noexcept { call_ = {}; }

  ip_endpoint endpoint_;
  helper_call<address_look_up> call_;
};

}  // namespace detail

/// Resolves a host to its addresses, at least one, each with the port, in the order of the resolver (RFC
/// 6724).
///
/// An address in text, with or without a scope, resolves to itself; `localhost` and any name under it resolve
/// to ::1 and 127.0.0.1 (RFC 6761). Both complete at once, without a thread. For other names a helper thread
/// asks the system, and cancelling does not wait for it. `family` is AF_UNSPEC, AF_INET or AF_INET6; an
/// IPv4-mapped address ("::ffff:127.0.0.1") belongs to AF_INET6.
///
/// Errors: `name_resolution` if the name has no address of the family, or the address in text is of the other
/// family; `invalid_argument` if the host is empty, is longer than 253 characters, or contains a NUL or a
/// non-ASCII character (use the `xn--` form); `os_error` for errors of the system, among them EAFNOSUPPORT.
[[nodiscard]] inline detail::resolve_operation getaddrinfo(std::string_view host, std::uint16_t port,
                                                           int family = AF_UNSPEC) {
  return detail::resolve_operation(std::string(host), port, family);
}

/// Resolves an endpoint to the names of host and service; numbers where no name is known.
[[nodiscard]] inline detail::reverse_operation getnameinfo(const ip_endpoint& endpoint) {
  return detail::reverse_operation(endpoint);
}

}}  // namespace anyio

// == connection/connect.hpp =======================================================================

// Connecting: names, Happy Eyeballs, UNIX paths.
//
// Addresses are tried as in RFC 8305: the families alternate in the resolver's order; the next attempt begins
// when the previous one has failed or had its head start; the first to connect wins, and the others are
// closed. This part must not know TLS.

namespace anyio { inline namespace ANYIO_NET_ABI {

/// How to connect over TCP. `local_host` and `local_port` choose the local end; each works without the other.
struct tcp_connect_options {
  /// AF_INET or AF_INET6: only addresses of this family. An IPv4-mapped address ("::ffff:127.0.0.1") belongs
  /// to AF_INET6: an IPv6 socket reaches IPv4 with it, and both endpoints are reported as IPv4.
  int family = AF_UNSPEC;
  std::string_view local_host = {};  ///< a name or an address of this machine
  std::uint16_t local_port = 0;      ///< 0: the system chooses a free port
  std::chrono::milliseconds happy_eyeballs_delay =
      std::chrono::milliseconds(250);  ///< before the next address is tried in parallel (RFC 8305)
  bool no_delay = true;                ///< TCP_NODELAY
  /// Called between socket(2) and connect(2); returns 0 or an errno.
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;  ///< passed to `prepare`
};

namespace detail {

/// The options that an attempt needs.
struct connect_settings {
  std::optional<ip_endpoint> local;
  bool no_delay = true;
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;
};

/// Connects to one address.
class [[nodiscard]] connect_attempt : public operation<connect_attempt, tcp_stream> {
 public:
  static constexpr const char* name = "connect";
  connect_attempt() = default;
  connect_attempt(const ip_endpoint& target, const connect_settings& settings)
      : operation(true), target_(target), settings_(settings) {}
  connect_attempt(connect_attempt&&) = default;
  connect_attempt& operator=(connect_attempt&& other) noexcept {
    left();
    operation::operator=(std::move(other));
    target_ = other.target_;
    settings_ = other.settings_;
    return *this;
  }
  ~connect_attempt() { left(); }

 private:
  friend class operation<connect_attempt, tcp_stream>;

  bool attempt(result<tcp_stream>& out);
  bool begin_connect(result<tcp_stream>& out);
  bool finish_connect(result<tcp_stream>& out);
  void left() noexcept {
    if (!resource_) return;
    if (resource_->waiting(write_side) == this) resource_->set_waiting(write_side, nullptr);
    resource_->close();
    resource_ = {};
  }
  [[nodiscard]] int descriptor() const noexcept { return resource_ ? resource_->descriptor() : -1; }

  ip_endpoint target_;
  connect_settings settings_;
  ref<tcp_resource> resource_;
};

/// One of several attempts, in its own memory block.
struct racing_attempt : link, pooled<recycler::operations> {
  explicit racing_attempt(connect_attempt&& o) : op(std::move(o)) {}
  connect_attempt op;
  bool is_first = false;
};

/// The operation that `connect_tcp` returns.
class [[nodiscard]] connect_tcp_operation : public operation<connect_tcp_operation, tcp_stream> {
 public:
  static constexpr const char* name = "connect";
  connect_tcp_operation() = default;
  connect_tcp_operation(std::string_view host, std::uint16_t port, const tcp_connect_options& options);
  connect_tcp_operation(const ip_endpoint& target, const tcp_connect_options& options);
  connect_tcp_operation(connect_tcp_operation&& other) noexcept : connect_tcp_operation() {
    *this = std::move(other);
  }
  connect_tcp_operation& operator=(connect_tcp_operation&& other) noexcept;
  ~connect_tcp_operation() { left(); }

 private:
  friend class operation<connect_tcp_operation, tcp_stream>;

  struct names_came {
    using internal = void;
    connect_tcp_operation* self;
    void operator()(result<std::vector<ip_endpoint>>&& r) const;
    node* owner() const noexcept { return self; }
  };
  struct attempt_ended {
    using internal = void;
    connect_tcp_operation* self;
    racing_attempt* which;
    void operator()(result<tcp_stream>&& r) const { self->ended(*which, std::move(r)); }
    node* owner() const noexcept { return self; }
  };
  enum class stage : std::uint8_t { fresh, local_name, name, race };

  bool attempt(result<tcp_stream>& out);
  bool look_up(stage s, const std::string& host, std::uint16_t port, int family, result<tcp_stream>& out);
  bool take_names(result<std::vector<ip_endpoint>>&& r, result<tcp_stream>& out);
  bool begin_race(result<tcp_stream>& out);
  bool go_on(result<tcp_stream>& out);
  void start_next();
  void ended(racing_attempt& which, result<tcp_stream>&& r);
  void left() noexcept;

  std::string host_;
  std::string local_host_;
  std::optional<ip_endpoint> target_;
  std::uint16_t port_ = 0;
  std::uint16_t local_port_ = 0;
  int family_ = AF_UNSPEC;
  duration delay_{};
  connect_settings settings_;
  stage stage_ = stage::fresh;
  std::unique_ptr<resolve_operation> names_;
  std::vector<ip_endpoint> locals_;
  std::vector<ip_endpoint> targets_;
  std::size_t next_ = 0;
  std::size_t running_ = 0;
  link attempts_;
  timer head_start_;
  error first_failure_;
  result<std::vector<ip_endpoint>>* arrived_ = nullptr;
  result<tcp_stream>* won_ = nullptr;
};

/// The operation that `connect_unix` returns.
class [[nodiscard]] connect_unix_operation : public operation<connect_unix_operation, unix_stream> {
 public:
  static constexpr const char* name = "connect";
  connect_unix_operation() = default;
  explicit connect_unix_operation(std::string_view path) : operation(!path.empty()), path_(path) {}

 private:
  friend class operation<connect_unix_operation, unix_stream>;

  bool attempt(result<unix_stream>& out);
  void left() noexcept {
    pause_.cancel();
    fd_.reset();
  }
  void refresh() noexcept { pause_.cancel(); }

  std::string path_;
  unique_fd fd_;
  timer pause_;
  duration next_pause_{};
};

/// The operation that `create_tcp_listener` returns.
class [[nodiscard]] create_tcp_listener_operation
    : public operation<create_tcp_listener_operation, tcp_listener>,
      private host_look_up<create_tcp_listener_operation> {
 public:
  static constexpr const char* name = "create_tcp_listener";
  create_tcp_listener_operation() = default;
  explicit create_tcp_listener_operation(const tcp_listener_options& options)
      : operation(true), host_(options.local_host), options_(options) {}

 private:
  friend class operation<create_tcp_listener_operation, tcp_listener>;
  friend class host_look_up<create_tcp_listener_operation>;

  bool attempt(result<tcp_listener>& out);
  void left() noexcept { withdraw_question(); }
  void look_up_ended() { run_now(); }

  std::string host_;
  tcp_listener_options options_;
};

}  // namespace detail

/// Connects to a host, by name or by address in text. If all of its addresses fail, it raises the error of
/// the first one tried. Of several addresses, those whose family this machine lacks are skipped. Names are
/// resolved on another thread.
[[nodiscard]] inline detail::connect_tcp_operation connect_tcp(std::string_view host, std::uint16_t port,
                                                               tcp_connect_options options = {}) {
  return {host, port, options};
}
/// Connects to an address.
[[nodiscard]] inline detail::connect_tcp_operation connect_tcp(ip_endpoint target,
                                                               tcp_connect_options options = {}) {
  return {target, options};
}

/// Connects to a UNIX listener; a leading NUL byte means Linux's abstract namespace. While the listener's
/// backlog is full, it retries after growing pauses.
[[nodiscard]] inline detail::connect_unix_operation connect_unix(std::string_view path) {
  return detail::connect_unix_operation(path);
}

/// Listens for TCP connections on the addresses that the options name.
[[nodiscard]] inline detail::create_tcp_listener_operation create_tcp_listener(
    tcp_listener_options options = {}) {
  return detail::create_tcp_listener_operation(options);
}

}}  // namespace anyio

// == connection/unix_bind.hpp =====================================================================

// Binding a UNIX socket to a path.
//
// A socket file outlives its socket and prevents the next bind to its path. So binding removes a stale socket
// file, and never another file: only a socket, and only if a connect to it is refused. Listeners and datagram
// sockets share this part. It must not know who binds, or why.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Binds a socket to a path or an abstract name, and sets the file's mode: the steps "bind" and "chmod".
/// Removes the socket file on destruction, unless `keep` was called: a call that fails leaves no file behind.
class bound_file {
 public:
  /// The path must outlive this object; an empty one is not bound.
  bound_file(new_socket& made, backend& system, const std::string& path, const std::optional<mode_t>& mode);
  bound_file(const bound_file&) = delete;
  bound_file& operator=(const bound_file&) = delete;
  ~bound_file() {
    if (path_ != nullptr) paths_of(system_).unlink(path_);
  }
  void keep() noexcept { path_ = nullptr; }

 private:
  backend& system_;
  const char* path_ = nullptr;  // the file, if there is one
};

}}}  // namespace anyio::detail

// == datagram/datagram.hpp ========================================================================

// Datagram sockets: the common part of UDP and UNIX sockets.
//
// A datagram is received or sent whole, in one call, at the moment in which it is handed over: nothing is
// read ahead, so a cancelled receive loses none. After a call that found no data or no room, each side waits
// for the poller's next edge. This part must not know address families or names.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The size and the sender of a received datagram.
struct arrival {
  std::size_t size = 0;    // number of bytes received
  bool truncated = false;  // the datagram was longer
  socket_address from;
};

class datagram_resource;

/// Stands between a socket and its user where the kernel returns several datagrams per call. Once it exists,
/// every datagram is received through it.
class datagram_source {
 public:
  datagram_source() = default;
  datagram_source(const datagram_source&) = delete;
  datagram_source& operator=(const datagram_source&) = delete;
  virtual ~datagram_source() = default;
  /// Receives one datagram, like `datagram_resource::receive`.
  virtual int receive(datagram_resource& socket, std::span<const ::iovec> into, arrival& out) = 0;
};

/// A descriptor of a datagram socket. A call returns 0, -EAGAIN if the poller will report progress, or
/// another negative errno.
class datagram_resource : public resource {
 public:
  datagram_resource(loop_core& core, int family, bool connected) noexcept
      : resource(core), family_(family), connected_(connected) {}

  /// Takes over the descriptor; on failure it stays the caller's.
  [[nodiscard]] int watch(int fd);

  [[nodiscard]] int descriptor() const noexcept override { return registration_.fd; }
  [[nodiscard]] int family() const noexcept { return family_; }
  [[nodiscard]] bool connected() const noexcept { return connected_; }

  [[nodiscard]] int receive(std::span<const ::iovec> into, arrival& out);
  [[nodiscard]] int receive_from_kernel(std::span<const ::iovec> into, arrival& out);
  /// Receives a whole datagram. Returns -EMSGSIZE if it is longer than the room for it, which raised limits
  /// of the system allow.
  [[nodiscard]] int receive_text(std::string& text, arrival& out);
  /// Sends one datagram; a null `to` means the connected peer.
  [[nodiscard]] int send(const_buffer data, const sockaddr* to, socklen_t size);
  /// The error that a failed call means.
  [[nodiscard]] error failure(int status, const char* operation) const noexcept;

  std::unique_ptr<datagram_source> source;

 protected:
  ANYIO_NET_FN void shut() noexcept override;

 private:
  registration registration_;
  int family_;
  bool connected_;
  std::unique_ptr<std::byte[]> room_;  // for a UNIX socket: datagrams can be longer than the loop's buffer
};

/// Receives a datagram into a new object, which `make` makes of its bytes and its arrival.
template <auto make, class T = std::invoke_result_t<decltype(make), std::string&&, const arrival&>>
class [[nodiscard]] datagram_receive
    : public resource_operation<datagram_receive<make, T>, T, datagram_resource, read_side> {
  using base = resource_operation<datagram_receive, T, datagram_resource, read_side>;

 public:
  static constexpr const char* name = "receive";
  using base::base;

 private:
  friend class operation<datagram_receive, T>;

  bool attempt(result<T>& out) {
    std::string text;
    arrival one;
    const int status = this->resource_->receive_text(text, one);
    if (status == -EAGAIN) return false;
    if (status < 0) return complete(out, this->resource_->failure(status, name));
    return complete(out, make(std::move(text), one));
  }
};

/// Receives a datagram into a buffer of the caller; `make` makes the result of its arrival.
template <auto make, class T = std::invoke_result_t<decltype(make), const arrival&>>
class [[nodiscard]] datagram_receive_into
    : public resource_operation<datagram_receive_into<make, T>, T, datagram_resource, read_side> {
  using base = resource_operation<datagram_receive_into, T, datagram_resource, read_side>;

 public:
  static constexpr const char* name = "receive";
  datagram_receive_into() = default;
  datagram_receive_into(ref<datagram_resource> r, mutable_buffer into) noexcept
      : base(std::move(r)), into_(into) {}

 private:
  friend class operation<datagram_receive_into, T>;

  [[nodiscard]] errc check() const noexcept { return into_.empty() ? errc::invalid_argument : base::check(); }
  bool attempt(result<T>& out) {
    const ::iovec part{into_.data(), into_.size()};
    arrival one;
    const int status = this->resource_->receive(std::span(&part, 1), one);
    if (status == -EAGAIN) return false;
    if (status < 0) return complete(out, this->resource_->failure(status, name));
    return complete(out, make(one));
  }

  mutable_buffer into_;
};

/// The base of sends. Derived has `bool transfer(result<void>&)`, one try. The first try runs inside `start`,
/// so the data may be a view of the loop's buffer; it is copied from there if the send has to wait.
template <class Derived>
class datagram_send : public resource_operation<Derived, void, datagram_resource, write_side> {
  using base = resource_operation<Derived, void, datagram_resource, write_side>;

 public:
  datagram_send() = default;
  datagram_send(ref<datagram_resource> r, lent_bytes&& bytes) noexcept
      : base(std::move(r)), bytes_(std::move(bytes)) {}

  void keep_loan() {
    if (this->resource_) bytes_.keep(this->resource_->core());
  }

 protected:
  friend class operation<Derived, void>;

  bool attempt(result<void>& out) {
    if (over_) return complete(out, outcome_.code() == errc::ok ? result<void>() : result<void>(outcome_));
    if (static_cast<Derived*>(this)->transfer(out)) return true;
    keep_loan();
    return false;
  }
  void started() {
    if (this->early != errc::ok) return;
    result<void> out;
    if (!attempt(out)) return;
    over_ = true;
    outcome_ = out.error();
  }
  void left() noexcept { over_ = false; }
  /// Sets the outcome of a call. Returns false if the send has to wait.
  bool settle(int status, result<void>& out) {
    if (status == -EAGAIN) return false;
    if (status < 0) return complete(out, this->resource_->failure(status, Derived::name));
    return complete(out, result<void>());
  }

  lent_bytes bytes_;

 private:
  [[no_unique_address]] error outcome_;
  bool over_ = false;  // completed in `started`; the outcome is not reported yet
};

/// Makes the sockets that users hold, and finds what they hold.
struct datagram_access {
  template <class Socket, class Resource>
  static result<Socket> wrap(const result<ref<Resource>>& r) {
    if (!r) return r.error();
    return Socket(*r);
  }
  template <class Socket>
  static const ref<datagram_resource>& resource_of(const Socket& s) noexcept {
    return s.resource_;
  }
};

}  // namespace detail

/// The common base of all datagram sockets. One task may receive and one may send at a time. A
/// default-constructed or moved-from socket is closed; the destructor closes a socket at once. No error ends
/// a socket. A shortage of memory in the system is `os_error` with ENOBUFS or ENOMEM; of these, a send waits
/// only for a full queue of a UNIX socket, which is ENOBUFS on macOS and the BSDs.
class datagram_socket {
 public:
  datagram_socket(datagram_socket&&) noexcept = default;
  datagram_socket& operator=(datagram_socket&& other) noexcept {
    if (this == &other) return *this;
    close();
    resource_ = std::move(other.resource_);
    return *this;
  }

  /// Whether the socket is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }
  /// The descriptor, which stays the socket's; -1 once closed.
  [[nodiscard]] int native_handle() const noexcept { return *this ? resource_->descriptor() : -1; }

  /// Calls setsockopt(2) with an int. Returns errors and raises none: `os_error` with the errno, or
  /// `closed_resource`.
  result<> set_option(int level, int name, int value);
  /// Calls getsockopt(2) for an int. Returns errors and raises none.
  result<int> get_option(int level, int name) const;

  /// Completes pending operations with `errc::cancelled`, after one more attempt.
  void cancel() noexcept {
    if (resource_) resource_->cancel();
  }
  /// Closes the socket; the descriptor is free when this returns. Pending operations complete with
  /// `closed_resource`. Calling it again has no effect.
  void close() noexcept {
    if (resource_) resource_->close();
  }

 protected:
  datagram_socket() = default;
  explicit datagram_socket(detail::ref<detail::datagram_resource> r) noexcept : resource_(std::move(r)) {}
  ~datagram_socket() { close(); }

  detail::ref<detail::datagram_resource> resource_;
};

}}  // namespace anyio

// == datagram/udp_socket.hpp ======================================================================

// UDP: sockets that send to any address, and sockets with one peer.
//
// Addresses here are numbers, so opening a socket never waits. A later part adds host names, and another adds
// batches. This part must not know names.

namespace anyio { inline namespace ANYIO_NET_ABI {

class udp_batch;
class receive_batch_operation;
class send_batch_operation;
class send_to_host_operation;

/// How to open a UDP socket. Without `local_host` it is bound to every address of `family`. "::", or AF_INET6
/// without a host, means IPv6 only.
struct udp_options {
  int family = AF_UNSPEC;            ///< AF_INET or AF_INET6, as in `tcp_connect_options`
  std::string_view local_host = {};  ///< a name or an address
  std::uint16_t local_port = 0;      ///< 0: the system chooses a free port; used without `local_host` too
  bool reuse_port = false;           ///< SO_REUSEPORT: several sockets share the datagrams of a port
  bool reuse_address = false;        ///< SO_REUSEADDR: several sockets get every multicast datagram
  /// Called between socket(2) and bind(2); returns 0 or an errno.
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;  ///< passed to `prepare`
};

/// A datagram and its sender. `auto [data, sender] = co_await socket.receive();`
class udp_packet {
 public:
  std::string data;    ///< all of its bytes
  ip_endpoint sender;  ///< the address for an answer

  udp_packet() = default;
  /// Constructs from both parts.
  udp_packet(std::string bytes, const ip_endpoint& from) : data(std::move(bytes)), sender(from) {}
};

/// A datagram that was received into a buffer.
struct udp_received {
  std::size_t size = 0;    ///< number of bytes in the buffer
  ip_endpoint sender{};    ///< the address for an answer
  bool truncated = false;  ///< the datagram was longer than the buffer, and the rest of it is lost
};

/// A datagram that was received into a buffer from a connected peer.
struct received {
  std::size_t size = 0;    ///< number of bytes in the buffer
  bool truncated = false;  ///< the datagram was longer than the buffer, and the rest of it is lost
};

namespace detail {

class udp_resource final : public datagram_resource {
 public:
  using datagram_resource::datagram_resource;
  ip_endpoint local;
  ip_endpoint remote;
};

inline udp_packet packet_of(std::string&& data, const arrival& a) {
  return udp_packet(std::move(data), a.from.endpoint());
}
inline udp_received received_from(const arrival& a) { return {a.size, a.from.endpoint(), a.truncated}; }
inline std::string bytes_of(std::string&& data, const arrival&) { return std::move(data); }
inline received received_of(const arrival& a) { return {a.size, a.truncated}; }

}  // namespace detail

/// The operation that `udp_socket::receive()` returns.
using receive_packet_operation = detail::datagram_receive<detail::packet_of>;
/// The operation that `udp_socket::receive(buffer)` returns.
using receive_from_operation = detail::datagram_receive_into<detail::received_from>;
/// The operation that `receive()` of a connected datagram socket returns.
using receive_datagram_operation = detail::datagram_receive<detail::bytes_of>;
/// The operation that `connected_udp_socket::receive(buffer)` returns.
using receive_datagram_into_operation = detail::datagram_receive_into<detail::received_of>;

/// The operation that `udp_socket::send_to` returns.
class [[nodiscard]] send_to_operation : public detail::datagram_send<send_to_operation> {
 public:
  static constexpr const char* name = "send_to";
  send_to_operation() = default;
  send_to_operation(detail::ref<detail::datagram_resource> r, detail::lent_bytes&& bytes,
                    const ip_endpoint& to)
      : datagram_send(std::move(r), std::move(bytes)), to_(to) {}

 private:
  friend detail::datagram_send<send_to_operation>;
  bool transfer(result<void>& out);
  ip_endpoint to_;
};

/// The operation that `connected_udp_socket::send` returns.
class [[nodiscard]] send_datagram_operation : public detail::datagram_send<send_datagram_operation> {
 public:
  static constexpr const char* name = "send";
  using datagram_send::datagram_send;

 private:
  friend detail::datagram_send<send_datagram_operation>;
  bool transfer(result<void>& out) { return settle(resource_->send(bytes_.data(), nullptr, 0), out); }
};

/// The common base of `udp_socket` and `connected_udp_socket`.
class ip_datagram_socket : public datagram_socket {
 public:
  /// The local address and port; remembered after closing.
  [[nodiscard]] ip_endpoint local_endpoint() const noexcept {
    return resource_ ? udp().local : ip_endpoint();
  }

  /// Receives datagrams that are sent to a multicast group. `interface` is, for IPv4, one of the interface's
  /// addresses; for IPv6, an address whose scope is the interface's number. By default the group's scope
  /// applies (IPv6), or the system chooses. Errors are `os_error`, and `invalid_argument` if `group` is not a
  /// multicast address or `interface` is of the other family.
  result<> join_group(const ip_address& group, const ip_address& interface = {});
  /// Leaves a multicast group; `interface` is as for `join_group`.
  result<> leave_group(const ip_address& group, const ip_address& interface = {});
  /// Sets the interface through which multicast datagrams are sent; `interface` is as for `join_group`. A
  /// socket of both families has one setting for each.
  result<> set_multicast_interface(const ip_address& interface);
  /// Sets whether sockets on this machine receive the multicast datagrams that this socket sends.
  result<> set_multicast_loop(bool on);
  /// Sets how many hops multicast datagrams travel: 0 to 255, initially 1.
  result<> set_multicast_hops(int hops);
  /// Sets whether the socket may send to broadcast addresses.
  result<> set_broadcast(bool on);

 protected:
  ip_datagram_socket() = default;
  explicit ip_datagram_socket(detail::ref<detail::udp_resource> r) noexcept : datagram_socket(r) {}
  ip_datagram_socket(ip_datagram_socket&&) noexcept = default;
  ip_datagram_socket& operator=(ip_datagram_socket&&) noexcept = default;
  ~ip_datagram_socket() = default;

  [[nodiscard]] const detail::udp_resource& udp() const noexcept {
    return static_cast<const detail::udp_resource&>(*resource_);
  }

 private:
  template <class T>
  result<> set_value(int level, int name, const T& value, const char* operation);
  result<> change_group(const ip_address& group, const ip_address& interface, bool join);
};

/// A UDP socket that receives from any address and sends to any address. It is always bound.
///
/// A datagram, even an empty one, is received whole and in one piece. ICMP errors for sent datagrams are not
/// reported, because the system does not report them.
class udp_socket : public ip_datagram_socket {
 public:
  udp_socket() = default;

  /// Opens a socket and binds it to `local`, at once. The address and port in the options are ignored.
  static result<udp_socket> open(const ip_endpoint& local, const udp_options& options = {});
  /// Takes over a bound UDP socket. On failure it stays the caller's; `invalid_argument` says what is wrong
  /// with it.
  static result<udp_socket> from_fd(int fd);

  /// Receives the next datagram, of any size.
  [[nodiscard]] receive_packet_operation receive() { return receive_packet_operation(resource_); }
  /// Receives the next datagram, as many of its bytes as fit into the buffer.
  [[nodiscard]] receive_from_operation receive(mutable_buffer into) { return {resource_, into}; }

  /// Sends one datagram. The bytes stay the caller's, and must stay valid until completion; the operation
  /// keeps a string passed as an rvalue. A datagram that is too long raises `os_error` with EMSGSIZE.
  [[nodiscard]] send_to_operation send_to(const_buffer data, const ip_endpoint& to) {
    return {resource_, detail::lent_bytes(data), to};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_to_operation send_to(S&& data, const ip_endpoint& to) {
    return {resource_, detail::lent_bytes(std::move(data)), to};
  }
  /// Sends one datagram to a host by name, which is looked up each time; an address in text needs no look-up.
  /// The bytes stay the caller's, and must stay valid until completion; the operation keeps a string passed
  /// as an rvalue.
  [[nodiscard]] send_to_host_operation send_to(const_buffer data, std::string_view host, std::uint16_t port);
  template <detail::string_rvalue S>
  [[nodiscard]] send_to_host_operation send_to(S&& data, std::string_view host, std::uint16_t port);

  /// Receives many datagrams in one operation, in place of the batch's contents: at least one, and as many as
  /// are available and fit, up to about 256. The batch must stay valid until completion.
  [[nodiscard]] receive_batch_operation receive_batch(udp_batch& batch);
  /// Sends a batch in order, each datagram to its own address. Returns how many were sent: fewer than all if
  /// one failed; if the first one failed, it raises the error. The batch does not change, and must stay valid
  /// until completion. If the operation is cancelled, times out or finds the socket closed, `sent()` returns
  /// how many were sent.
  [[nodiscard]] send_batch_operation send_batch(udp_batch& batch);

 private:
  friend struct detail::datagram_access;
  explicit udp_socket(detail::ref<detail::udp_resource> r) noexcept : ip_datagram_socket(std::move(r)) {}
};

/// A UDP socket with one peer: it receives from no other address.
///
/// When the peer's host refuses a datagram, one receive or send raises `broken_resource` with ECONNREFUSED;
/// the socket stays usable.
class connected_udp_socket : public ip_datagram_socket {
 public:
  connected_udp_socket() = default;

  /// Opens a socket and connects it, at once. `local_host` and `family` of the options are ignored.
  static result<connected_udp_socket> open(const ip_endpoint& remote, const udp_options& options = {});
  /// Opens a socket, binds it to `local` and connects it, at once. Address, port and family in the options
  /// are ignored.
  static result<connected_udp_socket> open(const ip_endpoint& remote, const ip_endpoint& local,
                                           const udp_options& options = {});
  /// Takes over a connected UDP socket. On failure it stays the caller's; `invalid_argument` says what is
  /// wrong with it.
  static result<connected_udp_socket> from_fd(int fd);

  /// The peer's address and port; remembered after closing.
  [[nodiscard]] ip_endpoint remote_endpoint() const noexcept {
    return resource_ ? udp().remote : ip_endpoint();
  }

  /// Receives the next datagram, of any size.
  [[nodiscard]] receive_datagram_operation receive() { return receive_datagram_operation(resource_); }
  /// Receives the next datagram, as many of its bytes as fit into the buffer.
  [[nodiscard]] receive_datagram_into_operation receive(mutable_buffer into) { return {resource_, into}; }
  /// Sends one datagram to the peer; bytes and errors are as for `udp_socket::send_to`.
  [[nodiscard]] send_datagram_operation send(const_buffer data) {
    return {resource_, detail::lent_bytes(data)};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_datagram_operation send(S&& data) {
    return {resource_, detail::lent_bytes(std::move(data))};
  }

  /// Receives many datagrams from the peer in one operation, like `udp_socket::receive_batch`.
  [[nodiscard]] receive_batch_operation receive_batch(udp_batch& batch);
  /// Sends a batch to the peer, like `udp_socket::send_batch`; the addresses in the batch are ignored.
  [[nodiscard]] send_batch_operation send_batch(udp_batch& batch);

 private:
  friend struct detail::datagram_access;
  explicit connected_udp_socket(detail::ref<detail::udp_resource> r) noexcept
      : ip_datagram_socket(std::move(r)) {}
};

}}  // namespace anyio

// == datagram/datagram_connect.hpp ================================================================

// UDP by host name: creating sockets, and sending to a name.
//
// A look-up that needs no query, for an address in text or `localhost`, completes at once. Apart from
// look-ups, nothing here waits. This part must not know how names resolve.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The operation that `create_udp_socket` returns.
class [[nodiscard]] create_udp_socket_operation : public operation<create_udp_socket_operation, udp_socket>,
                                                  private host_look_up<create_udp_socket_operation> {
 public:
  static constexpr const char* name = "create_udp_socket";
  create_udp_socket_operation() = default;
  explicit create_udp_socket_operation(const udp_options& options)
      : operation(true), options_(options), local_host_(options.local_host) {}

 private:
  friend class operation<create_udp_socket_operation, udp_socket>;
  friend class host_look_up<create_udp_socket_operation>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<udp_socket>& out);
  void left() noexcept { withdraw_question(); }
  void look_up_ended() { run_now(); }

  udp_options options_;  // except local_host
  std::string local_host_;
};

/// The operation that `create_connected_udp_socket` returns.
class [[nodiscard]] create_connected_udp_socket_operation
    : public operation<create_connected_udp_socket_operation, connected_udp_socket>,
      private host_look_up<create_connected_udp_socket_operation> {
 public:
  static constexpr const char* name = "create_connected_udp_socket";
  create_connected_udp_socket_operation() = default;
  create_connected_udp_socket_operation(std::string_view host, std::uint16_t port, const udp_options& options)
      : operation(true),
        options_(options),
        local_host_(options.local_host),
        remote_host_(host),
        remote_{{}, port} {}
  create_connected_udp_socket_operation(const ip_endpoint& remote, const udp_options& options)
      : operation(true),
        options_(options),
        local_host_(options.local_host),
        remote_(remote),
        has_remote_(true) {}

 private:
  friend class operation<create_connected_udp_socket_operation, connected_udp_socket>;
  friend class host_look_up<create_connected_udp_socket_operation>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<connected_udp_socket>& out);
  result<connected_udp_socket> connect(const std::vector<ip_endpoint>& remotes) const;
  void left() noexcept;
  void look_up_ended() { run_now(); }

  udp_options options_;  // except local_host
  std::string local_host_;
  std::string remote_host_;
  ip_endpoint remote_;
  std::vector<ip_endpoint> locals_;
  bool has_remote_ = false;
  bool local_is_known_ = false;
};

}  // namespace detail

/// The operation that `udp_socket::send_to(data, host, port)` returns. The look-up counts as sending: a
/// second send raises `busy_resource`.
class [[nodiscard]] send_to_host_operation : public detail::datagram_send<send_to_host_operation>,
                                             private detail::host_look_up<send_to_host_operation> {
 public:
  static constexpr const char* name = "send_to";
  send_to_host_operation() = default;
  send_to_host_operation(detail::ref<detail::datagram_resource> r, detail::lent_bytes&& bytes,
                         std::string_view host, std::uint16_t port)
      : datagram_send(std::move(r), std::move(bytes)), host_(host), to_{{}, port} {}

 private:
  friend class detail::operation<send_to_host_operation, void>;
  friend class detail::datagram_send<send_to_host_operation>;
  friend class detail::host_look_up<send_to_host_operation>;

  bool transfer(result<void>& out);
  void left() noexcept {
    datagram_send::left();
    withdraw_question();
    is_known_ = false;
  }
  void look_up_ended() { run_now(); }

  std::string host_;
  ip_endpoint to_;
  bool is_known_ = false;
};

inline send_to_host_operation udp_socket::send_to(const_buffer data, std::string_view host,
                                                  std::uint16_t port) {
  return {resource_, detail::lent_bytes(data), host, port};
}
template <detail::string_rvalue S>
send_to_host_operation udp_socket::send_to(S&& data, std::string_view host, std::uint16_t port) {
  return {resource_, detail::lent_bytes(std::move(data)), host, port};
}

/// Opens a UDP socket and binds it. A family or a local host is required (`invalid_argument` without). If the
/// local host has several addresses, the first one that this machine has is used.
[[nodiscard]] inline detail::create_udp_socket_operation create_udp_socket(const udp_options& options) {
  return detail::create_udp_socket_operation(options);
}

/// Opens a UDP socket and connects it to a host, by name or by address in text: to the first of its addresses
/// that has a route.
[[nodiscard]] inline detail::create_connected_udp_socket_operation create_connected_udp_socket(
    std::string_view remote_host, std::uint16_t remote_port, const udp_options& options = {}) {
  return {remote_host, remote_port, options};
}
/// Opens a UDP socket and connects it to an address.
[[nodiscard]] inline detail::create_connected_udp_socket_operation create_connected_udp_socket(
    const ip_endpoint& remote, const udp_options& options = {}) {
  return {remote, options};
}

}}  // namespace anyio

// == datagram/udp_batch.hpp =======================================================================

// Many UDP datagrams per system call.
//
// A batch is one block of memory, for a number of datagrams of a maximum size. One operation fills or sends a
// batch, with few system calls. Where the kernel can pass a run of equal-sized datagrams in one piece
// (UDP_GRO, UDP_SEGMENT on Linux), it is asked to; elsewhere nothing else changes. Datagrams of a piece that
// do not fit into a batch stay with the socket until the next receive. This part must not know names.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {
class batch_source;
}

/// Datagrams to send, or received datagrams. Allocates once, on construction.
class udp_batch {
 public:
  /// One datagram: its bytes, which lie in the batch, and its sender, or its receiver if it is to be sent.
  struct entry {
    std::span<const std::byte> data{};  ///< lies in the batch
    ip_endpoint sender{};               ///< or the receiver, of a datagram to send
    bool truncated = false;             ///< the datagram was longer than `max_size`; the rest of it is lost
  };
  using value_type = entry;             ///< for ranges
  using const_iterator = const entry*;  ///< random access
  using iterator = const_iterator;      ///< entries change only by `push` and by receiving

  /// Room for `count` datagrams of at most `max_size` bytes each.
  explicit udp_batch(std::size_t count, std::size_t max_size = 2048);
  udp_batch(udp_batch&& other) noexcept
      : block_(std::move(other.block_)),
        capacity_(std::exchange(other.capacity_, 0)),
        max_size_(other.max_size_),
        size_(std::exchange(other.size_, 0)) {}
  udp_batch& operator=(udp_batch&& other) noexcept {
    block_ = std::move(other.block_);
    capacity_ = std::exchange(other.capacity_, 0);
    max_size_ = other.max_size_;
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  /// Appends a copy of a datagram. Returns false, and changes nothing, if the batch is full or the datagram
  /// is longer than `max_size`. A connected socket needs no address.
  bool push(const_buffer data, const ip_endpoint& to = {});
  /// Removes all datagrams; the memory stays.
  void clear() noexcept { size_ = 0; }

  /// The number of datagrams in the batch.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// Whether the batch holds no datagram.
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  /// The maximum number of datagrams.
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  /// The maximum size of a datagram, in bytes.
  [[nodiscard]] std::size_t max_size() const noexcept { return max_size_; }
  /// The i-th datagram, which must exist.
  [[nodiscard]] const entry& operator[](std::size_t i) const noexcept {
    ANYIO_NET_ASSERT(i < size_);
    return entries()[i];
  }
  /// The first datagram; valid until the batch changes.
  [[nodiscard]] const_iterator begin() const noexcept { return entries(); }
  /// One past the last datagram.
  [[nodiscard]] const_iterator end() const noexcept { return entries() + size_; }

 private:
  friend class detail::batch_source;

  [[nodiscard]] entry* entries() const noexcept {
    return static_cast<entry*>(static_cast<void*>(block_.get()));
  }
  /// The memory for the bytes of the i-th datagram.
  [[nodiscard]] std::byte* slot(std::size_t i) const noexcept {
    return block_.get() + capacity_ * sizeof(entry) + i * max_size_;
  }
  void append(std::size_t size, const ip_endpoint& sender, bool truncated) noexcept;

  std::unique_ptr<std::byte[]> block_;  // entries, then their bytes
  std::size_t capacity_ = 0;
  std::size_t max_size_ = 0;
  std::size_t size_ = 0;
};

namespace detail {

/// The state that a socket needs for batches, created when the first batch is used.
class batch_source final : public datagram_source {
 public:
  /// The batch source of a socket, created if it does not exist yet.
  static batch_source& of(datagram_resource& socket);

  ANYIO_NET_FN int receive(datagram_resource& socket, std::span<const ::iovec> into, arrival& out) override;
  /// Returns 0 if at least one datagram was received.
  int receive_batch(datagram_resource& socket, udp_batch& batch);
  /// Sends from the `sent`-th datagram on. Returns 0 when all are sent, 1 when other tasks get a turn.
  int send_batch(datagram_resource& socket, const udp_batch& batch, std::size_t& sent);

 private:
  static constexpr std::size_t per_call = 32;
  static constexpr std::size_t fewest_expected = 4;
  static constexpr std::size_t most_of_attempt = 256;
  static constexpr std::size_t room = 65536;               // for one piece from the kernel
  static constexpr std::size_t largest_segmented = 65487;  // 65535, less the headers of IPv6 and UDP
  static constexpr std::size_t most_segments = 64;

  /// One piece from the kernel: datagrams of equal size, except the last one.
  struct piece {
    std::size_t size;
    std::size_t segment;  // size of the datagrams; 0: the piece is one datagram
    std::size_t used;
    bool truncated;
    socket_address from;
  };

  void ask_for_pieces(datagram_resource& socket);
  void ask_for_segments(datagram_resource& socket);
  int fetch(datagram_resource& socket, std::size_t wanted, std::byte* slots, std::size_t stride);
  [[nodiscard]] bool has_left_over() const noexcept { return first_ < count_; }
  /// Takes the next datagram of the pieces that are left over.
  std::span<const std::byte> next(arrival& out);
  void fill(udp_batch& batch);
  void keep_pieces(std::size_t count, const std::byte* slots, std::size_t stride);
  [[nodiscard]] std::byte* memory_of(std::size_t i) const noexcept { return memory_.get() + i * room; }
  /// How many datagrams from the i-th on can be sent as one piece.
  [[nodiscard]] std::size_t run_length(const udp_batch& batch, std::size_t i, bool connected) const noexcept;

  std::unique_ptr<std::byte[]> memory_;  // `per_call` pieces, if the kernel can pass them
  std::size_t first_ = 0;                // of the pieces that are left over
  std::size_t count_ = 0;
  std::size_t expected_ = per_call;  // how many messages to prepare for: unused ones also cost time
  std::size_t segment_limit_ = 0;    // datagrams up to this size may be sent as one piece
  int deferred_ = 0;                 // an error that followed delivered datagrams
  bool asked_for_pieces_ = false;
  bool asked_for_segments_ = false;
  piece pieces_[per_call];
};

}  // namespace detail

/// The operation that `receive_batch` returns.
class [[nodiscard]] receive_batch_operation
    : public detail::resource_operation<receive_batch_operation, std::size_t, detail::datagram_resource,
                                        detail::read_side> {
 public:
  static constexpr const char* name = "receive_batch";
  receive_batch_operation() = default;
  receive_batch_operation(detail::ref<detail::datagram_resource> r, udp_batch& batch) noexcept
      : resource_operation(std::move(r)), batch_(&batch) {}

 private:
  friend class detail::operation<receive_batch_operation, std::size_t>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<std::size_t>& out);
  udp_batch* batch_ = nullptr;
};

/// The operation that `send_batch` returns.
class [[nodiscard]] send_batch_operation
    : public detail::resource_operation<send_batch_operation, std::size_t, detail::datagram_resource,
                                        detail::write_side> {
 public:
  static constexpr const char* name = "send_batch";
  send_batch_operation() = default;
  send_batch_operation(detail::ref<detail::datagram_resource> r, const udp_batch& batch) noexcept
      : resource_operation(std::move(r)), batch_(&batch) {}

  /// How many datagrams were sent, also if the operation was cancelled, timed out, failed or found the socket
  /// closed. An operation that is started again counts from zero.
  [[nodiscard]] std::size_t sent() const noexcept { return sent_; }

 private:
  friend class detail::operation<send_batch_operation, std::size_t>;

  bool attempt(result<std::size_t>& out);
  void left() noexcept { restart_ = true; }
  const udp_batch* batch_ = nullptr;
  std::size_t sent_ = 0;
  bool restart_ = false;  // the next attempt is the first of a new send
};

inline receive_batch_operation udp_socket::receive_batch(udp_batch& batch) { return {resource_, batch}; }
inline send_batch_operation udp_socket::send_batch(udp_batch& batch) { return {resource_, batch}; }
inline receive_batch_operation connected_udp_socket::receive_batch(udp_batch& batch) {
  return {resource_, batch};
}
inline send_batch_operation connected_udp_socket::send_batch(udp_batch& batch) { return {resource_, batch}; }

}}  // namespace anyio

// == datagram/unix_datagram.hpp ===================================================================

// UNIX datagram sockets.
//
// Unlike UDP sockets these lose nothing: when the receiver's queue is full, a send waits. The kernel reports
// a drained queue only to connected senders, so a send also retries without an event, after pauses of 1 to 20
// ms. This part must not know what is sent.

namespace anyio { inline namespace ANYIO_NET_ABI {

/// How to open a UNIX datagram socket.
struct unix_datagram_options {
  /// The path to which it is bound; without one, no peer can answer. A stale socket file at the path, one
  /// that refuses a connection, is removed first; closing leaves the file behind.
  std::string_view local_path = {};
  /// The file's mode; ignored for an abstract name. On Linux the file never has other bits; on other systems
  /// the mode is set right after binding.
  std::optional<mode_t> local_mode = {};
};

/// A datagram, and the path of its sender; the path is empty if the sender has none.
class unix_packet {
 public:
  std::string data;    ///< all of its bytes
  std::string sender;  ///< the path for an answer

  unix_packet() = default;
  /// Constructs from both parts.
  unix_packet(std::string bytes, std::string from) : data(std::move(bytes)), sender(std::move(from)) {}
};

namespace detail {

class unix_datagram_resource final : public datagram_resource {
 public:
  unix_datagram_resource(loop_core& core, bool connected) noexcept
      : datagram_resource(core, AF_UNIX, connected) {}
  std::string local;
  std::string remote;
};

/// Decides when to retry a send, where no event may arrive.
class retry_pause {
 public:
  /// Whether to try now: no pause is running, or the kernel reports room.
  [[nodiscard]] bool over(datagram_resource& socket) noexcept;
  void begin(loop_core& loop, node& target) noexcept;
  void reset() noexcept {
    timer_.cancel();
    milliseconds_ = 0;
  }

 private:
  timer timer_;
  std::uint32_t milliseconds_ = 0;
  bool tried_early_ = false;
};

/// The base of sends that retry.
template <class Derived>
class unix_datagram_send : public datagram_send<Derived> {
 public:
  unix_datagram_send() = default;
  unix_datagram_send(ref<datagram_resource> r, lent_bytes&& bytes) noexcept
      : datagram_send<Derived>(std::move(r), std::move(bytes)) {}

 protected:
  friend class operation<Derived, void>;

  bool send(const sockaddr* to, socklen_t size, result<void>& out) {
    datagram_resource& socket = *this->resource_;
    if (!pause_.over(socket)) return false;
    const int status = socket.send(this->bytes_.data(), to, size);
    if (status == -EAGAIN) pause_.begin(socket.core(), *this);
    return this->settle(status, out);
  }
  void refresh() noexcept { pause_.reset(); }
  void left() noexcept {
    datagram_send<Derived>::left();
    pause_.reset();
  }

 private:
  retry_pause pause_;
};

inline unix_packet unix_packet_of(std::string&& data, const arrival& a) {
  return unix_packet(std::move(data), a.from.path());
}

}  // namespace detail

/// The operation that `unix_datagram_socket::receive()` returns.
using receive_unix_packet_operation = detail::datagram_receive<detail::unix_packet_of>;

/// The operation that `unix_datagram_socket::send_to` returns.
class [[nodiscard]] send_to_path_operation : public detail::unix_datagram_send<send_to_path_operation> {
 public:
  static constexpr const char* name = "send_to";
  send_to_path_operation() = default;
  send_to_path_operation(detail::ref<detail::datagram_resource> r, detail::lent_bytes&& bytes,
                         std::string_view path)
      : unix_datagram_send(std::move(r), std::move(bytes)), to_(detail::make_unix_address(path, name)) {}

 private:
  friend detail::datagram_send<send_to_path_operation>;
  bool transfer(result<void>& out) {
    if (to_) return send(reinterpret_cast<const sockaddr*>(&to_->storage), to_->size, out);
    return detail::complete(out, to_.error());
  }
  result<detail::unix_address> to_{errc::invalid_argument};
};

/// The operation that `connected_unix_datagram_socket::send` returns.
class [[nodiscard]] send_unix_datagram_operation
    : public detail::unix_datagram_send<send_unix_datagram_operation> {
 public:
  static constexpr const char* name = "send";
  using unix_datagram_send::unix_datagram_send;

 private:
  friend detail::datagram_send<send_unix_datagram_operation>;
  bool transfer(result<void>& out) { return send(nullptr, 0, out); }
};

/// A UNIX datagram socket that receives from any sender and sends to any path. Paths may contain any bytes; a
/// leading NUL byte means Linux's abstract namespace.
class unix_datagram_socket : public datagram_socket {
 public:
  unix_datagram_socket() = default;

  /// Opens a socket at once, like `create_unix_datagram_socket`.
  static result<unix_datagram_socket> open(const unix_datagram_options& options = {});
  /// Takes over a UNIX datagram socket. On failure it stays the caller's; `invalid_argument` says what is
  /// wrong with it.
  static result<unix_datagram_socket> from_fd(int fd);

  /// The path to which it is bound, empty without one; remembered after closing.
  [[nodiscard]] std::string local_path() const;

  /// Receives the next datagram, of any size.
  [[nodiscard]] receive_unix_packet_operation receive() { return receive_unix_packet_operation(resource_); }
  /// Sends one datagram; waits while the receiver's queue is full. The bytes stay the caller's, and must stay
  /// valid until completion; the operation keeps a string passed as an rvalue. Errors are `os_error` with
  /// ENOENT if the path does not exist, ECONNREFUSED if no socket is open there any more, ENAMETOOLONG if the
  /// path is too long, and EMSGSIZE if the datagram is too long.
  [[nodiscard]] send_to_path_operation send_to(const_buffer data, std::string_view path) {
    return {resource_, detail::lent_bytes(data), path};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_to_path_operation send_to(S&& data, std::string_view path) {
    return {resource_, detail::lent_bytes(std::move(data)), path};
  }

 private:
  friend struct detail::datagram_access;
  explicit unix_datagram_socket(detail::ref<detail::unix_datagram_resource> r) noexcept
      : datagram_socket(r) {}
};

/// A UNIX datagram socket with one peer. When the peer is gone, a send raises `broken_resource` with
/// ECONNREFUSED.
class connected_unix_datagram_socket : public datagram_socket {
 public:
  connected_unix_datagram_socket() = default;

  /// Opens a socket at once, like `create_connected_unix_datagram_socket`.
  static result<connected_unix_datagram_socket> open(std::string_view remote_path,
                                                     const unix_datagram_options& options = {});
  /// Takes over a connected UNIX datagram socket. On failure it stays the caller's; `invalid_argument` says
  /// what is wrong with it.
  static result<connected_unix_datagram_socket> from_fd(int fd);

  /// The path to which it is bound, empty without one; remembered after closing.
  [[nodiscard]] std::string local_path() const;
  /// The peer's path; remembered after closing.
  [[nodiscard]] std::string remote_path() const;

  /// Receives the next datagram, of any size.
  [[nodiscard]] receive_datagram_operation receive() { return receive_datagram_operation(resource_); }
  /// Sends one datagram to the peer; bytes and waiting are as for `unix_datagram_socket::send_to`.
  [[nodiscard]] send_unix_datagram_operation send(const_buffer data) {
    return {resource_, detail::lent_bytes(data)};
  }
  template <detail::string_rvalue S>
  [[nodiscard]] send_unix_datagram_operation send(S&& data) {
    return {resource_, detail::lent_bytes(std::move(data))};
  }

 private:
  friend struct detail::datagram_access;
  explicit connected_unix_datagram_socket(detail::ref<detail::unix_datagram_resource> r) noexcept
      : datagram_socket(r) {}
};

namespace detail {

/// Opens a UNIX datagram socket: an operation, like everything that creates, although it never waits.
template <class Socket>
class [[nodiscard]] create_unix_datagram_operation
    : public operation<create_unix_datagram_operation<Socket>, Socket> {
 public:
  static constexpr const char* name = "create_unix_datagram_socket";
  create_unix_datagram_operation() = default;
  create_unix_datagram_operation(const std::string_view* remote, const unix_datagram_options& options)
      : operation<create_unix_datagram_operation, Socket>(true),
        local_(options.local_path),
        mode_(options.local_mode) {
    if (remote != nullptr) remote_ = std::string(*remote);
  }

 private:
  friend class operation<create_unix_datagram_operation, Socket>;

  bool attempt(result<Socket>& out) {
    if constexpr (std::is_same_v<Socket, connected_unix_datagram_socket>) {
      out = Socket::open(remote_, {local_, mode_});
    } else {
      out = Socket::open({local_, mode_});
    }
    return true;
  }

  std::string remote_;
  std::string local_;
  std::optional<mode_t> mode_;
};

}  // namespace detail

/// Opens a UNIX datagram socket.
[[nodiscard]] inline detail::create_unix_datagram_operation<unix_datagram_socket> create_unix_datagram_socket(
    const unix_datagram_options& options = {}) {
  return {nullptr, options};
}

/// Opens a UNIX datagram socket and connects it to a path. Raises `os_error` with ENOENT if the path does not
/// exist, and with ECONNREFUSED if no socket is open there any more.
[[nodiscard]] inline detail::create_unix_datagram_operation<connected_unix_datagram_socket>
create_connected_unix_datagram_socket(std::string_view remote_path,
                                      const unix_datagram_options& options = {}) {
  return {&remote_path, options};
}

}}  // namespace anyio

// == tls/tls_stream.hpp ===========================================================================

// TLS over any byte stream: the driver of an engine.
//
// The driver reads ahead into one queue, calls the engine, sends after every call the bytes that the engine
// left in the pipe, and waits only when the engine was starved. Engine calls never wait, so a reader and a
// writer can meet only at the transport, where each has its own side. If the transport is full, bytes that a
// reader's call left are sent in the background. Data that the engine took is whole in the outgoing queue, so
// a cancelled send leaves the stream usable. This part must not know a TLS library, or sockets.

namespace anyio { inline namespace ANYIO_NET_ABI {

class tls_stream;
class tls_wrap_operation;

/// The result of `tls_stream::unwrap`: the stream below, and the bytes that followed the end of TLS.
class tls_unwrapped {
 public:
  tls_unwrapped() = default;
  /// Constructs from both parts.
  tls_unwrapped(std::unique_ptr<byte_stream> stream, std::string rest)
      : transport(std::move(stream)), leftover(std::move(rest)) {}

  std::unique_ptr<byte_stream> transport;  ///< the stream below, open
  std::string leftover;                    ///< bytes received after the peer's close_notify
};

namespace detail {

class tls_resource final : public stream_resource {
 public:
  tls_resource(std::unique_ptr<byte_stream> transport, std::shared_ptr<tls_context> context,
               bool standard_compatible) noexcept;
  ANYIO_NET_FN ~tls_resource() override;

  /// Returns false if the context makes no engine: a name or a certificate is missing.
  [[nodiscard]] bool make_engine(bool client, std::string_view server_name);
  progress handshake(result<void>& out);
  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  ANYIO_NET_FN progress finish() override;
  progress unwrap(result<tls_unwrapped>& out);
  ANYIO_NET_FN void withdrawn(side s) noexcept override;
  [[nodiscard]] int descriptor() const noexcept override { return inner_->descriptor(); }

  [[nodiscard]] tls_info info() const;
  /// Null after `unwrap`.
  [[nodiscard]] byte_stream* transport() const noexcept { return transport_.get(); }

  ip_endpoint remote;

 private:
  /// Sends what can be sent without waiting, before the transport is closed.
  void end_without_waiting();
  ANYIO_NET_FN void shut() noexcept override;

  template <class Verb>
  tls_status call(Verb verb);
  [[nodiscard]] bool engine_failed() const noexcept { return engine_failure_.code() != errc::ok; }
  [[nodiscard]] bool must_pull() const noexcept { return pipe_.starved || incoming_.empty(); }
  progress pull(side who, error& failure);
  progress pull_once(error& failure);
  progress flush(error& failure);
  void flush_soon();
  void say_goodbye();
  tls_status read(mutable_buffer into, std::size_t& n, progress& p, error& failure);
  error end_of_reading(tls_status status);
  static void on_readable(resource& r, bool cancelled);
  static void on_writable(resource& r, bool cancelled);

  std::unique_ptr<byte_stream> transport_;
  ref<stream_resource> inner_;
  std::shared_ptr<tls_context> context_;
  byte_queue incoming_;  // as received
  byte_queue held_;      // plaintext that `unwrap` received
  tls_pipe pipe_;
  std::unique_ptr<tls_engine> engine_;
  relay relays_[2];
  error read_failure_;    // permanent; end of stream too
  error write_failure_;   // permanent
  error engine_failure_;  // permanent: the engine must not be called again
  bool standard_compatible_;
  bool established_ = false;
  bool goodbye_said_ = false;  // the close_notify is sent, or queued
  bool reader_awaits_flush_ = false;
  bool writer_awaits_input_ = false;
};

}  // namespace detail

namespace detail {

/// The operation that `tls_stream::unwrap` returns.
class [[nodiscard]] tls_unwrap_operation : public operation<tls_unwrap_operation, tls_unwrapped> {
 public:
  static constexpr const char* name = "unwrap";
  tls_unwrap_operation() = default;
  explicit tls_unwrap_operation(ref<tls_resource> r) noexcept : operation(true), resource_(std::move(r)) {}
  tls_unwrap_operation(tls_unwrap_operation&&) = default;
  tls_unwrap_operation& operator=(tls_unwrap_operation&& other) noexcept;
  ~tls_unwrap_operation() { left(); }

 private:
  friend class operation<tls_unwrap_operation, tls_unwrapped>;

  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] errc enter() noexcept;
  bool attempt(result<tls_unwrapped>& out);
  void left() noexcept;
  void refresh() noexcept;
  [[nodiscard]] loop_core& home() const;
  [[nodiscard]] int descriptor() const noexcept { return resource_ ? resource_->descriptor() : -1; }

  ref<tls_resource> resource_;
};

}  // namespace detail

/// An encrypted byte stream over another byte stream. `wrap_client`, `wrap_server`, `connect_tls` and
/// `tls_listener` make it.
///
/// At the peer's close_notify `receive` raises `end_of_stream`. A connection that ends without one raises
/// `broken_resource`, or `end_of_stream` if the stream was made with `standard_compatible = false`. An
/// invalid record raises `tls`, and ends the stream. `send_eof` sends a close_notify under TLS 1.3, and
/// raises `not_supported` under 1.2. `close`, `aclose` and the destructor send a close_notify, unless
/// `standard_compatible` is false, and close the stream below; `close` and the destructor do not wait.
///
/// `close` and the destructor can lose sent data if the peer sends anything later: the kernel resets a
/// connection that receives data after close. Under TLS 1.3 servers send tickets unasked (a `tls_listener` of
/// this library only with its data). `aclose` loses nothing.
class tls_stream : public byte_stream {
 public:
  tls_stream() = default;

  /// Begins TLS as a client. It needs a `server_name` (`invalid_argument` without), unless the context
  /// verifies no server. Nothing else may use the transport; before STARTTLS, make sure that no cleartext
  /// input is buffered. Raises `tls` if the handshake fails, `timed_out` if it takes too long,
  /// `broken_resource` if the connection ends during the handshake; then the transport is closed.
  [[nodiscard]] static tls_wrap_operation wrap_client(std::unique_ptr<byte_stream> transport,
                                                      std::shared_ptr<tls_context> context,
                                                      tls_options options = {});
  /// Begins TLS as a server, whose context needs a certificate (`invalid_argument` without). Transport and
  /// other errors are as for `wrap_client`.
  [[nodiscard]] static tls_wrap_operation wrap_server(std::unique_ptr<byte_stream> transport,
                                                      std::shared_ptr<tls_context> context,
                                                      tls_options options = {});

  /// The parameters that the handshake agreed on; remembered after closing.
  [[nodiscard]] tls_info info() const { return resource_ ? own().info() : tls_info(); }
  /// Ends TLS, but not the connection: exchanges close_notify with the peer and returns the stream below. No
  /// receive or send may be pending. If the peer sent data that was not received, fails with `tls` and loses
  /// nothing: then receive until the end of the stream, and unwrap again.
  [[nodiscard]] detail::tls_unwrap_operation unwrap() {
    return detail::tls_unwrap_operation(
        detail::ref<detail::tls_resource>(static_cast<detail::tls_resource*>(resource_.get())));
  }
  /// The stream below, which this stream still owns. There must be one: a stream that was default-constructed
  /// or unwrapped has none.
  [[nodiscard]] byte_stream& transport() const noexcept {
    ANYIO_NET_ASSERT(resource_ && own().transport() != nullptr && "this stream has no transport");
    return *own().transport();
  }
  /// The peer's address if the innermost stream is a TCP connection; remembered after either end has closed.
  [[nodiscard]] ip_endpoint remote_endpoint() const noexcept {
    return resource_ ? own().remote : ip_endpoint();
  }
  [[nodiscard]] ANYIO_NET_FN socket_stream* socket() noexcept override;

 private:
  friend class tls_wrap_operation;
  explicit tls_stream(detail::ref<detail::tls_resource> r) noexcept : byte_stream(std::move(r)) {}
  [[nodiscard]] detail::tls_resource& own() const noexcept {
    return static_cast<detail::tls_resource&>(*resource_);
  }
};

/// The operation that `tls_stream::wrap_client` and `wrap_server` return: the handshake. If it fails or is
/// destroyed, it closes the transport.
class [[nodiscard]] tls_wrap_operation : public detail::operation<tls_wrap_operation, tls_stream> {
 public:
  static constexpr const char* name = "tls: handshake";
  tls_wrap_operation() = default;
  tls_wrap_operation(bool client, std::unique_ptr<byte_stream> transport,
                     std::shared_ptr<tls_context> context, const tls_options& options);
  tls_wrap_operation(tls_wrap_operation&&) = default;
  tls_wrap_operation& operator=(tls_wrap_operation&& other) noexcept;
  ~tls_wrap_operation() { left(); }

  /// The peer's address, if it is known already.
  ip_endpoint remote;

 private:
  friend class detail::operation<tls_wrap_operation, tls_stream>;

  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] errc enter() noexcept;
  bool attempt(result<tls_stream>& out);
  bool begin_handshake(result<tls_stream>& out);
  void left() noexcept;
  void refresh() noexcept;
  [[nodiscard]] detail::loop_core& home() const;
  [[nodiscard]] int descriptor() const noexcept { return resource_ ? resource_->descriptor() : -1; }
  void take_places() noexcept;

  std::unique_ptr<byte_stream> transport_;
  std::shared_ptr<tls_context> context_;
  std::string server_name_;
  detail::ref<detail::tls_resource> resource_;
  duration limit_{};
  detail::timer patience_;
  bool client_ = false;
  bool standard_compatible_ = true;
  bool timed_ = false;
};

inline tls_wrap_operation tls_stream::wrap_client(std::unique_ptr<byte_stream> transport,
                                                  std::shared_ptr<tls_context> context, tls_options options) {
  return {true, std::move(transport), std::move(context), options};
}

inline tls_wrap_operation tls_stream::wrap_server(std::unique_ptr<byte_stream> transport,
                                                  std::shared_ptr<tls_context> context, tls_options options) {
  return {false, std::move(transport), std::move(context), options};
}

}}  // namespace anyio

// == tls/tls_connect.hpp ==========================================================================

// Connecting to a TLS server by name. This part must not know a TLS library.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The operation that `connect_tls` returns.
class [[nodiscard]] connect_tls_operation : public operation<connect_tls_operation, tls_stream> {
 public:
  static constexpr const char* name = "connect_tls";
  connect_tls_operation() = default;
  connect_tls_operation(std::string_view host, std::uint16_t port, std::shared_ptr<tls_context> context,
                        const tls_options& options, const tcp_connect_options& tcp_options);

 private:
  friend class operation<connect_tls_operation, tls_stream>;

  struct connected {
    using internal = void;
    connect_tls_operation* self;
    void operator()(result<tcp_stream>&& r) const {
      self->connection_ = &r;
      self->run_now();
    }
    node* owner() const noexcept { return self; }
  };
  struct shaken {
    using internal = void;
    connect_tls_operation* self;
    void operator()(result<tls_stream>&& r) const {
      self->stream_ = &r;
      self->run_now();
    }
    node* owner() const noexcept { return self; }
  };

  [[nodiscard]] errc check() const noexcept { return context_ ? errc::ok : errc::invalid_argument; }
  bool attempt(result<tls_stream>& out);
  bool begin_handshake(result<tcp_stream>&& connection, result<tls_stream>& out);
  void left() noexcept;
  void refresh() noexcept { last_ = true; }

  connect_tcp_operation connecting_;
  tls_wrap_operation shaking_;
  std::shared_ptr<tls_context> context_;
  std::string server_name_;
  tls_options options_;  // except its name, see `server_name_`
  bool begun_ = false;
  bool last_ = false;  // the handshake must try once more
  result<tcp_stream>* connection_ = nullptr;
  result<tls_stream>* stream_ = nullptr;
};

}  // namespace detail

/// Connects to a host, like `connect_tcp`, and begins TLS with it. `server_name` is the host unless the
/// options name another.
[[nodiscard]] inline detail::connect_tls_operation connect_tls(std::string_view host, std::uint16_t port,
                                                               std::shared_ptr<tls_context> context,
                                                               tls_options options = {},
                                                               tcp_connect_options tcp_options = {}) {
  return {host, port, std::move(context), options, tcp_options};
}

}}  // namespace anyio

// == tls/tls_listener.hpp =========================================================================

// Accepting TLS connections.
//
// A handshake takes as long as the client likes, so handshakes run concurrently: each in its own task for
// `serve`, and as one of several operations for `accept`. A handshake that fails or stalls affects no other
// connection. This part must not know a TLS library.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The settings with which a listener's connections become TLS streams.
struct tls_server_settings {
  std::shared_ptr<tls_context> context;
  bool standard_compatible = true;
  std::chrono::milliseconds handshake_timeout{};

  [[nodiscard]] tls_wrap_operation wrap(tcp_stream&& connection) const;
};

/// Makes a handler of TCP streams from a handler of TLS streams.
template <class Handler>
class tls_handler : public handshaking {
  using outcome = std::invoke_result_t<Handler&, tls_stream>;

 public:
  tls_handler(tls_server_settings settings, Handler&& handler)
      : settings_(std::move(settings)), handler_(std::move(handler)) {}

  // From here on `serving` does not move this object.
  void serve_with(const serve_options& options, void (*one_more)(void* server), void* server) {
    one_more_ = one_more;
    server_ = server;
    if (options.max_handshakes != 0 && options.max_connections != 0)
      places_ = std::make_unique<semaphore>(options.max_connections);
  }
  /// How many of the connections passed to this handler are established.
  [[nodiscard]] std::size_t established() const noexcept { return established_; }

  task<> operator()(tcp_stream connection) {
    tls_stream stream = co_await settings_.wrap(std::move(connection));
    permit place;  // more handshakes can end at the same time than the limit allows
    if (places_ != nullptr) place = co_await places_->acquire();
    const counted here(*this);
    if constexpr (is_operation<outcome>) {
      co_await std::apply(handler_, std::forward_as_tuple(std::move(stream)));
    } else {
      static_cast<void>(std::apply(handler_, std::forward_as_tuple(std::move(stream))));
    }
  }

 private:
  class counted {
   public:
    explicit counted(tls_handler& by) : by_(by) {
      ++by_.established_;
      by_.one_more_(by_.server_);
    }
    counted(const counted&) = delete;
    counted& operator=(const counted&) = delete;
    ~counted() { --by_.established_; }  // `serving` learns of the end from the task

   private:
    tls_handler& by_;
  };

  tls_server_settings settings_;
  Handler handler_;
  std::unique_ptr<semaphore> places_;
  void (*one_more_)(void* server) = nullptr;
  void* server_ = nullptr;
  std::size_t established_ = 0;
};

/// The state of accepting one by one: handshakes in progress, and streams that no `accept` has taken yet.
/// While no `accept` is pending, no new connection is accepted.
class tls_accepting final : public resource {
 public:
  tls_accepting(ref<listener_resource> listener, tls_server_settings settings)
      : resource(listener->core()), listener_(std::move(listener)), settings_(std::move(settings)) {}
  ANYIO_NET_FN ~tls_accepting() override;

  /// Takes the next stream. Returns false if there is none; then it wakes the waiter later.
  bool next(result<tls_stream>& out);
  ANYIO_NET_FN void withdrawn(side) noexcept override;
  [[nodiscard]] int descriptor() const noexcept override { return listener_->descriptor(); }

 private:
  struct connection_came {
    using internal = void;
    tls_accepting* self;
    void operator()(result<tcp_stream>&& r) const { self->accepted(std::move(r)); }
    node* owner() const noexcept { return self->waiting(read_side); }
  };
  struct shaking : link, pooled<recycler::operations> {
    tls_wrap_operation op;
  };
  struct handshake_ended {
    using internal = void;
    tls_accepting* self;
    shaking* which;
    void operator()(result<tls_stream>&& r) const { self->shaken(*which, std::move(r)); }
    node* owner() const noexcept { return self->waiting(read_side); }
    void abandon() const { self->forget(*which); }
  };

  ANYIO_NET_FN void shut() noexcept override;
  void accepted(result<tcp_stream>&& r);
  void shaken(shaking& which, result<tls_stream>&& r);
  void forget(shaking& which) noexcept;

  ref<listener_resource> listener_;
  tls_server_settings settings_;
  accept_operation<tcp_stream> accept_;
  link handshakes_;
  std::list<tls_stream> ready_;
  error failure_;
};

}  // namespace detail

/// The operation that `tls_listener::accept` returns.
template <>
class [[nodiscard]] accept_operation<tls_stream>
    : public detail::resource_operation<accept_operation<tls_stream>, tls_stream, detail::tls_accepting,
                                        detail::read_side> {
  using base =
      detail::resource_operation<accept_operation, tls_stream, detail::tls_accepting, detail::read_side>;

 public:
  static constexpr const char* name = "accept";
  accept_operation() = default;
  explicit accept_operation(detail::ref<detail::tls_accepting> r) : base(std::move(r)) {}

 private:
  friend class detail::operation<accept_operation, tls_stream>;

  bool attempt(result<tls_stream>& out) { return resource_->next(out); }
  void leave_place() noexcept {
    const bool waited = resource_ && resource_->waiting(detail::read_side) == this;
    base::leave_place();
    if (waited) resource_->withdrawn(detail::read_side);
  }
};

/// Accepts TLS connections. A handshake that stalls or fails affects no other connection.
class tls_listener {
 public:
  tls_listener() = default;
  /// The context needs a certificate. `server_name` of the options is ignored.
  tls_listener(tcp_listener listener, std::shared_ptr<tls_context> context, tls_options options = {})
      : listener_(std::move(listener)),
        settings_{std::move(context), options.standard_compatible, options.handshake_timeout} {}
  tls_listener(tls_listener&&) noexcept = default;
  tls_listener& operator=(tls_listener&& other) noexcept;
  ~tls_listener() { close(); }

  /// Whether the listener is open.
  explicit operator bool() const noexcept { return static_cast<bool>(listener_); }

  /// Accepts the next connection whose handshake succeeds; those whose handshake fails are skipped. While an
  /// `accept` is pending, all arriving connections are accepted (`serve` has a limit). After a cancelled
  /// `accept`, handshakes in progress and unused streams are left for the next one.
  [[nodiscard]] accept_operation<tls_stream> accept();

  /// Serves connections like `tcp_listener::serve`, with a handler that takes a `tls_stream`. Handshakes
  /// count towards `max_connections`, so peers that stall can fill it until their `handshake_timeout` is
  /// over. With `max_handshakes` in the options, handshakes have a limit of their own instead. It should be
  /// many times larger than the number of handshakes that honest peers have in progress. A connection that is
  /// established while there are `max_connections` of them still counts as a handshake, and its handler
  /// begins once another one ends.
  template <class Handler>
    requires std::invocable<std::decay_t<Handler>&, tls_stream>
  [[nodiscard]] auto serve(Handler&& handler, serve_options options = {}) {
    return listener_.serve(wrapped(std::forward<Handler>(handler)), options);
  }
  /// Serves connections with an error handler, like `tcp_listener::serve`; `on_error` also receives the
  /// errors of handshakes.
  template <class Handler, class OnError>
    requires std::invocable<std::decay_t<Handler>&, tls_stream> &&
             std::invocable<std::decay_t<OnError>&, const error&>
  [[nodiscard]] auto serve(Handler&& handler, OnError&& on_error, serve_options options = {}) {
    return listener_.serve(wrapped(std::forward<Handler>(handler)), std::forward<OnError>(on_error), options);
  }

  /// The TCP listener from which it accepts.
  [[nodiscard]] tcp_listener& listener() noexcept { return listener_; }
  /// Closes the listener at once, with the handshakes that `accept` began. Calling it again has no effect.
  void close() noexcept;

 private:
  template <class Handler>
  auto wrapped(Handler&& handler) {
    return detail::tls_handler<std::decay_t<Handler>>(settings_,
                                                      std::decay_t<Handler>(std::forward<Handler>(handler)));
  }

  tcp_listener listener_;
  detail::tls_server_settings settings_;
  detail::ref<detail::tls_accepting> accepting_;
};

}}  // namespace anyio

// == simulation/sim_choices.hpp ===================================================================

// Randomness of a simulated run: one stream of choices makes all its decisions.
//
// Choices come from a seed, or from given bytes: of a fuzzer or of an earlier run. Each choice is recorded,
// so that any run can be repeated from its bytes. 0 is always the harmless outcome, and exhausted bytes count
// as 0: a shorter input has fewer faults. This part must not know the subject of a decision.

#if defined(ANYIO_NET_SIM)

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class sim_choices {
 public:
  /// Draws from the bytes, or from the seed if `bytes.data()` is null.
  sim_choices(std::uint64_t seed, std::span<const std::uint8_t> bytes) noexcept
      : bytes_(bytes), state_(seed), from_bytes_(bytes.data() != nullptr) {}

  /// Chooses a number less than the bound. With a bound of 0 or 1, returns 0 and uses no choice.
  std::size_t pick(std::size_t bound);
  /// Decides whether an event of this probability happens; an impossible event uses no choice.
  bool chance(double probability);
  /// Random numbers for keys and similar uses. They are repeatable; only their seed is drawn as a choice.
  std::uint64_t noise();
  [[nodiscard]] const std::vector<std::uint8_t>& taken() const noexcept { return taken_; }

 private:
  static std::uint64_t mix(std::uint64_t& state) noexcept;

  std::span<const std::uint8_t> bytes_;
  std::vector<std::uint8_t> taken_;
  std::uint64_t state_;
  std::uint64_t noise_ = 0;
  bool from_bytes_;
  bool noisy_ = false;
};

}}}  // namespace anyio::detail

#endif

// == simulation/sim_options.hpp ===================================================================

// The options of a simulated run. This part must not know how a run is carried out.

#if defined(ANYIO_NET_SIM)

#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace sim {

/// The probability of each fault, from 0 to 1, and the latency. Only legal faults happen: a stream loses no
/// bytes, and UNIX datagrams keep their order.
struct faults {
  double short_io = 0;                      ///< a stream moves fewer bytes than it could, but at least one
  double would_block = 0;                   ///< a call fails with EAGAIN, and readiness is reported later
  double interrupted = 0;                   ///< a wait ends early, as after EINTR
  double reset = 0;                         ///< a connection breaks with ECONNRESET
  double drop = 0;                          ///< an IP datagram is lost; a TCP segment arrives late
  double duplicate = 0;                     ///< an IP datagram arrives twice
  double reorder = 0;                       ///< an IP datagram arrives after the next one
  double accept_exhausted = 0;              ///< EMFILE, ENFILE, ENOBUFS or ENOMEM for a new descriptor
  double name_failure = 0;                  ///< a name look-up fails
  duration latency_min = duration::zero();  ///< the least latency of one direction between IP addresses
  duration latency_max = duration::zero();  ///< the greatest; each latency is drawn from this range
};

/// The system whose errno values and orders of events the simulation follows.
enum class profile : std::uint8_t { linux_, darwin, freebsd };

/// The options of a run. Equal seeds, or equal choices, give equal runs.
struct options {
  std::uint64_t seed = 0;  ///< seed of the random numbers for all decisions
  /// If not null, all decisions are drawn from these bytes instead of the seed; exhausted input counts as 0,
  /// the harmless choice. The caller owns the bytes, and keeps them as long as the run, or a loop on a
  /// `fault_backend`, lasts.
  std::span<const std::uint8_t> choices = {};
  sim::faults faults = {};                       ///< the faults and their probabilities
  sim::profile profile = sim::profile::linux_;   ///< the simulated system
  duration time_limit = std::chrono::hours(24);  ///< limit of virtual time
  /// Limit of calls of the simulated system. A hundredth of it, but at least 100'000, limits the calls in
  /// sequence during which nothing is sent, received or accepted and no virtual time passes: a program that
  /// makes more of them spins, which ends the run.
  std::uint64_t step_limit = 10'000'000;
  void (*log)(std::string_view line) = nullptr;  ///< called with a line for every simulated call
  /// The calendar time at which the run begins, in seconds since 1970. Only the dates of certificates are
  /// compared with it. 0 means the current time, so that valid certificates are valid in the run.
  std::int64_t calendar = 0;
};

}}}  // namespace anyio::sim

#endif

// == simulation/fault_backend.hpp =================================================================

// Fault injection for any backend, also for the real system: calls that do less than they could, or that fail
// as they can fail on a real system.
//
// Only faults that are legal for the kind of descriptor happen, and none that hangs a correct program: after
// an injected EAGAIN, readiness is reported soon. This part must not know whether a kernel is below.

#if defined(ANYIO_NET_SIM)

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// Selects one call to fail, for tests that let each call fail in turn. Calls that can fail count from 1.
struct fault_at_call {
  std::uint64_t call = 0;      // 0: none
  std::size_t which = 0;       // index among the errors that are legal for it
  std::uint64_t counted = 0;   // out: calls so far
  std::size_t choices = 0;     // out: how many errors were legal for it
  const char* name = nullptr;  // out: the name of the call
  int error_number = 0;        // out: the error of the call
};

/// Refuses to move bytes inside the kernel: a relay copies them through memory, where faults reach them.
class no_splices final : public splice_service {
 public:
  int open_pipe(int (&)[2]) override { return -ENOSYS; }
  void grow_pipe(int) override {}
  ssize_t splice_in(int, int, std::size_t) override { return -ENOSYS; }
  ssize_t splice_out(int, int, std::size_t) override { return -ENOSYS; }
};

/// A backend with faults, which may be changed while it is used.
class faulty_backend : public backend {
 public:
  [[nodiscard]] static std::unique_ptr<faulty_backend> make(std::unique_ptr<backend> inner,
                                                            std::shared_ptr<sim_choices> choices,
                                                            const sim::faults& all);
  sim::faults faults;
  fault_at_call* one_failure = nullptr;

 protected:
  explicit faulty_backend(const sim::faults& all) noexcept : faults(all) {}

  splice_service* splices() final { return &splices_; }

 private:
  no_splices splices_;
};

}  // namespace detail

/// Adds faults to a backend, according to the faults and choices of the options, for instance in
/// `loop l(fault_backend(system_backend(), o));`. Latency is only for simulated networks and is ignored here.
/// Returns null if `inner` is null.
[[nodiscard]] std::unique_ptr<backend> fault_backend(std::unique_ptr<backend> inner,
                                                     const sim::options& options);

}}  // namespace anyio

#endif

// == simulation/sim_network.hpp ===================================================================

// A network in memory: sockets of every kind, paths, names and signals, as in a kernel.
//
// It is a plain data structure with its own clock. Everything in transit is in one queue, ordered by the time
// of arrival; it arrives when the clock advances to that time. Descriptors are numbers for reference-counted
// sockets; a new socket gets the lowest free number, as on POSIX systems. Random decisions use the run's
// choices. This part must not know loops, operations or fault injection.

#if defined(ANYIO_NET_SIM)

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

struct sim_socket;
using sim_handle = std::shared_ptr<sim_socket>;

/// Bytes that arrived together: a datagram, or a piece of a stream with its passed descriptors.
struct sim_chunk {
  std::string data;
  std::vector<sim_handle> passed;
  ip_endpoint from;       // of an IP datagram
  std::string from_path;  // of a UNIX datagram
};

/// An event that will happen at some time at its destination.
struct sim_arrival {
  enum class kind : std::uint8_t {
    bytes,
    end,
    reset,
    retry,
    call,
    knock,
    established,
    refused,
    datagram,
    unreachable
  };
  kind what;
  std::weak_ptr<sim_socket> to;
  std::weak_ptr<sim_socket> from;
  sim_chunk chunk;
  ip_endpoint target;
  int error_number = 0;
  int tries = 0;
};

/// A socket. Several descriptors may refer to it, in this process or in transit in a message.
struct sim_socket : std::enable_shared_from_this<sim_socket> {
  enum class state : std::uint8_t { fresh, listening, connecting, connected, refused };

  int family = AF_UNIX;
  int type = SOCK_STREAM;
  state stage = state::fresh;
  std::uint64_t serial = 0;  // in order of creation
  int descriptors = 0;       // how many refer to it, including those in transit
  std::vector<int> numbers;  // those that are open

  bool bound = false;
  ip_endpoint local, remote;
  std::string local_path, remote_path;
  std::map<std::pair<int, int>, int> options;
  std::set<ip_address> groups;

  // --- received and expected data
  std::deque<sim_chunk> inbox;
  std::size_t inbox_bytes = 0;
  std::size_t on_the_way = 0;    // bytes for a stream's window; messages for a UNIX datagram socket
  time_point last_arrival{};     // a stream keeps its order
  std::deque<sim_arrival> held;  // of a stream: sent again until the link works
  bool ended = false;            // the peer's end has arrived
  int broken = 0;                // an errno to be reported once
  bool reset = false;            // stays true after `broken` has been reported

  // --- the peer of a stream
  std::weak_ptr<sim_socket> peer;
  bool sending_over = false;
  bool receiving_over = false;
  bool told = false;     // a second call of connect has reported the connection
  bool roaming = false;  // has its local address only while it is connected
  bool unnamed = false;  // has its local port only while it is connected
  bool gone = false;     // no descriptor is left

  // --- a listener
  std::deque<sim_handle> accepted;
  std::size_t backlog = 0;

  [[nodiscard]] bool is_ip() const noexcept { return family != AF_UNIX; }
  [[nodiscard]] int option(int level, int name) const noexcept {
    const auto found = options.find({level, name});
    return found == options.end() ? 0 : found->second;
  }
};

/// The reason why a run ends before its program does.
enum class sim_verdict : std::uint8_t { none, deadlock, time_over, steps_over, spins };

class sim_network final : public security_service {
 public:
  static constexpr int first_descriptor = first_simulated_descriptor;

  explicit sim_network(const sim::options& options);
  ~sim_network();
  /// A backend on the network.
  [[nodiscard]] static std::unique_ptr<backend> make_backend(std::shared_ptr<sim_network> network);
  sim_network(const sim_network&) = delete;
  sim_network& operator=(const sim_network&) = delete;

  // --- time
  [[nodiscard]] time_point now() const noexcept { return now_; }
  [[nodiscard]] duration elapsed() const noexcept { return now_ - begin_; }
  /// Counts a call, and adds its result to the trace.
  void trace(const char* call, int fd, std::int64_t outcome);
  [[nodiscard]] std::uint64_t trace_hash() const noexcept { return hash_; }
  [[nodiscard]] sim_verdict verdict() const noexcept { return verdict_; }
  void end(sim_verdict v) noexcept {
    if (verdict_ == sim_verdict::none) verdict_ = v;
  }
  /// Advances the clock to the next arrival or to the deadline, whichever is first. Returns false at the
  /// deadline, at the time limit, or if nothing is in transit and there is no deadline.
  bool advance(time_point deadline);
  ANYIO_NET_FN std::int64_t calendar() override;
  ANYIO_NET_FN std::uint64_t entropy() override { return choices.noise(); }

  // --- readiness
  /// Watches both directions, or only `once` the given ones.
  int watch(int fd, std::uint64_t token, bool once = false, std::uint32_t interest = 0);
  void forget(int fd);
  /// The readiness of a socket.
  [[nodiscard]] std::uint32_t level(sim_socket& s) const;
  /// Reports the descriptors that have become ready, in an order that the choices decide. Returns their
  /// number.
  int collect(std::span<poll_event> events);

  // --- sockets: like the calls of the backend
  int open(int family, int type);
  int open_pair(int family, int type, int (&fds)[2]);
  int bind(const sim_handle& s, const sockaddr* address, socklen_t size);
  int listen(const sim_handle& s, int backlog);
  int connect(const sim_handle& s, const sockaddr* address, socklen_t size);
  int accept(const sim_handle& s, sockaddr* address, socklen_t* size);
  int shutdown(const sim_handle& s, int how);
  int break_connection(const sim_handle& s);
  int close(int fd);
  ssize_t receive(const sim_handle& s, message& m, bool takes_control);
  ssize_t send(const sim_handle& s, const message& m);
  int get_option(const sim_handle& s, int level, int name, void* value, socklen_t* size);
  int set_option(const sim_handle& s, int level, int name, const void* value, socklen_t size);
  int address_of(const sim_handle& s, bool remote, sockaddr* address, socklen_t* size);
  /// The socket of a descriptor, null if it is not open.
  [[nodiscard]] sim_handle find(int fd) const;
  [[nodiscard]] bool is_open(int fd) const noexcept { return descriptors_.contains(fd); }
  /// The error for a number that is not open here: `-EOPNOTSUPP` for a descriptor of the real system,
  /// `-EBADF` for any other number.
  [[nodiscard]] int refusal(int fd) const noexcept;

  // --- paths, names, links, signals
  int identify(const char* path, file_identity& identity);
  int identify_socket(const sim_handle& s, file_identity& identity);
  int unlink(const char* path);
  resolved resolve(const std::string& host, std::uint16_t port, int family);
  void set_name(std::string_view name, std::span<const ip_address> addresses);
  void set_link(const ip_address& from, const ip_address& to, const sim::faults& faults);
  void set_latency(const sim::faults& faults) noexcept { everywhere_ = faults; }
  int catch_signal(int number);
  void release_signal(int number);
  bool take_signal(int number);
  void raise(int number);

  [[nodiscard]] std::size_t open_descriptors() const noexcept { return descriptors_.size(); }
  /// One line for each descriptor, like netstat's.
  [[nodiscard]] std::string dump() const;
  sim_choices choices;

 private:
  struct descriptor {
    sim_handle socket;
    std::uint64_t token = 0;
    std::uint32_t interest = 0;  // for watch_once
    bool watched = false;        // edge-triggered
    bool armed = false;          // watched once
    bool signalled = false;      // is in signalled_
  };
  using arrival = sim_arrival;
  int add(const sim_handle& socket);
  sim_handle make(int family, int type);
  void drop(const sim_handle& socket);
  void end_of_socket(sim_socket& s);
  void changed(sim_socket& s);
  [[nodiscard]] bool is_full(const sim_socket& to, const sim_socket& from) const;
  void signal(int fd, descriptor& d);

  [[nodiscard]] const sim::faults& link(const ip_address& from, const ip_address& to) const;
  /// Whether the link loses everything.
  [[nodiscard]] bool is_dead(const ip_address& from, const ip_address& to) const;
  [[nodiscard]] time_point arrival_time(const ip_address& from, const ip_address& to, bool reliable);
  void dispatch(time_point when, arrival a);
  void arrive(arrival& a);
  void arrive_bytes(sim_socket& s, sim_chunk&& chunk);
  void transmit(sim_socket& s, const sim_handle& peer, arrival a);
  void retry(arrival& a);
  void drop_held(sim_socket& s);
  void call(arrival& a);
  void call_again(arrival& a);
  void knock(arrival& a);
  void send_to_peer(sim_socket& s, arrival::kind what, int error_number = 0);
  void break_stream(sim_socket& s, int error_number);
  void stop_listening(sim_socket& s);
  void leave_peer(sim_socket& s);

  [[nodiscard]] bool read_address(const sim_socket& s, const sockaddr* address, socklen_t size,
                                  ip_endpoint& out) const;
  int bind_ip(const sim_handle& s, ip_endpoint at);
  int bind_any(const sim_handle& s);
  int bind_path(const sim_handle& s, const std::string& path);
  /// The live sockets of a type that are bound to a port, in the order of binding.
  [[nodiscard]] std::vector<sim_handle> bound_to(int type, std::uint16_t port) const;
  [[nodiscard]] bool is_taken(const sim_socket& s, const ip_endpoint& at) const;
  [[nodiscard]] sim_handle listener_at(const ip_endpoint& at);
  [[nodiscard]] std::vector<sim_handle> receivers_of(const ip_endpoint& target,
                                                     const ip_endpoint& from) const;
  [[nodiscard]] sim_handle at_path(const std::string& place) const;
  int connect_unix(const sim_handle& s, const std::string& path);
  void connect_ends(const sim_handle& a, const sim_handle& b);

  [[nodiscard]] std::size_t window_of(const sim_socket& to) const noexcept;
  ssize_t send_stream(const sim_handle& s, const message& m, std::vector<sim_handle>&& passed);
  ssize_t send_datagram(const sim_handle& s, const message& m, std::vector<sim_handle>&& passed);
  ssize_t receive_stream(sim_socket& s, message& m, bool takes_control);
  ssize_t receive_datagram(sim_socket& s, message& m, bool takes_control);
  int read_passed(const message& m, std::vector<sim_handle>& passed);
  void hand_over(std::vector<sim_handle>&& passed, message& m, bool takes_control);
  void drop_chunk(sim_chunk& chunk);

  time_point begin_;
  time_point now_;
  duration time_limit_;
  std::int64_t calendar_;
  std::uint64_t step_limit_;
  std::uint64_t spin_limit_;
  std::uint64_t steps_ = 0;
  std::uint64_t idle_steps_ = 0;  // since time passed or something was sent, received or accepted
  std::size_t next_listener_ = 0;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  void (*log_)(std::string_view);
  sim_verdict verdict_ = sim_verdict::none;
  sim::profile profile_;
  sim::faults everywhere_;
  std::map<std::pair<ip_address, ip_address>, sim::faults> links_;

  std::map<int, descriptor> descriptors_;
  std::set<int> free_;
  int next_ = first_descriptor;
  std::vector<int> signalled_;
  std::multimap<time_point, arrival> coming_;
  std::vector<std::weak_ptr<sim_socket>> all_;    // live sockets, and some expired entries
  std::vector<std::weak_ptr<sim_socket>> ports_;  // bound IP sockets, in the order of binding
  struct file {
    std::weak_ptr<sim_socket> socket;
    std::uint64_t inode = 0;
  };
  std::map<std::string, file> files_;
  std::uint64_t next_inode_ = 1;
  std::uint64_t next_serial_ = 1;
  std::uint16_t next_port_ = 32768;
  std::map<std::string, std::vector<ip_address>, std::less<>> names_;
  std::map<int, int> caught_;  // signal number: how many receivers
  std::set<int> pending_signals_;
};

}}}  // namespace anyio::detail

#endif

// == simulation/sim.hpp ===========================================================================

// Runs a program on a simulated network, with virtual time and faults. A seed or a fuzzer's bytes decide the
// faults and the order of events. Equal input gives equal runs.

#if defined(ANYIO_NET_SIM)

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if ANYIO_NET_EXCEPTIONS
#include <exception>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace sim {

/// The outcome of a run.
class report {
 public:
  report() noexcept {}

  std::optional<error> failure;  ///< the error that ended the program; `deadlock`, or `timed_out` at a limit
#if ANYIO_NET_EXCEPTIONS
  std::exception_ptr exception;  ///< an exception that is not from anyio
#endif
  bool deadlock = false;              ///< everything waited, and no event could arrive
  std::uint64_t trace_hash = 0;       ///< hash of every call and its outcome
  duration virtual_time{};            ///< virtual duration of the run
  std::string dump;                   ///< sockets and pending operations, if the run did not end by itself
  std::size_t leaked_handles = 0;     ///< descriptors that were open after all objects were destroyed
  std::vector<std::uint8_t> choices;  ///< all decisions; as `options.choices` they repeat the run

  /// Whether the program ended by itself, without an error, and left no descriptor open.
  [[nodiscard]] bool ok() const noexcept;
  /// One line with the outcome and the choices in hexadecimal digits, which `parse_choices` reads.
  [[nodiscard]] std::string message() const;
};

/// Reads the choices from the hexadecimal digits in a report's message.
[[nodiscard]] std::vector<std::uint8_t> parse_choices(std::string_view digits);

}}}  // namespace anyio::sim

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// A run: the network, and the access to it from inside the run. Runs may be nested.
class sim_session {
 public:
  explicit sim_session(const sim::options& options);
  sim_session(const sim_session&) = delete;
  sim_session& operator=(const sim_session&) = delete;
  ~sim_session();

  [[nodiscard]] static sim_session& current() noexcept {
    ANYIO_NET_ASSERT(innermost != nullptr && "can be used only inside sim::run");
    return *innermost;
  }
  [[nodiscard]] std::unique_ptr<backend> make_backend();
  /// Runs the loop until the program has ended, the loop is gone, or the network reports a verdict.
  void drive(loop_core& core, const bool& done);
  /// Fills the report: `conclude` while the loop still lives, `finish` after it has ended.
  void conclude(loop_core& core, bool done, sim::report& out);
  void finish(sim::report& out);

  [[nodiscard]] sim_network& network() noexcept { return *network_; }
  void set_faults(const sim::faults& faults);

 private:
  static inline constinit thread_local sim_session* innermost = nullptr;
  static void close_descriptor_here(int fd) noexcept;

  std::shared_ptr<sim_network> network_;
  sim::options options_;
  faulty_backend* system_ = nullptr;  // valid while its loop lives
  sim_session* outer_;
  close_hook outer_close_;
  security_service* outer_security_;
};

/// Prints the report, and aborts.
[[noreturn]] void sim_finding(const sim::report& r);
[[nodiscard]] sim::options sim_fuzz_options(std::span<const std::uint8_t> input) noexcept;
void sim_choose_faults(sim_session& session);

template <class X>
sim::report sim_run(sim_session& session, X&& x) {
  using reference =
      std::conditional_t<is_operation<X> && std::is_lvalue_reference_v<X>, X, operation_of_t<X>>;
  using T = typename std::remove_reference_t<reference>::value_type;
  sim::report out;
  {
    loop world(session.make_backend());
    const ref<loop_core> core(&loop_core::current());
    std::optional<result<T>> outcome;
    bool done = false;
    const auto make = [&]() -> reference {
      if constexpr (std::is_lvalue_reference_v<reference>) {
        return x;
      } else {
        return as_operation(std::forward<X>(x));
      }
    };
    reference op = make();
    [[maybe_unused]] const withdraw_at_end<reference> guard{op};
#if ANYIO_NET_EXCEPTIONS
    try {
      op.start(run_done<T>{&outcome, &done});
      session.drive(*core, done);
    } catch (...) {  // from a callback, out of the loop; the report contains it
      out.exception = std::current_exception();
    }
    if (outcome && !out.exception) out.exception = result_access::foreign_of(*outcome);
#else
    op.start(run_done<T>{&outcome, &done});
    session.drive(*core, done);
#endif
    session.conclude(*core, done, out);
    if (outcome && !outcome->has_value()) out.failure = outcome->error();
    if constexpr (is_result<T>) {
      if (outcome && outcome->has_value() && !(**outcome).has_value()) out.failure = (**outcome).error();
    }
#if ANYIO_NET_EXCEPTIONS
    if (out.exception) out.failure.reset();
#endif
  }
  session.finish(out);
  return out;
}

}}}  // namespace anyio::detail

namespace anyio { inline namespace ANYIO_NET_ABI { namespace sim {

/// Runs a program, which is passed as to `anyio::run`, on its own simulated network: without system calls and
/// threads, and a sleep of an hour takes no time. The report contains an error that ends the program or that
/// the program returns as a `result`, but not the program's value.
template <class X>
[[nodiscard]] report run(const options& o, X&& x) {
  detail::sim_session session(o);
  return detail::sim_run(session, std::forward<X>(x));
}

/// The body of a fuzz target: the bytes decide payload, faults and order. The findings are: an exception that
/// is not from anyio, a deadlock, a reached limit, and a leaked descriptor. For a finding, prints the report
/// with the choices that repeat it and aborts. An anyio error that ends the program is no finding. Returns 0.
template <class X>
int fuzz(const std::uint8_t* data, std::size_t size, X&& x) {
  detail::sim_session session(detail::sim_fuzz_options({data, size}));
  detail::sim_choose_faults(session);
  const report r = detail::sim_run(session, std::forward<X>(x));
  bool found = r.deadlock || r.leaked_handles != 0 || (r.failure && r.failure->operation() == "simulation");
#if ANYIO_NET_EXCEPTIONS
  found = found || r.exception != nullptr;
#endif
  if (found) detail::sim_finding(r);
  return 0;
}

// --- inside a run

/// Draws a number less than `bound` from the run's choices, so that it is repeated and shrunk with them.
std::size_t draw(std::size_t bound);
/// Draws a string of at most `max` bytes from the run's choices.
std::string draw_bytes(std::size_t max);
/// Sets the faults of the whole run from now on. The latency and loss of `set_link` stay in force.
void set_faults(const faults& f);
/// Turns all faults off, except those of `set_link`. A correct program must then complete.
void heal();
/// Sets the latency and loss of one direction between two addresses, instead of those of the whole run.
void set_link(ip_address from, ip_address to, const faults& f);
/// Sets the addresses that a look-up of the name returns, in this order. Without addresses it fails.
void set_name(std::string_view name, std::span<const ip_address> addresses);
/// Delivers a signal to every receiver that named it.
void raise(int signal);

}}}  // namespace anyio::sim

#endif

#if ANYIO_NET_DEFINE

// == base/address.ipp =============================================================================

// Parsing and formatting of addresses, and conversion to and from the kernel's structures.

#include <netinet/in.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// The functions of <cctype> depend on the locale.
inline bool is_decimal_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// Removes a decimal number of at most `max` from the front of `text`.
inline bool take_decimal(std::string_view& text, std::uint32_t max, std::uint32_t& number) noexcept {
  std::uint64_t value = 0;
  std::size_t digits = 0;
  for (; digits < text.size() && is_decimal_digit(text[digits]); ++digits) {
    value = value * 10 + static_cast<std::uint64_t>(text[digits] - '0');
    if (value > max) return false;
  }
  if (digits == 0) return false;
  text.remove_prefix(digits);
  number = static_cast<std::uint32_t>(value);
  return true;
}

// Parses an IPv4 address; writes 4 bytes.
[[gnu::cold]] inline bool parse_v4(std::string_view text, std::byte* out) noexcept {
  for (int i = 0; i < 4; ++i) {
    if (i != 0) {
      if (!text.starts_with('.')) return false;
      text.remove_prefix(1);
    }
    const bool leading_zero = text.size() > 1 && text[0] == '0' && is_decimal_digit(text[1]);
    std::uint32_t number = 0;
    if (leading_zero || !take_decimal(text, 255, number)) return false;
    out[i] = static_cast<std::byte>(number);
  }
  return text.empty();
}

// Parses one to four hexadecimal digits; writes 2 bytes.
[[gnu::cold]] inline bool parse_v6_group(std::string_view text, std::byte* out) noexcept {
  if (text.empty() || text.size() > 4) return false;
  unsigned value = 0;
  for (const char c : text) {
    value <<= 4;
    if (is_decimal_digit(c)) {
      value |= static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value |= static_cast<unsigned>(c - 'a' + 10);
    } else if (c >= 'A' && c <= 'F') {
      value |= static_cast<unsigned>(c - 'A' + 10);
    } else {
      return false;
    }
  }
  out[0] = static_cast<std::byte>(value >> 8);
  out[1] = static_cast<std::byte>(value);
  return true;
}

// Parses an IPv6 address; writes into 16 bytes that are zero.
[[gnu::cold]] inline bool parse_v6(std::string_view text, std::byte* out) noexcept {
  constexpr std::size_t none = 17;
  std::size_t filled = 0;
  std::size_t gap = none;  // the value of `filled` at the "::"
  if (text.starts_with("::")) {
    gap = 0;
    text.remove_prefix(2);
  }
  while (!text.empty()) {
    const std::string_view group = text.substr(0, text.find(':'));
    text.remove_prefix(group.size());
    if (group.find('.') != group.npos) {  // an IPv4 address is allowed only at the end
      if (!text.empty() || filled > 12 || !parse_v4(group, out + filled)) return false;
      filled += 4;
      break;
    }
    if (filled == 16 || !parse_v6_group(group, out + filled)) return false;
    filled += 2;
    if (text.empty()) break;
    text.remove_prefix(1);
    if (text.starts_with(':')) {
      if (gap != none) return false;
      gap = filled;
      text.remove_prefix(1);
    } else if (text.empty()) {
      return false;
    }
  }
  if (gap == none) return filled == 16;
  if (filled == 16) return false;  // "::" replaces at least one group
  std::rotate(out + gap, out + filled, out + 16);
  return true;
}

// A scope of digits only is always a number, even if an interface has that name: each text has only one
// meaning, and digits need no system call.
[[gnu::cold]] inline bool parse_scope(std::string_view text, std::uint32_t& scope) noexcept {
  if (std::all_of(text.begin(), text.end(), is_decimal_digit)) {
    return take_decimal(text, 0xffffffff, scope) && text.empty();
  }
  char name[64];
  if (interface_lookup.index == nullptr || text.size() >= sizeof name || text.find('\0') != text.npos) {
    return false;
  }
  *std::copy(text.begin(), text.end(), name) = '\0';
  scope = interface_lookup.index(name);
  return scope != 0;
}

inline void append_decimal(std::string& out, std::uint32_t number) {
  char digits[10];
  char* first = std::end(digits);
  do {
    *--first = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  out.append(first, std::end(digits));
}

inline void append_v4(std::string& out, const std::byte* bytes) {
  for (int i = 0; i < 4; ++i) {
    if (i != 0) out += '.';
    append_decimal(out, std::to_integer<std::uint32_t>(bytes[i]));
  }
}

inline void append_v6_group(std::string& out, unsigned group) {
  int shift = 12;
  while (shift != 0 && (group >> shift) == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) out += "0123456789abcdef"[(group >> shift) & 15];
}

inline bool is_v4_mapped(const std::byte* bytes) noexcept {
  static constexpr unsigned char prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(bytes, prefix, sizeof prefix) == 0;
}

// RFC 5952: the longest run of at least two zero groups becomes "::", the first one if several are equal.
inline void append_v6(std::string& out, const std::byte* bytes) {
  if (is_v4_mapped(bytes)) {
    out += "::ffff:";
    append_v4(out, bytes + 12);
    return;
  }
  unsigned groups[8];
  for (int i = 0; i < 8; ++i) {
    groups[i] = std::to_integer<unsigned>(bytes[2 * i]) << 8 | std::to_integer<unsigned>(bytes[2 * i + 1]);
  }
  int gap = 8;
  int gap_size = 1;
  for (int i = 0; i < 8; ++i) {
    int end = i;
    while (end < 8 && groups[end] == 0) ++end;
    if (end - i > gap_size) {
      gap = i;
      gap_size = end - i;
    }
  }
  for (int i = 0; i < 8; ++i) {
    if (i == gap) {
      out += "::";
      i += gap_size - 1;
      continue;
    }
    if (i != 0 && i != gap + gap_size) out += ':';
    append_v6_group(out, groups[i]);
  }
}

[[gnu::cold]] inline void append_scope(std::string& out, std::uint32_t scope) {
  out += '%';
  char name[64];
  if (interface_lookup.name != nullptr && interface_lookup.name(scope, name)) {
    const std::string_view text(name);
    if (!std::all_of(text.begin(), text.end(), is_decimal_digit)) {  // `parse` would read it as a number
      out += text;
      return;
    }
  }
  append_decimal(out, scope);
}

// Returns the family, or AF_UNSPEC if `size` is too small to contain it.
inline int sockaddr_family(const sockaddr* data, socklen_t size) noexcept {
  decltype(data->sa_family) family = AF_UNSPEC;
  if (data == nullptr || size < offsetof(sockaddr, sa_family) + sizeof family) return AF_UNSPEC;
  std::memcpy(&family, reinterpret_cast<const char*>(data) + offsetof(sockaddr, sa_family), sizeof family);
  return family;
}

ANYIO_NET_COLD result<unix_address> make_unix_address(std::string_view path, const char* operation) {
  unix_address address;
  std::memset(&address, 0, sizeof address);
  address.storage.sun_family = AF_UNIX;
  constexpr std::size_t room = sizeof address.storage.sun_path;
  std::size_t length = path.size();
  if (path.starts_with('\0')) {
#if defined(__linux__)
    if (length > room) return error(errc::os_error, ENAMETOOLONG, operation);
#else
    return error(errc::not_supported, 0, operation);
#endif
  } else if (!path.empty()) {
    if (length >= room) return error(errc::os_error, ENAMETOOLONG, operation);
    if (path.find('\0') != path.npos) return error(errc::os_error, EINVAL, operation);
    ++length;  // the size includes the NUL
  }
  std::copy(path.begin(), path.end(), address.storage.sun_path);
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  set_sockaddr_size(address.storage, address.size);
  return address;
}

ANYIO_NET_COLD std::string unix_path(const sockaddr* data, socklen_t size) {
  constexpr std::size_t head = offsetof(sockaddr_un, sun_path);
  if (sockaddr_family(data, size) != AF_UNIX || size <= head) return {};
  const std::size_t room = std::min<std::size_t>(size, sizeof(sockaddr_un)) - head;
  const std::string_view path(reinterpret_cast<const char*>(data) + head, room);
#if defined(__linux__)
  if (path.front() == '\0') return std::string(path);
#endif
  return std::string(path.substr(0, path.find('\0')));
}

}}}  // namespace anyio::detail

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_FN result<ip_address> ip_address::parse(std::string_view text) {
  ip_address address;
  if (text.find(':') == text.npos) {
    if (detail::parse_v4(text, address.bytes_)) return address;
  } else {
    const std::size_t percent = text.find('%');
    address.is_v6_ = true;
    if (detail::parse_v6(text.substr(0, percent), address.bytes_) &&
        (percent == text.npos || detail::parse_scope(text.substr(percent + 1), address.scope_))) {
      return address;
    }
  }
  return error(errc::invalid_argument, 0, "ip_address");
}

ANYIO_NET_FN std::string ip_address::to_string() const {
  std::string text;
  if (is_v6_) {
    detail::append_v6(text, bytes_);
    if (scope_ != 0) detail::append_scope(text, scope_);
  } else {
    detail::append_v4(text, bytes_);
  }
  return text;
}

ANYIO_NET_FN result<ip_endpoint> ip_endpoint::parse(std::string_view text) {
  const error failure(errc::invalid_argument, 0, "ip_endpoint");
  const std::size_t colon = text.rfind(':');
  if (colon == text.npos) return failure;
  std::string_view host = text.substr(0, colon);
  std::string_view port = text.substr(colon + 1);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const result<ip_address> address = ip_address::parse(host);
  std::uint32_t number = 0;
  if (!address || address->is_v6() != bracketed || !detail::take_decimal(port, 65535, number) ||
      !port.empty()) {
    return failure;
  }
  return ip_endpoint{*address, static_cast<std::uint16_t>(number)};
}

ANYIO_NET_FN std::string ip_endpoint::to_string() const {
  std::string text = address.to_string();
  if (address.is_v6()) {
    text.insert(text.begin(), '[');
    text += ']';
  }
  text += ':';
  detail::append_decimal(text, port);
  return text;
}

ANYIO_NET_FN result<ip_endpoint> ip_endpoint::from_sockaddr(const sockaddr* data, socklen_t size) {
  const int family = detail::sockaddr_family(data, size);
  if (family == AF_INET && size >= sizeof(sockaddr_in)) {
    sockaddr_in raw;
    std::memcpy(&raw, data, sizeof raw);
    return ip_endpoint{ip_address::v4(ntohl(raw.sin_addr.s_addr)), ntohs(raw.sin_port)};
  }
  if (family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    sockaddr_in6 raw;
    std::memcpy(&raw, data, sizeof raw);
    std::byte bytes[16];
    std::memcpy(bytes, &raw.sin6_addr, sizeof bytes);
    ip_endpoint endpoint{ip_address::v6(bytes, raw.sin6_scope_id), ntohs(raw.sin6_port)};
    if (detail::is_v4_mapped(bytes)) endpoint.address = detail::unmapped(endpoint.address);
    return endpoint;
  }
  return error(errc::invalid_argument, 0, "ip_endpoint");
}

ANYIO_NET_FN socklen_t ip_endpoint::to_sockaddr(sockaddr_storage& storage) const noexcept {
  std::memset(&storage, 0, sizeof storage);
  return detail::write_sockaddr(*this, storage);
}

namespace detail {

ANYIO_NET_FN socklen_t write_sockaddr(const ip_endpoint& endpoint, sockaddr_storage& storage) noexcept {
  const ip_address& address = endpoint.address;
  const std::byte* const bytes = address.bytes().data();
  socklen_t size = 0;
  if (address.is_v4()) {
    sockaddr_in raw{};
    raw.sin_family = AF_INET;
    raw.sin_port = htons(endpoint.port);
    std::memcpy(&raw.sin_addr, bytes, sizeof raw.sin_addr);
    size = sizeof raw;
    std::memcpy(&storage, &raw, sizeof raw);
  } else {
    sockaddr_in6 raw{};
    raw.sin6_family = AF_INET6;
    raw.sin6_port = htons(endpoint.port);
    raw.sin6_scope_id = address.scope_id();
    std::memcpy(&raw.sin6_addr, bytes, sizeof raw.sin6_addr);
    size = sizeof raw;
    std::memcpy(&storage, &raw, sizeof raw);
  }
  set_sockaddr_size(storage, size);
  return size;
}

ANYIO_NET_FN bool is_mapped(const ip_address& address) noexcept {
  return address.is_v6() && is_v4_mapped(address.bytes().data());
}

ANYIO_NET_COLD ip_address unmapped(const ip_address& address) noexcept {
  if (!is_mapped(address)) return address;
  std::uint32_t number = 0;
  for (const std::byte b : address.bytes().last(4)) number = number << 8 | std::to_integer<std::uint32_t>(b);
  return ip_address::v4(number);
}

ANYIO_NET_COLD ip_address mapped(const ip_address& address) noexcept {
  if (address.is_v6()) return address;
  std::byte bytes[16] = {};
  bytes[10] = bytes[11] = std::byte{0xff};
  std::memcpy(bytes + 12, address.bytes().data(), 4);
  return ip_address::v6(bytes);
}

[[gnu::cold]] inline socklen_t fill_other_family(const ip_endpoint& endpoint,
                                                 sockaddr_storage& storage) noexcept {
  const ip_address& address = endpoint.address;
  return write_sockaddr({address.is_v4() ? mapped(address) : unmapped(address), endpoint.port}, storage);
}

ANYIO_NET_FN socklen_t fill_address(const ip_endpoint& endpoint, int family,
                                    sockaddr_storage& storage) noexcept {
  if (endpoint.address.is_v6() != (family == AF_INET6)) return fill_other_family(endpoint, storage);
  return write_sockaddr(endpoint, storage);
}

}  // namespace detail

}}  // namespace anyio

// == base/byte_queue.ipp ==========================================================================

// The memory of a byte queue.

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Moves the content so that `front` free bytes come before it, in memory of at least this capacity.
ANYIO_NET_FN void byte_queue::rearrange(std::size_t front, std::size_t capacity) {
  const std::size_t used = size();
  if (capacity > capacity_) {
    const std::size_t larger = std::bit_ceil(std::max(capacity, least));
    auto* const memory = static_cast<std::byte*>(detail::recycler::allocate_bytes(larger));
    if (used != 0) std::memcpy(memory + front, memory_ + begin_, used);
    release();
    memory_ = memory;
    capacity_ = larger;
  } else if (used != 0) {
    std::memmove(memory_ + front, memory_ + begin_, used);
  }
  begin_ = front;
  end_ = front + used;
}

ANYIO_NET_FN void byte_queue::release() noexcept {
  if (memory_ != nullptr) detail::recycler::deallocate_bytes(memory_, capacity_);
  memory_ = nullptr;
  capacity_ = begin_ = end_ = 0;
}

ANYIO_NET_FN mutable_buffer byte_queue::prepare(std::size_t at_least) {
  if (capacity_ - end_ < at_least) rearrange(0, size() + at_least);
  return mutable_buffer(memory_ + end_, capacity_ - end_);
}

ANYIO_NET_FN void byte_queue::append(const_buffer bytes) {
  if (bytes.empty()) return;
  std::memcpy(prepare(bytes.size()).data(), bytes.data(), bytes.size());
  commit(bytes.size());
}

ANYIO_NET_FN void byte_queue::put_back(const_buffer bytes) {
  if (bytes.empty()) return;
  if (begin_ < bytes.size()) rearrange(bytes.size(), size() + bytes.size());
  begin_ -= bytes.size();
  std::memcpy(memory_ + begin_, bytes.data(), bytes.size());
}

ANYIO_NET_FN void byte_queue::consume(std::size_t n) noexcept {
  begin_ += n;
  if (begin_ != end_) return;
  begin_ = end_ = 0;
  if (detail::recycler::recycles_bytes(capacity_) || capacity_ > kept_limit) release();
}

}}  // namespace anyio

// == base/error.ipp ===============================================================================

// Names and descriptions of errors.

#include <cstdio>
#include <cstdlib>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

struct error_text {
  int number = 0;
  const char* name = nullptr;
  const char* words = nullptr;
};

template <std::size_t Count>
consteval std::size_t size_of_texts(const error_text (&list)[Count]) {
  std::size_t size = 0;
  for (const error_text& t : list)
    size += std::string_view(t.name).size() + std::string_view(t.words).size() + 2;
  return size;
}

/// The compact form of a list in the program: the texts follow one another without padding. There are no
/// pointers, since the loader would have to relocate them when the program starts.
template <std::size_t Count, std::size_t Size>
class error_texts {
 public:
  consteval explicit error_texts(const error_text (&list)[Count]) {
    char* to = texts_;
    for (std::size_t i = 0; i < Count; ++i) {
      numbers_[i] = static_cast<std::int16_t>(list[i].number);
      for (const std::string_view text : {list[i].name, list[i].words})
        to = std::copy(text.begin(), text.end(), to) + 1;
    }
  }

  /// Returns an entry without texts if the number is not known.
  [[nodiscard]] error_text find(int number) const noexcept {
    const char* text = texts_;
    for (const std::int16_t known : numbers_) {
      const char* words = text + std::strlen(text) + 1;
      if (known == number) return {number, text, words};
      text = words + std::strlen(words) + 1;
    }
    return {};
  }

 private:
  std::int16_t numbers_[Count] = {};
  char texts_[Size] = {};
};

// clang-format off
inline constexpr error_text errno_list[] = {
    {EPERM, "EPERM", "operation not permitted"},
    {ENOENT, "ENOENT", "no such file"},
    {EINTR, "EINTR", "interrupted"},
    {EIO, "EIO", "input/output error"},
    {ENXIO, "ENXIO", "no such device or address"},
    {EBADF, "EBADF", "bad file descriptor"},
    {EAGAIN, "EAGAIN", "resource temporarily unavailable"},
    {ENOMEM, "ENOMEM", "out of memory"},
    {EACCES, "EACCES", "permission denied"},
    {EFAULT, "EFAULT", "bad address"},
    {EBUSY, "EBUSY", "device or resource busy"},
    {EEXIST, "EEXIST", "file exists"},
    {ENODEV, "ENODEV", "no such device"},
    {ENOTDIR, "ENOTDIR", "not a directory"},
    {EISDIR, "EISDIR", "is a directory"},
    {EINVAL, "EINVAL", "invalid argument"},
    {ENFILE, "ENFILE", "too many open files in the system"},
    {EMFILE, "EMFILE", "too many open files"},
    {ENOTTY, "ENOTTY", "inappropriate control operation"},
    {EFBIG, "EFBIG", "file too large"},
    {ENOSPC, "ENOSPC", "no space left on device"},
    {ESPIPE, "ESPIPE", "illegal seek"},
    {EROFS, "EROFS", "read-only file system"},
    {EPIPE, "EPIPE", "broken pipe"},
    {ERANGE, "ERANGE", "result out of range"},
    {ENAMETOOLONG, "ENAMETOOLONG", "name too long"},
    {ENOSYS, "ENOSYS", "function not implemented"},
    {ELOOP, "ELOOP", "too many symbolic links"},
    {EPROTO, "EPROTO", "protocol error"},
    {EOVERFLOW, "EOVERFLOW", "value too large"},
    {ENOTSOCK, "ENOTSOCK", "not a socket"},
    {EDESTADDRREQ, "EDESTADDRREQ", "destination address required"},
    {EMSGSIZE, "EMSGSIZE", "message too long"},
    {EPROTOTYPE, "EPROTOTYPE", "wrong socket type"},
    {ENOPROTOOPT, "ENOPROTOOPT", "option not available"},
    {EPROTONOSUPPORT, "EPROTONOSUPPORT", "protocol not supported"},
    {EOPNOTSUPP, "EOPNOTSUPP", "operation not supported"},
    {EAFNOSUPPORT, "EAFNOSUPPORT", "address family not supported"},
    {EADDRINUSE, "EADDRINUSE", "address already in use"},
    {EADDRNOTAVAIL, "EADDRNOTAVAIL", "address not available"},
    {ENETDOWN, "ENETDOWN", "network is down"},
    {ENETUNREACH, "ENETUNREACH", "network is unreachable"},
    {ENETRESET, "ENETRESET", "connection dropped by the network"},
    {ECONNABORTED, "ECONNABORTED", "connection aborted"},
    {ECONNRESET, "ECONNRESET", "connection reset by peer"},
    {ENOBUFS, "ENOBUFS", "no buffer space available"},
    {EISCONN, "EISCONN", "already connected"},
    {ENOTCONN, "ENOTCONN", "not connected"},
    {ETIMEDOUT, "ETIMEDOUT", "connection timed out"},
    {ECONNREFUSED, "ECONNREFUSED", "connection refused"},
    {EHOSTDOWN, "EHOSTDOWN", "host is down"},
    {EHOSTUNREACH, "EHOSTUNREACH", "no route to host"},
    {EALREADY, "EALREADY", "already in progress"},
    {EINPROGRESS, "EINPROGRESS", "in progress"},
    {ECANCELED, "ECANCELED", "cancelled"},
    {ESRCH, "ESRCH", "no such process"},
    {E2BIG, "E2BIG", "argument list too long"},
    {ENOEXEC, "ENOEXEC", "not an executable"},
    {ECHILD, "ECHILD", "no child processes"},
    {EXDEV, "EXDEV", "cross-device link"},
    {ETXTBSY, "ETXTBSY", "executable is in use"},
    {EMLINK, "EMLINK", "too many links"},
    {EDOM, "EDOM", "argument out of domain"},
    {EDEADLK, "EDEADLK", "would deadlock"},
    {ENOLCK, "ENOLCK", "no locks available"},
    {ENOTEMPTY, "ENOTEMPTY", "directory not empty"},
    {EILSEQ, "EILSEQ", "invalid byte sequence"},
    {EIDRM, "EIDRM", "identifier removed"},
    {ENOMSG, "ENOMSG", "no message of that type"},
    {EBADMSG, "EBADMSG", "bad message"},
    {EDQUOT, "EDQUOT", "disk quota exceeded"},
    {ESTALE, "ESTALE", "stale file handle"},
    {EOWNERDEAD, "EOWNERDEAD", "owner died"},
    {ENOTRECOVERABLE, "ENOTRECOVERABLE", "state not recoverable"},
#if ENOTSUP != EOPNOTSUPP
    {ENOTSUP, "ENOTSUP", "not supported"},
#endif
#if defined(EDEADLOCK) && EDEADLOCK != EDEADLK
    {EDEADLOCK, "EDEADLOCK", "file locking deadlock"},
#endif
#if defined(ENOTBLK)
    {ENOTBLK, "ENOTBLK", "block device required"},
#endif
#if defined(EREMOTE)
    {EREMOTE, "EREMOTE", "object is remote"},
#endif
#if defined(EUSERS)
    {EUSERS, "EUSERS", "too many users"},
#endif
#if defined(ESOCKTNOSUPPORT)
    {ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT", "socket type not supported"},
#endif
#if defined(EPFNOSUPPORT)
    {EPFNOSUPPORT, "EPFNOSUPPORT", "protocol family not supported"},
#endif
#if defined(ESHUTDOWN)
    {ESHUTDOWN, "ESHUTDOWN", "socket has been shut down"},
#endif
#if defined(ETOOMANYREFS)
    {ETOOMANYREFS, "ETOOMANYREFS", "too many descriptors in flight"},
#endif
#if defined(EMULTIHOP)
    {EMULTIHOP, "EMULTIHOP", "multihop attempted"},
#endif
#if defined(ENOLINK)
    {ENOLINK, "ENOLINK", "link has been severed"},
#endif
#if defined(ENODATA)
    {ENODATA, "ENODATA", "no data available"},
#endif
#if defined(ENOSR)
    {ENOSR, "ENOSR", "out of streams resources"},
#endif
#if defined(ENOSTR)
    {ENOSTR, "ENOSTR", "not a stream"},
#endif
#if defined(ETIME)
    {ETIME, "ETIME", "timer expired"},
#endif
#if defined(EBADRPC)
    {EBADRPC, "EBADRPC", "RPC structure is bad"},
#endif
#if defined(ERPCMISMATCH)
    {ERPCMISMATCH, "ERPCMISMATCH", "RPC version is wrong"},
#endif
#if defined(EPROGUNAVAIL)
    {EPROGUNAVAIL, "EPROGUNAVAIL", "RPC program not available"},
#endif
#if defined(EPROGMISMATCH)
    {EPROGMISMATCH, "EPROGMISMATCH", "RPC program version is wrong"},
#endif
#if defined(EPROCUNAVAIL)
    {EPROCUNAVAIL, "EPROCUNAVAIL", "bad procedure for RPC program"},
#endif
#if defined(EPROCLIM)
    {EPROCLIM, "EPROCLIM", "too many processes"},
#endif
#if defined(EFTYPE)
    {EFTYPE, "EFTYPE", "inappropriate file type"},
#endif
#if defined(EAUTH)
    {EAUTH, "EAUTH", "authentication error"},
#endif
#if defined(ENEEDAUTH)
    {ENEEDAUTH, "ENEEDAUTH", "authentication required"},
#endif
#if defined(ENOATTR) && !defined(__linux__)
    {ENOATTR, "ENOATTR", "attribute not found"},
#endif
#if defined(EDOOFUS)
    {EDOOFUS, "EDOOFUS", "programming error"},
#endif
#if defined(ENOTCAPABLE)
    {ENOTCAPABLE, "ENOTCAPABLE", "capabilities insufficient"},
#endif
#if defined(ECAPMODE)
    {ECAPMODE, "ECAPMODE", "not permitted in capability mode"},
#endif
#if defined(EINTEGRITY)
    {EINTEGRITY, "EINTEGRITY", "integrity check failed"},
#endif
#if defined(EPWROFF)
    {EPWROFF, "EPWROFF", "device power is off"},
#endif
#if defined(EDEVERR)
    {EDEVERR, "EDEVERR", "device error"},
#endif
#if defined(EBADEXEC)
    {EBADEXEC, "EBADEXEC", "bad executable"},
#endif
#if defined(EBADARCH)
    {EBADARCH, "EBADARCH", "executable for another processor"},
#endif
#if defined(ESHLIBVERS)
    {ESHLIBVERS, "ESHLIBVERS", "shared library version mismatch"},
#endif
#if defined(EBADMACHO)
    {EBADMACHO, "EBADMACHO", "malformed Mach-O file"},
#endif
#if defined(ENOPOLICY)
    {ENOPOLICY, "ENOPOLICY", "no such policy"},
#endif
#if defined(EQFULL)
    {EQFULL, "EQFULL", "output queue is full"},
#endif
#if defined(ENOTACQUIRED)
    {ENOTACQUIRED, "ENOTACQUIRED", "lock not acquired"},
#endif
#if defined(__linux__)
    {ECHRNG, "ECHRNG", "channel number out of range"},
    {EL2NSYNC, "EL2NSYNC", "level 2 not synchronized"},
    {EL3HLT, "EL3HLT", "level 3 halted"},
    {EL3RST, "EL3RST", "level 3 reset"},
    {ELNRNG, "ELNRNG", "link number out of range"},
    {EUNATCH, "EUNATCH", "protocol driver not attached"},
    {ENOCSI, "ENOCSI", "no CSI structure available"},
    {EL2HLT, "EL2HLT", "level 2 halted"},
    {EBADE, "EBADE", "invalid exchange"},
    {EBADR, "EBADR", "invalid request descriptor"},
    {EXFULL, "EXFULL", "exchange full"},
    {ENOANO, "ENOANO", "no anode"},
    {EBADRQC, "EBADRQC", "invalid request code"},
    {EBADSLT, "EBADSLT", "invalid slot"},
    {EBFONT, "EBFONT", "bad font file format"},
    {ENONET, "ENONET", "machine is not on the network"},
    {ENOPKG, "ENOPKG", "package not installed"},
    {EADV, "EADV", "advertise error"},
    {ESRMNT, "ESRMNT", "srmount error"},
    {ECOMM, "ECOMM", "communication error on send"},
    {EDOTDOT, "EDOTDOT", "RFS specific error"},
    {ENOTUNIQ, "ENOTUNIQ", "name not unique on the network"},
    {EBADFD, "EBADFD", "file descriptor in bad state"},
    {EREMCHG, "EREMCHG", "remote address changed"},
    {ELIBACC, "ELIBACC", "cannot access a shared library"},
    {ELIBBAD, "ELIBBAD", "corrupted shared library"},
    {ELIBSCN, "ELIBSCN", "corrupted .lib section"},
    {ELIBMAX, "ELIBMAX", "too many shared libraries"},
    {ELIBEXEC, "ELIBEXEC", "cannot execute a shared library"},
    {ERESTART, "ERESTART", "system call should be restarted"},
    {ESTRPIPE, "ESTRPIPE", "streams pipe error"},
    {EUCLEAN, "EUCLEAN", "file system needs cleaning"},
    {ENOTNAM, "ENOTNAM", "not a XENIX named type file"},
    {ENAVAIL, "ENAVAIL", "no XENIX semaphores available"},
    {EISNAM, "EISNAM", "is a named type file"},
    {EREMOTEIO, "EREMOTEIO", "remote input/output error"},
    {ENOMEDIUM, "ENOMEDIUM", "no medium found"},
    {EMEDIUMTYPE, "EMEDIUMTYPE", "wrong medium type"},
    {ENOKEY, "ENOKEY", "required key not available"},
    {EKEYEXPIRED, "EKEYEXPIRED", "key has expired"},
    {EKEYREVOKED, "EKEYREVOKED", "key has been revoked"},
    {EKEYREJECTED, "EKEYREJECTED", "key was rejected by service"},
    {ERFKILL, "ERFKILL", "blocked by a radio switch"},
    {EHWPOISON, "EHWPOISON", "memory page has a hardware error"},
#endif
};
// clang-format on

inline constexpr error_texts<std::size(errno_list), size_of_texts(errno_list)> errno_texts(errno_list);

ANYIO_NET_FN std::string_view errno_name(int value) noexcept {
  const char* name = errno_texts.find(value).name;
  return name != nullptr ? name : std::string_view();
}

inline constexpr error_text errc_list[] = {
    {static_cast<int>(errc::ok), "ok", "success"},
    {static_cast<int>(errc::end_of_stream), "end_of_stream", "end of stream"},
    {static_cast<int>(errc::closed_resource), "closed_resource", "closed by this end"},
    {static_cast<int>(errc::broken_resource), "broken_resource", "broken by the peer"},
    {static_cast<int>(errc::busy_resource), "busy_resource",
     "another operation is already waiting on this resource"},
    {static_cast<int>(errc::incomplete_read), "incomplete_read", "the stream ended before all bytes arrived"},
    {static_cast<int>(errc::delimiter_not_found), "delimiter_not_found", "no delimiter within the limit"},
    {static_cast<int>(errc::timed_out), "timed_out", "timed out"},
    {static_cast<int>(errc::cancelled), "cancelled", "cancelled"},
    {static_cast<int>(errc::invalid_argument), "invalid_argument", "invalid argument"},
    {static_cast<int>(errc::name_resolution), "name_resolution", "name resolution failed"},
    {static_cast<int>(errc::tls), "tls", "TLS failure"},
    {static_cast<int>(errc::fds_truncated), "fds_truncated", "received more descriptors than requested"},
    {static_cast<int>(errc::not_supported), "not_supported", "not supported"},
    {static_cast<int>(errc::deadlock), "deadlock", "deadlock: nothing can wake any task"},
    {static_cast<int>(errc::os_error), "os_error", "system error"},
};

inline constexpr error_texts<std::size(errc_list), size_of_texts(errc_list)> errc_texts(errc_list);

class error_category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "anyio"; }
  std::string message(int value) const override {
    const char* words = errc_texts.find(value).words;
    return words != nullptr ? words : "unknown";
  }
};

ANYIO_NET_COLD void assertion_failed(const char* what, int line) noexcept {
  std::fprintf(stderr, "anyio_net.hpp:%d: assertion failed: %s\n", line, what);
  std::abort();
}

ANYIO_NET_COLD void abort_with(const char* what, const error& e) {
  std::fprintf(stderr, "anyio: %s: %s\n", what, e.message().c_str());
  std::abort();
}

ANYIO_NET_COLD void throw_error(const error& e) {
#if ANYIO_NET_EXCEPTIONS
  switch (e.code()) {
    case errc::ok: break;
    case errc::end_of_stream: throw end_of_stream(e);
    case errc::closed_resource: throw closed_resource(e);
    case errc::broken_resource: throw broken_resource(e);
    case errc::busy_resource: throw busy_resource(e);
    case errc::incomplete_read: throw incomplete_read(e);
    case errc::delimiter_not_found: throw delimiter_not_found(e);
    case errc::timed_out: throw timed_out(e);
    case errc::cancelled: throw cancelled(e);
    case errc::invalid_argument: throw invalid_argument(e);
    case errc::name_resolution: throw name_resolution(e);
    case errc::tls: throw tls_error(e);
    case errc::fds_truncated: throw fds_truncated(e);
    case errc::not_supported: throw not_supported(e);
    case errc::deadlock: throw deadlock(e);
    case errc::os_error: throw os_error(e);
  }
#endif
  abort_with("unhandled error", e);
}

}  // namespace detail

ANYIO_NET_FN std::string_view to_string(errc code) noexcept {
  const char* name = detail::errc_texts.find(static_cast<int>(code)).name;
  return name != nullptr ? name : "unknown";
}

ANYIO_NET_COLD std::string error::message() const {
  std::string_view pieces[8];  // operation, ": ", reason, ", ", words, " (", name, ")"
  std::size_t count = 0;
  std::size_t size = 0;
  const auto add = [&](std::string_view piece) {
    pieces[count++] = piece;
    size += piece.size();
  };
  if (*operation_ != '\0') {
    add(operation_);
    add(": ");
  }
  char number[16];
  if (os_error_ != 0) {
    const detail::error_text known = detail::errno_texts.find(os_error_);
    if (known.name == nullptr) std::snprintf(number, sizeof number, "errno %d", os_error_);
    if (reason_ != nullptr) {
      add(reason_);
      add(", ");
    }
    add(known.words != nullptr ? known.words : "unknown error");
    add(" (");
    add(known.name != nullptr ? known.name : number);
    add(")");
  } else {
    add(reason_ != nullptr ? reason_ : detail::errc_texts.find(static_cast<int>(code_)).words);
  }
  std::string text(size, '\0');
  char* to = text.data();
  for (std::size_t i = 0; i < count; ++i) to = std::copy(pieces[i].begin(), pieces[i].end(), to);
  return text;
}

ANYIO_NET_FN std::error_code make_error_code(error e) noexcept {
  static const detail::error_category category;
  if (e.os_error() != 0) return {e.os_error(), std::system_category()};
  return {static_cast<int>(e.code()), category};
}

}}  // namespace anyio

// == base/recycler.ipp ============================================================================

// The rare paths of the recycler.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_COLD void recycler::refuse(void* memory, std::size_t size) noexcept {
  if (cache.guarded || size > largest) return ::operator delete(memory);
  make_room();
  deallocate(memory, size);
}

ANYIO_NET_COLD void recycler::refuse(pool from, void* memory) noexcept {
  if (cache.guarded) return ::operator delete(memory);
  make_room();
  deallocate(from, memory, block_size_of[from]);
}

ANYIO_NET_COLD recycler::reservation::reservation(pool in, std::size_t count) : in_(in) {
  // An impossible size fails at once, and not only after the machine has run out of memory.
  constexpr std::size_t most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max());
  const std::size_t size = block_size_of[in];
  ::operator delete(::operator new(count > most / size ? most : count * size));
  struct list {
    block* first = nullptr;
    ~list() { free_all(first); }
  } made;
  for (std::size_t i = 0; i < count; ++i) made.first = ::new (::operator new(size)) block{made.first};
  blocks_ = std::exchange(made.first, nullptr);
}

ANYIO_NET_COLD void recycler::reservation::put_aside() noexcept {
  if (!cache.guarded) make_room();
  while (block* b = blocks_) {
    blocks_ = b->next;
    cache.pools[in_].list = ::new (static_cast<void*>(b)) block{cache.pools[in_].list};
  }
}

/// Runs once per thread.
ANYIO_NET_COLD void recycler::make_room() noexcept {
  static thread_local guard at_exit;
  static_cast<void>(at_exit);
  cache.guarded = true;
  cache.room = kept_bytes;
  for (auto& p : cache.pools) p.room = recycler_cache::kept_small;
  cache.pools[large].room = recycler_cache::kept_large;
}

ANYIO_NET_FN void recycler::free_all(block*& list) noexcept {
  while (block* b = list) {
    list = b->next;
    ::operator delete(b);
  }
}

ANYIO_NET_FN void recycler::close() noexcept {
  for (block*& list : cache.lists) free_all(list);
  cache.room = 0;
  for (auto& p : cache.pools) {
    free_all(p.list);
    p.room = 0;
  }
}

}}}  // namespace anyio::detail

// == system/epoll_backend.ipp =====================================================================

// The poller on Linux: epoll, and an eventfd for wake-ups.
//
// A descriptor of the library is added once in its life, edge-triggered in both directions. A descriptor of
// the user is watched for one event at a time. This part must not know how events are used.

#if defined(__linux__) && !defined(ANYIO_NET_KQUEUE)

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <iterator>
#include <memory>
#include <span>
#include <utility>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

// One conversion of the bits serves epoll and poll.
static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLPRI == POLLPRI && EPOLLERR == POLLERR &&
              EPOLLHUP == POLLHUP && EPOLLRDHUP == POLLRDHUP);

class epoll_backend final : public posix_backend {
 public:
  /// The token of the wake descriptor; no other descriptor may use it.
  static constexpr std::uint64_t wake_token = ~std::uint64_t{0};

  /// Makes a backend; null if the kernel has no descriptors left.
  [[gnu::cold]] [[nodiscard]] static std::unique_ptr<epoll_backend> make() {
    std::unique_ptr<epoll_backend> made(new epoll_backend);
    return made->open() < 0 ? nullptr : std::move(made);
  }
  ~epoll_backend() override { close_own(); }

  int watch(int fd, std::uint64_t token) override {
    ANYIO_NET_ASSERT(token != wake_token);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    event.data.u64 = token;
    return ::epoll_ctl(poller_, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
  }
  void forget(int fd) override {
    epoll_event unused{};  // kernels before 2.6.9 required a non-null pointer
    ::epoll_ctl(poller_, EPOLL_CTL_DEL, fd, &unused);
  }
  int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override {
    ANYIO_NET_ASSERT(token != wake_token);
    const auto events = static_cast<std::uint32_t>(poll_interest(interest));
    return control(fd, events | EPOLLONESHOT, token, again);
  }
  ANYIO_NET_FN int wait(std::span<poll_event> events, duration at_most) override;
  /// Ends the current `wait`, or else the next one. May be called from a signal handler.
  void wake() override {
    if (woken_.exchange(true)) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_fd_, &one, sizeof one);
  }
  int native_handle() const override { return poller_; }
  int wake_descriptor() const override { return wake_fd_; }
  [[gnu::cold]] int after_fork() override {
    close_own();  // first, so that two descriptor numbers are free
    woken_.store(false);
    return open();
  }

 private:
  epoll_backend() = default;

  /// Opens the two descriptors. 0 or a negative errno.
  [[gnu::cold]] int open() noexcept {
    poller_ = ::epoll_create1(EPOLL_CLOEXEC);
    if (poller_ < 0) return -errno;
    wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) return -errno;
    return control(wake_fd_, EPOLLIN, wake_token, false);
  }
  [[gnu::cold]] void close_own() noexcept {
    if (wake_fd_ >= 0) ::close(wake_fd_);
    if (poller_ >= 0) ::close(poller_);
    poller_ = wake_fd_ = -1;
  }

  /// Adds a descriptor, or changes it if it is in the poller already; `change_first` says which of the two
  /// calls to try first.
  int control(int fd, std::uint32_t events, std::uint64_t token, bool change_first) noexcept {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    if (::epoll_ctl(poller_, change_first ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0) return 0;
    if (errno != (change_first ? ENOENT : EEXIST)) return -errno;
    if (::epoll_ctl(poller_, change_first ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) == 0) return 0;
    return -errno;
  }

  int poller_ = -1;
  int wake_fd_ = -1;
  std::atomic<bool> woken_{false};  // a wake-up is pending; another write is not needed
};

/// Converts to milliseconds, rounded up, since a wait that ends before the timer is due would be repeated. A
/// negative limit means no limit. A limit that epoll cannot express ends early, after 24 days.
inline int epoll_timeout(duration at_most) noexcept {
  if (at_most < duration::zero()) return -1;
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(at_most);
  if (whole.count() >= INT_MAX) return INT_MAX;
  return static_cast<int>(whole.count()) + (at_most > whole ? 1 : 0);
}

ANYIO_NET_FN int epoll_backend::wait(std::span<poll_event> events, duration at_most) {
  if (events.empty()) return -EINVAL;
  epoll_event ready[256];
  const auto room = static_cast<int>(std::min(events.size(), std::size(ready)));
  const int n = ::epoll_wait(poller_, ready, room, epoll_timeout(at_most));
  if (n < 0) return errno == EINTR ? 0 : -errno;
  int count = 0;
  for (int i = 0; i < n; ++i) {
    if (ready[i].data.u64 == wake_token) {
      std::uint64_t times = 0;
      [[maybe_unused]] const ssize_t drained = ::read(wake_fd_, &times, sizeof times);
      // The flag is reset after the read: this return covers a `wake` in between. With the opposite order,
      // the read could consume that call's write and leave the flag set, and no later `wake` would write.
      woken_.exchange(false);
    } else {
      events[static_cast<std::size_t>(count++)] = {ready[i].data.u64, readiness_of_poll(ready[i].events)};
    }
  }
  return count;
}

}  // namespace detail

ANYIO_NET_COLD std::unique_ptr<backend> system_backend() { return detail::epoll_backend::make(); }

}}  // namespace anyio

#endif

// == system/kqueue_backend.ipp ====================================================================

// The poller on the BSDs and macOS: kqueue, and a pipe for wake-ups.
//
// A descriptor of the library is added once in its life, with EV_CLEAR and both filters. A descriptor of the
// user is watched for one event at a time. On other systems ANYIO_NET_KQUEUE selects this poller, through a
// library that provides <sys/event.h>. This part must not know how events are used.

#if defined(ANYIO_NET_KQUEUE)

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/event.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A list of changes for one descriptor; each change has its own error.
class kqueue_changes {
 public:
  static constexpr int limit = 3;

  void add(int fd, int filter, int flags, unsigned fflags = 0) noexcept {
    struct kevent& change = changes_[count_++];
    // Not EV_SET, which causes a warning on some systems.
    change = {};
    change.ident = static_cast<decltype(change.ident)>(fd);
    change.filter = static_cast<decltype(change.filter)>(filter);
    change.flags = static_cast<decltype(change.flags)>(flags | EV_RECEIPT);
    change.fflags = fflags;
  }

  /// Applies the changes. With EV_RECEIPT the kernel returns only receipts, one per change, and continues
  /// after a rejected change. An interrupted call is repeated, since a repeated change does no harm. 0 or a
  /// negative errno.
  int apply(int poller) noexcept {
    const timespec at_once{};
    do {
      receipt_count_ = ::kevent(poller, changes_, count_, receipts_, count_, &at_once);
    } while (receipt_count_ < 0 && errno == EINTR);
    return receipt_count_ < 0 ? -errno : 0;
  }

  /// The errno of the change of this filter, or 0.
  int error_of(int filter) const noexcept {
    for (int i = 0; i < receipt_count_; ++i) {
      const struct kevent& receipt = receipts_[i];
      if (static_cast<int>(receipt.filter) == filter && (receipt.flags & EV_ERROR) != 0)
        return static_cast<int>(receipt.data);
    }
    return 0;
  }

 private:
  struct kevent changes_[limit];
  struct kevent receipts_[limit];
  int count_ = 0;
  int receipt_count_ = 0;
};

/// Rejects a file with -EPERM: files are always ready, and kqueue would report them endlessly. 0 or -errno.
inline int refuse_file(int fd) noexcept {
  struct stat status;
  if (::fstat(fd, &status) != 0) return -errno;
  return S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode) ? -EPERM : 0;
}

/// Converts the error of a rejected filter to the backend's result: -EPERM for a device that is always ready,
/// such as /dev/null, for which systems return different errors. A terminal that cannot be watched keeps its
/// error, since it can block.
[[gnu::cold]] inline int filter_refusal(int fd, int error_number) noexcept {
  struct stat status;
  const bool is_device = ::fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && ::isatty(fd) == 0;
  const bool is_unknown = error_number != EBADF && error_number != ENOMEM;
  return is_device && is_unknown ? -EPERM : -error_number;
}

class kqueue_backend final : public posix_backend {
 public:
  /// Makes a backend; null if the kernel has no descriptors left.
  [[gnu::cold]] [[nodiscard]] static std::unique_ptr<kqueue_backend> make() {
    std::unique_ptr<kqueue_backend> made(new kqueue_backend);
    return made->open() < 0 ? nullptr : std::move(made);
  }
  ~kqueue_backend() override { close_own(); }

  ANYIO_NET_FN int watch(int fd, std::uint64_t token) override;
  void forget(int fd) override {
    if (fd < 0 || static_cast<std::size_t>(fd) >= entries_.size()) return;
    entry& e = entries_[static_cast<std::size_t>(fd)];
    if (e.is == kind::none) return;
    remove(fd);
    e.is = kind::none;
  }
  ANYIO_NET_FN int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override;
  ANYIO_NET_FN int wait(std::span<poll_event> events, duration at_most) override;
  /// Ends the current `wait`, or else the next one. May be called from a signal handler.
  void wake() override {
    if (woken_.exchange(true)) return;
    const char one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_fds_[1], &one, sizeof one);
  }
  int native_handle() const override { return poller_; }
  int wake_descriptor() const override { return wake_fds_[1]; }
  [[gnu::cold]] int after_fork() override {
    close_own();
    for (entry& e : entries_) e.is = kind::none;
    woken_.store(false);
    return open();
  }
  int close(int fd) override {
    // The kernel removes the filters, even if duplicates of the descriptor exist.
    if (fd >= 0 && static_cast<std::size_t>(fd) < entries_.size())
      entries_[static_cast<std::size_t>(fd)].is = kind::none;
    return posix_backend::close(fd);
  }

 private:
  enum class kind : unsigned char { none, own, foreign };

  /// The state of a descriptor, stored at its number. The token is stored here, since the kernel has only
  /// room for a pointer.
  struct entry {
    std::uint64_t token = 0;
    kind is = kind::none;
  };

  kqueue_backend() : entries_(256) {}

  /// Opens the descriptors. 0 or a negative errno.
  int open() noexcept;
  [[gnu::cold]] void close_own() noexcept {
    for (int& fd : wake_fds_)
      if (const int old = std::exchange(fd, -1); old >= 0) ::close(old);
    // In the child of a fork the number does not refer to the poller, and may refer to any other file.
    if (const int old = std::exchange(poller_, -1); old >= 0 && process_ == ::getpid()) ::close(old);
  }
  entry& entry_of(int fd) {
    const auto index = static_cast<std::size_t>(fd);
    if (index >= entries_.size()) entries_.resize(std::max(index + 1, entries_.size() * 2));
    return entries_[index];
  }
  /// Removes the filters. A filter is not there if it has reported once, or if its descriptor was closed.
  void remove(int fd) noexcept {
    kqueue_changes changes;
    changes.add(fd, EVFILT_READ, EV_DELETE);
    changes.add(fd, EVFILT_WRITE, EV_DELETE);
#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
    changes.add(fd, EVFILT_EXCEPT, EV_DELETE);
#endif
    static_cast<void>(changes.apply(poller_));
  }
  /// Whether a descriptor of the user is still in the poller. It is not if the user has closed it.
  [[gnu::cold]] bool still_there(int fd, const entry& e) noexcept {
    // kqueue has no query: a filter that can be removed was there, and is then added again.
    kqueue_changes out;
    out.add(fd, EVFILT_READ, EV_DELETE);
    out.add(fd, EVFILT_WRITE, EV_DELETE);
    if (out.apply(poller_) < 0) return false;
    std::uint32_t interest = 0;
    if (out.error_of(EVFILT_READ) == 0) interest |= ready_read;
    if (out.error_of(EVFILT_WRITE) == 0) interest |= ready_write;
    return interest != 0 && watch_once(fd, interest, e.token, true) == 0;
  }
  void drain_wake() noexcept {
    char bytes[512];  // the poller reports any remaining bytes again
    [[maybe_unused]] const ssize_t drained = ::read(wake_fds_[0], bytes, sizeof bytes);
    // The flag is reset after the read: this return covers a `wake` in between. With the opposite order, the
    // read could consume that call's write and leave the flag set, and no later `wake` would write.
    woken_.exchange(false);
  }

  std::vector<entry> entries_;
  int poller_ = -1;
  int wake_fds_[2] = {-1, -1};  // read from, written to
  pid_t process_ = 0;
  std::atomic<bool> woken_{false};  // a wake-up is pending; another write is not needed
};

ANYIO_NET_COLD int kqueue_backend::open() noexcept {
  process_ = ::getpid();
  poller_ = ::kqueue();
  if (poller_ < 0) return -errno;
  // A child of fork does not inherit the queue, but a program started by exec would.
  if (::fcntl(poller_, F_SETFD, FD_CLOEXEC) < 0) return -errno;
#if defined(__APPLE__)
  if (::pipe(wake_fds_) < 0) return -errno;
  for (const int fd : wake_fds_)
    if (const int status = adopt_descriptor(fd); status < 0) return status;
#else
  if (::pipe2(wake_fds_, O_CLOEXEC | O_NONBLOCK) < 0) return -errno;
#endif
  kqueue_changes changes;
  changes.add(wake_fds_[0], EVFILT_READ, EV_ADD);
  const int status = changes.apply(poller_);
  return status < 0 ? status : -changes.error_of(EVFILT_READ);
}

ANYIO_NET_FN int kqueue_backend::watch(int fd, std::uint64_t token) {
  if (fd < 0) return -EBADF;
  entry& e = entry_of(fd);
  if (e.is == kind::own || (e.is == kind::foreign && still_there(fd, e))) return -EEXIST;
  if (const int status = refuse_file(fd); status < 0) return status;
  kqueue_changes changes;
  changes.add(fd, EVFILT_READ, EV_ADD | EV_CLEAR);
  changes.add(fd, EVFILT_WRITE, EV_ADD | EV_CLEAR);
#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
  changes.add(fd, EVFILT_EXCEPT, EV_ADD | EV_CLEAR, NOTE_OOB);  // only some sockets have it
#endif
  if (const int status = changes.apply(poller_); status < 0) return status;
  for (const int filter : {EVFILT_READ, EVFILT_WRITE}) {
    const int error_number = changes.error_of(filter);
    // EPIPE: the other end of a pipe is closed already; the first attempt will report it.
    if (error_number == 0 || error_number == EPIPE) continue;
    remove(fd);
    return filter_refusal(fd, error_number);
  }
  e = {token, kind::own};
  return 0;
}

ANYIO_NET_FN int kqueue_backend::watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) {
  if (fd < 0) return -EBADF;
  entry& e = entry_of(fd);
  if (e.is == kind::own) return -EEXIST;
  if (const int status = refuse_file(fd); status < 0) return status;
  // Each filter reports once. A filter that is no longer wanted may still be there from an earlier call.
  kqueue_changes changes;
  const auto change = [&](int filter, std::uint32_t bit) {
    const bool wanted = (interest & bit) != 0;
    if (wanted || again || e.is == kind::foreign)
      changes.add(fd, filter, wanted ? EV_ADD | EV_ONESHOT : EV_DELETE);
    return wanted;
  };
  const bool reads = change(EVFILT_READ, ready_read);
  const bool writes = change(EVFILT_WRITE, ready_write);
  if (const int status = changes.apply(poller_); status < 0) return status;
  e = {token, kind::foreign};
  const int read_error = reads ? changes.error_of(EVFILT_READ) : 0;
  const int error_number = read_error != 0 ? read_error : writes ? changes.error_of(EVFILT_WRITE) : 0;
  if (error_number == 0) return 0;
  // If the other end of a pipe is closed, no call blocks.
  return error_number == EPIPE ? -EPERM : filter_refusal(fd, error_number);
}

/// Converts to a timespec; a negative limit means no limit. A limit that is too long for some kernels ends
/// early, after 24 days.
inline const timespec* kqueue_timeout(duration at_most, timespec& out) noexcept {
  if (at_most < duration::zero()) return nullptr;
  const duration limit = std::min<duration>(at_most, std::chrono::hours(24 * 24));
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(limit);
  out.tv_sec = static_cast<decltype(out.tv_sec)>(whole.count());
  out.tv_nsec = static_cast<decltype(out.tv_nsec)>((limit - whole).count());
  return &out;
}

inline std::uint32_t readiness_of_filter(const struct kevent& event) noexcept {
  const bool at_end = (event.flags & (EV_EOF | EV_ERROR)) != 0;
  switch (event.filter) {
    // At the end, earlier bytes may still be unread.
    case EVFILT_READ: return ready_read | (at_end ? ready_end : 0u);
    // EV_EOF of only this filter comes from a shutdown by this end; the read filter reports a hang-up too.
    case EVFILT_WRITE: return ready_write;
    default: return ready_urgent | ready_read;
  }
}

ANYIO_NET_FN int kqueue_backend::wait(std::span<poll_event> events, duration at_most) {
  if (events.empty()) return -EINVAL;
  struct kevent ready[256];
  const auto room = static_cast<int>(std::min(events.size(), std::size(ready)));
  timespec limit;
  const int n = ::kevent(poller_, nullptr, 0, ready, room, kqueue_timeout(at_most, limit));
  if (n < 0) return errno == EINTR ? 0 : -errno;
  int count = 0;
  for (int i = 0; i < n; ++i) {
    const auto index = static_cast<std::size_t>(ready[i].ident);
    if (index == static_cast<std::size_t>(wake_fds_[0])) {
      drain_wake();
    } else if (index < entries_.size() && entries_[index].is != kind::none) {
      events[static_cast<std::size_t>(count++)] = {entries_[index].token, readiness_of_filter(ready[i])};
    }
  }
  return count;
}

}  // namespace detail

ANYIO_NET_COLD std::unique_ptr<backend> system_backend() { return detail::kqueue_backend::make(); }

}}  // namespace anyio

#endif

// == system/new_socket.ipp ========================================================================

// Taking over sockets.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN int read_address(backend& system, int fd, socket_address& out, bool of_peer) {
  out.size = sizeof out.storage;
  out.storage.ss_family = AF_UNSPEC;  // some systems write nothing for a socket without a name
  const int status = of_peer ? system.remote_address(fd, out.get(), &out.size)
                             : system.local_address(fd, out.get(), &out.size);
  if (status < 0) out.size = 0;
  return status;
}

ANYIO_NET_FN void new_socket::prepare(int (*function)(int fd, void* data), void* data) {
  if (function == nullptr) return;
  step("prepare", [&] {
    const int reason = function(fd(), data);
    return reason > 0 ? -reason : reason;
  });
}

/// Reports the past of a stream socket without a peer. Returns 1 if bytes of a connection that is gone are
/// left. Otherwise returns a negative errno: the reason for its end, or an errno that says that there never
/// was a connection. Takes nothing from the socket except that errno.
[[gnu::cold]] inline ssize_t look_for_past(backend& system, int fd) {
  if (system.poll_now(fd, ready_read) <= 0) return -ENOTCONN;  // it may be blocking, and still connecting
  char byte;
  const ::iovec part{&byte, 1};
  message m{std::span(&part, 1)};
  m.peek = true;
  const ssize_t n = system.receive_message(fd, m);
  return n == 0 ? -ENOTCONN : n;  // a failed attempt to connect also reads as an end
}

ANYIO_NET_COLD result<int> type_of_socket(backend& system, int fd, const char* what) {
  if (fd < 0) return refusal_of(what, EBADF, "the descriptor is negative");
  int type = 0;
  const int status = read_option(system, fd, SOL_SOCKET, SO_TYPE, type);
  if (status == -EBADF) return refusal_of(what, EBADF, "the descriptor is not open");
  if (status == -EOPNOTSUPP) return error(errc::not_supported, EOPNOTSUPP, what);
  return status < 0 ? status : type;
}

ANYIO_NET_COLD result<adopted_socket> adopt_socket(backend& system, int fd, const wanted_socket& wanted) {
  adopted_socket adopted;
  const auto refuse = [&](int error_number, const char* reason) {
    return refusal_of(wanted.what, error_number, reason);
  };
  const result<int> type = type_of_socket(system, fd, wanted.what);
  if (!type) return type.error();
  if (*type < 0) return refuse(-*type, "the descriptor is not a socket");
  if (const int status = read_address(system, fd, adopted.local); status < 0)
    return refuse(-status, "the address of the socket cannot be read");
  const int family = adopted.local.storage.ss_family;
  if (!wanted.any_family && (wanted.is_unix ? family != AF_UNIX : family != AF_INET && family != AF_INET6))
    return refuse(0, "the socket has another address family");
  if (*type != wanted.type) return refuse(0, "the socket has another type");
  adopted.remote.size = 0;
  if (wanted.connected) {
    if (const int status = read_address(system, fd, adopted.remote, true); status < 0) {
      const ssize_t past = wanted.type == SOCK_STREAM ? look_for_past(system, fd) : status;
      if (past < 0 && past != -ECONNRESET)
        return refuse(static_cast<int>(-past), "the socket is not connected");
      if (past < 0) adopted.broken = ECONNRESET;
    }
  }
  int listens = 0;
  if (wanted.listening && (read_option(system, fd, SOL_SOCKET, SO_ACCEPTCONN, listens) < 0 || listens == 0))
    return refuse(0, "the socket is not listening");
  const int status = files_of(system).adopt(fd);
  if (status < 0) return error(errc::os_error, -status, wanted.what);
  adopted.was_blocking = status > 0;
  return adopted;
}

}}}  // namespace anyio::detail

// == system/posix_backend.ipp =====================================================================

// The system calls that all POSIX systems share.

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// MSG_DONTWAIT in every call: O_NONBLOCK belongs to the open file, and a process that shares it may clear it.
#if defined(MSG_NOSIGNAL) && !defined(__APPLE__)  // older macOS kernels do not know it
inline constexpr int send_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#else
inline constexpr int send_flags = MSG_DONTWAIT;  // `adopt_descriptor` disables SIGPIPE for each socket
#endif
#if defined(MSG_CMSG_CLOEXEC)
inline constexpr int receive_message_flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
#else
inline constexpr int receive_message_flags = MSG_DONTWAIT;
#endif

/// Makes a system call and returns its result or -errno. Repeats the call if a signal interrupts it.
template <class Call>
[[gnu::always_inline]] inline auto system_call(Call call) noexcept {
  using value = decltype(call());
  for (;;) {
    const value r = call();
    if (r >= 0) [[likely]]
      return r;
    if (errno != EINTR) return static_cast<value>(-errno);
  }
}

// --- time

ANYIO_NET_FN time_point posix_backend::now() { return std::chrono::steady_clock::now(); }

// --- readiness

ANYIO_NET_FN short poll_interest(std::uint32_t readiness_bits) noexcept {
  int events = 0;
  if ((readiness_bits & ready_read) != 0) events |= POLLIN;
  if ((readiness_bits & ready_write) != 0) events |= POLLOUT;
  if ((readiness_bits & ready_urgent) != 0) events |= POLLPRI;
#if defined(POLLRDHUP)
  if ((readiness_bits & ready_end) != 0) events |= POLLRDHUP;
#endif
  return static_cast<short>(events);
}

ANYIO_NET_FN std::uint32_t readiness_of_poll(unsigned events) noexcept {
  std::uint32_t ready = 0;
  if ((events & POLLIN) != 0) ready |= ready_read;
  if ((events & POLLOUT) != 0) ready |= ready_write;
  if ((events & POLLPRI) != 0) ready |= ready_urgent | ready_read;
#if defined(POLLRDHUP)
  if ((events & POLLRDHUP) != 0) ready |= ready_end | ready_read;
#endif
  if ((events & (POLLHUP | POLLERR)) != 0) ready |= ready_end | ready_read | ready_write;
  return ready;
}

ANYIO_NET_FN int posix_backend::poll_now(int fd, std::uint32_t interest) {
  // poll(2) silently ignores a negative descriptor.
  if (fd < 0) return -EBADF;
  pollfd entry{fd, poll_interest(interest), 0};
  const int n = system_call([&] { return ::poll(&entry, 1, 0); });
  if (n <= 0) return n;
  if ((entry.revents & POLLNVAL) != 0) return -EBADF;
  return static_cast<int>(readiness_of_poll(static_cast<unsigned short>(entry.revents)));
}

// --- sockets

/// Replaces SOCK_NONBLOCK, SOCK_CLOEXEC and accept4 on systems without them; a system has all three or none.
inline int prepare_socket(int fd) noexcept {
#if defined(SOCK_NONBLOCK)
  return fd;
#else
  const int r = adopt_descriptor(fd);
  if (r >= 0) return fd;
  ::close(fd);
  return r;
#endif
}

ANYIO_NET_FN int open_posix_socket(int family, int type, int protocol) noexcept {
#if defined(SOCK_NONBLOCK)
  type |= SOCK_CLOEXEC | SOCK_NONBLOCK;
#endif
  const int fd = system_call([&] { return ::socket(family, type, protocol); });
  return fd < 0 ? fd : prepare_socket(fd);
}

ANYIO_NET_FN int posix_backend::open_socket(int family, int type, int protocol) {
  return open_posix_socket(family, type, protocol);
}

ANYIO_NET_COLD int posix_backend::open_pair(int family, int type, int (&fds)[2]) {
#if defined(SOCK_NONBLOCK)
  type |= SOCK_CLOEXEC | SOCK_NONBLOCK;
#endif
  const int r = system_call([&] { return ::socketpair(family, type, 0, fds); });
  if (r < 0) return r;
  const int first = prepare_socket(fds[0]);
  const int second = prepare_socket(fds[1]);
  if (first >= 0 && second >= 0) return 0;
  if (first >= 0) ::close(first);
  if (second >= 0) ::close(second);
  return std::min(first, second);
}

ANYIO_NET_COLD int posix_backend::bind(int fd, const sockaddr* address, socklen_t size) {
  return system_call([&] { return ::bind(fd, address, size); });
}

ANYIO_NET_COLD int posix_backend::listen(int fd, int backlog) {
  return system_call([&] { return ::listen(fd, backlog); });
}

ANYIO_NET_FN int posix_backend::connect(int fd, const sockaddr* address, socklen_t size) {
  if (::connect(fd, address, size) == 0) return 0;
  // An interrupted attempt continues in the kernel (POSIX), so the call must not be repeated.
  return errno == EINTR ? -EINPROGRESS : -errno;
}

ANYIO_NET_FN int posix_backend::accept(int fd, sockaddr* address, socklen_t* size) {
#if defined(SOCK_NONBLOCK)
  const int r = system_call([&] { return ::accept4(fd, address, size, SOCK_CLOEXEC | SOCK_NONBLOCK); });
#else
  const int r = system_call([&] { return ::accept(fd, address, size); });
#endif
  return r < 0 ? r : prepare_socket(r);
}

/// Sets O_NONBLOCK for calls without a flag such as MSG_DONTWAIT. Checks first, since other processes see the
/// change.
inline void restore_non_blocking(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) static_cast<void>(::fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

ANYIO_NET_FN void posix_backend::keep_non_blocking(int fd) { restore_non_blocking(fd); }

ANYIO_NET_FN int posix_backend::shutdown(int fd, int how) {
  return system_call([&] { return ::shutdown(fd, how); });
}

ANYIO_NET_FN int posix_backend::close(int fd) {
  // No retry after EINTR: the number is free, and another thread may already use it.
  return ::close(fd) == 0 || errno == EINTR ? 0 : -errno;
}

ANYIO_NET_FN ssize_t posix_backend::receive(int fd, void* data, std::size_t size) {
  return system_call([&] { return ::recv(fd, data, size, MSG_DONTWAIT); });
}

/// Converts EPROTOTYPE, which macOS returns if the connection breaks during a send, to ECONNRESET.
template <class Result>
constexpr Result sent_or_error(Result r) noexcept {
#if defined(__APPLE__)
  if (r == -EPROTOTYPE) return -ECONNRESET;
#endif
  return r;
}

ANYIO_NET_FN ssize_t posix_backend::send(int fd, const void* data, std::size_t size) {
  return sent_or_error(system_call([&] { return ::send(fd, data, size, send_flags); }));
}

/// The header for `sendmsg` and `recvmsg`. Neither call writes to the const members of a message.
inline msghdr message_header(const message& m) noexcept {
  msghdr header{};  // musl and the BSDs have additional members and padding
  header.msg_name = m.address;
  header.msg_namelen = m.address != nullptr ? m.address_size : 0;
  header.msg_iov = const_cast<::iovec*>(m.parts.data());
  header.msg_iovlen = static_cast<decltype(header.msg_iovlen)>(m.parts.size());
  header.msg_control = m.control_size != 0 ? m.control : nullptr;
  header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
  return header;
}

inline void take_header(const msghdr& header, message& m) noexcept {
  m.address_size = m.address != nullptr ? header.msg_namelen : 0;
  m.control_size = static_cast<std::size_t>(header.msg_controllen);
  m.flags = header.msg_flags;
}

#if defined(__linux__)
/// Receives a datagram into one buffer with recvfrom, which is cheaper than recvmsg. With MSG_TRUNC the call
/// returns the full length of a truncated datagram (recv(2)).
inline ssize_t receive_datagram(int fd, message& m) {
  const ::iovec& room = m.parts.front();
  socklen_t size = 0;
  const ssize_t n = system_call([&] {
    size = m.address_size;
    return ::recvfrom(fd, room.iov_base, room.iov_len, MSG_DONTWAIT | MSG_TRUNC, m.address, &size);
  });
  if (n < 0) return n;
  const bool cut_off = static_cast<std::size_t>(n) > room.iov_len;
  m.address_size = size;
  m.flags = cut_off ? MSG_TRUNC : 0;
  return cut_off ? static_cast<ssize_t>(room.iov_len) : n;
}
#endif

// Inlined into the callers, since these are the hot paths of UNIX streams and of datagrams.
[[gnu::always_inline]] inline ssize_t receive_one(int fd, message& m) noexcept {
#if defined(__linux__)
  if (m.address != nullptr && m.parts.size() == 1 && m.control_size == 0 && !m.peek)
    return receive_datagram(fd, m);
#endif
  msghdr header{};
  const ssize_t n = system_call([&] {
    header = message_header(m);
    return ::recvmsg(fd, &header, receive_message_flags | (m.peek ? MSG_PEEK : 0));
  });
  if (n >= 0) take_header(header, m);
  return n;
}

[[gnu::always_inline]] inline ssize_t send_one(int fd, const message& m) noexcept {
  if (m.parts.size() == 1 && m.control_size == 0) {  // cheaper than `sendmsg`
    const ::iovec& part = m.parts.front();
    return sent_or_error(system_call(
        [&] { return ::sendto(fd, part.iov_base, part.iov_len, send_flags, m.address, m.address_size); }));
  }
  const msghdr header = message_header(m);
  return sent_or_error(system_call([&] { return ::sendmsg(fd, &header, send_flags); }));
}

ANYIO_NET_FN ssize_t posix_backend::receive_message(int fd, message& m) { return receive_one(fd, m); }

ANYIO_NET_FN ssize_t posix_backend::send_message(int fd, const message& m) { return send_one(fd, m); }

#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__)

inline constexpr std::size_t messages_per_call = 64;  // 4 KiB of stack

ANYIO_NET_FN int posix_batches::receive_messages(int fd, std::span<message> messages,
                                                 std::span<std::size_t> sizes, bool& emptied) {
  ANYIO_NET_ASSERT(sizes.size() >= messages.size());
  mmsghdr headers[messages_per_call];
  std::size_t done = 0;
  while (done < messages.size()) {
    const std::size_t room = std::min(messages.size() - done, messages_per_call);
    const int n = system_call([&] {
      for (std::size_t i = 0; i < room; ++i) {
        headers[i].msg_hdr = message_header(messages[done + i]);
        headers[i].msg_len = 0;
      }
      return static_cast<int>(
          ::recvmmsg(fd, headers, static_cast<unsigned>(room), receive_message_flags, nullptr));
    });
    // If a later datagram of a call fails, the kernel reports the error at the next call; the poller reports
    // it, since the error arrived after the call had begun. An error at the first datagram of a later call is
    // dropped here: it is either an ICMP error, on which no program may rely, or it persists.
    emptied = n == -EAGAIN || (n >= 0 && static_cast<std::size_t>(n) < room);
    if (n < 0) return done != 0 ? static_cast<int>(done) : n;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      take_header(headers[i].msg_hdr, messages[done + i]);
      sizes[done + i] = headers[i].msg_len;
    }
    done += static_cast<std::size_t>(n);
    if (static_cast<std::size_t>(n) < room) break;
  }
  return static_cast<int>(done);
}

ANYIO_NET_FN int posix_batches::send_messages(int fd, std::span<const message> messages) {
  mmsghdr headers[messages_per_call];
  std::size_t done = 0;
  while (done < messages.size()) {
    const std::size_t room = std::min(messages.size() - done, messages_per_call);
    for (std::size_t i = 0; i < room; ++i) {
      headers[i].msg_hdr = message_header(messages[done + i]);
      headers[i].msg_len = 0;
    }
    const int n = system_call(
        [&] { return static_cast<int>(::sendmmsg(fd, headers, static_cast<unsigned>(room), send_flags)); });
    if (n < 0) return done != 0 ? static_cast<int>(done) : n;
    done += static_cast<std::size_t>(n);
    if (static_cast<std::size_t>(n) < room) break;
  }
  return static_cast<int>(done);
}

#else

ANYIO_NET_FN int posix_batches::receive_messages(int fd, std::span<message> messages,
                                                 std::span<std::size_t> sizes, bool& emptied) {
  ANYIO_NET_ASSERT(sizes.size() >= messages.size());
  return receive_each(messages, sizes, emptied, [&](message& m) { return receive_one(fd, m); });
}

ANYIO_NET_FN int posix_batches::send_messages(int fd, std::span<const message> messages) {
  return send_each(messages, [&](const message& m) { return send_one(fd, m); });
}

#endif

ANYIO_NET_FN int posix_backend::get_option(int fd, int level, int name, void* value, socklen_t* size) {
  return system_call([&] { return ::getsockopt(fd, level, name, value, size); });
}

ANYIO_NET_FN int posix_backend::set_option(int fd, int level, int name, const void* value, socklen_t size) {
  return system_call([&] { return ::setsockopt(fd, level, name, value, size); });
}

ANYIO_NET_FN int posix_backend::local_address(int fd, sockaddr* address, socklen_t* size) {
  return system_call([&] { return ::getsockname(fd, address, size); });
}

ANYIO_NET_FN int posix_backend::remote_address(int fd, sockaddr* address, socklen_t* size) {
  return system_call([&] { return ::getpeername(fd, address, size); });
}

// --- batches, as a service

ANYIO_NET_FN batch_service& system_batches() noexcept {
  struct own final : posix_batches {};
  static constinit own batches;
  return batches;
}

ANYIO_NET_COLD int adopt_descriptor(int fd) noexcept {
#if defined(F_SETNOSIGPIPE)
  // Also for pipes, whose calls have no flag for it. Fails on macOS if the peer of an accepted connection is
  // gone; then no SIGPIPE can occur.
  (void)::fcntl(fd, F_SETNOSIGPIPE, 1);
#elif defined(SO_NOSIGPIPE) && !defined(MSG_NOSIGNAL)
  const int on = 1;
  (void)::setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
  const int flags = system_call([&] { return ::fcntl(fd, F_GETFL); });
  if (flags < 0) return flags;
  const int was_blocking = (flags & O_NONBLOCK) == 0 ? 1 : 0;
  if (was_blocking != 0) {
    const int r = system_call([&] { return ::fcntl(fd, F_SETFL, flags | O_NONBLOCK); });
    if (r < 0) return r;
  }
  const int descriptor_flags = system_call([&] { return ::fcntl(fd, F_GETFD); });
  if (descriptor_flags < 0) return descriptor_flags;
  if ((descriptor_flags & FD_CLOEXEC) != 0) return was_blocking;
  const int r = system_call([&] { return ::fcntl(fd, F_SETFD, descriptor_flags | FD_CLOEXEC); });
  return r < 0 ? r : was_blocking;
}

}}}  // namespace anyio::detail

// == system/posix_files.ipp =======================================================================

// Files, and descriptors of other kinds, as services; and calls that need no loop: the calendar, randomness.

#include <climits>
#include <ctime>

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#if defined(__linux__)
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN file_service& system_files() noexcept {
  struct own final : posix_files {};
  static constinit own files;
  return files;
}

ANYIO_NET_FN path_service& system_paths() noexcept {
  struct own final : posix_paths {};
  static constinit own paths;
  return paths;
}

/// Prevents the delivery of a SIGPIPE that this thread causes, for calls without a flag for that.
/// The signal's disposition belongs to the whole process, so it is not changed.
class sigpipe_guard {
 public:
  sigpipe_guard() noexcept {
    sigset_t pipe;  // the functions that change a set are macros on some systems
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe, &before_);
    // A SIGPIPE that is pending already belongs to the program, and merges with a new one. It can be pending
    // only if it was blocked.
    was_blocked_ = sigismember(&before_, SIGPIPE) == 1;
    was_pending_ = was_blocked_ && is_pending();
  }
  sigpipe_guard(const sigpipe_guard&) = delete;
  sigpipe_guard& operator=(const sigpipe_guard&) = delete;
  ~sigpipe_guard() {
    if (!was_blocked_) ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  /// Removes the pending signal. Called after a call returned EPIPE.
  void consume() noexcept {
    if (was_pending_ || !is_pending()) return;
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
#if defined(__APPLE__) || defined(__OpenBSD__)
    int number = 0;
    ::sigwait(&pipe, &number);
#else
    const timespec at_once{};
    while (::sigtimedwait(&pipe, nullptr, &at_once) < 0 && errno == EINTR) {
    }
#endif
  }

 private:
  static bool is_pending() noexcept {
    sigset_t pending;
    sigemptyset(&pending);
    ::sigpending(&pending);
    return sigismember(&pending, SIGPIPE) == 1;
  }

  sigset_t before_{};
  bool was_blocked_ = false;
  bool was_pending_ = false;
};

ANYIO_NET_FN ssize_t posix_files::send_file(int socket, int file, std::uint64_t offset, std::size_t count) {
  if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) return -EOVERFLOW;
  restore_non_blocking(socket);
  sigpipe_guard guard;  // sendfile has no MSG_NOSIGNAL
  const ssize_t n = system_call([&]() -> ssize_t {
#if defined(__linux__)
    auto position = static_cast<off_t>(offset);
    return ::sendfile(socket, file, &position, count);
#elif defined(__APPLE__) || defined(__FreeBSD__)
    // On both systems the call may fail after it has sent some bytes, which are returned; a count of 0 means
    // the whole file.
    if (count == 0) return 0;
    const std::size_t size = std::min<std::size_t>(count, INT_MAX);
#if defined(__APPLE__)
    auto sent = static_cast<off_t>(size);
    const int r = ::sendfile(file, socket, static_cast<off_t>(offset), &sent, nullptr, 0);
#else
    off_t sent = 0;
    const int r = ::sendfile(file, socket, static_cast<off_t>(offset), size, nullptr, &sent, 0);
#endif
    return r < 0 && sent == 0 ? -1 : static_cast<ssize_t>(sent);
#else
    char block[16384];
    const ssize_t got = ::pread(file, block, std::min(count, sizeof block), static_cast<off_t>(offset));
    return got <= 0 ? got : ::send(socket, block, static_cast<std::size_t>(got), send_flags);
#endif
  });
  if (n == -EPIPE) guard.consume();
  return sent_or_error(n);
}

#if defined(__linux__) && defined(SYS_preadv2) && defined(SYS_pwritev2)
/// Calls that do not block, with or without O_NONBLOCK: preadv2(2) and pwritev2(2) with RWF_NOWAIT. Pipes
/// support the flag since Linux 6.5, terminals do not.
class nowait_calls {
 public:
  /// Makes the call and returns its result. `refused` is true if the descriptor does not support the call.
  static ssize_t make(long number, int fd, const ::iovec* parts, int count, bool& refused) noexcept {
    constexpr long nowait = 8;  // RWF_NOWAIT, which some C libraries do not define
    refused = !known.load(std::memory_order_relaxed);
    if (refused) return -EOPNOTSUPP;
    const ssize_t n = system_call([&] {
      return static_cast<ssize_t>(::syscall(number, long{fd}, parts, long{count}, -1L, -1L, nowait));
    });
    refused = n == -EOPNOTSUPP || n == -ENOSYS || n == -EINVAL;
    if (refused && n != -EINVAL) learn(fd);
    return n;
  }

 private:
  /// Turns these calls off if the descriptor is a pipe: then no descriptor of this kernel supports them.
  [[gnu::cold, gnu::noinline]] static void learn(int fd) noexcept {
    struct stat status;
    if (::fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode)) known.store(false, std::memory_order_relaxed);
  }
  static inline constinit std::atomic<bool> known{true};
};
#endif

ANYIO_NET_FN ssize_t posix_files::read(int fd, void* data, std::size_t size) {
#if defined(__linux__) && defined(SYS_preadv2) && defined(SYS_pwritev2)
  const ::iovec part{data, size};
  bool refused;
  const ssize_t n = nowait_calls::make(SYS_preadv2, fd, &part, 1, refused);
  if (!refused) return n;
#endif
  restore_non_blocking(fd);
  return system_call([&] { return ::read(fd, data, size); });
}

ANYIO_NET_FN ssize_t posix_files::write(int fd, std::span<const ::iovec> parts) {
  // The kernel rejects more than IOV_MAX parts; a short write is allowed.
  const int count = static_cast<int>(std::min<std::size_t>(parts.size(), IOV_MAX));
  sigpipe_guard guard;
  bool refused = true;
  ssize_t n = 0;
#if defined(__linux__) && defined(SYS_preadv2) && defined(SYS_pwritev2)
  n = nowait_calls::make(SYS_pwritev2, fd, parts.data(), count, refused);
#endif
  if (refused) {
    restore_non_blocking(fd);
    n = system_call([&] { return ::writev(fd, parts.data(), count); });
  }
  if (n == -EPIPE) guard.consume();
  return n;
}

ANYIO_NET_FN int posix_files::adopt(int fd) { return adopt_descriptor(fd); }

ANYIO_NET_COLD int posix_files::make_blocking(int fd) {
  const int flags = system_call([&] { return ::fcntl(fd, F_GETFL); });
  return flags < 0 ? flags : system_call([&] { return ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK); });
}

ANYIO_NET_FN int posix_files::set_close_on_exec([[maybe_unused]] int fd) {
#if defined(MSG_CMSG_CLOEXEC)
  return 0;
#else
  const int r = system_call([&] { return ::fcntl(fd, F_SETFD, FD_CLOEXEC); });
  return r < 0 ? r : 0;
#endif
}

// --- paths

[[gnu::cold]] inline file_identity identity_of(const struct stat& s) noexcept {
  return {S_ISSOCK(s.st_mode), S_ISCHR(s.st_mode), static_cast<std::uint64_t>(s.st_dev),
          static_cast<std::uint64_t>(s.st_ino), S_ISFIFO(s.st_mode)};
}

ANYIO_NET_COLD int posix_paths::identify(const char* path, file_identity& identity) {
  struct stat status;
  const int r = system_call([&] { return ::lstat(path, &status); });
  if (r >= 0) identity = identity_of(status);
  return r;
}

ANYIO_NET_COLD int posix_files::identify(int fd, file_identity& identity) {
  struct stat status;
  const int r = system_call([&] { return ::fstat(fd, &status); });
  if (r >= 0) identity = identity_of(status);
  return r;
}

ANYIO_NET_COLD int posix_paths::change_mode(const char* path, mode_t mode) {
  return system_call([&] { return ::chmod(path, mode); });
}

ANYIO_NET_COLD void posix_paths::prepare_mode([[maybe_unused]] int fd, [[maybe_unused]] mode_t mode) {
#if defined(__linux__)  // bind copies the mode from the socket's inode; only Linux sockets have one
  static_cast<void>(system_call([&] { return ::fchmod(fd, mode); }));
#endif
}

ANYIO_NET_COLD int posix_paths::unlink(const char* path) {
  return system_call([&] { return ::unlink(path); });
}

ANYIO_NET_COLD std::string posix_paths::absolute(const std::string& path) {
  char folder[PATH_MAX];
  if (path.starts_with('/') || ::getcwd(folder, sizeof folder) == nullptr || *folder != '/') return path;
  std::string all = folder;
  if (!all.ends_with('/')) all += '/';
  return all + path;
}

// --- without a loop

ANYIO_NET_COLD void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) {
  if (const int e = ::pthread_atfork(before, in_parent, in_child); e != 0)
    abort_with("at_fork", error(errc::os_error, e, "pthread_atfork"));
}

ANYIO_NET_FN void close_descriptor(int fd) noexcept {
  if (fd >= first_simulated_descriptor && close_simulated != nullptr) return close_simulated(fd);
  static_cast<void>(::close(fd));
}

ANYIO_NET_FN std::int64_t system_calendar() noexcept { return static_cast<std::int64_t>(std::time(nullptr)); }

/// Reads to the end of the file. 0 or a negative errno; -EFBIG if the file is larger than `limit`.
[[gnu::cold]] inline int read_all(int fd, std::string& content, std::size_t limit) {
  constexpr std::size_t step = 4096;
  for (std::size_t size = 0;;) {
    if (content.capacity() < size + step) {
      // The old memory is overwritten, since it may hold a secret.
      std::string larger;
      larger.reserve(2 * size + step);
      larger = content;
      for (volatile char& c : content) c = 0;
      content.swap(larger);
    }
    content.resize(size + step);
    const ssize_t n = ::read(fd, content.data() + size, step);
    const int error_number = errno;
    if (n > 0) size += static_cast<std::size_t>(n);
    content.resize(size);
    if (n == 0) return 0;
    if (n < 0 && error_number != EINTR) return -error_number;
    if (size > limit) return -EFBIG;
  }
}

ANYIO_NET_COLD int read_file(const char* path, std::string& content) {
  constexpr std::size_t limit = std::size_t{16} << 20;
  content.clear();
  const unique_fd fd(::open(path, O_RDONLY | O_CLOEXEC));
  if (!fd) return -errno;
  struct stat s;
  const bool sized =
      ::fstat(fd.get(), &s) == 0 && s.st_size > 0 && static_cast<std::uintmax_t>(s.st_size) <= limit;
  if (sized)
    content.reserve(static_cast<std::size_t>(s.st_size) + 4096);  // so that no copy of a secret is left
  return read_all(fd.get(), content, limit);
}

ANYIO_NET_COLD std::uint64_t system_entropy() {
  std::uint64_t value = 0;
#if defined(ANYIO_NET_KQUEUE) && !defined(__linux__)
  ::arc4random_buf(&value, sizeof value);  // all these systems have the call, and it cannot fail
  return value;
#else
  if (::getentropy(&value, sizeof value) == 0) return value;
  // The kernel or a sandbox lacks the call. No fallback to predictable values: they would not be secure.
  const int fd = ::open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  const ssize_t n = fd < 0 ? -1 : ::read(fd, &value, sizeof value);
  const int error_number = n < 0 ? errno : EIO;
  if (fd >= 0) ::close(fd);
  if (n != static_cast<ssize_t>(sizeof value))
    abort_with("no source of randomness", error(errc::os_error, error_number, "entropy"));
  return value;
#endif
}

ANYIO_NET_COLD const char* trust_file() {
  static constexpr const char* known[] = {
      "/etc/ssl/certs/ca-certificates.crt",      // Debian, Alpine
      "/etc/pki/tls/certs/ca-bundle.crt",        // Fedora
      "/etc/ssl/ca-bundle.pem",                  // openSUSE
      "/etc/ssl/cert.pem",                       // macOS, OpenBSD, FreeBSD
      "/usr/local/share/certs/ca-root-nss.crt",  // FreeBSD
  };
  // Not safe while another thread changes the environment; every TLS library that reads it has this limit.
  if (const char* chosen = std::getenv("SSL_CERT_FILE")) return chosen;  // NOLINT(concurrency-mt-unsafe)
  for (const char* path : known)
    if (::access(path, R_OK) == 0) return path;
  return nullptr;
}

}}}  // namespace anyio::detail

// == system/posix_names.ipp =======================================================================

// Names on POSIX systems: the resolver, and the available address families.

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN std::uint32_t interface_index(const char* name) noexcept { return ::if_nametoindex(name); }

ANYIO_NET_FN bool interface_name(std::uint32_t index, char* out) noexcept {
  static_assert(IF_NAMESIZE <= 64);
  return ::if_indextoname(index, out) != nullptr;
}

/// The text for an error of the resolver. Not gai_strerror, whose text depends on the locale.
[[gnu::cold]] inline const char* resolver_words(int status) noexcept {
  switch (status) {
    case EAI_NONAME: return "name or service not known";
    case EAI_AGAIN: return "temporary failure in name resolution";
    case EAI_FAIL: return "permanent failure in name resolution";
    case EAI_FAMILY: return "address family not supported";
    case EAI_SERVICE: return "service not supported for this type of socket";
    case EAI_SOCKTYPE: return "type of socket not supported";
#if defined(EAI_NODATA)
#if EAI_NODATA != EAI_NONAME
    case EAI_NODATA: return "the name has no address";
#endif
#endif
#if defined(EAI_ADDRFAMILY)
    case EAI_ADDRFAMILY: return "the name has no address of this family";
#endif
#if defined(EAI_OVERFLOW)
    case EAI_OVERFLOW: return "name too long";
#endif
    default: return "name resolution failed";
  }
}

ANYIO_NET_FN name_service& system_names() noexcept {
  struct own final : posix_names {};
  static constinit own names;
  return names;
}

ANYIO_NET_COLD resolved posix_names::resolve(const std::string& host, std::uint16_t port, int family) {
  resolved found;
  addrinfo hints{};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;  // otherwise each address appears once per socket type
  addrinfo* list = nullptr;
  // The port is set below: some resolvers accept only service names, or reject the number 0.
  const int status = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (status == EAI_SYSTEM) {
    found.status = errno != 0 ? -errno : -EIO;
    return found;
  }
  if (status == EAI_MEMORY) {
    found.status = -ENOMEM;
    return found;
  }
  if (status != 0) {
    found.status = -ENOENT;
    found.reason = resolver_words(status);
    return found;
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> all(list, [](addrinfo* a) { ::freeaddrinfo(a); });
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
    const result<ip_endpoint> endpoint = ip_endpoint::from_sockaddr(entry->ai_addr, entry->ai_addrlen);
    if (!endpoint) continue;
    const ip_endpoint with_port{endpoint->address, port};
    if (std::find(found.endpoints.begin(), found.endpoints.end(), with_port) == found.endpoints.end()) {
      found.endpoints.push_back(with_port);
    }
  }
  if (found.endpoints.empty()) {
    found.status = -ENOENT;
    found.reason = "the name has no IPv4 or IPv6 address";
  }
  return found;
}

ANYIO_NET_COLD int posix_names::reverse(const ip_endpoint& endpoint, std::string& host,
                                        std::string& service) {
  sockaddr_storage address{};
  const socklen_t size = endpoint.to_sockaddr(address);
  char host_text[1025];  // NI_MAXHOST and at least NI_MAXSERV, which some systems do not declare
  char service_text[64];
  const auto look_up = [&](int flags) {
    return ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host_text, sizeof host_text,
                         service_text, sizeof service_text, flags);
  };
  int status = look_up(0);
  // If the name server does not answer, the result is numeric.
  if (status != 0) status = look_up(NI_NUMERICHOST | NI_NUMERICSERV);
  if (status == EAI_SYSTEM) return errno != 0 ? -errno : -EIO;
  if (status == EAI_MEMORY) return -ENOMEM;
  if (status != 0) return -ENOENT;
  host = host_text;
  service = service_text;
  return 0;
}

/// Whether the machine has an address of this family. If IPv6 is turned off in a running kernel, a socket can
/// still be opened, and even bound to "::", but all IPv6 addresses are gone, ::1 included.
[[gnu::cold]] inline bool has_address(int fd, int family) noexcept {
  sockaddr_storage loopback{};
  const ip_address own = loopback_address(family == AF_INET6);
  const socklen_t size = ip_endpoint{own, 0}.to_sockaddr(loopback);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&loopback), size) == 0) return true;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return false;
  bool found = false;
  for (const ifaddrs* entry = list; entry != nullptr && !found; entry = entry->ifa_next) {
    found = entry->ifa_addr != nullptr && entry->ifa_addr->sa_family == family;
  }
  ::freeifaddrs(list);
  return found;
}

ANYIO_NET_COLD bool posix_names::has_family(int family) {
  std::atomic<signed char>* known = family == AF_INET    ? &has_ipv4_
                                    : family == AF_INET6 ? &has_ipv6_
                                                         : nullptr;
  if (known != nullptr) {
    const signed char answer = known->load(std::memory_order_relaxed);
    if (answer >= 0) return answer != 0;
  }
  const int fd = open_posix_socket(family, SOCK_DGRAM, 0);
  // A lack of descriptors or memory says nothing about the family; the caller's own open will report it.
  if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) return true;
  const bool has = fd >= 0 && (known == nullptr || has_address(fd, family));
  if (fd >= 0) ::close(fd);
  if (known != nullptr) known->store(has ? 1 : 0, std::memory_order_relaxed);
  return has;
}

}}}  // namespace anyio::detail

// == system/posix_signals.ipp =====================================================================

// Signals on POSIX systems: one handler for the process, which wakes every loop that catches the number.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

inline constexpr int signal_limit = 64;  // the highest number that can be caught

/// The entry of one loop for the signal handler. `taken` is protected by the lock; the handler uses `wake_fd`
/// only while a bit is set in `caught`.
struct signal_slot {
  std::atomic<std::uint32_t> caught[2]{};   // one bit per number, in words of 32 bits, which are
  std::atomic<std::uint32_t> pending[2]{};  // lock-free on every known target
  std::atomic<int> wake_fd{0};              // -1: it belongs to the parent, so do not wake it
  bool taken = false;
};

/// The only table of the process. It is initialized at compile time and never destroyed, so that a handler
/// may run before main and after it.
struct signal_table {
  static constexpr int slot_count = 256;

#if !defined(ANYIO_NET_NO_THREADS)
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;  // for changes of the table; never taken by the handler
#endif
  std::atomic<int> handlers{0};    // how many handlers run now
  std::atomic<int> slots_used{0};  // one past the highest slot that was ever taken
  signal_slot slots[slot_count]{};
  std::uint32_t catchers[signal_limit]{};  // how many loops catch a number, at number - 1
  sigset_t before_fork{};                  // the signal mask of the forking thread
  struct sigaction before[signal_limit]{};
};

static_assert(std::atomic<std::uint32_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "signal handlers require lock-free atomics");

inline signal_table& the_signals() noexcept {
  static constinit signal_table table;
  return table;
}

inline void lock_signals() noexcept {
#if !defined(ANYIO_NET_NO_THREADS)
  ::pthread_mutex_lock(&the_signals().mutex);
#endif
}

inline void unlock_signals() noexcept {
#if !defined(ANYIO_NET_NO_THREADS)
  ::pthread_mutex_unlock(&the_signals().mutex);
#endif
}

class signal_lock {
 public:
  signal_lock() noexcept { lock_signals(); }
  ~signal_lock() { unlock_signals(); }
  signal_lock(const signal_lock&) = delete;
  signal_lock& operator=(const signal_lock&) = delete;
};

/// The only handler: marks the number as pending for every loop that catches it, and wakes these loops.
inline void note_signal(int number) noexcept {
  const int saved_errno = errno;
  signal_table& table = the_signals();
  table.handlers.fetch_add(1);
  const auto index = static_cast<unsigned>(number - 1);
  const unsigned word = index / 32;
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  const int used = table.slots_used.load();
  for (int i = 0; i < used; ++i) {
    signal_slot& slot = table.slots[i];
    if ((slot.caught[word].load() & bit) == 0) continue;
    slot.pending[word].fetch_or(bit);
    const std::uint64_t one = 1;
    // A full descriptor means that a wake-up is pending already.
    const int fd = slot.wake_fd.load();
    [[maybe_unused]] const ssize_t n = fd < 0 ? 0 : ::write(fd, &one, sizeof one);
  }
  table.handlers.fetch_sub(1);
  errno = saved_errno;
}

/// Returns when no handler runs that may have seen an older state of the table. The handler first increments
/// the count and then reads the table; the caller first changes the table and then reads the count. The
/// accesses are sequentially consistent, so at least one of the two sees the other's write.
inline void wait_for_handlers() noexcept {
  for (int spins = 0; the_signals().handlers.load() != 0; ++spins) {
    if (spins > 1000) ::poll(nullptr, 0, 1);  // lets the handler run, even on a thread of lower priority
  }
}

// During a fork the forking thread holds the lock and blocks all signals, so that no handler of the child
// wakes the parent. Signals from before the fork belong to the parent, as with pending signals (fork(2)).
[[gnu::cold]] inline void prepare_signals_for_fork() noexcept {
  sigset_t all;
  sigfillset(&all);
  lock_signals();
  ::pthread_sigmask(SIG_SETMASK, &all, &the_signals().before_fork);
}

[[gnu::cold]] inline void release_signals_after_fork() noexcept {
  const sigset_t before = the_signals().before_fork;
  unlock_signals();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

[[gnu::cold]] inline void part_signals_from_parent() noexcept {
  signal_table& table = the_signals();
  table.handlers.store(0);  // the count of other threads, which do not exist in the child
  const int used = table.slots_used.load();
  for (int i = 0; i < used; ++i) {
    table.slots[i].wake_fd.store(-1);
    for (auto& word : table.slots[i].pending) word.store(0);
  }
  release_signals_after_fork();
}

[[gnu::cold]] inline void part_signals_at_fork() {
  static const bool done = [] {
    at_fork(prepare_signals_for_fork, release_signals_after_fork, part_signals_from_parent);
    return true;
  }();
  static_cast<void>(done);
}

class posix_signals final : public signal_service {
 public:
  explicit posix_signals(int wake_descriptor) noexcept : wake_fd_(wake_descriptor) {}
  posix_signals(const posix_signals&) = delete;
  posix_signals& operator=(const posix_signals&) = delete;
  ANYIO_NET_FN ~posix_signals();

  ANYIO_NET_FN int catch_signal(int number) override;
  ANYIO_NET_FN void release_signal(int number) override;
  ANYIO_NET_FN bool take_signal(int number) override;
  ANYIO_NET_FN void wake_by(int wake_descriptor) override;

 private:
  int wake_fd_;
  int slot_ = -1;                         // in the table of the process; -1: none yet
  std::uint32_t caught_[signal_limit]{};  // how many times each number is caught, at number - 1
};

ANYIO_NET_FN signal_service_ptr system_signals(int wake_descriptor) {
  return {new posix_signals(wake_descriptor),
          [](signal_service* s) { delete static_cast<posix_signals*>(s); }};
}

ANYIO_NET_COLD int posix_signals::catch_signal(int number) {
  if (number < 1 || number > signal_limit) return -EINVAL;
  const auto index = static_cast<unsigned>(number - 1);
  const unsigned word = index / 32;
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  if (caught_[index] != 0) {
    ++caught_[index];
    return 0;
  }

  part_signals_at_fork();
  const signal_lock lock;
  signal_table& table = the_signals();
  if (slot_ < 0) {
    if (wake_fd_ < 0) return -ENOTSUP;
    int first_free = 0;
    while (first_free < signal_table::slot_count && table.slots[first_free].taken) ++first_free;
    if (first_free == signal_table::slot_count) return -EMFILE;
    table.slots[first_free].taken = true;
    table.slots[first_free].wake_fd.store(wake_fd_);
    if (first_free >= table.slots_used.load()) table.slots_used.store(first_free + 1);
    slot_ = first_free;
  }

  signal_slot& slot = table.slots[slot_];
  slot.caught[word].fetch_or(bit);
  if (table.catchers[index] == 0) {
    struct sigaction action {};
    action.sa_handler = note_signal;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    if (::sigaction(number, &action, &table.before[index]) != 0) {
      const int reason = errno;
      slot.caught[word].fetch_and(~bit);
      return -reason;
    }
  }
  ++table.catchers[index];
  ++caught_[index];
  return 0;
}

ANYIO_NET_COLD void posix_signals::release_signal(int number) {
  if (number < 1 || number > signal_limit) return;
  const auto index = static_cast<unsigned>(number - 1);
  const unsigned word = index / 32;
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  if (caught_[index] == 0 || --caught_[index] != 0) return;

  const signal_lock lock;
  signal_table& table = the_signals();
  // The disposition changes first, so that at no time a signal is caught but reaches no loop.
  if (--table.catchers[index] == 0) ::sigaction(number, &table.before[index], nullptr);
  signal_slot& slot = table.slots[slot_];
  slot.caught[word].fetch_and(~bit);
  wait_for_handlers();
  slot.pending[word].fetch_and(~bit);
}

ANYIO_NET_FN bool posix_signals::take_signal(int number) {
  if (number < 1 || number > signal_limit || slot_ < 0) return false;
  const auto index = static_cast<unsigned>(number - 1);
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  std::atomic<std::uint32_t>& pending = the_signals().slots[slot_].pending[index / 32];
  return (pending.load() & bit) != 0 && (pending.fetch_and(~bit) & bit) != 0;
}

ANYIO_NET_COLD void posix_signals::wake_by(int wake_descriptor) {
  wake_fd_ = wake_descriptor;
  if (slot_ < 0) return;
  const signal_lock lock;
  the_signals().slots[slot_].wake_fd.store(wake_fd_);
}

ANYIO_NET_COLD posix_signals::~posix_signals() {
  if (slot_ < 0) return;
  for (int number = 1; number <= signal_limit; ++number) {
    std::uint32_t& caught = caught_[number - 1];
    if (caught == 0) continue;
    caught = 1;
    release_signal(number);
  }
  const signal_lock lock;
  the_signals().slots[slot_].taken = false;
}

ANYIO_NET_FN thread_service& system_threads() noexcept {
  struct own final : posix_threads {};
  static constinit own threads;
  return threads;
}

ANYIO_NET_FN bool posix_threads::uses_threads() const {
#if defined(ANYIO_NET_NO_THREADS)
  return false;
#else
  return true;
#endif
}

#if !defined(ANYIO_NET_NO_THREADS)

struct thread_body {
  void (*body)(void*);
  void* argument;
};

extern "C" inline void* anyio_net_thread_main(void* given) {
  const thread_body run = *static_cast<thread_body*>(given);
  delete static_cast<thread_body*>(given);
  run.body(run.argument);
  return nullptr;
}

ANYIO_NET_COLD int posix_threads::start_thread(void (*body)(void*), void* argument) {
  std::unique_ptr<thread_body> given(new thread_body{body, argument});
  pthread_attr_t attributes;
  if (const int e = pthread_attr_init(&attributes); e != 0) return -e;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  // The new thread inherits this mask: all signals blocked, so that handlers run on the program's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t id;
  const int e = pthread_create(&id, &attributes, anyio_net_thread_main, given.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (e == 0) static_cast<void>(given.release());  // the thread owns it now
  return -e;
}

#else

ANYIO_NET_COLD int posix_threads::start_thread(void (*)(void*), void*) { return -ENOTSUP; }

#endif

}}}  // namespace anyio::detail

// == system/posix_splice.ipp ======================================================================

// Moving bytes between sockets inside the kernel, by splice(2). Only Linux has it.

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN splice_service& system_splices() noexcept {
  struct own final : posix_splices {};
  static constinit own splices;
  return splices;
}

#if defined(__linux__) && defined(SYS_splice)

/// splice(2), which some C libraries declare only with _GNU_SOURCE.
inline ssize_t splice_call(int from, int to, std::size_t most) noexcept {
  constexpr long move_and_nonblock = 3;  // SPLICE_F_MOVE | SPLICE_F_NONBLOCK
  return system_call([&] {
    return static_cast<ssize_t>(
        ::syscall(SYS_splice, long{from}, nullptr, long{to}, nullptr, most, move_and_nonblock));
  });
}

/// A user who has many pipes gets small ones (pipe(7)), which move bytes slower than memory does: refused.
ANYIO_NET_FN int posix_splices::open_pipe(int (&fds)[2]) {
  constexpr int get_size = 1032;  // F_GETPIPE_SZ
  constexpr int usual_size = 65536;
  const int status = system_call([&] { return ::pipe2(fds, O_CLOEXEC | O_NONBLOCK); });
  if (status < 0 || ::fcntl(fds[1], get_size) >= usual_size) return status;
  for (const int fd : fds) ::close(fd);
  return -ENOBUFS;
}

ANYIO_NET_COLD void posix_splices::grow_pipe(int pipe) {
  constexpr int set_size = 1031;       // F_SETPIPE_SZ
  constexpr int large_size = 1 << 20;  // the most for a user without privileges
  static_cast<void>(::fcntl(pipe, set_size, large_size));
}

ANYIO_NET_FN ssize_t posix_splices::splice_in(int socket, int pipe, std::size_t most) {
  restore_non_blocking(socket);  // the flag of splice concerns only the pipe
  return splice_call(socket, pipe, most);
}

ANYIO_NET_FN ssize_t posix_splices::splice_out(int pipe, int socket, std::size_t most) {
  restore_non_blocking(socket);
  sigpipe_guard guard;  // splice has no MSG_NOSIGNAL
  const ssize_t n = splice_call(pipe, socket, most);
  if (n == -EPIPE) guard.consume();
  return sent_or_error(n);
}

#else

ANYIO_NET_FN int posix_splices::open_pipe(int (&)[2]) { return -ENOSYS; }
ANYIO_NET_FN void posix_splices::grow_pipe(int) {}
ANYIO_NET_FN ssize_t posix_splices::splice_in(int, int, std::size_t) { return -ENOSYS; }
ANYIO_NET_FN ssize_t posix_splices::splice_out(int, int, std::size_t) { return -ENOSYS; }

#endif

}}}  // namespace anyio::detail

// == tls/engine/tls.ipp ===========================================================================

// The texts of TLS errors.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A text that is kept for as long as the program runs.
struct kept_text {
  std::string text;
  kept_text* next;
};

/// A copy of a text that is kept for as long as the program runs. Null after too many different texts: then
/// they contain text from outside, for example from peers.
inline const char* keep_text(std::string_view text) {
  constexpr std::size_t most = 512;
  static kept_text* first = nullptr;
  static std::size_t count = 0;
  static process_mutex mutex;
  const process_lock lock(mutex);
  for (const kept_text* known = first; known != nullptr; known = known->next)
    if (known->text == text) return known->text.c_str();
  if (count == most) return nullptr;
  ++count;
  first = new kept_text{std::string(text), first};
  return first->text.c_str();
}

ANYIO_NET_FN error tls_failure(const char* operation, std::string_view reason) {
  constexpr std::size_t longest = 200;
  std::string line(reason.substr(0, longest));
  const auto unprintable = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  std::replace_if(line.begin(), line.end(), unprintable, '?');
  const error e(errc::tls, 0, operation);
  return line.empty() ? e : error_access::with_reason(e, keep_text(line));
}

}  // namespace detail

ANYIO_NET_FN result<> tls_context::add_certificate(std::string_view, const tls_config&) {
  return error(errc::not_supported, 0, "add_certificate");
}

}}  // namespace anyio

// == tls/engine/tls_credentials.ipp ===============================================================

// Reading the texts of a configuration, and the texts of their errors.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Overwrites a secret; the compiler cannot optimize this away.
inline void wipe(std::string& secret) noexcept {
  secret.resize(secret.capacity());  // a short string that was moved from still lies here
  volatile char* p = secret.data();
  for (std::size_t i = 0; i < secret.size(); ++i) p[i] = 0;
  secret.clear();
}

ANYIO_NET_FN tls_material::~tls_material() {
  wipe(private_key.text);
  wipe(certificate.text);  // it may hold the key too
  wipe(ca.text);           // it may hold a key too
  wipe(password);
}

/// Reads one pair of fields, of which only one may be given.
inline result<> read_text(tls_text& out, std::string_view file, const char* file_field, std::string_view pem,
                          const char* pem_field) {
  if (!file.empty() && !pem.empty())
    return error_access::with_reason(error(errc::invalid_argument, 0, file_field),
                                     "given both as file and as text");
  if (!pem.empty()) {
    out.field = pem_field;
    out.text = pem;
  } else if (!file.empty()) {
    out.field = file_field;
    std::string path(file);
    const bool has_nul = path.find('\0') != std::string::npos;
    const int status = has_nul ? -ENOENT : read_file(path.c_str(), out.text);
    wipe(path);  // it may be a key's text, if the caller used the wrong field
    if (status < 0) return error(errc::tls, -status, file_field);
  }
  return {};
}

ANYIO_NET_FN result<tls_material> read_material(const tls_config& config) {
  tls_material m;
  const auto refuse = [](const char* field, const char* reason) {
    return error_access::with_reason(error(errc::invalid_argument, 0, field), reason);
  };
  if (result<> r = read_text(m.ca, config.ca_file, "tls: ca_file", config.ca_pem, "tls: ca_pem"); !r)
    return r.error();
  if (result<> r = read_text(m.certificate, config.certificate_file, "tls: certificate_file",
                             config.certificate_pem, "tls: certificate_pem");
      !r)
    return r.error();
  if (result<> r = read_text(m.private_key, config.private_key_file, "tls: private_key_file",
                             config.private_key_pem, "tls: private_key_pem");
      !r)
    return r.error();
  if (m.private_key.given() && !m.certificate.given())
    return refuse(m.private_key.field, "a private key is given without a certificate");
  if (m.certificate.given() && !m.private_key.given()) m.private_key = m.certificate;
  if (config.verify_client != tls_verify::none && !m.ca.given())
    return refuse("tls: verify_client",
                  "ca_file or ca_pem is required: public authorities issue certificates to anyone");
  m.password = config.private_key_password;
  for (const std::string_view protocol : config.alpn) {
    if (protocol.empty() || protocol.size() > 255 || protocol.find('\0') != std::string_view::npos)
      return refuse("tls: alpn", "ALPN names must be 1 to 255 bytes");
    m.alpn.emplace_back(protocol);
  }
  if (m.alpn.size() > 64) return refuse("tls: alpn", "more than 64 ALPN names");
  m.verify = config.verify;
  m.verify_client = config.verify_client;
  m.min_version = config.min_version;
  return m;
}

ANYIO_NET_FN result<tls_material> read_further_material(std::string& server_name, const tls_config& config) {
  const auto refuse = [](const char* reason) {
    return error_access::with_reason(error(errc::invalid_argument, 0, "add_certificate"), reason);
  };
  std::string_view host = server_name;
  if (host.starts_with("*.")) host.remove_prefix(2);
  const bool covers_too_much = host.size() != server_name.size() && host.find('.') == std::string_view::npos;
  if (parse_server_name(host).name.empty() || covers_too_much) return refuse("not a valid server name");
  if (server_name.ends_with('.')) server_name.pop_back();
  tls_config further = config;
  further.verify_client = tls_verify::none;  // the setting of the context applies
  result<tls_material> m = read_material(further);
  if (!m) return m.error();
  if (!m->certificate.given()) return refuse("a certificate is required");
  return m;
}

ANYIO_NET_FN std::string read_system_trust() {
  std::string text;
  const char* path = trust_file();
  if (path != nullptr && read_file(path, text) < 0) text.clear();
  return text;
}

struct alert_entry {
  int description;
  const char* reason;
};

// clang-format off
inline constexpr alert_entry alert_table[] = {
    {0, "the peer sent the alert close_notify"},
    {10, "the peer sent the alert unexpected_message"},
    {20, "the peer sent the alert bad_record_mac"},
    {21, "the peer sent the alert decryption_failed"},
    {22, "the peer sent the alert record_overflow"},
    {30, "the peer sent the alert decompression_failure"},
    {40, "the peer sent the alert handshake_failure"},
    {41, "the peer sent the alert no_certificate"},
    {42, "the peer sent the alert bad_certificate"},
    {43, "the peer sent the alert unsupported_certificate"},
    {44, "the peer sent the alert certificate_revoked"},
    {45, "the peer sent the alert certificate_expired"},
    {46, "the peer sent the alert certificate_unknown"},
    {47, "the peer sent the alert illegal_parameter"},
    {48, "the peer sent the alert unknown_ca"},
    {49, "the peer sent the alert access_denied"},
    {50, "the peer sent the alert decode_error"},
    {51, "the peer sent the alert decrypt_error"},
    {70, "the peer sent the alert protocol_version"},
    {71, "the peer sent the alert insufficient_security"},
    {80, "the peer sent the alert internal_error"},
    {86, "the peer sent the alert inappropriate_fallback"},
    {90, "the peer sent the alert user_canceled"},
    {100, "the peer sent the alert no_renegotiation"},
    {109, "the peer sent the alert missing_extension"},
    {110, "the peer sent the alert unsupported_extension"},
    {112, "the peer sent the alert unrecognized_name"},
    {113, "the peer sent the alert bad_certificate_status_response"},
    {115, "the peer sent the alert unknown_psk_identity"},
    {116, "the peer sent the alert certificate_required"},
    {120, "the peer sent the alert no_application_protocol"},
};
// clang-format on

ANYIO_NET_FN const char* alert_reason(int description) noexcept {
  for (const alert_entry& entry : alert_table)
    if (entry.description == description) return entry.reason;
  return "the peer sent an alert";
}

/// Whether a name has only labels of letters, digits, hyphens and underscores (RFC 1123, section 2.1, and
/// common use). Rejects names that an engine could take for a pattern, as OpenSSL does with a leading dot, or
/// a resolver for an address in another notation.
inline bool is_host_name(std::string_view name) noexcept {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto allowed = [&](char c) {
    return digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
  };
  if (name.size() > 253) return false;
  std::string_view label;
  for (std::string_view rest = name;;) {
    const std::size_t dot = rest.find('.');
    label = rest.substr(0, dot);
    if (label.empty() || label.size() > 63 || !std::all_of(label.begin(), label.end(), allowed)) return false;
    if (dot == std::string_view::npos) break;
    rest.remove_prefix(dot + 1);
  }
  return !std::all_of(label.begin(), label.end(), digit) && !label.starts_with("0x") &&
         !label.starts_with("0X");
}

ANYIO_NET_FN tls_server_identity parse_server_name(std::string_view server_name) {
  tls_server_identity identity;
  if (server_name.ends_with('.')) server_name.remove_suffix(1);
  const std::string_view host = server_name.substr(0, server_name.find('%'));
  if (result<ip_address> address = ip_address::parse(host)) {
    identity.address = unmapped(*address);  // a certificate names a mapped address as IPv4
  } else if (is_host_name(server_name)) {
    identity.name = server_name;
  }
  return identity;
}

ANYIO_NET_FN std::string session_key(const tls_server_identity& server) {
  if (server.address) return "address " + server.address->to_string();
  return server.name.empty() ? std::string() : "name " + server.name;
}

ANYIO_NET_FN bool covers_name(std::string_view pattern, std::string_view host) noexcept {
  const auto same = [](std::string_view a, std::string_view b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
    return a.size() == b.size() &&
           std::equal(a.begin(), a.end(), b.begin(), [&](char x, char y) { return lower(x) == lower(y); });
  };
  if (!pattern.starts_with("*.")) return same(pattern, host);
  const std::size_t dot = host.find('.');
  // The wildcard stands for letters, digits and hyphens, as in OpenSSL.
  const bool label = dot != 0 && dot != std::string_view::npos && host.substr(0, dot).find('_') == host.npos;
  return label && pattern.find('.', 2) != std::string_view::npos && same(pattern.substr(1), host.substr(dot));
}

ANYIO_NET_FN void draw_random(void* into, std::size_t size) {
  auto* p = static_cast<std::byte*>(into);
  while (size != 0) {
    const std::uint64_t value =
        security_of_thread != nullptr ? security_of_thread->entropy() : system_entropy();
    const std::size_t n = std::min(size, sizeof value);
    std::memcpy(p, &value, n);
    p += n;
    size -= n;
  }
}

ANYIO_NET_FN std::int64_t calendar_now() {
  return security_of_thread != nullptr ? security_of_thread->calendar() : system_calendar();
}

}}}  // namespace anyio::detail

// == tls/mbedtls/tls_mbedtls_keys.ipp =============================================================

// Certificates and keys for mbedTLS: 2.28, and 3.2 and later.
//
// This part adds what 2.28 lacks: addresses in certificates, and AES for encrypted keys.

#if defined(ANYIO_NET_MBEDTLS)

#include <mbedtls/version.h>

#if MBEDTLS_VERSION_NUMBER < 0x021c0000 || MBEDTLS_VERSION_NUMBER >= 0x04000000 || \
    (MBEDTLS_VERSION_NUMBER >= 0x03000000 && MBEDTLS_VERSION_NUMBER < 0x03020000)
#error "anyio_net.hpp needs mbedTLS 2.28, or 3.2 or later: leave ANYIO_NET_MBEDTLS undefined"
#endif
#if !defined(MBEDTLS_SSL_CLI_C) || !defined(MBEDTLS_SSL_SRV_C) || !defined(MBEDTLS_SSL_ALPN) || \
    !defined(MBEDTLS_SSL_SERVER_NAME_INDICATION) || !defined(MBEDTLS_PEM_PARSE_C)
#error "anyio_net.hpp needs an mbedTLS with client, server, ALPN, server names and PEM"
#endif
#if defined(MBEDTLS_ZLIB_SUPPORT)
#error "anyio_net.hpp needs an mbedTLS without MBEDTLS_ZLIB_SUPPORT: compression reveals secrets (CRIME)"
#endif

#include <mbedtls/asn1.h>
#include <mbedtls/cipher.h>
#include <mbedtls/error.h>
#include <mbedtls/md.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/pk.h>
#include <mbedtls/pkcs5.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/ssl.h>
#if MBEDTLS_VERSION_NUMBER < 0x03000000
#include <mbedtls/ssl_internal.h>
#endif
#include <mbedtls/x509_crt.h>

#if MBEDTLS_VERSION_NUMBER >= 0x03000000 && defined(MBEDTLS_PSA_CRYPTO_C)
#include <psa/crypto.h>
#endif

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if !defined(ANYIO_NET_NO_THREADS)
#include <mutex>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Held during calls of mbedTLS. An mbedTLS without its own locks shares keys and tables between threads, so
/// only one thread at a time may call it.
class mbedtls_turn {
#if !defined(MBEDTLS_THREADING_C) && !defined(ANYIO_NET_NO_THREADS)
 public:
  mbedtls_turn() : lock_(mutex()) {}

 private:
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex one;
    return one;
  }
  const std::lock_guard<std::recursive_mutex> lock_;
#else
 public:
  mbedtls_turn() noexcept {}
  ~mbedtls_turn() {}
#endif
};

#if MBEDTLS_VERSION_NUMBER < 0x03000000
/// The connection whose handshake takes a step on this thread.
inline constinit thread_local const mbedtls_ssl_context* mbedtls_in_handshake = nullptr;

/// Whether memory follows the place of the clock in a hello. 2.28 puts the system's clock before the random
/// bytes: the client where it keeps them, the server into the message. A simulation cannot control that
/// clock, and the peer learns it.
inline bool mbedtls_is_behind_clock(const unsigned char* into) noexcept {
  const mbedtls_ssl_context* const ssl = mbedtls_in_handshake;
  if (ssl == nullptr || ssl->handshake == nullptr) return false;
  constexpr std::size_t clock = 4;
  constexpr std::size_t hello = 6;  // its header and version
  return into == ssl->handshake->randbytes + clock || into == ssl->out_msg + hello + clock;
}
#endif

inline int mbedtls_draw(void*, unsigned char* into, std::size_t size) noexcept {
#if MBEDTLS_VERSION_NUMBER < 0x03000000
  if (mbedtls_is_behind_clock(into)) draw_random(into - 4, 4);
#endif
  draw_random(into, size);
  return 0;
}

/// mbedTLS's text for one of its error codes, or the number.
inline std::string mbedtls_words(int code) {
#if defined(MBEDTLS_ERROR_C)
  if (const char* words = mbedtls_high_level_strerr(code); words != nullptr) return words;
  if (const char* words = mbedtls_low_level_strerr(code); words != nullptr) return words;
#endif
  constexpr char digits[] = "0123456789abcdef";
  std::string text = "mbedTLS error -0x";
  const auto number = static_cast<unsigned>(-code);
  for (int shift = 12; shift >= 0; shift -= 4) text += digits[(number >> shift) & 15U];
  return text;
}

/// Seconds since 1970.
inline std::int64_t mbedtls_seconds(const mbedtls_x509_time& time) noexcept {
  const auto day = std::chrono::year(time.year) / std::chrono::month(static_cast<unsigned>(time.mon)) /
                   std::chrono::day(static_cast<unsigned>(time.day));
  const std::int64_t days = std::chrono::sys_days(day).time_since_epoch().count();
  return ((days * 24 + time.hour) * 60 + time.min) * 60 + time.sec;
}

/// Whether a certificate is for a server, only by the entries of its subjectAltName (RFC 9525, section 6).
/// 2.28 compares no addresses, falls back to the common name, and has its own rule for wildcards.
inline bool mbedtls_is_for(const mbedtls_x509_crt& certificate, const tls_server_identity& server) {
  constexpr int name_entry = 0x82;  // [2] and [7], RFC 5280, section 4.2.1.6
  constexpr int address_entry = 0x87;
  for (const mbedtls_x509_sequence* s = &certificate.subject_alt_names; s != nullptr; s = s->next) {
    const std::string_view entry(reinterpret_cast<const char*>(s->buf.p), s->buf.len);
    if (server.address) {
      const std::span<const std::byte> bytes = server.address->bytes();
      if (s->buf.tag == address_entry && entry.size() == bytes.size() &&
          std::memcmp(entry.data(), bytes.data(), bytes.size()) == 0)
        return true;
    } else if (s->buf.tag == name_entry && covers_name(entry, server.name)) {
      return true;
    }
  }
  return false;
}

/// The fault of the peer's certificate, null if it has none. Of several faults, the one that is most useful
/// to a person.
inline const char* mbedtls_verdict(std::uint32_t flags, bool self_signed) noexcept {
  const auto has = [flags](std::uint32_t any_of) { return (flags & any_of) != 0; };
  if (flags == 0xffffffffU) return tls_reason::unverified;
  if (has(MBEDTLS_X509_BADCERT_MISSING)) return tls_reason::none_shown;
  if (has(MBEDTLS_X509_BADCERT_EXPIRED)) return tls_reason::expired;
  if (has(MBEDTLS_X509_BADCERT_FUTURE)) return tls_reason::not_yet_valid;
  if (has(MBEDTLS_X509_BADCERT_CN_MISMATCH)) return tls_reason::other_name;
  if (has(MBEDTLS_X509_BADCERT_NOT_TRUSTED))
    return self_signed ? tls_reason::self_signed : tls_reason::unknown_authority;
  if (has(MBEDTLS_X509_BADCERT_REVOKED)) return tls_reason::revoked;
  if (has(MBEDTLS_X509_BADCERT_BAD_MD | MBEDTLS_X509_BADCERT_BAD_PK | MBEDTLS_X509_BADCERT_BAD_KEY))
    return tls_reason::weak;
  if (has(MBEDTLS_X509_BADCERT_KEY_USAGE | MBEDTLS_X509_BADCERT_EXT_KEY_USAGE |
          MBEDTLS_X509_BADCERT_NS_CERT_TYPE))
    return tls_reason::other_purpose;
  return flags == 0 ? nullptr : tls_reason::unverified;
}

// Reading certificates and keys.

/// Reads all certificates of a text into an empty list. Returns null, or the fault.
inline const char* mbedtls_read_certificates(mbedtls_x509_crt& into, const std::string& text) {
  constexpr std::string_view begin = "-----BEGIN CERTIFICATE-----";
  std::size_t announced = 0;
  for (std::size_t at = text.find(begin); at != std::string::npos; at = text.find(begin, at + begin.size()))
    ++announced;
  if (announced == 0) return tls_reason::no_certificate;
  // The size includes the final NUL, by which mbedTLS recognizes text.
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.c_str());
  if (mbedtls_x509_crt_parse(&into, bytes, text.size() + 1) != 0) return tls_reason::bad_certificate;
  // mbedTLS does not report a certificate that is cut off at the end.
  for (const mbedtls_x509_crt* c = &into; c != nullptr; c = c->next) --announced;
  return announced == 0 ? nullptr : tls_reason::bad_certificate;
}

inline int mbedtls_read_key(mbedtls_pk_context& key, const unsigned char* text, std::size_t size,
                            const std::string& password) {
  const auto* secret = password.empty() ? nullptr : reinterpret_cast<const unsigned char*>(password.data());
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
  return mbedtls_pk_parse_key(&key, text, size, secret, password.size(), mbedtls_draw, nullptr);
#else
  return mbedtls_pk_parse_key(&key, text, size, secret, password.size());
#endif
}

#if MBEDTLS_VERSION_NUMBER < 0x03000000 && defined(MBEDTLS_PKCS5_C) && defined(MBEDTLS_CIPHER_MODE_CBC)

/// The data that PBES2 (RFC 8018, section 6.2) needs to decrypt.
struct mbedtls_pbes2 {
  mbedtls_asn1_buf salt = {};
  mbedtls_asn1_buf iv = {};
  mbedtls_asn1_buf data = {};
  int rounds = 0;
  mbedtls_md_type_t hash = MBEDTLS_MD_SHA1;
  mbedtls_cipher_type_t cipher = MBEDTLS_CIPHER_NONE;
};

/// Reads an EncryptedPrivateKeyInfo (RFC 5958, section 3). Returns false if it is not PBES2 with AES-CBC.
inline bool mbedtls_parse_pbes2(mbedtls_pbes2& out, unsigned char* p, const unsigned char* end) {
  constexpr int sequence = MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE;
  const auto is = [](const mbedtls_asn1_buf& oid, std::string_view bytes) {
    return std::string_view(reinterpret_cast<const char*>(oid.p), oid.len) == bytes;
  };
  std::size_t size = 0;
  mbedtls_asn1_buf method = {}, parameters = {}, derivation = {}, derivation_parameters = {}, cipher = {};
  if (mbedtls_asn1_get_tag(&p, end, &size, sequence) != 0) return false;
  if (mbedtls_asn1_get_alg(&p, end, &method, &parameters) != 0) return false;
  if (mbedtls_asn1_get_tag(&p, end, &out.data.len, MBEDTLS_ASN1_OCTET_STRING) != 0) return false;
  out.data.p = p;
  if (!is(method, MBEDTLS_OID_PKCS5_PBES2) || parameters.tag != sequence) return false;

  p = parameters.p;
  end = p + parameters.len;
  if (mbedtls_asn1_get_alg(&p, end, &derivation, &derivation_parameters) != 0) return false;
  if (mbedtls_asn1_get_alg(&p, end, &cipher, &out.iv) != 0) return false;
  if (!is(derivation, MBEDTLS_OID_PKCS5_PBKDF2) || derivation_parameters.tag != sequence) return false;
  constexpr std::string_view aes("\x60\x86\x48\x01\x65\x03\x04\x01", 8);  // then one byte for the kind (NIST)
  if (cipher.len != aes.size() + 1 || std::memcmp(cipher.p, aes.data(), aes.size()) != 0) return false;
  switch (cipher.p[aes.size()]) {
    case 2: out.cipher = MBEDTLS_CIPHER_AES_128_CBC; break;
    case 22: out.cipher = MBEDTLS_CIPHER_AES_192_CBC; break;
    case 42: out.cipher = MBEDTLS_CIPHER_AES_256_CBC; break;
    default: return false;
  }
  if (out.iv.tag != MBEDTLS_ASN1_OCTET_STRING || out.iv.len != 16) return false;

  p = derivation_parameters.p;
  end = p + derivation_parameters.len;
  if (mbedtls_asn1_get_tag(&p, end, &out.salt.len, MBEDTLS_ASN1_OCTET_STRING) != 0) return false;
  out.salt.p = p;
  p += out.salt.len;
  if (mbedtls_asn1_get_int(&p, end, &out.rounds) != 0 || out.rounds <= 0) return false;
  if (p != end && *p == MBEDTLS_ASN1_INTEGER) {  // the key's length, which the cipher implies
    int length = 0;
    if (mbedtls_asn1_get_int(&p, end, &length) != 0) return false;
  }
  if (p == end) return true;
  mbedtls_asn1_buf function = {};
  return mbedtls_asn1_get_alg_null(&p, end, &function) == 0 && p == end &&
         mbedtls_oid_get_md_hmac(&function, &out.hash) == 0;
}

/// Decrypts PBES2 to DER; empty on failure.
inline std::vector<unsigned char> mbedtls_decrypt_pbes2(const mbedtls_pbes2& encrypted,
                                                        const std::string& password) {
  std::array<unsigned char, 32> secret = {};
  std::vector<unsigned char> plain(encrypted.data.len + 16);
  std::size_t size = 0;
  mbedtls_md_context_t hash;
  mbedtls_md_init(&hash);
  mbedtls_cipher_context_t cipher;
  mbedtls_cipher_init(&cipher);
  const mbedtls_cipher_info_t* kind = mbedtls_cipher_info_from_type(encrypted.cipher);
  const int bits = kind != nullptr ? static_cast<int>(kind->key_bitlen) : 0;
  const bool opened =
      kind != nullptr && mbedtls_md_setup(&hash, mbedtls_md_info_from_type(encrypted.hash), 1) == 0 &&
      mbedtls_pkcs5_pbkdf2_hmac(&hash, reinterpret_cast<const unsigned char*>(password.data()),
                                password.size(), encrypted.salt.p, encrypted.salt.len,
                                static_cast<unsigned>(encrypted.rounds), static_cast<std::uint32_t>(bits / 8),
                                secret.data()) == 0 &&
      mbedtls_cipher_setup(&cipher, kind) == 0 &&
      mbedtls_cipher_setkey(&cipher, secret.data(), bits, MBEDTLS_DECRYPT) == 0 &&
      mbedtls_cipher_crypt(&cipher, encrypted.iv.p, encrypted.iv.len, encrypted.data.p, encrypted.data.len,
                           plain.data(), &size) == 0;
  mbedtls_cipher_free(&cipher);
  mbedtls_md_free(&hash);
  mbedtls_platform_zeroize(secret.data(), secret.size());
  if (!opened) size = 0;
  mbedtls_platform_zeroize(plain.data() + size, plain.size() - size);
  plain.resize(size);
  return plain;
}

/// Reads a key that is encrypted in the way of OpenSSL 3, which 2.28 cannot. Returns null, or the fault.
inline const char* mbedtls_read_aes_key(mbedtls_pk_context& key, const tls_material& material) {
  mbedtls_pem_context pem;
  mbedtls_pem_init(&pem);
  std::size_t used = 0;
  const char* wrong = tls_reason::bad_private_key;
  mbedtls_pbes2 encrypted;
  if (mbedtls_pem_read_buffer(&pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----",
                              "-----END ENCRYPTED PRIVATE KEY-----",
                              reinterpret_cast<const unsigned char*>(material.private_key.text.c_str()),
                              nullptr, 0, &used) == 0 &&
      mbedtls_parse_pbes2(encrypted, pem.buf, pem.buf + pem.buflen)) {
    std::vector<unsigned char> plain = mbedtls_decrypt_pbes2(encrypted, material.password);
    if (!plain.empty() && mbedtls_read_key(key, plain.data(), plain.size(), {}) == 0)
      wrong = nullptr;
    else
      wrong = tls_reason::password_wrong;
    mbedtls_platform_zeroize(plain.data(), plain.size());
  }
  mbedtls_pem_free(&pem);
  return wrong;
}

#else

/// This mbedTLS reads such keys itself, or was built without the functions for it.
ANYIO_NET_FN const char* mbedtls_read_aes_key(mbedtls_pk_context&, const tls_material&) {
  return tls_reason::bad_private_key;
}

#endif

/// A certificate, those that lead to its authority, and its key. It must not move, because mbedTLS refers to
/// it.
class mbedtls_certificate {
 public:
  mbedtls_certificate() noexcept {
    mbedtls_x509_crt_init(&chain);
    mbedtls_pk_init(&key);
  }
  mbedtls_certificate(const mbedtls_certificate&) = delete;
  mbedtls_certificate& operator=(const mbedtls_certificate&) = delete;
  ~mbedtls_certificate() {
    mbedtls_pk_free(&key);
    mbedtls_x509_crt_free(&chain);
  }

  /// Must be called once.
  [[nodiscard]] result<> read(const tls_material& material) {
    if (const char* wrong = mbedtls_read_certificates(chain, material.certificate.text); wrong != nullptr)
      return material.certificate.wrong(wrong);
    if (result<> r = read_private_key(material); !r) return r;
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    const int differs = mbedtls_pk_check_pair(&chain.pk, &key, mbedtls_draw, nullptr);
#else
    const int differs = mbedtls_pk_check_pair(&chain.pk, &key);
#endif
    if (differs != 0) return material.private_key.wrong(tls_reason::other_private_key);
    return {};
  }

  std::string name;  // the server's name, for further certificates
  mbedtls_x509_crt chain;
  mbedtls_pk_context key;

 private:
  [[nodiscard]] result<> read_private_key(const tls_material& material) {
    const std::string& text = material.private_key.text;
    if (text.find("PRIVATE KEY-----") == std::string::npos)
      return material.private_key.wrong(tls_reason::no_private_key);
    const bool encrypted = text.find("-----BEGIN ENCRYPTED PRIVATE KEY-----") != std::string::npos ||
                           text.find("Proc-Type: 4,ENCRYPTED") != std::string::npos;
    const auto refuse_password = [](const char* reason) {
      return error_access::with_reason(error(errc::tls, 0, "tls: private_key_password"), reason);
    };
    if (encrypted && material.password.empty()) return refuse_password(tls_reason::password_missing);

    const auto* bytes = reinterpret_cast<const unsigned char*>(text.c_str());
    const int code = mbedtls_read_key(key, bytes, text.size() + 1, material.password);
    if (code == 0) return {};
    if (!encrypted) return material.private_key.wrong(tls_reason::bad_private_key);
    // With a wrong password, the decrypted data may by chance look right, but it is no key. mbedTLS adds a
    // reason to its codes, which is removed here.
    const int kind = -(-code & 0xff80);
    if (kind == MBEDTLS_ERR_PK_PASSWORD_MISMATCH || kind == MBEDTLS_ERR_PK_KEY_INVALID_FORMAT ||
        kind == MBEDTLS_ERR_PK_KEY_INVALID_VERSION)
      return refuse_password(tls_reason::password_wrong);
    const char* wrong = mbedtls_read_aes_key(key, material);
    if (wrong == nullptr) return {};
    return wrong == tls_reason::password_wrong ? refuse_password(wrong) : material.private_key.wrong(wrong);
  }
};

}  // namespace detail

}}  // namespace anyio

#endif

// == tls/mbedtls/tls_mbedtls.ipp ==================================================================

// The engine for mbedTLS.
//
// mbedTLS reads and writes bytes by two callbacks, which take from a pipe and append to it. Random bytes and
// the date come from this library's own sources, so that a simulation repeats both.

#if defined(ANYIO_NET_MBEDTLS)

#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <mbedtls/ssl_ticket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The data that a client needs to resume a session. It is secret.
class mbedtls_kept_session {
 public:
  mbedtls_kept_session() = default;
  mbedtls_kept_session(mbedtls_kept_session&&) = default;
  mbedtls_kept_session& operator=(mbedtls_kept_session&&) = delete;
  ~mbedtls_kept_session() { mbedtls_platform_zeroize(bytes.data(), bytes.size()); }

  std::string bytes;
  std::string peer_certificate;  // a resumed TLS 1.3 session does not send it again
};

// Fields for which 2.28 has no functions, and 3 has none or different ones.
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
inline constexpr auto mbedtls_state = &mbedtls_ssl_context::MBEDTLS_PRIVATE(state);
inline constexpr auto mbedtls_in_left = &mbedtls_ssl_context::MBEDTLS_PRIVATE(in_left);
inline constexpr auto mbedtls_in_msg = &mbedtls_ssl_context::MBEDTLS_PRIVATE(in_msg);
inline constexpr auto mbedtls_in_msgtype = &mbedtls_ssl_context::MBEDTLS_PRIVATE(in_msgtype);
#else
inline constexpr auto mbedtls_state = &mbedtls_ssl_context::state;
inline constexpr auto mbedtls_in_left = &mbedtls_ssl_context::in_left;
inline constexpr auto mbedtls_in_msg = &mbedtls_ssl_context::in_msg;
inline constexpr auto mbedtls_in_msgtype = &mbedtls_ssl_context::in_msgtype;
#endif

/// The state that all connections share.
class mbedtls_credentials final
    : public tls_credentials<mbedtls_credentials, mbedtls_certificate, mbedtls_kept_session> {
 public:
  using turn = mbedtls_turn;

  mbedtls_credentials() noexcept {
    mbedtls_ssl_config_init(&client_);
    mbedtls_ssl_config_init(&server_);
    mbedtls_x509_crt_init(&authorities_);
#if defined(MBEDTLS_SSL_TICKET_C) && defined(MBEDTLS_SSL_SESSION_TICKETS)
    mbedtls_ssl_ticket_init(&tickets_);
#endif
  }
  mbedtls_credentials(const mbedtls_credentials&) = delete;
  mbedtls_credentials& operator=(const mbedtls_credentials&) = delete;
  ~mbedtls_credentials() override {
    mbedtls_ssl_config_free(&client_);
    mbedtls_ssl_config_free(&server_);
    mbedtls_x509_crt_free(&authorities_);
#if defined(MBEDTLS_SSL_TICKET_C) && defined(MBEDTLS_SSL_SESSION_TICKETS)
    mbedtls_ssl_ticket_free(&tickets_);
#endif
  }

  [[nodiscard]] result<> set_up(tls_material& material);
  [[nodiscard]] result<> read(mbedtls_certificate& into, const tls_material& material) {
    return into.read(material);
  }
  void trust(const std::string& text);
  [[nodiscard]] std::unique_ptr<tls_engine> make_engine(tls_pipe& pipe, tls_server_identity&& identity,
                                                        bool server_side);

 private:
  [[nodiscard]] int configure(mbedtls_ssl_config& config, int endpoint, tls_version least);
  [[nodiscard]] int offer_tickets();

  mbedtls_ssl_config client_;
  mbedtls_ssl_config server_;
  mbedtls_x509_crt authorities_;
#if defined(MBEDTLS_SSL_TICKET_C) && defined(MBEDTLS_SSL_SESSION_TICKETS)
  mbedtls_ssl_ticket_context tickets_;
#endif
  mbedtls_certificate main_;
  std::vector<std::string> protocols_;  // mbedTLS refers to these three
  std::vector<const char*> protocol_list_;
  std::vector<int> ciphers_;
};

/// One end of a connection.
class mbedtls_engine final : public tls_engine {
 public:
  mbedtls_engine(std::shared_ptr<mbedtls_credentials> credentials, tls_pipe& pipe,
                 tls_server_identity identity, bool server_side)
      : credentials_(std::move(credentials)),
        pipe_(pipe),
        identity_(std::move(identity)),
        server_side_(server_side) {
    mbedtls_ssl_init(&ssl_);
  }
  mbedtls_engine(const mbedtls_engine&) = delete;
  mbedtls_engine& operator=(const mbedtls_engine&) = delete;
  ~mbedtls_engine() override {
    const mbedtls_turn turn;
    mbedtls_ssl_free(&ssl_);
  }

  /// Called once, before any other function. Returns false if there is no memory.
  [[nodiscard]] bool set_up(const mbedtls_ssl_config& config);

  ANYIO_NET_FN tls_status handshake() override;
  ANYIO_NET_FN tls_status read(mutable_buffer into, std::size_t& n) override;
  ANYIO_NET_FN tls_status write(const_buffer data, std::size_t& n) override;
  ANYIO_NET_FN tls_status close() override;
  [[nodiscard]] ANYIO_NET_FN bool pending() const override;
  [[nodiscard]] ANYIO_NET_FN tls_info info() const override;
  [[nodiscard]] ANYIO_NET_FN std::string last_error() const override;

  /// Chooses a server's certificate by the name that the client asks for.
  static int name_asked_for(void* credentials, mbedtls_ssl_context* ssl, const unsigned char* name,
                            std::size_t size) noexcept;

 private:
  static int send(void* self, const unsigned char* data, std::size_t size) noexcept;
  static int receive(void* self, unsigned char* into, std::size_t size) noexcept;
  static int verify(void* self, mbedtls_x509_crt* certificate, int depth, std::uint32_t* flags) noexcept;

  [[nodiscard]] bool is_version(std::string_view version) const noexcept {
    return mbedtls_ssl_get_version(&ssl_) == version;
  }
  /// Whether the peer sent too many warnings: as many as OpenSSL rejects, too.
  [[nodiscard]] bool is_flooded() const noexcept { return warnings_ >= 5; }

  [[nodiscard]] bool is_foreign() const noexcept;
  void offer_session();
  void keep_session();
  [[nodiscard]] bool client_is_refused();
  void send_alert(unsigned char description);
  void alert_failure();
  [[nodiscard]] tls_status outcome(int code);
  [[nodiscard]] std::string shown_certificate() const;

  mbedtls_ssl_context ssl_;
  const std::shared_ptr<mbedtls_credentials> credentials_;
  tls_pipe& pipe_;
  const tls_server_identity identity_;  // client only: the server
  std::string asked_for_;               // server only: the name that the client asks for
  std::string peer_certificate_;        // if mbedTLS does not keep it
  int failure_ = 0;
  std::size_t begun_ = 0;  // how many bytes of `head_` are filled
  std::array<unsigned char, 5> head_ = {};
  unsigned warnings_ = 0;  // in a row
  const bool server_side_;
  bool self_signed_ = false;
  bool resumed_ = true;  // until certificates are exchanged
  bool complete_ = false;
  bool alerted_ = false;
  bool peer_closed_ = false;
  bool closed_ = false;
};

ANYIO_NET_FN bool mbedtls_engine::set_up(const mbedtls_ssl_config& config) {
  if (mbedtls_ssl_setup(&ssl_, &config) != 0) return false;
  // Needed even without a name: without this call some versions silently check no name, and others fail.
  if (mbedtls_ssl_set_hostname(&ssl_, identity_.name.empty() ? nullptr : identity_.name.c_str()) != 0)
    return false;
  mbedtls_ssl_set_bio(&ssl_, this, send, receive, nullptr);
  mbedtls_ssl_set_verify(&ssl_, verify, this);
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
  mbedtls_ssl_set_user_data_p(&ssl_, this);
#endif
  if (!server_side_) offer_session();
  return true;
}

ANYIO_NET_FN int mbedtls_engine::send(void* self, const unsigned char* data, std::size_t size) noexcept {
  auto& engine = *static_cast<mbedtls_engine*>(self);
  constexpr std::size_t level = 5;  // after the record's header; in clear until the handshake is over
  if (size > level && data[0] == MBEDTLS_SSL_MSG_ALERT)
    engine.alerted_ = engine.complete_ || data[level] == MBEDTLS_SSL_ALERT_LEVEL_FATAL;
  if (!call_without_throwing([&] { engine.pipe_.tx.append(const_buffer(data, size)); }))
    return MBEDTLS_ERR_SSL_ALLOC_FAILED;
  return static_cast<int>(size);
}

ANYIO_NET_FN int mbedtls_engine::receive(void* self, unsigned char* into, std::size_t size) noexcept {
  auto& engine = *static_cast<mbedtls_engine*>(self);
  if (!engine.pipe_.rx.empty()) {
    // mbedTLS ignores warnings, and goes on to the next record. A record begins if it has no byte of it yet;
    // the last one was a warning if it was an alert, since it did not end the connection.
    const bool warned = engine.ssl_.*mbedtls_in_msgtype == MBEDTLS_SSL_MSG_ALERT;
    if (engine.ssl_.*mbedtls_in_left == 0) engine.warnings_ = warned ? engine.warnings_ + 1 : 0;
    if (engine.is_flooded()) return MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE;
  }
  const std::size_t n = take_received(engine.pipe_, into, size);
  if (n == 0) return engine.pipe_.rx_eof ? 0 : MBEDTLS_ERR_SSL_WANT_READ;
  const std::size_t kept = std::min(n, engine.head_.size() - engine.begun_);
  std::copy_n(into, kept, engine.head_.begin() + static_cast<std::ptrdiff_t>(engine.begun_));
  engine.begun_ += kept;
  return static_cast<int>(n);
}

ANYIO_NET_FN int mbedtls_engine::verify(void* self, mbedtls_x509_crt* certificate, int depth,
                                        std::uint32_t* flags) noexcept {
  auto& engine = *static_cast<mbedtls_engine*>(self);
  // By this library's calendar, not by the system's.
  constexpr std::uint32_t dated = MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE;
  *flags &= ~dated;
  const std::int64_t now = calendar_now();
  if (now > mbedtls_seconds(certificate->valid_to)) *flags |= MBEDTLS_X509_BADCERT_EXPIRED;
  if (now < mbedtls_seconds(certificate->valid_from)) *flags |= MBEDTLS_X509_BADCERT_FUTURE;
  if (depth != 0) return 0;

  const mbedtls_x509_buf& issuer = certificate->issuer_raw;
  const mbedtls_x509_buf& subject = certificate->subject_raw;
  engine.self_signed_ = std::equal(issuer.p, issuer.p + issuer.len, subject.p, subject.p + subject.len);
  if (engine.identity_.known() && !mbedtls_is_for(*certificate, engine.identity_)) {
    *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
  } else {
    *flags &= ~static_cast<std::uint32_t>(MBEDTLS_X509_BADCERT_CN_MISMATCH);
  }
#if !defined(MBEDTLS_SSL_KEEP_PEER_CERTIFICATE)
  const std::string_view raw(reinterpret_cast<const char*>(certificate->raw.p), certificate->raw.len);
  if (!call_without_throwing([&] { engine.peer_certificate_.assign(raw); }))
    return MBEDTLS_ERR_X509_ALLOC_FAILED;
#endif
  return 0;
}

ANYIO_NET_FN int mbedtls_engine::name_asked_for(void* credentials, mbedtls_ssl_context* ssl,
                                                const unsigned char* name, std::size_t size) noexcept {
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
  auto& engine = *static_cast<mbedtls_engine*>(mbedtls_ssl_get_user_data_p(ssl));
#else
  auto& engine = *static_cast<mbedtls_engine*>(ssl->p_bio);
#endif
  const std::string_view asked(reinterpret_cast<const char*>(name), size);
  if (!call_without_throwing([&] { engine.asked_for_ = parse_server_name(asked).name; }))
    return MBEDTLS_ERR_SSL_ALLOC_FAILED;
  mbedtls_certificate* c = static_cast<mbedtls_credentials*>(credentials)->further(engine.asked_for_);
  return c == nullptr ? 0 : mbedtls_ssl_set_hs_own_cert(ssl, &c->chain, &c->key);
}

/// Whether the first bytes received do not begin a record (RFC 8446, section 5.1).
ANYIO_NET_FN bool mbedtls_engine::is_foreign() const noexcept {
  constexpr int longest = 16384 + 2048;  // RFC 5246, section 6.2.3
  if (begun_ > 0 && head_[0] != MBEDTLS_SSL_MSG_HANDSHAKE && head_[0] != MBEDTLS_SSL_MSG_ALERT) return true;
  if (begun_ > 1 && head_[1] != 3) return true;
  return begun_ == head_.size() && head_[3] * 256 + head_[4] > longest;
}

ANYIO_NET_FN void mbedtls_engine::offer_session() {
  std::optional<mbedtls_kept_session> kept = credentials_->sessions.take(session_key(identity_));
  if (!kept) return;
  mbedtls_ssl_session session;
  mbedtls_ssl_session_init(&session);
  const auto* bytes = reinterpret_cast<const unsigned char*>(kept->bytes.data());
  // A session that cannot be used only makes the handshake longer.
  if (mbedtls_ssl_session_load(&session, bytes, kept->bytes.size()) == 0 &&
      mbedtls_ssl_set_session(&ssl_, &session) == 0)
    peer_certificate_ = std::move(kept->peer_certificate);
  mbedtls_ssl_session_free(&session);
}

ANYIO_NET_FN void mbedtls_engine::keep_session() {
  struct library_session {
    mbedtls_ssl_session value;
    library_session() noexcept { mbedtls_ssl_session_init(&value); }
    ~library_session() { mbedtls_ssl_session_free(&value); }
  } held;
  mbedtls_ssl_session& session = held.value;
  if (mbedtls_ssl_get_session(&ssl_, &session) == 0) {
    std::size_t size = 0;
    mbedtls_kept_session kept;
    static_cast<void>(mbedtls_ssl_session_save(&session, nullptr, 0, &size));  // returns the size
    kept.bytes.resize(size);
    kept.peer_certificate = shown_certificate();
    if (mbedtls_ssl_session_save(&session, reinterpret_cast<unsigned char*>(kept.bytes.data()), size,
                                 &size) == 0)
      credentials_->sessions.put(session_key(identity_), std::move(kept));
  }
}

/// Whether an optional client certificate is wrong. mbedTLS continues with it, so it is checked before the
/// handshake is over.
ANYIO_NET_FN bool mbedtls_engine::client_is_refused() {
  if (!server_side_ || credentials_->verify_client != tls_verify::optional) return false;
  constexpr std::uint32_t harmless = MBEDTLS_X509_BADCERT_MISSING | MBEDTLS_X509_BADCERT_SKIP_VERIFY;
  const std::uint32_t flags = mbedtls_ssl_get_verify_result(&ssl_);
  if ((flags & ~harmless) == 0) return false;
  unsigned char alert = MBEDTLS_SSL_ALERT_MSG_BAD_CERT;
  if ((flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) != 0) alert = MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA;
  if ((flags & MBEDTLS_X509_BADCERT_EXPIRED) != 0) alert = MBEDTLS_SSL_ALERT_MSG_CERT_EXPIRED;
  send_alert(alert);
  return true;
}

ANYIO_NET_FN void mbedtls_engine::send_alert(unsigned char description) {
  // The pipe always has room, so this fails only for the reason for which the connection fails.
  static_cast<void>(mbedtls_ssl_send_alert_message(&ssl_, MBEDTLS_SSL_ALERT_LEVEL_FATAL, description));
}

/// Sends an alert where mbedTLS fails silently: after a missing certificate, or an invalid record.
ANYIO_NET_FN void mbedtls_engine::alert_failure() {
  // Under TLS 1.3 an alert cannot be told from data here, and mbedTLS does not fail silently.
  if (alerted_ || failure_ == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE || is_version("TLSv1.3")) return;
  if (is_flooded()) return send_alert(MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE);
  send_alert(complete_ ? MBEDTLS_SSL_ALERT_MSG_DECODE_ERROR : MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
}

ANYIO_NET_FN tls_status mbedtls_engine::outcome(int code) {
  switch (code) {
    case 0: return tls_status::ok;
    case MBEDTLS_ERR_SSL_WANT_READ: return tls_status::want_input;
    case MBEDTLS_ERR_SSL_WANT_WRITE:
    case MBEDTLS_ERR_SSL_ASYNC_IN_PROGRESS:
    case MBEDTLS_ERR_SSL_CRYPTO_IN_PROGRESS: return tls_status::again;
#if defined(MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
    case MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET: keep_session(); return tls_status::again;
#endif
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY: peer_closed_ = true; return tls_status::closed;
    case MBEDTLS_ERR_SSL_CONN_EOF: return tls_status::truncated;
    default:
      failure_ = code;
      alert_failure();
      return tls_status::failed;
  }
}

ANYIO_NET_FN tls_status mbedtls_engine::handshake() {
  const mbedtls_turn turn;
  const std::size_t before = pipe_.tx.size();
  while (ssl_.*mbedtls_state != MBEDTLS_SSL_HANDSHAKE_OVER) {
    // A resumed handshake never has this state, under any version and at either end.
    if (ssl_.*mbedtls_state == MBEDTLS_SSL_SERVER_CERTIFICATE && std::exchange(resumed_, false))
      peer_certificate_.clear();
#if MBEDTLS_VERSION_NUMBER < 0x03000000
    mbedtls_in_handshake = &ssl_;
#endif
    const int code = mbedtls_ssl_handshake_step(&ssl_);
#if MBEDTLS_VERSION_NUMBER < 0x03000000
    mbedtls_in_handshake = nullptr;
#endif
    if (code != 0) return outcome(code);
    if (client_is_refused()) return outcome(MBEDTLS_ERR_X509_CERT_VERIFY_FAILED);
  }
  complete_ = true;
  // After the client's last message a server sends only tickets.
  if (server_side_ && is_version("TLSv1.3")) pipe_.may_wait = pipe_.tx.size() - before;
  // Under TLS 1.3 the data to resume arrives later.
  if (!server_side_ && is_version("TLSv1.2")) keep_session();
  return tls_status::ok;
}

ANYIO_NET_FN tls_status mbedtls_engine::read(mutable_buffer into, std::size_t& n) {
  n = 0;
  if (peer_closed_) return tls_status::closed;
  const mbedtls_turn turn;
  const int code = mbedtls_ssl_read(&ssl_, reinterpret_cast<unsigned char*>(into.data()), into.size());
  if (code == 0) return tls_status::truncated;
  if (code < 0) return outcome(code);
  n = static_cast<std::size_t>(code);
  return tls_status::ok;
}

ANYIO_NET_FN tls_status mbedtls_engine::write(const_buffer data, std::size_t& n) {
  n = 0;
  const mbedtls_turn turn;
  const int code = mbedtls_ssl_write(&ssl_, reinterpret_cast<const unsigned char*>(data.data()), data.size());
  if (code <= 0) return outcome(code);
  n = static_cast<std::size_t>(code);
  return tls_status::ok;
}

ANYIO_NET_FN tls_status mbedtls_engine::close() {
  if (closed_) return tls_status::ok;
  closed_ = true;
  const mbedtls_turn turn;
  return outcome(mbedtls_ssl_close_notify(&ssl_));
}

ANYIO_NET_FN bool mbedtls_engine::pending() const {
  return mbedtls_ssl_get_bytes_avail(&ssl_) != 0 || mbedtls_ssl_check_pending(&ssl_) != 0;
}

/// The peer's certificate in DER.
ANYIO_NET_FN std::string mbedtls_engine::shown_certificate() const {
  const mbedtls_x509_crt* c = mbedtls_ssl_get_peer_cert(&ssl_);
  if (c == nullptr || c->raw.len == 0) return peer_certificate_;
  return {reinterpret_cast<const char*>(c->raw.p), c->raw.len};
}

ANYIO_NET_FN tls_info mbedtls_engine::info() const {
  tls_info about;
  about.server_side = server_side_;
  about.server_name = server_side_ ? asked_for_ : identity_.name;
  if (!complete_) return about;
  about.peer_certificate_der = shown_certificate();
  about.version = mbedtls_ssl_get_version(&ssl_);
  // mbedTLS has "TLS-ECDHE-..." or "TLS1-3-AES-..."; IANA has underscores, and no version in a name.
  if (const char* known = mbedtls_ssl_get_ciphersuite(&ssl_); known != nullptr) {
    std::string_view cipher = known;
    constexpr std::string_view newer = "TLS1-3-";
    if (cipher.starts_with(newer)) {
      about.cipher = "TLS-";
      cipher.remove_prefix(newer.size());
    }
    about.cipher += cipher;
    std::replace(about.cipher.begin(), about.cipher.end(), '-', '_');
  }
  if (const char* protocol = mbedtls_ssl_get_alpn_protocol(&ssl_); protocol != nullptr) about.alpn = protocol;
  about.resumed = resumed_;
  return about;
}

ANYIO_NET_FN std::string mbedtls_engine::last_error() const {
  if (failure_ == 0) return {};
  if (is_foreign()) return tls_reason::not_tls;
  if (is_flooded()) return tls_reason::many_warnings;
  switch (failure_) {
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE: return alert_reason((ssl_.*mbedtls_in_msg)[1]);
    case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE: return tls_reason::none_shown;
    case MBEDTLS_ERR_SSL_INVALID_MAC:
    case MBEDTLS_ERR_SSL_INVALID_RECORD: return tls_reason::bad_record;
    case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED:
    case MBEDTLS_ERR_X509_FATAL_ERROR:
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    case MBEDTLS_ERR_SSL_BAD_CERTIFICATE:
#else
    case MBEDTLS_ERR_SSL_BAD_HS_CERTIFICATE:
#endif
      if (const char* verdict = mbedtls_verdict(mbedtls_ssl_get_verify_result(&ssl_), self_signed_);
          verdict != nullptr)
        return verdict;
      break;
    default: break;
  }
  return mbedtls_words(failure_);
}

/// Prepares what all clients, or all servers, share. Returns 0, or an mbedTLS error code.
ANYIO_NET_FN int mbedtls_credentials::configure(mbedtls_ssl_config& config, int endpoint, tls_version least) {
  if (const int code = mbedtls_ssl_config_defaults(&config, endpoint, MBEDTLS_SSL_TRANSPORT_STREAM,
                                                   MBEDTLS_SSL_PRESET_DEFAULT);
      code != 0)
    return code;
  mbedtls_ssl_conf_rng(&config, mbedtls_draw, nullptr);
  mbedtls_ssl_conf_ciphersuites(&config, ciphers_.data());
  mbedtls_ssl_conf_ca_chain(&config, &authorities_, nullptr);
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
  mbedtls_ssl_conf_min_tls_version(
      &config, least == tls_version::v1_3 ? MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
  static constexpr std::uint16_t groups[] = {
      MBEDTLS_SSL_IANA_TLS_GROUP_X25519, MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
      MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, MBEDTLS_SSL_IANA_TLS_GROUP_NONE};
  mbedtls_ssl_conf_groups(&config, groups);
#else
  static_cast<void>(least);
  mbedtls_ssl_conf_min_version(&config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#if defined(MBEDTLS_ECP_C)
  // By default 2.28 begins with the largest curve, and includes curves that are too small.
  static constexpr mbedtls_ecp_group_id curves[] = {
#if defined(MBEDTLS_ECP_DP_CURVE25519_ENABLED)
    MBEDTLS_ECP_DP_CURVE25519,
#endif
#if defined(MBEDTLS_ECP_DP_SECP256R1_ENABLED)
    MBEDTLS_ECP_DP_SECP256R1,
#endif
#if defined(MBEDTLS_ECP_DP_SECP384R1_ENABLED)
    MBEDTLS_ECP_DP_SECP384R1,
#endif
    MBEDTLS_ECP_DP_NONE
  };
  mbedtls_ssl_conf_curves(&config, curves);
#endif
#endif
#if defined(MBEDTLS_SSL_RENEGOTIATION)
  mbedtls_ssl_conf_renegotiation(&config, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#endif
  mbedtls_ssl_conf_legacy_renegotiation(&config, MBEDTLS_SSL_LEGACY_NO_RENEGOTIATION);
  if (!protocols_.empty())
    if (const int code = mbedtls_ssl_conf_alpn_protocols(&config, protocol_list_.data()); code != 0)
      return code;
  return main_.chain.raw.len != 0 ? mbedtls_ssl_conf_own_cert(&config, &main_.chain, &main_.key) : 0;
}

/// Lets the clients of a server resume, where that is possible.
ANYIO_NET_FN int mbedtls_credentials::offer_tickets() {
#if defined(MBEDTLS_SSL_TICKET_C) && defined(MBEDTLS_SSL_SESSION_TICKETS)
  // Some tickets do not identify the client: those of TLS 1.3, and those of an mbedTLS that does not keep its
  // certificate.
#if defined(MBEDTLS_SSL_PROTO_TLS1_3) || !defined(MBEDTLS_SSL_KEEP_PEER_CERTIFICATE)
  if (verify_client != tls_verify::none) return 0;
#endif
  constexpr std::uint32_t lifetime = 86400;
  if (const int code =
          mbedtls_ssl_ticket_setup(&tickets_, mbedtls_draw, nullptr, MBEDTLS_CIPHER_AES_256_GCM, lifetime);
      code != 0)
    return code;
  mbedtls_ssl_conf_session_tickets_cb(&server_, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse,
                                      &tickets_);
#endif
  return 0;
}

ANYIO_NET_FN result<> mbedtls_credentials::set_up(tls_material& material) {
#if MBEDTLS_VERSION_NUMBER < 0x03000000 || !defined(MBEDTLS_SSL_PROTO_TLS1_3)
  if (material.min_version == tls_version::v1_3)
    return error_access::with_reason(error(errc::tls, 0, "tls: min_version"), tls_reason::version_missing);
#endif
#if MBEDTLS_VERSION_NUMBER >= 0x03000000 && defined(MBEDTLS_PSA_CRYPTO_C)
  static const psa_status_t cryptography = psa_crypto_init();  // TLS 1.3 needs it
  if (cryptography != PSA_SUCCESS)
    return tls_failure("mbedtls_context", "the library's cryptography cannot be initialized");
#endif
  if (material.certificate.given())
    if (result<> r = main_.read(material); !r) return r;
  if (material.ca.given()) {
    if (const char* wrong = mbedtls_read_certificates(authorities_, material.ca.text); wrong != nullptr)
      return material.ca.wrong(wrong);
  }
  protocols_ = std::move(material.alpn);
  for (const std::string& protocol : protocols_) protocol_list_.push_back(protocol.c_str());
  protocol_list_.push_back(nullptr);
  for (const int* id = mbedtls_ssl_list_ciphersuites(); *id != 0; ++id) {
    const std::string_view name = mbedtls_ssl_get_ciphersuite_name(*id);
    const auto in_name = [name](std::string_view word) { return name.find(word) != std::string_view::npos; };
    const bool agreed = name.starts_with("TLS-ECDHE-ECDSA-") || name.starts_with("TLS-ECDHE-RSA-") ||
                        name.starts_with("TLS1-3-");
    const bool sealed = in_name("-CHACHA20-POLY1305-") ||
                        (in_name("-AES-") && (in_name("-GCM-") || in_name("-CCM")) && !in_name("-CCM-8"));
    if (agreed && sealed) ciphers_.push_back(*id);
  }
  ciphers_.push_back(0);

  const auto failed = [](int code) { return tls_failure("mbedtls_context", mbedtls_words(code)); };
  if (const int code = configure(client_, MBEDTLS_SSL_IS_CLIENT, material.min_version); code != 0)
    return failed(code);
  mbedtls_ssl_conf_authmode(
      &client_, verify == tls_verify::none ? MBEDTLS_SSL_VERIFY_NONE : MBEDTLS_SSL_VERIFY_REQUIRED);
#if MBEDTLS_VERSION_NUMBER >= 0x03060100 && defined(MBEDTLS_SSL_PROTO_TLS1_3) && \
    defined(MBEDTLS_SSL_SESSION_TICKETS)
  mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(
      &client_, MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
#endif

  if (const int code = configure(server_, MBEDTLS_SSL_IS_SERVER, material.min_version); code != 0)
    return failed(code);
  mbedtls_ssl_conf_authmode(&server_, verify_client == tls_verify::none       ? MBEDTLS_SSL_VERIFY_NONE
                                      : verify_client == tls_verify::optional ? MBEDTLS_SSL_VERIFY_OPTIONAL
                                                                              : MBEDTLS_SSL_VERIFY_REQUIRED);
  mbedtls_ssl_conf_sni(&server_, mbedtls_engine::name_asked_for, this);
  if (const int code = offer_tickets(); code != 0) return failed(code);
  return {};
}

ANYIO_NET_FN void mbedtls_credentials::trust(const std::string& text) {
  // A certificate in it that cannot be read is not trusted; the others are.
  static_cast<void>(mbedtls_x509_crt_parse(
      &authorities_, reinterpret_cast<const unsigned char*>(text.c_str()), text.size() + 1));
}

ANYIO_NET_FN std::unique_ptr<tls_engine> mbedtls_credentials::make_engine(tls_pipe& pipe,
                                                                          tls_server_identity&& identity,
                                                                          bool server_side) {
  auto engine = std::make_unique<mbedtls_engine>(shared_from_this(), pipe, std::move(identity), server_side);
  if (!engine->set_up(server_side ? server_ : client_)) return nullptr;
  return engine;
}

}  // namespace detail

ANYIO_NET_FN result<std::shared_ptr<tls_context>> mbedtls_context(tls_config config) {
  return detail::mbedtls_credentials::make(config);
}

}}  // namespace anyio

#endif

// == tls/openssl/tls_openssl_keys.ipp =============================================================

// Certificates and keys for OpenSSL 3, and its queue of errors.

#if defined(ANYIO_NET_OPENSSL)

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

inline void free_certificates(STACK_OF(X509) * certificates) noexcept {
  sk_X509_pop_free(certificates, X509_free);
}

template <auto release>
struct openssl_release {
  template <class T>
  void operator()(T* object) const noexcept {
    release(object);
  }
};
template <class T, auto release>
using openssl_ptr = std::unique_ptr<T, openssl_release<release>>;

using openssl_bio = openssl_ptr<BIO, BIO_free>;
using openssl_certificate = openssl_ptr<X509, X509_free>;
using openssl_certificates = openssl_ptr<STACK_OF(X509), free_certificates>;
using openssl_key = openssl_ptr<EVP_PKEY, EVP_PKEY_free>;
using openssl_session = openssl_ptr<SSL_SESSION, SSL_SESSION_free>;

/// Held during calls of OpenSSL: its queue of errors belongs to the thread, and is empty before and
/// afterwards.
class openssl_turn {
 public:
  openssl_turn() noexcept { ERR_clear_error(); }
  openssl_turn(const openssl_turn&) = delete;
  openssl_turn& operator=(const openssl_turn&) = delete;
  ~openssl_turn() { ERR_clear_error(); }
};

/// ERR_clear_error, but cheap if there are no errors.
inline void forget_openssl_errors() noexcept {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

/// Empties the thread's queue of errors. Returns the TLS library's first entry, else the first of all, 0 if
/// none.
inline unsigned long drain_openssl_errors() noexcept {
  unsigned long found = 0;
  while (const unsigned long code = ERR_get_error()) {
    const bool better = ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_LIB(found) != ERR_LIB_SSL;
    if (found == 0 || better) found = code;
  }
  return found;
}

/// OpenSSL's own text, which is static.
inline const char* openssl_words(unsigned long code) noexcept {
  const char* const words = ERR_reason_error_string(code);
  return words != nullptr ? words : "the TLS library reports no reason";
}

// == texts ==

/// Takes the next block of a PEM text whose label ends with `label_end`, and drops the text before it. Empty
/// if there is none. It proceeds block by block, so that a damaged block is not taken for another kind.
inline std::string_view take_pem_block(std::string_view& text, std::string_view label_end) noexcept {
  constexpr std::string_view opening = "-----BEGIN ";
  for (;;) {
    text.remove_prefix(std::min(text.find(opening), text.size()));
    if (text.empty()) return {};
    const std::string_view block = text.substr(0, text.find(opening, opening.size()));
    text.remove_prefix(block.size());
    const std::string_view label = block.substr(opening.size());
    if (label.substr(0, label.find_first_of("-\r\n")).ends_with(label_end)) return block;
  }
}

/// Answers OpenSSL when it asks for a password; otherwise OpenSSL would ask a terminal.
struct openssl_password {
  std::string_view known;
  bool asked = false;

  static int answer(char* into, int size, int, void* self) noexcept {
    auto& password = *static_cast<openssl_password*>(self);
    password.asked = true;
    if (password.known.empty() || password.known.size() > static_cast<std::size_t>(size)) return -1;
    std::memcpy(into, password.known.data(), password.known.size());
    return static_cast<int>(password.known.size());
  }
};

/// Reads a block with one of OpenSSL's functions; null if it is not of that kind.
template <class T, class Read>
T* read_pem_block(std::string_view block, openssl_password& password, Read* read) noexcept {
  const openssl_turn turn;
  if (block.size() > INT_MAX) return nullptr;
  const openssl_bio bio(BIO_new_mem_buf(block.data(), static_cast<int>(block.size())));
  return bio ? read(bio.get(), nullptr, openssl_password::answer, &password) : nullptr;
}

/// Returns null if the block is not a certificate.
inline openssl_certificate read_certificate(std::string_view block) noexcept {
  openssl_password none;
  return openssl_certificate(read_pem_block<X509>(block, none, PEM_read_bio_X509_AUX));
}

inline result<std::vector<openssl_certificate>> read_certificates(const tls_text& from) {
  std::vector<openssl_certificate> certificates;
  std::string_view rest = from.text;
  for (;;) {
    const std::string_view block = take_pem_block(rest, "CERTIFICATE");
    if (block.empty()) break;
    openssl_certificate certificate = read_certificate(block);
    if (!certificate) return from.wrong(tls_reason::bad_certificate);
    certificates.push_back(std::move(certificate));
  }
  if (certificates.empty()) return from.wrong(tls_reason::no_certificate);
  return certificates;
}

inline result<openssl_key> read_private_key(const tls_text& from, std::string_view password) {
  std::string_view rest = from.text;
  const std::string_view block = take_pem_block(rest, "PRIVATE KEY");
  if (block.empty()) return from.wrong(tls_reason::no_private_key);
  openssl_password answers{password};
  openssl_key key(read_pem_block<EVP_PKEY>(block, answers, PEM_read_bio_PrivateKey));
  if (key) return key;
  if (!answers.asked) return from.wrong(tls_reason::bad_private_key);
  const char* const reason = password.empty() ? tls_reason::password_missing : tls_reason::password_wrong;
  return error_access::with_reason(error(errc::tls, 0, "tls: private_key_password"), reason);
}

/// The certificates and the key that one end shows.
struct openssl_identity {
  std::string name;  // the server's name, for further certificates
  openssl_certificate certificate;
  openssl_certificates chain;  // those that lead to the authority
  openssl_key key;

  [[nodiscard]] bool show(SSL* connection) const noexcept {
    return SSL_use_cert_and_key(connection, certificate.get(), key.get(), chain.get(), 1) == 1;
  }
  [[nodiscard]] bool show(SSL_CTX* all) const noexcept {
    return SSL_CTX_use_cert_and_key(all, certificate.get(), key.get(), chain.get(), 1) == 1;
  }
  [[nodiscard]] result<> read(const tls_material& material) {
    result<std::vector<openssl_certificate>> certificates = read_certificates(material.certificate);
    if (!certificates) return certificates.error();
    result<openssl_key> own = read_private_key(material.private_key, material.password);
    if (!own) return own.error();
    key = std::move(*own);
    certificate = std::move(certificates->front());
    chain.reset(sk_X509_new_null());
    for (auto i = certificates->begin() + 1; i != certificates->end(); ++i) {
      if (!chain || sk_X509_push(chain.get(), i->get()) == 0)
        return material.certificate.wrong(openssl_words(drain_openssl_errors()));
      static_cast<void>(i->release());  // the stack owns it now
    }
    if (X509_check_private_key(certificate.get(), key.get()) == 1) return {};
    ERR_clear_error();
    return material.private_key.wrong(tls_reason::other_private_key);
  }
};

}}}  // namespace anyio::detail

#endif

// == tls/openssl/tls_openssl.ipp ==================================================================

// The engine for OpenSSL 3.
//
// OpenSSL reads and writes through a BIO over the pipe. The BIO accepts all output. Without input it asks to
// retry, also if no more input will follow: the engine itself reports an end without close_notify, since
// OpenSSL would break the connection for it, also for writing. OpenSSL's queue of errors belongs to the
// thread, so it is emptied before every call and left empty after a failure.

#if defined(ANYIO_NET_OPENSSL)

#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// Encodes protocols as in a message (RFC 7301, section 3.1).
inline std::vector<unsigned char> encode_protocols(const std::vector<std::string>& protocols) {
  std::vector<unsigned char> encoded;
  for (const std::string& protocol : protocols) {
    encoded.push_back(static_cast<unsigned char>(protocol.size()));
    encoded.insert(encoded.end(), protocol.begin(), protocol.end());
  }
  return encoded;
}

/// Takes the first protocol of an encoded list; empty if there is none or it is truncated.
inline std::span<const unsigned char> take_protocol(std::span<const unsigned char>& encoded) noexcept {
  if (encoded.empty() || encoded[0] >= encoded.size()) return {};
  const std::span<const unsigned char> protocol = encoded.subspan(1, encoded[0]);
  encoded = encoded.subspan(1 + protocol.size());
  return protocol;
}

// == failures ==

inline const char* verify_reason(long verdict) noexcept {
  switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED: return tls_reason::expired;
    case X509_V_ERR_CERT_NOT_YET_VALID: return tls_reason::not_yet_valid;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return tls_reason::other_name;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: return tls_reason::self_signed;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED: return tls_reason::unknown_authority;
    case X509_V_ERR_CERT_REVOKED: return tls_reason::revoked;
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL:
    case X509_V_ERR_CA_MD_TOO_WEAK: return tls_reason::weak;
    case X509_V_ERR_INVALID_PURPOSE: return tls_reason::other_purpose;
    default: return tls_reason::unverified;
  }
}

/// What the macro SSL_CTX_set1_groups_list does, without its cast in the style of C. OpenSSL only reads the
/// text.
inline bool set_groups(SSL_CTX* library, const char* list) {
  return SSL_CTX_ctrl(library, SSL_CTRL_SET_GROUPS_LIST, 0, const_cast<char*>(list)) == 1;
}

/// Chooses the groups for key agreement.
inline bool choose_groups(SSL_CTX* library) {
  // OpenSSL 3.5 and later: a hybrid with ML-KEM, and key shares of it and of X25519, as by default there.
  // Older versions know neither the group nor the asterisk.
  if (set_groups(library, "*X25519MLKEM768:*X25519:P-256:P-384")) return true;
  std::string known;  // a provider may lack some: the one for FIPS 140 has no X25519
  constexpr const char* wanted[] = {"X25519", "P-256", "P-384"};
  for (const char* const group : wanted) {
    if (!set_groups(library, group)) continue;
    if (!known.empty()) known += ':';
    known += group;
  }
  ERR_clear_error();
  return set_groups(library, known.c_str());
}

/// Whether OpenSSL reports this reason if a first record is not TLS.
inline bool speaks_of_garbage(int reason) noexcept {
  switch (reason) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_LENGTH_TOO_SHORT:
    case SSL_R_RECORD_LENGTH_MISMATCH:
    case SSL_R_BAD_RECORD_TYPE:
    case SSL_R_UNEXPECTED_MESSAGE:
    case SSL_R_BAD_CHANGE_CIPHER_SPEC:
    case SSL_R_INVALID_ALERT:
    case SSL_R_UNKNOWN_ALERT_TYPE: return true;
    default: return false;
  }
}

// == contexts and engines ==

class openssl_engine;

/// The state that all connections share.
class openssl_credentials final
    : public tls_credentials<openssl_credentials, openssl_identity, openssl_session> {
 public:
  using turn = openssl_turn;

  [[nodiscard]] result<> set_up(const tls_material& material);
  [[nodiscard]] result<> read(openssl_identity& into, const tls_material& material);
  void trust(std::string_view text);
  [[nodiscard]] std::unique_ptr<tls_engine> make_engine(tls_pipe& pipe, tls_server_identity&& identity,
                                                        bool server_side);

 private:
  friend class openssl_engine;

  openssl_ptr<SSL_CTX, SSL_CTX_free> library_;
  std::vector<unsigned char> protocols_;
};

/// One connection. OpenSSL calls its static functions back. No exception may leave them, so they report a
/// failed allocation to OpenSSL.
class openssl_engine final : public tls_engine {
 public:
  openssl_engine(std::shared_ptr<openssl_credentials> credentials, tls_pipe& pipe) noexcept
      : credentials_(std::move(credentials)), pipe_(pipe) {}
  ~openssl_engine() override;

  /// Called once, before any other function. Returns false if there is no memory.
  [[nodiscard]] bool set_up(const tls_server_identity& server, bool server_side);

  tls_status handshake() override;
  tls_status read(mutable_buffer into, std::size_t& n) override;
  tls_status write(const_buffer data, std::size_t& n) override;
  tls_status close() override;
  bool pending() const override { return SSL_pending(library_.get()) > 0; }
  tls_info info() const override;
  std::string last_error() const override { return reason_; }

  static int keep_session(SSL* connection, SSL_SESSION* session) noexcept;
  static int choose_certificate(SSL* connection, int* alert, void*) noexcept;
  static int choose_protocol(SSL* connection, const unsigned char** chosen, unsigned char* chosen_size,
                             const unsigned char* offered, unsigned int offered_size, void*) noexcept;

 private:
  static openssl_engine& of(SSL* connection) noexcept {
    return *static_cast<openssl_engine*>(SSL_get_ex_data(connection, 0));  // index 0 is the application's
  }
  static BIO_METHOD* pipe_method() noexcept;
  static int read_pipe(BIO* bio, char* into, int size) noexcept;
  static int write_pipe(BIO* bio, const char* data, int size) noexcept;
  static long control_pipe(BIO* bio, int command, long, void*) noexcept;

  [[nodiscard]] bool set_up_client(const tls_server_identity& server);
  tls_status outcome(int returned) noexcept;
  const char* failure() const noexcept;

  const std::shared_ptr<openssl_credentials> credentials_;
  tls_pipe& pipe_;
  openssl_ptr<SSL, SSL_free> library_;
  std::string server_name_;
  std::string session_key_;  // client only: the key of the server's sessions
  const char* reason_ = "";
  bool established_ = false;
  bool broken_ = false;
};

// == the pipe as a BIO ==

ANYIO_NET_FN BIO_METHOD* openssl_engine::pipe_method() noexcept {
  static BIO_METHOD* const made = [] {
    BIO_METHOD* const method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "anyio_net pipe");
    if (method == nullptr) return method;
    BIO_meth_set_read(method, read_pipe);
    BIO_meth_set_write(method, write_pipe);
    BIO_meth_set_ctrl(method, control_pipe);
    return method;
  }();
  return made;
}

ANYIO_NET_FN int openssl_engine::read_pipe(BIO* bio, char* into, int size) noexcept {
  tls_pipe& pipe = *static_cast<tls_pipe*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (size <= 0) return 0;
  const std::size_t n = take_received(pipe, into, static_cast<std::size_t>(size));
  if (n != 0) return static_cast<int>(n);
  BIO_set_retry_read(bio);
  return -1;
}

ANYIO_NET_FN int openssl_engine::write_pipe(BIO* bio, const char* data, int size) noexcept {
  BIO_clear_retry_flags(bio);
  if (size <= 0) return 0;
  byte_queue& tx = static_cast<tls_pipe*>(BIO_get_data(bio))->tx;
  const const_buffer bytes(data, static_cast<std::size_t>(size));
  if (call_without_throwing([&] { tx.append(bytes); })) return size;
  ERR_raise(ERR_LIB_BIO, ERR_R_MALLOC_FAILURE);
  return -1;
}

ANYIO_NET_FN long openssl_engine::control_pipe(BIO* bio, int command, long, void*) noexcept {
  const tls_pipe& pipe = *static_cast<const tls_pipe*>(BIO_get_data(bio));
  switch (command) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_EOF: return pipe.rx_eof && pipe.rx.empty() ? 1 : 0;
    default: return 0;
  }
}

// == the engine ==

ANYIO_NET_FN bool openssl_engine::set_up(const tls_server_identity& server, bool server_side) {
  library_.reset(SSL_new(credentials_->library_.get()));
  SSL* const library = library_.get();
  BIO_METHOD* const method = pipe_method();
  BIO* const bio = library != nullptr && method != nullptr ? BIO_new(method) : nullptr;
  if (bio == nullptr) return false;
  BIO_set_data(bio, &pipe_);
  BIO_set_init(bio, 1);
  SSL_set_bio(library, bio, bio);
  X509_VERIFY_PARAM_set_time(SSL_get0_param(library), static_cast<time_t>(calendar_now()));
  if (SSL_set_ex_data(library, 0, this) != 1) return false;
  if (!server_side) return set_up_client(server);
  int mode = SSL_VERIFY_NONE;
  if (credentials_->verify_client != tls_verify::none) mode = SSL_VERIFY_PEER;
  if (credentials_->verify_client == tls_verify::peer) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_set_accept_state(library);
  SSL_set_verify(library, mode, nullptr);
  return true;
}

ANYIO_NET_FN bool openssl_engine::set_up_client(const tls_server_identity& server) {
  SSL* const library = library_.get();
  SSL_set_connect_state(library);
  const bool verify = credentials_->verify != tls_verify::none;
  SSL_set_verify(library, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (!server.name.empty()) {
    server_name_ = server.name;
    // Checks only subjectAltName (RFC 9525, section 6), in which "*" stands for a whole label.
    SSL_set_hostflags(library, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    // Here and below: the call that OpenSSL's macro makes, without its old-style cast.
    if (SSL_ctrl(library, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, server_name_.data()) != 1)
      return false;
    if (verify && SSL_set1_host(library, server_name_.c_str()) != 1) return false;
  } else if (server.address) {
    const std::span<const std::byte> bytes = server.address->bytes();
    const auto* const address = reinterpret_cast<const unsigned char*>(bytes.data());
    if (verify && X509_VERIFY_PARAM_set1_ip(SSL_get0_param(library), address, bytes.size()) != 1)
      return false;
  }
  session_key_ = session_key(server);
  if (const std::optional<openssl_session> session = credentials_->sessions.take(session_key_)) {
    if (SSL_SESSION_is_resumable(session->get()) == 1) SSL_set_session(library, session->get());
    ERR_clear_error();
  }
  return true;
}

ANYIO_NET_FN openssl_engine::~openssl_engine() {
  // Without this OpenSSL forgets the session of a connection that ended without close_notify.
  if (established_ && !broken_) SSL_set_shutdown(library_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
}

ANYIO_NET_FN tls_status openssl_engine::handshake() {
  ERR_clear_error();
  const std::size_t before = pipe_.tx.size();
  SSL* const library = library_.get();
  const int returned = SSL_do_handshake(library);
  if (returned != 1) return outcome(returned);
  if (std::exchange(established_, true)) return tls_status::ok;
  if (SSL_is_server(library) == 1) {
    // After the client's last message a server sends only tickets.
    if (SSL_version(library) == TLS1_3_VERSION) pipe_.may_wait = pipe_.tx.size() - before;
  } else if (SSL_session_reused(library) == 1 && SSL_version(library) == TLS1_2_VERSION) {
    credentials_->sessions.put(session_key_, openssl_session(SSL_get1_session(library)));
  }
  return tls_status::ok;
}

ANYIO_NET_FN tls_status openssl_engine::read(mutable_buffer into, std::size_t& n) {
  n = 0;
  const bool ended = pipe_.rx_eof || (SSL_get_shutdown(library_.get()) & SSL_RECEIVED_SHUTDOWN) != 0;
  if (pipe_.rx.empty() && !ended && SSL_has_pending(library_.get()) == 0) {
    pipe_.starved = true;  // OpenSSL would find the same, but takes longer
    return tls_status::want_input;
  }
  forget_openssl_errors();
  const int returned = SSL_read_ex(library_.get(), into.data(), into.size(), &n);
  return returned == 1 ? tls_status::ok : outcome(returned);
}

ANYIO_NET_FN tls_status openssl_engine::write(const_buffer data, std::size_t& n) {
  forget_openssl_errors();
  n = 0;
  const int returned = SSL_write_ex(library_.get(), data.data(), data.size(), &n);
  return returned == 1 ? tls_status::ok : outcome(returned);
}

ANYIO_NET_FN tls_status openssl_engine::close() {
  if (broken_) return tls_status::failed;
  if (!established_ || (SSL_get_shutdown(library_.get()) & SSL_SENT_SHUTDOWN) != 0) return tls_status::ok;
  ERR_clear_error();
  const int returned = SSL_shutdown(library_.get());
  return returned >= 0 ? tls_status::ok : outcome(returned);
}

/// The status after a call that did not succeed.
ANYIO_NET_FN tls_status openssl_engine::outcome(int returned) noexcept {
  switch (SSL_get_error(library_.get(), returned)) {
    case SSL_ERROR_ZERO_RETURN: return tls_status::closed;
    case SSL_ERROR_WANT_READ:
      return pipe_.rx_eof && pipe_.rx.empty() ? tls_status::truncated : tls_status::want_input;
    case SSL_ERROR_WANT_WRITE:
    case SSL_ERROR_WANT_X509_LOOKUP:
    case SSL_ERROR_WANT_ASYNC:
    case SSL_ERROR_WANT_ASYNC_JOB:
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
    case SSL_ERROR_WANT_RETRY_VERIFY: return tls_status::again;
    default:  // SSL_ERROR_SSL, and SSL_ERROR_SYSCALL with nothing in the queue
      if (const char* const reason = failure(); !std::exchange(broken_, true)) reason_ = reason;
      return tls_status::failed;
  }
}

/// The reason in the queue of errors, which is empty afterwards.
ANYIO_NET_FN const char* openssl_engine::failure() const noexcept {
  const unsigned long code = drain_openssl_errors();
  if (ERR_GET_LIB(code) != ERR_LIB_SSL) return openssl_words(code);
  const int reason = ERR_GET_REASON(code);
  if (reason >= SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255)
    return alert_reason(reason - SSL_AD_REASON_OFFSET);
  if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) return verify_reason(SSL_get_verify_result(library_.get()));
  if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) return tls_reason::none_shown;
  if (reason == SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC) return tls_reason::bad_record;
  if (reason == SSL_R_TOO_MANY_WARN_ALERTS) return tls_reason::many_warnings;
  const OSSL_HANDSHAKE_STATE state = SSL_get_state(library_.get());
  const bool nothing_came = state == TLS_ST_BEFORE || state == TLS_ST_CW_CLNT_HELLO;
  if (nothing_came && speaks_of_garbage(reason)) return tls_reason::not_tls;
  return openssl_words(code);
}

ANYIO_NET_FN tls_info openssl_engine::info() const {
  tls_info info;
  const SSL* const library = library_.get();
  info.version = SSL_get_version(library);
  if (const SSL_CIPHER* const cipher = SSL_get_current_cipher(library))
    info.cipher = SSL_CIPHER_standard_name(cipher);
  const unsigned char* protocol = nullptr;
  unsigned int protocol_size = 0;
  SSL_get0_alpn_selected(library, &protocol, &protocol_size);
  if (protocol_size != 0) info.alpn.assign(reinterpret_cast<const char*>(protocol), protocol_size);
  info.server_name = server_name_;
  if (const X509* const certificate = SSL_get0_peer_certificate(library)) {
    const int size = i2d_X509(certificate, nullptr);
    if (size > 0) {
      info.peer_certificate_der.resize(static_cast<std::size_t>(size));
      auto* out = reinterpret_cast<unsigned char*>(info.peer_certificate_der.data());
      i2d_X509(certificate, &out);
    }
  }
  info.server_side = SSL_is_server(library) == 1;
  info.resumed = SSL_session_reused(library) == 1;
  return info;
}

/// Called when a client has a session that it may resume. Returns 1 if it takes ownership.
ANYIO_NET_FN int openssl_engine::keep_session(SSL* connection, SSL_SESSION* session) noexcept {
  const openssl_engine& engine = of(connection);
  if (engine.session_key_.empty()) return 0;
  openssl_session kept(session);
  static_cast<void>(call_without_throwing(
      [&] { engine.credentials_->sessions.put(engine.session_key_, std::move(kept)); }));
  return 1;  // kept or freed: this function owns it in either case
}

/// Called when a server knows the name that the client asks for.
ANYIO_NET_FN int openssl_engine::choose_certificate(SSL* connection, int* alert, void*) noexcept {
  const char* const name = SSL_get_servername(connection, TLSEXT_NAMETYPE_host_name);
  if (name == nullptr || SSL_is_server(connection) == 0) return SSL_TLSEXT_ERR_OK;
  openssl_engine& engine = of(connection);
  if (!call_without_throwing([&] { engine.server_name_ = parse_server_name(name).name; })) {
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  const openssl_identity* const identity = engine.credentials_->further(engine.server_name_);
  if (identity == nullptr) return SSL_TLSEXT_ERR_OK;
  // Otherwise a main certificate with another kind of key could still be shown.
  SSL_certs_clear(connection);
  if (identity->show(connection)) return SSL_TLSEXT_ERR_OK;
  *alert = SSL_AD_INTERNAL_ERROR;
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/// Called when a server knows the protocols that the client supports.
ANYIO_NET_FN int openssl_engine::choose_protocol(SSL* connection, const unsigned char** chosen,
                                                 unsigned char* chosen_size, const unsigned char* offered,
                                                 unsigned int offered_size, void*) noexcept {
  std::span<const unsigned char> own = of(connection).credentials_->protocols_;
  for (;;) {
    const std::span<const unsigned char> protocol = take_protocol(own);
    if (protocol.empty()) return SSL_TLSEXT_ERR_ALERT_FATAL;  // no_application_protocol
    std::span<const unsigned char> theirs(offered, offered_size);
    for (;;) {
      const std::span<const unsigned char> candidate = take_protocol(theirs);
      if (candidate.empty()) break;
      if (!std::equal(protocol.begin(), protocol.end(), candidate.begin(), candidate.end())) continue;
      *chosen = protocol.data();
      *chosen_size = static_cast<unsigned char>(protocol.size());
      return SSL_TLSEXT_ERR_OK;
    }
  }
}

// == the context ==

ANYIO_NET_FN result<> openssl_credentials::set_up(const tls_material& material) {
  const auto refused = [] { return tls_failure("tls", openssl_words(drain_openssl_errors())); };
  library_.reset(SSL_CTX_new(TLS_method()));
  SSL_CTX* const library = library_.get();
  if (library == nullptr) return refused();
  SSL_CTX_set_mode(library, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_options(library, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  constexpr const char* suites = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:!AESCCM8:!PSK";
  if (SSL_CTX_set_cipher_list(library, suites) != 1 || !choose_groups(library)) return refused();
  const int least = material.min_version == tls_version::v1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
  if (SSL_CTX_set_min_proto_version(library, least) != 1) {
    ERR_clear_error();
    return error_access::with_reason(error(errc::tls, 0, "tls: min_version"), tls_reason::version_missing);
  }

  // A server stores no sessions, its tickets hold them; a client's sessions go to `sessions`.
  constexpr unsigned char session_context[] = "anyio_net";
  if (SSL_CTX_set_session_id_context(library, session_context, sizeof session_context) != 1) return refused();
  SSL_CTX_set_session_cache_mode(library, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(library, openssl_engine::keep_session);
  if (SSL_CTX_callback_ctrl(library, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB,
                            reinterpret_cast<void (*)()>(openssl_engine::choose_certificate)) != 1)
    return refused();

  X509_STORE* const store = SSL_CTX_get_cert_store(library);
  // A given authority is trusted even if the authority above it is not given.
  if (X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) != 1) return refused();
  if (material.ca.given()) {
    const result<std::vector<openssl_certificate>> authorities = read_certificates(material.ca);
    if (!authorities) return authorities.error();
    for (const openssl_certificate& authority : *authorities)
      if (X509_STORE_add_cert(store, authority.get()) != 1) return refused();
  }

  protocols_ = encode_protocols(material.alpn);
  if (!protocols_.empty()) {
    if (SSL_CTX_set_alpn_protos(library, protocols_.data(), static_cast<unsigned int>(protocols_.size())) !=
        0)
      return refused();
    SSL_CTX_set_alpn_select_cb(library, openssl_engine::choose_protocol, nullptr);
  }

  if (material.certificate.given()) {
    openssl_identity identity;
    if (result<> r = identity.read(material); !r) return r;
    ERR_clear_error();
    if (!identity.show(library)) return material.certificate.wrong(openssl_words(drain_openssl_errors()));
  }
  return {};
}

ANYIO_NET_FN void openssl_credentials::trust(std::string_view text) {
  X509_STORE* const store = SSL_CTX_get_cert_store(library_.get());
  for (;;) {
    const std::string_view block = take_pem_block(text, "CERTIFICATE");
    if (block.empty()) break;
    // A certificate that cannot be read is skipped.
    if (const openssl_certificate authority = read_certificate(block))
      X509_STORE_add_cert(store, authority.get());
  }
  ERR_clear_error();
}

ANYIO_NET_FN std::unique_ptr<tls_engine> openssl_credentials::make_engine(tls_pipe& pipe,
                                                                          tls_server_identity&& identity,
                                                                          bool server_side) {
  auto engine = std::make_unique<openssl_engine>(shared_from_this(), pipe);
  if (!engine->set_up(identity, server_side)) return nullptr;
  return engine;
}

ANYIO_NET_FN result<> openssl_credentials::read(openssl_identity& into, const tls_material& material) {
  if (result<> r = into.read(material); !r) return r;
  // A trial, so that a certificate that is too weak for OpenSSL is rejected now.
  ERR_clear_error();
  const openssl_ptr<SSL, SSL_free> trial(SSL_new(library_.get()));
  if (trial && into.show(trial.get())) return {};
  return material.certificate.wrong(openssl_words(drain_openssl_errors()));
}

}  // namespace detail

ANYIO_NET_FN result<std::shared_ptr<tls_context>> openssl_context(tls_config config) {
  return detail::openssl_credentials::make(config);
}

}}  // namespace anyio

#endif

// == loop/loop.ipp ================================================================================

// The turns of the loop, its end, and its dump.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN resource::resource(loop_core& core) : core_(core) { ++core.references_; }

ANYIO_NET_FN resource::~resource() {
  if (--core_.references_ == 0) [[unlikely]]
    ref<loop_core>::end(&core_);
}

ANYIO_NET_FN void resource::close() noexcept {
  if (!open_) return;
  open_ = false;
  shut();
  wake(read_side);
  wake(write_side);
}

ANYIO_NET_FN void resource::begin_closing() noexcept {
  if (closing_ || !open_) return;
  closing_ = true;
  wake(read_side);
  wake(write_side);
}

ANYIO_NET_FN void resource::cancel() noexcept {
  for (node* n : waiting_) {
    if (n == nullptr) continue;
    n->cancelled = true;
    core_.queue(*n);
  }
}

/// The mailboxes of the process, and the count of forks. Never destroyed, since a handle may be destroyed
/// after `main`.
struct mailboxes {
  [[nodiscard]] static mailboxes& instance() {
    static mailboxes& list = *new mailboxes;
    return list;
  }

#if !defined(ANYIO_NET_NO_THREADS)
  std::mutex mutex;
  link all;

  mailboxes() { at_fork(lock_all, unlock_all, in_child); }

  static void lock_all() {
    mailboxes& list = instance();
    list.mutex.lock();
    for (link* l = list.all.next; l != &list.all; l = l->next) static_cast<mailbox*>(l)->mutex.lock();
  }
  static void unlock_all() {
    mailboxes& list = instance();
    for (link* l = list.all.next; l != &list.all; l = l->next) static_cast<mailbox*>(l)->mutex.unlock();
    list.mutex.unlock();
  }
  static void in_child() {
    unlock_all();
    ++forks_so_far;
  }
#else
  mailboxes() {
    at_fork(nullptr, nullptr, [] { ++forks_so_far; });
  }
#endif
};

ANYIO_NET_COLD mailbox::mailbox() {
  [[maybe_unused]] mailboxes& list = mailboxes::instance();
#if !defined(ANYIO_NET_NO_THREADS)
  const std::lock_guard lock(list.mutex);
  list.all.insert_before(*this);
#endif
}

ANYIO_NET_COLD mailbox::~mailbox() {
#if !defined(ANYIO_NET_NO_THREADS)
  const std::lock_guard lock(mailboxes::instance().mutex);
  unlink();
#endif
}

ANYIO_NET_FN bool mailbox::post(posted_node& call) {
  if (offer(call)) return true;
  call.how->abandon(call);  // without the lock, since the callable's destructor may post
  return false;
}

ANYIO_NET_FN bool mailbox::offer(posted_node& call) {
#if !defined(ANYIO_NET_NO_THREADS)
  const std::lock_guard lock(mutex);
#endif
  if (system == nullptr) return false;
  const bool first = !calls.linked();
  calls.insert_before(call);
  // Under the lock, since the loop may end right after it. In a child that has inherited the loop, the poller
  // belongs to the parent and must not be used; `after_fork` will wake the loop.
  if (first && (forks_of_owner == forks_so_far || system->native_handle() < 0)) system->wake();
  return true;
}

ANYIO_NET_COLD loop_core::loop_core(std::unique_ptr<backend> system)
    : mail(std::make_shared<mailbox>()), system_(std::move(system)), lives_(*this) {
  if (system_ == nullptr) abort_with("loop", error(errc::os_error, 0, "cannot create a poller"));
  mail->system = system_.get();
  turn_milliseconds_ = static_cast<std::uint32_t>(now().time_since_epoch() / std::chrono::milliseconds(1));
}

ANYIO_NET_FN loop_core& loop_core::current() {
  loop_core* core = current_or_null();
  if (core == nullptr) abort_with("loop", error(errc::invalid_argument, 0, "this thread has no loop"));
  return *core;
}

ANYIO_NET_FN mutable_buffer loop_core::buffer() {
  if (buffer_ == nullptr || buffer_.use_count() != 1) buffer_.reset(new room);
  buffer_lent_ = end_of_share_;
  await_budget_ = await_budget_of_node;  // a task that receives a view of it begins at once
  return mutable_buffer(buffer_->bytes, buffer_size);
}

ANYIO_NET_FN std::uint64_t loop_core::enter(registration& r, resource& owner) {
  if (free_slot_ == no_slot) {
    slots_.push_back(slot{nullptr, 0, {no_slot}});
    free_slot_ = static_cast<std::uint32_t>(slots_.size() - 1);
  }
  r.index = free_slot_;
  slot& s = slots_[r.index];
  free_slot_ = s.next_free;
  s.fd = r.fd;
  s.owner = &owner;
  return std::uint64_t{s.generation} << 32 | r.index;
}

ANYIO_NET_FN void loop_core::leave(registration& r) noexcept {
  slot& s = slots_[r.index];
  s.owner = nullptr;
  ++s.generation;  // events that are not dispatched yet carry the old generation
  s.next_free = free_slot_;
  free_slot_ = r.index;
}

ANYIO_NET_FN bool loop_core::watches(int fd) const noexcept {
  return std::any_of(slots_.begin(), slots_.end(),
                     [fd](const slot& s) { return s.owner != nullptr && s.fd == fd; });
}

ANYIO_NET_FN int loop_core::watch(registration& r, resource& owner) {
  struct place {
    loop_core& core;
    registration& r;
    bool kept = false;
    ~place() {
      if (!kept) core.leave(r);
    }
  };
  const std::uint64_t token = enter(r, owner);
  place entered{*this, r};  // a backend may throw
  const int status = system_->watch(r.fd, token);
  entered.kept = status >= 0;
  return status;
}

ANYIO_NET_FN void loop_core::forget(registration& r, bool close_it) noexcept {
  if (r.fd < 0) return;
  leave(r);
  unwatch(r.fd);
  const int fd = std::exchange(r.fd, -1);
  if (!close_it) return;
  system_->close(fd);
  link waiting;
  waiting.splice(starved_);
  while (waiting.linked()) {
    auto& s = static_cast<starved&>(*waiting.next);
    s.unlink();
    s.waiter->wake(read_side);
  }
}

ANYIO_NET_COLD void loop_core::wait_for_memory(starved& s, resource& waiter) noexcept {
  s.waiter = &waiter;
  s.unlink();
  shortage_.waiting.insert_before(s);
  if (shortage_.pause.armed()) return;
  const bool failed_again = shortage_.ended == turn_milliseconds_;
  shortage_.milliseconds = failed_again ? std::clamp(shortage_.milliseconds * 2, 1u, 256u) : 1;
  arm(shortage_.pause, add(now(), std::chrono::milliseconds(shortage_.milliseconds)), shortage_);
}

ANYIO_NET_COLD void loop_core::shortage::run(node& n) {
  auto& self = static_cast<shortage&>(n);
  self.ended = self.loop.turn_milliseconds_;
  link waiting;
  waiting.splice(self.waiting);
  while (waiting.linked()) {
    auto& s = static_cast<starved&>(*waiting.next);
    s.unlink();
    s.waiter->wake(read_side);
    s.waiter->wake(write_side);
  }
}

ANYIO_NET_FN void loop_core::dispatch(const poll_event& event) noexcept {
  const auto index = static_cast<std::uint32_t>(event.token);
  if (index >= slots_.size()) return;
  const slot& s = slots_[index];
  if (s.owner == nullptr || s.generation != static_cast<std::uint32_t>(event.token >> 32)) return;
  s.owner->ready(event.ready);
}

ANYIO_NET_FN void loop_core::take_mail() {
  link calls;
  {
#if !defined(ANYIO_NET_NO_THREADS)
    const std::lock_guard lock(mail->mutex);
#endif
    calls.splice(mail->calls);
  }
  while (calls.linked()) {
    auto& call = static_cast<posted_node&>(*calls.next);
    call.unlink();
    post(call);
  }
}

ANYIO_NET_FN void loop_core::post(posted_node& call) noexcept {
  call.begin(*this, *call.how);
  queue(call);
}

ANYIO_NET_FN void loop_core::poll(duration at_most) {
  if (inherited()) [[unlikely]]  // the wait would take the parent's events
    abort_with("loop", error(errc::invalid_argument, 0,
                             "a forked child must call after_fork() before it runs the loop"));
  poll_event events[512];
  const int count = system_->wait(events, at_most == duration::max() ? duration(-1) : at_most);
  const time_point time = system_->now();
  turn_milliseconds_ = static_cast<std::uint32_t>(time.time_since_epoch() / std::chrono::milliseconds(1));
  turn_began_ = time;
  work_ = 0;
  next_look_ = work_between_looks;
  for (int i = 0; i < count; ++i) dispatch(events[i]);
  // Due timers are queued after the ready nodes, so that an available result wins over a timeout. The number
  // of timers per turn is limited, so that the nodes that are ready next do not wait for all timers.
  for (int i = 0; i < timers_of_turn; ++i) {
    node* const due = timers_.pop_due(time);
    if (due == nullptr) break;
    queue(*due);
  }
  take_mail();
  if (after_wait != nullptr) after_wait(*this);
}

ANYIO_NET_FN void loop_core::leave_round() noexcept {
  round_.splice(ready_);
  ready_.splice(round_);
}

/// Called when the work reaches `next_look_`. Only the library's work is counted; the clock also covers the
/// time of callables and coroutines. A program that is slow overall, for instance under a debugger, still
/// gets half a turn of counted work if no timer is due.
ANYIO_NET_FN bool loop_core::turn_is_over() {
  constexpr std::chrono::milliseconds enough(1), most(4);
  if (stopped_ || work_ >= work_of_turn) return true;
  const time_point time = now();
  const duration ran = time - turn_began_;
  const timer* first = timers_.first();
  const bool due = first != nullptr && first->deadline() <= time;
  if (due ? ran >= enough : ran >= most && work_ >= work_of_turn / 2) {
    work_ = next_look_ = work_of_turn;
    return true;
  }
  next_look_ = std::min(work_ + work_between_looks, work_of_turn);
  return false;
}

ANYIO_NET_FN bool loop_core::run_ready(const bool* done) {
  struct round_scope {
    loop_core& core;
    explicit round_scope(loop_core& c) : core(c) { core.round_.splice(core.ready_); }
    ~round_scope() {
      core.leave_round();
    }  // nodes that did not run, because of stop() or an exception, stay in front
  };
  bool ran = false;
  for (int round = 0; round < rounds_of_turn && ready_.linked(); ++round) {
    const round_scope scope(*this);
    while (round_.linked()) {
      if ((work_ >= next_look_ && turn_is_over()) || (done != nullptr && *done)) return ran;
      auto& n = static_cast<node&>(*round_.next);
      n.unlink();
      work_ += work_of_completion;
      end_of_share_ = work_ + share_of_node;
      await_budget_ = await_budget_of_node;
      ran = true;
      n.how->run(n);
    }
  }
  return ran;
}

struct loop_core::running_scope {
  const ref<loop_core> core;
  claim runs;

  explicit running_scope(loop_core& c) : core(&c), runs(c) {
    ANYIO_NET_ASSERT(!c.running_ && "a loop cannot be run from inside itself");
    if (c.running_) refuse_to_run();
    c.running_ = true;
    c.stopped_ = false;
  }
  running_scope(const running_scope&) = delete;
  running_scope& operator=(const running_scope&) = delete;
  ~running_scope() { core->running_ = false; }
};

[[noreturn]] ANYIO_NET_COLD void loop_core::refuse_to_run() {
  const error e = error_access::with_reason(error(errc::invalid_argument, 0, "run"),
                                            "a loop cannot be run from inside itself");
#if ANYIO_NET_EXCEPTIONS
  throw_error(e);
#else
  abort_with("loop", e);
#endif
}

ANYIO_NET_FN loop_core::waiting_scope::waiting_scope(loop_core& core, const node* runner) noexcept
    : core_(&core),
      before_(std::exchange(core.waits_, this)),
      runner_before_(std::exchange(core.runner_, runner)) {
  for (const claim* c = latest; c != nullptr; c = c->earlier) {
    loop_core& outer = *c->core;
    if (&outer == &core || !outer.running_ || outer.blocked_by_ != nullptr) continue;
    outer.blocked_by_ = this;
    outer.end_of_share_ = outer.work_;  // an attempt that cannot wait after it might do half of its work
  }
}

ANYIO_NET_FN loop_core::waiting_scope::~waiting_scope() {
  core_->waits_ = before_;
  core_->runner_ = runner_before_;
  for (const claim* c = latest; c != nullptr; c = c->earlier)
    if (c->core->blocked_by_ == this) c->core->blocked_by_ = nullptr;
}

ANYIO_NET_COLD loop_core* loop_core::stranding(const node* root) const noexcept {
  for (const claim* c = latest; c != nullptr && c->core != this; c = c->earlier) {
    const loop_core& inner = *c->core;
    if (inner.waits_ == nullptr) continue;
    const bool until_idle = inner.runner_ == nullptr;
    if (root == nullptr || (until_idle ? root->core == &inner : root == inner.runner_)) return c->core;
  }
  return nullptr;
}

ANYIO_NET_FN bool loop_core::turn(duration at_most) {
  const running_scope scope(*this);
  bool ran = run_ready(nullptr);
  if (stopped_) return ran;
  const duration limit = ran || at_most < duration::zero() ? duration::zero() : at_most;
  poll(std::min(limit, time_until_next()));
  if (run_ready(nullptr)) ran = true;
  return ran;
}

ANYIO_NET_FN void loop_core::step() {
  const running_scope scope(*this);
  if (!ready_.linked()) poll(time_until_next());
  next_look_ = work_of_turn;
  work_ = work_of_turn - 1;  // so that only one node runs
  run_ready(nullptr);
}

ANYIO_NET_FN void loop_core::run(const bool* done) {
  const running_scope scope(*this);
  std::optional<waiting_scope> until_idle;
  if (done == nullptr) until_idle.emplace(*this);
  for (;;) {
    run_ready(done);
    if (stopped_ || (done != nullptr && *done) || idle()) return;
    poll(time_until_next());
  }
}

ANYIO_NET_FN bool loop_core::idle() const noexcept {
  if (pending_ != 0) return false;
#if !defined(ANYIO_NET_NO_THREADS)
  const std::lock_guard lock(mail->mutex);
#endif
  return !mail->calls.linked();
}

ANYIO_NET_FN duration loop_core::time_until_next() {
  if (ready_.linked() || round_.linked()) return duration::zero();
  const timer* first = timers_.first();
  if (first == nullptr) return duration::max();
  const time_point time = now();
  return first->deadline() > time ? first->deadline() - time : duration::zero();
}

ANYIO_NET_COLD void loop_core::after_fork() {
  if (!inherited()) return;
  if (const int status = system_->after_fork(); status < 0)
    abort_with("after_fork", error(errc::os_error, -status, "poller"));
  mail->forks_of_owner = forks_so_far;
  signal_service* const signals = system_->signals() != nullptr ? system_->signals() : own_signals.get();
  if (signals != nullptr) signals->wake_by(system_->wake_descriptor());
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    resource* const owner = slots_[i].owner;
    if (owner == nullptr) continue;
    const int fd = slots_[i].fd;
    int status = 0;
    if (fd >= 0 && !owner->entered_by_waits)
      status = system_->watch(fd, std::uint64_t{slots_[i].generation} << 32 | i);
    if (status < 0 && status != -EPERM) {  // EPERM: the device is always ready
      ref<resource>(owner)->close();
    } else {
      owner->ready(ready_read | ready_write);
    }
  }
  system_->wake();  // so that the loop checks for posted calls and signals
}

ANYIO_NET_COLD void loop_core::reserve(std::size_t descriptors, std::size_t started_operations) {
  // Either all of it is reserved or nothing.
  recycler::reservation places(recycler::descriptors, descriptors);
  recycler::reservation blocks(recycler::operations, started_operations);
  std::shared_ptr<room> new_buffer(buffer_);
  if (new_buffer == nullptr) new_buffer.reset(new room);
  slots_.reserve(slots_.size() + descriptors);
  buffer_ = std::move(new_buffer);
  places.put_aside();
  blocks.put_aside();
}

ANYIO_NET_COLD std::string loop_core::dump() {
  std::string text;
  const auto time = static_cast<std::uint32_t>(now().time_since_epoch() / std::chrono::milliseconds(1));
  for (const link* list : {&round_, &ready_, &parked_}) {
    for (const link* l = list->next; l != list; l = l->next) {
      auto& n = const_cast<node&>(static_cast<const node&>(*l));
      const description d = n.how->describe(n);
      const std::uint32_t age = time - n.since;
      char line[128];
      const char* state = list != &parked_ ? ", ready" : "";
      if (d.fd >= 0) {
        std::snprintf(line, sizeof line, "fd %d: %s, %u.%03u s%s\n", d.fd, d.operation, age / 1000,
                      age % 1000, state);
      } else {
        std::snprintf(line, sizeof line, "-: %s, %u.%03u s%s\n", d.operation, age / 1000, age % 1000, state);
      }
      text += line;
    }
  }
  return text;
}

ANYIO_NET_COLD void loop_core::end() {
  const ref<loop_core> self(this);
  {
    link calls;
    {
#if !defined(ANYIO_NET_NO_THREADS)
      const std::lock_guard lock(mail->mutex);
#endif
      mail->system = nullptr;
      calls.splice(mail->calls);
    }
    while (calls.linked()) {
      auto& call = static_cast<posted_node&>(*calls.next);
      call.how->abandon(call);
    }
  }
  stop();  // has an effect only if the loop runs
  leave_round();
  while (ready_.linked() || parked_.linked()) {
    auto& n = static_cast<node&>(*(ready_.linked() ? ready_ : parked_).next);
    n.how->abandon(n);
  }
  for (std::size_t i = 0; i < slots_.size(); ++i)
    if (resource* owner = slots_[i].owner) ref<resource>(owner)->close();
  while (timers_.first() != nullptr) static_cast<void>(timers_.pop_due(time_point::max()));
  own_signals.reset();
  system_.reset();
  lives_.withdraw();
  object = nullptr;
}

}  // namespace detail

ANYIO_NET_COLD loop::loop() : loop(system_backend()) {}

ANYIO_NET_COLD loop::loop(std::unique_ptr<backend> system) : core_(new detail::loop_core(std::move(system))) {
  core_->object = this;
}

ANYIO_NET_COLD loop::~loop() { core_->end(); }

ANYIO_NET_FN loop& loop::current() { return *detail::loop_core::current().object; }

ANYIO_NET_FN time_point now() { return detail::loop_core::current().now(); }

}}  // namespace anyio

// == loop/timers.ipp ==============================================================================

// The two-pass melding of the pairing heap.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN timer* timer_heap::meld_all(timer* first) noexcept {
  timer* pairs = nullptr;  // melded pairs, the last one first, linked by sibling_
  while (first != nullptr) {
    timer* a = first;
    timer* b = a->sibling_;
    first = b ? b->sibling_ : nullptr;
    a->sibling_ = a->previous_ = nullptr;
    if (b) {
      b->sibling_ = b->previous_ = nullptr;
      a = meld(a, b);
    }
    a->sibling_ = pairs;
    pairs = a;
  }
  timer* root = nullptr;
  while (pairs != nullptr) {
    timer* next = pairs->sibling_;
    pairs->sibling_ = nullptr;
    root = root ? meld(root, pairs) : pairs;
    pairs = next;
  }
  return root;
}

ANYIO_NET_FN void timer_heap::remove(timer& t) noexcept {
  timer* rest = meld_all(t.child_);
  if (&t == root_) {
    root_ = rest;
  } else {
    if (t.previous_->child_ == &t) {
      t.previous_->child_ = t.sibling_;
    } else {
      t.previous_->sibling_ = t.sibling_;
    }
    if (t.sibling_) t.sibling_->previous_ = t.previous_;
    if (rest) root_ = meld(root_, rest);
  }
  t.heap_ = nullptr;
  t.child_ = t.sibling_ = t.previous_ = nullptr;
}

}}}  // namespace anyio::detail

// == operation/coroutine.ipp ======================================================================

// The driver of coroutines.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN void drive(step s) {
  while (s.what != step::nothing) {
    promise_base& p = *s.promise;
    switch (s.what) {
      case step::nothing: break;
      case step::resume: {
        promise_base* const before = std::exchange(active, &p);
        next_step = {};
        p.handle.resume();
        active = before;
        s = std::exchange(next_step, {});
        break;
      }
      case step::deliver:
        if (p.how == nullptr) return;  // the loop has ended, and the waiter with it
        s = static_cast<const coroutine_face*>(p.how)->deliver(p);
        break;
      case step::raise: {
        if (p.how == nullptr) return;
        const auto& how = *static_cast<const coroutine_face*>(p.how);
        const waiter_storage waiter = p.waiter;
        end_frame(p);
        s = how.fail(waiter, s.failure);
        break;
      }
    }
  }
}

ANYIO_NET_FN void destroy_chain(promise_base& whole) noexcept {
  promise_base* p = &whole;
  while (p->inner != nullptr) p = p->inner;
  while (p != &whole) {
    promise_base* const next = p->outer;
    *p->owner = nullptr;
    p->handle.destroy();
    p = next;
  }
  whole.handle.destroy();
}

ANYIO_NET_FN void end_frame(promise_base& p) noexcept {
  // The destructors of the frame's locals may ask what runs now: they count as the inside of the coroutine.
  // Another node stands for it, since the promise is destroyed before the parameters are.
  const stand_in inside(*p.how, p.waiter);
  *p.owner = nullptr;
  p.handle.destroy();
}

ANYIO_NET_COLD bool is_stranded(node& n) {
  node* root = &n;
  while (root != nullptr && root->how != nullptr) {
    node* const owner = root->how->owner(*root);
    if (owner == nullptr) break;
    root = owner == unknown_owner() ? nullptr : owner;
  }
  loop_core* const waits = n.core->stranding(root);
  ANYIO_NET_ASSERT(waits == nullptr && "the operation's loop is blocked until this operation completes");
  if (waits == nullptr) return false;
  const face& how = *n.how;
  n.retire();
  n.begin(*waits, how);
  n.early = errc::invalid_argument;
  return true;
}

ANYIO_NET_FN bool is_active(const node& whole, bool if_unknown) noexcept {
  for (node* n = active; n != nullptr; n = n->how != nullptr ? n->how->owner(*n) : nullptr) {
    if (n == &whole) return true;
    if (n == unknown_owner()) return if_unknown;
  }
  return false;
}

}}}  // namespace anyio::detail

// == operation/descriptors.ipp ====================================================================

// The one entry in the poller that a reader and a writer share.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN raw_descriptor* raw_descriptor::find(loop_core& core, int fd) noexcept {
  for (link* l = core.raw_descriptors.next; l != &core.raw_descriptors; l = l->next) {
    auto& raw = static_cast<raw_descriptor&>(*l);
    if (raw.descriptor() == fd) return &raw;
  }
  return nullptr;
}

ANYIO_NET_FN int raw_descriptor::arm() {
  const bool again = entered_;
  if (!again) token_ = core().enter(registration_, *this);
  entered_ = true;
  std::uint32_t interest = 0;
  if (waiting(read_side) != nullptr) interest |= ready_read;
  if (waiting(write_side) != nullptr) interest |= ready_write;
  return core().system().watch_once(registration_.fd, interest, token_, again);
}

ANYIO_NET_FN void raw_descriptor::left(side s) noexcept {
  set_waiting(s, nullptr);
  if (!open()) return;
  node* other = waiting(s == read_side ? write_side : read_side);
  if (other == nullptr) return close();
  // The waiter that left may have used up the event. If arming fails, the other waiter gets the error.
  if (core().inherited()) return;
  if (entered_ && arm() < 0) core().queue(*other);
}

ANYIO_NET_FN void raw_descriptor::shut() noexcept {
  unlink();
  if (!std::exchange(entered_, false)) return;
  core().leave(registration_);
  // If the owner closed it without `notify_closing`, a stream of this loop may use the number now.
  if (!core().watches(registration_.fd)) core().unwatch(registration_.fd);
}

}  // namespace detail

ANYIO_NET_FN wait_operation& wait_operation::operator=(wait_operation&& other) noexcept {
  if (this == &other) return *this;
  leave();
  fd_ = other.fd_;
  side_ = other.side_;
  operation::operator=(std::move(other));
  return *this;
}

ANYIO_NET_FN bool wait_operation::busy(detail::loop_core& loop) const noexcept {
  if (const detail::raw_descriptor* raw = detail::raw_descriptor::find(loop, fd_)) {
    return raw->waiting(side_) != nullptr;
  }
  return loop.watches(fd_);
}

ANYIO_NET_FN void wait_operation::join(detail::loop_core& loop) {
  detail::raw_descriptor* raw = detail::raw_descriptor::find(loop, fd_);
  place_ = detail::ref(raw != nullptr ? raw : new detail::raw_descriptor(loop, fd_));
  place_->set_waiting(side_, this);
}

ANYIO_NET_FN void wait_operation::leave() noexcept {
  if (!place_) return;
  place_->left(side_);
  place_ = {};
}

ANYIO_NET_FN errc wait_operation::enter() {
  if (place_) return errc::ok;
  if (busy(*core)) return errc::busy_resource;
  join(*core);
  return errc::ok;
}

ANYIO_NET_FN bool wait_operation::attempt(result<void>& out) {
  const auto fail = [&](errc code, int os_error = 0) {
    out = error(code, os_error, operation_name());
    return true;
  };
  detail::loop_core& loop = core != nullptr ? *core : home();
  if (place_ ? !place_->open() : busy(loop))
    return fail(place_ ? errc::closed_resource : errc::busy_resource);

  const bool reads = side_ == detail::read_side;
  const auto wanted =
      reads ? detail::ready_read | detail::ready_end : detail::ready_write | detail::ready_end;
  int status = loop.system().poll_now(fd_, reads ? detail::ready_read : detail::ready_write);
  if (status >= 0 && (static_cast<unsigned>(status) & wanted) == 0) {
    if (!place_) join(loop);
    status = place_->arm();
    if (status >= 0) return false;
    if (!pending()) leave();
  }
  // A descriptor that the poller cannot watch, such as a regular file with epoll, is always ready.
  if (status >= 0 || status == -EPERM) {
    out = result<void>();
    return true;
  }
  return fail(status == -EOPNOTSUPP ? errc::not_supported : errc::os_error, -status);
}

ANYIO_NET_FN void notify_closing(int fd) {
  detail::loop_core* loop = detail::loop_core::current_or_null();
  if (loop == nullptr) return;
  if (detail::raw_descriptor* raw = detail::raw_descriptor::find(*loop, fd)) raw->close();
}

}}  // namespace anyio

// == operation/signals.ipp ========================================================================

// Passing recorded signals to the receivers.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The signal service of the loop, made when it is first needed.
inline signal_service& signals_of(loop_core& core) {
  if (signal_service* own = core.system().signals()) return *own;
  if (core.own_signals == nullptr) core.own_signals = system_signals(core.system().wake_descriptor());
  return *core.own_signals;
}

ANYIO_NET_FN signal_resource::signal_resource(loop_core& core) : resource(core) {
  distribute(core);                                     // signals from before are not for this receiver
  static_cast<void>(core.enter(registration_, *this));  // so that it is closed with the loop
  core.signal_receivers.insert_before(*this);
  core.after_wait = distribute;
}

ANYIO_NET_FN int signal_resource::add(int number) {
  if (number < 1 || number > highest) return -EINVAL;
  const std::uint64_t bit = std::uint64_t{1} << (number - 1);
  if ((named_ & bit) != 0) return 0;
  const int status = signals_of(core()).catch_signal(number);
  if (status >= 0) named_ |= bit;
  return status;
}

ANYIO_NET_FN int signal_resource::take() {
  if (came_ == 0) distribute(core());
  if (came_ == 0) return 0;
  const int index = std::countr_zero(came_);
  came_ &= came_ - 1;
  return index + 1;
}

ANYIO_NET_FN void signal_resource::distribute(loop_core& core) {
  const link& all = core.signal_receivers;
  std::uint64_t named = 0;
  for (link* l = all.next; l != &all; l = l->next) named |= static_cast<const signal_resource&>(*l).named_;
  std::uint64_t came = 0;
  for (std::uint64_t rest = named; rest != 0; rest &= rest - 1) {
    if (signals_of(core).take_signal(std::countr_zero(rest) + 1)) came |= rest & (~rest + 1);
  }
  if (came == 0) return;
  for (link* l = all.next; l != &all; l = l->next) {
    auto& receiver = static_cast<signal_resource&>(*l);
    receiver.came_ |= came & receiver.named_;
    if (receiver.came_ != 0) receiver.wake(read_side);
  }
}

ANYIO_NET_FN void signal_resource::shut() noexcept {
  unlink();
  if (!core().signal_receivers.linked()) core().after_wait = nullptr;
  for (std::uint64_t rest = named_; rest != 0; rest &= rest - 1) {
    signals_of(core()).release_signal(std::countr_zero(rest) + 1);
  }
  core().leave(registration_);
}

}  // namespace detail

ANYIO_NET_FN signal_receiver& signal_receiver::operator=(signal_receiver&& other) noexcept {
  if (this == &other) return *this;
  close();
  resource_ = std::move(other.resource_);
  return *this;
}

ANYIO_NET_FN result<signal_receiver> signal_receiver::open_all(std::span<const int> numbers) {
  detail::ref<detail::signal_resource> made(new detail::signal_resource(detail::loop_core::current()));
  for (const int number : numbers) {
    const int status = made->add(number);
    if (status < 0)
      return error(status == -EINVAL ? errc::invalid_argument : errc::os_error, -status, "signal");
  }
  return signal_receiver(std::move(made));
}

}}  // namespace anyio

// == operation/task_group.ipp =====================================================================

// How children begin and end.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN void group_child::begin_soon() {
  begin(loop_core::current(), face_of_child);
  core->queue(*this);
}

ANYIO_NET_FN node* group_child::owner(node& n) {
  const task_group& group = static_cast<group_child&>(n).group_;
  if (group.sink_ != nullptr) return group.sink_->whole();
  return group.place_.linked() ? group.host_ : nullptr;
}

ANYIO_NET_FN void group_child::completed(result<void>&& outcome) {
  group_.child_completed(*this, std::move(outcome));
}

}  // namespace detail

ANYIO_NET_FN task_group::task_group() : host_(detail::active) {
  if (host_ != nullptr) host_->scopes.insert_before(place_);
}

ANYIO_NET_FN void task_group::add(detail::group_child* child) {
  children_.insert_before(child->place());
  child->begin_soon();
  if (size_++ == 0) loop_ = detail::ref(child->core);
}

/// Destroys the children except those to keep. It removes them from the group first, since the end of a child
/// may destroy the group itself, as in a session that only its children keep alive.
ANYIO_NET_FN void task_group::end_children(bool (*keep)(task_group&, detail::group_child&)) noexcept {
  detail::link ending;
  for (detail::link* l = children_.next; l != &children_;) {
    detail::group_child& child = detail::group_child::at(*l);
    l = l->next;
    if (keep(*this, child)) continue;
    child.place().unlink();
    ending.insert_before(child.place());
    one_less();
  }
  while (ending.linked()) {
    detail::group_child& child = detail::group_child::at(*ending.next);
    child.place().unlink();
    delete &child;
  }
}

ANYIO_NET_FN void task_group::child_completed(detail::group_child& child, result<void>&& outcome) {
  child.place().unlink();                                        // so that `cancel` does not destroy it
  const std::unique_ptr<detail::group_child> ends_last(&child);  // its end may destroy the group
  if (sink_ != nullptr) {
    one_less();
    return sink_->child_ended(std::move(outcome));
  }
  // An error of a child that was told to end is ignored, unless it is a foreign exception.
  const bool counts = !child.doomed || detail::result_access::is_foreign(outcome);
  const bool fails = !outcome.has_value() && counts && failure_.has_value();
  one_less();
  if (!fails) return;
  failure_ = std::move(outcome);
  cancel();
}

ANYIO_NET_FN void task_group::cancel() noexcept {
  end_children([](task_group& group, detail::group_child& child) {
    if (!child.doomed && !child.may_run_now()) return false;
    child.doomed = true;
    reaper& ends = group.reaper_;
    if (!ends.pending()) {
      ends.group = &group;
      ends.begin(detail::loop_core::current(), reaper::face_of_reaper);
      ends.core->queue(ends);
    }
    return true;
  });
}

ANYIO_NET_FN void task_group::end_doomed() noexcept {
  end_children([](task_group&, detail::group_child& child) { return !child.doomed; });
}

ANYIO_NET_FN task_group::~task_group() {
  while (children_.linked()) {
    end_children([](task_group&, detail::group_child& child) {
      ANYIO_NET_ASSERT(!child.runs_now() && "a task group cannot be destroyed by its own child");
      static_cast<void>(child);
      return false;
    });
  }
}

}}  // namespace anyio

// == operation/threads.ipp ========================================================================

// The helper threads, and how a job reaches one and comes back.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN int helper_job::begin(loop_core& loop, node& waiter) {
#if !defined(ANYIO_NET_NO_THREADS)
  if (threads_of(loop.system()).uses_threads()) {
    mail_ = loop.mail;
    waiter_ = &waiter;
    stage_ = stage::under_way;
    const int status = helper_pool::instance().submit(loop.system(), *this);
    if (status < 0) stage_ = stage::idle;
    return status;
  }
#endif
  turns_ = threads_of(loop.system()).turns_before_call();
  if (turns_ == 0) {
    work_(*this);
    stage_ = stage::over;
    return 0;
  }
  acquire();
  waiter_ = &waiter;
  stage_ = stage::under_way;
  node::begin(loop, face_in_place);
  loop.park(*this);
  loop.arm(turn_, loop.now(), *this);
  return 0;
}

ANYIO_NET_FN void helper_job::run_in_place(node& n) {
  auto& job = static_cast<helper_job&>(n);
  if (--job.turns_ != 0) {
    job.core->park(job);
    return job.core->arm(job.turn_, job.core->now(), job);
  }
  job.work_(job);
  run(job);
}

ANYIO_NET_FN bool helper_job::withdraw() noexcept {
  waiter_ = nullptr;
  if (turns_ != 0) {
    turns_ = 0;
    turn_.cancel();
    retire();
    how = &face_of_job;
    release();
    stage_ = stage::idle;
    return true;
  }
#if !defined(ANYIO_NET_NO_THREADS)
  if (stage_ == stage::lost) return false;
  if (stage_ == stage::under_way) {
    if (!helper_pool::instance().take_back(*this)) return false;
    release();
  }
#else
  if (stage_ == stage::under_way) return false;
#endif
  stage_ = stage::idle;
  return true;
}

ANYIO_NET_FN void helper_job::release() noexcept {
  if (--owners_ == 0) delete this;
}

/// Runs on the loop's thread.
ANYIO_NET_FN void helper_job::run(node& n) {
  auto& job = static_cast<helper_job&>(n);
  job.retire();
  job.how = &face_of_job;
  job.stage_ = std::exchange(job.next_stage_, stage::over);
  if (node* waiter = std::exchange(job.waiter_, nullptr); waiter != nullptr && waiter->pending()) {
    waiter->core->queue(*waiter);
  }
  job.release();
}

/// Runs when the loop ends or, on a helper, if the loop is gone already.
ANYIO_NET_FN void helper_job::abandon(node& n) {
  auto& job = static_cast<helper_job&>(n);
  if (job.how == &face_in_place) job.turns_ = 0;  // the owner of another job may be reading it
  job.retire();
  job.release();
}

#if !defined(ANYIO_NET_NO_THREADS)

ANYIO_NET_FN helper_pool& helper_pool::instance() {
  static helper_pool& pool = *new helper_pool;
  return pool;
}

ANYIO_NET_COLD helper_pool::helper_pool() {
  at_fork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); }, part_from_parent);
}

ANYIO_NET_COLD void helper_pool::give_back(helper_job& job, helper_job::stage then) {
  job.unlink();
  job.queued_ = false;
  job.next_stage_ = then;
  static_cast<void>(job.mail_->offer(job));
}

ANYIO_NET_COLD void helper_pool::part_from_parent() {
  helper_pool& pool = instance();
  pool.helpers_ = 0;
  while (pool.queue_.linked())
    give_back(static_cast<helper_job&>(*pool.queue_.next), helper_job::stage::idle);
  while (pool.performed_.linked()) {
    auto& job = static_cast<helper_job&>(*pool.performed_.next);
    job.acquire();  // never destroyed: the helper was in the middle of the call
    give_back(job, helper_job::stage::lost);
  }
  pool.mutex_.unlock();
}

ANYIO_NET_FN int helper_pool::submit(backend& system, helper_job& job) {
  const std::lock_guard lock(mutex_);
  // Under the lock, so that no other call relies on a helper that fails to start.
  if (helpers_ < most_helpers) {
    const int status = threads_of(system).start_thread([](void*) { serve(); }, nullptr);
    if (status == 0) {
      ++helpers_;
    } else if (helpers_ == 0) {
      return status;
    }
  }
  job.acquire();
  job.queued_ = true;
  queue_.insert_before(job);
  return 0;
}

ANYIO_NET_FN bool helper_pool::take_back(helper_job& job) noexcept {
  const std::lock_guard lock(mutex_);
  if (!std::exchange(job.queued_, false)) return false;
  job.unlink();
  return true;
}

ANYIO_NET_FN void helper_pool::serve() {
  helper_pool& pool = instance();
  const std::uint32_t forks = forks_so_far;
  std::unique_lock lock(pool.mutex_);
  while (pool.queue_.linked()) {
    auto& job = static_cast<helper_job&>(*pool.queue_.next);
    job.unlink();
    job.queued_ = false;
    pool.performed_.insert_before(job);
    lock.unlock();
    job.work_(job);
    if (forks != forks_so_far) return;  // the call has forked, and this is the child
    lock.lock();
    job.unlink();
    // Under the lock, so that a fork finds the job in one place. The job may be gone before `offer` returns.
    const std::shared_ptr<mailbox> mail = job.mail_;
    if (mail->offer(job)) continue;
    lock.unlock();
    job.how->abandon(job);
    lock.lock();
  }
  --pool.helpers_;
}

#endif

}}}  // namespace anyio::detail

// == stream/buffered.ipp ==========================================================================

// Reading ahead, and taking bytes from the buffer.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

// --- the stream's resource

ANYIO_NET_FN buffered_resource::buffered_resource(ref<stream_resource> inner, byte_stream& object,
                                                  std::unique_ptr<byte_stream> owned,
                                                  std::unique_ptr<fd_keeper> fds) noexcept
    : stream_resource(inner->core()),
      keeper(std::move(fds)),
      inner_(std::move(inner)),
      object_(object),
      owned_(std::move(owned)),
      relays_{{*this, read_side}, {*this, write_side}} {
  exhausted[read_side] = exhausted[write_side] = true;  // see `relay::enter`
}

ANYIO_NET_FN buffered_resource::~buffered_resource() = default;

/// Calls a verb of the inner stream, and waits there if the verb has to wait.
template <class T, class Verb>
progress buffered_resource::pass(side s, const char* name, result<T>& out, Verb verb) {
  if (const errc e = relays_[s].enter(*inner_); e != errc::ok)
    return complete<progress::done>(out, error(e, 0, name));
  const progress p = verb(*inner_);
  if (p == progress::waiting) relays_[s].join(*inner_);
  return p;
}

[[gnu::always_inline]] inline progress buffered_resource::read_view(std::size_t max_bytes,
                                                                    result<std::string_view>& out) {
  return pass(read_side, "receive", out, [&](stream_resource& inner) {
    if (keeper != nullptr) [[unlikely]]
      return keep_fds(max_bytes, out);
    return inner.receive_view(max_bytes, out);
  });
}

ANYIO_NET_COLD progress buffered_resource::keep_fds(std::size_t max_bytes, result<std::string_view>& out) {
  const mutable_buffer room = core().buffer();
  result<std::size_t> n(errc::cancelled);
  const progress p = keeper->receive(mutable_buffer(room.data(), std::min(room.size(), max_bytes)), n);
  if (p != progress::done) return p;
  if (!n.has_value()) return complete<progress::done>(out, n.error());
  return complete<progress::done>(out, std::string_view(reinterpret_cast<const char*>(room.data()), *n));
}

ANYIO_NET_FN progress buffered_resource::fill(std::size_t at_most, result<std::size_t>& out) {
  if (bytes.has_memory()) {
    const mutable_buffer room =
        bytes.prepare(std::min(at_most, std::max(bytes.size(), byte_queue::least) / 2));
    const progress p = fill_directly(mutable_buffer(room.data(), std::min(at_most, room.size())), out);
    if (p == progress::done && out.has_value()) bytes.commit(*out);
    return p;
  }
  result<std::string_view> view(errc::cancelled);  // so that a stream that waits holds no memory
  const progress p = read_view(at_most, view);
  if (p != progress::done) return p;
  if (view.has_value()) {
    bytes.append(*view);
    out = view->size();
  } else {
    out = view.error();
  }
  return p;
}

ANYIO_NET_FN progress buffered_resource::fill_directly(mutable_buffer into, result<std::size_t>& out) {
  return pass(read_side, "receive", out, [&](stream_resource& inner) {
    return keeper == nullptr ? inner.receive(into, out) : keeper->receive(into, out);
  });
}

ANYIO_NET_FN progress buffered_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  if (bytes.empty()) {
    if (into.size() >= byte_queue::least) return fill_directly(into, out);
    const progress p = fill(byte_queue::least, out);
    if (p != progress::done || !out.has_value()) return p;
  }
  const std::size_t n = std::min(bytes.size(), into.size());
  std::memcpy(into.data(), bytes.view().data(), n);
  bytes.consume(n);
  return complete<progress::done>(out, n);
}

ANYIO_NET_FN progress buffered_resource::receive_view(std::size_t max_bytes, result<std::string_view>& out) {
  if (bytes.empty() && max_bytes >= byte_queue::least) return read_view(max_bytes, out);
  // A view of the loop's buffer may be sent on, and stays valid after this stream has been closed.
  const mutable_buffer room = core().buffer();
  result<std::size_t> size(errc::cancelled);
  const progress p = receive(mutable_buffer(room.data(), std::min(room.size(), max_bytes)), size);
  if (p != progress::done) return p;
  if (size.has_value()) {
    out = std::string_view(reinterpret_cast<const char*>(room.data()), *size);
  } else {
    out = size.error();
  }
  return p;
}

ANYIO_NET_FN progress buffered_resource::send(outgoing& data, result<void>& out) {
  return pass(write_side, "send", out, [&](stream_resource& inner) {
    if (!inner.eof_sent()) return inner.send(data, out);
    return complete<progress::done>(out, error(errc::closed_resource, 0, "send"));
  });
}

ANYIO_NET_FN progress buffered_resource::send_eof(result<void>& out) {
  const progress p =
      pass(write_side, "send_eof", out, [&](stream_resource& inner) { return inner.send_eof(out); });
  if (p == progress::done && out.has_value()) eof_sent_ = true;
  return p;
}

ANYIO_NET_FN progress buffered_resource::finish() {
  relays_[read_side].leave();
  if (inner_->gone()) return progress::done;
  inner_->begin_closing();
  const progress p = inner_->finish();
  if (p == progress::waiting) relays_[read_side].join(*inner_);
  return p;
}

ANYIO_NET_FN void buffered_resource::shut() noexcept {
  relays_[read_side].leave();
  relays_[write_side].leave();
  if (!let_go_) inner_->close();
}

ANYIO_NET_FN void buffered_resource::let_go() noexcept {
  let_go_ = owned_ == nullptr;
  close();
}

// --- its operations

ANYIO_NET_FN error read_failure(error e, bool bytes_are_left, const char* name) noexcept {
  if (e == errc::end_of_stream && bytes_are_left) return error(errc::incomplete_read, 0, name);
  return error_access::with_operation(e, name);
}

ANYIO_NET_FN progress buffered_resource::gather(std::size_t size, const char* name, error& failure) {
  for (int reads = 0; bytes.size() < size; ++reads) {
    if (reads == calls_of_attempt || (reads != 0 && core().share_spent())) return progress::again;
    if (keeper != nullptr) keeper->wanted = size - bytes.size();
    result<std::size_t> n(errc::cancelled);
    const progress p = fill(std::max(size - bytes.size(), byte_queue::least), n);
    if (p != progress::done) return p;
    if (n.has_value()) continue;
    failure = read_failure(n.error(), !bytes.empty(), name);
    break;
  }
  return progress::done;
}

ANYIO_NET_FN progress buffered_resource::take_exactly(void* into, std::size_t size, const char* name,
                                                      error& failure) {
  const progress p = gather(size, name, failure);
  if (p != progress::done || failure.code() != errc::ok) return p;
  std::memcpy(into, bytes.view().data(), size);
  bytes.consume(size);
  return p;
}

ANYIO_NET_FN bool receive_exactly_string_operation::attempt(result<std::string>& out) {
  error failure;
  const progress p = resource_->gather(size_, name, failure);
  if (p == progress::again) again = true;
  if (p != progress::done) return false;
  if (failure.code() != errc::ok) return complete(out, failure);
  out = std::string(resource_->bytes.view().substr(0, size_));
  resource_->bytes.consume(size_);
  return true;
}

ANYIO_NET_FN bool receive_exactly_operation::attempt(result<void>& out) {
  byte_queue& bytes = resource_->bytes;
  const auto take = [&](std::size_t n) {
    if (n == 0) return;
    std::memcpy(into_.data() + filled_, bytes.view().data(), n);
    bytes.consume(n);
    filled_ += n;
  };
  for (int reads = 0; filled_ + bytes.size() < into_.size(); ++reads) {
    if (reads == calls_of_attempt || (reads != 0 && resource_->core().share_spent())) {
      again = true;
      return false;
    }
    result<std::size_t> n(errc::cancelled);
    progress p = progress::done;
    if (resource_->keeper != nullptr) resource_->keeper->wanted = into_.size() - filled_ - bytes.size();
    if (into_.size() - filled_ - bytes.size() < byte_queue::least) {
      p = resource_->fill(byte_queue::least, n);
    } else {
      take(bytes.size());
      p = resource_->fill_directly(mutable_buffer(into_.data() + filled_, into_.size() - filled_), n);
      if (p == progress::done && n.has_value()) filled_ += *n;
    }
    if (p == progress::again) again = true;
    if (p != progress::done) return false;
    if (!n.has_value()) return fail(n.error(), out);
  }
  take(into_.size() - filled_);
  filled_ = 0;
  return complete(out, result<void>());
}

ANYIO_NET_FN bool receive_exactly_operation::fail(error e, result<void>& out) {
  put_back();
  return complete(out, read_failure(e, !resource_->bytes.empty(), name));
}

ANYIO_NET_FN void receive_exactly_operation::put_back() {
  if (filled_ != 0) resource_->bytes.put_back(const_buffer(into_.data(), filled_));
  filled_ = 0;
}

ANYIO_NET_FN void receive_exactly_operation::left() noexcept {
  if (call_without_throwing([this] { put_back(); })) return;
  filled_ = 0;
  resource_->close();  // no read may continue after the lost bytes
}

ANYIO_NET_FN receive_exactly_operation& receive_exactly_operation::operator=(
    receive_exactly_operation&& other) noexcept {
  withdraw();
  resource_operation::operator=(std::move(other));
  into_ = other.into_;
  return *this;
}

ANYIO_NET_FN receive_exactly_operation::~receive_exactly_operation() { withdraw(); }

ANYIO_NET_FN bool receive_until_operation::attempt(result<std::string>& out) {
  byte_queue& bytes = resource_->bytes;
  for (int reads = 0;; ++reads) {
    const std::string_view content = bytes.view();
    if (const std::size_t at = content.find(delimiter_, searched_); at != std::string_view::npos) {
      const bool cr = line_ && at != 0 && content[at - 1] == '\r';
      out = std::string(content.substr(0, at - (cr ? 1 : 0)));
      bytes.consume(at + delimiter_.size());
      searched_ = 0;
      return true;
    }
    searched_ = content.size() < delimiter_.size() ? 0 : content.size() - delimiter_.size() + 1;
    if (content.size() >= max_bytes_) return fail(errc::delimiter_not_found, out);
    if (reads == calls_of_attempt || (reads != 0 && resource_->core().share_spent())) {
      again = true;
      return false;
    }
    if (resource_->keeper != nullptr)
      resource_->keeper->last_wanted = static_cast<unsigned char>(delimiter_.back());
    result<std::size_t> n(errc::cancelled);
    const progress p = resource_->fill(std::min(max_bytes_ - content.size(), byte_queue::least), n);
    if (p == progress::again) again = true;
    if (p != progress::done) return false;
    if (!n.has_value()) return fail(n.error(), out);
  }
}

ANYIO_NET_FN bool receive_until_operation::fail(error e, result<std::string>& out) {
  searched_ = 0;
  return complete(out, read_failure(e, !resource_->bytes.empty(), operation_name()));
}

ANYIO_NET_FN void receive_until_operation::left() noexcept { searched_ = 0; }

}  // namespace detail

// --- the stream

ANYIO_NET_FN buffered_stream::buffered_stream(byte_stream& inner) {
  if (const auto& r = detail::stream_access::resource_of(inner))
    resource_ = detail::ref<detail::stream_resource>(new detail::buffered_resource(r, inner, nullptr));
}

ANYIO_NET_FN buffered_stream::buffered_stream(std::unique_ptr<byte_stream> inner) {
  byte_stream* const object = inner.get();
  if (object == nullptr || !detail::stream_access::resource_of(*object)) return;
  const detail::ref<detail::stream_resource> r = detail::stream_access::resource_of(*object);
  resource_ =
      detail::ref<detail::stream_resource>(new detail::buffered_resource(r, *object, std::move(inner)));
}

ANYIO_NET_FN buffered_stream& buffered_stream::operator=(buffered_stream&& other) noexcept {
  if (this == &other) return *this;
  let_go();
  byte_stream::operator=(std::move(other));
  return *this;
}

ANYIO_NET_FN buffered_stream::~buffered_stream() { let_go(); }

ANYIO_NET_FN void buffered_stream::let_go() noexcept {
  if (resource_) own()->let_go();
}

ANYIO_NET_FN void buffered_stream::feed_data(const_buffer data) {
  if (!resource_ || data.empty()) return;
  auto& r = static_cast<detail::buffered_resource&>(*resource_);
  r.bytes.append(data);
  if (r.keeper != nullptr) r.keeper->arrived += data.size();
  r.withdrawn(detail::read_side);  // the waiter looks here first, and gives up its place at the inner stream
  r.wake(detail::read_side);
}

ANYIO_NET_FN std::string_view buffered_stream::buffer() const noexcept {
  return resource_ ? own()->bytes.view() : std::string_view();
}

ANYIO_NET_FN socket_stream* buffered_stream::socket() noexcept {
  return resource_ ? own()->socket() : nullptr;
}

}}  // namespace anyio

// == stream/buffered_fds.ipp ======================================================================

// Descriptors that come through a buffered stream.
//
// On Linux one read may end with a message that brought descriptors, and begin with bytes that were sent
// before it. Looking at the bytes without room for descriptors tells whether there is such a message
// (MSG_CTRUNC), but not where it begins. So a read takes only what the reader wants while there is one.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

class unix_fd_keeper final : public fd_keeper {
 public:
  unix_fd_keeper(ref<socket_resource> from, std::size_t max_fds)
      : from_(std::move(from)), max_fds_(max_fds) {}
  ~unix_fd_keeper() override {
    while (first_ != nullptr) delete std::exchange(first_, first_->next);
  }

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  /// Moves the descriptors that came with or before the first `taken` bytes to the caller.
  std::vector<unique_fd> take(std::uint64_t taken);

 private:
  /// The descriptors of one read.
  struct batch : recycled {
    std::vector<unique_fd> fds;
    std::uint64_t before = 0;  // how many bytes arrived before theirs
    batch* next = nullptr;
  };
  [[nodiscard]] ssize_t limit_read(mutable_buffer into, std::size_t& size, bool& more);
  progress receive_limited(mutable_buffer into, result<std::size_t>& out);

  ref<socket_resource> from_;
  std::size_t max_fds_;
  std::size_t kept_ = 0;  // descriptors
  batch* first_ = nullptr;
  batch* last_ = nullptr;
  std::unique_ptr<batch> came_;  // room for the next read
  bool failed_ = false;
};

/// Finds the number of bytes to read next, and whether more may follow them. If no descriptors are there,
/// reads only bytes that are there already: more of them might come with descriptors. Returns 1, or what a
/// failed read returns.
ANYIO_NET_FN ssize_t unix_fd_keeper::limit_read(mutable_buffer into, std::size_t& size, bool& more) {
  size = into.size();
  more = true;
#if defined(__linux__)
  if (wanted == 0 && last_wanted < 0) return 1;
  const ::iovec part{into.data(), into.size()};
  message m{std::span(&part, 1)};
  m.peek = true;
  const ssize_t n = from_->core().system().receive_message(from_->descriptor(), m);
  from_->core().count_work(0);
  if (n <= 0) return n;
  size = static_cast<std::size_t>(n);
  more = (m.flags & MSG_CTRUNC) != 0;
  if (!more) return 1;
  if (last_wanted < 0) {
    if (wanted < size) size = wanted;
  } else if (const void* end = std::memchr(into.data(), last_wanted, size)) {
    size = static_cast<std::size_t>(static_cast<const std::byte*>(end) - into.data()) + 1;
  }
#endif  // elsewhere a read stops before the message by itself
  return 1;
}

ANYIO_NET_FN progress unix_fd_keeper::receive(mutable_buffer into, result<std::size_t>& out) {
  const progress p = receive_limited(into, out);
  wanted = 0;
  last_wanted = -1;
  return p;
}

ANYIO_NET_FN progress unix_fd_keeper::receive_limited(mutable_buffer into, result<std::size_t>& out) {
  const auto truncated = [&] {
    failed_ = true;
    return complete<progress::done>(out, error(errc::fds_truncated, 0, "receive"));
  };
  if (failed_) return truncated();
  socket_resource& from = *from_;
  if (from.ended()) return complete<progress::done>(out, from.end_of_reading(0, "receive"));
  if (from.exhausted[read_side]) return progress::waiting;
  if (into.size() > loop_core::most_of_call) into = mutable_buffer(into.data(), loop_core::most_of_call);
  if (came_ == nullptr) came_.reset(new batch);  // now, so that lack of memory loses none
  came_->fds.reserve(max_fds_ < max_fds_of_message ? max_fds_ : max_fds_of_message);
  std::size_t size;
  bool more;
  const ssize_t there = limit_read(into, size, more);
  if (from.must_wait(read_side, there)) return progress::waiting;
  if (there <= 0)
    return complete<progress::done>(out, from.end_of_reading(static_cast<int>(-there), "receive"));
  const progress p = receive_with_fds(from, mutable_buffer(into.data(), size), more ? size : into.size(),
                                      "receive", came_->fds, out);
  if (p != progress::done) return p;
  const std::size_t count = came_->fds.size();
  if (out.has_value() ? count > max_fds_ - kept_ : out.error() == errc::fds_truncated) {
    came_.reset();
    return truncated();
  }
  if (!out.has_value()) return p;
  if (count != 0) {
    batch* const added = came_.release();
    added->before = arrived;
    (first_ == nullptr ? first_ : last_->next) = added;
    last_ = added;
    kept_ += count;
  }
  arrived += *out;
  return p;
}

ANYIO_NET_FN std::vector<unique_fd> unix_fd_keeper::take(std::uint64_t taken) {
  std::size_t count = 0;
  for (const batch* b = first_; b != nullptr && b->before < taken; b = b->next) count += b->fds.size();
  std::vector<unique_fd> fds;
  fds.reserve(count);
  while (first_ != nullptr && first_->before < taken) {
    for (unique_fd& fd : first_->fds) fds.push_back(std::move(fd));
    delete std::exchange(first_, first_->next);
  }
  kept_ -= count;
  return fds;
}

}  // namespace detail

ANYIO_NET_FN buffered_stream::buffered_stream(unix_stream& inner, std::size_t max_fds) {
  const auto& r = detail::stream_access::resource_of(inner);
  if (!r) return;
  std::unique_ptr<detail::fd_keeper> keeper(new detail::unix_fd_keeper(
      detail::ref<detail::socket_resource>(static_cast<detail::socket_resource*>(r.get())), max_fds));
  resource_ = detail::ref<detail::stream_resource>(
      new detail::buffered_resource(r, inner, nullptr, std::move(keeper)));
}

ANYIO_NET_FN std::vector<unique_fd> buffered_stream::take_fds() {
  if (!resource_) return {};
  const detail::buffered_resource& r = *own();
  if (r.keeper == nullptr) return {};
  auto& keeper = static_cast<detail::unix_fd_keeper&>(*r.keeper);
  return keeper.take(keeper.arrived - r.bytes.size());
}

}}  // namespace anyio

// == stream/copy.ipp ==============================================================================

// Pumping bytes through memory and through a pipe.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A receive of so many bytes begins to splice; fewer are moved faster through memory.
inline constexpr std::size_t many_bytes = 16384;
inline constexpr std::size_t few_bytes = 4096;
inline constexpr std::uint32_t small_moves_of_pipe = 16;  // after so many in a row the pipe is closed
inline constexpr std::uint32_t large_moves_of_pipe = 8;   // after so many it grows
inline constexpr std::size_t most_of_splice = std::size_t{1} << 20;

/// Splicing costs about a quarter of what copying costs.
inline void count_spliced(loop_core& loop, ssize_t n) noexcept {
  loop.count_work(n > 0 ? static_cast<std::size_t>(n) / 4 : 0);
}

inline bool can_splice(byte_stream& s) noexcept {
  return static_cast<byte_stream*>(s.socket()) == &s &&
         s.socket()->native_handle() < first_simulated_descriptor;
}

ANYIO_NET_FN pump::pump(byte_stream& from, byte_stream& to, bool half_closes)
    : from_(stream_access::resource_of(from)),
      to_(stream_access::resource_of(to)),
      may_splice_(can_splice(from) && can_splice(to)),
      half_closes_(half_closes) {}

// --- waiting

ANYIO_NET_FN errc pump::check(const node& own) const noexcept {
  if (!from_ || !to_ || !from_->open() || !to_->open()) return errc::closed_resource;
  if (!ended_ && to_->eof_sent()) return errc::closed_resource;
  if (&from_->core() != &to_->core()) return errc::invalid_argument;
  for (const node* other : {from_->waiting(read_side), to_->waiting(write_side)})
    if (other != nullptr && other != &own && !other->yields) return errc::busy_resource;
  return errc::ok;
}

ANYIO_NET_FN void pump::enter(node& own) noexcept {
  from_->set_waiting(read_side, &own);
  to_->set_waiting(write_side, &own);
}

ANYIO_NET_FN void pump::leave(node& own) noexcept {
  const auto leave_side = [&own](const ref<stream_resource>& r, side s) {
    if (!r || r->waiting(s) != &own) return;
    r->set_waiting(s, nullptr);
    r->withdrawn(s);
  };
  leave_side(from_, read_side);
  leave_side(to_, write_side);
}

ANYIO_NET_FN void pump::refresh() noexcept {
  if (from_) from_->exhausted[read_side] = false;
  if (to_) to_->exhausted[write_side] = false;
}

ANYIO_NET_FN void pump::start_over() noexcept {
  sent = 0;
  splicing_ = ended_ = over_ = cannot_half_close = false;
  store_.reset();
}

// --- moving

ANYIO_NET_FN progress pump::move(result<void>& out) {
  for (int calls = 0; !over_; ++calls) {
    if (calls == calls_of_attempt || (calls != 0 && from_->core().share_spent())) return progress::again;
    if (!from_->open()) return complete<progress::done>(out, error(errc::closed_resource, 0, "receive"));
    if (!to_->open()) return complete<progress::done>(out, error(errc::closed_resource, 0, "send"));
    const progress p = step(out);
    if (p != progress::done) return p;
    if (!out.has_value()) break;
  }
  return progress::done;
}

ANYIO_NET_FN progress pump::step(result<void>& out) {
  if (store_ && store_->in_pipe != 0) return drain_pipe(out);
  if (sending_) return send_rest(out);
  if (ended_) return finish(out);
  return splicing_ ? fill_pipe(out) : receive(out);
}

ANYIO_NET_FN void pump::count_sent(std::size_t n) noexcept {
  sent += n;
  moved = moved || n != 0;
}

ANYIO_NET_FN progress pump::receive(result<void>& out) {
  result<std::string_view> view(errc::cancelled);
  const progress taken = from_->receive_view(static_cast<std::size_t>(-1), view);
  if (taken != progress::done) return taken;
  if (!view.has_value()) {
    ended_ = view.error() == errc::end_of_stream;
    if (!ended_) out = view.error();
    return progress::done;
  }
  moved = true;
  received_bytes bytes(*from_);
  const const_buffer whole(*view);
  outgoing data(std::span<const const_buffer>(&whole, 1));
  const progress p = to_->send(data, out);
  count_sent(data.sent());
  if (p != progress::done) {
    if (!store_) store_.reset(new store);
    store_->rest.append(view->substr(data.sent()));
    sending_ = true;
  }
  bytes.handed_over();
  if (p == progress::done && may_splice_ && out.has_value() && whole.size() >= many_bytes) begin_splicing();
  return p;
}

ANYIO_NET_FN progress pump::send_rest(result<void>& out) {
  byte_queue& rest = store_->rest;
  const const_buffer whole(rest.data());
  outgoing data(std::span<const const_buffer>(&whole, 1));
  const progress p = to_->send(data, out);
  count_sent(data.sent());
  rest.consume(data.sent());
  if (p != progress::done) return p;
  if (out.has_value()) sending_ = false;
  rest.trim();
  return p;
}

ANYIO_NET_FN progress pump::finish(result<void>& out) {
  if (half_closes_) {
    const progress p = to_->send_eof(out);
    if (p != progress::done) return p;
    cannot_half_close = !out.has_value() && out.error() == errc::not_supported;
    if (cannot_half_close) out = result<void>();
    if (!out.has_value()) return p;
  }
  over_ = true;
  store_.reset();
  return progress::done;
}

// --- inside the kernel

ANYIO_NET_FN void pump::begin_splicing() {
  int fds[2];
  if (!store_) store_.reset(new store);
  if (splices_of(from_->core().system()).open_pipe(fds) < 0) {
    may_splice_ = false;
    return;
  }
  store_->pipe[0].reset(fds[0]);
  store_->pipe[1].reset(fds[1]);
  store_->small_moves = store_->large_moves = 0;
  splicing_ = true;
}

/// Whether splice(2) refused these sockets; then bytes go through memory. The connection may be intact.
[[gnu::cold]] inline bool refuses_splice(ssize_t status) noexcept {
  return status == -EINVAL || status == -ENOSYS || status == -EOPNOTSUPP || status == -EPERM;
}

ANYIO_NET_FN progress pump::fill_pipe(result<void>& out) {
  auto& from = static_cast<socket_resource&>(*from_);
  if (from.ended()) return receive(out);
  if (from.exhausted[read_side]) return progress::waiting;
  if (store_->small_moves >= small_moves_of_pipe) {
    for (unique_fd& end : store_->pipe) end.reset();
    splicing_ = false;
    return receive(out);
  }
  loop_core& loop = from.core();
  splice_service& splices = splices_of(loop.system());
  const ssize_t n = splices.splice_in(from.descriptor(), store_->pipe[1].get(), most_of_splice);
  count_spliced(loop, n);
  if (n > 0) {
    moved = true;
    store_->in_pipe = static_cast<std::size_t>(n);
    store_->small_moves = store_->in_pipe < few_bytes ? store_->small_moves + 1 : 0;
    if (store_->in_pipe >= many_bytes && ++store_->large_moves == large_moves_of_pipe)
      splices.grow_pipe(store_->pipe[1].get());
    return progress::done;
  }
  // After the poller has reported an end, an error or urgent data, only a receive can tell.
  if (n == 0 || (n == -EAGAIN && from.read_to_end)) return receive(out);
  if (refuses_splice(n)) return give_up_splicing(out);
  if (from.must_wait(read_side, n)) return progress::waiting;
  return complete<progress::done>(out, from.end_of_reading(static_cast<int>(-n), "receive"));
}

ANYIO_NET_FN progress pump::drain_pipe(result<void>& out) {
  auto& to = static_cast<socket_resource&>(*to_);
  if (to.exhausted[write_side]) return progress::waiting;
  loop_core& loop = to.core();
  const ssize_t n =
      splices_of(loop.system()).splice_out(store_->pipe[0].get(), to.descriptor(), store_->in_pipe);
  count_spliced(loop, n);
  if (n > 0) {
    store_->in_pipe -= static_cast<std::size_t>(n);
    count_sent(static_cast<std::size_t>(n));
    return progress::done;
  }
  if (n == 0 || refuses_splice(n)) return give_up_splicing(out);
  return to.failed_send(n, out);
}

/// Takes the bytes out of the pipe, and continues through memory.
ANYIO_NET_COLD progress pump::give_up_splicing(result<void>& out) {
  loop_core& loop = from_->core();
  store& s = *store_;
  while (s.in_pipe != 0) {
    const mutable_buffer room = s.rest.prepare(s.in_pipe);
    const ssize_t n = files_of(loop.system()).read(s.pipe[0].get(), room.data(), s.in_pipe);
    if (n <= 0) return complete<progress::done>(out, error(errc::os_error, static_cast<int>(-n), "splice"));
    s.rest.commit(static_cast<std::size_t>(n));
    s.in_pipe -= static_cast<std::size_t>(n);
  }
  sending_ = !s.rest.empty();
  may_splice_ = splicing_ = false;
  for (unique_fd& end : s.pipe) end.reset();
  return progress::done;
}

}  // namespace detail

// --- copy

ANYIO_NET_FN copy_operation& copy_operation::operator=(copy_operation&& other) noexcept {
  if (this == &other) return *this;
  withdraw();
  operation::operator=(std::move(other));
  pump_ = std::move(other.pump_);
  return *this;
}

ANYIO_NET_FN detail::loop_core& copy_operation::home() const {
  detail::loop_core* const own = pump_.core();
  return own != nullptr && own->alive() ? *own : detail::loop_core::current();
}

ANYIO_NET_FN bool copy_operation::attempt(result<std::uint64_t>& out) {
  result<void> outcome;
  const detail::progress p = pump_.move(outcome);
  again = p == detail::progress::again;
  if (p != detail::progress::done) return false;
  if (!outcome.has_value()) return detail::complete(out, outcome.error());
  out = pump_.sent;
  pump_.start_over();
  return true;
}

ANYIO_NET_FN copy_operation copy(byte_stream& from, byte_stream& to) { return {from, to}; }

// --- relay

ANYIO_NET_FN relay_operation& relay_operation::operator=(relay_operation&& other) noexcept {
  if (this == &other) return *this;
  withdraw();
  operation::operator=(std::move(other));
  for (int i = 0; i < 2; ++i) pumps_[i] = std::move(other.pumps_[i]);
  idle_ = other.idle_;
  return *this;
}

ANYIO_NET_FN detail::loop_core& relay_operation::home() const {
  detail::loop_core* const own = pumps_[0].core();
  return own != nullptr && own->alive() ? *own : detail::loop_core::current();
}

ANYIO_NET_FN errc relay_operation::check() const noexcept {
  if (!made) return errc::invalid_argument;
  const errc first = pumps_[0].check(*this);
  return first != errc::ok ? first : pumps_[1].check(*this);
}

ANYIO_NET_FN errc relay_operation::enter() noexcept {
  for (detail::pump& p : pumps_) p.enter(*this);
  if (idle_ == duration::max()) return errc::ok;
  last_move_ = core->now();
  core->arm(timer_, detail::add(last_move_, idle_), *this);
  return errc::ok;
}

ANYIO_NET_FN void relay_operation::refresh() noexcept {
  for (detail::pump& p : pumps_) p.refresh();
}

ANYIO_NET_FN void relay_operation::left() noexcept {
  timer_.cancel();
  for (detail::pump& p : pumps_) p.leave(*this);
}

ANYIO_NET_FN bool relay_operation::attempt(result<relay_result>& out) {
  bool more = false;
  bool ended = true;
  second_first_ = !second_first_;
  for (int i = 0; i < 2; ++i) {
    detail::pump& p = pumps_[(i != 0) == second_first_ ? 0 : 1];
    result<void> outcome;
    const detail::progress made_progress = p.move(outcome);
    if (!outcome.has_value()) return detail::complete(out, outcome.error());
    more = more || made_progress == detail::progress::again;
    ended = ended && p.over();
  }
  again = more;
  if (ended || pumps_[0].cannot_half_close || pumps_[1].cannot_half_close) {
    out = relay_result{pumps_[0].sent, pumps_[1].sent};
    for (detail::pump& p : pumps_) p.start_over();
    return true;
  }
  if (idle_ == duration::max() || !pending() || !is_idle_for_too_long()) return false;
  return detail::complete(out, error(errc::timed_out, 0, name));
}

ANYIO_NET_FN bool relay_operation::is_idle_for_too_long() {
  if (pumps_[0].moved || pumps_[1].moved) {
    pumps_[0].moved = pumps_[1].moved = false;
    last_move_ = core->now();
  }
  if (timer_.armed()) return false;
  const time_point end = detail::add(last_move_, idle_);
  if (end <= core->now()) return true;
  if (end != time_point::max()) core->arm(timer_, end, *this);
  return false;
}

ANYIO_NET_FN relay_operation relay(byte_stream& a, byte_stream& b, relay_options options) {
  return {a, b, options};
}

}}  // namespace anyio

// == stream/descriptor_stream.ipp =================================================================

// Releasing a descriptor.

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_COLD int detail::descriptor_resource::release(bool restore) noexcept {
  if (gone()) return -1;
  const int fd = registration_.fd;
  core().forget(registration_, false);
  close();
  if (restore && was_blocking) static_cast<void>(files_of(core().system()).make_blocking(fd));
  return fd;
}

ANYIO_NET_FN int descriptor_stream::release(bool restore) noexcept {
  return resource_ ? static_cast<detail::descriptor_resource&>(*resource_).release(restore) : -1;
}

}}  // namespace anyio

// == stream/fd_passing.ipp ========================================================================

// Sending and receiving control data.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

#if defined(__linux__)
inline constexpr int pidfd_message = 4;  // SCM_PIDFD, which not every C library defines
#endif

/// Room for received control data: as many descriptors as the kernel passes at once, and the data that socket
/// options add. Without room for that data, the kernel would report truncated descriptors. A security label
/// (SCM_SECURITY) is the longest; it may take a page.
inline constexpr std::size_t control_size_of_message = CMSG_SPACE(max_fds_of_message * sizeof(int)) + 4352;

/// Takes the descriptors that the peer sent out of received control data. They go to `fds` as far as its
/// capacity allows; the others, and those that the kernel itself adds, are closed. Other control data is
/// ignored; parsing stops at malformed data. Returns false if a descriptor that the peer sent was closed.
[[nodiscard]] inline bool take_descriptors(backend& system, void* control, std::size_t size,
                                           std::vector<unique_fd>& fds) {
  bool all = true;
  const auto* bytes = static_cast<const unsigned char*>(control);
  std::size_t offset = 0;
  while (size - offset >= sizeof(cmsghdr)) {
    cmsghdr header;
    std::memcpy(&header, bytes + offset, sizeof header);
    const std::size_t length = header.cmsg_len;
    if (length < CMSG_LEN(0) || length > size - offset) break;
#if defined(__linux__)
    // SO_PASSPIDFD: a descriptor for the sender's process, or an errno in its place.
    if (header.cmsg_level == SOL_SOCKET && header.cmsg_type == pidfd_message &&
        length >= CMSG_LEN(sizeof(int))) {
      int fd;
      std::memcpy(&fd, bytes + offset + CMSG_LEN(0), sizeof fd);
      if (fd >= 0) close_descriptor(fd);
    }
#endif
    if (header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_RIGHTS) {
      const std::size_t count = (length - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd;
        std::memcpy(&fd, bytes + offset + CMSG_LEN(0) + i * sizeof(int), sizeof fd);
        unique_fd owned(fd);
        files_of(system).set_close_on_exec(fd);
        if (fds.size() == fds.capacity()) {
          all = false;
        } else {
          fds.push_back(std::move(owned));
        }
      }
    }
    const std::size_t step = CMSG_SPACE(length - CMSG_LEN(0));
    if (step >= size - offset) break;
    offset += step;
  }
  return all;
}

/// Whether an errno of sendmsg(2) concerns the descriptors, and not the connection.
[[gnu::cold]] inline bool concerns_descriptors(int e) noexcept {
  switch (e) {
    case EACCES:
    case EBADF:
    case EFAULT:
    case EINVAL:
    case EMFILE:
    case EMSGSIZE:
    case ENFILE:
    case EOPNOTSUPP:
    case EPERM:
    case ETOOMANYREFS:  // too many descriptors are in flight (unix(7))
      return true;
    default: return false;
  }
}

ANYIO_NET_FN progress receive_with_fds(socket_resource& from, mutable_buffer room, std::size_t size,
                                       const char* name, std::vector<unique_fd>& fds,
                                       result<std::size_t>& out) {
  loop_core& loop = from.core();
  alignas(cmsghdr) unsigned char control[control_size_of_message];
  const ::iovec part{room.data(), room.size()};
  message m{std::span(&part, 1)};
  m.control = control;
  m.control_size = sizeof control;
  const ssize_t n = loop.system().receive_message(from.descriptor(), m);
  loop.count_work(n > 0 ? static_cast<std::size_t>(n) : 0);
  if (from.must_wait(read_side, n)) return progress::waiting;
  if (n < 0) return complete<progress::done>(out, from.end_of_reading(static_cast<int>(-n), name));
  const bool all = take_descriptors(loop.system(), control, m.control_size, fds);
  if (!all || (m.flags & MSG_CTRUNC) != 0)
    return complete<progress::done>(out, error(errc::fds_truncated, 0, name));
  if (n == 0 && fds.empty()) {
    // No bytes and no descriptors: the end of the stream, unless no bytes were asked for and some are
    // available.
    std::byte one;
    const ::iovec look{&one, 1};
    message peek{std::span(&look, 1)};
    peek.peek = true;
    const ssize_t there = room.empty() ? loop.system().receive_message(from.descriptor(), peek) : ssize_t{0};
    if (from.must_wait(read_side, there)) return progress::waiting;
    if (there <= 0) return complete<progress::done>(out, from.end_of_reading(static_cast<int>(-there), name));
  }
  // Control data of any kind ends a read early, so more bytes may follow.
  from.note_read(static_cast<std::size_t>(n), size, m.control_size != 0);
  return complete<progress::done>(out, static_cast<std::size_t>(n));
}

}  // namespace detail

ANYIO_NET_FN errc send_fds_operation::check() const noexcept {
  if (message_.empty() || fds_.empty() || fds_.size() > detail::max_fds_of_message)
    return errc::invalid_argument;
  const errc e = resource_operation::check();
  if (e == errc::ok && resource_->eof_sent()) return errc::closed_resource;
  return e;
}

ANYIO_NET_FN ssize_t send_fds_operation::send_first() {
  alignas(cmsghdr) unsigned char control[CMSG_SPACE(detail::max_fds_of_message * sizeof(int))];
  const std::size_t payload = fds_.size_bytes();
  std::memset(control, 0, CMSG_SPACE(payload));
  cmsghdr header{};
  header.cmsg_len = static_cast<decltype(header.cmsg_len)>(CMSG_LEN(payload));
  header.cmsg_level = SOL_SOCKET;
  header.cmsg_type = SCM_RIGHTS;
  std::memcpy(control, &header, sizeof header);
  std::memcpy(control + CMSG_LEN(0), fds_.data(), payload);

  const ::iovec part{const_cast<std::byte*>(message_.data()), message_.size()};
  detail::message m{std::span(&part, 1)};
  m.control = control;
  m.control_size = CMSG_SPACE(payload);
  resource_->core().count_work(message_.size());
  return resource_->core().system().send_message(resource_->descriptor(), m);
}

ANYIO_NET_FN bool send_fds_operation::attempt(result<void>& out) {
  if (sent_ == 0) {
    if (resource_->exhausted[detail::write_side]) return false;
    const ssize_t n = send_first();
    if (resource_->must_wait(detail::write_side, n)) return false;
    if (n < 0) {
      const int e = static_cast<int>(-n);
      return detail::complete(out,
                              detail::concerns_descriptors(e)
                                  ? error(e == EOPNOTSUPP ? errc::not_supported : errc::os_error, e, name)
                                  : resource_->end_of_writing(e, name));
    }
    sent_ = static_cast<std::size_t>(n);
  }
  const const_buffer whole(message_);
  detail::outgoing rest(std::span<const const_buffer>(&whole, 1));
  rest.advance(sent_);
  const detail::progress p = resource_->send(rest, out);
  sent_ = rest.sent();
  again = p == detail::progress::again;
  return p == detail::progress::done;
}

ANYIO_NET_FN bool receive_fds_operation::attempt(result<fd_message>& out) {
  if (resource_->exhausted[detail::read_side]) return false;
  const mutable_buffer all = resource_->core().buffer();
  const mutable_buffer room(all.data(), std::min(max_bytes_, all.size()));
  std::vector<unique_fd> fds;
  fds.reserve(std::min(max_fds_, detail::max_fds_of_message));  // now, so that lack of memory loses none
  result<std::size_t> n(errc::cancelled);
  if (detail::receive_with_fds(*resource_, room, room.size(), name, fds, n) != detail::progress::done)
    return false;
  if (!n.has_value()) return detail::complete(out, n.error());
  if (fds.size() > max_fds_) return detail::complete(out, error(errc::fds_truncated, 0, name));
  detail::received_bytes bytes(*resource_);
  out = fd_message(std::string(reinterpret_cast<const char*>(room.data()), *n), std::move(fds));
  bytes.handed_over();
  return true;
}

ANYIO_NET_FN send_fds_operation unix_stream::send_fds(const_buffer message, std::span<const int> fds) {
  return {detail::ref<detail::socket_resource>(resource()), message, fds};
}

ANYIO_NET_FN receive_fds_operation unix_stream::receive_fds(std::size_t max_bytes, std::size_t max_fds) {
  return {detail::ref<detail::socket_resource>(resource()), max_bytes, max_fds};
}

}}  // namespace anyio

// == stream/fd_stream.ipp =========================================================================

// Reading and writing descriptors that are not sockets.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// `os_error` if the descriptor was not opened for this operation, which is an error of the program;
/// `broken_resource` for all other errors, which come from the other end.
inline error fd_failure(ssize_t status, const char* operation) noexcept {
  const bool misused = status == -EBADF || status == -EINVAL || status == -EISDIR;
  return error(misused ? errc::os_error : errc::broken_resource, static_cast<int>(-status), operation);
}

ANYIO_NET_FN fd_resource::fd_resource(loop_core& core, int fd, int& status)
    : descriptor_resource(core, fd, status), files_(files_of(core.system())) {
  file_identity identity;
  if (status == -EPERM && files_.identify(fd, identity) >= 0 && identity.is_character_device) {
    registration_.fd = fd;
    static_cast<void>(
        core.enter(registration_, *this));  // for example /dev/null: always ready, so nothing to watch
    status = 0;
  }
}

ANYIO_NET_COLD bool fd_resource::is_fifo() {
  file_identity identity;
  return files_.identify(registration_.fd, identity) >= 0 && identity.is_fifo;
}

ANYIO_NET_FN progress fd_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  if (exhausted[read_side]) return progress::waiting;
  const auto read = [&] {
    const ssize_t size =
        files_.read(registration_.fd, into.data(), std::min(into.size(), loop_core::most_of_call));
    count_call(size);
    return size;
  };
  ssize_t n = read();
  if (n == 0 && is_fifo()) {
    // A FIFO that was never hung up has had no writer yet, which also reads as an end. A FIFO that was hung
    // up may hold bytes of a writer that opened and closed it since the read.
    const int bits = read_to_end ? int{ready_end} : core().system().poll_now(registration_.fd, ready_read);
    n = bits >= 0 && (static_cast<std::uint32_t>(bits) & ready_end) == 0 ? -EAGAIN : read();
  }
  if (n > 0) {
    out = static_cast<std::size_t>(n);
  } else if (must_wait(read_side, n)) {
    return progress::waiting;
  } else if (n == 0 || n == -EIO) {  // EIO: the other side of the terminal is closed
    out = error(errc::end_of_stream, 0, "receive");
  } else {
    out = fd_failure(n, "receive");
  }
  return progress::done;
}

ANYIO_NET_FN progress fd_resource::send(outgoing& data, result<void>& out) {
  if (!data.done() && exhausted[write_side]) return progress::waiting;
  while (!data.done()) {
    ::iovec room[outgoing::parts_of_call];
    const std::span<const ::iovec> parts = data.gather(room);
    core().count_work(parts.size() * work_of_part, 0);
    const ssize_t n = files_.write(registration_.fd, parts);
    count_call(n);
    if (must_wait(write_side, n)) return progress::waiting;
    if (n < 0) return complete<progress::done>(out, fd_failure(n, "send"));
    data.advance(static_cast<std::size_t>(n));
    if (data.rests() || (!data.done() && core().share_spent())) return progress::again;
  }
  return complete<progress::done>(out, result<void>());
}

ANYIO_NET_FN progress fd_resource::send_eof(result<void>& out) {
  return complete<progress::done>(out, error(errc::not_supported, 0, "send_eof"));
}

}  // namespace detail

ANYIO_NET_FN result<fd_stream> fd_stream::from_fd(int fd) {
  constexpr const char* what = "fd_stream";
  detail::loop_core& core = detail::loop_core::current();
  const result<int> type = detail::type_of_socket(core.system(), fd, what);
  if (!type) return type.error();
  if (*type >= 0) return detail::refusal_of(what, 0, "is a socket: use e.g. tcp_stream::from_fd");
  int status = 0;  // watched before it is changed, so that a rejected descriptor stays unchanged
  const detail::ref<detail::fd_resource> r(new detail::fd_resource(core, fd, status));
  if (status == -EPERM) return detail::refusal_of(what, EPERM, "is a regular file or a directory");
  if (status >= 0) {
    status = detail::files_of(core.system()).adopt(fd);
    r->was_blocking = status > 0;
    if (status < 0) static_cast<void>(r->release(false));
  }
  if (status < 0) return error(errc::os_error, -status, what);
  return fd_stream(r);
}

}}  // namespace anyio

// == stream/memory_stream.ipp =====================================================================

// The rings of memory streams.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN std::size_t memory_resource::take(mutable_buffer into) noexcept {
  const std::size_t total = core().system().transfer(std::min({size_, into.size(), loop_core::most_of_call}));
  core().count_work(total, 0);
  const std::size_t before_wrap = std::min(total, capacity_ - first_);
  std::memcpy(into.data(), ring_.get() + first_, before_wrap);
  if (total != before_wrap) std::memcpy(into.data() + before_wrap, ring_.get(), total - before_wrap);
  size_ -= total;
  first_ = size_ == 0 ? 0 : (first_ + total) % capacity_;
  if (peer_ != nullptr) peer_->wake(write_side);
  return total;
}

ANYIO_NET_FN std::size_t memory_resource::put(const_buffer bytes) {
  if (ring_ == nullptr) ring_.reset(new std::byte[capacity_]);
  const std::size_t room = std::min({capacity_ - size_, bytes.size(), loop_core::most_of_call});
  core().count_work(room + work_of_part, 0);
  const std::size_t total = room == 0 ? 0 : core().system().transfer(room);
  const std::size_t end = first_ < capacity_ - size_ ? first_ + size_ : first_ - (capacity_ - size_);
  const std::size_t before_wrap = std::min(total, capacity_ - end);
  if (total == 0) return 0;
  std::memcpy(ring_.get() + end, bytes.data(), before_wrap);
  if (total != before_wrap) std::memcpy(ring_.get(), bytes.data() + before_wrap, total - before_wrap);
  size_ += total;
  wake(read_side);
  return total;
}

ANYIO_NET_FN progress memory_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  if (size_ != 0) return complete<progress::done>(out, take(into));
  if (peer_ != nullptr && !peer_->eof_sent_) return progress::waiting;
  return complete<progress::done>(out, error(errc::end_of_stream, 0, "receive"));
}

ANYIO_NET_FN progress memory_resource::receive_view(std::size_t max_bytes, result<std::string_view>& out) {
  const mutable_buffer room = core().buffer();
  result<std::size_t> size(errc::cancelled);
  if (receive(mutable_buffer(room.data(), std::min(room.size(), max_bytes)), size) == progress::waiting)
    return progress::waiting;
  if (size.has_value())
    return complete<progress::done>(out, std::string_view(reinterpret_cast<const char*>(room.data()), *size));
  return complete<progress::done>(out, size.error());
}

ANYIO_NET_FN progress memory_resource::send(outgoing& data, result<void>& out) {
  while (!data.done()) {
    if (peer_ == nullptr) return complete<progress::done>(out, error(errc::broken_resource, EPIPE, "send"));
    const std::size_t n = peer_->put(data.front());
    if (n == 0) return progress::waiting;
    data.advance(n);
    if (!data.done() && peer_->size_ == peer_->capacity_) return progress::waiting;
    if (data.rests() || (!data.done() && core().share_spent())) return progress::again;
  }
  return complete<progress::done>(out, result<void>());
}

ANYIO_NET_FN progress memory_resource::send_eof(result<void>& out) {
  if (!std::exchange(eof_sent_, true) && peer_ != nullptr) peer_->wake(read_side);
  return complete<progress::done>(out, result<void>());
}

ANYIO_NET_FN progress memory_resource::finish() { return progress::done; }

ANYIO_NET_FN void memory_resource::part() noexcept {
  memory_resource* const peer = std::exchange(peer_, nullptr);
  if (peer == nullptr) return;
  peer->peer_ = nullptr;
  peer->wake(read_side);
  peer->wake(write_side);
}

ANYIO_NET_FN void memory_resource::shut() noexcept {
  part();
  ring_.reset();
  first_ = size_ = 0;
}

}  // namespace detail

ANYIO_NET_FN std::pair<memory_stream, memory_stream> create_memory_stream_pair(std::size_t capacity) {
  detail::loop_core& core = detail::loop_core::current();
  const std::size_t size = std::max<std::size_t>(capacity, 1);
  const detail::ref<detail::memory_resource> a(new detail::memory_resource(core, size));
  const detail::ref<detail::memory_resource> b(new detail::memory_resource(core, size));
  detail::memory_resource::join(*a, *b);
  return {memory_stream(a), memory_stream(b)};
}

}}  // namespace anyio

// == stream/send_queue.ipp ========================================================================

// Sending from the queue.

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_FN send_queue::~send_queue() {
  while (first_ != nullptr) delete std::exchange(first_, first_->next);
}

ANYIO_NET_FN void send_queue::append(std::string&& message) {
  if (message.empty()) return;
  item* const added = new item(std::move(message));
  queued_ += added->text.size();
  (first_ == nullptr ? first_ : last_->next) = added;
  last_ = added;
  if (queued_ - sent_ == added->text.size()) runner_.wake_first();  // otherwise it is at work already
}

ANYIO_NET_FN void send_queue::drop_sent(std::size_t n) noexcept {
  sent_ += n;
  n += sent_of_first_;
  while (first_ != nullptr && n >= first_->text.size()) {
    n -= first_->text.size();
    delete std::exchange(first_, first_->next);
  }
  sent_of_first_ = n;
}

ANYIO_NET_FN void send_queue::fail(error e) noexcept {
  failure_ = e;
  senders_.wake_all();
  flushers_.wake_all();
}

/// Sends once, as many messages as one call takes.
ANYIO_NET_FN detail::progress send_queue::send_some(result<void>& out) {
  const_buffer pieces[detail::outgoing::parts_of_call];
  std::size_t count = 0;
  for (const item* i = first_; i != nullptr && count < detail::outgoing::parts_of_call; i = i->next)
    pieces[count++] = i->text;
  detail::outgoing data(std::span<const const_buffer>(pieces, count), sent_of_first_);
  const detail::progress p = to_->send(data, out);
  drop_sent(data.sent());
  if (p == detail::progress::done && out.has_value()) flushed_ = sent_;
  senders_.wake_first();
  flushers_.wake_all();
  return p;
}

ANYIO_NET_FN bool send_queue::try_send(std::string message) {
  if (failure_.code() != errc::ok || !senders_.empty() || !has_room(message.size())) return false;
  append(std::move(message));
  return true;
}

ANYIO_NET_FN detail::queue_send_operation send_queue::send(std::string message) {
  return detail::queue_send_operation(*this, std::move(message));
}

ANYIO_NET_FN detail::queue_flush_operation send_queue::flush() {
  return detail::queue_flush_operation(*this);
}

ANYIO_NET_FN detail::queue_run_operation send_queue::run() { return detail::queue_run_operation(*this); }

namespace detail {

// --- send

ANYIO_NET_FN queue_send_operation& queue_send_operation::operator=(queue_send_operation&& other) noexcept {
  withdraw();
  operation::operator=(std::move(other));
  queue_ = other.queue_;
  text_ = std::move(other.text_);
  return *this;
}

ANYIO_NET_FN bool queue_send_operation::attempt(result<void>& out) {
  if (pending() && place_.ended()) {
    made = false;
    return complete(out, error(errc::closed_resource, 0, name));
  }
  if (queue_->failure_.code() != errc::ok) return complete(out, queue_->failure_);
  const wait_place* first = queue_->senders_.first();
  if ((first != nullptr && first != &place_) || !queue_->has_room(text_.size())) return false;
  queue_->append(std::move(text_));
  made = false;  // the message is gone
  return complete(out, result<void>());
}

ANYIO_NET_FN void queue_send_operation::left() noexcept {
  if (!place_.linked()) return;
  place_.unlink();
  queue_->senders_.wake_first();
}

// --- flush

ANYIO_NET_FN void queue_flush_operation::started() {
  if (!begun_) goal_ = queue_->queued_;
  begun_ = true;
}

ANYIO_NET_FN bool queue_flush_operation::attempt(result<void>& out) {
  if (pending() && place_.ended()) {
    made = false;
    return complete(out, error(errc::closed_resource, 0, name));
  }
  started();
  if (queue_->flushed_ >= goal_) return complete(out, result<void>());
  if (queue_->failure_.code() == errc::ok) return false;
  return complete(out, queue_->failure_);
}

// --- run

ANYIO_NET_FN queue_run_operation& queue_run_operation::operator=(queue_run_operation&& other) noexcept {
  withdraw();
  operation::operator=(std::move(other));
  queue_ = other.queue_;
  to_ = std::move(other.to_);
  return *this;
}

ANYIO_NET_FN loop_core& queue_run_operation::home() const {
  return to_ && to_->core().alive() ? to_->core() : loop_core::current();
}

ANYIO_NET_FN errc queue_run_operation::check() const noexcept {
  if (!made) return errc::invalid_argument;
  return queue_->runner_.empty() || place_.linked() ? errc::ok : errc::busy_resource;
}

ANYIO_NET_FN errc queue_run_operation::enter() {
  queue_->runner_.join(place_, *this);
  return errc::ok;
}

ANYIO_NET_FN bool queue_run_operation::attempt(result<void>& out) {
  if (place_.ended()) {
    made = false;
    return complete(out, error(errc::closed_resource, 0, name));
  }
  send_queue& q = *queue_;
  yields = false;
  for (int calls = 0; q.failure_.code() == errc::ok; ++calls) {
    const bool idle = q.first_ == nullptr && q.flushed_ == q.sent_;
    const node* const writer = to_ ? to_->waiting(write_side) : nullptr;
    const bool others_write = writer != nullptr && writer != this;
    if (!to_ || !to_->open() || (!idle && to_->eof_sent())) {
      q.fail(error(errc::closed_resource, 0, "send"));
    } else if (idle) {
      // It keeps the writer's place, to be told when the stream is closed, but gives it to anyone.
      yields = true;
      if (!others_write) to_->set_waiting(write_side, this);
      return false;
    } else if (others_write) {
      q.fail(error(errc::busy_resource, 0, "send"));
    } else if (calls == calls_of_attempt || (calls != 0 && to_->core().share_spent())) {
      again = true;
      return false;
    } else {
      to_->set_waiting(write_side, this);
      const progress p = q.send_some(out);
      if (p == progress::again) continue;
      if (p == progress::waiting) return false;
      if (!out.has_value()) q.fail(out.error());
    }
  }
  return complete(out, q.failure_);
}

ANYIO_NET_FN void queue_run_operation::left() noexcept {
  yields = false;
  if (to_ && to_->waiting(write_side) == this) {
    to_->set_waiting(write_side, nullptr);
    to_->withdrawn(write_side);
  }
  place_.unlink();
}

}  // namespace detail

}}  // namespace anyio

// == stream/socket.ipp ============================================================================

// The system calls of stream sockets.

#include <netinet/tcp.h>

#if defined(__APPLE__) || defined(__FreeBSD__)
#include <sys/ucred.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN ssize_t socket_resource::read_some(void* data, std::size_t size, bool& more_may_follow) {
  more_may_follow = false;
  if (!is_unix_) return core().system().receive(registration_.fd, data, size);
  // The kernel closes descriptors that come with the bytes, and ends the read early: MSG_CTRUNC reports this.
  const ::iovec part{data, size};
  message m{std::span(&part, 1)};
  const ssize_t n = core().system().receive_message(registration_.fd, m);
  more_may_follow = (m.flags & MSG_CTRUNC) != 0;
  return n;
}

/// Returns the errno of a call that failed. If it says only that the connection is gone, returns the reason
/// from SO_ERROR, if there is one.
ANYIO_NET_COLD int socket_resource::cause_of(int error_number) noexcept {
  if (error_number != ENOTCONN && error_number != EPIPE) return error_number;
  int why = 0;
  const int asked = read_option(core().system(), registration_.fd, SOL_SOCKET, SO_ERROR, why);
  return asked >= 0 && why != 0 ? why : error_number;
}

/// Keeps the errno that broke the connection. ENOTCONN, and EPIPE of a UNIX socket, are replaced by a more
/// specific errno.
ANYIO_NET_COLD void socket_resource::note_cause(int error_number) noexcept {
  const auto says_nothing = [this](int e) { return e == 0 || e == ENOTCONN || (is_unix_ && e == EPIPE); };
  if (broken_ == 0 || (says_nothing(broken_) && !says_nothing(error_number))) broken_ = error_number;
}

ANYIO_NET_FN error socket_resource::end_of_reading(int error_number, const char* operation) noexcept {
  if (error_number != 0 && !ended_) note_cause(cause_of(error_number));
  const bool closed_in_order = is_unix_ && (broken_ == EPIPE || broken_ == ENOTCONN) && error_number == 0;
  if (broken_ == 0 || ended_ || closed_in_order) {
    ended_ = true;
    return error(errc::end_of_stream, 0, operation);
  }
  return error(errc::broken_resource, broken_, operation);
}

ANYIO_NET_FN error socket_resource::end_of_writing(int error_number, const char* operation) noexcept {
  note_cause(cause_of(error_number));
  return error(errc::broken_resource, broken_, operation);
}

/// Reads once. `make` makes the outcome from the number of bytes.
template <class T, class Make>
[[gnu::always_inline]] inline progress socket_resource::read_once(mutable_buffer into, result<T>& out,
                                                                  Make make) {
  if (ended_) return complete<progress::done>(out, end_of_reading(0, "receive"));
  if (exhausted[read_side]) return progress::waiting;
  bool more_may_follow;
  const std::size_t size = std::min(into.size(), loop_core::most_of_call);
  const ssize_t n = read_some(into.data(), size, more_may_follow);
  count_call(n);
  if (n > 0) {
    note_read(static_cast<std::size_t>(n), size, more_may_follow);
    return complete<progress::done>(out, make(static_cast<std::size_t>(n)));
  }
  if (must_wait(read_side, n)) return progress::waiting;
  return complete<progress::done>(out, end_of_reading(static_cast<int>(-n), "receive"));
}

ANYIO_NET_FN progress socket_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  return read_once(into, out, [](std::size_t n) { return n; });
}

ANYIO_NET_FN progress socket_resource::receive_view(std::size_t max_bytes, result<std::string_view>& out) {
  const mutable_buffer room = core().buffer();
  const auto* text = reinterpret_cast<const char*>(room.data());
  return read_once(mutable_buffer(room.data(), std::min(max_bytes, room.size())), out,
                   [text](std::size_t n) { return std::string_view(text, n); });
}

ANYIO_NET_FN progress socket_resource::send(outgoing& data, result<void>& out) {
  if (data.done()) return complete<progress::done>(out, result<void>());
  if (exhausted[write_side]) return progress::waiting;
  do {
    ssize_t n;
    if (data.count() == 1) {
      n = core().system().send(registration_.fd, data.front().data(),
                               std::min(data.front().size(), loop_core::most_of_call));
    } else {
      ::iovec parts[outgoing::parts_of_call];
      message m;
      m.parts = data.gather(parts);
      core().count_work(m.parts.size() * work_of_part, 0);
      n = core().system().send_message(registration_.fd, m);
    }
    count_call(n);
    if (n < 0) return failed_send(n, out);
    data.advance(static_cast<std::size_t>(n));
    if (data.done()) return complete<progress::done>(out, result<void>());
  } while (!data.rests() && !core().share_spent());
  return progress::again;
}

/// One call for one piece, which goes whole nearly always.
ANYIO_NET_FN progress socket_resource::send_piece(const_buffer data, std::size_t& sent, result<void>& out) {
  if (exhausted[write_side] || data.empty() || data.size() > loop_core::most_of_call) [[unlikely]]
    return stream_resource::send_piece(data, sent, out);
  const ssize_t n = core().system().send(registration_.fd, data.data(), data.size());
  count_call(n);
  if (n < 0) return failed_send(n, out);
  const auto size = static_cast<std::size_t>(n);
  sent += size;
  if (size == data.size()) [[likely]]
    return complete<progress::done>(out, result<void>());
  return stream_resource::send_piece(const_buffer(data.data() + size, data.size() - size), sent, out);
}

ANYIO_NET_COLD progress socket_resource::failed_send(ssize_t status, result<void>& out) {
  if (must_wait(write_side, status)) return progress::waiting;
  if (is_unix_ && status == -EPIPE) {  // the peer has closed; a receive reports whether it closed in order
    note_cause(EPIPE);
    return complete<progress::done>(out, error(errc::broken_resource, broken_, "send"));
  }
  return complete<progress::done>(out, end_of_writing(static_cast<int>(-status), "send"));
}

ANYIO_NET_FN progress socket_resource::send_eof(result<void>& out) {
  if (!eof_sent_) {
    const int status = core().system().shutdown(registration_.fd, SHUT_WR);
    if (status < 0) {
      if (must_wait(write_side, status)) return progress::waiting;
      return complete<progress::done>(out, end_of_writing(-status, "send_eof"));
    }
    eof_sent_ = true;
  }
  return complete<progress::done>(out, result<void>());
}

ANYIO_NET_FN progress socket_resource::finish() {
  constexpr std::uint32_t discard_limit = 16 * 1024;  // KiB
  if (!eof_sent_) {
    const int status = core().system().shutdown(registration_.fd, SHUT_WR);
    if (must_wait(read_side, status)) return progress::waiting;
    eof_sent_ = true;
    if (status < 0) return progress::done;
  }
  if (ended_ || broken_ != 0) return progress::done;
  if (exhausted[read_side]) return progress::waiting;
  const mutable_buffer room = core().buffer();
  do {
    bool more_may_follow;
    const ssize_t n = read_some(room.data(), room.size(), more_may_follow);
    count_call(n);
    if (must_wait(read_side, n)) return progress::waiting;
    if (n <= 0) return progress::done;
    discarded_ += static_cast<std::uint32_t>(n / 1024 + 1);
    if (discarded_ > discard_limit) return progress::done;
  } while (!core().share_spent());
  return progress::again;
}

/// Whether an errno of sendfile(2) concerns the file. All others concern the connection: a list of the errors
/// that break a connection would never be complete, and an error missing from it would make a broken one look
/// intact.
[[gnu::cold]] inline bool concerns_file(int e) noexcept {
  switch (e) {
    case EACCES:
    case EBADF:
    case EBADMSG:  // a wrong checksum in the file system
    case EFAULT:
    case EINVAL:
    case EIO:
    case EISDIR:
    case ENODEV:
    case ENOSYS:
    case ENXIO:
    case EOPNOTSUPP:
    case EOVERFLOW:
    case EPERM:
    case ESPIPE:
    case ESTALE:
#if defined(ENOTSUP) && ENOTSUP != EOPNOTSUPP
    case ENOTSUP:
#endif
#if defined(EFTYPE)
    case EFTYPE:
#endif
#if defined(EINTEGRITY)  // FreeBSD
    case EINTEGRITY:
#endif
#if defined(EUCLEAN)  // Linux: a damaged file system, a medium with errors, a missing key
    case EUCLEAN:
    case ENODATA:
    case EREMOTEIO:
    case ENOKEY:
#endif
      return true;
    default: return false;
  }
}

ANYIO_NET_FN progress socket_resource::send_file(int file, std::uint64_t offset, std::uint64_t count,
                                                 std::uint64_t& sent, result<void>& out) {
  constexpr std::uint64_t bytes_of_call = loop_core::most_of_call;
  out = result<void>();
  do {
    if (sent == count) return progress::done;
    if (exhausted[write_side]) return progress::waiting;
    const auto amount = static_cast<std::size_t>(std::min(count - sent, bytes_of_call));
    const ssize_t n = files_of(core().system()).send_file(registration_.fd, file, offset + sent, amount);
    count_call(n);
    if (n < 0) {
      if (must_wait(write_side, n)) return progress::waiting;
      const int e = static_cast<int>(-n);
      return complete<progress::done>(
          out, concerns_file(e)
                   ? error(e == EOPNOTSUPP ? errc::not_supported : errc::os_error, e, "send_file")
                   : end_of_writing(e, "send_file"));
    }
    if (n == 0) return progress::done;  // the file ends here
    sent += static_cast<std::uint64_t>(n);
  } while (!core().share_spent());
  return progress::again;
}

ANYIO_NET_COLD std::shared_ptr<const std::string> shared_path(std::string path) {
  return path.empty() ? nullptr : std::make_shared<const std::string>(std::move(path));
}

ANYIO_NET_FN result<> set_option_of(const resource* r, int level, int name, const void* value, socklen_t size,
                                    const char* operation) {
  if (r == nullptr || !r->open()) return error(errc::closed_resource, 0, operation);
  const int status = r->core().system().set_option(r->descriptor(), level, name, value, size);
  if (status < 0) return error(errc::os_error, -status, operation);
  return {};
}

ANYIO_NET_FN result<socklen_t> get_option_of(const resource* r, int level, int name, void* value,
                                             socklen_t size, const char* operation) {
  if (r == nullptr || !r->open()) return error(errc::closed_resource, 0, operation);
  const int status = r->core().system().get_option(r->descriptor(), level, name, value, &size);
  if (status < 0) return error(errc::os_error, -status, operation);
  return size;
}

ANYIO_NET_FN result<int> get_int_option_of(const resource* r, int level, int name) {
  int value = 0;
  const result<socklen_t> size = get_option_of(r, level, name, &value, sizeof value, "get_option");
  if (!size) return size.error();
  return *size == 1 ? static_cast<int>(*reinterpret_cast<const unsigned char*>(&value)) : value;
}

template <class Stream>
result<Stream> socket_access::with_past(result<Stream>&& s, const adopted_socket& past) {
  if (!s.has_value()) return std::move(s);
  socket_resource& r = *s->resource();
  r.was_blocking = past.was_blocking;
  if (past.broken != 0) static_cast<void>(r.end_of_reading(past.broken, ""));
  return std::move(s);
}

ANYIO_NET_FN result<tcp_stream> socket_access::make_tcp(loop_core& core, int fd, const ip_endpoint* local,
                                                        const ip_endpoint& remote, const char* operation) {
  int status = 0;
  ref<tcp_resource> r(new tcp_resource(core, fd, status));
  if (status < 0) return error(errc::os_error, -status, operation);
  r->local = local != nullptr ? *local : local_address_of(core.system(), fd).endpoint();
  r->remote = remote;
  return tcp_stream(std::move(r));
}

ANYIO_NET_FN result<unix_stream> socket_access::make_unix(loop_core& core, int fd,
                                                          std::shared_ptr<const std::string> local,
                                                          std::shared_ptr<const std::string> remote,
                                                          const char* operation) {
  int status = 0;
  ref<unix_resource> r(new unix_resource(core, fd, status));
  if (status < 0) return error(errc::os_error, -status, operation);
  r->local = std::move(local);
  r->remote = std::move(remote);
  return unix_stream(std::move(r));
}

}  // namespace detail

ANYIO_NET_FN errc send_file_operation::check() const noexcept {
  const errc e = resource_operation::check();
  if (e == errc::ok && resource_->eof_sent()) return errc::closed_resource;
  return e;
}

ANYIO_NET_FN bool send_file_operation::attempt(result<std::uint64_t>& out) {
  result<void> outcome;
  const detail::progress p = resource_->send_file(file_, offset_, count_, sent_, outcome);
  again = p == detail::progress::again;
  if (p != detail::progress::done) return false;
  return detail::complete(
      out, outcome.has_value() ? result<std::uint64_t>(sent_) : result<std::uint64_t>(outcome.error()));
}

ANYIO_NET_FN send_file_operation socket_stream::send_file(int fd, std::uint64_t offset, std::uint64_t count) {
  return {detail::ref<detail::socket_resource>(resource()), fd, offset, count};
}

ANYIO_NET_FN result<> tcp_stream::set_no_delay(bool on) {
  return set_option(IPPROTO_TCP, TCP_NODELAY, on ? 1 : 0);
}

ANYIO_NET_COLD result<> tcp_stream::set_keep_alive(std::chrono::seconds idle, std::chrono::seconds interval,
                                                   int count) {
  constexpr std::int64_t largest = std::numeric_limits<int>::max();
  if (idle.count() < 1 || interval.count() < 1 || count < 1 || idle.count() > largest ||
      interval.count() > largest)
    return error(errc::invalid_argument, 0, "set_keep_alive");
#if defined(TCP_KEEPIDLE)
  constexpr int idle_option = TCP_KEEPIDLE;
#elif defined(TCP_KEEPALIVE)
  constexpr int idle_option = TCP_KEEPALIVE;               // macOS
#endif
#if defined(TCP_KEEPIDLE) || defined(TCP_KEEPALIVE)
  if (result<> r = set_option(IPPROTO_TCP, idle_option, static_cast<int>(idle.count())); !r) return r;
  if (result<> r = set_option(IPPROTO_TCP, TCP_KEEPINTVL, static_cast<int>(interval.count())); !r) return r;
  if (result<> r = set_option(IPPROTO_TCP, TCP_KEEPCNT, count); !r) return r;
  return set_option(SOL_SOCKET, SO_KEEPALIVE, 1);
#else
  return error(errc::not_supported, 0, "set_keep_alive");  // OpenBSD has one setting for all connections
#endif
}

ANYIO_NET_COLD result<tcp_stream> tcp_stream::from_fd(int fd) {
  detail::loop_core& core = detail::loop_core::current();
  const auto past = detail::adopt_socket(core.system(), fd, {"tcp_stream", false, SOCK_STREAM, true});
  if (!past) return past.error();
  const ip_endpoint local = past->local.endpoint();
  return detail::socket_access::with_past(
      detail::socket_access::make_tcp(core, fd, &local, past->remote.endpoint(), "tcp_stream"), *past);
}

ANYIO_NET_COLD std::string unix_stream::local_path() const {
  const auto* r = static_cast<const detail::unix_resource*>(resource_.get());
  return r != nullptr && r->local ? *r->local : std::string();
}

ANYIO_NET_COLD std::string unix_stream::remote_path() const {
  const auto* r = static_cast<const detail::unix_resource*>(resource_.get());
  return r != nullptr && r->remote ? *r->remote : std::string();
}

ANYIO_NET_COLD result<unix_stream> unix_stream::from_fd(int fd) {
  detail::loop_core& core = detail::loop_core::current();
  const auto past = detail::adopt_socket(core.system(), fd, {"unix_stream", true, SOCK_STREAM, true});
  if (!past) return past.error();
  return detail::socket_access::with_past(
      detail::socket_access::make_unix(core, fd, detail::shared_path(past->local.path()),
                                       detail::shared_path(past->remote.path()), "unix_stream"),
      *past);
}

ANYIO_NET_COLD result<peer_credentials> unix_stream::credentials() const {
#if defined(SO_PEERCRED) && defined(__linux__)
  struct {  // struct ucred, which needs _GNU_SOURCE
    pid_t pid;
    uid_t uid;
    gid_t gid;
  } who{};
  const auto size =
      detail::get_option_of(resource_.get(), SOL_SOCKET, SO_PEERCRED, &who, sizeof who, "credentials");
  if (!size) return size.error();
  return peer_credentials{who.pid, who.uid, who.gid};
#elif defined(LOCAL_PEERCRED) && defined(SOL_LOCAL)
  xucred who{};
  const auto size =
      detail::get_option_of(resource_.get(), SOL_LOCAL, LOCAL_PEERCRED, &who, sizeof who, "credentials");
  if (!size) return size.error();
  pid_t process = -1;
#if defined(LOCAL_PEERPID)
  static_cast<void>(
      detail::read_option(resource_->core().system(), native_handle(), SOL_LOCAL, LOCAL_PEERPID, process));
#endif
  return peer_credentials{process, who.cr_uid, who.cr_groups[0]};
#else
  return error(*this ? errc::not_supported : errc::closed_resource, 0, "credentials");
#endif
}

ANYIO_NET_FN result<std::pair<unix_stream, unix_stream>> create_unix_stream_pair() {
  detail::loop_core& core = detail::loop_core::current();
  int fds[2];
  if (const int status = core.system().open_pair(AF_UNIX, SOCK_STREAM, fds); status < 0)
    return error(errc::os_error, -status, "create_unix_stream_pair");
  unique_fd ends[2] = {unique_fd(fds[0]), unique_fd(fds[1])};
  unix_stream made[2];
  for (int i = 0; i < 2; ++i) {
    auto end = detail::socket_access::make_unix(core, fds[i], nullptr, nullptr, "create_unix_stream_pair");
    if (!end) return end.error();
    static_cast<void>(ends[i].release());
    made[i] = *std::move(end);
  }
  return std::pair<unix_stream, unix_stream>(std::move(made[0]), std::move(made[1]));
}

}}  // namespace anyio

// == stream/socket_waits.ipp ======================================================================

// Peeking, readiness, and the two ways in which a socket of another origin begins or ends: `from_fd`,
// `abort`.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN bool peek_operation::attempt(result<std::size_t>& out) {
  socket_resource& r = *resource_;
  if (r.ended()) return complete(out, r.end_of_reading(0, name));
  if (r.exhausted[read_side]) return false;
  const std::size_t size = into_.size() < loop_core::most_of_call ? into_.size() : loop_core::most_of_call;
  const ::iovec part{into_.data(), size};
  message m{std::span(&part, 1)};
  m.peek = true;
  const ssize_t n = r.core().system().receive_message(r.descriptor(), m);
  r.core().count_work(n > 0 ? static_cast<std::size_t>(n) : 0);
  if (n > 0) return complete(out, static_cast<std::size_t>(n));
  if (r.must_wait(read_side, n)) return false;
  return complete(out, r.end_of_reading(static_cast<int>(-n), name));
}

/// A socket that is not ready reports an edge once it is.
ANYIO_NET_FN int look_at_readiness(socket_resource& r, side s) {
  if (s == read_side && r.ended()) return 1;
  if (r.exhausted[s]) return 0;
  const int bits = r.core().system().poll_now(r.descriptor(), s == read_side ? ready_read : ready_write);
  r.core().count_work(0);
  if (bits < 0) return bits;
  const std::uint32_t wanted = s == read_side ? ready_read | ready_end : ready_write;
  r.exhausted[s] = (static_cast<std::uint32_t>(bits) & wanted) == 0;
  return r.exhausted[s] ? 0 : 1;
}

}  // namespace detail

ANYIO_NET_FN detail::peek_operation socket_stream::peek(mutable_buffer into) {
  return {detail::ref<detail::socket_resource>(resource()), into};
}

ANYIO_NET_FN detail::readiness_operation<detail::read_side> socket_stream::wait_readable() {
  return detail::readiness_operation<detail::read_side>(detail::ref<detail::socket_resource>(resource()));
}

ANYIO_NET_FN detail::readiness_operation<detail::write_side> socket_stream::wait_writable() {
  return detail::readiness_operation<detail::write_side>(detail::ref<detail::socket_resource>(resource()));
}

ANYIO_NET_COLD void socket_stream::abort() noexcept {
  if (!resource_) return;
  // In a forked child the connection belongs to the parent too, and closing it here must not end it.
  if (!resource_->gone() && !resource_->core().inherited()) {
    const ::linger at_once{1, 0};
    static_cast<void>(resource_->core().system().set_option(native_handle(), SOL_SOCKET, SO_LINGER, &at_once,
                                                            sizeof at_once));
  }
  close();
}

ANYIO_NET_COLD result<socket_stream> socket_stream::from_fd(int fd) {
  detail::loop_core& core = detail::loop_core::current();
  detail::wanted_socket wanted{"socket_stream", false, SOCK_STREAM, true};
  wanted.any_family = true;
  const auto past = detail::adopt_socket(core.system(), fd, wanted);
  if (!past) return past.error();
  const bool is_unix = past->local.storage.ss_family == AF_UNIX;
  int status = 0;
  detail::ref<detail::socket_resource> r(new detail::socket_resource(core, fd, is_unix, status));
  if (status < 0) return error(errc::os_error, -status, wanted.what);
  return detail::socket_access::with_past(result<socket_stream>(detail::socket_access::wrap(std::move(r))),
                                          *past);
}

}}  // namespace anyio

// == stream/stream.ipp ============================================================================

// The operations of byte streams.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN std::span<const ::iovec> outgoing::gather(::iovec (&into)[parts_of_call]) const noexcept {
  std::size_t room = loop_core::most_of_call;
  std::size_t n = 0;
  for (; n < parts_of_call && n < count() && room != 0; ++n) {
    const const_buffer bytes = piece(n);
    into[n] = {const_cast<std::byte*>(bytes.data()), std::min(bytes.size(), room)};
    room -= into[n].iov_len;
  }
  return {into, n};
}

ANYIO_NET_FN progress stream_resource::receive_view(std::size_t max_bytes, result<std::string_view>& out) {
  const mutable_buffer room = core().buffer();
  result<std::size_t> size = result_access::room<std::size_t>();
  const progress p = receive(mutable_buffer(room.data(), std::min(max_bytes, room.size())), size);
  if (p != progress::done) return p;
  if (size.has_value()) {
    out = std::string_view(reinterpret_cast<const char*>(room.data()), *size);
  } else {
    out = size.error();
  }
  return progress::done;
}

ANYIO_NET_FN progress stream_resource::send_piece(const_buffer data, std::size_t& sent, result<void>& out) {
  outgoing piece({&data, 1});
  const progress p = send(piece, out);
  sent += piece.sent();
  return p;
}

}  // namespace detail

ANYIO_NET_FN errc send_operation::check() const noexcept {
  const errc e = resource_operation::check();
  if (e == errc::ok && resource_->eof_sent()) return errc::closed_resource;
  return e;
}

ANYIO_NET_FN bool send_operation::transfer(result<void>& out) {
  if (std::exchange(restart_, false)) {
    sent_ = 0;
    bytes_.start_over();
    if (!parts_.empty()) bytes_.set_view({});
  }
  detail::progress p;
  if (parts_.empty()) {
    const const_buffer all = bytes_.data();
    const std::size_t done = sent_ - bytes_.dropped();
    p = resource_->send_piece(const_buffer(all.data() + done, all.size() - done), sent_, out);
  } else {
    p = transfer_parts(out);
  }
  if (settle(p)) {
    restart_ = true;
    return true;
  }
  keep_loan();
  return false;
}

ANYIO_NET_FN detail::progress send_operation::transfer_parts(result<void>& out) {
  detail::outgoing data = rest_of_parts();
  const detail::progress p = data.rests() ? detail::progress::again : resource_->send(data, out);
  sent_ += data.sent();
  bytes_.set_view(const_buffer(data.parts().data(), data.offset()));
  return p;
}

ANYIO_NET_FN detail::outgoing send_operation::rest_of_parts() const noexcept {
  const const_buffer place = bytes_.data();
  if (place.data() == nullptr) return detail::outgoing(parts_);
  const auto* first = static_cast<const const_buffer*>(static_cast<const void*>(place.data()));
  return detail::outgoing({first, parts_.data() + parts_.size()}, place.size());
}

// A view that the caller received earlier is no longer valid, so this looks only for bytes that were lent
// just now, and only among few pieces. With many pieces, or many bytes to copy, it keeps the whole buffer.
ANYIO_NET_COLD void send_operation::keep_loan() {
  if (!resource_) return;
  const detail::loop_core& loop = resource_->core();
  if (parts_.empty()) return bytes_.keep(loop, sent_ - bytes_.dropped());
  if (!loop.buffer_was_lent()) return;
  const detail::outgoing rest = rest_of_parts();
  if (rest.rests() || rest.count() > detail::outgoing::parts_of_call) return bytes_.keep_buffer(loop);
  bool lent = false;
  std::size_t size = 0;
  for (std::size_t i = 0; i < rest.count(); ++i) {
    lent = lent || loop.in_buffer(rest.piece(i).data());
    size += rest.piece(i).size();
  }
  if (!lent) return;
  if (size > detail::loop_core::buffer_size) return bytes_.keep_buffer(loop);
  std::string owned(size, '\0');
  char* to = owned.data();
  for (std::size_t i = 0; i < rest.count(); ++i) {
    const const_buffer piece = rest.piece(i);
    if (!piece.empty()) std::memcpy(to, piece.data(), piece.size());
    to += piece.size();
  }
  bytes_ = detail::lent_bytes(std::move(owned), sent_);
  parts_ = {};
}

ANYIO_NET_FN bool send_operation::attempt(result<void>& out) {
  if (!over_) return transfer(out);
  if (outcome_.code() == errc::ok) {
    out = result<void>();
  } else {
    out = outcome_;
  }
  return true;
}

ANYIO_NET_FN void send_operation::started() {
  if (early != errc::ok) return;
  result<void> out;
  again = false;
  if (!transfer(out)) return;
  over_ = true;
  outcome_ = out.error();
}

ANYIO_NET_FN void send_operation::left() noexcept {
  over_ = false;
  restart_ = true;
}

ANYIO_NET_FN errc aclose_operation::enter() noexcept {
  if (!begun_ && resource_ && resource_->open()) start_closing();
  if (begun_) resource_->set_waiting(detail::read_side, this);
  return errc::ok;
}

// The waiting operations are woken before this operation takes the reader's place.
ANYIO_NET_FN void aclose_operation::start_closing() noexcept {
  constexpr std::chrono::seconds patience(1);
  begun_ = true;
  resource_->begin_closing();
  detail::loop_core& loop = resource_->core();
  loop.arm(patience_, detail::add(loop.now(), patience), *this);
}

ANYIO_NET_FN bool aclose_operation::attempt(result<void>& out) {
  if (!resource_ || resource_->gone() || (!begun_ && !resource_->open())) {
    out = result<void>();  // closed, or another operation is closing it already
    return true;
  }
  if (!begun_) start_closing();
  if (patience_.armed() && !settle(resource_->finish())) return false;
  patience_.cancel();
  begun_ = false;
  resource_->close();
  out = result<void>();
  return true;
}

ANYIO_NET_FN void aclose_operation::left() noexcept { abandon(); }

ANYIO_NET_FN void aclose_operation::abandon() noexcept {
  patience_.cancel();
  if (std::exchange(begun_, false) && resource_) resource_->close();
}

ANYIO_NET_FN aclose_operation& aclose_operation::operator=(aclose_operation&& other) noexcept {
  abandon();
  stream_operation::operator=(std::move(other));
  return *this;
}

ANYIO_NET_FN aclose_operation::~aclose_operation() { abandon(); }

ANYIO_NET_FN byte_stream& byte_stream::operator=(byte_stream&& other) noexcept {
  if (this == &other) return *this;
  close();
  resource_ = std::move(other.resource_);
  return *this;
}

ANYIO_NET_FN byte_stream::~byte_stream() { close(); }

}}  // namespace anyio

// == connection/connect.ipp =======================================================================

// The steps of connecting.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// --- one address

ANYIO_NET_FN bool connect_attempt::attempt(result<tcp_stream>& out) {
  return resource_ ? finish_connect(out) : begin_connect(out);
}

ANYIO_NET_FN bool connect_attempt::begin_connect(result<tcp_stream>& out) {
  loop_core& loop = loop_core::current();
  backend& system = loop.system();
  const bool is_mapped_v4 = is_mapped(target_.address);
  new_socket made(system, family_of(target_.address), SOCK_STREAM);
  if (settings_.no_delay) made.set_option(IPPROTO_TCP, TCP_NODELAY, 1);
  // On some systems an IPv6 socket reaches IPv4 only with this off.
  if (is_mapped_v4) made.set_option(IPPROTO_IPV6, IPV6_V6ONLY, 0);
  made.prepare(settings_.prepare, settings_.prepare_data);
  // connect(2) has no flag for non-blocking calls.
  if (settings_.prepare != nullptr && !made.failed()) system.keep_non_blocking(made.fd());
  if (settings_.local) {
    ip_endpoint local = *settings_.local;
    if (is_mapped_v4) local.address = mapped(local.address);
    // An error does not matter here: binding reports what is wrong.
    if (local.port != 0 && !made.failed()) write_option(system, made.fd(), SOL_SOCKET, SO_REUSEADDR, int{1});
    made.bind(socket_address(local));
  }
  bool waits = false;
  made.step("connect", [&] {
    const socket_address to(target_);
    const int status = system.connect(made.fd(), to.get(), to.size);
    waits = status == -EINPROGRESS;
    if (status < 0 && !waits) return status;
    // Watched only now: pollers report a socket that was never connected as hung up.
    int watched = 0;
    ref<tcp_resource> r(new tcp_resource(loop, made.fd(), watched));
    if (watched >= 0) resource_ = std::move(r);
    return watched;
  });
  if (made.failed()) return complete(out, made.failure());
  made.taken_over();
  resource_->set_waiting(write_side, this);
  return waits ? false : finish_connect(out);
}

ANYIO_NET_FN bool connect_attempt::finish_connect(result<tcp_stream>& out) {
  backend& system = resource_->core().system();
  const int fd = resource_->descriptor();
  int error_number = 0;
  if (int status = read_option(system, fd, SOL_SOCKET, SO_ERROR, error_number); status < 0)
    error_number = -status;
  if (error_number != 0) return complete(out, error(errc::os_error, error_number, name));
  socket_address peer;
  if (int status = read_address(system, fd, peer, true); status < 0) {
    // After a spurious wake-up the attempt continues. After an immediate reset there is no peer either.
    const int bits = status == -ENOTCONN ? system.poll_now(fd, ready_write) : 0;
    if (bits == 0) return false;
    return complete(out, error(errc::os_error, status == -ENOTCONN ? ECONNRESET : -status, name));
  }
  const ip_endpoint local = local_address_of(system, fd).endpoint();
  const ip_endpoint remote{unmapped(target_.address), target_.port};
  if (local == remote) {  // simultaneous open with itself: no listener exists there
    return complete(out, error(errc::os_error, ECONNREFUSED, name));
  }
  resource_->set_waiting(write_side, nullptr);
  resource_->exhausted[write_side] = false;
  resource_->local = local;
  resource_->remote = remote;
  return complete(out, socket_access::wrap_tcp(std::move(resource_)));
}

// --- several addresses

ANYIO_NET_FN connect_tcp_operation::connect_tcp_operation(std::string_view host, std::uint16_t port,
                                                          const tcp_connect_options& options)
    : operation(true),
      host_(host),
      local_host_(options.local_host),
      port_(port),
      local_port_(options.local_port),
      family_(options.family),
      delay_(options.happy_eyeballs_delay),
      settings_{std::nullopt, options.no_delay, options.prepare, options.prepare_data} {
  // An address in text needs no look-up and no memory for one; the look-up rejects one of another family.
  const result<ip_address> address = ip_address::parse(host);
  if (address && (family_ == AF_UNSPEC || family_ == family_of(*address)))
    target_ = ip_endpoint{*address, port};
}

ANYIO_NET_FN connect_tcp_operation::connect_tcp_operation(const ip_endpoint& target,
                                                          const tcp_connect_options& options)
    : connect_tcp_operation(std::string_view(), target.port, options) {
  target_ = target;
}

ANYIO_NET_FN connect_tcp_operation& connect_tcp_operation::operator=(connect_tcp_operation&& other) noexcept {
  left();
  operation::operator=(std::move(other));
  host_ = std::move(other.host_);
  local_host_ = std::move(other.local_host_);
  target_ = other.target_;
  port_ = other.port_;
  local_port_ = other.local_port_;
  family_ = other.family_;
  delay_ = other.delay_;
  settings_ = other.settings_;
  return *this;
}

ANYIO_NET_FN void connect_tcp_operation::left() noexcept {
  names_.reset();
  head_start_.cancel();
  while (attempts_.linked()) delete static_cast<racing_attempt*>(attempts_.next);
  running_ = next_ = 0;
  stage_ = stage::fresh;
  locals_.clear();
  targets_.clear();
  first_failure_ = error();
}

ANYIO_NET_FN bool connect_tcp_operation::attempt(result<tcp_stream>& out) {
  switch (stage_) {
    case stage::fresh:
      if (!local_host_.empty()) return look_up(stage::local_name, local_host_, local_port_, family_, out);
      if (!target_) return look_up(stage::name, host_, port_, family_, out);
      return begin_race(out);
    case stage::local_name:
    case stage::name:
      return arrived_ != nullptr && take_names(std::move(*std::exchange(arrived_, nullptr)), out);
    case stage::race: return go_on(out);
  }
  return false;
}

ANYIO_NET_FN bool connect_tcp_operation::look_up(stage s, const std::string& host, std::uint16_t port,
                                                 int family, result<tcp_stream>& out) {
  stage_ = s;
  names_ = std::make_unique<resolve_operation>(host, port, family);
  result<std::vector<ip_endpoint>> r(errc::cancelled);
  if (names_->attempt_for_parent(r)) return take_names(std::move(r), out);
  names_->start(names_came{this});
  return false;
}

ANYIO_NET_FN void connect_tcp_operation::names_came::operator()(result<std::vector<ip_endpoint>>&& r) const {
  self->arrived_ = &r;
  self->run_now();
}

ANYIO_NET_FN bool connect_tcp_operation::take_names(result<std::vector<ip_endpoint>>&& r,
                                                    result<tcp_stream>& out) {
  if (!r.has_value()) return complete(out, result_access::failure<tcp_stream>(r));
  if (stage_ == stage::local_name) {
    locals_ = *std::move(r);
    if (target_) return begin_race(out);
    // Addresses that the local end cannot reach need no query.
    const auto has = [&](bool v6) {
      return std::any_of(locals_.begin(), locals_.end(),
                         [&](const ip_endpoint& e) { return e.address.is_v6() == v6; });
    };
    const int family = has(true) == has(false) ? family_ : has(true) ? AF_INET6 : AF_INET;
    return look_up(stage::name, host_, port_, family, out);
  }
  targets_ = *std::move(r);
  // Otherwise the reported error could be that of an address whose family this machine lacks.
  drop_missing_families(loop_core::current().system(), targets_);
  return begin_race(out);
}

/// RFC 8305, section 4: the families alternate, beginning with that of the first address.
inline void interleave_families(std::vector<ip_endpoint>& all) {
  for (std::size_t i = 1; i < all.size(); ++i) {
    const bool wanted = !all[i - 1].address.is_v6();
    const auto place = all.begin() + static_cast<std::ptrdiff_t>(i);
    const auto found =
        std::find_if(place, all.end(), [&](const ip_endpoint& e) { return e.address.is_v6() == wanted; });
    if (found == all.end()) return;
    std::rotate(place, found, found + 1);
  }
}

ANYIO_NET_FN bool connect_tcp_operation::begin_race(result<tcp_stream>& out) {
  stage_ = stage::race;
  if (target_ && family_ != AF_UNSPEC && family_ != family_of(target_->address))
    return complete(out, error(errc::os_error, EAFNOSUPPORT, name));
  interleave_families(targets_);
  start_next();
  return go_on(out);
}

ANYIO_NET_FN void connect_tcp_operation::start_next() {
  const std::size_t count = target_ ? 1 : targets_.size();
  if (next_ == count) return;
  const ip_endpoint& target = target_ ? *target_ : targets_[next_];
  connect_settings settings = settings_;
  if (!local_host_.empty()) {
    // Without a local address of the family the attempt fails in bind, with the first local address.
    const auto found = std::find_if(locals_.begin(), locals_.end(),
                                    [&](const ip_endpoint& e) { return may_reach(e, target); });
    settings.local = found == locals_.end() ? locals_.front() : *found;
  } else if (local_port_ != 0) {
    settings.local = ip_endpoint{any_address(target.address.is_v6()), local_port_};
  }
  auto* a = new racing_attempt(connect_attempt(target, settings));
  a->is_first = next_++ == 0;
  attempts_.insert_before(*a);
  ++running_;
  a->op.start(attempt_ended{this, a});
  loop_core& loop = loop_core::current();
  if (next_ < count) loop.arm(head_start_, add(loop.now(), std::max(delay_, duration::zero())), *this);
}

ANYIO_NET_FN bool connect_tcp_operation::go_on(result<tcp_stream>& out) {
  if (won_ != nullptr) return complete(out, std::move(*std::exchange(won_, nullptr)));
  const std::size_t count = target_ ? 1 : targets_.size();
  if (running_ == 0 && next_ == count) return complete(out, first_failure_);
  if (next_ < count && !head_start_.armed()) start_next();
  return false;
}

ANYIO_NET_FN void connect_tcp_operation::ended(racing_attempt& which, result<tcp_stream>&& r) {
  const bool first = which.is_first;
  delete &which;
  --running_;
  if (r.has_value() || result_access::is_foreign(r)) {  // an exception from `prepare` also ends the race
    won_ = &r;
  } else {
    // The error of the first address tried, if it failed. It may still run when a later one has failed.
    if (first || first_failure_.code() == errc::ok) first_failure_ = r.error();
    head_start_.cancel();  // the next address begins at once
  }
  this->run_now();
}

// --- UNIX

ANYIO_NET_FN bool connect_unix_operation::attempt(result<unix_stream>& out) {
  constexpr std::chrono::milliseconds first_pause(1);
  constexpr std::chrono::milliseconds longest_pause(50);
  if (pause_.armed()) return false;
  loop_core& loop = loop_core::current();
  backend& system = loop.system();
  const auto fail = [&](int error_number, const char* step) {
    out = error(errc::os_error, error_number, step);
    fd_.reset();
    return true;
  };
  const result<unix_address> address = make_unix_address(path_, name);
  if (!address) return complete(out, address.error());
  if (!fd_) {
    const int fd = system.open_socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return fail(-fd, "socket");
    fd_.reset(fd);
    next_pause_ = first_pause;
  }
  const int status =
      system.connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address->storage), address->size);
  if (status == -EAGAIN) {  // the backlog is full, and no event reports when it has room
    loop.arm(pause_, add(loop.now(), next_pause_), *this);
    next_pause_ = std::min<duration>(next_pause_ * 2, longest_pause);
    return false;
  }
  if (status < 0) return fail(-status, name);
  std::string local = local_address_of(system, fd_.get()).path();
  out = socket_access::make_unix(loop, fd_.get(), shared_path(std::move(local)), shared_path(path_), name);
  if (out.has_value()) static_cast<void>(fd_.release());
  return true;
}

// --- listening at a name

ANYIO_NET_FN bool create_tcp_listener_operation::attempt(result<tcp_listener>& out) {
  loop_core& loop = loop_core::current();
  const bool known =
      options_.family == AF_UNSPEC || options_.family == AF_INET || options_.family == AF_INET6;
  if (!known) return complete(out, error(errc::os_error, EAFNOSUPPORT, name));
  if (host_.empty()) {
    bool dual_stack = false;
    auto addresses = any_addresses(loop.system(), options_.family, options_.local_port, dual_stack);
    return complete(out, listen_tcp(loop, std::move(addresses), dual_stack, options_));
  }
  result<std::vector<ip_endpoint>> names(errc::cancelled);
  if (!ask(host_, options_.local_port, options_.family, names)) return false;
  if (!names.has_value()) return complete(out, result_access::failure<tcp_listener>(names));
  drop_missing_families(loop.system(), *names);
  return complete(out, listen_tcp(loop, *std::move(names), false, options_));
}

}}}  // namespace anyio::detail

// == connection/listener.ipp ======================================================================

// Listening sockets: how they are made, and the errors of accepting.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_COLD int listener_resource::add(int fd, const ip_endpoint& local, bool transparent) {
  const bool any = local.address == ip_address::any_v4() || local.address == ip_address::any_v6();
  sockets.reserve(sockets.size() + 1);  // `sockets` holds only watched descriptors, since `shut` forgets them
  registration watched{fd, 0};
  const int status = core().watch(watched, *this);
  if (status >= 0) sockets.push_back({watched, local, any || transparent});
  return status;
}

ANYIO_NET_COLD void listener_resource::shut() noexcept {
  for (listening_socket& s : sockets) core().forget(s.registration);
  // Not in a forked child: the parent still listens there.
  if (remove_own_file != nullptr && !core().inherited()) remove_own_file(*this);
}

[[gnu::cold]] inline void remove_file_of(const listener_resource& r) {
  file_identity now;
  path_service& paths = paths_of(r.core().system());
  const bool still_own = r.own_file.is_socket && paths.identify(r.own_path.c_str(), now) >= 0 &&
                         now.is_socket && now.device == r.own_file.device && now.inode == r.own_file.inode;
  if (still_own) paths.unlink(r.own_path.c_str());
}

/// Whether an error concerns only one connection, and not the listener (accept(2), "Error handling").
inline bool concerns_one_connection(int e) {
  switch (e) {
    case ECONNABORTED:
    case ECONNRESET:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENETUNREACH:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ETIMEDOUT:
#if defined(ENONET)
    case ENONET:
#endif
      return true;
    default: return false;
  }
}

/// The cost of a connection until its handler runs, in system calls.
inline constexpr std::size_t cost_of_accept = 3;

/// The number of pending connections of a listening TCP socket; 0 where the system does not report it.
inline std::uint32_t waiting_connections([[maybe_unused]] backend& system, [[maybe_unused]] int fd) noexcept {
#if defined(__linux__) && defined(TCP_INFO)
  tcp_info info{};
  if (read_option(system, fd, IPPROTO_TCP, TCP_INFO, info) >= 0) return info.tcpi_unacked;
#endif
  return 0;
}

/// accept(2) has no flag like MSG_DONTWAIT, and another user of the shared socket may have cleared
/// O_NONBLOCK. So the flag is restored before a call that might find no connection. Under load the pending
/// connections are counted instead: that many calls find one each, and the poller reports later ones.
ANYIO_NET_COLD void listener_resource::look(const listening_socket& s) {
  constexpr std::uint32_t looks_of_check = 16;
  const bool is_tcp = s.local.port != 0;
  if (in_a_row_ >= 2 && is_tcp && sockets.size() == 1) {
    known_ = waiting_connections(core().system(), s.registration.fd);
    exhausted[read_side] = known_ >= 2;
    // Another process may accept some of them; then the flag matters.
    if (known_ >= 2 && looks_++ % looks_of_check != 0) return;
    if (known_ < 2) known_ = in_a_row_ = 0;
  }
  core().system().keep_non_blocking(s.registration.fd);
}

ANYIO_NET_FN listener_resource::outcome listener_resource::accept(accepted& a, error& why) {
  if (exhausted[read_side] && known_ == 0) return outcome::waiting;
  std::size_t empty = 0;
  for (int call = 0; call < calls_of_attempt; ++call) {
    const listening_socket& s = sockets[next_ % sockets.size()];
    if (known_ == 0) look(s);
    a.remote.size = sizeof a.remote.storage;
    core().count_work(0, cost_of_accept);
    const int fd = core().system().accept(s.registration.fd, a.remote.get(), &a.remote.size);
    if (fd >= 0) {
      a.fd = fd;
      a.local = s.local;
      a.any_address = s.any_address;
      if (known_ != 0) --known_;
      if (++in_a_row_ % calls_of_attempt == 0) ++next_;  // the other sockets get a turn
      return outcome::connection;
    }
    known_ = 0;
    if (fd == -EAGAIN) {
      in_a_row_ = 0;
      ++next_;
      if (++empty < sockets.size()) continue;
      exhausted[read_side] = true;
      return outcome::waiting;
    }
    exhausted[read_side] = false;
    why = error(errc::os_error, -fd, "accept");
    if (fd == -EMFILE || fd == -ENFILE || is_shortage(fd)) return outcome::shortage;
    if (!concerns_one_connection(-fd)) return outcome::fatal;
    report(why);
    return outcome::again;  // so that each error is reported
  }
  return outcome::again;
}

ANYIO_NET_COLD void listener_resource::pause(timer& t, node& waiter) {
  constexpr std::chrono::milliseconds pause_of_accept(100);
  core().wait_for_descriptor(starved_);
  core().arm(t, core().now() + pause_of_accept, waiter);
}

ANYIO_NET_FN result<tcp_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                              const listener_resource::accepted& a, tcp_stream*) {
  // An error does not matter: the connection may have been reset already.
  if (from.no_delay) write_option(loop.system(), a.fd, IPPROTO_TCP, TCP_NODELAY, int{1});
  return socket_access::make_tcp(loop, a.fd, a.any_address ? nullptr : &a.local, a.remote.endpoint(),
                                 "accept");
}

ANYIO_NET_FN result<unix_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                               const listener_resource::accepted& a, unix_stream*) {
  return socket_access::make_unix(loop, a.fd, from.path, shared_path(a.remote.path()), "accept");
}

#if ANYIO_NET_EXCEPTIONS
ANYIO_NET_COLD void print_exception(const char* where, const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& known) {
    std::fprintf(stderr, "anyio: %s: unhandled exception in a handler: %s\n", where, known.what());
  } catch (...) {
    std::fprintf(stderr, "anyio: %s: unhandled exception of an unknown type in a handler\n", where);
  }
}
#endif

/// Whether a listening socket accepts connections to addresses that are not its own (ip(7)).
[[gnu::cold]] inline bool is_transparent([[maybe_unused]] backend& system, [[maybe_unused]] int fd,
                                         [[maybe_unused]] const ip_endpoint& local) {
#if defined(IP_TRANSPARENT) && defined(IPV6_TRANSPARENT)
  const bool v6 = local.address.is_v6();
  int on = 0;
  const int status =
      read_option(system, fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, on);
  return status >= 0 && on != 0;
#else
  return false;
#endif
}

ANYIO_NET_COLD std::vector<ip_endpoint> any_addresses(backend& system, int family, std::uint16_t port,
                                                      bool& dual_stack) {
  const bool v6 = family != AF_INET && names_of(system).has_family(AF_INET6);
#if defined(__OpenBSD__)  // there a socket has only one family
  dual_stack = false;
  if (v6 && family == AF_UNSPEC)
    return {ip_endpoint{ip_address::any_v6(), port}, ip_endpoint{ip_address::any_v4(), port}};
#else
  dual_stack = v6 && family == AF_UNSPEC;
#endif
  if (v6 || family == AF_INET6) return {ip_endpoint{ip_address::any_v6(), port}};
  return {ip_endpoint{ip_address::any_v4(), port}};
}

/// Opens a listening socket at one address.
[[gnu::cold]] inline new_socket listen_at(backend& system, const ip_endpoint& local, bool dual_stack,
                                          const tcp_listener_options& options) {
  const bool v6 = local.address.is_v6();
  new_socket made(system, family_of(local.address), SOCK_STREAM);
#if defined(SO_REUSEPORT_LB)
  constexpr int share_port = SO_REUSEPORT_LB;  // FreeBSD: SO_REUSEPORT gives one listener all connections
#else
  constexpr int share_port = SO_REUSEPORT;
#endif
  made.set_option(SOL_SOCKET, SO_REUSEADDR, 1);
  if (options.reuse_port) made.set_option(SOL_SOCKET, share_port, 1);
  if (v6) made.set_option(IPPROTO_IPV6, IPV6_V6ONLY, dual_stack || is_mapped(local.address) ? 0 : 1);
  made.prepare(options.prepare, options.prepare_data);
  made.bind(socket_address(local));
  made.listen(options.backlog);
  return made;
}

ANYIO_NET_COLD result<tcp_listener> listen_tcp(loop_core& core, std::vector<ip_endpoint> addresses,
                                               bool dual_stack, const tcp_listener_options& options) {
  backend& system = core.system();
  error last(errc::os_error, EADDRNOTAVAIL, "bind");
  // All addresses share one port. If the kernel chooses it for one address, it may be in use at another, so
  // each address gets to choose once.
  for (std::size_t round = 0; round < addresses.size(); ++round) {
    const std::uint16_t wanted_port = addresses[round].port;
    ref<listener_resource> r(new listener_resource(core));
    r->no_delay = options.no_delay;
    bool in_use = false;
    std::uint16_t port = wanted_port;
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      ip_endpoint at = addresses[(round + i) % addresses.size()];
      if (port != 0) at.port = port;
      new_socket made = listen_at(system, at, dual_stack, options);
      if (made.failed()) {
        last = made.failure();
        const bool chosen_by_kernel = wanted_port == 0 && port != 0;
        if (!chosen_by_kernel || last != std::errc::address_in_use) return last;
        in_use = true;
        break;
      }
      made.step("listen", [&] {
        socket_address address;
        if (const int status = read_address(system, made.fd(), address); status < 0) return status;
        const ip_endpoint local = address.endpoint();
        port = local.port;
        const bool transparent = options.prepare != nullptr && is_transparent(system, made.fd(), local);
        return r->add(made.fd(), local, transparent);
      });
      if (made.failed()) return made.failure();
      made.taken_over();
    }
    if (!in_use) return listener_access::make<tcp_listener>(std::move(r));
  }
  return last;
}

/// Takes over the listening socket that `from_fd` was given.
template <class Listener>
[[gnu::cold]] result<Listener> adopt_listener(int fd, const char* what, bool is_unix) {
  loop_core& core = loop_core::current();
  const auto adopted = adopt_socket(core.system(), fd, {what, is_unix, SOCK_STREAM, false, true});
  if (!adopted) return adopted.error();
  ref<listener_resource> r(new listener_resource(core));
  if (is_unix) r->path = shared_path(adopted->local.path());
  const ip_endpoint local = adopted->local.endpoint();
  const bool transparent = !is_unix && is_transparent(core.system(), fd, local);
  if (int status = r->add(fd, local, transparent); status < 0) return error(errc::os_error, -status, what);
  return listener_access::make<Listener>(std::move(r));
}

}  // namespace detail

ANYIO_NET_COLD result<tcp_listener> tcp_listener::open(ip_endpoint local, tcp_listener_options options) {
  return detail::listen_tcp(detail::loop_core::current(), {local}, false, options);
}

ANYIO_NET_COLD result<tcp_listener> tcp_listener::from_fd(int fd) {
  return detail::adopt_listener<tcp_listener>(fd, "tcp_listener", false);
}

ANYIO_NET_COLD std::vector<ip_endpoint> tcp_listener::local_endpoints() const {
  std::vector<ip_endpoint> all;
  if (resource_)
    for (const auto& s : resource_->sockets) all.push_back(s.local);
  return all;
}

ANYIO_NET_FN std::uint16_t tcp_listener::local_port() const noexcept {
  return resource_ && !resource_->sockets.empty() ? resource_->sockets.front().local.port : std::uint16_t{0};
}

ANYIO_NET_COLD std::vector<int> tcp_listener::native_handles() const {
  std::vector<int> all;
  if (*this)
    for (const auto& s : resource_->sockets) all.push_back(s.registration.fd);
  return all;
}

ANYIO_NET_COLD result<unix_listener> unix_listener::from_fd(int fd) {
  return detail::adopt_listener<unix_listener>(fd, "unix_listener", true);
}

ANYIO_NET_COLD std::string unix_listener::local_path() const {
  return resource_ && resource_->path ? *resource_->path : std::string();
}

ANYIO_NET_FN bool create_unix_listener_operation::attempt(result<unix_listener>& out) {
  detail::loop_core& loop = detail::loop_core::current();
  backend& system = loop.system();
  if (const auto address = detail::make_unix_address(path_, "bind"); !address) {
    return detail::complete(out, address.error());
  }
  detail::ref<detail::listener_resource> r(new detail::listener_resource(loop));
  r->path = detail::shared_path(path_);
  const bool is_file = path_.front() != '\0';
  if (options_.unlink_on_close && is_file) r->own_path = detail::paths_of(system).absolute(path_);
  detail::new_socket made(system, AF_UNIX, SOCK_STREAM);
  detail::bound_file file(made, system, path_, options_.mode);
  made.listen(options_.backlog);
  made.step("listen", [&] { return r->add(made.fd(), ip_endpoint()); });
  if (made.failed()) return detail::complete(out, made.failure());
  made.taken_over();
  file.keep();
  if (options_.unlink_on_close && is_file) {
    detail::paths_of(system).identify(path_.c_str(), r->own_file);
    r->remove_own_file = detail::remove_file_of;
  }
  return detail::complete(out, detail::listener_access::make<unix_listener>(std::move(r)));
}

}}  // namespace anyio

// == connection/resolve.ipp =======================================================================

// Names that need no query, and the results of queries.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_COLD void drop_missing_families(backend& system, std::vector<ip_endpoint>& all) {
  if (all.size() < 2) return;
  const auto is_missing = [&](const ip_endpoint& e) {
    return !names_of(system).has_family(family_of(e.address));
  };
  if (!std::all_of(all.begin(), all.end(), is_missing)) std::erase_if(all, is_missing);
}

ANYIO_NET_FN bool may_reach(const ip_endpoint& local, const ip_endpoint& remote) noexcept {
  return unmapped(local.address).is_v4() == unmapped(remote.address).is_v4();
}

/// Whether a name is `localhost` or a name under it. The trailing dot is removed already.
inline bool is_localhost(std::string_view name) noexcept {
  constexpr std::string_view local = "localhost";
  if (name.size() < local.size()) return false;
  const std::string_view end = name.substr(name.size() - local.size());
  const bool same = std::equal(end.begin(), end.end(), local.begin(), [](char a, char b) {
    return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b;
  });
  return same && (name.size() == local.size() || name[name.size() - local.size() - 1] == '.');
}

ANYIO_NET_FN bool resolve_operation::answer_at_once(result<std::vector<ip_endpoint>>& out) const {
  constexpr std::size_t longest_name = 253;  // RFC 1035 section 2.3.4, as text without the trailing dot
  const auto fail = [&out](errc code, int os_error, const char* reason) {
    return complete(out, error_access::with_reason(error(code, os_error, name), reason));
  };
  if (family_ != AF_UNSPEC && family_ != AF_INET && family_ != AF_INET6) {
    return fail(errc::os_error, EAFNOSUPPORT, nullptr);
  }
  if (host_.empty()) return fail(errc::invalid_argument, 0, "the host is empty");
  for (const char c : host_) {
    if (c == '\0') return fail(errc::invalid_argument, 0, "the host contains a NUL byte");
    if (static_cast<unsigned char>(c) >= 0x80) {
      return fail(errc::invalid_argument, 0, "the host is not ASCII: use the xn-- form");
    }
  }
  if (const result<ip_address> address = ip_address::parse(host_)) {
    if (family_ != AF_UNSPEC && (family_ == AF_INET6) != address->is_v6()) {
      return fail(errc::name_resolution, 0, "the address is not of the requested family");
    }
    out = std::vector<ip_endpoint>(1, ip_endpoint{*address, port_});
    return true;
  }
  std::string_view host = host_;
  if (host.ends_with('.')) host.remove_suffix(1);
  if (host.size() > longest_name) {
    return fail(errc::invalid_argument, 0, "the host is longer than 253 characters");
  }
  if (!is_localhost(host)) return false;
  std::vector<ip_endpoint> both;
  both.reserve(2);
  if (family_ != AF_INET) both.push_back({ip_address::loopback_v6(), port_});
  if (family_ != AF_INET6) both.push_back({ip_address::loopback_v4(), port_});
  return complete(out, std::move(both));
}

ANYIO_NET_FN bool resolve_operation::attempt(result<std::vector<ip_endpoint>>& out) {
  loop_core& loop = core != nullptr ? *core : home();
  if (!call_) {
    if (answer_at_once(out)) return true;
    call_ = helper_call<name_look_up>({loop.share_system(), host_, port_, family_});
  }
  result<resolved> answer(errc::cancelled);
  if (!call_.attempt(loop, *this, name, answer)) return false;
  call_ = {};
  if (!answer.has_value()) return complete(out, result_access::failure<std::vector<ip_endpoint>>(answer));
  if (answer->status < 0 && answer->reason == nullptr)
    return complete(out, error(errc::os_error, -answer->status, name));
  if (answer->status < 0 || answer->endpoints.empty()) {
    const char* reason = answer->reason != nullptr ? answer->reason : "the name has no address";
    return complete(out, error_access::with_reason(error(errc::name_resolution, 0, name), reason));
  }
  // Resolvers report mapped addresses as IPv4, as sockets do; AF_INET6 asks for them as IPv6.
  if (family_ == AF_INET6)
    for (ip_endpoint& e : answer->endpoints) e.address = mapped(e.address);
  return complete(out, std::move(answer->endpoints));
}

ANYIO_NET_FN address_look_up::names address_look_up::operator()() const {
  names found;
  found.status = names_of(*system).reverse(endpoint, found.host, found.service);
  return found;
}

ANYIO_NET_FN bool reverse_operation::attempt(result<name_info>& out) {
  loop_core& loop = core != nullptr ? *core : home();
  if (!call_) call_ = helper_call<address_look_up>({loop.share_system(), endpoint_});
  result<address_look_up::names> answer(errc::cancelled);
  if (!call_.attempt(loop, *this, name, answer)) return false;
  call_ = {};
  if (!answer.has_value()) return complete(out, result_access::failure<name_info>(answer));
  if (answer->status == -ENOENT)
    return complete(
        out, error_access::with_reason(error(errc::name_resolution, 0, name), "the address has no name"));
  if (answer->status < 0) return complete(out, error(errc::os_error, -answer->status, name));
  return complete(out, name_info(std::move(answer->host), std::move(answer->service)));
}

}}}  // namespace anyio::detail

// == connection/unix_bind.ipp =====================================================================

// Binding to a path, and telling a stale socket file from a live one.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Whether the path is a stale socket file, which no open socket uses. The probe is a datagram socket. A
/// socket in use accepts it or reports another type, also if it does not listen or its backlog is full (on
/// the BSDs, a full backlog refuses a stream probe). And a listener gets no connection from this probe.
inline bool is_stale(backend& system, const char* path, const unix_address& address) {
  file_identity before;
  if (paths_of(system).identify(path, before) < 0 || !before.is_socket) return false;
  const int probe = system.open_socket(AF_UNIX, SOCK_DGRAM, 0);
  if (probe < 0) return false;
  const int status = system.connect(probe, reinterpret_cast<const sockaddr*>(&address.storage), address.size);
  system.close(probe);
  if (status != -ECONNREFUSED) return false;
  file_identity after;
  return paths_of(system).identify(path, after) >= 0 && after.is_socket && after.device == before.device &&
         after.inode == before.inode;
}

ANYIO_NET_FN bound_file::bound_file(new_socket& made, backend& system, const std::string& path,
                                    const std::optional<mode_t>& mode)
    : system_(system) {
  if (path.empty()) return;
  const bool is_file = path.front() != '\0';
  made.step("bind", [&] {
    const result<unix_address> address = make_unix_address(path, "bind");
    if (!address) return address.error().os_error() != 0 ? -address.error().os_error() : -EOPNOTSUPP;
    const auto* const name = reinterpret_cast<const sockaddr*>(&address->storage);
    if (is_file && mode)
      paths_of(system).prepare_mode(made.fd(), *mode);  // no process can connect before chmod
    const int status = system.bind(made.fd(), name, address->size);
    if (status != -EADDRINUSE || !is_file || !is_stale(system, path.c_str(), *address)) return status;
    const int removed = paths_of(system).unlink(path.c_str());
    return removed < 0 && removed != -ENOENT ? status : system.bind(made.fd(), name, address->size);
  });
  if (!is_file || made.failed()) return;
  path_ = path.c_str();
  if (mode) made.step("chmod", [&] { return paths_of(system).change_mode(path_, *mode); });
}

}}}  // namespace anyio::detail

// == datagram/datagram.ipp ========================================================================

// The calls of datagram sockets.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN int datagram_resource::watch(int fd) {
  registration watched{fd, 0};
  const int status = core().watch(watched, *this);
  if (status >= 0) registration_ = watched;  // only if it is watched, since `shut` forgets it
  return status;
}

ANYIO_NET_FN void datagram_resource::shut() noexcept {
  if (core().alive()) core().forget(registration_);
  source.reset();
  room_.reset();
}

ANYIO_NET_FN int datagram_resource::receive(std::span<const ::iovec> into, arrival& out) {
  return source ? source->receive(*this, into, out) : receive_from_kernel(into, out);
}

ANYIO_NET_FN int datagram_resource::receive_from_kernel(std::span<const ::iovec> into, arrival& out) {
  if (exhausted[read_side]) return -EAGAIN;
  message m{into, out.from.get(), sizeof out.from.storage};
  const ssize_t n = core().system().receive_message(registration_.fd, m);
  core().count_work(n > 0 ? static_cast<std::size_t>(n) : 0);
  if (n == -EAGAIN) {
    exhausted[read_side] = true;
    return -EAGAIN;
  }
  if (n < 0) return static_cast<int>(n);
  out.size = static_cast<std::size_t>(n);
  out.from.size = m.address_size;
  out.truncated = (m.flags & MSG_TRUNC) != 0;
  return 0;
}

ANYIO_NET_FN int datagram_resource::receive_text(std::string& text, arrival& out) {
  // No UDP datagram is longer than the loop's buffer. A UNIX datagram can be as long as the sender's buffer
  // allows, which is less than 416 KiB with Linux's defaults. That room takes no memory until it is used.
  constexpr std::size_t size_of_room = std::size_t{448} * 1024;
  if (exhausted[read_side] && !source) return -EAGAIN;
  mutable_buffer room;
  if (family_ != AF_UNIX) {
    room = core().buffer();
  } else {
    if (!room_) room_.reset(new std::byte[size_of_room]);
    room = mutable_buffer(room_.get(), size_of_room);
  }
  const ::iovec part{room.data(), room.size()};
  const int status = receive(std::span(&part, 1), out);
  if (status < 0) return status;
  if (out.truncated) return -EMSGSIZE;
  text.assign(reinterpret_cast<const char*>(room.data()), out.size);
  return 0;
}

ANYIO_NET_FN int datagram_resource::send(const_buffer data, const sockaddr* to, socklen_t size) {
  if (exhausted[write_side]) return -EAGAIN;
  core().count_work(data.size());
  ssize_t n = 0;
  if (to == nullptr) {
    n = core().system().send(registration_.fd, data.data(), data.size());
  } else {
    const ::iovec part{const_cast<std::byte*>(data.data()), data.size()};
    n = core().system().send_message(registration_.fd,
                                     message{std::span(&part, 1), const_cast<sockaddr*>(to), size});
  }
  // The BSDs and macOS report a full queue of a UNIX socket with ENOBUFS.
  const bool queue_is_full = family_ == AF_UNIX && n == -ENOBUFS;
  if (n == -EAGAIN || queue_is_full) {
    exhausted[write_side] = true;
    return -EAGAIN;
  }
  return n < 0 ? static_cast<int>(n) : 0;
}

ANYIO_NET_FN error datagram_resource::failure(int status, const char* operation) const noexcept {
  // The peer refused. On a UNIX socket that is not connected, only the path of this send did.
  const bool refused = status == -ECONNREFUSED && (connected_ || family_ != AF_UNIX);
  return error(refused ? errc::broken_resource : errc::os_error, -status, operation);
}

}  // namespace detail

ANYIO_NET_FN result<> datagram_socket::set_option(int level, int name, int value) {
  return detail::set_option_of(resource_.get(), level, name, &value, sizeof value, "set_option");
}

ANYIO_NET_FN result<int> datagram_socket::get_option(int level, int name) const {
  return detail::get_int_option_of(resource_.get(), level, name);
}

}}  // namespace anyio

// == datagram/datagram_connect.ipp ================================================================

// Choosing one of a name's addresses for a UDP socket.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

inline bool is_ip_family(int family) noexcept {
  return family == AF_UNSPEC || family == AF_INET || family == AF_INET6;
}

ANYIO_NET_FN errc create_udp_socket_operation::check() const noexcept {
  const bool enough = options_.family != AF_UNSPEC || !local_host_.empty();
  return made && enough && is_ip_family(options_.family) ? errc::ok : errc::invalid_argument;
}

ANYIO_NET_FN bool create_udp_socket_operation::attempt(result<udp_socket>& out) {
  if (local_host_.empty()) {
    out = udp_socket::open({any_address(options_.family == AF_INET6), options_.local_port}, options_);
    return true;
  }
  result<std::vector<ip_endpoint>> locals(errc::cancelled);
  if (!ask(local_host_, options_.local_port, options_.family, locals)) return false;
  if (!locals) return complete(out, result_access::failure<udp_socket>(locals));
  drop_missing_families(loop_core::current().system(), *locals);
  error first;
  for (const ip_endpoint& local : *locals) {
    out = udp_socket::open(local, options_);
    if (out.has_value()) return true;
    if (first.code() == errc::ok) first = out.error();
    // Only an address that this machine lacks leads to the next address; a port in use does not.
    if (out.error().os_error() != EADDRNOTAVAIL && out.error().os_error() != EAFNOSUPPORT) break;
  }
  return complete(out, first);
}

ANYIO_NET_FN errc create_connected_udp_socket_operation::check() const noexcept {
  return made && is_ip_family(options_.family) ? errc::ok : errc::invalid_argument;
}

ANYIO_NET_FN bool create_connected_udp_socket_operation::attempt(result<connected_udp_socket>& out) {
  result<std::vector<ip_endpoint>> answer(errc::cancelled);
  if (!local_host_.empty() && !local_is_known_) {
    if (!ask(local_host_, options_.local_port, options_.family, answer)) return false;
    if (!answer) return complete(out, result_access::failure<connected_udp_socket>(answer));
    locals_ = *std::move(answer);
    local_is_known_ = true;
  }
  if (has_remote_) {
    const bool other =
        options_.family != AF_UNSPEC && (options_.family == AF_INET6) != remote_.address.is_v6();
    if (other) return complete(out, error(errc::os_error, EAFNOSUPPORT, name));
    return complete(out, connect(std::vector<ip_endpoint>(1, remote_)));
  }
  if (!ask(remote_host_, remote_.port, options_.family, answer)) return false;
  if (!answer) return complete(out, result_access::failure<connected_udp_socket>(answer));
  drop_missing_families(loop_core::current().system(), *answer);
  return complete(out, connect(*answer));
}

ANYIO_NET_FN result<connected_udp_socket> create_connected_udp_socket_operation::connect(
    const std::vector<ip_endpoint>& remotes) const {
  error first;
  for (const ip_endpoint& remote : remotes) {
    result<connected_udp_socket> r(errc::cancelled);
    if (locals_.empty()) {
      r = connected_udp_socket::open(remote, options_);
    } else {
      const auto local = std::find_if(locals_.begin(), locals_.end(),
                                      [&](const ip_endpoint& e) { return may_reach(e, remote); });
      if (local == locals_.end()) {
        r = error(errc::os_error, EAFNOSUPPORT, "bind");
      } else {
        r = connected_udp_socket::open(remote, *local, options_);
      }
    }
    if (r) return r;
    if (first.code() == errc::ok) first = r.error();
  }
  return first;
}

ANYIO_NET_FN void create_connected_udp_socket_operation::left() noexcept {
  withdraw_question();
  local_is_known_ = false;
  locals_.clear();
}

}  // namespace detail

ANYIO_NET_FN bool send_to_host_operation::transfer(result<void>& out) {
  if (!is_known_) {
    result<std::vector<ip_endpoint>> answer(errc::cancelled);
    // AF_UNSPEC: a socket of both families, which `from_fd` can take over, sends to mapped IPv4 addresses.
    if (!ask(host_, to_.port, AF_UNSPEC, answer)) return false;
    if (!answer) return detail::complete(out, detail::result_access::failure<void>(answer));
    const bool v6 = resource_->family() == AF_INET6;
    const auto same_family = [&](const ip_endpoint& e) { return e.address.is_v6() == v6; };
    const auto found = std::find_if(answer->begin(), answer->end(), same_family);
    to_ = found != answer->end() ? *found : answer->front();
    is_known_ = true;
  }
  const detail::socket_address to(to_, resource_->family());
  return settle(resource_->send(bytes_.data(), to.get(), to.size), out);
}

}}  // namespace anyio

// == datagram/udp_batch.ipp =======================================================================

// Batches: recvmmsg(2) and sendmmsg(2), and the pieces of UDP_GRO and UDP_SEGMENT (udp(7)).

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_FN udp_batch::udp_batch(std::size_t count, std::size_t max_size)
    : capacity_(count), max_size_(max_size) {
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max() / 2;  // more than can be allocated
  const bool fits = max_size < most - sizeof(entry) && count < most / (sizeof(entry) + max_size);
  block_.reset(new std::byte[fits ? count * (sizeof(entry) + max_size) : most]);
}

ANYIO_NET_FN void udp_batch::append(std::size_t size, const ip_endpoint& sender, bool truncated) noexcept {
  std::construct_at(entries() + size_, entry{{slot(size_), size}, sender, truncated});
  ++size_;
}

ANYIO_NET_FN bool udp_batch::push(const_buffer data, const ip_endpoint& to) {
  if (size_ == capacity_ || data.size() > max_size_) return false;
  if (!data.empty()) std::memcpy(slot(size_), data.data(), data.size());
  append(data.size(), to, false);
  return true;
}

namespace detail {

#if defined(__linux__)
// Option numbers of the kernel (<linux/udp.h>), which not every C library has.
inline constexpr int udp_segment_option = 103;
inline constexpr int udp_gro_option = 104;
inline constexpr bool has_pieces = true;
#else
inline constexpr int udp_segment_option = 0;
inline constexpr int udp_gro_option = 0;
inline constexpr bool has_pieces = false;
#endif

/// Room for one control message that holds one number.
struct control_room {
  alignas(cmsghdr) unsigned char bytes[CMSG_SPACE(sizeof(int))];
};

/// Room for one such message, after those that socket options add: timestamps, a mark, a drop count.
struct receive_control_room {
  alignas(cmsghdr) unsigned char bytes[CMSG_SPACE(sizeof(int)) + 232];
};

ANYIO_NET_FN batch_source& batch_source::of(datagram_resource& socket) {
  if (!socket.source) socket.source = std::make_unique<batch_source>();
  return static_cast<batch_source&>(*socket.source);
}

ANYIO_NET_FN void batch_source::ask_for_pieces(datagram_resource& socket) {
  asked_for_pieces_ = true;
  if (!has_pieces) return;
  if (write_option(socket.core().system(), socket.descriptor(), IPPROTO_UDP, udp_gro_option, int{1}) < 0)
    return;
  memory_.reset(new std::byte[per_call * room]);  // uninitialized: unused parts take no memory
}

ANYIO_NET_FN void batch_source::ask_for_segments(datagram_resource& socket) {
  asked_for_segments_ = true;
  int value = 0;
  if (!has_pieces) return;
  // A kernel without this option would ignore the control message, and send all data in one datagram.
  if (read_option(socket.core().system(), socket.descriptor(), IPPROTO_UDP, udp_segment_option, value) < 0)
    return;
  segment_limit_ = largest_segmented;
}

// --- receiving

/// The size of the datagrams in a piece, from the message's control data; 0 if it has none.
inline std::size_t segment_of(const message& m) noexcept {
  msghdr header{};
  header.msg_control = m.control;
  header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = next_control(header, c)) {
    if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != udp_gro_option) continue;
    int size = 0;
    std::memcpy(&size, CMSG_DATA(c), sizeof size);
    return size > 0 ? static_cast<std::size_t>(size) : 0;
  }
  return 0;
}

/// Asks the kernel for up to `wanted` messages. Each goes to its slot. Bytes that do not fit there go to its
/// place in the memory, after the room for the slot's part. Returns the number of messages, or a negative
/// errno.
ANYIO_NET_FN int batch_source::fetch(datagram_resource& socket, std::size_t wanted, std::byte* slots,
                                     std::size_t stride) {
  message messages[per_call];
  ::iovec parts[per_call][2];
  std::size_t sizes[per_call];
  receive_control_room control[per_call];
  if (socket.exhausted[read_side]) return -EAGAIN;
  wanted = std::min(wanted, per_call);
  const std::size_t slot_size = std::min(stride, room);
  for (std::size_t i = 0; i < wanted; ++i) {
    parts[i][0] = {slots + i * stride, slot_size};
    std::size_t used = 1;
    if (memory_ && slot_size < room) {
      if (slot_size == 0) used = 0;
      parts[i][used++] = {memory_of(i) + slot_size, room - slot_size};
    }
    messages[i].parts = std::span<const ::iovec>(parts[i], used);
    messages[i].address = pieces_[i].from.get();
    messages[i].address_size = sizeof pieces_[i].from.storage;
    if (!memory_) continue;
    messages[i].control = control[i].bytes;
    messages[i].control_size = sizeof control[i].bytes;
  }
  bool emptied = false;
  const int n = batches_of(socket.core().system())
                    .receive_messages(socket.descriptor(), std::span(messages, wanted),
                                      std::span(sizes, wanted), emptied);
  const bool nothing = n == -EAGAIN || n == 0;
  if (emptied || nothing) socket.exhausted[read_side] = true;
  if (nothing) return -EAGAIN;
  std::size_t bytes = 0;
  for (std::size_t i = 0; n > 0 && i < static_cast<std::size_t>(n); ++i) {
    piece& p = pieces_[i];
    p.size = sizes[i];
    bytes += p.size;
    p.segment = memory_ ? segment_of(messages[i]) : 0;
    if (p.segment >= p.size) p.segment = 0;
    p.used = 0;
    p.from.size = messages[i].address_size;
    p.truncated = (messages[i].flags & MSG_TRUNC) != 0;
  }
  // A message in a batch costs about half as much as a call of its own.
  socket.core().count_work(bytes, 1 + static_cast<std::size_t>(std::max(n, 0)) / 2);
  return n;
}

/// Keeps the fetched messages as left-over pieces: copies the parts in the slots to the other parts.
ANYIO_NET_FN void batch_source::keep_pieces(std::size_t count, const std::byte* slots, std::size_t stride) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t in_slot = std::min({pieces_[i].size, stride, room});
    if (slots != nullptr && in_slot != 0) std::memcpy(memory_of(i), slots + i * stride, in_slot);
  }
  first_ = 0;
  count_ = count;
}

ANYIO_NET_FN std::span<const std::byte> batch_source::next(arrival& out) {
  piece& p = pieces_[first_];
  const std::size_t rest = p.size - p.used;
  const std::size_t size = p.segment != 0 ? std::min(p.segment, rest) : rest;
  const std::span<const std::byte> data(memory_of(first_) + p.used, size);
  p.used += size;
  out.size = size;
  out.from = p.from;
  out.truncated = p.truncated && p.used == p.size;
  if (p.used == p.size) ++first_;
  return data;
}

ANYIO_NET_FN void batch_source::fill(udp_batch& batch) {
  while (has_left_over() && batch.size_ < batch.capacity_) {
    arrival one;
    const std::span<const std::byte> data = next(one);
    const std::size_t size = std::min(data.size(), batch.max_size_);
    if (size != 0) std::memcpy(batch.slot(batch.size_), data.data(), size);
    batch.append(size, one.from.endpoint(), one.truncated || data.size() > size);
  }
}

ANYIO_NET_FN int batch_source::receive(datagram_resource& socket, std::span<const ::iovec> into,
                                       arrival& out) {
  if (!has_left_over()) {
    if (deferred_ != 0) return std::exchange(deferred_, 0);
    if (!memory_) return socket.receive_from_kernel(into, out);
    const int n = fetch(socket, 1, nullptr, 0);
    if (n < 0) return n;
    first_ = 0;
    count_ = 1;
  }
  std::span<const std::byte> data = next(out);
  out.size = 0;
  for (const ::iovec& part : into) {
    const std::size_t size = std::min(part.iov_len, data.size());
    if (size != 0) std::memcpy(part.iov_base, data.data(), size);
    data = data.subspan(size);
    out.size += size;
  }
  if (!data.empty()) out.truncated = true;
  return 0;
}

ANYIO_NET_FN int batch_source::receive_batch(datagram_resource& socket, udp_batch& batch) {
  if (has_left_over()) {
    batch.clear();
    fill(batch);
    return 0;
  }
  if (deferred_ != 0) return std::exchange(deferred_, 0);
  if (!asked_for_pieces_) ask_for_pieces(socket);
  for (std::size_t have = 0;;) {
    const std::size_t wanted = std::min(batch.capacity_ - have, expected_);
    const int n = fetch(socket, wanted, batch.slot(have), batch.max_size_);
    if (n < 0) {
      if (have == 0) return n;
      if (n != -EAGAIN) deferred_ = n;
      return 0;
    }
    if (have == 0) batch.clear();
    const auto count = static_cast<std::size_t>(n);
    expected_ = std::clamp(2 * count, fewest_expected, per_call);
    if (std::any_of(pieces_, pieces_ + count, [](const piece& p) { return p.segment != 0; })) {
      keep_pieces(count, batch.slot(have), batch.max_size_);
      fill(batch);
      return 0;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const piece& p = pieces_[i];
      const std::size_t size = std::min(p.size, batch.max_size_);
      batch.append(size, p.from.endpoint(), p.truncated || p.size > size);
    }
    have += count;
    if (count < wanted || have == batch.capacity_ || have >= most_of_attempt) return 0;
  }
}

// --- sending

ANYIO_NET_FN std::size_t batch_source::run_length(const udp_batch& batch, std::size_t i,
                                                  bool connected) const noexcept {
  const udp_batch::entry& first = batch[i];
  const std::size_t segment = first.data.size();
  if (segment == 0 || segment > segment_limit_) return 1;
  std::size_t total = segment;
  std::size_t n = 1;
  while (i + n < batch.size() && n < most_segments) {
    const udp_batch::entry& other = batch[i + n];
    const std::size_t size = other.data.size();
    if (size == 0 || size > segment || total + size > largest_segmented) break;
    if (!connected && other.sender != first.sender) break;
    total += size;
    ++n;
    if (size < segment) break;  // only the last one may be shorter
  }
  return n;
}

/// Whether a send may have failed because it was a piece; the limit of the socket is lowered then.
inline bool refuses_pieces(int status) noexcept {
  return status == -EINVAL || status == -EMSGSIZE || status == -EIO || status == -EOPNOTSUPP ||
         status == -ENOPROTOOPT;
}

ANYIO_NET_FN int batch_source::send_batch(datagram_resource& socket, const udp_batch& batch,
                                          std::size_t& sent) {
  constexpr std::size_t most_parts = 256;
  if (!asked_for_segments_) ask_for_segments(socket);
  message messages[per_call];
  ::iovec parts[most_parts];
  std::size_t runs[per_call];
  socket_address addresses[per_call];
  control_room control[per_call];
  const std::size_t before = sent;
  while (sent < batch.size()) {
    if (socket.exhausted[write_side]) return -EAGAIN;
    std::size_t count = 0;
    std::size_t used = 0;
    for (std::size_t i = sent; i < batch.size() && count < per_call; ++count) {
      const std::size_t run = run_length(batch, i, socket.connected());
      if (used + run > most_parts) break;
      for (std::size_t k = 0; k < run; ++k) {
        const std::span<const std::byte> data = batch[i + k].data;
        parts[used + k] = {const_cast<std::byte*>(data.data()), data.size()};
      }
      message& m = messages[count];
      m = message{};
      m.parts = std::span<const ::iovec>(parts + used, run);
      if (!socket.connected()) {
        addresses[count].set(batch[i].sender, socket.family());
        m.address = addresses[count].get();
        m.address_size = addresses[count].size;
      }
      if (run > 1) {
        std::memset(&control[count], 0, sizeof control[count]);
        msghdr header{};
        header.msg_control = m.control = control[count].bytes;
        m.control_size = CMSG_SPACE(sizeof(std::uint16_t));
        header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
        cmsghdr* c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = udp_segment_option;
        c->cmsg_len = static_cast<decltype(c->cmsg_len)>(CMSG_LEN(sizeof(std::uint16_t)));
        const auto segment = static_cast<std::uint16_t>(batch[i].data.size());
        std::memcpy(CMSG_DATA(c), &segment, sizeof segment);
      }
      runs[count] = run;
      used += run;
      i += run;
    }
    const int n = batches_of(socket.core().system())
                      .send_messages(socket.descriptor(), std::span<const message>(messages, count));
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < used; ++i) bytes += parts[i].iov_len;
    socket.core().count_work(bytes, count);
    if (n == -EAGAIN || n == 0) {
      socket.exhausted[write_side] = true;
      return -EAGAIN;
    }
    if (n < 0) {
      if (runs[0] == 1 || !refuses_pieces(n)) return n;
      // Too long for the path, or pieces are impossible there: such datagrams go one by one from here on.
      const bool too_long = n == -EINVAL || n == -EMSGSIZE;
      segment_limit_ = too_long ? batch[sent].data.size() - 1 : 0;
      continue;
    }
    for (int i = 0; i < n; ++i) sent += runs[i];
    if (sent < batch.size() && sent - before >= per_call && socket.core().share_spent()) return 1;
  }
  return 0;
}

}  // namespace detail

ANYIO_NET_FN errc receive_batch_operation::check() const noexcept {
  if (batch_ == nullptr || batch_->capacity() == 0 || batch_->max_size() == 0) return errc::invalid_argument;
  return resource_operation::check();
}

ANYIO_NET_FN bool receive_batch_operation::attempt(result<std::size_t>& out) {
  const int status = detail::batch_source::of(*resource_).receive_batch(*resource_, *batch_);
  if (status == -EAGAIN) return false;
  if (status < 0) return detail::complete(out, resource_->failure(status, name));
  return detail::complete(out, batch_->size());
}

ANYIO_NET_FN bool send_batch_operation::attempt(result<std::size_t>& out) {
  if (std::exchange(restart_, false)) sent_ = 0;
  const int status = detail::batch_source::of(*resource_).send_batch(*resource_, *batch_, sent_);
  again = status == 1;
  if (again || status == -EAGAIN) return false;
  if (status < 0 && sent_ == 0) return detail::complete(out, resource_->failure(status, name));
  return detail::complete(out, sent_);
}

}}  // namespace anyio

// == datagram/udp_socket.ipp ======================================================================

// Opening UDP sockets, and their multicast options.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

static_assert(sizeof(udp_resource) <= recycler::block_size_of[recycler::descriptors]);

/// Opens a socket. `remote` or `local` may be null, but not both.
inline result<ref<udp_resource>> open_udp(const ip_endpoint* local, const ip_endpoint* remote,
                                          const udp_options& options) {
  loop_core& core = loop_core::current();
  backend& system = core.system();
  const int family = family_of((remote != nullptr ? remote : local)->address);
  const bool mapped =
      (local != nullptr && is_mapped(local->address)) || (remote != nullptr && is_mapped(remote->address));
  new_socket socket(system, family, SOCK_DGRAM);
  if (family == AF_INET6) socket.set_option(IPPROTO_IPV6, IPV6_V6ONLY, mapped ? 0 : 1);
  if (options.reuse_address) socket.set_option(SOL_SOCKET, SO_REUSEADDR, 1);
  if (options.reuse_port) socket.set_option(SOL_SOCKET, SO_REUSEPORT, 1);
  socket.prepare(options.prepare, options.prepare_data);
  if (local != nullptr) socket.bind(socket_address(*local, family));
  if (remote != nullptr) {
    const socket_address to(*remote, family);
    socket.connect(to.get(), to.size);
  }
  socket_address own;
  socket.step("bind", [&] { return read_address(system, socket.fd(), own); });
  ref<udp_resource> made(new udp_resource(core, family, remote != nullptr));
  socket.step("watch", [&] { return made->watch(socket.fd()); });
  if (socket.failed()) return socket.failure();
  made->local = own.endpoint();
  if (remote != nullptr) made->remote = {unmapped(remote->address), remote->port};
  socket.taken_over();
  return made;
}

inline result<ref<udp_resource>> adopt_udp(int fd, bool connected, const char* what) {
  loop_core& core = loop_core::current();
  const auto adopted = adopt_socket(core.system(), fd, {what, false, SOCK_DGRAM, connected});
  if (!adopted) return adopted.error();
  ref<udp_resource> made(new udp_resource(core, adopted->local.storage.ss_family, connected));
  made->local = adopted->local.endpoint();
  made->remote = adopted->remote.endpoint();
  if (!connected && made->local.port == 0) return refusal_of(what, 0, "the socket is not bound");
  if (const int status = made->watch(fd); status < 0) return error(errc::os_error, -status, what);
  return made;
}

}  // namespace detail

ANYIO_NET_FN bool send_to_operation::transfer(result<void>& out) {
  const detail::socket_address to(to_, resource_->family());
  return settle(resource_->send(bytes_.data(), to.get(), to.size), out);
}

ANYIO_NET_FN result<udp_socket> udp_socket::open(const ip_endpoint& local, const udp_options& options) {
  return detail::datagram_access::wrap<udp_socket>(detail::open_udp(&local, nullptr, options));
}

ANYIO_NET_FN result<udp_socket> udp_socket::from_fd(int fd) {
  return detail::datagram_access::wrap<udp_socket>(detail::adopt_udp(fd, false, "udp_socket"));
}

ANYIO_NET_FN result<connected_udp_socket> connected_udp_socket::open(const ip_endpoint& remote,
                                                                     const udp_options& options) {
  if (options.local_port == 0)
    return detail::datagram_access::wrap<connected_udp_socket>(detail::open_udp(nullptr, &remote, options));
  return open(remote, {detail::any_address(remote.address.is_v6()), options.local_port}, options);
}

ANYIO_NET_FN result<connected_udp_socket> connected_udp_socket::open(const ip_endpoint& remote,
                                                                     const ip_endpoint& local,
                                                                     const udp_options& options) {
  return detail::datagram_access::wrap<connected_udp_socket>(detail::open_udp(&local, &remote, options));
}

ANYIO_NET_FN result<connected_udp_socket> connected_udp_socket::from_fd(int fd) {
  return detail::datagram_access::wrap<connected_udp_socket>(
      detail::adopt_udp(fd, true, "connected_udp_socket"));
}

// --- multicast

namespace detail {

inline bool is_given(const ip_address& a) noexcept { return a != ip_address(); }

inline in_addr to_in_addr(const ip_address& a) noexcept {
  in_addr raw;
  std::memcpy(&raw, a.bytes().data(), sizeof raw);
  return raw;
}

}  // namespace detail

template <class T>
result<> ip_datagram_socket::set_value(int level, int name, const T& value, const char* operation) {
  return detail::set_option_of(resource_.get(), level, name, &value, sizeof value, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::change_group(const ip_address& group, const ip_address& interface,
                                                       bool join) {
  const char* operation = join ? "join_group" : "leave_group";
  if (!group.is_multicast()) return error(errc::invalid_argument, 0, operation);
  if (group.is_v4()) {
    if (!interface.is_v4()) return error(errc::invalid_argument, 0, operation);
    ip_mreq request{};
    request.imr_multiaddr = detail::to_in_addr(group);
    request.imr_interface = detail::to_in_addr(interface);
    return set_value(IPPROTO_IP, join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, request, operation);
  }
  const std::uint32_t index = detail::is_given(interface) ? interface.scope_id() : group.scope_id();
  if (detail::is_given(interface) && index == 0) return error(errc::invalid_argument, 0, operation);
  ipv6_mreq request{};
  std::memcpy(&request.ipv6mr_multiaddr, group.bytes().data(), sizeof request.ipv6mr_multiaddr);
  request.ipv6mr_interface = index;
  return set_value(IPPROTO_IPV6, join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, request, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::join_group(const ip_address& group, const ip_address& interface) {
  return change_group(group, interface, true);
}

ANYIO_NET_FN result<> ip_datagram_socket::leave_group(const ip_address& group, const ip_address& interface) {
  return change_group(group, interface, false);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_multicast_interface(const ip_address& interface) {
  constexpr const char* operation = "set_multicast_interface";
  if (!*this) return error(errc::closed_resource, 0, operation);
  const bool for_v4 = interface.is_v4() && (resource_->family() == AF_INET || detail::is_given(interface));
  if (for_v4) {  // also for a socket of both families
    const in_addr address = detail::to_in_addr(interface);
    return set_value(IPPROTO_IP, IP_MULTICAST_IF, address, operation);
  }
  if (resource_->family() == AF_INET) return error(errc::invalid_argument, 0, operation);
  const unsigned index = interface.scope_id();
  if (detail::is_given(interface)) {
    if (index == 0) return error(errc::invalid_argument, 0, operation);
  } else {  // for both families, if the socket has both
    const in_addr any{};
    static_cast<void>(set_value(IPPROTO_IP, IP_MULTICAST_IF, any, operation));
  }
  return set_value(IPPROTO_IPV6, IPV6_MULTICAST_IF, index, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_multicast_loop(bool on) {
  constexpr const char* operation = "set_multicast_loop";
  if (!*this) return error(errc::closed_resource, 0, operation);
  // A socket of both families has two settings; an IPv6-only socket may reject that of IPv4.
  const unsigned char byte = on ? 1 : 0;  // some systems accept no other size
  result<> for_v4 = set_value(IPPROTO_IP, IP_MULTICAST_LOOP, byte, operation);
  if (resource_->family() == AF_INET) return for_v4;
  const unsigned value = on ? 1 : 0;
  return set_value(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, value, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_multicast_hops(int hops) {
  constexpr const char* operation = "set_multicast_hops";
  if (hops < 0 || hops > 255) return error(errc::invalid_argument, 0, operation);
  if (!*this) return error(errc::closed_resource, 0, operation);
  const auto byte = static_cast<unsigned char>(hops);
  result<> for_v4 = set_value(IPPROTO_IP, IP_MULTICAST_TTL, byte, operation);
  if (resource_->family() == AF_INET) return for_v4;
  return set_value(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, hops, operation);
}

ANYIO_NET_FN result<> ip_datagram_socket::set_broadcast(bool on) {
  return set_value(SOL_SOCKET, SO_BROADCAST, on ? 1 : 0, "set_broadcast");
}

}}  // namespace anyio

// == datagram/unix_datagram.ipp ===================================================================

// Opening UNIX datagram sockets, and the pauses of a blocked send.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

static_assert(sizeof(unix_datagram_resource) <= recycler::block_size_of[recycler::descriptors]);

// A send to a full queue allocates the datagram first. Freeing it again triggers an event that there is room,
// so a send that retries at every event retries without end. So the kernel is asked for room, if the socket
// is connected (else it does not know), and its answer is believed once per pause.
ANYIO_NET_FN bool retry_pause::over(datagram_resource& socket) noexcept {
  if (timer_.armed()) {
    if (!socket.connected() || tried_early_ || socket.exhausted[write_side]) return false;
    const int ready = socket.core().system().poll_now(socket.descriptor(), ready_write);
    if (ready < 0 || (static_cast<std::uint32_t>(ready) & ready_write) == 0) {
      socket.exhausted[write_side] = true;
      return false;
    }
    tried_early_ = true;
  }
  socket.exhausted[write_side] = false;
  return true;
}

ANYIO_NET_FN void retry_pause::begin(loop_core& loop, node& target) noexcept {
  if (timer_.armed()) return;
  milliseconds_ = std::clamp(milliseconds_ * 2, 1u, 20u);
  tried_early_ = false;
  loop.arm(timer_, add(loop.now(), std::chrono::milliseconds(milliseconds_)), target);
}

/// Opens a socket. Connects it if `remote` is not null.
inline result<ref<unix_datagram_resource>> open_unix_datagram(const std::string_view* remote,
                                                              const unix_datagram_options& options) {
  loop_core& core = loop_core::current();
  // Invalid names are reported before a socket is opened.
  result<unix_address> peer = make_unix_address(remote != nullptr ? *remote : std::string_view(), "connect");
  if (!peer) return peer.error();
  const result<unix_address> own = make_unix_address(options.local_path, "bind");
  if (!own) return own.error();

  ref<unix_datagram_resource> made(new unix_datagram_resource(core, remote != nullptr));
  made->local = options.local_path;
  if (remote != nullptr) made->remote = *remote;
  new_socket socket(core.system(), AF_UNIX, SOCK_DGRAM);
  bound_file file(socket, core.system(), made->local, options.local_mode);
  if (remote != nullptr) socket.connect(reinterpret_cast<const sockaddr*>(&peer->storage), peer->size);
  socket.step("watch", [&] { return made->watch(socket.fd()); });
  if (socket.failed()) return socket.failure();
  socket.taken_over();
  file.keep();
  return made;
}

inline result<ref<unix_datagram_resource>> adopt_unix_datagram(int fd, bool connected, const char* what) {
  loop_core& core = loop_core::current();
  const auto adopted = adopt_socket(core.system(), fd, {what, true, SOCK_DGRAM, connected});
  if (!adopted) return adopted.error();
  ref<unix_datagram_resource> made(new unix_datagram_resource(core, connected));
  made->local = adopted->local.path();
  made->remote = adopted->remote.path();
  if (const int status = made->watch(fd); status < 0) return error(errc::os_error, -status, what);
  return made;
}

/// The names of a socket that may be closed or empty.
inline std::string unix_datagram_name(const ref<datagram_resource>& r, bool of_peer) {
  if (!r) return {};
  const auto& own = static_cast<const unix_datagram_resource&>(*r);
  return of_peer ? own.remote : own.local;
}

}  // namespace detail

ANYIO_NET_FN result<unix_datagram_socket> unix_datagram_socket::open(const unix_datagram_options& options) {
  return detail::datagram_access::wrap<unix_datagram_socket>(detail::open_unix_datagram(nullptr, options));
}

ANYIO_NET_FN result<unix_datagram_socket> unix_datagram_socket::from_fd(int fd) {
  return detail::datagram_access::wrap<unix_datagram_socket>(
      detail::adopt_unix_datagram(fd, false, "unix_datagram_socket"));
}

ANYIO_NET_FN result<connected_unix_datagram_socket> connected_unix_datagram_socket::open(
    std::string_view remote_path, const unix_datagram_options& options) {
  return detail::datagram_access::wrap<connected_unix_datagram_socket>(
      detail::open_unix_datagram(&remote_path, options));
}

ANYIO_NET_FN result<connected_unix_datagram_socket> connected_unix_datagram_socket::from_fd(int fd) {
  return detail::datagram_access::wrap<connected_unix_datagram_socket>(
      detail::adopt_unix_datagram(fd, true, "connected_unix_datagram_socket"));
}

ANYIO_NET_FN std::string unix_datagram_socket::local_path() const {
  return detail::unix_datagram_name(resource_, false);
}

ANYIO_NET_FN std::string connected_unix_datagram_socket::local_path() const {
  return detail::unix_datagram_name(resource_, false);
}

ANYIO_NET_FN std::string connected_unix_datagram_socket::remote_path() const {
  return detail::unix_datagram_name(resource_, true);
}

}}  // namespace anyio

// == tls/tls_connect.ipp ==========================================================================

// TCP first, then TLS.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN connect_tls_operation::connect_tls_operation(std::string_view host, std::uint16_t port,
                                                          std::shared_ptr<tls_context> context,
                                                          const tls_options& options,
                                                          const tcp_connect_options& tcp_options)
    : operation(true),
      connecting_(host, port, tcp_options),
      context_(std::move(context)),
      server_name_(options.server_name.empty() ? host : options.server_name),
      options_(options) {}

ANYIO_NET_FN bool connect_tls_operation::attempt(result<tls_stream>& out) {
  if (connection_ != nullptr) return begin_handshake(std::move(*std::exchange(connection_, nullptr)), out);
  if (stream_ != nullptr) return complete(out, std::move(*std::exchange(stream_, nullptr)));
  const bool last = std::exchange(last_, false);
  if (std::exchange(begun_, true)) return last && shaking_.pending() && shaking_.attempt_last(out);
  result<tcp_stream> connection(errc::cancelled);
  if (connecting_.attempt_for_parent(connection)) return begin_handshake(std::move(connection), out);
  connecting_.start(connected{this});
  return false;
}

ANYIO_NET_FN bool connect_tls_operation::begin_handshake(result<tcp_stream>&& connection,
                                                         result<tls_stream>& out) {
  if (!connection.has_value()) return complete(out, result_access::failure<tls_stream>(connection));
  options_.server_name = server_name_;
  const ip_endpoint remote = connection->remote_endpoint();
  shaking_ =
      tls_wrap_operation(true, std::make_unique<tcp_stream>(*std::move(connection)), context_, options_);
  shaking_.remote = remote;
  if (shaking_.attempt_for_parent(out)) return true;
  shaking_.start(shaken{this});
  return false;
}

ANYIO_NET_FN void connect_tls_operation::left() noexcept {
  begun_ = false;
  connecting_.withdraw();
  shaking_ = {};
}

}}}  // namespace anyio::detail

// == tls/tls_listener.ipp =========================================================================

// Accepting TLS connections one by one.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN tls_wrap_operation tls_server_settings::wrap(tcp_stream&& connection) const {
  tls_options options;
  options.standard_compatible = standard_compatible;
  options.handshake_timeout = handshake_timeout;
  const ip_endpoint remote = connection.remote_endpoint();
  tls_wrap_operation op(false, std::make_unique<tcp_stream>(std::move(connection)), context, options);
  op.remote = remote;
  return op;
}

ANYIO_NET_FN tls_accepting::~tls_accepting() { close(); }

ANYIO_NET_FN bool tls_accepting::next(result<tls_stream>& out) {
  if (!ready_.empty()) {
    out = std::move(ready_.front());
    ready_.pop_front();
    return true;
  }
  if (settings_.context == nullptr) failure_ = error(errc::invalid_argument, 0, "accept");
  if (failure_.code() != errc::ok) return complete(out, std::exchange(failure_, error()));
  if (!accept_.pending()) {
    accept_ = accept_operation<tcp_stream>(listener_);
    accept_.start(connection_came{this});
  }
  return false;
}

/// No `accept` is pending any more.
ANYIO_NET_FN void tls_accepting::withdrawn(side) noexcept {
  accept_ = {};
  failure_ = error();
}

ANYIO_NET_FN void tls_accepting::accepted(result<tcp_stream>&& r) {
  const error no_memory(errc::os_error, ENOMEM, "accept");
  if (!r.has_value()) {
    failure_ = result_access::is_foreign(r) ? no_memory : r.error();
    return wake(read_side);
  }
  const bool begins = call_without_throwing([&] {
    std::unique_ptr<shaking> begun(new shaking);
    begun->op = settings_.wrap(*std::move(r));
    begun->op.start(handshake_ended{this, begun.get()});
    handshakes_.insert_before(*begun.release());
  });
  if (!begins) {
    failure_ = no_memory;
    return wake(read_side);
  }
  if (waiting(read_side) == nullptr) return;
  accept_ = accept_operation<tcp_stream>(listener_);
  accept_.start(connection_came{this});
}

ANYIO_NET_FN void tls_accepting::shaken(shaking& which, result<tls_stream>&& r) {
  forget(which);
  if (!r.has_value()) return;
  if (!call_without_throwing([&] { ready_.push_back(*std::move(r)); }))
    failure_ = error(errc::os_error, ENOMEM, "accept");
  wake(read_side);
}

ANYIO_NET_FN void tls_accepting::forget(shaking& which) noexcept { delete &which; }

ANYIO_NET_FN void tls_accepting::shut() noexcept {
  accept_ = {};
  while (handshakes_.linked()) forget(static_cast<shaking&>(*handshakes_.next));
  ready_.clear();
}

}  // namespace detail

ANYIO_NET_FN accept_operation<tls_stream> tls_listener::accept() {
  const auto& listening = detail::listener_access::resource_of(listener_);
  if (!accepting_ && listening)
    accepting_ = detail::ref<detail::tls_accepting>(new detail::tls_accepting(listening, settings_));
  return accept_operation<tls_stream>(accepting_);
}

ANYIO_NET_FN void tls_listener::close() noexcept {
  listener_.close();
  if (accepting_) accepting_->close();
}

ANYIO_NET_FN tls_listener& tls_listener::operator=(tls_listener&& other) noexcept {
  if (this == &other) return *this;
  close();
  listener_ = std::move(other.listener_);
  settings_ = std::move(other.settings_);
  accepting_ = std::move(other.accepting_);
  return *this;
}

}}  // namespace anyio

// == tls/tls_operations.ipp =======================================================================

// The handshake, and unwrapping, as operations.

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

// --- unwrapping as an operation

ANYIO_NET_FN errc tls_unwrap_operation::check() const noexcept {
  if (!made) return errc::invalid_argument;
  if (!resource_ || !resource_->open()) return errc::closed_resource;
  for (const side s : {read_side, write_side})
    if (resource_->waiting(s) != nullptr && resource_->waiting(s) != this) return errc::busy_resource;
  return errc::ok;
}

ANYIO_NET_FN errc tls_unwrap_operation::enter() noexcept {
  resource_->set_waiting(read_side, this);
  resource_->set_waiting(write_side, this);
  return errc::ok;
}

ANYIO_NET_FN bool tls_unwrap_operation::attempt(result<tls_unwrapped>& out) {
  if (!resource_->open()) return complete(out, error(errc::closed_resource, 0, name));
  const progress p = resource_->unwrap(out);
  if (p == progress::again) again = true;
  return p == progress::done;
}

ANYIO_NET_FN void tls_unwrap_operation::left() noexcept {
  if (!resource_) return;
  for (const side s : {read_side, write_side}) {
    if (resource_->waiting(s) != this) continue;
    resource_->set_waiting(s, nullptr);
    resource_->withdrawn(s);
  }
}

ANYIO_NET_FN void tls_unwrap_operation::refresh() noexcept {
  if (resource_) resource_->exhausted[read_side] = resource_->exhausted[write_side] = false;
}

ANYIO_NET_FN loop_core& tls_unwrap_operation::home() const {
  return resource_ && resource_->core().alive() ? resource_->core() : loop_core::current();
}

ANYIO_NET_FN tls_unwrap_operation& tls_unwrap_operation::operator=(tls_unwrap_operation&& other) noexcept {
  if (this == &other) return *this;
  left();
  operation::operator=(std::move(other));
  resource_ = std::move(other.resource_);
  return *this;
}

}  // namespace detail

// --- the handshake as an operation

ANYIO_NET_FN tls_wrap_operation::tls_wrap_operation(bool client, std::unique_ptr<byte_stream> transport,
                                                    std::shared_ptr<tls_context> context,
                                                    const tls_options& options)
    : operation(true),
      transport_(std::move(transport)),
      context_(std::move(context)),
      server_name_(options.server_name),
      limit_(detail::to_duration(options.handshake_timeout)),
      client_(client),
      standard_compatible_(options.standard_compatible) {}

ANYIO_NET_FN tls_wrap_operation& tls_wrap_operation::operator=(tls_wrap_operation&& other) noexcept {
  if (this == &other) return *this;
  left();
  operation::operator=(std::move(other));
  transport_ = std::move(other.transport_);
  context_ = std::move(other.context_);
  server_name_ = std::move(other.server_name_);
  remote = other.remote;
  resource_ = std::move(other.resource_);
  limit_ = other.limit_;
  client_ = other.client_;
  standard_compatible_ = other.standard_compatible_;
  timed_ = other.timed_;
  return *this;
}

ANYIO_NET_FN errc tls_wrap_operation::check() const noexcept {
  if (!made || context_ == nullptr) return errc::invalid_argument;
  if (resource_) return resource_->open() ? errc::ok : errc::closed_resource;
  if (transport_ == nullptr || !*transport_) return errc::closed_resource;
  const auto& inner = *detail::stream_access::resource_of(*transport_);
  const bool taken =
      inner.waiting(detail::read_side) != nullptr || inner.waiting(detail::write_side) != nullptr;
  return taken ? errc::busy_resource : errc::ok;
}

ANYIO_NET_FN errc tls_wrap_operation::enter() noexcept {
  take_places();
  return errc::ok;
}

ANYIO_NET_FN detail::loop_core& tls_wrap_operation::home() const {
  if (resource_ && resource_->core().alive()) return resource_->core();
  if (transport_ != nullptr && *transport_) return detail::stream_access::resource_of(*transport_)->core();
  return detail::loop_core::current();
}

/// Both sides belong to this operation until the handshake is over.
ANYIO_NET_FN void tls_wrap_operation::take_places() noexcept {
  if (!resource_) return;
  resource_->set_waiting(detail::read_side, this);
  resource_->set_waiting(detail::write_side, this);
}

ANYIO_NET_FN bool tls_wrap_operation::begin_handshake(result<tls_stream>& out) {
  if (remote == ip_endpoint()) {
    if (socket_stream* const socket = transport_->socket())
      remote = detail::remote_address_of(home().system(), socket->native_handle()).endpoint();
  }
  const detail::ref<detail::tls_resource> begun(
      new detail::tls_resource(std::move(transport_), context_, standard_compatible_));
  begun->remote = remote;
  const bool willing = begun->make_engine(client_, server_name_);  // a user's context may throw
  resource_ = begun;
  if (willing) return true;
  out = detail::error_access::with_reason(
      error(errc::invalid_argument, 0, name),
      client_ ? "server_name is required to verify the peer" : "the context has no certificate");
  return false;
}

ANYIO_NET_FN bool tls_wrap_operation::attempt(result<tls_stream>& out) {
  if (!resource_) {
    if (!begin_handshake(out)) return true;
    if (pending()) take_places();
  }
  if (!resource_->open()) return detail::complete(out, error(errc::closed_resource, 0, name));
  result<void> r;
  const detail::progress p = resource_->handshake(r);
  if (p == detail::progress::done) {
    if (r.has_value()) {
      resource_->set_waiting(detail::read_side, nullptr);
      resource_->set_waiting(detail::write_side, nullptr);
      out = tls_stream(std::move(resource_));
    } else {
      out = r.error();
    }
    return true;
  }
  if (!std::exchange(timed_, true)) {
    detail::loop_core& loop = home();
    loop.arm(patience_, detail::add(loop.now(), std::max(limit_, duration::zero())), *this);
  } else if (!patience_.armed()) {
    return detail::complete(out, error(errc::timed_out, 0, name));
  }
  if (p == detail::progress::again) again = true;
  return false;
}

/// A handshake that did not complete closes the transport.
ANYIO_NET_FN void tls_wrap_operation::left() noexcept {
  patience_.cancel();
  made = timed_ = false;
  if (resource_) {
    const detail::ref<detail::tls_resource> failed = std::move(resource_);
    failed->set_waiting(detail::read_side, nullptr);
    failed->set_waiting(detail::write_side, nullptr);
    failed->close();
  }
  transport_.reset();
  context_.reset();
}

ANYIO_NET_FN void tls_wrap_operation::refresh() noexcept {
  if (resource_) resource_->exhausted[detail::read_side] = resource_->exhausted[detail::write_side] = false;
}

ANYIO_NET_FN socket_stream* tls_stream::socket() noexcept {
  return resource_ && own().transport() != nullptr ? own().transport()->socket() : nullptr;
}

}}  // namespace anyio

// == tls/tls_stream.ipp ===========================================================================

// Driving an engine.

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// The cost of a step of a handshake, in system calls: some hundreds of microseconds.
inline constexpr std::size_t cost_of_handshake = 128;
/// The most plaintext in one record (RFC 8446, section 5.1).
inline constexpr std::size_t tls_record_size = 16384;
/// Room for data from the transport: as much as the recycler keeps, and the least room that must be free
/// after an incomplete record.
inline constexpr std::size_t tls_read_ahead = recycler::block_size_of[recycler::large];
inline constexpr std::size_t tls_least_room = 8192;
/// If more bytes than this are unsent, a reader has to wait, since its calls may add to them.
inline constexpr std::size_t tls_backlog = 65536;

ANYIO_NET_FN tls_resource::tls_resource(std::unique_ptr<byte_stream> transport,
                                        std::shared_ptr<tls_context> context,
                                        bool standard_compatible) noexcept
    : stream_resource(stream_access::resource_of(*transport)->core()),
      transport_(std::move(transport)),
      inner_(stream_access::resource_of(*transport_)),
      context_(std::move(context)),
      relays_{{*this, read_side, on_readable}, {*this, write_side, on_writable}},
      standard_compatible_(standard_compatible) {
  exhausted[read_side] = exhausted[write_side] = true;  // see `relay::enter`
}

ANYIO_NET_FN tls_resource::~tls_resource() { close(); }

ANYIO_NET_FN bool tls_resource::make_engine(bool client, std::string_view server_name) {
  engine_ = client ? context_->client(pipe_, server_name) : context_->server(pipe_);
  return engine_ != nullptr;
}

ANYIO_NET_FN tls_info tls_resource::info() const { return established_ ? engine_->info() : tls_info(); }

// --- the transport

/// Reads once from the transport, for a reader or a writer. It is done when data arrived, with an error, or
/// with `rx_eof` when no more data follows.
ANYIO_NET_FN progress tls_resource::pull(side who, error& failure) {
  const progress p = pull_once(failure);
  // The other side may use this relay too: unless the relay joins again, the other side must try itself.
  if (p != progress::waiting && (who == write_side || writer_awaits_input_))
    wake(who == write_side ? read_side : write_side);
  return p;
}

ANYIO_NET_FN progress tls_resource::pull_once(error& failure) {
  relay& place = relays_[read_side];
  failure = place.enter(*inner_);
  if (failure != errc::ok) return progress::done;
  result<std::size_t> n(errc::cancelled);
  const std::size_t room = incoming_.empty() ? tls_read_ahead : tls_least_room;
  const progress p = inner_->receive(incoming_.prepare(room), n);
  if (p == progress::done && n.has_value()) {
    incoming_.commit(*n);
    return p;
  }
  incoming_.trim();
  if (p == progress::waiting) place.join(*inner_);
  if (p != progress::done) return p;
  if (n.error() == errc::end_of_stream) {
    pipe_.rx_eof = true;
  } else {
    failure = n.error();
  }
  return p;
}

/// Sends the bytes that the engine left in the pipe.
ANYIO_NET_FN progress tls_resource::flush(error& failure) {
  byte_queue& bytes = pipe_.tx;
  pipe_.may_wait = 0;
  if (bytes.empty()) return progress::done;
  relay& place = relays_[write_side];
  failure = place.enter(*inner_);
  if (failure != errc::ok) {
    if (reader_awaits_flush_) wake(read_side);
    return progress::done;
  }
  result<void> r = error(errc::closed_resource);
  const const_buffer all(bytes.data());
  outgoing data(std::span<const const_buffer>(&all, 1));
  const progress p = inner_->eof_sent() ? progress::done : inner_->send(data, r);
  bytes.consume(data.sent());
  if (p == progress::waiting) place.join(*inner_);
  if (p == progress::done && !r.has_value()) {
    failure = r.error();
    if (!engine_failed()) write_failure_ = failure;  // the first failure is the one to report
    bytes.consume(bytes.size());
  }
  if (p != progress::waiting && reader_awaits_flush_) wake(read_side);
  return p;
}

/// Sends the bytes in the pipe without waiting; the rest is sent in the background.
ANYIO_NET_FN void tls_resource::flush_soon() {
  error failure;  // kept for the writer; received data can still be read
  if (relays_[write_side].waits() || pipe_.tx.size() == pipe_.may_wait) return;
  if (flush(failure) == progress::again) core().queue(relays_[write_side]);
}

ANYIO_NET_FN void tls_resource::on_writable(resource& r, bool cancelled) {
  auto& self = static_cast<tls_resource&>(r);
  if (self.gone()) return;
  self.flush_soon();
  if (!cancelled || !self.reader_awaits_flush_) return;
  if (node* const reader = self.waiting(read_side)) reader->cancelled = true;
  self.wake(read_side);
}

ANYIO_NET_FN void tls_resource::on_readable(resource& r, bool cancelled) {
  auto& self = static_cast<tls_resource&>(r);
  if (!std::exchange(self.writer_awaits_input_, false)) return;
  node* const writer = self.waiting(write_side);
  if (cancelled && writer != nullptr) writer->cancelled = true;
  self.wake(write_side);
}

/// After a cancelled send, queued bytes are sent in the background.
ANYIO_NET_FN void tls_resource::withdrawn(side s) noexcept {
  if (s == read_side) {
    reader_awaits_flush_ = false;
    if (!writer_awaits_input_) relays_[read_side].leave();
  } else {
    writer_awaits_input_ = false;
    if (pipe_.tx.empty()) {
      relays_[write_side].leave();
    } else if (!relays_[write_side].waits() && !gone()) {
      core().queue(relays_[write_side]);
    }
  }
}

// --- the engine

/// Makes one engine call.
template <class Verb>
tls_status tls_resource::call(Verb verb) {
  const std::size_t before = incoming_.size();
  const std::size_t to_go = pipe_.tx.size();
  pipe_.rx = incoming_.data();
  pipe_.starved = false;
  const tls_status status = verb(*engine_);
  const std::size_t used = before - pipe_.rx.size();
  constexpr std::size_t price = 8;  // of an encrypted byte, relative to a byte that is only moved
  core().count_work(price * (used + pipe_.tx.size() - to_go));
  incoming_.consume(used);
  pipe_.rx = {};
  if (status == tls_status::failed) engine_failure_ = tls_failure("", engine_->last_error());
  return status;
}

ANYIO_NET_FN progress tls_resource::handshake(result<void>& out) {
  error failure;
  for (int calls = 0; calls < calls_of_attempt; ++calls) {
    const tls_status status = call([](tls_engine& e) { return e.handshake(); });
    core().count_work(0, cost_of_handshake);
    flush_soon();
    switch (status) {
      case tls_status::ok: established_ = true; return complete<progress::done>(out, result<void>());
      case tls_status::again: continue;
      case tls_status::failed:
        return complete<progress::done>(
            out, error_access::with_operation(engine_failure_, tls_wrap_operation::name));
      case tls_status::want_input:
        if (!must_pull()) continue;
        if (!pipe_.rx_eof) {
          const progress p = pull(read_side, failure);
          if (p != progress::done) return p;
          if (failure == errc::ok) continue;
          return complete<progress::done>(out,
                                          error_access::with_operation(failure, tls_wrap_operation::name));
        }
        [[fallthrough]];
      case tls_status::closed:
      case tls_status::truncated: break;
    }
    const bool told = write_failure_.code() != errc::ok;  // why the peer received nothing
    return complete<progress::done>(
        out, told ? error_access::with_operation(write_failure_, tls_wrap_operation::name)
                  : error_access::with_reason(error(errc::broken_resource, 0, tls_wrap_operation::name),
                                              "the connection ended during the handshake"));
  }
  return progress::again;
}

/// The permanent error that ends reading.
ANYIO_NET_FN error tls_resource::end_of_reading(tls_status status) {
  switch (status) {
    case tls_status::failed: return engine_failure_;
    case tls_status::closed: return error(errc::end_of_stream, 0, "receive");
    default: break;
  }
  if (!standard_compatible_) return error(errc::end_of_stream, 0, "receive");
  return error_access::with_reason(error(errc::broken_resource, 0, "receive"),
                                   "the connection ended without a close_notify");
}

/// Reads plaintext: `ok` with some bytes, `again` with the progress of a wait, any other status with the
/// failure.
ANYIO_NET_FN tls_status tls_resource::read(mutable_buffer into, std::size_t& n, progress& p, error& failure) {
  p = progress::again;
  if (read_failure_.code() != errc::ok) {
    failure = read_failure_;
    return tls_status::failed;
  }
  if (engine_failed()) {
    failure = engine_failure_;
    return tls_status::failed;
  }
  for (int calls = 0; calls < calls_of_attempt; ++calls) {
    if (pipe_.tx.size() > tls_backlog && relays_[write_side].waits()) {
      reader_awaits_flush_ = true;
      p = progress::waiting;
      return tls_status::again;
    }
    tls_status status = call([&](tls_engine& e) { return e.read(into, n); });
    flush_soon();
    if (status == tls_status::ok && n != 0) return status;
    if (status == tls_status::ok || status == tls_status::again) continue;
    if (status == tls_status::want_input) {
      if (!must_pull() || engine_->pending()) continue;
      if (!pipe_.rx_eof) {
        p = pull(read_side, failure);
        if (p != progress::done) return tls_status::again;
        if (failure.code() == errc::ok) continue;
        if (failure != errc::closed_resource && failure != errc::busy_resource) read_failure_ = failure;
        return tls_status::failed;
      }
      status = tls_status::truncated;
    }
    failure = read_failure_ = end_of_reading(status);
    return status;
  }
  p = progress::again;
  return tls_status::again;
}

ANYIO_NET_FN progress tls_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  reader_awaits_flush_ = false;
  if (!held_.empty()) {
    const std::size_t n = std::min(held_.size(), into.size());
    std::memcpy(into.data(), held_.data().data(), n);
    held_.consume(n);
    return complete<progress::done>(out, n);
  }
  std::size_t n = 0;
  progress p;
  error failure;
  switch (read(into, n, p, failure)) {
    case tls_status::ok: out = n; return progress::done;
    case tls_status::again: return p;
    default: out = error_access::with_operation(failure, "receive"); return progress::done;
  }
}

ANYIO_NET_FN progress tls_resource::send(outgoing& data, result<void>& out) {
  const auto fail = [&](const error& e) {
    return complete<progress::done>(out, error_access::with_operation(e, "send"));
  };
  writer_awaits_input_ = false;
  error failure;
  for (int calls = 0; calls < calls_of_attempt; ++calls) {
    if (write_failure_.code() != errc::ok) return fail(write_failure_);
    // Small records are sent together.
    if (data.done() || pipe_.tx.size() >= tls_record_size || relays_[write_side].waits()) {
      const progress p = flush(failure);
      if (p != progress::done) return p;
      if (failure.code() != errc::ok) return fail(failure);
      if (!data.done()) continue;
      return complete<progress::done>(out, result<void>());
    }
    if (engine_failed()) return fail(engine_failure_);
    const const_buffer piece(data.front().data(), std::min(data.front().size(), tls_record_size));
    std::size_t n = 0;
    switch (call([&](tls_engine& e) { return e.write(piece, n); })) {
      case tls_status::ok:
        data.advance(n);
        if (data.rests() || (!data.done() && core().share_spent())) return progress::again;
        break;
      case tls_status::again: break;
      case tls_status::want_input: {
        flush_soon();
        if (!must_pull()) break;
        const progress p = pipe_.rx_eof ? progress::done : pull(write_side, failure);
        if (p == progress::waiting) writer_awaits_input_ = true;
        if (p != progress::done) return p;
        if (pipe_.rx_eof) return fail(errc::broken_resource);
        if (failure.code() != errc::ok) return fail(failure);
        break;
      }
      case tls_status::closed:
      case tls_status::truncated: flush_soon(); return fail(errc::broken_resource);
      case tls_status::failed:
        flush_soon();  // the alert
        return fail(engine_failure_);
    }
  }
  return progress::again;
}

// --- the end

/// Appends the close_notify, once, if the connection is established.
ANYIO_NET_FN void tls_resource::say_goodbye() {
  if (!established_ || engine_failed() || std::exchange(goodbye_said_, true)) return;
  call([](tls_engine& e) { return e.close(); });
}

ANYIO_NET_FN progress tls_resource::send_eof(result<void>& out) {
  if (!eof_sent_ && !engine_failed()) {
    if (engine_->info().version != "TLSv1.3") {
      // Under TLS 1.2 the peer would have to answer with its own close_notify and drop unsent data.
      return complete<progress::done>(out,
                                      error_access::with_reason(error(errc::not_supported, 0, "send_eof"),
                                                                "TLS 1.2 cannot close only one direction"));
    }
    eof_sent_ = true;
    say_goodbye();
  }
  error failure = write_failure_;
  const progress p = failure.code() == errc::ok ? flush(failure) : progress::done;
  if (p != progress::done) return p;
  if (failure.code() == errc::ok) failure = engine_failure_;
  if (failure.code() == errc::ok) return complete<progress::done>(out, result<void>());
  return complete<progress::done>(out, error_access::with_operation(failure, "send_eof"));
}

ANYIO_NET_FN progress tls_resource::finish() {
  relays_[read_side].leave();
  reader_awaits_flush_ = false;
  if (inner_->gone()) return progress::done;
  if (standard_compatible_) say_goodbye();
  error failure;
  if (inner_->open() && write_failure_.code() == errc::ok) {
    progress p = flush(failure);
    if (p == progress::waiting) reader_awaits_flush_ = true;
    if (p != progress::done) return p;
  }
  inner_->begin_closing();
  const progress p = inner_->finish();
  if (p == progress::waiting) relays_[read_side].join(*inner_);
  return p;
}

ANYIO_NET_COLD void tls_resource::end_without_waiting() {
  if (standard_compatible_) say_goodbye();
  error failure;
  exhausted[write_side] = false;  // there may be room again
  if (inner_->open() && write_failure_.code() == errc::ok) {
    for (int i = 0; i < 1024 && flush(failure) == progress::again; ++i) {  // as far as possible
    }
  }
  // Sent data would be lost if received data is unread: closing such a socket resets the connection. The
  // unread data may be tickets, of which no user knows.
  constexpr int reads = 64;
  std::byte room[tls_least_room];
  for (int i = 0; i < reads && relays_[read_side].enter(*inner_) == errc::ok; ++i) {
    result<std::size_t> n(errc::cancelled);
    inner_->exhausted[read_side] = false;
    if (inner_->receive(room, n) != progress::done || !n.has_value()) break;
  }
}

ANYIO_NET_FN void tls_resource::shut() noexcept {
  if (transport_ == nullptr) return;  // unwrapped
  // In a forked child the connection belongs to the parent, which still sends and reads.
  if (!core().inherited()) static_cast<void>(call_without_throwing([this] { end_without_waiting(); }));
  relays_[read_side].leave();
  relays_[write_side].leave();
  transport_->close();
}

ANYIO_NET_FN progress tls_resource::unwrap(result<tls_unwrapped>& out) {
  const auto fail = [&](const error& e) {
    return complete<progress::done>(out, error_access::with_operation(e, tls_unwrap_operation::name));
  };
  if (engine_failed()) return fail(engine_failure_);
  eof_sent_ = true;
  say_goodbye();
  error failure = write_failure_;
  if (failure.code() == errc::ok) {
    const progress p = flush(failure);
    if (p != progress::done) return p;
  }
  if (failure.code() != errc::ok) return fail(failure);
  if (read_failure_.code() == errc::ok && held_.empty()) {
    const mutable_buffer room = core().buffer();
    std::size_t n = 0;
    progress p;
    const tls_status status = read(room, n, p, failure);
    if (status == tls_status::again) return p;
    if (status == tls_status::ok) held_.append(const_buffer(room.data(), n));
    if (status == tls_status::failed) return fail(failure);
  }
  if (!held_.empty())
    return fail(error_access::with_reason(errc::tls, "data from the peer was not received"));
  if (read_failure_ != errc::end_of_stream) return fail(read_failure_);
  std::string rest(incoming_.view());
  relays_[read_side].leave();
  relays_[write_side].leave();
  out = tls_unwrapped(std::move(transport_), std::move(rest));
  incoming_.consume(incoming_.size());
  close();
  return progress::done;
}

}  // namespace detail

}}  // namespace anyio

// == simulation/fault_backend.ipp =================================================================

// The faults that are possible for each call.

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

inline constexpr int errors_of_opening[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
inline constexpr int errors_of_bind[] = {EADDRINUSE, EACCES, EADDRNOTAVAIL};
inline constexpr int errors_of_listen[] = {EADDRINUSE};
inline constexpr int errors_of_connect[] = {ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EADDRNOTAVAIL};
inline constexpr int errors_of_connect_unix[] = {ECONNREFUSED, ENOENT, EACCES, EAGAIN};
inline constexpr int errors_of_connected[] = {ECONNREFUSED, ETIMEDOUT, ECONNRESET, EHOSTUNREACH};
inline constexpr int errors_of_accept[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED, EPROTO, EAGAIN};
inline constexpr int errors_of_stream_in[] = {ECONNRESET, ETIMEDOUT, EAGAIN, ENOMEM};
inline constexpr int errors_of_stream_out[] = {ECONNRESET, EPIPE, ETIMEDOUT, EAGAIN, ENOBUFS};
inline constexpr int errors_of_datagram_in[] = {ECONNREFUSED, EAGAIN};
inline constexpr int errors_of_datagram_out[] = {ECONNREFUSED, ENOBUFS, EPERM, EAGAIN};
inline constexpr int errors_of_reading[] = {EIO, EAGAIN, ENOMEM};
inline constexpr int errors_of_writing[] = {EPIPE, EIO, EAGAIN, ENOMEM};
inline constexpr int errors_of_watch[] = {ENOMEM, ENOSPC};
inline constexpr int errors_of_memory[] = {ENOMEM};
inline constexpr int errors_of_options[] = {ENOPROTOOPT, EINVAL};
inline constexpr int errors_of_shutdown[] = {ENOTCONN};
inline constexpr int errors_of_names[] = {ENOBUFS};
inline constexpr int errors_of_signals[] = {EINVAL, EMFILE};
inline constexpr int errors_of_paths[] = {EACCES, EIO};

/// A copy of a message that is limited to `size` bytes.
class shortened_message {
 public:
  shortened_message(const message& m, std::size_t size) : parts_(m.parts.begin(), m.parts.end()), m_(m) {
    for (::iovec& part : parts_) {
      part.iov_len = std::min(part.iov_len, size);
      size -= part.iov_len;
    }
    m_.parts = parts_;
  }
  message& get() noexcept { return m_; }

 private:
  std::vector<::iovec> parts_;
  message m_;
};

class fault_injector final : public faulty_backend,
                             private name_service,
                             private file_service,
                             private path_service,
                             private batch_service,
                             private signal_service {
 public:
  fault_injector(std::unique_ptr<backend> inner, std::shared_ptr<sim_choices> choices,
                 const sim::faults& all) noexcept
      : faulty_backend(all), inner_(std::move(inner)), choices_(std::move(choices)) {}

  time_point now() override { return inner_->now(); }

  int watch(int fd, std::uint64_t token) override {
    if (const int failure = failure_of("watch", errors_of_watch); failure != 0) return failure;
    const int status = inner_->watch(fd, token);
    if (status >= 0) watched_[fd] = watched{token, 0, kind_of(fd), false, 0, 0};
    return status;
  }
  void forget(int fd) override {
    release_held(fd);  // the owner may close the descriptor
    watched_.erase(fd);
    inner_->forget(fd);
  }
  int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override {
    return unless_failing("watch_once", errors_of_watch,
                          [&] { return inner_->watch_once(fd, interest, token, again); });
  }
  int poll_now(int fd, std::uint32_t interest) override {
    return unless_failing("poll_now", errors_of_memory, [&] { return inner_->poll_now(fd, interest); });
  }
  ANYIO_NET_FN int wait(std::span<poll_event> events, duration at_most) override;
  void wake() override { inner_->wake(); }
  int native_handle() const override { return inner_->native_handle(); }
  int wake_descriptor() const override { return inner_->wake_descriptor(); }
  int after_fork() override {
    held_.reset();  // the parent sends the held datagram
    return inner_->after_fork();
  }

  int open_socket(int family, int type, int protocol) override {
    return unless_failing("socket", errors_of_opening, [&] {
      const int lack = lack_of_descriptors();
      return lack != 0 ? lack : inner_->open_socket(family, type, protocol);
    });
  }
  int open_pair(int family, int type, int (&fds)[2]) override {
    return unless_failing("socketpair", errors_of_opening, [&] {
      const int lack = lack_of_descriptors();
      return lack != 0 ? lack : inner_->open_pair(family, type, fds);
    });
  }
  int bind(int fd, const sockaddr* address, socklen_t size) override {
    return unless_failing("bind", errors_of_bind, [&] { return inner_->bind(fd, address, size); });
  }
  int listen(int fd, int backlog) override {
    return unless_failing("listen", errors_of_listen, [&] { return inner_->listen(fd, backlog); });
  }
  int connect(int fd, const sockaddr* address, socklen_t size) override {
    const std::span<const int> legal = address->sa_family == AF_UNIX
                                           ? std::span<const int>(errors_of_connect_unix)
                                           : std::span<const int>(errors_of_connect);
    return unless_failing("connect", legal, [&] { return inner_->connect(fd, address, size); });
  }
  ANYIO_NET_FN int accept(int fd, sockaddr* address, socklen_t* size) override;
  void keep_non_blocking(int fd) override { inner_->keep_non_blocking(fd); }
  int shutdown(int fd, int how) override {
    if (const int failure = failure_of("shutdown", errors_of_shutdown); failure != 0) {
      break_here(fd);
      return failure;
    }
    return inner_->shutdown(fd, how);
  }
  int close(int fd) override {
    release_held(fd);
    watched_.erase(fd);
    return inner_->close(fd);
  }
  ssize_t receive(int fd, void* data, std::size_t size) override {
    if (is_broken(fd)) return 0;
    if (const int failure = meddle(fd, "receive", ready_read, size); failure != 0) return failure;
    return inner_->receive(fd, data, size);
  }
  ANYIO_NET_FN ssize_t send(int fd, const void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t receive_message(int fd, message& m) override;
  ANYIO_NET_FN ssize_t send_message(int fd, const message& m) override;
  ANYIO_NET_FN int get_option(int fd, int level, int name, void* value, socklen_t* size) override;
  int set_option(int fd, int level, int name, const void* value, socklen_t size) override {
    return unless_failing("set_option", errors_of_options,
                          [&] { return inner_->set_option(fd, level, name, value, size); });
  }
  int local_address(int fd, sockaddr* address, socklen_t* size) override {
    return unless_failing("local_address", errors_of_names,
                          [&] { return inner_->local_address(fd, address, size); });
  }
  int remote_address(int fd, sockaddr* address, socklen_t* size) override {
    return unless_failing("remote_address", errors_of_shutdown,
                          [&] { return inner_->remote_address(fd, address, size); });
  }

  name_service* names() override { return this; }
  file_service* files() override { return this; }
  path_service* paths() override { return this; }
  batch_service* batches() override { return this; }
  thread_service* threads() override { return inner_->threads(); }
  signal_service* signals() override { return this; }

  std::size_t transfer(std::size_t wanted) override {
    static_cast<void>(shorten(wanted));
    return inner_->transfer(wanted);
  }
  int break_connection(int fd) override { return inner_->break_connection(fd); }

 private:
  enum class kind : std::uint8_t { other, stream, ip_datagram, unix_datagram };
  struct watched {
    std::uint64_t token = 0;
    std::uint32_t owed = 0;  // readiness that is still to be reported
    kind what = kind::other;
    bool broken = false;
    std::uint64_t denied_read = 0;  // the turn of the last EAGAIN
    std::uint64_t denied_write = 0;
  };
  struct held_datagram {
    int fd;
    std::string data;
    std::string address;
    std::string control;
  };

  ANYIO_NET_FN resolved resolve(const std::string& host, std::uint16_t port, int family) override;
  int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) override {
    return unless_failing("reverse", errors_of_paths,
                          [&] { return names_of(*inner_).reverse(endpoint, host, service); });
  }
  bool has_family(int family) override { return names_of(*inner_).has_family(family); }

  int adopt(int fd) override { return files_of(*inner_).adopt(fd); }
  int make_blocking(int fd) override { return files_of(*inner_).make_blocking(fd); }
  int set_close_on_exec(int fd) override { return files_of(*inner_).set_close_on_exec(fd); }
  int identify(int fd, file_identity& identity) override { return files_of(*inner_).identify(fd, identity); }
  ANYIO_NET_FN ssize_t read(int fd, void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t write(int fd, std::span<const ::iovec> parts) override;
  ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override {
    if (is_broken(socket)) return -EPIPE;
    if (const int failure = meddle(socket, "send_file", ready_write, count); failure != 0) return failure;
    return files_of(*inner_).send_file(socket, file, offset, count);
  }

  int identify(const char* path, file_identity& identity) override {
    return unless_failing("identify", errors_of_paths,
                          [&] { return paths_of(*inner_).identify(path, identity); });
  }
  int change_mode(const char* path, mode_t mode) override {
    return unless_failing("change_mode", errors_of_paths,
                          [&] { return paths_of(*inner_).change_mode(path, mode); });
  }
  void prepare_mode(int fd, mode_t mode) override { paths_of(*inner_).prepare_mode(fd, mode); }
  int unlink(const char* path) override {
    return unless_failing("unlink", errors_of_paths, [&] { return paths_of(*inner_).unlink(path); });
  }
  std::string absolute(const std::string& path) override { return paths_of(*inner_).absolute(path); }

  int receive_messages(int fd, std::span<message> messages, std::span<std::size_t> sizes,
                       bool& emptied) override {
    std::size_t size = 1;
    if (const int failure = meddle(fd, "receive_messages", ready_read, size); failure != 0) return failure;
    return batches_of(*inner_).receive_messages(fd, messages, sizes, emptied);
  }
  int send_messages(int fd, std::span<const message> messages) override {
    return send_each(messages, [&](const message& m) { return send_message(fd, m); });
  }

  int catch_signal(int number) override {
    return unless_failing("catch_signal", errors_of_signals,
                          [&] { return inner_signals().catch_signal(number); });
  }
  void release_signal(int number) override { inner_signals().release_signal(number); }
  bool take_signal(int number) override { return inner_signals().take_signal(number); }
  void wake_by(int wake_descriptor) override {
    signal_service* const own = inner_->signals();
    if (own != nullptr || system_signals_ != nullptr) inner_signals().wake_by(wake_descriptor);
  }

  [[nodiscard]] signal_service& inner_signals() {
    if (signal_service* own = inner_->signals()) return *own;
    if (system_signals_ == nullptr) system_signals_ = system_signals(inner_->wake_descriptor());
    return *system_signals_;
  }
  /// Returns the negative errno that this call must fail with, 0 if it must not fail.
  [[nodiscard]] int failure_of(const char* name, std::span<const int> legal) {
    if (one_failure == nullptr || ++one_failure->counted != one_failure->call) return 0;
    one_failure->name = name;
    one_failure->choices = legal.size();
    one_failure->error_number = legal[one_failure->which % legal.size()];
    return -one_failure->error_number;
  }
  /// Makes a call, unless it must fail.
  template <class Call>
  std::invoke_result_t<Call> unless_failing(const char* name, std::span<const int> legal, Call call) {
    const int failure = failure_of(name, legal);
    return failure != 0 ? failure : call();
  }
  [[nodiscard]] int lack_of_descriptors() {
    return chance(faults.accept_exhausted) ? -errors_of_opening[pick(std::size(errors_of_opening))] : 0;
  }
  [[nodiscard]] kind kind_of(int fd);
  /// Applies faults to a transfer before it begins: returns a negative errno or 0, and may reduce the size.
  int meddle(int fd, const char* name, std::uint32_t direction, std::size_t& size);
  /// Decides whether an event of this probability happens. Locks the choices, since names are looked up on
  /// helper threads.
  [[nodiscard]] bool chance(double probability) {
    if (!(probability > 0)) return false;
    const process_lock lock(mutex_);
    return choices_->chance(probability);
  }
  [[nodiscard]] std::size_t pick(std::size_t bound) {
    const process_lock lock(mutex_);
    return choices_->pick(bound);
  }
  /// Reduces the size, to at least 1, if the choices say so; returns whether it did.
  [[nodiscard]] bool shorten(std::size_t& size) {
    if (size < 2 || !chance(faults.short_io)) return false;
    size = 1 + pick(size - 1);
    return true;
  }
  [[nodiscard]] bool denies(int fd, std::uint32_t direction);
  /// Whether the connection was broken here, so that no more bytes move in either direction.
  [[nodiscard]] bool is_broken(int fd) const {
    const auto found = watched_.find(fd);
    return found != watched_.end() && found->second.broken;
  }
  void break_here(int fd) {
    inner_->break_connection(fd);
    const auto found = watched_.find(fd);
    if (found != watched_.end()) found->second.broken = true;
  }
  /// Makes one of the next waits report readiness, after an injected error or a short read.
  void owe(int fd, std::uint32_t bits) {
    const auto found = watched_.find(fd);
    if (found == watched_.end()) return;
    found->second.owed |= bits;
    owes_ = true;
  }
  ssize_t send_one(int fd, const message& m);
  void release_held(int fd);

  std::unique_ptr<backend> inner_;
  signal_service_ptr system_signals_{nullptr, nullptr};  // made at first use if the inner backend has none
  std::shared_ptr<sim_choices> choices_;
  std::map<int, watched> watched_;
  std::optional<held_datagram> held_;
  std::uint64_t turn_ = 2;
  bool owes_ = false;
  bool interrupted_ = false;
  process_mutex mutex_;  // protects the choices
};

ANYIO_NET_FN std::unique_ptr<faulty_backend> faulty_backend::make(std::unique_ptr<backend> inner,
                                                                  std::shared_ptr<sim_choices> choices,
                                                                  const sim::faults& all) {
  return std::make_unique<fault_injector>(std::move(inner), std::move(choices), all);
}

// --- decisions

ANYIO_NET_FN fault_injector::kind fault_injector::kind_of(int fd) {
  const auto found = watched_.find(fd);
  if (found != watched_.end() && found->second.what != kind::other) return found->second.what;
  int type = 0;
  socklen_t size = sizeof type;
  if (inner_->get_option(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) return kind::other;
  if (type == SOCK_STREAM) return kind::stream;
  sockaddr_storage address{};
  size = sizeof address;
  if (inner_->local_address(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) return kind::other;
  return address.ss_family == AF_UNIX ? kind::unix_datagram : kind::ip_datagram;
}

/// Decides whether a call fails with EAGAIN. Only for a watched descriptor, which can get readiness later,
/// and not again in the next turn, so that the program makes progress.
ANYIO_NET_FN bool fault_injector::denies(int fd, std::uint32_t direction) {
  const auto found = watched_.find(fd);
  if (found == watched_.end()) return false;
  std::uint64_t& last = direction == ready_read ? found->second.denied_read : found->second.denied_write;
  if (turn_ - last < 2 || !chance(faults.would_block)) return false;
  last = turn_;
  owe(fd, direction);
  return true;
}

ANYIO_NET_FN int fault_injector::meddle(int fd, const char* name, std::uint32_t direction,
                                        std::size_t& size) {
  const kind what = kind_of(fd);
  const bool in = direction == ready_read;
  const bool stream = what == kind::stream;
  const std::span<const int> legal =
      stream
          ? (in ? std::span<const int>(errors_of_stream_in) : std::span<const int>(errors_of_stream_out))
          : (in ? std::span<const int>(errors_of_datagram_in) : std::span<const int>(errors_of_datagram_out));
  if (const int failure = what == kind::other ? 0 : failure_of(name, legal); failure != 0) {
    if (failure == -EAGAIN) {
      owe(fd, direction);
    } else if (stream && !is_shortage(failure)) {
      break_here(fd);
    }
    return failure;
  }
  if (denies(fd, direction)) return -EAGAIN;
  if (!stream) return 0;
  if (chance(faults.reset)) {
    break_here(fd);
    return -ECONNRESET;
  }
  if (shorten(size) && in) owe(fd, direction);  // fewer bytes than fit, although more may be there
  return 0;
}

// --- time and chance, readiness

ANYIO_NET_FN int fault_injector::wait(std::span<poll_event> events, duration at_most) {
  if (held_) release_held(held_->fd);
  interrupted_ = !interrupted_ && chance(faults.interrupted);  // never twice in a row, so that time passes
  if (interrupted_) return 0;
  ++turn_;
  const int n = inner_->wait(events, owes_ ? duration::zero() : at_most);
  if (n < 0 || !owes_) return n;
  auto count = static_cast<std::size_t>(n);
  owes_ = false;
  for (auto& [fd, w] : watched_) {
    if (w.owed == 0) continue;
    if (count == events.size()) {
      owes_ = true;
      break;
    }
    events[count++] = {w.token, std::exchange(w.owed, 0)};
  }
  return static_cast<int>(count);
}

// --- sockets

ANYIO_NET_FN int fault_injector::accept(int fd, sockaddr* address, socklen_t* size) {
  if (const int failure = failure_of("accept", errors_of_accept); failure != 0) {
    owe(fd, ready_read);  // the connection is still there
    return failure;
  }
  if (denies(fd, ready_read)) return -EAGAIN;
  if (const int lack = lack_of_descriptors(); lack != 0) return lack;
  return inner_->accept(fd, address, size);
}

ANYIO_NET_FN ssize_t fault_injector::send(int fd, const void* data, std::size_t size) {
  if (is_broken(fd)) return -EPIPE;
  const ::iovec part{const_cast<void*>(data), size};
  if (kind_of(fd) == kind::ip_datagram) return send_message(fd, message{std::span(&part, 1)});
  if (const int failure = meddle(fd, "send", ready_write, size); failure != 0) return failure;
  return inner_->send(fd, data, size);
}

ANYIO_NET_FN ssize_t fault_injector::receive_message(int fd, message& m) {
  if (is_broken(fd)) {
    m.control_size = 0;
    return 0;
  }
  const std::size_t total = m.size();
  std::size_t size = total;
  if (const int failure = meddle(fd, "receive_message", ready_read, size); failure != 0) return failure;
  if (size == total) return inner_->receive_message(fd, m);
  shortened_message shorter(m, size);
  const ssize_t n = inner_->receive_message(fd, shorter.get());
  m.flags = shorter.get().flags;
  m.address_size = shorter.get().address_size;
  m.control_size = shorter.get().control_size;
  return n;
}

ANYIO_NET_FN ssize_t fault_injector::send_message(int fd, const message& m) {
  if (is_broken(fd)) return -EPIPE;
  const std::size_t total = m.size();
  std::size_t size = total;
  if (const int failure = meddle(fd, "send_message", ready_write, size); failure != 0) return failure;
  if (kind_of(fd) == kind::ip_datagram) return send_one(fd, m);
  if (size == total) return inner_->send_message(fd, m);
  return inner_->send_message(fd, shortened_message(m, size).get());
}

/// Sends an IP datagram, which may be lost, duplicated or delayed. A datagram that is larger than an Ethernet
/// packet gets no faults: the system may reject it, and its sender must get that error.
ANYIO_NET_FN ssize_t fault_injector::send_one(int fd, const message& m) {
  constexpr std::size_t fits_everywhere = 1472;
  const auto total = static_cast<ssize_t>(m.size());
  const bool in_pieces = m.control_size != 0;  // GSO: each part is one datagram
  if ((in_pieces ? m.parts.front().iov_len : m.size()) > fits_everywhere) return inner_->send_message(fd, m);
  if (chance(faults.drop)) return total;
  if (!held_ && chance(faults.reorder)) {
    held_datagram h{fd, {}, {}, {}};
    for (const ::iovec& part : m.parts) h.data.append(static_cast<const char*>(part.iov_base), part.iov_len);
    if (m.address != nullptr) h.address.assign(reinterpret_cast<const char*>(m.address), m.address_size);
    if (m.control_size != 0) h.control.assign(static_cast<const char*>(m.control), m.control_size);
    held_ = std::move(h);
    return total;
  }
  const ssize_t n = inner_->send_message(fd, m);
  if (n >= 0 && chance(faults.duplicate)) inner_->send_message(fd, m);
  release_held(fd);
  return n;
}

/// Sends the datagram of this descriptor that was held back, after the datagram that followed it.
ANYIO_NET_FN void fault_injector::release_held(int fd) {
  if (!held_ || held_->fd != fd) return;
  held_datagram h = std::move(*held_);
  held_.reset();
  const ::iovec part{h.data.data(), h.data.size()};
  message m{std::span(&part, 1)};
  sockaddr_storage address{};
  if (!h.address.empty()) {
    std::memcpy(&address, h.address.data(), std::min(h.address.size(), sizeof address));
    m.address = reinterpret_cast<sockaddr*>(&address);
    m.address_size = static_cast<socklen_t>(h.address.size());
  }
  m.control = h.control.data();
  m.control_size = h.control.size();
  inner_->send_message(fd, m);
}

ANYIO_NET_FN int fault_injector::get_option(int fd, int level, int name, void* value, socklen_t* size) {
  if (level == SOL_SOCKET && name == SO_ERROR && *size >= sizeof(int)) {
    if (const int failure = failure_of("connected", errors_of_connected); failure != 0) {
      break_here(fd);
      const int why = -failure;
      std::memcpy(value, &why, *size = sizeof why);
      return 0;
    }
  }
  return inner_->get_option(fd, level, name, value, size);
}

// --- the rest

ANYIO_NET_FN ssize_t fault_injector::read(int fd, void* data, std::size_t size) {
  if (const int failure = failure_of("read", errors_of_reading); failure != 0) {
    if (failure == -EAGAIN) owe(fd, ready_read);
    return failure;
  }
  if (denies(fd, ready_read)) return -EAGAIN;
  static_cast<void>(shorten(size));
  return files_of(*inner_).read(fd, data, size);
}

ANYIO_NET_FN ssize_t fault_injector::write(int fd, std::span<const ::iovec> parts) {
  if (const int failure = failure_of("write", errors_of_writing); failure != 0) {
    if (failure == -EAGAIN) owe(fd, ready_write);
    return failure;
  }
  if (denies(fd, ready_write)) return -EAGAIN;
  const message m{parts};
  std::size_t size = m.size();
  return files_of(*inner_).write(fd, shorten(size) ? shortened_message(m, size).get().parts : parts);
}

ANYIO_NET_FN resolved fault_injector::resolve(const std::string& host, std::uint16_t port, int family) {
  resolved failed;
  if (failure_of("resolve", errors_of_paths) != 0 || chance(faults.name_failure)) {
    failed.status = -ENOENT;
    failed.reason = "the name server does not answer";
    return failed;
  }
  return names_of(*inner_).resolve(host, port, family);
}

}  // namespace detail

ANYIO_NET_FN std::unique_ptr<backend> fault_backend(std::unique_ptr<backend> inner,
                                                    const sim::options& options) {
  if (inner == nullptr) return nullptr;
  auto choices = std::make_shared<detail::sim_choices>(options.seed, options.choices);
  return detail::faulty_backend::make(std::move(inner), std::move(choices), options.faults);
}

}}  // namespace anyio

#endif

// == simulation/sim.ipp ===========================================================================

// The start and the end of a simulated run.

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN sim_session::sim_session(const sim::options& options)
    : network_(std::make_shared<sim_network>(options)),
      options_(options),
      outer_(std::exchange(innermost, this)),
      outer_close_(std::exchange(close_simulated, &close_descriptor_here)),
      outer_security_(std::exchange(security_of_thread, network_.get())) {}

ANYIO_NET_FN sim_session::~sim_session() {
  innermost = outer_;
  close_simulated = outer_close_;
  security_of_thread = outer_security_;
}

ANYIO_NET_FN void sim_session::close_descriptor_here(int fd) noexcept {
  sim_network& network = current().network();
  network.trace("close", fd, network.close(fd));
}

/// The faults above the network. Loss happens in the network, since each link may have its own probability of
/// it.
inline sim::faults faults_above(sim::faults f) noexcept {
  f.drop = 0;
  return f;
}

ANYIO_NET_FN std::unique_ptr<backend> sim_session::make_backend() {
  auto made = faulty_backend::make(sim_network::make_backend(network_),
                                   std::shared_ptr<sim_choices>(network_, &network_->choices),
                                   faults_above(options_.faults));
  system_ = made.get();
  return made;
}

ANYIO_NET_FN void sim_session::set_faults(const sim::faults& faults) {
  options_.faults = faults;
  network_->set_latency(faults);
  if (system_ != nullptr) system_->faults = faults_above(faults);
}

ANYIO_NET_FN void sim_session::drive(loop_core& core, const bool& done) {
  while (!done && core.alive() && network_->verdict() == sim_verdict::none) core.turn(duration::max());
}

ANYIO_NET_FN void sim_session::conclude(loop_core& core, bool done, sim::report& out) {
  system_ = nullptr;
  out.virtual_time = network_->elapsed();
  if (done) return;
  out.dump = network_->dump() + core.dump();
  const auto fail = [&](errc code, const char* reason) {
    out.failure = error_access::with_reason(error(code, 0, "simulation"), reason);
  };
  switch (network_->verdict()) {
    case sim_verdict::deadlock:
      out.deadlock = true;
      return fail(errc::deadlock, "deadlock: nothing can wake any task");
    case sim_verdict::time_over: return fail(errc::timed_out, "virtual time limit reached");
    case sim_verdict::steps_over: return fail(errc::timed_out, "step limit reached");
    case sim_verdict::spins:
      return fail(errc::timed_out, "the program spins: it makes calls, but no byte moves and no time passes");
    case sim_verdict::none: break;  // an exception, or the program destroyed its loop
  }
}

ANYIO_NET_FN void sim_session::finish(sim::report& out) {
  out.leaked_handles = network_->open_descriptors();
  if (out.leaked_handles != 0 && out.dump.empty()) out.dump = network_->dump();
  out.trace_hash = network_->trace_hash();
  out.choices = network_->choices.taken();
}

ANYIO_NET_FN void sim_finding(const sim::report& r) {
  std::fprintf(stderr, "anyio: %s\n%s", r.message().c_str(), r.dump.c_str());
  std::abort();
}

ANYIO_NET_FN sim::options sim_fuzz_options(std::span<const std::uint8_t> input) noexcept {
  static constexpr std::uint8_t none = 0;
  sim::options o;
  o.choices = input.empty() ? std::span<const std::uint8_t>(&none, 0) : input;
  o.step_limit = 200'000;
  return o;
}

/// Chooses faults so that most runs have only a few kinds of them, but those often.
ANYIO_NET_FN void sim_choose_faults(sim_session& session) {
  sim_choices& choices = session.network().choices;
  const std::size_t kinds = choices.pick(256);
  const auto likely = [&](std::size_t bit) {
    constexpr double often[] = {0.05, 0.2, 0.5};
    return (kinds >> bit & 1) != 0 ? often[choices.pick(std::size(often))] : 0.0;
  };
  sim::faults f;
  f.short_io = likely(0);
  f.would_block = likely(1);
  f.interrupted = likely(1);
  f.reset = likely(2) / 10;
  f.drop = likely(3);
  f.duplicate = likely(4);
  f.reorder = likely(4);
  f.accept_exhausted = likely(5) / 2;
  f.name_failure = likely(6);
  if ((kinds >> 7 & 1) != 0) f.latency_max = std::chrono::milliseconds(1 << choices.pick(10));
  session.set_faults(f);
}

}  // namespace detail

namespace sim {

ANYIO_NET_FN bool report::ok() const noexcept {
#if ANYIO_NET_EXCEPTIONS
  if (exception) return false;
#endif
  return !failure && !deadlock && leaked_handles == 0;
}

ANYIO_NET_FN std::string report::message() const {
  std::string line = "simulation: ";
  if (failure) {
    line += failure->operation() == "simulation" ? failure->message().substr(12) : failure->message();
#if ANYIO_NET_EXCEPTIONS
  } else if (exception) {
    line += "the program ended with an exception";
#endif
  } else {
    line += "the program ended";
  }
  if (leaked_handles != 0) line += ", " + std::to_string(leaked_handles) + " descriptors leaked";
  line += ", after " + std::to_string(std::chrono::duration<double>(virtual_time).count()) + " s; choices ";
  constexpr char digits[] = "0123456789abcdef";
  std::size_t size = choices.size();
  while (size != 0 && choices[size - 1] == 0) --size;  // missing choices count as 0
  for (std::size_t i = 0; i < size; ++i) {
    line += digits[choices[i] >> 4];
    line += digits[choices[i] & 15];
  }
  if (size == 0) line += '-';
  return line;
}

ANYIO_NET_FN std::vector<std::uint8_t> parse_choices(std::string_view digits) {
  std::vector<std::uint8_t> bytes;
  unsigned value = 0;
  bool half = false;
  for (const char c : digits) {
    unsigned digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a' + 10);
    } else {
      continue;
    }
    value = value << 4 | digit;
    if (half) bytes.push_back(static_cast<std::uint8_t>(value));
    half = !half;
  }
  bytes.reserve(bytes.size() + 1);  // so that `data()` is not null, even if all choices were harmless
  return bytes;
}

ANYIO_NET_FN std::size_t draw(std::size_t bound) {
  detail::sim_network& network = detail::sim_session::current().network();
  const std::size_t drawn = network.choices.pick(bound);
  network.trace("draw", -1, static_cast<std::int64_t>(drawn));
  return drawn;
}

ANYIO_NET_FN std::string draw_bytes(std::size_t max) {
  std::string bytes(draw(max + 1), '\0');
  for (char& c : bytes) c = static_cast<char>(draw(256));
  return bytes;
}

ANYIO_NET_FN void set_faults(const faults& f) { detail::sim_session::current().set_faults(f); }

ANYIO_NET_FN void heal() { set_faults({}); }

ANYIO_NET_FN void set_link(ip_address from, ip_address to, const faults& f) {
  detail::sim_session::current().network().set_link(from, to, f);
}

ANYIO_NET_FN void set_name(std::string_view name, std::span<const ip_address> addresses) {
  detail::sim_session::current().network().set_name(name, addresses);
}

ANYIO_NET_FN void raise(int signal) {
  detail::sim_session::current().network().raise(signal);
  detail::loop_core::current().system().wake();
}

}  // namespace sim

}}  // namespace anyio

#endif

// == simulation/sim_backend.ipp ===================================================================

// A backend on a network in memory: virtual time that jumps ahead when everything waits, and a trace of every
// call.
//
// This part must not know operations or faults.

#if defined(ANYIO_NET_SIM)

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class sim_backend final : public backend,
                          private name_service,
                          private file_service,
                          private path_service,
                          private batch_service,
                          private thread_service,
                          private signal_service {
 public:
  explicit sim_backend(std::shared_ptr<sim_network> network) noexcept : network_(std::move(network)) {}

  time_point now() override { return network_->now(); }

  // --- readiness
  int watch(int fd, std::uint64_t token) override { return traced("watch", fd, network_->watch(fd, token)); }
  void forget(int fd) override { network_->forget(fd); }
  int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool) override {
    return traced("watch_once", fd, network_->watch(fd, token, true, interest));
  }
  int poll_now(int fd, std::uint32_t interest) override {
    const sim_handle s = network_->find(fd);
    const std::uint32_t wanted = interest | ready_end;
    const int bits = s == nullptr ? network_->refusal(fd) : static_cast<int>(network_->level(*s) & wanted);
    return traced("poll", fd, bits);
  }
  int wait(std::span<poll_event> events, duration at_most) override {
    const time_point deadline =
        at_most < duration::zero() ? time_point::max() : anyio::detail::add(network_->now(), at_most);
    for (;;) {
      const int count = network_->collect(events);
      if (count != 0) return traced("wait", -1, count);
      if (std::exchange(woken_, false) || network_->verdict() != sim_verdict::none)
        return traced("wait", -1, 0);
      if (network_->advance(deadline)) continue;
      if (deadline == time_point::max()) network_->end(sim_verdict::deadlock);
      return traced("wait", -1, network_->collect(events));
    }
  }
  void wake() override { woken_ = true; }
  int native_handle() const override { return -1; }

  // --- sockets
  int open_socket(int family, int type, int) override {
    return traced("socket", -1, network_->open(family, type));
  }
  int open_pair(int family, int type, int (&fds)[2]) override {
    return traced("socketpair", -1, network_->open_pair(family, type, fds));
  }
  int bind(int fd, const sockaddr* address, socklen_t size) override {
    return on_socket("bind", fd, &sim_network::bind, address, size);
  }
  int listen(int fd, int backlog) override { return on_socket("listen", fd, &sim_network::listen, backlog); }
  int connect(int fd, const sockaddr* address, socklen_t size) override {
    return on_socket("connect", fd, &sim_network::connect, address, size);
  }
  int accept(int fd, sockaddr* address, socklen_t* size) override {
    return on_socket("accept", fd, &sim_network::accept, address, size);
  }
  int shutdown(int fd, int how) override { return on_socket("shutdown", fd, &sim_network::shutdown, how); }
  int break_connection(int fd) override { return on_socket("break", fd, &sim_network::break_connection); }
  int close(int fd) override { return traced("close", fd, network_->close(fd)); }
  ssize_t receive(int fd, void* data, std::size_t size) override {
    const ::iovec part{data, size};
    message m{std::span(&part, 1)};
    return on_socket("receive", fd, &sim_network::receive, m, false);
  }
  ssize_t send(int fd, const void* data, std::size_t size) override {
    const ::iovec part{const_cast<void*>(data), size};
    return on_socket("send", fd, &sim_network::send, message{std::span(&part, 1)});
  }
  ssize_t receive_message(int fd, message& m) override {
    return on_socket("receive_message", fd, &sim_network::receive, m, m.control != nullptr);
  }
  ssize_t send_message(int fd, const message& m) override {
    return on_socket("send_message", fd, &sim_network::send, m);
  }
  int get_option(int fd, int level, int name, void* value, socklen_t* size) override {
    return on_socket("get_option", fd, &sim_network::get_option, level, name, value, size);
  }
  int set_option(int fd, int level, int name, const void* value, socklen_t size) override {
    return on_socket("set_option", fd, &sim_network::set_option, level, name, value, size);
  }
  int local_address(int fd, sockaddr* address, socklen_t* size) override {
    return on_socket(nullptr, fd, &sim_network::address_of, false, address, size);
  }
  int remote_address(int fd, sockaddr* address, socklen_t* size) override {
    return on_socket(nullptr, fd, &sim_network::address_of, true, address, size);
  }

  name_service* names() override { return this; }
  file_service* files() override { return this; }
  path_service* paths() override { return this; }
  batch_service* batches() override { return this; }
  thread_service* threads() override { return this; }
  signal_service* signals() override { return this; }

 private:
  // --- names
  resolved resolve(const std::string& host, std::uint16_t port, int family) override {
    resolved answer = network_->resolve(host, port, family);
    network_->trace("resolve", -1, answer.status);
    return answer;
  }
  int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) override {
    host = endpoint.address.to_string();
    service = std::to_string(endpoint.port);
    return 0;
  }
  bool has_family(int family) override {
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
  }

  // --- descriptors of other kinds: there are none
  int adopt(int fd) override { return network_->is_open(fd) ? 0 : network_->refusal(fd); }
  int make_blocking(int) override { return 0; }
  int set_close_on_exec(int) override { return 0; }
  int identify(int fd, file_identity& identity) override {
    return on_socket(nullptr, fd, &sim_network::identify_socket, identity);
  }
  ssize_t read(int fd, void* data, std::size_t size) override { return receive(fd, data, size); }
  ssize_t write(int fd, std::span<const ::iovec> parts) override { return send_message(fd, message{parts}); }
  ssize_t send_file(int, int file, std::uint64_t, std::size_t) override {
    return traced("send_file", file, network_->is_open(file) ? -EINVAL : -EOPNOTSUPP);
  }

  // --- paths
  int identify(const char* path, file_identity& identity) override {
    return network_->identify(path, identity);
  }
  int change_mode(const char* path, mode_t) override {
    file_identity identity;
    return network_->identify(path, identity);
  }
  int unlink(const char* path) override { return traced("unlink", -1, network_->unlink(path)); }

  // --- batches
  int receive_messages(int fd, std::span<message> messages, std::span<std::size_t> sizes,
                       bool& emptied) override {
    return receive_each(messages, sizes, emptied, [&](message& m) { return receive_message(fd, m); });
  }
  int send_messages(int fd, std::span<const message> messages) override {
    return send_each(messages, [&](const message& m) { return send_message(fd, m); });
  }

  // --- threads: there are none
  bool uses_threads() const override { return false; }
  /// At least one, so that cancellation can find a call that has not begun, as on a helper thread.
  std::size_t turns_before_call() override { return 1 + network_->choices.pick(8); }
  int start_thread(void (*)(void*), void*) override { return -EAGAIN; }

  // --- signals
  int catch_signal(int number) override { return network_->catch_signal(number); }
  void release_signal(int number) override { network_->release_signal(number); }
  bool take_signal(int number) override { return network_->take_signal(number); }

  template <class Outcome>
  Outcome traced(const char* call, int fd, Outcome outcome) {
    network_->trace(call, fd, static_cast<std::int64_t>(outcome));
    return outcome;
  }
  /// Makes a call for the socket of a descriptor. `call` is its name in the trace; null: it is not traced.
  template <class Outcome, class... P, class... A>
  Outcome on_socket(const char* call, int fd, Outcome (sim_network::*function)(const sim_handle&, P...),
                    A&&... arguments) {
    const sim_handle s = network_->find(fd);
    const Outcome outcome =
        s == nullptr ? network_->refusal(fd) : (*network_.*function)(s, std::forward<A>(arguments)...);
    return call == nullptr ? outcome : traced(call, fd, outcome);
  }

  std::shared_ptr<sim_network> network_;
  bool woken_ = false;
};

ANYIO_NET_FN std::unique_ptr<backend> sim_network::make_backend(std::shared_ptr<sim_network> network) {
  return std::make_unique<sim_backend>(std::move(network));
}

}}}  // namespace anyio::detail

#endif

// == simulation/sim_choices.ipp ===================================================================

// The implementation of choices.

#if defined(ANYIO_NET_SIM)

#include <algorithm>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
ANYIO_NET_FN std::uint64_t sim_choices::mix(std::uint64_t& state) noexcept {
  std::uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

ANYIO_NET_FN std::size_t sim_choices::pick(std::size_t bound) {
  if (bound < 2) return 0;
  std::size_t width = 1;
  while (width < sizeof bound && (bound - 1) >> (8 * width) != 0) ++width;
  std::uint64_t value = 0;
  if (from_bytes_) {
    const std::size_t given = std::min(width, bytes_.size());
    for (std::size_t i = 0; i < given; ++i) value |= std::uint64_t{bytes_[i]} << (8 * i);
    bytes_ = bytes_.subspan(given);
  } else {
    value = mix(state_);
  }
  value %= bound;
  for (std::size_t i = 0; i < width; ++i) taken_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  return static_cast<std::size_t>(value);
}

ANYIO_NET_FN bool sim_choices::chance(double probability) {
  if (!(probability > 0)) return false;
  constexpr std::size_t scale = 65536;
  const auto share = static_cast<std::size_t>(std::min(probability, 1.0) * scale);
  return pick(scale) >= scale - std::max<std::size_t>(share, 1);
}

ANYIO_NET_FN std::uint64_t sim_choices::noise() {
  if (!noisy_) {
    noisy_ = true;
    noise_ = pick(std::size_t{1} << 31);
  }
  return mix(noise_);
}

}}}  // namespace anyio::detail

#endif

// == simulation/sim_sockets.ipp ===================================================================

// Socket calls before data is sent: addresses, listening, connecting.

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/un.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// --- addresses

/// The name by which a UNIX socket is found. Each socket type has its own set of abstract names.
inline std::string place_of(const std::string& path, int type) {
  std::string place = path;
  if (!path.empty() && path.front() == '\0') place += type == SOCK_STREAM ? 's' : 'd';
  return place;
}

/// Reads an address for a socket of this family; an IPv6 socket accepts an IPv4 address in its mapped form.
ANYIO_NET_FN bool sim_network::read_address(const sim_socket& s, const sockaddr* address, socklen_t size,
                                            ip_endpoint& out) const {
  if (size < sizeof(sa_family_t) || address->sa_family != s.family) return false;
  const result<ip_endpoint> endpoint = ip_endpoint::from_sockaddr(address, size);
  if (endpoint) out = *endpoint;
  return endpoint.has_value();
}

inline void write_sim_address(const sim_socket& s, const ip_endpoint& endpoint, const std::string& path,
                              sockaddr* into, socklen_t* size) {
  sockaddr_storage storage{};
  socklen_t needed = 0;
  if (!s.is_ip()) {
    auto& un = reinterpret_cast<sockaddr_un&>(storage);
    un.sun_family = AF_UNIX;
    const std::size_t length = std::min(path.size(), sizeof un.sun_path);
    std::memcpy(un.sun_path, path.data(), length);
    const bool terminated = !path.empty() && path.front() != '\0' && length < sizeof un.sun_path;
    needed = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length + (terminated ? 1 : 0));
  } else if (s.family == AF_INET6 && endpoint.address.is_v4()) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(endpoint.port);
    const bool any = endpoint.address == ip_address::any_v4();
    if (!any) {
      in6.sin6_addr.s6_addr[10] = in6.sin6_addr.s6_addr[11] = 0xff;
      std::memcpy(&in6.sin6_addr.s6_addr[12], endpoint.address.bytes().data(), 4);
    }
    needed = sizeof in6;
  } else {
    needed = endpoint.to_sockaddr(storage);
  }
  if (into != nullptr) std::memcpy(into, &storage, std::min<std::size_t>(*size, needed));
  *size = needed;
}

inline bool is_any(const ip_address& a) { return a == ip_address::any_v4() || a == ip_address::any_v6(); }

/// Whether a bound socket receives data that is sent to this address.
inline bool covers(const sim_socket& s, const ip_address& target) {
  if (s.local.address == target) return true;
  if (!is_any(s.local.address)) return false;
  if (s.family == AF_INET) return target.is_v4();
  return target.is_v6() || s.option(IPPROTO_IPV6, IPV6_V6ONLY) == 0;
}

ANYIO_NET_FN std::vector<sim_handle> sim_network::bound_to(int type, std::uint16_t port) const {
  std::vector<sim_handle> found;
  for (const auto& place : ports_)
    if (const sim_handle s = place.lock();
        s != nullptr && !s->gone && s->type == type && s->local.port == port)
      found.push_back(s);
  return found;
}

ANYIO_NET_FN bool sim_network::is_taken(const sim_socket& s, const ip_endpoint& at) const {
  for (const sim_handle& other : bound_to(s.type, at.port)) {
    sim_socket wanted;
    wanted.family = s.family;
    wanted.local = at;
    wanted.options = s.options;
    if (!covers(*other, at.address) && !covers(wanted, other->local.address)) continue;
    const auto both = [&](int name) {
      return s.option(SOL_SOCKET, name) != 0 && other->option(SOL_SOCKET, name) != 0;
    };
    if (both(SO_REUSEPORT)) continue;
    const bool listens = other->stage == sim_socket::state::listening;
    if (both(SO_REUSEADDR) && (s.type == SOCK_DGRAM || !listens)) continue;
    return true;
  }
  return false;
}

ANYIO_NET_FN int sim_network::bind_ip(const sim_handle& s, ip_endpoint at) {
  if (at.port == 0) {
    for (int tries = 0; tries < 28232; ++tries) {
      at.port = next_port_;
      next_port_ = next_port_ == 60999 ? 32768 : static_cast<std::uint16_t>(next_port_ + 1);
      if (!is_taken(*s, at)) break;
      at.port = 0;
    }
    if (at.port == 0) return -EADDRINUSE;
  } else if (is_taken(*s, at)) {
    return -EADDRINUSE;
  }
  s->bound = true;
  s->local = at;
  std::erase_if(ports_, [](const auto& place) { return place.expired(); });
  ports_.push_back(s);
  return 0;
}

ANYIO_NET_FN int sim_network::bind_any(const sim_handle& s) {
  return bind_ip(s, ip_endpoint{any_address(s->family == AF_INET6), 0});
}

ANYIO_NET_FN int sim_network::bind_path(const sim_handle& s, const std::string& path) {
  if (path.empty()) return -EINVAL;
  const bool is_abstract = path.front() == '\0';
  if (is_abstract && profile_ != sim::profile::linux_) return -ENOENT;
  if (is_abstract && s->bound) return -EINVAL;
  const std::string place = place_of(path, s->type);
  const bool is_left_behind = is_abstract && at_path(place) == nullptr;  // an abstract name leaves no file
  if (files_.contains(place) && !is_left_behind) return -EADDRINUSE;
  if (s->bound) return -EINVAL;
  files_[place] = file{s, next_inode_++};
  s->bound = true;
  s->local_path = path;
  if (const sim_handle peer = s->peer.lock(); peer != nullptr && peer->peer.lock() == s)
    peer->remote_path = path;
  return 0;
}

ANYIO_NET_FN sim_handle sim_network::at_path(const std::string& place) const {
  const auto found = files_.find(place);
  const sim_handle s = found == files_.end() ? nullptr : found->second.socket.lock();
  return s == nullptr || s->gone ? nullptr : s;
}

ANYIO_NET_FN int sim_network::bind(const sim_handle& s, const sockaddr* address, socklen_t size) {
  if (!s->is_ip()) return bind_path(s, unix_path(address, size));
  if (s->bound) return -EINVAL;
  ip_endpoint at;
  if (!read_address(*s, address, size, at)) return -EINVAL;
  if (s->family == AF_INET6 && at.address.is_v4() && s->option(IPPROTO_IPV6, IPV6_V6ONLY) != 0)
    return -EINVAL;
  const bool broadcast = at.address == ip_address::v4(0xffffffff);
  if (s->type == SOCK_STREAM && (at.address.is_multicast() || broadcast)) return -EADDRNOTAVAIL;
  const int status = bind_ip(s, at);
  // Linux: a socket that is bound to one IPv6 address receives no IPv4.
  if (status >= 0 && at.address.is_v6() && !is_any(at.address)) s->options[{IPPROTO_IPV6, IPV6_V6ONLY}] = 1;
  return status;
}

ANYIO_NET_FN int sim_network::listen(const sim_handle& s, int backlog) {
  if (s->type != SOCK_STREAM) return -EOPNOTSUPP;
  if (s->stage != sim_socket::state::fresh && s->stage != sim_socket::state::listening) return -EINVAL;
  if (!s->bound) {
    if (!s->is_ip()) return -EINVAL;
    if (const int status = bind_any(s); status < 0) return status;
  }
  for (const sim_handle& other : bound_to(SOCK_STREAM, s->local.port)) {
    if (!s->is_ip() || other == s || other->stage != sim_socket::state::listening) continue;
    if (!covers(*other, s->local.address) && !covers(*s, other->local.address)) continue;
    if (s->option(SOL_SOCKET, SO_REUSEPORT) == 0 || other->option(SOL_SOCKET, SO_REUSEPORT) == 0)
      return -EADDRINUSE;
  }
  s->stage = sim_socket::state::listening;
  s->backlog = static_cast<std::size_t>(std::clamp(backlog, 0, 4096)) + 1;  // somaxconn, plus one as on Linux
  return 0;
}

// --- connections

ANYIO_NET_FN void sim_network::connect_ends(const sim_handle& a, const sim_handle& b) {
  a->stage = b->stage = sim_socket::state::connected;
  a->peer = b;
  b->peer = a;
}

ANYIO_NET_FN sim_handle sim_network::listener_at(const ip_endpoint& at) {
  std::vector<sim_handle> found;
  bool special = false;
  for (const sim_handle& s : bound_to(SOCK_STREAM, at.port)) {
    if (s->stage != sim_socket::state::listening || !covers(*s, at.address)) continue;
    const bool is_special = !is_any(s->local.address);
    if (special && !is_special) continue;
    if (is_special && !special) found.clear();  // a specific address takes precedence
    special = is_special;
    found.push_back(s);
  }
  // Listeners that share a port take turns.
  return found.empty() ? nullptr : found[found.size() == 1 ? 0 : next_listener_++ % found.size()];
}

/// Disconnects a UNIX datagram socket. If it has unread datagrams, Linux discards them and reports ECONNRESET
/// to a peer that is connected to it.
ANYIO_NET_FN void sim_network::leave_peer(sim_socket& s) {
  const sim_handle peer = s.peer.lock();
  s.stage = sim_socket::state::fresh;
  s.peer.reset();
  if (!s.inbox.empty()) {
    for (sim_chunk& chunk : s.inbox) drop_chunk(chunk);
    s.inbox.clear();
    s.inbox_bytes = 0;
    if (peer != nullptr && !peer->gone && peer->peer.lock().get() == &s) {
      peer->broken = ECONNRESET;
      changed(*peer);
    }
  }
  changed(s);
}

ANYIO_NET_FN int sim_network::connect_unix(const sim_handle& s, const std::string& path) {
  if (path.empty()) return -EINVAL;
  const std::string place = place_of(path, s->type);
  if (!files_.contains(place)) return path.front() == '\0' ? -ECONNREFUSED : -ENOENT;
  const sim_handle target = at_path(place);
  if (target == nullptr) return -ECONNREFUSED;
  if (target->type != s->type) return -EPROTOTYPE;
  if (s->type == SOCK_DGRAM) {
    if (target->stage == sim_socket::state::connected && target->peer.lock() != s) return -EPERM;
    if (s->stage == sim_socket::state::connected && s->peer.lock() != target) leave_peer(*s);
    s->stage = sim_socket::state::connected;
    s->peer = target;
    s->remote_path = path;
    changed(*s);
    return 0;
  }
  if (target->stage != sim_socket::state::listening || target->receiving_over) return -ECONNREFUSED;
  if (target->accepted.size() >= target->backlog)
    return profile_ == sim::profile::linux_ ? -EAGAIN : -ECONNREFUSED;
  if (s->stage != sim_socket::state::fresh)
    return s->stage == sim_socket::state::connected ? -EISCONN : -EINVAL;
  const sim_handle server = make(AF_UNIX, SOCK_STREAM);
  server->bound = true;
  server->local_path = path;
  server->remote_path = s->local_path;
  s->remote_path = path;
  connect_ends(s, server);
  target->accepted.push_back(server);
  changed(*target);
  changed(*s);
  return 0;
}

/// The address that replaces the unspecified address as a destination: the machine itself.
inline ip_address own_address(const sim_socket& s, const ip_address& any) {
  const bool v4 = any.is_v4() || (s.bound && s.local.address.is_v4());
  if (s.family == AF_INET && s.bound && !is_any(s.local.address)) return s.local.address;
  return loopback_address(!v4);
}

ANYIO_NET_FN int sim_network::connect(const sim_handle& s, const sockaddr* address, socklen_t size) {
  if (!s->is_ip()) {
    if (address->sa_family != AF_UNIX) return -EINVAL;
    return connect_unix(s, unix_path(address, size));
  }
  if (s->type == SOCK_STREAM) {
    switch (s->stage) {
      case sim_socket::state::connecting: return -EALREADY;
      case sim_socket::state::connected: return std::exchange(s->told, true) ? -EISCONN : 0;
      case sim_socket::state::listening: return -EISCONN;
      case sim_socket::state::refused:  // reports the error; the socket may try again
        s->stage = sim_socket::state::fresh;
        if (s->roaming) s->local.address = any_address(s->family == AF_INET6);
        if (s->unnamed) s->bound = false;
        return s->broken != 0 ? -std::exchange(s->broken, 0) : -ECONNABORTED;
      case sim_socket::state::fresh: break;
    }
  }
  ip_endpoint to;
  if (!read_address(*s, address, size, to)) return -EAFNOSUPPORT;
  if (is_any(to.address)) to.address = own_address(*s, to.address);
  if (to.address.is_v6() && s->bound && s->local.address.is_v4()) return -EAFNOSUPPORT;
  if (s->family == AF_INET6 && to.address.is_v4() && s->option(IPPROTO_IPV6, IPV6_V6ONLY) != 0)
    return -ENETUNREACH;
  if (s->type == SOCK_STREAM && to.address.is_multicast()) return -ENETUNREACH;
  if (!s->bound) {
    if (const int status = bind_any(s); status < 0) return status;
    s->unnamed = true;
  }
  s->roaming = s->roaming || is_any(s->local.address);
  if (is_any(s->local.address)) s->local.address = loopback_address(to.address.is_v6());
  s->remote = to;
  if (s->type == SOCK_DGRAM) {
    s->stage = sim_socket::state::connected;
    return 0;
  }
  s->stage = sim_socket::state::connecting;
  arrival a{arrival::kind::call, {}, s, {}, to, 0};
  call(a);
  return -EINPROGRESS;
}

/// Sends the first segment of a connection.
ANYIO_NET_FN void sim_network::call(arrival& a) {
  const sim_handle client = a.from.lock();
  if (client == nullptr || client->gone || client->stage != sim_socket::state::connecting) return;
  if (is_dead(client->local.address, a.target.address)) return call_again(a);
  a.what = arrival::kind::knock;
  const time_point when = arrival_time(client->local.address, a.target.address, true);
  dispatch(when, std::move(a));
}

/// Sends an unanswered first segment again after a pause. Gives up after 127 seconds, on the BSDs after 75.
ANYIO_NET_FN void sim_network::call_again(arrival& a) {
  const bool is_linux = profile_ == sim::profile::linux_;
  const int most_tries = is_linux ? 6 : 5;
  const bool over = a.tries == most_tries;
  const std::chrono::seconds pause(over && !is_linux ? 44 : 1 << a.tries);
  ++a.tries;
  if (over) {
    a.what = arrival::kind::refused;
    a.to = a.from;
    a.error_number = ETIMEDOUT;
  } else {
    a.what = arrival::kind::call;
  }
  const time_point when = anyio::detail::add(now_, pause);
  dispatch(when, std::move(a));
}

/// Handles the arrival of the first segment at its destination, where a listener may exist.
ANYIO_NET_FN void sim_network::knock(arrival& a) {
  const sim_handle client = a.from.lock();
  if (client == nullptr || client->gone || client->stage != sim_socket::state::connecting) return;
  const sim_handle listener = listener_at(a.target);
  const bool full = listener != nullptr && listener->accepted.size() >= listener->backlog;
  if (full || is_dead(a.target.address, client->local.address)) return call_again(a);
  const time_point answered = arrival_time(a.target.address, client->local.address, true);
  if (listener == nullptr && a.target == client->local) {  // it connects to itself
    client->peer = client;
    return dispatch(answered, arrival{arrival::kind::established, client, {}, {}, {}, 0});
  }
  if (listener == nullptr)
    return dispatch(answered, arrival{arrival::kind::refused, client, {}, {}, {}, ECONNREFUSED});
  const sim_handle server = make(client->family, SOCK_STREAM);
  server->family = listener->family;
  server->options = listener->options;
  server->bound = true;
  server->local = a.target;
  server->remote = client->local;
  server->stage = sim_socket::state::connected;
  server->told = true;
  server->peer = client;
  client->peer = server;
  listener->accepted.push_back(server);
  changed(*listener);
  client->last_arrival = answered;
  dispatch(answered, arrival{arrival::kind::established, client, {}, {}, {}, 0});
}

ANYIO_NET_FN int sim_network::accept(const sim_handle& s, sockaddr* address, socklen_t* size) {
  if (s->type != SOCK_STREAM) return -EOPNOTSUPP;
  if (s->stage != sim_socket::state::listening) return -EINVAL;
  if (s->accepted.empty()) return -EAGAIN;
  const sim_handle connection = std::move(s->accepted.front());
  s->accepted.pop_front();
  if (connection->reset && profile_ != sim::profile::linux_) return -ECONNABORTED;
  write_sim_address(*connection, connection->remote, connection->remote_path, address, size);
  idle_steps_ = 0;
  return add(connection);
}

/// Whether this connection is closed in both directions; Linux then forgets its remote address.
inline bool is_over(const sim_socket& s) {
  return s.is_ip() && s.type == SOCK_STREAM && (s.reset || (s.ended && s.sending_over));
}

ANYIO_NET_FN int sim_network::shutdown(const sim_handle& s, int how) {
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return -EINVAL;
  if (s->is_ip() && s->stage == sim_socket::state::listening) {
    if (how != SHUT_WR) stop_listening(*s);
    return 0;
  }
  if (s->is_ip() && s->stage == sim_socket::state::connecting) {
    s->stage = sim_socket::state::fresh;
    changed(*s);
    return 0;
  }
  const bool connected = s->stage == sim_socket::state::connected;
  const bool sends = connected && !s->sending_over && !is_over(*s);
  const int status = s->is_ip() && (!connected || is_over(*s)) ? -ENOTCONN : 0;
  if (how != SHUT_WR) s->receiving_over = true;
  if (how != SHUT_RD) s->sending_over = true;
  if (how != SHUT_RD && sends && s->type == SOCK_STREAM) send_to_peer(*s, arrival::kind::end);
  if (const sim_handle peer = s->peer.lock();
      how != SHUT_WR && peer != nullptr && !s->is_ip() && s->type == SOCK_STREAM) {
    peer->sending_over = true;  // UNIX sockets know at once that the peer will not receive
    changed(*peer);
  }
  changed(*s);
  return status;
}

ANYIO_NET_FN void sim_network::stop_listening(sim_socket& s) {
  s.stage = sim_socket::state::fresh;
  for (const sim_handle& waiting : std::exchange(s.accepted, {})) {
    send_to_peer(*waiting, arrival::kind::reset, ECONNRESET);
    waiting->gone = true;
  }
  changed(s);
}

ANYIO_NET_FN int sim_network::break_connection(const sim_handle& s) {
  if (s->stage != sim_socket::state::connected || s->type != SOCK_STREAM || s->reset) return -ENOTCONN;
  send_to_peer(*s, arrival::kind::reset, ECONNRESET);
  break_stream(*s, 0);
  return 0;
}

ANYIO_NET_FN int sim_network::address_of(const sim_handle& s, bool remote, sockaddr* address,
                                         socklen_t* size) {
  if (remote && (s->stage != sim_socket::state::connected || is_over(*s))) return -ENOTCONN;
  ip_endpoint endpoint = remote ? s->remote : s->local;
  if (!remote && !s->bound && s->is_ip()) endpoint.address = any_address(s->family == AF_INET6);
  write_sim_address(*s, endpoint, remote ? s->remote_path : s->local_path, address, size);
  return 0;
}

}}}  // namespace anyio::detail

#endif

// == simulation/sim_messages.ipp ==================================================================

// Socket calls for data: options, bytes, datagrams, passed descriptors.

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/un.h>

#if defined(__APPLE__) || defined(__FreeBSD__)
#include <sys/ucred.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// --- options

/// The error for an option level that this kind of socket does not have, or 0. There is no GRO and no GSO.
inline int option_refusal(const sim_socket& s, int level, bool gets) {
  if (level == SOL_SOCKET) return 0;
  if (!s.is_ip()) return -EOPNOTSUPP;
  if (level == IPPROTO_UDP && s.type == SOCK_DGRAM) return -ENOPROTOOPT;
  const bool of_another = level == IPPROTO_UDP || (level == IPPROTO_TCP && s.type != SOCK_STREAM) ||
                          (level == IPPROTO_IPV6 && s.family == AF_INET);
  if (!of_another) return 0;
  return gets && s.family == AF_INET ? -EOPNOTSUPP : -ENOPROTOOPT;
}

ANYIO_NET_FN int sim_network::get_option(const sim_handle& s, int level, int name, void* value,
                                         socklen_t* size) {
#if defined(SO_PEERCRED)
  if (level == SOL_SOCKET && name == SO_PEERCRED) {
    const int who[3] = {1, 0, 0};  // process, user, group
    *size = std::min<socklen_t>(*size, sizeof who);
    std::memcpy(value, who, *size);
    return 0;
  }
#elif defined(LOCAL_PEERCRED) && defined(SOL_LOCAL)
  if (!s->is_ip() && level == SOL_LOCAL) {
    const int process = 1;
    const xucred who{};
    const bool is_process = name != LOCAL_PEERCRED;
    *size = std::min<socklen_t>(*size, is_process ? sizeof process : sizeof who);
    std::memcpy(value, is_process ? static_cast<const void*>(&process) : &who, *size);
    return 0;
  }
#endif
  if (const int status = option_refusal(*s, level, true); status < 0) return status;
  int out = s->option(level, name);
  if (level == SOL_SOCKET) {
    if (name == SO_TYPE) out = s->type;
    if (name == SO_ERROR) out = std::exchange(s->broken, 0);
    if (name == SO_ACCEPTCONN) out = s->stage == sim_socket::state::listening ? 1 : 0;
    if ((name == SO_RCVBUF || name == SO_SNDBUF) && out == 0) out = 131072;
  }
  *size = std::min<socklen_t>(*size, sizeof out);
  std::memcpy(value, &out, *size);
  return 0;
}

/// Adds a socket to a multicast group, or removes it. Returns 1 if the option is not about membership.
inline int change_membership(sim_socket& s, int level, int name, const void* value, socklen_t size) {
  ip_address group;
  bool joins = false;
  if (level == IPPROTO_IP && (name == IP_ADD_MEMBERSHIP || name == IP_DROP_MEMBERSHIP)) {
    if (size < sizeof(ip_mreq)) return -EINVAL;
    ip_mreq request;
    std::memcpy(&request, value, sizeof request);
    group = ip_address::v4(ntohl(request.imr_multiaddr.s_addr));
    joins = name == IP_ADD_MEMBERSHIP;
  } else if (level == IPPROTO_IPV6 && (name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP)) {
    if (size < sizeof(ipv6_mreq)) return -EINVAL;
    ipv6_mreq request;
    std::memcpy(&request, value, sizeof request);
    std::byte bytes[16];
    std::memcpy(bytes, &request.ipv6mr_multiaddr, sizeof bytes);
    group = ip_address::v6(bytes);
    joins = name == IPV6_JOIN_GROUP;
  } else {
    return 1;
  }
  if (!group.is_multicast()) return -EINVAL;
  if (joins) return s.groups.insert(group).second ? 0 : -EADDRINUSE;
  return s.groups.erase(group) != 0 ? 0 : -EADDRNOTAVAIL;
}

ANYIO_NET_FN int sim_network::set_option(const sim_handle& s, int level, int name, const void* value,
                                         socklen_t size) {
  if (profile_ != sim::profile::linux_ && s->reset) return -EINVAL;  // the connection is gone
  if (const int status = option_refusal(*s, level, false); status < 0) return status;
  if (level == SOL_SOCKET && (name == SO_ERROR || name == SO_TYPE || name == SO_ACCEPTCONN))
    return -ENOPROTOOPT;
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && s->bound && !is_over(*s) &&
      s->stage != sim_socket::state::refused)
    return -EINVAL;
  if (const int status = change_membership(*s, level, name, value, size); status <= 0) return status;
  if (level == SOL_SOCKET && name == SO_LINGER) {
    if (size < sizeof(linger)) return -EINVAL;
    linger l;
    std::memcpy(&l, value, sizeof l);
    s->options[{level, name}] = l.l_onoff != 0 && l.l_linger == 0 ? 1 : 0;
    return 0;
  }
  int number = 0;
  std::memcpy(&number, value, std::min<std::size_t>(size, sizeof number));
  if (level == SOL_SOCKET && name == SO_REUSEPORT && !s->is_ip() && number != 0) return -EOPNOTSUPP;
  s->options[{level, name}] = number;
  return 0;
}

// --- descriptors in messages

ANYIO_NET_FN int sim_network::read_passed(const message& m, std::vector<sim_handle>& passed) {
  if (m.control == nullptr || m.control_size == 0) return 0;
  msghdr header{};
  header.msg_control = m.control;
  header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = next_control(header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    constexpr std::size_t most = 253;  // SCM_MAX_FD of Linux
    if (passed.size() + count > most) return -EINVAL;
    for (std::size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      const sim_handle s = find(fd);
      if (s == nullptr) return refusal(fd);
      passed.push_back(s);
    }
  }
  return 0;
}

ANYIO_NET_FN void sim_network::hand_over(std::vector<sim_handle>&& passed, message& m, bool takes_control) {
  const std::size_t room =
      takes_control && m.control_size >= CMSG_LEN(0) ? (m.control_size - CMSG_LEN(0)) / sizeof(int) : 0;
  const std::size_t count = std::min(room, passed.size());
  if (passed.size() > count) m.flags |= MSG_CTRUNC;
  if (count != 0) {
    cmsghdr header{};
    header.cmsg_len = static_cast<decltype(header.cmsg_len)>(CMSG_LEN(count * sizeof(int)));
    header.cmsg_level = SOL_SOCKET;
    header.cmsg_type = SCM_RIGHTS;
    std::byte* place = static_cast<std::byte*>(m.control);
    std::memcpy(place, &header, sizeof header);
    place += CMSG_LEN(0);
    for (std::size_t i = 0; i < count; ++i, place += sizeof(int)) {
      const int fd = add(passed[i]);
      std::memcpy(place, &fd, sizeof fd);
    }
    m.control_size = std::min<std::size_t>(m.control_size, CMSG_SPACE(count * sizeof(int)));
  } else {
    m.control_size = 0;
  }
  for (const sim_handle& s : passed) drop(s);  // the reference of the message
}

// --- bytes

inline std::size_t gather(const message& m, std::size_t most, std::string& out) {
  for (const ::iovec& part : m.parts) {
    const std::size_t n = std::min(part.iov_len, most - out.size());
    out.append(static_cast<const char*>(part.iov_base), n);
  }
  return out.size();
}

/// Copies bytes to the parts of a message, after the first `offset` bytes.
inline void scatter(const message& m, std::size_t offset, std::string_view bytes) {
  for (const ::iovec& part : m.parts) {
    if (offset >= part.iov_len) {
      offset -= part.iov_len;
      continue;
    }
    const std::size_t n = std::min(part.iov_len - offset, bytes.size());
    std::memcpy(static_cast<char*>(part.iov_base) + offset, bytes.data(), n);
    bytes.remove_prefix(n);
    offset = 0;
    if (bytes.empty()) return;
  }
}

ANYIO_NET_FN std::size_t sim_network::window_of(const sim_socket& to) const noexcept {
  constexpr std::size_t datagrams = 11;  // Linux's net.unix.max_dgram_qlen plus one
  constexpr std::size_t usual = 131072;
  if (to.type == SOCK_DGRAM) return datagrams;
  const int chosen = to.option(SOL_SOCKET, SO_RCVBUF);
  return chosen > 0 ? static_cast<std::size_t>(std::max(chosen, 2304)) : usual;
}

ANYIO_NET_FN ssize_t sim_network::send(const sim_handle& s, const message& m) {
  std::vector<sim_handle> passed;
  if (const int status = read_passed(m, passed); status < 0) return status;
  if (!passed.empty() && s->is_ip()) return -EINVAL;
  const ssize_t n =
      s->type == SOCK_STREAM ? send_stream(s, m, std::move(passed)) : send_datagram(s, m, std::move(passed));
  if (n > 0) idle_steps_ = 0;
  return n;
}

ANYIO_NET_FN ssize_t sim_network::send_stream(const sim_handle& s, const message& m,
                                              std::vector<sim_handle>&& passed) {
  if (!s->is_ip() && m.address != nullptr)
    return s->stage == sim_socket::state::connected ? -EISCONN : -EOPNOTSUPP;
  if (s->is_ip() && s->broken != 0) return -std::exchange(s->broken, 0);
  switch (s->stage) {
    case sim_socket::state::connecting: return -EAGAIN;
    case sim_socket::state::fresh:
    case sim_socket::state::listening: return s->is_ip() ? -EPIPE : -ENOTCONN;
    case sim_socket::state::refused: return -EPIPE;
    case sim_socket::state::connected: break;
  }
  if (s->sending_over || s->reset) return -EPIPE;
  const std::size_t total = m.size();
  const sim_handle peer = s->peer.lock();
  if (peer == nullptr || peer->gone) {
    if (!s->is_ip()) return -EPIPE;
    // The segment is sent, and is answered with a reset, or not answered.
    if (total == 0) return 0;
    if (is_dead(s->local.address, s->remote.address) || is_dead(s->remote.address, s->local.address)) {
      dispatch(anyio::detail::add(now_, std::chrono::milliseconds(924600)),
               arrival{arrival::kind::reset, s, {}, {}, {}, ETIMEDOUT});
      return static_cast<ssize_t>(total);
    }
    const time_point there = arrival_time(s->local.address, s->remote.address, true);
    const time_point back = there + (arrival_time(s->remote.address, s->local.address, true) - now_);
    dispatch(back, arrival{arrival::kind::reset, s, {}, {}, {}, ECONNRESET});
    return static_cast<ssize_t>(total);
  }
  if (!s->is_ip() && peer->receiving_over) return -EPIPE;
  if (total == 0) return 0;
  const std::size_t used = peer->inbox_bytes + peer->on_the_way;
  const std::size_t window = window_of(*peer);
  if (used >= window) return -EAGAIN;
  arrival a{arrival::kind::bytes, peer, {}, {}, {}, 0};
  const std::size_t n = gather(m, window - used, a.chunk.data);
  for (const sim_handle& p : passed) ++p->descriptors;
  a.chunk.passed = std::move(passed);
  peer->on_the_way += n;
  transmit(*s, peer, std::move(a));
  return static_cast<ssize_t>(n);
}

ANYIO_NET_FN ssize_t sim_network::receive(const sim_handle& s, message& m, bool takes_control) {
  m.flags = 0;
  const ssize_t n =
      s->type == SOCK_STREAM ? receive_stream(*s, m, takes_control) : receive_datagram(*s, m, takes_control);
  if (n > 0 && !m.peek) idle_steps_ = 0;
  return n;
}

ANYIO_NET_FN ssize_t sim_network::receive_stream(sim_socket& s, message& m, bool takes_control) {
  if (m.address != nullptr) write_sim_address(s, s.remote, s.remote_path, m.address, &m.address_size);
  const auto nothing = [&](ssize_t outcome) {
    m.control_size = 0;
    return outcome;
  };
  const bool unconnected = s.stage == sim_socket::state::fresh || s.stage == sim_socket::state::listening;
  if (unconnected && !s.is_ip()) return nothing(-EINVAL);
  if (s.stage == sim_socket::state::listening) return nothing(-ENOTCONN);
  if (s.inbox.empty()) {
    if (s.ended && s.is_ip()) return nothing(0);  // the end came before the reset
    if (s.broken != 0) return nothing(-std::exchange(s.broken, 0));
    if (s.ended || s.reset || s.receiving_over) return nothing(0);
    if (unconnected) return nothing(-ENOTCONN);
    if (s.stage == sim_socket::state::refused) return nothing(0);
    return nothing(-EAGAIN);
  }
  const std::size_t room = m.size();
  const bool was_full = s.inbox_bytes + s.on_the_way >= window_of(s);
  std::size_t got = 0;
  std::vector<sim_handle> passed;
  if (m.peek) {
    for (const sim_chunk& chunk : s.inbox) {
      const std::size_t n = std::min(room - got, chunk.data.size());
      scatter(m, got, std::string_view(chunk.data).substr(0, n));
      got += n;
      if (!chunk.passed.empty()) {
        passed = chunk.passed;
        for (const sim_handle& p : passed) ++p->descriptors;
        break;
      }
      if (got == room) break;
    }
  }
  const bool takes_descriptors = room == 0;  // the descriptors of the first byte come without it
  while (!m.peek && (got < room || takes_descriptors) && !s.inbox.empty()) {
    sim_chunk& chunk = s.inbox.front();
    const std::size_t n = std::min(room - got, chunk.data.size());
    scatter(m, got, std::string_view(chunk.data).substr(0, n));
    got += n;
    s.inbox_bytes -= n;
    const bool ends = !chunk.passed.empty();
    passed = std::move(chunk.passed);
    chunk.passed.clear();
    if (n == chunk.data.size()) {
      s.inbox.pop_front();
    } else {
      chunk.data.erase(0, n);
    }
    if (ends || takes_descriptors) break;
  }
  if (was_full && !m.peek)
    if (const sim_handle peer = s.peer.lock()) changed(*peer);
  hand_over(std::move(passed), m, takes_control);
  return static_cast<ssize_t>(got);
}

// --- datagrams

ANYIO_NET_FN std::vector<sim_handle> sim_network::receivers_of(const ip_endpoint& target,
                                                               const ip_endpoint& from) const {
  std::vector<sim_handle> found;
  const bool broadcast = target.address == ip_address::v4(0xffffffff);
  int best = -1;
  for (const sim_handle& s : bound_to(SOCK_DGRAM, target.port)) {
    const bool connected = s->stage == sim_socket::state::connected;
    if (connected && s->remote != from) continue;
    if (target.address.is_multicast()) {
      const bool hears = s->groups.contains(target.address) &&
                         (is_any(s->local.address) || s->local.address == target.address);
      if (hears) found.push_back(s);
      continue;
    }
    if (!covers(*s, target.address)) continue;
    if (broadcast) {
      found.push_back(s);
      continue;
    }
    const int rank = (connected ? 2 : 0) + (is_any(s->local.address) ? 0 : 1);
    if (rank < best) continue;
    const bool shares = s->option(SOL_SOCKET, SO_REUSEPORT) != 0 && rank == best &&
                        found.front()->option(SOL_SOCKET, SO_REUSEPORT) != 0;
    best = rank;
    if (!shares) found.clear();  // the socket that was bound last receives it
    found.push_back(s);
  }
  if (best < 0 || found.size() < 2) return found;
  // Sockets that share a port divide the senders, so that all datagrams of a sender go to one socket.
  return {found[from.port % found.size()]};
}

ANYIO_NET_FN ssize_t sim_network::send_datagram(const sim_handle& s, const message& m,
                                                std::vector<sim_handle>&& passed) {
  const std::size_t total = m.size();
  arrival a{arrival::kind::datagram, {}, s, {}, {}, 0};
  if (s->is_ip()) {
    if (!s->bound)
      if (const int status = bind_any(s); status < 0) return status;
    ip_endpoint to = s->remote;
    if (m.address != nullptr) {
      if (!read_address(*s, m.address, m.address_size, to)) return -EAFNOSUPPORT;
    } else if (s->stage != sim_socket::state::connected) {
      return -EDESTADDRREQ;
    }
    if (to.port == 0) return -EINVAL;
    constexpr std::size_t most = 65507;  // 65535 minus the headers of IPv4 and UDP
    if (total > (to.address.is_v6() ? most + 20 : most)) return -EMSGSIZE;
    if (to.address == ip_address::v4(0xffffffff) && s->option(SOL_SOCKET, SO_BROADCAST) == 0) return -EACCES;
    if (is_any(to.address)) to.address = own_address(*s, to.address);
    if (to.address.is_v6() && s->local.address.is_v4()) return -EAFNOSUPPORT;
    if (s->family == AF_INET6 && to.address.is_v4() && s->option(IPPROTO_IPV6, IPV6_V6ONLY) != 0)
      return -ENETUNREACH;
    if (s->broken != 0) return -std::exchange(s->broken, 0);
    if (s->sending_over) return -EPIPE;
    a.target = to;
    a.chunk.from = s->local;
    if (is_any(a.chunk.from.address)) a.chunk.from.address = loopback_address(to.address.is_v6());
    gather(m, total, a.chunk.data);
    const bool multicast = to.address.is_multicast();
    const bool v4 = to.address.is_v4();
    const auto silent =
        s->options.find({v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MULTICAST_LOOP : IPV6_MULTICAST_LOOP});
    if (multicast && silent != s->options.end() && silent->second == 0) return static_cast<ssize_t>(total);
    if (!choices.chance(link(a.chunk.from.address, to.address).drop))
      dispatch(arrival_time(a.chunk.from.address, to.address, false), std::move(a));
    return static_cast<ssize_t>(total);
  }
  const bool named = m.address != nullptr;
  if (!named && s->stage != sim_socket::state::connected) return -ENOTCONN;
  constexpr std::size_t most = 212960;  // Linux's net.core.wmem_default minus the kernel's overhead
  if (total > most) return -EMSGSIZE;
  if (s->broken != 0) return -std::exchange(s->broken, 0);
  if (s->sending_over) return -EPIPE;
  sim_handle to = s->peer.lock();
  if (named) {
    const std::string path = unix_path(m.address, m.address_size);
    const std::string place = place_of(path, SOCK_DGRAM);
    if (!files_.contains(place)) return !path.empty() && path.front() == '\0' ? -ECONNREFUSED : -ENOENT;
    to = at_path(place);
  }
  if (to == nullptr || to->gone) {
    if (!named) leave_peer(*s);  // the sender gets the error once
    return -ECONNREFUSED;
  }
  if (to->type != SOCK_DGRAM) return -EPROTOTYPE;
  if (to->stage == sim_socket::state::connected && to->peer.lock() != s) return -EPERM;
  if (to->receiving_over) return -EPIPE;
  if (is_full(*to, *s)) return profile_ == sim::profile::linux_ ? -EAGAIN : -ENOBUFS;
  gather(m, total, a.chunk.data);
  a.chunk.from_path = s->local_path;
  for (const sim_handle& p : passed) ++p->descriptors;
  a.chunk.passed = std::move(passed);
  a.to = to;
  ++to->on_the_way;
  dispatch(now_, std::move(a));
  return static_cast<ssize_t>(total);
}

ANYIO_NET_FN ssize_t sim_network::receive_datagram(sim_socket& s, message& m, bool takes_control) {
  const auto nothing = [&](ssize_t outcome) {
    m.control_size = 0;
    return outcome;
  };
  if (s.broken != 0) return nothing(-std::exchange(s.broken, 0));
  if (s.inbox.empty()) return nothing(-EAGAIN);
  sim_chunk& chunk = s.inbox.front();
  const std::size_t n = std::min(m.size(), chunk.data.size());
  scatter(m, 0, std::string_view(chunk.data).substr(0, n));
  if (n < chunk.data.size()) m.flags |= MSG_TRUNC;
  if (m.address != nullptr) {
    write_sim_address(s, chunk.from, chunk.from_path, m.address, &m.address_size);
    if (!s.is_ip() && chunk.from_path.empty()) m.address_size = 0;
  }
  if (m.peek) {
    for (const sim_handle& p : chunk.passed) ++p->descriptors;
    hand_over(std::vector<sim_handle>(chunk.passed), m, takes_control);
    return static_cast<ssize_t>(n);
  }
  std::vector<sim_handle> passed = std::move(chunk.passed);
  s.inbox_bytes -= chunk.data.size();
  s.inbox.pop_front();
  hand_over(std::move(passed), m, takes_control);
  if (!s.is_ip()) {  // sockets that are connected to it may send again
    for (auto& [fd, d] : descriptors_)
      if (d.socket->peer.lock().get() == &s) changed(*d.socket);
  }
  return static_cast<ssize_t>(n);
}

}}}  // namespace anyio::detail

#endif

// == simulation/sim_network.ipp ===================================================================

// The state of the network: descriptors, readiness, time, data in transit, names.

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <netinet/in.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Not zero, so that times before the beginning can be represented.
inline constexpr time_point sim_beginning = time_point(std::chrono::hours(1));

ANYIO_NET_FN sim_network::sim_network(const sim::options& options)
    : choices(options.seed, options.choices),
      begin_(sim_beginning),
      now_(sim_beginning),
      time_limit_(options.time_limit),
      calendar_(options.calendar),
      step_limit_(options.step_limit),
      spin_limit_(std::max<std::uint64_t>(100'000, options.step_limit / 100)),
      log_(options.log),
      profile_(options.profile),
      everywhere_(options.faults) {}

/// Clears the inboxes, since sockets in one another's inboxes would never be destroyed.
ANYIO_NET_FN sim_network::~sim_network() {
  for (const auto& place : all_)
    if (const sim_handle s = place.lock()) s->inbox.clear();
}

// --- time

ANYIO_NET_FN void sim_network::trace(const char* call, int fd, std::int64_t outcome) {
  const auto add = [&](std::uint64_t value) {
    for (int i = 0; i < 8; ++i) hash_ = (hash_ ^ ((value >> (8 * i)) & 0xff)) * 0x100000001b3;
  };
  for (const char* p = call; *p != '\0'; ++p)
    hash_ = (hash_ ^ static_cast<unsigned char>(*p)) * 0x100000001b3;
  add(static_cast<std::uint64_t>(static_cast<std::uint32_t>(fd)));
  add(static_cast<std::uint64_t>(outcome));
  add(static_cast<std::uint64_t>(now_.time_since_epoch().count()));
  if (++steps_ >= step_limit_) end(sim_verdict::steps_over);
  if (++idle_steps_ >= spin_limit_) end(sim_verdict::spins);
  if (log_ == nullptr) return;
  std::string line = std::to_string(elapsed().count()) + " ns: " + call;
  if (fd >= 0) line += " fd " + std::to_string(fd);
  line += " = " + std::to_string(outcome);
  if (outcome < 0) {
    const std::string_view name = errno_name(static_cast<int>(-outcome));
    if (!name.empty()) line.append(" (").append(name).append(")");
  }
  log_(line);
}

ANYIO_NET_FN bool sim_network::advance(time_point deadline) {
  const time_point limit = anyio::detail::add(begin_, time_limit_);
  const bool something = !coming_.empty() && coming_.begin()->first <= deadline;
  const time_point next = something ? coming_.begin()->first : deadline;
  if (!something && deadline == time_point::max()) return false;
  if (next > limit) {
    now_ = std::max(now_, limit);
    end(sim_verdict::time_over);
    return false;
  }
  if (next > now_) idle_steps_ = 0;
  now_ = std::max(now_, next);
  while (!coming_.empty() && coming_.begin()->first <= now_) {
    arrival a = std::move(coming_.begin()->second);
    coming_.erase(coming_.begin());
    arrive(a);
  }
  return something;
}

ANYIO_NET_FN std::int64_t sim_network::calendar() {
  if (calendar_ == 0) calendar_ = system_calendar();
  return calendar_ + std::chrono::duration_cast<std::chrono::seconds>(elapsed()).count();
}

// --- descriptors

ANYIO_NET_FN sim_handle sim_network::find(int fd) const {
  const auto found = descriptors_.find(fd);
  return found == descriptors_.end() ? nullptr : found->second.socket;
}

ANYIO_NET_FN int sim_network::refusal(int fd) const noexcept {
  return fd >= 0 && fd < first_descriptor ? -EOPNOTSUPP : -EBADF;
}

ANYIO_NET_FN sim_handle sim_network::make(int family, int type) {
  auto socket = std::make_shared<sim_socket>();
  socket->family = family;
  socket->type = type;
  socket->serial = next_serial_++;
  if (all_.size() == all_.capacity()) std::erase_if(all_, [](const auto& place) { return place.expired(); });
  all_.push_back(socket);
  return socket;
}

ANYIO_NET_FN int sim_network::add(const sim_handle& socket) {
  int fd = next_;
  if (free_.empty()) {
    ++next_;
  } else {
    fd = *free_.begin();
    free_.erase(free_.begin());
  }
  descriptors_[fd].socket = socket;
  ++socket->descriptors;
  socket->numbers.push_back(fd);
  return fd;
}

ANYIO_NET_FN int sim_network::open(int family, int type) {
  if (family != AF_UNIX && family != AF_INET && family != AF_INET6) return -EAFNOSUPPORT;
  if (type != SOCK_STREAM && type != SOCK_DGRAM) return -EPROTONOSUPPORT;
  return add(make(family, type));
}

ANYIO_NET_FN int sim_network::open_pair(int family, int type, int (&fds)[2]) {
  if (family != AF_UNIX) return -EOPNOTSUPP;
  if (type != SOCK_STREAM && type != SOCK_DGRAM) return -EPROTONOSUPPORT;
  const sim_handle a = make(family, type);
  const sim_handle b = make(family, type);
  connect_ends(a, b);
  fds[0] = add(a);
  fds[1] = add(b);
  return 0;
}

ANYIO_NET_FN int sim_network::close(int fd) {
  const auto found = descriptors_.find(fd);
  if (found == descriptors_.end()) return refusal(fd);
  const sim_handle socket = found->second.socket;
  descriptors_.erase(found);
  free_.insert(fd);
  std::erase(socket->numbers, fd);
  drop(socket);
  return 0;
}

/// Drops one reference; the last one closes the socket.
ANYIO_NET_FN void sim_network::drop(const sim_handle& socket) {
  if (--socket->descriptors == 0) end_of_socket(*socket);
}

ANYIO_NET_FN void sim_network::drop_chunk(sim_chunk& chunk) {
  for (const sim_handle& passed : chunk.passed) drop(passed);
  chunk.passed.clear();
}

ANYIO_NET_FN void sim_network::end_of_socket(sim_socket& s) {
  s.gone = true;
  for (const sim_handle& waiting : std::exchange(s.accepted, {})) {
    send_to_peer(*waiting, arrival::kind::reset, ECONNRESET);
    waiting->gone = true;
  }
  const bool unread = !s.inbox.empty();
  for (sim_chunk& chunk : s.inbox) drop_chunk(chunk);
  s.inbox.clear();
  s.inbox_bytes = 0;
  drop_held(s);
  // The peer may have accepted the connection before this end knows of it.
  if (s.stage == sim_socket::state::connecting) return send_to_peer(s, arrival::kind::reset, ECONNRESET);
  if (s.stage != sim_socket::state::connected || s.type != SOCK_STREAM || s.reset) return;
  const bool at_once = s.is_ip() && s.option(SOL_SOCKET, SO_LINGER) != 0;  // SO_LINGER with a time of 0
  if (unread || at_once) {
    send_to_peer(s, arrival::kind::reset, ECONNRESET);
  } else {
    send_to_peer(s, arrival::kind::end);  // a second end has no effect
  }
}

// --- readiness

ANYIO_NET_FN std::uint32_t sim_network::level(sim_socket& s) const {
  constexpr std::uint32_t hung_up = ready_read | ready_write | ready_end;  // poll(2)'s POLLHUP and POLLERR
  const bool in_over = s.receiving_over || s.ended;
  std::uint32_t bits = 0;
  if (s.type == SOCK_DGRAM) {
    if (s.broken != 0 || (s.receiving_over && s.sending_over)) return hung_up;
    if (!s.inbox.empty()) bits |= ready_read;
    if (s.receiving_over) bits |= ready_read | ready_end;
    const sim_handle peer = s.family == AF_UNIX ? s.peer.lock() : nullptr;
    if (peer == nullptr || !is_full(*peer, s)) bits |= ready_write;
    return bits;
  }
  switch (s.stage) {
    case sim_socket::state::listening:
      if (!s.is_ip() && in_over) return s.sending_over ? hung_up : ready_read | ready_end;
      return s.accepted.empty() ? 0U : ready_read;
    case sim_socket::state::connecting: return 0;
    case sim_socket::state::fresh:
    case sim_socket::state::refused: return hung_up;
    case sim_socket::state::connected: break;
  }
  if (s.broken != 0 || s.reset || (in_over && s.sending_over)) return hung_up;
  if (s.inbox_bytes != 0) bits |= ready_read;
  if (in_over) bits |= ready_read | ready_end;
  const sim_handle peer = s.peer.lock();
  const bool room = peer == nullptr || peer->gone || peer->inbox_bytes + peer->on_the_way < window_of(*peer);
  if (room || s.sending_over) bits |= ready_write;
  return bits;
}

/// Whether a UNIX datagram socket accepts no message from `from` now. On Linux, two sockets that are
/// connected to each other may send as much as their buffer memory allows.
ANYIO_NET_FN bool sim_network::is_full(const sim_socket& to, const sim_socket& from) const {
  if (to.gone || &to == &from) return false;
  if (profile_ == sim::profile::linux_ && to.peer.lock().get() == &from) return to.inbox_bytes >= 131072;
  return to.inbox.size() + to.on_the_way >= window_of(to);
}

ANYIO_NET_FN void sim_network::signal(int fd, descriptor& d) {
  if (!std::exchange(d.signalled, true)) signalled_.push_back(fd);
}

ANYIO_NET_FN void sim_network::changed(sim_socket& s) {
  for (const int fd : s.numbers) {
    descriptor& d = descriptors_.find(fd)->second;
    if (d.watched || d.armed) signal(fd, d);
  }
}

ANYIO_NET_FN int sim_network::watch(int fd, std::uint64_t token, bool once, std::uint32_t interest) {
  const auto found = descriptors_.find(fd);
  if (found == descriptors_.end()) return refusal(fd);
  descriptor& d = found->second;
  if (d.watched) return -EEXIST;
  (once ? d.armed : d.watched) = true;
  if (once) d.interest = interest;
  d.token = token;
  signal(fd, d);
  return 0;
}

ANYIO_NET_FN void sim_network::forget(int fd) {
  const auto found = descriptors_.find(fd);
  if (found != descriptors_.end()) found->second.watched = found->second.armed = false;
}

ANYIO_NET_FN int sim_network::collect(std::span<poll_event> events) {
  std::size_t count = 0;
  std::vector<int> later;
  while (!signalled_.empty()) {
    const std::size_t which = choices.pick(signalled_.size());
    const int fd = signalled_[which];
    signalled_.erase(signalled_.begin() + static_cast<std::ptrdiff_t>(which));
    const auto found = descriptors_.find(fd);
    if (found == descriptors_.end() || !found->second.signalled)
      continue;  // it was closed, and the number may be reused
    descriptor& d = found->second;
    if (count == events.size()) {
      later.push_back(fd);
      continue;
    }
    d.signalled = false;
    std::uint32_t bits = level(*d.socket);
    if (d.armed) bits &= d.interest | ready_end;
    if (bits == 0 || !(d.watched || d.armed)) continue;
    d.armed = false;
    events[count++] = {d.token, bits};
  }
  signalled_ = std::move(later);
  return static_cast<int>(count);
}

// --- data in transit

ANYIO_NET_FN const sim::faults& sim_network::link(const ip_address& from, const ip_address& to) const {
  const auto found = links_.find({from, to});
  return found == links_.end() ? everywhere_ : found->second;
}

ANYIO_NET_FN void sim_network::set_link(const ip_address& from, const ip_address& to,
                                        const sim::faults& faults) {
  links_[{from, to}] = faults;
}

ANYIO_NET_FN bool sim_network::is_dead(const ip_address& from, const ip_address& to) const {
  return link(from, to).drop >= 1;
}

/// The arrival time of data that is sent now. A lost segment of a stream is sent again, and arrives late.
ANYIO_NET_FN time_point sim_network::arrival_time(const ip_address& from, const ip_address& to,
                                                  bool reliable) {
  const sim::faults& way = link(from, to);
  duration time = std::max(way.latency_min, duration::zero());
  if (way.latency_max > time)
    time += duration(static_cast<std::int64_t>(
        choices.pick(static_cast<std::size_t>((way.latency_max - time).count()) + 1)));
  constexpr std::chrono::milliseconds again(200);
  for (int lost = 0; reliable && lost < 5 && choices.chance(way.drop); ++lost) time += again * (1 << lost);
  return anyio::detail::add(now_, time);
}

ANYIO_NET_FN void sim_network::dispatch(time_point when, arrival a) {
  const bool at_once = a.what == arrival::kind::bytes || a.what == arrival::kind::end ||
                       a.what == arrival::kind::reset || a.what == arrival::kind::datagram ||
                       a.what == arrival::kind::unreachable;
  const bool next = when <= now_ && (coming_.empty() || coming_.begin()->first > now_);
  if (at_once && next) return arrive(a);
  coming_.emplace(when, std::move(a));
}

ANYIO_NET_FN void sim_network::arrive(arrival& a) {
  const sim_handle to = a.to.lock();
  switch (a.what) {
    case arrival::kind::retry: return retry(a);
    case arrival::kind::call: return call(a);
    case arrival::kind::knock: return knock(a);
    case arrival::kind::datagram: {
      // The sending socket: if it is connected, it is notified of a datagram that no socket received.
      const sim_handle from = a.from.lock();
      if (to != nullptr) {  // UNIX: the receiver was found when the datagram was sent
        --to->on_the_way;
        if (to->gone) return drop_chunk(a.chunk);
        to->inbox_bytes += a.chunk.data.size();
        to->inbox.push_back(std::move(a.chunk));
        return changed(*to);
      }
      const std::vector<sim_handle> receivers = receivers_of(a.target, a.chunk.from);
      constexpr std::size_t room = 212992;  // Linux's net.core.rmem_default
      for (const sim_handle& s : receivers) {
        if (s->inbox_bytes + a.chunk.data.size() > room) continue;
        s->inbox_bytes += a.chunk.data.size();
        s->inbox.push_back(sim_chunk{a.chunk.data, {}, a.chunk.from, {}});
        changed(*s);
      }
      const bool nobody = receivers.empty() && !a.target.address.is_multicast() &&
                          !is_dead(a.target.address, a.chunk.from.address);
      const bool hears = from != nullptr && from->stage == sim_socket::state::connected && !from->gone &&
                         from->remote == a.target;
      if (nobody && hears) {
        arrival notice{arrival::kind::unreachable, from, {}, {}, {}, ECONNREFUSED};
        dispatch(arrival_time(a.target.address, from->local.address, false), std::move(notice));
      }
      return;
    }
    case arrival::kind::unreachable:
      if (to == nullptr || to->gone) return;
      to->broken = a.error_number;
      return changed(*to);
    case arrival::kind::established:
      if (to == nullptr || to->gone || to->stage != sim_socket::state::connecting) return;
      to->stage = sim_socket::state::connected;
      return changed(*to);
    case arrival::kind::refused:
      if (to == nullptr || to->gone || to->stage != sim_socket::state::connecting) return;
      to->stage = sim_socket::state::refused;
      to->broken = a.error_number;
      return changed(*to);
    case arrival::kind::bytes:
      if (to == nullptr) {  // an IP receiver was closed meanwhile; UNIX data arrives at once
        drop_chunk(a.chunk);
        const sim_handle from = a.from.lock();
        if (from != nullptr && !is_dead(from->remote.address, from->local.address))
          dispatch(arrival_time(from->remote.address, from->local.address, true),
                   arrival{arrival::kind::reset, from, {}, {}, {}, ECONNRESET});
        return;
      }
      to->on_the_way -= a.chunk.data.size();
      return arrive_bytes(*to, std::move(a.chunk));
    case arrival::kind::end:
      if (to == nullptr || to->gone || to->reset) return;
      to->ended = true;
      if (!to->is_ip()) {  // a UNIX socket knows at once that its closed peer will not receive
        const sim_handle closer = a.from.lock();
        if (closer == nullptr || closer->gone || closer->receiving_over) to->sending_over = true;
      }
      return changed(*to);
    case arrival::kind::reset:
      if (to == nullptr || to->gone) return;
      return break_stream(*to, a.error_number);
  }
}

ANYIO_NET_FN void sim_network::break_stream(sim_socket& s, int error_number) {
  if (s.reset) return;
  s.reset = true;
  s.broken = s.ended && s.is_ip() && error_number == ECONNRESET ? EPIPE : error_number;
  if (profile_ != sim::profile::linux_ && s.is_ip()) {  // unread data is lost on the BSDs and macOS
    s.inbox.clear();
    s.inbox_bytes = 0;
  }
  changed(s);
}

ANYIO_NET_FN void sim_network::arrive_bytes(sim_socket& s, sim_chunk&& chunk) {
  if (s.gone || s.reset) {
    // A segment for a connection that no longer exists is answered with a reset (RFC 9293, section 3.5.2).
    drop_chunk(chunk);
    send_to_peer(s, arrival::kind::reset, s.is_ip() ? ECONNRESET : EPIPE);
    return;
  }
  if (s.is_ip() && s.receiving_over && s.sending_over) {  // RFC 1122, section 4.2.2.13
    send_to_peer(s, arrival::kind::reset, ECONNRESET);
    return break_stream(s, ECONNRESET);
  }
  s.inbox_bytes += chunk.data.size();
  const bool joins = !s.inbox.empty() && s.inbox.back().passed.empty() && chunk.passed.empty();
  if (joins) {
    s.inbox.back().data += chunk.data;
  } else {
    s.inbox.push_back(std::move(chunk));
  }
  changed(s);
}

/// Sends an event to the peer of a stream, after the data that is in transit.
ANYIO_NET_FN void sim_network::send_to_peer(sim_socket& s, arrival::kind what, int error_number) {
  if (const sim_handle peer = s.peer.lock()) transmit(s, peer, arrival{what, peer, {}, {}, {}, error_number});
}

ANYIO_NET_FN void sim_network::transmit(sim_socket& s, const sim_handle& peer, arrival a) {
  a.from = s.weak_from_this();
  time_point when = now_;
  if (s.is_ip()) {
    const bool dead = is_dead(s.local.address, s.remote.address);
    if (a.what == arrival::kind::reset) {  // sent once; it also drops the held segments
      drop_held(*peer);
      if (dead) return;
    } else if (dead || !peer->held.empty()) {
      peer->held.push_back(std::move(a));
      if (peer->held.size() > 1) return;
      const time_point again = anyio::detail::add(now_, std::chrono::milliseconds(200));
      return dispatch(again, arrival{arrival::kind::retry, peer, s.weak_from_this(), {}, {}, 0});
    }
    when = std::max(arrival_time(s.local.address, s.remote.address, true), peer->last_arrival);
    peer->last_arrival = when;
  }
  dispatch(when, std::move(a));
}

ANYIO_NET_FN void sim_network::drop_held(sim_socket& s) {
  for (arrival& a : s.held) {
    s.on_the_way -= a.chunk.data.size();
    drop_chunk(a.chunk);
  }
  s.held.clear();
}

/// Sends the segments again that a dead link held back, at increasing intervals, until the sender gives up,
/// as with Linux's net.ipv4.tcp_retries2 of 15.
ANYIO_NET_FN void sim_network::retry(arrival& a) {
  constexpr int most_tries = 15;
  const sim_handle to = a.to.lock();
  const sim_handle from = a.from.lock();
  if (to == nullptr) {
    const bool answered = from != nullptr && !is_dead(from->local.address, from->remote.address) &&
                          !is_dead(from->remote.address, from->local.address);
    if (answered) break_stream(*from, ECONNRESET);
    return;
  }
  if (to->held.empty()) return;
  if (!is_dead(to->remote.address, to->local.address)) {
    for (arrival& held : std::exchange(to->held, {})) {
      const time_point when =
          std::max(arrival_time(to->remote.address, to->local.address, true), to->last_arrival);
      to->last_arrival = when;
      dispatch(when, std::move(held));
    }
    return;
  }
  if (a.tries++ == most_tries) {
    drop_held(*to);
    if (from != nullptr) break_stream(*from, ETIMEDOUT);
    return;
  }
  const duration pause =
      std::min<duration>(std::chrono::milliseconds(200) * (1 << a.tries), std::chrono::minutes(2));
  const time_point when = anyio::detail::add(now_, pause);
  dispatch(when, std::move(a));
}

// --- names, paths, signals

ANYIO_NET_FN int sim_network::identify(const char* path, file_identity& identity) {
  const auto found = files_.find(path);
  if (found == files_.end()) return -ENOENT;
  identity = {};
  identity.is_socket = true;
  identity.device = 1;
  identity.inode = found->second.inode;
  return 0;
}

ANYIO_NET_FN int sim_network::identify_socket(const sim_handle& s, file_identity& identity) {
  identity = {};
  identity.is_socket = true;
  identity.device = 2;
  identity.inode = s->serial;
  return 0;
}

ANYIO_NET_FN int sim_network::unlink(const char* path) { return files_.erase(path) != 0 ? 0 : -ENOENT; }

/// Converts a name to lower case and removes the final dot, since neither matters in a name.
inline std::string plain_name(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  std::string plain(name);
  for (char& c : plain)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return plain;
}

ANYIO_NET_FN resolved sim_network::resolve(const std::string& host, std::uint16_t port, int family) {
  resolved answer;
  const auto found = names_.find(plain_name(host));
  if (found == names_.end()) {
    answer.status = -ENOENT;
    answer.reason = "no such name in the simulation";
    return answer;
  }
  for (const ip_address& address : found->second) {
    if (family == AF_INET && !address.is_v4()) continue;
    if (family == AF_INET6 && !address.is_v6()) continue;
    answer.endpoints.push_back(ip_endpoint{address, port});
  }
  return answer;
}

ANYIO_NET_FN void sim_network::set_name(std::string_view name, std::span<const ip_address> addresses) {
  names_[plain_name(name)].assign(addresses.begin(), addresses.end());
}

ANYIO_NET_FN int sim_network::catch_signal(int number) {
  if (number < 1 || number > 64 || number == 9 || number == 19) return -EINVAL;  // SIGKILL, SIGSTOP
  ++caught_[number];
  return 0;
}

ANYIO_NET_FN void sim_network::release_signal(int number) {
  const auto found = caught_.find(number);
  if (found != caught_.end() && --found->second == 0) {
    caught_.erase(found);
    pending_signals_.erase(number);
  }
}

ANYIO_NET_FN bool sim_network::take_signal(int number) { return pending_signals_.erase(number) != 0; }

ANYIO_NET_FN void sim_network::raise(int number) {
  if (caught_.contains(number)) pending_signals_.insert(number);
}

// --- the report

ANYIO_NET_FN std::string sim_network::dump() const {
  std::string text;
  const auto name_of = [](const sim_socket& s, bool remote) {
    if (s.is_ip()) return (remote ? s.remote : s.local).to_string();
    std::string path = remote ? s.remote_path : s.local_path;
    if (!path.empty() && path.front() == '\0') path.front() = '@';
    return path.empty() ? std::string("-") : path;
  };
  for (const auto& [fd, d] : descriptors_) {
    const sim_socket& s = *d.socket;
    constexpr const char* stages[] = {"fresh", "listening", "connecting", "connected", "refused"};
    const char* kind = s.is_ip() ? (s.type == SOCK_STREAM ? "tcp" : "udp")
                                 : (s.type == SOCK_STREAM ? "unix" : "unix datagram");
    text += "fd " + std::to_string(fd);
    text.append(": ").append(kind).append(" ").append(stages[static_cast<std::size_t>(s.stage)]);
    text.append(" ").append(name_of(s, false)).append(" -> ").append(name_of(s, true));
    text += ", unread " + std::to_string(s.inbox_bytes) + ", on the way " + std::to_string(s.on_the_way);
    if (s.ended) text += ", ended";
    if (s.reset) text += ", reset";
    if (!s.accepted.empty()) text += ", to accept " + std::to_string(s.accepted.size());
    text += '\n';
  }
  return text;
}

}}}  // namespace anyio::detail

#endif

#endif  // ANYIO_NET_DEFINE

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
