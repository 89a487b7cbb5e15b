// Sending and receiving datagrams with descriptors.
#pragma once

#include "base/slice.hpp"
#include "datagram/fd_packet.hpp"
#include "stream/fd_passing.ipp"

#include <cerrno>
#include <string>
#include <vector>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_FN errc send_fd_packet_operation::check() const noexcept {
  if (fds_.empty() || fds_.size() > detail::max_fds_of_message) return errc::invalid_argument;
  return unix_datagram_send::check();
}

ANYIO_NET_FN bool send_fd_packet_operation::transfer(result<void>& out) {
  if (!resource_->connected() && !to_) return detail::complete(out, to_.error());
  if (!may_send()) return false;
  const const_buffer data = bytes_.data();
  const ::iovec part{const_cast<std::byte*>(data.data()), data.size()};
  detail::descriptor_control control;
  detail::message m{detail::slice(&part, 1)};
  m.control = control.bytes;
  m.control_size = control.write(fds_);
  if (!resource_->connected()) {
    m.address = reinterpret_cast<sockaddr*>(&to_->storage);
    m.address_size = to_->size;
  }
  const int status = resource_->send_message(m);
  if (status == -EOPNOTSUPP) return detail::complete(out, error(errc::not_supported, EOPNOTSUPP, name));
  return sent(status, out);
}

ANYIO_NET_FN bool receive_fd_packet_operation::attempt(result<unix_fd_packet>& out) {
  if (resource_->exhausted[detail::read_side]) return false;
  const mutable_buffer room = resource_->room_for(max_bytes_);
  const std::size_t size = max_bytes_ < room.size() ? max_bytes_ : room.size();
  alignas(cmsghdr) unsigned char control[detail::control_size_of_message];
  const ::iovec part{room.data(), size};
  detail::message m{detail::slice(&part, 1)};
  m.control = control;
  m.control_size = sizeof control;
  std::vector<unique_fd> fds;
  // Now, so that lack of memory loses none.
  fds.reserve(max_fds_ < detail::max_fds_of_message ? max_fds_ : detail::max_fds_of_message);
  detail::arrival one;
  const int status = resource_->receive_message(m, one);
  if (status == -EAGAIN) return false;
  if (status < 0) return detail::complete(out, resource_->failure(status, name));
  const bool all = detail::take_descriptors(resource_->core().system(), control, m.control_size, fds);
  if (!all || fds.size() > max_fds_ || (m.flags & MSG_CTRUNC) != 0)
    return detail::complete(out, error(errc::fds_truncated, 0, name));
  if (one.truncated && max_bytes_ != 0) return detail::complete(out, error(errc::os_error, EMSGSIZE, name));
  out = unix_fd_packet(std::string(reinterpret_cast<const char*>(room.data()), one.size), one.from.path(),
                       std::move(fds));
  return true;
}

}}  // namespace anyio
