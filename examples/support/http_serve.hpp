// An HTTP/1.1 server (RFC 9110, 9112) for files of any kind: a Site finds and sends them, and everything else
// is here. It opens no file, so tests/simulation/test_sim_http.cpp can run it on a simulated network.
#pragma once

#include "anyio_net.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "http_head.hpp"

namespace http {

/// Decodes "%20" and similar; nothing if the result is not a path inside a directory.
inline std::optional<std::string> path_of(std::string_view target) {
  std::string path;
  target = target.substr(1, target.find('?') - 1);
  for (std::size_t i = 0; i < target.size(); ++i) {
    unsigned code = static_cast<unsigned char>(target[i]);
    if (code == '%') {
      const char* digits = target.data() + i + 1;
      if (i + 2 >= target.size() || std::from_chars(digits, digits + 2, code, 16).ptr != digits + 2)
        return std::nullopt;
      i += 2;
    }
    if (code == 0) return std::nullopt;
    path += static_cast<char>(code);
  }
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    if (std::string_view(path).substr(at, end - at) == "..") return std::nullopt;
    at = end + 1;
  }
  return path;
}

/// Serves a Site, which has
///   std::optional<Site::file> open(std::string path)           a file has `size` and `type`
///   anyio::task<> send(anyio::tcp_stream&, const Site::file&)  all of its bytes, or raises
///   std::time_t time()                                         for the Date field
template <class Site>
class server {
 public:
  explicit server(Site& site) : site_(site) {}

  /// The server stops: an idle connection ends at once, and one that is busy after its answer.
  anyio::task<> serve(anyio::tcp_stream client, anyio::event& stopping) const {
    anyio::buffered_stream in(client);
    for (bool keep = true; keep;) {
      auto head = co_await as_result(anyio::fail_after(
          patience, anyio::when_any(in.receive_until("\r\n\r\n", longest_head), stopping.wait())));
      if (head.error() == anyio::errc::delimiter_not_found) {
        co_await anyio::fail_after(patience,
                                   send_words(client, "431 Request Header Fields Too Large", true, "close"));
        break;
      }
      if (!head) co_return;  // the client has closed, or is silent
      if (head->index() == 1) break;
      keep = co_await anyio::fail_after(10 * patience, answer(client, in, std::get<0>(*head)), "answering");
    }
    co_await client.aclose();  // so that sent bytes arrive: further input is discarded for a second
  }

 private:
  static constexpr std::size_t longest_head = 16384;
  static constexpr std::uint64_t longest_body = 1 << 20;  // which is not read
  static constexpr std::chrono::seconds patience{30};

  std::string head_of(std::string_view status, std::uint64_t size, std::string_view type,
                      std::string_view connection) const {
    char date[64];
    const std::time_t now = site_.time();
    std::tm broken_down{};
    ::gmtime_r(&now, &broken_down);
    std::string head = "HTTP/1.1 ";
    head.append(status)
        .append("\r\nDate: ")
        .append(date, std::strftime(date, sizeof date, "%a, %d %b %Y %T GMT", &broken_down));
    head.append("\r\nContent-Length: ").append(std::to_string(size));
    head.append("\r\nContent-Type: ").append(type);
    if (status.starts_with("405")) head.append("\r\nAllow: GET, HEAD");
    if (!connection.empty()) head.append("\r\nConnection: ").append(connection);
    return head.append("\r\n\r\n");
  }

  // The Connection field: empty if the connection stays open, the default since HTTP/1.1.
  static std::string_view connection_of(const request& r, bool keep) {
    return !keep ? "close" : r.is_http_1_0() ? "keep-alive" : "";
  }

  anyio::task<> send_words(anyio::tcp_stream& client, std::string_view status, bool with_body,
                           std::string_view connection) const {
    std::string words(status.substr(4));
    words += '\n';
    const std::string head = head_of(status, words.size(), "text/plain", connection);
    const anyio::const_buffer both[] = {head, with_body ? words : std::string_view()};
    co_await client.send(both);
  }

  // The status of a request that is rejected without looking further; else nothing.
  static std::string_view refusal_of(const request& r, int status) {
    if (status == 400) return "400 Bad Request";
    if (status == 505) return "505 HTTP Version Not Supported";
    if (status != 0 || r.body_coding() != coding::none) return "501 Not Implemented";
    if (r.body_size().value_or(0) > longest_body) return "413 Content Too Large";
    return {};
  }

  // False: no other request may follow.
  anyio::task<bool> answer(anyio::tcp_stream& client, anyio::buffered_stream& in,
                           std::string_view head) const {
    request r;
    const int status = r.read(head);
    const std::string_view refusal = refusal_of(r, status);
    const bool is_head = r.method() == "HEAD";
    if (!refusal.empty()) {
      co_await send_words(client, refusal, !is_head, "close");
      co_return false;
    }
    // A client that waits for "100 Continue" may now omit its body, so the next bytes are ambiguous.
    std::uint64_t body = r.body_size().value_or(0);
    const bool keep = r.keeps_connection() && (body == 0 || r.count("Expect") == 0);
    const std::string_view connection = connection_of(r, keep);
    if (r.method() != "GET" && !is_head) {
      co_await send_words(client, "405 Method Not Allowed", true, connection);
    } else {
      const auto path = path_of(r.target());
      const auto found = path ? site_.open(*path) : std::nullopt;
      if (!found) {
        co_await send_words(client, "404 Not Found", !is_head, connection);
      } else {
        const std::string ok = head_of("200 OK", found->size, found->type, connection);
        co_await client.send(ok);
        if (!is_head) co_await site_.send(client, *found);
      }
    }
    while (keep && body != 0) {
      const auto most = static_cast<std::size_t>(std::min<std::uint64_t>(body, 65536));
      const std::string skipped = co_await in.receive(most);
      body -= skipped.size();
    }
    co_return keep;
  }

  Site& site_;
};

}  // namespace http
