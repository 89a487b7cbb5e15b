// Features of UNIX sockets: names, backlogs, credentials.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using anyio::errc;
using anyio::result;
using anyio::task;
using support::by_callback;
using support::by_coroutine;
using support::waiting;

mode_t mode_of(const std::string& path) {
  struct stat s {};
  return ::lstat(path.c_str(), &s) == 0 ? s.st_mode & 07777 : 0;
}
bool exists(const std::string& path) {
  struct stat s {};
  return ::lstat(path.c_str(), &s) == 0;
}
ino_t inode_of(const std::string& path) {
  struct stat s {};
  return ::lstat(path.c_str(), &s) == 0 ? s.st_ino : 0;
}

anyio::unix_listener listen(std::string_view path, anyio::unix_listener_options options = {}) {
  return by_coroutine::get(anyio::create_unix_listener(path, options)).value();
}
anyio::error refusal(std::string_view path, anyio::unix_listener_options options = {}) {
  return by_callback::get(anyio::create_unix_listener(path, options)).error();
}

TEST_CASE_TEMPLATE("a client and a server exchange bytes over a path, and know each other's names", Face,
                   by_callback, by_coroutine) {
  anyio::loop loop;
  const support::temp_dir dir;
  const std::string path = dir.path("s");
  anyio::unix_listener l = listen(path);
  CHECK(l.local_path() == path);
  CHECK(support::is_close_on_exec(l.native_handle()));
  anyio::unix_stream client = Face::get(anyio::connect_unix(path)).value();
  anyio::unix_stream server = Face::get(l.accept()).value();
  CHECK(client.remote_path() == path);
  CHECK(client.local_path().empty());
  CHECK(server.local_path() == path);
  CHECK(server.remote_path().empty());
  CHECK(support::is_close_on_exec(server.native_handle()));
  CHECK(support::is_non_blocking(server.native_handle()));
  CHECK(Face::get(client.send("hello")).has_value());
  CHECK(Face::get(server.receive()).value_or("") == "hello");
  const anyio::peer_credentials who = server.credentials().value();
  CHECK(who.pid == ::getpid());
  CHECK(who.uid == ::getuid());
  CHECK(who.gid == ::getgid());
  client.close();
  CHECK(client.remote_path() == path);
  CHECK(client.credentials().error() == errc::closed_resource);
  l.close();
  CHECK(l.local_path() == path);
  CHECK(l.native_handle() == -1);
  CHECK(exists(path));  // it is left behind
}

TEST_CASE("a client bound to a name is known by it") {
  anyio::loop loop;
  const support::temp_dir dir;
  anyio::unix_listener l = listen(dir.path("s"));
  const int fd = support::raw_unix_socket(dir.path("client"));
  sockaddr_un address;
  const socklen_t size = support::unix_name(dir.path("s"), address);
  CHECK(::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0);
  anyio::unix_stream client = anyio::unix_stream::from_fd(fd).value();
  anyio::unix_stream server = by_callback::get(l.accept()).value();
  CHECK(server.remote_path() == dir.path("client"));
  CHECK(client.local_path() == dir.path("client"));
  CHECK(client.remote_path() == dir.path("s"));
}

