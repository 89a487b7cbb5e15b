// The engine for OpenSSL 3.
//
// OpenSSL reads and writes through a BIO over the pipe. The BIO accepts all output. Without input it asks to
// retry, also if no more input will follow: the engine itself reports an end without close_notify, since
// OpenSSL would break the connection for it, also for writing. OpenSSL's queue of errors belongs to the
// thread, so it is emptied before every call and left empty after a failure.
#pragma once

#include "tls/openssl/tls_openssl.hpp"
#include "tls/openssl/tls_openssl_keys.ipp"

#if defined(ANYIO_NET_OPENSSL)

#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// Encodes protocols as in a message (RFC 7301, section 3.1).
inline std::vector<unsigned char> encode_protocols(const std::vector<std::string>& protocols) {
  std::vector<unsigned char> encoded;
  for (const std::string& protocol : protocols) {
    encoded.push_back(static_cast<unsigned char>(protocol.size()));
    encoded.insert(encoded.end(), protocol.begin(), protocol.end());
  }
  return encoded;
}

/// Takes the first protocol of an encoded list; empty if there is none or it is truncated.
inline std::span<const unsigned char> take_protocol(std::span<const unsigned char>& encoded) noexcept {
  if (encoded.empty() || encoded[0] >= encoded.size()) return {};
  const std::span<const unsigned char> protocol = encoded.subspan(1, encoded[0]);
  encoded = encoded.subspan(1 + protocol.size());
  return protocol;
}

// == failures ==

inline const char* verify_reason(long verdict) noexcept {
  switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED: return tls_reason::expired;
    case X509_V_ERR_CERT_NOT_YET_VALID: return tls_reason::not_yet_valid;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return tls_reason::other_name;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: return tls_reason::self_signed;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED: return tls_reason::unknown_authority;
    case X509_V_ERR_CERT_REVOKED: return tls_reason::revoked;
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL:
    case X509_V_ERR_CA_MD_TOO_WEAK: return tls_reason::weak;
    case X509_V_ERR_INVALID_PURPOSE: return tls_reason::other_purpose;
    default: return tls_reason::unverified;
  }
}

/// What the macro SSL_CTX_set1_groups_list does, without its cast in the style of C. OpenSSL only reads the
/// text.
inline bool set_groups(SSL_CTX* library, const char* list) {
  return SSL_CTX_ctrl(library, SSL_CTRL_SET_GROUPS_LIST, 0, const_cast<char*>(list)) == 1;
}

/// Chooses the groups for key agreement.
inline bool choose_groups(SSL_CTX* library) {
  // OpenSSL 3.5 and later: a hybrid with ML-KEM, and key shares of it and of X25519, as by default there.
  // Older versions know neither the group nor the asterisk.
  if (set_groups(library, "*X25519MLKEM768:*X25519:P-256:P-384")) return true;
  std::string known;  // a provider may lack some: the one for FIPS 140 has no X25519
  constexpr const char* wanted[] = {"X25519", "P-256", "P-384"};
  for (const char* const group : wanted) {
    if (!set_groups(library, group)) continue;
    if (!known.empty()) known += ':';
    known += group;
  }
  ERR_clear_error();
  return set_groups(library, known.c_str());
}

/// Whether OpenSSL reports this reason if a first record is not TLS.
inline bool speaks_of_garbage(int reason) noexcept {
  switch (reason) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_LENGTH_TOO_SHORT:
    case SSL_R_RECORD_LENGTH_MISMATCH:
    case SSL_R_BAD_RECORD_TYPE:
    case SSL_R_UNEXPECTED_MESSAGE:
    case SSL_R_BAD_CHANGE_CIPHER_SPEC:
    case SSL_R_INVALID_ALERT:
    case SSL_R_UNKNOWN_ALERT_TYPE: return true;
    default: return false;
  }
}

// == contexts and engines ==

class openssl_engine;

/// The state that all connections share.
class openssl_credentials final
    : public tls_credentials<openssl_credentials, openssl_identity, openssl_session> {
 public:
  using turn = openssl_turn;

  [[nodiscard]] result<> set_up(const tls_material& material);
  [[nodiscard]] result<> read(openssl_identity& into, const tls_material& material);
  void trust(std::string_view text);
  [[nodiscard]] std::unique_ptr<tls_engine> make_engine(tls_pipe& pipe, tls_server_identity&& identity,
                                                        bool server_side);

 private:
  friend class openssl_engine;

  openssl_ptr<SSL_CTX, SSL_CTX_free> library_;
  std::vector<unsigned char> protocols_;
};

