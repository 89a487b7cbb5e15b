// Waiting for foreign descriptors.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/sockets.hpp"

#if defined(ANYIO_NET_KQUEUE)
#include <sys/event.h>
#endif

namespace {

using namespace anyio;
using namespace std::chrono_literals;

/// Two connected descriptors: bytes written to the second are read from the first.
struct ends {
  int fds[2] = {-1, -1};
  ends() = default;
  ends(const ends&) = delete;
  ends& operator=(const ends&) = delete;
  ~ends() {
    close(0);
    close(1);
  }
  int first() const { return fds[0]; }
  int second() const { return fds[1]; }
  void close(int which) {
    if (fds[which] >= 0) ::close(std::exchange(fds[which], -1));
  }
  void write(int which = 1) const { CHECK(::write(fds[which], "x", 1) == 1); }
  void read(int which = 0) const {
    char c = 0;
    CHECK(::read(fds[which], &c, 1) == 1);
  }
  /// Until the descriptor is full.
  void fill(int which) const {
    const std::string much(65536, 'x');
    while (::write(fds[which], much.data(), much.size()) > 0) continue;
    while (::write(fds[which], "x", 1) > 0) continue;
  }
  void drain(int which) const {
    char much[65536];
    while (::read(fds[which], much, sizeof much) > 0) continue;
  }
};

struct pipe_ends : ends {
  pipe_ends() { CHECK((::pipe(fds) == 0 && support::prepare_ends(fds))); }
};

struct socket_ends : ends {
  socket_ends() { CHECK((::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0 && support::prepare_ends(fds))); }
};

/// The result passed to a callback.
struct outcome {
  std::optional<error> value;
  auto callback() {
    return [this](result<> r) { value = r.error(); };
  }
  bool succeeded() const { return value && value->code() == errc::ok; }
  bool failed(errc code) const { return value && *value == code; }
};

/// Whether the loop's poller watches this many descriptors beside its own, where that can be known.
bool watches([[maybe_unused]] const loop& l, [[maybe_unused]] int count) {
#if defined(KQUEUE_FOR_TESTS)
  return kqueue_for_tests_watched(l.native_handle()) == count + 1;
#elif defined(__linux__) && !defined(ANYIO_NET_KQUEUE)
  std::ifstream info("/proc/self/fdinfo/" + std::to_string(l.native_handle()));
  int found = -1;
  for (std::string line; std::getline(info, line);) found += line.starts_with("tfd:");
  return found == count;
#else
  return true;
#endif
}

task<> readable(int fd) { co_await wait_readable(fd); }
task<> writable(int fd) { co_await wait_writable(fd); }

}  // namespace

TEST_CASE("a ready descriptor completes the wait") {
  loop l;
  pipe_ends pipe;
  pipe.write();

  SUBCASE("for a coroutine") {
    run(readable(pipe.first()));
    run(writable(pipe.second()));
  }
  SUBCASE("for a callback") {
    outcome reads;
    outcome writes;
    wait_operation op = wait_readable(pipe.first());
    op.start(reads.callback());
    wait_writable(pipe.second()).start(writes.callback());
    CHECK(!reads.value);
    l.run();
    CHECK(reads.succeeded());
    CHECK(writes.succeeded());
  }
  SUBCASE("repeatedly, since nothing is consumed") {
    for (int i = 0; i < 100; ++i) run(readable(pipe.first()));
  }
  SUBCASE("with a time limit of 0") {
    CHECK(run(move_on_after(0s, wait_readable(pipe.first()))));
    pipe.read();
    CHECK(!run(move_on_after(0s, wait_readable(pipe.first()))));
  }
  CHECK(watches(l, 0));
}

TEST_CASE("a descriptor that is not ready is waited for") {
  loop l;
  pipe_ends pipe;

  SUBCASE("by a reading coroutine") {
    auto write_and_wait = [&pipe]() -> task<> {
      task_group group;
      group.start_soon(readable(pipe.first()));
      co_await sleep(0s);
      pipe.write();
      co_await group.join();
    };
    run(write_and_wait());
  }
  SUBCASE("by a reading callback") {
    outcome reads;
    wait_operation op = wait_readable(pipe.first());
    op.start(reads.callback());
    l.run_once(0s);
    CHECK(!reads.value);
    CHECK(watches(l, 1));
    pipe.write();
    l.run();
    CHECK(reads.succeeded());
  }
  SUBCASE("by a writing callback") {
    pipe.fill(1);
    outcome writes;
    wait_operation op = wait_writable(pipe.second());
    op.start(writes.callback());
    l.run_once(0s);
    CHECK(!writes.value);
    pipe.drain(0);
    l.run();
    CHECK(writes.succeeded());
  }
  SUBCASE("even if another reader takes the data first") {
    outcome reads;
    wait_operation op = wait_readable(pipe.first());
    op.start(reads.callback());
    l.run_once(0s);
    pipe.write();
    l.post([&pipe] { pipe.read(); });  // runs in the turn that reports it
    l.run_once(0s);
    CHECK(l.run_once(0s) == false);
    CHECK(!reads.value);
    pipe.write();
    l.run();
    CHECK(reads.succeeded());
  }
  CHECK(watches(l, 0));
}

