// Listeners: accepting connections, and serving them.
//
// An error that concerns a single connection does not end accepting. When descriptors or memory run out,
// accepting pauses until this loop closes a descriptor or 100 ms have passed; otherwise the poller would
// report the pending connections without end. Serving keeps its handlers apart: an error that escapes a
// handler closes only that connection. This part must not know how names resolve.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "operation/part.hpp"
#include "operation/resource_operation.hpp"
#include "operation/synchronization.hpp"
#include "operation/task_group.hpp"
#include "stream/fd_passing.hpp"
#include "stream/socket.hpp"
#include "system/new_socket.hpp"
#include "system/unique_fd.hpp"

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// How to listen for TCP connections. An empty `local_host` means every address, over one dual-stack socket
/// where the system supports it. A name may resolve to several addresses; they share one port, also if
/// `local_port` is 0.
struct tcp_listener_options {
  /// AF_INET or AF_INET6: only addresses of this family. An IPv4-mapped address ("::ffff:127.0.0.1") belongs
  /// to AF_INET6: an IPv6 socket accepts IPv4 connections at it.
  int family = AF_UNSPEC;
  std::string_view local_host = {};  ///< a name or an address
  std::uint16_t local_port = 0;      ///< 0: the system chooses a free port
  int backlog = 65536;               ///< maximum number of pending connections; the system may lower it
  bool reuse_port = false;           ///< SO_REUSEPORT: several listeners share the connections of a port
  bool no_delay = true;              ///< TCP_NODELAY for accepted connections
  /// Called between socket(2) and bind(2); returns 0 or an errno. If IP_TRANSPARENT is set here, or before
  /// `from_fd`, an accepted stream reports as local endpoint the address to which its peer connected.
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;  ///< passed to `prepare`
};

/// How to listen at a path. A stale socket file, one that no open socket uses any more, is replaced.
struct unix_listener_options {
  std::optional<mode_t> mode = {};  ///< mode of the socket file, set between bind and listen
  int backlog = 65536;              ///< maximum number of pending connections; the system may lower it
  bool unlink_on_close = false;     ///< closing removes only the listener's own file, also after chdir(2)
};

/// How `serve` accepts connections.
struct serve_options {
  std::size_t max_connections = 0;  ///< 0: no limit; at the limit accepting pauses
  /// For a `tls_listener`: the maximum number of TLS connections that are not established yet; at the limit
  /// accepting pauses. If it is set, handshakes do not count towards `max_connections`. If it is 0, they do,
  /// and have no limit of their own.
  std::size_t max_handshakes = 0;
};

namespace detail {

/// One or several listening sockets that act as one listener.
class listener_resource final : public resource {
 public:
  struct listening_socket {
    detail::registration registration;
    ip_endpoint local;
    bool any_address;  // accepts connections to several addresses; the kernel knows the one of each
  };
  struct accepted {
    int fd = -1;
    bool any_address = false;
    ip_endpoint local;
    socket_address remote;
  };
  enum class outcome : std::uint8_t { connection, waiting, again, shortage, fatal };

  explicit listener_resource(loop_core& core) : resource(core) { starved_.waiter = this; }
  ~listener_resource() override { close(); }

  /// Takes over a listening descriptor. Returns 0, or a negative errno if it cannot be watched.
  [[nodiscard]] int add(int fd, const ip_endpoint& local, bool transparent = false);
  outcome accept(accepted& a, error& why);
  void pause(timer& t, node& waiter);
  [[nodiscard]] bool paused() const noexcept { return starved_.linked(); }
  void resume() noexcept { starved_.unlink(); }
  [[nodiscard]] int descriptor() const noexcept override {
    return sockets.empty() ? -1 : sockets.front().registration.fd;
  }
  /// Reports a problem to the pending `serve`, if there is one, when the loop runs next.
  void report(const error& e) noexcept {
    if (server == nullptr) return;
    problem = e;
    if (!server->pending()) server->begin(core(), *server->how);
    core().queue(*server);
  }

  std::vector<listening_socket> sockets;
  std::shared_ptr<const std::string> path;  // of a UNIX listener
  std::string own_path;                     // absolute path of the file to unlink on close
  file_identity own_file;                   // of that file; if it is not a socket, no file is removed
  /// Unlinks that file. Null for other listeners: programs that use only those need not link the path
  /// functions.
  void (*remove_own_file)(const listener_resource&) = nullptr;
  bool no_delay = true;
  node* server = nullptr;                       // the pending `serve`; only it may accept
  void (*tell_closed)(node& server) = nullptr;  // if its handlers want to know
  error problem;

 private:
  ANYIO_NET_FN void shut() noexcept override;
  void look(const listening_socket& s);

  std::size_t next_ = 0;
  std::uint32_t in_a_row_ = 0;  // connections accepted since a call found none
  std::uint32_t known_ = 0;     // counted connections that are not accepted yet
  std::uint32_t looks_ = 0;
  starved starved_;
};

struct listener_access;

}  // namespace detail

