// A simulated run as fuzz targets use it: options from the input's bytes, payload that identifies its
// position, and the rules for every run.
#pragma once

#include "anyio_net.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "input.hpp"

namespace fuzz {

/// Faults chosen by a byte for the kinds and one for the frequency; 0 is none.
inline anyio::sim::faults faults_of(input& in) {
  const unsigned kinds = in.byte();
  const unsigned often = kinds == 0 ? 0 : in.byte();
  constexpr double shares[] = {0.02, 0.1, 0.3, 0.6};
  const auto likely = [&](unsigned bit) { return (kinds >> bit & 1) != 0 ? shares[often & 3] : 0.0; };
  anyio::sim::faults f;
  f.short_io = likely(0);
  f.would_block = likely(1);
  f.interrupted = likely(2);
  f.reset = likely(3) / 8;
  f.drop = likely(4);
  f.duplicate = likely(5);
  f.reorder = likely(5);
  f.accept_exhausted = likely(6);
  f.name_failure = likely(6);
  if ((kinds >> 7 & 1) != 0) f.latency_max = std::chrono::microseconds(std::uint64_t{1} << (often >> 2 & 15));
  return f;
}

/// With FUZZ_LOG set, a replayed input shows every call of the simulated system.
inline void log_line(std::string_view line) {
  std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
}
inline anyio::sim::options new_options() {
  static const bool wanted = std::getenv("FUZZ_LOG") != nullptr;
  anyio::sim::options o;
  if (wanted) o.log = log_line;
  return o;
}

/// Bytes without a short period, twice, so that any part of up to 64 KiB is contiguous.
inline const std::string& pattern() {
  static const std::string bytes = [] {
    std::string all(131072, '\0');
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<char>(i * 167 + (i >> 8) * 31);
    return all;
  }();
  return bytes;
}

/// A part of a flow of bytes. The first one is the flow's number, the others differ between flows: a byte
/// that is lost, duplicated or of another flow is detected.
inline std::string payload(std::uint8_t flow, std::uint64_t from, std::size_t size) {
  std::string bytes;
  bytes.reserve(size);
  while (bytes.size() != size) {
    const std::size_t at = (from + bytes.size() + flow * std::size_t{251}) % 65536;
    bytes.append(pattern(), at, std::min<std::size_t>(size - bytes.size(), 65536));
  }
  if (from == 0 && size != 0) bytes.front() = static_cast<char>(flow);
  return bytes;
}

inline bool is_payload(std::uint8_t flow, std::uint64_t from, std::string_view bytes) {
  return payload(flow, from, bytes.size()) == bytes;
}

/// The options of a run whose faults and choices the input decides.
inline anyio::sim::options options_of(input& in) {
  anyio::sim::options o = new_options();
  o.faults = faults_of(in);
  o.choices = in.take_tail(in.byte());
  return o;
}

/// The rules for every run: it ended by itself, and left nothing open.
inline void check(const anyio::sim::report& r) {
  if (r.ok()) return;
  std::fprintf(stderr, "%s\n%s", r.message().c_str(), r.dump.c_str());
  std::abort();
}

/// A hash of a target's observations, to compare runs.
class observed {
 public:
  void add(std::uint64_t value) noexcept {
    for (int i = 0; i < 8; ++i) hash_ = (hash_ ^ (value >> (8 * i) & 0xff)) * 0x100000001b3;
  }
  [[nodiscard]] std::uint64_t value() const noexcept { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace fuzz
