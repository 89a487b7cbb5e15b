// A program's task that takes arguments, which run does not have.
#include "anyio_net.hpp"

int main() {
  anyio::run([](int port) -> anyio::task<> {  // EXPECT: takes no arguments: a lambda captures what it needs
    static_cast<void>(port);
    co_return;
  });
}
