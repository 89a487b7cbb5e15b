// Copying from one stream to another, and relaying between two.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/faces.hpp"
#include "support/passed_files.hpp"
#include "support/sockets.hpp"
#include "support/toy_streams.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::byte_stream;
using anyio::errc;
using anyio::relay_result;
using support::by_callback;
using support::by_coroutine;
using support::open_count;
using support::waiting;

std::string pattern(std::size_t size, std::uint32_t state = 1) {
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return text;
}

struct memory {
  using stream = anyio::memory_stream;
  static std::pair<stream, stream> make() { return anyio::create_memory_stream_pair(3000); }
};
template <class Kind>
struct sockets {
  using stream = typename Kind::stream;
  static std::pair<stream, stream> make() { return by_coroutine::get(Kind::pair()).value(); }
};
/// A socket within another stream, whose bytes go through memory.
struct buffered {
  using stream = anyio::buffered_stream;
  static std::pair<stream, stream> make() {
    auto p = sockets<support::unix_pair>::make();
    return {stream(std::make_unique<anyio::unix_stream>(std::move(p.first))),
            stream(std::make_unique<anyio::unix_stream>(std::move(p.second)))};
  }
};

/// A relay between `a.second` and `b.first`, with a peer at either end.
template <class A, class B>
struct stage_of {
  anyio::loop loop;
  std::pair<typename A::stream, typename A::stream> a = A::make();
  std::pair<typename B::stream, typename B::stream> b = B::make();
  byte_stream& left = a.first;
  byte_stream& right = b.second;

  anyio::relay_operation relay(anyio::relay_options o = {}) { return anyio::relay(a.second, b.first, o); }
};

template <class Left, class Right, class Way>
struct case_of {
  using stage = stage_of<Left, Right>;
  using face = Way;
};
struct tls {
  using stream = anyio::tls_stream;
  static std::pair<stream, stream> make() { return support::toy_socket_pair(); }
};
using tcp = sockets<support::tcp>;
using local = sockets<support::unix_pair>;
#define EACH_KIND                                                                                          \
  case_of<memory, memory, by_callback>, case_of<tcp, tcp, by_callback>, case_of<tcp, local, by_coroutine>, \
      case_of<local, tcp, by_coroutine>, case_of<local, memory, by_callback>,                              \
      case_of<tls, tcp, by_callback>, case_of<local, tls, by_coroutine>,                                   \
      case_of<buffered, tcp, by_coroutine>, case_of<tcp, buffered, by_callback>

anyio::task<> send_and_end(byte_stream& to, std::string text) {
  co_await to.send(text);
  co_await to.send_eof();
}
anyio::task<std::string> all_of(byte_stream& from) {
  std::string all;
  for (;;) {
    auto r = co_await as_result(from.receive());
    if (!r) {
      if (r.error() != errc::end_of_stream) co_await anyio::raise(r.error());
      co_return all;
    }
    all += *r;
  }
}

TEST_CASE_TEMPLATE("a relay moves bytes in both directions until both have ended", Case, EACH_KIND) {
  using face = typename Case::face;
  for (const std::size_t size : {0u, 1u, 3000u, 100000u, 3000000u}) {
    typename Case::stage s;
    const std::string there = pattern(size, 1);
    const std::string back = pattern(size / 2, 2);
    waiting<relay_result> relaying;
    face::start(s.relay(), relaying);
    auto [n1, n2, got_right, got_left] =
        by_coroutine::get(anyio::when_all(send_and_end(s.left, there), send_and_end(s.right, back),
                                          all_of(s.right), all_of(s.left)))
            .value();
    CHECK((got_right == there));
    CHECK((got_left == back));
    const relay_result r = relaying.get().value();
    CHECK(r.a_to_b == there.size());
    CHECK(r.b_to_a == back.size());
    CHECK(s.a.second);
    CHECK(s.b.first);
  }
}

