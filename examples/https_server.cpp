// An HTTP/1.1 server over TLS: answers requests for / and below /pages/ with the settings of their
// connection. See https_client.cpp for a client, or: curl --cacert CA https://localhost:PORT/
//
//   g++ -std=c++20 -pthread -I. -DANYIO_NET_OPENSSL examples/https_server.cpp -lssl -lcrypto -o https_server
//   ./https_server PORT CERTIFICATE KEY
//
// or -DANYIO_NET_MBEDTLS and -lmbedtls -lmbedx509 -lmbedcrypto.
#include "anyio_net.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "support/complaints.hpp"
#include "support/http_head.hpp"
#include "support/program.hpp"

using namespace std::chrono_literals;

#if defined(ANYIO_NET_OPENSSL)
constexpr auto make_context = anyio::openssl_context;
#elif defined(ANYIO_NET_MBEDTLS)
constexpr auto make_context = anyio::mbedtls_context;
#else
#error "no TLS library: compile with -DANYIO_NET_OPENSSL or -DANYIO_NET_MBEDTLS"
#endif

/// The answer, and whether another request may follow.
struct answer {
  std::string text;
  bool keep = false;
};

answer compose(std::string_view status, std::string_view page, bool with_body, std::string_view connection) {
  answer a{"HTTP/1.1 ", connection != "close"};
  a.text.append(status);
  a.text.append("\r\nContent-Type: text/plain\r\nContent-Length: ").append(std::to_string(page.size()));
  if (status.starts_with("405")) a.text.append("\r\nAllow: GET, HEAD");
  if (!connection.empty()) a.text.append("\r\nConnection: ").append(connection);
  a.text.append("\r\n\r\n");
  if (with_body) a.text.append(page);
  return a;
}

answer answer_to(std::string_view head, const anyio::tls_info& tls) {
  http::request r;
  const int refused = r.read(head);
  const bool is_head = r.method() == "HEAD";
  if (refused == 505) return compose("505 HTTP Version Not Supported", "", true, "close");
  if (refused == 501) return compose("501 Not Implemented", "", true, "close");
  if (refused != 0) return compose("400 Bad Request", "", true, "close");

  // Bodies are not read here, so no request can follow one.
  const bool has_body = r.body_size().value_or(0) != 0 || r.body_coding() != http::coding::none;
  const bool keep = !has_body && r.keeps_connection();
  const std::string_view connection = !keep ? "close" : r.is_http_1_0() ? "keep-alive" : "";
  if (r.method() != "GET" && !is_head)
    return compose("405 Method Not Allowed", "only GET and HEAD\n", true, connection);
  if (r.target() != "/" && !r.target().starts_with("/pages/"))
    return compose("404 Not Found", "no such page\n", !is_head, connection);

  std::string page;
  for (const std::string_view piece :
       {std::string_view("method: "), std::string_view(r.method()), std::string_view("\npath: "),
        std::string_view(r.target()), std::string_view("\nTLS version: "), std::string_view(tls.version),
        std::string_view("\ncipher: "), std::string_view(tls.cipher), std::string_view("\n")}) {
    page.append(piece);
  }
  return compose("200 OK", page, !is_head, connection);
}

anyio::task<> talk(anyio::tls_stream client) {
  const auto tls = client.info();
  anyio::buffered_stream in(client);
  for (bool more = true; more;) {
    const auto head = co_await anyio::as_result(anyio::fail_after(30s, in.receive_until("\r\n\r\n", 16384)));
    // A client may close at any point, since an incomplete request has no end and is not answered.
    if (!head && head.error() != anyio::errc::delimiter_not_found) break;
    answer a =
        head ? answer_to(*head, tls) : compose("431 Request Header Fields Too Large", "", true, "close");
    more = a.keep;
    co_await anyio::fail_after(30s, client.send(a.text));
  }
  co_await client.aclose();
}

anyio::task<> serve(std::uint16_t port, std::string certificate, std::string key) {
  constexpr std::string_view protocols[] = {"http/1.1"};
  const auto context =
      co_await make_context({.certificate_file = certificate, .private_key_file = key, .alpn = protocols});
  auto tcp = co_await anyio::create_tcp_listener({.local_port = port});
  anyio::tls_listener listener(std::move(tcp), context);
  std::printf("listening on port %d\n", listener.listener().local_port());
  std::fflush(stdout);
  // Failed handshakes are reported here too.
  complaints complain("https_server");
  co_await anyio::serve_until_interrupted(
      listener, talk,
      [&complain](const anyio::error& e, const anyio::ip_endpoint& peer) { complain(e, peer); },
      {.max_connections = 1000, .grace = 1s, .max_handshakes = 1000});
}

int main(int argc, char** argv) {
  const auto words = words_of(argc, argv, "https_server PORT CERTIFICATE KEY\n", 3, 3);
  return run_program("https_server", serve(std::uint16_t(std::atoi(argv[1])), argv[2], argv[3]));
}
