// Packet information: local addresses, interfaces, ECN bits and hop limits of UDP datagrams, in and out.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <net/if.h>
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

const ip_address any_v4 = ip_address::any_v4();
const ip_address second =
    ip_address::v4(0x7f000002);  // 127.0.0.2, which only Linux has without configuration
const ip_address third = ip_address::v4(0x7f000003);

static_assert(std::is_aggregate_v<packet_info> && std::is_trivially_copyable_v<packet_info>);
static_assert(packet_info().hop_limit == -1 && packet_info().ecn == 0 && packet_info().interface_index == 0);

bool emulated() { return support::emulator_has(support::emulator_fault::udp_control); }

udp_socket open_at(const ip_address& at, const udp_options& options = {}) {
  result<udp_socket> r = udp_socket::open({at, 0}, options);
  CHECK(r.has_value());
  return r ? *std::move(r) : udp_socket();
}

udp_socket open_dual_stack() {
  udp_options both;
  both.prepare = [](int fd, void*) {
    const int off = 0;
    return ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0 ? 0 : errno;
  };
  return open_at(ip_address::any_v6(), both);
}

udp_socket open_with_info(const ip_address& at) {
  udp_socket s = open_at(at);
  CHECK(s.set_packet_info(true).has_value());
  return s;
}

std::string text_of(std::span<const std::byte> data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

template <class Face>
udp_packet next(udp_socket& s) {
  result<std::optional<udp_packet>> r = Face::get(move_on_after(5s, s.receive()));
  CHECK((r && r->has_value()));
  return r && *r ? **std::move(r) : udp_packet();
}

template <class Face>
std::string next(connected_udp_socket& s) {
  result<std::optional<std::string>> r = Face::get(move_on_after(5s, s.receive()));
  return r && *r ? **r : "nothing";
}

/// Counts the pieces that the kernel takes and gives.
class piece_backend : public support::custom_backend {
 public:
  std::size_t pieces_sent = 0;
  std::size_t pieces_received = 0;
  int send_status = 0;  // of every send, if not 0
  int receive_messages(int fd, anyio::detail::slice<detail::message> messages,
                       anyio::detail::slice<std::size_t> sizes, bool& emptied) override {
    const int n = custom_backend::receive_messages(fd, messages, sizes, emptied);
    for (int i = 0; i < n; ++i) pieces_received += sizes[static_cast<std::size_t>(i)] > 2000;
    return n;
  }
  int send_messages(int fd, anyio::detail::slice<const detail::message> messages) override {
    if (send_status != 0) return send_status;
    const int n = custom_backend::send_messages(fd, messages);
    for (int i = 0; i < n; ++i) pieces_sent += messages[static_cast<std::size_t>(i)].parts.size() > 1;
    return n;
  }
};

}  // namespace

TEST_CASE_TEMPLATE("an answer comes from the address that was asked, so that a connected client hears it",
                   Face, by_callback, by_coroutine) {
  if (emulated()) return;
  loop l;
  udp_socket server = open_with_info(any_v4);
  const std::uint16_t port = server.local_endpoint().port;
  auto client = connected_udp_socket::open({second, port}).value();
  SUBCASE("by packets") {
    CHECK(Face::get(client.send("question")).has_value());
    const udp_packet packet = next<Face>(server);
    CHECK(packet.data == "question");
    CHECK(packet.info.local == second);
    CHECK(packet.info.interface_index == ::if_nametoindex("lo"));
    CHECK(packet.info.ecn == 0);
    CHECK(packet.info.hop_limit == 64);
    CHECK(Face::get(server.send_to("wrong address", packet.sender)).has_value());
    CHECK(Face::get(server.send_to("answer", packet.sender, packet.info)).has_value());
  }
  SUBCASE("by a buffer") {
    CHECK(Face::get(client.send("question")).has_value());
    std::array<char, 4> room{};
    const result<udp_received> r = Face::get(server.receive(room));
    CHECK((r && r->size == 4 && r->truncated && r->info.local == second && r->info.hop_limit == 64));
    CHECK(Face::get(server.send_to(std::string("answer"), r->sender, {.local = r->info.local})).has_value());
  }
  SUBCASE("by a batch") {
    CHECK(Face::get(client.send("answer")).has_value());
    udp_batch batch(4);
    CHECK(Face::get(server.receive_batch(batch)).value_or(0) == 1);
    CHECK(batch[0].info.local == second);
    CHECK(batch[0].info.hop_limit == 64);
    udp_batch moved = std::move(batch);
    CHECK(Face::get(server.send_batch(moved)).value_or(0) == 1);
  }
  CHECK(next<Face>(client) == "answer");
}

