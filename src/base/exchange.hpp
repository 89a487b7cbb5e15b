// Replacing a value: `std::exchange` for use inside, without the traits by which the standard library finds
// out, for each type, whether it may throw.
#pragma once

#include "base/config.hpp"

#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Sets `object` to `value`, and returns what it was before.
template <class T>
[[gnu::always_inline]] inline T exchange(T& object, std::type_identity_t<T> value) {
  T before = std::move(object);
  object = std::move(value);
  return before;
}

}}}  // namespace anyio::detail
