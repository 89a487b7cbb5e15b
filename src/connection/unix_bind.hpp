// Giving a UNIX socket its name in the file system.
//
// A socket file outlives its socket and stands in the way of the next one. Whoever binds removes such a
// stale file, and nothing else ever: only a socket, and only one on which a probing connect is refused.
// Shared by listeners and datagram sockets. It must not know who binds, or why.
#pragma once

#include "base/config.hpp"
#include "system/backend.hpp"

#include <optional>
#include <string_view>

#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Binds `fd` to a path or an abstract name, and sets the file's mode.
/// 0, or a negative errno and in `operation` the step that failed: "bind" or "chmod".
[[nodiscard]] int bind_unix(backend& system, int fd, std::string_view path, const std::optional<mode_t>& mode,
                            const char*& operation);

/// Removes the file of a name that was bound, unless it is kept: a call that fails leaves nothing behind.
class bound_file {
 public:
  /// Null: there is no file. The text must stay.
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
