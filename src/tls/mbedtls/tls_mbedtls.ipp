// The engine for mbedTLS.
//
// mbedTLS reads and writes bytes by two callbacks, which take from a pipe and append to it. Random bytes and
// the date come from this library's own sources, so that a simulation repeats both.
#pragma once

#include "tls/mbedtls/tls_mbedtls.hpp"
#include "tls/mbedtls/tls_mbedtls_keys.ipp"

#if defined(ANYIO_NET_MBEDTLS)

#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <mbedtls/ssl_ticket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The data that a client needs to resume a session. It is secret.
class mbedtls_kept_session {
 public:
  mbedtls_kept_session() = default;
  mbedtls_kept_session(mbedtls_kept_session&&) = default;
  mbedtls_kept_session& operator=(mbedtls_kept_session&&) = delete;
  ~mbedtls_kept_session() { mbedtls_platform_zeroize(bytes.data(), bytes.size()); }

  std::string bytes;
  std::string peer_certificate;  // a resumed TLS 1.3 session does not send it again
};

// Fields for which 2.28 has no functions, and 3 has none or different ones.
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
inline constexpr auto mbedtls_state = &mbedtls_ssl_context::MBEDTLS_PRIVATE(state);
inline constexpr auto mbedtls_in_left = &mbedtls_ssl_context::MBEDTLS_PRIVATE(in_left);
inline constexpr auto mbedtls_in_msg = &mbedtls_ssl_context::MBEDTLS_PRIVATE(in_msg);
inline constexpr auto mbedtls_in_msgtype = &mbedtls_ssl_context::MBEDTLS_PRIVATE(in_msgtype);
#else
inline constexpr auto mbedtls_state = &mbedtls_ssl_context::state;
inline constexpr auto mbedtls_in_left = &mbedtls_ssl_context::in_left;
inline constexpr auto mbedtls_in_msg = &mbedtls_ssl_context::in_msg;
inline constexpr auto mbedtls_in_msgtype = &mbedtls_ssl_context::in_msgtype;
#endif

/// The state that all connections share.
class mbedtls_credentials final
    : public tls_credentials<mbedtls_credentials, mbedtls_certificate, mbedtls_kept_session> {
 public:
  using turn = mbedtls_turn;

  mbedtls_credentials() noexcept {
    mbedtls_ssl_config_init(&client_);
    mbedtls_ssl_config_init(&server_);
    mbedtls_x509_crt_init(&authorities_);
#if defined(MBEDTLS_SSL_TICKET_C) && defined(MBEDTLS_SSL_SESSION_TICKETS)
    mbedtls_ssl_ticket_init(&tickets_);
#endif
  }
  mbedtls_credentials(const mbedtls_credentials&) = delete;
  mbedtls_credentials& operator=(const mbedtls_credentials&) = delete;
  ~mbedtls_credentials() override {
    mbedtls_ssl_config_free(&client_);
    mbedtls_ssl_config_free(&server_);
    mbedtls_x509_crt_free(&authorities_);
#if defined(MBEDTLS_SSL_TICKET_C) && defined(MBEDTLS_SSL_SESSION_TICKETS)
    mbedtls_ssl_ticket_free(&tickets_);
#endif
  }

  [[nodiscard]] result<> set_up(tls_material& material);
  [[nodiscard]] result<> read(mbedtls_certificate& into, const tls_material& material) {
    return into.read(material);
  }
  void trust(const std::string& text);
  [[nodiscard]] std::unique_ptr<tls_engine> make_engine(tls_pipe& pipe, tls_server_identity&& identity,
                                                        bool server_side);

 private:
  [[nodiscard]] int configure(mbedtls_ssl_config& config, int endpoint, tls_version least);
  [[nodiscard]] int offer_tickets();

  mbedtls_ssl_config client_;
  mbedtls_ssl_config server_;
  mbedtls_x509_crt authorities_;
#if defined(MBEDTLS_SSL_TICKET_C) && defined(MBEDTLS_SSL_SESSION_TICKETS)
  mbedtls_ssl_ticket_context tickets_;
#endif
  mbedtls_certificate main_;
  std::vector<std::string> protocols_;  // mbedTLS refers to these three
  std::vector<const char*> protocol_list_;
  std::vector<int> ciphers_;
};

