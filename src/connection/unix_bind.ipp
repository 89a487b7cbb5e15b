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

ANYIO_NET_FN bound_file::bound_file(new_socket& made, backend& system, const std::string& path,
                                    const std::optional<mode_t>& mode)
    : system_(system) {
  if (path.empty()) return;
  const bool is_file = path.front() != '\0';
  made.step("bind", [&] {
    const result<unix_address> address = make_unix_address(path, "bind");
    if (!address) return address.error().os_error() != 0 ? -address.error().os_error() : -EOPNOTSUPP;
    const auto* const name = reinterpret_cast<const sockaddr*>(&address->storage);
    if (is_file && mode)
      paths_of(system).prepare_mode(made.fd(), *mode);  // no process can connect before chmod
    const int status = system.bind(made.fd(), name, address->size);
    if (status != -EADDRINUSE || !is_file || !is_stale(system, path.c_str(), *address)) return status;
    const int removed = paths_of(system).unlink(path.c_str());
    return removed < 0 && removed != -ENOENT ? status : system.bind(made.fd(), name, address->size);
  });
  if (!is_file || made.failed()) return;
  path_ = path.c_str();
  if (mode) made.step("chmod", [&] { return paths_of(system).change_mode(path_, *mode); });
}

}}}  // namespace anyio::detail
