// Descriptors over UNIX streams.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/faces.hpp"
#include "support/passed_files.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::fd_message;
using anyio::result;
using anyio::unique_fd;
using support::by_callback;
using support::by_coroutine;
using support::file_of;
using support::make_file;
using support::open_count;
using support::waiting;

using pair = std::pair<anyio::unix_stream, anyio::unix_stream>;

pair connected() { return anyio::create_unix_stream_pair().value(); }

TEST_CASE_TEMPLATE("descriptors arrive with their bytes, owned and close-on-exec", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  pair p = connected();
  std::vector<unique_fd> files;
  std::vector<int> numbers;
  for (int i = 0; i < 3; ++i) {
    files.push_back(make_file());
    numbers.push_back(files.back().get());
  }
  CHECK(Face::get(p.first.send_fds("three", numbers)).has_value());
  const std::size_t before = open_count();
  {
    const fd_message m = Face::get(p.second.receive_fds(100, 10)).value();
    CHECK(m.data == "three");
    CHECK(m.fds.size() == 3);
    CHECK(open_count() == before + 3);
    for (std::size_t i = 0; i < m.fds.size(); ++i) {
      CHECK(support::is_close_on_exec(m.fds[i].get()));
      CHECK(file_of(m.fds[i].get()) == file_of(numbers[i]));
    }
  }
  CHECK(open_count() == before);
  for (int fd : numbers) CHECK(support::is_open(fd));
}

TEST_CASE("plain bytes arrive without descriptors, and the end is end_of_stream") {
  anyio::loop loop;
  pair p = connected();
  CHECK(by_callback::get(p.first.send("plain")).has_value());
  const fd_message m = by_callback::get(p.second.receive_fds(100, 1)).value();
  CHECK(m.data == "plain");
  CHECK(m.fds.empty());
  p.first.close();
  for (int i = 0; i < 2; ++i) {
    CHECK(by_callback::get(p.second.receive_fds(100, 1)).error() == errc::end_of_stream);
    CHECK(by_callback::get(p.second.receive_fds(0, 1)).error() == errc::end_of_stream);
  }
  CHECK(by_callback::get(p.second.receive()).error() == errc::end_of_stream);
}

TEST_CASE_TEMPLATE("with an empty buffer the descriptors arrive and the bytes stay", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  pair p = connected();
  const unique_fd file = make_file();
  const int fds[] = {file.get()};
  waiting<fd_message> w;
  Face::start(p.second.receive_fds(0, 1), w);
  support::settle();
  CHECK(!w.done());
  CHECK(Face::get(p.first.send_fds("stay", fds)).has_value());
  const fd_message m = w.get().value();
  CHECK(m.data.empty());
  CHECK(m.fds.size() == 1);
  const fd_message nothing =
      Face::get(p.second.receive_fds(0, 1)).value();  // bytes are there, and no descriptor
  CHECK(nothing.data.empty());
  CHECK(nothing.fds.empty());
  CHECK(Face::get(p.second.receive()).value_or("") == "stay");
  waiting<fd_message> idle;
  Face::start(p.second.receive_fds(0, 1), idle);
  support::settle();
  CHECK(!idle.done());
  p.second.close();
  CHECK(idle.get().error() == errc::closed_resource);
}

TEST_CASE("253 descriptors are sent at once; 254, none, or an empty message are rejected") {
  anyio::loop loop;
  pair p = connected();
  const unique_fd file = make_file();
  const std::vector<int> many(254, file.get());
  const std::span<const int> all(many);
  CHECK(by_callback::get(p.first.send_fds("x", all)).error() == errc::invalid_argument);
  CHECK(by_callback::get(p.first.send_fds("x", {})).error() == errc::invalid_argument);
  CHECK(by_callback::get(p.first.send_fds("", all.first(1))).error() == errc::invalid_argument);
  CHECK(by_callback::get(p.first.send_fds("x", all.first(253))).has_value());
  const fd_message m = by_callback::get(p.second.receive_fds(10, 253)).value();
  CHECK(m.fds.size() == 253);
  for (const unique_fd& fd : m.fds) CHECK(support::is_close_on_exec(fd.get()));
  CHECK(by_callback::get(p.second.receive_fds(10, 0)).error() == errc::invalid_argument);
}

