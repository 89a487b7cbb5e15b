// Passing descriptors over UNIX datagram sockets.
//
// A datagram carries its descriptors as control data (unix(7), SCM_RIGHTS) and arrives with all of them or
// not at all. Received descriptors get an owner before anything else happens, as on streams. This part must
// not know what is sent.
#pragma once

#include "base/address.hpp"
#include "base/buffer.hpp"
#include "base/config.hpp"
#include "datagram/datagram.hpp"
#include "datagram/unix_datagram.hpp"
#include "operation/resource_operation.hpp"
#include "stream/fd_passing.hpp"
#include "system/unique_fd.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// A datagram, the path of its sender, and the descriptors that came with it.
class unix_fd_packet {
 public:
  std::string data;            ///< all of its bytes
  std::string sender;          ///< the path for an answer; empty if the sender has none
  std::vector<unique_fd> fds;  ///< the descriptors in the order of sending; closed unless taken

  unix_fd_packet() = default;
  /// Constructs from the three parts.
  unix_fd_packet(std::string bytes, std::string from, std::vector<unique_fd> descriptors)
      : data(std::move(bytes)), sender(std::move(from)), fds(std::move(descriptors)) {}
};

/// The operation that `send_fds` of a UNIX datagram socket returns.
class [[nodiscard]] send_fd_packet_operation : public detail::unix_datagram_send<send_fd_packet_operation> {
 public:
  static constexpr const char* name = "send_fds";
  send_fd_packet_operation() = default;
  /// To the connected peer.
  send_fd_packet_operation(detail::ref<detail::datagram_resource> r, const_buffer message,
                           std::span<const int> fds)
      : unix_datagram_send(std::move(r), detail::lent_bytes(message)), fds_(fds) {}
  /// To a path.
  send_fd_packet_operation(detail::ref<detail::datagram_resource> r, const_buffer message,
                           std::span<const int> fds, std::string_view path)
      : unix_datagram_send(std::move(r), detail::lent_bytes(message)),
        fds_(fds),
        to_(detail::make_unix_address(path, name)) {}

 private:
  friend class detail::operation<send_fd_packet_operation, void>;
  friend detail::datagram_send<send_fd_packet_operation>;

  [[nodiscard]] errc check() const noexcept;
  bool transfer(result<void>& out);

  std::span<const int> fds_;
  result<detail::unix_address> to_{errc::invalid_argument};  // unused if connected
};

/// The operation that `receive_fds` of a UNIX datagram socket returns.
class [[nodiscard]] receive_fd_packet_operation
    : public detail::resource_operation<receive_fd_packet_operation, unix_fd_packet,
                                        detail::datagram_resource, detail::read_side> {
 public:
  static constexpr const char* name = "receive_fds";
  receive_fd_packet_operation() = default;
  receive_fd_packet_operation(detail::ref<detail::datagram_resource> r, std::size_t max_bytes,
                              std::size_t max_fds) noexcept
      : resource_operation(std::move(r)), max_bytes_(max_bytes), max_fds_(max_fds) {}

 private:
  friend class detail::operation<receive_fd_packet_operation, unix_fd_packet>;

  [[nodiscard]] errc check() const noexcept {
    return max_fds_ == 0 ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<unix_fd_packet>& out);

  std::size_t max_bytes_ = 0;
  std::size_t max_fds_ = 0;
};

inline send_fd_packet_operation unix_datagram_socket::send_fds(const_buffer message, std::span<const int> fds,
                                                               std::string_view path) {
  return {resource_, message, fds, path};
}
inline receive_fd_packet_operation unix_datagram_socket::receive_fds(std::size_t max_bytes,
                                                                     std::size_t max_fds) {
  return {resource_, max_bytes, max_fds};
}
inline send_fd_packet_operation connected_unix_datagram_socket::send_fds(const_buffer message,
                                                                         std::span<const int> fds) {
  return {resource_, message, fds};
}
inline receive_fd_packet_operation connected_unix_datagram_socket::receive_fds(std::size_t max_bytes,
                                                                               std::size_t max_fds) {
  return {resource_, max_bytes, max_fds};
}

}}  // namespace anyio
