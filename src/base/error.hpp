// What can go wrong, as a value.
//
// An error is small, trivially copyable and never allocates, so that every layer can hand it on;
// only who awaits an operation decides whether it is thrown. This part must not know the system:
// names and words of errno values come from a table of its own.
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
  end_of_stream,        ///< orderly end of the stream; again at every later receive
  closed_resource,      ///< this end was closed, also when it was broken before
  broken_resource,      ///< the other end or the kernel broke an open stream
  busy_resource,        ///< another operation of the same direction is waiting
  incomplete_read,      ///< the stream ended before all that was asked for had come
  delimiter_not_found,  ///< as many bytes as allowed are buffered, and no delimiter among them
  timed_out,
  cancelled,
  invalid_argument,
  name_resolution,  ///< a host name could not be resolved
  tls,
  fds_truncated,  ///< more descriptors came than were asked for; all of them are closed
  not_supported,
  deadlock,  ///< simulation only: everything waits, and nothing can come
  os_error,  ///< connect, bind, listen, chmod and the like
};

/// The enumerator's name, for instance "end_of_stream".
[[nodiscard]] std::string_view to_string(errc code) noexcept;

namespace detail {
/// "ECONNREFUSED" for its number, an empty view for one that is not known.
[[nodiscard]] std::string_view errno_name(int value) noexcept;
struct error_access;
}  // namespace detail

/// What failed, why, and the errno behind it. `operation` and the reason are static text.
class [[nodiscard]] error {
 public:
  constexpr error() noexcept = default;
  /// `operation` must be static text; an `os_error` of 0 means that there is none.
  constexpr error(errc code, int os_error = 0, const char* operation = "") noexcept
      : operation_(operation), os_error_(os_error), code_(code) {}

  /// What kind of failure it is, `errc::ok` for none.
  [[nodiscard]] constexpr errc code() const noexcept { return code_; }
  /// The errno behind it, 0 if none.
  [[nodiscard]] constexpr int os_error() const noexcept { return os_error_; }
  /// What failed: "connect", "bind", "tls: private_key_file".
  [[nodiscard]] constexpr std::string_view operation() const noexcept { return operation_; }
  /// One line that a person can act on: "connect: connection refused (ECONNREFUSED)".
  [[nodiscard]] std::string message() const;

  friend constexpr bool operator==(error a, errc b) noexcept { return a.code_ == b; }
  /// Compares `os_error()`.
  friend constexpr bool operator==(error a, std::errc b) noexcept {
    return a.os_error_ != 0 && a.os_error_ == static_cast<int>(b);
  }
  friend constexpr bool operator==(error a, error b) noexcept {
    return a.code_ == b.code_ && a.os_error_ == b.os_error_ && a.operation() == b.operation();
  }

 private:
  friend struct detail::error_access;

  const char* operation_ = "";
  const char* reason_ = nullptr;  // words of a resolver or a TLS engine, for message()
  int os_error_ = 0;
  errc code_ = errc::ok;
};

static_assert(std::is_trivially_copyable_v<error>);

/// The errno in the system's category where there is one, else the `errc` in a category of its own.
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

/// What a failed operation throws at its `co_await`; each `errc` has a subclass of its own.
class exception : public std::runtime_error {
 public:
  /// Its `what()` is the error's message.
  explicit exception(const anyio::error& e) : std::runtime_error(e.message()), error_(e) {}
  /// What was raised.
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
