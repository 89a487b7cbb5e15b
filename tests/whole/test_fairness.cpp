// An operation that floods the loop does not starve others, and repeated operations allocate nothing.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
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

/// Sends and receives without end over one pair, where bytes are always available.
task<> flood(anyio::byte_stream& from, anyio::byte_stream& to, std::uint64_t& bytes) {
  const std::string block(100, 'f');
  for (;;) {
    co_await from.send(block);
    bytes += (co_await to.receive_view()).size();
  }
}

TEST_CASE_TEMPLATE("a flooding peer starves neither timers, nor other streams, nor posted calls", Kind,
                   support::tcp, support::unix_pair) {
  anyio::loop loop;
  anyio::run([]() -> task<> {
    auto floods = co_await Kind::pair();
    auto& source = floods.first;
    auto& sink = floods.second;
    auto quiet = co_await Kind::pair();
    std::uint64_t flooded = 0;
    bool posted = false;
    anyio::task_group group;
    group.start_soon(flood(source, sink, flooded));
    group.start_soon(flood(sink, source, flooded));
    co_await anyio::sleep(5ms);
    anyio::loop::current().post([&posted] { posted = true; });
    const auto before = anyio::now();
    for (int i = 0; i < 20; ++i) {
      co_await quiet.first.send("x");
      CHECK(co_await quiet.second.receive() == "x");
      co_await anyio::sleep(1ms);
    }
    CHECK(anyio::now() - before < 2s);
    CHECK(posted);
    CHECK(flooded > 1000);
    group.cancel();
  });
}

TEST_CASE("a receive by callbacks that always finds bytes does not starve others") {
  anyio::loop loop;
  auto p = connected<support::unix_pair>();
  struct reader {
    anyio::unix_stream& from;
    anyio::unix_stream& refill;
    std::uint64_t rounds = 0;
    bool stop = false;
    char buffer[16] = {};
    anyio::receive_operation op{};
    void go() {
      if (stop) return;
      CHECK(::send(refill.native_handle(), "x", 1, 0) == 1);
      op = from.receive(buffer);
      op.start([this](result<std::size_t> r) {
        if (!r.has_value()) return;
        ++rounds;
        go();
      });
    }
  } r{p.second, p.first};
  r.go();
  int ticks = 0;
  for (int i = 0; i < 10; ++i) {
    by_callback::get(anyio::sleep(1ms)).value();
    ++ticks;
  }
  CHECK(ticks == 10);
  CHECK(r.rounds > 100);
  r.stop = true;
  support::settle();
}

TEST_CASE("one large send and one large send_file alternate with others") {
  anyio::loop loop;
  anyio::run([]() -> task<> {
    auto p = co_await support::tcp::pair();
    auto& sender = p.first;
    auto& receiver = p.second;
    const std::string big(64 << 20, 'b');
    bool done = false;
    int ticks = 0;
    anyio::task_group group;
    group.start_soon([&]() -> task<> {
      co_await sender.send(big);
      co_await sender.send_eof();
    });
    group.start_soon([&]() -> task<> {
      while (!done) {
        co_await anyio::sleep(0ms);
        ++ticks;
      }
    });
    std::size_t got = 0;
    for (;;) {
      auto r = co_await anyio::as_result(receiver.receive_view());
      if (!r) break;
      got += r->size();
    }
    done = true;
    co_await group.join();
    CHECK(got == big.size());
    CHECK(ticks > 20);
  });
}

TEST_CASE("an accept that is aborted again and again does not starve others") {
  support::scripted_loop s;
  tcp_listener l = tcp_listener::open(loopback()).value();
  tcp_stream client = by_callback::get(anyio::connect_tcp(l.local_endpoints().front())).value();
  s.system.on_accept = [] { return -ECONNABORTED; };
  waiting<void> serving;
  std::uint64_t errors = 0;
  by_callback::start(l.serve([](tcp_stream) {}, [&errors](const anyio::error&) { ++errors; }), serving);
  for (int i = 0; i < 5; ++i) by_callback::get(anyio::sleep(1ms)).value();
  CHECK(errors > 10);
  l.close();
  CHECK(serving.get().has_value());
}

