// Accepting connections.
//
// An error that concerns a single connection does not end accepting. When descriptors or memory run out,
// accepting pauses until this loop closes a descriptor or 100 ms have passed; otherwise the poller would
// report the pending connections without end. This part must not know how connections are served.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "operation/resource_operation.hpp"
#include "stream/fd_passing.hpp"
#include "stream/socket.hpp"
#include "system/unique_fd.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
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
  shared<const std::string> path;  // of a UNIX listener
  std::string own_path;            // absolute path of the file to unlink on close
  file_identity own_file;          // of that file; if it is not a socket, no file is removed
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
