// Datagrams as the documentation describes them: every kind of socket, every member, in each form of use.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/emulator.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using namespace std::string_literals;

static_assert(std::is_same_v<decltype(std::declval<udp_socket&>().receive(std::declval<mutable_buffer>())),
                             receive_from_operation>);
static_assert(std::is_same_v<decltype(std::declval<udp_socket&>().send_to("", std::declval<ip_endpoint>())),
                             send_to_operation>);

template <class T>
constexpr bool closed_at_first =
    std::is_default_constructible_v<T> && std::is_nothrow_move_constructible_v<T> &&
    std::is_nothrow_move_assignable_v<T> && !std::is_copy_constructible_v<T> &&
    !std::is_convertible_v<T, bool> && std::is_constructible_v<bool, T>;
static_assert(closed_at_first<udp_socket> && closed_at_first<connected_udp_socket>);
static_assert(closed_at_first<unix_datagram_socket> && closed_at_first<connected_unix_datagram_socket>);
static_assert(!std::is_aggregate_v<udp_packet> && !std::is_aggregate_v<unix_packet>);
static_assert(!std::is_aggregate_v<unix_received> && !std::is_aggregate_v<unix_fd_packet>);

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// ---- UDP ------------------------------------------------------------------------------------------

task<> udp_in_all_faces() {
  udp_socket a = co_await create_udp_socket({.local_host = "127.0.0.1"});
  udp_socket b = co_await create_udp_socket({.family = AF_INET, .local_host = "127.0.0.1"});
  CHECK(static_cast<bool>(a));
  CHECK(a.native_handle() >= 0);
  CHECK((::fcntl(a.native_handle(), F_GETFD) & FD_CLOEXEC) != 0);
  const ip_endpoint to_b = b.local_endpoint();
  CHECK(to_b.address == ip_address::loopback_v4());
  CHECK(to_b.port != 0);

  co_await a.send_to("one", to_b);
  udp_packet packet = co_await b.receive();
  CHECK(packet.data == "one");
  CHECK(packet.sender == a.local_endpoint());

  co_await a.send_to("two", "127.0.0.1", to_b.port);
  const auto [data, sender] = co_await b.receive();
  CHECK(data == "two");
  CHECK(sender == a.local_endpoint());

  std::array<char, 4> buf{};
  co_await a.send_to(std::string("three"), to_b);
  udp_received received = co_await b.receive(buf);
  CHECK(received.size == 4);
  CHECK(received.truncated);
  CHECK(received.sender == a.local_endpoint());
  CHECK(std::string_view(buf.data(), received.size) == "thre");

  co_await a.send_to("", to_b);
  auto [size, from, truncated] = co_await b.receive(buf);
  CHECK(size == 0);
  CHECK_FALSE(truncated);
  CHECK(from.port == a.local_endpoint().port);

  receive_from_operation receiving = b.receive(buf);
  std::optional<udp_received> got;
  receiving.start([&got](result<udp_received> r) { got = *r; });
  send_to_operation sending = a.send_to("four", to_b);
  co_await sending;
  while (!got) co_await sleep(1ms);
  CHECK(got->size == 4);

  std::string text;
  b.receive().start([&text](result<udp_packet> r) { text = r->data; });
  a.send_to("five", to_b).start([](result<> r) { CHECK(r.has_value()); });
  while (text.empty()) co_await sleep(1ms);
  CHECK(text == "five");

  auto late = co_await move_on_after(0s, b.receive());
  static_assert(std::is_same_v<decltype(late), std::optional<udp_packet>>);
  CHECK_FALSE(late.has_value());
  auto large = co_await as_result(a.send_to(std::string(70000, 'x'), to_b));
  CHECK(large.error() == errc::os_error);
  CHECK(large.error().os_error() == EMSGSIZE);
  co_await a.send_to("usable", to_b);
  packet = co_await b.receive();
  CHECK(packet.data == "usable");

  CHECK(a.set_broadcast(true).has_value());
  CHECK(a.set_multicast_hops(2).has_value());
  CHECK(a.set_multicast_loop(true).has_value());
  CHECK(a.set_option(SOL_SOCKET, SO_RCVBUF, 30000).has_value());
  CHECK(a.get_option(SOL_SOCKET, SO_BROADCAST).value_or(0) != 0);
  CHECK_FALSE(a.join_group(ip_address::loopback_v4()).has_value());
  CHECK_FALSE(a.leave_group(ip_address::v4(0xe0000042), ip_address::loopback_v4()).has_value());

  receiving = b.receive(buf);
  std::optional<errc> ended;
  receiving.start([&ended](const auto& r) { ended = r.error().code(); });
  auto second = co_await as_result(b.receive());
  CHECK(second.error() == errc::busy_resource);
  b.cancel();
  co_await sleep(0s);
  CHECK(ended == errc::cancelled);
  b.close();
  CHECK_FALSE(static_cast<bool>(b));
  auto closed = co_await as_result(b.receive(buf));
  CHECK(closed.error() == errc::closed_resource);
  CHECK(b.local_endpoint() == to_b);
}

