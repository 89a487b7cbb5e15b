// The mode that receives packet information, and sending with it.
#pragma once

#include "base/slice.hpp"
#include "base/standard.hpp"
#include "datagram/udp_batch.ipp"
#include "datagram/udp_packet_info.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN int send_with_info(datagram_resource& socket, const_buffer data, const ip_endpoint& to,
                                const packet_info& info) {
  alignas(cmsghdr) unsigned char control[packet_info_room];
  socket_address address(to, socket.family());
  const ::iovec part{const_cast<std::byte*>(data.data()), data.size()};
  message m{slice(&part, 1), address.get(), address.size};
  m.control = control;
  traffic_classes classes;
  write_packet_info(socket.core().system(), socket.descriptor(), info, to.address, classes, m);
  return socket.send_message(m);
}

}  // namespace detail

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
