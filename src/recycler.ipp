// The rare ways of the recycler.
#pragma once

#include "recycler.hpp"

namespace anyio::inline ANYIO_NET_ABI::detail {

ANYIO_NET_FN void recycler::release(void* memory, std::size_t) noexcept { ::operator delete(memory); }

ANYIO_NET_FN void recycler::watch_thread() noexcept {
  static thread_local guard at_exit;
  cache.guarded = true;
  static_cast<void>(at_exit);
}

ANYIO_NET_FN void recycler::close() noexcept {
  cache.closed = true;
  for (block*& list : cache.lists) {
    while (block* b = list) {
      list = b->next;
      ::operator delete(b);
    }
  }
  cache.bytes = 0;
}

}  // namespace anyio::inline ANYIO_NET_ABI::detail
