// Named operations that are awaited again, also when they completed at once.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/faces.hpp"
#include "support/temp_dir.hpp"

namespace {

using anyio::errc;
using anyio::task;

task<> send_descriptors_twice() {
  auto pair = anyio::create_unix_stream_pair().value();
  anyio::unix_stream& a = pair.first;
  anyio::unix_stream& b = pair.second;
  const int fds[] = {0};
  auto sending = a.send_fds("hello", fds);
  for (int i = 0; i < 2; ++i) {
    co_await sending;
    const auto came = co_await b.receive_fds(100, 1);
    CHECK(came.data == "hello");
    CHECK(came.fds.size() == 1);
  }
}

task<> send_descriptors_in_datagrams_twice(std::string path) {
  auto a = co_await anyio::create_unix_datagram_socket({.local_path = path});
  auto b = co_await anyio::create_connected_unix_datagram_socket(path);
  const int fds[] = {0};
  auto sending = b.send_fds("hello", fds);
  auto receiving = a.receive_fds(100, 1);
  for (int i = 0; i < 2; ++i) {
    co_await sending;
    const auto came = co_await receiving;
    CHECK(came.data == "hello");
    CHECK(came.fds.size() == 1);
  }
}

task<> send_packet_information_twice() {
  auto s = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  auto sending = s.send_to("hello", s.local_endpoint(), {.local = anyio::ip_address::loopback_v4()});
  for (int i = 0; i < 2; ++i) {
    co_await sending;
    const auto [data, sender] = co_await s.receive();
    CHECK(data == "hello");
  }
}

task<> send_file_twice(int file) {
  auto pair = anyio::create_unix_stream_pair().value();
  anyio::unix_stream& a = pair.first;
  anyio::unix_stream& b = pair.second;
  auto sending = a.send_file(file, 0, 10);
  for (int i = 0; i < 2; ++i) {
    CHECK(co_await sending == 10);
    CHECK(co_await b.receive() == "0123456789");
  }
}

task<> look_twice() {
  auto pair = anyio::create_unix_stream_pair().value();
  anyio::unix_stream& a = pair.first;
  anyio::unix_stream& b = pair.second;
  char room[4];
  auto peeking = b.peek(room);
  auto reading = b.wait_readable();
  auto writing = a.wait_writable();
  for (int i = 0; i < 2; ++i) {
    co_await writing;
    co_await a.send("1234");
    co_await reading;
    CHECK(co_await peeking == 4);
    CHECK(co_await b.receive() == "1234");
  }
}

task<> copy_twice() {
  auto pair = anyio::create_memory_stream_pair();
  auto other = anyio::create_memory_stream_pair();
  co_await pair.first.send("once");
  co_await pair.first.send_eof();
  auto copying = anyio::copy(pair.second, other.first);
  for (std::uint64_t i = 0; i < 2; ++i) {
    const std::uint64_t n = co_await copying;
    CHECK(n == (i == 0 ? 4 : 0));  // the end comes again
  }
  co_await other.second.send_eof();
  auto relaying = anyio::relay(pair.second, other.first);
  for (int i = 0; i < 2; ++i) {
    const auto r = co_await as_result(relaying);
    if (i == 0) CHECK(r.has_value());
    if (i == 1) CHECK(r.error() == errc::closed_resource);  // both are half-closed now
  }
}

task<> receive_numbers_twice() {
  auto pair = anyio::create_memory_stream_pair();
  anyio::buffered_stream in(pair.second);
  auto big = in.receive_int<std::uint16_t>();
  auto little = in.receive_int<std::int16_t>(std::endian::little);
  for (int i = 0; i < 2; ++i) {
    co_await pair.first.send("\1\2\3\4");
    CHECK(co_await big == 0x0102);
    CHECK(co_await little == 0x0403);
  }
  co_await pair.first.send("x");
  co_await pair.first.send_eof();
  for (int i = 0; i < 2; ++i) {  // the byte stays
    const auto r = co_await as_result(big);
    CHECK(r.error() == errc::incomplete_read);
  }
}

task<> queue_twice() {
  auto pair = anyio::create_memory_stream_pair();
  anyio::send_queue queue(pair.first);
  auto sending = queue.send("once");
  auto flushing = queue.flush();
  auto running = queue.run();
  for (int i = 0; i < 2; ++i) {
    const auto sent = co_await as_result(sending);
    CHECK(sent.has_value() == (i == 0));  // the message is gone then
    if (i == 1) CHECK(sent.error() == errc::invalid_argument);
    if (i == 1) CHECK(queue.try_send("once"));
    const auto first = co_await anyio::when_any(as_result(running), as_result(flushing));
    CHECK(first.index() == 1);
    CHECK(co_await pair.second.receive() == "once");
  }
  pair.first.close();
  for (int i = 0; i < 2; ++i) {
    const auto ended = co_await as_result(running);
    CHECK(ended.error() == errc::closed_resource);
  }
  co_await flushing;  // nothing is left to send
}

task<> send_batches_twice() {
  auto s = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  anyio::udp_batch out(2);
  anyio::udp_batch in(2);
  CHECK(out.push("hello", s.local_endpoint()));
  auto sending = s.send_batch(out);
  auto receiving = s.receive_batch(in);
  for (int i = 0; i < 2; ++i) {
    CHECK(co_await sending == 1);
    CHECK(sending.sent() == 1);
    CHECK(co_await receiving == 1);
    CHECK(in.begin()->data.size() == 5);
  }
}

task<> synchronize_twice() {
  anyio::channel<int> numbers(2);
  auto receiving = numbers.receive();
  auto many = numbers.receive_many(5);
  auto sending = numbers.send(7);
  anyio::semaphore lock(3);
  auto acquiring = lock.acquire(3);
  anyio::result_group<int> children;
  auto next = children.next();
  for (int i = 0; i < 2; ++i) {
    const auto sent = co_await as_result(sending);
    CHECK(sent.has_value() == (i == 0));  // the value is gone then
    if (i == 1) CHECK(sent.error() == errc::invalid_argument);
    if (i == 1) CHECK(numbers.try_send(7));
    CHECK(co_await receiving == 7);
    CHECK(numbers.try_send(1));
    CHECK(numbers.try_send(2));
    const std::vector<int> all = co_await many;
    CHECK(all == std::vector{1, 2});
    const anyio::permit mine = co_await acquiring;
    CHECK(lock.available() == 0);
    children.start_soon([i] { return i; });
    CHECK(co_await next == i);
  }
  numbers.close();
  for (int i = 0; i < 2; ++i) {
    const auto one = co_await as_result(receiving);
    CHECK(one.error() == errc::end_of_stream);
    const auto none = co_await as_result(many);
    CHECK(none.error() == errc::end_of_stream);
    const auto nobody = co_await as_result(next);
    CHECK(nobody.error() == errc::end_of_stream);
  }
}

/// A declared operation, to which another is assigned once it waits.
template <class Op>
task<> assign_twice(Op first, Op second) {
  Op op;
  const auto declared = co_await as_result(op);
  CHECK(declared.error() == errc::invalid_argument);
  bool called = false;
  op = std::move(first);
  op.start([&called](const auto&) { called = true; });
  co_await anyio::sleep(std::chrono::seconds(0));
  op = std::move(second);  // the first is withdrawn
  const auto limited = co_await as_result(anyio::move_on_after(std::chrono::milliseconds(1), as_result(op)));
  CHECK(limited.has_value());
  op = Op();
  const auto emptied = co_await as_result(op);
  CHECK(emptied.error() == errc::invalid_argument);
  CHECK_FALSE(called);
}

task<> assign_all_twice() {
  auto pair = anyio::create_unix_stream_pair().value();
  auto other = anyio::create_unix_stream_pair().value();
  anyio::unix_stream& a = pair.first;
  anyio::unix_stream& b = other.first;
  char room[4];
  co_await assign_twice(a.peek(room), a.peek(room));
  co_await assign_twice(a.wait_readable(), a.wait_readable());
  co_await assign_twice(a.receive_fds(10, 1), a.receive_fds(10, 1));
  co_await assign_twice(anyio::copy(a, b), anyio::copy(a, b));
  co_await assign_twice(anyio::relay(a, b), anyio::relay(a, b));
  anyio::buffered_stream in(a);
  co_await assign_twice(in.receive_int<int>(), in.receive_int<int>());
  anyio::send_queue queue(b, 1);
  CHECK(queue.try_send("full"));
  co_await assign_twice(queue.send("x"), queue.send("y"));
  co_await assign_twice(queue.flush(), queue.flush());
  co_await assign_twice(queue.run(), queue.run());
  CHECK(queue.size() == 0);
  CHECK(co_await other.second.receive() == "full");
  anyio::channel<int> numbers(0);
  co_await assign_twice(numbers.send(1), numbers.send(2));
  co_await assign_twice(numbers.receive(), numbers.receive());
  co_await assign_twice(numbers.receive_many(2), numbers.receive_many(2));
  anyio::semaphore lock(2);
  const auto one = lock.try_acquire();
  co_await assign_twice(lock.acquire(2), lock.acquire(2));
  CHECK(lock.available() == 1);
  anyio::event never;
  co_await assign_twice(never.wait(), never.wait());
  anyio::result_group<int> children;
  children.start_soon([]() -> task<int> {
    co_await anyio::sleep(std::chrono::hours(1));
    co_return 1;
  });
  co_await assign_twice(children.next(), children.next());
  auto udp = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  anyio::udp_batch batch(1);
  co_await assign_twice(udp.receive_batch(batch), udp.receive_batch(batch));
}

task<> listen_twice() {
  auto listening = anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  for (int i = 0; i < 2; ++i) {
    anyio::tcp_listener l = co_await listening;
    CHECK(l.local_port() != 0);
  }
}

task<> fail_to_connect_twice() {
  auto nowhere = anyio::connect_tcp("", 1);
  anyio::tcp_connect_options other_family;
  other_family.family = AF_INET;
  auto elsewhere = anyio::connect_tcp(anyio::ip_endpoint{anyio::ip_address::loopback_v6(), 1}, other_family);
  for (int i = 0; i < 2; ++i) {
    const auto empty = co_await as_result(nowhere);
    CHECK(empty.error() == errc::invalid_argument);
    const auto mismatch = co_await as_result(elsewhere);
    CHECK(mismatch.error() == std::errc::address_family_not_supported);
  }
}

// Operations that lie outside the coroutine that awaits them.

task<> raising(anyio::receive_string_operation& op) { static_cast<void>(co_await op); }
task<> as_value(anyio::receive_string_operation& op) { static_cast<void>(co_await as_result(op)); }

struct reader {
  anyio::loop loop;
  std::pair<anyio::unix_stream, anyio::unix_stream> pair = anyio::create_unix_stream_pair().value();
  anyio::receive_string_operation op = pair.first.receive();
  task<> running;

