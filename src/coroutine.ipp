// The driver of coroutines.
#pragma once

#include "coroutine.hpp"

namespace anyio::inline ANYIO_NET_ABI::detail {

ANYIO_NET_FN void drive(step s) {
  while (s.what != step::nothing) {
    promise_base& p = *s.promise;
    switch (s.what) {
      case step::nothing: break;
      case step::resume: {
        promise_base* const before = std::exchange(active, &p);
        next_step = {};
        p.handle.resume();
        active = before;
        s = std::exchange(next_step, {});
        break;
      }
      case step::deliver: s = static_cast<const coroutine_face*>(p.how)->deliver(p); break;
      case step::raise: {
        const auto& how = *static_cast<const coroutine_face*>(p.how);
        const waiter_storage waiter = p.waiter;
        *p.owner = nullptr;
        p.handle.destroy();
        s = how.fail(waiter, s.failure);
        break;
      }
    }
  }
}

ANYIO_NET_FN bool is_active(const node& whole) noexcept {
  for (node* n = active; n != nullptr; n = n->how != nullptr ? n->how->owner(*n) : nullptr)
    if (n == &whole) return true;
  return false;
}

}  // namespace anyio::inline ANYIO_NET_ABI::detail
