// Guarantees of a kernel, kept by the simulated network, as programs see them.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::ip_address;
using anyio::ip_endpoint;
using anyio::task;
using anyio::tcp_listener;
using anyio::tcp_stream;
using anyio::unix_stream;
namespace sim = anyio::sim;

ip_address address(const char* text) { return ip_address::parse(text).value(); }

template <class Program>
void check(Program&& program, sim::profile profile = sim::profile::linux_, sim::faults faults = {}) {
  sim::options o;
  o.profile = profile;
  o.faults = faults;
  const sim::report r = sim::run(o, program);
  const std::string message = r.message().substr(0, 300);
  CAPTURE(message);
  CAPTURE(r.dump);
  CHECK(r.ok());
}

constexpr sim::profile profiles[] = {sim::profile::linux_, sim::profile::darwin, sim::profile::freebsd};

struct connection {
  tcp_listener listener;
  tcp_stream client, server;
};

task<> connect_both(connection& c, const char* host = "127.0.0.1") {
  c.listener = co_await anyio::create_tcp_listener({.local_host = host});
  c.client = co_await anyio::connect_tcp(host, c.listener.local_port());
  c.server = co_await c.listener.accept();
}

std::pair<unix_stream, unix_stream> unix_pair() { return anyio::create_unix_stream_pair().value(); }

sim::faults dead_way() {
  sim::faults f;
  f.drop = 1;
  return f;
}

// --- ends and resets

TEST_CASE("sim network: closing with unread data resets the connection, after the bytes before it") {
  for (const sim::profile profile : profiles) {
    check(
        [profile]() -> task<> {
          connection c;
          co_await connect_both(c);
          co_await c.client.send("never read");
          co_await c.server.send("before the reset");
          c.server.close();
          auto first = co_await anyio::as_result(c.client.receive());
          if (profile == sim::profile::linux_) {
            CHECK(first.value_or("") == "before the reset");
            first = co_await anyio::as_result(c.client.receive());
          }
          CHECK(first.error() == errc::broken_resource);  // the BSDs drop unread bytes
          CHECK(first.error() == std::errc::connection_reset);
          const auto again = co_await anyio::as_result(c.client.receive());
          CHECK(again.error() == errc::broken_resource);
          const auto sent = co_await anyio::as_result(c.client.send("x"));
          CHECK(sent.error() == errc::broken_resource);
        },
        profile);
  }
}

TEST_CASE("sim network: an orderly close is the peer's end, and sending to it later is a reset") {
  check([]() -> task<> {
    connection c;
    co_await connect_both(c);
    co_await c.server.send("last words");
    c.server.close();
    CHECK(co_await c.client.receive() == "last words");
    auto end = co_await anyio::as_result(c.client.receive());
    CHECK(end.error() == errc::end_of_stream);
    co_await c.client.send("goes out");  // and is answered with a reset
    auto sent = co_await anyio::as_result(c.client.send("does not"));
    CHECK(sent.error() == errc::broken_resource);
    end = co_await anyio::as_result(c.client.receive());
    CHECK(end.error() == errc::end_of_stream);  // already reported
  });
}

TEST_CASE("sim network: bytes in flight when their receiver closes reset the sender") {
  sim::faults slow;
  slow.latency_min = slow.latency_max = 10ms;
  check(
      []() -> task<> {
        connection c;
        co_await connect_both(c);
        co_await c.client.send("too late");
        c.server.close();
        co_await anyio::sleep(1s);
        const auto sent = co_await anyio::as_result(c.client.send("x"));
        CHECK(sent.error() == errc::broken_resource);
        co_return;
      },
      sim::profile::linux_, slow);
}

TEST_CASE("sim network: a half-closed connection still carries the other direction") {
  check([]() -> task<> {
    connection c;
    co_await connect_both(c);
    co_await c.client.send("question");
    co_await c.client.send_eof();
    CHECK(co_await c.server.receive() == "question");
    auto end = co_await anyio::as_result(c.server.receive());
    CHECK(end.error() == errc::end_of_stream);
    co_await anyio::sleep(1h);
    co_await c.server.send("answer");
    CHECK(co_await c.client.receive() == "answer");
    co_await c.server.aclose();
    end = co_await anyio::as_result(c.client.receive());
    CHECK(end.error() == errc::end_of_stream);
  });
}

TEST_CASE("sim network: a send waits while the receiver's window is full") {
  check([]() -> task<> {
    connection c;
    co_await connect_both(c);
    const std::string much(1 << 20, 'm');
    anyio::task_group group;
    group.start_soon([&]() -> task<> {
      co_await c.client.send(much);
      co_await c.client.send_eof();
    });
    co_await anyio::sleep(1h);
    std::string all;
    for (;;) {
      auto got = co_await anyio::as_result(c.server.receive(1000));
      if (!got) break;
      all += *got;
    }
    CHECK((all == much));
    co_await group.join();
  });
}

