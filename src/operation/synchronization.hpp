// Synchronization between the tasks of one loop: events, semaphores, channels.
//
// A waiter stands in a line and continues from the loop, never inside the call that woke it. It takes a
// permit or a value only at that moment, so a waiter that is cancelled before that loses nothing. None of
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
#include <vector>

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
    head_.insert_before(place);
  }
  [[nodiscard]] bool empty() const noexcept { return !head_.linked(); }
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
  [[nodiscard]] bool longer_than(std::size_t n) const noexcept {
    for (const link* l = head_.next; l != &head_; l = l->next)
      if (n-- == 0) return true;
    return false;
  }

 private:
  void let_all_on(wait_place::state s) noexcept {
    while (!empty()) let_on(static_cast<wait_place&>(*head_.next), s);
  }
  link head_;
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

/// One unit of a semaphore. Its destructor gives the unit back.
class [[nodiscard]] permit {
 public:
  permit() = default;
  permit(permit&& other) noexcept : semaphore_(detail::exchange(other.semaphore_, nullptr)) {}
  permit& operator=(permit&& other) noexcept {
    if (this != &other) {
      release();
      semaphore_ = detail::exchange(other.semaphore_, nullptr);
    }
    return *this;
  }
  ~permit() { release(); }
  /// Gives the unit back now. Calling it again has no effect.
  void release() noexcept;
  /// Whether it holds a unit.
  explicit operator bool() const noexcept { return semaphore_ != nullptr; }

 private:
  friend class semaphore;
  explicit permit(semaphore& s) noexcept : semaphore_(&s) {}
  semaphore* semaphore_ = nullptr;
};

/// Grants a limited number of permits at a time, in the order of the requests. With one permit it is a lock.
/// It must outlive its permits and its waiters.
class semaphore {
 public:
  /// Constructs a semaphore with `n` permits.
  explicit semaphore(std::size_t n) noexcept : free_(n) {}
  semaphore(const semaphore&) = delete;
  semaphore& operator=(const semaphore&) = delete;

  class acquire_operation;
  /// Waits for its turn, and returns a permit.
  [[nodiscard]] acquire_operation acquire();
  /// Returns a permit without waiting; empty if none is free, or if others wait.
  [[nodiscard]] std::optional<permit> try_acquire() noexcept {
    if (free_ == 0 || !waiting_.empty()) return std::nullopt;
    --free_;
    return permit(*this);
  }

 private:
  friend class permit;
  void give_back() noexcept {
    ++free_;
    waiting_.wake_first();
  }
  std::size_t free_;
  detail::wait_line waiting_;
};

inline void permit::release() noexcept {
  if (semaphore* s = detail::exchange(semaphore_, nullptr)) s->give_back();
}

/// The operation that `semaphore::acquire` returns.
class [[nodiscard]] semaphore::acquire_operation : public detail::operation<acquire_operation, permit> {
 public:
  static constexpr const char* name = "acquire";
  acquire_operation() = default;
  explicit acquire_operation(semaphore& s) : operation(true), semaphore_(&s) {}
  acquire_operation(acquire_operation&&) = default;
  acquire_operation& operator=(acquire_operation&& other) noexcept {
    withdraw();
    operation::operator=(std::move(other));
    semaphore_ = other.semaphore_;
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
    if (semaphore_->free_ == 0 || (first != nullptr && first != &place_)) return false;
    --semaphore_->free_;
    out = result<permit>(permit(*semaphore_));
    return true;
  }
  void left() noexcept {
    if (!place_.linked()) return;
    place_.unlink();
    if (semaphore_->free_ != 0) semaphore_->waiting_.wake_first();
  }

  semaphore* semaphore_ = nullptr;
  detail::wait_place place_;
};

inline semaphore::acquire_operation semaphore::acquire() { return acquire_operation(*this); }

/// A queue between tasks. `send` waits while the queue holds `capacity` values; with a capacity of 0 it waits
/// for a receiver that takes the value. After `close`, receivers get the values that are left, then
/// `end_of_stream`; senders get `closed_resource`.
template <class T>
class channel {
 public:
  /// Constructs a channel. It allocates room for the first values here, and room for more when they arrive.
  explicit channel(std::size_t capacity) : capacity_(capacity), ring_(capacity < 63 ? capacity + 1 : 64) {}
  channel(const channel&) = delete;
  channel& operator=(const channel&) = delete;

  class send_operation;
  class receive_operation;
  /// Sends a value: waits for room, or for a receiver that takes it. A send that is
  /// cancelled before that has not sent the value.
  [[nodiscard]] send_operation send(T value) { return send_operation(*this, std::move(value)); }
  /// Receives the oldest value. A cancelled receive takes no value.
  [[nodiscard]] receive_operation receive() { return receive_operation(*this); }
  /// Sends a value without waiting. Returns false if it would have to wait, or if the channel is closed.
  [[nodiscard]] bool try_send(T value) {
    if (closed_ || !senders_.empty() || !has_room()) return false;
    put(std::move(value));
    return true;
  }
  /// Receives the oldest value without waiting; empty if there is none, or if other receivers wait.
  [[nodiscard]] std::optional<T> try_receive() {
    if (!receivers_.empty()) return std::nullopt;
    return take();
  }
  /// Closes the channel. Receivers still get the values that are left. Calling it again has no effect.
  void close() noexcept {
    closed_ = true;
    senders_.wake_all();
    receivers_.wake_all();
  }

