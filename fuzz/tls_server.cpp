// Bytes from the wire for a TLS server's engine, with randomness and the date from the simulation, so that a
// client's recorded answers still match. It ends, with a bounded output for its input; there is no plaintext
// before the end of the handshake; it requests more only when it has none; a failure has a reason; and an end
// without close_notify is reported.
#include "support/tls_wire.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::attack_engine(data, size, true);
  return 0;
}
