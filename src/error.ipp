// Words for errors.
#pragma once

#include "error.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace anyio::inline ANYIO_NET_ABI {

namespace detail {

// Arrays, not pointers: nothing to relocate when a program starts, and less than half the size.
struct errno_entry {
  int value;
  char name[16];
  char words[36];
};

// clang-format off
inline constexpr errno_entry errno_table[] = {
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
};
// clang-format on

ANYIO_NET_FN const errno_entry* find_errno(int value) noexcept {
  for (const errno_entry& entry : errno_table)
    if (entry.value == value) return &entry;
  return nullptr;
}

ANYIO_NET_FN std::string_view errno_name(int value) noexcept {
  const errno_entry* entry = find_errno(value);
  return entry ? entry->name : std::string_view();
}

struct errc_entry {
  char name[20];
  char words[56];
};

inline constexpr errc_entry errc_table[] = {
    {"ok", "success"},
    {"end_of_stream", "end of stream"},
    {"closed_resource", "closed at this end"},
    {"broken_resource", "broken by the other end"},
    {"busy_resource", "another operation is already waiting on this resource"},
    {"incomplete_read", "the stream ended before all had come"},
    {"delimiter_not_found", "no delimiter within the limit"},
    {"timed_out", "timed out"},
    {"cancelled", "cancelled"},
    {"invalid_argument", "invalid argument"},
    {"name_resolution", "name resolution failed"},
    {"tls", "TLS failure"},
    {"fds_truncated", "more descriptors came than were asked for"},
    {"not_supported", "not supported"},
    {"deadlock", "everything waits and nothing can come"},
    {"os_error", "system error"},
};

class error_category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "anyio"; }
  std::string message(int value) const override {
    const auto index = static_cast<std::size_t>(value);
    return index < std::size(errc_table) ? errc_table[index].words : "unknown";
  }
};

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
  abort_with("error without exceptions", e);
}

}  // namespace detail

ANYIO_NET_FN std::string_view to_string(errc code) noexcept {
  const auto index = static_cast<std::size_t>(code);
  return index < std::size(detail::errc_table) ? detail::errc_table[index].name : "unknown";
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
    const detail::errno_entry* entry = detail::find_errno(os_error_);
    if (entry == nullptr) std::snprintf(number, sizeof number, "errno %d", os_error_);
    if (reason_ != nullptr) {
      add(reason_);
      add(", ");
    }
    add(entry != nullptr ? entry->words : "unknown error");
    add(" (");
    add(entry != nullptr ? entry->name : number);
    add(")");
  } else {
    add(reason_ != nullptr ? reason_ : detail::errc_table[static_cast<std::size_t>(code_)].words);
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

}  // namespace anyio::inline ANYIO_NET_ABI
