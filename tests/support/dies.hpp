// Whether a call ends the process, for calls that API.md says assert: tried in a child process.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace support {

/// Whether ANYIO_NET_ASSERT is enabled.
#if defined(NDEBUG)
inline constexpr bool asserts = false;
#else
inline constexpr bool asserts = true;
#endif

/// True if the call aborts. Its output to stderr is dropped.
template <class F>
bool dies(F f) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGABRT, SIG_DFL);
    const int nowhere = ::open("/dev/null", O_WRONLY);
    ::dup2(nowhere, STDERR_FILENO);
    f();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

}  // namespace support
