// The SOCKS5 proxy of the examples between clients and hosts on a simulated network, with faults: a client
// gets the bytes of the host that it asked for, or an error; what was cut off never looks complete; nothing
// hangs.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "examples/support/socks5.hpp"
#include "support/sim_seeds.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::ip_address;
using anyio::task;
using anyio::tcp_stream;
namespace sim = anyio::sim;

ip_address address(const char* text) { return ip_address::parse(text).value(); }

constexpr std::uint16_t proxy_port = 1080;
constexpr std::uint16_t echo_port = 7;

/// Where a client wants to go.
enum class place : std::uint8_t { v4, v6, name, closed_port, no_name, silent, count };

/// What a client sends to the proxy. The texts have their length before them.
std::string greeting(bool with_password) {
  return with_password ? std::string("\5\2\0\2", 4) : "\5\1" + std::string(1, '\0');
}
std::string short_text(std::string_view text) { return char(text.size()) + std::string(text); }
std::string request(place to) {
  std::string r("\5\1\0", 3);
  const auto add = [&r](const ip_address& a) {
    r += a.is_v4() ? '\1' : '\4';
    for (const std::byte b : a.bytes()) r += static_cast<char>(b);
  };
  switch (to) {
    case place::v4:
    case place::closed_port: add(address("10.0.0.1")); break;
    case place::v6: add(address("2001:db8::1")); break;
    case place::name: r += '\3' + short_text("echo.example"); break;
    case place::no_name: r += '\3' + short_text("nowhere.example"); break;
    default: add(address("10.0.0.2"));
  }
  return r + '\0' + static_cast<char>(to == place::closed_port ? 9 : echo_port);
}

struct plan {
  place to = place::v4;
  bool guarded = false;  // the proxy asks for a password
  bool wrong = false;    // ... and this client does not know it
  bool eager = false;    // everything is sent before an answer has come
};

struct conversation {
  int reply = -1;  // of the proxy to the request
  std::string sent, got;
  bool complete = false;  // the stream ended in an orderly way
};

task<> write(tcp_stream& s, conversation& c) {
  for (std::size_t pieces = sim::draw(5); pieces != 0; --pieces) {
    const std::string piece = sim::draw_bytes(80);
    c.sent += piece;
    co_await s.send(piece);
    co_await anyio::sleep(std::chrono::milliseconds(sim::draw(20)));
  }
  co_await s.send_eof();
}

task<> read(anyio::buffered_stream& in, conversation& c) {
  for (;;) {
    auto got = co_await as_result(in.receive());
    if (got.error() == errc::end_of_stream) break;
    c.got += co_await std::move(got);
  }
  c.complete = true;
}

task<> converse(plan p, conversation& c) {
  tcp_stream s = co_await anyio::connect_tcp("127.0.0.1", proxy_port);
  anyio::buffered_stream in(s);
  const std::string first = greeting(p.guarded);
  const std::string second =
      p.guarded ? '\1' + short_text("ann") + short_text(p.wrong ? "guess" : "se:cret") : "";
  const std::string third = request(p.to);
  if (p.eager) {
    c.sent = sim::draw_bytes(200);
    co_await s.send(first + second + third + c.sent);
  } else {
    co_await s.send(first);
  }
  const std::string choice = co_await in.receive_exactly(2);
  CHECK(choice == std::string(1, '\5') + (p.guarded ? '\2' : '\0'));
  if (p.guarded) {
    if (!p.eager) co_await s.send(second);
    const std::string verdict = co_await in.receive_exactly(2);
    CHECK(verdict == std::string(1, '\1') + (p.wrong ? '\1' : '\0'));
    if (p.wrong) {
      const auto more = co_await as_result(in.receive());
      CHECK(!more.has_value());
      co_return;
    }
  }
  if (!p.eager) co_await s.send(third);
  const std::string answer = co_await in.receive_exactly(10);
  CHECK(answer.substr(0, 1) == "\5");
  c.reply = answer[1];
  if (c.reply != 0) {
    const auto more = co_await as_result(in.receive());
    CHECK(!more.has_value());
    co_return;
  }
  co_await anyio::when_all(write(s, c), read(in, c));
}

/// What the proxy replies when nothing is wrong but the place.
int expected(place to) {
  if (to == place::closed_port) return 5;
  return to == place::no_name || to == place::silent ? 4 : 0;
}

int completed, cut_off, refused;  // of the conversations under faults

