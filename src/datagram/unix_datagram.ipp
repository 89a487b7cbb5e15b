// Opening UNIX datagram sockets, and the pauses of a blocked send.
#pragma once

#include "connection/unix_bind.hpp"
#include "datagram/unix_datagram.hpp"
#include "stream/socket.hpp"
#include "system/unique_fd.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

static_assert(sizeof(unix_datagram_resource) <= recycler::block_size_of[recycler::descriptors]);

// A send to a full queue allocates the datagram first. Freeing it again triggers an event that there is room,
// so a send that retries at every event retries without end. So the kernel is asked for room, if the socket
// is connected (else it does not know), and its answer is believed once per pause.
ANYIO_NET_FN bool retry_pause::over(datagram_resource& socket) noexcept {
  if (timer_.armed()) {
    if (!socket.connected() || tried_early_ || socket.exhausted[write_side]) return false;
    const int ready = socket.core().system().poll_now(socket.descriptor(), ready_write);
    if (ready < 0 || (static_cast<std::uint32_t>(ready) & ready_write) == 0) {
      socket.exhausted[write_side] = true;
      return false;
    }
    tried_early_ = true;
  }
  socket.exhausted[write_side] = false;
  return true;
}

ANYIO_NET_FN void retry_pause::begin(loop_core& loop, node& target) noexcept {
  if (timer_.armed()) return;
  milliseconds_ = std::clamp(milliseconds_ * 2, 1u, 20u);
  tried_early_ = false;
  loop.arm(timer_, add(loop.now(), std::chrono::milliseconds(milliseconds_)), target);
}

ANYIO_NET_FN result<ref<unix_datagram_resource>> unix_datagram_access::open(
    const std::string_view* remote, const unix_datagram_options& options) {
  loop_core& core = loop_core::current();
  backend& system = core.system();
  // Invalid names are reported before a socket is opened.
  result<unix_address> peer = make_unix_address(remote != nullptr ? *remote : std::string_view(), "connect");
  if (!peer) return peer.error();
  const result<unix_address> own = make_unix_address(options.local_path, "bind");
  if (!own) return own.error();

  ref<unix_datagram_resource> made(new unix_datagram_resource(core, remote != nullptr));
  made->local = options.local_path;
  if (remote != nullptr) made->remote = *remote;
  int status = system.open_socket(AF_UNIX, SOCK_DGRAM, 0);
  if (status < 0) return error(errc::os_error, -status, "socket");
  unique_fd fd(status);
  if (!options.local_path.empty()) {
    const char* operation = "bind";
    status = bind_unix(system, fd.get(), options.local_path, options.local_mode, operation);
    if (status < 0) return error(errc::os_error, -status, operation);
  }
  const bool is_file = !options.local_path.empty() && options.local_path.front() != '\0';
  bound_file file(system, is_file ? made->local.c_str() : nullptr);
  if (remote != nullptr) {
    status = system.connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer->storage), peer->size);
    if (status < 0) return error(errc::os_error, -status, "connect");
  }
  status = made->watch(fd.get());
  if (status < 0) return error(errc::os_error, -status, "watch");
  static_cast<void>(fd.release());
  file.keep();
  return made;
}

ANYIO_NET_FN result<ref<unix_datagram_resource>> unix_datagram_access::adopt(int fd, bool connected,
                                                                             const char* what) {
  loop_core& core = loop_core::current();
  backend& system = core.system();
  if (auto r = adopt_socket(system, fd, {what, true, SOCK_DGRAM, connected}); !r) return r.error();
  ref<unix_datagram_resource> made(new unix_datagram_resource(core, connected));
  made->local = local_path_of(system, fd);
  if (connected) made->remote = remote_path_of(system, fd);
  if (const int status = made->watch(fd); status < 0) return error(errc::os_error, -status, what);
  return made;
}

}  // namespace detail

ANYIO_NET_FN result<unix_datagram_socket> unix_datagram_socket::open(const unix_datagram_options& options) {
  return detail::unix_datagram_access::wrap<unix_datagram_socket>(
      detail::unix_datagram_access::open(nullptr, options));
}

ANYIO_NET_FN result<unix_datagram_socket> unix_datagram_socket::from_fd(int fd) {
  return detail::unix_datagram_access::wrap<unix_datagram_socket>(
      detail::unix_datagram_access::adopt(fd, false, "unix_datagram_socket"));
}

ANYIO_NET_FN result<connected_unix_datagram_socket> connected_unix_datagram_socket::open(
    std::string_view remote_path, const unix_datagram_options& options) {
  return detail::unix_datagram_access::wrap<connected_unix_datagram_socket>(
      detail::unix_datagram_access::open(&remote_path, options));
}

ANYIO_NET_FN result<connected_unix_datagram_socket> connected_unix_datagram_socket::from_fd(int fd) {
  return detail::unix_datagram_access::wrap<connected_unix_datagram_socket>(
      detail::unix_datagram_access::adopt(fd, true, "connected_unix_datagram_socket"));
}

ANYIO_NET_FN std::string unix_datagram_socket::local_path() const {
  return resource_ ? detail::unix_datagram_access::resource_of(resource_).local : std::string();
}

ANYIO_NET_FN std::string connected_unix_datagram_socket::local_path() const {
  return resource_ ? detail::unix_datagram_access::resource_of(resource_).local : std::string();
}

ANYIO_NET_FN std::string connected_unix_datagram_socket::remote_path() const {
  return resource_ ? detail::unix_datagram_access::resource_of(resource_).remote : std::string();
}

}}  // namespace anyio
