// Timeouts around tasks that own objects, at several depths.
#include "trace.hpp"

using namespace outcome;

namespace {

task<int> waits(const char* name) {
  noisy local(name);
  co_await sleep(1h);
  co_return 1;
}

task<int> gives(int n) {
  noisy local("gives");
  co_await sleep(0s);
  co_return n;
}

task<> fails() {
  noisy local("fails");
  co_await sleep(0s);
  co_await raise(error(errc::broken_resource, 104, "receive"));
}

task<> limits() {
  noisy local("limits");
  tell("fail_after", co_await as_result(fail_after(1ms, waits("in fail_after"))));
  tell("fail_at", co_await as_result(fail_at(now() + 1ms, waits("in fail_at"))));
  tell("in time", co_await as_result(fail_after(1h, gives(1))));
  tell("an error in time", co_await as_result(fail_after(1h, fails())));
  auto late = co_await move_on_after(1ms, waits("in move_on_after"));
  say(late ? "a value" : "none");
  auto early = co_await move_on_after(1h, gives(2));
  say(early ? "a value" : "none");
  tell("an error", co_await as_result(move_on_after(1h, fails())));
  auto nested = co_await move_on_after(1ms, fail_after(1h, waits("in both")));
  say(nested ? "a value" : "none");
  tell("the other way", co_await as_result(move_on_after(1h, fail_after(1ms, waits("in the other")))));
  auto callable = co_await move_on_after(1ms, [] { return waits("of a callable"); });
  say(callable ? "a value" : "none");
  co_await fail_after(1ms, when_all(waits("left"), waits("right")));
  say("not here");
}

}  // namespace

int main() { tell("limits", run(as_result(limits()))); }
