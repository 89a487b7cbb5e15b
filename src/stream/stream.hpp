// Byte streams: their common interface, and its operations.
//
// The operations are common to all streams: sockets, memory, buffered or encrypted. Each operation works on
// the stream's resource through a few virtual verbs, and waits there as the reader or the writer. This part
// must not know names, listeners, or any particular kind of stream.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/result.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "operation/resource_operation.hpp"
#include "stream/lent_bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <sys/uio.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

class socket_stream;

namespace detail {

struct stream_access;

/// Pieces to send in order, and the progress of the send.
class outgoing {
 public:
  /// Begins after the first `offset` bytes of the first piece.
  explicit outgoing(std::span<const const_buffer> parts, std::size_t offset = 0) noexcept
      : parts_(parts), offset_(offset) {
    pass();
  }

  [[nodiscard]] bool done() const noexcept { return parts_.empty(); }
  /// Whether enough pieces were passed for one attempt; then there may be nothing at the front.
  [[nodiscard]] bool rests() const noexcept { return !done() && offset_ >= parts_.front().size(); }
  /// The rest of the first piece; not empty unless done.
  [[nodiscard]] const_buffer front() const noexcept {
    return const_buffer(parts_.front().data() + offset_, parts_.front().size() - offset_);
  }
  [[nodiscard]] std::size_t count() const noexcept { return parts_.size(); }
  /// The n-th piece that is left.
  [[nodiscard]] const_buffer piece(std::size_t n) const noexcept { return n == 0 ? front() : parts_[n]; }
  /// The largest number of pieces that one call takes.
  static constexpr std::size_t parts_of_call = 64;
  /// The pieces that are left, as many as one call takes.
  slice<const ::iovec> gather(::iovec (&into)[parts_of_call]) const noexcept;
  void advance(std::size_t n) noexcept {
    sent_ += n;
    offset_ += n;
    pass();
  }
  [[nodiscard]] std::size_t sent() const noexcept { return sent_; }
  /// Where another attempt continues: the pieces that are left, and how many bytes of the first were sent.
  [[nodiscard]] std::span<const const_buffer> parts() const noexcept { return parts_; }
  [[nodiscard]] std::size_t offset() const noexcept { return offset_; }

 private:
  /// Drops pieces that were sent, and empty pieces too: there may be millions of them.
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

/// The progress that a verb of a stream made.
enum class progress : std::uint8_t {
  done,     // there is an outcome
  waiting,  // the resource wakes the operation that waits on that side
  again,    // enough for one turn; the operation must try again, since no event will come
};

/// A byte stream as its operations see it. A verb is called only on an open resource, and by one reader and
/// one writer at a time.
class stream_resource : public resource {
 public:
  using resource::resource;

  virtual progress receive(mutable_buffer into, result<std::size_t>& out) = 0;
  /// Receives at most `max_bytes` into memory that stays unchanged until the loop continues: the loop's
  /// buffer, unless the stream has another buffer.
  ANYIO_NET_FN virtual progress receive_view(std::size_t max_bytes, result<std::string_view>& out);
  virtual progress send(outgoing& data, result<void>& out) = 0;
  /// One try to send one piece, without the state that `send` needs. Returns the number of bytes sent, or a
  /// negative errno, which `failed_send` turns into an outcome. 0 means that only `send` can tell.
  virtual ssize_t send_now(const_buffer) { return 0; }
  /// The outcome of a `send_now` that returned an errno.
  virtual progress failed_send(ssize_t, result<void>&) { return progress::waiting; }
  virtual progress send_eof(result<void>& out) = 0;
  /// Ends the stream in order, after `begin_closing` and before `close`. It is done when the peer has seen
  /// the end, or is gone. Waits on the read side.
  virtual progress finish() = 0;

  [[nodiscard]] bool eof_sent() const noexcept { return eof_sent_; }

 protected:
  /// Counts a system call that moved `n` bytes, or failed.
  void count_call(ssize_t n) noexcept { core().count_work(n > 0 ? static_cast<std::size_t>(n) : 0); }
  static constexpr std::size_t work_of_part = 256;  // a gathered piece counts as so many bytes

  bool eof_sent_ = false;
};

/// Guards bytes that were taken from a stream and not yet passed on. If an exception occurs before that, for
/// lack of memory, the stream is closed: no read may continue after the lost bytes.
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

/// The base of operations on streams. It turns the progress of a verb into the result of an attempt.
template <class Derived, class T, side Side>
class stream_operation : public resource_operation<Derived, T, stream_resource, Side> {
 public:
  using resource_operation<Derived, T, stream_resource, Side>::resource_operation;

