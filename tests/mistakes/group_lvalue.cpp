// A task that is not moved into its group.
#include "anyio_net.hpp"

void wrong(anyio::task_group& group, anyio::task<>& t) {
  group.start_soon(t);  // EXPECT: an operation must be passed by std::move
}