TEST_CASE("sim network: aclose with unread input does not reset the connection") {
  check([]() -> task<> {
    connection c;
    co_await connect_both(c);
    co_await c.client.send("not read");
    co_await c.server.send("answer");
    anyio::task_group group;
    group.start_soon(c.server.aclose());
    CHECK(co_await c.client.receive() == "answer");
    const auto end = co_await anyio::as_result(c.client.receive());
    CHECK(end.error() == errc::end_of_stream);
    c.client.close();
    co_await group.join();
  });
}

// --- connecting

TEST_CASE("sim network: connecting without a listener is refused") {
  check([]() -> task<> {
    auto tcp = co_await anyio::as_result(anyio::connect_tcp("127.0.0.1", 9));
    CHECK(tcp.error() == errc::os_error);
    CHECK(tcp.error() == std::errc::connection_refused);
    auto missing = co_await anyio::as_result(anyio::connect_unix("/run/none.sock"));
    CHECK(missing.error() == std::errc::no_such_file_or_directory);
    auto abstract = co_await anyio::as_result(anyio::connect_unix(std::string_view("\0none", 5)));
    CHECK(abstract.error() == std::errc::connection_refused);
    // Of several listeners the one at the exact address is chosen, and the others accept nothing.
    auto any = tcp_listener::open({ip_address::any_v4(), 80}, {.reuse_port = true}).value();
    auto special = tcp_listener::open({address("10.0.0.1"), 80}, {.reuse_port = true}).value();
    auto a = co_await anyio::connect_tcp("10.0.0.1", 80);
    auto b = co_await anyio::connect_tcp("10.0.0.2", 80);
    auto to_special = co_await special.accept();
    auto to_any = co_await any.accept();
    CHECK(to_special.local_endpoint().to_string() == "10.0.0.1:80");
    CHECK(to_any.local_endpoint().to_string() == "10.0.0.2:80");
    const auto v6 = co_await anyio::as_result(anyio::connect_tcp("::1", 80));
    CHECK(v6.error() == std::errc::connection_refused);
    const auto taken = tcp_listener::open({address("10.0.0.1"), 80});
    CHECK(taken.error() == std::errc::address_in_use);
  });
}

task<> count_accepted(tcp_listener& l, int& count) {
  for (;;) {
    static_cast<void>(co_await l.accept());
    ++count;
  }
}

task<> count_received(anyio::udp_socket& s, int& count) {
  for (;;) {
    static_cast<void>(co_await s.receive());
    ++count;
  }
}

TEST_CASE("sim network: listeners that share a port alternate") {
  check([]() -> task<> {
    for (const char* host : {"127.0.0.1", "::1"}) {
      const ip_endpoint at{address(host), 80};
      auto one = tcp_listener::open(at, {.reuse_port = true}).value();
      auto two = tcp_listener::open(at, {.reuse_port = true}).value();
      int counts[2] = {};
      anyio::task_group accepting;
      accepting.start_soon(count_accepted(one, counts[0]));
      accepting.start_soon(count_accepted(two, counts[1]));
      for (int i = 0; i < 6; ++i) {
        auto s = co_await anyio::connect_tcp(at);
        co_await anyio::sleep(1ms);
      }
      CHECK(counts[0] == 3);
      CHECK(counts[1] == 3);
      // A closed one gets none.
      accepting.cancel();
      two.close();
      auto s = co_await anyio::connect_tcp(at);
      static_cast<void>(co_await one.accept());
    }
  });
}

TEST_CASE("sim network: UDP sockets that share a port each have their own senders") {
  check([]() -> task<> {
    const ip_endpoint at{ip_address::loopback_v4(), 5000};
    auto one = anyio::udp_socket::open(at, {.reuse_port = true}).value();
    auto two = anyio::udp_socket::open(at, {.reuse_port = true}).value();
    int counts[2] = {};
    anyio::task_group receiving;
    receiving.start_soon(count_received(one, counts[0]));
    receiving.start_soon(count_received(two, counts[1]));
    for (int i = 0; i < 6; ++i) {
      auto s = anyio::connected_udp_socket::open(at).value();
      const int before[2] = {counts[0], counts[1]};
      for (int n = 0; n < 3; ++n) co_await s.send("x");
      co_await anyio::sleep(1ms);
      const int to_one = counts[0] - before[0];
      CHECK((to_one == 0 || to_one == 3));  // all datagrams of one sender go to one socket
      CHECK(counts[0] + counts[1] == 3 * (i + 1));
    }
    CHECK(counts[0] != 0);
    CHECK(counts[1] != 0);
    receiving.cancel();
  });
}

