// Drives a protocol engine that does no input or output itself, over any stream. An Engine has
//   std::string pull()             bytes to send now; empty when there are none
//   void feed(std::string_view)    bytes that came
//   bool done()                    neither sends nor wants anything any more
#include "anyio_net.hpp"

#include <string>
#include <string_view>

template <class Engine>
anyio::task<> send_all(anyio::byte_stream& s, Engine& engine, anyio::event& fed) {
  for (;;) {
    fed.clear();
    for (std::string out = engine.pull(); !out.empty(); out = engine.pull()) co_await s.send(out);
    if (engine.done()) co_return;
    co_await fed.wait();
  }
}

template <class Engine>
anyio::task<> receive_all(anyio::byte_stream& s, Engine& engine, anyio::event& fed) {
  for (;;) {
    engine.feed(co_await s.receive_view());
    fed.set();
  }
}

/// Until the engine is done, or the stream fails. Whoever gives the engine something to do sets `fed`.
template <class Engine>
anyio::task<> drive(anyio::byte_stream& s, Engine& engine, anyio::event& fed) {
  co_await anyio::when_any(send_all(s, engine, fed), receive_all(s, engine, fed));
  co_await s.aclose();
}
