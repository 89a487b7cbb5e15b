// Views of bytes that are sent or received: a pointer and a size, constructed implicitly from any container
// of bytes, so that no caller needs a cast and every operation has one signature. The views own nothing. This
// part must not know system calls, streams or the users of the bytes.
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

// Exactly the types that may alias any object, so that a view of them is a view of memory. signed char
// and char8_t are not included, since programs do not store received bytes in them.
template <class T>
concept byte_type = std::same_as<T, char> || std::same_as<T, unsigned char> || std::same_as<T, std::byte>;

template <class T>
concept byte_pointer = std::is_pointer_v<T> && byte_type<std::remove_const_t<std::remove_pointer_t<T>>>;

// A container or view: it has data() and size(). The two buffer classes are excluded; otherwise a non-const
// lvalue of either class would prefer the constructor template to the copy constructor.
template <class T>
concept byte_range = !std::same_as<std::remove_cvref_t<T>, const_buffer> &&
                     !std::same_as<std::remove_cvref_t<T>, mutable_buffer> && requires(T& range) {
                       { range.data() } -> byte_pointer;
                       { range.size() } -> std::convertible_to<std::size_t>;
                     };

// A range that may be written to: data() points to non-const, and the bytes outlive the expression, because
// the argument is an lvalue or only a view of the bytes.
template <class T>
concept writable_byte_range =
    byte_range<T> && !std::is_const_v<std::remove_pointer_t<decltype(std::declval<T&>().data())>> &&
    (std::is_lvalue_reference_v<T> || std::ranges::enable_borrowed_range<std::remove_cvref_t<T>>);

/// For the overload of a send function that takes ownership of a `std::string` rvalue:
///
///     auto send(const_buffer bytes);
///     auto send(std::span<const const_buffer> parts);
///     template <detail::string_rvalue S> auto send(S&& text);   // text is a std::string&&
///
/// A plain `send(std::string&&)` would make `send("text")` ambiguous, since a literal converts to a
/// string as well as to a buffer. This template accepts only a non-const rvalue.
template <class T>
concept string_rvalue = std::same_as<T, std::string>;

}}}  // namespace anyio::detail

namespace anyio { inline namespace ANYIO_NET_ABI {

/// A view of writable bytes: a pointer and a size. It does not own the bytes; the caller keeps them alive
/// until the operation that uses the buffer has completed or been destroyed.
///
/// Converts implicitly from non-const lvalues of `std::string`, `std::vector`, `std::array` and arrays, and
/// from any `std::span`, of `char`, `unsigned char` or `std::byte`; always covers the whole container.
class mutable_buffer {
 public:
  /// Constructs an empty buffer.
  constexpr mutable_buffer() noexcept = default;

  /// Views `size` writable bytes at `data`.
  constexpr mutable_buffer(void* data, std::size_t size) noexcept : data_(data), size_(size) {}

  /// Views all of an array.
  template <detail::byte_type T, std::size_t n>
  constexpr mutable_buffer(T (&array)[n]) noexcept : data_(array), size_(n) {}

  /// Views all of a string, a vector, a span or a similar range.
  template <detail::writable_byte_range T>
  constexpr mutable_buffer(T&& range) noexcept
      : data_(range.data()), size_(static_cast<std::size_t>(range.size())) {}

  /// A pointer to the first byte.
  std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  /// The size of the buffer in bytes.
  constexpr std::size_t size() const noexcept { return size_; }
  /// Whether the buffer is empty.
  constexpr bool empty() const noexcept { return size_ == 0; }

  /// Drops the first `n` bytes from the view; `n` is at most size().
  void remove_prefix(std::size_t n) noexcept {
    ANYIO_NET_ASSERT(n <= size_);
    data_ = data() + n;
    size_ -= n;
  }

 private:
  friend class const_buffer;

  void* data_ = nullptr;  // void: a constant expression cannot cast to std::byte*, but can convert to void*
  std::size_t size_ = 0;
};

/// A view of read-only bytes: a pointer and a size. It does not own the bytes; the caller keeps them alive
/// until the operation that uses the buffer has completed or been destroyed.
///
/// Converts implicitly from `std::string_view`, `std::string`, `std::vector`, `std::array`, arrays and
/// `std::span` of `char`, `unsigned char` or `std::byte`, and from a mutable_buffer. For a `const char[N]`
/// the last element is left out if it is NUL, which is right for a literal (NULs inside are kept); a
/// `const char*` extends up to its NUL. All other types are viewed whole, also a non-const `char[N]`.
class const_buffer {
 public:
  /// Constructs an empty buffer.
  constexpr const_buffer() noexcept = default;

  /// Views `size` bytes at `data`.
  constexpr const_buffer(const void* data, std::size_t size) noexcept : data_(data), size_(size) {}

  /// Views the bytes of a mutable_buffer for reading.
  constexpr const_buffer(mutable_buffer bytes) noexcept : data_(bytes.data_), size_(bytes.size_) {}

  /// Views all of an array, without the NUL that ends a literal.
  template <class T, std::size_t n>
    requires detail::byte_type<std::remove_const_t<T>>
  constexpr const_buffer(T (&array)[n]) noexcept : data_(array), size_(n) {
    if constexpr (std::same_as<T, const char>) {
      if (array[n - 1] == '\0') --size_;
    }
  }

  /// Views the text up to its NUL, which is required; `text` is not null. This is a template, because
  /// arrays would select this overload otherwise.
  template <class T>
    requires(std::same_as<T, const char*> || std::same_as<T, char*>)
  constexpr const_buffer(const T& text) noexcept : data_(text), size_(std::char_traits<char>::length(text)) {}

  /// Views all of a string, a vector, a span or a similar range.
  template <detail::byte_range T>
  constexpr const_buffer(T&& range) noexcept
      : data_(range.data()), size_(static_cast<std::size_t>(range.size())) {}

  /// A pointer to the first byte.
  const std::byte* data() const noexcept { return static_cast<const std::byte*>(data_); }
  /// The size of the buffer in bytes.
  constexpr std::size_t size() const noexcept { return size_; }
  /// Whether the buffer is empty.
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
