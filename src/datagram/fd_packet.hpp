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

#include <cerrno>
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

namespace detail {

/// Sends a datagram with descriptors; a null `to` means the connected peer. Returns 0 or a negative errno,
/// like `datagram_resource::send`.
[[nodiscard]] int send_descriptors(datagram_resource& socket, const_buffer data, std::span<const int> fds,
                                   const unix_address* to);
/// Receives a datagram with its descriptors. Returns 0, -EAGAIN, or another number if `failure` was set.
[[nodiscard]] int receive_descriptors(datagram_resource& socket, std::size_t max_bytes, std::size_t max_fds,
                                      unix_fd_packet& out, error& failure);

}  // namespace detail

// What follows are templates, so that programs without these operations need not compile them.

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

  template <class = void>
  [[nodiscard]] errc check() const noexcept {
    if (fds_.empty() || fds_.size() > detail::max_fds_of_message) return errc::invalid_argument;
    return unix_datagram_send::check();
  }
  template <class Out>
  bool transfer(Out& out) {
    const bool connected = resource_->connected();
    if (!connected && !to_) return detail::complete(out, to_.error());
    if (!may_send()) return false;
    const int status = detail::send_descriptors(*resource_, bytes_.data(), fds_, connected ? nullptr : &*to_);
    if (status == -EOPNOTSUPP) return detail::complete(out, error(errc::not_supported, EOPNOTSUPP, name));
    return sent(status, out);
  }

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

  template <class = void>
  [[nodiscard]] errc check() const noexcept {
    return max_fds_ == 0 ? errc::invalid_argument : resource_operation::check();
  }
  template <class Out>
  bool attempt(Out& out) {
    unix_fd_packet packet;
    error failure;
    const int status = detail::receive_descriptors(*resource_, max_bytes_, max_fds_, packet, failure);
    if (status == -EAGAIN) return false;
    if (status != 0) return detail::complete(out, failure);
    return detail::complete(out, std::move(packet));
  }

  std::size_t max_bytes_ = 0;
  std::size_t max_fds_ = 0;
};

template <class>
send_fd_packet_operation unix_datagram_socket::send_fds(const_buffer message, std::span<const int> fds,
                                                        std::string_view path) {
  return {resource_, message, fds, path};
}
template <class>
receive_fd_packet_operation unix_datagram_socket::receive_fds(std::size_t max_bytes, std::size_t max_fds) {
  return {resource_, max_bytes, max_fds};
}
template <class>
send_fd_packet_operation connected_unix_datagram_socket::send_fds(const_buffer message,
                                                                  std::span<const int> fds) {
  return {resource_, message, fds};
}
template <class>
receive_fd_packet_operation connected_unix_datagram_socket::receive_fds(std::size_t max_bytes,
                                                                        std::size_t max_fds) {
  return {resource_, max_bytes, max_fds};
}

}}  // namespace anyio
