// No allocation per operation: in steady state, and after `loop::reserve` not even the first time.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include "support/allocations.hpp"

#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using anyio::result;
using anyio::task;
using support::fail_allocations;

/// Runs a case on its own thread: each thread keeps a limited amount of freed blocks, and other cases may
/// have filled this thread's limit with sizes that are not used here.
template <class Case>
void with_empty_caches(Case run) {
  std::thread(run).join();
}

/// Where callbacks of three pointers count.
struct tally {
  anyio::loop& l;
  std::size_t calls = 0;
};

template <class Make>
void named(tally& t, Make make) {
  auto op = make();
  op.start([&t](auto) { ++t.calls; });
  t.l.run();
}
template <class Make>
void temporary(tally& t, Make make) {
  make().start([&t, a = 1, b = 2](auto) { t.calls += static_cast<std::size_t>(b - a); });
  t.l.run();
}
template <class Make>
void awaited(tally& t, Make make) {
  [](tally& mine, Make f) -> task<> {
    static_cast<void>(co_await f());
    ++mine.calls;
  }(t, make)
                                 .start([](result<>) {});
  t.l.run();
}

/// Every operation of the core, in one form of use.
template <class Use>
void use_all(tally& t, anyio::event& e, anyio::semaphore& s, anyio::channel<int>& c, anyio::task_group& g,
             Use use) {
  use(t, [&] { return anyio::sleep(0s); });
  use(t, [&] { return anyio::sleep_until(anyio::now()); });
  use(t, [&] { return e.wait(); });
  use(t, [&] { return s.acquire(); });
  use(t, [&] { return c.send(1); });
  use(t, [&] { return c.receive(); });
  use(t, [&] { return g.join(); });
  use(t, [&] { return anyio::fail_after(1h, e.wait()); });
  use(t, [&] { return anyio::move_on_after(0s, anyio::sleep(1h)); });
  use(t, [&] { return anyio::when_all(e.wait(), anyio::sleep(0s)); });
  use(t, [&] { return anyio::when_any(anyio::sleep(1h), e.wait()); });
  use(t, [&] { return anyio::as_result(e.wait()); });
  use(t, [&] { return anyio::as_result(anyio::raise(anyio::errc::tls)); });
}
constexpr std::size_t kinds = 13;

template <class Use>
void check_steady_state(Use use) {
  anyio::loop l;
  tally t{l};
  anyio::event e;
  e.set();
  anyio::semaphore s(1);
  anyio::channel<int> c(4);
  anyio::task_group g;
  use_all(t, e, s, c, g, use);
  {
    const fail_allocations none;
    for (int i = 0; i < 10; ++i) use_all(t, e, s, c, g, use);
  }
  CHECK(t.calls == kinds * 11);
}

TEST_CASE("a named operation allocates nothing in steady state") {
  with_empty_caches([] { check_steady_state([](tally& t, auto make) { named(t, make); }); });
}
TEST_CASE("a started temporary operation allocates nothing in steady state") {
  with_empty_caches([] { check_steady_state([](tally& t, auto make) { temporary(t, make); }); });
}
TEST_CASE("an awaited operation, and the task around it, allocate nothing in steady state") {
  with_empty_caches([] { check_steady_state([](tally& t, auto make) { awaited(t, make); }); });
}

TEST_CASE("after reserve operations allocate nothing at all") {
  // Blocks that other tests have left in the caches are taken first.
  std::vector<void*> taken;
  for (int i = 0; i < 9000; ++i) {
    taken.push_back(anyio::detail::recycler::allocate(anyio::detail::recycler::operations, 1));
  }
  anyio::loop l;
  tally t{l};
  anyio::event e;
  e.set();
  anyio::semaphore s(1);
  anyio::channel<int> c(4);
  anyio::task_group g;
  l.reserve(10, 1000);
  {
    const fail_allocations none;
    use_all(t, e, s, c, g, [](tally& mine, auto make) { named(mine, make); });
    use_all(t, e, s, c, g, [](tally& mine, auto make) { temporary(mine, make); });
    for (int i = 0; i < 1000; ++i) {
      anyio::sleep(0s).start([&t, a = 1, b = 2](result<>) { t.calls += static_cast<std::size_t>(b - a); });
    }
    l.run();
    for (int i = 0; i < 500; ++i) g.start_soon(anyio::sleep(0s));
    for (int i = 0; i < 500; ++i) l.post([&t] { ++t.calls; });
    l.run();
  }
  CHECK(t.calls == 2 * kinds + 1500);
  for (void* p : taken) anyio::detail::recycler::deallocate(anyio::detail::recycler::operations, p, 1);
}

TEST_CASE("many simultaneous operations allocate nothing in steady state") {
  with_empty_caches([] {
    anyio::loop l;
    tally t{l};
    const auto round = [&] {
      for (int i = 0; i < 3000; ++i) anyio::sleep(0s).start([&t](result<>) { ++t.calls; });
      l.run();
    };
    round();
    const fail_allocations none;
    round();
    CHECK(t.calls == 6000);
  });
}

TEST_CASE("tasks, groups and posted calls allocate nothing in steady state") {
  with_empty_caches([] {
    anyio::loop l;
    anyio::task_group g;
    anyio::semaphore s(2);
    std::size_t n = 0;
    const auto child = [&]() -> task<int> {
      const auto p = co_await s.acquire();
      co_await anyio::sleep(0s);
      co_return 1;
    };
    const auto round = [&] {
      for (int i = 0; i < 50; ++i) {
        g.start_soon([&]() -> task<> { n += static_cast<std::size_t>(co_await child()); });
      }
      l.post([&] { ++n; });
      l.handle().post([&] { ++n; });
      anyio::run(g.join());
      l.run();
      n += static_cast<std::size_t>(anyio::run(anyio::fail_after(1h, child)));
    };
    round();
    round();
    const fail_allocations none;
    round();
    CHECK(n == 3 * 53);
  });
}

TEST_CASE("errors as values allocate nothing") {
  with_empty_caches([] {
    anyio::loop l;
    const auto raises = []() -> task<> {
      static_cast<void>(co_await anyio::as_result(anyio::raise(anyio::errc::tls)));
    };
    std::size_t n = 0;
    const auto round = [&] {
      anyio::fail_after(0s, anyio::sleep(1h)).start([&n](result<> r) { n += !r.has_value(); });
      raises().start([&n](result<> r) { n += r.has_value(); });
      l.run();
    };
    round();
    const fail_allocations none;
    round();
    CHECK(n == 4);
  });
}

}  // namespace
