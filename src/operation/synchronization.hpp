// Synchronization between the tasks of one loop: lines of waiters, events, semaphores.
//
// A waiter stands in a line and continues from the loop, never inside the call that woke it. It takes a
// permit only at that moment, so a waiter that is cancelled before that loses nothing. None of
// these types may be used from another thread.
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/standard.hpp"
#include "operation/operation.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

class wait_line;

/// A place in a line, kept in the operation that waits.
class wait_place : public link {
 public:
  wait_place() = default;
  wait_place(wait_place&& other) noexcept : link() { static_cast<void>(other); }
  wait_place& operator=(wait_place&&) noexcept {
    unlink();
    return *this;
  }
  /// The object that this operation waits for is gone, and must not be touched.
  [[nodiscard]] bool ended() const noexcept { return now == state::ended; }

  enum class state : std::uint8_t {
    waits,
    released,  // the wait is over, even if its reason no longer holds
    ended,
  };
  node* waiter = nullptr;
  state now = state::waits;
};

/// A line of waiting operations. When the line is destroyed, the operations are queued and fail.
class wait_line {
 public:
  wait_line() = default;
  wait_line(const wait_line&) = delete;
  wait_line& operator=(const wait_line&) = delete;
  ~wait_line() { let_all_on(wait_place::state::ended); }

  void join(wait_place& place, node& waiter) noexcept {
    place.waiter = &waiter;
    place.now = wait_place::state::waits;
    head_.push_back(place);
  }
  [[nodiscard]] bool empty() const noexcept { return head_.empty(); }
  [[nodiscard]] wait_place* first() noexcept {
    return empty() ? nullptr : &static_cast<wait_place&>(*head_.next);
  }
  /// Lets the first operation in the line make an attempt.
  void wake_first() noexcept {
    if (wait_place* p = first()) p->waiter->core->queue(*p->waiter);
  }
  void wake_all() noexcept {
    for (link* l = head_.next; l != &head_; l = l->next) {
      node* n = static_cast<wait_place&>(*l).waiter;
      n->core->queue(*n);
    }
  }
  void release_all() noexcept { let_all_on(wait_place::state::released); }
  static void let_on(wait_place& p, wait_place::state s) noexcept {
    p.unlink();
    p.now = s;
    p.waiter->core->queue(*p.waiter);
  }
  /// Its length, counted up to `most`.
  [[nodiscard]] std::size_t length(std::size_t most) const noexcept {
    std::size_t n = 0;
    for (const link* l = head_.next; l != &head_ && n < most; l = l->next) ++n;
    return n;
  }

 private:
  void let_all_on(wait_place::state s) noexcept {
    while (!empty()) let_on(static_cast<wait_place&>(*head_.next), s);
  }
  list head_;
};

}  // namespace detail

class event_operation;

/// A flag to wait for. It can be neither moved nor copied. It must outlive its waiters, which otherwise fail
/// with `closed_resource`.
class event {
 public:
  event() = default;
  event(const event&) = delete;
  event& operator=(const event&) = delete;

  /// Sets the flag. All current waiters complete from the loop, even if the flag is cleared at once.
  void set() noexcept {
    set_ = true;
    waiting_.release_all();
  }
  /// Clears the flag: from now on `wait` waits. Waiters that `set` has released still complete.
  void clear() noexcept { set_ = false; }
  /// Whether `wait` would complete at once.
  [[nodiscard]] bool is_set() const noexcept { return set_; }
  /// Waits until the flag is set.
  [[nodiscard]] event_operation wait();

 private:
  friend class event_operation;
  bool set_ = false;
  detail::wait_line waiting_;
};

/// The operation that `event::wait` returns.
class [[nodiscard]] event_operation : public detail::operation<event_operation, void> {
 public:
  static constexpr const char* name = "wait";
  event_operation() = default;
  explicit event_operation(event& e) : operation(true), event_(&e) {}

 private:
  friend class event;
  friend class detail::operation<event_operation, void>;

