// Every allocation of a program fails once, for features that the programs of test_fault_sweep.cpp and the
// conformance suite do not use: groups, combinators, channels, names, batches, lent buffers, callbacks, and
// the creation of loops and helper threads. Also exceptions of users' functions while a socket is opened.
#include "anyio_net.hpp"

#include "support/allocation_sweep.hpp"

#include <doctest/doctest.h>

#if ANYIO_NET_EXCEPTIONS && ANYIO_NET_TEST_TSAN == 0

#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using anyio::as_result;
using anyio::ip_address;
using anyio::ip_endpoint;
using anyio::task;
using anyio::tcp_listener;
using anyio::tcp_stream;
using anyio::unix_stream;
using support::failing_run;

using program = task<> (*)();

void sweep(const char* what, program p, std::size_t least) {
  CHECK(support::sweep_program(what, {}, p) >= least);
  CHECK(support::sweep_program(what, {.faults = {.short_io = 0.5, .would_block = 0.3}}, p) >= least);
}

const std::string long_text(100, 'x');  // too long for the string object itself

// --- children

task<int> gives_after(int value, anyio::duration time) {
  co_await anyio::sleep(time);
  co_return value;
}

task<> runs_children() {
  anyio::task_group outer;
  int ended = 0;
  outer.start_soon(gives_after(1, 1ms));
  outer.start_soon(anyio::sleep(2ms));
  outer.start_soon([&ended] { ++ended; });
  outer.start_soon(
      [&ended](std::string text) -> task<> {
        anyio::task_group inner;
        inner.start_soon(gives_after(2, 1ms));
        inner.start_soon(gives_after(3, 1h));
        inner.start_soon([&inner]() -> task<> {
          co_await anyio::sleep(3ms);
          inner.cancel();
        });
        co_await inner.join();
        ended += static_cast<int>(text.size());
      },
      long_text);
  co_await outer.join();
}

TEST_CASE("allocations: children of groups") { sweep("groups", runs_children, 14); }

// --- combinators

task<> combines() {
  co_await anyio::fail_after(1s, gives_after(1, 1ms));
  static_cast<void>(co_await anyio::move_on_after(1ms, gives_after(1, 1s)));
  static_cast<void>(co_await as_result(anyio::fail_after(1ms, anyio::when_all(anyio::sleep(1s)))));
  co_await anyio::when_all(gives_after(1, 1ms), anyio::sleep(1ms), []() -> task<> { co_return; });
  static_cast<void>(co_await anyio::when_any(gives_after(1, 1s), anyio::sleep(1ms), gives_after(2, 2ms)));
  std::vector<task<int>> tasks;
  for (int i = 0; i < 5; ++i) tasks.push_back(gives_after(i, 1ms));
  static_cast<void>(co_await anyio::when_all(std::move(tasks)));
}

TEST_CASE("allocations: combinators") { sweep("combinators", combines, 14); }

// --- between tasks

task<> send_all(anyio::channel<std::string>& to, int count) {
  for (int i = 0; i < count; ++i) co_await to.send(long_text + std::to_string(i));
  to.close();
}

task<> receive_all(anyio::channel<std::string>& from, int count) {
  for (int i = 0; i < count; ++i) {
    const std::string got = co_await from.receive();
    if (!got.ends_with(std::to_string(i))) co_await anyio::raise(anyio::errc::incomplete_read);
  }
}

task<> hold(anyio::semaphore& s, anyio::event& when) {
  const anyio::permit p = co_await s.acquire();
  co_await when.wait();
}

task<> set_later(anyio::event& e) {
  co_await anyio::sleep(1ms);
  e.set();
}

task<> passes_values() {
  for (const std::size_t capacity : {0, 1, 200}) {
    anyio::channel<std::string> values(capacity);
    const int count = capacity == 200 ? 100 : 3;  // more than there is room for at first
    if (capacity == 200) {
      co_await send_all(values, count);
      co_await receive_all(values, count);
    } else {
      co_await anyio::when_all(send_all(values, count), receive_all(values, count));
    }
  }
  anyio::semaphore one(1);
  anyio::event go;
  co_await anyio::when_all(hold(one, go), hold(one, go), set_later(go));
}

