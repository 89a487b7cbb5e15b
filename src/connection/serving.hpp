// Serving connections, each with a handler of its own.
//
// Handlers are kept apart: an error that escapes a handler closes only that connection. This part must not
// know how a listener was made.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/standard.hpp"
#include "connection/accept.hpp"
#include "loop/loop.hpp"
#include "operation/part.hpp"
#include "operation/synchronization.hpp"
#include "operation/task_group.hpp"
#include "stream/socket.hpp"

#include <concepts>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#if ANYIO_NET_EXCEPTIONS
#include <exception>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {
/// How `serve` accepts connections.
struct serve_options {
  std::size_t max_connections = 0;  ///< 0: no limit; at the limit accepting pauses
  /// For a `tls_listener`: the maximum number of TLS connections that are not established yet; at the limit
  /// accepting pauses. If it is set, handshakes are not counted in `max_connections`. If it is 0, they are,
  /// and have no limit of their own.
  std::size_t max_handshakes = 0;
};

namespace detail {

#if ANYIO_NET_EXCEPTIONS
/// Prints an exception that nobody handles to stderr.
void print_exception(const char* where, const std::exception_ptr& e);
#endif

/// Whether a handler takes only the stream, or also the event that tells that the server stops.
template <class Handler, class Stream>
concept takes_stream = std::is_invocable_v<Handler&, Stream>;
template <class Handler, class Stream>
concept takes_stopping = !takes_stream<Handler, Stream> && std::is_invocable_v<Handler&, Stream, event&>;
template <class Handler, class Stream>
concept connection_handler = takes_stream<Handler, Stream> || takes_stopping<Handler, Stream>;

/// The peer of an accepted connection, for an error handler that takes it.
inline ip_endpoint peer_of(const tcp_stream& s) { return s.remote_endpoint(); }
inline std::string peer_of(const unix_stream& s) { return s.remote_path(); }
template <class Stream>
using peer_t = decltype(peer_of(std::declval<const Stream&>()));

/// Whether an error handler takes only the error, or also the peer.
template <class OnError>
concept takes_error = std::is_invocable_v<OnError&, const error&>;
template <class OnError, class Peer>
concept takes_peer = !takes_error<OnError> && std::is_invocable_v<OnError&, const error&, const Peer&>;
template <class OnError, class Peer>
concept error_handler = takes_error<OnError> || takes_peer<OnError, Peer>;

#if ANYIO_NET_EXCEPTIONS
/// Whether an error handler also takes foreign exceptions. A generic lambda does not: it is for errors, and a
/// test whether it can be called with another type would compile its body.
template <class OnError>
concept takes_exceptions =
    !requires { &OnError::template operator()<error>; } && std::is_invocable_v<OnError&, std::exception_ptr>;
template <class OnError, class Peer>
concept takes_exceptions_and_peer = !takes_exceptions<OnError> && !requires {
  &OnError::template operator()<error, Peer>;
} && std::is_invocable_v<OnError&, std::exception_ptr, const Peer&>;
#endif

/// The base of a handler that begins with a handshake. It counts the established connections, and reports
/// each of them to `serving`.
struct handshaking {};

/// The state of a pending `serve`. It has its own memory block, since its handlers refer to it.
template <class Stream, class Handler, class OnError>
class serving final : public outcome_sink {
 public:
  serving(ref<listener_resource> listener, Handler&& handler, OnError&& on_error, serve_options options)
      : listener_(std::move(listener)),
        handler_(std::move(handler)),
        on_error_(keep(std::move(on_error))),
        options_(options) {
    task_group_access::set_sink(handlers_, *this);
    if constexpr (has_handshakes) handler_.serve_with(options_, &serving::established, this);
    news_.how = &problem_news::face_of_news;
    news_.self = this;
  }
  ~serving() {
    if (listener_->server != &news_) return;
    listener_->server = nullptr;
    listener_->tell_closed = nullptr;
  }
  serving(const serving&) = delete;
  serving& operator=(const serving&) = delete;

