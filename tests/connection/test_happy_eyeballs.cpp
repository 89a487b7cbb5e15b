// Several addresses are tried as RFC 8305 says, in virtual time and against a scripted resolver.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/faces.hpp"
#include "support/sockets.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::ip_endpoint;
using anyio::result;
using anyio::tcp_listener;
using anyio::tcp_stream;
using support::by_callback;
using support::by_coroutine;
using support::loopback;
using support::scripted_backend;

/// A host whose addresses each behave as scripted: hang, fail with an errno, or connect.
struct world {
  support::scripted_loop scripted;
  tcp_listener listener = tcp_listener::open(loopback()).value();
  std::vector<std::string> addresses;
  std::map<std::string, int> answers;  // a hang, -errno, or 0; without an entry it hangs
  struct attempt {
    std::string address;
    std::chrono::milliseconds at;
    bool operator==(const attempt&) const = default;
  };
  std::vector<attempt> attempts;
  int open = 0;  // sockets made and not closed yet
  anyio::time_point begun;

  explicit world(std::vector<std::string> in_order) : addresses(std::move(in_order)) {
    auto& system = scripted.system;
    system.virtual_time = true;
    system.redirect = listener.local_endpoints().front();
    system.on_resolve = [this](const std::string&, std::uint16_t port, int family) {
      anyio::detail::resolved found;
      for (const std::string& text : addresses) {
        const auto address = anyio::ip_address::parse(text).value();
        if (family == AF_UNSPEC || (family == AF_INET6) == address.is_v6())
          found.endpoints.push_back({address, port});
      }
      return found;
    };
    // Whatever the family, the real connection goes to a listener on IPv4.
    system.on_connect = [this](const ip_endpoint& to) -> std::optional<int> {
      const std::string text = to.address.to_string();
      attempts.push_back({text, std::chrono::duration_cast<std::chrono::milliseconds>(anyio::now() - begun)});
      const auto answer = answers.find(text);
      if (answer == answers.end()) return scripted_backend::hang;
      if (answer->second != 0) return answer->second;
      return std::nullopt;
    };
  }
  template <class Face = by_coroutine>
  result<tcp_stream> connect(anyio::tcp_connect_options options = {}) {
    begun = anyio::now();
    attempts.clear();
    return Face::get(anyio::connect_tcp("host.example", 80, options));
  }
  std::chrono::milliseconds elapsed() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(anyio::now() - begun);
  }
  std::vector<std::string> order() const {
    std::vector<std::string> all;
    for (const attempt& a : attempts) all.push_back(a.address);
    return all;
  }
};
using attempts = std::vector<world::attempt>;
using names = std::vector<std::string>;

// Only IPv4 addresses where a connection succeeds, since the real connection uses IPv4.

TEST_CASE("the next address is tried after a head start of 250 ms") {
  world w({"10.0.0.1", "10.0.0.2", "10.0.0.3"});
  w.answers["10.0.0.3"] = 0;
  const result<tcp_stream> r = w.connect();
  CHECK(r.has_value());
  CHECK(w.attempts == attempts{{"10.0.0.1", 0ms}, {"10.0.0.2", 250ms}, {"10.0.0.3", 500ms}});
  CHECK(w.elapsed() == 500ms);
  CHECK(r->remote_endpoint().to_string() == "10.0.0.3:80");
}

TEST_CASE("the head start is an option, and 0 tries the next address at once") {
  world w({"10.0.0.1", "10.0.0.2", "10.0.0.3"});
  w.answers["10.0.0.3"] = 0;
  CHECK(w.connect({.happy_eyeballs_delay = 1s}).has_value());
  CHECK(w.elapsed() == 2s);
  for (const auto delay : {0ms, -5ms}) {
    CHECK(w.connect({.happy_eyeballs_delay = delay}).has_value());
    CHECK(w.elapsed() == 0ms);
    CHECK(w.attempts.size() == 3);
  }
}

TEST_CASE("the next address is tried at once when an attempt fails, sooner or later") {
  world w({"10.0.0.1", "10.0.0.2", "10.0.0.3"});
  w.answers["10.0.0.1"] = -ECONNREFUSED;
  w.answers["10.0.0.3"] = 0;
  CHECK(w.connect().has_value());
  CHECK(w.attempts == attempts{{"10.0.0.1", 0ms}, {"10.0.0.2", 0ms}, {"10.0.0.3", 250ms}});
  w.answers["10.0.0.2"] = -ENETUNREACH;
  CHECK(w.connect().has_value());
  CHECK(w.attempts == attempts{{"10.0.0.1", 0ms}, {"10.0.0.2", 0ms}, {"10.0.0.3", 0ms}});
}

