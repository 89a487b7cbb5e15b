// Randomness of a simulated run: one stream of choices makes all its decisions.
//
// Choices come from a seed, or from given bytes: of a fuzzer or of an earlier run. Each choice is recorded,
// so that any run can be repeated from its bytes. 0 is always the harmless outcome, and exhausted bytes count
// as 0: a shorter input has fewer faults. This part must not know the subject of a decision.
#pragma once

#include "base/config.hpp"

#if defined(ANYIO_NET_SIM)

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class sim_choices {
 public:
  /// Draws from the bytes, or from the seed if `bytes.data()` is null.
  sim_choices(std::uint64_t seed, std::span<const std::uint8_t> bytes) noexcept
      : bytes_(bytes), state_(seed), from_bytes_(bytes.data() != nullptr) {}

  /// Chooses a number less than the bound. With a bound of 0 or 1, returns 0 and uses no choice.
  std::size_t pick(std::size_t bound);
  /// Decides whether an event of this probability happens; an impossible event uses no choice.
  bool chance(double probability);
  /// Random numbers for keys and similar uses. They are repeatable; only their seed is drawn as a choice.
  std::uint64_t noise();
  [[nodiscard]] const std::vector<std::uint8_t>& taken() const noexcept { return taken_; }

 private:
  static std::uint64_t mix(std::uint64_t& state) noexcept;

  std::span<const std::uint8_t> bytes_;
  std::vector<std::uint8_t> taken_;
  std::uint64_t state_;
  std::uint64_t noise_ = 0;
  bool from_bytes_;
  bool noisy_ = false;
};

}}}  // namespace anyio::detail

#endif
