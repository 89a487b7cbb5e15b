// Memory that goes round: blocks of a few sizes, kept per thread for the next one who asks.
//
// Coroutine frames, started operations and connections come and go at a high rate and in few sizes.
// Freed blocks are kept in one list a size class, so that in steady state nothing is asked of
// `operator new`, from which all memory comes. It must not know what is put into a block.
#pragma once

#include "base/config.hpp"

#include <cstddef>
#include <cstdint>
#include <new>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

struct recycler_block {
  recycler_block* next;
};

/// What a thread keeps. Trivial, so that reading it costs no guard, and all zero, so that a program's file
/// does not hold it. The first block that is freed finds no room, which leads to `recycler::refuse`: room is
/// made then, and `recycler::guard` will free the lists when the thread ends.
struct recycler_cache {
  static constexpr std::size_t step = 32;
  static constexpr std::size_t largest = 4096;
  static constexpr std::size_t kept_bytes = std::size_t{4} << 20;  // a thread keeps at most this much

  struct pool {
    recycler_block* list = nullptr;
    std::size_t room = 0;  // for so many more
  };
  static constexpr std::size_t kept_small = 8192;
  static constexpr std::size_t kept_large = 16;

  recycler_block* lists[largest / step] = {};
  std::size_t room = 0;  // for so many more bytes
  pool pools[3] = {};
  bool guarded = false;  // room was made; there is none any more when the thread ends
};

/// Blocks by size, and pools of one size each, which nothing else takes from: what `loop::reserve` puts there
/// is there for those whom it was reserved for.
class recycler {
 public:
  enum pool : unsigned { operations, descriptors, large };
  /// A started operation takes a block of the first size, what the loop keeps of a descriptor one of the
  /// second, larger ones go by their size; bytes on their way through a stream, encrypted ones for instance,
  /// one of the third.
  static constexpr std::size_t block_size_of[] = {512, 152, 32768};

  [[nodiscard]] static void* allocate(std::size_t size) {
    if (size > largest) [[unlikely]]
      return ::operator new(size);
    const std::size_t index = class_of(size);
    if (block* b = cache.lists[index]) {
      cache.lists[index] = b->next;
      cache.room += class_size(index);
      return b;
    }
    return ::operator new(class_size(index));
  }
  static void deallocate(void* memory, std::size_t size) noexcept {
    const std::size_t index = class_of(size);
    if (size > largest || class_size(index) > cache.room) [[unlikely]]
      return refuse(memory, size);
    cache.lists[index] = ::new (memory) block{cache.lists[index]};
    cache.room -= class_size(index);
  }

  [[nodiscard]] static void* allocate(pool from, std::size_t size) {
    if (size > block_size_of[from]) return allocate(size);
    auto& p = cache.pools[from];
    if (block* b = p.list) {
      p.list = b->next;
      ++p.room;
      return b;
    }
    return ::operator new(block_size_of[from]);
  }
  static void deallocate(pool from, void* memory, std::size_t size) noexcept {
    if (size > block_size_of[from]) return deallocate(memory, size);
    auto& p = cache.pools[from];
    if (p.room == 0) [[unlikely]]
      return refuse(from, memory);
    p.list = ::new (memory) block{p.list};
    --p.room;
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

  /// Blocks to be put aside, beyond what is kept anyway. Until they are, they are freed with this.
  class reservation {
   public:
    reservation(pool in, std::size_t count);
    reservation(const reservation&) = delete;
    reservation& operator=(const reservation&) = delete;
    ~reservation() { free_all(blocks_); }
    void put_aside() noexcept;

   private:
    const pool in_;
    recycler_block* blocks_ = nullptr;
  };

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

  static void refuse(void* memory, std::size_t size) noexcept;
  static void refuse(pool from, void* memory) noexcept;
  static void make_room() noexcept;
  static void free_all(block*& list) noexcept;
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

}}}  // namespace anyio::detail
