// The calls of datagram sockets.
#pragma once

#include "base/slice.hpp"
#include "base/standard.hpp"
#include "datagram/datagram.hpp"
#include "stream/socket.hpp"

#include <cerrno>

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

ANYIO_NET_FN int datagram_resource::receive(slice<const ::iovec> into, arrival& out) {
  if (source) return source->receive(*this, into, out);
  message m{into};
  return receive_message(m, out);
}

ANYIO_NET_FN int datagram_resource::receive_message(message& m, arrival& out) {
  if (exhausted[read_side]) return -EAGAIN;
  m.address = out.from.get();
  m.address_size = sizeof out.from.storage;
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

ANYIO_NET_FN mutable_buffer datagram_resource::room_for(std::size_t size) {
  // No UDP datagram is longer than the loop's buffer. A UNIX datagram can be as long as the sender's buffer
  // allows, which is less than 416 KiB with Linux's defaults. That room takes no memory until it is used.
  constexpr std::size_t size_of_room = std::size_t{448} * 1024;
  if (family_ != AF_UNIX || size <= loop_core::buffer_size) return core().buffer();
  if (!room_) room_.reset(new std::byte[size_of_room]);
  return mutable_buffer(room_.get(), size_of_room);
}

ANYIO_NET_FN int datagram_resource::receive_text(std::string& text, arrival& out) {
  if (exhausted[read_side] && !source) return -EAGAIN;
  const mutable_buffer room = room_for(static_cast<std::size_t>(-1));
  const ::iovec part{room.data(), room.size()};
  const int status = receive(slice(&part, 1), out);
  if (status < 0) return status;
  if (out.truncated) return -EMSGSIZE;
  text.assign(reinterpret_cast<const char*>(room.data()), out.size);
  return 0;
}

/// The status of a send, from the result of the call.
inline int status_of_send(datagram_resource& socket, ssize_t n) noexcept {
  // The BSDs and macOS report a full queue of a UNIX socket with ENOBUFS.
  const bool queue_is_full = socket.family() == AF_UNIX && n == -ENOBUFS;
  if (n == -EAGAIN || queue_is_full) {
    socket.exhausted[write_side] = true;
    return -EAGAIN;
  }
  return n < 0 ? static_cast<int>(n) : 0;
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
                                     message{slice(&part, 1), const_cast<sockaddr*>(to), size});
  }
  return status_of_send(*this, n);
}

ANYIO_NET_FN int datagram_resource::send_message(const message& m) {
  if (exhausted[write_side]) return -EAGAIN;
  core().count_work(m.size());
  return status_of_send(*this, core().system().send_message(registration_.fd, m));
}

ANYIO_NET_COLD int datagram_resource::reconnect(const sockaddr* to, socklen_t size, const sockaddr* former,
                                                socklen_t former_size) {
  backend& system = core().system();
  int status = system.connect(registration_.fd, to, size);
  if (status == -EINVAL && family_ != AF_UNIX) {
    // Linux keeps the local address that it chose for the former peer, which may have no way to this one.
    sockaddr nowhere{};
    nowhere.sa_family = AF_UNSPEC;
    static_cast<void>(system.connect(registration_.fd, &nowhere, sizeof nowhere));
    status = system.connect(registration_.fd, to, size);
  }
  if (status < 0) {  // some systems have disconnected the socket
    static_cast<void>(system.connect(registration_.fd, former, former_size));
    return status;
  }
  int stale = 0;  // an error that the former peer caused
  static_cast<void>(read_option(system, registration_.fd, SOL_SOCKET, SO_ERROR, stale));
  exhausted[write_side] = false;  // the full queue was the former peer's
  wake(write_side);
  return 0;
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
