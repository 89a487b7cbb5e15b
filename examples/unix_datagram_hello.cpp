// The service of udp_hello.cpp over a UNIX datagram socket. A sender without a path cannot be answered, so
// errors are checked here instead of raised.
//
//   g++ -std=c++20 -pthread -I. examples/unix_datagram_hello.cpp -o unix_datagram_hello
//   ./unix_datagram_hello [path]
#include "anyio_net.hpp"

#include "support/complaints.hpp"

anyio::task<> hello(std::string path) {
  complaints complain("unix_datagram_hello");
  auto unix_dg = co_await anyio::create_unix_datagram_socket({.local_path = path});
  for (;;) {
    auto [packet, sender] = co_await unix_dg.receive();
    auto sent = co_await anyio::as_result(unix_dg.send_to("Hello, " + packet, sender));
    if (!sent) complain(sent.error());
  }
}

int main(int argc, char** argv) { anyio::run(hello(argc > 1 ? argv[1] : "/tmp/mysock")); }