TEST_CASE("the end of a stream is readable, and a stream without a reader is writable") {
  loop l;
  socket_ends pair;
  outcome reads;
  wait_operation op = wait_readable(pair.first());
  op.start(reads.callback());
  l.run_once(0s);
  pair.close(1);
  l.run();
  CHECK(reads.succeeded());
  run(readable(pair.first()));
  run(writable(pair.first()));
}

TEST_CASE("a regular file is always ready") {
  std::FILE* file = std::tmpfile();
  CHECK(file != nullptr);
  run(readable(::fileno(file)));
  run(writable(::fileno(file)));
  loop l;
  outcome reads;
  wait_readable(::fileno(file)).start(reads.callback());
  l.run();
  CHECK(reads.succeeded());
  std::fclose(file);
}

TEST_CASE("a number that is not a descriptor is an error") {
  loop l;
  CHECK(run(as_result(wait_readable(-1))).error() == errc::invalid_argument);
  CHECK(run(as_result(wait_operation())).error() == errc::invalid_argument);
  int unused = -1;
  {
    pipe_ends pipe;
    unused = pipe.first();
  }
  const error e = run(as_result(wait_writable(unused))).error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::bad_file_descriptor);
  CHECK(e.operation() == "wait_writable");
}

TEST_CASE("a reader and a writer can wait for the same descriptor") {
  loop l;
  socket_ends pair;
  pair.fill(0);
  outcome reads;
  outcome writes;
  wait_operation reader = wait_readable(pair.first());
  wait_operation writer = wait_writable(pair.first());
  reader.start(reads.callback());
  writer.start(writes.callback());
  l.run_once(0s);
  CHECK(!reads.value);
  CHECK(!writes.value);
  CHECK(watches(l, 1));

  SUBCASE("the reader completes first") {
    pair.write();
    while (!reads.value) l.run_once(1s);
    CHECK(!writes.value);
    CHECK(watches(l, 1));
    pair.drain(1);
    l.run();
  }
  SUBCASE("the writer completes first") {
    pair.drain(1);
    while (!writes.value) l.run_once(1s);
    CHECK(!reads.value);
    CHECK(watches(l, 1));
    pair.write();
    l.run();
  }
  SUBCASE("both complete at once") {
    pair.write();
    pair.drain(1);
    l.run();
  }
  SUBCASE("one starts again while the other is pending") {
    for (int i = 0; i < 3; ++i) {
      reads = {};
      pair.write();
      while (!reads.value) l.run_once(1s);
      pair.read();
      reader.start(reads.callback());
      l.run_once(0s);
      CHECK(!writes.value);
    }
    pair.write();
    pair.drain(1);
    l.run();
  }
  SUBCASE("the event is for a wait that is destroyed in the same turn") {
    l.post([&] { reader = {}; });
    pair.write();
    l.run_once(0s);
    CHECK(!reads.value);
    reads.value = error();
    pair.drain(1);
    l.run();
  }
  CHECK(reads.succeeded());
  CHECK(writes.succeeded());
  CHECK(watches(l, 0));
}

TEST_CASE("a second wait in the same direction is busy_resource, and the first continues") {
  loop l;
  pipe_ends pipe;
  outcome first;
  outcome second;
  wait_operation op = wait_readable(pipe.first());
  op.start(first.callback());
  wait_readable(pipe.first()).start(second.callback());
  l.run_once(0s);
  CHECK(second.failed(errc::busy_resource));
  CHECK(run(as_result(readable(pipe.first()))).error() == errc::busy_resource);
  CHECK(!first.value);
  pipe.write();
  // Readiness does not change the order: the first waiter is served first.
  CHECK(run(as_result(wait_readable(pipe.first()))).error() == errc::busy_resource);
  l.run();
  CHECK(first.succeeded());
  run(readable(pipe.first()));
}

TEST_CASE("a descriptor of a stream of this loop is rejected") {
  loop l;
  socket_ends pair;
  auto stream = unix_stream::from_fd(std::exchange(pair.fds[0], -1));
  CHECK(stream.has_value());
  const int fd = stream->native_handle();
  pair.write();
  CHECK(run(as_result(wait_readable(fd))).error() == errc::busy_resource);
  CHECK(run(as_result(wait_writable(fd))).error() == errc::busy_resource);
  outcome waits;
  wait_operation op = wait_readable(fd);
  op.start(waits.callback());
  l.run();
  CHECK(waits.failed(errc::busy_resource));
  notify_closing(fd);  // not the intended one
  CHECK(run(stream->receive(10)) == "x");
  pair.fds[0] = stream->release();
  pair.write();
  run(readable(pair.first()));
}

