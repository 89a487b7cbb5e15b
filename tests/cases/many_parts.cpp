// A gathered send of very many pieces takes time in proportion to their number.
#include "case.hpp"

#include <ctime>
#include <vector>

using namespace anyio;

static double processor_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

/// Sends that many pieces over a stream to a reader in the same loop.
static double cost(byte_stream& from, byte_stream& to, std::size_t count, bool empty_between) {
  std::vector<const_buffer> parts(count, const_buffer("12345678", 8));
  if (empty_between)
    for (std::size_t i = 0; i + 1 < count; ++i)
      if (i % 10 != 0) parts[i] = const_buffer();
  const double begin = processor_seconds();
  run([&]() -> task<> {
    task_group group;
    group.start_soon(from.send(std::span<const const_buffer>(parts)));
    group.start_soon(
        [](byte_stream& s, std::size_t rest) -> task<> {
          while (rest != 0) rest -= (co_await s.receive_view()).size();
        },
        std::ref(to), empty_between ? (count + 8) / 10 * 8 + ((count - 1) % 10 != 0 ? 8 : 0) : count * 8);
    co_await group.join();
  });
  return processor_seconds() - begin;
}

int main() {
  cases::end_when_it_hangs();
  cases::verdict verdict;
  loop here;
  for (const bool empty_between : {false, true}) {
    for (const char* kind : {"a UNIX stream", "a memory stream"}) {
      auto sockets = create_unix_stream_pair().value();
      auto memory = create_memory_stream_pair();
      const bool over_socket = kind[2] == 'U';
      byte_stream& from = over_socket ? static_cast<byte_stream&>(sockets.first) : memory.first;
      byte_stream& to = over_socket ? static_cast<byte_stream&>(sockets.second) : memory.second;
      const double quarter = cost(from, to, 100'000, empty_between);
      const double whole = cost(from, to, 400'000, empty_between);
      verdict.expect(whole / quarter < 8, kind,
                     std::to_string(whole / quarter) + " times the processor time for 4 times the pieces");
    }
  }
  return verdict.status();
}
