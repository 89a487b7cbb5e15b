// Accepting TLS connections, and connecting by name, with the toy engine.
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

#include "support/conformance.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/toy_streams.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::result;
using anyio::task;
using anyio::tcp_listener;
using anyio::tcp_stream;
using anyio::tls_listener;
using anyio::tls_options;
using anyio::tls_stream;
using support::by_callback;
using support::by_coroutine;
using support::loopback;
using support::settle;
using support::toy_client;
using support::toy_options;
using support::toy_server;
using support::waiting;

template <class Face, class Op>
errc code(Op op) {
  return Face::get(std::move(op)).error().code();
}

task<> echo(tls_stream client) {
  for (;;) co_await client.send(co_await client.receive_view());
}

struct server {
  explicit server(std::string name = std::string(support::toy_name), tls_options options = {})
      : listener(tcp_listener::open(loopback()).value(),
                 std::make_shared<support::toy_context>(std::move(name)), options),
        at(listener.listener().local_endpoints().front()) {}
  tls_listener listener;
  anyio::ip_endpoint at;

  auto connect(tls_options options = toy_options()) {
    return anyio::connect_tls("127.0.0.1", at.port, toy_client(), options);
  }
  /// A client whose server is already running.
  tls_stream client() {
    auto r = by_coroutine::get(connect());
    CHECK(r);
    return r ? *std::move(r) : tls_stream();
  }
  /// A client that is silent, or sends something else.
  tcp_stream stranger(std::string_view text = {}) {
    tcp_stream s = by_coroutine::get(anyio::connect_tcp(at)).value();
    CHECK(by_callback::get(s.send(text)));
    return s;
  }
};

template <class Stream>
std::string ask(Stream& s, std::string_view text) {
  static_cast<void>(by_callback::get(s.send(text)));
  return by_callback::get(s.receive()).value_or("(nothing)");
}

// ---- serving ------------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE(
    "tls serve runs a handler for each connection until the listener is closed and all have ended", Face,
    by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  Face::start(s.listener.serve(echo), serving);
  tls_stream a = s.client(), b = s.client();
  CHECK(ask(a, "one") == "one");
  CHECK(ask(b, "two") == "two");
  CHECK(a.info().server_name == support::toy_name);
  CHECK(a.remote_endpoint() == s.at);
  s.listener.listener().close();
  settle();
  CHECK(!serving.done());
  CHECK(ask(a, "still served") == "still served");
  a.close();
  settle();
  CHECK(!serving.done());
  b.close();
  CHECK(serving.get().has_value());
  CHECK(!s.listener);
  CHECK(code<Face>(s.listener.serve(echo)) == errc::closed_resource);
}

TEST_CASE_TEMPLATE("tls serve accepts plain functions, and move-only handlers", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  server s;
  std::vector<tls_stream> kept;
  {
    waiting<void> serving;
    auto owned = std::make_unique<int>(0);
    Face::start(s.listener.serve([&kept, calls = std::move(owned)](tls_stream stream) {
      ++*calls;
      CHECK(stream.remote_endpoint().address == anyio::ip_address::loopback_v4());
      kept.push_back(std::move(stream));
    }),
                serving);
    tls_stream client = s.client();
    settle();
    CHECK(kept.size() == 1);
    if (kept.size() != 1) return;
    CHECK(kept.front().info().server_side);
    CHECK(by_callback::get(kept.front().send("hello")).has_value());
    CHECK(by_callback::get(client.receive()).value_or("") == "hello");
    s.listener.close();
    CHECK(serving.get().has_value());
    CHECK(by_callback::get(kept.front().send("after")).has_value());
    CHECK(by_callback::get(client.receive()).value_or("") == "after");
  }
}

