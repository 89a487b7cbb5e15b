// How an operation has parts: other operations that it begins, and whose outcomes advance it.
//
// A part is started with a callback that names a function of the whole. If the outcome is all that the whole
// waits for, that function hands it over: it runs the whole, whose attempt takes it, so that a view which a
// part returns is still valid. Destroying the whole destroys its parts. This part of the library
// must not know what an operation does.
#pragma once

#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "loop/ready_list.hpp"

#include <concepts>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// What tells a part from the others of its whole; nothing if there are no others.
struct only_part {};

/// The callback of a part: calls the member function Ended of the whole with the outcome, and with `which`
/// unless that is nothing. A whole that is no node names its own, `whole()`; it may have `forget(which)`, for
/// a part whose loop ends.
template <auto Ended, class Whole, class Which>
struct part_of {
  using internal = void;
  Whole* self;
  [[no_unique_address]] Which which;

  template <class T>
  void operator()(result<T>&& r) const {
    if constexpr (std::same_as<Which, only_part>) {
      (self->*Ended)(std::move(r));
    } else {
      (self->*Ended)(which, std::move(r));
    }
  }
  [[nodiscard]] node* owner() const noexcept {
    if constexpr (std::derived_from<Whole, node>) {
      return self;
    } else {
      return self->whole();
    }
  }
  void abandon() const
    requires requires { self->forget(which); }
  {
    self->forget(which);
  }
};

template <auto Ended, class Whole, class Which = only_part>
part_of<Ended, Whole, Which> part(Whole* whole, Which which = {}) noexcept {
  return {whole, which};
}

/// The outcome of a part, from its end until the attempt of the whole that follows at once.
template <class T>
class part_outcome {
 public:
  /// Runs the whole, which takes the outcome in its attempt.
  void hand_over(result<T>& outcome, node& whole) {
    outcome_ = &outcome;
    run_now(whole);
  }
  /// Returns false if nothing has arrived.
  bool take(result<T>& out) {
    if (outcome_ == nullptr) return false;
    out = std::move(*outcome_);
    outcome_ = nullptr;
    return true;
  }

 private:
  result<T>* outcome_ = nullptr;
};

}}}  // namespace anyio::detail
