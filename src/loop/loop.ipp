// The turns of the loop, and its end.
#pragma once

#include "base/exchange.hpp"
#include "base/owned.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"

#include <cerrno>
#include <optional>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN resource::resource(loop_core& core) : core_(core), open_(core.alive()) {
  ++core.references_;
  core.resources_.push_back(*this);
}

ANYIO_NET_FN resource::~resource() {
  unlink();
  if (--core_.references_ == 0) [[unlikely]]
    ref<loop_core>::end(&core_);
}

ANYIO_NET_FN void resource::close() noexcept {
  if (shut_) return;
  open_ = false;
  shut_ = true;
  shut();
  wake(read_side);
  wake(write_side);
}

ANYIO_NET_FN void resource::begin_closing() noexcept {
  if (!open_) return;
  open_ = false;
  wake(read_side);
  wake(write_side);
}

ANYIO_NET_FN void resource::cancel() noexcept {
  for (node* n : waiting_) {
    if (n == nullptr) continue;
    n->cancelled = true;
    core_.queue(*n);
  }
}

/// The mailboxes of the process, and the count of forks. Never destroyed, since a handle may be destroyed
/// after `main`.
struct mailboxes {
  [[nodiscard]] static mailboxes& instance() {
    static mailboxes& list = *new mailboxes;
    return list;
  }

#if !defined(ANYIO_NET_NO_THREADS)
  std::mutex mutex;
  list all;

  mailboxes() { at_fork(lock_all, unlock_all, in_child); }

  static void lock_all() {
    mailboxes& list = instance();
    list.mutex.lock();
    for (link* l = list.all.next; l != &list.all; l = l->next) static_cast<mailbox*>(l)->mutex.lock();
  }
  static void unlock_all() {
    mailboxes& list = instance();
    for (link* l = list.all.next; l != &list.all; l = l->next) static_cast<mailbox*>(l)->mutex.unlock();
    list.mutex.unlock();
  }
  static void in_child() {
    unlock_all();
    ++forks_so_far;
  }
#else
  mailboxes() {
    at_fork(nullptr, nullptr, [] { ++forks_so_far; });
  }
#endif
};

ANYIO_NET_COLD mailbox::mailbox() {
  [[maybe_unused]] mailboxes& list = mailboxes::instance();
#if !defined(ANYIO_NET_NO_THREADS)
  const std::lock_guard lock(list.mutex);
  list.all.push_back(*this);
#endif
}

ANYIO_NET_COLD mailbox::~mailbox() {
#if !defined(ANYIO_NET_NO_THREADS)
  const std::lock_guard lock(mailboxes::instance().mutex);
  unlink();
#endif
}

ANYIO_NET_FN bool mailbox::post(posted_node& call) {
  if (offer(call)) return true;
  call.how->abandon(call);  // without the lock, since the callable's destructor may post
  return false;
}

ANYIO_NET_FN bool mailbox::offer(posted_node& call) {
#if !defined(ANYIO_NET_NO_THREADS)
  const std::lock_guard lock(mutex);
#endif
  if (system == nullptr) return false;
  const bool first = calls.empty();
  calls.push_back(call);
  // Under the lock, since the loop may end right after it. In a child that has inherited the loop, the poller
  // belongs to the parent and must not be used; `after_fork` will wake the loop.
  if (first && (forks_of_owner == forks_so_far || system->native_handle() < 0)) system->wake();
  return true;
}

ANYIO_NET_COLD loop_core::loop_core(std::unique_ptr<backend> system)
    : mail(owned<mailbox>(new mailbox)), system_(owned<backend>(system.release())), lives_(*this) {
  if (system_ == nullptr) abort_with("loop", error(errc::os_error, 0, "cannot create a poller"));
  mail->system = system_.get();
  turn_milliseconds_ = static_cast<std::uint32_t>(now().time_since_epoch() / std::chrono::milliseconds(1));
}

ANYIO_NET_FN loop_core& loop_core::current() {
  loop_core* core = current_or_null();
  if (core == nullptr) abort_with("loop", error(errc::invalid_argument, 0, "this thread has no loop"));
  return *core;
}

ANYIO_NET_COLD void loop_core::renew_buffer() { buffer_ = shared(owned<loop_buffer>(new loop_buffer)); }

ANYIO_NET_FN std::uint64_t loop_core::enter(registration& r, resource& owner) {
  if (free_slot_ == no_slot) {
    slots_.push_back(slot{nullptr, 0, {no_slot}});
    free_slot_ = static_cast<std::uint32_t>(slots_.size() - 1);
  }
  r.index = free_slot_;
  slot& s = slots_[r.index];
  free_slot_ = s.next_free;
  s.fd = r.fd;
  s.owner = &owner;
  return std::uint64_t{s.generation} << 32 | r.index;
}

