// Tells the service manager about a service by the protocol of sd_notify(3): that it is ready, what it does,
// and which descriptors the manager keeps while the service restarts.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/sd_notify.cpp -o sd_notify
//   NOTIFY_SOCKET=/run/systemd/notify ./sd_notify --store state=/var/lib/state READY=1 "STATUS=all is well"
#include "anyio_net.hpp"

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

static constexpr std::string_view help =
    "usage: sd_notify [--store NAME=FILE]... [VARIABLE=VALUE]...\n"
    "\n"
    "Sends the variables, for instance READY=1, to the service manager at the path in NOTIFY_SOCKET (a "
    "leading\n"
    "@ means the abstract namespace). --store opens FILE, and lets the manager keep its descriptor under "
    "NAME.\n"
    "Ends when the manager has seen everything.\n"
    "\n"
    "exit code: 0 if the manager was told, 1 if not, 2 for a wrong command line\n";

using manager = anyio::connected_unix_datagram_socket;

struct settings {
  std::string path;
  std::vector<std::pair<std::string, std::string>> stored;  // name and file
  std::string variables;

  settings() = default;
};

static anyio::error last_error(const char* operation) { return {anyio::errc::os_error, errno, operation}; }

static anyio::task<> store(manager& to, std::string name, std::string file) {
  const anyio::unique_fd opened(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!opened) co_await anyio::raise(last_error("open"));
  const std::string message = "FDSTORE=1\nFDNAME=" + name;
  const int fds[] = {opened.get()};
  co_await to.send_fds(message, fds);  // the manager gets a descriptor of its own
}

// A manager reads datagrams later, and asks the kernel for their sender then, which fails if the sender has
// exited. It closes the descriptor that comes with BARRIER=1 once it has read all datagrams before it.
static anyio::task<> wait_until_seen(manager& to) {
  int ends[2];
  if (::pipe(ends) != 0) co_await anyio::raise(last_error("pipe"));
  anyio::unique_fd reading(ends[0]);
  anyio::unique_fd writing(ends[1]);
  anyio::fd_stream end = co_await anyio::fd_stream::from_fd(reading.get());
  static_cast<void>(reading.release());  // the stream's now
  const int fds[] = {writing.get()};
  co_await to.send_fds("BARRIER=1", fds);
  writing.reset();
  const auto closed = co_await as_result(anyio::fail_after(std::chrono::seconds(5), end.receive()));
  if (closed.error() != anyio::errc::end_of_stream) co_await anyio::raise(closed.error());
}

static anyio::task<> program(const settings& s) {
  manager to = co_await anyio::create_connected_unix_datagram_socket(s.path);
  for (const auto& one : s.stored) co_await store(to, one.first, one.second);
  if (!s.variables.empty()) co_await to.send(s.variables);
  co_await wait_until_seen(to);
}

static bool parse(const std::vector<std::string_view>& words, settings& s) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool stores = words[i] == "--store";
    if (stores && ++i == words.size()) return false;
    const std::size_t equals = words[i].find('=');
    if (equals == 0 || equals == std::string_view::npos || words[i].starts_with("-")) return false;
    if (stores) {
      s.stored.emplace_back(words[i].substr(0, equals), words[i].substr(equals + 1));
    } else {
      s.variables.append(words[i]).append("\n");
    }
  }
  return !words.empty();
}

int main(int argc, char** argv) {
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  if (words.size() == 1 && (words[0] == "--help" || words[0] == "-h")) return std::cout << help, 0;
  settings s;
  if (!parse(words, s)) return std::cerr << help, 2;
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || *path == '\0') return std::cerr << "sd_notify: NOTIFY_SOCKET is not set\n", 1;
  s.path = path;
  if (s.path.front() == '@') s.path.front() = '\0';
  try {
    anyio::run(program(s));
  } catch (const anyio::exception& e) {
    std::cerr << "sd_notify: " << e.what() << '\n';
    return 1;
  }
}
