// A TCP echo server with coroutines. An error that escapes a handler closes only that connection: here the
// end of the stream, when the client has sent everything. Ctrl-C stops the server, and gives its clients a
// second. See echo_callback.cpp for the same server with callbacks.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/echo_coroutine.cpp -o echo_coroutine && ./echo_coroutine [port]
#include "anyio_net.hpp"

#include <cstdlib>
#include <iostream>

anyio::task<> echo(anyio::tcp_stream client) {
  for (;;) co_await client.send(co_await client.receive_view());
}

anyio::task<> serve(std::uint16_t port) {
  auto listener = co_await anyio::create_tcp_listener({.local_port = port});
  std::cout << "listening on port " << listener.local_port() << std::endl;
  co_await anyio::serve_until_interrupted(listener, echo, {.grace = std::chrono::seconds(1)});
}

int main(int argc, char** argv) { anyio::run(serve(std::uint16_t(argc > 1 ? std::atoi(argv[1]) : 1234))); }
