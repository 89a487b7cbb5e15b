// anyio_net.hpp: sockets for C++20 in one header. No dependency; epoll or kqueue.
//
//   #include "anyio_net.hpp"
//
//   anyio::task<> echo(anyio::tcp_stream client) {
//     for (;;) {
//       auto bytes = co_await as_result(client.receive_view());
//       if (!bytes) co_return;                    // the end, or an error
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
//   auto n = co_await client.receive(buffer);  // in a coroutine: the value, or it raises
//   client.receive(buffer).start([](anyio::result<std::size_t> r) {});  // a callback, from the loop
//
// Four rules hold everywhere:
//
//   1. Nothing is delivered inside the call that started it; a callback runs once, from the loop.
//   2. Destroying is cancelling: what waits is withdrawn at once, its buffer is free, nothing is lost.
//   3. One reads and one writes. Another is told `busy_resource`; the first is unharmed.
//   4. Errors are values inside and raised at the edge. The end of a stream is raised, never an empty read;
//      closed, broken and busy are told apart. With exceptions or without: the same program, the same
//      outcome.
//
// One loop belongs to one thread; only `loop_handle::post` may be called from another. The rest of this file
// is in layers: errors and bytes first, then the loop, operations and tasks, then streams, listeners and
// datagrams, and the definitions at the end.
#pragma once