TEST_CASE("sim network: a dual-stack listener accepts both families") {
  check([]() -> task<> {
    auto l = co_await anyio::create_tcp_listener();
    auto v4 = co_await anyio::connect_tcp("127.0.0.1", l.local_port());
    auto v6 = co_await anyio::connect_tcp("::1", l.local_port());
    auto a = co_await l.accept();
    auto b = co_await l.accept();
    CHECK(a.remote_endpoint() == v4.local_endpoint());
    CHECK(a.local_endpoint() == v4.remote_endpoint());
    CHECK(b.remote_endpoint() == v6.local_endpoint());
    co_await a.send("4");
    co_await b.send("6");
    CHECK(co_await v4.receive() == "4");
    CHECK(co_await v6.receive() == "6");
  });
}

TEST_CASE("sim network: a TCP connect waits while the backlog is full, and fails after a while") {
  check([]() -> task<> {
    auto l = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1", .backlog = 1});
    std::vector<tcp_stream> served;
    int connected = 0;
    int timed_out = 0;
    anyio::task_group group;
    const auto connect = [&]() -> task<> {
      const anyio::time_point begun = anyio::now();
      auto c = co_await anyio::as_result(anyio::connect_tcp("127.0.0.1", l.local_port()));
      if (c) {
        ++connected;
        co_await c->send("x");
      } else {
        CHECK(c.error() == std::errc::timed_out);
        CHECK(anyio::now() - begun == 127s);
        ++timed_out;
      }
    };
    for (int i = 0; i < 5; ++i) group.start_soon(connect);
    co_await anyio::sleep(500ms);
    CHECK(connected == 2);
    served.push_back(co_await l.accept());
    co_await anyio::sleep(1s);
    CHECK(connected == 3);
    co_await group.join();
    CHECK(connected == 3);
    CHECK(timed_out == 2);
  });
}

TEST_CASE("sim network: a connect waits while the UNIX backlog is full, or is refused on the BSDs") {
  for (const sim::profile profile : profiles) {
    check(
        [profile]() -> task<> {
          auto l = co_await anyio::create_unix_listener("/run/full.sock", {.backlog = 1});
          auto one = co_await anyio::connect_unix("/run/full.sock");
          auto two = co_await anyio::connect_unix("/run/full.sock");
          if (profile != sim::profile::linux_) {
            const auto refused = co_await anyio::as_result(anyio::connect_unix("/run/full.sock"));
            CHECK(refused.error() == std::errc::connection_refused);
            co_return;
          }
          CHECK(!co_await anyio::move_on_after(10s, anyio::connect_unix("/run/full.sock")));
          anyio::task_group group;
          group.start_soon([&]() -> task<> {
            co_await anyio::sleep(1s);
            const auto s = co_await l.accept();
          });
          const anyio::time_point begun = anyio::now();
          auto three = co_await anyio::connect_unix("/run/full.sock");
          CHECK(anyio::now() - begun >= 1s);
          CHECK(anyio::now() - begun <= 1050ms);
          co_await group.join();
        },
        profile);
  }
}

TEST_CASE("sim network: connecting over a dead link times out after a while") {
  for (const sim::profile profile : profiles) {
    check(
        [profile]() -> task<> {
          auto l = co_await anyio::create_tcp_listener({.local_host = "192.0.2.1", .local_port = 80});
          const auto connect = [&]() -> task<> {
            const anyio::time_point begun = anyio::now();
            const auto c = co_await anyio::as_result(anyio::connect_tcp("192.0.2.1", 80));
            CHECK(c.error() == errc::os_error);
            CHECK(c.error() == std::errc::timed_out);
            CHECK(anyio::now() - begun == (profile == sim::profile::linux_ ? 127s : 75s));
          };
          sim::set_link(ip_address::loopback_v4(), address("192.0.2.1"), dead_way());
          co_await connect();
          sim::set_link(ip_address::loopback_v4(), address("192.0.2.1"), {});
          sim::set_link(address("192.0.2.1"), ip_address::loopback_v4(), dead_way());
          co_await connect();
          CHECK(!co_await anyio::move_on_after(30s, l.accept()));
          // A recovered link is found at the next retry, after 1, 3, 7, 15 seconds.
          anyio::task_group group;
          group.start_soon([]() -> task<> {
            co_await anyio::sleep(10s);
            sim::set_link(address("192.0.2.1"), ip_address::loopback_v4(), {});
          });
          const anyio::time_point begun = anyio::now();
          auto c = co_await anyio::connect_tcp("192.0.2.1", 80);
          CHECK(anyio::now() - begun == 15s);
          co_await group.join();
        },
        profile);
  }
}

TEST_CASE("sim network: a connect destroyed before its completion ends at the listener's side") {
  sim::faults slow;
  slow.latency_min = slow.latency_max = 50ms;
  check(
      []() -> task<> {
        auto l = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
        CHECK(!co_await anyio::move_on_after(60ms, anyio::connect_tcp("127.0.0.1", l.local_port())));
        auto s = co_await anyio::move_on_after(1s, l.accept());
        CHECK(s.has_value());
        const auto end = co_await anyio::as_result((*s).receive());
        CHECK(!end);
      },
      sim::profile::linux_, slow);
}

