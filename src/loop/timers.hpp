// Timers, ordered by deadline.
//
// A pairing heap whose elements are members of their operations: it does not allocate. Inserting a timer
// takes a few instructions, and so does removing it before its deadline, the common case. This part must not
// read a clock: the loop passes the time. (Fredman, Sedgewick, Sleator, Tarjan: The pairing heap, 1986.)
#pragma once

#include "base/config.hpp"
#include "base/standard.hpp"
#include "loop/ready_list.hpp"

#include <cstdint>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class timer_heap;

/// A deadline, and the node to run after it has passed. The destructor cancels the timer.
class timer {
 public:
  timer() = default;
  timer(timer&& other) noexcept {
    ANYIO_NET_ASSERT(!other.armed());
    static_cast<void>(other);
  }
  timer& operator=(timer&& other) noexcept {
    ANYIO_NET_ASSERT(!other.armed());
    static_cast<void>(other);
    cancel();
    return *this;
  }
  ~timer() { cancel(); }

  [[nodiscard]] bool armed() const noexcept { return heap_ != nullptr; }
  [[nodiscard]] std::chrono::steady_clock::time_point deadline() const noexcept { return deadline_; }
  void cancel() noexcept;

 private:
  friend class timer_heap;

  bool before(const timer& other) const noexcept {
    if (deadline_ != other.deadline_) return deadline_ < other.deadline_;
    return static_cast<std::int32_t>(order_ - other.order_) < 0;  // equal deadlines: in the order of arming
  }

  timer_heap* heap_ = nullptr;
  timer* child_ = nullptr;     // the first child; children are due later
  timer* sibling_ = nullptr;   // the next child of the same parent
  timer* previous_ = nullptr;  // the previous sibling, or the parent of a first child
  node* target_ = nullptr;
  std::chrono::steady_clock::time_point deadline_;
  std::uint32_t order_ = 0;
};

class timer_heap {
 public:
  timer_heap() = default;
  timer_heap(const timer_heap&) = delete;
  timer_heap& operator=(const timer_heap&) = delete;

  void arm(timer& t, std::chrono::steady_clock::time_point deadline, node& target) noexcept {
    t.cancel();
    t.heap_ = this;
    t.deadline_ = deadline;
    t.target_ = &target;
    t.order_ = order_++;
    root_ = root_ ? meld(root_, &t) : &t;
  }
  void remove(timer& t) noexcept;

  [[nodiscard]] const timer* first() const noexcept { return root_; }
  /// Removes the first timer if it is due, and returns its node; null if no timer is due.
  node* pop_due(std::chrono::steady_clock::time_point now) noexcept {
    if (root_ == nullptr || root_->deadline_ > now) return nullptr;
    node* target = root_->target_;
    remove(*root_);
    return target;
  }

 private:
  static timer* meld(timer* a, timer* b) noexcept {
    if (b->before(*a)) std::swap(a, b);
    b->previous_ = a;
    b->sibling_ = a->child_;
    if (b->sibling_) b->sibling_->previous_ = b;
    a->child_ = b;
    return a;
  }
  static timer* meld_all(timer* first) noexcept;

  timer* root_ = nullptr;
  std::uint32_t order_ = 0;
};

inline void timer::cancel() noexcept {
  if (heap_) heap_->remove(*this);
}

}}}  // namespace anyio::detail
