// The behaviour of every byte stream, checked on UNIX sockets, and on buffered streams over them.
#include "support/conformance.hpp"

namespace {

using conformance::ends;

struct unix_socket {
  static constexpr std::size_t bulk = std::size_t{1} << 20;
  static constexpr std::size_t clogging = std::size_t{4} << 20;
  static ends make() {
    auto pair = anyio::create_unix_stream_pair();
    CHECK(pair);
    return {std::make_unique<anyio::unix_stream>(std::move(pair->first)),
            std::make_unique<anyio::unix_stream>(std::move(pair->second))};
  }
};

struct buffered_unix_socket {
  static constexpr std::size_t bulk = unix_socket::bulk;
  static constexpr std::size_t clogging = unix_socket::clogging;
  static ends make() {
    ends inner = unix_socket::make();
    return {std::make_unique<anyio::buffered_stream>(std::move(inner.a)),
            std::make_unique<anyio::buffered_stream>(std::move(inner.b))};
  }
};

ANYIO_NET_CONFORMANCE(unix_socket);
ANYIO_NET_CONFORMANCE(buffered_unix_socket);

}  // namespace
