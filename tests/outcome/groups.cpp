// Errors in groups: which children are cancelled, in which order, and the result of join.
#include "trace.hpp"

#include <functional>

using namespace outcome;

namespace {

task<> waits(noisy) {
  noisy local("waits");
  co_await sleep(1h);
}

task<> fails_after(int turns, noisy) {
  noisy local("fails");
  for (int i = 0; i < turns; ++i) co_await sleep(0s);
  co_await raise(error(errc::os_error, 32, "child"));
}

task<> first_error() {
  noisy local("first_error");
  task_group group;
  noisy after("after the group");
  group.start_soon(waits, noisy("argument 1"));
  group.start_soon(fails_after, 3, noisy("argument 2"));
  group.start_soon(fails_after, 5, noisy("argument 3"));
  group.start_soon(waits, noisy("argument 4"));
  co_await group.join();
  say("not here");
}

task<> left_by_an_error() {
  noisy local("left_by_an_error");
  task_group group;
  group.start_soon(waits, noisy("left argument"));
  co_await sleep(0s);
  co_await raise(errc::invalid_argument);
}

task<> inside_a_child() {
  task_group group;
  group.start_soon(waits, noisy("sibling"));
  group.start_soon(
      [](task_group& g) -> task<> {
        noisy inner("canceller");
        co_await sleep(0s);
        g.cancel();
        say("cancelled, and still running");
        co_await sleep(0s);
        say("not here");
      },
      std::ref(group));
  tell("join", co_await as_result(group.join()));
  group.start_soon([] { say("a plain function"); });
  tell("join again", co_await as_result(group.join()));
}

task<> nested() {
  task_group outer;
  outer.start_soon([]() -> task<> {
    noisy middle("middle");
    task_group inner;
    inner.start_soon(waits, noisy("innermost"));
    inner.start_soon(fails_after, 1, noisy("innermost that fails"));
    co_await inner.join();
    say("not here");
  });
  outer.start_soon(waits, noisy("outer sibling"));
  co_await outer.join();
}

task<> join_in_vain() {
  task_group group;
  event go;
  group.start_soon(
      [](event& e) -> task<> {
        noisy local("patient");
        co_await e.wait();
        say("went on");
      },
      std::ref(go));
  say((co_await move_on_after(0s, group.join())) ? "joined" : "moved on");
  go.set();
  co_await group.join();
  say("joined");
}

}  // namespace

int main() {
  tell("first_error", run(as_result(first_error())));
  tell("left_by_an_error", run(as_result(left_by_an_error())));
  tell("inside_a_child", run(as_result(inside_a_child())));
  tell("nested", run(as_result(nested())));
  tell("join_in_vain", run(as_result(join_in_vain())));
}