TEST_CASE_TEMPLATE("tls serve passes errors of handshakes and of handlers to on_error", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  server s;
  std::vector<anyio::error> seen;
  waiting<void> serving;
  const auto handler = [](tls_stream client) -> task<> {
    if (co_await client.receive() == "fail")
      co_await anyio::raise(anyio::error(errc::timed_out, 0, "handler"));
  };
  Face::start(s.listener.serve(handler, [&seen](const anyio::error& e) { seen.push_back(e); }), serving);
  tcp_stream garbage = s.stranger("GET / HTTP/1.1\r\n\r\n");
  CHECK(support::toy_records(by_callback::get(garbage.receive()).value_or("")) == "A");
  CHECK(code<Face>(garbage.receive()) == errc::end_of_stream);
  s.stranger().close();
  settle();
  tls_options wrong = toy_options();
  wrong.server_name = "another";
  CHECK(code<Face>(s.connect(wrong)) == errc::tls);
  settle();
  tls_stream fails = s.client();
  CHECK(ask(fails, "fail") == "(nothing)");
  tls_stream good = s.client();
  CHECK(by_callback::get(good.send("fine")).has_value());
  CHECK(code<Face>(good.receive()) == errc::end_of_stream);
  CHECK(seen.size() == 4);
  if (seen.size() != 4) return;
  CHECK(seen[0] == errc::tls);
  CHECK(seen[0].operation() == "tls: handshake");
  CHECK(seen[1] == errc::broken_resource);
  CHECK(seen[2] == errc::tls);  // of the first receive
  CHECK(seen[3] == errc::timed_out);
  CHECK(seen[3].operation() == "handler");
  s.listener.close();
  CHECK(serving.get().has_value());
}

TEST_CASE_TEMPLATE("tls serve: handlers learn that the server stops, and on_error who the peer was", Face,
                   by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  std::vector<anyio::ip_endpoint> peers;
  const auto handler = [](tls_stream client, anyio::event& stopping) -> task<> {
    co_await stopping.wait();
    co_await client.send("goodbye");
  };
  Face::start(s.listener.serve(handler, [&peers](const anyio::error&,
                                                 const anyio::ip_endpoint& peer) { peers.push_back(peer); }),
              serving);
  tcp_stream garbage = s.stranger("GET / HTTP/1.1\r\n\r\n");
  settle();
  CHECK(peers == std::vector{garbage.local_endpoint()});
  tls_stream client = s.client();
  settle();
  s.listener.close();
  CHECK(by_callback::get(client.receive()).value_or("") == "goodbye");
  CHECK(serving.get().has_value());
}

TEST_CASE(
    "tls serve: a plain function may take the event, too; serve_until_interrupted takes a TLS listener") {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  std::vector<tls_stream> kept;
  by_callback::start(anyio::serve_until_interrupted(s.listener,
                                                    [&kept](tls_stream client, anyio::event& stopping) {
                                                      CHECK(!stopping.is_set());
                                                      kept.push_back(std::move(client));
                                                    },
                                                    {.max_connections = 10, .max_handshakes = 10}),
                     serving);
  settle();
  tls_stream client = s.client();
  settle();
  CHECK(kept.size() == 1);
  s.listener.close();
  CHECK(serving.get().has_value());
}

TEST_CASE("tls serve: a peer that stalls, and one that sends garbage, do not affect 200 others") {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  by_callback::start(s.listener.serve(echo), serving);
  tcp_stream silent = s.stranger();
  tcp_stream half = s.stranger(support::toy_client_hello().substr(0, 3));
  tcp_stream garbage = s.stranger(std::string(1000, 'g'));
  settle();
  std::vector<waiting<tls_stream>> connecting(200);
  for (auto& c : connecting) by_callback::start(s.connect(), c);
  for (auto& c : connecting) {
    auto client = c.get();
    CHECK(client);
    if (client) CHECK(ask(*client, "x") == "x");
  }
  CHECK(support::toy_records(by_callback::get(garbage.receive()).value_or("")) == "A");
  // The slow one is served too, when it continues.
  CHECK(by_callback::get(half.send(support::toy_client_hello().substr(3))));
  CHECK(by_callback::get(half.receive()).value_or("") == support::toy_server_hello());
  CHECK(ask(half, support::toy_bytes(support::toy_record::data, "slow")) ==
        support::toy_bytes(support::toy_record::data, "slow"));
  s.listener.close();
  half.close();
  settle();
  CHECK(!serving.done());
  silent.close();
  CHECK(serving.get().has_value());
}

