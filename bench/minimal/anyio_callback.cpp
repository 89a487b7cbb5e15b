// The smallest echo server with callbacks, for time to compile and size; no exceptions needed.
//
//   It listens on a free port of 127.0.0.1, and prints it

#include "../../anyio_net.hpp"

#include <cstdio>

namespace {

class session {
 public:
  explicit session(anyio::tcp_stream client) : client_(std::move(client)), receive_(client_.receive_view()) {
    receive();
  }

 private:
  void receive() {
    receive_.start([this](anyio::result<std::string_view> bytes) {
      if (bytes) {
        send(*bytes);
      } else {
        delete this;
      }
    });
  }
  void send(std::string_view bytes) {
    send_ = client_.send(bytes);
    send_.start([this](anyio::result<> sent) {
      if (sent) {
        receive();
      } else {
        delete this;
      }
    });
  }

  anyio::tcp_stream client_;
  anyio::receive_view_operation receive_;
  anyio::send_operation send_;
};

}  // namespace

int main() {
  anyio::loop loop;
  auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
  if (!listener) return std::fprintf(stderr, "%s\n", listener.error().message().c_str()), 1;
  std::printf("%u\n", unsigned{listener->local_port()});
  std::fflush(stdout);
  listener->serve([](anyio::tcp_stream client) { new session(std::move(client)); })
      .start([](anyio::result<>) {});
  loop.run();
}
