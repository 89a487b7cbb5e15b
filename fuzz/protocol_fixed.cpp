// The server of protocol_bug.cpp without its bug: whatever the network does, every received answer is
// correct, and one is received unless the connection breaks.
#include "support/input.hpp"
#include "support/line_protocol.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return anyio::sim::fuzz(data, size, [] {
    return line_protocol::play(line_protocol::serve_fixed,
                               [] { fuzz::broken("the server answers correctly", __FILE__, __LINE__); });
  });
}
