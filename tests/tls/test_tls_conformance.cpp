// The behaviour of every byte stream, checked on TLS streams of every pair of engines: over memory, over
// sockets, and over a transport that accepts few bytes at a time.
#include "support/conformance.hpp"

#include "support/tls_engines.hpp"
#include "support/toy_streams.hpp"

namespace {

using anyio::tls_stream;
using conformance::ends;

struct mbedtls_engine {
  static constexpr auto make = anyio::mbedtls_context;
};
struct openssl_engine {
  static constexpr auto make = anyio::openssl_context;
};

template <class Engine>
std::shared_ptr<anyio::tls_context> client_of() {
  static const auto context = [] {
    const std::string authority = support::certificate("ca.pem");
    anyio::tls_config config;
    config.ca_file = authority;
    return Engine::make(config).value();
  }();
  return context;
}

template <class Engine>
std::shared_ptr<anyio::tls_context> server_of() {
  static const auto context = [] {
    const std::string certificate = support::certificate("server.pem");
    const std::string key = support::certificate("server.key");
    anyio::tls_config config;
    config.certificate_file = certificate;
    config.private_key_file = key;
    return Engine::make(config).value();
  }();
  return context;
}

template <class Client, class Server, class Stream>
ends encrypted(Stream&& client, Stream&& server) {
  anyio::tls_options options;
  options.server_name = "localhost";
  auto both = support::shake_hands(std::make_unique<Stream>(std::move(client)),
                                   std::make_unique<Stream>(std::move(server)), options, client_of<Client>(),
                                   server_of<Server>());
  return {std::make_unique<tls_stream>(std::move(both.first)),
          std::make_unique<tls_stream>(std::move(both.second))};
}

template <class Client, class Server>
struct over_memory {
  static constexpr std::size_t bulk = std::size_t{1} << 20;
  static constexpr std::size_t clogging = 300000;
  static constexpr bool half_close =
      std::is_same_v<Client, openssl_engine> && std::is_same_v<Server, openssl_engine>;
  static ends make() {
    auto [a, b] = anyio::create_memory_stream_pair();
    return encrypted<Client, Server>(std::move(a), std::move(b));
  }
};

template <class Client, class Server>
struct over_sockets : over_memory<Client, Server> {
  static constexpr std::size_t clogging = std::size_t{4} << 20;
  static ends make() {
    auto both = anyio::create_unix_stream_pair().value();
    return encrypted<Client, Server>(std::move(both.first), std::move(both.second));
  }
};

/// A record is sent in many pieces, and each piece is waited for. The messages of a server after the
/// handshake of TLS 1.3 fit, and a small record after them, since a small send need not wait for a receiver.
template <class Client, class Server>
struct over_narrow_memory : over_memory<Client, Server> {
  static constexpr std::size_t bulk = 50000;
  static constexpr std::size_t clogging = 50000;
  static ends make() {
    auto [a, b] = anyio::create_memory_stream_pair(601);
    return encrypted<Client, Server>(std::move(a), std::move(b));
  }
};

using mbedtls_to_mbedtls = over_memory<mbedtls_engine, mbedtls_engine>;
using mbedtls_to_openssl = over_sockets<mbedtls_engine, openssl_engine>;
using openssl_to_mbedtls = over_memory<openssl_engine, mbedtls_engine>;
using openssl_to_openssl = over_sockets<openssl_engine, openssl_engine>;
using openssl_over_memory = over_memory<openssl_engine, openssl_engine>;
using mbedtls_through_a_straw = over_narrow_memory<mbedtls_engine, mbedtls_engine>;
using openssl_through_a_straw = over_narrow_memory<openssl_engine, openssl_engine>;

ANYIO_NET_CONFORMANCE(mbedtls_to_mbedtls);
ANYIO_NET_CONFORMANCE(mbedtls_to_openssl);
ANYIO_NET_CONFORMANCE(openssl_to_mbedtls);
ANYIO_NET_CONFORMANCE(openssl_to_openssl);
ANYIO_NET_CONFORMANCE(openssl_over_memory);
ANYIO_NET_CONFORMANCE(mbedtls_through_a_straw);
ANYIO_NET_CONFORMANCE(openssl_through_a_straw);

}  // namespace