task<> udp_options_matter() {
  auto none = co_await as_result(create_udp_socket({}));
  CHECK(none.error() == errc::invalid_argument);
  auto any = co_await create_udp_socket({.family = AF_INET});
  CHECK(any.local_endpoint().port != 0);
  auto taken = co_await as_result(
      create_udp_socket({.local_host = "0.0.0.0", .local_port = any.local_endpoint().port}));
  CHECK(taken.error() == std::errc::address_in_use);
  auto first = co_await create_udp_socket({.local_host = "127.0.0.1", .reuse_port = true});
  auto second = co_await create_udp_socket(
      {.local_host = "127.0.0.1", .local_port = first.local_endpoint().port, .reuse_port = true});
  CHECK(second.local_endpoint() == first.local_endpoint());
}

task<> packet_information() {
  udp_socket server = co_await create_udp_socket({.family = AF_INET});
  CHECK(server.set_packet_info(true).has_value());
  const ip_address second = ip_address::v4(0x7f000002);
  auto client = co_await create_connected_udp_socket(ip_endpoint{second, server.local_endpoint().port});
  co_await client.send("question");
  const udp_packet packet = co_await server.receive();
  const packet_info info = packet.info;
  CHECK(info.local == second);
  CHECK(info.interface_index != 0);
  CHECK(info.ecn == 0);
  CHECK(info.hop_limit > 0);
  co_await server.send_to("answer", packet.sender, {.local = second});
  std::string answer = co_await client.receive();
  CHECK(answer == "answer");
  auto sending = server.send_to(std::string("again"), packet.sender, info);
  co_await sending;
  answer = co_await client.receive();
  CHECK(answer == "again");

  co_await client.send("batch");
  udp_batch batch(4);
  co_await server.receive_batch(batch);
  CHECK((*batch.begin()).info.local == second);
  co_await server.send_batch(batch);
  answer = co_await client.receive();
  CHECK(answer == "batch");

  udp_socket marked = co_await create_udp_socket({.local_host = "127.0.0.1"});
  CHECK(marked.set_packet_info(true).has_value());
  std::array<char, 10> buf{};
  co_await marked.send_to(
      "there", {second, server.local_endpoint().port},
      {.local = ip_address::loopback_v4(), .interface_index = 0, .ecn = 2, .hop_limit = 9});
  const udp_received there = co_await server.receive(buf);
  CHECK(there.info.ecn == 2);
  CHECK(there.info.hop_limit == 9);
  co_await server.send_to("back", there.sender, there.info);
  const udp_packet back = co_await marked.receive();
  CHECK(back.sender.address == second);
  CHECK(back.info.ecn == 2);
  CHECK(server.set_packet_info(false).has_value());
  co_await client.send("off");
  const udp_packet off = co_await server.receive();
  CHECK(off.info.hop_limit == -1);

  CHECK(server.join_group(ip_address::v4(0xe0000042), "no such interface").error() == errc::os_error);
  CHECK_FALSE(server.leave_group(ip_address::v4(0xe0000042), "lo", ip_address::loopback_v4()).has_value());
}

// ---- connected UDP --------------------------------------------------------------------------------

