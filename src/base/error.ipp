// Names and descriptions of errors.
#pragma once

#include "base/error.hpp"
#include "base/standard.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

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
    {static_cast<int>(errc::protocol), "protocol", "protocol error"},
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
    case errc::protocol: throw protocol_error(e);
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
