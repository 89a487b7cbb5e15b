// The calls of the backend, in memory.
#pragma once

#include "simulation/sim_backend.hpp"

#if defined(ANYIO_NET_SIM)

#include <cerrno>
#include <string>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// --- time

ANYIO_NET_FN time_point sim_backend::now() { return network_->now(); }

// --- readiness

ANYIO_NET_FN int sim_backend::watch(int fd, std::uint64_t token) {
  return traced("watch", fd, network_->watch(fd, token));
}

ANYIO_NET_FN void sim_backend::forget(int fd) { network_->forget(fd); }

ANYIO_NET_FN int sim_backend::watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool) {
  return traced("watch_once", fd, network_->watch_once(fd, interest, token));
}

ANYIO_NET_FN int sim_backend::poll_now(int fd, std::uint32_t interest) {
  const int bits = network_->poll(fd);
  return traced("poll", fd, bits < 0 ? bits : bits & static_cast<int>(interest | ready_end));
}

ANYIO_NET_FN int sim_backend::wait(std::span<poll_event> events, duration at_most) {
  const time_point deadline =
      at_most < duration::zero() ? time_point::max() : anyio::detail::add(network_->now(), at_most);
  for (;;) {
    const int count = network_->collect(events);
    if (count != 0) return traced("wait", -1, count);
    if (std::exchange(woken_, false) || network_->verdict() != sim_verdict::none)
      return traced("wait", -1, 0);
    if (network_->advance(deadline)) continue;
    if (deadline == time_point::max()) network_->end(sim_verdict::deadlock);
    return traced("wait", -1, network_->collect(events));
  }
}

ANYIO_NET_FN void sim_backend::wake() { woken_ = true; }

ANYIO_NET_FN int sim_backend::native_handle() const { return -1; }

// --- sockets

ANYIO_NET_FN int sim_backend::open_socket(int family, int type, int) {
  return traced("socket", -1, network_->open(family, type));
}

ANYIO_NET_FN int sim_backend::open_pair(int family, int type, int (&fds)[2]) {
  return traced("socketpair", -1, network_->open_pair(family, type, fds));
}

ANYIO_NET_FN int sim_backend::bind(int fd, const sockaddr* address, socklen_t size) {
  return traced("bind", fd, network_->bind(fd, address, size));
}

ANYIO_NET_FN int sim_backend::listen(int fd, int backlog) {
  return traced("listen", fd, network_->listen(fd, backlog));
}

ANYIO_NET_FN int sim_backend::connect(int fd, const sockaddr* address, socklen_t size) {
  return traced("connect", fd, network_->connect(fd, address, size));
}

ANYIO_NET_FN int sim_backend::accept(int fd, sockaddr* address, socklen_t* size) {
  return traced("accept", fd, network_->accept(fd, address, size));
}

ANYIO_NET_FN int sim_backend::shutdown(int fd, int how) {
  return traced("shutdown", fd, network_->shutdown(fd, how));
}

ANYIO_NET_FN int sim_backend::break_connection(int fd) {
  return traced("break", fd, network_->break_connection(fd));
}

ANYIO_NET_FN int sim_backend::close(int fd) { return traced("close", fd, network_->close(fd)); }

ANYIO_NET_FN ssize_t sim_backend::receive(int fd, void* data, std::size_t size) {
  const ::iovec part{data, size};
  message m;
  m.parts = std::span<const ::iovec>(&part, 1);
  return traced("receive", fd, network_->receive(fd, m, false));
}

ANYIO_NET_FN ssize_t sim_backend::send(int fd, const void* data, std::size_t size) {
  const ::iovec part{const_cast<void*>(data), size};
  message m;
  m.parts = std::span<const ::iovec>(&part, 1);
  return traced("send", fd, network_->send(fd, m));
}

ANYIO_NET_FN ssize_t sim_backend::receive_message(int fd, message& m) {
  return traced("receive_message", fd, network_->receive(fd, m, m.control != nullptr));
}

ANYIO_NET_FN ssize_t sim_backend::send_message(int fd, const message& m) {
  return traced("send_message", fd, network_->send(fd, m));
}

