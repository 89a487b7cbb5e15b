// Servers from their start to their orderly end.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <signal.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::serve_until_interrupted;
using anyio::task;
using anyio::tcp_listener;
using anyio::tcp_stream;
using support::by_callback;
using support::by_coroutine;
using support::loopback;
using support::settle;
using support::waiting;

task<> until_stop(tcp_stream client, anyio::event& stopping) {
  const auto first = co_await anyio::when_any(client.receive(), stopping.wait());
  if (first.index() == 0) co_await anyio::sleep(1h);  // busy
  co_await client.send("goodbye");
}

tcp_stream connect(const anyio::ip_endpoint& to) { return by_callback::get(anyio::connect_tcp(to)).value(); }

TEST_CASE_TEMPLATE("a server serves until a signal arrives, and its idle handlers end at once", Face,
                   by_callback, by_coroutine) {
  anyio::loop loop;
  auto listener = tcp_listener::open(loopback()).value();
  const auto at = listener.local_endpoints().front();
  waiting<void> serving;
  const auto number = {SIGINT, SIGTERM};
  for (const int signal : number) {
    if (signal == SIGTERM) listener = tcp_listener::open(at).value();
    Face::start(serve_until_interrupted(listener, until_stop), serving);
    settle();
    tcp_stream a = connect(at), b = connect(at);
    settle();
    CHECK(!serving.done());
    CHECK(::raise(signal) == 0);
    CHECK(by_callback::get(a.receive()).value_or("") == "goodbye");
    CHECK(by_callback::get(b.receive()).value_or("") == "goodbye");
    CHECK(serving.get().has_value());
    CHECK(!listener);
  }
}

TEST_CASE("what has not ended after its grace is cancelled, and so it is by another signal") {
  anyio::loop loop;
  auto listener = tcp_listener::open(loopback()).value();
  tcp_stream client;
  waiting<void> serving;
  anyio::serve_until_options options;
  const auto begin = [&] {
    const auto at = listener.local_endpoints().front();
    by_callback::start(serve_until_interrupted(std::move(listener), until_stop, options), serving);
    settle();
    client = connect(at);
    CHECK(by_callback::get(client.send("busy")).has_value());
    settle();
    CHECK(::raise(SIGINT) == 0);
    settle();
  };
  SUBCASE("after its grace") {
    options.grace = 5ms;
    begin();
  }
  SUBCASE("without any") {
    options.grace = 0s;
    begin();
  }
  SUBCASE("by another signal") {
    begin();
    CHECK(!serving.done());
    CHECK(::raise(SIGTERM) == 0);
  }
  CHECK(serving.get().has_value());
  CHECK(by_callback::get(client.receive()).error() == errc::end_of_stream);
}

TEST_CASE("a server also ends when its listener is closed, and raises what ends listening") {
  anyio::loop loop;
  auto listener = tcp_listener::open(loopback()).value();
  waiting<void> serving;
  by_callback::start(serve_until_interrupted(listener, until_stop), serving);
  settle();
  tcp_stream client = connect(listener.local_endpoints().front());
  settle();
  listener.close();
  CHECK(by_callback::get(client.receive()).value_or("") == "goodbye");
  CHECK(serving.get().has_value());
  CHECK(by_callback::get(serve_until_interrupted(listener, until_stop)).error() == errc::closed_resource);
}

TEST_CASE("errors go to on_error, with the peer, and the limit of connections holds") {
  anyio::loop loop;
  const support::temp_dir dir;
  auto listener = by_callback::get(anyio::create_unix_listener(dir.path("s"))).value();
  std::vector<std::string> seen;
  int at_once = 0;
  waiting<void> serving;
  by_callback::start(
      serve_until_interrupted(
          std::move(listener),
          [&at_once](anyio::unix_stream client) -> task<> {
            ++at_once;
            const std::string text = co_await client.receive();
            --at_once;
            co_await anyio::raise({errc::protocol, 0, "test"});
          },
          [&seen](const anyio::error& e, const std::string& peer) { seen.push_back(peer + e.message()); },
          {.max_connections = 1}),
      serving);
  settle();
  auto a = by_callback::get(anyio::connect_unix(dir.path("s"))).value();
  auto b = by_callback::get(anyio::connect_unix(dir.path("s"))).value();
  settle();
  CHECK(at_once == 1);
  CHECK(by_callback::get(a.send("x")).has_value());
  CHECK(by_callback::get(b.send("x")).has_value());
  settle();
  CHECK(seen == std::vector<std::string>(2, "test: protocol error"));
  CHECK(::raise(SIGINT) == 0);
  CHECK(serving.get().has_value());
}

TEST_CASE("a server that is destroyed closes what it kept, and gives the signals back") {
  anyio::loop loop;
  auto listener = tcp_listener::open(loopback()).value();
  const auto at = listener.local_endpoints().front();
  struct sigaction before {
  }, after{};
  CHECK(::sigaction(SIGINT, nullptr, &before) == 0);
  {
    task<> serving = serve_until_interrupted(std::move(listener), until_stop);
    serving.start([](anyio::result<>) {});
    settle();
    tcp_stream client = connect(at);
    settle();
  }
  CHECK(::sigaction(SIGINT, nullptr, &after) == 0);
  CHECK((after.sa_handler == before.sa_handler));
  CHECK(by_callback::get(anyio::connect_tcp(at)).error() == std::errc::connection_refused);
}

}  // namespace
