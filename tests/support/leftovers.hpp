// What a test case may leave behind: nothing. The program's main (main.cpp) counts open descriptors
// around every case, and helper threads and temporary folders at the end, and fails what it finds.
#pragma once

namespace support {

/// Set by a case whose helper threads may outlive the program's last case.
extern bool threads_may_remain;

}  // namespace support
