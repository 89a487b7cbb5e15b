// Many datagrams per call, with and without the kernel's help.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>

#include "support/allocations.hpp"
#include "support/custom_backend.hpp"
#include "support/emulator.hpp"
#include "support/faces.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using support::by_callback;
using support::by_coroutine;
using support::waiting;

const ip_endpoint any_port{ip_address::loopback_v4(), 0};

/// The system, with or without UDP_GRO and UDP_SEGMENT, and with calls that fail on request.
class test_backend : public support::custom_backend {
 public:
  bool has_pieces = true;
  int send_status = 0;           // the result of the next call of send_messages, if not 0
  int piece_status = 0;          // the result of every call whose first message is to be segmented, if not 0
  std::size_t most_sent = 1000;  // messages per call
  std::size_t pieces_sent = 0;
  std::size_t pieces_received = 0;
  int receive_calls = 0;
  int send_calls = 0;

  int set_option(int fd, int level, int name, const void* value, socklen_t size) override {
    if (level == IPPROTO_UDP && !has_pieces) return -ENOPROTOOPT;
    return custom_backend::set_option(fd, level, name, value, size);
  }
  int get_option(int fd, int level, int name, void* value, socklen_t* size) override {
    if (level == IPPROTO_UDP && !has_pieces) return -ENOPROTOOPT;
    return custom_backend::get_option(fd, level, name, value, size);
  }
  int receive_messages(int fd, anyio::detail::slice<detail::message> messages,
                       anyio::detail::slice<std::size_t> sizes, bool& emptied) override {
    ++receive_calls;
    const int n = custom_backend::receive_messages(fd, messages, sizes, emptied);
    for (int i = 0; i < n; ++i) pieces_received += messages[static_cast<std::size_t>(i)].control_size != 0;
    return n;
  }
  int send_messages(int fd, anyio::detail::slice<const detail::message> messages) override {
    ++send_calls;
    if (send_status != 0) return std::exchange(send_status, 0);
    if (piece_status != 0 && messages.front().control_size != 0) return piece_status;
    const int n = custom_backend::send_messages(fd, messages.first(std::min(messages.size(), most_sent)));
    for (int i = 0; i < n; ++i) pieces_sent += messages[static_cast<std::size_t>(i)].control_size != 0;
    return n;
  }
};

struct with_pieces {
  static constexpr bool value = true;
};
struct without_pieces {
  static constexpr bool value = false;
};

struct fixture {
  explicit fixture(bool has_pieces) {
    auto made = std::make_unique<test_backend>();
    system = made.get();
    system->has_pieces = has_pieces && !support::emulator_has(support::emulator_fault::udp_control);
    l.emplace(std::move(made));
  }
  test_backend* system;
  std::optional<loop> l;
};

udp_socket open_udp(const ip_endpoint& at = any_port) {
  result<udp_socket> r = udp_socket::open(at);
  CHECK(r.has_value());
  return r ? *std::move(r) : udp_socket();
}

std::string text(std::span<const std::byte> data) {
  return std::string(reinterpret_cast<const char*>(data.data()), data.size());
}

/// A text of this size that is different for each number.
std::string numbered(int n, std::size_t size) {
  std::string s = std::to_string(n);
  s.resize(size, '.');
  return s;
}

/// Receives batches until this many datagrams have arrived.
std::vector<std::string> receive_all(udp_socket& s, udp_batch& batch, std::size_t count) {
  std::vector<std::string> all;
  while (all.size() < count) {
    const result<std::size_t> n = by_callback::get(s.receive_batch(batch));
    CHECK(n.has_value());
    if (!n) break;
    CHECK(*n >= 1);
    CHECK(*n == batch.size());
    for (const auto& [data, sender, truncated] : batch) all.push_back(text(data));
  }
  return all;
}

}  // namespace

TEST_CASE("a batch holds at most the number and size of datagrams it was made for") {
  udp_batch b(2, 4);
  CHECK(b.size() == 0);
  CHECK(!b.push("12345"));
  CHECK(b.push("1234"));
  CHECK(b.push("", any_port));
  CHECK(!b.push("x"));
  CHECK(b.size() == 2);
  CHECK(text(b[0].data) == "1234");
  CHECK(b[1].data.empty());
  CHECK(b[1].sender == any_port);
  udp_batch moved = std::move(b);
  CHECK(moved.size() == 2);
  CHECK(b.size() == 0);  // NOLINT: what it is afterwards is promised
  CHECK(!b.push("x"));
  moved.clear();
  CHECK(moved.begin() == moved.end());
  CHECK(moved.push("more"));
}

