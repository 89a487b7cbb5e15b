// What the two files of micro benchmarks share: allocations as a counter.
#pragma once

#include <cstdint>
#include <string>

#include <benchmark/benchmark.h>

namespace bench {

std::uint64_t allocations_so_far();

/// From here to its end: reports allocations for each item, of which an iteration has so many.
class allocation_counter {
 public:
  explicit allocation_counter(benchmark::State& state, std::int64_t items = 1)
      : state_(state), items_(items), before_(allocations_so_far()) {}
  allocation_counter(const allocation_counter&) = delete;
  allocation_counter& operator=(const allocation_counter&) = delete;
  ~allocation_counter() {
    const double all = static_cast<double>(static_cast<std::int64_t>(state_.iterations()) * items_);
    if (all > 0) state_.counters["allocations"] = static_cast<double>(allocations_so_far() - before_) / all;
    if (items_ > 1) state_.SetItemsProcessed(static_cast<std::int64_t>(state_.iterations()) * items_);
  }

 private:
  benchmark::State& state_;
  std::int64_t items_;
  std::uint64_t before_;
};

inline constexpr int pending_timers = 100000;
inline constexpr int posts = 1000;
inline constexpr int posts_of_thread = 100000;

/// Numbers without a pattern, always the same.
class numbers {
 public:
  std::uint32_t next(std::uint32_t bound) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>((state_ >> 33) % bound);
  }

 private:
  std::uint64_t state_ = 1;
};

}  // namespace bench
