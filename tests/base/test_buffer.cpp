// Which types convert to a view of bytes, and which do not.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

using anyio::const_buffer;
using anyio::mutable_buffer;

namespace {

std::string text_of(const_buffer bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::size_t size_of(mutable_buffer bytes) { return bytes.size(); }

template <class T>
constexpr bool readable = std::is_convertible_v<T, const_buffer>;
template <class T>
constexpr bool writable = std::is_convertible_v<T, mutable_buffer>;

// The three forms of send, as streams have them.
struct by_view {};
struct by_parts {};
struct by_string {};
struct sink {
  by_view send(const_buffer);
  by_parts send(std::span<const const_buffer>);
  template <anyio::detail::string_rvalue S>
  by_string send(S&& text);
};
struct source {
  by_view receive(mutable_buffer);
  by_string receive(std::size_t max_bytes = 65536);
};

template <class Choice, class T>
constexpr bool sends = std::is_same_v<decltype(std::declval<sink&>().send(std::declval<T>())), Choice>;
template <class Choice, class T>
constexpr bool receives =
    std::is_same_v<decltype(std::declval<source&>().receive(std::declval<T>())), Choice>;

struct own_string {  // as in other libraries: a signed size
  char* data() { return text; }
  const char* data() const { return text; }
  int size() const { return 3; }
  char text[3] = {'o', 'w', 'n'};
};

}  // namespace

static_assert(std::is_trivially_copyable_v<const_buffer> && std::is_trivially_destructible_v<const_buffer>);
static_assert(std::is_trivially_copyable_v<mutable_buffer> &&
              std::is_trivially_destructible_v<mutable_buffer>);
static_assert(sizeof(const_buffer) == 2 * sizeof(void*) && sizeof(mutable_buffer) == 2 * sizeof(void*));
static_assert(std::is_nothrow_default_constructible_v<const_buffer>);
static_assert(std::is_nothrow_default_constructible_v<mutable_buffer>);

// Literals and strings.
static_assert(sends<by_view, const char (&)[6]>);
static_assert(sends<by_view, char (&)[6]>);
static_assert(sends<by_view, const char*>);
static_assert(sends<by_view, char*&>);
static_assert(sends<by_view, std::string&>);
static_assert(sends<by_view, const std::string&>);
static_assert(sends<by_view, const std::string>);
static_assert(sends<by_string, std::string>);
static_assert(sends<by_string, std::string&&>);
static_assert(sends<by_view, std::string_view>);
static_assert(sends<by_view, std::string_view&>);
// Containers and views of bytes.
static_assert(sends<by_view, unsigned char (&)[6]>);
static_assert(sends<by_view, const std::byte (&)[6]>);
static_assert(sends<by_view, std::array<char, 3>>);
static_assert(sends<by_view, std::array<char, 3>&>);
static_assert(sends<by_view, const std::array<std::byte, 3>&>);
static_assert(sends<by_view, std::array<const unsigned char, 3>&>);
static_assert(sends<by_view, std::vector<char>>);
static_assert(sends<by_view, std::vector<unsigned char>&>);
static_assert(sends<by_view, const std::vector<std::byte>&>);
static_assert(sends<by_view, std::span<std::byte>>);
static_assert(sends<by_view, std::span<const std::byte>&>);
static_assert(sends<by_view, std::span<unsigned char, 4>>);
static_assert(sends<by_view, own_string>);
static_assert(sends<by_view, const own_string&>);
static_assert(sends<by_view, const_buffer>);
static_assert(sends<by_view, const_buffer&>);
static_assert(sends<by_view, const const_buffer&>);
static_assert(sends<by_view, mutable_buffer>);
static_assert(sends<by_view, mutable_buffer&>);
// Several parts.
static_assert(sends<by_parts, std::array<const_buffer, 2>>);
static_assert(sends<by_parts, std::array<const_buffer, 2>&>);
static_assert(sends<by_parts, const std::array<const_buffer, 2>&>);
static_assert(sends<by_parts, const_buffer (&)[2]>);
static_assert(sends<by_parts, const const_buffer (&)[2]>);
static_assert(sends<by_parts, std::vector<const_buffer>>);
static_assert(sends<by_parts, std::vector<const_buffer>&>);
static_assert(sends<by_parts, const std::vector<const_buffer>&>);
static_assert(sends<by_parts, std::span<const_buffer>>);
static_assert(sends<by_parts, std::span<const const_buffer>>);
// A pointer and a size.
static_assert(std::is_same_v<decltype(std::declval<sink&>().send({"abc", 2})), by_view>);
static_assert(std::is_same_v<decltype(std::declval<sink&>().send({std::declval<void*>(), 2})), by_view>);

// Types that can be received into.
static_assert(receives<by_view, char (&)[6]>);
static_assert(receives<by_view, std::string&>);
static_assert(receives<by_view, std::vector<char>&>);
static_assert(receives<by_view, std::array<std::byte, 4>&>);
static_assert(receives<by_view, std::span<std::byte>>);
static_assert(receives<by_view, const std::span<std::byte>&>);
static_assert(receives<by_view, std::span<char, 4>>);
static_assert(receives<by_view, mutable_buffer>);
static_assert(receives<by_view, mutable_buffer&>);
static_assert(receives<by_string, int>);
static_assert(receives<by_string, std::size_t>);
static_assert(std::is_same_v<decltype(std::declval<source&>().receive(0)), by_string>);
static_assert(std::is_same_v<decltype(std::declval<source&>().receive()), by_string>);

// Types that are not writable memory, or would be destroyed before it is written.
static_assert(!writable<const char (&)[6]>);
static_assert(!writable<const std::string&>);
static_assert(!writable<std::string>);
static_assert(!writable<std::vector<char>>);
static_assert(!writable<std::array<char, 4>>);
static_assert(!writable<const std::vector<char>&>);
static_assert(!writable<std::array<const char, 4>&>);
static_assert(!writable<std::string_view>);
static_assert(!writable<std::string_view&>);
static_assert(!writable<std::span<const std::byte>>);
static_assert(!writable<const_buffer>);
static_assert(!writable<const_buffer&>);
static_assert(!writable<char*>);
static_assert(writable<own_string&> && !writable<own_string> && !writable<const own_string&>);

// Types that are not bytes.
static_assert(!readable<int> && !readable<std::nullptr_t> && !readable<void*> && !readable<unsigned char*>);
static_assert(!readable<std::vector<int>> && !readable<std::vector<bool>> && !readable<std::u16string>);
static_assert(!readable<int (&)[4]> && !readable<volatile char (&)[4]> && !readable<wchar_t (&)[4]>);
static_assert(!readable<std::span<const const_buffer>> && !readable<const char* (&)[4]>);

TEST_CASE("a default constructed buffer is empty") {
  CHECK(const_buffer().data() == nullptr);
  CHECK(const_buffer().size() == 0);
  CHECK(const_buffer().empty());
  CHECK(mutable_buffer().data() == nullptr);
  CHECK(mutable_buffer().size() == 0);
  CHECK(mutable_buffer().empty());
}

TEST_CASE("a string literal excludes its last NUL and includes others") {
  const_buffer hello = "hello";
  CHECK(text_of(hello) == "hello");
  CHECK(text_of("") == "");
  CHECK(text_of("a\0b") == std::string("a\0b", 3));
  CHECK(text_of("a\0") == std::string("a\0", 2));
  const char letters[] = {'a', 'b', 'c'};
  CHECK(text_of(letters) == "abc");
  const char ended[] = {'a', 'b', '\0'};
  CHECK(text_of(ended) == "ab");
}

TEST_CASE("a pointer to characters ends at its NUL") {
  const char* text = "a\0b";
  CHECK(text_of(text) == "a");
  char array[] = "xyz";
  char* first = array;
  CHECK(text_of(first) == "xyz");
  char* const fixed = array + 1;
  CHECK(text_of(fixed) == "yz");
}

TEST_CASE("every other array is used whole") {
  char text[] = "ab";
  CHECK(text_of(text) == std::string("ab\0", 3));
  const unsigned char octets[] = {'a', 'b', 0};
  CHECK(text_of(octets) == std::string("ab\0", 3));
  std::byte bytes[4] = {};
  CHECK(text_of(bytes) == std::string(4, '\0'));
  const std::array<char, 3> array = {'a', 'b', '\0'};
  CHECK(text_of(array) == std::string("ab\0", 3));
}

TEST_CASE("strings, containers and spans are used whole") {
  const std::string string("a\0b\0", 4);
  const_buffer bytes = string;
  CHECK(static_cast<const void*>(bytes.data()) == string.data());
  CHECK(text_of(string) == string);
  CHECK(text_of(std::string_view(string)) == string);
  CHECK(text_of(std::string("temporary")) == "temporary");
  const std::vector<unsigned char> vector = {'v', 0};
  CHECK(text_of(vector) == std::string("v\0", 2));
  CHECK(text_of(std::vector<std::byte>()) == "");
  CHECK(text_of(std::span(vector)) == std::string("v\0", 2));
  CHECK(text_of(std::as_bytes(std::span(string))) == string);
  CHECK(text_of(std::array<std::byte, 0>()) == "");
  CHECK(text_of(own_string()) == "own");
}

TEST_CASE("a pointer and a size are used as given") {
  const int numbers[] = {1, 2};
  const const_buffer bytes(numbers, sizeof numbers);
  CHECK(static_cast<const void*>(bytes.data()) == numbers);
  CHECK(bytes.size() == sizeof numbers);
  CHECK(text_of({"abcdef", 3}) == "abc");
  const const_buffer nothing = {nullptr, 0};
  CHECK(nothing.empty());
}

TEST_CASE("a mutable buffer covers all writable bytes") {
  char text[] = "ab";
  std::string string = "string";
  std::vector<std::byte> vector(7);
  std::array<unsigned char, 8> array = {};
  int number = 0;
  CHECK(size_of(text) == 3);
  CHECK(size_of(string) == 6);
  CHECK(size_of(vector) == 7);
  CHECK(size_of(array) == 8);
  CHECK(size_of(std::span(vector)) == 7);
  CHECK(size_of(std::span(array)) == 8);
  CHECK(size_of(std::span(text).first(2)) == 2);
  CHECK(size_of({&number, sizeof number}) == sizeof number);

  const mutable_buffer into = string;
  std::memcpy(into.data(), "STR", 3);
  CHECK(string == "STRing");
}

TEST_CASE("a mutable buffer converts to a const one") {
  std::string string = "text";
  mutable_buffer into = string;
  const_buffer bytes = into;
  CHECK(bytes.data() == into.data());
  CHECK(text_of(into) == "text");
}

TEST_CASE("a prefix can be removed from a buffer") {
  const_buffer bytes = "prefix and rest";
  bytes.remove_prefix(7);
  CHECK(text_of(bytes) == "and rest");
  bytes.remove_prefix(0);
  bytes.remove_prefix(8);
  CHECK(bytes.empty());
  const_buffer().remove_prefix(0);

  char text[4] = {};
  mutable_buffer into = text;
  into.remove_prefix(3);
  CHECK(static_cast<void*>(into.data()) == text + 3);
  CHECK(into.size() == 1);
}

TEST_CASE("buffers can be constructed in constant expressions") {
  static constexpr char text[] = "constant";
  static constexpr std::string_view view = text;
  static constinit char room[4] = {};
  constexpr const_buffer whole = text;
  constexpr const_buffer again = view;
  constexpr const_buffer part(text, 3);
  constexpr const_buffer pointer = view.data();
  constexpr mutable_buffer into = room;
  constexpr const_buffer from = into;
  static_assert(whole.size() == 8 && again.size() == 8 && part.size() == 3 && pointer.size() == 8);
  static_assert(into.size() == 4 && from.size() == 4 && const_buffer("a\0b").size() == 3);
  CHECK(text_of(whole) == "constant");
}
