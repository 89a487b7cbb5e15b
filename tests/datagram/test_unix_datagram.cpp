// UNIX datagram sockets, connected and not, and their names in the file system.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/allocations.hpp"
#include "support/custom_backend.hpp"
#include "support/faces.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using support::by_callback;
using support::by_coroutine;
using support::temp_dir;
using support::waiting;

unix_datagram_socket open_at(std::string_view path) {
  unix_datagram_options options;
  options.local_path = path;
  auto r = run(as_result(create_unix_datagram_socket(options)));
  CHECK(r.has_value());
  return r ? *std::move(r) : unix_datagram_socket();
}

connected_unix_datagram_socket connect_to(std::string_view path, std::string_view own = {}) {
  unix_datagram_options options;
  options.local_path = own;
  auto r = run(as_result(create_connected_unix_datagram_socket(path, options)));
  CHECK(r.has_value());
  return r ? *std::move(r) : connected_unix_datagram_socket();
}

bool exists(const std::string& path) {
  struct stat s;
  return ::lstat(path.c_str(), &s) == 0;
}

error open_error(std::string_view path) {
  unix_datagram_options options;
  options.local_path = path;
  return run(as_result(create_unix_datagram_socket(options))).error();
}

/// Sends until a send has to wait, and leaves it pending; returns how many were sent before.
template <class Face, class Send>
int fill_queue(Send send, waiting<void>& blocked) {
  for (int sent = 0; sent < 100000; ++sent) {
    Face::start(send(), blocked);
    support::settle();
    if (!blocked.done()) return sent;
    CHECK(blocked.get().has_value());
  }
  return -1;
}

}  // namespace

TEST_CASE_TEMPLATE("a UNIX datagram arrives with its sender's path", Face, by_callback, by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket a = open_at(dir.path("a"));
  unix_datagram_socket b = open_at(dir.path("b"));
  CHECK(a.local_path() == dir.path("a"));
  for (const std::string& sent : {std::string("hello"), std::string(), std::string(1000, 'x')}) {
    CHECK(Face::get(a.send_to(sent, dir.path("b"))).has_value());
    result<unix_packet> r = Face::get(b.receive());
    CHECK(r.has_value());
    if (!r) continue;
    auto& [data, sender] = *r;
    CHECK(data == sent);
    CHECK(sender == dir.path("a"));
  }
}

TEST_CASE_TEMPLATE("a socket without a name sends with an empty sender path", Face, by_callback,
                   by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket named = open_at(dir.path("s"));
  auto unnamed = run(as_result(create_unix_datagram_socket()));
  CHECK(unnamed.has_value());
  if (!unnamed) return;
  CHECK(unnamed->local_path().empty());
  CHECK(Face::get(unnamed->send_to("x", dir.path("s"))).has_value());
  result<unix_packet> r = Face::get(named.receive());
  CHECK((r && r->data == "x" && r->sender.empty()));
}

TEST_CASE_TEMPLATE("a connected UNIX socket exchanges datagrams with its peer", Face, by_callback,
                   by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket server = open_at(dir.path("server"));
  connected_unix_datagram_socket c = connect_to(dir.path("server"), dir.path("client"));
  CHECK(c.remote_path() == dir.path("server"));
  CHECK(c.local_path() == dir.path("client"));
  CHECK(Face::get(c.send("ping")).has_value());
  result<unix_packet> ping = Face::get(server.receive());
  CHECK((ping && ping->data == "ping" && ping->sender == dir.path("client")));
  CHECK(Face::get(server.send_to("pong", dir.path("client"))).has_value());
  result<std::string> pong = Face::get(c.receive());
  CHECK((pong && *pong == "pong"));
  c.close();
  CHECK(c.remote_path() == dir.path("server"));
}

