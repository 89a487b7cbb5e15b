// Certificates and keys for mbedTLS: 2.28, and 3.2 and later.
//
// This part adds what 2.28 lacks: addresses in certificates, and AES for encrypted keys.
#pragma once

#include "base/address.hpp"
#include "tls/engine/tls_credentials.hpp"
#include "tls/mbedtls/tls_mbedtls.hpp"

#if defined(ANYIO_NET_MBEDTLS)

#include <mbedtls/version.h>

#if MBEDTLS_VERSION_NUMBER < 0x021c0000 || MBEDTLS_VERSION_NUMBER >= 0x04000000 || \
    (MBEDTLS_VERSION_NUMBER >= 0x03000000 && MBEDTLS_VERSION_NUMBER < 0x03020000)
#error "anyio_net.hpp needs mbedTLS 2.28, or 3.2 or later: leave ANYIO_NET_MBEDTLS undefined"
#endif
#if !defined(MBEDTLS_SSL_CLI_C) || !defined(MBEDTLS_SSL_SRV_C) || !defined(MBEDTLS_SSL_ALPN) || \
    !defined(MBEDTLS_SSL_SERVER_NAME_INDICATION) || !defined(MBEDTLS_PEM_PARSE_C)
#error "anyio_net.hpp needs an mbedTLS with client, server, ALPN, server names and PEM"
#endif
#if defined(MBEDTLS_ZLIB_SUPPORT)
#error "anyio_net.hpp needs an mbedTLS without MBEDTLS_ZLIB_SUPPORT: compression reveals secrets (CRIME)"
#endif

#include <mbedtls/asn1.h>
#include <mbedtls/cipher.h>
#include <mbedtls/error.h>
#include <mbedtls/md.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/pk.h>
#include <mbedtls/pkcs5.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/ssl.h>
#if MBEDTLS_VERSION_NUMBER < 0x03000000
#include <mbedtls/ssl_internal.h>
#endif
#include <mbedtls/x509_crt.h>

#if MBEDTLS_VERSION_NUMBER >= 0x03000000 && defined(MBEDTLS_PSA_CRYPTO_C)
#include <psa/crypto.h>
#endif

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if !defined(ANYIO_NET_NO_THREADS)
#include <mutex>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Held during calls of mbedTLS. An mbedTLS without its own locks shares keys and tables between threads, so
/// only one thread at a time may call it.
class mbedtls_turn {
#if !defined(MBEDTLS_THREADING_C) && !defined(ANYIO_NET_NO_THREADS)
 public:
  mbedtls_turn() : lock_(mutex()) {}

 private:
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex one;
    return one;
  }
  const std::lock_guard<std::recursive_mutex> lock_;
#else
 public:
  mbedtls_turn() noexcept {}
  ~mbedtls_turn() {}
#endif
};

#if MBEDTLS_VERSION_NUMBER < 0x03000000
/// The connection whose handshake takes a step on this thread.
inline constinit thread_local const mbedtls_ssl_context* mbedtls_in_handshake = nullptr;

/// Whether memory follows the place of the clock in a hello. 2.28 puts the system's clock before the random
/// bytes: the client where it keeps them, the server into the message. A simulation cannot control that
/// clock, and the peer learns it.
inline bool mbedtls_is_behind_clock(const unsigned char* into) noexcept {
  const mbedtls_ssl_context* const ssl = mbedtls_in_handshake;
  if (ssl == nullptr || ssl->handshake == nullptr) return false;
  constexpr std::size_t clock = 4;
  constexpr std::size_t hello = 6;  // its header and version
  return into == ssl->handshake->randbytes + clock || into == ssl->out_msg + hello + clock;
}
#endif

inline int mbedtls_draw(void*, unsigned char* into, std::size_t size) noexcept {
#if MBEDTLS_VERSION_NUMBER < 0x03000000
  if (mbedtls_is_behind_clock(into)) draw_random(into - 4, 4);
#endif
  draw_random(into, size);
  return 0;
}

