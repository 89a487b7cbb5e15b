// The behaviour of every byte stream, as checks that are written once and run for each kind of stream, with
// operations awaited by a coroutine and with callbacks. After trio's _check_streams.py.
//
// A test file provides a maker, a struct with
//
//     static conformance::ends make();             // two connected ends on the current loop
//     static constexpr std::size_t bulk = ...;     // bytes of a long transfer
//     static constexpr std::size_t clogging = ...; // more than the stream accepts without a receiver
//     static constexpr bool half_close = false;    // optional: of a stream whose send_eof is not supported
//
// and, to run on another backend than the system's, each check being run this many times,
//
//     static constexpr int rounds = ...;
//     static std::unique_ptr<anyio::backend> system(int round);
//
// and then ANYIO_NET_CONFORMANCE(maker). Tests in a simulation run the checks by hand: ANYIO_NET_CHECKS lists
// them.
#pragma once

#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace doctest {
template <>
struct StringMaker<anyio::errc> {
  static String convert(anyio::errc code) {
    return String(anyio::to_string(code).data(), static_cast<unsigned>(anyio::to_string(code).size()));
  }
};
}  // namespace doctest

// Unnamed, so that each file has its own copy: clang 14 with -fsanitize=function cannot emit coroutines that
// units share ("Cannot represent a difference across sections").
namespace conformance {
namespace {

using namespace std::chrono_literals;
using anyio::byte_stream;
using anyio::errc;

struct ends {
  std::unique_ptr<byte_stream> a, b;
};

/// The forms of an operation.
struct coroutine {};
struct callback {};

template <class Maker, class Face>
struct subject {
  using maker = Maker;
  using face = Face;
};

template <class Maker>
constexpr bool can_half_close() {
  if constexpr (requires { Maker::half_close; }) {
    return Maker::half_close;
  } else {
    return true;
  }
}

template <class Maker>
constexpr int rounds_of() {
  if constexpr (requires { Maker::rounds; }) return Maker::rounds;
  return 1;
}
template <class Maker>
std::unique_ptr<anyio::backend> system_of([[maybe_unused]] int round) {
  if constexpr (requires { Maker::system(round); }) {
    return Maker::system(round);
  } else {
    return anyio::system_backend();
  }
}

/// Set for loops of a simulation, where waiting takes no real time: whether nothing will ever happen again.
[[maybe_unused]] bool (*is_hopeless)() = nullptr;

/// Called with every error of a completed operation, if set.
[[maybe_unused]] void (*witness)(const anyio::error&) = nullptr;

/// Runs the loop until a condition holds. False after a time longer than anything but a hang.
template <class Condition>
bool runs_until(anyio::loop& loop, Condition holds) {
  if (is_hopeless != nullptr) {
    while (!holds()) {
      if (is_hopeless()) return false;
      loop.run_once(anyio::duration::max());
    }
    return true;
  }
  const auto limit = std::chrono::steady_clock::now() + 20s;
  while (!holds()) {
    const auto left = limit - std::chrono::steady_clock::now();
    if (left <= 0s) return false;
    loop.run_once(left);
  }
  return true;
}

/// Common to both forms: where the result is stored.
template <class T>
class outcome_of {
 public:
  outcome_of() = default;
  outcome_of(const outcome_of&) = delete;
  outcome_of& operator=(const outcome_of&) = delete;

  bool done() const { return outcome_.has_value(); }
  /// Runs the loop until the operation has completed.
  anyio::result<T>& wait() {
    const bool completed = done() || runs_until(anyio::loop::current(), [this] { return done(); });
    CHECK_MESSAGE(completed, "an operation hangs");
    if (!completed) outcome_.emplace(anyio::error(errc::deadlock));
    return *outcome_;
  }
  errc code() { return wait().error().code(); }

  /// Called on completion.
  void (*then)(void*) = nullptr;
  void* context = nullptr;

 protected:
  void completed(anyio::result<T>&& r) {
    CHECK(!outcome_.has_value());
    if (witness != nullptr && !r) witness(r.error());
    outcome_.emplace(std::move(r));
    if (then != nullptr) then(context);
  }

 private:
  std::optional<anyio::result<T>> outcome_;
};

template <class Face, class Op>
class pending;

template <class Op>
class pending<callback, Op> : public outcome_of<typename Op::value_type> {
  using value = typename Op::value_type;

 public:
  explicit pending(Op&& op) : op_(std::move(op)) {
    op_->start([this](anyio::result<value> r) { this->completed(std::move(r)); });
    CHECK(!this->done());
  }
  void destroy() { op_.reset(); }

 private:
  std::optional<Op> op_;
};

template <class Op>
class pending<coroutine, Op> : public outcome_of<typename Op::value_type> {
 public:
  explicit pending(Op&& op) : op_(std::move(op)), task_(await(*this)) {
    task_.start([](anyio::result<void>) {});
    CHECK(!this->done());
  }
  void destroy() {
    task_ = {};
    op_.reset();
  }

