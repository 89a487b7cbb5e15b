// Asio with callbacks: one object a connection, which ends itself.

#include "asio.hpp"

namespace {

using asio::error_code;

template <class Stream>
class session {
 public:
  template <class... Args>
  explicit session(bool echo, Args&&... args)
      : stream_(std::forward<Args>(args)...),
        echo_(echo),
        size_(echo ? bench::echo_buffer : bench::stream_buffer),
        buffer_(new char[size_]) {}

  Stream& stream() { return stream_; }
  void receive() {
    stream_.async_read_some(asio::buffer(buffer_.get(), size_), [this](error_code failed, std::size_t n) {
      if (failed) {
        delete this;
        return;
      }
      count_ += n;
      if (echo_)
        send(n);
      else
        receive();
    });
  }

 private:
  void send(std::size_t n) {
    asio::async_write(stream_, asio::buffer(buffer_.get(), n), [this](error_code failed, std::size_t) {
      if (failed)
        delete this;
      else
        receive();
    });
  }

  Stream stream_;
  bool echo_;
  std::uint64_t count_ = 0;
  std::size_t size_;
  std::unique_ptr<char[]> buffer_;
};

template <class Socket, class Acceptor>
void accept(Acceptor& acceptor, bool echo) {
  acceptor.async_accept([&acceptor, echo](error_code failed, Socket socket) {
    if (!failed) {
      bench::tune(socket);
      (new session<Socket>(echo, std::move(socket)))->receive();
    }
    accept<Socket>(acceptor, echo);
  });
}

#ifdef BENCH_TLS
void accept_tls(bench::tcp_acceptor& acceptor, asio::ssl::context& tls, bool echo) {
  acceptor.async_accept([&acceptor, &tls, echo](error_code failed, bench::tcp_socket socket) {
    if (!failed) {
      bench::tune(socket);
      auto* s = new session<bench::tls_socket>(echo, std::move(socket), tls);
      s->stream().async_handshake(asio::ssl::stream_base::server, [s](error_code refused) {
        if (refused)
          delete s;
        else
          s->receive();
      });
    }
    accept_tls(acceptor, tls, echo);
  });
}
#endif

template <class Socket>
class datagrams {
 public:
  datagrams(Socket& socket, bool echo) : socket_(socket), echo_(echo) { receive(); }

 private:
  void receive() {
    socket_.async_receive_from(asio::buffer(buffer_), sender_, [this](error_code failed, std::size_t n) {
      if (failed) return receive();
      if (echo_) return send(asio::buffer(buffer_.data(), n));
      if (n > 1) {
        ++count_;
        return receive();
      }
      answer_ = std::to_string(count_);
      send(asio::buffer(answer_));
    });
  }
  template <class Buffer>
  void send(const Buffer& bytes) {
    socket_.async_send_to(bytes, sender_, [this](error_code, std::size_t) { receive(); });
  }

  Socket& socket_;
  bool echo_;
  std::uint64_t count_ = 0;
  typename Socket::endpoint_type sender_;
  std::array<char, bench::datagram_buffer> buffer_;
  std::string answer_;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments a = bench::parse(argc, argv);
  if (a.mode != "echo" && a.mode != "sink") return bench::unsupported();
  const bool echo = a.mode == "echo";
  bench::unlocked_context context;
  const auto executor = context.get_executor();
  if (a.kind == "udp") {
    bench::udp_socket socket(executor, {asio::ip::address_v4::loopback(), 0});
    bench::announce(socket.local_endpoint().port());
    datagrams server(socket, echo);
    context.run();
  }
  if (a.is("echo", "unixgram")) {
    bench::unix_datagram_socket socket(executor, a.path);
    bench::announce(a.path);
    datagrams server(socket, echo);
    context.run();
  }
  if (a.kind == "unix") {
    bench::unix_acceptor acceptor(executor, a.path);
    bench::announce(a.path);
    accept<bench::unix_socket>(acceptor, echo);
    context.run();
  }
#ifdef BENCH_TLS
  if (a.kind == "tls") {
    auto tls = bench::tls_context(a);
    auto acceptor = bench::listen_tcp(context, 0, false);
    bench::announce(acceptor.local_endpoint().port());
    accept_tls(acceptor, tls, echo);
    context.run();
  }
#endif
  if (a.kind != "tcp") return bench::unsupported();
  return bench::run_threads(a, [&](std::uint16_t port, auto listening) {
    bench::unlocked_context own;
    auto acceptor = bench::listen_tcp(own, port, a.threads > 1);
    listening(acceptor.local_endpoint().port());
    accept<bench::tcp_socket>(acceptor, echo);
    own.run();
  });
}
