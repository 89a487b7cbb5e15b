// Accepting TLS connections.
//
// A handshake takes as long as the client likes, so handshakes run concurrently: each in its own task for
// `serve`, and as one of several operations for `accept`. A handshake that fails or stalls affects no other
// connection. This part must not know a TLS library.
#pragma once

#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/standard.hpp"
#include "connection/listener.hpp"
#include "operation/part.hpp"
#include "operation/resource_operation.hpp"
#include "operation/synchronization.hpp"
#include "operation/task.hpp"
#include "tls/engine/tls.hpp"
#include "tls/tls_stream.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The settings with which a listener's connections become TLS streams.
struct tls_server_settings {
  std::shared_ptr<tls_context> context;
  bool standard_compatible = true;
  std::chrono::milliseconds handshake_timeout{};

  [[nodiscard]] tls_wrap_operation wrap(tcp_stream&& connection) const;
};

/// Makes a handler of TCP streams from a handler of TLS streams.
template <class Handler>
class tls_handler : public handshaking {
  static constexpr bool has_stopping = takes_stopping<Handler, tls_stream>;

 public:
  tls_handler(tls_server_settings settings, Handler&& handler)
      : settings_(std::move(settings)), handler_(std::move(handler)) {}

  // From here on `serving` does not move this object.
  void serve_with(const serve_options& options, void (*one_more)(void* server), void* server) {
    one_more_ = one_more;
    server_ = server;
    if (options.max_handshakes != 0 && options.max_connections != 0)
      places_.reset(new semaphore(options.max_connections));
  }
  /// How many of the connections passed to this handler are established.
  [[nodiscard]] std::size_t established() const noexcept { return established_; }

  task<> operator()(tcp_stream connection)
    requires(!has_stopping)
  {
    return talk(std::move(connection), nullptr);
  }
  task<> operator()(tcp_stream connection, event& stopping)
    requires has_stopping
  {
    return talk(std::move(connection), &stopping);
  }

 private:
  task<> talk(tcp_stream connection, [[maybe_unused]] event* stopping) {
    tls_stream stream = co_await settings_.wrap(std::move(connection));
    permit place;  // more handshakes can end at the same time than the limit allows
    if (places_) place = co_await places_->acquire();
    const counted here(*this);
    if constexpr (is_operation<decltype(call(std::move(stream), stopping))>) {
      co_await call(std::move(stream), stopping);
    } else {
      static_cast<void>(call(std::move(stream), stopping));
    }
  }
  decltype(auto) call(tls_stream&& stream, [[maybe_unused]] event* stopping) {
    if constexpr (has_stopping) {
      return std::apply(handler_, std::forward_as_tuple(std::move(stream), *stopping));
    } else {
      return std::apply(handler_, std::forward_as_tuple(std::move(stream)));
    }
  }

  class counted {
   public:
    explicit counted(tls_handler& by) : by_(by) {
      ++by_.established_;
      by_.one_more_(by_.server_);
    }
    counted(const counted&) = delete;
    counted& operator=(const counted&) = delete;
    ~counted() { --by_.established_; }  // `serving` learns of the end from the task

   private:
    tls_handler& by_;
  };

  tls_server_settings settings_;
  Handler handler_;
  owned<semaphore> places_;
  void (*one_more_)(void* server) = nullptr;
  void* server_ = nullptr;
  std::size_t established_ = 0;
};

/// The state of accepting one by one: handshakes in progress, and streams that no `accept` has taken yet.
/// While no `accept` is pending, no new connection is accepted.
class tls_accepting final : public resource {
 public:
  tls_accepting(ref<listener_resource> listener, tls_server_settings settings)
      : resource(listener->core()), listener_(std::move(listener)), settings_(std::move(settings)) {}
  ANYIO_NET_FN ~tls_accepting() override;

  /// Takes the next stream. Returns false if there is none; then it wakes the waiter later.
  bool next(result<tls_stream>& out);
  ANYIO_NET_FN void withdrawn(side) noexcept override;
  [[nodiscard]] int descriptor() const noexcept override { return listener_->descriptor(); }

  struct handshake : link, pooled<recycler::operations> {
    tls_wrap_operation op;
    tls_stream stream;  // open once the handshake has succeeded
  };
  /// The waiting `accept`; connections and handshakes are parts of it.
  [[nodiscard]] node* whole() const noexcept { return waiting(read_side); }
  static void forget(handshake* which) noexcept { delete which; }

