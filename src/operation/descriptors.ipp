// The one entry in the poller that a reader and a writer share.
#pragma once

#include "base/exchange.hpp"
#include "operation/descriptors.hpp"

#include <cerrno>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_FN raw_descriptor* raw_descriptor::find(loop_core& core, int fd) noexcept {
  for (link* l = core.raw_descriptors.next; l != &core.raw_descriptors; l = l->next) {
    auto& raw = static_cast<raw_descriptor&>(static_cast<raw_place&>(*l));
    if (raw.descriptor() == fd) return &raw;
  }
  return nullptr;
}

ANYIO_NET_FN int raw_descriptor::arm() {
  const bool again = entered_;
  if (!again) token_ = core().enter(registration_, *this);
  entered_ = true;
  std::uint32_t interest = 0;
  if (waiting(read_side) != nullptr) interest |= ready_read;
  if (waiting(write_side) != nullptr) interest |= ready_write;
  return core().system().watch_once(registration_.fd, interest, token_, again);
}

ANYIO_NET_FN void raw_descriptor::left(side s) noexcept {
  set_waiting(s, nullptr);
  if (!open()) return;
  node* other = waiting(s == read_side ? write_side : read_side);
  if (other == nullptr) return close();
  // The waiter that left may have used up the event. If arming fails, the other waiter gets the error.
  if (core().inherited()) return;
  if (entered_ && arm() < 0) core().queue(*other);
}

ANYIO_NET_FN void raw_descriptor::shut() noexcept {
  raw_place::unlink();
  if (!detail::exchange(entered_, false)) return;
  core().leave(registration_);
  // If the owner closed it without `notify_closing`, a stream of this loop may use the number now.
  if (!core().watches(registration_.fd)) core().unwatch(registration_.fd);
}

}  // namespace detail

ANYIO_NET_FN wait_operation& wait_operation::operator=(wait_operation&& other) noexcept {
  if (this == &other) return *this;
  leave();
  fd_ = other.fd_;
  side_ = other.side_;
  operation::operator=(std::move(other));
  return *this;
}

ANYIO_NET_FN bool wait_operation::busy(detail::loop_core& loop) const noexcept {
  if (const detail::raw_descriptor* raw = detail::raw_descriptor::find(loop, fd_)) {
    return raw->waiting(side_) != nullptr;
  }
  return loop.watches(fd_);
}

ANYIO_NET_FN void wait_operation::join(detail::loop_core& loop) {
  detail::raw_descriptor* raw = detail::raw_descriptor::find(loop, fd_);
  place_ = detail::ref(raw != nullptr ? raw : new detail::raw_descriptor(loop, fd_));
  place_->set_waiting(side_, this);
}

ANYIO_NET_FN void wait_operation::leave() noexcept {
  if (!place_) return;
  place_->left(side_);
  place_ = {};
}

ANYIO_NET_FN errc wait_operation::enter() {
  if (place_) return errc::ok;
  if (busy(*core)) return errc::busy_resource;
  join(*core);
  return errc::ok;
}

ANYIO_NET_FN bool wait_operation::attempt(result<void>& out) {
  const auto fail = [&](errc code, int os_error = 0) {
    out = error(code, os_error, operation_name());
    return true;
  };
  detail::loop_core& loop = core != nullptr ? *core : home();
  if (place_ ? !place_->open() : busy(loop))
    return fail(place_ ? errc::closed_resource : errc::busy_resource);

  const bool reads = side_ == detail::read_side;
  const auto wanted =
      reads ? detail::ready_read | detail::ready_end : detail::ready_write | detail::ready_end;
  int status = loop.system().poll_now(fd_, reads ? detail::ready_read : detail::ready_write);
  if (status >= 0 && (static_cast<unsigned>(status) & wanted) == 0) {
    if (!place_) join(loop);
    status = place_->arm();
    if (status >= 0) return false;
    if (!pending()) leave();
  }
  // A descriptor that the poller cannot watch, such as a regular file with epoll, is always ready.
  if (status >= 0 || status == -EPERM) {
    out = result<void>();
    return true;
  }
  return fail(status == -EOPNOTSUPP ? errc::not_supported : errc::os_error, -status);
}

ANYIO_NET_FN void notify_closing(int fd) {
  detail::loop_core* loop = detail::loop_core::current_or_null();
  if (loop == nullptr) return;
  if (detail::raw_descriptor* raw = detail::raw_descriptor::find(*loop, fd)) raw->close();
}

}}  // namespace anyio
