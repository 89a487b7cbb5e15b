// Calls that block, off the loop's thread.
//
// Name look-ups, and what users hand to `to_thread::run_sync`, run on a few helper threads that the whole
// process shares: started when there is a call for them, gone when there is none. A call whose operation
// was withdrawn is abandoned, not joined, so everything that it needs belongs to it. Where the system has
// no threads, or must not use them, a call runs in place. This part must not know what is called.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "loop/ready_list.hpp"
#include "loop/timers.hpp"
#include "operation/operation.hpp"
#include "system/backend.hpp"

#include <cerrno>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#if !defined(ANYIO_NET_NO_THREADS)
#include <atomic>
#include <mutex>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

class helper_pool;

/// A blocking call and its outcome. It goes from its loop to the helpers' queue, to a helper, to the mail of
/// the loop and back. Counted: by the operation that wants the outcome, and by the place where it is.
/// All but `work_` and the count belong to the loop's thread while it is not with the helpers.
class helper_job : public posted_node {
 public:
  explicit helper_job(void (*work)(helper_job&)) noexcept : work_(work) { how = &face_of_job; }

  /// Has the call made, and the waiter queued afterwards; in place, the outcome is there at once.
  /// 0, or a negative errno if there is no helper and none can be started.
  [[nodiscard]] int begin(loop_core& loop, node& waiter);
  [[nodiscard]] bool begun() const noexcept { return stage_ != stage::idle; }
  [[nodiscard]] bool over() const noexcept { return stage_ == stage::over; }
  /// The helper that was making the call is not in this process, a forked child.
  [[nodiscard]] bool lost() const noexcept { return stage_ == stage::lost; }
  /// Nobody waits for the outcome any more. False: the call is being made, and the job is lost to it.
  [[nodiscard]] bool withdraw() noexcept;
  /// One owner less.
  void release() noexcept;

 private:
  friend class helper_pool;
  enum class stage : std::uint8_t { idle, under_way, over, lost };

  void acquire() noexcept { ++owners_; }
  /// The call is made here, at a moment that the system chooses.
  static void run_in_place(node& n);
  static void run(node& n);
  static void abandon(node& n);
  static node* owner(node&) { return nullptr; }
  static description describe(node&) { return {"helper thread"}; }
  static constexpr face face_of_job{run, abandon, owner, describe};
  static constexpr face face_in_place{run_in_place, abandon, owner, describe};

  void (*work_)(helper_job&);
  node* waiter_ = nullptr;
  timer turn_;
  std::size_t turns_ = 0;  // until a call in place
  std::shared_ptr<mailbox> mail_;
  stage stage_ = stage::idle;
  stage next_stage_ = stage::over;  // when it is back from the helpers
#if !defined(ANYIO_NET_NO_THREADS)
  std::atomic<unsigned> owners_{1};
  bool queued_ = false;  // under the pool's mutex
#else
  unsigned owners_ = 1;
#endif
};

#if !defined(ANYIO_NET_NO_THREADS)

/// The helper threads of the process. A forked child has none of them: there the jobs go back to their loops,
/// which learn of it if they run again after `loop::after_fork`.
class helper_pool {
 public:
  static constexpr std::size_t most_helpers = 16;

  /// Never destroyed, since an abandoned helper may still run when the process exits.
  [[nodiscard]] static helper_pool& instance();

  /// 0, or a negative errno if there is no helper and none can be started.
  [[nodiscard]] int submit(backend& system, helper_job& job);
  /// True, and the job is out of the queue, if no helper has begun it.
  [[nodiscard]] bool take_back(helper_job& job) noexcept;

 private:
  helper_pool();
  static void serve();
  static void part_from_parent();
  static void give_back(helper_job& job, helper_job::stage then);

  std::mutex mutex_;
  link queue_;  // empty when there is no helper
  link performed_;
  std::size_t helpers_ = 0;
};

#endif

/// A callable that an operation has called on a helper thread. Moves only while idle.
template <class F>
class helper_call {
  static constexpr auto call = [](F& f) -> decltype(auto) {
    if constexpr (std::is_invocable_v<F&>) {
      return f();
    } else {
      return std::move(f)();
    }
  };

 public:
  using value_type = std::decay_t<std::invoke_result_t<decltype(call), F&>>;

