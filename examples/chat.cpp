// A chat server. Each client sends a name and then lines, which all other clients receive. A client that
// reads too slowly is disconnected, so that it cannot delay the others.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/chat.cpp -o chat && ./chat 1234
//   nc localhost 1234
#include "anyio_net.hpp"

#include <iostream>
#include <list>
#include <string>
#include <string_view>
#include <utility>

#include "support/complaints.hpp"
#include "support/printable.hpp"
#include "support/program.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: chat PORT\n"
    "\n"
    "A chat for clients that connect to PORT (0: any free one) of this machine, for example with nc: the\n"
    "first line is a name that no other client uses, later lines are sent to all others. Ctrl-C sends a\n"
    "goodbye and ends the chat.\n"
    "\n"
    "exit code: 0 after Ctrl-C, 1 if it cannot listen, 2 for a wrong command line\n";

static constexpr std::size_t longest_name = 100;
static constexpr std::size_t longest_line = 1000;
static constexpr std::size_t bytes_kept = 65536;  // for a client that does not read

class room {
 public:
  // One client, from its connection to its end.
  anyio::task<> visit(anyio::tcp_stream stream, anyio::event& closing) {
    anyio::buffered_stream lines(stream);
    const auto deadline = anyio::now() + 1min;
    std::string name;
    while (!is_free(name)) {
      co_await anyio::fail_at(deadline,
                              stream.send(name.empty() ? "name?\n" : "that name is taken\nname?\n"));
      name = printable(co_await anyio::fail_at(deadline, lines.receive_line(longest_name)));
    }
    visitor here(*this, name, stream);
    say(here, "* " + name + " comes in\n");
    // The first of these to end cancels the others: `listen` ends at the end of the stream.
    const auto left = co_await as_result(
        anyio::when_any(listen(here, lines), here.unheard.run(), here.too_slow.wait(), closing.wait()));
    if (closing.is_set()) {
      co_await stream.send("* the chat is closed\n");
      co_return co_await stream.aclose();  // so that it arrives even if the client has sent bytes meanwhile
    }
    say(here, "* " + name + " leaves\n");
    if (!left && left.error() != anyio::errc::end_of_stream) co_await anyio::raise(left.error());
  }

 private:
  struct visitor {
    visitor(room& r, const std::string& n, anyio::byte_stream& stream)
        : in(r), name(n), place(r.visitors_.insert(r.visitors_.end(), this)), unheard(stream, bytes_kept) {}
    visitor(const visitor&) = delete;
    visitor& operator=(const visitor&) = delete;
    ~visitor() { in.visitors_.erase(place); }

    void hear(const std::string& line) {
      if (!unheard.try_send(line)) too_slow.set();
    }

    room& in;
    const std::string& name;
    std::list<visitor*>::iterator place;
    anyio::send_queue unheard;
    anyio::event too_slow;
  };

  bool is_free(const std::string& name) const {
    for (const visitor* v : visitors_)
      if (v->name == name) return false;
    return !name.empty();
  }

  void say(visitor& who, const std::string& line) {
    for (visitor* v : visitors_)
      if (v != &who) v->hear(line);
  }

  anyio::task<> listen(visitor& who, anyio::buffered_stream& lines) {
    for (;;) {
      const std::string line = co_await lines.receive_line(longest_line);
      if (!line.empty()) say(who, who.name + ": " + printable(line) + "\n");
    }
  }

  std::list<visitor*> visitors_;
};

static anyio::task<> program(std::uint16_t port) {
  auto listener = co_await anyio::create_tcp_listener({.local_host = "localhost", .local_port = port});
  std::cout << "listening on port " << listener.local_port() << std::endl;
  room everyone;
  complaints complain("chat");
  co_await anyio::serve_until_interrupted(
      listener,
      [&](anyio::tcp_stream client, anyio::event& closing) {
        return everyone.visit(std::move(client), closing);
      },
      [&](const anyio::error& e) { complain(e); }, {.grace = 100ms});
}

int main(int argc, char** argv) {
  const auto words = words_of(argc, argv, help, 1, 1);
  return run_program("chat", program(port_of(words[0], help)));
}
