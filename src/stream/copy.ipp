// Pumping bytes through memory and through a pipe.
#pragma once

#include "stream/copy.hpp"
#include "stream/socket.hpp"

#include <cerrno>
#include <string_view>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A receive of so many bytes begins to splice; fewer are moved faster through memory.
inline constexpr std::size_t many_bytes = 16384;
inline constexpr std::size_t few_bytes = 4096;
inline constexpr std::uint32_t small_moves_of_pipe = 16;  // after so many in a row the pipe is closed
inline constexpr std::uint32_t large_moves_of_pipe = 8;   // after so many it grows
inline constexpr std::size_t most_of_splice = std::size_t{1} << 20;

/// Splicing costs about a quarter of what copying costs.
inline void count_spliced(loop_core& loop, ssize_t n) noexcept {
  loop.count_work(n > 0 ? static_cast<std::size_t>(n) / 4 : 0);
}

inline bool can_splice(byte_stream& s) noexcept {
  return static_cast<byte_stream*>(s.socket()) == &s &&
         s.socket()->native_handle() < first_simulated_descriptor;
}

ANYIO_NET_FN pump::pump(byte_stream& from, byte_stream& to, bool half_closes)
    : from_(stream_access::resource_of(from)),
      to_(stream_access::resource_of(to)),
      may_splice_(can_splice(from) && can_splice(to)),
      half_closes_(half_closes) {}

// --- waiting

ANYIO_NET_FN errc pump::check(const node& own) const noexcept {
  if (!from_ || !to_ || !from_->open() || !to_->open()) return errc::closed_resource;
  if (!ended_ && to_->eof_sent()) return errc::closed_resource;
  if (&from_->core() != &to_->core()) return errc::invalid_argument;
  for (const node* other : {from_->waiting(read_side), to_->waiting(write_side)})
    if (other != nullptr && other != &own && !other->yields) return errc::busy_resource;
  return errc::ok;
}

ANYIO_NET_FN void pump::enter(node& own) noexcept {
  from_->set_waiting(read_side, &own);
  to_->set_waiting(write_side, &own);
}

ANYIO_NET_FN void pump::leave(node& own) noexcept {
  const auto leave_side = [&own](const ref<stream_resource>& r, side s) {
    if (!r || r->waiting(s) != &own) return;
    r->set_waiting(s, nullptr);
    r->withdrawn(s);
  };
  leave_side(from_, read_side);
  leave_side(to_, write_side);
}

ANYIO_NET_FN void pump::refresh() noexcept {
  if (from_) from_->exhausted[read_side] = false;
  if (to_) to_->exhausted[write_side] = false;
}

ANYIO_NET_FN void pump::start_over() noexcept {
  sent = 0;
  splicing_ = ended_ = over_ = cannot_half_close = false;
  store_.reset();
}

// --- moving

ANYIO_NET_FN progress pump::move(result<void>& out) {
  for (int calls = 0; !over_; ++calls) {
    if (calls == calls_of_attempt || (calls != 0 && from_->core().share_spent())) return progress::again;
    if (!from_->open()) return complete<progress::done>(out, error(errc::closed_resource, 0, "receive"));
    if (!to_->open()) return complete<progress::done>(out, error(errc::closed_resource, 0, "send"));
    const progress p = step(out);
    if (p != progress::done) return p;
    if (!out.has_value()) break;
  }
  return progress::done;
}

ANYIO_NET_FN progress pump::step(result<void>& out) {
  if (store_ && store_->in_pipe != 0) return drain_pipe(out);
  if (sending_) return send_rest(out);
  if (ended_) return finish(out);
  return splicing_ ? fill_pipe(out) : receive(out);
}

ANYIO_NET_FN void pump::count_sent(std::size_t n) noexcept {
  sent += n;
  moved = moved || n != 0;
}

ANYIO_NET_FN progress pump::receive(result<void>& out) {
  result<std::string_view> view(errc::cancelled);
  const progress taken = from_->receive_view(static_cast<std::size_t>(-1), view);
  if (taken != progress::done) return taken;
  if (!view.has_value()) {
    ended_ = view.error() == errc::end_of_stream;
    if (!ended_) out = view.error();
    return progress::done;
  }
  moved = true;
  received_bytes bytes(*from_);
  const const_buffer whole(*view);
  outgoing data(std::span<const const_buffer>(&whole, 1));
  const progress p = to_->send(data, out);
  count_sent(data.sent());
  if (p != progress::done) {
    if (!store_) store_.reset(new store);
    store_->rest.append(view->substr(data.sent()));
    sending_ = true;
  }
  bytes.handed_over();
  if (p == progress::done && may_splice_ && out.has_value() && whole.size() >= many_bytes) begin_splicing();
  return p;
}

