// Logs an entry to the systemd journal by its native protocol: in a datagram, or, if it is too long for one,
// in a sealed file in memory whose descriptor is passed.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/journal.cpp -o journal
//   ./journal PRIORITY=4 SYSLOG_IDENTIFIER=backup "MESSAGE=the disk is nearly full"
#include "anyio_net.hpp"

#include <cerrno>
#include <cstdint>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static constexpr std::string_view help =
    "usage: journal [--path PATH] [FIELD=VALUE]...\n"
    "\n"
    "Logs one entry with these fields to the journal's socket PATH (default: /run/systemd/journal/socket).\n"
    "Names of fields consist of capital letters, digits and underscores. Without MESSAGE, all of standard\n"
    "input is the message, of any length and with any bytes.\n"
    "\n"
    "exit code: 0 if the entry was sent, 1 if not, 2 for a wrong command line\n";

struct settings {
  std::string path = "/run/systemd/journal/socket";
  std::string entry;
  bool has_message = false;

  settings() = default;
};

// A value with a newline is sent with its length, as 64 bits in little-endian order.
static void append_field(std::string& entry, std::string_view name, std::string_view value) {
  entry.append(name);
  if (value.find('\n') == std::string_view::npos) {
    entry.append("=").append(value).append("\n");
    return;
  }
  entry += '\n';
  const std::uint64_t size = value.size();
  for (int bits = 0; bits < 64; bits += 8) entry += static_cast<char>(size >> bits);
  entry.append(value).append("\n");
}

static anyio::error last_error(const char* operation) { return {anyio::errc::os_error, errno, operation}; }

// A file in memory that cannot be changed any more; the journal rejects any other file.
static anyio::result<anyio::unique_fd> sealed_copy(std::string_view content) {
#if defined(MFD_ALLOW_SEALING)
  anyio::unique_fd file(::memfd_create("journal-entry", MFD_ALLOW_SEALING | MFD_CLOEXEC));
  if (!file) return last_error("memfd_create");
  while (!content.empty()) {
    const ssize_t n = ::write(file.get(), content.data(), content.size());
    if (n < 0) return last_error("write");
    content.remove_prefix(static_cast<std::size_t>(n));
  }
  const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
  if (::fcntl(file.get(), F_ADD_SEALS, seals) != 0) return last_error("seal");
  return file;
#else
  static_cast<void>(content);
  errno = ENOSYS;
  return last_error("memfd_create");
#endif
}

static anyio::task<> program(const settings& s) {
  auto journal = co_await anyio::create_connected_unix_datagram_socket(s.path);
  const auto sent = co_await as_result(journal.send(s.entry));
  if (sent) co_return;
  if (sent.error() != std::errc::message_size) co_await anyio::raise(sent.error());
  const anyio::unique_fd file = co_await sealed_copy(s.entry);
  const int fds[] = {file.get()};
  co_await journal.send_fds("", fds);  // an empty datagram: the entry is in the file
}

static bool parse(const std::vector<std::string_view>& words, settings& s) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--path") {
      if (++i == words.size()) return false;
      s.path = words[i];
      continue;
    }
    const std::size_t equals = words[i].find('=');
    if (equals == 0 || equals == std::string_view::npos) return false;
    const std::string_view name = words[i].substr(0, equals);
    const bool valid = name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == name.npos;
    if (!valid || name.front() == '_') return false;
    append_field(s.entry, name, words[i].substr(equals + 1));
    s.has_message = s.has_message || name == "MESSAGE";
  }
  return true;
}

int main(int argc, char** argv) {
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  if (words.size() == 1 && (words[0] == "--help" || words[0] == "-h")) return std::cout << help, 0;
  settings s;
  if (!parse(words, s)) return std::cerr << help, 2;
  if (!s.has_message) {
    const std::string input(std::istreambuf_iterator<char>(std::cin), {});
    append_field(s.entry, "MESSAGE", input);
  }
  try {
    anyio::run(program(s));
  } catch (const anyio::exception& e) {
    std::cerr << "journal: " << e.what() << '\n';
    return 1;
  }
}