TEST_CASE_TEMPLATE("tls serve: handshakes count as connections, and have a time limit", Face, by_callback,
                   by_coroutine) {
  support::scripted_loop scripted;
  tls_options options;
  options.handshake_timeout = 7s;
  server s(std::string(support::toy_name), options);
  std::vector<anyio::error> seen;
  waiting<void> serving;
  Face::start(
      s.listener.serve(echo, [&seen](const anyio::error& e) { seen.push_back(e); }, {.max_connections = 2}),
      serving);
  tls_stream good = s.client();
  tcp_stream stalled = s.stranger();
  settle();
  waiting<tls_stream> third;
  by_callback::start(s.connect(), third);
  settle();
  CHECK(ask(good, "x") == "x");
  CHECK(!third.done());
  scripted.system.virtual_time = true;
  const auto before = anyio::now();
  auto r = third.get();
  CHECK(r);
  CHECK(anyio::now() - before >= 6s);
  CHECK(anyio::now() - before < 8s);
  CHECK(code<Face>(stalled.receive()) == errc::end_of_stream);
  CHECK(seen.size() == 1);
  CHECK((!seen.empty() && seen.front() == errc::timed_out));
  if (r) CHECK(ask(*r, "third") == "third");
}

TEST_CASE_TEMPLATE("tls serve: handshakes have 10 s, unless the options say otherwise", Face, by_callback,
                   by_coroutine) {
  static_assert(tls_options().handshake_timeout == 10s);
  support::scripted_loop scripted;
  scripted.system.virtual_time = true;
  server s;
  waiting<void> serving;
  Face::start(s.listener.serve(echo), serving);
  tcp_stream stalled = s.stranger();
  const auto before = anyio::now();
  CHECK(code<Face>(stalled.receive()) == errc::end_of_stream);
  CHECK(anyio::now() - before >= 9s);
  CHECK(anyio::now() - before <= 11s);

  auto silent = tcp_listener::open(loopback()).value();
  const auto at = anyio::now();
  CHECK(code<Face>(anyio::connect_tls("127.0.0.1", silent.local_port(), toy_client())) == errc::timed_out);
  CHECK(anyio::now() - at >= 9s);
  CHECK(anyio::now() - at <= 11s);
}

TEST_CASE_TEMPLATE("tls serve: with max_handshakes, stalled handshakes do not use up max_connections", Face,
                   by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<void> serving;
  Face::start(s.listener.serve(echo, {.max_connections = 2, .max_handshakes = 300}), serving);
  std::vector<tcp_stream> stalled;
  for (int i = 0; i < 290; ++i) stalled.push_back(s.stranger());
  settle();
  tls_stream one = s.client(), two = s.client();
  CHECK(ask(one, "one") == "one");
  CHECK(ask(two, "two") == "two");

  // The maximum of connections is reached: accepting pauses, also if a handshake ends.
  waiting<tls_stream> third;
  by_callback::start(s.connect(), third);
  stalled.pop_back();
  settle();
  CHECK(!third.done());
  CHECK(ask(one, "still") == "still");
  one.close();
  auto r = third.get();
  CHECK(r);
  if (r) CHECK(ask(*r, "three") == "three");
}

TEST_CASE_TEMPLATE("tls serve: at max_handshakes accepting pauses until one succeeds, fails, or times out",
                   Face, by_callback, by_coroutine) {
  support::scripted_loop scripted;
  server s;
  std::vector<anyio::error> seen;
  waiting<void> serving;
  Face::start(
      s.listener.serve(echo, [&seen](const anyio::error& e) { seen.push_back(e); }, {.max_handshakes = 3}),
      serving);
  tcp_stream fails = s.stranger(), succeeds = s.stranger(), stalls = s.stranger();
  std::vector<tcp_stream> more;
  settle();
  for (int i = 0; i < 3; ++i) {
    CAPTURE(i);
    waiting<tls_stream> next;
    by_callback::start(s.connect(), next);
    settle();
    CHECK(!next.done());
    if (i == 0) CHECK(by_callback::get(fails.send("garbage")));
    if (i == 1) CHECK(by_callback::get(succeeds.send(support::toy_client_hello())));
    scripted.system.virtual_time = i == 2;
    const auto before = anyio::now();
    auto r = next.get();
    CHECK(r);
    CHECK((anyio::now() - before >= 5s) == (i == 2));
    CHECK(anyio::now() - before <= 11s);
    scripted.system.virtual_time = false;
    if (r) CHECK(ask(*r, "x") == "x");
    more.push_back(s.stranger());  // in the place that was free
    settle();
  }
  CHECK(seen.size() == 2);  // garbage, and the first that timed out
}

task<> count_me(tls_stream client, int& now, int& most) {
  most = std::max(most, ++now);
  static_cast<void>(co_await anyio::as_result(client.send(co_await client.receive())));
  static_cast<void>(co_await anyio::as_result(client.receive()));
  --now;
}

