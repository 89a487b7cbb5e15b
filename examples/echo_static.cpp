// A TCP echo server for a machine with little memory: callbacks, a fixed number of sessions in static memory,
// and no allocation after `loop::reserve`. More clients than sessions wait in the listener's backlog until a
// session is free. See echo_callback.cpp for the shorter form, with sessions on the heap.
//
//   g++ -std=c++20 -Os -fno-exceptions -fno-rtti -DANYIO_NET_NO_THREADS -I. examples/echo_static.cpp -o echo
//   ./echo [port]
#include "anyio_net.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace {

constexpr std::size_t most_sessions = 8;

class server;

/// One client at a time. While idle, its stream is closed and its operations are not pending.
class session {
 public:
  void begin(server& owner, anyio::tcp_stream stream);

 private:
  void receive();
  void send(std::string_view bytes);
  void end();

  server* owner_ = nullptr;
  session* next_free_ = nullptr;
  anyio::tcp_stream client_;
  anyio::receive_operation receiving_;
  anyio::send_operation sending_;
  char buffer_[1024];

  friend class server;
};

class server {
 public:
  server() {
    for (session& s : sessions_) put_back(s);
  }
  void begin(anyio::tcp_listener listener) {
    listener_ = std::move(listener);
    accept();
  }
  /// Returns a session, for the next client.
  void put_back(session& s) {
    s.next_free_ = std::exchange(free_, &s);
    if (paused_) accept();
  }

 private:
  void accept() {
    paused_ = free_ == nullptr;  // later clients wait in the backlog
    if (paused_) return;
    accepting_ = listener_.accept();
    accepting_.start([this](anyio::result<anyio::tcp_stream> client) {
      if (!client) {  // the listener has failed; current clients are served to the end
        const std::string_view why = anyio::to_string(client.error().code());
        std::fprintf(stderr, "accept: %.*s\n", static_cast<int>(why.size()), why.data());
        return;
      }
      session& s = *std::exchange(free_, free_->next_free_);
      s.begin(*this, *std::move(client));
      accept();
    });
  }

  std::array<session, most_sessions> sessions_;
  session* free_ = nullptr;
  bool paused_ = false;
  anyio::tcp_listener listener_;
  anyio::accept_operation<anyio::tcp_stream> accepting_;
};

void session::begin(server& owner, anyio::tcp_stream stream) {
  owner_ = &owner;
  client_ = std::move(stream);
  receive();
}

void session::receive() {
  receiving_ = client_.receive(buffer_);
  receiving_.start([this](anyio::result<std::size_t> n) { n ? send({buffer_, *n}) : end(); });
}

void session::send(std::string_view bytes) {
  sending_ = client_.send(bytes);
  sending_.start([this](anyio::result<> sent) { sent ? receive() : end(); });
}

void session::end() {
  // A closed stream and idle operations keep memory of their connection: release all of it.
  client_ = {};
  receiving_ = {};
  sending_ = {};
  owner_->put_back(*this);
}

}  // namespace

int main(int argc, char** argv) {
  static anyio::loop loop;
  static server echo;
  const auto port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 1234);
  auto listener = anyio::tcp_listener::open({anyio::ip_address::any_v4(), port});
  if (!listener) return std::fprintf(stderr, "%s\n", listener.error().message().c_str()), 1;
  std::printf("listening on port %u\n", unsigned{listener->local_port()});
  std::fflush(stdout);
  // A descriptor for each session. The operations are named, so the loop stores none.
  loop.reserve(most_sessions, 0);
  echo.begin(*std::move(listener));
  loop.run();
}
