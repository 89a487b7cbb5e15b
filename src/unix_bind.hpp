// Giving a UNIX socket its name in the file system.
//
// A socket file outlives its socket and stands in the way of the next one. Whoever binds removes such a
// stale file, and nothing else ever: only a socket, and only one on which a probing connect is refused.
// Shared by listeners and datagram sockets. It must not know who binds, or why.
#pragma once

#include "backend.hpp"
#include "config.hpp"

#include <optional>
#include <string_view>

#include <sys/types.h>

namespace anyio::inline ANYIO_NET_ABI::detail {

/// Binds `fd` to a path or an abstract name, and sets the file's mode.
/// 0, or a negative errno and in `operation` the step that failed: "bind" or "chmod".
[[nodiscard]] int bind_unix(backend& system, int fd, std::string_view path, const std::optional<mode_t>& mode,
                            const char*& operation);

}  // namespace anyio::inline ANYIO_NET_ABI::detail
