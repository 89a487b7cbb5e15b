// Regression tests of TLS.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "support/tls_engines.hpp"
#include "support/toy_streams.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::task;
using anyio::tls_stream;
using support::tls_library;

std::shared_ptr<anyio::tls_context> client_of(const tls_library& library) {
  return support::make_context(library, {});
}
std::shared_ptr<anyio::tls_context> server_of(const tls_library& library) {
  return support::make_context(library, {.certificate = "server"});
}

task<> sends_and_is_gone(const tls_library& client, const tls_library& server, bool strict) {
  auto both = anyio::create_unix_stream_pair().value();
  anyio::tls_options options;
  options.server_name = "localhost";
  options.standard_compatible = strict;
  auto one = tls_stream::wrap_client(std::make_unique<anyio::unix_stream>(std::move(both.first)),
                                     client_of(client), options);
  auto other = tls_stream::wrap_server(std::make_unique<anyio::unix_stream>(std::move(both.second)),
                                       server_of(server), options);
  auto streams = co_await anyio::when_all(std::move(one), std::move(other));
  co_await anyio::sleep(0s);  // so that tickets have been sent
  std::get<0>(streams).close();
  const auto nothing = co_await anyio::as_result(std::get<1>(streams).receive());
  CHECK(nothing.error() == errc::end_of_stream);
}

task<> sends_much_and_is_gone(const tls_library& client, const tls_library& server, bool strict) {
  auto both = anyio::create_unix_stream_pair().value();
  anyio::tls_options options;
  options.server_name = "localhost";
  options.standard_compatible = strict;
  auto one = tls_stream::wrap_client(std::make_unique<anyio::unix_stream>(std::move(both.first)),
                                     client_of(client), options);
  auto other = tls_stream::wrap_server(std::make_unique<anyio::unix_stream>(std::move(both.second)),
                                       server_of(server), options);
  auto streams = co_await anyio::when_all(std::move(one), std::move(other));
  const std::string bytes(50000, 'x');
  co_await std::get<0>(streams).send(bytes);
  std::get<0>(streams) = {};
  std::string received;
  for (;;) {
    auto some = co_await anyio::as_result(std::get<1>(streams).receive());
    if (!some) {
      CHECK(some.error() == errc::end_of_stream);
      break;
    }
    received += *some;
  }
  CHECK((received == bytes));
}

TEST_CASE("tls again: sent bytes arrive although the client is destroyed with unread tickets") {
  support::for_every_pair([](const tls_library& client, const tls_library& server) {
    for (const bool strict : {true, false}) {
      CAPTURE(strict);
      CHECK(anyio::run(anyio::as_result(sends_and_is_gone(client, server, strict))));
      CHECK(anyio::run(anyio::as_result(sends_much_and_is_gone(client, server, strict))));
    }
  });
}

/// A client that sends, and closes before the server has completed its handshake.
task<> sends_and_is_gone_at_once(const tls_library& client, const tls_library& server, std::size_t size,
                                 bool strict) {
  anyio::tls_options options;
  options.standard_compatible = strict;
  const auto here = anyio::ip_endpoint{anyio::ip_address::loopback_v4(), 0};
  anyio::tls_listener listener(anyio::tcp_listener::open(here).value(), server_of(server), options);
  const std::string bytes(size, 'x');
  std::string received;
  const auto serve = [&]() -> task<> {
    tls_stream stream = co_await listener.accept();
    for (;;) {
      auto some = co_await anyio::as_result(stream.receive());
      if (!some) {
        CHECK(some.error() == errc::end_of_stream);
        break;
      }
      received += *some;
    }
  };
  const auto connect = [&]() -> task<> {
    tls_stream stream = co_await anyio::connect_tls("127.0.0.1", listener.listener().local_port(),
                                                    client_of(client), options);
    co_await stream.send(bytes);
    if (strict) stream.close();
  };
  co_await anyio::when_all(serve, connect);
  CHECK((received == bytes));
}