TEST_CASE("allocations: channels, semaphores and events") { sweep("channels", passes_values, 50); }

// --- names

class length_of {
 public:
  explicit length_of(std::string text) : text_(std::move(text)) {}
  std::size_t operator()() const { return text_.size(); }

 private:
  std::string text_;
};

task<> accept_one(tcp_listener& from) { static_cast<void>(co_await from.accept()); }

task<> connect_by_name(std::uint16_t port) {
  static_cast<void>(co_await anyio::connect_tcp("server.example", port, {.local_host = "here.example"}));
}

task<> looks_up_names() {
  const ip_address server[] = {ip_address::parse("2001:db8::1").value(),
                               ip_address::parse("192.0.2.1").value()};
  const ip_address here[] = {ip_address::parse("192.0.2.7").value()};
  anyio::sim::set_name("server.example", server);
  anyio::sim::set_name("here.example", here);
  static_cast<void>(co_await anyio::getaddrinfo("server.example", 80));
  static_cast<void>(co_await anyio::getaddrinfo("localhost", 80));
  static_cast<void>(co_await as_result(anyio::getaddrinfo("nowhere.example", 80)));
  static_cast<void>(co_await anyio::getnameinfo({here[0], 80}));
  auto listener = co_await anyio::create_tcp_listener({.local_host = "server.example", .local_port = 80});
  co_await anyio::when_all(accept_one(listener), connect_by_name(80));
  auto udp = co_await anyio::create_udp_socket({.family = AF_INET, .local_host = "here.example"});
  auto peer = co_await anyio::create_connected_udp_socket("here.example", udp.local_endpoint().port,
                                                          {.local_host = "here.example"});
  co_await peer.send("x");
  static_cast<void>(co_await udp.receive());
  co_await udp.send_to("y", "here.example", peer.local_endpoint().port);
  static_cast<void>(co_await peer.receive());
#if !defined(ANYIO_NET_NO_THREADS)
  static_cast<void>(co_await anyio::to_thread::run_sync(length_of(long_text)));
#endif
}

TEST_CASE("allocations: name look-ups, and calls on threads") { sweep("names", looks_up_names, 30); }

// --- lent buffers and batches

task<> send_views(unix_stream& from, unix_stream& to) {
  for (int i = 0; i < 3; ++i) co_await to.send(co_await from.receive_view());
}

task<> fill_and_read(unix_stream& first, unix_stream& last) {
  const std::string much(60000, 'm');
  co_await first.send(much);
  first.close();
  while (const auto r = co_await as_result(last.receive())) static_cast<void>(r);
}

task<> lends() {
  auto [a, b] = anyio::create_unix_stream_pair().value();
  auto [c, d] = anyio::create_unix_stream_pair().value();
  co_await c.set_option(SOL_SOCKET, SO_RCVBUF, 2048);
  co_await d.set_option(SOL_SOCKET, SO_RCVBUF, 2048);
  static_cast<void>(
      co_await anyio::move_on_after(1s, anyio::when_all(send_views(b, c), fill_and_read(a, d))));
  std::string given = long_text;
  static_cast<void>(co_await as_result(d.send(std::move(given))));
}

task<> send_in_two(unix_stream& to) {
  co_await to.send(std::string(3000, 'a'));
  co_await anyio::sleep(10ms);
  co_await to.send(std::string(3000, 'b'));
}

/// Cancels a read after a part has arrived, which is put back into the stream. All bytes received have no
/// gap.
task<> receive_or_give_up(unix_stream& from, std::string& got) {
  anyio::buffered_stream b(from);
  std::string room(6000, ' ');
  static_cast<void>(co_await anyio::move_on_after(5ms, b.receive_exactly(anyio::mutable_buffer(room))));
  while (got.size() < 6000) got += co_await b.receive();
}

