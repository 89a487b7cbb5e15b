// In split mode the one unit that holds the library's definitions.
#define ANYIO_NET_IMPLEMENTATION
#include "anyio_net.hpp"
