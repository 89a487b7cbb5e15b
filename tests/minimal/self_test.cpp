// Every kind of socket once, by callbacks and by coroutines, in one process that ends by itself. `make
// check-minimal` builds and runs it in each mode, and `make cross-musl` for other machines. It uses neither
// exceptions nor iostreams, and only the features of its build: without threads, no name is looked up.
#include "anyio_net.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

namespace {

int failures = 0;

void expect(bool fine, const char* what) {
  if (fine) return;
  ++failures;
  std::printf("FAILED: %s\n", what);
}

// ---- TCP by callbacks -------------------------------------------------------------------------------

/// The echo server's data of a client; it destroys itself.
class session {
 public:
  explicit session(anyio::tcp_stream stream)
      : client_(std::move(stream)), receiving_(client_.receive_view()) {}

  void receive() {
    receiving_.start([this](anyio::result<std::string_view> bytes) { bytes ? send(*bytes) : finish(); });
  }

 private:
  void send(std::string_view bytes) {
    sending_ = client_.send(bytes);
    sending_.start([this](anyio::result<> sent) { sent ? receive() : finish(); });
  }
  void finish() { delete this; }

  anyio::tcp_stream client_;
  anyio::receive_view_operation receiving_;
  anyio::send_operation sending_;
};

/// A client that sends a message, receives it again, and reports.
class caller {
 public:
  caller(std::uint16_t port, int& answered, anyio::tcp_listener& listener)
      : answered_(answered), listener_(listener) {
    anyio::connect_tcp(anyio::ip_endpoint{anyio::ip_address::loopback_v4(), port})
        .start([this](anyio::result<anyio::tcp_stream> r) {
          if (!r) return finish(r.error());
          stream_ = *std::move(r);
          sending_ = stream_.send("hello");
          sending_.start([this](anyio::result<> sent) { sent ? receive() : finish(sent.error()); });
        });
  }

 private:
  void receive() {
    receiving_ = stream_.receive(buffer_);
    receiving_.start([this](anyio::result<std::size_t> n) {
      if (!n) return finish(n.error());
      got_.append(buffer_, *n);
      got_.size() < 5 ? receive() : finish({});
    });
  }
  void finish(anyio::error e) {
    if (!e.message().empty() && e != anyio::errc::ok) std::printf("%s\n", e.message().c_str());
    expect(got_ == "hello", "a TCP client hears what it said");
    stream_.close();
    if (++answered_ == 4) listener_.close();
  }

