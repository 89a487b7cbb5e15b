// Errors, results, tasks, combinators, the loop and raw descriptors as the documentation describes them:
// every name, in each form of use.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using namespace std::string_literals;

// ---- errors and results ---------------------------------------------------------------------------

static_assert(std::is_trivially_copyable_v<error> && sizeof(error) <= 2 * sizeof(void*) + 8);
static_assert(std::is_default_constructible_v<result<>> && std::is_same_v<result<>, result<void>>);
static_assert(std::is_convertible_v<errc, result<int>> && std::is_convertible_v<error, result<int>>);
static_assert(std::is_convertible_v<int, result<int>> && !std::is_convertible_v<result<int>, bool>);
static_assert(std::is_convertible_v<const char*, result<std::string>>);
static_assert(std::is_constructible_v<bool, result<int>> && std::is_constructible_v<bool, result<>>);
static_assert(std::is_same_v<decltype(make_error_code(std::declval<error>())), std::error_code>);
static_assert(std::is_same_v<decltype(to_string(errc::tls)), std::string_view>);

result<int> half(int n) {
  if (n % 2 != 0) return errc::invalid_argument;
  if (n > 100) return error(errc::os_error, ERANGE, "half");
  return n / 2;
}

result<> check_even(int n) {
  if (n % 2 != 0) return errc::invalid_argument;
  return {};
}

result<std::unique_ptr<int>> boxed(int n) {
  if (n < 0) return errc::invalid_argument;
  return std::make_unique<int>(n);
}

}  // namespace

TEST_CASE("each error has a name") {
  const std::pair<errc, std::string_view> names[] = {
      {errc::ok, "ok"},
      {errc::end_of_stream, "end_of_stream"},
      {errc::closed_resource, "closed_resource"},
      {errc::broken_resource, "broken_resource"},
      {errc::busy_resource, "busy_resource"},
      {errc::incomplete_read, "incomplete_read"},
      {errc::delimiter_not_found, "delimiter_not_found"},
      {errc::timed_out, "timed_out"},
      {errc::cancelled, "cancelled"},
      {errc::invalid_argument, "invalid_argument"},
      {errc::name_resolution, "name_resolution"},
      {errc::tls, "tls"},
      {errc::fds_truncated, "fds_truncated"},
      {errc::not_supported, "not_supported"},
      {errc::deadlock, "deadlock"},
      {errc::protocol, "protocol"},
      {errc::os_error, "os_error"},
  };
  for (const auto& [code, name] : names) CHECK(to_string(code) == name);
}

TEST_CASE("an error names the failed step, and compares with both kinds of codes") {
  const error none;
  CHECK(none.code() == errc::ok);
  CHECK(none.os_error() == 0);
  CHECK(none.operation().empty());
  const error refused(errc::os_error, ECONNREFUSED, "connect");
  CHECK(refused.code() == errc::os_error);
  CHECK(refused.os_error() == ECONNREFUSED);
  CHECK(refused.operation() == "connect");
  CHECK(refused.message() == "connect: connection refused (ECONNREFUSED)");
  CHECK(refused == errc::os_error);
  CHECK(errc::os_error == refused);
  CHECK(refused != errc::timed_out);
  CHECK(refused == std::errc::connection_refused);
  CHECK(refused != std::errc::address_in_use);
  CHECK(refused == error(errc::os_error, ECONNREFUSED, "connect"));
  CHECK(none != refused);
  const error implicit = errc::timed_out;
  CHECK(implicit == errc::timed_out);
  CHECK_FALSE(implicit.message().empty());
  const std::error_code code = make_error_code(refused);
  CHECK(code == std::errc::connection_refused);
  CHECK(static_cast<bool>(make_error_code(errc::timed_out)));
  CHECK_FALSE(static_cast<bool>(make_error_code(error())));
  CHECK_FALSE(make_error_code(error(errc::end_of_stream)).message().empty());
}