/// One end of a connection.
class mbedtls_engine final : public tls_engine {
 public:
  mbedtls_engine(std::shared_ptr<mbedtls_credentials> credentials, tls_pipe& pipe,
                 tls_server_identity identity, bool server_side)
      : credentials_(std::move(credentials)),
        pipe_(pipe),
        identity_(std::move(identity)),
        server_side_(server_side) {
    mbedtls_ssl_init(&ssl_);
  }
  mbedtls_engine(const mbedtls_engine&) = delete;
  mbedtls_engine& operator=(const mbedtls_engine&) = delete;
  ~mbedtls_engine() override {
    const mbedtls_turn turn;
    mbedtls_ssl_free(&ssl_);
  }

  /// Called once, before any other function. Returns false if there is no memory.
  [[nodiscard]] bool set_up(const mbedtls_ssl_config& config);

  ANYIO_NET_FN tls_status handshake() override;
  ANYIO_NET_FN tls_status read(mutable_buffer into, std::size_t& n) override;
  ANYIO_NET_FN tls_status write(const_buffer data, std::size_t& n) override;
  ANYIO_NET_FN tls_status close() override;
  [[nodiscard]] ANYIO_NET_FN bool pending() const override;
  [[nodiscard]] ANYIO_NET_FN tls_info info() const override;
  [[nodiscard]] ANYIO_NET_FN std::string last_error() const override;

  /// Chooses a server's certificate by the name that the client asks for.
  static int name_asked_for(void* credentials, mbedtls_ssl_context* ssl, const unsigned char* name,
                            std::size_t size) noexcept;

 private:
  static int send(void* self, const unsigned char* data, std::size_t size) noexcept;
  static int receive(void* self, unsigned char* into, std::size_t size) noexcept;
  static int verify(void* self, mbedtls_x509_crt* certificate, int depth, std::uint32_t* flags) noexcept;

  [[nodiscard]] bool is_version(std::string_view version) const noexcept {
    return mbedtls_ssl_get_version(&ssl_) == version;
  }
  /// Whether the peer sent too many warnings: as many as OpenSSL rejects, too.
  [[nodiscard]] bool is_flooded() const noexcept { return warnings_ >= 5; }

  [[nodiscard]] bool is_foreign() const noexcept;
  void offer_session();
  void keep_session();
  [[nodiscard]] bool client_is_refused();
  void send_alert(unsigned char description);
  void alert_failure();
  [[nodiscard]] tls_status outcome(int code);
  [[nodiscard]] std::string shown_certificate() const;

  mbedtls_ssl_context ssl_;
  const std::shared_ptr<mbedtls_credentials> credentials_;
  tls_pipe& pipe_;
  const tls_server_identity identity_;  // client only: the server
  std::string asked_for_;               // server only: the name that the client asks for
  std::string peer_certificate_;        // if mbedTLS does not keep it
  int failure_ = 0;
  std::size_t begun_ = 0;  // how many bytes of `head_` are filled
  std::array<unsigned char, 5> head_ = {};
  unsigned warnings_ = 0;  // in a row
  const bool server_side_;
  bool self_signed_ = false;
  bool resumed_ = true;  // until certificates are exchanged
  bool complete_ = false;
  bool alerted_ = false;
  bool peer_closed_ = false;
  bool closed_ = false;
};

ANYIO_NET_FN bool mbedtls_engine::set_up(const mbedtls_ssl_config& config) {
  if (mbedtls_ssl_setup(&ssl_, &config) != 0) return false;
  // Needed even without a name: without this call some versions silently check no name, and others fail.
  if (mbedtls_ssl_set_hostname(&ssl_, identity_.name.empty() ? nullptr : identity_.name.c_str()) != 0)
    return false;
  mbedtls_ssl_set_bio(&ssl_, this, send, receive, nullptr);
  mbedtls_ssl_set_verify(&ssl_, verify, this);
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
  mbedtls_ssl_set_user_data_p(&ssl_, this);
#endif
  if (!server_side_) offer_session();
  return true;
}

ANYIO_NET_FN int mbedtls_engine::send(void* self, const unsigned char* data, std::size_t size) noexcept {
  auto& engine = *static_cast<mbedtls_engine*>(self);
  constexpr std::size_t level = 5;  // after the record's header; in clear until the handshake is over
  if (size > level && data[0] == MBEDTLS_SSL_MSG_ALERT)
    engine.alerted_ = engine.complete_ || data[level] == MBEDTLS_SSL_ALERT_LEVEL_FATAL;
  if (!call_without_throwing([&] { engine.pipe_.tx.append(const_buffer(data, size)); }))
    return MBEDTLS_ERR_SSL_ALLOC_FAILED;
  return static_cast<int>(size);
}

