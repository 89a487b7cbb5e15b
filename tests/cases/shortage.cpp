// The kernel is short of memory for a moment. Streams wait and continue; no shortage is taken for the end.
#include "case.hpp"

#include <sys/socket.h>

#include <cerrno>

static int failures = 0;
static int shortage = 0;

static bool fails() { return failures > 0 && failures-- > 0; }

// Replaces the system's function.
extern "C" ssize_t send(int fd, const void* data, std::size_t size, int flags) {
  if (fails()) return errno = shortage, -1;
  return ::sendto(fd, data, size, flags, nullptr, 0);
}
extern "C" ssize_t recv(int fd, void* data, std::size_t size, int flags) {
  if (fails()) return errno = shortage, -1;
  return ::recvfrom(fd, data, size, flags, nullptr, nullptr);
}

using namespace anyio;

template <class Face>
void transfer(cases::verdict& verdict, int error_number) {
  loop here;
  auto pair = cases::connected();
  shortage = error_number;
  failures = 3;
  const auto sent = Face::get(pair.client.send("one"));
  verdict.expect(sent.has_value() && failures == 0, "a send", sent.error());
  failures = 3;
  const auto received = Face::get(pair.server.receive());
  verdict.expect(received && *received == "one" && failures == 0, "a receive",
                 received ? *received : received.error().message());
  pair.server.close();
  const auto end = Face::get(pair.client.receive());
  verdict.expect(end.error() == errc::end_of_stream, "what ends the stream", end.error());
}

int main() {
  cases::end_when_it_hangs();
  cases::verdict verdict;
  for (const int error_number : {ENOBUFS, ENOMEM}) {
    transfer<support::by_callback>(verdict, error_number);
    transfer<support::by_coroutine>(verdict, error_number);
  }
  return verdict.status();
}
