// Opening UNIX datagram sockets, and the pauses of a blocked send.
#pragma once

#include "base/standard.hpp"
#include "connection/unix_bind.hpp"
#include "datagram/unix_datagram.hpp"
#include "stream/socket.hpp"
#include "system/unique_fd.hpp"

#include <cerrno>

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
  milliseconds_ = std::min(std::max(milliseconds_ * 2, 1u), 20u);
  tried_early_ = false;
  loop.arm(timer_, add(loop.now(), std::chrono::milliseconds(milliseconds_)), target);
}

/// Opens a socket. Connects it if `remote` is not null.
inline result<ref<unix_datagram_resource>> open_unix_datagram(const std::string_view* remote,
                                                              const unix_datagram_options& options) {
  loop_core& core = loop_core::current();
  // Invalid names are reported before a socket is opened.
  result<unix_address> peer = make_unix_address(remote != nullptr ? *remote : std::string_view(), "connect");
  if (!peer) return peer.error();
  const result<unix_address> own = make_unix_address(options.local_path, "bind");
  if (!own) return own.error();

  ref<unix_datagram_resource> made(new unix_datagram_resource(core, remote != nullptr));
  made->local = options.local_path;
  if (remote != nullptr) made->remote = *remote;
  new_socket socket(core.system(), AF_UNIX, SOCK_DGRAM);
  bound_file file(socket, core.system(), made->local, options.local_mode);
  if (remote != nullptr) socket.connect(reinterpret_cast<const sockaddr*>(&peer->storage), peer->size);
  socket.step("watch", [&] { return made->watch(socket.fd()); });
  if (socket.failed()) return socket.failure();
  socket.taken_over();
  file.keep();
  return made;
}

inline result<ref<unix_datagram_resource>> adopt_unix_datagram(int fd, bool connected, const char* what) {
  loop_core& core = loop_core::current();
  const auto adopted = adopt_socket(core.system(), fd, {what, true, SOCK_DGRAM, connected});
  if (!adopted) return adopted.error();
  ref<unix_datagram_resource> made(new unix_datagram_resource(core, connected));
  made->local = adopted->local.path();
  made->remote = adopted->remote.path();
  if (const int status = made->watch(fd); status < 0) return error(errc::os_error, -status, what);
  return made;
}

/// The names of a socket that may be closed or empty.
inline std::string unix_datagram_name(const ref<datagram_resource>& r, bool of_peer) {
  if (!r) return {};
  const auto& own = static_cast<const unix_datagram_resource&>(*r);
  return of_peer ? own.remote : own.local;
}

}  // namespace detail

ANYIO_NET_FN result<unix_datagram_socket> unix_datagram_socket::open(const unix_datagram_options& options) {
  return detail::datagram_access::wrap<unix_datagram_socket>(detail::open_unix_datagram(nullptr, options));
}

ANYIO_NET_FN result<unix_datagram_socket> unix_datagram_socket::from_fd(int fd) {
  return detail::datagram_access::wrap<unix_datagram_socket>(
      detail::adopt_unix_datagram(fd, false, "unix_datagram_socket"));
}

ANYIO_NET_FN result<connected_unix_datagram_socket> connected_unix_datagram_socket::open(
    std::string_view remote_path, const unix_datagram_options& options) {
  return detail::datagram_access::wrap<connected_unix_datagram_socket>(
      detail::open_unix_datagram(&remote_path, options));
}

ANYIO_NET_FN result<connected_unix_datagram_socket> connected_unix_datagram_socket::from_fd(int fd) {
  return detail::datagram_access::wrap<connected_unix_datagram_socket>(
      detail::adopt_unix_datagram(fd, true, "connected_unix_datagram_socket"));
}

ANYIO_NET_COLD result<> connected_unix_datagram_socket::reconnect() { return reconnect(remote_path()); }

ANYIO_NET_COLD result<> connected_unix_datagram_socket::reconnect(std::string_view path) {
  constexpr const char* operation = "reconnect";
  if (!*this) return error(errc::closed_resource, 0, operation);
  auto& own = static_cast<detail::unix_datagram_resource&>(*resource_);
  const result<detail::unix_address> to = detail::make_unix_address(path, operation);
  if (!to) return to.error();
  std::string remote(path);  // now, so that lack of memory changes nothing
  const result<detail::unix_address> former = detail::make_unix_address(own.remote, operation);
  if (!former) return former.error();
  const int status = own.reconnect(reinterpret_cast<const sockaddr*>(&to->storage), to->size,
                                   reinterpret_cast<const sockaddr*>(&former->storage), former->size);
  if (status < 0) return error(errc::os_error, -status, operation);
  own.remote = std::move(remote);
  return {};
}

ANYIO_NET_FN std::string unix_datagram_socket::local_path() const {
  return detail::unix_datagram_name(resource_, false);
}

ANYIO_NET_FN std::string connected_unix_datagram_socket::local_path() const {
  return detail::unix_datagram_name(resource_, false);
}

ANYIO_NET_FN std::string connected_unix_datagram_socket::remote_path() const {
  return detail::unix_datagram_name(resource_, true);
}

}}  // namespace anyio