  helper_call() = default;
  explicit helper_call(F&& f) : job_(new job(std::move(f))) {}
  helper_call(helper_call&& other) noexcept : job_(std::exchange(other.job_, nullptr)) {}
  helper_call& operator=(helper_call&& other) noexcept {
    if (this == &other) return *this;
    withdraw();
    if (job_ != nullptr) job_->release();
    job_ = std::exchange(other.job_, nullptr);
    return *this;
  }
  ~helper_call() {
    withdraw();
    if (job_ != nullptr) job_->release();
  }

  /// Whether there is something to call.
  explicit operator bool() const noexcept { return job_ != nullptr; }

  /// Begins the call, or looks after it: true when the outcome is there. Else the waiter will be queued.
  bool attempt(loop_core& loop, node& waiter, const char* name, result<value_type>& out) {
    if (!job_->begun()) {
      if (const int status = job_->begin(loop, waiter); status < 0) {
        out = error(errc::os_error, -status, name);
        return true;
      }
    }
    if (job_->lost()) {  // what it was about to write is left alone
      withdraw();
      out = error_access::with_reason(error(errc::os_error, ECANCELED, name),
                                      "the helper thread is in the parent of this process");
      return true;
    }
    if (!job_->over()) return false;
    out = std::move(job_->outcome);
    return true;
  }
  /// Back to where it can begin again; a call that is being made is abandoned, and nothing is left.
  void withdraw() noexcept {
    if (job_ == nullptr || !job_->begun() || job_->withdraw()) return;
    std::exchange(job_, nullptr)->release();
  }

 private:
  struct job final : helper_job {
    explicit job(F&& f) : helper_job(work), callable(std::move(f)) {}

    static void work(helper_job& base) {
      auto& self = static_cast<job&>(base);
#if ANYIO_NET_EXCEPTIONS
      try {
        self.make_call();
      } catch (const exception& e) {
        self.outcome = e.error();
      } catch (...) {
        self.outcome = result_access::foreign<value_type>(std::current_exception());
      }
#else
      self.make_call();
#endif
    }
    void make_call() {
      if constexpr (std::is_void_v<value_type>) {
        call(callable);
        outcome = result<void>();
      } else {
        outcome = result<value_type>(call(callable));
      }
    }

    F callable;
    result<value_type> outcome{errc::cancelled};
  };

  job* job_ = nullptr;
};

#if !defined(ANYIO_NET_NO_THREADS)

/// What `to_thread::run_sync` gives.
template <class F>
class [[nodiscard]] run_sync_operation
    : public operation<run_sync_operation<F>, typename helper_call<F>::value_type> {
  using value = typename helper_call<F>::value_type;

 public:
  static constexpr const char* name = "run_sync";
  run_sync_operation() = default;
  explicit run_sync_operation(F&& f) : call_(std::move(f)) {}

 private:
  friend class operation<run_sync_operation, value>;
  static constexpr bool attempts_when_awaited = false;  // in place, too, it is the loop that makes the call

  [[nodiscard]] errc check() const noexcept { return call_ ? errc::ok : errc::invalid_argument; }
  bool attempt(result<value>& out) { return this->pending() && call_.attempt(*this->core, *this, name, out); }
  void left() noexcept { call_.withdraw(); }

  helper_call<F> call_;
};

#endif

}  // namespace detail

#if !defined(ANYIO_NET_NO_THREADS)

namespace to_thread {

/// Calls `callable`, any that can be moved, on a helper thread, and gives what it returns; what it throws is
/// raised here unchanged. At most 16 calls are made at a time in the process, name look-ups included; more
/// wait their turn. Fails with `os_error` if the first helper cannot be started.
///
/// Cancelled, a call that has not begun is dropped, and one that is being made is abandoned: it goes on to
/// its end, its outcome is discarded, and the callable is destroyed later, on the loop's thread or, if the
/// loop is gone, on the helper. What it refers to must live so long, beyond `main` even.
///
/// In a simulation the call is made in place.
template <class F>
[[nodiscard]] auto run_sync(F&& callable) {
  return detail::run_sync_operation<std::decay_t<F>>(std::decay_t<F>(std::forward<F>(callable)));
}

}  // namespace to_thread

#endif

}}  // namespace anyio