  [[nodiscard]] errc enter() {
    event_->waiting_.join(place_, *this);
    return errc::ok;
  }
  bool attempt(result<void>& out) {
    if (pending() && place_.ended()) {
      made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    if (!(pending() && place_.now == detail::wait_place::state::released) && !event_->set_) return false;
    out = result<void>();
    return true;
  }
  void left() noexcept { place_.unlink(); }

  event* event_ = nullptr;
  detail::wait_place place_;
};

inline event_operation event::wait() { return event_operation(*this); }

class semaphore;

/// Units of a semaphore. Its destructor gives them back.
class [[nodiscard]] permit {
 public:
  permit() = default;
  permit(permit&& other) noexcept
      : semaphore_(detail::exchange(other.semaphore_, nullptr)), units_(other.units_) {}
  permit& operator=(permit&& other) noexcept {
    if (this != &other) {
      release();
      semaphore_ = detail::exchange(other.semaphore_, nullptr);
      units_ = other.units_;
    }
    return *this;
  }
  ~permit() { release(); }
  /// Gives the units back now. Calling it again has no effect.
  void release() noexcept;
  /// Whether it is held: not default-constructed, moved from or released.
  explicit operator bool() const noexcept { return semaphore_ != nullptr; }

 private:
  friend class semaphore;
  permit(semaphore& s, std::size_t units) noexcept : semaphore_(&s), units_(units) {}
  semaphore* semaphore_ = nullptr;
  std::size_t units_ = 0;
};

/// Lends a limited number of units, in the order of the requests: one that asks for many is not passed by
/// those behind it that ask for few. With one unit it is a lock. It must outlive its permits and its waiters.
class semaphore {
 public:
  /// Constructs a semaphore with `n` units.
  explicit semaphore(std::size_t n) noexcept : free_(n) {}
  semaphore(const semaphore&) = delete;
  semaphore& operator=(const semaphore&) = delete;

  class acquire_operation;
  /// Waits for its turn and for so many units, and returns a permit that holds them. A request for more
  /// units than the semaphore has in all waits forever, and so do those behind it; one for none is granted at
  /// once.
  [[nodiscard]] acquire_operation acquire(std::size_t units = 1);
  /// Returns a permit without waiting; empty if it would have to wait.
  [[nodiscard]] std::optional<permit> try_acquire(std::size_t units = 1) noexcept {
    if (units != 0 && (free_ < units || !waiting_.empty())) return std::nullopt;
    free_ -= units;
    return permit(*this, units);
  }
  /// The number of units that no permit holds.
  [[nodiscard]] std::size_t available() const noexcept { return free_; }

 private:
  friend class permit;
  void give_back(std::size_t units) noexcept {
    free_ += units;
    waiting_.wake_first();
  }
  std::size_t free_;
  detail::wait_line waiting_;
};

inline void permit::release() noexcept {
  if (semaphore* s = detail::exchange(semaphore_, nullptr)) s->give_back(units_);
}

/// The operation that `semaphore::acquire` returns.
class [[nodiscard]] semaphore::acquire_operation : public detail::operation<acquire_operation, permit> {
 public:
  static constexpr const char* name = "acquire";
  acquire_operation() = default;
  acquire_operation(semaphore& s, std::size_t units) : operation(true), semaphore_(&s), units_(units) {}
  acquire_operation(acquire_operation&&) = default;
  acquire_operation& operator=(acquire_operation&& other) noexcept {
    withdraw();
    operation::operator=(std::move(other));
    semaphore_ = other.semaphore_;
    units_ = other.units_;
    return *this;
  }
  ~acquire_operation() { withdraw(); }

 private:
  friend class detail::operation<acquire_operation, permit>;

  [[nodiscard]] errc enter() {
    semaphore_->waiting_.join(place_, *this);
    return errc::ok;
  }
  bool attempt(result<permit>& out) {
    if (pending() && place_.ended()) {
      made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    const detail::wait_place* first = semaphore_->waiting_.first();
    const bool has_turn = first == nullptr || first == &place_;
    if (units_ != 0 && (semaphore_->free_ < units_ || !has_turn)) return false;
    semaphore_->free_ -= units_;
    out = result<permit>(permit(*semaphore_, units_));
    return true;
  }
  void left() noexcept {
    if (!place_.linked()) return;
    place_.unlink();
    if (semaphore_->free_ != 0) semaphore_->waiting_.wake_first();
  }

  semaphore* semaphore_ = nullptr;
  std::size_t units_ = 0;
  detail::wait_place place_;
};

inline semaphore::acquire_operation semaphore::acquire(std::size_t units) {
  return acquire_operation(*this, units);
}

}}  // namespace anyio
