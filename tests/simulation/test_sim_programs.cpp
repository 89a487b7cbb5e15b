// Whole programs in a simulation: connecting to hosts with many addresses, serving when descriptors run out,
// and conversations under every kind of fault.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/effort.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::ip_address;
using anyio::ip_endpoint;
using anyio::task;
using anyio::tcp_listener;
using anyio::tcp_stream;
namespace sim = anyio::sim;

ip_address address(const char* text) { return ip_address::parse(text).value(); }

// --- happy eyeballs

enum class answer : std::uint8_t { connects, refuses, silent };

struct host {
  const char* address;
  answer how = answer::connects;
  std::chrono::milliseconds way = 0ms;  // there and back
};

/// Reads the calls of a run: when each connect began, and what happened to the descriptors.
struct call {
  std::chrono::nanoseconds at;
  std::string text;
};
std::vector<call> calls;

void note(std::string_view line) {
  const std::size_t colon = line.find(" ns: ");
  if (colon == std::string_view::npos) return;
  calls.push_back({std::chrono::nanoseconds(std::stoll(std::string(line.substr(0, colon)))),
                   std::string(line.substr(colon + 5))});
}

/// When connects began, in milliseconds of virtual time.
std::vector<std::int64_t> connects() {
  std::vector<std::int64_t> times;
  for (const call& c : calls) {
    if (!c.text.starts_with("connect ")) continue;
    CHECK(c.at % 1ms == 0ns);
    times.push_back(c.at / 1ms);
  }
  return times;
}
using times = std::vector<std::int64_t>;

struct outcome {
  sim::report report;
  std::optional<anyio::error> failure;
  std::string winner;
  std::chrono::nanoseconds took{};
  int served = 0;  // connections that listeners accepted and that the peer did not end
};

constexpr std::uint16_t port = 4433;

void set_up(const std::vector<host>& hosts, std::list<tcp_listener>& listeners) {
  std::vector<ip_address> all;
  for (const host& h : hosts) {
    const ip_address there = address(h.address);
    const ip_address here = there.is_v6() ? ip_address::loopback_v6() : ip_address::loopback_v4();
    all.push_back(there);
    sim::faults way;
    way.latency_min = way.latency_max = h.way / 2;
    if (h.how == answer::silent) way.drop = 1;
    sim::set_link(here, there, way);
    sim::set_link(there, here, way);
    if (h.how == answer::connects) listeners.push_back(tcp_listener::open({there, port}).value());
  }
  sim::set_name("host.example", all);
}

/// The number of the connections still open at this end.
task<int> count_open(std::list<tcp_listener>& listeners) {
  int open = 0;
  for (tcp_listener& l : listeners) {
    for (;;) {
      auto s = co_await anyio::move_on_after(0s, l.accept());
      if (!s) break;
      const auto got = co_await anyio::as_result(anyio::fail_after(1s, s->receive()));
      if (got.error() == errc::timed_out) ++open;
    }
  }
  co_return open;
}

outcome connect(const std::vector<host>& hosts, anyio::tcp_connect_options options = {},
                std::optional<std::chrono::milliseconds> withdrawn_after = {}, std::uint64_t seed = 0) {
  outcome out;
  calls.clear();
  sim::options o;
  o.seed = seed;
  o.log = note;
  out.report = sim::run(o, [&]() -> task<> {
    std::list<tcp_listener> listeners;
    set_up(hosts, listeners);
    const anyio::time_point begun = anyio::now();
    auto connecting = anyio::connect_tcp("host.example", port, options);
    const auto limit = withdrawn_after.value_or(1h);
    auto r = co_await anyio::as_result(anyio::fail_after(limit, std::move(connecting)));
    out.took = anyio::now() - begun;
    if (r) {
      out.winner = r->remote_endpoint().address.to_string();
      CHECK(r->remote_endpoint().port == port);
    } else {
      out.failure = r.error();
    }
    co_await anyio::sleep(1h);  // the other attempts are still under way
    out.served = co_await count_open(listeners);
  });
  const std::string message = out.report.message().substr(0, 200);
  CAPTURE(message);
  CHECK(out.report.ok());
  return out;
}

