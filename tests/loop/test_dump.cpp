// What loop::dump shows of streams, listeners, and of those who wait.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "support/faces.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::loop;
using anyio::result;
using anyio::task;

/// The line of the dump that contains these words, without its age; empty if there is none.
std::string line_with(const std::string& words) {
  const std::string text = loop::current().dump();
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.find(words) == std::string::npos) continue;
    const std::size_t unit = line.find(" s", line.find(" 0.") != std::string::npos ? line.find(" 0.") : 0);
    const std::size_t age = line.rfind(", ", unit);
    return line.erase(age, unit + 2 - age);
  }
  return {};
}

struct tcp_pair {
  anyio::tcp_listener listener = *anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
  anyio::tcp_stream near, far;
  tcp_pair() {
    support::waiting<anyio::tcp_stream> accepted;
    support::by_callback::start(listener.accept(), accepted);
    near = anyio::run(anyio::connect_tcp("127.0.0.1", listener.local_port()));
    far = *accepted.get();
  }
};

TEST_CASE("a dump shows the peers of sockets, and the own address of those without one") {
  loop l;
  tcp_pair pair;
  pair.near.receive().start([](result<std::string>) {});
  pair.listener.accept().start([](result<anyio::tcp_stream>) {});
  support::settle();
  CHECK(line_with("receive") == "fd " + std::to_string(pair.near.native_handle()) + " (" +
                                    pair.near.remote_endpoint().to_string() + "): receive");
  CHECK(line_with("accept") == "fd " + std::to_string(pair.listener.native_handles()[0]) + " (at 127.0.0.1:" +
                                   std::to_string(pair.listener.local_port()) + "): accept");

  const support::temp_dir dir;
  auto listener = anyio::run(anyio::create_unix_listener(dir.path("a\nsocket")));
  anyio::unix_stream client = anyio::run(anyio::connect_unix(dir.path("a\nsocket")));
  client.receive_view().start([](result<std::string_view>) {});
  support::settle();
  CHECK(line_with("receive_view").find(" (" + dir.path("a?socket") + "): receive_view") != std::string::npos);
}

TEST_CASE("a dump shows how many bytes an operation has moved") {
  loop l;
  tcp_pair pair;
  const std::string much(std::size_t{64} << 20, 'x');
  anyio::send_operation send = pair.near.send(much);
  send.start([](result<>) {});
  anyio::buffered_stream reader(pair.near);
  reader.receive_exactly(10).start([](result<std::string>) {});
  anyio::run(pair.far.send("abc"));
  support::settle();
  REQUIRE(send.sent() != 0);
  REQUIRE(send.sent() < much.size());
  CHECK(line_with("send").find("send, " + std::to_string(send.sent()) + " bytes") != std::string::npos);
  CHECK(line_with("receive_exactly").ends_with("): receive_exactly, 3 bytes"));

  reader = anyio::buffered_stream(pair.near);
  std::array<char, 8> into{};
  reader.receive_exactly(into).start([](result<>) {});
  anyio::run(pair.far.send("de"));
  support::settle();
  CHECK(line_with("receive_exactly").ends_with("): receive_exactly, 2 bytes"));
  reader.close();
}

TEST_CASE("a count of bytes in a dump has no limit that matters") {
  using anyio::detail::description;
  for (const std::uint64_t n : {std::uint64_t{0}, std::uint64_t{1}, (std::uint64_t{1} << 31) - 1,
                                std::uint64_t{1} << 31, std::uint64_t{5} << 30, std::uint64_t{1} << 46}) {
    const description d{"", -1, description::count(n)};
    CHECK(d.moved != description::no_count);
    CHECK(d.bytes() == n);
  }
}

task<> waits() { co_await anyio::sleep(1h); }
task<> waits_inside() { co_await waits(); }

task<> waits_deep(int below) {
  if (below == 0) {
    co_await anyio::sleep(1h);
  } else {
    co_await waits_deep(below - 1);
  }
}

TEST_CASE("a dump names the first of many equal ones in a chain, and counts the rest") {
  loop l;
  anyio::task_group outside;
  outside.start_soon(waits_deep(1007));
  anyio::run(anyio::sleep(0s));
  while (l.dump().find("sleep") == std::string::npos) l.run_once(0s);
  const std::string eight = "task < task < task < task < task < task < task < task < ";
  CHECK(line_with("sleep") == "-: sleep, in " + eight + "1000 more < task_group");
}

TEST_CASE("a dump shows who waits, up to the root") {
  loop l;
  anyio::task_group outside;
  const auto children = [&]() -> task<> {
    anyio::task_group group;
    group.start_soon(waits_inside());
    co_await anyio::when_all(group.join(), anyio::fail_after(2h, waits(), "a while"));
  };
  std::string inside;
  const auto look = [&]() -> task<> {
    co_await anyio::sleep(0s);
    co_await anyio::sleep(0s);
    inside = line_with("sleep");
  };
  outside.start_soon(children());
  anyio::run(look());
  CHECK(inside.starts_with("-: sleep, in task < task < task_group < task < task_group"));
  CHECK(line_with("in task < a while") == "-: sleep, in task < a while < when_all < task < task_group");
  CHECK(line_with("join") == "-: join, in when_all < task < task_group");

  inside.clear();
  anyio::run([&]() -> task<> {
    l.post([&] { inside = line_with(" < run"); });
    co_await anyio::sleep(0s);
    co_await anyio::sleep(0s);
  });
  CHECK(inside.starts_with("-: sleep"));
}

TEST_CASE("a dump shows the handlers of a server") {
  loop l;
  tcp_pair pair;
  auto listener = *anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
  const std::uint16_t port = listener.local_port();
  support::waiting<void> served;
  support::by_callback::start(listener.serve([](anyio::tcp_stream s) -> task<> {
    anyio::buffered_stream lines(s);
    co_await anyio::fail_after(1h, lines.receive_line(), "the first line");
  }),
                              served);
  anyio::tcp_stream client = anyio::run(anyio::connect_tcp("127.0.0.1", port));
  support::settle();
  const std::string line = line_with("receive_line");
  CHECK(line.find(" (" + client.local_endpoint().to_string() +
                  "): receive_line, 0 bytes, in the first line < "
                  "task < task_group < serve") != std::string::npos);
  CHECK(line_with("accept").find(": accept, in serve") != std::string::npos);
}

}  // namespace
