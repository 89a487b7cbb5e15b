// Counts allocations of operator new, and forbids them where a test requires that nothing is allocated.
//
// A compiler may remove a matching `new` and `delete`; ::operator new(n) stays. Under the thread sanitizer
// nothing is counted and nothing forbidden: see `counts_allocations`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#if defined(__SANITIZE_THREAD__)
#define ANYIO_NET_TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ANYIO_NET_TEST_TSAN 1
#endif
#endif
#if !defined(ANYIO_NET_TEST_TSAN)
#define ANYIO_NET_TEST_TSAN 0
#endif

namespace support {

inline constexpr bool counts_allocations = !ANYIO_NET_TEST_TSAN;

/// Allocations of this thread since the object was made.
class allocation_scope {
 public:
  allocation_scope();
  std::size_t count() const;  ///< calls of operator new
  std::size_t bytes() const;  ///< the requested bytes

 private:
  std::size_t count_before_;
  std::size_t bytes_before_;
};

/// While it exists, an allocation on this thread prints its size and aborts; `false` allows allocations again
/// for an inner scope.
class fail_allocations {
 public:
  explicit fail_allocations(bool on = true);
  ~fail_allocations();
  fail_allocations(const fail_allocations&) = delete;
  fail_allocations& operator=(const fail_allocations&) = delete;

 private:
  bool before_;
};

/// While it exists, checks whether this thread frees memory that contains a text. Only on Linux.
class watch_freed {
 public:
  explicit watch_freed(std::string_view text);
  ~watch_freed();
  watch_freed(const watch_freed&) = delete;
  watch_freed& operator=(const watch_freed&) = delete;
  [[nodiscard]] bool seen() const;
};

/// While it exists, the n-th allocation of this thread, counted from 1, fails: `std::bad_alloc`.
class fail_nth_allocation {
 public:
  explicit fail_nth_allocation(std::size_t n);
  ~fail_nth_allocation();
  fail_nth_allocation(const fail_nth_allocation&) = delete;
  fail_nth_allocation& operator=(const fail_nth_allocation&) = delete;
  bool reached() const;  ///< whether it has failed
};

/// While it exists, `fail_nth_allocation` neither fails nor counts allocations of this thread.
class allow_allocations {
 public:
  allow_allocations();
  ~allow_allocations();
  allow_allocations(const allow_allocations&) = delete;
  allow_allocations& operator=(const allow_allocations&) = delete;

 private:
  bool before_;
};

/// Allocations of the whole program that are not freed yet.
std::int64_t live_allocations();

}  // namespace support
