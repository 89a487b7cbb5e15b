// Listeners: accepting, and serving.
//
// Accepting survives whatever belongs to a single connection. When descriptors or memory run out it pauses,
// until this loop closes a descriptor or a tenth of a second has passed, since the poller would report the
// waiting connections without end. Serving keeps its handlers apart: what leaves one ends that connection
// alone. This part must not know how names resolve.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"
#include "operation/task_group.hpp"
#include "stream/fd_passing.hpp"
#include "stream/socket.hpp"
#include "system/unique_fd.hpp"

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// `local_host` empty: every address, over one dual-stack socket where the system can. A name may give
/// several addresses, which share one port, also when it is 0.
struct tcp_listener_options {
  /// AF_INET or AF_INET6: addresses of this family only. An IPv4-mapped one ("::ffff:127.0.0.1") is of
  /// AF_INET6: an IPv6 socket takes IPv4 connections at it.
  int family = AF_UNSPEC;
  std::string_view local_host = {};  ///< a name or an address
  std::uint16_t local_port = 0;      ///< 0: one that is free
  int backlog = 65536;               ///< how many may wait to be accepted; the system may allow fewer
  bool reuse_port = false;           ///< SO_REUSEPORT: several listeners share the connections of a port
  bool no_delay = true;              ///< TCP_NODELAY for what is accepted
  /// Called between socket and bind; gives 0 or an errno. With IP_TRANSPARENT set here, or before `from_fd`,
  /// an accepted stream tells the address to which its peer connected.
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;  ///< what `prepare` is given
};

/// How to listen at a path. A socket file there that nobody listens on any more is replaced.
struct unix_listener_options {
  std::optional<mode_t> mode = {};  ///< set between bind and listen
  int backlog = 65536;              ///< how many may wait to be accepted; the system may allow fewer
  bool unlink_on_close = false;     ///< removes its own file and no other, also after chdir(2)
};

/// How `serve` takes connections.
struct serve_options {
  std::size_t max_connections = 0;  ///< 0: no limit; at the limit accepting pauses
  /// Of a `tls_listener`: the most TLS connections that are not established yet; at the limit accepting
  /// pauses. With it handshakes do not count in `max_connections`; 0: they do, and have no limit of their
  /// own.
  std::size_t max_handshakes = 0;
};

namespace detail {

/// One or several listening sockets that are accepted from as one.
class listener_resource final : public resource {
 public:
  struct listening_socket {
    registration place;
    ip_endpoint local;
    bool any_address;  // it takes connections to others, too: of each the kernel knows which
  };
  struct accepted {
    int fd = -1;
    bool any_address = false;
    ip_endpoint local;
    sockaddr_storage remote;
    socklen_t remote_size = 0;
  };
  enum class outcome : std::uint8_t { connection, waiting, again, exhausted, fatal };

  explicit listener_resource(loop_core& core) : resource(core) { place_.waiter = this; }
  ~listener_resource() override { close(); }

  /// Takes over a listening descriptor, unless it cannot be watched: 0 or a negative errno.
  [[nodiscard]] int add(int fd, const ip_endpoint& local, bool transparent = false);
  outcome accept(accepted& a, error& why);
  void pause(timer& t, node& waiter);
  [[nodiscard]] bool paused() const noexcept { return place_.linked(); }
  void resume() noexcept { place_.unlink(); }
  [[nodiscard]] int descriptor() const noexcept override {
    return sockets.empty() ? -1 : sockets.front().place.fd;
  }
  /// Tells whoever serves of a problem, once the loop runs on.
  void report(const error& e) noexcept {
    if (server == nullptr) return;
    problem = e;
    if (!server->pending()) server->begin(core(), *server->how);
    core().queue(*server);
  }

  std::vector<listening_socket> sockets;
  std::shared_ptr<const std::string> path;  // of a UNIX listener
  std::string own_path;                     // of the file to unlink on close, whatever the folder is then
  file_identity own_file;                   // no socket: nothing
  /// Unlinks it. Null for others, whose programs need no paths linked.
  void (*remove_own_file)(const listener_resource&) = nullptr;
  bool no_delay = true;
  node* server = nullptr;  // who serves, and so alone may accept
  error problem;

