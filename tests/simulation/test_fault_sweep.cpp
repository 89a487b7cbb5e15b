// Every call of a program fails once, with every error that is legal for it. In each case the program ends,
// with its result or with an error, leaks nothing and never receives wrong bytes.
//
// The programs cover the library; each would end by itself, and no failure may make it wait without end.
#include "anyio_net.hpp"

#include "support/allocation_sweep.hpp"
#include "support/effort.hpp"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using anyio::as_result;
using anyio::byte_stream;
using anyio::errc;
using anyio::ip_address;
using anyio::ip_endpoint;
using anyio::task;
using anyio::tcp_listener;
using anyio::tcp_stream;
using anyio::unix_stream;
using anyio::detail::fault_at_call;
using anyio::detail::faulty_backend;

using program = task<> (*)();

/// Fails one call of the running loop.
task<> run_with(fault_at_call& failure, program p) {
  static_cast<faulty_backend&>(anyio::detail::loop_core::current().system()).one_failure = &failure;
  co_await anyio::fail_after(10min, p());
}

/// Errors that a program need not notice.
bool is_harmless(const fault_at_call& f) {
  const std::string_view name = f.name;
  return name == "accept" || (f.error_number == EAGAIN && name != "connect");
}

std::string failure_text(const anyio::sim::report& r) {
  return r.failure ? r.failure->message() : std::string("none");
}

/// Fails each call in turn, or some of them, and returns the number of runs.
std::size_t sweep(program p, const anyio::sim::options& o) {
  std::size_t runs = 0;
  const auto step = static_cast<std::uint64_t>(support::one_in());
  for (auto call = static_cast<std::uint64_t>(support::first_step());; call += step) {
    std::size_t choices = 1;
    for (std::size_t which = 0; which < choices; ++which) {
      fault_at_call failure{.call = call, .which = which};
      const anyio::sim::report r = anyio::sim::run(o, run_with(failure, p));
      const bool reached = failure.name != nullptr;
      INFO("call ", call, ", ", std::string(reached ? failure.name : "none"), " fails with ",
           std::string(anyio::detail::errno_name(failure.error_number)), ", the program with ",
           failure_text(r), "; after ", runs, " runs\n", r.dump);
      CHECK(!r.deadlock);
      CHECK(r.leaked_handles == 0);
      CHECK(!(r.failure == errc::timed_out));
#if ANYIO_NET_EXCEPTIONS
      CHECK(!r.exception);
#endif
      if (!reached || is_harmless(failure)) CHECK(r.ok());
      if (!reached) return runs;
      ++runs;
      choices = failure.choices;
    }
  }
}

/// Whether a whole sweep tried that many failures. A part of a short one may try none.
bool enough(std::size_t runs, std::size_t least) { return support::one_in() != 1 || runs >= least; }

void sweep_all(program p, std::size_t least) {
  std::size_t runs = sweep(p, {});
  runs += sweep(p, {.faults = {.latency_min = 3ms, .latency_max = 3ms}});
  runs += sweep(p, {.faults = {.short_io = 0.5, .would_block = 0.2}});
  runs += sweep(p, {.profile = anyio::sim::profile::darwin});
  INFO("failures tried: ", runs);
  CHECK(enough(runs, least));
#if ANYIO_NET_EXCEPTIONS && ANYIO_NET_TEST_TSAN == 0
  CHECK(support::sweep_program("the program", {}, p) >= 5);
#endif
}

std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  std::uint32_t state = 1;
  for (char& c : text) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return text;
}

task<> echo_until_the_end(byte_stream& s) {
  for (;;) {
    auto r = co_await as_result(s.receive());
    if (!r) {
      if (r.error() != errc::end_of_stream) co_await anyio::raise(r.error());
      break;
    }
    co_await s.send(*r);
  }
  co_await s.send_eof();
  co_await s.aclose();
}

task<> send_and_end(byte_stream& s, const std::string& text) {
  co_await s.send(text);
  co_await s.send_eof();
}

task<> receive_to_the_end(byte_stream& s, const std::string& text) {
  std::string got;
  for (;;) {
    auto r = co_await as_result(s.receive());
    if (!r) {
      if (r.error() != errc::end_of_stream) co_await anyio::raise(r.error());
      break;
    }
    got += *r;
    CHECK((text.compare(0, got.size(), got) == 0));
  }
  if (got != text) co_await anyio::raise(anyio::error(errc::incomplete_read));
}