TEST_CASE("tls again: sent bytes arrive although the server's tickets come after the client closed") {
  support::for_every_pair([](const tls_library& client, const tls_library& server) {
    for (const std::size_t size : {std::size_t{1000}, std::size_t{200'000}, std::size_t{1'000'000}}) {
      for (const bool strict : {true, false}) {
        CAPTURE(size);
        CAPTURE(strict);
        CHECK(anyio::run(anyio::as_result(sends_and_is_gone_at_once(client, server, size, strict))));
      }
    }
  });
}

task<> sends_and_reads_little(const tls_library& client, const tls_library& server) {
  const auto here = anyio::ip_endpoint{anyio::ip_address::loopback_v4(), 0};
  anyio::tls_listener listener(anyio::tcp_listener::open(here).value(), server_of(server));
  anyio::tcp_connect_options roomy;
  roomy.prepare = [](int fd, void*) {
    const int size = 200'000;
    return ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0 ? 0 : errno;
  };
  auto streams = co_await anyio::when_all(
      listener.accept(),
      anyio::connect_tls("127.0.0.1", listener.listener().local_port(), client_of(client), {}, roomy));
  const std::string answer(150'000, 'a'), bytes(400'000, 'x');
  co_await std::get<0>(streams).send(answer);
  char first[1];
  CHECK(co_await std::get<1>(streams).receive(first) == 1);
  co_await std::get<1>(streams).send(bytes);
  std::get<1>(streams).close();
  std::string received;
  for (;;) {
    auto some = co_await anyio::as_result(std::get<0>(streams).receive());
    if (!some) {
      CHECK(some.error() == errc::end_of_stream);
      break;
    }
    received += *some;
  }
  CHECK((received == bytes));
}

TEST_CASE("tls again: sent bytes arrive although the client closes with much unread data") {
  support::for_every_pair([](const tls_library& client, const tls_library& server) {
    CHECK(anyio::run(anyio::as_result(sends_and_reads_little(client, server))));
  });
}

TEST_CASE("tls again: a name that an engine could misread is rejected") {
  support::for_every_library([](const tls_library& library) {
    const auto client = client_of(library);
    for (const std::string_view name :
         {".server.example", "a..example", "*.wild.example", ".", "..", "server.example..", "127.0.0.01",
          "127.1", "0x7f000001", "1.2.3.4.5", "b\xc3\xbc.example", "two words", "[::1]"}) {
      CAPTURE(name);
      anyio::tls_pipe pipe;
      CHECK(client->client(pipe, name) == nullptr);
    }
    for (const std::string_view name : {"localhost", "server.example.", "a_b.wild.example", "127.0.0.1",
                                        "127.0.0.1.", "::1", "fe80::1%lo"}) {
      CAPTURE(name);
      anyio::tls_pipe pipe;
      CHECK(client->client(pipe, name) != nullptr);
    }
  });
}

TEST_CASE("tls again: an address followed by a dot is that address") {
  support::for_every_pair([](const tls_library& c, const tls_library& s) {
    const auto client = client_of(c);
    const auto server = server_of(s);
    for (const std::string_view name : {"127.0.0.1.", "127.0.0.1"}) {
      support::tls_link link(client, std::string(name), server);
      CHECK(link.handshake());
      CHECK(link.server.engine->info().server_name.empty());
    }
  });
}

TEST_CASE("tls again: closing uses transport room that became free since the last attempt") {
  anyio::loop loop;
  auto pair = anyio::create_unix_stream_pair().value();
  const int peer = pair.second.native_handle();
  auto client = tls_stream::wrap_client(std::make_unique<anyio::unix_stream>(std::move(pair.first)),
                                        support::toy_client(), support::toy_options());
  tls_stream stream;
  struct arrival {
    tls_stream* to;
    void operator()(anyio::result<tls_stream> r) const {
      if (r) *to = *std::move(r);
    }
  };
  client.start(arrival{&stream});
  const std::string hello = support::toy_server_hello();
  CHECK(::send(peer, hello.data(), hello.size(), 0) == static_cast<ssize_t>(hello.size()));
  while (!stream) loop.run_once(1s);

  const std::string much(std::size_t{4} << 20, 'x');
  auto sending = stream.send(much);
  struct ignored {
    void operator()(anyio::result<>) const {}
  };
  sending.start(ignored{});
  while (loop.run_once(0s)) {
  }
  sending = {};
  std::string wire;
  const auto drain = [&] {
    char room[65536];
    for (;;) {
      const ssize_t n = ::recv(peer, room, sizeof room, MSG_DONTWAIT);
      if (n <= 0) return;
      wire.append(room, static_cast<std::size_t>(n));
    }
  };
  drain();
  stream.close();  // before the loop could report the room
  drain();
  const std::string records = support::toy_records(wire);
  CHECK(records.ends_with("C"));
  CHECK(records.find('?') == std::string::npos);
}

task<> cancelled_receive(tls_stream& stream) {
  anyio::task_group group;
  bool cancelled = false;
  group.start_soon([&]() -> task<> {
    cancelled = (co_await anyio::as_result(stream.receive())).error() == errc::cancelled;
  });
  co_await anyio::sleep(1ms);
  stream.socket()->cancel();
  co_await group.join();
  CHECK(cancelled);
  const auto nothing = co_await anyio::as_result(anyio::fail_after(0s, stream.transport().receive()));
  CHECK(nothing.error() == errc::timed_out);
}

TEST_CASE("tls again: a cancelled receive gives up its place at the transport") {
  anyio::loop loop;
  auto both = support::toy_socket_pair();
  CHECK(anyio::run(anyio::as_result(cancelled_receive(both.first))));
}

#if ANYIO_NET_EXCEPTIONS

class throwing_context : public anyio::tls_context {
 public:
  std::unique_ptr<anyio::tls_engine> client(anyio::tls_pipe&, std::string_view) override {
    throw std::runtime_error("no credentials today");
  }
  std::unique_ptr<anyio::tls_engine> server(anyio::tls_pipe&) override { return nullptr; }
};

task<> a_context_that_throws() {
  auto pipe = anyio::create_memory_stream_pair();
  auto op = tls_stream::wrap_client(std::make_unique<anyio::memory_stream>(std::move(pipe.first)),
                                    std::make_shared<throwing_context>(), support::toy_options());
  bool thrown = false;
  try {
    static_cast<void>(co_await op);
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  CHECK(thrown);
  CHECK(!(co_await anyio::as_result(op)));
}

TEST_CASE("tls again: an exception of a context passes through the handshake, which can be awaited again") {
  anyio::run(a_context_that_throws());
}

#endif

}  // namespace