ANYIO_NET_FN progress pump::send_rest(result<void>& out) {
  byte_queue& rest = store_->rest;
  const const_buffer whole(rest.data());
  outgoing data(std::span<const const_buffer>(&whole, 1));
  const progress p = to_->send(data, out);
  count_sent(data.sent());
  rest.consume(data.sent());
  if (p != progress::done) return p;
  if (out.has_value()) sending_ = false;
  rest.trim();
  return p;
}

ANYIO_NET_FN progress pump::finish(result<void>& out) {
  if (half_closes_) {
    const progress p = to_->send_eof(out);
    if (p != progress::done) return p;
    cannot_half_close = !out.has_value() && out.error() == errc::not_supported;
    if (cannot_half_close) out = result<void>();
    if (!out.has_value()) return p;
  }
  over_ = true;
  store_.reset();
  return progress::done;
}

// --- inside the kernel

ANYIO_NET_FN void pump::begin_splicing() {
  int fds[2];
  if (!store_) store_.reset(new store);
  if (splices_of(from_->core().system()).open_pipe(fds) < 0) {
    may_splice_ = false;
    return;
  }
  store_->pipe[0].reset(fds[0]);
  store_->pipe[1].reset(fds[1]);
  store_->small_moves = store_->large_moves = 0;
  splicing_ = true;
}

/// Whether splice(2) refused these sockets; then bytes go through memory. The connection may be intact.
[[gnu::cold]] inline bool refuses_splice(ssize_t status) noexcept {
  return status == -EINVAL || status == -ENOSYS || status == -EOPNOTSUPP || status == -EPERM;
}

ANYIO_NET_FN progress pump::fill_pipe(result<void>& out) {
  auto& from = static_cast<socket_resource&>(*from_);
  if (from.ended()) return receive(out);
  if (from.exhausted[read_side]) return progress::waiting;
  if (store_->small_moves >= small_moves_of_pipe) {
    for (unique_fd& end : store_->pipe) end.reset();
    splicing_ = false;
    return receive(out);
  }
  loop_core& loop = from.core();
  splice_service& splices = splices_of(loop.system());
  const ssize_t n = splices.splice_in(from.descriptor(), store_->pipe[1].get(), most_of_splice);
  count_spliced(loop, n);
  if (n > 0) {
    moved = true;
    store_->in_pipe = static_cast<std::size_t>(n);
    store_->small_moves = store_->in_pipe < few_bytes ? store_->small_moves + 1 : 0;
    if (store_->in_pipe >= many_bytes && ++store_->large_moves == large_moves_of_pipe)
      splices.grow_pipe(store_->pipe[1].get());
    return progress::done;
  }
  // After the poller has reported an end, an error or urgent data, only a receive can tell.
  if (n == 0 || (n == -EAGAIN && from.read_to_end)) return receive(out);
  if (refuses_splice(n)) return give_up_splicing(out);
  if (from.must_wait(read_side, n)) return progress::waiting;
  return complete<progress::done>(out, from.end_of_reading(static_cast<int>(-n), "receive"));
}

ANYIO_NET_FN progress pump::drain_pipe(result<void>& out) {
  auto& to = static_cast<socket_resource&>(*to_);
  if (to.exhausted[write_side]) return progress::waiting;
  loop_core& loop = to.core();
  const ssize_t n =
      splices_of(loop.system()).splice_out(store_->pipe[0].get(), to.descriptor(), store_->in_pipe);
  count_spliced(loop, n);
  if (n > 0) {
    store_->in_pipe -= static_cast<std::size_t>(n);
    count_sent(static_cast<std::size_t>(n));
    return progress::done;
  }
  if (n == 0 || refuses_splice(n)) return give_up_splicing(out);
  return to.failed_send(n, out);
}

