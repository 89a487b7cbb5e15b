// An echo server that inherits its sockets from the process that starts it (sd_listen_fds(3)): listening
// ones, TCP and UNIX, and datagram ones, UDP and UNIX, any number of each.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/socket_activation.cpp -o socket_activation
//   systemd-socket-activate -l 1234 ./socket_activation
#include "anyio_net.hpp"

#include <cstdlib>
#include <iostream>
#include <utility>

#include <unistd.h>

#include "support/complaints.hpp"

static constexpr int first_descriptor = 3;

// How many were passed to this process, and not to its parent.
static int passed() {
  const char* process = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  if (process == nullptr || count == nullptr || std::atol(process) != ::getpid()) return 0;
  return std::atoi(count);
}

template <class Stream>
static anyio::task<> echo(Stream client) {
  for (;;) {
    const std::string_view bytes = co_await client.receive_view();
    co_await client.send(bytes);
  }
}

static anyio::task<> serve(anyio::tcp_listener listener) { co_await listener.serve(echo<anyio::tcp_stream>); }

static anyio::task<> serve(anyio::unix_listener listener) {
  co_await listener.serve(echo<anyio::unix_stream>);
}

// Not every datagram can be answered: a UNIX sender may have no name, or be closed.
template <class Socket>
static anyio::task<> answer(Socket socket) {
  complaints complain("socket_activation");
  for (;;) {
    const auto [data, sender] = co_await socket.receive();
    const auto sent = co_await as_result(socket.send_to(data, sender));
    if (!sent) complain(sent.error());
  }
}

// Only the socket itself knows its kind: each from_fd rejects other kinds, and leaves them unchanged.
static bool serve_descriptor(anyio::task_group& group, int fd) {
  if (auto tcp = anyio::tcp_listener::from_fd(fd)) {
    group.start_soon(serve(*std::move(tcp)));
  } else if (auto local = anyio::unix_listener::from_fd(fd)) {
    group.start_soon(serve(*std::move(local)));
  } else if (auto udp = anyio::udp_socket::from_fd(fd)) {
    group.start_soon(answer(*std::move(udp)));
  } else if (auto datagrams = anyio::unix_datagram_socket::from_fd(fd)) {
    group.start_soon(answer(*std::move(datagrams)));
  } else {
    return false;
  }
  return true;
}

static anyio::task<> serve_all(int count) {
  anyio::task_group group;
  for (int fd = first_descriptor; fd < first_descriptor + count; ++fd) {
    if (!serve_descriptor(group, fd)) std::cerr << "descriptor " << fd << " is not a supported socket\n";
  }
  co_await group.join();
}

int main() {
  const int count = passed();
  if (count == 0) {
    std::cerr << "no sockets were passed; try: systemd-socket-activate -l 1234 ./socket_activation\n";
    return 2;
  }
  anyio::run(serve_all(count));
}