TEST_CASE_TEMPLATE("without packet information the members keep their initial values", Face, by_callback,
                   by_coroutine) {
  loop l;
  udp_socket s = open_at(ip_address::loopback_v4());
  udp_batch batch(2);
  std::array<char, 4> room{};
  const auto all_initial = [&] {
    for (int i = 0; i < 3; ++i) CHECK(Face::get(s.send_to("x", s.local_endpoint())).has_value());
    CHECK(next<Face>(s).info == packet_info());
    CHECK(Face::get(s.receive(room)).value().info == packet_info());
    CHECK(Face::get(s.receive_batch(batch)).has_value());
    CHECK(batch[0].info == packet_info());
  };
  all_initial();
  if (emulated()) return;
  CHECK(s.set_packet_info(true).has_value());
  CHECK(Face::get(s.send_to("x", s.local_endpoint())).has_value());
  CHECK(next<Face>(s).info.local == ip_address::loopback_v4());
  CHECK(s.set_packet_info(true).has_value());
  CHECK(s.set_packet_info(false).has_value());
  all_initial();
  s.close();
  CHECK(s.set_packet_info(true).error() == errc::closed_resource);
  CHECK(udp_socket().set_packet_info(false).error() == errc::closed_resource);
}

#if defined(__linux__)
TEST_CASE_TEMPLATE("a datagram to a broadcast address came to an own address, from which an answer can go",
                   Face, by_callback, by_coroutine) {
  if (emulated()) return;
  anyio::loop l;
  udp_socket server = open_with_info(any_v4);
  udp_socket client = open_at(ip_address::loopback_v4());
  CHECK(client.set_broadcast(true).has_value());
  const ip_address broadcast = ip_address::v4(0x7fffffff);  // of 127.0.0.0/8
  const ip_endpoint all{broadcast, server.local_endpoint().port};
  CHECK(Face::get(client.send_to("anybody?", all)).has_value());
  const udp_packet asked = next<Face>(server);
  CHECK(asked.data == "anybody?");
  CHECK(asked.info.local == ip_address::loopback_v4());
  CHECK(Face::get(server.send_to("I", asked.sender, asked.info)).has_value());
  CHECK(next<Face>(client).sender.address == ip_address::loopback_v4());
}
#endif

TEST_CASE_TEMPLATE("ECN bits and hop limits survive a round trip, in IPv4 and IPv6", Face, by_callback,
                   by_coroutine) {
  if (emulated()) return;
  loop l;
  for (const ip_address& lo : {ip_address::loopback_v4(), ip_address::loopback_v6()}) {
    udp_socket server = open_with_info(detail::any_address(lo.is_v6()));
    udp_socket client = open_with_info(lo);
    const ip_endpoint to{lo, server.local_endpoint().port};
    for (const int ecn : {2, 1, 3, 0}) {
      CAPTURE(ecn);
      CHECK(Face::get(client.send_to("there", to, {.ecn = ecn, .hop_limit = 33})).has_value());
      const udp_packet there = next<Face>(server);
      CHECK(there.info.local == lo);
      CHECK(there.info.interface_index != 0);
      CHECK(there.info.ecn == ecn);
      CHECK(there.info.hop_limit == 33);
      CHECK(Face::get(server.send_to("back", there.sender, there.info)).has_value());
      const udp_packet back = next<Face>(client);
      CHECK(back.sender == to);
      CHECK(back.info.ecn == ecn);
      CHECK(back.info.hop_limit == 33);
    }
    // Unset, they are the socket's.
    CHECK(Face::get(client.send_to("plain", to)).has_value());
    CHECK(next<Face>(server).info.hop_limit == 64);
  }
}

