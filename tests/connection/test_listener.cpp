// Listening and accepting.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <netinet/tcp.h>
#include <sys/resource.h>

#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::ip_address;
using anyio::ip_endpoint;
using anyio::result;
using anyio::task;
using anyio::tcp_listener;
using anyio::tcp_stream;
using support::by_callback;
using support::by_coroutine;
using support::loopback;
using support::waiting;

result<tcp_listener> create(anyio::tcp_listener_options options) {
  return by_coroutine::get(anyio::create_tcp_listener(options));
}
result<tcp_stream> connect(const ip_endpoint& to) { return by_coroutine::get(anyio::connect_tcp(to)); }
const ip_address v6 = ip_address::loopback_v6();
const ip_address v4 = ip_address::loopback_v4();

TEST_CASE_TEMPLATE("accept returns connections in order, and waits for new ones", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  tcp_listener l = tcp_listener::open(loopback()).value();
  CHECK(l.local_port() != 0);
  CHECK(l.local_endpoints() == std::vector<ip_endpoint>{loopback(l.local_port())});
  tcp_stream first = connect(loopback(l.local_port())).value();
  tcp_stream second = connect(loopback(l.local_port())).value();
  tcp_stream a = Face::get(l.accept()).value();
  tcp_stream b = Face::get(l.accept()).value();
  CHECK(a.remote_endpoint() == first.local_endpoint());
  CHECK(b.remote_endpoint() == second.local_endpoint());
  waiting<tcp_stream> w;
  Face::start(l.accept(), w);
  support::settle();
  CHECK(!w.done());
  tcp_stream third = connect(loopback(l.local_port())).value();
  tcp_stream c = w.get().value();
  CHECK(c.remote_endpoint() == third.local_endpoint());
  CHECK(c.local_endpoint() == third.remote_endpoint());
}

TEST_CASE_TEMPLATE("closing ends a pending accept, and later ones, with closed_resource", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  const support::temp_dir dir;
  tcp_listener l = tcp_listener::open(loopback()).value();
  waiting<tcp_stream> w;
  Face::start(l.accept(), w);
  support::settle();
  const int fd = l.native_handles().front();
  const ip_endpoint at = l.local_endpoints().front();
  CHECK(l);
  l.close();
  CHECK(!l);
  CHECK(!support::is_open(fd));
  CHECK(!w.done());
  CHECK(w.get().error() == errc::closed_resource);
  CHECK(Face::get(l.accept()).error() == errc::closed_resource);
  CHECK(l.native_handles().empty());
  CHECK(l.local_port() == at.port);
  CHECK(l.local_endpoints().front() == at);
  l.close();
  CHECK(connect(at).error() == std::errc::connection_refused);
  CHECK(tcp_listener::open(at).has_value());  // the port is free at once

  anyio::unix_listener u = by_coroutine::get(anyio::create_unix_listener(dir.path("s"))).value();
  waiting<anyio::unix_stream> x;
  Face::start(u.accept(), x);
  support::settle();
  u.close();
  CHECK(x.get().error() == errc::closed_resource);
}

TEST_CASE("a second accept is busy_resource, and the first continues") {
  anyio::loop loop;
  tcp_listener l = tcp_listener::open(loopback()).value();
  waiting<tcp_stream> w;
  by_callback::start(l.accept(), w);
  support::settle();
  CHECK(by_coroutine::get(l.accept()).error() == errc::busy_resource);
  tcp_stream client = connect(loopback(l.local_port())).value();
  CHECK(w.get().has_value());
}

TEST_CASE("a default-constructed listener is closed; a listener can be moved during accept") {
  anyio::loop loop;
  tcp_listener none;
  CHECK(!none);
  CHECK(none.local_port() == 0);
  CHECK(none.local_endpoints().empty());
  CHECK(none.native_handles().empty());
  CHECK(by_callback::get(none.accept()).error() == errc::closed_resource);
  CHECK(by_callback::get(none.serve([](tcp_stream) {})).error() == errc::closed_resource);
  none.close();
  anyio::unix_listener no_unix;
  CHECK(no_unix.local_path().empty());
  CHECK(no_unix.native_handle() == -1);
  CHECK(by_callback::get(no_unix.accept()).error() == errc::closed_resource);

  tcp_listener l = tcp_listener::open(loopback()).value();
  waiting<tcp_stream> w;
  by_callback::start(l.accept(), w);
  support::settle();
  none = std::move(l);
  CHECK(!l);  // NOLINT(bugprone-use-after-move)
  CHECK(!w.done());
  tcp_stream client = connect(loopback(none.local_port())).value();
  CHECK(w.get().has_value());
}

