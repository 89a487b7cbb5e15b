// The rings of memory streams.
#pragma once

#include "base/exchange.hpp"
#include "base/owned.hpp"
#include "base/standard.hpp"
#include "stream/memory_stream.hpp"

#include <cerrno>
#include <cstring>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN std::size_t memory_resource::take(mutable_buffer into) noexcept {
  const std::size_t total =
      core().system().transfer(std::min(std::min(size_, into.size()), loop_core::most_of_call));
  core().count_work(total, 0);
  const std::size_t before_wrap = std::min(total, capacity_ - first_);
  std::memcpy(into.data(), ring_.get() + first_, before_wrap);
  if (total != before_wrap) std::memcpy(into.data() + before_wrap, ring_.get(), total - before_wrap);
  size_ -= total;
  first_ = size_ == 0 ? 0 : (first_ + total) % capacity_;
  if (peer_ != nullptr) peer_->wake(write_side);
  return total;
}

ANYIO_NET_FN std::size_t memory_resource::put(const_buffer bytes) {
  if (!ring_) ring_.reset(new std::byte[capacity_]);
  const std::size_t room = std::min(std::min(capacity_ - size_, bytes.size()), loop_core::most_of_call);
  core().count_work(room + work_of_part, 0);
  const std::size_t total = room == 0 ? 0 : core().system().transfer(room);
  const std::size_t end = first_ < capacity_ - size_ ? first_ + size_ : first_ - (capacity_ - size_);
  const std::size_t before_wrap = std::min(total, capacity_ - end);
  if (total == 0) return 0;
  std::memcpy(ring_.get() + end, bytes.data(), before_wrap);
  if (total != before_wrap) std::memcpy(ring_.get(), bytes.data() + before_wrap, total - before_wrap);
  size_ += total;
  wake(read_side);
  return total;
}

ANYIO_NET_FN progress memory_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  if (size_ != 0) return complete<progress::done>(out, take(into));
  if (peer_ != nullptr && !peer_->eof_sent_) return progress::waiting;
  return complete<progress::done>(out, error(errc::end_of_stream, 0, "receive"));
}

ANYIO_NET_FN progress memory_resource::receive_view(std::size_t max_bytes, result<std::string_view>& out) {
  const mutable_buffer room = core().buffer();
  result<std::size_t> size(errc::cancelled);
  if (receive(mutable_buffer(room.data(), std::min(room.size(), max_bytes)), size) == progress::waiting)
    return progress::waiting;
  if (size.has_value())
    return complete<progress::done>(out, std::string_view(reinterpret_cast<const char*>(room.data()), *size));
  return complete<progress::done>(out, size.error());
}

ANYIO_NET_FN progress memory_resource::send(outgoing& data, result<void>& out) {
  while (!data.done()) {
    if (peer_ == nullptr) return complete<progress::done>(out, error(errc::broken_resource, EPIPE, "send"));
    const std::size_t n = peer_->put(data.front());
    if (n == 0) return progress::waiting;
    data.advance(n);
    if (!data.done() && peer_->size_ == peer_->capacity_) return progress::waiting;
    if (data.rests() || (!data.done() && core().share_spent())) return progress::again;
  }
  return complete<progress::done>(out, result<void>());
}

ANYIO_NET_FN progress memory_resource::send_eof(result<void>& out) {
  if (!detail::exchange(eof_sent_, true) && peer_ != nullptr) peer_->wake(read_side);
  return complete<progress::done>(out, result<void>());
}

ANYIO_NET_FN progress memory_resource::finish() { return progress::done; }

ANYIO_NET_FN void memory_resource::part() noexcept {
  memory_resource* const peer = detail::exchange(peer_, nullptr);
  if (peer == nullptr) return;
  peer->peer_ = nullptr;
  peer->wake(read_side);
  peer->wake(write_side);
}

ANYIO_NET_FN void memory_resource::shut() noexcept {
  part();
  ring_.reset();
  first_ = size_ = 0;
}

}  // namespace detail

ANYIO_NET_FN std::pair<memory_stream, memory_stream> create_memory_stream_pair(std::size_t capacity) {
  detail::loop_core& core = detail::loop_core::current();
  const std::size_t size = std::max<std::size_t>(capacity, 1);
  const detail::ref<detail::memory_resource> a(new detail::memory_resource(core, size));
  const detail::ref<detail::memory_resource> b(new detail::memory_resource(core, size));
  detail::memory_resource::join(*a, *b);
  return {memory_stream(a), memory_stream(b)};
}

}}  // namespace anyio
