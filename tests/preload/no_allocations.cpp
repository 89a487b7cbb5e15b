// Preloaded into a program, it forbids allocations: from the first wait of the program's loop on, every
// allocating call, malloc and all that use it (operator new too), prints a message and aborts. Freeing is
// allowed. Earlier calls are counted, and the count is printed when the wait begins.
#include <sys/epoll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

// glibc's own functions, whose names are replaced here.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

constinit std::atomic<std::size_t> calls{0};
constinit std::atomic<bool> forbidden{false};

template <class... Arguments>
void say(const char* format, Arguments... arguments) {
  char line[128];
  const int size = std::snprintf(line, sizeof line, format, arguments...);
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line, static_cast<std::size_t>(size));
}

void count(std::size_t size) {
  calls.fetch_add(1, std::memory_order_relaxed);
  if (!forbidden.exchange(false)) return;
  say("no_allocations: %zu bytes were asked for\n", size);
  std::abort();
}

}  // namespace

extern "C" {

void* malloc(std::size_t size) {
  count(size);
  return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
  count(n * size);
  return __libc_calloc(n, size);
}
void* realloc(void* old, std::size_t size) {
  count(size);
  return __libc_realloc(old, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) { return memalign(alignment, size); }
int posix_memalign(void** to, std::size_t alignment, std::size_t size) {
  *to = memalign(alignment, size);
  return *to != nullptr ? 0 : ENOMEM;
}

int epoll_wait(int poller, epoll_event* events, int most, int milliseconds) {
  static std::atomic<bool> waited{false};
  if (!waited.exchange(true)) {
    say("no_allocations: from here on, after %zu\n", calls.load());
    forbidden = true;
  }
  return ::epoll_pwait(poller, events, most, milliseconds, nullptr);
}
}
