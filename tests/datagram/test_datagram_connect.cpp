// UDP sockets by name.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <sys/socket.h>

#include "support/custom_backend.hpp"
#include "support/faces.hpp"
#include "support/gate.hpp"
#include "support/leftovers.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using support::by_callback;
using support::by_coroutine;
using support::waiting;

/// Knows the name two.test, with both loopback addresses, and four.test, with the IPv4 one.
class named_backend : public support::custom_backend {
 public:
  bool has_v6 = true;
  bool uses_threads() const override { return threads; }
  bool threads = false;
  std::shared_ptr<support::gate> hold;  // every look-up waits there
  bool has_family(int family) override { return family != AF_INET6 || has_v6; }
  detail::resolved resolve(const std::string& host, std::uint16_t port, int family) override {
    if (hold) hold->pass();
    detail::resolved found;
    if (host == "two.test" && family != AF_INET) found.endpoints.push_back({ip_address::loopback_v6(), port});
    if (host == "two.test" && family != AF_INET6)
      found.endpoints.push_back({ip_address::loopback_v4(), port});
    if (host == "four.test" && family != AF_INET6)
      found.endpoints.push_back({ip_address::loopback_v4(), port});
    if (host == "far.test") {
      found.endpoints.push_back({*ip_address::parse("192.0.2.77"), port});  // not ours: for documentation
      found.endpoints.push_back({ip_address::loopback_v4(), port});
    }
    if (found.endpoints.empty()) {
      found.status = -ENOENT;
      found.reason = "name or service not known";
    }
    return found;
  }
};

struct fixture {
  fixture() {
    auto made = std::make_unique<named_backend>();
    system = made.get();
    l.emplace(std::move(made));
  }
  named_backend* system;
  std::optional<loop> l;
};

udp_options family(int f) {
  udp_options options;
  options.family = f;
  return options;
}

udp_options local(std::string_view host, std::uint16_t port = 0) {
  udp_options options;
  options.local_host = host;
  options.local_port = port;
  return options;
}

}  // namespace

TEST_CASE_TEMPLATE("a family or a host is required", Face, by_callback, by_coroutine) {
  fixture f;
  CHECK(Face::get(create_udp_socket(udp_options())).error() == errc::invalid_argument);
  CHECK(Face::get(create_udp_socket(family(AF_UNIX))).error() == errc::invalid_argument);
  CHECK(Face::get(decltype(create_udp_socket(udp_options()))()).error() == errc::invalid_argument);
  for (const int each : {AF_INET, AF_INET6}) {
    const result<udp_socket> s = Face::get(create_udp_socket(family(each)));
    CHECK(s.has_value());
    if (!s) continue;
    CHECK(s->local_endpoint().address == (each == AF_INET ? ip_address::any_v4() : ip_address::any_v6()));
    CHECK(s->local_endpoint().port != 0);
  }
}

TEST_CASE_TEMPLATE("the local port is used without a local host too", Face, by_callback, by_coroutine) {
  fixture f;
  std::uint16_t port = 0;
  {
    const result<udp_socket> s = Face::get(create_udp_socket(family(AF_INET)));
    if (s) port = s->local_endpoint().port;
  }
  udp_options options = family(AF_INET);
  options.local_port = port;
  const result<udp_socket> s = Face::get(create_udp_socket(options));
  CHECK((s && s->local_endpoint().port == port));
  const result<connected_udp_socket> taken = Face::get(create_connected_udp_socket("127.0.0.1", 9, options));
  CHECK(taken.error().os_error() == EADDRINUSE);
}

TEST_CASE_TEMPLATE("an IPv6 socket without a host does not occupy the IPv4 port", Face, by_callback,
                   by_coroutine) {
  fixture f;
  const result<udp_socket> six = Face::get(create_udp_socket(family(AF_INET6)));
  CHECK(six.has_value());
  if (!six) return;
  udp_options options = family(AF_INET);
  options.local_port = six->local_endpoint().port;
  CHECK(Face::get(create_udp_socket(options)).has_value());
}

TEST_CASE_TEMPLATE("a local host can be an address, localhost or a name", Face, by_callback, by_coroutine) {
  fixture f;
  const auto address_of = [](const udp_options& options) {
    const result<udp_socket> s = Face::get(create_udp_socket(options));
    return s ? s->local_endpoint().address.to_string() : s.error().message();
  };
  CHECK(address_of(local("127.0.0.2")) == "127.0.0.2");
  CHECK(address_of(local("::1")) == "::1");
  CHECK(address_of(local("::")) == "::");
  CHECK(address_of(local("localhost")) == "::1");
  CHECK(address_of(local("two.test")) == "::1");
  CHECK(address_of(local("four.test")) == "127.0.0.1");
  CHECK(address_of(local("far.test")) == "127.0.0.1");  // the first address of this machine
  udp_options v4 = local("two.test");
  v4.family = AF_INET;
  CHECK(address_of(v4) == "127.0.0.1");
  f.system->has_v6 = false;
  CHECK(address_of(local("localhost")) == "127.0.0.1");
  CHECK(Face::get(create_udp_socket(local("no.test"))).error() == errc::name_resolution);
  CHECK(Face::get(create_udp_socket(local("192.0.2.77"))).error().os_error() == EADDRNOTAVAIL);
}

