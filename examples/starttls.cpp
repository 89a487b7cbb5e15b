// A conversation that begins in clear text and continues encrypted, as with mail servers (RFC 3207): a
// server that knows EHLO, STARTTLS, NOOP and QUIT, and a client that requires STARTTLS.
//
//   g++ -std=c++20 -O2 -pthread -I. -DANYIO_NET_OPENSSL examples/starttls.cpp -lssl -lcrypto -o starttls
//   ./starttls server PORT CERTIFICATE KEY
//   ./starttls client HOST PORT CA NAME
//
// or -DANYIO_NET_MBEDTLS and -lmbedtls -lmbedx509 -lmbedcrypto.
#include "anyio_net.hpp"

#include <strings.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support/complaints.hpp"
#include "support/printable.hpp"
#include "support/program.hpp"

using namespace std::chrono_literals;

#if defined(ANYIO_NET_OPENSSL)
constexpr auto make_context = anyio::openssl_context;
#elif defined(ANYIO_NET_MBEDTLS)
constexpr auto make_context = anyio::mbedtls_context;
#else
#error "no TLS library: compile with -DANYIO_NET_OPENSSL or -DANYIO_NET_MBEDTLS"
#endif

/// One end of the conversation: a stream that changes from clear text to TLS, and its lines.
struct conversation {
  explicit conversation(anyio::tcp_stream tcp)
      : stream(std::make_unique<anyio::tcp_stream>(std::move(tcp))), lines(*stream) {}

  /// Bytes after the last line in clear text. If they were kept they would be taken for encrypted later, and
  /// an attacker on the network could have written them.
  bool has_more_in_clear() const { return !lines.buffer().empty(); }

  /// The handshake needs the whole stream: the reader of lines releases it.
  std::unique_ptr<anyio::byte_stream> take_stream() {
    lines = anyio::buffered_stream();
    return std::move(stream);
  }
  void give_stream(anyio::tls_stream tls) {
    stream = std::make_unique<anyio::tls_stream>(std::move(tls));
    lines = anyio::buffered_stream(*stream);
  }

  std::unique_ptr<anyio::byte_stream> stream;
  anyio::buffered_stream lines;
};

// ---- server -------------------------------------------------------------------------------------------

bool is_command(std::string_view line, std::string_view name) {
  return line.size() >= name.size() && ::strncasecmp(line.data(), name.data(), name.size()) == 0 &&
         (line.size() == name.size() || line[name.size()] == ' ');
}

anyio::task<> talk(anyio::tcp_stream client, std::shared_ptr<anyio::tls_context> context) {
  conversation c(std::move(client));
  bool encrypted = false;
  co_await c.stream->send("220 starttls ready\r\n");
  for (;;) {
    const auto line = co_await anyio::fail_after(1min, c.lines.receive_line(1000));
    if (is_command(line, "EHLO")) {
      co_await c.stream->send(encrypted ? "250 starttls, encrypted\r\n" : "250-starttls\r\n250 STARTTLS\r\n");
    } else if (is_command(line, "STARTTLS") && !encrypted) {
      if (c.has_more_in_clear()) {
        co_await c.stream->send("501 nothing may follow STARTTLS\r\n");
        break;
      }
      co_await c.stream->send("220 go ahead\r\n");
      c.give_stream(co_await anyio::tls_stream::wrap_server(c.take_stream(), context));
      encrypted = true;
    } else if (is_command(line, "NOOP")) {
      co_await c.stream->send("250 done\r\n");
    } else if (is_command(line, "QUIT")) {
      co_await c.stream->send("221 good bye\r\n");
      break;
    } else {
      co_await c.stream->send("500 EHLO, STARTTLS, NOOP or QUIT\r\n");
    }
  }
  co_await c.stream->aclose();
}

anyio::task<> serve(std::uint16_t port, std::string certificate, std::string key) {
  const auto context = co_await make_context({.certificate_file = certificate, .private_key_file = key});
  auto listener = co_await anyio::create_tcp_listener({.local_port = port});
  std::printf("listening on port %d\n", listener.local_port());
  std::fflush(stdout);
  const auto handler = [&context](anyio::tcp_stream client) { return talk(std::move(client), context); };
  complaints complain("starttls");
  co_await listener.serve(handler, [&complain](const anyio::error& e) { complain(e); });
}

// ---- client -------------------------------------------------------------------------------------------

/// Sends a command, if there is one, and reads the answer, of which only the last line has no hyphen after
/// its number. Returns all its lines; a number other than the expected one is an error.
anyio::task<std::string> ask(conversation& c, std::string command, std::string_view hoped_for) {
  if (!command.empty()) co_await c.stream->send(command + "\r\n");
  std::string lines;
  for (bool more = true; more;) {
    const auto line = co_await c.lines.receive_line(1000);
    if (!line.starts_with(hoped_for))
      co_await anyio::raise(anyio::error(anyio::errc::broken_resource, EPROTO, "the server's answer"));
    more = line.size() > hoped_for.size() && line[hoped_for.size()] == '-';
    lines += line + "\n";
  }
  co_return lines;
}

anyio::task<> visit(std::string host, std::uint16_t port, std::string ca, std::string name) {
  const auto context = co_await make_context({.ca_file = ca});
  conversation c(co_await anyio::connect_tcp(host, port));
  co_await ask(c, "", "220");
  const auto abilities = co_await ask(c, "EHLO localhost", "250");
  // An attacker may have removed it: then the client stops.
  if (abilities.find("STARTTLS\n") == abilities.npos)
    co_await anyio::raise(anyio::error(anyio::errc::not_supported, 0, "STARTTLS"));
  co_await ask(c, "STARTTLS", "220");
  if (c.has_more_in_clear())
    co_await anyio::raise(anyio::error(anyio::errc::broken_resource, EPROTO, "clear text after STARTTLS"));

  auto tls = co_await anyio::tls_stream::wrap_client(c.take_stream(), context, {.server_name = name});
  std::printf("%s %s\n", tls.info().version.c_str(), tls.info().cipher.c_str());
  c.give_stream(std::move(tls));
  const auto greeting = co_await ask(c, "EHLO localhost", "250");  // facts from the clear text are ignored
  std::fputs(printable(greeting, true).c_str(), stdout);
  co_await ask(c, "QUIT", "221");
  co_await c.stream->aclose();
}

static anyio::task<> program(std::vector<std::string> words) {
  if (words.size() == 4 && words[0] == "server") {
    co_await serve(std::uint16_t(std::atoi(words[1].c_str())), words[2], words[3]);
  } else if (words.size() == 5 && words[0] == "client") {
    const auto port = std::uint16_t(std::atoi(words[2].c_str()));
    co_await anyio::fail_after(1min, visit(words[1], port, words[3], words[4]));
  } else {
    co_await anyio::raise(
        {anyio::errc::invalid_argument, 0, "server PORT CERTIFICATE KEY | client HOST PORT CA NAME"});
  }
}

int main(int argc, char** argv) {
  return run_program("starttls", program(std::vector<std::string>(argv + 1, argv + argc)));
}