ANYIO_NET_FN void loop_core::leave(registration& r) noexcept {
  slot& s = slots_[r.index];
  s.owner = nullptr;
  ++s.generation;  // events that are not dispatched yet carry the old generation
  s.next_free = free_slot_;
  free_slot_ = r.index;
}

ANYIO_NET_FN bool loop_core::watches(int fd) const noexcept {
  for (const slot& s : slots_)
    if (s.owner != nullptr && s.fd == fd) return true;
  return false;
}

ANYIO_NET_FN int loop_core::watch(registration& r, resource& owner) {
  struct place {
    loop_core& core;
    registration& r;
    bool kept = false;
    ~place() {
      if (!kept) core.leave(r);
    }
  };
  const std::uint64_t token = enter(r, owner);
  place entered{*this, r};  // a backend may throw
  const int status = system_->watch(r.fd, token);
  entered.kept = status >= 0;
  return status;
}

ANYIO_NET_FN void loop_core::forget(registration& r, bool close_it) noexcept {
  if (r.fd < 0) return;
  leave(r);
  unwatch(r.fd);
  const int fd = detail::exchange(r.fd, -1);
  if (!close_it) return;
  system_->close(fd);
  list waiting;
  waiting.splice(starved_);
  while (link* const l = waiting.pop_front()) static_cast<starved*>(l)->waiter->wake(read_side);
}

ANYIO_NET_COLD void loop_core::wait_for_memory(starved& s, resource& waiter) noexcept {
  s.waiter = &waiter;
  s.unlink();
  shortage_.waiting.push_back(s);
  if (shortage_.pause.armed()) return;
  const bool failed_again = shortage_.ended == turn_milliseconds_;
  shortage_.milliseconds = failed_again ? std::min(std::max(shortage_.milliseconds * 2, 1u), 256u) : 1;
  arm(shortage_.pause, add(now(), std::chrono::milliseconds(shortage_.milliseconds)), shortage_);
}

ANYIO_NET_COLD void loop_core::shortage::run(node& n) {
  auto& self = static_cast<shortage&>(n);
  self.ended = self.loop.turn_milliseconds_;
  list waiting;
  waiting.splice(self.waiting);
  while (link* const l = waiting.pop_front()) {
    resource& waiter = *static_cast<starved*>(l)->waiter;
    waiter.wake(read_side);
    waiter.wake(write_side);
  }
}

ANYIO_NET_FN void loop_core::dispatch(const poll_event& event) noexcept {
  const auto index = static_cast<std::uint32_t>(event.token);
  if (index >= slots_.size()) return;
  const slot& s = slots_[index];
  if (s.owner == nullptr || s.generation != static_cast<std::uint32_t>(event.token >> 32)) return;
  s.owner->ready(event.ready);
}

ANYIO_NET_FN void loop_core::take_mail() {
  list calls;
  {
#if !defined(ANYIO_NET_NO_THREADS)
    const std::lock_guard lock(mail->mutex);
#endif
    calls.splice(mail->calls);
  }
  while (link* const l = calls.pop_front()) post(static_cast<posted_node&>(*l));
}

ANYIO_NET_FN void loop_core::post(posted_node& call) noexcept {
  call.begin(*this, *call.how);
  queue(call);
}

ANYIO_NET_FN void loop_core::poll(duration at_most) {
  if (inherited()) [[unlikely]]  // the wait would take the parent's events
    abort_with("loop", error(errc::invalid_argument, 0,
                             "a forked child must call after_fork() before it runs the loop"));
  poll_event events[512];
  const int count = system_->wait(events, at_most == duration::max() ? duration(-1) : at_most);
  const time_point time = system_->now();
  turn_milliseconds_ = static_cast<std::uint32_t>(time.time_since_epoch() / std::chrono::milliseconds(1));
  turn_began_ = time;
  work_ = 0;
  next_look_ = work_between_looks;
  for (int i = 0; i < count; ++i) dispatch(events[i]);
  // Due timers are queued after the ready nodes, so that an available result wins over a timeout. The number
  // of timers per turn is limited, so that the nodes that are ready next do not wait for all timers.
  for (int i = 0; i < timers_of_turn; ++i) {
    node* const due = timers_.pop_due(time);
    if (due == nullptr) break;
    queue(*due);
  }
  take_mail();
  if (after_wait != nullptr) after_wait(*this);
}

ANYIO_NET_FN void loop_core::leave_round() noexcept {
  round_.splice(ready_);
  ready_.splice(round_);
}

