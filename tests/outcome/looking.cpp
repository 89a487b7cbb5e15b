// Looking at a socket without taking anything: peek, wait_readable and wait_writable, of streams and of
// descriptors, with errors, other operations that wait, and cancellations.
#include "trace.hpp"

#include <array>

#include <unistd.h>

using namespace outcome;

namespace {

task<> looks(unix_stream& s) {
  noisy local("looks");
  std::array<char, 4> room{};
  for (;;) {
    const std::size_t n = co_await s.peek(room);
    say("sees " + std::string(room.data(), n));
    say("takes " + co_await s.receive(1));
  }
}

task<> streams() {
  noisy local("streams");
  auto pair = co_await create_unix_stream_pair();
  auto& [near, far] = pair;
  std::array<char, 4> room{};
  tell("no room", co_await as_result(near.peek(mutable_buffer())));
  tell("writable", co_await as_result(near.wait_writable()));
  tell("nothing there", co_await as_result(fail_after(1ms, near.peek(room))));
  tell("not readable", co_await as_result(fail_after(1ms, near.wait_readable())));
  auto reading = near.receive();
  reading.start([](result<std::string> r) { tell("the reader", r); });
  tell("busy", co_await as_result(near.peek(room)));
  tell("busy too", co_await as_result(near.wait_readable()));
  near.cancel();
  co_await sleep(0s);
  auto waiting = near.wait_readable();
  waiting.start([](result<> r) { tell("readable", r); });
  tell("busy now", co_await as_result(near.receive()));
  near.cancel();
  co_await sleep(0s);
  co_await far.send("ab");
  co_await far.send_eof();
  tell("looks", co_await as_result(looks(near)));
  tell("readable at the end", co_await as_result(near.wait_readable()));
  auto closing = far.wait_readable();
  closing.start([](result<> r) { tell("closed in it", r); });
  far.close();
  co_await sleep(0s);
  tell("closed", co_await as_result(far.wait_writable()));
  tell("peek at a closed one", co_await as_result(far.peek(room)));
  co_await looks(far);
  say("not here");
}

task<> watches(int fd) {
  noisy local("watches");
  for (;;) {
    co_await wait_readable(fd);
    char c = 0;
    if (::read(fd, &c, 1) != 1) co_await raise(errc::end_of_stream);
    say(std::string("read ") + c);
  }
}

task<> descriptors() {
  int ends[2];
  if (::pipe(ends) != 0) co_await raise(errc::os_error);
  const unique_fd from(ends[0]);
  unique_fd to(ends[1]);
  tell("a pipe with room", co_await as_result(wait_writable(to.get())));
  tell("no descriptor", co_await as_result(wait_readable(-1)));
  auto both = when_all(watches(from.get()), sleep(1ms));
  both.start([](const auto& r) { tell("watches", r); });
  if (::write(to.get(), "xy", 2) != 2) say("not here");
  co_await sleep(2ms);
  to = unique_fd();
  co_await sleep(2ms);
  auto pair = co_await create_unix_stream_pair();
  tell("one of a stream", co_await as_result(wait_readable(pair.first.native_handle())));
  int others[2];
  if (::pipe(others) != 0) co_await raise(errc::os_error);
  const unique_fd reader(others[0]);
  const unique_fd writer(others[1]);
  auto told = wait_readable(reader.get());
  told.start([](result<> r) { tell("notified", r); });
  co_await sleep(0s);
  notify_closing(reader.get());
  co_await sleep(0s);
  co_await fail_after(1ms, watches(reader.get()), "watching");
  say("not here");
}

}  // namespace

int main() {
  tell("streams", run(as_result(streams())));
  tell("descriptors", run(as_result(descriptors())));
}
