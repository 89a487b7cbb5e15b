// Two connected ends in memory, for tests of code that runs over a byte stream.
//
// Each end has a ring of the bytes that it has yet to receive, allocated when the first byte arrives. Sends
// of the other end copy into the ring and wait while it is full. Views go through the loop's buffer, like
// those of sockets, so that they may be sent on and outlive the stream. This part must not know the system:
// an operation here can fail only because of the other end.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/result.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "stream/stream.hpp"

#include <cstddef>
#include <string_view>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// One end: the bytes on their way to it, and a pointer to the other end.
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
  /// Disconnects the two ends. The other end still receives the bytes sent to it, and can no longer send.
  void part() noexcept;
  /// Takes as many bytes as are available and fit; then wakes the peer's sender.
  std::size_t take(mutable_buffer into) noexcept;
  /// Copies in as many bytes as there is room for.
  std::size_t put(const_buffer bytes);

  memory_resource* peer_ = nullptr;  // null once either end is closed
  owned<std::byte[]> ring_;
  std::size_t capacity_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

}  // namespace detail

/// One end of a connection in memory. It behaves as a connected socket does. Bytes that were sent before the
/// other end closed are received first, then `end_of_stream`. A send to a closed end fails with
/// `broken_resource` and EPIPE. Closing loses no bytes, so `aclose` does not wait.
class memory_stream : public byte_stream {
 public:
  memory_stream() = default;

  [[nodiscard]] socket_stream* socket() noexcept override { return nullptr; }

 private:
  friend std::pair<memory_stream, memory_stream> create_memory_stream_pair(std::size_t capacity);
  explicit memory_stream(detail::ref<detail::stream_resource> r) noexcept : byte_stream(std::move(r)) {}
};

/// Creates two connected ends on this thread's loop. A send waits while the other end has `capacity` bytes
/// (at least one) yet to receive. No memory is allocated for them before the first byte is sent.
[[nodiscard]] std::pair<memory_stream, memory_stream> create_memory_stream_pair(std::size_t capacity = 65536);

}}  // namespace anyio