TEST_CASE("a result holds a value or an error") {
  result<int> r = half(84);
  CHECK(r.has_value());
  CHECK(static_cast<bool>(r));
  CHECK(*r == 42);
  CHECK(r.value() == 42);
  CHECK(r.value_or(7) == 42);
  *r = 43;
  CHECK(*std::as_const(r) == 43);
  CHECK(r.error() == errc::ok);
  r = half(3);
  CHECK_FALSE(r.has_value());
  CHECK(r.error() == errc::invalid_argument);
  CHECK(r.value_or(7) == 7);
  r = half(102);
  CHECK(r.error() == std::errc::result_out_of_range);
  r = 5;
  CHECK(*r == 5);
  r = errc::timed_out;
  CHECK(r.error() == errc::timed_out);
  r = error(errc::os_error, EPERM);
  CHECK(r.error() == std::errc::operation_not_permitted);

  result<std::string> text = "text";
  CHECK(text->size() == 4);
  CHECK(std::move(text).value() == "text");
  const result<std::string> constant = "constant"s;
  CHECK(constant->starts_with("con"));
  CHECK(constant.value_or("none") == "constant");
  result<std::vector<int>> list = std::vector<int>(3);
  CHECK(list->size() == 3);

  auto box = boxed(5);
  CHECK(**box == 5);
  const std::unique_ptr<int> owned = *std::move(box);
  CHECK(*owned == 5);
  CHECK(boxed(-1).value_or(nullptr) == nullptr);
  CHECK(*boxed(6).value() == 6);

  result<> done;
  CHECK(done.has_value());
  CHECK(check_even(4).has_value());
  CHECK(check_even(3).error() == errc::invalid_argument);
  done.value();
  done = errc::closed_resource;
  CHECK_FALSE(done.has_value());
  if (auto n = half(8)) CHECK(*n == 4);
  if (auto n = half(7); !n) CHECK(n.error().code() == errc::invalid_argument);
}

namespace {

task<int> quarter(int n) {
  const int h = co_await half(n);
  co_return co_await half(h);
}

task<> both_even(int a, int b) {
  co_await check_even(a);
  result<> second = check_even(b);
  co_await second;
  co_await std::move(second);
}

task<std::unique_ptr<int>> unboxes(int n) { co_return co_await boxed(n); }

task<int> raises(error e) {
  co_await raise(e);
  co_return 1;
}

task<int> raises_code() {
  co_await raise(errc::cancelled);
  co_return 1;
}

}  // namespace

TEST_CASE("awaiting a result returns its value or raises its error") {
  CHECK(run(quarter(84)) == 21);
  CHECK(run(as_result(quarter(5))).error() == errc::invalid_argument);
  CHECK(run(as_result(quarter(6))).error() == errc::invalid_argument);
  CHECK(run(as_result(quarter(202))).error().operation() == "half");
  CHECK(run(as_result(both_even(2, 4))).has_value());
  CHECK(run(as_result(both_even(2, 3))).error() == errc::invalid_argument);
  CHECK(*run(unboxes(3)) == 3);
  CHECK(run(as_result(unboxes(-3))).error() == errc::invalid_argument);
  CHECK(run(as_result(raises_code())).error() == errc::cancelled);
  const error e(errc::broken_resource, ECONNRESET, "receive");
  const result<int> r = run(as_result(raises(e)));
  CHECK(r.error() == e);
  CHECK(r.error().os_error() == ECONNRESET);
}

#if defined(__cpp_exceptions)

static_assert(std::is_base_of_v<std::runtime_error, anyio::exception>);
static_assert(std::is_base_of_v<anyio::exception, anyio::end_of_stream>);

namespace {

template <class Exception>
bool throws_as(errc code) {
  try {
    run(raises(error(code, ENOENT, "here")));
  } catch (const Exception& e) {
    return e.error() == code && e.error().os_error() == ENOENT && e.what() == e.error().message();
  }
  return false;
}

task<std::string> catches(int n) {
  try {
    co_await half(n);
  } catch (const anyio::invalid_argument&) {
    co_return "odd";
  } catch (const anyio::os_error& e) {
    co_return "too large: " + std::string(e.what());
  }
  co_return "fine";
}

}  // namespace

TEST_CASE("each error has its own exception type") {
  CHECK(throws_as<anyio::end_of_stream>(errc::end_of_stream));
  CHECK(throws_as<anyio::closed_resource>(errc::closed_resource));
  CHECK(throws_as<anyio::broken_resource>(errc::broken_resource));
  CHECK(throws_as<anyio::busy_resource>(errc::busy_resource));
  CHECK(throws_as<anyio::incomplete_read>(errc::incomplete_read));
  CHECK(throws_as<anyio::delimiter_not_found>(errc::delimiter_not_found));
  CHECK(throws_as<anyio::timed_out>(errc::timed_out));
  CHECK(throws_as<anyio::cancelled>(errc::cancelled));
  CHECK(throws_as<anyio::invalid_argument>(errc::invalid_argument));
  CHECK(throws_as<anyio::name_resolution>(errc::name_resolution));
  CHECK(throws_as<anyio::tls_error>(errc::tls));
  CHECK(throws_as<anyio::fds_truncated>(errc::fds_truncated));
  CHECK(throws_as<anyio::not_supported>(errc::not_supported));
  CHECK(throws_as<anyio::deadlock>(errc::deadlock));
  CHECK(throws_as<anyio::protocol_error>(errc::protocol));
  CHECK(throws_as<anyio::os_error>(errc::os_error));
  CHECK(throws_as<anyio::exception>(errc::timed_out));
  CHECK(throws_as<anyio::exception>(errc::tls));
  CHECK(run(catches(2)) == "fine");
  CHECK(run(catches(3)) == "odd");
  CHECK(run(catches(102)).starts_with("too large: half: "));
  CHECK_THROWS_AS(half(3).value(), anyio::invalid_argument);
  CHECK_THROWS_AS(check_even(3).value(), anyio::invalid_argument);
  CHECK_THROWS_AS(run(raises(errc::timed_out)), anyio::timed_out);
}

