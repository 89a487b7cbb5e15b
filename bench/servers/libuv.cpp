// libuv: one receive buffer for the loop, uv_try_write first, and uv_write for what it left.

#include "server.hpp"

#include <cstring>

#include <uv.h>

namespace {

bool echo = false;
thread_local char buffer[bench::stream_buffer];

void check(int status, const char* what) {
  if (status >= 0) return;
  std::fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
  std::_Exit(1);
}

struct connection {
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  };
  uv_write_t write;
  std::string unsent;
  std::uint64_t count = 0;

  connection() {}
  ~connection() {}
};

connection* of(void* handle) { return static_cast<connection*>(static_cast<uv_handle_t*>(handle)->data); }

void close(connection* c) {
  if (uv_is_closing(&c->handle)) return;
  uv_close(&c->handle, [](uv_handle_t* h) { delete of(h); });
}

void lend(uv_handle_t*, std::size_t, uv_buf_t* bytes) { *bytes = uv_buf_init(buffer, sizeof buffer); }

void received(uv_stream_t* stream, ssize_t n, const uv_buf_t*) {
  connection* c = of(stream);
  if (n == 0) return;
  if (n < 0) return close(c);
  c->count += static_cast<std::size_t>(n);
  if (!echo) return;
  uv_buf_t bytes = uv_buf_init(buffer, static_cast<unsigned>(n));
  const int sent = uv_try_write(stream, &bytes, 1);
  if (sent == n) return;
  if (sent < 0 && sent != UV_EAGAIN) return close(c);
  const auto done = static_cast<std::size_t>(sent < 0 ? 0 : sent);
  c->unsent.assign(buffer + done, static_cast<std::size_t>(n) - done);
  bytes = uv_buf_init(c->unsent.data(), static_cast<unsigned>(c->unsent.size()));
  uv_read_stop(stream);
  uv_write(&c->write, stream, &bytes, 1, [](uv_write_t* w, int failed) {
    connection* writer = of(w->handle);
    if (failed < 0)
      close(writer);
    else
      uv_read_start(w->handle, lend, received);
  });
}

void incoming(uv_stream_t* listener, int failed) {
  if (failed < 0) return;
  auto* c = new connection;
  if (listener->type == UV_TCP)
    uv_tcp_init(listener->loop, &c->tcp);
  else
    uv_pipe_init(listener->loop, &c->pipe, 0);
  c->handle.data = c;
  if (uv_accept(listener, &c->stream) < 0) return close(c);
  if (listener->type == UV_TCP) uv_tcp_nodelay(&c->tcp, 1);
  uv_read_start(&c->stream, lend, received);
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address;
  uv_ip4_addr("127.0.0.1", port, &address);
  return address;
}

// ---- UDP ------------------------------------------------------------------------------------------

std::uint64_t datagrams = 0;
char batch[20 *
           65536];  // what UV_UDP_RECVMMSG asks for: the datagrams that it takes at once, each of any size

struct late_send {
  uv_udp_send_t request;
  std::string bytes;
};

void send(uv_udp_t* socket, const char* data, std::size_t size, const sockaddr* to) {
  uv_buf_t bytes = uv_buf_init(const_cast<char*>(data), static_cast<unsigned>(size));
  if (uv_udp_try_send(socket, &bytes, 1, to) >= 0) return;
  auto* late = new late_send{{}, std::string(data, size)};
  late->request.data = late;
  bytes = uv_buf_init(late->bytes.data(), static_cast<unsigned>(size));
  uv_udp_send(&late->request, socket, &bytes, 1, to,
              [](uv_udp_send_t* r, int) { delete static_cast<late_send*>(r->data); });
}

void arrived(uv_udp_t* socket, ssize_t n, const uv_buf_t* bytes, const sockaddr* sender, unsigned) {
  if (n < 0 || sender == nullptr) return;
  if (echo) return send(socket, bytes->base, static_cast<std::size_t>(n), sender);
  if (n > 1) {
    ++datagrams;
    return;
  }
  const std::string answer = std::to_string(datagrams);
  send(socket, answer.data(), answer.size(), sender);
}

int serve_udp(bool many) {
  uv_udp_t socket;
  uv_udp_init_ex(uv_default_loop(), &socket, AF_INET | (many ? UV_UDP_RECVMMSG : 0));
  const sockaddr_in address = loopback(0);
  check(uv_udp_bind(&socket, reinterpret_cast<const sockaddr*>(&address), 0), "bind");
  uv_udp_recv_start(
      &socket,
      [](uv_handle_t* h, std::size_t, uv_buf_t* bytes) {
        const bool lends_many = uv_udp_using_recvmmsg(reinterpret_cast<uv_udp_t*>(h)) != 0;
        *bytes = lends_many ? uv_buf_init(batch, sizeof batch) : uv_buf_init(buffer, sizeof buffer);
      },
      arrived);
  sockaddr_in bound;
  int size = sizeof bound;
  uv_udp_getsockname(&socket, reinterpret_cast<sockaddr*>(&bound), &size);
  bench::announce(ntohs(bound.sin_port));
  return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments a = bench::parse(argc, argv);
  echo = a.mode == "echo" || a.mode == "echo-batch";
  if (a.kind == "udp" && a.mode != "sink-gro") return serve_udp(a.mode.ends_with("-batch"));
  if (a.mode != "echo" && a.mode != "sink") return bench::unsupported();
  if (a.kind == "unix") {
    uv_pipe_t listener;
    uv_pipe_init(uv_default_loop(), &listener, 0);
    check(uv_pipe_bind(&listener, a.path.c_str()), "bind");
    check(uv_listen(reinterpret_cast<uv_stream_t*>(&listener), 4096, incoming), "listen");
    bench::announce(a.path);
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
  }
  if (a.kind != "tcp") return bench::unsupported();
  return bench::run_threads(a, [&](std::uint16_t port, auto listening) {
    uv_loop_t loop;
    uv_loop_init(&loop);
    uv_tcp_t listener;
    uv_tcp_init_ex(&loop, &listener, AF_INET);
    if (a.threads > 1) {
      uv_os_fd_t fd;
      uv_fileno(reinterpret_cast<uv_handle_t*>(&listener), &fd);
      const int on = 1;
      ::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    }
    sockaddr_in address = loopback(port);
    check(uv_tcp_bind(&listener, reinterpret_cast<sockaddr*>(&address), 0), "bind");
    check(uv_listen(reinterpret_cast<uv_stream_t*>(&listener), 4096, incoming), "listen");
    int size = sizeof address;
    uv_tcp_getsockname(&listener, reinterpret_cast<sockaddr*>(&address), &size);
    listening(ntohs(address.sin_port));
    uv_run(&loop, UV_RUN_DEFAULT);
  });
}
