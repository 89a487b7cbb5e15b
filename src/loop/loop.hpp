// The event loop: ready and waiting nodes, timers, descriptors, posted calls.
//
// A turn asks the poller once, then runs the ready list in rounds until the list is empty or a limit of work
// is reached, so that neither timers nor posted calls nor the poller starve. Users hold a `loop`; streams and
// operations hold its `loop_core`, which outlives the loop as long as any of them does. This part must not
// know coroutines, callbacks or protocols.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/owned.hpp"
#include "base/recycler.hpp"
#include "base/standard.hpp"
#include "loop/ready_list.hpp"
#include "loop/resource.hpp"
#include "loop/timers.hpp"
#include "system/backend.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(ANYIO_NET_NO_THREADS)
#include <mutex>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {

class loop;

namespace detail {

/// Converts any duration, also a floating-point one, to nanoseconds; saturates, and NaN becomes zero.
template <class Rep, class Period>
constexpr duration to_duration(std::chrono::duration<Rep, Period> d) {
  if constexpr (std::is_same_v<decltype(d), duration>) {
    return d;
  } else {
    using seconds = std::chrono::duration<long double>;
    const long double s = std::chrono::duration_cast<seconds>(d).count();
    constexpr long double limit = 9.2e9L;  // a little less than 2^63 nanoseconds
    if (s >= limit) return duration::max();
    if (s <= -limit) return duration::min();
    if (!(s < limit)) return duration::zero();  // not a number
    if constexpr (std::is_floating_point_v<Rep>) {
      const long double ns = s * 1e9L;  // rounded up, so that a timer is never early
      const auto whole = static_cast<std::int64_t>(ns);
      return duration(whole + (static_cast<long double>(whole) < ns ? 1 : 0));
    } else {
      return std::chrono::ceil<duration>(d);
    }
  }
}

/// A posted callable.
struct posted_node : node {
  virtual ~posted_node() = default;
};

/// The receive buffer. It is aligned, since the kernel then copies faster.
struct alignas(64) loop_buffer {
  std::byte bytes[65536];
};

/// The state that a loop shares with its handles on other threads. All mailboxes of the process are in a
/// list, so that none of them is locked by another thread during fork(2).
struct mailbox : link {
  mailbox();
  mailbox(const mailbox&) = delete;
  mailbox& operator=(const mailbox&) = delete;
  ~mailbox();

#if !defined(ANYIO_NET_NO_THREADS)
  std::mutex mutex;
#endif
  list calls;                                   // posted nodes
  backend* system = nullptr;                    // null once the loop is gone
  std::uint32_t forks_of_owner = forks_so_far;  // in the process that owns the loop
  bool post(posted_node& call);
  /// Adds the call to the mailbox. Returns false and does nothing once the loop is gone.
  bool offer(posted_node& call);
};

class loop_core {
 public:
  explicit loop_core(std::unique_ptr<backend> system);
  loop_core(const loop_core&) = delete;
  loop_core& operator=(const loop_core&) = delete;

  /// The running loop (the innermost if there are several), or else the loop that was made last. A loop that
  /// was made after the running one began takes precedence over it. Null if there is none.
  [[nodiscard]] static loop_core* current_or_null() noexcept { return latest ? latest->core : nullptr; }
  [[nodiscard]] static loop_core& current();

  [[nodiscard]] backend& system() noexcept { return *system_; }
  /// Shares the backend with a helper thread, whose look-up may outlast the loop.
  [[nodiscard]] shared<backend> share_system() const noexcept { return system_; }
  [[nodiscard]] bool alive() const noexcept { return system_ != nullptr; }
  [[nodiscard]] bool running() const noexcept { return running_; }
  /// Whether this process is a child that inherited the loop by fork(2), so that the poller is the parent's.
  [[nodiscard]] bool inherited() const noexcept {
    return mail->forks_of_owner != forks_so_far && alive() && system_->native_handle() >= 0;
  }
  void after_fork();

  /// Held by a call that returns only after something has completed; outer loops that are running cannot
  /// continue meanwhile. `runner` represents the call, as the owner of the operation that it waits for; null
  /// means that the call waits until the loop is idle.
  class waiting_scope {
   public:
    explicit waiting_scope(loop_core& core, const node* runner = nullptr) noexcept;
    waiting_scope(const waiting_scope&) = delete;
    waiting_scope& operator=(const waiting_scope&) = delete;
    ~waiting_scope();

