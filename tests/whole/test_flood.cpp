// A turn of the loop is bounded in work: however many streams transfer at full speed, and whatever else never
// waits, timers and the poller are checked soon. Counted in calls, bytes and processor time, between one
// `wait` of the backend and the next.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/custom_backend.hpp"
#include "support/emulator.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/toy_streams.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ANYIO_NET_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ANYIO_NET_TEST_SANITIZED 1
#endif
#endif

namespace {

using namespace std::chrono_literals;
using anyio::result;
using anyio::task;
using support::loopback;

double processor_time() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

struct work {
  std::uint64_t calls = 0;       // of the system that move bytes; a datagram of a batch is one
  std::uint64_t bytes = 0;       // that they transferred
  std::uint64_t operations = 0;  // that completed, as the test counts them
  double seconds = 0;            // of the processor
  anyio::duration time{};        // of the loop's clock
};

/// Counts the work between one wait and the next. Its clock stands still except for time that a test adds,
/// unless it is set to run.
class counting_backend : public support::custom_backend, public anyio::detail::posix_files {
 public:
  work done;  // since the last wait
  work most;
  std::uint64_t waits = 0;
  anyio::time_point clock = custom_backend::now();
  bool clock_runs = false;

  anyio::time_point now() override { return clock_runs ? custom_backend::now() : clock; }
  int wait(anyio::detail::slice<anyio::detail::poll_event> events, anyio::duration at_most) override {
    const double before = processor_time();
    if (waits++ != 0) {
      most.calls = std::max(most.calls, done.calls);
      most.bytes = std::max(most.bytes, done.bytes);
      most.operations = std::max(most.operations, done.operations);
      most.seconds = std::max(most.seconds, before - looked_);
      most.time = std::max(most.time, clock - clock_looked_);
    }
    done = {};
    const int n = custom_backend::wait(events, at_most);
    looked_ = processor_time();
    clock_looked_ = clock;
    return n;
  }

  ssize_t send(int fd, const void* data, std::size_t size) override {
    return counted(custom_backend::send(fd, data, size));
  }
  ssize_t receive(int fd, void* data, std::size_t size) override {
    return counted(custom_backend::receive(fd, data, size));
  }
  ssize_t send_message(int fd, const anyio::detail::message& m) override {
    return counted(custom_backend::send_message(fd, m));
  }
  ssize_t receive_message(int fd, anyio::detail::message& m) override {
    return counted(custom_backend::receive_message(fd, m));
  }
  int receive_messages(int fd, anyio::detail::slice<anyio::detail::message> messages,
                       anyio::detail::slice<std::size_t> sizes, bool& emptied) override {
    const int n = custom_backend::receive_messages(fd, messages, sizes, emptied);
    for (int i = 0; i < n; ++i) counted(static_cast<ssize_t>(sizes[static_cast<std::size_t>(i)]));
    return n;
  }
  int send_messages(int fd, anyio::detail::slice<const anyio::detail::message> messages) override {
    const int n = custom_backend::send_messages(fd, messages);
    for (int i = 0; i < n; ++i) {
      ++done.calls;
      for (const ::iovec& part : messages[static_cast<std::size_t>(i)].parts) done.bytes += part.iov_len;
    }
    return n;
  }
  anyio::detail::file_service* files() override { return this; }
  ssize_t read(int fd, void* data, std::size_t size) override {
    return counted(posix_files::read(fd, data, size));
  }
  ssize_t write(int fd, anyio::detail::slice<const ::iovec> parts) override {
    return counted(posix_files::write(fd, parts));
  }
  ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override {
    return counted(posix_files::send_file(socket, file, offset, count));
  }
  std::size_t transfer(std::size_t wanted) override {
    counted(static_cast<ssize_t>(wanted));
    return wanted;
  }

 private:
  ssize_t counted(ssize_t n) {
    ++done.calls;
    if (n > 0) done.bytes += static_cast<std::uint64_t>(n);
    return n;
  }
  double looked_ = 0;
  anyio::time_point clock_looked_{};
};

struct counting_loop {
  counting_backend* system = new counting_backend;
  anyio::loop loop{std::unique_ptr<anyio::backend>(system)};
};

// --- the floods

task<> send_all(anyio::byte_stream& s, std::size_t size, work& w) {
  const std::string block(size, 'f');
  for (;; ++w.operations) co_await s.send(block);
}
task<> receive_all(anyio::byte_stream& s, work& w) {
  for (;; ++w.operations) static_cast<void>(co_await s.receive_view());
}

/// A sender and a receiver over streams that `Maker` makes.
template <class Maker>
struct streams {
  static constexpr bool counts_calls = true;
  Maker maker{};
  std::vector<std::unique_ptr<anyio::byte_stream>> all{};

