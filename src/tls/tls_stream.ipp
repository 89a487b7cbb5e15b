// Driving an engine.
#pragma once

#include "base/exchange.hpp"
#include "base/standard.hpp"
#include "stream/socket.hpp"
#include "tls/tls_stream.hpp"

#include <cstring>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// The cost of a step of a handshake, in system calls: some hundreds of microseconds.
inline constexpr std::size_t cost_of_handshake = 128;
/// The most plaintext in one record (RFC 8446, section 5.1).
inline constexpr std::size_t tls_record_size = 16384;
/// Room for data from the transport: as much as the recycler keeps, and the least room that must be free
/// after an incomplete record.
inline constexpr std::size_t tls_read_ahead = recycler::block_size_of[recycler::large];
inline constexpr std::size_t tls_least_room = 8192;
/// If more bytes than this are unsent, a reader has to wait, since its calls may add to them.
inline constexpr std::size_t tls_backlog = 65536;

ANYIO_NET_FN tls_resource::tls_resource(std::unique_ptr<byte_stream> transport,
                                        std::shared_ptr<tls_context> context,
                                        bool standard_compatible) noexcept
    : stream_resource(stream_access::resource_of(*transport)->core()),
      transport_(std::move(transport)),
      inner_(stream_access::resource_of(*transport_)),
      context_(std::move(context)),
      relays_{{*this, read_side, on_readable}, {*this, write_side, on_writable}},
      standard_compatible_(standard_compatible) {
  exhausted[read_side] = exhausted[write_side] = true;  // see `relay::enter`
}

ANYIO_NET_FN tls_resource::~tls_resource() { close(); }

ANYIO_NET_FN bool tls_resource::make_engine(bool client, std::string_view server_name) {
  engine_ = client ? context_->client(pipe_, server_name) : context_->server(pipe_);
  return engine_ != nullptr;
}

ANYIO_NET_FN tls_info tls_resource::info() const { return established_ ? engine_->info() : tls_info(); }

// --- the transport

/// Reads once from the transport, for a reader or a writer. It is done when data arrived, with an error, or
/// with `rx_eof` when no more data follows.
ANYIO_NET_FN progress tls_resource::pull(side who, error& failure) {
  const progress p = pull_once(failure);
  // The other side may use this relay too: unless the relay joins again, the other side must try itself.
  if (p != progress::waiting && (who == write_side || writer_awaits_input_))
    wake(who == write_side ? read_side : write_side);
  return p;
}

ANYIO_NET_FN progress tls_resource::pull_once(error& failure) {
  relay& place = relays_[read_side];
  failure = place.enter(*inner_);
  if (failure != errc::ok) return progress::done;
  result<std::size_t> n(errc::cancelled);
  const std::size_t room = incoming_.empty() ? tls_read_ahead : tls_least_room;
  const progress p = inner_->receive(incoming_.prepare(room), n);
  if (p == progress::done && n.has_value()) {
    incoming_.commit(*n);
    return p;
  }
  incoming_.trim();
  if (p == progress::waiting) place.join(*inner_);
  if (p != progress::done) return p;
  if (n.error() == errc::end_of_stream) {
    pipe_.rx_eof = true;
  } else {
    failure = n.error();
  }
  return p;
}

/// Sends the bytes that the engine left in the pipe.
ANYIO_NET_FN progress tls_resource::flush(error& failure) {
  byte_queue& bytes = pipe_.tx;
  pipe_.may_wait = 0;
  if (bytes.empty()) return progress::done;
  relay& place = relays_[write_side];
  failure = place.enter(*inner_);
  if (failure != errc::ok) {
    if (reader_awaits_flush_) wake(read_side);
    return progress::done;
  }
  result<void> r = error(errc::closed_resource);
  const const_buffer all(bytes.data());
  outgoing data(std::span<const const_buffer>(&all, 1));
  const progress p = inner_->eof_sent() ? progress::done : inner_->send(data, r);
  bytes.consume(data.sent());
  if (p == progress::waiting) place.join(*inner_);
  if (p == progress::done && !r.has_value()) {
    failure = r.error();
    if (!engine_failed()) write_failure_ = failure;  // the first failure is the one to report
    bytes.consume(bytes.size());
  }
  if (p != progress::waiting && reader_awaits_flush_) wake(read_side);
  return p;
}