TEST_CASE_TEMPLATE("the end of one side is passed on at once, and the other side goes on", Case, EACH_KIND) {
  using face = typename Case::face;
  for (const bool left_first : {true, false}) {
    typename Case::stage s;
    byte_stream& first = left_first ? s.left : s.right;
    byte_stream& second = left_first ? s.right : s.left;
    waiting<relay_result> relaying;
    face::start(s.relay(), relaying);
    CHECK(face::get(first.send("question")).has_value());
    CHECK(face::get(first.send_eof()).has_value());
    CHECK(by_coroutine::get(all_of(second)).value_or("") == "question");
    support::settle();
    CHECK(!relaying.done());
    CHECK(face::get(second.send("answer")).has_value());
    CHECK(face::get(first.receive()).value_or("") == "answer");
    CHECK(face::get(second.send("!")).has_value());
    CHECK(face::get(second.send_eof()).has_value());
    CHECK(by_coroutine::get(all_of(first)).value_or("") == "!");
    const relay_result r = relaying.get().value();
    CHECK((left_first ? r.a_to_b : r.b_to_a) == 8);
    CHECK((left_first ? r.b_to_a : r.a_to_b) == 7);
  }
}

TEST_CASE_TEMPLATE("copy moves all bytes, and half-closes nothing", Case, EACH_KIND) {
  using face = typename Case::face;
  for (const std::size_t size : {0u, 1u, 2000000u}) {
    typename Case::stage s;
    const std::string text = pattern(size);
    waiting<std::uint64_t> copying;
    face::start(anyio::copy(s.a.second, s.b.first), copying);
    waiting<void> sending;
    by_coroutine::start(send_and_end(s.left, text), sending);
    std::string got;
    while (got.size() < size) got += face::get(s.right.receive()).value_or("");
    CHECK((got == text));
    CHECK(copying.get().value_or(1) == size);
    CHECK(face::get(s.b.first.send("still open")).has_value());
    CHECK(face::get(s.right.receive()).value_or("") == "still open");
    CHECK(sending.get().has_value());
  }
}

TEST_CASE_TEMPLATE("a stream can be copied to itself", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  auto p = tcp::make();
  waiting<std::uint64_t> echoing;
  Face::start(anyio::copy(p.second, p.second), echoing);
  const std::string text = pattern(1000000);
  waiting<void> sending;
  by_coroutine::start(send_and_end(p.first, text), sending);
  std::string got;
  while (got.size() < text.size()) got += Face::get(p.first.receive()).value_or("");
  CHECK((got == text));
  CHECK(echoing.get().value_or(0) == text.size());
}

// --- errors

TEST_CASE_TEMPLATE("an error of either side ends the relay", Face, by_callback, by_coroutine) {
  for (const int which : {0, 1}) {
    stage_of<tcp, tcp> s;
    waiting<relay_result> relaying;
    Face::start(s.relay(), relaying);
    support::settle();
    (which == 0 ? s.a.first : s.b.second).abort();
    const anyio::error e = relaying.get().error();
    CHECK(e == errc::broken_resource);
    CHECK(e == std::errc::connection_reset);
    CHECK(e.operation() == "receive");
  }
  stage_of<memory, memory> s;
  waiting<relay_result> relaying;
  Face::start(s.relay(), relaying);
  support::settle();
  s.b.second.close();
  CHECK(Face::get(s.left.send("nobody is there")).has_value());
  CHECK(relaying.get().error() == errc::broken_resource);
}

TEST_CASE_TEMPLATE("closing a stream ends its relay and its copy", Case, EACH_KIND) {
  using face = typename Case::face;
  for (const int which : {0, 1}) {
    typename Case::stage s;
    waiting<relay_result> relaying;
    face::start(s.relay(), relaying);
    support::settle();
    if (which == 0) s.a.second.close();
    if (which == 1) s.b.first.close();
    CHECK(relaying.get().error() == errc::closed_resource);
    CHECK(face::get(s.relay()).error() == errc::closed_resource);
    CHECK(face::get(anyio::copy(s.a.second, s.b.first)).error() == errc::closed_resource);
  }
}

