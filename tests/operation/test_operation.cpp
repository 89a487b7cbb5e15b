// The rules of every operation, each checked for many operations and in both forms of use.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include "support/dies.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::result;
using anyio::task;

// Each subject creates pending operations, and lets pending ones complete.

struct sleeping {
  std::chrono::milliseconds time = 1ms;
  auto make() { return anyio::sleep(time); }
  void let_on() {}
};
struct event_wait {
  anyio::event e;
  auto make() { return e.wait(); }
  void let_on() { e.set(); }
};
struct acquiring {
  anyio::semaphore s{0};
  std::vector<anyio::permit> held;
  anyio::semaphore gate{8};
  acquiring() {
    while (auto p = gate.try_acquire()) held.push_back(std::move(*p));
  }
  auto make() { return gate.acquire(); }
  void let_on() { held.clear(); }
};
struct channel_receive {
  anyio::channel<int> c{16};
  auto make() { return c.receive(); }
  void let_on() {
    for (int i = 0; i < 8; ++i) static_cast<void>(c.try_send(i));
  }
};
struct channel_send {
  anyio::channel<std::unique_ptr<int>> c{0};
  auto make() { return c.send(std::make_unique<int>(1)); }
  void let_on() {
    while (c.try_receive()) {
    }
  }
};
struct joining {
  anyio::event e;
  anyio::task_group g;
  joining() { g.start_soon(e.wait()); }
  auto make() { return g.join(); }
  void let_on() { e.set(); }
};
struct timeout_of_event {
  anyio::event e;
  auto make() { return anyio::fail_after(1h, e.wait()); }
  void let_on() { e.set(); }
};
struct move_on_of_event {
  anyio::event e;
  auto make() { return anyio::move_on_after(1h, e.wait()); }
  void let_on() { e.set(); }
};
struct all_of_events {
  anyio::event e;
  auto make() { return anyio::when_all(e.wait(), anyio::sleep(0s), e.wait()); }
  void let_on() { e.set(); }
};
struct any_of_events {
  anyio::event never;
  anyio::event e;
  auto make() { return anyio::when_any(never.wait(), e.wait()); }
  void let_on() { e.set(); }
};
struct result_of_event {
  anyio::event e;
  auto make() { return anyio::as_result(e.wait()); }
  void let_on() { e.set(); }
};
struct nested {
  anyio::event never;
  anyio::event e;
  auto make() {
    return anyio::fail_after(1h,
                             anyio::when_any(never.wait(), anyio::when_all(anyio::fail_after(2h, e.wait()))));
  }
  void let_on() { e.set(); }
};

#define SUBJECTS                                                                             \
  sleeping, event_wait, acquiring, channel_receive, channel_send, joining, timeout_of_event, \
      move_on_of_event, all_of_events, any_of_events, result_of_event, nested
#define RESTARTABLE                                                                                    \
  sleeping, event_wait, acquiring, channel_receive, timeout_of_event, move_on_of_event, all_of_events, \
      any_of_events, nested

template <class Subject>
using operation_of = decltype(std::declval<Subject&>().make());

void turns(anyio::loop& l, int n = 4) {
  for (int i = 0; i < n; ++i) l.run_once(0s);
}

template <class F>
void await_into(anyio::task_group& g, F make, int& count) {
  g.start_soon(
      [](F f, int* n) -> task<> {
        static_cast<void>(co_await f());
        ++*n;
      },
      make, &count);
}

// A failure that is a value stays one: it does not turn back into an operation that raises.
static_assert(!std::is_convertible_v<decltype(as_result(std::declval<anyio::event&>().wait())),
                                     anyio::event_operation>);
static_assert(!std::is_convertible_v<decltype(as_result(std::declval<task<int>>())), task<int>>);

TEST_CASE_TEMPLATE("a callback is called from the loop, exactly once", Subject, SUBJECTS) {
  anyio::loop l;
  Subject s;
  int named = 0;
  int temporary = 0;
  int awaited = 0;
  auto op = s.make();
  op.start([&named](auto) { ++named; });
  s.make().start(
      [&temporary, big = std::string("kept by the loop")](auto) { temporary += big.size() == 16; });
  anyio::task_group g;
  await_into(
      g, [&s] { return s.make(); }, awaited);
  turns(l);
  s.let_on();
  CHECK((std::is_same_v<Subject, sleeping> || named + temporary + awaited == 0));
  l.run();
  CHECK(named == 1);
  CHECK(temporary == 1);
  CHECK(awaited == 1);
  turns(l);
  CHECK(named + temporary + awaited == 3);
}