TEST_CASE("names of any bytes, of maximum length, and abstract ones with NULs are reported unchanged") {
  anyio::loop loop;
  const support::temp_dir dir;
  const std::string pid = std::to_string(::getpid());
  const std::vector<std::string> names = {
      dir.path("\xff\xfe \x01\n"),
      dir.path(std::string(107 - dir.path("").size(), 'n')),
      dir.path(std::string(108 - dir.path("").size(), 'n')),
      "\0anyio."s + pid,
      "\0anyio\0\0nul."s + pid + "\0"s,
      "\0"s + std::string(107 - pid.size(), 'a') + pid,
  };
  for (const std::string& name : names) {
    CAPTURE(name.size());
    result<anyio::unix_listener> l = by_callback::get(anyio::create_unix_listener(name));
    if (name.size() > 107 && name[0] != '\0' && !l.has_value()) {
      CHECK(l.error() == std::errc::filename_too_long);
      continue;
    }
    CHECK(l.has_value());
    if (!l.has_value()) continue;
    CHECK(l->local_path() == name);
    result<anyio::unix_stream> client = by_callback::get(anyio::connect_unix(name));
    CHECK(client.has_value());
    if (!client.has_value()) continue;
    CHECK(client->remote_path() == name);
    anyio::unix_stream server = by_callback::get(l->accept()).value();
    CHECK(server.local_path() == name);
    // As the kernel reports it.
    anyio::unix_stream again = anyio::unix_stream::from_fd(client->release()).value();
    CHECK(again.remote_path() == name);
    CHECK(by_callback::get(again.send("x")).has_value());
    CHECK(by_callback::get(server.receive()).value_or("") == "x");
  }
}

TEST_CASE("a name that is too long is rejected before any system call, an empty one is unnamed") {
  support::scripted_loop s;
  bool asked = false;
  s.system.on_open_socket = [&](int) -> std::optional<int> {
    asked = true;
    return std::nullopt;
  };
  for (const std::string& name :
       {std::string(109, 'x'), "\0"s + std::string(108, 'x'), std::string(5000, 'x')}) {
    const anyio::error e = refusal(name);
    CHECK(e == errc::os_error);
    CHECK(e == std::errc::filename_too_long);
    CHECK(by_callback::get(anyio::connect_unix(name)).error() == std::errc::filename_too_long);
  }
  CHECK(!asked);
  CHECK(refusal("") == errc::invalid_argument);
  CHECK(by_callback::get(anyio::connect_unix("")).error() == errc::invalid_argument);
}

TEST_CASE("connecting to a missing path reports what is wrong") {
  anyio::loop loop;
  const support::temp_dir dir;
  CHECK(by_callback::get(anyio::connect_unix(dir.path("missing"))).error() ==
        std::errc::no_such_file_or_directory);
  ::close(support::raw_unix_socket(dir.path("stale")));
  const anyio::error e = by_callback::get(anyio::connect_unix(dir.path("stale"))).error();
  CHECK(e == errc::os_error);
  CHECK(e == std::errc::connection_refused);
  CHECK(e.operation() == "connect");
  CHECK(by_callback::get(anyio::connect_unix("\0anyio.nobody"s)).error() == std::errc::connection_refused);
  CHECK(refusal(dir.path("no/such/folder")) == std::errc::no_such_file_or_directory);
}

TEST_CASE("a stale socket file is removed before bind") {
  anyio::loop loop;
  const support::temp_dir dir;
  const std::string path = dir.path("s");
  ::close(support::raw_unix_socket(path));
  anyio::unix_listener l = listen(path);
  CHECK(by_callback::get(anyio::connect_unix(path)).has_value());
  l.close();
  anyio::unix_listener again = listen(path);
  CHECK(by_callback::get(anyio::connect_unix(path)).has_value());
}

