// Programs of deadlines. The heap of timers is compared with a sorted model: due timers come out in the order
// of deadlines, equal ones in the order of arming, none early, none that was cancelled; first() is the
// earliest. Then sleeps through the public interface, also with unlimited durations: none ends early, none
// late, the extremes saturate, and a cancelled one never ends.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <ratio>
#include <utility>
#include <vector>

#include "support/world.hpp"

namespace {

using time_point = std::chrono::steady_clock::time_point;
using std::chrono::nanoseconds;

void heap_against_model(fuzz::input& in) {
  using anyio::detail::node;
  constexpr std::size_t count = 24;
  struct armed {
    time_point deadline;
    std::uint64_t order;
    std::size_t which;
  };
  anyio::detail::timer_heap heap;
  std::array<anyio::detail::timer, count> timers;
  std::array<node, count> nodes;
  std::vector<armed> model;
  std::uint64_t order = 0;
  time_point now{};
  const auto earliest = [&] {
    return std::min_element(model.begin(), model.end(), [](const armed& a, const armed& b) {
      return a.deadline != b.deadline ? a.deadline < b.deadline : a.order < b.order;
    });
  };
  const auto forget = [&](std::size_t which) {
    std::erase_if(model, [&](const armed& a) { return a.which == which; });
  };
  for (int calls = 0; calls < 400 && !in.empty(); ++calls) {
    const std::size_t which = in.pick(count);
    switch (in.byte() % 5) {
      case 0:
      case 1: {
        const unsigned shape = in.byte();
        time_point deadline = now + nanoseconds(in.byte());
        if (shape % 16 == 15) deadline = time_point::max();
        if (shape % 16 == 14) deadline = time_point::min();
        if (shape % 16 < 4) deadline = time_point(nanoseconds(in.number(8) >> 1));
        heap.arm(timers[which], deadline, nodes[which]);
        forget(which);
        model.push_back({deadline, order++, which});
        break;
      }
      case 2:
        timers[which].cancel();
        forget(which);
        break;
      case 3: now += nanoseconds(in.length(1000)); [[fallthrough]];
      case 4:
        while (node* const due = heap.pop_due(now)) {
          const auto expected = earliest();
          FUZZ_CHECK(expected != model.end());
          FUZZ_CHECK(expected->deadline <= now);
          FUZZ_CHECK(due == &nodes[expected->which]);
          FUZZ_CHECK(!timers[expected->which].armed());
          model.erase(expected);
        }
        FUZZ_CHECK(model.empty() || earliest()->deadline > now);
        break;
    }
    FUZZ_CHECK((heap.first() == nullptr) == model.empty());
    if (!model.empty()) FUZZ_CHECK(heap.first() == &timers[earliest()->which]);
    FUZZ_CHECK(timers[which].armed() ==
               std::any_of(model.begin(), model.end(), [&](const armed& a) { return a.which == which; }));
  }
}

struct sleeper {
  anyio::sleep_operation op;
  bool waits = false;
  std::optional<time_point> due;  // none: never
  nanoseconds slack{};            // a floating duration is rounded up
};

struct program {
  fuzz::input in;
  std::array<sleeper, 10> sleepers{};
  time_point last{};

  struct woken {
    program* self;
    sleeper* at;
    void operator()(anyio::result<> r) const {
      FUZZ_CHECK(r.has_value());
      FUZZ_CHECK(std::exchange(at->waits, false));
      FUZZ_CHECK(at->due.has_value());
      FUZZ_CHECK(anyio::now() >= *at->due && anyio::now() <= *at->due + at->slack);
      FUZZ_CHECK(anyio::now() >= self->last);
      self->last = anyio::now();
    }
  };

  void start(sleeper& s) {
    const time_point now = anyio::now();
    const std::uint64_t bits = in.number(8);
    const unsigned shape = in.byte() % 12;
    s.op = {};
    s.waits = true;
    s.due = now;
    s.slack = {};
    using std::chrono::duration;
    switch (shape) {
      case 0: {
        const nanoseconds d(bits % 1'000'000'000);
        s.due = now + d;
        s.op = anyio::sleep(d);
        break;
      }
      case 1: s.op = anyio::sleep(nanoseconds(-static_cast<std::int64_t>(bits >> 1))); break;
      case 2:
        s.due.reset();
        s.op = anyio::sleep(nanoseconds::max());
        break;
      case 3: s.op = anyio::sleep(nanoseconds::min()); break;
      case 4:
        s.due.reset();
        s.op = anyio::sleep(std::chrono::hours::max());
        break;
      case 5: s.op = anyio::sleep(duration<double>(-std::numeric_limits<double>::infinity())); break;
      case 6:
        s.due.reset();
        s.op = anyio::sleep(duration<double>(std::numeric_limits<double>::infinity()));
        break;
      case 7:
        s.due.reset();
        s.op = anyio::sleep(
            duration<std::uint64_t, std::ratio<86400 * 365>>(std::numeric_limits<std::uint64_t>::max()));
        break;
      case 8: s.op = anyio::sleep_until(time_point::min()); break;
      case 9:
        s.due.reset();
        s.op = anyio::sleep_until(time_point::max());
        break;
      case 10: {
        const auto d = duration<float, std::milli>(static_cast<float>(bits % 1000));
        s.due = now + std::chrono::milliseconds(bits % 1000);
        s.slack = nanoseconds(1);
        s.op = anyio::sleep(d);
        break;
      }
      case 11: {
        const time_point due = now + nanoseconds(bits % 5'000'000);
        s.due = due;
        s.op = anyio::sleep_until(due);
        break;
      }
    }
    s.op.start(woken{this, &s});
  }
  anyio::task<> run() {
    for (int calls = 0; calls < 100 && !in.empty(); ++calls) {
      sleeper& s = sleepers[in.pick(sleepers.size())];
      switch (in.byte() % 4) {
        case 0:
        case 1: start(s); break;
        case 2:
          s.op = {};
          s.waits = false;
          break;
        case 3: {
          const nanoseconds d(in.number(4));
          const time_point due = anyio::now() + d;
          co_await anyio::sleep(d);
          FUZZ_CHECK(anyio::now() == due);
          for (const sleeper& other : sleepers)
            FUZZ_CHECK(!other.waits || !other.due || *other.due + other.slack >= anyio::now());
          break;
        }
      }
    }
    co_await anyio::sleep(std::chrono::seconds(5));
    for (sleeper& s : sleepers) {
      FUZZ_CHECK(!s.waits || !s.due);
      s.op = {};
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  if (in.flag()) {
    program p{in};
    fuzz::check(anyio::sim::run(fuzz::new_options(), p.run()));
  } else {
    heap_against_model(in);
  }
  return 0;
}
