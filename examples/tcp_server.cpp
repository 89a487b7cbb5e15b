// A TCP server that greets each client by name. Each connection has its own handler; closing the stream, at
// the end of the handler, ends the connection.
//
//   g++ -std=c++20 -pthread -I. examples/tcp_server.cpp -o tcp_server && ./tcp_server [port]
#include "anyio_net.hpp"

#include <cstdlib>

anyio::task<> handle(anyio::tcp_stream client) {
  auto name = co_await client.receive(1024);
  co_await client.send("Hello, " + name + "\n");
}

anyio::task<> serve(std::uint16_t port) {
  auto listener = co_await anyio::create_tcp_listener({.local_port = port});
  co_await anyio::serve_until_interrupted(listener, handle);
}

int main(int argc, char** argv) { anyio::run(serve(std::uint16_t(argc > 1 ? std::atoi(argv[1]) : 1234))); }
