// Children that give values, permits of several units, and values that are received together: who gets what
// when something fails or is cancelled.
#include "trace.hpp"

#include <functional>
#include <memory>

using namespace outcome;

namespace {

task<int> gives(int n, int turns) {
  noisy local("gives " + std::to_string(n));
  for (int i = 0; i < turns; ++i) co_await sleep(0s);
  if (n < 0) co_await raise(error(errc::os_error, -n, "child"));
  co_return n;
}

task<> results() {
  noisy local("results");
  result_group<int> group;
  tell("none", co_await as_result(group.next()));
  group.start_soon(gives(1, 5));
  group.start_soon(gives, 2, 1);
  group.start_soon(gives(-2, 3));
  group.start_soon([] { return 4; });
  say("size " + std::to_string(group.size()));
  while (group.size() != 0) {
    auto r = co_await as_result(group.next());
    tell(r ? std::to_string(*r) : "a failure", r);
  }
  group.start_soon(gives(5, 1000000));
  say((co_await move_on_after(1ms, group.next())) ? "a value" : "moved on");
  auto first = group.next();
  auto second = group.next();
  first.start([](result<int> r) { tell("the first", r); });
  second.start([](result<int> r) { tell("the second", r); });
  group.start_soon(gives(6, 1));
  co_await sleep(1ms);
  group.cancel();
  co_await sleep(0s);
  group.start_soon(gives(-32, 1));
  co_await group.next();
  say("not here");
}

task<> left_behind() {
  result_group<std::unique_ptr<noisy>> group;
  for (const char* name : {"taken", "left", "left too"})
    group.start_soon([name]() -> task<std::unique_ptr<noisy>> {
      co_await sleep(0s);
      co_return std::make_unique<noisy>(name);
    });
  group.start_soon([]() -> task<std::unique_ptr<noisy>> {
    noisy local("never ends");
    co_await sleep(1h);
    co_return nullptr;
  });
  const auto taken = co_await group.next();
  say("leaving");
}

task<> uses(semaphore& s, std::size_t units, const char* name) {
  noisy local(name);
  const auto mine = co_await s.acquire(units);
  say(std::string(name) + " has it");
  co_await sleep(0s);
  if (units == 2) co_await raise(error(errc::os_error, 1, "work"));
}

task<> units() {
  noisy local("units");
  semaphore s(3);
  tell("all", co_await as_result(when_all(uses(s, 3, "three"), uses(s, 1, "one"), uses(s, 2, "two"))));
  say("free " + std::to_string(s.available()));
  auto held = s.try_acquire(2);
  say(s.try_acquire(2) ? "taken" : "none");
  auto large = s.acquire(3);
  large.start([](result<permit> r) { tell("large", r); });
  tell("in line", co_await as_result(fail_after(1ms, s.acquire())));  // fair: it does not pass the large one
  large = {};
  say(s.try_acquire() ? "taken" : "none");
  held.reset();
  say("free " + std::to_string(s.available()));
  co_await uses(s, 2, "last");
  say("not here");
}

task<> takes(channel<noisy>& from, std::size_t most) {
  noisy local("takes");
  const auto all = co_await from.receive_many(most);
  say("got " + std::to_string(all.size()));
}

task<> many() {
  noisy local("many");
  channel<noisy> items(2);
  say((co_await move_on_after(1ms, takes(items, 9))) ? "got some" : "moved on");
  tell("none wanted", co_await as_result(items.receive_many(0)));
  task_group group;
  group.start_soon(
      [](channel<noisy>& to) -> task<> {
        for (const char* name : {"a", "b", "c", "d"}) co_await to.send(noisy(name));
        say("all sent");
        to.close();
      },
      std::ref(items));
  co_await sleep(0s);
  co_await takes(items, 1);
  co_await sleep(1ms);
  co_await takes(items, 9);
  co_await sleep(1ms);
  tell("the rest", co_await as_result(takes(items, 9)));
  co_await group.join();
  co_await takes(items, 9);
  say("not here");
}

}  // namespace

int main() {
  tell("results", run(as_result(results())));
  tell("left behind", run(as_result(left_behind())));
  tell("units", run(as_result(units())));
  tell("many", run(as_result(many())));
}
