// How an engine is driven: with the toy engine, and with scripted engines.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/conformance.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/toy_streams.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::const_buffer;
using anyio::errc;
using anyio::memory_stream;
using anyio::mutable_buffer;
using anyio::result;
using anyio::task;
using anyio::tls_pipe;
using anyio::tls_status;
using anyio::tls_stream;
using support::by_callback;
using support::by_coroutine;
using support::settle;
using support::waiting;

/// The behaviour of an engine. Unless a test says otherwise it passes bytes on unchanged; '!' ends them, and
/// is sent by `close`.
struct script {
  std::function<tls_status()> handshake = [] { return tls_status::ok; };
  std::function<tls_status(mutable_buffer, std::size_t&)> read = [this](mutable_buffer into, std::size_t& n) {
    return read_plainly(into, n);
  };
  std::function<tls_status(const_buffer, std::size_t&)> write = [this](const_buffer data, std::size_t& n) {
    n = data.size();
    pipe->tx.append(data);
    return tls_status::ok;
  };
  std::function<tls_status()> close = [this] {
    pipe->tx.append("!");
    return tls_status::ok;
  };
  bool pending = false;
  std::string version = "TLSv1.3";
  tls_pipe* pipe = nullptr;
  int reads = 0;
  int writes = 0;
  int closes = 0;
  bool failed = false;

  tls_status read_plainly(mutable_buffer into, std::size_t& n) {
    if (pipe->rx.empty()) return starve();
    if (pipe->rx.front() == std::byte{'!'}) {
      pipe->rx = pipe->rx.subspan(1);
      return tls_status::closed;
    }
    const auto end = std::find(pipe->rx.begin(), pipe->rx.end(), std::byte{'!'});
    n = std::min(into.size(), static_cast<std::size_t>(end - pipe->rx.begin()));
    std::memcpy(into.data(), pipe->rx.data(), n);
    pipe->rx = pipe->rx.subspan(n);
    return tls_status::ok;
  }
  tls_status starve() {
    pipe->starved = true;
    return tls_status::want_input;
  }
  /// Permanently; with an alert.
  tls_status fail() {
    pipe->tx.append("ALERT");
    return tls_status::failed;
  }
};

class scripted_engine final : public anyio::tls_engine {
 public:
  explicit scripted_engine(script& s) : script_(s) {}
  tls_status handshake() override {
    return checked([&] { return script_.handshake(); });
  }
  tls_status read(mutable_buffer into, std::size_t& n) override {
    CHECK(!into.empty());
    ++script_.reads;
    return checked([&] { return script_.read(into, n); });
  }
  tls_status write(const_buffer data, std::size_t& n) override {
    CHECK(!data.empty());
    CHECK(script_.closes == 0);
    ++script_.writes;
    return checked([&] { return script_.write(data, n); });
  }
  tls_status close() override {
    ++script_.closes;
    return checked([&] { return script_.close(); });
  }
  bool pending() const override { return script_.pending; }
  anyio::tls_info info() const override {
    anyio::tls_info info;
    info.version = script_.version;
    return info;
  }
  std::string last_error() const override { return "the script says so"; }

 private:
  template <class Verb>
  tls_status checked(Verb verb) {
    CHECK(!script_.failed);
    const tls_status status = verb();
    script_.failed = status == tls_status::failed;
    return status;
  }
  script& script_;
};

class scripted_context final : public anyio::tls_context {
 public:
  explicit scripted_context(script& s) : script_(s) {}
  std::unique_ptr<anyio::tls_engine> client(tls_pipe& pipe, std::string_view) override {
    script_.pipe = &pipe;
    return std::make_unique<scripted_engine>(script_);
  }
  std::unique_ptr<anyio::tls_engine> server(tls_pipe& pipe) override { return client(pipe, {}); }

 private:
  script& script_;
};

/// A stream driven by the script, and the other end of its transport.
struct world {
  anyio::loop loop;
  script engine;
  memory_stream peer;
  tls_stream stream;

  explicit world(std::size_t capacity = 65536, bool established = true) {
    auto [a, b] = anyio::create_memory_stream_pair(capacity);
    peer = std::move(b);
    transport = std::make_unique<memory_stream>(std::move(a));
    if (!established) return;
    auto r = wrap();
    CHECK(r);
    if (r) stream = *std::move(r);
  }
  std::unique_ptr<memory_stream> transport;
  auto handshake() {
    return tls_stream::wrap_client(std::move(transport), std::make_shared<scripted_context>(engine));
  }
  result<tls_stream> wrap() { return by_coroutine::get(handshake()); }
  /// The bytes that have arrived at the other end.
  std::string at_peer() {
    std::string all;
    for (;;) {
      settle();
      auto r = by_callback::get(anyio::move_on_after(0ms, peer.receive()));
      if (!r || !*r) return all;
      all += **r;
    }
  }
  errc peer_end() { return by_callback::get(peer.receive()).error().code(); }
  void feed(std::string_view bytes) { CHECK(by_callback::get(peer.send(bytes))); }
};

