// An object that may not be there yet: `std::optional` for use inside, without comparisons, copies and
// conversions, which a compiler makes anew for each type. The interface has `std::optional`.
#pragma once

#include "base/config.hpp"

#include <new>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

template <class T>
class optional {
 public:
  optional() noexcept {}
  explicit optional(T&& value) : made_(true) { ::new (static_cast<void*>(&value_)) T(std::move(value)); }
  optional(optional&& other) noexcept { take(other); }
  optional& operator=(optional&& other) noexcept {
    if (this == &other) return *this;
    if (made_ && other.made_) {
      value_ = std::move(other.value_);
    } else {
      reset();
      take(other);
    }
    return *this;
  }
  ~optional() { reset(); }

  explicit operator bool() const noexcept { return made_; }
  [[nodiscard]] T& operator*() noexcept { return value_; }
  [[nodiscard]] T* operator->() noexcept { return &value_; }
  /// Makes the object, which must not be there.
  template <class... Args>
  void emplace(Args&&... args) {
    ::new (static_cast<void*>(&value_)) T(std::forward<Args>(args)...);
    made_ = true;
  }
  void reset() noexcept {
    if (!made_) return;
    made_ = false;
    value_.~T();
  }

 private:
  void take(optional& other) {
    if (other.made_) emplace(std::move(other.value_));
  }

  union {
    T value_;
  };
  bool made_ = false;
};

}}}  // namespace anyio::detail
