// A gathered send of very many pieces: its cost is linear, none of its attempts takes long, and lent buffers
// are kept. For each kind of stream, by callbacks and by coroutines.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/toy_streams.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::byte_stream;
using anyio::const_buffer;
using anyio::errc;
using anyio::result;
using anyio::task;
using support::by_callback;
using support::by_coroutine;
using support::waiting;

struct ends {
  std::unique_ptr<byte_stream> a, b;
};
template <class Stream>
ends boxed(std::pair<Stream, Stream>&& p) {
  return {std::make_unique<Stream>(std::move(p.first)), std::make_unique<Stream>(std::move(p.second))};
}

/// Few bytes in flight, so that a sender soon waits.
void narrow(ends& e, int size = 4096) {
  CHECK(e.a->socket()->set_option(SOL_SOCKET, SO_SNDBUF, size).has_value());
  CHECK(e.b->socket()->set_option(SOL_SOCKET, SO_RCVBUF, size).has_value());
}

struct over_tcp {
  static ends make() {
    ends e = boxed(by_coroutine::get(support::tcp::pair()).value());
    narrow(e, 32768);  // with less there are pauses
    return e;
  }
};
struct over_unix {
  static ends make() {
    ends e = boxed(anyio::create_unix_stream_pair().value());
    narrow(e);
    return e;
  }
};
struct over_pipe {
  static ends make() {
    int fds[2];
    CHECK(::pipe(fds) == 0);
    return boxed(
        std::pair(anyio::fd_stream::from_fd(fds[1]).value(), anyio::fd_stream::from_fd(fds[0]).value()));
  }
};
struct over_memory {
  static ends make() { return boxed(anyio::create_memory_stream_pair()); }
};
struct over_buffered {
  static ends make() {
    ends inner = over_unix::make();
    return {std::make_unique<anyio::buffered_stream>(std::move(inner.a)),
            std::make_unique<anyio::buffered_stream>(std::move(inner.b))};
  }
};
struct over_tls {
  static ends make() { return boxed(support::toy_pair()); }
};
struct over_tls_sockets {
  static ends make() {
    ends e = boxed(support::toy_socket_pair());
    narrow(e);
    return e;
  }
};
template <class Kind, class Face>
struct in_face {
  using kind = Kind;
  using face = Face;
};
#define ANYIO_NET_KINDS_BUT_TCP(Face)                                             \
  in_face<over_unix, Face>, in_face<over_pipe, Face>, in_face<over_memory, Face>, \
      in_face<over_buffered, Face>, in_face<over_tls, Face>, in_face<over_tls_sockets, Face>
#define ANYIO_NET_KINDS(Face) in_face<over_tcp, Face>, ANYIO_NET_KINDS_BUT_TCP(Face)

/// A text split into pieces of 0 to 9 bytes.
struct cut {
  std::string text;
  std::vector<const_buffer> parts;

  explicit cut(std::size_t count) {
    std::size_t size = 0;
    for (std::size_t i = 0; i < count; ++i) size += size_of(i);
    for (std::size_t i = 0; text.size() < size; ++i) text += std::to_string(i) + ",";
    text.resize(size);
    std::size_t at = 0;
    for (std::size_t i = 0; i < count; ++i) {
      parts.emplace_back(text.data() + at, size_of(i));
      at += size_of(i);
    }
  }
  static std::size_t size_of(std::size_t i) { return i * 7 % 10; }
  [[nodiscard]] std::span<const const_buffer> view() const { return parts; }
};

/// Reads this many bytes.
std::string read(byte_stream& from, std::size_t size) {
  std::string got;
  while (got.size() < size) {
    const auto r = by_callback::get(from.receive(std::min<std::size_t>(size - got.size(), 65536)));
    if (!r.has_value()) break;
    got += *r;
  }
  return got;
}

/// Starts an operation that the test owns.
template <class Face>
void start(anyio::send_operation& op, std::optional<result<void>>& outcome) {
  if constexpr (std::is_same_v<Face, by_callback>) {
    op.start([&outcome](result<void> r) { outcome = std::move(r); });
  } else {
    const auto await = [](anyio::send_operation& o, std::optional<result<void>>& out) -> task<> {
      out = co_await anyio::as_result(o);
    };
    await(op, outcome).start([](result<>) {});
  }
}

