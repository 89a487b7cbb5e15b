// A UDP socket connected to one destination, which is not named with each packet.
//
//   g++ -std=c++20 -pthread -I. examples/udp_client.cpp -o udp_client && ./udp_client [host [port]]
#include "anyio_net.hpp"

#include <cstdlib>

anyio::task<> say_hi(std::string host, std::uint16_t port) {
  auto udp = co_await anyio::create_connected_udp_socket(host, port);
  co_await udp.send("Hi there!\n");
}

int main(int argc, char** argv) {
  anyio::run(say_hi(argc > 1 ? argv[1] : "localhost", std::uint16_t(argc > 2 ? std::atoi(argv[2]) : 1234)));
}
