// Programs that run in a simulation with many seeds: which faults a seed has, and what every run must keep
// to. A program checks what it knows itself; here nothing may hang, fail, stay open, or differ when it is
// repeated.
#pragma once

#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "effort.hpp"

namespace support {

/// The faults of a seed: each kind of them in half of the seeds, and every combination in turn.
inline anyio::sim::faults faults_of(std::uint64_t seed) {
  using namespace std::chrono_literals;
  anyio::sim::faults f;
  if ((seed & 1) != 0) f.short_io = 0.4;
  if ((seed & 2) != 0) f.would_block = 0.4;
  if ((seed & 4) != 0) f.interrupted = 0.2;
  if ((seed & 8) != 0) f.reset = 0.01;
  if ((seed & 16) != 0) f.drop = 0.1;
  if ((seed & 32) != 0) f.accept_exhausted = 0.15;
  if ((seed & 64) != 0) f.name_failure = 0.3;
  if ((seed & 128) != 0) f.latency_max = 30ms;
  return f;
}

/// Whether faults break connections or refuse descriptors, so that an operation may fail.
inline bool breaks(const anyio::sim::faults& f) {
  return f.reset > 0 || f.accept_exhausted > 0 || f.name_failure > 0;
}

/// Runs `make(seed)`, a task, for each of so many seeds, the faults of the seed being on, by turns on each
/// profile. Every eighth run is repeated.
template <class Make>
void run_seeds(std::uint64_t seeds, std::chrono::nanoseconds time_limit, Make make) {
  for (std::uint64_t seed = 0; seed < some_of(seeds); ++seed) {
    anyio::sim::options o;
    o.seed = seed;
    o.profile = static_cast<anyio::sim::profile>(seed % 3);
    o.time_limit = time_limit;
    const auto run = [&] {
      return anyio::sim::run(o, [&]() -> anyio::task<> {
        anyio::sim::set_faults(faults_of(seed));
        co_await make(seed);
      });
    };
    CAPTURE(seed);
    const anyio::sim::report r = run();
    if (!r.ok()) {
      CAPTURE(r.dump);
      const std::string message = r.message().substr(0, 200);
      CAPTURE(message);
      CHECK(r.ok());
      return;
    }
    if (seed % 8 != 0) continue;
    const anyio::sim::report again = run();
    const bool same = again.trace_hash == r.trace_hash && again.choices == r.choices;
    CHECK_MESSAGE(same, "the run is not repeated");
  }
}

}  // namespace support
