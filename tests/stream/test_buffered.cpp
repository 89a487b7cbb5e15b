// Reading by length and by delimiter.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/conformance.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::buffered_stream;
using anyio::errc;
using anyio::loop;
using anyio::memory_stream;
using anyio::result;
using anyio::task;

void turn(loop& l) {
  for (int i = 0; i < 100 && l.run_once(0ms); ++i) {
  }
}

template <class Op>
auto outcome(Op&& op) {
  return anyio::run(anyio::as_result(std::move(op)));
}

template <class T>
struct inbox {
  std::optional<result<T>> value;
  auto callback() {
    return [this](result<T> r) { value.emplace(std::move(r)); };
  }
  errc code() const { return value ? value->error().code() : errc::deadlock; }
};

/// A sender and a buffered reader.
struct fixture {
  explicit fixture(std::size_t capacity = 65536)
      : pair(anyio::create_memory_stream_pair(capacity)), in(pair.second) {}
  void send(std::string_view text) { CHECK(outcome(a.send(text))); }
  loop l;
  std::pair<memory_stream, memory_stream> pair;
  memory_stream& a = pair.first;
  memory_stream& b = pair.second;
  buffered_stream in;
};

TEST_CASE("buffered: bytes, delimiters and lines from one stream") {
  fixture f;
  f.send("HTTP/1.1 200 OK\r\nA: 1\n\nbody--end--rest");
  anyio::run([&]() -> task<> {
    CHECK(co_await f.in.receive_exactly(4) == "HTTP");
    CHECK(co_await f.in.receive_line() == "/1.1 200 OK");
    CHECK(co_await f.in.receive_line() == "A: 1");
    CHECK(co_await f.in.receive_line() == "");
    CHECK(co_await f.in.receive_until("--end--", 100) == "body");
    CHECK(f.in.buffer() == "rest");
    CHECK(co_await f.in.receive(2) == "re");
    char two[2] = {};
    co_await f.in.receive_exactly(two);
    CHECK(std::string(two, 2) == "st");
    CHECK(f.in.buffer().empty());
  });
}

TEST_CASE("buffered: receive returns buffered bytes first, and then reads once") {
  fixture f;
  f.in.feed_data("fed");
  f.send("sent");
  CHECK(f.in.buffer() == "fed");
  CHECK(anyio::run(f.in.receive()) == "fed");
  CHECK(anyio::run(f.in.receive()) == "sent");
  f.in.feed_data("more");
  CHECK(anyio::run(f.in.receive_view()) == "more");
  f.send("view");
  CHECK(anyio::run([&]() -> task<std::string> { co_return std::string(co_await f.in.receive_view()); }) ==
        "view");
}

TEST_CASE("buffered: small receives read ahead") {
  fixture f;
  f.send("0123456789");
  CHECK(anyio::run(f.in.receive(3)) == "012");
  CHECK(f.in.buffer() == "3456789");
  std::string room(4, '\0');
  CHECK(anyio::run(f.in.receive(room)) == 4);
  CHECK(room == "3456");
}

TEST_CASE("buffered: only one CR before the LF is removed") {
  fixture f;
  f.send("one\r\r\ntwo\rthree\n\r\n\n");
  CHECK(anyio::run(f.in.receive_line()) == "one\r");
  CHECK(anyio::run(f.in.receive_line()) == "two\rthree");
  CHECK(anyio::run(f.in.receive_line()) == "");
  CHECK(anyio::run(f.in.receive_line()) == "");
}

TEST_CASE("buffered: a delimiter that arrives in pieces is found") {
  fixture f;
  inbox<std::string> got;
  auto op = f.in.receive_until("abcabd", 100);
  op.start(got.callback());
  for (const char c : std::string_view("xxabcabcabdyy")) {
    turn(f.l);
    CHECK(!got.value);
    f.send(std::string_view(&c, 1));
    if (got.value) break;
    if (c == 'd') break;
  }
  turn(f.l);
  CHECK(got.value);
  CHECK(got.value->value_or("") == "xxabc");
  CHECK(f.in.buffer() == "");
}

