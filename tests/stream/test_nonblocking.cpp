// Descriptors that another holder makes blocking: O_NONBLOCK belongs to the open file, which other processes
// and duplicates share. The loop must never hang in a call because of that.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"
#include "support/ways.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::result;
using support::by_callback;
using support::by_coroutine;
using support::tcp_callback;
using support::tcp_coroutine;
using support::unix_callback;
using support::unix_coroutine;
using support::waiting;
using support::way;

/// A hang would last forever: this ends the program instead.
class hang_guard {
 public:
  hang_guard() {
    std::signal(SIGALRM, [](int) {
      constexpr std::string_view text = "the loop hangs in a system call\n";
      static_cast<void>(!::write(2, text.data(), text.size()));
      ::_exit(1);
    });
    ::alarm(60);
  }
  ~hang_guard() {
    ::alarm(0);
    std::signal(SIGALRM, SIG_DFL);
  }
  hang_guard(const hang_guard&) = delete;
  hang_guard& operator=(const hang_guard&) = delete;
};

void make_blocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK); }

TEST_CASE_TEMPLATE("a blocking stream socket receives and sends without blocking the loop", Way, tcp_callback,
                   tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  const hang_guard guard;
  anyio::loop loop;
  auto p = by_coroutine::get(Way::kind::pair()).value();
  const int fd = p.second.native_handle();

  make_blocking(fd);  // before
  waiting<std::string> receiving;
  face::start(p.second.receive(), receiving);
  support::settle();
  CHECK(!receiving.done());
  make_blocking(fd);  // during
  CHECK(face::get(p.first.send("one")).has_value());
  CHECK(receiving.get().value_or("") == "one");
  make_blocking(fd);  // between
  CHECK(face::get(anyio::fail_after(1ms, p.second.receive())).error() == errc::timed_out);

  support::fill(p.second);
  make_blocking(fd);
  CHECK(face::get(anyio::fail_after(1ms, p.second.send("x"))).error() == errc::timed_out);
  const anyio::const_buffer parts[] = {"a", "b"};
  CHECK(face::get(anyio::fail_after(1ms, p.second.send(parts))).error() == errc::timed_out);
  waiting<void> sending;
  const std::string much(4 << 20, 'm');
  face::start(p.second.send(much), sending);
  support::settle();
  CHECK(!sending.done());
  make_blocking(fd);
  while (!sending.done()) CHECK(face::get(p.first.receive()).has_value());
  CHECK(sending.get().has_value());
}

TEST_CASE_TEMPLATE("sending a file over a blocking socket does not block the loop", Way, tcp_callback,
                   tcp_coroutine, unix_callback, unix_coroutine) {
  using face = typename Way::face;
  const hang_guard guard;
  anyio::loop loop;
  auto p = by_coroutine::get(Way::kind::pair()).value();
  std::FILE* file = std::tmpfile();
  CHECK(::ftruncate(::fileno(file), 8 << 20) == 0);
  make_blocking(p.second.native_handle());
  waiting<std::uint64_t> sending;
  face::start(p.second.send_file(::fileno(file), 0, 8 << 20), sending);
  support::settle();
  CHECK(!sending.done());
  make_blocking(p.second.native_handle());
  std::size_t got = 0;
  while (got < 8 << 20) {
    make_blocking(p.second.native_handle());
    const std::size_t more = face::get(p.first.receive(1 << 20)).value_or("").size();
    if (more == 0) break;
    got += more;
  }
  CHECK(sending.get().value_or(0) == 8 << 20);
  std::fclose(file);
}

