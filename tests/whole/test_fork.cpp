// Forked children: what they may do to inherited objects, and what works in them.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#if !defined(ANYIO_NET_NO_THREADS)
#include <atomic>
#include <thread>

#include "support/gate.hpp"
#endif

#include "support/allocations.hpp"
#include "support/child.hpp"
#include "support/dies.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define ANYIO_NET_TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ANYIO_NET_TEST_ASAN 1
#endif
#endif

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::loop;
using anyio::result;
using support::by_callback;
using support::by_coroutine;
using support::in_child;
using support::loopback;
using support::waiting;

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

/// Whether the descriptor is readable or has ended.
bool is_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) > 0;
}

bool exists(const std::string& path) {
  struct stat s;
  return ::lstat(path.c_str(), &s) == 0;
}

bool put(int fd, char c) { return ::write(fd, &c, 1) == 1; }

enum class way { close, assign, destroy, end_loop, after_fork };

/// Destroys, closes or abandons an object in one of those ways.
template <class T>
void part_with(T& object, way how, std::optional<loop>& l) {
  switch (how) {
    case way::close: return object.close();
    case way::assign: object = {}; return;
    case way::destroy: static_cast<void>(T(std::move(object))); return;
    case way::end_loop: l.reset(); return;
    case way::after_fork:
      l->after_fork();
      object.close();
      return;
  }
}

// Each kind has the object that a child inherits, an operation that waits on it, and a function that makes
// the operation complete.

template <class Pair>
struct stream_kind {
  typename Pair::stream near, object;
  stream_kind() {
    auto p = anyio::run(Pair::pair());
    near = std::move(p.first);
    object = std::move(p.second);
  }
  auto wait() { return object.receive(); }
  int descriptor() const { return object.native_handle(); }
  bool provoke() { return put(near.native_handle(), 'x'); }
};
using tcp_kind = stream_kind<support::tcp>;
using unix_kind = stream_kind<support::unix_pair>;

struct pipe_kind {
  int ends[2] = {-1, -1};
  anyio::fd_stream object;
  pipe_kind() {
    CHECK(::pipe(ends) == 0);
    object = anyio::fd_stream::from_fd(ends[0]).value();
  }
  ~pipe_kind() { ::close(ends[1]); }
  auto wait() { return object.receive(); }
  int descriptor() const { return ends[0]; }
  bool provoke() { return put(ends[1], 'x'); }
};

struct udp_kind {
  anyio::udp_socket object = anyio::udp_socket::open(loopback()).value();
  anyio::connected_udp_socket near = anyio::connected_udp_socket::open(object.local_endpoint()).value();
  auto wait() { return object.receive(); }
  int descriptor() const { return object.native_handle(); }
  bool provoke() { return put(near.native_handle(), 'x'); }
};

struct unix_datagram_kind {
  support::temp_dir dir;
  std::string path = dir.path("d");
  anyio::unix_datagram_socket object = make(path);
  anyio::connected_unix_datagram_socket near =
      by_callback::get(anyio::create_connected_unix_datagram_socket(path)).value();
  static anyio::unix_datagram_socket make(const std::string& path) {
    anyio::unix_datagram_options options;
    options.local_path = path;
    return by_callback::get(anyio::create_unix_datagram_socket(options)).value();
  }
  auto wait() { return object.receive(); }
  int descriptor() const { return object.native_handle(); }
  bool provoke() { return exists(path) && put(near.native_handle(), 'x'); }
};

struct tcp_listener_kind {
  anyio::tcp_listener object = anyio::tcp_listener::open(loopback()).value();
  std::uint16_t port = object.local_port();
  waiting<anyio::tcp_stream> connecting;
  auto wait() { return object.accept(); }
  int descriptor() const { return object.native_handles().front(); }
  bool provoke() {
    by_callback::start(anyio::connect_tcp(loopback(port)), connecting);
    return connecting.get().has_value();
  }
};

struct unix_listener_kind {
  support::temp_dir dir;
  std::string path = dir.path("l");
  anyio::unix_listener object =
      by_callback::get(anyio::create_unix_listener(path, {.unlink_on_close = true})).value();
  waiting<anyio::unix_stream> connecting;
  auto wait() { return object.accept(); }
  int descriptor() const { return object.native_handle(); }
  bool provoke() {
    if (!exists(path)) return false;
    by_callback::start(anyio::connect_unix(path), connecting);
    return connecting.get().has_value();
  }
};

#define EVERY_KIND \
  tcp_kind, unix_kind, pipe_kind, udp_kind, unix_datagram_kind, tcp_listener_kind, unix_listener_kind

