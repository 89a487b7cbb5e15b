// Running a program in a simulation: its options, its report, and the rules inside.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/dies.hpp"
#include "support/effort.hpp"

#if defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#endif

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::ip_address;
using anyio::ip_endpoint;
using anyio::task;
namespace sim = anyio::sim;

ip_address address(const char* text) { return ip_address::parse(text).value(); }

sim::options with_seed(std::uint64_t seed) {
  sim::options o;
  o.seed = seed;
  return o;
}

sim::faults all_faults() {
  sim::faults f;
  f.short_io = f.would_block = f.interrupted = 0.2;
  f.reset = 0.02;
  f.drop = f.duplicate = f.reorder = 0.2;
  f.accept_exhausted = f.name_failure = 0.1;
  f.latency_max = 20ms;
  return f;
}

// --- what is run

task<> nothing() { co_return; }

task<int> seven() {
  co_await anyio::sleep(7s);
  co_return 7;
}

task<> fails() {
  co_await anyio::sleep(1s);
  co_await anyio::raise(anyio::error(errc::invalid_argument, 0, "program"));
}

task<> echo_all(anyio::tcp_stream s) {
  for (;;) {
    const auto got = co_await anyio::as_result(s.receive_view());
    if (!got) break;
    const auto sent = co_await anyio::as_result(s.send(*got));
    if (!sent) break;
  }
}

/// Uses a little of everything, and survives every fault.
task<> much_of_everything() {
  const auto listener = co_await anyio::as_result(anyio::create_tcp_listener());
  if (!listener) co_return;
  auto& l = const_cast<anyio::tcp_listener&>(*listener);
  anyio::task_group group;
  group.start_soon(l.serve(echo_all, [](const anyio::error&) {}));
  const std::array<ip_address, 2> addresses{address("10.1.1.1"), address("2001:db8::1")};
  sim::set_name("host.example", addresses);
  for (int i = 0; i < 3; ++i) {
    auto attempt = anyio::connect_tcp("host.example", l.local_port());
    auto c = co_await anyio::as_result(anyio::fail_after(10s, std::move(attempt)));
    if (!c) continue;
    const std::string text = sim::draw_bytes(300);
    const auto sent = co_await anyio::as_result(c->send(text));
    std::string back;
    while (sent && back.size() < text.size()) {
      const auto got = co_await anyio::as_result(anyio::fail_after(60s, c->receive()));
      if (!got) break;
      back += *got;
    }
    CHECK(text.starts_with(back));
  }
  auto u = co_await anyio::as_result(anyio::create_udp_socket({.local_host = "127.0.0.1"}));
  if (u) {
    for (int i = 0; i < 5; ++i) {
      const auto sent = co_await anyio::as_result(u->send_to("hi", u->local_endpoint()));
      CHECK((sent || sent.error() == errc::os_error));
      const auto got = co_await anyio::as_result(anyio::fail_after(100ms, u->receive()));
      CHECK((!got || got->data == "hi"));
    }
  }
  if (auto pair = anyio::create_unix_stream_pair()) {
    const int fds[] = {pair->first.native_handle()};
    const auto sent = co_await anyio::as_result(pair->first.send_fds("x", fds));
    const auto got = co_await anyio::as_result(anyio::fail_after(1s, pair->second.receive_fds(10, 2)));
    CHECK((!got || !sent || got->fds.size() == 1));
  }
  const int drawn = co_await anyio::to_thread::run_sync([] { return 3; });
  CHECK(drawn == 3);
  l.close();
  static_cast<void>(co_await anyio::as_result(group.join()));
}

task<> waits_for_nobody() {
  auto listener = co_await anyio::create_tcp_listener({.local_host = "10.9.8.7", .local_port = 4711});
  auto s = co_await listener.accept();
}

// --- what can be run

TEST_CASE("sim: operations, tasks and callables run, and sleeping an hour takes no time") {
  const sim::report by_operation = sim::run({}, anyio::sleep(1h));
  CHECK(by_operation.ok());
  CHECK(by_operation.virtual_time == 1h);
  CHECK(by_operation.dump.empty());

  const sim::report by_task = sim::run({}, seven());
  CHECK(by_task.ok());
  CHECK(by_task.virtual_time == 7s);

  const sim::report by_function = sim::run({}, seven);
  CHECK(by_function.ok());
  CHECK(by_function.virtual_time == 7s);

  int seen = 0;
  const sim::report by_lambda = sim::run({}, [&]() -> task<> { seen = co_await seven(); });
  CHECK(by_lambda.ok());
  CHECK(seen == 7);

  auto named = nothing();
  CHECK(sim::run({}, named).ok());
}