 private:
  static anyio::task<> await(pending& self) {
    auto r = co_await anyio::as_result(*self.op_);
    self.completed(std::move(r));
  }
  std::optional<Op> op_;
  anyio::task<> task_;
};

/// Two connected ends on their own loop.
template <class Face>
class stage {
 public:
  using maker = ends (*)();
  stage(std::unique_ptr<anyio::backend> system, maker make, std::size_t bulk, std::size_t clogging,
        bool with_half_close)
      : bulk_size(bulk),
        clogging_size(clogging),
        half_close(with_half_close),
        loop_(std::in_place, std::move(system)),
        make_(make),
        ends_(make()) {
    CHECK(ends_.a);
    CHECK(ends_.b);
  }

  anyio::loop& loop() { return *loop_; }
  byte_stream& a() { return *ends_.a; }
  byte_stream& b() { return *ends_.b; }
  ends another_pair() { return make_(); }
  void end_loop() { loop_.reset(); }

  template <class Op>
  pending<Face, Op> begin(Op&& op) {
    return pending<Face, Op>(std::move(op));
  }
  template <class Op>
  auto finish(Op&& op) {
    return std::move(begin(std::move(op)).wait());
  }
  /// Runs everything that can happen now.
  void settle() {
    if (is_hopeless != nullptr) {  // interruptions end turns early there, and delivery takes some time
      for (int i = 0; i < 100; ++i) loop_->run_once(1ms);
      return;
    }
    for (int i = 0; i < 100 && loop_->run_once(0ms); ++i) {
    }
  }
  /// Receives until an error, and checks it.
  std::string receive_all(byte_stream& from, errc expected = errc::end_of_stream) {
    std::string all;
    for (;;) {
      auto r = finish(from.receive(65536));
      if (r) {
        CHECK(!r->empty());
        all += *r;
        continue;
      }
      CHECK(r.error().code() == expected);
      return all;
    }
  }
  /// Receives this many bytes, or as many as arrive.
  std::string receive_some(byte_stream& from, std::size_t size) {
    std::string all;
    while (all.size() < size) {
      auto r = finish(from.receive(size - all.size()));
      CHECK(r);
      if (!r) break;
      all += *r;
    }
    return all;
  }
  const std::string& clogging_bytes() {
    if (clog_.empty()) clog_.assign(clogging_size, 'c');
    return clog_;
  }
  /// Sends until it fails, and returns the error.
  errc send_until_failure(byte_stream& to) {
    for (int i = 0; i < 10000; ++i) {
      auto r = finish(to.send("0123456789"));
      if (!r) return r.error().code();
      settle();
    }
    return errc::ok;
  }

  std::size_t bulk_size;
  std::size_t clogging_size;
  bool half_close;

 private:
  std::optional<anyio::loop> loop_;
  maker make_;
  std::string clog_;
  ends ends_;
};

/// Numbers that look random and are equal in every run.
class numbers {
 public:
  explicit numbers(std::uint64_t seed) : state_(seed) {}
  std::size_t below(std::size_t bound) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::size_t>((state_ >> 33) % bound);
  }

