// An echo server on a UNIX socket: `unix_echo PATH`, where @name is an abstract name.
#include "anyio_net.hpp"

#include <cstdio>
#include <string>

anyio::task<> echo(anyio::unix_stream client) {
  for (;;) co_await client.send(co_await client.receive_view());
}

anyio::task<> serve(std::string path) {
  if (path.starts_with('@')) path[0] = '\0';
  auto listener = co_await anyio::create_unix_listener(path);
  co_await listener.serve(echo, [](const anyio::error& e) { std::puts(e.message().c_str()); });
}

int main(int argc, char** argv) {
  if (argc == 2) anyio::run(serve(argv[1]));
}
