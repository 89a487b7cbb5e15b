// TCP first, then TLS.
#pragma once

#include "base/exchange.hpp"
#include "tls/tls_connect.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN connect_tls_operation::connect_tls_operation(std::string_view host, std::uint16_t port,
                                                          std::shared_ptr<tls_context> context,
                                                          const tls_options& options,
                                                          const tcp_connect_options& tcp_options)
    : operation(true),
      connecting_(host, port, tcp_options),
      context_(std::move(context)),
      server_name_(options.server_name.empty() ? host : options.server_name),
      options_(options) {}

ANYIO_NET_FN bool connect_tls_operation::attempt(result<tls_stream>& out) {
  result<tcp_stream> connection(errc::cancelled);
  if (connection_.take(connection)) return begin_handshake(std::move(connection), out);
  if (stream_.take(out)) return true;
  const bool last = detail::exchange(last_, false);
  if (detail::exchange(begun_, true)) return last && shaking_.pending() && shaking_.attempt_last(out);
  if (connecting_.attempt_for_parent(connection)) return begin_handshake(std::move(connection), out);
  connecting_.start(part<&connect_tls_operation::connected>(this));
  return false;
}

ANYIO_NET_FN bool connect_tls_operation::begin_handshake(result<tcp_stream>&& connection,
                                                         result<tls_stream>& out) {
  if (!connection.has_value()) return complete(out, result_access::failure<tls_stream>(connection));
  options_.server_name = server_name_;
  const ip_endpoint remote = connection->remote_endpoint();
  shaking_ =
      tls_wrap_operation(true, std::make_unique<tcp_stream>(*std::move(connection)), context_, options_);
  shaking_.remote = remote;
  if (shaking_.attempt_for_parent(out)) return true;
  shaking_.start(part<&connect_tls_operation::shaken>(this));
  return false;
}

ANYIO_NET_FN void connect_tls_operation::left() noexcept {
  begun_ = false;
  connecting_.withdraw();
  shaking_ = {};
}

}}}  // namespace anyio::detail
