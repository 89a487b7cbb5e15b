// Errors as values.
//
// An error is small, trivially copyable and never allocates, so that every layer can pass it on; only
// the code that awaits an operation decides whether the error is thrown. This part must not know the system:
// the names and descriptions of errno values come from its own table.
#pragma once

#include "base/config.hpp"

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
  protocol,  ///< the peer sent what the protocol forbids; raised by programs, never by the library
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
  static constexpr const char* reason_of(const error& e) noexcept { return e.reason_; }
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
class protocol_error      : public exception { using exception::exception; };
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