TEST_CASE("without a host, one socket accepts both families, and IPv4 peers are IPv4") {
  anyio::loop loop;
  tcp_listener l = create({}).value();
  CHECK(l.native_handles().size() == 1);
  CHECK(l.local_endpoints().front().address == ip_address::any_v6());
  tcp_stream four = connect({v4, l.local_port()}).value();
  tcp_stream accepted = by_callback::get(l.accept()).value();
  CHECK(accepted.remote_endpoint() == four.local_endpoint());
  CHECK(accepted.remote_endpoint().address.is_v4());
  CHECK(accepted.local_endpoint() == ip_endpoint{v4, l.local_port()});
  tcp_stream six = connect({v6, l.local_port()}).value();
  accepted = by_callback::get(l.accept()).value();
  CHECK(accepted.remote_endpoint() == six.local_endpoint());
  CHECK(accepted.remote_endpoint().address.is_v6());
}

TEST_CASE("a family, and its any-address, accept only that family") {
  anyio::loop loop;
  for (const anyio::tcp_listener_options& o :
       {anyio::tcp_listener_options{.family = AF_INET6}, anyio::tcp_listener_options{.local_host = "::"}}) {
    tcp_listener l = create(o).value();
    CHECK(connect({v4, l.local_port()}).error() == std::errc::connection_refused);
    CHECK(connect({v6, l.local_port()}).has_value());
    // The IPv4 port is free for another socket.
    CHECK(create({.local_host = "0.0.0.0", .local_port = l.local_port()}).has_value());
  }
  for (const anyio::tcp_listener_options& o : {anyio::tcp_listener_options{.family = AF_INET},
                                               anyio::tcp_listener_options{.local_host = "0.0.0.0"}}) {
    tcp_listener l = create(o).value();
    CHECK(connect({v6, l.local_port()}).error() == std::errc::connection_refused);
    CHECK(connect({v4, l.local_port()}).has_value());
  }
  tcp_listener six = tcp_listener::open({ip_address::any_v6(), 0}).value();
  CHECK(connect({v4, six.local_port()}).error() == std::errc::connection_refused);
}

TEST_CASE_TEMPLATE("localhost listens on both families at the same port", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  tcp_listener l = Face::get(anyio::create_tcp_listener({.local_host = "localhost"})).value();
  CHECK(l.native_handles().size() == 2);
  const std::vector<ip_endpoint> both = {{v6, l.local_port()}, {v4, l.local_port()}};
  CHECK(l.local_endpoints() == both);
  // Connections of both sockets are accepted, also many times in a row.
  for (int i = 0; i < 3; ++i) {
    std::set<std::string> clients, peers;
    std::vector<tcp_stream> kept;
    for (const ip_endpoint& e : {both[0], both[1], both[1], both[0]}) {
      kept.push_back(connect(e).value());
      clients.insert(kept.back().local_endpoint().to_string());
    }
    for (int k = 0; k < 4; ++k) {
      kept.push_back(Face::get(l.accept()).value());
      peers.insert(kept.back().remote_endpoint().to_string());
    }
    CHECK(clients == peers);
  }
  for (const ip_endpoint& e : both) {
    waiting<tcp_stream> w;
    Face::start(l.accept(), w);
    support::settle();
    CHECK(!w.done());
    tcp_stream client = connect(e).value();
    CHECK(w.get().value().remote_endpoint() == client.local_endpoint());
  }
}

TEST_CASE("constant connections of one family do not starve the other") {
  anyio::loop loop;
  tcp_listener l = create({.local_host = "localhost"}).value();
  std::vector<tcp_stream> kept;
  for (int i = 0; i < 100; ++i) kept.push_back(connect({v6, l.local_port()}).value());
  tcp_stream other = connect({v4, l.local_port()}).value();
  bool accepted = false;
  for (int i = 0; i < 40 && !accepted; ++i) {
    kept.push_back(by_callback::get(l.accept()).value());
    accepted = kept.back().remote_endpoint() == other.local_endpoint();
  }
  CHECK(accepted);
}