/// One connection. OpenSSL calls its static functions back. No exception may leave them, so they report a
/// failed allocation to OpenSSL.
class openssl_engine final : public tls_engine {
 public:
  openssl_engine(std::shared_ptr<openssl_credentials> credentials, tls_pipe& pipe) noexcept
      : credentials_(std::move(credentials)), pipe_(pipe) {}
  ~openssl_engine() override;

  /// Called once, before any other function. Returns false if there is no memory.
  [[nodiscard]] bool set_up(const tls_server_identity& server, bool server_side);

  tls_status handshake() override;
  tls_status read(mutable_buffer into, std::size_t& n) override;
  tls_status write(const_buffer data, std::size_t& n) override;
  tls_status close() override;
  bool pending() const override { return SSL_pending(library_.get()) > 0; }
  tls_info info() const override;
  std::string last_error() const override { return reason_; }

  static int keep_session(SSL* connection, SSL_SESSION* session) noexcept;
  static int choose_certificate(SSL* connection, int* alert, void*) noexcept;
  static int choose_protocol(SSL* connection, const unsigned char** chosen, unsigned char* chosen_size,
                             const unsigned char* offered, unsigned int offered_size, void*) noexcept;

 private:
  static openssl_engine& of(SSL* connection) noexcept {
    return *static_cast<openssl_engine*>(SSL_get_ex_data(connection, 0));  // index 0 is the application's
  }
  static BIO_METHOD* pipe_method() noexcept;
  static int read_pipe(BIO* bio, char* into, int size) noexcept;
  static int write_pipe(BIO* bio, const char* data, int size) noexcept;
  static long control_pipe(BIO* bio, int command, long, void*) noexcept;

  [[nodiscard]] bool set_up_client(const tls_server_identity& server);
  tls_status outcome(int returned) noexcept;
  const char* failure() const noexcept;

  const std::shared_ptr<openssl_credentials> credentials_;
  tls_pipe& pipe_;
  openssl_ptr<SSL, SSL_free> library_;
  std::string server_name_;
  std::string session_key_;  // client only: the key of the server's sessions
  const char* reason_ = "";
  bool established_ = false;
  bool broken_ = false;
};

// == the pipe as a BIO ==

ANYIO_NET_FN BIO_METHOD* openssl_engine::pipe_method() noexcept {
  static BIO_METHOD* const made = [] {
    BIO_METHOD* const method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "anyio_net pipe");
    if (method == nullptr) return method;
    BIO_meth_set_read(method, read_pipe);
    BIO_meth_set_write(method, write_pipe);
    BIO_meth_set_ctrl(method, control_pipe);
    return method;
  }();
  return made;
}

ANYIO_NET_FN int openssl_engine::read_pipe(BIO* bio, char* into, int size) noexcept {
  tls_pipe& pipe = *static_cast<tls_pipe*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (size <= 0) return 0;
  const std::size_t n = take_received(pipe, into, static_cast<std::size_t>(size));
  if (n != 0) return static_cast<int>(n);
  BIO_set_retry_read(bio);
  return -1;
}

ANYIO_NET_FN int openssl_engine::write_pipe(BIO* bio, const char* data, int size) noexcept {
  BIO_clear_retry_flags(bio);
  if (size <= 0) return 0;
  byte_queue& tx = static_cast<tls_pipe*>(BIO_get_data(bio))->tx;
  const const_buffer bytes(data, static_cast<std::size_t>(size));
  if (call_without_throwing([&] { tx.append(bytes); })) return size;
  ERR_raise(ERR_LIB_BIO, ERR_R_MALLOC_FAILURE);
  return -1;
}

ANYIO_NET_FN long openssl_engine::control_pipe(BIO* bio, int command, long, void*) noexcept {
  const tls_pipe& pipe = *static_cast<const tls_pipe*>(BIO_get_data(bio));
  switch (command) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_EOF: return pipe.rx_eof && pipe.rx.empty() ? 1 : 0;
    default: return 0;
  }
}

// == the engine ==

ANYIO_NET_FN bool openssl_engine::set_up(const tls_server_identity& server, bool server_side) {
  library_.reset(SSL_new(credentials_->library_.get()));
  SSL* const library = library_.get();
  BIO_METHOD* const method = pipe_method();
  BIO* const bio = library != nullptr && method != nullptr ? BIO_new(method) : nullptr;
  if (bio == nullptr) return false;
  BIO_set_data(bio, &pipe_);
  BIO_set_init(bio, 1);
  SSL_set_bio(library, bio, bio);
  X509_VERIFY_PARAM_set_time(SSL_get0_param(library), static_cast<time_t>(calendar_now()));
  if (SSL_set_ex_data(library, 0, this) != 1) return false;
  if (!server_side) return set_up_client(server);
  int mode = SSL_VERIFY_NONE;
  if (credentials_->verify_client != tls_verify::none) mode = SSL_VERIFY_PEER;
  if (credentials_->verify_client == tls_verify::peer) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_set_accept_state(library);
  SSL_set_verify(library, mode, nullptr);
  return true;
}

