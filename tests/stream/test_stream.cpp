// The rules for operations of byte streams that are not part of the conformance suite.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <cerrno>
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
using anyio::errc;
using anyio::loop;
using anyio::memory_stream;
using anyio::result;
using anyio::task;

struct pair_of_streams {
  explicit pair_of_streams(std::size_t capacity = 65536) : pair(anyio::create_memory_stream_pair(capacity)) {}
  std::pair<memory_stream, memory_stream> pair;
  memory_stream& a = pair.first;
  memory_stream& b = pair.second;
};

void turn(loop& l) {
  for (int i = 0; i < 100 && l.run_once(0ms); ++i) {
  }
}

/// Where a callback stores its result.
template <class T>
struct inbox {
  std::optional<result<T>> value;
  auto callback() {
    return [this](result<T> r) { value.emplace(std::move(r)); };
  }
  errc code() const { return value ? value->error().code() : errc::deadlock; }
};

TEST_CASE("stream: a default-constructed stream is closed") {
  loop l;
  memory_stream s;
  CHECK(!s);
  CHECK(anyio::run(anyio::as_result(s.receive())).error() == errc::closed_resource);
  CHECK(anyio::run(anyio::as_result(s.receive_view())).error() == errc::closed_resource);
  CHECK(anyio::run(anyio::as_result(s.send("x"))).error() == errc::closed_resource);
  CHECK(anyio::run(anyio::as_result(s.send_eof())).error() == errc::closed_resource);
  CHECK(anyio::run(anyio::as_result(s.aclose())));
  s.close();
}

TEST_CASE("stream: a default-constructed operation is invalid_argument") {
  loop l;
  const auto code = [](auto op) { return anyio::run(anyio::as_result(std::move(op))).error().code(); };
  CHECK(code(anyio::receive_operation()) == errc::invalid_argument);
  CHECK(code(anyio::receive_string_operation()) == errc::invalid_argument);
  CHECK(code(anyio::receive_view_operation()) == errc::invalid_argument);
  CHECK(code(anyio::send_operation()) == errc::invalid_argument);
  CHECK(code(anyio::send_eof_operation()) == errc::invalid_argument);
  CHECK(code(anyio::aclose_operation()) == errc::invalid_argument);
}

TEST_CASE("stream: it can be moved while its operations are pending") {
  loop l;
  pair_of_streams p(4);
  inbox<std::string> got;
  inbox<void> sent;
  anyio::receive_string_operation receiving = p.b.receive();
  anyio::send_operation sending = p.b.send("longer than the ring");
  receiving.start(got.callback());
  sending.start(sent.callback());
  turn(l);
  CHECK(!got.value);
  CHECK(!sent.value);

  memory_stream moved = std::move(p.b);
  CHECK(!p.b);
  CHECK(moved);
  std::optional<memory_stream> again(std::in_place);
  *again = std::move(moved);
  CHECK(anyio::run(anyio::as_result(p.a.send("hey"))));
  turn(l);
  CHECK(got.value);
  CHECK(got.value->value_or("") == "hey");
  std::string all;
  while (all.size() < 20) all += anyio::run(p.a.receive());
  CHECK(all == "longer than the ring");
  turn(l);
  CHECK(sent.code() == errc::ok);

  receiving = again->receive();
  got.value.reset();
  receiving.start(got.callback());
  turn(l);
  again.reset();  // destroyed: pending operations are closed
  CHECK(!got.value);
  turn(l);
  CHECK(got.code() == errc::closed_resource);
}

TEST_CASE("stream: move assignment closes the old stream") {
  loop l;
  pair_of_streams first;
  pair_of_streams second;
  first.a = std::move(second.a);
  CHECK(anyio::run(anyio::as_result(first.b.receive())).error() == errc::end_of_stream);
  CHECK(anyio::run(anyio::as_result(first.a.send("x"))));
  CHECK(anyio::run(second.b.receive()) == "x");
  memory_stream& self = first.a;
  first.a = std::move(self);
  CHECK(first.a);
}

TEST_CASE("stream: assigning an empty operation cancels a pending one") {
  loop l;
  pair_of_streams p;
  inbox<std::string> got;
  anyio::receive_string_operation op = p.b.receive();
  op.start(got.callback());
  turn(l);
  op = {};
  CHECK(anyio::run(anyio::as_result(p.a.send("kept"))));
  turn(l);
  CHECK(!got.value);
  CHECK(anyio::run(p.b.receive()) == "kept");
}

