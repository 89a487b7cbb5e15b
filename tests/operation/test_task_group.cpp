// Groups of children: when each child ends, and where its error is reported.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include "support/dies.hpp"

#include <functional>
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
using anyio::task_group;

int alive = 0;
struct counted {
  counted() { ++alive; }
  counted(const counted&) { ++alive; }
  counted(counted&&) noexcept { ++alive; }
  counted& operator=(const counted&) = default;
  counted& operator=(counted&&) = default;
  ~counted() { --alive; }
};

/// Calls a function when it is destroyed.
struct at_end {
  std::function<void()> call;
  explicit at_end(std::function<void()> f) : call(std::move(f)) {}
  at_end(at_end&& other) noexcept : call(std::exchange(other.call, nullptr)) {}
  ~at_end() {
    if (call) call();
  }
};

task<> sleeper() {
  counted local;
  co_await anyio::sleep(1h);
}
task<> fails(errc code) {
  co_await anyio::sleep(0s);
  co_await anyio::raise(code);
}

TEST_CASE("children can be tasks, operations, callables and plain functions, and join waits for all") {
  anyio::loop l;
  task_group g;
  std::string seen;
  int number = 0;
  g.start_soon([](std::string& s) -> task<> {
    co_await anyio::sleep(1ms);
    s += 'a';
  }(seen));
  g.start_soon(anyio::sleep(1ms));
  g.start_soon(anyio::fail_after(1h, anyio::sleep(1ms)));
  g.start_soon(as_result(fails(errc::tls)));
  g.start_soon([&seen] { seen += 'b'; });
  g.start_soon([&seen](int n, std::unique_ptr<int> p) { seen += static_cast<char>('a' + n + *p); }, 1,
               std::make_unique<int>(1));
  g.start_soon([](int& n) -> task<int> { co_return ++n; }, std::ref(number));
  g.start_soon(
      [](const std::string& kept, int* out) -> task<> {
        co_await anyio::sleep(1ms);
        *out += static_cast<int>(kept.size());
      },
      std::string("twelve chars"), &number);
  g.start_soon([](int ms) { return anyio::sleep(std::chrono::milliseconds(ms)); }, 1);
  struct object {
    int n = 0;
    task<> method(int by) {
      co_await anyio::sleep(0s);
      n += by;
    }
  } o;
  g.start_soon(&object::method, &o, 5);
  CHECK(seen.empty());  // never inline
  CHECK(g.size() == 10);
  run(g.join());
  CHECK(g.size() == 0);
  CHECK(seen == "bca");
  CHECK(number == 13);
  CHECK(o.n == 5);
}

TEST_CASE("a callable with captures is kept until its child ends") {
  anyio::loop l;
  auto kept = std::make_shared<int>(3);
  int got = 0;
  task_group g;
  g.start_soon([kept, &got]() -> task<> {
    co_await anyio::sleep(1ms);
    got = *kept;
  });
  CHECK(kept.use_count() == 2);
  run(g.join());
  CHECK(got == 3);
  CHECK(kept.use_count() == 1);
}

TEST_CASE("a completed child is freed at once") {
  anyio::loop l;
  task_group g;
  g.start_soon(sleeper());
  g.start_soon([](counted) -> task<> { co_return; }, counted());
  l.run_once(0s);
  l.run_once(0s);
  CHECK(g.size() == 1);
  CHECK(alive == 1);
}

TEST_CASE("join of an empty group completes, also when called again") {
  anyio::loop l;
  task_group g;
  run(g.join());
  g.start_soon([] {});
  run(g.join());
  run(g.join());
}

TEST_CASE("the first error cancels the others, and join raises it once") {
  anyio::loop l;
  task_group g;
  g.start_soon(sleeper());
  g.start_soon(fails(errc::tls));
  g.start_soon(fails(errc::busy_resource));  // ready in the same round, but too late
  g.start_soon(sleeper());
  const auto r = run(as_result(g.join()));
  CHECK(r.error() == errc::tls);
  CHECK(alive == 0);
  CHECK(run(as_result(g.join())).has_value());
  g.start_soon(fails(errc::busy_resource));
  CHECK(run(as_result(g.join())).error() == errc::busy_resource);
}

TEST_CASE("the error of an operation is an error of its child, a returned result is not") {
  anyio::loop l;
  task_group g;
  g.start_soon(anyio::fail_after(0s, anyio::sleep(1h)));
  CHECK(run(as_result(g.join())).error() == errc::timed_out);
  g.start_soon(as_result(anyio::fail_after(0s, anyio::sleep(1h))));
  CHECK(run(as_result(g.join())).has_value());
}