/// The operation that `accept` returns.
template <class Stream>
class [[nodiscard]] accept_operation
    : public detail::resource_operation<accept_operation<Stream>, Stream, detail::listener_resource,
                                        detail::read_side> {
  using base =
      detail::resource_operation<accept_operation, Stream, detail::listener_resource, detail::read_side>;

 public:
  static constexpr const char* name = "accept";
  accept_operation() = default;
  explicit accept_operation(detail::ref<detail::listener_resource> r, const detail::node* server = nullptr)
      : base(std::move(r)), server_(server) {}

 private:
  friend class detail::operation<accept_operation, Stream>;

  [[nodiscard]] errc check() const noexcept {
    const errc e = base::check();
    if (e == errc::ok && this->resource_->server != server_) return errc::busy_resource;
    return e;
  }
  bool attempt(result<Stream>& out);
  void left() noexcept {
    pause_.cancel();
    if (this->resource_) this->resource_->resume();
  }
  void refresh() noexcept {
    base::refresh();
    pause_.cancel();
  }

  const detail::node* server_ = nullptr;
  detail::timer pause_;
};

namespace detail {

/// Makes a stream from an accepted connection; on failure the descriptor stays the caller's.
result<tcp_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                 const listener_resource::accepted& a, tcp_stream*);
result<unix_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                  const listener_resource::accepted& a, unix_stream*);

#if ANYIO_NET_EXCEPTIONS
/// Prints an exception that nobody handles to stderr.
void print_exception(const char* where, const std::exception_ptr& e);
#endif

/// Whether a handler takes the stream alone, or also the event that tells that the server stops.
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

/// Whether an error handler takes the error alone, or also the peer.
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
        const std::shared_ptr<OnError> on_error = on_error_;
        const stand_in inside(*server_);
        return static_cast<void>((*on_error)(std::move(e)));
      } else if constexpr (takes_exceptions_and_peer<OnError, peer_type>) {
        const std::shared_ptr<OnError> on_error = on_error_;
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
  static std::shared_ptr<OnError> keep(OnError&& on_error) {
    if constexpr (has_handler) return std::make_shared<OnError>(std::move(on_error));
    return nullptr;
  }
  void report([[maybe_unused]] const error& e, [[maybe_unused]] const peer_if_wanted& from) {
    if constexpr (takes_error<OnError>) {
      const std::shared_ptr<OnError> on_error = on_error_;
      const stand_in inside(*server_);
      if (e != errc::end_of_stream) static_cast<void>((*on_error)(e));
    } else if constexpr (takes_peer<OnError, peer_type>) {
      if (e == errc::end_of_stream) return;
      const std::shared_ptr<OnError> on_error = on_error_;
      const peer_type who = from;
      const stand_in inside(*server_);
      static_cast<void>((*on_error)(e, who));
    }
  }

  ref<listener_resource> listener_;
  Handler handler_;
  std::shared_ptr<OnError> on_error_;
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

/// The common base of `tcp_listener` and `unix_listener`.
template <class Stream>
class listener {
 public:
  /// Whether the listener is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }

  /// Accepts the next connection. A cancelled operation accepts none.
  [[nodiscard]] accept_operation<Stream> accept() { return accept_operation<Stream>(resource_); }

  /// Accepts connections until the listener is closed, then waits for its handlers and completes. The handler
  /// takes the stream by value; it is a coroutine that returns `task<>`, or a plain function, and the
  /// operation keeps it. An error that escapes a handler closes only that connection. Destroying the
  /// operation destroys the handlers.
  ///
  /// A handler may take an `event&` as a second parameter: it is set when the listener is closed, or when
  /// accepting ends for another reason, and lives until the last handler has ended.
  template <class Handler>
    requires connection_handler<std::decay_t<Handler>, Stream>
  [[nodiscard]] auto serve(Handler&& handler, serve_options options = {}) {
    return serve_operation<Stream, std::decay_t<Handler>, no_error_handler>(
        resource_, std::decay_t<Handler>(std::forward<Handler>(handler)), no_error_handler(), options);
  }
  /// Serves connections with an error handler. `on_error(const error&)` receives the errors of handlers,
  /// except a plain end of stream, and the errors of accepting. If it also takes a `std::exception_ptr`, it
  /// receives foreign exceptions; otherwise they are printed to stderr. It may take the connection's peer as
  /// a second parameter: a `const ip_endpoint&`, or for UNIX a `const std::string&`; for errors of accepting
  /// the peer is not known, and 0.0.0.0:0 or empty.
  template <class Handler, class OnError>
    requires connection_handler<std::decay_t<Handler>, Stream> &&
             error_handler<std::decay_t<OnError>, peer_t<Stream>>
  [[nodiscard]] auto serve(Handler&& handler, OnError&& on_error, serve_options options = {}) {
    return serve_operation<Stream, std::decay_t<Handler>, std::decay_t<OnError>>(
        resource_, std::decay_t<Handler>(std::forward<Handler>(handler)),
        std::decay_t<OnError>(std::forward<OnError>(on_error)), options);
  }

  /// Closes the listener at once: `accept` and `serve` end, and connections that are not accepted yet are
  /// reset. Calling it again has no effect; the destructor calls it.
  void close() noexcept {
    if (resource_) resource_->close();
  }

 protected:
  friend struct listener_access;
  listener() = default;
  listener(listener&&) noexcept = default;
  listener& operator=(listener&& other) noexcept {
    if (this != &other) {
      close();
      resource_ = std::move(other.resource_);
    }
    return *this;
  }
  ~listener() { close(); }

  ref<listener_resource> resource_;
};

}  // namespace detail

