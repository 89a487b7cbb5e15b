// Connects standard input and output with a socket of any kind, as nc does: TCP, UNIX, UDP, UNIX datagrams,
// and TLS over TCP if compiled in; as client or as server for one client.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/net_cat.cpp -o net_cat
//   g++ -std=c++20 -O2 -pthread -I. -DANYIO_NET_OPENSSL examples/net_cat.cpp -lssl -lcrypto -o net_cat
//   ./net_cat example.org 80
#include "anyio_net.hpp"

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

#include "support/program.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: net_cat [OPTION...] HOST PORT\n"
    "       net_cat [OPTION...] --unix PATH\n"
    "\n"
    "Sends standard input and writes received bytes to standard output, until both have ended. The end of\n"
    "input is passed on at once (half-close), and the other direction continues; TLS 1.2 does not support\n"
    "that, so there it ends half a second after the last received bytes. When standard error is a terminal,\n"
    "the progress of longer transfers is shown there.\n"
    "\n"
    "  --listen           wait for one client at HOST PORT or PATH instead; PORT 0: any free one\n"
    "  --datagram         UDP, or UNIX datagrams: each piece of input is one datagram. With --listen the\n"
    "                     first datagram determines the peer. Ends with the input, or by Ctrl-C\n"
    "  --tls              TLS over TCP; the server's certificate must be for HOST\n"
    "  --ca FILE          the authorities to trust, instead of the system's\n"
    "  --certificate FILE, --key FILE    this end's certificate and key; required of a server\n"
    "  --insecure         accept any certificate: for tests\n"
    "\n"
    "exit code: 0 on success, 1 on failure (standard error says why), 2 for a wrong command line, 130\n"
    "after Ctrl-C\n";

struct settings {
  bool listen = false, datagram = false, tls = false, insecure = false, is_unix = false;
  std::string ca, certificate, key, host, path;
  std::uint16_t port = 0;

  settings() = default;
};

// The number of bytes transferred in each direction.
struct totals {
  std::uint64_t sent = 0, received = 0;
};

// --- standard input and output: they may be files, which no poller can watch, so helper threads read and
// write

static constexpr std::size_t piece_size = 65536;

// Shared with the helper thread, since it may outlive the operation.
struct piece {
  char bytes[piece_size];
  std::size_t size = 0;
};

// Empty at the end.
static anyio::task<std::shared_ptr<piece>> read_input(std::size_t at_most = piece_size) {
  auto p = std::make_shared<piece>();
  auto call = [p, at_most] {  // named because of g++ 12: see docs/building.md on temporaries in co_await
    for (;;) {
      const ssize_t n = ::read(STDIN_FILENO, p->bytes, at_most);
      if (n < 0 && errno == EINTR) continue;
      if (n > 0) p->size = static_cast<std::size_t>(n);
      return n < 0 ? errno : 0;
    }
  };
  const int failure = co_await anyio::to_thread::run_sync(std::move(call));
  if (failure != 0) co_await anyio::raise(anyio::error(anyio::errc::os_error, failure, "standard input"));
  co_return p;
}

static anyio::task<> write_output(std::string bytes) {
  auto text = std::make_shared<const std::string>(std::move(bytes));
  auto call = [text] {
    for (std::string_view left = *text; !left.empty();) {
      const ssize_t n = ::write(STDOUT_FILENO, left.data(), left.size());
      if (n < 0 && errno != EINTR) return errno;
      if (n > 0) left.remove_prefix(static_cast<std::size_t>(n));
    }
    return 0;
  };
  const int failure = co_await anyio::to_thread::run_sync(std::move(call));
  if (failure != 0) co_await anyio::raise(anyio::error(anyio::errc::os_error, failure, "standard output"));
}

// --- streams

static anyio::task<> send_input(anyio::byte_stream& stream, totals& t) {
  for (;;) {
    const auto p = co_await read_input();
    if (p->size == 0) break;
    co_await stream.send(anyio::const_buffer(p->bytes, p->size));
    t.sent += p->size;
  }
  const auto ended = co_await as_result(stream.send_eof());
  if (ended) co_return;
  if (ended.error() != anyio::errc::not_supported) co_await anyio::raise(ended.error());
  // TLS 1.2 cannot close only one direction, so the peer would wait for more: leave when it has become
  // silent.
  for (std::uint64_t before = t.received + 1; before != t.received; co_await anyio::sleep(500ms))
    before = t.received;
  co_await stream.aclose();
}