TEST_CASE("the family option selects among the addresses of a name; a system without IPv6 uses IPv4") {
  {
    anyio::loop loop;
    tcp_listener l = create({.family = AF_INET, .local_host = "localhost"}).value();
    CHECK(l.local_endpoints() == std::vector<ip_endpoint>{{v4, l.local_port()}});
    CHECK(create({.family = AF_INET6, .local_host = "127.0.0.1"}).error() == errc::name_resolution);
    CHECK(create({.family = 77}).error() == std::errc::address_family_not_supported);
  }
  support::scripted_loop s;
  s.system.on_open_socket = [](int family) -> std::optional<int> {
    if (family == AF_INET6) return -EAFNOSUPPORT;
    return std::nullopt;
  };
  tcp_listener any = create({}).value();
  CHECK(any.local_endpoints().front().address == ip_address::any_v4());
  tcp_listener local = create({.local_host = "localhost"}).value();
  CHECK(local.local_endpoints() == std::vector<ip_endpoint>{{v4, local.local_port()}});
  const anyio::error e = create({.local_host = "::1"}).error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::address_family_not_supported);
  CHECK(create({.family = AF_INET6}).error() == std::errc::address_family_not_supported);
}

TEST_CASE_TEMPLATE("a listener at an IPv4-mapped address accepts IPv4", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  for (const int family : {AF_UNSPEC, AF_INET6}) {
    auto made = Face::get(anyio::create_tcp_listener({.family = family, .local_host = "::ffff:127.0.0.1"}));
    CHECK_MESSAGE(made.has_value(), made.error().message());
    if (!made) return;
    const ip_endpoint at = loopback(made->local_port());
    CHECK(made->local_endpoints() == std::vector<ip_endpoint>{at});
    tcp_stream client = connect(at).value();
    tcp_stream server = Face::get(made->accept()).value();
    CHECK(server.local_endpoint() == at);
    CHECK(server.remote_endpoint() == client.local_endpoint());
    CHECK(!connect({v6, at.port}).has_value());
  }
  const ip_endpoint mapped{ip_address::parse("::ffff:127.0.0.1").value(), 0};
  CHECK(tcp_listener::open(mapped).has_value());
  CHECK(create({.family = AF_INET, .local_host = "::ffff:127.0.0.1"}).error() == errc::name_resolution);
}

TEST_CASE("localhost is IPv6 where IPv4 is missing") {
  support::scripted_loop s;
  s.system.on_open_socket = [](int family) -> std::optional<int> {
    if (family == AF_INET) return -EAFNOSUPPORT;
    return std::nullopt;
  };
  tcp_listener local = create({.local_host = "localhost"}).value();
  CHECK(local.local_endpoints() == std::vector<ip_endpoint>{{v6, local.local_port()}});
}

#if defined(IP_TRANSPARENT)
TEST_CASE_TEMPLATE("a transparent listener asks the kernel for the local address of each connection", Face,
                   by_callback, by_coroutine) {
  // The option needs a privilege, so the test's system reports it as set on every socket.
  struct diverting final : support::custom_backend {
    bool transparent = true;
    int questions = 0;
    std::optional<ip_endpoint> wanted;  // the address that a client believes it is connected to
    int get_option(int fd, int level, int name, void* value, socklen_t* size) override {
      const bool asked =
          level == IPPROTO_IP ? name == IP_TRANSPARENT : level == IPPROTO_IPV6 && name == IPV6_TRANSPARENT;
      if (!asked) return custom_backend::get_option(fd, level, name, value, size);
      *static_cast<int*>(value) = transparent;
      return 0;
    }
    int local_address(int fd, sockaddr* address, socklen_t* size) override {
      ++questions;
      if (!wanted) return custom_backend::local_address(fd, address, size);
      sockaddr_storage storage{};
      *size = wanted->to_sockaddr(storage);
      std::memcpy(address, &storage, *size);
      return 0;
    }
  };
  auto owned = std::make_unique<diverting>();
  diverting& system = *owned;
  anyio::loop loop(std::move(owned));
  const ip_endpoint elsewhere{ip_address::v4(0x0a090909), 80};
  const auto prepare = [](int, void*) { return 0; };
  for (const ip_address& at : {v4, v6}) {
    const auto accepts = [&](result<tcp_listener> made) {
      tcp_listener l = std::move(made).value();
      system.wanted.reset();
      const int client = support::raw_connect(l.local_endpoints().front());
      system.wanted = elsewhere;
      system.questions = 0;
      const ip_endpoint here = Face::get(l.accept()).value().local_endpoint();
      ::close(client);
      system.wanted.reset();
      CHECK(l.local_endpoints().front().address == at);
      CHECK(here == (system.questions == 0 ? l.local_endpoints().front() : elsewhere));
      return system.questions;
    };
    const ip_endpoint any_port{at, 0};
    const auto adopted = [&] {
      tcp_listener l = tcp_listener::open(any_port).value();
      return tcp_listener::from_fd(::dup(l.native_handles().front()));
    };
    system.transparent = true;
    CHECK(accepts(tcp_listener::open(any_port, {.prepare = prepare})) == 1);
    CHECK(accepts(adopted()) == 1);
    // Ordinary listeners cost no call.
    CHECK(accepts(tcp_listener::open(any_port)) == 0);
    system.transparent = false;
    CHECK(accepts(tcp_listener::open(any_port, {.prepare = prepare})) == 0);
    CHECK(accepts(adopted()) == 0);
  }
}
#endif