 protected:
  /// True when done. Otherwise the operation takes another turn or waits.
  bool settle(progress p) noexcept {
    if (p == progress::again) this->again = true;
    return p == progress::done;
  }
};

/// The base of operations that receive. While the poller reports nothing new, they make no attempt.
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

/// Receives into the caller's buffer, and returns the number of bytes, at least one.
class ANYIO_NET_LAZY receive_operation : public detail::stream_receive<receive_operation, std::size_t> {
 public:
  static constexpr const char* name = "receive";
  receive_operation() = default;
  receive_operation(detail::ref<detail::stream_resource> r, mutable_buffer into)
      : stream_receive(std::move(r)), into_(into) {}

 private:
  friend class detail::operation<receive_operation, std::size_t>;

  [[nodiscard]] errc check() const noexcept {
    return into_.empty() ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::size_t>& out) { return settle(resource_->receive(into_, out)); }
  mutable_buffer into_;
};

/// Returns a view of the received bytes, valid until the caller next waits or returns.
class ANYIO_NET_LAZY receive_view_operation
    : public detail::stream_receive<receive_view_operation, std::string_view> {
 public:
  static constexpr const char* name = "receive_view";
  receive_view_operation() = default;
  explicit receive_view_operation(detail::ref<detail::stream_resource> r) : stream_receive(std::move(r)) {}

 private:
  friend class detail::operation<receive_view_operation, std::string_view>;

  bool attempt(result<std::string_view>& out) {
    return settle(resource_->receive_view(static_cast<std::size_t>(-1), out));
  }
};

/// Returns a string of the received bytes, allocated only once they have arrived.
class ANYIO_NET_LAZY receive_string_operation
    : public detail::stream_receive<receive_string_operation, std::string> {
 public:
  static constexpr const char* name = "receive";
  receive_string_operation() = default;
  receive_string_operation(detail::ref<detail::stream_resource> r, std::size_t max_bytes)
      : stream_receive(std::move(r)), max_bytes_(max_bytes) {}

 private:
  friend class detail::operation<receive_string_operation, std::string>;

  [[nodiscard]] errc check() const noexcept {
    return max_bytes_ == 0 ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::string>& out) {
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

/// Sends all of the bytes. It begins inside `start` or `co_await`, so that a view just received can be sent.
class ANYIO_NET_LAZY send_operation
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

  /// The number of bytes sent, also by an operation that was cancelled or failed. An operation that was
  /// started again counts from zero.
  [[nodiscard]] std::size_t sent() const noexcept { return sent_; }
  void keep_loan();

 private:
  friend class detail::operation<send_operation, void>;

  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] std::uint32_t bytes_so_far() const noexcept { return detail::description::count(sent_); }
  bool attempt(result<void>& out);
  bool attempt_at_once(result<void>& out) {
    const ssize_t n = send_whole();
    if (n == whole) [[likely]]
      return detail::result_access::succeed(out);
    return transfer_rest(n, out);
  }
  void started() {
    const ssize_t n = send_whole();
    if (n == whole) [[likely]]
      return found_.set_done();
    begin_rest(n);
  }
  [[nodiscard]] bool reports(result<void>& out) const noexcept {
    return found_.is_set() && resource_->open() && found_.get(out);
  }
  void left() noexcept {
    found_.clear();
    restart_ = true;
  }
  static constexpr ssize_t whole = std::numeric_limits<ssize_t>::max();
  /// One try to send all of one piece, as most sends do. Returns `whole`, or what `send_now` returned.
  ssize_t send_whole() {
    if (restart_ || sent_ != 0 || !parts_.empty() || bytes_.keeps()) return 0;
    const const_buffer piece = bytes_.data();
    const ssize_t n = resource_->send_now(piece);
    if (n <= 0) return n;
    sent_ = static_cast<std::size_t>(n);
    return sent_ == piece.size() ? whole : 0;
  }
  void begin_rest(ssize_t status);
  bool transfer_rest(ssize_t status, result<void>& out);
  detail::progress transfer_piece(result<void>& out);
  detail::progress transfer_parts(result<void>& out);
  [[nodiscard]] detail::outgoing rest_of_parts() const noexcept;

  detail::lent_bytes bytes_;
  // The pieces, if any, replace `bytes_`. Then the view in `bytes_` says where the next attempt begins: its
  // data points to the first piece that is left, and its size is the number of bytes of that piece that were
  // sent. A null view means the beginning.
  std::span<const const_buffer> parts_;
  std::size_t sent_ = 0;
  [[no_unique_address]] detail::found_outcome found_;
  bool restart_ = false;  // the next attempt is the first of a new send
};

/// Half-closes the stream.
class ANYIO_NET_LAZY send_eof_operation
    : public detail::stream_operation<send_eof_operation, void, detail::write_side> {
 public:
  static constexpr const char* name = "send_eof";
  send_eof_operation() = default;
  explicit send_eof_operation(detail::ref<detail::stream_resource> r) : stream_operation(std::move(r)) {}

 private:
  friend class detail::operation<send_eof_operation, void>;

  bool attempt(result<void>& out) { return settle(resource_->send_eof(out)); }
};

/// Closes the stream in order. If this operation is destroyed while it is pending, the stream closes at once.
class ANYIO_NET_LAZY aclose_operation
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

