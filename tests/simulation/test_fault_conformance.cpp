// The behaviour of every byte stream, checked on the machine's sockets with faults that a stream should hide.
#include "support/conformance.hpp"

namespace {

using conformance::ends;

/// A different kind of fault in each round, and all at once in the last one.
std::unique_ptr<anyio::backend> with_faults(int round) {
  constexpr anyio::sim::faults kinds[] = {
      {.short_io = 0.5},
      {.would_block = 0.5},
      {.interrupted = 0.5},
      {.short_io = 0.3, .would_block = 0.3, .interrupted = 0.3},
  };
  return anyio::fault_backend(anyio::system_backend(),
                              {.seed = static_cast<std::uint64_t>(round), .faults = kinds[round]});
}

struct faulty_tcp {
  static constexpr std::size_t bulk = 100000;
  static constexpr std::size_t clogging = std::size_t{32} << 20;  // the kernel takes some megabytes
  static constexpr int rounds = 4;
  static std::unique_ptr<anyio::backend> system(int round) { return with_faults(round); }
  static ends make() {
    auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
    CHECK(listener);
    auto a = anyio::run(anyio::connect_tcp(listener->local_endpoints().front()));
    auto b = anyio::run(listener->accept());
    return {std::make_unique<anyio::tcp_stream>(std::move(a)),
            std::make_unique<anyio::tcp_stream>(std::move(b))};
  }
};

struct faulty_unix {
  static constexpr std::size_t bulk = 100000;
  static constexpr std::size_t clogging = std::size_t{4} << 20;
  static constexpr int rounds = 4;
  static std::unique_ptr<anyio::backend> system(int round) { return with_faults(round); }
  static ends make() {
    auto pair = anyio::create_unix_stream_pair();
    CHECK(pair);
    return {std::make_unique<anyio::unix_stream>(std::move(pair->first)),
            std::make_unique<anyio::unix_stream>(std::move(pair->second))};
  }
};

ANYIO_NET_CONFORMANCE(faulty_tcp);
ANYIO_NET_CONFORMANCE(faulty_unix);

}  // namespace