template <class Face, class Op>
errc code(Op op) {
  return Face::get(std::move(op)).error().code();
}

// ---- flushing ---------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("tls driver: the alert of a failed handshake reaches the peer before the transport closes",
                   Face, by_callback, by_coroutine) {
  world w(65536, false);
  w.engine.handshake = [&] { return w.engine.fail(); };
  const auto r = Face::get(w.handshake());
  CHECK(r.error() == errc::tls);
  CHECK(r.error().message().find("the script says so") != std::string::npos);
  CHECK(w.at_peer() == "ALERT");
  CHECK(w.peer_end() == errc::end_of_stream);
  CHECK(w.engine.closes == 0);
}

TEST_CASE_TEMPLATE("tls driver: a failed read sends an alert, and is final for both directions", Face,
                   by_callback, by_coroutine) {
  world w;
  w.engine.read = [&](mutable_buffer, std::size_t&) { return w.engine.fail(); };
  for (int i = 0; i < 3; ++i) {
    const auto r = Face::get(w.stream.receive());
    CHECK(r.error() == errc::tls);
    CHECK(r.error().operation() == "receive");
    CHECK(r.error().message().find("the script says so") != std::string::npos);
  }
  CHECK(w.at_peer() == "ALERT");
  for (int i = 0; i < 3; ++i) {
    const auto r = Face::get(w.stream.send("x"));
    CHECK(r.error() == errc::tls);
    CHECK(r.error().operation() == "send");
  }
  CHECK(code<Face>(w.stream.unwrap()) == errc::tls);
  CHECK(w.engine.reads == 1);
  CHECK(Face::get(w.stream.aclose()).has_value());
  CHECK(w.engine.closes == 0);  // there is no peer to send it to
  CHECK(w.at_peer() == "");
  CHECK(w.peer_end() == errc::end_of_stream);
}

TEST_CASE_TEMPLATE("tls driver: a failed write sends an alert, and is final for both directions", Face,
                   by_callback, by_coroutine) {
  world w;
  w.engine.write = [&](const_buffer, std::size_t&) { return w.engine.fail(); };
  for (int i = 0; i < 3; ++i) CHECK(code<Face>(w.stream.send("x")) == errc::tls);
  CHECK(w.at_peer() == "ALERT");
  w.feed("lost");
  for (int i = 0; i < 3; ++i) CHECK(code<Face>(w.stream.receive()) == errc::tls);
  CHECK(w.engine.writes == 1);
  w.stream.close();
  CHECK(w.engine.closes == 0);
}

TEST_CASE("tls driver: pending output is sent before the alert of a failure") {
  world w(4);
  w.engine.read = [&](mutable_buffer, std::size_t&) { return w.engine.fail(); };
  waiting<void> sent;
  by_callback::start(w.stream.send("0123456789"), sent);
  settle();
  CHECK(code<by_callback>(w.stream.receive()) == errc::tls);
  CHECK(w.at_peer() == "0123456789ALERT");
  CHECK(sent.get().has_value());
}

TEST_CASE("tls driver: an engine whose close failed is not called again") {
  world w;
  w.engine.close = [&] { return w.engine.fail(); };
  CHECK(code<by_callback>(w.stream.send_eof()) == errc::tls);
  CHECK(w.at_peer() == "ALERT");
  CHECK(code<by_callback>(w.stream.receive()) == errc::tls);
  CHECK(code<by_callback>(w.stream.send_eof()) == errc::tls);
  w.stream.close();
  CHECK(w.engine.closes == 1);
}

TEST_CASE("tls driver: deferred output of the handshake is sent before any later output") {
  const auto wrapped = [](world& w, std::string_view before) {
    w.engine.handshake = [&w, before] {
      w.engine.pipe->tx.append(before);
      w.engine.pipe->tx.append("(ticket)");
      w.engine.pipe->may_wait = 8;
      return tls_status::ok;
    };
    auto r = w.wrap();
    CHECK(r);
    if (r) w.stream = *std::move(r);
  };
  {
    world w(65536, false);
    wrapped(w, "");
    w.feed("data");
    CHECK(by_callback::get(w.stream.receive()).value_or("") == "data");
    CHECK(w.at_peer() == "");
    CHECK(by_callback::get(w.stream.send("x")).has_value());
    CHECK(w.at_peer() == "(ticket)x");
  }
  {
    world w(65536, false);
    wrapped(w, "");
    CHECK(code<by_callback>(anyio::fail_after(0ms, w.stream.receive())) == errc::timed_out);
    w.stream.close();
    CHECK(w.at_peer() == "(ticket)!");
  }
  {
    world w(65536, false);
    wrapped(w, "");
    CHECK(by_callback::get(w.stream.send_eof()).has_value());
    CHECK(w.at_peer() == "(ticket)!");
  }
  {
    world w(65536, false);
    wrapped(w, "");
    w.engine.read = [&](mutable_buffer into, std::size_t& n) {
      w.engine.pipe->tx.append(w.engine.pipe->rx.empty() ? "" : "(reply)");
      return w.engine.read_plainly(into, n);
    };
    w.feed("data");
    CHECK(by_callback::get(w.stream.receive()).value_or("") == "data");
    CHECK(w.at_peer() == "(ticket)(reply)");
  }
  world w(65536, false);
  wrapped(w, "hello");
  CHECK(w.at_peer() == "hello(ticket)");
}

