// Blocking calls, outside the loop's thread.
//
// Name look-ups, and the callables of `to_thread::run_sync`, run on a few helper threads that the whole
// process shares. A helper is started when there is a call for it, and ends when there is none. A call whose
// operation was withdrawn is abandoned, not joined, so the call owns everything that it needs. If the system
// has no threads, or must not use them, a call runs in place. This part must not know what is called.
#pragma once

#include "base/atomic.hpp"
#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/owned.hpp"
#include "base/result.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "loop/ready_list.hpp"
#include "loop/timers.hpp"
#include "operation/operation.hpp"
#include "system/backend.hpp"

#include <cerrno>
#include <cstddef>
#include <type_traits>
#include <utility>

#if !defined(ANYIO_NET_NO_THREADS)
#include <mutex>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

class helper_pool;

/// A blocking call and its outcome. The job goes from its loop to the helpers' queue, to a helper, to the
/// mailbox of the loop and back. Its owners are counted: the operation that waits for the outcome, and the
/// place that holds the job. While the job is not with the helpers, all members except `work_` and the count
/// belong to the loop's thread.
class helper_job : public posted_node {
 public:
  explicit helper_job(void (*work)(helper_job&)) noexcept : work_(work) { how = &face_of_job; }

  /// Arranges the call; the waiter is queued afterwards. A call in place may have its outcome at once.
  /// Returns 0, or a negative errno if there is no helper and none can be started.
  [[nodiscard]] int begin(loop_core& loop, node& waiter);
  [[nodiscard]] bool begun() const noexcept { return stage_ != stage::idle; }
  [[nodiscard]] bool over() const noexcept { return stage_ == stage::over; }
  /// This process is a forked child, and the helper that was making the call is in the parent.
  [[nodiscard]] bool lost() const noexcept { return stage_ == stage::lost; }
  /// The outcome is not needed any more. False: the call is being made, and the caller must give up the job.
  [[nodiscard]] bool withdraw() noexcept;
  /// Removes one owner; the last one deletes the job.
  void release() noexcept;

 private:
  friend class helper_pool;
  enum class stage : std::uint8_t { idle, under_way, over, lost };

  void acquire() noexcept { owners_.fetch_add(1); }
  /// Makes the call on the loop's thread, at a moment that the system chooses.
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
  std::size_t turns_ = 0;  // turns left until a call in place
  shared<mailbox> mail_;
  stage stage_ = stage::idle;
  stage next_stage_ = stage::over;  // the stage when it is back from the helpers
  atomic<unsigned> owners_{1};
#if !defined(ANYIO_NET_NO_THREADS)
  bool queued_ = false;  // guarded by the pool's mutex
#endif
};

#if !defined(ANYIO_NET_NO_THREADS)

/// The helper threads of the process. A forked child has none of them: there the jobs go back to their loops,
/// which receive them if they run again after `loop::after_fork`.
class helper_pool {
 public:
  static constexpr std::size_t most_helpers = 16;

  /// Never destroyed, since an abandoned helper may still run when the process exits.
  [[nodiscard]] static helper_pool& instance();

  /// Returns 0, or a negative errno if there is no helper and none can be started.
  [[nodiscard]] int submit(backend& system, helper_job& job);
  /// Removes the job from the queue. False if a helper has begun it already.
  [[nodiscard]] bool take_back(helper_job& job) noexcept;

 private:
  helper_pool();
  static void serve();
  static void part_from_parent();
  static void give_back(helper_job& job, helper_job::stage then);

  std::mutex mutex_;
  list queue_;  // empty when there is no helper
  list performed_;
  std::size_t helpers_ = 0;
};

#endif

/// A callable that an operation runs on a helper thread. It may be moved only while idle.
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
  helper_call(helper_call&& other) noexcept : job_(detail::exchange(other.job_, nullptr)) {}
  helper_call& operator=(helper_call&& other) noexcept {
    if (this == &other) return *this;
    withdraw();
    if (job_ != nullptr) job_->release();
    job_ = detail::exchange(other.job_, nullptr);
    return *this;
  }
  ~helper_call() {
    withdraw();
    if (job_ != nullptr) job_->release();
  }

  /// Whether it holds a callable.
  explicit operator bool() const noexcept { return job_ != nullptr; }

  /// Begins the call, or checks it. Returns true if there is an outcome; otherwise the waiter will be queued.
  bool attempt(loop_core& loop, node& waiter, const char* name, result<value_type>& out) {
    if (!job_->begun()) {
      if (const int status = job_->begin(loop, waiter); status < 0) {
        out = error(errc::os_error, -status, name);
        return true;
      }
    }
    if (job_->lost()) {  // the outcome may be half written, and is not touched
      withdraw();
      out = error_access::with_reason(error(errc::os_error, ECANCELED, name),
                                      "the helper thread exists only in the parent process");
      return true;
    }
    if (!job_->over()) return false;
    out = std::move(job_->outcome);
    return true;
  }
  /// Withdraws the call, so that it can begin again. A call that is being made is abandoned; then this is
  /// empty.
  void withdraw() noexcept {
    if (job_ == nullptr || !job_->begun() || job_->withdraw()) return;
    detail::exchange(job_, nullptr)->release();
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

/// The operation that `to_thread::run_sync` returns.
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
  static constexpr bool attempts_when_awaited = false;  // the loop makes even a call in place

  [[nodiscard]] errc check() const noexcept { return call_ ? errc::ok : errc::invalid_argument; }
  bool attempt(result<value>& out) { return this->pending() && call_.attempt(*this->core, *this, name, out); }
  void left() noexcept { call_.withdraw(); }

  helper_call<F> call_;
};

#endif

}  // namespace detail

#if !defined(ANYIO_NET_NO_THREADS)

namespace to_thread {

/// Calls `callable`, which only needs to be movable, on a helper thread and returns its value. An exception
/// that it throws is raised here unchanged. At most 16 calls run at a time in the process, name look-ups
/// included; further calls wait for their turn. Fails with `os_error` if the first helper cannot be started.
///
/// On cancellation, a call that has not begun is dropped, and a call that is being made is abandoned. An
/// abandoned call runs to its end, and its outcome is discarded. Its callable is destroyed later, on the
/// loop's thread or, if the loop is gone, on the helper. Everything that it refers to must live until then,
/// even beyond `main`.
///
/// In a simulation the call is made in place.
template <class F>
[[nodiscard]] auto run_sync(F&& callable) {
  return detail::run_sync_operation<std::decay_t<F>>(std::decay_t<F>(std::forward<F>(callable)));
}

}  // namespace to_thread

#endif

}}  // namespace anyio
