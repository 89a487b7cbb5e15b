// Time limits, all of several operations, one of several.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "support/faces.hpp"

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
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
  ~counted() { --alive; }
};

task<> forever() {
  counted local;
  co_await anyio::sleep(1h);
}
task<int> soon(int n) {
  counted local;
  co_await anyio::sleep(0s);
  co_return n;
}
task<int> at_once(int n) { co_return n; }
task<int> fails(errc code) {
  co_await anyio::sleep(0s);
  co_await anyio::raise(code);
  co_return 0;
}
task<std::unique_ptr<int>> boxed(int n) {
  co_await anyio::sleep(0s);
  co_return std::make_unique<int>(n);
}

TEST_CASE("fail_after returns the value, or raises timed_out") {
  anyio::loop l;
  CHECK(run(anyio::fail_after(1h, soon(3))) == 3);
  CHECK(run(as_result(anyio::fail_after(1ms, forever()))).error() == errc::timed_out);
  CHECK(run(as_result(anyio::fail_after(1ms, anyio::sleep(1h)))).error() == errc::timed_out);
  CHECK(run(as_result(anyio::fail_after(1h, fails(errc::tls)))).error() == errc::tls);
  CHECK(*run(anyio::fail_after(1h, boxed(4))) == 4);
  CHECK(run(anyio::fail_after(1h, [] { return soon(5); })) == 5);
  CHECK(run(anyio::fail_after(1h, [p = std::make_unique<int>(6)]() -> task<int> { co_return *p; })) == 6);
  CHECK(run(anyio::fail_after(1h, as_result(fails(errc::tls)))).error() == errc::tls);
  CHECK(run(anyio::fail_at(anyio::now() + 1h, soon(7))) == 7);
  CHECK(run(as_result(anyio::fail_at(anyio::now() + 1ms, forever()))).error() == errc::timed_out);
  CHECK(run(as_result(anyio::fail_at(anyio::now() - 1h, forever()))).error() == errc::timed_out);
  CHECK(alive == 0);
}

TEST_CASE("the error of a time limit says what was waited for") {
  anyio::loop l;
  const auto ways = [](auto face) {
    using F = decltype(face);
    const auto after = F::get(anyio::fail_after(0s, anyio::sleep(1h), "reading the request"));
    CHECK(after.error() == errc::timed_out);
    CHECK(after.error().operation() == "reading the request");
    CHECK(after.error().message() == "reading the request: timed out");
    CHECK(F::get(anyio::fail_at(anyio::now(), anyio::sleep(1h), "the answer")).error().operation() ==
          "the answer");
    CHECK(F::get(anyio::fail_after(0s, anyio::sleep(1h))).error().operation() == "timeout");
    // Kept when the operation is moved, and when it is used again.
    auto first = anyio::fail_after(0s, anyio::sleep(1h), "moved");
    auto op = std::move(first);
    for (int i = 0; i < 2; ++i) {
      CHECK(anyio::run(anyio::as_result(op)).error().operation() == "moved");
    }
    // What has the time limit's words is not a time limit of move_on_after.
    CHECK(F::get(anyio::move_on_after(1h, anyio::fail_after(0s, anyio::sleep(1h), "move_on"))).error() ==
          errc::timed_out);
    const auto raised = F::get(anyio::move_on_after(1h, anyio::raise({errc::timed_out, 0, "move_on"})));
    CHECK(raised.error() == errc::timed_out);
    const auto own = F::get(anyio::move_on_after(0s, anyio::fail_after(1h, anyio::sleep(1h), "move_on")));
    REQUIRE(own.has_value());
    CHECK(!*own);
  };
  ways(support::by_callback());
  ways(support::by_coroutine());
}

TEST_CASE("a time limit never expires early") {
  anyio::loop l;
  const auto before = anyio::now();
  CHECK(!run(anyio::move_on_after(5ms, forever())));
  CHECK(anyio::now() - before >= 5ms);
  const auto deadline = anyio::now() + 900us;
  CHECK(run(as_result(anyio::fail_at(deadline, anyio::sleep(1h)))).error() == errc::timed_out);
  CHECK(anyio::now() >= deadline);
}

