// Calls on helper threads.
#include "anyio_net.hpp"

#if !defined(ANYIO_NET_NO_THREADS)

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/custom_backend.hpp"
#include "support/emulator.hpp"
#include "support/gate.hpp"
#include "support/leftovers.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ANYIO_NET_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ANYIO_NET_TEST_SANITIZED 1
#endif
#endif
#ifndef ANYIO_NET_TEST_SANITIZED
#define ANYIO_NET_TEST_SANITIZED 0
#endif

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using support::gate;

constexpr std::size_t most_helpers = 16;

/// Arrives at a gate when it is destroyed.
struct farewell {
  std::shared_ptr<gate> at;
  explicit farewell(std::shared_ptr<gate> g) : at(std::move(g)) {}
  farewell(farewell&&) = default;
  ~farewell() {
    if (at) at->arrive();
  }
};

/// Keeps all helpers busy until it is released.
class busy_helpers {
 public:
  explicit busy_helpers(loop& l) : loop_(l) {
    for (std::size_t i = 0; i < most_helpers; ++i) {
      to_thread::run_sync([at = gate_] { at->pass(); }).start([this](result<> r) {
        finished_ += r.has_value();
      });
    }
    loop_.run_once(0s);
    gate_->wait_for(most_helpers);
  }
  void release() {
    gate_->open();
    while (finished_ < most_helpers) loop_.run_once(1s);
  }

 private:
  loop& loop_;
  std::shared_ptr<gate> gate_ = std::make_shared<gate>();
  std::size_t finished_ = 0;
};

task<int> twice(int n) {
  co_return co_await to_thread::run_sync([n] { return 2 * n; });
}

}  // namespace

TEST_CASE("a call on a helper thread returns its value to a coroutine") { CHECK(run(twice(21)) == 42); }

TEST_CASE("a call on a helper thread passes its value to a callback of a named operation") {
  loop l;
  auto op = to_thread::run_sync([] { return 42; });
  int value = 0;
  op.start([&value](result<int> r) { value = r.value_or(-1); });
  CHECK(value == 0);
  l.run();
  CHECK(value == 42);
}

TEST_CASE("a call on a helper thread passes its value to a callback of a temporary operation") {
  loop l;
  std::string value;
  to_thread::run_sync([] {
    return std::string("forty-two");
  }).start([&value, big = std::array<char, 100>()](auto r) {
    static_cast<void>(big);
    if (r) value = *std::move(r);
  });
  l.run();
  CHECK(value == "forty-two");
}

TEST_CASE("a call runs on another thread, and its result is delivered on the loop's thread") {
  loop l;
  const auto here = std::this_thread::get_id();
  std::thread::id there;
  std::thread::id at_the_end;
  to_thread::run_sync([] { return std::this_thread::get_id(); }).start([&](result<std::thread::id> r) {
    there = r.value_or(here);
    at_the_end = std::this_thread::get_id();
  });
  l.run();
  CHECK(there != here);
  CHECK(at_the_end == here);
}

TEST_CASE("the callable and its value need no copy and no default constructor") {
  struct value {
    std::unique_ptr<int> held;
    explicit value(int n) : held(std::make_unique<int>(n)) {}
  };
  const value v = run(to_thread::run_sync([p = std::make_unique<int>(7)] { return value(*p + 1); }));
  CHECK(*v.held == 8);
}

TEST_CASE("a callable may return void, and may be callable only once") {
  bool called = false;
  run(to_thread::run_sync([&called] { called = true; }));
  CHECK(called);

  struct once {
    std::unique_ptr<int> p = std::make_unique<int>(5);
    std::unique_ptr<int> operator()() && { return std::move(p); }
  };
  CHECK(*run(to_thread::run_sync(once())) == 5);
}

#if defined(__cpp_exceptions)

