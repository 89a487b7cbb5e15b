// A client like netcat: sends standard input, which must be a pipe, then half-closes, and meanwhile prints
// what comes back. `relay tcp HOST PORT` or `relay unix PATH`, where @name is an abstract one.
#include "anyio_net.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

anyio::task<> send_input(anyio::byte_stream& peer) {
  auto input = co_await anyio::fd_stream::from_fd(STDIN_FILENO);
  for (;;) {
    auto bytes = co_await anyio::as_result(input.receive_view());
    if (!bytes) break;
    co_await peer.send(*bytes);
  }
  co_await peer.send_eof();
}

anyio::task<> print_answers(anyio::byte_stream& peer) {
  for (;;) {
    auto bytes = co_await anyio::as_result(peer.receive_view());
    if (!bytes && bytes.error() == anyio::errc::end_of_stream) co_return;
    if (!bytes) co_await anyio::raise(bytes.error());
    std::fwrite(bytes->data(), 1, bytes->size(), stdout);
  }
}

anyio::task<> relay(anyio::byte_stream& peer) {
  co_await anyio::when_all(send_input(peer), print_answers(peer));
  co_await peer.aclose();
}

anyio::task<> relay_tcp(std::string host, std::uint16_t port) {
  auto peer = co_await anyio::connect_tcp(host, port);
  co_await relay(peer);
}

anyio::task<> relay_unix(std::string path) {
  if (path.starts_with('@')) path[0] = '\0';
  auto peer = co_await anyio::connect_unix(path);
  co_await relay(peer);
}

int main(int argc, char** argv) {
  anyio::result<> outcome = anyio::error(anyio::errc::invalid_argument, 0, "relay tcp HOST PORT | unix PATH");
  if (argc == 4 && argv[1] == std::string_view("tcp")) {
    outcome = anyio::run(anyio::as_result(relay_tcp(argv[2], std::uint16_t(std::atoi(argv[3])))));
  } else if (argc == 3 && argv[1] == std::string_view("unix")) {
    outcome = anyio::run(anyio::as_result(relay_unix(argv[2])));
  }
  if (outcome) return 0;
  std::fprintf(stderr, "relay: %s\n", outcome.error().message().c_str());
  return 1;
}