TEST_CASE_TEMPLATE("passing descriptors over a blocking socket does not block the loop", Face, by_callback,
                   by_coroutine) {
  const hang_guard guard;
  anyio::loop loop;
  auto p = anyio::create_unix_stream_pair().value();
  make_blocking(p.second.native_handle());
  CHECK(Face::get(anyio::fail_after(1ms, p.second.receive_fds(1, 1))).error() == errc::timed_out);
  CHECK(Face::get(anyio::fail_after(1ms, p.second.receive_fds(0, 1))).error() == errc::timed_out);
  support::fill(p.second);
  const int fds[] = {0};
  CHECK(Face::get(anyio::fail_after(1ms, p.second.send_fds("x", fds))).error() == errc::timed_out);
}

TEST_CASE_TEMPLATE("blocking datagram sockets do not block the loop", Face, by_callback, by_coroutine) {
  const hang_guard guard;
  anyio::loop loop;
  const support::temp_dir dir;
  auto udp = anyio::udp_socket::open(support::loopback()).value();
  make_blocking(udp.native_handle());
  CHECK(Face::get(anyio::fail_after(1ms, udp.receive())).error() == errc::timed_out);
  char room[10];
  CHECK(Face::get(anyio::fail_after(1ms, udp.receive(room))).error() == errc::timed_out);
  anyio::udp_batch batch(4);
  CHECK(Face::get(anyio::fail_after(1ms, udp.receive_batch(batch))).error() == errc::timed_out);
  // Some bytes, but not as many as there is room for.
  CHECK(Face::get(udp.send_to("x", udp.local_endpoint())).has_value());
  CHECK(Face::get(udp.receive_batch(batch)).value_or(0) == 1);

  const std::string path = dir.path() + "/s";
  auto server = Face::get(anyio::create_unix_datagram_socket({.local_path = path})).value();
  auto client = Face::get(anyio::create_connected_unix_datagram_socket(path)).value();
  make_blocking(server.native_handle());
  make_blocking(client.native_handle());
  CHECK(Face::get(anyio::fail_after(1ms, server.receive())).error() == errc::timed_out);
  errc sent = errc::ok;
  for (int i = 0; i < 100000 && sent == errc::ok; ++i) {
    const result<> r = Face::get(anyio::fail_after(1ms, client.send("fills the queue")));
    if (!r) sent = r.error().code();
  }
  CHECK(sent == errc::timed_out);
}

/// A listener, and a function that connects to it without the loop.
struct tcp_place {
  anyio::tcp_listener listener = anyio::tcp_listener::open(support::loopback()).value();
  [[nodiscard]] int fd() const { return listener.native_handles().front(); }
  [[nodiscard]] int connect() const { return support::raw_connect(listener.local_endpoints().front()); }
};
struct unix_place {
  support::temp_dir dir;
  std::string path = dir.path() + "/s";
  anyio::unix_listener listener = by_coroutine::get(anyio::create_unix_listener(path)).value();
  [[nodiscard]] int fd() const { return listener.native_handle(); }
  [[nodiscard]] int connect() const {
    const int fd = support::raw_socket(AF_UNIX);
    sockaddr_un address;
    const socklen_t size = support::unix_name(path, address);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) != 0) std::abort();
    return fd;
  }
};
using accept_tcp_callback = way<tcp_place, by_callback>;
using accept_tcp_coroutine = way<tcp_place, by_coroutine>;
using accept_unix_callback = way<unix_place, by_callback>;
using accept_unix_coroutine = way<unix_place, by_coroutine>;

