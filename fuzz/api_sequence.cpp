// Programs of calls of the public interface on a simulated network with faults, compared with a model of the
// possible results: support/api_program.hpp lists its rules.
#include "support/api_program.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint64_t seen = 0;
  fuzz::check(fuzz::run_api_program(data, size, seen));
  return 0;
}
