// Descriptors over UNIX datagram sockets, and datagrams into buffers.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/faces.hpp"
#include "support/passed_files.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"
#include "support/unix_datagrams.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using support::by_callback;
using support::by_coroutine;
using support::file_of;
using support::make_file;
using support::open_count;
using support::open_datagrams_at;
using support::temp_dir;
using support::waiting;

connected_unix_datagram_socket connect_to(std::string_view path, std::string_view own = {}) {
  unix_datagram_options options;
  options.local_path = own;
  auto r = connected_unix_datagram_socket::open(path, options);
  CHECK(r.has_value());
  return r ? *std::move(r) : connected_unix_datagram_socket();
}

/// A server, and two clients: one with a path and one with the server as its peer.
struct sockets {
  loop l;
  temp_dir dir;
  unix_datagram_socket server = open_datagrams_at(dir.path("server"));
  unix_datagram_socket client = open_datagrams_at(dir.path("client"));
  connected_unix_datagram_socket connected = connect_to(dir.path("server"), dir.path("connected"));
  unique_fd file = make_file();
  std::array<int, 2> fds{file.get(), file.get()};

  std::string path() const { return dir.path("server"); }
};

/// Sends until a send has to wait, and leaves it pending; returns how many were sent before.
template <class Face, class Send>
int fill_queue(Send send, waiting<void>& blocked) {
  for (int sent = 0; sent < 100000; ++sent) {
    Face::start(send(), blocked);
    support::settle();
    if (!blocked.done()) return sent;
    CHECK(blocked.get().has_value());
  }
  return -1;
}

}  // namespace