/// The first and the second form of use.
template <class Body>
void for_both_faces(Body body) {
  SUBCASE("by a callback") { body(by_callback()); }
  SUBCASE("by a coroutine") { body(by_coroutine()); }
}

}  // namespace

TEST_CASE_TEMPLATE("a child that destroys inherited objects leaves the parent's unchanged", Kind,
                   EVERY_KIND) {
  for_both_faces([](auto face) {
    for (const way how : {way::close, way::assign, way::destroy, way::end_loop}) {
      std::optional<loop> l(std::in_place);
      {
        Kind kind;
        const int fd = kind.descriptor();
        waiting<typename decltype(kind.wait())::value_type> w;
        face.start(kind.wait(), w);
        support::settle();
        CHECK(in_child([&] {
                part_with(kind.object, how, l);
                return !is_open(fd);
              }) == 0);
        CHECK(is_open(fd));
        support::settle();
        CHECK(!w.done());
        CHECK(kind.provoke());
        CHECK(w.get().has_value());
      }
    }
  });
}

TEST_CASE("a peer does not notice that a child closed its copy of a connection") {
  loop l;
  unix_kind kind;
  CHECK(in_child([&] {
          kind.object.close();
          return true;
        }) == 0);
  CHECK(!is_readable(kind.near.native_handle()));
  CHECK(put(kind.object.native_handle(), 'x'));
  CHECK(by_callback::get(kind.near.receive()).value() == "x");
}

TEST_CASE("the socket file of a listener stays until its owner closes it") {
  const support::temp_dir dir;
  const std::string path = dir.path("l");
  std::optional<loop> l(std::in_place);
  anyio::unix_listener listener =
      by_callback::get(anyio::create_unix_listener(path, {.unlink_on_close = true})).value();
  for (const way how : {way::close, way::assign, way::destroy, way::end_loop}) {
    CHECK(in_child([&] {
            part_with(listener, how, l);
            return exists(path);
          }) == 0);
    CHECK(exists(path));
  }
  SUBCASE("by the parent") { listener.close(); }
  SUBCASE("by a child that became the owner by after_fork") {
    CHECK(in_child([&] {
            part_with(listener, way::after_fork, l);
            return true;
          }) == 0);
    CHECK(!exists(path));
    listener.close();
  }
  CHECK(!exists(path));
}

TEST_CASE("a child cancels waits for descriptors, and the parent's continue") {
  for_both_faces([](auto face) {
    for (const bool both : {false, true}) {
      std::optional<loop> l(std::in_place);
      auto p = anyio::run(support::unix_pair::pair());
      const int fd = p.second.release();
      int filler = 0;
      while (::send(fd, &filler, sizeof filler, MSG_DONTWAIT) > 0) {
      }
      std::optional<anyio::wait_operation> writer(anyio::wait_writable(fd));
      bool written = false;
      writer->start([&](result<> r) { written = r.has_value(); });
      waiting<void> w;
      face.start(anyio::wait_readable(fd), w);
      support::settle();
      CHECK(in_child([&] {
              writer.reset();  // which would leave the entry to the reader
              if (both) l.reset();
              return is_open(fd);
            }) == 0);
      std::string text;
      text.resize(1 << 20);
      while (::recv(p.first.native_handle(), text.data(), text.size(), MSG_DONTWAIT) > 0) {
      }
      support::settle();
      CHECK(written);
      CHECK(!w.done());
      CHECK(put(p.first.native_handle(), 'x'));
      CHECK(w.get().has_value());
      CHECK(in_child([&] {
              anyio::notify_closing(fd);
              return true;
            }) == 0);
      ::close(fd);
    }
  });
}

TEST_CASE("a child can release a descriptor from its stream and use it in its own loop") {
  loop l;
  tcp_kind kind;
  waiting<std::string> w;
  by_coroutine::start(kind.wait(), w);
  support::settle();
  CHECK(in_child([&] {
          loop own;
          auto s = anyio::tcp_stream::from_fd(kind.object.release());
          return s.has_value() && anyio::run(anyio::as_result(s->send("y"))).has_value();
        }) == 0);
  CHECK(by_callback::get(kind.near.receive()).value() == "y");
  CHECK(kind.provoke());
  CHECK(w.get().value() == "x");
}

TEST_CASE("a child wakes the parent neither by a posted call nor by a signal") {
  loop l;
  anyio::signal_receiver receiver = anyio::signal_receiver::open(SIGUSR1).value();
  waiting<int> w;
  by_callback::start(receiver.receive(), w);
  support::settle();
  const anyio::loop_handle handle = l.handle();
  CHECK(in_child([&] { return handle.post([] {}) && ::raise(SIGUSR1) == 0; }) == 0);
  CHECK(!is_readable(l.native_handle()));
  support::settle();
  CHECK(!w.done());
  CHECK(::raise(SIGUSR1) == 0);
  CHECK(w.get().value() == SIGUSR1);
}

