// A protocol that a user of the library may write, to be fuzzed: lines `set KEY VALUE`, `get KEY` and `quit`,
// each answered by a line. One version has a bug that most inputs do not show; the other has none.
#pragma once

#include "anyio_net.hpp"

#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace line_protocol {

/// The meaning of the lines, however they arrive.
class store {
 public:
  std::string answer(std::string_view line) {
    const std::size_t first = line.find(' ');
    const std::string_view verb = line.substr(0, first);
    const std::string_view rest =
        first == std::string_view::npos ? std::string_view() : line.substr(first + 1);
    if (verb == "get") {
      const auto found = values_.find(rest);
      return found == values_.end() ? "none\n" : "value " + found->second + "\n";
    }
    if (verb != "set") return "what?\n";
    const std::size_t second = rest.find(' ');
    if (second == std::string_view::npos) return "what?\n";
    values_[std::string(rest.substr(0, second))] = rest.substr(second + 1);
    return "stored\n";
  }

 private:
  std::map<std::string, std::string, std::less<>> values_;
};

/// The bug: treats the bytes of one receive as whole lines, and drops a rest. It works as long as a line
/// arrives in one piece, which is usual.
inline anyio::task<> serve_with_bug(anyio::tcp_stream s) {
  store values;
  for (;;) {
    const std::string got = co_await s.receive();
    std::string_view rest = got;
    for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
      const std::string_view line = rest.substr(0, end);
      if (line == "quit") co_return;
      const std::string answer = values.answer(line);
      co_await s.send(anyio::const_buffer(answer));
      rest.remove_prefix(end + 1);
    }
  }
}

/// A version with a buffered stream, which keeps the rest.
inline anyio::task<> serve_fixed(anyio::tcp_stream s) {
  store values;
  anyio::buffered_stream lines(s);
  for (;;) {
    const std::string line = co_await lines.receive_line();
    if (line == "quit") co_return;
    const std::string answer = values.answer(line);
    co_await s.send(anyio::const_buffer(answer));
  }
}

/// A client that makes random draws of the run: it stores values and requests them, and knows the expected
/// answers.
inline anyio::task<> client(anyio::ip_endpoint server, void (*wrong)()) {
  anyio::tcp_stream s = co_await anyio::connect_tcp(server);
  anyio::buffered_stream lines(s);
  store expected;
  for (std::size_t calls = anyio::sim::draw(6); calls != 0; --calls) {
    std::string line = anyio::sim::draw(2) == 0 ? "get k" : "set k";
    line += static_cast<char>('0' + anyio::sim::draw(3));
    if (line.front() == 's') line += " v" + std::to_string(anyio::sim::draw(100));
    const std::string request = line + "\n";
    co_await s.send(anyio::const_buffer(request));
    const std::string answer = co_await anyio::fail_after(std::chrono::minutes(5), lines.receive_line());
    if (answer + "\n" != expected.answer(line)) wrong();
  }
  co_await s.send("quit\n");
}

template <class Server>
anyio::task<> play(Server server, void (*wrong)()) {
  auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 7});
  if (!listener) co_return;
  anyio::task_group group;
  group.start_soon(listener->serve(std::move(server)));
  const auto r = co_await anyio::as_result(client(listener->local_endpoints().front(), wrong));
  // A fault may break a connection, but a connected client gets an answer.
  if (!r && r.error() == anyio::errc::timed_out) wrong();
  group.cancel();
}

}  // namespace line_protocol