TEST_CASE_TEMPLATE("a dual-stack socket has packet information of both families", Face, by_callback,
                   by_coroutine) {
  if (emulated()) return;
  loop l;
  udp_socket server = open_dual_stack();
  CHECK(server.set_packet_info(true).has_value());
  const std::uint16_t port = server.local_endpoint().port;
  auto client = connected_udp_socket::open({second, port}).value();
  udp_socket marked = open_with_info(ip_address::loopback_v4());
  CHECK(Face::get(client.send("mapped")).has_value());
  udp_packet packet = next<Face>(server);
  CHECK(packet.info.local == second);
  CHECK(packet.info.local.is_v4());
  CHECK(packet.info.hop_limit == 64);
  CHECK(packet.info.interface_index != 0);
  packet.info.ecn = 1;
  CHECK(Face::get(server.send_to("answer", packet.sender, packet.info)).has_value());
  CHECK(next<Face>(client) == "answer");
  CHECK(Face::get(marked.send_to("ecn", {third, port}, {.ecn = 2})).has_value());
  packet = next<Face>(server);
  CHECK(packet.info.local == third);
  CHECK(packet.info.ecn == 2);
  CHECK(Face::get(server.send_to("ecn", packet.sender, packet.info)).has_value());
  packet = next<Face>(marked);
  CHECK(packet.info.ecn == 2);
  CHECK(packet.sender == ip_endpoint{third, port});

  udp_socket six = open_with_info(ip_address::loopback_v6());
  CHECK(Face::get(six.send_to("six", {ip_address::loopback_v6(), port}, {.ecn = 3})).has_value());
  packet = next<Face>(server);
  CHECK(packet.info.local == ip_address::loopback_v6());
  CHECK(packet.info.ecn == 3);
  // Both families in one batch, back to the clients.
  CHECK(Face::get(client.send("four")).has_value());
  CHECK(Face::get(six.send_to("six", {ip_address::loopback_v6(), port})).has_value());
  udp_batch batch(4);
  std::size_t got = 0;
  while (got < 2) {
    const std::size_t n = Face::get(server.receive_batch(batch)).value_or(99);
    CHECK(Face::get(server.send_batch(batch)).value_or(0) == n);
    got += n;
  }
  CHECK(next<Face>(client) == "four");
  CHECK(next<Face>(six).data == "six");
}

TEST_CASE_TEMPLATE("a batch that was received goes back from the addresses it came to, without its marks",
                   Face, by_callback, by_coroutine) {
  if (emulated()) return;
  loop l;
  udp_socket server = open_with_info(any_v4);
  const std::uint16_t port = server.local_endpoint().port;
  udp_socket client = open_with_info(ip_address::loopback_v4());
  udp_batch batch(8);
  for (const ip_address& at : {second, second, third, third})
    CHECK(batch.push("to " + at.to_string(), {at, port}, {.ecn = 3, .hop_limit = 5}));
  CHECK(Face::get(client.send_batch(batch)).value_or(0) == 4);
  udp_batch in(8);
  std::size_t got = 0;
  while (got < 4) {
    const std::size_t n = Face::get(server.receive_batch(in)).value_or(99);
    for (const udp_batch::entry& e : in) {
      CHECK(text_of(e.data) == "to " + e.info.local.to_string());
      CHECK(e.info.ecn == 3);
      CHECK(e.info.hop_limit == 5);
    }
    got += n;
    // One of its own behind those that were received.
    if (got == 4) CHECK(in.push("own", client.local_endpoint(), {.ecn = 1}));
    CHECK(Face::get(server.send_batch(in)).value_or(0) == in.size());
  }
  for (int i = 0; i < 4; ++i) {
    const udp_packet p = next<Face>(client);
    CHECK(p.sender == ip_endpoint{i < 2 ? second : third, port});
    CHECK(p.data == "to " + p.sender.address.to_string());
    CHECK(p.info.ecn == 0);
    CHECK(p.info.hop_limit == 64);
  }
  CHECK(next<Face>(client).info.ecn == 1);
  in.clear();
  CHECK(in.push("no information", client.local_endpoint()));
  CHECK(in[0].info == packet_info());
}

