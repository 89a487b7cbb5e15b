// Memory that goes round: blocks of a few sizes, kept per thread for the next one who asks.
//
// Coroutine frames, started operations and connections come and go at a high rate and in few sizes.
// Freed blocks are kept in one list a size class, so that in steady state nothing is asked of
// `operator new`, from which all memory comes. It must not know what is put into a block.
#pragma once

#include "config.hpp"

#include <cstddef>
#include <cstdint>
#include <new>

namespace anyio::inline ANYIO_NET_ABI::detail {

struct recycler_block {
  recycler_block* next;
};

/// What a thread keeps. Trivial, so that reading it costs no guard; `recycler::guard` frees the lists when
/// the thread ends.
struct recycler_cache {
  static constexpr std::size_t step = 32;
  static constexpr std::size_t largest = 4096;
  static constexpr std::size_t kept_bytes = std::size_t{4} << 20;  // a thread keeps at most this much

  struct pool {
    recycler_block* list = nullptr;
    std::size_t count = 0;
    std::size_t limit = 8192;
  };
  static constexpr std::size_t kept_large = 16;

  recycler_block* lists[largest / step] = {};
  std::size_t bytes = 0;
  pool pools[3] = {{}, {}, {nullptr, 0, kept_large}};
  bool guarded = false;
  bool closed = false;  // the thread ends: its lists are freed already
};

/// Blocks by size, and pools of one size each, which nothing else takes from: what `loop::reserve` puts there
/// is there for those whom it was reserved for.
class recycler {
 public:
  enum pool : unsigned { operations, descriptors, large };
  /// A started operation takes a block of the first size, what the loop keeps of a descriptor one of the
  /// second, larger ones go by their size; bytes on their way through a stream, encrypted ones for instance,
  /// one of the third.
  static constexpr std::size_t block_size_of[] = {512, 144, 32768};

  [[nodiscard]] static void* allocate(std::size_t size) {
    if (size > largest) [[unlikely]]
      return ::operator new(size);
    const std::size_t index = class_of(size);
    if (block* b = cache.lists[index]) {
      cache.lists[index] = b->next;
      cache.bytes -= class_size(index);
      return b;
    }
    return ::operator new(class_size(index));
  }
  static void deallocate(void* memory, std::size_t size) noexcept {
    const std::size_t index = class_of(size);
    if (size > largest || cache.closed || cache.bytes + class_size(index) > kept_bytes) [[unlikely]]
      return release(memory);
    if (!cache.guarded) [[unlikely]]
      watch_thread();
    cache.lists[index] = ::new (memory) block{cache.lists[index]};
    cache.bytes += class_size(index);
  }

  [[nodiscard]] static void* allocate(pool from, std::size_t size) {
    if (size > block_size_of[from]) return allocate(size);
    auto& p = cache.pools[from];
    if (block* b = p.list) {
      p.list = b->next;
      --p.count;
      return b;
    }
    return ::operator new(block_size_of[from]);
  }
  static void deallocate(pool from, void* memory, std::size_t size) noexcept {
    if (size > block_size_of[from]) return deallocate(memory, size);
    if (cache.closed || cache.pools[from].count >= cache.pools[from].limit) [[unlikely]]
      return release(memory);
    keep(from, memory);
  }

  /// Room for bytes; what has a size class, or is as large as a block for them, is kept when it is freed.
  [[nodiscard]] static constexpr bool recycles_bytes(std::size_t size) noexcept {
    return size <= largest || size == block_size_of[large];
  }
  [[nodiscard]] static void* allocate_bytes(std::size_t size) {
    return size == block_size_of[large] ? allocate(large, size) : allocate(size);
  }
  static void deallocate_bytes(void* memory, std::size_t size) noexcept {
    return size == block_size_of[large] ? deallocate(large, memory, size) : deallocate(memory, size);
  }

  /// Puts blocks aside, beyond what is kept anyway.
  static void reserve(pool in, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      ++cache.pools[in].limit;
      keep(in, ::operator new(block_size_of[in]));
    }
  }

 private:
  using block = recycler_block;
  static constexpr std::size_t step = recycler_cache::step;
  static constexpr std::size_t largest = recycler_cache::largest;
  static constexpr std::size_t kept_bytes = recycler_cache::kept_bytes;

  static inline constinit thread_local recycler_cache cache{};
  struct guard {
    ~guard() { close(); }
  };

  static constexpr std::size_t class_of(std::size_t size) noexcept {
    return size == 0 ? 0 : (size - 1) / step;
  }
  static constexpr std::size_t class_size(std::size_t index) noexcept { return (index + 1) * step; }

  static void keep(pool in, void* memory) noexcept {
    if (!cache.guarded) [[unlikely]]
      watch_thread();
    auto& p = cache.pools[in];
    p.list = ::new (memory) block{p.list};
    ++p.count;
  }
  static void release(void* memory) noexcept;
  static void watch_thread() noexcept;
  static void close() noexcept;
};

/// A base for what takes a block of its size, coroutines among it: these two functions are all that a promise
/// may have, since others would be tried with a coroutine's arguments.
struct recycled {
  static void* operator new(std::size_t size) { return recycler::allocate(size); }
  static void operator delete(void* p, std::size_t size) noexcept { recycler::deallocate(p, size); }
};

/// What wants more alignment than usual goes past the recycler.
struct recycled_aligned : recycled {
  using recycled::operator new;
  using recycled::operator delete;
  static void* operator new(std::size_t size, std::align_val_t a) { return ::operator new(size, a); }
  static void operator delete(void* p, std::align_val_t a) noexcept { ::operator delete(p, a); }
};

/// A base for what takes blocks of a pool; with more alignment, past the recycler too.
template <recycler::pool From>
struct pooled {
  static void* operator new(std::size_t size) { return recycler::allocate(From, size); }
  static void operator delete(void* p, std::size_t size) noexcept { recycler::deallocate(From, p, size); }
  static void* operator new(std::size_t size, std::align_val_t a) { return ::operator new(size, a); }
  static void operator delete(void* p, std::align_val_t a) noexcept { ::operator delete(p, a); }
};

}  // namespace anyio::inline ANYIO_NET_ABI::detail
