// UDP sockets, connected and not.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/allocations.hpp"
#include "support/custom_backend.hpp"
#include "support/faces.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using support::by_callback;
using support::by_coroutine;
using support::waiting;

const ip_endpoint any_port_v4{ip_address::loopback_v4(), 0};
const ip_endpoint any_port_v6{ip_address::loopback_v6(), 0};

udp_socket open_udp(const ip_endpoint& at = any_port_v4) {
  result<udp_socket> r = udp_socket::open(at);
  CHECK(r.has_value());
  return r ? *std::move(r) : udp_socket();
}

connected_udp_socket open_connected(const ip_endpoint& to) {
  result<connected_udp_socket> r = connected_udp_socket::open(to);
  CHECK(r.has_value());
  return r ? *std::move(r) : connected_udp_socket();
}

std::string_view text(const std::vector<std::byte>& bytes, std::size_t size) {
  return {reinterpret_cast<const char*>(bytes.data()), size};
}

/// A port of the family without a receiver.
ip_endpoint refusing(const ip_endpoint& at) {
  udp_socket s = open_udp(at);
  const ip_endpoint was = s.local_endpoint();
  s.close();
  return was;
}

}  // namespace

TEST_CASE_TEMPLATE("a datagram arrives with its sender", Face, by_callback, by_coroutine) {
  loop l;
  for (const ip_endpoint& at : {any_port_v4, any_port_v6}) {
    udp_socket a = open_udp(at);
    udp_socket b = open_udp(at);
    CHECK(Face::get(a.send_to("hello", b.local_endpoint())).has_value());
    result<udp_packet> r = Face::get(b.receive());
    CHECK(r.has_value());
    if (!r) continue;
    auto& [data, sender] = *r;
    CHECK(data == "hello");
    CHECK(sender == a.local_endpoint());
  }
}

TEST_CASE_TEMPLATE("a receive waits for its datagram", Face, by_callback, by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  waiting<udp_packet> w;
  Face::start(b.receive(), w);
  support::settle();
  CHECK(!w.done());
  CHECK(Face::get(a.send_to("late", b.local_endpoint())).has_value());
  result<udp_packet> r = w.get();
  CHECK(r.has_value());
  if (r) CHECK(r->data == "late");
}

TEST_CASE_TEMPLATE("message boundaries are kept, and an empty datagram is received", Face, by_callback,
                   by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  const std::string sent[] = {"one", "", "three", std::string(1000, 'x'), ""};
  for (const std::string& s : sent) CHECK(Face::get(a.send_to(s, b.local_endpoint())).has_value());
  for (const std::string& s : sent) {
    result<udp_packet> r = Face::get(b.receive());
    CHECK(r.has_value());
    if (r) CHECK(r->data == s);
  }
  std::vector<std::byte> into(16);
  CHECK(Face::get(a.send_to("", b.local_endpoint())).has_value());
  result<udp_received> r = Face::get(b.receive(into));
  CHECK(r.has_value());
  if (r) {
    CHECK(r->size == 0);
    CHECK(!r->truncated);
    CHECK(r->sender == a.local_endpoint());
  }
}

TEST_CASE_TEMPLATE("65507 bytes are sent, 65508 are rejected, and the socket stays usable", Face, by_callback,
                   by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  const std::string longest(65507, 'z');
  CHECK(Face::get(a.send_to(longest, b.local_endpoint())).has_value());
  result<udp_packet> r = Face::get(b.receive());
  CHECK(r.has_value());
  if (r) CHECK(r->data == longest);
  const result<void> too_long = Face::get(a.send_to(std::string(65508, 'z'), b.local_endpoint()));
  CHECK(too_long.error() == errc::os_error);
  CHECK(too_long.error().os_error() == EMSGSIZE);
  CHECK(too_long.error().operation() == "send_to");
  CHECK(Face::get(a.send_to("after", b.local_endpoint())).has_value());
  r = Face::get(b.receive());
  CHECK(r.has_value());
  if (r) CHECK(r->data == "after");
}