TEST_CASE_TEMPLATE("pieces of equal datagrams work with packet information", Face, by_callback,
                   by_coroutine) {
  if (emulated()) return;
  for (const ip_address& lo : {ip_address::loopback_v4(), ip_address::loopback_v6()}) {
    auto made = std::make_unique<piece_backend>();
    piece_backend& system = *made;
    loop l(std::move(made));
    udp_socket a = open_with_info(lo);
    udp_socket b = open_with_info(detail::any_address(lo.is_v6()));
    CHECK(b.set_option(SOL_SOCKET, SO_RCVBUF, 4 << 20).has_value());
    const ip_endpoint to{lo, b.local_endpoint().port};
    udp_batch in(7);
    waiting<std::size_t> w;
    Face::start(b.receive_batch(in), w);  // from now on it asks for pieces
    support::settle();
    udp_batch out(120, 1200);
    for (int i = 0; i < 120; ++i)
      CHECK(out.push(std::string(1200, static_cast<char>('0' + i % 10)), to,
                     {.ecn = i < 60 ? 2 : 1, .hop_limit = 9}));
    CHECK(Face::get(a.send_batch(out)).value_or(0) == 120);
    std::size_t got = 0;
    const auto check = [&](const packet_info& info, std::size_t size, char first) {
      CHECK(info.local == lo);
      CHECK(info.ecn == (got < 60 ? 2 : 1));
      CHECK(info.hop_limit == 9);
      CHECK(size == 1200);
      CHECK(first == static_cast<char>('0' + got % 10));
      ++got;
    };
    CHECK(w.get().value_or(0) >= 1);
    while (got < 120) {
      for (const udp_batch::entry& e : in) check(e.info, e.data.size(), text_of(e.data)[0]);
      if (got == 120) break;
      const udp_packet p = next<Face>(b);  // what did not fit comes by a plain receive, too
      check(p.info, p.data.size(), p.data[0]);
      if (got == 120) break;
      CHECK(Face::get(b.receive_batch(in)).has_value());
    }
#if defined(__linux__)
    CHECK(system.pieces_sent > 0);
    CHECK(system.pieces_received > 0);
#endif
    // Back, in pieces too.
    [[maybe_unused]] const std::size_t sent_before = system.pieces_sent;
    out.clear();
    for (int i = 0; i < 20; ++i) CHECK(out.push("ping", to));
    CHECK(Face::get(a.send_batch(out)).value_or(0) == 20);
    for (got = 0; got < 20; got += in.size()) {
      CHECK(Face::get(b.receive_batch(in)).has_value());
      CHECK(Face::get(b.send_batch(in)).value_or(0) == in.size());
    }
    for (int i = 0; i < 20; ++i) CHECK(next<Face>(a).data == "ping");
#if defined(__linux__)
    CHECK(system.pieces_sent > sent_before);
#endif
  }
}

TEST_CASE_TEMPLATE("an error that is not about pieces leaves later datagrams in pieces", Face, by_callback,
                   by_coroutine) {
  if (emulated()) return;
  auto made = std::make_unique<piece_backend>();
  piece_backend& system = *made;
  loop l(std::move(made));
  udp_socket s = open_at(ip_address::loopback_v4());
  udp_batch batch(8);
  for (int i = 0; i < 4; ++i) CHECK(batch.push("equal", s.local_endpoint()));
  system.send_status = -EINVAL;  // as for an address that this machine does not have
  CHECK(Face::get(s.send_batch(batch)).error().os_error() == EINVAL);
  system.send_status = 0;
  CHECK(Face::get(s.send_batch(batch)).value_or(0) == 4);
#if defined(__linux__)
  CHECK(system.pieces_sent == 1);
#endif
}

