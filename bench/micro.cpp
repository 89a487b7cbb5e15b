// What happens in the process, by Google Benchmark: operations, timers, posts, tasks, addresses, lines.

#include "micro.hpp"
#include "../anyio_net.hpp"

#include <array>
#include <thread>
#include <vector>

namespace {

using benchmark::State;
using namespace std::chrono_literals;

const std::string message(64, 'x');

// ---- operations, over memory and over a pair of sockets -------------------------------------------

auto memory_pair() { return anyio::create_memory_stream_pair(); }
auto socket_pair() { return anyio::create_unix_stream_pair().value(); }

/// Sends 64 bytes, then receives them: both are done at once.
template <auto Pair>
void send_and_receive_coroutine(State& state) {
  anyio::loop loop;
  auto ends = Pair();
  anyio::run([&]() -> anyio::task<> {
    std::array<char, 256> buffer;
    bench::allocation_counter count(state);
    for (auto _ : state) {
      co_await ends.first.send(message);
      co_await ends.second.receive(buffer);
    }
  });
}
BENCHMARK(send_and_receive_coroutine<memory_pair>)->Name("send and receive, memory, coroutine");
BENCHMARK(send_and_receive_coroutine<socket_pair>)->Name("send and receive, socket pair, coroutine");

template <class Stream>
class sender_and_receiver {
 public:
  sender_and_receiver(State& state, Stream& from, Stream& to) : state_(state), from_(from), to_(to) {
    step();
  }

 private:
  void step() {
    if (!state_.KeepRunning()) return;
    send_ = from_.send(message);
    send_.start([this](anyio::result<>) {
      receive_ = to_.receive(buffer_);
      receive_.start([this](anyio::result<std::size_t>) { step(); });
    });
  }

  State& state_;
  Stream& from_;
  Stream& to_;
  std::array<char, 256> buffer_;
  anyio::send_operation send_;
  anyio::receive_operation receive_;
};

template <auto Pair>
void send_and_receive_callback(State& state) {
  anyio::loop loop;
  auto ends = Pair();
  bench::allocation_counter count(state);
  sender_and_receiver both(state, ends.first, ends.second);
  loop.run();
}
BENCHMARK(send_and_receive_callback<memory_pair>)->Name("send and receive, memory, callback");
BENCHMARK(send_and_receive_callback<socket_pair>)->Name("send and receive, socket pair, callback");

/// The receive waits first, and the send completes it.
template <class Stream>
class waiting_receiver {
 public:
  waiting_receiver(State& state, Stream& from, Stream& to) : state_(state), from_(from), to_(to) { step(); }

 private:
  void step() {
    if (!state_.KeepRunning()) return;
    receive_ = to_.receive(buffer_);
    receive_.start([this](anyio::result<std::size_t>) { step(); });
    sleep_ = anyio::sleep(0s);  // so that the receive has found nothing before the send
    sleep_.start([this](anyio::result<>) {
      send_ = from_.send(message);
      send_.start([](anyio::result<>) {});
    });
  }

  State& state_;
  Stream& from_;
  Stream& to_;
  std::array<char, 256> buffer_;
  anyio::send_operation send_;
  anyio::receive_operation receive_;
  anyio::sleep_operation sleep_;
};

template <auto Pair>
void waiting_receive(State& state) {
  anyio::loop loop;
  auto ends = Pair();
  bench::allocation_counter count(state);
  waiting_receiver both(state, ends.first, ends.second);
  loop.run();
}
BENCHMARK(waiting_receive<memory_pair>)->Name("receive waits, then send, memory, callback");
BENCHMARK(waiting_receive<socket_pair>)->Name("receive waits, then send, socket pair, callback");

// ---- timers ---------------------------------------------------------------------------------------

class pending_sleeps {
 public:
  pending_sleeps() : sleeps_(bench::pending_timers) {
    for (auto& s : sleeps_) start(s);
  }

  void start(anyio::sleep_operation& s) {
    s = anyio::sleep(1h + 1ms * numbers_.next(3600000));
    s.start([](anyio::result<>) {});
  }
  anyio::sleep_operation& any() { return sleeps_[numbers_.next(bench::pending_timers)]; }

