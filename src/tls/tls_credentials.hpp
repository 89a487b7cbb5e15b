// The part of a configuration that every engine handles alike: its texts and their errors, names of servers,
// sessions to resume. So the same mistake has the same error text with every TLS library. This part must not
// know a TLS library.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/result.hpp"
#include "tls/tls.hpp"

#include <array>
#include <cstdint>
#include <iterator>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if !defined(ANYIO_NET_NO_THREADS)
#include <mutex>
#endif

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

/// Of several certificates, the one for a host; null if there is none. An exact name has priority over a
/// wildcard.
template <class Certificates>
auto certificate_for(Certificates& all, std::string_view host) noexcept -> decltype(&*all.begin()) {
  decltype(&*all.begin()) found = nullptr;
  for (auto& certificate : all) {
    if (!covers_name(certificate.name, host)) continue;
    if (!certificate.name.starts_with("*.")) return &certificate;
    if (found == nullptr) found = &certificate;
  }
  return found;
}

/// Draws random bytes, from this thread's loop if there is one, so that a simulation repeats them.
void draw_random(void* into, std::size_t size);
/// Seconds since 1970, from this thread's loop if there is one.
[[nodiscard]] std::int64_t calendar_now();

/// Sessions that clients may resume: the latest one of each recently used server. Any thread may use it.
template <class Session>
class tls_sessions {
 public:
  void put(const std::string& server, Session session) {
    constexpr std::size_t most = 64;
    if (server.empty()) return;
    const guard lock(mutex_);
    forget(server);
    sessions_.emplace_front(server, std::move(session));
    if (sessions_.size() > most) sessions_.pop_back();
  }
  /// Removes and returns a session: a TLS 1.3 ticket should be used only once (RFC 8446, appendix C.4).
  [[nodiscard]] std::optional<Session> take(const std::string& server) {
    const guard lock(mutex_);
    for (auto i = sessions_.begin(); i != sessions_.end(); ++i) {
      if (i->first != server) continue;
      std::optional<Session> found(std::move(i->second));
      sessions_.erase(i);
      return found;
    }
    return {};
  }

 private:
#if !defined(ANYIO_NET_NO_THREADS)
  using mutex = std::mutex;
  using guard = std::lock_guard<std::mutex>;
#else
  struct mutex {};
  struct guard {
    explicit guard(mutex&) noexcept {}
    ~guard() {}
  };
#endif
  void forget(const std::string& server) {
    for (auto i = sessions_.begin(); i != sessions_.end();)
      i = i->first == server ? sessions_.erase(i) : std::next(i);
  }

  mutex mutex_;
  std::list<std::pair<std::string, Session>> sessions_;
};

}}}  // namespace anyio::detail
