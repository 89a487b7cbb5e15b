// Connecting over TCP.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <netinet/tcp.h>

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
using anyio::ip_address;
using anyio::ip_endpoint;
using anyio::result;
using anyio::task;
using anyio::tcp_listener;
using anyio::tcp_stream;
using support::by_callback;
using support::by_coroutine;
using support::loopback;
using support::waiting;

const ip_address v6 = ip_address::loopback_v6();
const ip_address v4 = ip_address::loopback_v4();

/// A port without a listener.
std::uint16_t free_port() { return tcp_listener::open(loopback()).value().local_port(); }

TEST_CASE_TEMPLATE("connecting works by address, by address as text, and by name", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  tcp_listener l = by_coroutine::get(anyio::create_tcp_listener({.local_host = "localhost"})).value();
  const std::uint16_t port = l.local_port();
  const auto reaches = [&](auto op, const ip_address& at) {
    result<tcp_stream> client = Face::get(std::move(op));
    CHECK(client.has_value());
    if (!client) return;
    CHECK(client->remote_endpoint() == ip_endpoint{at, port});
    tcp_stream server = Face::get(l.accept()).value();
    CHECK(server.remote_endpoint() == client->local_endpoint());
    CHECK(client->get_option(IPPROTO_TCP, TCP_NODELAY).value() != 0);
    CHECK(support::is_close_on_exec(client->native_handle()));
    CHECK(support::is_non_blocking(client->native_handle()));
  };
  reaches(anyio::connect_tcp(ip_endpoint{v4, port}), v4);
  reaches(anyio::connect_tcp(ip_endpoint{v6, port}), v6);
  reaches(anyio::connect_tcp("127.0.0.1", port), v4);
  reaches(anyio::connect_tcp("::1", port), v6);
  reaches(anyio::connect_tcp("localhost", port), v6);
  reaches(anyio::connect_tcp("LocalHost.", port), v6);
  reaches(anyio::connect_tcp("some.name.localhost", port), v6);
  reaches(anyio::connect_tcp("localhost", port, {.family = AF_INET}), v4);
  reaches(anyio::connect_tcp("localhost", port, {.local_host = "127.0.0.1"}), v4);
  reaches(anyio::connect_tcp(ip_endpoint{v4, port}, {.no_delay = true}), v4);
}

TEST_CASE("localhost falls back to IPv4 if nothing listens on IPv6") {
  anyio::loop loop;
  tcp_listener l = tcp_listener::open(loopback()).value();
  tcp_stream client = by_coroutine::get(anyio::connect_tcp("localhost", l.local_port())).value();
  CHECK(client.remote_endpoint() == l.local_endpoints().front());
}

TEST_CASE_TEMPLATE("a refused connection is os_error with ECONNREFUSED, and leaks nothing", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  const std::uint16_t port = free_port();
  for (const anyio::error& e : {Face::get(anyio::connect_tcp(loopback(port))).error(),
                                Face::get(anyio::connect_tcp("127.0.0.1", port)).error(),
                                Face::get(anyio::connect_tcp("localhost", port)).error(),
                                Face::get(anyio::connect_tcp(loopback(0))).error()}) {
    CHECK(e == errc::os_error);
    CHECK(e == std::errc::connection_refused);
    CHECK(e.operation() == "connect");
    CHECK(e.message() == "connect: connection refused (ECONNREFUSED)");
  }
}

TEST_CASE("an unreachable address is os_error") {
  anyio::loop loop;
  const anyio::error e =
      by_callback::get(anyio::connect_tcp({ip_address::parse("255.255.255.255").value(), 9})).error();
  CHECK(e == errc::os_error);
  CHECK(e.os_error() != 0);
  CHECK(by_callback::get(anyio::connect_tcp({ip_address::parse("fe80::1").value(), 9})).error() ==
        errc::os_error);
}

