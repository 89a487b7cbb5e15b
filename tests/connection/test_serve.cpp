// Serving: isolation of handlers, limits, and how serving ends.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <sys/un.h>

#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"

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

task<> echo(tcp_stream client) {
  for (;;) co_await client.send(co_await client.receive_view());
}

struct server {
  tcp_listener listener = tcp_listener::open(loopback()).value();
  tcp_stream client() {
    return by_coroutine::get(anyio::connect_tcp(listener.local_endpoints().front())).value();
  }
};

std::string ask(tcp_stream& s, std::string_view text) {
  static_cast<void>(by_callback::get(s.send(text)));
  return by_callback::get(s.receive()).value_or("(nothing)");
}

TEST_CASE_TEMPLATE("serve runs a handler for each connection until the listener is closed and all have ended",
                   Face, by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  Face::start(s.listener.serve(echo), serving);
  tcp_stream a = s.client(), b = s.client();
  CHECK(ask(a, "one") == "one");
  CHECK(ask(b, "two") == "two");
  s.listener.close();
  support::settle();
  CHECK(!serving.done());
  CHECK(ask(a, "still served") == "still served");
  a.close();
  support::settle();
  CHECK(!serving.done());
  b.close();
  CHECK(serving.get().has_value());
}

TEST_CASE("without connections, closing completes serve at once; a closed listener is not served") {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  by_callback::start(s.listener.serve(echo), serving);
  support::settle();
  s.listener.close();
  CHECK(serving.get().has_value());
  CHECK(by_callback::get(s.listener.serve(echo)).error() == errc::closed_resource);
}

TEST_CASE("a graceful stop: close, give the handlers some time, then cancel the remaining ones") {
  support::scripted_loop scripted;
  server s;
  anyio::run([&]() -> task<> {
    anyio::task_group group;
    group.start_soon(s.listener.serve(echo));
    auto client = co_await anyio::connect_tcp(s.listener.local_endpoints().front());
    co_await client.send("x");
    CHECK(co_await client.receive() == "x");
    scripted.system.virtual_time = true;
    s.listener.close();
    CHECK(!co_await anyio::move_on_after(10s, group.join()));
    client.close();
    CHECK(co_await anyio::move_on_after(10s, group.join()));
  });
}

TEST_CASE_TEMPLATE("cancelling serve destroys its handlers and their streams, and the listener stays open",
                   Face, by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  auto kept = std::make_shared<int>(0);
  tcp_stream client;
  {
    waiting<bool> serving;
    const auto handler = [kept](tcp_stream stream) -> task<> {
      const auto held = kept;
      co_await echo(std::move(stream));
    };
    Face::start(anyio::move_on_after(1h, s.listener.serve(handler)), serving);
    client = s.client();
    CHECK(ask(client, "x") == "x");
    CHECK(kept.use_count() > 2);
    auto op = s.listener.serve(echo);
    op.start([](result<> r) { CHECK(r.error() == errc::busy_resource); });
    support::settle();
    s.listener.close();
    client.close();
    CHECK(serving.get().value_or(false));
  }
  CHECK(kept.use_count() == 1);

  server t;
  auto op = t.listener.serve([kept](tcp_stream stream) -> task<> {
    const auto held = kept;
    co_await echo(std::move(stream));
  });
  op.start([](result<>) { CHECK(false); });
  client = t.client();
  CHECK(ask(client, "x") == "x");
  CHECK(kept.use_count() > 2);
  op = {};
  CHECK(kept.use_count() == 1);
  CHECK(by_callback::get(client.receive()).error() == errc::end_of_stream);
  CHECK(t.listener);
  tcp_stream next = t.client();
  CHECK(by_callback::get(t.listener.accept()).has_value());
}

TEST_CASE("an error that escapes a handler closes only its connection; on_error gets all but a plain end") {
  anyio::loop loop;
  server s;
  std::vector<anyio::error> seen;
  waiting<void> serving;
  const auto handler = [](tcp_stream client) -> task<> {
    const std::string wish = co_await client.receive();
    if (wish == "end") co_await anyio::raise(errc::end_of_stream);
    if (wish == "fail") co_await anyio::raise(anyio::error(errc::timed_out, 0, "handler"));
    co_await client.send(wish);
    co_await client.receive();
  };
  by_callback::start(s.listener.serve(handler, [&](const anyio::error& e) { seen.push_back(e); }), serving);
  tcp_stream good = s.client();
  CHECK(ask(good, "good") == "good");
  tcp_stream fails = s.client();
  CHECK(ask(fails, "fail") == "(nothing)");
  tcp_stream ends = s.client();
  CHECK(ask(ends, "end") == "(nothing)");
  support::settle();
  CHECK(seen.size() == 1);
  CHECK(seen.front() == errc::timed_out);
  CHECK(seen.front().operation() == "handler");
  good.close();
  tcp_stream another = s.client();
  CHECK(ask(another, "another") == "another");
  support::reset(another);
  support::settle();
  CHECK(seen.size() == 2);
  CHECK(seen.back() == errc::broken_resource);
  s.listener.close();
  CHECK(serving.get().has_value());
}

