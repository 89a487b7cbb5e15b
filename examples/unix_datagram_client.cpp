// A UNIX datagram socket connected to one path: writes a line to the system's log.
//
//   g++ -std=c++20 -pthread -I. examples/unix_datagram_client.cpp -o unix_datagram_client
//   ./unix_datagram_client [path]
#include "anyio_net.hpp"

anyio::task<> say_hi(std::string path) {
  auto unix_dg = co_await anyio::create_connected_unix_datagram_socket(path);
  co_await unix_dg.send("Hi there!\n");
}

int main(int argc, char** argv) { anyio::run(say_hi(argc > 1 ? argv[1] : "/dev/log")); }
