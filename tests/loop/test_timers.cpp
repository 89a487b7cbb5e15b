// The heap of deadlines, compared with a model.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace {

using anyio::time_point;
using anyio::detail::node;
using anyio::detail::timer;
using anyio::detail::timer_heap;

time_point at(std::int64_t n) { return time_point(std::chrono::nanoseconds(n)); }

TEST_CASE("an empty heap has no first timer and no due timer") {
  timer_heap heap;
  CHECK(heap.first() == nullptr);
  CHECK(heap.pop_due(time_point::max()) == nullptr);
  timer t;
  t.cancel();
  CHECK(!t.armed());
}

TEST_CASE("timers become due in the order of their deadlines, equal ones in the order of arming") {
  timer_heap heap;
  std::vector<timer> timers(6);
  std::vector<node> nodes(6);
  const int deadlines[] = {3, 1, 2, 1, 3, 1};
  for (std::size_t i = 0; i < 6; ++i) heap.arm(timers[i], at(deadlines[i]), nodes[i]);
  CHECK(heap.pop_due(at(0)) == nullptr);
  std::vector<std::size_t> order;
  while (node* n = heap.pop_due(at(3))) order.push_back(static_cast<std::size_t>(n - nodes.data()));
  CHECK(order == std::vector<std::size_t>{1, 3, 5, 2, 0, 4});
}

TEST_CASE("a timer at any place in the heap can be armed again, cancelled or destroyed") {
  timer_heap heap;
  node target;
  for (std::size_t gone = 0; gone < 20; ++gone) {
    std::vector<std::unique_ptr<timer>> timers;
    for (std::int64_t i = 0; i < 20; ++i) {
      timers.push_back(std::make_unique<timer>());
      heap.arm(*timers.back(), at((i * 7) % 20), target);
    }
    CHECK(heap.first()->deadline() == at(0));
    CHECK(heap.pop_due(at(0)) == &target);
    timers[gone].reset();
    heap.arm(*timers[(gone + 1) % 20], at(100), target);
    std::size_t left = 0;
    time_point last = time_point::min();
    while (const timer* first = heap.first()) {
      CHECK(first->deadline() >= last);
      last = first->deadline();
      CHECK(heap.pop_due(last) == &target);
      ++left;
    }
    CHECK(left == (gone == 0 ? 19U : gone == 19 ? 19U : 18U));
    CHECK(last == at(100));
  }
}

TEST_CASE("the heap behaves like a sorted map through 100000 random operations") {
  std::mt19937 random(1);
  const auto draw = [&](std::size_t bound) { return static_cast<std::size_t>(random()) % bound; };
  constexpr std::size_t count = 400;
  timer_heap heap;
  std::vector<timer> timers(count);
  std::vector<node> nodes(count);
  std::map<std::pair<std::int64_t, std::uint64_t>, std::size_t> model;
  std::map<std::size_t, std::pair<std::int64_t, std::uint64_t>> where;
  std::uint64_t order = 0;
  std::int64_t now = 0;
  std::size_t wrong = 0;
  const auto drop = [&](std::size_t i) {
    const auto found = where.find(i);
    if (found == where.end()) return;
    model.erase(found->second);
    where.erase(found);
  };
  for (int step = 0; step < 100'000; ++step) {
    const std::size_t i = draw(count);
    switch (draw(4)) {
      case 0:
      case 1: {
        const std::int64_t deadline = now + static_cast<std::int64_t>(draw(50));
        heap.arm(timers[i], at(deadline), nodes[i]);
        drop(i);
        where[i] = {deadline, order};
        model[where[i]] = i;
        ++order;
        break;
      }
      case 2:
        timers[i].cancel();
        drop(i);
        break;
      default:
        now += static_cast<std::int64_t>(draw(8));
        while (node* due = heap.pop_due(at(now))) {
          const auto n = static_cast<std::size_t>(due - nodes.data());
          if (model.empty() || model.begin()->second != n || model.begin()->first.first > now) ++wrong;
          drop(n);
        }
        if (!model.empty() && model.begin()->first.first <= now) ++wrong;
    }
    if ((heap.first() == nullptr) != model.empty()) ++wrong;
    if (heap.first() && heap.first()->deadline() != at(model.begin()->first.first)) ++wrong;
    if (timers[i].armed() != where.contains(i)) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("cancelling many timers is cheap in any order") {
  timer_heap heap;
  node target;
  std::vector<timer> timers(100'000);
  for (std::size_t i = 0; i < timers.size(); ++i)
    heap.arm(timers[i], at(static_cast<std::int64_t>(i)), target);
  for (std::size_t i = timers.size(); i-- > 1;) timers[i].cancel();
  CHECK(heap.first() == &timers[0]);
  for (auto& t : timers) heap.arm(t, at(7), target);
  for (auto& t : timers) t.cancel();
  CHECK(heap.first() == nullptr);
}

}  // namespace
