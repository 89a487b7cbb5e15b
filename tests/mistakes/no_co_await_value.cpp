// A value is wanted, and co_await forgotten.
#include "anyio_net.hpp"

anyio::task<> wrong(anyio::tcp_stream& s) {
  std::string text = s.receive();  // EXPECT: co_await is missing: this is an operation
  co_await s.send(text);
}