/// Sends, half-closes, and receives all of it again; `incomplete_read` if the other end failed.
task<> ask_for_echo(byte_stream& s, std::string text) {
  co_await anyio::when_all(send_and_end(s, text), receive_to_the_end(s, text));
  co_await s.aclose();
}

// --- streams

task<> accept_and_echo(tcp_listener listener) {
  tcp_stream s = co_await listener.accept();
  listener.close();
  co_await echo_until_the_end(s);
}

task<> connect_and_ask(ip_endpoint expected) {
  tcp_stream s = co_await anyio::connect_tcp("server.example", 80);
  CHECK(s.remote_endpoint() == expected);
  co_await ask_for_echo(s, pattern(200000));
}

task<> connects_by_name() {
  const ip_address addresses[] = {ip_address::parse("2001:db8::1").value(),
                                  ip_address::parse("192.0.2.1").value(),
                                  ip_address::parse("192.0.2.2").value()};
  anyio::sim::set_name("server.example", addresses);
  const ip_endpoint at{addresses[2], 80};
  tcp_listener listener = co_await tcp_listener::open(at);
  co_await anyio::when_all(accept_and_echo(std::move(listener)), connect_and_ask(at));
}

TEST_CASE("whatever fails: connecting by name to one of several addresses, an echo, half-closing") {
  sweep_all(connects_by_name, 200);
}

task<> binds_and_connects() {
  const ip_address here[] = {ip_address::parse("192.0.2.7").value()};
  anyio::sim::set_name("here.example", here);
  tcp_listener listener =
      co_await anyio::create_tcp_listener({.local_host = "localhost", .reuse_port = true});
  const std::vector<ip_endpoint> endpoints = listener.local_endpoints();
  CHECK(endpoints.size() == 2);
  tcp_stream a = co_await anyio::connect_tcp("127.0.0.1", listener.local_port(),
                                             {.local_host = "here.example", .local_port = 5000});
  const ip_endpoint local = a.local_endpoint();
  if (local.port != 0) CHECK(local == ip_endpoint{here[0], 5000});  // it was not available
  auto accepted = co_await anyio::move_on_after(10s, listener.accept());
  if (!accepted) co_await anyio::raise(anyio::error(errc::incomplete_read));  // dropped on arrival
  tcp_stream b = std::move(*accepted);
  CHECK(b.remote_endpoint() == ip_endpoint{here[0], 5000});
  co_await a.send("x");
  std::string got = co_await b.receive();
  CHECK(got == "x");
  co_await anyio::getnameinfo(b.remote_endpoint());
}

TEST_CASE("whatever fails: listening and connecting at local names") { sweep_all(binds_and_connects, 100); }

task<> tells_where_it_is() {
  tcp_listener listener = co_await anyio::create_tcp_listener({.local_host = "localhost"});
  CHECK(listener.local_port() != 0);
  const std::vector<ip_endpoint> endpoints = listener.local_endpoints();
  CHECK(endpoints.size() == 2);
  CHECK(endpoints.back().port == listener.local_port());
  anyio::udp_socket udp = co_await anyio::create_udp_socket({.family = AF_INET});
  CHECK(udp.local_endpoint().port != 0);
}

TEST_CASE("whatever fails: a server that others can reach reports its port") {
  sweep_all(tells_where_it_is, 60);
}

task<> client_of_server(std::size_t size) {
  tcp_stream s = co_await anyio::connect_tcp("localhost", 8080);
  co_await ask_for_echo(s, pattern(size));
}

struct ignored {
  void operator()(const anyio::error&) const {}
#if ANYIO_NET_EXCEPTIONS
  void operator()(const std::exception_ptr&) const {}
#endif
};

task<> serves() {
  tcp_listener listener = co_await anyio::create_tcp_listener({.local_port = 8080});
  anyio::task_group group;
  group.start_soon(listener.serve([](tcp_stream s) -> task<> { co_await echo_until_the_end(s); }, ignored(),
                                  {.max_connections = 2}));
  auto all = co_await as_result(
      anyio::when_all(client_of_server(1), client_of_server(1000), client_of_server(2000)));
  listener.close();
  co_await group.join();
  if (!all) co_await anyio::raise(all.error());
}

