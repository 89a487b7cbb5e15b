// The load of the measurement: one thread that sends what a scenario wants, on a core of its own.
//
//   load SCENARIO KIND WHERE [--server PID] [--connections N] [--size BYTES] [--seconds S | --operations N]
//        [--segment]
//
//   SCENARIO  echo     each connection sends a message and waits for it; tcp, unix, tls, udp, unixgram
//             bulk     one connection sends as fast as it can; an operation is 1 MiB; tcp, unix, tls
//             accept   connects, ends its side, waits for the end of the other; N at a time; tcp, unix
//             idle     connects N times, echoes once on each, prints, and holds until standard input ends
//             flood    sends datagrams as fast as it can, and asks the sink how many it got; udp
//   WHERE     a port of 127.0.0.1, or a path
//
// A tenth comes first, for warming up. Prints one line of JSON: operations, seconds, processor time of the
// server in all and for each operation in nanoseconds, and the times of operations where one waits for its
// answer.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace {

using clock_type = std::chrono::steady_clock;

struct options {
  std::string scenario, kind, where;
  pid_t server = 0;
  std::size_t connections = 64;
  std::size_t size = 64;
  double seconds = 1;
  std::uint64_t operations = 0;  // 0: for so many seconds
  bool segment = false;
} options;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "load: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}
[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "load: %s\n", what);
  std::exit(1);
}

std::int64_t now() { return clock_type::now().time_since_epoch().count(); }

