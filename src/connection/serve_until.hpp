// A server from its start to its orderly end.
//
// Programs stop servers in one way: no more connections, those that are busy finish, and after a while
// whatever is left is cut off. This part must not know which kind of listener it serves.
#pragma once

#include "base/config.hpp"
#include "base/error.hpp"
#include "connection/listener.hpp"
#include "operation/combinators.hpp"
#include "operation/signals.hpp"
#include "operation/task.hpp"
#include "operation/task_group.hpp"
#include "system/backend.hpp"

#include <cstddef>
#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// How `serve_until_interrupted` serves and ends.
struct serve_until_options {
  std::size_t max_connections = 0;            ///< as in `serve_options`
  duration grace = std::chrono::seconds(10);  ///< how long handlers may go on after the signal
  std::size_t max_handshakes = 0;             ///< as in `serve_options`
};

namespace detail {

/// `Listener` is a reference, or the type of a listener that this keeps. The last two are parameters so that
/// nothing of this is compiled in programs that do not call it.
template <class Listener, class Handler, class OnError, class Signals = signal_receiver,
          class Group = task_group>
#if defined(__clang__)
[[clang::no_sanitize("function")]]  // as for call_task
#endif
task<>
serve_until_signal(Listener listener, Handler handler, OnError on_error, serve_until_options options) {
  const ending_signals end = signals_that_end();
  Signals signals = co_await Signals::open(end.interrupt, end.terminate);
  Group group;
  const serve_options limits{options.max_connections, options.max_handshakes};
  if constexpr (std::is_same_v<OnError, no_error_handler>) {
    group.start_soon(listener.serve(std::move(handler), limits));
  } else {
    group.start_soon(listener.serve(std::move(handler), std::move(on_error), limits));
  }
  const auto first = co_await when_any(group.join(), signals.receive());
  if (first.index() == 0) co_return;
  listener.close();
  // Another signal ends the wait.
  static_cast<void>(co_await when_any(move_on_after(options.grace, group.join()), signals.receive()));
}

template <class Listener>
using kept_listener =
    std::conditional_t<std::is_lvalue_reference_v<Listener>, Listener, std::decay_t<Listener>>;

template <class Listener>
concept any_listener = requires(Listener& l) {
  l.accept();
  l.close();
};

}  // namespace detail

/// Serves connections until SIGINT or SIGTERM arrives, as `serve` does; then closes the listener, which sets
/// `stopping` for handlers that take it, and waits for the handlers as long as `grace`. Those that are left,
/// and all of them at another signal, are cancelled. Also completes when the listener is closed otherwise and
/// its handlers have ended. Raises what ends listening.
///
/// A listener that is passed as an rvalue is kept; another one must outlive this. The listener is of any
/// kind: TCP, UNIX, TLS.
template <class Listener, class Handler>
  requires detail::any_listener<std::decay_t<Listener>>
[[nodiscard]] task<> serve_until_interrupted(Listener&& listener, Handler&& handler,
                                             serve_until_options options = {}) {
  return detail::serve_until_signal<detail::kept_listener<Listener>, std::decay_t<Handler>,
                                    detail::no_error_handler>(std::forward<Listener>(listener),
                                                              std::forward<Handler>(handler), {}, options);
}
/// With an error handler as for `serve`.
template <class Listener, class Handler, class OnError>
  requires(detail::any_listener<std::decay_t<Listener>> &&
           !std::is_convertible_v<OnError &&, serve_until_options>)
[[nodiscard]] task<> serve_until_interrupted(Listener&& listener, Handler&& handler, OnError&& on_error,
                                             serve_until_options options = {}) {
  return detail::serve_until_signal<detail::kept_listener<Listener>, std::decay_t<Handler>,
                                    std::decay_t<OnError>>(std::forward<Listener>(listener),
                                                           std::forward<Handler>(handler),
                                                           std::forward<OnError>(on_error), options);
}

}}  // namespace anyio