  /// Starts to wait in a coroutine.
  void wait(task<> (*how)(anyio::receive_string_operation&)) {
    running = how(op);
    running.start([](anyio::result<>) {});
    support::settle();
  }
};

}  // namespace

TEST_CASE("the same operation can send descriptors again") { anyio::run(send_descriptors_twice()); }

TEST_CASE("the same operation can send descriptors in a datagram again") {
  const support::temp_dir dir;
  anyio::run(send_descriptors_in_datagrams_twice(dir.path("s")));
}

TEST_CASE("the same operation can send with packet information again") {
  anyio::run(send_packet_information_twice());
}

TEST_CASE("the same operation can send a file again") {
  const support::temp_dir dir;
  const int file = ::open(dir.path("f").c_str(), O_RDWR | O_CREAT, 0600);
  CHECK(::write(file, "0123456789", 10) == 10);
  anyio::run(send_file_twice(file));
  ::close(file);
}

TEST_CASE("the same operation can peek again, and wait for readiness again") { anyio::run(look_twice()); }

TEST_CASE("the same operation can copy again, and relay again") { anyio::run(copy_twice()); }

TEST_CASE("the same operation can receive an integer again") { anyio::run(receive_numbers_twice()); }

TEST_CASE("the same operations can flush and run a queue again") { anyio::run(queue_twice()); }