TEST_CASE_TEMPLATE("tls serve: handshakes that end together do not exceed max_connections", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  server s;
  int now = 0, most = 0;
  waiting<void> serving;
  Face::start(s.listener.serve([&](tls_stream c) { return count_me(std::move(c), now, most); },
                               {.max_connections = 2, .max_handshakes = 8}),
              serving);
  std::vector<tcp_stream> slow;
  for (int i = 0; i < 8; ++i) slow.push_back(s.stranger());
  settle();
  CHECK(now == 0);
  for (tcp_stream& c : slow) CHECK(by_callback::get(c.send(support::toy_client_hello())));
  for (tcp_stream& c : slow) CHECK(by_callback::get(c.receive()).value_or("") == support::toy_server_hello());
  settle();
  CHECK(now == 2);
  waiting<tls_stream> ninth;  // handshakes that wait for their handler still count as handshakes: 6 of 8
  by_callback::start(s.connect(), ninth);
  settle();
  CHECK(!ninth.done());
  for (std::size_t i = 0; i < slow.size(); ++i) {
    tcp_stream& c = slow[i];
    const std::string words = support::toy_bytes(support::toy_record::data, "x");
    CHECK(by_callback::get(c.send(words)));
    CHECK(by_callback::get(c.receive()).value_or("") == words);
    c.close();
    settle();
    CHECK(now == (i == 7 ? 1 : 2));
  }
  CHECK(ninth.get().has_value());
  CHECK(most == 2);
  s.listener.close();
  settle();
}

TEST_CASE("tls serve: 1000 stalled peers do not keep others out") {
  anyio::loop loop;
  for (const anyio::serve_options options :
       {anyio::serve_options{}, anyio::serve_options{.max_connections = 1, .max_handshakes = 2000}}) {
    server s;
    waiting<void> serving;
    by_callback::start(s.listener.serve(echo, options), serving);
    std::vector<tcp_stream> stalled;
    for (int i = 0; i < 1000; ++i) stalled.push_back(s.stranger());
    tls_stream good = s.client();
    CHECK(ask(good, "x") == "x");
  }
}

TEST_CASE("tls serve: destroying it cancels handlers and handshakes") {
  anyio::loop loop;
  server s;
  auto op = s.listener.serve(echo);
  op.start([](result<>) { CHECK(false); });
  tls_stream client = s.client();
  CHECK(ask(client, "x") == "x");
  tcp_stream stalled = s.stranger();
  settle();
  op = {};
  CHECK(code<by_callback>(client.receive()) == errc::end_of_stream);
  CHECK(code<by_callback>(stalled.receive()) == errc::end_of_stream);
  CHECK(s.listener);
  waiting<tls_stream> next;
  by_callback::start(s.listener.accept(), next);
  tls_stream another = s.client();
  CHECK(next.get().has_value());
}

// ---- accepting ----------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE(
    "tls accept returns connections with a completed handshake, whatever stalls or fails before", Face,
    by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  tcp_stream stalled = s.stranger();
  tcp_stream garbage = s.stranger("garbage");
  waiting<tls_stream> connecting;
  by_callback::start(s.connect(), connecting);
  auto accepted = Face::get(s.listener.accept());
  auto client = connecting.get();
  CHECK(accepted);
  CHECK(client);
  if (!accepted || !client) return;
  CHECK(accepted->info().server_side);
  CHECK(accepted->remote_endpoint().address == anyio::ip_address::loopback_v4());
  CHECK(accepted->remote_endpoint().port != s.at.port);
  CHECK(by_callback::get(client->send("x")).has_value());
  CHECK(Face::get(accepted->receive()).value_or("") == "x");

  waiting<tls_stream> late;
  Face::start(s.listener.accept(), late);
  settle();
  CHECK(!late.done());
  CHECK(by_callback::get(stalled.send(support::toy_client_hello())));
  CHECK(late.get().has_value());
  CHECK(code<Face>(garbage.receive()) == errc::ok);
  CHECK(code<Face>(garbage.receive()) == errc::end_of_stream);
}

