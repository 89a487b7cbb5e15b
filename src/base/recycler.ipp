// The rare paths of the recycler.
#pragma once

#include "base/exchange.hpp"
#include "base/recycler.hpp"

#include <limits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

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

ANYIO_NET_COLD recycler::reservation::reservation(pool in, std::size_t count) : in_(in) {
  // An impossible size fails at once, and not only after the machine has run out of memory.
  constexpr std::size_t most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max());
  const std::size_t size = block_size_of[in];
  ::operator delete(::operator new(count > most / size ? most : count * size));
  struct list {
    block* first = nullptr;
    ~list() { free_all(first); }
  } made;
  for (std::size_t i = 0; i < count; ++i) made.first = ::new (::operator new(size)) block{made.first};
  blocks_ = detail::exchange(made.first, nullptr);
}

ANYIO_NET_COLD void recycler::reservation::put_aside() noexcept {
  if (!cache.guarded) make_room();
  while (block* b = blocks_) {
    blocks_ = b->next;
    cache.pools[in_].list = ::new (static_cast<void*>(b)) block{cache.pools[in_].list};
  }
}

/// Runs once per thread.
ANYIO_NET_COLD void recycler::make_room() noexcept {
  static thread_local guard at_exit;
  static_cast<void>(at_exit);
  cache.guarded = true;
  cache.room = kept_bytes;
  for (auto& p : cache.pools) p.room = recycler_cache::kept_small;
  cache.pools[large].room = recycler_cache::kept_large;
}

ANYIO_NET_FN void recycler::free_all(block*& list) noexcept {
  while (block* b = list) {
    list = b->next;
    ::operator delete(b);
  }
}

ANYIO_NET_FN void recycler::close() noexcept {
  for (block*& list : cache.lists) free_all(list);
  cache.room = 0;
  for (auto& p : cache.pools) {
    free_all(p.list);
    p.room = 0;
  }
}

}}}  // namespace anyio::detail