/// Sends the bytes in the pipe without waiting; the rest is sent in the background.
ANYIO_NET_FN void tls_resource::flush_soon() {
  error failure;  // kept for the writer; received data can still be read
  if (relays_[write_side].waits() || pipe_.tx.size() == pipe_.may_wait) return;
  if (flush(failure) == progress::again) core().queue(relays_[write_side]);
}

ANYIO_NET_FN void tls_resource::on_writable(resource& r, bool cancelled) {
  auto& self = static_cast<tls_resource&>(r);
  if (self.gone()) return;
  self.flush_soon();
  if (!cancelled || !self.reader_awaits_flush_) return;
  if (node* const reader = self.waiting(read_side)) reader->cancelled = true;
  self.wake(read_side);
}

ANYIO_NET_FN void tls_resource::on_readable(resource& r, bool cancelled) {
  auto& self = static_cast<tls_resource&>(r);
  if (!detail::exchange(self.writer_awaits_input_, false)) return;
  node* const writer = self.waiting(write_side);
  if (cancelled && writer != nullptr) writer->cancelled = true;
  self.wake(write_side);
}

/// After a cancelled send, queued bytes are sent in the background.
ANYIO_NET_FN void tls_resource::withdrawn(side s) noexcept {
  if (s == read_side) {
    reader_awaits_flush_ = false;
    if (!writer_awaits_input_) relays_[read_side].leave();
  } else {
    writer_awaits_input_ = false;
    if (pipe_.tx.empty()) {
      relays_[write_side].leave();
    } else if (!relays_[write_side].waits() && !gone()) {
      core().queue(relays_[write_side]);
    }
  }
}

// --- the engine

/// Makes one engine call.
template <class Verb>
tls_status tls_resource::call(Verb verb) {
  const std::size_t before = incoming_.size();
  const std::size_t to_go = pipe_.tx.size();
  pipe_.rx = incoming_.data();
  pipe_.starved = false;
  const tls_status status = verb(*engine_);
  const std::size_t used = before - pipe_.rx.size();
  constexpr std::size_t price = 8;  // of an encrypted byte, relative to a byte that is only moved
  core().count_work(price * (used + pipe_.tx.size() - to_go));
  incoming_.consume(used);
  pipe_.rx = {};
  if (status == tls_status::failed) engine_failure_ = tls_failure("", engine_->last_error());
  return status;
}

ANYIO_NET_FN progress tls_resource::handshake(result<void>& out) {
  error failure;
  for (int calls = 0; calls < calls_of_attempt; ++calls) {
    const tls_status status = call([](tls_engine& e) { return e.handshake(); });
    core().count_work(0, cost_of_handshake);
    flush_soon();
    switch (status) {
      case tls_status::ok: established_ = true; return complete<progress::done>(out, result<void>());
      case tls_status::again: continue;
      case tls_status::failed:
        return complete<progress::done>(
            out, error_access::with_operation(engine_failure_, tls_wrap_operation::name));
      case tls_status::want_input:
        if (!must_pull()) continue;
        if (!pipe_.rx_eof) {
          const progress p = pull(read_side, failure);
          if (p != progress::done) return p;
          if (failure == errc::ok) continue;
          return complete<progress::done>(out,
                                          error_access::with_operation(failure, tls_wrap_operation::name));
        }
        [[fallthrough]];
      case tls_status::closed:
      case tls_status::truncated: break;
    }
    const bool told = write_failure_.code() != errc::ok;  // why the peer received nothing
    return complete<progress::done>(
        out, told ? error_access::with_operation(write_failure_, tls_wrap_operation::name)
                  : error_access::with_reason(error(errc::broken_resource, 0, tls_wrap_operation::name),
                                              "the connection ended during the handshake"));
  }
  return progress::again;
}

/// The permanent error that ends reading.
ANYIO_NET_FN error tls_resource::end_of_reading(tls_status status) {
  switch (status) {
    case tls_status::failed: return engine_failure_;
    case tls_status::closed: return error(errc::end_of_stream, 0, "receive");
    default: break;
  }
  if (!standard_compatible_) return error(errc::end_of_stream, 0, "receive");
  return error_access::with_reason(error(errc::broken_resource, 0, "receive"),
                                   "the connection ended without a close_notify");
}

