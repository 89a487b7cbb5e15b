// The peer has reset the connection, and this end half-closes it. The reset must not be hidden.
#include "case.hpp"

#include <sys/socket.h>

using namespace anyio;

/// Resets the connection while its other end is in use.
static void reset(tcp_stream& s) {
  const ::linger at_once{1, 0};
  ::setsockopt(s.native_handle(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  s.close();
}

template <class Face>
void half_close(cases::verdict& verdict, bool bytes_before) {
  loop here;
  auto pair = cases::connected();
  if (bytes_before) run(pair.server.send("before"));
  reset(pair.server);
  const auto eof = Face::get(pair.client.send_eof());
  verdict.expect(!eof && eof.error() == errc::broken_resource && eof.error() == std::errc::connection_reset,
                 "send_eof", eof.error());
  if (bytes_before) static_cast<void>(Face::get(pair.client.receive()));  // the kernel may have dropped them
  const auto received = Face::get(pair.client.receive());
  verdict.expect(received.error() == errc::broken_resource && received.error() == std::errc::connection_reset,
                 bytes_before ? "receive, with bytes before it" : "receive", received.error());
}

int main() {
  cases::verdict verdict;
  for (const bool bytes_before : {false, true}) {
    half_close<support::by_callback>(verdict, bytes_before);
    half_close<support::by_coroutine>(verdict, bytes_before);
  }
  return verdict.status();
}