  int& answered_;
  anyio::tcp_listener& listener_;
  anyio::tcp_stream stream_;
  anyio::send_operation sending_;
  anyio::receive_operation receiving_;
  char buffer_[16];
  std::string got_;
};

void tcp_by_callbacks() {
  anyio::loop loop;
  loop.reserve(16, 16);
  auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
  if (!listener) return expect(false, "a listener opens");
  bool ended = false;
  listener->serve([](anyio::tcp_stream client) { (new session(std::move(client)))->receive(); })
      .start([&ended](anyio::result<> r) { ended = r.has_value(); });
  int answered = 0;
  std::vector<std::unique_ptr<caller>> callers;
  for (int i = 0; i < 4; ++i)
    callers.push_back(std::make_unique<caller>(listener->local_port(), answered, *listener));
  loop.run();
  expect(answered == 4 && ended, "four TCP clients by callbacks");
}

// ---- by coroutines ----------------------------------------------------------------------------------

template <class Stream>
anyio::task<> echo(Stream client) {
  for (;;) co_await client.send(co_await client.receive_view());
}

anyio::task<std::string> ask(anyio::byte_stream& server, std::string_view question) {
  co_await server.send(question);
  anyio::buffered_stream lines(server);
  co_return co_await lines.receive_line();
}

anyio::task<> tcp() {
  auto listener = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  anyio::task_group group;
  group.start_soon(listener.serve(echo<anyio::tcp_stream>));
  auto stream = co_await anyio::connect_tcp("127.0.0.1", listener.local_port());
  const std::string line = co_await ask(stream, "one line\n");
  expect(line == "one line", "TCP by coroutines");
  stream.close();
  const auto refused = co_await anyio::as_result(stream.receive());
  expect(refused.error() == anyio::errc::closed_resource, "a closed stream says so");
  listener.close();
  co_await group.join();
}

anyio::task<> unix_streams(std::string_view folder) {
  const std::string path = std::string(folder) + "/stream";
  auto listener = co_await anyio::create_unix_listener(path, {.unlink_on_close = true});
  anyio::task_group group;
  group.start_soon(listener.serve(echo<anyio::unix_stream>));
  auto stream = co_await anyio::connect_unix(path);
  const std::string line = co_await ask(stream, "another\n");
  expect(line == "another", "UNIX streams");
  stream.close();
  listener.close();
  co_await group.join();
}

anyio::task<> udp() {
  auto server = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  auto client = co_await anyio::create_connected_udp_socket(server.local_endpoint());
  co_await client.send("datagram");
  anyio::udp_packet packet = co_await server.receive();
  co_await server.send_to(packet.data, packet.sender);
  const std::string back = co_await client.receive();
  expect(back == "datagram", "UDP");
}

anyio::task<> unix_datagrams(std::string_view folder) {
  const std::string path = std::string(folder) + "/datagram";
  auto server = co_await anyio::create_unix_datagram_socket({.local_path = path});
  auto client = co_await anyio::create_connected_unix_datagram_socket(path);
  co_await client.send("datagram");
  const anyio::unix_packet packet = co_await server.receive();
  expect(packet.data == "datagram", "UNIX datagrams");
  ::unlink(path.c_str());
}

anyio::task<int> fails() {
  co_await anyio::raise(anyio::error(anyio::errc::incomplete_read));
  expect(false, "nothing runs on after what was raised");
  co_return 1;
}

anyio::task<> timers_and_tasks() {
  const auto begin = anyio::now();
  co_await anyio::sleep(5ms);
  expect(anyio::now() - begin >= 5ms, "a sleep is not too short");
  const bool in_time = co_await anyio::move_on_after(1ms, anyio::sleep(1h));
  expect(!in_time, "a timeout");
  anyio::event event;
  const auto late = co_await anyio::as_result(anyio::fail_after(1ms, event.wait()));
  expect(late.error() == anyio::errc::timed_out, "a timeout that is an error");
  const auto failed = co_await anyio::as_result(fails());
  expect(failed.error() == anyio::errc::incomplete_read, "an error is raised through a task");
  anyio::channel<int> channel(2);
  anyio::task_group group;
  group.start_soon(
      [](anyio::channel<int>& c) -> anyio::task<> {
        for (int i = 1; i <= 10; ++i) co_await c.send(i);
        c.close();
      },
      std::ref(channel));
  int sum = 0;
  for (;;) {
    const auto n = co_await anyio::as_result(channel.receive());
    if (!n) break;
    sum += *n;
  }
  expect(sum == 55, "a channel");
  co_await group.join();
  anyio::event posted;
  anyio::loop::current().handle().post([&posted] { posted.set(); });
  co_await posted.wait();
#if !defined(ANYIO_NET_NO_THREADS)
  const int computed = co_await anyio::to_thread::run_sync([] { return 42; });
  expect(computed == 42, "a call on a thread");
#endif
}

anyio::task<> all(std::string_view folder) {
  const auto in_time = co_await anyio::as_result(anyio::fail_after(30s, [folder]() -> anyio::task<> {
    co_await tcp();
    co_await unix_streams(folder);
    co_await udp();
    co_await unix_datagrams(folder);
    co_await timers_and_tasks();
  }));
  if (!in_time) std::printf("%s\n", in_time.error().message().c_str());
  expect(in_time.has_value(), "all that coroutines do");
}

#if defined(NDEBUG)
/// Without assertions an endless wait is an error.
void run_inside() {
  anyio::loop outer;
  auto pair = anyio::create_unix_stream_pair().value();
  anyio::errc code = anyio::errc::ok;
  outer.post([&] { code = anyio::run(anyio::as_result(pair.first.receive())).error().code(); });
  outer.run();
  expect(code == anyio::errc::invalid_argument, "an operation of the loop around");
}
#endif

}  // namespace

int main() {
  const char* temporary = std::getenv("TMPDIR");
  std::string folder = std::string(temporary != nullptr ? temporary : "/tmp") + "/anyio_minimal_XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) return std::perror("mkdtemp"), 1;
  tcp_by_callbacks();
  anyio::run(all(folder));
#if defined(NDEBUG)
  run_inside();
#endif
  if (::rmdir(folder.c_str()) != 0) return std::perror("rmdir"), 1;
  if (failures == 0) std::printf("ok\n");
  return failures == 0 ? 0 : 1;
}