ANYIO_NET_FN int mbedtls_engine::receive(void* self, unsigned char* into, std::size_t size) noexcept {
  auto& engine = *static_cast<mbedtls_engine*>(self);
  if (!engine.pipe_.rx.empty()) {
    // mbedTLS ignores warnings, and goes on to the next record. A record begins if it has no byte of it yet;
    // the last one was a warning if it was an alert, since it did not end the connection.
    const bool warned = engine.ssl_.*mbedtls_in_msgtype == MBEDTLS_SSL_MSG_ALERT;
    if (engine.ssl_.*mbedtls_in_left == 0) engine.warnings_ = warned ? engine.warnings_ + 1 : 0;
    if (engine.is_flooded()) return MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE;
  }
  const std::size_t n = take_received(engine.pipe_, into, size);
  if (n == 0) return engine.pipe_.rx_eof ? 0 : MBEDTLS_ERR_SSL_WANT_READ;
  const std::size_t kept = std::min(n, engine.head_.size() - engine.begun_);
  std::copy_n(into, kept, engine.head_.begin() + static_cast<std::ptrdiff_t>(engine.begun_));
  engine.begun_ += kept;
  return static_cast<int>(n);
}

ANYIO_NET_FN int mbedtls_engine::verify(void* self, mbedtls_x509_crt* certificate, int depth,
                                        std::uint32_t* flags) noexcept {
  auto& engine = *static_cast<mbedtls_engine*>(self);
  // By this library's calendar, not by the system's.
  constexpr std::uint32_t dated = MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE;
  *flags &= ~dated;
  const std::int64_t now = calendar_now();
  if (now > mbedtls_seconds(certificate->valid_to)) *flags |= MBEDTLS_X509_BADCERT_EXPIRED;
  if (now < mbedtls_seconds(certificate->valid_from)) *flags |= MBEDTLS_X509_BADCERT_FUTURE;
  if (depth != 0) return 0;

  const mbedtls_x509_buf& issuer = certificate->issuer_raw;
  const mbedtls_x509_buf& subject = certificate->subject_raw;
  engine.self_signed_ = std::equal(issuer.p, issuer.p + issuer.len, subject.p, subject.p + subject.len);
  if (engine.identity_.known() && !mbedtls_is_for(*certificate, engine.identity_)) {
    *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
  } else {
    *flags &= ~static_cast<std::uint32_t>(MBEDTLS_X509_BADCERT_CN_MISMATCH);
  }
#if !defined(MBEDTLS_SSL_KEEP_PEER_CERTIFICATE)
  const std::string_view raw(reinterpret_cast<const char*>(certificate->raw.p), certificate->raw.len);
  if (!call_without_throwing([&] { engine.peer_certificate_.assign(raw); }))
    return MBEDTLS_ERR_X509_ALLOC_FAILED;
#endif
  return 0;
}

ANYIO_NET_FN int mbedtls_engine::name_asked_for(void* credentials, mbedtls_ssl_context* ssl,
                                                const unsigned char* name, std::size_t size) noexcept {
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
  auto& engine = *static_cast<mbedtls_engine*>(mbedtls_ssl_get_user_data_p(ssl));
#else
  auto& engine = *static_cast<mbedtls_engine*>(ssl->p_bio);
#endif
  const std::string_view asked(reinterpret_cast<const char*>(name), size);
  if (!call_without_throwing([&] { engine.asked_for_ = parse_server_name(asked).name; }))
    return MBEDTLS_ERR_SSL_ALLOC_FAILED;
  mbedtls_certificate* c = static_cast<mbedtls_credentials*>(credentials)->further(engine.asked_for_);
  return c == nullptr ? 0 : mbedtls_ssl_set_hs_own_cert(ssl, &c->chain, &c->key);
}

/// Whether the first bytes received do not begin a record (RFC 8446, section 5.1).
ANYIO_NET_FN bool mbedtls_engine::is_foreign() const noexcept {
  constexpr int longest = 16384 + 2048;  // RFC 5246, section 6.2.3
  if (begun_ > 0 && head_[0] != MBEDTLS_SSL_MSG_HANDSHAKE && head_[0] != MBEDTLS_SSL_MSG_ALERT) return true;
  if (begun_ > 1 && head_[1] != 3) return true;
  return begun_ == head_.size() && head_[3] * 256 + head_[4] > longest;
}

