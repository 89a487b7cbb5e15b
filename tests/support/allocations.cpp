#include "allocations.hpp"

#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string_view>

#if defined(__linux__)
#include <malloc.h>
#endif

namespace support {
namespace {

constinit std::atomic<std::int64_t> live{0};
constinit thread_local std::size_t count = 0;
constinit thread_local std::size_t bytes = 0;
constinit thread_local bool forbidden = false;
constinit thread_local std::string_view watched;
constinit thread_local bool watched_seen = false;
constinit thread_local std::size_t until_failure = 0;  // 0: none
constinit thread_local bool never_fails = false;

// Nothing here may allocate.
[[noreturn]] void refuse(std::size_t size) {
  forbidden = false;  // for the handlers of abort
  char line[80];
  const int length =
      std::snprintf(line, sizeof line, "allocation of %zu bytes while none are allowed\n", size);
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line, static_cast<std::size_t>(length));
  std::abort();
}

[[maybe_unused]] void* allocate(std::size_t size, std::size_t alignment) noexcept {
  if (forbidden) refuse(size);
  void* memory = nullptr;
  if (until_failure != 0 && !never_fails && --until_failure == 0) return memory;
  if (alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__) {
    memory = std::malloc(size != 0 ? size : 1);
  } else if (::posix_memalign(&memory, alignment, size != 0 ? size : 1) != 0) {
    memory = nullptr;
  }
  if (memory != nullptr) {
    ++count;
    bytes += size;
    live.fetch_add(1, std::memory_order_relaxed);
  }
  return memory;
}

[[maybe_unused]] void* allocate_or_throw(std::size_t size, std::size_t alignment) {
  void* memory = allocate(size, alignment);
  if (memory != nullptr) return memory;
#if defined(__cpp_exceptions)
  throw std::bad_alloc();
#else
  std::abort();
#endif
}

[[maybe_unused]] void release(void* memory) noexcept {
  if (memory == nullptr) return;
#if defined(__linux__)
  if (!watched.empty()) {
    const std::string_view freed(static_cast<const char*>(memory), ::malloc_usable_size(memory));
    if (freed.find(watched) != freed.npos) watched_seen = true;
  }
#endif
  live.fetch_sub(1, std::memory_order_relaxed);
  std::free(memory);
}

[[maybe_unused]] constexpr std::size_t usual = __STDCPP_DEFAULT_NEW_ALIGNMENT__;

}  // namespace

allocation_scope::allocation_scope() : count_before_(support::count), bytes_before_(support::bytes) {}
std::size_t allocation_scope::count() const { return support::count - count_before_; }
std::size_t allocation_scope::bytes() const { return support::bytes - bytes_before_; }

fail_allocations::fail_allocations(bool on) : before_(forbidden) { forbidden = on; }
fail_allocations::~fail_allocations() { forbidden = before_; }

watch_freed::watch_freed(std::string_view text) {
  watched = text;
  watched_seen = false;
}
watch_freed::~watch_freed() { watched = {}; }
bool watch_freed::seen() const { return watched_seen; }
fail_nth_allocation::fail_nth_allocation(std::size_t n) { until_failure = n; }
fail_nth_allocation::~fail_nth_allocation() { until_failure = 0; }
bool fail_nth_allocation::reached() const { return until_failure == 0; }

allow_allocations::allow_allocations() : before_(never_fails) { never_fails = true; }
allow_allocations::~allow_allocations() { never_fails = before_; }

std::int64_t live_allocations() { return live.load(std::memory_order_relaxed); }

}  // namespace support

// clang's thread sanitizer has an operator new that cannot be replaced: nothing is counted there.
#if !ANYIO_NET_TEST_TSAN

using support::allocate;
using support::allocate_or_throw;
using support::release;
using support::usual;

// clang-format off
void* operator new(std::size_t n) { return allocate_or_throw(n, usual); }
void* operator new[](std::size_t n) { return allocate_or_throw(n, usual); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, usual); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, usual); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return allocate(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return allocate(n, static_cast<std::size_t>(a)); }

void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
// clang-format on

#endif
