// A pre-forking echo server: the parent listens and never serves, and each of its children serves with its
// own loop, on the same listening socket. The parent replaces a child that has died, and ends all of them on
// SIGTERM or SIGINT. If the parent is killed, the children end too.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/prefork_server.cpp -o prefork_server
//   ./prefork_server [port] [workers]
#include "anyio_net.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;

// Sends the number of the process that serves the client, then echoes its bytes.
static anyio::task<> echo(anyio::tcp_stream client) {
  co_await client.send("process " + std::to_string(::getpid()) + "\n");
  for (;;) {
    const std::string_view bytes = co_await client.receive_view();
    co_await client.send(bytes);
  }
}

static anyio::task<> serve(int listening, int parent_lives, const sigset_t& mask) {
  auto end = co_await anyio::signal_receiver::open(SIGTERM, SIGINT);
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);  // a signal since the fork is received
  auto listener = co_await anyio::tcp_listener::from_fd(listening);
  co_await anyio::when_any(listener.serve(echo), end.receive(), anyio::wait_readable(parent_lives));
}

class prefork_server {
 public:
  explicit prefork_server(std::uint16_t port) {
    // A separate descriptor that is in no loop's poller: connections do not wake the parent.
    auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), port}).value();
    port_ = listener.local_port();
    listening_.reset(::dup(listener.native_handles().front()));
    // The workers see its end when the parent has ended.
    int ends[2];
    if (!listening_ || ::pipe(ends) != 0) std::perror("prefork_server"), std::exit(1);
    parent_lives_.reset(ends[0]);
    parent_.reset(ends[1]);
  }

  anyio::task<> run(std::size_t count) {
    auto signals = co_await anyio::signal_receiver::open(SIGTERM, SIGINT, SIGCHLD);
    for (std::size_t i = 0; i < count; ++i) start_worker();
    std::cout << "listening on port " << port_ << std::endl;
    while (co_await signals.receive() == SIGCHLD) {
      co_await anyio::sleep(100ms);  // workers that die at once must not keep the machine busy
      const auto died = [](pid_t worker) { return ::waitpid(worker, nullptr, WNOHANG) == worker; };
      std::erase_if(workers_, died);
      while (workers_.size() < count) start_worker();
    }
    for (const pid_t worker : workers_) ::kill(worker, SIGTERM);
    for (const pid_t worker : workers_) ::waitpid(worker, nullptr, 0);
  }

 private:
  void start_worker() {
    // Blocked signals wait until the child can receive them; else its inherited receiver would take them.
    sigset_t all, before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    const pid_t child = ::fork();
    if (child == 0) work(before);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (child < 0) {
      std::perror("fork");
      std::exit(1);
    }
    workers_.push_back(child);
    std::cout << "process " << child << " serves" << std::endl;
  }

  // In the child, which inherits the parent's loop, and does not use it: run() creates a new one.
  [[noreturn]] void work(const sigset_t& mask) {
    parent_.reset();
    const auto r = anyio::run(as_result(serve(listening_.release(), parent_lives_.get(), mask)));
    if (!r) std::cerr << r.error().message() << std::endl;
    ::_exit(r ? 0 : 1);  // without the destructors of the parent's objects
  }

  std::uint16_t port_ = 0;
  anyio::unique_fd listening_, parent_lives_, parent_;
  std::vector<pid_t> workers_;
};

int main(int argc, char** argv) {
  const auto port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 1234);
  const auto workers = static_cast<std::size_t>(argc > 2 ? std::atoi(argv[2]) : 4);
  try {
    anyio::loop loop;
    prefork_server server(port);
    anyio::run(server.run(workers));
  } catch (const anyio::exception& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
}
