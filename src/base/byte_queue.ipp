// The memory of a byte queue.
#pragma once

#include "base/byte_queue.hpp"
#include "base/standard.hpp"

#include <bit>
#include <cstring>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Moves the content so that `front` free bytes come before it, in memory of at least this capacity.
ANYIO_NET_FN void byte_queue::rearrange(std::size_t front, std::size_t capacity) {
  const std::size_t used = size();
  if (capacity > capacity_) {
    const std::size_t larger = std::bit_ceil(std::max(capacity, least));
    auto* const memory = static_cast<std::byte*>(detail::recycler::allocate_bytes(larger));
    if (used != 0) std::memcpy(memory + front, memory_ + begin_, used);
    release();
    memory_ = memory;
    capacity_ = larger;
  } else if (used != 0) {
    std::memmove(memory_ + front, memory_ + begin_, used);
  }
  begin_ = front;
  end_ = front + used;
}

ANYIO_NET_FN void byte_queue::release() noexcept {
  if (memory_ != nullptr) detail::recycler::deallocate_bytes(memory_, capacity_);
  memory_ = nullptr;
  capacity_ = begin_ = end_ = 0;
}

ANYIO_NET_FN mutable_buffer byte_queue::prepare(std::size_t at_least) {
  if (capacity_ - end_ < at_least) rearrange(0, size() + at_least);
  return mutable_buffer(memory_ + end_, capacity_ - end_);
}

ANYIO_NET_FN void byte_queue::append(const_buffer bytes) {
  if (bytes.empty()) return;
  std::memcpy(prepare(bytes.size()).data(), bytes.data(), bytes.size());
  commit(bytes.size());
}

ANYIO_NET_FN void byte_queue::put_back(const_buffer bytes) {
  if (bytes.empty()) return;
  if (begin_ < bytes.size()) rearrange(bytes.size(), size() + bytes.size());
  begin_ -= bytes.size();
  std::memcpy(memory_ + begin_, bytes.data(), bytes.size());
}

ANYIO_NET_FN void byte_queue::consume(std::size_t n) noexcept {
  begin_ += n;
  if (begin_ != end_) return;
  begin_ = end_ = 0;
  if (detail::recycler::recycles_bytes(capacity_) || capacity_ > kept_limit) release();
}

}}  // namespace anyio
