// TLS with real engines over real sockets: long transfers, many clients, messages of a server after the
// handshake, resumed sessions.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/effort.hpp"
#include "support/tls_engines.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::task;
using anyio::tls_listener;
using anyio::tls_stream;
using context = std::shared_ptr<anyio::tls_context>;

context client_of(const support::tls_library& library) {
  const std::string authority = support::certificate("ca.pem");
  anyio::tls_config config;
  config.ca_file = authority;
  return library.make(config).value();
}

context server_of(const support::tls_library& library) {
  const std::string certificate = support::certificate("server.pem");
  const std::string key = support::certificate("server.key");
  anyio::tls_config config;
  config.certificate_file = certificate;
  config.private_key_file = key;
  return library.make(config).value();
}

tls_listener listen(context server, anyio::tls_options options = {}) {
  const auto here = anyio::ip_endpoint{anyio::ip_address::loopback_v4(), 0};
  return tls_listener(anyio::tcp_listener::open(here).value(), std::move(server), options);
}

/// A byte of a stream that differs at every position.
std::string stretch(std::size_t from, std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(((from + i) * 2654435761U) >> 13);
  return text;
}

task<> send_stretch(tls_stream& to, std::size_t total) {
  constexpr std::size_t piece = 100000;
  for (std::size_t sent = 0; sent < total; sent += piece) {
    const std::string bytes = stretch(sent, std::min(piece, total - sent));
    co_await to.send(bytes);
  }
}

task<bool> receive_stretch(tls_stream& from, std::size_t total) {
  bool same = true;
  for (std::size_t received = 0; received < total;) {
    const std::string bytes = co_await from.receive();
    same = same && bytes == stretch(received, bytes.size());
    received += bytes.size();
  }
  co_return same;
}

task<bool> exchange(tls_stream stream, std::size_t total) {
  bool same = false;
  const auto receive = [&]() -> task<> { same = co_await receive_stretch(stream, total); };
  co_await anyio::when_all(send_stretch(stream, total), receive);
  co_await stream.aclose();
  co_return same;
}

task<> transfer(const support::tls_library& client, const support::tls_library& server, std::size_t total) {
  tls_listener listener = listen(server_of(server));
  const std::uint16_t port = listener.listener().local_port();
  const auto serve = [&]() -> task<bool> { co_return co_await exchange(co_await listener.accept(), total); };
  const auto connect = [&]() -> task<bool> {
    co_return co_await exchange(co_await anyio::connect_tls("127.0.0.1", port, client_of(client)), total);
  };
  const auto [at_server, at_client] = co_await anyio::when_all(serve, connect);
  CHECK(at_server);
  CHECK(at_client);
}

TEST_CASE("tls: many MiB are sent both ways at once, with every pair of engines") {
  support::for_every_pair([](const support::tls_library& client, const support::tls_library& server) {
    CHECK(anyio::run(anyio::as_result(transfer(client, server, support::some_of(std::size_t{64} << 20)))));
  });
}

task<> answer(tls_stream stream) {
  for (;;) {
    auto bytes = co_await anyio::as_result(stream.receive_view());
    if (!bytes) break;
    co_await stream.send(*bytes);
  }
  co_await stream.aclose();
}

task<> ask(std::uint16_t port, context client, std::size_t& answered) {
  tls_stream stream = co_await anyio::connect_tls("127.0.0.1", port, client);
  co_await stream.send("hello");
  answered += co_await stream.receive() == "hello" ? 1 : 0;
  co_await stream.aclose();
}

task<> many_clients(const support::tls_library& library) {
  anyio::tls_options patient;
  patient.handshake_timeout = 10min;  // stalled clients stay to the end, on a slow machine too
  tls_listener listener = listen(server_of(library), patient);
  const std::uint16_t port = listener.listener().local_port();
  anyio::task_group serving;
  std::size_t refused = 0;
  serving.start_soon(listener.serve(answer, [&](const anyio::error&) { ++refused; }));

  // A silent client, one that sends something else, one that begins and does not continue.
  auto silent = co_await anyio::connect_tcp("127.0.0.1", port);
  auto stalled = co_await anyio::connect_tcp("127.0.0.1", port);
  co_await stalled.send(std::string("\x16\x03\x01\x02\x00\x01", 6));
  auto mistaken = co_await anyio::connect_tcp("127.0.0.1", port);
  co_await mistaken.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");

  const context client = client_of(library);
  std::size_t answered = 0;
  anyio::semaphore at_once(50);
  anyio::task_group asking;
  const int clients = support::some_of(1000);
  for (int i = 0; i < clients; ++i) {
    asking.start_soon([&]() -> task<> {
      const anyio::permit place = co_await at_once.acquire();
      co_await ask(port, client, answered);
    });
  }
  co_await asking.join();
  CHECK(answered == static_cast<std::size_t>(clients));
  while ((co_await anyio::as_result(mistaken.receive())).has_value()) {
  }
  CHECK(refused == 1);
  listener.close();
  serving.cancel();
}

