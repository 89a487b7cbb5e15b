// Chance, and where it comes from: one stream of choices that decides all that a simulated run leaves open.
//
// Choices come from a seed, or from given bytes, of a fuzzer or of an earlier run. Each is kept as it was
// made, so that any run can be repeated from its bytes. 0 is the harmless outcome always, and bytes that
// have run out are 0: whoever shortens an input takes faults out of it. This part must not know what is
// decided.
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
  /// Of these bytes, or of the seed if there are none.
  sim_choices(std::uint64_t seed, std::span<const std::uint8_t> bytes) noexcept
      : bytes_(bytes), state_(seed), from_bytes_(bytes.data() != nullptr) {}

  /// One of so many: less than the bound. A bound of 0 or 1 leaves nothing to choose.
  std::size_t pick(std::size_t bound);
  /// Whether something of this probability happens; what cannot happen costs no choice.
  bool chance(double probability);
  /// Randomness for keys and the like, which is repeated, but is no decision.
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
