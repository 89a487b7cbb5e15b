// Servers and clients of all four kinds of socket in one process, which print their actions; then timeouts,
// cancellation and many simultaneous clients. It exits with 0 only if all checks passed.
//
//   make demo
#include "anyio_net.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

using namespace std::chrono_literals;

namespace {

int failures = 0;

void say(std::string_view kind, std::string_view who, std::string_view what) {
  std::printf("%-6.*s %-6.*s | %.*s\n", int(kind.size()), kind.data(), int(who.size()), who.data(),
              int(what.size()), what.data());
  std::fflush(stdout);
}

void expect(bool fine, std::string_view what) {
  if (fine) return;
  ++failures;
  say("demo", "FAILED", what);
}

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (char c : text) c == '\n' ? out += "\\n" : out += c;
  return out + '"';
}

void title(std::string_view what) { std::printf("\n-- %.*s\n", int(what.size()), what.data()); }

class stopwatch {
 public:
  std::chrono::milliseconds elapsed() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin_);
  }
  std::string text() const { return std::to_string(elapsed().count()) + " ms"; }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// A directory for sockets and files, removed at the end.
class temp_folder {
 public:
  temp_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "anyio_demo_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      std::perror("mkdtemp");
      std::exit(1);
    }
    path_ = name;
  }
  temp_folder(const temp_folder&) = delete;
  temp_folder& operator=(const temp_folder&) = delete;
  ~temp_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(std::string_view name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// ---- TCP --------------------------------------------------------------------------------------------

anyio::task<> greet_tcp(anyio::tcp_stream client) {
  auto name = co_await client.receive(1024);
  say("tcp", "server", client.remote_endpoint().to_string() + " says " + in_quotes(name));
  co_await client.send("Hello, " + name + "\n");
}

anyio::task<> tcp() {
  title("TCP: a server greets clients by name");
  auto listener = co_await anyio::create_tcp_listener({.local_host = "localhost"});
  for (const auto& endpoint : listener.local_endpoints()) {
    say("tcp", "server", "listening on " + endpoint.to_string());
  }
  anyio::task_group group;
  group.start_soon(listener.serve(greet_tcp));

  auto client = co_await anyio::connect_tcp("localhost", listener.local_port());
  say("tcp", "client", "connected from " + client.local_endpoint().to_string());
  co_await client.send("Client");
  auto answer = co_await client.receive();
  say("tcp", "client", "is answered " + in_quotes(answer));
  expect(answer == "Hello, Client\n", "the greeting is wrong");
  auto end = co_await anyio::as_result(client.receive());
  expect(!end && end.error() == anyio::errc::end_of_stream, "the server did not close the connection");

  const auto port = listener.local_port();
  listener.close();
  co_await group.join();
  say("tcp", "server", "closed");
  auto refused = co_await anyio::as_result(anyio::connect_tcp("localhost", port));
  expect(!refused, "connected although nothing listens");
  if (!refused) say("tcp", "client", "tries again: " + refused.error().message());
}

// ---- UNIX, and descriptors ----------------------------------------------------------------------------

anyio::task<> greet_unix(anyio::unix_stream client) {
  auto name = co_await client.receive(1024);
  auto peer = client.credentials();
  expect(peer && peer->pid == ::getpid(), "the peer's credentials are wrong");
  say("unix", "server", "process " + std::to_string(peer ? peer->pid : 0) + " says " + in_quotes(name));
  co_await client.send("Hello, " + name + "\n");
}

anyio::task<> unix_sockets(const temp_folder& folder) {
  title("UNIX: the same server over a path");
  const std::string path = folder / "greetings";
  auto listener = co_await anyio::create_unix_listener(path, {.mode = 0600, .unlink_on_close = true});
  say("unix", "server", "listening on " + listener.local_path());
  anyio::task_group group;
  group.start_soon(listener.serve(greet_unix));

  auto client = co_await anyio::connect_unix(path);
  co_await client.send("Client");
  auto answer = co_await client.receive();
  say("unix", "client", "is answered " + in_quotes(answer));
  expect(answer == "Hello, Client\n", "the greeting is wrong");

  listener.close();
  co_await group.join();
  expect(!std::filesystem::exists(path), "the socket file was left behind");
}

anyio::task<> descriptors(const temp_folder& folder) {
  title("UNIX: a descriptor is passed");
  const std::string file_path = folder / "secret";
  std::ofstream(file_path) << "Test file";
  auto listener = co_await anyio::create_unix_listener(folder / "descriptors");
  anyio::task_group group;
  group.start_soon(listener.serve([&](anyio::unix_stream client) -> anyio::task<> {
    anyio::unique_fd file(::open(file_path.c_str(), O_RDONLY | O_CLOEXEC));
    std::filesystem::remove(file_path);
    say("unix", "server",
        "opened " + file_path + ", removed it, and sends descriptor " + std::to_string(file.get()));
    int fds[] = {file.get()};
    co_await client.send_fds("a file for you", fds);
  }));

  auto client = co_await anyio::connect_unix(folder / "descriptors");
  auto [message, fds] = co_await client.receive_fds(1024, 1);
  expect(message == "a file for you" && fds.size() == 1, "the descriptor did not arrive");
  if (fds.size() == 1) {
    char text[64];
    const auto size = ::read(fds[0].get(), text, sizeof text);
    const std::string held(text, size > 0 ? std::size_t(size) : 0);
    say("unix", "client",
        "got " + in_quotes(message) + " and descriptor " + std::to_string(fds[0].get()) +
            "; the file holds " + in_quotes(held));
    expect(held == "Test file", "the file holds something else");
  }
  listener.close();
  co_await group.join();
}

// ---- datagrams ----------------------------------------------------------------------------------------

anyio::task<> udp() {
  title("UDP: each packet is answered");
  auto service = co_await anyio::create_udp_socket({.local_host = "127.0.0.1"});
  say("udp", "server", "waiting at " + service.local_endpoint().to_string());
  anyio::task_group group;
  group.start_soon([&]() -> anyio::task<> {
    for (;;) {
      auto [packet, sender] = co_await service.receive();
      say("udp", "server", sender.to_string() + " says " + in_quotes(packet));
      co_await service.send_to("Hello, " + packet, sender);
    }
  });

  auto client = co_await anyio::create_connected_udp_socket(service.local_endpoint());
  for (std::string name : {"one", "two"}) {
    co_await client.send(name);
    auto answer = co_await anyio::fail_after(2s, client.receive());
    say("udp", "client", "is answered " + in_quotes(answer));
    expect(answer == "Hello, " + name, "the answer is wrong");
  }
  group.cancel();
}

anyio::task<> unix_datagrams(const temp_folder& folder) {
  title("UNIX datagrams: the same service over paths");
  auto service = co_await anyio::create_unix_datagram_socket({.local_path = folder / "service"});
  say("unixdg", "server", "waiting at " + service.local_path());
  anyio::task_group group;
  group.start_soon([&]() -> anyio::task<> {
    for (;;) {
      auto [packet, sender] = co_await service.receive();
      say("unixdg", "server", sender + " says " + in_quotes(packet));
      co_await service.send_to("Hello, " + packet, sender);
    }
  });

  auto client = co_await anyio::create_connected_unix_datagram_socket(folder / "service",
                                                                      {.local_path = folder / "client"});
  co_await client.send("Client");
  auto answer = co_await anyio::fail_after(2s, client.receive());
  say("unixdg", "client", "is answered " + in_quotes(answer));
  expect(answer == "Hello, Client", "the answer is wrong");
  group.cancel();
}

// ---- time and cancellation ----------------------------------------------------------------------------

anyio::task<> cancellation() {
  title("Timeouts and cancellation: a cancelled receive loses nothing");
  auto listener = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  anyio::task_group group;
  group.start_soon(listener.serve([](anyio::tcp_stream client) -> anyio::task<> {
    co_await anyio::sleep(200ms);
    co_await client.send("sorry for the delay");
  }));
  auto client = co_await anyio::connect_tcp("127.0.0.1", listener.local_port());

  stopwatch watch;
  auto none = co_await anyio::move_on_after(50ms, client.receive());
  expect(!none, "an answer arrived although the server is slow");
  say("time", "client", "waited 50 ms for a slow server, and continued after " + watch.text());
  auto late = co_await anyio::as_result(anyio::fail_after(50ms, client.receive()));
  expect(!late && late.error() == anyio::errc::timed_out, "the timeout is missing");
  if (!late) say("time", "client", "waited 50 ms again: " + late.error().message());
  auto answer = co_await client.receive();
  say("time", "client", "waited longer, and got " + in_quotes(answer) + " whole");
  expect(answer == "sorry for the delay", "the cancelled receives lost bytes");

  watch = {};
  anyio::task_group sleepers;
  for (int i = 0; i < 1000; ++i) sleepers.start_soon(anyio::sleep(1h));
  co_await anyio::sleep(1ms);
  sleepers.cancel();
  co_await sleepers.join();
  say("time", "demo", "1000 sleepers of an hour were cancelled after " + watch.text());
  expect(watch.elapsed() < 2s, "cancelling took too long");

  listener.close();
  co_await group.join();
}

// ---- many clients ---------------------------------------------------------------------------------------

anyio::task<> many_clients() {
  constexpr int clients = 200, rounds = 20;
  title("Many clients at once, and a graceful stop");
  auto listener = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  int handlers = 0, echoed = 0;
  anyio::task_group server;
  server.start_soon(listener.serve([&](anyio::tcp_stream client) -> anyio::task<> {
    ++handlers;
    for (;;) co_await client.send(co_await client.receive_view());
  }));

  stopwatch watch;
  anyio::task_group group;
  for (int i = 0; i < clients; ++i) {
    group.start_soon([&, i]() -> anyio::task<> {
      auto client = co_await anyio::connect_tcp("127.0.0.1", listener.local_port());
      anyio::buffered_stream lines(client);
      for (int round = 0; round < rounds; ++round) {
        const auto line = "client " + std::to_string(i) + ", round " + std::to_string(round);
        co_await client.send(line + "\n");
        echoed += co_await lines.receive_line() == line;
      }
    });
  }
  co_await group.join();
  say("many", "client",
      std::to_string(clients) + " clients had " + std::to_string(echoed) + " of " +
          std::to_string(clients * rounds) + " lines echoed in " + watch.text());
  expect(echoed == clients * rounds, "lines are missing");

  listener.close();
  expect(co_await anyio::move_on_after(2s, server.join()), "the server did not end");
  say("many", "server", "ended, after " + std::to_string(handlers) + " handlers");
  expect(handlers == clients, "some clients had no handler, or two");
}

anyio::task<> large_transfer() {
  constexpr std::size_t total = 64 << 20;
  title("Many bytes: sent and received at once through an echo server");
  auto listener = co_await anyio::create_tcp_listener({.local_host = "127.0.0.1"});
  anyio::task_group group;
  group.start_soon(listener.serve([](anyio::tcp_stream client) -> anyio::task<> {
    for (;;) co_await client.send(co_await client.receive_view());
  }));

  stopwatch watch;
  auto client = co_await anyio::connect_tcp("127.0.0.1", listener.local_port());
  group.start_soon([&]() -> anyio::task<> {
    std::string block(1 << 20, '\0');
    for (std::size_t i = 0; i < block.size(); ++i) block[i] = char(i % 251);
    for (std::size_t sent = 0; sent < total; sent += block.size()) co_await client.send(block);
    co_await client.send_eof();
  });
  std::size_t received = 0;
  bool same = true;
  for (;;) {
    auto bytes = co_await anyio::as_result(client.receive_view());
    if (!bytes) {
      expect(bytes.error() == anyio::errc::end_of_stream, bytes.error().message());
      break;
    }
    for (char c : *bytes) same = same && c == char((received++ % (1 << 20)) % 251);
  }
  say("bulk", "client", std::to_string(received >> 20) + " MiB came back in " + watch.text());
  expect(received == total && same, "the bytes differ from the sent ones");
  listener.close();
  co_await group.join();
}

anyio::task<> everything(const temp_folder& folder) {
  co_await tcp();
  co_await unix_sockets(folder);
  co_await descriptors(folder);
  co_await udp();
  co_await unix_datagrams(folder);
  co_await cancellation();
  co_await many_clients();
  co_await large_transfer();
}

}  // namespace

int main() {
  stopwatch watch;
  {
    temp_folder folder;
    auto outcome = anyio::run(anyio::as_result(anyio::fail_after(30s, everything(folder))));
    expect(outcome.has_value(), outcome ? "" : outcome.error().message());
  }
  if (failures != 0) {
    std::printf("\n%d checks failed: see FAILED above\n", failures);
    return 1;
  }
  std::printf("\nall checks passed, in %s\n", watch.text().c_str());
}
