// Raw sockets, connected pairs, and a backend whose clock and calls a test controls.
#pragma once

#include "anyio_net.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "custom_backend.hpp"

namespace support {

/// The system's backend with hooks: an empty hook, or one that returns nothing, leaves the call unchanged.
/// With `virtual_time` the clock jumps to the next deadline whenever nothing happens.
class scripted_backend : public custom_backend {
 public:
  /// A hook's result for a call that succeeds later, or never: no event will follow.
  static constexpr int hang = -1000000;

  std::function<std::optional<int>(int family)> on_open_socket;
  std::function<std::optional<int>(const anyio::ip_endpoint&)> on_connect;
  std::function<std::optional<int>(const anyio::ip_endpoint&)> on_bind;
  std::function<std::optional<int>()> on_accept;
  std::function<std::optional<int>(int level, int name)> on_set_option;
  std::function<anyio::detail::resolved(const std::string& host, std::uint16_t port, int family)> on_resolve;
  std::function<void()> on_listen;
  std::function<void(anyio::detail::slice<anyio::detail::poll_event>)> on_events;
  /// While it returns true, no event is delivered and virtual time advances.
  std::function<bool()> withhold;
  /// Where connects to other addresses really connect.
  std::optional<anyio::ip_endpoint> redirect;
  std::size_t send_limit = static_cast<std::size_t>(-1);  // bytes of one send
  std::size_t receive_limit = static_cast<std::size_t>(-1);
  bool virtual_time = false;

  std::size_t waits = 0;
  std::size_t accepts = 0;
  std::size_t sends = 0;
  std::size_t receives = 0;

  anyio::time_point now() override { return virtual_time ? clock_ : custom_backend::now(); }
  int wait(anyio::detail::slice<anyio::detail::poll_event> events, anyio::duration at_most) override {
    ++waits;
    const int n = virtual_time ? leap(events, at_most) : custom_backend::wait(events, at_most);
    if (on_events && n > 0) on_events(events.first(static_cast<std::size_t>(n)));
    return n;
  }
  int watch(int fd, std::uint64_t token) override {
    return hanging_.contains(fd) ? 0 : custom_backend::watch(fd, token);
  }
  void forget(int fd) override {
    if (hanging_.erase(fd) == 0) custom_backend::forget(fd);
  }
  int close(int fd) override {
    hanging_.erase(fd);
    return custom_backend::close(fd);
  }
  int open_socket(int family, int type, int protocol) override {
    if (on_open_socket)
      if (const auto r = on_open_socket(family)) return *r;
    return custom_backend::open_socket(family, type, protocol);
  }
  bool has_family(int family) override {
    return (!on_open_socket || !on_open_socket(family)) && custom_backend::has_family(family);
  }
  int bind(int fd, const sockaddr* address, socklen_t size) override {
    if (on_bind && address->sa_family != AF_UNIX)
      if (const auto r = on_bind(*anyio::ip_endpoint::from_sockaddr(address, size))) return *r;
    return custom_backend::bind(fd, address, size);
  }
  int listen(int fd, int backlog) override {
    if (on_listen) on_listen();
    return custom_backend::listen(fd, backlog);
  }
  int connect(int fd, const sockaddr* address, socklen_t size) override {
    if (address->sa_family == AF_UNIX) return custom_backend::connect(fd, address, size);
    if (on_connect) {
      if (const auto r = on_connect(*anyio::ip_endpoint::from_sockaddr(address, size))) {
        if (*r != hang) return *r;
        hanging_.insert(fd);
        return -EINPROGRESS;
      }
    }
    if (!redirect) return custom_backend::connect(fd, address, size);
    sockaddr_storage other{};
    const socklen_t other_size = redirect->to_sockaddr(other);
    return custom_backend::connect(fd, reinterpret_cast<const sockaddr*>(&other), other_size);
  }
  int accept(int fd, sockaddr* address, socklen_t* size) override {
    ++accepts;
    if (on_accept)
      if (const auto r = on_accept()) return *r;
    return custom_backend::accept(fd, address, size);
  }
  ssize_t send(int fd, const void* data, std::size_t size) override {
    ++sends;
    return custom_backend::send(fd, data, std::min(size, send_limit));
  }
  ssize_t send_message(int fd, const anyio::detail::message& m) override {
    ++sends;
    if (m.parts.size() != 1 || m.parts[0].iov_len <= send_limit) return custom_backend::send_message(fd, m);
    const ::iovec part{m.parts[0].iov_base, send_limit};
    anyio::detail::message shorter = m;
    shorter.parts = anyio::detail::slice<const ::iovec>(&part, 1);
    return custom_backend::send_message(fd, shorter);
  }
  ssize_t receive(int fd, void* data, std::size_t size) override {
    ++receives;
    return custom_backend::receive(fd, data, std::min(size, receive_limit));
  }
  ssize_t receive_message(int fd, anyio::detail::message& m) override {
    ++receives;
    return custom_backend::receive_message(fd, m);
  }
  int set_option(int fd, int level, int name, const void* value, socklen_t size) override {
    if (on_set_option)
      if (const auto r = on_set_option(level, name)) return *r;
    return custom_backend::set_option(fd, level, name, value, size);
  }
  anyio::detail::resolved resolve(const std::string& host, std::uint16_t port, int family) override {
    return on_resolve ? on_resolve(host, port, family) : custom_backend::resolve(host, port, family);
  }
  // A thread takes real time, which this clock would not wait for.
  bool uses_threads() const override { return !virtual_time; }

