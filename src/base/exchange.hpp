// Replacing a value: `std::exchange` for use inside, without the traits by which the standard library finds
// out, for each pair of types, whether it may throw.
#pragma once

#include "base/config.hpp"

#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Sets `object` to `value`, and returns what it was before.
template <class T, class U = T>
[[gnu::always_inline]] inline T exchange(T& object, U&& value) {
  T before = std::move(object);
  object = std::forward<U>(value);
  return before;
}

}}}  // namespace anyio::detail