/// mbedTLS's text for one of its error codes, or the number.
inline std::string mbedtls_words(int code) {
#if defined(MBEDTLS_ERROR_C)
  if (const char* words = mbedtls_high_level_strerr(code); words != nullptr) return words;
  if (const char* words = mbedtls_low_level_strerr(code); words != nullptr) return words;
#endif
  constexpr char digits[] = "0123456789abcdef";
  std::string text = "mbedTLS error -0x";
  const auto number = static_cast<unsigned>(-code);
  for (int shift = 12; shift >= 0; shift -= 4) text += digits[(number >> shift) & 15U];
  return text;
}

/// Seconds since 1970.
inline std::int64_t mbedtls_seconds(const mbedtls_x509_time& time) noexcept {
  const auto day = std::chrono::year(time.year) / std::chrono::month(static_cast<unsigned>(time.mon)) /
                   std::chrono::day(static_cast<unsigned>(time.day));
  const std::int64_t days = std::chrono::sys_days(day).time_since_epoch().count();
  return ((days * 24 + time.hour) * 60 + time.min) * 60 + time.sec;
}

/// Whether a certificate is for a server, only by the entries of its subjectAltName (RFC 9525, section 6).
/// 2.28 compares no addresses, falls back to the common name, and has its own rule for wildcards.
inline bool mbedtls_is_for(const mbedtls_x509_crt& certificate, const tls_server_identity& server) {
  constexpr int name_entry = 0x82;  // [2] and [7], RFC 5280, section 4.2.1.6
  constexpr int address_entry = 0x87;
  for (const mbedtls_x509_sequence* s = &certificate.subject_alt_names; s != nullptr; s = s->next) {
    const std::string_view entry(reinterpret_cast<const char*>(s->buf.p), s->buf.len);
    if (server.address) {
      const std::span<const std::byte> bytes = server.address->bytes();
      if (s->buf.tag == address_entry && entry.size() == bytes.size() &&
          std::memcmp(entry.data(), bytes.data(), bytes.size()) == 0)
        return true;
    } else if (s->buf.tag == name_entry && covers_name(entry, server.name)) {
      return true;
    }
  }
  return false;
}

/// The fault of the peer's certificate, null if it has none. Of several faults, the one that is most useful
/// to a person.
inline const char* mbedtls_verdict(std::uint32_t flags, bool self_signed) noexcept {
  const auto has = [flags](std::uint32_t any_of) { return (flags & any_of) != 0; };
  if (flags == 0xffffffffU) return tls_reason::unverified;
  if (has(MBEDTLS_X509_BADCERT_MISSING)) return tls_reason::none_shown;
  if (has(MBEDTLS_X509_BADCERT_EXPIRED)) return tls_reason::expired;
  if (has(MBEDTLS_X509_BADCERT_FUTURE)) return tls_reason::not_yet_valid;
  if (has(MBEDTLS_X509_BADCERT_CN_MISMATCH)) return tls_reason::other_name;
  if (has(MBEDTLS_X509_BADCERT_NOT_TRUSTED))
    return self_signed ? tls_reason::self_signed : tls_reason::unknown_authority;
  if (has(MBEDTLS_X509_BADCERT_REVOKED)) return tls_reason::revoked;
  if (has(MBEDTLS_X509_BADCERT_BAD_MD | MBEDTLS_X509_BADCERT_BAD_PK | MBEDTLS_X509_BADCERT_BAD_KEY))
    return tls_reason::weak;
  if (has(MBEDTLS_X509_BADCERT_KEY_USAGE | MBEDTLS_X509_BADCERT_EXT_KEY_USAGE |
          MBEDTLS_X509_BADCERT_NS_CERT_TYPE))
    return tls_reason::other_purpose;
  return flags == 0 ? nullptr : tls_reason::unverified;
}

// Reading certificates and keys.

