// An argument that a child wants by reference: start_soon would give it a copy.
#include "anyio_net.hpp"

anyio::task<> count(int& n) {
  ++n;
  co_return;
}

void wrong(anyio::task_group& group, int& n) {
  group.start_soon(count, n);  // EXPECT: pass it as std::ref(x)
}