/// Called when the work reaches `next_look_`. Only the library's work is counted; the clock also covers the
/// time of callables and coroutines. A program that is slow overall, for instance under a debugger, still
/// gets half a turn of counted work if no timer is due.
ANYIO_NET_FN bool loop_core::turn_is_over() {
  constexpr std::chrono::milliseconds enough(1), most(4);
  if (stopped_ || work_ >= work_of_turn) return true;
  const time_point time = now();
  const duration ran = time - turn_began_;
  const timer* first = timers_.first();
  const bool due = first != nullptr && first->deadline() <= time;
  if (due ? ran >= enough : ran >= most && work_ >= work_of_turn / 2) {
    work_ = next_look_ = work_of_turn;
    return true;
  }
  next_look_ = std::min(work_ + work_between_looks, work_of_turn);
  return false;
}

ANYIO_NET_FN bool loop_core::run_ready(const bool* done) {
  struct round_scope {
    loop_core& core;
    explicit round_scope(loop_core& c) : core(c) { core.round_.splice(core.ready_); }
    ~round_scope() {
      core.leave_round();
    }  // nodes that did not run, because of stop() or an exception, stay in front
  };
  bool ran = false;
  for (int round = 0; round < rounds_of_turn && !ready_.empty(); ++round) {
    const round_scope scope(*this);
    while (!round_.empty()) {
      if ((work_ >= next_look_ && turn_is_over()) || (done != nullptr && *done)) return ran;
      auto& n = static_cast<node&>(*round_.next);
      n.take_out();
      work_ += work_of_completion;
      end_of_share_ = work_ + share_of_node;
      await_budget_ = await_budget_of_node;
      ran = true;
      n.how->run(n);
    }
  }
  return ran;
}

struct loop_core::running_scope {
  const ref<loop_core> core;
  claim runs;

  explicit running_scope(loop_core& c) : core(&c), runs(c) {
    ANYIO_NET_ASSERT(!c.running_ && "a loop cannot be run from inside itself");
    if (c.running_) refuse_to_run();
    c.running_ = true;
    c.stopped_ = false;
  }
  running_scope(const running_scope&) = delete;
  running_scope& operator=(const running_scope&) = delete;
  ~running_scope() { core->running_ = false; }
};

[[noreturn]] ANYIO_NET_COLD void loop_core::refuse_to_run() {
  const error e = error_access::with_reason(error(errc::invalid_argument, 0, "run"),
                                            "a loop cannot be run from inside itself");
#if ANYIO_NET_EXCEPTIONS
  throw_error(e);
#else
  abort_with("loop", e);
#endif
}

ANYIO_NET_FN loop_core::waiting_scope::waiting_scope(loop_core& core, const node* runner) noexcept
    : core_(&core),
      before_(detail::exchange(core.waits_, this)),
      runner_before_(detail::exchange(core.runner_, runner)) {
  for (const claim* c = latest; c != nullptr; c = c->earlier) {
    loop_core& outer = *c->core;
    if (&outer == &core || !outer.running_ || outer.blocked_by_ != nullptr) continue;
    outer.blocked_by_ = this;
    outer.end_of_share_ = outer.work_;  // an attempt that cannot wait after it might do half of its work
  }
}

ANYIO_NET_FN loop_core::waiting_scope::~waiting_scope() {
  core_->waits_ = before_;
  core_->runner_ = runner_before_;
  for (const claim* c = latest; c != nullptr; c = c->earlier)
    if (c->core->blocked_by_ == this) c->core->blocked_by_ = nullptr;
}

ANYIO_NET_COLD loop_core* loop_core::stranding(const node* root) const noexcept {
  for (const claim* c = latest; c != nullptr && c->core != this; c = c->earlier) {
    const loop_core& inner = *c->core;
    if (inner.waits_ == nullptr) continue;
    const bool until_idle = inner.runner_ == nullptr;
    if (root == nullptr || (until_idle ? root->core == &inner : root == inner.runner_)) return c->core;
  }
  return nullptr;
}

ANYIO_NET_FN bool loop_core::turn(duration at_most) {
  const running_scope scope(*this);
  bool ran = run_ready(nullptr);
  if (stopped_) return ran;
  const duration limit = ran || at_most < duration::zero() ? duration::zero() : at_most;
  poll(std::min(limit, time_until_next()));
  if (run_ready(nullptr)) ran = true;
  return ran;
}

ANYIO_NET_FN void loop_core::step() {
  const running_scope scope(*this);
  if (ready_.empty()) poll(time_until_next());
  next_look_ = work_of_turn;
  work_ = work_of_turn - 1;  // so that only one node runs
  run_ready(nullptr);
}

ANYIO_NET_FN void loop_core::run(const bool* done) {
  const running_scope scope(*this);
  std::optional<waiting_scope> until_idle;
  if (done == nullptr) until_idle.emplace(*this);
  for (;;) {
    run_ready(done);
    if (stopped_ || (done != nullptr && *done) || idle()) return;
    poll(time_until_next());
  }
}