TEST_CASE("sim programs: each address has its head start, exact to the millisecond") {
  const outcome o = connect({{"2001:db8::1", answer::silent},
                             {"10.0.0.1", answer::silent},
                             {"2001:db8::2", answer::silent},
                             {"10.0.0.2", answer::connects, 40ms}});
  CHECK(o.winner == "10.0.0.2");
  CHECK(connects() == times{0, 250, 500, 750});
  CHECK(o.took == 790ms);
  CHECK(o.served == 1);
}

TEST_CASE("sim programs: the head start is an option") {
  const std::vector<host> hosts{
      {"10.0.0.1", answer::silent}, {"10.0.0.2", answer::silent}, {"10.0.0.3", answer::connects, 10ms}};
  CHECK(connect(hosts, {.happy_eyeballs_delay = 100ms}).took == 210ms);
  CHECK(connects() == times{0, 100, 200});
  CHECK(connect(hosts, {.happy_eyeballs_delay = 0ms}).took == 10ms);
  CHECK(connects() == times{0, 0, 0});
}

TEST_CASE("sim programs: families alternate, in the resolver's order") {
  CHECK(connect({{"2001:db8::1", answer::refuses},
                 {"2001:db8::2", answer::connects},
                 {"10.0.0.1", answer::connects}})
            .winner == "10.0.0.1");
  CHECK(
      connect(
          {{"10.0.0.1", answer::refuses}, {"10.0.0.2", answer::connects}, {"2001:db8::1", answer::connects}})
          .winner == "2001:db8::1");
}

TEST_CASE("sim programs: a refusal starts the next attempt at once, whenever it arrives") {
  const outcome o = connect({{"10.0.0.1", answer::refuses, 30ms},
                             {"10.0.0.2", answer::refuses, 300ms},
                             {"10.0.0.3", answer::silent},
                             {"10.0.0.4", answer::connects, 20ms}});
  // The second attempt is refused at 330, 50 after the third has begun.
  CHECK(connects() == times{0, 30, 280, 330});
  CHECK(o.took == 350ms);
  CHECK(o.winner == "10.0.0.4");
  CHECK(o.served == 1);
}

TEST_CASE("sim programs: a slow attempt that started first may still win") {
  const outcome o = connect({{"10.0.0.1", answer::connects, 400ms}, {"10.0.0.2", answer::connects, 160ms}});
  CHECK(o.winner == "10.0.0.1");
  CHECK(o.took == 400ms);
  CHECK(o.served == 1);
  const outcome other =
      connect({{"10.0.0.1", answer::connects, 400ms}, {"10.0.0.2", answer::connects, 140ms}});
  CHECK(other.winner == "10.0.0.2");
  CHECK(other.took == 390ms);
  CHECK(other.served == 1);
}

TEST_CASE("sim programs: if several attempts win at the same moment, one survives") {
  std::vector<std::string> winners;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const outcome o = connect({{"10.0.0.1", answer::connects, 500ms},
                               {"10.0.0.2", answer::connects, 250ms},
                               {"2001:db8::3", answer::connects, 250ms}},
                              {}, {}, seed);
    CHECK(o.took == 500ms);
    CHECK(o.served == 1);
    CHECK(connects().size() == 2);
    winners.push_back(o.winner);
  }
  // The order in which their results are reported decides which one wins.
  CHECK(std::count(winners.begin(), winners.end(), "10.0.0.1") > 0);
  CHECK(std::count(winners.begin(), winners.end(), "2001:db8::3") > 0);
}

TEST_CASE("sim programs: if all attempts fail, the error is that of the first address tried") {
  outcome o = connect({{"10.0.0.1", answer::silent}, {"10.0.0.2", answer::refuses, 10ms}});
  CHECK((o.failure && *o.failure == std::errc::timed_out));
  CHECK(o.took == 127s);
  o = connect({{"10.0.0.1", answer::refuses, 500ms}, {"10.0.0.2", answer::refuses, 10ms}});
  CHECK((o.failure && *o.failure == std::errc::connection_refused));
  CHECK(o.took == 500ms);
  o = connect({});
  CHECK((o.failure && *o.failure == errc::name_resolution));
  CHECK(connects().empty());
}

