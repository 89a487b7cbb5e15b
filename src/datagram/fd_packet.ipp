// Sending and receiving datagrams with descriptors.
#pragma once

#include "base/slice.hpp"
#include "datagram/fd_packet.hpp"
#include "stream/fd_passing.ipp"

#include <cerrno>
#include <string>
#include <vector>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN int send_descriptors(datagram_resource& socket, const_buffer data, std::span<const int> fds,
                                  const unix_address* to) {
  const ::iovec part{const_cast<std::byte*>(data.data()), data.size()};
  descriptor_control control;
  message m{slice(&part, 1)};
  control.attach(m, fds);
  if (to != nullptr) {
    m.address = const_cast<sockaddr*>(reinterpret_cast<const sockaddr*>(&to->storage));
    m.address_size = to->size;
  }
  return socket.send_message(m);
}

ANYIO_NET_FN int receive_descriptors(datagram_resource& socket, std::size_t max_bytes, std::size_t max_fds,
                                     unix_fd_packet& out, error& failure) {
  constexpr const char* operation = "receive_fds";
  if (socket.exhausted[read_side]) return -EAGAIN;
  const mutable_buffer room = socket.room_for(max_bytes);
  const std::size_t size = max_bytes < room.size() ? max_bytes : room.size();
  alignas(cmsghdr) unsigned char control[control_size_of_message];
  const ::iovec part{room.data(), size};
  message m{slice(&part, 1)};
  m.control = control;
  m.control_size = sizeof control;
  std::vector<unique_fd>& fds = out.fds;
  // Now, so that lack of memory loses none.
  fds.reserve(max_fds < max_fds_of_message ? max_fds : max_fds_of_message);
  arrival one;
  const int status = socket.receive_message(m, one);
  if (status == -EAGAIN) return status;
  const auto fail = [&failure](const error& e) {
    failure = e;
    return 1;
  };
  if (status < 0) return fail(socket.failure(status, operation));
  const bool all = take_descriptors(socket.core().system(), control, m.control_size, fds);
  if (!all || fds.size() > max_fds || (m.flags & MSG_CTRUNC) != 0)
    return fail(error(errc::fds_truncated, 0, operation));
  if (one.truncated && max_bytes != 0) return fail(error(errc::os_error, EMSGSIZE, operation));
  out.data.assign(reinterpret_cast<const char*>(room.data()), one.size);
  out.sender = one.from.path();
  return 0;
}

}}}  // namespace anyio::detail