/// Reads all certificates of a text into an empty list. Returns null, or the fault.
inline const char* mbedtls_read_certificates(mbedtls_x509_crt& into, const std::string& text) {
  constexpr std::string_view begin = "-----BEGIN CERTIFICATE-----";
  std::size_t announced = 0;
  for (std::size_t at = text.find(begin); at != std::string::npos; at = text.find(begin, at + begin.size()))
    ++announced;
  if (announced == 0) return tls_reason::no_certificate;
  // The size includes the final NUL, by which mbedTLS recognizes text.
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.c_str());
  if (mbedtls_x509_crt_parse(&into, bytes, text.size() + 1) != 0) return tls_reason::bad_certificate;
  // mbedTLS does not report a certificate that is cut off at the end.
  for (const mbedtls_x509_crt* c = &into; c != nullptr; c = c->next) --announced;
  return announced == 0 ? nullptr : tls_reason::bad_certificate;
}

inline int mbedtls_read_key(mbedtls_pk_context& key, const unsigned char* text, std::size_t size,
                            const std::string& password) {
  const auto* secret = password.empty() ? nullptr : reinterpret_cast<const unsigned char*>(password.data());
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
  return mbedtls_pk_parse_key(&key, text, size, secret, password.size(), mbedtls_draw, nullptr);
#else
  return mbedtls_pk_parse_key(&key, text, size, secret, password.size());
#endif
}

#if MBEDTLS_VERSION_NUMBER < 0x03000000 && defined(MBEDTLS_PKCS5_C) && defined(MBEDTLS_CIPHER_MODE_CBC)

/// The data that PBES2 (RFC 8018, section 6.2) needs to decrypt.
struct mbedtls_pbes2 {
  mbedtls_asn1_buf salt = {};
  mbedtls_asn1_buf iv = {};
  mbedtls_asn1_buf data = {};
  int rounds = 0;
  mbedtls_md_type_t hash = MBEDTLS_MD_SHA1;
  mbedtls_cipher_type_t cipher = MBEDTLS_CIPHER_NONE;
};

/// Reads an EncryptedPrivateKeyInfo (RFC 5958, section 3). Returns false if it is not PBES2 with AES-CBC.
inline bool mbedtls_parse_pbes2(mbedtls_pbes2& out, unsigned char* p, const unsigned char* end) {
  constexpr int sequence = MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE;
  const auto is = [](const mbedtls_asn1_buf& oid, std::string_view bytes) {
    return std::string_view(reinterpret_cast<const char*>(oid.p), oid.len) == bytes;
  };
  std::size_t size = 0;
  mbedtls_asn1_buf method = {}, parameters = {}, derivation = {}, derivation_parameters = {}, cipher = {};
  if (mbedtls_asn1_get_tag(&p, end, &size, sequence) != 0) return false;
  if (mbedtls_asn1_get_alg(&p, end, &method, &parameters) != 0) return false;
  if (mbedtls_asn1_get_tag(&p, end, &out.data.len, MBEDTLS_ASN1_OCTET_STRING) != 0) return false;
  out.data.p = p;
  if (!is(method, MBEDTLS_OID_PKCS5_PBES2) || parameters.tag != sequence) return false;

  p = parameters.p;
  end = p + parameters.len;
  if (mbedtls_asn1_get_alg(&p, end, &derivation, &derivation_parameters) != 0) return false;
  if (mbedtls_asn1_get_alg(&p, end, &cipher, &out.iv) != 0) return false;
  if (!is(derivation, MBEDTLS_OID_PKCS5_PBKDF2) || derivation_parameters.tag != sequence) return false;
  constexpr std::string_view aes("\x60\x86\x48\x01\x65\x03\x04\x01", 8);  // then one byte for the kind (NIST)
  if (cipher.len != aes.size() + 1 || std::memcmp(cipher.p, aes.data(), aes.size()) != 0) return false;
  switch (cipher.p[aes.size()]) {
    case 2: out.cipher = MBEDTLS_CIPHER_AES_128_CBC; break;
    case 22: out.cipher = MBEDTLS_CIPHER_AES_192_CBC; break;
    case 42: out.cipher = MBEDTLS_CIPHER_AES_256_CBC; break;
    default: return false;
  }
  if (out.iv.tag != MBEDTLS_ASN1_OCTET_STRING || out.iv.len != 16) return false;

  p = derivation_parameters.p;
  end = p + derivation_parameters.len;
  if (mbedtls_asn1_get_tag(&p, end, &out.salt.len, MBEDTLS_ASN1_OCTET_STRING) != 0) return false;
  out.salt.p = p;
  p += out.salt.len;
  if (mbedtls_asn1_get_int(&p, end, &out.rounds) != 0 || out.rounds <= 0) return false;
  if (p != end && *p == MBEDTLS_ASN1_INTEGER) {  // the key's length, which the cipher implies
    int length = 0;
    if (mbedtls_asn1_get_int(&p, end, &length) != 0) return false;
  }
  if (p == end) return true;
  mbedtls_asn1_buf function = {};
  return mbedtls_asn1_get_alg_null(&p, end, &function) == 0 && p == end &&
         mbedtls_oid_get_md_hmac(&function, &out.hash) == 0;
}

