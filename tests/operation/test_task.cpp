// Tasks: values, errors, cancelling, depth, and foreign coroutines.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include "support/dies.hpp"
#include "support/effort.hpp"

#include <coroutine>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using anyio::as_result;
using anyio::errc;
using anyio::result;
using anyio::run;
using anyio::task;

int alive = 0;
struct counted {
  counted() { ++alive; }
  counted(const counted&) { ++alive; }
  counted(counted&&) noexcept { ++alive; }
  counted& operator=(const counted&) = default;
  counted& operator=(counted&&) = default;
  ~counted() { --alive; }
};

task<> nothing() { co_return; }
task<int> one() { co_return 1; }
task<std::unique_ptr<int>> boxed(int n) {
  co_await anyio::sleep(0s);
  co_return std::make_unique<int>(n);
}
task<> failing(errc code) {
  co_await anyio::sleep(0s);
  co_await anyio::raise(anyio::error(code, 0, "test"));
}

struct no_default {
  explicit no_default(int n) : value(n) {}
  int value;
};

TEST_CASE("a task returns its value") {
  CHECK(run(one()) == 1);
  CHECK(*run(boxed(5)) == 5);
  CHECK(run([]() -> task<std::string> { co_return "text"; }) == "text");
  CHECK(run([]() -> task<no_default> { co_return no_default(3); }).value == 3);
  CHECK(run([]() -> task<std::pair<int, int>> { co_return {1, 2}; }).second == 2);
  CHECK(run([]() -> task<std::optional<int>> { co_return std::nullopt; }) == std::nullopt);
  run(nothing());
}

TEST_CASE("a task does not begin until it is used") {
  bool began = false;
  const auto body = [&]() -> task<> {
    began = true;
    co_return;
  };
  { const auto unused = body(); }
  CHECK(!began);
  anyio::loop l;
  auto t = body();
  t.start([](result<>) {});
  CHECK(!began);
  l.run();
  CHECK(began);
}

TEST_CASE("a named task can be awaited once") {
  run([]() -> task<> {
    auto t = one();
    CHECK(co_await t == 1);
    CHECK((co_await as_result(t)).error() == errc::invalid_argument);
    auto u = failing(errc::tls);
    CHECK((co_await as_result(u)).error() == errc::tls);
    CHECK((co_await as_result(u)).error() == errc::invalid_argument);
    task<int> none;
    CHECK((co_await as_result(none)).error() == errc::invalid_argument);
    CHECK(!none);
  });
}

TEST_CASE("a started task cannot be started again") {
  anyio::loop l;
  auto t = boxed(1);
  int value = 0;
  errc code = errc::ok;
  t.start([&value](result<std::unique_ptr<int>> r) { value = **r; });
  t.start([&code](result<std::unique_ptr<int>> r) { code = r.error().code(); });
  l.run();
  CHECK(value == 1);
  CHECK(code == errc::invalid_argument);
  t = boxed(2);
  t.start([&value](result<std::unique_ptr<int>> r) { value = **r; });
  l.run();
  CHECK(value == 2);
}

TEST_CASE("moving or starting a running task is rejected") {
  if (!support::asserts) return;
  anyio::loop l;
  auto t = boxed(1);
  t.start([](result<std::unique_ptr<int>>) {});
  CHECK(support::dies([&] { auto moved = std::move(t); }));
  t = {};
  std::optional<task<>> self;
  self.emplace([](std::optional<task<>>& own) -> task<> {
    CHECK(support::dies([&] { own.reset(); }));
    co_await anyio::sleep(0s);
    CHECK(support::dies([&] { own.reset(); }));
  }(self));
  self->start([](result<>) {});
  l.run();
}

TEST_CASE("a named task may be started, assigned and destroyed in its callback") {
  anyio::loop l;
  struct state {
    task<std::unique_ptr<int>> t;
    std::vector<int> seen;
    void go(int n) {
      t = boxed(n);
      t.start([this](result<std::unique_ptr<int>> r) {
        seen.push_back(**r);
        if (seen.size() < 3) return go(**r + 1);
        t = {};
      });
    }
  } s;
  s.go(1);
  l.run();
  CHECK(s.seen == std::vector{1, 2, 3});
}

TEST_CASE("errors pass through many levels, and end each task on the way") {
  const auto level = [](auto self, int n) -> task<int> {
    counted local;
    if (n == 0) co_await failing(errc::delimiter_not_found);
    co_return co_await self(self, n - 1);
  };
  const auto r = run(as_result(level(level, 50)));
  CHECK(r.error() == errc::delimiter_not_found);
  CHECK(r.error().operation() == "test");
  CHECK(alive == 0);
}

