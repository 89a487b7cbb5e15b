// A value, or an error in its place.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using anyio::errc;
using anyio::error;
using anyio::result;

TEST_CASE("a result is made of a value, an error or an errc") {
  const result<int> value = 3;
  CHECK(value.has_value());
  CHECK(static_cast<bool>(value));
  CHECK(*value == 3);
  CHECK(value.value() == 3);
  CHECK(value.value_or(4) == 3);
  CHECK(value.error() == errc::ok);
  const result<int> failed = error(errc::tls, 5, "here");
  CHECK(!failed);
  CHECK(failed.value_or(4) == 4);
  CHECK(failed.error() == error(errc::tls, 5, "here"));
  const result<int> coded = errc::busy_resource;
  CHECK(coded.error() == errc::busy_resource);
  const result<std::string> text = "converted";
  CHECK(text->size() == 9);
  CHECK(text.value_or("other") == "converted");
  const result<std::vector<int>> list({1, 2});
  CHECK(list->size() == 2);
}

TEST_CASE("a result<void> is success by default") {
  const result<> done;
  CHECK(done);
  *done;
  done.value();
  CHECK(done.error() == errc::ok);
  const result<> failed = errc::tls;
  CHECK(!failed);
}

TEST_CASE("a result does not convert from a result of another type") {
  static_assert(!std::is_convertible_v<result<int>, result<bool>>);
  static_assert(!std::is_convertible_v<result<>, result<bool>>);
  static_assert(!std::is_convertible_v<result<int>, bool>);
  static_assert(std::is_convertible_v<const char*, result<std::string>>);
  static_assert(std::is_nothrow_move_constructible_v<result<std::string>>);
  static_assert(!std::is_copy_constructible_v<result<std::unique_ptr<int>>>);
}

TEST_CASE("a result of a move-only value can be moved") {
  result<std::unique_ptr<int>> r = std::make_unique<int>(1);
  result<std::unique_ptr<int>> other = std::move(r);
  CHECK(**other == 1);
  const std::unique_ptr<int> taken = *std::move(other);
  CHECK(*taken == 1);
  CHECK(*result<std::unique_ptr<int>>(std::make_unique<int>(2)).value() == 2);
  CHECK(*result<std::unique_ptr<int>>(errc::tls).value_or(std::make_unique<int>(3)) == 3);
  r = errc::tls;
  CHECK(!r);
  r = std::make_unique<int>(4);
  CHECK(**r == 4);
}

TEST_CASE("assignment destroys the old value, and copies the new one") {
  const auto kept = std::make_shared<int>(1);
  result<std::shared_ptr<int>> a = kept;
  result<std::shared_ptr<int>> b = errc::tls;
  CHECK(kept.use_count() == 2);
  b = a;
  CHECK(kept.use_count() == 3);
  auto& self = b;
  b = self;
  b = std::move(self);
  CHECK(kept.use_count() == 3);
  a = error(errc::tls);
  CHECK(kept.use_count() == 2);
  b = a;
  CHECK(kept.use_count() == 1);
  CHECK(b.error() == errc::tls);
}

TEST_CASE("access by reference changes the value") {
  result<std::string> r = "a";
  *r += 'b';
  r.value() += 'c';
  r->push_back('d');
  CHECK(*r == "abcd");
  const auto [first, second] = *result<std::pair<int, int>>(std::pair(1, 2));
  CHECK(first + second == 3);
}

#if defined(__cpp_exceptions)
struct throws_when_moved {
  explicit throws_when_moved(bool t) : now(t) {}
  throws_when_moved(throws_when_moved&& other) : now(other.now) {
    if (now) throw std::domain_error("moved");
  }
  throws_when_moved(const throws_when_moved& other) : now(other.now) {
    if (now) throw std::domain_error("copied");
  }
  throws_when_moved& operator=(const throws_when_moved&) = default;
  bool now;
  std::string text = "long enough to be allocated somewhere";
};

TEST_CASE("a throwing assignment leaves a usable result") {
  result<throws_when_moved> good(throws_when_moved(false));
  result<throws_when_moved> bad(throws_when_moved(false));
  bad->now = true;
  CHECK_THROWS_AS(good = bad, std::domain_error);
  CHECK(good);
  CHECK_THROWS_AS(good = std::move(bad), std::domain_error);
  CHECK(!good);
  good = result<throws_when_moved>(errc::tls);
  CHECK(good.error() == errc::tls);
}

TEST_CASE("value() called on an error throws that error") {
  CHECK_THROWS_AS(static_cast<void>(result<int>(errc::timed_out).value()), anyio::timed_out);
  const result<> r = errc::closed_resource;
  CHECK_THROWS_AS(r.value(), anyio::closed_resource);
}
#endif

}  // namespace
