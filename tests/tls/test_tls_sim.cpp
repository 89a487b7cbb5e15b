// TLS on a simulated network: the same run twice, with keys, dates and faults from the run's choices.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <utility>

#include "support/allocation_sweep.hpp"
#include "support/tls_engines.hpp"

namespace {

using namespace std::chrono_literals;
namespace sim = anyio::sim;
using anyio::task;
using anyio::tls_stream;
using support::tls_library;

task<> echo(tls_stream stream) {
  for (;;) {
    auto bytes = co_await anyio::as_result(stream.receive_view());
    if (!bytes) break;
    co_await stream.send(*bytes);
  }
  co_await stream.aclose();
}

task<> program(const tls_library& library, bool& right) {
  const auto server = support::make_context(library, {.certificate = "server"});
  const auto client = support::make_context(library, {});
  anyio::tls_listener listener(co_await anyio::create_tcp_listener(), server);
  const std::uint16_t port = listener.listener().local_port();
  anyio::task_group serving;
  serving.start_soon(listener.serve(echo));
  for (int i = 0; i < 2; ++i) {
    tls_stream stream = co_await anyio::connect_tls("localhost", port, client);
    const std::string sent = "hello" + sim::draw_bytes(300);
    co_await stream.send(sent);
    std::string back;
    while (back.size() < sent.size()) back += co_await stream.receive();
    right = back == sent;
    co_await stream.aclose();
  }
  listener.close();
  co_await serving.join();
}

TEST_CASE("tls in a simulation: it works under faults, and the same choices repeat the same run") {
  support::for_every_library([](const tls_library& library) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      CAPTURE(seed);
      sim::options o;
      o.seed = seed;
      o.faults.short_io = 0.3;
      o.faults.would_block = 0.3;
      o.faults.interrupted = 0.1;
      o.faults.latency_max = 20ms;
      bool right = false;
      const sim::report first = sim::run(o, [&] { return program(library, right); });
      CHECK(first.ok());
      CHECK(right);
      if (library.name != "mbedTLS") continue;  // OpenSSL has its own randomness and record sizes
      o.choices = first.choices;
      const sim::report again = sim::run(o, [&] { return program(library, right); });
      CHECK(again.trace_hash == first.trace_hash);
    }
  });
}

task<> expired(const tls_library& library, bool& refused) {
  const auto server = support::make_context(library, {.certificate = "server"});
  const auto client = support::make_context(library, {});
  anyio::tls_listener listener(co_await anyio::create_tcp_listener(), server);
  anyio::task_group serving;
  serving.start_soon(listener.serve(echo));
  co_await anyio::sleep(24h * 365 * 40);
  const auto stream =
      co_await anyio::as_result(anyio::connect_tls("localhost", listener.listener().local_port(), client));
  refused = stream.error() == anyio::errc::tls;
  CHECK(stream.error().message().find("expired") != std::string::npos);
  listener.close();
  co_await serving.join();
}

TEST_CASE("tls in a simulation: certificates expire by the simulated date") {
  support::for_every_library([](const tls_library& library) {
    sim::options o;
    o.time_limit = 24h * 365 * 50;
    bool refused = false;
    CHECK(sim::run(o, [&] { return expired(library, refused); }).ok());
    CHECK(refused);
  });
}

