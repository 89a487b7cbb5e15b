// The operations of byte streams.
#pragma once

#include "base/exchange.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"
#include "stream/stream.hpp"

#include <cstring>
#include <string>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN slice<const ::iovec> outgoing::gather(::iovec (&into)[parts_of_call]) const noexcept {
  std::size_t room = loop_core::most_of_call;
  std::size_t n = 0;
  for (; n < parts_of_call && n < count() && room != 0; ++n) {
    const const_buffer bytes = piece(n);
    into[n] = {const_cast<std::byte*>(bytes.data()), std::min(bytes.size(), room)};
    room -= into[n].iov_len;
  }
  return {into, n};
}

ANYIO_NET_FN progress stream_resource::receive_view(std::size_t max_bytes, result<std::string_view>& out) {
  const mutable_buffer room = core().buffer();
  result<std::size_t> size = result_access::room<std::size_t>();
  const progress p = receive(mutable_buffer(room.data(), std::min(max_bytes, room.size())), size);
  if (p != progress::done) return p;
  if (size.has_value()) {
    out = std::string_view(reinterpret_cast<const char*>(room.data()), *size);
  } else {
    out = size.error();
  }
  return progress::done;
}

}  // namespace detail

ANYIO_NET_FN errc send_operation::check() const noexcept {
  const errc e = resource_operation::check();
  if (e == errc::ok && resource_->eof_sent()) return errc::closed_resource;
  return e;
}

/// Goes on after `send_whole`, whose status this is.
ANYIO_NET_FN bool send_operation::transfer_rest(ssize_t status, result<void>& out) {
  if (detail::exchange(restart_, false)) {
    sent_ = 0;
    bytes_.start_over();
    if (!parts_.empty()) bytes_.set_view({});
  }
  if (settle(status < 0       ? resource_->failed_send(status, out)
             : parts_.empty() ? transfer_piece(out)
                              : transfer_parts(out)))
    return true;
  keep_loan();
  return false;
}

ANYIO_NET_FN detail::progress send_operation::transfer_piece(result<void>& out) {
  const const_buffer all = bytes_.data();
  const std::size_t done = sent_ - bytes_.dropped();
  const const_buffer rest(all.data() + done, all.size() - done);
  detail::outgoing piece({&rest, 1});
  const detail::progress p = resource_->send(piece, out);
  sent_ += piece.sent();
  return p;
}

ANYIO_NET_FN detail::progress send_operation::transfer_parts(result<void>& out) {
  detail::outgoing data = rest_of_parts();
  const detail::progress p = data.rests() ? detail::progress::again : resource_->send(data, out);
  sent_ += data.sent();
  bytes_.set_view(const_buffer(data.parts().data(), data.offset()));
  return p;
}

ANYIO_NET_FN detail::outgoing send_operation::rest_of_parts() const noexcept {
  const const_buffer place = bytes_.data();
  if (place.data() == nullptr) return detail::outgoing(parts_);
  const auto* first = static_cast<const const_buffer*>(static_cast<const void*>(place.data()));
  return detail::outgoing({first, parts_.data() + parts_.size()}, place.size());
}

// A view that the caller received earlier is no longer valid, so this looks only for bytes that were lent
// just now, and only among few pieces. With many pieces, or many bytes to copy, it keeps the whole buffer.
ANYIO_NET_COLD void send_operation::keep_loan() {
  if (!resource_) return;
  const detail::loop_core& loop = resource_->core();
  if (parts_.empty()) return bytes_.keep(loop, sent_ - bytes_.dropped());
  if (!loop.buffer_was_lent()) return;
  const detail::outgoing rest = rest_of_parts();
  if (rest.rests() || rest.count() > detail::outgoing::parts_of_call) return bytes_.keep_buffer(loop);
  bool lent = false;
  std::size_t size = 0;
  for (std::size_t i = 0; i < rest.count(); ++i) {
    lent = lent || loop.in_buffer(rest.piece(i).data());
    size += rest.piece(i).size();
  }
  if (!lent) return;
  if (size > detail::loop_core::buffer_size) return bytes_.keep_buffer(loop);
  std::string owned(size, '\0');
  char* to = owned.data();
  for (std::size_t i = 0; i < rest.count(); ++i) {
    const const_buffer piece = rest.piece(i);
    if (!piece.empty()) std::memcpy(to, piece.data(), piece.size());
    to += piece.size();
  }
  bytes_ = detail::lent_bytes(std::move(owned), sent_);
  parts_ = {};
}

ANYIO_NET_FN bool send_operation::attempt(result<void>& out) {
  return found_.is_set() ? found_.get(out) : attempt_at_once(out);
}

ANYIO_NET_COLD void send_operation::begin_rest(ssize_t status) {
  result<void> out;
  if (transfer_rest(status, out)) found_.set(out);
}

ANYIO_NET_FN errc aclose_operation::enter() noexcept {
  if (!begun_ && resource_ && resource_->open()) start_closing();
  if (begun_) resource_->set_waiting(detail::read_side, this);
  return errc::ok;
}

// The waiting operations are woken before this operation takes the reader's place.
ANYIO_NET_FN void aclose_operation::start_closing() noexcept {
  constexpr std::chrono::seconds patience(1);
  begun_ = true;
  resource_->begin_closing();
  detail::loop_core& loop = resource_->core();
  loop.arm(patience_, detail::add(loop.now(), patience), *this);
}

ANYIO_NET_FN bool aclose_operation::attempt(result<void>& out) {
  if (!resource_ || resource_->gone() || (!begun_ && !resource_->open())) {
    out = result<void>();  // closed, or another operation is closing it already
    return true;
  }
  if (!begun_) start_closing();
  if (patience_.armed() && !settle(resource_->finish())) return false;
  patience_.cancel();
  begun_ = false;
  resource_->close();
  out = result<void>();
  return true;
}

ANYIO_NET_FN void aclose_operation::left() noexcept { abandon(); }

ANYIO_NET_FN void aclose_operation::abandon() noexcept {
  patience_.cancel();
  if (detail::exchange(begun_, false) && resource_) resource_->close();
}

ANYIO_NET_FN aclose_operation& aclose_operation::operator=(aclose_operation&& other) noexcept {
  abandon();
  stream_operation::operator=(std::move(other));
  return *this;
}

ANYIO_NET_FN aclose_operation::~aclose_operation() { abandon(); }

ANYIO_NET_FN byte_stream& byte_stream::operator=(byte_stream&& other) noexcept {
  if (this == &other) return *this;
  close();
  resource_ = std::move(other.resource_);
  return *this;
}

ANYIO_NET_FN byte_stream::~byte_stream() { close(); }

}}  // namespace anyio