TEST_CASE("whatever fails: a server with a limit, and its clients") { sweep_all(serves, 300); }

task<> accept_and_echo(anyio::unix_listener listener) {
  unix_stream s = co_await listener.accept();
  listener.close();
  co_await echo_until_the_end(s);
}

task<> connect_to_path_and_ask(std::string path) {
  unix_stream s = co_await anyio::connect_unix(path);
  static_cast<void>(s.credentials());
  co_await ask_for_echo(s, pattern(3000));
}

task<> listens_at_a_path() {
  const std::string path = "/run/service";
  { anyio::unix_listener left_behind = co_await anyio::create_unix_listener(path); }
  anyio::unix_listener listener =
      co_await anyio::create_unix_listener(path, {.mode = 0600, .unlink_on_close = true});
  co_await anyio::when_all(accept_and_echo(std::move(listener)), connect_to_path_and_ask(path));
}

TEST_CASE("whatever fails: a UNIX listener that replaces a stale file") { sweep_all(listens_at_a_path, 100); }

task<> connect_and_say() {
  unix_stream s = co_await anyio::connect_unix("/run/small");
  co_await s.send("y");
}

task<> accept_all(anyio::unix_listener& listener) {
  for (;;) {
    unix_stream s = co_await listener.accept();
    auto r = co_await as_result(s.receive());
    if (r) CHECK(*r == "y");
  }
}

task<> waits_for_a_full_backlog() {
  anyio::unix_listener listener = co_await anyio::create_unix_listener("/run/small", {.backlog = 0});
  anyio::task_group group;
  group.start_soon(accept_all(listener));
  co_await anyio::when_all(connect_and_say(), connect_and_say(), connect_and_say());
}

TEST_CASE("whatever fails: connecting to a path whose backlog is full") {
  const std::size_t runs = sweep(waits_for_a_full_backlog, {});  // where waiting for it is possible
  CHECK(enough(runs, 30));
}

task<> receive_one_descriptor(unix_stream& from, const std::string& text, anyio::unique_fd& fd) {
  std::string got;
  while (got.size() < text.size()) {
    anyio::fd_message m = co_await from.receive_fds(100, 2);
    got += m.data;
    for (anyio::unique_fd& one : m.fds) {
      CHECK(!fd);
      fd = std::move(one);
    }
  }
  CHECK((got == text));
}

task<> passes_descriptors() {
  auto [a, b] = co_await anyio::create_unix_stream_pair();
  auto [c, d] = co_await anyio::create_unix_stream_pair();
  const int number = d.release();
  const anyio::unique_fd sent(number);
  const std::string text = pattern(500);
  anyio::unique_fd arrived;
  auto sending = a.send_fds(text, std::span(&number, 1));
  co_await anyio::when_all(std::move(sending), receive_one_descriptor(b, text, arrived));
  CHECK(arrived);
  unix_stream e = co_await unix_stream::from_fd(arrived.get());
  static_cast<void>(arrived.release());
  co_await c.send("through");
  std::string word;
  while (word.size() < 7) word += co_await e.receive();
  CHECK(word == "through");
}

TEST_CASE("whatever fails: descriptors in messages") { sweep_all(passes_descriptors, 60); }

task<> looks_for_descriptors_alone() {
  auto [a, b] = co_await anyio::create_unix_stream_pair();
  co_await a.send("bytes");
  anyio::fd_message m = co_await b.receive_fds(0, 1);
  CHECK(m.data.empty());
  CHECK(m.fds.empty());
  co_await a.send_eof();
  std::string got;
  while (got.size() < 5) got += co_await b.receive();
  CHECK(got == "bytes");
  auto r = co_await as_result(b.receive_fds(0, 1));
  CHECK(!r);
  if (!r && r.error() != errc::end_of_stream) co_await anyio::raise(r.error());
}

TEST_CASE("whatever fails: peeking for descriptors without taking bytes") {
  sweep_all(looks_for_descriptors_alone, 40);
}

task<> send_lines(tcp_stream a) {
  co_await a.send("a line\r\nkey=value;");
  const std::string text = pattern(5000);
  const anyio::const_buffer parts[] = {std::string_view(text).substr(0, 100),
                                       std::string_view(text).substr(100)};
  co_await a.send(std::span<const anyio::const_buffer>(parts));
  co_await a.send("rest");
  a.close();
}

