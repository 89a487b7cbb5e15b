// A per-thread cache of freed blocks, in a few sizes.
//
// Coroutine frames, started operations and connections are created and destroyed at a high rate and in few
// sizes. Freed blocks are kept in one list per size class. All memory comes from `operator new`, but in
// steady state no call of it is needed. This part must not know what a block is used for.
#pragma once

#include "base/config.hpp"

#include <cstddef>
#include <cstdint>
#include <new>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

struct recycler_block {
  recycler_block* next;
};

/// The cache of one thread. It is trivial, so that an access needs no initialization guard, and all zero, so
/// that it takes no space in the program file. The first freed block finds no room and goes to
/// `recycler::refuse`, which makes room and registers `recycler::guard` to free the lists at thread exit.
struct recycler_cache {
  static constexpr std::size_t step = 32;
  static constexpr std::size_t largest = 4096;
  static constexpr std::size_t kept_bytes = std::size_t{4} << 20;  // the most that a thread keeps in `lists`

  struct pool {
    recycler_block* list = nullptr;
    std::size_t room = 0;  // how many more blocks fit
  };
  static constexpr std::size_t kept_small = 8192;
  static constexpr std::size_t kept_large = 16;

  recycler_block* lists[largest / step] = {};
  std::size_t room = 0;  // how many more bytes fit
  pool pools[3] = {};
  bool guarded = false;  // room was made; at thread exit the room becomes 0 again
};

/// Lists of blocks by size class, and pools of one block size each. Only the users of a pool take blocks from
/// it, so that the blocks of `loop::reserve` stay available for their purpose.
class recycler {
 public:
  enum pool : unsigned { operations, descriptors, large };
  /// The block size of each pool. A started operation takes a block of the first pool, and a resource of the
  /// loop takes one of the second pool; larger objects take a block by their size. Buffered bytes of a
  /// stream, for instance encrypted ones, take a block of the third pool.
  static constexpr std::size_t block_size_of[] = {512, 168, 32768};

  [[nodiscard, gnu::always_inline]] static inline void* allocate(std::size_t size) {
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

  /// Whether a freed block for bytes is kept: its size has a size class, or is that of the pool `large`.
  [[nodiscard]] static constexpr bool recycles_bytes(std::size_t size) noexcept {
    return size <= largest || size == block_size_of[large];
  }
  [[nodiscard]] static void* allocate_bytes(std::size_t size) {
    return size == block_size_of[large] ? allocate(large, size) : allocate(size);
  }
  static void deallocate_bytes(void* memory, std::size_t size) noexcept {
    return size == block_size_of[large] ? deallocate(large, memory, size) : deallocate(memory, size);
  }

  /// Blocks for a pool, in addition to those that it keeps anyway. The destructor frees the blocks unless
  /// `put_aside` has moved them to the pool.
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

/// A base class for objects in recycled blocks of their size, for instance coroutine promises. A promise may
/// have only these two functions, since overload resolution would try others with the coroutine's arguments.
struct recycled {
  static void* operator new(std::size_t size) { return recycler::allocate(size); }
  static void operator delete(void* p, std::size_t size) noexcept { recycler::deallocate(p, size); }
};

/// A base class like `recycled` for types that may be over-aligned: those bypass the recycler.
struct recycled_aligned : recycled {
  using recycled::operator new;
  using recycled::operator delete;
  static void* operator new(std::size_t size, std::align_val_t a) { return ::operator new(size, a); }
  static void operator delete(void* p, std::align_val_t a) noexcept { ::operator delete(p, a); }
};

/// A base class for objects in blocks of a pool. Over-aligned objects bypass the recycler.
template <recycler::pool From>
struct pooled {
  static void* operator new(std::size_t size) { return recycler::allocate(From, size); }
  static void operator delete(void* p, std::size_t size) noexcept { recycler::deallocate(From, p, size); }
  static void* operator new(std::size_t size, std::align_val_t a) { return ::operator new(size, a); }
  static void operator delete(void* p, std::align_val_t a) noexcept { ::operator delete(p, a); }
};

}}}  // namespace anyio::detail