TEST_CASE("move_on_after returns an optional, or a bool for void") {
  anyio::loop l;
  static_assert(std::is_same_v<decltype(run(anyio::move_on_after(1s, soon(1)))), std::optional<int>>);
  static_assert(std::is_same_v<decltype(run(anyio::move_on_after(1s, forever()))), bool>);
  CHECK(run(anyio::move_on_after(1h, soon(3))) == 3);
  CHECK(run(anyio::move_on_after(1h, anyio::sleep(0s))));
  CHECK(run(anyio::move_on_after(1ms, [] { return soon(2); })) == 2);
  CHECK(!run(anyio::move_on_after(1ms, anyio::sleep(1h))));
  CHECK(**run(anyio::move_on_after(1h, boxed(4))) == 4);
  CHECK(run(anyio::move_on_at(anyio::now() - 1h, anyio::sleep(1h))) == false);
  CHECK(run(as_result(anyio::move_on_after(1h, fails(errc::tls)))).error() == errc::tls);
  // A timeout inside is an error of the inner operation.
  CHECK(run(as_result(anyio::move_on_after(1h, fails(errc::timed_out)))).error() == errc::timed_out);
  CHECK(run(as_result(anyio::move_on_after(1h, anyio::fail_after(1ms, forever())))).error() ==
        errc::timed_out);
  CHECK(!run(anyio::move_on_after(1ms, anyio::fail_after(1h, forever()))));
  CHECK(!run(anyio::move_on_after(1h, anyio::move_on_after(1ms, forever()))).value_or(true));
  CHECK(!run(anyio::move_on_after(1ms, anyio::move_on_after(1h, forever()))).has_value());
  CHECK(alive == 0);
}

TEST_CASE("with a limit of 0 an available value is returned") {
  anyio::loop l;
  anyio::event e;
  anyio::channel<int> c(2);
  for (const auto limit : {anyio::duration(0), anyio::duration(-1h), anyio::duration::min()}) {
    CHECK(!run(anyio::move_on_after(limit, e.wait())));
    e.set();
    CHECK(run(anyio::move_on_after(limit, e.wait())));
    CHECK(run(anyio::move_on_after(limit, [&]() -> task<> { co_await e.wait(); })));
    e.clear();
    CHECK(!run(anyio::move_on_after(limit, c.receive())));
    CHECK(c.try_send(7));
    CHECK(run(anyio::move_on_after(limit, c.receive())) == 7);
    CHECK(run(anyio::move_on_after(limit, at_once(1))) == 1);
    CHECK(run(anyio::move_on_after(limit, anyio::when_any(e.wait(), at_once(1)))).has_value());
    CHECK(run(anyio::move_on_after(limit, anyio::when_all(at_once(1), at_once(2)))).has_value());
    int called = -1;
    anyio::move_on_after(limit, at_once(5)).start([&](result<std::optional<int>> r) { called = **r; });
    l.run();
    CHECK(called == 5);
  }
}

TEST_CASE("a value available when the limit expires is returned") {
  anyio::loop l;
  anyio::channel<int> c(1);
  std::optional<int> got;
  auto t = anyio::move_on_after(1ms, c.receive());
  t.start([&got](result<std::optional<int>> r) { got = *r; });
  l.run_once(0s);
  const auto before = anyio::now();
  while (anyio::now() - before < 2ms) {
  }
  CHECK(c.try_send(8));
  l.run();
  CHECK(got == 8);
}