TEST_CASE_TEMPLATE("a connected socket sends marks in batches, and receives them", Face, by_callback,
                   by_coroutine) {
  if (emulated()) return;
  loop l;
  udp_socket server = open_with_info(any_v4);
  auto client = connected_udp_socket::open({second, server.local_endpoint().port}).value();
  CHECK(client.set_packet_info(true).has_value());
  udp_batch batch(4);
  CHECK(batch.push("one", {}, {.ecn = 2, .hop_limit = 7}));
  CHECK(batch.push("two", {}, {.ecn = 1}));
  CHECK(Face::get(client.send_batch(batch)).value_or(0) == 2);
  udp_packet p = next<Face>(server);
  CHECK(p.data == "one");
  CHECK(p.info.ecn == 2);
  CHECK(p.info.hop_limit == 7);
  p = next<Face>(server);
  CHECK(p.info.ecn == 1);
  CHECK(Face::get(server.send_to("back", p.sender, p.info)).has_value());
  CHECK(Face::get(client.receive_batch(batch)).value_or(0) == 1);
  CHECK(batch[0].info.ecn == 1);
  CHECK(Face::get(server.send_to("plain", p.sender, p.info)).has_value());
  CHECK(next<Face>(client) == "plain");
}

TEST_CASE_TEMPLATE("information that cannot be sent is an error, and the socket stays usable", Face,
                   by_callback, by_coroutine) {
  loop l;
  udp_socket s = open_at(ip_address::loopback_v4());
  const ip_endpoint self = s.local_endpoint();
  const auto refused = [&](const packet_info& info) {
    udp_batch batch(1);
    CHECK(!batch.push("x", self, info));
    CHECK(batch.empty());
    return Face::get(s.send_to("x", self, info)).error() == errc::invalid_argument;
  };
  CHECK(refused({.ecn = 4}));
  CHECK(refused({.ecn = -1}));
  CHECK(refused({.hop_limit = 256}));
  CHECK(refused({.hop_limit = -2}));
  CHECK(refused({.local = ip_address::loopback_v6()}));
  if (!emulated()) {
    const error e = Face::get(s.send_to("x", self, {.local = ip_address::v4(0x08080808)})).error();
    CHECK(e == errc::os_error);
    CHECK(e.operation() == "send_to");
    udp_batch batch(8);
    for (int i = 0; i < 4; ++i) CHECK(batch.push("x", self, {.local = ip_address::v4(0x08080808)}));
    CHECK(Face::get(s.send_batch(batch)).error() == errc::os_error);
    CHECK(Face::get(s.send_to("x", self, {.interface_index = 4000})).error() == errc::os_error);
  }
  CHECK(
      Face::get(s.send_to("mapped", self, {.local = detail::mapped(ip_address::loopback_v4())})).has_value());
  CHECK(Face::get(s.send_to("group", self, {.local = ip_address::v4(0xe0000001)})).has_value());
  CHECK(Face::get(s.send_to("any", self, {.local = ip_address::any_v6()})).has_value());
  CHECK(next<Face>(s).data == "mapped");
  CHECK(next<Face>(s).data == "group");
  CHECK(next<Face>(s).data == "any");
  s.close();
  CHECK(Face::get(s.send_to("x", self, {})).error() == errc::closed_resource);
  CHECK(Face::get(s.send_to("x", self, {.ecn = 4})).error() == errc::invalid_argument);
  CHECK(Face::get(send_packet_operation()).error() == errc::invalid_argument);
}