TEST_CASE_TEMPLATE("start does not complete an operation, even if it could", Subject, SUBJECTS) {
  anyio::loop l;
  Subject s;
  s.let_on();
  bool inside = true;
  int calls = 0;
  auto op = s.make();
  op.start([p = &inside, n = &calls](auto) {
    CHECK(!*p);
    ++*n;
  });
  s.make().start([&](auto) {
    CHECK(!inside);
    ++calls;
  });
  inside = false;
  if constexpr (std::is_same_v<Subject, channel_send>) {
    turns(l);
    s.let_on();
  }
  l.run();
  CHECK(calls == 2);
}

TEST_CASE_TEMPLATE("a callback is not called after its operation was destroyed or assigned to", Subject,
                   SUBJECTS) {
  anyio::loop l;
  Subject s;
  if constexpr (std::is_same_v<Subject, sleeping>) s.time = 1min;  // not before it is destroyed
  int calls = 0;
  {
    auto destroyed_before = s.make();
    destroyed_before.start([&calls](auto) { ++calls; });
    turns(l);
  }
  auto assigned = s.make();
  assigned.start([&calls](auto) { ++calls; });
  auto ready_and_destroyed = std::make_unique<operation_of<Subject>>(s.make());
  ready_and_destroyed->start([&calls](auto) { ++calls; });
  turns(l);
  assigned = {};
  s.let_on();
  ready_and_destroyed.reset();
  l.run();
  CHECK(calls == 0);
}

TEST_CASE_TEMPLATE(
    "assigning an empty operation cancels, and a default-constructed operation is invalid_argument", Subject,
    SUBJECTS) {
  anyio::loop l;
  operation_of<Subject> op{};
  errc named = errc::ok;
  errc temporary = errc::ok;
  errc awaited = errc::ok;
  const auto code = [](const auto& r) {
    if constexpr (requires { r.error(); }) {
      return r.error().code();
    } else {
      return (*r).error().code();
    }
  };
  op.start([&](auto r) { named = code(r); });
  operation_of<Subject>{}.start([&](auto r) { temporary = code(r); });
  anyio::task_group g;
  g.start_soon([&]() -> task<> {
    operation_of<Subject> mine{};
    if constexpr (std::is_same_v<Subject, result_of_event>) {
      const auto r = co_await mine;
      awaited = r.error().code();
    } else {
      const auto r = co_await anyio::as_result(mine);
      awaited = r.error().code();
    }
  });
  CHECK(named == errc::ok);
  turns(l);
  CHECK(named == errc::invalid_argument);
  CHECK(temporary == errc::invalid_argument);
  CHECK(awaited == errc::invalid_argument);
}

TEST_CASE_TEMPLATE("in its callback an operation is idle: it may be destroyed", Subject, SUBJECTS) {
  anyio::loop l;
  Subject s;
  auto owner = std::make_unique<operation_of<Subject>>(s.make());
  int calls = 0;
  owner->start([o = &owner, n = &calls](auto) {
    o->reset();
    ++*n;
  });
  turns(l);
  s.let_on();
  l.run();
  CHECK(calls == 1);
  CHECK(owner == nullptr);
}

TEST_CASE_TEMPLATE("in its callback an operation is idle: it may be assigned and started again", Subject,
                   SUBJECTS) {
  anyio::loop l;
  Subject s;
  struct state {
    Subject& subject;
    operation_of<Subject> op;
    int calls = 0;
    void go() {
      op.start([this](auto) {
        if (++calls == 4) return;
        op = subject.make();
        go();
        subject.let_on();
      });
    }
  } state{s, s.make()};
  state.go();
  turns(l);
  for (int i = 0; i < 20 && state.calls < 4; ++i) {
    s.let_on();
    l.run_once(2ms);
  }
  CHECK(state.calls == 4);
}

TEST_CASE_TEMPLATE("in its callback an operation may be started again unchanged", Subject, RESTARTABLE) {
  anyio::loop l;
  Subject s;
  struct state {
    operation_of<Subject> op;
    int good = 0;
    int bad = 0;
    void go() {
      op.start([this](auto r) {
        if (!r.has_value()) {
          ++bad;
        } else if (++good != 3) {
          go();
        }
      });
    }
  } state{s.make()};
  state.go();
  turns(l);
  s.let_on();
  l.run();
  CHECK(state.bad == 0);
  CHECK(state.good == 3);
}

TEST_CASE_TEMPLATE("a callback may destroy another operation that is ready in the same batch", Subject,
                   SUBJECTS) {
  anyio::loop l;
  Subject s;
  std::vector<std::unique_ptr<operation_of<Subject>>> ops;
  int calls = 0;
  for (int i = 0; i < 4; ++i) {
    ops.push_back(std::make_unique<operation_of<Subject>>(s.make()));
    ops.back()->start([o = &ops, n = &calls](auto) {
      o->clear();
      ++*n;
    });
  }
  turns(l);
  s.let_on();
  l.run();
  CHECK(calls == 1);
}