TEST_CASE_TEMPLATE("a large UNIX datagram arrives whole", Face, by_callback, by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket server = open_at(dir.path("s"));
  connected_unix_datagram_socket c = connect_to(dir.path("s"));
  std::string sent(200000, '?');
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i % 251);
  CHECK(Face::get(c.send(sent)).has_value());
  result<unix_packet> r = Face::get(server.receive());
  CHECK((r && r->data == sent));
  const result<void> too_long = Face::get(c.send(std::string(10'000'000, 'x')));
  CHECK(too_long.error() == errc::os_error);
  CHECK(too_long.error().os_error() == EMSGSIZE);
  CHECK(Face::get(c.send("after")).has_value());
}

TEST_CASE_TEMPLATE("a send waits for a full queue to drain", Face, by_callback, by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket server = open_at(dir.path("s"));
  waiting<void> blocked;
  int sent = 0;
  unix_datagram_socket sender = open_at(dir.path("c"));
  connected_unix_datagram_socket connected = connect_to(dir.path("s"));
  SUBCASE("by path") {
    sent = fill_queue<Face>([&] { return sender.send_to("x", dir.path("s")); }, blocked);
  }
  SUBCASE("connected") {
    sent = fill_queue<Face>([&] { return connected.send("x"); }, blocked);
  }
  CHECK(sent > 0);
  for (int i = 0; i < sent; ++i) CHECK(Face::get(server.receive()).has_value());
  CHECK(blocked.get().has_value());
  CHECK(Face::get(server.receive()).has_value());
}

TEST_CASE_TEMPLATE("a blocked send is ended by close, by cancel and by a timeout", Face, by_callback,
                   by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket server = open_at(dir.path("s"));
  unix_datagram_socket sender = open_at(dir.path("c"));
  waiting<void> blocked;
  CHECK(fill_queue<Face>([&] { return sender.send_to("x", dir.path("s")); }, blocked) > 0);
  CHECK(Face::get(sender.send_to("y", dir.path("s"))).error() == errc::busy_resource);
  sender.cancel();
  CHECK(blocked.get().error() == errc::cancelled);
  CHECK(Face::get(fail_after(3ms, sender.send_to("z", dir.path("s")))).error() == errc::timed_out);
  CHECK(!Face::get(move_on_after(0ms, sender.send_to("z", dir.path("s")))).value_or(true));
  Face::start(sender.send_to("w", dir.path("s")), blocked);
  support::settle();
  CHECK(!blocked.done());
  sender.close();
  CHECK(blocked.get().error() == errc::closed_resource);
}

TEST_CASE("a blocked send does not spin") {
  class counting : public support::custom_backend {
   public:
    int sends = 0;
    ssize_t send(int fd, const void* data, std::size_t size) override {
      ++sends;
      return custom_backend::send(fd, data, size);
    }
    ssize_t send_message(int fd, const detail::message& m) override {
      ++sends;
      return custom_backend::send_message(fd, m);
    }
  };
  auto made = std::make_unique<counting>();
  counting& system = *made;
  loop l(std::move(made));
  temp_dir dir;
  unix_datagram_socket server = open_at(dir.path("s"));
  unix_datagram_socket sender = open_at(dir.path("c"));
  connected_unix_datagram_socket connected = connect_to(dir.path("s"));
  waiting<void> blocked;
  CHECK(fill_queue<by_callback>([&] { return sender.send_to("x", dir.path("s")); }, blocked) > 0);
  sender.cancel();
  CHECK(blocked.get().error() == errc::cancelled);
  system.sends = 0;
  CHECK(run(as_result(fail_after(40ms, sender.send_to("x", dir.path("s"))))).error() == errc::timed_out);
  CHECK(system.sends <= 20);
  system.sends = 0;
  CHECK(run(as_result(fail_after(40ms, connected.send("x")))).error() == errc::timed_out);
  CHECK(system.sends <= 20);
}

TEST_CASE_TEMPLATE("a full queue does not block other receivers", Face, by_callback, by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket full = open_at(dir.path("full"));
  unix_datagram_socket idle = open_at(dir.path("idle"));
  unix_datagram_socket sender = open_at(dir.path("c"));
  waiting<void> blocked;
  CHECK(fill_queue<Face>([&] { return sender.send_to("x", dir.path("full")); }, blocked) > 0);
  sender.cancel();
  CHECK(blocked.get().error() == errc::cancelled);
  CHECK(Face::get(sender.send_to("y", dir.path("idle"))).has_value());
  CHECK(Face::get(idle.receive()).has_value());
}

