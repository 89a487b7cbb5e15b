// The library's definitions, compiled once for all targets.
#define ANYIO_NET_IMPLEMENTATION
#include "anyio_net.hpp"