TEST_CASE_TEMPLATE("a relay is the reader and the writer of both streams", Case, EACH_KIND) {
  using face = typename Case::face;
  typename Case::stage s;
  {
    waiting<std::string> reading;
    face::start(s.a.second.receive(), reading);
    support::settle();
    CHECK(face::get(s.relay()).error() == errc::busy_resource);
    CHECK(face::get(s.left.send("x")).has_value());
    CHECK(reading.get().value_or("") == "x");
  }
  waiting<relay_result> relaying;
  face::start(s.relay(), relaying);
  support::settle();
  CHECK(face::get(s.a.second.receive()).error() == errc::busy_resource);
  CHECK(face::get(s.a.second.send("x")).error() == errc::busy_resource);
  CHECK(face::get(s.b.first.receive()).error() == errc::busy_resource);
  CHECK(face::get(s.b.first.send("x")).error() == errc::busy_resource);
  CHECK(face::get(s.left.send("unharmed")).has_value());
  CHECK(face::get(s.right.receive()).value_or("") == "unharmed");
}

TEST_CASE("relays that cannot begin") {
  anyio::loop loop;
  auto p = memory::make();
  anyio::tcp_stream closed;
  CHECK(by_callback::get(anyio::relay(p.first, closed)).error() == errc::closed_resource);
  CHECK(by_callback::get(anyio::copy(closed, p.first)).error() == errc::closed_resource);
  CHECK(by_callback::get(anyio::relay_operation()).error() == errc::invalid_argument);
  CHECK(by_callback::get(anyio::copy_operation()).error() == errc::invalid_argument);
  CHECK(by_callback::get(p.first.send_eof()).has_value());
  auto q = memory::make();
  CHECK(by_callback::get(anyio::relay(p.first, q.first)).error() == errc::closed_resource);
  CHECK(by_callback::get(anyio::copy(q.first, p.first)).error() == errc::closed_resource);
  q.second.close();
  CHECK(by_callback::get(anyio::copy(q.first, q.first)).value_or(1) == 0);
}

TEST_CASE("a stream that cannot be half-closed is told by the end of the relay") {
  anyio::loop loop;
  int fds[2];
  CHECK(::pipe(fds) == 0);
  const anyio::unique_fd reading(fds[0]);
  anyio::fd_stream end = anyio::fd_stream::from_fd(fds[1]).value();  // its own direction never ends
  auto p = memory::make();
  waiting<std::uint64_t> copying;
  by_callback::start(anyio::copy(p.second, end), copying);
  CHECK(by_callback::get(p.first.send("bytes")).has_value());
  support::settle();
  char room[5];
  CHECK(::read(fds[0], room, 5) == 5);
  CHECK(by_callback::get(p.first.send_eof()).has_value());
  CHECK(copying.get().value_or(0) == 5);
}

TEST_CASE_TEMPLATE("the end of a side ends the relay if TLS 1.2 cannot pass it on", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  auto inner = anyio::create_unix_stream_pair().value();
  auto client = support::toy_client();
  auto server = support::toy_server();
  client->version = server->version = "TLSv1.2";
  auto secure = support::shake_hands(std::make_unique<anyio::unix_stream>(std::move(inner.first)),
                                     std::make_unique<anyio::unix_stream>(std::move(inner.second)),
                                     support::toy_options(), client, server);
  auto plain = memory::make();
  waiting<relay_result> relaying;
  Face::start(anyio::relay(secure.second, plain.first), relaying);
  CHECK(Face::get(secure.first.send("question")).has_value());
  CHECK(Face::get(plain.second.receive()).value_or("") == "question");
  CHECK(Face::get(plain.second.send("all of the answer")).has_value());
  CHECK(Face::get(plain.second.send_eof()).has_value());
  const relay_result r = relaying.get().value();
  CHECK(r.a_to_b == 8);
  CHECK(r.b_to_a == 17);
  CHECK(Face::get(secure.first.receive()).value_or("") == "all of the answer");
  secure.second.close();
  CHECK(Face::get(secure.first.receive()).error() == errc::end_of_stream);
}

// --- cancelling

