// All macros of the library.
//
// A program may define, before the first include or on the command line:
//
//   ANYIO_NET_MBEDTLS          TLS with mbedTLS, 2.28 or 3.2 and later
//   ANYIO_NET_OPENSSL          TLS with OpenSSL 3
//   ANYIO_NET_SIM              simulation, and fault injection for any backend
//   ANYIO_NET_KQUEUE           use kqueue on Linux too, through a library that provides <sys/event.h>
//   ANYIO_NET_NO_THREADS       names are resolved on the calling thread, `to_thread` is absent
//   ANYIO_NET_ASSERT(x)        checks a precondition; the default aborts, or does nothing with NDEBUG
//   ANYIO_NET_SPLIT            declarations only; one file also defines ANYIO_NET_IMPLEMENTATION
//   ANYIO_NET_IMPLEMENTATION   in split mode: this file holds the definitions
//
// The compiler tells whether exceptions are enabled. Each setting that changes a layout is part of the name
// of the inline namespace, so that translation units with different settings share no symbol.
#pragma once

#include "base/intro.hpp"

// The version is defined only here: the build files and the packages read it from here.
#define ANYIO_NET_VERSION_MAJOR 0
#define ANYIO_NET_VERSION_MINOR 1
#define ANYIO_NET_VERSION_PATCH 0
/// The version as one number, for `#if`.
#define ANYIO_NET_VERSION \
  (ANYIO_NET_VERSION_MAJOR * 10000 + ANYIO_NET_VERSION_MINOR * 100 + ANYIO_NET_VERSION_PATCH)

#if !defined(__cpp_impl_coroutine) && !defined(__cpp_coroutines)
#error "anyio_net.hpp needs C++20 with coroutines: compile with -std=c++20"
#endif

#if !defined(ANYIO_NET_ASSERT) && defined(NDEBUG)
#define ANYIO_NET_ASSERT(x) static_cast<void>(0)
#elif !defined(ANYIO_NET_ASSERT)
// Not assert, which stores the full name of each function that uses it: 4 KB in a small program.
#define ANYIO_NET_ASSERT(x) ((x) ? static_cast<void>(0) : anyio::detail::assertion_failed(#x, __LINE__))
#endif

#if !defined(ANYIO_NET_KQUEUE) && (defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || \
                                   defined(__OpenBSD__) || defined(__DragonFly__))
#define ANYIO_NET_KQUEUE
#endif

#if defined(__cpp_exceptions)
#define ANYIO_NET_EXCEPTIONS 1
#else
#define ANYIO_NET_EXCEPTIONS 0
#endif

#if !defined(ANYIO_NET_SPLIT)
#define ANYIO_NET_FN inline  // for a function that the header defines
#define ANYIO_NET_DEFINE 1   // this file holds the definitions
#else
#define ANYIO_NET_FN
#if defined(ANYIO_NET_IMPLEMENTATION)
#define ANYIO_NET_DEFINE 1
#else
#define ANYIO_NET_DEFINE 0
#endif
#endif
/// For a function that runs rarely: optimized for size, which also reduces the compile time.
#define ANYIO_NET_COLD [[gnu::cold]] ANYIO_NET_FN
/// For a parameter to which the returned reference refers: clang warns of a reference that outlives it.
#if defined(__clang__)
#define ANYIO_NET_LIFETIMEBOUND [[clang::lifetimebound]]
#else
#define ANYIO_NET_LIFETIMEBOUND
#endif
/// For a short function of a hot path, which is inlined except in builds for size.
#if defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
#define ANYIO_NET_HOT [[gnu::always_inline]]
#else
#define ANYIO_NET_HOT
#endif
/// For what begins only when it is used: a call whose result is dropped has no effect.
#define ANYIO_NET_LAZY [[nodiscard("it does nothing until it is awaited with co_await, or started")]]

#if ANYIO_NET_EXCEPTIONS && !defined(ANYIO_NET_NO_THREADS)
#define ANYIO_NET_ABI v1
#elif ANYIO_NET_EXCEPTIONS
#define ANYIO_NET_ABI v1_no_threads
#elif !defined(ANYIO_NET_NO_THREADS)
#define ANYIO_NET_ABI v1_no_exceptions
#else
#define ANYIO_NET_ABI v1_no_exceptions_no_threads
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {
/// Prints "anyio_net.hpp:<line>: assertion failed: <what>" and aborts.
[[noreturn]] void assertion_failed(const char* what, int line) noexcept;
}}}  // namespace anyio::detail

// Translation units that share no symbol of the library would link even with different settings. Therefore
// each setting has an object that is thread-local in one state and not in the other; the linker then
// rejects the pair and prints the object's name.
#if defined(__ELF__)
extern "C" {
#if ANYIO_NET_EXCEPTIONS
__attribute__((used)) inline char anyio_net_exceptions_must_agree;
#else
__attribute__((used)) inline thread_local char anyio_net_exceptions_must_agree;
#endif
#if !defined(ANYIO_NET_NO_THREADS)
__attribute__((used)) inline char ANYIO_NET_NO_THREADS_must_agree;
#else
__attribute__((used)) inline thread_local char ANYIO_NET_NO_THREADS_must_agree;
#endif
}
#endif