#endif

// ---- names of types -------------------------------------------------------------------------------

namespace {

static_assert(std::is_same_v<decltype(anyio::sleep(1s)), sleep_operation>);
static_assert(std::is_same_v<decltype(sleep_until(anyio::now())), sleep_operation>);
static_assert(std::is_same_v<decltype(std::declval<event&>().wait()), event_operation>);
static_assert(std::is_same_v<decltype(wait_readable(0)), wait_operation>);
static_assert(std::is_same_v<decltype(wait_writable(0)), wait_operation>);
static_assert(std::is_same_v<decltype(fail_after(1s, anyio::sleep(1s))), timeout_operation<sleep_operation>>);
static_assert(std::is_same_v<decltype(fail_at(anyio::now(), std::declval<event_operation>())),
                             timeout_operation<event_operation>>);
static_assert(std::is_same_v<decltype(anyio::now()), std::chrono::steady_clock::time_point>);
static_assert(std::is_same_v<duration, std::chrono::nanoseconds>);
static_assert(std::is_same_v<time_point, std::chrono::steady_clock::time_point>);

template <class Operation>
constexpr bool operation_like =
    std::is_default_constructible_v<Operation> && std::is_move_constructible_v<Operation> &&
    std::is_move_assignable_v<Operation> && !std::is_copy_constructible_v<Operation>;
static_assert(operation_like<sleep_operation> && operation_like<event_operation>);
static_assert(operation_like<wait_operation> && operation_like<timeout_operation<sleep_operation>>);
static_assert(operation_like<decltype(anyio::getaddrinfo("", 0))> && operation_like<task<int>>);
static_assert(operation_like<decltype(std::declval<semaphore&>().acquire())>);
static_assert(operation_like<decltype(std::declval<channel<int>&>().send(1))>);
static_assert(operation_like<decltype(std::declval<channel<int>&>().receive())>);
static_assert(operation_like<decltype(std::declval<channel<int>&>().receive_many(1))>);
static_assert(operation_like<decltype(std::declval<anyio::result_group<int>&>().next())>);
static_assert(operation_like<decltype(std::declval<anyio::result_group<void>&>().next())>);

template <class T>
constexpr bool fixed = !std::is_copy_constructible_v<T> && !std::is_move_constructible_v<T> &&
                       !std::is_copy_assignable_v<T> && !std::is_move_assignable_v<T>;
static_assert(fixed<event> && fixed<semaphore> && fixed<channel<int>> && fixed<task_group>);

}  // namespace

// ---- tasks and groups -----------------------------------------------------------------------------

namespace {

struct counter {
  int value = 0;
  task<> add(int n) {
    co_await sleep(0s);
    value += n;
  }
  task<> add_const(int n, int& into) const {
    co_await sleep(0s);
    into = value + n;
  }
  void add_now(int n) { value += n; }
};

task<> add_to(int& sum, int n) {
  co_await sleep(0s);
  sum += n;
}

task<> add_box(std::unique_ptr<int> box, int& sum) {
  co_await sleep(0s);
  sum += *box;
}

void add_plainly(int& sum, int n) { sum += n; }

task<int> value_of(int n) {
  co_await sleep(0s);
  co_return n;
}

task<> starts_everything() {
  int sum = 0;
  counter c;
  task_group group;
  group.start_soon(add_to(sum, 1));
  group.start_soon(add_to, std::ref(sum), 2);
  group.start_soon(&counter::add, &c, 10);
  group.start_soon(&counter::add, std::ref(c), 20);
  group.start_soon(&counter::add_now, &c, 30);
  group.start_soon(add_box, std::make_unique<int>(4), std::ref(sum));
  group.start_soon(add_plainly, std::ref(sum), 8);
  group.start_soon([&sum]() -> task<> {
    co_await sleep(1ms);
    sum += 16;
  });
  group.start_soon(
      [&sum](auto n) -> task<> {
        co_await sleep(0s);
        sum += n;
      },
      32);
  group.start_soon([box = std::make_unique<int>(64), &sum]() mutable -> task<> {
    co_await sleep(0s);
    sum += *box;
  });
  group.start_soon([&sum] { sum += 128; });
  group.start_soon(std::bind_front(add_plainly, std::ref(sum)), 256);
  group.start_soon(sleep(1ms));
  group.start_soon(value_of(3));
  CHECK(sum == 0);
  co_await group.join();
  CHECK(sum == 511);
  CHECK(c.value == 60);
  int copied = 0;
  group.start_soon(&counter::add_const, &std::as_const(c), 1, std::ref(copied));
  co_await group.join();
  CHECK(copied == 61);
}

task<> fails_group() {
  task_group group;
  bool other_ended = false;
  group.start_soon(raises(error(errc::os_error, EIO, "child")));
  group.start_soon([&other_ended]() -> task<> {
    co_await sleep(1h);
    other_ended = true;
  });
  auto r = co_await as_result(group.join());
  static_assert(std::is_same_v<decltype(r), result<>>);
  CHECK(r.error() == std::errc::io_error);
  CHECK_FALSE(other_ended);
  group.start_soon(sleep(1h));
  group.cancel();
  r = co_await as_result(group.join());
  CHECK(r.has_value());
}

task<> cancelled_join_leaves_children() {
  event go;
  int done = 0;
  task_group group;
  group.start_soon([&]() -> task<> {
    co_await go.wait();
    ++done;
  });
  const bool joined = co_await move_on_after(0s, group.join());
  CHECK_FALSE(joined);
  go.set();
  co_await group.join();
  CHECK(done == 1);
}

int plain_value() { return 6; }
task<int> coroutine_value() { co_return 7; }

}  // namespace

