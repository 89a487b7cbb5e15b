// What the servers of the measurement have in common: their command line, and how they say where they listen.
//
//   SERVER MODE KIND PATH THREADS [FORM]
//
//   MODE     echo, sink; for UDP also echo-batch, sink-batch and sink-gro
//   KIND     tcp, unix, tls, udp, unixgram
//   PATH     of the socket for unix and unixgram, a folder with server.pem and server.key for tls, else -
//   THREADS  how many loops share the port of a TCP server
//   FORM     of the loop by hand: level or edge
//
// A server prints its port or path once it listens, and serves until it is killed. What a library has no
// means for is "unsupported" and exit status 3. A sink over UDP answers a datagram of one byte with how many
// others it has got so far.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace bench {

inline constexpr std::size_t stream_buffer = 65536;
inline constexpr std::size_t echo_buffer = 16384;  // where every connection has one of its own
inline constexpr std::size_t datagram_buffer = 2048;
inline constexpr std::size_t batch_count = 64;

struct arguments {
  std::string mode, kind, path;
  int threads = 1;
  std::string form;

  [[nodiscard]] bool is(std::string_view m, std::string_view k) const { return mode == m && kind == k; }
  [[nodiscard]] std::string certificate() const { return path + "/server.pem"; }
  [[nodiscard]] std::string key() const { return path + "/server.key"; }
};

inline arguments parse(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: %s MODE KIND PATH THREADS [FORM]\n", argv[0]);
    std::exit(2);
  }
  return {argv[1], argv[2], argv[3], std::atoi(argv[4]), argc > 5 ? argv[5] : "edge"};
}

[[noreturn]] inline void fail(const char* what) {
  std::perror(what);
  std::_Exit(1);
}

inline int unsupported() {
  std::puts("unsupported");
  return 3;
}

inline void announce(const std::string& where) {
  std::puts(where.c_str());
  std::fflush(stdout);
}
inline void announce(unsigned port) { announce(std::to_string(port)); }

/// A free TCP port that stays ours until the program ends, for listeners with SO_REUSEPORT.
inline std::uint16_t reserve_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) < 0) fail("bind");
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) fail("getsockname");
  return ntohs(address.sin_port);
}

/// Runs `serve(port, listening)` on every thread: it listens on that port (0: a free one), alone or, when
/// there are several, with SO_REUSEPORT, then calls `listening(port)` and runs its loop.
template <class Serve>
int run_threads(const arguments& a, Serve serve) {
  if (a.threads <= 1) {
    serve(std::uint16_t{0}, [](unsigned port) { announce(port); });
    return 0;
  }
  const std::uint16_t port = reserve_port();
  std::atomic<int> missing = a.threads;
  std::vector<std::thread> threads;
  for (int i = 0; i < a.threads; ++i)
    threads.emplace_back([&] {
      serve(port, [&](unsigned bound) {
        if (--missing == 0) announce(bound);
      });
    });
  for (std::thread& t : threads) t.join();
  return 0;
}

}  // namespace bench
