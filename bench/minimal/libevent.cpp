// The smallest echo server on libevent, for time to compile and size.

#include <cstdio>

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

namespace {

void received(bufferevent* b, void*) { bufferevent_write_buffer(b, bufferevent_get_input(b)); }

void happened(bufferevent* b, short what, void*) {
  if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) bufferevent_free(b);
}

void incoming(evconnlistener* listener, evutil_socket_t fd, sockaddr*, int, void*) {
  bufferevent* b = bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
  bufferevent_setcb(b, received, nullptr, happened, nullptr);
  bufferevent_enable(b, EV_READ | EV_WRITE);
}

}  // namespace

int main() {
  event_base* base = event_base_new();
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* where = reinterpret_cast<sockaddr*>(&address);
  evconnlistener* listener =
      evconnlistener_new_bind(base, incoming, nullptr, LEV_OPT_CLOSE_ON_FREE, 4096, where, sizeof address);
  if (listener == nullptr) return std::perror("listen"), 1;
  socklen_t size = sizeof address;
  getsockname(evconnlistener_get_fd(listener), where, &size);
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return event_base_dispatch(base);
}
