// Multicast and broadcast, only on this machine.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "support/emulator.hpp"
#include "support/faces.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using support::by_callback;
using support::by_coroutine;

const ip_address group_v4 = ip_address::v4(0xefff4d4d);  // 239.255.77.77: for use inside a site

/// ff11::4d4d, which never leaves its interface, or without an interface number.
ip_address group_v6(std::uint32_t scope) {
  std::byte bytes[16] = {std::byte{0xff}, std::byte{0x11}};
  bytes[14] = bytes[15] = std::byte{0x4d};
  return ip_address::v6(bytes, scope);
}

udp_socket open_shared(const ip_endpoint& at) {
  udp_options options;
  options.reuse_address = true;
  result<udp_socket> r = udp_socket::open(at, options);
  CHECK(r.has_value());
  return r ? *std::move(r) : udp_socket();
}

bool receives(udp_socket& s, const std::string& text) {
  auto r = run(move_on_after(5s, s.receive()));
  return r && r->data == text;
}

bool stays_silent(udp_socket& s) {
  support::settle();
  return !run(move_on_after(0ms, s.receive())).has_value();
}

/// The number of an interface with a route for IPv6 multicast; 0 if there is none.
std::uint32_t multicast_interface_v6() {
  std::uint32_t found = 0;
  udp_socket s = open_shared({ip_address::any_v6(), 0});
  struct if_nameindex* all = ::if_nameindex();
  for (auto* one = all; one != nullptr && one->if_index != 0 && found == 0; ++one) {
    const ip_address group = group_v6(one->if_index);
    if (!s.join_group(group)) continue;
    if (run(as_result(s.send_to("", ip_endpoint{group, s.local_endpoint().port})))) found = one->if_index;
    CHECK(s.leave_group(group).has_value());
  }
  ::if_freenameindex(all);
  return found;
}

}  // namespace

TEST_CASE_TEMPLATE("every member of an IPv4 group receives datagrams sent to it", Face, by_callback,
                   by_coroutine) {
  if (support::emulator_has(support::emulator_fault::udp_multicast)) return;
  loop l;
  udp_socket a = open_shared({ip_address::any_v4(), 0});
  udp_socket b = open_shared({ip_address::any_v4(), a.local_endpoint().port});
  udp_socket sender = open_shared({ip_address::loopback_v4(), 0});
  const ip_address lo = ip_address::loopback_v4();
  const ip_endpoint group{group_v4, a.local_endpoint().port};
  CHECK(sender.set_multicast_interface(lo).has_value());
  CHECK(a.join_group(group_v4, lo).has_value());
  CHECK(b.join_group(group_v4, lo).has_value());
  CHECK(Face::get(sender.send_to("to all", group)).has_value());
  CHECK(receives(a, "to all"));
  CHECK(receives(b, "to all"));

  CHECK(b.leave_group(group_v4, lo).has_value());
#if defined(IP_MULTICAST_ALL)
  CHECK(b.set_option(IPPROTO_IP, IP_MULTICAST_ALL, 0).has_value());  // else Linux delivers what others joined
#endif
  CHECK(Face::get(sender.send_to("to one", group)).has_value());
  CHECK(receives(a, "to one"));
  CHECK(stays_silent(b));
}