static anyio::task<> write_received(anyio::byte_stream& stream, totals& t) {
  for (;;) {
    const auto bytes = co_await as_result(stream.receive_view());
    if (bytes.error() == anyio::errc::end_of_stream || bytes.error() == anyio::errc::closed_resource)
      co_return;
    if (!bytes) co_await anyio::raise(bytes.error());
    t.received += bytes->size();
    co_await write_output(std::string(*bytes));
  }
}

// In both directions, until both have ended.
static anyio::task<> exchange(anyio::byte_stream& stream, totals& t) {
  co_await anyio::when_all(send_input(stream, t), write_received(stream, t));
  co_await stream.aclose();
}

// --- datagrams

// Socket has receive(), and send(bytes) to the peer it is connected to.
template <class Socket>
static anyio::task<> exchange_datagrams(Socket& socket, totals& t) {
  anyio::task_group receiving;
  receiving.start_soon([&]() -> anyio::task<> {
    for (;;) {
      const std::string bytes = co_await socket.receive();
      t.received += bytes.size();
      co_await write_output(bytes);
    }
  });
  for (;;) {
    const auto p = co_await read_input(8192);
    if (p->size == 0) break;
    co_await socket.send(anyio::const_buffer(p->bytes, p->size));
    t.sent += p->size;
  }
  co_await anyio::move_on_after(500ms, receiving.join());  // an answer to the last datagram
}

// For a server: the first datagram determines the peer.
template <class Socket>
static anyio::task<> answer_datagrams(Socket& socket, totals& t) {
  auto first = co_await socket.receive();
  const auto other = first.sender;
  t.received += first.data.size();
  co_await write_output(first.data);
  struct answering {
    Socket& socket;
    const decltype(other)& to;
    auto send(anyio::const_buffer bytes) { return socket.send_to(bytes, to); }
    anyio::task<std::string> receive() {
      for (;;) {
        auto next = co_await socket.receive();
        if (next.sender == to) co_return std::move(next.data);
      }
    }
  } connected{socket, other};
  co_await exchange_datagrams(connected, t);
}

// --- command line

#if defined(ANYIO_NET_OPENSSL) || defined(ANYIO_NET_MBEDTLS)
static anyio::result<std::shared_ptr<anyio::tls_context>> credentials(const settings& s) {
  anyio::tls_config config;
  config.ca_file = s.ca;
  config.certificate_file = s.certificate;
  config.private_key_file = s.key;
  if (s.insecure) config.verify = anyio::tls_verify::none;
#if defined(ANYIO_NET_OPENSSL)
  return anyio::openssl_context(config);
#else
  return anyio::mbedtls_context(config);
#endif
}

static anyio::task<> talk_tls(const settings& s, totals& t) {
  const auto context = co_await credentials(s);
  if (s.listen) {
    auto listener = co_await anyio::create_tcp_listener({.local_host = s.host, .local_port = s.port});
    std::cerr << "listening on port " << listener.local_port() << std::endl;
    auto client = std::make_unique<anyio::tcp_stream>(co_await listener.accept());
    listener.close();
    anyio::tls_stream stream = co_await anyio::tls_stream::wrap_server(std::move(client), context, {});
    co_await exchange(stream, t);
  } else {
    anyio::tls_stream stream = co_await anyio::connect_tls(s.host, s.port, context);
    co_await exchange(stream, t);
  }
}
#else
static anyio::task<> talk_tls(const settings&, totals&) {
  co_await anyio::raise(anyio::error(anyio::errc::not_supported, 0, "--tls"));
}
#endif

static anyio::task<> talk_tcp(const settings& s, totals& t) {
  if (s.listen) {
    auto listener = co_await anyio::create_tcp_listener({.local_host = s.host, .local_port = s.port});
    std::cerr << "listening on port " << listener.local_port() << std::endl;
    anyio::tcp_stream stream = co_await listener.accept();
    listener.close();
    co_await exchange(stream, t);
  } else {
    anyio::tcp_stream stream = co_await anyio::connect_tcp(s.host, s.port);
    co_await exchange(stream, t);
  }
}

static anyio::task<> talk_unix(const settings& s, totals& t) {
  if (s.listen) {
    auto listener = co_await anyio::create_unix_listener(s.path, {.unlink_on_close = true});
    std::cerr << "listening on " << s.path << std::endl;
    anyio::unix_stream stream = co_await listener.accept();
    listener.close();
    co_await exchange(stream, t);
  } else {
    anyio::unix_stream stream = co_await anyio::connect_unix(s.path);
    co_await exchange(stream, t);
  }
}

