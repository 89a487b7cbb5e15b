// A result is wanted, and co_await forgotten.
#include "anyio_net.hpp"

anyio::task<> wrong(anyio::tcp_stream& s) {
  anyio::result<std::string> text =
      as_result(s.receive());  // EXPECT: co_await is missing: this is an operation
  if (text) co_await s.send(*text);
}
