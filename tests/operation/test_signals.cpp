// Signals as an input.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#if !defined(ANYIO_NET_NO_THREADS)
#include <thread>
#endif

namespace {

using namespace anyio;
using namespace std::chrono_literals;

bool is_default(int number) {
  struct sigaction action {};
  CHECK(::sigaction(number, nullptr, &action) == 0);
  return action.sa_handler == SIG_DFL;
}

task<int> next(signal_receiver& receiver) { co_return co_await receiver.receive(); }

/// The signal available now; 0 if there is none.
int next_now(signal_receiver& receiver) { return run(move_on_after(0s, receiver.receive())).value_or(0); }

/// Results of callbacks.
struct outcome {
  int number = 0;
  errc code = errc::ok;
  auto callback() {
    return [this](result<int> r) {
      number = r.value_or(-1);
      code = r.error().code();
    };
  }
};

}  // namespace

TEST_CASE("a signal that arrived is received") {
  loop l;
  signal_receiver receiver = *signal_receiver::open(SIGUSR1);
  CHECK(receiver);
  CHECK(::raise(SIGUSR1) == 0);

  SUBCASE("by a coroutine") { CHECK(run(next(receiver)) == SIGUSR1); }
  SUBCASE("by a callback") {
    outcome got;
    auto op = receiver.receive();
    op.start(got.callback());
    CHECK(got.number == 0);
    l.run();
    CHECK(got.number == SIGUSR1);
  }
  SUBCASE("with no time at all") { CHECK(next_now(receiver) == SIGUSR1); }
  CHECK(next_now(receiver) == 0);
}

TEST_CASE("a signal is waited for") {
  loop l;
  signal_receiver receiver = *signal_receiver::open(SIGUSR1);
  outcome got;
  receiver.receive().start(got.callback());
  l.run_once(0s);
  CHECK(got.number == 0);
  CHECK(::raise(SIGUSR1) == 0);
  l.run();
  CHECK(got.number == SIGUSR1);
}

#if !defined(ANYIO_NET_NO_THREADS)
TEST_CASE("a signal delivered to another thread wakes a waiting loop") {
  loop l;
  signal_receiver receiver = *signal_receiver::open(SIGUSR1);
  std::thread other;
  auto body = [&]() -> task<int> {
    other = std::thread([] { ::raise(SIGUSR1); });
    co_return co_await receiver.receive();
  };
  CHECK(run(body()) == SIGUSR1);
  other.join();
}
#endif

TEST_CASE("signals of one kind are received once, and the lowest number comes first") {
  loop l;
  signal_receiver receiver = *signal_receiver::open(SIGUSR2, SIGUSR1, SIGHUP, SIGUSR1);
  for (const int number : {SIGUSR2, SIGHUP, SIGUSR1, SIGUSR2, SIGHUP}) CHECK(::raise(number) == 0);
  std::vector<int> got;
  for (int i = 0; i < 3; ++i) got.push_back(run(next(receiver)));
  CHECK(got == std::vector<int>{SIGHUP, SIGUSR1, SIGUSR2});
  CHECK(next_now(receiver) == 0);
  CHECK(::raise(SIGHUP) == 0);
  CHECK(run(next(receiver)) == SIGHUP);
}

TEST_CASE("every receiver of a loop that named a signal receives it") {
  loop l;
  signal_receiver first = *signal_receiver::open(SIGUSR1);
  signal_receiver second = *signal_receiver::open(SIGUSR1, SIGUSR2);
  signal_receiver other = *signal_receiver::open(SIGUSR2);
  outcome got_first;
  outcome got_second;
  first.receive().start(got_first.callback());
  second.receive().start(got_second.callback());
  auto waits = other.receive();
  outcome got_other;
  waits.start(got_other.callback());
  l.run_once(0s);
  CHECK(::raise(SIGUSR1) == 0);
  while (got_second.number == 0) l.run_once(1s);
  CHECK(got_first.number == SIGUSR1);
  CHECK(got_second.number == SIGUSR1);
  CHECK(got_other.number == 0);
  CHECK(::raise(SIGUSR2) == 0);
  l.run();
  CHECK(got_other.number == SIGUSR2);
  CHECK(run(next(second)) == SIGUSR2);
}

TEST_CASE("every loop with a receiver for a signal receives it") {
  loop outer;
  signal_receiver first = *signal_receiver::open(SIGUSR1);
  outcome got_first;
  first.receive().start(got_first.callback());
  {
    loop inner;
    signal_receiver second = *signal_receiver::open(SIGUSR1);
    CHECK(::raise(SIGUSR1) == 0);
    CHECK(run(next(second)) == SIGUSR1);
  }
  outer.run();
  CHECK(got_first.number == SIGUSR1);
}

TEST_CASE("a receiver ignores signals from before it was opened") {
  loop l;
  signal_receiver first = *signal_receiver::open(SIGUSR1);
  CHECK(::raise(SIGUSR1) == 0);
  signal_receiver second = *signal_receiver::open(SIGUSR1);
  CHECK(next_now(second) == 0);
  CHECK(next_now(first) == SIGUSR1);
}

