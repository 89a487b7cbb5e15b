// The value of a task is wanted, and co_await forgotten.
#include "anyio_net.hpp"

anyio::task<int> number() { co_return 1; }

anyio::task<int> wrong() { co_return number(); }  // EXPECT: co_await is missing: this is a task
