// An error that passes through locals, parameters, temporaries, loops and branches at many depths.
#include "trace.hpp"

using namespace outcome;

namespace {

task<> sink(int depth, noisy) {
  noisy local("sink " + std::to_string(depth));
  if (depth == 0) co_await raise(error(errc::os_error, 5, "deep"));
  {
    noisy inner("inner " + std::to_string(depth));
    co_await sink(depth - 1, noisy("parameter " + std::to_string(depth)));
    say("not here");
  }
}

task<int> at_the(int turn) {
  noisy local("turn " + std::to_string(turn));
  co_await sleep(0s);
  if (turn == 2) co_await raise(errc::incomplete_read);
  co_return turn;
}

task<> loops() {
  noisy outer("loops");
  for (int i = 0; i < 5; ++i) {
    noisy inner("round " + std::to_string(i));
    say("got " + std::to_string(co_await at_the(i)));
  }
}

int sum(const noisy&, int a, int b) { return a + b; }

task<int> temporaries() {
  const int n = sum(noisy("first temporary"), co_await at_the(1), co_await at_the(2));
  say("not here");
  co_return n;
}

task<> named() {
  noisy before("before");
  auto child = sink(1, noisy("named parameter"));
  noisy after("after");
  co_await child;
}

task<std::string> value_of_a_result(bool good) {
  noisy local("value of a result");
  result<std::string> r = "good";
  if (!good) r = errc::not_supported;
  std::string text = co_await std::move(r);
  co_return text;
}

task<> at_once() {
  noisy local("at once");
  co_await raise(errc::timed_out);
}

}  // namespace

int main() {
  tell("sink", run(as_result(sink(3, noisy("outermost parameter")))));
  tell("loops", run(as_result(loops())));
  tell("temporaries", run(as_result(temporaries())));
  tell("named", run(as_result(named())));
  tell("good", run(as_result(value_of_a_result(true))));
  tell("bad", run(as_result(value_of_a_result(false))));
  tell("at once", run(as_result(at_once())));
}