 private:
  std::uint64_t state_;
};

/// Random bytes. They repeat after a prime number of them, since each costs much under sanitizers.
[[maybe_unused]] std::string pattern(std::size_t size, std::uint64_t seed = 1) {
  std::string text(std::min<std::size_t>(size, 65521), '\0');
  numbers n(seed);
  for (char& c : text) c = static_cast<char>(n.below(250));
  while (text.size() < size) text.append(text, 0, size - text.size());
  return text;
}

// --- A: sending and receiving

template <class Face>
void one_byte_arrives(stage<Face>& s) {
  auto got = s.begin(s.b().receive(10));
  s.settle();
  auto sent = s.begin(s.a().send("x"));
  CHECK(sent.code() == errc::ok);
  CHECK(got.wait().value_or("") == "x");
}

template <class Face>
void empty_send_is_no_end(stage<Face>& s) {
  CHECK(s.finish(s.a().send("")));
  CHECK(s.finish(s.a().send(std::span<const anyio::const_buffer>())));
  CHECK(s.finish(s.a().send("y")));
  CHECK(s.finish(s.b().receive(10)).value_or("") == "y");
}

template <class Face>
void all_kinds_of_buffers_are_sent(stage<Face>& s) {
  const std::vector<unsigned char> vector{'v', 'e', 'c'};
  const std::array<std::byte, 2> array{std::byte{'a'}, std::byte{0}};
  const std::string text = "text";
  char plain[3] = {'p', 'l', '\0'};
  const anyio::const_buffer parts[] = {"g1", "", "g2"};
  const std::string expected = std::string("literal\0!", 9) + "viewvec" + std::string("a\0", 2) +
                               "textgiven" + std::string("pl\0", 3) + "g1g2";
  anyio::task_group group;
  group.start_soon([&]() -> anyio::task<> {
    CHECK(co_await anyio::as_result(s.a().send("literal\0!")));
    CHECK(co_await anyio::as_result(s.a().send(std::string_view("view"))));
    CHECK(co_await anyio::as_result(s.a().send(vector)));
    CHECK(co_await anyio::as_result(s.a().send(array)));
    CHECK(co_await anyio::as_result(s.a().send(text)));
    CHECK(co_await anyio::as_result(s.a().send(std::string("given"))));
    CHECK(co_await anyio::as_result(s.a().send(plain)));
    CHECK(co_await anyio::as_result(s.a().send(std::span<const anyio::const_buffer>(parts))));
  });
  CHECK(s.receive_some(s.b(), expected.size()) == expected);
  auto joined = s.begin(group.join());
  CHECK(joined.code() == errc::ok);
}

template <class Face>
void all_kinds_of_receive_give_the_same(stage<Face>& s) {
  std::string room(4, '\0');
  for (int i = 0; i < 3; ++i) {
    auto sent = s.begin(s.a().send("abcd"));
    std::string all;
    while (all.size() < 4) {
      if (i == 0) {
        const auto r = s.finish(s.b().receive(room));
        CHECK(r);
        if (!r) return;
        all.append(room, 0, *r);
      } else if (i == 1) {
        const auto r = s.finish(s.b().receive());
        CHECK(r);
        if (!r) return;
        all += *r;
      } else {
        auto got = s.begin(s.b().receive_view());
        struct copy {
          decltype(got)* from;
          std::string* to;
        } c{&got, &all};
        got.context = &c;  // a view must be used before its callback returns
        got.then = [](void* p) {
          *static_cast<copy*>(p)->to += static_cast<copy*>(p)->from->wait().value_or("");
        };
        CHECK(got.code() == errc::ok);
        if (got.code() != errc::ok) return;
      }
    }
    CHECK(all == "abcd");
    CHECK(sent.code() == errc::ok);
  }
}

template <class Face>
void no_room_is_an_invalid_argument(stage<Face>& s) {
  CHECK(s.finish(s.b().receive(0)).error().code() == errc::invalid_argument);
  CHECK(s.finish(s.b().receive(anyio::mutable_buffer())).error().code() == errc::invalid_argument);
  auto waiting = s.begin(s.b().receive());
  s.settle();
  CHECK(s.finish(s.b().receive(0)).error().code() == errc::invalid_argument);
  s.b().close();
  CHECK(s.finish(s.b().receive(0)).error().code() == errc::invalid_argument);
  CHECK(waiting.code() == errc::closed_resource);
}

template <class Face>
void ready_operations_let_others_run(stage<Face>& s) {
  bool over = false;
  int turns = 0;
  anyio::task_group group;
  group.start_soon([&]() -> anyio::task<> {
    for (int i = 0; i < 500; ++i) {
      const auto sent = co_await anyio::as_result(s.a().send("x"));
      const auto got = co_await anyio::as_result(s.b().receive(1));
      CHECK(sent);
      CHECK(got);
    }
    over = true;
  });
  group.start_soon([&]() -> anyio::task<> {
    while (!over) {
      ++turns;
      co_await anyio::sleep(0ms);
    }
  });
  auto joined = s.begin(group.join());
  CHECK(joined.code() == errc::ok);
  CHECK(turns >= 10);
}

template <class Face>
void second_receive_is_busy(stage<Face>& s) {
  auto first = s.begin(s.b().receive(10));
  s.settle();
  auto second = s.begin(s.b().receive(10));
  CHECK(second.code() == errc::busy_resource);
  CHECK(s.finish(s.b().receive_view()).error().code() == errc::busy_resource);
  CHECK(!first.done());
  auto sent = s.begin(s.a().send("z"));
  CHECK(first.wait().value_or("") == "z");
  CHECK(sent.code() == errc::ok);
}

template <class Face>
void sending_to_a_closed_end_breaks(stage<Face>& s) {
  s.b().close();
  CHECK(s.send_until_failure(s.a()) == errc::broken_resource);
}

template <class Face>
void broken_stays_broken(stage<Face>& s) {
  s.b().close();
  CHECK(s.send_until_failure(s.a()) == errc::broken_resource);
  for (int i = 0; i < 3; ++i) {
    const auto r = s.finish(s.a().send("more"));
    CHECK(r.error().code() == errc::broken_resource);
    CHECK(r.error().os_error() != 0);
  }
  s.a().close();
  CHECK(s.finish(s.a().send("more")).error().code() == errc::closed_resource);
}

template <class Face>
void receiving_after_closing_is_closed(stage<Face>& s) {
  auto sent = s.begin(s.a().send("x"));
  s.settle();
  s.b().close();
  CHECK(s.finish(s.b().receive()).error().code() == errc::closed_resource);
  CHECK(s.finish(s.b().receive_view()).error().code() == errc::closed_resource);
  CHECK(!s.b());
}

template <class Face>
void closing_again_does_nothing(stage<Face>& s) {
  for (int i = 0; i < 3; ++i) {
    s.a().close();
    CHECK(s.finish(s.a().aclose()));
    CHECK(s.finish(s.b().aclose()));
    s.b().close();
  }
  CHECK(!s.a());
  CHECK(!s.b());
}

template <class Face>
void everything_after_closing_is_closed(stage<Face>& s) {
  s.a().close();
  CHECK(s.finish(s.a().send("x")).error().code() == errc::closed_resource);
  CHECK(s.finish(s.a().send("")).error().code() == errc::closed_resource);
  CHECK(s.finish(s.a().send_eof()).error().code() == errc::closed_resource);
}

// --- B: ends

template <class Face>
void late_receiver_gets_all_then_the_end(stage<Face>& s) {
  const std::string data = pattern(std::min<std::size_t>(s.bulk_size, 100000));
  anyio::task_group group;
  group.start_soon([&]() -> anyio::task<> {
    CHECK(co_await anyio::as_result(s.a().send(data)));
    CHECK(co_await anyio::as_result(s.a().aclose()));
  });
  s.settle();
  CHECK((s.receive_all(s.b()) == data));
  s.b().close();  // aclose waits for it
  CHECK(s.begin(group.join()).code() == errc::ok);
}

template <class Face>
void the_end_repeats(stage<Face>& s) {
  s.a().close();
  std::string room(10, '\0');
  for (int i = 0; i < 3; ++i) {
    CHECK(s.finish(s.b().receive()).error().code() == errc::end_of_stream);
    CHECK(s.finish(s.b().receive(room)).error().code() == errc::end_of_stream);
    CHECK(s.finish(s.b().receive_view()).error().code() == errc::end_of_stream);
  }
}

// --- C: closing while operations are pending

template <class Face>
void closing_the_receiver_breaks_the_sender(stage<Face>& s) {
  auto sent = s.begin(s.a().send(s.clogging_bytes()));
  s.settle();
  s.b().close();
  CHECK(sent.code() == errc::broken_resource);
  CHECK(s.finish(s.b().receive()).error().code() == errc::closed_resource);
}

template <class Face>
void closing_the_sender_ends_the_receiver(stage<Face>& s) {
  auto got = s.begin(s.b().receive());
  s.settle();
  s.a().close();
  CHECK(s.finish(s.a().send("x")).error().code() == errc::closed_resource);
  const errc code = got.code();
  CHECK((code == errc::end_of_stream || code == errc::broken_resource));
}

template <class Face>
void cancelled_aclose_closes(stage<Face>& s) {
  auto closing = s.begin(s.a().aclose());
  s.settle();
  closing.destroy();
  CHECK(!s.a());
  CHECK(s.finish(s.a().send("x")).error().code() == errc::closed_resource);
  CHECK(s.finish(s.b().receive()).error().code() == errc::end_of_stream);
}

template <class Face>
void operations_cancelled_at_once_leave_no_trace(stage<Face>& s) {
  s.begin(s.a().receive()).destroy();
  s.begin(s.a().receive_view()).destroy();
  auto got = s.begin(s.a().receive());
  s.settle();
  got.destroy();
  auto sent = s.begin(s.a().send("ok"));
  CHECK(s.receive_some(s.b(), 2) == "ok");
  CHECK(sent.code() == errc::ok);
  auto closing = s.begin(s.a().aclose());
  s.receive_all(s.b());
  s.b().close();
  CHECK(closing.code() == errc::ok);
}

template <class Face>
void closing_wakes_the_own_receiver(stage<Face>& s) {
  auto got = s.begin(s.a().receive());
  s.settle();
  s.a().close();
  CHECK(!got.done());
  CHECK(got.code() == errc::closed_resource);
}

template <class Face>
void aclose_wakes_the_own_receiver_and_sender(stage<Face>& s) {
  auto got = s.begin(s.a().receive());
  auto sent = s.begin(s.a().send(s.clogging_bytes()));
  s.settle();
  auto closing = s.begin(s.a().aclose());
  CHECK(got.code() == errc::closed_resource);
  CHECK(sent.code() == errc::closed_resource);
  CHECK(!s.a());
  s.b().close();
  CHECK(closing.code() == errc::ok);
}

// --- D: a sender that waits

template <class Face>
void full_stream_waits_for_the_receiver(stage<Face>& s) {
  auto sent = s.begin(s.a().send(s.clogging_bytes()));
  s.settle();
  CHECK(!sent.done());
  CHECK((s.receive_some(s.b(), s.clogging_size) == s.clogging_bytes()));
  CHECK(sent.code() == errc::ok);
}

template <class Face>
void second_send_is_busy(stage<Face>& s) {
  auto sent = s.begin(s.a().send(s.clogging_bytes()));
  s.settle();
  CHECK(s.finish(s.a().send("x")).error().code() == errc::busy_resource);
  CHECK(!sent.done());
  CHECK((s.receive_some(s.b(), s.clogging_size) == s.clogging_bytes()));
  CHECK(sent.code() == errc::ok);
}

template <class Face>
void closing_wakes_the_own_sender(stage<Face>& s) {
  auto sent = s.begin(s.a().send(s.clogging_bytes()));
  s.settle();
  s.a().close();
  CHECK(!sent.done());
  CHECK(sent.code() == errc::closed_resource);
}

// --- E: both ways at once

template <class Face>
struct traffic {
  using send_pending = pending<Face, anyio::send_operation>;
  using receive_pending = pending<Face, anyio::receive_string_operation>;