#if defined(__cpp_exceptions)

TEST_CASE("foreign exceptions close only their connection; on_error gets them if it accepts them") {
  anyio::loop loop;
  server s;
  struct sees {
    std::vector<std::string>* texts;
    void operator()(const anyio::error& e) const { texts->emplace_back(e.message()); }
    void operator()(const std::exception_ptr& e) const {
      try {
        std::rethrow_exception(e);
      } catch (const std::exception& known) {
        texts->emplace_back(known.what());
      } catch (int i) {
        texts->emplace_back(std::to_string(i));
      }
    }
  };
  std::vector<std::string> texts;
  waiting<void> serving;
  const auto handler = [](tcp_stream client) -> task<> {
    const std::string wish = co_await client.receive();
    if (wish == "throw") throw std::runtime_error("of the user's own");
    if (wish == "int") throw 42;
    if (wish == "anyio") throw anyio::cancelled(anyio::error(errc::cancelled));
    co_await client.send(wish);
  };
  by_callback::start(s.listener.serve(handler, sees{&texts}), serving);
  for (const char* wish : {"throw", "int", "anyio"}) {
    tcp_stream client = s.client();
    CHECK(ask(client, wish) == "(nothing)");
  }
  tcp_stream client = s.client();
  CHECK(ask(client, "well") == "well");
  s.listener.close();
  CHECK(serving.get().has_value());
  CHECK(texts.size() == 3);
  CHECK(texts.at(0) == "of the user's own");
  CHECK(texts.at(1) == "42");
}

TEST_CASE("foreign exceptions without a handler are printed to stderr, and affect no other connection") {
  anyio::loop loop;
  server s;
  std::FILE* out = std::tmpfile();
  const int saved = ::dup(STDERR_FILENO);
  ::dup2(::fileno(out), STDERR_FILENO);
  int errors = 0;
  waiting<void> serving;
  by_callback::start(s.listener.serve([](tcp_stream) { throw std::runtime_error("thrown plainly"); },
                                      [&errors](const anyio::error&) { ++errors; }),
                     serving);
  for (int i = 0; i < 2; ++i) {
    tcp_stream client = s.client();
    CHECK(ask(client, "x") == "(nothing)");
  }
  s.listener.close();
  CHECK(serving.get().has_value());
  std::fflush(stderr);
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  char text[1000] = "";
  std::rewind(out);
  const std::size_t size = std::fread(text, 1, sizeof text - 1, out);
  std::fclose(out);
  CHECK(std::string(text, size).find("thrown plainly") != std::string::npos);
  CHECK(errors == 0);
}

TEST_CASE("an exception from on_error leaves run(), and the loop stays usable") {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  by_callback::start(s.listener.serve([](tcp_stream) -> task<> { co_await anyio::raise(errc::timed_out); },
                                      [](const anyio::error&) { throw std::runtime_error("from on_error"); }),
                     serving);
  const int client = support::raw_connect(s.listener.local_endpoints().front());
  bool thrown = false;
  for (int i = 0; i < 100 && !thrown; ++i) {
    try {
      loop.run_once(10ms);
    } catch (const std::runtime_error&) {
      thrown = true;
    }
  }
  CHECK(thrown);
  ::close(client);
  s.listener.close();
  CHECK(serving.get().has_value());
}

#endif

