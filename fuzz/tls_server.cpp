// Bytes from the wire for a TLS server's engine, with randomness and the date from the simulation, so that a
// client's recorded answers still fit. It ends, with a bounded output for what it took; there is no plaintext
// before the handshake is over; it asks for more only when it has none; what fails says why; and an end
// without close_notify is told.
#include "support/tls_wire.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::attack_engine(data, size, true);
  return 0;
}