TEST_CASE("a socket in use stays, also with a full backlog, or before it listens") {
  anyio::loop loop;
  const support::temp_dir dir;
  const std::string path = dir.path("s");
  anyio::unix_listener l = listen(path);
  const ino_t inode = inode_of(path);
  CHECK(refusal(path) == errc::os_error);
  CHECK(refusal(path) == std::errc::address_in_use);
  CHECK(inode_of(path) == inode);
  CHECK(by_callback::get(anyio::connect_unix(path)).has_value());
  l.close();

  anyio::unix_listener full = listen(path, {.backlog = 0});
  const int client = support::raw_socket(AF_UNIX);
  CHECK(::fcntl(client, F_SETFL, O_NONBLOCK) == 0);
  sockaddr_un address;
  const socklen_t size = support::unix_name(path, address);
  CHECK(::connect(client, reinterpret_cast<const sockaddr*>(&address), size) == 0);
  CHECK(refusal(path) == std::errc::address_in_use);
  CHECK(exists(path));
  ::close(client);

  // A listener is not disturbed by a connection of a probe either.
  anyio::unix_listener unbothered = listen(dir.path("u"));
  CHECK(refusal(dir.path("u")) == std::errc::address_in_use);
  CHECK(unbothered.native_handle() >= 0);
  CHECK(::fcntl(unbothered.native_handle(), F_GETFL) >= 0);
  CHECK(::accept(unbothered.native_handle(), nullptr, nullptr) < 0);
  CHECK((errno == EAGAIN || errno == EWOULDBLOCK));

  const int silent = support::raw_unix_socket(dir.path("q"));
  CHECK(refusal(dir.path("q")) == std::errc::address_in_use);
  CHECK(exists(dir.path("q")));
  ::close(silent);

  const int datagrams = ::socket(AF_UNIX, SOCK_DGRAM, 0);
  const socklen_t other = support::unix_name(dir.path("d"), address);
  CHECK(::bind(datagrams, reinterpret_cast<const sockaddr*>(&address), other) == 0);
  CHECK(refusal(dir.path("d")) == std::errc::address_in_use);
  CHECK(exists(dir.path("d")));
  ::close(datagrams);
}

TEST_CASE("other files are never changed") {
  anyio::loop loop;
  const support::temp_dir dir;
  const int file = ::open(dir.path("file").c_str(), O_CREAT | O_WRONLY, 0600);
  CHECK(::write(file, "keep", 4) == 4);
  ::close(file);
  CHECK(refusal(dir.path("file")) == std::errc::address_in_use);
  CHECK(exists(dir.path("file")));
  CHECK(::symlink("stale", dir.path("link").c_str()) == 0);
  CHECK(refusal(dir.path("link")) == std::errc::address_in_use);
  ::close(support::raw_unix_socket(dir.path("stale")));
  CHECK(refusal(dir.path("link")) == std::errc::address_in_use);
  CHECK(exists(dir.path("link")));
  CHECK(exists(dir.path("stale")));
  CHECK(::mkdir(dir.path("folder").c_str(), 0700) == 0);
  CHECK(refusal(dir.path("folder")) == std::errc::address_in_use);
}

TEST_CASE("the mode is set after bind and before listen") {
  support::scripted_loop s;
  const support::temp_dir dir;
  const std::string path = dir.path("s");
  mode_t seen = 0;
  s.system.on_listen = [&] { seen = mode_of(path); };
  for (const mode_t mode : {mode_t{0600}, mode_t{0666}, mode_t{0}}) {
    anyio::unix_listener l = listen(path, {.mode = mode});
    CHECK(seen == mode);
    CHECK(mode_of(path) == mode);
  }
  // An abstract name has no file whose mode could be set.
  CHECK(by_callback::get(anyio::create_unix_listener("\0anyio.mode"s, {.mode = mode_t{0600}})).has_value());
}

TEST_CASE("a failed listener leaves no file") {
  struct refusing final : support::custom_backend {
    int refuse_mode = 0, refuse_listen = 0;
    int change_mode(const char* path, mode_t mode) override {
      return refuse_mode != 0 ? -refuse_mode : custom_backend::change_mode(path, mode);
    }
    int listen(int fd, int backlog) override {
      return refuse_listen != 0 ? -refuse_listen : custom_backend::listen(fd, backlog);
    }
  };
  auto owned = std::make_unique<refusing>();
  refusing& system = *owned;
  anyio::loop loop(std::move(owned));
  const support::temp_dir dir;
  const std::string path = dir.path("s");
  system.refuse_mode = EPERM;
  auto r = by_callback::get(anyio::create_unix_listener(path, {.mode = mode_t{0600}}));
  CHECK(r.error() == std::errc::operation_not_permitted);
  CHECK(r.error().operation() == "chmod");
  CHECK(!exists(path));
  system.refuse_mode = 0;
  system.refuse_listen = ENOBUFS;
  r = by_callback::get(anyio::create_unix_listener(path));
  CHECK(r.error() == std::errc::no_buffer_space);
  CHECK(r.error().operation() == "listen");
  CHECK(!exists(path));
}

