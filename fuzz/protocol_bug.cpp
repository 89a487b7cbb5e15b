// How to fuzz a custom protocol: the program runs in sim::fuzz, and reports errors. This server has an
// intended bug, which needs a line that arrives in two pieces; the target must crash, within seconds.
// corpus-bugs/protocol_bug holds an input that shows it.
#include "support/input.hpp"
#include "support/line_protocol.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return anyio::sim::fuzz(data, size, [] {
    return line_protocol::play(line_protocol::serve_with_bug,
                               [] { fuzz::broken("the server answers correctly", __FILE__, __LINE__); });
  });
}
