// A backend on a network in memory: virtual time that jumps ahead when everything waits, and a trace of every
// call.
//
// This part must not know operations or faults.
#pragma once

#include "base/slice.hpp"
#include "simulation/sim_network.hpp"

#if defined(ANYIO_NET_SIM)

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class sim_backend final : public backend,
                          private name_service,
                          private file_service,
                          private path_service,
                          private batch_service,
                          private thread_service,
                          private signal_service {
 public:
  explicit sim_backend(std::shared_ptr<sim_network> network) noexcept : network_(std::move(network)) {}

  time_point now() override { return network_->now(); }

  // --- readiness
  int watch(int fd, std::uint64_t token) override { return traced("watch", fd, network_->watch(fd, token)); }
  void forget(int fd) override { network_->forget(fd); }
  int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool) override {
    return traced("watch_once", fd, network_->watch(fd, token, true, interest));
  }
  int poll_now(int fd, std::uint32_t interest) override {
    const sim_handle s = network_->find(fd);
    const std::uint32_t wanted = interest | ready_end;
    const int bits = s == nullptr ? network_->refusal(fd) : static_cast<int>(network_->level(*s) & wanted);
    return traced("poll", fd, bits);
  }
  int wait(slice<poll_event> events, duration at_most) override {
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
  void wake() override { woken_ = true; }
  int native_handle() const override { return -1; }

  // --- sockets
  int open_socket(int family, int type, int) override {
    return traced("socket", -1, network_->open(family, type));
  }
  int open_pair(int family, int type, int (&fds)[2]) override {
    return traced("socketpair", -1, network_->open_pair(family, type, fds));
  }
  int bind(int fd, const sockaddr* address, socklen_t size) override {
    return on_socket("bind", fd, &sim_network::bind, address, size);
  }
  int listen(int fd, int backlog) override { return on_socket("listen", fd, &sim_network::listen, backlog); }
  int connect(int fd, const sockaddr* address, socklen_t size) override {
    return on_socket("connect", fd, &sim_network::connect, address, size);
  }
  int accept(int fd, sockaddr* address, socklen_t* size) override {
    return on_socket("accept", fd, &sim_network::accept, address, size);
  }
  int shutdown(int fd, int how) override { return on_socket("shutdown", fd, &sim_network::shutdown, how); }
  int break_connection(int fd) override { return on_socket("break", fd, &sim_network::break_connection); }
  int close(int fd) override { return traced("close", fd, network_->close(fd)); }
  ssize_t receive(int fd, void* data, std::size_t size) override {
    const ::iovec part{data, size};
    message m{slice(&part, 1)};
    return on_socket("receive", fd, &sim_network::receive, m, false);
  }
  ssize_t send(int fd, const void* data, std::size_t size) override {
    const ::iovec part{const_cast<void*>(data), size};
    return on_socket("send", fd, &sim_network::send, message{slice(&part, 1)});
  }
  ssize_t receive_message(int fd, message& m) override {
    return on_socket("receive_message", fd, &sim_network::receive, m, m.control != nullptr);
  }
  ssize_t send_message(int fd, const message& m) override {
    return on_socket("send_message", fd, &sim_network::send, m);
  }
  int get_option(int fd, int level, int name, void* value, socklen_t* size) override {
    return on_socket("get_option", fd, &sim_network::get_option, level, name, value, size);
  }
  int set_option(int fd, int level, int name, const void* value, socklen_t size) override {
    return on_socket("set_option", fd, &sim_network::set_option, level, name, value, size);
  }
  int local_address(int fd, sockaddr* address, socklen_t* size) override {
    return on_socket(nullptr, fd, &sim_network::address_of, false, address, size);
  }
  int remote_address(int fd, sockaddr* address, socklen_t* size) override {
    return on_socket(nullptr, fd, &sim_network::address_of, true, address, size);
  }

  name_service* names() override { return this; }
  file_service* files() override { return this; }
  path_service* paths() override { return this; }
  batch_service* batches() override { return this; }
  thread_service* threads() override { return this; }
  signal_service* signals() override { return this; }

 private:
  // --- names
  resolved resolve(const std::string& host, std::uint16_t port, int family) override {
    resolved answer = network_->resolve(host, port, family);
    network_->trace("resolve", -1, answer.status);
    return answer;
  }
  int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) override {
    host = endpoint.address.to_string();
    service = std::to_string(endpoint.port);
    return 0;
  }
  bool has_family(int family) override {
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
  }

  // --- descriptors of other kinds: there are none
  int adopt(int fd) override { return network_->is_open(fd) ? 0 : network_->refusal(fd); }
  int make_blocking(int) override { return 0; }
  int set_close_on_exec(int) override { return 0; }
  int identify(int fd, file_identity& identity) override {
    return on_socket(nullptr, fd, &sim_network::identify_socket, identity);
  }
  ssize_t read(int fd, void* data, std::size_t size) override { return receive(fd, data, size); }
  ssize_t write(int fd, slice<const ::iovec> parts) override { return send_message(fd, message{parts}); }
  ssize_t send_file(int, int file, std::uint64_t, std::size_t) override {
    return traced("send_file", file, network_->is_open(file) ? -EINVAL : -EOPNOTSUPP);
  }

  // --- paths
  int identify(const char* path, file_identity& identity) override {
    return network_->identify(path, identity);
  }
  int change_mode(const char* path, mode_t) override {
    file_identity identity;
    return network_->identify(path, identity);
  }
  int unlink(const char* path) override { return traced("unlink", -1, network_->unlink(path)); }

  // --- batches
  int receive_messages(int fd, slice<message> messages, slice<std::size_t> sizes, bool& emptied) override {
    return receive_each(messages, sizes, emptied, [&](message& m) { return receive_message(fd, m); });
  }
  int send_messages(int fd, slice<const message> messages) override {
    return send_each(messages, [&](const message& m) { return send_message(fd, m); });
  }

  // --- threads: there are none
  bool uses_threads() const override { return false; }
  /// At least one, so that cancellation can find a call that has not begun, as on a helper thread.
  std::size_t turns_before_call() override { return 1 + network_->choices.pick(8); }
  int start_thread(void (*)(void*), void*) override { return -EAGAIN; }

  // --- signals
  int catch_signal(int number) override { return network_->catch_signal(number); }
  void release_signal(int number) override { network_->release_signal(number); }
  bool take_signal(int number) override { return network_->take_signal(number); }

  template <class Outcome>
  Outcome traced(const char* call, int fd, Outcome outcome) {
    network_->trace(call, fd, static_cast<std::int64_t>(outcome));
    return outcome;
  }
  /// Makes a call for the socket of a descriptor. `call` is its name in the trace; null: it is not traced.
  template <class Outcome, class... P, class... A>
  Outcome on_socket(const char* call, int fd, Outcome (sim_network::*function)(const sim_handle&, P...),
                    A&&... arguments) {
    const sim_handle s = network_->find(fd);
    const Outcome outcome =
        s == nullptr ? network_->refusal(fd) : (*network_.*function)(s, std::forward<A>(arguments)...);
    return call == nullptr ? outcome : traced(call, fd, outcome);
  }

  std::shared_ptr<sim_network> network_;
  bool woken_ = false;
};

ANYIO_NET_FN std::unique_ptr<backend> sim_network::make_backend(std::shared_ptr<sim_network> network) {
  return std::make_unique<sim_backend>(std::move(network));
}

}}}  // namespace anyio::detail

#endif
