// What one operation of a hot path costs in instructions, system calls and allocations.
//
//   cost SCENARIO COUNT       does COUNT operations, and prints how many times they allocated
//   cost --list               the scenarios: name, a COUNT that tells enough, and what an operation is
//   cost --built-with         compiler, version and machine
//
// tools/checks/check_cost.py runs it under callgrind and strace, with COUNT and twice that, and divides the
// difference, so that starting up cancels out.
//
// Only the library's side is counted: what runs inside `library_side`, where callgrind collects
// (--toggle-collect) and around which two getppid calls stand for strace. In there are the loop's turns, and
// with them the few instructions of the handler and those of libc. The peers, in raw system calls, are
// outside. Nothing depends on time: before a turn its input is there, and the turn handles all of it.

#include "../anyio_net.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace std::chrono_literals;

// ---- counting ---------------------------------------------------------------------------------------

namespace {

bool counts_allocations = false;
std::size_t allocations = 0;

void count_allocation() { allocations += counts_allocations ? 1 : 0; }

}  // namespace

// In front of glibc's, so that an allocation past `operator new` counts too.
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* p, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) { return count_allocation(), __libc_malloc(size); }
void* calloc(std::size_t count, std::size_t size) { return count_allocation(), __libc_calloc(count, size); }
void* realloc(void* p, std::size_t size) { return count_allocation(), __libc_realloc(p, size); }
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  return count_allocation(), __libc_memalign(alignment, size);
}

// Neither inlined nor cloned: callgrind knows it by its name.
#if defined(__clang__)
[[gnu::noinline]]
#else
[[gnu::noipa]]
#endif
void library_side(void (*work)(void*), void* argument) {
  work(argument);
}
}

namespace {

template <class F>
void measured(F work) {
  ::syscall(SYS_getppid);
  counts_allocations = true;
  library_side([](void* f) { (*static_cast<F*>(f))(); }, &work);
  counts_allocations = false;
  ::syscall(SYS_getppid);
}

// ---- the peers' side ----------------------------------------------------------------------------------

template <class T>
T expect(T value, const char* what) {
  if (value < 0) {
    std::perror(what);
    std::exit(1);
  }
  return value;
}

template <class T>
T taken(anyio::result<T> r) {
  if (!r) {
    std::fprintf(stderr, "%s\n", r.error().message().c_str());
    std::exit(1);
  }
  return std::move(*r);
}

/// A descriptor of a peer.
class peer {
 public:
  explicit peer(int fd) : fd_(fd) {}
  peer(peer&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  peer& operator=(peer&&) = delete;
  ~peer() {
    if (fd_ >= 0) ::close(fd_);
  }

  [[nodiscard]] int fd() const { return fd_; }

  void send(std::string_view bytes) const {
    const auto n = expect(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), "send");
    if (static_cast<std::size_t>(n) != bytes.size()) expect(-1, "send in part");
  }
  /// So many bytes, of a datagram socket one datagram. 0 for the end of a stream.
  std::size_t receive(std::size_t size) const {
    std::size_t got = 0;
    while (got < size || size == 0) {
      static std::array<char, 65536> into;
      const auto n = expect(::recv(fd_, into.data(), into.size(), 0), "recv");
      if (n == 0) break;
      got += static_cast<std::size_t>(n);
    }
    return got;
  }