   private:
    ref<loop_core> core_;
    const waiting_scope* const before_;
    const node* const runner_before_;
    friend class loop_core;
  };
  /// Whether a call with a `waiting_scope` on another loop keeps this loop from continuing.
  [[nodiscard]] bool blocked() const noexcept { return blocked_by_ != nullptr; }
  /// Finds an inner loop with a call that waits for `root`, the last owner in a chain. The wait would never
  /// end, since the call keeps this loop from continuing. Null if there is none. A null `root` means that the
  /// owner is not known; then any waiting inner call counts.
  [[nodiscard]] loop_core* stranding(const node* root) const noexcept;
  [[nodiscard]] time_point now() { return system_->now(); }

  /// Moves a node to the end of the ready list, from any list.
  void queue(node& n) noexcept {
    n.unlink();
    ready_.push_back(n);
    n.queued = true;
  }
  /// Makes the node that was queued last run next. Used when its starter has had its turn already.
  void advance_last() noexcept {
    if (ready_.empty()) return;
    link& last = *ready_.previous;
    last.take_out();
    round_.push_front(last);
  }
  /// Moves a node to the list of waiting nodes, where it stays until something queues it.
  void park(node& n) noexcept {
    n.unlink();
    parked_.push_back(n);
    n.queued = false;
  }
  /// Whether a ready operation may still complete at once; otherwise it waits for its turn.
  [[nodiscard]] bool spend_inline() noexcept {
    if (!running_ || share_spent()) return false;
    work_ += work_of_inline;
    return true;
  }
  /// Whether an awaited task may begin at once; tasks that never wait must not starve the loop.
  [[nodiscard]] bool spend_await() noexcept {
    if (!running_) return true;
    if (await_budget_ == 0) return false;
    --await_budget_;
    work_ += work_of_await;
    return true;
  }
  /// Counts work: system calls, or work that takes as long as a call, and bytes moved.
  void count_work(std::size_t bytes, std::size_t calls = 1) noexcept {
    work_ += static_cast<std::uint32_t>(calls * work_of_call + bytes / bytes_of_unit);
  }
  /// Whether the running node has done its share of work; an attempt that could continue takes another turn.
  [[nodiscard]] bool share_spent() const noexcept { return work_ >= end_of_share_; }
  /// The most bytes per call; a larger transfer takes several calls.
  static constexpr std::size_t most_of_call = std::size_t{256} * 1024;

  void arm(timer& t, time_point deadline, node& target) noexcept { timers_.arm(t, deadline, target); }

  /// The loop's own receive buffer; the next read into it overwrites its content.
  [[nodiscard]] mutable_buffer buffer() {
    if (!buffer_.unique()) renew_buffer();
    buffer_lent_ = end_of_share_;
    await_budget_ = await_budget_of_node;  // a task that receives a view of it begins at once
    return mutable_buffer(buffer_->bytes, buffer_size);
  }
  /// Whether the running node received the buffer, so that a view of it may exist.
  [[nodiscard]] bool buffer_was_lent() const noexcept { return buffer_lent_ == end_of_share_; }
  /// Keeps the content of the buffer alive; the loop then reads into another buffer.
  [[nodiscard]] shared<loop_buffer> share_buffer() const noexcept { return buffer_; }
  [[nodiscard]] bool in_buffer(const void* p) const noexcept {
    const auto* byte = static_cast<const std::byte*>(p);
    return buffer_ != nullptr && byte >= buffer_->bytes && byte < buffer_->bytes + buffer_size;
  }
  static constexpr std::size_t buffer_size = sizeof(loop_buffer::bytes);

