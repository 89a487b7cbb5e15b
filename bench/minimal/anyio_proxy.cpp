// What larger programs use: names, time limits, groups, lines, signals. Only compiled, to see what that
// costs.
#include "anyio_net.hpp"

#include <chrono>
#include <string>

using namespace std::chrono_literals;

namespace {

anyio::task<> pump(anyio::byte_stream& from, anyio::byte_stream& to) {
  for (;;) {
    auto bytes = co_await anyio::as_result(from.receive_view());
    if (!bytes) break;
    co_await to.send(*bytes);
  }
  co_await to.send_eof();
}

/// The first line names the host.
anyio::task<> handle(anyio::tcp_stream client) {
  anyio::buffered_stream in(client);
  const std::string host = co_await anyio::fail_after(5s, in.receive_line());
  anyio::tcp_stream server = co_await anyio::fail_after(10s, anyio::connect_tcp(host, 80));
  anyio::task_group both;
  both.start_soon(pump(client, server));
  both.start_soon(pump(server, client));
  co_await anyio::when_any(both.join(), anyio::sleep(60s));
  co_await anyio::move_on_after(1s, client.aclose());
}

anyio::task<> serve() {
  anyio::tcp_listener listener = co_await anyio::create_tcp_listener({.local_port = 8080});
  anyio::signal_receiver interrupted = *anyio::signal_receiver::open(2);
  co_await anyio::when_any(listener.serve(handle, [](const anyio::error&) {}), interrupted.receive());
}

}  // namespace

int main() { anyio::run(serve()); }