TEST_CASE("if a chosen port is taken for another address, the kernel chooses again") {
  support::scripted_loop s;
  std::vector<ip_endpoint> binds;
  std::uint16_t refused = 0;
  s.system.on_bind = [&](const ip_endpoint& at) -> std::optional<int> {
    binds.push_back(at);
    if (!at.address.is_v4() || at.port == 0 || refused != 0) return std::nullopt;
    refused = at.port;
    return -EADDRINUSE;
  };
  tcp_listener l = create({.local_host = "localhost"}).value();
  CHECK(binds.size() == 4);
  CHECK(binds[0] == ip_endpoint{v6, 0});
  CHECK(binds[1] == ip_endpoint{v4, refused});
  CHECK(binds[2] == ip_endpoint{v4, 0});
  CHECK(binds[3] == ip_endpoint{v6, l.local_port()});
  CHECK(l.local_endpoints().size() == 2);

  // Not without end: each address chooses once.
  binds.clear();
  s.system.on_bind = [&](const ip_endpoint& at) -> std::optional<int> {
    binds.push_back(at);
    if (at.port == 0) return std::nullopt;
    return -EADDRINUSE;
  };
  CHECK(create({.local_host = "localhost"}).error() == std::errc::address_in_use);
  CHECK(binds.size() == 4);
  // Other errors, and a requested port, end it at once.
  binds.clear();
  CHECK(create({.local_host = "localhost", .local_port = 9}).error() == std::errc::address_in_use);
  CHECK(binds.size() == 1);
  binds.clear();
  s.system.on_bind = [&](const ip_endpoint& at) -> std::optional<int> {
    binds.push_back(at);
    if (at.port == 0) return std::nullopt;
    return -EACCES;
  };
  const anyio::error e = create({.local_host = "localhost"}).error();
  CHECK(e == std::errc::permission_denied);
  CHECK(e.operation() == "bind");
  CHECK(binds.size() == 2);
}

TEST_CASE("a port in use is os_error with EADDRINUSE, unless both sockets share it") {
  anyio::loop loop;
  tcp_listener l = tcp_listener::open(loopback()).value();
  const anyio::error e = tcp_listener::open(loopback(l.local_port())).error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::address_in_use);
  CHECK(e.operation() == "bind");
  CHECK(tcp_listener::open({ip_address::parse("192.0.2.1").value(), 0}).error() ==
        std::errc::address_not_available);
  tcp_listener first = tcp_listener::open(loopback(), {.reuse_port = true}).value();
  CHECK(tcp_listener::open(loopback(first.local_port()), {.reuse_port = true}).has_value());
  CHECK(!tcp_listener::open(loopback(first.local_port())).has_value());
}

TEST_CASE("prepare is called between socket and bind, and its errno becomes the error") {
  anyio::loop loop;
  struct seen {
    int calls = 0;
    bool bound = true;
  } seen;
  const auto prepare = [](int fd, void* data) {
    auto& what = *static_cast<struct seen*>(data);
    ++what.calls;
    sockaddr_in name{};
    socklen_t size = sizeof name;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size);
    what.bound = name.sin_port != 0;
    return 0;
  };
  CHECK(tcp_listener::open(loopback(), {.prepare = prepare, .prepare_data = &seen}).has_value());
  CHECK(seen.calls == 1);
  CHECK(!seen.bound);
  CHECK(create({.local_host = "localhost", .prepare = prepare, .prepare_data = &seen}).has_value());
  CHECK(seen.calls == 3);
  const auto refuse = [](int, void*) { return EPERM; };
  for (const result<tcp_listener>& r :
       {tcp_listener::open(loopback(), {.prepare = refuse}), create({.prepare = refuse})}) {
    CHECK(r.error() == errc::os_error);
    CHECK(r.error() == std::errc::operation_not_permitted);
    CHECK(r.error().operation() == "prepare");
  }
}

