// How much of a sweep is done. Under sanitizers and in an emulator a part of it, since there it takes long:
// `make check-long` and `make cross` do all, by ANYIO_NET_TEST_LONG in the environment.
#pragma once

#include <cstdlib>

#if defined(ANYIO_NET_TEST_SLOW)  // by the Makefile, for an emulator
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ANYIO_NET_TEST_SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ANYIO_NET_TEST_SLOW 1
#endif
#endif
#if !defined(ANYIO_NET_TEST_SLOW)
#define ANYIO_NET_TEST_SLOW 0
#endif

namespace support {

/// Whether a sweep is done in full where it takes long too.
inline bool takes_its_time() {
  static const bool asked = std::getenv("ANYIO_NET_TEST_LONG") != nullptr;
  return asked;
}

/// The part of a sweep that is done: one step in so many.
inline int one_in() { return ANYIO_NET_TEST_SLOW == 0 || takes_its_time() ? 1 : 16; }

/// The number of rounds that are done of `all`, at least one.
template <class Number>
Number some_of(Number all) {
  const Number part = all / static_cast<Number>(one_in());
  return part == 0 ? Number{1} : part;
}

/// Where the next sweep that does every `one_in()`-th step begins: at another step each time, counted from 1.
inline int first_step() {
  static int sweeps = 0;
  return 1 + sweeps++ % one_in();
}

}  // namespace support
