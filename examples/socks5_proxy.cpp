// A SOCKS5 proxy (RFC 1928) for TCP connections to names, IPv4 and IPv6 addresses, optionally with a user
// name and a password (RFC 1929).
//
//   g++ -std=c++20 -O2 -pthread -I. examples/socks5_proxy.cpp -o socks5_proxy
//   ./socks5_proxy 1080
//   curl --proxy socks5h://localhost:1080 http://example.org/
#include "anyio_net.hpp"

#include <charconv>
#include <csignal>
#include <cstdint>
#include <iostream>
#include <string_view>
#include <utility>

#include "support/complaints.hpp"
#include "support/socks5.hpp"

static constexpr std::string_view help =
    "usage: socks5_proxy PORT [USER:PASSWORD]\n"
    "\n"
    "Connects SOCKS5 clients of this machine to wherever they ask for, if they know USER and PASSWORD. PORT "
    "is\n"
    "where it listens (0: any free one). Ctrl-C ends it and all connections.\n"
    "\n"
    "exit code: 0 after Ctrl-C, 1 if it cannot listen, 2 for a wrong command line\n";

static anyio::task<> program(std::uint16_t port, std::string_view credentials) {
  auto interrupts = co_await anyio::signal_receiver::open(SIGINT, SIGTERM);
  auto listener = co_await anyio::create_tcp_listener({.local_host = "localhost", .local_port = port});
  std::cout << "listening on port " << listener.local_port() << std::endl;
  const socks5::proxy p(credentials);
  complaints complain("socks5_proxy");
  co_await anyio::when_any(
      listener.serve([&](anyio::tcp_stream client) { return p.serve(std::move(client)); },
                     [&](const anyio::error& e) { complain(e); }),
      interrupts.receive());
}

int main(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  const std::string_view credentials = argc > 2 ? argv[2] : "";
  if (word == "--help" || word == "-h") return std::cout << help, 0;
  std::uint16_t port = 0;
  const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), port);
  const bool parsed = !word.empty() && failure == std::errc() && end == word.data() + word.size();
  const bool usable = argc == 2 || (argc == 3 && credentials.find(':') != std::string_view::npos);
  if (!parsed || !usable) return std::cerr << help, 2;
  try {
    anyio::run(program(port, credentials));
  } catch (const anyio::exception& e) {
    std::cerr << "socks5_proxy: " << e.what() << '\n';
    return 1;
  }
}