 private:
  int fd_;
};

void wait_for(int fd, short what) {
  pollfd p{fd, what, 0};
  expect(::poll(&p, 1, -1), "poll");
}

/// Until so much lies there for the library to read.
void wait_for_bytes(int fd, std::size_t size) {
  for (;;) {
    int there = 0;
    expect(::ioctl(fd, FIONREAD, &there), "FIONREAD");
    if (static_cast<std::size_t>(there) >= size) return;
    wait_for(fd, POLLIN);
  }
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int connected(int type, std::uint16_t port) {
  const int fd = expect(::socket(AF_INET, type, 0), "socket");
  const sockaddr_in address = loopback(port);
  expect(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
  return fd;
}

/// One connection: the library's end and the peer's.
template <class Stream>
std::pair<Stream, peer> connect();

template <>
std::pair<anyio::unix_stream, peer> connect() {
  int fds[2];
  expect(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), "socketpair");
  return {taken(anyio::unix_stream::from_fd(fds[0])), peer(fds[1])};
}

template <>
std::pair<anyio::tcp_stream, peer> connect() {
  const int listener = expect(::socket(AF_INET, SOCK_STREAM, 0), "socket");
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  expect(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), "bind");
  expect(::listen(listener, 1), "listen");
  expect(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  const int client = connected(SOCK_STREAM, ntohs(address.sin_port));
  const int server = expect(::accept(listener, nullptr, nullptr), "accept");
  ::close(listener);
  const int on = 1;
  for (const int fd : {client, server})
    expect(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
  return {taken(anyio::tcp_stream::from_fd(server)), peer(client)};
}

// ---- scenarios ----------------------------------------------------------------------------------------

/// How many operations a turn of the loop handles.
constexpr std::size_t batch = 64;

std::size_t completed = 0;

void turn_until(anyio::loop& loop, std::size_t goal) {
  measured([&] {
    while (completed < goal) loop.run_once(10s);
  });
}

/// As in bench/servers/anyio_callback.cpp.
template <class Stream>
class session {
 public:
  explicit session(Stream client) : client_(std::move(client)), receive_(client_.receive_view()) {
    receive();
  }

 private:
  void receive() {
    receive_.start([this](anyio::result<std::string_view> bytes) {
      if (bytes) {
        send(*bytes);
      } else {
        delete this;
      }
    });
  }
  void send(std::string_view bytes) {
    send_ = client_.send(bytes);
    send_.start([this](anyio::result<> sent) {
      ++completed;
      if (sent) {
        receive();
      } else {
        delete this;
      }
    });
  }

  Stream client_;
  anyio::receive_view_operation receive_;
  anyio::send_operation send_;
};

template <class Stream>
void serve_by_callback(Stream client) {
  new session<Stream>(std::move(client));
}

template <class Stream>
anyio::task<> echo(Stream client) {
  for (;;) {
    auto bytes = co_await as_result(client.receive_view());
    if (!bytes) co_return;
    const auto sent = co_await as_result(client.send(*bytes));
    ++completed;
    if (!sent) co_return;
  }
}

template <class Stream>
void serve_by_coroutine(Stream client) {
  echo(std::move(client)).start([](anyio::result<>) {});
}

template <class Stream, auto Serve, std::size_t Connections, std::size_t Size>
void echo_messages(std::size_t count) {
  anyio::loop loop;
  std::vector<peer> peers;
  std::vector<int> servers;
  for (std::size_t i = 0; i < Connections; ++i) {
    auto [server, client] = connect<Stream>();
    servers.push_back(server.native_handle());
    peers.push_back(std::move(client));
    Serve(std::move(server));
  }
  loop.run_once(0s);
  const std::string message(Size, 'm');
  while (completed < count) {
    for (const peer& p : peers) p.send(message);
    for (const int fd : servers) wait_for_bytes(fd, Size);
    turn_until(loop, completed + Connections);
    for (const peer& p : peers) p.receive(Size);
  }
  peers.clear();
  loop.run();
}

template <class Handler>
void accept_connections(std::size_t count, Handler handler) {
  anyio::loop loop;
  auto listener = taken(anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0}));
  listener.serve(handler).start([](anyio::result<>) {});
  loop.run_once(0s);
  while (completed < count) {
    std::vector<peer> peers;
    for (std::size_t i = 0; i < batch; ++i) peers.emplace_back(connected(SOCK_STREAM, listener.local_port()));
    turn_until(loop, completed + batch);
    for (const peer& p : peers) p.receive(0);
  }
  listener.close();
  loop.run();
}

void accept_callback(std::size_t count) {
  accept_connections(count, [](anyio::tcp_stream) { ++completed; });
}

void accept_coroutine(std::size_t count) {
  accept_connections(count, [](anyio::tcp_stream client) -> anyio::task<> {
    client.close();
    ++completed;
    co_return;
  });
}

class udp_echo_server {
 public:
  explicit udp_echo_server(anyio::udp_socket& socket) : socket_(socket) { receive(); }

 private:
  void receive() {
    receive_ = socket_.receive(buffer_);
    receive_.start([this](anyio::result<anyio::udp_received> r) {
      if (r) send(*r);
    });
  }
  void send(const anyio::udp_received& r) {
    send_ = socket_.send_to(anyio::const_buffer(buffer_.data(), r.size), r.sender);
    send_.start([this](anyio::result<> sent) {
      ++completed;
      if (sent) receive();
    });
  }