task<> connected_udp() {
  udp_socket far = co_await create_udp_socket({.local_host = "127.0.0.1"});
  connected_udp_socket near = co_await create_connected_udp_socket("127.0.0.1", far.local_endpoint().port);
  CHECK(near.remote_endpoint() == far.local_endpoint());
  co_await near.send("question");
  const udp_packet asked = co_await far.receive();
  CHECK(asked.sender == near.local_endpoint());
  co_await far.send_to("answer", asked.sender);
  const std::string answer = co_await near.receive();
  CHECK(answer == "answer");
  co_await far.send_to("cut", asked.sender);
  std::array<std::byte, 2> buf{};
  const received part = co_await near.receive(buf);
  CHECK(part.size == 2);
  CHECK(part.truncated);
  co_await far.send_to("", asked.sender);
  const auto [size, truncated] = co_await near.receive(buf);
  CHECK(size == 0);
  CHECK_FALSE(truncated);

  auto other = co_await create_connected_udp_socket(far.local_endpoint(), {.local_host = "127.0.0.1"});
  far.close();
  co_await other.send("to no one");
  auto refused = co_await as_result(other.receive());
  CHECK(refused.error() == errc::broken_resource);
  CHECK(refused.error() == std::errc::connection_refused);
  auto quiet = co_await move_on_after(0s, other.receive());
  CHECK_FALSE(quiet.has_value());
  CHECK(static_cast<bool>(other));
}

// ---- batches --------------------------------------------------------------------------------------

task<> batches() {
  auto a = co_await create_udp_socket({.local_host = "127.0.0.1"});
  auto b = co_await create_udp_socket({.local_host = "127.0.0.1"});
  udp_batch out(4, 16);
  CHECK(out.size() == 0);
  CHECK(out.push("one", b.local_endpoint()));
  CHECK(out.push("two!", b.local_endpoint()));
  CHECK_FALSE(out.push(std::string(17, 'x'), b.local_endpoint()));
  CHECK(out.push(std::string(16, 'x'), b.local_endpoint()));
  CHECK(out.push("", b.local_endpoint()));
  CHECK_FALSE(out.push("full", b.local_endpoint()));
  CHECK(std::as_const(out).size() == 4);
  const std::size_t sent = co_await a.send_batch(out);
  CHECK(sent == 4);
  CHECK(out.size() == 4);

  udp_batch in(8);
  std::vector<std::string> texts;
  while (texts.size() < 4) {
    const std::size_t n = co_await b.receive_batch(in);
    CHECK(n == in.size());
    for (const auto& d : in) {
      texts.push_back(text_of(d.data));
      CHECK(d.sender == a.local_endpoint());
      CHECK_FALSE(d.truncated);
    }
    std::size_t at = texts.size() - n;
    for (auto [data, sender, truncated] : in) {
      CHECK(text_of(data) == texts.at(at++));
      CHECK(sender == a.local_endpoint());
      CHECK_FALSE(truncated);
    }
    for (auto&& d : in) CHECK(d.sender.port != 0);
    co_await b.send_batch(in);
  }
  CHECK(texts == std::vector{"one"s, "two!"s, std::string(16, 'x'), ""s});
  std::size_t returned = 0;
  while (returned < 4) {
    const udp_packet packet = co_await a.receive();
    CHECK(packet.data == texts.at(returned++));
    CHECK(packet.sender == b.local_endpoint());
  }
  in.clear();
  CHECK(in.size() == 0);
  CHECK((in.begin() == in.end()));

  udp_batch small(1, 2);
  co_await a.send_to("long", b.local_endpoint());
  co_await b.receive_batch(small);
  CHECK((*small.begin()).truncated);
  CHECK(text_of((*small.begin()).data) == "lo");

  connected_udp_socket c = co_await create_connected_udp_socket(b.local_endpoint());
  udp_batch unaddressed(2);
  CHECK(unaddressed.push("first"));
  CHECK(unaddressed.push("second"));
  const std::size_t both = co_await c.send_batch(unaddressed);
  CHECK(both == 2);
  const udp_packet first = co_await b.receive();
  const udp_packet second = co_await b.receive();
  CHECK(first.data == "first");
  CHECK(second.data == "second");
  co_await b.send_to("back", c.local_endpoint());
  std::size_t count = 0;
  c.receive_batch(unaddressed).start([&count](result<std::size_t> r) { count = r.value_or(99); });
  while (count == 0) co_await sleep(1ms);
  CHECK(count == 1);
  udp_batch moved = std::move(unaddressed);
  CHECK(moved.size() == 1);
}