static anyio::task<> talk_udp(const settings& s, totals& t) {
  if (s.listen) {
    auto socket = co_await anyio::create_udp_socket({.local_host = s.host, .local_port = s.port});
    std::cerr << "listening on port " << socket.local_endpoint().port << std::endl;
    co_await answer_datagrams(socket, t);
  } else {
    auto socket = co_await anyio::create_connected_udp_socket(s.host, s.port);
    co_await exchange_datagrams(socket, t);
  }
}

// Bound to a name, so that the peer can answer; the file is removed at the end.
struct own_name {
  std::string path;
  explicit own_name(std::string p) : path(std::move(p)) {}
  own_name(const own_name&) = delete;
  own_name& operator=(const own_name&) = delete;
  ~own_name() { ::unlink(path.c_str()); }
};

static anyio::task<> talk_unix_datagrams(const settings& s, totals& t) {
  if (s.listen) {
    const own_name name(s.path);
    auto socket = co_await anyio::create_unix_datagram_socket({.local_path = name.path});
    std::cerr << "listening on " << s.path << std::endl;
    co_await answer_datagrams(socket, t);
  } else {
    const own_name name(s.path + "." + std::to_string(::getpid()));
    auto socket = co_await anyio::create_connected_unix_datagram_socket(s.path, {.local_path = name.path});
    co_await exchange_datagrams(socket, t);
  }
}

static anyio::task<> talk(const settings& s, totals& t) {
  if (s.is_unix) return s.datagram ? talk_unix_datagrams(s, t) : talk_unix(s, t);
  if (s.tls) return talk_tls(s, t);
  return s.datagram ? talk_udp(s, t) : talk_tcp(s, t);
}

// --- progress

static std::string amount(double bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
  return text;
}

static anyio::task<> show_progress(const totals& t) {
  if (::isatty(STDERR_FILENO) == 0) co_await anyio::event().wait();
  std::uint64_t before = 0;
  const auto begin = anyio::now();
  struct end_of_line {
    bool shown = false;
    ~end_of_line() {
      if (shown) std::cerr << std::endl;
    }
  } line;
  for (;;) {
    co_await anyio::sleep(1s);
    const std::uint64_t all = t.sent + t.received;
    const std::uint64_t rate = all - std::exchange(before, all);
    if (rate == 0 || anyio::now() - begin < 2s) continue;
    line.shown = true;
    std::cerr << "\r" << amount(static_cast<double>(t.sent)) << " sent, "
              << amount(static_cast<double>(t.received)) << " received, " << amount(static_cast<double>(rate))
              << "/s   " << std::flush;
  }
}

static anyio::task<int> program(const settings& s) {
  auto interrupts = co_await anyio::signal_receiver::open(SIGINT, SIGTERM);
  totals t;
  const auto first = co_await anyio::when_any(talk(s, t), interrupts.receive(), show_progress(t));
  co_return first.index() == 1 ? 130 : 0;
}

static bool parse(const std::vector<std::string_view>& words, settings& s) {
  std::vector<std::string_view> places;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    std::string* value = word == "--ca"            ? &s.ca
                         : word == "--certificate" ? &s.certificate
                         : word == "--key"         ? &s.key
                         : word == "--unix"        ? &s.path
                                                   : nullptr;
    if (value != nullptr) {
      if (++i == words.size()) return false;
      *value = words[i];
    } else if (word == "--listen") {
      s.listen = true;
    } else if (word == "--datagram") {
      s.datagram = true;
    } else if (word == "--tls") {
      s.tls = true;
    } else if (word == "--insecure") {
      s.insecure = true;
    } else if (word.starts_with("--")) {
      return false;
    } else {
      places.push_back(word);
    }
  }
  s.is_unix = !s.path.empty();
  const bool fits = !s.tls || (!s.is_unix && !s.datagram);
  if (s.is_unix || !fits) return fits && places.empty();
  if (places.size() != 2) return false;
  s.host = places[0];
  const auto [end, failure] = std::from_chars(places[1].data(), places[1].data() + places[1].size(), s.port);
  return !s.host.empty() && failure == std::errc() && end == places[1].data() + places[1].size();
}

int main(int argc, char** argv) {
  settings s;
  if (!parse(words_of(argc, argv, help), s)) show_help(help, false);
  const int code = run_program("net_cat", program(s));
  std::cout.flush();
  ::_exit(code);  // a helper may still be reading standard input
}