TEST_CASE_TEMPLATE("errors of one path leave the socket usable", Face, by_callback, by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket a = open_at(dir.path("a"));
  unix_datagram_socket b = open_at(dir.path("b"));
  const error missing = Face::get(a.send_to("x", dir.path("nothing"))).error();
  CHECK(missing == errc::os_error);
  CHECK(missing.os_error() == ENOENT);
  open_at(dir.path("gone")).close();
  const error refused = Face::get(a.send_to("x", dir.path("gone"))).error();
  CHECK(refused == errc::os_error);
  CHECK(refused.os_error() == ECONNREFUSED);
  const error too_long = Face::get(a.send_to("x", std::string(108, 'p'))).error();
  CHECK(too_long == errc::os_error);
  CHECK(too_long.os_error() == ENAMETOOLONG);
  CHECK(Face::get(a.send_to("x", dir.path("b"))).has_value());
  CHECK(Face::get(b.receive()).has_value());

  connected_unix_datagram_socket c = connect_to(dir.path("b"));
  b.close();
  const error peer_gone = Face::get(c.send("x")).error();
  CHECK(peer_gone == errc::broken_resource);
  CHECK(peer_gone.os_error() == ECONNREFUSED);
}

TEST_CASE("connecting to a missing path, or one without a receiver, is os_error") {
  loop l;
  temp_dir dir;
  const error missing = run(as_result(create_connected_unix_datagram_socket(dir.path("x")))).error();
  CHECK(missing == errc::os_error);
  CHECK(missing.os_error() == ENOENT);
  CHECK(missing.operation() == "connect");
  open_at(dir.path("gone")).close();
  CHECK(run(as_result(create_connected_unix_datagram_socket(dir.path("gone")))).error().os_error() ==
        ECONNREFUSED);
}

TEST_CASE("only a stale socket file is removed") {
  loop l;
  temp_dir dir;
  const std::string path = dir.path("s");
  SUBCASE("a file left by an earlier process") {
    { unix_datagram_socket before = open_at(path); }
    CHECK(exists(path));
    unix_datagram_socket now = open_at(path);
    unix_datagram_socket other = open_at(dir.path("o"));
    CHECK(run(as_result(other.send_to("x", path))).has_value());
    CHECK(run(as_result(now.receive())).has_value());
  }
  SUBCASE("a file left by a stream socket") {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, path.c_str(), path.size());
    CHECK(::bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0);
    CHECK(open_error(path).os_error() == EADDRINUSE);  // bound, of another type
    ::close(fd);
    open_at(path);
  }
  SUBCASE("a file in use stays") {
    unix_datagram_socket live = open_at(path);
    const error e = open_error(path);
    CHECK(e == errc::os_error);
    CHECK(e.os_error() == EADDRINUSE);
    CHECK(e.operation() == "bind");
    connected_unix_datagram_socket c = connect_to(path);
    CHECK(run(as_result(c.send("x"))).has_value());
    auto r = run(as_result(live.receive()));
    CHECK((r && r->data == "x"));  // the probe left no datagram behind
  }
  SUBCASE("a file stays") {
    ::close(::open(path.c_str(), O_CREAT | O_WRONLY, 0600));
    CHECK(open_error(path).os_error() == EADDRINUSE);
    CHECK(exists(path));
  }
  SUBCASE("a symbolic link to a stale file stays") {
    { unix_datagram_socket before = open_at(dir.path("target")); }
    CHECK(::symlink(dir.path("target").c_str(), path.c_str()) == 0);
    CHECK(open_error(path).os_error() == EADDRINUSE);
    CHECK(exists(path));
    CHECK(exists(dir.path("target")));
  }
  SUBCASE("a directory stays") {
    CHECK(::mkdir(path.c_str(), 0700) == 0);
    CHECK(open_error(path).os_error() == EADDRINUSE);
  }
}

