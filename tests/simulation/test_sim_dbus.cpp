// The D-Bus client of the examples and a small daemon on a simulated network, with faults: a call gets the
// values and the descriptors of its own reply, whatever else comes between and in whatever pieces, or an
// error.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "examples/support/dbus.hpp"
#include "support/sim_seeds.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::task;
using anyio::unique_fd;
using anyio::unix_stream;
namespace sim = anyio::sim;

// --- the daemon

/// Values of a message in either order of bytes.
class encoder {
 public:
  explicit encoder(std::endian order) : order_(order) {}
  encoder& byte(int b) { return bytes_ += static_cast<char>(b), *this; }
  encoder& number(std::size_t n) {
    align(4);
    for (int i = 0; i < 4; ++i)
      byte(static_cast<int>(n >> 8 * (order_ == std::endian::little ? i : 3 - i) & 255));
    return *this;
  }
  encoder& text(std::string_view s) { return number(s.size()).raw(s).byte(0); }
  encoder& signature(std::string_view s) { return byte(static_cast<int>(s.size())).raw(s).byte(0); }
  encoder& raw(std::string_view s) { return bytes_ += s, *this; }
  encoder& align(std::size_t n) { return bytes_.resize((bytes_.size() + n - 1) / n * n), *this; }
  encoder& field(int code, std::string_view type) { return align(8).byte(code).signature(type); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::endian order_;
  std::string bytes_;
};

constexpr int reply_kind = 2, error_kind = 3, signal_kind = 4;

struct letter {
  int kind = reply_kind;
  std::endian order = std::endian::little;
  std::size_t reply_to = 0;
  std::string error_name, signature, body;
  std::vector<unique_fd> fds;
  std::size_t said_fds = 0;  // what the header says of them

  letter() = default;
  std::string bytes() const {
    encoder fields(order);
    if (reply_to != 0) fields.field(5, "u").number(reply_to);
    if (!error_name.empty()) fields.field(4, "s").text(error_name);
    if (!signature.empty()) fields.field(8, "g").signature(signature);
    if (said_fds != 0) fields.field(9, "u").number(said_fds);
    encoder all(order);
    all.byte(order == std::endian::little ? 'l' : 'B').byte(kind).byte(0).byte(1);
    all.number(body.size()).number(77).number(fields.bytes().size());
    return all.raw(fields.bytes()).align(8).raw(body).bytes();
  }
};

/// The methods that the daemon has.
enum class method : std::uint8_t { text, list, numbers, files, fails, silent, liar, cuts, count };
constexpr std::string_view method_names[] = {"Text",  "List",   "Numbers", "Files",
                                             "Fails", "Silent", "Liar",    "Cuts"};

/// What the daemon has answered to a call, for the client to compare with; by the call's path.
struct truth {
  bool answered = false;
  std::string error_name, lines;
};
using truths = std::map<std::string, truth>;

class daemon {
 public:
  explicit daemon(truths& t) : truths_(t) {}

  task<> serve(unix_stream s) {
    anyio::buffered_stream in(s);
    const std::string auth = co_await in.receive_line(100);
    CHECK(auth.starts_with(std::string_view("\0AUTH EXTERNAL 3", 16)));
    co_await s.send("OK 0123456789abcdef\r\n");
    CHECK(co_await in.receive_line(100) == "NEGOTIATE_UNIX_FD");
    co_await s.send("AGREE_UNIX_FD\r\n");
    CHECK(co_await in.receive_line(100) == "BEGIN");
    for (;;) {
      const std::string head = co_await in.receive_exactly(4);
      CHECK(head == std::string("l\1\0\1", 4));
      CHECK(co_await in.receive_int<std::uint32_t>(std::endian::little) == 0);
      const auto serial = co_await in.receive_int<std::uint32_t>(std::endian::little);
      const auto size = co_await in.receive_int<std::uint32_t>(std::endian::little);
      const std::string fields = co_await in.receive_exactly((size + 7) / 8 * 8);
      co_await answer(s, serial, called_by(std::string_view(fields).substr(0, size)));
    }
  }

