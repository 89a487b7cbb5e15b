// What the kqueue backend assumes of kqueue(2), checked with the available one: the system's, a library's, or
// the one that these tests provide for Linux (tests/support/kqueue).
#include "anyio_net.hpp"

#if defined(ANYIO_NET_KQUEUE)

#include <doctest/doctest.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "support/sockets.hpp"

namespace {

struct owned {
  int fd = -1;
  explicit owned(int number) : fd(number) { CHECK(fd >= 0); }
  owned(owned&& other) noexcept : fd(std::exchange(other.fd, -1)) {}
  ~owned() { reset(); }
  void reset() {
    if (fd >= 0) ::close(std::exchange(fd, -1));
  }
  operator int() const { return fd; }
};

using two = std::pair<owned, owned>;

two pair_of(int type = SOCK_STREAM) {
  int fds[2] = {-1, -1};
  CHECK((::socketpair(AF_UNIX, type, 0, fds) == 0 && support::prepare_ends(fds)));
  return {owned(fds[0]), owned(fds[1])};
}

/// first is read from, second written to.
two make_pipe() {
  int fds[2] = {-1, -1};
  CHECK((::pipe(fds) == 0 && support::prepare_ends(fds)));
  return {owned(fds[0]), owned(fds[1])};
}

two connected_tcp() {
  anyio::loop l;
  anyio::tcp_listener listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0}).value();
  owned client(support::raw_connect(listener.local_endpoints().front()));
  owned server(::accept(listener.native_handles().front(), nullptr, nullptr));
  CHECK(::fcntl(client, F_SETFL, O_NONBLOCK) == 0);
  CHECK(::fcntl(server, F_SETFL, O_NONBLOCK) == 0);
  return {std::move(client), std::move(server)};
}

struct kevent change(int fd, int filter, int flags, unsigned fflags = 0) {
  struct kevent c {};
  c.ident = static_cast<decltype(c.ident)>(fd);
  c.filter = static_cast<decltype(c.filter)>(filter);
  c.flags = static_cast<decltype(c.flags)>(flags);
  c.fflags = fflags;
  return c;
}

/// 0 or the errno of one change, from its receipt.
int errno_of(int queue, const struct kevent& c) {
  struct kevent receipt {};
  struct kevent with_receipt = c;
  with_receipt.flags = static_cast<decltype(c.flags)>(c.flags | EV_RECEIPT);
  const timespec at_once{};
  CHECK(::kevent(queue, &with_receipt, 1, &receipt, 1, &at_once) == 1);
  CHECK((receipt.flags & EV_ERROR) != 0);
  CHECK(receipt.ident == c.ident);
  CHECK(receipt.filter == c.filter);
  return static_cast<int>(receipt.data);
}

constexpr long patience = 200;  // milliseconds, for what the network stack may do a little later

/// The available events, the one with the greater filter (read before write) first.
std::vector<struct kevent> events_of(int queue, long milliseconds = 0) {
  std::vector<struct kevent> events(16);
  const timespec limit{milliseconds / 1000, milliseconds % 1000 * 1000000};
  const int n = ::kevent(queue, nullptr, 0, events.data(), static_cast<int>(events.size()), &limit);
  CHECK(n >= 0);
  events.resize(static_cast<std::size_t>(std::max(n, 0)));
  std::sort(events.begin(), events.end(), [](auto& a, auto& b) { return a.filter > b.filter; });
  return events;
}

bool is_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

}  // namespace

TEST_CASE("kqueue: with EV_CLEAR an event repeats only for new data, without it while the condition holds") {
  const owned queue(::kqueue());
  const two pair = pair_of();
  for (const bool clear : {true, false}) {
    CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_ADD | (clear ? EV_CLEAR : 0))) == 0);
    CHECK(events_of(queue).empty());
    CHECK(::write(pair.second, "ab", 2) == 2);
    auto events = events_of(queue, patience);
    CHECK(events.size() == 1);
    if (events.size() != 1) return;
    CHECK(events[0].ident == static_cast<std::uintptr_t>(pair.first.fd));
    CHECK(events[0].filter == EVFILT_READ);
    CHECK(events[0].data == 2);
    CHECK((events[0].flags & EV_EOF) == 0);
    CHECK(events_of(queue).size() == (clear ? 0 : 1));
    CHECK(::write(pair.second, "c", 1) == 1);
    events = events_of(queue, patience);
    CHECK(events.size() == 1);
    if (!events.empty()) CHECK(events[0].data == 3);
    char buffer[8];
    CHECK(::read(pair.first, buffer, sizeof buffer) == 3);
    CHECK(events_of(queue).empty());  // a condition that no longer holds is not reported
    CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_DELETE)) == 0);
  }
}

