// The echo server of echo_coroutine.cpp over TLS. With CLIENT_CA it serves only clients with a certificate
// from that authority.
//
//   g++ -std=c++20 -pthread -I. -DANYIO_NET_OPENSSL examples/tls_echo_server.cpp -lssl -lcrypto -o tls_echo
//   ./tls_echo PORT CERTIFICATE KEY [CLIENT_CA]
//
// or -DANYIO_NET_MBEDTLS and -lmbedtls -lmbedx509 -lmbedcrypto.
#include "anyio_net.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "support/complaints.hpp"
#include "support/program.hpp"

#if defined(ANYIO_NET_OPENSSL)
constexpr auto make_context = anyio::openssl_context;
#elif defined(ANYIO_NET_MBEDTLS)
constexpr auto make_context = anyio::mbedtls_context;
#else
#error "no TLS library: compile with -DANYIO_NET_OPENSSL or -DANYIO_NET_MBEDTLS"
#endif

anyio::task<> echo(anyio::tls_stream client) {
  for (;;) co_await client.send(co_await client.receive_view());
}

anyio::task<> serve(std::uint16_t port, std::string certificate, std::string key, std::string client_ca) {
  anyio::tls_config config = {.certificate_file = certificate, .private_key_file = key};
  if (!client_ca.empty()) {
    config.ca_file = client_ca;
    config.verify_client = anyio::tls_verify::peer;
  }
  const auto context = co_await make_context(config);
  auto tcp = co_await anyio::create_tcp_listener({.local_port = port});
  anyio::tls_listener listener(std::move(tcp), context);
  std::printf("listening on port %d\n", listener.listener().local_port());
  std::fflush(stdout);
  complaints complain("tls_echo_server");
  co_await anyio::serve_until_interrupted(
      listener, echo,
      [&complain](const anyio::error& e, const anyio::ip_endpoint& peer) { complain(e, peer); },
      {.grace = std::chrono::seconds(1)});
}

int main(int argc, char** argv) {
  const auto words = words_of(argc, argv, "tls_echo_server PORT CERTIFICATE KEY [CLIENT_CA]\n", 3, 4);
  const auto port = std::uint16_t(std::atoi(argv[1]));
  return run_program("tls_echo_server", serve(port, argv[2], argv[3], argc == 5 ? argv[4] : ""));
}