ANYIO_NET_FN void mbedtls_engine::offer_session() {
  std::optional<mbedtls_kept_session> kept = credentials_->sessions.take(session_key(identity_));
  if (!kept) return;
  mbedtls_ssl_session session;
  mbedtls_ssl_session_init(&session);
  const auto* bytes = reinterpret_cast<const unsigned char*>(kept->bytes.data());
  // A session that cannot be used only makes the handshake longer.
  if (mbedtls_ssl_session_load(&session, bytes, kept->bytes.size()) == 0 &&
      mbedtls_ssl_set_session(&ssl_, &session) == 0)
    peer_certificate_ = std::move(kept->peer_certificate);
  mbedtls_ssl_session_free(&session);
}

ANYIO_NET_FN void mbedtls_engine::keep_session() {
  struct library_session {
    mbedtls_ssl_session value;
    library_session() noexcept { mbedtls_ssl_session_init(&value); }
    ~library_session() { mbedtls_ssl_session_free(&value); }
  } held;
  mbedtls_ssl_session& session = held.value;
  if (mbedtls_ssl_get_session(&ssl_, &session) == 0) {
    std::size_t size = 0;
    mbedtls_kept_session kept;
    static_cast<void>(mbedtls_ssl_session_save(&session, nullptr, 0, &size));  // returns the size
    kept.bytes.resize(size);
    kept.peer_certificate = shown_certificate();
    if (mbedtls_ssl_session_save(&session, reinterpret_cast<unsigned char*>(kept.bytes.data()), size,
                                 &size) == 0)
      credentials_->sessions.put(session_key(identity_), std::move(kept));
  }
}

/// Whether an optional client certificate is wrong. mbedTLS continues with it, so it is checked before the
/// handshake is over.
ANYIO_NET_FN bool mbedtls_engine::client_is_refused() {
  if (!server_side_ || credentials_->verify_client != tls_verify::optional) return false;
  constexpr std::uint32_t harmless = MBEDTLS_X509_BADCERT_MISSING | MBEDTLS_X509_BADCERT_SKIP_VERIFY;
  const std::uint32_t flags = mbedtls_ssl_get_verify_result(&ssl_);
  if ((flags & ~harmless) == 0) return false;
  unsigned char alert = MBEDTLS_SSL_ALERT_MSG_BAD_CERT;
  if ((flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) != 0) alert = MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA;
  if ((flags & MBEDTLS_X509_BADCERT_EXPIRED) != 0) alert = MBEDTLS_SSL_ALERT_MSG_CERT_EXPIRED;
  send_alert(alert);
  return true;
}

ANYIO_NET_FN void mbedtls_engine::send_alert(unsigned char description) {
  // The pipe always has room, so this fails only for the reason for which the connection fails.
  static_cast<void>(mbedtls_ssl_send_alert_message(&ssl_, MBEDTLS_SSL_ALERT_LEVEL_FATAL, description));
}

