// Fetches a page over TLS and prints its body. The server's certificate must be for HOST, and from an
// authority that the system trusts, or one in FILE.
//
//   g++ -std=c++20 -pthread -I. -DANYIO_NET_OPENSSL examples/https_client.cpp -lssl -lcrypto -o https_client
//   ./https_client [--ca FILE] HOST PORT PATH
//
// or -DANYIO_NET_MBEDTLS and -lmbedtls -lmbedx509 -lmbedcrypto.
#include "anyio_net.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "support/http_answer.hpp"
#include "support/printable.hpp"
#include "support/program.hpp"

using namespace std::chrono_literals;

#if defined(ANYIO_NET_OPENSSL)
constexpr auto make_context = anyio::openssl_context;
#elif defined(ANYIO_NET_MBEDTLS)
constexpr auto make_context = anyio::mbedtls_context;
#else
#error "no TLS library: compile with -DANYIO_NET_OPENSSL or -DANYIO_NET_MBEDTLS"
#endif

constexpr std::uint64_t longest_page = 1 << 30;

/// Prints the page and returns the status, such as 200.
anyio::task<int> fetch(std::string ca, std::string host, std::uint16_t port, std::string path) {
  constexpr std::string_view protocols[] = {"http/1.1"};
  const auto context = co_await make_context({.ca_file = ca, .alpn = protocols});
  auto server = co_await anyio::connect_tls(host, port, context);

  std::string request = "GET " + path + " HTTP/1.1\r\nHost: ";
  request += host.find(':') == host.npos ? host : "[" + host + "]";
  if (port != 443) request += ":" + std::to_string(port);
  request += "\r\nUser-Agent: anyio_net\r\nConnection: close\r\n\r\n";
  co_await server.send(request);
  anyio::buffered_stream in(server);
  const auto answer = co_await http::receive_answer(in);
  // A page without a length ends with the stream. If an attacker cuts the connection there is no
  // close_notify, so the end is an error, and half a page is not taken for a whole one.
  http::page page(stdout, longest_page);
  co_await http::receive_page(answer, in, page);
  co_await server.aclose();
  co_return answer.status();
}

anyio::task<int> program(std::string ca, std::string host, std::uint16_t port, std::string path) {
  const int status = co_await anyio::fail_after(1min, fetch(ca, host, port, path));
  if (status >= 300) {
    std::fprintf(stderr, "https_client: the server answered with status %d\n", status);
  } else if (std::fflush(stdout) != 0) {
    std::perror("https_client");
  } else {
    co_return 0;
  }
  co_return 1;
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
  return run_program("https_client", program(ca, words[0], port, words[2]));
}