TEST_CASE("any duration type is accepted, and saturates") {
  anyio::loop l;
  using float_hours = std::chrono::duration<double, std::ratio<3600>>;
  CHECK(run(anyio::fail_after(std::chrono::hours::max(), soon(1))) == 1);
  CHECK(run(anyio::fail_after(std::chrono::duration<double>::max(), soon(1))) == 1);
  CHECK(run(anyio::fail_after(std::chrono::duration<double>(std::numeric_limits<double>::infinity()),
                              soon(1))) == 1);
  CHECK(run(anyio::fail_after(anyio::duration::max(), soon(1))) == 1);
  CHECK(run(anyio::fail_at(anyio::time_point::max(), soon(1))) == 1);
  CHECK(run(anyio::fail_after(float_hours(0.5), soon(1))) == 1);
  CHECK(!run(anyio::move_on_after(std::chrono::duration<float, std::milli>(0.5F), forever())));
  CHECK(!run(anyio::move_on_after(std::chrono::duration<double>(-1e300), forever())));
  CHECK(!run(anyio::move_on_after(std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN()),
                                  forever())));
  CHECK(!run(anyio::move_on_after(std::chrono::hours::min(), forever())));
  CHECK(!run(anyio::move_on_at(anyio::time_point::min(), forever())));
  CHECK(!run(anyio::move_on_after(std::chrono::duration<std::int64_t, std::pico>(5), forever())));
  CHECK(!run(anyio::move_on_after(std::chrono::duration<std::uint8_t, std::milli>(1), forever())));
  for (const auto huge : {anyio::duration::max(), anyio::duration::max() - 1ns}) {
    anyio::sleep_operation s = anyio::sleep(huge);
    s.start([](result<>) { CHECK(false); });
    l.run_once(0s);
  }
  run(anyio::sleep(anyio::duration::min()));
  run(anyio::sleep_until(anyio::time_point::min()));
}

TEST_CASE("when_all returns a tuple, with std::monostate for void") {
  anyio::loop l;
  const auto all = run(anyio::when_all(
      soon(1), anyio::sleep(0s), [] { return boxed(3); }, as_result(fails(errc::tls))));
  static_assert(std::is_same_v<decltype(all),
                               const std::tuple<int, std::monostate, std::unique_ptr<int>, result<int>>>);
  CHECK(std::get<0>(all) == 1);
  CHECK(*std::get<2>(all) == 3);
  CHECK(std::get<3>(all).error() == errc::tls);
  CHECK(run(anyio::when_all()) == std::tuple<>());
  CHECK(run(anyio::when_all(at_once(1), at_once(2))) == std::tuple(1, 2));
}

TEST_CASE("when_all of a vector returns a vector in the same order") {
  anyio::loop l;
  std::vector<task<int>> tasks;
  for (int i = 0; i < 5; ++i) {
    tasks.push_back([](int n) -> task<int> {
      for (int k = n; k < 5; ++k) co_await anyio::sleep(0s);
      co_return n;
    }(i));
  }
  CHECK(run(anyio::when_all(std::move(tasks))) == std::vector{0, 1, 2, 3, 4});
  CHECK(run(anyio::when_all(std::vector<task<int>>())).empty());
  std::vector<task<>> voids;
  voids.push_back([]() -> task<> { co_return; }());
  voids.push_back([]() -> task<> { co_return; }());
  CHECK(run(anyio::when_all(std::move(voids))).size() == 2);
  std::vector<task<std::unique_ptr<int>>> boxes;
  boxes.push_back(boxed(1));
  CHECK(*run(anyio::when_all(std::move(boxes)))[0] == 1);
  std::vector<task<int>> failing;
  failing.push_back(soon(1));
  failing.push_back(fails(errc::tls));
  failing.push_back([]() -> task<int> {
    co_await forever();
    co_return 1;
  }());
  CHECK(run(as_result(anyio::when_all(std::move(failing)))).error() == errc::tls);
  failing.clear();
  failing.emplace_back();
  CHECK(run(as_result(anyio::when_all(std::move(failing)))).error() == errc::invalid_argument);
  CHECK(alive == 0);
}

