// Groups of children that give values: in which order, which errors, and what is cancelled.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/dies.hpp"
#include "support/faces.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::as_result;
using anyio::errc;
using anyio::loop;
using anyio::result;
using anyio::result_group;
using anyio::run;
using anyio::task;

task<int> gives(int n, int turns = 0) {
  for (int i = 0; i < turns; ++i) co_await anyio::sleep(0s);
  co_return n;
}
task<int> fails(errc code) {
  co_await anyio::raise({code, 0, "child"});
  co_return 0;
}

int alive = 0;
struct counted {
  counted() { ++alive; }
  counted(const counted&) { ++alive; }
  counted(counted&&) noexcept { ++alive; }
  ~counted() { --alive; }
};

TEST_CASE("a result group gives values as the children end, then end_of_stream") {
  loop l;
  const auto ways = [](auto face) {
    using F = decltype(face);
    result_group<int> group;
    group.start_soon(gives(1, 9));
    group.start_soon(gives, 2, 6);
    group.start_soon([] { return 3; });
    int n = 4;
    group.start_soon([](int& r, int turns) -> task<int> { co_return co_await gives(r, turns); }, std::ref(n),
                     3);
    CHECK(group.size() == 4);
    std::vector<int> order;
    while (group.size() != 0) order.push_back(F::get(group.next()).value());
    CHECK(order == std::vector<int>{3, 4, 2, 1});
    CHECK(F::get(group.next()).error() == errc::end_of_stream);
    group.start_soon(gives(5));
    CHECK(F::get(group.next()).value() == 5);
  };
  ways(support::by_callback());
  ways(support::by_coroutine());
}

TEST_CASE("children of a result group may be operations, and its values may be void or move-only") {
  loop l;
  result_group<void> nothing;
  nothing.start_soon(anyio::sleep(1ms));
  nothing.start_soon([] {});
  nothing.start_soon(gives(1));
  run([&]() -> task<> {
    for (int i = 0; i < 3; ++i) co_await nothing.next();
  });
  CHECK(nothing.size() == 0);

  auto [near, far] = anyio::create_memory_stream_pair();
  result_group<std::string> texts;
  texts.start_soon(near.receive());
  texts.start_soon([] { return "converted"; });
  run(far.send("received"));
  std::string both = run(texts.next());
  both += run(texts.next());
  CHECK((both == "receivedconverted" || both == "convertedreceived"));

  result_group<std::unique_ptr<int>> boxes;
  boxes.start_soon([](std::unique_ptr<int> p) { return p; }, std::make_unique<int>(7));
  CHECK(*run(boxes.next()) == 7);

  result_group<result<int>> outcomes;
  outcomes.start_soon(as_result(fails(errc::protocol)));
  CHECK(run(outcomes.next()).error() == errc::protocol);
}

TEST_CASE("an error of a child is raised by next, and the other children go on") {
  loop l;
  const auto ways = [](auto face) {
    using F = decltype(face);
    result_group<int> group;
    group.start_soon(fails(errc::protocol));
    group.start_soon(gives(1, 5));
    const auto failure = F::get(group.next());
    CHECK(failure.error() == errc::protocol);
    CHECK(failure.error().operation() == "child");
    CHECK(F::get(group.next()).value() == 1);
    CHECK(group.size() == 0);
  };
  ways(support::by_callback());
  ways(support::by_coroutine());
}

TEST_CASE("values that are there are kept until they are taken, in order") {
  loop l;
  result_group<int> group;
  for (int i = 0; i < 5; ++i) group.start_soon(gives(i));
  support::settle();
  CHECK(group.size() == 5);
  for (int i = 0; i < 5; ++i) CHECK(run(group.next()) == i);
}