TEST_CASE("stream: an operation may be started again from its own callback") {
  loop l;
  pair_of_streams p;
  struct reader {
    memory_stream& stream;
    std::string all;
    bool ended = false;
    anyio::receive_string_operation op;
    void next() {
      op = stream.receive(2);
      op.start([this](result<std::string> r) {
        if (!r) {
          ended = r.error() == errc::end_of_stream;
          return;
        }
        all += *r;
        next();
      });
    }
  } r{p.b, {}, false, {}};
  r.next();
  CHECK(anyio::run(anyio::as_result(p.a.send("one by one"))));
  p.a.close();
  l.run();
  CHECK(r.all == "one by one");
  CHECK(r.ended);
}

TEST_CASE("stream: sent() returns how much of a cancelled send was sent") {
  loop l;
  pair_of_streams p(10);
  const std::string data = "0123456789abcdef";
  anyio::send_operation op = p.a.send(data);
  inbox<void> sent;
  op.start(sent.callback());
  turn(l);
  CHECK(op.sent() == 10);
  CHECK(anyio::run(p.b.receive(4)) == "0123");
  turn(l);
  CHECK(op.sent() == 14);
  anyio::detail::stream_access::resource_of(p.a)->cancel();
  CHECK(!sent.value);
  turn(l);
  CHECK(sent.code() == errc::cancelled);
  CHECK(op.sent() == 14);

  // The stream is usable, and the operation too: it restarts.
  CHECK(anyio::run(p.b.receive()) == "456789abcd");
  sent.value.reset();
  op.start(sent.callback());
  turn(l);
  CHECK(anyio::run(p.b.receive()) == "0123456789");
  turn(l);
  CHECK(sent.code() == errc::ok);
  CHECK(op.sent() == 16);
  CHECK(anyio::run(p.b.receive()) == "abcdef");
}

TEST_CASE("stream: sent() after the peer has closed") {
  loop l;
  pair_of_streams p(10);
  const std::string data(25, 'x');
  anyio::send_operation op = p.a.send(data);
  inbox<void> sent;
  op.start(sent.callback());
  p.b.close();
  turn(l);
  CHECK(sent.code() == errc::broken_resource);
  CHECK(sent.value->error().os_error() == EPIPE);
  CHECK(op.sent() == 10);
}

/// Sends pieces gathered, in both forms of use, and returns the bytes that arrive.
std::string gathered(conformance::ends& e, const std::vector<anyio::const_buffer>& parts, std::size_t size) {
  std::string all;
  anyio::task_group group;
  group.start_soon([&]() -> task<> {
    const auto r = co_await anyio::as_result(e.a->send(std::span<const anyio::const_buffer>(parts)));
    CHECK(r);
  });
  anyio::run([&]() -> task<> {
    while (all.size() < size) {
      auto r = co_await anyio::as_result(e.b->receive());
      CHECK(r);
      if (!r) co_return;
      all += *r;
    }
    co_await group.join();
  });
  return all;
}

TEST_CASE("stream: many pieces, some of them empty, are sent in order") {
  loop l;
  std::vector<std::string> texts;
  std::vector<anyio::const_buffer> parts;
  std::string expected;
  for (int i = 0; i < 300; ++i) {
    texts.push_back(i % 7 == 0 ? std::string() : std::to_string(i * 1001));
    expected += texts.back();
  }
  for (const std::string& t : texts) parts.emplace_back(t);
  parts.insert(parts.begin(), {anyio::const_buffer(), anyio::const_buffer()});
  parts.emplace_back();

  auto [a, b] = anyio::create_memory_stream_pair(11);
  conformance::ends memory{std::make_unique<memory_stream>(std::move(a)),
                           std::make_unique<memory_stream>(std::move(b))};
  CHECK(gathered(memory, parts, expected.size()) == expected);
  auto sockets = anyio::create_unix_stream_pair();
  CHECK(sockets);
  conformance::ends unix_ends{std::make_unique<anyio::unix_stream>(std::move(sockets->first)),
                              std::make_unique<anyio::unix_stream>(std::move(sockets->second))};
  CHECK(gathered(unix_ends, parts, expected.size()) == expected);
}

TEST_CASE("stream: large pieces are sent gathered while the socket is full") {
  loop l;
  const std::string first = conformance::pattern(700000, 1);
  const std::string second = conformance::pattern(900000, 2);
  const std::vector<anyio::const_buffer> parts{first, "", second, first};
  auto sockets = anyio::create_unix_stream_pair();
  CHECK(sockets);
  conformance::ends e{std::make_unique<anyio::unix_stream>(std::move(sockets->first)),
                      std::make_unique<anyio::unix_stream>(std::move(sockets->second))};
  const std::string expected = first + second + first;
  CHECK((gathered(e, parts, expected.size()) == expected));
}