TEST_CASE("sim network: a connection that was reset before it is accepted") {
  for (const sim::profile profile : profiles) {
    check(
        [profile]() -> task<> {
          auto l = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
          auto c = co_await anyio::connect_tcp("127.0.0.1", l.local_port());
          CHECK(c.set_option(SOL_SOCKET, SO_KEEPALIVE, 1));
          const linger at_once{1, 0};
          CHECK(anyio::detail::loop_core::current().system().set_option(
                    c.native_handle(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
          c.close();
          auto s = co_await anyio::move_on_after(1s, l.accept());
          CHECK(s.has_value() == (profile == sim::profile::linux_));
          if (!s) co_return;
          const auto got = co_await anyio::as_result((*s).receive());
          CHECK(got.error() == errc::broken_resource);
        },
        profile);
  }
}

TEST_CASE("sim network: a closed listener resets connections that it has not accepted") {
  check([]() -> task<> {
    auto l = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
    auto c = co_await anyio::connect_tcp("127.0.0.1", l.local_port());
    l.close();
    const auto got = co_await anyio::as_result(c.receive());
    CHECK(got.error() == errc::broken_resource);
    auto u = co_await anyio::create_unix_listener("/run/u.sock");
    auto d = co_await anyio::connect_unix("/run/u.sock");
    u.close();
    const auto nothing = co_await anyio::as_result(d.receive());
    CHECK(!nothing);
  });
}

// --- dead links

TEST_CASE("sim network: all bytes arrive in order over a link that fails and recovers") {
  sim::faults slow;
  slow.latency_max = 5ms;
  check(
      []() -> task<> {
        connection c;
        co_await connect_both(c);
        std::string sent, got;
        for (int i = 0; i < 100; ++i) {
          if (i % 20 == 5) sim::set_faults(dead_way());
          if (i % 20 == 15) sim::heal();
          const std::string piece = std::to_string(i) + ' ';
          co_await c.client.send(piece);
          sent += piece;
          co_await anyio::sleep(100ms);
        }
        co_await c.client.send_eof();
        for (;;) {
          auto r = co_await anyio::as_result(c.server.receive());
          if (!r) break;
          got += *r;
        }
        CHECK(got == sent);
      },
      sim::profile::linux_, slow);
}

TEST_CASE("sim network: sending over a dead link fails after a quarter of an hour") {
  check([]() -> task<> {
    connection c;
    co_await connect_both(c);
    sim::set_faults(dead_way());
    const anyio::time_point begun = anyio::now();
    co_await c.client.send("nobody hears");
    const auto got = co_await anyio::as_result(c.client.receive());
    CHECK(got.error() == errc::broken_resource);
    CHECK(got.error() == std::errc::timed_out);
    CHECK(anyio::now() - begun == 924600ms);
    const auto sent = co_await anyio::as_result(c.client.send("x"));
    CHECK(sent.error() == errc::broken_resource);
    // The other end was told nothing, and does not know.
    CHECK(!co_await anyio::move_on_after(1h, c.server.receive()));
    c.client.close();
    CHECK(!co_await anyio::move_on_after(1h, c.server.receive()));
    sim::heal();
    co_await c.server.send("are you there");
    const auto reset = co_await anyio::as_result(c.server.receive());
    CHECK(reset.error() == errc::broken_resource);
  });
}

TEST_CASE("sim network: over a dead link a full window blocks, and the peer does not see a close") {
  check([]() -> task<> {
    connection c;
    co_await connect_both(c);
    sim::set_faults(dead_way());
    const std::string much(1 << 20, 'm');
    const auto sent = co_await anyio::as_result(anyio::fail_after(1min, c.client.send(much)));
    CHECK(sent.error() == errc::timed_out);
    c.client.close();
    CHECK(!co_await anyio::move_on_after(1min, c.server.receive()));
    sim::heal();  // the sender's side continues by itself
    std::size_t total = 0;
    for (;;) {
      auto r = co_await anyio::as_result(c.server.receive());
      if (!r) {
        CHECK(r.error() == errc::end_of_stream);
        break;
      }
      total += r->size();
    }
    CHECK(total > 0);
    CHECK(total < much.size());
  });
}

// --- order

TEST_CASE("sim network: latency, loss and other faults keep a stream's order") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    sim::options o;
    o.seed = seed;
    o.faults.latency_max = 50ms;
    o.faults.drop = 0.3;
    o.faults.duplicate = o.faults.reorder = 0.5;
    CHECK(sim::run(o, []() -> task<> {
            connection c;
            co_await connect_both(c);
            auto pair = unix_pair();
            std::string all;
            for (int i = 0; i < 50; ++i) {
              const std::string piece = std::to_string(i) + ' ';
              co_await c.client.send(piece);
              co_await pair.first.send(piece);
              all += piece;
            }
            co_await c.client.send_eof();
            co_await pair.first.send_eof();
            for (anyio::byte_stream* s : {static_cast<anyio::byte_stream*>(&c.server),
                                          static_cast<anyio::byte_stream*>(&pair.second)}) {
              std::string got;
              for (;;) {
                auto r = co_await anyio::as_result(s->receive());
                if (!r) break;
                got += *r;
              }
              CHECK(got == all);
            }
          }).ok());
  }
}

TEST_CASE("sim network: IP datagrams are lost, duplicated and reordered, UNIX datagrams are not") {
  bool lost = false;
  bool doubled = false;
  bool reordered = false;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    sim::options o;
    o.seed = seed;
    o.faults.drop = o.faults.duplicate = o.faults.reorder = 0.2;
    o.faults.latency_max = 1ms;
    CHECK(sim::run(o, [&]() -> task<> {
            auto from = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
            auto to = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
            auto unix_to = co_await anyio::create_unix_datagram_socket({.local_path = "/run/d.sock"});
            auto unix_from = co_await anyio::create_connected_unix_datagram_socket("/run/d.sock");
            for (int i = 0; i < 10; ++i) {
              const std::string text = std::to_string(i);
              co_await from.send_to(text, to.local_endpoint());
              co_await unix_from.send(text);
              CHECK((co_await unix_to.receive()).data == text);
            }
            std::vector<int> got;
            for (;;) {
              auto p = co_await anyio::move_on_after(1s, to.receive());
              if (!p) break;
              got.push_back(std::stoi(p->data));
            }
            const std::set<int> kinds(got.begin(), got.end());
            lost = lost || kinds.size() < 10;
            doubled = doubled || kinds.size() < got.size();
            for (std::size_t i = 1; i < got.size(); ++i) reordered = reordered || got[i] < got[i - 1];
          }).ok());
  }
  CHECK(lost);
  CHECK(doubled);
  CHECK(reordered);
}