TEST_CASE("the last receiver of a signal restores the earlier disposition") {
  loop l;
  CHECK(is_default(SIGUSR1));
  signal_receiver first = *signal_receiver::open(SIGUSR1);
  CHECK(!is_default(SIGUSR1));
  {
    const signal_receiver second = *signal_receiver::open(SIGUSR1, SIGUSR2);
    CHECK(!is_default(SIGUSR2));
  }
  CHECK(!is_default(SIGUSR1));
  CHECK(is_default(SIGUSR2));
  first.close();
  CHECK(is_default(SIGUSR1));
  first.close();

  CHECK((::signal(SIGUSR1, SIG_IGN) == SIG_DFL));
  first = *signal_receiver::open(SIGUSR1);
  CHECK(::raise(SIGUSR1) == 0);
  CHECK(run(next(first)) == SIGUSR1);
  first = {};
  CHECK((::signal(SIGUSR1, SIG_DFL) == SIG_IGN));
}

TEST_CASE("an open receiver without a pending receive does not keep run() running") {
  loop l;
  signal_receiver receiver = *signal_receiver::open(SIGUSR1);
  l.run();
  CHECK(::raise(SIGUSR1) == 0);
  l.run();
  CHECK(run(next(receiver)) == SIGUSR1);
}

TEST_CASE("a number that is not a signal, or cannot be caught, is invalid_argument") {
  loop l;
  for (const int number : {0, -1, 65, 1000, SIGKILL, SIGSTOP}) {
    CAPTURE(number);
    const auto r = signal_receiver::open(SIGUSR1, number);
    CHECK(r.error() == errc::invalid_argument);
    CHECK(r.error() == std::errc::invalid_argument);
    CHECK(is_default(SIGUSR1));
  }
}

TEST_CASE("a second receive is busy_resource, and the first continues") {
  loop l;
  signal_receiver receiver = *signal_receiver::open(SIGUSR1);
  outcome first;
  outcome second;
  receiver.receive().start(first.callback());
  receiver.receive().start(second.callback());
  l.run_once(0s);
  CHECK(second.code == errc::busy_resource);
  CHECK(run(as_result(next(receiver))).error() == errc::busy_resource);
  CHECK(::raise(SIGUSR1) == 0);
  l.run();
  CHECK(first.number == SIGUSR1);
}

TEST_CASE("closing ends a pending receive, and every later one, with closed_resource") {
  loop l;
  signal_receiver receiver = *signal_receiver::open(SIGUSR1);
  outcome got;
  receiver.receive().start(got.callback());
  l.run_once(0s);

  SUBCASE("without a signal") {}
  SUBCASE("with an arrived signal") { CHECK(::raise(SIGUSR1) == 0); }
  receiver.close();
  CHECK(!receiver);
  CHECK(got.code == errc::ok);
  l.run();
  CHECK(got.code == errc::closed_resource);
  CHECK(run(as_result(next(receiver))).error() == errc::closed_resource);
  CHECK(run(as_result(signal_receiver().receive())).error() == errc::closed_resource);
}

TEST_CASE("cancelling ends a pending receive with cancelled, and the receiver stays usable") {
  loop l;
  signal_receiver receiver = *signal_receiver::open(SIGUSR1);
  outcome got;
  auto op = receiver.receive();
  op.start(got.callback());
  l.run_once(0s);
  receiver.cancel();
  l.run();
  CHECK(got.code == errc::cancelled);
  op.start(got.callback());
  l.run_once(0s);
  CHECK(::raise(SIGUSR1) == 0);
  receiver.cancel();
  l.run();
  CHECK(got.number == SIGUSR1);
}

TEST_CASE("a destroyed receive loses no signal") {
  loop l;
  signal_receiver receiver = *signal_receiver::open(SIGUSR1);
  {
    auto op = receiver.receive();
    op.start([](result<int>) { CHECK(false); });
    l.run_once(0s);
    CHECK(::raise(SIGUSR1) == 0);
  }
  CHECK(run(next(receiver)) == SIGUSR1);
}

TEST_CASE("a receiver can be moved during a receive") {
  loop l;
  std::optional<signal_receiver> receiver = *signal_receiver::open(SIGUSR1);
  outcome got;
  receiver->receive().start(got.callback());
  l.run_once(0s);
  signal_receiver moved = std::move(*receiver);
  CHECK(!*receiver);
  receiver.reset();
  CHECK(::raise(SIGUSR1) == 0);
  l.run();
  CHECK(got.number == SIGUSR1);
  CHECK(moved);
}

TEST_CASE("a callback may close and destroy its receiver") {
  loop l;
  std::optional<signal_receiver> receiver = *signal_receiver::open(SIGUSR1);
  bool called = false;
  receiver->receive().start([&](result<int>) {
    called = true;
    receiver.reset();
  });
  CHECK(::raise(SIGUSR1) == 0);
  l.run();
  CHECK(called);
  CHECK(is_default(SIGUSR1));
}

TEST_CASE("a loop may end before its receivers, and the signal dispositions are then restored") {
  signal_receiver receiver;
  {
    loop l;
    receiver = *signal_receiver::open(SIGUSR1);
    receiver.receive().start([](result<int>) { CHECK(false); });
    l.run_once(0s);
  }
  CHECK(is_default(SIGUSR1));
  CHECK(!receiver);
  loop l;
  CHECK(run(as_result(receiver.receive())).error() == errc::closed_resource);
}