TEST_CASE("a pending operation makes a second busy, closing ends both, and errors have a fixed order") {
  anyio::loop loop;
  pair p = connected();
  const int fds[] = {p.first.native_handle()};
  waiting<fd_message> receiving;
  waiting<void> sending;
  support::fill(p.first);
  by_callback::start(p.first.receive_fds(10, 1), receiving);
  by_coroutine::start(p.first.send_fds("x", fds), sending);
  support::settle();
  CHECK(!receiving.done());
  CHECK(!sending.done());
  CHECK(by_callback::get(p.first.receive_fds(10, 0)).error() == errc::invalid_argument);
  CHECK(by_callback::get(p.first.receive_fds(10, 1)).error() == errc::busy_resource);
  CHECK(by_callback::get(p.first.receive()).error() == errc::busy_resource);
  CHECK(by_callback::get(p.first.send_fds("x", fds)).error() == errc::busy_resource);
  CHECK(by_callback::get(p.first.send("x")).error() == errc::busy_resource);
  p.first.close();
  CHECK(receiving.get().error() == errc::closed_resource);
  CHECK(sending.get().error() == errc::closed_resource);
  CHECK(by_callback::get(p.first.receive_fds(10, 1)).error() == errc::closed_resource);
  CHECK(by_callback::get(p.first.send_fds("x", fds)).error() == errc::closed_resource);
  CHECK(by_callback::get(p.first.send_fds("", fds)).error() == errc::invalid_argument);
}

TEST_CASE("cancel ends both with cancelled, and they can be started again") {
  anyio::loop loop;
  pair p = connected();
  const unique_fd file = make_file();
  const int fds[] = {file.get()};
  const std::size_t on_the_way = support::fill(p.first);
  waiting<fd_message> receiving;
  waiting<void> sending;
  by_callback::start(p.first.receive_fds(10, 1), receiving);
  by_callback::start(p.first.send_fds("x", fds), sending);
  support::settle();
  p.first.cancel();
  CHECK(receiving.get().error() == errc::cancelled);
  CHECK(sending.get().error() == errc::cancelled);
  std::size_t got = 0;
  while (got < on_the_way) got += by_callback::get(p.second.receive(1 << 20)).value_or("").size();
  CHECK(by_callback::get(p.first.send_fds("x", fds)).has_value());
  CHECK(by_callback::get(p.second.receive_fds(10, 1)).value().fds.size() == 1);
}

TEST_CASE("descriptors are not sent after send_eof or after the peer closed") {
  anyio::loop loop;
  pair p = connected();
  const unique_fd file = make_file();
  const int fds[] = {file.get()};
  CHECK(by_callback::get(p.first.send_eof()).has_value());
  CHECK(by_callback::get(p.first.send_fds("x", fds)).error() == errc::closed_resource);
  p.first.close();
  const anyio::error e = by_callback::get(p.second.send_fds("x", fds)).error();
  CHECK(e == errc::broken_resource);
  CHECK(e == std::errc::broken_pipe);
}

TEST_CASE("a bad descriptor is rejected, and the stream stays usable") {
  anyio::loop loop;
  pair p = connected();
  const int bad[] = {1000};
  const anyio::error e = by_callback::get(p.first.send_fds("x", bad)).error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::bad_file_descriptor);
  CHECK(by_callback::get(p.first.send("goes on")).has_value());
  CHECK(by_callback::get(p.second.receive()).value_or("") == "goes on");
}

