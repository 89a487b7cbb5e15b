// What a simulated run is told. This part must not know how it is carried out.
#pragma once

#include "base/config.hpp"
#include "system/backend.hpp"

#if defined(ANYIO_NET_SIM)

#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace sim {

/// How likely it is that a call meets trouble, from 0 to 1 each, and how long the way is. Only what is
/// legal happens: a stream loses nothing, a UNIX datagram keeps its order.
struct faults {
  double short_io = 0;          ///< a stream takes or gives less than it could, at least a byte
  double would_block = 0;       ///< EAGAIN, though the poller has said or will say that it is ready
  double interrupted = 0;       ///< EINTR: a wait ends early
  double reset = 0;             ///< a connection breaks, ECONNRESET
  double drop = 0;              ///< an IP datagram is lost; a TCP segment comes late
  double duplicate = 0;         ///< an IP datagram comes twice
  double reorder = 0;           ///< an IP datagram comes behind the next one
  double accept_exhausted = 0;  ///< EMFILE, ENFILE, ENOBUFS or ENOMEM for a new descriptor
  double name_failure = 0;      ///< a look-up fails
  duration latency_min = duration::zero();  ///< one way, between IP addresses
  duration latency_max = duration::zero();  ///< drawn from between the two
};

/// Whose errno values and orders it follows.
enum class profile : std::uint8_t { linux_, darwin, freebsd };

/// How a run goes. The same seed, or the same choices, give the same run.
struct options {
  std::uint64_t seed = 0;  ///< of the random numbers that all decisions are drawn from
  /// Every decision is drawn from these bytes instead of the seed; used up = 0 = harmless. They stay the
  /// caller's, for as long as the run, or a loop on a `fault_backend`, lasts.
  std::span<const std::uint8_t> choices = {};
  sim::faults faults = {};                       ///< what goes wrong, and how often
  sim::profile profile = sim::profile::linux_;   ///< whose system it is
  duration time_limit = std::chrono::hours(24);  ///< of virtual time
  /// Calls of the simulated system. A hundredth of them, but at least 100'000, may follow one another while
  /// nothing is sent, received or accepted and no virtual time passes: more of them, and the program spins.
  std::uint64_t step_limit = 10'000'000;
  void (*log)(std::string_view line) = nullptr;  ///< hears every call
  /// When the run begins, in seconds since 1970. Only a certificate's dates are measured by it. 0: today,
  /// so that what is valid outside is valid inside.
  std::int64_t calendar = 0;
};

}}}  // namespace anyio::sim

#endif
