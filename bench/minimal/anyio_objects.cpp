// The bytes that objects take which a program has many of: operations, streams, and the frame of a coroutine
// that echoes. tools/checks/check_weight.py compares them with the record.

#include "../../anyio_net.hpp"

#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>

namespace {

std::size_t largest_block = 0;

anyio::task<> echo(anyio::tcp_stream client) {
  for (;;) {
    const auto bytes = co_await as_result(client.receive_view());
    if (!bytes) co_return;
    const auto sent = co_await as_result(client.send(*bytes));
    if (!sent) co_return;
  }
}

void print(const char* name, std::size_t bytes) { std::printf("%s: %zu\n", name, bytes); }

}  // namespace

void* operator new(std::size_t size) {
  if (size > largest_block) largest_block = size;
  if (void* const block = std::malloc(size)) return block;
  std::abort();
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }

int main() {
  print("receive_view operation", sizeof(anyio::receive_view_operation));
  print("receive operation", sizeof(anyio::receive_operation));
  print("send operation", sizeof(anyio::send_operation));
  print("accept operation", sizeof(anyio::accept_operation<anyio::tcp_stream>));
  print("sleep operation", sizeof(anyio::sleep_operation));
  print("tcp_stream", sizeof(anyio::tcp_stream));
  print("what the loop keeps of a stream", sizeof(anyio::detail::tcp_resource));
  largest_block = 0;
  const anyio::task<> echoes = echo(anyio::tcp_stream());
  print("frame of a coroutine that echoes", largest_block);
}
