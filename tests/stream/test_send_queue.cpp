// Many writers for one stream.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::send_queue;
using support::by_callback;
using support::by_coroutine;
using support::waiting;

/// A queue on one end of a connection in memory, which holds 16 bytes.
struct stage {
  anyio::loop loop;
  std::pair<anyio::memory_stream, anyio::memory_stream> pair = anyio::create_memory_stream_pair(16);
  send_queue queue{pair.first, 10};
  std::string read() { return by_callback::get(pair.second.receive()).value_or("?"); }
};

TEST_CASE_TEMPLATE("messages are sent in order, and never mixed", Face, by_callback, by_coroutine) {
  stage s;
  waiting<void> running;
  Face::start(s.queue.run(), running);
  CHECK(s.queue.try_send("one "));
  CHECK(s.queue.size() == 4);
  CHECK(Face::get(s.queue.send("two ")).has_value());
  CHECK(s.queue.try_send("x"));
  CHECK(Face::get(s.queue.flush()).has_value());
  CHECK(s.queue.size() == 0);
  CHECK(s.read() == "one two x");
  CHECK(s.queue.try_send(""));
  CHECK(Face::get(s.queue.send("")).has_value());
  CHECK(Face::get(s.queue.flush()).has_value());
  CHECK(s.queue.try_send("later"));
  CHECK(s.read() == "later");
  CHECK(!running.done());
}

TEST_CASE_TEMPLATE("try_send does not wait for room, send does", Face, by_callback, by_coroutine) {
  stage s;
  CHECK(s.queue.try_send("0123456789"));
  CHECK(!s.queue.try_send("a"));
  waiting<void> sending;
  waiting<void> second;
  Face::start(s.queue.send("abc"), sending);
  Face::start(s.queue.send("d"), second);
  support::settle();
  CHECK(!sending.done());
  CHECK(s.queue.size() == 10);
  waiting<void> running;
  Face::start(s.queue.run(), running);
  CHECK(sending.get().has_value());
  CHECK(second.get().has_value());
  std::string all;
  while (all.size() < 14) all += s.read();
  CHECK(all == "0123456789abcd");
}

TEST_CASE_TEMPLATE("a message waits behind those who wait, even if it would fit", Face, by_callback,
                   by_coroutine) {
  stage s;
  CHECK(s.queue.try_send("12345"));
  waiting<void> large;
  Face::start(s.queue.send("678901"), large);
  support::settle();
  CHECK(!s.queue.try_send("x"));
  waiting<void> small;
  Face::start(s.queue.send("y"), small);
  support::settle();
  CHECK(!small.done());
  CHECK(!large.done());
  waiting<void> running;
  Face::start(s.queue.run(), running);
  CHECK(large.get().has_value());
  CHECK(small.get().has_value());
  CHECK(s.read() == "12345678901y");
}

TEST_CASE_TEMPLATE("a cancelled send appends nothing, and lets the next one on", Face, by_callback,
                   by_coroutine) {
  stage s;
  CHECK(s.queue.try_send("12345"));
  auto first = std::make_unique<waiting<void>>();
  auto op = std::make_unique<decltype(s.queue.send(""))>(s.queue.send("678901"));
  op->start([](anyio::result<>) { CHECK(false); });
  waiting<void> second;
  Face::start(s.queue.send("67"), second);
  support::settle();
  CHECK(!second.done());
  op.reset();
  CHECK(second.get().has_value());
  CHECK(s.queue.size() == 7);
}

TEST_CASE_TEMPLATE("a message that is longer than the queue is sent once the queue is empty", Face,
                   by_callback, by_coroutine) {
  stage s;
  CHECK(s.queue.try_send("first"));
  CHECK(!s.queue.try_send("longer than the queue"));
  waiting<void> sending;
  Face::start(s.queue.send("longer than the queue"), sending);
  waiting<void> running;
  Face::start(s.queue.run(), running);
  std::string all;
  while (all.size() < 26) all += s.read();
  CHECK(sending.get().has_value());
  CHECK(all == "firstlonger than the queue");
}

TEST_CASE_TEMPLATE("flush waits for what is in the queue, not for what comes later", Face, by_callback,
                   by_coroutine) {
  stage s;
  const std::string full(16, 'f');
  CHECK(Face::get(s.pair.first.send(full)).has_value());
  waiting<void> running;
  Face::start(s.queue.run(), running);
  CHECK(Face::get(s.queue.flush()).has_value());
  CHECK(s.queue.try_send("waits"));
  waiting<void> flushing;
  Face::start(s.queue.flush(), flushing);
  support::settle();
  CHECK(!flushing.done());
  CHECK(s.read() == full);
  CHECK(flushing.get().has_value());
  CHECK(s.read() == "waits");
}

