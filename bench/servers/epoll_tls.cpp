// The measure of the others for TLS: epoll(7) and OpenSSL by hand, in the two forms of epoll.cpp. OpenSSL
// reads ahead, so that a record costs one receive; only the edge form reads on until there is nothing.

#include "epoll.hpp"

#include <csignal>

#include <openssl/err.h>
#include <openssl/ssl.h>

namespace {

using bench::fail;

char buffer[bench::stream_buffer];
bool level = false;
bool echo = false;

struct connection {
  int fd;
  SSL* ssl;
  std::uint32_t interest;
  std::string unsent;
  std::uint64_t count = 0;
};

[[noreturn]] void fail_tls(const char* what) {
  std::fprintf(stderr, "%s: %s\n", what, ERR_error_string(ERR_get_error(), nullptr));
  std::_Exit(1);
}

bool waits(connection& c, int n) {
  const int why = SSL_get_error(c.ssl, n);
  ERR_clear_error();
  return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE;
}

/// False when the connection is to be closed. What does not go at once is left in `unsent`.
bool send_all(connection& c, std::string_view bytes) {
  while (!bytes.empty()) {
    const int n = SSL_write(c.ssl, bytes.data(), static_cast<int>(bytes.size()));
    if (n <= 0) {
      if (!waits(c, n)) return false;
      c.unsent = std::string(bytes);
      return true;
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  c.unsent.clear();
  return true;
}

bool serve(connection& c) {
  if (!SSL_is_init_finished(c.ssl)) {
    const int n = SSL_do_handshake(c.ssl);
    if (n != 1) return waits(c, n);
  }
  if (!c.unsent.empty() && !send_all(c, std::string(c.unsent))) return false;
  while (c.unsent.empty()) {
    const int n = SSL_read(c.ssl, buffer, sizeof buffer);
    if (n <= 0) return waits(c, n);
    if (!echo)
      c.count += static_cast<std::size_t>(n);
    else if (!send_all(c, {buffer, static_cast<std::size_t>(n)}))
      return false;
    if (level && SSL_has_pending(c.ssl) == 0) return true;
  }
  return true;
}

void accept_all(int poller, int listener, SSL_CTX* context) {
  for (;;) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return;
    }
    bench::set_no_delay(fd);
    auto* c = new connection{fd, SSL_new(context), level ? EPOLLIN : bench::edges, {}};
    SSL_set_fd(c->ssl, fd);
    SSL_set_accept_state(c->ssl);
    if (!bench::watch(poller, EPOLL_CTL_ADD, fd, c->interest, c)) fail("epoll_ctl");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments a = bench::parse(argc, argv);
  if (a.kind != "tls" || (a.mode != "echo" && a.mode != "sink")) return bench::unsupported();
  level = a.form == "level";
  echo = a.mode == "echo";
  ::signal(SIGPIPE, SIG_IGN);
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  if (SSL_CTX_use_certificate_chain_file(context, a.certificate().c_str()) != 1) fail_tls("certificate");
  if (SSL_CTX_use_PrivateKey_file(context, a.key().c_str(), SSL_FILETYPE_PEM) != 1) fail_tls("key");
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);

  const int listener = bench::bound_socket(SOCK_STREAM, 0, false);
  bench::announce(bench::port_of(listener));
  const int poller = ::epoll_create1(EPOLL_CLOEXEC);
  if (!bench::watch(poller, EPOLL_CTL_ADD, listener, EPOLLIN, nullptr)) fail("epoll_ctl");
  std::vector<epoll_event> events(512);
  for (;;) {
    const int count = ::epoll_wait(poller, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      auto* c = static_cast<connection*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (c == nullptr) {
        accept_all(poller, listener, context);
      } else if (!serve(*c)) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        ::close(c->fd);
        delete c;
      } else if (level) {
        const std::uint32_t wanted = c->unsent.empty() ? EPOLLIN : EPOLLOUT;
        if (wanted != c->interest) bench::watch(poller, EPOLL_CTL_MOD, c->fd, c->interest = wanted, c);
      }
    }
  }
}
