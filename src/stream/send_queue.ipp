// Sending from the queue.
#pragma once

#include "base/exchange.hpp"
#include "stream/send_queue.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_FN send_queue::~send_queue() {
  while (first_ != nullptr) delete detail::exchange(first_, first_->next);
}

ANYIO_NET_FN void send_queue::append(std::string&& message) {
  if (message.empty()) return;
  item* const added = new item(std::move(message));
  queued_ += added->text.size();
  (first_ == nullptr ? first_ : last_->next) = added;
  last_ = added;
  if (queued_ - sent_ == added->text.size()) runner_.wake_first();  // otherwise it is at work already
}

ANYIO_NET_FN void send_queue::drop_sent(std::size_t n) noexcept {
  sent_ += n;
  n += sent_of_first_;
  while (first_ != nullptr && n >= first_->text.size()) {
    n -= first_->text.size();
    delete detail::exchange(first_, first_->next);
  }
  sent_of_first_ = n;
}

ANYIO_NET_FN void send_queue::fail(error e) noexcept {
  failure_ = e;
  senders_.wake_all();
  flushers_.wake_all();
}

/// Sends once, as many messages as one call takes.
ANYIO_NET_FN detail::progress send_queue::send_some(result<void>& out) {
  const_buffer pieces[detail::outgoing::parts_of_call];
  std::size_t count = 0;
  for (const item* i = first_; i != nullptr && count < detail::outgoing::parts_of_call; i = i->next)
    pieces[count++] = i->text;
  detail::outgoing data(std::span<const const_buffer>(pieces, count), sent_of_first_);
  const detail::progress p = to_->send(data, out);
  drop_sent(data.sent());
  if (p == detail::progress::done && out.has_value()) flushed_ = sent_;
  senders_.wake_first();
  flushers_.wake_all();
  return p;
}

ANYIO_NET_FN bool send_queue::try_send(std::string message) {
  if (failure_.code() != errc::ok || !senders_.empty() || !has_room(message.size())) return false;
  append(std::move(message));
  return true;
}

ANYIO_NET_FN detail::queue_send_operation send_queue::send(std::string message) {
  return detail::queue_send_operation(*this, std::move(message));
}

ANYIO_NET_FN detail::queue_flush_operation send_queue::flush() {
  return detail::queue_flush_operation(*this);
}

ANYIO_NET_FN detail::queue_run_operation send_queue::run() { return detail::queue_run_operation(*this); }

namespace detail {

// --- send

ANYIO_NET_FN queue_send_operation& queue_send_operation::operator=(queue_send_operation&& other) noexcept {
  withdraw();
  operation::operator=(std::move(other));
  queue_ = other.queue_;
  text_ = std::move(other.text_);
  return *this;
}

ANYIO_NET_FN bool queue_send_operation::attempt(result<void>& out) {
  if (pending() && place_.ended()) {
    made = false;
    return complete(out, error(errc::closed_resource, 0, name));
  }
  if (queue_->failure_.code() != errc::ok) return complete(out, queue_->failure_);
  const wait_place* first = queue_->senders_.first();
  if ((first != nullptr && first != &place_) || !queue_->has_room(text_.size())) return false;
  queue_->append(std::move(text_));
  made = false;  // the message is gone
  return complete(out, result<void>());
}

ANYIO_NET_FN void queue_send_operation::left() noexcept {
  if (!place_.linked()) return;
  place_.unlink();
  queue_->senders_.wake_first();
}

// --- flush

ANYIO_NET_FN void queue_flush_operation::started() {
  if (!begun_) goal_ = queue_->queued_;
  begun_ = true;
}

ANYIO_NET_FN bool queue_flush_operation::attempt(result<void>& out) {
  if (pending() && place_.ended()) {
    made = false;
    return complete(out, error(errc::closed_resource, 0, name));
  }
  started();
  if (queue_->flushed_ >= goal_) return complete(out, result<void>());
  if (queue_->failure_.code() == errc::ok) return false;
  return complete(out, queue_->failure_);
}

// --- run

ANYIO_NET_FN queue_run_operation& queue_run_operation::operator=(queue_run_operation&& other) noexcept {
  withdraw();
  operation::operator=(std::move(other));
  queue_ = other.queue_;
  to_ = std::move(other.to_);
  return *this;
}

ANYIO_NET_FN loop_core& queue_run_operation::home() const {
  return to_ && to_->core().alive() ? to_->core() : loop_core::current();
}

ANYIO_NET_FN errc queue_run_operation::check() const noexcept {
  if (!made) return errc::invalid_argument;
  return queue_->runner_.empty() || place_.linked() ? errc::ok : errc::busy_resource;
}

ANYIO_NET_FN errc queue_run_operation::enter() {
  queue_->runner_.join(place_, *this);
  return errc::ok;
}

ANYIO_NET_FN bool queue_run_operation::attempt(result<void>& out) {
  if (place_.ended()) {
    made = false;
    return complete(out, error(errc::closed_resource, 0, name));
  }
  send_queue& q = *queue_;
  yields = false;
  for (int calls = 0; q.failure_.code() == errc::ok; ++calls) {
    const bool idle = q.first_ == nullptr && q.flushed_ == q.sent_;
    const node* const writer = to_ ? to_->waiting(write_side) : nullptr;
    const bool others_write = writer != nullptr && writer != this;
    if (!to_ || !to_->open() || (!idle && to_->eof_sent())) {
      q.fail(error(errc::closed_resource, 0, "send"));
    } else if (idle) {
      // It keeps the writer's place, to be told when the stream is closed, but gives it to anyone.
      yields = true;
      if (!others_write) to_->set_waiting(write_side, this);
      return false;
    } else if (others_write) {
      q.fail(error(errc::busy_resource, 0, "send"));
    } else if (calls == calls_of_attempt || (calls != 0 && to_->core().share_spent())) {
      again = true;
      return false;
    } else {
      to_->set_waiting(write_side, this);
      const progress p = q.send_some(out);
      if (p == progress::again) continue;
      if (p == progress::waiting) return false;
      if (!out.has_value()) q.fail(out.error());
    }
  }
  return complete(out, q.failure_);
}

ANYIO_NET_FN void queue_run_operation::left() noexcept {
  yields = false;
  if (to_ && to_->waiting(write_side) == this) {
    to_->set_waiting(write_side, nullptr);
    to_->withdrawn(write_side);
  }
  place_.unlink();
}

}  // namespace detail

}}  // namespace anyio
