// The errors of each stream when it is misused, closed, at its end, or refused.
#include "trace.hpp"

#include <array>

using namespace outcome;

namespace {

task<> talks(byte_stream& near, byte_stream& far) {
  noisy local("talks");
  std::array<char, 2> buf{};
  tell("empty buffer", co_await as_result(near.receive(mutable_buffer())));
  tell("empty send", co_await as_result(near.send("")));
  auto first = near.receive();
  first.start([](result<std::string> r) { tell("the first", r); });
  tell("the second", co_await as_result(near.receive(buf)));
  co_await far.send("abc");
  co_await sleep(10ms);
  co_await far.send_eof();
  tell("a send after the end", co_await as_result(far.send("x")));
  tell("the end", co_await as_result(near.receive()));
  tell("again", co_await as_result(near.receive_view()));
  co_await near.send("still");
  say("heard " + co_await far.receive());
  near.close();
  tell("closed", co_await as_result(near.receive()));
  tell("closed send", co_await as_result(near.send("x")));
  tell("closed eof", co_await as_result(near.send_eof()));
  tell("closed aclose", co_await as_result(near.aclose()));
  tell("its peer", co_await as_result(far.receive()));
  co_await near.receive();
  say("not here");
}

task<> all() {
  {
    auto [near, far] = create_memory_stream_pair();
    tell("memory", co_await as_result(talks(near, far)));
  }
  {
    auto pair = co_await create_unix_stream_pair();
    tell("unix", co_await as_result(talks(pair.first, pair.second)));
  }
  {
    auto listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
    tcp_stream near = co_await connect_tcp("127.0.0.1", listener.local_port());
    tcp_stream far = co_await listener.accept();
    tell("tcp", co_await as_result(talks(near, far)));
    const ip_endpoint gone = listener.local_endpoints()[0];
    listener.close();
    tell("refused", co_await as_result(connect_tcp(gone)));
    auto udp = co_await create_connected_udp_socket(gone);
    co_await udp.send("x");
    tell("refused datagram", co_await as_result(udp.receive()));
  }
  tell("no path", co_await as_result(connect_unix("/nowhere/at/all")));
  tell("no name", co_await as_result(anyio::getaddrinfo("caf\xc3\xa9", 1)));
  tell("no options", co_await as_result(create_udp_socket({})));
  co_await connect_unix(std::string(500, 'x'));
  say("not here");
}

}  // namespace

int main() { tell("all", run(as_result(all()))); }
