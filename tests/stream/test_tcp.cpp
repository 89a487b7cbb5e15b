// Connected stream sockets, TCP and UNIX, in both forms of use.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/custom_backend.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"
#include "support/ways.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::result;
using anyio::task;
using support::by_callback;
using support::by_coroutine;
using support::tcp_callback;
using support::tcp_coroutine;
using support::unix_callback;
using support::unix_coroutine;
using support::waiting;

template <class Kind>
auto connected() {
  return by_coroutine::get(Kind::pair()).value();
}

/// Receives until an error, which is returned, and keeps the bytes.
template <class Face, class Stream>
anyio::error drain(Stream& s, std::string& got) {
  for (;;) {
    result<std::string> r = Face::get(s.receive());
    if (!r) return r.error();
    got += *r;
  }
}

TEST_CASE_TEMPLATE("data and the end in one event are reported in order, and the end every time", Way,
                   tcp_callback, tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  waiting<std::string> w;
  face::start(p.second.receive(), w);
  support::settle();
  CHECK(face::get(p.first.send("last words")).has_value());
  p.first.close();
  CHECK(w.get().value_or("") == "last words");
  for (int i = 0; i < 3; ++i) CHECK(face::get(p.second.receive()).error() == errc::end_of_stream);
  char buffer[4];
  CHECK(face::get(p.second.receive(buffer)).error() == errc::end_of_stream);
  CHECK(face::get(p.second.receive_view()).error() == errc::end_of_stream);
}

TEST_CASE_TEMPLATE("unrequested bytes stay in the kernel, and are read in pieces of the requested size", Way,
                   tcp_callback, tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  CHECK(face::get(p.first.send("abcdefgh")).has_value());
  support::settle();
  char buffer[3];
  CHECK(face::get(p.second.receive(buffer)).value_or(0) == 3);
  CHECK(std::string(buffer, 3) == "abc");
  CHECK(face::get(p.second.receive(2)).value_or("") == "de");
  CHECK(face::get(p.second.receive_view()).value_or("") == "fgh");
  waiting<std::string> w;
  face::start(p.second.receive(), w);
  support::settle();
  CHECK(!w.done());
  CHECK(face::get(p.first.send("i")).has_value());
  CHECK(w.get().value_or("") == "i");
}

