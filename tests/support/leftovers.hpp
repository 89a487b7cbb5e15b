// A test case must leave nothing behind. The program's main (main.cpp) counts open descriptors around every
// case, and helper threads and temporary directories at the end, and fails on any.
#pragma once

namespace support {

/// Set by a case whose helper threads may outlive the program's last case.
extern bool threads_may_remain;

}  // namespace support
