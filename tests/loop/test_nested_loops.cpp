// A loop inside another: which operations the inner one may wait for, and which not.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "support/dies.hpp"
#include "support/faces.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::as_result;
using anyio::errc;
using anyio::task;
using anyio::unix_stream;

/// Calls `f(a, b)` in a callback of a running loop, with two connected streams of that loop.
template <class F>
void inside_a_callback(F f) {
  anyio::loop outer;
  auto pair = anyio::create_unix_stream_pair().value();
  outer.post([&] { f(pair.first, pair.second); });
  outer.run();
}

/// An operation that cannot complete fails an assertion; without assertions it is an error of `get(stream)`,
/// which returns a result.
template <class Get>
void is_refused(Get get) {
  inside_a_callback([&](unix_stream& a, unix_stream&) {
    if (support::asserts) {
      CHECK(support::dies([&] { static_cast<void>(get(a)); }));
      return;
    }
    const auto r = get(a);
    CHECK(!r.has_value());
    CHECK(r.error() == errc::invalid_argument);
    CHECK(r.error().message().find("loop is blocked") != std::string::npos);
  });
}

task<std::string> receive_from(unix_stream& s) { co_return co_await s.receive(); }

TEST_CASE("nested loops: run rejects an operation of the outer loop") {
  is_refused([](unix_stream& s) { return anyio::run(as_result(s.receive())); });
  is_refused([](unix_stream& s) {
    auto named = s.receive();
    return anyio::run(as_result(named));
  });
}

TEST_CASE("nested loops: a send is rejected before any byte is sent") {
  is_refused([](unix_stream& s) { return anyio::run(as_result(s.send("x"))); });
  is_refused(
      [](unix_stream& s) { return anyio::run(as_result([&]() -> task<> { co_await s.send("x"); }())); });
  is_refused([](unix_stream& s) { return anyio::run(as_result(anyio::fail_after(1h, s.send("x")))); });
}

TEST_CASE("nested loops: a task that awaits such an operation gets the error, at any depth") {
  is_refused([](unix_stream& s) { return anyio::run(as_result(receive_from(s))); });
  is_refused([](unix_stream& s) {
    return anyio::run(as_result([&]() -> task<std::string> { co_return co_await receive_from(s); }()));
  });
  is_refused([](unix_stream& s) { return anyio::run(as_result(anyio::fail_after(1h, receive_from(s)))); });
  is_refused([](unix_stream& s) { return anyio::run(as_result(anyio::fail_after(1h, s.receive()))); });
  is_refused(
      [](unix_stream& s) { return anyio::run(as_result(anyio::when_all(anyio::sleep(0s), s.receive()))); });
  is_refused([](unix_stream& s) {
    return anyio::run(as_result([&]() -> task<> {
      anyio::task_group group;
      group.start_soon(receive_from(s));
      co_await group.join();
    }()));
  });
}

TEST_CASE("nested loops: a loop that runs until idle gets the error too") {
  inside_a_callback([](unix_stream& a, unix_stream&) {
    const auto waits = [&] {
      anyio::loop inner;
      errc code = errc::ok;
      receive_from(a).start([&](anyio::result<std::string> r) { code = r.error().code(); });
      inner.run();
      return code;
    };
    if (support::asserts) {
      CHECK(support::dies(waits));
    } else {
      CHECK(waits() == errc::invalid_argument);
    }
  });
}

TEST_CASE("nested loops: the children of a group belong to the loop on which they began") {
  is_refused([](unix_stream& s) {
    anyio::task_group group;
    group.start_soon(receive_from(s));
    return anyio::run(as_result(group.join()));
  });
}

TEST_CASE("nested loops: run rejects an operation of a loop that is not running") {
  anyio::loop one;
  auto pair = anyio::create_unix_stream_pair().value();
  anyio::loop two;
  const auto receive = [&] { return anyio::run(as_result(pair.first.receive())); };
  if (support::asserts) {
    CHECK(support::dies([&] { static_cast<void>(receive()); }));
  } else {
    CHECK(receive().error() == errc::invalid_argument);
  }
  // Another thread runs it.
  bool over = false;
  const auto turns = [&]() -> task<> {
    while (!over) {
      one.run_once(0s);
      co_await anyio::sleep(0s);
    }
  };
  const auto exchange = [&]() -> task<> {
    co_await pair.second.send("x");
    CHECK(co_await pair.first.receive() == "x");
    over = true;
  };
  anyio::run(anyio::when_all(turns(), exchange()));
}

TEST_CASE("nested loops: operations that run does not wait for complete when the outer loop continues") {
  std::string got;
  inside_a_callback([&](unix_stream& a, unix_stream& b) {
    anyio::run([&]() -> task<> {
      a.receive().start([&](anyio::result<std::string> r) { got = std::move(r).value(); });
      b.send("later").start([](anyio::result<> r) { CHECK(r); });
      co_await anyio::sleep(1ms);
      CHECK(got.empty());
    });
  });
  CHECK(got == "later");
}

TEST_CASE("nested loops: run waits for operations of its own loop") {
  bool posted = false;
  inside_a_callback([&](unix_stream& a, unix_stream& b) {
    anyio::loop& outer = anyio::loop::current();
    const int got = anyio::run([&]() -> task<int> {
      auto own = anyio::create_unix_stream_pair().value();
      co_await own.first.send("x");
      outer.post([&posted] { posted = true; });
      co_return static_cast<int>((co_await own.second.receive()).size());
    });
    CHECK(got == 1);
    CHECK(!posted);
    b.send("still").start([](anyio::result<> r) { CHECK(r); });
    a.receive().start([](anyio::result<std::string> r) { CHECK(r.value() == "still"); });
  });
  CHECK(posted);
}

TEST_CASE("nested loops: turns of another loop may let its task wait for the outer loop") {
  std::string got;
  anyio::loop inner;
  inside_a_callback([&](unix_stream& a, unix_stream& b) {
    inner.post(
        [&] { receive_from(a).start([&](anyio::result<std::string> r) { got = std::move(r).value(); }); });
    while (inner.run_once(0s)) {
    }
    b.send("from outside").start([](anyio::result<> r) { CHECK(r); });
  });
  CHECK(got == "from outside");
}

TEST_CASE("nested loops: loops that run in turns can use each other's streams") {
  anyio::loop one;
  auto pair = anyio::create_unix_stream_pair().value();
  anyio::loop two;
  std::string got;
  pair.first.receive().start([&](anyio::result<std::string> r) { got = std::move(r).value(); });
  pair.second.send("x").start([](anyio::result<> r) { CHECK(r); });
  for (int i = 0; i < 3; ++i) {
    two.run_once(0s);
    one.run_once(0s);
  }
  CHECK(got == "x");
}

TEST_CASE("nested loops: running a loop from inside itself is an error, and the loop continues") {
  for (const bool once : {false, true}) {
    anyio::loop loop;
    bool refused = false, after = false;
    const auto again = [&] {
      if (once) {
        loop.run_once(0s);
      } else {
        loop.run();
      }
    };
    loop.post([&] {
      if (support::asserts || !ANYIO_NET_EXCEPTIONS) {
        refused = support::dies(again);
        return;
      }
#if ANYIO_NET_EXCEPTIONS
      try {
        again();
      } catch (const anyio::exception& e) {
        refused = e.error() == errc::invalid_argument;
      }
#endif
    });
    loop.post([&] { after = true; });
    loop.run();
    CHECK(refused);
    CHECK(after);
  }
}

}  // namespace