ANYIO_NET_FN int sim_backend::receive_messages(int fd, std::span<message> messages,
                                               std::span<std::size_t> sizes, bool& emptied) {
  int done = 0;
  for (std::size_t i = 0; i < messages.size(); ++i, ++done) {
    const ssize_t n = receive_message(fd, messages[i]);
    emptied = n == -EAGAIN;
    if (n < 0) return done != 0 ? done : static_cast<int>(n);
    sizes[i] = static_cast<std::size_t>(n);
  }
  return done;
}

ANYIO_NET_FN int sim_backend::send_messages(int fd, std::span<const message> messages) {
  int done = 0;
  for (const message& m : messages) {
    const ssize_t n = send_message(fd, m);
    if (n < 0) return done != 0 ? done : static_cast<int>(n);
    ++done;
  }
  return done;
}

ANYIO_NET_FN ssize_t sim_backend::send_file(int, int file, std::uint64_t, std::size_t) {
  return traced("send_file", file, network_->is_open(file) ? -EINVAL : -EOPNOTSUPP);
}

ANYIO_NET_FN int sim_backend::get_option(int fd, int level, int name, void* value, socklen_t* size) {
  return traced("get_option", fd, network_->get_option(fd, level, name, value, size));
}

ANYIO_NET_FN int sim_backend::set_option(int fd, int level, int name, const void* value, socklen_t size) {
  return traced("set_option", fd, network_->set_option(fd, level, name, value, size));
}

ANYIO_NET_FN int sim_backend::local_address(int fd, sockaddr* address, socklen_t* size) {
  return network_->address_of(fd, false, address, size);
}

ANYIO_NET_FN int sim_backend::remote_address(int fd, sockaddr* address, socklen_t* size) {
  return network_->address_of(fd, true, address, size);
}

// --- descriptors of other kinds: there are none

ANYIO_NET_FN ssize_t sim_backend::read(int fd, void* data, std::size_t size) {
  return receive(fd, data, size);
}

ANYIO_NET_FN ssize_t sim_backend::write(int fd, std::span<const ::iovec> parts) {
  message m;
  m.parts = parts;
  return send_message(fd, m);
}

ANYIO_NET_FN int sim_backend::adopt(int fd) { return network_->is_open(fd) ? 0 : network_->refusal(fd); }

ANYIO_NET_FN int sim_backend::make_blocking(int) { return 0; }

ANYIO_NET_FN int sim_backend::set_close_on_exec(int) { return 0; }

// --- paths, names, signals, threads

ANYIO_NET_FN int sim_backend::identify(const char* path, file_identity& identity) {
  return network_->identify(path, identity);
}

ANYIO_NET_FN int sim_backend::identify(int fd, file_identity& identity) {
  return network_->identify(fd, identity);
}

ANYIO_NET_FN int sim_backend::change_mode(const char* path, mode_t) {
  file_identity identity;
  return network_->identify(path, identity);
}

ANYIO_NET_FN int sim_backend::unlink(const char* path) {
  return traced("unlink", -1, network_->unlink(path));
}

ANYIO_NET_FN resolved sim_backend::resolve(const std::string& host, std::uint16_t port, int family) {
  resolved answer = network_->resolve(host, port, family);
  network_->trace("resolve", -1, answer.status);
  return answer;
}

ANYIO_NET_FN int sim_backend::reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) {
  host = endpoint.address.to_string();
  service = std::to_string(endpoint.port);
  return 0;
}

ANYIO_NET_FN bool sim_backend::has_family(int family) {
  return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

ANYIO_NET_FN int sim_backend::catch_signal(int number) { return network_->catch_signal(number); }

ANYIO_NET_FN void sim_backend::release_signal(int number) { network_->release_signal(number); }

ANYIO_NET_FN bool sim_backend::take_signal(int number) { return network_->take_signal(number); }

ANYIO_NET_FN bool sim_backend::uses_threads() const { return false; }

/// At least one, so that cancellation can find a call that has not begun, as on a helper thread.
ANYIO_NET_FN std::size_t sim_backend::turns_before_call() { return 1 + network_->choices.pick(8); }

ANYIO_NET_FN int sim_backend::start_thread(void (*)(void*), void*) { return -EAGAIN; }

}}}  // namespace anyio::detail

#endif