TEST_CASE("the first error of when_all cancels the others, including queued ones") {
  anyio::loop l;
  CHECK(run(as_result(anyio::when_all(forever(), fails(errc::tls), soon(1)))).error() == errc::tls);
  CHECK(run(as_result(anyio::when_all(fails(errc::tls), fails(errc::busy_resource)))).error() == errc::tls);
  CHECK(run(as_result(anyio::when_all(anyio::raise(errc::tls), forever(), anyio::sleep(0s)))).error() ==
        errc::tls);
  anyio::event e;
  bool ran = false;
  anyio::when_all(
      [&]() -> task<> {
        co_await e.wait();
        co_await anyio::raise(errc::tls);
      },
      [&]() -> task<> {
        counted local;
        co_await e.wait();
        ran = true;
      })
      .start([&](auto r) { CHECK(r.error() == errc::tls); });
  l.run_once(0s);
  e.set();  // both are queued
  l.run();
  CHECK(!ran);
  CHECK(alive == 0);
}

TEST_CASE("when_any returns the first completion, also if it is an error") {
  anyio::loop l;
  const auto v = run(anyio::when_any(forever(), soon(2), anyio::sleep(1h)));
  static_assert(std::is_same_v<decltype(v), const std::variant<std::monostate, int, std::monostate>>);
  CHECK(std::get<1>(v) == 2);
  CHECK(run(as_result(anyio::when_any(forever(), fails(errc::tls)))).error() == errc::tls);
  CHECK(*std::get<0>(run(anyio::when_any(boxed(1)))) == 1);
  CHECK(std::get<1>(run(anyio::when_any(forever(), as_result(fails(errc::tls))))).error() == errc::tls);
  const auto same = run(anyio::when_any(soon(1), soon(2)));
  CHECK(same.index() == 0);
  CHECK(alive == 0);
}

TEST_CASE("an immediate completion in when_any keeps the remaining operations from starting") {
  anyio::loop l;
  int begun = 0;
  const auto counts = [&]() -> task<> {
    ++begun;
    co_await anyio::sleep(1h);
  };
  anyio::event set;
  set.set();
  anyio::event unset;
  CHECK(run(anyio::when_any(at_once(1), counts)).index() == 0);
  CHECK(run(anyio::when_any(set.wait(), counts)).index() == 0);
  CHECK(run(anyio::when_any(anyio::fail_after(1h, set.wait()), counts)).index() == 0);
  CHECK(run(anyio::when_any(anyio::when_any(set.wait(), counts), counts)).index() == 0);
  CHECK(run(anyio::when_any([&]() -> task<> { co_await set.wait(); }, counts)).index() == 0);
  CHECK(run(anyio::fail_after(1h, anyio::when_any(set.wait(), counts))).index() == 0);
  CHECK(run(anyio::when_any(unset.wait(), set.wait(), counts)).index() == 1);
  CHECK(run(anyio::when_any(as_result(anyio::raise(errc::tls)), counts)).index() == 0);
  CHECK(begun == 0);
  anyio::channel<int> a(1);
  anyio::channel<int> b(1);
  CHECK(a.try_send(1));
  CHECK(b.try_send(2));
  CHECK(run(anyio::when_any(a.receive(), b.receive())).index() == 0);
  CHECK(b.try_receive() == 2);  // nothing was taken
  CHECK(run(anyio::when_any(counts, soon(1))).index() == 1);
  CHECK(begun == 1);
}

TEST_CASE("no data is lost if two operations of when_any become ready together") {
  anyio::loop l;
  anyio::channel<int> a(1);
  anyio::channel<int> b(1);
  std::size_t which = 9;
  auto op = anyio::when_any(a.receive(), b.receive());
  op.start([&which](auto r) { which = r->index(); });
  l.run_once(0s);
  l.run_once(0s);
  CHECK(b.try_send(2));
  CHECK(a.try_send(1));
  l.run();
  CHECK(which == 1);
  CHECK(a.try_receive() == 1);
}