TEST_CASE("creating a batch allocates once, and using it never") {
  const support::allocation_scope scope;
  udp_batch b(100, 1500);
  if (support::counts_allocations) CHECK(scope.count() == 1);
  for (int i = 0; i < 200; ++i) b.push("x", any_port);
  if (support::counts_allocations) CHECK(scope.count() == 1);
}

TEST_CASE_TEMPLATE("a batch arrives in order, whatever the sizes", Pieces, with_pieces, without_pieces) {
  fixture f(Pieces::value);
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  CHECK(b.set_option(SOL_SOCKET, SO_RCVBUF, 1 << 20).has_value());
  udp_batch out(100, 2000);
  std::vector<std::string> sent;
  const std::size_t sizes[] = {10, 10, 10, 5, 10, 0, 0, 7, 7, 2000, 2000, 1, 1300, 1300, 1300, 1299};
  for (int i = 0; i < 64; ++i)
    sent.push_back(numbered(i, sizes[static_cast<std::size_t>(i) % std::size(sizes)]));
  for (const std::string& s : sent) CHECK(out.push(s, b.local_endpoint()));
  const result<std::size_t> n = by_coroutine::get(a.send_batch(out));
  CHECK((n && *n == 64));
  CHECK(out.size() == 64);  // it stays
  udp_batch in(10, 2000);
  CHECK(receive_all(b, in, sent.size()) == sent);
  for (const auto& [data, sender, truncated] : in) {
    CHECK(sender == a.local_endpoint());
    CHECK(!truncated);
  }
#if defined(__linux__)
  CHECK((f.system->pieces_sent > 0) == f.system->has_pieces);
#endif
}

TEST_CASE_TEMPLATE("equal datagrams in a row arrive one by one", Pieces, with_pieces, without_pieces) {
  fixture f(Pieces::value);
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  CHECK(b.set_option(SOL_SOCKET, SO_RCVBUF, 4 << 20).has_value());
  udp_batch first(1);
  waiting<std::size_t> w;
  by_callback::start(b.receive_batch(first), w);
  support::settle();
  udp_batch out(120, 1200);
  std::vector<std::string> sent;
  for (int i = 0; i < 120; ++i) sent.push_back(numbered(i, i == 119 ? 3 : 1200));
  for (const std::string& s : sent) CHECK(out.push(s, b.local_endpoint()));
  CHECK(by_coroutine::get(a.send_batch(out)).value_or(0) == 120);
  CHECK(w.get().value_or(0) == 1);
  CHECK(text(first[0].data) == sent[0]);
#if defined(__linux__)
  CHECK((f.system->pieces_received > 0) == f.system->has_pieces);
#endif

  SUBCASE("in batches of any size") {
    udp_batch in(7);
    std::vector<std::string> got = receive_all(b, in, 119);
    got.insert(got.begin(), sent[0]);
    CHECK(got == sent);
  }
  SUBCASE("in plain receives that alternate with batches") {
    udp_batch in(3);
    std::array<std::byte, 2000> into;
    std::size_t at = 1;
    while (at < sent.size()) {
      result<udp_packet> p = by_callback::get(b.receive());
      CHECK((p && p->data == sent[at] && p->sender == a.local_endpoint()));
      if (++at == sent.size()) break;
      result<udp_received> r = by_coroutine::get(b.receive(into));
      CHECK((r && !r->truncated && text(std::span(into).first(r->size)) == sent[at]));
      if (++at == sent.size()) break;
      const result<std::size_t> n = by_callback::get(b.receive_batch(in));
      CHECK(n.has_value());
      if (!n) break;
      for (const auto& e : in) CHECK(text(e.data) == sent[at++]);
    }
    CHECK(at == sent.size());
  }
  SUBCASE("and a cancelled receive loses none") {
    udp_batch in(200);
    { receive_batch_operation never = b.receive_batch(in); }
    {
      auto op = b.receive_batch(in);
      op.start([](const result<std::size_t>&) {});
    }
    CHECK(receive_all(b, in, 119).size() == 119);
  }
}

