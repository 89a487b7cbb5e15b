// Bytes in order: put in at the end, taken from the front.
//
// The room for them is made when bytes come and goes back to the recycler when none are left, so that whoever
// waits holds no memory. This part must not know where the bytes come from.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/recycler.hpp"

#include <cstddef>
#include <span>
#include <string_view>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// A queue of bytes in one piece of memory. Takes as much as there is memory for.
class byte_queue {
 public:
  byte_queue() = default;
  byte_queue(const byte_queue&) = delete;
  byte_queue& operator=(const byte_queue&) = delete;
  ~byte_queue() { release(); }

  /// Copies bytes to the end.
  void append(const_buffer bytes);
  /// All of them, in order; valid until the next call that is not const.
  [[nodiscard]] std::span<const std::byte> data() const noexcept { return {memory_ + begin_, size()}; }
  /// The same as text.
  [[nodiscard]] std::string_view view() const noexcept {
    return {reinterpret_cast<const char*>(memory_) + begin_, size()};
  }
  /// How many bytes it holds.
  [[nodiscard]] std::size_t size() const noexcept { return end_ - begin_; }
  /// Whether it holds none.
  [[nodiscard]] bool empty() const noexcept { return begin_ == end_; }
  /// Drops so many, at most `size()`, from the front.
  void consume(std::size_t n) noexcept;

  /// Room for at least so many bytes at the end; `commit` says how many were put there.
  [[nodiscard]] mutable_buffer prepare(std::size_t at_least);
  /// So many of what `prepare` gave now belong to the queue.
  void commit(std::size_t n) noexcept { end_ += n; }
  /// Copies bytes to the front.
  void put_back(const_buffer bytes);
  /// Gives back room that holds nothing.
  void trim() noexcept {
    if (empty()) release();
  }
  /// Whether it holds memory, which an idle one need not.
  [[nodiscard]] bool has_memory() const noexcept { return memory_ != nullptr; }

  static constexpr std::size_t least = 4096;        ///< the recycler's largest size class
  static constexpr std::size_t kept_limit = 65536;  ///< one that has grown beyond is freed once it is empty

 private:
  void rearrange(std::size_t front, std::size_t capacity);
  void release() noexcept;

  std::byte* memory_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}}  // namespace anyio