TEST_CASE_TEMPLATE("a datagram larger than the buffer is truncated, and this is reported", Face, by_callback,
                   by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  for (const char* s : {"123456", "12345", "next"})
    CHECK(Face::get(a.send_to(s, b.local_endpoint())).has_value());
  std::vector<std::byte> into(5);
  result<udp_received> r = Face::get(b.receive(into));
  CHECK(r.has_value());
  if (r) {
    CHECK(r->size == 5);
    CHECK(r->truncated);
    CHECK(text(into, 5) == "12345");
  }
  r = Face::get(b.receive(into));
  CHECK((r && r->size == 5 && !r->truncated));
  r = Face::get(b.receive(into));
  CHECK((r && r->size == 4 && !r->truncated && text(into, 4) == "next"));

  connected_udp_socket c = open_connected(a.local_endpoint());
  CHECK(Face::get(a.send_to("1234567", c.local_endpoint())).has_value());
  const result<received> cut = Face::get(c.receive(into));
  CHECK((cut && cut->size == 5 && cut->truncated));
}

TEST_CASE_TEMPLATE("a connected socket receives only from its peer", Face, by_callback, by_coroutine) {
  loop l;
  udp_socket peer = open_udp();
  udp_socket stranger = open_udp();
  connected_udp_socket c = open_connected(peer.local_endpoint());
  CHECK(c.remote_endpoint() == peer.local_endpoint());
  CHECK(c.local_endpoint().port != 0);
  CHECK(Face::get(stranger.send_to("spam", c.local_endpoint())).has_value());
  CHECK(Face::get(c.send("ping")).has_value());
  result<udp_packet> ping = Face::get(peer.receive());
  CHECK((ping && ping->data == "ping" && ping->sender == c.local_endpoint()));
  CHECK(Face::get(peer.send_to("pong", c.local_endpoint())).has_value());
  result<std::string> pong = Face::get(c.receive());
  CHECK((pong && *pong == "pong"));
}

TEST_CASE_TEMPLATE("a refusal is raised once, by a receive, and the socket stays usable", Face, by_callback,
                   by_coroutine) {
  loop l;
  for (const ip_endpoint& at : {any_port_v4, any_port_v6}) {
    const ip_endpoint nobody = refusing(at);
    connected_udp_socket c = open_connected(nobody);
    waiting<std::string> w;
    Face::start(c.receive(), w);
    support::settle();
    CHECK(Face::get(c.send("anybody?")).has_value());
    const result<std::string> refused = w.get();
    CHECK(refused.error() == errc::broken_resource);
    CHECK(refused.error() == std::errc::connection_refused);
    CHECK(refused.error().operation() == "receive");
    CHECK(c);
    Face::start(c.receive(), w);
    support::settle();
    CHECK(!w.done());  // once
    udp_socket somebody = open_udp(nobody);
    CHECK(Face::get(c.send("now?")).has_value());
    result<udp_packet> got = Face::get(somebody.receive());
    CHECK((got && got->data == "now?"));
    CHECK(Face::get(somebody.send_to("yes", c.local_endpoint())).has_value());
    const result<std::string> answer = w.get();
    CHECK((answer && *answer == "yes"));
  }
}

TEST_CASE_TEMPLATE("a refusal that no receive reported is raised once by a send", Face, by_callback,
                   by_coroutine) {
  loop l;
  connected_udp_socket c = open_connected(refusing(any_port_v4));
  CHECK(Face::get(c.send("1")).has_value());
  const result<void> refused = Face::get(c.send("2"));
  CHECK(refused.error() == errc::broken_resource);
  CHECK(refused.error() == std::errc::connection_refused);
  CHECK(Face::get(c.send("3")).has_value());
}

TEST_CASE_TEMPLATE("an unconnected socket reports no refusals", Face, by_callback, by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  CHECK(Face::get(a.send_to("x", refusing(any_port_v4))).has_value());
  CHECK(Face::get(a.send_to("x", b.local_endpoint())).has_value());
  waiting<udp_packet> w;
  Face::start(a.receive(), w);
  support::settle();
  CHECK(!w.done());
}