  void begin(anyio::task_group& g, work& w) {
    auto [a, b] = maker.make();
    g.start_soon(send_all(*a, Maker::piece, w));
    g.start_soon(receive_all(*b, w));
    all.push_back(std::move(a));
    all.push_back(std::move(b));
  }
};

using boxes = std::pair<std::unique_ptr<anyio::byte_stream>, std::unique_ptr<anyio::byte_stream>>;
template <class Stream>
boxes boxed(std::pair<Stream, Stream>&& p) {
  return {std::make_unique<Stream>(std::move(p.first)), std::make_unique<Stream>(std::move(p.second))};
}

struct tcp_pieces {
  static constexpr int most_pairs = 64;
  static constexpr const char* name = "TCP, 64 KiB";
  static constexpr std::size_t piece = 65536;
  static boxes make() {
    anyio::tcp_listener l = anyio::tcp_listener::open(loopback()).value();
    auto op = anyio::connect_tcp(l.local_endpoints().front());
    support::waiting<anyio::tcp_stream> client;
    support::by_callback::start(std::move(op), client);
    anyio::tcp_stream server = support::by_callback::get(l.accept()).value();
    return boxed(std::pair(client.get().value(), std::move(server)));
  }
};
struct unix_pieces {
  static constexpr int most_pairs = 64;
  static constexpr const char* name = "UNIX, 64 KiB";
  static constexpr std::size_t piece = 65536;
  static boxes make() { return boxed(anyio::create_unix_stream_pair().value()); }
};
struct unix_messages : unix_pieces {
  static constexpr const char* name = "UNIX, 64 bytes";
  static constexpr std::size_t piece = 64;
};
struct unix_large : unix_pieces {
  static constexpr int most_pairs = 8;
  static constexpr const char* name = "UNIX, 64 MiB";
  static constexpr std::size_t piece = std::size_t{64} << 20;
};
struct buffered_pieces {
  static constexpr int most_pairs = 64;
  static constexpr const char* name = "buffered, 64 KiB";
  static constexpr std::size_t piece = 65536;
  static boxes make() {
    boxes b = unix_pieces::make();
    return {std::make_unique<anyio::buffered_stream>(std::move(b.first)),
            std::make_unique<anyio::buffered_stream>(std::move(b.second))};
  }
};
struct pipe_pieces {
  static constexpr int most_pairs = 64;
  static constexpr const char* name = "pipe, 64 KiB";
  static constexpr std::size_t piece = 65536;
  static boxes make() {
    int fds[2];
    CHECK(::pipe(fds) == 0);
    return boxed(
        std::pair(anyio::fd_stream::from_fd(fds[1]).value(), anyio::fd_stream::from_fd(fds[0]).value()));
  }
};
struct memory_pieces {
  static constexpr int most_pairs = 64;
  static constexpr const char* name = "memory, 64 KiB";
  static constexpr std::size_t piece = 65536;
  static boxes make() { return boxed(anyio::create_memory_stream_pair()); }
};
struct memory_large {
  static constexpr int most_pairs = 8;
  static constexpr const char* name = "memory, 64 MiB";
  static constexpr std::size_t piece = std::size_t{64} << 20;
  static boxes make() { return boxed(anyio::create_memory_stream_pair(piece)); }
};
struct tls_pieces {
  static constexpr int most_pairs = 8;
  static constexpr const char* name = "TLS, 64 KiB";
  static constexpr std::size_t piece = 65536;
  static boxes make() { return boxed(support::toy_socket_pair()); }
};

/// Datagrams one by one.
struct udp {
  std::vector<std::unique_ptr<anyio::udp_socket>> all{};
  static task<> send(anyio::udp_socket& s, anyio::ip_endpoint to, work& w) {
    const std::string text(64, 'u');
    for (;; ++w.operations) co_await s.send_to(text, to);
  }
  static task<> receive(anyio::udp_socket& s, work& w) {
    char room[64];
    for (;; ++w.operations) static_cast<void>(co_await s.receive(room));
  }
  std::pair<anyio::udp_socket*, anyio::udp_socket*> make() {
    for (int i = 0; i < 2; ++i)
      all.push_back(std::make_unique<anyio::udp_socket>(anyio::udp_socket::open(loopback()).value()));
    return {all[all.size() - 2].get(), all[all.size() - 1].get()};
  }
  void begin(anyio::task_group& g, work& w) {
    const auto [a, b] = make();
    g.start_soon(send(*a, b->local_endpoint(), w));
    g.start_soon(receive(*b, w));
  }
};
/// In batches of a thousand.
struct udp_batches : udp {
  static task<> send(anyio::udp_socket& s, anyio::ip_endpoint to, work& w) {
    anyio::udp_batch out(1000, 64);
    const std::string text(64, 'u');
    while (out.push(text, to)) continue;
    for (;; ++w.operations) co_await s.send_batch(out);
  }
  static task<> receive(anyio::udp_socket& s, work& w) {
    anyio::udp_batch in(1000, 64);
    for (;; ++w.operations) co_await s.receive_batch(in);
  }
  void begin(anyio::task_group& g, work& w) {
    const auto [a, b] = make();
    g.start_soon(send(*a, b->local_endpoint(), w));
    g.start_soon(receive(*b, w));
  }
};

/// Tasks that never wait.
struct tasks {
  static task<> nothing() { co_return; }
  static task<> spin(work& w) {
    for (;; ++w.operations) co_await nothing();
  }
  static void begin(anyio::task_group& g, work& w) { g.start_soon(spin(w)); }
};
/// Rejected at once, again and again.
struct refusals {
  static task<> spin(work& w) {
    anyio::unix_stream closed;
    for (;; ++w.operations) static_cast<void>(co_await anyio::as_result(closed.receive()));
  }
  static void begin(anyio::task_group& g, work& w) { g.start_soon(spin(w)); }
};
struct channels {
  std::vector<std::unique_ptr<anyio::channel<int>>> all{};
  static task<> send(anyio::channel<int>& c, work& w) {
    for (;; ++w.operations) co_await c.send(1);
  }
  static task<> receive(anyio::channel<int>& c, work& w) {
    for (;; ++w.operations) static_cast<void>(co_await c.receive());
  }
  void begin(anyio::task_group& g, work& w) {
    all.push_back(std::make_unique<anyio::channel<int>>(1000));
    g.start_soon(send(*all.back(), w));
    g.start_soon(receive(*all.back(), w));
  }
};
struct events {
  std::vector<std::unique_ptr<anyio::event>> all{};
  static task<> wait(anyio::event& e, work& w) {
    for (;; ++w.operations) co_await e.wait();
  }
  void begin(anyio::task_group& g, work& w) {
    all.push_back(std::make_unique<anyio::event>());
    all.back()->set();
    g.start_soon(wait(*all.back(), w));
  }
};

/// The maximum of work between two waits, while this many of a kind flood.
template <class Kind>
work flood(int count, bool clock_runs = false, std::uint64_t waits = 40) {
  counting_loop l;
  l.system->clock_runs = clock_runs;
  Kind kind;
  anyio::task_group group;
  for (int i = 0; i < count; ++i) kind.begin(group, l.system->done);
  const auto until = [](counting_backend& system, std::uint64_t number) -> task<> {
    while (system.waits < number) co_await anyio::sleep(0ms);
  };
  anyio::run(until(*l.system, l.system->waits + 10));  // only warm runs count
  l.system->most = {};
  anyio::run(until(*l.system, l.system->waits + waits));
  group.cancel();
  support::settle();
  return l.system->most;
}

constexpr std::uint64_t most_calls = 700;
constexpr std::uint64_t most_bytes = std::uint64_t{9} << 20;

TEST_CASE_TEMPLATE("the poller is asked every few hundred calls, however many streams flood", Maker,
                   tcp_pieces, unix_pieces, unix_messages, unix_large, buffered_pieces, pipe_pieces,
                   memory_pieces, memory_large, tls_pieces) {
  for (const int pairs : {1, 8, 32, 64}) {
    if (pairs > Maker::most_pairs) break;
    INFO(std::string(Maker::name));
    CAPTURE(pairs);
    const work most = flood<streams<Maker>>(pairs);
    CHECK(most.calls > 1);
    CHECK(most.calls <= most_calls);
    CHECK(most.bytes <= most_bytes);
    CHECK(most.operations <= most_calls);
  }
}

TEST_CASE_TEMPLATE("the poller is asked every few hundred datagrams", Kind, udp, udp_batches) {
  for (const int pairs : {1, 8, 32, 64}) {
    CAPTURE(pairs);
    const work most = flood<Kind>(pairs);
    CHECK(most.calls > 10);
    // A datagram received by a batch counts half.
    CHECK(most.calls <= 2 * most_calls);
    CHECK(most.operations <= most_calls);
  }
}

TEST_CASE_TEMPLATE("a task that never waits and makes no calls lets the loop ask the poller", Kind, tasks,
                   refusals, channels, events) {
  for (const int count : {1, 32}) {
    CAPTURE(count);
    const work most = flood<Kind>(count);
    CHECK(most.operations > 100);
    CHECK(most.operations <= 20000);
  }
}

/// Posts itself again and again; each call takes this much of the loop's time.
struct poster {
  counting_backend& system;
  anyio::duration takes;
  bool stop = false;
  void go() {
    if (stop) return;
    system.clock += takes;
    ++system.done.operations;
    anyio::loop::current().post([this] { go(); });
  }
};

TEST_CASE("long calls end a turn by the clock, and sooner if a timer is due") {
  counting_loop l;
  poster p{*l.system, 20us};
  // Enough at once, so that a turn is no longer bounded by its rounds.
  for (int i = 0; i < 200; ++i) p.go();
  while (l.system->waits < 20) l.loop.run_once(0ms);
  CHECK(l.system->most.operations <= 1024);
  // 4 ms, but at least half of the counted work.
  CHECK(l.system->most.time > 8ms);
  CHECK(l.system->most.time <= 12ms);

  for (int i = 0; i < 20; ++i) {
    bool rang = false;
    anyio::duration late{};
    const auto due = l.system->clock + 500us;
    anyio::sleep_until(due).start([&](result<>) {
      rang = true;
      late = l.system->clock - due;
    });
    while (!rang) l.loop.run_once(0ms);
    // A millisecond, until it is noticed 64 calls later; then 200 calls are ready before it.
    CHECK(late <= 1ms + 64 * 20us + 200 * 20us + 100us);
  }
  p.stop = true;
  support::settle();
}

TEST_CASE("an interrupted turn continues where it stopped") {
  counting_loop l;
  std::vector<int> order;
  for (int i = 0; i < 3000; ++i) {
    l.loop.post([&order, &l, i] {
      order.push_back(i);
      l.system->clock += 100us;
    });
  }
  int turns = 0;
  for (; order.size() < 3000 && turns < 1000; ++turns) l.loop.run_once(0ms);
  CHECK(turns > 3);
  CHECK(std::is_sorted(order.begin(), order.end()));
  CHECK(order.size() == 3000);
}

TEST_CASE("many timers due at once run in order, and a message that arrives then waits for few of them") {
  counting_loop l;
  auto pair = anyio::create_unix_stream_pair().value();
  std::size_t before = 0;
  constexpr int count = 20000;
  std::vector<anyio::sleep_operation> sleeps;
  std::vector<int> order;
  const auto start = anyio::now();
  sleeps.reserve(count);
  for (int i = 0; i < count; ++i) {
    sleeps.push_back(anyio::sleep_until(start + std::chrono::nanoseconds(i + 1)));
    sleeps.back().start([&l, &order, i](result<>) {
      ++l.system->done.operations;
      order.push_back(i);
    });
  }
  pair.second.receive().start([&](result<std::string> r) {
    CHECK(r.has_value());
    before = order.size();
  });
  support::settle();
  CHECK(order.empty());
  sleeps.front() = anyio::sleep_until(start);
  sleeps.front().start([&](result<>) {
    order.push_back(0);
    CHECK(::send(pair.first.native_handle(), "x", 1, 0) == 1);
  });
  l.system->clock += 1s;
  while (order.size() < count) l.loop.run_once(0ms);
  CHECK(l.system->most.operations <= 1100);
  CHECK(before <= 3000);
  CHECK(std::is_sorted(order.begin(), order.end()));
}

#if !defined(ANYIO_NET_TEST_SANITIZED)
TEST_CASE("the poller is asked every few milliseconds of processor time") {
  if (support::emulated_program() != nullptr) return;
  for (const int pairs : {8, 64}) {
    CAPTURE(pairs);
    // About 1 to 2 ms are used, without optimisation too.
    CHECK(flood<streams<tcp_pieces>>(pairs, true).seconds < 0.02);
    CHECK(flood<udp>(pairs, true).seconds < 0.02);
    CHECK(flood<udp_batches>(pairs, true).seconds < 0.02);
    CHECK(flood<tasks>(pairs, true).seconds < 0.02);
  }
}
#endif

}  // namespace
