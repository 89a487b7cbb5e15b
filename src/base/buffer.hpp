// Views of bytes, as they are given to and taken from streams: a pointer and a size, made implicitly
// from whatever holds bytes, so that no caller casts and every operation has one signature. They own
// nothing and know nothing of system calls, streams or who will read them.
#pragma once

#include "base/config.hpp"

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

class const_buffer;
class mutable_buffer;

}}  // namespace anyio

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// Exactly the types that may alias any object, so that a view of them is a view of memory. Not
// signed char or char8_t: nobody stores received bytes there.
template <class T>
concept byte_type = std::same_as<T, char> || std::same_as<T, unsigned char> || std::same_as<T, std::byte>;

template <class T>
concept byte_pointer = std::is_pointer_v<T> && byte_type<std::remove_const_t<std::remove_pointer_t<T>>>;

// A container or view: data() and size(). The two buffers are left out, or a non-const lvalue of one
// would prefer the constructor template to the copy constructor.
template <class T>
concept byte_range = !std::same_as<std::remove_cvref_t<T>, const_buffer> &&
                     !std::same_as<std::remove_cvref_t<T>, mutable_buffer> && requires(T& range) {
                       { range.data() } -> byte_pointer;
                       { range.size() } -> std::convertible_to<std::size_t>;
                     };

// What may be written to: data() points to non-const, and the bytes outlive the expression, because
// the argument is an lvalue or only a view of them.
template <class T>
concept writable_byte_range =
    byte_range<T> && !std::is_const_v<std::remove_pointer_t<decltype(std::declval<T&>().data())>> &&
    (std::is_lvalue_reference_v<T> || std::ranges::enable_borrowed_range<std::remove_cvref_t<T>>);

/// For the overload of a send that keeps a `std::string` given as an rvalue:
///
///     auto send(const_buffer bytes);
///     auto send(std::span<const const_buffer> parts);
///     template <detail::string_rvalue S> auto send(S&& text);   // text is a std::string&&
///
/// A plain `send(std::string&&)` would make `send("text")` ambiguous, since a literal converts to a
/// string as well as it does to a buffer. This one takes nothing but a non-const rvalue.
template <class T>
concept string_rvalue = std::same_as<T, std::string>;

}}}  // namespace anyio::detail

namespace anyio { inline namespace ANYIO_NET_ABI {

/// Bytes to be written to: a pointer and a size. Does not own them; whoever makes one keeps the bytes
/// alive until the operation that it was given to has completed or been destroyed.
///
/// Made implicitly from non-const lvalues of `std::string`, `std::vector`, `std::array` and arrays, and
/// from any `std::span`, of `char`, `unsigned char` or `std::byte`; always the whole of it.
class mutable_buffer {
 public:
  /// Empty.
  constexpr mutable_buffer() noexcept = default;

  /// Room for `size` bytes.
  constexpr mutable_buffer(void* data, std::size_t size) noexcept : data_(data), size_(size) {}

  /// All of an array.
  template <detail::byte_type T, std::size_t n>
  constexpr mutable_buffer(T (&array)[n]) noexcept : data_(array), size_(n) {}

  /// All of a string, a vector, a span and the like.
  template <detail::writable_byte_range T>
  constexpr mutable_buffer(T&& range) noexcept
      : data_(range.data()), size_(static_cast<std::size_t>(range.size())) {}

  /// Where it begins.
  std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  /// How many bytes it has.
  constexpr std::size_t size() const noexcept { return size_; }
  /// Whether it has none.
  constexpr bool empty() const noexcept { return size_ == 0; }

  /// Drops the first `n` bytes from the view; `n` is at most size().
  void remove_prefix(std::size_t n) noexcept {
    ANYIO_NET_ASSERT(n <= size_);
    data_ = data() + n;
    size_ -= n;
  }

 private:
  friend class const_buffer;

  void* data_ = nullptr;  // void: a constant expression may not cast to std::byte*, but may forget the type
  std::size_t size_ = 0;
};

/// Bytes to be read: a pointer and a size. Does not own them; whoever makes one keeps the bytes alive
/// until the operation that it was given to has completed or been destroyed.
///
/// Made implicitly from `std::string_view`, `std::string`, `std::vector`, `std::array`, arrays and
/// `std::span` of `char`, `unsigned char` or `std::byte`, and from a mutable_buffer. A `const char[N]`
/// counts without its last element if that is NUL, which is what a literal means (NULs inside are
/// kept), a `const char*` up to its NUL. Everything else is taken whole, a non-const `char[N]` too.
class const_buffer {
 public:
  /// Empty.
  constexpr const_buffer() noexcept = default;

  /// So many bytes.
  constexpr const_buffer(const void* data, std::size_t size) noexcept : data_(data), size_(size) {}

  /// The same bytes, to be read.
  constexpr const_buffer(mutable_buffer bytes) noexcept : data_(bytes.data_), size_(bytes.size_) {}

  /// All of an array, without the NUL that ends a literal.
  template <class T, std::size_t n>
    requires detail::byte_type<std::remove_const_t<T>>
  constexpr const_buffer(T (&array)[n]) noexcept : data_(array), size_(n) {
    if constexpr (std::same_as<T, const char>) {
      if (array[n - 1] == '\0') --size_;
    }
  }

  /// Up to the NUL, which must be there; `text` is not null. A template, or arrays would come here.
  template <class T>
    requires(std::same_as<T, const char*> || std::same_as<T, char*>)
  constexpr const_buffer(const T& text) noexcept : data_(text), size_(std::char_traits<char>::length(text)) {}

  /// All of a string, a vector, a span and the like.
  template <detail::byte_range T>
  constexpr const_buffer(T&& range) noexcept
      : data_(range.data()), size_(static_cast<std::size_t>(range.size())) {}

  /// Where it begins.
  const std::byte* data() const noexcept { return static_cast<const std::byte*>(data_); }
  /// How many bytes it has.
  constexpr std::size_t size() const noexcept { return size_; }
  /// Whether it has none.
  constexpr bool empty() const noexcept { return size_ == 0; }

  /// Drops the first `n` bytes from the view; `n` is at most size().
  void remove_prefix(std::size_t n) noexcept {
    ANYIO_NET_ASSERT(n <= size_);
    data_ = data() + n;
    size_ -= n;
  }

 private:
  const void* data_ = nullptr;
  std::size_t size_ = 0;
};

}}  // namespace anyio