TEST_CASE("a child's post to an inherited loop runs after after_fork, or is destroyed without being called") {
  std::optional<loop> l(std::in_place);
  support::settle();
  const auto handle = l->handle();
  auto token = std::make_shared<int>(0);
  const auto call = [&ran = *token, token] { ++ran; };
  CHECK(in_child([&] {
          const bool posted = handle.post(call);
          l->after_fork();
          l->run();
          return posted && *token == 1;
        }) == 0);
  CHECK(in_child([&] {
          const long before = token.use_count();
          const bool posted = handle.post(call);
          l.reset();
          return posted && *token == 0 && token.use_count() == before && !handle.post(call);
        }) == 0);
}

TEST_CASE("a child can create loops, and run() creates one instead of using an inherited one") {
  for_both_faces([](auto face) {
    loop l;
    waiting<void> w;
    face.start(anyio::sleep(1ms), w);
    CHECK(in_child([&] {
            anyio::run(anyio::sleep(1ms));
            bool fine = true;
            {
              loop own;
              tcp_kind kind;
              waiting<std::string> got;
              face.start(kind.wait(), got);
              fine = kind.provoke() && got.get().value() == "x" && &loop::current() == &own;
            }
            return fine && !w.done() && &loop::current() == &l;
          }) == 0);
    CHECK(w.get().has_value());
  });
}

TEST_CASE("an inherited loop cannot run without after_fork") {
  loop l;
  const auto turn = [&] { l.run_once(0s); };
  l.post([] {});
  CHECK(support::dies(turn));
  CHECK(!support::dies([&] {
    l.after_fork();
    turn();
  }));
  l.run();
}

TEST_CASE("a child that returns through a running loop leaves the parent's unchanged") {
  std::optional<loop> l(std::in_place);
  tcp_kind kind;
  waiting<std::string> w;
  by_coroutine::start(kind.wait(), w);
  pid_t child = -1;
  l->post([&] {
    child = ::fork();
    if (child == 0) l->stop();
  });
  l->run_once(0s);
  if (child == 0) {
    kind.object.close();
    l.reset();
    ::_exit(0);
  }
  int status = 1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(kind.provoke());
  CHECK(w.get().value() == "x");
}

TEST_CASE_TEMPLATE("after_fork: pending operations continue in the child, and undisturbed in the parent",
                   Kind, EVERY_KIND) {
  for_both_faces([](auto face) {
    loop l;
    Kind kind;
    waiting<typename decltype(kind.wait())::value_type> w;
    face.start(kind.wait(), w);
    support::settle();
    const int poller = l.native_handle();
    CHECK(in_child([&] {
            l.after_fork();
            l.after_fork();  // has no effect
            support::settle();
            return !w.done() && kind.provoke() && w.get().has_value();
          }) == 0);
    CHECK(l.native_handle() == poller);
    l.after_fork();  // nor here
    CHECK(l.native_handle() == poller);
    support::settle();
    CHECK(!w.done());
    CHECK(kind.provoke());
    CHECK(w.get().has_value());
  });
}

TEST_CASE("after_fork: events from before it are not missed") {
  loop l;
  tcp_kind kind;
  waiting<std::string> w;
  by_callback::start(kind.wait(), w);
  support::settle();
  CHECK(in_child([&] { return kind.provoke(); }) == 0);
  CHECK(in_child([&] {
          // The parent's poller has reported it by now, to no one.
          l.after_fork();
          return w.get().value() == "x";
        }) == 0);
  support::settle();
  CHECK(!w.done());
  CHECK(kind.provoke());
  CHECK(w.get().value() == "x");
}

TEST_CASE("after_fork: a writer that waited for room continues") {
  loop l;
  unix_kind kind;
  const std::string much(4 << 20, 'm');
  waiting<void> sent;
  by_coroutine::start(kind.object.send(much), sent);
  support::settle();
  CHECK(!sent.done());
  CHECK(in_child([&] {
          l.after_fork();
          std::size_t got = 0;
          std::string piece(1 << 16, '\0');
          while (got < much.size()) {
            const ssize_t n = ::recv(kind.near.native_handle(), piece.data(), piece.size(), MSG_DONTWAIT);
            if (n > 0) got += static_cast<std::size_t>(n);
            support::settle();
          }
          return sent.get().has_value();
        }) == 0);
}