ANYIO_NET_FN bool openssl_engine::set_up_client(const tls_server_identity& server) {
  SSL* const library = library_.get();
  SSL_set_connect_state(library);
  const bool verify = credentials_->verify != tls_verify::none;
  SSL_set_verify(library, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (!server.name.empty()) {
    server_name_ = server.name;
    // Checks only subjectAltName (RFC 9525, section 6), in which "*" stands for a whole label.
    SSL_set_hostflags(library, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    // Here and below: the call that OpenSSL's macro makes, without its old-style cast.
    if (SSL_ctrl(library, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, server_name_.data()) != 1)
      return false;
    if (verify && SSL_set1_host(library, server_name_.c_str()) != 1) return false;
  } else if (server.address) {
    const std::span<const std::byte> bytes = server.address->bytes();
    const auto* const address = reinterpret_cast<const unsigned char*>(bytes.data());
    if (verify && X509_VERIFY_PARAM_set1_ip(SSL_get0_param(library), address, bytes.size()) != 1)
      return false;
  }
  session_key_ = session_key(server);
  if (const std::optional<openssl_session> session = credentials_->sessions.take(session_key_)) {
    if (SSL_SESSION_is_resumable(session->get()) == 1) SSL_set_session(library, session->get());
    ERR_clear_error();
  }
  return true;
}

ANYIO_NET_FN openssl_engine::~openssl_engine() {
  // Without this OpenSSL forgets the session of a connection that ended without close_notify.
  if (established_ && !broken_) SSL_set_shutdown(library_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
}

ANYIO_NET_FN tls_status openssl_engine::handshake() {
  ERR_clear_error();
  const std::size_t before = pipe_.tx.size();
  SSL* const library = library_.get();
  const int returned = SSL_do_handshake(library);
  if (returned != 1) return outcome(returned);
  if (std::exchange(established_, true)) return tls_status::ok;
  if (SSL_is_server(library) == 1) {
    // After the client's last message a server sends only tickets.
    if (SSL_version(library) == TLS1_3_VERSION) pipe_.may_wait = pipe_.tx.size() - before;
  } else if (SSL_session_reused(library) == 1 && SSL_version(library) == TLS1_2_VERSION) {
    credentials_->sessions.put(session_key_, openssl_session(SSL_get1_session(library)));
  }
  return tls_status::ok;
}

ANYIO_NET_FN tls_status openssl_engine::read(mutable_buffer into, std::size_t& n) {
  n = 0;
  const bool ended = pipe_.rx_eof || (SSL_get_shutdown(library_.get()) & SSL_RECEIVED_SHUTDOWN) != 0;
  if (pipe_.rx.empty() && !ended && SSL_has_pending(library_.get()) == 0) {
    pipe_.starved = true;  // OpenSSL would find the same, but takes longer
    return tls_status::want_input;
  }
  forget_openssl_errors();
  const int returned = SSL_read_ex(library_.get(), into.data(), into.size(), &n);
  return returned == 1 ? tls_status::ok : outcome(returned);
}

ANYIO_NET_FN tls_status openssl_engine::write(const_buffer data, std::size_t& n) {
  forget_openssl_errors();
  n = 0;
  const int returned = SSL_write_ex(library_.get(), data.data(), data.size(), &n);
  return returned == 1 ? tls_status::ok : outcome(returned);
}

ANYIO_NET_FN tls_status openssl_engine::close() {
  if (broken_) return tls_status::failed;
  if (!established_ || (SSL_get_shutdown(library_.get()) & SSL_SENT_SHUTDOWN) != 0) return tls_status::ok;
  ERR_clear_error();
  const int returned = SSL_shutdown(library_.get());
  return returned >= 0 ? tls_status::ok : outcome(returned);
}

/// The status after a call that did not succeed.
ANYIO_NET_FN tls_status openssl_engine::outcome(int returned) noexcept {
  switch (SSL_get_error(library_.get(), returned)) {
    case SSL_ERROR_ZERO_RETURN: return tls_status::closed;
    case SSL_ERROR_WANT_READ:
      return pipe_.rx_eof && pipe_.rx.empty() ? tls_status::truncated : tls_status::want_input;
    case SSL_ERROR_WANT_WRITE:
    case SSL_ERROR_WANT_X509_LOOKUP:
    case SSL_ERROR_WANT_ASYNC:
    case SSL_ERROR_WANT_ASYNC_JOB:
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
    case SSL_ERROR_WANT_RETRY_VERIFY: return tls_status::again;
    default:  // SSL_ERROR_SSL, and SSL_ERROR_SYSCALL with nothing in the queue
      if (const char* const reason = failure(); !std::exchange(broken_, true)) reason_ = reason;
      return tls_status::failed;
  }
}

/// The reason in the queue of errors, which is empty afterwards.
ANYIO_NET_FN const char* openssl_engine::failure() const noexcept {
  const unsigned long code = drain_openssl_errors();
  if (ERR_GET_LIB(code) != ERR_LIB_SSL) return openssl_words(code);
  const int reason = ERR_GET_REASON(code);
  if (reason >= SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255)
    return alert_reason(reason - SSL_AD_REASON_OFFSET);
  if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) return verify_reason(SSL_get_verify_result(library_.get()));
  if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) return tls_reason::none_shown;
  if (reason == SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC) return tls_reason::bad_record;
  if (reason == SSL_R_TOO_MANY_WARN_ALERTS) return tls_reason::many_warnings;
  const OSSL_HANDSHAKE_STATE state = SSL_get_state(library_.get());
  const bool nothing_came = state == TLS_ST_BEFORE || state == TLS_ST_CW_CLNT_HELLO;
  if (nothing_came && speaks_of_garbage(reason)) return tls_reason::not_tls;
  return openssl_words(code);
}

ANYIO_NET_FN tls_info openssl_engine::info() const {
  tls_info info;
  const SSL* const library = library_.get();
  info.version = SSL_get_version(library);
  if (const SSL_CIPHER* const cipher = SSL_get_current_cipher(library))
    info.cipher = SSL_CIPHER_standard_name(cipher);
  const unsigned char* protocol = nullptr;
  unsigned int protocol_size = 0;
  SSL_get0_alpn_selected(library, &protocol, &protocol_size);
  if (protocol_size != 0) info.alpn.assign(reinterpret_cast<const char*>(protocol), protocol_size);
  info.server_name = server_name_;
  if (const X509* const certificate = SSL_get0_peer_certificate(library)) {
    const int size = i2d_X509(certificate, nullptr);
    if (size > 0) {
      info.peer_certificate_der.resize(static_cast<std::size_t>(size));
      auto* out = reinterpret_cast<unsigned char*>(info.peer_certificate_der.data());
      i2d_X509(certificate, &out);
    }
  }
  info.server_side = SSL_is_server(library) == 1;
  info.resumed = SSL_session_reused(library) == 1;
  return info;
}

/// Called when a client has a session that it may resume. Returns 1 if it takes ownership.
ANYIO_NET_FN int openssl_engine::keep_session(SSL* connection, SSL_SESSION* session) noexcept {
  const openssl_engine& engine = of(connection);
  if (engine.session_key_.empty()) return 0;
  openssl_session kept(session);
  static_cast<void>(call_without_throwing(
      [&] { engine.credentials_->sessions.put(engine.session_key_, std::move(kept)); }));
  return 1;  // kept or freed: this function owns it in either case
}

/// Called when a server knows the name that the client asks for.
ANYIO_NET_FN int openssl_engine::choose_certificate(SSL* connection, int* alert, void*) noexcept {
  const char* const name = SSL_get_servername(connection, TLSEXT_NAMETYPE_host_name);
  if (name == nullptr || SSL_is_server(connection) == 0) return SSL_TLSEXT_ERR_OK;
  openssl_engine& engine = of(connection);
  if (!call_without_throwing([&] { engine.server_name_ = parse_server_name(name).name; })) {
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  const openssl_identity* const identity = engine.credentials_->further(engine.server_name_);
  if (identity == nullptr) return SSL_TLSEXT_ERR_OK;
  // Otherwise a main certificate with another kind of key could still be shown.
  SSL_certs_clear(connection);
  if (identity->show(connection)) return SSL_TLSEXT_ERR_OK;
  *alert = SSL_AD_INTERNAL_ERROR;
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/// Called when a server knows the protocols that the client supports.
ANYIO_NET_FN int openssl_engine::choose_protocol(SSL* connection, const unsigned char** chosen,
                                                 unsigned char* chosen_size, const unsigned char* offered,
                                                 unsigned int offered_size, void*) noexcept {
  std::span<const unsigned char> own = of(connection).credentials_->protocols_;
  for (;;) {
    const std::span<const unsigned char> protocol = take_protocol(own);
    if (protocol.empty()) return SSL_TLSEXT_ERR_ALERT_FATAL;  // no_application_protocol
    std::span<const unsigned char> theirs(offered, offered_size);
    for (;;) {
      const std::span<const unsigned char> candidate = take_protocol(theirs);
      if (candidate.empty()) break;
      if (!std::equal(protocol.begin(), protocol.end(), candidate.begin(), candidate.end())) continue;
      *chosen = protocol.data();
      *chosen_size = static_cast<unsigned char>(protocol.size());
      return SSL_TLSEXT_ERR_OK;
    }
  }
}

// == the context ==

ANYIO_NET_FN result<> openssl_credentials::set_up(const tls_material& material) {
  const auto refused = [] { return tls_failure("tls", openssl_words(drain_openssl_errors())); };
  library_.reset(SSL_CTX_new(TLS_method()));
  SSL_CTX* const library = library_.get();
  if (library == nullptr) return refused();
  SSL_CTX_set_mode(library, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_options(library, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  constexpr const char* suites = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:!AESCCM8:!PSK";
  if (SSL_CTX_set_cipher_list(library, suites) != 1 || !choose_groups(library)) return refused();
  const int least = material.min_version == tls_version::v1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
  if (SSL_CTX_set_min_proto_version(library, least) != 1) {
    ERR_clear_error();
    return error_access::with_reason(error(errc::tls, 0, "tls: min_version"), tls_reason::version_missing);
  }

  // A server stores no sessions, its tickets hold them; a client's sessions go to `sessions`.
  constexpr unsigned char session_context[] = "anyio_net";
  if (SSL_CTX_set_session_id_context(library, session_context, sizeof session_context) != 1) return refused();
  SSL_CTX_set_session_cache_mode(library, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(library, openssl_engine::keep_session);
  if (SSL_CTX_callback_ctrl(library, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB,
                            reinterpret_cast<void (*)()>(openssl_engine::choose_certificate)) != 1)
    return refused();

  X509_STORE* const store = SSL_CTX_get_cert_store(library);
  // A given authority is trusted even if the authority above it is not given.
  if (X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) != 1) return refused();
  if (material.ca.given()) {
    const result<std::vector<openssl_certificate>> authorities = read_certificates(material.ca);
    if (!authorities) return authorities.error();
    for (const openssl_certificate& authority : *authorities)
      if (X509_STORE_add_cert(store, authority.get()) != 1) return refused();
  }

  protocols_ = encode_protocols(material.alpn);
  if (!protocols_.empty()) {
    if (SSL_CTX_set_alpn_protos(library, protocols_.data(), static_cast<unsigned int>(protocols_.size())) !=
        0)
      return refused();
    SSL_CTX_set_alpn_select_cb(library, openssl_engine::choose_protocol, nullptr);
  }

  if (material.certificate.given()) {
    openssl_identity identity;
    if (result<> r = identity.read(material); !r) return r;
    ERR_clear_error();
    if (!identity.show(library)) return material.certificate.wrong(openssl_words(drain_openssl_errors()));
  }
  return {};
}

ANYIO_NET_FN void openssl_credentials::trust(std::string_view text) {
  X509_STORE* const store = SSL_CTX_get_cert_store(library_.get());
  for (;;) {
    const std::string_view block = take_pem_block(text, "CERTIFICATE");
    if (block.empty()) break;
    // A certificate that cannot be read is skipped.
    if (const openssl_certificate authority = read_certificate(block))
      X509_STORE_add_cert(store, authority.get());
  }
  ERR_clear_error();
}

ANYIO_NET_FN std::unique_ptr<tls_engine> openssl_credentials::make_engine(tls_pipe& pipe,
                                                                          tls_server_identity&& identity,
                                                                          bool server_side) {
  auto engine = std::make_unique<openssl_engine>(shared_from_this(), pipe);
  if (!engine->set_up(identity, server_side)) return nullptr;
  return engine;
}

ANYIO_NET_FN result<> openssl_credentials::read(openssl_identity& into, const tls_material& material) {
  if (result<> r = into.read(material); !r) return r;
  // A trial, so that a certificate that is too weak for OpenSSL is rejected now.
  ERR_clear_error();
  const openssl_ptr<SSL, SSL_free> trial(SSL_new(library_.get()));
  if (trial && into.show(trial.get())) return {};
  return material.certificate.wrong(openssl_words(drain_openssl_errors()));
}

}  // namespace detail

ANYIO_NET_FN result<std::shared_ptr<tls_context>> openssl_context(tls_config config) {
  return detail::openssl_credentials::make(config);
}

}}  // namespace anyio

#endif