task<> read_lines(tcp_stream& from) {
  anyio::buffered_stream b(from);
  std::string line = co_await b.receive_line();
  CHECK(line == "a line");
  std::string value = co_await b.receive_until(";", 100);
  CHECK(value == "key=value");
  std::string block = co_await b.receive_exactly(5000);
  const std::string expected = pattern(5000);
  CHECK((block == expected));
  auto too_much = co_await as_result(b.receive_exactly(5));
  CHECK(!too_much);
  if (too_much.error() != errc::incomplete_read) co_await anyio::raise(too_much.error());
  CHECK(std::string_view("rest").starts_with(b.buffer()));
}

task<> reads_buffered() {
  tcp_listener listener = co_await tcp_listener::open({ip_address::loopback_v6(), 0});
  tcp_stream a = co_await anyio::connect_tcp(listener.local_endpoints().front());
  auto accepted = co_await anyio::move_on_after(10s, listener.accept());
  if (!accepted) co_await anyio::raise(anyio::error(errc::incomplete_read));
  tcp_stream b = std::move(*accepted);
  co_await anyio::when_all(send_lines(std::move(a)), read_lines(b));
  auto file = co_await as_result(b.send_file(0, 0, 1));
  CHECK(!file);
}

TEST_CASE("whatever fails: buffered reads, and a file that cannot be sent") { sweep_all(reads_buffered, 80); }

task<> adopts() {
  tcp_listener made = co_await tcp_listener::open({ip_address::loopback_v4(), 0});
  tcp_stream a = co_await anyio::connect_tcp(made.local_endpoints().front());
  auto accepted = co_await anyio::move_on_after(10s, made.accept());
  if (!accepted) co_await anyio::raise(anyio::error(errc::incomplete_read));
  tcp_stream b = std::move(*accepted);
  anyio::unique_fd fd(a.release());
  tcp_stream c = co_await tcp_stream::from_fd(fd.get());
  static_cast<void>(fd.release());
  static_cast<void>(c.set_no_delay(true));
  co_await c.set_keep_alive(10s, 1s, 3);
  const ip_endpoint local = made.local_endpoints().front();
  if (c.remote_endpoint().port != 0) CHECK(c.remote_endpoint() == local);
  co_await anyio::fail_after(1s, c.send("z"));
  std::string got = co_await b.receive();
  CHECK(got == "z");
}

TEST_CASE("whatever fails: adopting a descriptor") { sweep_all(adopts, 50); }

task<> looks() {
  auto pair = co_await anyio::create_unix_stream_pair();
  unix_stream& a = pair.first;
  unix_stream& b = pair.second;
  co_await a.wait_writable();
  co_await a.send("seen");
  a.close();
  co_await b.wait_readable();
  char room[4];
  const std::size_t n = co_await b.peek(room);
  std::string got = co_await b.receive();
  CHECK(std::string_view("seen").starts_with(got));
  CHECK(std::string_view("seen").starts_with(std::string_view(room, n)));
}

TEST_CASE("whatever fails: peeking, and waiting for readiness") { sweep_all(looks, 20); }

task<> keeps_descriptors() {
  auto pair = co_await anyio::create_unix_stream_pair();
  unix_stream& a = pair.first;
  unix_stream& b = pair.second;
  auto other = co_await anyio::create_unix_stream_pair();
  const int fds[] = {other.first.native_handle(), other.second.native_handle()};
  co_await a.send("before");
  co_await a.send_fds("\x01\x02\x03\x04 with two", fds);
  a.close();
  anyio::buffered_stream in(b, 4);
  std::string first = co_await in.receive_exactly(6);
  CHECK(first == "before");
  const std::vector<anyio::unique_fd> none = in.take_fds();
  CHECK(none.empty());
  const std::uint32_t number = co_await in.receive_int<std::uint32_t>();
  CHECK(number == 0x01020304);
  const std::vector<anyio::unique_fd> both = in.take_fds();
  CHECK(both.size() == 2);
  std::string last = co_await in.receive_exactly(9);
  CHECK(last == " with two");
}

TEST_CASE("whatever fails: descriptors through a buffered stream") { sweep_all(keeps_descriptors, 20); }

task<> fills_queue(anyio::send_queue& q) {
  for (int i = 0; i < 20; ++i) co_await q.send("message");
  co_await q.flush();
}

