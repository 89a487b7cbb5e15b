// Reading by length and by delimiter, over any byte stream.
//
// Bytes that were read ahead lie in a buffer of the stream, which is allocated when bytes arrive and freed
// when it is empty and small. An operation first takes bytes from the buffer, and then calls the verbs of the
// inner stream, so that a cancelled operation leaves every byte for the next one. This part must not know
// sockets.
#pragma once

#include "base/buffer.hpp"
#include "base/byte_queue.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/result.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "operation/resource_operation.hpp"
#include "stream/relay.hpp"
#include "stream/stream.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

class buffered_stream;
class unique_fd;
class unix_stream;

namespace detail {

/// Reads from the inner stream in place of its own verb, and keeps the descriptors that come with the bytes.
class fd_keeper {
 public:
  fd_keeper() = default;
  fd_keeper(const fd_keeper&) = delete;
  fd_keeper& operator=(const fd_keeper&) = delete;
  virtual ~fd_keeper() = default;
  virtual progress receive(mutable_buffer into, result<std::size_t>& out) = 0;

  /// How many bytes were added to the buffer, or went past it, so far.
  std::uint64_t arrived = 0;
  /// What the reader wants: so many bytes, or those up to this one. A read goes no further while descriptors
  /// are on their way, so that they come with the first byte of their message. 0 and -1 mean all.
  std::size_t wanted = 0;
  int last_wanted = -1;
};

class buffered_resource final : public stream_resource {
 public:
  /// `object` is the inner stream; `owned`, unless null, owns it.
  buffered_resource(ref<stream_resource> inner, byte_stream& object, std::unique_ptr<byte_stream> owned,
                    detail::owned<fd_keeper> fds = nullptr) noexcept;
  ANYIO_NET_FN ~buffered_resource() override;

  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress receive_view(std::size_t max_bytes, result<std::string_view>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  ANYIO_NET_FN progress finish() override;
  void withdrawn(side s) noexcept override { relays_[s].leave(); }
  [[nodiscard]] int descriptor() const noexcept override { return inner_->descriptor(); }

  /// Reads once from the inner stream into the buffer, at most `at_most` bytes.
  progress fill(std::size_t at_most, result<std::size_t>& out);
  /// Reads once from the inner stream into `into`, past the buffer.
  progress fill_directly(mutable_buffer into, result<std::size_t>& out);
  /// Reads until `size` bytes are in the buffer. With an error, there are fewer.
  progress gather(std::size_t size, const char* name, error& failure);
  /// Moves the next `size` bytes to `into`.
  progress take_exactly(void* into, std::size_t size, const char* name, error& failure);
  /// Closes this stream. Closes the inner stream only if this stream owns it.
  void let_go() noexcept;
  [[nodiscard]] socket_stream* socket() const noexcept { return object_.socket(); }

  byte_queue bytes;
  const detail::owned<fd_keeper> keeper;

 private:
  ANYIO_NET_FN void shut() noexcept override;
  template <class T, class Verb>
  progress pass(side s, const char* name, result<T>& out, Verb verb);
  progress read_view(std::size_t max_bytes, result<std::string_view>& out);
  progress keep_fds(std::size_t max_bytes, result<std::string_view>& out);

  ref<stream_resource> inner_;
  byte_stream& object_;
  std::unique_ptr<byte_stream> owned_;
  relay relays_[2];
  bool let_go_ = false;
};

/// For dumps: how many bytes are buffered, and `taken` already.
[[nodiscard]] inline std::uint32_t buffered_of(const buffered_resource* r, std::size_t taken = 0) noexcept {
  return r != nullptr ? description::count(r->bytes.size() + taken) : description::no_count;
}

/// The error of a read that ended before it had enough bytes.
[[nodiscard]] error read_failure(error e, bool bytes_are_left, const char* name) noexcept;

/// Receives a string of exactly `size` bytes.
class [[nodiscard]] receive_exactly_string_operation
    : public resource_operation<receive_exactly_string_operation, std::string, buffered_resource, read_side> {
 public:
  static constexpr const char* name = "receive_exactly";
  receive_exactly_string_operation() = default;
  receive_exactly_string_operation(ref<buffered_resource> r, std::size_t size) noexcept
      : resource_operation(std::move(r)), size_(size) {}

 private:
  friend class operation<receive_exactly_string_operation, std::string>;
  [[nodiscard]] std::uint32_t bytes_so_far() const noexcept { return buffered_of(resource_.get()); }
  bool attempt(result<std::string>& out);
  std::size_t size_ = 0;
};

/// Fills the caller's buffer. If it does not complete, the bytes that are already there go back to the
/// stream.
class [[nodiscard]] receive_exactly_operation
    : public resource_operation<receive_exactly_operation, void, buffered_resource, read_side> {
 public:
  static constexpr const char* name = "receive_exactly";
  receive_exactly_operation() = default;
  receive_exactly_operation(ref<buffered_resource> r, mutable_buffer into) noexcept
      : resource_operation(std::move(r)), into_(into) {}
  receive_exactly_operation(receive_exactly_operation&&) = default;
  receive_exactly_operation& operator=(receive_exactly_operation&& other) noexcept;
  ~receive_exactly_operation();

 private:
  friend class operation<receive_exactly_operation, void>;
  [[nodiscard]] std::uint32_t bytes_so_far() const noexcept { return buffered_of(resource_.get(), filled_); }
  bool attempt(result<void>& out);
  bool fail(error e, result<void>& out);
  void left() noexcept;
  void put_back();

  mutable_buffer into_;
  std::size_t filled_ = 0;
};

/// Receives an integer of a fixed size.
template <class Int>
class [[nodiscard]] receive_int_operation
    : public resource_operation<receive_int_operation<Int>, Int, buffered_resource, read_side> {
  using base = resource_operation<receive_int_operation, Int, buffered_resource, read_side>;

 public:
  static constexpr const char* name = "receive_int";
  receive_int_operation() = default;
  receive_int_operation(ref<buffered_resource> r, std::endian order) noexcept
      : base(std::move(r)), order_(order) {}

 private:
  friend class operation<receive_int_operation, Int>;
  bool attempt(result<Int>& out) {
    unsigned char bytes[sizeof(Int)];
    error failure;
    const progress p = this->resource_->take_exactly(bytes, sizeof bytes, name, failure);
    if (p == progress::again) this->again = true;
    if (p != progress::done) return false;
    if (failure.code() != errc::ok) return complete(out, failure);
    std::make_unsigned_t<Int> value = 0;
    for (std::size_t i = 0; i < sizeof bytes; ++i) {
      const unsigned char next = bytes[order_ == std::endian::big ? i : sizeof bytes - 1 - i];
      value = static_cast<std::make_unsigned_t<Int>>((sizeof bytes == 1 ? 0 : value << 8) | next);
    }
    return complete(out, static_cast<Int>(value));
  }

  std::endian order_ = std::endian::big;
};

/// Receives the bytes before a delimiter.
class [[nodiscard]] receive_until_operation
    : public resource_operation<receive_until_operation, std::string, buffered_resource, read_side> {
 public:
  static constexpr const char* name = "receive_until";
  receive_until_operation() = default;
  receive_until_operation(ref<buffered_resource> r, std::string_view delimiter, std::size_t max_bytes,
                          bool line)
      : resource_operation(std::move(r)), delimiter_(delimiter), max_bytes_(max_bytes), line_(line) {}

 private:
  friend class operation<receive_until_operation, std::string>;
  [[nodiscard]] const char* operation_name() const noexcept { return line_ ? "receive_line" : name; }
  [[nodiscard]] std::uint32_t bytes_so_far() const noexcept { return buffered_of(resource_.get()); }
  [[nodiscard]] errc check() const noexcept {
    return delimiter_.empty() || max_bytes_ == 0 ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::string>& out);
  bool fail(error e, result<std::string>& out);
  void left() noexcept;

  std::string delimiter_;
  std::size_t max_bytes_ = 0;
  std::size_t searched_ = 0;  // no delimiter begins before this offset
  bool line_ = false;
};

}  // namespace detail

/// A stream that can also be read by length and by delimiter. It reads ahead, so all reads must go through it
/// only; sending goes directly to the inner stream. `close` and `aclose` close the inner stream too.
///
/// Constructed from a reference, it borrows the inner stream and leaves it open when destroyed. The
/// referenced stream may be moved while an operation is pending here, but not before a call of `socket()`.
/// Constructed from a pointer, it owns the inner stream.
class buffered_stream : public byte_stream {
 public:
  buffered_stream() = default;
  /// Borrows a stream, which must live as long as this one is used.
  explicit buffered_stream(byte_stream& inner);
  /// Owns a stream.
  explicit buffered_stream(std::unique_ptr<byte_stream> inner);
  /// Borrows a UNIX stream, and keeps the descriptors that come with its bytes; see `take_fds`. If a message
  /// brings so many that more than `max_fds` would be kept, they are closed, its bytes are dropped, and this
  /// read and all later ones fail with `fds_truncated`.
  buffered_stream(unix_stream& inner, std::size_t max_fds);
  buffered_stream(buffered_stream&&) noexcept = default;
  buffered_stream& operator=(buffered_stream&& other) noexcept;
  ANYIO_NET_FN ~buffered_stream() override;

