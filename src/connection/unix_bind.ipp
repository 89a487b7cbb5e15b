// Binding to a path, and telling a stale socket file from a live one.
#pragma once

#include "base/address.hpp"
#include "connection/unix_bind.hpp"

#include <cerrno>
#include <string>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Whether the path is a stale socket file, which no open socket uses. The probe is a datagram socket. A
/// socket in use accepts it or reports another type, also if it does not listen or its backlog is full (on
/// the BSDs, a full backlog refuses a stream probe). And a listener gets no connection from this probe.
inline bool is_stale(backend& system, const char* path, const unix_address& address) {
  file_identity before;
  if (paths_of(system).identify(path, before) < 0 || !before.is_socket) return false;
  const int probe = system.open_socket(AF_UNIX, SOCK_DGRAM, 0);
  if (probe < 0) return false;
  const int status = system.connect(probe, reinterpret_cast<const sockaddr*>(&address.storage), address.size);
  system.close(probe);
  if (status != -ECONNREFUSED) return false;
  file_identity after;
  return paths_of(system).identify(path, after) >= 0 && after.is_socket && after.device == before.device &&
         after.inode == before.inode;
}

ANYIO_NET_FN int bind_unix(backend& system, int fd, std::string_view path, const std::optional<mode_t>& mode,
                           const char*& operation) {
  operation = "bind";
  const result<unix_address> address = make_unix_address(path, operation);
  if (!address) return address.error().os_error() != 0 ? -address.error().os_error() : -EOPNOTSUPP;
  const auto* name = reinterpret_cast<const sockaddr*>(&address->storage);
  const bool is_file = !path.empty() && path.front() != '\0';
  const std::string file(path);

  if (is_file && mode) paths_of(system).prepare_mode(fd, *mode);  // no process can connect before chmod
  int status = system.bind(fd, name, address->size);
  if (status == -EADDRINUSE && is_file && is_stale(system, file.c_str(), *address)) {
    const int removed = paths_of(system).unlink(file.c_str());
    if (removed < 0 && removed != -ENOENT) return status;
    status = system.bind(fd, name, address->size);
  }
  if (status < 0 || !is_file || !mode) return status;
  operation = "chmod";
  status = paths_of(system).change_mode(file.c_str(), *mode);
  if (status < 0) paths_of(system).unlink(file.c_str());  // a call that fails leaves no file behind
  return status;
}

}}}  // namespace anyio::detail