TEST_CASE("unlink_on_close removes only the listener's own file") {
  anyio::loop loop;
  const support::temp_dir dir;
  const std::string path = dir.path("s");
  {
    anyio::unix_listener l = listen(path, {.unlink_on_close = true});
    CHECK(exists(path));
    l.close();
    CHECK(!exists(path));
  }
  { anyio::unix_listener l = listen(path, {.unlink_on_close = true}); }
  CHECK(!exists(path));

  anyio::unix_listener old = listen(path, {.unlink_on_close = true});
  CHECK(::rename(path.c_str(), dir.path("moved").c_str()) == 0);
  anyio::unix_listener replaced = listen(path);
  old.close();
  CHECK(exists(path));
  CHECK(by_callback::get(anyio::connect_unix(path)).has_value());

  anyio::unix_listener own = listen(dir.path("t"), {.unlink_on_close = true});
  CHECK(::unlink(dir.path("t").c_str()) == 0);
  ::close(::open(dir.path("t").c_str(), O_CREAT | O_WRONLY, 0600));
  own.close();
  CHECK(exists(dir.path("t")));

  anyio::unix_listener gone = listen(dir.path("u"), {.unlink_on_close = true});
  CHECK(::unlink(dir.path("u").c_str()) == 0);
  gone.close();
  anyio::unix_listener abstract = listen("\0anyio.unlink"s, {.unlink_on_close = true});
  abstract.close();
}

TEST_CASE("unlink_on_close finds its file from another directory, and no other file of that name") {
  anyio::loop loop;
  const support::temp_dir dir, other;
  struct folder_guard {
    std::string before = std::filesystem::current_path();
    ~folder_guard() { CHECK(::chdir(before.c_str()) == 0); }
  } guard;
  CHECK(::chdir(dir.path().c_str()) == 0);
  CHECK(::mkdir("deep", 0700) == 0);
  for (const char* name : {"s", "./deep/s"}) {
    CAPTURE(name);
    CHECK(::chdir(dir.path().c_str()) == 0);
    anyio::unix_listener l = listen(name, {.unlink_on_close = true});
    CHECK(l.local_path() == name);
    CHECK(::chdir(other.path().c_str()) == 0);
    static_cast<void>(::mkdir("deep", 0700));
    const anyio::unix_listener namesake = listen(name);
    l.close();
    CHECK(!exists(dir.path(name)));
    CHECK(exists(other.path(name)));
  }
  // A path that fits only relative to its directory: binding uses it as given.
  CHECK(::chdir(dir.path().c_str()) == 0);
  const std::string long_name(90, 'f');
  CHECK(::mkdir(long_name.c_str(), 0700) == 0);
  CHECK(::chdir(long_name.c_str()) == 0);
  anyio::unix_listener l = listen("s", {.unlink_on_close = true});
  CHECK(exists(dir.path(long_name + "/s")));
  CHECK(::chdir("/") == 0);
  l.close();
  CHECK(!exists(dir.path(long_name + "/s")));
  // A removed directory has no path; then the relative path is kept.
  CHECK(::mkdir(dir.path("gone").c_str(), 0700) == 0);
  CHECK(::chdir(dir.path("gone").c_str()) == 0);
  anyio::unix_listener up = listen(dir.path("t"), {.unlink_on_close = true});
  CHECK(::rmdir(dir.path("gone").c_str()) == 0);
  CHECK(anyio::detail::system_paths().absolute("x") == "x");
  CHECK(anyio::detail::system_paths().absolute("/x") == "/x");
  CHECK(::chdir("/") == 0);
  CHECK(anyio::detail::system_paths().absolute("x") == "/x");
  up.close();
  CHECK(!exists(dir.path("t")));
}

