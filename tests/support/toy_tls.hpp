// A TLS engine without TLS, and without any security: the shortest one that keeps the whole contract, as a
// pattern for engines that wrap a real library, and for tests of the driver.
//
// Both ends send a hello, the client first; later records are hidden with a key that the two agreed on in the
// hellos. A record is a byte for its kind, two for the size of its content, one with the sum of the content,
// and the content.
#pragma once

#include "anyio_net.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace support {

using anyio::tls_status;

enum class toy_record : std::uint8_t { hello = 'H', data = 'D', close_notify = 'C', alert = 'A' };

class toy_engine final : public anyio::tls_engine {
 public:
  /// The name is a server's own, and the name that a client requires.
  toy_engine(anyio::tls_pipe& pipe, bool server, bool verify, std::string version, std::string_view name)
      : pipe_(pipe), name_(name), server_(server), verify_(verify) {
    info_.version = std::move(version);
    info_.cipher = "TOY_XOR";
    info_.server_side = server;
  }

  // Continues as far as it can each time; its output is in `pipe_.tx`, whatever it returns.
  tls_status handshake() override {
    if (!server_ && !std::exchange(hello_sent_, true)) put(toy_record::hello, client_share + name_);
    while (!established_) {
      std::string_view content;
      toy_record kind;
      if (const tls_status s = take(kind, content); s != tls_status::ok) return s;
      if (kind != toy_record::hello || content.empty()) return fail("a hello was expected", true);
      const std::string_view name = content.substr(1);
      if (server_) {
        info_.server_name = name;
        put(toy_record::hello, server_share + name_);
      } else {
        if (verify_ && name != name_) return fail("the server has another name", true);
        info_.server_name = name_;
        info_.peer_certificate_der = name;
      }
      key_ = static_cast<char>(content.front() ^ (server_ ? server_share : client_share));
      established_ = true;
    }
    return tls_status::ok;
  }

  // Bytes taken from `pipe_.rx` are gone, so bytes without room in the caller's buffer are kept here.
  tls_status read(anyio::mutable_buffer into, std::size_t& n) override {
    while (plain_.empty()) {
      if (peer_closed_) return tls_status::closed;
      std::string_view content;
      toy_record kind;
      if (const tls_status s = take(kind, content); s != tls_status::ok) return s;
      switch (kind) {
        case toy_record::data: keep(content); break;
        case toy_record::close_notify: peer_closed_ = true; break;
        default: return fail("data was expected", true);
      }
    }
    n = std::min(into.size(), plain_.size());
    std::memcpy(into.data(), plain_.data().data(), n);
    plain_.consume(n);
    return tls_status::ok;
  }

  // Never has to wait: `pipe_.tx` accepts all bytes.
  tls_status write(anyio::const_buffer data, std::size_t& n) override {
    n = std::min<std::size_t>(data.size(), largest);
    put(toy_record::data, std::string_view(reinterpret_cast<const char*>(data.data()), n));
    return tls_status::ok;
  }

  tls_status close() override {
    put(toy_record::close_notify, {});
    return tls_status::ok;
  }

  bool pending() const override { return !plain_.empty(); }
  anyio::tls_info info() const override { return info_; }
  std::string last_error() const override { return reason_; }

 private:
  static constexpr std::size_t header = 4;
  static constexpr std::size_t largest = 16384;
  static constexpr std::string_view kinds = "HDCA";
  static constexpr char client_share = 0x35;  // a real one would be chosen at random
  static constexpr char server_share = 0x5c;

  static std::uint8_t number(char c) { return static_cast<std::uint8_t>(c); }
  static std::uint8_t sum(std::string_view content) {
    std::uint8_t s = 0;
    for (const char c : content) s = static_cast<std::uint8_t>(s + number(c));
    return s;
  }

  void put(toy_record kind, std::string_view content) {
    const anyio::mutable_buffer room = pipe_.tx.prepare(header + content.size());
    char* const out = reinterpret_cast<char*>(room.data());
    for (std::size_t i = 0; i < content.size(); ++i)
      out[header + i] = static_cast<char>(content[i] ^ (kind == toy_record::data ? key_ : 0));
    out[0] = static_cast<char>(kind);
    out[1] = static_cast<char>(content.size() >> 8);
    out[2] = static_cast<char>(content.size() & 255);
    out[3] = static_cast<char>(sum({out + header, content.size()}));
    pipe_.tx.commit(header + content.size());
  }

  void keep(std::string_view content) {
    const anyio::mutable_buffer room = plain_.prepare(content.size());
    for (std::size_t i = 0; i < content.size(); ++i)
      room.data()[i] = std::byte(number(content[i])) ^ std::byte(key_);
    plain_.commit(content.size());
  }

  /// Takes the next record, if it is complete. The content stays valid until the pipe is used again.
  tls_status take(toy_record& kind, std::string_view& content) {
    const std::string_view rx(reinterpret_cast<const char*>(pipe_.rx.data()), pipe_.rx.size());
    if (!rx.empty() && kinds.find(rx.front()) == kinds.npos)
      return fail("a record is of no known kind", true);
    const std::size_t size = rx.size() < header ? 0 : number(rx[1]) * std::size_t{256} + number(rx[2]);
    if (size > largest) return fail("a record is too long", true);
    if (rx.size() < header + size) {
      pipe_.starved = true;  // even if there is something: the driver waits for more
      return pipe_.rx_eof ? tls_status::truncated : tls_status::want_input;
    }
    kind = toy_record{number(rx[0])};
    content = rx.substr(header, size);
    pipe_.rx = pipe_.rx.subspan(header + size);
    if (sum(content) != number(rx[3])) return fail("a record is damaged", true);
    if (kind == toy_record::alert) return fail("the peer found that " + std::string(content), false);
    return tls_status::ok;
  }

  tls_status fail(std::string reason, bool tell_peer) {
    if (tell_peer) put(toy_record::alert, reason);
    reason_ = std::move(reason);
    return tls_status::failed;
  }

  anyio::tls_pipe& pipe_;
  anyio::tls_info info_;
  anyio::byte_queue plain_;
  std::string name_;
  std::string reason_;
  char key_ = 0;
  bool server_;
  bool verify_;
  bool hello_sent_ = false;
  bool established_ = false;
  bool peer_closed_ = false;
};

/// Creates the engines. A server's certificate is its name.
class toy_context final : public anyio::tls_context {
 public:
  std::string certificate;          ///< none if empty, as a client's may be
  bool verify = true;               ///< of a client: whether the server must have the required name
  std::string version = "TLSv1.3";  ///< what both ends speak

  toy_context() = default;
  explicit toy_context(std::string name) : certificate(std::move(name)) {}

  std::unique_ptr<anyio::tls_engine> client(anyio::tls_pipe& pipe, std::string_view server_name) override {
    if ((verify && server_name.empty()) || server_name.size() > 255) return nullptr;
    return std::make_unique<toy_engine>(pipe, false, verify, version, server_name);
  }
  std::unique_ptr<anyio::tls_engine> server(anyio::tls_pipe& pipe) override {
    if (certificate.empty()) return nullptr;
    return std::make_unique<toy_engine>(pipe, true, false, version, certificate);
  }
};

}  // namespace support