  /// Watches both directions of a descriptor for a resource. 0 or a negative errno.
  [[nodiscard]] int watch(registration& r, resource& owner);
  /// Returns a token for a descriptor that is watched in another way; `leave` releases the token.
  [[nodiscard]] std::uint64_t enter(registration& r, resource& owner);
  void leave(registration& r) noexcept;
  /// Whether any resource watches this descriptor. Searches all resources.
  [[nodiscard]] bool watches(int fd) const noexcept;
  /// Removes the descriptor from the poller, unless the poller belongs to the parent process.
  void unwatch(int fd) noexcept {
    if (!inherited()) system_->forget(fd);
  }
  /// Stops watching the descriptor, and closes it if `close_it` is true.
  void forget(registration& r, bool close_it = true) noexcept;
  /// Wakes the reader of the entry's resource after this loop has closed a descriptor. For calls that failed
  /// because no descriptor was free.
  void wait_for_descriptor(starved& s) noexcept {
    s.unlink();
    starved_.push_back(s);
  }
  /// Wakes the reader and the writer of a resource after a pause. For calls that failed with ENOBUFS or
  /// ENOMEM: no event reports when the system has memory again. The pause grows from a millisecond to a
  /// quarter of a second while the attempts after it fail.
  void wait_for_memory(starved& s, resource& waiter) noexcept;

  bool turn(duration at_most);
  /// Waits until a node is ready, and runs one node. For tests.
  void step();
  /// Runs until `*done` is true, until no node is pending and no call is posted, or until `stop`.
  void run(const bool* done = nullptr);
  void stop() noexcept {
    stopped_ = true;
    next_look_ = 0;
  }
  void reserve(std::size_t descriptors, std::size_t started_operations);
  [[nodiscard]] duration time_until_next();
  [[nodiscard]] std::string dump();
  void end();
  [[nodiscard]] bool idle() const noexcept;

  void post(posted_node& call) noexcept;
  shared<mailbox> mail;

  /// Called after each wait of the poller, for signals. Null while no signal receiver exists.
  void (*after_wait)(loop_core&) = nullptr;
  list signal_receivers;
  owned<signal_service> own_signals;  // unless the backend has its own
  list raw_descriptors;               // those that an operation waits for

  loop* object = nullptr;

 private:
  /// An entry in this thread's stack of current loops, the latest first. A loop has one entry while it lives,
  /// and a second one while it runs.
  struct claim {
    loop_core* core;
    claim* earlier;

    explicit claim(loop_core& c) noexcept : core(&c), earlier(detail::exchange(latest, this)) {}
    claim(const claim&) = delete;
    claim& operator=(const claim&) = delete;
    ~claim() { withdraw(); }
    void withdraw() noexcept {
      for (claim** place = &latest; *place != nullptr; place = &(*place)->earlier) {
        if (*place != this) continue;
        *place = earlier;
        return;
      }
    }
  };
  static inline constinit thread_local claim* latest = nullptr;

  /// Held by `run`, `turn` and `step`: the loop is current, and stays in memory even if it ends meanwhile.
  struct running_scope;

  template <class T>
  friend class ref;
  friend class resource;
  friend struct node;

  /// The resources that wait for memory, their common timer, and the node that the timer runs.
  struct shortage final : node {
    explicit shortage(loop_core& c) noexcept : loop(c) { how = &face_of_shortage; }
    static void run(node& n);
    static void abandon(node& n) { n.unlink(); }
    static node* owner(node&) { return nullptr; }
    static description describe(node&) { return {"wait for memory"}; }
    static constexpr face face_of_shortage{run, abandon, owner, describe};

    loop_core& loop;
    list waiting;
    timer pause;
    std::uint32_t milliseconds = 0;
    std::uint32_t ended = 0;  // the turn in which the last pause ended
  };

  struct slot {
    resource* owner = nullptr;
    std::uint32_t generation = 0;
    union {
      std::uint32_t next_free = 0;
      int fd;  // while there is an owner
    };
  };
  static constexpr std::uint32_t no_slot = std::numeric_limits<std::uint32_t>::max();
  static constexpr int rounds_of_turn = 32;
  static constexpr int timers_of_turn = 1024;
  // Work is counted in units of about 20 ns: a turn may take about 1.3 ms, and each node in it about 10 µs.
  // The clock limits the work of user code, which is not counted.
  static constexpr std::uint32_t work_of_turn = 65536;
  static constexpr std::uint32_t work_between_looks = 4096;  // units between looks at the clock
  static constexpr std::uint32_t work_of_completion = 64;
  static constexpr std::uint32_t share_of_node = 512;
  static constexpr std::uint32_t work_of_inline = 32;
  static constexpr std::uint32_t work_of_await = 4;
  static constexpr std::uint32_t work_of_call = 96;
  static constexpr std::uint32_t bytes_of_unit = 128;
  static constexpr std::uint32_t await_budget_of_node = 128;

