// TLS streams of the toy engine, and the format of their records on the wire.
#pragma once

#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "toy_tls.hpp"

namespace support {

// A separate copy in each file, as faces.hpp explains.
namespace {

constexpr std::string_view toy_name = "toy.example";

[[maybe_unused]] std::shared_ptr<toy_context> toy_server() {
  return std::make_shared<toy_context>(std::string(toy_name));
}
[[maybe_unused]] std::shared_ptr<toy_context> toy_client() { return std::make_shared<toy_context>(); }

[[maybe_unused]] anyio::tls_options toy_options(bool standard_compatible = true) {
  anyio::tls_options options;
  options.server_name = toy_name;
  options.standard_compatible = standard_compatible;
  return options;
}

/// Performs the handshake over two connected streams; returns empty ones if that fails.
template <class Stream>
std::pair<anyio::tls_stream, anyio::tls_stream> shake_hands(
    std::unique_ptr<Stream> client, std::unique_ptr<Stream> server, anyio::tls_options options,
    std::shared_ptr<anyio::tls_context> client_context, std::shared_ptr<anyio::tls_context> server_context) {
  std::pair<anyio::tls_stream, anyio::tls_stream> both;
  int ended = 0;
  auto one = anyio::tls_stream::wrap_client(std::move(client), std::move(client_context), options);
  auto other = anyio::tls_stream::wrap_server(std::move(server), std::move(server_context), options);
  struct arrival {
    anyio::tls_stream* to;
    int* ended;
    void operator()(anyio::result<anyio::tls_stream> r) const {
      CHECK(r);
      if (r) *to = *std::move(r);
      ++*ended;
    }
  };
  one.start(arrival{&both.first, &ended});
  other.start(arrival{&both.second, &ended});
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (ended != 2 && std::chrono::steady_clock::now() < limit)
    anyio::loop::current().run_once(std::chrono::milliseconds(100));
  CHECK(ended == 2);
  return both;
}

template <class Stream>
std::pair<anyio::tls_stream, anyio::tls_stream> shake_hands(std::unique_ptr<Stream> client,
                                                            std::unique_ptr<Stream> server,
                                                            anyio::tls_options options = toy_options()) {
  return shake_hands(std::move(client), std::move(server), options, toy_client(), toy_server());
}

/// Two ends over memory.
[[maybe_unused]] std::pair<anyio::tls_stream, anyio::tls_stream> toy_pair(
    std::size_t capacity = 65536, anyio::tls_options options = toy_options()) {
  auto [a, b] = anyio::create_memory_stream_pair(capacity);
  return shake_hands(std::make_unique<anyio::memory_stream>(std::move(a)),
                     std::make_unique<anyio::memory_stream>(std::move(b)), options);
}

/// Two ends over sockets.
[[maybe_unused]] std::pair<anyio::tls_stream, anyio::tls_stream> toy_socket_pair(
    anyio::tls_options options = toy_options()) {
  auto pair = anyio::create_unix_stream_pair().value();
  return shake_hands(std::make_unique<anyio::unix_stream>(std::move(pair.first)),
                     std::make_unique<anyio::unix_stream>(std::move(pair.second)), options);
}

/// A record in its wire format, for a peer that the test plays.
constexpr char toy_key = 0x35 ^ 0x5c;
[[maybe_unused]] std::string toy_bytes(toy_record kind, std::string_view content = {}) {
  std::string hidden(content);
  std::uint8_t sum = 0;
  for (char& c : hidden) {
    if (kind == toy_record::data) c = static_cast<char>(c ^ toy_key);
    sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(c));
  }
  const char head[] = {static_cast<char>(kind), static_cast<char>(content.size() >> 8),
                       static_cast<char>(content.size() & 255), static_cast<char>(sum)};
  return std::string(head, sizeof head) + hidden;
}
[[maybe_unused]] std::string toy_client_hello(std::string_view name = toy_name) {
  return toy_bytes(toy_record::hello, "\x35" + std::string(name));
}
[[maybe_unused]] std::string toy_server_hello(std::string_view name = toy_name) {
  return toy_bytes(toy_record::hello, "\x5c" + std::string(name));
}

/// The records contained in bytes: a letter for each kind, and the data in brackets, "HD(text)C"; "?" for a
/// truncated rest.
[[maybe_unused]] std::string toy_records(std::string_view wire) {
  std::string text;
  while (!wire.empty()) {
    const auto number = [&](std::size_t i) { return static_cast<std::uint8_t>(wire[i]); };
    const std::size_t size = wire.size() < 4 ? 0 : number(1) * std::size_t{256} + number(2);
    if (wire.size() < 4 + size) return text + '?';
    text += wire.front();
    if (wire.front() == static_cast<char>(toy_record::data)) {
      text += '(';
      for (const char c : wire.substr(4, size)) text += static_cast<char>(c ^ toy_key);
      text += ')';
    }
    wire.remove_prefix(4 + size);
  }
  return text;
}

}  // namespace
}  // namespace support
