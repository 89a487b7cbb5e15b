// Fetches a page by HTTP/1.1 (RFC 9110, 9112): bodies with a length, in chunks, or until the end;
// redirections.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/http_client.cpp -o http_client
//   ./http_client http://localhost:8080/
#include "anyio_net.hpp"

#include <strings.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
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

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: http_client [--head] [--output FILE] URL\n"
    "\n"
    "Writes the page at URL, which begins with http://, to standard output or FILE; with --head what the "
    "server\n"
    "says of it. FILE is there only once the page is whole. Follows ten redirections at most. Gives up when\n"
    "nothing comes for half a minute.\n"
    "\n"
    "exit code: 0 with the page, 1 without (standard error says why), 2 for a wrong command line, 130 after\n"
    "Ctrl-C\n";

static constexpr auto patience = 30s;
static constexpr std::size_t longest_head = 65536;
static constexpr int most_redirections = 10;

static bool begins_with(std::string_view text, std::string_view prefix) {  // in upper or lower case
  return text.size() >= prefix.size() && ::strncasecmp(text.data(), prefix.data(), prefix.size()) == 0;
}

static std::optional<std::uint64_t> number(std::string_view digits, int base = 10) {
  std::uint64_t n = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), n, base);
  const bool all = end == digits.data() + digits.size();
  return failure == std::errc() && all ? std::optional(n) : std::nullopt;
}

// --- places

struct url {
  std::string host, authority, target;
  std::uint16_t port = 80;

  url() = default;
  [[nodiscard]] std::string text() const { return "http://" + authority + target; }
};

static std::optional<url> parse_url(std::string_view text) {
  static constexpr std::string_view scheme = "http://";
  if (!begins_with(text, scheme)) return std::nullopt;
  text.remove_prefix(scheme.size());
  text = text.substr(0, text.find('#'));
  // What would end a line of the request early, or is not to be sent as it is.
  if (std::any_of(text.begin(), text.end(), [](char c) { return c <= ' ' || c > '~'; })) return std::nullopt;

  url u;
  const std::size_t end = std::min(text.find_first_of("/?"), text.size());
  u.authority = text.substr(0, end);
  u.target = text.substr(end);
  if (!u.target.starts_with('/')) u.target.insert(0, 1, '/');
  if (u.authority.find('@') != u.authority.npos) return std::nullopt;  // nothing here says who one is

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

// What Location says, seen from `here` (RFC 3986, section 5.2; the server takes the dots out of paths).
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

// --- answers

// The server does not speak HTTP as it should.
static anyio::error malformed(const char* what) { return {anyio::errc::broken_resource, EPROTO, what}; }

struct answer {
  std::string head;
  std::uint64_t status = 0;

  answer() = default;

  bool parse() {
    const auto code =
        begins_with(head, "HTTP/1.") && head.size() >= 12 ? number(head.substr(9, 3)) : std::nullopt;
    status = code.value_or(0);
    return status >= 100;
  }

  [[nodiscard]] std::string_view first_line() const {
    return std::string_view(head).substr(0, head.find("\r\n"));
  }

  [[nodiscard]] std::optional<std::string_view> field(std::string_view name) const {
    std::string_view rest = head;
    for (auto end = rest.find("\r\n"); end != rest.npos; end = rest.find("\r\n")) {
      rest.remove_prefix(end + 2);
      std::string_view line = rest.substr(0, rest.find("\r\n"));
      if (!begins_with(line, name) || line.size() == name.size() || line[name.size()] != ':') continue;
      line.remove_prefix(name.size() + 1);
      while (line.starts_with(' ') || line.starts_with('\t')) line.remove_prefix(1);
      while (line.ends_with(' ') || line.ends_with('\t')) line.remove_suffix(1);
      return line;
    }
    return std::nullopt;
  }
};

// Where a page goes. It may block, and nothing else is done meanwhile.
static anyio::result<> write_all(std::FILE* out, std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size()) return {};
  return anyio::error(anyio::errc::os_error, errno, "write");
}

static anyio::task<> copy_exactly(anyio::buffered_stream& in, std::uint64_t size, std::FILE* out) {
  while (size != 0) {
    const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>(size, 65536));
    const std::string bytes = co_await anyio::fail_after(patience, in.receive(piece));
    co_await write_all(out, bytes);
    size -= bytes.size();
  }
}