/// Reads plaintext: `ok` with some bytes, `again` with the progress of a wait, any other status with the
/// failure.
ANYIO_NET_FN tls_status tls_resource::read(mutable_buffer into, std::size_t& n, progress& p, error& failure) {
  p = progress::again;
  if (read_failure_.code() != errc::ok) {
    failure = read_failure_;
    return tls_status::failed;
  }
  if (engine_failed()) {
    failure = engine_failure_;
    return tls_status::failed;
  }
  for (int calls = 0; calls < calls_of_attempt; ++calls) {
    if (pipe_.tx.size() > tls_backlog && relays_[write_side].waits()) {
      reader_awaits_flush_ = true;
      p = progress::waiting;
      return tls_status::again;
    }
    tls_status status = call([&](tls_engine& e) { return e.read(into, n); });
    flush_soon();
    if (status == tls_status::ok && n != 0) return status;
    if (status == tls_status::ok || status == tls_status::again) continue;
    if (status == tls_status::want_input) {
      if (!must_pull() || engine_->pending()) continue;
      if (!pipe_.rx_eof) {
        p = pull(read_side, failure);
        if (p != progress::done) return tls_status::again;
        if (failure.code() == errc::ok) continue;
        if (failure != errc::closed_resource && failure != errc::busy_resource) read_failure_ = failure;
        return tls_status::failed;
      }
      status = tls_status::truncated;
    }
    failure = read_failure_ = end_of_reading(status);
    return status;
  }
  p = progress::again;
  return tls_status::again;
}

ANYIO_NET_FN progress tls_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  reader_awaits_flush_ = false;
  if (!held_.empty()) {
    const std::size_t n = std::min(held_.size(), into.size());
    std::memcpy(into.data(), held_.data().data(), n);
    held_.consume(n);
    return complete<progress::done>(out, n);
  }
  std::size_t n = 0;
  progress p;
  error failure;
  switch (read(into, n, p, failure)) {
    case tls_status::ok: out = n; return progress::done;
    case tls_status::again: return p;
    default: out = error_access::with_operation(failure, "receive"); return progress::done;
  }
}

ANYIO_NET_FN progress tls_resource::send(outgoing& data, result<void>& out) {
  const auto fail = [&](const error& e) {
    return complete<progress::done>(out, error_access::with_operation(e, "send"));
  };
  writer_awaits_input_ = false;
  error failure;
  for (int calls = 0; calls < calls_of_attempt; ++calls) {
    if (write_failure_.code() != errc::ok) return fail(write_failure_);
    // Small records are sent together.
    if (data.done() || pipe_.tx.size() >= tls_record_size || relays_[write_side].waits()) {
      const progress p = flush(failure);
      if (p != progress::done) return p;
      if (failure.code() != errc::ok) return fail(failure);
      if (!data.done()) continue;
      return complete<progress::done>(out, result<void>());
    }
    if (engine_failed()) return fail(engine_failure_);
    const const_buffer piece(data.front().data(), std::min(data.front().size(), tls_record_size));
    std::size_t n = 0;
    switch (call([&](tls_engine& e) { return e.write(piece, n); })) {
      case tls_status::ok:
        data.advance(n);
        if (data.rests() || (!data.done() && core().share_spent())) return progress::again;
        break;
      case tls_status::again: break;
      case tls_status::want_input: {
        flush_soon();
        if (!must_pull()) break;
        const progress p = pipe_.rx_eof ? progress::done : pull(write_side, failure);
        if (p == progress::waiting) writer_awaits_input_ = true;
        if (p != progress::done) return p;
        if (pipe_.rx_eof) return fail(errc::broken_resource);
        if (failure.code() != errc::ok) return fail(failure);
        break;
      }
      case tls_status::closed:
      case tls_status::truncated: flush_soon(); return fail(errc::broken_resource);
      case tls_status::failed:
        flush_soon();  // the alert
        return fail(engine_failure_);
    }
  }
  return progress::again;
}

// --- the end

/// Appends the close_notify, once, if the connection is established.
ANYIO_NET_FN void tls_resource::say_goodbye() {
  if (!established_ || engine_failed() || detail::exchange(goodbye_said_, true)) return;
  call([](tls_engine& e) { return e.close(); });
}

