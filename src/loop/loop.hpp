// The event loop: what is ready, what waits, timers, descriptors, posted calls.
//
// A turn asks the poller once, then runs the ready list in rounds until it is empty or so much work is
// done, so that neither timers nor posted calls nor the poller starve. `loop` is what users hold;
// `loop_core` is what streams and operations hold, and it outlives the loop while any of them does.
// This part must not know coroutines, callbacks or protocols.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/recycler.hpp"
#include "loop/ready_list.hpp"
#include "loop/timers.hpp"
#include "system/backend.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
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

/// Any duration, floating too, as nanoseconds; saturates, and NaN counts as zero.
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
      const long double ns = s * 1e9L;  // rounded up, never early
      const auto whole = static_cast<std::int64_t>(ns);
      return duration(whole + (static_cast<long double>(whole) < ns ? 1 : 0));
    } else {
      return std::chrono::ceil<duration>(d);
    }
  }
}

enum side : unsigned { read_side, write_side };

/// What operations belong to: one reader and one writer may wait on it. Counted, so that a stream may
/// be moved or destroyed while operations of it are about. All take blocks of one size, so that
/// `loop::reserve` serves every kind.
class resource : public pooled<recycler::descriptors> {
 public:
  explicit resource(loop_core& core);
  resource(const resource&) = delete;
  resource& operator=(const resource&) = delete;
  ANYIO_NET_FN virtual ~resource();

  [[nodiscard]] loop_core& core() const noexcept { return core_; }
  [[nodiscard]] bool open() const noexcept;
  /// Closed, and no longer about to be.
  [[nodiscard]] bool gone() const noexcept;
  [[nodiscard]] node* waiting(side s) const noexcept { return waiting_[s]; }
  void set_waiting(side s, node* n) noexcept { waiting_[s] = n; }
  [[nodiscard]] virtual int descriptor() const noexcept { return -1; }

  /// Ends it at once; what waits is queued, and will find it closed. Again is a no-op.
  void close() noexcept;
  /// To its users it is closed; what waits is queued. The system's side stays until `close`.
  void begin_closing() noexcept;
  /// What waits makes one more attempt and then ends with `errc::cancelled`.
  void cancel() noexcept;
  /// The poller's news.
  void ready(std::uint32_t bits) noexcept;
  void wake(side s) noexcept;
  /// A waiting operation was withdrawn.
  virtual void withdrawn(side) noexcept {}

  /// Known to give nothing until the poller says otherwise; an attempt need not ask.
  bool exhausted[2] = {false, false};
  /// The same for whoever receives from it, in every way: it begins by waiting for the poller.
  bool poller_tells = false;
  /// No further event may come: read on until the end shows.
  bool read_to_end = false;
  /// Each wait puts it into the poller again; else it is there as long as it is open.
  bool entered_by_waits = false;

 protected:
  /// Releases what it holds of the system. Called once.
  virtual void shut() noexcept = 0;

 private:
  template <class T>
  friend class ref;
  friend class loop_core;

  loop_core& core_;
  node* waiting_[2] = {nullptr, nullptr};
  std::uint32_t references_ = 0;
  bool open_ = true;
  bool closing_ = false;
};

/// A resource that waits for this loop to close a descriptor, because there were none left, or for the system
/// to have memory again.
struct starved : link {
  resource* waiter = nullptr;
};