TEST_CASE("run accepts an operation, a task and callables") {
  static_assert(std::is_same_v<decltype(run(value_of(1))), int>);
  static_assert(std::is_void_v<decltype(run(sleep(1s)))>);
  run(sleep(0s));
  CHECK(run(value_of(5)) == 5);
  CHECK(run(coroutine_value) == 7);
  CHECK(run(&coroutine_value) == 7);
  const int outside = 9;
  CHECK(run([outside]() -> task<int> { co_return outside; }) == 9);
  auto moved = [box = std::make_unique<int>(8)]() -> task<int> { co_return *box; };
  CHECK(run(std::move(moved)) == 8);
  CHECK(run(as_result(value_of(5))).value() == 5);
  CHECK(run(fail_after(1h, value_of(3))) == 3);
  CHECK(run(move_on_after(1h, value_of(3))) == 3);
  CHECK(plain_value() == 6);
  loop l;
  CHECK(run(value_of(4)) == 4);
  CHECK(&loop::current() == &l);
}

TEST_CASE("a task is an operation: it can be started and named") {
  loop l;
  int got = 0;
  value_of(3).start([&got](result<int> r) { got = *r; });
  task<int> named = value_of(4);
  int other = 0;
  named.start([&other](result<int> r) { other = *r; });
  CHECK(got == 0);
  l.run();
  CHECK(got == 3);
  CHECK(other == 4);
  error failed;
  raises(errc::timed_out).start([&failed](auto r) { failed = r.error(); });
  task<> waiting = add_to(got, 100);
  waiting.start([](result<>) {});
  waiting = {};
  l.run();
  CHECK(failed == errc::timed_out);
  CHECK(got == 3);
  task<> empty;
  empty.start([&failed](result<> r) { failed = r.error(); });
  l.run();
  CHECK(failed == errc::invalid_argument);
}

TEST_CASE("children of a group have begun after their starter has waited once") {
  run([]() -> task<> {
    task_group group;
    event go;
    int begun = 0;
    const auto child = [&begun, &go]() -> task<> {
      ++begun;
      co_await go.wait();
    };
    group.start_soon(child);
    group.start_soon(child());
    CHECK(begun == 0);
    co_await sleep(0s);
    CHECK(begun == 2);
    group.cancel();
  });
}

TEST_CASE("a group starts tasks, operations and callables with arguments") { run(starts_everything); }
TEST_CASE("the first error of a group cancels the others") { run(fails_group); }
TEST_CASE("a cancelled join leaves the children running") { run(cancelled_join_leaves_children); }

// ---- combinators ----------------------------------------------------------------------------------