TEST_CASE_TEMPLATE("a blocking listener accepts without blocking the loop", Way, accept_tcp_callback,
                   accept_tcp_coroutine, accept_unix_callback, accept_unix_coroutine) {
  using face = typename Way::face;
  const hang_guard guard;
  anyio::loop loop;
  typename Way::kind place;
  std::vector<int> clients;
  auto& l = place.listener;
  using stream = typename decltype(l.accept())::value_type;

  make_blocking(place.fd());  // before
  CHECK(face::get(anyio::fail_after(1ms, l.accept())).error() == errc::timed_out);
  waiting<stream> accepting;
  face::start(l.accept(), accepting);
  support::settle();
  make_blocking(place.fd());  // during
  clients.push_back(place.connect());
  CHECK(accepting.get().has_value());
  make_blocking(place.fd());  // between
  CHECK(face::get(anyio::fail_after(1ms, l.accept())).error() == errc::timed_out);

  // Several that arrived with one event, and then none.
  for (int i = 0; i < 5; ++i) clients.push_back(place.connect());
  for (int i = 0; i < 5; ++i) {
    make_blocking(place.fd());
    CHECK(face::get(l.accept()).has_value());
  }
  make_blocking(place.fd());
  CHECK(face::get(anyio::fail_after(1ms, l.accept())).error() == errc::timed_out);

  // A connection that arrives between two accepts of the same turn.
  clients.push_back(place.connect());
  clients.push_back(place.connect());
  int taken = 0;
  anyio::run([&]() -> anyio::task<> {
    for (;;) {
      make_blocking(place.fd());
      auto r = co_await anyio::as_result(anyio::fail_after(1ms, l.accept()));
      if (!r) co_return;
      if (++taken == 2) clients.push_back(place.connect());
    }
  });
  CHECK(taken == 3);
  for (const int fd : clients) ::close(fd);
}

TEST_CASE_TEMPLATE("a connection taken by another process does not block the loop of a blocking listener",
                   Way, accept_tcp_callback, accept_tcp_coroutine, accept_unix_callback,
                   accept_unix_coroutine) {
  using face = typename Way::face;
  const hang_guard guard;
  support::scripted_loop s;
  typename Way::kind place;
  using stream = typename decltype(place.listener.accept())::value_type;
  waiting<stream> accepting;
  face::start(place.listener.accept(), accepting);
  support::settle();
  int taken = -1;
  s.system.on_events = [&](anyio::detail::slice<anyio::detail::poll_event>) {
    if (taken >= 0) return;
    taken = ::accept(place.fd(), nullptr, nullptr);  // after the poller reported it
    make_blocking(place.fd());
  };
  const int first = place.connect();
  while (taken < 0) s.loop.run_once(100ms);
  support::settle();
  CHECK(!accepting.done());
  const int second = place.connect();
  CHECK(accepting.get().has_value());
  for (const int fd : {first, taken, second}) ::close(fd);
}

TEST_CASE("a server on blocking listeners of two families accepts every connection") {
  const hang_guard guard;
  anyio::loop loop;
  auto made = by_coroutine::get(anyio::create_tcp_listener({.local_host = "localhost"}));
  CHECK(made.has_value());
  auto& l = made.value();
  std::vector<int> clients;
  int served = 0;
  auto serving = l.serve([&](anyio::tcp_stream) { ++served; });
  serving.start([](result<>) {});
  for (int round = 0; round < 20; ++round) {
    for (const int fd : l.native_handles()) make_blocking(fd);
    for (int i = 0; i < round; ++i)
      clients.push_back(support::raw_connect(
          l.local_endpoints()[static_cast<std::size_t>(i) % l.local_endpoints().size()]));
    while (served < static_cast<int>(clients.size())) loop.run_once(100ms);
  }
  support::settle();
  CHECK(served == static_cast<int>(clients.size()));
  l.close();
  support::settle();
  for (const int fd : clients) ::close(fd);
}