TEST_CASE("on_error gets errors of accept, and serving continues") {
  support::scripted_loop scripted;
  server s;
  std::vector<int> seen;
  int next = ECONNABORTED;
  scripted.system.on_accept = [&]() -> std::optional<int> {
    if (next == 0) return std::nullopt;
    return -std::exchange(next, next == ECONNABORTED ? EMFILE : 0);
  };
  scripted.system.virtual_time = true;
  waiting<void> serving;
  by_callback::start(s.listener.serve(echo, [&seen](const anyio::error& e) { seen.push_back(e.os_error()); }),
                     serving);
  tcp_stream client = s.client();
  CHECK(ask(client, "x") == "x");
  CHECK(seen == std::vector<int>{ECONNABORTED, EMFILE});
  scripted.system.on_accept = [] { return -EINVAL; };
  tcp_stream other = s.client();
  support::settle();
  client.close();
  const anyio::error e = serving.get().error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::invalid_argument);
}

TEST_CASE("10 s without descriptors do not end serve and lose no client") {
  support::scripted_loop scripted;
  server s;
  waiting<void> serving;
  std::vector<tcp_stream> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(s.client());
  scripted.system.virtual_time = true;
  const auto until = anyio::now() + 10s;
  scripted.system.on_accept = [&]() -> std::optional<int> {
    if (scripted.system.now() < until) return -EMFILE;
    return std::nullopt;
  };
  std::size_t errors = 0;
  by_callback::start(s.listener.serve(echo, [&errors](const anyio::error&) { ++errors; }), serving);
  for (tcp_stream& c : clients) CHECK(ask(c, "x") == "x");
  CHECK(scripted.system.accepts <= 130);
  CHECK(errors >= 1);
  CHECK(errors <= 120);
}

TEST_CASE_TEMPLATE("at max_connections accepting pauses, and continues when a connection ends", Face,
                   by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  Face::start(s.listener.serve(echo, {.max_connections = 2}), serving);
  tcp_stream a = s.client(), b = s.client(), c = s.client();
  CHECK(ask(a, "a") == "a");
  CHECK(ask(b, "b") == "b");
  CHECK(by_callback::get(c.send("c")).has_value());
  waiting<std::string> answer;
  by_callback::start(c.receive(), answer);
  support::settle();
  CHECK(!answer.done());
  CHECK(by_callback::get(s.listener.accept()).error() == errc::busy_resource);  // though it pauses
  a.close();
  CHECK(answer.get().value_or("") == "c");
  // Closed while it pauses.
  tcp_stream d = s.client();
  support::settle();
  s.listener.close();
  support::settle();
  CHECK(!serving.done());
  CHECK(ask(b, "b") == "b");
  b.close();
  c.close();
  CHECK(serving.get().has_value());
}

TEST_CASE_TEMPLATE("accept during serve is busy_resource, and so is a second serve, also in the same turn",
                   Face, by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<void> serving, second;
  Face::start(s.listener.serve(echo), serving);
  Face::start(s.listener.serve(echo), second);
  CHECK(second.get().error() == errc::busy_resource);
  CHECK(Face::get(s.listener.accept()).error() == errc::busy_resource);
  CHECK(Face::get(s.listener.serve(echo)).error() == errc::busy_resource);
  tcp_stream a = s.client(), b = s.client();
  CHECK(ask(a, "a") == "a");
  CHECK(ask(b, "b") == "b");
  CHECK(!serving.done());

  server t;
  waiting<tcp_stream> accepting;
  Face::start(t.listener.accept(), accepting);
  Face::start(t.listener.serve(echo), second);
  CHECK(second.get().error() == errc::busy_resource);
  tcp_stream client = t.client();
  CHECK(accepting.get().has_value());
}

TEST_CASE("after serve is destroyed, the listener can serve and accept again") {
  anyio::loop loop;
  server s;
  for (int i = 0; i < 3; ++i) {
    auto op = s.listener.serve(echo);
    op.start([](result<>) {});
    tcp_stream client = s.client();
    CHECK(ask(client, "x") == "x");
  }
  tcp_stream client = s.client();
  CHECK(by_callback::get(s.listener.accept()).has_value());
}

TEST_CASE("a plain function can be a handler, and its return value is ignored") {
  anyio::loop loop;
  server s;
  std::vector<tcp_stream> taken;
  waiting<void> serving;
  by_callback::start(s.listener.serve([&taken](tcp_stream c) {
    taken.push_back(std::move(c));
    return 3;
  }),
                     serving);
  tcp_stream client = s.client();
  while (taken.empty()) loop.run_once(1s);
  CHECK(by_callback::get(taken.front().send("hello")).has_value());
  CHECK(by_callback::get(client.receive()).value_or("") == "hello");
  s.listener.close();
  CHECK(serving.get().has_value());
}

