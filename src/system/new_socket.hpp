// Sockets by their descriptor: addresses, options, and the steps in which one is made or taken over.
//
// All kinds of sockets share these helpers, so that the same step has the same name in errors everywhere.
// This part must not know what a socket is used for.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/result.hpp"
#include "system/backend.hpp"
#include "system/unique_fd.hpp"

#include <string>
#include <utility>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// An address in the kernel's form, or room for one.
struct socket_address {
  sockaddr_storage storage;  // only the first `size` bytes are set
  socklen_t size = sizeof storage;

  socket_address() noexcept {}  // the storage stays as it is, since a call fills it
  explicit socket_address(const ip_endpoint& e) noexcept : size(write_sockaddr(e, storage)) {}
  /// The address in the form that a socket of this family needs, see `fill_address`.
  socket_address(const ip_endpoint& e, int family) noexcept { set(e, family); }
  void set(const ip_endpoint& e, int family) noexcept { size = fill_address(e, family, storage); }

  [[nodiscard]] sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  /// The IP endpoint; 0.0.0.0:0 if it is no IP address.
  [[nodiscard]] ip_endpoint endpoint() const noexcept {
    const result<ip_endpoint> r = ip_endpoint::from_sockaddr(get(), size);
    return r ? *r : ip_endpoint();
  }
  /// The path of a UNIX socket; empty if it has none.
  [[nodiscard]] std::string path() const { return unix_path(get(), size); }
};

/// Reads the address of this end, or of the peer. 0 or a negative errno; then the size is 0.
int read_address(backend& system, int fd, socket_address& out, bool of_peer = false);
/// The address of this end; empty if the call fails.
[[nodiscard]] inline socket_address local_address_of(backend& system, int fd) {
  socket_address a;
  read_address(system, fd, a);
  return a;
}
/// The address of the peer; empty if there is none.
[[nodiscard]] inline socket_address remote_address_of(backend& system, int fd) {
  socket_address a;
  read_address(system, fd, a, true);
  return a;
}

/// getsockopt(2). 0 or a negative errno; the value is left as it is where the system writes nothing.
template <class T>
int read_option(backend& system, int fd, int level, int name, T& value) {
  socklen_t size = sizeof value;
  return system.get_option(fd, level, name, &value, &size);
}
/// setsockopt(2). 0 or a negative errno.
template <class T>
int write_option(backend& system, int fd, int level, int name, const T& value) {
  return system.set_option(fd, level, name, &value, sizeof value);
}

/// A socket that is made step by step. After a step that failed, the later ones do nothing.
class new_socket {
 public:
  new_socket(backend& system, int family, int type) : system_(system) {
    step("socket", [&] {
      fd_.reset(system_.open_socket(family, type, 0));
      return fd_.get();
    });
  }

  /// One step, which gives a negative errno if it fails. `name` is static text, for the error.
  template <class Call>
  void step(const char* name, Call call) {
    if (status_ < 0) return;
    name_ = name;
    status_ = call();
  }
  void set_option(int level, int name, int value) {
    step("set_option", [&] { return write_option(system_, fd(), level, name, value); });
  }
  /// Calls the user's function, which returns 0 or an errno.
  void prepare(int (*function)(int fd, void* data), void* data);
  void bind(const socket_address& to) {
    step("bind", [&] { return system_.bind(fd(), to.get(), to.size); });
  }
  void connect(const sockaddr* to, socklen_t size) {
    step("connect", [&] { return system_.connect(fd(), to, size); });
  }
  void listen(int backlog) {
    step("listen", [&] { return system_.listen(fd(), backlog); });
  }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] bool failed() const noexcept { return status_ < 0; }
  [[nodiscard]] error failure() const noexcept { return error(errc::os_error, -status_, name_); }
  /// Gives up the descriptor, which has an owner now.
  void taken_over() noexcept { static_cast<void>(fd_.release()); }

 private:
  backend& system_;
  unique_fd fd_;
  const char* name_ = "";
  int status_ = 0;
};

/// The requirements of a `from_fd` function on a descriptor.
struct wanted_socket {
  const char* what;  // the prefix of the error: "tcp_stream"
  bool is_unix;
  int type;
  bool connected;
  bool listening = false;
  bool any_family = false;  // then `is_unix` is ignored
};
/// The facts that `adopt_socket` found about a descriptor.
struct adopted_socket {
  socket_address local;
  socket_address remote;  // empty unless a connected socket was wanted
  bool was_blocking = false;
  int broken = 0;  // the errno that ended the connection, which the kernel reports only once
};
/// Checks that a descriptor is such a socket, and then makes it non-blocking and close-on-exec. On failure it
/// is unchanged.
[[nodiscard]] result<adopted_socket> adopt_socket(backend& system, int fd, const wanted_socket& wanted);
/// The `invalid_argument` of a `from_fd` function.
[[nodiscard]] inline error refusal_of(const char* what, int error_number, const char* reason) noexcept {
  return error_access::with_reason(error(errc::invalid_argument, error_number, what), reason);
}
/// The type of a socket; a negative errno for a descriptor that is no socket; an error for none at all.
[[nodiscard]] result<int> type_of_socket(backend& system, int fd, const char* what);

}}}  // namespace anyio::detail