/// Takes the bytes out of the pipe, and continues through memory.
ANYIO_NET_COLD progress pump::give_up_splicing(result<void>& out) {
  loop_core& loop = from_->core();
  store& s = *store_;
  while (s.in_pipe != 0) {
    const mutable_buffer room = s.rest.prepare(s.in_pipe);
    const ssize_t n = files_of(loop.system()).read(s.pipe[0].get(), room.data(), s.in_pipe);
    if (n <= 0) return complete<progress::done>(out, error(errc::os_error, static_cast<int>(-n), "splice"));
    s.rest.commit(static_cast<std::size_t>(n));
    s.in_pipe -= static_cast<std::size_t>(n);
  }
  sending_ = !s.rest.empty();
  may_splice_ = splicing_ = false;
  for (unique_fd& end : s.pipe) end.reset();
  return progress::done;
}

}  // namespace detail

// --- copy

ANYIO_NET_FN copy_operation& copy_operation::operator=(copy_operation&& other) noexcept {
  if (this == &other) return *this;
  withdraw();
  operation::operator=(std::move(other));
  pump_ = std::move(other.pump_);
  return *this;
}

ANYIO_NET_FN detail::loop_core& copy_operation::home() const {
  detail::loop_core* const own = pump_.core();
  return own != nullptr && own->alive() ? *own : detail::loop_core::current();
}

ANYIO_NET_FN bool copy_operation::attempt(result<std::uint64_t>& out) {
  result<void> outcome;
  const detail::progress p = pump_.move(outcome);
  again = p == detail::progress::again;
  if (p != detail::progress::done) return false;
  if (!outcome.has_value()) return detail::complete(out, outcome.error());
  out = pump_.sent;
  pump_.start_over();
  return true;
}

ANYIO_NET_FN copy_operation copy(byte_stream& from, byte_stream& to) { return {from, to}; }

// --- relay

ANYIO_NET_FN relay_operation& relay_operation::operator=(relay_operation&& other) noexcept {
  if (this == &other) return *this;
  withdraw();
  operation::operator=(std::move(other));
  for (int i = 0; i < 2; ++i) pumps_[i] = std::move(other.pumps_[i]);
  idle_ = other.idle_;
  return *this;
}

ANYIO_NET_FN detail::loop_core& relay_operation::home() const {
  detail::loop_core* const own = pumps_[0].core();
  return own != nullptr && own->alive() ? *own : detail::loop_core::current();
}

ANYIO_NET_FN errc relay_operation::check() const noexcept {
  if (!made) return errc::invalid_argument;
  const errc first = pumps_[0].check(*this);
  return first != errc::ok ? first : pumps_[1].check(*this);
}

ANYIO_NET_FN errc relay_operation::enter() noexcept {
  for (detail::pump& p : pumps_) p.enter(*this);
  if (idle_ == duration::max()) return errc::ok;
  last_move_ = core->now();
  core->arm(timer_, detail::add(last_move_, idle_), *this);
  return errc::ok;
}

ANYIO_NET_FN void relay_operation::refresh() noexcept {
  for (detail::pump& p : pumps_) p.refresh();
}

ANYIO_NET_FN void relay_operation::left() noexcept {
  timer_.cancel();
  for (detail::pump& p : pumps_) p.leave(*this);
}

ANYIO_NET_FN bool relay_operation::attempt(result<relay_result>& out) {
  bool more = false;
  bool ended = true;
  second_first_ = !second_first_;
  for (int i = 0; i < 2; ++i) {
    detail::pump& p = pumps_[(i != 0) == second_first_ ? 0 : 1];
    result<void> outcome;
    const detail::progress made_progress = p.move(outcome);
    if (!outcome.has_value()) return detail::complete(out, outcome.error());
    more = more || made_progress == detail::progress::again;
    ended = ended && p.over();
  }
  again = more;
  if (ended || pumps_[0].cannot_half_close || pumps_[1].cannot_half_close) {
    out = relay_result{pumps_[0].sent, pumps_[1].sent};
    for (detail::pump& p : pumps_) p.start_over();
    return true;
  }
  if (idle_ == duration::max() || !pending() || !is_idle_for_too_long()) return false;
  return detail::complete(out, error(errc::timed_out, 0, name));
}

ANYIO_NET_FN bool relay_operation::is_idle_for_too_long() {
  if (pumps_[0].moved || pumps_[1].moved) {
    pumps_[0].moved = pumps_[1].moved = false;
    last_move_ = core->now();
  }
  if (timer_.armed()) return false;
  const time_point end = detail::add(last_move_, idle_);
  if (end <= core->now()) return true;
  if (end != time_point::max()) core->arm(timer_, end, *this);
  return false;
}

ANYIO_NET_FN relay_operation relay(byte_stream& a, byte_stream& b, relay_options options) {
  return {a, b, options};
}

}}  // namespace anyio
