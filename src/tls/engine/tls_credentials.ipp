// Reading the texts of a configuration, and the texts of their errors.
#pragma once

#include "base/standard.hpp"
#include "system/backend.hpp"
#include "tls/engine/tls_credentials.hpp"

#if defined(ANYIO_NET_MBEDTLS) || defined(ANYIO_NET_OPENSSL)

#include <cerrno>
#include <cstring>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Overwrites a secret; the compiler cannot optimize this away.
inline void wipe(std::string& secret) noexcept {
  secret.resize(secret.capacity());  // a short string that was moved from still lies here
  volatile char* p = secret.data();
  for (std::size_t i = 0; i < secret.size(); ++i) p[i] = 0;
  secret.clear();
}

ANYIO_NET_FN tls_material::~tls_material() {
  wipe(private_key.text);
  wipe(certificate.text);  // it may hold the key too
  wipe(ca.text);           // it may hold a key too
  wipe(password);
}

/// Reads one pair of fields, of which only one may be given.
inline result<> read_text(tls_text& out, std::string_view file, const char* file_field, std::string_view pem,
                          const char* pem_field) {
  if (!file.empty() && !pem.empty())
    return error_access::with_reason(error(errc::invalid_argument, 0, file_field),
                                     "given both as file and as text");
  if (!pem.empty()) {
    out.field = pem_field;
    out.text = pem;
  } else if (!file.empty()) {
    out.field = file_field;
    std::string path(file);
    const bool has_nul = path.find('\0') != std::string::npos;
    const int status = has_nul ? -ENOENT : read_file(path.c_str(), out.text);
    wipe(path);  // it may be a key's text, if the caller used the wrong field
    if (status < 0) return error(errc::tls, -status, file_field);
  }
  return {};
}

ANYIO_NET_FN result<tls_material> read_material(const tls_config& config) {
  tls_material m;
  const auto refuse = [](const char* field, const char* reason) {
    return error_access::with_reason(error(errc::invalid_argument, 0, field), reason);
  };
  if (result<> r = read_text(m.ca, config.ca_file, "tls: ca_file", config.ca_pem, "tls: ca_pem"); !r)
    return r.error();
  if (result<> r = read_text(m.certificate, config.certificate_file, "tls: certificate_file",
                             config.certificate_pem, "tls: certificate_pem");
      !r)
    return r.error();
  if (result<> r = read_text(m.private_key, config.private_key_file, "tls: private_key_file",
                             config.private_key_pem, "tls: private_key_pem");
      !r)
    return r.error();
  if (m.private_key.given() && !m.certificate.given())
    return refuse(m.private_key.field, "a private key is given without a certificate");
  if (m.certificate.given() && !m.private_key.given()) m.private_key = m.certificate;
  if (config.verify_client != tls_verify::none && !m.ca.given())
    return refuse("tls: verify_client",
                  "ca_file or ca_pem is required: public authorities issue certificates to anyone");
  m.password = config.private_key_password;
  for (const std::string_view protocol : config.alpn) {
    if (protocol.empty() || protocol.size() > 255 || protocol.find('\0') != std::string_view::npos)
      return refuse("tls: alpn", "ALPN names must be 1 to 255 bytes");
    m.alpn.emplace_back(protocol);
  }
  if (m.alpn.size() > 64) return refuse("tls: alpn", "more than 64 ALPN names");
  m.verify = config.verify;
  m.verify_client = config.verify_client;
  m.min_version = config.min_version;
  return m;
}

ANYIO_NET_FN result<tls_material> read_further_material(std::string& server_name, const tls_config& config) {
  const auto refuse = [](const char* reason) {
    return error_access::with_reason(error(errc::invalid_argument, 0, "add_certificate"), reason);
  };
  std::string_view host = server_name;
  if (host.starts_with("*.")) host.remove_prefix(2);
  const bool covers_too_much = host.size() != server_name.size() && host.find('.') == std::string_view::npos;
  if (parse_server_name(host).name.empty() || covers_too_much) return refuse("not a valid server name");
  if (server_name.ends_with('.')) server_name.pop_back();
  tls_config further = config;
  further.verify_client = tls_verify::none;  // the setting of the context applies
  result<tls_material> m = read_material(further);
  if (!m) return m.error();
  if (!m->certificate.given()) return refuse("a certificate is required");
  return m;
}

ANYIO_NET_FN std::string read_system_trust() {
  std::string text;
  const char* path = trust_file();
  if (path != nullptr && read_file(path, text) < 0) text.clear();
  return text;
}

struct alert_entry {
  int description;
  const char* reason;
};