TEST_CASE("tls: many clients are served while others stall in their handshake") {
  support::for_every_library([](const support::tls_library& library) {
    CHECK(anyio::run(anyio::as_result(many_clients(library))));
  });
}

task<> tickets_first(const support::tls_library& client, const support::tls_library& server) {
  tls_listener listener = listen(server_of(server));
  const std::uint16_t port = listener.listener().local_port();
  const auto serve = [&]() -> task<> {
    tls_stream stream = co_await listener.accept();
    CHECK(co_await stream.receive() == "first");
    co_await stream.send("second");
    co_await stream.aclose();
  };
  // The first messages after the handshake are tickets, not data: a pending receive is not ended by them.
  const auto connect = [&]() -> task<> {
    tls_stream stream = co_await anyio::connect_tls("127.0.0.1", port, client_of(client));
    const auto nothing = co_await anyio::move_on_after(20ms, stream.receive());
    CHECK(!nothing.has_value());
    co_await stream.send("first");
    CHECK(co_await stream.receive() == "second");
    CHECK((co_await anyio::as_result(stream.receive())).error() == errc::end_of_stream);
  };
  co_await anyio::when_all(serve, connect);
}

TEST_CASE("tls: messages of a server after the handshake are neither data nor an end") {
  support::for_every_pair([](const support::tls_library& client, const support::tls_library& server) {
    CHECK(anyio::run(anyio::as_result(tickets_first(client, server))));
  });
}

task<> twice(const support::tls_library& client, const support::tls_library& server) {
  tls_listener listener = listen(server_of(server));
  const std::uint16_t port = listener.listener().local_port();
  std::vector<bool> at_server;
  anyio::task_group serving;
  serving.start_soon(listener.serve([&](tls_stream stream) -> task<> {
    at_server.push_back(stream.info().resumed);
    CHECK(stream.remote_endpoint().address == anyio::ip_address::loopback_v4());
    co_await answer(std::move(stream));
  }));
  const context credentials = client_of(client);
  std::vector<bool> at_client;
  for (int i = 0; i < 3; ++i) {
    tls_stream stream = co_await anyio::connect_tls("localhost", port, credentials, {}, {.family = AF_INET});
    at_client.push_back(stream.info().resumed);
    CHECK(!stream.info().peer_certificate_der.empty());
    co_await stream.send("x");
    CHECK(co_await stream.receive() == "x");
    co_await stream.aclose();
  }
  listener.close();
  co_await serving.join();
  CHECK(at_client == std::vector{false, true, true});
  CHECK(at_server == at_client);
}

TEST_CASE("tls: the next connection to the same server resumes the session") {
  support::for_every_pair([](const support::tls_library& client, const support::tls_library& server) {
    CHECK(anyio::run(anyio::as_result(twice(client, server))));
  });
}

task<> within(const support::tls_library& outer, const support::tls_library& inner) {
  auto pipe = anyio::create_memory_stream_pair();
  anyio::tls_options options;
  options.server_name = "localhost";
  const auto one = [&]() -> task<> {
    auto box = std::make_unique<anyio::memory_stream>(std::move(pipe.first));
    auto below = std::make_unique<tls_stream>(
        co_await tls_stream::wrap_client(std::move(box), client_of(outer), options));
    tls_stream stream = co_await tls_stream::wrap_client(std::move(below), client_of(inner), options);
    co_await send_stretch(stream, 200000);
    CHECK(co_await receive_stretch(stream, 200000));
    co_await stream.aclose();
  };
  const auto other = [&]() -> task<> {
    auto box = std::make_unique<anyio::memory_stream>(std::move(pipe.second));
    auto below =
        std::make_unique<tls_stream>(co_await tls_stream::wrap_server(std::move(box), server_of(outer)));
    tls_stream stream = co_await tls_stream::wrap_server(std::move(below), server_of(inner));
    CHECK(co_await receive_stretch(stream, 200000));
    co_await send_stretch(stream, 200000);
    CHECK((co_await anyio::as_result(stream.receive())).error() == errc::end_of_stream);
  };
  co_await anyio::when_all(one, other);
}

TEST_CASE("tls: the stream of one engine passes through another's") {
  support::for_every_pair([](const support::tls_library& outer, const support::tls_library& inner) {
    CHECK(anyio::run(anyio::as_result(within(outer, inner))));
  });
}

}  // namespace
