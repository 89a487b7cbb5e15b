// Opening UNIX datagram sockets, and the pauses of a blocked send.
#pragma once

#include "unix_bind.hpp"
#include "unix_datagram.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace anyio::inline ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN void retry_pause::begin(loop_core& loop, node& target) noexcept {
  milliseconds_ = std::clamp(milliseconds_ * 2, 1u, 20u);
  loop.arm(timer_, add(loop.now(), std::chrono::milliseconds(milliseconds_)), target);
}

ANYIO_NET_FN std::string unix_name_of(backend& system, int fd, int (backend::*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage name;
  socklen_t size = sizeof name;
  if ((system.*ask)(fd, reinterpret_cast<sockaddr*>(&name), &size) < 0) return {};
  return unix_path(reinterpret_cast<const sockaddr*>(&name), size);
}

ANYIO_NET_FN result<ref<unix_datagram_resource>> unix_datagram_access::open(const std::string_view* remote,
                                                                            const unix_datagram_options& options) {
  loop_core& core = loop_core::current();
  backend& system = core.system();
  // Names that cannot be are told before anything is made.
  result<unix_address> peer = make_unix_address(remote != nullptr ? *remote : std::string_view(), "connect");
  if (!peer) return peer.error();
  const result<unix_address> own = make_unix_address(options.local_path, "bind");
  if (!own) return own.error();

  opened_socket fd(system, system.open_socket(AF_UNIX, SOCK_DGRAM, 0));
  if (fd.get() < 0) return error(errc::os_error, -fd.get(), "socket");
  int status = 0;
  if (!options.local_path.empty()) {
    const char* operation = "bind";
    status = bind_unix(system, fd.get(), SOCK_DGRAM, options.local_path, options.local_mode, operation);
    if (status < 0) return error(errc::os_error, -status, operation);
  }
  if (remote != nullptr) {
    status = system.connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer->storage), peer->size);
    if (status < 0) return error(errc::os_error, -status, "connect");
  }
  ref<unix_datagram_resource> made(new unix_datagram_resource(core, remote != nullptr));
  made->local = options.local_path;
  if (remote != nullptr) made->remote = *remote;
  status = made->watch(fd.get());
  if (status < 0) return error(errc::os_error, -status, "watch");
  fd.release();
  return made;
}

ANYIO_NET_FN result<ref<unix_datagram_resource>> unix_datagram_access::adopt(int fd, bool connected,
                                                                             const descriptor_texts& texts) {
  loop_core& core = loop_core::current();
  backend& system = core.system();
  int type = 0;
  socklen_t size = sizeof type;
  int status = system.get_option(fd, SOL_SOCKET, SO_TYPE, &type, &size);
  if (status == -EOPNOTSUPP) return error(errc::not_supported, -status, texts.not_a_socket);
  if (status < 0) return error(errc::invalid_argument, -status, texts.not_a_socket);
  sockaddr_storage name;
  std::memset(&name, 0, sizeof name);
  socklen_t name_size = sizeof name;
  status = system.local_address(fd, reinterpret_cast<sockaddr*>(&name), &name_size);
  if (status < 0 || name.ss_family != AF_UNIX)
    return error(errc::invalid_argument, status < 0 ? -status : 0, texts.wrong_family);
  if (type != SOCK_DGRAM) return error(errc::invalid_argument, 0, texts.wrong_type);
  name_size = sizeof name;
  status = system.remote_address(fd, reinterpret_cast<sockaddr*>(&name), &name_size);
  if (connected && status < 0) return error(errc::invalid_argument, -status, texts.not_connected);

  status = system.adopt(fd);
  ref<unix_datagram_resource> made(new unix_datagram_resource(core, connected));
  made->local = unix_name_of(system, fd, &backend::local_address);
  if (connected) made->remote = unix_name_of(system, fd, &backend::remote_address);
  if (status >= 0) status = made->watch(fd);
  if (status < 0) return error(errc::os_error, -status, "from_fd");
  return made;
}

}  // namespace detail

ANYIO_NET_FN result<unix_datagram_socket> unix_datagram_socket::open(const unix_datagram_options& options) {
  return detail::unix_datagram_access::wrap<unix_datagram_socket>(
      detail::unix_datagram_access::open(nullptr, options));
}

ANYIO_NET_FN result<unix_datagram_socket> unix_datagram_socket::from_fd(int fd) {
  static constexpr detail::descriptor_texts texts{
      "unix_datagram_socket: not a socket", "unix_datagram_socket: wrong family",
      "unix_datagram_socket: wrong type", "", ""};
  return detail::unix_datagram_access::wrap<unix_datagram_socket>(
      detail::unix_datagram_access::adopt(fd, false, texts));
}

ANYIO_NET_FN result<connected_unix_datagram_socket> connected_unix_datagram_socket::open(
    std::string_view remote_path, const unix_datagram_options& options) {
  return detail::unix_datagram_access::wrap<connected_unix_datagram_socket>(
      detail::unix_datagram_access::open(&remote_path, options));
}

ANYIO_NET_FN result<connected_unix_datagram_socket> connected_unix_datagram_socket::from_fd(int fd) {
  static constexpr detail::descriptor_texts texts{
      "connected_unix_datagram_socket: not a socket", "connected_unix_datagram_socket: wrong family",
      "connected_unix_datagram_socket: wrong type", "", "connected_unix_datagram_socket: not connected"};
  return detail::unix_datagram_access::wrap<connected_unix_datagram_socket>(
      detail::unix_datagram_access::adopt(fd, true, texts));
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

}  // namespace anyio::inline ANYIO_NET_ABI