  traffic(byte_stream& f, byte_stream& t, std::string d, std::uint64_t seed)
      : from(f), to(t), data(std::move(d)), random(seed) {}

  /// Starts every operation that can start; true when all bytes have arrived.
  bool step() {
    if (sending && sending->done()) {
      CHECK(sending->code() == errc::ok);
      sending.reset();
    }
    if (!sending && sent < data.size()) {
      const std::size_t n = std::min(1 + random.below(20000), data.size() - sent);
      sending.emplace(from.send(anyio::const_buffer(data.data() + sent, n)));
      sent += n;
    }
    if (receiving && receiving->done()) {
      auto& r = receiving->wait();
      CHECK(r);
      if (r) {
        matches = matches && data.compare(received, r->size(), *r) == 0;
        received += r->size();
      } else {
        received = data.size();
      }
      receiving.reset();
    }
    if (!receiving && received < data.size()) receiving.emplace(to.receive(1 + random.below(20000)));
    return received >= data.size() && !sending;
  }

  byte_stream& from;
  byte_stream& to;
  std::string data;
  numbers random;
  std::optional<send_pending> sending;
  std::optional<receive_pending> receiving;
  std::size_t sent = 0;
  std::size_t received = 0;
  bool matches = true;
};

template <class Face>
void both_directions_carry_much_at_once(stage<Face>& s) {
  traffic<Face> there(s.a(), s.b(), pattern(s.bulk_size, 7), 8);
  traffic<Face> back(s.b(), s.a(), pattern(s.bulk_size, 9), 10);
  const auto all_arrived = [&] {
    const bool first = there.step();
    return back.step() && first;
  };
  CHECK(runs_until(s.loop(), all_arrived));
  CHECK(there.matches);
  CHECK(back.matches);
}

template <class Face>
void both_ends_close_at_once(stage<Face>& s) {
  auto first = s.begin(s.a().aclose());
  auto second = s.begin(s.b().aclose());
  CHECK(first.code() == errc::ok);
  CHECK(second.code() == errc::ok);
  CHECK(!s.a());
  CHECK(!s.b());
}

// --- F: half-closing

/// A stream that does not support it: it reports that, and continues as before.
template <class Face>
void refused_send_eof_changes_nothing(stage<Face>& s) {
  for (int i = 0; i < 2; ++i) {
    CHECK(s.finish(s.a().send_eof()).error().code() == errc::not_supported);
    auto sent = s.begin(s.a().send("on"));
    CHECK(s.receive_some(s.b(), 2) == "on");
    CHECK(sent.code() == errc::ok);
  }
  s.a().close();
  CHECK(s.finish(s.a().send_eof()).error().code() == errc::closed_resource);
}

template <class Face>
void send_eof_ends_behind_the_data(stage<Face>& s) {
  if (!s.half_close) return refused_send_eof_changes_nothing(s);
  anyio::task_group group;
  group.start_soon([&]() -> anyio::task<> {
    CHECK(co_await anyio::as_result(s.a().send("before the end")));
    CHECK(co_await anyio::as_result(s.a().send_eof()));
  });
  CHECK(s.receive_all(s.b()) == "before the end");
  CHECK(s.begin(group.join()).code() == errc::ok);
}

template <class Face>
void nothing_is_sent_after_send_eof(stage<Face>& s) {
  if (!s.half_close) return refused_send_eof_changes_nothing(s);
  CHECK(s.finish(s.a().send_eof()));
  CHECK(s.finish(s.a().send("x")).error().code() == errc::closed_resource);
  CHECK(s.finish(s.a().send("")).error().code() == errc::closed_resource);
  CHECK(s.finish(s.a().send_eof()));
  CHECK(s.finish(s.a().send_eof()));
  CHECK(s.finish(s.b().receive()).error().code() == errc::end_of_stream);
}

template <class Face>
void the_other_direction_outlives_send_eof(stage<Face>& s) {
  if (!s.half_close) return refused_send_eof_changes_nothing(s);
  CHECK(s.finish(s.a().send_eof()));
  CHECK(s.finish(s.b().receive()).error().code() == errc::end_of_stream);
  auto sent = s.begin(s.b().send("back"));
  CHECK(s.receive_some(s.a(), 4) == "back");
  CHECK(sent.code() == errc::ok);
}

template <class Face>
void send_eof_beside_a_send_is_busy(stage<Face>& s) {
  auto sent = s.begin(s.a().send(s.clogging_bytes()));
  s.settle();
  CHECK(s.finish(s.a().send_eof()).error().code() == errc::busy_resource);
  CHECK((s.receive_some(s.b(), s.clogging_size) == s.clogging_bytes()));
  CHECK(sent.code() == errc::ok);
}

// --- G: cancelling, and completions that do much

template <class Face>
void cancelled_send_leaves_the_stream_usable(stage<Face>& s) {
  const std::string data = pattern(s.clogging_size, 3);  // without the byte 0xff
  auto sent = s.begin(s.a().send(data));
  s.settle();
  CHECK(!sent.done());
  sent.destroy();
  auto more = s.begin(s.a().send("\xff"));
  std::string all;
  while (all.empty() || all.back() != '\xff') {
    auto r = s.finish(s.b().receive());
    CHECK(r);
    if (!r) return;
    all += *r;
  }
  CHECK(more.code() == errc::ok);
  CHECK(all.size() > 1);
  CHECK(all.size() <= data.size());
  CHECK((data.compare(0, all.size() - 1, all, 0, all.size() - 1) == 0));
}

template <class Face>
void cancelled_receive_loses_nothing(stage<Face>& s) {
  auto waiting = s.begin(s.b().receive());
  s.settle();
  waiting.destroy();
  auto sent = s.begin(s.a().send("abc"));
  auto ready = s.begin(s.b().receive());
  ready.destroy();  // its bytes are available, and it was about to run
  CHECK(s.receive_some(s.b(), 3) == "abc");
  CHECK(sent.code() == errc::ok);

  auto late = s.begin(s.b().receive());
  s.settle();
  auto again = s.begin(s.a().send("de"));
  late.destroy();
  CHECK(s.receive_some(s.b(), 2) == "de");
  CHECK(again.code() == errc::ok);
}

template <class Face>
void timeout_or_bytes_but_never_both(stage<Face>& s) {
  std::size_t received = 0;
  constexpr std::size_t rounds = 50;
  for (std::size_t i = 0; i < rounds; ++i) {
    auto got = s.begin(anyio::fail_after(i % 2 == 0 ? 0ms : 1ms, s.b().receive(1)));
    if (i % 3 == 0) s.settle();
    auto sent = s.begin(s.a().send("x"));
    auto& r = got.wait();
    CHECK((r || r.error() == errc::timed_out));
    if (r) received += r->size();
    if (!sent.done()) {  // of a stream that holds very little
      CHECK(s.receive_some(s.b(), 1) == "x");
      ++received;
    }
    CHECK(sent.code() == errc::ok);
  }
  if (s.half_close) {
    CHECK(s.finish(s.a().send_eof()));
  } else {
    s.a().close();
  }
  received += s.receive_all(s.b()).size();
  CHECK(received == rounds);
}

template <class Face>
void no_time_still_gives_what_is_there(stage<Face>& s) {
  const auto empty = s.finish(anyio::move_on_after(0ms, s.b().receive(5)));
  CHECK(empty);
  CHECK((empty && !empty->has_value()));
  auto sent = s.begin(s.a().send("n"));
  CHECK(sent.code() == errc::ok);
  // Sent bytes may still be in flight.
  CHECK(runs_until(s.loop(), [&] {
    auto there = s.finish(anyio::move_on_after(0ms, s.b().receive(5)));
    return there && there->has_value() && **there == "n";
  }));
}

template <class Face>
void completion_may_close_its_stream_and_a_sibling(stage<Face>& s) {
  ends other = s.another_pair();
  auto first = s.begin(s.b().receive());
  auto second = s.begin(other.b->receive());
  struct both {
    byte_stream* one;
    byte_stream* two;
  } streams{&s.b(), other.b.get()};
  const auto close_both = [](void* p) {
    static_cast<both*>(p)->one->close();
    static_cast<both*>(p)->two->close();
  };
  first.context = second.context = &streams;
  first.then = second.then = close_both;
  s.settle();
  auto sent = s.begin(s.a().send("1"));
  auto sent_too = s.begin(other.a->send("2"));
  const errc one = first.code();
  const errc two = second.code();
  CHECK((one == errc::ok || two == errc::ok));
  CHECK((one == errc::ok || one == errc::closed_resource));
  CHECK((two == errc::ok || two == errc::closed_resource));
  CHECK(!s.b());
  CHECK(!*other.b);
}

template <class Face>
void completion_may_destroy_stream_and_operation(stage<Face>& s) {
  ends other = s.another_pair();
  auto got = s.begin(other.b->receive());
  struct all {
    ends* e;
    decltype(got)* op;
  } everything{&other, &got};
  got.context = &everything;
  if constexpr (std::is_same_v<Face, callback>) {
    got.then = [](void* p) {
      static_cast<all*>(p)->op->destroy();
      static_cast<all*>(p)->e->b.reset();
      static_cast<all*>(p)->e->a.reset();
    };
  } else {  // a running task cannot be destroyed
    got.then = [](void* p) {
      static_cast<all*>(p)->e->b.reset();
      static_cast<all*>(p)->e->a.reset();
    };
  }
  s.settle();
  CHECK(!got.done());
  if (got.done()) return;
  auto sent = s.begin(other.a->send("x"));
  CHECK(got.wait().value_or("") == "x");
  s.settle();
  CHECK(!other.b);
}

template <class Face>
void loop_may_end_first(stage<Face>& s) {
  auto got = s.begin(s.a().receive());
  auto sent = s.begin(s.a().send(s.clogging_bytes()));
  auto other = s.begin(s.b().receive(1));
  s.settle();
  const bool before = got.done();
  s.end_loop();
  CHECK(got.done() == before);
  CHECK(!sent.done());
  CHECK(!s.a());
  CHECK(!s.b());
}

template <class Face>
void bytes_come_before_a_forced_end(stage<Face>& s) {
  auto sent = s.begin(s.a().send("12"));
  s.settle();
  const std::string first = s.receive_some(s.b(), 1);
  CHECK(first == "1");
  CHECK(sent.code() == errc::ok);
  s.a().close();
  CHECK(s.receive_some(s.b(), 1) == "2");
  CHECK(s.finish(s.b().receive()).error().code() == errc::end_of_stream);
}

template <class Face>
void bytes_come_before_a_reset(stage<Face>& s) {
  auto unread = s.begin(s.b().send("u"));  // closing a socket that contains this resets the connection
  auto sent = s.begin(s.a().send("12"));
  CHECK(unread.code() == errc::ok);
  CHECK(sent.code() == errc::ok);
  s.settle();
  s.a().close();
  CHECK(s.receive_some(s.b(), 2) == "12");
  const errc end = s.finish(s.b().receive()).error().code();
  CHECK((end == errc::end_of_stream || end == errc::broken_resource));
}

}  // namespace
}  // namespace conformance