TEST_CASE_TEMPLATE("the first error ends run, and every later call gives it", Face, by_callback,
                   by_coroutine) {
  stage s;
  waiting<void> running;
  Face::start(s.queue.run(), running);
  support::settle();
  CHECK(s.queue.try_send(std::string(30, 'x')));
  waiting<void> sending;
  waiting<void> flushing;
  Face::start(s.queue.send("more"), sending);
  Face::start(s.queue.flush(), flushing);
  support::settle();
  CHECK(!sending.done());
  s.pair.second.close();
  const anyio::error e = running.get().error();
  CHECK(e == errc::broken_resource);
  CHECK(e.os_error() == EPIPE);
  CHECK(sending.get().error() == errc::broken_resource);
  CHECK(flushing.get().error() == errc::broken_resource);
  CHECK(!s.queue.try_send("x"));
  CHECK(Face::get(s.queue.send("x")).error() == errc::broken_resource);
  CHECK(Face::get(s.queue.flush()).error() == errc::broken_resource);
  CHECK(Face::get(s.queue.run()).error() == errc::broken_resource);
}

TEST_CASE_TEMPLATE("closing the stream ends run, also while there is nothing to send", Face, by_callback,
                   by_coroutine) {
  for (const bool busy : {false, true}) {
    anyio::loop loop;
    auto pair = by_coroutine::get(support::tcp::pair()).value();
    send_queue queue(pair.first);
    if (busy) support::fill(pair.first);
    waiting<void> running;
    Face::start(queue.run(), running);
    if (busy) CHECK(queue.try_send("x"));
    support::settle();
    CHECK(!running.done());
    pair.first.close();
    CHECK(running.get().error() == errc::closed_resource);
    CHECK(Face::get(queue.send("x")).error() == errc::closed_resource);
  }
}

