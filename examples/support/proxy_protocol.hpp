// The PROXY protocol, versions 1 and 2, with which a proxy tells a server who its client is: a header in
// front of the client's bytes (the specification is HAProxy's doc/proxy-protocol.txt). A server accepts it
// only from proxies: anybody else could claim any address.
#pragma once

#include "anyio_net.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace proxy_protocol {

enum class version { v1, v2 };

/// Where the client's connection came from, and the address that it was made to.
struct addresses {
  anyio::ip_endpoint source;
  anyio::ip_endpoint destination;
};

namespace detail {

using namespace std::string_view_literals;

inline constexpr std::string_view signature = "\r\n\r\n\0\r\nQUIT\n"sv;  // of version 2
inline constexpr std::size_t longest_line = 107;                         // of version 1, with CR and LF
inline constexpr char tcp4 = 0x11, tcp6 = 0x21;

inline anyio::error malformed(const char* what) { return {anyio::errc::protocol, 0, what}; }

inline void append_number(std::string& to, std::size_t n) {  // 16 bits, in network order
  to += static_cast<char>(n >> 8);
  to += static_cast<char>(n);
}

inline void append_address(std::string& to, const anyio::ip_address& address) {
  for (const std::byte b : address.bytes()) to += static_cast<char>(b);
}

// Without the scope, which means nothing to another machine.
inline std::string text_of(const anyio::ip_address& address) {
  if (address.is_v4()) return address.to_string();
  return anyio::ip_address::v6(address.bytes().first<16>()).to_string();
}

inline std::string_view next_word(std::string_view& line) {
  const std::size_t space = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, space);
  line.remove_prefix(std::min(space + 1, line.size()));
  return word;
}

inline std::optional<anyio::ip_address> parse_address(std::string_view word, bool v4) {
  const auto address = anyio::ip_address::parse(word);
  if (!address || address->is_v4() != v4 || address->scope_id() != 0) return std::nullopt;
  return *address;
}

inline std::optional<std::uint16_t> parse_port(std::string_view word) {
  std::uint16_t port = 0;
  const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), port);
  if (word.empty() || failure != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return port;
}

// "TCP4 192.0.2.1 192.0.2.2 1234 80"
inline anyio::result<std::optional<addresses>> parse_line(std::string_view line) {
  const std::string_view family = next_word(line);
  if (family == "UNKNOWN") return std::optional<addresses>();
  if (family != "TCP4" && family != "TCP6") return malformed("PROXY protocol: unknown family");
  const auto source = parse_address(next_word(line), family == "TCP4");
  const auto destination = parse_address(next_word(line), family == "TCP4");
  const auto source_port = parse_port(next_word(line));
  const auto destination_port = parse_port(line);
  if (!source || !destination || !source_port || !destination_port)
    return malformed("PROXY protocol: malformed address");
  return std::optional<addresses>({{*source, *source_port}, {*destination, *destination_port}});
}

inline anyio::ip_address address_at(std::string_view bytes, bool v4) {
  std::array<std::byte, 16> copy{};
  for (std::size_t i = 0; i < (v4 ? 4 : 16); ++i) copy[i] = static_cast<std::byte>(bytes[i]);
  if (!v4) return anyio::ip_address::v6(copy);
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < 4; ++i) number = number << 8 | std::to_integer<std::uint32_t>(copy[i]);
  return anyio::ip_address::v4(number);
}

inline std::uint16_t number_at(std::string_view bytes) {
  return static_cast<std::uint16_t>(static_cast<unsigned char>(bytes[0]) << 8 |
                                    static_cast<unsigned char>(bytes[1]));
}

// What follows the head of version 2: addresses and ports, then extensions (TLV), which are ignored.
inline anyio::result<std::optional<addresses>> parse_block(char command, char family,
                                                           std::string_view block) {
  if (command == 0x20)
    return std::optional<addresses>();  // LOCAL: the proxy's own connection, a health check
  if (command != 0x21) return malformed("PROXY protocol: unknown command");
  if (family != tcp4 && family != tcp6) return std::optional<addresses>();  // UNIX sockets, UDP, unknown
  const bool v4 = family == tcp4;
  const std::size_t size = v4 ? 4 : 16;
  if (block.size() < 2 * size + 4) return malformed("PROXY protocol: the header is too short for its family");
  return std::optional<addresses>(
      {{address_at(block, v4), number_at(block.substr(2 * size))},
       {address_at(block.substr(size), v4), number_at(block.substr(2 * size + 2))}});
}

}  // namespace detail

/// The header that says so; without addresses one that tells nothing of the client.
inline std::string header(version v, const std::optional<addresses>& a) {
  const bool known = a && a->source.address.is_v4() == a->destination.address.is_v4();
  const bool v4 = known && a->source.address.is_v4();
  if (v == version::v1) {
    if (!known) return "PROXY UNKNOWN\r\n";
    return (v4 ? "PROXY TCP4 " : "PROXY TCP6 ") + detail::text_of(a->source.address) + " " +
           detail::text_of(a->destination.address) + " " + std::to_string(a->source.port) + " " +
           std::to_string(a->destination.port) + "\r\n";
  }
  std::string text(detail::signature);
  text += known ? '\x21' : '\x20';
  text += !known ? '\0' : v4 ? detail::tcp4 : detail::tcp6;
  detail::append_number(text, !known ? 0 : v4 ? 12 : 36);
  if (!known) return text;
  detail::append_address(text, a->source.address);
  detail::append_address(text, a->destination.address);
  detail::append_number(text, a->source.port);
  detail::append_number(text, a->destination.port);
  return text;
}

/// Receives a header of either version; bytes after it stay in the stream. Gives nothing if the header tells
/// nothing of the client. Bytes that are no header raise `protocol`. A peer that is silent is waited for.
inline anyio::task<std::optional<addresses>> receive_header(anyio::buffered_stream& in) {
  const std::string begin = co_await in.receive_exactly(detail::signature.size());
  if (begin == detail::signature) {
    const std::string head = co_await in.receive_exactly(4);
    const std::string block =
        co_await in.receive_exactly(detail::number_at(std::string_view(head).substr(2)));
    co_return co_await detail::parse_block(head[0], head[1], block);
  }
  if (!begin.starts_with("PROXY ")) co_await anyio::raise(detail::malformed("PROXY protocol: no header"));
  const std::size_t most = detail::longest_line - begin.size();
  const std::string rest = co_await in.receive_until("\r\n", most);
  if (rest.size() + 2 > most)
    co_await anyio::raise(detail::malformed("PROXY protocol: the line is too long"));
  const std::string line = begin.substr(6) + rest;
  co_return co_await detail::parse_line(line);
}

}  // namespace proxy_protocol