TEST_CASE("sim: an error that ends the program becomes the report's failure") {
  const sim::report r = sim::run({}, fails);
  CHECK(!r.ok());
  CHECK(r.failure.has_value());
  CHECK(r.failure->code() == errc::invalid_argument);
  CHECK(r.failure->operation() == "program");
  CHECK(!r.deadlock);
  CHECK(r.leaked_handles == 0);
  const sim::report of_result = sim::run({}, anyio::as_result(fails()));
  CHECK((of_result.failure && of_result.failure->code() == errc::invalid_argument));
}

#if ANYIO_NET_EXCEPTIONS
TEST_CASE("sim: foreign exceptions are reported, from a task and from a callback") {
  const auto what = [](const sim::report& r) -> std::string {
    if (!r.exception) return "none";
    try {
      std::rethrow_exception(r.exception);
    } catch (const std::runtime_error& e) {
      return e.what();
    }
  };
  const sim::report from_task = sim::run({}, []() -> task<> {
    co_await anyio::sleep(1s);
    throw std::runtime_error("of a task");
  });
  CHECK(what(from_task) == "of a task");
  CHECK(!from_task.ok());
  CHECK(!from_task.failure);

  const sim::report from_callback = sim::run({}, []() -> task<> {
    anyio::sleep(1s).start([](anyio::result<void>) { throw std::runtime_error("of a callback"); });
    auto listener = co_await anyio::create_tcp_listener();
    auto nobody = co_await listener.accept();
  });
  CHECK(what(from_callback) == "of a callback");
  CHECK(!from_callback.ok());
  CHECK(!from_callback.deadlock);
  CHECK(from_callback.leaked_handles == 0);
  CHECK(from_callback.dump.find("accept") != std::string::npos);

  // Neither affects the next run.
  CHECK(sim::run({}, seven).ok());
}
#endif

// --- limits

TEST_CASE("sim: the report of a deadlock names the socket and the operation") {
  const sim::report r = sim::run({}, waits_for_nobody);
  CHECK(r.deadlock);
  CHECK(!r.ok());
  CHECK((r.failure && r.failure->code() == errc::deadlock));
  CHECK(r.leaked_handles == 0);
  CHECK(r.dump.find("tcp listening 10.9.8.7:4711") != std::string::npos);
  CHECK(r.dump.find(": accept") != std::string::npos);
  CHECK(r.message().find("nothing can wake any task") != std::string::npos);

  // Also operations without a socket.
  const sim::report of_event = sim::run({}, []() -> task<> {
    anyio::event never;
    co_await never.wait();
  });
  CHECK(of_event.deadlock);
  CHECK(!of_event.dump.empty());
}

TEST_CASE("sim: virtual time and steps have limits") {
  sim::options o;
  CHECK(o.time_limit == 24h);
  CHECK(o.step_limit == 10'000'000);
  const sim::report long_sleep = sim::run(o, anyio::sleep(25h));
  CHECK((long_sleep.failure && long_sleep.failure->code() == errc::timed_out));
  CHECK(!long_sleep.deadlock);
  CHECK(long_sleep.virtual_time == 24h);
  o.time_limit = 10s;
  CHECK(sim::run(o, anyio::sleep(10s)).ok());
  CHECK(!sim::run(o, anyio::sleep(11s)).ok());

  o.step_limit = 1000;
  const sim::report spinning = sim::run(o, []() -> task<> {
    for (;;) co_await anyio::sleep(0s);
  });
  CHECK((spinning.failure && spinning.failure->code() == errc::timed_out));
  CHECK(!spinning.deadlock);
  CHECK(spinning.virtual_time == 0s);
  CHECK(!spinning.dump.empty());
}

task<> spins() {
  for (;;) co_await anyio::sleep(0s);
}

task<> asks_in_vain() {
  for (;;) static_cast<void>(co_await anyio::as_result(anyio::connect_tcp("127.0.0.1", 9)));
}

