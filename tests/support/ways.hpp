// Both kinds of stream sockets in both forms of use, for cases that apply to all four.
#pragma once

#include "faces.hpp"
#include "sockets.hpp"

namespace support {

template <class Kind, class Face>
struct way {
  using kind = Kind;
  using face = Face;
};
using tcp_callback = way<tcp, by_callback>;
using tcp_coroutine = way<tcp, by_coroutine>;
using unix_callback = way<unix_pair, by_callback>;
using unix_coroutine = way<unix_pair, by_coroutine>;

}  // namespace support
