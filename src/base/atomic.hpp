// A number that threads and signal handlers share: `std::atomic` for use inside. <atomic> costs a compiler as
// much as all sockets of the library, most of it for waiting and for types that the library does not use.
#pragma once

#include "base/config.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// A bool or an integer. All accesses are sequentially consistent; those that change it return the value
/// before.
template <class T>
class atomic {
 public:
  constexpr atomic() noexcept = default;
  constexpr explicit atomic(T value) noexcept : value_(value) {}
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  [[nodiscard]] T load() const noexcept { return __atomic_load_n(&value_, __ATOMIC_SEQ_CST); }
  void store(T value) noexcept { __atomic_store_n(&value_, value, __ATOMIC_SEQ_CST); }
  T exchange(T value) noexcept { return __atomic_exchange_n(&value_, value, __ATOMIC_SEQ_CST); }
  T fetch_add(T value) noexcept { return __atomic_fetch_add(&value_, value, __ATOMIC_SEQ_CST); }
  T fetch_sub(T value) noexcept { return __atomic_fetch_sub(&value_, value, __ATOMIC_SEQ_CST); }
  T fetch_or(T value) noexcept { return __atomic_fetch_or(&value_, value, __ATOMIC_SEQ_CST); }
  T fetch_and(T value) noexcept { return __atomic_fetch_and(&value_, value, __ATOMIC_SEQ_CST); }

  static constexpr bool is_lock_free = __atomic_always_lock_free(sizeof(T), nullptr);

 private:
  T value_ = {};
};

}}}  // namespace anyio::detail