TEST_CASE("kqueue: the two filters of a descriptor are independent") {
  const owned queue(::kqueue());
  const two pair = pair_of();
  CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_ADD | EV_CLEAR)) == 0);
  CHECK(errno_of(queue, change(pair.first, EVFILT_WRITE, EV_ADD | EV_CLEAR)) == 0);
  auto events = events_of(queue);
  CHECK(events.size() == 1);
  if (events.size() != 1) return;
  CHECK(events[0].filter == EVFILT_WRITE);
  CHECK(events[0].data > 0);
  CHECK(::write(pair.second, "a", 1) == 1);
  events = events_of(queue, patience);
  CHECK(events.size() == 1);
  if (!events.empty()) CHECK(events[0].filter == EVFILT_READ);
  CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_DELETE)) == 0);
  CHECK(::write(pair.second, "a", 1) == 1);
  CHECK(events_of(queue).empty());
  // Full and then with room again.
  const std::string block(65536, 'x');
  while (::write(pair.first, block.data(), block.size()) > 0) continue;
  CHECK(events_of(queue).empty());
  std::string sink(1 << 20, '\0');
  while (::read(pair.second, sink.data(), sink.size()) > 0) continue;
  events = events_of(queue, patience);
  CHECK(events.size() == 1);
  if (!events.empty()) CHECK(events[0].filter == EVFILT_WRITE);
}

TEST_CASE("kqueue: EV_ONESHOT reports once and removes the filter") {
  const owned queue(::kqueue());
  const two pair = pair_of();
  CHECK(errno_of(queue, change(pair.first, EVFILT_WRITE, EV_ADD | EV_ONESHOT)) == 0);
  CHECK(events_of(queue).size() == 1);
  CHECK(events_of(queue).empty());
  CHECK(errno_of(queue, change(pair.first, EVFILT_WRITE, EV_DELETE)) == ENOENT);
  CHECK(errno_of(queue, change(pair.first, EVFILT_WRITE, EV_ADD | EV_ONESHOT)) == 0);
  CHECK(errno_of(queue, change(pair.first, EVFILT_WRITE, EV_ADD | EV_ONESHOT)) == 0);  // added once
  CHECK(events_of(queue).size() == 1);
}

TEST_CASE("kqueue: the end is reported together with unread data") {
  const owned queue(::kqueue());
  for (const bool tcp : {false, true}) {
    two pair = tcp ? connected_tcp() : pair_of();
    CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_ADD | EV_CLEAR)) == 0);
    CHECK(::write(pair.second, "abc", 3) == 3);
    CHECK(::shutdown(pair.second, SHUT_WR) == 0);
    std::vector<struct kevent> events;
    for (int i = 0; i < 10 && (events.empty() || (events[0].flags & EV_EOF) == 0); ++i)
      events = events_of(queue, patience);
    CHECK(events.size() == 1);
    if (events.size() != 1) return;
    CHECK((events[0].flags & EV_EOF) != 0);
    CHECK(events[0].data == 3);
    CHECK(events[0].fflags == 0);
    char buffer[8];
    CHECK(::read(pair.first, buffer, sizeof buffer) == 3);
    CHECK(::read(pair.first, buffer, sizeof buffer) == 0);
    // A filter that is added late reports the end too.
    CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_ADD | EV_CLEAR)) == 0);
    events = events_of(queue, patience);
    CHECK(events.size() == 1);
    if (!events.empty()) CHECK((events[0].flags & EV_EOF) != 0);
  }
}

TEST_CASE("kqueue: a reset is an end with an error, for both filters") {
  const owned queue(::kqueue());
  two pair = connected_tcp();
  CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_ADD | EV_CLEAR)) == 0);
  CHECK(errno_of(queue, change(pair.first, EVFILT_WRITE, EV_ADD | EV_CLEAR)) == 0);
  CHECK(events_of(queue, patience).size() == 1);
  const linger at_once{1, 0};
  CHECK(::setsockopt(pair.second, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
  pair.second.reset();
  bool read_end = false, write_end = false;
  for (int i = 0; i < 10 && !(read_end && write_end); ++i) {
    for (const auto& e : events_of(queue, patience)) {
      const bool end = (e.flags & EV_EOF) != 0 && e.fflags == ECONNRESET;
      (e.filter == EVFILT_READ ? read_end : write_end) |= end;
    }
  }
  CHECK(read_end);
  CHECK(write_end);
  char byte;
  CHECK(::read(pair.first, &byte, 1) < 0);  // and the error still belongs to the reader
  CHECK(errno == ECONNRESET);
}

TEST_CASE("kqueue: a local shutdown is an end only for the write filter") {
  const owned queue(::kqueue());
  for (const bool tcp : {false, true}) {
    const two pair = tcp ? connected_tcp() : pair_of();
    CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_ADD | EV_CLEAR)) == 0);
    CHECK(errno_of(queue, change(pair.first, EVFILT_WRITE, EV_ADD | EV_CLEAR)) == 0);
    CHECK(events_of(queue, patience).size() == 1);
    CHECK(::shutdown(pair.first, SHUT_WR) == 0);
    const auto events = events_of(queue, patience);
    CHECK(events.size() == 1);
    if (events.size() != 1) return;
    CHECK(events[0].filter == EVFILT_WRITE);
    CHECK((events[0].flags & EV_EOF) != 0);
  }
}