TEST_CASE_TEMPLATE("each direction ends independently", Way, tcp_callback, tcp_coroutine, unix_callback,
                   unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  CHECK(face::get(p.first.send("question")).has_value());
  CHECK(face::get(p.first.send_eof()).has_value());
  CHECK(face::get(p.first.send_eof()).has_value());
  CHECK(face::get(p.first.send("more")).error() == errc::closed_resource);
  CHECK(face::get(p.first.send("")).error() == errc::closed_resource);
  std::string got;
  CHECK(drain<face>(p.second, got) == errc::end_of_stream);
  CHECK(got == "question");
  CHECK(face::get(p.second.send("answer")).has_value());
  CHECK(face::get(p.first.receive()).value_or("") == "answer");
  CHECK(face::get(p.second.send_eof()).has_value());
  CHECK(face::get(p.first.receive()).error() == errc::end_of_stream);
  p.first.close();
  CHECK(face::get(p.first.send_eof()).error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("10 MB arrive unchanged, sent plain or gathered", Way, tcp_callback, tcp_coroutine,
                   unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  std::string big(10 << 20, '\0');
  for (std::size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 2654435761u >> 13);
  std::vector<anyio::const_buffer> parts;
  const std::string_view view(big);
  for (std::size_t i = 0; i < big.size(); i += 70001) {
    parts.emplace_back(view.substr(i, 70001));
    parts.emplace_back();
  }
  waiting<void> sending;
  face::start(p.first.send(big), sending);
  std::string got;
  while (got.size() < big.size()) got += face::get(p.second.receive(1 << 20)).value_or("");
  CHECK(sending.get().has_value());
  CHECK(got == big);
  face::start(p.first.send(parts), sending);
  got.clear();
  while (got.size() < big.size()) got += face::get(p.second.receive()).value_or("");
  CHECK(sending.get().has_value());
  CHECK(got == big);
}

TEST_CASE_TEMPLATE("closing ends a pending receive and a pending send with closed_resource", Way,
                   tcp_callback, tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  support::fill(p.first);
  char buffer[8];
  waiting<std::size_t> receiving;
  waiting<void> sending;
  face::start(p.first.receive(buffer), receiving);
  face::start(p.first.send("x"), sending);
  support::settle();
  CHECK(!receiving.done());
  CHECK(!sending.done());
  const int fd = p.first.native_handle();
  p.first.close();
  CHECK(!support::is_open(fd));
  CHECK(p.first.native_handle() == -1);
  CHECK(!p.first);
  CHECK(!receiving.done());
  CHECK(receiving.get().error() == errc::closed_resource);
  CHECK(sending.get().error() == errc::closed_resource);
  p.first.close();
}

TEST_CASE("closing takes precedence over a result that was not delivered yet") {
  anyio::loop loop;
  // Both are reported in one turn, and the first one closes the other.
  struct end {
    anyio::tcp_stream& mine;
    anyio::tcp_stream& other;
    int delivered = 0;
    int closed = 0;
    void callback() {
      mine.receive().start([this](result<std::string> r) { came(r); });
    }
    task<> coroutine() { came(co_await anyio::as_result(mine.receive())); }
    void came(const result<std::string>& r) {
      if (r.has_value()) {
        ++delivered;
        other.close();
      } else {
        CHECK(r.error() == errc::closed_resource);
        ++closed;
      }
    }
  };
  for (const bool by_tasks : {false, true}) {
    auto p = connected<support::tcp>();
    auto q = connected<support::tcp>();
    end first{p.second, q.second}, second{q.second, p.second};
    for (end* e : {&first, &second}) {
      if (by_tasks) {
        e->coroutine().start([](result<>) {});
      } else {
        e->callback();
      }
    }
    support::settle();
    CHECK(::send(p.first.native_handle(), "x", 1, 0) == 1);
    CHECK(::send(q.first.native_handle(), "x", 1, 0) == 1);
    loop.run();
    CHECK(first.delivered + second.delivered == 1);
    CHECK(first.closed + second.closed == 1);
  }
}

TEST_CASE_TEMPLATE("aclose ends pending operations, drains the input, and does not reset", Way, tcp_callback,
                   tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  waiting<std::string> receiving;
  face::start(p.first.receive(), receiving);
  CHECK(face::get(p.first.send("goodbye")).has_value());
  waiting<void> closing;
  face::start(p.first.aclose(), closing);
  support::settle();
  CHECK(receiving.get().error() == errc::closed_resource);
  CHECK(!p.first);
  CHECK(face::get(p.first.receive()).error() == errc::closed_resource);
  CHECK(!closing.done());
  // Unread input would make the kernel answer the close with a reset, which drops the last bytes.
  CHECK(face::get(p.second.send("never read")).has_value());
  support::settle();
  CHECK(!closing.done());
  std::string got;
  CHECK(drain<face>(p.second, got) == errc::end_of_stream);
  CHECK(got == "goodbye");
  p.second.close();
  CHECK(closing.get().has_value());
  CHECK(face::get(p.first.aclose()).has_value());
}

TEST_CASE_TEMPLATE("aclose waits at most a second for the peer, and closes when it is destroyed", Kind,
                   support::tcp, support::unix_pair) {
  support::scripted_loop s;
  auto p = connected<Kind>();
  s.system.virtual_time = true;
  const auto before = anyio::now();
  CHECK(by_coroutine::get(p.first.aclose()).has_value());
  CHECK(anyio::now() - before >= 1s);
  CHECK(anyio::now() - before < 1100ms);
  CHECK(p.first.native_handle() == -1);
  const int fd = p.second.native_handle();
  {
    auto q = connected<Kind>();
    anyio::aclose_operation closing = q.first.aclose();
    const int other = q.first.native_handle();
    closing.start([](result<>) {});
    support::settle();
    CHECK(support::is_open(other));
    closing = {};
    CHECK(!support::is_open(other));
  }
  // The second of two finds the first pending.
  waiting<void> first, second;
  by_callback::start(p.second.aclose(), first);
  by_callback::start(p.second.aclose(), second);
  CHECK(second.get().has_value());
  CHECK(first.get().has_value());
  CHECK(!support::is_open(fd));
}

TEST_CASE_TEMPLATE("close ends a pending aclose", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  waiting<void> closing;
  Face::start(p.first.aclose(), closing);
  support::settle();
  CHECK(!closing.done());
  p.first.close();
  CHECK(closing.get().has_value());
  waiting<void> another;
  Face::start(p.second.aclose(), another);  // the peer has closed
  CHECK(another.get().has_value());
}

TEST_CASE_TEMPLATE(
    "a second receive or send is busy_resource, the first continues; errors have a fixed order", Way,
    tcp_callback, tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  waiting<std::string> first;
  face::start(p.first.receive(), first);
  support::settle();
  char buffer[1];
  CHECK(face::get(p.first.receive()).error() == errc::busy_resource);
  CHECK(face::get(p.first.receive(buffer)).error() == errc::busy_resource);
  CHECK(face::get(p.first.receive_view()).error() == errc::busy_resource);
  CHECK(face::get(p.first.receive(0)).error() == errc::invalid_argument);
  CHECK(face::get(p.first.receive(anyio::mutable_buffer())).error() == errc::invalid_argument);
  CHECK(face::get(p.second.send("one")).has_value());
  CHECK(first.get().value_or("") == "one");

  const std::size_t on_the_way = support::fill(p.first);
  waiting<void> sending;
  face::start(p.first.send("two"), sending);
  support::settle();
  CHECK(face::get(p.first.send("three")).error() == errc::busy_resource);
  CHECK(face::get(p.first.send("")).error() == errc::busy_resource);
  CHECK(face::get(p.first.send_eof()).error() == errc::busy_resource);
  std::size_t got = 0;
  while (got < on_the_way + 3) got += face::get(p.second.receive(1 << 20)).value_or("").size();
  CHECK(sending.get().has_value());

  p.first.close();
  CHECK(face::get(p.first.receive(0)).error() == errc::invalid_argument);
  CHECK(face::get(p.first.receive(buffer)).error() == errc::closed_resource);
  CHECK(face::get(p.first.send("")).error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("two receives that start in one turn do not both become the reader", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  waiting<std::string> first, second;
  Face::start(p.first.receive(), first);
  Face::start(p.first.receive(), second);
  CHECK(second.get().error() == errc::busy_resource);
  CHECK(Face::get(p.second.send("x")).has_value());
  CHECK(first.get().value_or("") == "x");
}

TEST_CASE_TEMPLATE("cancel ends pending operations with cancelled, and the stream stays usable", Way,
                   tcp_callback, tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  p.first.cancel();  // nothing is pending
  waiting<std::string> receiving;
  waiting<void> sending;
  const std::size_t on_the_way = support::fill(p.first);
  face::start(p.first.receive(), receiving);
  face::start(p.first.send("x"), sending);
  support::settle();
  p.first.cancel();
  CHECK(!receiving.done());
  CHECK(receiving.get().error() == errc::cancelled);
  CHECK(sending.get().error() == errc::cancelled);
  std::size_t got = 0;
  while (got < on_the_way) got += face::get(p.second.receive(1 << 20)).value_or("").size();
  CHECK(got == on_the_way);
  // An available result is delivered.
  face::start(p.first.receive(), receiving);
  support::settle();
  CHECK(::send(p.second.native_handle(), "there", 5, 0) == 5);
  p.first.cancel();
  CHECK(receiving.get().value_or("") == "there");
  CHECK(face::get(p.first.send("y")).has_value());
  CHECK(face::get(p.second.receive()).value_or("") == "y");
}

TEST_CASE("bytes that arrived before a reset are delivered first, then every call reports it") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  CHECK(by_coroutine::get(p.first.send("before")).has_value());
  support::reset(p.first);
  std::string got;
  for (int i = 0; i < 3; ++i) {
    const anyio::error e = drain<by_callback>(p.second, got);
    CHECK(e == errc::broken_resource);
    CHECK(e.os_error() == ECONNRESET);
  }
  CHECK(got == "before");
  const anyio::error e = by_coroutine::get(p.second.send("x")).error();
  CHECK(e == errc::broken_resource);
  CHECK(e.os_error() == ECONNRESET);
  CHECK(by_coroutine::get(p.second.send_eof()).error() == errc::broken_resource);
  CHECK(p.second);
  p.second.close();
  CHECK(by_coroutine::get(p.second.receive()).error() == errc::closed_resource);
  CHECK(by_coroutine::get(p.second.send("x")).error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("a send_eof after a reset reports it, and later calls report it too", Face, by_callback,
                   by_coroutine) {
  const auto is_reset = [](const anyio::error& e) {
    return e == errc::broken_resource && e.os_error() == ECONNRESET;
  };
  for (const bool bytes_before : {false, true}) {
    CAPTURE(bytes_before);
    anyio::loop loop;
    auto p = connected<support::tcp>();
    if (bytes_before) CHECK(Face::get(p.first.send("before")).has_value());
    support::reset(p.first);
    CHECK(is_reset(Face::get(p.second.send_eof()).error()));
    CHECK(is_reset(Face::get(p.second.send_eof()).error()));
    std::string got;
    CHECK(is_reset(drain<Face>(p.second, got)));
    CHECK(is_reset(drain<Face>(p.second, got)));
    CHECK(got == (bytes_before ? "before" : ""));
    CHECK(is_reset(Face::get(p.second.send("x")).error()));
    std::FILE* file = std::tmpfile();
    std::fputs("text", file);
    std::fflush(file);
    CHECK(is_reset(Face::get(p.second.send_file(::fileno(file), 0, 4)).error()));
    std::fclose(file);
    CHECK(Face::get(p.second.aclose()).has_value());
  }
}

TEST_CASE("a send_eof during a receive: both report the reset") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  waiting<std::string> receiving;
  by_coroutine::start(p.second.receive(), receiving);
  support::settle();
  support::reset(p.first);
  // Started before the loop is told of the reset.
  const anyio::error e = by_callback::get(p.second.send_eof()).error();
  CHECK(e == errc::broken_resource);
  CHECK(e.os_error() == ECONNRESET);
  CHECK(receiving.get().error() == std::errc::connection_reset);

  auto q = connected<support::tcp>();
  support::reset(q.first);
  const anyio::error both =
      by_callback::get(anyio::when_all(q.second.send_eof(), q.second.receive())).error();
  CHECK(both == errc::broken_resource);
  CHECK(both.os_error() == ECONNRESET);
  CHECK(by_callback::get(q.second.receive()).error() == std::errc::connection_reset);
}

TEST_CASE("sending a file after a reset reports the reset") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  support::reset(p.first);
  std::FILE* file = std::tmpfile();
  std::fputs("text", file);
  std::fflush(file);
  CHECK(by_callback::get(p.second.send_file(::fileno(file), 0, 4)).error() == std::errc::connection_reset);
  CHECK(by_callback::get(p.second.receive()).error() == std::errc::connection_reset);
  std::fclose(file);
}

/// Calls of one name fail with an errno, although the connection is intact.
class failing_backend final : public support::scripted_backend, private anyio::detail::posix_files {
 public:
  int send_file_error = 0;
  int shutdown_error = 0;
  int receive_error = 0;
  int shutdown(int fd, int how) override {
    return shutdown_error != 0 ? -shutdown_error : scripted_backend::shutdown(fd, how);
  }
  ssize_t receive(int fd, void* data, std::size_t size) override {
    return receive_error != 0 ? -receive_error : scripted_backend::receive(fd, data, size);
  }
  anyio::detail::file_service* files() override { return this; }

 private:
  ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override {
    return send_file_error != 0 ? -send_file_error : posix_files::send_file(socket, file, offset, count);
  }
};
struct failing_loop {
  failing_loop() : failing_loop(std::make_unique<failing_backend>()) {}
  failing_backend& system;
  anyio::loop loop;

 private:
  explicit failing_loop(std::unique_ptr<failing_backend> b) : system(*b), loop(std::move(b)) {}
};

TEST_CASE_TEMPLATE("an error of the connection during send_file is not reported as an error of the file", Way,
                   tcp_callback, tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  for (const int e : {ECONNABORTED, EHOSTUNREACH, ENETUNREACH, ENETDOWN, EHOSTDOWN, ETIMEDOUT, ECONNRESET,
                      ECONNREFUSED, EPIPE, EPROTO, ENOTCONN}) {
    CAPTURE(e);
    failing_loop s;
    auto p = connected<typename Way::kind>();
    CHECK(face::get(p.second.send("before")).has_value());
    s.system.send_file_error = e;
    const anyio::error failed = face::get(p.first.send_file(0, 0, 5)).error();
    CHECK(failed == errc::broken_resource);
    CHECK(failed.os_error() == e);
    CHECK(failed.operation() == std::string_view("send_file"));
    s.system.send_file_error = 0;
    CHECK(face::get(p.first.receive()).value_or("") == "before");
    p.second.close();
    const anyio::error end = face::get(p.first.receive()).error();
    // EPIPE and ENOTCONN of a UNIX socket also follow an orderly close.
    const bool orderly =
        std::is_same_v<typename Way::kind, support::unix_pair> && (e == EPIPE || e == ENOTCONN);
    CHECK(end == (orderly ? errc::end_of_stream : errc::broken_resource));
    CHECK(end.os_error() == (orderly ? 0 : e));
  }
}

TEST_CASE_TEMPLATE("an error of the file leaves the stream unchanged", Way, tcp_callback, tcp_coroutine,
                   unix_callback, unix_coroutine) {
  using face = typename Way::face;
  failing_loop s;
  auto p = connected<typename Way::kind>();
  for (const int e : {EBADF, EINVAL, EIO, EOVERFLOW, ESPIPE, EISDIR, EACCES, EPERM, ENXIO, ENODEV, ESTALE}) {
    CAPTURE(e);
    s.system.send_file_error = e;
    const anyio::error failed = face::get(p.first.send_file(0, 0, 5)).error();
    CHECK(failed == errc::os_error);
    CHECK(failed.os_error() == e);
  }
  s.system.send_file_error = EOPNOTSUPP;
  CHECK(face::get(p.first.send_file(0, 0, 5)).error() == errc::not_supported);
  s.system.send_file_error = 0;
  // Real errors: not open, a directory, a pipe.
  const int directory = ::open("/", O_RDONLY | O_CLOEXEC);
  int pipe_fds[2];
  CHECK(::pipe(pipe_fds) == 0);
  for (const int fd : {-1, directory, pipe_fds[0]})
    CHECK(face::get(p.first.send_file(fd, 0, 5)).error() == errc::os_error);
  for (const int fd : {directory, pipe_fds[0], pipe_fds[1]}) ::close(fd);
  CHECK(face::get(p.first.send("goes on")).has_value());
  CHECK(face::get(p.second.receive()).value_or("") == "goes on");
  CHECK(face::get(p.second.send_eof()).has_value());
  CHECK(face::get(p.first.receive()).error() == errc::end_of_stream);
}

TEST_CASE("a later errno that names the cause replaces one that does not") {
  failing_loop s;
  auto p = connected<support::tcp>();
  s.system.shutdown_error = ENOTCONN;
  CHECK(by_callback::get(p.second.send_eof()).error() == std::errc::not_connected);
  s.system.receive_error = ETIMEDOUT;
  CHECK(by_callback::get(p.second.receive()).error() == std::errc::timed_out);
  s.system.receive_error = ECONNRESET;
  CHECK(by_callback::get(p.second.receive()).error() == std::errc::timed_out);
  CHECK(by_callback::get(p.second.send_eof()).error() == std::errc::timed_out);

  // The end of a UNIX stream is end_of_stream, whatever a send_eof reported.
  auto q = connected<support::unix_pair>();
  q.first.close();
  CHECK(by_callback::get(q.second.send_eof()).error() == std::errc::not_connected);
  CHECK(by_callback::get(q.second.receive()).error() == errc::end_of_stream);
}

TEST_CASE("a reset ends a pending receive and a pending send") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  support::fill(p.second);
  waiting<std::string> receiving;
  waiting<void> sending;
  by_callback::start(p.second.receive(), receiving);
  by_callback::start(p.second.send("x"), sending);
  support::settle();
  support::reset(p.first);
  CHECK(receiving.get().error() == errc::broken_resource);
  CHECK(sending.get().error() == errc::broken_resource);
}

TEST_CASE("aclose of a stream that was reset succeeds") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  support::reset(p.first);
  support::settle();
  CHECK(by_coroutine::get(p.second.aclose()).has_value());
}

TEST_CASE_TEMPLATE("sending to a closed peer breaks within a few sends, and never raises SIGPIPE", Way,
                   tcp_callback, tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  std::signal(SIGPIPE, SIG_DFL);
  auto p = connected<typename Way::kind>();
  p.first.close();
  anyio::error sent;
  for (int i = 0; i < 100 && sent == errc::ok; ++i) sent = face::get(p.second.send("anybody there?")).error();
  CHECK(sent == errc::broken_resource);
  CHECK(sent.os_error() != 0);
  const anyio::const_buffer parts[] = {"a", "b"};
  CHECK(face::get(p.second.send(parts)).error() == errc::broken_resource);
  std::FILE* file = std::tmpfile();
  std::fputs("text", file);
  std::fflush(file);
  CHECK(face::get(p.second.send_file(::fileno(file), 0, 4)).error() == errc::broken_resource);
  std::fclose(file);
}

TEST_CASE_TEMPLATE("after end_of_stream a receive still returns it, even when a send breaks later", Kind,
                   support::tcp, support::unix_pair) {
  anyio::loop loop;
  auto p = connected<Kind>();
  p.first.close();
  CHECK(by_coroutine::get(p.second.receive()).error() == errc::end_of_stream);
  for (int i = 0; i < 100 && by_coroutine::get(p.second.send("x")).has_value(); ++i) support::settle();
  CHECK(by_coroutine::get(p.second.receive()).error() == errc::end_of_stream);
}

TEST_CASE_TEMPLATE("an empty send succeeds on an open stream, and sends nothing", Way, tcp_callback,
                   tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  CHECK(face::get(p.first.send("")).has_value());
  CHECK(face::get(p.first.send(std::string())).has_value());
  CHECK(face::get(p.first.send(std::span<const anyio::const_buffer>())).has_value());
  const anyio::const_buffer empties[3];
  CHECK(face::get(p.first.send(empties)).has_value());
  CHECK(face::get(p.first.send("x")).has_value());
  CHECK(face::get(p.second.receive()).value_or("") == "x");
}

TEST_CASE("a moved-in string is kept until it is sent") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  std::size_t on_the_way = support::fill(p.first);
  waiting<void> sending;
  by_callback::start(p.first.send(std::string("short")), sending);
  support::settle();
  std::string got;
  while (got.size() < on_the_way + 5) got += by_callback::get(p.second.receive(1 << 20)).value_or("");
  CHECK(sending.get().has_value());
  CHECK(got.substr(on_the_way) == "short");
}

