// Questions about types, asked by expressions.
//
// The standard library answers with classes, some five for each pair of types, and `result` and `ref` ask
// about hundreds. This part must not know the types that are asked about.
#pragma once

#include "base/config.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Whether a From converts to a To by itself, as an argument does.
template <class From, class To>
concept converts_to = requires(From (&make)(), void (&take)(To)) { take(make()); };

template <class T>
concept default_constructible = requires { T(); };

template <class T>
concept copy_constructible = requires(const T& other) { T(other); };

/// Whether moving a T cannot throw.
template <class T>
concept moves_without_throwing = requires(T&& other) {
  { T(static_cast<T&&>(other)) } noexcept;
};

}}}  // namespace anyio::detail