TEST_CASE("tls driver: deferred and later output is sent completely through a small pipe") {
  world w(8, false);
  w.engine.handshake = [&w] {
    w.engine.pipe->tx.append("(ticket)");
    w.engine.pipe->may_wait = 8;
    return tls_status::ok;
  };
  w.engine.read = [&](mutable_buffer into, std::size_t& n) {
    w.engine.pipe->tx.append(w.engine.pipe->rx.empty() ? "" : "12345678");
    return w.engine.read_plainly(into, n);
  };
  auto r = w.wrap();
  CHECK(r);
  if (!r) return;
  w.stream = *std::move(r);
  w.feed("data");
  CHECK(by_callback::get(w.stream.receive()).value_or("") == "data");
  CHECK(w.at_peer() == "(ticket)12345678");
}

TEST_CASE("tls driver: output left by a read is sent, whatever the read returns") {
  world w;
  w.engine.read = [&](mutable_buffer into, std::size_t& n) {
    w.engine.pipe->tx.append(w.engine.pipe->rx.empty() ? "" : "(reply)");
    return w.engine.read_plainly(into, n);
  };
  w.feed("data");
  CHECK(by_callback::get(w.stream.receive()).value_or("") == "data");
  CHECK(w.at_peer() == "(reply)");
  w.feed("!");
  CHECK(code<by_callback>(w.stream.receive()) == errc::end_of_stream);
  CHECK(w.at_peer() == "(reply)");
}

TEST_CASE(
    "tls driver: output left by a reader is sent when the transport drains, without a send or receive") {
  world w(100);
  const std::string reply(5000, 'r');
  w.engine.read = [&](mutable_buffer into, std::size_t& n) {
    const tls_status status = w.engine.read_plainly(into, n);
    if (status == tls_status::ok) w.engine.pipe->tx.append(reply);
    return status;
  };
  w.feed("data");
  CHECK(by_callback::get(w.stream.receive()).value_or("") == "data");
  CHECK((w.at_peer() == reply));
  CHECK(by_callback::get(w.stream.send("then this")).has_value());
  CHECK(w.at_peer() == "then this");
}

TEST_CASE_TEMPLATE("tls driver: a reader whose reads must be answered stops while the peer takes no answers",
                   Face, by_callback, by_coroutine) {
  world w(100);
  const std::string reply(1000, 'r');
  std::size_t replies = 0;
  std::size_t most = 0;
  w.engine.read = [&](mutable_buffer into, std::size_t& n) {
    std::memset(into.data(), 'x', n = 1);
    w.engine.pipe->tx.append(reply);
    ++replies;
    most = std::max(most, w.engine.pipe->tx.size());
    return tls_status::ok;
  };
  waiting<std::string> got;
  for (int i = 0; i < 10000; ++i) {
    Face::start(w.stream.receive(10), got);
    settle();
    if (!got.done()) break;
    CHECK(got.get().value_or("") == "x");
  }
  CHECK(!got.done());
  CHECK(replies < 100);
  CHECK(most < 100000);
  CHECK(!by_callback::get(w.peer.receive()).value_or("").empty());
  settle();
  CHECK(!got.done());  // much is left
  const std::size_t before = replies;
  const std::string drained = w.at_peer();
  CHECK(got.get().value_or("") == "x");
  CHECK(replies == before + 1);
  CHECK(100 + drained.size() == replies * reply.size());
}

TEST_CASE("tls driver: a reader that waits to send its answers ends with the peer or the stream") {
  enum class gone { peer, stream, transport };
  for (const gone what : {gone::peer, gone::stream, gone::transport}) {
    world w(100);
    w.engine.read = [&](mutable_buffer into, std::size_t& n) {
      if (w.engine.pipe->tx.size() > 100000) return w.engine.starve();
      std::memset(into.data(), 'x', n = 1);
      w.engine.pipe->tx.append(std::string(70000, 'r'));
      return tls_status::ok;
    };
    waiting<std::string> got;
    CHECK(by_callback::get(w.stream.receive(10)).has_value());
    by_callback::start(w.stream.receive(10), got);
    settle();
    CHECK(!got.done());
    if (what == gone::peer) w.peer.close();
    if (what == gone::stream) w.stream.close();
    if (what == gone::transport) w.stream.transport().close();
    CHECK(got.get().value_or("closed") == (what == gone::stream ? "closed" : "x"));
    CHECK(code<by_callback>(w.stream.send("x")) ==
          (what == gone::peer ? errc::broken_resource : errc::closed_resource));
  }
}

