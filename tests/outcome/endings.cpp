// Loops that end while tasks are pending, and what run leaves behind.
#include "trace.hpp"

#include <optional>

using namespace outcome;

namespace {

task<> waits(noisy) {
  noisy local("waits");
  co_await sleep(1h);
}

task<> waits_deep() {
  noisy local("deep");
  co_await when_all(waits(noisy("deep parameter")), fail_after(1h, sleep(1h)));
}

task<int> leaves_things() {
  noisy local("leaves_things");
  waits(noisy("left parameter")).start([kept = noisy("left callback")](result<>) { say("not here"); });
  co_await sleep(0s);
  co_return 7;
}

}  // namespace

int main() {
  say("run made a loop");
  say("gave " + std::to_string(run(leaves_things())));
  say("a loop of one's own");
  std::optional<memory_stream> kept;
  {
    loop l;
    say("gave " + std::to_string(run(leaves_things())));
    waits_deep().start([](result<>) { say("not here"); });
    l.run_once(0s);
    kept = create_memory_stream_pair().first;
    kept->receive().start([](result<std::string> r) { tell("its end", r); });
    l.run_once(0s);
    say("it ends");
  }
  say("it has ended");
  loop other;
  tell("what outlived it", run(as_result(kept->receive())));
  task<> unstarted = waits(noisy("never begun"));
  say("the end");
}
