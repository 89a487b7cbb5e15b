// An operation that nobody uses.
#include "anyio_net.hpp"

anyio::task<> wrong(anyio::tcp_stream& s) {
  s.send("hello");  // EXPECT: it does nothing until it is awaited with co_await, or started
  co_return;
}
