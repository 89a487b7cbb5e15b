// Streams in memory: their rings, and how their ends affect each other.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "support/allocations.hpp"
#include "support/conformance.hpp"

namespace {

using namespace std::chrono_literals;
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

TEST_CASE("memory stream: bytes pass through its ring in order, in pieces of any size") {
  loop l;
  for (const std::size_t capacity : {1u, 2u, 7u, 64u, 1000u}) {
    auto [a, b] = anyio::create_memory_stream_pair(capacity);
    memory_stream& sender = a;
    memory_stream& receiver = b;
    const std::string data = conformance::pattern(4000, capacity);
    anyio::task_group group;
    group.start_soon([&]() -> task<> {
      conformance::numbers n(1);
      for (std::size_t at = 0; at < data.size();) {
        const std::size_t size = std::min(1 + n.below(200), data.size() - at);
        co_await sender.send(anyio::const_buffer(data.data() + at, size));
        at += size;
      }
      co_await sender.send_eof();
    });
    std::string all;
    anyio::run([&]() -> task<> {
      conformance::numbers n(2);
      for (;;) {
        auto r = co_await anyio::as_result(receiver.receive(1 + n.below(200)));
        if (!r) break;
        all += *r;
      }
    });
    CHECK((all == data));
  }
}

TEST_CASE("memory stream: a send waits while the ring is full") {
  loop l;
  auto [a, b] = anyio::create_memory_stream_pair(4);
  CHECK(outcome(a.send("1234")));
  CHECK(!anyio::run(anyio::move_on_after(0ms, a.send("5"))));
  CHECK(anyio::run(b.receive(1)) == "1");
  CHECK(outcome(a.send("5")));
  CHECK(anyio::run(b.receive(9)) == "2345");
}

TEST_CASE("memory stream: a capacity of 0 is treated as 1") {
  loop l;
  auto [a, b] = anyio::create_memory_stream_pair(0);
  CHECK(outcome(a.send("x")));
  CHECK(!anyio::run(anyio::move_on_after(0ms, a.send("y"))));
  CHECK(anyio::run(b.receive()) == "x");
}

TEST_CASE("memory stream: each direction has its own ring") {
  loop l;
  auto [a, b] = anyio::create_memory_stream_pair(3);
  CHECK(outcome(a.send("abc")));
  CHECK(outcome(b.send("xyz")));
  CHECK(anyio::run(a.receive()) == "xyz");
  CHECK(anyio::run(b.receive()) == "abc");
}

TEST_CASE("memory stream: closing with unread bytes breaks later sends of the peer") {
  loop l;
  auto [a, b] = anyio::create_memory_stream_pair();
  CHECK(outcome(a.send("never read")));
  CHECK(outcome(b.send("but this is")));
  b.close();
  CHECK(anyio::run(a.receive()) == "but this is");
  CHECK(outcome(a.receive()).error() == errc::end_of_stream);
  const auto r = outcome(a.send("x"));
  CHECK(r.error() == errc::broken_resource);
  CHECK(r.error().os_error() == EPIPE);
  CHECK(a);
  CHECK(outcome(a.send("")));  // nothing is required of the peer
  CHECK(outcome(a.send_eof()));
}

TEST_CASE("memory stream: aclose does not wait, and loses nothing") {
  loop l;
  auto [a, b] = anyio::create_memory_stream_pair();
  CHECK(outcome(b.send("on its way to a")));
  CHECK(outcome(a.send("goodbye")));
  CHECK(anyio::run(anyio::move_on_after(0ms, a.aclose())));
  CHECK(!a);
  CHECK(anyio::run(b.receive()) == "goodbye");
  CHECK(outcome(b.receive()).error() == errc::end_of_stream);
}

TEST_CASE("memory stream: a view stays valid during later operations, and after its stream") {
  loop l;
  std::optional<std::pair<memory_stream, memory_stream>> pair = anyio::create_memory_stream_pair(8);
  CHECK(outcome(pair->first.send("12345678")));
  bool seen = false;
  pair->second.receive_view().start([&](result<std::string_view> view) {
    CHECK(view);
    pair->first.send("abcdefgh").start([](result<>) {});  // takes the room at once
    CHECK(*view == "12345678");
    pair.reset();
    CHECK(*view == "12345678");
    seen = true;
  });
  turn(l);
  CHECK(seen);
}

TEST_CASE("memory stream: ends may be destroyed in any order, also after the loop") {
  std::optional<loop> l(std::in_place);
  std::unique_ptr<memory_stream> a;
  std::unique_ptr<memory_stream> b;
  const auto make = [&] {
    auto [first, second] = anyio::create_memory_stream_pair();
    a = std::make_unique<memory_stream>(std::move(first));
    b = std::make_unique<memory_stream>(std::move(second));
  };
  make();
  a.reset();
  CHECK(outcome(b->receive()).error() == errc::end_of_stream);
  b.reset();
  make();
  b.reset();
  CHECK(outcome(a->send("x")).error() == errc::broken_resource);
  a.reset();
  make();
  CHECK(outcome(a->send("left behind")));
  l.reset();
  CHECK(!*a);
  a.reset();
  b.reset();
}

TEST_CASE("memory stream: an idle stream holds no ring") {
  if (!support::counts_allocations) return;
  loop l;
  const support::allocation_scope scope;
  auto [a, b] = anyio::create_memory_stream_pair(std::size_t{1} << 20);
  CHECK(scope.bytes() < 4096);
  CHECK(outcome(a.send("x")));
  CHECK(scope.bytes() >= std::size_t{1} << 20);
}

TEST_CASE("memory stream: it has no socket") {
  loop l;
  auto [a, b] = anyio::create_memory_stream_pair();
  CHECK(a.socket() == nullptr);
  CHECK(memory_stream().socket() == nullptr);
}

}  // namespace
