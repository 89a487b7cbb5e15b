// What TLS engines offer and accept: key exchanges, ciphers, warning alerts. Tested with OpenSSL clients that
// are configured to offer only what must be rejected.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support/tls_engines.hpp"

#if defined(ANYIO_NET_OPENSSL)
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

namespace {

using anyio::tls_status;
using support::for_every_library;
using support::make_context;
using support::tls_context_ptr;
using support::tls_end;
using support::tls_library;
using support::tls_link;

constexpr std::string_view alert_words = "the peer sent the alert ";

// ---- what is offered --------------------------------------------------------------------------------

/// Reads numbers of a hello.
class hello_reader {
 public:
  explicit hello_reader(std::string_view bytes) : rest_(bytes) {}
  [[nodiscard]] bool empty() const { return rest_.empty(); }
  std::size_t number(std::size_t size) {
    std::size_t value = 0;
    for (const char c : take(size)) value = value << 8 | static_cast<unsigned char>(c);
    return value;
  }
  std::string_view take(std::size_t size) {
    CHECK(size <= rest_.size());
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(taken.size());
    return taken;
  }
  /// A part that begins with its size, in this many bytes.
  std::string_view block(std::size_t bytes_of_size) { return take(number(bytes_of_size)); }

 private:
  std::string_view rest_;
};

std::vector<std::size_t> pairs_of(std::string_view bytes) {
  std::vector<std::size_t> numbers;
  for (hello_reader r(bytes); !r.empty();) numbers.push_back(r.number(2));
  return numbers;
}

struct offer {
  std::vector<std::size_t> suites;
  std::vector<std::size_t> groups;
};

/// What a first message offers (RFC 8446, section 4.1.2).
offer read_client_hello(std::string_view record) {
  offer found;
  hello_reader in(record);
  in.take(5 + 4 + 2 + 32);  // the headers of record and message, version, randomness
  in.block(1);              // session
  found.suites = pairs_of(in.block(2));
  in.block(1);  // compression
  hello_reader extensions(in.block(2));
  while (!extensions.empty()) {
    constexpr std::size_t supported_groups = 10;
    const bool wanted = extensions.number(2) == supported_groups;
    hello_reader extension(extensions.block(2));
    if (wanted) found.groups = pairs_of(extension.block(2));
  }
  return found;
}

constexpr std::size_t x25519 = 0x1d, p256 = 0x17, p384 = 0x18, x25519_mlkem768 = 0x11ec;

TEST_CASE("tls offers: a client offers curves and authenticated ciphers, and nothing else") {
  const std::size_t good_suites[] = {
      0x1301, 0x1302, 0x1303, 0x1304,                                  // TLS 1.3: AES-GCM, ChaCha20, AES-CCM
      0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9, 0xc0ac, 0xc0ad,  // the same behind ECDHE
      0x00ff,                                                          // no cipher (RFC 5746)
  };
  const std::size_t good_groups[] = {x25519, p256, p384, x25519_mlkem768};
  const auto is_in = [](const auto& all, std::size_t n) {
    return std::find(std::begin(all), std::end(all), n) != std::end(all);
  };
  for_every_library([&](const tls_library& library) {
    for (const anyio::tls_verify verify : {anyio::tls_verify::peer, anyio::tls_verify::none}) {
      const tls_context_ptr context = make_context(library, {.verify = verify});
      anyio::tls_pipe pipe;
      const auto engine = context->client(pipe, "localhost");
      CHECK(engine->handshake() == tls_status::want_input);
      const offer offered = read_client_hello(pipe.tx.view());
      for (const std::size_t suite : offered.suites) {
        CAPTURE(suite);
        CHECK(is_in(good_suites, suite));
      }
      for (const std::size_t group : offered.groups) {
        CAPTURE(group);
        CHECK(is_in(good_groups, group));
      }
      for (const std::size_t suite : {0xc02bu, 0xc02fu, 0xcca9u}) CHECK(is_in(offered.suites, suite));
      for (const std::size_t group : {x25519, p256, p384}) CHECK(is_in(offered.groups, group));
    }
  });
}

// ---- what is accepted -------------------------------------------------------------------------------

#if defined(ANYIO_NET_OPENSSL)

/// OpenSSL's own client, without verification.
class bare_client {
 public:
  /// Null: the default of the library.
  bare_client(int version, const char* groups, const char* suites)
      : context_(SSL_CTX_new(TLS_client_method())) {
    CHECK(SSL_CTX_set_min_proto_version(context_, version) == 1);
    CHECK(SSL_CTX_set_max_proto_version(context_, version) == 1);
    if (groups != nullptr) CHECK(SSL_CTX_set1_groups_list(context_, groups) == 1);
    if (suites != nullptr) CHECK(SSL_CTX_set_cipher_list(context_, suites) == 1);
    connection_ = SSL_new(context_);
    SSL_set_bio(connection_, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(connection_);
  }
  bare_client(const bare_client&) = delete;
  bare_client& operator=(const bare_client&) = delete;
  ~bare_client() {
    SSL_free(connection_);
    SSL_CTX_free(context_);
    ERR_clear_error();
  }

  [[nodiscard]] SSL* get() const { return connection_; }
  /// Continues as far as it can; its output is added.
  bool handshake(std::string& wire) {
    ERR_clear_error();
    const int returned = SSL_do_handshake(connection_);
    ERR_clear_error();
    char some[4096];
    for (int n; (n = BIO_read(SSL_get_wbio(connection_), some, sizeof some)) > 0;)
      wire.append(some, static_cast<std::size_t>(n));
    return returned == 1;
  }
  void hear(std::string& wire) {
    BIO_write(SSL_get_rbio(connection_), wire.data(), static_cast<int>(wire.size()));
    wire.clear();
  }

 private:
  SSL_CTX* context_;
  SSL* connection_ = nullptr;
};

/// The outcome at the server.
tls_status serve(bare_client& client, tls_end& server) {
  std::string answer;
  for (;;) {
    client.handshake(server.arriving);
    const bool more = server.take_arriving(tls_link::whole);
    const tls_status status = server.ask([&] { return server.engine->handshake(); }, answer);
    if (status != tls_status::want_input || !more) {
      client.hear(answer);
      client.handshake(server.arriving);
      return status;
    }
    client.hear(answer);
  }
}

struct example {
  int version;
  const char* groups;
  const char* suites;
};

void check_server(const tls_library& library, std::string_view certificate, const example& e, bool welcome) {
  CAPTURE(certificate);
  CAPTURE(e.version);
  CAPTURE(e.groups);
  CAPTURE(e.suites);
  bare_client client(e.version, e.groups, e.suites);
  tls_end server;
  server.context = make_context(library, {.certificate = certificate});
  server.engine = server.context->server(server.pipe);
  const tls_status status = serve(client, server);
  CHECK(status == (welcome ? tls_status::ok : tls_status::failed));
  CHECK((SSL_is_init_finished(client.get()) == 1) == welcome);
}

TEST_CASE("tls offers: a client with only finite-field groups is rejected (D(HE)at)") {
  for_every_library([](const tls_library& library) {
    if (library.has_tls13) {
      for (const char* groups : {"ffdhe2048", "ffdhe2048:ffdhe3072:ffdhe4096:ffdhe6144:ffdhe8192"})
        check_server(library, "server", {TLS1_3_VERSION, groups, nullptr}, false);
    }
    check_server(library, "rsa", {TLS1_2_VERSION, nullptr, "kDHE"}, false);
    check_server(library, "rsa", {TLS1_2_VERSION, "P-256", "DHE-RSA-AES128-GCM-SHA256"}, false);
  });
}

TEST_CASE("tls offers: a client with only CBC ciphers, or without ephemeral keys, is rejected") {
  for_every_library([](const tls_library& library) {
    for (const char* suites : {"ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES128-SHA256",
                               "ECDHE-ECDSA-AES256-SHA384"})
      check_server(library, "server", {TLS1_2_VERSION, nullptr, suites}, false);
    for (const char* suites : {"ECDHE-RSA-AES128-SHA:ECDHE-RSA-AES256-SHA", "ECDHE-RSA-AES128-SHA256",
                               "AES128-GCM-SHA256", "AES128-SHA"})
      check_server(library, "rsa", {TLS1_2_VERSION, nullptr, suites}, false);
  });
}

TEST_CASE("tls offers: a client with only larger curves is rejected") {
  for_every_library([](const tls_library& library) {
    check_server(library, "server", {TLS1_2_VERSION, "P-521", nullptr}, false);
    if (library.has_tls13) check_server(library, "server", {TLS1_3_VERSION, "P-521:X448", nullptr}, false);
  });
}

TEST_CASE("tls offers: a default client is accepted, and one with each single curve and cipher") {
  for_every_library([](const tls_library& library) {
    for (const char* groups :
         {"X25519", "P-256", "P-384", "ffdhe2048:P-521:P-384", static_cast<const char*>(nullptr)}) {
      for (const char* certificate : {"server", "rsa"}) {
        // The certificate's own curve is used under TLS 1.2.
        const bool fits = std::string_view(certificate) == "rsa" || groups == nullptr ||
                          groups == std::string_view("P-256");
        if (fits) check_server(library, certificate, {TLS1_2_VERSION, groups, nullptr}, true);
        if (library.has_tls13) check_server(library, certificate, {TLS1_3_VERSION, groups, nullptr}, true);
      }
    }
    for (const char* suites :
         {"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"})
      check_server(library, "rsa", {TLS1_2_VERSION, nullptr, suites}, true);
    for (const char* suites :
         {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-CHACHA20-POLY1305"})
      check_server(library, "server", {TLS1_2_VERSION, nullptr, suites}, true);
  });
}

#endif

// ---- warnings ---------------------------------------------------------------------------------------

std::string warnings(std::size_t count) {
  std::string all;
  for (std::size_t i = 0; i < count; ++i) all.append("\x15\x03\x03\x00\x02\x01\x5a", 7);  // user_canceled
  return all;
}

/// A handshake in which this many warning alerts arrive before the server's answer, or before the client's
/// second flight.
void check_warned(const tls_library& client, const tls_library& server, bool to_client, std::size_t count) {
  CAPTURE(to_client);
  CAPTURE(count);
  tls_link link(make_context(client, {}), "localhost", make_context(server, {.certificate = "server"}));
  tls_end& warned = to_client ? link.client : link.server;
  tls_end& other = link.other(warned);
  link.advance(link.client);
  if (!to_client) {
    link.advance(link.server);
    link.advance(link.client);
  }
  CHECK(link.status(warned) == tls_status::want_input);
  warned.arriving = warnings(count) + warned.arriving;
  const bool done = link.handshake();
  if (count < 5) {
    CHECK(done);
    CHECK(link.write(other, "text") == tls_status::ok);
    CHECK(link.read(warned).text == "text");
    return;
  }
  CHECK(!done);
  CHECK(link.status(warned) == tls_status::failed);
  CHECK(warned.engine->last_error() == std::string_view(anyio::detail::tls_reason::many_warnings));
  CHECK(warned.taken <= 16384);
  if (link.status(other) == tls_status::ok) CHECK(link.read(other).status == tls_status::failed);
  CHECK(other.engine->last_error() == std::string(alert_words) + "unexpected_message");
}

TEST_CASE("tls offers: a few warning alerts in a handshake are ignored, many end it") {
  support::for_every_pair([](const tls_library& c, const tls_library& s) {
    if (c.has_tls13 && s.has_tls13) return;  // most warnings end it at once there (RFC 8446, section 6)
    for (const bool to_client : {true, false}) {
      for (const std::size_t count : {0u, 1u, 4u, 6u, 100u}) check_warned(c, s, to_client, count);
    }
  });
}

}  // namespace
