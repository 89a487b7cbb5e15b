// Datagrams with descriptors, in batches, and to a peer that has gone and come back.
#include "trace.hpp"

#include <array>

#include <unistd.h>

using namespace outcome;

namespace {

/// A name that only this process uses; programs of several builds run at once.
std::string own_name(const char* what) {
  return std::string(1, '\0') + "anyio_net_outcome_" + what + std::to_string(::getpid());
}

task<> hears(unix_datagram_socket& s, std::size_t most) {
  noisy local("hears");
  const unix_fd_packet p = co_await s.receive_fds(100, most);
  say("heard " + p.data + " with " + std::to_string(p.fds.size()));
}

task<> descriptors() {
  noisy local("descriptors");
  auto server = co_await create_unix_datagram_socket({.local_path = own_name("fds")});
  auto client = co_await create_connected_unix_datagram_socket(own_name("fds"));
  const int two[] = {0, 0};
  co_await client.send_fds("two", two);
  co_await hears(server, 2);
  co_await client.send_fds("too many", two);
  tell("too many", co_await as_result(hears(server, 1)));
  co_await client.send("none");
  co_await hears(server, 1);
  tell("no descriptor", co_await as_result(client.send_fds("x", std::span<const int>())));
  tell("no room for any", co_await as_result(server.receive_fds(10, 0)));
  tell("nothing there", co_await as_result(fail_after(1ms, hears(server, 1))));
  auto waiting = server.receive_fds(10, 1);
  waiting.start([](result<unix_fd_packet> r) { tell("the first", r); });
  tell("busy", co_await as_result(hears(server, 1)));
  server.cancel();
  co_await sleep(0s);
  co_await client.send_fds("", two);
  std::array<char, 4> room{};
  say("without them " + std::to_string((co_await server.receive(room)).size));
  tell("to nobody", co_await as_result(server.send_fds("x", two, own_name("nobody"))));
  server.close();
  tell("closed", co_await as_result(hears(server, 1)));
  co_await client.send_fds("gone", two);
  say("not here");
}

task<> reconnects() {
  noisy local("reconnects");
  auto server = co_await create_unix_datagram_socket({.local_path = own_name("again")});
  auto client = co_await create_connected_unix_datagram_socket(own_name("again"));
  server.close();
  tell("gone", co_await as_result(client.send("x")));
  tell("nobody yet", client.reconnect());
  server = co_await create_unix_datagram_socket({.local_path = own_name("again")});
  tell("back", client.reconnect());
  co_await client.send("hello");
  say("heard " + (co_await server.receive()).data);
  auto other = co_await create_unix_datagram_socket({.local_path = own_name("other")});
  tell("another", client.reconnect(own_name("other")));
  co_await client.send("you too");
  say("heard " + (co_await other.receive()).data);
  client.close();
  co_await client.reconnect();
  say("not here");
}

task<> udp() {
  noisy local("udp");
  auto server = co_await create_udp_socket({.local_host = "127.0.0.1"});
  const ip_endpoint at = server.local_endpoint();
  auto client = co_await create_connected_udp_socket(at);
  udp_batch batch(3, 10);
  tell("an empty batch", co_await as_result(client.send_batch(batch)));
  say(batch.push("one") && batch.push("two") ? "pushed" : "full");
  say(batch.push("more than ten bytes") ? "pushed" : "too long");
  say("sent " + std::to_string(co_await client.send_batch(batch)));
  udp_batch got(3, 10);
  std::size_t heard = 0;
  while (heard < 2) heard += co_await server.receive_batch(got);
  say("heard " + std::to_string(heard));
  tell("nothing there", co_await as_result(fail_after(1ms, server.receive_batch(got))));
  server.close();
  co_await client.send("x");
  tell("refused", co_await as_result(client.receive()));
  auto later = co_await create_udp_socket({.local_host = "127.0.0.1"});
  tell("elsewhere", client.reconnect(later.local_endpoint()));
  co_await client.send("hello");
  say("heard " + (co_await later.receive()).data);
  tell("another family", client.reconnect({ip_address::loopback_v6(), 1}));
  client.close();
  co_await client.send_batch(batch);
  say("not here");
}

}  // namespace

int main() {
  tell("descriptors", run(as_result(descriptors())));
  tell("reconnects", run(as_result(reconnects())));
  tell("udp", run(as_result(udp())));
}