TEST_CASE("combinators can be nested") {
  anyio::loop l;
  const auto inner = [] {
    return anyio::fail_after(
        1h, anyio::when_all(anyio::when_any(forever(), soon(1)), anyio::move_on_after(1ms, forever())));
  };
  const auto r =
      run(anyio::when_all(inner(), as_result(anyio::when_any(fails(errc::tls), inner())), inner()));
  CHECK(std::get<1>(std::get<0>(std::get<0>(r))) == 1);
  CHECK(!std::get<1>(std::get<0>(r)));
  CHECK(std::get<1>(r).error() == errc::tls);
  CHECK(alive == 0);
}

TEST_CASE("combinators destroyed at any moment leak nothing") {
  bool finished = false;
  for (int steps = 0; !finished; ++steps) {
    anyio::loop l;
    anyio::event e;
    {
      auto op = anyio::fail_after(
          1h, anyio::when_all(
                  anyio::when_any([]() -> task<int> { co_return co_await soon(1); }, forever(), e.wait()),
                  anyio::move_on_after(1ms, anyio::when_all(forever(), e.wait())),
                  as_result(anyio::when_any(fails(errc::tls), forever())), [&]() -> task<> {
                    counted local;
                    co_await anyio::sleep(2ms);
                    e.set();
                  }));
      op.start([&finished](auto r) { finished = r.has_value(); });
      for (int i = 0; i < steps && !finished; ++i) anyio::detail::loop_core::current().step();
    }
    CHECK(alive == 0);
    l.run();
  }
}

TEST_CASE("a time limit of a task can be used once, of an operation again") {
  anyio::loop l;
  auto t = anyio::fail_after(1h, soon(1));
  CHECK(run(t) == 1);
  CHECK(run(as_result(t)).error() == errc::invalid_argument);
  anyio::timeout_operation<anyio::sleep_operation> s = anyio::fail_after(1ms, anyio::sleep(1h));
  CHECK(run(as_result(s)).error() == errc::timed_out);
  CHECK(run(as_result(s)).error() == errc::timed_out);
  s = anyio::fail_after(1h, anyio::sleep(0s));
  run(s);
  run(s);
}

TEST_CASE("a composite may be destroyed by a callback of its child") {
  anyio::loop l;
  using operation = decltype(anyio::when_all(forever(), anyio::fail_after(1h, anyio::sleep(1ms))));
  auto op = std::make_unique<operation>(anyio::when_all(forever(), anyio::fail_after(1h, anyio::sleep(1ms))));
  op->start([](auto) { CHECK(false); });
  anyio::sleep(1ms).start([&](result<>) { op.reset(); });
  l.run();
  CHECK(alive == 0);
}

#if defined(__cpp_exceptions)
TEST_CASE("foreign exceptions pass through combinators unchanged") {
  anyio::loop l;
  const auto throws = []() -> task<int> {
    co_await anyio::sleep(0s);
    throw std::domain_error("foreign");
  };
  CHECK_THROWS_AS(run(anyio::fail_after(1h, throws)), std::domain_error);
  CHECK_THROWS_AS(static_cast<void>(run(anyio::move_on_after(1h, throws))), std::domain_error);
  CHECK_THROWS_AS(run(anyio::when_all(forever(), throws)), std::domain_error);
  CHECK_THROWS_AS(run(anyio::when_any(forever(), throws)), std::domain_error);
  CHECK_THROWS_AS(static_cast<void>(run(as_result(anyio::when_any(anyio::when_all(throws, soon(1)))))),
                  std::domain_error);
  std::vector<task<int>> tasks;
  tasks.push_back(throws());
  CHECK_THROWS_AS(run(anyio::when_all(std::move(tasks))), std::domain_error);
  anyio::fail_after(1h, throws).start([](result<int>) { CHECK(false); });
  CHECK_THROWS_AS(l.run(), std::domain_error);
  CHECK_THROWS_AS(run(anyio::fail_after(0s, forever())), anyio::timed_out);
  CHECK(alive == 0);
}
#endif

}  // namespace