#if defined(__linux__)
TEST_CASE_TEMPLATE("options that add control messages do not hide the boundaries of datagrams", Face,
                   by_callback, by_coroutine) {
  if (support::emulator_has(support::emulator_fault::udp_control)) return;
  fixture f(true);
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  constexpr int received_by_software = 1 << 3 | 1 << 4;  // SOF_TIMESTAMPING_RX_SOFTWARE, _SOFTWARE
  CHECK(b.set_option(SOL_SOCKET, SO_TIMESTAMP, 1).has_value());
  CHECK(b.set_option(SOL_SOCKET, SO_TIMESTAMPING, received_by_software).has_value());
  CHECK(b.set_option(SOL_SOCKET, SO_RXQ_OVFL, 1).has_value());
  CHECK(b.set_option(IPPROTO_IP, IP_PKTINFO, 1).has_value());
  udp_batch in(64);
  waiting<std::size_t> w;
  Face::start(b.receive_batch(in), w);
  support::settle();
  udp_batch out(30, 1000);
  std::vector<std::string> sent;
  for (int i = 0; i < 30; ++i) sent.push_back(numbered(i, 1000));
  for (const std::string& one : sent) CHECK(out.push(one, b.local_endpoint()));
  CHECK(Face::get(a.send_batch(out)).value_or(0) == 30);
  std::vector<std::string> got;
  CHECK(w.get().value_or(0) >= 1);
  for (const auto& [data, sender, truncated] : in) got.push_back(text(data));
  for (const std::string& one : receive_all(b, in, 30 - got.size())) got.push_back(one);
  CHECK(got == sent);
}
#endif

TEST_CASE_TEMPLATE("a datagram longer than the batch allows is truncated, and this is reported", Pieces,
                   with_pieces, without_pieces) {
  fixture f(Pieces::value);
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  CHECK(b.set_option(SOL_SOCKET, SO_RCVBUF, 1 << 20).has_value());
  udp_batch in(16, 8);
  {
    waiting<std::size_t> w;
    by_callback::start(b.receive_batch(in), w);
    support::settle();
    CHECK(by_callback::get(a.send_to("123456789", b.local_endpoint())).has_value());
    CHECK(w.get().value_or(0) == 1);
    CHECK(text(in[0].data) == "12345678");
    CHECK(in[0].truncated);
  }
  udp_batch out(16, 100);
  for (const std::size_t size : {8, 9, 9, 9, 4, 100, 100})
    CHECK(out.push(std::string(size, 'x'), b.local_endpoint()));
  CHECK(by_callback::get(a.send_batch(out)).value_or(0) == 7);
  std::vector<std::pair<std::size_t, bool>> got;
  while (got.size() < 7) {
    if (!by_callback::get(b.receive_batch(in))) break;
    for (const auto& e : in) got.emplace_back(e.data.size(), e.truncated);
  }
  const std::vector<std::pair<std::size_t, bool>> wanted = {{8, false}, {8, true}, {8, true}, {8, true},
                                                            {4, false}, {8, true}, {8, true}};
  CHECK(got == wanted);
}

TEST_CASE_TEMPLATE("a received batch can be sent back to its senders unchanged", Pieces, with_pieces,
                   without_pieces) {
  fixture f(Pieces::value);
  udp_socket server = open_udp();
  std::vector<udp_socket> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(open_udp());
  for (int round = 0; round < 3; ++round)
    for (std::size_t i = 0; i < clients.size(); ++i)
      CHECK(by_callback::get(clients[i].send_to(numbered(static_cast<int>(i), 20), server.local_endpoint())));
  udp_batch batch(64);
  std::size_t echoed = 0;
  while (echoed < 15) {
    const result<std::size_t> n = by_coroutine::get(server.receive_batch(batch));
    CHECK(n.has_value());
    if (!n) break;
    CHECK(by_coroutine::get(server.send_batch(batch)).value_or(0) == *n);
    echoed += *n;
  }
  for (std::size_t i = 0; i < clients.size(); ++i) {
    for (int round = 0; round < 3; ++round) {
      auto r = run(move_on_after(5s, clients[i].receive()));
      CHECK((r && r->data == numbered(static_cast<int>(i), 20)));
    }
  }
}

