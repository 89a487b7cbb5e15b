// A task's callback that takes nothing.
#include "anyio_net.hpp"

anyio::task<int> number() { co_return 1; }

void wrong() {
  as_result(number()).start([] {});  // EXPECT: its parameter is a result<T>
}
