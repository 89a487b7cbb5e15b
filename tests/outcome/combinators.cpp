// Errors in when_all and when_any, and when each operation is cancelled.
#include "trace.hpp"

#include <vector>

using namespace outcome;

namespace {

task<int> gives(int n, int turns) {
  noisy local("gives " + std::to_string(n));
  for (int i = 0; i < turns; ++i) co_await sleep(0s);
  co_return n;
}

task<int> fails(int turns, errc code) {
  noisy local("fails");
  for (int i = 0; i < turns; ++i) co_await sleep(0s);
  co_await raise(error(code, 0, "branch"));
  co_return 0;
}

task<> waits(const char* name) {
  noisy local(name);
  co_await sleep(1h);
}

task<> all() {
  noisy local("all");
  auto [one, two, three] = co_await when_all(gives(1, 2), gives(2, 0), sleep(0s));
  say("sum " + std::to_string(one + two));
  (void)three;
  tell("late", co_await as_result(when_all(waits("a"), fails(2, errc::timed_out), waits("b"))));
  tell("at once", co_await as_result(when_all(fails(0, errc::cancelled), waits("never begun?"))));
  tell("two", co_await as_result(when_all(fails(3, errc::tls), fails(1, errc::os_error))));
  std::vector<task<int>> list;
  for (int i = 0; i < 3; ++i) list.push_back(gives(i, 3 - i));
  list.push_back(fails(2, errc::not_supported));
  co_await when_all(std::move(list));
  say("not here");
}

task<> any() {
  noisy local("any");
  auto first = co_await when_any(waits("slow"), gives(1, 1), gives(2, 5));
  say("index " + std::to_string(first.index()));
  auto at_once = co_await when_any(gives(3, 0), waits("not begun"));
  say("index " + std::to_string(at_once.index()));
  tell("failed", co_await as_result(when_any(waits("loser"), fails(1, errc::end_of_stream))));
  tell("nested",
       co_await as_result(when_any(when_all(waits("deep"), fails(2, errc::cancelled)), waits("side"))));
  co_await when_any(fails(0, errc::timed_out), waits("no one"));
  say("not here");
}

task<> withdrawn() {
  noisy local("withdrawn");
  auto both = when_all(waits("left"), waits("right"));
  bool called = false;
  both.start([&called](const auto&) { called = true; });
  co_await sleep(0s);
  both = {};
  co_await sleep(0s);
  say(called ? "called" : "not called");
}

}  // namespace

int main() {
  tell("all", run(as_result(all())));
  tell("any", run(as_result(any())));
  tell("withdrawn", run(as_result(withdrawn())));
}
