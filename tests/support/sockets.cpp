// The coroutines of sockets.hpp. (clang 14 cannot sanitize inline ones, which are in sections of their own.)
#include "sockets.hpp"

namespace support {

anyio::task<> turns(int count) {
  for (int i = 0; i < count; ++i) co_await anyio::sleep(std::chrono::milliseconds(0));
}

anyio::task<std::pair<anyio::tcp_stream, anyio::tcp_stream>> tcp::pair() {
  anyio::tcp_listener l = anyio::tcp_listener::open(loopback()).value();
  stream client = co_await anyio::connect_tcp(loopback(l.local_port()));
  stream server = co_await l.accept();
  co_return std::pair<stream, stream>(std::move(client), std::move(server));
}

anyio::task<std::pair<anyio::unix_stream, anyio::unix_stream>> unix_pair::pair() {
  co_return anyio::create_unix_stream_pair().value();
}

}  // namespace support
