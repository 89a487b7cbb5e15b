// Errors taken as results on the way, and raised again.
#include "trace.hpp"

using namespace outcome;

namespace {

task<int> fails(errc code) {
  noisy local("fails");
  co_await sleep(0s);
  co_await raise(error(code, 0, "fails"));
  co_return 0;
}

task<int> retries() {
  noisy local("retries");
  for (const errc code : {errc::timed_out, errc::cancelled, errc::broken_resource}) {
    auto r = co_await as_result(fails(code));
    tell("try", r);
    if (r.error() == errc::broken_resource) co_await raise(r.error());
  }
  co_return 1;
}

task<int> translates() {
  noisy local("translates");
  auto r = co_await as_result(retries());
  if (!r) co_await raise(error(errc::os_error, 2, "translates"));
  co_return *r;
}

task<> awaits_twice() {
  auto named = fails(errc::tls);
  tell("first", co_await as_result(named));
  tell("second", co_await as_result(named));
  task<int> empty;
  tell("empty", co_await as_result(empty));
  sleep_operation nothing;
  tell("nothing", co_await as_result(nothing));
}

task<> nested() {
  noisy local("nested");
  auto r = co_await as_result([]() -> task<result<int>> {
    noisy inner("inner");
    auto kept = co_await as_result(fails(errc::deadlock));
    co_return kept;
  }());
  say(r ? "a value" : "an error");
  tell("kept", *r);
  co_await *r;
  say("not here");
}

}  // namespace

int main() {
  tell("retries", run(as_result(retries())));
  tell("translates", run(as_result(translates())));
  tell("awaits twice", run(as_result(awaits_twice())));
  tell("nested", run(as_result(nested())));
}
