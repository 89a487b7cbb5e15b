// anyio_net.hpp: sockets for C++20 in one header. No dependencies; uses epoll or kqueue.
//
//   #include "anyio_net.hpp"
//
//   anyio::task<> echo(anyio::tcp_stream client) {
//     for (;;) {
//       auto bytes = co_await as_result(client.receive_view());
//       if (!bytes) co_return;                    // end of stream or an error
//       co_await client.send(*bytes);
//     }
//   }
//   anyio::task<> serve() {
//     auto listener = co_await anyio::create_tcp_listener({.local_port = 1234});
//     co_await listener.serve(echo);
//   }
//   int main() { anyio::run(serve()); }
//
//   g++ -std=c++20 -O2 main.cpp
//
// Everything that can wait is an operation, and an operation is used in one of two ways:
//
//   auto n = co_await client.receive(buffer);  // in a coroutine: returns the value or raises
//   client.receive(buffer).start([](anyio::result<std::size_t> r) {});  // a callback, called from the loop
//
// Four rules hold everywhere:
//
//   1. No result is delivered inside the call that starts the operation; a callback runs once, from the loop.
//   2. Destroying a pending operation cancels it: it ends at once, its buffer is free, no data is lost.
//   3. A stream has one reader and one writer. A second one gets `busy_resource`; the first continues.
//   4. Errors are values inside the library and are raised at the edge. The end of a stream is an error,
//      never an empty read; closed, broken and busy are different errors. A program behaves the same with
//      exceptions and without.
//
// A loop belongs to one thread; only `loop_handle::post` may be called from another thread. The rest of this
// file is in layers: errors and bytes first, then the loop, operations and tasks, then streams, listeners and
// datagrams, and the definitions at the end.
#pragma once