TEST_CASE_TEMPLATE("a destroyed relay leaves the streams usable, and takes nothing more", Case, EACH_KIND) {
  using face = typename Case::face;
  typename Case::stage s;
  {
    anyio::relay_operation op = s.relay();
    op.start([](anyio::result<relay_result>) { CHECK(false); });
    CHECK(face::get(s.left.send("before ")).has_value());
    CHECK(face::get(s.right.receive()).value_or("") == "before ");
  }
  CHECK(face::get(s.left.send("after")).has_value());
  CHECK(face::get(s.a.second.receive()).value_or("") == "after");
  CHECK(face::get(s.b.first.send("by hand")).has_value());
  CHECK(face::get(s.right.receive()).value_or("") == "by hand");
}

TEST_CASE_TEMPLATE("a cancelled relay that is started again continues, and loses nothing", Face, by_callback,
                   by_coroutine) {
  stage_of<tcp, tcp> s;
  const std::string text = pattern(4000000);
  waiting<void> sending;
  by_coroutine::start(send_and_end(s.left, text), sending);
  anyio::relay_operation op = s.relay();
  std::string got;
  int cancelled = 0;
  const auto run = [&] {
    op.start([&](anyio::result<relay_result> r) {
      CHECK(r.error() == errc::cancelled);
      ++cancelled;
    });
  };
  for (int i = 0; i < 20; ++i) {
    run();
    support::settle();  // all pipes and buffers are full
    s.a.second.cancel();
    support::settle();
    got += Face::get(s.right.receive()).value_or("");
  }
  CHECK(cancelled == 20);
  anyio::relay_result end;
  op.start([&end](anyio::result<relay_result> r) { end = r.value_or(relay_result()); });
  CHECK(Face::get(s.right.send_eof()).has_value());
  got += by_coroutine::get(all_of(s.right)).value();
  CHECK((got == text));
  support::settle();
  CHECK(end.a_to_b == text.size());
}

// --- the idle limit

/// A loop whose clock moves only when nothing else happens.
struct quiet_stage {
  support::scripted_loop loop;
  std::pair<anyio::memory_stream, anyio::memory_stream> a = anyio::create_memory_stream_pair(10);
  std::pair<anyio::memory_stream, anyio::memory_stream> b = anyio::create_memory_stream_pair(10);
  anyio::time_point begin;

  quiet_stage() {
    loop.system.virtual_time = true;
    begin = anyio::now();
  }
  anyio::duration passed() const { return anyio::now() - begin; }
};

TEST_CASE_TEMPLATE("a relay in which no byte moves times out", Face, by_callback, by_coroutine) {
  quiet_stage s;
  const auto r = Face::get(anyio::relay(s.a.second, s.b.first, {.idle = 10s}));
  CHECK(r.error() == errc::timed_out);
  CHECK(r.error().operation() == "relay");
  CHECK(s.passed() >= 10s);
  CHECK(s.passed() < 11s);
  const auto at_once = Face::get(anyio::relay(s.a.second, s.b.first, {.idle = 0s}));
  CHECK(at_once.error() == errc::timed_out);
  CHECK(s.passed() < 11s);
}

anyio::task<> drip(byte_stream& to, int count) {
  for (int i = 0; i < count; ++i) {
    co_await anyio::sleep(8s);
    co_await to.send("x");
  }
}

TEST_CASE_TEMPLATE("a byte in either direction begins the idle time anew", Face, by_callback, by_coroutine) {
  for (const bool left : {true, false}) {
    quiet_stage s;
    waiting<relay_result> relaying;
    Face::start(anyio::relay(s.a.second, s.b.first, {.idle = 10s}), relaying);
    CHECK(Face::get(drip(left ? s.a.first : s.b.second, 4)).has_value());
    CHECK(!relaying.done());
    CHECK(relaying.get().error() == errc::timed_out);
    CHECK(s.passed() >= 42s);  // ten seconds after the last byte
    CHECK(s.passed() < 43s);
  }
}

anyio::task<> sip(byte_stream& from, int count) {
  char room[2];
  for (int i = 0; i < count; ++i) {
    co_await anyio::sleep(8s);
    co_await from.receive(room);
  }
}