TEST_CASE("tls accept: 100 at once, in several turns") {
  anyio::loop loop;
  server s;
  std::vector<waiting<tls_stream>> connecting(100);
  for (auto& c : connecting) by_callback::start(s.connect(), c);
  std::vector<tls_stream> accepted;
  for (std::size_t i = 0; i < connecting.size(); ++i) {
    auto r = by_coroutine::get(s.listener.accept());
    CHECK(r);
    if (r) accepted.push_back(*std::move(r));
  }
  for (auto& c : connecting) CHECK(c.get().has_value());
  CHECK(accepted.size() == connecting.size());
}

TEST_CASE("tls accept: an accept cancelled at any point loses no connection") {
  for (int point = 0; point < 12; ++point) {
    anyio::loop loop;
    server s;
    waiting<tls_stream> connecting;
    by_callback::start(s.connect(), connecting);
    bool done = false;
    {
      auto op = s.listener.accept();
      op.start([&done](result<tls_stream> r) { done = r.has_value(); });
      for (int i = 0; i < point && !done; ++i) anyio::detail::loop_core::current().step();
    }
    if (done) {  // the connection was closed with its stream
      CHECK(point > 1);
      break;
    }
    CHECK(point < 11);
    CHECK(by_callback::get(anyio::fail_after(10s, s.listener.accept())).has_value());
    CHECK(connecting.get().has_value());
  }
}

TEST_CASE("tls accept: connections ready before accept are returned first, and no more are taken") {
  anyio::loop loop;
  server s;
  CHECK(code<by_callback>(anyio::fail_after(1ms, s.listener.accept())) == errc::timed_out);
  waiting<tls_stream> accepting;
  tcp_stream first = s.stranger();
  tcp_stream second = s.stranger();
  {
    auto op = s.listener.accept();
    op.start([](result<tls_stream>) { CHECK(false); });
    settle();
  }
  tcp_stream third = s.stranger(support::toy_client_hello());
  for (tcp_stream* c : {&first, &second}) {
    CHECK(by_callback::get(c->send(support::toy_client_hello())));
    CHECK(by_callback::get(c->receive()).value_or("") == support::toy_server_hello());
  }
  waiting<std::string> answer;
  by_callback::start(third.receive(), answer);
  settle();
  CHECK(!answer.done());
  const std::uint16_t ports[] = {first.local_endpoint().port, second.local_endpoint().port,
                                 third.local_endpoint().port};
  for (const std::uint16_t port : ports) {
    auto r = by_callback::get(s.listener.accept());
    CHECK(r);
    if (r) CHECK(r->remote_endpoint().port == port);
  }
  CHECK(answer.get().value_or("") == support::toy_server_hello());
}

TEST_CASE_TEMPLATE("tls accept and serve: only one can be pending", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  {
    waiting<void> serving;
    auto op = s.listener.serve(echo);
    op.start([](result<>) { CHECK(false); });
    settle();
    CHECK(code<Face>(s.listener.accept()) == errc::busy_resource);
    CHECK(code<Face>(s.listener.serve(echo)) == errc::busy_resource);
  }
  waiting<tls_stream> accepting;
  Face::start(s.listener.accept(), accepting);
  settle();
  CHECK(code<Face>(s.listener.accept()) == errc::busy_resource);
  CHECK(code<Face>(s.listener.serve(echo)) == errc::busy_resource);
  CHECK(code<Face>(s.listener.listener().accept()) == errc::busy_resource);
  CHECK(!accepting.done());
  tls_stream client = s.client();
  CHECK(accepting.get().has_value());
}

TEST_CASE("tls accept: an unreported failure is not reported by the next accept") {
  for (int point = 1; point < 6; ++point) {
    anyio::loop loop;
    server s;
    {
      auto serving = s.listener.serve(echo);
      serving.start([](result<>) { CHECK(false); });
      settle();
      auto op = s.listener.accept();
      op.start([](result<tls_stream> r) { CHECK(r.error() == errc::busy_resource); });
      for (int i = 0; i < point && op.pending() && loop.time_until_next() == 0s; ++i)
        anyio::detail::loop_core::current().step();
    }
    waiting<tls_stream> connecting;
    by_callback::start(s.connect(), connecting);
    CHECK(by_callback::get(s.listener.accept()).has_value());
    CHECK(connecting.get().has_value());
  }
}