static anyio::task<> copy_chunks(anyio::buffered_stream& in, std::FILE* out) {
  for (;;) {
    const std::string line = co_await anyio::fail_after(patience, in.receive_line(longest_head));
    const std::string_view digits = std::string_view(line).substr(0, line.find_first_of("; \t"));
    const auto size = number(digits, 16);
    if (!size) co_await anyio::raise(malformed("the size of a chunk"));
    if (*size == 0) break;
    co_await copy_exactly(in, *size, out);
    const std::string end = co_await anyio::fail_after(patience, in.receive_line(longest_head));
    if (!end.empty()) co_await anyio::raise(malformed("the end of a chunk"));
  }
  for (std::string trailer = "?"; !trailer.empty();)
    trailer = co_await anyio::fail_after(patience, in.receive_line(longest_head));
}

static anyio::task<> copy_to_end(anyio::buffered_stream& in, std::FILE* out) {
  for (;;) {
    const auto bytes = co_await anyio::as_result(anyio::fail_after(patience, in.receive()));
    if (bytes.error() == anyio::errc::end_of_stream) co_return;
    co_await write_all(out, co_await bytes);
  }
}

static anyio::task<> copy_body(const answer& a, anyio::buffered_stream& in, std::FILE* out) {
  const auto coding = a.field("Transfer-Encoding");
  const auto length = a.field("Content-Length");
  if (a.status == 204 || a.status == 205) co_return;
  if (coding) {
    if (!begins_with(*coding, "chunked") || coding->size() != 7)
      co_await anyio::raise(malformed("the Transfer-Encoding"));
    co_await copy_chunks(in, out);
  } else if (length) {
    const auto size = number(*length);
    if (!size) co_await anyio::raise(malformed("the Content-Length"));
    co_await copy_exactly(in, *size, out);
  } else {
    co_await copy_to_end(in, out);
  }
}

// --- one page

struct settings {
  bool head_only = false;
  std::string output;
  url place;

  settings() = default;
};

// The head that answers, after those that only say that more is to come.
static anyio::task<answer> receive_answer(anyio::buffered_stream& in) {
  answer a;
  do {
    a.head = co_await anyio::fail_after(patience, in.receive_until("\r\n\r\n", longest_head));
    if (!a.parse()) co_await anyio::raise(malformed("the status line"));
  } while (a.status < 200);
  co_return a;
}

// The exit code, or where to go on.
static anyio::task<std::variant<int, url>> fetch(const url& u, const settings& s, std::FILE* out) {
  anyio::tcp_stream server = co_await anyio::fail_after(patience, anyio::connect_tcp(u.host, u.port));
  std::string request = s.head_only ? "HEAD " : "GET ";
  request.append(u.target).append(" HTTP/1.1\r\nHost: ").append(u.authority);
  request.append("\r\nUser-Agent: anyio_net\r\nAccept: */*\r\nConnection: close\r\n\r\n");
  co_await anyio::fail_after(patience, server.send(request));

  anyio::buffered_stream in(server);
  const answer a = co_await receive_answer(in);
  const auto location = a.field("Location");
  if (a.status / 100 == 3 && location) {
    auto next = follow(u, *location);
    if (next) co_return *std::move(next);
    std::cerr << "http_client: cannot go on to " << *location << '\n';
    co_return 1;
  }
  if (a.status / 100 != 2) {
    std::cerr << "http_client: the server answered " << a.first_line() << '\n';
    co_return 1;
  }
  if (s.head_only) {
    co_await write_all(out, a.head + "\r\n\r\n");
    co_return 0;
  }
  const auto copied = co_await anyio::as_result(copy_body(a, in, out));
  if (copied.error() == anyio::errc::end_of_stream || copied.error() == anyio::errc::incomplete_read) {
    std::cerr << "http_client: the server closed the connection before the page was whole\n";
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
  const auto outcome = co_await anyio::when_any(fetch_all(s, out), signals.receive());
  co_return outcome.index() == 0 ? std::get<0>(outcome) : 128 + std::get<1>(outcome);
}

static int run(const settings& s, std::FILE* out) {
  try {
    const int code = anyio::run(until_interrupted(s, out));
    if (std::fflush(out) == 0) return code;
    std::perror("http_client: write");
  } catch (const anyio::exception& e) {
    std::cerr << "http_client: " << e.what() << '\n';
  }
  return 1;
}

// Into a file beside the one that is wanted, which takes its name when it is whole.
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

int main(int argc, char** argv) {
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  if (words.size() == 1 && (words[0] == "--help" || words[0] == "-h")) return std::cout << help, 0;
  settings s;
  std::optional<url> place;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool last = i + 1 == words.size();
    if (words[i] == "--head") {
      s.head_only = true;
    } else if (words[i] == "--output" && !last) {
      s.output = words[++i];
    } else if (last) {
      place = parse_url(words[i]);
    } else {
      return std::cerr << help, 2;
    }
  }
  if (!place) return std::cerr << help, 2;
  s.place = *std::move(place);
  return s.output.empty() ? run(s, stdout) : run_into_file(s);
}