/// Processor time of the server so far, of all its threads, in nanoseconds.
std::int64_t processor_time() {
  clockid_t id;
  timespec t{};
  if (options.server == 0) return 0;
  if (::clock_getcpuclockid(options.server, &id) != 0 || ::clock_gettime(id, &t) < 0) fail("server's clock");
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// ---- sockets --------------------------------------------------------------------------------------

struct address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

address ip_address(std::uint32_t host, int port) {
  address a;
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(host);
  in.sin_port = htons(static_cast<std::uint16_t>(port));
  std::memcpy(&a.storage, &in, a.size = sizeof in);
  return a;
}

bool is_ip() { return options.kind != "unix" && options.kind != "unixgram"; }
bool is_datagram() { return options.kind == "udp" || options.kind == "unixgram"; }

address server_address() {
  if (is_ip()) return ip_address(INADDR_LOOPBACK, std::atoi(options.where.c_str()));
  address a;
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  options.where.copy(un.sun_path, sizeof un.sun_path - 1);
  std::memcpy(&a.storage, &un, a.size = sizeof un);
  return a;
}

/// Connected. From a changing address of 127.0.0.0/8 when many are made one after the other: each has its own
/// ports.
int connect_socket(bool rotate = false) {
  static const address to = server_address();
  static std::uint32_t turn = 0;
  const int fd = ::socket(to.get()->sa_family, (is_datagram() ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  const int on = 1;
  if (rotate && is_ip()) {
    const address from = ip_address(INADDR_LOOPBACK + 1 + turn++ % 250, 0);
    ::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (::bind(fd, from.get(), from.size) < 0) fail("bind");
  }
  if (options.kind == "unixgram") {  // a name for the answer
    sockaddr_un own{};
    own.sun_family = AF_UNIX;
    if (::bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof own.sun_family) < 0) fail("bind");
  }
  if (::connect(fd, to.get(), to.size) < 0) fail("connect");
  if (is_ip() && !is_datagram()) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

void watch(int poller, int fd, std::uint32_t events, void* what) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = what;
  if (::epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

// ---- connections, plain or TLS --------------------------------------------------------------------

SSL_CTX* tls_context() {
  static SSL_CTX* context = [] {
    SSL_CTX* c = SSL_CTX_new(TLS_client_method());
    // The same work for every server; the second where it has no TLS 1.3.
    SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_cipher_list(c, "ECDHE-ECDSA-AES128-GCM-SHA256");
    SSL_CTX_set_read_ahead(c, 1);
    return c;
  }();
  return context;
}

std::string cipher;

struct connection {
  int fd = -1;
  SSL* ssl = nullptr;
  std::size_t received = 0;
  std::int64_t sent_at = 0;
};

void open(connection& c) {
  c.fd = connect_socket();
  if (options.kind != "tls") return;
  c.ssl = SSL_new(tls_context());
  SSL_set_fd(c.ssl, c.fd);
  if (SSL_connect(c.ssl) != 1) give_up("TLS handshake failed");
  cipher = std::string(SSL_get_version(c.ssl)) + " " + SSL_get_cipher_name(c.ssl);
}

/// All of it; waits. Descriptors are blocking, receiving alone does not wait.
void send_all(connection& c, const char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t n = c.ssl != nullptr ? SSL_write(c.ssl, bytes, static_cast<int>(size))
                                       : ::send(c.fd, bytes, size, MSG_NOSIGNAL);
    if (n <= 0) fail("send");
    bytes += n;
    size -= static_cast<std::size_t>(n);
  }
}

/// -1: nothing there.
ssize_t receive(connection& c, char* into, std::size_t size) {
  ssize_t n;
  if (c.ssl != nullptr) {
    if (SSL_has_pending(c.ssl) == 0) {
      pollfd ready{c.fd, POLLIN, 0};
      if (::poll(&ready, 1, 0) == 0) return -1;
    }
    n = SSL_read(c.ssl, into, static_cast<int>(size));
  } else {
    n = ::recv(c.fd, into, size, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return -1;
  }
  if (n <= 0) give_up("the server ended a connection");
  return n;
}

// ---- the measured part ----------------------------------------------------------------------------

std::vector<std::uint32_t> times;  // of operations, in nanoseconds

/// When to stop: after so many operations, or after some time.
class limit {
 public:
  explicit limit(double share)
      : operations_(static_cast<std::uint64_t>(static_cast<double>(options.operations) * share)),
        end_(now() + static_cast<std::int64_t>(options.seconds * share * 1e9)) {}
  bool reached(std::uint64_t operations) const {
    return options.operations != 0 ? operations >= operations_ : now() >= end_;
  }

 private:
  std::uint64_t operations_;
  std::int64_t end_;
};

std::vector<char> message;
std::vector<char> inbox(1 << 16);

void send_message(connection& c) {
  c.sent_at = now();
  send_all(c, message.data(), message.size());
}

std::uint64_t echo(int poller, std::vector<connection>& connections, const limit& until) {
  std::uint64_t started = 0;
  std::uint64_t done = 0;
  bool stop = false;
  for (connection& c : connections) {
    if ((stop = until.reached(started))) break;
    send_message(c);
    ++started;
  }
  epoll_event events[256];
  for (int silent = 0; done < started;) {
    const int count = ::epoll_wait(poller, events, 256, 1000);
    if (count == 0) {
      if (++silent == 10) give_up("no answer for ten seconds");
      if (!is_datagram()) continue;
      for (connection& c : connections)  // lost: once more
        if (c.sent_at != 0) send_message(c);
      continue;
    }
    silent = 0;
    for (int i = 0; i < count; ++i) {
      auto& c = *static_cast<connection*>(events[i].data.ptr);
      for (;;) {
        const ssize_t n = receive(c, inbox.data(), inbox.size());
        if (n < 0) break;
        c.received += static_cast<std::size_t>(n);
        if (c.received < message.size()) {
          if (c.ssl != nullptr && SSL_has_pending(c.ssl) != 0) continue;
          break;
        }
        times.push_back(static_cast<std::uint32_t>(std::min<std::int64_t>(now() - c.sent_at, UINT32_MAX)));
        c.received = 0;
        c.sent_at = 0;
        ++done;
        stop = stop || until.reached(options.operations != 0 ? started : done);
        if (!stop) {
          send_message(c);
          ++started;
        }
        break;
      }
    }
  }
  return done;
}

void print(std::uint64_t operations, std::int64_t time, std::int64_t used, const std::string& more = "") {
  const double count = static_cast<double>(std::max<std::uint64_t>(operations, 1));
  std::printf(R"({"operations": %llu, "seconds": %.6f, "rate": %.1f, "server_ns": %lld, "ns": %.2f)",
              static_cast<unsigned long long>(operations), static_cast<double>(time) * 1e-9,
              count / (static_cast<double>(time) * 1e-9), static_cast<long long>(used),
              static_cast<double>(used) / count);
  if (!times.empty()) {
    std::sort(times.begin(), times.end());
    const auto at = [](double share) {
      return static_cast<double>(
          times[static_cast<std::size_t>(share * static_cast<double>(times.size() - 1))]);
    };
    std::printf(R"(, "p50_us": %.1f, "p99_us": %.1f)", at(0.5) / 1e3, at(0.99) / 1e3);
  }
  if (!cipher.empty()) std::printf(R"(, "cipher": "%s")", cipher.c_str());
  std::printf("%s}\n", more.c_str());
  std::fflush(stdout);
}

/// Warms up, then measures `work(limit)`, which gives how many operations it did.
template <class Work>
void measure(Work work) {
  work(limit(0.1));
  times.clear();
  const std::int64_t used = processor_time();
  const std::int64_t begin = now();
  const std::uint64_t operations = work(limit(1));
  const std::int64_t time = now() - begin;
  print(operations, time, processor_time() - used);
}

void run_echo() {
  std::vector<connection> connections(options.connections);
  const int poller = ::epoll_create1(EPOLL_CLOEXEC);
  for (connection& c : connections) {
    open(c);
    watch(poller, c.fd, EPOLLIN, &c);
  }
  times.reserve(1 << 20);
  measure([&](const limit& until) { return echo(poller, connections, until); });
}

void run_idle() {
  std::vector<connection> connections(options.connections);
  for (connection& c : connections) {
    open(c);
    send_all(c, message.data(), message.size());
    for (std::size_t got = 0; got < message.size();) {
      const ssize_t n = ::recv(c.fd, inbox.data(), inbox.size(), 0);
      if (n <= 0) fail("recv");
      got += static_cast<std::size_t>(n);
    }
  }
  print(options.connections, 1, 0);
  while (std::getchar() != EOF) {
  }
}

void run_bulk() {
  // The time until the server has taken all counts: its end says so.
  message.assign(std::max<std::size_t>(options.size, 1), 'x');
  measure([&](const limit& until) {
    connection c;
    open(c);
    std::uint64_t bytes = 0;
    do {
      send_all(c, message.data(), message.size());
      bytes += message.size();
    } while (!until.reached(bytes >> 20));
    if (c.ssl != nullptr) SSL_shutdown(c.ssl);
    ::shutdown(c.fd, SHUT_WR);
    while (::recv(c.fd, inbox.data(), inbox.size(), 0) > 0) {
    }
    SSL_free(c.ssl);
    ::close(c.fd);
    return bytes >> 20;
  });
}

void run_accept() {
  const int poller = ::epoll_create1(EPOLL_CLOEXEC);
  measure([&](const limit& until) {
    std::uint64_t started = 0;
    std::uint64_t done = 0;
    const auto begin = [&] {
      const int fd = connect_socket(true);
      ::shutdown(fd, SHUT_WR);
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.fd = fd;
      if (::epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
      ++started;
    };
    for (std::size_t i = 0; i < options.connections; ++i) begin();
    epoll_event events[256];
    while (done < started) {
      const int count = ::epoll_wait(poller, events, 256, 10000);
      if (count == 0) give_up("no answer for ten seconds");
      for (int i = 0; i < count; ++i) {
        char byte;
        if (::recv(events[i].data.fd, &byte, 1, MSG_DONTWAIT) > 0) give_up("bytes that nobody sent");
        ::close(events[i].data.fd);
        ++done;
        if (!until.reached(options.operations != 0 ? started : done)) begin();
      }
    }
    return done;
  });
}

// ---- UDP one way ----------------------------------------------------------------------------------

std::uint64_t sink_count(int fd) {
  for (int attempt = 0; attempt < 500; ++attempt) {
    const char question = '?';
    ::send(fd, &question, 1, 0);
    pollfd ready{fd, POLLIN, 0};
    if (::poll(&ready, 1, 20) == 0) continue;
    char answer[32];
    const ssize_t n = ::recv(fd, answer, sizeof answer - 1, MSG_DONTWAIT);
    if (n <= 0) continue;
    answer[n] = 0;
    return std::strtoull(answer, nullptr, 10);
  }
  give_up("the sink does not answer");
}

void run_flood() {
  constexpr std::size_t per_call = 63;
  const int fd = connect_socket();
  const int query = connect_socket();
  if (options.segment) {
    const int size = static_cast<int>(options.size);
    if (::setsockopt(fd, SOL_UDP, UDP_SEGMENT, &size, sizeof size) < 0) fail("UDP_SEGMENT");
  }
  message.assign(options.segment ? per_call * options.size : options.size, 'x');
  if (message.size() > 65507) give_up("datagrams too large to segment");
  const std::uint64_t each = options.segment ? per_call : 1;
  const auto flood = [&](const limit& until) {
    std::uint64_t sent = 0;
    do {
      if (::send(fd, message.data(), message.size(), 0) < 0 && errno != ENOBUFS && errno != ECONNREFUSED)
        fail("send");
      sent += each;
    } while (!until.reached(sent));
    return sent;
  };
  flood(limit(0.1));
  const std::uint64_t before = sink_count(query);
  const std::int64_t used = processor_time();
  const std::int64_t begin = now();
  const std::uint64_t sent = flood(limit(1));
  const std::int64_t time = now() - begin;
  const std::uint64_t got = sink_count(query) - before;
  const std::int64_t cost = processor_time() - used;
  char more[64];
  std::snprintf(more, sizeof more, R"(, "lost": %.4f)",
                1 - static_cast<double>(got) / static_cast<double>(sent));
  print(got, time, cost, more);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) give_up("usage: load SCENARIO KIND WHERE [options]");
  options.scenario = argv[1];
  options.kind = argv[2];
  options.where = argv[3];
  for (int i = 4; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--segment") {
      options.segment = true;
      continue;
    }
    if (i + 1 == argc) give_up("an option without its value");
    const char* value = argv[++i];
    if (name == "--server")
      options.server = std::atoi(value);
    else if (name == "--connections")
      options.connections = std::strtoull(value, nullptr, 10);
    else if (name == "--size")
      options.size = std::strtoull(value, nullptr, 10);
    else if (name == "--seconds")
      options.seconds = std::atof(value);
    else if (name == "--operations")
      options.operations = std::strtoull(value, nullptr, 10);
    else
      give_up("unknown option");
  }
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  message.assign(options.size, 'x');

  if (options.scenario == "echo")
    run_echo();
  else if (options.scenario == "bulk")
    run_bulk();
  else if (options.scenario == "accept")
    run_accept();
  else if (options.scenario == "idle")
    run_idle();
  else if (options.scenario == "flood")
    run_flood();
  else
    give_up("unknown scenario");
}
