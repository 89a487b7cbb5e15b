// The n-th allocation fails, for each n. Each run is a child process, since an incorrect one crashes.
#include "case.hpp"

#include <sys/wait.h>

#include <cstdlib>
#include <new>

static long left = -1;
void* operator new(std::size_t n) {
  if (left >= 0 && left-- == 0) throw std::bad_alloc();
  if (void* const p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

using namespace anyio;

static task<> echo_once() {
  auto listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
  task_group group;
  group.start_soon(listener.serve([](tcp_stream s) -> task<> { co_await s.send(co_await s.receive()); }));
  auto client = co_await connect_tcp("127.0.0.1", listener.local_port());
  co_await client.send("hello");
  co_await move_on_after(std::chrono::seconds(5), client.receive());
  group.cancel();
}

static task<> datagrams() {
  auto a = co_await create_udp_socket({.local_host = "127.0.0.1"});
  auto b = co_await create_connected_udp_socket(a.local_endpoint());
  co_await b.send("hello");
  co_await a.receive();
}

/// The number of runs with a failing allocation that ended by a signal. Stops at the first run that needs
/// fewer allocations.
template <class Make>
int crashes(Make make) {
  int crashed = 0;
  for (long n = 0; n < 1000; ++n) {
    const pid_t child = ::fork();
    if (child == 0) {
      loop here;
      left = n;
      try {
        run(make());
      } catch (const std::bad_alloc&) {
        left = -1;
        ::_exit(1);
      } catch (const exception&) {  // of a peer whose allocation failed
        ::_exit(1);
      }
      ::_exit(left >= 0 ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) ++crashed;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
  }
  return crashed;
}

int main() {
  cases::end_when_it_hangs();
  cases::verdict verdict;
  const int of_echo = crashes(echo_once);
  verdict.expect(of_echo == 0, "a server and its client, crashes", std::to_string(of_echo));
  const int of_datagrams = crashes(datagrams);
  verdict.expect(of_datagrams == 0, "datagrams, crashes", std::to_string(of_datagrams));
  return verdict.status();
}
