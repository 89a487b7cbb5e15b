// The server of tcp_server.cpp over a UNIX socket. A file left by an earlier server is replaced.
//
//   g++ -std=c++20 -pthread -I. examples/unix_server.cpp -o unix_server && ./unix_server [path]
#include "anyio_net.hpp"

anyio::task<> handle(anyio::unix_stream client) {
  auto name = co_await client.receive(1024);
  co_await client.send("Hello, " + name + "\n");
}

anyio::task<> serve(std::string path) {
  auto listener = co_await anyio::create_unix_listener(path, {.unlink_on_close = true});
  co_await anyio::serve_until_interrupted(listener, handle);
}

int main(int argc, char** argv) { anyio::run(serve(argc > 1 ? argv[1] : "/tmp/mysock")); }
