// The system's backend on Linux, call by call, on real descriptors. Also over a kqueue.
#include "anyio_net.hpp"

#if defined(__linux__)

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/emulator.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::backend;
using anyio::detail::message;
using anyio::detail::poll_event;
using anyio::detail::ready_end;
using anyio::detail::ready_read;
using anyio::detail::ready_urgent;
using anyio::detail::ready_write;
using anyio::detail::system_batches;
using anyio::detail::system_files;
using anyio::detail::system_names;
using anyio::detail::system_paths;
using anyio::detail::system_threads;

constexpr anyio::duration no_limit{-1};

// A kqueue reports the two directions separately, and does not repeat one when it reports the other; the end
// of input belongs only to its read filter.
#if defined(ANYIO_NET_KQUEUE)
constexpr bool apart = true;
#else
constexpr bool apart = false;
#endif
/// What an edge of one direction reports if the other direction is ready too.
constexpr std::uint32_t also(std::uint32_t other) { return apart ? 0 : other; }

/// A descriptor that is closed when the test ends.
struct owned {
  int fd = -1;
  explicit owned(int number = -1) : fd(number) {}
  owned(owned&& other) noexcept : fd(std::exchange(other.fd, -1)) {}
  owned& operator=(owned&& other) noexcept {
    std::swap(fd, other.fd);
    return *this;
  }
  ~owned() { reset(); }
  void reset() {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
  operator int() const { return fd; }
};

struct two {
  owned first, second;
};

two make_pair(backend& b, int type = SOCK_STREAM) {
  int fds[2] = {-1, -1};
  REQUIRE(b.open_pair(AF_UNIX, type, fds) == 0);
  return {owned(fds[0]), owned(fds[1])};
}

/// first is read from, second written to.
two make_pipe() {
  int fds[2] = {-1, -1};
  REQUIRE(::pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
  return {owned(fds[0]), owned(fds[1])};
}

struct temporary_directory {
  char path[32] = "/tmp/anyio-backend-XXXXXX";
  temporary_directory() { REQUIRE(::mkdtemp(path) != nullptr); }
  ~temporary_directory() { ::rmdir(path); }
  std::string operator/(std::string_view name) const { return std::string(path) + "/" + std::string(name); }
};

bool is_non_blocking(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }
bool is_close_on_exec(int fd) { return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }
bool is_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

sockaddr_in loopback(std::uint16_t port = 0) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}
sockaddr* as_sockaddr(sockaddr_in& address) { return reinterpret_cast<sockaddr*>(&address); }

/// A bound socket on the loopback interface, and its address.
owned bound(backend& b, int type, sockaddr_in& address) {
  owned fd(b.open_socket(AF_INET, type, 0));
  REQUIRE(fd >= 0);
  address = loopback();
  socklen_t size = sizeof address;
  REQUIRE(b.bind(fd, as_sockaddr(address), size) == 0);
  REQUIRE(b.local_address(fd, as_sockaddr(address), &size) == 0);
  REQUIRE(size == sizeof address);
  return fd;
}

bool wait_ready(backend& b, int fd, std::uint32_t interest) {
  for (int i = 0; i < 5000; ++i) {
    if (b.poll_now(fd, interest) != 0) return true;
    std::this_thread::sleep_for(1ms);
  }
  return false;
}

two connected_tcp(backend& b) {
  sockaddr_in address;
  const owned listener = bound(b, SOCK_STREAM, address);
  REQUIRE(b.listen(listener, 8) == 0);
  owned client(b.open_socket(AF_INET, SOCK_STREAM, 0));
  const int r = b.connect(client, as_sockaddr(address), sizeof address);
  REQUIRE((r == 0 || r == -EINPROGRESS));
  REQUIRE(wait_ready(b, listener, ready_read));
  owned server(b.accept(listener, nullptr, nullptr));
  REQUIRE(server >= 0);
  REQUIRE(wait_ready(b, client, ready_write));
  return {std::move(client), std::move(server)};
}

/// The result of one `wait` that does not block, in order of the tokens; two events of one token are joined.
std::vector<poll_event> events_now(backend& b, std::size_t room = 64) {
  std::vector<poll_event> events(room);
  const int n = b.wait(events, anyio::duration::zero());
  REQUIRE(n >= 0);
  events.resize(static_cast<std::size_t>(n));
  std::sort(events.begin(), events.end(), [](auto& x, auto& y) { return x.token < y.token; });
  std::vector<poll_event> joined;
  for (const poll_event& e : events) {
    if (apart && !joined.empty() && joined.back().token == e.token)
      joined.back().ready |= e.ready;
    else
      joined.push_back(e);
  }
  return joined;
}

/// The readiness bits of the only event, 0 if there is none.
std::uint32_t ready_now(backend& b) {
  const auto events = events_now(b);
  REQUIRE(events.size() <= 1);
  return events.empty() ? 0 : events[0].ready;
}

/// Lowers the limit so that no descriptor can be created, while it exists.
class descriptors_exhausted {
 public:
  descriptors_exhausted() {
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before_) == 0);
    const int next = ::dup(0);
    REQUIRE(next >= 0);
    ::close(next);
    set(static_cast<rlim_t>(next));
  }
  ~descriptors_exhausted() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  void set(rlim_t limit) {
    rlimit lowered = before_;
    lowered.rlim_cur = limit;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &lowered) == 0);
  }

 private:
  rlimit before_{};
};

std::atomic<int> foreign_signals{0};
void count_foreign_signal(int) { ++foreign_signals; }

void set_handler(int number, void (*handler)(int), struct sigaction* before = nullptr) {
  struct sigaction action {};
  action.sa_handler = handler;
  REQUIRE(::sigaction(number, &action, before) == 0);
}
void (*handler_of(int number))(int) {
  struct sigaction action {};
  REQUIRE(::sigaction(number, nullptr, &action) == 0);
  return action.sa_handler;
}

bool is_pending(int number) {
  sigset_t pending;
  ::sigpending(&pending);
  return ::sigismember(&pending, number) == 1;
}
sigset_t only(int number) {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, number);
  return set;
}

}  // namespace

