// The behaviour of every byte stream, checked on streams in memory, and on buffered streams over them.
#include "support/conformance.hpp"

namespace {

using conformance::ends;

struct memory {
  static constexpr std::size_t bulk = std::size_t{1} << 20;
  static constexpr std::size_t clogging = 100000;
  static ends make() {
    auto [a, b] = anyio::create_memory_stream_pair();
    return {std::make_unique<anyio::memory_stream>(std::move(a)),
            std::make_unique<anyio::memory_stream>(std::move(b))};
  }
};

/// A window of three bytes: every operation waits, and nothing arrives whole.
struct narrow_memory {
  static constexpr std::size_t bulk = 20000;
  static constexpr std::size_t clogging = 50;
  static ends make() {
    auto [a, b] = anyio::create_memory_stream_pair(3);
    return {std::make_unique<anyio::memory_stream>(std::move(a)),
            std::make_unique<anyio::memory_stream>(std::move(b))};
  }
};

struct buffered_memory {
  static constexpr std::size_t bulk = memory::bulk;
  static constexpr std::size_t clogging = memory::clogging;
  static ends make() {
    ends inner = memory::make();
    return {std::make_unique<anyio::buffered_stream>(std::move(inner.a)),
            std::make_unique<anyio::buffered_stream>(std::move(inner.b))};
  }
};

struct buffered_narrow_memory {
  static constexpr std::size_t bulk = narrow_memory::bulk;
  static constexpr std::size_t clogging = 9000;
  static ends make() {
    ends inner = narrow_memory::make();
    return {std::make_unique<anyio::buffered_stream>(std::move(inner.a)),
            std::make_unique<anyio::buffered_stream>(std::move(inner.b))};
  }
};

ANYIO_NET_CONFORMANCE(memory);
ANYIO_NET_CONFORMANCE(narrow_memory);
ANYIO_NET_CONFORMANCE(buffered_memory);
ANYIO_NET_CONFORMANCE(buffered_narrow_memory);

}  // namespace
