// A callback that takes the value, and not the result.
#include "anyio_net.hpp"

void wrong(anyio::tcp_stream& s) {
  s.receive().start([](std::string) {});  // EXPECT: its parameter is a result<T>
}
