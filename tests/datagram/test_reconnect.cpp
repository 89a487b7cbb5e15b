// Connected datagram sockets whose peer was restarted, or that get another peer.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include <sys/socket.h>
#include <unistd.h>

#include "support/faces.hpp"
#include "support/temp_dir.hpp"
#include "support/unix_datagrams.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using support::by_callback;
using support::by_coroutine;
using support::open_datagrams_at;
using support::temp_dir;
using support::waiting;

udp_socket open_udp(const ip_address& at, std::uint16_t port = 0) {
  result<udp_socket> r = udp_socket::open({at, port});
  CHECK(r.has_value());
  return r ? *std::move(r) : udp_socket();
}

template <class Face>
std::string next(udp_socket& s) {
  auto r = Face::get(move_on_after(5s, s.receive()));
  return r && *r ? (*r)->data : "nothing";
}

}  // namespace

TEST_CASE_TEMPLATE("a UNIX datagram socket reaches a peer that was restarted", Face, by_callback,
                   by_coroutine) {
  loop l;
  temp_dir dir;
  const std::string path = dir.path("log");
  unix_datagram_socket server = open_datagrams_at(path);
  auto client = connected_unix_datagram_socket::open(path, {.local_path = dir.path("client")}).value();
  CHECK(Face::get(client.send("first")).has_value());
  server.close();
  CHECK(Face::get(client.send("refused")).error() == errc::broken_resource);
  error e = client.reconnect().error();  // not there yet
  CHECK(e == errc::os_error);
  CHECK(e.os_error() == ECONNREFUSED);
  CHECK(e.operation() == "reconnect");
  CHECK(static_cast<bool>(client));
  ::unlink(path.c_str());
  CHECK(client.reconnect().error().os_error() == ENOENT);

  server = open_datagrams_at(path);
  CHECK(client.reconnect().has_value());
  CHECK(Face::get(client.send("second")).has_value());
  result<unix_packet> r = Face::get(server.receive());
  CHECK((r && r->data == "second" && r->sender == dir.path("client")));
  CHECK(Face::get(server.send_to("answer", dir.path("client"))).has_value());
  CHECK(Face::get(client.receive()).value_or("") == "answer");
  CHECK(client.remote_path() == path);
}

