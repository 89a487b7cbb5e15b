// The same input repeats the same run: two runs of a program of calls agree in the trace of the simulated
// system, in the program's observations, in time, and in their end; and a run repeats from its choices.
#include "support/api_program.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint64_t seen[2] = {};
  const anyio::sim::report first = fuzz::run_api_program(data, size, seen[0]);
  const anyio::sim::report second = fuzz::run_api_program(data, size, seen[1]);
  FUZZ_CHECK(first.trace_hash == second.trace_hash);
  FUZZ_CHECK(seen[0] == seen[1]);
  FUZZ_CHECK(first.virtual_time == second.virtual_time);
  FUZZ_CHECK(first.choices == second.choices);
  FUZZ_CHECK(first.ok() == second.ok());
  return 0;
}
