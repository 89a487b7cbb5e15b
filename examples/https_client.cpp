// Fetches a page over TLS and prints its body. The server's certificate must be for HOST, and from an
// authority that the system trusts, or one in FILE.
//
//   g++ -std=c++20 -O2 -pthread -I. -DANYIO_NET_OPENSSL examples/https_client.cpp -lssl -lcrypto -o
//   https_client
//   ./https_client [--ca FILE] HOST PORT PATH
//
// or -DANYIO_NET_MBEDTLS and -lmbedtls -lmbedx509 -lmbedcrypto.
#include "anyio_net.hpp"

#include <strings.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

using namespace std::chrono_literals;

#if defined(ANYIO_NET_OPENSSL)
constexpr auto make_context = anyio::openssl_context;
#elif defined(ANYIO_NET_MBEDTLS)
constexpr auto make_context = anyio::mbedtls_context;
#else
#error "no TLS library: compile with -DANYIO_NET_OPENSSL or -DANYIO_NET_MBEDTLS"
#endif

/// The server does not speak HTTP as it should.
anyio::error malformed(const char* what) { return {anyio::errc::broken_resource, EPROTO, what}; }

/// A field of a head, if it is there.
std::optional<std::string_view> field(std::string_view head, std::string_view name) {
  while (head.find("\r\n") != head.npos) {
    head.remove_prefix(head.find("\r\n") + 2);
    std::string_view line = head.substr(0, head.find("\r\n"));
    if (line.size() <= name.size() || line[name.size()] != ':') continue;
    if (::strncasecmp(line.data(), name.data(), name.size()) != 0) continue;
    line.remove_prefix(name.size() + 1);
    while (line.starts_with(' ') || line.starts_with('\t')) line.remove_prefix(1);
    while (line.ends_with(' ') || line.ends_with('\t')) line.remove_suffix(1);
    return line;
  }
  return {};
}

std::optional<std::uint64_t> number(std::string_view text, int base) {
  std::uint64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  const bool all = end == text.data() + text.size();
  return failure == std::errc() && all ? std::optional(value) : std::nullopt;
}

void print(std::string_view bytes) { std::fwrite(bytes.data(), 1, bytes.size(), stdout); }

anyio::task<> print_bytes(anyio::buffered_stream& from, std::uint64_t count) {
  while (count != 0) {
    const auto piece = co_await from.receive(std::size_t(std::min<std::uint64_t>(count, 65536)));
    print(piece);
    count -= piece.size();
  }
}

anyio::task<> print_chunks(anyio::buffered_stream& from) {
  for (;;) {
    std::string line = co_await from.receive_line();
    line.resize(std::min(line.size(), line.find_first_of("; \t")));  // extensions may follow
    const auto size = number(line, 16);
    if (!size) co_await anyio::raise(malformed("the size of a chunk"));
    if (*size == 0) break;
    co_await print_bytes(from, *size);
    const auto end = co_await from.receive_line();
    if (!end.empty()) co_await anyio::raise(malformed("the end of a chunk"));
  }
  for (;;) {
    const auto trailer = co_await from.receive_line();
    if (trailer.empty()) break;
  }
}

/// A page without a length ends with the stream. If somebody cuts the connection there is no close_notify, so
/// the end is an error then, and half a page is not taken for a whole one.
anyio::task<> print_rest(anyio::buffered_stream& from) {
  for (;;) {
    const auto piece = co_await anyio::as_result(from.receive());
    if (!piece && piece.error() == anyio::errc::end_of_stream) co_return;
    if (!piece) co_await anyio::raise(piece.error());
    print(*piece);
  }
}

/// Prints the page and gives the status, such as 200.
anyio::task<std::uint64_t> fetch(std::string ca, std::string host, std::uint16_t port, std::string path) {
  constexpr std::string_view protocols[] = {"http/1.1"};
  const auto context = co_await make_context({.ca_file = ca, .alpn = protocols});
  auto server = co_await anyio::connect_tls(host, port, context);

  std::string request = "GET " + path + " HTTP/1.1\r\nHost: ";
  request += host.find(':') == host.npos ? host : "[" + host + "]";
  if (port != 443) request += ":" + std::to_string(port);
  request += "\r\nUser-Agent: anyio_net\r\nConnection: close\r\n\r\n";
  co_await server.send(request);
  anyio::buffered_stream in(server);
  std::string head;
  std::optional<std::uint64_t> status;
  do {
    head = co_await in.receive_until("\r\n\r\n", 65536);
    status = head.starts_with("HTTP/1.") && head.size() > 12 ? number(head.substr(9, 3), 10) : std::nullopt;
    if (!status) co_await anyio::raise(malformed("the status line"));
  } while (*status < 200);  // "continue" and the like: the answer proper follows

  const auto encoding = field(head, "Transfer-Encoding");
  const auto length = field(head, "Content-Length");
  if (*status == 204 || *status == 304) {
    // has no body
  } else if (encoding) {
    if (*encoding != "chunked") co_await anyio::raise(malformed("the Transfer-Encoding"));
    co_await print_chunks(in);
  } else if (length) {
    const auto count = number(*length, 10);
    if (!count) co_await anyio::raise(malformed("the Content-Length"));
    co_await print_bytes(in, *count);
  } else {
    co_await print_rest(in);
  }
  co_await server.aclose();
  co_return *status;
}

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  std::string ca;
  if (words.size() > 2 && words[0] == "--ca") {
    ca = words[1];
    words.erase(words.begin(), words.begin() + 2);
  }
  if (words.size() != 3) return std::fputs("https_client [--ca FILE] HOST PORT PATH\n", stderr), 1;

  const auto port = std::uint16_t(std::atoi(words[1].c_str()));
  const auto status =
      anyio::run(anyio::as_result(anyio::fail_after(1min, fetch(ca, words[0], port, words[2]))));
  if (!status) {
    std::fprintf(stderr, "https_client: %s\n", status.error().message().c_str());
  } else if (*status >= 300) {
    std::fprintf(stderr, "https_client: the server answered with status %d\n", int(*status));
  } else if (std::fflush(stdout) != 0) {
    std::perror("https_client");
  } else {
    return 0;
  }
  return 1;
}