TEST_CASE_TEMPLATE("a UNIX datagram socket gets another peer, or keeps the former one", Face, by_callback,
                   by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket a = open_datagrams_at(dir.path("a"));
  unix_datagram_socket b = open_datagrams_at(dir.path("b"));
  auto client = connected_unix_datagram_socket::open(dir.path("a")).value();
  CHECK(client.reconnect(dir.path("nothing")).error().os_error() == ENOENT);
  CHECK(client.reconnect(std::string(200, 'p')).error().os_error() == ENAMETOOLONG);
  CHECK(client.remote_path() == dir.path("a"));
  CHECK(Face::get(client.send("still a")).has_value());
  result<unix_packet> r = Face::get(a.receive());
  CHECK((r && r->data == "still a"));
  CHECK(client.reconnect(dir.path("b")).has_value());
  CHECK(client.remote_path() == dir.path("b"));
  CHECK(Face::get(client.send("now b")).has_value());
  r = Face::get(b.receive());
  CHECK((r && r->data == "now b"));
  client.close();
  CHECK(client.reconnect().error() == errc::closed_resource);
  CHECK(client.reconnect(dir.path("a")).error() == errc::closed_resource);
  CHECK(connected_unix_datagram_socket().reconnect().error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("operations that wait during a reconnect go on with the new peer", Face, by_callback,
                   by_coroutine) {
  loop l;
  temp_dir dir;
  unix_datagram_socket full = open_datagrams_at(dir.path("full"));
  unix_datagram_socket other = open_datagrams_at(dir.path("other"));
  auto client = connected_unix_datagram_socket::open(dir.path("full"), {.local_path = dir.path("c")}).value();
  waiting<std::string> receiving;
  Face::start(client.receive(), receiving);
  waiting<void> sending;
  int sent = 0;
  do {
    CHECK(++sent < 100000);
    Face::start(client.send("x"), sending);
    support::settle();
  } while (sending.done() && sending.get().has_value());
  CHECK(client.reconnect(dir.path("other")).has_value());
  CHECK(sending.get().has_value());
  CHECK(Face::get(other.receive()).has_value());
  CHECK(Face::get(other.send_to("hello", dir.path("c"))).has_value());
  CHECK(receiving.get().value_or("") == "hello");
}

TEST_CASE_TEMPLATE("a UDP socket connects again, and drops the refusal of before", Face, by_callback,
                   by_coroutine) {
  loop l;
  udp_socket server = open_udp(ip_address::loopback_v4());
  const ip_endpoint at = server.local_endpoint();
  auto client = connected_udp_socket::open(at).value();
  const ip_endpoint own = client.local_endpoint();
  server.close();
  CHECK(Face::get(client.send("to no one")).has_value());  // its refusal is pending now
  server = open_udp(at.address, at.port);
  CHECK(client.reconnect().has_value());
  CHECK(client.local_endpoint() == own);
  CHECK(client.remote_endpoint() == at);
  CHECK(Face::get(client.send("heard")).has_value());
  CHECK(next<Face>(server) == "heard");
  CHECK(Face::get(server.send_to("answer", own)).has_value());
  CHECK(Face::get(client.receive()).value_or("") == "answer");
}

TEST_CASE_TEMPLATE("a UDP socket gets another peer, and hears no other", Face, by_callback, by_coroutine) {
  loop l;
  for (const bool v6 : {false, true}) {
    const ip_address lo = v6 ? ip_address::loopback_v6() : ip_address::loopback_v4();
    udp_socket a = open_udp(lo);
    udp_socket b = open_udp(lo);
    auto client = connected_udp_socket::open(a.local_endpoint()).value();
    waiting<std::string> w;
    Face::start(client.receive(), w);
    support::settle();
    CHECK(client.reconnect(b.local_endpoint()).has_value());
    CHECK(client.remote_endpoint() == b.local_endpoint());
    CHECK(Face::get(client.send("x")).has_value());
    CHECK(next<Face>(b) == "x");
    CHECK(Face::get(a.send_to("from a", client.local_endpoint())).has_value());
    CHECK(Face::get(b.send_to("from b", client.local_endpoint())).has_value());
    CHECK(w.get().value_or("") == "from b");
  }
}

TEST_CASE_TEMPLATE("a UDP socket that cannot get another peer keeps the former one", Face, by_callback,
                   by_coroutine) {
  loop l;
  udp_socket server = open_udp(ip_address::loopback_v4());
  auto client = connected_udp_socket::open(server.local_endpoint()).value();
  const error e = client.reconnect({ip_address::loopback_v6(), 9}).error();
  CHECK(e == errc::os_error);
  CHECK(e.os_error() == EAFNOSUPPORT);
  // Broadcast is not allowed.
  CHECK(client.reconnect({ip_address::v4(0x7fffffff), 9}).error() == errc::os_error);
  CHECK(client.remote_endpoint() == server.local_endpoint());
  CHECK(Face::get(client.send("still here")).has_value());
  CHECK(next<Face>(server) == "still here");
  client.close();
  CHECK(client.reconnect().error() == errc::closed_resource);
  CHECK(client.reconnect(server.local_endpoint()).error() == errc::closed_resource);
  CHECK(connected_udp_socket().reconnect().error() == errc::closed_resource);
}

TEST_CASE("a reconnect does not disturb batches") {
  loop l;
  udp_socket a = open_udp(ip_address::loopback_v4());
  udp_socket b = open_udp(ip_address::loopback_v4());
  auto client = connected_udp_socket::open(a.local_endpoint()).value();
  udp_batch out(4);
  for (const char* text : {"1", "2", "3", "4"}) CHECK(out.push(text));
  CHECK(by_callback::get(client.send_batch(out)).value_or(0) == 4);
  CHECK(client.reconnect(b.local_endpoint()).has_value());
  CHECK(by_callback::get(client.send_batch(out)).value_or(0) == 4);
  for (int i = 0; i < 4; ++i) CHECK(next<by_callback>(b) == std::to_string(i + 1));
}
