// The system calls of stream sockets.
#pragma once

#include "base/owned.hpp"
#include "base/slice.hpp"
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

[[gnu::always_inline]] inline ssize_t socket_resource::read_some(void* data, std::size_t size,
                                                                 bool& more_may_follow) {
  more_may_follow = false;
  if (is_unix_) return read_bytes_only(data, size, more_may_follow);
  return core().system().receive(registration_.fd, data, size);
}

/// The kernel closes descriptors that come with the bytes, and ends the read early: MSG_CTRUNC reports this.
[[gnu::noinline]] ANYIO_NET_FN ssize_t socket_resource::read_bytes_only(void* data, std::size_t size,
                                                                        bool& more_may_follow) {
  const ::iovec part{data, size};
  message m{slice(&part, 1)};
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
  if (n > 0) [[likely]] {
    count_call(n);
    note_read(static_cast<std::size_t>(n), size, more_may_follow);
    result_access::complete_by(out, [&] { return make(static_cast<std::size_t>(n)); });
    return progress::done;
  }
  count_call(0);
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

ANYIO_NET_FN ssize_t socket_resource::send_now(const_buffer data) {
  if (exhausted[write_side] || data.empty() || data.size() > loop_core::most_of_call) [[unlikely]]
    return 0;
  loop_core& loop = core();
  const ssize_t n = loop.system().send(registration_.fd, data.data(), data.size());
  loop.count_work(n > 0 ? static_cast<std::size_t>(n) : 0);
  return n;
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

ANYIO_NET_COLD shared<const std::string> shared_path(std::string path) {
  if (path.empty()) return nullptr;
  return shared(owned<const std::string>(new std::string(std::move(path))));
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
                                                          shared<const std::string> local,
                                                          shared<const std::string> remote,
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
