// A named operation, and a callback that takes the result of another one.
#include "anyio_net.hpp"

void wrong(anyio::receive_operation& op) {
  op.start([](anyio::result<std::string>) {});  // EXPECT: its parameter is a result<T>
}