TEST_CASE_TEMPLATE("more descriptors than requested are fds_truncated, and none stays open", Face,
                   by_callback, by_coroutine) {
  anyio::loop loop;
  pair p = connected();
  const unique_fd file = make_file();
  const std::vector<int> five(5, file.get());
  CHECK(Face::get(p.first.send_fds("five", five)).has_value());
  CHECK(Face::get(p.first.send("next")).has_value());
  const std::size_t before = open_count();
  CHECK(Face::get(p.second.receive_fds(4, 4)).error() == errc::fds_truncated);
  CHECK(open_count() == before);
  CHECK(Face::get(p.second.receive()).value_or("") == "next");
}

TEST_CASE("descriptors beyond the process limit are fds_truncated, and none stays open") {
  anyio::loop loop;
  pair p = connected();
  const unique_fd file = make_file();
  const std::vector<int> many(20, file.get());
  CHECK(by_callback::get(p.first.send_fds("many", many)).has_value());
  support::settle();
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t before = open_count();
  rlimit less = limit;
  less.rlim_cur = before + 5;
  CHECK(::setrlimit(RLIMIT_NOFILE, &less) == 0);
  const anyio::error e = by_callback::get(p.second.receive_fds(100, 20)).error();
  ::setrlimit(RLIMIT_NOFILE, &limit);
  CHECK(e == errc::fds_truncated);
  CHECK(open_count() == before);
  CHECK(by_callback::get(p.first.send("next")).has_value());
  CHECK(by_callback::get(p.second.receive()).value_or("") == "next");
}

#if defined(__linux__)
/// Control messages that a scripted kernel adds to received ones.
class adding_backend final : public support::scripted_backend {
 public:
  std::string before, behind;  // what really arrived
  std::size_t room = 0;        // the offered room
  ssize_t receive_message(int fd, anyio::detail::message& m) override {
    room = m.control_size;
    const ssize_t n = scripted_backend::receive_message(fd, m);
    if (n < 0 || m.control == nullptr) return n;
    std::string all = before + std::string(static_cast<const char*>(m.control), m.control_size) + behind;
    if (all.size() > room) {
      all.resize(room);
      m.flags |= MSG_CTRUNC;
    }
    std::memcpy(m.control, all.data(), all.size());
    m.control_size = all.size();
    return n;
  }
};

std::string control_message(int type, std::string_view data) {
  std::string text(CMSG_SPACE(data.size()), '\0');
  cmsghdr header{};
  header.cmsg_len = CMSG_LEN(data.size());
  header.cmsg_level = SOL_SOCKET;
  header.cmsg_type = type;
  std::memcpy(text.data(), &header, sizeof header);
  std::memcpy(text.data() + CMSG_LEN(0), data.data(), data.size());
  return text;
}
std::string of_number(int n) { return std::string(reinterpret_cast<const char*>(&n), sizeof n); }

constexpr int pidfd_message = 4;  // SCM_PIDFD
constexpr int pass_pidfd = 76;    // SO_PASSPIDFD