TEST_CASE("invalid names are rejected without a look-up") {
  support::scripted_loop s;
  bool asked = false;
  s.system.on_resolve = [&](const std::string&, std::uint16_t, int) {
    asked = true;
    return anyio::detail::resolved();
  };
  const auto refusal = [](std::string_view host, anyio::tcp_connect_options o = {}) {
    return by_callback::get(anyio::connect_tcp(host, 80, o)).error();
  };
  CHECK(refusal("") == errc::invalid_argument);
  CHECK(refusal("b\xc3\xbc"
                "cher.example") == errc::invalid_argument);
  CHECK(refusal(std::string_view("a\0b", 3)) == errc::invalid_argument);
  CHECK(refusal("127.0.0.1", {.family = AF_INET6}) == errc::name_resolution);
  CHECK(refusal("::1", {.family = AF_INET}) == errc::name_resolution);
  CHECK(refusal("::1", {.family = 77}) == std::errc::address_family_not_supported);
  CHECK(by_callback::get(anyio::connect_tcp({v4, 80}, {.family = AF_INET6})).error() ==
        std::errc::address_family_not_supported);
  CHECK(by_callback::get(anyio::connect_tcp({v4, 80}, {.family = 77})).error() ==
        std::errc::address_family_not_supported);
  CHECK(!asked);
}

TEST_CASE("a failed look-up is name_resolution, with the resolver's reason") {
  support::scripted_loop s;
  s.system.on_resolve = [](const std::string&, std::uint16_t, int) {
    anyio::detail::resolved r;
    r.status = -ENOENT;
    r.reason = "nobody knows it";
    return r;
  };
  const anyio::error e = by_callback::get(anyio::connect_tcp("host.example", 80)).error();
  CHECK(e == errc::name_resolution);
  CHECK(e.message().find("nobody knows it") != std::string::npos);
}

TEST_CASE("the local address and the local port can be bound independently") {
  anyio::loop loop;
  tcp_listener l = by_coroutine::get(anyio::create_tcp_listener({.local_host = "localhost"})).value();
  const auto local = [&](const ip_endpoint& to, anyio::tcp_connect_options o) {
    return by_coroutine::get(anyio::connect_tcp(to, o)).value().local_endpoint();
  };
  CHECK(local({v4, l.local_port()}, {.local_host = "127.0.0.2"}).address ==
        ip_address::parse("127.0.0.2").value());
  const std::uint16_t a = free_port();
  CHECK(local({v4, l.local_port()}, {.local_port = a}) == ip_endpoint{v4, a});
  const std::uint16_t b = free_port();
  CHECK(local({v6, l.local_port()}, {.local_port = b}) == ip_endpoint{v6, b});
  const std::uint16_t c = free_port();
  CHECK(local({v4, l.local_port()}, {.local_host = "localhost", .local_port = c}) == ip_endpoint{v4, c});
  CHECK(local({v6, l.local_port()}, {.local_host = "::1"}).address == v6);
  // An address of the other family, or not of this machine.
  const anyio::error mixed = by_callback::get(anyio::connect_tcp({v4, 9}, {.local_host = "::1"})).error();
  CHECK(mixed == errc::os_error);
  const anyio::error foreign =
      by_callback::get(anyio::connect_tcp({v4, 9}, {.local_host = "192.0.2.1"})).error();
  CHECK(foreign == std::errc::address_not_available);
  CHECK(foreign.operation() == "bind");
  // Only those families of a name are tried that the local address can reach.
  tcp_stream client =
      by_callback::get(anyio::connect_tcp("localhost", l.local_port(), {.local_host = "127.0.0.1"})).value();
  CHECK(client.remote_endpoint().address == v4);
}