TEST_CASE("kqueue: the ends of a pipe") {
  const owned queue(::kqueue());
  {
    two pipe = make_pipe();
    CHECK(errno_of(queue, change(pipe.first, EVFILT_READ, EV_ADD | EV_CLEAR)) == 0);
    CHECK(::write(pipe.second, "ab", 2) == 2);
    pipe.second.reset();
    const auto events = events_of(queue, patience);
    CHECK(events.size() == 1);
    if (events.size() != 1) return;
    CHECK((events[0].flags & EV_EOF) != 0);
    CHECK(events[0].data == 2);
  }
  two pipe = make_pipe();
  const std::string block(65536, 'x');
  while (::write(pipe.second, block.data(), block.size()) > 0) continue;
  CHECK(errno_of(queue, change(pipe.second, EVFILT_WRITE, EV_ADD | EV_CLEAR)) == 0);
  CHECK(events_of(queue).empty());
  pipe.first.reset();
  const auto events = events_of(queue, patience);
  CHECK(events.size() == 1);
  if (!events.empty()) CHECK((events[0].flags & EV_EOF) != 0);
}

TEST_CASE("kqueue: each change has its own error, and receipts return no events") {
  const owned queue(::kqueue());
  const two pair = pair_of();
  const int free_number = [] {
    const owned gone(::dup(0));
    return gone.fd;
  }();
  CHECK(errno_of(queue, change(free_number, EVFILT_READ, EV_ADD)) == EBADF);
  CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_DELETE)) == ENOENT);
  CHECK(errno_of(queue, change(pair.first, EVFILT_WRITE, EV_ADD)) == 0);  // there is an event now

  const struct kevent changes[] = {change(pair.second, EVFILT_READ, EV_ADD | EV_RECEIPT),
                                   change(pair.second, EVFILT_WRITE, EV_DELETE | EV_RECEIPT),
                                   change(free_number, EVFILT_READ, EV_ADD | EV_RECEIPT),
                                   change(pair.second, EVFILT_WRITE, EV_ADD | EV_RECEIPT)};
  struct kevent receipts[8];
  CHECK(::kevent(queue, changes, 4, receipts, 8, nullptr) == 4);
  const int expected[] = {0, ENOENT, EBADF, 0};
  for (int i = 0; i < 4; ++i) {
    CHECK(receipts[i].ident == changes[i].ident);
    CHECK(receipts[i].filter == changes[i].filter);
    CHECK((receipts[i].flags & EV_ERROR) != 0);
    CHECK(receipts[i].data == expected[i]);
  }
  CHECK(events_of(queue).size() == 2);

  // Without the flag only a failure is an entry, and without room for one it is the call's error.
  const timespec at_once{};
  const struct kevent bad = change(free_number, EVFILT_READ, EV_ADD);
  CHECK(::kevent(queue, &bad, 1, receipts, 8, &at_once) == 1);
  CHECK((receipts[0].flags & EV_ERROR) != 0);
  CHECK(receipts[0].data == EBADF);
  CHECK(::kevent(queue, &bad, 1, nullptr, 0, &at_once) == -1);
  CHECK(errno == EBADF);
  const struct kevent absent = change(pair.first, EVFILT_READ, EV_DELETE);
  CHECK(::kevent(queue, &absent, 1, nullptr, 0, &at_once) == -1);
  CHECK(errno == ENOENT);
  CHECK(::kevent(free_number, nullptr, 0, receipts, 8, &at_once) == -1);
  CHECK(errno == EBADF);
}

TEST_CASE("kqueue: closing a descriptor removes its filters, with or without duplicates") {
  const owned queue(::kqueue());
  two pair = pair_of();
  const owned duplicate(::dup(pair.first));
  CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_ADD)) == 0);
  CHECK(::write(pair.second, "a", 1) == 1);
  CHECK(events_of(queue, patience).size() == 1);
  const int number = pair.first;
  pair.first.reset();
  CHECK(events_of(queue).empty());
  CHECK_FALSE(is_readable(queue));
  const two next = pair_of();  // another descriptor gets the number
  CHECK((next.first.fd == number || next.second.fd == number));
  CHECK(::write(next.first, "a", 1) == 1);
  CHECK(::write(next.second, "a", 1) == 1);
  CHECK(events_of(queue).empty());
  CHECK(errno_of(queue, change(number, EVFILT_READ, EV_DELETE)) == ENOENT);
}

