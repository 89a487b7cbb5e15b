// The part of a configuration that every engine handles alike: its texts and their errors, names of servers,
// sessions to resume. So the same mistake has the same error text with every TLS library. This part must not
// know a TLS library.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/mutex.hpp"
#include "base/result.hpp"
#include "base/standard.hpp"
#include "tls/engine/tls.hpp"

#if defined(ANYIO_NET_MBEDTLS) || defined(ANYIO_NET_OPENSSL)

#include <cstdint>
#include <cstring>
#include <iterator>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// A text of a configuration, and its field as errors name it: "tls: ca_file".
struct tls_text {
  std::string text;
  const char* field = "";

  [[nodiscard]] bool given() const noexcept { return *field != '\0'; }
  /// An `errc::tls` error that names the field; `reason` is static text.
  [[nodiscard]] error wrong(const char* reason) const noexcept {
    // The analyzer cannot follow the move of a result that holds this.
    // NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage)
    return error_access::with_reason(error(errc::tls, 0, field), reason);
  }
};

/// A configuration, with its files read. The destructor overwrites the secrets.
class tls_material {
 public:
  tls_material() = default;
  tls_material(tls_material&&) = default;
  tls_material& operator=(tls_material&&) = delete;
  ~tls_material();

  tls_text ca;           // not given: the system's authorities
  tls_text certificate;  // not given: none
  tls_text private_key;  // given if the certificate is; may be the certificate's text
  std::string password;
  std::vector<std::string> alpn;
  tls_verify verify = tls_verify::peer;
  tls_verify verify_client = tls_verify::none;
  tls_version min_version = tls_version::v1_2;
};

/// Reads the files of a configuration. The TLS library checks the contents of the texts.
[[nodiscard]] result<tls_material> read_material(const tls_config& config);
/// Reads a configuration for `add_certificate`: certificate and name are required. Removes the name's
/// trailing dot.
[[nodiscard]] result<tls_material> read_further_material(std::string& server_name, const tls_config& config);
/// Reads the authorities that the system trusts; empty if there is no such file.
[[nodiscard]] std::string read_system_trust();

/// The errors of texts and certificates, with the same text for every library.
namespace tls_reason {
inline constexpr const char* no_certificate = "contains no certificate";
inline constexpr const char* bad_certificate = "contains a certificate that cannot be read";
inline constexpr const char* no_private_key = "contains no private key";
inline constexpr const char* bad_private_key = "contains a private key that cannot be read";
inline constexpr const char* password_missing = "a password is required: the private key is encrypted";
inline constexpr const char* password_wrong = "wrong password";
inline constexpr const char* other_private_key = "the private key does not belong to the certificate";
inline constexpr const char* version_missing = "this TLS library does not support that version";

inline constexpr const char* expired = "the peer's certificate has expired";
inline constexpr const char* not_yet_valid = "the peer's certificate is not valid yet";
inline constexpr const char* self_signed = "the peer's certificate is self-signed and not trusted";
inline constexpr const char* unknown_authority = "the peer's certificate is from an unknown authority";
inline constexpr const char* other_name = "the peer's certificate is for another name";
inline constexpr const char* other_purpose = "the peer's certificate is for another purpose";
inline constexpr const char* weak = "the peer's certificate has a key or a signature that is too weak";
inline constexpr const char* revoked = "the peer's certificate has been revoked";
inline constexpr const char* unverified = "the peer's certificate cannot be verified";
inline constexpr const char* none_shown = "the peer sent no certificate";
inline constexpr const char* not_tls = "the peer sent data that is not TLS";
inline constexpr const char* bad_record = "TLS record corrupted";
inline constexpr const char* many_warnings = "the peer sent too many warning alerts";
}  // namespace tls_reason

/// The text for the number of an alert (RFC 8446, section 6): "the peer sent the alert handshake_failure".
[[nodiscard]] const char* alert_reason(int description) noexcept;

/// The server to which a client connects.
struct tls_server_identity {
  std::string name;                   // for SNI; empty for an address
  std::optional<ip_address> address;  // without a scope

  [[nodiscard]] bool known() const noexcept { return !name.empty() || address.has_value(); }
};
/// Parses an address, or a name without its trailing dot; neither is set if the text cannot be a host name.
[[nodiscard]] tls_server_identity parse_server_name(std::string_view server_name);
/// The key under which a client keeps sessions; empty for an unknown server. Names and addresses never share
/// a key.
[[nodiscard]] std::string session_key(const tls_server_identity& server);
/// Whether a name, whose first label may be "*", covers a host (RFC 9525, section 6.3).
[[nodiscard]] bool covers_name(std::string_view pattern, std::string_view host) noexcept;

/// Draws random bytes, from the simulation if one runs on this thread, so that it repeats them.
void draw_random(void* into, std::size_t size);
/// Seconds since 1970, from the simulation if one runs on this thread.
[[nodiscard]] std::int64_t calendar_now();