TEST_CASE_TEMPLATE("an IPv4-mapped address uses an IPv6 socket, and both endpoints are IPv4", Face,
                   by_callback, by_coroutine) {
  support::scripted_loop s;
  if (!s.system.has_family(AF_INET6)) return;
  s.system.on_resolve = [](const std::string&, std::uint16_t port, int family) {
    anyio::detail::resolved found;
    if (family == AF_INET6) found.endpoints.push_back({v4, port});  // how resolvers report a mapped address
    return found;
  };
  tcp_listener l = tcp_listener::open(loopback()).value();
  const std::uint16_t port = l.local_port();
  const auto reaches = [&](auto op) {
    result<tcp_stream> client = Face::get(std::move(op));
    CHECK_MESSAGE(client.has_value(), client.error().message());
    if (!client) return;
    CHECK(client->remote_endpoint() == loopback(port));
    CHECK(client->local_endpoint().address == v4);
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    CHECK(::getsockname(client->native_handle(), reinterpret_cast<sockaddr*>(&own), &size) == 0);
    CHECK(own.ss_family == AF_INET6);
    tcp_stream server = Face::get(l.accept()).value();
    CHECK(server.remote_endpoint() == client->local_endpoint());
  };
  const ip_endpoint mapped{ip_address::parse("::ffff:127.0.0.1").value(), port};
  for (const int family : {AF_UNSPEC, AF_INET6}) {
    reaches(anyio::connect_tcp("::ffff:127.0.0.1", port, {.family = family}));
    reaches(anyio::connect_tcp(mapped, {.family = family}));
    for (const char* local : {"127.0.0.1", "::ffff:127.0.0.1"})
      reaches(anyio::connect_tcp(mapped, {.local_host = local}));
  }
  reaches(anyio::connect_tcp("mapped.example", port, {.family = AF_INET6}));
  CHECK(Face::get(anyio::connect_tcp("::ffff:127.0.0.1", port, {.family = AF_INET})).error() ==
        errc::name_resolution);
  CHECK(Face::get(anyio::connect_tcp(mapped, {.family = AF_INET})).error() ==
        std::errc::address_family_not_supported);
  // A connection to itself is refused here too.
  const std::uint16_t nobody = free_port();
  CHECK(Face::get(anyio::connect_tcp("::ffff:127.0.0.1", nobody, {.local_port = nobody})).error() ==
        std::errc::connection_refused);
}

TEST_CASE("a TCP self-connection is reported as refused, since nothing listens there") {
  anyio::loop loop;
  const std::uint16_t port = free_port();
  const anyio::error e =
      by_callback::get(anyio::connect_tcp(loopback(port), {.local_host = "127.0.0.1", .local_port = port}))
          .error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::connection_refused);
}

TEST_CASE("prepare is called between socket and connect, and its errno becomes the error") {
  anyio::loop loop;
  tcp_listener l = tcp_listener::open(loopback()).value();
  struct seen {
    int calls = 0;
    bool connected = false;
  } seen;
  const auto prepare = [](int fd, void* data) {
    auto& what = *static_cast<struct seen*>(data);
    ++what.calls;
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    what.connected = ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    return 0;
  };
  tcp_stream client = by_callback::get(anyio::connect_tcp(loopback(l.local_port()),
                                                          {.prepare = prepare, .prepare_data = &seen}))
                          .value();
  CHECK(seen.calls == 1);
  CHECK(!seen.connected);
  CHECK(client.get_option(SOL_SOCKET, SO_KEEPALIVE).value() == 1);
  CHECK(by_callback::get(
            anyio::connect_tcp("localhost", l.local_port(), {.prepare = prepare, .prepare_data = &seen}))
            .has_value());
  CHECK(seen.calls >= 2);
  const anyio::error e = by_callback::get(anyio::connect_tcp(loopback(l.local_port()),
                                                             {.prepare = [](int, void*) { return EPERM; }}))
                             .error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::operation_not_permitted);
  CHECK(e.operation() == "prepare");
  CHECK(by_callback::get(anyio::connect_tcp(loopback(l.local_port()), {.no_delay = false}))
            .value()
            .get_option(IPPROTO_TCP, TCP_NODELAY)
            .value() == 0);
}