  anyio::udp_socket& socket_;
  std::array<char, 2048> buffer_{};
  anyio::receive_from_operation receive_;
  anyio::send_to_operation send_;
};

class udp_batch_server {
 public:
  udp_batch_server(anyio::udp_socket& socket, bool replies) : socket_(socket), replies_(replies) {
    receive();
  }

 private:
  void receive() {
    receive_ = socket_.receive_batch(batch_);
    receive_.start([this](anyio::result<std::size_t> r) {
      if (!r) return;
      if (replies_) return send();
      completed += *r;
      receive();
    });
  }
  void send() {
    send_ = socket_.send_batch(batch_);
    send_.start([this](anyio::result<std::size_t> sent) {
      if (!sent) return;
      completed += *sent;
      receive();
    });
  }

  anyio::udp_socket& socket_;
  bool replies_;
  anyio::udp_batch batch_{batch};
  anyio::receive_batch_operation receive_;
  anyio::send_batch_operation send_;
};

template <class Server, class... Options>
void echo_datagrams(std::size_t count, Options... options) {
  anyio::loop loop;
  auto socket = taken(anyio::udp_socket::open({anyio::ip_address::loopback_v4(), 0}));
  const Server server(socket, options...);
  loop.run_once(0s);
  const peer client(connected(SOCK_DGRAM, socket.local_endpoint().port));
  const std::string message(64, 'm');
  while (completed < count) {
    for (std::size_t i = 0; i < batch; ++i) client.send(message);
    wait_for(socket.native_handle(), POLLIN);
    turn_until(loop, completed + batch);
    for (std::size_t i = 0; i < batch; ++i) client.receive(message.size());
  }
}

void udp_echo(std::size_t count) { echo_datagrams<udp_echo_server>(count); }
void udp_echo_batched(std::size_t count) { echo_datagrams<udp_batch_server>(count, true); }

void udp_receive_segmented(std::size_t count) {
  anyio::loop loop;
  auto socket = taken(anyio::udp_socket::open({anyio::ip_address::loopback_v4(), 0}));
  const udp_batch_server server(socket, false);
  loop.run_once(0s);
  const peer client(connected(SOCK_DGRAM, socket.local_endpoint().port));
  const int size = 1024;
  expect(::setsockopt(client.fd(), IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size), "UDP_SEGMENT");
  const std::string message(batch / 2 * size, 'm');
  while (completed < count) {
    for (int i = 0; i < 2; ++i) client.send(message);
    wait_for(socket.native_handle(), POLLIN);
    turn_until(loop, completed + batch);
  }
}

void timers(std::size_t count) {
  anyio::loop loop;
  constexpr std::size_t pending = 100'000;
  const anyio::time_point start = anyio::now() + 1h;
  std::vector<anyio::sleep_operation> sleeps(pending);
  std::uint64_t state = 1;
  const auto draw = [&state](std::uint64_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % bound;
  };
  const auto arm = [&](std::size_t i) {
    sleeps[i] = anyio::sleep_until(start + std::chrono::microseconds(draw(3'600'000'000)));
    sleeps[i].start([](anyio::result<>) {});
  };
  for (std::size_t i = 0; i < pending; ++i) arm(i);
  // One that comes first and is taken back: the others are in the order of a heap that has been in use.
  anyio::sleep_operation first = anyio::sleep_until(start - 1s);
  first.start([](anyio::result<>) {});
  while (loop.run_once(0s)) {
  }
  first = {};
  for (; completed < count; completed += batch) {
    std::array<std::size_t, batch> chosen;
    for (std::size_t& i : chosen) i = draw(pending);
    measured([&] {
      for (const std::size_t i : chosen) arm(i);
      loop.run_once(0s);
    });
  }
}

void post(std::size_t count) {
  anyio::loop loop;
  while (completed < count) {
    measured([&] {
      for (std::size_t i = 0; i < batch; ++i) loop.post([] { ++completed; });
      loop.run_once(0s);
    });
  }
}

anyio::task<std::size_t> child(std::size_t i) { co_return i; }

anyio::task<> await_children(std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) completed += co_await child(i) == i ? 1 : 0;
}

void task(std::size_t count) {
  anyio::loop loop;
  measured([&] { anyio::run(await_children(count)); });
}

anyio::task<> one_more() {
  ++completed;
  co_return;
}

anyio::task<> join_children(std::size_t count) {
  while (completed < count) {
    anyio::task_group group;
    for (std::size_t i = 0; i < batch; ++i) group.start_soon(one_more());
    co_await group.join();
  }
}

void task_group(std::size_t count) {
  anyio::loop loop;
  measured([&] { anyio::run(join_children(count)); });
}

anyio::task<> read_lines(anyio::buffered_stream& stream, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    auto line = co_await as_result(stream.receive_line());
    completed += line && line->size() == 62 ? 1 : 0;
  }
}

void buffered_line(std::size_t count) {
  anyio::loop loop;
  auto [server, client] = anyio::create_memory_stream_pair();
  anyio::buffered_stream stream(server);
  std::string lines;
  for (std::size_t i = 0; i < batch; ++i) lines += std::string(62, 'm') + "\r\n";
  while (completed < count) {
    anyio::run(client.send(lines));
    measured([&] { anyio::run(read_lines(stream, batch)); });
  }
}

using anyio::tcp_stream;
using anyio::unix_stream;

struct scenario {
  const char* name;
  std::size_t count;
  void (*run)(std::size_t count);
  const char* what;
};

constexpr scenario scenarios[] = {
    {"echo_unix_callback", 1280, echo_messages<unix_stream, serve_by_callback<unix_stream>, batch, 64>,
     "64 bytes received and sent back, 64 connections ready at a time"},
    {"echo_unix_coroutine", 1280, echo_messages<unix_stream, serve_by_coroutine<unix_stream>, batch, 64>,
     "the same in a coroutine, by as_result"},
    {"echo_unix_16k", 640, echo_messages<unix_stream, serve_by_callback<unix_stream>, 8, 16384>,
     "16 KiB by callback, 8 connections"},
    {"echo_tcp_callback", 1280, echo_messages<tcp_stream, serve_by_callback<tcp_stream>, batch, 64>,
     "64 bytes over TCP, 64 connections"},
    {"echo_tcp_coroutine", 1280, echo_messages<tcp_stream, serve_by_coroutine<tcp_stream>, batch, 64>,
     "the same in a coroutine, by as_result"},
    {"echo_tcp_alone", 640, echo_messages<tcp_stream, serve_by_callback<tcp_stream>, 1, 64>,
     "64 bytes by callback, one connection: a turn of the loop for each"},
    {"echo_tcp_16k", 640, echo_messages<tcp_stream, serve_by_callback<tcp_stream>, 8, 16384>,
     "16 KiB by callback, 8 connections"},
    {"accept_callback", 320, accept_callback, "a connection over TCP, taken by serve, closed by its handler"},
    {"accept_coroutine", 320, accept_coroutine, "the same with a coroutine as handler"},
    {"udp_echo", 1280, udp_echo, "a datagram of 64 bytes received and sent back, 64 ready at a time"},
    {"udp_echo_batched", 1280, udp_echo_batched, "the same by receive_batch and send_batch"},
    {"udp_receive_segmented", 1280, udp_receive_segmented,
     "a datagram of 1 KiB from a sender that segments, by receive_batch"},
    {"timers", 1280, timers, "a timer taken back and another set, 100,000 pending, 64 a turn"},
    {"post", 6400, post, "a call posted and run, 64 a turn"},
    {"task", 6400, task, "a task made, awaited and freed"},
    {"task_group", 6400, task_group, "a task started in a group and run, joined 64 at a time"},
    {"buffered_line", 6400, buffered_line, "a line of 62 bytes read from a memory stream, a string each"},
};

const char* compiler() {
#if defined(__clang__)
  return "clang++ " __clang_version__;
#else
  return "g++ " __VERSION__;
#endif
}

const char* machine() {
#if defined(__x86_64__)
  return "x86_64";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "another machine";
#endif
}

int usage() {
  std::fputs("usage: cost SCENARIO COUNT | --list | --built-with\n", stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "--list") {
    for (const scenario& s : scenarios) std::printf("%s %zu %s\n", s.name, s.count, s.what);
    return 0;
  }
  if (command == "--built-with") return std::printf("%s, %s\n", compiler(), machine()), 0;
  if (argc != 3) return usage();
  const std::size_t count = std::strtoul(argv[2], nullptr, 10);
  if (count == 0 || count % batch != 0) {
    return std::fprintf(stderr, "cost: COUNT is a multiple of %zu\n", batch), 2;
  }
  for (const scenario& s : scenarios) {
    if (command != s.name) continue;
    s.run(count);
    if (completed != count) {
      return std::fprintf(stderr, "cost: %zu operations instead of %zu\n", completed, count), 1;
    }
    return std::printf("allocations %zu\n", allocations), 0;
  }
  return usage();
}