// ---- UNIX -----------------------------------------------------------------------------------------

task<> unix_datagrams(std::string folder) {
  const std::string path = folder + "/server";
  unix_datagram_socket server =
      co_await create_unix_datagram_socket({.local_path = path, .local_mode = 0600});
  struct stat status;
  CHECK(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  CHECK(server.local_path() == path);

  unix_datagram_socket anonymous = co_await create_unix_datagram_socket();
  co_await anonymous.send_to("no name", path);
  unix_packet packet = co_await server.receive();
  CHECK(packet.data == "no name");
  CHECK(packet.sender.empty());

  connected_unix_datagram_socket client =
      co_await create_connected_unix_datagram_socket(path, {.local_path = folder + "/client"});
  CHECK(client.remote_path() == path);
  CHECK(client.local_path() == folder + "/client");
  co_await client.send("hello");
  const auto [data, sender] = co_await server.receive();
  CHECK(data == "hello");
  CHECK(sender == client.local_path());
  co_await server.send_to("you", sender);
  const std::string answer = co_await client.receive();
  CHECK(answer == "you");

  auto live = co_await as_result(create_unix_datagram_socket({.local_path = path}));
  CHECK(live.error() == std::errc::address_in_use);
  server.close();
  CHECK(::access(path.c_str(), F_OK) == 0);
  auto again = co_await create_unix_datagram_socket({.local_path = path});
  CHECK(again.local_path() == path);
  auto too_long = co_await as_result(again.send_to("x", std::string(200, 'x')));
  CHECK(too_long.error() == std::errc::filename_too_long);
  auto missing = co_await as_result(again.send_to("x", folder + "/missing"));
  CHECK(missing.error() == errc::os_error);
  auto nobody = co_await as_result(create_connected_unix_datagram_socket(folder + "/missing"));
  CHECK(nobody.error() == std::errc::no_such_file_or_directory);
}

task<> descriptors_in_datagrams(std::string folder) {
  const std::string path = folder + "/server";
  auto server = co_await create_unix_datagram_socket({.local_path = path});
  auto client = co_await create_connected_unix_datagram_socket(path, {.local_path = folder + "/client"});
  const std::array<int, 2> fds{0, 1};
  co_await client.send_fds("with two", fds);
  unix_fd_packet packet = co_await server.receive_fds(100, 2);
  CHECK(packet.data == "with two");
  CHECK(packet.sender == client.local_path());
  CHECK(packet.fds.size() == 2);
  CHECK((::fcntl(packet.fds[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
  co_await server.send_fds("back", std::span<const int>(fds).first(1), packet.sender);
  auto [data, sender, received_fds] = co_await client.receive_fds(100, 1);
  CHECK(data == "back");
  CHECK(sender == path);
  CHECK(received_fds.size() == 1);
  co_await client.send_fds("too many", fds);
  auto truncated = co_await as_result(server.receive_fds(100, 1));
  CHECK(truncated.error() == errc::fds_truncated);
  auto none = co_await as_result(client.send_fds("x", {}));
  CHECK(none.error() == errc::invalid_argument);

  std::array<char, 4> buf{};
  co_await client.send("hello");
  auto [size, from, cut] = co_await server.receive(buf);
  CHECK(size == 4);
  CHECK(from == client.local_path());
  CHECK(cut);
  co_await server.send_to("no", from);
  const received answer = co_await client.receive(buf);
  CHECK(answer.size == 2);
  CHECK_FALSE(answer.truncated);
}

task<> reconnecting(std::string folder) {
  const std::string path = folder + "/log";
  auto daemon = co_await create_unix_datagram_socket({.local_path = path});
  auto client = co_await create_connected_unix_datagram_socket(path);
  daemon.close();
  auto lost = co_await as_result(client.send("lost"));
  CHECK(lost.error() == errc::broken_resource);
  daemon = co_await create_unix_datagram_socket({.local_path = path});
  const result<> again = client.reconnect();
  CHECK(again.has_value());
  co_await client.send("kept");
  unix_packet packet = co_await daemon.receive();
  CHECK(packet.data == "kept");
  auto other = co_await create_unix_datagram_socket({.local_path = folder + "/other"});
  CHECK(client.reconnect(other.local_path()).has_value());
  CHECK(client.remote_path() == other.local_path());
  CHECK(client.reconnect(folder + "/missing").error() == std::errc::no_such_file_or_directory);

  auto a = co_await create_udp_socket({.local_host = "127.0.0.1"});
  auto b = co_await create_udp_socket({.local_host = "127.0.0.1"});
  auto c = co_await create_connected_udp_socket(a.local_endpoint());
  CHECK(c.reconnect().has_value());
  CHECK(c.reconnect(b.local_endpoint()).has_value());
  CHECK(c.remote_endpoint() == b.local_endpoint());
  co_await c.send("to b");
  const udp_packet heard = co_await b.receive();
  CHECK(heard.data == "to b");
}

}  // namespace

TEST_CASE("UDP sockets have the documented members, in all forms of use") { run(udp_in_all_faces); }
TEST_CASE("packet information comes with datagrams, and goes with them") {
  if (!support::emulator_has(support::emulator_fault::udp_control)) run(packet_information);
}
TEST_CASE("the options of a UDP socket take effect") { run(udp_options_matter); }
TEST_CASE("a connected UDP socket sends, receives and reports refusals") { run(connected_udp); }
TEST_CASE("batches are filled, sent, received, iterated and sent back") { run(batches); }
TEST_CASE("UNIX datagram sockets have the documented members") {
  const support::temp_dir dir;
  run(unix_datagrams(dir.path()));
}

TEST_CASE("descriptors travel in UNIX datagrams, which are also received into buffers") {
  const support::temp_dir dir;
  run(descriptors_in_datagrams(dir.path()));
}
TEST_CASE("connected datagram sockets connect again") {
  const support::temp_dir dir;
  run(reconnecting(dir.path()));
}

TEST_CASE("a UDP socket is opened immediately, and made from a descriptor") {
  loop l;
  result<udp_socket> socket = udp_socket::open({ip_address::loopback_v4()}, {.reuse_address = true});
  CHECK(socket.has_value());
  CHECK(socket->local_endpoint().port != 0);
  result<udp_socket> copy = udp_socket::from_fd(::dup(socket->native_handle()));
  CHECK(copy.has_value());
  CHECK(copy->local_endpoint() == socket->local_endpoint());
  CHECK(udp_socket::from_fd(-1).error() != errc::ok);
  CHECK_FALSE(connected_udp_socket::from_fd(socket->native_handle()).has_value());
  CHECK_FALSE(unix_datagram_socket::from_fd(socket->native_handle()).has_value());
  CHECK_FALSE(connected_unix_datagram_socket::from_fd(socket->native_handle()).has_value());
}

TEST_CASE("default-constructed datagram sockets are closed") {
  loop l;
  udp_socket a;
  connected_udp_socket b;
  unix_datagram_socket c;
  connected_unix_datagram_socket d;
  CHECK_FALSE(static_cast<bool>(a));
  CHECK_FALSE(static_cast<bool>(b));
  CHECK_FALSE(static_cast<bool>(c));
  CHECK_FALSE(static_cast<bool>(d));
  udp_batch batch(1);
  CHECK(run(as_result(a.receive())).error() == errc::closed_resource);
  CHECK(run(as_result(a.receive_batch(batch))).error() == errc::closed_resource);
  CHECK(run(as_result(b.send("x"))).error() == errc::closed_resource);
  CHECK(run(as_result(c.send_to("x", "path"))).error() == errc::closed_resource);
  CHECK(run(as_result(d.receive())).error() == errc::closed_resource);
  a.close();
  b.cancel();
  c.close();
  d.close();
}

TEST_CASE("default-constructed datagram operations are invalid_argument") {
  loop l;
  std::vector<errc> seen;
  receive_from_operation receiving;
  send_to_operation sending;
  receiving.start([&seen](const auto& r) { seen.push_back(r.error().code()); });
  sending.start([&seen](const auto& r) { seen.push_back(r.error().code()); });
  l.run();
  CHECK(seen == std::vector{errc::invalid_argument, errc::invalid_argument});
}
