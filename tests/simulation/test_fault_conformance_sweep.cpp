// Every call that the conformance suite makes fails once, with every error that is legal for it. The suite's
// checks may then fail, but only after some operation has reported an error. Nothing hangs without a report,
// nothing stays open, and harmless errors are hidden.
#include "anyio_net.hpp"

#include "support/allocation_sweep.hpp"
#include "support/effort.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace {

/// The result of one run of a check.
struct verdict {
  bool told = false;                  // an operation has failed with a system's error
  const char* complaint = nullptr;    // the first check that failed
  const char* unexplained = nullptr;  // the first one that failed before any operation had reported an error
};
verdict seen;

void see(const anyio::error& e) {
  if (e.os_error() != 0 || e == anyio::errc::broken_resource) seen.told = true;
}

template <class T>
void judge(const char* text, const T& outcome) {
  if (static_cast<bool>(outcome)) return;
  if constexpr (requires { outcome.error(); }) see(outcome.error());
  if (seen.complaint == nullptr) seen.complaint = text;
  if (seen.unexplained == nullptr && !seen.told) seen.unexplained = text;
}

}  // namespace

// The suite's checks are evaluated here, as described above.
#undef CHECK
#undef CHECK_MESSAGE
#define CHECK(...) judge(#__VA_ARGS__, (__VA_ARGS__))
#define CHECK_MESSAGE(condition, text) judge(text, condition)
#include "support/conformance.hpp"
#undef CHECK
#undef CHECK_MESSAGE
#define CHECK(...) DOCTEST_CHECK(__VA_ARGS__)

