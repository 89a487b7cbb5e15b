// A forked child closes, destroys and assigns what it inherited. The parent continues undisturbed.
#include "case.hpp"

#include <sys/wait.h>

#include <array>

using namespace anyio;

template <class Face>
void inherited(cases::verdict& verdict) {
  loop parent;
  auto streams = create_unix_stream_pair().value();
  auto tcp = cases::connected();
  auto listener = tcp_listener::open({ip_address::loopback_v4(), 0}).value();
  auto udp = udp_socket::open({ip_address::loopback_v4(), 0}).value();
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) return;
  auto pipe = fd_stream::from_fd(ends[0]).value();

  support::waiting<std::string> from_stream;
  support::waiting<std::string> from_tcp;
  support::waiting<tcp_stream> accepted;
  support::waiting<udp_packet> packet;
  support::waiting<std::string> from_pipe;
  Face::start(streams.second.receive(), from_stream);
  Face::start(tcp.server.receive(), from_tcp);
  Face::start(listener.accept(), accepted);
  Face::start(udp.receive(), packet);
  Face::start(pipe.receive(), from_pipe);
  support::settle();

  if (::fork() == 0) {
    streams.second.close();
    tcp.server = tcp_stream();
    listener.close();
    { const auto gone = std::move(udp); }
    pipe.close();
    ::_exit(0);
  }
  ::wait(nullptr);

  (void)!::write(streams.first.native_handle(), "unix", 4);
  (void)!::write(tcp.client.native_handle(), "tcp", 3);
  (void)!::write(ends[1], "pipe", 4);
  auto sender = udp_socket::open({ip_address::loopback_v4(), 0}).value();
  run(sender.send_to("udp", udp.local_endpoint()));
  auto late = run(connect_tcp(listener.local_endpoints().front()));

  const auto text = [](const result<std::string>& r) { return r ? *r : r.error().message(); };
  const std::string of_stream = text(from_stream.get());
  verdict.expect(of_stream == "unix", "a UNIX stream", of_stream);
  const std::string of_tcp = text(from_tcp.get());
  verdict.expect(of_tcp == "tcp", "a TCP stream", of_tcp);
  const std::string of_pipe = text(from_pipe.get());
  verdict.expect(of_pipe == "pipe", "a pipe", of_pipe);
  const auto datagram = packet.get();
  verdict.expect(datagram && datagram->data == "udp", "a UDP socket", datagram.error());
  const auto connection = accepted.get();
  verdict.expect(connection.has_value(), "a listener", connection.error());
  ::close(ends[1]);
}

int main() {
  cases::verdict verdict;
  inherited<support::by_callback>(verdict);
  inherited<support::by_coroutine>(verdict);
  return verdict.status();
}
