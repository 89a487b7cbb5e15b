// Fetches a page by HTTP/1.1 (RFC 9110, 9112): bodies with a length, in chunks, or until the end;
// redirections.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/http_client.cpp -o http_client
//   ./http_client http://localhost:8080/
#include "anyio_net.hpp"

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "support/http_answer.hpp"
#include "support/printable.hpp"
#include "support/program.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: http_client [--head] [--output FILE] [--max-bytes N] [--max-time SECONDS] URL\n"
    "\n"
    "Writes the page at URL, which begins with http://, to standard output or FILE; with --head only the\n"
    "head of the answer. FILE is created only when the page is complete. Follows at most ten redirections.\n"
    "Fails when nothing arrives for 30 seconds, when the page is longer than N bytes (default: 1 GiB), or\n"
    "after SECONDS (default: an hour). No control characters except line ends and tabs are written to a\n"
    "terminal.\n"
    "\n"
    "exit code: 0 with the page, 1 without (standard error says why), 2 for a wrong command line, 130 after\n"
    "Ctrl-C\n";

static constexpr int most_redirections = 10;

// --- URLs

struct url {
  std::string host, authority, target;
  std::uint16_t port = 80;

  url() = default;
  [[nodiscard]] std::string text() const { return "http://" + authority + target; }
};

static std::optional<url> parse_url(std::string_view text) {
  static constexpr std::string_view scheme = "http://";
  if (!http::begins_with(text, scheme)) return std::nullopt;
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
    const auto port = http::number(host.substr(colon + 1));
    if (!port || *port == 0 || *port > 65535) return std::nullopt;
    u.port = static_cast<std::uint16_t>(*port);
    host = host.substr(0, colon);
  }
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty()) return std::nullopt;
  u.host = host;
  return u;
}

// The target of Location, relative to `here` (RFC 3986, section 5.2; the server removes dots from paths).
static std::optional<url> follow(const url& here, std::string_view location) {
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

struct settings {
  bool head_only = false;
  std::string output;
  std::uint64_t max_bytes = 1 << 30;
  std::chrono::seconds max_time = 1h;
  url place;

  settings() = default;
};

// The exit code, or the next URL.
static anyio::task<std::variant<int, url>> fetch(const url& u, const settings& s, std::FILE* out) {
  anyio::tcp_stream server = co_await anyio::fail_after(http::patience, anyio::connect_tcp(u.host, u.port));
  std::string request = s.head_only ? "HEAD " : "GET ";
  request.append(u.target).append(" HTTP/1.1\r\nHost: ").append(u.authority);
  request.append("\r\nUser-Agent: anyio_net\r\nAccept: */*\r\nConnection: close\r\n\r\n");
  co_await anyio::fail_after(http::patience, server.send(request));

  anyio::buffered_stream in(server);
  const http::answer a = co_await http::receive_answer(in);
  const auto location = a.field("Location");
  if (a.status() / 100 == 3 && location) {
    auto next = follow(u, *location);
    if (next) co_return *std::move(next);
    std::cerr << "http_client: cannot follow the redirection to " << printable(*location) << '\n';
    co_return 1;
  }
  if (a.status() / 100 != 2) {
    std::cerr << "http_client: the server answered " << printable(a.first_line()) << '\n';
    co_return 1;
  }
  http::page page(out, s.max_bytes);
  if (s.head_only) {
    co_await page.write(a.text() + "\r\n\r\n");
    co_return 0;
  }
  const auto copied = co_await anyio::as_result(http::receive_page(a, in, page));
  if (copied.error() == anyio::errc::end_of_stream || copied.error() == anyio::errc::incomplete_read) {
    std::cerr << "http_client: the server closed the connection before the page was complete\n";
    co_return 1;
  }
  co_await copied;
  co_return 0;
}

static anyio::task<int> fetch_all(const settings& s, std::FILE* out) {
  url u = s.place;
  for (int i = 0; i <= most_redirections; ++i) {
    auto outcome = co_await fetch(u, s, out);
    if (const int* code = std::get_if<int>(&outcome)) co_return *code;
    u = std::get<url>(std::move(outcome));
  }
  std::cerr << "http_client: gave up after " << most_redirections << " redirections, before " << u.text()
            << '\n';
  co_return 1;
}

static anyio::task<int> until_interrupted(const settings& s, std::FILE* out) {
  anyio::signal_receiver signals = co_await anyio::signal_receiver::open(SIGINT, SIGTERM);
  const auto outcome =
      co_await anyio::when_any(anyio::fail_after(s.max_time, fetch_all(s, out)), signals.receive());
  co_return outcome.index() == 0 ? std::get<0>(outcome) : 128 + std::get<1>(outcome);
}

static int run(const settings& s, std::FILE* out) {
  try {
    const int code = anyio::run(until_interrupted(s, out));
    if (std::fflush(out) == 0) return code;
    std::perror("http_client: write");
  } catch (const anyio::exception& e) {
    std::cerr << "http_client: " << printable(e.what()) << '\n';
  }
  return 1;
}

// Into a temporary file beside the target, which is renamed when it is complete.
static int run_into_file(const settings& s) {
  const std::string part = s.output + ".part";
  std::FILE* const out = std::fopen(part.c_str(), "wb");
  if (out == nullptr) {
    std::perror(("http_client: " + part).c_str());
    return 1;
  }
  int code = run(s, out);
  std::fclose(out);
  if (code == 0 && std::rename(part.c_str(), s.output.c_str()) != 0) {
    std::perror(("http_client: " + s.output).c_str());
    code = 1;
  }
  if (code != 0) std::remove(part.c_str());
  return code;
}

static std::optional<settings> parse(const std::vector<std::string_view>& words) {
  settings s;
  std::optional<url> place;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool last = i + 1 == words.size();
    const auto next = http::number(last ? "" : words[i + 1]);
    if (words[i] == "--head") {
      s.head_only = true;
    } else if (words[i] == "--output" && !last) {
      s.output = words[++i];
    } else if (words[i] == "--max-bytes" && next) {
      s.max_bytes = *next;
      ++i;
    } else if (words[i] == "--max-time" && next && *next < 1'000'000) {
      s.max_time = std::chrono::seconds(*next);
      ++i;
    } else if (last) {
      place = parse_url(words[i]);
    } else {
      return std::nullopt;
    }
  }
  if (!place) return std::nullopt;
  s.place = *std::move(place);
  return s;
}

int main(int argc, char** argv) {
  const auto s = parse(words_of(argc, argv, help));
  if (!s) show_help(help, false);
  return s->output.empty() ? run(*s, stdout) : run_into_file(*s);
}
