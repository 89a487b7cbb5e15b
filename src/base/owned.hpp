// A pointer that owns what it points to.
//
// `std::unique_ptr` costs a compiler some 2 MB for each type that it points to, for what the library does not
// use: deleters, comparisons, hashes, arrays of known size. The library has it in its interface only.
#pragma once

#include "base/config.hpp"

#include <cstddef>
#include <type_traits>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Owns an object that `new` has made, or an array if T is an array.
template <class T>
class owned {
  using object = std::remove_extent_t<T>;

 public:
  constexpr owned(std::nullptr_t = nullptr) noexcept {}
  explicit owned(object* made) noexcept : pointer_(made) {}
  owned(owned&& other) noexcept : pointer_(other.release()) {}
  owned& operator=(owned&& other) noexcept {
    reset(other.release());
    return *this;
  }
  ~owned() { reset(); }

  [[nodiscard]] object* get() const noexcept { return pointer_; }
  [[nodiscard]] object& operator*() const noexcept { return *pointer_; }
  [[nodiscard]] object* operator->() const noexcept { return pointer_; }
  [[nodiscard]] object& operator[](std::size_t i) const noexcept { return pointer_[i]; }
  explicit operator bool() const noexcept { return pointer_ != nullptr; }
  bool operator==(std::nullptr_t) const noexcept { return pointer_ == nullptr; }
  [[nodiscard]] object* release() noexcept {
    object* const released = pointer_;
    pointer_ = nullptr;
    return released;
  }
  void reset(object* made = nullptr) noexcept {
    object* const before = pointer_;
    pointer_ = made;
    if constexpr (std::is_array_v<T>) {
      delete[] before;
    } else {
      delete before;
    }
  }

 private:
  object* pointer_ = nullptr;
};

}}}  // namespace anyio::detail