TEST_CASE("if the first address succeeds, no other is tried and no head start is waited for") {
  world w({"10.0.0.1", "10.0.0.2"});
  w.answers["10.0.0.1"] = w.answers["10.0.0.2"] = 0;
  CHECK(w.connect().has_value());
  CHECK(w.elapsed() == 0ms);
  CHECK(w.attempts.size() == 1);
}

TEST_CASE("families alternate in the resolver's order, beginning with the family of the first address") {
  const auto order_of = [](names in) {
    world w(in);
    for (const std::string& a : in) w.answers[a] = -ECONNREFUSED;
    CHECK(!w.connect().has_value());
    return w.order();
  };
  CHECK(order_of({"2001:db8::1", "2001:db8::2", "10.0.0.1"}) ==
        names{"2001:db8::1", "10.0.0.1", "2001:db8::2"});
  CHECK(order_of({"10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2", "10.0.0.3"}) ==
        names{"10.0.0.1", "2001:db8::1", "10.0.0.2", "2001:db8::2", "10.0.0.3"});
  CHECK(order_of({"10.0.0.1", "10.0.0.2"}) == names{"10.0.0.1", "10.0.0.2"});
  CHECK(order_of({"2001:db8::1", "2001:db8::2", "2001:db8::3", "10.0.0.1"}) ==
        names{"2001:db8::1", "10.0.0.1", "2001:db8::2", "2001:db8::3"});
}

TEST_CASE_TEMPLATE("if all attempts fail, the error is that of the first address tried", Face, by_callback,
                   by_coroutine) {
  world w({"10.0.0.1", "10.0.0.2", "10.0.0.3"});
  w.answers = {{"10.0.0.1", -EHOSTUNREACH}, {"10.0.0.2", -ECONNREFUSED}, {"10.0.0.3", -ETIMEDOUT}};
  anyio::error e = w.connect<Face>().error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::host_unreachable);
  // The failure of the first attempt is reported last: nothing listens at its destination.
  const std::uint16_t nobody = tcp_listener::open(loopback()).value().local_port();
  w.scripted.system.redirect = loopback(nobody);
  w.answers = {{"10.0.0.1", 0}, {"10.0.0.2", -EHOSTUNREACH}, {"10.0.0.3", -ETIMEDOUT}};
  e = w.connect<Face>({.happy_eyeballs_delay = 0ms}).error();
  CHECK(e == std::errc::connection_refused);
}

TEST_CASE_TEMPLATE("with several addresses, those of an unsupported family are skipped", Face, by_callback,
                   by_coroutine) {
  world w({"2001:db8::1", "10.0.0.1"});
  int missing = AF_INET6;
  w.scripted.system.on_open_socket = [&](int family) -> std::optional<int> {
    if (family == missing) return -EAFNOSUPPORT;
    return std::nullopt;
  };
  w.answers["10.0.0.1"] = 0;
  CHECK(w.connect<Face>().has_value());
  CHECK(w.elapsed() == 0ms);
  w.answers = {{"10.0.0.1", -ECONNREFUSED}, {"127.0.0.1", -ECONNREFUSED}};
  CHECK(w.connect<Face>().error() == std::errc::connection_refused);
  CHECK(w.order() == names{"10.0.0.1"});
  w.attempts.clear();
  CHECK(Face::get(anyio::connect_tcp("localhost", 80)).error() == std::errc::connection_refused);
  CHECK(w.order() == names{"127.0.0.1"});
  // The bound local address makes no difference.
  w.attempts.clear();
  CHECK(Face::get(anyio::connect_tcp("localhost", 80, {.local_host = "localhost"})).error() ==
        std::errc::connection_refused);
  CHECK(w.order() == names{"127.0.0.1"});

  missing = AF_INET;
  w.addresses = {"10.0.0.1", "2001:db8::1"};
  w.answers = {{"2001:db8::1", -ECONNREFUSED}, {"::1", -ECONNREFUSED}};
  CHECK(w.connect<Face>().error() == std::errc::connection_refused);
  CHECK(w.order() == names{"2001:db8::1"});
  w.attempts.clear();
  CHECK(Face::get(anyio::connect_tcp("localhost", 80)).error() == std::errc::connection_refused);
  CHECK(w.order() == names{"::1"});

  // A single address is not skipped, and addresses are not skipped if none would be left.
  for (const names& only : {names{"10.0.0.1"}, names{"10.0.0.1", "10.0.0.2"}}) {
    w.addresses = only;
    CHECK(w.connect<Face>().error() == std::errc::address_family_not_supported);
  }
}