TEST_CASE("a task that raises ends at the co_await, and its temporaries are destroyed") {
  const auto add = [](counted, int a, counted, int b) { return a + b; };
  int after = 0;
  const auto body = [&]() -> task<int> {
    const int sum = add(counted(), co_await one(), counted(), (co_await failing(errc::tls), 1));
    ++after;
    co_return sum;
  };
  CHECK(run(as_result(body())).error() == errc::tls);
  CHECK(after == 0);
  CHECK(alive == 0);
}

TEST_CASE("a result can be awaited") {
  CHECK(run([]() -> task<int> { co_return co_await result<int>(4); }) == 4);
  CHECK(*run([]() -> task<std::unique_ptr<int>> {
    result<std::unique_ptr<int>> r = std::make_unique<int>(6);
    co_return co_await std::move(r);
  }) == 6);
  const auto r = run(as_result([]() -> task<> { co_await result<>(errc::tls); }()));
  CHECK(r.error() == errc::tls);
}

#if defined(__cpp_exceptions)
TEST_CASE("an error is thrown as its own exception type, and can be caught") {
  const auto seen = run([]() -> task<int> {
    try {
      co_await failing(errc::timed_out);
    } catch (const anyio::timed_out& e) {
      CHECK(e.error() == errc::timed_out);
      CHECK(std::string(e.what()) == "test: timed out");
      co_return 1;
    }
    co_return 0;
  });
  CHECK(seen == 1);
  CHECK_THROWS_AS(run(failing(errc::end_of_stream)), anyio::end_of_stream);
}

TEST_CASE("an anyio exception that escapes a task becomes its error") {
  const auto r = run(as_result([]() -> task<> {
    if (alive == 0) throw anyio::tls_error(anyio::error(errc::tls, 0, "mine"));
    co_return;
  }()));
  CHECK(r.error() == errc::tls);
}

task<int> throwing() {
  co_await anyio::sleep(0s);
  throw std::domain_error("foreign");
}

TEST_CASE("a foreign exception passes through tasks and as_result unchanged") {
  CHECK_THROWS_AS(run(throwing()), std::domain_error);
  CHECK_THROWS_AS(static_cast<void>(run(as_result(throwing()))), std::domain_error);
  const auto level = [](auto self, int n) -> task<int> {
    counted local;
    if (n == 0) co_return co_await throwing();
    auto r = co_await as_result(self(self, n - 1));
    co_return 0;
  };
  CHECK_THROWS_AS(run(level(level, 20)), std::domain_error);
  CHECK_THROWS_AS(static_cast<void>(run(as_result(anyio::fail_after(1h, as_result(level(level, 3)))))),
                  std::domain_error);
  CHECK(alive == 0);
}

TEST_CASE("a foreign exception leaves run() from a started task, and the loop stays usable") {
  anyio::loop l;
  int calls = 0;
  bool other = false;
  throwing().start([&](result<int>) { ++calls; });
  auto named = throwing();
  named.start([&calls](result<int>) { ++calls; });
  anyio::sleep(1ms).start([&](result<>) { other = true; });
  CHECK_THROWS_AS(l.run(), std::domain_error);
  CHECK_THROWS_AS(l.run(), std::domain_error);
  l.run();
  CHECK(calls == 0);
  CHECK(other);
  CHECK(run(one()) == 1);
}

TEST_CASE("a caller's own operation is cancelled when an exception leaves run(x)") {
  anyio::loop l;
  anyio::sleep_operation op = anyio::sleep(1ms);
  auto t = boxed(1);
  l.post([] { throw std::domain_error("foreign"); });
  CHECK_THROWS_AS(run(op), std::domain_error);
  l.post([] { throw std::domain_error("foreign"); });
  CHECK_THROWS_AS(run(t), std::domain_error);
  l.run();
  run(op);
}
#endif