TEST_CASE_TEMPLATE("an IPv4-mapped address uses an IPv6 socket, and the endpoints are IPv4", Face,
                   by_callback, by_coroutine) {
  fixture f;
  const ip_address v4 = ip_address::loopback_v4();
  const ip_endpoint mapped{*ip_address::parse("::ffff:127.0.0.1"), 0};
  for (const int each : {AF_UNSPEC, AF_INET6}) {
    udp_options options = local("::ffff:127.0.0.1");
    options.family = each;
    result<udp_socket> server = Face::get(create_udp_socket(options));
    CHECK_MESSAGE(server.has_value(), server.error().message());
    if (!server) return;
    CHECK(server->local_endpoint().address == v4);
    const std::uint16_t port = server->local_endpoint().port;
    options = family(each);
    result<connected_udp_socket> client =
        Face::get(create_connected_udp_socket("::ffff:127.0.0.1", port, options));
    CHECK_MESSAGE(client.has_value(), client.error().message());
    if (!client) return;
    CHECK(client->remote_endpoint() == ip_endpoint{v4, port});
    CHECK(client->local_endpoint().address == v4);
    CHECK(Face::get(client->send("over")).has_value());
    const result<udp_packet> got = Face::get(server->receive());
    CHECK((got && got->data == "over" && got->sender == client->local_endpoint()));
    CHECK(Face::get(server->send_to("back", client->local_endpoint())).has_value());
    CHECK(Face::get(client->receive()).value_or("") == "back");
    // From an IPv4 address of this machine; and from an IPv4 socket to such an address.
    options.local_host = each == AF_INET6 ? "::ffff:127.0.0.2" : "127.0.0.2";
    const auto bound = Face::get(create_connected_udp_socket({mapped.address, port}, options));
    CHECK((bound && bound->local_endpoint().address == ip_address::v4(0x7f000002)));
    udp_socket plain = udp_socket::open({v4, 0}).value();
    CHECK(Face::get(plain.send_to("plain", ip_endpoint{mapped.address, port})).has_value());
    CHECK(Face::get(plain.send_to("plain", "::ffff:127.0.0.1", port)).has_value());
    for (int i = 0; i < 2; ++i) {
      const result<udp_packet> from_plain = Face::get(server->receive());
      CHECK((from_plain && from_plain->sender == plain.local_endpoint()));
    }
  }
  udp_options four = local("::ffff:127.0.0.1");
  four.family = AF_INET;
  CHECK(Face::get(create_udp_socket(four)).error() == errc::name_resolution);
  CHECK(Face::get(create_connected_udp_socket("::ffff:127.0.0.1", 9, family(AF_INET))).error() ==
        errc::name_resolution);
  CHECK(Face::get(create_connected_udp_socket({mapped.address, 9}, family(AF_INET))).error().os_error() ==
        EAFNOSUPPORT);
}

TEST_CASE_TEMPLATE("connecting accepts a host or an endpoint", Face, by_callback, by_coroutine) {
  fixture f;
  for (const bool threads : {false, true}) {
    f.system->threads = threads;
    const result<udp_socket> peer = Face::get(create_udp_socket(local("127.0.0.1")));
    CHECK(peer.has_value());
    if (!peer) continue;
    const std::uint16_t port = peer->local_endpoint().port;
    for (const std::string_view host : {"127.0.0.1", "four.test"}) {
      const result<connected_udp_socket> c = Face::get(create_connected_udp_socket(host, port));
      CHECK((c && c->remote_endpoint() == peer->local_endpoint()));
      CHECK((c && c->local_endpoint().address == ip_address::loopback_v4()));
    }
    const result<connected_udp_socket> c = Face::get(create_connected_udp_socket(peer->local_endpoint()));
    CHECK((c && c->remote_endpoint() == peer->local_endpoint()));
  }
  CHECK(Face::get(create_connected_udp_socket("no.test", 9)).error() == errc::name_resolution);
  CHECK(Face::get(create_connected_udp_socket("", 9)).error() == errc::invalid_argument);
  support::threads_may_remain = true;
}

