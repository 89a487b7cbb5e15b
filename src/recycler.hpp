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
  static constexpr std::size_t step = 64;
  static constexpr std::size_t largest = 4096;
  static constexpr std::size_t kept_bytes = std::size_t{4} << 20;  // a thread keeps at most this much

  recycler_block* lists[largest / step] = {};
  std::size_t bytes = 0;
  std::size_t limit = kept_bytes;
  bool guarded = false;
  bool closed = false;  // the thread ends: its lists are freed already
};

class recycler {
 public:
  /// A started operation takes a block of this size, so that one reserve serves them all.
  static constexpr std::size_t operation_block = 512;
  /// So does what the loop keeps of a descriptor.
  static constexpr std::size_t descriptor_block = 192;

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
    if (size > largest || cache.closed || cache.bytes + class_size(index) > cache.limit) [[unlikely]]
      return release(memory, size);
    keep(memory, index);
  }

  /// Puts blocks aside, beyond what is kept anyway.
  static void reserve(std::size_t size, std::size_t count) {
    const std::size_t index = class_of(size);
    for (std::size_t i = 0; i < count; ++i) {
      cache.limit += class_size(index);
      keep(::operator new(class_size(index)), index);
    }
  }

 private:
  using block = recycler_block;
  static constexpr std::size_t step = recycler_cache::step;
  static constexpr std::size_t largest = recycler_cache::largest;

  static inline constinit thread_local recycler_cache cache{};
  struct guard {
    ~guard() { close(); }
  };

  static constexpr std::size_t class_of(std::size_t size) noexcept { return size == 0 ? 0 : (size - 1) / step; }
  static constexpr std::size_t class_size(std::size_t index) noexcept { return (index + 1) * step; }

  static void keep(void* memory, std::size_t index) noexcept {
    if (!cache.guarded) [[unlikely]]
      watch_thread();
    cache.lists[index] = ::new (memory) block{cache.lists[index]};
    cache.bytes += class_size(index);
  }
  static void release(void* memory, std::size_t size) noexcept;
  static void watch_thread() noexcept;
  static void close() noexcept;
};

}  // namespace anyio::inline ANYIO_NET_ABI::detail
