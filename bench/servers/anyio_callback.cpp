// anyio_net with callbacks: one object a connection.
//
// With ANYIO_NET_OPENSSL or ANYIO_NET_MBEDTLS it serves TLS, too.

#include "../../anyio_net.hpp"
#include "server.hpp"

#include <array>
#include <cstring>
#include <memory>

namespace {

const anyio::ip_endpoint any_port{anyio::ip_address::loopback_v4(), 0};

template <class T>
T need(anyio::result<T> r) {
  if (r) return std::move(*r);
  std::fprintf(stderr, "%s\n", r.error().message().c_str());
  std::_Exit(1);
}

template <class Stream>
class echo_session {
 public:
  explicit echo_session(Stream client) : client_(std::move(client)), receive_(client_.receive_view()) {
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

  Stream client_;
  anyio::receive_view_operation receive_;
  anyio::send_operation send_;
};

template <class Stream>
class sink_session {
 public:
  explicit sink_session(Stream client) : client_(std::move(client)), receive_(client_.receive_view()) {
    receive();
  }

 private:
  void receive() {
    receive_.start([this](anyio::result<std::string_view> bytes) {
      if (bytes) {
        count_ += bytes->size();
        receive();
      } else {
        delete this;
      }
    });
  }

  Stream client_;
  anyio::receive_view_operation receive_;
  std::uint64_t count_ = 0;
};

template <class Stream, class Listener>
void serve(const bench::arguments& a, Listener& listener) {
  if (a.mode == "echo")
    listener.serve([](Stream client) { new echo_session(std::move(client)); }).start([](anyio::result<>) {});
  else
    listener.serve([](Stream client) { new sink_session(std::move(client)); }).start([](anyio::result<>) {});
}

class udp_echo {
 public:
  explicit udp_echo(anyio::udp_socket& socket) : socket_(socket), receive_(socket_.receive(buffer_)) {
    receive();
  }

 private:
  void receive() {
    receive_.start([this](anyio::result<anyio::udp_received> got) {
      if (!got) return;
      send_ = socket_.send_to(anyio::const_buffer(buffer_.data(), got->size), got->sender);
      send_.start([this](anyio::result<>) { receive(); });
    });
  }

  anyio::udp_socket& socket_;
  std::array<std::byte, bench::datagram_buffer> buffer_;
  anyio::receive_from_operation receive_;
  anyio::send_to_operation send_;
};

class udp_echo_batch {
 public:
  explicit udp_echo_batch(anyio::udp_socket& socket)
      : socket_(socket), receive_(socket_.receive_batch(batch_)), send_(socket_.send_batch(batch_)) {
    receive();
  }

 private:
  void receive() {
    receive_.start([this](anyio::result<std::size_t> got) {
      if (got) send();
    });
  }
  void send() {
    send_.start([this](anyio::result<std::size_t>) { receive(); });
  }

  anyio::udp_socket& socket_;
  anyio::udp_batch batch_{bench::batch_count, bench::datagram_buffer};
  anyio::receive_batch_operation receive_;
  anyio::send_batch_operation send_;
};

class udp_sink {
 public:
  explicit udp_sink(anyio::udp_socket& socket) : socket_(socket), receive_(socket_.receive(buffer_)) {
    receive();
  }

 private:
  void receive() {
    receive_.start([this](anyio::result<anyio::udp_received> got) {
      if (!got) return;
      if (got->size > 1)
        ++count_;
      else
        socket_.send_to(std::to_string(count_), got->sender).start([](anyio::result<>) {});
      receive();
    });
  }

  anyio::udp_socket& socket_;
  std::array<std::byte, bench::datagram_buffer> buffer_;
  anyio::receive_from_operation receive_;
  std::uint64_t count_ = 0;
};

class udp_sink_batch {
 public:
  explicit udp_sink_batch(anyio::udp_socket& socket)
      : socket_(socket), receive_(socket_.receive_batch(batch_)) {
    receive();
  }

 private:
  void receive() {
    receive_.start([this](anyio::result<std::size_t> got) {
      if (!got) return;
      for (const auto& datagram : batch_) {
        if (datagram.data.size() > 1)
          ++count_;
        else
          socket_.send_to(std::to_string(count_), datagram.sender).start([](anyio::result<>) {});
      }
      receive();
    });
  }