TEST_CASE("buffered: the delimiter is copied") {
  fixture f;
  inbox<std::string> got;
  std::optional<std::string> delimiter("a delimiter that is too long to lie inside a string");
  const std::string copy = *delimiter;
  auto op = f.in.receive_until(*delimiter, 100);
  delimiter.reset();
  op.start(got.callback());
  f.send("data" + copy);
  turn(f.l);
  CHECK(got.value);
  CHECK(got.value->value_or("") == "data");
}

TEST_CASE("buffered: if max_bytes contain no delimiter, no byte is lost") {
  fixture f;
  f.send("0123456789|");
  CHECK(outcome(f.in.receive_until("|", 5)).error() == errc::delimiter_not_found);
  CHECK(f.in.buffer() == "01234");
  CHECK(outcome(f.in.receive_until("|", 5)).error() == errc::delimiter_not_found);
  CHECK(f.in.buffer() == "01234");  // only that far was read
  CHECK(anyio::run(f.in.receive_until("|", 11)) == "0123456789");
}

TEST_CASE("buffered: a delimiter in the buffer is found even beyond max_bytes") {
  fixture f;
  f.in.feed_data("0123456789|x");
  CHECK(anyio::run(f.in.receive_until("|", 2)) == "0123456789");
  CHECK(outcome(f.in.receive_until("|", 1)).error() == errc::delimiter_not_found);
  CHECK(f.in.buffer() == "x");
}

TEST_CASE("buffered: senseless sizes are invalid_argument") {
  fixture f;
  f.in.feed_data("data");
  CHECK(outcome(f.in.receive_until("", 10)).error() == errc::invalid_argument);
  CHECK(outcome(f.in.receive_until("x", 0)).error() == errc::invalid_argument);
  CHECK(outcome(f.in.receive_line(0)).error() == errc::invalid_argument);
  CHECK(outcome(f.in.receive(0)).error() == errc::invalid_argument);
  CHECK(f.in.buffer() == "data");
  f.in.close();
  CHECK(outcome(f.in.receive_until("", 10)).error() == errc::invalid_argument);
}

TEST_CASE("buffered: receiving exactly 0 bytes completes at once") {
  fixture f;
  CHECK(anyio::run(f.in.receive_exactly(0)) == "");
  CHECK(outcome(f.in.receive_exactly(anyio::mutable_buffer())));
  f.in.close();
  CHECK(outcome(f.in.receive_exactly(0)).error() == errc::closed_resource);
}

TEST_CASE("buffered: after an early end the received bytes are kept") {
  fixture f;
  f.send("abc");
  f.a.close();
  CHECK(outcome(f.in.receive_exactly(5)).error() == errc::incomplete_read);
  CHECK(f.in.buffer() == "abc");
  char room[5];
  CHECK(outcome(f.in.receive_exactly(room)).error() == errc::incomplete_read);
  CHECK(f.in.buffer() == "abc");
  CHECK(outcome(f.in.receive_line()).error() == errc::incomplete_read);
  CHECK(f.in.buffer() == "abc");
  CHECK(anyio::run(f.in.receive_exactly(3)) == "abc");
  CHECK(outcome(f.in.receive_exactly(1)).error() == errc::end_of_stream);
  CHECK(outcome(f.in.receive_line()).error() == errc::end_of_stream);
  CHECK(outcome(f.in.receive_line()).error().operation() == "receive_line");
  CHECK(outcome(f.in.receive()).error() == errc::end_of_stream);
  f.in.feed_data("late\n");
  CHECK(anyio::run(f.in.receive_line()) == "late");
}

TEST_CASE("buffered: a large read that ends early puts bytes from the caller's buffer back") {
  fixture f;
  const std::string data = conformance::pattern(20000);
  f.send(data);
  f.a.close();
  CHECK(anyio::run(f.in.receive_exactly(1)) == data.substr(0, 1));
  std::string room(50000, '\0');
  CHECK(outcome(f.in.receive_exactly(room)).error() == errc::incomplete_read);
  CHECK((f.in.buffer() == std::string_view(data).substr(1)));
  CHECK((anyio::run(f.in.receive_exactly(19999)) == data.substr(1)));
}