TEST_CASE("sim: a spinning program is detected long before the step limit") {
  for (const auto program : {spins, asks_in_vain}) {
    // Under sanitizers only what makes a call each time; and the log's lines take most of its time.
    if (support::one_in() != 1 && program == spins) continue;
    std::size_t calls = 0;
    static std::size_t* counted = nullptr;
    counted = &calls;
    sim::options o;
    if (support::takes_its_time() || program == spins) o.log = [](std::string_view) { ++*counted; };
    const sim::report r = sim::run(o, program);
    CHECK((r.failure && r.failure->code() == errc::timed_out));
    CHECK(r.message().find("spins") != std::string::npos);
    CHECK(!r.dump.empty());
    CHECK(calls <= 100'100);
  }
}

task<> works_at_one_instant() {
  auto pair = anyio::create_unix_stream_pair().value();
  const int rounds = support::some_of(60'000);
  for (int i = 0; i < rounds; ++i) {  // calls without effect are between those that move bytes
    co_await pair.first.send("x");
    static_cast<void>(co_await pair.second.receive());
    co_await anyio::sleep(0s);
  }
}

task<> waits_often() {
  const int rounds = support::some_of(60'000);
  for (int i = 0; i < rounds; ++i) {
    co_await anyio::sleep(0s);
    co_await anyio::sleep(1ns);
  }
}

TEST_CASE("sim: much work is not spinning, and waiting is not either") {
  const sim::report work = sim::run({}, works_at_one_instant);
  CHECK(work.ok());
  CHECK(work.virtual_time == 0s);
  CHECK(sim::run({}, waits_often).ok());
}

TEST_CASE("sim: stop() in the program does not end the run") {
  const sim::report r = sim::run({}, []() -> task<> {
    anyio::loop::current().stop();
    co_await anyio::sleep(5s);
  });
  CHECK(r.ok());  // stop() ends a turn, not the run
  CHECK(r.virtual_time == 5s);
}

std::vector<std::string> lines;

TEST_CASE("sim: the log has a line for each call") {
  lines.clear();
  sim::options o;
  o.log = [](std::string_view line) { lines.emplace_back(line); };
  CHECK(sim::run(o, waits_for_nobody).deadlock);
  const auto has = [](std::string_view text) {
    for (const std::string& line : lines)
      if (line.find(text) != std::string::npos) return true;
    return false;
  };
  CHECK(has("socket = 1073741824"));
  CHECK(has("bind fd 1073741824 = 0"));
  CHECK(has("accept fd 1073741824 = -"));
  CHECK(has("EAGAIN"));
  CHECK(has("close fd 1073741824 = 0"));
}

// --- descriptors

TEST_CASE("sim: a descriptor that was released and not closed is reported as a leak") {
  const sim::report r = sim::run({}, []() -> task<> {
    auto pair = anyio::create_unix_stream_pair().value();
    CHECK(pair.first.release() >= 1 << 30);
    co_return;
  });
  CHECK(r.leaked_handles == 1);
  CHECK(!r.ok());
  CHECK(!r.failure);
  CHECK(r.dump.find("unix connected") != std::string::npos);
  CHECK(r.message().find("1 descriptors leaked") != std::string::npos);
}

TEST_CASE("sim: unique_fd closes simulated descriptors") {
  const sim::report r = sim::run({}, []() -> task<> {
    auto pair = anyio::create_unix_stream_pair().value();
    {
      const anyio::unique_fd owner(pair.first.release());
      CHECK(owner);
    }
    const auto got = co_await anyio::as_result(pair.second.receive());
    CHECK(got.error() == errc::end_of_stream);
  });
  CHECK(r.ok());
  // A stream that outlives its run is harmless, and is reported.
  anyio::unique_fd late;
  const sim::report leaking = sim::run({}, [&]() -> task<> {
    auto pair = anyio::create_unix_stream_pair().value();
    late = anyio::unique_fd(pair.first.release());
    co_return;
  });
  CHECK(leaking.leaked_handles == 1);
  late = {};
}

TEST_CASE("sim: streams may outlive the run, and are then closed") {
  anyio::unix_stream kept;
  CHECK(sim::run({}, [&]() -> task<> {
          kept = std::move(anyio::create_unix_stream_pair().value().first);
          co_return;
        }).ok());
  CHECK(!kept);
}

TEST_CASE("sim: real descriptors are not supported") {
  int real[2];
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM, 0, real) == 0);
  int pipes[2];
  CHECK(::pipe(pipes) == 0);
  const int file = ::open("/proc/self/exe", O_RDONLY);
  const int socket = real[0];
  const int pipe = pipes[0];
  const sim::report r = sim::run({}, [&]() -> task<> {
    for (const int fd : {socket, pipe, file}) {
      CHECK(anyio::tcp_stream::from_fd(fd).error() == errc::not_supported);
      CHECK(anyio::unix_stream::from_fd(fd).error() == errc::not_supported);
      CHECK(anyio::fd_stream::from_fd(fd).error() == errc::not_supported);
      CHECK(anyio::tcp_listener::from_fd(fd).error() == errc::not_supported);
      CHECK(anyio::unix_listener::from_fd(fd).error() == errc::not_supported);
      CHECK(anyio::udp_socket::from_fd(fd).error() == errc::not_supported);
      CHECK(anyio::connected_udp_socket::from_fd(fd).error() == errc::not_supported);
      CHECK(anyio::unix_datagram_socket::from_fd(fd).error() == errc::not_supported);
      CHECK(anyio::connected_unix_datagram_socket::from_fd(fd).error() == errc::not_supported);
      auto readable = co_await anyio::as_result(anyio::wait_readable(fd));
      CHECK(readable.error() == errc::not_supported);
      auto writable = co_await anyio::as_result(anyio::wait_writable(fd));
      CHECK(writable.error() == errc::not_supported);
      anyio::notify_closing(fd);
      auto pair = anyio::create_unix_stream_pair().value();
      const int fds[] = {pair.second.native_handle(), fd};
      auto sent = co_await anyio::as_result(pair.first.send_fds("x", fds));
      CHECK(sent.error() == errc::not_supported);
      auto from_file = co_await anyio::as_result(pair.first.send_file(fd, 0, 10));
      CHECK(from_file.error() == errc::not_supported);
      // The stream is unchanged.
      co_await pair.first.send("still good");
      CHECK(co_await pair.second.receive() == "still good");
    }
    CHECK(anyio::tcp_stream::from_fd(1 << 30).error() == errc::invalid_argument);  // a free number
    CHECK(anyio::tcp_stream::from_fd(-1).error() == errc::invalid_argument);
  });
  CHECK(r.ok());
  for (const int fd : {real[0], real[1], pipes[0], pipes[1], file}) CHECK(::close(fd) == 0);
}

TEST_CASE("sim: simulated descriptors can be passed") {
  CHECK(sim::run({}, []() -> task<> {
          auto pair = anyio::create_unix_stream_pair().value();
          const int fd = pair.first.release();
          CHECK(anyio::tcp_stream::from_fd(fd).error() == errc::invalid_argument);
          co_await anyio::wait_writable(fd);
          CHECK(!co_await anyio::move_on_after(1s, anyio::wait_readable(fd)));
          auto again = anyio::unix_stream::from_fd(fd).value();
          co_await again.send("x");
          CHECK(co_await pair.second.receive() == "x");
        }).ok());
}

// --- random choices

TEST_CASE("sim: the same seed repeats the same run, with all faults") {
  std::set<std::uint64_t> hashes;
  const std::uint64_t seeds = support::one_in() == 1 ? 60 : 15;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    sim::options o = with_seed(seed);
    o.faults = all_faults();
    const sim::report one = sim::run(o, much_of_everything);
    const sim::report two = sim::run(o, much_of_everything);
    CAPTURE(seed);
    CAPTURE(one.message());
    CAPTURE(one.dump);
    CHECK(one.ok());
    CHECK(one.trace_hash == two.trace_hash);
    CHECK(one.choices == two.choices);
    CHECK(one.virtual_time == two.virtual_time);
    hashes.insert(one.trace_hash);

    sim::options replay;  // of another seed
    replay.seed = seed + 1;
    replay.faults = o.faults;
    replay.choices = one.choices;
    const sim::report again = sim::run(replay, much_of_everything);
    CHECK(again.trace_hash == one.trace_hash);
    CHECK(again.choices == one.choices);

    const std::string message = one.message();
    const std::vector<std::uint8_t> parsed =
        sim::parse_choices(std::string_view(message).substr(message.rfind(' ') + 1));
    replay.choices = parsed;
    CHECK(sim::run(replay, much_of_everything).trace_hash == one.trace_hash);
  }
  CHECK(hashes.size() + 10 > seeds);  // few runs end before the first draw
}

