// A queue of bytes: appended at the end, consumed from the front.
//
// The queue allocates memory when bytes arrive and returns it to the recycler when no bytes are left, so that
// a waiting reader holds no memory. This part must not know where the bytes come from.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/recycler.hpp"

#include <cstddef>
#include <span>
#include <string_view>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// A queue of bytes in one contiguous block of memory. Its size is limited only by the available memory.
class byte_queue {
 public:
  byte_queue() = default;
  byte_queue(const byte_queue&) = delete;
  byte_queue& operator=(const byte_queue&) = delete;
  ~byte_queue() { release(); }

  /// Copies bytes to the end.
  void append(const_buffer bytes);
  /// All bytes of the queue, in order; valid until the next call that is not const.
  [[nodiscard]] std::span<const std::byte> data() const noexcept { return {memory_ + begin_, size()}; }
  /// All bytes of the queue as text; valid until the next call that is not const.
  [[nodiscard]] std::string_view view() const noexcept {
    return {reinterpret_cast<const char*>(memory_) + begin_, size()};
  }
  /// How many bytes the queue holds.
  [[nodiscard]] std::size_t size() const noexcept { return end_ - begin_; }
  /// Whether the queue holds no bytes.
  [[nodiscard]] bool empty() const noexcept { return begin_ == end_; }
  /// Removes the first `n` bytes; `n` is at most `size()`.
  void consume(std::size_t n) noexcept;

  /// Returns room for at least this many bytes at the end; `commit` then says how many were written there.
  [[nodiscard]] mutable_buffer prepare(std::size_t at_least);
  /// Adds the first `n` bytes of the room that `prepare` returned to the queue.
  void commit(std::size_t n) noexcept { end_ += n; }
  /// Copies bytes to the front.
  void put_back(const_buffer bytes);
  /// Releases the memory if the queue is empty.
  void trim() noexcept {
    if (empty()) release();
  }
  /// Whether the queue holds memory; an empty queue may hold none.
  [[nodiscard]] bool has_memory() const noexcept { return memory_ != nullptr; }

  static constexpr std::size_t least = 4096;        ///< the recycler's largest size class
  static constexpr std::size_t kept_limit = 65536;  ///< larger memory is freed once the queue is empty

 private:
  void rearrange(std::size_t front, std::size_t capacity);
  void release() noexcept;

  std::byte* memory_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}}  // namespace anyio
