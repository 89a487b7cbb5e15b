// Queues and relays in a simulated network, with faults and a random schedule.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace {

using namespace std::chrono_literals;
using anyio::byte_stream;
using anyio::errc;
using anyio::task;

/// Runs a program with some seeds, each with and without faults.
void run_with_seeds(task<> (*program)()) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    anyio::sim::options o;
    o.seed = seed;
    if (seed % 2 == 0) o.faults.short_io = o.faults.would_block = 0.3;
    if (seed % 3 == 0) o.faults.latency_max = 20ms;
    const anyio::sim::report r = anyio::sim::run(o, program());
    CHECK_MESSAGE(r.ok(), r.dump);
  }
}

task<> write_lines(anyio::send_queue& queue, char name, int count) {
  for (int i = 0; i < count; ++i) {
    std::string line(static_cast<std::size_t>(1 + i % 50), name);
    line += '\n';
    co_await queue.send(std::move(line));
  }
}

task<> write_from_all(anyio::send_queue& queue, byte_stream& to) {
  co_await anyio::when_all(write_lines(queue, 'a', 100), write_lines(queue, 'b', 100),
                           write_lines(queue, 'c', 100));
  co_await queue.flush();
  co_await to.send_eof();
}

task<> many_writers() {
  auto pair = co_await anyio::create_unix_stream_pair();
  anyio::send_queue queue(pair.first, 1000);
  anyio::task_group group;
  group.start_soon(queue.run());
  group.start_soon(write_from_all, std::ref(queue), std::ref<byte_stream>(pair.first));
  anyio::buffered_stream in(pair.second);
  int lines = 0;
  for (;; ++lines) {
    auto line = co_await as_result(in.receive_line());
    if (!line && line.error() == errc::end_of_stream) break;
    CHECK(line.has_value());
    if (!line) break;
    CHECK(line->find_first_not_of(line->front()) == std::string::npos);
  }
  CHECK(lines == 300);
  group.cancel();
}

TEST_CASE("many writers send whole lines through a queue in a simulation") { run_with_seeds(many_writers); }

// --- relays

std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  std::uint32_t state = 1;
  for (char& c : text) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return text;
}

task<> relay_one(anyio::tcp_stream client, anyio::ip_endpoint target) {
  anyio::tcp_stream server = co_await anyio::connect_tcp(target);
  co_await anyio::relay(client, server, {.idle = 1min});
}

task<> echo(anyio::tcp_stream s) {
  co_await anyio::copy(s, s);
  co_await s.send_eof();
}

task<std::string> all_of(byte_stream& from) {
  std::string all;
  for (;;) {
    auto r = co_await as_result(from.receive());
    if (!r && r.error() != errc::end_of_stream) co_await anyio::raise(r.error());
    if (!r) co_return all;
    all += *r;
  }
}

task<> send_and_end(byte_stream& to, const std::string& text) {
  co_await to.send(text);
  co_await to.send_eof();
}

task<> ask(anyio::ip_endpoint proxy) {
  anyio::tcp_stream s = co_await anyio::connect_tcp(proxy);
  const std::string text = pattern(50000);
  auto [nothing, answer] = co_await anyio::when_all(send_and_end(s, text), all_of(s));
  CHECK((answer == text));
}

task<> relays() {
  auto target = co_await anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
  auto proxy = co_await anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
  const anyio::ip_endpoint to = target.local_endpoints().front();
  anyio::task_group group;
  group.start_soon(target.serve(echo));
  group.start_soon(proxy.serve([to](anyio::tcp_stream s) { return relay_one(std::move(s), to); }));
  const anyio::ip_endpoint at = proxy.local_endpoints().front();
  co_await anyio::when_all(ask(at), ask(at), ask(at));
  group.cancel();
}

TEST_CASE("relays pass everything on in a simulation") { run_with_seeds(relays); }

task<> idles() {
  auto a = co_await anyio::create_unix_stream_pair();
  auto b = co_await anyio::create_unix_stream_pair();
  const auto begin = anyio::now();
  const auto r = co_await as_result(anyio::relay(a.second, b.first, {.idle = 1h}));
  CHECK(r.error() == errc::timed_out);
  CHECK(anyio::now() - begin >= 1h);
  CHECK(anyio::now() - begin < 1h + 1s);
}

TEST_CASE("an idle limit of an hour takes no time in a simulation") { run_with_seeds(idles); }

}  // namespace