TEST_CASE("kqueue: it is readable while events are available, and time limits are kept") {
  const owned queue(::kqueue());
  const two pair = pair_of();
  CHECK_FALSE(is_readable(queue));
  CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_ADD | EV_CLEAR)) == 0);
  CHECK_FALSE(is_readable(queue));
  CHECK(::write(pair.second, "a", 1) == 1);
  CHECK(is_readable(queue));
  CHECK(events_of(queue, patience).size() == 1);
  CHECK_FALSE(is_readable(queue));

  const auto start = std::chrono::steady_clock::now();
  const timespec a_while{0, 3500000};
  struct kevent none;
  CHECK(::kevent(queue, nullptr, 0, &none, 1, &a_while) == 0);
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::microseconds(3500));
  CHECK(::kevent(queue, nullptr, 0, nullptr, 0, nullptr) == 0);  // no room: nothing to wait for
}

TEST_CASE("kqueue: no event is starved by others") {
  const owned queue(::kqueue());
  std::vector<two> pairs;
  for (int i = 0; i < 5; ++i) {
    pairs.push_back(pair_of());
    CHECK(errno_of(queue, change(pairs.back().first, EVFILT_READ, EV_ADD)) == 0);
    CHECK(errno_of(queue, change(pairs.back().first, EVFILT_WRITE, EV_ADD)) == 0);
    CHECK(::write(pairs.back().second, "a", 1) == 1);
  }
  std::vector<std::pair<std::uintptr_t, int>> seen;
  for (int i = 0; i < 40; ++i) {
    struct kevent events[2];
    const timespec at_once{};
    const int n = ::kevent(queue, nullptr, 0, events, 2, &at_once);
    CHECK(n == 2);
    for (int j = 0; j < n; ++j) seen.emplace_back(events[j].ident, events[j].filter);
  }
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  CHECK(seen.size() == 10);
}

TEST_CASE("kqueue: a forked child has no kqueue, and the parent's continues") {
  const owned queue(::kqueue());
  const two pair = pair_of();
  CHECK(errno_of(queue, change(pair.first, EVFILT_READ, EV_ADD)) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const timespec at_once{};
    struct kevent event;
    const bool gone = ::kevent(queue, nullptr, 0, &event, 1, &at_once) == -1 && errno == EBADF &&
                      ::fcntl(queue, F_GETFD) < 0;
    ::_exit(gone ? 0 : 1);
  }
  int status = 1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(::write(pair.second, "a", 1) == 1);
  CHECK(events_of(queue, patience).size() == 1);
}

TEST_CASE("kqueue: a loop that ends in a forked child closes no descriptor of the child") {
  auto b = anyio::system_backend();
  const int number = b->native_handle();
  const pid_t child = ::fork();
  if (child == 0) {
    const int mine = ::dup(0);  // the number that the kqueue had
    b.reset();
    ::_exit(mine == number && ::fcntl(mine, F_GETFD) < 0 ? 1 : 0);
  }
  int status = 1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("kqueue backend: a raw descriptor wait and the library's own stream are kept apart") {
  auto b = anyio::system_backend();
  two pair = pair_of();
  using namespace anyio::detail;
  // A wait for a raw descriptor: no stream.
  CHECK(b->watch_once(pair.first, ready_read, 1, false) == 0);
  CHECK(b->watch(pair.first, 2) == -EEXIST);
  CHECK(::write(pair.second, "a", 1) == 1);
  poll_event event{};
  CHECK(b->wait({&event, 1}, std::chrono::seconds(10)) == 1);  // and the wait is unchanged
  CHECK(event.token == 1);
  CHECK(event.ready == ready_read);
  b->forget(pair.first);
  // Its owner closed it without notice, and a stream has the number now.
  CHECK(b->watch_once(pair.first, ready_write, 3, false) == 0);
  const int number = pair.first;
  pair.first.reset();
  const two next = pair_of();
  CHECK((next.first.fd == number || next.second.fd == number));
  CHECK(b->watch(number, 4) == 0);
  CHECK(b->watch_once(number, ready_write, 5, true) == -EEXIST);
  event = {};
  CHECK(b->wait({&event, 1}, std::chrono::seconds(10)) == 1);
  CHECK(event.token == 4);
  // Closing through the backend needs no call before it.
  CHECK(b->watch_once(next.first.fd == number ? next.second : next.first, ready_write, 6, false) == 0);
  b->forget(number);
}

#endif