// --- UNIX paths

TEST_CASE("sim network: stale socket files are replaced, live ones are not") {
  for (const sim::profile profile : profiles) {
    check(
        []() -> task<> {
          auto first = co_await anyio::create_unix_listener("/run/a.sock", {.mode = 0600});
          auto taken = co_await anyio::as_result(anyio::create_unix_listener("/run/a.sock"));
          CHECK(taken.error() == std::errc::address_in_use);
          // A socket with a full backlog is in use too, although two of the three systems refuse the
          // connection.
          auto full = co_await anyio::create_unix_listener("/run/full.sock", {.backlog = 0});
          auto waiting = co_await anyio::connect_unix("/run/full.sock");
          taken = co_await anyio::as_result(anyio::create_unix_listener("/run/full.sock"));
          CHECK(taken.error() == std::errc::address_in_use);
          first.close();
          const auto stale = co_await anyio::as_result(anyio::connect_unix("/run/a.sock"));
          CHECK(stale.error() == std::errc::connection_refused);
          auto second = co_await anyio::create_unix_listener("/run/a.sock", {.unlink_on_close = true});
          auto c = co_await anyio::connect_unix("/run/a.sock");
          auto s = co_await second.accept();
          CHECK(s.local_path() == "/run/a.sock");
          CHECK(c.remote_path() == "/run/a.sock");
          CHECK(s.credentials());
          co_await c.send("hello");
          CHECK(co_await s.receive() == "hello");
          second.close();
          const auto none = co_await anyio::as_result(anyio::connect_unix("/run/a.sock"));
          CHECK(none.error() == std::errc::no_such_file_or_directory);
          // A datagram socket at the same path is in use too.
          auto d = co_await anyio::create_unix_datagram_socket({.local_path = "/run/a.sock"});
          taken = co_await anyio::as_result(anyio::create_unix_listener("/run/a.sock"));
          CHECK(taken.error() == std::errc::address_in_use);
          d.close();
          auto e = co_await anyio::create_unix_datagram_socket({.local_path = "/run/a.sock"});
          CHECK(e.local_path() == "/run/a.sock");
        },
        profile);
  }
}

TEST_CASE("sim network: abstract names exist only on Linux, and leave no file") {
  check([]() -> task<> {
    const std::string_view name("\0some\0name", 10);
    for (int i = 0; i < 2; ++i) {
      auto l = co_await anyio::create_unix_listener(name);
      const auto taken = co_await anyio::as_result(anyio::create_unix_listener(name));
      CHECK(taken.error() == std::errc::address_in_use);
      auto c = co_await anyio::connect_unix(name);
      CHECK(c.remote_path() == name);
      auto s = co_await l.accept();
    }
    const auto gone = co_await anyio::as_result(anyio::connect_unix(name));
    CHECK(gone.error() == std::errc::connection_refused);
  });
}

