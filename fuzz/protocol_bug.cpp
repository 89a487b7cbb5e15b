// How to fuzz a protocol of one's own: the program runs in sim::fuzz, and says what is wrong. This server has
// a planted bug, which needs a line that arrives in two pieces; the target is meant to crash, within seconds.
// corpus-bugs/protocol_bug holds an input that shows it.
#include "support/input.hpp"
#include "support/line_protocol.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return anyio::sim::fuzz(data, size, [] {
    return line_protocol::play(line_protocol::serve_with_bug,
                               [] { fuzz::broken("the server answers, and rightly", __FILE__, __LINE__); });
  });
}
