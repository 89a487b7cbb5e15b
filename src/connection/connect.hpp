// Connecting: names, Happy Eyeballs, UNIX paths.
//
// Addresses are tried as in RFC 8305: the families alternate in the resolver's order; the next attempt begins
// when the previous one has failed or had its head start; the first to connect wins, and the others are
// closed. This part must not know TLS.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/standard.hpp"
#include "connection/listener.hpp"
#include "connection/resolve.hpp"
#include "operation/operation.hpp"
#include "stream/socket.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// How to connect over TCP. `local_host` and `local_port` choose the local end; each works without the other.
struct tcp_connect_options {
  /// AF_INET or AF_INET6: only addresses of this family. An IPv4-mapped address ("::ffff:127.0.0.1") belongs
  /// to AF_INET6: an IPv6 socket reaches IPv4 with it, and both endpoints are reported as IPv4.
  int family = AF_UNSPEC;
  std::string_view local_host = {};  ///< a name or an address of this machine
  std::uint16_t local_port = 0;      ///< 0: the system chooses a free port
  std::chrono::milliseconds happy_eyeballs_delay =
      std::chrono::milliseconds(250);  ///< before the next address is tried in parallel (RFC 8305)
  bool no_delay = true;                ///< TCP_NODELAY
  /// Called between socket(2) and connect(2); returns 0 or an errno.
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;  ///< passed to `prepare`
};

namespace detail {

/// The options that an attempt needs.
struct connect_settings {
  std::optional<ip_endpoint> local;
  bool no_delay = true;
  int (*prepare)(int fd, void* data) = nullptr;
  void* prepare_data = nullptr;
};

/// Connects to one address.
class [[nodiscard]] connect_attempt : public operation<connect_attempt, tcp_stream> {
 public:
  static constexpr const char* name = "connect";
  connect_attempt() = default;
  connect_attempt(const ip_endpoint& target, const connect_settings& settings)
      : operation(true), target_(target), settings_(settings) {}
  connect_attempt(connect_attempt&&) = default;
  connect_attempt& operator=(connect_attempt&& other) noexcept {
    left();
    operation::operator=(std::move(other));
    target_ = other.target_;
    settings_ = other.settings_;
    return *this;
  }
  ~connect_attempt() { left(); }

 private:
  friend class operation<connect_attempt, tcp_stream>;

  bool attempt(result<tcp_stream>& out);
  bool begin_connect(result<tcp_stream>& out);
  bool finish_connect(result<tcp_stream>& out);
  void left() noexcept {
    if (!resource_) return;
    if (resource_->waiting(write_side) == this) resource_->set_waiting(write_side, nullptr);
    resource_->close();
    resource_ = {};
  }
  [[nodiscard]] int descriptor() const noexcept { return resource_ ? resource_->descriptor() : -1; }

  ip_endpoint target_;
  connect_settings settings_;
  ref<tcp_resource> resource_;
};

/// One of several attempts, in its own memory block.
struct racing_attempt : link, pooled<recycler::operations> {
  explicit racing_attempt(connect_attempt&& o) : op(std::move(o)) {}
  connect_attempt op;
  bool is_first = false;
};

/// The operation that `connect_tcp` returns.
class [[nodiscard]] connect_tcp_operation : public operation<connect_tcp_operation, tcp_stream> {
 public:
  static constexpr const char* name = "connect";
  connect_tcp_operation() = default;
  connect_tcp_operation(std::string_view host, std::uint16_t port, const tcp_connect_options& options);
  connect_tcp_operation(const ip_endpoint& target, const tcp_connect_options& options);
  connect_tcp_operation(connect_tcp_operation&& other) noexcept : connect_tcp_operation() {
    *this = std::move(other);
  }
  connect_tcp_operation& operator=(connect_tcp_operation&& other) noexcept;
  ~connect_tcp_operation() { left(); }

 private:
  friend class operation<connect_tcp_operation, tcp_stream>;

  enum class stage : std::uint8_t { fresh, local_name, name, race };

  bool attempt(result<tcp_stream>& out);
  bool look_up(stage s, result<tcp_stream>& out);
  bool take_names(result<std::vector<ip_endpoint>>&& r, result<tcp_stream>& out);
  [[nodiscard]] int reachable_family() const noexcept;
  bool begin_race(result<tcp_stream>& out);
  bool go_on(result<tcp_stream>& out);
  void start_next();
  void ended(racing_attempt* which, result<tcp_stream>&& r);
  void left() noexcept;

  std::string host_;
  std::string local_host_;
  std::optional<ip_endpoint> target_;
  std::uint16_t port_ = 0;
  std::uint16_t local_port_ = 0;
  int family_ = AF_UNSPEC;
  duration delay_{};
  connect_settings settings_;
  stage stage_ = stage::fresh;
  host_look_up names_;
  std::vector<ip_endpoint> locals_;
  std::vector<ip_endpoint> targets_;
  std::size_t next_ = 0;
  std::size_t running_ = 0;
  list attempts_;
  timer head_start_;
  error first_failure_;
  part_outcome<tcp_stream> won_;
};

/// The operation that `connect_unix` returns.
class [[nodiscard]] connect_unix_operation : public operation<connect_unix_operation, unix_stream> {
 public:
  static constexpr const char* name = "connect";
  connect_unix_operation() = default;
  explicit connect_unix_operation(std::string_view path) : operation(!path.empty()), path_(path) {}

 private:
  friend class operation<connect_unix_operation, unix_stream>;

  bool attempt(result<unix_stream>& out);
  void left() noexcept {
    pause_.cancel();
    fd_.reset();
  }
  void refresh() noexcept { pause_.cancel(); }

  std::string path_;
  unique_fd fd_;
  timer pause_;
  duration next_pause_{};
};

/// The operation that `create_tcp_listener` returns.
class [[nodiscard]] create_tcp_listener_operation
    : public operation<create_tcp_listener_operation, tcp_listener> {
 public:
  static constexpr const char* name = "create_tcp_listener";
  create_tcp_listener_operation() = default;
  explicit create_tcp_listener_operation(const tcp_listener_options& options)
      : operation(true), host_(options.local_host), options_(options) {}

 private:
  friend class operation<create_tcp_listener_operation, tcp_listener>;

  bool attempt(result<tcp_listener>& out);
  void left() noexcept { names_.withdraw(); }

  std::string host_;
  tcp_listener_options options_;
  host_look_up names_;
};

}  // namespace detail

/// Connects to a host, by name or by address in text. If all of its addresses fail, it raises the error of
/// the first one tried. Of several addresses, those whose family this machine lacks are skipped. Names are
/// resolved on another thread.
[[nodiscard]] inline detail::connect_tcp_operation connect_tcp(std::string_view host, std::uint16_t port,
                                                               tcp_connect_options options = {}) {
  return {host, port, options};
}
/// Connects to an address.
[[nodiscard]] inline detail::connect_tcp_operation connect_tcp(ip_endpoint target,
                                                               tcp_connect_options options = {}) {
  return {target, options};
}

/// Connects to a UNIX listener; a leading NUL byte means Linux's abstract namespace. While the listener's
/// backlog is full, it retries after growing pauses.
[[nodiscard]] inline detail::connect_unix_operation connect_unix(std::string_view path) {
  return detail::connect_unix_operation(path);
}

/// Listens for TCP connections on the addresses that the options name.
[[nodiscard]] inline detail::create_tcp_listener_operation create_tcp_listener(
    tcp_listener_options options = {}) {
  return detail::create_tcp_listener_operation(options);
}

}}  // namespace anyio