  [[noreturn]] static void refuse_to_run();
  bool run_ready(const bool* done);
  bool turn_is_over();
  void leave_round() noexcept;
  void poll(duration at_most);
  void take_mail();
  bool abandon_at_resources() noexcept;
  void abandon_waiting() noexcept;
  void renew_buffer();
  void describe(node& n, bool ready, std::uint32_t time, std::string& text);
  void dispatch(const poll_event& event) noexcept;

  shared<backend> system_;
  list ready_;
  list round_;      // the nodes that were ready when the current round began
  list parked_;     // other nodes that wait; not those that a resource knows as its reader or writer
  list resources_;  // all of this loop
  claim lives_;
  timer_heap timers_;
  std::vector<slot> slots_;
  std::uint32_t free_slot_ = no_slot;
  list starved_;
  shortage shortage_{*this};
  shared<loop_buffer> buffer_;
  std::size_t pending_ = 0;
  time_point turn_began_{};
  std::uint32_t turn_milliseconds_ = 0;
  std::uint32_t references_ = 0;
  std::uint32_t work_ = 0;  // of this turn
  std::uint32_t next_look_ = work_between_looks;
  std::uint32_t end_of_share_ = 0;
  std::uint32_t await_budget_ = 0;
  std::uint32_t buffer_lent_ = 0;  // the share in which the buffer was lent
  bool running_ = false;
  bool stopped_ = false;
  const waiting_scope* waits_ = nullptr;       // the innermost call that waits on this loop
  const node* runner_ = nullptr;               // the owner that represents this call
  const waiting_scope* blocked_by_ = nullptr;  // the call on another loop that blocks this one
};

inline bool resource::gone() const noexcept { return shut_ || !core_.alive(); }

ANYIO_NET_HOT inline void resource::wake(side s) noexcept {
  node* const n = waiting_[s];
  if (n == nullptr || (n->linked() && n->queued)) return;  // a queued node keeps its place
  core_.queue(*n);
}

inline void resource::ready(std::uint32_t bits) noexcept {
  if (bits & (ready_end | ready_urgent)) read_to_end = true;
  if (bits & ready_read) {
    exhausted[read_side] = false;
    wake(read_side);
  }
  if (bits & ready_write) {
    exhausted[write_side] = false;
    wake(write_side);
  }
}

[[gnu::always_inline]] inline void node::begin(loop_core& on, const face& f, errc known) noexcept {
  how = &f;
  core = &on;
  early = known;
  again = cancelled = finished = queued = awaited = false;
  since = on.turn_milliseconds_;
  ++on.pending_;
}

/// Runs a pending node at once, as the loop runs one that is ready: it passes on its outcome, or waits on.
inline void run_now(node& n) {
  n.core->park(n);
  n.how->run(n);
}

[[gnu::always_inline]] inline void node::end_pending() noexcept {
  unlink();
  --core->pending_;
  core = nullptr;
  how = nullptr;
}

template <class F>
struct posted_call final : posted_node, pooled<recycler::operations> {
  explicit posted_call(F&& f) : call(std::move(f)) {}

  static void run(node& n) {
    const owned<posted_call> self(static_cast<posted_call*>(&n));
    F f = std::move(self->call);
    self->retire();
    std::move(f)();
  }
  static void abandon(node& n) { delete static_cast<posted_call*>(&n); }
  static node* owner(node&) { return nullptr; }
  static description describe(node&) { return {"post"}; }
  static constexpr face face_of_call{run, abandon, owner, describe};

  F call;
};

template <class F>
posted_node& make_posted(F&& f) {
  using call = posted_call<std::decay_t<F>>;
  auto* p = new call(std::decay_t<F>(std::forward<F>(f)));
  p->how = &call::face_of_call;
  return *p;
}

}  // namespace detail

/// Posts calls to a loop from any thread; may outlive the loop. With ANYIO_NET_NO_THREADS only the loop's own
/// thread may use it.
class loop_handle {
 public:
  loop_handle() = default;

  /// Runs the callable on the loop, in the order of posting. Once the loop is gone, destroys the callable and
  /// returns false.
  template <class F>
  bool post(F&& callable) const {
    return mail_ != nullptr && mail_->post(detail::make_posted(std::forward<F>(callable)));
  }

