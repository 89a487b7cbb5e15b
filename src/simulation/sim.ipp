// The start and the end of a simulated run.
#pragma once

#include "simulation/sim.hpp"

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN sim_session::sim_session(const sim::options& options)
    : network_(std::make_shared<sim_network>(options)),
      options_(options),
      outer_(std::exchange(innermost, this)),
      outer_close_(std::exchange(close_simulated, &close_descriptor_here)),
      outer_security_(std::exchange(security_of_thread, network_.get())) {}

ANYIO_NET_FN sim_session::~sim_session() {
  innermost = outer_;
  close_simulated = outer_close_;
  security_of_thread = outer_security_;
}

ANYIO_NET_FN void sim_session::close_descriptor_here(int fd) noexcept {
  sim_network& network = current().network();
  network.trace("close", fd, network.close(fd));
}

/// The faults above the network. Loss happens in the network, since each link may have its own probability of
/// it.
inline sim::faults faults_above(sim::faults f) noexcept {
  f.drop = 0;
  return f;
}

ANYIO_NET_FN std::unique_ptr<backend> sim_session::make_backend() {
  auto made = faulty_backend::make(sim_network::make_backend(network_),
                                   std::shared_ptr<sim_choices>(network_, &network_->choices),
                                   faults_above(options_.faults));
  system_ = made.get();
  return made;
}

ANYIO_NET_FN void sim_session::set_faults(const sim::faults& faults) {
  options_.faults = faults;
  network_->set_latency(faults);
  if (system_ != nullptr) system_->faults = faults_above(faults);
}

ANYIO_NET_FN void sim_session::drive(loop_core& core, const bool& done) {
  while (!done && core.alive() && network_->verdict() == sim_verdict::none) core.turn(duration::max());
}

ANYIO_NET_FN void sim_session::conclude(loop_core& core, bool done, sim::report& out) {
  system_ = nullptr;
  out.virtual_time = network_->elapsed();
  if (done) return;
  out.dump = network_->dump() + core.dump();
  const auto fail = [&](errc code, const char* reason) {
    out.failure = error_access::with_reason(error(code, 0, "simulation"), reason);
  };
  switch (network_->verdict()) {
    case sim_verdict::deadlock:
      out.deadlock = true;
      return fail(errc::deadlock, "deadlock: nothing can wake any task");
    case sim_verdict::time_over: return fail(errc::timed_out, "virtual time limit reached");
    case sim_verdict::steps_over: return fail(errc::timed_out, "step limit reached");
    case sim_verdict::spins:
      return fail(errc::timed_out, "the program spins: it makes calls, but no byte moves and no time passes");
    case sim_verdict::none: break;  // an exception, or the program destroyed its loop
  }
}

ANYIO_NET_FN void sim_session::finish(sim::report& out) {
  out.leaked_handles = network_->open_descriptors();
  if (out.leaked_handles != 0 && out.dump.empty()) out.dump = network_->dump();
  out.trace_hash = network_->trace_hash();
  out.choices = network_->choices.taken();
}

ANYIO_NET_FN void sim_finding(const sim::report& r) {
  std::fprintf(stderr, "anyio: %s\n%s", r.message().c_str(), r.dump.c_str());
  std::abort();
}

ANYIO_NET_FN sim::options sim_fuzz_options(std::span<const std::uint8_t> input) noexcept {
  static constexpr std::uint8_t none = 0;
  sim::options o;
  o.choices = input.empty() ? std::span<const std::uint8_t>(&none, 0) : input;
  o.step_limit = 200'000;
  return o;
}

/// Chooses faults so that most runs have only a few kinds of them, but those often.
ANYIO_NET_FN void sim_choose_faults(sim_session& session) {
  sim_choices& choices = session.network().choices;
  const std::size_t kinds = choices.pick(256);
  const auto likely = [&](std::size_t bit) {
    constexpr double often[] = {0.05, 0.2, 0.5};
    return (kinds >> bit & 1) != 0 ? often[choices.pick(std::size(often))] : 0.0;
  };
  sim::faults f;
  f.short_io = likely(0);
  f.would_block = likely(1);
  f.interrupted = likely(1);
  f.reset = likely(2) / 10;
  f.drop = likely(3);
  f.duplicate = likely(4);
  f.reorder = likely(4);
  f.accept_exhausted = likely(5) / 2;
  f.name_failure = likely(6);
  if ((kinds >> 7 & 1) != 0) f.latency_max = std::chrono::milliseconds(1 << choices.pick(10));
  session.set_faults(f);
}

}  // namespace detail

namespace sim {

ANYIO_NET_FN bool report::ok() const noexcept {
#if ANYIO_NET_EXCEPTIONS
  if (exception) return false;
#endif
  return !failure && !deadlock && leaked_handles == 0;
}

ANYIO_NET_FN std::string report::message() const {
  std::string line = "simulation: ";
  if (failure) {
    line += failure->operation() == "simulation" ? failure->message().substr(12) : failure->message();
#if ANYIO_NET_EXCEPTIONS
  } else if (exception) {
    line += "the program ended with an exception";
#endif
  } else {
    line += "the program ended";
  }
  if (leaked_handles != 0) line += ", " + std::to_string(leaked_handles) + " descriptors leaked";
  line += ", after " + std::to_string(std::chrono::duration<double>(virtual_time).count()) + " s; choices ";
  constexpr char digits[] = "0123456789abcdef";
  std::size_t size = choices.size();
  while (size != 0 && choices[size - 1] == 0) --size;  // missing choices count as 0
  for (std::size_t i = 0; i < size; ++i) {
    line += digits[choices[i] >> 4];
    line += digits[choices[i] & 15];
  }
  if (size == 0) line += '-';
  return line;
}

ANYIO_NET_FN std::vector<std::uint8_t> parse_choices(std::string_view digits) {
  std::vector<std::uint8_t> bytes;
  unsigned value = 0;
  bool half = false;
  for (const char c : digits) {
    unsigned digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a' + 10);
    } else {
      continue;
    }
    value = value << 4 | digit;
    if (half) bytes.push_back(static_cast<std::uint8_t>(value));
    half = !half;
  }
  bytes.reserve(bytes.size() + 1);  // so that `data()` is not null, even if all choices were harmless
  return bytes;
}

ANYIO_NET_FN std::size_t draw(std::size_t bound) {
  detail::sim_network& network = detail::sim_session::current().network();
  const std::size_t drawn = network.choices.pick(bound);
  network.trace("draw", -1, static_cast<std::int64_t>(drawn));
  return drawn;
}

ANYIO_NET_FN std::string draw_bytes(std::size_t max) {
  std::string bytes(draw(max + 1), '\0');
  for (char& c : bytes) c = static_cast<char>(draw(256));
  return bytes;
}

ANYIO_NET_FN void set_faults(const faults& f) { detail::sim_session::current().set_faults(f); }

ANYIO_NET_FN void heal() { set_faults({}); }

ANYIO_NET_FN void set_link(ip_address from, ip_address to, const faults& f) {
  detail::sim_session::current().network().set_link(from, to, f);
}

ANYIO_NET_FN void set_name(std::string_view name, std::span<const ip_address> addresses) {
  detail::sim_session::current().network().set_name(name, addresses);
}

ANYIO_NET_FN void raise(int signal) {
  detail::sim_session::current().network().raise(signal);
  detail::loop_core::current().system().wake();
}

}  // namespace sim

}}  // namespace anyio

#endif
