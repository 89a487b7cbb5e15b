// Every option struct with designated initializers, in the documented order, inside co_await expressions;
// and the library beside the C headers whose names it shares, with `using namespace`.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "support/temp_dir.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using namespace std::string_literals;

template <class Options>
constexpr bool option_like = std::is_aggregate_v<Options> && std::is_trivially_destructible_v<Options> &&
                             std::is_default_constructible_v<Options>;
static_assert(option_like<tcp_connect_options> && option_like<tcp_listener_options>);
static_assert(option_like<serve_options> && option_like<unix_listener_options>);
static_assert(option_like<udp_options> && option_like<unix_datagram_options>);

static_assert(tcp_connect_options{}.family == AF_UNSPEC && tcp_connect_options{}.local_port == 0);
static_assert(tcp_connect_options{}.happy_eyeballs_delay == 250ms && tcp_connect_options{}.no_delay);
static_assert(tcp_connect_options{}.local_host.empty() && tcp_connect_options{}.prepare == nullptr);
static_assert(tcp_listener_options{}.backlog == 65536 && !tcp_listener_options{}.reuse_port);
static_assert(tcp_listener_options{}.no_delay && tcp_listener_options{}.prepare_data == nullptr);
static_assert(serve_options{}.max_connections == 0);
static_assert(unix_listener_options{}.backlog == 65536 && !unix_listener_options{}.unlink_on_close);
static_assert(!unix_listener_options{}.mode.has_value() && !unix_datagram_options{}.local_mode.has_value());
static_assert(udp_options{}.family == AF_UNSPEC && !udp_options{}.reuse_port && !udp_options{}.reuse_address);
static_assert(udp_options{}.local_port == 0 && udp_options{}.prepare == nullptr);

int allow(int, void* count) {
  ++*static_cast<int*>(count);
  return 0;
}

// Full lists of options, and each option by itself: a warning about a missing initializer would fail the
// strict build.
task<> tcp_options() {
  int sockets = 0;
  auto full = co_await create_tcp_listener({.family = AF_INET,
                                            .local_host = "127.0.0.1",
                                            .local_port = 0,
                                            .backlog = 64,
                                            .reuse_port = false,
                                            .no_delay = true,
                                            .prepare = allow,
                                            .prepare_data = &sockets});
  CHECK(sockets == 1);
  auto first = co_await connect_tcp("127.0.0.1", full.local_port(),
                                    {.family = AF_INET,
                                     .local_host = "127.0.0.1",
                                     .local_port = 0,
                                     .happy_eyeballs_delay = 100ms,
                                     .no_delay = false,
                                     .prepare = allow,
                                     .prepare_data = &sockets});
  CHECK(sockets == 2);
  CHECK(first.get_option(IPPROTO_TCP, 1 /* TCP_NODELAY */).value_or(1) == 0);
  auto second = co_await connect_tcp(full.local_endpoints()[0], {.local_host = "127.0.0.1"});
  auto third = co_await connect_tcp("localhost", full.local_port(), {.happy_eyeballs_delay = 1s});
  auto fourth = co_await connect_tcp(std::string("127.0.0.1"), full.local_port(), {.family = AF_INET});
  auto fifth = co_await connect_tcp("127.0.0.1", full.local_port(), tcp_connect_options{.no_delay = false});
  CHECK(third.remote_endpoint().port == full.local_port());

  const tcp_connect_options kept = {.local_host = "127.0.0.1"};
  auto sixth = co_await connect_tcp("127.0.0.1", full.local_port(), kept);
  CHECK(sixth.local_endpoint().address == ip_address::loopback_v4());

  auto plain = co_await create_tcp_listener();
  auto empty = co_await create_tcp_listener({});
  auto shared = co_await create_tcp_listener({.local_host = "127.0.0.1", .reuse_port = true});
  auto beside = co_await create_tcp_listener(
      {.local_host = "127.0.0.1", .local_port = shared.local_port(), .reuse_port = true});
  CHECK(beside.local_port() == shared.local_port());
  CHECK(plain.local_port() != empty.local_port());
  auto of_family = co_await create_tcp_listener({.family = AF_INET});
  CHECK(of_family.local_endpoints().at(0).address == ip_address::any_v4());
}