TEST_CASE_TEMPLATE("an IPv6 group is joined on the interface with that number", Face, by_callback,
                   by_coroutine) {
  loop l;
  const std::uint32_t number = multicast_interface_v6();
  if (number == 0) {
    MESSAGE("no interface here has a way to IPv6 multicast");
    return;
  }
  udp_socket a = open_shared({ip_address::any_v6(), 0});
  udp_socket sender = open_shared({ip_address::any_v6(), 0});
  const ip_address interface =
      ip_address::v6(std::span<const std::byte, 16>(ip_address::loopback_v6().bytes()), number);
  ip_endpoint group{group_v6(number), a.local_endpoint().port};
  SUBCASE("as the scope of the group") { CHECK(a.join_group(group.address).has_value()); }
  SUBCASE("as the scope of an interface's address") {
    if (support::emulator_has(support::emulator_fault::udp_multicast)) return;
    CHECK(a.join_group(group_v6(0), interface).has_value());
    CHECK(sender.set_multicast_interface(interface).has_value());
    group.address = group_v6(0);
  }
  CHECK(Face::get(sender.send_to("six", group)).has_value());
  CHECK(receives(a, "six"));

  CHECK(sender.set_multicast_loop(false).has_value());
  CHECK(Face::get(sender.send_to("to nobody", group)).has_value());
  CHECK(sender.set_multicast_loop(true).has_value());
  CHECK(Face::get(sender.send_to("at last", group)).has_value());
  CHECK(receives(a, "at last"));
  CHECK(a.leave_group(group_v6(number)).has_value());
}

TEST_CASE("an address that is not a group, or has the other family, is rejected") {
  loop l;
  udp_socket s = open_shared({ip_address::any_v4(), 0});
  CHECK(s.join_group(ip_address::loopback_v4()).error() == errc::invalid_argument);
  CHECK(s.join_group(group_v4, ip_address::loopback_v6()).error() == errc::invalid_argument);
  CHECK(s.join_group(group_v6(0), ip_address::loopback_v6()).error() == errc::invalid_argument);  // no number
  const error other_family = s.join_group(group_v6(1)).error();
  CHECK(other_family.code() != errc::ok);
  const error not_joined = s.leave_group(group_v4, ip_address::loopback_v4()).error();
  CHECK(not_joined == errc::os_error);
  CHECK(not_joined.os_error() == EADDRNOTAVAIL);
  CHECK(not_joined.operation() == "leave_group");
  CHECK(s.set_multicast_hops(-1).error() == errc::invalid_argument);
  CHECK(s.set_multicast_hops(256).error() == errc::invalid_argument);
  s.close();
  CHECK(s.join_group(group_v4).error() == errc::closed_resource);
  CHECK(s.set_multicast_loop(true).error() == errc::closed_resource);
  CHECK(s.set_multicast_hops(1).error() == errc::closed_resource);
  CHECK(s.set_broadcast(true).error() == errc::closed_resource);
}

TEST_CASE("hops and loop are set for the socket's family") {
  loop l;
  udp_socket v4 = open_shared({ip_address::any_v4(), 0});
  CHECK(v4.set_multicast_hops(7).has_value());
  CHECK(v4.get_option(IPPROTO_IP, IP_MULTICAST_TTL).value_or(0) == 7);
  CHECK(v4.set_multicast_loop(false).has_value());
  CHECK(v4.get_option(IPPROTO_IP, IP_MULTICAST_LOOP).value_or(1) == 0);
  udp_socket v6 = open_shared({ip_address::any_v6(), 0});
  CHECK(v6.set_multicast_hops(9).has_value());
  CHECK(v6.get_option(IPPROTO_IPV6, IPV6_MULTICAST_HOPS).value_or(0) == 9);
  CHECK(v6.set_multicast_loop(false).has_value());
  CHECK(v6.get_option(IPPROTO_IPV6, IPV6_MULTICAST_LOOP).value_or(1) == 0);
}

