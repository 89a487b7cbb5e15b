// Mistakes that other libraries once made, and this one must not make: each case names the mistake.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <sys/wait.h>

#include <csignal>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::ip_endpoint;
using anyio::result;
using anyio::task;
using anyio::tcp_listener;
using anyio::tcp_stream;
using support::by_callback;
using support::by_coroutine;
using support::loopback;
using support::waiting;

template <class Kind>
auto connected() {
  return by_coroutine::get(Kind::pair()).value();
}

TEST_CASE("an event in flight for a closed descriptor does not reach the next one with its number") {
  anyio::loop loop;
  auto a = connected<support::tcp>();
  auto b = connected<support::tcp>();
  // Both are readable in one batch. The first one closes the other, and opens a new one with its number.
  struct {
    std::optional<std::pair<anyio::unix_stream, anyio::unix_stream>> made;
    waiting<std::string> fresh;
    int callbacks = 0;
    void took(tcp_stream& other) {
      if (++callbacks != 1) return;
      const int number = other.native_handle();
      other.close();
      made = anyio::create_unix_stream_pair().value();
      CHECK((made->first.native_handle() == number || made->second.native_handle() == number));
      by_callback::start((made->first.native_handle() == number ? made->first : made->second).receive(),
                         fresh);
    }
  } world;
  a.second.receive().start([&](result<std::string> r) {
    if (r.has_value()) world.took(b.second);
  });
  b.second.receive().start([&](result<std::string> r) {
    if (r.has_value()) world.took(a.second);
  });
  support::settle();
  CHECK(::send(a.first.native_handle(), "x", 1, 0) == 1);
  CHECK(::send(b.first.native_handle(), "x", 1, 0) == 1);
  support::settle();
  CHECK(world.callbacks == 1);
  CHECK(!world.fresh.done());
  world.made.reset();
  CHECK(world.fresh.get().error() == errc::closed_resource);
}

TEST_CASE("an event for a destroyed stream wakes nothing") {
  support::scripted_loop s;
  auto p = connected<support::unix_pair>();
  auto other = connected<support::unix_pair>();
  support::settle();  // their writability was reported
  std::uint64_t old = 0;
  s.system.on_events = [&old](anyio::detail::slice<anyio::detail::poll_event> events) {
    old = events.front().token;
  };
  CHECK(::send(p.first.native_handle(), "x", 1, 0) == 1);
  support::settle();
  CHECK(old != 0);
  s.system.on_events = nullptr;
  p.second.close();
  auto q = connected<support::unix_pair>();  // one of them has the freed number
  waiting<std::string> first, second;
  by_callback::start(q.first.receive(), first);
  by_callback::start(q.second.receive(), second);
  support::settle();
  const std::size_t before = s.system.receives;
  s.system.on_events = [old](anyio::detail::slice<anyio::detail::poll_event> events) {
    events.front() = {old, anyio::detail::ready_read | anyio::detail::ready_end};
  };
  CHECK(::send(other.first.native_handle(), "x", 1, 0) == 1);
  support::settle();
  CHECK(s.system.receives == before);
  q.first.close();
  q.second.close();
  CHECK(first.get().error() == errc::closed_resource);
  CHECK(second.get().error() == errc::closed_resource);
}

TEST_CASE(
    "a duplicate of a closed descriptor, which keeps the connection open, does not make the loop spin") {
  support::scripted_loop s;
  auto p = connected<support::tcp>();
  waiting<std::string> w;
  by_callback::start(p.second.receive(), w);
  support::settle();
  const int duplicate = ::dup(p.second.native_handle());
  p.second.close();
  CHECK(w.get().error() == errc::closed_resource);
  CHECK(by_callback::get(p.first.send("for nobody")).has_value());
  p.first.close();
  const std::size_t before = s.system.waits;
  s.loop.run_once(30ms);
  s.loop.run_once(30ms);
  CHECK(s.system.waits - before <= 2);
  ::close(duplicate);
}

TEST_CASE_TEMPLATE("a closed peer without a pending operation does not make the loop spin", Kind,
                   support::tcp, support::unix_pair) {
  support::scripted_loop s;
  auto p = connected<Kind>();
  CHECK(by_callback::get(p.second.send("unread by the end that goes")).has_value());
  CHECK(by_callback::get(p.first.send("unread")).has_value());
  p.first.close();
  support::settle();
  const std::size_t before = s.system.waits;
  by_callback::get(anyio::sleep(50ms)).value();
  CHECK(s.system.waits - before <= 3);
  // Nor does an ended one with a send that waits for room.
  auto q = connected<Kind>();
  support::fill(q.second);
  waiting<void> sending;
  by_callback::start(q.second.send("x"), sending);
  CHECK(by_callback::get(q.first.send_eof()).has_value());
  CHECK(by_callback::get(q.second.receive()).error() == errc::end_of_stream);
  support::settle();
  const std::size_t again = s.system.waits;
  by_callback::get(anyio::sleep(50ms)).value();
  CHECK(s.system.waits - again <= 3);
  q.second.close();
  CHECK(sending.get().error() == errc::closed_resource);
}

