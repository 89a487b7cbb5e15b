// Receives the descriptor of a file that fd_server.cpp has opened, and prints the file's content.
//
//   g++ -std=c++20 -pthread -I. examples/fd_client.cpp -o fd_client && ./fd_client [path]
#include "anyio_net.hpp"

#include <cstdio>

anyio::task<int> print_file(std::string path) {
  auto client = co_await anyio::connect_unix(path);
  auto [message, fds] = co_await client.receive_fds(0, 1);
  std::FILE* file = fds.empty() ? nullptr : ::fdopen(fds[0].release(), "r");
  if (file == nullptr) co_return std::fputs("the server sent no file that can be read\n", stderr), 1;
  for (int c; (c = std::getc(file)) != EOF;) std::putchar(c);
  std::fclose(file);
  co_return 0;
}

int main(int argc, char** argv) { return anyio::run(print_file(argc > 1 ? argv[1] : "/tmp/mysock")); }