task<> queues() {
  auto pair = co_await anyio::create_unix_stream_pair();
  anyio::send_queue q(pair.first, 30);
  anyio::buffered_stream in(pair.second);
  anyio::task_group group;
  group.start_soon(q.run());
  auto [nothing, all] =
      co_await anyio::when_all(fills_queue(q), anyio::fail_after(1min, in.receive_exactly(140)));
  CHECK(all.size() == 140);
  CHECK(all.substr(133) == "message");
  group.cancel();
}

TEST_CASE("whatever fails: a queue of messages to send") { sweep_all(queues, 20); }

task<> ends_in_order(byte_stream& s, const std::string& text) {
  co_await s.send(text);
  co_await s.send_eof();
  for (;;) {
    auto r = co_await as_result(s.receive());
    if (!r && r.error() != errc::end_of_stream) co_await anyio::raise(r.error());
    if (!r) break;
  }
}

task<> relays() {
  auto a = co_await anyio::create_unix_stream_pair();
  auto b = co_await anyio::create_unix_stream_pair();
  const std::string text = pattern(5000);
  auto [r, one, other] =
      co_await anyio::when_all(anyio::relay(a.second, b.first, {.idle = 1min}), ends_in_order(a.first, text),
                               ends_in_order(b.second, text));
  CHECK(r.a_to_b == text.size());
  CHECK(r.b_to_a == text.size());
}

TEST_CASE("whatever fails: a relay") { sweep_all(relays, 20); }

task<> send_later(unix_stream& to) {
  co_await anyio::sleep(1ms);
  co_await to.send("x");
}

task<> waits_for_descriptors() {
  auto [a, b] = co_await anyio::create_unix_stream_pair();
  const anyio::unique_fd fd(b.release());
  co_await anyio::wait_writable(fd.get());
  co_await anyio::when_all(anyio::wait_readable(fd.get()), send_later(a));
  co_await anyio::wait_readable(fd.get());
  anyio::notify_closing(fd.get());
}

TEST_CASE("whatever fails: waiting for raw descriptors") { sweep_all(waits_for_descriptors, 30); }

task<> raise_later() {
  co_await anyio::sleep(1s);
  anyio::sim::raise(SIGTERM);
}

task<> hears_signals() {
  auto signals = co_await anyio::signal_receiver::open(SIGTERM, SIGHUP);
  anyio::sim::raise(SIGHUP);
  const int first = co_await signals.receive();
  CHECK(first == SIGHUP);
  const auto both = co_await anyio::when_all(signals.receive(), raise_later());
  CHECK(std::get<0>(both) == SIGTERM);
}

TEST_CASE("whatever fails: signals") { sweep_all(hears_signals, 8); }

// --- datagrams

task<> exchanges_udp() {
  anyio::udp_socket a = co_await anyio::create_udp_socket({.local_host = "127.0.0.1", .reuse_address = true});
  anyio::connected_udp_socket b = co_await anyio::create_connected_udp_socket(a.local_endpoint());
  co_await b.send("one");
  anyio::udp_packet packet = co_await a.receive();
  CHECK(packet.data == "one");
  CHECK(packet.sender == b.local_endpoint());
  co_await a.send_to("", packet.sender);
  std::array<char, 10> room{};
  const auto r = co_await b.receive(anyio::mutable_buffer(room));
  CHECK(r.size == 0);
  CHECK(!r.truncated);
  co_await a.send_to("three", "localhost", packet.sender.port);
  std::string three = co_await b.receive();
  CHECK(three == "three");
  a.close();
  auto sent = co_await as_result(b.send("to nobody"));
  if (sent) {
    auto refused = co_await as_result(anyio::fail_after(1s, b.receive()));
    CHECK(!refused);
    if (refused.error() != errc::broken_resource) co_await anyio::raise(refused.error());
  }
}

TEST_CASE("whatever fails: UDP") {
  std::size_t runs = sweep(exchanges_udp, {});
  runs += sweep(exchanges_udp, {.faults = {.latency_min = 3ms, .latency_max = 3ms}});
  CHECK(enough(runs, 60));
}

