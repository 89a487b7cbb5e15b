// A port forwarder: connects each client to a target, in both directions, including half-closes.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/forward.cpp -o forward
//   ./forward 8080 example.org:80
//   ./forward --send-proxy v2 8080 localhost:8081     # tells the server who the client is
#include "anyio_net.hpp"

#include <charconv>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "support/complaints.hpp"
#include "support/program.hpp"
#include "support/proxy_protocol.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: forward [--accept-proxy] [--send-proxy v1|v2] [HOST:]PORT TARGET_HOST:TARGET_PORT\n"
    "\n"
    "Listens on PORT (0: any free one) of HOST, by default only for this machine, and connects each client\n"
    "to TARGET. Ctrl-C stops accepting, and ends the connections after two seconds; a second Ctrl-C ends\n"
    "them at once.\n"
    "\n"
    "--send-proxy v1|v2  begin each connection to TARGET with a header of the PROXY protocol, which tells\n"
    "                    the address of the client\n"
    "--accept-proxy      clients are proxies that begin with such a header, of either version; it is taken\n"
    "                    away, and its addresses go into the header that is sent, if one is\n"
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

// Of the PROXY protocol.
struct headers {
  bool accept = false;
  std::optional<proxy_protocol::version> send;
};

static anyio::task<> forward(anyio::tcp_stream client, const place& target, headers use) {
  anyio::buffered_stream in(client);
  std::optional<proxy_protocol::addresses> addresses({client.remote_endpoint(), client.local_endpoint()});
  if (use.accept)
    addresses = co_await anyio::fail_after(10s, proxy_protocol::receive_header(in), "PROXY header");
  anyio::tcp_stream server = co_await anyio::connect_tcp(target.host, target.port);
  if (use.send) co_await server.send(proxy_protocol::header(*use.send, addresses));
  co_await server.send(in.buffer());  // what came with the header
  const auto relayed = co_await anyio::as_result(anyio::relay(client, server));
  if (relayed) co_return;
  client.abort();  // an orderly end would make what was cut off look complete
  server.abort();
  co_await relayed;
}

static anyio::task<> announce(const anyio::tcp_listener& listener) {
  for (const auto& local : listener.local_endpoints())
    std::cout << "listening on " << local.to_string() << std::endl;
  co_return;
}

static anyio::task<> program(const place& own, const place& target, headers use) {
  auto listener = co_await anyio::create_tcp_listener({.local_host = own.host, .local_port = own.port});
  complaints complain("forward");
  auto serving = anyio::serve_until_interrupted(
      listener, [&](anyio::tcp_stream client) { return forward(std::move(client), target, use); },
      [&](const anyio::error& e) { complain(e); }, {.grace = 2s});
  co_await anyio::when_all(std::move(serving),
                           announce(listener));  // Ctrl-C works once the address is printed
}

int main(int argc, char** argv) {
  auto words = words_of(argc, argv, help, 2, 5);
  headers use;
  while (words.size() > 2 && words[0].starts_with("--")) {
    const bool is_v1 = words[1] == "v1";
    if (words[0] == "--accept-proxy") {
      use.accept = true;
    } else if (words[0] == "--send-proxy" && (is_v1 || words[1] == "v2")) {
      use.send = is_v1 ? proxy_protocol::version::v1 : proxy_protocol::version::v2;
      words.erase(words.begin());
    } else {
      show_help(help, false);
    }
    words.erase(words.begin());
  }
  if (words.size() != 2) show_help(help, false);
  const auto own = parse_place(words[0], "localhost");
  const auto target = parse_place(words[1], "");
  if (!own || !target) show_help(help, false);
  return run_program("forward", program(*own, *target, use));
}