TEST_CASE("after_fork: waits for descriptors, timers, posted calls and signals continue") {
  for_both_faces([](auto face) {
    loop l;
    auto p = anyio::run(support::unix_pair::pair());
    const int fd = p.second.release();
    waiting<void> readable, slept;
    waiting<int> signalled;
    anyio::signal_receiver receiver = anyio::signal_receiver::open(SIGUSR1, SIGUSR2).value();
    face.start(anyio::wait_readable(fd), readable);
    face.start(anyio::sleep(1ms), slept);
    face.start(receiver.receive(), signalled);
    l.run_once(0s);
    int posted = 0;
    l.post([&] { ++posted; });
    CHECK(l.handle().post([&] { ++posted; }));
    const auto all_go_on = [&](int number) {
      const bool early = readable.done() || signalled.done();
      return !early && put(p.first.native_handle(), 'x') && readable.get().has_value() &&
             slept.get().has_value() && ::raise(number) == 0 && is_readable(l.native_handle()) &&
             signalled.get().value() == number && posted == 2;
    };
    CHECK(::raise(SIGUSR1) == 0);
    CHECK(in_child([&] {
            l.after_fork();
            support::settle();  // the earlier signal was the parent's
            char c;
            return all_go_on(SIGUSR2) && ::read(fd, &c, 1) == 1;
          }) == 0);
    CHECK(signalled.get().value() == SIGUSR1);
    face.start(receiver.receive(), signalled);
    CHECK(all_go_on(SIGUSR2));
    ::close(fd);
  });
}

TEST_CASE("after_fork: a signal between the fork and after_fork is received") {
  loop l;
  anyio::signal_receiver receiver = anyio::signal_receiver::open(SIGUSR1).value();
  waiting<int> w;
  by_callback::start(receiver.receive(), w);
  support::settle();
  CHECK(in_child([&] {
          ::raise(SIGUSR1);
          l.after_fork();
          return w.get().value() == SIGUSR1;
        }) == 0);
  support::settle();
  CHECK(!w.done());
}

TEST_CASE("after_fork: it can be called from a callback, and the same run() continues") {
  loop l;
  tcp_kind kind;
  waiting<std::string> w;
  by_coroutine::start(kind.wait(), w);
  support::settle();
  pid_t child = -1;
  int status = 1;
  anyio::sleep(1ms).start([&](result<>) {
    child = ::fork();
    if (child == 0) {
      l.after_fork();
    } else {
      ::waitpid(child, &status, 0);
    }
    anyio::sleep(1ms).start([&](result<>) { static_cast<void>(kind.provoke()); });
  });
  l.run();
  const bool fine = w.done() && w.get().value() == "x";
  if (child == 0) ::_exit(fine ? 0 : 1);
  CHECK(fine);
  CHECK(status == 0);
}

TEST_CASE("after_fork: a device that no poller supports stays usable") {
  loop l;
  auto s = anyio::fd_stream::from_fd(::open("/dev/null", O_RDWR)).value();
  CHECK(in_child([&] {
          l.after_fork();
          return by_callback::get(s.send("x")).has_value();
        }) == 0);
}

TEST_CASE("signals work in a child with its own loop, and end with its receivers") {
  for_both_faces([](auto face) {
    loop l;
    std::optional<anyio::signal_receiver> inherited = anyio::signal_receiver::open(SIGUSR1).value();
    CHECK(in_child([&] {
            {
              loop own;
              anyio::signal_receiver receiver = anyio::signal_receiver::open(SIGUSR1, SIGUSR2).value();
              for (const int number : {SIGUSR1, SIGUSR2}) {
                waiting<int> w;
                face.start(receiver.receive(), w);
                support::settle();
                ::raise(number);
                if (w.get().value() != number) return false;
              }
            }
            inherited.reset();
            struct sigaction now {};
            return ::sigaction(SIGUSR1, nullptr, &now) == 0 && now.sa_handler == SIG_DFL;
          }) == 0);
    waiting<int> w;
    face.start(inherited->receive(), w);
    CHECK(::raise(SIGUSR1) == 0);
    CHECK(w.get().value() == SIGUSR1);
  });
}

TEST_CASE("a grandchild works like a child") {
  loop l;
  tcp_kind kind;
  waiting<std::string> w;
  by_callback::start(kind.wait(), w);
  support::settle();
  CHECK(in_child([&] {
          l.after_fork();
          return in_child([&] {
                   kind.object.close();
                   return true;
                 }) == 0 &&
                 in_child([&] {
                   l.after_fork();
                   return kind.provoke() && w.get().value() == "x";
                 }) == 0 &&
                 kind.provoke() && w.get().value() == "x";
        }) == 0);
  CHECK(kind.provoke());
  CHECK(w.get().value() == "x");
}