task<> exchanges_batches() {
  anyio::udp_socket a = co_await anyio::udp_socket::open({ip_address::loopback_v6(), 0});
  anyio::udp_socket b = co_await anyio::udp_socket::open({ip_address::loopback_v6(), 0});
  anyio::udp_batch out(8), in(8);
  for (const char* text : {"one", "two", "three", "four", "five"}) CHECK(out.push(text, b.local_endpoint()));
  std::size_t sent = 0;
  while (sent < out.size()) {
    anyio::udp_batch rest(8);
    for (std::size_t i = sent; i < out.size(); ++i) CHECK(rest.push(out[i].data, out[i].sender));
    sent += co_await a.send_batch(rest);
  }
  std::size_t got = 0;
  while (got < 5) {
    const std::size_t n = co_await b.receive_batch(in);
    CHECK(n == in.size());
    for (const auto& d : in) {
      CHECK(std::equal(d.data.begin(), d.data.end(), out[got].data.begin(), out[got].data.end()));
      CHECK(d.sender == a.local_endpoint());
      ++got;
    }
  }
}

TEST_CASE("whatever fails: batches") { sweep_all(exchanges_batches, 40); }

task<> answers_from_the_address_that_was_asked() {
  anyio::udp_socket server = co_await anyio::create_udp_socket({.family = AF_INET});
  co_await server.set_packet_info(true);
  const ip_endpoint at{ip_address::v4(0x7f000002), server.local_endpoint().port};
  anyio::connected_udp_socket client = co_await anyio::create_connected_udp_socket(at);
  co_await client.send("one");
  const anyio::udp_packet packet = co_await server.receive();
  CHECK(packet.info.local == at.address);
  CHECK(packet.info.hop_limit == 64);
  co_await server.send_to("answer", packet.sender, packet.info);
  std::string answer = co_await client.receive();
  CHECK(answer == "answer");
  anyio::udp_batch batch(4);
  CHECK(batch.push("marked", {}, {.ecn = 2}));
  co_await client.send_batch(batch);
  co_await server.receive_batch(batch);
  CHECK(batch[0].info.local == at.address);
  CHECK(batch[0].info.ecn == 2);
  co_await server.send_batch(batch);
  answer = co_await client.receive();
  CHECK(answer == "marked");
  co_await server.set_packet_info(false);
}

TEST_CASE("whatever fails: packet information") { sweep_all(answers_from_the_address_that_was_asked, 60); }

task<> joins_a_group_of_one_source() {
  const ip_address group = ip_address::parse("232.1.2.3").value();
  anyio::udp_socket a =
      co_await anyio::udp_socket::open({ip_address::any_v4(), 7000}, {.reuse_address = true});
  anyio::udp_socket one = co_await anyio::udp_socket::open({ip_address::v4(0x0a000001), 7001});
  anyio::udp_socket two = co_await anyio::udp_socket::open({ip_address::v4(0x0a000002), 7001});
  co_await a.join_group(group, "", ip_address::v4(0x0a000001));
  co_await two.send_to("not heard", {group, 7000});
  co_await one.send_to("heard", {group, 7000});
  const anyio::udp_packet packet = co_await a.receive();
  CHECK(packet.data == "heard");
  co_await a.leave_group(group, "", ip_address::v4(0x0a000001));
  co_await a.join_group(group, "");
  co_await two.send_to("all are", {group, 7000});
  const anyio::udp_packet other = co_await a.receive();
  CHECK(other.data == "all are");
  co_await a.leave_group(group, "");
}

TEST_CASE("whatever fails: a group of one source") { sweep_all(joins_a_group_of_one_source, 60); }

task<> joins_a_group() {
  const ip_address group = ip_address::parse("239.1.2.3").value();
  anyio::udp_socket a =
      co_await anyio::udp_socket::open({ip_address::any_v4(), 7000}, {.reuse_address = true});
  anyio::udp_socket b =
      co_await anyio::udp_socket::open({ip_address::any_v4(), 7000}, {.reuse_address = true});
  co_await a.join_group(group);
  co_await b.join_group(group);
  co_await a.set_multicast_loop(true);
  co_await a.set_multicast_hops(1);
  co_await a.set_broadcast(true);
  co_await a.send_to("to all", {group, 7000});
  for (anyio::udp_socket* s : {&a, &b}) {
    anyio::udp_packet packet = co_await s->receive();
    CHECK(packet.data == "to all");
  }
  co_await b.leave_group(group);
}

TEST_CASE("whatever fails: multicast") { sweep_all(joins_a_group, 60); }

