// Signals on POSIX systems: one handler for the process, which wakes every loop that catches the number.
#pragma once

#include "base/atomic.hpp"
#include "base/owned.hpp"
#include "base/standard.hpp"
#include "system/posix_backend.hpp"

#include <cerrno>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

inline constexpr int signal_limit = 64;  // the highest number that can be caught

/// The entry of one loop for the signal handler. `taken` is protected by the lock; the handler uses `wake_fd`
/// only while a bit is set in `caught`.
struct signal_slot {
  atomic<std::uint32_t> caught[2]{};   // one bit per number, in words of 32 bits, which are
  atomic<std::uint32_t> pending[2]{};  // lock-free on every known target
  atomic<int> wake_fd{0};              // -1: it belongs to the parent, so do not wake it
  bool taken = false;
};

/// The only table of the process. It is initialized at compile time and never destroyed, so that a handler
/// may run before main and after it.
struct signal_table {
  static constexpr int slot_count = 256;

#if !defined(ANYIO_NET_NO_THREADS)
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;  // for changes of the table; never taken by the handler
#endif
  atomic<int> handlers{0};    // how many handlers run now
  atomic<int> slots_used{0};  // one past the highest slot that was ever taken
  signal_slot slots[slot_count]{};
  std::uint32_t catchers[signal_limit]{};  // how many loops catch a number, at number - 1
  sigset_t before_fork{};                  // the signal mask of the forking thread
  struct sigaction before[signal_limit]{};
};

static_assert(atomic<std::uint32_t>::is_lock_free && atomic<int>::is_lock_free,
              "signal handlers require lock-free atomics");

inline signal_table& the_signals() noexcept {
  static constinit signal_table table;
  return table;
}

inline void lock_signals() noexcept {
#if !defined(ANYIO_NET_NO_THREADS)
  ::pthread_mutex_lock(&the_signals().mutex);
#endif
}

inline void unlock_signals() noexcept {
#if !defined(ANYIO_NET_NO_THREADS)
  ::pthread_mutex_unlock(&the_signals().mutex);
#endif
}

class signal_lock {
 public:
  signal_lock() noexcept { lock_signals(); }
  ~signal_lock() { unlock_signals(); }
  signal_lock(const signal_lock&) = delete;
  signal_lock& operator=(const signal_lock&) = delete;
};

/// The only handler: marks the number as pending for every loop that catches it, and wakes these loops.
inline void note_signal(int number) noexcept {
  const int saved_errno = errno;
  signal_table& table = the_signals();
  table.handlers.fetch_add(1);
  const auto index = static_cast<unsigned>(number - 1);
  const unsigned word = index / 32;
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  const int used = table.slots_used.load();
  for (int i = 0; i < used; ++i) {
    signal_slot& slot = table.slots[i];
    if ((slot.caught[word].load() & bit) == 0) continue;
    slot.pending[word].fetch_or(bit);
    const std::uint64_t one = 1;
    // A full descriptor means that a wake-up is pending already.
    const int fd = slot.wake_fd.load();
    [[maybe_unused]] const ssize_t n = fd < 0 ? 0 : ::write(fd, &one, sizeof one);
  }
  table.handlers.fetch_sub(1);
  errno = saved_errno;
}

/// Returns when no handler runs that may have seen an older state of the table. The handler first increments
/// the count and then reads the table; the caller first changes the table and then reads the count. The
/// accesses are sequentially consistent, so at least one of the two sees the other's write.
inline void wait_for_handlers() noexcept {
  for (int spins = 0; the_signals().handlers.load() != 0; ++spins) {
    if (spins > 1000) ::poll(nullptr, 0, 1);  // lets the handler run, even on a thread of lower priority
  }
}

// During a fork the forking thread holds the lock and blocks all signals, so that no handler of the child
// wakes the parent. Signals from before the fork belong to the parent, as with pending signals (fork(2)).
[[gnu::cold]] inline void prepare_signals_for_fork() noexcept {
  sigset_t all;
  sigfillset(&all);
  lock_signals();
  ::pthread_sigmask(SIG_SETMASK, &all, &the_signals().before_fork);
}