TEST_CASE("tls driver: a reader that waits to send its answers continues when a send sends them") {
  world w(100000);
  w.engine.read = [&](mutable_buffer into, std::size_t& n) {
    std::memset(into.data(), 'x', n = 1);
    if (w.engine.reads == 1) w.engine.pipe->tx.append(std::string(170000, 'r'));
    return tls_status::ok;
  };
  CHECK(by_callback::get(w.stream.receive(10)).value_or("") == "x");
  waiting<std::string> got;
  by_callback::start(w.stream.receive(10), got);
  settle();
  CHECK(!got.done());
  CHECK(w.engine.pipe->tx.size() == 70000);
  std::string room(100000, '\0');
  result<std::size_t> n(errc::cancelled);
  static_cast<void>(anyio::detail::stream_access::resource_of(w.peer)->receive(room, n));
  CHECK(n.value_or(0) == room.size());
  waiting<void> sent;
  by_callback::start(w.stream.send("text"), sent);  // before the stream was told of the room
  CHECK(w.engine.pipe->tx.empty());
  CHECK(sent.get().has_value());
  CHECK(got.get().value_or("") == "x");
}

TEST_CASE("tls driver: a received end stays the end when a write fails later") {
  world w;
  w.engine.write = [&](const_buffer, std::size_t&) { return w.engine.fail(); };
  w.feed("!");
  CHECK(code<by_callback>(w.stream.receive()) == errc::end_of_stream);
  CHECK(code<by_callback>(w.stream.send("x")) == errc::tls);
  CHECK(code<by_callback>(w.stream.receive()) == errc::end_of_stream);
}

TEST_CASE("tls driver: a failed write stays an error when its alert cannot be sent") {
  world w;
  w.engine.write = [&](const_buffer, std::size_t&) { return w.engine.fail(); };
  w.peer.close();
  for (int i = 0; i < 3; ++i) {
    CHECK(code<by_callback>(w.stream.send("x")) == errc::tls);
    CHECK(code<by_callback>(w.stream.send_eof()) == errc::tls);
  }
}

// ---- waiting ----------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("tls driver: an engine that wants input although some is left is called again", Face,
                   by_callback, by_coroutine) {
  world w;
  int in_vain = 0;
  w.engine.read = [&](mutable_buffer into, std::size_t& n) {
    if (w.engine.pipe->rx.empty()) return w.engine.starve();
    return ++in_vain <= 100 ? tls_status::want_input : w.engine.read_plainly(into, n);
  };
  w.feed("late");
  CHECK(Face::get(w.stream.receive()).value_or("") == "late");
  CHECK(in_vain == 101);
}

TEST_CASE_TEMPLATE("tls driver: an engine that returns `again` is called again, without input", Face,
                   by_callback, by_coroutine) {
  world w(65536, false);
  int handshakes = 0;
  w.engine.handshake = [&] { return ++handshakes <= 100 ? tls_status::again : tls_status::ok; };
  auto r = Face::get(w.handshake());
  CHECK(r);
  if (!r) return;
  w.stream = *std::move(r);
  CHECK(handshakes == 101);
  w.engine.read = [&](mutable_buffer into, std::size_t& n) {
    if (w.engine.reads <= 100) return tls_status::again;
    std::memcpy(into.data(), "r", n = 1);
    return tls_status::ok;
  };
  CHECK(Face::get(w.stream.receive()).value_or("") == "r");
  w.engine.write = [&](const_buffer data, std::size_t& n) {
    if (w.engine.writes <= 100) return tls_status::again;
    w.engine.pipe->tx.append(const_buffer(data.data(), n = 1));
    return tls_status::ok;
  };
  CHECK(Face::get(w.stream.send("written by one")).has_value());
  CHECK(w.at_peer() == "written by one");
}

TEST_CASE("tls driver: engines that never finish do not starve others") {
  const auto others_run = [](world& w, auto op) {
    int ticks = 0;
    anyio::run([&]() -> task<> {
      auto endless = op();
      endless.start([](auto r) { CHECK(!r); });
      for (; ticks < 20; ++ticks) co_await anyio::sleep(0ms);
    });
    CHECK(ticks == 20);
    static_cast<void>(w);
  };
  for (const tls_status status : {tls_status::again, tls_status::want_input}) {
    world w;
    w.feed("never taken");
    w.engine.read = [&](mutable_buffer, std::size_t&) { return status; };
    w.engine.write = [&](const_buffer, std::size_t&) { return status; };
    others_run(w, [&] { return w.stream.receive(); });
    CHECK(w.engine.reads > 20);
    CHECK(w.engine.reads < 100000);
    others_run(w, [&] { return w.stream.send("x"); });
    CHECK(w.engine.writes > 20);
    world shaking(65536, false);
    shaking.feed("never taken");
    shaking.engine.handshake = [&] { return status; };
    others_run(shaking, [&] { return shaking.handshake(); });
  }
}

