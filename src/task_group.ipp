// The ends of children.
#pragma once

#include "task_group.hpp"

namespace anyio::inline ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN void group_child::begin_soon() {
  begin(loop_core::current(), face_of_child);
  core->queue(*this);
}

ANYIO_NET_FN void group_child::completed(result<void>&& outcome) {
  group_.child_completed(*this, std::move(outcome));
}

}  // namespace detail

ANYIO_NET_FN void task_group::add(detail::group_child* child) {
  children_.insert_before(child->siblings);
  ++size_;
  child->begin_soon();
}

ANYIO_NET_FN void task_group::remove(detail::group_child& child) noexcept {
  child.siblings.unlink();
  delete &child;
  if (--size_ == 0) joining_.wake_all();
}

ANYIO_NET_FN void task_group::child_completed(detail::group_child& child, result<void>&& outcome) {
  const bool fails = !outcome.has_value() && !child.doomed && failure_.has_value();
  if (fails) failure_ = std::move(outcome);
  child.siblings.unlink();  // its own end is not to be cut short
  if (fails) cancel();
  delete &child;
  if (--size_ == 0) joining_.wake_all();
}

ANYIO_NET_FN void task_group::cancel() noexcept {
  detail::link* l = children_.next;
  while (l != &children_) {
    detail::group_child& child = *static_cast<detail::group_child::membership*>(l)->child;
    if (child.doomed || child.runs_now()) {
      child.doomed = true;
      l = l->next;
      if (reaper_.pending()) continue;
      reaper_.group = this;
      reaper_.begin(detail::loop_core::current(), reaper::face_of_reaper);
      reaper_.core->queue(reaper_);
    } else {
      remove(child);
      l = children_.next;  // its destructors may have ended others
    }
  }
}

ANYIO_NET_FN void task_group::remove_doomed() noexcept {
  detail::link* l = children_.next;
  while (l != &children_) {
    detail::group_child& child = *static_cast<detail::group_child::membership*>(l)->child;
    l = l->next;
    if (!child.doomed) continue;
    remove(child);
    l = children_.next;
  }
}

ANYIO_NET_FN task_group::~task_group() {
  while (children_.linked()) {
    detail::group_child& child = *static_cast<detail::group_child::membership*>(children_.next)->child;
    ANYIO_NET_ASSERT(!child.runs_now() && "a task group cannot be destroyed by its own child");
    remove(child);
  }
}

}  // namespace anyio::inline ANYIO_NET_ABI
