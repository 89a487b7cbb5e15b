// A client like netcat: sends standard input, which must be a pipe, then half-closes, and prints everything
// it receives. `relay tcp HOST PORT` or `relay unix PATH`, where @name is an abstract name. With `echoed`
// before that it half-closes only after it has received as many bytes as it sent.
#include "anyio_net.hpp"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

struct traffic {
  anyio::byte_stream& peer;
  bool echoed;  // half-close only after all bytes are echoed
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  anyio::event level = {};

  void count(std::uint64_t& counter, std::size_t n) {
    counter += n;
    if (received >= sent)
      level.set();
    else
      level.clear();
  }
};

anyio::task<> send_input(traffic& t) {
  auto input = co_await anyio::fd_stream::from_fd(STDIN_FILENO);
  for (;;) {
    auto bytes = co_await anyio::as_result(input.receive_view());
    if (!bytes) break;
    t.count(t.sent, bytes->size());
    co_await t.peer.send(*bytes);
  }
  if (t.echoed && t.sent != 0) co_await t.level.wait();
  co_await t.peer.send_eof();
}

anyio::task<> print_answers(traffic& t) {
  for (;;) {
    auto bytes = co_await anyio::as_result(t.peer.receive_view());
    if (!bytes && bytes.error() == anyio::errc::end_of_stream) co_return;
    if (!bytes) co_await anyio::raise(bytes.error());
    std::fwrite(bytes->data(), 1, bytes->size(), stdout);
    t.count(t.received, bytes->size());
  }
}

anyio::task<> relay(anyio::byte_stream& peer, bool echoed) {
  traffic t{peer, echoed};
  co_await anyio::when_all(send_input(t), print_answers(t));
  co_await peer.aclose();
}

anyio::task<> relay_tcp(std::string host, std::uint16_t port, bool echoed) {
  auto peer = co_await anyio::connect_tcp(host, port);
  co_await relay(peer, echoed);
}

anyio::task<> relay_unix(std::string path, bool echoed) {
  if (path.starts_with('@')) path[0] = '\0';
  auto peer = co_await anyio::connect_unix(path);
  co_await relay(peer, echoed);
}

int main(int argc, char** argv) {
  anyio::result<> outcome =
      anyio::error(anyio::errc::invalid_argument, 0, "relay [echoed] tcp HOST PORT | unix PATH");
  std::vector<std::string> words(argv + 1, argv + argc);
  const bool echoed = !words.empty() && words[0] == "echoed";
  if (echoed) words.erase(words.begin());
  if (words.size() == 3 && words[0] == "tcp") {
    const auto port = std::uint16_t(std::atoi(words[2].c_str()));
    outcome = anyio::run(anyio::as_result(relay_tcp(words[1], port, echoed)));
  } else if (words.size() == 2 && words[0] == "unix") {
    outcome = anyio::run(anyio::as_result(relay_unix(words[1], echoed)));
  }
  if (outcome) return 0;
  std::fprintf(stderr, "relay: %s\n", outcome.error().message().c_str());
  return 1;
}