TEST_CASE("sim: exhausted choices are harmless, and empty choices are not a seed") {
  static constexpr std::uint8_t bytes[] = {0};
  sim::options o = with_seed(99);
  o.faults = all_faults();
  o.choices = std::span<const std::uint8_t>(bytes, 0);
  const sim::report none = sim::run(o, much_of_everything);
  o.seed = 7;
  o.choices = std::span<const std::uint8_t>(bytes, 1);
  const sim::report zero = sim::run(o, much_of_everything);
  CHECK(none.ok());
  CHECK(none.trace_hash == zero.trace_hash);
  for (const std::uint8_t c : none.choices) CHECK(c == 0);
  // Without faults there was no difference.
  o.faults = {};
  CHECK(sim::run(o, much_of_everything).trace_hash == none.trace_hash);
}

TEST_CASE("sim: the program's random draws are recorded in the choices, and replayed") {
  std::vector<std::size_t> drawn;
  std::string bytes;
  const auto program = [&]() -> task<> {
    drawn.clear();
    for (const std::size_t bound :
         {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{200}, std::size_t{70000}, SIZE_MAX / 2})
      drawn.push_back(sim::draw(bound));
    bytes = sim::draw_bytes(40);
    co_return;
  };
  const sim::report r = sim::run(with_seed(5), program);
  CHECK(r.ok());
  CHECK(drawn[0] == 0);
  CHECK(drawn[1] == 0);
  CHECK(drawn[2] < 2);
  CHECK(drawn[3] < 200);
  CHECK(drawn[4] < 70000);
  CHECK(drawn[5] < SIZE_MAX / 2);
  CHECK(bytes.size() <= 40);
  const auto first = drawn;
  const std::string first_bytes = bytes;
  sim::options replay;
  replay.choices = r.choices;
  CHECK(sim::run(replay, program).choices == r.choices);
  CHECK(drawn == first);
  CHECK(bytes == first_bytes);
  CHECK(sim::run(with_seed(6), program).choices != r.choices);
  CHECK(drawn != first);

  std::vector<std::uint8_t> given{1, 3, 2, 'h', 'i'};
  given.insert(given.begin() + 2, sizeof(std::size_t), 0);  // the largest draw
  sim::options o;
  o.choices = given;
  CHECK(sim::run(o, [&]() -> task<> {
          CHECK(sim::draw(2) == 1);
          CHECK(sim::draw(10) == 3);
          CHECK(sim::draw(SIZE_MAX / 2) == 0);
          CHECK(sim::draw_bytes(10) == "hi");
          CHECK(sim::draw(100) == 0);
          CHECK(sim::draw_bytes(10).empty());
          co_return;
        }).ok());
}