namespace {

using anyio::detail::fault_at_call;
using anyio::detail::faulty_backend;
using conformance::ends;
namespace sim = anyio::sim;

fault_at_call*& failure_of_this_loop() {
  return static_cast<faulty_backend&>(anyio::detail::loop_core::current().system()).one_failure;
}

/// Opening and connecting do not fail here: test_fault_sweep.cpp covers that.
template <class Maker>
ends make_without_failures() {
  fault_at_call* const later = std::exchange(failure_of_this_loop(), nullptr);
  ends made = Maker::make();
  failure_of_this_loop() = later;
  return made;
}

constexpr int window = 2048;

template <class Stream>
ends narrow_pair(Stream a, Stream b) {
  CHECK(a.set_option(SOL_SOCKET, SO_RCVBUF, window));
  CHECK(b.set_option(SOL_SOCKET, SO_RCVBUF, window));
  return {std::make_unique<Stream>(std::move(a)), std::make_unique<Stream>(std::move(b))};
}

struct tcp {
  static ends make() {
    auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
    CHECK(listener);
    auto a = anyio::run(anyio::connect_tcp(listener->local_endpoints().front()));
    auto b = anyio::run(listener->accept());
    return narrow_pair(std::move(a), std::move(b));
  }
};

struct unix_socket {
  static ends make() {
    auto pair = anyio::create_unix_stream_pair();
    CHECK(pair);
    return narrow_pair(std::move(pair->first), std::move(pair->second));
  }
};

struct buffered_unix {
  static ends make() {
    ends inner = unix_socket::make();
    return {std::make_unique<anyio::buffered_stream>(std::move(inner.a)),
            std::make_unique<anyio::buffered_stream>(std::move(inner.b))};
  }
};

anyio::detail::sim_session* session = nullptr;

template <class Maker, class Face>
void run_check(void (*check)(conformance::stage<Face>&), fault_at_call& failure) {
  constexpr std::size_t bulk = 12000;
  constexpr std::size_t clogging = 5000;
  sim::options o;
  o.step_limit = 100'000;
  anyio::detail::sim_session world(o);
  session = &world;
  seen = {};
  conformance::witness = see;
  conformance::is_hopeless = [] { return session->network().verdict() != anyio::detail::sim_verdict::none; };
  {
    conformance::stage<Face> s(world.make_backend(), make_without_failures<Maker>, bulk, clogging, true);
    failure_of_this_loop() = &failure;
    check(s);
  }
  conformance::is_hopeless = nullptr;
  conformance::witness = nullptr;
  CHECK(world.network().open_descriptors() == 0);
  CHECK(world.network().verdict() != anyio::detail::sim_verdict::steps_over);
}

/// Fails each call of a check in turn, or some of them, and returns the number of runs.
template <class Maker, class Face>
std::size_t sweep(const char* title, void (*check)(conformance::stage<Face>&)) {
  std::size_t runs = 0;
  const auto step = static_cast<std::uint64_t>(support::one_in());
  for (auto call = static_cast<std::uint64_t>(support::first_step());; call += step) {
    std::size_t choices = 1;
    for (std::size_t which = 0; which < choices; ++which) {
      fault_at_call failure{.call = call, .which = which};
      run_check<Maker, Face>(check, failure);
      const bool reached = failure.name != nullptr;
      INFO(std::string(title), ": call ", call, ", ", std::string(reached ? failure.name : "none"),
           " fails with ", std::string(anyio::detail::errno_name(failure.error_number)),
           "; the first complaint: ", std::string(seen.complaint != nullptr ? seen.complaint : "none"));
      CHECK(std::string(seen.unexplained != nullptr ? seen.unexplained : "") == "");
      // Both are waits: for the poller, and for memory.
      const std::string_view name = reached ? failure.name : "";
      const bool transfers =
          name.starts_with("receive") || name.starts_with("send") || name == "read" || name == "write";
      const bool is_short = failure.error_number == ENOBUFS || failure.error_number == ENOMEM;
      if (!reached || failure.error_number == EAGAIN || (transfers && is_short))
        CHECK(seen.complaint == nullptr);
      if (!reached) return runs;
      ++runs;
      choices = failure.choices;
    }
  }
}

template <class Face, class Sweep>
std::size_t sweep_all(Sweep sweep_one) {
  struct named {
    const char* title;
    void (*check)(conformance::stage<Face>&);
  };
#define ANYIO_NET_NAMED(id, title, function) {title, conformance::function<Face>},
  static const named all[] = {ANYIO_NET_CHECKS(ANYIO_NET_NAMED)};
#undef ANYIO_NET_NAMED
  std::size_t runs = 0;
  for (const named& one : all) {
    if (std::string_view(one.title).starts_with("A5")) continue;  // one pair of calls, five hundred times
    runs += sweep_one(one.title, one.check);
  }
  return runs;
}

TEST_CASE_TEMPLATE("fault: each call of the conformance suite fails once", Maker, tcp, unix_socket,
                   buffered_unix) {
  const std::size_t runs = sweep_all<conformance::coroutine>(sweep<Maker, conformance::coroutine>) +
                           sweep_all<conformance::callback>(sweep<Maker, conformance::callback>);
  CHECK(runs >= support::some_of(2000u));
}

#if ANYIO_NET_EXCEPTIONS && ANYIO_NET_TEST_TSAN == 0

struct memory {
  static ends make() {
    auto [a, b] = anyio::create_memory_stream_pair(window);
    return {std::make_unique<anyio::memory_stream>(std::move(a)),
            std::make_unique<anyio::memory_stream>(std::move(b))};
  }
};

thread_local support::failing_run* this_run = nullptr;

/// Fails each allocation of a check in turn. Failed checks are ignored then.
template <class Maker, class Face>
std::size_t sweep_memory(const char* title, void (*check)(conformance::stage<Face>&)) {
  anyio::sim::options o;
  o.step_limit = 100'000;
  // One half ends with its loop; the others would get that error from join, and wait for the half before.
  const std::string_view id = std::string_view(title).substr(0, 2);
  const bool half_is_a_child = id == "A3" || id == "B1" || id == "F1";
  return support::sweep_allocations(
      title, o, [check, half_is_a_child](std::unique_ptr<anyio::backend> system, support::failing_run& run) {
        this_run = &run;
        conformance::is_hopeless = [] { return this_run->is_over(); };
        {
          conformance::stage<Face> s(std::move(system), Maker::make, 12000, 5000, true);
          run.attempt([&] { check(s); });
          if (half_is_a_child) run.verdict.stuck = false;
          run.try_out_loop();
        }
        conformance::is_hopeless = nullptr;
      });
}

TEST_CASE_TEMPLATE("fault: each allocation of the conformance suite fails once", Maker, tcp, unix_socket,
                   buffered_unix, memory) {
  const std::size_t runs = sweep_all<conformance::coroutine>(sweep_memory<Maker, conformance::coroutine>) +
                           sweep_all<conformance::callback>(sweep_memory<Maker, conformance::callback>);
  CHECK(runs >= 250);
}

#endif

}  // namespace
