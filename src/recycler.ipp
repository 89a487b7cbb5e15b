// The rare ways of the recycler.
#pragma once

#include "recycler.hpp"

namespace anyio::inline ANYIO_NET_ABI::detail {

ANYIO_NET_FN void recycler::release(void* memory) noexcept { ::operator delete(memory); }

ANYIO_NET_FN void recycler::watch_thread() noexcept {
  static thread_local guard at_exit;
  cache.guarded = true;
  static_cast<void>(at_exit);
}

ANYIO_NET_FN void recycler::close() noexcept {
  cache.closed = true;
  const auto free_all = [](block*& list) {
    while (block* b = list) {
      list = b->next;
      ::operator delete(b);
    }
  };
  for (block*& list : cache.lists) free_all(list);
  cache.bytes = 0;
  for (auto& p : cache.pools) {
    free_all(p.list);
    p.count = 0;
  }
}

}  // namespace anyio::inline ANYIO_NET_ABI::detail