TEST_CASE_TEMPLATE("an empty buffer is checked before closed, and closed before busy", Face, by_callback,
                   by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  waiting<udp_packet> first;
  Face::start(a.receive(), first);
  support::settle();
  CHECK(Face::get(a.receive(mutable_buffer())).error() == errc::invalid_argument);
  const error busy = Face::get(a.receive()).error();
  CHECK(busy == errc::busy_resource);
  CHECK(busy.operation() == "receive");
  std::array<std::byte, 4> into{};
  CHECK(Face::get(a.receive(into)).error() == errc::busy_resource);
  CHECK(Face::get(b.send_to("unharmed", a.local_endpoint())).has_value());
  result<udp_packet> r = first.get();
  CHECK((r && r->data == "unharmed"));
  a.close();
  CHECK(Face::get(a.receive(mutable_buffer())).error() == errc::invalid_argument);
  CHECK(Face::get(a.receive()).error() == errc::closed_resource);
  CHECK(Face::get(a.send_to("x", b.local_endpoint())).error() == errc::closed_resource);
  udp_socket never;
  CHECK(!never);
  CHECK(Face::get(never.receive()).error() == errc::closed_resource);
  CHECK(Face::get(receive_from_operation()).error() == errc::invalid_argument);
  CHECK(Face::get(send_to_operation()).error() == errc::invalid_argument);
}

TEST_CASE_TEMPLATE("closing ends pending operations, and frees the port", Face, by_callback, by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  const ip_endpoint at = a.local_endpoint();
  waiting<udp_packet> w;
  Face::start(a.receive(), w);
  support::settle();
  a.close();
  a.close();
  udp_socket again = open_udp(at);
  CHECK(w.get().error() == errc::closed_resource);
  CHECK(!a);
  CHECK(a.native_handle() == -1);
  CHECK(a.local_endpoint() == at);
  CHECK(again.local_endpoint() == at);
}

TEST_CASE_TEMPLATE("cancel ends pending operations, but an available datagram is delivered", Face,
                   by_callback, by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  waiting<udp_packet> w;
  Face::start(a.receive(), w);
  support::settle();
  a.cancel();
  CHECK(!w.done());
  CHECK(w.get().error() == errc::cancelled);
  Face::start(a.receive(), w);
  support::settle();
  CHECK(Face::get(b.send_to("there", a.local_endpoint())).has_value());
  a.cancel();
  result<udp_packet> r = w.get();
  CHECK((r && r->data == "there"));
}

TEST_CASE_TEMPLATE("destroying a receive loses no datagram", Face, by_callback, by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  bool ran = false;
  {
    receive_packet_operation op = a.receive();
    task<> t = [](udp_socket& s, bool& done) -> task<> {
      static_cast<void>(co_await as_result(s.receive()));
      done = true;
    }(a, ran);
    if (std::is_same_v<Face, by_coroutine>) {
      t.start([](const result<void>&) {});
    } else {
      op.start([&ran](const result<udp_packet>&) { ran = true; });
    }
    support::settle();
    // It is sent inside `start`, and the loop has not run since.
    b.send_to("kept", a.local_endpoint()).start([](const result<void>&) {});
  }
  support::settle();
  CHECK(!ran);
  result<udp_packet> r = Face::get(a.receive());
  CHECK((r && r->data == "kept"));
}

TEST_CASE("a timeout leaves the socket usable") {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  CHECK(run(as_result(fail_after(1ms, a.receive()))).error() == errc::timed_out);
  CHECK(!run(move_on_after(0ms, a.receive())).has_value());
  CHECK(run(as_result(b.send_to("x", a.local_endpoint()))).has_value());
  auto r = run(move_on_after(0ms, a.receive()));
  CHECK((r && r->data == "x"));
}

TEST_CASE_TEMPLATE("a socket can be moved while operations are pending", Face, by_callback, by_coroutine) {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  waiting<udp_packet> w;
  Face::start(a.receive(), w);
  support::settle();
  udp_socket moved = std::move(a);
  CHECK(moved);
  CHECK(!a);  // NOLINT: what it is afterwards is promised
  CHECK(Face::get(b.send_to("follows", moved.local_endpoint())).has_value());
  result<udp_packet> r = w.get();
  CHECK((r && r->data == "follows"));
  Face::start(moved.receive(), w);
  support::settle();
  moved = open_udp();
  CHECK(w.get().error() == errc::closed_resource);
}