  [[nodiscard]] errc check() const noexcept {
    // A listener that was closed before `serve` could begin has no connection left to serve.
    if (!listener_->open()) return was_open_ ? errc::ok : errc::closed_resource;
    const bool taken = listener_->server != nullptr || listener_->waiting(read_side) != nullptr;
    return taken ? errc::busy_resource : errc::ok;
  }
  void begin(node& server) {
    server_ = &server;
    listener_->server = &news_;
    if constexpr (has_stopping) listener_->tell_closed = &serving::closed;
    accept_ = accept_operation<Stream>(listener_, &news_);
    accept_next();
  }
  [[nodiscard]] bool begun() const noexcept { return server_ != nullptr; }
  [[nodiscard]] bool over() const noexcept { return stopped_ && handlers_.size() == 0; }
  [[nodiscard]] const error& failure() const noexcept { return failure_; }

  void child_ended([[maybe_unused]] group_child& child, result<void>&& outcome) override {
    if (full_) accept_next();
    if (over()) server_->core->queue(*server_);
    if constexpr (has_peer) {  // last: reporting may destroy this object
      report(std::move(outcome), static_cast<callable_child<call_handler, Stream>&>(child).callable().peer);
    } else {
      report(std::move(outcome), nobody());
    }
  }
  [[nodiscard]] node* whole() const noexcept override { return server_; }

 private:
  struct nobody {};
  using peer_type = peer_t<Stream>;
  static constexpr bool has_stopping = takes_stopping<Handler, Stream>;
#if ANYIO_NET_EXCEPTIONS
  static constexpr bool has_peer =
      takes_peer<OnError, peer_type> || takes_exceptions_and_peer<OnError, peer_type>;
#else
  static constexpr bool has_peer = takes_peer<OnError, peer_type>;
#endif
  static constexpr bool has_handler = error_handler<OnError, peer_type>;
  static constexpr bool has_handshakes = std::derived_from<Handler, handshaking>;
  using peer_if_wanted = std::conditional_t<has_peer, peer_type, nobody>;

  struct call_handler {
    serving* self;
    [[no_unique_address]] peer_if_wanted peer;
    auto operator()(Stream&& stream) const {
      const stand_in inside(*self->server_);
      if constexpr (has_stopping) {
        return std::apply(self->handler_, std::forward_as_tuple(std::move(stream), self->stopping_));
      } else {
        return std::apply(self->handler_, std::forward_as_tuple(std::move(stream)));  // for any callable
      }
    }
  };
  [[nodiscard]] call_handler handler_for([[maybe_unused]] const Stream& stream) {
    if constexpr (has_peer) {
      return {this, peer_of(stream)};
    } else {
      return {this, {}};
    }
  }
  /// Runs when accepting reported a problem that did not end it.
  struct problem_news : node {
    serving* self = nullptr;
    static void run(node& n) {
      auto& news = static_cast<problem_news&>(n);
      serving& server = *news.self;
      news.retire();
      news.how = &face_of_news;
      server.report(error(server.listener_->problem), peer_if_wanted());
    }
    static void abandon(node& n) { n.retire(); }
    static node* owner(node&) { return nullptr; }
    static description describe(node&) { return {"serve"}; }
    static constexpr face face_of_news{run, abandon, owner, describe};
  };

