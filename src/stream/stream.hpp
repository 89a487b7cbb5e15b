// Byte streams: what every one of them can do, and the operations that do it.
//
// The operations are the same for all streams, sockets, memory, buffered or encrypted: each works on the
// stream's resource through a few virtual verbs, and waits there as its reader or its writer. This part
// must not know names, listeners, or any particular kind of stream.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"
#include "stream/lent_bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <sys/uio.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

class socket_stream;

namespace detail {

struct stream_access;

/// Pieces to send in order, and how far it has come.
class outgoing {
 public:
  /// From so many bytes of the first piece on.
  explicit outgoing(std::span<const const_buffer> parts, std::size_t offset = 0) noexcept
      : parts_(parts), offset_(offset) {
    pass();
  }

  [[nodiscard]] bool done() const noexcept { return parts_.empty(); }
  /// Enough pieces were passed for one attempt; then there may be nothing at the front.
  [[nodiscard]] bool rests() const noexcept { return !done() && offset_ >= parts_.front().size(); }
  /// What is left of the first piece, not empty unless done.
  [[nodiscard]] const_buffer front() const noexcept {
    return const_buffer(parts_.front().data() + offset_, parts_.front().size() - offset_);
  }
  [[nodiscard]] std::size_t count() const noexcept { return parts_.size(); }
  /// The n-th piece that is left.
  [[nodiscard]] const_buffer piece(std::size_t n) const noexcept { return n == 0 ? front() : parts_[n]; }
  /// The pieces that are left, as many as one call takes.
  static constexpr std::size_t parts_of_call = 64;
  std::span<const ::iovec> gather(::iovec (&into)[parts_of_call]) const noexcept;
  void advance(std::size_t n) noexcept {
    sent_ += n;
    offset_ += n;
    pass();
  }
  [[nodiscard]] std::size_t sent() const noexcept { return sent_; }
  /// Where another attempt goes on: the pieces that are left, and how many bytes of them went.
  [[nodiscard]] std::span<const const_buffer> parts() const noexcept { return parts_; }
  [[nodiscard]] std::size_t offset() const noexcept { return offset_; }

 private:
  /// Drops what is behind, pieces that are empty too: there may be millions of them.
  void pass() noexcept {
    while (rests() && patience_ != 0) {
      --patience_;
      offset_ -= parts_.front().size();
      parts_ = parts_.subspan(1);
    }
  }
  std::span<const const_buffer> parts_;
  std::size_t offset_ = 0;
  std::size_t sent_ = 0;
  std::uint32_t patience_ = 1024;
};

/// How far a verb of a stream came.
enum class progress : std::uint8_t {
  done,     // there is an outcome
  waiting,  // the resource wakes whoever waits on that side
  again,    // enough for one turn: no event will come
};

/// What a byte stream is to its operations. A verb is called on an open resource only, and by one reader
/// and one writer at a time.
class stream_resource : public resource {
 public:
  using resource::resource;

  virtual progress receive(mutable_buffer into, result<std::size_t>& out) = 0;
  /// At most `max_bytes`, in a place that stays as it is until the loop runs on: the loop's buffer, unless
  /// the stream has another.
  ANYIO_NET_FN virtual progress receive_view(std::size_t max_bytes, result<std::string_view>& out);
  virtual progress send(outgoing& data, result<void>& out) = 0;
  virtual progress send_eof(result<void>& out) = 0;
  /// An orderly end, after `begin_closing` and before `close`: done when the other end has seen it, or is
  /// gone. Waits on the read side.
  virtual progress finish() = 0;

  [[nodiscard]] bool eof_sent() const noexcept { return eof_sent_; }

 protected:
  /// Counts a system call that moved so many bytes, or failed.
  void count_call(ssize_t n) noexcept { core().count_work(n > 0 ? static_cast<std::size_t>(n) : 0); }
  static constexpr std::size_t work_of_part = 256;  // gathered; as if it were so many bytes

  bool eof_sent_ = false;
};

/// Holds bytes that are out of a stream and not yet handed over. If an exception comes between, for want of
/// memory, the stream is closed: nobody may go on behind the gap.
class received_bytes {
 public:
  explicit received_bytes(resource& from) noexcept : from_(&from) {}
  received_bytes(const received_bytes&) = delete;
  received_bytes& operator=(const received_bytes&) = delete;
  ~received_bytes() {
    if (from_ != nullptr) from_->close();
  }
  void handed_over() noexcept { from_ = nullptr; }

 private:
  resource* from_;
};

/// The base of operations on streams: turns progress into an attempt.
template <class Derived, class T, side Side>
class stream_operation : public resource_operation<Derived, T, stream_resource, Side> {
 public:
  using resource_operation<Derived, T, stream_resource, Side>::resource_operation;

