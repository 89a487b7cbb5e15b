// The system calls of stream sockets.
#pragma once

#include "stream/socket.hpp"
#include "system/unique_fd.hpp"

#include <cerrno>
#include <limits>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#if defined(__APPLE__) || defined(__FreeBSD__)
#include <sys/ucred.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN socket_resource::socket_resource(loop_core& core, int fd, bool is_unix, int& status)
    : stream_resource(core), is_unix_(is_unix) {
  registration_.fd = fd;
  poller_tells = true;
  status = core.watch(registration_, *this);
  if (status < 0) registration_.fd = -1;
}

ANYIO_NET_FN ssize_t socket_resource::read_some(void* data, std::size_t size, bool& more_may_follow) {
  more_may_follow = false;
  if (!is_unix_) return core().system().receive(registration_.fd, data, size);
  // The kernel closes descriptors that come with the bytes, and ends the read early: MSG_CTRUNC reports this.
  const ::iovec part{data, size};
  message m;
  m.parts = std::span<const ::iovec>(&part, 1);
  const ssize_t n = core().system().receive_message(registration_.fd, m);
  more_may_follow = (m.flags & MSG_CTRUNC) != 0;
  return n;
}

/// Returns the errno of a call that failed. If it says only that the connection is gone, returns the reason
/// from SO_ERROR, if there is one.
ANYIO_NET_COLD int socket_resource::cause_of(int error_number) noexcept {
  if (error_number != ENOTCONN && error_number != EPIPE) return error_number;
  int why = 0;
  socklen_t size = sizeof why;
  const int asked = core().system().get_option(registration_.fd, SOL_SOCKET, SO_ERROR, &why, &size);
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

ANYIO_NET_FN progress socket_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  if (ended_) {
    out = end_of_reading(0, "receive");
    return progress::done;
  }
  if (exhausted[read_side]) return progress::waiting;
  bool more_may_follow;
  const std::size_t size = std::min(into.size(), loop_core::most_of_call);
  const ssize_t n = read_some(into.data(), size, more_may_follow);
  count_call(n);
  if (n > 0) {
    note_read(static_cast<std::size_t>(n), size, more_may_follow);
    out = static_cast<std::size_t>(n);
    return progress::done;
  }
  if (n == -EAGAIN) {
    exhausted[read_side] = true;
    return progress::waiting;
  }
  if (is_shortage(n)) return wait_for_memory();
  out = end_of_reading(static_cast<int>(-n), "receive");
  return progress::done;
}

ANYIO_NET_FN progress socket_resource::send(outgoing& data, result<void>& out) {
  if (data.done()) {
    out = result<void>();
    return progress::done;
  }
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
    if (n == -EAGAIN) {
      exhausted[write_side] = true;
      return progress::waiting;
    }
    if (n < 0) {
      if (is_shortage(n)) return wait_for_memory();
      if (is_unix_ && n == -EPIPE) {  // the peer has closed; a receive reports whether it closed in order
        note_cause(EPIPE);
        out = error(errc::broken_resource, broken_, "send");
        return progress::done;
      }
      out = end_of_writing(static_cast<int>(-n), "send");
      return progress::done;
    }
    data.advance(static_cast<std::size_t>(n));
    if (data.done()) {
      out = result<void>();
      return progress::done;
    }
  } while (!data.rests() && !core().share_spent());
  return progress::again;
}

ANYIO_NET_FN progress socket_resource::send_eof(result<void>& out) {
  if (!eof_sent_) {
    const int status = core().system().shutdown(registration_.fd, SHUT_WR);
    if (status < 0) {
      if (is_shortage(status)) return wait_for_memory();
      out = end_of_writing(-status, "send_eof");
      return progress::done;
    }
    eof_sent_ = true;
  }
  out = result<void>();
  return progress::done;
}

ANYIO_NET_FN progress socket_resource::finish() {
  constexpr std::uint32_t discard_limit = 16 * 1024;  // KiB
  if (!eof_sent_) {
    const int status = core().system().shutdown(registration_.fd, SHUT_WR);
    if (is_shortage(status)) return wait_for_memory();
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
    if (n == -EAGAIN) {
      exhausted[read_side] = true;
      return progress::waiting;
    }
    if (is_shortage(n)) return wait_for_memory();
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
    if (n == -EAGAIN) {
      exhausted[write_side] = true;
      return progress::waiting;
    }
    if (n < 0) {
      if (is_shortage(n)) return wait_for_memory();
      const int e = static_cast<int>(-n);
      out = concerns_file(e) ? error(e == EOPNOTSUPP ? errc::not_supported : errc::os_error, e, "send_file")
                             : end_of_writing(e, "send_file");
      return progress::done;
    }
    if (n == 0) return progress::done;  // the file ends here
    sent += static_cast<std::uint64_t>(n);
  } while (!core().share_spent());
  return progress::again;
}

