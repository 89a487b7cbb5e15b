// UDP with packet information: from which address, by which interface and with which marks a datagram goes,
// and came.
//
// Receiving it is a mode of the socket, in which every datagram is received through the socket's batch
// source. Sending it needs no mode. This part must not know how the system passes it.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "datagram/datagram.hpp"
#include "datagram/udp_batch.hpp"
#include "datagram/udp_socket.hpp"
#include "system/packet_info.hpp"

#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// Sends one datagram with packet information. Returns 0 or a negative errno, like `datagram_resource::send`.
[[nodiscard]] int send_with_info(datagram_resource& socket, const_buffer data, const ip_endpoint& to,
                                 const packet_info& info);

}  // namespace detail

// What follows are templates, so that programs without packet information need not compile them.

/// The operation that `udp_socket::send_to(data, endpoint, info)` returns.
class [[nodiscard]] send_packet_operation : public detail::datagram_send<send_packet_operation> {
 public:
  static constexpr const char* name = "send_to";
  send_packet_operation() = default;
  send_packet_operation(detail::ref<detail::datagram_resource> r, detail::lent_bytes&& bytes,
                        const ip_endpoint& to, const packet_info& info)
      : datagram_send(std::move(r), std::move(bytes)), to_(to), info_(info) {}

 private:
  friend class detail::operation<send_packet_operation, void>;
  friend detail::datagram_send<send_packet_operation>;

  template <class = void>
  [[nodiscard]] errc check() const noexcept {
    return this->made && !detail::is_sendable(info_, to_.address) ? errc::invalid_argument
                                                                  : datagram_send::check();
  }
  template <class Out>
  bool transfer(Out& out) {
    return settle(detail::send_with_info(*resource_, bytes_.data(), to_, info_), out);
  }

  ip_endpoint to_;
  packet_info info_;
};

template <class>
send_packet_operation udp_socket::send_to(const_buffer data, const ip_endpoint& to, const packet_info& info) {
  return {resource_, detail::lent_bytes(data), to, info};
}
template <detail::string_rvalue S>
send_packet_operation udp_socket::send_to(S&& data, const ip_endpoint& to, const packet_info& info) {
  return {resource_, detail::lent_bytes(std::move(data)), to, info};
}

inline bool udp_batch::push(const_buffer data, const ip_endpoint& to, const packet_info& info) {
  if (!detail::is_sendable(info, to == ip_endpoint() ? info.local : to.address) || !push(data, to))
    return false;
  entries()[size_ - 1].info = info;
  format_ = &detail::packet_info_in_control;
  return true;
}

}}  // namespace anyio