 private:
  int leap(anyio::detail::slice<anyio::detail::poll_event> events, anyio::duration at_most) {
    // Events that the kernel is about to deliver come before any deadline.
    constexpr std::chrono::milliseconds grace(2);
    if (withhold && withhold()) {
      clock_ += at_most;
      return 0;
    }
    if (at_most < anyio::duration::zero()) return custom_backend::wait(events, at_most);
    const int n = custom_backend::wait(events, at_most == anyio::duration::zero() ? at_most : grace);
    if (n == 0) clock_ += at_most;
    return n;
  }

  anyio::time_point clock_ = custom_backend::now();
  std::set<int> hanging_;
};

/// A loop on a scripted backend.
class scripted_loop {
 public:
  scripted_loop() : scripted_loop(std::make_unique<scripted_backend>()) {}
  scripted_backend& system;
  anyio::loop loop;

 private:
  explicit scripted_loop(std::unique_ptr<scripted_backend> b) : system(*b), loop(std::move(b)) {}
};

inline anyio::ip_endpoint loopback(std::uint16_t port = 0) {
  return {anyio::ip_address::loopback_v4(), port};
}

/// Runs everything that is ready.
anyio::task<> turns(int count = 4);

/// Two ends of a connection: the connecting one, the accepted one.
struct tcp {
  using stream = anyio::tcp_stream;
  static anyio::task<std::pair<stream, stream>> pair();
};
struct unix_pair {
  using stream = anyio::unix_stream;
  static anyio::task<std::pair<stream, stream>> pair();
};

/// Closes with a reset.
inline void reset(anyio::tcp_stream& s) {
  const linger at_once{1, 0};
  ::setsockopt(s.native_handle(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  s.close();
}

/// Fills the connection, and returns the number of bytes needed.
template <class Stream>
std::size_t fill(Stream& s) {
  const std::string block(65536, 'f');
  std::size_t sent = 0;
  int idle = 0;
  while (idle < 3) {  // TCP makes a little more room after the first EAGAIN
    const ssize_t n = ::send(s.native_handle(), block.data(), block.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      sent += static_cast<std::size_t>(n);
      idle = 0;
    } else {
      ++idle;
    }
  }
  return sent;
}

inline bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }
inline bool is_close_on_exec(int fd) { return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }
inline bool is_non_blocking(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

/// A raw socket, close-on-exec. Not every system has SOCK_CLOEXEC.
inline int raw_socket(int family, int type = SOCK_STREAM) {
  const int fd = ::socket(family, type, 0);
  if (fd < 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) std::abort();
  return fd;
}

/// Makes both ends non-blocking and close-on-exec. Not every system has pipe2.
inline bool prepare_ends(const int (&fds)[2]) {
  for (const int fd : fds)
    if (::fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return false;
  return true;
}

/// Connects without the library, so that none of its code runs meanwhile.
inline int raw_connect(const anyio::ip_endpoint& to) {
  const int fd = raw_socket(to.address.is_v6() ? AF_INET6 : AF_INET);
  sockaddr_storage address{};
  const socklen_t size = to.to_sockaddr(address);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) != 0) std::abort();
  return fd;
}

/// A file name for sockaddr_un, or an abstract one.
inline socklen_t unix_name(std::string_view path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const bool room = path.size() < sizeof address.sun_path && !path.empty() && path.front() != '\0';
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (room ? 1 : 0));
}

/// A socket bound to a path, which optionally listens.
inline int raw_unix_socket(std::string_view path, int backlog = -1) {
  const int fd = raw_socket(AF_UNIX);
  sockaddr_un address;
  const socklen_t size = unix_name(path, address);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), size) != 0) std::abort();
  if (backlog >= 0) ::listen(fd, backlog);
  return fd;
}

}  // namespace support
