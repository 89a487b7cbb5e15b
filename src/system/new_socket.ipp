// Taking over sockets.
#pragma once

#include "base/slice.hpp"
#include "system/new_socket.hpp"

#include <cerrno>

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
  message m{slice(&part, 1)};
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