TEST_CASE("sim programs: a connect destroyed at any moment leaks nothing") {
  const std::vector<host> hosts{{"10.0.0.1", answer::connects, 340ms},
                                {"2001:db8::1", answer::refuses, 20ms},
                                {"10.0.0.2", answer::silent},
                                {"10.0.0.3", answer::connects, 300ms}};
  CHECK(connect(hosts).took == 340ms);
  for (auto after = 0ms; after <= 345ms; after += 5ms) {
    const outcome o = connect(hosts, {}, after);
    CAPTURE(after.count());
    const bool connected = after >= 340ms;
    CHECK((o.served == (connected ? 1 : 0)));
    CHECK((o.failure && *o.failure == errc::timed_out) == !connected);
    CHECK(o.took == std::min<std::chrono::nanoseconds>(after, 340ms));
  }
}

/// After each call of a run, in turn, the connecting task is destroyed.
TEST_CASE("sim programs: a connect may be destroyed after any number of turns") {
  int completed = 0;
  for (int turns = 0; turns < 60; ++turns) {
    const sim::report r = sim::run({}, [&]() -> task<> {
      std::list<tcp_listener> listeners;
      set_up({{"10.0.0.1", answer::refuses, 2ms},
              {"10.0.0.2", answer::connects, 4ms},
              {"10.0.0.3", answer::connects, 4ms}},
             listeners);
      bool done = false;
      tcp_stream kept;
      {
        auto connecting = anyio::connect_tcp("host.example", port, {.happy_eyeballs_delay = 0ms});
        auto store = [&](anyio::result<tcp_stream> s) {
          CHECK(s);
          if (s) kept = std::move(*s);
          done = true;
        };
        connecting.start([p = &store](anyio::result<tcp_stream> s) { (*p)(std::move(s)); });
        for (int i = 0; i < turns; ++i) co_await anyio::sleep(150us);
      }
      if (done) ++completed;
      co_await anyio::sleep(1s);
      const int open = co_await count_open(listeners);
      CHECK(open == (done ? 1 : 0));
    });
    CHECK(r.ok());
  }
  CHECK(completed > 5);
  CHECK(completed < 55);
}

// --- serving without descriptors

TEST_CASE("sim programs: a listener works after ten seconds without descriptors, and does not spin") {
  int reported = 0;
  int answered = 0;
  const sim::report r = sim::run({}, [&]() -> task<> {
    auto l = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
    anyio::task_group group;
    group.start_soon(l.serve([](tcp_stream s) -> task<> { co_await s.send("served"); },
                             [&](const anyio::error& e) {
                               CHECK(e.operation() == "accept");
                               CHECK((e == std::errc::too_many_files_open ||
                                      e == std::errc::too_many_files_open_in_system ||
                                      e == std::errc::no_buffer_space || e == std::errc::not_enough_memory));
                               ++reported;
                             }));
    std::vector<tcp_stream> clients;
    for (int i = 0; i < 5; ++i) {
      clients.push_back(co_await anyio::connect_tcp("127.0.0.1", l.local_port()));
      if (i != 1) continue;
      // From here on no new descriptor is available, for the clients neither.
      co_await anyio::sleep(1s);
      sim::faults f;
      f.accept_exhausted = 1;
      sim::set_faults(f);
      const auto failing = co_await anyio::as_result(anyio::connect_tcp("127.0.0.1", l.local_port()));
      CHECK(failing.error() == errc::os_error);
      sim::heal();
    }
    for (tcp_stream& c : clients) CHECK(co_await c.receive() == "served");
    clients.clear();
    // The connections take longer than the listener takes to close.
    sim::faults slow;
    slow.latency_min = slow.latency_max = 10ms;
    sim::set_faults(slow);
    for (int i = 0; i < 5; ++i) {
      group.start_soon([&]() -> task<> {
        auto c = co_await anyio::connect_tcp("127.0.0.1", l.local_port());
        CHECK(co_await c.receive() == "served");
        ++answered;
      });
    }
    co_await anyio::sleep(5ms);
    sim::faults exhausted;
    exhausted.accept_exhausted = 1;
    sim::set_faults(exhausted);
    co_await anyio::sleep(10s);
    CHECK(answered == 0);
    CHECK(reported > 0);
    sim::heal();
    co_await anyio::sleep(1s);
    CHECK(answered == 5);
    l.close();
    co_await group.join();
  });
  CHECK(r.ok());
  // One entry for each call of accept.
  CHECK(reported >= 50);
  CHECK(reported <= 110);
}

// --- conversations

struct conversation {
  std::string sent, echoed;
};