TEST_CASE("the mode is set on the file, and ignored for an abstract name") {
  loop l;
  temp_dir dir;
  unix_datagram_options options;
  const std::string path = dir.path("s");
  options.local_path = path;
  options.local_mode = 0640;
  auto s = run(as_result(create_unix_datagram_socket(options)));
  CHECK(s.has_value());
  struct stat status;
  CHECK(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0640);
#if defined(__linux__)
  const std::string name = std::string(1, '\0') + dir.path("abstract");
  options.local_path = name;
  CHECK(run(as_result(create_unix_datagram_socket(options))).has_value());
#endif
}

#if defined(__linux__)
TEST_CASE("the file never has more permissions than its mode, from its creation on") {
  struct watching final : support::custom_backend {
    std::string path;
    mode_t at_bind = 0;
    int bind(int fd, const sockaddr* address, socklen_t size) override {
      const int status = custom_backend::bind(fd, address, size);
      struct stat made;
      if (status == 0 && ::lstat(path.c_str(), &made) == 0) at_bind = made.st_mode & 0777;
      return status;
    }
  };
  auto owned = std::make_unique<watching>();
  watching& system = *owned;
  loop l(std::move(owned));
  temp_dir dir;
  system.path = dir.path("s");
  struct umask_guard {
    mode_t before = ::umask(0);
    ~umask_guard() { ::umask(before); }
  } guard;
  for (const mode_t mask : {mode_t{0}, mode_t{022}}) {
    ::umask(mask);
    for (const mode_t mode : {mode_t{0600}, mode_t{0666}, mode_t{0}}) {
      CAPTURE(mode);
      unix_datagram_options options;
      options.local_path = system.path;
      options.local_mode = mode;
      CHECK(run(as_result(create_unix_datagram_socket(options))).has_value());
      CHECK(system.at_bind == (mode & ~mask));
      struct stat status;
      CHECK(::stat(system.path.c_str(), &status) == 0);
      CHECK((status.st_mode & 0777) == mode);
      CHECK(::unlink(system.path.c_str()) == 0);
      CHECK(run(as_result(create_unix_listener(system.path, {.mode = mode}))).has_value());
      CHECK(system.at_bind == (mode & ~mask));
      CHECK(::unlink(system.path.c_str()) == 0);
    }
  }
}
#endif

TEST_CASE("closing does not remove the file") {
  loop l;
  temp_dir dir;
  open_at(dir.path("s")).close();
  CHECK(exists(dir.path("s")));
}

TEST_CASE("a path may contain any bytes, up to 107") {
  loop l;
  temp_dir dir;
  const std::string odd = dir.path("\xff\xfe caf\xe9");
  unix_datagram_socket a = open_at(odd);
  std::string longest = dir.path("");
  longest.append(107 - longest.size(), 'p');
  unix_datagram_socket b = open_at(longest);
  CHECK(b.local_path() == longest);
  CHECK(run(as_result(b.send_to("x", odd))).has_value());
  auto r = run(as_result(a.receive()));
  CHECK((r && r->sender == longest));
  CHECK(run(as_result(a.send_to("x", longest))).has_value());
  r = run(as_result(b.receive()));
  CHECK((r && r->sender == odd));

  const error e = open_error(longest + "p");
  CHECK(e == errc::os_error);
  CHECK(e.os_error() == ENAMETOOLONG);
  CHECK(run(as_result(create_connected_unix_datagram_socket(longest + "p"))).error().os_error() ==
        ENAMETOOLONG);
}