namespace {

task<std::string> text_of(std::string text) {
  co_await sleep(0s);
  co_return text;
}
task<> nothing() { co_await sleep(0s); }
task<std::unique_ptr<int>> box_of(int n) {
  co_await sleep(0s);
  co_return std::make_unique<int>(n);
}

task<> combines() {
  auto all = co_await when_all(value_of(1), text_of("two"), nothing(), box_of(4), sleep(1ms));
  static_assert(
      std::is_same_v<decltype(all),
                     std::tuple<int, std::string, std::monostate, std::unique_ptr<int>, std::monostate>>);
  auto& [one, two, three, four, five] = all;
  CHECK(one == 1);
  CHECK(two == "two");
  CHECK(three == std::monostate());
  CHECK(*four == 4);
  CHECK(five == std::monostate());

  std::vector<task<int>> tasks;
  for (int i = 0; i < 5; ++i) tasks.push_back(value_of(i));
  auto values = co_await when_all(std::move(tasks));
  static_assert(std::is_same_v<decltype(values), std::vector<int>>);
  CHECK(values == std::vector<int>{0, 1, 2, 3, 4});
  std::vector<task<>> empty;
  co_await when_all(std::move(empty));
  auto none = co_await when_all(std::vector<task<std::string>>());
  static_assert(std::is_same_v<decltype(none), std::vector<std::string>>);
  CHECK(none.empty());

  auto any = co_await when_any(sleep(1h), text_of("first"), value_of(1));
  static_assert(std::is_same_v<decltype(any), std::variant<std::monostate, std::string, int>>);
  CHECK(any.index() == 1);
  CHECK(std::get<1>(any) == "first");
  auto nested = co_await when_any(when_all(value_of(1), value_of(2)), fail_after(1h, sleep(1h)));
  CHECK(std::get<0>(nested) == std::tuple(1, 2));

  auto failed = co_await as_result(when_all(value_of(1), raises(errc::timed_out), sleep(1h)));
  CHECK(failed.error() == errc::timed_out);
  auto lost = co_await as_result(when_any(raises(errc::cancelled), sleep(1h)));
  CHECK(lost.error() == errc::cancelled);

  const std::optional<int> in_time = co_await move_on_after(1h, value_of(5));
  CHECK(in_time == 5);
  const std::optional<int> by_callable = co_await move_on_after(1h, [] { return value_of(5); });
  CHECK(by_callable == 5);
  const std::optional<std::monostate> none_now = co_await move_on_after(0s, []() -> task<std::monostate> {
    co_await sleep(1h);
    co_return std::monostate();
  });
  CHECK_FALSE(none_now.has_value());
  const bool slept = co_await move_on_at(now() + 1ms, sleep(1h));
  CHECK_FALSE(slept);
  const int failed_not = co_await fail_at(now() + 1h, value_of(3));
  CHECK(failed_not == 3);
  auto out_of_time = co_await as_result(fail_after(1ms, []() -> task<int> {
    co_await sleep(1h);
    co_return 1;
  }));
  CHECK(out_of_time.error() == errc::timed_out);
  CHECK_FALSE(out_of_time.error().message().empty());
  const auto timed_error = co_await as_result(move_on_after(1h, raises(errc::cancelled)));
  CHECK(timed_error.error() == errc::cancelled);
  co_await fail_after(1h, sleep(0s));
}

task<> sleeps_in_every_unit() {
  co_await sleep(0s);
  co_await sleep(1ns);
  co_await sleep(1us);
  co_await sleep(1ms);
  co_await sleep(0.001s);
  co_await sleep(std::chrono::duration<double>(0.001));
  co_await sleep(std::chrono::duration<float, std::milli>(0.5F));
  co_await sleep(std::chrono::duration<int>(0));
  co_await sleep(std::chrono::minutes(0));
  co_await sleep(-1h);
  co_await sleep(std::chrono::hours::min());
  co_await sleep(std::chrono::duration<double>(-1e300));
  co_await sleep_until(now() + 1ms);
  co_await sleep_until(time_point::min());
  co_await sleep_until(now());
  const bool a = co_await move_on_after(1ms, sleep(std::chrono::hours::max()));
  const bool b = co_await move_on_after(1ms, sleep(std::chrono::duration<double>(1e300)));
  const bool c = co_await move_on_after(1ms, sleep_until(time_point::max()));
  const bool d = co_await move_on_after(1ms, sleep(duration::max()));
  const bool e = co_await move_on_after(
      1ms, sleep(std::chrono::duration<double>(std::numeric_limits<double>::infinity())));
  CHECK_FALSE((a || b || c || d || e));
  const bool f = co_await move_on_after(std::chrono::hours::max(), sleep(0s));
  const bool g = co_await move_on_after(std::chrono::duration<double>(1e300), sleep(1ms));
  const bool h = co_await move_on_at(time_point::max(), sleep(1ms));
  CHECK((f && g && h));
  const bool i = co_await move_on_after(-5s, sleep(1ms));
  const bool j = co_await move_on_at(time_point::min(), sleep(1ms));
  CHECK_FALSE((i || j));
}

}  // namespace

TEST_CASE("combinators return tuples, vectors, variants and optionals") { run(combines); }
TEST_CASE("durations may have any type, and saturate") { run(sleeps_in_every_unit); }

