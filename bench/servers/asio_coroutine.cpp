// Asio with coroutines: one awaitable a connection; errors as values, as in the server of anyio_net.

#include "asio.hpp"

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

namespace {

using asio::error_code;
using task = asio::awaitable<void, bench::executor>;
constexpr asio::use_awaitable_t<bench::executor> use_task;

auto into(error_code& failed) { return asio::redirect_error(use_task, failed); }

template <class Stream>
task serve(Stream stream, bool echo) {
  const std::size_t size = echo ? bench::echo_buffer : bench::stream_buffer;
  const std::unique_ptr<char[]> buffer(new char[size]);
  error_code failed;
  for (std::uint64_t count = 0;;) {
    const std::size_t n = co_await stream.async_read_some(asio::buffer(buffer.get(), size), into(failed));
    if (failed) co_return;
    count += n;
    if (!echo) continue;
    co_await asio::async_write(stream, asio::buffer(buffer.get(), n), into(failed));
    if (failed) co_return;
  }
}

template <class Socket, class Acceptor>
task accept(Acceptor acceptor, bool echo) {
  for (;;) {
    Socket socket(acceptor.get_executor());
    error_code failed;
    co_await acceptor.async_accept(socket, into(failed));
    if (failed) continue;
    bench::tune(socket);
    asio::co_spawn(acceptor.get_executor(), serve(std::move(socket), echo), asio::detached);
  }
}

#ifdef BENCH_TLS
task serve_tls(bench::tls_socket stream, bool echo) {
  error_code failed;
  co_await stream.async_handshake(asio::ssl::stream_base::server, into(failed));
  if (!failed) co_await serve(std::move(stream), echo);
}

task accept_tls(bench::tcp_acceptor acceptor, asio::ssl::context& tls, bool echo) {
  for (;;) {
    bench::tcp_socket socket(acceptor.get_executor());
    error_code failed;
    co_await acceptor.async_accept(socket, into(failed));
    if (failed) continue;
    bench::tune(socket);
    asio::co_spawn(acceptor.get_executor(), serve_tls(bench::tls_socket(std::move(socket), tls), echo),
                   asio::detached);
  }
}
#endif

template <class Socket>
task serve_datagrams(Socket socket, bool echo) {
  std::array<char, bench::datagram_buffer> buffer;
  typename Socket::endpoint_type sender;
  error_code failed;
  for (std::uint64_t count = 0;;) {
    const std::size_t n = co_await socket.async_receive_from(asio::buffer(buffer), sender, into(failed));
    if (failed) continue;
    if (echo) {
      co_await socket.async_send_to(asio::buffer(buffer.data(), n), sender, into(failed));
    } else if (n > 1) {
      ++count;
    } else {
      const std::string answer = std::to_string(count);
      co_await socket.async_send_to(asio::buffer(answer), sender, into(failed));
    }
  }
}

int run(asio::io_context& context, task t) {
  asio::co_spawn(context.get_executor(), std::move(t), asio::detached);
  context.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments a = bench::parse(argc, argv);
  if (a.mode != "echo" && a.mode != "sink") return bench::unsupported();
  const bool echo = a.mode == "echo";
  bench::unlocked_context context;
  const auto executor = context.get_executor();
  if (a.kind == "udp") {
    bench::udp_socket socket(executor, {asio::ip::address_v4::loopback(), 0});
    bench::announce(socket.local_endpoint().port());
    return run(context, serve_datagrams(std::move(socket), echo));
  }
  if (a.is("echo", "unixgram")) {
    bench::unix_datagram_socket socket(executor, a.path);
    bench::announce(a.path);
    return run(context, serve_datagrams(std::move(socket), echo));
  }
  if (a.kind == "unix") {
    bench::unix_acceptor acceptor(executor, a.path);
    bench::announce(a.path);
    return run(context, accept<bench::unix_socket>(std::move(acceptor), echo));
  }
#ifdef BENCH_TLS
  if (a.kind == "tls") {
    auto tls = bench::tls_context(a);
    auto acceptor = bench::listen_tcp(context, 0, false);
    bench::announce(acceptor.local_endpoint().port());
    return run(context, accept_tls(std::move(acceptor), tls, echo));
  }
#endif
  if (a.kind != "tcp") return bench::unsupported();
  return bench::run_threads(a, [&](std::uint16_t port, auto listening) {
    bench::unlocked_context own;
    auto acceptor = bench::listen_tcp(own, port, a.threads > 1);
    listening(acceptor.local_endpoint().port());
    run(own, accept<bench::tcp_socket>(std::move(acceptor), echo));
  });
}
