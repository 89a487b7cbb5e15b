// Accepting TLS connections one by one.
#pragma once

#include "base/exchange.hpp"
#include "base/owned.hpp"
#include "tls/tls_listener.hpp"

#include <cerrno>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN tls_wrap_operation tls_server_settings::wrap(tcp_stream&& connection) const {
  tls_options options;
  options.standard_compatible = standard_compatible;
  options.handshake_timeout = handshake_timeout;
  const ip_endpoint remote = connection.remote_endpoint();
  tls_wrap_operation op(false, std::make_unique<tcp_stream>(std::move(connection)), context, options);
  op.remote = remote;
  return op;
}

ANYIO_NET_FN tls_accepting::~tls_accepting() { close(); }

ANYIO_NET_FN bool tls_accepting::next(result<tls_stream>& out) {
  if (!ready_.empty()) {
    auto* const first = static_cast<handshake*>(ready_.next);
    out = std::move(first->stream);
    forget(first);
    return true;
  }
  if (settings_.context == nullptr) failure_ = error(errc::invalid_argument, 0, "accept");
  if (failure_.code() != errc::ok) return complete(out, detail::exchange(failure_, error()));
  if (!accept_.pending()) {
    accept_ = accept_operation<tcp_stream>(listener_);
    accept_.start(part<&tls_accepting::accepted>(this));
  }
  return false;
}

/// No `accept` is pending any more.
ANYIO_NET_FN void tls_accepting::withdrawn(side) noexcept {
  accept_ = {};
  failure_ = error();
}

ANYIO_NET_FN void tls_accepting::accepted(result<tcp_stream>&& r) {
  const error no_memory(errc::os_error, ENOMEM, "accept");
  if (!r.has_value()) {
    failure_ = result_access::is_foreign(r) ? no_memory : r.error();
    return wake(read_side);
  }
  const bool begins = call_without_throwing([&] {
    owned<handshake> begun(new handshake);
    begun->op = settings_.wrap(*std::move(r));
    begun->op.start(part<&tls_accepting::shaken>(this, begun.get()));
    handshakes_.push_back(*begun.release());
  });
  if (!begins) {
    failure_ = no_memory;
    return wake(read_side);
  }
  if (waiting(read_side) == nullptr) return;
  accept_ = accept_operation<tcp_stream>(listener_);
  accept_.start(part<&tls_accepting::accepted>(this));
}

ANYIO_NET_FN void tls_accepting::shaken(handshake* which, result<tls_stream>&& r) {
  if (!r.has_value()) return forget(which);
  which->stream = *std::move(r);
  which->unlink();
  ready_.push_back(*which);
  wake(read_side);
}

ANYIO_NET_FN void tls_accepting::shut() noexcept {
  accept_ = {};
  for (list* const all : {&handshakes_, &ready_})
    while (link* const l = all->pop_front()) forget(static_cast<handshake*>(l));
}

}  // namespace detail

ANYIO_NET_FN accept_operation<tls_stream> tls_listener::accept() {
  const auto& listening = detail::listener_access::resource_of(listener_);
  if (!accepting_ && listening)
    accepting_ = detail::ref<detail::tls_accepting>(new detail::tls_accepting(listening, settings_));
  return accept_operation<tls_stream>(accepting_);
}

ANYIO_NET_FN void tls_listener::close() noexcept {
  listener_.close();
  if (accepting_) accepting_->close();
}

ANYIO_NET_FN tls_listener& tls_listener::operator=(tls_listener&& other) noexcept {
  if (this == &other) return *this;
  close();
  listener_ = std::move(other.listener_);
  settings_ = std::move(other.settings_);
  accepting_ = std::move(other.accepting_);
  return *this;
}

}}  // namespace anyio