TEST_CASE_TEMPLATE("the stream can be half-closed after flush", Face, by_callback, by_coroutine) {
  stage s;
  waiting<void> running;
  Face::start(s.queue.run(), running);
  CHECK(s.queue.try_send("last"));
  CHECK(Face::get(s.queue.flush()).has_value());
  CHECK(Face::get(s.pair.first.send(" one")).has_value());  // nobody else is sending
  CHECK(Face::get(s.pair.first.send_eof()).has_value());
  CHECK(s.read() == "last one");
  CHECK(Face::get(s.pair.second.receive()).error() == errc::end_of_stream);
  CHECK(!running.done());
  CHECK(s.queue.try_send("too late"));
  CHECK(running.get().error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("while the queue sends, another sender is busy_resource, and the other way round", Face,
                   by_callback, by_coroutine) {
  stage s;
  waiting<void> running;
  Face::start(s.queue.run(), running);
  CHECK(s.queue.try_send(std::string(20, 'q')));
  support::settle();
  CHECK(Face::get(s.pair.first.send("x")).error() == errc::busy_resource);
  CHECK(Face::get(s.queue.run()).error() == errc::busy_resource);
  CHECK(s.read() == std::string(16, 'q'));
  CHECK(Face::get(s.queue.flush()).has_value());
  waiting<void> direct;
  Face::start(s.pair.first.send(std::string(20, 'd')), direct);
  support::settle();
  CHECK(!direct.done());
  CHECK(s.queue.try_send("x"));
  CHECK(running.get().error() == errc::busy_resource);
  CHECK(!direct.done());
}

TEST_CASE_TEMPLATE("run continues with the next byte after it was cancelled", Face, by_callback,
                   by_coroutine) {
  stage s;
  auto run = std::make_unique<decltype(s.queue.run())>(s.queue.run());
  run->start([](anyio::result<>) { CHECK(false); });
  CHECK(s.queue.try_send("0123456"));
  CHECK(s.queue.try_send("789"));
  support::settle();
  CHECK(s.queue.try_send("abcdefghij"));
  support::settle();
  CHECK(s.queue.size() == 4);
  run.reset();
  CHECK(s.read() == "0123456789abcdef");
  support::settle();
  CHECK(s.queue.size() == 4);
  waiting<void> running;
  Face::start(s.queue.run(), running);
  CHECK(s.read() == "ghij");
}

TEST_CASE_TEMPLATE("cancel() of the socket ends run, which may run again", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  auto pair = by_coroutine::get(support::unix_pair::pair()).value();
  send_queue queue(pair.first);
  for (const bool idle : {true, false}) {
    waiting<void> running;
    const std::size_t before = idle ? 0 : support::fill(pair.first);
    Face::start(queue.run(), running);
    if (!idle) CHECK(queue.try_send("kept"));
    support::settle();
    pair.first.cancel();
    CHECK(running.get().error() == errc::cancelled);
    std::size_t got = 0;
    while (got < before) got += Face::get(pair.second.receive()).value_or("").size();
  }
  waiting<void> running;
  Face::start(queue.run(), running);
  CHECK(Face::get(pair.second.receive()).value_or("") == "kept");
}

TEST_CASE_TEMPLATE("operations that outlive their queue end with closed_resource", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  auto pair = anyio::create_memory_stream_pair(1);
  auto queue = std::make_unique<send_queue>(pair.first, 1);
  waiting<void> running;
  waiting<void> sending;
  waiting<void> flushing;
  CHECK(queue->try_send("123"));
  Face::start(queue->run(), running);
  Face::start(queue->send("4"), sending);
  Face::start(queue->flush(), flushing);
  support::settle();
  queue.reset();
  CHECK(running.get().error() == errc::closed_resource);
  CHECK(sending.get().error() == errc::closed_resource);
  CHECK(flushing.get().error() == errc::closed_resource);
}

TEST_CASE("a queue on a closed stream, and operations that are only declared") {
  anyio::loop loop;
  anyio::tcp_stream closed;
  send_queue queue(closed);
  CHECK(queue.try_send("nobody knows yet"));
  CHECK(by_callback::get(queue.run()).error() == errc::closed_resource);
  CHECK(!queue.try_send("x"));
  CHECK(by_callback::get(decltype(queue.run())()).error() == errc::invalid_argument);
  CHECK(by_callback::get(decltype(queue.send(""))()).error() == errc::invalid_argument);
  CHECK(by_callback::get(decltype(queue.flush())()).error() == errc::invalid_argument);
}

anyio::task<> writer(send_queue& queue, char name, int count) {
  for (int i = 0; i < count; ++i)
    co_await queue.send(std::string(static_cast<std::size_t>(1 + i % 50), name) + '\n');
}

anyio::task<> many_writers() {
  auto pair = co_await anyio::create_unix_stream_pair();
  send_queue queue(pair.first, 1000);
  anyio::task_group group;
  group.start_soon(queue.run());
  group.start_soon(
      [](send_queue& q, anyio::byte_stream& to) -> anyio::task<> {
        co_await anyio::when_all(writer(q, 'a', 500), writer(q, 'b', 500), writer(q, 'c', 500));
        co_await q.flush();
        co_await to.send_eof();
      },
      std::ref(queue), std::ref<anyio::byte_stream>(pair.first));
  anyio::buffered_stream in(pair.second);
  int lines = 0;
  for (;;) {
    auto line = co_await as_result(in.receive_line());
    if (!line) {
      CHECK(line.error() == errc::end_of_stream);
      break;
    }
    CHECK(line->find_first_not_of((*line)[0]) == std::string::npos);
    ++lines;
  }
  CHECK(lines == 1500);
  group.cancel();
}

TEST_CASE("many writers send whole messages") { anyio::run(many_writers()); }

void messages_are_gathered() {
  support::scripted_loop s;
  auto pair = anyio::create_unix_stream_pair().value();
  send_queue queue(pair.first);
  auto run = queue.run();
  run.start([](anyio::result<>) {});
  const auto send_some = [&] {
    for (int i = 0; i < 50; ++i) CHECK(queue.try_send("message"));  // short strings allocate nothing
    support::settle();
    CHECK(queue.size() == 0);
  };
  send_some();
  CHECK(s.system.sends == 1);
  CHECK(by_callback::get(pair.second.receive()).value_or("").size() == 350);
  const support::allocation_scope none;
  send_some();
  CHECK(none.count() == 0);
}

TEST_CASE("messages are gathered into few system calls, and cost no allocation of the queue's own") {
  // A thread keeps a limited amount of freed blocks; other cases may have filled it with sizes not used here.
  std::thread(messages_are_gathered).join();
}

}  // namespace
