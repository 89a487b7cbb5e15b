// Tasks stored in containers, members and other tasks, together with operations.
#include "trace.hpp"

#include <array>
#include <vector>

using namespace outcome;

namespace {

struct session {
  explicit session(memory_stream s) : stream(std::move(s)), reading(reads()) {}
  task<> reads() {
    noisy local("reads");
    for (;;) say("read " + co_await stream.receive(2));
  }
  memory_stream stream;
  task<> reading;
};

task<int> counts(int n) {
  noisy local("counts " + std::to_string(n));
  if (n == 3) co_await raise(error(errc::os_error, 13, "three"));
  co_await sleep(0s);
  co_return n;
}

task<> one_after_another() {
  std::vector<task<int>> tasks;
  for (int i = 1; i <= 4; ++i) tasks.push_back(counts(i));
  for (auto& t : tasks) say("counted " + std::to_string(co_await t));
}

task<> sessions() {
  auto [near, far] = create_memory_stream_pair();
  session s(std::move(near));
  s.reading.start([](result<> r) { tell("session", r); });
  co_await far.send("abcd");
  co_await sleep(1ms);
  co_await far.send_eof();
  co_await sleep(1ms);
  {
    auto [here, there] = create_memory_stream_pair();
    session other(std::move(here));
    other.reading.start([](result<>) { say("not here"); });
    co_await there.send("ef");
    co_await sleep(1ms);
    say("leaving");
  }
  say("left");
}

task<> recurses(int depth) {
  noisy local("depth " + std::to_string(depth));
  if (depth == 0) co_await raise(errc::timed_out);
  auto r = co_await as_result(recurses(depth - 1));
  if (!r) say("passes on", r.error());
  co_await std::move(r);
}

}  // namespace

int main() {
  tell("one after another", run(as_result(one_after_another())));
  tell("sessions", run(as_result(sessions())));
  tell("recurses", run(as_result(recurses(3))));
}