TEST_CASE("a view in a blocked send is kept while 1000 others receive") {
  anyio::loop loop;
  anyio::run([]() -> task<> {
    constexpr int count = 100;
    std::vector<std::pair<anyio::unix_stream, anyio::unix_stream>> ins, outs;
    std::vector<std::size_t> ahead;
    for (int i = 0; i < count; ++i) {
      ins.push_back(anyio::create_unix_stream_pair().value());
      outs.push_back(anyio::create_unix_stream_pair().value());
      ahead.push_back(support::fill(outs.back().first));
    }
    anyio::task_group group;
    const auto forward = [](anyio::byte_stream& from, anyio::byte_stream& to) -> task<> {
      for (int i = 0; i < 10; ++i) co_await to.send(co_await from.receive_view());
    };
    for (int i = 0; i < count; ++i) {
      const auto k = static_cast<std::size_t>(i);
      group.start_soon(forward(ins[k].second, outs[k].first));
    }
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < count; ++i) {
        const std::string text = "stream " + std::to_string(i) + " round " + std::to_string(round) + ";";
        co_await ins[static_cast<std::size_t>(i)].first.send(text);
      }
      // Each has its message of this round, and blocks in its send until there is room.
      co_await support::turns();
      for (int i = 0; i < count; ++i) {
        const auto k = static_cast<std::size_t>(i);
        const std::string text = "stream " + std::to_string(i) + " round " + std::to_string(round) + ";";
        std::string got;
        while (got.size() < ahead[k] + text.size()) got += co_await outs[k].second.receive();
        CHECK(got.substr(ahead[k]) == text);
        ahead[k] = round == 9 ? 0 : support::fill(outs[k].first);
      }
    }
    co_await group.join();
  });
}

// --- memory

/// A client and the server's end of it, again and again, by named operations.
struct ping_pong {
  tcp_stream& a;
  tcp_stream& b;
  int left;
  char at_a[8] = {};
  char at_b[8] = {};
  anyio::receive_operation from_a = b.receive(at_b);
  anyio::receive_operation from_b = a.receive(at_a);
  anyio::send_operation to_a{};
  anyio::send_operation to_b{};

  void start() {
    listen();
    from_b.start([this](result<std::size_t> r) { answered(r); });
    ask();
  }
  void ask() {
    to_b = a.send("ping");
    to_b.start([](result<> r) { CHECK(r.has_value()); });
  }
  void listen() {
    from_a.start([this](result<std::size_t> r) {
      if (!r.has_value()) return;
      to_a = b.send(anyio::const_buffer(at_b, *r));
      to_a.start([this](result<> sent) {
        CHECK(sent.has_value());
        if (left > 0) listen();
      });
    });
  }
  void answered(const result<std::size_t>& r) {
    if (!r.has_value() || --left <= 0) return;
    from_b.start([this](result<std::size_t> next) { answered(next); });
    ask();
  }
};

TEST_CASE("named operations, temporaries and tasks allocate nothing in steady state") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  ping_pong named{p.first, p.second, 50};
  named.start();
  loop.run_once(1ms);
  {
    const support::fail_allocations none;
    while (named.left > 0) loop.run_once(1s);
  }
  support::settle();
  named.from_a = {};  // it continues to listen

  int left = 50;
  struct temporaries {
    std::pair<tcp_stream, tcp_stream>& p;
    int& left;
    char buffer[8] = {};
    void go() {
      p.first.send("ping").start([this](result<> sent) {
        CHECK(sent.has_value());
        p.second.receive(buffer).start([this](result<std::size_t> r) {
          CHECK(r.value_or(0) == 4);
          if (--left > 0) go();
        });
      });
    }
  } t{p, left};
  t.go();
  while (left > 45) loop.run_once(1s);
  {
    const support::fail_allocations none;
    while (left > 0) loop.run_once(1s);
  }
  support::settle();

  anyio::run([&]() -> task<> {
    auto& a = p.first;
    auto& b = p.second;
    const auto once = [](tcp_stream& from, tcp_stream& to) -> task<> {
      char buffer[8];
      co_await from.send("ping");
      CHECK(co_await to.receive(buffer) == 4);
    };
    co_await once(a, b);
    co_await a.send("x");
    static_cast<void>(co_await b.receive_view());  // the loop has its buffer from now on
    std::optional<support::fail_allocations> none(std::in_place);
    for (int i = 0; i < 50; ++i) {
      co_await once(a, b);
      co_await a.send("x");
      co_await b.send(co_await b.receive_view());
      static_cast<void>(co_await a.receive_view());
    }
    none.reset();
  });
}

