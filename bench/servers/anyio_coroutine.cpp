// anyio_net with coroutines: one task a connection.
//
// With ANYIO_NET_OPENSSL or ANYIO_NET_MBEDTLS it serves TLS, too.

#include "../../anyio_net.hpp"
#include "server.hpp"

#include <array>

namespace {

const anyio::ip_endpoint any_port{anyio::ip_address::loopback_v4(), 0};

template <class Stream>
anyio::task<> echo(Stream client) {
  for (;;) {
    auto bytes = co_await as_result(client.receive_view());
    if (!bytes) co_return;
    if (!co_await as_result(client.send(*bytes))) co_return;
  }
}

template <class Stream>
anyio::task<> sink(Stream client) {
  for (std::uint64_t count = 0;;) {
    auto bytes = co_await as_result(client.receive_view());
    if (!bytes) co_return;
    count += bytes->size();
  }
}

template <class Stream, class Listener>
anyio::task<> serve(const bench::arguments& a, Listener& listener) {
  if (a.mode == "echo") co_await listener.serve(echo<Stream>);
  if (a.mode == "sink") co_await listener.serve(sink<Stream>);
}

anyio::task<> serve_tcp(const bench::arguments& a, anyio::tcp_listener listener) {
  co_await serve<anyio::tcp_stream>(a, listener);
}

anyio::task<> serve_unix(const bench::arguments& a) {
  auto listener = co_await anyio::create_unix_listener(a.path);
  bench::announce(a.path);
  co_await serve<anyio::unix_stream>(a, listener);
}

#if defined(ANYIO_NET_OPENSSL) || defined(ANYIO_NET_MBEDTLS)
anyio::task<> serve_tls(const bench::arguments& a) {
#if defined(ANYIO_NET_OPENSSL)
  constexpr auto make_context = anyio::openssl_context;
#else
  constexpr auto make_context = anyio::mbedtls_context;
#endif
  const std::string certificate = a.certificate(), key = a.key();
  auto context = co_await make_context({.certificate_file = certificate, .private_key_file = key});
  auto tcp = co_await anyio::tcp_listener::open(any_port);
  bench::announce(tcp.local_port());
  anyio::tls_listener listener(std::move(tcp), context);
  co_await serve<anyio::tls_stream>(a, listener);
}
#endif

anyio::task<> echo_udp(anyio::udp_socket socket) {
  std::array<std::byte, bench::datagram_buffer> buffer;
  for (;;) {
    auto got = co_await as_result(socket.receive(buffer));
    if (!got) co_return;
    (void)co_await as_result(socket.send_to(anyio::const_buffer(buffer.data(), got->size), got->sender));
  }
}

anyio::task<> echo_udp_batch(anyio::udp_socket socket) {
  anyio::udp_batch batch(bench::batch_count, bench::datagram_buffer);
  for (;;) {
    if (!co_await as_result(socket.receive_batch(batch))) co_return;
    (void)co_await as_result(socket.send_batch(batch));
  }
}

anyio::task<> sink_udp(anyio::udp_socket socket) {
  std::array<std::byte, bench::datagram_buffer> buffer;
  for (std::uint64_t count = 0;;) {
    auto got = co_await as_result(socket.receive(buffer));
    if (!got) co_return;
    if (got->size > 1)
      ++count;
    else
      co_await socket.send_to(std::to_string(count), got->sender);
  }
}

anyio::task<> sink_udp_batch(anyio::udp_socket socket) {
  anyio::udp_batch batch(bench::batch_count, bench::datagram_buffer);
  for (std::uint64_t count = 0;;) {
    if (!co_await as_result(socket.receive_batch(batch))) co_return;
    for (const auto& datagram : batch) {
      if (datagram.data.size() > 1)
        ++count;
      else
        co_await socket.send_to(std::to_string(count), datagram.sender);
    }
  }
}

anyio::task<> serve_udp(const bench::arguments& a) {
  auto socket = co_await anyio::udp_socket::open(any_port);
  bench::announce(socket.local_endpoint().port);
  if (a.mode == "echo") co_await echo_udp(std::move(socket));
  if (a.mode == "echo-batch") co_await echo_udp_batch(std::move(socket));
  if (a.mode == "sink") co_await sink_udp(std::move(socket));
  if (a.mode == "sink-batch") co_await sink_udp_batch(std::move(socket));
}

anyio::task<> serve_unix_datagrams(const bench::arguments& a) {
  auto socket = co_await anyio::create_unix_datagram_socket({.local_path = a.path});
  bench::announce(a.path);
  for (;;) {
    auto got = co_await as_result(socket.receive());
    if (!got) co_return;
    (void)co_await as_result(socket.send_to(got->data, got->sender));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments a = bench::parse(argc, argv);
  if (a.kind == "udp" && a.mode != "sink-gro") return anyio::run(serve_udp(a)), 0;
  if (a.is("echo", "unixgram")) return anyio::run(serve_unix_datagrams(a)), 0;
  if (a.mode != "echo" && a.mode != "sink") return bench::unsupported();
  if (a.kind == "unix") return anyio::run(serve_unix(a)), 0;
#if defined(ANYIO_NET_OPENSSL) || defined(ANYIO_NET_MBEDTLS)
  if (a.kind == "tls") return anyio::run(serve_tls(a)), 0;
#endif
  if (a.kind != "tcp") return bench::unsupported();
  return bench::run_threads(a, [&](std::uint16_t port, auto listening) {
    anyio::loop loop;
    auto listener =
        anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), port}, {.reuse_port = a.threads > 1});
    if (!listener) bench::fail("listen");
    listening(listener->local_port());
    anyio::run(serve_tcp(a, std::move(*listener)));
  });
}