TEST_CASE_TEMPLATE("tls listener: closing ends accept and pending handshakes", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  for (const bool destroyed : {true, false}) {
    std::optional<server> s(std::in_place);
    tcp_stream stalled = s->stranger();
    waiting<tls_stream> accepting;
    Face::start(s->listener.accept(), accepting);
    settle();
    if (destroyed) {
      s.reset();
    } else {
      s->listener.close();
      s->listener.close();
    }
    CHECK(!accepting.done());
    CHECK(accepting.get().error() == errc::closed_resource);
    CHECK(code<Face>(stalled.receive()) == errc::end_of_stream);
    if (destroyed) continue;
    CHECK(!s->listener);
    CHECK(code<Face>(s->listener.accept()) == errc::closed_resource);
  }
}

TEST_CASE_TEMPLATE("tls listener: closing the inner listener ends accept", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<tls_stream> accepting;
  Face::start(s.listener.accept(), accepting);
  settle();
  s.listener.listener().close();
  CHECK(accepting.get().error() == errc::closed_resource);
  for (int i = 0; i < 2; ++i) CHECK(code<Face>(s.listener.accept()) == errc::closed_resource);
}

TEST_CASE("tls listener: without a listener, a context, or a certificate") {
  anyio::loop loop;
  tls_listener none;
  CHECK(!none);
  none.close();
  CHECK(code<by_callback>(none.accept()) == errc::closed_resource);
  CHECK(code<by_callback>(none.serve(echo)) == errc::closed_resource);
  CHECK(code<by_callback>(anyio::accept_operation<tls_stream>()) == errc::invalid_argument);
  tls_listener no_context(tcp_listener::open(loopback()).value(), nullptr);
  CHECK(no_context);
  CHECK(code<by_callback>(no_context.accept()) == errc::invalid_argument);

  server no_certificate("");
  std::vector<anyio::error> seen;
  auto op = no_certificate.listener.serve(echo, [&seen](const anyio::error& e) { seen.push_back(e); });
  op.start([](result<>) { CHECK(false); });
  tcp_stream client = no_certificate.stranger(support::toy_client_hello());
  CHECK(by_callback::get(client.receive()).has_value() == false);
  CHECK(seen.size() == 1);
  CHECK((!seen.empty() && seen.front() == errc::invalid_argument));
}

TEST_CASE_TEMPLATE("tls listener: it can be moved during accept", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  server s;
  waiting<tls_stream> accepting;
  Face::start(s.listener.accept(), accepting);
  tcp_stream stalled = s.stranger();
  settle();
  tls_listener moved = std::move(s.listener);
  CHECK(!s.listener);
  CHECK(code<Face>(s.listener.accept()) == errc::closed_resource);
  tls_listener assigned;
  assigned = std::move(moved);
  s.listener = {};
  CHECK(assigned);
  CHECK(!accepting.done());
  tls_stream client = s.client();
  CHECK(accepting.get().has_value());
  Face::start(assigned.accept(), accepting);
  CHECK(by_callback::get(stalled.send(support::toy_client_hello())));
  CHECK(accepting.get().has_value());
  server other;
  const auto before = other.at;
  assigned = std::move(other.listener);  // closes the old one
  CHECK(code<Face>(anyio::connect_tcp(s.at)) == errc::os_error);
  CHECK(assigned.listener().local_port() == before.port);
}

TEST_CASE("tls listener: the loop may end first") {
  std::optional<anyio::loop> loop(std::in_place);
  server accepts;
  server serves;
  tcp_stream one = accepts.stranger();
  tcp_stream two = serves.stranger();
  auto accepting = accepts.listener.accept();
  auto serving = serves.listener.serve(echo);
  accepting.start([](result<tls_stream>) { CHECK(false); });
  serving.start([](result<>) { CHECK(false); });
  auto connecting = serves.connect();
  connecting.start([](result<tls_stream>) {});
  for (int i = 0; i < 10; ++i) loop->run_once(0ms);
  loop.reset();
  CHECK(!accepts.listener);
  CHECK(!serves.listener);
}

// ---- connecting ---------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("connect_tls by name and by address, which the server's certificate must contain", Face,
                   by_callback, by_coroutine) {
  anyio::loop loop;
  for (const char* host : {"localhost", "127.0.0.1"}) {
    server s(host);
    waiting<void> serving;
    by_callback::start(s.listener.serve(echo), serving);
    anyio::tcp_connect_options ip4;
    ip4.family = AF_INET;
    auto client = Face::get(anyio::connect_tls(host, s.at.port, toy_client(), {}, ip4));
    CHECK(client);
    if (!client) return;
    CHECK(ask(*client, "x") == "x");
    CHECK(client->info().server_name == host);
    CHECK(client->remote_endpoint() == s.at);
    CHECK(client->socket() != nullptr);
    tls_options other;
    other.server_name = "another.example";
    CHECK(code<Face>(anyio::connect_tls(host, s.at.port, toy_client(), other, ip4)) == errc::tls);
    s.listener.close();
    client->close();
    CHECK(serving.get().has_value());
  }
}

