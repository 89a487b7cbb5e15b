// The behaviour of every byte stream, checked on TCP over IPv4.
#include "support/conformance.hpp"

namespace {

using conformance::ends;

struct tcp4 {
  static constexpr std::size_t bulk = std::size_t{1} << 20;
  static constexpr std::size_t clogging = std::size_t{32} << 20;  // the kernel takes some megabytes
  static ends make() {
    auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
    CHECK(listener);
    auto a = anyio::run(anyio::connect_tcp(listener->local_endpoints().front()));
    auto b = anyio::run(listener->accept());
    return {std::make_unique<anyio::tcp_stream>(std::move(a)),
            std::make_unique<anyio::tcp_stream>(std::move(b))};
  }
};

ANYIO_NET_CONFORMANCE(tcp4);

}  // namespace