TEST_CASE("a temporary handler with captures lives as long as it is needed") {
  anyio::loop loop;
  server s;
  auto greeting = std::make_shared<const std::string>("hello");
  const std::weak_ptr<const std::string> watch = greeting;
  waiting<void> serving;
  by_callback::start(s.listener.serve([greeting](tcp_stream c) -> task<> {
    co_await c.send(*greeting);
    co_await c.receive();
    co_await c.send(*greeting);
  }),
                     serving);
  greeting.reset();
  CHECK(!watch.expired());
  tcp_stream client = s.client();
  CHECK(by_callback::get(client.receive()).value_or("") == "hello");
  s.listener.close();
  support::settle();
  CHECK(!watch.expired());
  CHECK(ask(client, "again") == "hello");
  CHECK(serving.get().has_value());
  CHECK(watch.expired());
}

TEST_CASE("a move-only callable and a function pointer can be handlers") {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  by_callback::start(s.listener.serve([only = std::make_unique<int>(7)](tcp_stream c) -> task<> {
    co_await c.send(std::to_string(*only));
  }),
                     serving);
  tcp_stream client = s.client();
  CHECK(by_callback::get(client.receive()).value_or("") == "7");
  s.listener.close();
  CHECK(serving.get().has_value());
  server t;
  task<> (*const pointer)(tcp_stream) = echo;
  by_callback::start(t.listener.serve(pointer), serving);
  tcp_stream other = t.client();
  CHECK(ask(other, "x") == "x");
}

TEST_CASE_TEMPLATE("a handler may close the listener", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  Face::start(s.listener.serve([&s](tcp_stream c) -> task<> {
    s.listener.close();
    co_await c.send("closed");
  }),
              serving);
  tcp_stream client = s.client();
  CHECK(by_callback::get(client.receive()).value_or("") == "closed");
  CHECK(serving.get().has_value());
}

TEST_CASE("a handler may cancel the group that serves it: the others end at once, it ends at its next wait") {
  anyio::loop loop;
  server s;
  int ended = 0;
  bool went_on = false;
  struct counts {
    int& n;
    ~counts() { ++n; }
  };
  anyio::run([&]() -> task<> {
    anyio::task_group group;
    group.start_soon(s.listener.serve([&](tcp_stream c) -> task<> {
      const counts at_end{ended};
      if (co_await c.receive() == "stop") {
        group.cancel();
        co_await anyio::sleep(0ms);
        went_on = true;
      }
    }));
    auto idle = co_await anyio::connect_tcp(s.listener.local_endpoints().front());
    auto client = co_await anyio::connect_tcp(s.listener.local_endpoints().front());
    co_await support::turns();
    co_await client.send("stop");
    co_await group.join();
    CHECK((co_await anyio::as_result(idle.receive())).error() == errc::end_of_stream);
  });
  CHECK(ended == 2);
  CHECK(!went_on);
  CHECK(s.listener);
}

TEST_CASE("on_error and a plain handler may cancel the group that serves") {
  anyio::loop loop;
  for (const bool from_handler : {false, true}) {
    server s;
    int called = 0;
    anyio::run([&]() -> task<> {
      anyio::task_group group;
      const auto stop = [&group, &called, text = std::string("captured, and longer than what lies inside")] {
        group.cancel();
        called += text.size() > 10 ? 1 : 0;
      };
      if (from_handler) {
        group.start_soon(s.listener.serve([stop](tcp_stream) { stop(); }));
      } else {
        group.start_soon(
            s.listener.serve([](tcp_stream) -> task<> { co_await anyio::raise(errc::timed_out); },
                             [stop](const anyio::error&) { stop(); }));
      }
      auto client = co_await anyio::connect_tcp(s.listener.local_endpoints().front());
      co_await group.join();
    });
    CHECK(called == 1);
    CHECK(s.listener);
  }
}

TEST_CASE("on_error may destroy the serve operation that calls it") {
  anyio::loop loop;
  server s;
  int called = 0;
  struct stops {
    std::function<void()>* stop;
    std::string text = "captured, and longer than what lies inside the object";
    void operator()(const anyio::error&) const {
      (*stop)();
      CHECK(text.size() > 20);
    }
  };
  std::function<void()> stop;
  auto op =
      s.listener.serve([](tcp_stream) -> task<> { co_await anyio::raise(errc::timed_out); }, stops{&stop});
  stop = [&] {
    ++called;
    op = {};
  };
  op.start([](result<>) { CHECK(false); });
  tcp_stream client = s.client();
  loop.run();
  CHECK(called == 1);
  CHECK(s.listener);
}