/// A counted pointer to a resource or the like.
template <class T>
class ref {
 public:
  ref() = default;
  explicit ref(T* p) noexcept : pointer_(p) {
    if (pointer_) ++pointer_->references_;
  }
  ref(const ref& other) noexcept : ref(other.pointer_) {}
  ref(ref&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
  template <class U>
    requires std::is_convertible_v<U*, T*>
  ref(const ref<U>& other) noexcept : ref(other.get()) {}
  template <class U>
    requires std::is_convertible_v<U*, T*>
  ref(ref<U>&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
  ref& operator=(ref other) noexcept {
    std::swap(pointer_, other.pointer_);
    return *this;
  }
  ~ref() {
    if (pointer_ && --pointer_->references_ == 0) [[unlikely]]
      end(pointer_);
  }
  T* get() const noexcept { return pointer_; }
  T* operator->() const noexcept { return pointer_; }
  T& operator*() const noexcept { return *pointer_; }
  explicit operator bool() const noexcept { return pointer_ != nullptr; }

 private:
  friend class resource;

  template <class U>
  friend class ref;

  // Kept out of line: it would be inlined wherever a pointer goes.
  [[gnu::noinline, gnu::cold]] static void end(T* p) noexcept { delete p; }

  T* pointer_ = nullptr;
};

/// A descriptor's place in the poller.
struct registration {
  int fd = -1;
  std::uint32_t index = 0;
};

/// A callable that was posted.
struct posted_node : node {
  virtual ~posted_node() = default;
};

/// What handles on other threads share with the loop. All mailboxes of the process are in a list, so that
/// fork(2) finds none of them locked.
struct mailbox : link {
  mailbox();
  mailbox(const mailbox&) = delete;
  mailbox& operator=(const mailbox&) = delete;
  ~mailbox();

#if !defined(ANYIO_NET_NO_THREADS)
  std::mutex mutex;
#endif
  link calls;                                   // of posted nodes
  backend* system = nullptr;                    // null once the loop is gone
  std::uint32_t forks_of_owner = forks_so_far;  // of the process whose loop it is
  bool post(posted_node& call);
  /// False, and nothing is done, once the loop is gone.
  bool offer(posted_node& call);
};

class loop_core {
 public:
  explicit loop_core(std::unique_ptr<backend> system);
  loop_core(const loop_core&) = delete;
  loop_core& operator=(const loop_core&) = delete;

  /// The loop that runs, the innermost if there are several, or else the one made last; a loop that was
  /// made since the running one began goes before it.
  [[nodiscard]] static loop_core* current_or_null() noexcept { return latest ? latest->core : nullptr; }
  [[nodiscard]] static loop_core& current();

  [[nodiscard]] backend& system() noexcept { return *system_; }
  /// For a helper thread, whose look-up may outlast the loop.
  [[nodiscard]] std::shared_ptr<backend> share_system() const noexcept { return system_; }
  [[nodiscard]] bool alive() const noexcept { return system_ != nullptr; }
  [[nodiscard]] bool running() const noexcept { return running_; }
  /// Whether this process is a child that got the loop by fork(2), and the poller is the parent's.
  [[nodiscard]] bool inherited() const noexcept {
    return mail->forks_of_owner != forks_so_far && alive() && system_->native_handle() >= 0;
  }
  void after_fork();

  /// What a call holds that ends only once something has completed: loops that run around it cannot go on
  /// meanwhile. `runner` stands for the call, as the owner of what it waits for; null: it waits until the
  /// loop is idle.
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
  /// Whether such a call keeps this loop from going on.
  [[nodiscard]] bool blocked() const noexcept { return blocked_by_ != nullptr; }
  /// The loop whose call waits for what `root` is the last owner of, and in vain, since it keeps this loop
  /// from going on; null if none does. Without a root, which is not known then, any such call.
  [[nodiscard]] loop_core* stranding(const node* root) const noexcept;
  [[nodiscard]] time_point now() { return system_->now(); }

  /// To the end of the ready list, from wherever it is.
  void queue(node& n) noexcept {
    n.unlink();
    ready_.insert_before(n);
    n.queued = true;
  }
  /// What was queued last runs next: who begins it has had its turn already.
  void advance_last() noexcept {
    if (!ready_.linked()) return;
    link& last = *ready_.previous;
    last.unlink();
    round_.next->insert_before(last);
  }
  /// To those that wait for something to queue them.
  void park(node& n) noexcept {
    n.unlink();
    parked_.insert_before(n);
    n.queued = false;
  }
  /// Whether what is ready may still be handed over at once; else it takes its turn.
  [[nodiscard]] bool spend_inline() noexcept {
    if (!running_ || share_spent()) return false;
    work_ += work_of_inline;
    return true;
  }
  /// Whether a task that is awaited may begin at once; tasks that never wait must not starve the loop.
  [[nodiscard]] bool spend_await() noexcept {
    if (!running_) return true;
    if (await_budget_ == 0) return false;
    --await_budget_;
    work_ += work_of_await;
    return true;
  }
  /// Counts work that was done: system calls, or what takes as long, and bytes that were moved.
  void count_work(std::size_t bytes, std::size_t calls = 1) noexcept {
    work_ += static_cast<std::uint32_t>(calls * work_of_call + bytes / bytes_of_unit);
  }
  /// Whether what runs now has done its share; an attempt that could go on takes another turn.
  [[nodiscard]] bool share_spent() const noexcept { return work_ >= end_of_share_; }
  /// A larger transfer is made in several calls.
  static constexpr std::size_t most_of_call = std::size_t{256} * 1024;

  void arm(timer& t, time_point deadline, node& target) noexcept { timers_.arm(t, deadline, target); }

  /// The loop's own room for what is received; whatever is read next overwrites it.
  [[nodiscard]] mutable_buffer buffer();
  /// Whether what runs now was given the buffer, so that a view of it may be about.
  [[nodiscard]] bool buffer_was_lent() const noexcept { return buffer_lent_ == end_of_share_; }
  /// Keeps what lies in the buffer; the loop reads into another one then.
  [[nodiscard]] std::shared_ptr<const void> share_buffer() const noexcept { return buffer_; }
  [[nodiscard]] bool in_buffer(const void* p) const noexcept {
    const auto* byte = static_cast<const std::byte*>(p);
    return buffer_ != nullptr && byte >= buffer_->bytes && byte < buffer_->bytes + buffer_size;
  }
  static constexpr std::size_t buffer_size = 65536;

  /// Watches a descriptor for a resource, both ways. 0 or a negative errno.
  [[nodiscard]] int watch(registration& r, resource& owner);
  /// A token for a descriptor that is watched in another way; `leave` gives it back.
  [[nodiscard]] std::uint64_t enter(registration& r, resource& owner);
  void leave(registration& r) noexcept;
  /// Whether some resource is in the poller with this descriptor. Looks at all of them.
  [[nodiscard]] bool watches(int fd) const noexcept;
  /// Takes it out of the poller, unless that is the parent's.
  void unwatch(int fd) noexcept {
    if (!inherited()) system_->forget(fd);
  }
  /// Stops watching, and closes unless told otherwise.
  void forget(registration& r, bool close_it = true) noexcept;
  /// Wakes a reader once this loop has closed a descriptor, for those who ran out of them.
  void wait_for_descriptor(starved& s) noexcept {
    s.unlink();
    starved_.insert_before(s);
  }
  /// Wakes a reader and a writer after a pause, for those to whom the system said ENOBUFS or ENOMEM: no event
  /// tells when it has memory again. The pause grows from a millisecond to a quarter of a second while the
  /// attempts behind it fail.
  void wait_for_memory(starved& s, resource& waiter) noexcept;

  bool turn(duration at_most);
  /// Waits for something to be ready, and runs one completion. For tests.
  void step();
  /// Until `done` holds, or nothing waits and nothing is posted. Or until `stop`.
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
  std::shared_ptr<mailbox> mail;

  /// Called after each wait, for signals. Null while nobody wants it.
  void (*after_wait)(loop_core&) = nullptr;
  link signal_receivers;
  signal_service_ptr own_signals{nullptr, nullptr};  // unless the system has its own
  link raw_descriptors;                              // that somebody waits for

  loop* object = nullptr;

 private:
  /// A claim to be this thread's current loop, the latest first: one while the loop lives, and one while
  /// it runs.
  struct claim {
    loop_core* core;
    claim* earlier;

    explicit claim(loop_core& c) noexcept : core(&c), earlier(std::exchange(latest, this)) {}
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

  /// What `run` and `turn` hold: the loop is current, and stays in memory even if it ends meanwhile.
  struct running_scope;

  template <class T>
  friend class ref;
  friend class resource;
  friend struct node;

  /// Those who wait for memory, all for one timer, and the node that it runs.
  struct shortage final : node {
    explicit shortage(loop_core& c) noexcept : loop(c) { how = &face_of_shortage; }
    static void run(node& n);
    static void abandon(node& n) { n.unlink(); }
    static node* owner(node&) { return nullptr; }
    static description describe(node&) { return {"wait for memory"}; }
    static constexpr face face_of_shortage{run, abandon, owner, describe};

    loop_core& loop;
    link waiting;
    timer pause;
    std::uint32_t milliseconds = 0;
    std::uint32_t ended = 0;  // the turn in which the last pause did
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
  // Work is counted in units of about 20 ns: a turn may take some 1.3 ms, and each node that runs in it 10
  // µs. Where the work is another's, the clock tells.
  static constexpr std::uint32_t work_of_turn = 65536;
  static constexpr std::uint32_t work_between_looks = 4096;  // at the clock
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
  void dispatch(const poll_event& event) noexcept;

  std::shared_ptr<backend> system_;
  link ready_;
  link round_;  // what was ready when the round began that runs now
  link parked_;
  claim lives_;
  timer_heap timers_;
  std::vector<slot> slots_;
  std::uint32_t free_slot_ = no_slot;
  link starved_;
  shortage shortage_{*this};
  /// Aligned: the kernel copies to it faster.
  struct alignas(64) room {
    std::byte bytes[buffer_size];
  };
  std::shared_ptr<room> buffer_;
  std::size_t pending_ = 0;
  time_point turn_began_{};
  std::uint32_t turn_milliseconds_ = 0;
  std::uint32_t references_ = 0;
  std::uint32_t work_ = 0;  // of this turn
  std::uint32_t next_look_ = work_between_looks;
  std::uint32_t end_of_share_ = 0;
  std::uint32_t await_budget_ = 0;
  std::uint32_t buffer_lent_ = 0;  // in which share
  bool running_ = false;
  bool stopped_ = false;
  const waiting_scope* waits_ = nullptr;       // a call on this loop that ends only at some event
  const node* runner_ = nullptr;               // that call, as an owner
  const waiting_scope* blocked_by_ = nullptr;  // such a call on another
};

inline bool resource::open() const noexcept { return open_ && !closing_ && core_.alive(); }

inline bool resource::gone() const noexcept { return !open_ || !core_.alive(); }

inline void resource::wake(side s) noexcept {
  node* const n = waiting_[s];
  if (n != nullptr && !(n->queued && n->linked())) core_.queue(*n);  // it keeps its place among what is ready
}

inline void resource::ready(std::uint32_t bits) noexcept {
  if (bits & (ready_end | ready_urgent)) read_to_end = true;
  if (bits & (ready_read | ready_end | ready_urgent)) {
    exhausted[read_side] = false;
    wake(read_side);
  }
  if (bits & ready_write) {
    exhausted[write_side] = false;
    wake(write_side);
  }
}

inline void node::begin(loop_core& on, const face& f) noexcept {
  how = &f;
  core = &on;
  cancelled = false;
  queued = false;
  since = on.turn_milliseconds_;
  ++on.pending_;
}

inline void node::retire() noexcept {
  unlink();
  if (core != nullptr) {
    --core->pending_;
    core = nullptr;
    how = nullptr;
  }
}

template <class F>
struct posted_call final : posted_node, pooled<recycler::operations> {
  explicit posted_call(F&& f) : call(std::move(f)) {}

  static void run(node& n) {
    const std::unique_ptr<posted_call> self(static_cast<posted_call*>(&n));
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

/// Runs calls on a loop from any thread; may outlive the loop. With ANYIO_NET_NO_THREADS it is for the
/// loop's own thread.
class loop_handle {
 public:
  loop_handle() = default;

  /// Runs the callable on the loop, in order; false, and the callable destroyed, once the loop is gone.
  template <class F>
  bool post(F&& callable) const {
    return mail_ != nullptr && mail_->post(detail::make_posted(std::forward<F>(callable)));
  }

 private:
  friend class loop;
  explicit loop_handle(std::shared_ptr<detail::mailbox> mail) : mail_(std::move(mail)) {}
  std::shared_ptr<detail::mailbox> mail_;
};

/// An event loop. Belongs to the thread that made it, whose current loop it is while it lives.
///
/// It may end before its streams and operations: callbacks are destroyed unrun, descriptors closed, and
/// what outlives it gives `closed_resource`.
class loop {
 public:
  /// epoll on Linux, kqueue on the BSDs and macOS.
  loop();
  /// On another backend: `system_backend()`, or one that simulates or fails.
  explicit loop(std::unique_ptr<backend> system);
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;
  ~loop();

  /// This thread's loop: the one that runs, else the one made last that still lives. There must be one.
  [[nodiscard]] static loop& current();

  /// Runs until nothing waits and nothing is posted, or `stop()`. May be called again, but neither from
  /// inside itself nor from inside `run_once`: that is an assert, and else raises `invalid_argument` (without
  /// exceptions: prints it and aborts). Loops may run inside one another; see `anyio::run`.
  void run() { core_->run(); }
  /// One turn, which waits no longer than this; true if something ran. Not from inside itself, as `run`.
  template <class Rep, class Period>
  bool run_once(std::chrono::duration<Rep, Period> at_most) {
    return core_->turn(detail::to_duration(at_most));
  }
  /// Ends the `run()` or `run_once()` under way after the callback that runs now.
  void stop() { core_->stop(); }

  /// For a foreign loop: readable when there is something to do; -1 in a simulation. Wait for it no
  /// longer than `time_until_next()`, then call `run_once(0)`.
  [[nodiscard]] int native_handle() const { return core_->system().native_handle(); }
  /// Zero if something is ready, `duration::max()` if only the descriptor can tell.
  [[nodiscard]] duration time_until_next() const { return core_->time_until_next(); }

  /// What other threads post through; may outlive the loop.
  [[nodiscard]] loop_handle handle() { return loop_handle(core_->mail); }

  /// Runs the callable from the loop, after what is ready already. From this loop's thread.
  template <class F>
  void post(F&& callable) {
    core_->post(detail::make_posted(std::forward<F>(callable)));
  }

  /// Makes room for so many connections and started operations; up to these numbers neither allocates
  /// any more, apart from what a value owns, coroutine frames, and callables of more than three pointers.
  /// A connection's room is free again once its stream and its operations are destroyed or assigned to. If
  /// there is not so much memory it raises `std::bad_alloc`, and all is as before.
  void reserve(std::size_t descriptors, std::size_t started_operations) {
    core_->reserve(descriptors, started_operations);
  }

  /// In the child of fork(2): makes a loop that the child inherited usable there. It gets a poller and a wake
  /// descriptor of its own, everything is watched anew, and pending operations, timers and posted calls go
  /// on, from a callback too. Has no effect on a loop that was not inherited, and none on the parent.
  ///
  /// The objects of the loop are then the child's as they are the parent's: `close` and the destructor do
  /// what they always do, and remove the socket file of a listener with `unlink_on_close`. A call that a
  /// helper thread of the parent was making ends with `os_error` and ECANCELED; one that had not begun begins
  /// in the child. `native_handle()` may change. Aborts if no poller can be made.
  ///
  /// Without it, a child may destroy and close what it inherited, which releases only the child's descriptors
  /// and memory, and use loops of its own; to run the inherited loop aborts.
  void after_fork() { core_->after_fork(); }

  /// What waits: descriptor, operation, age in seconds, one per line.
  [[nodiscard]] std::string dump() const { return core_->dump(); }

 private:
  friend class detail::loop_core;
  detail::ref<detail::loop_core> core_;
};

/// The clock of this thread's loop, the only one to use with `*_at` and `*_until`.
[[nodiscard]] time_point now();

}}  // namespace anyio
