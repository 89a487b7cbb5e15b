// The mode that receives packet information, and sending with it.
#pragma once

#include "base/slice.hpp"
#include "base/standard.hpp"
#include "datagram/udp_batch.ipp"
#include "datagram/udp_packet_info.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_FN bool send_packet_operation::transfer(result<void>& out) {
  detail::datagram_resource& socket = *resource_;
  alignas(cmsghdr) unsigned char control[detail::packet_info_room];
  detail::socket_address to(to_, socket.family());
  const const_buffer data = bytes_.data();
  const ::iovec part{const_cast<std::byte*>(data.data()), data.size()};
  detail::message m{detail::slice(&part, 1), to.get(), to.size};
  m.control = control;
  detail::traffic_classes classes;
  detail::write_packet_info(socket.core().system(), socket.descriptor(), info_, to_.address, classes, m);
  return settle(socket.send_message(m), out);
}

ANYIO_NET_COLD result<> ip_datagram_socket::set_packet_info(bool on) {
  constexpr const char* operation = "set_packet_info";
  if (!*this) return error(errc::closed_resource, 0, operation);
  detail::batch_source& source = detail::batch_source::of(*resource_);
  if (on) source.prepare_infos();  // before the option is on, so that lack of memory changes nothing
  const int status = detail::receive_packet_info(resource_->core().system(), resource_->descriptor(),
                                                 resource_->family(), on);
  if (status < 0) return error(errc::os_error, -status, operation);
  source.set_format(on ? &detail::packet_info_in_control : nullptr);
  return {};
}

}}  // namespace anyio
