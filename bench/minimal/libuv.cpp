// The smallest echo server on libuv, for time to compile and size.

#include <cstdio>
#include <string>

#include <arpa/inet.h>
#include <uv.h>

namespace {

char buffer[65536];

struct connection {
  uv_tcp_t tcp;
  uv_write_t write;
  std::string unsent;
};

uv_stream_t* stream(connection* c) { return reinterpret_cast<uv_stream_t*>(&c->tcp); }

void close(connection* c) {
  uv_close(reinterpret_cast<uv_handle_t*>(&c->tcp),
           [](uv_handle_t* h) { delete static_cast<connection*>(h->data); });
}

void received(uv_stream_t* s, ssize_t n, const uv_buf_t*);
void receive(connection* c) {
  uv_read_start(
      stream(c),
      [](uv_handle_t*, std::size_t, uv_buf_t* bytes) { *bytes = uv_buf_init(buffer, sizeof buffer); },
      received);
}

void received(uv_stream_t* s, ssize_t n, const uv_buf_t*) {
  auto* c = static_cast<connection*>(s->data);
  if (n == 0) return;
  if (n < 0) return close(c);
  uv_buf_t bytes = uv_buf_init(buffer, static_cast<unsigned>(n));
  const int sent = uv_try_write(s, &bytes, 1);
  if (sent == n) return;
  if (sent < 0 && sent != UV_EAGAIN) return close(c);
  c->unsent.assign(buffer + (sent < 0 ? 0 : sent), buffer + n);
  bytes = uv_buf_init(c->unsent.data(), static_cast<unsigned>(c->unsent.size()));
  uv_read_stop(s);
  uv_write(&c->write, s, &bytes, 1, [](uv_write_t* w, int failed) {
    auto* writer = static_cast<connection*>(w->handle->data);
    if (failed < 0)
      close(writer);
    else
      receive(writer);
  });
}

}  // namespace

int main() {
  uv_loop_t* loop = uv_default_loop();
  uv_tcp_t listener;
  uv_tcp_init(loop, &listener);
  sockaddr_in address;
  uv_ip4_addr("127.0.0.1", 0, &address);
  uv_tcp_bind(&listener, reinterpret_cast<sockaddr*>(&address), 0);
  const int failed =
      uv_listen(reinterpret_cast<uv_stream_t*>(&listener), 4096, [](uv_stream_t* l, int refused) {
        if (refused < 0) return;
        auto* c = new connection;
        uv_tcp_init(l->loop, &c->tcp);
        c->tcp.data = c;
        if (uv_accept(l, stream(c)) < 0) return close(c);
        uv_tcp_nodelay(&c->tcp, 1);
        receive(c);
      });
  if (failed < 0) return std::fprintf(stderr, "%s\n", uv_strerror(failed)), 1;
  int size = sizeof address;
  uv_tcp_getsockname(&listener, reinterpret_cast<sockaddr*>(&address), &size);
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return uv_run(loop, UV_RUN_DEFAULT);
}
