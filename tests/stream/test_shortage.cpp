// ENOBUFS and ENOMEM: the system is short of memory for a while. Streams wait and retry, datagrams report it.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/toy_streams.hpp"
#include "support/ways.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::result;
using support::by_callback;
using support::by_coroutine;
using support::tcp_callback;
using support::tcp_coroutine;
using support::unix_callback;
using support::unix_coroutine;
using support::waiting;

/// Fails the calls of one name a given number of times.
class short_backend final : public support::scripted_backend, private anyio::detail::posix_files {
 public:
  std::string_view call;
  int error_number = ENOBUFS;
  std::size_t failures = 0;
  std::size_t failed = 0;

  int shutdown(int fd, int how) override {
    return fails("shutdown") ? -error_number : scripted_backend::shutdown(fd, how);
  }
  ssize_t receive(int fd, void* data, std::size_t size) override {
    return fails("receive") ? -error_number : scripted_backend::receive(fd, data, size);
  }
  ssize_t send(int fd, const void* data, std::size_t size) override {
    return fails("send") ? -error_number : scripted_backend::send(fd, data, size);
  }
  ssize_t receive_message(int fd, anyio::detail::message& m) override {
    return fails("receive_message") ? -error_number : scripted_backend::receive_message(fd, m);
  }
  ssize_t send_message(int fd, const anyio::detail::message& m) override {
    return fails("send_message") ? -error_number : scripted_backend::send_message(fd, m);
  }
  int receive_messages(int fd, anyio::detail::slice<anyio::detail::message> messages,
                       anyio::detail::slice<std::size_t> sizes, bool& emptied) override {
    if (fails("receive_messages")) return -error_number;
    return scripted_backend::receive_messages(fd, messages, sizes, emptied);
  }
  int send_messages(int fd, anyio::detail::slice<const anyio::detail::message> messages) override {
    return fails("send_messages") ? -error_number : scripted_backend::send_messages(fd, messages);
  }
  anyio::detail::file_service* files() override { return this; }

 private:
  bool fails(std::string_view name) {
    if (name != call || failures == 0) return false;
    --failures;
    ++failed;
    return true;
  }
  ssize_t read(int fd, void* data, std::size_t size) override {
    return fails("read") ? -error_number : posix_files::read(fd, data, size);
  }
  ssize_t write(int fd, anyio::detail::slice<const ::iovec> parts) override {
    return fails("write") ? -error_number : posix_files::write(fd, parts);
  }
  ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override {
    return fails("send_file") ? -error_number : posix_files::send_file(socket, file, offset, count);
  }
};

/// A loop on this backend, whose time is virtual.
struct short_loop {
  short_loop() : short_loop(std::make_unique<short_backend>()) {}
  short_backend& system;
  anyio::loop loop;

  /// From here on this many calls of this name fail.
  void fail(std::string_view call, int error_number, std::size_t times = 3) {
    system.call = call;
    system.error_number = error_number;
    system.failures = times;
    system.failed = 0;
  }
  [[nodiscard]] bool all_failed() const { return system.failures == 0 && system.failed != 0; }

 private:
  explicit short_loop(std::unique_ptr<short_backend> b) : system(*b), loop(std::move(b)) {
    system.virtual_time = true;
  }
};

constexpr std::size_t for_ever = static_cast<std::size_t>(-1);

TEST_CASE_TEMPLATE("a stream waits until the system has memory again, and a shortage never ends it", Way,
                   tcp_callback, tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  constexpr bool is_unix = std::is_same_v<typename Way::kind, support::unix_pair>;
  for (const int e : {ENOBUFS, ENOMEM}) {
    CAPTURE(e);
    short_loop s;
    auto p = by_coroutine::get(Way::kind::pair()).value();

    s.fail("send", e);
    CHECK(face::get(p.first.send("one,")).has_value());
    CHECK(s.all_failed());
    s.fail("send_message", e);
    const anyio::const_buffer parts[] = {"t", "wo,"};
    CHECK(face::get(p.first.send(parts)).has_value());
    CHECK(s.all_failed());
    std::FILE* file = std::tmpfile();
    std::fputs("three", file);
    std::fflush(file);
    s.fail("send_file", e);
    CHECK(face::get(p.first.send_file(::fileno(file), 0, 5)).value_or(0) == 5);
    CHECK(s.all_failed());
    std::fclose(file);

    // Available bytes, and later ones.
    const std::string_view receives = is_unix ? "receive_message" : "receive";
    std::string got;
    s.fail(receives, e);
    while (got.size() < 13) {
      const std::string more = face::get(p.second.receive()).value_or("");
      if (more.empty()) break;
      got += more;
    }
    CHECK(got == "one,two,three");
    CHECK(s.all_failed());
    waiting<std::string> later;
    face::start(p.second.receive(), later);
    support::settle();
    s.fail(receives, e);
    CHECK(face::get(p.first.send("later")).has_value());
    CHECK(later.get().value_or("") == "later");
    CHECK(s.all_failed());

    s.fail("shutdown", e);
    CHECK(face::get(p.first.send_eof()).has_value());
    CHECK(s.all_failed());
    s.fail(receives, e);
    CHECK(face::get(p.second.receive()).error() == errc::end_of_stream);
    CHECK(s.all_failed());
    CHECK(face::get(p.second.send("back")).has_value());
    CHECK(face::get(p.first.receive()).value_or("") == "back");
  }
}