TEST_CASE("if two attempts succeed together, one is returned and the other is closed") {
  world w({"10.0.0.1", "10.0.0.2", "10.0.0.3"});
  w.answers = {{"10.0.0.1", 0}, {"10.0.0.2", 0}, {"10.0.0.3", 0}};
  // No result is reported before all attempts have begun, so that one batch has them all.
  w.scripted.system.withhold = [&w] { return w.attempts.size() < 3; };
  result<tcp_stream> client = w.connect();
  CHECK(client.has_value());
  CHECK(w.attempts.size() == 3);
  // The other attempts end at the listener.
  int ended = 0;
  for (std::size_t i = 0; i < w.attempts.size(); ++i) {
    tcp_stream server = by_callback::get(w.listener.accept()).value();
    if (server.remote_endpoint() == client->local_endpoint()) continue;
    const result<std::string> r = by_callback::get(server.receive());
    CHECK(!r.has_value());
    ++ended;
  }
  CHECK(ended == static_cast<int>(w.attempts.size()) - 1);
}

TEST_CASE("the other attempts are closed when one succeeds, and when the connect is destroyed") {
  world w({"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"});
  w.answers["10.0.0.4"] = 0;
  CHECK(w.connect().has_value());
  w.answers.clear();
  w.begun = anyio::now();
  CHECK(by_callback::get(anyio::fail_after(600ms, anyio::connect_tcp("host.example", 80))).error() ==
        errc::timed_out);
  CHECK(w.elapsed() == 600ms);
  // An open descriptor would show in the test program's count of descriptors.
}

TEST_CASE("a connect that waits for its attempts does not spin") {
  world w({"10.0.0.1", "10.0.0.2", "10.0.0.3"});
  const std::size_t before = w.scripted.system.waits;
  CHECK(anyio::run(anyio::as_result(anyio::fail_after(1h, anyio::connect_tcp("host.example", 80)))).error() ==
        errc::timed_out);
  CHECK(w.scripted.system.waits - before < 50);
}

TEST_CASE("localhost is not looked up, and IPv6 is tried first") {
  world w({"10.0.0.1"});
  bool asked = false;
  w.scripted.system.on_resolve = [&](const std::string&, std::uint16_t, int) {
    asked = true;
    return anyio::detail::resolved();
  };
  w.answers = {{"::1", -ECONNREFUSED}, {"127.0.0.1", -ECONNREFUSED}};
  CHECK(by_callback::get(anyio::connect_tcp("localhost", 80)).error() == std::errc::connection_refused);
  CHECK(w.order() == names{"::1", "127.0.0.1"});
  w.attempts.clear();
  CHECK(!by_callback::get(anyio::connect_tcp("a.b.LOCALHOST", 80)).has_value());
  CHECK(w.order() == names{"::1", "127.0.0.1"});
  CHECK(!asked);
}

TEST_CASE("the family and the bound local address select among the addresses") {
  world w({"2001:db8::1", "10.0.0.1", "2001:db8::2"});
  for (const char* a : {"2001:db8::1", "10.0.0.1", "2001:db8::2"}) w.answers[a] = -ECONNREFUSED;
  CHECK(!w.connect({.family = AF_INET}).has_value());
  CHECK(w.order() == names{"10.0.0.1"});
  CHECK(!w.connect({.family = AF_INET6}).has_value());
  CHECK(w.order() == names{"2001:db8::1", "2001:db8::2"});
  CHECK(!w.connect({.local_host = "127.0.0.1"}).has_value());
  CHECK(w.order() == names{"10.0.0.1"});
  CHECK(!w.connect({.local_host = "::1"}).has_value());
  CHECK(w.order() == names{"2001:db8::1", "2001:db8::2"});
}

TEST_CASE("a scope is passed to connect, by name and by number, without a look-up") {
  support::scripted_loop s;
  std::vector<ip_endpoint> tried;
  s.system.on_connect = [&](const ip_endpoint& to) -> std::optional<int> {
    tried.push_back(to);
    return -ECONNREFUSED;
  };
  s.system.on_resolve = [](const std::string&, std::uint16_t, int) {
    CHECK(false);
    return anyio::detail::resolved();
  };
  CHECK(!by_callback::get(anyio::connect_tcp("fe80::1%lo", 80)).has_value());
  CHECK(!by_callback::get(anyio::connect_tcp("fe80::1%1", 80)).has_value());
  CHECK(tried.size() == 2);
  for (const ip_endpoint& e : tried) CHECK(e.address.scope_id() == 1);
}

}  // namespace