// Each check as its own test case, for the subject it is instantiated with.
// clang-format off
#define ANYIO_NET_CHECKS(X)                                                                                  \
  X(conformance_a1, "A1: one byte arrives", one_byte_arrives)                                                \
  X(conformance_a2, "A2: an empty send does nothing", empty_send_is_no_end)                                  \
  X(conformance_a3, "A3: all kinds of buffers are sent", all_kinds_of_buffers_are_sent)                      \
  X(conformance_a3r, "A3: all kinds of receive give the same", all_kinds_of_receive_give_the_same)           \
  X(conformance_a4, "A4: receiving nothing is an invalid argument", no_room_is_an_invalid_argument)          \
  X(conformance_a5, "A5: operations that are ready let others run", ready_operations_let_others_run)         \
  X(conformance_a6, "A6: a second receive is busy", second_receive_is_busy)                                  \
  X(conformance_a8, "A8: sending to a closed end breaks", sending_to_a_closed_end_breaks)                    \
  X(conformance_a9, "A9: broken stays broken", broken_stays_broken)                                          \
  X(conformance_a10, "A10: receiving after closing is closed", receiving_after_closing_is_closed)            \
  X(conformance_a11, "A11: closing again does nothing", closing_again_does_nothing)                          \
  X(conformance_a12, "A12: everything after closing is closed", everything_after_closing_is_closed)          \
  X(conformance_b1, "B1: a late receiver gets all, then the end", late_receiver_gets_all_then_the_end)       \
  X(conformance_b2, "B2: the end repeats", the_end_repeats)                                                  \
  X(conformance_c1, "C1: closing the receiver breaks the sender", closing_the_receiver_breaks_the_sender)    \
  X(conformance_c2, "C2: closing the sender ends the receiver", closing_the_sender_ends_the_receiver)        \
  X(conformance_c3, "C3: a cancelled aclose closes", cancelled_aclose_closes)                                \
  X(conformance_c4, "C4: operations cancelled at once leave no trace", operations_cancelled_at_once_leave_no_trace)\
  X(conformance_c5, "C5: closing wakes the own receiver", closing_wakes_the_own_receiver)                    \
  X(conformance_c5a, "C5: aclose wakes the own receiver and sender", aclose_wakes_the_own_receiver_and_sender)\
  X(conformance_d1, "D1: a full stream waits for the receiver", full_stream_waits_for_the_receiver)          \
  X(conformance_d2, "D2: a second send is busy", second_send_is_busy)                                        \
  X(conformance_d4, "D4: closing wakes the own sender", closing_wakes_the_own_sender)                        \
  X(conformance_e1, "E1: both directions carry much at once", both_directions_carry_much_at_once)            \
  X(conformance_e2, "E2: both ends close at once", both_ends_close_at_once)                                  \
  X(conformance_f1, "F1: send_eof ends behind the data", send_eof_ends_behind_the_data)                      \
  X(conformance_f2, "F2: nothing is sent after send_eof", nothing_is_sent_after_send_eof)                    \
  X(conformance_f3, "F3: the other direction outlives send_eof", the_other_direction_outlives_send_eof)      \
  X(conformance_f4, "F4: send_eof beside a send is busy", send_eof_beside_a_send_is_busy)                    \
  X(conformance_g1, "G1: a cancelled send leaves the stream usable", cancelled_send_leaves_the_stream_usable)\
  X(conformance_g2, "G2: a cancelled receive loses nothing", cancelled_receive_loses_nothing)                \
  X(conformance_g3, "G3: a timeout or bytes, never both", timeout_or_bytes_but_never_both)                   \
  X(conformance_g3z, "G3: no time still gives what is there", no_time_still_gives_what_is_there)             \
  X(conformance_g4, "G4: a completion may close its stream and a sibling", completion_may_close_its_stream_and_a_sibling)\
  X(conformance_g4d, "G4: a completion may destroy stream and operation", completion_may_destroy_stream_and_operation)\
  X(conformance_g5, "G5: the loop may end first", loop_may_end_first)                                        \
  X(conformance_g6, "G6: bytes come before a forced end", bytes_come_before_a_forced_end)                    \
  X(conformance_g6r, "G6: bytes come before a reset", bytes_come_before_a_reset)