/// How many times other tasks ran.
struct counter {
  std::size_t turns = 0;
  bool stop = false;
  void go() {
    if (stop) return;
    ++turns;
    anyio::loop::current().post([this] { go(); });
  }
};

TEST_CASE_TEMPLATE("a gathered send of very many pieces arrives whole, and others run meanwhile", T,
                   ANYIO_NET_KINDS(by_callback), ANYIO_NET_KINDS(by_coroutine)) {
  anyio::loop loop;
  ends e = T::kind::make();
  const cut all(30000);
  counter c;
  c.go();
  waiting<void> sent;
  T::face::start(e.a->send(all.view()), sent);
  CHECK((read(*e.b, all.text.size()) == all.text));
  CHECK(sent.get().has_value());
  c.stop = true;
  support::settle();
  CHECK(c.turns >= all.parts.size() / 1200);
}

TEST_CASE_TEMPLATE("millions of empty pieces are skipped over many turns", T, ANYIO_NET_KINDS(by_callback),
                   ANYIO_NET_KINDS(by_coroutine)) {
  anyio::loop loop;
  ends e = T::kind::make();
  std::vector<const_buffer> parts(200000);
  const std::span<const const_buffer> view(parts);
  counter c;
  c.go();
  // Only empty pieces, then with some bytes at both ends and in the middle.
  CHECK(T::face::get(e.a->send(view)).has_value());
  parts[0] = const_buffer("first");
  parts[100000] = const_buffer("middle");
  parts[199999] = const_buffer("last");
  waiting<void> sent;
  T::face::start(e.a->send(view), sent);
  CHECK(read(*e.b, 15) == "firstmiddlelast");
  CHECK(sent.get().has_value());
  c.stop = true;
  support::settle();
  CHECK(c.turns >= 2 * parts.size() / 1100);
}

TEST_CASE_TEMPLATE("pieces already sent are not read again", T, ANYIO_NET_KINDS(by_callback),
                   ANYIO_NET_KINDS(by_coroutine)) {
  anyio::loop loop;
  ends e = T::kind::make();
  cut all(60000);
  const std::string text = all.text;
  anyio::send_operation op = e.a->send(all.view());
  std::optional<result<void>> outcome;
  start<typename T::face>(op, outcome);
  std::string got;
  std::size_t spoilt = 0;
  std::size_t before = 0;  // bytes of the pieces that are overwritten
  int stages = 0;
  while (!outcome) {
    support::settle();
    for (; spoilt < all.parts.size() && before + cut::size_of(spoilt) <= op.sent(); ++spoilt) {
      before += cut::size_of(spoilt);
      all.parts[spoilt] = const_buffer(text.data(), std::size_t{1} << 20);
    }
    ++stages;
    got += read(*e.b, std::min<std::size_t>(20000, text.size() - got.size()));
  }
  got += read(*e.b, text.size() - got.size());
  CHECK(outcome->has_value());
  CHECK(op.sent() == text.size());
  CHECK((got == text));
  CHECK(stages > 3);
}

TEST_CASE_TEMPLATE("a cancelled gathered send reports how much was sent, and restarts from the beginning", T,
                   ANYIO_NET_KINDS(by_callback), ANYIO_NET_KINDS(by_coroutine)) {
  anyio::loop loop;
  ends e = T::kind::make();
  const cut all(60000);
  anyio::send_operation op = e.a->send(all.view());
  std::optional<result<void>> outcome;
  start<typename T::face>(op, outcome);
  support::settle();
  CHECK_FALSE(outcome.has_value());
  anyio::detail::stream_access::resource_of(*e.a)->cancel();
  support::settle();
  CHECK((outcome && outcome->error() == errc::cancelled));
  const std::size_t sent = op.sent();
  CHECK(sent > 0);
  CHECK(sent < all.text.size());
  CHECK((read(*e.b, sent) == all.text.substr(0, sent)));
  for (int i = 0; i < 2; ++i) {
    outcome.reset();
    start<typename T::face>(op, outcome);
    CHECK((read(*e.b, all.text.size()) == all.text));
    support::settle();
    CHECK((outcome && outcome->has_value()));
    CHECK(op.sent() == all.text.size());
  }
}