TEST_CASE("a send continues after short writes, and sent() returns the progress of a cancelled one") {
  support::scripted_loop s;
  auto p = connected<support::tcp>();
  s.system.send_limit = 1000;
  const std::string text(100000, 't');
  waiting<void> sending;
  by_callback::start(p.first.send(text), sending);
  std::size_t got = 0;
  while (got < text.size()) got += by_callback::get(p.second.receive()).value_or("").size();
  CHECK(sending.get().has_value());
  CHECK(s.system.sends >= 100);

  s.system.send_limit = static_cast<std::size_t>(-1);
  const std::string much(64 << 20, 'm');
  anyio::send_operation op = p.first.send(much);
  op.start([](result<>) {});
  support::settle();
  const std::size_t sent = op.sent();
  CHECK(sent > 0);
  CHECK(sent < much.size());
  p.first.cancel();
  support::settle();
  CHECK(op.sent() == sent);
  CHECK(by_callback::get(p.first.send_eof()).has_value());
  std::string all;
  CHECK(drain<by_callback>(p.second, all) == errc::end_of_stream);
  CHECK(all.size() == sent);
}

TEST_CASE("a named operation can be used repeatedly, and assigning to a pending one cancels it") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  char buffer[16];
  std::size_t got = 0;
  anyio::receive_operation receiving = p.second.receive(buffer);
  anyio::send_operation sending = p.first.send("abc");
  for (int i = 0; i < 3; ++i) {
    receiving.start([&got](result<std::size_t> r) { got += r.value_or(0); });
    sending.start([](result<> r) { CHECK(r.has_value()); });
    loop.run();
  }
  CHECK(got == 9);
  bool called = false;
  receiving.start([&called](result<std::size_t>) { called = true; });
  support::settle();
  receiving = {};
  CHECK(by_callback::get(p.first.send("kept")).has_value());
  CHECK(!called);
  CHECK(by_callback::get(p.second.receive()).value_or("") == "kept");
  result<std::size_t> r;
  receiving.start([&r](result<std::size_t> outcome) { r = outcome; });
  loop.run();
  CHECK(r.error() == errc::invalid_argument);
}