TEST_CASE("tls driver: an engine with plaintext is asked for it before anything waits") {
  world w;
  w.engine.pending = true;
  w.engine.read = [&](mutable_buffer into, std::size_t& n) {
    if (w.engine.reads == 1) return w.engine.starve();
    w.engine.pending = false;
    std::memcpy(into.data(), "p", n = 1);
    return tls_status::ok;
  };
  CHECK(by_callback::get(w.stream.receive()).value_or("") == "p");
}

TEST_CASE("tls driver: a starved engine waits for new bytes, and gets old and new together") {
  world w;
  w.engine.read = [&](mutable_buffer into, std::size_t& n) {
    if (w.engine.pipe->rx.size() < 4) return w.engine.starve();
    return w.engine.read_plainly(into, n);
  };
  waiting<std::string> got;
  by_callback::start(w.stream.receive(), got);
  for (const char* byte : {"a", "b", "c"}) {
    w.feed(byte);
    settle();
    CHECK(!got.done());
  }
  CHECK(w.engine.reads <= 8);
  w.feed("d");
  CHECK(got.get().value_or("") == "abcd");
}

TEST_CASE("tls driver: an engine that wants input at the transport's end is truncated") {
  world w;
  w.engine.read = [&](mutable_buffer, std::size_t&) { return w.engine.starve(); };
  w.feed("half a rec");
  w.peer.close();
  for (int i = 0; i < 3; ++i) CHECK(code<by_callback>(w.stream.receive()) == errc::broken_resource);
  CHECK(w.engine.reads == 3);  // nothing, bytes, end
}

// ---- a writer that needs input ------------------------------------------------------------------------

/// Writes only after a "k", which a read skips.
void write_after_key(world& w, bool& unlocked) {
  const auto take_key = [&w, &unlocked] {
    auto& rx = w.engine.pipe->rx;
    if (rx.empty() || rx.front() != std::byte{'k'}) return false;
    rx = rx.subspan(1);
    return unlocked = true;
  };
  w.engine.read = [&w, take_key](mutable_buffer into, std::size_t& n) {
    take_key();
    return w.engine.read_plainly(into, n);
  };
  w.engine.write = [&w, &unlocked, take_key](const_buffer data, std::size_t& n) {
    if (!unlocked && !take_key()) return w.engine.starve();
    w.engine.pipe->tx.append(data);
    n = data.size();
    return tls_status::ok;
  };
}

TEST_CASE_TEMPLATE("tls driver: a writer may need input while no receive is pending", Face, by_callback,
                   by_coroutine) {
  world w;
  bool unlocked = false;
  write_after_key(w, unlocked);
  waiting<void> sent;
  Face::start(w.stream.send("text"), sent);
  settle();
  CHECK(!sent.done());
  CHECK(w.at_peer() == "");
  w.feed("k");
  CHECK(sent.get().has_value());
  CHECK(w.at_peer() == "text");
}

TEST_CASE_TEMPLATE("tls driver: a writer may need input while a receive is pending", Face, by_callback,
                   by_coroutine) {
  for (const bool reader_first : {true, false}) {
    world w;
    bool unlocked = false;
    write_after_key(w, unlocked);
    waiting<void> sent;
    waiting<std::string> got;
    if (reader_first) Face::start(w.stream.receive(), got);
    settle();
    Face::start(w.stream.send("text"), sent);
    settle();
    if (!reader_first) Face::start(w.stream.receive(), got);
    settle();
    w.feed("k");
    CHECK(sent.get().has_value());
    CHECK(w.at_peer() == "text");
    CHECK(!got.done());
    w.feed("answer");
    CHECK(got.get().value_or("") == "answer");
  }
}

TEST_CASE("tls driver: input read by a writer is available to a reader, pending or later") {
  for (const bool reader_waits : {true, false}) {
    world w;
    bool unlocked = false;
    write_after_key(w, unlocked);
    waiting<void> sent;
    waiting<std::string> got;
    by_callback::start(w.stream.send("text"), sent);
    settle();
    if (reader_waits) by_callback::start(w.stream.receive(), got);
    w.feed("kdata");
    CHECK(sent.get().has_value());
    if (!reader_waits) by_callback::start(w.stream.receive(), got);
    CHECK(got.get().value_or("") == "data");
  }
}

TEST_CASE("tls driver: an end met by a writer is reported to a reader, and vice versa") {
  for (const bool writer_first : {true, false}) {
    world w;
    bool unlocked = false;
    write_after_key(w, unlocked);
    waiting<void> sent;
    waiting<std::string> got;
    if (writer_first) {
      by_callback::start(w.stream.receive(), got);
      settle();
      w.peer.close();
      by_callback::start(w.stream.send("text"), sent);  // reads at once
    } else {
      by_callback::start(w.stream.send("text"), sent);
      settle();
      by_callback::start(w.stream.receive(), got);
      w.peer.close();
    }
    CHECK(sent.get().error() == errc::broken_resource);
    CHECK(got.get().error() == errc::broken_resource);
  }
}