TEST_CASE("sim: the program's random draws change the trace") {
  const auto program = []() -> task<> {
    static_cast<void>(sim::draw(1000));
    co_return;
  };
  CHECK(sim::run(with_seed(1), program).trace_hash != sim::run(with_seed(2), program).trace_hash);
}

// --- faults and links

task<> request_and_answer(bool& broken) {
  auto listener = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  auto client = co_await anyio::connect_tcp("127.0.0.1", listener.local_port());
  auto server = co_await listener.accept();
  for (int i = 0; i < 30; ++i) {
    const auto sent = co_await anyio::as_result(client.send("question"));
    const auto got = co_await anyio::as_result(server.receive());
    broken = broken || !sent || !got;
  }
}

TEST_CASE("sim: the program can turn faults on and off") {
  bool broken = false;
  CHECK(sim::run({}, [&]() -> task<> {
          co_await request_and_answer(broken);
          CHECK(!broken);
          sim::faults f;
          f.reset = 0.3;
          sim::set_faults(f);
          co_await request_and_answer(broken);
          CHECK(broken);
          sim::heal();
          broken = false;
          co_await request_and_answer(broken);
          CHECK(!broken);
        }).ok());
}

TEST_CASE("sim: a program ends even if a fault happens every time") {
  for (int kind = 0; kind < 3; ++kind) {
    sim::options o;
    (kind == 0 ? o.faults.short_io : kind == 1 ? o.faults.would_block : o.faults.interrupted) = 1;
    bool broken = false;
    const sim::report r = sim::run(o, [&] { return request_and_answer(broken); });
    CAPTURE(kind);
    CHECK(r.ok());
    CHECK(!broken);
  }
}

TEST_CASE("sim: a link has a latency for each direction") {
  CHECK(sim::run({}, []() -> task<> {
          const ip_address client = ip_address::loopback_v4();
          const ip_address host = address("192.0.2.1");
          sim::faults slow;
          slow.latency_min = slow.latency_max = 30ms;
          sim::set_link(client, host, slow);
          slow.latency_min = slow.latency_max = 12ms;
          sim::set_link(host, client, slow);
          auto listener = co_await anyio::create_tcp_listener({.local_host = "192.0.2.1"});
          anyio::time_point t = anyio::now();
          const auto elapsed = [&] { return anyio::now() - std::exchange(t, anyio::now()); };
          auto c = co_await anyio::connect_tcp("192.0.2.1", listener.local_port());
          CHECK(elapsed() == 42ms);
          auto s = co_await listener.accept();
          CHECK(elapsed() == 0ms);
          CHECK(s.remote_endpoint().address == client);
          co_await c.send("there");
          CHECK(elapsed() == 0ms);
          co_await s.receive();
          CHECK(elapsed() == 30ms);
          co_await s.send("back");
          co_await c.receive();
          CHECK(elapsed() == 12ms);
          c.close();
          CHECK(elapsed() == 0ms);
          auto end = co_await anyio::as_result(s.receive());
          CHECK(end.error() == errc::end_of_stream);
          CHECK(elapsed() == 30ms);
          // A refusal travels both ways too.
          const auto port = listener.local_port();
          listener.close();
          auto refused = co_await anyio::as_result(anyio::connect_tcp("192.0.2.1", port));
          CHECK(refused.error() == std::errc::connection_refused);
          CHECK(elapsed() == 42ms);
        }).ok());
}

TEST_CASE("sim: a timeout is exact to the millisecond") {
  CHECK(sim::run({}, []() -> task<> {
          sim::faults slow;
          slow.latency_min = slow.latency_max = 100ms;
          sim::set_faults(slow);
          auto u = co_await anyio::create_udp_socket({.local_host = "10.0.0.1"});
          co_await u.send_to("late", u.local_endpoint());
          auto early = co_await anyio::as_result(anyio::fail_after(99ms, u.receive()));
          CHECK(early.error() == errc::timed_out);
          auto in_time = co_await anyio::fail_after(1ms, u.receive());
          CHECK(in_time.data == "late");
          const anyio::time_point before = anyio::now();
          co_await anyio::sleep_until(before + 1234567ns);
          CHECK(anyio::now() - before == 1234567ns);
        }).ok());
}

