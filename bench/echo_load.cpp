// The load of the measurement: connections that each send a message and wait for its echo, on one thread.
//
//   echo_load PORT CONNECTIONS MESSAGES [SERVER_PID]
//
// After a tenth of the messages for warming up, prints: messages a second, and what the server's processor
// spent per message in nanoseconds (0 without a PID).

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

constexpr std::size_t message_size = 64;

struct connection {
  int fd;
  std::size_t received = 0;
};

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

int connect_to(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) fail("connect");
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

/// Processor time of a process so far, in nanoseconds (proc(5), schedstat).
double processor_time(const char* pid) {
  const std::string path = std::string("/proc/") + pid + "/schedstat";
  std::FILE* file = std::fopen(path.c_str(), "r");
  if (file == nullptr) fail(path.c_str());
  double time = 0;
  if (std::fscanf(file, "%lf", &time) != 1) fail(path.c_str());
  std::fclose(file);
  return time;
}

void send_message(const connection& c) {
  static const char message[message_size] = {};
  if (::send(c.fd, message, sizeof message, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof message))
    fail("send");
}

/// Sends and receives so many messages, each connection at most one at a time.
void exchange(int poller, std::vector<connection>& connections, long messages) {
  long sent = 0;
  long done = 0;
  for (connection& c : connections) {
    if (sent == messages) break;
    send_message(c);
    ++sent;
  }
  epoll_event events[256];
  while (done < messages) {
    const int count = ::epoll_wait(poller, events, 256, 10000);
    if (count == 0) {
      std::fputs("echo_load: no answer for ten seconds\n", stderr);
      std::exit(1);
    }
    for (int i = 0; i < count; ++i) {
      auto& c = *static_cast<connection*>(events[i].data.ptr);
      char bytes[4096];
      const ssize_t n = ::recv(c.fd, bytes, sizeof bytes, MSG_DONTWAIT);
      if (n < 0 && errno == EAGAIN) continue;
      if (n <= 0) fail("recv");
      c.received += static_cast<std::size_t>(n);
      if (c.received < message_size) continue;
      c.received = 0;
      ++done;
      if (sent == messages) continue;
      send_message(c);
      ++sent;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return std::fputs("usage: echo_load PORT CONNECTIONS MESSAGES [SERVER_PID]\n", stderr), 2;
  const auto port = static_cast<std::uint16_t>(std::atoi(argv[1]));
  const long messages = std::atol(argv[3]);
  std::vector<connection> connections(static_cast<std::size_t>(std::atol(argv[2])));
  const int poller = ::epoll_create1(EPOLL_CLOEXEC);
  for (connection& c : connections) {
    c.fd = connect_to(port);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &c;
    if (::epoll_ctl(poller, EPOLL_CTL_ADD, c.fd, &event) < 0) fail("epoll_ctl");
  }
  exchange(poller, connections, messages / 10);

  const char* server = argc > 4 ? argv[4] : nullptr;
  const double used = server != nullptr ? processor_time(server) : 0;
  const auto begin = std::chrono::steady_clock::now();
  exchange(poller, connections, messages);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  const double cost = server != nullptr ? processor_time(server) - used : 0;
  std::printf("%.0f %.1f\n", static_cast<double>(messages) / time.count(),
              cost / static_cast<double>(messages));
}
