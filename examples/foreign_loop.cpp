// A server inside another program's loop. The loop here is poll(2), and waits for standard input too; any
// loop that can watch a descriptor and has a timeout works: GLib, Qt, libuv.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/foreign_loop.cpp -o foreign_loop && ./foreign_loop [port]
//
// It echoes bytes of TCP clients. Typing a line prints the number of clients; the end of input ends the
// program.
#include "anyio_net.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <iostream>
#include <string>

#include <poll.h>
#include <unistd.h>

using namespace std::chrono_literals;

static int clients = 0;

static anyio::task<> echo(anyio::tcp_stream client) {
  struct counted {
    counted() { ++clients; }
    ~counted() { --clients; }
  } const here;
  for (;;) {
    const std::string_view bytes = co_await client.receive_view();
    co_await client.send(bytes);
  }
}

// The timeout for poll(2): -1 for none, else milliseconds, rounded up.
static int timeout_of(const anyio::loop& net) {
  const auto left = net.time_until_next();
  if (left == std::chrono::nanoseconds::max()) return -1;
  return static_cast<int>(
      std::chrono::ceil<std::chrono::milliseconds>(std::min<std::chrono::nanoseconds>(left, 1h)).count());
}

static int run_both(anyio::loop& net) {
  for (;;) {
    pollfd watched[] = {{STDIN_FILENO, POLLIN, 0}, {net.native_handle(), POLLIN, 0}};
    if (::poll(watched, 2, timeout_of(net)) < 0 && errno != EINTR) return std::perror("poll"), 1;
    if (watched[0].revents != 0) {
      char line[256];
      if (::read(STDIN_FILENO, line, sizeof line) <= 0) return 0;
      std::cout << clients << " clients" << std::endl;
    }
    net.run_once(0s);  // one turn, without waiting: remaining work makes the next poll return at once
  }
}

int main(int argc, char** argv) {
  anyio::loop net;
  const auto port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 1234);
  auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), port});
  if (!listener) return std::cerr << listener.error().message() << '\n', 1;
  listener->serve(echo).start([](anyio::result<> r) {
    if (!r) std::cerr << r.error().message() << '\n';
  });
  std::cout << "listening on port " << listener->local_port() << std::endl;
  return run_both(net);
}