TEST_CASE_TEMPLATE("connected sockets support batches", Pieces, with_pieces, without_pieces) {
  fixture f(Pieces::value);
  udp_socket server = open_udp();
  result<connected_udp_socket> c = connected_udp_socket::open(server.local_endpoint());
  CHECK(c.has_value());
  if (!c) return;
  udp_batch batch(8);
  for (int i = 0; i < 8; ++i) CHECK(batch.push(numbered(i, 30)));
  CHECK(by_callback::get(c->send_batch(batch)).value_or(0) == 8);
  udp_batch in(8);
  CHECK(receive_all(server, in, 8).size() == 8);
  for (int i = 0; i < 3; ++i)
    CHECK(by_callback::get(server.send_to("back", c->local_endpoint())).has_value());
  const result<std::size_t> n = by_coroutine::get(c->receive_batch(batch));
  CHECK((n && *n == 3));
  CHECK(batch[0].sender == server.local_endpoint());
  CHECK(by_callback::get(c->send_batch(batch)).value_or(0) == 3);
  CHECK(receive_all(server, in, 3).size() == 3);
}

TEST_CASE_TEMPLATE("batches support IPv6", Pieces, with_pieces, without_pieces) {
  fixture f(Pieces::value);
  udp_socket a = open_udp({ip_address::loopback_v6(), 0});
  udp_socket b = open_udp({ip_address::loopback_v6(), 0});
  udp_batch out(70, 1000);
  std::vector<std::string> sent;
  for (int i = 0; i < 70; ++i) sent.push_back(numbered(i, 1000));
  for (const std::string& s : sent) CHECK(out.push(s, b.local_endpoint()));
  CHECK(by_callback::get(a.send_batch(out)).value_or(0) == 70);
  udp_batch in(16);
  CHECK(receive_all(b, in, 70) == sent);
}

TEST_CASE_TEMPLATE("an error at datagram i returns i, and is raised if i is 0", Pieces, with_pieces,
                   without_pieces) {
  fixture f(Pieces::value);
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  udp_batch out(8, 65535);
  for (int i = 0; i < 3; ++i) CHECK(out.push("fine", b.local_endpoint()));
  CHECK(out.push(std::string(65508, 'x'), b.local_endpoint()));
  CHECK(out.push("not reached", b.local_endpoint()));
  CHECK(by_callback::get(a.send_batch(out)).value_or(0) == 3);
  udp_batch in(8);
  CHECK(receive_all(b, in, 3).size() == 3);
  waiting<std::size_t> w;
  by_callback::start(b.receive_batch(in), w);
  support::settle();
  CHECK(!w.done());

  out.clear();
  CHECK(out.push(std::string(65508, 'x'), b.local_endpoint()));
  CHECK(out.push("not reached", b.local_endpoint()));
  const error e = by_coroutine::get(a.send_batch(out)).error();
  CHECK(e == errc::os_error);
  CHECK(e.os_error() == EMSGSIZE);
  CHECK(e.operation() == "send_batch");
  support::settle();
  CHECK(!w.done());
  CHECK(by_callback::get(a.send_to("and now", b.local_endpoint())).has_value());
  CHECK(w.get().value_or(0) == 1);
}