TEST_CASE("stream: only empty pieces are an empty send") {
  loop l;
  pair_of_streams p;
  const anyio::const_buffer parts[] = {"", anyio::const_buffer(), ""};
  CHECK(anyio::run(anyio::as_result(p.a.send(std::span<const anyio::const_buffer>(parts)))));
  CHECK(anyio::run(anyio::as_result(p.a.send(std::span<const anyio::const_buffer>()))));
  CHECK(!anyio::run(anyio::move_on_after(0ms, p.b.receive())));
}

TEST_CASE("stream: a moved-in string is kept during the send") {
  loop l;
  for (const std::size_t size : {std::size_t{8}, std::size_t{3000}}) {  // inside the object, and outside
    pair_of_streams p(2);
    const std::string data = conformance::pattern(size);
    inbox<void> sent;
    anyio::send_operation op;
    {
      std::string text = data;
      anyio::send_operation made = p.a.send(std::move(text));
      text.assign(size, '?');
      op = std::move(made);
    }
    op.start(sent.callback());
    std::string all;
    while (all.size() < size) all += anyio::run(p.b.receive());
    CHECK((all == data));
    turn(l);
    CHECK(sent.code() == errc::ok);
  }
  pair_of_streams p(2);
  p.a.send(std::string("temporary")).start([](result<>) {});
  std::string all;
  while (all.size() < 9) all += anyio::run(p.b.receive());
  CHECK(all == "temporary");
}

TEST_CASE("stream: literals are sent without their last NUL, and with others inside") {
  loop l;
  pair_of_streams p;
  anyio::run([&]() -> task<> {
    co_await p.a.send("a\0b");
    CHECK(co_await p.b.receive() == std::string("a\0b", 3));
    const char* text = "until NUL\0not this";
    co_await p.a.send(text);
    CHECK(co_await p.b.receive() == "until NUL");
  });
}

TEST_CASE("stream: a view can be sent, also if the send has to wait") {
  loop l;
  pair_of_streams in;
  pair_of_streams out(3);
  const std::string data = conformance::pattern(5000);
  CHECK(anyio::run(anyio::as_result(in.a.send(data))));

  struct relay {
    pair_of_streams& in;
    pair_of_streams& out;
    inbox<void> sent;
    anyio::receive_view_operation receiving;
    anyio::send_operation sending;
  } r{in, out, {}, {}, {}};
  r.receiving = in.b.receive_view();
  r.receiving.start([&r](result<std::string_view> view) {
    CHECK(view);
    r.sending = r.out.a.send(*view);
    r.sending.start(r.sent.callback());
  });
  turn(l);
  CHECK(!r.sent.value);
  // The bytes received now overwrite the bytes that are being sent.
  CHECK(anyio::run(anyio::as_result(in.a.send(std::string(5000, '!')))));
  CHECK(anyio::run(in.b.receive()) == std::string(5000, '!'));
  std::string all;
  while (all.size() < data.size()) all += anyio::run(out.b.receive());
  CHECK((all == data));
  turn(l);
  CHECK(r.sent.code() == errc::ok);
}

TEST_CASE("stream: gathered views are kept by a send that has to wait") {
  loop l;
  pair_of_streams in;
  pair_of_streams out(4);
  CHECK(anyio::run(anyio::as_result(in.a.send("0123456789"))));
  anyio::task_group group;
  group.start_soon([&]() -> task<> {
    const std::string_view view = co_await in.b.receive_view();
    const anyio::const_buffer parts[] = {"<", view, ">"};
    co_await out.a.send(std::span<const anyio::const_buffer>(parts));
  });
  turn(l);
  CHECK(anyio::run(anyio::as_result(in.a.send("##########"))));
  CHECK(anyio::run(in.b.receive()) == "##########");
  std::string all;
  while (all.size() < 12) all += anyio::run(out.b.receive());
  CHECK(all == "<0123456789>");
  CHECK(anyio::run(anyio::as_result(group.join())));
}

TEST_CASE("stream: views given to combinators are kept") {
  loop l;
  pair_of_streams in;
  pair_of_streams out(4);
  CHECK(anyio::run(anyio::as_result(in.a.send("abcdefgh"))));
  anyio::task_group group;
  group.start_soon([&]() -> task<> {
    const std::string_view view = co_await in.b.receive_view();
    co_await anyio::fail_after(1h, out.a.send(view));
  });
  turn(l);
  CHECK(anyio::run(anyio::as_result(in.a.send("########"))));
  CHECK(anyio::run(in.b.receive()) == "########");
  std::string all;
  while (all.size() < 8) all += anyio::run(out.b.receive());
  CHECK(all == "abcdefgh");
  CHECK(anyio::run(anyio::as_result(group.join())));
}

