// A program that imports the library as a module, anyio_net.cppm, and uses each kind of name: functions,
// classes, templates, operators, constants of enumerations, errors that are caught, bindings.
#include <array>
#include <chrono>
#include <coroutine>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>

import anyio_net;

using namespace std::chrono_literals;

namespace {

int failures = 0;
void expect(bool ok, const char* what) {
  if (ok) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

anyio::task<> echo(anyio::tcp_stream client) {
  for (;;) co_await client.send(co_await client.receive_view());
}

anyio::task<std::size_t> visit(std::uint16_t port, std::string text) {
  auto stream = co_await anyio::connect_tcp("127.0.0.1", port);
  co_await stream.send(text);
  anyio::buffered_stream in(stream);
  expect(co_await in.receive_exactly(text.size()) == text, "an echo");
  co_return text.size();
}

anyio::task<> tcp() {
  auto listener = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  anyio::task_group group;
  group.start_soon(listener.serve(echo));
  const auto [a, b] =
      co_await anyio::when_all(visit(listener.local_port(), "one"), visit(listener.local_port(), "three"));
  expect(a == 3 && b == 5, "when_all");
  const auto first = co_await anyio::when_any(visit(listener.local_port(), "x"), anyio::sleep(1h));
  expect(first.index() == 0, "when_any");
  group.cancel();
  co_await group.join();
}

anyio::task<> udp() {
  auto a = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  auto b = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  co_await a.send_to("datagram", b.local_endpoint());
  const auto [data, sender] = co_await b.receive();
  expect(data == "datagram" && sender == a.local_endpoint(), "bindings of a datagram");
}

anyio::task<> errors() {
  try {
    co_await anyio::fail_after(0ms, anyio::sleep(1h), "never");
    expect(false, "fail_after");
  } catch (const anyio::timed_out& e) {
    expect(e.error() == anyio::errc::timed_out && e.error().operation() == std::string_view("never"),
           "an error");
  }
  const auto refused = co_await as_result(anyio::connect_unix(std::string_view("\0nobody listens here", 20)));
  expect(!refused && refused.error() == std::errc::connection_refused, "a result");
  const auto place = co_await anyio::ip_endpoint::parse("[::1]:80");
  expect(place.port == 80 && anyio::ip_address::loopback_v4() < place.address, "addresses");
  co_await anyio::raise(anyio::error(anyio::errc::protocol, 0, "the end"));
}

anyio::task<> others() {
  auto [one, other] = anyio::create_memory_stream_pair();
  anyio::channel<std::string> words(1);
  anyio::event over;
  anyio::semaphore lock(1);
  anyio::task_group group;
  group.start_soon(words.send("word"));
  group.start_soon(one.send("bytes"));
  expect(co_await words.receive() == "word" && co_await other.receive() == "bytes", "a channel and a stream");
  co_await group.join();
  {
    const anyio::permit p = co_await lock.acquire();
    expect(lock.available() == 0, "a semaphore");
  }
  expect(co_await anyio::to_thread::run_sync([] { return 42; }) == 42, "a thread");
  expect(!co_await anyio::move_on_after(1ms, over.wait()), "move_on_after");
}

struct session {
  anyio::sleep_operation sleeping = anyio::sleep(1ms);
  bool ended = false;
};

void callbacks() {
  anyio::loop loop;
  session s;
  s.sleeping.start([&s](anyio::result<> r) { s.ended = r.has_value(); });
  anyio::loop_handle handle = loop.handle();
  bool posted = handle.post([&] { posted = true; });
  posted = false;
  loop.run();
  expect(s.ended && posted, "callbacks");
  expect(!handle.post([] {}) || loop.native_handle() >= 0, "a handle");
}

}  // namespace

int main() {
  anyio::run(tcp());
  anyio::run(udp());
  anyio::run(others());
  const anyio::result<> ended = anyio::run(as_result(errors()));
  expect(!ended && ended.error() == anyio::errc::protocol, "raise");
  callbacks();
  std::printf("imported");
#if defined(WITH_SIM)
  const anyio::sim::report report = anyio::sim::run({.seed = 7}, [] { return udp(); });
  expect(report.ok() && !report.deadlock, "a simulation");
  std::printf(" with a simulation");
#endif
#if defined(WITH_OPENSSL)
  expect(anyio::openssl_context({.verify = anyio::tls_verify::none}).has_value(), "OpenSSL");
  std::printf(" with OpenSSL");
#endif
  std::printf("\n");
  return failures == 0 ? 0 : 1;
}
