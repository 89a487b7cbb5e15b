// Logs lines to syslog: to the local one over its UNIX datagram socket, or to a server over UDP (RFC 5424,
// 5426).
//
//   g++ -std=c++20 -O2 -pthread -I. examples/syslog.cpp -o syslog
//   ./syslog --tag backup "all is well"
#include "anyio_net.hpp"

#include <array>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "support/program.hpp"

static constexpr std::string_view help =
    "usage: syslog [--server ADDRESS:PORT | --path PATH] [--tag TAG] [--severity SEVERITY] [MESSAGE...]\n"
    "\n"
    "Logs MESSAGE, or without one each line of standard input, to the UNIX datagram socket PATH (default:\n"
    "/dev/log), or over UDP to a server. SEVERITY is emerg, alert, crit, err, warning, notice (the\n"
    "default), info or debug.\n"
    "\n"
    "exit code: 0 if all messages were sent, 1 if not, 2 for a wrong command line\n";

static constexpr std::array<std::string_view, 8> severities{"emerg",   "alert",  "crit", "err",
                                                            "warning", "notice", "info", "debug"};
static constexpr int facility_user = 1;

struct settings {
  std::string path = "/dev/log";
  std::string server;
  std::string tag = "-";
  int severity = 5;
  std::string message;

  settings() = default;
};

static std::string timestamp() {
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::tm broken_down{};
  ::gmtime_r(&now, &broken_down);
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &broken_down)};
}

// RFC 5424, 6: <priority>1 time host tag process id structured-data message
static std::string line_of(const settings& s, std::string_view message) {
  char host[256] = "-";
  ::gethostname(host, sizeof host - 1);
  std::string line =
      "<" + std::to_string(facility_user * 8 + s.severity) + ">1 " + timestamp() + " " + host + " ";
  return line.append(s.tag).append(" ").append(std::to_string(::getpid())).append(" - - ").append(message);
}

// Any socket that sends datagrams.
template <class Socket>
static anyio::task<> log_all(Socket socket, const settings& s) {
  if (!s.message.empty()) {
    co_await socket.send(line_of(s, s.message));
    co_return;
  }
  // Reading blocks the loop, which runs nothing else; a file could not be waited for anyway.
  for (std::string line; std::getline(std::cin, line);) co_await socket.send(line_of(s, line));
}

static anyio::task<> program(const settings& s) {
  if (s.server.empty()) {
    co_await log_all(co_await anyio::create_connected_unix_datagram_socket(s.path), s);
  } else {
    const anyio::ip_endpoint server = co_await anyio::ip_endpoint::parse(s.server);
    co_await log_all(co_await anyio::create_connected_udp_socket(server), s);
  }
}

static bool parse(const std::vector<std::string_view>& words, settings& s) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (!words[i].starts_with("--")) {
      s.message.append(s.message.empty() ? "" : " ").append(words[i]);
      continue;
    }
    if (i + 1 == words.size()) return false;
    const std::string_view name = words[i];
    const std::string_view value = words[++i];
    if (name == "--path") {
      s.path = value;
    } else if (name == "--server") {
      s.server = value;
    } else if (name == "--tag") {
      s.tag = value;
    } else if (name == "--severity") {
      s.severity = -1;
      for (std::size_t n = 0; n < severities.size(); ++n)
        if (severities[n] == value) s.severity = static_cast<int>(n);
      if (s.severity < 0) return false;
    } else {
      return false;
    }
  }
  return true;
}

int main(int argc, char** argv) {
  settings s;
  if (!parse(words_of(argc, argv, help), s)) show_help(help, false);
  return run_program("syslog", program(s));
}
