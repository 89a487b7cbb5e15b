// Fetches a page by HTTP/1.1 (RFC 9110, 9112) and follows redirections. It prints nothing, so
// tests/simulation/test_sim_http.cpp can run it on a simulated network.
#pragma once

#include "anyio_net.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "http_answer.hpp"
#include "http_head.hpp"
#include "printable.hpp"

namespace http {

inline constexpr int most_redirections = 10;

// --- URLs

struct url {
  std::string host, authority, target;
  std::uint16_t port = 80;

  url() = default;
  [[nodiscard]] std::string text() const { return "http://" + authority + target; }
};

inline std::optional<url> parse_url(std::string_view text) {
  static constexpr std::string_view scheme = "http://";
  if (!begins_with(text, scheme)) return std::nullopt;
  text.remove_prefix(scheme.size());
  text = text.substr(0, text.find('#'));
  // Characters that would end a line of the request early, or must not be sent literally.
  if (std::any_of(text.begin(), text.end(), [](char c) { return c <= ' ' || c > '~'; })) return std::nullopt;

  url u;
  const std::size_t end = std::min(text.find_first_of("/?"), text.size());
  u.authority = text.substr(0, end);
  u.target = text.substr(end);
  if (!u.target.starts_with('/')) u.target.insert(0, 1, '/');
  if (u.authority.find('@') != u.authority.npos) return std::nullopt;  // the request contains no user name

  std::string_view host = u.authority;
  const std::size_t colon = host.rfind(':');
  if (colon != host.npos && host.find(']', colon) == host.npos) {
    const auto port = number(host.substr(colon + 1));
    if (!port || *port == 0 || *port > 65535) return std::nullopt;
    u.port = static_cast<std::uint16_t>(*port);
    host = host.substr(0, colon);
  }
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty()) return std::nullopt;
  u.host = host;
  return u;
}

/// The target of Location, relative to `here` (RFC 3986, section 5.2; the server removes dots from paths).
inline std::optional<url> follow(const url& here, std::string_view location) {
  const std::size_t colon = location.find(':');
  if (colon < location.find_first_of("/?#")) return parse_url(location);
  if (location.starts_with("//")) return parse_url("http:" + std::string(location));
  std::string target = here.target.substr(0, here.target.find('?'));
  if (location.starts_with('/')) {
    target.clear();
  } else if (!location.starts_with('?')) {
    target.resize(target.rfind('/') + 1);
  }
  return parse_url("http://" + here.authority + target + std::string(location));
}

// --- one page

// --- one page

/// What is fetched, and how long it may be.
struct wanted {
  url place;
  bool head_only = false;
  std::uint64_t max_bytes = 1 << 30;

  wanted() = default;
};

/// The next URL; else why there is no page, in words, which are empty if it was written to `out`. Errors of
/// the connection, or of HTTP, are raised.
inline anyio::task<std::variant<std::string, url>> fetch_once(const url& u, const wanted& w, std::FILE* out) {
  anyio::tcp_stream server = co_await anyio::fail_after(patience, anyio::connect_tcp(u.host, u.port));
  std::string request = w.head_only ? "HEAD " : "GET ";
  request.append(u.target).append(" HTTP/1.1\r\nHost: ").append(u.authority);
  request.append("\r\nUser-Agent: anyio_net\r\nAccept: */*\r\nConnection: close\r\n\r\n");
  co_await anyio::fail_after(patience, server.send(request));

  anyio::buffered_stream in(server);
  const answer a = co_await receive_answer(in);
  const auto location = a.field("Location");
  if (a.status() / 100 == 3 && location) {
    auto next = follow(u, *location);
    if (next) co_return *std::move(next);
    co_return "cannot follow the redirection to " + printable(*location);
  }
  if (a.status() / 100 != 2) co_return "the server answered " + printable(a.first_line());
  page to(out, w.max_bytes);
  if (w.head_only) {
    co_await to.write(a.text() + "\r\n\r\n");
    co_return "";
  }
  const auto copied = co_await anyio::as_result(receive_page(a, in, to));
  if (copied.error() == anyio::errc::end_of_stream || copied.error() == anyio::errc::incomplete_read)
    co_return "the server closed the connection before the page was complete";
  co_await copied;
  co_return "";
}

/// Why there is no page, in words; empty if it was written to `out`.
inline anyio::task<std::string> fetch(const wanted& w, std::FILE* out) {
  url u = w.place;
  for (int i = 0; i <= most_redirections; ++i) {
    auto outcome = co_await fetch_once(u, w, out);
    if (std::string* words = std::get_if<std::string>(&outcome)) co_return std::move(*words);
    u = std::get<url>(std::move(outcome));
  }
  co_return "gave up after " + std::to_string(most_redirections) + " redirections, before " + u.text();
}

}  // namespace http