TEST_CASE("sim: a link can lose datagrams in only one direction, and its own setting applies") {
  CHECK(sim::run({}, []() -> task<> {
          auto a = co_await anyio::create_udp_socket({.local_host = "10.0.0.1"});
          auto b = co_await anyio::create_udp_socket({.local_host = "10.0.0.2"});
          auto c = co_await anyio::create_udp_socket({.local_host = "10.0.0.3"});
          sim::faults lossy;
          lossy.drop = 1;
          sim::set_link(address("10.0.0.1"), address("10.0.0.2"), lossy);
          co_await a.send_to("lost", b.local_endpoint());
          co_await b.send_to("kept", a.local_endpoint());
          CHECK((co_await a.receive()).data == "kept");
          CHECK(!co_await anyio::move_on_after(1h, b.receive()));
          // A network that loses everything, except on one link.
          sim::set_faults(lossy);
          sim::set_link(address("10.0.0.1"), address("10.0.0.2"), {});
          co_await a.send_to("kept", b.local_endpoint());
          CHECK((co_await b.receive()).data == "kept");
          co_await a.send_to("lost", c.local_endpoint());
          CHECK(!co_await anyio::move_on_after(1h, c.receive()));
        }).ok());
}

// --- names and addresses

std::vector<std::string> hosts_of(const std::vector<ip_endpoint>& all) {
  std::vector<std::string> texts;
  for (const ip_endpoint& e : all) texts.push_back(e.address.to_string());
  return texts;
}

TEST_CASE("sim: names are those of set_name, localhost is known, others fail") {
  using names = std::vector<std::string>;
  CHECK(sim::run({}, []() -> task<> {
          auto unknown = co_await anyio::as_result(anyio::getaddrinfo("host.example", 80));
          CHECK(unknown.error() == errc::name_resolution);
          const std::array<ip_address, 3> three{address("10.0.0.3"), address("2001:db8::3"),
                                                address("10.0.0.1")};
          sim::set_name("host.example", three);
          auto all = co_await anyio::getaddrinfo("host.example", 80);
          CHECK(hosts_of(all) == names{"10.0.0.3", "2001:db8::3", "10.0.0.1"});
          CHECK(all.front().port == 80);
          auto v6 = co_await anyio::getaddrinfo("host.example", 80, AF_INET6);
          CHECK(hosts_of(v6) == names{"2001:db8::3"});
          auto other_case = co_await anyio::getaddrinfo("Host.EXAMPLE.", 80, AF_INET6);
          CHECK(hosts_of(other_case) == names{"2001:db8::3"});
          sim::set_name("HOST.example", std::span<const ip_address>(three).first(1));
          all = co_await anyio::getaddrinfo("host.example", 1);
          CHECK(hosts_of(all) == names{"10.0.0.3"});
          sim::set_name("host.example", {});
          auto failing = co_await anyio::as_result(anyio::getaddrinfo("host.example", 80));
          CHECK(failing.error() == errc::name_resolution);
          all = co_await anyio::getaddrinfo("localhost", 9);
          CHECK(hosts_of(all) == names{"::1", "127.0.0.1"});
          auto back = co_await anyio::getnameinfo(ip_endpoint{address("10.0.0.3"), 80});
          CHECK(back.host == "10.0.0.3");
          CHECK(back.service == "80");
        }).ok());
  sim::options o;
  o.faults.name_failure = 1;
  CHECK(sim::run(o, []() -> task<> {
          const std::array<ip_address, 1> one{address("10.0.0.1")};
          sim::set_name("host.example", one);
          auto failing = co_await anyio::as_result(anyio::getaddrinfo("host.example", 80));
          CHECK(failing.error() == errc::name_resolution);
          sim::heal();
          CHECK(hosts_of(co_await anyio::getaddrinfo("host.example", 80)).size() == 1);
          co_await anyio::getaddrinfo("localhost", 80);
        }).ok());
}

TEST_CASE("sim: a look-up takes no time but lets other tasks run, and can be cancelled") {
  CHECK(sim::run({}, []() -> task<> {
          const std::array<ip_address, 1> one{address("10.0.0.1")};
          sim::set_name("host.example", one);
          const anyio::time_point begun = anyio::now();
          co_await anyio::getaddrinfo("host.example", 80);
          CHECK(anyio::now() == begun);
          bool other_ran = false;
          anyio::loop::current().post([&] { other_ran = true; });
          co_await anyio::getaddrinfo("host.example", 80);
          CHECK(other_ran);
          auto withdrawn = co_await anyio::move_on_after(0s, anyio::getaddrinfo("host.example", 80));
          CHECK(!withdrawn);
        }).ok());
}

