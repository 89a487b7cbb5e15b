// The local address of a connection through a transparent listener is the address that its client connected
// to. Needs root, iproute2 and nftables.
#include "case.hpp"

#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>

using namespace anyio;

#if defined(__linux__)
static int transparent(int fd, void*) {
  const int on = 1;
  return ::setsockopt(fd, SOL_IP, IP_TRANSPARENT, &on, sizeof on) != 0 ? errno : 0;
}

int main() {
  const char* const rules =
      "ip link set lo up && ip rule add fwmark 1 lookup 100 && ip route add local 0.0.0.0/0 dev lo table 100 "
      "&& "
      "ip addr add 10.1.1.1/32 dev lo && ip route add 10.9.9.9/32 dev lo && "
      "nft 'add table ip t; add chain ip t pre { type filter hook prerouting priority -150; }; "
      "add chain ip t out { type route hook output priority -150; }; "
      "add rule ip t out ip daddr 10.9.9.9 meta mark set 1; "
      "add rule ip t pre ip daddr 10.9.9.9 tcp dport 80 tproxy to 127.0.0.1:3000 meta mark set 1' "
      "2>/dev/null";
  if (::unshare(CLONE_NEWNET) != 0 || std::system(rules) != 0) return cases::skipped;
  cases::verdict verdict;
  loop here;
  auto listener = tcp_listener::open({ip_address::loopback_v4(), 3000}, {.prepare = transparent}).value();
  const ip_endpoint asked{ip_address::parse("10.9.9.9").value(), 80};
  support::waiting<tcp_stream> accepted;
  support::by_callback::start(listener.accept(), accepted);
  const auto client = run(connect_tcp(asked));
  const auto server = accepted.get().value();
  verdict.expect(server.local_endpoint() == asked, "local_endpoint", server.local_endpoint().to_string());
  return verdict.status();
}
#else
int main() { return cases::skipped; }
#endif