 private:
  struct called {
    std::string path, member;
  };
  static called called_by(std::string_view fields) {
    dbus::reader r(fields, std::endian::little);
    called found;
    while (!r.at_end()) {
      r.align(8);
      const int code = r.byte();
      r.signature();
      const std::string_view value = r.text();
      if (code == 1) found.path = value;
      if (code == 3) found.member = value;
    }
    CHECK(!r.failed());
    return found;
  }

  /// The first piece takes the descriptors with it, as the protocol wants.
  static task<> send(unix_stream& s, const letter& l) {
    const std::string bytes = l.bytes();
    const std::size_t first = 1 + sim::draw(bytes.size());
    const std::string_view begin = std::string_view(bytes).substr(0, first);
    if (l.fds.empty()) {
      co_await s.send(begin);
    } else {
      std::vector<int> numbers;
      for (const unique_fd& fd : l.fds) numbers.push_back(fd.get());
      co_await s.send_fds(begin, numbers);
    }
    if (sim::draw(2) == 1) co_await anyio::sleep(1ms);
    co_await s.send(std::string_view(bytes).substr(first));
  }

  /// A descriptor from which the text can be read.
  static task<unique_fd> file_with(std::string text) {
    auto [near, far] = co_await anyio::create_unix_stream_pair();
    co_await near.send(std::move(text));
    co_await near.send_eof();
    unique_fd fd(far.release());
    co_return fd;
  }