ANYIO_NET_COLD int socket_resource::release(bool restore) noexcept {
  if (gone()) return -1;
  const int fd = registration_.fd;
  core().forget(registration_, false);
  close();
  if (restore && was_blocking) static_cast<void>(files_of(core().system()).make_blocking(fd));
  return fd;
}

ANYIO_NET_FN int read_local_endpoint(backend& system, int fd, ip_endpoint& out) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  const int status = system.local_address(fd, reinterpret_cast<sockaddr*>(&address), &size);
  if (status < 0) return status;
  out = ip_endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address), size).value_or(ip_endpoint());
  return 0;
}

ANYIO_NET_FN ip_endpoint local_endpoint_of(backend& system, int fd) {
  ip_endpoint out;
  static_cast<void>(read_local_endpoint(system, fd, out));
  return out;
}

ANYIO_NET_FN ip_endpoint remote_endpoint_of(backend& system, int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (system.remote_address(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) return {};
  return ip_endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address), size)
      .value_or(ip_endpoint());
}

ANYIO_NET_COLD std::string local_path_of(backend& system, int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (system.local_address(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) return {};
  return unix_path(reinterpret_cast<const sockaddr*>(&address), size);
}

ANYIO_NET_COLD std::string remote_path_of(backend& system, int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (system.remote_address(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) return {};
  return unix_path(reinterpret_cast<const sockaddr*>(&address), size);
}

ANYIO_NET_COLD std::shared_ptr<const std::string> shared_path(std::string path) {
  return path.empty() ? nullptr : std::make_shared<const std::string>(std::move(path));
}

ANYIO_NET_FN result<> set_int_option(backend& system, int fd, int level, int name, int value) {
  const int status = system.set_option(fd, level, name, &value, sizeof value);
  if (status < 0) return error(errc::os_error, -status, "set_option");
  return {};
}

/// Reports the past of a stream socket without a peer. Returns 1 if bytes of a connection that is gone are
/// left. Otherwise returns a negative errno: the reason for its end, or an errno that says that there never
/// was a connection. Takes nothing from the socket except that errno.
[[gnu::cold]] inline ssize_t look_for_past(backend& system, int fd) {
  if (system.poll_now(fd, ready_read) <= 0) return -ENOTCONN;  // it may be blocking, and still connecting
  char byte;
  const ::iovec part{&byte, 1};
  message m;
  m.parts = std::span<const ::iovec>(&part, 1);
  m.peek = true;
  const ssize_t n = system.receive_message(fd, m);
  return n == 0 ? -ENOTCONN : n;  // a failed attempt to connect also reads as an end
}

ANYIO_NET_COLD result<adopted_socket> adopt_socket(backend& system, int fd, const wanted_socket& wanted) {
  adopted_socket adopted;
  const auto refuse = [&](int error_number, const char* reason) {
    return error_access::with_reason(error(errc::invalid_argument, error_number, wanted.what), reason);
  };
  if (fd < 0) return refuse(EBADF, "the descriptor is negative");
  int type = 0;
  socklen_t size = sizeof type;
  const int asked = system.get_option(fd, SOL_SOCKET, SO_TYPE, &type, &size);
  if (asked == -EOPNOTSUPP) return error(errc::not_supported, EOPNOTSUPP, wanted.what);
  if (asked < 0)
    return refuse(-asked, asked == -EBADF ? "the descriptor is not open" : "the descriptor is not a socket");
  sockaddr_storage address{};
  size = sizeof address;
  if (const int status = system.local_address(fd, reinterpret_cast<sockaddr*>(&address), &size); status < 0)
    return refuse(-status, "the address of the socket cannot be read");
  const bool is_unix = address.ss_family == AF_UNIX;
  const bool is_ip = address.ss_family == AF_INET || address.ss_family == AF_INET6;
  if (wanted.is_unix ? !is_unix : !is_ip) return refuse(0, "the socket has another address family");
  if (type != wanted.type) return refuse(0, "the socket has another type");
  if (wanted.connected) {
    size = sizeof address;
    if (const int status = system.remote_address(fd, reinterpret_cast<sockaddr*>(&address), &size);
        status < 0) {
      const ssize_t past = wanted.type == SOCK_STREAM ? look_for_past(system, fd) : status;
      if (past < 0 && past != -ECONNRESET)
        return refuse(static_cast<int>(-past), "the socket is not connected");
      if (past < 0) adopted.broken = ECONNRESET;
    }
  }
  if (wanted.listening) {
    int listens = 0;
    size = sizeof listens;
    if (system.get_option(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || listens == 0)
      return refuse(0, "the socket is not listening");
  }
  const int status = files_of(system).adopt(fd);
  if (status < 0) return error(errc::os_error, -status, wanted.what);
  adopted.was_blocking = status > 0;
  return adopted;
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
                                                        const ip_endpoint* remote, const char* operation) {
  int status = 0;
  ref<tcp_resource> r(new tcp_resource(core, fd, status));
  if (status < 0) return error(errc::os_error, -status, operation);
  r->local = local ? *local : local_endpoint_of(core.system(), fd);
  r->remote = remote ? *remote : remote_endpoint_of(core.system(), fd);
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
  if (!resource_->open()) {
    out = closed();
    return true;
  }
  result<void> outcome;
  const detail::progress p = resource_->send_file(file_, offset_, count_, sent_, outcome);
  again = p == detail::progress::again;
  if (p != detail::progress::done) return false;
  out = outcome.has_value() ? result<std::uint64_t>(sent_) : result<std::uint64_t>(outcome.error());
  return true;
}

ANYIO_NET_FN int socket_stream::release(bool restore) noexcept {
  return resource_ ? resource()->release(restore) : -1;
}

ANYIO_NET_FN send_file_operation socket_stream::send_file(int fd, std::uint64_t offset, std::uint64_t count) {
  return {detail::ref<detail::socket_resource>(resource()), fd, offset, count};
}

ANYIO_NET_FN result<> socket_stream::set_option(int level, int name, int value) {
  if (!*this) return error(errc::closed_resource, 0, "set_option");
  return detail::set_int_option(resource_->core().system(), native_handle(), level, name, value);
}

ANYIO_NET_FN result<int> socket_stream::get_option(int level, int name) const {
  if (!*this) return error(errc::closed_resource, 0, "get_option");
  int value = 0;
  socklen_t size = sizeof value;
  const int status = resource_->core().system().get_option(native_handle(), level, name, &value, &size);
  if (status < 0) return error(errc::os_error, -status, "get_option");
  return value;
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
  return detail::socket_access::with_past(
      detail::socket_access::make_tcp(core, fd, nullptr, nullptr, "tcp_stream"), *past);
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
  backend& system = core.system();
  const auto past = detail::adopt_socket(system, fd, {"unix_stream", true, SOCK_STREAM, true});
  if (!past) return past.error();
  return detail::socket_access::with_past(
      detail::socket_access::make_unix(core, fd, detail::shared_path(detail::local_path_of(system, fd)),
                                       detail::shared_path(detail::remote_path_of(system, fd)),
                                       "unix_stream"),
      *past);
}

ANYIO_NET_COLD result<peer_credentials> unix_stream::credentials() const {
  if (!*this) return error(errc::closed_resource, 0, "credentials");
#if defined(SO_PEERCRED) && defined(__linux__)
  struct {  // struct ucred, which needs _GNU_SOURCE
    pid_t pid;
    uid_t uid;
    gid_t gid;
  } who{};
  socklen_t size = sizeof who;
  const int status =
      resource_->core().system().get_option(native_handle(), SOL_SOCKET, SO_PEERCRED, &who, &size);
  if (status < 0) return error(errc::os_error, -status, "credentials");
  return peer_credentials{who.pid, who.uid, who.gid};
#elif defined(LOCAL_PEERCRED) && defined(SOL_LOCAL)
  xucred who{};
  socklen_t size = sizeof who;
  const int status =
      resource_->core().system().get_option(native_handle(), SOL_LOCAL, LOCAL_PEERCRED, &who, &size);
  if (status < 0) return error(errc::os_error, -status, "credentials");
  pid_t process = -1;
#if defined(LOCAL_PEERPID)
  size = sizeof process;
  static_cast<void>(
      resource_->core().system().get_option(native_handle(), SOL_LOCAL, LOCAL_PEERPID, &process, &size));
#endif
  return peer_credentials{process, who.cr_uid, who.cr_groups[0]};
#else
  return error(errc::not_supported, 0, "credentials");
#endif
}

ANYIO_NET_FN result<std::pair<unix_stream, unix_stream>> create_unix_stream_pair() {
  detail::loop_core& core = detail::loop_core::current();
  int fds[2];
  if (const int status = core.system().open_pair(AF_UNIX, SOCK_STREAM, fds); status < 0)
    return error(errc::os_error, -status, "create_unix_stream_pair");
  unique_fd one(fds[0]);
  unique_fd other(fds[1]);
  result<unix_stream> first =
      detail::socket_access::make_unix(core, one.get(), nullptr, nullptr, "create_unix_stream_pair");
  if (!first) return first.error();
  static_cast<void>(one.release());
  result<unix_stream> second =
      detail::socket_access::make_unix(core, other.get(), nullptr, nullptr, "create_unix_stream_pair");
  if (!second) return second.error();
  static_cast<void>(other.release());
  return std::pair<unix_stream, unix_stream>(*std::move(first), *std::move(second));
}

}}  // namespace anyio
