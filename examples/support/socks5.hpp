// The server's side of SOCKS5 (RFC 1928), with user names and passwords (RFC 1929): connects a client to a
// host of its choice. It prints nothing and listens nowhere, so tests/simulation/test_sim_socks5.cpp can run
// it on a simulated network.
#pragma once

#include "anyio_net.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace socks5 {

enum class reply : std::uint8_t {
  ok = 0,
  failure = 1,
  network_unreachable = 3,
  host_unreachable = 4,
  refused = 5,
  unknown_command = 7,
  unknown_address = 8,
};

inline reply reply_for(const anyio::error& e) {
  if (e == std::errc::connection_refused) return reply::refused;
  if (e == std::errc::network_unreachable) return reply::network_unreachable;
  if (e == std::errc::host_unreachable || e == anyio::errc::name_resolution || e == anyio::errc::timed_out)
    return reply::host_unreachable;
  return reply::failure;
}

class proxy {
 public:
  explicit proxy(std::string_view credentials) : credentials_(credentials) {}

  /// A refused client is closed without a reset, which could overtake the answer: it may have sent more
  /// already. A relay that failed ends in a reset, since an orderly end would make what was cut off look
  /// complete.
  anyio::task<> serve(anyio::tcp_stream client) const {
    anyio::buffered_stream in(client);
    if (!co_await anyio::fail_after(std::chrono::seconds(10), greet(in))) co_return co_await client.aclose();
    auto server = co_await anyio::fail_after(std::chrono::minutes(1), connect(in));
    if (!server) {
      co_await client.aclose();
      co_await anyio::raise(server.error());
    }
    const auto passed = co_await as_result(pass(in, client, *server));
    if (passed) co_return;
    client.abort();
    server->abort();
    co_await passed;
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

  static anyio::task<> pass(anyio::buffered_stream& in, anyio::tcp_stream& client,
                            anyio::tcp_stream& server) {
    co_await server.send(in.buffer());  // what the client sent too early
    co_await anyio::relay(client, server, {.idle = std::chrono::minutes(10)});
  }

  static anyio::error violation(const char* what) { return anyio::error(anyio::errc::protocol, 0, what); }

  // The connection that the client asks for, or why it gets none, which it has been told.
  static anyio::task<anyio::result<anyio::tcp_stream>> connect(anyio::buffered_stream& in) {
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
      co_return violation("SOCKS: an unknown kind of address");
    }
    to.port = co_await in.receive_int<std::uint16_t>();
    if (request[0] != 5 || request[1] != 1) {
      co_await answer(in, reply::unknown_command);
      co_return violation("SOCKS: an unknown command");
    }
    auto connecting = name.empty() ? anyio::connect_tcp(to) : anyio::connect_tcp(name, to.port);
    auto made = co_await as_result(anyio::fail_after(std::chrono::seconds(20), std::move(connecting)));
    co_await answer(in, made ? reply::ok : reply_for(made.error()));
    co_return made;
  }

  std::string credentials_;  // "user:password"; empty: everybody may use it
};

}  // namespace socks5