// --- datagrams

TEST_CASE("sim network: datagrams keep their boundaries, empty ones too, and are truncated to the buffer") {
  check([]() -> task<> {
    for (const char* host : {"127.0.0.1", "::1"}) {
      auto a = co_await anyio::create_udp_socket({.local_host = host});
      auto b = co_await anyio::create_udp_socket({.local_host = host});
      co_await a.send_to("one", b.local_endpoint());
      co_await a.send_to("", b.local_endpoint());
      const std::string big(60000, 'b');
      co_await a.send_to(big, b.local_endpoint());
      co_await a.send_to("long one", b.local_endpoint());
      auto p = co_await b.receive();
      CHECK(p.data == "one");
      CHECK(p.sender == a.local_endpoint());
      CHECK((co_await b.receive()).data.empty());
      CHECK(((co_await b.receive()).data == big));
      char room[4];
      const anyio::udp_received cut = co_await b.receive(room);
      CHECK(cut.size == 4);
      CHECK(cut.truncated);
      CHECK(std::string_view(room, 4) == "long");
      const std::string too_big(65536, 't');
      const auto refused = co_await anyio::as_result(a.send_to(too_big, b.local_endpoint()));
      CHECK(refused.error() == errc::os_error);
      CHECK(refused.error() == std::errc::message_size);
      CHECK(!co_await anyio::move_on_after(1s, b.receive()));
    }
    auto u = co_await anyio::create_unix_datagram_socket({.local_path = "/run/u"});
    auto c = co_await anyio::create_connected_unix_datagram_socket("/run/u", {.local_path = "/run/c"});
    co_await c.send("one");
    co_await c.send("");
    auto p = co_await u.receive();
    CHECK(p.data == "one");
    CHECK(p.sender == "/run/c");
    CHECK((co_await u.receive()).data.empty());
    co_await u.send_to("back", "/run/c");
    CHECK(co_await c.receive() == "back");
  });
}

TEST_CASE("sim network: a connected UDP socket reports a refusal once, and stays usable") {
  check([]() -> task<> {
    auto gone = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
    const ip_endpoint there = gone.local_endpoint();
    gone.close();
    auto c = co_await anyio::create_connected_udp_socket(there);
    co_await c.send("x");
    auto refused = co_await anyio::as_result(c.receive());
    CHECK(refused.error() == errc::broken_resource);
    CHECK(refused.error() == std::errc::connection_refused);
    CHECK(!co_await anyio::move_on_after(1s, c.receive()));
    co_await c.send("x");
    auto sent = co_await anyio::as_result(c.send("x"));
    CHECK(sent.error() == errc::broken_resource);
    auto again = anyio::udp_socket::open(there).value();
    co_await c.send("heard");
    auto p = co_await again.receive();
    CHECK(p.data == "heard");
    co_await again.send_to("back", p.sender);
    CHECK(co_await c.receive() == "back");
    // It receives from no other peer, and an unconnected socket is told of no refusal.
    auto other = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
    co_await other.send_to("x", c.local_endpoint());
    CHECK(!co_await anyio::move_on_after(1s, c.receive()));
    co_await other.send_to("x", {ip_address::loopback_v4(), 9});
    CHECK(!co_await anyio::move_on_after(1s, other.receive()));
  });
}

TEST_CASE("sim network: a send waits while the UNIX datagram queue is full, connected or not") {
  for (const sim::profile profile : profiles) {
    check(
        []() -> task<> {
          auto to = co_await anyio::create_unix_datagram_socket({.local_path = "/run/q"});
          auto connected = co_await anyio::create_connected_unix_datagram_socket("/run/q");
          auto other = co_await anyio::create_unix_datagram_socket();
          for (int round = 0; round < 2; ++round) {
            int went = 0;
            anyio::task_group group;
            group.start_soon([&]() -> task<> {
              for (int i = 0; i < 40; ++i) {
                const std::string text = std::to_string(i);
                if (round == 0) {
                  co_await connected.send(text);
                } else {
                  co_await other.send_to(text, "/run/q");
                }
                ++went;
              }
            });
            co_await anyio::sleep(10s);
            CHECK(went == 11);
            for (int i = 0; i < 40; ++i) CHECK((co_await to.receive()).data == std::to_string(i));
            co_await group.join();
          }
          to.close();
          const auto refused = co_await anyio::as_result(connected.send("x"));
          CHECK(refused.error() == std::errc::connection_refused);
        },
        profile);
  }
}