  /// Receives exactly `size` bytes. If the stream ends before that, fails with `incomplete_read`, or with
  /// `end_of_stream` if no byte was left. On failure or cancellation the bytes received so far stay buffered.
  /// A size of 0 returns an empty string at once.
  [[nodiscard]] detail::receive_exactly_string_operation receive_exactly(std::size_t size) {
    return {own(), size};
  }
  /// Fills the caller's buffer completely; large reads go past the stream's own buffer. If the stream ends
  /// before that, fails with `incomplete_read`, or with `end_of_stream` if no byte was left. On failure or
  /// cancellation the bytes received so far go back to the stream.
  [[nodiscard]] detail::receive_exactly_operation receive_exactly(mutable_buffer into) {
    return {own(), into};
  }
  /// Receives the bytes before the delimiter, which is consumed but not returned. Reads no further than
  /// `max_bytes`, the delimiter included, and fails with `delimiter_not_found` once so many bytes are
  /// buffered without a delimiter. A delimiter that is buffered already is found wherever it is. Fails as
  /// `receive_exactly` at the end of the stream. An empty delimiter or a `max_bytes` of 0 is
  /// `invalid_argument`.
  [[nodiscard]] detail::receive_until_operation receive_until(std::string_view delimiter,
                                                              std::size_t max_bytes) {
    return {own(), delimiter, max_bytes, false};
  }
  /// Receives a line up to LF. It returns neither the LF nor one CR before it.
  [[nodiscard]] detail::receive_until_operation receive_line(std::size_t max_bytes = 65536) {
    return {own(), "\n", max_bytes, true};
  }
  /// Receives an integer of sizeof(Int) bytes, in network byte order unless `order` says otherwise. Fails as
  /// `receive_exactly` does.
  template <class Int>
  [[nodiscard]] detail::receive_int_operation<Int> receive_int(std::endian order = std::endian::big) {
    static_assert(std::is_integral_v<Int> && !std::is_same_v<std::remove_cv_t<Int>, bool>,
                  "receive_int receives an integer, for instance receive_int<std::uint16_t>()");
    return {own(), order};
  }
  /// Returns the descriptors that came with or before the bytes taken from this stream so far, in order; each
  /// is returned once. A descriptor belongs to the first byte of the `send_fds` that sent it. Empty unless
  /// the stream was constructed with `max_fds`.
  [[nodiscard]] std::vector<unique_fd> take_fds();
  /// Appends a copy of the bytes to the buffered bytes, as if they had been received.
  void feed_data(const_buffer data);
  /// The buffered bytes; valid until the next read or `feed_data`.
  [[nodiscard]] std::string_view buffer() const noexcept;
  [[nodiscard]] ANYIO_NET_FN socket_stream* socket() noexcept override;

 private:
  [[nodiscard]] detail::ref<detail::buffered_resource> own() const noexcept {
    return detail::ref<detail::buffered_resource>(static_cast<detail::buffered_resource*>(resource_.get()));
  }
  void let_go() noexcept;
};

}}  // namespace anyio