TEST_CASE("a foreign exception of a call is raised unchanged in the awaiting task") {
  struct own {
    int number;
  };
  auto caught = []() -> task<int> {
    try {
      co_await to_thread::run_sync([] { throw own{7}; });
    } catch (const own& e) {
      co_return e.number;
    }
    co_return 0;
  };
  CHECK(run(caught()) == 7);
  CHECK_THROWS_AS(
      static_cast<void>(run(as_result(to_thread::run_sync([] { throw std::out_of_range("far"); })))),
      std::out_of_range);
}

TEST_CASE("with a callback, a foreign exception of a call leaves run(), and the loop stays usable") {
  loop l;
  bool called = false;
  to_thread::run_sync([] { throw std::out_of_range("far"); }).start([&called](result<>) { called = true; });
  CHECK_THROWS_WITH_AS(l.run(), "far", std::out_of_range);
  CHECK(!called);
  CHECK(run(twice(2)) == 4);
}

TEST_CASE("an exception of the library thrown in a call becomes its error") {
  const auto r = run(as_result(to_thread::run_sync(
      []() -> int { throw broken_resource(error(errc::broken_resource, 104, "something")); })));
  CHECK(r.error() == error(errc::broken_resource, 104, "something"));
}

#endif

TEST_CASE("the loop runs while a call blocks") {
  gate g;
  auto both = [&g]() -> task<std::string> {
    std::string order;
    task_group group;
    group.start_soon([&]() -> task<> {
      co_await to_thread::run_sync([&g] { g.pass(); });
      order += "call ";
    });
    co_await sleep(1ms);
    order += "sleep ";
    g.open();
    co_await group.join();
    co_return order;
  };
  CHECK(run(both()) == "sleep call ");
}

TEST_CASE("at most 16 calls run at a time, the others are queued") {
  loop l;
  gate g;
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  std::size_t finished = 0;
  for (std::size_t i = 0; i < most_helpers + 4; ++i) {
    to_thread::run_sync([&] {
      const int now = ++inside;
      int before = most.load();
      while (before < now && !most.compare_exchange_weak(before, now)) continue;
      g.pass();
      --inside;
    }).start([&](result<> r) { finished += r.has_value(); });
  }
  l.run_once(0s);
  g.wait_for(most_helpers);
  CHECK(g.arrived() == most_helpers);
  CHECK(finished == 0);
  g.open();
  l.run();
  CHECK(finished == most_helpers + 4);
  CHECK(g.arrived() == most_helpers + 4);
  CHECK(most.load() == most_helpers);
}

TEST_CASE("a queued call is dropped when its operation is destroyed") {
  loop l;
  busy_helpers busy(l);
  std::atomic<bool> called{false};
  const auto gone = std::make_shared<gate>();
  {
    auto op = to_thread::run_sync([&called, f = farewell(gone)] { called = true; });
    op.start([](result<>) { CHECK(false); });
    l.run_once(0s);
    CHECK(gone->arrived() == 0);
  }
  CHECK(gone->arrived() == 1);
  busy.release();
  l.run();
  CHECK(!called);
}

TEST_CASE("a running call is abandoned when its operation is destroyed") {
  loop l;
  gate g;
  const auto gone = std::make_shared<gate>();
  {
    auto op = to_thread::run_sync([&g, f = farewell(gone)] { g.pass(); });
    op.start([](result<>) { CHECK(false); });
    l.run_once(0s);
    g.wait_for(1);
  }
  l.run();  // nothing is pending
  CHECK(gone->arrived() == 0);
  g.open();
  while (gone->arrived() == 0) l.run_once(1s);  // on this thread, since the loop lives
}

TEST_CASE("assigning to the operation abandons its call, and it can be used again") {
  loop l;
  gate g;
  const auto gone = std::make_shared<gate>();
  auto make = [&g, &gone](bool blocks) {
    return to_thread::run_sync([&g, blocks, f = farewell(gone)] {
      if (blocks) g.pass();
      return blocks;
    });
  };
  auto op = make(true);
  op.start([](result<bool>) { CHECK(false); });
  l.run_once(0s);
  g.wait_for(1);
  op = {};
  op = make(false);
  std::optional<bool> value;
  op.start([&value](result<bool> r) { value = *r; });
  while (!value) l.run_once(1s);
  CHECK(value == false);
  g.open();
  while (gone->arrived() == 0) l.run_once(1s);
}

