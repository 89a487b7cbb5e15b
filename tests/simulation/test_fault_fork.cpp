// Forked children of programs with faults, and of simulations.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <utility>

#include "support/faces.hpp"
#include "support/sockets.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::loop;
using anyio::task;
using support::by_callback;
using support::waiting;

int wait_for(pid_t child) {
  int status = 1;
  CHECK(::waitpid(child, &status, 0) == child);
  return status;
}

task<> talk_across_a_fork(pid_t& child) {
  auto p = co_await support::tcp::pair();
  co_await p.first.send("before");
  child = ::fork();
  if (child == 0) ::alarm(30);
  co_await anyio::sleep(1s);
  const std::string got = co_await p.second.receive();
  if (got != "before") co_await anyio::raise(anyio::errc::broken_resource);
  co_await p.second.aclose();
  const auto end = co_await as_result(p.first.receive());
  if (end.error() != anyio::errc::end_of_stream) co_await anyio::raise(anyio::errc::broken_resource);
}

}  // namespace

TEST_CASE("a child inherits a loop with faults like any other loop") {
  loop l(anyio::fault_backend(anyio::system_backend(), {.seed = 1, .faults = {.short_io = 0.5}}));
  auto p = anyio::create_unix_stream_pair().value();
  anyio::signal_receiver receiver = anyio::signal_receiver::open(SIGUSR1).value();
  waiting<std::string> w;
  waiting<int> signalled;
  by_callback::start(p.second.receive(), w);
  by_callback::start(receiver.receive(), signalled);
  support::settle();
  for (const bool goes_on : {false, true}) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(30);
      if (goes_on) {
        l.after_fork();
        ::raise(SIGUSR1);
        const bool fine = signalled.get().value() == SIGUSR1 &&
                          by_callback::get(p.first.send("x")).has_value() && w.get().value() == "x";
        ::_exit(fine ? 0 : 1);
      }
      p.second.close();
      ::_exit(0);
    }
    CHECK(wait_for(child) == 0);
  }
  support::settle();
  CHECK(!w.done());
  CHECK(!signalled.done());
  CHECK(by_callback::get(p.first.send("y")).has_value());
  CHECK(w.get().value() == "y");
  CHECK(::raise(SIGUSR1) == 0);
  CHECK(signalled.get().value() == SIGUSR1);
}

TEST_CASE("a simulation shares nothing with a forked child, which continues its own copy") {
  pid_t child = -1;
  const anyio::sim::report r = anyio::sim::run({.seed = 1}, [&] { return talk_across_a_fork(child); });
  if (child == 0) ::_exit(r.ok() ? 0 : 1);
  CHECK(r.ok());
  CHECK(wait_for(child) == 0);
}
