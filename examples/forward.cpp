// A port forwarder: connects each client to a target, in both directions, including half-closes.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/forward.cpp -o forward
//   ./forward 8080 example.org:80
#include "anyio_net.hpp"

#include <charconv>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "support/complaints.hpp"
#include "support/program.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: forward [HOST:]PORT TARGET_HOST:TARGET_PORT\n"
    "\n"
    "Listens on PORT (0: any free one) of HOST, by default only for this machine, and connects each client\n"
    "to TARGET. Ctrl-C stops accepting, and ends the connections after two seconds; a second Ctrl-C ends\n"
    "them at once.\n"
    "\n"
    "exit code: 0 after Ctrl-C, 1 if it cannot listen, 2 for a wrong command line\n";

struct place {
  std::string host;
  std::uint16_t port = 0;

  place(std::string_view name, std::uint16_t number) : host(name), port(number) {}
};

// "host:port", "[::1]:port", or "port" where a default host applies.
static std::optional<place> parse_place(std::string_view text, std::string_view host) {
  if (const auto colon = text.rfind(':'); colon != std::string_view::npos) {
    host = text.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    text.remove_prefix(colon + 1);
  }
  std::uint16_t port = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (host.empty() || failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return place(host, port);
}

static anyio::task<> forward(anyio::tcp_stream client, const place& target) {
  anyio::tcp_stream server = co_await anyio::connect_tcp(target.host, target.port);
  const auto relayed = co_await anyio::as_result(anyio::relay(client, server));
  if (relayed) co_return;
  client.abort();  // an orderly end would make what was cut off look complete
  server.abort();
  co_await relayed;
}

static anyio::task<> program(const place& own, const place& target) {
  auto listener = co_await anyio::create_tcp_listener({.local_host = own.host, .local_port = own.port});
  for (const auto& local : listener.local_endpoints())
    std::cout << "listening on " << local.to_string() << std::endl;
  complaints complain("forward");
  co_await anyio::serve_until_interrupted(
      listener, [&](anyio::tcp_stream client) { return forward(std::move(client), target); },
      [&](const anyio::error& e) { complain(e); }, {.grace = 2s});
}

int main(int argc, char** argv) {
  const auto words = words_of(argc, argv, help, 2, 2);
  const auto own = parse_place(words[0], "localhost");
  const auto target = parse_place(words[1], "");
  if (!own || !target) show_help(help, false);
  return run_program("forward", program(*own, *target));
}