TEST_CASE("the callback of a named operation may start it again") {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  struct session {
    udp_socket& socket;
    receive_from_operation op;
    std::array<std::byte, 8> into{};
    int count = 0;
    void next() {
      op = socket.receive(into);
      op.start([this](const result<udp_received>& r) {
        if (!r) return;
        if (++count < 3) next();
      });
    }
  } s{a, {}, {}, 0};
  s.next();
  for (int i = 0; i < 3; ++i) CHECK(by_callback::get(b.send_to("x", a.local_endpoint())).has_value());
  l.run();
  CHECK(s.count == 3);
}

TEST_CASE("a sent view of the loop's buffer arrives unchanged, whatever is received later") {
  // An echo that answers from a buffer that the next receive overwrites: sends happen inside `start`.
  class blocking : public support::custom_backend {
   public:
    bool block = false;
    ssize_t send_message(int fd, const detail::message& m) override {
      if (std::exchange(block, false)) return -EAGAIN;
      return custom_backend::send_message(fd, m);
    }
  };
  auto made = std::make_unique<blocking>();
  blocking& system = *made;
  loop l(std::move(made));
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  const mutable_buffer shared = detail::loop_core::current().buffer();
  support::settle();  // the socket is known to be writable by now: no event will arrive
  const auto fill = [&](char c) { std::memset(shared.data(), c, 4); };
  const const_buffer view(shared.data(), 4);
  int sent = 0;
  SUBCASE("if the send completes at once") {
    fill('1');
    a.send_to(view, b.local_endpoint()).start([&](const result<void>& r) { sent += r.has_value(); });
    fill('?');
    l.run();
  }
  SUBCASE("if the send has to wait") {
    fill('1');
    system.block = true;
    send_to_operation op = a.send_to(view, b.local_endpoint());
    op.start([&](const result<void>& r) { sent += r.has_value(); });
    fill('?');
    support::settle();
    CHECK(sent == 0);
    a.cancel();  // its final attempt
    l.run();
  }
  SUBCASE("if the send begins later") {
    fill('1');
    task_group group;
    group.start_soon(a.send_to(view, b.local_endpoint()));
    fill('?');
    CHECK(run(as_result(group.join())).has_value());
    sent = 1;
  }
  CHECK(sent == 1);
  fill('!');
  auto r = run(move_on_after(5s, b.receive()));
  CHECK((r && r->data == "1111"));
}

TEST_CASE("the result of an immediate send is delivered later, and not after close") {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  waiting<void> w;
  by_callback::start(a.send_to("x", b.local_endpoint()), w);
  CHECK(!w.done());
  a.close();
  CHECK(w.get().error() == errc::closed_resource);
  auto r = run(move_on_after(5s, b.receive()));
  CHECK(r.has_value());
}

TEST_CASE("a moved-in string is kept during the send") {
  class blocking : public support::custom_backend {
   public:
    int blocked = 0;
    ssize_t send_message(int fd, const detail::message& m) override {
      if (blocked-- > 0) return -EAGAIN;
      return custom_backend::send_message(fd, m);
    }
  };
  auto made = std::make_unique<blocking>();
  blocking& system = *made;
  loop l(std::move(made));
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  for (const std::size_t size : {std::size_t{3}, std::size_t{100}}) {
    system.blocked = 1;
    std::string given(size, 'g');
    send_to_operation op = a.send_to(std::move(given), b.local_endpoint());
    given.assign(size, '?');  // NOLINT: somebody else's by now
    send_to_operation moved = std::move(op);
    bool ok = false;
    moved.start([&ok](const result<void>& r) { ok = r.has_value(); });
    support::settle();
    a.cancel();
    l.run();
    CHECK(ok);
    auto r = run(move_on_after(5s, b.receive()));
    CHECK((r && r->data == std::string(size, 'g')));
  }
}

