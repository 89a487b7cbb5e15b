// The rare ways of the recycler.
#pragma once

#include "recycler.hpp"

namespace anyio::inline ANYIO_NET_ABI::detail {

ANYIO_NET_COLD void recycler::refuse(void* memory, std::size_t size) noexcept {
  if (cache.guarded || size > largest) return ::operator delete(memory);
  make_room();
  deallocate(memory, size);
}

ANYIO_NET_COLD void recycler::refuse(pool from, void* memory) noexcept {
  if (cache.guarded) return ::operator delete(memory);
  make_room();
  deallocate(from, memory, block_size_of[from]);
}

ANYIO_NET_COLD void recycler::reserve(pool in, std::size_t count) {
  if (!cache.guarded) make_room();
  for (std::size_t i = 0; i < count; ++i)
    cache.pools[in].list = ::new (::operator new(block_size_of[in])) block{cache.pools[in].list};
}

/// Once in a thread's life.
ANYIO_NET_COLD void recycler::make_room() noexcept {
  static thread_local guard at_exit;
  static_cast<void>(at_exit);
  cache.guarded = true;
  cache.room = kept_bytes;
  for (auto& p : cache.pools) p.room = recycler_cache::kept_small;
  cache.pools[large].room = recycler_cache::kept_large;
}

ANYIO_NET_FN void recycler::close() noexcept {
  const auto free_all = [](block*& list) {
    while (block* b = list) {
      list = b->next;
      ::operator delete(b);
    }
  };
  for (block*& list : cache.lists) free_all(list);
  cache.room = 0;
  for (auto& p : cache.pools) {
    free_all(p.list);
    p.room = 0;
  }
}

}  // namespace anyio::inline ANYIO_NET_ABI::detail
