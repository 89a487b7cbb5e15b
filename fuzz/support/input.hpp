// A fuzzer's bytes as numbers, and the assertion of targets.
//
// Bytes are taken from the front; when exhausted, they are 0, which every target reads as the simplest
// choice. The simulation's choices, faults and order, are drawn from the other end, so that an additional
// byte in a program does not change all faults.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

namespace fuzz {

class input {
 public:
  input(const std::uint8_t* data, std::size_t size) noexcept : bytes_(size == 0 ? &nothing : data, size) {}
  explicit input(std::span<const std::uint8_t> bytes) noexcept : input(bytes.data(), bytes.size()) {}

  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }

  std::uint8_t byte() noexcept {
    if (bytes_.empty()) return 0;
    const std::uint8_t b = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return b;
  }
  bool flag() noexcept { return (byte() & 1) != 0; }
  /// Little-endian, of this many bytes.
  std::uint64_t number(std::size_t width) noexcept {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < width; ++i) value |= std::uint64_t{byte()} << (8 * i);
    return value;
  }
  /// Less than the bound, which is not 0.
  std::size_t pick(std::size_t bound) noexcept {
    return static_cast<std::size_t>(number(bound > 65536 ? 4 : bound > 256 ? 2 : 1) % bound);
  }
  /// Small ones most of the time, with every power of two and its neighbours possible.
  std::size_t length(std::size_t most) noexcept {
    const std::uint8_t b = byte();
    std::size_t n = b;
    if (b >= 128) n = (std::size_t{1} << (b / 3 % 18)) + b % 3 - 1;
    return std::min(n, most);
  }
  std::span<const std::uint8_t> take(std::size_t most) noexcept {
    const auto front = bytes_.first(std::min(most, bytes_.size()));
    bytes_ = bytes_.subspan(front.size());
    return front;
  }
  /// A share of the remaining bytes, in 256ths, from the end.
  std::span<const std::uint8_t> take_tail(std::uint8_t share) noexcept {
    const std::size_t n = bytes_.size() * share / 256;
    const auto tail = bytes_.last(n);
    bytes_ = bytes_.first(bytes_.size() - n);
    return tail;
  }

 private:
  static constexpr std::uint8_t nothing = 0;
  std::span<const std::uint8_t> bytes_;
};

inline std::string_view text_of(std::span<const std::uint8_t> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

[[noreturn]] inline void broken(const char* what, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  std::abort();
}

}  // namespace fuzz

#define FUZZ_CHECK(x) ((x) ? static_cast<void>(0) : ::fuzz::broken(#x, __FILE__, __LINE__))
