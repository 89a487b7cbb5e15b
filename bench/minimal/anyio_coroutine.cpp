// The smallest echo server with coroutines, for time to compile and size.
//
//   It listens on a free port of 127.0.0.1, and prints it

#include "../../anyio_net.hpp"

#include <cstdio>

namespace {

anyio::task<> echo(anyio::tcp_stream client) {
  for (;;) {
    auto bytes = co_await as_result(client.receive_view());
    if (!bytes) co_return;
    if (!co_await as_result(client.send(*bytes))) co_return;
  }
}

anyio::task<> serve() {
  auto listener = co_await anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
  std::printf("%u\n", unsigned{listener.local_port()});
  std::fflush(stdout);
  co_await listener.serve(echo);
}

}  // namespace

int main() { anyio::run(serve()); }
