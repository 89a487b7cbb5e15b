// Finding a bug that only some schedules show: a box office that sells its last seat twice.
//
// The program runs in a simulation, once for each seed, until a run fails. The printed choices then repeat
// exactly that run. The fixed box office is tested in the same way, and passes.
//
//   g++ -std=c++20 -DANYIO_NET_SIM -pthread -I. examples/sim_race.cpp -o sim_race && ./sim_race
#if !defined(ANYIO_NET_SIM)
#define ANYIO_NET_SIM
#endif
#include "anyio_net.hpp"

#include <chrono>
#include <cstdio>
#include <string>

using namespace std::chrono_literals;

namespace {

/// Sells seats over TCP: a line with the buyer's name, answered by "yours" or "sold out".
class box_office {
 public:
  box_office(int seats, bool fixed) : free_(seats), fixed_(fixed) {}

  anyio::task<> serve_one(anyio::tcp_stream s) {
    anyio::buffered_stream lines(s);
    const std::string name = co_await lines.receive_line();
    const bool sold = fixed_ ? co_await sell_fixed(name) : co_await sell(name);
    co_await s.send(sold ? "yours\n" : "sold out\n");
  }
  int free_seats() const { return free_; }

 private:
  /// The bug: other tasks run between the check and the update.
  anyio::task<bool> sell(const std::string& name) {
    if (free_ == 0) co_return false;
    co_await charge(name);
    --free_;
    co_return true;
  }
  /// Taken first, and returned if the payment fails.
  anyio::task<bool> sell_fixed(const std::string& name) {
    if (free_ == 0) co_return false;
    --free_;
    const auto charged = co_await anyio::as_result(charge(name));
    if (!charged) ++free_;
    co_return charged.has_value();
  }
  /// Simulates a bank, which takes some milliseconds; it rejects some customers.
  anyio::task<> charge(const std::string& name) {
    co_await anyio::sleep(std::chrono::milliseconds(1 + anyio::sim::draw(5)));
    if (name.empty()) co_await anyio::raise(anyio::error(anyio::errc::invalid_argument, 0, "charge"));
  }

  int free_;
  bool fixed_;
};

constexpr std::uint16_t port = 4000;

anyio::task<> buy(std::string name, int& bought) {
  co_await anyio::sleep(std::chrono::milliseconds(anyio::sim::draw(200)));  // not all at the same time
  auto s = co_await anyio::connect_tcp("localhost", port);
  co_await s.send(name + "\n");
  anyio::buffered_stream lines(s);
  if (co_await lines.receive_line() == "yours") ++bought;
}

/// Three customers want one of two seats. The result is checked at the end.
anyio::task<> an_evening(bool fixed, bool& right) {
  box_office office(2, fixed);
  auto listener = co_await anyio::create_tcp_listener({.local_port = port});
  anyio::task_group server;
  server.start_soon(listener.serve([&](anyio::tcp_stream s) { return office.serve_one(std::move(s)); }));

  int bought = 0;
  anyio::task_group buyers;
  for (const char* name : {"Ada", "Grace", "Edsger"}) buyers.start_soon(buy(name, bought));
  co_await buyers.join();
  right = bought == 2 && office.free_seats() == 0;

  listener.close();
  co_await server.join();
}

/// Runs evenings until one fails. True if none did.
bool survives(bool fixed) {
  constexpr std::uint64_t seeds = 2000;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    anyio::sim::options o;
    o.seed = seed;
    o.faults.latency_max = 3ms;
    o.faults.short_io = 0.1;
    bool right = false;
    const auto report = anyio::sim::run(o, [&] { return an_evening(fixed, right); });
    if (report.ok() && right) continue;

    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed),
                report.ok() ? "a seat was sold twice" : "the program failed");
    std::printf("%s\n%s", report.message().c_str(), report.dump.c_str());

    // Only the choices are needed to repeat it, not the seed.
    anyio::sim::options again = o;
    again.seed = 0;
    again.choices = report.choices;
    const auto replayed = anyio::sim::run(again, [&] { return an_evening(fixed, right); });
    std::printf("replayed: %s\n", replayed.trace_hash == report.trace_hash ? "the same run" : "another run");
    return false;
  }
  std::printf("%llu evenings without a mistake\n", static_cast<unsigned long long>(seeds));
  return true;
}

}  // namespace

int main() {
  std::printf("the first box office:\n");
  const bool found = !survives(false);
  std::printf("the fixed one:\n");
  const bool fixed = survives(true);
  return found && fixed ? 0 : 1;
}