TEST_CASE("tls driver: a writer that needs input ends with the connection, the stream, or its time limit") {
  for (const int how : {0, 1, 2}) {
    world w;
    bool unlocked = false;
    write_after_key(w, unlocked);
    waiting<void> sent;
    auto op = w.stream.send("text");
    by_callback::start(anyio::fail_after(how == 2 ? 1ms : 1h, std::move(op)), sent);
    settle();
    if (how == 0) w.peer.close();
    if (how == 1) w.stream.close();
    const errc expected[] = {errc::broken_resource, errc::closed_resource, errc::timed_out};
    CHECK(sent.get().error() == expected[how]);
    if (how != 2) continue;
    w.feed("kdata");
    CHECK(by_callback::get(w.stream.receive()).value_or("") == "data");
    CHECK(by_callback::get(w.stream.send("now")).has_value());
    CHECK(w.at_peer() == "now");
  }
}

// ---- much at once -----------------------------------------------------------------------------------

task<> send_all(tls_stream& to, const std::string& data) { co_await to.send(data); }
task<> receive_all(tls_stream& from, std::string& all, std::size_t size) {
  while (all.size() < size) all += co_await from.receive_view();
}

TEST_CASE("tls driver: both directions carry 8 MiB at once through a small pipe") {
  anyio::loop loop;
  auto [a, b] = support::toy_pair(4096);
  const std::string there = conformance::pattern(std::size_t{8} << 20, 1);
  const std::string back = conformance::pattern(std::size_t{8} << 20, 2);
  std::string at_a;
  std::string at_b;
  anyio::task_group group;
  group.start_soon(send_all(a, there));
  group.start_soon(send_all(b, back));
  group.start_soon(receive_all(a, at_a, back.size()));
  group.start_soon(receive_all(b, at_b, there.size()));
  CHECK(by_coroutine::get(anyio::fail_after(10min, group.join())).has_value());
  CHECK((at_a == back));
  CHECK((at_b == there));
}

/// A transport that transfers one byte at a time.
struct trickle {
  support::scripted_loop scripted;
  trickle() { scripted.system.send_limit = scripted.system.receive_limit = 1; }
};

TEST_CASE("tls driver: a byte at a time") {
  for (const bool sockets : {true, false}) {
    trickle t;
    auto [a, b] = sockets ? support::toy_socket_pair() : support::toy_pair(1);
    const std::string data = conformance::pattern(3000);
    std::string at_b;
    anyio::task_group group;
    group.start_soon(send_all(a, data));
    group.start_soon(receive_all(b, at_b, data.size()));
    CHECK(by_coroutine::get(group.join()).has_value());
    CHECK((at_b == data));
    waiting<void> closed;
    by_callback::start(a.aclose(), closed);
    CHECK(code<by_callback>(b.receive()) == errc::end_of_stream);
    b.close();
    CHECK(closed.get().has_value());
  }
}

// ---- cancelling -------------------------------------------------------------------------------------

/// The next event. False: there is none.
bool step() {
  auto& core = anyio::detail::loop_core::current();
  if (core.time_until_next() > 0s) return false;
  core.step();
  return true;
}

TEST_CASE("tls driver: a send cancelled at any point has sent a prefix, and the stream stays usable") {
  const std::string data = conformance::pattern(40000, 5);  // without the byte 0xff
  bool completed = false;
  for (int point = 0; !completed; ++point) {
    anyio::loop loop;
    auto [a, b] = support::toy_pair(1000);
    std::string all;
    waiting<std::string> got;
    std::size_t sent = 0;
    {
      bool done = false;
      auto op = a.send(data);
      op.start([&done](result<void> r) { done = r.has_value(); });
      for (int i = 0; i < point && !done; ++i) {
        if (step()) continue;
        by_callback::start(b.receive(700), got);
        all += got.get().value_or("");
      }
      sent = op.sent();
      completed = done;
    }
    waiting<void> more;
    by_callback::start(a.send("\xff"), more);
    while (all.empty() || all.back() != '\xff') {
      auto r = by_callback::get(b.receive());
      CHECK(r);
      if (!r) return;
      all += *r;
    }
    CHECK(more.get().has_value());
    CHECK(all.size() == sent + 1);
    CHECK((data.compare(0, sent, all, 0, all.size() - 1) == 0));
    CHECK(point < 1000);
    if (point >= 1000) return;
  }
}

TEST_CASE("tls driver: bytes accepted from a cancelled send are sent, without a later send") {
  std::vector<const_buffer> pieces(50, "piece");
  for (int point = 0; point < 6; ++point) {
    world w(7);
    std::size_t sent = 0;
    {
      auto op = w.stream.send(std::span<const const_buffer>(pieces));
      op.start([](result<void>) {});
      for (int i = 0; i < point; ++i) step();
      sent = op.sent();
    }
    CHECK(w.at_peer().size() == sent);
  }
}

