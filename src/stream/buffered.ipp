// Reading ahead, and taking bytes from the buffer.
#pragma once

#include "base/owned.hpp"
#include "base/standard.hpp"
#include "stream/buffered.hpp"

#include <cstring>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

// --- the stream's resource

ANYIO_NET_FN buffered_resource::buffered_resource(ref<stream_resource> inner, byte_stream& object,
                                                  std::unique_ptr<byte_stream> owned,
                                                  detail::owned<fd_keeper> fds) noexcept
    : stream_resource(inner->core()),
      keeper(std::move(fds)),
      inner_(std::move(inner)),
      object_(object),
      owned_(std::move(owned)),
      relays_{{*this, read_side}, {*this, write_side}} {
  exhausted[read_side] = exhausted[write_side] = true;  // see `relay::enter`
}

ANYIO_NET_FN buffered_resource::~buffered_resource() = default;

/// Calls a verb of the inner stream, and waits there if the verb has to wait.
template <class T, class Verb>
progress buffered_resource::pass(side s, const char* name, result<T>& out, Verb verb) {
  if (const errc e = relays_[s].enter(*inner_); e != errc::ok)
    return complete<progress::done>(out, error(e, 0, name));
  const progress p = verb(*inner_);
  if (p == progress::waiting) relays_[s].join(*inner_);
  return p;
}

[[gnu::always_inline]] inline progress buffered_resource::read_view(std::size_t max_bytes,
                                                                    result<std::string_view>& out) {
  return pass(read_side, "receive", out, [&](stream_resource& inner) {
    if (keeper != nullptr) [[unlikely]]
      return keep_fds(max_bytes, out);
    return inner.receive_view(max_bytes, out);
  });
}

ANYIO_NET_COLD progress buffered_resource::keep_fds(std::size_t max_bytes, result<std::string_view>& out) {
  const mutable_buffer room = core().buffer();
  result<std::size_t> n(errc::cancelled);
  const progress p = keeper->receive(mutable_buffer(room.data(), std::min(room.size(), max_bytes)), n);
  if (p != progress::done) return p;
  if (!n.has_value()) return complete<progress::done>(out, n.error());
  return complete<progress::done>(out, std::string_view(reinterpret_cast<const char*>(room.data()), *n));
}

ANYIO_NET_FN progress buffered_resource::fill(std::size_t at_most, result<std::size_t>& out) {
  if (bytes.has_memory()) {
    const mutable_buffer room =
        bytes.prepare(std::min(at_most, std::max(bytes.size(), byte_queue::least) / 2));
    const progress p = fill_directly(mutable_buffer(room.data(), std::min(at_most, room.size())), out);
    if (p == progress::done && out.has_value()) bytes.commit(*out);
    return p;
  }
  result<std::string_view> view(errc::cancelled);  // so that a stream that waits holds no memory
  const progress p = read_view(at_most, view);
  if (p != progress::done) return p;
  if (view.has_value()) {
    bytes.append(*view);
    out = view->size();
  } else {
    out = view.error();
  }
  return p;
}

ANYIO_NET_FN progress buffered_resource::fill_directly(mutable_buffer into, result<std::size_t>& out) {
  return pass(read_side, "receive", out, [&](stream_resource& inner) {
    return keeper == nullptr ? inner.receive(into, out) : keeper->receive(into, out);
  });
}

ANYIO_NET_FN progress buffered_resource::receive(mutable_buffer into, result<std::size_t>& out) {
  if (bytes.empty()) {
    if (into.size() >= byte_queue::least) return fill_directly(into, out);
    if (keeper != nullptr) keeper->wanted = into.size();
    const progress p = fill(byte_queue::least, out);
    if (p != progress::done || !out.has_value()) return p;
  }
  const std::size_t n = std::min(bytes.size(), into.size());
  std::memcpy(into.data(), bytes.view().data(), n);
  bytes.consume(n);
  return complete<progress::done>(out, n);
}

ANYIO_NET_FN progress buffered_resource::receive_view(std::size_t max_bytes, result<std::string_view>& out) {
  if (bytes.empty() && max_bytes >= byte_queue::least) return read_view(max_bytes, out);
  // A view of the loop's buffer may be sent on, and stays valid after this stream has been closed.
  const mutable_buffer room = core().buffer();
  result<std::size_t> size(errc::cancelled);
  const progress p = receive(mutable_buffer(room.data(), std::min(room.size(), max_bytes)), size);
  if (p != progress::done) return p;
  if (size.has_value()) {
    out = std::string_view(reinterpret_cast<const char*>(room.data()), *size);
  } else {
    out = size.error();
  }
  return p;
}

