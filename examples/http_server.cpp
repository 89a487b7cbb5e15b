// An HTTP/1.1 server for the files of a directory (RFC 9110, 9112): connections are kept, requests may be
// pipelined, and files are sent without passing through the program.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/http_server.cpp -o http_server
//   ./http_server . 8080
#include "anyio_net.hpp"

#include <array>
#include <charconv>
#include <ctime>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <fcntl.h>
#include <sys/stat.h>

#include "support/complaints.hpp"
#include "support/http_head.hpp"
#include "support/program.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: http_server FOLDER PORT\n"
    "\n"
    "Serves the files below FOLDER to this machine (PORT 0: any free one); for a directory its index.html.\n"
    "Paths that lead out of FOLDER and symbolic links are not found. Ctrl-C stops accepting, and ends the\n"
    "server when no connection is busy, or after ten seconds; Ctrl-C again ends it at once.\n"
    "\n"
    "exit code: 0 after Ctrl-C, 1 if it cannot serve, 2 for a wrong command line\n";

static constexpr std::size_t longest_head = 16384;
static constexpr std::uint64_t longest_body = 1 << 20;  // which is not read
static constexpr auto patience = 30s;

// --- files

// Decodes "%20" and similar; nothing if the result is not a path inside a directory.
static std::optional<std::string> path_of(std::string_view target) {
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

struct file {
  anyio::unique_fd fd;
  std::uint64_t size = 0;
  std::string_view type;

  file() = default;
};

static std::string_view type_of(std::string_view path) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 9> types{
      {{".html", "text/html"},
       {".txt", "text/plain"},
       {".md", "text/plain"},
       {".css", "text/css"},
       {".js", "text/javascript"},
       {".json", "application/json"},
       {".svg", "image/svg+xml"},
       {".png", "image/png"},
       {".jpg", "image/jpeg"}}};
  for (const auto& [ending, type] : types)
    if (path.ends_with(ending)) return type;
  return "application/octet-stream";
}

// Directory by directory, and never through a symbolic link.
static std::optional<file> open_below(int folder, std::string path) {
  anyio::unique_fd here(::fcntl(folder, F_DUPFD_CLOEXEC, 0));
  if (path.empty() || path.ends_with('/')) path += "index.html";
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string step = path.substr(at, end - at);
    const bool last = end == path.size();
    at = end + 1;
    if (step.empty() || step == ".") continue;
    const int kind = last ? O_NONBLOCK : O_DIRECTORY;  // a named pipe would block
    here = anyio::unique_fd(::openat(here.get(), step.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | kind));
    if (!here) return std::nullopt;
  }
  struct stat about {};
  if (::fstat(here.get(), &about) != 0 || !S_ISREG(about.st_mode)) return std::nullopt;
  file f;
  f.fd = std::move(here);
  f.size = static_cast<std::uint64_t>(about.st_size);
  f.type = type_of(path);
  return f;
}

// --- answers

static std::string head_of(std::string_view status, std::uint64_t size, std::string_view type,
                           std::string_view connection) {
  char date[64];
  const std::time_t now = std::time(nullptr);
  std::tm broken_down{};
  ::gmtime_r(&now, &broken_down);
  std::string head = "HTTP/1.1 ";
  head.append(status)
      .append("\r\nDate: ")
      .append(date, std::strftime(date, sizeof date, "%a, %d %b %Y %T GMT", &broken_down));
  head.append("\r\nContent-Length: ").append(std::to_string(size)).append("\r\nContent-Type: ").append(type);
  if (status.starts_with("405")) head.append("\r\nAllow: GET, HEAD");
  if (!connection.empty()) head.append("\r\nConnection: ").append(connection);
  return head.append("\r\n\r\n");
}

// The Connection field: empty if the connection stays open, the default since HTTP/1.1.
static std::string_view connection_of(const http::request& r, bool keep) {
  return !keep ? "close" : r.is_http_1_0() ? "keep-alive" : "";
}

static anyio::task<> send_words(anyio::tcp_stream& client, std::string_view status, bool with_body,
                                std::string_view connection) {
  std::string words(status.substr(4));
  words += '\n';
  const std::string head = head_of(status, words.size(), "text/plain", connection);
  const anyio::const_buffer both[] = {head, with_body ? words : std::string_view()};
  co_await client.send(both);
}

static anyio::task<> send_file(anyio::tcp_stream& client, file f, std::string_view connection) {
  const std::string head = head_of("200 OK", f.size, f.type, connection);
  co_await client.send(head);
  const std::uint64_t sent = co_await client.send_file(f.fd.get(), 0, f.size);
  if (sent != f.size) co_await anyio::raise(anyio::errc::incomplete_read);  // it has become shorter meanwhile
}

// The status of a request that is rejected without looking further; else nothing.
static std::string_view refusal_of(const http::request& r, int status) {
  if (status == 400) return "400 Bad Request";
  if (status == 505) return "505 HTTP Version Not Supported";
  if (status != 0 || r.body_coding() != http::coding::none) return "501 Not Implemented";
  if (r.body_size().value_or(0) > longest_body) return "413 Content Too Large";
  return {};
}

// False: no other request may follow.
static anyio::task<bool> answer(anyio::tcp_stream& client, anyio::buffered_stream& in, int folder,
                                std::string_view head) {
  http::request r;
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
    auto found = path ? open_below(folder, *path) : std::nullopt;
    if (!found) {
      co_await send_words(client, "404 Not Found", !is_head, connection);
    } else if (is_head) {
      co_await client.send(head_of("200 OK", found->size, found->type, connection));
    } else {
      co_await send_file(client, *std::move(found), connection);
    }
  }
  while (keep && body != 0)
    body -= (co_await in.receive(static_cast<std::size_t>(std::min<std::uint64_t>(body, 65536)))).size();
  co_return keep;
}

// The server stops: an idle connection ends at once, and one that is busy after its answer.
static anyio::task<> serve_client(anyio::tcp_stream client, int folder, anyio::event& stopping) {
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
    keep = co_await anyio::fail_after(10 * patience, answer(client, in, folder, std::get<0>(*head)),
                                      "answering");
  }
  co_await client.aclose();  // so that sent bytes arrive: further input is discarded for a second
}

static anyio::task<> program(int folder, std::uint16_t port) {
  auto listener = co_await anyio::create_tcp_listener({.local_host = "localhost", .local_port = port});
  std::cout << "listening on port " << listener.local_port() << std::endl;
  complaints complain("http_server");
  co_await anyio::serve_until_interrupted(
      listener,
      [folder](anyio::tcp_stream client, anyio::event& stopping) {
        return serve_client(std::move(client), folder, stopping);
      },
      [&complain](const anyio::error& e, const anyio::ip_endpoint& peer) { complain(e, peer); });
}

int main(int argc, char** argv) {
  const auto words = words_of(argc, argv, help, 2, 2);
  const std::uint16_t port = port_of(words[1], help);
  const anyio::unique_fd folder(::open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return std::perror(argv[1]), 1;
  return run_program("http_server", program(folder.get(), port));
}