TEST_CASE_TEMPLATE("an orderly close waits for memory too, for send_eof and for reading", Way, tcp_callback,
                   tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  constexpr bool is_unix = std::is_same_v<typename Way::kind, support::unix_pair>;
  for (const std::string_view call : {std::string_view("shutdown"), std::string_view("receive")}) {
    short_loop s;
    auto p = by_coroutine::get(Way::kind::pair()).value();
    CHECK(face::get(p.second.send("unread")).has_value());
    s.fail(is_unix && call == "receive" ? "receive_message" : call, ENOMEM);
    waiting<void> closing;
    face::start(p.first.aclose(), closing);
    support::settle();
    p.second.close();
    CHECK(closing.get().has_value());
    CHECK(s.all_failed());
  }
}

TEST_CASE_TEMPLATE("passing descriptors waits for memory in both directions", Face, by_callback,
                   by_coroutine) {
  for (const int e : {ENOBUFS, ENOMEM}) {
    short_loop s;
    auto p = anyio::create_unix_stream_pair().value();
    const int fds[] = {0};
    s.fail("send_message", e);
    CHECK(Face::get(p.first.send_fds("with", fds)).has_value());
    CHECK(s.all_failed());
    s.fail("receive_message", e);
    auto got = Face::get(p.second.receive_fds(100, 1));
    CHECK(got.value().data == "with");
    CHECK(got.value().fds.size() == 1);
    CHECK(s.all_failed());
    // The peek that looks for the end.
    s.fail("receive_message", e);
    waiting<anyio::fd_message> end;
    Face::start(p.second.receive_fds(0, 1), end);
    support::settle();
    p.first.close();
    CHECK(end.get().error() == errc::end_of_stream);
    CHECK(s.all_failed());
  }
}

TEST_CASE_TEMPLATE("a pipe waits for memory", Face, by_callback, by_coroutine) {
  for (const int e : {ENOBUFS, ENOMEM}) {
    short_loop s;
    int fds[2];
    CHECK(::pipe(fds) == 0);
    auto in = anyio::fd_stream::from_fd(fds[0]).value();
    auto out = anyio::fd_stream::from_fd(fds[1]).value();
    s.fail("write", e);
    CHECK(Face::get(out.send("text")).has_value());
    CHECK(s.all_failed());
    s.fail("read", e);
    CHECK(Face::get(in.receive()).value_or("") == "text");
    CHECK(s.all_failed());
    out.close();
    s.fail("read", e);
    CHECK(Face::get(in.receive()).error() == errc::end_of_stream);
    CHECK(s.all_failed());
  }
}

TEST_CASE_TEMPLATE("waiting for memory retries at growing intervals, and does not spin", Way, tcp_callback,
                   unix_coroutine) {
  using face = typename Way::face;
  short_loop s;
  auto p = by_coroutine::get(Way::kind::pair()).value();
  const auto calls_in = [&](anyio::duration time) {
    s.fail("send", ENOBUFS, for_ever);
    const std::size_t waits = s.system.waits;
    CHECK(face::get(anyio::fail_after(time, p.first.send("x"))).error() == errc::timed_out);
    CHECK(s.system.waits - waits <= 250);
    return s.system.failed;
  };
  const std::size_t of_short_time = calls_in(10ms);
  CHECK(of_short_time >= 3);
  CHECK(of_short_time <= 9);
  const std::size_t of_long_time = calls_in(10s);
  CHECK(of_long_time >= 40);  // a quarter of a second at most
  CHECK(of_long_time <= 60);
  // A shortage that has passed leaves no long pause behind.
  s.fail("send", ENOBUFS, 0);
  CHECK(face::get(p.first.send("y")).has_value());
  CHECK(face::get(anyio::sleep(1s)).has_value());
  s.fail("send", ENOBUFS, 1);
  const auto before = anyio::now();
  CHECK(face::get(p.first.send("z")).has_value());
  CHECK(anyio::now() - before <= 2ms);
}

TEST_CASE_TEMPLATE("a wait for memory is an ordinary wait: busy, cancelled, timed out, destroyed and closed",
                   Way, tcp_callback, tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  short_loop s;
  auto p = by_coroutine::get(Way::kind::pair()).value();
  s.fail("send", ENOMEM, for_ever);
  waiting<void> sending;
  face::start(p.first.send("lost"), sending);
  support::settle();
  CHECK(!sending.done());
  CHECK(face::get(p.first.send("second")).error() == errc::busy_resource);
  // The other direction continues.
  CHECK(::send(p.second.native_handle(), "in", 2, 0) == 2);
  CHECK(face::get(p.first.receive()).value_or("") == "in");
  p.first.cancel();
  CHECK(sending.get().error() == errc::cancelled);
  CHECK(face::get(anyio::fail_after(5ms, p.first.send("x"))).error() == errc::timed_out);
  CHECK(!face::get(anyio::move_on_after(0ms, p.first.send("x"))).value_or(true));
  {
    anyio::send_operation op = p.first.send("withdrawn");
    op.start([](result<>) { CHECK(false); });
    support::settle();
  }
  s.fail("", 0, 0);
  CHECK(face::get(p.first.send("out")).has_value());
  CHECK(face::get(p.second.receive()).value_or("") == "out");
  s.fail("send", ENOMEM, for_ever);
  face::start(p.first.send("closed"), sending);
  support::settle();
  p.first.close();
  CHECK(sending.get().error() == errc::closed_resource);
  CHECK(face::get(p.second.receive()).error() == errc::end_of_stream);
  CHECK(face::get(anyio::sleep(1s)).has_value());  // nothing is pending when the pause ends
}