/// Accepts TCP connections on one or several addresses.
class tcp_listener : public detail::listener<tcp_stream> {
 public:
  tcp_listener() = default;
  /// Listens on `local`, at once; the address and port in the options are ignored. "::" means IPv6 only.
  [[nodiscard]] static result<tcp_listener> open(ip_endpoint local, tcp_listener_options options = {});
  /// Takes over a listening socket, for example from systemd. On failure it stays the caller's.
  [[nodiscard]] static result<tcp_listener> from_fd(int fd);

  /// The addresses on which it listens; remembered after closing.
  [[nodiscard]] std::vector<ip_endpoint> local_endpoints() const;
  /// The port that all its addresses share.
  [[nodiscard]] std::uint16_t local_port() const noexcept;
  /// The descriptors, which stay the listener's; empty once closed.
  [[nodiscard]] std::vector<int> native_handles() const;
};

/// Accepts UNIX connections.
class unix_listener : public detail::listener<unix_stream> {
 public:
  unix_listener() = default;
  /// Takes over a listening socket. On failure it stays the caller's.
  [[nodiscard]] static result<unix_listener> from_fd(int fd);

  /// Its path or abstract name; remembered after closing.
  [[nodiscard]] std::string local_path() const;
  /// The descriptor, which stays the listener's; -1 once closed.
  [[nodiscard]] int native_handle() const noexcept { return resource_ ? resource_->descriptor() : -1; }
};

/// The operation that `create_unix_listener` returns.
class [[nodiscard]] create_unix_listener_operation
    : public detail::operation<create_unix_listener_operation, unix_listener> {
 public:
  static constexpr const char* name = "create_unix_listener";
  create_unix_listener_operation() = default;
  create_unix_listener_operation(std::string_view path, unix_listener_options options)
      : operation(!path.empty()), path_(path), options_(options) {}

 private:
  friend class detail::operation<create_unix_listener_operation, unix_listener>;
  bool attempt(result<unix_listener>& out);

  std::string path_;
  unix_listener_options options_;
};

/// Listens at a path, or at an abstract name if the first byte is NUL. A stale socket file, one that refuses
/// a connection, is removed first. A socket file in use raises `os_error` with EADDRINUSE.
[[nodiscard]] inline create_unix_listener_operation create_unix_listener(std::string_view path,
                                                                         unix_listener_options options = {}) {
  return {path, options};
}

namespace detail {

/// Listens on these addresses, with the other options.
result<tcp_listener> listen_tcp(loop_core& core, std::vector<ip_endpoint> addresses, bool dual_stack,
                                const tcp_listener_options& options);
/// The addresses of a listener without a host, and whether one socket serves both families.
std::vector<ip_endpoint> any_addresses(backend& system, int family, std::uint16_t port, bool& dual_stack);

struct listener_access {
  template <class Listener>
  static Listener make(ref<listener_resource> r) {
    Listener l;
    l.resource_ = std::move(r);
    return l;
  }
  template <class Listener>
  static const ref<listener_resource>& resource_of(const Listener& l) {
    return l.resource_;
  }
};

}  // namespace detail

template <class Stream>
bool accept_operation<Stream>::attempt(result<Stream>& out) {
  using detail::listener_resource;
  listener_resource& r = *this->resource_;
  if (r.paused() && pause_.armed()) return false;
  r.resume();
  pause_.cancel();
  listener_resource::accepted a;
  error problem;
  switch (r.accept(a, problem)) {
    case listener_resource::outcome::waiting: return false;
    case listener_resource::outcome::again: this->again = true; return false;
    case listener_resource::outcome::fatal: out = problem; return true;
    case listener_resource::outcome::shortage: break;
    case listener_resource::outcome::connection: {
      unique_fd fd(a.fd);
      out = detail::make_accepted(r.core(), r, a, static_cast<Stream*>(nullptr));
      if (out.has_value()) return static_cast<void>(fd.release()), true;
      problem = out.error();  // it cannot be watched: memory has run out
      break;
    }
  }
  r.report(problem);
  r.pause(pause_, *this);
  return false;
}

}}  // namespace anyio
