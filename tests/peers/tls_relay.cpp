// The relay over TLS: sends standard input, which must be a pipe, prints everything it receives, and ends
// when it has received as many bytes as it sent: `tls_relay [lenient] HOST PORT CA`. Under TLS 1.3 it
// half-closes first and reads the peer's close_notify; `lenient` neither sends nor requires one. TLS version
// and resumption are printed to stderr.
#include "anyio_net.hpp"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#if defined(ANYIO_NET_OPENSSL)
constexpr auto make_context = anyio::openssl_context;
#elif defined(ANYIO_NET_MBEDTLS)
constexpr auto make_context = anyio::mbedtls_context;
#else
#error "no TLS library: compile with -DANYIO_NET_OPENSSL or -DANYIO_NET_MBEDTLS"
#endif

struct traffic {
  anyio::tls_stream& peer;
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  bool all_sent = false;
  anyio::event over = {};

  void look() {
    if (all_sent && received == sent) over.set();
  }
};

anyio::task<> send_input(traffic& t) {
  auto input = co_await anyio::fd_stream::from_fd(STDIN_FILENO);
  for (;;) {
    auto bytes = co_await anyio::as_result(input.receive_view());
    if (!bytes && bytes.error() == anyio::errc::end_of_stream) break;
    if (!bytes) co_await anyio::raise(bytes.error());
    t.sent += bytes->size();
    co_await t.peer.send(*bytes);
  }
  t.all_sent = true;
  t.look();
}

anyio::task<> print_answers(traffic& t) {
  for (;;) {
    auto bytes = co_await anyio::as_result(t.peer.receive_view());
    if (!bytes && bytes.error() == anyio::errc::end_of_stream) co_return;
    if (!bytes) co_await anyio::raise(bytes.error());
    std::fwrite(bytes->data(), 1, bytes->size(), stdout);
    t.received += bytes->size();
    t.look();
  }
}

anyio::task<> half_close(traffic& t) {
  co_await t.over.wait();
  co_await t.peer.send_eof();
}

anyio::task<> relay(std::string host, std::uint16_t port, std::string ca, bool lenient) {
  const auto context = co_await make_context({.ca_file = ca});
  auto peer = co_await anyio::connect_tls(host, port, context, {.standard_compatible = !lenient});
  std::fprintf(stderr, "%s\n", peer.info().version.c_str());
  traffic t{peer};
  if (peer.info().version == "TLSv1.3" && !lenient) {
    co_await anyio::when_all(send_input(t), print_answers(t), half_close(t));
  } else {
    anyio::task_group group;
    group.start_soon(send_input(t));
    group.start_soon(print_answers(t));
    co_await t.over.wait();
    group.cancel();
  }
  co_await peer.aclose();
}

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  const bool lenient = !words.empty() && words[0] == "lenient";
  if (lenient) words.erase(words.begin());
  if (words.size() != 3) return std::fputs("tls_relay [lenient] HOST PORT CA\n", stderr), 1;
  const auto port = std::uint16_t(std::atoi(words[1].c_str()));
  const auto outcome = anyio::run(anyio::as_result(relay(words[0], port, words[2], lenient)));
  if (outcome) return 0;
  std::fprintf(stderr, "tls_relay: %s\n", outcome.error().message().c_str());
  return 1;
}