/// Sends an alert where mbedTLS fails silently: after a missing certificate, or an invalid record.
ANYIO_NET_FN void mbedtls_engine::alert_failure() {
  // Under TLS 1.3 an alert cannot be told from data here, and mbedTLS does not fail silently.
  if (alerted_ || failure_ == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE || is_version("TLSv1.3")) return;
  if (is_flooded()) return send_alert(MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE);
  send_alert(complete_ ? MBEDTLS_SSL_ALERT_MSG_DECODE_ERROR : MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
}

ANYIO_NET_FN tls_status mbedtls_engine::outcome(int code) {
  switch (code) {
    case 0: return tls_status::ok;
    case MBEDTLS_ERR_SSL_WANT_READ: return tls_status::want_input;
    case MBEDTLS_ERR_SSL_WANT_WRITE:
    case MBEDTLS_ERR_SSL_ASYNC_IN_PROGRESS:
    case MBEDTLS_ERR_SSL_CRYPTO_IN_PROGRESS: return tls_status::again;
#if defined(MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
    case MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET: keep_session(); return tls_status::again;
#endif
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY: peer_closed_ = true; return tls_status::closed;
    case MBEDTLS_ERR_SSL_CONN_EOF: return tls_status::truncated;
    default:
      failure_ = code;
      alert_failure();
      return tls_status::failed;
  }
}

ANYIO_NET_FN tls_status mbedtls_engine::handshake() {
  const mbedtls_turn turn;
  const std::size_t before = pipe_.tx.size();
  while (ssl_.*mbedtls_state != MBEDTLS_SSL_HANDSHAKE_OVER) {
    // A resumed handshake never has this state, under any version and at either end.
    if (ssl_.*mbedtls_state == MBEDTLS_SSL_SERVER_CERTIFICATE && std::exchange(resumed_, false))
      peer_certificate_.clear();
#if MBEDTLS_VERSION_NUMBER < 0x03000000
    mbedtls_in_handshake = &ssl_;
#endif
    const int code = mbedtls_ssl_handshake_step(&ssl_);
#if MBEDTLS_VERSION_NUMBER < 0x03000000
    mbedtls_in_handshake = nullptr;
#endif
    if (code != 0) return outcome(code);
    if (client_is_refused()) return outcome(MBEDTLS_ERR_X509_CERT_VERIFY_FAILED);
  }
  complete_ = true;
  // After the client's last message a server sends only tickets.
  if (server_side_ && is_version("TLSv1.3")) pipe_.may_wait = pipe_.tx.size() - before;
  // Under TLS 1.3 the data to resume arrives later.
  if (!server_side_ && is_version("TLSv1.2")) keep_session();
  return tls_status::ok;
}

ANYIO_NET_FN tls_status mbedtls_engine::read(mutable_buffer into, std::size_t& n) {
  n = 0;
  if (peer_closed_) return tls_status::closed;
  const mbedtls_turn turn;
  const int code = mbedtls_ssl_read(&ssl_, reinterpret_cast<unsigned char*>(into.data()), into.size());
  if (code == 0) return tls_status::truncated;
  if (code < 0) return outcome(code);
  n = static_cast<std::size_t>(code);
  return tls_status::ok;
}

ANYIO_NET_FN tls_status mbedtls_engine::write(const_buffer data, std::size_t& n) {
  n = 0;
  const mbedtls_turn turn;
  const int code = mbedtls_ssl_write(&ssl_, reinterpret_cast<const unsigned char*>(data.data()), data.size());
  if (code <= 0) return outcome(code);
  n = static_cast<std::size_t>(code);
  return tls_status::ok;
}

ANYIO_NET_FN tls_status mbedtls_engine::close() {
  if (closed_) return tls_status::ok;
  closed_ = true;
  const mbedtls_turn turn;
  return outcome(mbedtls_ssl_close_notify(&ssl_));
}

ANYIO_NET_FN bool mbedtls_engine::pending() const {
  return mbedtls_ssl_get_bytes_avail(&ssl_) != 0 || mbedtls_ssl_check_pending(&ssl_) != 0;
}

/// The peer's certificate in DER.
ANYIO_NET_FN std::string mbedtls_engine::shown_certificate() const {
  const mbedtls_x509_crt* c = mbedtls_ssl_get_peer_cert(&ssl_);
  if (c == nullptr || c->raw.len == 0) return peer_certificate_;
  return {reinterpret_cast<const char*>(c->raw.p), c->raw.len};
}

ANYIO_NET_FN tls_info mbedtls_engine::info() const {
  tls_info about;
  about.server_side = server_side_;
  about.server_name = server_side_ ? asked_for_ : identity_.name;
  if (!complete_) return about;
  about.peer_certificate_der = shown_certificate();
  about.version = mbedtls_ssl_get_version(&ssl_);
  // mbedTLS has "TLS-ECDHE-..." or "TLS1-3-AES-..."; IANA has underscores, and no version in a name.
  if (const char* known = mbedtls_ssl_get_ciphersuite(&ssl_); known != nullptr) {
    std::string_view cipher = known;
    constexpr std::string_view newer = "TLS1-3-";
    if (cipher.starts_with(newer)) {
      about.cipher = "TLS-";
      cipher.remove_prefix(newer.size());
    }
    about.cipher += cipher;
    std::replace(about.cipher.begin(), about.cipher.end(), '-', '_');
  }
  if (const char* protocol = mbedtls_ssl_get_alpn_protocol(&ssl_); protocol != nullptr) about.alpn = protocol;
  about.resumed = resumed_;
  return about;
}

ANYIO_NET_FN std::string mbedtls_engine::last_error() const {
  if (failure_ == 0) return {};
  if (is_foreign()) return tls_reason::not_tls;
  if (is_flooded()) return tls_reason::many_warnings;
  switch (failure_) {
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE: return alert_reason((ssl_.*mbedtls_in_msg)[1]);
    case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE: return tls_reason::none_shown;
    case MBEDTLS_ERR_SSL_INVALID_MAC:
    case MBEDTLS_ERR_SSL_INVALID_RECORD: return tls_reason::bad_record;
    case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED:
    case MBEDTLS_ERR_X509_FATAL_ERROR:
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    case MBEDTLS_ERR_SSL_BAD_CERTIFICATE:
#else
    case MBEDTLS_ERR_SSL_BAD_HS_CERTIFICATE:
#endif
      if (const char* verdict = mbedtls_verdict(mbedtls_ssl_get_verify_result(&ssl_), self_signed_);
          verdict != nullptr)
        return verdict;
      break;
    default: break;
  }
  return mbedtls_words(failure_);
}

/// Prepares what all clients, or all servers, share. Returns 0, or an mbedTLS error code.
ANYIO_NET_FN int mbedtls_credentials::configure(mbedtls_ssl_config& config, int endpoint, tls_version least) {
  if (const int code = mbedtls_ssl_config_defaults(&config, endpoint, MBEDTLS_SSL_TRANSPORT_STREAM,
                                                   MBEDTLS_SSL_PRESET_DEFAULT);
      code != 0)
    return code;
  mbedtls_ssl_conf_rng(&config, mbedtls_draw, nullptr);
  mbedtls_ssl_conf_ciphersuites(&config, ciphers_.data());
  mbedtls_ssl_conf_ca_chain(&config, &authorities_, nullptr);
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
  mbedtls_ssl_conf_min_tls_version(
      &config, least == tls_version::v1_3 ? MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
  static constexpr std::uint16_t groups[] = {
      MBEDTLS_SSL_IANA_TLS_GROUP_X25519, MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
      MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, MBEDTLS_SSL_IANA_TLS_GROUP_NONE};
  mbedtls_ssl_conf_groups(&config, groups);
#else
  static_cast<void>(least);
  mbedtls_ssl_conf_min_version(&config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#if defined(MBEDTLS_ECP_C)
  // By default 2.28 begins with the largest curve, and includes curves that are too small.
  static constexpr mbedtls_ecp_group_id curves[] = {
#if defined(MBEDTLS_ECP_DP_CURVE25519_ENABLED)
    MBEDTLS_ECP_DP_CURVE25519,
#endif
#if defined(MBEDTLS_ECP_DP_SECP256R1_ENABLED)
    MBEDTLS_ECP_DP_SECP256R1,
#endif
#if defined(MBEDTLS_ECP_DP_SECP384R1_ENABLED)
    MBEDTLS_ECP_DP_SECP384R1,
#endif
    MBEDTLS_ECP_DP_NONE
  };
  mbedtls_ssl_conf_curves(&config, curves);
#endif
#endif
#if defined(MBEDTLS_SSL_RENEGOTIATION)
  mbedtls_ssl_conf_renegotiation(&config, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#endif
  mbedtls_ssl_conf_legacy_renegotiation(&config, MBEDTLS_SSL_LEGACY_NO_RENEGOTIATION);
  if (!protocols_.empty())
    if (const int code = mbedtls_ssl_conf_alpn_protocols(&config, protocol_list_.data()); code != 0)
      return code;
  return main_.chain.raw.len != 0 ? mbedtls_ssl_conf_own_cert(&config, &main_.chain, &main_.key) : 0;
}

/// Lets the clients of a server resume, where that is possible.
ANYIO_NET_FN int mbedtls_credentials::offer_tickets() {
#if defined(MBEDTLS_SSL_TICKET_C) && defined(MBEDTLS_SSL_SESSION_TICKETS)
  // Some tickets do not identify the client: those of TLS 1.3, and those of an mbedTLS that does not keep its
  // certificate.
#if defined(MBEDTLS_SSL_PROTO_TLS1_3) || !defined(MBEDTLS_SSL_KEEP_PEER_CERTIFICATE)
  if (verify_client != tls_verify::none) return 0;
#endif
  constexpr std::uint32_t lifetime = 86400;
  if (const int code =
          mbedtls_ssl_ticket_setup(&tickets_, mbedtls_draw, nullptr, MBEDTLS_CIPHER_AES_256_GCM, lifetime);
      code != 0)
    return code;
  mbedtls_ssl_conf_session_tickets_cb(&server_, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse,
                                      &tickets_);
#endif
  return 0;
}

ANYIO_NET_FN result<> mbedtls_credentials::set_up(tls_material& material) {
#if MBEDTLS_VERSION_NUMBER < 0x03000000 || !defined(MBEDTLS_SSL_PROTO_TLS1_3)
  if (material.min_version == tls_version::v1_3)
    return error_access::with_reason(error(errc::tls, 0, "tls: min_version"), tls_reason::version_missing);
#endif
#if MBEDTLS_VERSION_NUMBER >= 0x03000000 && defined(MBEDTLS_PSA_CRYPTO_C)
  static const psa_status_t cryptography = psa_crypto_init();  // TLS 1.3 needs it
  if (cryptography != PSA_SUCCESS)
    return tls_failure("mbedtls_context", "the library's cryptography cannot be initialized");
#endif
  if (material.certificate.given())
    if (result<> r = main_.read(material); !r) return r;
  if (material.ca.given()) {
    if (const char* wrong = mbedtls_read_certificates(authorities_, material.ca.text); wrong != nullptr)
      return material.ca.wrong(wrong);
  }
  protocols_ = std::move(material.alpn);
  for (const std::string& protocol : protocols_) protocol_list_.push_back(protocol.c_str());
  protocol_list_.push_back(nullptr);
  for (const int* id = mbedtls_ssl_list_ciphersuites(); *id != 0; ++id) {
    const std::string_view name = mbedtls_ssl_get_ciphersuite_name(*id);
    const auto in_name = [name](std::string_view word) { return name.find(word) != std::string_view::npos; };
    const bool agreed = name.starts_with("TLS-ECDHE-ECDSA-") || name.starts_with("TLS-ECDHE-RSA-") ||
                        name.starts_with("TLS1-3-");
    const bool sealed = in_name("-CHACHA20-POLY1305-") ||
                        (in_name("-AES-") && (in_name("-GCM-") || in_name("-CCM")) && !in_name("-CCM-8"));
    if (agreed && sealed) ciphers_.push_back(*id);
  }
  ciphers_.push_back(0);

  const auto failed = [](int code) { return tls_failure("mbedtls_context", mbedtls_words(code)); };
  if (const int code = configure(client_, MBEDTLS_SSL_IS_CLIENT, material.min_version); code != 0)
    return failed(code);
  mbedtls_ssl_conf_authmode(
      &client_, verify == tls_verify::none ? MBEDTLS_SSL_VERIFY_NONE : MBEDTLS_SSL_VERIFY_REQUIRED);
#if MBEDTLS_VERSION_NUMBER >= 0x03060100 && defined(MBEDTLS_SSL_PROTO_TLS1_3) && \
    defined(MBEDTLS_SSL_SESSION_TICKETS)
  mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(
      &client_, MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
#endif

  if (const int code = configure(server_, MBEDTLS_SSL_IS_SERVER, material.min_version); code != 0)
    return failed(code);
  mbedtls_ssl_conf_authmode(&server_, verify_client == tls_verify::none       ? MBEDTLS_SSL_VERIFY_NONE
                                      : verify_client == tls_verify::optional ? MBEDTLS_SSL_VERIFY_OPTIONAL
                                                                              : MBEDTLS_SSL_VERIFY_REQUIRED);
  mbedtls_ssl_conf_sni(&server_, mbedtls_engine::name_asked_for, this);
  if (const int code = offer_tickets(); code != 0) return failed(code);
  return {};
}

ANYIO_NET_FN void mbedtls_credentials::trust(const std::string& text) {
  // A certificate in it that cannot be read is not trusted; the others are.
  static_cast<void>(mbedtls_x509_crt_parse(
      &authorities_, reinterpret_cast<const unsigned char*>(text.c_str()), text.size() + 1));
}

ANYIO_NET_FN std::unique_ptr<tls_engine> mbedtls_credentials::make_engine(tls_pipe& pipe,
                                                                          tls_server_identity&& identity,
                                                                          bool server_side) {
  auto engine = std::make_unique<mbedtls_engine>(shared_from_this(), pipe, std::move(identity), server_side);
  if (!engine->set_up(server_side ? server_ : client_)) return nullptr;
  return engine;
}

}  // namespace detail

ANYIO_NET_FN result<std::shared_ptr<tls_context>> mbedtls_context(tls_config config) {
  return detail::mbedtls_credentials::make(config);
}

}}  // namespace anyio

#endif
