// Opening UNIX datagram sockets.
#pragma once

#include <doctest/doctest.h>

#include <string_view>
#include <utility>

#include "anyio_net.hpp"

namespace support {

/// A UNIX datagram socket at a path; a closed one, and a failed check, if it cannot be opened.
inline anyio::unix_datagram_socket open_datagrams_at(std::string_view path) {
  anyio::unix_datagram_options options;
  options.local_path = path;
  auto r = anyio::unix_datagram_socket::open(options);
  CHECK(r.has_value());
  return r ? *std::move(r) : anyio::unix_datagram_socket();
}

}  // namespace support