 private:
  [[nodiscard]] bool has_room() const noexcept {
    return count_ < capacity_ || receivers_.longer_than(count_ - capacity_);
  }
  void put(T&& value) {
    if (count_ == ring_.size()) grow();
    ring_[(first_ + count_) % ring_.size()].emplace(std::move(value));
    ++count_;
    receivers_.wake_first();
  }
  std::optional<T> take() {
    std::optional<T> value;
    if (count_ != 0) {
      value.emplace(*std::move(ring_[first_]));
      ring_[first_].reset();
      first_ = (first_ + 1) % ring_.size();
      --count_;
      senders_.wake_first();
    } else if (detail::wait_place* p = closed_ ? nullptr : senders_.first()) {
      // The capacity is 0, or no value is left: takes the value directly from the sender that waits.
      auto& sender = static_cast<send_operation&>(*p->waiter);
      value.emplace(*std::move(sender.value_));
      sender.value_.reset();
      detail::wait_line::let_on(*p, detail::wait_place::state::released);
    }
    return value;
  }
  void grow() {
    std::vector<std::optional<T>> larger(ring_.size() * 2);
    for (std::size_t i = 0; i < count_; ++i) {
      larger[i].emplace(*std::move(ring_[(first_ + i) % ring_.size()]));
    }
    ring_.swap(larger);
    first_ = 0;
  }

  std::size_t capacity_;
  std::vector<std::optional<T>> ring_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  bool closed_ = false;
  detail::wait_line senders_;
  detail::wait_line receivers_;
};

/// The operation that `channel::send` returns.
template <class T>
class [[nodiscard]] channel<T>::send_operation : public detail::operation<send_operation, void> {
 public:
  static constexpr const char* name = "send";
  send_operation() = default;
  send_operation(channel& c, T&& value)
      : detail::operation<send_operation, void>(true), channel_(&c), value_(std::move(value)) {}
  send_operation(send_operation&&) noexcept = default;
  send_operation& operator=(send_operation&& other) noexcept {
    this->withdraw();
    detail::operation<send_operation, void>::operator=(std::move(other));
    channel_ = other.channel_;
    value_.reset();  // no assignment: a value only needs to be move-constructible
    if (other.value_) std::construct_at(&value_, std::move(other.value_));
    return *this;
  }
  ~send_operation() { this->withdraw(); }

 private:
  friend class channel;
  friend class detail::operation<send_operation, void>;

  [[nodiscard]] errc check() const noexcept {
    if (!this->made || !value_) return errc::invalid_argument;
    return channel_->closed_ ? errc::closed_resource : errc::ok;
  }
  [[nodiscard]] errc enter() {
    channel_->senders_.join(place_, *this);
    if (channel_->capacity_ == 0) channel_->receivers_.wake_first();
    return errc::ok;
  }
  bool attempt(result<void>& out) {
    if (this->pending() && place_.now == detail::wait_place::state::released) {
      out = result<void>();
      return true;
    }
    if (this->pending() && place_.ended()) {
      this->made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    if (channel_->closed_) {
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    const detail::wait_place* first = channel_->senders_.first();
    if ((first != nullptr && first != &place_) || !channel_->has_room()) return false;
    channel_->put(*std::move(value_));
    value_.reset();
    out = result<void>();
    return true;
  }
  void left() noexcept {
    if (!place_.linked()) return;
    place_.unlink();
    channel_->senders_.wake_first();  // there may be room for the next sender
  }

  channel* channel_ = nullptr;
  std::optional<T> value_;
  detail::wait_place place_;
};

/// The operation that `channel::receive` returns.
template <class T>
class [[nodiscard]] channel<T>::receive_operation : public detail::operation<receive_operation, T> {
 public:
  static constexpr const char* name = "receive";
  receive_operation() = default;
  explicit receive_operation(channel& c) : detail::operation<receive_operation, T>(true), channel_(&c) {}
  receive_operation(receive_operation&&) noexcept = default;
  receive_operation& operator=(receive_operation&& other) noexcept {
    this->withdraw();
    detail::operation<receive_operation, T>::operator=(std::move(other));
    channel_ = other.channel_;
    return *this;
  }
  ~receive_operation() { this->withdraw(); }

 private:
  friend class channel;
  friend class detail::operation<receive_operation, T>;

  [[nodiscard]] errc enter() {
    channel_->receivers_.join(place_, *this);
    channel_->senders_.wake_first();
    return errc::ok;
  }
  bool attempt(result<T>& out) {
    if (this->pending() && place_.ended()) {
      this->made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    const detail::wait_place* first = channel_->receivers_.first();
    if (first != nullptr && first != &place_ && !channel_->closed_) return false;
    if (std::optional<T> value = channel_->take()) {
      out = result<T>(*std::move(value));
      return true;
    }
    if (!channel_->closed_) return false;
    out = error(errc::end_of_stream, 0, name);
    return true;
  }
  void left() noexcept {
    if (!place_.linked()) return;
    place_.unlink();
    channel_->receivers_.wake_first();  // the next receiver may take the value that this one leaves
  }

  channel* channel_ = nullptr;
  detail::wait_place place_;
};

}}  // namespace anyio