TEST_CASE_TEMPLATE("a UNIX datagram is received into a buffer, and reports what did not fit", Face,
                   by_callback, by_coroutine) {
  sockets s;
  std::array<char, 4> room{};
  CHECK(Face::get(s.client.send_to("four", s.path())).has_value());
  CHECK(Face::get(s.client.send_to("fives", s.path())).has_value());
  CHECK(Face::get(s.connected.send("")).has_value());
  result<unix_received> r = Face::get(s.server.receive(room));
  CHECK((r && r->size == 4 && !r->truncated && r->sender == s.dir.path("client")));
  CHECK(std::string_view(room.data(), 4) == "four");
  r = Face::get(s.server.receive(room));
  CHECK((r && r->size == 4 && r->truncated));
  CHECK(std::string_view(room.data(), 4) == "five");
  r = Face::get(s.server.receive(room));
  CHECK((r && r->size == 0 && !r->truncated && r->sender == s.dir.path("connected")));

  CHECK(Face::get(s.server.send_to("back again", s.dir.path("connected"))).has_value());
  result<received> c = Face::get(s.connected.receive(room));
  CHECK((c && c->size == 4 && c->truncated));
  CHECK(Face::get(s.server.receive(mutable_buffer())).error() == errc::invalid_argument);
  CHECK(Face::get(s.connected.receive(mutable_buffer())).error() == errc::invalid_argument);
  s.server.close();
  CHECK(Face::get(s.server.receive(room)).error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("descriptors arrive with their datagram, owned and close-on-exec", Face, by_callback,
                   by_coroutine) {
  sockets s;
  const std::size_t before = open_count();
  for (const bool by_path : {true, false}) {
    CHECK((by_path ? Face::get(s.client.send_fds("two", s.fds, s.path()))
                   : Face::get(s.connected.send_fds("two", s.fds)))
              .has_value());
    const result<unix_fd_packet> r = Face::get(s.server.receive_fds(100, 5));
    CHECK(r.has_value());
    if (!r) continue;
    CHECK(r->data == "two");
    CHECK(r->sender == s.dir.path(by_path ? "client" : "connected"));
    CHECK(r->fds.size() == 2);
    for (const unique_fd& fd : r->fds) {
      CHECK(support::is_close_on_exec(fd.get()));
      CHECK(file_of(fd.get()) == file_of(s.file.get()));
    }
    CHECK(open_count() == before + 2);
  }
  CHECK(Face::get(s.server.send_fds("back", s.fds, s.dir.path("connected"))).has_value());
  const result<unix_fd_packet> back = Face::get(s.connected.receive_fds(100, 2));
  CHECK((back && back->data == "back" && back->sender == s.path() && back->fds.size() == 2));
}

TEST_CASE_TEMPLATE("datagrams keep their boundaries and descriptors, empty ones and large ones too", Face,
                   by_callback, by_coroutine) {
  sockets s;
  const std::string large(150000, 'L');
  CHECK(Face::get(s.connected.send("plain")).has_value());
  CHECK(Face::get(s.connected.send_fds("", s.fds)).has_value());
  CHECK(Face::get(s.connected.send_fds(large, std::span<const int>(s.fds).first(1))).has_value());
  CHECK(Face::get(s.connected.send("last")).has_value());
  std::vector<std::pair<std::size_t, std::size_t>> got;
  for (int i = 0; i < 4; ++i) {
    const result<unix_fd_packet> r = Face::get(s.server.receive_fds(200000, 253));
    CHECK(r.has_value());
    if (r) got.emplace_back(r->data.size(), r->fds.size());
    if (r && r->data.size() == large.size()) CHECK(r->data == large);
  }
  CHECK(got == std::vector<std::pair<std::size_t, std::size_t>>{{5, 0}, {0, 2}, {150000, 1}, {4, 0}});
}

TEST_CASE_TEMPLATE("253 descriptors are sent at once; 254 or none are rejected", Face, by_callback,
                   by_coroutine) {
  sockets s;
  const std::vector<int> many(254, s.file.get());
  const std::span<const int> all(many);
  CHECK(Face::get(s.client.send_fds("x", all, s.path())).error() == errc::invalid_argument);
  CHECK(Face::get(s.client.send_fds("x", {}, s.path())).error() == errc::invalid_argument);
  CHECK(Face::get(s.connected.send_fds("x", {})).error() == errc::invalid_argument);
  CHECK(Face::get(s.server.receive_fds(10, 0)).error() == errc::invalid_argument);
  CHECK(Face::get(s.client.send_fds("x", all.first(253), s.path())).has_value());
  const result<unix_fd_packet> r = Face::get(s.server.receive_fds(10, 253));
  CHECK((r && r->fds.size() == 253));
}

TEST_CASE_TEMPLATE("too many descriptors, or too many bytes, are an error, and no descriptor stays open",
                   Face, by_callback, by_coroutine) {
  sockets s;
  const std::size_t before = open_count();
  CHECK(Face::get(s.connected.send_fds("two", s.fds)).has_value());
  CHECK(Face::get(s.server.receive_fds(10, 1)).error() == errc::fds_truncated);
  CHECK(open_count() == before);
  CHECK(Face::get(s.connected.send_fds("long", s.fds)).has_value());
  const error e = Face::get(s.server.receive_fds(3, 2)).error();
  CHECK(e == errc::os_error);
  CHECK(e.os_error() == EMSGSIZE);
  CHECK(e.operation() == "receive_fds");
  CHECK(open_count() == before);
  // Without room for bytes, they are dropped.
  CHECK(Face::get(s.connected.send_fds("dropped", s.fds)).has_value());
  {
    const result<unix_fd_packet> r = Face::get(s.server.receive_fds(0, 2));
    CHECK((r && r->data.empty() && r->fds.size() == 2));
  }
  // A plain receive closes them.
  CHECK(Face::get(s.connected.send_fds("plain", s.fds)).has_value());
  const result<unix_packet> p = Face::get(s.server.receive());
  CHECK((p && p->data == "plain"));
  CHECK(Face::get(s.connected.send_fds("plain", s.fds)).has_value());
  std::array<char, 10> room{};
  CHECK(Face::get(s.server.receive(room)).has_value());
  CHECK(open_count() == before);
  CHECK(Face::get(s.connected.send("usable")).has_value());
  CHECK(Face::get(s.server.receive()).has_value());
}

TEST_CASE("descriptors of a datagram beyond the process limit are fds_truncated, and none stays open") {
  sockets s;
  const std::vector<int> many(20, s.file.get());
  CHECK(by_callback::get(s.connected.send_fds("many", many)).has_value());
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t before = open_count();
  rlimit less = limit;
  less.rlim_cur = before + 5;
  CHECK(::setrlimit(RLIMIT_NOFILE, &less) == 0);
  const error e = by_callback::get(s.server.receive_fds(100, 20)).error();
  ::setrlimit(RLIMIT_NOFILE, &limit);
  CHECK(e == errc::fds_truncated);
  CHECK(open_count() == before);
}

TEST_CASE_TEMPLATE("descriptors are not lost or leaked by a receive that is cancelled or destroyed", Face,
                   by_callback, by_coroutine) {
  sockets s;
  const std::size_t before = open_count();
  {
    waiting<unix_fd_packet> w;
    Face::start(s.server.receive_fds(10, 2), w);
    support::settle();
    CHECK(Face::get(s.server.receive_fds(10, 2)).error() == errc::busy_resource);
    s.server.cancel();
    CHECK(w.get().error() == errc::cancelled);
  }
  {
    auto op = s.server.receive_fds(10, 2);
    op.start([](const result<unix_fd_packet>&) { CHECK(false); });
    support::settle();
    s.connected.send_fds("x", s.fds).start([](const result<>& r) { CHECK(r.has_value()); });  // goes at once
    op = {};
    support::settle();
  }
  CHECK(open_count() == before);
  {
    const result<unix_fd_packet> r = Face::get(s.server.receive_fds(10, 2));
    CHECK((r && r->fds.size() == 2));
  }
  s.server.receive_fds(10, 2).start([](const result<unix_fd_packet>& r) { CHECK(r.has_value()); });
  CHECK(Face::get(s.connected.send_fds("ignored", s.fds)).has_value());
  support::settle();
  CHECK(open_count() == before);
  // Never received.
  CHECK(Face::get(s.connected.send_fds("x", s.fds)).has_value());
  waiting<unix_fd_packet> pending;
  Face::start(s.client.receive_fds(10, 1), pending);
  support::settle();
  s.client.close();
  s.server.close();
  CHECK(pending.get().error() == errc::closed_resource);
  CHECK(open_count() == before - 2);
  CHECK(Face::get(s.server.receive_fds(10, 1)).error() == errc::closed_resource);
}

TEST_CASE_TEMPLATE("a send of descriptors waits for a full queue, and can be cancelled and repeated", Face,
                   by_callback, by_coroutine) {
  sockets s;
  waiting<void> blocked;
  int sent = 0;
  bool by_path = true;
  SUBCASE("by path") {
    sent = fill_queue<Face>([&] { return s.client.send_fds("x", s.fds, s.path()); }, blocked);
    s.client.cancel();
  }
  SUBCASE("connected") {
    by_path = false;
    sent = fill_queue<Face>([&] { return s.connected.send_fds("x", s.fds); }, blocked);
    s.connected.cancel();
  }
  CHECK(sent > 0);
  CHECK(blocked.get().error() == errc::cancelled);
  auto again = by_path ? s.client.send_fds("y", s.fds, s.path()) : s.connected.send_fds("y", s.fds);
  Face::start(std::move(again), blocked);
  support::settle();
  CHECK(!blocked.done());
  for (int i = 0; i < sent; ++i) {
    const result<unix_fd_packet> r = Face::get(s.server.receive_fds(10, 2));
    CHECK((r && r->data == "x" && r->fds.size() == 2));
  }
  CHECK(blocked.get().has_value());
  const result<unix_fd_packet> last = Face::get(s.server.receive_fds(10, 2));
  CHECK((last && last->data == "y" && last->fds.size() == 2));
}

TEST_CASE_TEMPLATE("a descriptor or a path that is not there is an error, and the socket stays usable", Face,
                   by_callback, by_coroutine) {
  sockets s;
  const int bad[] = {1000};
  error e = Face::get(s.connected.send_fds("x", bad)).error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::bad_file_descriptor);
  CHECK(e.operation() == "send_fds");
  e = Face::get(s.client.send_fds("x", s.fds, s.dir.path("nothing"))).error();
  CHECK(e == std::errc::no_such_file_or_directory);
  e = Face::get(s.client.send_fds("x", s.fds, std::string(200, 'p'))).error();
  CHECK(e == std::errc::filename_too_long);
  e = Face::get(s.connected.send_fds(std::string(10'000'000, 'x'), s.fds)).error();
  CHECK(e.os_error() == EMSGSIZE);
  CHECK(Face::get(s.connected.send_fds("x", s.fds)).has_value());
  s.server.close();
  e = Face::get(s.connected.send_fds("x", s.fds)).error();
  CHECK(e == errc::broken_resource);
  CHECK(e.os_error() == ECONNREFUSED);
}

TEST_CASE("a socket that is passed in a datagram works at the receiver") {
  sockets s;
  auto pair = create_unix_stream_pair().value();
  {
    const unique_fd end(pair.second.release());
    const int fds[] = {end.get()};
    CHECK(by_callback::get(s.client.send_fds("socket", fds, s.path())).has_value());
  }
  unix_fd_packet p = by_callback::get(s.server.receive_fds(100, 1)).value();
  unix_stream passed = unix_stream::from_fd(p.fds.front().get()).value();
  static_cast<void>(p.fds.front().release());
  CHECK(by_callback::get(pair.first.send("through")).has_value());
  CHECK(by_callback::get(passed.receive()).value_or("") == "through");
}

TEST_CASE("operations of descriptors over datagrams that were only declared are invalid_argument") {
  loop l;
  std::vector<errc> seen;
  send_fd_packet_operation sending;
  receive_fd_packet_operation receiving;
  receive_unix_into_operation into;
  sending.start([&seen](const auto& r) { seen.push_back(r.error().code()); });
  receiving.start([&seen](const auto& r) { seen.push_back(r.error().code()); });
  into.start([&seen](const auto& r) { seen.push_back(r.error().code()); });
  l.run();
  CHECK(seen == std::vector{errc::invalid_argument, errc::invalid_argument, errc::invalid_argument});
}