[[gnu::cold]] inline void release_signals_after_fork() noexcept {
  const sigset_t before = the_signals().before_fork;
  unlock_signals();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

[[gnu::cold]] inline void part_signals_from_parent() noexcept {
  signal_table& table = the_signals();
  table.handlers.store(0);  // the count of other threads, which do not exist in the child
  const int used = table.slots_used.load();
  for (int i = 0; i < used; ++i) {
    table.slots[i].wake_fd.store(-1);
    for (auto& word : table.slots[i].pending) word.store(0);
  }
  release_signals_after_fork();
}

[[gnu::cold]] inline void part_signals_at_fork() {
  static const bool done = [] {
    at_fork(prepare_signals_for_fork, release_signals_after_fork, part_signals_from_parent);
    return true;
  }();
  static_cast<void>(done);
}

class posix_signals final : public signal_service {
 public:
  explicit posix_signals(int wake_descriptor) noexcept : wake_fd_(wake_descriptor) {}
  posix_signals(const posix_signals&) = delete;
  posix_signals& operator=(const posix_signals&) = delete;
  ANYIO_NET_FN ~posix_signals() override;

  ANYIO_NET_FN int catch_signal(int number) override;
  ANYIO_NET_FN void release_signal(int number) override;
  ANYIO_NET_FN bool take_signal(int number) override;
  ANYIO_NET_FN void wake_by(int wake_descriptor) override;

 private:
  int wake_fd_;
  int slot_ = -1;                         // in the table of the process; -1: none yet
  std::uint32_t caught_[signal_limit]{};  // how many times each number is caught, at number - 1
};

ANYIO_NET_FN ending_signals signals_that_end() noexcept { return {SIGINT, SIGTERM}; }

ANYIO_NET_FN owned<signal_service> system_signals(int wake_descriptor) {
  return owned<signal_service>(new posix_signals(wake_descriptor));
}

ANYIO_NET_COLD int posix_signals::catch_signal(int number) {
  if (number < 1 || number > signal_limit) return -EINVAL;
  const auto index = static_cast<unsigned>(number - 1);
  const unsigned word = index / 32;
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  if (caught_[index] != 0) {
    ++caught_[index];
    return 0;
  }

  part_signals_at_fork();
  const signal_lock lock;
  signal_table& table = the_signals();
  if (slot_ < 0) {
    if (wake_fd_ < 0) return -ENOTSUP;
    int first_free = 0;
    while (first_free < signal_table::slot_count && table.slots[first_free].taken) ++first_free;
    if (first_free == signal_table::slot_count) return -EMFILE;
    table.slots[first_free].taken = true;
    table.slots[first_free].wake_fd.store(wake_fd_);
    if (first_free >= table.slots_used.load()) table.slots_used.store(first_free + 1);
    slot_ = first_free;
  }

  signal_slot& slot = table.slots[slot_];
  slot.caught[word].fetch_or(bit);
  if (table.catchers[index] == 0) {
    struct sigaction action {};
    action.sa_handler = note_signal;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    if (::sigaction(number, &action, &table.before[index]) != 0) {
      const int reason = errno;
      slot.caught[word].fetch_and(~bit);
      return -reason;
    }
  }
  ++table.catchers[index];
  ++caught_[index];
  return 0;
}

ANYIO_NET_COLD void posix_signals::release_signal(int number) {
  if (number < 1 || number > signal_limit) return;
  const auto index = static_cast<unsigned>(number - 1);
  const unsigned word = index / 32;
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  if (caught_[index] == 0 || --caught_[index] != 0) return;

  const signal_lock lock;
  signal_table& table = the_signals();
  // The disposition changes first, so that at no time a signal is caught but reaches no loop.
  if (--table.catchers[index] == 0) ::sigaction(number, &table.before[index], nullptr);
  signal_slot& slot = table.slots[slot_];
  slot.caught[word].fetch_and(~bit);
  wait_for_handlers();
  slot.pending[word].fetch_and(~bit);
}

ANYIO_NET_FN bool posix_signals::take_signal(int number) {
  if (number < 1 || number > signal_limit || slot_ < 0) return false;
  const auto index = static_cast<unsigned>(number - 1);
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  atomic<std::uint32_t>& pending = the_signals().slots[slot_].pending[index / 32];
  return (pending.load() & bit) != 0 && (pending.fetch_and(~bit) & bit) != 0;
}

ANYIO_NET_COLD void posix_signals::wake_by(int wake_descriptor) {
  wake_fd_ = wake_descriptor;
  if (slot_ < 0) return;
  const signal_lock lock;
  the_signals().slots[slot_].wake_fd.store(wake_fd_);
}

ANYIO_NET_COLD posix_signals::~posix_signals() {
  if (slot_ < 0) return;
  for (int number = 1; number <= signal_limit; ++number) {
    std::uint32_t& caught = caught_[number - 1];
    if (caught == 0) continue;
    caught = 1;
    release_signal(number);
  }
  const signal_lock lock;
  the_signals().slots[slot_].taken = false;
}

ANYIO_NET_FN thread_service& system_threads() noexcept {
  struct own final : posix_threads {};
  static constinit own threads;
  return threads;
}

ANYIO_NET_FN bool posix_threads::uses_threads() const {
#if defined(ANYIO_NET_NO_THREADS)
  return false;
#else
  return true;
#endif
}

#if !defined(ANYIO_NET_NO_THREADS)

struct thread_body {
  void (*body)(void*);
  void* argument;
};

extern "C" inline void* anyio_net_thread_main(void* given) {
  const thread_body run = *static_cast<thread_body*>(given);
  delete static_cast<thread_body*>(given);
  run.body(run.argument);
  return nullptr;
}

ANYIO_NET_COLD int posix_threads::start_thread(void (*body)(void*), void* argument) {
  owned<thread_body> given(new thread_body{body, argument});
  pthread_attr_t attributes;
  if (const int e = pthread_attr_init(&attributes); e != 0) return -e;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  // The new thread inherits this mask: all signals blocked, so that handlers run on the program's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t id;
  const int e = pthread_create(&id, &attributes, anyio_net_thread_main, given.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (e == 0) static_cast<void>(given.release());  // the thread owns it now
  return -e;
}

#else

ANYIO_NET_COLD int posix_threads::start_thread(void (*)(void*), void*) { return -ENOTSUP; }

#endif

}}}  // namespace anyio::detail
