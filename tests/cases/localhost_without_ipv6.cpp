// A refused port of localhost on a machine without IPv6. Needs root: the program disables IPv6 in its own
// network namespace.
#include "case.hpp"

#include <sched.h>

#include <cstdlib>

using namespace anyio;

#if defined(__linux__)
int main() {
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
      std::system("mount -t proc proc /proc 2>/dev/null; ip link set lo up && for i in all lo; do "
                  "echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done") != 0)
    return cases::skipped;
  cases::verdict verdict;
  loop here;
  auto listener = run(create_tcp_listener({.local_host = "localhost"}));
  const std::uint16_t port = listener.local_port();
  listener.close();
  const auto by_callback = support::by_callback::get(connect_tcp("localhost", port));
  verdict.expect(by_callback.error() == std::errc::connection_refused, "callback", by_callback.error());
  const auto by_coroutine = support::by_coroutine::get(connect_tcp("localhost", port));
  verdict.expect(by_coroutine.error() == std::errc::connection_refused, "coroutine", by_coroutine.error());
  return verdict.status();
}
#else
int main() { return cases::skipped; }
#endif