TEST_CASE("a flood does not starve other operations") {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  for (int i = 0; i < 200; ++i) CHECK(run(as_result(b.send_to("flood", a.local_endpoint()))).has_value());
  int received = 0;
  int at_post = -1;
  task<> reader = [](udp_socket& s, int& n) -> task<> {
    for (; n < 200; ++n) {
      auto r = co_await as_result(s.receive());
      if (!r) co_return;
    }
  }(a, received);
  reader.start([](const result<void>&) {});
  l.post([&] { at_post = received; });
  l.run();
  CHECK(received == 200);
  CHECK(at_post >= 0);
  CHECK(at_post < 200);
}

TEST_CASE("no operation allocates") {
  loop l;
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  connected_udp_socket c = open_connected(a.local_endpoint());
  std::array<std::byte, 64> into{};
  std::size_t count = 0;
  task<> t = [](udp_socket& x, udp_socket& y, connected_udp_socket& z, std::array<std::byte, 64>& room,
                std::size_t& n) -> task<> {
    for (int i = 0; i < 20; ++i) {
      const support::allocation_scope scope;
      co_await y.send_to("some bytes", x.local_endpoint());
      co_await x.receive(room);
      co_await z.send("some bytes");
      co_await x.receive(room);
      co_await x.send_to(std::string_view("back"), z.local_endpoint());
      co_await z.receive(room);
      y.send_to("some bytes", x.local_endpoint()).start([](const result<void>&) {});
      co_await x.receive(room);
      co_await sleep(0ms);  // until then the sender is busy
      if (i > 1) n += scope.count();
    }
  }(a, b, c, into, count);
  bool ok = false;
  t.start([&ok](const result<void>& r) { ok = r.has_value(); });
  l.run();
  CHECK(ok);
  if (support::counts_allocations) CHECK(count == 0);
}

TEST_CASE("a socket that outlives its loop is closed") {
  udp_socket s;
  receive_packet_operation waits;
  bool ran = false;
  {
    loop l;
    s = open_udp();
    waits = s.receive();
    waits.start([&ran](const result<udp_packet>&) { ran = true; });
    support::settle();
  }
  CHECK(!s);
  CHECK(!ran);
  CHECK(s.local_endpoint().port != 0);
  CHECK(s.set_broadcast(true).error() == errc::closed_resource);
  loop other;
  CHECK(run(as_result(s.receive())).error() == errc::closed_resource);
}

TEST_CASE("options are set and read") {
  loop l;
  udp_socket s = open_udp();
  CHECK(s.set_option(SOL_SOCKET, SO_RCVBUF, 65536).has_value());
  CHECK(s.get_option(SOL_SOCKET, SO_RCVBUF).value_or(0) >= 65536);
  CHECK(s.set_broadcast(true).has_value());
  CHECK(s.get_option(SOL_SOCKET, SO_BROADCAST).value_or(0) == 1);
  const result<> wrong = s.set_option(SOL_SOCKET, 9999, 1);
  CHECK(wrong.error() == errc::os_error);
  CHECK(wrong.error().os_error() == ENOPROTOOPT);
  s.close();
  CHECK(s.get_option(SOL_SOCKET, SO_RCVBUF).error() == errc::closed_resource);
}

TEST_CASE("without reuse a port has one owner, with reuse several") {
  loop l;
  udp_socket first = open_udp();
  const error taken = udp_socket::open(first.local_endpoint()).error();
  CHECK(taken == errc::os_error);
  CHECK(taken.os_error() == EADDRINUSE);
  CHECK(taken.operation() == "bind");
  udp_options shared;
  SUBCASE("reuse_port") { shared.reuse_port = true; }
  SUBCASE("reuse_address") { shared.reuse_address = true; }
  result<udp_socket> a = udp_socket::open(any_port_v4, shared);
  CHECK(a.has_value());
  if (!a) return;
  CHECK(udp_socket::open(a->local_endpoint(), shared).has_value());
}

