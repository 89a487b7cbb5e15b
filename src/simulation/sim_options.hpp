// The options of a simulated run. This part must not know how a run is carried out.
#pragma once

#include "base/config.hpp"
#include "system/backend.hpp"

#if defined(ANYIO_NET_SIM)

#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace sim {

/// The probability of each fault, from 0 to 1, and the latency. Only legal faults happen: a stream loses no
/// bytes, and UNIX datagrams keep their order.
struct faults {
  double short_io = 0;                      ///< a stream moves fewer bytes than it could, but at least one
  double would_block = 0;                   ///< a call fails with EAGAIN, and readiness is reported later
  double interrupted = 0;                   ///< a wait ends early, as after EINTR
  double reset = 0;                         ///< a connection breaks with ECONNRESET
  double drop = 0;                          ///< an IP datagram is lost; a TCP segment arrives late
  double duplicate = 0;                     ///< an IP datagram arrives twice
  double reorder = 0;                       ///< an IP datagram arrives after the next one
  double accept_exhausted = 0;              ///< EMFILE, ENFILE, ENOBUFS or ENOMEM for a new descriptor
  double name_failure = 0;                  ///< a name look-up fails
  duration latency_min = duration::zero();  ///< the least latency of one direction between IP addresses
  duration latency_max = duration::zero();  ///< the greatest; each latency is drawn from this range
};

/// The system whose errno values and orders of events the simulation follows.
enum class profile : std::uint8_t { linux_, darwin, freebsd };

/// The options of a run. Equal seeds, or equal choices, give equal runs.
struct options {
  std::uint64_t seed = 0;  ///< seed of the random numbers for all decisions
  /// If not null, all decisions are drawn from these bytes instead of the seed; exhausted input counts as 0,
  /// the harmless choice. The caller owns the bytes, and keeps them as long as the run, or a loop on a
  /// `fault_backend`, lasts.
  std::span<const std::uint8_t> choices = {};
  sim::faults faults = {};                       ///< the faults and their probabilities
  sim::profile profile = sim::profile::linux_;   ///< the simulated system
  duration time_limit = std::chrono::hours(24);  ///< limit of virtual time
  /// Limit of calls of the simulated system. A hundredth of it, but at least 100'000, limits the calls in
  /// sequence during which nothing is sent, received or accepted and no virtual time passes: a program that
  /// makes more of them spins, which ends the run.
  std::uint64_t step_limit = 10'000'000;
  void (*log)(std::string_view line) = nullptr;  ///< called with a line for every simulated call
  /// The calendar time at which the run begins, in seconds since 1970. Only the dates of certificates are
  /// compared with it. 0 means the current time, so that valid certificates are valid in the run.
  std::int64_t calendar = 0;
};

}}}  // namespace anyio::sim

#endif