TEST_CASE_TEMPLATE("a handler learns that its server stops", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  const auto handler = [](tcp_stream client, anyio::event& stopping) -> task<> {
    const auto asked = co_await anyio::when_any(client.receive(), stopping.wait());
    co_await client.send(asked.index() == 0 ? "busy\n" : "idle\n");
    if (asked.index() == 0) co_await client.send(co_await client.receive_view());
  };
  anyio::serve_options options;
  SUBCASE("without a limit") {}
  SUBCASE("also when accepting pauses at the limit") { options.max_connections = 2; }
  Face::start(s.listener.serve(handler, options), serving);
  tcp_stream idle = s.client(), busy = s.client();
  CHECK(ask(busy, "x") == "busy\n");
  support::settle();
  s.listener.close();
  CHECK(by_callback::get(idle.receive()).value_or("") == "idle\n");
  CHECK(by_callback::get(idle.receive()).error() == errc::end_of_stream);
  support::settle();
  CHECK(!serving.done());
  CHECK(ask(busy, "finish") == "finish");
  CHECK(serving.get().has_value());
}

TEST_CASE("stopping is set at once, and stays set for a handler that begins later") {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  anyio::event* stops = nullptr;
  int stopped = 0;
  by_callback::start(s.listener.serve([&](tcp_stream, anyio::event& stopping) {
    CHECK(!stopping.is_set());
    stops = &stopping;
    s.listener.close();
    CHECK(stopping.is_set());
    return [](anyio::event& e, int& n) -> task<> {
      co_await e.wait();
      ++n;
    }(stopping, stopped);
  }),
                     serving);
  tcp_stream a = s.client();
  CHECK(serving.get().has_value());
  CHECK(stops != nullptr);
  CHECK(stopped == 1);
}

TEST_CASE("a loop, or serve, may end before handlers that wait for the server's stop") {
  auto loop = std::make_unique<anyio::loop>();
  server s;
  const auto handler = [](tcp_stream, anyio::event& stopping) -> task<> {
    co_await stopping.wait();
    FAIL("not here");
  };
  waiting<void> serving;
  anyio::task_group group;
  group.start_soon(s.listener.serve(handler));
  tcp_stream a = s.client();
  support::settle();
  SUBCASE("serve") {
    group.cancel();
    s.listener.close();
    support::settle();
  }
  SUBCASE("the loop") { loop.reset(); }
}

TEST_CASE_TEMPLATE("on_error gets the peer if it takes it", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  std::vector<anyio::ip_endpoint> peers;
  std::vector<errc> codes;
  const auto fails = [](tcp_stream client) -> task<> {
    if (co_await client.receive() == "fail") co_await anyio::raise({errc::protocol, 0, "test"});
  };
  Face::start(s.listener.serve(fails,
                               [&](const anyio::error& e, const anyio::ip_endpoint& peer) {
                                 codes.push_back(e.code());
                                 peers.push_back(peer);
                               }),
              serving);
  tcp_stream a = s.client(), b = s.client(), c = s.client();
  CHECK(ask(a, "fine") == "(nothing)");
  c.close();  // a plain end of stream
  CHECK(ask(b, "fail") == "(nothing)");
  support::settle();
  CHECK(codes == std::vector{errc::protocol});
  CHECK(peers == std::vector{b.local_endpoint()});
  s.listener.close();
  CHECK(serving.get().has_value());
}

