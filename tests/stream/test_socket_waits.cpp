// Looking at a socket without taking anything, options of any type, sockets of any family, resets.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

#if defined(__linux__) && __has_include(<linux/vm_sockets.h>)
#include <linux/vm_sockets.h>
#define HAS_VSOCK
#endif

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "support/faces.hpp"
#include "support/sockets.hpp"

namespace {

using anyio::errc;
using support::by_callback;
using support::by_coroutine;
using support::waiting;

template <class Kind, class Way>
struct case_of {
  using kind = Kind;
  using face = Way;
};
#define EACH_KIND                                                          \
  case_of<support::tcp, by_callback>, case_of<support::tcp, by_coroutine>, \
      case_of<support::unix_pair, by_callback>, case_of<support::unix_pair, by_coroutine>

template <class Kind>
auto connected() {
  return by_coroutine::get(Kind::pair()).value();
}

TEST_CASE_TEMPLATE("peek returns bytes and leaves them in the stream", Case, EACH_KIND) {
  using face = typename Case::face;
  anyio::loop loop;
  auto p = connected<typename Case::kind>();
  char room[8] = {};
  waiting<std::size_t> peeking;
  face::start(p.second.peek(room), peeking);
  support::settle();
  CHECK(!peeking.done());
  CHECK(face::get(p.first.send("hello")).has_value());
  CHECK(peeking.get().value_or(0) == 5);
  CHECK(std::string_view(room, 5) == "hello");
  char two[2] = {};
  CHECK(face::get(p.second.peek(two)).value_or(0) == 2);
  CHECK(std::string_view(two, 2) == "he");
  CHECK(face::get(p.second.receive()).value_or("") == "hello");
}

TEST_CASE_TEMPLATE("peek reports the end and a reset as a receive does", Case, EACH_KIND) {
  using face = typename Case::face;
  anyio::loop loop;
  auto p = connected<typename Case::kind>();
  char room[8];
  p.first.close();
  for (int i = 0; i < 2; ++i) {
    const anyio::error e = face::get(p.second.peek(room)).error();
    CHECK(e == errc::end_of_stream);
    CHECK(e.operation() == "peek");
  }
  CHECK(face::get(p.second.receive()).error() == errc::end_of_stream);
  auto q = connected<support::tcp>();
  q.first.abort();
  CHECK(face::get(q.second.peek(room)).error() == std::errc::connection_reset);
  CHECK(face::get(q.second.receive()).error() == errc::broken_resource);
}

TEST_CASE_TEMPLATE("peek and wait_readable wait as the reader, wait_writable as the writer", Case,
                   EACH_KIND) {
  using face = typename Case::face;
  anyio::loop loop;
  auto p = connected<typename Case::kind>();
  char room[8];
  CHECK(face::get(p.second.peek(anyio::mutable_buffer(room, 0))).error() == errc::invalid_argument);
  {
    waiting<std::size_t> peeking;
    face::start(p.second.peek(room), peeking);
    support::settle();
    CHECK(face::get(p.second.receive()).error() == errc::busy_resource);
    CHECK(face::get(p.second.wait_readable()).error() == errc::busy_resource);
    p.second.cancel();
    CHECK(peeking.get().error() == errc::cancelled);
  }
  {
    waiting<void> reading;
    face::start(p.second.wait_readable(), reading);
    support::settle();
    CHECK(face::get(p.second.peek(room)).error() == errc::busy_resource);
    CHECK(face::get(p.second.send("others are unharmed")).has_value());
    CHECK(face::get(p.first.send("x")).has_value());
    CHECK(reading.get().has_value());
    CHECK(face::get(p.second.receive()).value_or("") == "x");
  }
  support::fill(p.first);
  waiting<void> writing;
  face::start(p.first.wait_writable(), writing);
  support::settle();
  CHECK(!writing.done());
  CHECK(face::get(p.first.send("x")).error() == errc::busy_resource);
  p.first.close();
  CHECK(writing.get().error() == errc::closed_resource);
  CHECK(face::get(p.first.peek(room)).error() == errc::closed_resource);
  CHECK(face::get(p.first.wait_readable()).error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("wait_writable completes when there is room again", Case, EACH_KIND) {
  using face = typename Case::face;
  anyio::loop loop;
  auto p = connected<typename Case::kind>();
  CHECK(face::get(p.first.wait_writable()).has_value());
  const std::size_t full = support::fill(p.first);
  waiting<void> writing;
  face::start(p.first.wait_writable(), writing);
  support::settle();
  CHECK(!writing.done());
  std::size_t got = 0;
  while (got < full) got += face::get(p.second.receive()).value_or("").size();
  CHECK(got == full);
  CHECK(writing.get().has_value());
  CHECK(face::get(p.first.send("room")).has_value());
  CHECK(face::get(p.first.send_eof()).has_value());
  CHECK(face::get(p.first.wait_writable()).error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("wait_readable completes at the end and after an error, and again", Case, EACH_KIND) {
  using face = typename Case::face;
  anyio::loop loop;
  auto p = connected<typename Case::kind>();
  waiting<void> reading;
  face::start(p.second.wait_readable(), reading);
  support::settle();
  CHECK(!reading.done());
  p.first.close();
  CHECK(reading.get().has_value());
  CHECK(face::get(p.second.receive()).error() == errc::end_of_stream);
  CHECK(face::get(p.second.wait_readable()).has_value());
  auto q = connected<support::tcp>();
  q.first.abort();
  CHECK(face::get(q.second.wait_readable()).has_value());
  CHECK(face::get(q.second.receive()).error() == errc::broken_resource);
}

TEST_CASE_TEMPLATE("a destroyed wait or peek takes nothing", Case, EACH_KIND) {
  using face = typename Case::face;
  anyio::loop loop;
  auto p = connected<typename Case::kind>();
  char room[8];
  support::settle();
  {
    auto peek = p.second.peek(room);
    peek.start([](anyio::result<std::size_t>) { CHECK(false); });
    auto writable = p.second.wait_writable();
    writable.start([](anyio::result<>) { CHECK(false); });
  }
  CHECK(face::get(p.first.send("kept")).has_value());
  {
    auto readable = p.second.wait_readable();
    readable.start([](anyio::result<>) { CHECK(false); });
  }
  CHECK(face::get(p.second.receive()).value_or("") == "kept");
}

TEST_CASE("operations that are only declared fail") {
  anyio::loop loop;
  CHECK(by_callback::get(decltype(std::declval<anyio::tcp_stream>().wait_readable())()).error() ==
        errc::invalid_argument);
  CHECK(by_callback::get(decltype(std::declval<anyio::tcp_stream>().wait_writable())()).error() ==
        errc::invalid_argument);
  char room[1];
  CHECK(by_callback::get(decltype(std::declval<anyio::tcp_stream>().peek(room))()).error() ==
        errc::invalid_argument);
}

TEST_CASE_TEMPLATE("peek leaves descriptors with their bytes", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  auto p = connected<support::unix_pair>();
  const int fds[] = {0};
  CHECK(Face::get(p.first.send_fds("with one", fds)).has_value());
  char room[100];
  CHECK(Face::get(p.second.peek(room)).value_or(0) == 8);
  auto message = Face::get(p.second.receive_fds(100, 4)).value();
  CHECK(message.data == "with one");
  CHECK(message.fds.size() == 1);
}

TEST_CASE("options have any trivially copyable type") {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  const linger patience{1, 7};
  CHECK(p.first.set_option(SOL_SOCKET, SO_LINGER, patience).has_value());
  const auto back = p.first.get_option<linger>(SOL_SOCKET, SO_LINGER);
  CHECK(back.has_value());
  CHECK(back->l_onoff != 0);
  CHECK(back->l_linger == 7);
  CHECK(p.first.set_option(SOL_SOCKET, SO_LINGER, linger{}).has_value());
  const timeval limit{3, 0};
  CHECK(p.first.set_option(SOL_SOCKET, SO_RCVTIMEO, limit).has_value());
  CHECK(p.first.get_option<timeval>(SOL_SOCKET, SO_RCVTIMEO)->tv_sec == 3);
  CHECK(p.first.set_option(SOL_SOCKET, SO_KEEPALIVE, true).has_value());
  CHECK(p.first.get_option<bool>(SOL_SOCKET, SO_KEEPALIVE).value_or(false));
  CHECK(p.first.get_option(SOL_SOCKET, SO_KEEPALIVE).value_or(0) != 0);
#if defined(__linux__)
  const auto info = p.first.get_option<tcp_info>(IPPROTO_TCP, TCP_INFO);
  CHECK(info.has_value());
  CHECK(info->tcpi_state == 1);  // established
  CHECK(p.first.set_option(IPPROTO_TCP, TCP_CONGESTION, std::string_view("reno")).has_value());
  CHECK(std::string_view(p.first.get_option<std::array<char, 16>>(IPPROTO_TCP, TCP_CONGESTION)->data()) ==
        "reno");
#endif
  const auto wrong = p.first.get_option<linger>(SOL_SOCKET, 9999);
  CHECK(wrong.error() == std::errc::no_protocol_option);
  CHECK(wrong.error().operation() == "get_option");
  p.first.close();
  CHECK(p.first.set_option(SOL_SOCKET, SO_LINGER, patience).error() == errc::closed_resource);
  CHECK(p.first.get_option<timeval>(SOL_SOCKET, SO_RCVTIMEO).error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("abort resets a TCP connection, and drops what was not sent", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  auto p = connected<support::tcp>();
  waiting<std::string> own;
  Face::start(p.first.receive(), own);
  support::settle();
  const int fd = p.first.native_handle();
  p.first.abort();
  CHECK(!p.first);
  CHECK(!support::is_open(fd));
  CHECK(own.get().error() == errc::closed_resource);
  CHECK(Face::get(p.second.receive()).error() == std::errc::connection_reset);
  p.first.abort();  // has no effect
  anyio::tcp_stream().abort();
  auto u = connected<support::unix_pair>();
  u.first.abort();
  CHECK(Face::get(u.second.receive()).error() == errc::end_of_stream);
}

TEST_CASE("socket_stream::from_fd takes over a connected stream socket of any family") {
  anyio::loop loop;
  auto t = connected<support::tcp>();
  anyio::socket_stream tcp = anyio::socket_stream::from_fd(t.first.release()).value();
  CHECK(by_coroutine::get(tcp.send("by TCP")).has_value());
  CHECK(by_coroutine::get(t.second.receive()).value_or("") == "by TCP");
  auto u = connected<support::unix_pair>();
  anyio::socket_stream local = anyio::socket_stream::from_fd(u.first.release()).value();
  const int fds[] = {0};
  CHECK(by_coroutine::get(u.second.send_fds("by UNIX", fds)).has_value());
  CHECK(by_coroutine::get(local.receive()).value_or("") == "by UNIX");
  CHECK(by_coroutine::get(u.second.send("more")).has_value());
  CHECK(by_coroutine::get(local.receive()).value_or("") == "more");  // the descriptor hid nothing
  CHECK(local.socket() == &local);
  CHECK(!anyio::socket_stream());
}

TEST_CASE("socket_stream::from_fd says what is wrong, and leaves the descriptor to the caller") {
  anyio::loop loop;
  const auto refusal = [](int fd) {
    const auto r = anyio::socket_stream::from_fd(fd);
    CHECK(r.error() == errc::invalid_argument);
    return r.error().message();
  };
  CHECK(refusal(-1).find("negative") != std::string::npos);
  int fds[2];
  CHECK(::pipe(fds) == 0);
  CHECK(refusal(fds[0]).find("not a socket") != std::string::npos);
  CHECK(support::is_open(fds[0]));
  ::close(fds[0]);
  ::close(fds[1]);
  const anyio::unique_fd fresh(support::raw_socket(AF_INET));
  CHECK(refusal(fresh.get()).find("not connected") != std::string::npos);
  const anyio::unique_fd datagrams(support::raw_socket(AF_INET, SOCK_DGRAM));
  CHECK(refusal(datagrams.get()).find("another type") != std::string::npos);
}

#if defined(HAS_VSOCK)
TEST_CASE("a vsock connection is a stream, where the kernel has its loopback") {
  anyio::loop loop;
  const anyio::unique_fd listener(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_vm here{};
  here.svm_family = AF_VSOCK;
  here.svm_cid = VMADDR_CID_ANY;
  here.svm_port = VMADDR_PORT_ANY;
  auto* address = reinterpret_cast<sockaddr*>(&here);
  socklen_t size = sizeof here;
  const anyio::unique_fd client(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
  bool there = listener && client && ::bind(listener.get(), address, size) == 0 &&
               ::listen(listener.get(), 1) == 0 && ::getsockname(listener.get(), address, &size) == 0;
  here.svm_cid = 1;  // VMADDR_CID_LOCAL
  there = there && ::connect(client.get(), address, sizeof here) == 0;
  if (!there) {
    MESSAGE("skipped: this kernel has no vsock loopback");
    return;
  }
  anyio::unique_fd accepted(::accept(listener.get(), nullptr, nullptr));
  anyio::socket_stream a = anyio::socket_stream::from_fd(::dup(client.get())).value();
  anyio::socket_stream b = anyio::socket_stream::from_fd(accepted.release()).value();
  CHECK(by_coroutine::get(a.send("by vsock")).has_value());
  CHECK(by_coroutine::get(b.receive()).value_or("") == "by vsock");
}
#endif

}  // namespace
