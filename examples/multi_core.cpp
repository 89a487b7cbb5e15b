// An echo server on all cores: each has its own loop, listener and thread, which share only a port. The
// kernel distributes the connections (socket(7), SO_REUSEPORT).
//
//   g++ -std=c++20 -O2 -pthread -I. examples/multi_core.cpp -o multi_core && ./multi_core [port] [threads]
#include "anyio_net.hpp"

#include <cstdlib>
#include <iostream>
#include <latch>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

// Sends the number of the thread that serves the client, then echoes its bytes.
static void serve_on(anyio::tcp_listener& listener, std::size_t number) {
  listener
      .serve([number](anyio::tcp_stream client) -> anyio::task<> {
        co_await client.send("thread " + std::to_string(number) + "\n");
        for (;;) {
          const std::string_view bytes = co_await client.receive_view();
          co_await client.send(bytes);
        }
      })
      .start([](anyio::result<> r) {
        if (!r) std::cerr << r.error().message() << '\n';
      });
  anyio::loop::current().run();
}

static anyio::tcp_listener open_or_exit(std::uint16_t port) {
  auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), port}, {.reuse_port = true});
  if (listener) return *std::move(listener);
  std::cerr << listener.error().message() << '\n';
  std::exit(1);
}

// On this thread and on `count - 1` others.
static void serve_on_all(std::uint16_t port, std::size_t count) {
  anyio::loop loop;
  anyio::tcp_listener listener = open_or_exit(port);  // from here on all use the port chosen for 0
  std::latch all_listen(static_cast<std::ptrdiff_t>(count));
  std::vector<std::thread> threads;
  for (std::size_t number = 1; number < count; ++number) {
    threads.emplace_back([number, shared = listener.local_port(), &all_listen] {
      anyio::loop own;
      anyio::tcp_listener one_more = open_or_exit(shared);
      all_listen.count_down();
      serve_on(one_more, number);
    });
  }
  all_listen.arrive_and_wait();
  std::cout << "port " << listener.local_port() << ", " << count << " threads" << std::endl;
  serve_on(listener, 0);
  for (std::thread& t : threads) t.join();
}

int main(int argc, char** argv) {
  const auto port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 1234);
  const std::size_t asked =
      argc > 2 ? std::strtoul(argv[2], nullptr, 10) : std::thread::hardware_concurrency();
  serve_on_all(port, asked == 0 ? 1 : asked);
}
