// Peeking, readiness, and the two ways in which a socket of another origin begins or ends: `from_fd`,
// `abort`.
#pragma once

#include "base/slice.hpp"
#include "stream/socket.ipp"
#include "stream/socket_waits.hpp"
#include "system/new_socket.hpp"

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN bool peek_operation::attempt(result<std::size_t>& out) {
  socket_resource& r = *resource_;
  if (r.ended()) return complete(out, r.end_of_reading(0, name));
  if (r.exhausted[read_side]) return false;
  const std::size_t size = into_.size() < loop_core::most_of_call ? into_.size() : loop_core::most_of_call;
  const ::iovec part{into_.data(), size};
  message m{slice(&part, 1)};
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