TEST_CASE("tls in a simulation: the simulated date is today, unless the options set one") {
  std::int64_t told = 0;
  const auto look = [&]() -> task<> {
    co_await anyio::sleep(2h);
    told = anyio::detail::calendar_now();
  };
  sim::options o;
  const auto before = static_cast<std::int64_t>(std::time(nullptr));
  CHECK(sim::run(o, look).ok());
  CHECK(told >= before + 2 * 3600);
  CHECK(told <= static_cast<std::int64_t>(std::time(nullptr)) + 2 * 3600);
  o.calendar = 1'000'000'000;
  CHECK(sim::run(o, look).ok());
  CHECK(told == 1'000'000'000 + 2 * 3600);
}

#if ANYIO_NET_EXCEPTIONS && ANYIO_NET_TEST_TSAN == 0

using context = std::shared_ptr<anyio::tls_context>;

struct ignored {
  void operator()(const anyio::error&) const {}
  void operator()(const std::exception_ptr&) const {}
};

task<> ask_for_echo(std::uint16_t port, context client) {
  tls_stream stream = co_await anyio::connect_tls("localhost", port, client);
  const std::string sent(100, 'x');
  co_await stream.send(sent);
  std::string back;
  while (back.size() < sent.size()) back += co_await stream.receive();
  static_cast<void>(stream.info());
  co_await stream.aclose();
}

task<> serve_two(context server, context client) {
  anyio::tls_listener listener(co_await anyio::create_tcp_listener(), server);
  const std::uint16_t port = listener.listener().local_port();
  anyio::task_group serving;
  serving.start_soon(listener.serve(echo, ignored()));
  co_await ask_for_echo(port, client);
  co_await ask_for_echo(port, client);  // resumes the session
  listener.close();
  co_await serving.join();
}

task<> accept_and_unwrap(anyio::tls_listener& listener) {
  tls_stream stream = co_await listener.accept();
  listener.close();
  co_await stream.send("hello");
  auto plain = co_await stream.unwrap();
  co_await plain.transport->send("plain");
}

task<> connect_and_unwrap(std::uint16_t port, context client) {
  tls_stream stream = co_await anyio::connect_tls("localhost", port, client);
  while ((co_await stream.receive()).empty()) {
  }
  auto plain = co_await stream.unwrap();
  static_cast<void>(co_await anyio::as_result(plain.transport->receive()));
}

task<> unwrap_both(context server, context client) {
  anyio::tls_listener listener(co_await anyio::create_tcp_listener(), server);
  const std::uint16_t port = listener.listener().local_port();
  // When memory ran out for one connection, `accept` may continue to wait for another.
  co_await anyio::fail_after(1s,
                             anyio::when_all(accept_and_unwrap(listener), connect_and_unwrap(port, client)));
}

TEST_CASE("tls in a simulation: each allocation fails once") {
  support::for_every_library([](const tls_library& library) {
    for (const auto program : {serve_two, unwrap_both}) {
      const std::size_t runs = support::sweep_allocations(
          library.name.data(), {},
          [&library, program](std::unique_ptr<anyio::backend> system, support::failing_run& run) {
            anyio::loop loop(std::move(system));
            const context server = support::make_context(library, {.certificate = "server"});
            const context client = support::make_context(library, {});
            run.attempt([&] { run.run_to_end(program(server, client)); });
            run.try_out_loop();
          });
      CHECK(runs >= 20);
    }
  });
}

TEST_CASE("tls: each allocation of creating a context fails once") {
  support::for_every_library([](const tls_library& library) {
    const std::size_t runs = support::sweep_allocations(
        library.name.data(), {},
        [&library](std::unique_ptr<anyio::backend> system, support::failing_run& run) {
          anyio::loop loop(std::move(system));
          run.attempt([&] {
            const context server = support::make_context(library, {.certificate = "server"});
            const context client = support::make_context(library, {});
          });
          run.try_out_loop();
        });
    CHECK(runs >= 10);
  });
}

#endif

#if defined(ANYIO_NET_MBEDTLS)

task<> say_hello(std::string& hello) {
  anyio::tls_config config;
  config.verify = anyio::tls_verify::none;
  const auto context = anyio::mbedtls_context(config).value();
  anyio::tls_pipe pipe;
  const auto engine = context->client(pipe, "localhost");
  CHECK(engine->handshake() == anyio::tls_status::want_input);
  hello = pipe.tx.view();
  co_return;
}

TEST_CASE("tls in a simulation: the hello of mbedTLS does not contain the machine's time") {
  std::string first, again, other;
  sim::options o;
  o.seed = 1;
  CHECK(sim::run(o, [&] { return say_hello(first); }).ok());
  CHECK(sim::run(o, [&] { return say_hello(again); }).ok());
  o.seed = 2;
  CHECK(sim::run(o, [&] { return say_hello(other); }).ok());
  CHECK((first == again));
  CHECK((first != other));
  constexpr std::size_t at = 11;  // after the headers of record and message, and the version
  std::int64_t told = 0;
  for (std::size_t i = at; i < at + 4; ++i) told = told * 256 + static_cast<unsigned char>(first[i]);
  CHECK(std::abs(told - static_cast<std::int64_t>(std::time(nullptr))) > 3600);
}

#endif

}  // namespace