TEST_CASE("buffered: a cancelled read loses nothing") {
  fixture f;
  std::string room(50000, '\0');
  inbox<std::string> text;
  inbox<void> filled;
  {
    auto op = f.in.receive_exactly(10);
    op.start(text.callback());
    f.send("part ");
    turn(f.l);
  }
  CHECK(f.in.buffer() == "part ");
  {
    auto op = f.in.receive_line();
    op.start(text.callback());
    f.send("of a line ");
    turn(f.l);
    op = {};
  }
  CHECK(f.in.buffer() == "part of a line ");
  const std::string data = conformance::pattern(30000);
  {
    auto op = f.in.receive_exactly(room);  // beyond the buffer
    op.start(filled.callback());
    f.send(data);
    turn(f.l);
    f.in.feed_data("[fed]");
  }
  CHECK((f.in.buffer() == "part of a line " + data + "[fed]"));
  CHECK(!anyio::run(anyio::move_on_after(0ms, f.in.receive_exactly(room))));
  CHECK(!anyio::run(anyio::move_on_after(1ms, f.in.receive_exactly(room))));
  CHECK((anyio::run(f.in.receive_exactly(30020)) == "part of a line " + data + "[fed]"));
  CHECK(!text.value);
  CHECK(!filled.value);

  // A read whose bytes are already available, and that is destroyed before it runs.
  f.send("next");
  {
    auto op = f.in.receive();
    op.start(text.callback());
  }
  CHECK(anyio::run(f.in.receive()) == "next");
}

TEST_CASE("buffered: a cancelled read releases the inner stream") {
  fixture f;
  inbox<std::string> got;
  {
    auto op = f.in.receive_line();
    op.start(got.callback());
    turn(f.l);
    CHECK(outcome(f.b.receive()).error() == errc::busy_resource);
  }
  f.send("direct");
  CHECK(anyio::run(f.b.receive()) == "direct");

  auto op = f.b.receive();
  op.start(got.callback());
  turn(f.l);
  CHECK(outcome(f.in.receive()).error() == errc::busy_resource);
  f.in.feed_data("needs no inner read");
  CHECK(anyio::run(f.in.receive()) == "needs no inner read");
}

TEST_CASE("buffered: cancelling the inner socket ends pending operations") {
  loop l;
  auto sockets = anyio::create_unix_stream_pair();
  CHECK(sockets);
  buffered_stream in(sockets->first);
  CHECK(in.socket() == &sockets->first);
  inbox<std::string> got;
  auto op = in.receive_line();
  op.start(got.callback());
  turn(l);
  in.socket()->cancel();
  turn(l);
  CHECK(got.code() == errc::cancelled);
  CHECK(outcome(sockets->second.send("line\n")));
  CHECK(anyio::run(sockets->first.receive()) == "line\n");  // no operation is pending there
}

TEST_CASE("buffered: a second reader is busy_resource, and so is a second sender") {
  fixture f;
  inbox<std::string> got;
  auto op = f.in.receive_exactly(3);
  op.start(got.callback());
  turn(f.l);
  CHECK(outcome(f.in.receive_line()).error() == errc::busy_resource);
  CHECK(outcome(f.in.receive_exactly(0)).error() == errc::busy_resource);
  f.send("abc");
  turn(f.l);
  CHECK(got.value);
  CHECK(got.value->value_or("") == "abc");
}

TEST_CASE("buffered: feeding wakes a reader") {
  fixture f;
  inbox<std::string> got;
  auto op = f.in.receive_line();
  op.start(got.callback());
  f.send("half ");
  turn(f.l);
  f.in.feed_data("a line\nand more");
  CHECK(!got.value);
  turn(f.l);
  CHECK(got.value);
  CHECK(got.value->value_or("") == "half a line");
  CHECK(f.in.buffer() == "and more");
  f.send("free");
  CHECK(anyio::run(f.b.receive()) == "free");
}