TEST_SUITE("epoll_backend") {
  TEST_CASE("the clock is the steady clock and never runs backwards") {
    const auto b = anyio::system_backend();
    REQUIRE(b != nullptr);
    const auto before = std::chrono::steady_clock::now();
    const auto first = b->now();
    const auto second = b->now();
    CHECK(before <= first);
    CHECK(first <= second);
    CHECK(second <= std::chrono::steady_clock::now());
  }

  TEST_CASE("random bytes differ from draw to draw") {
    CHECK(anyio::detail::system_entropy() != anyio::detail::system_entropy());
  }

  TEST_CASE("threads are used unless the build forbids them") {
#if defined(ANYIO_NET_NO_THREADS)
    CHECK_FALSE(system_threads().uses_threads());
#else
    CHECK(system_threads().uses_threads());
#endif
  }

  // --- waiting

  TEST_CASE("a wait is never shorter than requested, fractions of a millisecond are rounded up") {
    const auto b = anyio::system_backend();
    poll_event event;
    for (const anyio::duration limit :
         {anyio::duration(900us), anyio::duration(1ns), anyio::duration(1ms + 1ns)}) {
      const auto start = b->now();
      CHECK(b->wait({&event, 1}, limit) == 0);
      CHECK(b->now() - start >= limit);
    }
  }

  TEST_CASE("a wait of 0 returns at once, and a wait without room for events is rejected") {
    const auto b = anyio::system_backend();
    poll_event event;
    CHECK(b->wait({&event, 1}, anyio::duration::zero()) == 0);
    CHECK(b->wait({}, anyio::duration::zero()) == -EINVAL);
  }

  TEST_CASE("a wake before a wait ends it at once, whatever its limit") {
    const auto b = anyio::system_backend();
    poll_event event;
    for (const anyio::duration limit : {no_limit, anyio::duration::min(), anyio::duration::max(),
                                        anyio::duration(std::chrono::hours(24 * 25)), anyio::duration(1h)}) {
      b->wake();
      CHECK(b->wait({&event, 1}, limit) == 0);
    }
  }

  TEST_CASE("a wake from another thread ends a wait") {
    const auto b = anyio::system_backend();
    std::atomic<bool> waiting{false};
    std::thread other([&] {
      while (!waiting) std::this_thread::yield();
      b->wake();
    });
    poll_event event;
    waiting = true;
    CHECK(b->wait({&event, 1}, no_limit) == 0);
    other.join();
  }

  TEST_CASE("a limit too long for epoll does not become a short one") {
    const auto b = anyio::system_backend();
    std::atomic<bool> over{false};
    std::thread other([&] {
      std::this_thread::sleep_for(20ms);
      over = true;
      b->wake();
    });
    poll_event event;
    CHECK(b->wait({&event, 1}, std::chrono::milliseconds((std::int64_t{1} << 32) + 1)) == 0);
    CHECK(over);
    other.join();
  }

  TEST_CASE("many wakes count as one") {
    const auto b = anyio::system_backend();
    poll_event event;
    for (int i = 0; i < 1000; ++i) b->wake();
    CHECK(is_readable(b->native_handle()));
    CHECK(b->wait({&event, 1}, no_limit) == 0);
    CHECK_FALSE(is_readable(b->native_handle()));
    const auto start = b->now();
    CHECK(b->wait({&event, 1}, 5ms) == 0);
    CHECK(b->now() - start >= 5ms);
  }

  TEST_CASE("no wake is lost when threads wake at any time") {
    const auto b = anyio::system_backend();
    constexpr int threads = 3, calls = 3000;
    std::atomic<int> posted{0};
    std::vector<std::thread> others;
    for (int i = 0; i < threads; ++i) {
      others.emplace_back([&] {
        for (int j = 0; j < calls; ++j) {
          ++posted;
          b->wake();
        }
      });
    }
    // Hangs here if a wake is lost.
    poll_event event;
    while (posted.load() < threads * calls) CHECK(b->wait({&event, 1}, no_limit) == 0);
    for (auto& other : others) other.join();
  }

  TEST_CASE("a wake takes no room for events and is not reported as one") {
    const auto b = anyio::system_backend();
    const two pair = make_pair(*b);
    REQUIRE(b->watch(pair.first, 7) == 0);
    b->wake();
    std::vector<poll_event> seen;
    for (int i = 0; i < 4; ++i) {
      for (const auto& e : events_now(*b, 1)) seen.push_back(e);
    }
    REQUIRE(seen.size() == 1);
    CHECK(seen[0].token == 7);
    CHECK(seen[0].ready == ready_write);
  }

  TEST_CASE("an uncaught signal ends a wait without an error") {
    const auto b = anyio::system_backend();
    struct sigaction before {};
    set_handler(SIGALRM, count_foreign_signal, &before);
    foreign_signals = 0;
    // Repeated, so that a signal before the wait does no harm.
    const itimerval every_20_ms{{0, 20000}, {0, 20000}};
    const itimerval never{};
    ::setitimer(ITIMER_REAL, &every_20_ms, nullptr);
    poll_event event;
    CHECK(b->wait({&event, 1}, no_limit) == 0);
    ::setitimer(ITIMER_REAL, &never, nullptr);
    CHECK(foreign_signals > 0);
    ::sigaction(SIGALRM, &before, nullptr);
  }

  TEST_CASE("the native handle is readable while events are available") {
    const auto b = anyio::system_backend();
    REQUIRE(b->native_handle() >= 0);
    CHECK(is_close_on_exec(b->native_handle()));
    CHECK_FALSE(is_readable(b->native_handle()));
    const two pair = make_pair(*b);
    REQUIRE(b->watch(pair.first, 1) == 0);
    CHECK(is_readable(b->native_handle()));
    CHECK(ready_now(*b) == ready_write);
    CHECK_FALSE(is_readable(b->native_handle()));
  }

  // --- watching

  TEST_CASE("a watched descriptor is reported once per edge") {
    const auto b = anyio::system_backend();
    const two pair = make_pair(*b);
    const std::uint64_t token = 0xfedcba9876543210;
    REQUIRE(b->watch(pair.first, token) == 0);
    auto events = events_now(*b);
    REQUIRE(events.size() == 1);
    CHECK(events[0].token == token);
    CHECK(events[0].ready == ready_write);
    CHECK(ready_now(*b) == 0);

    REQUIRE(b->send(pair.second, "a", 1) == 1);
    CHECK(ready_now(*b) == (ready_read | also(ready_write)));
    CHECK(ready_now(*b) == 0);  // still unread, and no edge
    REQUIRE(b->send(pair.second, "b", 1) == 1);
    CHECK((ready_now(*b) & ready_read) != 0);

    REQUIRE(b->shutdown(pair.second, SHUT_WR) == 0);
    CHECK((ready_now(*b) & (ready_read | ready_end)) == (ready_read | ready_end));
    CHECK(ready_now(*b) == 0);
  }

  TEST_CASE("the peer's end of sending does not wake writers, the peer's close wakes both directions") {
    const auto b = anyio::system_backend();
    two pair = make_pair(*b);
    REQUIRE(b->watch(pair.first, 1) == 0);
    const std::string block(4096, 'x');
    while (b->send(pair.first, block.data(), block.size()) > 0) {
    }
    (void)events_now(*b);
    REQUIRE(b->shutdown(pair.second, SHUT_WR) == 0);
    CHECK(ready_now(*b) == (ready_read | ready_end));
    pair.second.reset();
    CHECK(ready_now(*b) == (ready_read | ready_write | ready_end));
  }

  TEST_CASE("a pipe whose reader closed wakes its writer") {
    const auto b = anyio::system_backend();
    two pipe = make_pipe();
    const std::string block(65536, 'x');
    while (::write(pipe.second, block.data(), block.size()) > 0) {
    }
    REQUIRE(b->watch(pipe.second, 1) == 0);
    CHECK(ready_now(*b) == 0);
    pipe.first.reset();
    CHECK((ready_now(*b) & (ready_write | ready_end)) == (ready_write | also(ready_end)));
  }

  TEST_CASE("out-of-band data is urgent and wakes readers") {
    const auto b = anyio::system_backend();
    const two tcp = connected_tcp(*b);
    REQUIRE(b->watch(tcp.second, 1) == 0);
    (void)events_now(*b);
    REQUIRE(::send(tcp.first, "!", 1, MSG_OOB) == 1);
    REQUIRE(wait_ready(*b, tcp.second, ready_urgent));
    CHECK((ready_now(*b) & (ready_urgent | ready_read)) == (ready_urgent | ready_read));
  }

  TEST_CASE("several ready descriptors are reported in as many waits as the room requires") {
    const auto b = anyio::system_backend();
    std::vector<two> pairs;
    for (std::uint64_t i = 0; i < 5; ++i) {
      pairs.push_back(make_pair(*b));
      REQUIRE(b->watch(pairs.back().first, i) == 0);
    }
    std::vector<std::uint64_t> tokens;
    for (int i = 0; i < 3; ++i) {
      for (const auto& e : events_now(*b, 2)) tokens.push_back(e.token);
    }
    std::sort(tokens.begin(), tokens.end());
    CHECK(tokens == std::vector<std::uint64_t>{0, 1, 2, 3, 4});
  }

  TEST_CASE("a descriptor that is watched cannot be watched with another token") {
    const auto b = anyio::system_backend();
    const two pair = make_pair(*b);
    REQUIRE(b->watch(pair.first, 1) == 0);
    CHECK(b->watch(pair.first, 2) == -EEXIST);
    const auto events = events_now(*b);
    REQUIRE(events.size() == 1);
    CHECK(events[0].token == 1);
  }

  TEST_CASE("an unwatched descriptor is not reported, though a duplicate keeps its description open") {
    const auto b = anyio::system_backend();
    two pair = make_pair(*b);
    const owned duplicate(::dup(pair.first));
    REQUIRE(b->watch(pair.first, 1) == 0);
    (void)events_now(*b);
    b->forget(pair.first);
    CHECK(b->close(std::exchange(pair.first.fd, -1)) == 0);
    REQUIRE(b->send(pair.second, "a", 1) == 1);
    CHECK(ready_now(*b) == 0);
    b->forget(pair.second);  // never watched
    b->forget(-1);
  }

  TEST_CASE("a closed descriptor is removed from the poller") {
    const auto b = anyio::system_backend();
    two pair = make_pair(*b);
    const int number = pair.first;
    REQUIRE(b->watch(pair.first, 1) == 0);
    REQUIRE(b->send(pair.second, "a", 1) == 1);
    CHECK(b->close(std::exchange(pair.first.fd, -1)) == 0);
    CHECK(ready_now(*b) == 0);
    CHECK(b->close(number) == -EBADF);
  }

  TEST_CASE("descriptors that cannot be watched are an error") {
    const auto b = anyio::system_backend();
    const owned file(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
    REQUIRE(file >= 0);
    CHECK(b->watch(file, 1) == -EPERM);
    CHECK(b->watch_once(file, ready_read, 1, false) == -EPERM);
    CHECK(b->watch_once(file, ready_read, 1, true) == -EPERM);
    CHECK(b->watch(-1, 1) == -EBADF);
    CHECK(b->watch_once(-1, ready_read, 1, true) == -EBADF);
  }

  TEST_CASE("watch_once reports a ready descriptor, reports once, and can be armed again") {
    const auto b = anyio::system_backend();
    const two pair = make_pair(*b);
    REQUIRE(b->send(pair.second, "ab", 2) == 2);
    REQUIRE(b->watch_once(pair.first, ready_read, 5, false) == 0);
    const auto events = events_now(*b);
    REQUIRE(events.size() == 1);
    CHECK(events[0].token == 5);
    CHECK(events[0].ready == ready_read);
    CHECK(ready_now(*b) == 0);
    REQUIRE(b->send(pair.second, "c", 1) == 1);
    CHECK(ready_now(*b) == 0);

    REQUIRE(b->watch_once(pair.first, ready_read, 6, true) == 0);
    CHECK(ready_now(*b) == ready_read);
    REQUIRE(b->watch_once(pair.first, ready_write, 6, true) == 0);
    CHECK(ready_now(*b) == ready_write);
    REQUIRE(b->watch_once(pair.first, ready_read | ready_write, 6, true) == 0);
    CHECK(ready_now(*b) == (ready_read | ready_write));
    b->forget(pair.first);
  }

  TEST_CASE("watch_once works whether or not the descriptor is in the poller") {
    const auto b = anyio::system_backend();
    two pair = make_pair(*b);
    REQUIRE(b->watch_once(pair.first, ready_write, 1, true) == 0);  // it is not
    CHECK(ready_now(*b) == ready_write);
    REQUIRE(b->watch_once(pair.first, ready_write, 2, false) == 0);  // it is
    const auto events = events_now(*b);
    REQUIRE(events.size() == 1);
    CHECK(events[0].token == 2);
    // The owner closed it, and another descriptor got its number.
    const int number = pair.first;
    pair.first.reset();
    const two next = make_pair(*b);
    REQUIRE(next.first.fd == number);
    REQUIRE(b->watch_once(number, ready_write, 3, true) == 0);
    CHECK(ready_now(*b) == ready_write);
  }

  TEST_CASE("a hang-up completes watch_once for any direction") {
    const auto b = anyio::system_backend();
    two pair = make_pair(*b);
    REQUIRE(b->watch_once(pair.first, ready_read, 1, false) == 0);
    CHECK(ready_now(*b) == 0);
    pair.second.reset();
    CHECK(ready_now(*b) == (ready_read | ready_end | also(ready_write)));
    CHECK(ready_now(*b) == 0);
  }

  TEST_CASE("poll_now reports the state of any descriptor") {
    const auto b = anyio::system_backend();
    two pair = make_pair(*b);
    CHECK(b->poll_now(pair.first, ready_read) == 0);
    CHECK(b->poll_now(pair.first, ready_read | ready_write) == ready_write);
    REQUIRE(b->watch(pair.first, 1) == 0);
    REQUIRE(b->send(pair.second, "a", 1) == 1);
    CHECK(b->poll_now(pair.first, ready_read) == ready_read);
    CHECK(b->poll_now(pair.first, ready_read) == ready_read);
    CHECK(ready_now(*b) == (ready_read | ready_write));  // no edge was lost
    REQUIRE(b->shutdown(pair.second, SHUT_WR) == 0);
    CHECK(b->poll_now(pair.first, ready_read | ready_end) == (ready_read | ready_end));
    pair.second.reset();
    CHECK(b->poll_now(pair.first, 0) == (ready_read | ready_write | ready_end));

    const owned file(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
    CHECK(b->poll_now(file, ready_read | ready_write) == (ready_read | ready_write));
    const int number = pair.first;
    pair.first.reset();
    CHECK(b->poll_now(number, ready_read) == -EBADF);
    CHECK(b->poll_now(-1, ready_read) == -EBADF);
  }

  // --- sockets

  TEST_CASE("every socket is non-blocking and close-on-exec") {
    const auto b = anyio::system_backend();
    const two pair = make_pair(*b);
    const two tcp = connected_tcp(*b);
    const owned udp(b->open_socket(AF_INET, SOCK_DGRAM, 0));
    for (const int fd : {pair.first.fd, pair.second.fd, tcp.first.fd, tcp.second.fd, udp.fd}) {
      CHECK(is_non_blocking(fd));
      CHECK(is_close_on_exec(fd));
    }
  }

  TEST_CASE("a TCP connection is established, used and closed") {
    const auto b = anyio::system_backend();
    sockaddr_in address;
    const owned listener = bound(*b, SOCK_STREAM, address);
    REQUIRE(b->listen(listener, 65536) == 0);
    CHECK(b->accept(listener, nullptr, nullptr) == -EAGAIN);

    const owned client(b->open_socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in name{};
    socklen_t size = sizeof name;
    CHECK(b->remote_address(client, as_sockaddr(name), &size) == -ENOTCONN);
    const int connecting = b->connect(client, as_sockaddr(address), sizeof address);
    REQUIRE((connecting == 0 || connecting == -EINPROGRESS));
    REQUIRE(wait_ready(*b, listener, ready_read));
    size = sizeof name;
    const owned server(b->accept(listener, as_sockaddr(name), &size));
    REQUIRE(server >= 0);
    CHECK(size == sizeof name);
    sockaddr_in local{};
    size = sizeof local;
    REQUIRE(b->local_address(client, as_sockaddr(local), &size) == 0);
    CHECK(local.sin_port == name.sin_port);
    size = sizeof name;
    REQUIRE(b->remote_address(client, as_sockaddr(name), &size) == 0);
    CHECK(name.sin_port == address.sin_port);

    char buffer[16];
    CHECK(b->receive(server, buffer, sizeof buffer) == -EAGAIN);
    CHECK(b->send(client, "hello", 5) == 5);
    REQUIRE(wait_ready(*b, server, ready_read));
    CHECK(b->receive(server, buffer, 2) == 2);
    CHECK(b->receive(server, buffer + 2, sizeof buffer - 2) == 3);
    CHECK(std::string_view(buffer, 5) == "hello");
    CHECK(b->shutdown(client, SHUT_WR) == 0);
    REQUIRE(wait_ready(*b, server, ready_read));
    CHECK(b->receive(server, buffer, sizeof buffer) == 0);
  }

  TEST_CASE("a refused connection wakes both directions and reports its cause in SO_ERROR") {
    const auto b = anyio::system_backend();
    sockaddr_in address;
    owned listener = bound(*b, SOCK_STREAM, address);  // bound, not listening
    const owned client(b->open_socket(AF_INET, SOCK_STREAM, 0));
    const int r = b->connect(client, as_sockaddr(address), sizeof address);
    if (r == -EINPROGRESS) {
      REQUIRE(b->watch(client, 1) == 0);
      poll_event events[2]{};
      REQUIRE(b->wait(events, 10s) == (apart ? 2 : 1));
      const std::uint32_t ready = events[0].ready | events[1].ready;
      CHECK((ready & (ready_read | ready_write | ready_end)) == (ready_read | ready_write | ready_end));
      int reason = 0;
      socklen_t size = sizeof reason;
      CHECK(b->get_option(client, SOL_SOCKET, SO_ERROR, &reason, &size) == 0);
      CHECK(reason == ECONNREFUSED);
    } else {
      CHECK(r == -ECONNREFUSED);
    }
  }

  TEST_CASE("a full backlog of a UNIX listener is EAGAIN") {
    const auto b = anyio::system_backend();
    const owned listener(b->open_socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    auto* name = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(b->bind(listener, name, sizeof(sa_family_t)) == 0);  // any free abstract name
    socklen_t size = sizeof address;
    REQUIRE(b->local_address(listener, name, &size) == 0);
    REQUIRE(b->listen(listener, 0) == 0);
    const owned first(b->open_socket(AF_UNIX, SOCK_STREAM, 0));
    const owned second(b->open_socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK(b->connect(first, name, size) == 0);
    CHECK(b->connect(second, name, size) == -EAGAIN);
    const owned accepted(b->accept(listener, nullptr, nullptr));
    CHECK(accepted >= 0);
    CHECK(b->connect(second, name, size) == 0);
  }

  TEST_CASE("options are set and read") {
    const auto b = anyio::system_backend();
    const owned fd(b->open_socket(AF_INET, SOCK_STREAM, 0));
    const int on = 1;
    CHECK(b->set_option(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0);
    int value = 0;
    socklen_t size = sizeof value;
    CHECK(b->get_option(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &size) == 0);
    CHECK(value == 1);
    CHECK(size == sizeof value);
    CHECK(b->set_option(fd, SOL_SOCKET, 9999, &on, sizeof on) == -ENOPROTOOPT);
    CHECK(b->get_option(fd, SOL_SOCKET, 9999, &value, &size) == -ENOPROTOOPT);
  }

  TEST_CASE("every call returns a negative errno") {
    const auto b = anyio::system_backend();
    sockaddr_in address = loopback();
    socklen_t size = sizeof address;
    int fds[2];
    char byte = 0;
    const iovec part{&byte, 1};
    message m{{&part, 1}};
    std::size_t length = 0;
    anyio::detail::file_identity identity;
    CHECK(b->open_socket(9999, SOCK_STREAM, 0) == -EAFNOSUPPORT);
    CHECK(b->open_pair(AF_INET, SOCK_STREAM, fds) == -EOPNOTSUPP);
    CHECK(b->bind(-1, as_sockaddr(address), size) == -EBADF);
    CHECK(b->listen(-1, 1) == -EBADF);
    CHECK(b->connect(-1, as_sockaddr(address), size) == -EBADF);
    CHECK(b->accept(-1, nullptr, nullptr) == -EBADF);
    CHECK(b->shutdown(-1, SHUT_WR) == -EBADF);
    CHECK(b->close(-1) == -EBADF);
    CHECK(b->receive(-1, &byte, 1) == -EBADF);
    CHECK(b->send(-1, &byte, 1) == -EBADF);
    CHECK(b->receive_message(-1, m) == -EBADF);
    CHECK(b->send_message(-1, m) == -EBADF);
    bool emptied = false;
    CHECK(system_batches().receive_messages(-1, {&m, 1}, {&length, 1}, emptied) == -EBADF);
    CHECK_FALSE(emptied);
    CHECK(system_batches().send_messages(-1, {&m, 1}) == -EBADF);
    CHECK(system_files().send_file(-1, -1, 0, 1) == -EBADF);
    CHECK(b->get_option(-1, SOL_SOCKET, SO_ERROR, &length, &size) == -EBADF);
    CHECK(b->set_option(-1, SOL_SOCKET, SO_KEEPALIVE, &length, size) == -EBADF);
    CHECK(b->local_address(-1, as_sockaddr(address), &size) == -EBADF);
    CHECK(b->remote_address(-1, as_sockaddr(address), &size) == -EBADF);
    CHECK(system_files().read(-1, &byte, 1) == -EBADF);
    CHECK(system_files().write(-1, {&part, 1}) == -EBADF);
    CHECK(system_files().adopt(-1) == -EBADF);
    CHECK(system_paths().identify("/nonexistent/socket", identity) == -ENOENT);
    CHECK(system_paths().change_mode("/nonexistent/socket", 0600) == -ENOENT);
    CHECK(system_paths().unlink("/nonexistent/socket") == -ENOENT);
  }

  TEST_CASE("running out of descriptors is an error of the call, and a poller cannot be created") {
    const auto b = anyio::system_backend();
    sockaddr_in address;
    const owned listener = bound(*b, SOCK_STREAM, address);
    REQUIRE(b->listen(listener, 8) == 0);
    const owned client(b->open_socket(AF_INET, SOCK_STREAM, 0));
    (void)b->connect(client, as_sockaddr(address), sizeof address);
    REQUIRE(wait_ready(*b, listener, ready_read));
    int fds[2];
    struct own_names : anyio::detail::posix_names {};
    own_names before;
    // The sanitizer needs descriptors when it sees a type for the first time.
    CHECK(before.has_family(AF_INET));
    {
      descriptors_exhausted none;
      CHECK(b->open_socket(AF_INET, SOCK_STREAM, 0) == -EMFILE);
      CHECK(b->open_pair(AF_UNIX, SOCK_STREAM, fds) == -EMFILE);
      CHECK(b->accept(listener, nullptr, nullptr) == -EMFILE);
      CHECK(anyio::system_backend() == nullptr);
      // Not equal to a missing family, and not remembered as an answer.
      own_names names;
      CHECK(names.has_family(AF_INET));
    }
    const owned accepted(b->accept(listener, nullptr, nullptr));
    CHECK(accepted >= 0);
  }

  TEST_CASE("a poller that cannot create its wake descriptor is destroyed, and nothing leaks") {
    {
      descriptors_exhausted limit;
      rlimit now{};
      REQUIRE(::getrlimit(RLIMIT_NOFILE, &now) == 0);
      limit.set(now.rlim_cur + 1);  // room for one
      for (int i = 0; i < 3; ++i) CHECK(anyio::system_backend() == nullptr);
      const owned still_free(::dup(0));
      CHECK(still_free >= 0);
    }
    CHECK(anyio::system_backend() != nullptr);
  }

  // --- messages

  TEST_CASE("descriptors are passed in messages and arrive close-on-exec") {
    const auto b = anyio::system_backend();
    const two pair = make_pair(*b);
    const owned sent(::open("/dev/null", O_RDONLY));
    char text[] = "with";
    iovec part{text, 4};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 2)] = {};
    message m{{&part, 1}};
    m.control = control;
    m.control_size = CMSG_SPACE(sizeof(int) * 2);
    auto* header = reinterpret_cast<cmsghdr*>(control);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * 2);
    const int fds[2] = {sent, sent};
    std::memcpy(CMSG_DATA(header), fds, sizeof fds);
    REQUIRE(b->send_message(pair.first, m) == 4);

    char buffer[16];
    alignas(cmsghdr) char room[256] = {};
    iovec into{buffer, sizeof buffer};
    message r{{&into, 1}};
    r.control = room;
    r.control_size = sizeof room;
    REQUIRE(b->receive_message(pair.second, r) == 4);
    CHECK(r.control_size == CMSG_SPACE(sizeof(int) * 2));
    CHECK((r.flags & (MSG_CTRUNC | MSG_TRUNC)) == 0);
    int received[2];
    std::memcpy(received, CMSG_DATA(reinterpret_cast<cmsghdr*>(room)), sizeof received);
    for (const int fd : received) {
      CHECK(is_close_on_exec(fd));
      CHECK(system_files().set_close_on_exec(fd) == 0);
      CHECK(is_close_on_exec(fd));
      ::close(fd);
    }

    // Without room for descriptors the bytes arrive, marked as truncated.
    REQUIRE(b->send_message(pair.first, m) == 4);
    message plain{{&into, 1}};
    REQUIRE(b->receive_message(pair.second, plain) == 4);
    CHECK((plain.flags & MSG_CTRUNC) != 0);
    CHECK(plain.control_size == 0);
  }

  TEST_CASE("a datagram larger than the buffer is marked as truncated, with its sender") {
    const auto b = anyio::system_backend();
    sockaddr_in to, from;
    const owned receiver = bound(*b, SOCK_DGRAM, to);
    const owned sender = bound(*b, SOCK_DGRAM, from);
    char text[] = "too long";
    iovec parts[2] = {{text, 3}, {text + 3, 5}};
    message m{parts};
    m.address = as_sockaddr(to);
    m.address_size = sizeof to;
    REQUIRE(b->send_message(sender, m) == 8);
    REQUIRE(wait_ready(*b, receiver, ready_read));

    char buffer[4];
    iovec into{buffer, sizeof buffer};
    sockaddr_storage who{};
    message r{{&into, 1}};
    r.address = reinterpret_cast<sockaddr*>(&who);
    r.address_size = sizeof who;
    CHECK(b->receive_message(receiver, r) == 4);
    CHECK((r.flags & MSG_TRUNC) != 0);
    CHECK(r.address_size == sizeof(sockaddr_in));
    CHECK(std::memcmp(&who, &from, offsetof(sockaddr_in, sin_zero)) == 0);
    r.address_size = sizeof who;
    CHECK(b->receive_message(receiver, r) == -EAGAIN);
  }

  TEST_CASE("a batch larger than the limit of a system call arrives whole and in order") {
    const auto b = anyio::system_backend();
    const two pair = make_pair(*b, SOCK_DGRAM);
    // A queue of UNIX datagrams is short, so the batch goes over UDP.
    sockaddr_in to;
    const owned receiver = bound(*b, SOCK_DGRAM, to);
    const owned sender(b->open_socket(AF_INET, SOCK_DGRAM, 0));
    constexpr std::size_t count = 150;
    std::vector<std::uint32_t> numbers(count);
    std::vector<iovec> parts(count);
    std::vector<message> messages(count);
    for (std::size_t i = 0; i < count; ++i) {
      numbers[i] = static_cast<std::uint32_t>(i);
      parts[i] = {&numbers[i], i % 7 == 0 ? 0 : sizeof numbers[i]};  // some of them empty
      messages[i].parts = {&parts[i], 1};
      messages[i].address = as_sockaddr(to);
      messages[i].address_size = sizeof to;
    }
    REQUIRE(system_batches().send_messages(sender, messages) == static_cast<int>(count));

    std::vector<std::uint32_t> got(count + 10);
    std::vector<iovec> rooms(got.size());
    std::vector<sockaddr_storage> senders(got.size());
    std::vector<message> into(got.size());
    std::vector<std::size_t> sizes(got.size(), 99);
    for (std::size_t i = 0; i < got.size(); ++i) {
      rooms[i] = {&got[i], sizeof got[i]};
      into[i].parts = {&rooms[i], 1};
      into[i].address = reinterpret_cast<sockaddr*>(&senders[i]);
      into[i].address_size = sizeof senders[i];
    }
    bool emptied = false;
    REQUIRE(system_batches().receive_messages(receiver, into, sizes, emptied) == static_cast<int>(count));
    CHECK(emptied);
    for (std::size_t i = 0; i < count; ++i) {
      CAPTURE(i);
      CHECK(sizes[i] == (i % 7 == 0 ? 0 : sizeof got[i]));
      if (i % 7 != 0) CHECK(got[i] == i);
      CHECK(into[i].address_size == sizeof(sockaddr_in));
      CHECK(senders[i].ss_family == AF_INET);
    }
    CHECK(sizes[count] == 99);
    emptied = false;
    CHECK(system_batches().receive_messages(receiver, into, sizes, emptied) == -EAGAIN);
    CHECK(emptied);
    CHECK(system_batches().receive_messages(receiver, {}, {}, emptied) == 0);
    CHECK(system_batches().send_messages(sender, {}) == 0);
  }

  TEST_CASE("a batch stops before a datagram that fails, and reports the error if it is the first") {
    const auto b = anyio::system_backend();
    sockaddr_in to;
    const owned receiver = bound(*b, SOCK_DGRAM, to);
    const owned sender(b->open_socket(AF_INET, SOCK_DGRAM, 0));
    std::string large(70000, 'x');
    iovec small_part{large.data(), 10}, large_part{large.data(), large.size()};
    for (const std::size_t failing : {std::size_t{0}, std::size_t{3}, std::size_t{64}, std::size_t{70}}) {
      std::vector<message> messages(100);
      for (std::size_t i = 0; i < messages.size(); ++i) {
        messages[i].parts = {i == failing ? &large_part : &small_part, 1};
        messages[i].address = as_sockaddr(to);
        messages[i].address_size = sizeof to;
      }
      const int expected = failing == 0 ? -EMSGSIZE : static_cast<int>(failing);
      CHECK(system_batches().send_messages(sender, messages) == expected);
      CHECK(system_batches().send_messages(sender, std::span(messages).subspan(failing)) == -EMSGSIZE);
    }
  }

  // --- files, pipes and paths

  TEST_CASE("send_file sends from an offset and leaves the file position unchanged") {
    const auto b = anyio::system_backend();
    const two pair = make_pair(*b);
    temporary_directory directory;
    const std::string path = directory / "file";
    const owned file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(::write(file, "0123456789", 10) == 10);
    CHECK(system_files().send_file(pair.first, file, 4, 3) == 3);
    CHECK(system_files().send_file(pair.first, file, 8, 100) == 2);
    CHECK(system_files().send_file(pair.first, file, 10, 100) == 0);
    CHECK(system_files().send_file(pair.first, file, 0, 0) == 0);
    CHECK(system_files().send_file(pair.first, file, ~std::uint64_t{0}, 1) == -EOVERFLOW);
    CHECK(::lseek(file, 0, SEEK_CUR) == 10);
    char buffer[16];
    REQUIRE(b->receive(pair.second, buffer, sizeof buffer) == 5);
    CHECK(std::string_view(buffer, 5) == "45689");
    const std::string block(65536, 'x');
    while (b->send(pair.first, block.data(), block.size()) > 0) {
    }
    CHECK(system_files().send_file(pair.first, file, 0, 10) == -EAGAIN);
    ::unlink(path.c_str());
  }

  TEST_CASE("a pipe is read and written, in parts") {
    const auto b = anyio::system_backend();
    two pipe = make_pipe();
    char buffer[16];
    CHECK(system_files().read(pipe.first, buffer, sizeof buffer) == -EAGAIN);
    char text[] = "onetwo";
    const iovec parts[2] = {{text, 3}, {text + 3, 3}};
    CHECK(system_files().write(pipe.second, parts) == 6);
    CHECK(system_files().read(pipe.first, buffer, sizeof buffer) == 6);
    CHECK(std::string_view(buffer, 6) == "onetwo");
    const std::vector<iovec> many(IOV_MAX + 5, iovec{text, 1});
    CHECK(system_files().write(pipe.second, many) == IOV_MAX);
    const std::string block(65536, 'x');
    const iovec large{const_cast<char*>(block.data()), block.size()};
    while (system_files().write(pipe.second, {&large, 1}) > 0) {
    }
    CHECK(system_files().write(pipe.second, {&large, 1}) == -EAGAIN);
    pipe.second.reset();
    while (system_files().read(pipe.first, buffer, sizeof buffer) > 0) {
    }
    CHECK(system_files().read(pipe.first, buffer, sizeof buffer) == 0);
  }

  TEST_CASE("an adopted descriptor is non-blocking and close-on-exec and keeps its other flags") {
    const auto b = anyio::system_backend();
    temporary_directory directory;
    const std::string path = directory / "file";
    const owned file(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT, 0600));
    REQUIRE(file >= 0);
    REQUIRE_FALSE(is_close_on_exec(file));
    for (int i = 0; i < 2; ++i) {
      CHECK(system_files().adopt(file) == (i == 0 ? 1 : 0));  // it was blocking
      CHECK(is_non_blocking(file));
      CHECK(is_close_on_exec(file));
      CHECK((::fcntl(file, F_GETFL) & O_APPEND) != 0);
    }
    CHECK(system_files().make_blocking(file) == 0);
    CHECK_FALSE(is_non_blocking(file));
    CHECK((::fcntl(file, F_GETFL) & O_APPEND) != 0);
    CHECK(system_files().make_blocking(-1) == -EBADF);
    ::unlink(path.c_str());
  }

  TEST_CASE("a path is identified without following links, changed and removed") {
    const auto b = anyio::system_backend();
    temporary_directory directory;
    const std::string path = directory / "socket", link = directory / "link", file = directory / "file";
    const owned listener(b->open_socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    REQUIRE(b->bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::symlink(path.c_str(), link.c_str()) == 0);
    owned(::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)).reset();

    struct stat status {};
    REQUIRE(::lstat(path.c_str(), &status) == 0);
    anyio::detail::file_identity identity;
    CHECK(system_paths().identify(path.c_str(), identity) == 0);
    CHECK(identity.is_socket);
    CHECK(identity.device == status.st_dev);
    CHECK(identity.inode == status.st_ino);
    CHECK(system_paths().identify(link.c_str(), identity) == 0);
    CHECK_FALSE(identity.is_socket);
    CHECK(system_paths().identify(file.c_str(), identity) == 0);
    CHECK_FALSE(identity.is_socket);

    CHECK(system_paths().change_mode(path.c_str(), 0640) == 0);
    REQUIRE(::lstat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 07777) == 0640);
    for (const auto& name : {link, file, path}) CHECK(system_paths().unlink(name.c_str()) == 0);
    CHECK(system_paths().identify(path.c_str(), identity) == -ENOENT);
  }

  // --- SIGPIPE

  TEST_CASE("sending never raises SIGPIPE, whose disposition stays the default") {
    const auto b = anyio::system_backend();
    struct sigaction before {};
    set_handler(SIGPIPE, SIG_DFL, &before);  // a signal that got through would end the process
    char text[] = "x";
    const iovec part{text, 1};
    const message m{{&part, 1}};
    two pair = make_pair(*b);
    pair.second.reset();
    CHECK(b->send(pair.first, text, 1) == -EPIPE);
    CHECK(b->send_message(pair.first, m) == -EPIPE);
    CHECK(system_batches().send_messages(pair.first, {&m, 1}) == -EPIPE);
    CHECK(system_files().write(pair.first, {&part, 1}) == -EPIPE);
    const owned file(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
    CHECK(system_files().send_file(pair.first, file, 0, 1) == -EPIPE);

    two pipe = make_pipe();
    pipe.first.reset();
    CHECK(system_files().write(pipe.second, {&part, 1}) == -EPIPE);
    sigset_t mask;
    REQUIRE(::pthread_sigmask(SIG_BLOCK, nullptr, &mask) == 0);
    CHECK(::sigismember(&mask, SIGPIPE) == 0);
    CHECK_FALSE(is_pending(SIGPIPE));
    CHECK((handler_of(SIGPIPE) == SIG_DFL));
    ::sigaction(SIGPIPE, &before, nullptr);
  }

  TEST_CASE("a blocked and pending SIGPIPE of the program stays pending") {
    const auto b = anyio::system_backend();
    char text[] = "x";
    const iovec part{text, 1};
    two pipe = make_pipe();
    pipe.first.reset();
    const sigset_t pipe_signal = only(SIGPIPE);
    sigset_t before;
    REQUIRE(::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before) == 0);

    CHECK(system_files().write(pipe.second, {&part, 1}) == -EPIPE);
    CHECK_FALSE(is_pending(SIGPIPE));
    ::raise(SIGPIPE);
    REQUIRE(is_pending(SIGPIPE));
    CHECK(system_files().write(pipe.second, {&part, 1}) == -EPIPE);
    CHECK(is_pending(SIGPIPE));
    sigset_t mask;
    REQUIRE(::pthread_sigmask(SIG_BLOCK, nullptr, &mask) == 0);
    CHECK(::sigismember(&mask, SIGPIPE) == 1);

    const timespec at_once{};
    CHECK(::sigtimedwait(&pipe_signal, nullptr, &at_once) == SIGPIPE);
    CHECK_FALSE(is_pending(SIGPIPE));
    REQUIRE(::pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
  }

  // --- names

  TEST_CASE("address literals and known names resolve, once each, with the port") {
    auto found = system_names().resolve("127.0.0.1", 80, AF_UNSPEC);
    CHECK(found.status == 0);
    CHECK(found.reason == nullptr);
    REQUIRE(found.endpoints.size() == 1);
    CHECK(found.endpoints[0].to_string() == "127.0.0.1:80");

    found = system_names().resolve("::1", 0, AF_UNSPEC);
    REQUIRE(found.endpoints.size() == 1);
    CHECK(found.endpoints[0].to_string() == "[::1]:0");

    found = system_names().resolve("localhost", 443, AF_INET);
    REQUIRE(found.status == 0);
    REQUIRE_FALSE(found.endpoints.empty());
    std::sort(found.endpoints.begin(), found.endpoints.end());
    CHECK(std::adjacent_find(found.endpoints.begin(), found.endpoints.end()) == found.endpoints.end());
    for (const auto& endpoint : found.endpoints) {
      CHECK(endpoint.address.is_v4());
      CHECK(endpoint.port == 443);
    }
  }

  TEST_CASE("the scope of an address is kept, and interfaces can be found by name") {
    const std::uint32_t index = ::if_nametoindex("lo");
    if (index == 0) return;
    const auto found = system_names().resolve("fe80::1%lo", 1, AF_UNSPEC);
    REQUIRE(found.endpoints.size() == 1);
    CHECK(found.endpoints[0].address.scope_id() == index);
    const auto parsed = anyio::ip_address::parse("fe80::1%lo");
    REQUIRE(parsed.has_value());
    CHECK(parsed->scope_id() == index);
    CHECK(parsed->to_string() == "fe80::1%lo");
    CHECK_FALSE(anyio::ip_address::parse("fe80::1%no-such-if").has_value());
  }

  TEST_CASE("a name that cannot be resolved has a reason text") {
    const std::pair<const char*, int> failing[] = {
        {"host.invalid", AF_UNSPEC}, {"", AF_UNSPEC}, {"::1", AF_INET}, {"127.0.0.1", AF_INET6}};
    for (const auto& look_up : failing) {
      CAPTURE(look_up.first);
      const auto found = system_names().resolve(look_up.first, 80, look_up.second);
      CHECK(found.status == -ENOENT);
      REQUIRE(found.reason != nullptr);
      CHECK(std::strlen(found.reason) > 0);
      CHECK(found.endpoints.empty());
    }
  }

  TEST_CASE("an address without a name is returned as numbers") {
    std::string host, service;
    // A scope keeps the name from every name server.
    const auto endpoint = anyio::ip_endpoint::parse("[fe80::1234:5678%1]:64999");
    REQUIRE(endpoint.has_value());
    CHECK(system_names().reverse(*endpoint, host, service) == 0);
    CHECK(host.starts_with("fe80::1234:5678"));
    CHECK(service == "64999");
    CHECK(system_names().reverse(*anyio::ip_endpoint::parse("127.0.0.1:64999"), host, service) == 0);
    CHECK_FALSE(host.empty());
    CHECK(service == "64999");
  }

  TEST_CASE("a family is available if one of its addresses can be used") {
    const auto b = anyio::system_backend();
    struct : anyio::detail::posix_names {
    } names;
    CHECK(names.has_family(AF_UNIX));
    CHECK_FALSE(names.has_family(9999));
    CHECK(names.has_family(AF_INET));
    const bool v6 = names.has_family(AF_INET6);
    CHECK(names.has_family(AF_INET6) == v6);
    owned fd(b->open_socket(AF_INET6, SOCK_STREAM, 0));
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    if (fd >= 0 && b->bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) CHECK(v6);
    if (fd < 0) CHECK_FALSE(v6);
    // The answer is remembered: it needs no descriptor.
    descriptors_exhausted none;
    CHECK(names.has_family(AF_INET6) == v6);
  }

  // --- signals

  /// A backend, and the signals that a loop on it caught.
  class catcher {
   public:
    int catch_signal(int number) { return signals_->catch_signal(number); }
    void release_signal(int number) { signals_->release_signal(number); }
    bool take_signal(int number) { return signals_->take_signal(number); }
    int wait(anyio::detail::slice<poll_event> events, anyio::duration at_most) {
      return system_->wait(events, at_most);
    }
    int native_handle() const { return system_->native_handle(); }

   private:
    std::unique_ptr<backend> system_ = anyio::system_backend();
    anyio::detail::owned<anyio::detail::signal_service> signals_ =
        anyio::detail::system_signals(system_->wake_descriptor());
  };

  TEST_CASE("a signal reaches every backend that caught it, once, and wakes it") {
    set_handler(SIGUSR1, count_foreign_signal);
    foreign_signals = 0;
    {
      const auto first = std::make_unique<catcher>(), second = std::make_unique<catcher>();
      const auto other = std::make_unique<catcher>(), none = std::make_unique<catcher>();
      REQUIRE(first->catch_signal(SIGUSR1) == 0);
      REQUIRE(second->catch_signal(SIGUSR1) == 0);
      REQUIRE(other->catch_signal(SIGUSR2) == 0);
      CHECK_FALSE(first->take_signal(SIGUSR1));
      errno = 12345;
      ::raise(SIGUSR1);
      CHECK(errno == 12345);
      ::raise(SIGUSR1);
      poll_event event;
      for (auto* b : {first.get(), second.get()}) {
        CHECK(b->wait({&event, 1}, no_limit) == 0);
        CHECK(b->take_signal(SIGUSR1));
        CHECK_FALSE(b->take_signal(SIGUSR1));
        CHECK_FALSE(is_readable(b->native_handle()));
      }
      for (auto* b : {other.get(), none.get()}) {
        CHECK_FALSE(b->take_signal(SIGUSR1));
        CHECK_FALSE(is_readable(b->native_handle()));
      }
      ::raise(SIGUSR2);
      CHECK(other->take_signal(SIGUSR2));
      CHECK_FALSE(first->take_signal(SIGUSR2));
      CHECK(foreign_signals == 0);
    }
    // Their end released it.
    CHECK((handler_of(SIGUSR1) == count_foreign_signal));
    CHECK((handler_of(SIGUSR2) == SIG_DFL));
    ::raise(SIGUSR1);
    CHECK(foreign_signals == 1);
    set_handler(SIGUSR1, SIG_DFL);
  }

  TEST_CASE("the last release restores the earlier disposition, with its flags and mask") {
    struct sigaction strange {};
    strange.sa_handler = count_foreign_signal;
    strange.sa_flags = SA_NODEFER;
    strange.sa_mask = only(SIGHUP);
    REQUIRE(::sigaction(SIGUSR1, &strange, nullptr) == 0);
    const auto first = std::make_unique<catcher>(), second = std::make_unique<catcher>();
    REQUIRE(first->catch_signal(SIGUSR1) == 0);
    REQUIRE(first->catch_signal(SIGUSR1) == 0);  // counted
    REQUIRE(second->catch_signal(SIGUSR1) == 0);
    const auto ours = handler_of(SIGUSR1);
    CHECK((ours != count_foreign_signal));

    first->release_signal(SIGUSR1);
    ::raise(SIGUSR1);
    CHECK(first->take_signal(SIGUSR1));
    CHECK(second->take_signal(SIGUSR1));
    first->release_signal(SIGUSR1);
    CHECK((handler_of(SIGUSR1) == ours));
    ::raise(SIGUSR1);
    CHECK_FALSE(first->take_signal(SIGUSR1));
    CHECK(second->take_signal(SIGUSR1));
    first->release_signal(SIGUSR1);  // one release too many
    CHECK((handler_of(SIGUSR1) == ours));
    second->release_signal(SIGUSR1);

    struct sigaction restored {};
    REQUIRE(::sigaction(SIGUSR1, nullptr, &restored) == 0);
    CHECK((restored.sa_handler == count_foreign_signal));
    CHECK((restored.sa_flags & SA_NODEFER) != 0);
    CHECK((restored.sa_flags & SA_RESTART) == 0);
    CHECK(::sigismember(&restored.sa_mask, SIGHUP) == 1);
    CHECK(::sigismember(&restored.sa_mask, SIGTERM) == 0);
    set_handler(SIGUSR1, SIG_DFL);
  }

  TEST_CASE("signals from before a release are not reported by the next catch") {
    const auto b = std::make_unique<catcher>();
    REQUIRE(b->catch_signal(SIGUSR1) == 0);
    ::raise(SIGUSR1);
    b->release_signal(SIGUSR1);
    REQUIRE(b->catch_signal(SIGUSR1) == 0);
    CHECK_FALSE(b->take_signal(SIGUSR1));
    ::raise(SIGUSR1);
    CHECK(b->take_signal(SIGUSR1));
  }

  TEST_CASE("an ignored signal is caught and then ignored again") {
    set_handler(SIGUSR1, SIG_IGN);
    {
      const auto b = std::make_unique<catcher>();
      REQUIRE(b->catch_signal(SIGUSR1) == 0);
      ::raise(SIGUSR1);
      CHECK(b->take_signal(SIGUSR1));
    }
    CHECK((handler_of(SIGUSR1) == SIG_IGN));
    ::raise(SIGUSR1);
    set_handler(SIGUSR1, SIG_DFL);
  }

  TEST_CASE("a number that cannot be caught is rejected") {
    const auto b = std::make_unique<catcher>();
    for (const int number : {INT_MIN, -1, 0, SIGKILL, SIGSTOP, 65, 1000, INT_MAX}) {
      CAPTURE(number);
      CHECK(b->catch_signal(number) == -EINVAL);
      CHECK_FALSE(b->take_signal(number));
      b->release_signal(number);
    }
    REQUIRE(b->catch_signal(SIGRTMAX) == 0);
    if (!support::emulator_has(support::emulator_fault::signal_64)) {
      ::raise(SIGRTMAX);
      CHECK(b->take_signal(SIGRTMAX));
    }
    b->release_signal(SIGRTMAX);
    CHECK((handler_of(SIGRTMAX) == SIG_DFL));
  }

  TEST_CASE("a signal ends a wait on whatever thread it is delivered") {
    const auto b = std::make_unique<catcher>();
    REQUIRE(b->catch_signal(SIGUSR1) == 0);
    std::thread other([] { ::pthread_kill(::pthread_self(), SIGUSR1); });
    poll_event event;
    do {
      CHECK(b->wait({&event, 1}, no_limit) == 0);
    } while (!b->take_signal(SIGUSR1));
    other.join();
  }

  TEST_CASE("as many backends as slots can catch signals, and slots are reused") {
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit raised = before;
    raised.rlim_cur = std::min<rlim_t>(before.rlim_max, 2048);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &raised) == 0);
    if (raised.rlim_cur >= 1000) {
      std::vector<std::unique_ptr<catcher>> all;
      for (int i = 0; i < 256; ++i) {
        all.push_back(std::make_unique<catcher>());
        REQUIRE(all.back() != nullptr);
        REQUIRE(all.back()->catch_signal(SIGUSR1) == 0);
      }
      const auto late = std::make_unique<catcher>();
      CHECK(late->catch_signal(SIGUSR1) == -EMFILE);
      ::raise(SIGUSR1);
      CHECK(std::all_of(all.begin(), all.end(), [](auto& b) { return b->take_signal(SIGUSR1); }));
      CHECK_FALSE(late->take_signal(SIGUSR1));
      all.erase(all.begin() + 100);
      CHECK(late->catch_signal(SIGUSR1) == 0);
      ::raise(SIGUSR1);
      CHECK(late->take_signal(SIGUSR1));
      all.clear();
      CHECK((handler_of(SIGUSR1) != SIG_DFL));
    }
    CHECK((handler_of(SIGUSR1) == SIG_DFL));
    ::setrlimit(RLIMIT_NOFILE, &before);
  }

  TEST_CASE("backends are created and destroyed while signals arrive on another thread") {
    const auto witness = std::make_unique<catcher>();
    REQUIRE(witness->catch_signal(SIGUSR1) == 0);
    std::atomic<bool> stop{false};
    std::thread sender([&] {
      while (!stop) ::pthread_kill(::pthread_self(), SIGUSR1);
    });
    for (int i = 0; i < 500; ++i) {
      {
        const auto b = std::make_unique<catcher>();
        REQUIRE(b->catch_signal(SIGUSR1) == 0);
        poll_event event;
        do {
          REQUIRE(b->wait({&event, 1}, no_limit) == 0);
        } while (!b->take_signal(SIGUSR1));
      }
      // One of these has the number of the wake descriptor. A late handler would write to it.
      const owned poller(::eventfd(0, EFD_CLOEXEC)), next(::eventfd(0, EFD_CLOEXEC));
      std::this_thread::yield();
      REQUIRE_FALSE(is_readable(poller));
      REQUIRE_FALSE(is_readable(next));
    }
    stop = true;
    sender.join();
    CHECK(witness->take_signal(SIGUSR1));
  }
}

#endif