TEST_CASE("tls driver: destroying a send when there is room again uses that room") {
  world w(4);
  CHECK(code<by_callback>(anyio::fail_after(0ms, w.stream.send("012345"))) == errc::timed_out);
  waiting<void> sent;
  by_callback::start(w.stream.send("x"), sent);
  settle();
  CHECK(w.engine.writes == 1);  // the bytes there are sent first
  anyio::detail::stream_access::resource_of(w.stream)->cancel();
  std::string into(4, '\0');
  result<std::size_t> n(errc::cancelled);
  static_cast<void>(anyio::detail::stream_access::resource_of(w.peer)->receive(into, n));
  CHECK(n.value_or(0) == 4);
  CHECK(sent.get().has_value());
  CHECK(into + w.at_peer() == "012345x");
}

TEST_CASE("tls driver: a receive cancelled at any point loses nothing") {
  const std::string data = conformance::pattern(30000, 6);
  for (int point = 0; point < 30; ++point) {
    anyio::loop loop;
    auto [a, b] = support::toy_pair(1000);
    waiting<void> sent;
    by_callback::start(a.send(data), sent);
    std::string all;
    std::string room(600, '\0');
    for (int round = 0; all.size() < data.size() && round < 100000; ++round) {
      std::size_t n = 0;
      {
        auto op = b.receive(room);
        op.start([&n](result<std::size_t> r) { n = r.value_or(0); });
        for (int i = 0; i < (round % 7 == 0 ? 1000 : point) && n == 0 && step(); ++i) {
        }
      }
      all.append(room, 0, n);
    }
    CHECK((all == data));
    CHECK(sent.get().has_value());
  }
}

/// One direction of a connection whose ends act at random.
class random_traffic {
 public:
  random_traffic(tls_stream& from, tls_stream& to, std::uint64_t seed)
      : from_(from), to_(to), random_(seed) {}
  random_traffic(const random_traffic&) = delete;
  random_traffic& operator=(const random_traffic&) = delete;

  void act() {
    switch (random_.below(6)) {
      case 0:
      case 1: begin_send(); break;
      case 2: end_send(); break;
      case 3:
      case 4: begin_receive(); break;
      default: receiving_ = {}; break;
    }
  }
  /// Ends pending operations, and takes the remaining bytes.
  bool finish() {
    end_send();
    return conformance::runs_until(anyio::loop::current(), [this] {
      if (!receiving_.pending() && got_.size() < expected_.size()) begin_receive();
      return got_.size() >= expected_.size();
    });
  }
  bool matches() const { return got_ == expected_ && sends_are_fine_; }
  std::size_t size() const { return got_.size(); }

 private:
  void begin_send() {
    if (sending_.pending()) return;
    end_send();
    text_ = conformance::pattern(random_.below(8) == 0 ? 40000 : 1 + random_.below(300), random_.below(1000));
    begun_ = true;
    sending_ = from_.send(text_);
    sending_.start([this](result<void> r) {
      sends_are_fine_ = sends_are_fine_ && r && sending_.sent() == text_.size();
    });
  }
  void end_send() {
    if (std::exchange(begun_, false)) expected_.append(text_, 0, sending_.sent());
    sending_ = {};
  }
  void begin_receive() {
    if (receiving_.pending()) return;
    receiving_ = to_.receive(anyio::mutable_buffer(room_.data(), 1 + random_.below(room_.size())));
    receiving_.start([this](result<std::size_t> r) {
      if (r) got_.append(room_, 0, *r);
    });
  }

  tls_stream& from_;
  tls_stream& to_;
  conformance::numbers random_;
  std::string text_;
  std::string expected_;
  std::string got_;
  std::string room_ = std::string(2000, '\0');
  bool begun_ = false;
  bool sends_are_fine_ = true;
  anyio::send_operation sending_;
  anyio::receive_operation receiving_;
};

TEST_CASE("tls driver: all sent bytes arrive, whatever is started and cancelled") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    INFO("seed ", seed);
    anyio::loop loop;
    conformance::numbers random(seed);
    auto [a, b] = support::toy_pair(1 + random.below(seed % 2 == 0 ? 20 : 20000));
    random_traffic there(a, b, seed + 1000);
    random_traffic back(b, a, seed + 2000);
    for (int i = 0; i < 1500; ++i) {
      (random.below(2) == 0 ? there : back).act();
      for (std::size_t n = random.below(6); n != 0 && step(); --n) {
      }
    }
    CHECK(there.finish());
    CHECK(back.finish());
    CHECK(there.matches());
    CHECK(back.matches());
    CHECK(there.size() != 0);
    if (!there.matches() || !back.matches()) return;
  }
}

// ---- operations ---------------------------------------------------------------------------------------