TEST_CASE("combinators and timeouts can be started with callbacks") {
  loop l;
  std::vector<std::string> seen;
  when_all(value_of(1), text_of("2")).start([&seen](result<std::tuple<int, std::string>> r) {
    seen.push_back("all " + std::get<1>(*r));
  });
  when_any(value_of(1), sleep(1h)).start([&seen](result<std::variant<int, std::monostate>> r) {
    seen.push_back("any " + std::to_string(std::get<0>(*r)));
  });
  move_on_after(0s, sleep(1h)).start([&seen](result<bool> r) {
    seen.emplace_back(*r ? "slept" : "moved on");
  });
  timeout_operation<sleep_operation> op = fail_after(1ms, sleep(1h));
  op.start([&seen](result<> r) { seen.emplace_back(to_string(r.error().code())); });
  auto other = move_on_after(1ms, sleep(1h));
  other.start([&seen](auto r) { seen.emplace_back(*r ? "slept" : "moved on again"); });
  l.run();
  CHECK(seen.size() == 5);
  CHECK(std::count(seen.begin(), seen.end(), "all 2") == 1);
  CHECK(std::count(seen.begin(), seen.end(), "any 1") == 1);
  CHECK(std::count(seen.begin(), seen.end(), "moved on") == 1);
  CHECK(std::count(seen.begin(), seen.end(), "moved on again") == 1);
  CHECK(std::count(seen.begin(), seen.end(), "timed_out") == 1);
}

// ---- event, semaphore, channel --------------------------------------------------------------------

namespace {

task<> uses_event() {
  event e;
  CHECK_FALSE(std::as_const(e).is_set());
  event_operation waiting = e.wait();
  int calls = 0;
  waiting.start([&calls](result<> r) { calls += r.has_value() ? 1 : 100; });
  e.set();
  CHECK(e.is_set());
  CHECK(calls == 0);
  co_await sleep(0s);
  CHECK(calls == 1);
  co_await e.wait();
  e.clear();
  CHECK_FALSE(e.is_set());
  const bool set = co_await move_on_after(0s, e.wait());
  CHECK_FALSE(set);
}

task<> uses_semaphore() {
  semaphore lock(1);
  {
    auto permit = co_await lock.acquire();
    CHECK_FALSE(lock.try_acquire().has_value());
    auto moved = std::move(permit);
    CHECK_FALSE(lock.try_acquire().has_value());
  }
  {
    auto permit = lock.try_acquire();
    CHECK(permit.has_value());
    auto waiting = lock.acquire();
    bool got = false;
    waiting.start([&got](auto r) { got = r.has_value(); });
    permit.reset();
    co_await sleep(0s);
    CHECK(got);
  }
  semaphore three(3);
  std::vector<decltype(three.try_acquire())> permits;
  for (int i = 0; i < 4; ++i) permits.push_back(three.try_acquire());
  CHECK_FALSE(permits.back().has_value());
  const auto none = co_await as_result(fail_after(0s, three.acquire()));
  CHECK(none.error() == errc::timed_out);
  permits.clear();
  const auto permit = co_await three.acquire();
  CHECK(three.try_acquire().has_value());
}

task<> uses_channel() {
  channel<std::unique_ptr<int>> boxes(2);
  co_await boxes.send(std::make_unique<int>(1));
  CHECK(boxes.try_send(std::make_unique<int>(2)));
  CHECK_FALSE(boxes.try_send(std::make_unique<int>(3)));
  auto waiting = boxes.send(std::make_unique<int>(4));
  waiting.start([](result<> r) { CHECK(r.has_value()); });
  std::unique_ptr<int> box = co_await boxes.receive();
  CHECK(*box == 1);
  std::optional<std::unique_ptr<int>> next = boxes.try_receive();
  CHECK(**next == 2);
  co_await sleep(0s);
  boxes.close();
  next = boxes.try_receive();
  CHECK(**next == 4);
  auto end = co_await as_result(boxes.receive());
  CHECK(end.error() == errc::end_of_stream);
  CHECK_FALSE(boxes.try_receive().has_value());
  CHECK_FALSE(boxes.try_send(std::make_unique<int>(5)));
  auto sent = co_await as_result(boxes.send(std::make_unique<int>(5)));
  CHECK_FALSE(sent.has_value());

  channel<std::string> rendezvous(0);
  auto [ignored, text] = co_await when_all(rendezvous.send("hand to hand"), rendezvous.receive());
  CHECK(text == "hand to hand");
}

task<> uses_signals() {
  auto receiver = signal_receiver::open(SIGUSR1, SIGUSR2);
  CHECK(receiver.has_value());
  ::raise(SIGUSR1);
  int number = co_await receiver->receive();
  CHECK(number == SIGUSR1);
  ::raise(SIGUSR2);
  number = co_await receiver->receive();
  CHECK(number == SIGUSR2);
  auto late = co_await move_on_after(0s, receiver->receive());
  CHECK_FALSE(late.has_value());
  signal_receiver moved = *std::move(receiver);
  ::raise(SIGUSR2);
  number = co_await moved.receive();
  CHECK(number == SIGUSR2);
}

}  // namespace