task<> echo_until_end(tcp_stream s) {
  for (;;) {
    const auto got = co_await s.receive_view();
    co_await s.send(got);
  }
}

task<> ask(std::uint16_t to, conversation& c, bool& complete) {
  auto s = co_await anyio::connect_tcp("localhost", to);
  anyio::task_group group;
  group.start_soon([&]() -> task<> {
    for (int i = 0; i < 5; ++i) {
      const std::string piece = sim::draw_bytes(40);
      c.sent += piece;
      co_await s.send(piece);
      co_await anyio::sleep(std::chrono::milliseconds(sim::draw(20)));
    }
    co_await s.send_eof();
  });
  for (;;) {
    auto got = co_await anyio::as_result(s.receive());
    if (!got) {
      if (got.error() == errc::end_of_stream) break;
      co_await anyio::raise(got.error());
    }
    c.echoed += *got;
  }
  co_await group.join();
  complete = true;
}

sim::faults trouble(std::uint64_t seed) {
  sim::faults f;
  if ((seed & 1) != 0) f.short_io = 0.4;
  if ((seed & 2) != 0) f.would_block = 0.4;
  if ((seed & 4) != 0) f.interrupted = 0.2;
  if ((seed & 8) != 0) f.reset = 0.01;
  if ((seed & 16) != 0) f.drop = 0.1;
  if ((seed & 32) != 0) f.accept_exhausted = 0.2;
  if ((seed & 64) != 0) f.latency_max = 30ms;
  return f;
}

int conversations_that_failed = 0;

task<> echo_program() {
  tcp_listener l;
  while (!l) {
    auto made = co_await anyio::as_result(anyio::create_tcp_listener());
    if (made) l = std::move(*made);
  }
  anyio::task_group server;
  server.start_soon(l.serve(echo_until_end, [](const anyio::error&) {}));
  for (int i = 0; i < 2; ++i) {
    conversation c;
    bool complete = false;
    const auto r = co_await anyio::as_result(ask(l.local_port(), c, complete));
    if (complete) CHECK((c.echoed == c.sent));
    CHECK((c.sent.starts_with(c.echoed)));
    if (!r) ++conversations_that_failed;
    if (r) CHECK(complete);
  }
  // Without faults the next connection must succeed, whatever happened before.
  sim::heal();
  conversation last;
  bool complete = false;
  co_await ask(l.local_port(), last, complete);
  CHECK(complete);
  CHECK((last.echoed == last.sent));
  l.close();
  co_await server.join();
}

TEST_CASE("sim programs: an echo server under all kinds of faults, and then without") {
  conversations_that_failed = 0;
  for (std::uint64_t seed = 0; seed < support::some_of(2000u); ++seed) {
    sim::options o;
    o.seed = seed;
    o.faults = trouble(seed);
    o.profile = static_cast<sim::profile>(seed % 3);
    const sim::report r = sim::run(o, echo_program);
    if (r.ok()) continue;
    CAPTURE(seed);
    CAPTURE(r.dump);
    const std::string message = r.message().substr(0, 200);
    CAPTURE(message);
    CHECK(r.ok());
  }
  CHECK(conversations_that_failed > support::some_of(100));
  CHECK(conversations_that_failed < support::some_of(3000));
}

/// A room in which each message is received by all other clients.
class chat_room {
 public:
  task<> attend(tcp_stream s) {
    members_.push_back(&s);
    const auto place = std::prev(members_.end());
    anyio::buffered_stream lines(s);
    for (;;) {
      auto line = co_await anyio::as_result(lines.receive_line());
      if (!line) break;
      const std::string text = *line + '\n';
      const std::vector<tcp_stream*> all(members_.begin(), members_.end());
      for (tcp_stream* member : all) {
        if (member == &s || std::find(members_.begin(), members_.end(), member) == members_.end()) continue;
        const anyio::permit one_at_a_time = co_await speaking_.acquire();
        if (std::find(members_.begin(), members_.end(), member) == members_.end()) continue;
        static_cast<void>(co_await anyio::as_result(member->send(text)));  // a client that left gets nothing
      }
    }
    const anyio::permit nobody_speaks = co_await speaking_.acquire();
    members_.erase(place);
  }

 private:
  std::list<tcp_stream*> members_;
  anyio::semaphore speaking_{1};
};