TEST_CASE("sim network: groups are joined and left, and loop back unless disabled") {
  check([]() -> task<> {
    for (const bool v6 : {false, true}) {
      const ip_address group = address(v6 ? "ff02::1234" : "239.1.2.3");
      const int family = v6 ? AF_INET6 : AF_INET;
      auto one = co_await anyio::create_udp_socket({.family = family, .reuse_port = true});
      const std::uint16_t port = one.local_endpoint().port;
      auto two =
          co_await anyio::create_udp_socket({.family = family, .local_port = port, .reuse_port = true});
      const ip_endpoint all{group, port};
      co_await one.send_to("nobody", all);
      CHECK(one.join_group(group));
      CHECK(two.join_group(group));
      CHECK(!two.join_group(group));
      co_await one.send_to("both", all);
      CHECK((co_await one.receive()).data == "both");
      CHECK((co_await two.receive()).data == "both");
      CHECK(two.leave_group(group));
      CHECK(!two.leave_group(group));
      co_await one.send_to("one", all);
      CHECK((co_await one.receive()).data == "one");
      CHECK(!co_await anyio::move_on_after(1s, two.receive()));
      CHECK(one.set_multicast_loop(false));
      co_await one.send_to("silence", all);
      CHECK(!co_await anyio::move_on_after(1s, one.receive()));
    }
  });
}

TEST_CASE("sim network: broadcast must be enabled") {
  check([]() -> task<> {
    auto a = co_await anyio::create_udp_socket({.family = AF_INET, .reuse_port = true});
    const ip_endpoint all{ip_address::v4(0xffffffff), a.local_endpoint().port};
    const auto refused = co_await anyio::as_result(a.send_to("x", all));
    CHECK(refused.error() == std::errc::permission_denied);
    CHECK(a.set_broadcast(true));
    auto b =
        co_await anyio::create_udp_socket({.family = AF_INET, .local_port = all.port, .reuse_port = true});
    auto c = co_await anyio::create_udp_socket(
        {.local_host = "10.0.0.1", .local_port = all.port, .reuse_port = true});
    co_await a.send_to("to all", all);
    CHECK((co_await a.receive()).data == "to all");
    CHECK((co_await b.receive()).data == "to all");
    CHECK(!co_await anyio::move_on_after(1s, c.receive()));  // bound to another address
  });
}

TEST_CASE("sim network: datagrams carry packet information, in both families") {
  const auto program = []() -> task<> {
    anyio::udp_socket six = co_await anyio::udp_socket::open({ip_address::any_v6(), 0});
    anyio::udp_socket four = co_await anyio::udp_socket::open({ip_address::any_v4(), 0});
    for (anyio::udp_socket* s : {&six, &four}) {
      co_await s->set_packet_info(true);
      const bool v6 = s == &six;
      const ip_endpoint at{address(v6 ? "fe80::7%1" : "10.0.0.7"), s->local_endpoint().port};
      anyio::udp_socket client =
          co_await anyio::udp_socket::open({address(v6 ? "2001:db8::1" : "10.0.0.1"), 0});
      co_await client.send_to("default", at);
      anyio::udp_packet packet = co_await s->receive();
      CHECK(packet.info == anyio::packet_info{at.address, 1, 0, 64});
      co_await client.set_option(v6 ? int{IPPROTO_IPV6} : int{IPPROTO_IP}, v6 ? IPV6_TCLASS : IP_TOS, 0xb9);
      co_await client.send_to("class", at);
      packet = co_await s->receive();
      CHECK(packet.info.ecn == 1);
      const ip_address from = address(v6 ? "2001:db8::2" : "10.0.0.2");
      co_await client.send_to("all", at, {.local = from, .ecn = 2, .hop_limit = 3});
      packet = co_await s->receive();
      CHECK(packet.sender.address == from);
      CHECK(packet.info.ecn == 2);
      CHECK(packet.info.hop_limit == 3);
      co_await s->send_to("back", client.local_endpoint(), packet.info);
      packet = co_await client.receive();
      CHECK(packet.info == anyio::packet_info());  // it did not ask
      CHECK(packet.sender.port == at.port);
      const ip_address group = address(v6 ? "ff02::77%1" : "239.7.7.7");
      co_await s->join_group(group, "");
      co_await client.set_multicast_hops(5);
      co_await client.send_to("group", {group, at.port});
      packet = co_await s->receive();
      CHECK(packet.info.local == group);
      CHECK(packet.info.hop_limit == 5);
    }
  };
  for (const sim::profile p : profiles) check(program, p);
}

TEST_CASE("sim network: batches are sent datagram by datagram") {
  sim::faults f;
  f.would_block = f.interrupted = 0.3;
  check(
      []() -> task<> {
        auto a = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
        auto b = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
        anyio::udp_batch out(40, 100);
        for (int i = 0; i < 40; ++i) CHECK(out.push(std::to_string(i), b.local_endpoint()));
        CHECK(!out.push("full", b.local_endpoint()));
        std::size_t sent = 0;
        while (sent < 40) {
          anyio::udp_batch rest(40, 100);
          for (std::size_t i = sent; i < 40; ++i) CHECK(rest.push(out[i].data, b.local_endpoint()));
          sent += co_await a.send_batch(rest);
        }
        anyio::udp_batch in(16, 100);
        int expected = 0;
        while (expected < 40) {
          const std::size_t n = co_await b.receive_batch(in);
          CHECK(n == in.size());
          for (const auto& d : in) {
            const std::string text(reinterpret_cast<const char*>(d.data.data()), d.data.size());
            CHECK(text == std::to_string(expected++));
            CHECK(d.sender == a.local_endpoint());
          }
        }
        const std::size_t echoed = co_await b.send_batch(in);
        CHECK(echoed == in.size());
        CHECK((co_await a.receive()).data == "32");
      },
      sim::profile::linux_, f);
}