ANYIO_NET_FN bool loop_core::idle() const noexcept {
  if (pending_ != 0) return false;
#if !defined(ANYIO_NET_NO_THREADS)
  const std::lock_guard lock(mail->mutex);
#endif
  return mail->calls.empty();
}

ANYIO_NET_FN duration loop_core::time_until_next() {
  if (!ready_.empty() || !round_.empty()) return duration::zero();
  const timer* first = timers_.first();
  if (first == nullptr) return duration::max();
  const time_point time = now();
  return first->deadline() > time ? first->deadline() - time : duration::zero();
}

ANYIO_NET_COLD void loop_core::after_fork() {
  if (!inherited()) return;
  if (const int status = system_->after_fork(); status < 0)
    abort_with("after_fork", error(errc::os_error, -status, "poller"));
  mail->forks_of_owner = forks_so_far;
  signal_service* const signals = system_->signals() != nullptr ? system_->signals() : own_signals.get();
  if (signals != nullptr) signals->wake_by(system_->wake_descriptor());
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    resource* const owner = slots_[i].owner;
    if (owner == nullptr) continue;
    const int fd = slots_[i].fd;
    int status = 0;
    if (fd >= 0 && !owner->entered_by_waits)
      status = system_->watch(fd, std::uint64_t{slots_[i].generation} << 32 | i);
    if (status < 0 && status != -EPERM) {  // EPERM: the device is always ready
      ref<resource>(owner)->close();
    } else {
      owner->ready(ready_read | ready_write);
    }
  }
  system_->wake();  // so that the loop checks for posted calls and signals
}

ANYIO_NET_COLD void loop_core::reserve(std::size_t descriptors, std::size_t started_operations) {
  // Either all of it is reserved or nothing.
  recycler::reservation places(recycler::descriptors, descriptors);
  recycler::reservation blocks(recycler::operations, started_operations);
  shared<loop_buffer> new_buffer(buffer_);
  if (new_buffer == nullptr) new_buffer = shared(owned<loop_buffer>(new loop_buffer));
  slots_.reserve(slots_.size() + descriptors);
  buffer_ = std::move(new_buffer);
  places.put_aside();
  blocks.put_aside();
}

/// Abandons the nodes that wait at resources. Returns false if there was none.
ANYIO_NET_COLD bool loop_core::abandon_at_resources() noexcept {
  bool found = false;
  list seen;
  while (link* const place = resources_.pop_front()) {
    seen.push_back(*place);
    const ref<resource> owner(&resource::at(*place));
    for (node* const n : owner->waiting_) {
      if (n == nullptr || !n->pending() || n->linked()) continue;
      n->how->abandon(*n);
      found = true;
    }
  }
  resources_.splice(seen);
  return found;
}

/// Abandons all nodes, also those that destructors of callables begin meanwhile. All resources are still
/// open.
ANYIO_NET_COLD void loop_core::abandon_waiting() noexcept {
  do {
    while (!ready_.empty() || !parked_.empty()) {
      auto& n = static_cast<node&>(*(ready_.empty() ? parked_ : ready_).next);
      n.how->abandon(n);
    }
  } while (abandon_at_resources() || !ready_.empty() || !parked_.empty());
}

ANYIO_NET_COLD void loop_core::end() {
  const ref<loop_core> self(this);
  {
    list calls;
    {
#if !defined(ANYIO_NET_NO_THREADS)
      const std::lock_guard lock(mail->mutex);
#endif
      mail->system = nullptr;
      calls.splice(mail->calls);
    }
    while (link* const l = calls.pop_front()) {
      auto& call = static_cast<posted_node&>(*l);
      call.how->abandon(call);
    }
  }
  stop();  // has an effect only if the loop runs
  leave_round();
  abandon_waiting();
  for (std::size_t i = 0; i < slots_.size(); ++i)
    if (resource* owner = slots_[i].owner) ref<resource>(owner)->close();
  while (timers_.first() != nullptr) static_cast<void>(timers_.pop_due(time_point::max()));
  own_signals.reset();
  system_ = nullptr;
  for (link* l = resources_.next; l != &resources_; l = l->next) resource::at(*l).open_ = false;
  lives_.withdraw();
  object = nullptr;
}

}  // namespace detail

ANYIO_NET_COLD loop::loop() : loop(system_backend()) {}

ANYIO_NET_COLD loop::loop(std::unique_ptr<backend> system) : core_(new detail::loop_core(std::move(system))) {
  core_->object = this;
}

ANYIO_NET_COLD loop::~loop() { core_->end(); }

ANYIO_NET_FN loop& loop::current() { return *detail::loop_core::current().object; }

ANYIO_NET_FN time_point now() { return detail::loop_core::current().now(); }

}}  // namespace anyio