TEST_CASE_TEMPLATE("a part of a slow send counts as progress", Face, by_callback, by_coroutine) {
  quiet_stage s;
  CHECK(Face::get(s.a.first.send("0123456789")).has_value());
  waiting<relay_result> relaying;
  Face::start(anyio::relay(s.a.second, s.b.first, {.idle = 10s}), relaying);
  support::settle();
  CHECK(Face::get(s.a.first.send("abcdefghij")).has_value());  // taken whole, but there is no room for it
  CHECK(Face::get(sip(s.b.second, 4)).has_value());
  CHECK(!relaying.done());
  CHECK(relaying.get().error() == errc::timed_out);
  CHECK(s.passed() >= 42s);
  CHECK(s.passed() < 43s);
}

// --- inside the kernel

#if defined(__linux__)

class splice_backend : public support::scripted_backend, public anyio::detail::posix_splices {
 public:
  int pipe_error = 0;
  int in_error = 0;
  int out_error = 0;
  std::uint64_t in_bytes = 0;
  int pipes = 0;

  anyio::detail::splice_service* splices() override { return this; }
  int open_pipe(int (&fds)[2]) override {
    if (pipe_error != 0) return -pipe_error;
    ++pipes;
    return posix_splices::open_pipe(fds);
  }
  ssize_t splice_in(int socket, int pipe, std::size_t most) override {
    if (in_error != 0) return -std::exchange(in_error, 0);
    const ssize_t n = posix_splices::splice_in(socket, pipe, most);
    if (n > 0) in_bytes += static_cast<std::uint64_t>(n);
    return n;
  }
  ssize_t splice_out(int pipe, int socket, std::size_t most) override {
    if (out_error != 0) return -std::exchange(out_error, 0);
    return posix_splices::splice_out(pipe, socket, most);
  }
};

template <class A, class B>
struct splice_stage {
  splice_stage() : splice_stage(std::make_unique<splice_backend>()) {}

  splice_backend& system;
  anyio::loop loop;
  std::pair<typename A::stream, typename A::stream> a = A::make();
  std::pair<typename B::stream, typename B::stream> b = B::make();

  anyio::result<std::string> transfer(const std::string& text) {
    waiting<std::uint64_t> copying;
    by_callback::start(anyio::copy(a.second, b.first), copying);
    waiting<void> sending;
    by_coroutine::start(send_and_end(a.first, text), sending);
    std::string got;
    while (got.size() < text.size()) {
      auto r = by_callback::get(b.second.receive());
      if (!r) return r.error();
      got += *r;
    }
    const auto n = copying.get();
    if (!n) return n.error();
    CHECK(*n == text.size());
    return got;
  }

 private:
  explicit splice_stage(std::unique_ptr<splice_backend> s) : system(*s), loop(std::move(s)) {}
};

template <class Left, class Right>
struct kinds {
  using stage = splice_stage<Left, Right>;
};
#define EACH_PAIR_OF_SOCKETS kinds<tcp, tcp>, kinds<tcp, local>, kinds<local, tcp>, kinds<local, local>

TEST_CASE_TEMPLATE("many bytes between sockets stay in the kernel, and the pipe is closed at the end", Kinds,
                   EACH_PAIR_OF_SOCKETS) {
  typename Kinds::stage s;
  const std::size_t before = open_count();
  const std::string text = pattern(8000000);
  const auto got = s.transfer(text);
  CHECK((got.value_or("") == text));
  CHECK(s.system.pipes == 1);
  CHECK(s.system.in_bytes >= text.size() * 9 / 10);
  CHECK(open_count() == before);
}

TEST_CASE_TEMPLATE("what splice refuses goes through memory, and nothing is lost", Kinds,
                   EACH_PAIR_OF_SOCKETS) {
  const std::string text = pattern(3000000);
  for (const int e : {EINVAL, ENOSYS, EPERM}) {
    for (const int call : {0, 1, 2}) {
      typename Kinds::stage s;
      (call == 0 ? s.system.pipe_error : call == 1 ? s.system.in_error : s.system.out_error) = e;
      const std::size_t before = open_count();
      const auto got = s.transfer(text);
      CHECK((got.value_or("") == text));
      CHECK(open_count() == before);
    }
  }
  typename Kinds::stage s;
  s.system.pipe_error = EMFILE;
  CHECK((s.transfer(text).value_or("") == text));
}

