// UDP by host name: creating sockets, and sending to a name.
//
// A look-up that needs no query, for an address in text or `localhost`, completes at once. Apart from
// look-ups, nothing here waits. This part must not know how names resolve.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "connection/resolve.hpp"
#include "datagram/datagram.hpp"
#include "datagram/udp_socket.hpp"
#include "operation/operation.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The operation that `create_udp_socket` returns.
class [[nodiscard]] create_udp_socket_operation : public operation<create_udp_socket_operation, udp_socket> {
 public:
  static constexpr const char* name = "create_udp_socket";
  create_udp_socket_operation() = default;
  explicit create_udp_socket_operation(const udp_options& options)
      : operation(true), options_(options), local_host_(options.local_host) {}

 private:
  friend class operation<create_udp_socket_operation, udp_socket>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<udp_socket>& out);
  void left() noexcept { names_.withdraw(); }

  udp_options options_;  // except local_host
  std::string local_host_;
  host_look_up names_;
};

/// The operation that `create_connected_udp_socket` returns.
class [[nodiscard]] create_connected_udp_socket_operation
    : public operation<create_connected_udp_socket_operation, connected_udp_socket> {
 public:
  static constexpr const char* name = "create_connected_udp_socket";
  create_connected_udp_socket_operation() = default;
  create_connected_udp_socket_operation(std::string_view host, std::uint16_t port, const udp_options& options)
      : operation(true),
        options_(options),
        local_host_(options.local_host),
        remote_host_(host),
        remote_{{}, port} {}
  create_connected_udp_socket_operation(const ip_endpoint& remote, const udp_options& options)
      : operation(true),
        options_(options),
        local_host_(options.local_host),
        remote_(remote),
        has_remote_(true) {}

 private:
  friend class operation<create_connected_udp_socket_operation, connected_udp_socket>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<connected_udp_socket>& out);
  result<connected_udp_socket> connect(const std::vector<ip_endpoint>& remotes) const;
  void left() noexcept;

  udp_options options_;  // except local_host
  std::string local_host_;
  std::string remote_host_;
  ip_endpoint remote_;
  std::vector<ip_endpoint> locals_;
  host_look_up names_;
  bool has_remote_ = false;
  bool local_is_known_ = false;
};

}  // namespace detail

/// The operation that `udp_socket::send_to(data, host, port)` returns. The look-up counts as sending: a
/// second send raises `busy_resource`.
class [[nodiscard]] send_to_host_operation : public detail::datagram_send<send_to_host_operation> {
 public:
  static constexpr const char* name = "send_to";
  send_to_host_operation() = default;
  send_to_host_operation(detail::ref<detail::datagram_resource> r, detail::lent_bytes&& bytes,
                         std::string_view host, std::uint16_t port)
      : datagram_send(std::move(r), std::move(bytes)), host_(host), to_{{}, port} {}

 private:
  friend class detail::operation<send_to_host_operation, void>;
  friend class detail::datagram_send<send_to_host_operation>;

  bool transfer(result<void>& out);
  void left() noexcept {
    datagram_send::left();
    names_.withdraw();
    is_known_ = false;
  }

  std::string host_;
  ip_endpoint to_;
  detail::host_look_up names_;
  bool is_known_ = false;
};

inline send_to_host_operation udp_socket::send_to(const_buffer data, std::string_view host,
                                                  std::uint16_t port) {
  return {resource_, detail::lent_bytes(data), host, port};
}
template <detail::string_rvalue S>
send_to_host_operation udp_socket::send_to(S&& data, std::string_view host, std::uint16_t port) {
  return {resource_, detail::lent_bytes(std::move(data)), host, port};
}

/// Opens a UDP socket and binds it. A family or a local host is required (`invalid_argument` without). If the
/// local host has several addresses, the first one that this machine has is used.
[[nodiscard]] inline detail::create_udp_socket_operation create_udp_socket(const udp_options& options) {
  return detail::create_udp_socket_operation(options);
}

/// Opens a UDP socket and connects it to a host, by name or by address in text: to the first of its addresses
/// that has a route.
[[nodiscard]] inline detail::create_connected_udp_socket_operation create_connected_udp_socket(
    std::string_view remote_host, std::uint16_t remote_port, const udp_options& options = {}) {
  return {remote_host, remote_port, options};
}
/// Opens a UDP socket and connects it to an address.
[[nodiscard]] inline detail::create_connected_udp_socket_operation create_connected_udp_socket(
    const ip_endpoint& remote, const udp_options& options = {}) {
  return {remote, options};
}

}}  // namespace anyio