TEST_CASE("prepare is called between socket and bind, and may reject the socket") {
  loop l;
  struct seen {
    int fd = -1;
    bool unbound = false;
    int answer = 0;
  } s;
  udp_options options;
  options.prepare = [](int fd, void* data) {
    auto& me = *static_cast<seen*>(data);
    me.fd = fd;
    sockaddr_in name{};
    socklen_t size = sizeof name;
    me.unbound = ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0 && name.sin_port == 0;
    return me.answer;
  };
  options.prepare_data = &s;
  CHECK(udp_socket::open(any_port_v4, options).has_value());
  CHECK(s.unbound);
  s.answer = EPERM;
  const error refused = udp_socket::open(any_port_v4, options).error();
  CHECK(refused == errc::os_error);
  CHECK(refused.os_error() == EPERM);
  CHECK(refused.operation() == "prepare");
  CHECK(::fcntl(s.fd, F_GETFD) == -1);
}

TEST_CASE("from_fd adopts a bound socket, and reports what is wrong with others") {
  loop l;
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  const error unbound = udp_socket::from_fd(fd).error();
  CHECK(unbound == errc::invalid_argument);
  CHECK(unbound.message().find("not bound") != std::string::npos);
  CHECK(connected_udp_socket::from_fd(fd).error().message().find("not connected") != std::string::npos);
  sockaddr_storage address{};
  const socklen_t size = any_port_v4.to_sockaddr(address);
  CHECK(::bind(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0);
  CHECK(::fcntl(fd, F_GETFD) != -1);  // still owned by the test
  {
    result<udp_socket> s = udp_socket::from_fd(fd);
    CHECK(s.has_value());
    if (!s) return;
    CHECK(s->native_handle() == fd);
    CHECK(s->local_endpoint().port != 0);
    CHECK((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    udp_socket other = open_udp();
    CHECK(run(as_result(other.send_to("x", s->local_endpoint()))).has_value());
    CHECK(run(as_result(s->receive())).has_value());
  }
  CHECK(::fcntl(fd, F_GETFD) == -1);  // closed with the socket

  const int stream = ::socket(AF_INET, SOCK_STREAM, 0);
  const int other_family = ::socket(AF_UNIX, SOCK_DGRAM, 0);
  int ends[2] = {-1, -1};
  CHECK(::pipe(ends) == 0);
  for (const int wrong : {stream, other_family, ends[0]}) {
    const error e = udp_socket::from_fd(wrong).error();
    CHECK(e == errc::invalid_argument);
    CHECK(!e.message().empty());
    CHECK(::fcntl(wrong, F_GETFD) != -1);
    ::close(wrong);
  }
  ::close(ends[1]);
  CHECK(udp_socket::from_fd(-1).error() == errc::invalid_argument);
}

TEST_CASE("from_fd adopts a connected socket") {
  loop l;
  udp_socket peer = open_udp();
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_storage address{};
  const socklen_t size = peer.local_endpoint().to_sockaddr(address);
  CHECK(::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0);
  result<connected_udp_socket> c = connected_udp_socket::from_fd(fd);
  CHECK(c.has_value());
  if (!c) return;
  CHECK(c->remote_endpoint() == peer.local_endpoint());
  CHECK(run(as_result(c->send("x"))).has_value());
  auto r = run(as_result(peer.receive()));
  CHECK((r && r->sender == c->local_endpoint()));
}

TEST_CASE("an IPv4 peer of a dual-stack socket is IPv4, and can be answered") {
  loop l;
  const int fd = ::socket(AF_INET6, SOCK_DGRAM, 0);
  const int off = 0;
  CHECK(::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0);
  sockaddr_storage address{};
  const socklen_t size = ip_endpoint{ip_address::any_v6(), 0}.to_sockaddr(address);
  CHECK(::bind(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0);
  result<udp_socket> s = udp_socket::from_fd(fd);
  CHECK(s.has_value());
  if (!s) return;
  udp_socket v4 = open_udp();
  CHECK(run(as_result(v4.send_to("x", {ip_address::loopback_v4(), s->local_endpoint().port}))).has_value());
  auto r = run(as_result(s->receive()));
  CHECK((r && r->sender == v4.local_endpoint()));
  CHECK(run(as_result(s->send_to("y", v4.local_endpoint()))).has_value());
  CHECK(run(as_result(v4.receive())).has_value());
}
