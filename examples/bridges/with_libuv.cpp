// libuv and anyio_net in one thread, without a thread in between: once inside libuv's loop, once libuv's loop
// inside ours.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/bridges/with_libuv.cpp $(pkg-config --cflags --libs libuv) -o
//   with_libuv
#include "anyio_net.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <uv.h>

using namespace std::chrono_literals;

/// Runs a loop inside libuv's. It keeps uv_run() going until close(), and is destroyed after uv_run() has
/// returned.
class loop_in_uv {
 public:
  loop_in_uv(uv_loop_t* uv, anyio::loop& net) : net_(net) {
    poll_.data = prepare_.data = check_.data = this;
    ::uv_poll_init(uv, &poll_, net.native_handle());
    ::uv_timer_init(uv, &timer_);
    ::uv_prepare_init(uv, &prepare_);
    ::uv_check_init(uv, &check_);
    ::uv_poll_start(&poll_, UV_READABLE, [](uv_poll_t*, int, int) {});  // it only has to wake libuv
    ::uv_prepare_start(&prepare_,
                       [](uv_prepare_t* h) { static_cast<loop_in_uv*>(h->data)->before_waiting(); });
    ::uv_check_start(&check_, [](uv_check_t* h) { static_cast<loop_in_uv*>(h->data)->net_.run_once(0s); });
  }
  loop_in_uv(const loop_in_uv&) = delete;
  loop_in_uv& operator=(const loop_in_uv&) = delete;

  void close() {
    ::uv_close(reinterpret_cast<uv_handle_t*>(&poll_), nullptr);
    ::uv_close(reinterpret_cast<uv_handle_t*>(&timer_), nullptr);
    ::uv_close(reinterpret_cast<uv_handle_t*>(&prepare_), nullptr);
    ::uv_close(reinterpret_cast<uv_handle_t*>(&check_), nullptr);
  }

 private:
  // libuv is about to wait: whatever was started in its callbacks counts.
  void before_waiting() {
    const auto left = net_.time_until_next();
    if (left == anyio::duration::max()) {
      ::uv_timer_stop(&timer_);
    } else {
      const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(left).count();
      ::uv_timer_start(
          &timer_, [](uv_timer_t*) {}, static_cast<std::uint64_t>(milliseconds), 0);
    }
  }

  anyio::loop& net_;
  uv_poll_t poll_;
  uv_timer_t timer_;
  uv_prepare_t prepare_;
  uv_check_t check_;
};

/// Runs libuv's loop inside ours until it has no active handles. Whoever starts something in libuv outside of
/// its callbacks sets `changed` afterwards: libuv has no means to tell.
static anyio::task<> run_uv(uv_loop_t* uv, anyio::event& changed) {
  while (::uv_run(uv, UV_RUN_NOWAIT) != 0) {
    ::uv_update_time(uv);
    const int timeout = ::uv_backend_timeout(uv);
    const anyio::duration most = timeout < 0 ? anyio::duration::max() : std::chrono::milliseconds(timeout);
    co_await anyio::move_on_after(most,
                                  anyio::when_any(anyio::wait_readable(::uv_backend_fd(uv)), changed.wait()));
    changed.clear();
  }
}

// ---- a demonstration: an echo server of one library and a client of the other
// ------------------------------

static constexpr int rounds = 1000;

static void check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "with_libuv: %s\n", what);
  std::exit(1);
}

static sockaddr_in local(std::uint16_t port) {
  sockaddr_in address;
  check(::uv_ip4_addr("127.0.0.1", port, &address) == 0, "uv_ip4_addr");
  return address;
}

// A connection of libuv: it sends what it receives, or counts the echoes of what it has sent.
struct uv_connection {
  uv_tcp_t tcp;
  uv_connect_t connecting;
  uv_write_t writing;
  char bytes[64];
  int echoes = 0;
  bool is_client = false;
  void (*done)() = nullptr;