TEST_CASE("buffered: sending passes through to the inner stream") {
  fixture f(4);
  inbox<void> sent;
  auto op = f.in.send("0123456789");
  op.start(sent.callback());
  turn(f.l);
  CHECK(!sent.value);
  CHECK(outcome(f.in.send("x")).error() == errc::busy_resource);
  CHECK(outcome(f.b.send("x")).error() == errc::busy_resource);
  CHECK(outcome(f.in.send_eof()).error() == errc::busy_resource);
  std::string all;
  while (all.size() < 10) all += anyio::run(f.a.receive());
  CHECK(all == "0123456789");
  turn(f.l);
  CHECK(sent.code() == errc::ok);
  CHECK(outcome(f.in.send_eof()));
  CHECK(outcome(f.a.receive()).error() == errc::end_of_stream);
  CHECK(outcome(f.in.send("x")).error() == errc::closed_resource);
  CHECK(outcome(f.b.send("x")).error() == errc::closed_resource);
}

TEST_CASE("buffered: send_eof on the inner stream applies here too") {
  fixture f;
  CHECK(outcome(f.b.send_eof()));
  CHECK(outcome(f.in.send("x")).error() == errc::closed_resource);
  CHECK(outcome(f.in.send_eof()));
}

TEST_CASE("buffered: a reader and a sender can wait at the same time") {
  fixture f(4);
  anyio::task_group group;
  group.start_soon([&]() -> task<> { co_await f.in.send("a long message\n"); });
  group.start_soon([&]() -> task<> { CHECK(co_await f.in.receive_line() == "another message"); });
  buffered_stream other(f.a);
  CHECK(anyio::run(other.receive_line()) == "a long message");
  CHECK(outcome(other.send("another message\n")));
  CHECK(outcome(group.join()));
}

TEST_CASE("buffered: closing closes the inner stream") {
  fixture f;
  inbox<std::string> got;
  auto op = f.in.receive_line();
  op.start(got.callback());
  turn(f.l);
  f.in.close();
  CHECK(!f.b);
  CHECK(!f.in);
  turn(f.l);
  CHECK(got.code() == errc::closed_resource);
  CHECK(outcome(f.a.receive()).error() == errc::end_of_stream);
  CHECK(outcome(f.in.receive_line()).error() == errc::closed_resource);
}

TEST_CASE("buffered: aclose closes the inner stream orderly") {
  loop l;
  auto sockets = anyio::create_unix_stream_pair();
  CHECK(sockets);
  buffered_stream in(std::make_unique<anyio::unix_stream>(std::move(sockets->first)));
  CHECK(in.socket() != nullptr);
  inbox<void> closed;
  inbox<std::string> got;
  auto reading = in.receive_line();
  reading.start(got.callback());
  CHECK(outcome(sockets->second.send("unread")));
  auto op = in.aclose();
  op.start(closed.callback());
  turn(l);
  CHECK(got.code() == errc::closed_resource);
  CHECK(!in);
  CHECK(!closed.value);  // it waits for the peer
  CHECK(outcome(sockets->second.receive()).error() == errc::end_of_stream);
  sockets->second.close();
  turn(l);
  CHECK(closed.code() == errc::ok);
}

TEST_CASE("buffered: closing the inner stream directly ends pending operations") {
  fixture f;
  inbox<std::string> got;
  auto op = f.in.receive_line();
  op.start(got.callback());
  f.send("half");
  turn(f.l);
  f.b.close();
  turn(f.l);
  CHECK(got.code() == errc::closed_resource);
  CHECK(f.in.buffer() == "half");
  CHECK(anyio::run(f.in.receive_exactly(4)) == "half");
  CHECK(outcome(f.in.receive()).error() == errc::closed_resource);
  CHECK(outcome(f.in.send("x")).error() == errc::closed_resource);
}