TEST_CASE("accepted sockets are TCP_NODELAY, close-on-exec and non-blocking, or as the options say") {
  anyio::loop loop;
  for (const bool no_delay : {true, false}) {
    tcp_listener l = tcp_listener::open(loopback(), {.no_delay = no_delay}).value();
    CHECK(support::is_close_on_exec(l.native_handles().front()));
    CHECK(support::is_non_blocking(l.native_handles().front()));
    tcp_stream client = connect(l.local_endpoints().front()).value();
    tcp_stream server = by_callback::get(l.accept()).value();
    CHECK((server.get_option(IPPROTO_TCP, TCP_NODELAY).value() != 0) == no_delay);
    CHECK(support::is_close_on_exec(server.native_handle()));
    CHECK(support::is_non_blocking(server.native_handle()));
  }
}

TEST_CASE("no TCP option is set on a UNIX socket") {
  support::scripted_loop s;
  const support::temp_dir dir;
  int set = 0;
  s.system.on_set_option = [&](int level, int) -> std::optional<int> {
    set += level == IPPROTO_TCP ? 1 : 0;
    return std::nullopt;
  };
  const int fd = support::raw_unix_socket(dir.path("s"), 5);
  anyio::unix_listener l = anyio::unix_listener::from_fd(fd).value();
  CHECK(l.local_path() == dir.path("s"));
  anyio::unix_stream client = by_callback::get(anyio::connect_unix(dir.path("s"))).value();
  CHECK(by_callback::get(l.accept()).has_value());
  CHECK(set == 0);
}

TEST_CASE("a connection reset before accept is accepted, and is then broken") {
  support::scripted_loop s;
  tcp_listener l = tcp_listener::open(loopback()).value();
  tcp_stream client = connect(l.local_endpoints().front()).value();
  const ip_endpoint peer = client.local_endpoint();
  CHECK(by_callback::get(client.send("before")).has_value());
  support::reset(client);
  s.system.on_set_option = [](int, int) -> std::optional<int> { return -EINVAL; };  // as on macOS
  tcp_stream server = by_callback::get(l.accept()).value();
  CHECK(server.remote_endpoint() == peer);
  CHECK(server.local_endpoint() == l.local_endpoints().front());
  result<std::string> r = by_callback::get(server.receive());
  if (r.has_value()) r = by_callback::get(server.receive());
  CHECK(r.error() == errc::broken_resource);
  CHECK(r.error() == std::errc::connection_reset);
}

TEST_CASE_TEMPLATE("errors of one connection do not end an accept", Face, by_callback, by_coroutine) {
  support::scripted_loop s;
  tcp_listener l = tcp_listener::open(loopback()).value();
  tcp_stream client = connect(l.local_endpoints().front()).value();
  std::vector<int> errors = {ECONNABORTED, EPROTO,     EPERM,       ENETDOWN,   ENOPROTOOPT, EHOSTDOWN,
                             EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, ECONNRESET, ETIMEDOUT};
#if defined(ENONET)
  errors.push_back(ENONET);
#endif
  for (int i = 0; i < 100; ++i) errors.push_back(ECONNABORTED);
  s.system.on_accept = [&]() -> std::optional<int> {
    if (errors.empty()) return std::nullopt;
    const int e = errors.back();
    errors.pop_back();
    return -e;
  };
  CHECK(Face::get(l.accept()).has_value());
  CHECK(errors.empty());
  s.system.on_accept = [] { return -EBADF; };
  const anyio::error e = Face::get(l.accept()).error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::bad_file_descriptor);
}

