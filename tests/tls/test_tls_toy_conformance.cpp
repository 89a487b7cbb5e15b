// The behaviour of every byte stream, checked on TLS streams of the toy engine: over memory, over sockets,
// over each other, and over a transport that accepts few bytes at a time.
#include "support/conformance.hpp"

#include "support/toy_streams.hpp"

namespace {

using anyio::tls_stream;
using conformance::ends;

ends boxed(std::pair<tls_stream, tls_stream>&& both) {
  return {std::make_unique<tls_stream>(std::move(both.first)),
          std::make_unique<tls_stream>(std::move(both.second))};
}

struct toy_over_memory {
  static constexpr std::size_t bulk = std::size_t{1} << 20;
  static constexpr std::size_t clogging = 200000;
  static ends make() { return boxed(support::toy_pair()); }
};

struct toy_over_sockets {
  static constexpr std::size_t bulk = std::size_t{1} << 20;
  static constexpr std::size_t clogging = std::size_t{4} << 20;
  static ends make() { return boxed(support::toy_socket_pair()); }
};

struct toy_over_toy {
  static constexpr std::size_t bulk = std::size_t{1} << 18;
  static constexpr std::size_t clogging = 200000;
  static ends make() {
    auto inner = support::toy_pair();
    return boxed(support::shake_hands(std::make_unique<tls_stream>(std::move(inner.first)),
                                      std::make_unique<tls_stream>(std::move(inner.second))));
  }
};

/// As under TLS 1.2.
struct toy_without_half_close {
  static constexpr std::size_t bulk = std::size_t{1} << 18;
  static constexpr std::size_t clogging = 200000;
  static constexpr bool half_close = false;
  static ends make() {
    auto [a, b] = anyio::create_memory_stream_pair();
    const auto client = support::toy_client();
    const auto server = support::toy_server();
    client->version = server->version = "TLSv1.2";
    return boxed(support::shake_hands(std::make_unique<anyio::memory_stream>(std::move(a)),
                                      std::make_unique<anyio::memory_stream>(std::move(b)),
                                      support::toy_options(), client, server));
  }
};

/// Small messages fit, since a small send need not wait for a receiver; everything else waits, and arrives in
/// pieces.
struct toy_over_narrow_memory {
  static constexpr std::size_t bulk = 50000;
  static constexpr std::size_t clogging = 20000;
  static ends make() { return boxed(support::toy_pair(61)); }
};

ANYIO_NET_CONFORMANCE(toy_over_memory);
ANYIO_NET_CONFORMANCE(toy_over_sockets);
ANYIO_NET_CONFORMANCE(toy_over_toy);
ANYIO_NET_CONFORMANCE(toy_without_half_close);
ANYIO_NET_CONFORMANCE(toy_over_narrow_memory);

}  // namespace
