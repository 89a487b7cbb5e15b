// A SOCKS5 proxy (RFC 1928) for TCP connections to names, IPv4 and IPv6 addresses, optionally with a user
// name and a password (RFC 1929).
//
//   g++ -std=c++20 -O2 -pthread -I. examples/socks5_proxy.cpp -o socks5_proxy
//   ./socks5_proxy 1080
//   curl --proxy socks5h://localhost:1080 http://example.org/
#include "anyio_net.hpp"

#include <array>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "support/complaints.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: socks5_proxy PORT [USER:PASSWORD]\n"
    "\n"
    "Connects SOCKS5 clients of this machine to wherever they ask for, if they know USER and PASSWORD. PORT "
    "is\n"
    "where it listens (0: any free one). Ctrl-C ends it and all connections.\n"
    "\n"
    "exit code: 0 after Ctrl-C, 1 if it cannot listen, 2 for a wrong command line\n";

enum class reply : std::uint8_t {
  ok = 0,
  failure = 1,
  network_unreachable = 3,
  host_unreachable = 4,
  refused = 5,
  unknown_command = 7,
  unknown_address = 8,
};

static reply reply_for(const anyio::error& e) {
  if (e == std::errc::connection_refused) return reply::refused;
  if (e == std::errc::network_unreachable) return reply::network_unreachable;
  if (e == std::errc::host_unreachable || e == anyio::errc::name_resolution || e == anyio::errc::timed_out)
    return reply::host_unreachable;
  return reply::failure;
}

class proxy {
 public:
  explicit proxy(std::string_view credentials) : credentials_(credentials) {}

  anyio::task<> serve(anyio::tcp_stream client) const {
    anyio::buffered_stream in(client);
    if (!co_await anyio::fail_after(10s, greet(in))) co_return;
    auto server = co_await anyio::fail_after(1min, connect(in));
    if (!server) co_return;
    co_await server->send(in.buffer());  // bytes that the client sent too early
    co_await anyio::relay(client, *server, {.idle = 10min});
  }

 private:
  static anyio::task<std::string> receive_text(anyio::buffered_stream& in) {
    const auto size = co_await in.receive_int<std::uint8_t>();
    co_return co_await in.receive_exactly(size);
  }

  // Whether the client may go on.
  anyio::task<bool> greet(anyio::buffered_stream& in) const {
    if (co_await in.receive_int<std::uint8_t>() != 5) co_return false;
    const char method = credentials_.empty() ? '\0' : '\2';
    const std::string methods = co_await receive_text(in);
    const bool offered = methods.find(method) != std::string::npos;
    const std::array<char, 2> choice{'\5', offered ? method : '\xff'};
    co_await in.send(choice);
    if (!offered || credentials_.empty()) co_return offered;

    if (co_await in.receive_int<std::uint8_t>() != 1) co_return false;
    const std::string user = co_await receive_text(in);
    const std::string password = co_await receive_text(in);
    const bool known = user + ':' + password == credentials_;
    const std::array<char, 2> verdict{'\1', known ? '\0' : '\1'};
    co_await in.send(verdict);
    co_return known;
  }

  static anyio::task<> answer(anyio::buffered_stream& in, reply code) {
    const std::array<char, 10> message{'\5', static_cast<char>(code), 0, 1};  // the rest is an address, zero
    co_await in.send(message);
  }

  // The connection that the client asks for, empty if it gets none.
  static anyio::task<std::optional<anyio::tcp_stream>> connect(anyio::buffered_stream& in) {
    const std::string request =
        co_await in.receive_exactly(4);  // version, command, reserved, kind of address
    std::string name;
    anyio::ip_endpoint to;
    if (request[3] == 1) {
      to.address = anyio::ip_address::v4(co_await in.receive_int<std::uint32_t>());
    } else if (request[3] == 3) {
      name = co_await receive_text(in);
    } else if (request[3] == 4) {
      std::array<std::byte, 16> bytes;
      co_await in.receive_exactly(bytes);
      to.address = anyio::ip_address::v6(bytes);
    } else {
      co_await answer(in, reply::unknown_address);
      co_return std::nullopt;
    }
    to.port = co_await in.receive_int<std::uint16_t>();
    if (request[0] != 5 || request[1] != 1) {
      co_await answer(in, reply::unknown_command);
      co_return std::nullopt;
    }
    auto connecting = name.empty() ? anyio::connect_tcp(to) : anyio::connect_tcp(name, to.port);
    auto made = co_await as_result(anyio::fail_after(20s, std::move(connecting)));
    co_await answer(in, made ? reply::ok : reply_for(made.error()));
    if (!made) co_await anyio::raise(made.error());
    co_return *std::move(made);
  }

  std::string credentials_;  // "user:password"; empty: every client may use it
};

static anyio::task<> program(std::uint16_t port, std::string_view credentials) {
  auto interrupts = co_await anyio::signal_receiver::open(SIGINT, SIGTERM);
  auto listener = co_await anyio::create_tcp_listener({.local_host = "localhost", .local_port = port});
  std::cout << "listening on port " << listener.local_port() << std::endl;
  const proxy p(credentials);
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
