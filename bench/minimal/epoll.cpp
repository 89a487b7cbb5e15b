// The smallest echo server on epoll(7) by hand that is fit for production, for time to compile and size.
//
// Every connection is registered once, edge-triggered both ways. A read that did not fill the buffer has
// emptied the socket, so the next one waits for an edge; not after EPOLLRDHUP and the like, since no other
// edge will come. What cannot be sent at once is kept, and nothing is read until it is gone.
//
//   It listens on a free port of 127.0.0.1, and prints it.

#include <cerrno>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

constexpr std::uint32_t interest = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

char buffer[65536];

struct connection {
  int fd;
  bool read_to_end = false;
  std::string unsent;
};

/// False when the connection is to be closed. What does not go at once is left in `unsent`.
bool send_all(connection& c, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(c.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) return false;
    if (n < 0) {
      c.unsent = std::string(bytes);
      return true;
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  c.unsent.clear();
  return true;
}

/// Echoes until the socket is empty or full. False when the connection is to be closed.
bool serve(connection& c) {
  if (!c.unsent.empty() && !send_all(c, std::string(c.unsent))) return false;
  while (c.unsent.empty()) {
    const ssize_t n = ::recv(c.fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    if (n == 0) return false;
    const auto size = static_cast<std::size_t>(n);
    if (!send_all(c, {buffer, size})) return false;
    if (size < sizeof buffer && !c.read_to_end) return true;
  }
  return true;
}

void accept_all(int poller, int listener) {
  for (;;) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return;
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    auto* c = new connection{fd, false, {}};
    epoll_event event{};
    event.events = interest;
    event.data.ptr = c;
    if (::epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) {
      ::close(fd);
      delete c;
    }
  }
}

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  _exit(1);
}

}  // namespace

int main() {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), size) < 0) fail("bind");
  if (::listen(listener, 4096) < 0) fail("listen");
  if (::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) < 0) fail("getsockname");
  std::printf("%u\n", unsigned{ntohs(address.sin_port)});
  std::fflush(stdout);

  const int poller = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0) fail("epoll_ctl");
  std::vector<epoll_event> events(512);
  for (;;) {
    const int count = ::epoll_wait(poller, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      auto* c = static_cast<connection*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (c == nullptr) {
        accept_all(poller, listener);
        continue;
      }
      if (events[static_cast<std::size_t>(i)].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        c->read_to_end = true;
      if (serve(*c)) continue;
      ::close(c->fd);
      delete c;
    }
  }
}
