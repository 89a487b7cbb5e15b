// Descriptors that come through a buffered stream.
//
// On Linux one read may end with a message that brought descriptors, and begin with bytes that were sent
// before it. Looking at the bytes without room for descriptors tells whether there is such a message
// (MSG_CTRUNC), but not where it begins: a look at fewer bytes goes on to it too. So a read takes only what
// the reader wants while there is one. If a reader that wanted more was given up, its bytes stay in the
// buffer, and the descriptors of a message among them are given with the first of these bytes.
#pragma once

#include "base/exchange.hpp"
#include "base/owned.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"
#include "stream/buffered.hpp"
#include "stream/fd_passing.hpp"

#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

class unix_fd_keeper final : public fd_keeper {
 public:
  unix_fd_keeper(ref<socket_resource> from, std::size_t max_fds)
      : from_(std::move(from)), max_fds_(max_fds) {}
  ~unix_fd_keeper() override {
    while (first_ != nullptr) delete detail::exchange(first_, first_->next);
  }

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  /// Moves the descriptors that came with or before the first `taken` bytes to the caller.
  std::vector<unique_fd> take(std::uint64_t taken);

 private:
  /// The descriptors of one read.
  struct batch : recycled {
    std::vector<unique_fd> fds;
    std::uint64_t before = 0;  // how many bytes arrived before theirs
    batch* next = nullptr;
  };
  [[nodiscard]] ssize_t limit_read(mutable_buffer into, std::size_t& size, bool& more);
  progress receive_limited(mutable_buffer into, result<std::size_t>& out);

  ref<socket_resource> from_;
  std::size_t max_fds_;
  std::size_t kept_ = 0;  // descriptors
  batch* first_ = nullptr;
  batch* last_ = nullptr;
  detail::owned<batch> came_;  // room for the next read
  bool failed_ = false;
};

/// Finds the number of bytes to read next, and whether more may follow them. If no descriptors are there,
/// reads only bytes that are there already: more of them might come with descriptors. Returns 1, or what a
/// failed read returns.
ANYIO_NET_FN ssize_t unix_fd_keeper::limit_read(mutable_buffer into, std::size_t& size, bool& more) {
  size = into.size();
  more = true;
#if defined(__linux__)
  if (wanted == 0 && last_wanted < 0) return 1;
  const ::iovec part{into.data(), into.size()};
  message m{slice(&part, 1)};
  m.peek = true;
  const ssize_t n = from_->core().system().receive_message(from_->descriptor(), m);
  from_->core().count_work(0);
  if (n <= 0) return n;
  size = static_cast<std::size_t>(n);
  more = (m.flags & MSG_CTRUNC) != 0;
  if (!more) return 1;
  if (last_wanted < 0) {
    if (wanted < size) size = wanted;
  } else if (const void* end = std::memchr(into.data(), last_wanted, size)) {
    size = static_cast<std::size_t>(static_cast<const std::byte*>(end) - into.data()) + 1;
  }
#endif  // elsewhere a read stops before the message by itself
  return 1;
}

ANYIO_NET_FN progress unix_fd_keeper::receive(mutable_buffer into, result<std::size_t>& out) {
  const progress p = receive_limited(into, out);
  wanted = 0;
  last_wanted = -1;
  return p;
}

ANYIO_NET_FN progress unix_fd_keeper::receive_limited(mutable_buffer into, result<std::size_t>& out) {
  const auto truncated = [&] {
    failed_ = true;
    return complete<progress::done>(out, error(errc::fds_truncated, 0, "receive"));
  };
  if (failed_) return truncated();
  socket_resource& from = *from_;
  if (from.ended()) return complete<progress::done>(out, from.end_of_reading(0, "receive"));
  if (from.exhausted[read_side]) return progress::waiting;
  if (into.size() > loop_core::most_of_call) into = mutable_buffer(into.data(), loop_core::most_of_call);
  if (came_ == nullptr) came_.reset(new batch);  // now, so that lack of memory loses none
  came_->fds.reserve(max_fds_ < max_fds_of_message ? max_fds_ : max_fds_of_message);
  std::size_t size;
  bool more;
  const ssize_t there = limit_read(into, size, more);
  if (from.must_wait(read_side, there)) return progress::waiting;
  if (there <= 0)
    return complete<progress::done>(out, from.end_of_reading(static_cast<int>(-there), "receive"));
  const progress p = receive_with_fds(from, mutable_buffer(into.data(), size), more ? size : into.size(),
                                      "receive", came_->fds, out);
  if (p != progress::done) return p;
  const std::size_t count = came_->fds.size();
  if (out.has_value() ? count > max_fds_ - kept_ : out.error() == errc::fds_truncated) {
    came_.reset();
    return truncated();
  }
  if (!out.has_value()) return p;
  if (count != 0) {
    batch* const added = came_.release();
    added->before = arrived;
    (first_ == nullptr ? first_ : last_->next) = added;
    last_ = added;
    kept_ += count;
  }
  arrived += *out;
  return p;
}

ANYIO_NET_FN std::vector<unique_fd> unix_fd_keeper::take(std::uint64_t taken) {
  std::size_t count = 0;
  for (const batch* b = first_; b != nullptr && b->before < taken; b = b->next) count += b->fds.size();
  std::vector<unique_fd> fds;
  fds.reserve(count);
  while (first_ != nullptr && first_->before < taken) {
    for (unique_fd& fd : first_->fds) fds.push_back(std::move(fd));
    delete detail::exchange(first_, first_->next);
  }
  kept_ -= count;
  return fds;
}

}  // namespace detail

ANYIO_NET_FN buffered_stream::buffered_stream(unix_stream& inner, std::size_t max_fds) {
  const auto& r = detail::stream_access::resource_of(inner);
  if (!r) return;
  detail::owned<detail::fd_keeper> keeper(new detail::unix_fd_keeper(
      detail::ref<detail::socket_resource>(static_cast<detail::socket_resource*>(r.get())), max_fds));
  resource_ = detail::ref<detail::stream_resource>(
      new detail::buffered_resource(r, inner, nullptr, std::move(keeper)));
}

ANYIO_NET_FN std::vector<unique_fd> buffered_stream::take_fds() {
  if (!resource_) return {};
  const detail::buffered_resource& r = *own();
  if (r.keeper == nullptr) return {};
  auto& keeper = static_cast<detail::unix_fd_keeper&>(*r.keeper);
  return keeper.take(keeper.arrived - r.bytes.size());
}

}}  // namespace anyio