TEST_CASE("cancel ends the children of a result group, and leaves the values that are there") {
  loop l;
  result_group<int> group;
  alive = 0;
  group.start_soon([c = counted()]() -> task<int> { co_return co_await gives(1, 1000000); });
  group.start_soon(gives(2));
  support::waiting<int> first, second;
  for (int i = 0; i < 10; ++i) l.run_once(0s);
  CHECK(group.size() == 2);
  group.cancel();
  CHECK(alive == 0);
  CHECK(group.size() == 1);
  support::by_callback::start(group.next(), first);
  support::by_callback::start(group.next(), second);
  CHECK(first.get().value() == 2);
  CHECK(second.get().error() == errc::end_of_stream);

  // Also from inside a child, which ends when it next waits.
  bool went_on = false;
  group.start_soon([&]() -> task<int> {
    group.cancel();
    co_await anyio::sleep(0s);
    went_on = true;
    co_return 1;
  });
  CHECK(run(as_result(group.next())).error() == errc::end_of_stream);
  CHECK(!went_on);
}

TEST_CASE("those who wait for the next value are served in order, and one that is cancelled takes none") {
  loop l;
  result_group<int> group;
  anyio::event first, second;
  const auto gives_after = [](anyio::event& e, int n) -> task<int> {
    co_await e.wait();
    co_return n;
  };
  group.start_soon(gives_after, std::ref(first), 1);
  group.start_soon(gives_after, std::ref(second), 2);
  std::vector<int> got;
  auto cancelled = group.next();
  cancelled.start([](result<int>) {});
  group.next().start([&](result<int> r) { got.push_back(r.value_or(-1)); });
  group.next().start([&](result<int> r) { got.push_back(10 * r.value_or(-1)); });
  group.next().start([&](result<int> r) { got.push_back(r.error() == errc::end_of_stream ? 100 : -1); });
  support::settle();
  cancelled = {};
  first.set();
  support::settle();
  CHECK(got == std::vector<int>{1});
  second.set();
  l.run();
  CHECK(got == std::vector<int>{1, 20, 100});
}

TEST_CASE("next has the time limit that it is given, and a child is not lost by it") {
  loop l;
  result_group<int> group;
  group.start_soon([]() -> task<int> {
    co_await anyio::sleep(20ms);
    co_return 1;
  });
  CHECK(!run(anyio::move_on_after(1ms, group.next())));
  CHECK(run(group.next()) == 1);
}

TEST_CASE("a result group that is destroyed ends its children, and drops its values") {
  loop l;
  alive = 0;
  {
    result_group<counted> group;
    group.start_soon([] { return counted(); });
    group.start_soon([]() -> task<counted> {
      const counted local;
      co_await anyio::sleep(1h);
      co_return counted();
    });
    support::settle();
    CHECK(alive == 2);
  }
  CHECK(alive == 0);

  auto group = std::make_unique<result_group<int>>();
  group->start_soon([]() -> task<int> {
    co_await anyio::sleep(1h);
    co_return 1;
  });
  support::waiting<int> w;
  support::by_callback::start(group->next(), w);
  support::settle();
  group.reset();
  CHECK(w.get().error() == errc::closed_resource);
}

TEST_CASE("a loop may end before its result groups") {
  alive = 0;
  auto l = std::make_unique<loop>();
  result_group<counted> group;
  group.start_soon([] { return counted(); });
  group.start_soon([c = counted()]() -> task<counted> {
    co_await anyio::sleep(1h);
    co_return counted();
  });
  support::settle();
  l.reset();
}

TEST_CASE("a view that a child received is given while the child's stream has not gone on") {
  loop l;
  result_group<std::string> group;
  auto [near, far] = anyio::create_memory_stream_pair();
  group.start_soon(
      [&near = near]() -> task<std::string> { co_return std::string(co_await near.receive_view()); });
  run(far.send("a view"));
  CHECK(run(group.next()) == "a view");
}

#if ANYIO_NET_EXCEPTIONS
TEST_CASE("a foreign exception of a child is thrown by next, unchanged") {
  loop l;
  result_group<int> group;
  group.start_soon([]() -> task<int> {
    co_await anyio::sleep(0s);
    throw std::runtime_error("mine");
  });
  group.start_soon([]() -> int { throw std::logic_error("from a function"); });
  group.start_soon(gives(1, 9));
  CHECK_THROWS_AS(run(group.next()), std::logic_error);
  CHECK_THROWS_WITH(static_cast<void>(run(as_result(group.next()))), "mine");
  CHECK(run(group.next()) == 1);
}
#endif

}  // namespace
