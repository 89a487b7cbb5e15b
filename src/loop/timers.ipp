// The two-pass melding of the pairing heap.
#pragma once

#include "loop/timers.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN timer* timer_heap::meld_all(timer* first) noexcept {
  timer* pairs = nullptr;  // melded pairs, the last one first, linked by sibling_
  while (first != nullptr) {
    timer* a = first;
    timer* b = a->sibling_;
    first = b ? b->sibling_ : nullptr;
    a->sibling_ = a->previous_ = nullptr;
    if (b) {
      b->sibling_ = b->previous_ = nullptr;
      a = meld(a, b);
    }
    a->sibling_ = pairs;
    pairs = a;
  }
  timer* root = nullptr;
  while (pairs != nullptr) {
    timer* next = pairs->sibling_;
    pairs->sibling_ = nullptr;
    root = root ? meld(root, pairs) : pairs;
    pairs = next;
  }
  return root;
}

ANYIO_NET_FN void timer_heap::remove(timer& t) noexcept {
  timer* rest = meld_all(t.child_);
  if (&t == root_) {
    root_ = rest;
  } else {
    if (t.previous_->child_ == &t) {
      t.previous_->child_ = t.sibling_;
    } else {
      t.previous_->sibling_ = t.sibling_;
    }
    if (t.sibling_) t.sibling_->previous_ = t.previous_;
    if (rest) root_ = meld(root_, rest);
  }
  t.heap_ = nullptr;
  t.child_ = t.sibling_ = t.previous_ = nullptr;
}

}}}  // namespace anyio::detail