 private:
  friend class loop;
  explicit loop_handle(detail::shared<detail::mailbox> mail) : mail_(std::move(mail)) {}
  detail::shared<detail::mailbox> mail_;
};

/// An event loop. It belongs to the thread that made it, and is that thread's current loop while it lives.
///
/// It may be destroyed before its streams and operations: callbacks are destroyed without a call, descriptors
/// are closed, and objects that outlive the loop return `closed_resource`.
class loop {
 public:
  /// Makes a loop on epoll (Linux) or kqueue (the BSDs and macOS). Aborts if no poller can be created.
  loop();
  /// Makes a loop on a given backend: `system_backend()`, a simulation, or a backend with faults.
  explicit loop(std::unique_ptr<backend> system);
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;
  ~loop();

  /// This thread's current loop: the one that runs, or else the one made last that still lives. Aborts if
  /// there is none.
  [[nodiscard]] static loop& current();

  /// Runs until no operation is pending and no call is posted, or until `stop()`. May be called again, but
  /// not from inside `run` or `run_once` of this loop: that fails an assertion, or without assertions raises
  /// `invalid_argument` (without exceptions: prints it and aborts). Loops may run inside one another; see
  /// `anyio::run`.
  void run() { core_->run(); }
  /// Runs one turn, which waits at most `at_most`. Returns true if something ran. Must not be called from
  /// inside `run` or `run_once` of this loop.
  template <class Rep, class Period>
  bool run_once(std::chrono::duration<Rep, Period> at_most) {
    return core_->turn(detail::to_duration(at_most));
  }
  /// Makes the current `run()` or `run_once()` return after the callback that runs now.
  void stop() { core_->stop(); }

  /// A descriptor for embedding in another event loop: readable when there is work; -1 in a simulation. Wait
  /// for it no longer than `time_until_next()`, then call `run_once` with a duration of zero.
  [[nodiscard]] int native_handle() const { return core_->system().native_handle(); }
  /// The time until the next timer: zero if something is ready, `duration::max()` if no timer is set.
  [[nodiscard]] duration time_until_next() const { return core_->time_until_next(); }

  /// Returns a handle through which other threads post calls; it may outlive the loop.
  [[nodiscard]] loop_handle handle() { return loop_handle(core_->mail); }

  /// Runs the callable from the loop, after all nodes that are ready already. Only for this loop's thread.
  template <class F>
  void post(F&& callable) {
    core_->post(detail::make_posted(std::forward<F>(callable)));
  }

  /// Reserves memory for this many connections and started operations. Up to these numbers they do not
  /// allocate, except for memory that a value owns, coroutine frames, and callables larger than three
  /// pointers. The memory of a connection is free again once its stream and its operations are destroyed or
  /// assigned to. If the memory is not available, raises `std::bad_alloc` and changes nothing.
  void reserve(std::size_t descriptors, std::size_t started_operations) {
    core_->reserve(descriptors, started_operations);
  }

  /// Makes an inherited loop usable in the child of fork(2). The loop gets its own poller and wake
  /// descriptor, all descriptors are watched again, and pending operations, timers and posted calls continue.
  /// May be called from a callback. Has no effect on a loop that was not inherited, and none on the parent.
  ///
  /// The objects of the loop then belong to the child as well as to the parent: `close` and the destructor do
  /// what they always do, and remove the socket file of a listener with `unlink_on_close`. A call that a
  /// helper thread of the parent was making ends with `os_error` and ECANCELED; a call that had not begun
  /// begins in the child. `native_handle()` may change. Aborts if no poller can be created.
  ///
  /// Without `after_fork`, a child may destroy and close inherited objects, which releases only the child's
  /// descriptors and memory, and may use its own loops. The child aborts if it runs the inherited loop.
  void after_fork() { core_->after_fork(); }

  /// Lists the pending operations, one per line: the descriptor with its peer (or, without one, its own
  /// address), the operation, the bytes that it moved so far, its age in seconds, and its waiters: tasks,
  /// groups, combinators, up to the root. For people: the format may change.
  [[nodiscard]] std::string dump() const { return core_->dump(); }

 private:
  friend class detail::loop_core;
  detail::ref<detail::loop_core> core_;
};

/// The current time of this thread's loop. Use no other clock with `*_at` and `*_until`.
[[nodiscard]] time_point now();

}}  // namespace anyio
