// TLS as the library sees it: a hook for engines.
//
// A context holds credentials and makes engines, one a connection. An engine turns plaintext into records and
// back with five verbs, over a pipe of plain memory: it has no socket, no loop and calls nobody, so any TLS
// library serves, over any byte stream, and can be tested without a network. Who drives it waits, reads and
// sends in its place. This part must not know a TLS library.
#pragma once

#include "base/buffer.hpp"
#include "base/byte_queue.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/result.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// What lies between an engine and the connection below it. Outlives the engine and never moves.
class tls_pipe {
 public:
  /// What has come and is not taken yet. The engine takes from the front: `rx = rx.subspan(k)`.
  std::span<const std::byte> rx;
  /// Nothing will follow what is in `rx`.
  bool rx_eof = false;
  /// Set by the engine when it asked for more than `rx` had.
  bool starved = false;
  /// What is to go out. The engine appends, at any call and also when that fails; it is never refused.
  byte_queue tx;
  /// So many bytes at the end of `tx` need not go before what follows them. Set by a server's engine when its
  /// handshake is complete, for tickets: they would reset the connection of a client that has sent and left.
  std::size_t may_wait = 0;
};

/// How a verb of an engine ended.
enum class tls_status : std::uint8_t {
  ok,          ///< there was progress
  want_input,  ///< cannot go on without more in `rx`
  closed,      ///< the peer's close_notify has come
  truncated,   ///< `rx_eof` without one
  again,       ///< nothing yet: call again, without waiting for input
  failed,      ///< for good, see `last_error`; an alert for the peer may lie in `tx`
};

/// What was agreed in the handshake.
class tls_info {
 public:
  tls_info() noexcept {}

  std::string version;               ///< "TLSv1.2" or "TLSv1.3"
  std::string cipher;                ///< IANA's name, "TLS_AES_128_GCM_SHA256"
  std::string alpn;                  ///< the protocol, empty if none was agreed
  std::string server_name;           ///< what the client asked for (RFC 6066), also at the client
  std::string peer_certificate_der;  ///< empty if the peer showed none
  bool server_side = false;          ///< whether this end is the server
  bool resumed = false;              ///< whether an earlier session was taken up again
};

/// One connection's end. Its driver makes one call at a time and never calls again after `failed`, nor
/// `write` after `close`.
class tls_engine {
 public:
  virtual ~tls_engine() = default;

  /// `ok` once it is complete; until then nothing is read or written.
  virtual tls_status handshake() = 0;
  /// Plaintext into a buffer that is not empty; `ok` with n >= 1.
  virtual tls_status read(mutable_buffer into, std::size_t& n) = 0;
  /// Takes some of the plaintext, which is not empty; `ok` with n >= 1. What it took is in `tx` when it
  /// returns, so the next call may bring other bytes.
  virtual tls_status write(const_buffer data, std::size_t& n) = 0;
  /// Puts a close_notify into `tx`; reading goes on.
  virtual tls_status close() = 0;
  /// Whether plaintext lies in the engine, so that `read` needs no input.
  [[nodiscard]] virtual bool pending() const = 0;
  /// Complete after the handshake.
  [[nodiscard]] virtual tls_info info() const = 0;
  /// Why it failed, in words for a person. Without secrets.
  [[nodiscard]] virtual std::string last_error() const = 0;
};

/// Whether the peer must prove who it is.
enum class tls_verify : std::uint8_t {
  none,      ///< takes whoever answers: for tests
  optional,  ///< of clients: a certificate may be missing, but not be wrong
  peer,
};

/// TLS 1.2 (RFC 5246) and 1.3 (RFC 8446).
enum class tls_version : std::uint8_t { v1_2, v1_3 };

/// Credentials and rules, shared by many connections. Text is PEM; of each pair only one may be given, and a
/// private key may lie with its certificate. Without `ca_*` a client trusts the system's authorities. All is
/// read before the call that takes it returns; copies of keys and passwords are overwritten after use.
struct tls_config {
  std::string_view ca_file = {};                ///< the authorities that are trusted
  std::string_view ca_pem = {};                 ///< the same as text
  std::string_view certificate_file = {};       ///< the own one first, then those that lead to the authority
  std::string_view certificate_pem = {};        ///< the same as text
  std::string_view private_key_file = {};       ///< of the own certificate
  std::string_view private_key_pem = {};        ///< the same as text
  std::string_view private_key_password = {};   ///< for a key that is encrypted
  std::span<const std::string_view> alpn = {};  ///< protocols (RFC 7301), the preferred one first
  tls_verify verify = tls_verify::peer;         ///< of a client: what it asks of the server
  /// Of a server: what it asks of clients. Needs `ca_*` (`invalid_argument` without): the system's
  /// authorities sign for anybody.
  tls_verify verify_client = tls_verify::none;
  tls_version min_version = tls_version::v1_2;  ///< refuses what is older
};

/// The hook: credentials that make engines. May be shared by loops in several threads.
class tls_context {
 public:
  virtual ~tls_context() = default;

  /// An engine for a client. The name is for SNI and to verify, an address only to verify; certificates name
  /// both in subjectAltName, their common name does not count (RFC 9525). Null if there is
  /// no name, or an impossible one, and the server is to be verified.
  virtual std::unique_ptr<tls_engine> client(tls_pipe& pipe, std::string_view server_name) = 0;
  /// An engine for a server. Null without a certificate.
  virtual std::unique_ptr<tls_engine> server(tls_pipe& pipe) = 0;
  /// A further certificate, which a server shows to clients that ask for this name; one label may be a
  /// wildcard, "*.example.org". Takes certificate and private key of the configuration. Before the first
  /// connection.
  virtual result<> add_certificate(std::string_view server_name, const tls_config& config);
};

/// One connection.
struct tls_options {
  std::string_view server_name = {};  ///< of a client
  /// Whether a close_notify is due from both ends before the connection ends. If not, a missing one is an
  /// end of stream, and none is sent.
  bool standard_compatible = true;
  std::chrono::milliseconds handshake_timeout = std::chrono::seconds(10);  ///< then it is `timed_out`
};

namespace detail {

/// A failure in an engine's own words, which are kept for as long as the program runs: few, since they come
/// from a library's tables.
[[nodiscard]] error tls_failure(const char* operation, std::string_view reason);

}  // namespace detail

}}  // namespace anyio