/// Decrypts PBES2 to DER; empty on failure.
inline std::vector<unsigned char> mbedtls_decrypt_pbes2(const mbedtls_pbes2& encrypted,
                                                        const std::string& password) {
  std::array<unsigned char, 32> secret = {};
  std::vector<unsigned char> plain(encrypted.data.len + 16);
  std::size_t size = 0;
  mbedtls_md_context_t hash;
  mbedtls_md_init(&hash);
  mbedtls_cipher_context_t cipher;
  mbedtls_cipher_init(&cipher);
  const mbedtls_cipher_info_t* kind = mbedtls_cipher_info_from_type(encrypted.cipher);
  const int bits = kind != nullptr ? static_cast<int>(kind->key_bitlen) : 0;
  const bool opened =
      kind != nullptr && mbedtls_md_setup(&hash, mbedtls_md_info_from_type(encrypted.hash), 1) == 0 &&
      mbedtls_pkcs5_pbkdf2_hmac(&hash, reinterpret_cast<const unsigned char*>(password.data()),
                                password.size(), encrypted.salt.p, encrypted.salt.len,
                                static_cast<unsigned>(encrypted.rounds), static_cast<std::uint32_t>(bits / 8),
                                secret.data()) == 0 &&
      mbedtls_cipher_setup(&cipher, kind) == 0 &&
      mbedtls_cipher_setkey(&cipher, secret.data(), bits, MBEDTLS_DECRYPT) == 0 &&
      mbedtls_cipher_crypt(&cipher, encrypted.iv.p, encrypted.iv.len, encrypted.data.p, encrypted.data.len,
                           plain.data(), &size) == 0;
  mbedtls_cipher_free(&cipher);
  mbedtls_md_free(&hash);
  mbedtls_platform_zeroize(secret.data(), secret.size());
  if (!opened) size = 0;
  mbedtls_platform_zeroize(plain.data() + size, plain.size() - size);
  plain.resize(size);
  return plain;
}

/// Reads a key that is encrypted in the way of OpenSSL 3, which 2.28 cannot. Returns null, or the fault.
inline const char* mbedtls_read_aes_key(mbedtls_pk_context& key, const tls_material& material) {
  mbedtls_pem_context pem;
  mbedtls_pem_init(&pem);
  std::size_t used = 0;
  const char* wrong = tls_reason::bad_private_key;
  mbedtls_pbes2 encrypted;
  if (mbedtls_pem_read_buffer(&pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----",
                              "-----END ENCRYPTED PRIVATE KEY-----",
                              reinterpret_cast<const unsigned char*>(material.private_key.text.c_str()),
                              nullptr, 0, &used) == 0 &&
      mbedtls_parse_pbes2(encrypted, pem.buf, pem.buf + pem.buflen)) {
    std::vector<unsigned char> plain = mbedtls_decrypt_pbes2(encrypted, material.password);
    if (!plain.empty() && mbedtls_read_key(key, plain.data(), plain.size(), {}) == 0)
      wrong = nullptr;
    else
      wrong = tls_reason::password_wrong;
    mbedtls_platform_zeroize(plain.data(), plain.size());
  }
  mbedtls_pem_free(&pem);
  return wrong;
}

