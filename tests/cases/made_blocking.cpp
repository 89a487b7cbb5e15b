// Another holder of a descriptor makes it blocking: O_NONBLOCK belongs to the open file, which is shared. The
// loop must not hang.
#include "case.hpp"

#include <fcntl.h>

#include <array>

using namespace anyio;
using namespace std::literals;

static void make_blocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK); }

/// Whether a timer still fires.
static bool ticks() {
  int count = 0;
  run([&]() -> task<> {
    for (; count < 5; ++count) co_await sleep(1ms);
  });
  return count == 5;
}

/// Ends the pending operation while its result variable still exists.
template <class Object, class T>
static void end(Object& object, support::waiting<T>& waiting) {
  object.close();
  static_cast<void>(waiting.get());
}

template <class Face>
void waits_beside_timers(cases::verdict& verdict) {
  loop here;
  {
    auto pair = create_unix_stream_pair().value();
    make_blocking(pair.second.native_handle());
    support::waiting<std::string> received;
    Face::start(pair.second.receive(), received);
    verdict.expect(ticks() && !received.done(), "receive", "waits");
    end(pair.second, received);
  }
  {
    auto pair = create_unix_stream_pair().value();
    make_blocking(pair.first.native_handle());
    const std::string much(8 << 20, 'x');
    support::waiting<void> sent;
    Face::start(pair.first.send(much), sent);
    verdict.expect(ticks() && !sent.done(), "send", "waits");
    end(pair.first, sent);
  }
  {
    auto listener = tcp_listener::open({ip_address::loopback_v4(), 0}).value();
    make_blocking(listener.native_handles().front());
    support::waiting<tcp_stream> accepted;
    Face::start(listener.accept(), accepted);
    verdict.expect(ticks() && !accepted.done(), "accept", "waits");
    end(listener, accepted);
  }
  {
    auto socket = udp_socket::open({ip_address::loopback_v4(), 0}).value();
    make_blocking(socket.native_handle());
    support::waiting<udp_packet> packet;
    Face::start(socket.receive(), packet);
    verdict.expect(ticks() && !packet.done(), "receive of datagrams", "waits");
    end(socket, packet);
  }
  for (const bool reading : {true, false}) {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) return;
    auto in = fd_stream::from_fd(ends[0]).value();
    auto out = fd_stream::from_fd(ends[1]).value();
    make_blocking(ends[0]);
    make_blocking(ends[1]);
    const std::string much(1 << 20, 'x');
    support::waiting<std::string> received;
    support::waiting<void> sent;
    if (reading) {
      Face::start(in.receive(), received);
    } else {
      Face::start(out.send(much), sent);
    }
    const char* const what = reading ? "receive from a pipe" : "send to a pipe";
    verdict.expect(ticks() && !received.done() && !sent.done(), what, "waits");
    if (reading) {
      end(in, received);
    } else {
      end(out, sent);
    }
  }
}

int main() {
  cases::end_when_it_hangs();
  cases::verdict verdict;
  waits_beside_timers<support::by_callback>(verdict);
  waits_beside_timers<support::by_coroutine>(verdict);
  return verdict.status();
}