TEST_CASE("the end of the loop removes the file of a listener with unlink_on_close") {
  const support::temp_dir dir;
  std::optional<anyio::loop> loop;
  loop.emplace();
  anyio::unix_listener l = listen(dir.path("s"), {.unlink_on_close = true});
  loop.reset();
  CHECK(!exists(dir.path("s")));
}

TEST_CASE_TEMPLATE("a connect waits while the backlog is full, and does not report success", Face,
                   by_callback, by_coroutine) {
  anyio::loop loop;
  const support::temp_dir dir;
  anyio::unix_listener l = listen(dir.path("s"), {.backlog = 0});
  constexpr std::size_t count = 4;
  waiting<anyio::unix_stream> connecting[count];
  for (auto& w : connecting) Face::start(anyio::connect_unix(dir.path("s")), w);
  support::settle();
  std::size_t done = 0;
  for (const auto& w : connecting) done += w.done() ? 1 : 0;
  CHECK(done == 1);
  std::vector<anyio::unix_stream> servers;
  for (std::size_t i = 0; i < count; ++i) {
    servers.push_back(Face::get(l.accept()).value());
    CHECK(Face::get(servers.back().send("welcome")).has_value());
  }
  for (auto& w : connecting) {
    result<anyio::unix_stream> client = w.get();
    CHECK(client.has_value());
    if (client.has_value()) CHECK(Face::get(client->receive()).value_or("") == "welcome");
  }
}

TEST_CASE("a connect that waits for a full backlog does not spin, and ends with the listener") {
  support::scripted_loop s;
  s.system.virtual_time = true;
  const support::temp_dir dir;
  anyio::unix_listener l = listen(dir.path("s"), {.backlog = 0});
  anyio::unix_stream first = by_callback::get(anyio::connect_unix(dir.path("s"))).value();
  const std::size_t before = s.system.waits;
  CHECK(by_coroutine::get(anyio::fail_after(10s, anyio::connect_unix(dir.path("s")))).error() ==
        errc::timed_out);
  CHECK(s.system.waits - before < 500);
  {
    // A timeout tries once more, and an available connection is returned.
    waiting<anyio::unix_stream> timed;
    by_coroutine::start(anyio::fail_after(500us, anyio::connect_unix(dir.path("s"))), timed);
    support::settle();
    CHECK(!timed.done());
    const int taken = ::accept(l.native_handle(), nullptr, nullptr);
    CHECK(timed.get().has_value());
    ::close(taken);
    ::close(::accept(l.native_handle(), nullptr, nullptr));
    first = by_callback::get(anyio::connect_unix(dir.path("s"))).value();
  }
  {
    auto op = anyio::connect_unix(dir.path("s"));
    op.start([](result<anyio::unix_stream>) { CHECK(false); });
    support::settle();
  }
  waiting<anyio::unix_stream> w;
  by_callback::start(anyio::connect_unix(dir.path("s")), w);
  support::settle();
  l.close();
  CHECK(w.get().error() == std::errc::connection_refused);
}

TEST_CASE("a connection whose peer closed with unread input is broken once, and stays so") {
  anyio::loop loop;
  auto p = anyio::create_unix_stream_pair().value();
  CHECK(by_callback::get(p.first.send("never read")).has_value());
  CHECK(by_callback::get(p.second.send("read")).has_value());
  p.second.close();
  CHECK(by_callback::get(p.first.receive()).value_or("") == "read");
  for (int i = 0; i < 3; ++i) {
    const anyio::error e = by_callback::get(p.first.receive()).error();
    CHECK(e == errc::broken_resource);
    CHECK(e == std::errc::connection_reset);
  }
}

