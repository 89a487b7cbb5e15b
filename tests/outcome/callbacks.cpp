// Operations with callbacks: when the callbacks are called, and when their captures are destroyed.
#include "trace.hpp"

#include <array>

using namespace outcome;

namespace {

task<int> fails() {
  noisy local("fails");
  co_await sleep(0s);
  co_await raise(errc::cancelled);
  co_return 1;
}

}  // namespace

int main() {
  loop l;
  auto [near, far] = create_memory_stream_pair();
  std::array<char, 4> buf{};

  near.receive(buf).start(
      [kept = noisy("a receive's callback")](result<std::size_t> r) { tell("receive", r); });
  near.receive(buf).start(
      [kept = noisy("a busy one's callback")](result<std::size_t> r) { tell("busy", r); });
  fails().start([kept = noisy("a task's callback")](result<int> r) { tell("task", r); });
  say("started");
  far.send("abc").start([](result<> r) { tell("send", r); });
  l.run();

  {
    receive_operation op = near.receive(buf);
    op.start([](result<std::size_t>) { say("not here"); });
    say("destroying");
  }
  task<int> waiting = fails();
  waiting.start([](result<int>) { say("not here"); });
  waiting = {};
  l.run();

  receive_string_operation op = near.receive();
  op.start([](result<std::string> r) { tell("closed", r); });
  near.close();
  say("closed, not called yet");
  l.run();

  l.post([kept = noisy("a posted function")] { say("posted"); });
  l.run();
  far.receive().start([](result<std::string> r) { tell("the other end", r); });
  far.send("x").start([](result<> r) { tell("a send to it", r); });
  l.run();
  l.post([kept = noisy("a function never run")] { say("not here"); });
  say("the end");
}