TEST_CASE("a call continues after its loop has ended, and its callable is destroyed on the helper thread") {
  gate g;
  const auto gone = std::make_shared<gate>();
  {
    loop l;
    to_thread::run_sync([&g, f = farewell(gone)] { g.pass(); }).start([](result<>) { CHECK(false); });
    l.run_once(0s);
    g.wait_for(1);
  }
  CHECK(gone->arrived() == 0);
  g.open();
  gone->wait_for(1);
}

TEST_CASE("an operation may outlive the loop that its call was made for") {
  gate g;
  const auto gone = std::make_shared<gate>();
  auto call = [&g, f = farewell(gone)] { g.pass(); };
  auto op = to_thread::run_sync(std::move(call));
  {
    loop l;
    op.start([](result<>) { CHECK(false); });
    l.run_once(0s);
    g.wait_for(1);
  }
  g.open();
  gone->wait_for(1);
}

TEST_CASE("a result that the loop did not deliver before its end is dropped") {
  const auto gone = std::make_shared<gate>();
  gate g;
  {
    loop l;
    to_thread::run_sync([&g, f = farewell(gone)] { g.pass(); }).start([](result<>) { CHECK(false); });
    l.run_once(0s);
    g.wait_for(1);
    g.open();
    pollfd entry{l.native_handle(), POLLIN, 0};
    CHECK(::poll(&entry, 1, -1) == 1);
    CHECK(gone->arrived() == 0);
  }
  CHECK(gone->arrived() == 1);
}

TEST_CASE("a call that takes too long raises timed_out") {
  loop l;
  const auto g = std::make_shared<gate>();
  const auto gone = std::make_shared<gate>();
  const auto r = run(as_result(fail_after(1ms, to_thread::run_sync([g, f = farewell(gone)] { g->pass(); }))));
  CHECK(r.error() == errc::timed_out);
  g->open();
  while (gone->arrived() == 0) l.run_once(1s);
}

TEST_CASE("with a limit of 0 a call is not waited for") {
  loop l;
  const auto g = std::make_shared<gate>();
  CHECK(run(move_on_after(0s, to_thread::run_sync([g] { g->pass(); }))) == false);
  g->open();
  l.run();
}

TEST_CASE("a completed operation can be started again, from its own callback too") {
  loop l;
  int calls = 0;
  auto op = to_thread::run_sync([&calls] { return ++calls; });
  struct again {
    decltype(op)* what;
    int* last;
    void operator()(result<int> r) const {
      *last = r.value_or(-1);
      if (*last < 3) what->start(*this);
    }
  };
  int last = 0;
  op.start(again{&op, &last});
  l.run();
  CHECK(last == 3);
  CHECK(calls == 3);
}

TEST_CASE("a default-constructed operation is invalid_argument") {
  decltype(to_thread::run_sync([] {})) op;
  CHECK(run(as_result(op)).error() == errc::invalid_argument);
}

TEST_CASE("a callback may destroy its operation") {
  loop l;
  struct session {
    decltype(to_thread::run_sync(std::declval<int (*)()>())) op;
    int* value;
  };
  int value = 0;
  auto* s = new session{to_thread::run_sync(+[] { return 3; }), &value};
  s->op.start([s](result<int> r) {
    *s->value = *r;
    delete s;
  });
  l.run();
  CHECK(value == 3);
}

