// An HTTP/1.1 server for the files of a directory (RFC 9110, 9112): connections are kept, requests may be
// pipelined, and files are sent without passing through the program.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/http_server.cpp -o http_server
//   ./http_server . 8080
#include "anyio_net.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

#include "support/complaints.hpp"
#include "support/http_serve.hpp"
#include "support/program.hpp"

static constexpr std::string_view help =
    "usage: http_server FOLDER PORT\n"
    "\n"
    "Serves the files below FOLDER to this machine (PORT 0: any free one); for a directory its index.html.\n"
    "Paths that lead out of FOLDER and symbolic links are not found. Ctrl-C stops accepting, and ends the\n"
    "server when no connection is busy, or after ten seconds; Ctrl-C again ends it at once.\n"
    "\n"
    "exit code: 0 after Ctrl-C, 1 if it cannot serve, 2 for a wrong command line\n";

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

// The files of a directory.
class site {
 public:
  struct file {
    anyio::unique_fd fd;
    std::uint64_t size = 0;
    std::string_view type;

    file() = default;
  };

  explicit site(int folder) : folder_(folder) {}

  // Directory by directory, and never through a symbolic link.
  std::optional<file> open(std::string path) {
    anyio::unique_fd here(::fcntl(folder_, F_DUPFD_CLOEXEC, 0));
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

  anyio::task<> send(anyio::tcp_stream& client, const file& f) {
    const std::uint64_t sent = co_await client.send_file(f.fd.get(), 0, f.size);
    if (sent != f.size)
      co_await anyio::raise(anyio::errc::incomplete_read);  // it has become shorter meanwhile
  }

  std::time_t time() { return std::time(nullptr); }

 private:
  int folder_;
};

static anyio::task<> program(int folder, std::uint16_t port) {
  auto listener = co_await anyio::create_tcp_listener({.local_host = "localhost", .local_port = port});
  std::cout << "listening on port " << listener.local_port() << std::endl;
  site files(folder);
  const http::server<site> server(files);
  complaints complain("http_server");
  co_await anyio::serve_until_interrupted(
      listener,
      [&server](anyio::tcp_stream client, anyio::event& stopping) {
        return server.serve(std::move(client), stopping);
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
