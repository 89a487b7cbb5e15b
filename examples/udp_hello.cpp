// A UDP service: answers each packet with "Hello, " and the packet's content.
//
//   g++ -std=c++20 -pthread -I. examples/udp_hello.cpp -o udp_hello && ./udp_hello [port]
#include "anyio_net.hpp"

#include <cstdlib>

anyio::task<> hello(std::uint16_t port) {
  auto udp = co_await anyio::create_udp_socket({.family = AF_INET, .local_port = port});
  for (;;) {
    auto [packet, sender] = co_await udp.receive();
    co_await udp.send_to("Hello, " + packet, sender);
  }
}

int main(int argc, char** argv) { anyio::run(hello(std::uint16_t(argc > 1 ? std::atoi(argv[1]) : 1234))); }
