// Any script of system calls has the same results on the simulated network as on the machine, whose loopback
// and temporary directory this target uses. tests/simulation/test_sim_system.cpp lists what the comparison
// leaves out.
#include "tests/support/system_script.cpp"
#include "tests/support/temp_dir.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const support::temp_dir folder;
  const std::string difference =
      support::compare_with_system(support::parse_script({data, size}), folder.path());
  if (difference.empty()) return 0;
  std::fprintf(stderr, "%s", difference.c_str());
  std::abort();
}