TEST_CASE_TEMPLATE("the local address has the family of the remote one", Face, by_callback, by_coroutine) {
  fixture f;
  const result<connected_udp_socket> v4 =
      Face::get(create_connected_udp_socket("127.0.0.1", 9, local("localhost")));
  CHECK((v4 && v4->local_endpoint().address == ip_address::loopback_v4()));
  const result<connected_udp_socket> v6 = Face::get(create_connected_udp_socket("::1", 9, local("two.test")));
  CHECK((v6 && v6->local_endpoint().address == ip_address::loopback_v6()));
  const result<connected_udp_socket> none =
      Face::get(create_connected_udp_socket("::1", 9, local("127.0.0.1")));
  CHECK(none.error().os_error() == EAFNOSUPPORT);
  udp_options other = family(AF_INET6);
  CHECK(Face::get(create_connected_udp_socket({ip_address::loopback_v4(), 9}, other)).error().os_error() ==
        EAFNOSUPPORT);
}

TEST_CASE_TEMPLATE("a datagram can be sent to a host name", Face, by_callback, by_coroutine) {
  fixture f;
  result<udp_socket> a = udp_socket::open({ip_address::loopback_v4(), 0});
  result<udp_socket> b = udp_socket::open({ip_address::loopback_v4(), 0});
  CHECK((a && b));
  if (!a || !b) return;
  const std::uint16_t port = b->local_endpoint().port;
  for (const bool threads : {false, true}) {
    f.system->threads = threads;
    for (const std::string_view host : {"127.0.0.1", "localhost", "two.test", "four.test"}) {
      CHECK(Face::get(a->send_to(std::string(host), host, port)).has_value());
      result<udp_packet> r = Face::get(b->receive());
      CHECK((r && r->data == host && r->sender == a->local_endpoint()));
    }
    CHECK(Face::get(a->send_to("x", "no.test", port)).error() == errc::name_resolution);
  }
  CHECK(Face::get(a->send_to("x", "::1", port)).error() == errc::os_error);
  CHECK(Face::get(a->send_to("still", "127.0.0.1", port)).has_value());
  support::threads_may_remain = true;
}

#if !defined(ANYIO_NET_NO_THREADS)
TEST_CASE_TEMPLATE("during a name look-up the socket's sender is busy, and closing ends the look-up", Face,
                   by_callback, by_coroutine) {
  fixture f;
  f.system->threads = true;
  const auto hold = f.system->hold = std::make_shared<support::gate>();
  result<udp_socket> a = udp_socket::open({ip_address::loopback_v4(), 0});
  CHECK(a.has_value());
  if (!a) return;
  waiting<void> w;
  Face::start(a->send_to("x", "two.test", 9), w);
  support::settle();
  CHECK(Face::get(a->send_to("y", "127.0.0.1", 9)).error() == errc::busy_resource);
  a->close();
  CHECK(w.get().error() == errc::closed_resource);
  hold->open();
  support::threads_may_remain = true;
}

TEST_CASE("an operation may be destroyed during its look-up") {
  fixture f;
  f.system->threads = true;
  const auto hold = f.system->hold = std::make_shared<support::gate>();
  result<udp_socket> a = udp_socket::open({ip_address::loopback_v4(), 0});
  CHECK(a.has_value());
  if (!a) return;
  {
    auto op = a->send_to("x", "two.test", 9);
    op.start([](const result<void>&) { CHECK(false); });
    support::settle();
  }
  CHECK(run(as_result(a->send_to("x", "127.0.0.1", 9))).has_value());
  auto create = create_udp_socket(local("two.test"));
  create.start([](const result<udp_socket>&) { CHECK(false); });
  support::settle();
  create = {};
  CHECK(run(as_result(fail_after(1ms, create_connected_udp_socket("two.test", 9)))).error() ==
        errc::timed_out);
  hold->open();
  support::settle();
  support::threads_may_remain = true;
}
#endif

TEST_CASE("a view of the loop's buffer is kept during the look-up") {
  fixture f;
  f.system->threads = true;
  result<udp_socket> a = udp_socket::open({ip_address::loopback_v4(), 0});
  result<udp_socket> b = udp_socket::open({ip_address::loopback_v4(), 0});
  CHECK((a && b));
  if (!a || !b) return;
  const mutable_buffer shared = detail::loop_core::current().buffer();
  std::memset(shared.data(), '1', 4);
  waiting<void> w;
  by_callback::start(a->send_to(const_buffer(shared.data(), 4), "four.test", b->local_endpoint().port), w);
  std::memset(shared.data(), '?', 4);
  CHECK(w.get().has_value());
  result<udp_packet> r = by_callback::get(b->receive());
  CHECK((r && r->data == "1111"));
  support::threads_may_remain = true;
}

TEST_CASE("hosts are copied before the function returns") {
  fixture f;
  std::string host = "127.0.0.1";
  auto create = create_udp_socket(local(host));
  auto connect = create_connected_udp_socket(host, 9, local(host));
  host.assign(host.size(), '?');
  const result<udp_socket> s = by_callback::get(std::move(create));
  CHECK((s && s->local_endpoint().address == ip_address::loopback_v4()));
  CHECK(by_callback::get(std::move(connect)).has_value());
}
