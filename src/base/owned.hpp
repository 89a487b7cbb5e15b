// Pointers that own what they point to, as the only owner or with others.
//
// `std::unique_ptr` costs a compiler some 2 MB for each type that it points to, for what the library does not
// use: deleters, comparisons, hashes, arrays of known size. The library has it in its interface only.
#pragma once

#include "base/atomic.hpp"
#include "base/config.hpp"
#include "base/exchange.hpp"

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
  [[nodiscard]] object* release() noexcept { return detail::exchange(pointer_, nullptr); }
  void reset(object* made = nullptr) noexcept {
    object* const before = detail::exchange(pointer_, made);
    if constexpr (std::is_array_v<T>) {
      delete[] before;
    } else {
      delete before;
    }
  }

 private:
  object* pointer_ = nullptr;
};

/// Owns an object together with its copies, which may be on other threads: the last one deletes it.
template <class T>
class shared {
 public:
  constexpr shared(std::nullptr_t = nullptr) noexcept {}
  explicit shared(owned<T> made) {
    if (!made) return;
    owners_ = new atomic<unsigned>(1);
    object_ = made.release();
  }
  shared(const shared& other) noexcept : object_(other.object_), owners_(other.owners_) {
    if (owners_ != nullptr) owners_->fetch_add(1);
  }
  shared(shared&& other) noexcept
      : object_(detail::exchange(other.object_, nullptr)),
        owners_(detail::exchange(other.owners_, nullptr)) {}
  shared& operator=(shared other) noexcept {
    T* const object = object_;
    atomic<unsigned>* const owners = owners_;
    object_ = other.object_;
    owners_ = other.owners_;
    other.object_ = object;
    other.owners_ = owners;
    return *this;
  }
  ~shared() {
    if (owners_ == nullptr || owners_->fetch_sub(1) != 1) return;
    delete owners_;
    delete object_;
  }

  [[nodiscard]] T* get() const noexcept { return object_; }
  [[nodiscard]] T& operator*() const noexcept { return *object_; }
  [[nodiscard]] T* operator->() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }
  bool operator==(std::nullptr_t) const noexcept { return object_ == nullptr; }
  /// Whether it is the only owner of its object.
  [[nodiscard]] bool unique() const noexcept { return owners_ != nullptr && owners_->load() == 1; }

 private:
  T* object_ = nullptr;
  atomic<unsigned>* owners_ = nullptr;
};

}}}  // namespace anyio::detail
