// Shared by the programs of this folder. Each program shows one fault that other network libraries or servers
// have had. It prints what it observed and exits with 0 if that is correct, 1 if it is wrong, and 77 if the
// machine cannot show it. `make check-cases` builds and runs them.
#pragma once

#include <csignal>
#include <cstdio>
#include <string>

#include <unistd.h>

#include "anyio_net.hpp"
#include "support/faces.hpp"

namespace cases {

inline constexpr int right = 0;
inline constexpr int wrong = 1;
inline constexpr int skipped = 77;

/// Prints an observation, and updates the program's exit status.
class verdict {
 public:
  void expect(bool as_it_should_be, const char* what, const std::string& seen) {
    std::printf("%s: %s: %s\n", as_it_should_be ? "right" : "WRONG", what, seen.c_str());
    if (!as_it_should_be) status_ = wrong;
  }
  void expect(bool as_it_should_be, const char* what, const anyio::error& seen) {
    expect(as_it_should_be, what, seen.message());
  }
  int status() const { return status_; }

 private:
  int status_ = right;
};

/// Ends the program if the loop hangs in a system call.
inline void end_when_it_hangs() {
  ::signal(SIGALRM, [](int) {
    static const char text[] = "WRONG: it hangs\n";
    (void)!::write(STDOUT_FILENO, text, sizeof text - 1);
    ::_exit(wrong);
  });
  ::alarm(20);
}

/// The lowest number that the next descriptor would get: it grows if a descriptor leaked.
inline int lowest_free_descriptor() {
  const int fd = ::dup(STDOUT_FILENO);
  ::close(fd);
  return fd;
}

struct tcp_pair {
  anyio::tcp_stream client;
  anyio::tcp_stream server;
};

/// Two connected ends, over loopback.
inline tcp_pair connected() {
  tcp_pair pair;
  auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0}).value();
  auto accepted = listener.accept();
  accepted.start([p = &pair](anyio::result<anyio::tcp_stream> r) { p->server = std::move(r).value(); });
  pair.client = anyio::run(anyio::connect_tcp(listener.local_endpoints().front()));
  while (!pair.server) anyio::loop::current().run_once(std::chrono::seconds(1));
  return pair;
}

}  // namespace cases
