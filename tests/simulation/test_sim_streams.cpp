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

}  // namespace
