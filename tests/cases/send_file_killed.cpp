// The connection is killed during a send_file: an error of the connection, not of the file. Needs root and
// iproute2.
#include "case.hpp"

#include <fcntl.h>
#include <sched.h>

#include <cstdlib>

using namespace anyio;

int main() {
  if (::unshare(CLONE_NEWNET) != 0 || std::system("ip link set lo up 2>/dev/null") != 0)
    return cases::skipped;
  cases::verdict verdict;
  loop here;
  auto pair = cases::connected();
  const int file = ::open("/etc/passwd", O_RDONLY | O_CLOEXEC);
  const std::string kill =
      "ss -K dport = " + std::to_string(pair.client.remote_endpoint().port) + " >/dev/null";
  if (file < 0 || std::system(kill.c_str()) != 0) return cases::skipped;
  const auto sent = support::by_callback::get(pair.client.send_file(file, 0, 100));
  if (sent) return cases::skipped;  // this kernel cannot kill sockets
  verdict.expect(sent.error() == errc::broken_resource, "send_file", sent.error());
  const auto received = support::by_coroutine::get(pair.client.receive());
  verdict.expect(received.error() == errc::broken_resource, "receive", received.error());
  ::close(file);
  return verdict.status();
}