// Names, hosts, paths and options are copied before the function returns.
auto connect_later(std::uint16_t port) {
  std::string host = "127.0.0.1";
  std::string local = "127.0.0.1";
  auto op = connect_tcp(host, port, {.local_host = local});
  host.assign(host.size(), '#');
  local.assign(local.size(), '#');
  return op;
}

auto listen_later(const std::string& path) {
  std::string copy = path;
  auto op = create_unix_listener(copy, {.unlink_on_close = true});
  copy.assign(copy.size(), '#');
  return op;
}

auto look_up_later() {
  std::string host = "127.0.0.1";
  auto op = anyio::getaddrinfo(host, 80);
  host.assign(host.size(), '#');
  return op;
}

auto bind_later(const std::string& path) {
  std::string copy = path;
  auto op = create_unix_datagram_socket({.local_path = copy});
  copy.assign(copy.size(), '#');
  return op;
}

task<> copies_names(std::string folder) {
  auto listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
  auto connecting = connect_later(listener.local_port());
  auto client = co_await connecting;
  CHECK(client.remote_endpoint().port == listener.local_port());
  auto listening = listen_later(folder + "/listener");
  auto door = co_await listening;
  CHECK(door.local_path() == folder + "/listener");
  const auto found = co_await look_up_later();
  CHECK(found.at(0).to_string() == "127.0.0.1:80");
  auto socket = co_await bind_later(folder + "/socket");
  CHECK(socket.local_path() == folder + "/socket");
}

task<> other_options(std::string folder) {
  auto door = co_await create_unix_listener(folder + "/door",
                                            {.mode = mode_t{0666}, .backlog = 4, .unlink_on_close = true});
  auto plain = co_await create_unix_listener(folder + "/plain", {.backlog = 4});
  auto moded = co_await create_unix_listener(folder + "/moded", {.mode = 0600});
  auto bare = co_await create_unix_listener(folder + "/bare");
  int sockets = 0;
  auto udp = co_await create_udp_socket({.family = AF_INET,
                                         .local_host = "127.0.0.1",
                                         .local_port = 0,
                                         .reuse_port = false,
                                         .reuse_address = false,
                                         .prepare = allow,
                                         .prepare_data = &sockets});
  CHECK(sockets == 1);
  auto connected = co_await create_connected_udp_socket("127.0.0.1", udp.local_endpoint().port,
                                                        {.family = AF_INET, .local_host = "127.0.0.1"});
  CHECK(connected.local_endpoint().address == ip_address::loopback_v4());
  auto first = co_await create_unix_datagram_socket({.local_path = folder + "/first", .local_mode = 0600});
  auto second =
      co_await create_connected_unix_datagram_socket(folder + "/first", {.local_path = folder + "/second"});
  CHECK(second.remote_path() == first.local_path());

  task_group group;
  group.start_soon(door.serve([](unix_stream) {}, {.max_connections = 5}));
  group.start_soon(bare.serve([](unix_stream) {}, [](const error&) {}, {.max_connections = 5}));
  group.start_soon(plain.serve([](unix_stream) {}, [](const error&) {}));
  co_await sleep(0s);  // they begin
  door.close();
  bare.close();
  plain.close();
  co_await group.join();
}

}  // namespace

TEST_CASE("TCP options can be designated initializers in a co_await expression") { run(tcp_options); }
TEST_CASE("other options can be designated initializers in a co_await expression") {
  const support::temp_dir dir;
  run(other_options(dir.path()));
}
TEST_CASE("names, hosts, paths and options are copied immediately") {
  const support::temp_dir dir;
  run(copies_names(dir.path()));
}

// ---- beside the C headers -------------------------------------------------------------------------

namespace {

// Unqualified, beside ::sleep, ::getaddrinfo, ::getnameinfo, ::accept, ::connect, ::send and names like
// ::event.
task<> unqualified_names() {
  co_await sleep(0s);
  co_await sleep(0.0s);
  co_await sleep_until(now());
  const auto found = co_await getaddrinfo("127.0.0.1", 80);
  CHECK(found.size() == 1);
  const auto info = co_await getnameinfo(found[0]);
  CHECK_FALSE(info.host.empty());
  event set;
  set.set();
  co_await set.wait();
  error none;
  CHECK(none == errc::ok);
  auto failed = co_await as_result(raise(errc::cancelled));
  CHECK(failed.error() == errc::cancelled);
  CHECK(::sleep(0) == 0);
}

}  // namespace

TEST_CASE("`using namespace anyio` works with the C headers") { run(unqualified_names); }
