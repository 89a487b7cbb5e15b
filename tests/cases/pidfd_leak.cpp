// Control messages that carry a descriptor of another kind (SCM_PIDFD, Linux 6.5). None may leak.
#include "case.hpp"

#include <sys/socket.h>

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

using namespace anyio;

int main() {
  cases::verdict verdict;
  loop here;
  auto [a, b] = create_unix_stream_pair().value();
  if (!b.set_option(SOL_SOCKET, SO_PASSPIDFD, 1)) return cases::skipped;
  const int before = cases::lowest_free_descriptor();
  for (int i = 0; i < 10; ++i) {
    run(a.send("x"));
    static_cast<void>(support::by_callback::get(b.receive_fds(1, 1)));
    run(a.send("y"));
    static_cast<void>(support::by_coroutine::get(b.receive_fds(1, 1)));
    run(a.send("z"));
    static_cast<void>(run(b.receive()));
    const int passed = STDOUT_FILENO;
    run(a.send_fds("d", std::span<const int>(&passed, 1)));
    const auto with_descriptor = run(as_result(b.receive_fds(1, 1)));
    if (i == 0) {
      verdict.expect(with_descriptor && with_descriptor->fds.size() == 1, "a descriptor that was passed",
                     with_descriptor.error());
    }
  }
  const int after = cases::lowest_free_descriptor();
  verdict.expect(before == after, "the lowest free descriptor, before and after",
                 std::to_string(before) + ", " + std::to_string(after));
  return verdict.status();
}