ANYIO_NET_FN progress buffered_resource::send(outgoing& data, result<void>& out) {
  return pass(write_side, "send", out, [&](stream_resource& inner) {
    if (!inner.eof_sent()) return inner.send(data, out);
    return complete<progress::done>(out, error(errc::closed_resource, 0, "send"));
  });
}

ANYIO_NET_FN progress buffered_resource::send_eof(result<void>& out) {
  const progress p =
      pass(write_side, "send_eof", out, [&](stream_resource& inner) { return inner.send_eof(out); });
  if (p == progress::done && out.has_value()) eof_sent_ = true;
  return p;
}

ANYIO_NET_FN progress buffered_resource::finish() {
  relays_[read_side].leave();
  if (inner_->gone()) return progress::done;
  inner_->begin_closing();
  const progress p = inner_->finish();
  if (p == progress::waiting) relays_[read_side].join(*inner_);
  return p;
}

ANYIO_NET_FN void buffered_resource::shut() noexcept {
  relays_[read_side].leave();
  relays_[write_side].leave();
  if (!let_go_) inner_->close();
}

ANYIO_NET_FN void buffered_resource::let_go() noexcept {
  let_go_ = owned_ == nullptr;
  close();
}

// --- its operations

ANYIO_NET_FN error read_failure(error e, bool bytes_are_left, const char* name) noexcept {
  if (e == errc::end_of_stream && bytes_are_left) return error(errc::incomplete_read, 0, name);
  return error_access::with_operation(e, name);
}

ANYIO_NET_FN progress buffered_resource::gather(std::size_t size, const char* name, error& failure) {
  for (int reads = 0; bytes.size() < size; ++reads) {
    if (reads == calls_of_attempt || (reads != 0 && core().share_spent())) return progress::again;
    if (keeper != nullptr) keeper->wanted = size - bytes.size();
    result<std::size_t> n(errc::cancelled);
    const progress p = fill(std::max(size - bytes.size(), byte_queue::least), n);
    if (p != progress::done) return p;
    if (n.has_value()) continue;
    failure = read_failure(n.error(), !bytes.empty(), name);
    break;
  }
  return progress::done;
}

ANYIO_NET_FN progress buffered_resource::take_exactly(void* into, std::size_t size, const char* name,
                                                      error& failure) {
  const progress p = gather(size, name, failure);
  if (p != progress::done || failure.code() != errc::ok) return p;
  std::memcpy(into, bytes.view().data(), size);
  bytes.consume(size);
  return p;
}

ANYIO_NET_FN bool receive_exactly_string_operation::attempt(result<std::string>& out) {
  error failure;
  const progress p = resource_->gather(size_, name, failure);
  if (p == progress::again) again = true;
  if (p != progress::done) return false;
  if (failure.code() != errc::ok) return complete(out, failure);
  out = std::string(resource_->bytes.view().substr(0, size_));
  resource_->bytes.consume(size_);
  return true;
}

ANYIO_NET_FN bool receive_exactly_operation::attempt(result<void>& out) {
  byte_queue& bytes = resource_->bytes;
  const auto take = [&](std::size_t n) {
    if (n == 0) return;
    std::memcpy(into_.data() + filled_, bytes.view().data(), n);
    bytes.consume(n);
    filled_ += n;
  };
  for (int reads = 0; filled_ + bytes.size() < into_.size(); ++reads) {
    if (reads == calls_of_attempt || (reads != 0 && resource_->core().share_spent())) {
      again = true;
      return false;
    }
    result<std::size_t> n(errc::cancelled);
    progress p = progress::done;
    if (resource_->keeper != nullptr) resource_->keeper->wanted = into_.size() - filled_ - bytes.size();
    if (into_.size() - filled_ - bytes.size() < byte_queue::least) {
      p = resource_->fill(byte_queue::least, n);
    } else {
      take(bytes.size());
      p = resource_->fill_directly(mutable_buffer(into_.data() + filled_, into_.size() - filled_), n);
      if (p == progress::done && n.has_value()) filled_ += *n;
    }
    if (p == progress::again) again = true;
    if (p != progress::done) return false;
    if (!n.has_value()) return fail(n.error(), out);
  }
  take(into_.size() - filled_);
  filled_ = 0;
  return complete(out, result<void>());
}

