// Proxies for one connection, whose processor time bench/relay.py measures.
//
//   relay MODE TARGET_PORT   prints the port that it listens on; ends with the connection
//   MODE: relay (anyio::relay), memory (the same through memory), splice (a loop over splice(2) by hand)
#include "anyio_net.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

/// Takes a client, and connects it to the server at that port.
anyio::task<std::pair<anyio::tcp_stream, anyio::tcp_stream>> both_ends(std::uint16_t port) {
  auto listener = co_await anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
  std::printf("%d\n", listener.local_port());
  std::fflush(stdout);
  anyio::tcp_stream client = co_await listener.accept();
  anyio::tcp_stream server =
      co_await anyio::connect_tcp(anyio::ip_endpoint{anyio::ip_address::loopback_v4(), port});
  co_return std::pair(std::move(client), std::move(server));
}

anyio::task<> relay(bool through_memory, std::uint16_t port) {
  auto [client, server] = co_await both_ends(port);
  if (!through_memory) co_await anyio::relay(client, server);
  if (through_memory) {
    anyio::buffered_stream wrapped(client);  // not a socket, so its bytes are copied
    co_await anyio::relay(wrapped, server);
  }
}

struct direction {
  int from;
  int to;
  int pipe[2] = {-1, -1};
  size_t in_pipe = 0;
  bool ended = false;
  bool over = false;

  void move() {
    while (!over) {
      if (in_pipe == 0 && !ended) {
        const ssize_t n =
            ::splice(from, nullptr, pipe[1], nullptr, 1 << 20, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) std::exit(1);
        ended = n == 0;
        in_pipe = static_cast<size_t>(n);
      }
      if (in_pipe != 0) {
        const ssize_t n = ::splice(pipe[0], nullptr, to, nullptr, in_pipe, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) std::exit(1);
        in_pipe -= static_cast<size_t>(n);
      } else if (ended) {
        ::shutdown(to, SHUT_WR);
        over = true;
      }
    }
  }
};

/// The sockets come from the library; everything else is by hand.
anyio::task<std::pair<int, int>> descriptors(std::uint16_t port) {
  auto [client, server] = co_await both_ends(port);
  co_return std::pair<int, int>(client.release(), server.release());
}

int splice_by_hand(std::uint16_t port) {
  const std::pair<int, int> ends = anyio::run(descriptors(port));
  const int poller = ::epoll_create1(0);
  direction ways[2] = {{ends.first, ends.second}, {ends.second, ends.first}};
  for (direction& way : ways) {
    epoll_event e{};
    e.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    if (::pipe2(way.pipe, O_NONBLOCK) != 0 || ::epoll_ctl(poller, EPOLL_CTL_ADD, way.from, &e) != 0) return 1;
    if (const char* size = std::getenv("PIPE_SIZE")) ::fcntl(way.pipe[1], F_SETPIPE_SZ, std::atoi(size));
  }
  while (!ways[0].over || !ways[1].over) {
    epoll_event events[2];
    ::epoll_wait(poller, events, 2, -1);
    for (direction& way : ways) way.move();
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string_view mode = argv[1];
  const auto port = static_cast<std::uint16_t>(std::atoi(argv[2]));
  if (mode == "splice") return splice_by_hand(port);
  anyio::run(relay(mode == "memory", port));
}