TEST_CASE("on_error of a UNIX listener gets the peer's path") {
  anyio::loop loop;
  const support::temp_dir dir;
  auto listener = by_callback::get(anyio::create_unix_listener(dir.path("server"))).value();
  std::vector<std::string> peers;
  waiting<void> serving;
  by_callback::start(listener.serve([](anyio::unix_stream) { return anyio::raise(errc::protocol); },
                                    [&](const auto&, const auto& peer) { peers.push_back(peer); }),
                     serving);
  auto unnamed = by_callback::get(anyio::connect_unix(dir.path("server"))).value();
  support::settle();
  sockaddr_un own{}, to{};
  own.sun_family = to.sun_family = AF_UNIX;
  dir.path("client").copy(own.sun_path, sizeof own.sun_path - 1);
  dir.path("server").copy(to.sun_path, sizeof to.sun_path - 1);
  const anyio::unique_fd named(::socket(AF_UNIX, SOCK_STREAM, 0));
  CHECK(::bind(named.get(), reinterpret_cast<sockaddr*>(&own), sizeof own) == 0);
  CHECK(::connect(named.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  support::settle();
  CHECK(peers == std::vector<std::string>{"", dir.path("client")});
}

TEST_CASE("on_error that takes a peer may destroy the serve operation that calls it") {
  anyio::loop loop;
  server s;
  auto group = std::make_unique<anyio::task_group>();
  anyio::ip_endpoint seen;
  group->start_soon(s.listener.serve([](tcp_stream) { return anyio::raise(errc::protocol); },
                                     [&](const anyio::error&, const anyio::ip_endpoint& peer) {
                                       group->cancel();
                                       seen = peer;
                                     }));
  tcp_stream a = s.client();
  support::settle();
  CHECK(seen == a.local_endpoint());
}

#if ANYIO_NET_EXCEPTIONS
TEST_CASE("foreign exceptions come with the peer, too") {
  anyio::loop loop;
  server s;
  struct {
    std::vector<std::string>& seen;
    void operator()(const anyio::error& e, const anyio::ip_endpoint& peer) const {
      seen.push_back(peer.to_string() + " " + e.message());
    }
    void operator()(const std::exception_ptr& e, const anyio::ip_endpoint& peer) const {
      try {
        std::rethrow_exception(e);
      } catch (const std::exception& known) {
        seen.push_back(peer.to_string() + " " + known.what());
      }
    }
  } both{*std::make_unique<std::vector<std::string>>().release()};
  const std::unique_ptr<std::vector<std::string>> seen(&both.seen);
  waiting<void> serving;
  const auto handler = [](tcp_stream client) -> task<> {
    if (co_await client.receive() == "throw") throw std::runtime_error("mine");
    co_await anyio::raise({errc::protocol, 0, "test"});
  };
  by_callback::start(s.listener.serve(handler, both), serving);
  tcp_stream a = s.client(), b = s.client();
  CHECK(ask(a, "throw") == "(nothing)");
  CHECK(ask(b, "raise") == "(nothing)");
  CHECK(*seen == std::vector<std::string>{a.local_endpoint().to_string() + " mine",
                                          b.local_endpoint().to_string() + " test: protocol error"});
}
#endif

TEST_CASE("a UNIX listener can be served") {
  anyio::loop loop;
  const support::temp_dir dir;
  anyio::unix_listener l = by_callback::get(anyio::create_unix_listener(dir.path("s"))).value();
  waiting<void> serving;
  int errors = 0;
  by_callback::start(l.serve(
                         [](anyio::unix_stream c) -> task<> {
                           const auto m = co_await c.receive_fds(100, 4);
                           co_await c.send(std::to_string(m.fds.size()));
                           co_await anyio::raise(errc::timed_out);
                         },
                         [&errors](const anyio::error&) { ++errors; }, {.max_connections = 1}),
                     serving);
  for (int i = 0; i < 3; ++i) {
    anyio::unix_stream c = by_callback::get(anyio::connect_unix(dir.path("s"))).value();
    const int fds[] = {0, 1};
    CHECK(by_callback::get(c.send_fds("x", fds)).has_value());
    CHECK(by_callback::get(c.receive()).value_or("") == "2");
  }
  l.close();
  CHECK(serving.get().has_value());
  CHECK(errors == 3);
}

TEST_CASE("hundreds of simultaneous clients are all served, with and without a limit") {
  anyio::loop loop;
  for (const std::size_t limit : {std::size_t{0}, std::size_t{7}}) {
    server s;
    std::size_t now = 0, most = 0;
    anyio::run([&]() -> task<> {
      anyio::task_group group;
      group.start_soon(s.listener.serve(
          [&](tcp_stream c) -> task<> {
            most = std::max(most, ++now);
            co_await c.send(co_await c.receive());
            co_await c.aclose();
            --now;
          },
          {.max_connections = limit}));
      std::vector<task<>> clients;
      const auto client = [](anyio::ip_endpoint to, int i) -> task<> {
        auto c = co_await anyio::connect_tcp(to);
        const std::string text = std::to_string(i);
        co_await c.send(text);
        CHECK(co_await c.receive() == text);
      };
      for (int i = 0; i < 300; ++i) clients.push_back(client(s.listener.local_endpoints().front(), i));
      co_await anyio::when_all(std::move(clients));
      s.listener.close();
      co_await group.join();
    });
    CHECK(most > 0);
    if (limit != 0) CHECK(most <= limit);
  }
}

}  // namespace