ANYIO_NET_FN bool receive_exactly_operation::fail(error e, result<void>& out) {
  put_back();
  return complete(out, read_failure(e, !resource_->bytes.empty(), name));
}

ANYIO_NET_FN void receive_exactly_operation::put_back() {
  if (filled_ != 0) resource_->bytes.put_back(const_buffer(into_.data(), filled_));
  filled_ = 0;
}

ANYIO_NET_FN void receive_exactly_operation::left() noexcept {
  if (call_without_throwing([this] { put_back(); })) return;
  filled_ = 0;
  resource_->close();  // no read may continue after the lost bytes
}

ANYIO_NET_FN receive_exactly_operation& receive_exactly_operation::operator=(
    receive_exactly_operation&& other) noexcept {
  withdraw();
  resource_operation::operator=(std::move(other));
  into_ = other.into_;
  return *this;
}

ANYIO_NET_FN receive_exactly_operation::~receive_exactly_operation() { withdraw(); }

ANYIO_NET_FN bool receive_until_operation::attempt(result<std::string>& out) {
  byte_queue& bytes = resource_->bytes;
  for (int reads = 0;; ++reads) {
    const std::string_view content = bytes.view();
    if (const std::size_t at = content.find(delimiter_, searched_); at != std::string_view::npos) {
      const bool cr = line_ && at != 0 && content[at - 1] == '\r';
      result_access::complete_by(out, [&] { return std::string(content.substr(0, at - (cr ? 1 : 0))); });
      bytes.consume(at + delimiter_.size());
      searched_ = 0;
      return true;
    }
    searched_ = content.size() < delimiter_.size() ? 0 : content.size() - delimiter_.size() + 1;
    if (content.size() >= max_bytes_) return fail(errc::delimiter_not_found, out);
    if (reads == calls_of_attempt || (reads != 0 && resource_->core().share_spent())) {
      again = true;
      return false;
    }
    if (resource_->keeper != nullptr)
      resource_->keeper->last_wanted = static_cast<unsigned char>(delimiter_.back());
    result<std::size_t> n(errc::cancelled);
    const progress p = resource_->fill(std::min(max_bytes_ - content.size(), byte_queue::least), n);
    if (p == progress::again) again = true;
    if (p != progress::done) return false;
    if (!n.has_value()) return fail(n.error(), out);
  }
}

ANYIO_NET_FN bool receive_until_operation::fail(error e, result<std::string>& out) {
  searched_ = 0;
  return complete(out, read_failure(e, !resource_->bytes.empty(), operation_name()));
}

ANYIO_NET_FN void receive_until_operation::left() noexcept { searched_ = 0; }

}  // namespace detail

// --- the stream

ANYIO_NET_FN buffered_stream::buffered_stream(byte_stream& inner) {
  if (const auto& r = detail::stream_access::resource_of(inner))
    resource_ = detail::ref<detail::stream_resource>(new detail::buffered_resource(r, inner, nullptr));
}

ANYIO_NET_FN buffered_stream::buffered_stream(std::unique_ptr<byte_stream> inner) {
  byte_stream* const object = inner.get();
  if (object == nullptr || !detail::stream_access::resource_of(*object)) return;
  const detail::ref<detail::stream_resource> r = detail::stream_access::resource_of(*object);
  resource_ =
      detail::ref<detail::stream_resource>(new detail::buffered_resource(r, *object, std::move(inner)));
}

ANYIO_NET_FN buffered_stream& buffered_stream::operator=(buffered_stream&& other) noexcept {
  if (this == &other) return *this;
  let_go();
  byte_stream::operator=(std::move(other));
  return *this;
}

ANYIO_NET_FN buffered_stream::~buffered_stream() { let_go(); }

ANYIO_NET_FN void buffered_stream::let_go() noexcept {
  if (resource_) own()->let_go();
}

ANYIO_NET_FN void buffered_stream::feed_data(const_buffer data) {
  if (!resource_ || data.empty()) return;
  auto& r = static_cast<detail::buffered_resource&>(*resource_);
  r.bytes.append(data);
  if (r.keeper != nullptr) r.keeper->arrived += data.size();
  r.withdrawn(detail::read_side);  // the waiter looks here first, and gives up its place at the inner stream
  r.wake(detail::read_side);
}

ANYIO_NET_FN std::string_view buffered_stream::buffer() const noexcept {
  return resource_ ? own()->bytes.view() : std::string_view();
}

ANYIO_NET_FN socket_stream* buffered_stream::socket() noexcept {
  return resource_ ? own()->socket() : nullptr;
}

}}  // namespace anyio