  anyio::udp_socket& socket_;
  anyio::udp_batch batch_{bench::batch_count, bench::datagram_buffer};
  anyio::receive_batch_operation receive_;
  std::uint64_t count_ = 0;
};

class unix_datagram_echo {
 public:
  explicit unix_datagram_echo(anyio::unix_datagram_socket& socket) : socket_(socket) { receive(); }

 private:
  void receive() {
    socket_.receive().start([this](anyio::result<anyio::unix_packet> got) {
      if (!got) return;
      packet_ = std::move(*got);
      socket_.send_to(packet_.data, packet_.sender).start([this](anyio::result<>) { receive(); });
    });
  }

  anyio::unix_datagram_socket& socket_;
  anyio::unix_packet packet_;
};

template <class Server, class Socket>
int run_datagrams(anyio::loop& loop, Socket& socket, const std::string& where) {
  bench::announce(where);
  Server server(socket);
  loop.run();
  return 0;
}

int serve_udp(const bench::arguments& a) {
  anyio::loop loop;
  auto socket = need(anyio::udp_socket::open(any_port));
  const std::string port = std::to_string(socket.local_endpoint().port);
  if (a.mode == "echo") return run_datagrams<udp_echo>(loop, socket, port);
  if (a.mode == "echo-batch") return run_datagrams<udp_echo_batch>(loop, socket, port);
  if (a.mode == "sink") return run_datagrams<udp_sink>(loop, socket, port);
  if (a.mode == "sink-batch") return run_datagrams<udp_sink_batch>(loop, socket, port);
  return bench::unsupported();
}

int serve_unix(const bench::arguments& a) {
  anyio::loop loop;
  anyio::unix_listener listener;
  anyio::create_unix_listener(a.path).start([&](anyio::result<anyio::unix_listener> made) {
    listener = need(std::move(made));
    bench::announce(a.path);
    serve<anyio::unix_stream>(a, listener);
  });
  loop.run();
  return 0;
}

int serve_unix_datagrams(const bench::arguments& a) {
  anyio::loop loop;
  anyio::unix_datagram_socket socket;
  std::unique_ptr<unix_datagram_echo> server;
  anyio::create_unix_datagram_socket({.local_path = a.path})
      .start([&](anyio::result<anyio::unix_datagram_socket> made) {
        socket = need(std::move(made));
        bench::announce(a.path);
        server = std::make_unique<unix_datagram_echo>(socket);
      });
  loop.run();
  return 0;
}

#if defined(ANYIO_NET_OPENSSL) || defined(ANYIO_NET_MBEDTLS)
int serve_tls(const bench::arguments& a) {
#if defined(ANYIO_NET_OPENSSL)
  constexpr auto make_context = anyio::openssl_context;
#else
  constexpr auto make_context = anyio::mbedtls_context;
#endif
  anyio::loop loop;
  const std::string certificate = a.certificate(), key = a.key();
  const auto context = need(make_context({.certificate_file = certificate, .private_key_file = key}));
  anyio::tls_listener listener(need(anyio::tcp_listener::open(any_port)), context);
  bench::announce(listener.listener().local_port());
  serve<anyio::tls_stream>(a, listener);
  loop.run();
  return 0;
}
#else
int serve_tls(const bench::arguments&) { return bench::unsupported(); }
#endif

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments a = bench::parse(argc, argv);
  if (a.kind == "udp") return serve_udp(a);
  if (a.is("echo", "unixgram")) return serve_unix_datagrams(a);
  if (a.mode != "echo" && a.mode != "sink") return bench::unsupported();
  if (a.kind == "unix") return serve_unix(a);
  if (a.kind == "tls") return serve_tls(a);
  if (a.kind != "tcp") return bench::unsupported();
  return bench::run_threads(a, [&](std::uint16_t port, auto listening) {
    anyio::loop loop;
    auto listener = need(
        anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), port}, {.reuse_port = a.threads > 1}));
    listening(listener.local_port());
    serve<anyio::tcp_stream>(a, listener);
    loop.run();
  });
}