  uv_stream_t* stream() { return reinterpret_cast<uv_stream_t*>(&tcp); }
  void send(std::size_t size) {
    const uv_buf_t buffer = ::uv_buf_init(bytes, static_cast<unsigned>(size));
    check(::uv_write(&writing, stream(), &buffer, 1, nullptr) == 0, "uv_write");
  }
  void close() { ::uv_close(reinterpret_cast<uv_handle_t*>(&tcp), nullptr); }
  void receive() {
    tcp.data = this;
    ::uv_read_start(
        stream(),
        [](uv_handle_t* h, std::size_t, uv_buf_t* into) {
          auto* self = static_cast<uv_connection*>(h->data);
          *into = ::uv_buf_init(self->bytes, sizeof self->bytes);
        },
        [](uv_stream_t* s, ssize_t size, const uv_buf_t*) {
          auto* self = static_cast<uv_connection*>(s->data);
          if (size < 0) return self->close();
          if (self->is_client && ++self->echoes == rounds) return self->close(), self->done();
          self->send(static_cast<std::size_t>(size));
        });
  }
};

static anyio::task<> echo(anyio::tcp_stream client) {
  for (;;) co_await client.send(co_await client.receive_view());
}

static uv_loop_t uv;
static loop_in_uv* bridge = nullptr;
static uv_connection client, server;
static uv_tcp_t listener;

static void ours_in_theirs() {
  anyio::loop net;
  ::uv_loop_init(&uv);
  loop_in_uv inside(&uv, net);
  bridge = &inside;

  auto own = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
  check(own.has_value(), "listen");
  own->serve(echo).start([](anyio::result<>) {});
  ::uv_tcp_init(&uv, &client.tcp);
  client.is_client = true;
  client.done = [] {
    // In a callback of libuv: an operation is started, and libuv waits just as long as it needs.
    anyio::sleep(300ms).start([](anyio::result<>) { bridge->close(); });
  };
  const sockaddr_in address = local(own->local_port());
  ::uv_tcp_connect(&client.connecting, &client.tcp, reinterpret_cast<const sockaddr*>(&address),
                   [](uv_connect_t*, int status) {
                     check(status == 0, "uv_tcp_connect");
                     client.receive();
                     client.send(5);
                   });
  ::uv_run(&uv, UV_RUN_DEFAULT);
  check(client.echoes == rounds, "too few echoes");
  check(::uv_loop_close(&uv) == 0, "a handle of libuv is left");
  std::puts("a loop inside libuv's: 1000 echoes");
}

static anyio::task<> visit(std::uint16_t port, anyio::event& changed) {
  auto stream = co_await anyio::connect_tcp("127.0.0.1", port);
  for (int i = 0; i < rounds; ++i) {
    co_await stream.send("hello");
    check(co_await stream.receive() == "hello", "another echo");
  }
  // Outside of libuv's callbacks: a timer is started, which ends everything.
  static uv_timer_t timer;
  ::uv_timer_init(&uv, &timer);
  const auto stop = [](uv_timer_t* t) {
    ::uv_close(reinterpret_cast<uv_handle_t*>(t), nullptr);
    ::uv_close(reinterpret_cast<uv_handle_t*>(&listener), nullptr);
  };
  ::uv_timer_start(&timer, stop, 300, 0);
  changed.set();
}

static anyio::task<> theirs_in_ours() {
  ::uv_loop_init(&uv);
  ::uv_tcp_init(&uv, &listener);
  sockaddr_in address = local(0);
  ::uv_tcp_bind(&listener, reinterpret_cast<const sockaddr*>(&address), 0);
  const auto accept = [](uv_stream_t* s, int status) {
    check(status == 0, "uv_listen");
    ::uv_tcp_init(&uv, &server.tcp);
    check(::uv_accept(s, server.stream()) == 0, "uv_accept");
    server.receive();
  };
  check(::uv_listen(reinterpret_cast<uv_stream_t*>(&listener), 16, accept) == 0, "uv_listen");
  int size = sizeof address;
  ::uv_tcp_getsockname(&listener, reinterpret_cast<sockaddr*>(&address), &size);

  anyio::event changed;
  co_await anyio::when_all(run_uv(&uv, changed), visit(ntohs(address.sin_port), changed));
  check(::uv_loop_close(&uv) == 0, "a handle of libuv is left");
  std::puts("libuv's loop inside a loop: 1000 echoes");
}

int main() {
  ours_in_theirs();
  anyio::run(theirs_in_ours());
}
