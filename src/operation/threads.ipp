// The helper threads, and how a job reaches one and comes back.
#pragma once

#include "base/exchange.hpp"
#include "operation/threads.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN int helper_job::begin(loop_core& loop, node& waiter) {
#if !defined(ANYIO_NET_NO_THREADS)
  if (threads_of(loop.system()).uses_threads()) {
    mail_ = loop.mail;
    waiter_ = &waiter;
    stage_ = stage::under_way;
    const int status = helper_pool::instance().submit(loop.system(), *this);
    if (status < 0) stage_ = stage::idle;
    return status;
  }
#endif
  turns_ = threads_of(loop.system()).turns_before_call();
  if (turns_ == 0) {
    work_(*this);
    stage_ = stage::over;
    return 0;
  }
  acquire();
  waiter_ = &waiter;
  stage_ = stage::under_way;
  node::begin(loop, face_in_place);
  loop.park(*this);
  loop.arm(turn_, loop.now(), *this);
  return 0;
}

ANYIO_NET_FN void helper_job::run_in_place(node& n) {
  auto& job = static_cast<helper_job&>(n);
  if (--job.turns_ != 0) {
    job.core->park(job);
    return job.core->arm(job.turn_, job.core->now(), job);
  }
  job.work_(job);
  run(job);
}

ANYIO_NET_FN bool helper_job::withdraw() noexcept {
  waiter_ = nullptr;
  if (turns_ != 0) {
    turns_ = 0;
    turn_.cancel();
    retire();
    how = &face_of_job;
    release();
    stage_ = stage::idle;
    return true;
  }
#if !defined(ANYIO_NET_NO_THREADS)
  if (stage_ == stage::lost) return false;
  if (stage_ == stage::under_way) {
    if (!helper_pool::instance().take_back(*this)) return false;
    release();
  }
#else
  if (stage_ == stage::under_way) return false;
#endif
  stage_ = stage::idle;
  return true;
}

ANYIO_NET_FN void helper_job::release() noexcept {
  if (owners_.fetch_sub(1) == 1) delete this;
}

/// Runs on the loop's thread.
ANYIO_NET_FN void helper_job::run(node& n) {
  auto& job = static_cast<helper_job&>(n);
  job.retire();
  job.how = &face_of_job;
  job.stage_ = detail::exchange(job.next_stage_, stage::over);
  if (node* waiter = detail::exchange(job.waiter_, nullptr); waiter != nullptr && waiter->pending()) {
    waiter->core->queue(*waiter);
  }
  job.release();
}

/// Runs when the loop ends or, on a helper, if the loop is gone already.
ANYIO_NET_FN void helper_job::abandon(node& n) {
  auto& job = static_cast<helper_job&>(n);
  if (job.how == &face_in_place) job.turns_ = 0;  // the owner of another job may be reading it
  job.retire();
  job.release();
}

#if !defined(ANYIO_NET_NO_THREADS)

ANYIO_NET_FN helper_pool& helper_pool::instance() {
  static helper_pool& pool = *new helper_pool;
  return pool;
}

ANYIO_NET_COLD helper_pool::helper_pool() {
  at_fork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); }, part_from_parent);
}

ANYIO_NET_COLD void helper_pool::give_back(helper_job& job, helper_job::stage then) {
  job.unlink();
  job.queued_ = false;
  job.next_stage_ = then;
  static_cast<void>(job.mail_->offer(job));
}

ANYIO_NET_COLD void helper_pool::part_from_parent() {
  helper_pool& pool = instance();
  pool.helpers_ = 0;
  while (!pool.queue_.empty())
    give_back(static_cast<helper_job&>(*pool.queue_.next), helper_job::stage::idle);
  while (!pool.performed_.empty()) {
    auto& job = static_cast<helper_job&>(*pool.performed_.next);
    job.acquire();  // never destroyed: the helper was in the middle of the call
    give_back(job, helper_job::stage::lost);
  }
  pool.mutex_.unlock();
}

ANYIO_NET_FN int helper_pool::submit(backend& system, helper_job& job) {
  const std::lock_guard lock(mutex_);
  // Under the lock, so that no other call relies on a helper that fails to start.
  if (helpers_ < most_helpers) {
    const int status = threads_of(system).start_thread([](void*) { serve(); }, nullptr);
    if (status == 0) {
      ++helpers_;
    } else if (helpers_ == 0) {
      return status;
    }
  }
  job.acquire();
  job.queued_ = true;
  queue_.push_back(job);
  return 0;
}

ANYIO_NET_FN bool helper_pool::take_back(helper_job& job) noexcept {
  const std::lock_guard lock(mutex_);
  if (!detail::exchange(job.queued_, false)) return false;
  job.unlink();
  return true;
}

ANYIO_NET_FN void helper_pool::serve() {
  helper_pool& pool = instance();
  const std::uint32_t forks = forks_so_far;
  std::unique_lock lock(pool.mutex_);
  while (!pool.queue_.empty()) {
    auto& job = static_cast<helper_job&>(*pool.queue_.next);
    job.unlink();
    job.queued_ = false;
    pool.performed_.push_back(job);
    lock.unlock();
    job.work_(job);
    if (forks != forks_so_far) return;  // the call has forked, and this is the child
    lock.lock();
    job.unlink();
    // Under the lock, so that a fork finds the job in one place. The job may be gone before `offer` returns.
    const shared<mailbox> mail = job.mail_;
    if (mail->offer(job)) continue;
    lock.unlock();
    job.how->abandon(job);
    lock.lock();
  }
  --pool.helpers_;
}

#endif

}}}  // namespace anyio::detail
