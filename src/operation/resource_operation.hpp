// Operations that belong to a resource, where they wait as the reader or the writer. The base here makes the
// checks for closed and busy, takes the place and leaves it. This part must not know what a resource is.
#pragma once

#include "base/config.hpp"
#include "base/error.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"

#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// An operation that belongs to a resource: it waits there as the reader or the writer.
template <class Derived, class T, class Resource, side Side>
class resource_operation : public operation<Derived, T> {
 public:
  resource_operation() = default;
  /// Without a resource, as for a closed stream, the operation fails with `closed_resource`.
  explicit resource_operation(ref<Resource> r) noexcept
      : operation<Derived, T>(true), resource_(std::move(r)) {}
  resource_operation(resource_operation&& other) noexcept = default;
  resource_operation& operator=(resource_operation&& other) noexcept {
    if (this == &other) return *this;
    leave_for_good();
    operation<Derived, T>::operator=(std::move(other));
    resource_ = std::move(other.resource_);
    return *this;
  }
  ~resource_operation() { leave_for_good(); }

 protected:
  friend class operation<Derived, T>;

  static constexpr bool waits_at_resource = true;

  [[nodiscard]] errc check() const noexcept {
    if (!resource_ || !resource_->open()) [[unlikely]]
      return this->made ? errc::closed_resource : errc::invalid_argument;
    const node* const waiter = resource_->waiting(Side);
    return waiter != nullptr && waiter != this && !waiter->yields ? errc::busy_resource : errc::ok;
  }
  [[nodiscard]] errc enter() noexcept {
    resource_->set_waiting(Side, this);
    return errc::ok;
  }
  void leave_place() noexcept {
    if (waits()) resource_->set_waiting(Side, nullptr);
  }
  [[nodiscard]] bool is_refused() const noexcept { return !resource_->open(); }
  void withdrawn() noexcept {
    if (resource_) resource_->withdrawn(Side);
  }
  [[nodiscard]] loop_core& home_if_checked() const noexcept { return resource_->core(); }
  [[nodiscard]] loop_core& home() const {
    return resource_ && resource_->core().alive() ? resource_->core() : loop_core::current();
  }
  void refresh() noexcept {
    if (resource_) resource_->exhausted[Side] = false;
  }
  [[nodiscard]] int descriptor() const noexcept { return resource_ ? resource_->descriptor() : -1; }

  ref<Resource> resource_;

 private:
  [[nodiscard]] bool waits() const noexcept { return resource_ && resource_->waiting(Side) == this; }
  void leave_for_good() noexcept {
    if (!this->pending()) [[likely]]
      return;
    if (!waits()) return;
    resource_->set_waiting(Side, nullptr);
    resource_->withdrawn(Side);
  }
};

}}}  // namespace anyio::detail
