// A named operation, and a callback that is too large for it.
#include "anyio_net.hpp"

void wrong(anyio::sleep_operation& op, std::string text) {
  op.start([text](anyio::result<>) {});  // EXPECT: a named operation takes a trivially copyable callable
}