TEST_CASE("10 s without descriptors cost about 100 accepts, then the waiting clients are served") {
  for (const int exhausted : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    support::scripted_loop s;
    tcp_listener l = tcp_listener::open(loopback()).value();
    tcp_stream first = connect(l.local_endpoints().front()).value();
    tcp_stream second = connect(l.local_endpoints().front()).value();
    s.system.virtual_time = true;
    const auto until = anyio::now() + 10s;
    s.system.on_accept = [&]() -> std::optional<int> {
      if (s.system.now() < until) return -exhausted;
      return std::nullopt;
    };
    const std::size_t accepts = s.system.accepts, waits = s.system.waits;
    tcp_stream a = by_coroutine::get(l.accept()).value();
    CHECK(anyio::now() >= until);
    CHECK(anyio::now() < until + 200ms);
    CHECK(s.system.accepts - accepts >= 10);
    CHECK(s.system.accepts - accepts <= 120);
    CHECK(s.system.waits - waits <= 400);
    CHECK(by_coroutine::get(l.accept()).has_value());
    CHECK(a.remote_endpoint() == first.local_endpoint());
  }
}

TEST_CASE(
    "a paused accept continues at once when this loop closes a descriptor, and ends with the listener") {
  support::scripted_loop s;
  tcp_listener l = tcp_listener::open(loopback()).value();
  tcp_stream client = connect(l.local_endpoints().front()).value();
  s.system.virtual_time = true;
  bool exhausted = true;
  s.system.on_accept = [&]() -> std::optional<int> {
    if (exhausted) return -EMFILE;
    return std::nullopt;
  };
  auto pair = anyio::create_unix_stream_pair().value();
  waiting<tcp_stream> w;
  by_callback::start(l.accept(), w);
  support::settle();
  CHECK(!w.done());
  const auto before = anyio::now();
  exhausted = false;
  pair.first.close();
  CHECK(w.get().has_value());
  CHECK(anyio::now() == before);
  // Destroyed, timed out and closed while it pauses.
  exhausted = true;
  {
    anyio::accept_operation<tcp_stream> op = l.accept();
    op.start([](result<tcp_stream>) { CHECK(false); });
    support::settle();
  }
  pair.second.close();
  CHECK(by_coroutine::get(anyio::fail_after(50ms, l.accept())).error() == errc::timed_out);
  {
    // A timeout tries once more, and an available connection is returned.
    tcp_stream late = connect(l.local_endpoints().front()).value();
    waiting<tcp_stream> timed;
    by_coroutine::start(anyio::fail_after(50ms, l.accept()), timed);
    support::settle();
    exhausted = false;
    CHECK(timed.get().has_value());
    exhausted = true;
  }
  by_coroutine::start(l.accept(), w);
  support::settle();
  const std::size_t accepts = s.system.accepts;
  l.close();
  CHECK(w.get().error() == errc::closed_resource);
  CHECK(s.system.accepts == accepts);
}