constexpr int numbers = 40;  // more than a queue holds

task<> send_numbers(anyio::connected_unix_datagram_socket& to) {
  for (int i = 0; i < numbers; ++i) co_await to.send(std::to_string(i));
}

task<> receive_numbers(anyio::unix_datagram_socket& from) {
  for (int i = 0; i < numbers; ++i) {
    anyio::unix_packet packet = co_await from.receive();
    CHECK(packet.data == std::to_string(i));
    CHECK(packet.sender == "/run/other");
  }
}

task<> exchanges_unix_datagrams() {
  const std::string path = "/run/datagrams";
  { auto left_behind = co_await anyio::create_unix_datagram_socket({.local_path = path}); }
  auto a = co_await anyio::create_unix_datagram_socket({.local_path = path, .local_mode = 0600});
  auto b = co_await anyio::create_connected_unix_datagram_socket(path, {.local_path = "/run/other"});
  co_await anyio::when_all(send_numbers(b), receive_numbers(a));
  co_await a.send_to("back", "/run/other");
  std::string back = co_await b.receive();
  CHECK(back == "back");
}

TEST_CASE("whatever fails: UNIX datagrams that replace a stale file, and a full queue") {
  sweep_all(exchanges_unix_datagrams, 300);
}

task<> passes_descriptors_in_datagrams() {
  const std::string path = "/run/descriptors";
  auto a = co_await anyio::create_unix_datagram_socket({.local_path = path});
  auto b = co_await anyio::create_connected_unix_datagram_socket(path, {.local_path = "/run/sender"});
  auto other = co_await anyio::create_unix_datagram_socket();
  const int two[] = {other.native_handle(), a.native_handle()};
  co_await b.send_fds("two", two);
  anyio::unix_fd_packet packet = co_await a.receive_fds(10, 2);
  CHECK(packet.data == "two");
  CHECK(packet.sender == "/run/sender");
  CHECK(packet.fds.size() == 2);
  co_await other.send_fds("", two, path);
  packet = co_await a.receive_fds(0, 2);
  CHECK(packet.data.empty());
  CHECK(packet.sender.empty());
  CHECK(packet.fds.size() == 2);
  co_await b.send_fds("many", two);
  auto many = co_await as_result(a.receive_fds(10, 1));
  CHECK(!many);
  if (many.error() != errc::fds_truncated) co_await anyio::raise(many.error());
  co_await b.send_fds("long", two);
  auto long_one = co_await as_result(a.receive_fds(2, 2));
  CHECK(!long_one);
  if (long_one.error() != std::errc::message_size) co_await anyio::raise(long_one.error());
  co_await a.send_fds("back", two, "/run/sender");
  std::array<char, 10> room{};
  const anyio::received plain = co_await b.receive(room);
  CHECK(plain.size == 4);
  co_await b.send_fds("to a buffer", two);
  const anyio::unix_received cut = co_await a.receive(room);
  CHECK(cut.truncated);
  co_await b.send_fds("never received", two);
}

TEST_CASE("whatever fails: descriptors in UNIX datagrams") { sweep_all(passes_descriptors_in_datagrams, 60); }

task<> connects_again() {
  const std::string path = "/run/restarted";
  auto a = co_await anyio::create_unix_datagram_socket({.local_path = path});
  auto b = co_await anyio::create_connected_unix_datagram_socket(path);
  a.close();
  auto sent = co_await as_result(b.send("to nobody"));
  CHECK(!sent);
  a = co_await anyio::create_unix_datagram_socket({.local_path = path});
  co_await b.reconnect();
  co_await b.send("again");
  const anyio::unix_packet packet = co_await a.receive();
  CHECK(packet.data == "again");

  anyio::udp_socket first = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  anyio::udp_socket second = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  anyio::connected_udp_socket c = co_await anyio::create_connected_udp_socket(first.local_endpoint());
  auto changed = c.reconnect(second.local_endpoint());
  if (!changed) {  // still connected to the first one
    CHECK(c.remote_endpoint() == first.local_endpoint());
    co_await anyio::raise(changed.error());
  }
  co_await c.send("second");
  const anyio::udp_packet heard = co_await second.receive();
  CHECK(heard.data == "second");
}

TEST_CASE("whatever fails: connecting a datagram socket again") { sweep_all(connects_again, 60); }

}  // namespace
