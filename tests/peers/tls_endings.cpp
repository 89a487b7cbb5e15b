// Prints how each TLS connection ends: `tls_endings strict|lenient CERTIFICATE KEY`. Answers every connection
// with "ready", and prints a line at its end: the number of bytes received, and the error after them.
#include "anyio_net.hpp"

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#if defined(ANYIO_NET_OPENSSL)
constexpr auto make_context = anyio::openssl_context;
#elif defined(ANYIO_NET_MBEDTLS)
constexpr auto make_context = anyio::mbedtls_context;
#else
#error "no TLS library: compile with -DANYIO_NET_OPENSSL or -DANYIO_NET_MBEDTLS"
#endif

anyio::task<> count(anyio::tls_stream client) {
  co_await client.send("ready\n");
  std::size_t total = 0;
  for (;;) {
    const auto bytes = co_await anyio::as_result(client.receive_view());
    if (!bytes) {
      const auto how = to_string(bytes.error().code());
      std::printf("%d bytes, then %.*s\n", int(total), int(how.size()), how.data());
      std::fflush(stdout);
      co_return;
    }
    total += bytes->size();
  }
}

void complain(const anyio::error& e) { std::fprintf(stderr, "%s\n", e.message().c_str()); }

anyio::task<> serve(bool strict, std::string certificate, std::string key) {
  const auto context = co_await make_context({.certificate_file = certificate, .private_key_file = key});
  auto tcp = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  anyio::tls_listener listener(std::move(tcp), context, {.standard_compatible = strict});
  std::printf("listening on port %d\n", listener.listener().local_port());
  std::fflush(stdout);
  co_await listener.serve(count, complain);
}

int main(int argc, char** argv) {
  if (argc != 4) return std::fputs("tls_endings strict|lenient CERTIFICATE KEY\n", stderr), 1;
  const bool strict = std::string_view(argv[1]) == "strict";
  const auto ended = anyio::run(anyio::as_result(serve(strict, argv[2], argv[3])));
  if (ended) return 0;
  complain(ended.error());
  return 1;
}