TEST_CASE("sim: every unicast address can be bound, and no other") {
  CHECK(
      sim::run({}, []() -> task<> {
        for (const char* host :
             {"127.0.0.1", "127.1.2.3", "10.0.0.1", "203.0.113.7", "::1", "2001:db8::7", "fd00::1"}) {
          CAPTURE(host);
          auto l = co_await anyio::create_tcp_listener({.local_host = host});
          auto c = co_await anyio::connect_tcp(host, l.local_port());
          auto s = co_await l.accept();
          CHECK(s.local_endpoint() == c.remote_endpoint());
          CHECK(s.remote_endpoint() == c.local_endpoint());
          CHECK(c.remote_endpoint().address == address(host));
          const bool v6 = address(host).is_v6();
          CHECK(c.local_endpoint().address == (v6 ? ip_address::loopback_v6() : ip_address::loopback_v4()));
          auto u = co_await anyio::create_udp_socket({.local_host = host});
          auto k = co_await anyio::create_connected_udp_socket(host, u.local_endpoint().port);
          co_await k.send("x");
          auto got = co_await u.receive();
          CHECK(got.sender == k.local_endpoint());
          CHECK(got.sender.address == (v6 ? ip_address::loopback_v6() : ip_address::loopback_v4()));
          auto bound = co_await anyio::connect_tcp(host, l.local_port(),
                                                   {.local_host = v6 ? "2001:db8::99" : "10.99.0.1"});
          CHECK(bound.local_endpoint().address == address(v6 ? "2001:db8::99" : "10.99.0.1"));
          auto peer = co_await l.accept();
          CHECK(peer.remote_endpoint() == bound.local_endpoint());
        }
        CHECK(anyio::tcp_listener::open({address("224.0.0.1"), 0}).error() ==
              std::errc::address_not_available);
        CHECK(anyio::tcp_listener::open({address("ff02::1"), 0}).error() == std::errc::address_not_available);
      }).ok());
}

// --- signals, threads, loops

TEST_CASE("sim: a raised signal reaches its receivers") {
  CHECK(sim::run({}, []() -> task<> {
          auto one = anyio::signal_receiver::open(SIGTERM, SIGHUP).value();
          auto two = anyio::signal_receiver::open(SIGTERM).value();
          sim::raise(SIGINT);  // not a local address
          anyio::task_group group;
          group.start_soon([]() -> task<> {
            co_await anyio::sleep(3s);
            sim::raise(SIGTERM);
            co_await anyio::sleep(3s);
            sim::raise(SIGHUP);
          });
          const anyio::time_point begun = anyio::now();
          CHECK(co_await one.receive() == SIGTERM);
          CHECK(anyio::now() - begun == 3s);
          CHECK(co_await two.receive() == SIGTERM);
          CHECK(co_await one.receive() == SIGHUP);
          CHECK(anyio::now() - begun == 6s);
          co_await group.join();
        }).ok());
}

TEST_CASE("sim: run_sync runs in place, at a random moment") {
  std::set<int> turns_seen;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CHECK(sim::run(with_seed(seed), [&]() -> task<> {
            int turns = 0;
            bool over = false;
            anyio::task_group group;
            group.start_soon([&]() -> task<> {
              while (!over) {
                co_await anyio::sleep(0s);
                ++turns;
              }
            });
            int at = -1;
            const anyio::time_point begun = anyio::now();
            co_await anyio::to_thread::run_sync([&] { at = turns; });
            CHECK(anyio::now() == begun);
            CHECK(at >= 0);
            turns_seen.insert(at);
            over = true;
            co_await group.join();
          }).ok());
  }
  CHECK(turns_seen.size() > 3);
}

TEST_CASE("sim: a destroyed run_sync is not called, and errors of run_sync are raised") {
  bool made = false;
  CHECK(sim::run({}, [&]() -> task<> {
          {
            auto op = anyio::to_thread::run_sync([&] { made = true; });
            op.start([](anyio::result<void>) { CHECK(false); });
          }
          co_await anyio::sleep(1s);
          CHECK(!made);
          auto none = co_await anyio::move_on_after(0s, anyio::to_thread::run_sync([&] { made = true; }));
          CHECK(!none);
          co_await anyio::sleep(1s);
          CHECK(!made);
        }).ok());
  // Also if the run ends before.
  CHECK(sim::run({}, [&]() -> task<> {
          anyio::to_thread::run_sync([&] { made = true; }).start([](anyio::result<void>) { CHECK(false); });
          co_return;
        }).ok());
  CHECK(!made);
#if ANYIO_NET_EXCEPTIONS
  const sim::report r = sim::run({}, []() -> task<> {
    co_await anyio::to_thread::run_sync([] { throw std::runtime_error("of a thread"); });
  });
  CHECK(r.exception);
#endif
}

TEST_CASE("sim: the loop has no native handle, and its clock is virtual") {
  CHECK(sim::run({}, []() -> task<> {
          CHECK(anyio::loop::current().native_handle() == -1);
          const anyio::time_point begun = anyio::now();
          co_await anyio::sleep(1h);
          CHECK(anyio::now() - begun == 1h);
          bool posted = false;
          CHECK(anyio::loop::current().handle().post([&] { posted = true; }));
          co_await anyio::sleep(1ns);
          CHECK(posted);
        }).ok());
}

