// Connecting to a name with several addresses, each with its own behaviour: it answers or refuses after a
// while, is silent for days, or fails at once. A model of RFC 8305 says which address is tried when (families
// interleaved in the resolver's order, the next after the delay or as soon as one fails), which one wins and
// when, and that otherwise the error is that of the first address tried. Exactly one connection survives, the
// others are closed, and cancelling at any moment leaks nothing.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "support/world.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::duration;
using anyio::time_point;

enum class fate : std::uint8_t { answers, refuses, silent, fails };

struct place {
  anyio::ip_address address;
  fate what = fate::answers;
  duration round_trip{};
};

constexpr std::uint16_t port = 443;

/// The expected result.
struct forecast {
  std::vector<duration> starts;    // of attempts, in order
  std::vector<std::size_t> order;  // of places
  std::optional<std::size_t> winner;
  duration end{};
};

/// Families alternate, beginning with that of the first address.
std::vector<std::size_t> interleaved(const std::vector<place>& places) {
  std::vector<std::size_t> first, other, all;
  for (std::size_t i = 0; i < places.size(); ++i)
    (places[i].address.is_v4() == places[0].address.is_v4() ? first : other).push_back(i);
  for (std::size_t i = 0; i < std::max(first.size(), other.size()); ++i) {
    if (i < first.size()) all.push_back(first[i]);
    if (i < other.size()) all.push_back(other[i]);
  }
  return all;
}

forecast foretell(const std::vector<place>& places, duration delay) {
  forecast f;
  f.order = interleaved(places);
  struct running {
    std::size_t which;
    duration ends;
  };
  std::vector<running> attempts;
  duration now{};
  duration next_start{};
  std::size_t next = 0;
  for (;;) {
    const auto first = std::min_element(attempts.begin(), attempts.end(),
                                        [](const running& a, const running& b) { return a.ends < b.ends; });
    const bool can_start = next < f.order.size();
    if (first == attempts.end() && !can_start) break;
    if (can_start && (first == attempts.end() || next_start < first->ends)) {
      now = std::max(now, next_start);
      const std::size_t which = f.order[next++];
      f.starts.push_back(now);
      if (places[which].what == fate::fails) {
        next_start = now;
      } else {
        attempts.push_back({which, now + places[which].round_trip});
        next_start = now + delay;
      }
      continue;
    }
    now = first->ends;
    const place& p = places[first->which];
    if (p.what == fate::answers) {
      f.winner = first->which;
      break;
    }
    attempts.erase(first);
    next_start = now;
  }
  f.end = now;
  return f;
}

struct starts_seen {
  std::vector<time_point> times;
  const std::vector<place>* places;
  std::vector<std::size_t> order;
};

/// Called when an attempt begins, in order.
int prepare(int, void* data) {
  auto& seen = *static_cast<starts_seen*>(data);
  const std::size_t attempt = seen.times.size();
  seen.times.push_back(anyio::now());
  FUZZ_CHECK(attempt < seen.order.size());
  return (*seen.places)[seen.order[attempt]].what == fate::fails ? EPERM : 0;
}

anyio::task<> watch(anyio::tcp_stream s, int& open) {
  ++open;
  char room[8];
  for (;;) {
    const auto r = co_await anyio::as_result(s.receive(anyio::mutable_buffer(room)));
    if (!r) break;
  }
  --open;
}

anyio::task<> serve(anyio::tcp_listener& listener, anyio::task_group& group, int& open) {
  for (;;) {
    anyio::tcp_stream s = co_await listener.accept();
    group.start_soon(watch(std::move(s), open));
  }
}

