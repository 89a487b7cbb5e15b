// The handshake, and unwrapping, as operations.
#pragma once

#include "base/exchange.hpp"
#include "base/standard.hpp"
#include "stream/socket.hpp"
#include "tls/tls_stream.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

// --- unwrapping as an operation

ANYIO_NET_FN errc tls_unwrap_operation::check() const noexcept {
  if (!made) return errc::invalid_argument;
  if (!resource_ || !resource_->open()) return errc::closed_resource;
  for (const side s : {read_side, write_side})
    if (resource_->waiting(s) != nullptr && resource_->waiting(s) != this) return errc::busy_resource;
  return errc::ok;
}

ANYIO_NET_FN errc tls_unwrap_operation::enter() noexcept {
  resource_->set_waiting(read_side, this);
  resource_->set_waiting(write_side, this);
  return errc::ok;
}

ANYIO_NET_FN bool tls_unwrap_operation::attempt(result<tls_unwrapped>& out) {
  if (!resource_->open()) return complete(out, error(errc::closed_resource, 0, name));
  const progress p = resource_->unwrap(out);
  if (p == progress::again) again = true;
  return p == progress::done;
}

ANYIO_NET_FN void tls_unwrap_operation::left() noexcept {
  if (!resource_) return;
  for (const side s : {read_side, write_side}) {
    if (resource_->waiting(s) != this) continue;
    resource_->set_waiting(s, nullptr);
    resource_->withdrawn(s);
  }
}

ANYIO_NET_FN void tls_unwrap_operation::refresh() noexcept {
  if (resource_) resource_->exhausted[read_side] = resource_->exhausted[write_side] = false;
}

ANYIO_NET_FN loop_core& tls_unwrap_operation::home() const {
  return resource_ && resource_->core().alive() ? resource_->core() : loop_core::current();
}

ANYIO_NET_FN tls_unwrap_operation& tls_unwrap_operation::operator=(tls_unwrap_operation&& other) noexcept {
  if (this == &other) return *this;
  left();
  operation::operator=(std::move(other));
  resource_ = std::move(other.resource_);
  return *this;
}

}  // namespace detail

// --- the handshake as an operation

ANYIO_NET_FN tls_wrap_operation::tls_wrap_operation(bool client, std::unique_ptr<byte_stream> transport,
                                                    std::shared_ptr<tls_context> context,
                                                    const tls_options& options)
    : operation(true),
      transport_(std::move(transport)),
      context_(std::move(context)),
      server_name_(options.server_name),
      limit_(detail::to_duration(options.handshake_timeout)),
      client_(client),
      standard_compatible_(options.standard_compatible) {}

ANYIO_NET_FN tls_wrap_operation& tls_wrap_operation::operator=(tls_wrap_operation&& other) noexcept {
  if (this == &other) return *this;
  left();
  operation::operator=(std::move(other));
  transport_ = std::move(other.transport_);
  context_ = std::move(other.context_);
  server_name_ = std::move(other.server_name_);
  remote = other.remote;
  resource_ = std::move(other.resource_);
  limit_ = other.limit_;
  client_ = other.client_;
  standard_compatible_ = other.standard_compatible_;
  timed_ = other.timed_;
  return *this;
}

ANYIO_NET_FN errc tls_wrap_operation::check() const noexcept {
  if (!made || context_ == nullptr) return errc::invalid_argument;
  if (resource_) return resource_->open() ? errc::ok : errc::closed_resource;
  if (transport_ == nullptr || !*transport_) return errc::closed_resource;
  const auto& inner = *detail::stream_access::resource_of(*transport_);
  const bool taken =
      inner.waiting(detail::read_side) != nullptr || inner.waiting(detail::write_side) != nullptr;
  return taken ? errc::busy_resource : errc::ok;
}

ANYIO_NET_FN errc tls_wrap_operation::enter() noexcept {
  take_places();
  return errc::ok;
}

ANYIO_NET_FN detail::loop_core& tls_wrap_operation::home() const {
  if (resource_ && resource_->core().alive()) return resource_->core();
  if (transport_ != nullptr && *transport_) return detail::stream_access::resource_of(*transport_)->core();
  return detail::loop_core::current();
}

/// Both sides belong to this operation until the handshake is over.
ANYIO_NET_FN void tls_wrap_operation::take_places() noexcept {
  if (!resource_) return;
  resource_->set_waiting(detail::read_side, this);
  resource_->set_waiting(detail::write_side, this);
}

ANYIO_NET_FN bool tls_wrap_operation::begin_handshake(result<tls_stream>& out) {
  if (remote == ip_endpoint()) {
    if (socket_stream* const socket = transport_->socket())
      remote = detail::remote_address_of(home().system(), socket->native_handle()).endpoint();
  }
  const detail::ref<detail::tls_resource> begun(
      new detail::tls_resource(std::move(transport_), context_, standard_compatible_));
  begun->remote = remote;
  const bool willing = begun->make_engine(client_, server_name_);  // a user's context may throw
  resource_ = begun;
  if (willing) return true;
  out = detail::error_access::with_reason(
      error(errc::invalid_argument, 0, name),
      client_ ? "server_name is required to verify the peer" : "the context has no certificate");
  return false;
}

ANYIO_NET_FN bool tls_wrap_operation::attempt(result<tls_stream>& out) {
  if (!resource_) {
    if (!begin_handshake(out)) return true;
    if (pending()) take_places();
  }
  if (!resource_->open()) return detail::complete(out, error(errc::closed_resource, 0, name));
  result<void> r;
  const detail::progress p = resource_->handshake(r);
  if (p == detail::progress::done) {
    if (r.has_value()) {
      resource_->set_waiting(detail::read_side, nullptr);
      resource_->set_waiting(detail::write_side, nullptr);
      out = tls_stream(std::move(resource_));
    } else {
      out = r.error();
    }
    return true;
  }
  if (!detail::exchange(timed_, true)) {
    detail::loop_core& loop = home();
    loop.arm(patience_, detail::add(loop.now(), std::max(limit_, duration::zero())), *this);
  } else if (!patience_.armed()) {
    return detail::complete(out, error(errc::timed_out, 0, name));
  }
  if (p == detail::progress::again) again = true;
  return false;
}

/// A handshake that did not complete closes the transport.
ANYIO_NET_FN void tls_wrap_operation::left() noexcept {
  patience_.cancel();
  made = timed_ = false;
  if (resource_) {
    const detail::ref<detail::tls_resource> failed = std::move(resource_);
    failed->set_waiting(detail::read_side, nullptr);
    failed->set_waiting(detail::write_side, nullptr);
    failed->close();
  }
  transport_.reset();
  context_.reset();
}

ANYIO_NET_FN void tls_wrap_operation::refresh() noexcept {
  if (resource_) resource_->exhausted[detail::read_side] = resource_->exhausted[detail::write_side] = false;
}

ANYIO_NET_FN socket_stream* tls_stream::socket() noexcept {
  return resource_ && own().transport() != nullptr ? own().transport()->socket() : nullptr;
}

}}  // namespace anyio
