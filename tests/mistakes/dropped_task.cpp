// A task that nobody uses.
#include "anyio_net.hpp"

anyio::task<> other() { co_return; }

anyio::task<> wrong() {
  other();  // EXPECT: it does nothing until it is awaited with co_await, or started
  co_return;
}
