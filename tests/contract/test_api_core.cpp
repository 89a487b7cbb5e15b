// All of sections 1, 2, 4 and 5 of the interface, as a program would use it.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

using namespace anyio;
using namespace std::chrono_literals;

namespace {

static_assert(std::is_same_v<anyio::duration, std::chrono::nanoseconds>);
static_assert(std::is_same_v<anyio::time_point, std::chrono::steady_clock::time_point>);
static_assert(std::is_trivially_copyable_v<error>);
static_assert(std::is_same_v<task<>, task<void>>);
static_assert(std::is_same_v<result<>, result<void>>);
static_assert(std::is_copy_constructible_v<loop_handle>);
static_assert(!std::is_move_constructible_v<event> && !std::is_move_constructible_v<semaphore>);
static_assert(!std::is_move_constructible_v<channel<int>> && !std::is_move_constructible_v<task_group>);
static_assert(std::is_move_constructible_v<permit> && !std::is_copy_constructible_v<permit>);
static_assert(std::is_move_constructible_v<task<int>> && !std::is_copy_constructible_v<task<int>>);
static_assert(std::is_default_constructible_v<sleep_operation> &&
              std::is_default_constructible_v<event_operation>);
static_assert(std::is_default_constructible_v<timeout_operation<sleep_operation>>);
static_assert(std::is_same_v<decltype(sleep(1s)), sleep_operation>);
static_assert(std::is_same_v<decltype(std::declval<event&>().wait()), event_operation>);
static_assert(std::is_same_v<decltype(fail_after(1s, sleep(1s))), timeout_operation<sleep_operation>>);
static_assert(std::is_convertible_v<errc, error>);

/// A session in callback style: named operations, no heap.
struct session {
  event& e;
  sleep_operation pause;
  event_operation wait;
  timeout_operation<event_operation> limited;
  decltype(std::declval<channel<int>&>().receive()) receive;
  decltype(std::declval<channel<int>&>().receive_many(1)) receive_many;
  decltype(std::declval<anyio::result_group<int>&>().next()) next;
  decltype(when_any(std::declval<event_operation>(), std::declval<sleep_operation>())) any;
  std::string seen;