task<> gives_back() {
  auto [a, b] = anyio::create_unix_stream_pair().value();
  std::string got;
  const auto r = co_await as_result(anyio::when_all(send_in_two(a), receive_or_give_up(b, got)));
  const std::size_t behind = got.find('b');
  CHECK((behind == std::string::npos || behind == 3000));
  if (!r) co_await anyio::raise(r.error());
}

TEST_CASE("allocations: bytes put back into a stream") { sweep("buffered", gives_back, 8); }

TEST_CASE("if a string cannot be allocated, the stream is closed without a gap in its bytes") {
  bool thrown = false;
  anyio::errc next = anyio::errc::ok;
  std::thread([&] {
    anyio::loop loop;
    auto pair = anyio::create_unix_stream_pair().value();
    anyio::run(pair.first.send("x"));
    static_cast<void>(anyio::run(pair.second.receive()));  // so that the loop has its buffer
    anyio::run(pair.first.send(std::string(1000, 'a')));
    anyio::receive_string_operation op = pair.second.receive(500);
    op.start([](anyio::result<std::string>) {});
    {
      const support::fail_nth_allocation failure(1);
      try {
        loop.run();
      } catch (const std::bad_alloc&) {
        thrown = true;
      }
    }
    next = anyio::run(as_result(pair.second.receive())).error().code();
  }).join();
  CHECK(thrown);
  CHECK(next == anyio::errc::closed_resource);
}

TEST_CASE("allocations: data kept by a send") { sweep("loans", lends, 10); }

task<> sends_batches() {
  auto a = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  auto b = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  anyio::udp_batch out(4), in(4);
  for (int i = 0; i < 3; ++i) static_cast<void>(out.push("text", b.local_endpoint()));
  static_cast<void>(co_await a.send_batch(out));
  static_cast<void>(co_await b.receive_batch(in));
  static_cast<void>(co_await anyio::move_on_after(1ms, b.receive()));
}

TEST_CASE("allocations: batches") { sweep("batches", sends_batches, 6); }

// --- the callback face

/// Started temporaries with large callables, named operations and posted calls, all at once.
struct callbacks {
  explicit callbacks(anyio::loop& l) : loop(l) {}
  anyio::loop& loop;
  std::optional<tcp_listener> listener;
  std::optional<tcp_stream> client, server;
  anyio::receive_string_operation receiving;
  int left_over = 4;

  void begin() {
    listener = tcp_listener::open({ip_address::loopback_v4(), 0}).value();
    listener->accept().start([this, text = long_text](anyio::result<tcp_stream> r) {
      server = std::move(r).value();
      receiving = server->receive();
      receiving.start([this](anyio::result<std::string> got) {
        static_cast<void>(std::move(got).value());
        --left_over;
      });
    });
    anyio::connect_tcp(listener->local_endpoints().front()).start([this, text = long_text](auto r) {
      client = std::move(r).value();
      client->send(long_text + "!").start([this, text](anyio::result<> sent) {
        std::move(sent).value();
        --left_over;
      });
    });
    loop.post([this, text = long_text] { --left_over; });
    as_result(anyio::fail_after(1ms, anyio::sleep(1h))).start([this, text = long_text](anyio::result<>) {
      --left_over;
    });
  }
};

TEST_CASE("allocations: callbacks") {
  const std::size_t runs = support::sweep_allocations(
      "callbacks", {}, [](std::unique_ptr<anyio::backend> system, failing_run& run) {
        anyio::loop loop(std::move(system));
        std::optional<callbacks> all;
        run.attempt([&] {
          all.emplace(loop);
          all->begin();
          while (all->left_over != 0 && !run.is_over()) loop.run_once(anyio::duration::max());
        });
        run.try_out_loop();
      });
  CHECK(runs >= 15);
}

