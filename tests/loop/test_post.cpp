// Calls posted by other threads.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;

TEST_CASE("calls posted from many threads all run, in order for each thread") {
  anyio::loop l;
  constexpr int threads = 4;
  constexpr int each = 2000;
  std::vector<int> last(threads, -1);
  int total = 0;
  anyio::event done;
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, t, h = l.handle()] {
      for (int i = 0; i < each; ++i) {
        const bool posted = h.post([&, t, i] {
          if (last[static_cast<std::size_t>(t)] != i - 1) FAIL_CHECK("out of order");
          last[static_cast<std::size_t>(t)] = i;
          if (++total == threads * each) done.set();
        });
        if (!posted) std::abort();
      }
    });
  }
  anyio::run(done.wait());
  for (auto& w : workers) w.join();
  CHECK(total == threads * each);
}

TEST_CASE("a posted call wakes a waiting loop") {
  anyio::loop l;
  anyio::event e;
  for (int i = 0; i < 50; ++i) {
    std::thread other([&, h = l.handle()] { h.post([&] { e.set(); }); });
    anyio::run(e.wait());
    e.clear();
    other.join();
  }
}

TEST_CASE("posting while the loop ends either runs the call, or returns false and destroys it") {
  std::atomic<int> alive{0};
  struct counted {
    std::atomic<int>* n;
    explicit counted(std::atomic<int>& c) : n(&c) { ++*n; }
    counted(counted&& other) noexcept : n(other.n) { ++*n; }
    ~counted() { --*n; }
  };
  for (int round = 0; round < 50; ++round) {
    std::optional<anyio::loop> l(std::in_place);
    std::atomic<bool> go{false};
    std::thread other([&, h = l->handle()] {
      go = true;
      while (h.post([c = counted(alive)] {})) {
      }
    });
    while (!go) std::this_thread::yield();
    l->run_once(0s);
    l.reset();
    other.join();
    CHECK(alive == 0);
  }
}

TEST_CASE("loops on several threads post to each other") {
  anyio::loop l;
  anyio::event done;
  int hops = 0;
  std::optional<anyio::loop_handle> there;
  std::atomic<bool> ready{false};
  std::thread other([&] {
    anyio::loop mine;
    anyio::event stop;
    there = mine.handle();
    ready = true;
    struct ping {
      anyio::loop_handle home;
      anyio::loop_handle away;
      int* hops;
      anyio::event* done;
      anyio::event* stop;
      void operator()() const {
        // On this side of every second hop nothing of the other side is accessed.
        home.post([self = *this] {
          if (++*self.hops == 500) {
            self.away.post([s = self.stop] { s->set(); });
            return self.done->set();
          }
          self.away.post(self);
        });
      }
    };
    mine.post(ping{l.handle(), mine.handle(), &hops, &done, &stop});
    anyio::run(stop.wait());
  });
  anyio::run(done.wait());
  other.join();
  CHECK(ready);
  CHECK(hops == 500);
}

}  // namespace
