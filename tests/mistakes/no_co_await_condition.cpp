// A task in a condition, which would always be true.
#include "anyio_net.hpp"

anyio::task<bool> is_ready() { co_return false; }

anyio::task<> wrong() {
  if (is_ready()) co_return;  // EXPECT: co_await is missing: this is a task
}