TEST_CASE("allocations: a failed start leaves the operation idle") {
  // The wait for a descriptor allocates when it begins.
  anyio::loop loop;
  auto pair = anyio::create_unix_stream_pair().value();
  const anyio::unique_fd fd(pair.first.release());
  bool thrown = false, ready = false;
  std::thread([&] {
    anyio::loop here;
    anyio::wait_operation op = anyio::wait_readable(fd.get());
    {
      const support::fail_nth_allocation failure(1);
      try {
        op.start([&ready](anyio::result<> r) { ready = r.has_value(); });
      } catch (const std::bad_alloc&) {
        thrown = true;
      }
    }
    here.run();  // nothing is pending
    op.start([&ready](anyio::result<> r) { ready = r.has_value(); });
    pair.second.close();
    here.run();
  }).join();
  CHECK(thrown);
  CHECK(ready);
}

// --- servers

struct told {
  int* count;
  void operator()(const anyio::error&) const { ++*count; }
  void operator()(const std::exception_ptr&) const { ++*count; }
};

task<> connect_and_end(ip_endpoint to) {
  tcp_stream s = co_await anyio::connect_tcp(to);
  static_cast<void>(co_await as_result(s.send("x")));
  s.close();
}

/// Whatever fails, the server continues: its third client is served.
TEST_CASE("allocations: a failure in one connection does not end the server") {
  const std::size_t runs = support::sweep_allocations(
      "a server", {}, [](std::unique_ptr<anyio::backend> system, failing_run& run) {
        anyio::loop loop(std::move(system));
        auto listener = tcp_listener::open({ip_address::loopback_v4(), 0}).value();
        const ip_endpoint at = listener.local_endpoints().front();
        int errors = 0, served = 0;
        auto serving = listener.serve(
            [&served](tcp_stream s) -> task<> {
              static_cast<void>(co_await s.receive());
              ++served;
            },
            told{&errors});
        bool over = false;
        serving.start([&over](anyio::result<>) { over = true; });
        run.attempt([&] { run.run_to_end(connect_and_end(at)); });
        const int before = served;
        run.run_to_end(connect_and_end(at));
        while (served < before + 1 && !run.is_over()) loop.run_once(anyio::duration::max());
        run.verdict.stuck = served < before + 1;
        listener.close();
        while (!over && !run.is_over()) loop.run_once(anyio::duration::max());
        run.try_out_loop();
      });
  CHECK(runs >= 1);
}

// --- exceptions of users

int throws(int, void*) { throw std::runtime_error("no"); }

task<> is_refused(bool& caught, auto op) {
  try {
    static_cast<void>(co_await std::move(op));
  } catch (const std::runtime_error&) {
    caught = true;
  }
}

TEST_CASE("an exception of prepare is raised, and the descriptor is closed") {
  int caught = 0;
  const auto r = anyio::sim::run({}, [&caught]() -> task<> {
    const ip_endpoint e{ip_address::loopback_v4(), 9};
    const ip_address two[] = {ip_address::parse("192.0.2.1").value(), ip_address::parse("192.0.2.2").value()};
    anyio::sim::set_name("two.example", two);
    bool all[5] = {};
    co_await is_refused(all[0], anyio::create_tcp_listener({.prepare = throws}));
    co_await is_refused(all[1], anyio::create_connected_udp_socket(e, {.prepare = throws}));
    co_await is_refused(all[2], anyio::connect_tcp(e, {.prepare = throws}));
    co_await is_refused(all[3], anyio::connect_tcp("two.example", 9, {.prepare = throws}));
    co_await is_refused(all[4], anyio::fail_after(1s, anyio::connect_tcp(e, {.prepare = throws})));
    for (const bool one : all) caught += one;
  });
  CHECK(r.ok());
  CHECK(caught == 5);
}