// --- passed descriptors

TEST_CASE("sim network: passed descriptors arrive with their bytes, and end a read") {
  check([]() -> task<> {
    auto way = unix_pair();
    auto passed = unix_pair();
    const int fds[] = {passed.first.native_handle(), way.second.native_handle()};
    co_await way.first.send("ab");
    co_await way.first.send_fds("cd", fds);
    co_await way.first.send("ef");
    auto m = co_await way.second.receive_fds(100, 4);
    CHECK(m.data == "abcd");
    CHECK(m.fds.size() == 2);
    auto rest = co_await way.second.receive_fds(100, 4);
    CHECK(rest.data == "ef");
    CHECK(rest.fds.empty());
    // It stays the same socket while one of its descriptors is open.
    passed.first.close();
    auto again = unix_stream::from_fd(m.fds[0].release()).value();
    co_await again.send("by another number");
    CHECK(co_await passed.second.receive() == "by another number");
    again.close();
    const auto end = co_await anyio::as_result(passed.second.receive());
    CHECK(end.error() == errc::end_of_stream);
  });
}

TEST_CASE("sim network: descriptors without room, or in a plain receive, are closed") {
  check([]() -> task<> {
    for (int kind = 0; kind < 3; ++kind) {
      auto way = unix_pair();
      auto passed = unix_pair();
      {
        const int fds[] = {passed.first.native_handle(), passed.first.native_handle()};
        co_await way.first.send_fds("x", fds);
        passed.first.close();
      }
      CHECK(!co_await anyio::move_on_after(1s, passed.second.receive()));
      if (kind == 0) {
        const auto cut = co_await anyio::as_result(way.second.receive_fds(10, 1));
        CHECK(cut.error() == errc::fds_truncated);
      } else if (kind == 1) {
        CHECK(co_await way.second.receive() == "x");
      } else {
        way.second.close();  // with the message in it
      }
      const auto end = co_await anyio::as_result(passed.second.receive());
      CHECK(end.error() == errc::end_of_stream);
    }
  });
}

TEST_CASE("sim network: a socket sent to itself leaks nothing") {
  check([]() -> task<> {
    auto way = unix_pair();
    const int fds[] = {way.second.native_handle(), way.first.native_handle()};
    co_await way.first.send_fds("x", fds);
  });
}

TEST_CASE("sim network: one message carries many descriptors") {
  check([]() -> task<> {
    auto way = unix_pair();
    auto passed = unix_pair();
    const std::vector<int> fds(253, passed.first.native_handle());
    const std::string text(300000, 't');
    anyio::task_group group;
    group.start_soon(way.first.send_fds(text, fds));
    auto m = co_await way.second.receive_fds(65536, 253);
    CHECK(m.fds.size() == 253);
    std::size_t total = m.data.size();
    while (total < text.size()) total += (co_await way.second.receive()).size();
    CHECK(total == text.size());
    co_await group.join();
  });
}

// --- descriptor numbers

TEST_CASE("sim network: the lowest free number is used first, and receives no stale events") {
  check([]() -> task<> {
    constexpr int first = 1 << 30;
    auto a = unix_pair();
    auto b = unix_pair();
    CHECK(a.first.native_handle() == first);
    CHECK(b.second.native_handle() == first + 3);
    co_await a.first.send("for the old one");
    a.second.close();
    b.first.close();
    auto c = unix_pair();
    CHECK(c.first.native_handle() == first + 1);
    CHECK(c.second.native_handle() == first + 2);
    CHECK(!co_await anyio::move_on_after(1s, c.first.receive()));
    co_await c.second.send("for the new one");
    CHECK(co_await c.first.receive() == "for the new one");
  });
}

TEST_CASE("a name without an address that the local end can reach is not found") {
  const sim::report r = sim::run({}, []() -> anyio::task<> {
    const anyio::ip_address six[] = {anyio::ip_address::loopback_v6()};
    sim::set_name("six.example", six);
    anyio::tcp_connect_options options;
    options.local_host = "127.0.0.1";
    const auto stream = co_await anyio::as_result(anyio::connect_tcp("six.example", 80, options));
    CHECK(stream.error() == anyio::errc::name_resolution);
  });
  CHECK(r.ok());
}

}  // namespace