 protected:
  /// True when done; otherwise takes another turn or waits.
  bool settle(progress p) noexcept {
    if (p == progress::again) this->again = true;
    return p == progress::done;
  }
};

/// The base of those that receive: while the poller has nothing new, they need not try.
template <class Derived, class T>
class stream_receive : public stream_operation<Derived, T, read_side> {
 public:
  using stream_operation<Derived, T, read_side>::stream_operation;

 protected:
  friend class operation<Derived, T>;

  [[nodiscard]] bool in_vain() const noexcept {
    return this->resource_->poller_tells && this->resource_->exhausted[read_side];
  }
};

}  // namespace detail

/// Into a buffer of the caller's: how many bytes came, at least one.
class [[nodiscard]] receive_operation : public detail::stream_receive<receive_operation, std::size_t> {
 public:
  static constexpr const char* name = "receive";
  receive_operation() = default;
  receive_operation(detail::ref<detail::stream_resource> r, mutable_buffer into)
      : stream_receive(std::move(r)), into_(into) {}

 private:
  friend class detail::operation<receive_operation, std::size_t>;
  friend class detail::resource_operation<receive_operation, std::size_t, detail::stream_resource,
                                          detail::read_side>;

  [[nodiscard]] errc check() const noexcept {
    return into_.empty() ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::size_t>& out) {
    if (!resource_->open()) {
      out = closed();
      return true;
    }
    return settle(resource_->receive(into_, out));
  }
  mutable_buffer into_;
};

/// A view of what came, valid until the caller next waits or returns.
class [[nodiscard]] receive_view_operation
    : public detail::stream_receive<receive_view_operation, std::string_view> {
 public:
  static constexpr const char* name = "receive_view";
  receive_view_operation() = default;
  explicit receive_view_operation(detail::ref<detail::stream_resource> r) : stream_receive(std::move(r)) {}

 private:
  friend class detail::operation<receive_view_operation, std::string_view>;

  bool attempt(result<std::string_view>& out) {
    if (!resource_->open()) {
      out = closed();
      return true;
    }
    return settle(resource_->receive_view(static_cast<std::size_t>(-1), out));
  }
};

/// A string of what came, allocated once it is there.
class [[nodiscard]] receive_string_operation
    : public detail::stream_receive<receive_string_operation, std::string> {
 public:
  static constexpr const char* name = "receive";
  receive_string_operation() = default;
  receive_string_operation(detail::ref<detail::stream_resource> r, std::size_t max_bytes)
      : stream_receive(std::move(r)), max_bytes_(max_bytes) {}

 private:
  friend class detail::operation<receive_string_operation, std::string>;
  friend class detail::resource_operation<receive_string_operation, std::string, detail::stream_resource,
                                          detail::read_side>;

  [[nodiscard]] errc check() const noexcept {
    return max_bytes_ == 0 ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::string>& out) {
    if (!resource_->open()) {
      out = closed();
      return true;
    }
    result<std::string_view> view(errc::cancelled);
    if (!settle(resource_->receive_view(max_bytes_, view))) return false;
    if (view.has_value()) {
      detail::received_bytes bytes(*resource_);
      out = std::string(*view);
      bytes.handed_over();
    } else {
      out = view.error();
    }
    return true;
  }
  std::size_t max_bytes_ = 0;
};

/// All of the bytes. Begins inside `start` or `co_await`, so that a view just received can be given to it.
class [[nodiscard]] send_operation
    : public detail::stream_operation<send_operation, void, detail::write_side> {
 public:
  static constexpr const char* name = "send";
  send_operation() = default;
  send_operation(detail::ref<detail::stream_resource> r, const_buffer data)
      : stream_operation(std::move(r)), bytes_(data) {}
  send_operation(detail::ref<detail::stream_resource> r, std::string&& data)
      : stream_operation(std::move(r)), bytes_(std::move(data)) {}
  send_operation(detail::ref<detail::stream_resource> r, std::span<const const_buffer> parts)
      : stream_operation(std::move(r)), parts_(parts) {}

  /// How many bytes went out, of one that was cancelled or failed too. An operation that was started anew
  /// counts from zero.
  [[nodiscard]] std::size_t sent() const noexcept { return sent_; }
  void keep_loan();

 private:
  friend class detail::operation<send_operation, void>;
  friend class detail::resource_operation<send_operation, void, detail::stream_resource, detail::write_side>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<void>& out);
  void started();
  void left() noexcept;
  bool transfer(result<void>& out);
  detail::progress transfer_parts(result<void>& out);
  [[nodiscard]] detail::outgoing rest_of_parts() const noexcept;

  detail::lent_bytes bytes_;
  // In place of them, if there are any. Then the view says where the next attempt begins, or nothing: with
  // which of the pieces, and how many bytes of it went.
  std::span<const const_buffer> parts_;
  std::size_t sent_ = 0;
  [[no_unique_address]] error outcome_;
  bool over_ = false;     // all happened in `started`, and is yet to be told
  bool restart_ = false;  // the next attempt is the first of a new send
};