TEST_CASE_TEMPLATE("destroying the waiting task cancels the operation", Subject, SUBJECTS) {
  anyio::loop l;
  Subject s;
  int count = 0;
  {
    anyio::task_group g;
    await_into(
        g, [&s] { return s.make(); }, count);
    await_into(
        g, [&s] { return s.make(); }, count);
    turns(l);
    s.let_on();  // ready, but not yet delivered
  }
  l.run();
  CHECK(count == 0);
}

TEST_CASE_TEMPLATE("an idle operation can be moved, and a named one can be awaited", Subject, SUBJECTS) {
  anyio::loop l;
  Subject s;
  operation_of<Subject> first = s.make();
  operation_of<Subject> second = std::move(first);
  first = std::move(second);
  bool done = false;
  anyio::task_group g;
  g.start_soon([&]() -> task<> {
    static_cast<void>(co_await first);
    done = true;
  });
  turns(l);
  s.let_on();
  l.run();
  CHECK(done);
}

TEST_CASE_TEMPLATE("pending operations are destroyed without a callback when the loop ends", Subject,
                   SUBJECTS) {
  std::optional<anyio::loop> l(std::in_place);
  Subject s;
  int calls = 0;
  auto kept = std::make_shared<int>();
  auto named = s.make();
  named.start([&calls](auto) { ++calls; });
  s.make().start([&calls, kept](auto) { ++calls; });
  anyio::task_group g;
  await_into(
      g, [&s, kept] { return s.make(); }, calls);
  turns(*l);
  s.let_on();
  CHECK(kept.use_count() == 3);
  l.reset();
  CHECK(calls == 0);
  CHECK(kept.use_count() == 2);  // a group keeps its children, which will not run again
  {
    anyio::loop other;
    named = s.make();
    if constexpr (!std::is_same_v<Subject, channel_send> && !std::is_same_v<Subject, joining>) {
      named.start([&calls](auto) { ++calls; });
      other.run();
      CHECK(calls == 1);
    }
    named = {};
  }
}

TEST_CASE("moving a pending operation fails an assertion") {
  if (!support::asserts) return;
  anyio::loop l;
  anyio::sleep_operation op = anyio::sleep(1h);
  op.start([](result<>) {});
  CHECK(support::dies([&] { anyio::sleep_operation other = std::move(op); }));
  CHECK(support::dies([&] {
    anyio::sleep_operation other;
    other = std::move(op);
  }));
  CHECK(support::dies([&] { op.start([](result<>) {}); }));
  CHECK(!support::dies([&] { op = {}; }));
}

TEST_CASE("a result and raise() are operations too") {
  anyio::loop l;
  int value = 0;
  errc code = errc::ok;
  anyio::raise(errc::busy_resource).start([&](result<> r) { code = r.error().code(); });
  CHECK(code == errc::ok);
  l.run();
  CHECK(code == errc::busy_resource);
  const result<int> kept = 20;
  const auto sum = anyio::run([&]() -> task<int> { co_return co_await kept + co_await result<int>(1); });
  CHECK(sum == 21);
  const auto failed = anyio::run(anyio::as_result([](int* v) -> task<> {
    *v = 1;
    co_await anyio::raise(anyio::error(errc::tls, 5, "here"));
    *v = 2;
  }(&value)));
  CHECK(value == 1);
  CHECK(failed.error() == anyio::error(errc::tls, 5, "here"));
  const auto again =
      anyio::run(anyio::as_result([](result<int> r) -> task<int> { co_return co_await r; }(errc::timed_out)));
  CHECK(again.error() == errc::timed_out);
}

TEST_CASE("an operation that always completes at once does not starve others") {
  anyio::loop l;
  anyio::event e;
  e.set();
  bool others = false;
  anyio::task_group g;
  g.start_soon([&]() -> task<> {
    while (!others) co_await e.wait();
  });
  g.start_soon([&] { others = true; });
  anyio::run(g.join());
  CHECK(others);
}

TEST_CASE("a started temporary accepts a move-only callable that is called as an rvalue") {
  anyio::loop l;
  struct once {
    std::unique_ptr<int> n;
    int* out;
    void operator()(result<> r) && { *out = r.has_value() ? *n : -1; }
  };
  int out = 0;
  anyio::sleep(0s).start(once{std::make_unique<int>(7), &out});
  l.run();
  CHECK(out == 7);
  struct alignas(64) wide {
    int* out;
    void operator()(result<>) const { *out = reinterpret_cast<std::uintptr_t>(this) % 64 == 0; }
  };
  anyio::sleep(0s).start(wide{&out});
  l.run();
  CHECK(out == 1);
}

}  // namespace
