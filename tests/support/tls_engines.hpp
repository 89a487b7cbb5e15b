// The available TLS engines, and two of them connected in memory: no sockets, no loop.
//
// The link calls engines as the contract of src/tls/engine/tls.hpp says, one call at a time and with each
// end's bytes in pieces of a chosen size, and checks the promises of the contract to the driver. Tests
// truncate and damage the bytes in between.
#pragma once

#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "certificates.hpp"

#if !defined(ANYIO_NET_MBEDTLS) && !defined(ANYIO_NET_OPENSSL)
#error "tests of TLS engines need -DANYIO_NET_MBEDTLS or -DANYIO_NET_OPENSSL, and the library"
#endif
#if defined(ANYIO_NET_MBEDTLS)
#include <mbedtls/version.h>
#endif

namespace anyio {

/// How doctest prints it.
inline doctest::String toString(tls_status status) {
  constexpr const char* words[] = {"ok", "want_input", "closed", "truncated", "again", "failed"};
  return words[static_cast<unsigned>(status)];
}

}  // namespace anyio

namespace support {

using anyio::tls_status;
using tls_context_ptr = std::shared_ptr<anyio::tls_context>;

// ---- engines --------------------------------------------------------------------------------------

/// A TLS library.
struct tls_library {
  std::string_view name;
  anyio::result<std::shared_ptr<anyio::tls_context>> (*make)(anyio::tls_config);
  bool has_tls13;
  bool shows_any_certificate;  // or a server only if the text is meant for servers
};

inline constexpr tls_library tls_libraries[] = {
#if defined(ANYIO_NET_MBEDTLS)
#if MBEDTLS_VERSION_NUMBER >= 0x03060000 && defined(MBEDTLS_SSL_PROTO_TLS1_3)
    {"mbedTLS", anyio::mbedtls_context, true, false},
#else
    {"mbedTLS", anyio::mbedtls_context, false, false},
#endif
#endif
#if defined(ANYIO_NET_OPENSSL)
    {"OpenSSL", anyio::openssl_context, true, true},
#endif
};

/// Calls `body(library)` for each; failures name the library.
template <class Body>
void for_every_library(Body body) {
  for (const tls_library& library : tls_libraries) {
    INFO("with ", library.name);
    body(library);
  }
}

/// Calls `body(client_library, server_library)` for each pair; failures name both.
template <class Body>
void for_every_pair(Body body) {
  for (const tls_library& client : tls_libraries) {
    for (const tls_library& server : tls_libraries) {
      INFO("a client with ", client.name, ", a server with ", server.name);
      body(client, server);
    }
  }
}

/// A configuration by the names of make_certificates.sh, without ".pem" and ".key".
struct tls_setup {
  std::string_view certificate = {};
  std::string_view ca = "ca";
  std::vector<std::string_view> alpn = {};
  anyio::tls_verify verify = anyio::tls_verify::peer;
  anyio::tls_verify verify_client = anyio::tls_verify::none;
  anyio::tls_version min_version = anyio::tls_version::v1_2;

  /// Calls `use(config)`, whose texts exist as long as the call.
  template <class Use>
  auto configured(Use use) const {
    const auto file = [](std::string_view name, const char* kind) {
      return name.empty() ? std::string() : support::certificate(std::string(name) + kind);
    };
    const std::string ca_file = file(ca, ".pem");
    const std::string certificate_file = file(certificate, ".pem");
    const std::string private_key_file = file(certificate, ".key");
    anyio::tls_config config;
    config.ca_file = ca_file;
    config.certificate_file = certificate_file;
    config.private_key_file = private_key_file;
    config.alpn = alpn;
    config.verify = verify;
    config.verify_client = verify_client;
    config.min_version = min_version;
    return use(config);
  }
};

inline tls_context_ptr make_context(const tls_library& library, const tls_setup& setup) {
  return setup.configured([&](const anyio::tls_config& config) { return library.make(config).value(); });
}

// ---- a connection in memory -------------------------------------------------------------------------

/// One end: an engine, and the bytes on their way to it.
class tls_end {
 public:
  tls_context_ptr context;
  anyio::tls_pipe pipe;
  std::unique_ptr<anyio::tls_engine> engine;
  std::string arriving;         // sent by the other end
  bool eof = false;             // nothing will follow it
  bool eof_comes_alone = true;  // or is seen at once with the last bytes
  bool failed = false;          // the last result was final: no more calls

  static constexpr std::size_t none = static_cast<std::size_t>(-1);
  std::size_t taken = 0;       // bytes that have arrived so far
  std::size_t cut_at = none;   // the connection ends after this many
  std::size_t flip_at = none;  // the byte with this number arrives with one bit inverted
  unsigned char flipped = 1;   // that bit

  /// Another piece arrives: false if there is none, and the end was not newly reported either.
  bool take_arriving(std::size_t at_most) {
    if (arriving.size() >= cut_at - taken) {
      arriving.resize(cut_at - taken);
      eof = true;
    }
    if (arriving.empty() && (!eof || pipe.rx_eof)) return false;
    if (arriving.empty()) pipe.rx_eof = true;
    const std::size_t n = std::min(at_most, arriving.size());
    if (flip_at - taken < n)
      arriving[flip_at - taken] = static_cast<char>(arriving[flip_at - taken] ^ flipped);
    arrived_.append(arriving, 0, n);
    arriving.erase(0, n);
    taken += n;
    if (arriving.empty() && eof && !eof_comes_alone) pipe.rx_eof = true;
    return true;
  }