TEST_CASE("ECN bits leave the other bits of the socket's traffic class as they are") {
  if (emulated()) return;
  loop l;
  class spy final : public support::custom_backend {
   public:
    int traffic_class = -1;
    ssize_t send_message(int fd, const detail::message& m) override {
      msghdr header{};
      header.msg_control = m.control;
      header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
      for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        const bool is_class = (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) ||
                              (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS);
        if (is_class) std::memcpy(&traffic_class, CMSG_DATA(c), sizeof traffic_class);
      }
      return custom_backend::send_message(fd, m);
    }
  };
  auto made = std::make_unique<spy>();
  spy& system = *made;
  const loop other(std::move(made));
  udp_socket four = open_at(ip_address::loopback_v4());
  CHECK(four.set_option(IPPROTO_IP, IP_TOS, 0xb8).has_value());  // expedited forwarding
  CHECK(by_callback::get(four.send_to("x", four.local_endpoint(), {.ecn = 2})).has_value());
  CHECK(system.traffic_class == 0xba);
  udp_socket six = open_at(ip_address::loopback_v6());
  CHECK(six.set_option(IPPROTO_IPV6, IPV6_TCLASS, 0x28).has_value());
  CHECK(by_callback::get(six.send_to("x", six.local_endpoint(), {.ecn = 1})).has_value());
  CHECK(system.traffic_class == 0x29);
}

TEST_CASE("if an option fails, none stays on, and datagrams arrive as before") {
  class failing final : public support::custom_backend {
   public:
    int fails_at = 0;
    std::vector<std::pair<int, int>> on;
    int set_option(int fd, int level, int name, const void* value, socklen_t size) override {
      if (fails_at != 0 && --fails_at == 0) return -ENOPROTOOPT;
      int number = 0;
      if (size == sizeof number) std::memcpy(&number, value, sizeof number);
      std::erase(on, std::pair(level, name));
      if (number != 0) on.emplace_back(level, name);
      return custom_backend::set_option(fd, level, name, value, size);
    }
  };
  auto made = std::make_unique<failing>();
  failing& system = *made;
  const loop l(std::move(made));
  udp_socket s = open_at(ip_address::loopback_v4());
  system.on.clear();
  for (int at = 1; at <= 3; ++at) {
    system.fails_at = at;
    const error e = s.set_packet_info(true).error();
    CHECK(e == errc::os_error);
    CHECK(e.os_error() == ENOPROTOOPT);
    CHECK(e.operation() == "set_packet_info");
    CHECK(system.on.empty());
    CHECK(by_callback::get(s.send_to("x", s.local_endpoint())).has_value());
    CHECK(next<by_callback>(s).info == packet_info());
  }
}

TEST_CASE("packet information allocates nothing after it is on") {
  if (emulated() || !support::counts_allocations) return;
  loop l;
  udp_socket s = open_with_info(ip_address::loopback_v4());
  udp_batch batch(8);
  std::array<char, 16> room{};
  std::size_t count = 0;
  task<> t = [](udp_socket& u, udp_batch& b, std::array<char, 16>& into, std::size_t& n) -> task<> {
    for (int i = 0; i < 10; ++i) {
      const support::allocation_scope scope;
      co_await u.send_to("short", u.local_endpoint(), {.ecn = 1});
      co_await u.receive(into);
      b.clear();
      b.push("short", u.local_endpoint(), {.ecn = 2});
      co_await u.send_batch(b);
      co_await u.receive_batch(b);
      if (i > 1) n += scope.count();
    }
  }(s, batch, room, count);
  bool ok = false;
  t.start([&ok](const result<void>& r) { ok = r.has_value(); });
  l.run();
  CHECK(ok);
  CHECK(count == 0);
}

TEST_CASE("structured bindings name the members that they named before") {
  udp_packet packet("data", {second, 7}, {.ecn = 2});
  auto& [data, sender] = packet;
  data += "!";
  CHECK(packet.data == "data!");
  CHECK(sender.port == 7);
  const auto [copy, from] = packet;
  static_assert(std::is_same_v<decltype(copy), const std::string>);
  CHECK(copy == "data!");
  CHECK(from.address == second);
  auto [moved, whence] = std::move(packet);
  CHECK(moved == "data!");
  CHECK(whence.port == 7);
  const udp_received r{3, {second, 8}, true, {.ecn = 1}};
  const auto& [size, who, truncated] = r;
  CHECK(size == 3);
  CHECK(who.port == 8);
  CHECK(truncated);
}
