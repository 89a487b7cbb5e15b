// Integers and descriptors through a buffered stream: what is left after a failed read, and too many
// descriptors.
#include "trace.hpp"

#include <bit>
#include <cstdint>

#include <unistd.h>

using namespace outcome;

namespace {

task<std::uint32_t> adds(buffered_stream& in, int count) {
  noisy local("adds");
  std::uint32_t sum = 0;
  for (int i = 0; i < count; ++i) {
    const auto n = co_await in.receive_int<std::uint16_t>();
    say("got " + std::to_string(n));
    sum += n;
  }
  co_return sum;
}

task<> numbers() {
  noisy local("numbers");
  auto [near, far] = create_memory_stream_pair();
  buffered_stream in(near);
  co_await far.send(std::string_view("\0\1\2\3\xff\xfe\xff", 7));
  say("sum " + std::to_string(co_await adds(in, 2)));
  say("little " + std::to_string(co_await in.receive_int<std::int16_t>(std::endian::little)));
  tell("half of one", co_await as_result(fail_after(1ms, in.receive_int<std::uint64_t>())));
  say("kept " + std::to_string(in.buffer().size()));
  auto waiting = in.receive_int<std::int16_t>();
  waiting.start([](result<std::int16_t> r) { say("late " + std::to_string(r.value_or(0))); });
  tell("busy", co_await as_result(in.receive_int<char>()));
  co_await far.send("\xff");
  co_await sleep(1ms);
  co_await far.send("abc");
  co_await far.send_eof();
  tell("cut off", co_await as_result(in.receive_int<std::uint32_t>()));
  say("kept " + std::string(in.buffer()));
  tell("adds", co_await as_result(adds(in, 2)));
  say("last " + std::to_string(co_await in.receive_int<char>()));
  tell("the end", co_await as_result(in.receive_int<std::uint8_t>()));
  in.close();
  co_await adds(in, 1);
  say("not here");
}

task<> takes(buffered_stream& in, std::size_t size) {
  noisy local("takes");
  const std::string bytes = co_await in.receive_exactly(size);
  say(bytes + " with " + std::to_string(in.take_fds().size()));
}

task<> descriptors() {
  noisy local("descriptors");
  auto pair = co_await create_unix_stream_pair();
  auto& [near, far] = pair;
  buffered_stream in(near, 3);
  const int two[] = {0, 0};
  co_await far.send("plain");
  co_await far.send_fds("two", two);
  co_await takes(in, 5);
  co_await takes(in, 3);
  co_await far.send_fds("more", two);
  tell("too few bytes", co_await as_result(fail_after(1ms, takes(in, 9))));
  say("kept " + std::string(in.buffer()) + " with " + std::to_string(in.take_fds().size()));
  co_await takes(in, 4);
  co_await far.send_fds("a", two);
  co_await far.send_fds("b", two);
  co_await in.receive_exactly(1);
  tell("too many", co_await as_result(takes(in, 1)));
  co_await takes(in, 1);
  say("not here");
}

}  // namespace

int main() {
  tell("numbers", run(as_result(numbers())));
  tell("descriptors", run(as_result(descriptors())));
}
