// Forked children of a test.
#pragma once

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace support {

/// Calls `body` in a forked child, and returns the child's status: 0 if the body returned true, the signal if
/// one ended it. A child that hangs is ended after a time that no other child needs.
template <class Body>
int in_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGALRM, SIG_DFL);
    ::alarm(30);
    ::_exit(body() ? 0 : 1);
  }
  int status = 1;
  CHECK(::waitpid(child, &status, 0) == child);
  return status;
}

}  // namespace support