TEST_CASE("notify_closing ends both waits with closed_resource, and does not close the descriptor") {
  loop l;
  socket_ends pair;
  pair.fill(0);
  outcome reads;
  outcome writes;
  wait_operation reader = wait_readable(pair.first());
  reader.start(reads.callback());
  wait_writable(pair.first()).start(writes.callback());

  SUBCASE("when they are pending") { l.run_once(0s); }
  SUBCASE("before their first turn") {}
  SUBCASE("when they are already ready") {
    pair.write();
    pair.drain(1);
  }
  notify_closing(pair.first());
  CHECK(!reads.value);
  CHECK(watches(l, 0));
  notify_closing(pair.first());
  l.run();
  CHECK(reads.failed(errc::closed_resource));
  CHECK(writes.failed(errc::closed_resource));
  pair.write();
  run(readable(pair.first()));
}

TEST_CASE("after notify_closing the descriptor number can be reused at once") {
  loop l;
  pipe_ends old;
  const int number = old.first();
  outcome before;
  outcome after;
  wait_operation op = wait_readable(number);
  op.start(before.callback());
  l.run_once(0s);
  notify_closing(number);
  old.close(0);
  pipe_ends fresh;
  CHECK(fresh.first() == number);
  wait_operation again = wait_readable(number);
  again.start(after.callback());
  l.run_once(0s);
  CHECK(before.failed(errc::closed_resource));
  CHECK(!after.value);
  fresh.write();
  l.run();
  CHECK(after.succeeded());
}

TEST_CASE("notify_closing without waits has no effect") {
  notify_closing(0);  // without a loop too
  loop l;
  notify_closing(-1);
  notify_closing(12345);
  pipe_ends pipe;
  notify_closing(pipe.first());
  pipe.write();
  run(readable(pipe.first()));
}

TEST_CASE("a destroyed wait leaves nothing in the poller, so that the descriptor number can be reused") {
  loop l;
  pipe_ends pipe;

  SUBCASE("by its destructor") {
    wait_operation op = wait_readable(pipe.first());
    op.start([](result<>) { CHECK(false); });
    l.run_once(0s);
    CHECK(watches(l, 1));
  }
  SUBCASE("by assignment") {
    wait_operation op = wait_readable(pipe.first());
    op.start([](result<>) { CHECK(false); });
    l.run_once(0s);
    op = {};
    CHECK(watches(l, 0));
  }
  SUBCASE("when it is already ready") {
    wait_operation op = wait_readable(pipe.first());
    op.start([](result<>) { CHECK(false); });
    l.run_once(0s);
    pipe.write();
    op = wait_readable(pipe.first());
    l.run();
    pipe.read();
  }
  SUBCASE("because its time limit expired") {
    CHECK(run(as_result(fail_after(1ms, wait_readable(pipe.first())))).error() == errc::timed_out);
    CHECK(run(move_on_after(1ms, readable(pipe.first()))) == false);
  }
  CHECK(watches(l, 0));
  outcome reads;
  wait_operation op = wait_readable(pipe.first());
  op.start(reads.callback());
  l.run_once(0s);
  pipe.write();
  l.run();
  CHECK(reads.succeeded());
}

TEST_CASE("a wait whose descriptor was closed without notice does not affect a stream with the same number") {
  loop l;
  pipe_ends pipe;
  const int number = pipe.first();
  wait_operation op = wait_readable(number);
  op.start([](result<>) { CHECK(false); });
  l.run_once(0s);
  pipe.close(0);
  socket_ends pair;
  CHECK(pair.first() == number);
  auto stream = unix_stream::from_fd(std::exchange(pair.fds[0], -1));
  CHECK(stream.has_value());
  op = {};
  std::string received;
  stream->receive(10).start(
      [&received](result<std::string> r) { received = std::move(r).value_or("nothing"); });
  l.run_once(0s);
  pair.write();
  l.run();
  CHECK(received == "x");
}

TEST_CASE("a loop may end before the waits on it") {
  pipe_ends pipe;
  wait_operation op = wait_readable(pipe.first());
  const auto held = std::make_shared<int>(0);
  {
    loop l;
    op.start([](result<>) { CHECK(false); });
    wait_writable(pipe.first()).start([held](result<>) { CHECK(false); });
    wait_readable(pipe.second()).start([held](result<>) {});
    l.run_once(0s);
  }
  CHECK(held.use_count() == 1);
  loop l;
  outcome reads;
  op.start(reads.callback());
  pipe.write();
  l.run();
  CHECK(reads.succeeded());
}

TEST_CASE("the dump lists the waits and their descriptors") {
  loop l;
  pipe_ends pipe;
  wait_operation op = wait_readable(pipe.first());
  op.start([](result<>) {});
  l.run_once(0s);
  CHECK(l.dump().starts_with("fd " + std::to_string(pipe.first()) + ": wait_readable, "));
}
