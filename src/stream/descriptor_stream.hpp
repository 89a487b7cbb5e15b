// Byte streams on a descriptor of their own, which is in the poller as long as the stream is open. This part
// must not know what kind of descriptor it is.
#pragma once

#include "base/config.hpp"
#include "loop/loop.hpp"
#include "stream/stream.hpp"
#include "system/backend.hpp"

#include <cerrno>
#include <utility>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

class descriptor_resource : public stream_resource {
 public:
  ~descriptor_resource() override { close(); }

  [[nodiscard]] int descriptor() const noexcept override { return registration_.fd; }
  int release(bool restore) noexcept;
  /// Whether a call that returned `n` found nothing to do, or no memory, which leaves the stream as it is.
  /// Then the waiting operation is woken when it may try again.
  [[nodiscard]] bool must_wait(side s, ssize_t n) noexcept {
    if (n >= 0) return false;
    if (n == -EAGAIN) {
      exhausted[s] = true;
      return true;
    }
    if (!is_shortage(n)) return false;
    core().wait_for_memory(short_of_memory_, *this);
    return true;
  }
  /// Whether the descriptor was blocking when it was taken over.
  bool was_blocking = false;

 protected:
  /// Takes over the descriptor, unless it cannot be watched: then it stays the caller's. 0 or a negative
  /// errno.
  descriptor_resource(loop_core& core, int fd, int& status) : stream_resource(core) {
    registration_.fd = fd;
    status = core.watch(registration_, *this);
    if (status < 0) registration_.fd = -1;
  }

  registration registration_;

 private:
  void shut() noexcept override { core().forget(registration_); }

  starved short_of_memory_;
};

}  // namespace detail

/// A byte stream that has a descriptor.
class descriptor_stream : public byte_stream {
 public:
  /// The descriptor, which this stream still owns; -1 if closed.
  [[nodiscard]] int native_handle() const noexcept { return resource_ ? resource_->descriptor() : -1; }
  /// Releases the open descriptor to the caller, who then owns it. Pending operations end with
  /// `closed_resource`.
  ///
  /// The descriptor stays non-blocking (O_NONBLOCK), which blocking code and other programs may not expect.
  /// With `restore`, a descriptor that was blocking when `from_fd` took it over becomes blocking again.
  [[nodiscard]] int release(bool restore = false) noexcept;

 protected:
  descriptor_stream() = default;
  explicit descriptor_stream(detail::ref<detail::descriptor_resource> r) noexcept
      : byte_stream(std::move(r)) {}
};

}}  // namespace anyio
