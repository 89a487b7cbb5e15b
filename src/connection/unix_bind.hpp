// Binding a UNIX socket to a path.
//
// A socket file outlives its socket and prevents the next bind to its path. So binding removes a stale socket
// file, and never another file: only a socket, and only if a connect to it is refused. Listeners and datagram
// sockets share this part. It must not know who binds, or why.
#pragma once

#include "base/config.hpp"
#include "system/backend.hpp"

#include <optional>
#include <string_view>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Binds `fd` to a path or an abstract name, and sets the file's mode. Returns 0, or a negative errno; then
/// `operation` names the step that failed: "bind" or "chmod".
[[nodiscard]] int bind_unix(backend& system, int fd, std::string_view path, const std::optional<mode_t>& mode,
                            const char*& operation);

/// Removes a bound socket file on destruction, unless `keep` was called: a call that fails leaves no file
/// behind.
class bound_file {
 public:
  /// A null `path` means that there is no file. The text must outlive this object.
  bound_file(backend& system, const char* path) noexcept : system_(system), path_(path) {}
  bound_file(const bound_file&) = delete;
  bound_file& operator=(const bound_file&) = delete;
  ~bound_file() {
    if (path_ != nullptr) paths_of(system_).unlink(path_);
  }
  void keep() noexcept { path_ = nullptr; }

 private:
  backend& system_;
  const char* path_;
};

}}}  // namespace anyio::detail