TEST_CASE("the values of a channel need no assignment") {
  struct unassignable {
    explicit unassignable(int n) : value(n) {}
    unassignable(unassignable&&) = default;
    const int value;
  };
  run([]() -> task<> {
    channel<unassignable> values(100);
    for (int i = 0; i < 100; ++i) co_await values.send(unassignable(i));
    auto waiting = values.send(unassignable(100));
    waiting = values.send(unassignable(101));
    for (int i = 0; i < 100; ++i) {
      const unassignable next = co_await values.receive();
      CHECK(next.value == i);
    }
    co_await waiting;
    const auto last = values.try_receive();
    CHECK(last->value == 101);
  });
}
TEST_CASE("events are set, cleared and waited for") { run(uses_event); }
TEST_CASE("a semaphore returns permits") { run(uses_semaphore); }
TEST_CASE("a channel carries move-only values") { run(uses_channel); }
TEST_CASE("signals are received") { run(uses_signals); }

// ---- the loop -------------------------------------------------------------------------------------

TEST_CASE("posted functions run in order, and move-only ones too") {
  loop l;
  std::vector<int> seen;
  l.post([&seen] { seen.push_back(1); });
  l.post([&seen, box = std::make_unique<int>(2)] { seen.push_back(*box); });
  CHECK(seen.empty());
  l.run();
  CHECK(seen == std::vector<int>{1, 2});
  CHECK_FALSE(l.run_once(0s));
  l.post([&seen] { seen.push_back(3); });
  CHECK(l.run_once(1h));
  CHECK(seen.back() == 3);
}

TEST_CASE("stop ends run, which may be called again") {
  loop l;
  int calls = 0;
  sleep(1h).start([](result<>) {});
  l.post([&] {
    ++calls;
    l.stop();
  });
  l.run();
  CHECK(calls == 1);
  l.post([&l] { l.stop(); });
  l.run();
  CHECK(std::as_const(l).dump().find("sleep") != std::string::npos);
}

TEST_CASE("a handle outlives the loop and reports it") {
  std::optional<loop_handle> handle;
  int calls = 0;
  {
    loop l;
    handle = l.handle();
    const loop_handle copy = *handle;
    CHECK(copy.post([&calls] { ++calls; }));
    l.run();
    CHECK(calls == 1);
  }
  CHECK_FALSE(handle->post([&calls] { ++calls; }));
  CHECK(calls == 1);
}

#if !defined(ANYIO_NET_NO_THREADS)

namespace {

task<> uses_threads() {
  const int value = co_await to_thread::run_sync([] { return 5; });
  CHECK(value == 5);
  auto box = co_await to_thread::run_sync([] { return std::make_unique<int>(6); });
  CHECK(*box == 6);
  co_await to_thread::run_sync([] {});
  const auto r = co_await as_result(to_thread::run_sync([] { return "text"s; }));
  CHECK(r.value() == "text");
  event e;
  std::thread other([handle = loop::current().handle(), &e] { handle.post([&e] { e.set(); }); });
  co_await e.wait();
  other.join();
}

}  // namespace

TEST_CASE("to_thread runs callables, and other threads post to the loop") { run(uses_threads); }

#endif

TEST_CASE("a loop can be embedded in another by its handle") {
  loop l(system_backend());
  CHECK(l.native_handle() >= 0);
  bool done = false;
  sleep(1ms).start([&done](result<>) { done = true; });
  l.reserve(16, 16);
  while (!done) {
    const duration next = std::as_const(l).time_until_next();
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(std::min<duration>(next, 1s));
    pollfd poll{l.native_handle(), POLLIN, 0};
    ::poll(&poll, 1, static_cast<int>(wait.count()));
    l.run_once(0s);
  }
  const time_point seen = now();
  CHECK(seen <= std::chrono::steady_clock::now());
}

TEST_CASE("objects that outlive the loop are closed") {
  memory_stream near;
  std::optional<memory_stream> far;
  std::optional<tcp_listener> listener;
  bool called = false;
  {
    loop l;
    auto pair = create_memory_stream_pair();
    near = std::move(pair.first);
    far = std::move(pair.second);
    listener = tcp_listener::open({ip_address::loopback_v4(), 0}).value();
    listener->accept().start([&called](auto) { called = true; });
  }
  CHECK_FALSE(called);
  loop other;
  CHECK(run(as_result(listener->accept())).error() == errc::closed_resource);
}

