// The client of tcp_client.cpp over a UNIX socket.
//
//   g++ -std=c++20 -pthread -I. examples/unix_client.cpp -o unix_client && ./unix_client [path]
#include "anyio_net.hpp"

#include <iostream>

anyio::task<> greet(std::string path) {
  auto client = co_await anyio::connect_unix(path);
  co_await client.send("Client\n");
  std::cout << co_await client.receive(1024);
}

int main(int argc, char** argv) { anyio::run(greet(argc > 1 ? argv[1] : "/tmp/mysock")); }