TEST_CASE("connections known to be waiting are accepted without a check for each") {
  class counting : public support::scripted_backend {
   public:
    int looks = 0;
    void keep_non_blocking(int fd) override {
      ++looks;
      scripted_backend::keep_non_blocking(fd);
    }
  };
  auto made = std::make_unique<counting>();
  const counting& system = *made;
  const anyio::loop loop(std::move(made));
  auto l = anyio::tcp_listener::open(support::loopback()).value();
  std::vector<int> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(support::raw_connect(l.local_endpoints().front()));
#if defined(__linux__)
  tcp_info info{};
  socklen_t size = sizeof info;
  const bool told = ::getsockopt(l.native_handles().front(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0;
  const bool counted = told && info.tcpi_unacked == 20;  // not in an emulator
#endif
  for (int i = 0; i < 20; ++i) CHECK(by_coroutine::get(l.accept()).has_value());
  CHECK(system.accepts == 20);
#if defined(__linux__)
  if (counted) CHECK(system.looks == 3);
#endif
  for (const int fd : clients) ::close(fd);
}

TEST_CASE_TEMPLATE("a blocking pipe is read and written without blocking the loop", Face, by_callback,
                   by_coroutine) {
  const hang_guard guard;
  anyio::loop loop;
  int fds[2];
  CHECK(::pipe(fds) == 0);
  auto in = anyio::fd_stream::from_fd(fds[0]).value();
  auto out = anyio::fd_stream::from_fd(fds[1]).value();
  make_blocking(fds[0]);
  make_blocking(fds[1]);
  CHECK(Face::get(anyio::fail_after(1ms, in.receive())).error() == errc::timed_out);
  waiting<std::string> receiving;
  Face::start(in.receive(), receiving);
  support::settle();
  make_blocking(fds[0]);
  CHECK(Face::get(out.send("one")).has_value());
  CHECK(receiving.get().value_or("") == "one");
  make_blocking(fds[0]);
  CHECK(Face::get(anyio::fail_after(1ms, in.receive())).error() == errc::timed_out);

  const std::string much(4 << 20, 'm');
  waiting<void> sending;
  Face::start(out.send(much), sending);
  support::settle();
  CHECK(!sending.done());
  std::size_t got = 0;
  while (got < much.size()) {
    make_blocking(fds[1]);
    const std::size_t more = Face::get(in.receive()).value_or("").size();
    if (more == 0) break;
    got += more;
  }
  CHECK(got == much.size());
  CHECK(sending.get().has_value());
}

TEST_CASE_TEMPLATE("a blocking terminal is read and written without blocking the loop", Face, by_callback,
                   by_coroutine) {
  const hang_guard guard;
  anyio::loop loop;
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  CHECK(master >= 0);
  CHECK(::grantpt(master) == 0);
  CHECK(::unlockpt(master) == 0);
  const int slave = ::open(::ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  CHECK(slave >= 0);
  auto m = anyio::fd_stream::from_fd(master).value();
  auto t = anyio::fd_stream::from_fd(slave).value();
  for (const int fd : {master, slave}) make_blocking(fd);
  CHECK(Face::get(anyio::fail_after(1ms, t.receive())).error() == errc::timed_out);
  for (const int fd : {master, slave}) make_blocking(fd);
  CHECK(Face::get(anyio::fail_after(1ms, m.receive())).error() == errc::timed_out);
  const std::string much(1 << 20, 'm');  // nothing is read
  for (const int fd : {master, slave}) make_blocking(fd);
  CHECK(Face::get(anyio::fail_after(1ms, t.send(much))).error() == errc::timed_out);
}

TEST_CASE("a socket made blocking before it connects does not block the loop") {
  const hang_guard guard;
  support::scripted_loop s;
  auto l = anyio::tcp_listener::open(support::loopback()).value();
  bool was_blocking = true;
  struct state {
    bool& was_blocking;
    int fd = -1;
  } now{was_blocking};
  s.system.on_connect = [&](const anyio::ip_endpoint&) -> std::optional<int> {
    was_blocking = !support::is_non_blocking(now.fd);
    return std::nullopt;
  };
  anyio::tcp_connect_options options;
  options.prepare_data = &now;
  options.prepare = [](int fd, void* data) {
    static_cast<state*>(data)->fd = fd;
    make_blocking(fd);
    return 0;
  };
  CHECK(by_callback::get(anyio::connect_tcp(l.local_endpoints().front(), options)).has_value());
  CHECK(!was_blocking);
}

}  // namespace