#if defined(__linux__)
TEST_CASE("an abstract name keeps its exact bytes, up to 108") {
  loop l;
  temp_dir dir;
  const std::string base = std::string(1, '\0') + dir.path() + std::string("\0with\0NULs\0", 11);
  std::string longest = base;
  longest.append(108 - longest.size(), 'a');
  unix_datagram_socket a = open_at(base);
  unix_datagram_socket b = open_at(longest);
  CHECK(run(as_result(b.send_to("x", base))).has_value());
  auto r = run(as_result(a.receive()));
  CHECK((r && r->sender == longest));
  CHECK(run(as_result(a.send_to("x", longest))).has_value());
  r = run(as_result(b.receive()));
  CHECK((r && r->sender == base));
  CHECK(open_error(base).os_error() == EADDRINUSE);
  CHECK(open_error(longest + "a").os_error() == ENAMETOOLONG);
}
#endif

TEST_CASE_TEMPLATE("closing a UNIX socket ends pending operations", Face, by_callback, by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket a = open_at(dir.path("a"));
  waiting<unix_packet> w;
  Face::start(a.receive(), w);
  support::settle();
  CHECK(Face::get(a.receive()).error() == errc::busy_resource);
  a.close();
  CHECK(w.get().error() == errc::closed_resource);
  CHECK(Face::get(a.receive()).error() == errc::closed_resource);
  CHECK(Face::get(a.send_to("x", dir.path("a"))).error() == errc::closed_resource);
  CHECK(a.local_path() == dir.path("a"));
}

TEST_CASE("the options are copied before the function returns") {
  loop l;
  temp_dir dir;
  std::string path = dir.path("here");
  unix_datagram_options options;
  options.local_path = path;
  auto op = create_unix_datagram_socket(options);
  path.assign(path.size(), '?');
  auto s = run(as_result(std::move(op)));
  CHECK(s.has_value());
  CHECK(exists(dir.path("here")));
  if (!s) return;
  std::string to = dir.path("here");
  auto send = s->send_to("x", to);
  to.assign(to.size(), '?');
  CHECK(run(as_result(std::move(send))).has_value());
}

TEST_CASE("from_fd adopts UNIX datagram sockets, and reports what is wrong with others") {
  loop l;
  int pair[2] = {-1, -1};
  CHECK(::socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
  result<connected_unix_datagram_socket> a = connected_unix_datagram_socket::from_fd(pair[0]);
  result<connected_unix_datagram_socket> b = connected_unix_datagram_socket::from_fd(pair[1]);
  CHECK(a.has_value());
  CHECK(b.has_value());
  if (!a || !b) return;
  CHECK(a->remote_path().empty());
  CHECK(run(as_result(a->send("x"))).has_value());
  CHECK(run(as_result(b->receive())).has_value());

  const int single = ::socket(AF_UNIX, SOCK_DGRAM, 0);
  const int stream = ::socket(AF_UNIX, SOCK_STREAM, 0);
  const int udp = ::socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(connected_unix_datagram_socket::from_fd(single).error() == errc::invalid_argument);
  CHECK(unix_datagram_socket::from_fd(stream).error() == errc::invalid_argument);
  CHECK(unix_datagram_socket::from_fd(udp).error() == errc::invalid_argument);
  for (const int fd : {single, stream, udp}) CHECK(::fcntl(fd, F_GETFD) != -1);
  CHECK(unix_datagram_socket::from_fd(single).has_value());  // needs neither bound nor connected
  ::close(stream);
  ::close(udp);
}

TEST_CASE("UNIX operations do not allocate after the first receive of their socket") {
  loop l;
  temp_dir dir;
  unix_datagram_socket server = open_at(dir.path("s"));
  connected_unix_datagram_socket c = connect_to(dir.path("s"));
  std::size_t count = 0;
  task<> t = [](unix_datagram_socket& s, connected_unix_datagram_socket& x, std::size_t& n) -> task<> {
    for (int i = 0; i < 10; ++i) {
      const support::allocation_scope scope;
      co_await x.send("short");
      co_await s.receive();
      if (i > 1) n += scope.count();
    }
  }(server, c, count);
  bool ok = false;
  t.start([&ok](const result<void>& r) { ok = r.has_value(); });
  l.run();
  CHECK(ok);
  if (support::counts_allocations) CHECK(count == 0);
}