 private:
  ANYIO_NET_FN void shut() noexcept override;
  void look(const listening_socket& s);

  std::size_t next_ = 0;
  std::uint32_t in_a_row_ = 0;  // accepted since a call found none
  std::uint32_t known_ = 0;     // connections that were counted, and wait
  std::uint32_t looks_ = 0;
  starved place_;
};

struct listener_access;

}  // namespace detail

/// What `accept` gives.
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
  friend base;

  [[nodiscard]] errc check() const noexcept {
    const errc e = base::check();
    if (e == errc::ok && this->resource_->server != server_) return errc::busy_resource;
    return e;
  }
  bool attempt(result<Stream>& out);
  void left() noexcept {
    base::left();
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

/// A connection as a stream; on failure the descriptor stays the caller's.
result<tcp_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                 const listener_resource::accepted& a, tcp_stream*);
result<unix_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                  const listener_resource::accepted& a, unix_stream*);

#if ANYIO_NET_EXCEPTIONS
/// Says on stderr what nobody else would hear of.
void print_exception(const char* where, const std::exception_ptr& e);
#endif

#if ANYIO_NET_EXCEPTIONS
/// Whether an error handler is one for foreign exceptions too. A generic lambda is not: it is for errors,
/// and asking whether it could be called with something else would compile its body.
template <class OnError>
concept takes_exceptions =
    !requires { &OnError::template operator()<error>; } && std::is_invocable_v<OnError&, std::exception_ptr>;
#endif

/// The base of a handler whose connections are none at first. It counts those that are established, and tells
/// who serves of each.
struct handshaking {};

/// What a server keeps while it serves. It has a place of its own, since its handlers refer to it.
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
    if (listener_->server == &news_) listener_->server = nullptr;
  }
  serving(const serving&) = delete;
  serving& operator=(const serving&) = delete;

  [[nodiscard]] errc check() const noexcept {
    // One that was closed before it could begin has served all there was.
    if (!listener_->open()) return was_open_ ? errc::ok : errc::closed_resource;
    const bool taken = listener_->server != nullptr || listener_->waiting(read_side) != nullptr;
    return taken ? errc::busy_resource : errc::ok;
  }
  void begin(node& server) {
    server_ = &server;
    listener_->server = &news_;
    accept_next();
  }
  [[nodiscard]] bool begun() const noexcept { return server_ != nullptr; }
  [[nodiscard]] bool over() const noexcept { return stopped_ && handlers_.size() == 0; }
  [[nodiscard]] const error& failure() const noexcept { return failure_; }

  void child_ended(result<void>&& outcome) override {
    if (full_) accept_next();
    if (over()) server_->core->queue(*server_);
    report(std::move(outcome));  // last: it may end everything
  }
  [[nodiscard]] node* whole() const noexcept override { return server_; }

 private:
  static constexpr bool has_handler = std::is_invocable_v<OnError&, const error&>;
  static constexpr bool has_handshakes = std::derived_from<Handler, handshaking>;

  struct connection_came {
    using internal = void;
    serving* self;
    void operator()(result<Stream>&& r) const { self->accepted(std::move(r)); }
    node* owner() const noexcept { return self->server_; }
  };
  struct call_handler {
    serving* self;
    auto operator()(Stream&& stream) const {
      const stand_in inside(*self->server_);
      return std::apply(self->handler_, std::forward_as_tuple(std::move(stream)));  // whatever is callable
    }
  };
  /// Runs when accepting met a problem that did not end it.
  struct problem_news : node {
    serving* self = nullptr;
    static void run(node& n) {
      auto& news = static_cast<problem_news&>(n);
      serving& server = *news.self;
      news.retire();
      news.how = &face_of_news;
      server.report(error(server.listener_->problem));
    }
    static void abandon(node& n) { n.retire(); }
    static node* owner(node&) { return nullptr; }
    static description describe(node&) { return {"serve"}; }
    static constexpr face face_of_news{run, abandon, owner, describe};
  };

  void accept_next() {
    full_ = is_full();
    if (full_ && listener_->open()) return;
    full_ = false;
    accept_ = accept_operation<Stream>(listener_, &news_);
    accept_.start(connection_came{this});
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
    server.accept_ = {};
    server.full_ = true;
  }
  void accepted(result<Stream>&& r) {
#if ANYIO_NET_EXCEPTIONS
    // Memory ran out for this connection, which is closed; it is told of as what leaves a handler is.
    if (result<void> lost = begin_handler(r); !lost.has_value()) {
      accept_next();
      return report(std::move(lost));
    }
    if (r.has_value()) return accept_next();
#else
    if (r.has_value()) {
      handlers_.start_soon(call_handler{this}, *std::move(r));
      return accept_next();
    }
#endif
    stopped_ = true;
    if (r.error() != errc::closed_resource) failure_ = r.error();
    if (over()) server_->core->queue(*server_);
  }