TEST_CASE("tls driver: many small pieces are sent in one write of the transport") {
  support::scripted_loop scripted;
  auto [a, b] = support::toy_socket_pair();
  const std::vector<const_buffer> pieces(200, "piece;");
  const std::size_t before = scripted.system.sends;
  CHECK(by_coroutine::get(a.send(std::span<const const_buffer>(pieces))).has_value());
  CHECK(scripted.system.sends == before + 1);
  std::string all;
  while (all.size() < 1200) all += by_callback::get(b.receive()).value_or(std::string(1200, '?'));
  CHECK(all.size() == 1200);
  CHECK(all.substr(0, 12) == "piece;piece;");
}

TEST_CASE("tls driver: a receive reads all available bytes of the transport in one read") {
  support::scripted_loop scripted;
  auto [a, b] = support::toy_socket_pair();
  for (int i = 0; i < 20; ++i) CHECK(by_callback::get(a.send("piece")).has_value());
  const std::size_t before = scripted.system.receives;
  for (int i = 0; i < 20; ++i) CHECK(by_callback::get(b.receive()).value_or("") == "piece");
  CHECK(scripted.system.receives == before + 1);
}

TEST_CASE_TEMPLATE("tls driver: an empty send, and a receive of 0 bytes, do not call the engine", Face,
                   by_callback, by_coroutine) {
  world w;
  CHECK(Face::get(w.stream.send("")).has_value());
  CHECK(Face::get(w.stream.send(std::span<const const_buffer>())).has_value());
  CHECK(code<Face>(w.stream.receive(0)) == errc::invalid_argument);
  CHECK(code<Face>(w.stream.receive(mutable_buffer())) == errc::invalid_argument);
  CHECK(w.engine.writes == 0);
  CHECK(w.engine.reads == 0);
  CHECK(w.at_peer() == "");
}

TEST_CASE_TEMPLATE("tls driver: the order of errors: empty buffer, closed, busy, broken", Face, by_callback,
                   by_coroutine) {
  world w(4);
  waiting<std::string> got;
  waiting<void> sent;
  Face::start(w.stream.receive(), got);
  Face::start(w.stream.send("more than there is room for"), sent);
  settle();
  CHECK(code<Face>(w.stream.receive(0)) == errc::invalid_argument);
  CHECK(code<Face>(w.stream.receive()) == errc::busy_resource);
  CHECK(code<Face>(w.stream.receive_view()) == errc::busy_resource);
  CHECK(code<Face>(w.stream.send("x")) == errc::busy_resource);
  CHECK(code<Face>(w.stream.send_eof()) == errc::busy_resource);
  CHECK(code<Face>(w.stream.unwrap()) == errc::busy_resource);
  w.peer.close();
  const auto broken = sent.get();
  CHECK(broken.error() == errc::broken_resource);
  CHECK(broken.error().os_error() == EPIPE);
  CHECK(got.get().error() == errc::broken_resource);  // without a close_notify
  for (int i = 0; i < 3; ++i) {
    CHECK(code<Face>(w.stream.send("x")) == errc::broken_resource);
    CHECK(Face::get(w.stream.send("x")).error().os_error() == EPIPE);
    CHECK(code<Face>(w.stream.receive()) == errc::broken_resource);
  }
  w.stream.close();
  CHECK(code<Face>(w.stream.receive(0)) == errc::invalid_argument);
  CHECK(code<Face>(w.stream.receive()) == errc::closed_resource);
  CHECK(code<Face>(w.stream.send("x")) == errc::closed_resource);
  CHECK(code<Face>(w.stream.send_eof()) == errc::closed_resource);
  CHECK(code<Face>(w.stream.unwrap()) == errc::closed_resource);
}

TEST_CASE("tls driver: bytes from before a broken connection are received, also after a failed send") {
  world w;
  w.feed("before");
  w.peer.close();
  CHECK(code<by_callback>(w.stream.send("x")) == errc::broken_resource);
  CHECK(by_callback::get(w.stream.receive()).value_or("") == "before");
  CHECK(code<by_callback>(w.stream.receive()) == errc::broken_resource);
}

TEST_CASE("tls driver: closing the transport directly closes pending operations of the stream") {
  world w(4);
  waiting<std::string> got;
  waiting<void> sent;
  by_callback::start(w.stream.receive(), got);
  by_callback::start(w.stream.send("more than there is room for"), sent);
  settle();
  w.stream.transport().close();
  CHECK(got.get().error() == errc::closed_resource);
  CHECK(sent.get().error() == errc::closed_resource);
  CHECK(code<by_callback>(w.stream.send("x")) == errc::closed_resource);
  CHECK(code<by_callback>(w.stream.receive()) == errc::closed_resource);
  CHECK(by_callback::get(w.stream.aclose()).has_value());
}

TEST_CASE("tls driver: a transport used by another reader is busy, and no taken bytes are lost") {
  world w;
  waiting<std::string> taken;
  by_callback::start(w.stream.transport().receive(3), taken);
  settle();
  CHECK(code<by_callback>(w.stream.receive()) == errc::busy_resource);
  w.feed("abcdef");
  CHECK(taken.get().value_or("") == "abc");
  CHECK(by_callback::get(w.stream.receive()).value_or("") == "def");
}

}  // namespace
