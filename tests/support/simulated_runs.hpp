// Counts the simulated runs of a test program, which prints their number at its end.
#pragma once

#include <cstdint>

namespace support {

/// The number of calls of `sim::run` so far.
inline std::uint64_t simulated_runs = 0;

}  // namespace support

// The Makefile includes this before tests that simulate.
#if defined(ANYIO_NET_SIM)
#include "anyio_net.hpp"

#include <type_traits>
#include <utility>

namespace support {

// The name is looked up here, where only the library's function is declared.
template <class X>
anyio::sim::report library_run(const anyio::sim::options& o, X&& x) {
  return anyio::sim::run(o, std::forward<X>(x));
}

}  // namespace support

namespace anyio::sim {

/// Counts the run. The constraint makes tests call this function rather than the library's, and the type of
/// the result, which depends on X, gives it another name for the linker.
template <class X>
  requires true
[[nodiscard]] std::enable_if_t<(sizeof(std::decay_t<X>) != 0), report> run(const options& o, X&& x) {
  ++support::simulated_runs;
  return support::library_run(o, std::forward<X>(x));
}

}  // namespace anyio::sim
#endif
