// Certificates and keys for OpenSSL 3, and its queue of errors.
#pragma once

#include "base/buffer.hpp"
#include "base/error.hpp"
#include "base/result.hpp"
#include "tls/engine/tls_credentials.hpp"

#if defined(ANYIO_NET_OPENSSL)

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

inline void free_certificates(STACK_OF(X509) * certificates) noexcept {
  sk_X509_pop_free(certificates, X509_free);
}

template <auto release>
struct openssl_release {
  template <class T>
  void operator()(T* object) const noexcept {
    release(object);
  }
};
template <class T, auto release>
using openssl_ptr = std::unique_ptr<T, openssl_release<release>>;

using openssl_bio = openssl_ptr<BIO, BIO_free>;
using openssl_certificate = openssl_ptr<X509, X509_free>;
using openssl_certificates = openssl_ptr<STACK_OF(X509), free_certificates>;
using openssl_key = openssl_ptr<EVP_PKEY, EVP_PKEY_free>;
using openssl_session = openssl_ptr<SSL_SESSION, SSL_SESSION_free>;

/// Held during calls of OpenSSL: its queue of errors belongs to the thread, and is empty before and
/// afterwards.
class openssl_turn {
 public:
  openssl_turn() noexcept { ERR_clear_error(); }
  openssl_turn(const openssl_turn&) = delete;
  openssl_turn& operator=(const openssl_turn&) = delete;
  ~openssl_turn() { ERR_clear_error(); }
};

/// ERR_clear_error, but cheap if there are no errors.
inline void forget_openssl_errors() noexcept {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

/// Empties the thread's queue of errors. Returns the TLS library's first entry, else the first of all, 0 if
/// none.
inline unsigned long drain_openssl_errors() noexcept {
  unsigned long found = 0;
  while (const unsigned long code = ERR_get_error()) {
    const bool better = ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_LIB(found) != ERR_LIB_SSL;
    if (found == 0 || better) found = code;
  }
  return found;
}

/// OpenSSL's own text, which is static.
inline const char* openssl_words(unsigned long code) noexcept {
  const char* const words = ERR_reason_error_string(code);
  return words != nullptr ? words : "the TLS library reports no reason";
}

// == texts ==

/// Takes the next block of a PEM text whose label ends with `label_end`, and drops the text before it. Empty
/// if there is none. It proceeds block by block, so that a damaged block is not taken for another kind.
inline std::string_view take_pem_block(std::string_view& text, std::string_view label_end) noexcept {
  constexpr std::string_view opening = "-----BEGIN ";
  for (;;) {
    text.remove_prefix(std::min(text.find(opening), text.size()));
    if (text.empty()) return {};
    const std::string_view block = text.substr(0, text.find(opening, opening.size()));
    text.remove_prefix(block.size());
    const std::string_view label = block.substr(opening.size());
    if (label.substr(0, label.find_first_of("-\r\n")).ends_with(label_end)) return block;
  }
}

/// Answers OpenSSL when it asks for a password; otherwise OpenSSL would ask a terminal.
struct openssl_password {
  std::string_view known;
  bool asked = false;

  static int answer(char* into, int size, int, void* self) noexcept {
    auto& password = *static_cast<openssl_password*>(self);
    password.asked = true;
    if (password.known.empty() || password.known.size() > static_cast<std::size_t>(size)) return -1;
    std::memcpy(into, password.known.data(), password.known.size());
    return static_cast<int>(password.known.size());
  }
};

/// Reads a block with one of OpenSSL's functions; null if it is not of that kind.
template <class T, class Read>
T* read_pem_block(std::string_view block, openssl_password& password, Read* read) noexcept {
  const openssl_turn turn;
  if (block.size() > INT_MAX) return nullptr;
  const openssl_bio bio(BIO_new_mem_buf(block.data(), static_cast<int>(block.size())));
  return bio ? read(bio.get(), nullptr, openssl_password::answer, &password) : nullptr;
}

/// Returns null if the block is not a certificate.
inline openssl_certificate read_certificate(std::string_view block) noexcept {
  openssl_password none;
  return openssl_certificate(read_pem_block<X509>(block, none, PEM_read_bio_X509_AUX));
}

inline result<std::vector<openssl_certificate>> read_certificates(const tls_text& from) {
  std::vector<openssl_certificate> certificates;
  std::string_view rest = from.text;
  for (;;) {
    const std::string_view block = take_pem_block(rest, "CERTIFICATE");
    if (block.empty()) break;
    openssl_certificate certificate = read_certificate(block);
    if (!certificate) return from.wrong(tls_reason::bad_certificate);
    certificates.push_back(std::move(certificate));
  }
  if (certificates.empty()) return from.wrong(tls_reason::no_certificate);
  return certificates;
}

inline result<openssl_key> read_private_key(const tls_text& from, std::string_view password) {
  std::string_view rest = from.text;
  const std::string_view block = take_pem_block(rest, "PRIVATE KEY");
  if (block.empty()) return from.wrong(tls_reason::no_private_key);
  openssl_password answers{password};
  openssl_key key(read_pem_block<EVP_PKEY>(block, answers, PEM_read_bio_PrivateKey));
  if (key) return key;
  if (!answers.asked) return from.wrong(tls_reason::bad_private_key);
  const char* const reason = password.empty() ? tls_reason::password_missing : tls_reason::password_wrong;
  return error_access::with_reason(error(errc::tls, 0, "tls: private_key_password"), reason);
}

/// The certificates and the key that one end shows.
struct openssl_identity {
  std::string name;  // the server's name, for further certificates
  openssl_certificate certificate;
  openssl_certificates chain;  // those that lead to the authority
  openssl_key key;

  [[nodiscard]] bool show(SSL* connection) const noexcept {
    return SSL_use_cert_and_key(connection, certificate.get(), key.get(), chain.get(), 1) == 1;
  }
  [[nodiscard]] bool show(SSL_CTX* all) const noexcept {
    return SSL_CTX_use_cert_and_key(all, certificate.get(), key.get(), chain.get(), 1) == 1;
  }
  [[nodiscard]] result<> read(const tls_material& material) {
    result<std::vector<openssl_certificate>> certificates = read_certificates(material.certificate);
    if (!certificates) return certificates.error();
    result<openssl_key> own = read_private_key(material.private_key, material.password);
    if (!own) return own.error();
    key = std::move(*own);
    certificate = std::move(certificates->front());
    chain.reset(sk_X509_new_null());
    for (auto i = certificates->begin() + 1; i != certificates->end(); ++i) {
      if (!chain || sk_X509_push(chain.get(), i->get()) == 0)
        return material.certificate.wrong(openssl_words(drain_openssl_errors()));
      static_cast<void>(i->release());  // the stack owns it now
    }
    if (X509_check_private_key(certificate.get(), key.get()) == 1) return {};
    ERR_clear_error();
    return material.private_key.wrong(tls_reason::other_private_key);
  }
};

}}}  // namespace anyio::detail

#endif