TEST_CASE_TEMPLATE("a send to a peer that closed with unread input does not hide the reset", Face,
                   by_callback, by_coroutine) {
  const auto is_reset = [](const anyio::error& e) {
    return e == errc::broken_resource && e.os_error() == ECONNRESET;
  };
  const anyio::unique_fd file(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
  const int fds[] = {file.get()};
  for (const int way : {0, 1, 2}) {
    CAPTURE(way);
    anyio::loop loop;
    auto p = anyio::create_unix_stream_pair().value();
    CHECK(Face::get(p.first.send("never read")).has_value());
    CHECK(Face::get(p.second.send("read")).has_value());
    p.second.close();
    if (way == 0) CHECK(Face::get(p.first.send("x")).error() == errc::broken_resource);
    if (way == 1) CHECK(is_reset(Face::get(p.first.send_file(file.get(), 0, 5)).error()));
    if (way == 2) CHECK(is_reset(Face::get(p.first.send_fds("x", fds)).error()));
    CHECK(Face::get(p.first.receive()).value_or("") == "read");
    CHECK(is_reset(Face::get(p.first.receive()).error()));
    CHECK(is_reset(Face::get(p.first.receive()).error()));
    CHECK(Face::get(p.first.aclose()).has_value());
  }
}

TEST_CASE("from_fd rejects anything but a connected UNIX stream socket, and leaves it open") {
  anyio::loop loop;
  const support::temp_dir dir;
  const auto refused = [](int fd, std::string_view why) {
    CAPTURE(why);
    const int flags = ::fcntl(fd, F_GETFL);
    const result<anyio::unix_stream> r = anyio::unix_stream::from_fd(fd);
    CHECK(r.error() == errc::invalid_argument);
    CHECK_MESSAGE(r.error().message().find(why) != std::string::npos, r.error().message());
    CHECK(support::is_open(fd));
    CHECK(::fcntl(fd, F_GETFL) == flags);
    ::close(fd);
  };
  refused(::socket(AF_UNIX, SOCK_STREAM, 0), "not connected");
  refused(::socket(AF_INET, SOCK_STREAM, 0), "family");
  refused(::open("/dev/null", O_RDONLY), "not a socket");
  refused(support::raw_unix_socket(dir.path("s"), 1), "not connected");
  int fds[2];
  CHECK(::socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0);
  refused(fds[0], "type");
  ::close(fds[1]);
  CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) == 0);
  refused(fds[0], "type");
  ::close(fds[1]);
}

TEST_CASE("unnamed sockets have empty names") {
  anyio::loop loop;
  int fds[2];
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  anyio::unix_stream s = anyio::unix_stream::from_fd(fds[0]).value();
  CHECK(s.local_path().empty());
  CHECK(s.remote_path().empty());
  ::close(fds[1]);
}

TEST_CASE("messages of two processes on one socket are all read, though the kernel keeps them apart") {
  anyio::loop loop;
  auto p = anyio::create_unix_stream_pair().value();
#if defined(SO_PASSCRED)
  CHECK(p.second.set_option(SOL_SOCKET, SO_PASSCRED, 1).has_value());
#endif
  for (const bool with_fds : {false, true}) {
    CHECK(::send(p.first.native_handle(), "a", 1, 0) == 1);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(::send(p.first.native_handle(), "b", 1, 0) == 1 ? 0 : 1);
    int status = 1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    support::settle();
    std::string got;
    while (got.size() < 2) {
      std::string more;
      if (with_fds) {
        result<anyio::fd_message> m = by_callback::get(p.second.receive_fds(100, 1));
        if (m.has_value()) more = m->data;
      } else {
        more = by_callback::get(p.second.receive()).value_or("");
      }
      CHECK(!more.empty());
      if (more.empty()) break;
      got += more;
    }
    CHECK(got == "ab");
  }
}

}  // namespace
