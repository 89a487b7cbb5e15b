// A TCP client: sends its name and prints the answer of tcp_server.cpp.
//
//   g++ -std=c++20 -pthread -I. examples/tcp_client.cpp -o tcp_client && ./tcp_client [host [port]]
#include "anyio_net.hpp"

#include <cstdlib>
#include <iostream>

anyio::task<> greet(std::string host, std::uint16_t port) {
  auto client = co_await anyio::connect_tcp(host, port);
  co_await client.send("Client\n");
  std::cout << co_await client.receive();
}

int main(int argc, char** argv) {
  anyio::run(greet(argc > 1 ? argv[1] : "localhost", std::uint16_t(argc > 2 ? std::atoi(argv[2]) : 1234)));
}
