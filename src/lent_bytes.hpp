// Bytes to be sent, the caller's or one's own.
//
// A send works on the caller's bytes while it can. A string that was given away it keeps, and what lies in
// the loop's buffer, which the next receive overwrites, it copies as soon as it has to wait. This part must
// not know how bytes are sent.
#pragma once

#include "buffer.hpp"
#include "config.hpp"
#include "loop.hpp"

#include <cstddef>
#include <string>
#include <utility>

namespace anyio::inline ANYIO_NET_ABI::detail {

/// A view of the caller's bytes, or bytes of one's own, and how far they are used up.
class lent_bytes {
 public:
  lent_bytes() = default;
  explicit lent_bytes(const_buffer view) noexcept : view_(view) {}
  explicit lent_bytes(std::string&& text) noexcept : owned_(std::move(text)), view_(owned_), owns_(true) {}
  lent_bytes(lent_bytes&& other) noexcept { take(other); }
  lent_bytes& operator=(lent_bytes&& other) noexcept {
    if (this != &other) take(other);
    return *this;
  }

  /// What is left.
  [[nodiscard]] const_buffer data() const noexcept { return view_; }
  /// Drops the first `n` bytes; `n` is at most the size of what is left.
  void advance(std::size_t n) noexcept { view_.remove_prefix(n); }
  /// Copies what is left, if it lies in the loop's buffer.
  void keep(const loop_core& loop) {
    if (owns_ || !loop.in_buffer(view_.data())) return;
    owned_.assign(reinterpret_cast<const char*>(view_.data()), view_.size());
    view_ = owned_;
    owns_ = true;
  }

 private:
  // A short string lies inside its object, so a moved one is looked for anew.
  void take(lent_bytes& other) noexcept {
    const std::size_t used = other.owns_ ? static_cast<std::size_t>(other.view_.data() - other.begin()) : 0;
    owns_ = std::exchange(other.owns_, false);
    view_ = std::exchange(other.view_, const_buffer());
    owned_ = std::move(other.owned_);
    if (owns_) view_ = const_buffer(owned_.data() + used, view_.size());
  }
  [[nodiscard]] const std::byte* begin() const noexcept {
    return reinterpret_cast<const std::byte*>(owned_.data());
  }

  std::string owned_;
  const_buffer view_;
  bool owns_ = false;
};

}  // namespace anyio::inline ANYIO_NET_ABI::detail
