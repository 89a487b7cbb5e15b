// A child that is given arguments which it does not take.
#include "anyio_net.hpp"

anyio::task<> count(int) { co_return; }

void wrong(anyio::result_group<void>& group) {
  group.start_soon(count, "one");  // EXPECT: the callable cannot be called with these arguments
}