// #701: data followed at once by FIN, and the end was never noticed.
TEST_CASE_TEMPLATE("an end that arrived with the data is found without a further event, with any buffer size",
                   Kind, support::tcp, support::unix_pair) {
  anyio::loop loop;
  for (const std::size_t room : {std::size_t{1}, std::size_t{4}, std::size_t{5}, std::size_t{100}}) {
    auto p = connected<Kind>();
    CHECK(::send(p.first.native_handle(), "data!", 5, 0) == 5);
    p.first.close();
    std::string got;
    for (;;) {
      result<std::string> r = by_callback::get(p.second.receive(room));
      if (!r) {
        CHECK(r.error() == errc::end_of_stream);
        break;
      }
      got += *r;
    }
    CHECK(got == "data!");
  }
}

TEST_CASE("an end that arrives between a short read and the next one is found") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  CHECK(by_callback::get(p.first.send("abc")).has_value());
  CHECK(by_callback::get(p.second.receive(100)).value_or("") == "abc");
  p.first.close();
  waiting<std::string> w;
  by_callback::start(p.second.receive(100), w);
  CHECK(w.get().error() == errc::end_of_stream);
}

// #671: a failed stream reported that error even after it was closed.
TEST_CASE("closed takes precedence over broken") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  support::reset(p.first);
  CHECK(by_callback::get(p.second.receive()).error() == errc::broken_resource);
  p.second.close();
  CHECK(by_callback::get(p.second.receive()).error() == errc::closed_resource);
  CHECK(by_callback::get(p.second.send("x")).error() == errc::closed_resource);
}

// #1055: the errno behind a broken stream was lost.
TEST_CASE("a broken stream reports the same errno at every later call and in both directions") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  support::reset(p.first);
  for (int i = 0; i < 3; ++i) {
    CHECK(by_callback::get(p.second.receive()).error() == std::errc::connection_reset);
    CHECK(by_callback::get(p.second.send("x")).error() == std::errc::connection_reset);
  }
}

// #1267: closing right after a waiter was cancelled in the same turn.
TEST_CASE_TEMPLATE("close after cancel, and cancel after close, in one turn", Kind, support::tcp,
                   support::unix_pair) {
  anyio::loop loop;
  for (const bool cancel_first : {true, false}) {
    auto p = connected<Kind>();
    support::fill(p.first);
    waiting<std::string> receiving;
    waiting<void> sending;
    by_callback::start(p.first.receive(), receiving);
    by_coroutine::start(p.first.send("x"), sending);
    support::settle();
    if (cancel_first) p.first.cancel();
    p.first.close();
    if (!cancel_first) p.first.cancel();
    const anyio::error received = receiving.get().error();
    CHECK(received == errc::closed_resource);
    CHECK(sending.get().error() == errc::closed_resource);
  }
}

// D8: leftover bytes were delivered after the stream's own close.
TEST_CASE("bytes in the kernel are not delivered after close") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  CHECK(by_callback::get(p.first.send("left over")).has_value());
  p.second.close();
  CHECK(by_callback::get(p.second.receive()).error() == errc::closed_resource);
}

// D7: 65 MB were read ahead for a stream that was not being read.
TEST_CASE("unrequested bytes are not read, so that the peer has to wait") {
  support::scripted_loop s;
  auto p = connected<support::tcp>();
  const std::string big(64 << 20, 'b');
  auto op = p.first.send(big);
  op.start([](result<>) { CHECK(false); });
  support::settle();
  CHECK(s.system.receives == 0);
  CHECK(op.sent() < big.size());
}

// D9: a blocked send whose stream was closed by another task counted as done.
TEST_CASE("a send pending when its stream is closed has failed") {
  anyio::loop loop;
  anyio::run([]() -> task<> {
    auto p = co_await support::tcp::pair();
    auto& sender = p.first;
    support::fill(sender);
    result<void> outcome;
    anyio::task_group group;
    group.start_soon([&]() -> task<> { outcome = co_await anyio::as_result(sender.send("x")); });
    co_await support::turns();
    sender.close();
    co_await group.join();
    CHECK(outcome.error() == errc::closed_resource);
  });
}

// 2.2.0: the peer's half-close closed the whole connection, and the reply was lost.
TEST_CASE("a reply of any size is sent after the peer has ended its request") {
  anyio::loop loop;
  anyio::run([]() -> task<> {
    auto p = co_await support::tcp::pair();
    auto& client = p.first;
    auto& server = p.second;
    const std::string reply(5 << 20, 'r');
    anyio::task_group group;
    group.start_soon([&]() -> task<> {
      CHECK(co_await server.receive() == "request");
      CHECK((co_await anyio::as_result(server.receive())).error() == errc::end_of_stream);
      co_await server.send(reply);
      co_await server.aclose();
    });
    co_await client.send("request");
    co_await client.send_eof();
    std::size_t got = 0;
    for (;;) {
      auto r = co_await anyio::as_result(client.receive());
      if (!r) {
        CHECK(r.error() == errc::end_of_stream);
        break;
      }
      got += r->size();
    }
    CHECK(got == reply.size());
    client.close();
    co_await group.join();
  });
}