TEST_CASE("a loop may end while streams wait for memory") {
  std::optional<std::pair<anyio::unix_stream, anyio::unix_stream>> p;
  std::optional<anyio::send_operation> op;
  {
    short_loop s;
    p.emplace(anyio::create_unix_stream_pair().value());
    s.fail("send", ENOBUFS, for_ever);
    op.emplace(p->first.send("x"));
    op->start([](result<>) { CHECK(false); });
    CHECK(by_callback::get(anyio::sleep(20ms)).has_value());
    CHECK(s.system.failed > 2);
    CHECK(s.loop.dump().find("send") != std::string::npos);
  }
  CHECK(!p->first);
}

TEST_CASE("several streams that wait for memory continue together") {
  short_loop s;
  auto p = anyio::create_unix_stream_pair().value();
  auto q = anyio::create_unix_stream_pair().value();
  s.fail("send", ENOBUFS, for_ever);
  waiting<void> first, second;
  by_callback::start(p.first.send("p"), first);
  support::settle();
  by_coroutine::start(q.first.send("q"), second);
  support::settle();
  s.fail("", 0, 0);
  const auto before = anyio::now();
  CHECK(first.get().has_value());
  CHECK(second.get().has_value());
  CHECK(anyio::now() - before <= 2ms);
}

TEST_CASE_TEMPLATE("streams on top of others wait for memory with them", Face, by_callback, by_coroutine) {
  short_loop s;
  {
    auto p = by_coroutine::get(support::tcp::pair()).value();
    anyio::buffered_stream buffered(p.second);
    s.fail("receive", ENOBUFS);
    CHECK(Face::get(p.first.send("a line\n")).has_value());
    CHECK(Face::get(buffered.receive_line()).value_or("") == "a line");
    CHECK(s.all_failed());
    s.fail("send", ENOBUFS);
    CHECK(Face::get(buffered.send("answer")).has_value());
    CHECK(s.all_failed());
  }
  {
    auto p = by_coroutine::get(support::tcp::pair()).value();
    waiting<anyio::tls_stream> serving;
    s.fail("receive", ENOMEM);
    by_callback::start(
        anyio::tls_stream::wrap_server(std::make_unique<anyio::tcp_stream>(std::move(p.second)),
                                       support::toy_server(), support::toy_options()),
        serving);
    auto client =
        Face::get(anyio::tls_stream::wrap_client(std::make_unique<anyio::tcp_stream>(std::move(p.first)),
                                                 support::toy_client(), support::toy_options()));
    auto server = serving.get();
    CHECK(s.all_failed());
    s.fail("send", ENOBUFS);
    CHECK(Face::get(client.value().send("hidden")).has_value());
    CHECK(s.all_failed());
    s.fail("receive", ENOBUFS);
    CHECK(Face::get(server.value().receive()).value_or("") == "hidden");
    CHECK(s.all_failed());
  }
}

TEST_CASE_TEMPLATE("a datagram socket reports a shortage, and stays usable", Face, by_callback,
                   by_coroutine) {
  for (const int e : {ENOBUFS, ENOMEM}) {
    CAPTURE(e);
    short_loop s;
    auto a = anyio::udp_socket::open(support::loopback()).value();
    auto b = anyio::udp_socket::open(support::loopback()).value();
    const auto reported = [e](const anyio::error& got) {
      return got == errc::os_error && got.os_error() == e;
    };
    s.fail("send_message", e, 1);
    CHECK(reported(Face::get(a.send_to("x", b.local_endpoint())).error()));
    CHECK(Face::get(a.send_to("one", b.local_endpoint())).has_value());
    s.fail("receive_message", e, 1);
    CHECK(reported(Face::get(b.receive()).error()));
    CHECK(Face::get(b.receive()).value().data == "one");

    anyio::udp_batch batch(4);
    CHECK(batch.push("two", b.local_endpoint()));
    s.fail("send_messages", e, 1);
    CHECK(reported(Face::get(a.send_batch(batch)).error()));
    CHECK(Face::get(a.send_batch(batch)).value_or(0) == 1);
    s.fail("receive_messages", e, 1);
    CHECK(reported(Face::get(b.receive_batch(batch)).error()));
    CHECK(Face::get(b.receive_batch(batch)).value_or(0) == 1);
  }
}

}  // namespace