TEST_CASE("buffered: a borrowed stream stays open, and can be moved meanwhile") {
  fixture f;
  {
    buffered_stream in(f.b);
    inbox<std::string> got;
    auto op = in.receive_line();
    op.start(got.callback());
    turn(f.l);
    memory_stream moved = std::move(f.b);
    f.send("line\n");
    turn(f.l);
    CHECK(got.value);
    CHECK(got.value->value_or("") == "line");
    f.b = std::move(moved);
  }
  CHECK(f.b);
  f.send("after");
  CHECK(anyio::run(f.b.receive()) == "after");
}

TEST_CASE("buffered: an owned stream is closed with it") {
  loop l;
  auto [a, b] = anyio::create_memory_stream_pair();
  {
    buffered_stream in(std::make_unique<memory_stream>(std::move(b)));
    inbox<std::string> got;
    auto op = in.receive_line();
    op.start(got.callback());
    buffered_stream moved = std::move(in);
    CHECK(!in);
    CHECK(outcome(a.send("x\n")));
    turn(l);
    CHECK(got.value);
    CHECK(got.value->value_or("") == "x");
    moved = buffered_stream();
    CHECK(outcome(a.receive()).error() == errc::end_of_stream);
  }
  buffered_stream none(std::unique_ptr<anyio::byte_stream>{});
  CHECK(!none);
  CHECK(none.buffer().empty());
  none.feed_data("nowhere");
  memory_stream closed;
  buffered_stream over_closed(closed);
  CHECK(!over_closed);
  CHECK(outcome(over_closed.receive_line()).error() == errc::closed_resource);
  CHECK(outcome(buffered_stream().receive_exactly(1)).error() == errc::closed_resource);
}

TEST_CASE("buffered: the stream may be destroyed by its own callback") {
  loop l;
  auto [a, b] = anyio::create_memory_stream_pair();
  struct session {
    std::optional<buffered_stream> in;
    anyio::detail::receive_until_operation op;
    bool ended = false;
  } s;
  s.in.emplace(std::make_unique<memory_stream>(std::move(b)));
  s.op = s.in->receive_line();
  s.op.start([&s](result<std::string> r) {
    CHECK(r.value_or("") == "bye");
    s.in.reset();
    s.op = {};
    s.ended = true;
  });
  turn(l);
  CHECK(outcome(a.send("bye\n")));
  turn(l);
  CHECK(s.ended);
}

TEST_CASE("buffered: a buffered stream over another one") {
  fixture f;
  buffered_stream outer(std::make_unique<buffered_stream>(std::make_unique<memory_stream>(std::move(f.b))));
  f.send("first\nsecond\n");
  CHECK(anyio::run(outer.receive_line()) == "first");
  CHECK(anyio::run(outer.receive_line()) == "second");
  inbox<std::string> got;
  auto op = outer.receive_exactly(5);
  op.start(got.callback());
  turn(f.l);
  f.send("third");
  turn(f.l);
  CHECK(got.value);
  CHECK(got.value->value_or("") == "third");
}

/// Runs a script of reads, and records the result of each.
task<std::string> transcript(buffered_stream& in) {
  std::string log;
  const auto note = [&log](const char* what, const auto& r) {
    log += what;
    if (r) {
      log += '[' + std::string(*r) + ']';
    } else {
      log += anyio::to_string(r.error().code());
    }
    log += '\n';
  };
  conformance::numbers n(77);
  for (int i = 0; i < 2000; ++i) {
    switch (n.below(4)) {
      case 0: {
        const auto r = co_await anyio::as_result(in.receive_exactly(n.below(60)));
        note("exactly ", r);
        if (!r) co_return log;
        break;
      }
      case 1: {
        std::string room(1 + n.below(9000), '\0');
        const auto r = co_await anyio::as_result(in.receive_exactly(room));
        log += r ? "into [" + room + "]\n" : "into failed\n";
        if (!r) co_return log;
        break;
      }
      case 2: note("until ", co_await anyio::as_result(in.receive_until("ab", 100000))); break;
      default: note("line ", co_await anyio::as_result(in.receive_line(100000))); break;
    }
  }
  co_return log;
}