std::vector<place> places_of(fuzz::input& in) {
  std::vector<place> places(1 + in.pick(7));
  std::size_t serial = 1;
  for (place& p : places) {
    const unsigned b = in.byte();
    p.what = static_cast<fate>(b >> 1 & 3);
    std::array<std::byte, 16> bytes{};
    bytes[0] = std::byte{0xfd};
    bytes[15] = static_cast<std::byte>(serial);
    p.address = (b & 1) != 0 ? anyio::ip_address::v4(0x0a000000 + static_cast<std::uint32_t>(serial))
                             : anyio::ip_address::v6(std::span<const std::byte, 16>(bytes));
    // Odd enough that no two events coincide.
    p.round_trip = 2 * (std::chrono::milliseconds(in.byte() * 4) + std::chrono::nanoseconds(1 << serial));
    if (p.what == fate::silent) p.round_trip = 48h + 2 * std::chrono::nanoseconds(1 << serial);
    ++serial;
  }
  return places;
}

anyio::task<> connect(fuzz::input in) {
  const std::vector<place> places = places_of(in);
  const auto delay = std::chrono::milliseconds(10 + in.byte());
  const std::optional<duration> cancel_at =
      in.flag() ? std::optional<duration>(std::chrono::milliseconds(in.number(2) % 3000)) : std::nullopt;

  std::vector<anyio::ip_address> addresses;
  std::vector<anyio::tcp_listener> listeners;
  int open = 0;
  anyio::task_group group;
  listeners.reserve(places.size());
  for (const place& p : places) {
    addresses.push_back(p.address);
    anyio::sim::faults way;
    way.latency_min = p.round_trip / 2;
    const auto here = p.address.is_v4() ? anyio::ip_address::loopback_v4() : anyio::ip_address::loopback_v6();
    anyio::sim::set_link(here, p.address, way);
    anyio::sim::set_link(p.address, here, way);
    if (p.what != fate::answers) continue;
    auto made = anyio::tcp_listener::open({p.address, port});
    FUZZ_CHECK(made.has_value());
    listeners.push_back(std::move(*made));
    group.start_soon(serve(listeners.back(), group, open));
  }
  anyio::sim::set_name("many", addresses);
  const forecast expected = foretell(places, delay);
  starts_seen seen{{}, &places, expected.order};
  auto& network = anyio::detail::sim_session::current().network();
  const std::size_t before = network.open_descriptors();
  const time_point begin = anyio::now();
  auto op = anyio::connect_tcp("many", port,
                               {.happy_eyeballs_delay = delay, .prepare = prepare, .prepare_data = &seen});
  if (cancel_at && *cancel_at < expected.end) {
    auto limited = anyio::move_on_after(*cancel_at, std::move(op));
    auto r = co_await anyio::as_result(std::move(limited));
    FUZZ_CHECK(r.has_value() && !*r);
    FUZZ_CHECK(anyio::now() - begin == *cancel_at);
  } else {
    auto r = co_await anyio::as_result(std::move(op));
    FUZZ_CHECK(anyio::now() - begin == expected.end);
    FUZZ_CHECK(r.has_value() == expected.winner.has_value());
    FUZZ_CHECK(seen.times.size() == expected.starts.size());
    if (r) {
      FUZZ_CHECK(r->remote_endpoint() == (anyio::ip_endpoint{places[*expected.winner].address, port}));
      FUZZ_CHECK(network.open_descriptors() >= before + 1);
      co_await anyio::sleep(200h);  // a losing attempt sends its end to the peer it reached
      FUZZ_CHECK(open == 1);
      co_await r->send("x");
      r->close();
    } else {
      const int first = places[expected.order[0]].what == fate::fails ? EPERM : ECONNREFUSED;
      FUZZ_CHECK(r.error() == anyio::errc::os_error);
      FUZZ_CHECK(r.error().os_error() == first);
    }
  }
  for (std::size_t i = 0; i < seen.times.size(); ++i) FUZZ_CHECK(seen.times[i] - begin == expected.starts[i]);
  co_await anyio::sleep(200h);
  FUZZ_CHECK(open == 0);
  FUZZ_CHECK(network.open_descriptors() == before);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  anyio::sim::options o = fuzz::new_options();
  o.choices = in.take_tail(in.byte());
  o.time_limit = 2000h;
  fuzz::check(anyio::sim::run(o, connect(in)));
  return 0;
}