TEST_CASE("a dual-stack socket has multicast interface, hops and loop for each family") {
  if (support::emulator_has(support::emulator_fault::udp_multicast)) return;
  loop l;
  udp_options both;
  both.prepare = [](int fd, void*) {
    const int off = 0;
    return ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0 ? 0 : errno;
  };
  result<udp_socket> s = udp_socket::open({ip_address::any_v6(), 0}, both);
  CHECK(s.has_value());
  if (!s) return;
  const ip_address lo = ip_address::loopback_v4();
  const auto interface_v4 = [&] {
    in_addr chosen{};
    socklen_t size = sizeof chosen;
    CHECK(::getsockopt(s->native_handle(), IPPROTO_IP, IP_MULTICAST_IF, &chosen, &size) == 0);
    return ip_address::v4(ntohl(chosen.s_addr));
  };
  CHECK(s->set_multicast_interface(lo).has_value());
  CHECK(interface_v4() == lo);
  CHECK(s->set_multicast_hops(7).has_value());
  CHECK(s->get_option(IPPROTO_IP, IP_MULTICAST_TTL).value_or(0) == 7);
  CHECK(s->get_option(IPPROTO_IPV6, IPV6_MULTICAST_HOPS).value_or(0) == 7);
  CHECK(s->set_multicast_loop(false).has_value());
  CHECK(s->get_option(IPPROTO_IP, IP_MULTICAST_LOOP).value_or(1) == 0);
  CHECK(s->get_option(IPPROTO_IPV6, IPV6_MULTICAST_LOOP).value_or(1) == 0);
  CHECK(s->set_multicast_loop(true).has_value());
  CHECK(s->join_group(group_v4, lo).has_value());
  CHECK(run(as_result(s->send_to("to both", ip_endpoint{group_v4, s->local_endpoint().port}))).has_value());
  CHECK(receives(*s, "to both"));
  CHECK(s->set_multicast_interface(ip_address()).has_value());
  CHECK(interface_v4() == ip_address::any_v4());
  // An IPv6 address needs the interface's number; an IPv4 socket rejects IPv6 addresses.
  CHECK(s->set_multicast_interface(ip_address::loopback_v6()).error() == errc::invalid_argument);
  udp_socket v4 = open_shared({ip_address::any_v4(), 0});
  CHECK(v4.set_multicast_interface(ip_address::loopback_v6()).error() == errc::invalid_argument);
}

TEST_CASE("broadcast must be enabled first") {
  loop l;
  udp_socket s = open_shared({ip_address::any_v4(), 0});
  const ip_endpoint everybody{ip_address::v4(0x7fffffff),
                              s.local_endpoint().port};  // of the loopback network
  const error e = run(as_result(s.send_to("x", everybody))).error();
  CHECK(e == errc::os_error);
  CHECK(e.os_error() == EACCES);
  CHECK(s.set_broadcast(true).has_value());
  CHECK(run(as_result(s.send_to("x", everybody))).has_value());
  CHECK(receives(s, "x"));
}

TEST_CASE_TEMPLATE("a group is joined and left on an interface by its name", Face, by_callback,
                   by_coroutine) {
  if (support::emulator_has(support::emulator_fault::udp_multicast)) return;
  loop l;
  char name[IF_NAMESIZE] = "lo";
  if (::if_nametoindex(name) == 0) std::snprintf(name, sizeof name, "lo0");
  udp_socket a = open_shared({ip_address::any_v4(), 0});
  udp_socket sender = open_shared({ip_address::loopback_v4(), 0});
  const ip_endpoint group{group_v4, a.local_endpoint().port};
  CHECK(sender.set_multicast_interface(ip_address::loopback_v4()).has_value());
  CHECK(a.join_group(group_v4, name).has_value());
  CHECK(a.set_packet_info(true).has_value());
  CHECK(Face::get(sender.send_to("named", group)).has_value());
  auto r = Face::get(move_on_after(5s, a.receive()));
  CHECK((r && *r && (*r)->data == "named"));
  if (r && *r) {
    CHECK((*r)->info.local == group_v4);  // the group, not an address of this machine
    CHECK((*r)->info.interface_index == ::if_nametoindex(name));
    CHECK((*r)->info.hop_limit == 1);
    // Nothing can come from a group: the system chooses the address.
    CHECK(Face::get(a.send_to("answer", (*r)->sender, {.local = (*r)->info.local})).has_value());
    CHECK(receives(sender, "answer"));
  }
  CHECK(a.leave_group(group_v4, std::string(name)).has_value());
  CHECK(a.leave_group(group_v4, name).error().os_error() == EADDRNOTAVAIL);
  if (a.join_group(group_v4, "")) CHECK(a.leave_group(group_v4, std::string_view()).has_value());
  if (const std::uint32_t number = multicast_interface_v6(); number != 0) {
    ::if_indextoname(number, name);
    udp_socket six = open_shared({ip_address::any_v6(), 0});
    CHECK(six.join_group(group_v6(0), name).has_value());
    CHECK(Face::get(six.send_to("six", {group_v6(number), six.local_endpoint().port})).has_value());
    CHECK(receives(six, "six"));
    CHECK(six.leave_group(group_v6(0), name).has_value());
  }
}

