// Calls a method without arguments on the D-Bus session bus, and prints its reply: strings, numbers, and the
// content of descriptors that it contains.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/dbus_call.cpp -o dbus_call
//   ./dbus_call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus.ListNames
//
// The protocol is at https://dbus.freedesktop.org/doc/dbus-specification.html.
#include "anyio_net.hpp"

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>

#include <unistd.h>

#include "support/dbus.hpp"
#include "support/printable.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: dbus_call DESTINATION PATH INTERFACE.MEMBER\n"
    "\n"
    "Calls MEMBER on the bus at DBUS_SESSION_BUS_ADDRESS, and prints the values of the reply, one a line. "
    "For a\n"
    "descriptor it prints what can be read from it.\n"
    "\n"
    "exit code: 0 after a reply, 1 after an error, 2 for a wrong command line\n";

// What can be read from a descriptor.
static anyio::task<std::string> contents_of(anyio::unique_fd& fd) {
  std::string text;
  char block[4096];
  for (;;) {
    co_await anyio::wait_readable(fd.get());
    const ssize_t n = ::read(fd.get(), block, sizeof block);
    if (n <= 0) co_return text;
    text.append(block, static_cast<std::size_t>(n));
  }
}

static anyio::task<int> program(std::string path, std::string destination, std::string object,
                                std::string method) {
  anyio::unix_stream stream = co_await anyio::fail_after(10s, anyio::connect_unix(path));
  dbus::bus b(std::move(stream));
  co_await anyio::fail_after(10s, b.authenticate());
  const std::size_t dot = method.rfind('.');
  dbus::message reply = co_await anyio::fail_after(
      25s, b.call(std::move(destination), std::move(object), method.substr(0, dot), method.substr(dot + 1)));
  if (reply.type == 3) {
    std::cerr << "dbus_call: " << printable(reply.error_name) << '\n';
    co_return 1;
  }
  std::cout << co_await dbus::values_of(reply, contents_of);
  co_return 0;
}

// The path in "unix:path=/run/bus,guid=…" or "unix:abstract=/tmp/bus,guid=…"; empty if there is none.
static std::string path_of(std::string_view address) {
  for (const std::string_view kind : {"unix:path=", "unix:abstract="}) {
    if (!address.starts_with(kind)) continue;
    const std::string_view rest = address.substr(kind.size());
    return (kind == "unix:path=" ? "" : std::string(1, '\0')) + std::string(rest.substr(0, rest.find(',')));
  }
  return {};
}

int main(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (argc == 2 && (word == "--help" || word == "-h")) return std::cout << help, 0;
  if (argc != 4 || std::string_view(argv[3]).find('.') == std::string_view::npos) return std::cerr << help, 2;
  const char* const address = std::getenv("DBUS_SESSION_BUS_ADDRESS");
  const std::string path = path_of(address != nullptr ? address : "");
  if (path.empty()) return std::cerr << "dbus_call: DBUS_SESSION_BUS_ADDRESS names no UNIX socket\n", 1;
  try {
    return anyio::run(program(path, argv[1], argv[2], argv[3]));
  } catch (const anyio::exception& e) {
    std::cerr << "dbus_call: " << e.what() << '\n';
    return 1;
  }
}
