// Errors and cancellation with semaphores, events and channels: nothing is lost, and all permits are
// released.
#include "trace.hpp"

#include <functional>

using namespace outcome;

namespace {

task<> works(semaphore& lock, const char* name, bool good) {
  noisy local(name);
  auto permit = co_await lock.acquire();
  say(std::string(name) + " has it");
  co_await sleep(0s);
  if (!good) co_await raise(error(errc::os_error, 1, "work"));
  say(std::string(name) + " is done");
}

task<> locks() {
  semaphore lock(1);
  tell("all", co_await as_result(when_all(works(lock, "one", true), works(lock, "two", true))));
  tell("fails", co_await as_result(when_all(works(lock, "three", false), works(lock, "four", true))));
  say(lock.try_acquire() ? "free" : "lost");
  auto held = co_await lock.acquire();
  say((co_await move_on_after(1ms, works(lock, "five", true))) ? "done" : "moved on");
  auto never = co_await fail_after(1ms, lock.acquire());
  say("not here");
}

task<> produces(channel<noisy>& out) {
  for (int i = 0; i < 4; ++i) co_await out.send(noisy("item " + std::to_string(i)));
  say("all sent");
  out.close();
  co_await out.send(noisy("too late"));
  say("not here");
}

task<> channels() {
  channel<noisy> items(1);
  task_group group;
  group.start_soon(produces, std::ref(items));
  for (int i = 0; i < 2; ++i) {
    auto item = co_await items.receive();
    say("got one");
  }
  say((co_await move_on_after(0s,
                              [&items]() -> task<> {
                                auto item = co_await items.receive();
                                say("got one in time");
                                co_await sleep(1h);
                              }))
          ? "done"
          : "moved on");
  tell("producer", co_await as_result(group.join()));
  while (auto item = co_await as_result(items.receive())) say("got what was left");
  co_await items.receive();
  say("not here");
}

task<> events() {
  event go;
  task_group group;
  for (const char* name : {"a", "b", "c"}) {
    group.start_soon(
        [](event& e, const char* n) -> task<> {
          noisy local(n);
          co_await e.wait();
          say(std::string(n) + " goes");
          if (n[0] == 'b') co_await raise(errc::broken_resource);
          co_await sleep(0s);
          say(std::string(n) + " went");
        },
        std::ref(go), name);
  }
  co_await sleep(0s);
  go.set();
  co_await group.join();
}

}  // namespace

int main() {
  tell("locks", run(as_result(locks())));
  tell("channels", run(as_result(channels())));
  tell("events", run(as_result(events())));
}
