// A view of an array whose length is known at run time: `std::span` for use inside, which a compiler reads in
// a tenth of the memory. The interface has `std::span`.
#pragma once

#include "base/config.hpp"

#include <cstddef>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

template <class T>
class slice {
 public:
  constexpr slice() noexcept = default;
  constexpr slice(T* first, std::size_t size) noexcept : first_(first), size_(size) {}
  template <std::size_t N>
  constexpr slice(T (&all)[N]) noexcept : first_(all), size_(N) {}
  /// From an object that has such an array.
  template <class Array>
    requires requires(Array&& from, T* first) { first = from.data(); }
  constexpr slice(Array&& from) noexcept : first_(from.data()), size_(from.size()) {}

  [[nodiscard]] constexpr T* data() const noexcept { return first_; }
  [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
  [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] constexpr T* begin() const noexcept { return first_; }
  [[nodiscard]] constexpr T* end() const noexcept { return first_ + size_; }
  [[nodiscard]] constexpr T& operator[](std::size_t i) const noexcept { return first_[i]; }
  [[nodiscard]] constexpr T& front() const noexcept { return *first_; }
  [[nodiscard]] constexpr T& back() const noexcept { return first_[size_ - 1]; }
  /// The first `count` elements, and the elements from the one at `offset` on.
  [[nodiscard]] constexpr slice first(std::size_t count) const noexcept { return {first_, count}; }
  [[nodiscard]] constexpr slice subspan(std::size_t offset) const noexcept {
    return {first_ + offset, size_ - offset};
  }

 private:
  T* first_ = nullptr;
  std::size_t size_ = 0;
};

}}}  // namespace anyio::detail