task<> chat_program() {
  auto l = co_await anyio::create_tcp_listener();
  chat_room room;
  anyio::task_group server;
  server.start_soon(
      l.serve([&](tcp_stream s) { return room.attend(std::move(s)); }, [](const anyio::error&) {}));
  constexpr std::size_t members = 3;
  constexpr int lines_of_each = 4;
  std::array<std::vector<std::string>, members> heard;
  std::array<tcp_stream, members> streams;
  for (tcp_stream& s : streams) s = co_await anyio::connect_tcp("localhost", l.local_port());
  co_await anyio::sleep(1s);  // all clients have joined
  anyio::task_group talk;
  for (std::size_t i = 0; i < members; ++i) {
    talk.start_soon([&, i]() -> task<> {
      for (int line = 0; line < lines_of_each; ++line) {
        const std::string text = std::to_string(i) + std::to_string(line) + '\n';
        co_await streams[i].send(text);
        co_await anyio::sleep(std::chrono::milliseconds(sim::draw(10)));
      }
    });
    talk.start_soon([&, i]() -> task<> {
      anyio::buffered_stream in(streams[i]);
      while (heard[i].size() < (members - 1) * lines_of_each) heard[i].push_back(co_await in.receive_line());
    });
  }
  co_await talk.join();
  for (std::size_t i = 0; i < members; ++i) {
    std::array<int, members> next{};
    for (const std::string& line : heard[i]) {  // each speaker's lines in order
      const auto speaker = static_cast<std::size_t>(line[0] - '0');
      CHECK(speaker != i);
      CHECK(line[1] - '0' == next[speaker]++);
    }
  }
  for (tcp_stream& s : streams) s.close();
  l.close();
  co_await server.join();
}

TEST_CASE("sim programs: in a chat room all clients receive all messages, in any order") {
  for (std::uint64_t seed = 0; seed < support::some_of(500u); ++seed) {
    sim::options o;
    o.seed = seed;
    o.faults = trouble(seed & 0x57);  // faults that break or refuse connections are left out
    const sim::report r = sim::run(o, chat_program);
    if (r.ok()) continue;
    CAPTURE(seed);
    CAPTURE(r.dump);
    const std::string message = r.message().substr(0, 200);
    CAPTURE(message);
    CHECK(r.ok());
  }
}

// --- a server that is interrupted

task<> interrupted_program() {
  int idle = 0;
  int finished = 0;
  auto listener = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1", .local_port = 1000});
  anyio::task_group all;
  const auto handler = [&](tcp_stream client, anyio::event& stopping) -> task<> {
    const auto asked = co_await anyio::when_any(client.receive(), stopping.wait());
    if (asked.index() == 1) {
      ++idle;
      co_return;
    }
    if (std::get<0>(asked) == "forever") co_await anyio::sleep(24h);
    co_await anyio::sleep(5s);  // longer than it takes until the signal, shorter than the grace
    ++finished;
  };
  all.start_soon(anyio::serve_until_interrupted(listener, handler));
  std::vector<tcp_stream> clients;
  for (const char* asks : {"", "something", "forever"}) {
    clients.push_back(co_await anyio::connect_tcp("127.0.0.1", 1000));
    if (*asks != 0) co_await clients.back().send(asks);
  }
  co_await anyio::sleep(1s);
  const auto begin = anyio::now();
  sim::raise(SIGTERM);
  co_await all.join();
  CHECK(anyio::now() - begin >= 10s);
  CHECK(anyio::now() - begin < 11s);
  CHECK(idle == 1);
  CHECK(finished == 1);
  CHECK(!listener);
}

TEST_CASE("sim programs: an interrupted server lets idle clients go, and gives the others some time") {
  for (std::uint64_t seed = 0; seed < support::some_of(100u); ++seed) {
    sim::options o;
    o.seed = seed;
    const sim::report r = sim::run(o, interrupted_program);
    CAPTURE(seed);
    CAPTURE(r.dump);
    CHECK(r.ok());
  }
}

std::size_t steps = 0;

TEST_CASE("sim programs: a small program takes few steps") {
  steps = 0;
  sim::options o;
  o.log = [](std::string_view) { ++steps; };
  CHECK(sim::run(o, echo_program).ok());
  CHECK(steps > 50);
  CHECK(steps < 600);
}

}  // namespace