/// Half-closes.
class [[nodiscard]] send_eof_operation
    : public detail::stream_operation<send_eof_operation, void, detail::write_side> {
 public:
  static constexpr const char* name = "send_eof";
  send_eof_operation() = default;
  explicit send_eof_operation(detail::ref<detail::stream_resource> r) : stream_operation(std::move(r)) {}

 private:
  friend class detail::operation<send_eof_operation, void>;

  bool attempt(result<void>& out) {
    if (!resource_->open()) {
      out = closed();
      return true;
    }
    return settle(resource_->send_eof(out));
  }
};

/// Closes in order; destroyed, it closes at once.
class [[nodiscard]] aclose_operation
    : public detail::stream_operation<aclose_operation, void, detail::read_side> {
 public:
  static constexpr const char* name = "aclose";
  aclose_operation() = default;
  explicit aclose_operation(detail::ref<detail::stream_resource> r) : stream_operation(std::move(r)) {}
  aclose_operation(aclose_operation&&) = default;
  aclose_operation& operator=(aclose_operation&& other) noexcept;
  ~aclose_operation();

 private:
  friend class detail::operation<aclose_operation, void>;
  friend class detail::resource_operation<aclose_operation, void, detail::stream_resource, detail::read_side>;

  [[nodiscard]] errc check() const noexcept { return made ? errc::ok : errc::invalid_argument; }
  [[nodiscard]] errc enter() noexcept;
  bool attempt(result<void>& out);
  void left() noexcept;
  void start_closing() noexcept;
  void abandon() noexcept;

  bool begun_ = false;
  detail::timer patience_;
};

/// A stream of bytes in both directions: anything in this library that sends and receives them.
///
/// One task may receive and one may send at a time. Destroying it closes it at once. A default-constructed
/// or moved-from stream is closed. While the system is short of memory (ENOBUFS, ENOMEM) an operation waits,
/// with pauses that grow.
class byte_stream {
 public:
  byte_stream(byte_stream&&) noexcept = default;
  byte_stream& operator=(byte_stream&& other) noexcept;
  ANYIO_NET_FN virtual ~byte_stream();

  /// Whether it is open at this end.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }

  /// At least one byte, at most as many as there is room for. At the end raises `end_of_stream`.
  [[nodiscard]] receive_operation receive(mutable_buffer into) { return {resource_, into}; }
  /// Receives a string of at least one byte and at most 64 KiB, which is allocated only once bytes are there.
  /// If there is no memory for it, they are lost, and the stream is closed.
  [[nodiscard]] receive_string_operation receive(std::size_t max_bytes = 65536) {
    return {resource_, max_bytes};
  }
  /// The same without a copy: a view that is valid until the caller next waits or returns. It may be handed
  /// to one send made before that.
  [[nodiscard]] receive_view_operation receive_view() { return receive_view_operation(resource_); }

  /// All of it. The bytes stay the caller's, and must stay, until it has completed; a string given as an
  /// rvalue is kept.
  [[nodiscard]] send_operation send(const_buffer data) { return {resource_, data}; }
  template <detail::string_rvalue S>
  [[nodiscard]] send_operation send(S&& data) {
    return {resource_, std::move(data)};
  }
  /// All pieces in order, in one system call where possible. The array must stay, too.
  [[nodiscard]] send_operation send(std::span<const const_buffer> parts) { return {resource_, parts}; }
  /// Ends this direction; the other end receives `end_of_stream` behind what was sent. Again is a no-op.
  [[nodiscard]] send_eof_operation send_eof() { return send_eof_operation(resource_); }

  /// Closes so that the other end gets all that was sent: what it still sends is discarded, for at most a
  /// second. Never fails because of the other end. What waits on this stream ends with `closed_resource`.
  [[nodiscard]] aclose_operation aclose() { return aclose_operation(resource_); }
  /// Closes at once; calling it again has no effect. What waits ends with `closed_resource`. What was sent
  /// may be lost if the peer sends something that is not received, as TLS 1.3 servers do by themselves:
  /// `aclose` loses nothing.
  ///
  /// If the program has set SO_LINGER with a time, this and the destructor block the loop until the data has
  /// gone or the time is over (socket(7)).
  void close() noexcept {
    if (resource_) resource_->close();
  }
  /// The innermost socket, or null.
  [[nodiscard]] virtual socket_stream* socket() noexcept = 0;

 protected:
  friend struct detail::stream_access;
  byte_stream() = default;
  explicit byte_stream(detail::ref<detail::stream_resource> r) noexcept : resource_(std::move(r)) {}

  detail::ref<detail::stream_resource> resource_;
};

namespace detail {

/// For the parts that make streams, or stand on one.
struct stream_access {
  static const ref<stream_resource>& resource_of(const byte_stream& s) noexcept { return s.resource_; }
};

}  // namespace detail

}}  // namespace anyio
