// Bytes to be sent, the caller's or one's own.
//
// A send works on the caller's bytes while it can. A string that was given away it keeps, and what lies in
// the loop's buffer, which the next receive overwrites, it copies as soon as it has to wait. This part must
// not know how bytes are sent.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/recycler.hpp"
#include "loop/loop.hpp"

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// A view of the caller's bytes, or bytes of one's own.
class lent_bytes {
 public:
  lent_bytes() = default;
  explicit lent_bytes(const_buffer view) noexcept : view_(view) {}
  /// A text that follows `dropped` bytes which are of no more use.
  explicit lent_bytes(std::string&& text, std::size_t dropped = 0)
      : owned_(new owned(std::move(text), dropped)), view_(owned_->text) {}
  lent_bytes(lent_bytes&& other) noexcept = default;
  lent_bytes& operator=(lent_bytes&& other) noexcept = default;

  [[nodiscard]] const_buffer data() const noexcept { return view_; }
  void set_view(const_buffer view) noexcept { view_ = view; }
  /// How many of the bytes that were lent are no longer in front of these.
  [[nodiscard]] std::size_t dropped() const noexcept { return owned_ ? owned_->dropped : 0; }
  void start_over() noexcept {
    if (owned_) owned_->dropped = 0;
  }
  /// If they lie in the loop's buffer, copies those behind the first `used`.
  void keep(const loop_core& loop, std::size_t used = 0) {
    if (owned_ || !loop.in_buffer(view_.data())) return;
    const auto* rest = reinterpret_cast<const char*>(view_.data()) + used;
    *this = lent_bytes(std::string(rest, view_.size() - used), used);
  }
  /// Keeps the loop's buffer as it is, in place of a copy of what lies there.
  void keep_buffer(const loop_core& loop) {
    if (!owned_) owned_.reset(new owned(std::string(), 0));
    if (!owned_->buffer) owned_->buffer = loop.share_buffer();
  }

 private:
  // In a place of its own, so that who sends the caller's bytes stays small.
  struct owned : recycled {
    owned(std::string&& t, std::size_t n) noexcept : text(std::move(t)), dropped(n) {}
    std::string text;
    std::size_t dropped;
    std::shared_ptr<const void> buffer;
  };
  std::unique_ptr<owned> owned_;
  const_buffer view_;
};

}}}  // namespace anyio::detail
