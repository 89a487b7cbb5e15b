// What both Asio servers share: Asio in its tuned form, without locks (one thread for each io_context) and
// without type-erased executors.
#pragma once

#include "server.hpp"

#include <array>
#include <memory>
#include <utility>

#include <asio/basic_datagram_socket.hpp>
#include <asio/basic_socket_acceptor.hpp>
#include <asio/basic_stream_socket.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/ip/udp.hpp>
#include <asio/local/datagram_protocol.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/write.hpp>

#ifdef BENCH_TLS
#include <asio/ssl.hpp>
#endif

namespace bench {

using executor = asio::io_context::executor_type;
using tcp_socket = asio::basic_stream_socket<asio::ip::tcp, executor>;
using tcp_acceptor = asio::basic_socket_acceptor<asio::ip::tcp, executor>;
using unix_socket = asio::basic_stream_socket<asio::local::stream_protocol, executor>;
using unix_acceptor = asio::basic_socket_acceptor<asio::local::stream_protocol, executor>;
using udp_socket = asio::basic_datagram_socket<asio::ip::udp, executor>;
using unix_datagram_socket = asio::basic_datagram_socket<asio::local::datagram_protocol, executor>;

/// Without locks; in the program of several threads each has its own.
class unlocked_context : public asio::io_context {
 public:
  unlocked_context() : asio::io_context(ASIO_CONCURRENCY_HINT_UNSAFE) {}
};

inline tcp_acceptor listen_tcp(asio::io_context& context, std::uint16_t port, bool reuse_port) {
  tcp_acceptor acceptor(context.get_executor(), asio::ip::tcp::v4());
  using reuse = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;
  if (reuse_port) acceptor.set_option(reuse(true));
  acceptor.bind({asio::ip::address_v4::loopback(), port});
  acceptor.listen();
  return acceptor;
}

inline void tune(tcp_socket& socket) {
  asio::error_code ignored;
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
}
inline void tune(unix_socket&) {}

#ifdef BENCH_TLS
using tls_socket = asio::ssl::stream<tcp_socket>;

inline asio::ssl::context tls_context(const arguments& a) {
  asio::ssl::context context(asio::ssl::context::tls_server);
  context.use_certificate_chain_file(a.certificate());
  context.use_private_key_file(a.key(), asio::ssl::context::pem);
  return context;
}
#endif

}  // namespace bench