// Closing with unread input resets, and earlier sent bytes are lost: aclose does not do that.
TEST_CASE("bytes sent before aclose arrive whole, though input is unread") {
  anyio::loop loop;
  anyio::run([]() -> task<> {
    auto p = co_await support::tcp::pair();
    auto& client = p.first;
    auto& server = p.second;
    const std::string request(200000, 'q');
    const std::string reply(200000, 'r');
    anyio::task_group group;
    group.start_soon([&]() -> task<> {
      co_await server.receive(1);
      co_await server.send(reply);
      co_await server.aclose();
    });
    group.start_soon([&]() -> task<> { static_cast<void>(co_await anyio::as_result(client.send(request))); });
    std::size_t got = 0;
    for (;;) {
      auto r = co_await anyio::as_result(client.receive());
      if (!r) {
        CHECK(r.error() == errc::end_of_stream);
        break;
      }
      got += r->size();
    }
    CHECK(got == reply.size());
    client.close();
    co_await group.join();
  });
}

// A million sends that complete at once must not grow the stack, nor starve others.
TEST_CASE("many operations that complete at once do not starve others, in both forms of use") {
  anyio::loop loop;
  auto p = connected<support::unix_pair>();
  int others = 0;
  struct sender {
    anyio::unix_stream& to;
    int left = 100000;
    anyio::send_operation op{};
    void go() {
      op = to.send("");
      op.start([this](result<> r) {
        CHECK(r.has_value());
        if (--left > 0) go();
      });
    }
  } by_call{p.first};
  by_call.go();
  for (int i = 0; i < 10; ++i) loop.post([&] { ++others; });
  loop.run_once(0ms);
  CHECK(by_call.left > 0);
  CHECK(others == 10);
  loop.run();
  CHECK(by_call.left == 0);
  int ticks = 0;
  anyio::run([&]() -> task<> {
    anyio::task_group group;
    group.start_soon([&]() -> task<> {
      for (;; ++ticks) co_await anyio::sleep(0ms);
    });
    for (int i = 0; i < 1000000; ++i) co_await p.first.send("");
    group.cancel();
  });
  CHECK(ticks > 1000);
}

TEST_CASE("a loop ends normally while a child process holds its descriptors") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  waiting<std::string> w;
  by_callback::start(p.second.receive(), w);
  support::settle();
  int gate[2];
  CHECK(::pipe(gate) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char c;
    ::close(gate[1]);
    ::_exit(::read(gate[0], &c, 1) == 0 ? 0 : 1);
  }
  ::close(gate[0]);
  p.second.close();
  CHECK(w.get().error() == errc::closed_resource);
  support::settle();
  CHECK(::send(p.first.native_handle(), "x", 1, MSG_NOSIGNAL) == 1);
  CHECK(loop.run_once(20ms) == false);
  ::close(gate[1]);
  int status = 1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

// 3.2.0: a socket leaked when connecting failed; here each step of each form fails once.
TEST_CASE("no descriptor leaks, whatever step fails") {
  const support::temp_dir dir;
  anyio::unix_listener served;
  {
    anyio::loop loop;
    CHECK(!by_callback::get(anyio::connect_unix(dir.path("none"))).has_value());
    CHECK(!by_callback::get(anyio::create_unix_listener(dir.path("no/folder"))).has_value());
    CHECK(!by_callback::get(anyio::connect_tcp(loopback(1))).has_value());
    CHECK(!tcp_listener::open({anyio::ip_address::parse("192.0.2.1").value(), 0}).has_value());
  }
  // The poller fails.
  class no_watch : public support::custom_backend {
   public:
    int watch(int, std::uint64_t) override { return -ENOSPC; }
  };
  anyio::loop loop(std::make_unique<no_watch>());
  const int listening = support::raw_unix_socket(dir.path("raw"), 5);
  CHECK(by_callback::get(anyio::connect_unix(dir.path("raw"))).error() == std::errc::no_space_on_device);
  CHECK(by_callback::get(anyio::create_unix_listener(dir.path("s"))).error() ==
        std::errc::no_space_on_device);
  CHECK(by_callback::get(anyio::create_tcp_listener()).error() == std::errc::no_space_on_device);
  CHECK(by_callback::get(anyio::connect_tcp(loopback(1))).error().os_error() != 0);
  CHECK(anyio::create_unix_stream_pair().error() == std::errc::no_space_on_device);
  CHECK(tcp_listener::open(loopback()).error() == std::errc::no_space_on_device);
  int fds[2];
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  CHECK(anyio::unix_stream::from_fd(fds[0]).error() == std::errc::no_space_on_device);
  CHECK(support::is_open(fds[0]));
  CHECK(anyio::unix_listener::from_fd(listening).error() == std::errc::no_space_on_device);
  CHECK(support::is_open(listening));
  for (int fd : {fds[0], fds[1], listening}) ::close(fd);
}

}  // namespace