TEST_CASE("cancel ends children at once, and join then succeeds") {
  anyio::loop l;
  task_group g;
  bool began = false;
  g.start_soon(sleeper());
  g.start_soon(sleeper());
  l.run_once(0s);
  CHECK(alive == 2);
  g.start_soon([&]() -> task<> {
    began = true;
    co_return;
  });
  g.cancel();
  CHECK(alive == 0);
  CHECK(g.size() == 0);
  CHECK(run(as_result(g.join())).has_value());
  CHECK(!began);
  g.start_soon([&] { began = true; });  // it can be used again
  run(g.join());
  CHECK(began);
}

TEST_CASE("destroying a group cancels its children") {
  anyio::loop l;
  {
    task_group g;
    g.start_soon(sleeper());
    l.run_once(0s);
    CHECK(alive == 1);
  }
  CHECK(alive == 0);
  l.run();
}

TEST_CASE("a cancelled join leaves the children running") {
  anyio::loop l;
  task_group g;
  anyio::event e;
  bool ended = false;
  g.start_soon([&]() -> task<> {
    co_await e.wait();
    ended = true;
  });
  CHECK(!run(anyio::move_on_after(1ms, g.join())));
  {
    auto joining = g.join();
    joining.start([](result<>) {});
    l.run_once(0s);
  }
  CHECK(g.size() == 1);
  e.set();
  run(g.join());
  CHECK(ended);
}

TEST_CASE("cancel from inside a child ends the others at once, and that child at its next wait") {
  anyio::loop l;
  task_group g;
  std::string seen;
  g.start_soon(sleeper());
  g.start_soon([&]() -> task<> {
    counted local;
    co_await anyio::sleep(1ms);
    g.cancel();
    seen += alive == 1 ? "only me" : "others";
    co_await [&]() -> task<> { co_return; }();  // does not wait
    seen += ", on";
    co_await anyio::sleep(0s);
    seen += ", never";
  });
  g.start_soon(sleeper());
  CHECK(run(as_result(g.join())).has_value());
  CHECK(seen == "only me, on");
  CHECK(alive == 0);
}

TEST_CASE("cancel can be called deep inside a child") {
  anyio::loop l;
  task_group g;
  std::string seen;
  const auto innermost = [&]() -> task<> {
    counted local;
    co_await anyio::sleep(1ms);
    g.cancel();
    seen += "cancelled";
    co_await anyio::sleep(0s);
    seen += ", never";
  };
  const auto inner = [&]() -> task<> {
    counted local;
    task_group nested;
    nested.start_soon(innermost);
    nested.start_soon(sleeper());
    co_await nested.join();
    seen += ", never";
  };
  g.start_soon([&]() -> task<> {
    counted local;
    auto r = co_await as_result(anyio::fail_after(
        1h, anyio::when_any(sleeper(), anyio::when_all(as_result(anyio::move_on_after(1h, inner))))));
    seen += ", never";
  });
  g.start_soon(sleeper());
  CHECK(run(as_result(g.join())).has_value());
  CHECK(seen == "cancelled");
  CHECK(alive == 0);
}

TEST_CASE("a plain function may cancel its group, and a child may end after that") {
  anyio::loop l;
  task_group g;
  g.start_soon(sleeper());
  g.start_soon([&] { g.cancel(); });
  CHECK(run(as_result(g.join())).has_value());
  g.start_soon([&]() -> task<> {
    g.cancel();
    co_await anyio::raise(errc::tls);  // ignored: it was cancelled
  });
  CHECK(run(as_result(g.join())).has_value());
  CHECK(alive == 0);
}

TEST_CASE("children may start children, also while the group is being cancelled") {
  anyio::loop l;
  task_group g;
  int ended = 0;
  std::function<task<>(int)> more = [&](int n) -> task<> {
    co_await anyio::sleep(0s);
    if (n != 0) {
      g.start_soon(more, n - 1);
      g.start_soon(more, n - 1);
    }
    ++ended;
  };
  g.start_soon(more, 5);
  run(g.join());
  CHECK(ended == 63);
  bool late = false;
  g.start_soon([&]() -> task<> {
    at_end guard([&] { g.start_soon([&] { late = true; }); });
    co_await anyio::sleep(1h);
  });
  l.run_once(0s);
  g.cancel();
  run(g.join());
  CHECK(late);
}

TEST_CASE("destructors of cancelled children may cancel the group again") {
  anyio::loop l;
  for (const bool by_timeout : {false, true}) {
    task_group g;
    int ends = 0;
    for (int i = 0; i < 3; ++i) {
      g.start_soon([&]() -> task<> {
        at_end guard([&] {
          ++ends;
          g.cancel();
        });
        co_await anyio::sleep(1h);
      });
    }
    g.start_soon([&]() -> task<> {
      auto r = co_await anyio::move_on_after(1ms, [&]() -> task<> {
        at_end guard([&] {
          ++ends;
          g.cancel();
        });
        co_await anyio::sleep(1h);
      });
      CHECK(!r);
    });
    l.run_once(0s);
    if (!by_timeout) g.cancel();
    CHECK(run(as_result(g.join())).has_value());
    CHECK(ends == 4);
  }
}

