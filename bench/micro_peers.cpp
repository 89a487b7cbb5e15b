// Timers and posts of Asio and libuv, as micro.cpp has them of anyio_net.

#include "micro.hpp"

#include <chrono>
#include <thread>
#include <vector>

#include <uv.h>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

namespace {

using benchmark::State;
using namespace std::chrono_literals;
using asio_timer =
    asio::basic_waitable_timer<std::chrono::steady_clock, asio::wait_traits<std::chrono::steady_clock>,
                               asio::io_context::executor_type>;

// A cancelled wait of Asio is completed by the context, which has to run now and then.
constexpr int poll_every = 256;

class pending_asio_timers {
 public:
  pending_asio_timers() {
    timers_.reserve(bench::pending_timers);
    for (int i = 0; i < bench::pending_timers; ++i) start(timers_.emplace_back(context));
  }

  void start(asio_timer& t) {
    t.expires_after(1h + 1ms * numbers_.next(3600000));  // cancels what waits
    t.async_wait([](asio::error_code) {});
    if (++turn_ % poll_every == 0) context.poll();
  }
  asio_timer& any() { return timers_[numbers_.next(bench::pending_timers)]; }

  asio::io_context context{ASIO_CONCURRENCY_HINT_UNSAFE};

 private:
  bench::numbers numbers_;
  std::vector<asio_timer> timers_;
  int turn_ = 0;
};

void asio_timer_insert_and_cancel(State& state) {
  pending_asio_timers pending;
  asio_timer one(pending.context);
  bench::allocation_counter count(state);
  for (auto _ : state) {
    pending.start(one);
    one.cancel();
  }
}
BENCHMARK(asio_timer_insert_and_cancel)->Name("timer, insert and cancel, 100,000 pending, Asio");

void asio_timer_replace(State& state) {
  pending_asio_timers pending;
  bench::allocation_counter count(state);
  for (auto _ : state) pending.start(pending.any());
}
BENCHMARK(asio_timer_replace)->Name("timer, move one of 100,000, Asio");

void asio_post(State& state) {
  asio::io_context context(ASIO_CONCURRENCY_HINT_UNSAFE);
  int ran = 0;
  bench::allocation_counter count(state, bench::posts);
  for (auto _ : state) {
    for (int i = 0; i < bench::posts; ++i) asio::post(context.get_executor(), [&ran] { ++ran; });
    context.restart();
    context.run();
  }
  benchmark::DoNotOptimize(ran);
}
BENCHMARK(asio_post)->Name("post, same thread, Asio");

void asio_post_from_thread(State& state) {
  asio::io_context context(1);
  bench::allocation_counter count(state, bench::posts_of_thread);
  for (auto _ : state) {
    int ran = 0;
    context.restart();
    auto work = asio::make_work_guard(context);
    std::thread other([&] {
      for (int i = 0; i < bench::posts_of_thread; ++i) asio::post(context.get_executor(), [&ran] { ++ran; });
      work.reset();
    });
    context.run();
    other.join();
  }
}
BENCHMARK(asio_post_from_thread)->Name("post, another thread, Asio")->UseRealTime();

class pending_uv_timers {
 public:
  pending_uv_timers() : timers_(bench::pending_timers) {
    uv_loop_init(&loop);
    for (auto& t : timers_) {
      uv_timer_init(&loop, &t);
      start(t);
    }
  }
  ~pending_uv_timers() {
    uv_walk(
        &loop, [](uv_handle_t* h, void*) { uv_close(h, nullptr); }, nullptr);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
  }
  pending_uv_timers(const pending_uv_timers&) = delete;
  pending_uv_timers& operator=(const pending_uv_timers&) = delete;

  void start(uv_timer_t& t) {
    uv_timer_start(
        &t, [](uv_timer_t*) {}, 3600000 + numbers_.next(3600000), 0);
  }
  uv_timer_t& any() { return timers_[numbers_.next(bench::pending_timers)]; }

  uv_loop_t loop;

 private:
  bench::numbers numbers_;
  std::vector<uv_timer_t> timers_;
};

void uv_timer_insert_and_cancel(State& state) {
  uv_timer_t one;
  pending_uv_timers pending;
  uv_timer_init(&pending.loop, &one);
  bench::allocation_counter count(state);
  for (auto _ : state) {
    pending.start(one);
    uv_timer_stop(&one);
  }
}
BENCHMARK(uv_timer_insert_and_cancel)->Name("timer, insert and cancel, 100,000 pending, libuv");

void uv_timer_replace(State& state) {
  pending_uv_timers pending;
  bench::allocation_counter count(state);
  for (auto _ : state) {
    uv_timer_t& t = pending.any();
    uv_timer_stop(&t);
    pending.start(t);
  }
}
BENCHMARK(uv_timer_replace)->Name("timer, move one of 100,000, libuv");

}  // namespace
