// A TCP echo server with callbacks. A session owns its stream and both operations, so only the session itself
// is allocated. In its callback an operation is idle, and may be started again or destroyed.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/echo_callback.cpp -o echo_callback && ./echo_callback [port]
#include "anyio_net.hpp"

#include <cstdlib>
#include <iostream>

class session {
 public:
  explicit session(anyio::tcp_stream stream) : client(std::move(stream)), receiving(client.receive_view()) {}

  void receive() {
    receiving.start([this](anyio::result<std::string_view> bytes) { bytes ? send(*bytes) : finish(); });
  }

 private:
  void send(std::string_view bytes) {
    sending = client.send(bytes);
    sending.start([this](anyio::result<> sent) { sent ? receive() : finish(); });
  }

  void finish() { delete this; }

  anyio::tcp_stream client;
  anyio::receive_view_operation receiving;
  anyio::send_operation sending;
};

int main(int argc, char** argv) {
  anyio::loop loop;
  const auto port = std::uint16_t(argc > 1 ? std::atoi(argv[1]) : 1234);
  auto listener = anyio::tcp_listener::open({anyio::ip_address::any_v4(), port});
  if (!listener) return std::cerr << listener.error().message() << '\n', 1;
  std::cout << "listening on port " << listener->local_port() << std::endl;
  const auto begin = [](anyio::tcp_stream client) { (new session(std::move(client)))->receive(); };
  anyio::serve_until_interrupted(*listener, begin).start([](anyio::result<>) {});
  loop.run();  // until Ctrl-C, and then until the last session has ended
}