TEST_CASE("deep recursion works") {
  const auto deep = [](auto self, int n) -> task<int> {
    if (n == 0) {
      co_await anyio::sleep(0s);
      co_return 0;
    }
    co_return 1 + co_await self(self, n - 1);
  };
  CHECK(run(deep(deep, 100'000)) == 100'000);
}

TEST_CASE("an error can come from deep recursion") {
  const int depth = support::one_in() == 1 ? 100'000 : 25'000;
  const auto deep = [](auto self, int n) -> task<int> {
    counted local;
    if (n == 0) co_await failing(errc::tls);
    co_return 1 + co_await self(self, n - 1);
  };
  CHECK(run(as_result(deep(deep, depth))).error() == errc::tls);
  CHECK(alive == 0);
}

TEST_CASE("a deep chain of tasks can be cancelled, innermost first") {
  anyio::loop l;
  std::vector<int> order;
  struct noted {
    std::vector<int>& order;
    int n;
    ~noted() {
      if (n < 3 || n > 99'997) order.push_back(n);
    }
  };
  bool waits = false;
  const auto deep = [&](auto self, int n) -> task<> {
    noted local{order, n};
    waits = n == 0;
    if (waits) co_await anyio::sleep(1h);
    co_await self(self, n - 1);
  };
  auto t = deep(deep, 100'000);
  t.start([](result<>) {});
  while (!waits) l.run_once(0s);
  t = {};
  CHECK(order == std::vector{0, 1, 2, 99'998, 99'999, 100'000});
}

TEST_CASE("a million awaits that complete at once do not grow the stack") {
  const int rounds = support::some_of(500'000);
  const int sum = run([](int rounds) -> task<int> {
    int n = 0;
    for (int i = 0; i < rounds; ++i) {
      co_await nothing();
      n += co_await one();
    }
    co_return n;
  }(rounds));
  CHECK(sum == rounds);
}

TEST_CASE("a task that never waits does not starve others") {
  anyio::loop l;
  bool others = false;
  anyio::task_group g;
  g.start_soon([&]() -> task<> {
    while (!others) co_await nothing();
  });
  g.start_soon([&] { others = true; });
  run(g.join());
  CHECK(others);
}

// A tree of tasks with all kinds of waits, destroyed at each of its suspensions.

task<int> leaf(anyio::event& e, int n) {
  counted local;
  co_await anyio::sleep(0s);
  if (n % 2 == 0) co_await e.wait();
  co_await nothing();
  if (n == 3) co_await anyio::raise(errc::incomplete_read);
  co_return n;
}
task<int> branch(anyio::event& e, anyio::channel<std::string>& c, anyio::semaphore& s, counted) {
  counted local;
  const auto p = co_await s.acquire();
  auto [a, b] = co_await anyio::when_all(leaf(e, 1), leaf(e, 2));
  auto r = co_await as_result(anyio::fail_after(1h, leaf(e, 3)));
  CHECK(r.error() == errc::incomplete_read);
  co_await c.send("a string that is too long to lie in its object");
  auto v = co_await anyio::when_any(anyio::sleep(1h), [&]() -> task<int> { co_return co_await leaf(e, 5); });
  co_return a + b + std::get<1>(v);
}
task<int> tree(counted) {
  anyio::event e;
  anyio::channel<std::string> c(0);
  anyio::semaphore s(1);
  counted local;
  anyio::task_group g;
  int sum = 0;
  for (int i = 0; i < 2; ++i) {
    g.start_soon(
        [&](counted p) -> task<> {
          counted inner;
          sum += co_await branch(e, c, s, p);
        },
        counted());
  }
  g.start_soon([&]() -> task<> {
    co_await anyio::sleep(1ms);
    e.set();
  });
  const auto first = co_await c.receive();
  const auto second = co_await anyio::move_on_after(1h, c.receive());
  co_await g.join();
  co_return sum + static_cast<int>(first.size() == second->size());
}

TEST_CASE("a tree of tasks can be destroyed at any of its suspensions") {
  int finished = 0;
  for (int steps = 0; finished == 0; ++steps) {
    anyio::loop l;
    bool done = false;
    {
      auto t = tree(counted());
      t.start([&done](result<int> r) {
        CHECK(*r == 17);
        done = true;
      });
      for (int i = 0; i < steps && !done; ++i) anyio::detail::loop_core::current().step();
    }
    finished += done;
    CHECK(alive == 0);
    if (!done) l.run();  // nothing pending is left
  }
}

// A foreign coroutine: eager, and resumed by the owner of its handle.

struct foreign {
  struct promise_type {
    std::exception_ptr thrown;
    foreign get_return_object() { return foreign{std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_always final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() noexcept { thrown = std::current_exception(); }
  };
  explicit foreign(std::coroutine_handle<promise_type> h) : handle(h) {}
  foreign(foreign&& other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
  ~foreign() {
    if (handle) handle.destroy();
  }
  std::coroutine_handle<promise_type> handle;
};

/// A foreign awaitable: a gate that is opened by resuming the handle.
struct gate {
  std::coroutine_handle<> waiting;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) noexcept { waiting = h; }
  int await_resume() const noexcept { return 9; }
};

TEST_CASE("a coroutine of another type can await operations and tasks") {
  anyio::loop l;
  std::vector<int> got;
  const auto body = [&]() -> foreign {
    auto s = co_await as_result(anyio::sleep(1ms));
    got.push_back(s.has_value());
    auto r = co_await as_result(one());
    got.push_back(*r);
    auto f = co_await as_result(failing(errc::tls));
    got.push_back(f.error() == errc::tls);
    auto c = co_await as_result(anyio::fail_after(1h, one()));
    got.push_back(*c);
#if defined(__cpp_exceptions)
    got.push_back(co_await one());
    try {
      co_await failing(errc::tls);
    } catch (const anyio::tls_error&) {
      got.push_back(1);
    }
    try {
      co_await throwing();
    } catch (const std::domain_error&) {
      got.push_back(1);
    }
#else
    got.insert(got.end(), 3, 1);
#endif
  };
  const foreign f = body();
  CHECK(got.empty());
  l.run();
  CHECK(got == std::vector(7, 1));
  CHECK(f.handle.done());
}

TEST_CASE("a coroutine of another type may be destroyed while it waits") {
  anyio::loop l;
  {
    const auto f = []() -> foreign {
      counted local;
      auto r = co_await as_result([]() -> task<> {
        counted inner;
        co_await anyio::sleep(1h);
      }());
    }();
    l.run_once(0s);
    CHECK(alive == 2);
  }
  CHECK(alive == 0);
  l.run();
}

TEST_CASE("a task can await a foreign awaitable that resumes it later by its handle") {
  anyio::loop l;
  gate first;
  gate second;
  std::vector<int> got;
  const auto inner = [&]() -> task<int> {
    const int a = co_await first;
    const int b = co_await one();
    co_await anyio::sleep(0s);
    const int c = co_await second;
    co_return a + b + c;
  };
  const auto outer = [&]() -> task<> {
    got.push_back(co_await inner());
    auto r = co_await as_result(failing(errc::tls));
    got.push_back(r.error() == errc::tls);
  };
  auto t = outer();
  t.start([&got](result<> r) { got.push_back(r.has_value()); });
  l.run_once(0s);
  CHECK(first.waiting);
  l.post([&] { first.waiting.resume(); });
  while (!second.waiting) l.run_once(1h);
  second.waiting.resume();  // from outside the loop
  l.run();
  CHECK(got == std::vector{19, 1, 1});
}

TEST_CASE("an error after a foreign awaitable resumed the task ends the task") {
  anyio::loop l;
  gate g;
  errc code = errc::ok;
  [](gate* door) -> task<> {
    counted local;
    co_await *door;
    co_await failing(errc::tls);
  }(&g)
                        .start([&](result<> r) { code = r.error().code(); });
  l.run_once(0s);
  g.waiting.resume();
  l.run();
  CHECK(code == errc::tls);
  code = errc::ok;
  [](gate* door) -> task<> {
    counted local;
    co_await *door;
    co_await anyio::raise(errc::busy_resource);
  }(&g)
                        .start([&](result<> r) { code = r.error().code(); });
  l.run_once(0s);
  g.waiting.resume();
  CHECK(code == errc::busy_resource);
  CHECK(alive == 0);
}

struct inline_resume {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) const { h.resume(); }
  void await_resume() const noexcept {}
};
struct transfer {
  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> h) const noexcept { return h; }
  void await_resume() const noexcept {}
};
struct wrapped_ready {
  auto operator co_await() const noexcept { return std::suspend_never(); }
};

TEST_CASE("foreign awaitables may resume at once") {
  const int n = run([]() -> task<int> {
    counted local;
    int sum = 0;
    for (int i = 0; i < 10; ++i) {
      co_await inline_resume();
      sum += co_await one();
      co_await transfer();
      co_await wrapped_ready();
      co_await anyio::sleep(0s);
      co_await inline_resume();
      auto r = co_await as_result(failing(errc::tls));
      sum += r.error() == errc::tls;
    }
    co_return sum;
  });
  CHECK(n == 20);
  CHECK(alive == 0);
}

TEST_CASE("if a child resumed by another library cancels its group, it ends at its next wait") {
  anyio::loop l;
  gate door;
  bool went_on = false;
  bool waited = false;
  anyio::task_group g;
  g.start_soon([&]() -> task<> {
    counted local;
    co_await door;
    g.cancel();
    went_on = true;
    co_await anyio::sleep(0s);
    waited = true;
  });
  g.start_soon([]() -> task<> {
    counted local;
    co_await anyio::sleep(1h);
  });
  l.run_once(0s);
  CHECK(alive == 2);
  door.waiting.resume();
  CHECK(alive == 1);
  run(g.join());
  CHECK(went_on);
  CHECK(!waited);
  CHECK(alive == 0);
}

}  // namespace