/// Sessions that clients may resume: the latest one of each recently used server. Any thread may use it.
template <class Session>
class tls_sessions {
 public:
  void put(const std::string& server, Session session) {
    constexpr std::size_t most = 64;
    if (server.empty()) return;
    const process_lock lock(mutex_);
    forget(server);
    sessions_.emplace_front(server, std::move(session));
    if (sessions_.size() > most) sessions_.pop_back();
  }
  /// Removes and returns a session: a TLS 1.3 ticket should be used only once (RFC 8446, appendix C.4).
  [[nodiscard]] std::optional<Session> take(const std::string& server) {
    const process_lock lock(mutex_);
    for (auto i = sessions_.begin(); i != sessions_.end(); ++i) {
      if (i->first != server) continue;
      std::optional<Session> found(std::move(i->second));
      sessions_.erase(i);
      return found;
    }
    return {};
  }

 private:
  void forget(const std::string& server) {
    for (auto i = sessions_.begin(); i != sessions_.end();)
      i = i->first == server ? sessions_.erase(i) : std::next(i);
  }

  process_mutex mutex_;
  std::list<std::pair<std::string, Session>> sessions_;
};

/// Takes received bytes out of the pipe. Returns how many, and notes if there were fewer than asked for.
inline std::size_t take_received(tls_pipe& pipe, void* into, std::size_t size) noexcept {
  const std::size_t n = std::min(size, pipe.rx.size());
  if (n < size) pipe.starved = true;
  if (n != 0) std::memcpy(into, pipe.rx.data(), n);
  pipe.rx = pipe.rx.subspan(n);
  return n;
}

/// The base of a context: the part that is alike for every TLS library. `Certificate` is a certificate with
/// its key, and has the `name` of its server. Members of Derived:
///   turn                                  held during calls of the library
///   result<> set_up(tls_material&)        called once, before any other function
///   result<> read(Certificate&, const tls_material&)
///   void trust(const std::string&)        trusts all authorities of a text that can be read
///   std::unique_ptr<Engine> make_engine(tls_pipe&, tls_server_identity&&, bool server_side)   or null
///
/// Derived allows only these in TLS 1.2: ephemeral keys on curves, so that a key that is stolen later
/// decrypts nothing, and ciphers that authenticate what they encrypt. CBC ciphers have been broken by timing
/// (Lucky 13), and a peer that has one with SHA-256 also has one with GCM: RFC 5289 introduced both. And in
/// no version a finite-field group: one replayed hello of a client would cost the server a long computation
/// (D(HE)at, CVE-2002-20001).
template <class Derived, class Certificate, class Session>
class tls_credentials : public tls_context, public std::enable_shared_from_this<Derived> {
 public:
  static result<std::shared_ptr<tls_context>> make(const tls_config& config) {
    const typename Derived::turn turn;
    result<tls_material> material = read_material(config);
    if (!material) return material.error();
    const auto made = std::make_shared<Derived>();
    made->verify = material->verify;
    made->verify_client = material->verify_client;
    made->has_certificate_ = material->certificate.given();
    made->system_trust_ = !material->ca.given();
    if (result<> r = made->set_up(*material); !r) return r.error();
    return std::shared_ptr<tls_context>(made);
  }

  std::unique_ptr<tls_engine> client(tls_pipe& pipe, std::string_view server_name) override {
    const typename Derived::turn turn;
    tls_server_identity server = parse_server_name(server_name);
    if (verify != tls_verify::none) {
      if (!server.known()) return nullptr;
      trust_system();
    }
    return derived().make_engine(pipe, std::move(server), false);
  }
  std::unique_ptr<tls_engine> server(tls_pipe& pipe) override {
    const typename Derived::turn turn;
    if (!has_certificate_) return nullptr;
    return derived().make_engine(pipe, tls_server_identity(), true);
  }
  result<> add_certificate(std::string_view server_name, const tls_config& config) override {
    const typename Derived::turn turn;
    std::string name(server_name);
    const result<tls_material> material = read_further_material(name, config);
    if (!material) return material.error();
    std::list<Certificate> added(1);  // the library may refer to its address
    added.front().name = std::move(name);
    result<> r = derived().read(added.front(), *material);
    if (r) further_.splice(further_.end(), added);
    return r;
  }

  /// The certificate for a name that a client asks for; null means the main one. An exact name has priority
  /// over a wildcard.
  [[nodiscard]] Certificate* further(std::string_view host) noexcept {
    Certificate* found = nullptr;
    for (Certificate& certificate : further_) {
      if (!covers_name(certificate.name, host)) continue;
      if (!certificate.name.starts_with("*.")) return &certificate;
      if (found == nullptr) found = &certificate;
    }
    return found;
  }

  tls_sessions<Session> sessions;
  tls_verify verify = tls_verify::peer;
  tls_verify verify_client = tls_verify::none;

 private:
  Derived& derived() noexcept { return static_cast<Derived&>(*this); }
  /// Reads the system's authorities, once, unless others are given.
  void trust_system() {
    const process_lock lock(trust_mutex_);
    if (!system_trust_) return;
    derived().trust(read_system_trust());
    system_trust_ = false;
  }

  std::list<Certificate> further_;
  bool has_certificate_ = false;
  bool system_trust_ = false;
  process_mutex trust_mutex_;
};

}}}  // namespace anyio::detail

#endif