/// Fills the stream from one end, and returns the number of bytes in flight.
std::size_t clog(byte_stream& s) {
  static const std::string much(std::size_t{64} << 20, '.');
  anyio::send_operation filling = s.send(much);
  filling.start([](result<void>) {});
  support::settle();
  return filling.sent();
}

// Not over TCP, which accepts some more after a while.
TEST_CASE_TEMPLATE("lent buffers of a gathered send are kept, with few pieces and with very many", T,
                   ANYIO_NET_KINDS_BUT_TCP(by_callback), ANYIO_NET_KINDS_BUT_TCP(by_coroutine)) {
  for (const std::size_t count : {std::size_t{0}, std::size_t{3}, std::size_t{200}, std::size_t{5000}}) {
    for (const std::size_t size : {std::size_t{7}, std::size_t{200000}}) {
      if (count > 3 && size > 7) continue;
      CAPTURE(count);
      CAPTURE(size);
      anyio::loop loop;
      ends e = T::kind::make();
      auto source = anyio::create_unix_stream_pair().value();
      auto other = anyio::create_unix_stream_pair().value();
      const std::size_t before = clog(*e.a);
      CHECK(::send(source.first.native_handle(), "lent", 4, 0) == 4);
      std::string own;
      while (own.size() < size) own += std::to_string(own.size()) + ";";
      own.resize(size);
      std::vector<const_buffer> parts(count, const_buffer(own));
      waiting<void> sent;
      if constexpr (std::is_same_v<typename T::face, by_callback>) {
        source.second.receive_view().start([&](result<std::string_view> r) {
          parts.insert(parts.begin() + static_cast<std::ptrdiff_t>(count / 2), const_buffer(*r));
          parts.emplace_back(*r);
          by_callback::start(e.a->send(std::span<const const_buffer>(parts)), sent);
        });
      } else {
        const auto forward = [](byte_stream& from, byte_stream& to,
                                std::vector<const_buffer>& all) -> task<> {
          const std::string_view view = co_await from.receive_view();
          all.insert(all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2), const_buffer(view));
          all.emplace_back(view);
          co_await to.send(std::span<const const_buffer>(all));
        };
        by_coroutine::start(forward(source.second, *e.a, parts), sent);
      }
      support::settle();
      CHECK_FALSE(sent.done());
      // The next receive overwrites the loop's buffer.
      CHECK(::send(other.first.native_handle(), "OTHER OTHER", 11, 0) == 11);
      CHECK(by_callback::get(other.second.receive_view()).has_value());
      std::string expected;
      for (std::size_t i = 0; i < count; ++i) {
        if (i == count / 2) expected += "lent";
        expected += own;
      }
      if (count == 0) expected += "lent";
      expected += "lent";
      CHECK(read(*e.b, before) == std::string(before, '.'));
      CHECK((read(*e.b, expected.size()) == expected));
      CHECK(sent.get().has_value());
    }
  }
}

TEST_CASE("a view kept by a gathered send stays valid for the caller") {
  anyio::loop loop;
  ends e = over_unix::make();
  auto source = anyio::create_unix_stream_pair().value();
  clog(*e.a);
  CHECK(::send(source.first.native_handle(), "lent", 4, 0) == 4);
  std::string seen;
  std::vector<const_buffer> parts(1000, const_buffer("x"));
  source.second.receive_view().start([&](result<std::string_view> r) {
    parts.emplace_back(*r);
    {
      anyio::send_operation op = e.a->send(std::span<const const_buffer>(parts));
      op.start([](result<void>) {});
    }
    seen = *r;
  });
  support::settle();
  CHECK(seen == "lent");
}

TEST_CASE("a gathered send makes only the system calls that its pieces and bytes need") {
  support::scripted_loop s;
  auto pair = anyio::create_unix_stream_pair().value();
  const cut all(64 * 200);
  s.system.sends = 0;
  waiting<void> sent;
  by_callback::start(pair.first.send(all.view()), sent);
  CHECK((read(pair.second, all.text.size()) == all.text));
  CHECK(sent.get().has_value());
  CHECK(s.system.sends <= 2 * 200);
}

}  // namespace
