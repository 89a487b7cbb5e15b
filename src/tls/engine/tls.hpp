// TLS in this library: a hook for engines.
//
// A context holds credentials and makes engines, one per connection. An engine turns plaintext into records
// and back with five calls, over a pipe in memory. It has no socket and no loop, and calls nothing back, so
// any TLS library can serve as one, over any byte stream, and can be tested without a network. The driver of
// the engine waits, reads and sends for it. This part must not know a TLS library.
#pragma once

#include "base/buffer.hpp"
#include "base/byte_queue.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/result.hpp"
#include "base/standard.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace anyio { inline namespace ANYIO_NET_ABI {

/// The memory between an engine and the connection below it. It outlives the engine and never moves.
class tls_pipe {
 public:
  /// Bytes that were received and not taken yet. The engine takes from the front: `rx = rx.subspan(k)`.
  std::span<const std::byte> rx;
  /// No more bytes follow those in `rx`.
  bool rx_eof = false;
  /// The engine sets this when it asked for more bytes than `rx` had.
  bool starved = false;
  /// The bytes to send. The engine appends, in any call and also if the call fails; this never fails for lack
  /// of room.
  byte_queue tx;
  /// This many bytes at the end of `tx` need not be sent before the bytes that follow them. A server's engine
  /// sets it for tickets when its handshake is complete: tickets would reset the connection of a client that
  /// has sent its data and closed.
  std::size_t may_wait = 0;
};

/// The outcome of an engine call.
enum class tls_status : std::uint8_t {
  ok,          ///< the call made progress
  want_input,  ///< the engine needs more bytes in `rx`
  closed,      ///< the peer's close_notify was received
  truncated,   ///< `rx_eof` without a close_notify
  again,       ///< no progress: call again, without waiting for input
  failed,      ///< permanent failure, see `last_error`; an alert for the peer may be in `tx`
};

/// The parameters that the handshake agreed on.
class tls_info {
 public:
  tls_info() noexcept {}

  std::string version;               ///< "TLSv1.2" or "TLSv1.3"
  std::string cipher;                ///< IANA's name, "TLS_AES_128_GCM_SHA256"
  std::string alpn;                  ///< the protocol, empty if none was agreed
  std::string server_name;           ///< the name the client asked for (RFC 6066), also at the client
  std::string peer_certificate_der;  ///< empty if the peer sent none
  bool server_side = false;          ///< whether this end is the server
  bool resumed = false;              ///< whether an earlier session was resumed
};

/// One end of a connection. Its driver makes one call at a time, makes no call after `failed`, and does not
/// call `write` after `close`.
class tls_engine {
 public:
  virtual ~tls_engine() = default;

  /// Returns `ok` once the handshake is complete; until then no plaintext is read or written.
  virtual tls_status handshake() = 0;
  /// Reads plaintext into a buffer that is not empty; `ok` means n >= 1.
  virtual tls_status read(mutable_buffer into, std::size_t& n) = 0;
  /// Takes some of the plaintext, which is not empty; `ok` means n >= 1. The bytes that it took are in `tx`
  /// on return, so the next call may pass other bytes.
  virtual tls_status write(const_buffer data, std::size_t& n) = 0;
  /// Appends a close_notify to `tx`; reading remains possible.
  virtual tls_status close() = 0;
  /// Whether the engine holds plaintext, so that `read` needs no input.
  [[nodiscard]] virtual bool pending() const = 0;
  /// The parameters of the connection; complete after the handshake.
  [[nodiscard]] virtual tls_info info() const = 0;
  /// Why the engine failed, as text for a person. It contains no secrets.
  [[nodiscard]] virtual std::string last_error() const = 0;
};

/// Whether the peer must prove its identity.
enum class tls_verify : std::uint8_t {
  none,      ///< accepts any peer: for tests
  optional,  ///< for clients: the certificate may be missing, but not wrong
  peer,
};

/// TLS 1.2 (RFC 5246) and 1.3 (RFC 8446).
enum class tls_version : std::uint8_t { v1_2, v1_3 };

/// Credentials and rules, shared by many connections. Text is PEM. Of each pair only one may be given; a
/// private key may be in the same text as its certificate. Without `ca_*` a client trusts the system's
/// authorities. The function that takes a configuration reads all of it before it returns; copies of keys and
/// passwords are overwritten after use.
struct tls_config {
  std::string_view ca_file = {};                ///< the trusted authorities
  std::string_view ca_pem = {};                 ///< the trusted authorities, as text
  std::string_view certificate_file = {};       ///< the own certificate, then the chain to the authority
  std::string_view certificate_pem = {};        ///< the certificates, as text
  std::string_view private_key_file = {};       ///< the key of the own certificate
  std::string_view private_key_pem = {};        ///< the private key, as text
  std::string_view private_key_password = {};   ///< for an encrypted key
  std::span<const std::string_view> alpn = {};  ///< protocols (RFC 7301), the preferred one first
  tls_verify verify = tls_verify::peer;         ///< client only: what it requires of the server
  /// Server only: what it requires of clients. Needs `ca_*` (`invalid_argument` without), because the
  /// system's authorities sign for anyone.
  tls_verify verify_client = tls_verify::none;
  tls_version min_version = tls_version::v1_2;  ///< rejects older versions
};

/// The hook: credentials that make engines. Loops in several threads may share a context.
class tls_context {
 public:
  virtual ~tls_context() = default;

  /// Makes an engine for a client. The name is used for SNI and to verify the server, an address only to
  /// verify it. A certificate must have either of them in its subjectAltName; its common name is ignored (RFC
  /// 9525). Returns null if the server is to be verified and there is no name, or an impossible one.
  virtual std::unique_ptr<tls_engine> client(tls_pipe& pipe, std::string_view server_name) = 0;
  /// Makes an engine for a server. Returns null without a certificate.
  virtual std::unique_ptr<tls_engine> server(tls_pipe& pipe) = 0;
  /// Adds a certificate, which a server shows to clients that ask for this name; the first label may be a
  /// wildcard, "*.example.org". Uses only certificate and private key of the configuration. Must be called
  /// before the first connection.
  virtual result<> add_certificate(std::string_view server_name, const tls_config& config);
};

/// Options of one TLS connection.
struct tls_options {
  std::string_view server_name = {};  ///< client only: the name of the server
  /// Whether both ends must send a close_notify before the connection ends. If not, a missing close_notify is
  /// an end of stream, and this end sends none.
  bool standard_compatible = true;
  std::chrono::milliseconds handshake_timeout = std::chrono::seconds(10);  ///< then raises `timed_out`
};

namespace detail {

/// An error with the engine's own text, which is kept for as long as the program runs. There are few such
/// texts, since they come from a library's tables.
[[nodiscard]] error tls_failure(const char* operation, std::string_view reason);

}  // namespace detail

}}  // namespace anyio