/// Many connections: each is opened, echoes a message, and ends.
struct echo_server {
  static constexpr std::size_t count = 100;
  struct connection {
    tcp_stream stream{};
    char buffer[16] = {};
    anyio::receive_operation receiving{};
    anyio::send_operation sending{};
    void go() {
      receiving = stream.receive(buffer);
      receiving.start([this](result<std::size_t> r) {
        if (!r.has_value()) return stream.close();
        sending = stream.send(anyio::const_buffer(buffer, *r));
        sending.start([this](result<>) { go(); });
      });
    }
  };
  tcp_listener& listener;
  std::size_t accepted = 0;
  std::array<connection, count> connections{};
  anyio::accept_operation<tcp_stream> accepting{};
  void go() {
    accepting = listener.accept();
    accepting.start([this](result<tcp_stream> r) {
      CHECK(r.has_value());
      connection& c = connections[accepted++];
      c.stream = std::move(*r);
      c.go();
      if (accepted < count) go();
    });
  }
};
struct echo_client {
  std::size_t* done = nullptr;
  bool by_text = false;
  bool as_temporary = false;
  anyio::ip_endpoint to{};
  tcp_stream stream{};
  char buffer[16] = {};
  decltype(anyio::connect_tcp(anyio::ip_endpoint())) connecting{};
  anyio::receive_operation receiving{};
  anyio::send_operation sending{};
  void go() {
    auto op = by_text ? anyio::connect_tcp("127.0.0.1", to.port) : anyio::connect_tcp(to);
    const auto next = [this](result<tcp_stream> r) { connected_to(std::move(r)); };
    if (as_temporary) return std::move(op).start(next);
    connecting = std::move(op);
    connecting.start(next);
  }
  void connected_to(result<tcp_stream> r) {
    CHECK(r.has_value());
    if (!r.has_value()) return;
    stream = std::move(*r);
    sending = stream.send("hello");
    sending.start([](result<>) {});
    receiving = stream.receive(buffer);
    receiving.start([this](result<std::size_t> got) {
      CHECK(got.value_or(0) == 5);
      stream.close();
      ++*done;
    });
  }
};

TEST_CASE("after reserve neither connections nor operations allocate, not even the first time") {
  for (const bool as_temporary : {false, true}) {
    for (const bool by_text : {false, true}) {
      anyio::loop loop;
      tcp_listener l = tcp_listener::open(loopback()).value();
      auto server = std::make_unique<echo_server>(echo_server{l});
      std::vector<echo_client> clients(echo_server::count);
      loop.reserve(2 * echo_server::count + 2, 4 * echo_server::count);
      std::size_t done = 0;
      const anyio::ip_endpoint at = l.local_endpoints().front();
      const support::fail_allocations none;
      server->go();
      for (echo_client& c : clients) {
        c.done = &done;
        c.by_text = by_text;
        c.as_temporary = as_temporary;
        c.to = at;
        c.go();
      }
      while (done < clients.size()) loop.run_once(1s);
    }
  }
}

TEST_CASE("an idle connection holds no buffer") {
  anyio::loop loop;
  std::vector<std::pair<anyio::unix_stream, anyio::unix_stream>> pairs;
  std::vector<anyio::receive_string_operation> waits(200);
  static_cast<void>(by_callback::get(anyio::sleep(0ms)));
  const support::allocation_scope scope;
  for (int i = 0; i < 100; ++i) pairs.push_back(anyio::create_unix_stream_pair().value());
  for (std::size_t i = 0; i < 100; ++i) {
    waits[2 * i] = pairs[i].first.receive();
    waits[2 * i + 1] = pairs[i].second.receive();
  }
  for (auto& w : waits) w.start([](result<std::string>) {});
  support::settle();
  CHECK(scope.bytes() < 200 * 1000);
  // At most one buffer for all of them.
  for (auto& [a, b] : pairs) CHECK(::send(a.native_handle(), "x", 1, 0) == 1);
  support::settle();
  if (support::counts_allocations) CHECK(scope.bytes() < 200 * 1000 + 70000);
}

task<> try_until(anyio::byte_stream& stream, const bool& stop, std::size_t size, errc expected) {
  char buffer[1];
  while (!stop) {
    const auto r = co_await anyio::as_result(stream.receive(anyio::mutable_buffer(buffer, size)));
    CHECK(r.error() == expected);
  }
}

TEST_CASE("operations rejected at once, again and again, do not starve the loop") {
  anyio::loop loop;
  auto pair = anyio::create_unix_stream_pair().value();
  char buffer[1];
  auto first = pair.first.receive(buffer);
  first.start([](result<std::size_t> r) { CHECK(r.has_value()); });
  anyio::tcp_stream closed;
  bool stop = false;
  anyio::task_group tries;
  tries.start_soon(try_until(pair.first, stop, 1, errc::busy_resource));
  tries.start_soon(try_until(closed, stop, 1, errc::closed_resource));
  tries.start_soon(try_until(closed, stop, 0, errc::invalid_argument));
  anyio::sleep(1ms).start([&](result<>) { stop = true; });
  const auto finish = [&]() -> task<> {
    co_await tries.join();
    co_await pair.second.send("x");
  };
  anyio::run(finish());
  loop.run();
}

}  // namespace
