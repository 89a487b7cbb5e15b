// The smallest echo server on Asio with callbacks, for time to compile and size.

#include <array>
#include <cstdio>
#include <memory>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>

#ifdef ASIO_NO_EXCEPTIONS
#include <cstdlib>
template <class Exception>
void asio::detail::throw_exception(const Exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  std::abort();
}
#endif

namespace {

using asio::ip::tcp;

class session {
 public:
  explicit session(tcp::socket client) : client_(std::move(client)) { receive(); }

 private:
  void receive() {
    client_.async_read_some(asio::buffer(buffer_), [this](asio::error_code failed, std::size_t n) {
      if (failed)
        delete this;
      else
        send(n);
    });
  }
  void send(std::size_t n) {
    asio::async_write(client_, asio::buffer(buffer_.data(), n), [this](asio::error_code failed, std::size_t) {
      if (failed)
        delete this;
      else
        receive();
    });
  }

  tcp::socket client_;
  std::array<char, 16384> buffer_;
};

void accept(tcp::acceptor& acceptor) {
  acceptor.async_accept([&acceptor](asio::error_code failed, tcp::socket client) {
    if (!failed) new session(std::move(client));
    accept(acceptor);
  });
}

}  // namespace

int main() {
  asio::io_context context(1);
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
  std::printf("%u\n", unsigned{acceptor.local_endpoint().port()});
  std::fflush(stdout);
  accept(acceptor);
  context.run();
}
