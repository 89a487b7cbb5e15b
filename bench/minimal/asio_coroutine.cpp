// The smallest echo server on Asio with coroutines, for time to compile and size.

#include <array>
#include <cstdio>

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

namespace {

using asio::ip::tcp;

asio::awaitable<void> echo(tcp::socket client) {
  std::array<char, 16384> buffer;
  asio::error_code failed;
  for (;;) {
    const std::size_t n = co_await client.async_read_some(asio::buffer(buffer),
                                                          asio::redirect_error(asio::use_awaitable, failed));
    if (failed) co_return;
    co_await asio::async_write(client, asio::buffer(buffer.data(), n),
                               asio::redirect_error(asio::use_awaitable, failed));
    if (failed) co_return;
  }
}

asio::awaitable<void> serve(tcp::acceptor acceptor) {
  for (;;) {
    tcp::socket client = co_await acceptor.async_accept(asio::use_awaitable);
    asio::co_spawn(acceptor.get_executor(), echo(std::move(client)), asio::detached);
  }
}

}  // namespace

int main() {
  asio::io_context context(1);
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
  std::printf("%u\n", unsigned{acceptor.local_endpoint().port()});
  std::fflush(stdout);
  asio::co_spawn(context, serve(std::move(acceptor)), asio::detached);
  context.run();
}