TEST_CASE("loops on several threads share the helpers") {
  constexpr int loops = 4;
  constexpr int calls = 100;
  std::array<int, loops> sums{};
  std::vector<std::thread> threads;
  for (int& sum : sums) {
    threads.emplace_back([&sum] {
      auto add_up = []() -> task<int> {
        int total = 0;
        task_group group;
        for (int i = 0; i < calls; ++i) {
          group.start_soon([&total](int n) -> task<> { total += co_await twice(n); }, i);
        }
        co_await group.join();
        co_return total;
      };
      sum = run(add_up());
    });
  }
  for (std::thread& t : threads) t.join();
  for (const int sum : sums) CHECK(sum == calls * (calls - 1));
}

TEST_CASE("calls cancelled at any moment leak nothing") {
  const auto gone = std::make_shared<gate>();
  constexpr std::size_t calls = 300;
  {
    loop l;
    auto give_up = [&gone]() -> task<> {
      for (std::size_t i = 0; i < calls; ++i) {
        auto op = to_thread::run_sync([f = farewell(gone)] { std::this_thread::yield(); });
        op.start([](result<>) {});
        for (std::size_t turns = i % 4; turns != 0; --turns) co_await sleep(0s);
      }
    };
    run(give_up());
  }
  gone->wait_for(calls);
}

TEST_CASE("if the backend wants no threads, the loop makes the call itself") {
  class threadless : public support::custom_backend {
    bool uses_threads() const override { return false; }
  };
  loop l(std::make_unique<threadless>());
  const auto here = std::this_thread::get_id();
  std::thread::id there;
  to_thread::run_sync([] { return std::this_thread::get_id(); }).start([&](result<std::thread::id> r) {
    there = *r;
  });
  CHECK(there == std::thread::id());
  l.run();
  CHECK(there == here);
  CHECK(run(twice(4)) == 8);
#if defined(__cpp_exceptions)
  CHECK_THROWS_AS(run(to_thread::run_sync([] { throw std::out_of_range("far"); })), std::out_of_range);
#endif
}

TEST_CASE("the process exits while an abandoned call blocks (the child)" * doctest::skip()) {
  support::threads_may_remain = true;
  const auto g = std::make_shared<gate>();
  {
    loop l;
    to_thread::run_sync([g] { g->pass(); }).start([](result<>) {});
    l.run_once(0s);
    g->wait_for(1);
  }
  std::exit(0);
}

#if defined(__linux__)

namespace {

/// Runs one of the cases above in its own process, after some shell commands.
int run_alone(const char* first, const char* name) {
  char self[4096];
  const auto size = ::readlink("/proc/self/exe", self, sizeof self);
  CHECK(size > 0);
  std::string program(self, size > 0 ? static_cast<std::size_t>(size) : 0);
  if (support::emulated_program() != nullptr) program = support::emulated_program();
  std::string command(first);
  command.append(" exec '").append(program);
  command.append("' --no-skip --test-case='*").append(name).append("' > /dev/null");
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("the process can exit while an abandoned call blocks") {
  CHECK(run_alone("", "an abandoned call blocks (the child)") == 0);
}

// The sanitizers need more memory than the limit allows; without exceptions std::thread cannot report an
// error.
#if !ANYIO_NET_TEST_SANITIZED && defined(__cpp_exceptions)

TEST_CASE("without memory for a thread a call fails (the child)" * doctest::skip()) {
  const error e = run(as_result(twice(1))).error();
  const error f = run(as_result(to_thread::run_sync([] {}))).error();
  const bool refused = e == errc::os_error && e == std::errc::resource_unavailable_try_again &&
                       e.operation() == "run_sync" && f == e;
  std::exit(refused ? 0 : 1);
}

TEST_CASE("a call for which no thread can be started fails with os_error and EAGAIN") {
  if (support::emulator_has(support::emulator_fault::memory_limits)) return;
  const int status =
      run_alone("ulimit -s 4000000 && ulimit -v 3000000 || exit 77;", "a call fails (the child)");
  if (status == 77) {
    MESSAGE("the shell may not set the limits");
  } else {
    CHECK(status == 0);
  }
}

#endif
#endif

#endif