task<> client(bool guarded, bool may_fail) {
  plan p;
  p.to = static_cast<place>(sim::draw(static_cast<std::size_t>(place::count)));
  p.guarded = guarded;
  p.wrong = guarded && sim::draw(4) == 1;
  p.eager = sim::draw(2) == 1;
  conversation c;
  const auto r = co_await as_result(converse(p, c));
  const bool prefix = c.sent.starts_with(c.got);
  CHECK(prefix);
  if (c.complete) CHECK((c.got == c.sent));
  if (p.wrong) CHECK(c.reply == -1);
  if (c.reply == 0) CHECK(expected(p.to) == 0);
  ++(c.complete ? completed : c.reply == 0 ? cut_off : refused);
  if (may_fail) co_return;
  CHECK_MESSAGE(r.has_value(), r.error().message());
  if (!p.wrong) CHECK(c.reply == expected(p.to));
  CHECK(c.complete == (!p.wrong && expected(p.to) == 0));
}

/// A failure is a reset for the other end, so an orderly end means that everything came back. The limit is
/// for a reset that was lost on a dead link.
task<> echo(tcp_stream s) {
  const auto copied = co_await as_result(anyio::fail_after(15min, anyio::copy(s, s)));
  if (!copied) co_return s.abort();
  co_await s.send_eof();
}

/// The way between the proxy and the host is dead for some seconds, sometimes.
task<> cut_off_now_and_then() {
  for (;;) {
    co_await anyio::sleep(std::chrono::milliseconds(sim::draw(400)));
    sim::faults dead;
    dead.drop = 1;
    const ip_address here = ip_address::loopback_v4();
    const ip_address there = address("10.0.0.1");
    if (sim::draw(2) == 0)  // one direction, or both
      sim::set_link(there, here, dead);
    sim::set_link(here, there, dead);
    co_await anyio::sleep(std::chrono::seconds(sim::draw(30)));
    sim::set_link(here, there, {});
    sim::set_link(there, here, {});
  }
}

template <class Listener>
task<Listener> listening(anyio::ip_endpoint at) {
  for (;;) {
    auto made = Listener::open(at);  // without a descriptor, again
    if (made) co_return std::move(*made);
    co_await anyio::sleep(1ms);
  }
}

task<> socks_program(std::uint64_t seed) {
  const ip_address v4 = address("10.0.0.1");
  const ip_address v6 = address("2001:db8::1");
  const ip_address both[] = {v6, v4};
  sim::set_name("echo.example", both);
  sim::faults silent;
  silent.drop = 1;
  sim::set_link(ip_address::loopback_v4(), address("10.0.0.2"), silent);

  const bool guarded = sim::draw(2) == 1;
  const socks5::proxy p(guarded ? "ann:se:cret" : "");
  auto echo4 = co_await listening<anyio::tcp_listener>({v4, echo_port});
  auto echo6 = co_await listening<anyio::tcp_listener>({v6, echo_port});
  auto listener = co_await listening<anyio::tcp_listener>({ip_address::loopback_v4(), proxy_port});
  anyio::task_group servers;
  servers.start_soon(echo4.serve(echo, [](const anyio::error&) {}));
  servers.start_soon(echo6.serve(echo, [](const anyio::error&) {}));
  servers.start_soon(listener.serve([&p](tcp_stream s) { return p.serve(std::move(s)); },
                                    [](const anyio::error& e) {
                                      // Whatever the network and the clients do, these are not to be met.
                                      CHECK(e != errc::invalid_argument);
                                      CHECK(e != errc::busy_resource);
                                      CHECK(e != errc::closed_resource);
                                      CHECK(e != errc::not_supported);
                                    }));

  const bool cut = seed % 5 == 0;
  anyio::task_group cutting;
  if (cut) cutting.start_soon(cut_off_now_and_then());
  const bool may_fail = cut || support::breaks(support::faults_of(seed));
  co_await anyio::when_all(client(guarded, may_fail), client(guarded, may_fail), client(guarded, may_fail));
  cutting.cancel();
  sim::heal();
  sim::set_link(ip_address::loopback_v4(), v4, {});
  sim::set_link(v4, ip_address::loopback_v4(), {});
  co_await anyio::fail_after(1min, client(guarded, false));
  listener.close();
  echo4.close();
  echo6.close();
  co_await anyio::fail_after(20min, servers.join());
}

TEST_CASE("sim socks5: clients get the bytes of their host or an error, with any faults") {
  completed = cut_off = refused = 0;
  support::run_seeds(2000, 2h, socks_program);
  MESSAGE("completed " << completed << ", cut off " << cut_off << ", refused " << refused);
  CHECK(completed > support::some_of(1000));
  CHECK(cut_off > support::some_of(100));
  CHECK(refused > support::some_of(1000));
}

}  // namespace