TEST_CASE("with no descriptor left in the process, accept waits without spinning, then serves") {
  support::scripted_loop s;
  tcp_listener l = tcp_listener::open(loopback()).value();
  tcp_stream client = connect(l.local_endpoints().front()).value();
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  rlimit none = limit;
  const int lowest_free = ::dup(0);
  ::close(lowest_free);
  none.rlim_cur = static_cast<rlim_t>(lowest_free);
  CHECK(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  waiting<tcp_stream> w;
  by_callback::start(l.accept(), w);
  const auto end = std::chrono::steady_clock::now() + 350ms;
  while (std::chrono::steady_clock::now() < end) s.loop.run_once(end - std::chrono::steady_clock::now());
  CHECK(!w.done());
  CHECK(s.system.accepts <= 6);
  CHECK(s.system.waits <= 20);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  CHECK(w.get().value().remote_endpoint() == client.local_endpoint());
}

TEST_CASE_TEMPLATE("destroying an accept whose connection is ready takes no connection", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  tcp_listener l = tcp_listener::open(loopback()).value();
  {
    anyio::accept_operation<tcp_stream> op = l.accept();
    op.start([](result<tcp_stream>) { CHECK(false); });
    support::settle();
    result<tcp_stream> client = errc::cancelled;
    loop.post([&] {
      const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
      sockaddr_storage address{};
      const socklen_t size = l.local_endpoints().front().to_sockaddr(address);
      CHECK(::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0);
      client = tcp_stream::from_fd(fd);
      loop.post([&] { op = {}; });
    });
    support::settle();
    const ip_endpoint peer = client.value().local_endpoint();
    CHECK(Face::get(l.accept()).value().remote_endpoint() == peer);
  }
  // With a timeout: an available connection is returned, or stays in the backlog.
  CHECK(Face::get(anyio::move_on_after(0ms, l.accept())).value() == std::nullopt);
  tcp_stream client = connect(l.local_endpoints().front()).value();
  CHECK(Face::get(anyio::move_on_after(0ms, l.accept())).value().has_value());
}

TEST_CASE("from_fd rejects sockets that do not listen or have another type, and leaves them unchanged") {
  anyio::loop loop;
  const support::temp_dir dir;
  const auto refused = [](int fd, const anyio::error& e, std::string_view why, int flags) {
    CHECK(e == errc::invalid_argument);
    CHECK_MESSAGE(e.message().find(why) != std::string::npos, e.message());
    CHECK(support::is_open(fd));
    CHECK(::fcntl(fd, F_GETFL) == flags);
    ::close(fd);
  };
  const auto not_tcp = [&](int fd, std::string_view why) {
    const int flags = ::fcntl(fd, F_GETFL);
    refused(fd, tcp_listener::from_fd(fd).error(), why, flags);
  };
  const auto not_unix = [&](int fd, std::string_view why) {
    const int flags = ::fcntl(fd, F_GETFL);
    refused(fd, anyio::unix_listener::from_fd(fd).error(), why, flags);
  };
  not_tcp(::socket(AF_INET, SOCK_STREAM, 0), "not listening");
  not_tcp(::socket(AF_INET, SOCK_DGRAM, 0), "type");
  not_tcp(support::raw_unix_socket(dir.path("a"), 1), "family");
  not_tcp(::open("/dev/null", O_RDONLY), "not a socket");
  not_unix(support::raw_unix_socket(dir.path("b")), "not listening");
  not_unix(::socket(AF_INET6, SOCK_STREAM, 0), "family");
  CHECK(tcp_listener::from_fd(-1).error() == errc::invalid_argument);

  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  CHECK(::listen(fd, 5) == 0);
  tcp_listener l = tcp_listener::from_fd(fd).value();
  CHECK(l.local_port() != 0);
  CHECK(support::is_non_blocking(fd));
  tcp_stream client = connect({v4, l.local_port()}).value();
  tcp_stream server = by_callback::get(l.accept()).value();
  CHECK(server.local_endpoint() == client.remote_endpoint());
  CHECK(server.get_option(IPPROTO_TCP, TCP_NODELAY).value() != 0);
}

TEST_CASE("a scope is passed to bind, by name and by number") {
  support::scripted_loop s;
  std::vector<ip_endpoint> binds;
  s.system.on_bind = [&](const ip_endpoint& at) -> std::optional<int> {
    binds.push_back(at);
    return -EADDRNOTAVAIL;
  };
  CHECK(create({.local_host = "fe80::1%lo"}).error() == std::errc::address_not_available);
  CHECK(create({.local_host = "fe80::1%1"}).error() == std::errc::address_not_available);
  CHECK(binds.size() == 2);
  for (const ip_endpoint& e : binds) CHECK(e.address.scope_id() == 1);
}

TEST_CASE("options are copied before the call returns, and the operation can be started again") {
  anyio::loop loop;
  auto host = std::make_unique<std::string>("127.0.0.1");
  auto op = anyio::create_tcp_listener({.local_host = *host});
  host.reset();
  for (int i = 0; i < 2; ++i) {
    result<tcp_listener> l;
    op.start([&l](result<tcp_listener> r) { l = std::move(r); });
    loop.run();
    CHECK(l.value().local_endpoints().front().address == v4);
  }
  decltype(op) none;
  result<tcp_listener> l;
  none.start([&l](result<tcp_listener> r) { l = std::move(r); });
  loop.run();
  CHECK(l.error() == errc::invalid_argument);
}

TEST_CASE("a listener that outlives its loop is closed") {
  std::optional<anyio::loop> loop;
  loop.emplace();
  tcp_listener l = tcp_listener::open(loopback()).value();
  bool called = false;
  l.accept().start([&called](result<tcp_stream>) { called = true; });
  l.close();
  l = tcp_listener::open(loopback()).value();
  l.serve([](tcp_stream) {}).start([&called](result<>) { called = true; });
  const int fd = l.native_handles().front();
  loop.reset();
  CHECK(!support::is_open(fd));
  CHECK(!called);
  CHECK(!l);
  CHECK(l.local_port() != 0);
  anyio::loop another;
  CHECK(by_callback::get(l.accept()).error() == errc::closed_resource);
  CHECK(by_callback::get(l.serve([](tcp_stream) {})).error() == errc::closed_resource);
}

}  // namespace