  static void closed(node& server)
    requires has_stopping
  {
    static_cast<problem_news&>(server).self->stopping_.set();
  }
  void accept_next() {
    full_ = is_full();
    if (full_ && listener_->open()) return;
    full_ = false;
    accept_.start(part<&serving::accepted>(this));
  }
  [[nodiscard]] bool is_full() const noexcept {
    std::size_t connections = handlers_.size();
    if constexpr (has_handshakes) {
      if (options_.max_handshakes != 0) {
        const std::size_t handshakes = connections - handler_.established();
        if (handshakes >= options_.max_handshakes) return true;
        connections -= handshakes;
      }
    }
    return options_.max_connections != 0 && connections >= options_.max_connections;
  }
  static void established(void* self) {
    auto& server = *static_cast<serving*>(self);
    if (server.full_) return server.accept_next();
    if (!server.accept_.pending() || !server.is_full()) return;
    server.accept_.withdraw();
    server.full_ = true;
  }
  void accepted(result<Stream>&& r) {
#if ANYIO_NET_EXCEPTIONS
    // Memory ran out for this connection. It is closed, and the error is reported like one of a handler.
    if (result<void> lost = begin_handler(r); !lost.has_value()) {
      accept_next();
      return report(std::move(lost), peer_if_wanted());
    }
    if (r.has_value()) return accept_next();
#else
    if (r.has_value()) {
      handlers_.start_soon(handler_for(*r), *std::move(r));
      return accept_next();
    }
#endif
    stopped_ = true;
    if constexpr (has_stopping) stopping_.set();
    if (r.error() != errc::closed_resource) failure_ = r.error();
    if (over()) server_->core->queue(*server_);
  }
#if ANYIO_NET_EXCEPTIONS
  result<void> begin_handler(result<Stream>& r) {
    if (result_access::is_foreign(r)) return result_access::failure<void>(r);
    try {
      if (r.has_value()) handlers_.start_soon(handler_for(*r), *std::move(r));
    } catch (...) {
      return result_access::foreign<void>(std::current_exception());
    }
    return {};
  }
#endif
  /// Callers call this last: the error handler may destroy this object, but not itself.
  void report(result<void>&& outcome, [[maybe_unused]] const peer_if_wanted& from) {
    if (outcome.has_value()) return;
#if ANYIO_NET_EXCEPTIONS
    if (std::exception_ptr e = result_access::foreign_of(outcome)) {
      if constexpr (takes_exceptions<OnError>) {
        const shared<OnError> on_error = on_error_;
        const stand_in inside(*server_);
        return static_cast<void>((*on_error)(std::move(e)));
      } else if constexpr (takes_exceptions_and_peer<OnError, peer_type>) {
        const shared<OnError> on_error = on_error_;
        const peer_type who = from;  // it is gone if the error handler ends `serve`
        const stand_in inside(*server_);
        return static_cast<void>((*on_error)(std::move(e), who));
      } else {
        return print_exception("serve", e);
      }
    }
#endif
    report(outcome.error(), from);
  }
  static shared<OnError> keep(OnError&& on_error) {
    if constexpr (has_handler) return shared<OnError>(owned<OnError>(new OnError(std::move(on_error))));
    return nullptr;
  }
  void report([[maybe_unused]] const error& e, [[maybe_unused]] const peer_if_wanted& from) {
    if constexpr (takes_error<OnError>) {
      const shared<OnError> on_error = on_error_;
      const stand_in inside(*server_);
      if (e != errc::end_of_stream) static_cast<void>((*on_error)(e));
    } else if constexpr (takes_peer<OnError, peer_type>) {
      if (e == errc::end_of_stream) return;
      const shared<OnError> on_error = on_error_;
      const peer_type who = from;
      const stand_in inside(*server_);
      static_cast<void>((*on_error)(e, who));
    }
  }

  ref<listener_resource> listener_;
  Handler handler_;
  shared<OnError> on_error_;
  serve_options options_;
  node* server_ = nullptr;
  error failure_;
  bool was_open_ = listener_->open();
  bool stopped_ = false;
  bool full_ = false;
  problem_news news_;
  accept_operation<Stream> accept_;
  [[no_unique_address]] std::conditional_t<has_stopping, event, nobody> stopping_;
  task_group handlers_;
};

struct no_error_handler {};

/// The operation that `serve` returns.
template <class Stream, class Handler, class OnError>
class [[nodiscard]] serve_operation : public operation<serve_operation<Stream, Handler, OnError>, void> {
 public:
  static constexpr const char* name = "serve";
  serve_operation() = default;
  serve_operation(ref<listener_resource> listener, Handler&& handler, OnError&& on_error,
                  serve_options options)
      : operation<serve_operation, void>(true) {
    if (listener)
      state_.reset(new serving<Stream, Handler, OnError>(std::move(listener), std::move(handler),
                                                         std::move(on_error), options));
  }

 private:
  friend class operation<serve_operation, void>;
  static constexpr bool attempts_when_awaited = false;

  [[nodiscard]] errc check() const noexcept {
    if (!this->made) return errc::invalid_argument;
    return state_ ? state_->check() : errc::closed_resource;
  }
  bool attempt(result<void>& out) {
    if (!state_->begun()) {
      if (!this->pending())
        return false;  // a composite tests whether it is done already: it has not begun yet
      if (const errc e = state_->check(); e != errc::ok) {  // another one began first in this turn
        return complete(out, error(e, 0, name));
      }
      state_->begin(*this);
    }
    if (!state_->over()) return false;
    if (state_->failure().code() != errc::ok) return complete(out, state_->failure());
    return complete(out, result<void>());
  }
  void left() noexcept { state_.reset(); }

  owned<serving<Stream, Handler, OnError>> state_;
};

}  // namespace detail

}}  // namespace anyio