TEST_CASE("a receive destroyed after its bytes arrived, but before delivery, loses none") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  {
    anyio::receive_string_operation op = p.second.receive();
    op.start([](result<std::string>) { CHECK(false); });
    support::settle();
    // In one callback: the bytes arrive, and the poller is asked only afterwards.
    loop.post([&] {
      CHECK(::send(p.first.native_handle(), "kept", 4, 0) == 4);
      loop.post([&] { op = {}; });
    });
    support::settle();
  }
  CHECK(by_callback::get(p.second.receive()).value_or("") == "kept");
}

TEST_CASE("a stream can be moved while operations are pending, and the assigned-over one is closed") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  auto q = connected<support::tcp>();
  waiting<std::string> receiving, other;
  by_callback::start(p.second.receive(), receiving);
  by_callback::start(q.second.receive(), other);
  support::settle();
  anyio::tcp_stream moved = std::move(p.second);
  CHECK(!p.second);  // NOLINT(bugprone-use-after-move)
  CHECK(p.second.native_handle() == -1);
  CHECK(by_callback::get(p.second.receive()).error() == errc::closed_resource);
  CHECK(moved);
  q.second = std::move(moved);
  CHECK(other.get().error() == errc::closed_resource);
  CHECK(by_callback::get(p.first.send("still")).has_value());
  CHECK(receiving.get().value_or("") == "still");
  CHECK(q.second.remote_endpoint() == p.first.local_endpoint());
  q.second = std::move(*&q.second);  // to itself: no effect
  CHECK(q.second);
}