 private:
  anyio::loop loop_;
  bench::numbers numbers_;
  std::vector<anyio::sleep_operation> sleeps_;
};

/// The timeout that does not come to pass.
void timer_insert_and_cancel(State& state) {
  pending_sleeps pending;
  anyio::sleep_operation one;
  bench::allocation_counter count(state);
  for (auto _ : state) {
    pending.start(one);
    one = {};
  }
}
BENCHMARK(timer_insert_and_cancel)->Name("timer, insert and cancel, 100,000 pending, anyio");

/// One of those that wait, whichever, gets another deadline.
void timer_replace(State& state) {
  pending_sleeps pending;
  bench::allocation_counter count(state);
  for (auto _ : state) {
    auto& s = pending.any();
    s = {};
    pending.start(s);
  }
}
BENCHMARK(timer_replace)->Name("timer, move one of 100,000, anyio");

// ---- posts ----------------------------------------------------------------------------------------

void post(State& state) {
  anyio::loop loop;
  int ran = 0;
  bench::allocation_counter count(state, bench::posts);
  for (auto _ : state) {
    for (int i = 0; i < bench::posts; ++i) loop.post([&ran] { ++ran; });
    loop.run();
  }
  benchmark::DoNotOptimize(ran);
}
BENCHMARK(post)->Name("post, same thread, anyio");

void post_from_thread(State& state) {
  anyio::loop loop;
  bench::allocation_counter count(state, bench::posts_of_thread);
  for (auto _ : state) {
    int ran = 0;
    std::thread other([&ran, handle = loop.handle()] {
      for (int i = 0; i < bench::posts_of_thread; ++i) handle.post([&ran] { ++ran; });
    });
    while (ran < bench::posts_of_thread) loop.run_once(100ms);
    other.join();
  }
}
BENCHMARK(post_from_thread)->Name("post, another thread, anyio")->UseRealTime();

// ---- tasks ----------------------------------------------------------------------------------------

[[gnu::noinline]] anyio::task<int> answer(int n) { co_return n + 1; }

void await_task(State& state) {
  anyio::loop loop;
  anyio::run([&]() -> anyio::task<> {
    int n = 0;
    bench::allocation_counter count(state);
    for (auto _ : state) n = co_await answer(n);
    benchmark::DoNotOptimize(n);
  });
}
BENCHMARK(await_task)->Name("task, made and awaited");

[[gnu::noinline]] anyio::task<> nothing() { co_return; }

void group_task(State& state) {
  anyio::loop loop;
  anyio::run([&]() -> anyio::task<> {
    anyio::task_group group;
    bench::allocation_counter count(state);
    for (auto _ : state) {
      group.start_soon(nothing());
      co_await group.join();
    }
  });
}
BENCHMARK(group_task)->Name("task, in a group, and join");

void timeout(State& state) {
  anyio::loop loop;
  anyio::run([&]() -> anyio::task<> {
    int n = 0;
    bench::allocation_counter count(state);
    for (auto _ : state) n = co_await anyio::fail_after(10s, answer(n));
    benchmark::DoNotOptimize(n);
  });
}
BENCHMARK(timeout)->Name("task, under fail_after");

// ---- addresses, lines -----------------------------------------------------------------------------

void parse(State& state, const char* text) {
  bench::allocation_counter count(state);
  for (auto _ : state) benchmark::DoNotOptimize(anyio::ip_endpoint::parse(text));
}
BENCHMARK_CAPTURE(parse, v4, "192.168.1.17:8080")->Name("endpoint, parse, IPv4");
BENCHMARK_CAPTURE(parse, v6, "[2001:db8::17:2]:443")->Name("endpoint, parse, IPv6");

void format(State& state, const char* text) {
  const auto endpoint = anyio::ip_endpoint::parse(text).value();
  bench::allocation_counter count(state);
  for (auto _ : state) benchmark::DoNotOptimize(endpoint.to_string());
}
BENCHMARK_CAPTURE(format, v4, "192.168.1.17:8080")->Name("endpoint, format, IPv4");
BENCHMARK_CAPTURE(format, v6, "[2001:db8::17:2]:443")->Name("endpoint, format, IPv6");

void lines(State& state) {
  constexpr int many = 500;
  std::string text;
  for (int i = 0; i < many; ++i) text += std::string(60, 'x') + "\r\n";
  anyio::loop loop;
  auto ends = anyio::create_memory_stream_pair();
  anyio::run([&]() -> anyio::task<> {
    anyio::buffered_stream reader(ends.second);
    std::size_t size = 0;
    bench::allocation_counter count(state, many);
    for (auto _ : state) {
      co_await ends.first.send(text);
      for (int i = 0; i < many; ++i) size += (co_await reader.receive_line()).size();
    }
    benchmark::DoNotOptimize(size);
  });
}
BENCHMARK(lines)->Name("buffered stream, line of 60 B");

}  // namespace

BENCHMARK_MAIN();
