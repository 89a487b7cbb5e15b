// Moving bytes from one stream to another: `copy` in one direction, `relay` in both.
//
// A pump moves the bytes of one direction. Bytes go through memory, and through a pipe inside the kernel when
// both streams are sockets, the system can do it (splice(2)), and there are many of them. An operation waits
// as the reader and as the writer of its streams itself, so that it sees every byte that moves. This part
// must not know what kinds of streams there are, but for sockets.
#pragma once

#include "base/byte_queue.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/recycler.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"
#include "stream/stream.hpp"
#include "system/unique_fd.hpp"

#include <cstddef>
#include <cstdint>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// One direction: its streams, and the bytes that were taken from one and not yet sent to the other.
class pump {
 public:
  pump() = default;
  pump(byte_stream& from, byte_stream& to, bool half_closes);
  pump(pump&&) noexcept = default;
  pump& operator=(pump&&) noexcept = default;

  [[nodiscard]] errc check(const node& own) const noexcept;
  void enter(node& own) noexcept;
  void leave(node& own) noexcept;
  void refresh() noexcept;
  /// Moves bytes until it has to wait, or has done enough for one turn. Done: at the end, or an error.
  progress move(result<void>& out);
  /// Begins anew with the next use.
  void start_over() noexcept;

  [[nodiscard]] bool over() const noexcept { return over_; }
  [[nodiscard]] loop_core* core() const noexcept { return from_ ? &from_->core() : nullptr; }
  [[nodiscard]] int descriptor() const noexcept { return from_ ? from_->descriptor() : -1; }

  std::uint64_t sent = 0;
  bool moved = false;              // bytes, since this was cleared
  bool cannot_half_close = false;  // the end is over, and the other stream cannot be told

 private:
  struct store : recycled {
    byte_queue rest;
    unique_fd pipe[2];  // the end to read from, the end to write to
    std::size_t in_pipe = 0;
    std::uint32_t small_moves = 0;  // in a row
    std::uint32_t large_moves = 0;
  };
  progress step(result<void>& out);
  progress receive(result<void>& out);
  progress send_rest(result<void>& out);
  progress fill_pipe(result<void>& out);
  progress drain_pipe(result<void>& out);
  progress finish(result<void>& out);
  progress give_up_splicing(result<void>& out);
  void begin_splicing();
  void count_sent(std::size_t n) noexcept;

  ref<stream_resource> from_;
  ref<stream_resource> to_;
  owned<store> store_;
  bool may_splice_ = false;  // both streams are sockets
  bool half_closes_ = false;
  bool splicing_ = false;
  bool sending_ = false;  // a send is not finished
  bool ended_ = false;
  bool over_ = false;
};

}  // namespace detail

/// The operation that `copy` returns.
class [[nodiscard]] copy_operation : public detail::operation<copy_operation, std::uint64_t> {
 public:
  static constexpr const char* name = "copy";
  copy_operation() = default;
  copy_operation(byte_stream& from, byte_stream& to) : operation(true), pump_(from, to, false) {}
  copy_operation(copy_operation&&) = default;
  copy_operation& operator=(copy_operation&& other) noexcept;
  ~copy_operation() { withdraw(); }

 private:
  friend class detail::operation<copy_operation, std::uint64_t>;
  [[nodiscard]] errc check() const noexcept { return made ? pump_.check(*this) : errc::invalid_argument; }
  [[nodiscard]] errc enter() noexcept {
    pump_.enter(*this);
    return errc::ok;
  }
  bool attempt(result<std::uint64_t>& out);
  void left() noexcept { pump_.leave(*this); }
  void refresh() noexcept { pump_.refresh(); }
  [[nodiscard]] detail::loop_core& home() const;
  [[nodiscard]] int descriptor() const noexcept { return pump_.descriptor(); }

  detail::pump pump_;
};

/// How many bytes a relay moved.
struct relay_result {
  std::uint64_t a_to_b = 0;  ///< from the first stream to the second
  std::uint64_t b_to_a = 0;  ///< from the second stream to the first
};

/// Options of `relay`.
struct relay_options {
  /// How long no byte may move in either direction before the relay fails with `timed_out`.
  duration idle = duration::max();
};

/// The operation that `relay` returns.
class [[nodiscard]] relay_operation : public detail::operation<relay_operation, relay_result> {
 public:
  static constexpr const char* name = "relay";
  relay_operation() = default;
  relay_operation(byte_stream& a, byte_stream& b, relay_options options)
      : operation(true), pumps_{{a, b, true}, {b, a, true}}, idle_(options.idle) {}
  relay_operation(relay_operation&&) = default;
  relay_operation& operator=(relay_operation&& other) noexcept;
  ~relay_operation() { withdraw(); }

 private:
  friend class detail::operation<relay_operation, relay_result>;
  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] errc enter() noexcept;
  bool attempt(result<relay_result>& out);
  bool is_idle_for_too_long();
  void left() noexcept;
  void refresh() noexcept;
  [[nodiscard]] detail::loop_core& home() const;
  [[nodiscard]] int descriptor() const noexcept { return pumps_[0].descriptor(); }

  detail::pump pumps_[2];
  duration idle_ = duration::max();
  time_point last_move_{};
  detail::timer timer_;
  bool second_first_ = false;  // the directions take turns
};

/// Moves all bytes from one stream to the other, until the end of `from`, and returns their number.
/// Half-closes nothing. Both streams must live as long as this runs, and belong to the same loop.
///
/// It is the reader of `from` and the writer of `to` all the time. Between two sockets many bytes stay in the
/// kernel where the system allows it (splice(2)). An operation that was cancelled or has failed keeps the
/// bytes that it took and could not send, and continues with them if it is started again; they are lost with
/// it: at most 64 KiB, or what a pipe holds.
[[nodiscard]] copy_operation copy(byte_stream& from, byte_stream& to);

/// Connects two streams: moves bytes in both directions until both have ended, and returns how many. The end
/// of one stream half-closes the other; if that is not possible (TLS 1.2), it ends the relay. An error of
/// either stream ends the relay with that error. Leaves both streams open.
///
/// For all else see `copy`. With `idle`, fails with `timed_out` once no byte has moved in either direction
/// for so long; a part of a send that is not finished counts.
[[nodiscard]] relay_operation relay(byte_stream& a, byte_stream& b, relay_options options = {});

}}  // namespace anyio