TEST_CASE_TEMPLATE("other control messages are ignored, and descriptors in them closed", Face, by_callback,
                   by_coroutine) {
  auto made = std::make_unique<adding_backend>();
  adding_backend& system = *made;
  const anyio::loop loop(std::move(made));
  pair p = connected();
  const std::size_t before = open_count();
  const unique_fd file = make_file();
  const int fds[] = {file.get(), file.get()};
  // A label of maximum length, credentials, and a pidfd on either side.
  const std::string label = control_message(3, std::string(4095, 'l'));
  const std::string credentials = control_message(SCM_CREDENTIALS, std::string(12, 'c'));
  for (const bool with_descriptors : {true, false}) {
    for (const int in_front : {1, 0}) {
      const int pidfd = ::dup(file.get());
      const std::string process = control_message(pidfd_message, of_number(pidfd));
      system.before = credentials + label + (in_front != 0 ? process : std::string());
      system.behind = in_front == 0 ? process : std::string();
      CHECK((with_descriptors ? Face::get(p.first.send_fds("x", fds)) : Face::get(p.first.send("x")))
                .has_value());
      auto r = Face::get(p.second.receive_fds(10, 2));
      CHECK(r.has_value());
      CHECK(r.value().data == "x");
      CHECK(r.value().fds.size() == (with_descriptors ? 2 : 0));
      for (const unique_fd& fd : r.value().fds) CHECK(file_of(fd.get()) == file_of(file.get()));
      CHECK(!support::is_open(pidfd));
    }
  }
  // The largest control data possible.
  system.before = credentials + label;
  system.behind = control_message(pidfd_message, of_number(::dup(file.get())));
  const std::vector<int> most(253, file.get());
  CHECK(Face::get(p.first.send_fds("x", most)).has_value());
  {
    auto r = Face::get(p.second.receive_fds(10, 253));
    CHECK(r.has_value());
    CHECK(r.value().fds.size() == 253);
  }
  // Not a descriptor but an errno, since none was free.
  system.before.clear();
  system.behind = control_message(pidfd_message, of_number(-EMFILE));
  CHECK(Face::get(p.first.send("x")).has_value());
  CHECK(Face::get(p.second.receive_fds(10, 2)).has_value());
  // More than requested.
  system.behind = control_message(pidfd_message, of_number(::dup(file.get())));
  CHECK(Face::get(p.first.send_fds("x", fds)).has_value());
  CHECK(Face::get(p.second.receive_fds(10, 1)).error() == errc::fds_truncated);
  CHECK(open_count() == before + 1);
}