TEST_CASE_TEMPLATE("connect_tls fails as TCP or as the handshake does", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  auto plain = tcp_listener::open(loopback()).value();
  const std::uint16_t port = plain.local_port();
  CHECK(code<Face>(anyio::connect_tls("127.0.0.1", port, nullptr)) == errc::invalid_argument);
  CHECK(code<Face>(decltype(anyio::connect_tls("", 0, nullptr))()) == errc::invalid_argument);
  {
    waiting<tls_stream> connecting;
    Face::start(anyio::connect_tls("127.0.0.1", port, toy_client()), connecting);
    tcp_stream peer = by_callback::get(plain.accept()).value();
    CHECK(by_callback::get(peer.send("220 no TLS here\r\n")));
    CHECK(connecting.get().error() == errc::tls);
    CHECK(support::toy_records(by_callback::get(peer.receive()).value_or("")).substr(0, 1) == "H");
  }
  {
    waiting<tls_stream> connecting;
    Face::start(anyio::connect_tls("127.0.0.1", port, toy_client()), connecting);
    by_callback::get(plain.accept()).value().close();
    const auto r = connecting.get();
    CHECK(r.error() == errc::broken_resource);
  }
  plain.close();
  const auto refused = Face::get(anyio::connect_tls("127.0.0.1", port, toy_client()));
  CHECK(refused.error() == errc::os_error);
  CHECK(refused.error() == std::errc::connection_refused);
}

TEST_CASE_TEMPLATE("connect_tls: with a silent server the handshake's, or the caller's, time limit applies",
                   Face, by_callback, by_coroutine) {
  support::scripted_loop scripted;
  scripted.system.virtual_time = true;
  auto plain = tcp_listener::open(loopback()).value();
  tls_options options;
  options.handshake_timeout = 5s;
  for (const auto limit : {5s, 2s}) {
    const auto before = anyio::now();
    auto r = Face::get(
        anyio::fail_after(limit == 5s ? 60s : limit,
                          anyio::connect_tls("127.0.0.1", plain.local_port(), toy_client(), options)));
    CHECK(r.error() == errc::timed_out);
    CHECK(anyio::now() - before >= limit);
    CHECK(anyio::now() - before < limit + 1s);
    tcp_stream peer = by_callback::get(plain.accept()).value();
    CHECK(support::toy_records(by_callback::get(peer.receive()).value_or("")) == "H");
    CHECK(code<Face>(peer.receive()) == errc::end_of_stream);
  }
}

TEST_CASE("connect_tls: a named operation destroyed at any point leaks nothing, and can be started again") {
  anyio::loop loop;
  server s("127.0.0.1");
  auto serving = s.listener.serve(echo);
  serving.start([](result<> r) { CHECK(r); });
  for (int point = 0; point < 30; ++point) {
    auto op = anyio::connect_tls("127.0.0.1", s.at.port, toy_client());
    op.start([](result<tls_stream>) {});
    for (int i = 0; i < point && anyio::detail::loop_core::current().time_until_next() == 0s; ++i)
      anyio::detail::loop_core::current().step();
  }
  auto op = anyio::connect_tls("127.0.0.1", s.at.port, toy_client());
  for (int round = 0; round < 3; ++round) {
    tls_stream client;
    op.start([&client](result<tls_stream> r) {
      CHECK(r);
      if (r) client = *std::move(r);
    });
    CHECK(conformance::runs_until(loop, [&] { return !op.pending(); }));
    CHECK(ask(client, "again") == "again");
  }
  anyio::run([&]() -> task<> {
    for (int round = 0; round < 3; ++round) {
      tls_stream client = co_await op;
      co_await client.send("again");
      CHECK(co_await client.receive() == "again");
    }
  });
  s.listener.close();
  op.start([](result<tls_stream> r) { CHECK(r.error() == errc::os_error); });
  CHECK(conformance::runs_until(loop, [&] { return !op.pending(); }));
}

}  // namespace
