// How qemu-user 7.2, which runs the tests of other processors, differs from the kernel. Each fault is
// detected by plain system calls, at run time and only where tools/cross/emulate.sh runs the program: with a
// fixed emulator nothing is left out. Each omission is printed.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace support {

/// The command that runs this program in an emulator; null where the processor runs it.
inline const char* emulated_program() { return std::getenv("ANYIO_NET_TEST_EMULATED"); }

enum class emulator_fault {
  signal_64,        // the last signal is not delivered, but ends the process
  udp_control,      // control messages of UDP have the other processor's byte order
  udp_multicast,    // no IP_MULTICAST_IF
  cut_descriptors,  // descriptors without room are lost without MSG_CTRUNC, and stay open
  memory_limits     // under a limit of its address space the emulator itself does not start
};

namespace emulator_probe {

/// Tried in a child process, which a signal may end, and whose descriptors are closed with it.
template <class F>
bool in_child(F f) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f() ? 1 : 0);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status != 0;
}

inline bool signal_64() {
#if defined(SIGRTMAX)
  return in_child([] {
    ::signal(SIGRTMAX, [](int) {});
    return ::raise(SIGRTMAX) != 0;
  });
#else
  return false;
#endif
}

/// Two datagrams of one byte, sent as segments of one message, arrive as one of two bytes.
inline bool udp_control() {
#if defined(__linux__)
  constexpr int segment = 103;  // UDP_SEGMENT
  const int s = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof to;
  ::bind(s, reinterpret_cast<sockaddr*>(&to), sizeof to);
  ::getsockname(s, reinterpret_cast<sockaddr*>(&to), &size);
  char text[] = {'a', 'b'};
  iovec part{text, sizeof text};
  const unsigned short one = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof one)] = {};
  msghdr m{};
  m.msg_name = &to;
  m.msg_namelen = sizeof to;
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* const c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = IPPROTO_UDP;
  c->cmsg_type = segment;
  c->cmsg_len = CMSG_LEN(sizeof one);
  std::memcpy(CMSG_DATA(c), &one, sizeof one);
  const bool joined = ::sendmsg(s, &m, 0) == 2 && ::recv(s, text, sizeof text, 0) == 2;
  ::close(s);
  return joined;
#else
  return false;
#endif
}

inline bool udp_multicast() {
  const int s = ::socket(AF_INET, SOCK_DGRAM, 0);
  const in_addr lo{htonl(INADDR_LOOPBACK)};
  const bool refused = ::setsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo) != 0;
  ::close(s);
  return refused;
}

/// Two descriptors are sent, and there is room for one.
inline bool cut_descriptors() {
  return in_child([] {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) != 0) return false;
    char byte = 0;
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof ends)] = {};
    msghdr m{};
    m.msg_iov = &part;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    cmsghdr* const c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof ends);
    std::memcpy(CMSG_DATA(c), ends, sizeof ends);
    if (::sendmsg(ends[0], &m, 0) != 1) return false;
    m.msg_controllen = CMSG_LEN(sizeof(int));
    m.msg_flags = 0;
    return ::recvmsg(ends[1], &m, 0) == 1 && (m.msg_flags & MSG_CTRUNC) == 0;
  });
}

inline bool memory_limits() {
  const std::string command =
      std::string("ulimit -v 3000000; exec '") + emulated_program() + "' --version >/dev/null 2>&1";
  return std::system(command.c_str()) != 0;
}

}  // namespace emulator_probe

/// Whether an emulator with this fault runs the program, so that tests that depend on it are left out.
inline bool emulator_has(emulator_fault fault) {
  struct entry {
    bool (*probe)();
    const char* what;
    signed char found = -1;
  };
  static entry entries[] = {
      {emulator_probe::signal_64, "the last signal is not delivered: catching it"},
      {emulator_probe::udp_control, "control messages of UDP are not understood: UDP_SEGMENT and UDP_GRO"},
      {emulator_probe::udp_multicast, "there is no IP_MULTICAST_IF: multicast by a chosen interface"},
      {emulator_probe::cut_descriptors,
       "no MSG_CTRUNC: comparing messages with too little room for descriptors"},
      {emulator_probe::memory_limits,
       "it does not start with little memory: a thread that cannot be started"},
  };
  if (emulated_program() == nullptr) return false;
  entry& e = entries[static_cast<int>(fault)];
  if (e.found < 0) {
    e.found = e.probe() ? 1 : 0;
    if (e.found == 1) std::printf("emulator: %s is left out\n", e.what);
    std::fflush(stdout);
  }
  return e.found == 1;
}

}  // namespace support
