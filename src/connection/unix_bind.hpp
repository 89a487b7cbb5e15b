// Binding a UNIX socket to a path.
//
// A socket file outlives its socket and prevents the next bind to its path. So binding removes a stale socket
// file, and never another file: only a socket, and only if a connect to it is refused. Listeners and datagram
// sockets share this part. It must not know who binds, or why.
#pragma once

#include "base/config.hpp"
#include "system/backend.hpp"
#include "system/new_socket.hpp"

#include <optional>
#include <string>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Binds a socket to a path or an abstract name, and sets the file's mode: the steps "bind" and "chmod".
/// Removes the socket file on destruction, unless `keep` was called: a call that fails leaves no file behind.
class bound_file {
 public:
  /// The path must outlive this object; an empty one is not bound.
  bound_file(new_socket& made, backend& system, const std::string& path, const std::optional<mode_t>& mode);
  bound_file(const bound_file&) = delete;
  bound_file& operator=(const bound_file&) = delete;
  ~bound_file() {
    if (path_ != nullptr) paths_of(system_).unlink(path_);
  }
  void keep() noexcept { path_ = nullptr; }

 private:
  backend& system_;
  const char* path_ = nullptr;  // the file, if there is one
};

}}}  // namespace anyio::detail
