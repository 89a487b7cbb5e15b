// A stream is wanted, and co_await forgotten.
#include "anyio_net.hpp"

anyio::task<> wrong() {
  anyio::tcp_stream s =
      anyio::connect_tcp("localhost", 80);  // EXPECT: co_await is missing: this is an operation
  co_await s.send("hello");
}