  [[nodiscard]] errc check() const noexcept { return made ? errc::ok : errc::invalid_argument; }
  [[nodiscard]] detail::loop_core& home_if_checked() const { return home(); }
  [[nodiscard]] bool is_refused() const noexcept { return false; }
  [[nodiscard]] errc enter() noexcept;
  bool attempt(result<void>& out);
  void left() noexcept;
  void start_closing() noexcept;
  void abandon() noexcept;

  bool begun_ = false;
  detail::timer patience_;
};

/// A stream of bytes in both directions: the base of everything in this library that sends and receives
/// bytes.
///
/// One task may receive and one may send at a time. Destroying the stream closes it at once. A
/// default-constructed or moved-from stream is closed. While the system is short of memory (ENOBUFS, ENOMEM),
/// an operation waits and tries again, with pauses that grow.
class byte_stream {
 public:
  byte_stream(byte_stream&&) noexcept = default;
  byte_stream& operator=(byte_stream&& other) noexcept;
  ANYIO_NET_FN virtual ~byte_stream();

  /// Whether this end of the stream is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }

  /// Receives at least one byte, and at most as many as the buffer has room for. Returns the number of bytes.
  /// At the end of the stream raises `end_of_stream`.
  ANYIO_NET_LAZY receive_operation receive(mutable_buffer into) { return {resource_, into}; }
  /// Receives a string of at least one byte, and at most `max_bytes` but not more than 64 KiB. The string is
  /// allocated only once bytes have arrived. If there is no memory for it, the bytes are lost, and the stream
  /// is closed.
  ANYIO_NET_LAZY receive_string_operation receive(std::size_t max_bytes = 65536) {
    return {resource_, max_bytes};
  }
  /// Receives at least one byte without a copy, and returns a view that is valid until the caller next waits
  /// or returns. The view may be passed to one send that is made before that.
  ANYIO_NET_LAZY receive_view_operation receive_view() { return receive_view_operation(resource_); }

  /// Sends all of the bytes. The caller owns the bytes, and must keep them until completion; the operation
  /// keeps a string that is passed as an rvalue.
  ANYIO_NET_LAZY send_operation send(const_buffer data) { return {resource_, data}; }
  template <detail::string_rvalue S>
  ANYIO_NET_LAZY send_operation send(S&& data) {
    return {resource_, std::move(data)};
  }
  /// Sends all pieces in order, in one system call where possible. The caller must keep the bytes and the
  /// array of pieces until completion.
  ANYIO_NET_LAZY send_operation send(std::span<const const_buffer> parts) { return {resource_, parts}; }
  /// Ends the sending direction. The peer receives `end_of_stream` after the bytes that were sent. Calling it
  /// again has no effect.
  ANYIO_NET_LAZY send_eof_operation send_eof() { return send_eof_operation(resource_); }

  /// Closes the stream so that the peer gets all bytes that were sent. Bytes that the peer still sends are
  /// discarded, for at most a second. Never fails because of the peer. Pending operations on this stream end
  /// with `closed_resource`.
  ANYIO_NET_LAZY aclose_operation aclose() { return aclose_operation(resource_); }
  /// Closes the stream at once; calling it again has no effect. Pending operations end with
  /// `closed_resource`. Sent bytes may be lost if the peer sends bytes that are not received, as TLS 1.3
  /// servers do by themselves: `aclose` loses nothing.
  ///
  /// If the program has set SO_LINGER with a time, this and the destructor block the loop until the data has
  /// been sent or the time is over (socket(7)).
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

/// For the parts that make streams, or build on one.
struct stream_access {
  static const ref<stream_resource>& resource_of(const byte_stream& s) noexcept { return s.resource_; }
};

}  // namespace detail

}}  // namespace anyio
