// A line protocol over a buffered stream, whose client violates its rules in every way.
#include "trace.hpp"

#include <charconv>
#include <memory>

using namespace outcome;

namespace {

task<std::size_t> number(std::string text) {
  noisy local("number");
  std::size_t n = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec != std::errc() || end != text.data() + text.size()) co_await raise(errc::invalid_argument);
  co_return n;
}

task<std::string> message(buffered_stream& in) {
  noisy local("message");
  const std::string line = co_await in.receive_line(8);
  const std::size_t size = co_await number(line);
  std::string body = co_await in.receive_exactly(size);
  co_return body;
}

task<> session(std::unique_ptr<byte_stream> stream) {
  noisy local("session");
  buffered_stream in(std::move(stream));
  for (;;) say("message " + co_await message(in));
}

task<> client(memory_stream stream, std::string_view text) {
  noisy local("client");
  co_await stream.send(text);
  co_await stream.aclose();
}

task<> conversation(std::string_view text) {
  auto [near, far] = create_memory_stream_pair();
  tell("conversation", co_await as_result(when_all(session(std::make_unique<memory_stream>(std::move(near))),
                                                   client(std::move(far), text))));
}

task<> all() {
  co_await conversation("3\r\nabc5\nhello");
  co_await conversation("0\n0\n");
  co_await conversation("3\nab");
  co_await conversation("x\nab");
  co_await conversation("3");
  co_await conversation("1234567890\n");
  co_await conversation("");
}

}  // namespace

int main() { tell("all", run(as_result(all()))); }
