// Many writers for one stream.
//
// Writers append messages to a queue, and one operation, `run`, sends them in order, many with one call. This
// part must not know what the messages mean, or what kind of stream sends them.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/recycler.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"
#include "operation/synchronization.hpp"
#include "stream/stream.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {
class queue_send_operation;
class queue_flush_operation;
class queue_run_operation;
}  // namespace detail

/// A queue of messages to send on one stream, for several writers: a message is never mixed with another.
/// It can be neither moved nor copied, and must outlive the operations that it returns, which otherwise fail
/// with `closed_resource`. The stream object may be moved.
///
/// `run` has to run, for instance in a `task_group`. While it does, only the queue should send on the stream;
/// `send_eof` is allowed after `flush`.
class send_queue {
 public:
  /// Constructs a queue that holds at most `max_bytes`, or one message that is longer.
  explicit send_queue(byte_stream& to, std::size_t max_bytes = std::size_t{1} << 20)
      : to_(detail::stream_access::resource_of(to)), max_bytes_(max_bytes) {}
  send_queue(const send_queue&) = delete;
  send_queue& operator=(const send_queue&) = delete;
  ~send_queue();

  /// Appends a message and returns true. Returns false, and drops the message, if there is no room, if a
  /// `send` waits for room, or if sending has failed.
  bool try_send(std::string message);
  /// Waits until there is room, and appends the message. Messages are appended in the order of the calls. If
  /// sending has failed, raises that error. A cancelled operation appends nothing.
  [[nodiscard]] detail::queue_send_operation send(std::string message);
  /// Waits until all messages that are in the queue have been sent. Messages appended later are ignored.
  [[nodiscard]] detail::queue_flush_operation flush();
  /// The number of bytes in the queue that have not been sent yet.
  [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(queued_ - sent_); }
  /// Sends what is in the queue, and what is appended later, until an error, for instance `closed_resource`
  /// when the stream is closed. From then on every call of this queue raises that error. If this operation is
  /// cancelled, the queue keeps its messages, and another `run` continues with the next byte.
  [[nodiscard]] detail::queue_run_operation run();

 private:
  friend class detail::queue_send_operation;
  friend class detail::queue_flush_operation;
  friend class detail::queue_run_operation;

  struct item : detail::recycled {
    explicit item(std::string&& t) noexcept : text(std::move(t)) {}
    std::string text;
    item* next = nullptr;
  };
  [[nodiscard]] bool has_room(std::size_t n) const noexcept {
    return queued_ == sent_ || (n <= max_bytes_ && size() <= max_bytes_ - n);
  }
  void append(std::string&& message);
  void drop_sent(std::size_t n) noexcept;
  void fail(error e) noexcept;
  [[nodiscard]] detail::progress send_some(result<void>& out);

  detail::ref<detail::stream_resource> to_;
  std::size_t max_bytes_;
  item* first_ = nullptr;
  item* last_ = nullptr;
  std::size_t sent_of_first_ = 0;
  std::uint64_t queued_ = 0;   // bytes, from the beginning
  std::uint64_t sent_ = 0;     // bytes that the stream took
  std::uint64_t flushed_ = 0;  // bytes that the stream sent, as far as is known
  error failure_;
  detail::wait_line senders_;
  detail::wait_line flushers_;
  detail::wait_line runner_;
};

namespace detail {

/// The operation that `send_queue::send` returns.
class [[nodiscard]] queue_send_operation : public operation<queue_send_operation, void> {
 public:
  static constexpr const char* name = "send";
  queue_send_operation() = default;
  queue_send_operation(send_queue& q, std::string&& text)
      : operation(true), queue_(&q), text_(std::move(text)) {}
  queue_send_operation(queue_send_operation&&) = default;
  queue_send_operation& operator=(queue_send_operation&& other) noexcept;
  ~queue_send_operation() { withdraw(); }

 private:
  friend class operation<queue_send_operation, void>;
  [[nodiscard]] errc enter() {
    queue_->senders_.join(place_, *this);
    return errc::ok;
  }
  bool attempt(result<void>& out);
  void left() noexcept;

  send_queue* queue_ = nullptr;
  std::string text_;
  wait_place place_;
};

/// The operation that `send_queue::flush` returns.
class [[nodiscard]] queue_flush_operation : public operation<queue_flush_operation, void> {
 public:
  static constexpr const char* name = "flush";
  queue_flush_operation() = default;
  explicit queue_flush_operation(send_queue& q) noexcept : operation(true), queue_(&q) {}

 private:
  friend class operation<queue_flush_operation, void>;
  [[nodiscard]] errc enter() {
    queue_->flushers_.join(place_, *this);
    return errc::ok;
  }
  void started();
  bool attempt(result<void>& out);
  void left() noexcept {
    place_.unlink();
    begun_ = false;
  }

  send_queue* queue_ = nullptr;
  std::uint64_t goal_ = 0;
  bool begun_ = false;
  wait_place place_;
};

/// The operation that `send_queue::run` returns.
class [[nodiscard]] queue_run_operation : public operation<queue_run_operation, void> {
 public:
  static constexpr const char* name = "send_queue";
  queue_run_operation() = default;
  explicit queue_run_operation(send_queue& q) noexcept : operation(true), queue_(&q), to_(q.to_) {}
  queue_run_operation(queue_run_operation&&) = default;
  queue_run_operation& operator=(queue_run_operation&& other) noexcept;
  ~queue_run_operation() { withdraw(); }

 private:
  friend class operation<queue_run_operation, void>;
  static constexpr bool attempts_when_awaited = false;
  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] errc enter();
  bool attempt(result<void>& out);
  void left() noexcept;
  [[nodiscard]] loop_core& home() const;
  void refresh() noexcept {
    if (to_) to_->exhausted[write_side] = false;
  }
  [[nodiscard]] int descriptor() const noexcept { return to_ ? to_->descriptor() : -1; }

  send_queue* queue_ = nullptr;
  ref<stream_resource> to_;
  wait_place place_;
};

}  // namespace detail

}}  // namespace anyio