// clang-format off
inline constexpr alert_entry alert_table[] = {
    {0, "the peer sent the alert close_notify"},
    {10, "the peer sent the alert unexpected_message"},
    {20, "the peer sent the alert bad_record_mac"},
    {21, "the peer sent the alert decryption_failed"},
    {22, "the peer sent the alert record_overflow"},
    {30, "the peer sent the alert decompression_failure"},
    {40, "the peer sent the alert handshake_failure"},
    {41, "the peer sent the alert no_certificate"},
    {42, "the peer sent the alert bad_certificate"},
    {43, "the peer sent the alert unsupported_certificate"},
    {44, "the peer sent the alert certificate_revoked"},
    {45, "the peer sent the alert certificate_expired"},
    {46, "the peer sent the alert certificate_unknown"},
    {47, "the peer sent the alert illegal_parameter"},
    {48, "the peer sent the alert unknown_ca"},
    {49, "the peer sent the alert access_denied"},
    {50, "the peer sent the alert decode_error"},
    {51, "the peer sent the alert decrypt_error"},
    {70, "the peer sent the alert protocol_version"},
    {71, "the peer sent the alert insufficient_security"},
    {80, "the peer sent the alert internal_error"},
    {86, "the peer sent the alert inappropriate_fallback"},
    {90, "the peer sent the alert user_canceled"},
    {100, "the peer sent the alert no_renegotiation"},
    {109, "the peer sent the alert missing_extension"},
    {110, "the peer sent the alert unsupported_extension"},
    {112, "the peer sent the alert unrecognized_name"},
    {113, "the peer sent the alert bad_certificate_status_response"},
    {115, "the peer sent the alert unknown_psk_identity"},
    {116, "the peer sent the alert certificate_required"},
    {120, "the peer sent the alert no_application_protocol"},
};
// clang-format on

ANYIO_NET_FN const char* alert_reason(int description) noexcept {
  for (const alert_entry& entry : alert_table)
    if (entry.description == description) return entry.reason;
  return "the peer sent an alert";
}

/// Whether a name has only labels of letters, digits, hyphens and underscores (RFC 1123, section 2.1, and
/// common use). Rejects names that an engine could take for a pattern, as OpenSSL does with a leading dot, or
/// a resolver for an address in another notation.
inline bool is_host_name(std::string_view name) noexcept {
  constexpr std::string_view allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
  if (name.size() > 253) return false;
  std::string_view label;
  for (std::string_view rest = name;;) {
    const std::size_t dot = rest.find('.');
    label = rest.substr(0, dot);
    if (label.empty() || label.size() > 63 || label.find_first_not_of(allowed) != label.npos) return false;
    if (dot == std::string_view::npos) break;
    rest.remove_prefix(dot + 1);
  }
  return !is_decimal(label) && !label.starts_with("0x") && !label.starts_with("0X");
}

ANYIO_NET_FN tls_server_identity parse_server_name(std::string_view server_name) {
  tls_server_identity identity;
  if (server_name.ends_with('.')) server_name.remove_suffix(1);
  const std::string_view host = server_name.substr(0, server_name.find('%'));
  if (result<ip_address> address = ip_address::parse(host)) {
    identity.address = unmapped(*address);  // a certificate names a mapped address as IPv4
  } else if (is_host_name(server_name)) {
    identity.name = server_name;
  }
  return identity;
}

ANYIO_NET_FN std::string session_key(const tls_server_identity& server) {
  if (server.address) return "address " + server.address->to_string();
  return server.name.empty() ? std::string() : "name " + server.name;
}

ANYIO_NET_FN bool covers_name(std::string_view pattern, std::string_view host) noexcept {
  if (!pattern.starts_with("*.")) return same_name(pattern, host);
  const std::size_t dot = host.find('.');
  // The wildcard stands for letters, digits and hyphens, as in OpenSSL.
  const bool label = dot != 0 && dot != std::string_view::npos && host.substr(0, dot).find('_') == host.npos;
  return label && pattern.find('.', 2) != std::string_view::npos &&
         same_name(pattern.substr(1), host.substr(dot));
}

ANYIO_NET_FN void draw_random(void* into, std::size_t size) {
  auto* p = static_cast<std::byte*>(into);
  while (size != 0) {
    const std::uint64_t value =
        security_of_thread != nullptr ? security_of_thread->entropy() : system_entropy();
    const std::size_t n = std::min(size, sizeof value);
    std::memcpy(p, &value, n);
    p += n;
    size -= n;
  }
}

ANYIO_NET_FN std::int64_t calendar_now() {
  return security_of_thread != nullptr ? security_of_thread->calendar() : system_calendar();
}

}}}  // namespace anyio::detail

#endif
