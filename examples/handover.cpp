// A server that is replaced by a new process without losing a connection. Started a second time with the same
// control path, it takes over the listening socket of the first process, which serves its clients to the end
// and exits.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/handover.cpp -o handover
//   ./handover /tmp/control 1234 &     # and later, with a new program:
//   ./handover /tmp/control &
#include "anyio_net.hpp"

#include <cstdlib>
#include <iostream>
#include <string_view>
#include <utility>

#include <unistd.h>

static anyio::task<> echo(anyio::tcp_stream client) {
  for (;;) {
    const std::string_view bytes = co_await client.receive_view();
    co_await client.send(bytes);
  }
}

// From the process that serves now, if there is one. When its end of the stream arrives it has released
// everything.
static anyio::task<anyio::tcp_listener> listening_socket(std::string_view control, std::uint16_t port) {
  auto predecessor = co_await as_result(anyio::connect_unix(control));
  if (!predecessor) co_return co_await anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), port});
  anyio::fd_message message = co_await predecessor->receive_fds(64, 1);
  if (message.fds.empty()) co_await anyio::raise(anyio::errc::not_supported);
  anyio::tcp_listener listener = co_await anyio::tcp_listener::from_fd(message.fds[0].get());
  static_cast<void>(message.fds[0].release());  // owned by the listener now
  while (co_await as_result(predecessor->receive_view())) {
  }
  co_return listener;
}

static anyio::task<> serve(std::string_view control, std::uint16_t port) {
  anyio::tcp_listener listener = co_await listening_socket(control, port);
  anyio::unix_listener successors = co_await anyio::create_unix_listener(control, {.unlink_on_close = true});
  std::cout << "process " << ::getpid() << " serves port " << listener.local_port() << std::endl;

  anyio::task_group group;
  group.start_soon(listener.serve(echo));
  anyio::unix_stream successor = co_await successors.accept();
  successors.close();
  const std::vector<int> descriptors = listener.native_handles();
  co_await successor.send_fds("the listening socket", descriptors);
  listener.close();  // later clients wait in the backlog, for the new process
  successor.close();
  std::cout << "process " << ::getpid() << " has handed over" << std::endl;
  co_await group.join();  // until the last client has closed
}

int main(int argc, char** argv) {
  if (argc < 2) return std::cerr << "usage: handover CONTROL_PATH [PORT]\n", 2;
  const auto port = static_cast<std::uint16_t>(argc > 2 ? std::atoi(argv[2]) : 1234);
  try {
    anyio::run(serve(argv[1], port));
  } catch (const anyio::exception& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
}