TEST_CASE("buffered: the result does not depend on the sizes of sent pieces") {
  std::string data;
  conformance::numbers n(5);
  for (int i = 0; i < 60000; ++i) data += "abcdefgh\r\n"[n.below(10)];
  const auto transcribe = [&](std::uint64_t seed, std::size_t capacity) {
    loop l;
    auto [a, b] = anyio::create_memory_stream_pair(capacity);
    memory_stream& sender = a;
    buffered_stream in(b);
    anyio::task_group group;
    group.start_soon([&]() -> task<> {
      conformance::numbers pieces(seed);
      for (std::size_t at = 0; at < data.size();) {
        const std::size_t size = std::min(seed == 0 ? data.size() : 1 + pieces.below(3000), data.size() - at);
        co_await sender.send(anyio::const_buffer(data.data() + at, size));
        at += size;
      }
      sender.close();
    });
    return anyio::run(transcript(in));
  };
  const std::string expected = transcribe(0, 1000000);
  CHECK(expected.size() > 50000);
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    CHECK((transcribe(seed, 65536) == expected));
    CHECK((transcribe(seed, 1 + seed * 5) == expected));
  }
}

TEST_CASE("buffered: the limit does not depend on the sizes of sent pieces either") {
  for (std::size_t capacity : {1u, 3u, 100u}) {
    fixture f(capacity);
    anyio::task_group group;
    group.start_soon([&]() -> task<> { co_await f.a.send("123456||"); });
    CHECK(outcome(f.in.receive_until("||", 7)).error() == errc::delimiter_not_found);
    CHECK(f.in.buffer() == "123456|");
    CHECK(anyio::run(f.in.receive_until("||", 8)) == "123456");
  }
}

TEST_CASE("buffered: both ways of receive_exactly with large messages") {
  fixture f;
  const std::string data = conformance::pattern(1000000);
  anyio::task_group group;
  group.start_soon([&]() -> task<> {
    co_await f.a.send("header\n");
    co_await f.a.send(data);
    co_await f.a.send(data);
    co_await f.a.send("tail\n");
  });
  CHECK(anyio::run(f.in.receive_line()) == "header");
  CHECK((anyio::run(f.in.receive_exactly(data.size())) == data));
  std::string room(data.size(), '\0');
  CHECK(outcome(f.in.receive_exactly(room)));
  CHECK((room == data));
  CHECK(anyio::run(f.in.receive_line()) == "tail");
}

TEST_CASE("buffered: a flood without a delimiter does not starve others") {
  fixture f;
  int turns = 0;
  bool over = false;
  anyio::task_group group;
  group.start_soon([&]() -> task<> {
    const std::string data(100000, 'x');
    for (int i = 0; i < 20; ++i) co_await f.a.send(data);
    co_await f.a.send("\n");
  });
  group.start_soon([&]() -> task<> {
    while (!over) {
      ++turns;
      co_await anyio::sleep(0ms);
    }
  });
  CHECK(anyio::run(f.in.receive_line(3000000)).size() == 2000000);
  over = true;
  CHECK(outcome(group.join()));
  CHECK(turns > 10);
}

TEST_CASE("buffered: it waits without a buffer, and reads without allocating") {
  if (!support::counts_allocations) return;
  fixture f;
  const auto exchange = [&]() -> task<> {
    char room[16];
    for (int i = 0; i < 100; ++i) {
      co_await f.a.send("short line\nand 16 bytes more");
      co_await f.in.receive_line();  // a string this short is stored in its object
      co_await f.in.receive_exactly(room);
    }
  };
  anyio::run(exchange());
  {
    const support::allocation_scope scope;
    anyio::run(exchange());
    CHECK(scope.count() == 0);
  }
  auto [a, b] = anyio::create_memory_stream_pair();
  buffered_stream idle(b);
  inbox<std::string> got;
  auto op = idle.receive_line();
  const support::allocation_scope scope;
  op.start(got.callback());
  turn(f.l);
  CHECK(scope.count() == 0);
}

}  // namespace