TEST_CASE_TEMPLATE("pidfds that the kernel adds do not stay open", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  const auto passes_pidfd = [](int fd) {
    const int on = 1;
    return ::setsockopt(fd, SOL_SOCKET, pass_pidfd, &on, sizeof on) == 0;
  };
  const support::temp_dir dir;
  auto listener = by_coroutine::get(anyio::create_unix_listener(dir.path() + "/s")).value();
  if (!passes_pidfd(listener.native_handle())) {
    MESSAGE("this kernel has no SO_PASSPIDFD");
    return;
  }
  const auto exchange = [](anyio::unix_stream& from, anyio::unix_stream& to) {
    const unique_fd file = make_file();
    const int fds[] = {file.get()};
    const std::size_t before = open_count();
    for (int i = 0; i < 5; ++i) {
      CHECK(Face::get(from.send("plain")).has_value());
      CHECK(Face::get(to.receive_fds(10, 1)).value().data == "plain");
      CHECK(Face::get(from.send("look")).has_value());
      CHECK(Face::get(to.receive_fds(0, 1)).has_value());
      CHECK(Face::get(to.receive()).value_or("") == "look");
      CHECK(Face::get(from.send_fds("with", fds)).has_value());
      auto r = Face::get(to.receive_fds(10, 1));
      CHECK(r.value().data == "with");
      CHECK(r.value().fds.size() == 1);
      r = errc::cancelled;
      CHECK(Face::get(from.send_fds("closed", fds)).has_value());
      CHECK(Face::get(to.receive()).value_or("") == "closed");
    }
    CHECK(open_count() == before);
  };
  waiting<anyio::unix_stream> connecting;
  by_callback::start(anyio::connect_unix(dir.path() + "/s"), connecting);
  auto accepted = Face::get(listener.accept()).value();
  auto client = connecting.get().value();
  exchange(client, accepted);
  exchange(accepted, client);
  pair p = connected();
  CHECK(passes_pidfd(p.second.native_handle()));
  const int on = 1;
  CHECK(::setsockopt(p.second.native_handle(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
  exchange(p.first, p.second);

  const std::string path = dir.path() + "/d";
  auto server = Face::get(anyio::create_unix_datagram_socket({.local_path = path})).value();
  CHECK(passes_pidfd(server.native_handle()));
  auto sender = Face::get(anyio::create_connected_unix_datagram_socket(path)).value();
  const std::size_t before = open_count();
  for (int i = 0; i < 5; ++i) {
    CHECK(Face::get(sender.send("one")).has_value());
    CHECK(Face::get(server.receive()).value().data == "one");
  }
  CHECK(open_count() == before);
}
#endif

TEST_CASE_TEMPLATE("an errno about the descriptors does not break the stream, any other does", Face,
                   by_callback, by_coroutine) {
  class failing final : public support::scripted_backend {
   public:
    int error_number = 0;
    ssize_t send_message(int fd, const anyio::detail::message& m) override {
      return error_number != 0 ? -error_number : scripted_backend::send_message(fd, m);
    }
  };
  auto made = std::make_unique<failing>();
  failing& system = *made;
  const anyio::loop loop(std::move(made));
  const int fds[] = {0};
  for (const int e : {EBADF, EINVAL, ETOOMANYREFS, EMSGSIZE, EPERM}) {
    CAPTURE(e);
    pair p = connected();
    system.error_number = e;
    const anyio::error failed = Face::get(p.first.send_fds("x", fds)).error();
    system.error_number = 0;
    CHECK(failed == errc::os_error);
    CHECK(failed.os_error() == e);
    CHECK(Face::get(p.first.send_fds("x", fds)).has_value());
    CHECK(Face::get(p.second.receive_fds(1, 1)).has_value());
  }
  for (const int e : {ECONNABORTED, ETIMEDOUT, ENETDOWN, ECONNRESET}) {
    CAPTURE(e);
    pair p = connected();
    system.error_number = e;
    const anyio::error failed = Face::get(p.first.send_fds("x", fds)).error();
    system.error_number = 0;
    CHECK(failed == errc::broken_resource);
    CHECK(failed.os_error() == e);
    p.second.close();
    CHECK(Face::get(p.first.receive()).error() == failed.code());
  }
}

TEST_CASE_TEMPLATE("a plain receive closes descriptors that arrive with the bytes, and continues after them",
                   Face, by_callback, by_coroutine) {
  anyio::loop loop;
  pair p = connected();
  int pipe_fds[2];
  CHECK(::pipe(pipe_fds) == 0);
  const int fds[] = {pipe_fds[1]};
  const std::size_t before = open_count();
  CHECK(Face::get(p.first.send_fds("with", fds)).has_value());
  CHECK(Face::get(p.first.send("behind")).has_value());
  ::close(pipe_fds[1]);
  std::string got;
  // No event arrives between the two.
  while (got.size() < 10) {
    const std::string more = Face::get(p.second.receive()).value_or("");
    CHECK(!more.empty());
    if (more.empty()) break;
    got += more;
  }
  CHECK(got == "withbehind");
  CHECK(open_count() == before - 1);
  char c;
  CHECK(::read(pipe_fds[0], &c, 1) == 0);  // the last writer has closed
  ::close(pipe_fds[0]);
}

TEST_CASE("chunks before, with and after descriptors are read in order without a further event") {
  anyio::loop loop;
  pair p = connected();
  const unique_fd file = make_file();
  const int fds[] = {file.get()};
  waiting<fd_message> w;
  by_callback::start(p.second.receive_fds(100, 4), w);
  support::settle();
  const auto raw_send = [&](const char* text) {
    CHECK(::send(p.first.native_handle(), text, std::strlen(text), 0) > 0);
  };
  const auto send_with_fd = [&](const char* text) {
    ::iovec part{const_cast<char*>(text), std::strlen(text)};
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr m{};
    m.msg_iov = &part;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(c), fds, sizeof(int));
    CHECK(::sendmsg(p.first.native_handle(), &m, 0) > 0);
  };
  raw_send("AA");
  send_with_fd("BB");
  raw_send("CC");
  send_with_fd("DD");
  raw_send("EE");
  std::string got;
  std::size_t files = 0;
  fd_message m = w.get().value_or(fd_message());
  for (int i = 0; i < 10; ++i) {
    got += m.data;
    files += m.fds.size();
    if (got.size() >= 10) break;
    m = by_callback::get(p.second.receive_fds(100, 4)).value_or(fd_message());
  }
  CHECK(got == "AABBCCDDEE");
  CHECK(files == 2);
}

TEST_CASE("out-of-band data on a UNIX stream does not block later bytes") {
  anyio::loop loop;
  pair p = connected();
  const int sender = p.first.native_handle();
  if (::send(sender, "ab", 2, 0) != 2 || ::send(sender, "!", 1, MSG_OOB) != 1) {
    MESSAGE("this kernel has no out-of-band data on UNIX streams");
    return;
  }
  CHECK(::send(sender, "cd", 2, 0) == 2);
  std::string got;
  while (got.size() < 4) {
    const fd_message m = by_callback::get(p.second.receive_fds(100, 1)).value_or(fd_message());
    CHECK(!m.data.empty());
    if (m.data.empty()) break;
    got += m.data;
  }
  CHECK(got == "abcd");
}

TEST_CASE_TEMPLATE("a long message arrives whole, and its descriptors once", Face, by_callback,
                   by_coroutine) {
  support::scripted_loop s;
  pair p = connected();
  const unique_fd file = make_file();
  const int fds[] = {file.get(), file.get()};
  std::string text(4 << 20, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 31 >> 3);
  waiting<void> sending;
  Face::start(p.first.send_fds(text, fds), sending);
  std::string got;
  std::size_t files = 0;
  while (got.size() < text.size()) {
    const fd_message m = Face::get(p.second.receive_fds(1 << 20, 10)).value();
    got += m.data;
    files += m.fds.size();
  }
  CHECK(sending.get().has_value());
  CHECK(got == text);
  CHECK(files == 2);

  s.system.send_limit = 1;  // the first chunk too
  Face::start(p.first.send_fds("bit by bit", fds), sending);
  got.clear();
  while (got.size() < 10) {
    const fd_message m = Face::get(p.second.receive_fds(100, 10)).value();
    got += m.data;
    files += m.fds.size();
  }
  CHECK(sending.get().has_value());
  CHECK(got == "bit by bit");
  CHECK(files == 4);
}

TEST_CASE("destroying a receive_fds, before or after descriptors arrived, loses and leaks none") {
  anyio::loop loop;
  pair p = connected();
  const unique_fd file = make_file();
  const int fds[] = {file.get()};
  const std::size_t before = open_count();
  {
    auto op = p.second.receive_fds(10, 1);
    op.start([](result<fd_message>) { CHECK(false); });
    support::settle();
    CHECK(by_callback::get(p.first.send("")).has_value());
    auto sending = p.first.send_fds("x", fds);
    sending.start([](result<>) {});
    loop.post([&] { op = {}; });
    support::settle();
  }
  CHECK(open_count() == before);
  CHECK(by_callback::get(p.second.receive_fds(10, 1)).value().fds.size() == 1);
  CHECK(open_count() == before);
  // Never read.
  CHECK(by_callback::get(p.first.send_fds("x", fds)).has_value());
  p.second.close();
  CHECK(open_count() == before - 1);
}

TEST_CASE("an ignored result closes its descriptors") {
  anyio::loop loop;
  pair p = connected();
  const unique_fd file = make_file();
  const int fds[] = {file.get()};
  CHECK(by_callback::get(p.first.send_fds("x", fds)).has_value());
  const std::size_t before = open_count();
  p.second.receive_fds(10, 1).start([](const result<fd_message>& m) { CHECK(m.has_value()); });
  loop.run();
  CHECK(open_count() == before);
}

TEST_CASE("a socket passed in a message works at the receiver") {
  anyio::loop loop;
  pair p = connected();
  pair q = connected();
  {
    const unique_fd end(q.second.release());
    const int fds[] = {end.get()};
    CHECK(by_callback::get(p.first.send_fds("socket", fds)).has_value());
  }
  fd_message m = by_callback::get(p.second.receive_fds(100, 1)).value();
  anyio::unix_stream s = anyio::unix_stream::from_fd(m.fds.front().get()).value();
  static_cast<void>(m.fds.front().release());
  CHECK(by_callback::get(q.first.send("through")).has_value());
  CHECK(by_callback::get(s.receive()).value_or("") == "through");
}

}  // namespace