TEST_CASE_TEMPLATE("errors of splice are those of the connection", Kinds, EACH_PAIR_OF_SOCKETS) {
  const std::string text = pattern(3000000);
  for (const bool in : {true, false}) {
    typename Kinds::stage s;
    waiting<std::uint64_t> copying;
    by_callback::start(anyio::copy(s.a.second, s.b.first), copying);
    (in ? s.system.in_error : s.system.out_error) = ETIMEDOUT;
    waiting<void> sending;
    by_coroutine::start(send_and_end(s.a.first, text), sending);
    waiting<std::string> reading;
    by_coroutine::start(all_of(s.b.second), reading);
    const anyio::error e = copying.get().error();
    CHECK(e == errc::broken_resource);
    CHECK(e == std::errc::timed_out);
    CHECK(e.operation() == (in ? "receive" : "send"));
    s.b.first.close();
    s.a.second.close();
    static_cast<void>(reading.get());
    static_cast<void>(sending.get());
  }
}

TEST_CASE("a peer that goes away while bytes are in the pipe raises no signal") {
  splice_stage<tcp, tcp> s;
  waiting<relay_result> relaying;
  by_callback::start(anyio::relay(s.a.second, s.b.first), relaying);
  waiting<void> sending;
  by_coroutine::start(send_and_end(s.a.first, pattern(8000000)), sending);
  support::settle();
  CHECK(s.system.pipes == 1);
  s.b.second.abort();
  CHECK(relaying.get().error() == errc::broken_resource);
  s.a.second.close();
  static_cast<void>(sending.get());
}

TEST_CASE("urgent data does not stop a relay") {
  splice_stage<tcp, tcp> s;
  waiting<std::uint64_t> copying;
  by_callback::start(anyio::copy(s.a.second, s.b.first), copying);
  const std::string text = pattern(300000);
  const auto pass = [&] {
    waiting<void> sending;
    by_coroutine::start(s.a.first.send(text), sending);
    std::string got;
    while (got.size() < text.size()) got += by_callback::get(s.b.second.receive()).value_or("");
    CHECK((got == text));
    CHECK(sending.get().has_value());
  };
  pass();
  CHECK(s.system.pipes == 1);
  for (int i = 0; i < 3; ++i) {
    CHECK(::send(s.a.first.native_handle(), "!", 1, MSG_OOB) == 1);
    pass();
  }
}

TEST_CASE("few bytes at a time go through memory, and many again through a pipe") {
  splice_stage<tcp, tcp> s;
  const std::size_t before = open_count();
  waiting<std::uint64_t> copying;
  by_callback::start(anyio::copy(s.a.second, s.b.first), copying);
  const auto pass = [&](std::size_t size) {
    const std::string text = pattern(size);
    waiting<void> sending;
    by_coroutine::start(s.a.first.send(text), sending);
    std::string got;
    while (got.size() < size) got += by_callback::get(s.b.second.receive()).value_or("");
    CHECK((got == text));
  };
  for (int i = 0; i < 50; ++i) pass(100);
  CHECK(s.system.pipes == 0);
  pass(1000000);
  CHECK(s.system.pipes == 1);
  CHECK(open_count() == before + 2);
  for (int i = 0; i < 50; ++i) pass(100);
  CHECK(open_count() == before);
  pass(1000000);
  CHECK(s.system.pipes == 2);
}

TEST_CASE("sockets that another process made blocking do not block a relay") {
  splice_stage<tcp, tcp> s;
  waiting<std::uint64_t> copying;
  by_callback::start(anyio::copy(s.a.second, s.b.first), copying);
  for (const int fd : {s.a.second.native_handle(), s.b.first.native_handle()})
    CHECK(::fcntl(fd, F_SETFL, 0) == 0);
  waiting<void> sending;
  by_coroutine::start(send_and_end(s.a.first, pattern(20000000)), sending);
  for (int i = 0; i < 10; ++i) {
    for (const int fd : {s.a.second.native_handle(), s.b.first.native_handle()})
      CHECK(::fcntl(fd, F_SETFL, 0) == 0);
    support::settle();  // both directions are full: a call that blocks would never return
    CHECK(by_callback::get(s.b.second.receive()).has_value());
  }
}

#endif

}  // namespace