TEST_CASE("the same operation can send and receive batches again") { anyio::run(send_batches_twice()); }

TEST_CASE("the same operation can take from a channel, a semaphore and a group again") {
  anyio::run(synchronize_twice());
}

TEST_CASE("an operation that waits gives way to one that is assigned to it") {
  anyio::run(assign_all_twice());
}

TEST_CASE("the same operation can listen again") { anyio::run(listen_twice()); }

TEST_CASE("the same operation can fail to connect again") { anyio::run(fail_to_connect_twice()); }

TEST_CASE("a datagram socket that cannot be connected leaves no file") {
  const support::temp_dir dir;
  const std::string own = dir.path("own");
  const auto r = anyio::run(
      as_result(anyio::create_connected_unix_datagram_socket(dir.path("nobody"), {.local_path = own})));
  CHECK(r.error() == std::errc::no_such_file_or_directory);
  CHECK(::access(own.c_str(), F_OK) != 0);
}

TEST_CASE("bytes fed to a pending reader release the inner stream") {
  anyio::loop loop;
  auto pair = anyio::create_memory_stream_pair();
  anyio::buffered_stream buffered(pair.first);
  std::string got;
  buffered.receive().start([&](anyio::result<std::string> r) { got = r.value_or("?"); });
  while (loop.run_once(std::chrono::seconds(0))) {
  }
  buffered.feed_data("fed");
  while (got.empty()) loop.run_once(std::chrono::seconds(0));
  CHECK(got == "fed");
  anyio::run(pair.second.send("more"));
  CHECK(anyio::run(pair.first.receive()) == "more");
}

TEST_CASE("an orderly close of a UNIX peer is end_of_stream even after a failed send") {
  anyio::loop loop;
  auto pair = anyio::create_unix_stream_pair().value();
  anyio::run(pair.second.send("bye"));
  pair.second.close();
  const auto sent = anyio::run(as_result(pair.first.send("too late")));
  CHECK(sent.error() == errc::broken_resource);
  CHECK(anyio::run(pair.first.receive()) == "bye");
  const auto end = anyio::run(as_result(pair.first.receive()));
  CHECK(end.error() == errc::end_of_stream);
}