  explicit session(event& ev) : e(ev) {}
  void start() {
    pause = sleep(0s);
    pause.start([this](auto r) {
      seen += r ? "p" : "?";
      wait = e.wait();
      wait.start([this](result<> w) {
        seen += w ? "w" : "?";
        limited = fail_after(1ms, event_operation());
        limited.start([this](result<> x) { seen += x.error() == errc::invalid_argument ? "i" : "?"; });
        any = when_any(e.wait(), sleep(1h));
        any.start([this](auto v) { seen += v->index() == 0 ? "a" : "?"; });
      });
    });
  }
};

TEST_CASE("callbacks, named and temporary") {
  loop l;
  event e;
  session s(e);
  s.start();
  e.set();
  l.run();
  CHECK((s.seen == "pwia" || s.seen == "pwai"));
  int calls = 0;
  sleep(1ms).start([&](result<void> r) { calls += r.has_value(); });
  sleep_until(now() + 1ms).start([&](result<> r) { calls += bool(r); });
  e.wait().start([&, big = std::vector<int>(10)](auto r) { calls += r.has_value(); });
  []() -> task<int> { co_return 5; }().start([&](result<int> r) { calls += *r; });
  as_result([]() -> task<int> { co_return 5; }()).start([&](result<int> r) { calls += *r; });
  as_result(sleep(0s)).start([&](result<> r) { calls += r.has_value(); });
  raise(errc::tls).start([&](result<> r) { calls += r.error() == errc::tls; });
  semaphore sem(1);
  sem.acquire().start([&](result<permit> p) { calls += p.has_value(); });
  channel<std::string> c(1);
  c.send("text").start([&](result<> r) { calls += r.has_value(); });
  c.receive().start([&](result<std::string> r) { calls += r->size() == 4; });
  task_group g;
  g.start_soon(sleep(0s));
  g.join().start([&](result<> r) { calls += r.has_value(); });
  fail_after(1s, sleep(0s)).start([&](result<> r) { calls += r.has_value(); });
  fail_at(now() + 1s, [] { return []() -> task<int> { co_return 1; }(); }).start([&](result<int> r) {
    calls += *r;
  });
  move_on_after(1s, sleep(0s)).start([&](result<bool> r) { calls += *r; });
  move_on_at(now() + 1s, [] {
    return []() -> task<int> { co_return 1; }();
  }).start([&](result<std::optional<int>> r) { calls += **r; });
  when_all(sleep(0s), e.wait()).start([&](result<std::tuple<std::monostate, std::monostate>> r) {
    calls += r.has_value();
  });
  when_all(std::vector<task<int>>()).start([&](result<std::vector<int>> r) { calls += r->empty(); });
  when_any(sleep(0s), e.wait()).start([&](result<std::variant<std::monostate, std::monostate>> r) {
    calls += r->index() == 0;
  });
  CHECK(calls == 0);
  l.run();
  CHECK(calls == 3 + 10 + 13);
}

task<int> everything() {
  co_await sleep(1ms);
  co_await sleep(0.5ms);
  co_await sleep(std::chrono::duration<float>(0.001F));
  co_await sleep_until(now());
  sleep_operation named = sleep(0s);
  co_await named;
  result<> slept = co_await as_result(named);
  event e;
  e.set();
  CHECK(e.is_set());
  co_await e.wait();
  e.clear();
  semaphore sem(2);
  permit p = co_await sem.acquire();
  std::optional<permit> q = sem.try_acquire();
  CHECK((p && q && !sem.try_acquire()));
  channel<int> c(2);
  co_await c.send(1);
  CHECK(c.try_send(2));
  CHECK(co_await c.receive() == 1);
  CHECK(c.try_receive() == 2);
  c.close();
  CHECK((co_await as_result(c.receive())).error() == errc::end_of_stream);
  task_group g;
  int n = 0;
  g.start_soon(sleep(0s));
  g.start_soon(
      [&](int by) -> task<> {
        n += by;
        co_return;
      },
      2);
  g.start_soon([](int& m) { ++m; }, std::ref(n));
  co_await g.join();
  g.start_soon([]() -> task<> { co_await sleep(1h); }());
  g.cancel();
  co_await g.join();
  const auto one = []() -> task<int> { co_return 1; };
  n += co_await fail_after(1s, one());
  n += co_await fail_at(now() + 1s, one);
  n += (co_await move_on_after(1.5s, one())).value_or(0);
  n += co_await move_on_at(now() + 1ms, sleep(1h)) ? 1 : 0;
  auto [x, y] = co_await when_all(one(), sleep(0s));
  static_assert(std::is_same_v<decltype(y), std::monostate>);
  std::vector<task<int>> many;
  many.push_back(one());
  many.push_back(one());
  for (const int each : co_await when_all(std::move(many))) n += each;
  auto v = co_await when_any(sleep(1h), one());
  n += x + std::get<1>(v);
  auto failed = co_await as_result(fail_after(0s, e.wait()));
  CHECK(failed.error() == errc::timed_out);
  const result<int> r = 1;
  n += co_await r;
  n += co_await result<int>(1);
  CHECK(slept);
  co_return n;
}

TEST_CASE("coroutines") {
  CHECK(run(everything()) == 12);
  loop l;
  CHECK(run([] { return everything(); }) == 12);
  CHECK(run(as_result(everything())).value() == 12);
  run(sleep(0s));
  run([]() -> task<> { co_await sleep(0s); });
  CHECK(run(as_result([]() -> task<> { co_await raise(error(errc::os_error, 2, "open")); }())).error() ==
        std::errc::no_such_file_or_directory);
}

TEST_CASE("the loop") {
  loop l{system_backend()};
  CHECK(&loop::current() == &l);
  l.reserve(10, 10);
  int n = 0;
  l.post([&] { ++n; });
  loop_handle h = l.handle();
  const loop_handle copy = h;
  CHECK(copy.post([&, p = std::make_unique<int>(1)] { n += *p; }));
  CHECK(l.run_once(1s));
  l.run();
  CHECK(n == 2);
  const loop& constant = l;
  CHECK(constant.native_handle() >= 0);
  const anyio::duration next = constant.time_until_next();
  CHECK(next == anyio::duration::max());
  CHECK(constant.dump().empty());
  l.stop();
  l.run();
}

TEST_CASE("errors and results") {
  error e(errc::broken_resource, 104, "receive");
  CHECK(e.code() == errc::broken_resource);
  CHECK(e.os_error() == 104);
  const std::string_view operation = e.operation();
  CHECK(operation == "receive");
  const std::string message = e.message();
  CHECK(!message.empty());
  const std::error_code code = make_error_code(e);
  CHECK(code.value() == 104);
  const std::string_view name = to_string(errc::tls);
  CHECK(name == "tls");
  result<std::string> r("x");
  CHECK((r.has_value() && r && *r == "x" && r->size() == 1 && r.value() == "x" && r.value_or("y") == "x"));
  CHECK(r.error().code() == errc::ok);
}

}  // namespace
