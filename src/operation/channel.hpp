// Queues of values between the tasks of one loop.
//
// A waiter continues from the loop, never inside the call that woke it. It takes or gives its value only at
// that moment, so one that is cancelled before that loses nothing. None of these types may be used from
// another thread. This part must not know tasks.
#pragma once

#include "base/config.hpp"
#include "base/standard.hpp"
#include "operation/operation.hpp"
#include "operation/synchronization.hpp"

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// A queue between tasks. `send` waits while the queue holds `capacity` values; with a capacity of 0 it waits
/// for a receiver that takes the value, and with `unbounded` it never waits. After `close`, receivers get the
/// values that are left, then `end_of_stream`; senders get `closed_resource`.
template <class T>
class channel {
 public:
  /// A capacity without a limit.
  static constexpr std::size_t unbounded = static_cast<std::size_t>(-1);
  /// Constructs a channel. It allocates room for the first values here, and room for more when they arrive.
  explicit channel(std::size_t capacity) : capacity_(capacity), ring_(capacity < 63 ? capacity + 1 : 64) {}
  channel(const channel&) = delete;
  channel& operator=(const channel&) = delete;

  class send_operation;
  class receive_operation;
  class receive_many_operation;
  /// Sends a value: waits for room, or for a receiver that takes it. A send that is
  /// cancelled before that has not sent the value.
  [[nodiscard]] send_operation send(T value) { return send_operation(*this, std::move(value)); }
  /// Receives the oldest value. A cancelled receive takes no value.
  [[nodiscard]] receive_operation receive() { return receive_operation(*this); }
  /// Receives at least one value, and all that are there up to `max`, in order. A `max` of 0 is
  /// `invalid_argument`. A cancelled one takes no value.
  [[nodiscard]] receive_many_operation receive_many(std::size_t max) {
    return receive_many_operation(*this, max);
  }
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
  /// The number of values in the queue; values of waiting senders are not counted.
  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  /// The number of values that the queue holds before `send` waits.
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  /// Whether `close` was called; values may be left.
  [[nodiscard]] bool closed() const noexcept { return closed_; }
  /// Closes the channel. Receivers still get the values that are left. Calling it again has no effect.
  void close() noexcept {
    closed_ = true;
    senders_.wake_all();
    receivers_.wake_all();
  }

 private:
  template <class Derived, class Value>
  class receiver;

  /// How many values receivers can take now, counted up to `most`.
  [[nodiscard]] std::size_t available(std::size_t most) const noexcept {
    if (count_ >= most) return most;
    return closed_ ? count_ : count_ + senders_.length(most - count_);
  }
  [[nodiscard]] bool has_room() const noexcept {
    if (count_ < capacity_) return true;
    const std::size_t excess = count_ - capacity_;  // of values that receivers will take
    return receivers_.length(excess + 1) > excess;
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

/// What the operations that receive have in common: their place in the line.
template <class T>
template <class Derived, class Value>
class [[nodiscard]] channel<T>::receiver : public detail::operation<Derived, Value> {
  using base = detail::operation<Derived, Value>;

 public:
  receiver() = default;
  explicit receiver(channel& c) : base(true), channel_(&c) {}
  receiver(receiver&&) noexcept = default;
  receiver& operator=(receiver&& other) noexcept {
    this->withdraw();
    base::operator=(std::move(other));
    channel_ = other.channel_;
    return *this;
  }
  ~receiver() { this->withdraw(); }

 protected:
  friend class detail::operation<Derived, Value>;

  [[nodiscard]] errc enter() {
    channel_->receivers_.join(place_, *this);
    channel_->senders_.wake_first();
    return errc::ok;
  }
  /// Whether it may take values now.
  [[nodiscard]] bool has_turn() noexcept {
    const detail::wait_place* first = channel_->receivers_.first();
    return first == nullptr || first == &place_ || channel_->closed_;
  }
  /// True if no value will come.
  bool is_over(result<Value>& out) {
    if (this->pending() && place_.ended()) {
      this->made = false;
      out = error(errc::closed_resource, 0, Derived::name);
      return true;
    }
    if (!channel_->closed_ || channel_->count_ != 0) return false;
    out = error(errc::end_of_stream, 0, Derived::name);
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

/// The operation that `channel::receive` returns.
template <class T>
class [[nodiscard]] channel<T>::receive_operation
    : public channel<T>::template receiver<receive_operation, T> {
 public:
  static constexpr const char* name = "receive";
  using channel<T>::template receiver<receive_operation, T>::receiver;

 private:
  friend class detail::operation<receive_operation, T>;

  bool attempt(result<T>& out) {
    if (this->is_over(out)) return true;
    if (!this->has_turn()) return false;
    std::optional<T> value = this->channel_->take();
    if (!value) return false;
    out = result<T>(*std::move(value));
    return true;
  }
};

/// The operation that `channel::receive_many` returns.
template <class T>
class [[nodiscard]] channel<T>::receive_many_operation
    : public channel<T>::template receiver<receive_many_operation, std::vector<T>> {
  using base = typename channel<T>::template receiver<receive_many_operation, std::vector<T>>;

 public:
  static constexpr const char* name = "receive_many";
  receive_many_operation() = default;
  receive_many_operation(channel& c, std::size_t max) : base(c), max_(max) {}

 private:
  friend class detail::operation<receive_many_operation, std::vector<T>>;
  template <class, class>
  friend class channel<T>::receiver;

  [[nodiscard]] errc check() const noexcept {
    return this->made && max_ != 0 ? errc::ok : errc::invalid_argument;
  }
  bool attempt(result<std::vector<T>>& out) {
    if (this->is_over(out)) return true;
    if (!this->has_turn()) return false;
    const std::size_t most = this->channel_->available(max_);
    if (most == 0) return false;
    std::vector<T> values;
    values.reserve(most);  // before any value is taken, since it may fail
    for (std::size_t i = 0; i < most; ++i) values.push_back(*this->channel_->take());
    out = result<std::vector<T>>(std::move(values));
    return true;
  }

  std::size_t max_ = 0;
};

}}  // namespace anyio