ANYIO_NET_FN progress tls_resource::send_eof(result<void>& out) {
  if (!eof_sent_ && !engine_failed()) {
    if (engine_->info().version != "TLSv1.3") {
      // Under TLS 1.2 the peer would have to answer with its own close_notify and drop unsent data.
      return complete<progress::done>(out,
                                      error_access::with_reason(error(errc::not_supported, 0, "send_eof"),
                                                                "TLS 1.2 cannot close only one direction"));
    }
    eof_sent_ = true;
    say_goodbye();
  }
  error failure = write_failure_;
  const progress p = failure.code() == errc::ok ? flush(failure) : progress::done;
  if (p != progress::done) return p;
  if (failure.code() == errc::ok) failure = engine_failure_;
  if (failure.code() == errc::ok) return complete<progress::done>(out, result<void>());
  return complete<progress::done>(out, error_access::with_operation(failure, "send_eof"));
}

ANYIO_NET_FN progress tls_resource::finish() {
  relays_[read_side].leave();
  reader_awaits_flush_ = false;
  if (inner_->gone()) return progress::done;
  if (standard_compatible_) say_goodbye();
  error failure;
  if (inner_->open() && write_failure_.code() == errc::ok) {
    progress p = flush(failure);
    if (p == progress::waiting) reader_awaits_flush_ = true;
    if (p != progress::done) return p;
  }
  inner_->begin_closing();
  const progress p = inner_->finish();
  if (p == progress::waiting) relays_[read_side].join(*inner_);
  return p;
}

ANYIO_NET_COLD void tls_resource::end_without_waiting() {
  if (standard_compatible_) say_goodbye();
  error failure;
  exhausted[write_side] = false;  // there may be room again
  if (inner_->open() && write_failure_.code() == errc::ok) {
    for (int i = 0; i < 1024 && flush(failure) == progress::again; ++i) {  // as far as possible
    }
  }
  // Sent data would be lost if received data is unread: closing such a socket resets the connection. The
  // unread data may be tickets, of which no user knows.
  constexpr int reads = 64;
  std::byte room[tls_least_room];
  for (int i = 0; i < reads && relays_[read_side].enter(*inner_) == errc::ok; ++i) {
    result<std::size_t> n(errc::cancelled);
    inner_->exhausted[read_side] = false;
    if (inner_->receive(room, n) != progress::done || !n.has_value()) break;
  }
}

ANYIO_NET_FN void tls_resource::shut() noexcept {
  if (transport_ == nullptr) return;  // unwrapped
  // In a forked child the connection belongs to the parent, which still sends and reads.
  if (!core().inherited()) static_cast<void>(call_without_throwing([this] { end_without_waiting(); }));
  relays_[read_side].leave();
  relays_[write_side].leave();
  transport_->close();
}

ANYIO_NET_FN progress tls_resource::unwrap(result<tls_unwrapped>& out) {
  const auto fail = [&](const error& e) {
    return complete<progress::done>(out, error_access::with_operation(e, tls_unwrap_operation::name));
  };
  if (engine_failed()) return fail(engine_failure_);
  eof_sent_ = true;
  say_goodbye();
  error failure = write_failure_;
  if (failure.code() == errc::ok) {
    const progress p = flush(failure);
    if (p != progress::done) return p;
  }
  if (failure.code() != errc::ok) return fail(failure);
  if (read_failure_.code() == errc::ok && held_.empty()) {
    const mutable_buffer room = core().buffer();
    std::size_t n = 0;
    progress p;
    const tls_status status = read(room, n, p, failure);
    if (status == tls_status::again) return p;
    if (status == tls_status::ok) held_.append(const_buffer(room.data(), n));
    if (status == tls_status::failed) return fail(failure);
  }
  if (!held_.empty())
    return fail(error_access::with_reason(errc::tls, "data from the peer was not received"));
  if (read_failure_ != errc::end_of_stream) return fail(read_failure_);
  std::string rest(incoming_.view());
  relays_[read_side].leave();
  relays_[write_side].leave();
  out = tls_unwrapped(std::move(transport_), std::move(rest));
  incoming_.consume(incoming_.size());
  close();
  return progress::done;
}

}  // namespace detail

}}  // namespace anyio