  task<> answer(unix_stream& s, std::uint32_t serial, called c) {
    const std::string& name = c.member;
    const std::endian order = sim::draw(2) == 0 ? std::endian::little : std::endian::big;
    for (std::size_t signals = sim::draw(3); signals != 0; --signals) {
      letter noise;
      noise.kind = sim::draw(3) == 1 ? reply_kind : signal_kind;
      if (noise.kind == reply_kind) noise.reply_to = serial + 100;  // to nobody's call
      noise.order = order;
      noise.signature = "s";
      noise.body = encoder(order).text(sim::draw_bytes(90)).bytes();
      if (sim::draw(2) == 1) {
        auto fd = co_await as_result(file_with("of a signal"));
        if (fd) noise.fds.push_back(std::move(*fd));
      }
      noise.said_fds = noise.fds.size();
      co_await send(s, noise);
    }
    letter l;
    l.order = order;
    l.reply_to = serial;
    truth t;
    encoder body(order);
    if (name == "Hello") {
      l.signature = "s";
      body.text(":1.42");
    } else if (name == "Text") {
      const std::string text = sim::draw_bytes(300);
      l.signature = "s";
      body.text(text);
      t.lines = printable(text) + '\n';
    } else if (name == "List") {
      const std::size_t count = sim::draw(5);
      encoder elements(order);
      for (std::size_t i = 0; i < count; ++i) {
        elements.align(4).text(std::to_string(i));
        t.lines += std::to_string(i) + '\n';
      }
      l.signature = "asu";
      body.number(elements.bytes().size()).raw(elements.bytes()).number(7);
      t.lines += "7\n";
    } else if (name == "Numbers") {
      l.signature = "yuibaas";
      body.byte(200).number(4'000'000'000).number(static_cast<std::uint32_t>(-5)).number(1).number(0);
      t.lines = "200\n4000000000\n-5\n1\n";
    } else if (name == "Files" || name == "Liar") {
      const std::size_t count = 1 + sim::draw(3);
      for (std::size_t i = 0; i < count; ++i) {
        const std::string text = sim::draw_bytes(100);
        auto fd = co_await as_result(file_with(text));
        if (!fd) break;
        l.fds.push_back(std::move(*fd));
        l.signature += 'h';
        body.number(i);
        t.lines += printable(text) + '\n';
      }
      l.said_fds = l.fds.size() + (name == "Liar" ? 1 : 0);
    } else if (name == "Fails") {
      l.kind = error_kind;
      l.error_name = t.error_name = "org.example.Error";
    } else if (name == "Cuts") {
      const std::string bytes = l.bytes();
      co_await s.send(std::string_view(bytes).substr(0, 1 + sim::draw(bytes.size() - 1)));
      co_await s.aclose();
      co_return;
    } else {
      co_return;
    }
    l.body = body.bytes();
    t.answered = true;
    truths_[c.path] = t;
    co_await send(s, l);
  }

  truths& truths_;
};

// --- the client

task<std::string> contents(unique_fd& fd) {
  unix_stream s = co_await unix_stream::from_fd(fd.get());
  static_cast<void>(fd.release());
  std::string text;
  for (;;) {
    auto got = co_await as_result(s.receive());
    if (got.error() == errc::end_of_stream) co_return text;
    text += co_await std::move(got);
  }
}

int right, failed;  // calls

task<> call(dbus::bus& b, method m, truths& all, bool may_fail) {
  const std::string path = "/" + std::to_string(all.size());
  truth& t = all[path];
  const std::string name(method_names[static_cast<std::size_t>(m)]);
  auto reply = co_await as_result(anyio::fail_after(25s, b.call("org.example", path, "org.example", name)));
  if (reply) {
    // Replies that say something wrong, or nothing, are none.
    CHECK(t.answered);
    CHECK(m != method::liar);
    CHECK((reply->type == error_kind) == (m == method::fails));
    CHECK(reply->error_name == t.error_name);
    const auto lines = co_await as_result(dbus::values_of(*reply, contents));
    if (lines) CHECK((*lines == t.lines));
    if (!lines) CHECK_MESSAGE(may_fail, lines.error().message());
    ++(lines ? right : failed);
    co_return;
  }
  ++failed;
  CHECK(reply.error() != errc::invalid_argument);
  CHECK(reply.error() != errc::busy_resource);
  if (!may_fail) {
    if (m == method::silent)
      CHECK(reply.error() == errc::timed_out);
    else if (m == method::liar)
      CHECK(reply.error().os_error() == EPROTO);
    else if (m == method::cuts)
      CHECK((reply.error() == errc::incomplete_read || reply.error() == errc::end_of_stream));
    else
      CHECK_MESSAGE(false, name, ": ", reply.error().message());
  }
  co_await anyio::raise(reply.error());
}

/// All of them in turn, or some that are drawn. A connection that failed is not used again.
task<> session(truths& t, bool may_fail, bool all) {
  unix_stream stream = co_await anyio::fail_after(10s, anyio::connect_unix("/run/bus"));
  dbus::bus b(std::move(stream));
  co_await anyio::fail_after(10s, b.authenticate());
  constexpr std::size_t good = static_cast<std::size_t>(method::silent);
  constexpr std::size_t count = static_cast<std::size_t>(method::count);
  for (std::size_t i = 0; i < (all ? good : 4); ++i)
    co_await call(b, static_cast<method>(all ? i : sim::draw(count)), t, may_fail);
}

bool is_from_a_bad_method(const anyio::error& e) {
  return e == errc::timed_out || e.os_error() == EPROTO || e == errc::incomplete_read ||
         e == errc::end_of_stream;
}

task<> dbus_program(std::uint64_t seed) {
  anyio::unix_listener listener;
  while (!listener) {
    auto made = co_await as_result(anyio::create_unix_listener("/run/bus"));
    if (made) listener = std::move(*made);
  }
  truths t;
  daemon d(t);
  anyio::task_group server;
  server.start_soon(
      listener.serve([&d](unix_stream s) { return d.serve(std::move(s)); }, [](const anyio::error&) {}));
  const bool may_fail = support::breaks(support::faults_of(seed));
  for (int i = 0; i < 2; ++i) {
    const auto r = co_await as_result(session(t, may_fail, false));
    if (!may_fail && !r) CHECK_MESSAGE(is_from_a_bad_method(r.error()), r.error().message());
  }
  sim::heal();
  co_await anyio::fail_after(1min, session(t, false, true));
  listener.close();
  co_await anyio::fail_after(1min, server.join());
}

TEST_CASE("sim dbus: a call gets the values and descriptors of its own reply or an error, with any faults") {
  right = failed = 0;
  support::run_seeds(1500, 10min, dbus_program);
  MESSAGE("right " << right << ", failed " << failed);
  CHECK(right > support::some_of(10000));
  CHECK(failed > support::some_of(1000));
}

}  // namespace
