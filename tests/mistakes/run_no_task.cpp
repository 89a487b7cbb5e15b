// A plain function, given to what runs tasks.
#include "anyio_net.hpp"

int wrong() {
  return anyio::run([] { return 1; });  // EXPECT: a callable that returns a task
}
