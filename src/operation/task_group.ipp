// How children begin and end.
#pragma once

#include "base/owned.hpp"
#include "base/standard.hpp"
#include "operation/task_group.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN void group_child::begin_soon() {
  begin(loop_core::current(), face_of_child);
  core->queue(*this);
}

ANYIO_NET_FN node* group_child::owner(node& n) {
  const task_group& group = static_cast<group_child&>(n).group_;
  if (group.sink_ != nullptr) return group.sink_->whole();
  return group.place_.linked() ? group.host_ : nullptr;
}

ANYIO_NET_FN void group_child::completed(result<void>&& outcome) {
  group_.child_completed(*this, std::move(outcome));
}

}  // namespace detail

ANYIO_NET_FN task_group::task_group() : host_(detail::active) {
  if (host_ != nullptr) host_->scopes.push_back(place_);
}

ANYIO_NET_FN void task_group::add(detail::group_child* child) {
  children_.push_back(child->place());
  child->begin_soon();
  if (size_++ == 0) loop_ = detail::ref(child->core);
}

/// Destroys the children except those to keep. It removes them from the group first, since the end of a child
/// may destroy the group itself, as in a session that only its children keep alive.
ANYIO_NET_FN void task_group::end_children(bool (*keep)(task_group&, detail::group_child&)) noexcept {
  detail::list ending;
  for (detail::link* l = children_.next; l != &children_;) {
    detail::group_child& child = detail::group_child::at(*l);
    l = l->next;
    if (keep(*this, child)) continue;
    child.place().unlink();
    ending.push_back(child.place());
    one_less();
  }
  while (detail::link* const place = ending.pop_front()) delete &detail::group_child::at(*place);
}

ANYIO_NET_FN void task_group::child_completed(detail::group_child& child, result<void>&& outcome) {
  child.place().unlink();                                      // so that `cancel` does not destroy it
  const detail::owned<detail::group_child> ends_last(&child);  // its end may destroy the group
  if (sink_ != nullptr) {
    one_less();
    return sink_->child_ended(child, std::move(outcome));
  }
  // An error of a child that was told to end is ignored, unless it is a foreign exception.
  const bool counts = !child.doomed || detail::result_access::is_foreign(outcome);
  const bool fails = !outcome.has_value() && counts && failure_.has_value();
  one_less();
  if (!fails) return;
  failure_ = std::move(outcome);
  cancel();
}

ANYIO_NET_FN void task_group::cancel() noexcept {
  end_children([](task_group& group, detail::group_child& child) {
    if (!child.doomed && !child.may_run_now()) return false;
    child.doomed = true;
    reaper& ends = group.reaper_;
    if (!ends.pending()) {
      ends.group = &group;
      ends.begin(detail::loop_core::current(), reaper::face_of_reaper);
      ends.core->queue(ends);
    }
    return true;
  });
}

ANYIO_NET_FN void task_group::end_doomed() noexcept {
  end_children([](task_group&, detail::group_child& child) { return !child.doomed; });
}

ANYIO_NET_FN task_group::~task_group() {
  while (!children_.empty()) {
    end_children([](task_group&, detail::group_child& child) {
      ANYIO_NET_ASSERT(!child.runs_now() && "a task group cannot be destroyed by its own child");
      static_cast<void>(child);
      return false;
    });
  }
}

}}  // namespace anyio