#else

/// This mbedTLS reads such keys itself, or was built without the functions for it.
ANYIO_NET_FN const char* mbedtls_read_aes_key(mbedtls_pk_context&, const tls_material&) {
  return tls_reason::bad_private_key;
}

#endif

/// A certificate, those that lead to its authority, and its key. It must not move, because mbedTLS refers to
/// it.
class mbedtls_certificate {
 public:
  mbedtls_certificate() noexcept {
    mbedtls_x509_crt_init(&chain);
    mbedtls_pk_init(&key);
  }
  mbedtls_certificate(const mbedtls_certificate&) = delete;
  mbedtls_certificate& operator=(const mbedtls_certificate&) = delete;
  ~mbedtls_certificate() {
    mbedtls_pk_free(&key);
    mbedtls_x509_crt_free(&chain);
  }

  /// Must be called once.
  [[nodiscard]] result<> read(const tls_material& material) {
    if (const char* wrong = mbedtls_read_certificates(chain, material.certificate.text); wrong != nullptr)
      return material.certificate.wrong(wrong);
    if (result<> r = read_private_key(material); !r) return r;
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    const int differs = mbedtls_pk_check_pair(&chain.pk, &key, mbedtls_draw, nullptr);
#else
    const int differs = mbedtls_pk_check_pair(&chain.pk, &key);
#endif
    if (differs != 0) return material.private_key.wrong(tls_reason::other_private_key);
    return {};
  }

  std::string name;  // the server's name, for further certificates
  mbedtls_x509_crt chain;
  mbedtls_pk_context key;

 private:
  [[nodiscard]] result<> read_private_key(const tls_material& material) {
    const std::string& text = material.private_key.text;
    if (text.find("PRIVATE KEY-----") == std::string::npos)
      return material.private_key.wrong(tls_reason::no_private_key);
    const bool encrypted = text.find("-----BEGIN ENCRYPTED PRIVATE KEY-----") != std::string::npos ||
                           text.find("Proc-Type: 4,ENCRYPTED") != std::string::npos;
    const auto refuse_password = [](const char* reason) {
      return error_access::with_reason(error(errc::tls, 0, "tls: private_key_password"), reason);
    };
    if (encrypted && material.password.empty()) return refuse_password(tls_reason::password_missing);

    const auto* bytes = reinterpret_cast<const unsigned char*>(text.c_str());
    const int code = mbedtls_read_key(key, bytes, text.size() + 1, material.password);
    if (code == 0) return {};
    if (!encrypted) return material.private_key.wrong(tls_reason::bad_private_key);
    // With a wrong password, the decrypted data may by chance look right, but it is no key. mbedTLS adds a
    // reason to its codes, which is removed here.
    const int kind = -(-code & 0xff80);
    if (kind == MBEDTLS_ERR_PK_PASSWORD_MISMATCH || kind == MBEDTLS_ERR_PK_KEY_INVALID_FORMAT ||
        kind == MBEDTLS_ERR_PK_KEY_INVALID_VERSION)
      return refuse_password(tls_reason::password_wrong);
    const char* wrong = mbedtls_read_aes_key(key, material);
    if (wrong == nullptr) return {};
    return wrong == tls_reason::password_wrong ? refuse_password(wrong) : material.private_key.wrong(wrong);
  }
};

}  // namespace detail

}}  // namespace anyio

#endif