TEST_CASE("a completed task can be moved") {
  anyio::loop loop;
  anyio::task<> ended = [](int) -> anyio::task<> { co_return; }(0);
  ended.start([](anyio::result<>) {});
  loop.run();
  const anyio::task<> moved = std::move(ended);
  CHECK(static_cast<bool>(moved));
}

TEST_CASE("run returns closed_resource if the loop ends during it") {
  auto loop = std::make_unique<anyio::loop>();
  loop->post([&] { loop.reset(); });
  anyio::event never;
  const auto r = anyio::run(as_result(never.wait()));
  CHECK(r.error() == errc::closed_resource);
}

TEST_CASE("assigning to a permit releases it") {
  anyio::loop loop;
  anyio::semaphore first(1);
  anyio::semaphore second(1);
  anyio::permit a = *first.try_acquire();
  anyio::permit b = *second.try_acquire();
  a = std::move(b);
  CHECK(first.try_acquire().has_value());
  CHECK_FALSE(second.try_acquire().has_value());
  CHECK_FALSE(static_cast<bool>(b));
}

TEST_CASE("destroying a coroutine cancels the operation that it awaits, wherever that is stored") {
  for (const auto how : {raising, as_value}) {
    reader r;
    r.wait(how);
    r.running = {};
    anyio::run(r.pair.second.send("hello"));
    CHECK(anyio::run(r.op) == "hello");
    // A time limit destroys it too.
    const auto limited = anyio::run(as_result(anyio::fail_after(std::chrono::seconds(0), how(r.op))));
    CHECK(limited.error() == errc::timed_out);
    anyio::run(r.pair.second.send("again"));
    CHECK(anyio::run(r.op) == "again");
  }
}

TEST_CASE("destroying a coroutine does not cancel an operation that it awaited earlier") {
  for (const auto how : {raising, as_value}) {
    reader r;
    auto op = std::make_unique<anyio::receive_string_operation>(r.pair.first.receive());
    r.running = how(*op);
    r.running.start([](anyio::result<>) {});
    support::settle();
    op.reset();
    r.running = {};
    anyio::run(r.pair.second.send("hello"));
    CHECK(anyio::run(r.op) == "hello");
  }
}

TEST_CASE("destroying a coroutine does not cancel an operation that another owner has started since") {
  for (const auto how : {raising, as_value}) {
    reader r;
    r.wait(how);
    r.op = r.pair.first.receive();
    std::string got;
    r.op.start(
        [text = &got](anyio::result<std::string> bytes) { *text = std::move(bytes).value_or("failed"); });
    r.running = {};
    anyio::run(r.pair.second.send("hello"));
    support::settle();
    CHECK(got == "hello");
  }
}

TEST_CASE("operations awaited by reference are cancelled with the composite that waits for them") {
  using namespace std::chrono_literals;
  reader r;
  const auto still_works = [&r] {
    anyio::run(r.pair.second.send("hello"));
    CHECK(anyio::run(r.op) == "hello");
  };
  const auto limited = anyio::run(as_result(anyio::fail_after(1ms, as_result(r.op))));
  CHECK(limited.error() == errc::timed_out);
  still_works();
  static_cast<void>(anyio::run(anyio::when_any(as_result(r.op), anyio::sleep(0ms))));
  still_works();
  {
    anyio::task_group group;
    group.start_soon(as_result(r.op));
    support::settle();
  }
  still_works();
  {
    auto named = as_result(r.op);
    named.start([](const anyio::result<std::string>&) {});
    support::settle();
  }
  still_works();

  // A task is destroyed.
  bool destroyed = false;
  task<> waits = [](anyio::receive_string_operation& op, bool& gone) -> task<> {
    struct at_end {
      bool& flag;
      explicit at_end(bool& f) : flag(f) {}
      ~at_end() { flag = true; }
    } const end(gone);
    static_cast<void>(co_await op);
  }(r.op, destroyed);
  CHECK(anyio::run(as_result(anyio::fail_after(1ms, as_result(waits)))).error() == errc::timed_out);
  CHECK(destroyed);
  still_works();
}

TEST_CASE("operations awaited by reference are not cancelled if another owner has started them since") {
  reader r;
  auto named = as_result(r.op);
  named.start([](const anyio::result<std::string>&) {});
  r.op = r.pair.first.receive();
  std::string got;
  r.op.start(
      [text = &got](anyio::result<std::string> bytes) { *text = std::move(bytes).value_or("failed"); });
  { const auto ended = std::move(named); }
  { auto again = as_result(r.op); }
  anyio::run(r.pair.second.send("hello"));
  support::settle();
  CHECK(got == "hello");
}
