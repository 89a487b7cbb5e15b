// Listeners for TCP and UNIX connections. This part must not know how names resolve.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "connection/accept.hpp"
#include "connection/serving.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"
#include "stream/socket.hpp"
#include "system/backend.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {
namespace detail {

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

}}  // namespace anyio
