// libevent: bufferevents, which move their input to their output without a copy; for datagrams, events.

#include "server.hpp"

#include <netinet/tcp.h>
#include <sys/un.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#ifdef BENCH_TLS
#include <event2/bufferevent_ssl.h>
#include <openssl/ssl.h>
#endif

namespace {

using bench::fail;

bool echo = false;
#ifdef BENCH_TLS
SSL_CTX* tls = nullptr;
#endif

void received(bufferevent* b, void*) {
  evbuffer* input = bufferevent_get_input(b);
  if (echo)
    bufferevent_write_buffer(b, input);
  else
    evbuffer_drain(input, evbuffer_get_length(input));
}

void happened(bufferevent* b, short what, void*) {
  if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) bufferevent_free(b);
}

void incoming(evconnlistener* listener, evutil_socket_t fd, sockaddr* from, int, void*) {
  event_base* base = evconnlistener_get_base(listener);
  if (from->sa_family == AF_INET) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  bufferevent* b;
#ifdef BENCH_TLS
  if (tls != nullptr)
    b = bufferevent_openssl_socket_new(base, fd, SSL_new(tls), BUFFEREVENT_SSL_ACCEPTING,
                                       BEV_OPT_CLOSE_ON_FREE);
  else
#endif
    b = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
  bufferevent_set_max_single_read(b, bench::stream_buffer);
  bufferevent_set_max_single_write(b, bench::stream_buffer);
  bufferevent_setcb(b, received, nullptr, happened, nullptr);
  bufferevent_enable(b, EV_READ | EV_WRITE);
}

/// Of one thread: no locks.
event_base* make_base() {
  event_config* config = event_config_new();
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  event_base* base = event_base_new_with_config(config);
  event_config_free(config);
  return base;
}

evconnlistener* listen(event_base* base, const void* address, socklen_t size, unsigned more) {
  evconnlistener* listener =
      evconnlistener_new_bind(base, incoming, nullptr, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | more,
                              4096, static_cast<const sockaddr*>(address), static_cast<int>(size));
  if (listener == nullptr) fail("listen");
  return listener;
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

sockaddr_un path_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

unsigned port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

std::uint64_t datagrams = 0;

void readable(evutil_socket_t fd, short, void*) {
  char buffer[bench::datagram_buffer];
  sockaddr_storage storage;
  auto* sender = reinterpret_cast<sockaddr*>(&storage);
  socklen_t size = sizeof storage;
  const ssize_t n = ::recvfrom(fd, buffer, sizeof buffer, 0, sender, &size);
  if (n < 0) return;
  if (echo) {
    ::sendto(fd, buffer, static_cast<std::size_t>(n), 0, sender, size);
  } else if (n > 1) {
    ++datagrams;
  } else {
    const std::string answer = std::to_string(datagrams);
    ::sendto(fd, answer.data(), answer.size(), 0, sender, size);
  }
}

int serve_datagrams(event_base* base, int fd) {
  evutil_make_socket_nonblocking(fd);
  event_add(event_new(base, fd, EV_READ | EV_PERSIST, readable, nullptr), nullptr);
  return event_base_dispatch(base);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments a = bench::parse(argc, argv);
  if (a.mode != "echo" && a.mode != "sink") return bench::unsupported();
  echo = a.mode == "echo";
  event_base* base = make_base();
  if (a.kind == "udp") {
    const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = loopback(0);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) fail("bind");
    bench::announce(port_of(fd));
    return serve_datagrams(base, fd);
  }
  if (a.kind == "unixgram") {
    const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const sockaddr_un address = path_address(a.path);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) fail("bind");
    bench::announce(a.path);
    return serve_datagrams(base, fd);
  }
  if (a.kind == "unix") {
    const sockaddr_un address = path_address(a.path);
    listen(base, &address, sizeof address, 0);
    bench::announce(a.path);
    return event_base_dispatch(base);
  }
#ifdef BENCH_TLS
  if (a.kind == "tls") {
    tls = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(tls, a.certificate().c_str()) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, a.key().c_str(), SSL_FILETYPE_PEM) != 1) {
      std::fputs("no certificate or no key\n", stderr);
      return 1;
    }
    const sockaddr_in address = loopback(0);
    bench::announce(port_of(evconnlistener_get_fd(listen(base, &address, sizeof address, 0))));
    return event_base_dispatch(base);
  }
#endif
  if (a.kind != "tcp") return bench::unsupported();
  return bench::run_threads(a, [&](std::uint16_t port, auto listening) {
    event_base* own = make_base();
    const sockaddr_in address = loopback(port);
    evconnlistener* listener =
        listen(own, &address, sizeof address, a.threads > 1 ? LEV_OPT_REUSEABLE_PORT : 0);
    listening(port_of(evconnlistener_get_fd(listener)));
    event_base_dispatch(own);
  });
}
