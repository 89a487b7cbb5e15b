// A port forwarder: connects each client to a target, in both directions, including half-closes.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/forward.cpp -o forward
//   ./forward 8080 example.org:80
#include "anyio_net.hpp"

#include <charconv>
#include <csignal>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "support/complaints.hpp"

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
  co_await anyio::relay(client, server);
}

static anyio::task<> program(const place& own, const place& target) {
  auto interrupts = co_await anyio::signal_receiver::open(SIGINT, SIGTERM);
  auto listener = co_await anyio::create_tcp_listener({.local_host = own.host, .local_port = own.port});
  for (const auto& local : listener.local_endpoints())
    std::cout << "listening on " << local.to_string() << std::endl;

  complaints complain("forward");
  anyio::task_group group;
  group.start_soon(
      listener.serve([&](anyio::tcp_stream client) { return forward(std::move(client), target); },
                     [&](const anyio::error& e) { complain(e); }));
  co_await interrupts.receive();
  listener.close();
  co_await anyio::when_any(anyio::move_on_after(2s, group.join()), interrupts.receive());
}

int main(int argc, char** argv) {
  if (argc == 2 && (argv[1] == std::string_view("--help") || argv[1] == std::string_view("-h")))
    return std::cout << help, 0;
  const auto own = argc == 3 ? parse_place(argv[1], "localhost") : std::nullopt;
  const auto target = argc == 3 ? parse_place(argv[2], "") : std::nullopt;
  if (!own || !target) return std::cerr << help, 2;
  try {
    anyio::run(program(*own, *target));
  } catch (const anyio::exception& e) {
    std::cerr << "forward: " << e.what() << '\n';
    return 1;
  }
}
