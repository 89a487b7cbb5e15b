// Passing recorded signals to the receivers.
#pragma once

#include "operation/signals.hpp"

#include <bit>
#include <cerrno>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The signal service of the loop, made when it is first needed.
inline signal_service& signals_of(loop_core& core) {
  if (signal_service* own = core.system().signals()) return *own;
  if (!core.own_signals) core.own_signals = system_signals(core.system().wake_descriptor());
  return *core.own_signals;
}

ANYIO_NET_FN signal_resource::signal_resource(loop_core& core) : resource(core) {
  distribute(core);                                     // signals from before are not for this receiver
  static_cast<void>(core.enter(registration_, *this));  // so that it is closed with the loop
  core.signal_receivers.push_back(static_cast<receiver_place&>(*this));
  core.after_wait = distribute;
}

ANYIO_NET_FN int signal_resource::add(int number) {
  if (number < 1 || number > highest) return -EINVAL;
  const std::uint64_t bit = std::uint64_t{1} << (number - 1);
  if ((named_ & bit) != 0) return 0;
  const int status = signals_of(core()).catch_signal(number);
  if (status >= 0) named_ |= bit;
  return status;
}

ANYIO_NET_FN int signal_resource::take() {
  if (came_ == 0) distribute(core());
  if (came_ == 0) return 0;
  const int index = std::countr_zero(came_);
  came_ &= came_ - 1;
  return index + 1;
}

ANYIO_NET_FN void signal_resource::distribute(loop_core& core) {
  const list& all = core.signal_receivers;
  std::uint64_t named = 0;
  for (link* l = all.next; l != &all; l = l->next) named |= at(*l).named_;
  std::uint64_t came = 0;
  for (std::uint64_t rest = named; rest != 0; rest &= rest - 1) {
    if (signals_of(core).take_signal(std::countr_zero(rest) + 1)) came |= rest & (~rest + 1);
  }
  if (came == 0) return;
  for (link* l = all.next; l != &all; l = l->next) {
    signal_resource& receiver = at(*l);
    receiver.came_ |= came & receiver.named_;
    if (receiver.came_ != 0) receiver.wake(read_side);
  }
}

ANYIO_NET_FN void signal_resource::shut() noexcept {
  receiver_place::unlink();
  if (core().signal_receivers.empty()) core().after_wait = nullptr;
  for (std::uint64_t rest = named_; rest != 0; rest &= rest - 1) {
    signals_of(core()).release_signal(std::countr_zero(rest) + 1);
  }
  core().leave(registration_);
}

}  // namespace detail

ANYIO_NET_FN signal_receiver& signal_receiver::operator=(signal_receiver&& other) noexcept {
  if (this == &other) return *this;
  close();
  resource_ = std::move(other.resource_);
  return *this;
}

ANYIO_NET_FN result<signal_receiver> signal_receiver::open_all(std::span<const int> numbers) {
  detail::ref<detail::signal_resource> made(new detail::signal_resource(detail::loop_core::current()));
  for (const int number : numbers) {
    const int status = made->add(number);
    if (status < 0)
      return error(status == -EINVAL ? errc::invalid_argument : errc::os_error, -status, "signal");
  }
  return signal_receiver(std::move(made));
}

}}  // namespace anyio
