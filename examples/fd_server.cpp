// Opens a file for each client, and passes its descriptor: see fd_client.cpp.
//
//   g++ -std=c++20 -pthread -I. examples/fd_server.cpp -o fd_server && ./fd_server [path [file]]
#include "anyio_net.hpp"

#include <fcntl.h>

#include <fstream>

const char* file_name = "/tmp/examplefile";

anyio::task<> handle(anyio::unix_stream client) {
  anyio::unique_fd file(::open(file_name, O_RDONLY | O_CLOEXEC));
  int fds[] = {file.get()};
  co_await client.send_fds("this message is ignored", fds);
}

anyio::task<> serve(std::string path) {
  auto listener = co_await anyio::create_unix_listener(path);
  co_await listener.serve(handle);
}

int main(int argc, char** argv) {
  if (argc > 2) file_name = argv[2];
  if (argc < 3) std::ofstream(file_name) << "Test file";
  anyio::run(serve(argc > 1 ? argv[1] : "/tmp/mysock"));
}