TEST_CASE("an empty batch is sent at once, and a batch without room cannot be received into") {
  loop l;
  udp_socket a = open_udp();
  udp_batch empty(4);
  CHECK(by_callback::get(a.send_batch(empty)).value_or(1) == 0);
  udp_batch none(0);
  udp_batch flat(4, 0);
  CHECK(by_callback::get(a.receive_batch(none)).error() == errc::invalid_argument);
  CHECK(by_callback::get(a.receive_batch(flat)).error() == errc::invalid_argument);
  waiting<std::size_t> w;
  by_callback::start(a.receive_batch(empty), w);
  support::settle();
  CHECK(by_callback::get(a.receive_batch(empty)).error() == errc::busy_resource);
  CHECK(by_callback::get(a.receive()).error() == errc::busy_resource);
  a.close();
  CHECK(w.get().error() == errc::closed_resource);
  CHECK(by_callback::get(a.receive_batch(none)).error() == errc::invalid_argument);
  CHECK(by_callback::get(a.receive_batch(empty)).error() == errc::closed_resource);
  CHECK(by_callback::get(a.send_batch(empty)).error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("a batch raises a refusal once, and the socket stays usable", Face, by_callback,
                   by_coroutine) {
  loop l;
  udp_socket nobody = open_udp();
  result<connected_udp_socket> c = connected_udp_socket::open(nobody.local_endpoint());
  CHECK(c.has_value());
  if (!c) return;
  nobody.close();
  udp_batch in(4);
  waiting<std::size_t> w;
  Face::start(c->receive_batch(in), w);
  support::settle();
  udp_batch out(1);
  CHECK(out.push("x"));
  CHECK(Face::get(c->send_batch(out)).value_or(0) == 1);
  const error e = w.get().error();
  CHECK(e == errc::broken_resource);
  CHECK(e == std::errc::connection_refused);
  Face::start(c->receive_batch(in), w);
  support::settle();
  CHECK(!w.done());
}

TEST_CASE("the system is asked only for datagrams that are likely available, and not again before an event") {
  fixture f(false);
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  CHECK(b.set_option(SOL_SOCKET, SO_RCVBUF, 1 << 20).has_value());
  udp_batch out(64);
  udp_batch in(64);
  CHECK(out.push("one", b.local_endpoint()));
  CHECK(by_callback::get(a.send_batch(out)).value_or(0) == 1);
  CHECK(by_callback::get(b.receive_batch(in)).value_or(0) == 1);

  const int calls = f.system->receive_calls;
  waiting<std::size_t> w;
  by_callback::start(b.receive_batch(in), w);
  support::settle();
  CHECK(!w.done());
#if defined(__linux__)
  CHECK(f.system->receive_calls == calls);
#endif
  CHECK(by_callback::get(a.send_batch(out)).value_or(0) == 1);
  CHECK(w.get().value_or(0) == 1);

  // Room for few at first, and for more each time it was not enough.
  out.clear();
  std::vector<std::string> sent;
  for (int i = 0; i < 64; ++i) sent.push_back(numbered(i, 5));
  for (const std::string& s : sent) CHECK(out.push(s, b.local_endpoint()));
  CHECK(by_callback::get(a.send_batch(out)).value_or(0) == 64);
  CHECK(by_callback::get(b.receive_batch(in)).value_or(0) == 64);
  CHECK(f.system->receive_calls <= calls + 7);
  for (std::size_t i = 0; i < in.size(); ++i) CHECK(text(in[i].data) == sent[i]);
}

TEST_CASE("a send that had to wait continues where it stopped") {
  fixture f(false);
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  support::settle();
  udp_batch out(10);
  std::vector<std::string> sent;
  for (int i = 0; i < 10; ++i) sent.push_back(numbered(i, 5));
  for (const std::string& s : sent) CHECK(out.push(s, b.local_endpoint()));
  f.system->most_sent = 3;
  waiting<std::size_t> w;
  by_callback::start(a.send_batch(out), w);
  f.system->send_status = -EAGAIN;
  support::settle();
  CHECK(!w.done());
  a.cancel();  // its final attempt
  CHECK(w.get().value_or(0) == 10);
  udp_batch in(10);
  CHECK(receive_all(b, in, 10) == sent);
}

namespace {
task<std::size_t> finish(send_batch_operation& op) { co_return co_await op; }

/// Keeps the result of an operation when it ends with its coroutine.
struct noted {
  noted(send_batch_operation&& o, std::size_t& out) : op(std::move(o)), sent(out) {}
  noted(const noted&) = delete;
  noted& operator=(const noted&) = delete;
  ~noted() { sent = op.sent(); }
  send_batch_operation op;
  std::size_t& sent;
};
task<std::size_t> finish_noted(udp_socket& s, udp_batch& batch, std::size_t& sent) {
  noted n(s.send_batch(batch), sent);
  co_return co_await n.op;
}
}  // namespace

TEST_CASE_TEMPLATE("an interrupted batch reports how many datagrams were sent", Face, by_callback,
                   by_coroutine) {
  // The third call and later ones find no room.
  class full_backend final : public test_backend {
   public:
    int calls_left = 0;
    int send_messages(int fd, anyio::detail::slice<const detail::message> messages) override {
      return calls_left == 0 ? -EAGAIN : (--calls_left, test_backend::send_messages(fd, messages));
    }
  };
  auto made = std::make_unique<full_backend>();
  full_backend& system = *made;
  system.has_pieces = false;
  system.most_sent = 3;
  loop l(std::move(made));
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  udp_batch out(10);
  for (int i = 0; i < 10; ++i) CHECK(out.push(numbered(i, 5), b.local_endpoint()));
  send_batch_operation op;
  CHECK(op.sent() == 0);
  op = a.send_batch(out);
  const auto start = [&](waiting<std::size_t>& w) {
    system.calls_left = 2;
    Face::start(finish(op), w);
    support::settle();
    CHECK(!w.done());
    CHECK(op.sent() == 6);
  };
  SUBCASE("when it is cancelled") {
    waiting<std::size_t> w;
    start(w);
    a.cancel();
    CHECK(w.get().error() == errc::cancelled);
    CHECK(op.sent() == 6);
  }
  SUBCASE("in its callback") {
    system.calls_left = 2;
    std::size_t told = 0;
    op.start([&](const result<std::size_t>& r) { told = r.error() == errc::cancelled ? op.sent() : 0; });
    support::settle();
    a.cancel();
    support::settle();
    CHECK(told == 6);
  }
  SUBCASE("when its time limit expires") {
    system.calls_left = 2;
    std::size_t sent = 0;
    CHECK(Face::get(fail_after(1ms, finish_noted(a, out, sent))).error() == errc::timed_out);
    CHECK(sent == 6);
  }
  SUBCASE("when the socket is closed") {
    waiting<std::size_t> w;
    start(w);
    a.close();
    CHECK(w.get().error() == errc::closed_resource);
    CHECK(op.sent() == 6);
    return;
  }
  SUBCASE("when an error ends it") {
    waiting<std::size_t> w;
    start(w);
    system.calls_left = 1;
    system.send_status = -EPERM;
    a.cancel();  // its final attempt
    CHECK(w.get().value_or(0) == 6);
    CHECK(op.sent() == 6);
  }
  // Started again it counts from zero, and sends all.
  waiting<std::size_t> w;
  Face::start(finish(op), w);
  support::settle();
  CHECK(op.sent() == 0);
  system.calls_left = 4;
  a.cancel();  // its final attempt
  CHECK(w.get().value_or(0) == 10);
  CHECK(op.sent() == 10);
}

TEST_CASE("where segmentation is rejected, datagrams are sent one by one") {
  for (const int status : {-EINVAL, -EIO, -EMSGSIZE, -EOPNOTSUPP}) {
    fixture f(true);
    f.system->piece_status = status;
    udp_socket a = open_udp();
    udp_socket b = open_udp();
    udp_batch out(20);
    std::vector<std::string> sent;
    for (int i = 0; i < 20; ++i) sent.push_back(numbered(i, 50));
    for (const std::string& s : sent) CHECK(out.push(s, b.local_endpoint()));
    CHECK(by_callback::get(a.send_batch(out)).value_or(0) == 20);
    udp_batch in(20);
    CHECK(receive_all(b, in, 20) == sent);
    f.system->send_calls = 0;
    CHECK(by_callback::get(a.send_batch(out)).value_or(0) == 20);
    CHECK(f.system->send_calls == 1);  // it is remembered
    CHECK(receive_all(b, in, 20) == sent);
  }
}

TEST_CASE_TEMPLATE("batches use few system calls and no allocations", Pieces, with_pieces, without_pieces) {
  fixture f(Pieces::value);
  udp_socket a = open_udp();
  udp_socket b = open_udp();
  udp_batch out(32, 100);
  udp_batch in(32, 100);
  for (int i = 0; i < 32; ++i)
    CHECK(out.push(numbered(i, static_cast<std::size_t>(40 + i)), b.local_endpoint()));
  std::size_t allocations = 0;
  int received = 0;
  task<> t = [](udp_socket& x, udp_socket& y, udp_batch& o, udp_batch& i, std::size_t& count,
                int& n) -> task<> {
    for (int round = 0; round < 10; ++round) {
      const support::allocation_scope scope;
      co_await x.send_batch(o);
      for (std::size_t got = 0; got < 32;) got += co_await y.receive_batch(i);
      n += 32;
      if (round > 1) count += scope.count();
    }
  }(a, b, out, in, allocations, received);
  t.start([](const result<void>&) {});
  f.l->run();
  CHECK(received == 320);
  if (support::counts_allocations) CHECK(allocations == 0);
  CHECK(f.system->send_calls <= 10);
  CHECK(f.system->receive_calls <= 30);
}