TEST_CASE("a default-constructed stream is closed") {
  anyio::loop loop;
  anyio::tcp_stream s;
  CHECK(!s);
  CHECK(s.native_handle() == -1);
  CHECK(s.release() == -1);
  CHECK(s.local_endpoint() == anyio::ip_endpoint());
  CHECK(by_callback::get(s.receive()).error() == errc::closed_resource);
  CHECK(by_callback::get(s.receive(0)).error() == errc::invalid_argument);
  CHECK(by_callback::get(s.send("x")).error() == errc::closed_resource);
  CHECK(by_callback::get(s.send_eof()).error() == errc::closed_resource);
  CHECK(by_callback::get(s.send_file(0, 0, 1)).error() == errc::closed_resource);
  CHECK(by_callback::get(s.aclose()).has_value());
  CHECK(s.set_option(SOL_SOCKET, SO_KEEPALIVE, 1).error() == errc::closed_resource);
  CHECK(s.get_option(SOL_SOCKET, SO_KEEPALIVE).error() == errc::closed_resource);
  s.close();
  s.cancel();
}

TEST_CASE("release returns the open descriptor, and ends pending operations") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  waiting<std::string> receiving;
  by_callback::start(p.second.receive(), receiving);
  support::settle();
  const int fd = p.second.release();
  CHECK(fd >= 0);
  CHECK(!p.second);
  CHECK(p.second.release() == -1);
  CHECK(receiving.get().error() == errc::closed_resource);
  CHECK(support::is_open(fd));
  // It has left the poller, so that it can be adopted again.
  anyio::tcp_stream again = anyio::tcp_stream::from_fd(fd).value();
  CHECK(again.remote_endpoint() == p.first.local_endpoint());
  CHECK(by_callback::get(p.first.send("x")).has_value());
  CHECK(by_callback::get(again.receive()).value_or("") == "x");
}

