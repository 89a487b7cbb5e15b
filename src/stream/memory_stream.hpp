// Two connected ends in memory, for tests of what runs over a byte stream.
//
// Each end has a ring of what it has yet to receive, made when the first byte comes; the other end's sends
// copy into it and wait while it is full. Views go through the loop's buffer, like those of sockets, so
// that they may be sent on and outlive the stream. This part must not know the system: nothing here can
// fail but by the other end.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "stream/stream.hpp"

#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// One end: what is on its way to it, and the other end.
class memory_resource final : public stream_resource {
 public:
  memory_resource(loop_core& core, std::size_t capacity) noexcept
      : stream_resource(core), capacity_(capacity) {}
  ~memory_resource() override { part(); }

  static void join(memory_resource& a, memory_resource& b) noexcept {
    a.peer_ = &b;
    b.peer_ = &a;
  }

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress receive_view(std::size_t max_bytes, result<std::string_view>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  ANYIO_NET_FN progress finish() override;

 private:
  ANYIO_NET_FN void shut() noexcept override;
  /// Leaves the other end alone: it gets what it has yet to receive, and can send no more.
  void part() noexcept;
  /// As much as lies here; then whoever waits for room is let on.
  std::size_t take(mutable_buffer into) noexcept;
  /// As much as there is room for.
  std::size_t put(const_buffer bytes);

  memory_resource* peer_ = nullptr;  // null once it is closed
  std::unique_ptr<std::byte[]> ring_;
  std::size_t capacity_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

}  // namespace detail

/// One end of a connection in memory. It behaves as a connected socket does: what was sent before the other
/// end closed is received first, then `end_of_stream`; a send to a closed end is `broken_resource` with
/// EPIPE. Nothing is lost by closing, so `aclose` waits for nobody.
class memory_stream : public byte_stream {
 public:
  memory_stream() = default;

  [[nodiscard]] socket_stream* socket() noexcept override { return nullptr; }

 private:
  friend std::pair<memory_stream, memory_stream> create_memory_stream_pair(std::size_t capacity);
  explicit memory_stream(detail::ref<detail::stream_resource> r) noexcept : byte_stream(std::move(r)) {}
};

/// Two connected ends on this thread's loop. A send waits while `capacity` bytes (at least one) have not been
/// received by the other end; an idle stream holds no memory for them.
[[nodiscard]] std::pair<memory_stream, memory_stream> create_memory_stream_pair(std::size_t capacity = 65536);

}}  // namespace anyio