TEST_CASE("an exception of prepare leaves the loop that runs a callback") {
  anyio::loop loop;
  anyio::connect_tcp(ip_endpoint{ip_address::loopback_v4(), 9}, {.prepare = throws})
      .start([](anyio::result<tcp_stream>) { CHECK(false); });
  CHECK_THROWS_AS(loop.run(), std::runtime_error);
  loop.run();
}

// --- the real loop

TEST_CASE("allocations: creating a loop and its first descriptors") {
  for (std::size_t n = 1;; ++n) {
    const std::int64_t before = support::live_allocations();
    bool reached = false;
    std::thread([&] {
      const support::fail_nth_allocation failure(n);
      try {
        anyio::loop loop;
        auto listener = anyio::run(anyio::create_tcp_listener({.local_host = "127.0.0.1"}));
        auto pair = anyio::create_unix_stream_pair().value();
        auto udp = anyio::udp_socket::open({ip_address::loopback_v4(), 0}).value();
        auto signals = anyio::signal_receiver::open(SIGUSR2).value();
        auto client = anyio::run(anyio::connect_tcp(listener.local_endpoints().front()));
        const int number = pair.second.release();
        const anyio::unique_fd fd(number);
        anyio::run(anyio::wait_writable(fd.get()));
      } catch (const std::bad_alloc&) {
      }
      reached = failure.reached();
    }).join();
    CHECK(support::live_allocations() == before);
    if (!reached) {
      CHECK(n > 10);
      break;
    }
  }
}

#if !defined(ANYIO_NET_NO_THREADS)
TEST_CASE("allocations: calls on helper threads") {
  for (std::size_t n = 1;; ++n) {
    bool reached = false, right = false;
    std::thread([&] {
      anyio::loop loop;
      {
        const support::fail_nth_allocation failure(n);
        try {
          anyio::run(anyio::to_thread::run_sync([text = long_text] { return text.size(); }));
        } catch (const std::bad_alloc&) {
        }
        reached = failure.reached();
      }
      right = anyio::run(anyio::to_thread::run_sync([] { return 7; })) == 7;
    }).join();
    CHECK(right);
    if (!reached) break;
  }
}
#endif

TEST_CASE("allocations: a failed reserve keeps nothing") {
  for (std::size_t n = 1;; ++n) {
    const std::int64_t before = support::live_allocations();
    bool reached = false;
    std::int64_t kept = 0;
    std::thread([&] {
      anyio::loop loop;
      anyio::run(anyio::sleep(0ms));
      const std::int64_t made = support::live_allocations();
      const support::fail_nth_allocation failure(n);
      try {
        loop.reserve(3, 4);
      } catch (const std::bad_alloc&) {
        kept = support::live_allocations() - made;
      }
      reached = failure.reached();
    }).join();
    CHECK(kept == 0);
    CHECK(support::live_allocations() == before);
    if (!reached) {
      CHECK(n > 10);
      break;
    }
  }
}

#if !defined(__SANITIZE_ADDRESS__)  // which ends the program for such a size
#define ANYIO_NET_TEST_ABSURD_SIZES 1
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#undef ANYIO_NET_TEST_ABSURD_SIZES
#endif
#endif
#endif
#if defined(ANYIO_NET_TEST_ABSURD_SIZES)
TEST_CASE("reserve: a huge number throws bad_alloc at once, and keeps nothing") {
  constexpr std::size_t absurd[] = {static_cast<std::size_t>(-1), static_cast<std::size_t>(-1) / 2,
                                    static_cast<std::size_t>(-1) / 512};
  anyio::loop loop;
  for (const std::size_t number : absurd) {
    const std::int64_t before = support::live_allocations();
    CHECK_THROWS_AS(loop.reserve(number, 0), std::bad_alloc);
    CHECK_THROWS_AS(loop.reserve(0, number), std::bad_alloc);
    CHECK_THROWS_AS(loop.reserve(10, number), std::bad_alloc);
    CHECK(support::live_allocations() == before);
  }
}
#endif

}  // namespace

#endif
