// What the servers by hand share: sockets and their registration.
#pragma once

#include "server.hpp"

#include <cerrno>
#include <cstring>

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

namespace bench {

inline constexpr std::uint32_t edges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

inline bool watch(int poller, int how, int fd, std::uint32_t events, void* what) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = what;
  return ::epoll_ctl(poller, how, fd, &event) == 0;
}

inline void set_no_delay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

inline int bind_and_listen(int fd, int type, const void* address, socklen_t size) {
  if (::bind(fd, static_cast<const sockaddr*>(address), size) < 0) fail("bind");
  if (type == SOCK_STREAM && ::listen(fd, 4096) < 0) fail("listen");
  return fd;
}

/// Bound to a port of 127.0.0.1, and listening if it is of streams.
inline int bound_socket(int type, std::uint16_t port, bool reuse_port) {
  const int fd = ::socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (reuse_port) ::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return bind_and_listen(fd, type, &address, sizeof address);
}

/// Bound to a path.
inline int bound_socket(int type, const std::string& path) {
  const int fd = ::socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return bind_and_listen(fd, type, &address, sizeof address);
}

inline unsigned port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) fail("getsockname");
  return ntohs(address.sin_port);
}

}  // namespace bench
