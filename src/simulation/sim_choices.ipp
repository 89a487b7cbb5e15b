// The implementation of choices.
#pragma once

#include "simulation/sim_choices.hpp"

#if defined(ANYIO_NET_SIM)

#include <algorithm>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
ANYIO_NET_FN std::uint64_t sim_choices::mix(std::uint64_t& state) noexcept {
  std::uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

ANYIO_NET_FN std::size_t sim_choices::pick(std::size_t bound) {
  if (bound < 2) return 0;
  std::size_t width = 1;
  while (width < sizeof bound && (bound - 1) >> (8 * width) != 0) ++width;
  std::uint64_t value = 0;
  if (from_bytes_) {
    const std::size_t given = std::min(width, bytes_.size());
    for (std::size_t i = 0; i < given; ++i) value |= std::uint64_t{bytes_[i]} << (8 * i);
    bytes_ = bytes_.subspan(given);
  } else {
    value = mix(state_);
  }
  value %= bound;
  for (std::size_t i = 0; i < width; ++i) taken_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  return static_cast<std::size_t>(value);
}

ANYIO_NET_FN bool sim_choices::chance(double probability) {
  if (!(probability > 0)) return false;
  constexpr std::size_t scale = 65536;
  const auto share = static_cast<std::size_t>(std::min(probability, 1.0) * scale);
  return pick(scale) >= scale - std::max<std::size_t>(share, 1);
}

ANYIO_NET_FN std::uint64_t sim_choices::noise() {
  if (!noisy_) {
    noisy_ = true;
    noise_ = pick(std::size_t{1} << 31);
  }
  return mix(noise_);
}

}}}  // namespace anyio::detail

#endif