// The thread sanitizer cannot start threads in a child forked from several threads.
#if !defined(ANYIO_NET_NO_THREADS) && !ANYIO_NET_TEST_TSAN

namespace {

constexpr int most_helpers = 16;

/// All helper threads wait at a gate, and one more call waits for a helper.
struct busy_helpers {
  std::shared_ptr<support::gate> gate = std::make_shared<support::gate>();
  int succeeded = 0;
  int lost = 0;
  waiting<int> last;

  busy_helpers() {
    for (int i = 0; i < most_helpers; ++i) {
      anyio::to_thread::run_sync([at = gate] { at->pass(); }).start([this](result<> r) {
        succeeded += r.has_value();
        lost += r.error() == errc::os_error && r.error().os_error() == ECANCELED;
      });
    }
    loop::current().run_once(0s);
    gate->wait_for(most_helpers);
    by_callback::start(anyio::to_thread::run_sync([] { return 17; }), last);
    support::settle();
    CHECK(!last.done());
  }
  void release() {
    gate->open();
    while (succeeded < most_helpers) loop::current().run_once(1s);
    CHECK(last.get().value() == 17);
  }
};

}  // namespace

TEST_CASE("helper threads and look-ups work in a child forked while all helpers were busy") {
  for_both_faces([](auto face) {
    std::optional<loop> l(std::in_place);
    busy_helpers busy;
    CHECK(in_child([&] {
            support::scripted_loop own;
            own.system.on_resolve = [](const std::string&, std::uint16_t port, int) {
              return anyio::detail::resolved{{loopback(port)}, 0, nullptr};
            };
            for (int i = 0; i < 2 * most_helpers; ++i)
              if (face.get(anyio::to_thread::run_sync([i] { return i; })).value() != i) return false;
            return face.get(anyio::getaddrinfo("a.name", 80)).value().size() == 1 && !busy.last.done();
          }) == 0);
    CHECK(in_child([&] {
            l.reset();
            return anyio::run(anyio::to_thread::run_sync([] { return 7; })) == 7;
          }) == 0);
    busy.release();
  });
}

TEST_CASE("after_fork: a call running on a helper is lost, and a queued one begins") {
  loop l;
  busy_helpers busy;
  CHECK(in_child([&] {
          l.after_fork();
          return busy.last.get().value() == 17 && busy.lost == most_helpers && busy.succeeded == 0 &&
                 by_callback::get(anyio::to_thread::run_sync([] { return 7; })).value() == 7;
        }) == 0);
  busy.release();
  CHECK(busy.lost == 0);
}

#if !defined(ANYIO_NET_TEST_ASAN)  // which checks for leaks when the thread, the child's last, has ended
TEST_CASE("a child forked by a helper thread ends with the call") {
  loop l;
  const pid_t child = anyio::run(anyio::to_thread::run_sync([] {
    const pid_t made = ::fork();
    if (made == 0) ::alarm(30);
    return made;
  }));
  int status = 1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
}
#endif

#endif

#if !defined(ANYIO_NET_NO_THREADS)

TEST_CASE("a fork never holds a lock of a thread that posts, creates loops or catches signals") {
  std::optional<loop> l(std::in_place);
  anyio::loop_handle handle = l->handle();
  const anyio::loop_handle gone = loop().handle();
  anyio::signal_receiver receiver = anyio::signal_receiver::open(SIGUSR1).value();
  std::atomic<bool> over{false};
  std::atomic<int> rounds{0};
  std::atomic<int> posted_calls{0};
  std::thread other([&] {
    while (!over) {
      if (posted_calls < 100 && handle.post([&] { --posted_calls; })) ++posted_calls;
      loop own;
      auto mine = anyio::signal_receiver::open(SIGUSR1);
      own.handle().post([] {});
      own.run();
      for (int i = 0; i < 10'000; ++i) gone.post([] {});  // the thread holds this lock most of the time
      ++rounds;
    }
  });
  while (rounds == 0) std::this_thread::yield();
  for (int i = 0; i < 50; ++i) {
    l->run_once(0s);
    CHECK(in_child([&] {
            const bool posted = handle.post([] {}) && !gone.post([] {});
            l->after_fork();
            l->run();
            receiver.close();
            l.reset();
            loop own;
            return posted && !handle.post([] {}) && own.handle().post([] {});
          }) == 0);
  }
  over = true;
  other.join();
  l->run();
}

#endif