TEST_CASE("connect_tcp copies names and options, and the operation can be started again") {
  anyio::loop loop;
  tcp_listener l = tcp_listener::open(loopback()).value();
  auto host = std::make_unique<std::string>("localhost");
  auto local = std::make_unique<std::string>("127.0.0.1");
  auto op = anyio::connect_tcp(*host, l.local_port(), {.local_host = *local});
  *host = "xxxxxxxxx";
  *local = "yyyyyyyyy";
  host.reset();
  local.reset();
  auto moved = std::move(op);
  for (int i = 0; i < 2; ++i) {
    result<tcp_stream> client;
    moved.start([&client](result<tcp_stream> r) { client = std::move(r); });
    loop.run();
    CHECK(client.value().remote_endpoint() == l.local_endpoints().front());
  }
  decltype(op) none;
  result<tcp_stream> r;
  none.start([&r](result<tcp_stream> outcome) { r = std::move(outcome); });
  loop.run();
  CHECK(r.error() == errc::invalid_argument);
}

TEST_CASE("destroying a connect during look-up or connecting leaks nothing") {
  support::scripted_loop s;
  s.system.on_connect = [](const ip_endpoint&) { return support::scripted_backend::hang; };
  {
    auto op = anyio::connect_tcp(loopback(9));
    op.start([](result<tcp_stream>) { CHECK(false); });
    support::settle();
    op = {};
    op = anyio::connect_tcp("localhost", 9);
    op.start([](result<tcp_stream>) { CHECK(false); });
    support::settle();
  }
  s.system.virtual_time = true;
  CHECK(by_coroutine::get(anyio::fail_after(3s, anyio::connect_tcp("localhost", 9))).error() ==
        errc::timed_out);
  CHECK(by_callback::get(anyio::move_on_after(3s, anyio::connect_tcp(loopback(9)))).value() == std::nullopt);
}

TEST_CASE("an interrupted connect continues, and is not called again") {
  support::scripted_loop s;
  tcp_listener l = tcp_listener::open(loopback()).value();
  int calls = 0;
  // The system's backend handles EINTR.
  s.system.on_connect = [&](const ip_endpoint&) -> std::optional<int> {
    ++calls;
    return std::nullopt;
  };
  CHECK(by_callback::get(anyio::connect_tcp(loopback(l.local_port()))).has_value());
  CHECK(calls == 1);
}

TEST_CASE("immediate failures are delivered from the loop, each with the name of its step") {
  support::scripted_loop s;
  s.system.on_connect = [](const ip_endpoint&) { return -ECONNREFUSED; };
  bool called = false;
  auto op = anyio::connect_tcp(loopback(9));
  op.start([&called](result<tcp_stream> r) {
    called = true;
    CHECK(r.error() == std::errc::connection_refused);
  });
  CHECK(!called);
  s.loop.run();
  CHECK(called);
  s.system.on_open_socket = [](int) -> std::optional<int> { return -EMFILE; };
  const anyio::error e = by_callback::get(anyio::connect_tcp(loopback(9))).error();
  CHECK(e == std::errc::too_many_files_open);
  CHECK(e.operation() == "socket");
  CHECK(by_callback::get(anyio::connect_unix("/tmp/nothing")).error().operation() == "socket");
}

TEST_CASE("100 connections at once are accepted and used") {
  anyio::loop loop;
  anyio::run([]() -> task<> {
    auto l = co_await anyio::create_tcp_listener({.local_host = "localhost"});
    anyio::task_group group;
    group.start_soon(l.serve([](tcp_stream c) -> task<> { co_await c.send(co_await c.receive()); }));
    std::vector<task<>> clients;
    const auto client = [](std::uint16_t port) -> task<> {
      auto c = co_await anyio::connect_tcp("localhost", port);
      co_await c.send("x");
      CHECK(co_await c.receive() == "x");
      CHECK((co_await anyio::as_result(c.receive())).error() == errc::end_of_stream);
    };
    for (int i = 0; i < 100; ++i) clients.push_back(client(l.local_port()));
    co_await anyio::when_all(std::move(clients));
    l.close();
    co_await group.join();
  });
}

}  // namespace
