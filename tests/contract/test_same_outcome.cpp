// One program, written once and built with and without exceptions, prints the same text.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace {

using namespace std::chrono_literals;
using anyio::as_result;
using anyio::errc;
using anyio::result;
using anyio::run;
using anyio::task;

std::string trace;
void say(std::string_view words) { (trace += words) += '\n'; }

/// Prints a line when it is destroyed.
struct noisy {
  const char* name;
  explicit noisy(const char* n) : name(n) {}
  noisy(noisy&& other) noexcept : name(std::exchange(other.name, nullptr)) {}
  ~noisy() {
    if (name != nullptr) say(std::string("~") + name);
  }
};

task<int> gives(int n, noisy) {
  co_await anyio::sleep(0s);
  noisy local("gives.local");
  co_return n;
}
task<int> raises(noisy, errc code) {
  noisy first("raises.first");
  co_await anyio::sleep(0s);
  noisy second("raises.second");
  co_await anyio::raise(anyio::error(code, 0, "deep"));
  say("never");
  co_return 1;
}
int add(noisy, int a, int b) { return a + b; }
task<int> middle(errc code) {
  noisy local("middle.local");
  const int n = add(noisy("middle.temporary"), co_await gives(1, noisy("gives.parameter")),
                    co_await raises(noisy("raises.parameter"), code));
  say("never");
  co_return n;
}
task<> as_a_value() {
  noisy local("as_a_value.local");
  auto named = middle(errc::tls);
  auto r = co_await as_result(named);
  say(r.error().message());
  auto again = co_await as_result(named);
  say(again.error().message());
  auto timed = co_await as_result(anyio::fail_after(1ms, []() -> task<> {
    noisy inner("timed.local");
    co_await anyio::sleep(1h);
  }));
  say(timed.error().message());
  auto at_once = co_await as_result([](noisy) -> task<> {
    noisy inner("at_once.local");
    co_await result<>(errc::busy_resource);
  }(noisy("at_once.parameter")));
  say(at_once.error().message());
}
task<> in_combinators() {
  noisy local("in_combinators.local");
  auto all = co_await as_result(
      anyio::when_all(gives(1, noisy("gives.parameter")), middle(errc::incomplete_read), []() -> task<> {
        noisy inner("all.local");
        co_await anyio::sleep(1h);
      }));
  say(all.error().message());
  auto any = co_await as_result(anyio::when_any(
      []() -> task<> {
        noisy inner("any.local");
        co_await anyio::sleep(1h);
      },
      middle(errc::not_supported)));
  say(any.error().message());
  anyio::task_group g;
  g.start_soon(middle, errc::cancelled);
  g.start_soon(
      [](noisy) -> task<> {
        noisy inner("child.local");
        co_await anyio::sleep(1h);
      },
      noisy("child.parameter"));
  auto joined = co_await as_result(g.join());
  say(joined ? "joined" : joined.error().message());
  g.start_soon([&g]() -> task<> {
    noisy inner("canceller.local");
    auto r = co_await as_result(middle(errc::end_of_stream));
    say("a child goes on");
    g.cancel();
    say("until it waits");
    co_await anyio::sleep(0s);
    say("never");
  });
  joined = co_await as_result(g.join());
  say(joined ? "joined" : joined.error().message());
  co_await anyio::raise(anyio::error(errc::os_error, 111, "the end"));
}
task<> whole() {
  noisy local("whole.local");
  co_await as_a_value();
  say("half");
  co_await in_combinators();
  say("never");
}

constexpr std::string_view expected = R"(~gives.local
~raises.second
~raises.first
~raises.parameter
~gives.parameter
~middle.temporary
~middle.local
deep: TLS failure
task: invalid argument
~timed.local
timeout: timed out
~at_once.local
~at_once.parameter
another operation is already waiting on this resource
~as_a_value.local
half
~gives.local
~gives.local
~raises.second
~raises.first
~raises.parameter
~gives.parameter
~middle.temporary
~middle.local
~gives.parameter
~all.local
deep: the stream ended before all bytes arrived
~gives.local
~raises.second
~raises.first
~raises.parameter
~gives.parameter
~middle.temporary
~middle.local
~any.local
deep: not supported
~gives.local
~raises.second
~raises.first
~raises.parameter
~gives.parameter
~middle.temporary
~middle.local
~child.local
~child.parameter
deep: cancelled
~gives.local
~raises.second
~raises.first
~raises.parameter
~gives.parameter
~middle.temporary
~middle.local
a child goes on
until it waits
~canceller.local
joined
~in_combinators.local
~whole.local
the end: connection refused (ECONNREFUSED)
)";

TEST_CASE("a program has the same outcome with and without exceptions") {
  trace.clear();
  anyio::loop l;
  const auto r = run(as_result(whole()));
  say(r.error().message());
  whole().start([kept = noisy("callback")](result<> again) { say(again.error().message()); });
  const std::string first = trace;
  trace.clear();
  l.run();
  CHECK(trace == first + "~callback\n");
  CHECK(first == expected);
}

TEST_CASE("an error that nothing awaits ends the task, and is passed to the callback") {
  trace.clear();
  anyio::loop l;
  {
    auto t = middle(errc::tls);
    t.start([](result<int> r) { say(r.error().message()); });
    l.run();
    say("after");
  }
  CHECK(
      trace ==
      "~gives.local\n~raises.second\n~raises.first\n~raises.parameter\n~gives.parameter\n~middle.temporary\n"
      "~middle.local\ndeep: TLS failure\nafter\n");
}

}  // namespace
