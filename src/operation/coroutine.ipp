// The driver of coroutines.
#pragma once

#include "base/exchange.hpp"
#include "operation/coroutine.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN void drive(step s) {
  promise_base* const outside = active;
  while (s.what != step::nothing) {
    promise_base& p = *s.promise;
    switch (s.what) {
      case step::nothing: break;
      case step::resume:
        active = &p;
        p.handle.resume();  // which sets the next step last of all, if at all
        active = outside;
        s = detail::exchange(next_step, {});
        break;
      case step::deliver:
        if (p.how == nullptr) return;  // the loop has ended, and the waiter with it
        s = static_cast<const coroutine_face*>(p.how)->deliver(p);
        break;
      case step::raise: {
        if (p.how == nullptr) return;
        const auto& how = *static_cast<const coroutine_face*>(p.how);
        const waiter_storage waiter = p.waiter;
        const error failure = raised_error;  // before destructors run, which may raise
        end_frame(p);
        s = how.fail(waiter, failure);
        break;
      }
    }
  }
}

ANYIO_NET_FN void destroy_chain(promise_base& whole) noexcept {
  promise_base* p = &whole;
  while (p->inner != nullptr) p = p->inner;
  while (p != &whole) {
    promise_base* const next = p->outer;
    *p->owner = nullptr;
    p->handle.destroy();
    p = next;
  }
  whole.handle.destroy();
}

ANYIO_NET_FN void end_frame(promise_base& p) noexcept {
  // The destructors of the frame's locals may ask what runs now: they count as the inside of the coroutine.
  // Another node stands for it, since the promise is destroyed before the parameters are.
  const stand_in inside(*p.how, p.waiter);
  *p.owner = nullptr;
  p.handle.destroy();
}

ANYIO_NET_COLD bool is_stranded(node& n) {
  node* root = &n;
  while (root != nullptr && root->how != nullptr) {
    node* const owner = root->how->owner(*root);
    if (owner == nullptr) break;
    root = owner == unknown_owner() ? nullptr : owner;
  }
  loop_core* const waits = n.core->stranding(root);
  ANYIO_NET_ASSERT(waits == nullptr && "the operation's loop is blocked until this operation completes");
  if (waits == nullptr) return false;
  const face& how = *n.how;
  n.retire();
  n.begin(*waits, how, errc::invalid_argument);
  return true;
}

ANYIO_NET_FN bool is_active(const node& whole, bool if_unknown) noexcept {
  for (node* n = active; n != nullptr; n = n->how != nullptr ? n->how->owner(*n) : nullptr) {
    if (n == &whole) return true;
    if (n == unknown_owner()) return if_unknown;
  }
  return false;
}

}}}  // namespace anyio::detail
