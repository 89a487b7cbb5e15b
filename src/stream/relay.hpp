// How a stream over another stream waits: the relay waits on the inner stream for the operation that waits on
// the outer one.
//
// The outer stream's verb calls the inner stream's verb. When that has to wait, the relay takes the reader's
// or the writer's place at the inner stream. When woken, it runs the outer operation at once, which tries
// again. So bytes taken from the inner stream always have an owner, and a cancelled wait only gives up its
// place. This part must not know how the outer stream uses the bytes.
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "loop/loop.hpp"
#include "loop/ready_list.hpp"

#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// The place for one direction. It is never pending: it is woken but never begun, and only the operation that
/// it stands for counts as pending.
class relay final : public node {
 public:
  /// A function of the outer stream that runs when the relay is woken, with or without a waiting operation.
  using hook = void (*)(resource& outer, bool cancelled);

  /// With a hook, the relay keeps its place until it is woken or told to leave, even if no operation waits on
  /// the outer stream.
  relay(resource& outer, side s, hook woken = nullptr) noexcept : outer_(outer), woken_(woken), side_(s) {
    how = &face_of_relay;
  }
  ~relay() { leave(); }
  relay(const relay&) = delete;
  relay& operator=(const relay&) = delete;

  /// Whether another operation waits on the inner stream.
  [[nodiscard]] bool is_taken(const resource& inner) const noexcept {
    const node* waiter = inner.waiting(side_);
    return waiter != nullptr && waiter != this && !waiter->yields;
  }
  [[nodiscard]] bool waits() const noexcept { return inner_ != nullptr; }
  /// Prepares a call of the inner stream. An error if it is closed, or another operation waits there.
  [[nodiscard]] errc enter(resource& inner) noexcept {
    leave();
    if (!inner.open()) return errc::closed_resource;
    if (is_taken(inner)) return errc::busy_resource;
    // The outer stream is exhausted all the time, except after `refresh`: then the inner one has to look too.
    if (!detail::exchange(outer_.exhausted[side_], true)) inner.exhausted[side_] = false;
    return errc::ok;
  }
  /// Waits on the inner stream, which the outer stream keeps alive.
  void join(resource& inner) noexcept {
    leave();
    inner_ = &inner;
    inner.set_waiting(side_, this);
  }
  /// Gives up the place, if there is one.
  void leave() noexcept {
    unlink();
    cancelled = false;
    resource* const inner = detail::exchange(inner_, nullptr);
    if (inner != nullptr && inner->waiting(side_) == this) inner->set_waiting(side_, nullptr);
  }

 private:
  static void run(node& n) {
    auto& self = static_cast<relay&>(n);
    const ref<resource> alive(&self.outer_);
    const bool was_cancelled = self.cancelled;
    self.leave();
    if (self.woken_ != nullptr) self.woken_(self.outer_, was_cancelled);
    node* const waiter = self.outer_.waiting(self.side_);
    if (waiter == nullptr) return;
    if (was_cancelled) waiter->cancelled = true;
    waiter->how->run(*waiter);
    // If the operation was cancelled, its last attempt has joined again.
    if (self.outer_.waiting(self.side_) == nullptr) self.outer_.withdrawn(self.side_);
  }
  static void abandon(node& n) { n.unlink(); }
  static node* owner(node&) { return nullptr; }
  static description describe(node& n) { return {"relay", static_cast<relay&>(n).outer_.descriptor()}; }
  static constexpr face face_of_relay{run, abandon, owner, describe};

  resource& outer_;
  resource* inner_ = nullptr;  // set while the relay has a place there
  hook woken_;
  side side_;
};

}}}  // namespace anyio::detail
