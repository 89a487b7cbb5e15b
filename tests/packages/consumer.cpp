// A program that uses the installed header: it serves one client, itself. With a TLS library it also creates
// a context of it.
#include <anyio_net.hpp>

#include <cstdio>

static_assert(ANYIO_NET_VERSION ==
              ANYIO_NET_VERSION_MAJOR * 10000 + ANYIO_NET_VERSION_MINOR * 100 + ANYIO_NET_VERSION_PATCH);

namespace {

anyio::task<> talk() {
  auto listener = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  anyio::task_group group;
  group.start_soon(listener.serve([](anyio::tcp_stream client) -> anyio::task<> {
    for (;;) co_await client.send(co_await client.receive_view());
  }));
  auto stream = co_await anyio::connect_tcp("127.0.0.1", listener.local_port());
  co_await stream.send("hello");
  std::string text = co_await stream.receive();
  std::printf("%s from %d.%d.%d", text.c_str(), ANYIO_NET_VERSION_MAJOR, ANYIO_NET_VERSION_MINOR,
              ANYIO_NET_VERSION_PATCH);
  group.cancel();
  co_await group.join();
}

}  // namespace

int main() {
  anyio::run(talk());
#if defined(ANYIO_NET_OPENSSL)
  if (!anyio::openssl_context({.verify = anyio::tls_verify::none})) return 1;
  std::printf(" with OpenSSL");
#endif
#if defined(ANYIO_NET_MBEDTLS)
  if (!anyio::mbedtls_context({.verify = anyio::tls_verify::none})) return 1;
  std::printf(" with mbedTLS");
#endif
  std::printf("\n");
}
