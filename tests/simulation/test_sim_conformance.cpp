// The behaviour of every byte stream, checked on streams of a simulation: with each kind of fault, for each
// system's variant, in both forms of use, and each time twice, since the same seed must repeat the same run.
#include "support/conformance.hpp"
#include "support/effort.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <string>

namespace {

using namespace std::chrono_literals;
using conformance::ends;
namespace sim = anyio::sim;

/// Small windows, so that few bytes block a stream.
constexpr int window = 4096;

template <class Stream>
ends narrow_pair(Stream a, Stream b) {
  CHECK(a.set_option(SOL_SOCKET, SO_RCVBUF, window));
  CHECK(b.set_option(SOL_SOCKET, SO_RCVBUF, window));
  return {std::make_unique<Stream>(std::move(a)), std::make_unique<Stream>(std::move(b))};
}

struct tcp {
  static constexpr bool is_memory = false;
  static constexpr bool loses_at_reset = true;  // on the BSDs
  static constexpr std::size_t bulk = 200000;
  static constexpr std::size_t clogging = 10000;
  static ends make() {
    auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
    CHECK(listener);
    auto a = anyio::run(anyio::connect_tcp(listener->local_endpoints().front()));
    auto b = anyio::run(listener->accept());
    return narrow_pair(std::move(a), std::move(b));
  }
};

struct unix_socket {
  static constexpr bool is_memory = false;
  static constexpr bool loses_at_reset = false;
  static constexpr std::size_t bulk = tcp::bulk;
  static constexpr std::size_t clogging = tcp::clogging;
  static ends make() {
    auto pair = anyio::create_unix_stream_pair();
    CHECK(pair);
    return narrow_pair(std::move(pair->first), std::move(pair->second));
  }
};

struct memory {
  static constexpr bool is_memory = true;
  static constexpr bool loses_at_reset = false;
  static constexpr std::size_t bulk = tcp::bulk;
  static constexpr std::size_t clogging = tcp::clogging;
  static ends make() {
    auto [a, b] = anyio::create_memory_stream_pair(window);
    return {std::make_unique<anyio::memory_stream>(std::move(a)),
            std::make_unique<anyio::memory_stream>(std::move(b))};
  }
};

struct buffered_tcp {
  static constexpr bool is_memory = false;
  static constexpr bool loses_at_reset = true;
  static constexpr std::size_t bulk = tcp::bulk;
  static constexpr std::size_t clogging = tcp::clogging;
  static ends make() {
    ends inner = tcp::make();
    return {std::make_unique<anyio::buffered_stream>(std::move(inner.a)),
            std::make_unique<anyio::buffered_stream>(std::move(inner.b))};
  }
};

anyio::detail::sim_session* session = nullptr;

template <class Maker, class Face>
std::uint64_t run_check(void (*check)(conformance::stage<Face>&), const sim::options& options,
                        std::size_t bulk) {
  anyio::detail::sim_session world(options);
  session = &world;
  conformance::is_hopeless = [] { return session->network().verdict() != anyio::detail::sim_verdict::none; };
  {
    conformance::stage<Face> s(world.make_backend(), Maker::make, bulk, Maker::clogging, true);
    check(s);
  }
  conformance::is_hopeless = nullptr;
  CHECK(world.network().open_descriptors() == 0);
  return world.network().trace_hash();
}

template <class Maker, class Face>
void run_checks(const sim::options& options, std::size_t bulk) {
  struct named {
    const char* title;
    void (*check)(conformance::stage<Face>&);
  };
#define ANYIO_NET_NAMED(id, title, function) {title, conformance::function<Face>},
  static const named all[] = {ANYIO_NET_CHECKS(ANYIO_NET_NAMED)};
#undef ANYIO_NET_NAMED
  for (const named& one : all) {
    const std::string title = one.title;
    CAPTURE(title);
    const bool is_linux = options.profile == sim::profile::linux_;
    if (Maker::loses_at_reset && !is_linux && title.find("before a reset") != std::string::npos) continue;
    // Its task that never waits leaves no time for the network.
    if (options.faults.latency_max > 0ns && title.starts_with("A5")) continue;
    const std::uint64_t first = run_check<Maker, Face>(one.check, options, bulk);
    const std::uint64_t second = run_check<Maker, Face>(one.check, options, bulk);
    CHECK(first == second);
  }
}

/// With the variants of all systems, from a seed, or from exhausted choices: then every event that is less
/// than certain does not happen, and shortened calls move one byte. Under sanitizers it is one system at a
/// time, and one face where calls move one byte.
template <class Maker>
void run_all(const sim::faults& faults, int seeds, std::size_t bulk = Maker::bulk) {
  static constexpr std::uint8_t none = 0;
  static int turn = 0;
  const bool is_short = ANYIO_NET_TEST_SLOW != 0 && !support::takes_its_time();
  const int whose = is_short ? turn++ % 3 : 0;
  if (is_short) bulk = std::min<std::size_t>(bulk, 12000);
  for (const sim::profile profile : {sim::profile::linux_, sim::profile::darwin, sim::profile::freebsd}) {
    const bool byte_by_byte = seeds == 0;  // takes long
    const bool only_one = Maker::is_memory || byte_by_byte;
    if (only_one && profile != sim::profile::linux_) continue;
    if (is_short && !only_one && static_cast<int>(profile) != whose) continue;
    for (int seed = 0; seed < std::max(seeds, 1); ++seed) {
      sim::options o;
      o.seed = static_cast<std::uint64_t>(seed);
      if (seeds == 0) o.choices = std::span<const std::uint8_t>(&none, 0);
      o.faults = faults;
      o.profile = profile;
      o.step_limit = 1'000'000;
      const int which = static_cast<int>(profile);
      CAPTURE(which);
      CAPTURE(seed);
      const bool one_face = is_short && byte_by_byte;
      if (!one_face || turn % 2 == 0) run_checks<Maker, conformance::coroutine>(o, bulk);
      if (!one_face || turn % 2 != 0) run_checks<Maker, conformance::callback>(o, bulk);
    }
  }
}

TEST_CASE_TEMPLATE("sim: streams without faults", Maker, tcp, unix_socket, memory, buffered_tcp) {
  run_all<Maker>({}, 1);
}

TEST_CASE_TEMPLATE("sim: streams with short reads and writes", Maker, tcp, unix_socket, memory,
                   buffered_tcp) {
  sim::faults f;
  f.short_io = f.would_block = 0.3;
  f.interrupted = 0.2;
  run_all<Maker>(f, 3, 50000);
}

TEST_CASE_TEMPLATE("sim: streams whose first attempts would block", Maker, tcp, unix_socket, memory,
                   buffered_tcp) {
  sim::faults f;
  f.short_io = f.would_block = f.interrupted = 1;
  run_all<Maker>(f, 1, 20000);
}

TEST_CASE_TEMPLATE("sim: streams with one byte per call", Maker, tcp, unix_socket, memory, buffered_tcp) {
  sim::faults f;
  f.short_io = 1;
  run_all<Maker>(f, 0, 5000);
}

TEST_CASE_TEMPLATE("sim: streams with a high latency", Maker, tcp, buffered_tcp) {
  sim::faults f;
  f.latency_min = 1ms;
  f.latency_max = 20ms;
  run_all<Maker>(f, 2);
  f.drop = 0.02;
  f.latency_max = 3ms;
  run_all<Maker>(f, 1, 50000);
}

}  // namespace
