// Pipes, fifos and terminals as byte streams.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "support/conformance.hpp"
#include "support/custom_backend.hpp"
#include "support/faces.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::fd_stream;
using anyio::loop;
using anyio::result;
using anyio::task;

void turn(loop& l) {
  for (int i = 0; i < 100 && l.run_once(0ms); ++i) {
  }
}

template <class Op>
auto outcome(Op&& op) {
  return anyio::run(anyio::as_result(std::move(op)));
}

template <class T>
struct inbox {
  std::optional<result<T>> value;
  auto callback() {
    return [this](result<T> r) { value.emplace(std::move(r)); };
  }
  errc code() const { return value ? value->error().code() : errc::deadlock; }
};

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }
bool is_non_blocking(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

fd_stream adopt(int fd) {
  auto s = fd_stream::from_fd(fd);
  CHECK(s);
  return s ? *std::move(s) : fd_stream();
}

/// A loop and both ends of a pipe.
struct pipe_fixture {
  pipe_fixture() {
    int fds[2] = {-1, -1};
    CHECK(::pipe(fds) == 0);
    in = adopt(fds[0]);
    out = adopt(fds[1]);
  }
  loop l;
  fd_stream in;
  fd_stream out;
};

/// A loop and both sides of a terminal, the slave with default settings or raw.
struct terminal_fixture {
  explicit terminal_fixture(bool raw) {
    const int fd = ::posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(fd >= 0);
    CHECK(::grantpt(fd) == 0);
    CHECK(::unlockpt(fd) == 0);
    const int other = ::open(::ptsname(fd), O_RDWR | O_NOCTTY);
    CHECK(other >= 0);
    termios settings;
    CHECK(::tcgetattr(other, &settings) == 0);
    if (raw) {
      ::cfmakeraw(&settings);
    } else {
      settings.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    }
    CHECK(::tcsetattr(other, TCSANOW, &settings) == 0);
    master = adopt(fd);
    slave = adopt(other);
  }
  loop l;
  fd_stream master;
  fd_stream slave;
};

TEST_CASE("fd stream: bytes pass through a pipe") {
  pipe_fixture p;
  CHECK(outcome(p.out.send("through")));
  CHECK(anyio::run(p.in.receive()) == "through");
  inbox<std::string> got;
  auto op = p.in.receive();
  op.start(got.callback());
  turn(p.l);
  CHECK(!got.value);
  CHECK(outcome(p.out.send("again")));
  turn(p.l);
  CHECK(got.value);
  CHECK(got.value->value_or("") == "again");
  CHECK(p.in.socket() == nullptr);
}

TEST_CASE("fd stream: the descriptor becomes non-blocking and close-on-exec") {
  pipe_fixture p;
  CHECK(is_non_blocking(p.in.native_handle()));
  CHECK((::fcntl(p.in.native_handle(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("fd stream: a send waits while the pipe is full") {
  pipe_fixture p;
  const std::string data = conformance::pattern(1000000);
  inbox<void> sent;
  auto op = p.out.send(data);
  op.start(sent.callback());
  turn(p.l);
  CHECK(!sent.value);
  CHECK(outcome(p.out.send("x")).error() == errc::busy_resource);
  std::string all;
  while (all.size() < data.size()) all += anyio::run(p.in.receive());
  CHECK((all == data));
  turn(p.l);
  CHECK(sent.code() == errc::ok);
}

TEST_CASE("fd stream: many pieces are sent in order") {
  pipe_fixture p;
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) texts.push_back(i % 5 == 0 ? "" : std::to_string(i));
  std::vector<anyio::const_buffer> parts(texts.begin(), texts.end());
  std::string expected;
  for (const std::string& t : texts) expected += t;
  CHECK(outcome(p.out.send(std::span<const anyio::const_buffer>(parts))));
  std::string all;
  while (all.size() < expected.size()) all += anyio::run(p.in.receive());
  CHECK(all == expected);
  CHECK(outcome(p.out.send("")));
}

TEST_CASE("fd stream: a closed writer is the end, after its bytes") {
  pipe_fixture p;
  CHECK(outcome(p.out.send("last")));
  CHECK(outcome(p.out.aclose()));
  CHECK(p.out.native_handle() == -1);
  CHECK(anyio::run(p.in.receive()) == "last");
  CHECK(outcome(p.in.receive()).error() == errc::end_of_stream);
  CHECK(outcome(p.in.receive_view()).error() == errc::end_of_stream);
}

TEST_CASE("fd stream: a closing writer ends a pending receive") {
  pipe_fixture p;
  inbox<std::string> got;
  auto op = p.in.receive();
  op.start(got.callback());
  turn(p.l);
  p.out.close();
  turn(p.l);
  CHECK(got.code() == errc::end_of_stream);
}

TEST_CASE("fd stream: a closed reader breaks the pipe, also for a pending send") {
  pipe_fixture p;
  const std::string data(1000000, 'x');
  inbox<void> sent;
  auto op = p.out.send(data);
  op.start(sent.callback());
  turn(p.l);
  CHECK(!sent.value);
  p.in.close();
  turn(p.l);
  CHECK(sent.code() == errc::broken_resource);
  CHECK(sent.value->error().os_error() == EPIPE);
  CHECK(op.sent() > 0);
  CHECK(outcome(p.out.send("x")).error() == errc::broken_resource);
  p.out.close();
  CHECK(outcome(p.out.send("x")).error() == errc::closed_resource);
}

TEST_CASE("fd stream: the wrong direction of a pipe is EBADF") {
  pipe_fixture p;
  const auto received = outcome(p.out.receive());
  CHECK(received.error() == errc::os_error);
  CHECK(received.error().os_error() == EBADF);
  const auto sent = outcome(p.in.send("x"));
  CHECK(sent.error() == errc::os_error);
  CHECK(sent.error().os_error() == EBADF);
  CHECK(outcome(p.out.send("still usable")));
}

TEST_CASE("fd stream: it cannot be half-closed") {
  pipe_fixture p;
  CHECK(outcome(p.out.send_eof()).error() == errc::not_supported);
  CHECK(outcome(p.out.send("still open")));
}

TEST_CASE("fd stream: closing closes the descriptor, and ends pending operations") {
  pipe_fixture p;
  const int fd = p.in.native_handle();
  inbox<std::string> got;
  auto op = p.in.receive();
  op.start(got.callback());
  turn(p.l);
  p.in.close();
  CHECK(!is_open(fd));
  CHECK(!p.in);
  CHECK(!got.value);
  turn(p.l);
  CHECK(got.code() == errc::closed_resource);
}

TEST_CASE("fd stream: a released descriptor belongs to the caller") {
  pipe_fixture p;
  inbox<std::string> got;
  auto op = p.in.receive();
  op.start(got.callback());
  turn(p.l);
  const int fd = p.in.release();
  CHECK(is_open(fd));
  CHECK(!p.in);
  CHECK(p.in.native_handle() == -1);
  CHECK(p.in.release() == -1);
  turn(p.l);
  CHECK(got.code() == errc::closed_resource);
  CHECK(outcome(p.out.send("for the next owner")));
  fd_stream again = adopt(fd);
  CHECK(anyio::run(again.receive()) == "for the next owner");
  CHECK(fd_stream().release() == -1);
  CHECK(fd_stream().native_handle() == -1);
}

TEST_CASE("fd stream: a cancelled receive loses nothing") {
  pipe_fixture p;
  inbox<std::string> got;
  {
    auto op = p.in.receive();
    op.start(got.callback());
    turn(p.l);
    CHECK(outcome(p.out.send("kept")));
  }
  CHECK(anyio::run(p.in.receive()) == "kept");
  CHECK(!got.value);
}

TEST_CASE("fd stream: from_fd rejects unsupported descriptors, and leaves them unchanged") {
  loop l;
  const support::temp_dir folder;
  const auto refused = [](int fd) {
    auto s = fd_stream::from_fd(fd);
    CHECK(!s);
    CHECK(s.error() == errc::invalid_argument);
    CHECK(!s.error().message().empty());
    CHECK(is_open(fd));
    CHECK(!is_non_blocking(fd));
    ::close(fd);
  };
  refused(::open(folder.path("file").c_str(), O_RDWR | O_CREAT, 0600));
  refused(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY));
  int fds[2];
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  refused(fds[0]);
  refused(fds[1]);
  CHECK(fd_stream::from_fd(-1).error() == errc::invalid_argument);
  CHECK(fd_stream::from_fd(-1).error().os_error() == EBADF);
  CHECK(fd_stream::from_fd(1000000).error().os_error() == EBADF);
}

TEST_CASE("fd stream: devices that are always ready") {
  loop l;
  fd_stream null = adopt(::open("/dev/null", O_RDWR));
  CHECK(outcome(null.send(std::string(1 << 20, 'x'))));
  CHECK(outcome(null.receive()).error() == errc::end_of_stream);
  fd_stream zero = adopt(::open("/dev/zero", O_RDONLY));
  CHECK(*outcome(zero.receive(100)) == std::string(100, '\0'));
  // A device that is always readable does not starve others.
  int rounds = 0;
  const bool finished = anyio::run(anyio::move_on_after(5ms, [&]() -> task<> {
    for (;; ++rounds) static_cast<void>(co_await anyio::as_result(zero.receive_view()));
  }));
  CHECK(!finished);
  CHECK(rounds > 0);
  fd_stream left_open = adopt(::open("/dev/null", O_RDONLY));  // the end of the loop closes it
  const int fd = zero.release();
  CHECK(is_open(fd));
  CHECK(::close(fd) == 0);
}

TEST_CASE("fd stream: a fifo") {
  loop l;
  const support::temp_dir folder;
  const std::string path = folder.path("fifo");
  CHECK(::mkfifo(path.c_str(), 0600) == 0);
  fd_stream in = adopt(::open(path.c_str(), O_RDONLY | O_NONBLOCK));
  fd_stream out = adopt(::open(path.c_str(), O_WRONLY));
  CHECK(outcome(out.send("fifo")));
  CHECK(anyio::run(in.receive()) == "fifo");
  out.close();
  CHECK(outcome(in.receive()).error() == errc::end_of_stream);
}

/// A loop on a backend that calls a hook when it is asked whether a FIFO is hung up, and the FIFO's reader.
struct fifo_fixture {
  class asked_backend : public support::custom_backend {
   public:
    std::function<void()> on_poll_now;
    int poll_now(int fd, std::uint32_t interest) override {
      if (on_poll_now) std::exchange(on_poll_now, nullptr)();
      return custom_backend::poll_now(fd, interest);
    }
  };

  fifo_fixture() {
    auto made = std::make_unique<asked_backend>();
    system = made.get();
    l.emplace(std::move(made));
    CHECK(::mkfifo(path.c_str(), 0600) == 0);
    in = adopt(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  }
  int open_writer() const { return ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC); }
  /// A writer that opens, writes and closes.
  void visit(std::string_view text) const {
    const int fd = open_writer();
    CHECK(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    ::close(fd);
  }

  asked_backend* system;
  std::optional<loop> l;
  support::temp_dir folder;
  std::string path = folder.path("fifo");
  fd_stream in;
};

TEST_CASE_TEMPLATE("fd stream: a fifo does not end before its first writer opens it", Face,
                   support::by_callback, support::by_coroutine) {
  fifo_fixture f;
  support::waiting<std::string> got;
  Face::start(f.in.receive(), got);
  support::settle();
  CHECK(!got.done());
  const int writer = f.open_writer();
  support::settle();
  CHECK(!got.done());
  SUBCASE("the writer writes") {
    CHECK(::write(writer, "hello", 5) == 5);
    CHECK(got.get().value_or("") == "hello");
  }
  SUBCASE("the writer writes nothing") {
    ::close(writer);
    CHECK(got.get().error() == errc::end_of_stream);
    return;
  }
  ::close(writer);
  CHECK(Face::get(f.in.receive()).error() == errc::end_of_stream);
}

TEST_CASE_TEMPLATE("fd stream: the end of a fifo is reported until another writer opens it", Face,
                   support::by_callback, support::by_coroutine) {
  fifo_fixture f;
  for (int round = 0; round < 3; ++round) {
    f.visit("one");
    CHECK(Face::get(f.in.receive()).value_or("") == "one");
    for (int i = 0; i < 3; ++i) CHECK(Face::get(f.in.receive()).error() == errc::end_of_stream);
    CHECK(Face::get(f.in.receive_view()).error() == errc::end_of_stream);

    // The reader waits for a writer that opens without writing, and for the next one, which opens before the
    // first has closed.
    const int writer = f.open_writer();
    support::waiting<std::string> got;
    Face::start(f.in.receive(), got);
    support::settle();
    CHECK(!got.done());
    const int next = f.open_writer();
    ::close(writer);
    support::settle();
    CHECK(!got.done());
    CHECK(::write(next, "two", 3) == 3);
    CHECK(got.get().value_or("") == "two");
    ::close(next);
    CHECK(Face::get(f.in.receive()).error() == errc::end_of_stream);
  }
}

TEST_CASE("fd stream: a fifo's writer that is faster than the check loses nothing") {
  fifo_fixture f;
  SUBCASE("and has already closed") {
    f.system->on_poll_now = [&] { f.visit("quick"); };
    CHECK(outcome(f.in.receive()).value_or("") == "quick");
    CHECK(outcome(f.in.receive()).error() == errc::end_of_stream);
  }
  SUBCASE("and stays open: an event will report it") {
    int writer = -1;
    f.system->on_poll_now = [&] { writer = f.open_writer(); };
    inbox<std::string> got;
    auto op = f.in.receive();
    op.start(got.callback());
    turn(*f.l);
    CHECK(writer >= 0);
    CHECK(!got.value);
    CHECK(::write(writer, "late", 4) == 4);
    turn(*f.l);
    CHECK(got.value);
    CHECK(got.value->value_or("") == "late");
    ::close(writer);
  }
}

TEST_CASE("fd stream: release keeps the descriptor's mode, or makes it block again") {
  int fds[2];
  CHECK(::pipe(fds) == 0);
  const int both_ways[] = {fds[0], fds[1]};
  loop l;
  for (const int fd : both_ways) {
    CHECK(adopt(fd).release() == fd);
    CHECK(is_non_blocking(fd));
    CHECK(::fcntl(fd, F_SETFL, 0) == 0);
    CHECK(adopt(fd).release(true) == fd);
    CHECK(!is_non_blocking(fd));
    // A descriptor that was non-blocking before stays so.
    CHECK(::fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    CHECK(adopt(fd).release(true) == fd);
    CHECK(is_non_blocking(fd));
    ::close(fd);
  }
  CHECK(fd_stream().release(true) == -1);
}

TEST_CASE("fd stream: a raw terminal carries bytes both ways") {
  terminal_fixture t(true);
  const std::string data = conformance::pattern(50000);
  anyio::task_group group;
  group.start_soon([&]() -> task<> { co_await t.master.send(data); });
  std::string all;
  while (all.size() < data.size()) all += anyio::run(t.slave.receive());
  CHECK((all == data));
  CHECK(outcome(group.join()));
  CHECK(outcome(t.slave.send("answer")));
  CHECK(anyio::run(t.master.receive()) == "answer");
}

TEST_CASE("fd stream: a terminal is read line by line") {
  terminal_fixture t(false);
  CHECK(outcome(t.master.send("one\ntwo\nthree\n")));
  std::string all;
  while (all.size() < 14) all += anyio::run(t.slave.receive());
  CHECK(all == "one\ntwo\nthree\n");
}

TEST_CASE("fd stream: each ^D ends a terminal's input once, and later input is read") {
  terminal_fixture t(false);
  for (int i = 0; i < 2; ++i) {
    CHECK(outcome(t.master.send("\x04")));
    CHECK(outcome(t.slave.receive()).error() == errc::end_of_stream);
  }
  support::waiting<std::string> got;
  support::by_callback::start(t.slave.receive(), got);
  support::settle();
  CHECK(!got.done());
  CHECK(outcome(t.master.send("more\n")));
  CHECK(got.get().value_or("") == "more\n");
}

TEST_CASE("fd stream: a terminal continues when its other side is opened again") {
  terminal_fixture t(true);
  const std::string name = ::ptsname(t.master.native_handle());
  t.slave.close();
  for (int i = 0; i < 2; ++i) CHECK(outcome(t.master.receive()).error() == errc::end_of_stream);
  fd_stream slave = adopt(::open(name.c_str(), O_RDWR | O_NOCTTY));
  support::waiting<std::string> got;
  support::by_callback::start(t.master.receive(), got);
  support::settle();
  CHECK(!got.done());
  CHECK(outcome(slave.send("back")));
  CHECK(got.get().value_or("") == "back");
  CHECK(outcome(t.master.send("to you\n")));
  CHECK(anyio::run(slave.receive()) == "to you\n");
}

TEST_CASE("fd stream: a terminal ends when its other side is closed") {
  terminal_fixture t(true);
  inbox<std::string> got;
  CHECK(outcome(t.slave.send("bye")));
  CHECK(anyio::run(t.master.receive()) == "bye");
  auto op = t.master.receive();
  op.start(got.callback());
  turn(t.l);
  t.slave.close();
  turn(t.l);
  CHECK(got.code() == errc::end_of_stream);
  CHECK(outcome(t.master.receive()).error() == errc::end_of_stream);
}

TEST_CASE("fd stream: lines from a pipe") {
  pipe_fixture p;
  anyio::buffered_stream lines(p.in);
  CHECK(outcome(p.out.send("first\nsecond\nrest")));
  p.out.close();
  CHECK(anyio::run(lines.receive_line()) == "first");
  CHECK(anyio::run(lines.receive_line()) == "second");
  CHECK(outcome(lines.receive_line()).error() == errc::incomplete_read);
}

TEST_CASE("fd stream: it may be destroyed after its loop") {
  std::optional<loop> l(std::in_place);
  int fds[2];
  CHECK(::pipe(fds) == 0);
  fd_stream in = adopt(fds[0]);
  inbox<std::string> got;
  auto op = in.receive();
  op.start(got.callback());
  turn(*l);
  l.reset();
  CHECK(!in);
  CHECK(!is_open(fds[0]));
  CHECK(in.release() == -1);
  CHECK(!got.value);
  ::close(fds[1]);
}

}  // namespace
