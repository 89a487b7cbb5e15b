// Bytes to be sent, which belong to the caller or to the operation.
//
// A send works on the caller's bytes if possible. It keeps a string that was moved into it. It copies bytes
// in the loop's buffer, which the next receive overwrites, as soon as it has to wait. This part must not know
// how bytes are sent.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/recycler.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"

#include <cstddef>
#include <string>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// A view of the caller's bytes, or bytes that this object owns.
class lent_bytes {
 public:
  lent_bytes() = default;
  explicit lent_bytes(const_buffer view) noexcept : view_(view) {}
  /// Owns a text. The `dropped` bytes before it are no longer needed.
  explicit lent_bytes(std::string&& text, std::size_t dropped = 0)
      : copy_(new copy(std::move(text), dropped)), view_(copy_->text) {}
  lent_bytes(lent_bytes&& other) noexcept = default;
  lent_bytes& operator=(lent_bytes&& other) noexcept = default;

  [[nodiscard]] const_buffer data() const noexcept { return view_; }
  /// Whether this object owns the bytes, or keeps them alive.
  [[nodiscard]] bool keeps() const noexcept { return static_cast<bool>(copy_); }
  void set_view(const_buffer view) noexcept { view_ = view; }
  /// The number of lent bytes before these that are no longer kept.
  [[nodiscard]] std::size_t dropped() const noexcept { return copy_ ? copy_->dropped : 0; }
  void start_over() noexcept {
    if (copy_) copy_->dropped = 0;
  }
  /// If the bytes lie in the loop's buffer, copies those after the first `used` bytes.
  void keep(const loop_core& loop, std::size_t used = 0) {
    if (copy_ || !loop.in_buffer(view_.data())) return;
    const auto* rest = reinterpret_cast<const char*>(view_.data()) + used;
    *this = lent_bytes(std::string(rest, view_.size() - used), used);
  }
  /// Keeps the whole loop buffer unchanged, in place of a copy of the bytes in it.
  void keep_buffer(const loop_core& loop) {
    if (!copy_) copy_.reset(new copy(std::string(), 0));
    if (!copy_->buffer) copy_->buffer = loop.share_buffer();
  }

 private:
  // Allocated separately, so that an operation that sends the caller's bytes stays small.
  struct copy : recycled {
    copy(std::string&& t, std::size_t n) noexcept : text(std::move(t)), dropped(n) {}
    std::string text;
    std::size_t dropped;
    shared<loop_buffer> buffer;
  };
  owned<copy> copy_;
  const_buffer view_;
};

}}}  // namespace anyio::detail
