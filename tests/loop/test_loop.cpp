// The loop: turns, stopping, order, embedding, and how it ends.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include "support/allocations.hpp"
#include "support/dies.hpp"

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>

namespace {

using namespace std::chrono_literals;
using anyio::as_result;
using anyio::errc;
using anyio::loop;
using anyio::result;
using anyio::run;
using anyio::task;

TEST_CASE("run() returns when nothing is pending and nothing is posted, and can be called again") {
  loop l;
  l.run();
  int calls = 0;
  l.post([&] {
    ++calls;
    l.post([&] { ++calls; });
    anyio::sleep(1ms).start([&](result<>) { ++calls; });
  });
  CHECK(calls == 0);
  l.run();
  CHECK(calls == 3);
  l.post([&] { ++calls; });
  l.run();
  CHECK(calls == 4);
}

TEST_CASE("posted calls run in order, each once") {
  loop l;
  std::vector<int> order;
  const anyio::loop_handle h = l.handle();
  for (int i = 0; i < 100; ++i) l.post([&order, i] { order.push_back(i); });
  l.run();
  for (int i = 100; i < 200; ++i)
    CHECK(h.post([&order, p = std::make_unique<int>(i)] { order.push_back(*p); }));
  l.run();
  CHECK(order.size() == 200);
  for (int i = 0; i < 200; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("stop() ends run() after the current call, and the rest stays in order") {
  loop l;
  std::vector<int> order;
  for (int i = 0; i < 6; ++i) {
    l.post([&, i] {
      order.push_back(i);
      if (i % 2 == 1) l.stop();
    });
  }
  l.run();
  CHECK(order == std::vector{0, 1});
  l.post([&] { order.push_back(6); });
  l.run();
  CHECK(order == std::vector{0, 1, 2, 3});
  l.run();
  l.run();
  CHECK(order == std::vector{0, 1, 2, 3, 4, 5, 6});
}

TEST_CASE("run(x) returns its value even if stop() is called during it") {
  loop l;
  l.post([&] { l.stop(); });
  CHECK(run([&]() -> task<int> {
          l.stop();
          co_await anyio::sleep(1ms);
          co_return 3;
        }) == 3);
}

TEST_CASE("run(x) leaves other operations pending on the caller's loop, and ends them on its own loop") {
  auto kept = std::make_shared<int>();
  {
    loop l;
    bool ran = false;
    anyio::sleep(2ms).start([&, kept](result<>) { ran = true; });
    run(anyio::sleep(0s));
    CHECK(!ran);
    l.run();
    CHECK(ran);
  }
  run([&]() -> task<> {
    anyio::sleep(1h).start([kept](result<>) { CHECK(false); });
    CHECK(kept.use_count() == 2);
    co_return;
  });
  CHECK(kept.use_count() == 1);
}

TEST_CASE("run(x) inside a running loop uses its own loop, and the outer loop is current again afterwards") {
  loop l;
  int inner = 0;
  bool outer_ran = false;
  anyio::sleep(0s).start([&](result<>) { outer_ran = true; });
  l.post([&] {
    CHECK(&loop::current() == &l);
    inner = run([&]() -> task<int> {
      CHECK(&loop::current() != &l);
      co_await anyio::sleep(1ms);
      co_return run([]() -> task<int> {
        co_await anyio::sleep(1ms);
        co_return 5;
      });
    });
    CHECK(&loop::current() == &l);
    CHECK(outer_ran);
    anyio::sleep(0s).start([&](result<>) { ++inner; });
  });
  l.run();
  CHECK(inner == 6);
  CHECK(outer_ran);
  const int nested = run([]() -> task<int> {
    const int a = run([]() -> task<int> { co_return 1; });
    co_await anyio::sleep(0s);
    co_return a + 1;
  });
  CHECK(nested == 2);
}

TEST_CASE("the current loop is the running one, else the one created last") {
  loop a;
  CHECK(&loop::current() == &a);
  auto b = std::make_unique<loop>();
  loop c;
  CHECK(&loop::current() == &c);
  std::vector<const loop*> seen;
  a.post([&] {
    seen.push_back(&loop::current());
    anyio::sleep(0s).start([&](result<>) { seen.push_back(&loop::current()); });
    CHECK(!b->run_once(0s));
    CHECK(&loop::current() == &a);
  });
  a.run();
  CHECK(seen == std::vector<const loop*>{&a, &a});
  b.reset();
  CHECK(&loop::current() == &c);
  bool done = false;
  a.post([&] { []() -> task<> { co_await anyio::sleep(1ms); }().start([&](result<>) { done = true; }); });
  a.run();
  CHECK(done);
}

TEST_CASE("two threads each have a loop") {
  loop l;
  int there = 0;
  std::thread other([&] {
    loop mine;
    CHECK(&loop::current() == &mine);
    there = run([]() -> task<int> {
      co_await anyio::sleep(1ms);
      co_return 1;
    });
  });
  const int here = run([]() -> task<int> {
    co_await anyio::sleep(1ms);
    co_return 2;
  });
  other.join();
  CHECK(here + there == 3);
}

TEST_CASE("run_once runs one turn, waits at most the given time, and returns whether anything ran") {
  loop l;
  CHECK(!l.run_once(0s));
  CHECK(!l.run_once(1ms));
  CHECK(!l.run_once(-1h));
  CHECK(!l.run_once(std::chrono::duration<double>(0.001)));
  bool ran = false;
  anyio::sleep_operation s = anyio::sleep(3ms);
  s.start([&ran](result<>) { ran = true; });
  const auto before = anyio::now();
  while (!ran) l.run_once(1h);
  CHECK(anyio::now() - before >= 3ms);
  l.post([] {});
  CHECK(l.run_once(1h));
}

TEST_CASE("timers run in the order of their deadlines and never early") {
  loop l;
  std::vector<int> order;
  const auto begin = anyio::now();
  for (const int ms : {5, 1, 3, 2, 4}) {
    anyio::sleep(std::chrono::milliseconds(ms)).start([&, ms, begin](result<>) {
      CHECK(anyio::now() - begin >= std::chrono::milliseconds(ms));
      order.push_back(ms);
    });
  }
  l.run();
  CHECK(order == std::vector{1, 2, 3, 4, 5});
}

TEST_CASE("a timer of 900 microseconds needs at most two turns of the poller") {
  loop l;
  run(anyio::sleep(0s));
  bool ran = false;
  anyio::sleep(900us).start([&](result<>) { ran = true; });
  l.run_once(0s);
  int turns = 0;
  while (!ran) {
    l.run_once(1h);
    ++turns;
  }
  CHECK(turns <= 2);
}

TEST_CASE("a loop works inside a foreign loop") {
  loop l;
  int done = 0;
  anyio::sleep(2ms).start([&](result<>) { ++done; });
  anyio::event e;
  e.wait().start([&](result<>) { ++done; });
  CHECK(l.native_handle() >= 0);
  std::thread other([h = l.handle(), &e] { h.post([&e] { e.set(); }); });
  CHECK(l.time_until_next() == 0s);
  while (done != 2) {
    const auto wait = l.time_until_next();
    pollfd p{l.native_handle(), POLLIN, 0};
    const int ms = wait == anyio::duration::max()
                       ? -1
                       : static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(wait).count());
    ::poll(&p, 1, ms);
    l.run_once(0s);
  }
  other.join();
  CHECK(l.time_until_next() == anyio::duration::max());
}

TEST_CASE("dump lists pending operations, one per line, also from inside the loop") {
  loop l;
  CHECK(l.dump().empty());
  anyio::event e;
  anyio::sleep_operation s = anyio::sleep(1h);
  s.start([](result<>) {});
  e.wait().start([](result<>) {});
  l.post([] {});
  std::string inside;
  l.post([&] { inside = l.dump(); });
  l.post([] {});
  l.run_once(0s);
  CHECK(inside.find("post") != std::string::npos);
  const std::string text = l.dump();
  CHECK(text.find("sleep") != std::string::npos);
  CHECK(text.find("wait") != std::string::npos);
  CHECK(text.find("post") == std::string::npos);
  std::size_t lines = 0;
  for (const char c : text) lines += c == '\n';
  CHECK(lines == 2);
}

TEST_CASE("a flood of posted calls does not starve timers") {
  loop l;
  bool stopped = false;
  struct again {
    loop& l;
    bool& stopped;
    void operator()() const {
      if (!stopped) l.post(*this);
    }
  };
  for (int i = 0; i < 10; ++i) l.post(again{l, stopped});
  anyio::sleep(1ms).start([&](result<>) { stopped = true; });
  l.run();
  CHECK(stopped);
}

TEST_CASE("a loop may end first: posted calls and callbacks are destroyed without being called") {
  auto kept = std::make_shared<int>();
  anyio::loop_handle h;
  CHECK(!h.post([] {}));
  {
    loop l;
    h = l.handle();
    l.post([kept] { CHECK(false); });
    CHECK(h.post([kept] { CHECK(false); }));
    anyio::sleep(1h).start([kept](result<>) { CHECK(false); });
    [](std::shared_ptr<int>) -> task<> { co_await anyio::sleep(1h); }(kept).start(
                                 [](result<>) { CHECK(false); });
    l.post([&l] { l.stop(); });
    CHECK(kept.use_count() == 5);
  }
  CHECK(kept.use_count() == 1);
  CHECK(!h.post([kept] { CHECK(false); }));
  CHECK(kept.use_count() == 1);
}

TEST_CASE("destructors that run when the loop ends may use it") {
  std::vector<int> ends;
  anyio::event e;
  {
    loop l;
    struct uses_loop {
      std::vector<int>* ends;
      anyio::event* e;
      loop* l;
      uses_loop(std::vector<int>& v, anyio::event& ev, loop& lo) : ends(&v), e(&ev), l(&lo) {}
      uses_loop(uses_loop&& other) noexcept
          : ends(std::exchange(other.ends, nullptr)), e(other.e), l(other.l) {}
      ~uses_loop() {
        if (ends == nullptr) return;
        ends->push_back(1);
        e->set();
        l->post([v = ends] { v->push_back(2); });
        CHECK(!l->handle().post([] {}));
        anyio::sleep(0s).start([v = ends](result<>) { v->push_back(3); });
      }
    };
    anyio::sleep(1h).start([u = uses_loop(ends, e, l)](result<>) {});
    l.post([u = uses_loop(ends, e, l)] {});
    e.wait().start([u = uses_loop(ends, e, l)](result<>) {});
  }
  CHECK(ends == std::vector{1, 1, 1});
}

TEST_CASE("destructors that run when the loop ends may still send") {
  struct session {
    anyio::unix_stream own;
    anyio::unix_stream& log;
    char room[16];
    ~session() {
      own.send("bye").start([](result<>) {});
      log.send("log").start([](result<>) {});
    }
  };
  for (const bool log_is_older : {true, false}) {
    CAPTURE(log_is_older);
    anyio::unique_fd peer_of_own, peer_of_log;
    anyio::unix_stream log;
    {
      loop l;
      const auto made = [](anyio::unique_fd& peer) {
        int fds[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
        peer.reset(fds[1]);
        return *anyio::unix_stream::from_fd(fds[0]);
      };
      if (log_is_older) log = made(peer_of_log);
      std::shared_ptr<session> s(new session{made(peer_of_own), log, {}});
      if (!log_is_older) log = made(peer_of_log);
      session& it = *s;
      it.own.receive(anyio::mutable_buffer(it.room)).start([kept = std::move(s)](result<std::size_t>) {
        CHECK(false);
      });
      while (l.run_once(0s)) {
      }
    }
    const auto received = [](const anyio::unique_fd& peer) {
      char bytes[16];
      const ssize_t n = ::recv(peer.get(), bytes, sizeof bytes, MSG_DONTWAIT);
      return std::string(bytes, n > 0 ? static_cast<std::size_t>(n) : 0);
    };
    CHECK(received(peer_of_own) == "bye");
    CHECK(received(peer_of_log) == "log");
  }
}

TEST_CASE("a loop may be destroyed in its own callback") {
  auto kept = std::make_shared<int>();
  int calls = 0;
  auto l = std::make_unique<loop>();
  l->post([&] {
    ++calls;
    l.reset();
  });
  l->post([&, kept] { ++calls; });
  anyio::sleep(0s).start([&, kept](result<>) { ++calls; });
  loop* raw = l.get();
  raw->run();
  CHECK(calls == 1);
  CHECK(kept.use_count() == 1);
  l = std::make_unique<loop>();
  raw = l.get();
  anyio::sleep(1ms).start([&](result<>) { l.reset(); });
  raw->run_once(1h);
  if (l) raw->run_once(1h);
  CHECK(l == nullptr);
  run(anyio::sleep(0s));
}

TEST_CASE("operations may outlive their loop and be started on another") {
  anyio::sleep_operation s = anyio::sleep(1ms);
  anyio::event e;
  auto t = anyio::fail_after(1h, e.wait());
  int calls = 0;
  {
    loop l;
    s.start([&calls](result<>) { ++calls; });
    t.start([&calls](result<>) { ++calls; });
    l.run_once(0s);
  }
  CHECK(calls == 0);
  loop l;
  s.start([&calls](result<>) { ++calls; });
  t.start([&calls](result<>) { ++calls; });
  e.set();
  l.run();
  CHECK(calls == 2);
}

TEST_CASE("a loop cannot be run from inside itself") {
  if (!support::asserts) return;
  loop l;
  l.post([&] { CHECK(support::dies([&] { l.run(); })); });
  l.run();
}

TEST_CASE("without a loop, loop::current() and starting an operation abort") {
  CHECK(support::dies([] { static_cast<void>(loop::current()); }));
  CHECK(support::dies([] { anyio::sleep(0s).start([](result<>) {}); }));
}

#if defined(__cpp_exceptions)
TEST_CASE("exceptions of callbacks and posted calls leave run(), and the loop stays usable") {
  loop l;
  std::vector<int> order;
  anyio::event e;
  l.post([&] { order.push_back(1); });
  l.post([] { throw std::domain_error("posted"); });
  l.post([&] { order.push_back(2); });
  e.wait().start([](result<>) { throw std::domain_error("callback"); });
  anyio::event_operation named = e.wait();
  named.start([](result<>) { throw std::domain_error("named"); });
  e.wait().start([&](result<>) { order.push_back(3); });
  e.set();
  CHECK_THROWS_AS(l.run(), std::domain_error);
  CHECK_THROWS_AS(l.run_once(0s), std::domain_error);
  CHECK_THROWS_AS(l.run(), std::domain_error);
  l.post([&] { order.push_back(4); });
  l.run();
  CHECK(order == std::vector{1, 2, 3, 4});
  CHECK(&loop::current() == &l);
  named.start([](result<>) {});
  l.run();
}
#endif

}  // namespace