 private:
  ANYIO_NET_FN void shut() noexcept override;
  void accepted(result<tcp_stream>&& r);
  void shaken(handshake* which, result<tls_stream>&& r);

  ref<listener_resource> listener_;
  tls_server_settings settings_;
  accept_operation<tcp_stream> accept_;
  list handshakes_;
  list ready_;  // handshakes that have succeeded
  error failure_;
};

}  // namespace detail

/// The operation that `tls_listener::accept` returns.
template <>
class [[nodiscard]] accept_operation<tls_stream>
    : public detail::resource_operation<accept_operation<tls_stream>, tls_stream, detail::tls_accepting,
                                        detail::read_side> {
  using base =
      detail::resource_operation<accept_operation, tls_stream, detail::tls_accepting, detail::read_side>;

 public:
  static constexpr const char* name = "accept";
  accept_operation() = default;
  explicit accept_operation(detail::ref<detail::tls_accepting> r) : base(std::move(r)) {}

 private:
  friend class detail::operation<accept_operation, tls_stream>;

  bool attempt(result<tls_stream>& out) { return resource_->next(out); }
  void leave_place() noexcept {
    const bool waited = resource_ && resource_->waiting(detail::read_side) == this;
    base::leave_place();
    if (waited) resource_->withdrawn(detail::read_side);
  }
};

/// Accepts TLS connections. A handshake that stalls or fails affects no other connection.
class tls_listener {
 public:
  tls_listener() = default;
  /// The context needs a certificate. `server_name` of the options is ignored.
  tls_listener(tcp_listener listener, std::shared_ptr<tls_context> context, tls_options options = {})
      : listener_(std::move(listener)),
        settings_{std::move(context), options.standard_compatible, options.handshake_timeout} {}
  tls_listener(tls_listener&&) noexcept = default;
  tls_listener& operator=(tls_listener&& other) noexcept;
  ~tls_listener() { close(); }

  /// Whether the listener is open.
  explicit operator bool() const noexcept { return static_cast<bool>(listener_); }

  /// Accepts the next connection whose handshake succeeds; those whose handshake fails are skipped. While an
  /// `accept` is pending, all arriving connections are accepted (`serve` has a limit). After a cancelled
  /// `accept`, handshakes in progress and unused streams are left for the next one.
  [[nodiscard]] accept_operation<tls_stream> accept();

  /// Serves connections like `tcp_listener::serve`, with a handler that takes a `tls_stream`. Handshakes
  /// count towards `max_connections`, so peers that stall can fill it until their `handshake_timeout` is
  /// over. With `max_handshakes` in the options, handshakes have a limit of their own instead. It should be
  /// many times larger than the number of handshakes that honest peers have in progress. A connection that is
  /// established while there are `max_connections` of them still counts as a handshake, and its handler
  /// begins once another one ends.
  template <class Handler>
    requires detail::connection_handler<std::decay_t<Handler>, tls_stream>
  [[nodiscard]] auto serve(Handler&& handler, serve_options options = {}) {
    return listener_.serve(wrapped(std::forward<Handler>(handler)), options);
  }
  /// Serves connections with an error handler, like `tcp_listener::serve`; `on_error` also receives the
  /// errors of handshakes.
  template <class Handler, class OnError>
    requires detail::connection_handler<std::decay_t<Handler>, tls_stream> &&
             detail::error_handler<std::decay_t<OnError>, ip_endpoint>
  [[nodiscard]] auto serve(Handler&& handler, OnError&& on_error, serve_options options = {}) {
    return listener_.serve(wrapped(std::forward<Handler>(handler)), std::forward<OnError>(on_error), options);
  }

  /// The TCP listener from which it accepts.
  [[nodiscard]] tcp_listener& listener() noexcept { return listener_; }
  /// Closes the listener at once, with the handshakes that `accept` began. Calling it again has no effect.
  void close() noexcept;

 private:
  template <class Handler>
  auto wrapped(Handler&& handler) {
    return detail::tls_handler<std::decay_t<Handler>>(settings_,
                                                      std::decay_t<Handler>(std::forward<Handler>(handler)));
  }

  tcp_listener listener_;
  detail::tls_server_settings settings_;
  detail::ref<detail::tls_accepting> accepting_;
};

}}  // namespace anyio