TEST_CASE_TEMPLATE("a member of a source-specific group hears its sources only", Face, by_callback,
                   by_coroutine) {
  if (support::emulator_has(support::emulator_fault::udp_multicast)) return;
  loop l;
  const char* const name = ::if_nametoindex("lo") != 0 ? "lo" : "lo0";
  const ip_address one = ip_address::loopback_v4();
  const ip_address two = ip_address::v4(0x7f000002);
  udp_socket a = open_shared({ip_address::any_v4(), 0});
#if defined(IP_MULTICAST_ALL)
  CHECK(a.set_option(IPPROTO_IP, IP_MULTICAST_ALL, 0).has_value());
#endif
  const ip_endpoint group{group_v4, a.local_endpoint().port};
  udp_socket first = open_shared({one, 0});
  udp_socket second = open_shared({two, 0});
  for (udp_socket* s : {&first, &second}) CHECK(s->set_multicast_interface(one).has_value());
  CHECK(a.join_group(group_v4, name, one).has_value());
  CHECK(Face::get(second.send_to("not heard", group)).has_value());
  CHECK(Face::get(first.send_to("heard", group)).has_value());
  CHECK(receives(a, "heard"));
  CHECK(a.join_group(group_v4, name, two).has_value());
  CHECK(Face::get(second.send_to("now too", group)).has_value());
  CHECK(receives(a, "now too"));
  CHECK(a.leave_group(group_v4, name, one).has_value());
  CHECK(Face::get(first.send_to("no longer", group)).has_value());
  CHECK(Face::get(second.send_to("still", group)).has_value());
  CHECK(receives(a, "still"));
  CHECK(a.leave_group(group_v4, name, two).has_value());
  CHECK(Face::get(second.send_to("left", group)).has_value());
  CHECK(stays_silent(a));
}

TEST_CASE("joining by an interface's name reports what is wrong") {
  loop l;
  udp_socket s = open_shared({ip_address::any_v4(), 0});
  const error unknown = s.join_group(group_v4, "no such").error();
  CHECK(unknown == errc::os_error);
  CHECK(unknown.os_error() == ENODEV);
  CHECK(unknown.operation() == "join_group");
  CHECK(unknown.message().find("interface") != std::string::npos);
  CHECK(s.leave_group(group_v4, std::string(100, 'x')).error().os_error() == ENODEV);
  CHECK(s.join_group(group_v4, std::string_view("lo\0x", 4)).error().os_error() == ENODEV);
  CHECK(s.join_group(ip_address::loopback_v4(), "lo").error() == errc::invalid_argument);
  CHECK(s.join_group(group_v6(0), "lo").error() == errc::invalid_argument);
  const error family = s.join_group(group_v4, "lo", ip_address::loopback_v6()).error();
  CHECK(family == errc::invalid_argument);
  CHECK(family.message().find("family") != std::string::npos);
  CHECK(s.leave_group(group_v4, "", ip_address::loopback_v4()).error() == errc::os_error);  // never joined
  s.close();
  CHECK(s.join_group(group_v4, "lo").error() == errc::closed_resource);
  CHECK(udp_socket().leave_group(group_v4, "lo").error() == errc::closed_resource);
}