#if ANYIO_NET_EXCEPTIONS
  result<void> begin_handler(result<Stream>& r) {
    if (result_access::is_foreign(r)) return result_access::failure<void>(r);
    try {
      if (r.has_value()) handlers_.start_soon(call_handler{this}, *std::move(r));
    } catch (...) {
      return result_access::foreign<void>(std::current_exception());
    }
    return {};
  }
#endif
  /// The last that anyone does here: what it calls may end everything but itself.
  void report(result<void>&& outcome) {
    if (outcome.has_value()) return;
#if ANYIO_NET_EXCEPTIONS
    if (std::exception_ptr e = result_access::foreign_of(outcome)) {
      if constexpr (takes_exceptions<OnError>) {
        const std::shared_ptr<OnError> on_error = on_error_;
        const stand_in inside(*server_);
        return static_cast<void>((*on_error)(std::move(e)));
      } else {
        return print_exception("serve", e);
      }
    }
#endif
    report(outcome.error());
  }
  static std::shared_ptr<OnError> keep(OnError&& on_error) {
    if constexpr (has_handler) return std::make_shared<OnError>(std::move(on_error));
    return nullptr;
  }
  void report([[maybe_unused]] const error& e) {
    if constexpr (has_handler) {
      const std::shared_ptr<OnError> on_error = on_error_;
      const stand_in inside(*server_);
      if (e != errc::end_of_stream) static_cast<void>((*on_error)(e));
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
  task_group handlers_;
};

struct no_error_handler {};

/// What `serve` gives.
template <class Stream, class Handler, class OnError>
class [[nodiscard]] serve_operation : public operation<serve_operation<Stream, Handler, OnError>, void> {
 public:
  static constexpr const char* name = "serve";
  serve_operation() = default;
  serve_operation(ref<listener_resource> listener, Handler&& handler, OnError&& on_error,
                  serve_options options)
      : made_(true) {
    if (listener)
      state_ = std::make_unique<serving<Stream, Handler, OnError>>(std::move(listener), std::move(handler),
                                                                   std::move(on_error), options);
  }

 private:
  friend class operation<serve_operation, void>;
  static constexpr bool attempts_when_awaited = false;

  [[nodiscard]] errc check() const noexcept {
    if (!made_) return errc::invalid_argument;
    return state_ ? state_->check() : errc::closed_resource;
  }
  bool attempt(result<void>& out) {
    if (!state_->begun()) {
      if (!this->pending())
        return false;  // a composite looks whether it is done already: it is not begun yet
      if (const errc e = state_->check(); e != errc::ok) {  // another came first in this turn
        out = error(e, 0, name);
        return true;
      }
      state_->begin(*this);
    }
    if (!state_->over()) return false;
    if (state_->failure().code() != errc::ok) {
      out = state_->failure();
    } else {
      out = result<void>();
    }
    return true;
  }
  void left() noexcept { state_.reset(); }

  bool made_ = false;
  std::unique_ptr<serving<Stream, Handler, OnError>> state_;
};

/// What both listeners have.
template <class Stream>
class listener {
 public:
  /// Whether it is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }

  /// The next connection. One that is cancelled takes none.
  [[nodiscard]] accept_operation<Stream> accept() { return accept_operation<Stream>(resource_); }

  /// Takes connections until the listener is closed, then waits for its handlers and completes. The handler
  /// takes the stream by value; it is a coroutine that returns `task<>`, or a plain function, and is kept.
  /// Whatever leaves a handler ends that connection alone. Destroying the operation destroys the handlers.
  template <class Handler>
    requires std::invocable<std::decay_t<Handler>&, Stream>
  [[nodiscard]] auto serve(Handler&& handler, serve_options options = {}) {
    return serve_operation<Stream, std::decay_t<Handler>, no_error_handler>(
        resource_, std::decay_t<Handler>(std::forward<Handler>(handler)), no_error_handler(), options);
  }
  /// The same; `on_error(const error&)` sees the errors of handlers, but for a plain end of stream, and what
  /// accepting met. If it also takes a `std::exception_ptr` it sees foreign exceptions, which are printed to
  /// stderr otherwise.
  template <class Handler, class OnError>
    requires std::invocable<std::decay_t<Handler>&, Stream> &&
             std::invocable<std::decay_t<OnError>&, const error&>
  [[nodiscard]] auto serve(Handler&& handler, OnError&& on_error, serve_options options = {}) {
    return serve_operation<Stream, std::decay_t<Handler>, std::decay_t<OnError>>(
        resource_, std::decay_t<Handler>(std::forward<Handler>(handler)),
        std::decay_t<OnError>(std::forward<OnError>(on_error)), options);
  }

  /// Closes it at once: `accept` and `serve` end, connections that nobody accepted are reset. Again is a
  /// no-op; the destructor does it.
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

/// Accepts TCP connections on one address or several.
class tcp_listener : public detail::listener<tcp_stream> {
 public:
  tcp_listener() = default;
  /// Listens on this address, in place of the options', at once. "::" is IPv6 alone.
  [[nodiscard]] static result<tcp_listener> open(ip_endpoint local, tcp_listener_options options = {});
  /// Takes over a listening socket, of systemd for instance; a refused one stays the caller's.
  [[nodiscard]] static result<tcp_listener> from_fd(int fd);

  /// The addresses it listens on; they stay after close.
  [[nodiscard]] std::vector<ip_endpoint> local_endpoints() const;
  /// The port that all of them share.
  [[nodiscard]] std::uint16_t local_port() const noexcept;
  /// The descriptors, still the listener's; empty if closed.
  [[nodiscard]] std::vector<int> native_handles() const;
};

/// Accepts UNIX connections.
class unix_listener : public detail::listener<unix_stream> {
 public:
  unix_listener() = default;
  /// Takes over a listening socket; a refused one stays the caller's.
  [[nodiscard]] static result<unix_listener> from_fd(int fd);

  /// Its name; stays after close.
  [[nodiscard]] std::string local_path() const;
  /// The descriptor, still the listener's; -1 if closed.
  [[nodiscard]] int native_handle() const noexcept { return resource_ ? resource_->descriptor() : -1; }
};

/// What `create_unix_listener` gives.
class [[nodiscard]] create_unix_listener_operation
    : public detail::operation<create_unix_listener_operation, unix_listener> {
 public:
  static constexpr const char* name = "create_unix_listener";
  create_unix_listener_operation() = default;
  create_unix_listener_operation(std::string_view path, unix_listener_options options)
      : path_(path), options_(options) {}

 private:
  friend class detail::operation<create_unix_listener_operation, unix_listener>;
  [[nodiscard]] errc check() const noexcept { return path_.empty() ? errc::invalid_argument : errc::ok; }
  bool attempt(result<unix_listener>& out);

  std::string path_;
  unix_listener_options options_;
};

/// Listens at a path, or with a leading NUL at an abstract name. A stale socket file, one that refuses a
/// connection, is removed before; a live one is `os_error` with EADDRINUSE.
[[nodiscard]] inline create_unix_listener_operation create_unix_listener(std::string_view path,
                                                                         unix_listener_options options = {}) {
  return {path, options};
}

namespace detail {

/// Options whose address is elsewhere, with what they refer to resolved.
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
  if (!r.open()) {
    out = this->closed();
    return true;
  }
  if (r.paused() && pause_.armed()) return false;
  r.resume();
  pause_.cancel();
  listener_resource::accepted a;
  error problem;
  switch (r.accept(a, problem)) {
    case listener_resource::outcome::waiting: return false;
    case listener_resource::outcome::again: this->again = true; return false;
    case listener_resource::outcome::fatal: out = problem; return true;
    case listener_resource::outcome::exhausted: break;
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