// ---- raw descriptors and names --------------------------------------------------------------------

namespace {

task<> waits_for_descriptors() {
  int ends[2];
  CHECK(::pipe(ends) == 0);
  const unique_fd reading(ends[0]);
  const unique_fd writing(ends[1]);
  co_await wait_writable(writing.get());
  wait_operation op = wait_readable(reading.get());
  const bool early = co_await move_on_after(0s, wait_readable(reading.get()));
  CHECK_FALSE(early);
  std::optional<error> ended;
  op.start([&ended](result<> r) { ended = r.error(); });
  notify_closing(reading.get());
  CHECK_FALSE(ended.has_value());
  co_await sleep(0s);
  CHECK(ended == errc::closed_resource);
  CHECK(::write(writing.get(), "x", 1) == 1);
  co_await wait_readable(reading.get());
  co_await wait_readable(reading.get());
  auto bad = co_await as_result(wait_readable(-1));
  CHECK_FALSE(bad.has_value());
  tcp_listener listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
  auto busy = co_await as_result(wait_readable(listener.native_handles()[0]));
  CHECK(busy.error() == errc::busy_resource);
}

task<> looks_names_up() {
  const auto literal = co_await anyio::getaddrinfo("127.0.0.1", 80);
  static_assert(std::is_same_v<decltype(literal), const std::vector<ip_endpoint>>);
  CHECK(literal == std::vector<ip_endpoint>{ip_endpoint{ip_address::loopback_v4(), 80}});
  const auto local = co_await anyio::getaddrinfo("localhost", 1);
  CHECK(local.size() == 2);
  CHECK(local.at(0).address == ip_address::loopback_v6());
  CHECK(local.at(1).address == ip_address::loopback_v4());
  const auto of_family = co_await anyio::getaddrinfo("localhost", 1, AF_INET);
  CHECK(of_family.size() == 1);
  auto bad = co_await as_result(anyio::getaddrinfo("caf\xc3\xa9.example", 80));
  CHECK(bad.error() == errc::invalid_argument);
  const name_info info = co_await anyio::getnameinfo({ip_address::loopback_v4(), 80});
  CHECK_FALSE(info.host.empty());
  CHECK_FALSE(info.service.empty());
  const auto [host, service] = co_await anyio::getnameinfo(ip_endpoint{ip_address::loopback_v4(), 80});
  CHECK(host == info.host);
  CHECK(service == info.service);
}

}  // namespace

TEST_CASE("raw descriptors can be waited for") { run(waits_for_descriptors); }
TEST_CASE("names are looked up") { run(looks_names_up); }

// ---- addresses and buffers ------------------------------------------------------------------------

TEST_CASE("addresses and endpoints have the documented members") {
  static_assert(std::is_trivially_copyable_v<ip_endpoint> && std::is_trivially_copyable_v<ip_address>);
  CHECK(ip_address::parse("127.0.0.1").value() == ip_address::loopback_v4());
  CHECK(*ip_address::parse("::1") == ip_address::loopback_v6());
  CHECK_FALSE(ip_address::parse("").has_value());
  CHECK(ip_address::parse("1.2.3").error() == errc::invalid_argument);
  CHECK(ip_address::any_v4().to_string() == "0.0.0.0");
  CHECK(ip_address::any_v6().to_string() == "::");
  CHECK(ip_address::v4(0x7f000001) == ip_address::loopback_v4());
  std::array<std::byte, 16> bytes{};
  bytes[0] = std::byte{0xff};
  bytes[15] = std::byte{1};
  const ip_address group = ip_address::v6(bytes, 3);
  CHECK(group.is_v6());
  CHECK_FALSE(group.is_v4());
  CHECK(group.is_multicast());
  CHECK(group.scope_id() == 3);
  CHECK(group.bytes().size() == 16);
  CHECK(ip_address::loopback_v4().bytes().size() == 4);
  CHECK(ip_address::loopback_v4() < ip_address::loopback_v6());
  const ip_endpoint endpoint{ip_address::loopback_v4(), 80};
  CHECK(endpoint.to_string() == "127.0.0.1:80");
  CHECK(ip_endpoint::parse("127.0.0.1:80").value() == endpoint);
  CHECK(ip_endpoint::parse("[::1]:80")->address == ip_address::loopback_v6());
  CHECK(ip_endpoint{.address = ip_address::loopback_v6(), .port = 80}.to_string() == "[::1]:80");
  CHECK((endpoint <=> ip_endpoint{ip_address::loopback_v4(), 81}) < 0);
  CHECK(ip_endpoint{}.port == 0);
}