TEST_CASE("sim: runs can be nested, and run beside a real loop and inside its callbacks") {
  anyio::loop real;
  CHECK(sim::run({}, seven).ok());
  CHECK(&anyio::loop::current() == &real);
  std::optional<sim::report> inner;
  const anyio::time_point real_time = anyio::now();
  anyio::sleep(1ms).start([&](anyio::result<void>) {
    inner = sim::run({}, [&]() -> task<> {
      co_await anyio::sleep(1h);
      const sim::report innermost = sim::run(with_seed(3), much_of_everything);
      CHECK(innermost.ok());
      CHECK(static_cast<int>(sim::draw(5)) < 5);
      auto listener = co_await anyio::create_tcp_listener();
      CHECK(listener.native_handles().front() == 1 << 30);
    });
  });
  real.run();
  CHECK(inner.has_value());
  CHECK((inner && inner->ok() && inner->virtual_time == 1h));
  CHECK(&anyio::loop::current() == &real);
  CHECK(anyio::now() - real_time < 1min);
  // Afterwards sockets of the real loop are real again.
  auto pair = anyio::create_unix_stream_pair();
  CHECK((pair && pair->first.native_handle() < 1 << 30));
}

TEST_CASE("sim: memory streams meet short transfers too") {
  sim::options o;
  o.faults.short_io = 1;
  static constexpr std::uint8_t harmless = 0;
  o.choices = std::span<const std::uint8_t>(&harmless, 0);  // always the shortest
  CHECK(sim::run(o, []() -> task<> {
          auto [a, b] = anyio::create_memory_stream_pair();
          co_await a.send("abc");
          CHECK(co_await b.receive() == "a");
          CHECK(co_await b.receive() == "b");
          CHECK(co_await b.receive() == "c");
        }).ok());
}

TEST_CASE("sim: a random draw outside a run is an error") {
  if (!support::asserts) return;
  CHECK(support::dies([] { static_cast<void>(sim::draw(3)); }));
}

#if defined(__linux__)
/// From here on this process ends if it makes a system call for descriptors, waiting or threads. False if
/// that cannot be set up.
bool forbid_system_calls() {
  constexpr long forbidden[] = {
    SYS_socket,
    SYS_socketpair,
    SYS_bind,
    SYS_listen,
    SYS_accept4,
    SYS_connect,
    SYS_shutdown,
    SYS_sendto,
    SYS_sendmsg,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_ppoll,
    SYS_read,
    SYS_writev,
    SYS_close,
    SYS_openat,
    SYS_unlinkat,
    SYS_fcntl,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_clone,
    SYS_rt_sigaction,
    SYS_getrandom,
    SYS_epoll_create1,
#if defined(SYS_epoll_wait)
    SYS_epoll_wait,
    SYS_poll,
    SYS_unlink,
    SYS_open,
#endif
#if defined(SYS_clone3)
    SYS_clone3,
#endif
  };
  std::vector<sock_filter> program;
  program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0));  // seccomp_data::nr
  for (const long number : forbidden) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(number), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST_CASE("sim: no system call is made") {
  constexpr int cannot_be_had = 2;
  for (const bool asks : {false, true}) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::signal(SIGSYS, SIG_DFL);
      if (!forbid_system_calls()) ::_exit(cannot_be_had);
      if (asks) {  // that the filter is active
        const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
        ::_exit(fd >= 0 ? 0 : 1);
      }
      bool fine = true;
      for (std::uint64_t seed = 0; seed < 20; ++seed) {
        sim::options o = with_seed(seed);
        o.faults = all_faults();
        fine = sim::run(o, much_of_everything).ok() && fine;
      }
      ::_exit(fine ? 0 : 1);
    }
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == cannot_be_had) return;
    if (asks) {
      CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS));
    } else {
      CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
    }
  }
}
#endif

// --- fuzzing

TEST_CASE("sim: a fuzz body runs, and aborts only at a finding") {
  static constexpr std::uint8_t bytes[] = {0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 200, 100, 50};
  CHECK(sim::fuzz(bytes, sizeof bytes, much_of_everything) == 0);
  CHECK(sim::fuzz(nullptr, 0, much_of_everything) == 0);
  CHECK(sim::fuzz(bytes, sizeof bytes, fails) == 0);
  CHECK(support::dies([] { sim::fuzz(bytes, sizeof bytes, waits_for_nobody); }));
  CHECK(support::dies([] {
    sim::fuzz(bytes, sizeof bytes, []() -> task<> {
      static_cast<void>(anyio::create_unix_stream_pair().value().first.release());
      co_return;
    });
  }));
}

}  // namespace
