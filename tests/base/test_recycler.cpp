// The per-thread cache of freed blocks.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include "support/allocations.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace {

using anyio::detail::recycler;

TEST_CASE("a freed block is used again for the same size class") {
  void* a = recycler::allocate(100);
  recycler::deallocate(a, 100);
  support::fail_allocations none;
  void* b = recycler::allocate(128);
  CHECK(a == b);
  recycler::deallocate(b, 128);
}

TEST_CASE("blocks that are too large are not kept") {
  void* a = recycler::allocate(100'000);
  std::memset(a, 1, 100'000);
  recycler::deallocate(a, 100'000);
  recycler::deallocate(recycler::allocate(0), 0);
}

TEST_CASE("the blocks of a pool are used only by that pool") {
  constexpr std::size_t size = recycler::block_size_of[recycler::operations];
  std::vector<void*> others;
  recycler::reservation(recycler::operations, 100).put_aside();
  for (int i = 0; i < 200; ++i) others.push_back(recycler::allocate(size));
  {
    support::fail_allocations none;
    void* mine[100];
    for (auto& m : mine) m = recycler::allocate(recycler::operations, 24);
    for (auto& m : mine) {
      std::memset(m, 1, size);
      recycler::deallocate(recycler::operations, m, 24);
    }
    for (auto& m : mine) m = recycler::allocate(recycler::operations, size);
    for (auto& m : mine) recycler::deallocate(recycler::operations, m, size);
  }
  for (void* o : others) recycler::deallocate(o, size);
  void* large = recycler::allocate(recycler::operations, 5000);
  std::memset(large, 1, 5000);
  recycler::deallocate(recycler::operations, large, 5000);
}

TEST_CASE("blocks of all sizes do not overlap and are large enough") {
  std::mt19937 random(1);
  struct block {
    unsigned char* data;
    std::size_t size;
    unsigned char mark;
  };
  std::vector<block> blocks;
  bool intact = true;
  for (int i = 0; i < 20'000; ++i) {
    if (blocks.size() < 200 && random() % 2 == 0) {
      const std::size_t size = 1 + random() % 5000;
      const auto mark = static_cast<unsigned char>(random());
      auto* data = static_cast<unsigned char*>(recycler::allocate(size));
      std::memset(data, mark, size);
      blocks.push_back({data, size, mark});
    } else if (!blocks.empty()) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      const block b = blocks.back();
      blocks.pop_back();
      for (std::size_t k = 0; k < b.size; ++k) intact = intact && b.data[k] == b.mark;
      recycler::deallocate(b.data, b.size);
    }
  }
  for (const block& b : blocks) recycler::deallocate(b.data, b.size);
  CHECK(intact);
}

TEST_CASE("a thread keeps a limited amount, and frees it at thread exit") {
  const auto before = support::live_allocations();
  std::thread([] {
    std::vector<void*> blocks;
    for (int i = 0; i < 20'000; ++i) blocks.push_back(recycler::allocate(1024));
    const auto held = support::live_allocations();
    for (void* b : blocks) recycler::deallocate(b, 1024);
    if (support::counts_allocations) CHECK(support::live_allocations() < held - 10'000);
    recycler::reservation(recycler::descriptors, 100).put_aside();
  }).join();
  if (support::counts_allocations) CHECK(support::live_allocations() <= before + 50);
}

}  // namespace