  /// One result of the engine, as a driver calls it: `want_input` only when it has seen all bytes.
  template <class Verb>
  tls_status ask(Verb verb, std::string& wire) {
    constexpr int patience = 1000;
    for (int i = 0; i < patience; ++i) {
      // A separate block of memory, so that a sanitizer detects an engine that reads beyond it or keeps it.
      const std::vector<std::byte> piece(bytes_of(arrived_).begin(), bytes_of(arrived_).end());
      pipe.rx = piece;
      pipe.starved = false;
      const tls_status status = verb();
      if (pipe.rx.size() > piece.size() ||
          (!pipe.rx.empty() && pipe.rx.data() + pipe.rx.size() != piece.data() + piece.size()))
        FAIL_CHECK("takes from elsewhere than the front");
      arrived_.erase(0, piece.size() - pipe.rx.size());
      pipe.rx = {};
      wire += pipe.tx.view();
      pipe.tx.consume(pipe.tx.size());
      if (status == tls_status::want_input && pipe.rx_eof && arrived_.empty()) FAIL_CHECK("waits for ever");
      if (status == tls_status::again || (status == tls_status::want_input && !pipe.starved)) continue;
      failed = status == tls_status::failed;
      if (failed && engine->last_error().empty()) FAIL_CHECK("fails without a word");
      return status;
    }
    FAIL_CHECK("asks to be called again for ever");
    return tls_status::failed;
  }

 private:
  static std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span<const char>(text.data(), text.size()));
  }
  std::string arrived_;  // not taken yet
};

/// The bytes a reader got, and the reason for its end.
struct tls_reading {
  std::string text;
  tls_status status = tls_status::ok;
};

class tls_link {
 public:
  static constexpr std::size_t whole = std::size_t{1} << 30;

  tls_end client;
  tls_end server;
  tls_status client_status = tls_status::want_input;  // of the handshake
  tls_status server_status = tls_status::want_input;

  /// Contexts for a client and a server; their bytes arrive in pieces of `chunk` bytes.
  tls_link(tls_context_ptr client_context, std::string_view server_name, tls_context_ptr server_context,
           std::size_t chunk = whole)
      : chunk_(chunk) {
    client.context = std::move(client_context);
    server.context = std::move(server_context);
    client.engine = client.context->client(client.pipe, server_name);
    server.engine = server.context->server(server.pipe);
    CHECK(client.engine != nullptr);
    CHECK(server.engine != nullptr);
  }

  tls_end& other(tls_end& end) { return &end == &client ? server : client; }

  /// The status of an end's handshake.
  tls_status& status(tls_end& end) { return &end == &client ? client_status : server_status; }

  /// Lets an end continue its handshake as far as it can.
  tls_status advance(tls_end& end) {
    if (status(end) != tls_status::want_input) return status(end);
    return status(end) = drive(end, [&end] { return end.engine->handshake(); });
  }

  /// Lets both ends continue until neither can. True if the handshake is complete at both.
  bool handshake() {
    const auto waits = [this](tls_end& end) {
      return status(end) == tls_status::want_input &&
             (!end.arriving.empty() || (end.eof && !end.pipe.rx_eof));
    };
    do {
      advance(client);
      advance(server);
    } while (waits(client) || waits(server));
    return client_status == tls_status::ok && server_status == tls_status::ok;
  }

  /// Reads until there is no more, at most this much at once.
  tls_reading read(tls_end& end, std::size_t at_most = 16384) {
    tls_reading got;
    std::string into(at_most, '\0');
    while (got.status == tls_status::ok) {
      std::size_t n = 0;
      got.status = drive(end, [&] { return end.engine->read(into, n); });
      if (got.status != tls_status::ok) break;
      CHECK(n >= 1);
      CHECK(n <= at_most);
      got.text.append(into, 0, n);
    }
    return got;
  }

  /// Writes all, and overwrites the bytes that the engine has accepted.
  tls_status write(tls_end& end, std::string_view text) {
    while (!text.empty()) {
      std::string scratch(text);
      std::size_t n = 0;
      const tls_status status = drive(end, [&] { return end.engine->write(scratch, n); });
      std::fill(scratch.begin(), scratch.end(), '#');
      if (status != tls_status::ok) return status;
      CHECK(n >= 1);
      CHECK(n <= text.size());
      text.remove_prefix(n);
    }
    return tls_status::ok;
  }

  tls_status close(tls_end& end) {
    return drive(end, [&] { return end.engine->close(); });
  }

  /// A complete handshake, with all messages after it received: tickets, for instance.
  bool settle() {
    if (!handshake()) return false;
    for (tls_end* end : {&client, &server}) {
      const tls_reading got = read(*end);
      CHECK(got.text.empty());
      CHECK(got.status == tls_status::want_input);
    }
    return true;
  }

 private:
  template <class Verb>
  tls_status drive(tls_end& end, Verb verb) {
    if (end.failed) return tls_status::failed;
    for (;;) {
      const tls_status status = end.ask(verb, other(end).arriving);
      if (end.failed) other(end).eof = true;  // the connection is closed after the alert
      if (status != tls_status::want_input || !end.take_arriving(chunk_)) return status;
    }
  }

  std::size_t chunk_;
};

}  // namespace support