#define ANYIO_NET_CHECK(id, title, function)                                                          \
  TEST_CASE_TEMPLATE_DEFINE("stream " title, S, id) {                                                 \
    using maker = typename S::maker;                                                                  \
    for (int round = 0; round < conformance::rounds_of<maker>(); ++round) {                           \
      conformance::stage<typename S::face> s(conformance::system_of<maker>(round), maker::make,       \
                                             maker::bulk, maker::clogging,                            \
                                             conformance::can_half_close<maker>());                   \
      conformance::function(s);                                                                       \
    }                                                                                                 \
  }

namespace {
ANYIO_NET_CHECKS(ANYIO_NET_CHECK)
}  // namespace

#define ANYIO_NET_FACES(id, maker)                                                      \
  TEST_CASE_TEMPLATE_INSTANTIATE(id, conformance::subject<maker, conformance::coroutine>, \
                                 conformance::subject<maker, conformance::callback>)

#define ANYIO_NET_CONFORMANCE(maker)                                                                       \
  ANYIO_NET_FACES(conformance_a1, maker); ANYIO_NET_FACES(conformance_a2, maker);                          \
  ANYIO_NET_FACES(conformance_a3, maker); ANYIO_NET_FACES(conformance_a3r, maker);                         \
  ANYIO_NET_FACES(conformance_a4, maker); ANYIO_NET_FACES(conformance_a5, maker);                          \
  ANYIO_NET_FACES(conformance_a6, maker); ANYIO_NET_FACES(conformance_a8, maker);                          \
  ANYIO_NET_FACES(conformance_a9, maker); ANYIO_NET_FACES(conformance_a10, maker);                         \
  ANYIO_NET_FACES(conformance_a11, maker); ANYIO_NET_FACES(conformance_a12, maker);                        \
  ANYIO_NET_FACES(conformance_b1, maker); ANYIO_NET_FACES(conformance_b2, maker);                          \
  ANYIO_NET_FACES(conformance_c1, maker); ANYIO_NET_FACES(conformance_c2, maker);                          \
  ANYIO_NET_FACES(conformance_c3, maker); ANYIO_NET_FACES(conformance_c4, maker);                          \
  ANYIO_NET_FACES(conformance_c5, maker); ANYIO_NET_FACES(conformance_c5a, maker);                         \
  ANYIO_NET_FACES(conformance_d1, maker); ANYIO_NET_FACES(conformance_d2, maker);                          \
  ANYIO_NET_FACES(conformance_d4, maker);                                                                  \
  ANYIO_NET_FACES(conformance_e1, maker); ANYIO_NET_FACES(conformance_e2, maker);                          \
  ANYIO_NET_FACES(conformance_f1, maker); ANYIO_NET_FACES(conformance_f2, maker);                          \
  ANYIO_NET_FACES(conformance_f3, maker); ANYIO_NET_FACES(conformance_f4, maker);                          \
  ANYIO_NET_FACES(conformance_g1, maker); ANYIO_NET_FACES(conformance_g2, maker);                          \
  ANYIO_NET_FACES(conformance_g3, maker); ANYIO_NET_FACES(conformance_g3z, maker);                         \
  ANYIO_NET_FACES(conformance_g4, maker); ANYIO_NET_FACES(conformance_g4d, maker);                         \
  ANYIO_NET_FACES(conformance_g5, maker); ANYIO_NET_FACES(conformance_g6, maker);                          \
  ANYIO_NET_FACES(conformance_g6r, maker)
// clang-format on