TEST_CASE("release keeps the descriptor's mode, or restores blocking mode if it was adopted so") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  int fd = p.second.release(true);
  CHECK(support::is_non_blocking(fd));  // the library's own sockets are always non-blocking
  CHECK(::fcntl(fd, F_SETFL, 0) == 0);
  fd = anyio::tcp_stream::from_fd(fd).value().release();
  CHECK(support::is_non_blocking(fd));
  CHECK(::fcntl(fd, F_SETFL, 0) == 0);
  fd = anyio::tcp_stream::from_fd(fd).value().release(true);
  CHECK(!support::is_non_blocking(fd));
  ::close(fd);
  int fds[2];
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  for (const int end : fds) {
    CHECK(anyio::unix_stream::from_fd(end).value().release(true) == end);
    CHECK(!support::is_non_blocking(end));
    ::close(end);
  }
  CHECK(anyio::tcp_stream().release(true) == -1);
}

TEST_CASE_TEMPLATE("from_fd adopts a connection that was reset: its bytes are delivered, then it is broken",
                   Face, by_callback, by_coroutine) {
  anyio::loop loop;
  for (const char* bytes : {"last words", ""}) {
    CAPTURE(bytes);
    auto p = connected<support::tcp>();
    CHECK(by_callback::get(p.first.send(bytes)).has_value());
    const anyio::ip_endpoint local = p.second.local_endpoint();
    const int fd = p.second.release();
    support::reset(p.first);
    pollfd hung_up{fd, 0, 0};
    CHECK(::poll(&hung_up, 1, 10000) == 1);
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    CHECK(::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0);
    result<anyio::tcp_stream> taken = anyio::tcp_stream::from_fd(fd);
    CHECK(taken.has_value());
    if (!taken) {
      ::close(fd);
      continue;
    }
    CHECK(taken->local_endpoint() == local);
    std::string got;
    for (int i = 0; i < 2; ++i) {
      const anyio::error e = drain<Face>(*taken, got);
      CHECK(e == errc::broken_resource);
      CHECK(e == std::errc::connection_reset);
    }
    CHECK(got == bytes);
  }
}

TEST_CASE("endpoints are known after either end has closed") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  CHECK(p.first.local_endpoint() == p.second.remote_endpoint());
  CHECK(p.first.remote_endpoint() == p.second.local_endpoint());
  CHECK(p.first.remote_endpoint().address == anyio::ip_address::loopback_v4());
  const anyio::ip_endpoint here = p.second.local_endpoint(), there = p.second.remote_endpoint();
  support::reset(p.first);
  support::settle();
  CHECK(p.second.remote_endpoint() == there);
  p.second.close();
  CHECK(p.second.remote_endpoint() == there);
  CHECK(p.second.local_endpoint() == here);
}

TEST_CASE("every socket is close-on-exec, non-blocking and TCP_NODELAY") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  auto u = connected<support::unix_pair>();
  for (int fd : {p.first.native_handle(), p.second.native_handle(), u.first.native_handle(),
                 u.second.native_handle()}) {
    CHECK(support::is_close_on_exec(fd));
    CHECK(support::is_non_blocking(fd));
  }
  CHECK(p.first.get_option(IPPROTO_TCP, TCP_NODELAY).value_or(0) != 0);
  CHECK(p.second.get_option(IPPROTO_TCP, TCP_NODELAY).value_or(0) != 0);
  CHECK(p.first.set_no_delay(false).has_value());
  CHECK(p.first.get_option(IPPROTO_TCP, TCP_NODELAY).value_or(1) == 0);
  CHECK(p.first.socket() == &p.first);
}

TEST_CASE("options and keep-alive are set, rejected and read") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  CHECK(p.first.set_option(SOL_SOCKET, SO_RCVBUF, 8192).has_value());
  CHECK(p.first.get_option(SOL_SOCKET, SO_RCVBUF).value_or(0) >= 8192);
  CHECK(p.first.set_option(SOL_SOCKET, -77, 1).error() == errc::os_error);
  CHECK(p.first.get_option(SOL_SOCKET, -77).error() == std::errc::no_protocol_option);
  CHECK(p.first.set_keep_alive(30s, 5s, 4).has_value());
  CHECK(p.first.get_option(SOL_SOCKET, SO_KEEPALIVE).value_or(0) != 0);
#if defined(TCP_KEEPIDLE)
  CHECK(p.first.get_option(IPPROTO_TCP, TCP_KEEPIDLE).value_or(0) == 30);
#endif
  CHECK(p.first.get_option(IPPROTO_TCP, TCP_KEEPINTVL).value_or(0) == 5);
  CHECK(p.first.get_option(IPPROTO_TCP, TCP_KEEPCNT).value_or(0) == 4);
  CHECK(p.first.set_keep_alive(0s, 5s, 4).error() == errc::invalid_argument);
  CHECK(p.first.set_keep_alive(30s, 5s, 0).error() == errc::invalid_argument);
  CHECK(p.first.set_keep_alive(std::chrono::hours(24 * 365 * 100), 5s, 1).error() == errc::invalid_argument);
}