TEST_CASE("stream: aclose waits for a silent peer only until its time limit") {
  loop l;
  auto sockets = anyio::create_unix_stream_pair();
  CHECK(sockets);
  inbox<void> closed;
  const auto before = std::chrono::steady_clock::now();
  anyio::aclose_operation op = sockets->first.aclose();
  op.start(closed.callback());
  CHECK(!sockets->first);  // to its users
  CHECK(conformance::runs_until(l, [&] { return closed.value.has_value(); }));
  const auto took = std::chrono::steady_clock::now() - before;
  CHECK(closed.code() == errc::ok);
  CHECK(took < 10s);
  CHECK(sockets->first.native_handle() == -1);
}

TEST_CASE("stream: aclose discards bytes that the peer still sends") {
  loop l;
  auto sockets = anyio::create_unix_stream_pair();
  CHECK(sockets);
  const std::string data(300000, 'd');
  inbox<void> sent;
  inbox<void> closed;
  anyio::send_operation sending = sockets->second.send(data);
  sending.start(sent.callback());
  CHECK(anyio::run(anyio::as_result(sockets->first.send("goodbye"))));
  anyio::aclose_operation closing = sockets->first.aclose();
  closing.start(closed.callback());
  CHECK(conformance::runs_until(l, [&] { return sent.value.has_value(); }));
  CHECK(sent.code() == errc::ok);
  CHECK(anyio::run(sockets->second.receive()) == "goodbye");
  CHECK(anyio::run(anyio::as_result(sockets->second.receive())).error() == errc::end_of_stream);
  CHECK(!closed.value);
  sockets->second.close();
  CHECK(conformance::runs_until(l, [&] { return closed.value.has_value(); }));
  CHECK(closed.code() == errc::ok);
}

TEST_CASE("stream: a second aclose has no effect, and does not disturb the first") {
  loop l;
  auto sockets = anyio::create_unix_stream_pair();
  CHECK(sockets);
  inbox<void> first;
  inbox<void> second;
  anyio::aclose_operation closing = sockets->first.aclose();
  anyio::aclose_operation again = sockets->first.aclose();
  closing.start(first.callback());
  again.start(second.callback());
  turn(l);
  CHECK(second.code() == errc::ok);
  CHECK(!first.value);
  const auto before = std::chrono::steady_clock::now();
  sockets->second.close();  // the peer's end ends it, not the time limit
  turn(l);
  CHECK(first.code() == errc::ok);
  CHECK(std::chrono::steady_clock::now() - before < 900ms);
}

TEST_CASE("stream: destroying a pending aclose closes at once") {
  loop l;
  auto sockets = anyio::create_unix_stream_pair();
  CHECK(sockets);
  inbox<void> closed;
  {
    anyio::aclose_operation closing = sockets->first.aclose();
    closing.start(closed.callback());
    turn(l);
    CHECK(sockets->first.native_handle() >= 0);
  }
  CHECK(sockets->first.native_handle() == -1);
  CHECK(!closed.value);
  CHECK(anyio::run(anyio::as_result(sockets->first.aclose())));
}

TEST_CASE("stream: close during aclose ends it") {
  loop l;
  auto sockets = anyio::create_unix_stream_pair();
  CHECK(sockets);
  inbox<void> closed;
  anyio::aclose_operation closing = sockets->first.aclose();
  closing.start(closed.callback());
  turn(l);
  sockets->first.close();
  CHECK(sockets->first.native_handle() == -1);
  turn(l);
  CHECK(closed.code() == errc::ok);
}

TEST_CASE("stream: sending and receiving allocate nothing in steady state") {
  if (!support::counts_allocations) return;
  loop l;
  pair_of_streams p;
  std::string room(100, '\0');
  const auto awaited = [&]() -> task<> {
    for (int i = 0; i < 50; ++i) {
      co_await p.a.send("ping");
      co_await p.b.receive(room);
      co_await p.b.send("pong");
      co_await p.a.send(co_await p.a.receive_view());
      co_await p.b.receive_view();
    }
  };
  const auto started = [&] {
    for (int i = 0; i < 50; ++i) {
      p.a.send("ping").start([](result<>) {});
      p.b.receive(room).start([](result<std::size_t>) {});
      turn(l);
    }
  };
  anyio::run(awaited());
  started();
  const support::allocation_scope scope;
  anyio::run(awaited());
  started();
  CHECK(scope.count() == 0);
}

}  // namespace