TEST_CASE("destructors of a raising child may cancel the group") {
  anyio::loop l;
  task_group g;
  int ends = 0;
  g.start_soon(sleeper());
  g.start_soon([&]() -> task<> {
    at_end outer([&] { ++ends; });
    auto r = co_await as_result([](task_group& group, int& n, at_end) -> task<> {
      at_end guard([&] {
        ++n;
        group.cancel();
      });
      co_await fails(errc::tls);
    }(g, ends, at_end([&] {
                                  ++ends;
                                  g.cancel();
                                })));
    CHECK(r.error() == errc::tls);
    ++ends;
    co_await anyio::sleep(0s);
    ends = 100;
  });
  CHECK(run(as_result(g.join())).has_value());
  CHECK(ends == 4);
  CHECK(alive == 0);
}

TEST_CASE("a session owned by its children ends with its last child") {
  anyio::loop l;
  struct session : counted {
    task_group group;
    anyio::event stop;
  };
  for (const int way : {0, 1, 2}) {
    auto s = std::make_shared<session>();
    s->group.start_soon([s]() -> task<> { co_await s->stop.wait(); });
    s->group.start_soon([](std::shared_ptr<session> mine) -> task<> { co_await mine->stop.wait(); }, s);
    l.run_once(0s);
    const std::weak_ptr<session> watch = s;
    session* raw = s.get();
    s.reset();
    CHECK(alive == 1);
    if (way == 0) raw->stop.set();
    if (way == 1) raw->group.cancel();
    if (way == 2) l.post([raw] { raw->group.cancel(); });
    l.run();
    CHECK(watch.expired());
    CHECK(alive == 0);
  }
}

TEST_CASE("join of a destroyed group ends with closed_resource") {
  anyio::loop l;
  auto g = std::make_unique<task_group>();
  g->start_soon(sleeper());
  errc first = errc::ok;
  errc second = errc::ok;
  auto named = g->join();
  named.start([&first](result<> r) { first = r.error().code(); });
  g->join().start([&](result<> r) { second = r.error().code(); });
  l.run_once(0s);
  g.reset();
  CHECK(first == errc::ok);
  l.run();
  CHECK(first == errc::closed_resource);
  CHECK(second == errc::closed_resource);
  auto other = std::make_unique<task_group>();
  other->start_soon(sleeper());
  auto never = other->join();
  auto neither = other->join();
  never.start([](result<>) {});
  neither.start([](result<>) {});
  other.reset();
}

TEST_CASE("a group destroyed by its own child fails an assertion") {
  if (!support::asserts) return;
  anyio::loop l;
  std::optional<task_group> g(std::in_place);
  g->start_soon([&]() -> task<> {
    CHECK(support::dies([&] { g.reset(); }));
    co_return;
  });
  g->start_soon([&] { CHECK(support::dies([&] { g.reset(); })); });
  run(g->join());
}

TEST_CASE("a loop may end before its groups") {
  std::optional<anyio::loop> l(std::in_place);
  task_group begun;
  task_group not_begun;
  begun.start_soon(sleeper());
  begun.start_soon(anyio::sleep(1h));
  l->run_once(0s);
  not_begun.start_soon(sleeper());
  l.reset();
  CHECK(alive == 1);
  begun.cancel();
  CHECK(alive == 0);
}

#if defined(__cpp_exceptions)
TEST_CASE("a foreign exception passes through join unchanged") {
  anyio::loop l;
  task_group g;
  g.start_soon(sleeper());
  g.start_soon([]() -> task<> {
    co_await anyio::sleep(0s);
    throw std::domain_error("foreign");
  });
  CHECK_THROWS_AS(run(g.join()), std::domain_error);
  CHECK(alive == 0);
  g.start_soon([] { throw std::domain_error("foreign"); });
  CHECK_THROWS_AS(static_cast<void>(run(as_result(g.join()))), std::domain_error);
  g.start_soon([]() -> task<> { throw std::domain_error("foreign"); });
  g.join().start([](result<>) { CHECK(false); });
  CHECK_THROWS_AS(l.run(), std::domain_error);
  g.start_soon([&]() -> task<> {
    g.cancel();
    throw std::domain_error("foreign, after it was told to end");
    co_return;
  });
  CHECK_THROWS_AS(run(g.join()), std::domain_error);
  g.start_soon([] { throw anyio::timed_out(anyio::error(errc::timed_out)); });
  CHECK(run(as_result(g.join())).error() == errc::timed_out);
}
#endif

}  // namespace