#if !defined(__FreeBSD__) && !defined(__NetBSD__)  // their kqueue does not report it
TEST_CASE("out-of-band data splits reads, and none of the bytes waits for another event") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  const int sender = p.first.native_handle();
  waiting<std::string> receiving;
  by_callback::start(p.second.receive(), receiving);
  support::settle();
  // All bytes arrive before the poller is asked.
  CHECK(::send(sender, "ab", 2, 0) == 2);
  CHECK(::send(sender, "!", 1, MSG_OOB) == 1);
  CHECK(::send(sender, "cd", 2, 0) == 2);
  std::string got = receiving.get().value_or("");
  while (got.size() < 4) {
    const std::string more = by_callback::get(p.second.receive()).value_or("");
    CHECK(!more.empty());
    if (more.empty()) break;
    got += more;
  }
  CHECK(got == "abcd");
  CHECK(by_callback::get(p.first.send("ef")).has_value());
  CHECK(by_callback::get(p.second.receive()).value_or("") == "ef");
}
#endif

TEST_CASE_TEMPLATE("a file is sent from the given offset, and until its end", Way, tcp_callback,
                   tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  anyio::loop loop;
  auto p = connected<typename Way::kind>();
  std::FILE* file = std::tmpfile();
  const int fd = ::fileno(file);
  std::string text(8 << 20, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
  CHECK(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  CHECK(::lseek(fd, 7, SEEK_SET) == 7);

  waiting<std::uint64_t> sending;
  face::start(p.first.send_file(fd, 1000, text.size()), sending);
  support::settle();
  CHECK(!sending.done());
  CHECK(face::get(p.first.send("x")).error() == errc::busy_resource);
  std::string got;
  while (got.size() < text.size() - 1000) got += face::get(p.second.receive(1 << 20)).value_or("");
  CHECK(sending.get().value_or(0) == text.size() - 1000);
  CHECK(got == text.substr(1000));
  CHECK(::lseek(fd, 0, SEEK_CUR) == 7);

  CHECK(face::get(p.first.send_file(fd, 3, 5)).value_or(0) == 5);
  CHECK(face::get(p.second.receive()).value_or("") == text.substr(3, 5));
  CHECK(face::get(p.first.send_file(fd, text.size() + 1, 5)).value_or(1) == 0);
  CHECK(face::get(p.first.send_file(fd, 0, 0)).value_or(1) == 0);
  const anyio::error bad = face::get(p.first.send_file(-1, 0, 5)).error();
  CHECK(bad == errc::os_error);
  CHECK(bad.os_error() == EBADF);
  CHECK(face::get(p.first.send_file(fd, ~std::uint64_t{0}, 5)).error() == errc::os_error);
  CHECK(face::get(p.first.send("goes on")).has_value());
  CHECK(face::get(p.second.receive()).value_or("") == "goes on");
  CHECK(face::get(p.first.send_eof()).has_value());
  CHECK(face::get(p.first.send_file(fd, 0, 5)).error() == errc::closed_resource);
  // Closed while pending.
  waiting<std::uint64_t> blocked;
  face::start(p.second.send_file(fd, 0, text.size()), blocked);
  support::settle();
  CHECK(!blocked.done());
  p.second.close();
  CHECK(blocked.get().error() == errc::closed_resource);
  std::fclose(file);
}

TEST_CASE("from_fd rejects anything but a connected TCP socket, says why, and leaves it unchanged") {
  anyio::loop loop;
  const auto refused = [](int fd, std::string_view why) {
    CAPTURE(why);
    const int flags = fd >= 0 ? ::fcntl(fd, F_GETFL) : 0;
    const result<anyio::tcp_stream> r = anyio::tcp_stream::from_fd(fd);
    CHECK(!r.has_value());
    CHECK(r.error() == errc::invalid_argument);
    CHECK_MESSAGE(r.error().message().find(why) != std::string::npos, r.error().message());
    if (fd < 0) return;
    CHECK(support::is_open(fd));
    CHECK(::fcntl(fd, F_GETFL) == flags);
    ::close(fd);
  };
  refused(-1, "the descriptor is negative");
  int pipe_fds[2];
  CHECK(::pipe(pipe_fds) == 0);
  refused(pipe_fds[0], "not a socket");
  refused(pipe_fds[1], "not a socket");
  refused(::socket(AF_INET, SOCK_STREAM, 0), "not connected");
  refused(::socket(AF_UNIX, SOCK_STREAM, 0), "family");
  refused(::socket(AF_INET, SOCK_DGRAM, 0), "type");
  anyio::tcp_listener l = anyio::tcp_listener::open(support::loopback()).value();
  refused(::dup(l.native_handles().front()), "not connected");
  const int waits = support::raw_connect(l.local_endpoints().front());
  refused(::dup(l.native_handles().front()), "not connected");
  ::close(waits);
  // A failed attempt to connect was no connection, whether or not its error was read.
  const anyio::ip_endpoint nobody =
      anyio::tcp_listener::open(support::loopback()).value().local_endpoints()[0];
  for (const bool reads_error : {false, true}) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    CHECK(::fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    sockaddr_storage address{};
    const socklen_t size = nobody.to_sockaddr(address);
    static_cast<void>(::connect(fd, reinterpret_cast<const sockaddr*>(&address), size));
    pollfd failed{fd, POLLOUT, 0};
    CHECK(::poll(&failed, 1, 10000) == 1);
    int e = 0;
    socklen_t size_of_e = sizeof e;
    if (reads_error) CHECK(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &size_of_e) == 0);
    refused(fd, "not connected");
  }
  const result<anyio::tcp_stream> closed = anyio::tcp_stream::from_fd(1000);
  CHECK(closed.error() == errc::invalid_argument);
  CHECK(closed.error().os_error() == EBADF);
}

TEST_CASE("from_fd adopts a blocking socket of any origin, and can use it") {
  anyio::loop loop;
  anyio::tcp_listener l = anyio::tcp_listener::open(support::loopback()).value();
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_storage address{};
  const socklen_t size = l.local_endpoints().front().to_sockaddr(address);
  CHECK(::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0);
  anyio::tcp_stream client = anyio::tcp_stream::from_fd(fd).value();
  CHECK(client.native_handle() == fd);
  CHECK(support::is_non_blocking(fd));
  CHECK(support::is_close_on_exec(fd));
  CHECK(client.remote_endpoint() == l.local_endpoints().front());
  anyio::tcp_stream server = by_callback::get(l.accept()).value();
  CHECK(server.remote_endpoint() == client.local_endpoint());
  CHECK(by_callback::get(server.send("x")).has_value());
  CHECK(by_callback::get(client.receive()).value_or("") == "x");
}

TEST_CASE("a loop may end before its streams and their pending operations") {
  std::optional<anyio::loop> loop;
  loop.emplace();
  auto p = connected<support::tcp>();
  auto kept = std::make_shared<int>(1);
  bool called = false;
  p.first.receive().start([kept, &called](result<std::string>) { called = true; });
  anyio::receive_string_operation named = p.second.receive();
  named.start([&called](result<std::string>) { called = true; });
  support::settle();
  CHECK(kept.use_count() == 2);
  const int fd = p.first.native_handle();
  loop.reset();
  CHECK(kept.use_count() == 1);
  CHECK(!called);
  CHECK(!support::is_open(fd));
  CHECK(!p.first);
  CHECK(p.first.native_handle() == -1);
  p.second.close();
  anyio::loop another;
  CHECK(by_callback::get(p.first.receive()).error() == errc::closed_resource);
  CHECK(by_callback::get(p.second.send("x")).error() == errc::closed_resource);
  CHECK(by_callback::get(p.second.aclose()).has_value());
  CHECK(p.second.set_no_delay(true).error() == errc::closed_resource);
}

TEST_CASE("a view in a blocked send reaches the right peer while others receive") {
  anyio::loop loop;
  auto from = connected<support::tcp>();
  auto to = connected<support::tcp>();
  auto other = connected<support::tcp>();
  const std::size_t on_the_way = support::fill(to.first);
  const std::string text(3000, 'v');
  CHECK(by_callback::get(from.first.send(text)).has_value());
  waiting<void> sending;
  struct {
    anyio::tcp_stream& from;
    anyio::tcp_stream& to;
    waiting<void>& sending;
    void forward() {
      from.receive_view().start([this](result<std::string_view> view) {
        CHECK(view.has_value());
        by_callback::start(to.send(*view), sending);
      });
    }
  } bridge{from.second, to.first, sending};
  bridge.forward();
  support::settle();
  CHECK(!sending.done());
  // Other receives overwrite the loop's only buffer.
  for (int i = 0; i < 20; ++i) {
    CHECK(by_callback::get(other.first.send(std::string(5000, '#'))).has_value());
    CHECK(by_callback::get(other.second.receive_view()).has_value());
  }
  std::string got;
  while (got.size() < on_the_way + text.size())
    got += by_callback::get(to.second.receive(1 << 20)).value_or("");
  CHECK(sending.get().has_value());
  CHECK(got.substr(on_the_way) == text);
}

TEST_CASE("a view in a blocked gathered send is kept too") {
  anyio::loop loop;
  anyio::run([]() -> task<> {
    auto from = co_await support::tcp::pair();
    auto to = co_await support::tcp::pair();
    auto& into = to.first;
    auto& out = from.second;
    const std::size_t on_the_way = support::fill(into);
    co_await from.first.send("view");
    anyio::task_group group;
    group.start_soon([&]() -> task<> {
      const std::string_view view = co_await out.receive_view();
      const anyio::const_buffer parts[] = {"<", view, ">"};
      co_await into.send(parts);
    });
    co_await support::turns();
    auto other = co_await support::tcp::pair();
    co_await other.first.send("####");
    CHECK(co_await other.second.receive_view() == "####");
    std::string got;
    while (got.size() < on_the_way + 6) got += co_await to.second.receive(1 << 20);
    CHECK(got.substr(on_the_way) == "<view>");
    co_await group.join();
  });
}

// A system whose sends take three bytes each.
struct slow_backend final : support::custom_backend {
  ssize_t send(int fd, const void* data, std::size_t size) override {
    return custom_backend::send(fd, data, std::min<std::size_t>(size, 3));
  }
};

TEST_CASE("a send that takes many calls sends each byte once, and starts over when it is used again") {
  anyio::loop loop(std::make_unique<slow_backend>());
  int fds[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  const anyio::unique_fd peer(fds[1]);
  auto stream = *anyio::unix_stream::from_fd(fds[0]);
  std::string text;
  for (int i = 0; i < 100; ++i) text += std::to_string(i);
  const auto arrived = [&] {
    std::string got(text.size() * 3, '\0');
    const ssize_t n = ::recv(peer.get(), got.data(), got.size(), MSG_DONTWAIT);
    got.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return got;
  };

  auto named = stream.send(text);
  for (int i = 0; i < 2; ++i) {
    bool sent = false;
    named.start([&sent](result<> r) { sent = r.has_value(); });
    loop.run();
    CHECK(sent);
    CHECK(named.sent() == text.size());
    CHECK(arrived() == text);
  }
  anyio::run([&]() -> task<> {
    for (int i = 0; i < 2; ++i) {
      co_await named;
      CHECK(named.sent() == text.size());
      CHECK(arrived() == text);
    }
    CHECK(co_await as_result(stream.send(text)));
    CHECK(arrived() == text);
  });
}

}  // namespace
