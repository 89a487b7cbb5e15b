// Byte streams, TCP and UNIX as the documentation describes them: every member, in each form of use.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/temp_dir.hpp"

namespace {

using namespace anyio;
using namespace std::chrono_literals;
using namespace std::string_literals;
using namespace std::string_view_literals;

// ---- names of types -------------------------------------------------------------------------------

template <class Stream>
constexpr bool has_named_operations =
    std::is_same_v<decltype(std::declval<Stream&>().receive(std::declval<mutable_buffer>())),
                   receive_operation> &&
    std::is_same_v<decltype(std::declval<Stream&>().receive()), receive_string_operation> &&
    std::is_same_v<decltype(std::declval<Stream&>().receive(std::size_t{9})), receive_string_operation> &&
    std::is_same_v<decltype(std::declval<Stream&>().receive_view()), receive_view_operation> &&
    std::is_same_v<decltype(std::declval<Stream&>().send("text")), send_operation> &&
    std::is_same_v<decltype(std::declval<Stream&>().send(std::declval<std::span<const const_buffer>>())),
                   send_operation> &&
    std::is_same_v<decltype(std::declval<Stream&>().send_eof()), send_eof_operation> &&
    std::is_same_v<decltype(std::declval<Stream&>().aclose()), aclose_operation>;

static_assert(has_named_operations<byte_stream>);
static_assert(has_named_operations<socket_stream>);
static_assert(has_named_operations<tcp_stream>);
static_assert(has_named_operations<unix_stream>);
static_assert(has_named_operations<fd_stream>);
static_assert(has_named_operations<memory_stream>);
static_assert(has_named_operations<buffered_stream>);

static_assert(std::is_abstract_v<byte_stream> && std::has_virtual_destructor_v<byte_stream>);
static_assert(std::is_base_of_v<byte_stream, socket_stream>);
static_assert(std::is_base_of_v<socket_stream, tcp_stream> && std::is_base_of_v<socket_stream, unix_stream>);
static_assert(std::is_base_of_v<byte_stream, fd_stream> && std::is_base_of_v<byte_stream, memory_stream>);
static_assert(std::is_base_of_v<byte_stream, buffered_stream>);

static_assert(std::is_same_v<decltype(std::declval<tcp_listener&>().accept()), accept_operation<tcp_stream>>);
static_assert(
    std::is_same_v<decltype(std::declval<unix_listener&>().accept()), accept_operation<unix_stream>>);

template <class T>
constexpr bool moves_only =
    std::is_default_constructible_v<T> && std::is_move_constructible_v<T> && std::is_move_assignable_v<T> &&
    !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
static_assert(moves_only<tcp_stream> && moves_only<unix_stream> && moves_only<fd_stream>);
static_assert(moves_only<memory_stream> && moves_only<tcp_listener> && moves_only<unix_listener>);
static_assert(moves_only<unique_fd>);
static_assert(!std::is_convertible_v<int, unique_fd> && !std::is_convertible_v<tcp_stream, bool>);
static_assert(!std::is_aggregate_v<fd_message> && !std::is_aggregate_v<name_info>);

// ---- helpers --------------------------------------------------------------------------------------

task<std::string> all_of(byte_stream& stream) {
  std::string all;
  for (;;) {
    auto some = co_await as_result(stream.receive());
    if (!some) {
      if (some.error() != errc::end_of_stream) co_await raise(some.error());
      co_return all;
    }
    all += *some;
  }
}

task<void> echo(std::unique_ptr<byte_stream> stream) {
  std::string heard = co_await all_of(*stream);
  co_await stream->send(heard);
  co_await stream->aclose();
}

struct tcp_pair {
  tcp_listener listener;
  tcp_stream client;
  tcp_stream server;
};

// A task's result type with non-trivial members, from a function with a return object that moves.
task<std::unique_ptr<tcp_pair>> make_tcp_pair() {
  auto pair = std::make_unique<tcp_pair>();
  pair->listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
  auto connecting = connect_tcp("127.0.0.1", pair->listener.local_port());
  auto [client, server] = co_await when_all(std::move(connecting), pair->listener.accept());
  pair->client = std::move(client);
  pair->server = std::move(server);
  co_return pair;
}

// ---- the forms of an operation --------------------------------------------------------------------

struct counting_reader {
  explicit counting_reader(byte_stream& s) : stream(s) {}
  void begin() {
    op = stream.receive(buffer);
    op.start([this](auto r) { take(r); });
  }
  void take(const result<std::size_t>& r) {
    if (!r) {
      last = r.error();
      return;
    }
    text.append(buffer.data(), *r);
    begin();  // idle already: started again from its own callback
  }
  byte_stream& stream;
  receive_operation op;
  std::array<char, 4> buffer{};
  std::string text;
  error last;
};

task<> all_faces() {
  auto [near, far] = create_memory_stream_pair();
  std::array<char, 16> buf{};

  co_await far.send("one");
  auto n = co_await near.receive(buf);
  static_assert(std::is_same_v<decltype(n), std::size_t>);
  CHECK(std::string_view(buf.data(), n) == "one");

  co_await far.send("two");
  auto r = co_await as_result(near.receive(buf));
  static_assert(std::is_same_v<decltype(r), result<std::size_t>>);
  CHECK(r.has_value());
  CHECK(r.value_or(0) == 3);

  receive_operation op;
  op = near.receive(buf);
  co_await far.send("three");
  auto more = co_await op;
  CHECK(more == 5);
  op = near.receive(buf);
  op = {};

  send_operation sending = far.send("four");
  co_await sending;
  CHECK(sending.sent() == 4);
  auto text = co_await near.receive();
  static_assert(std::is_same_v<decltype(text), std::string>);
  CHECK(text == "four");

  receive_view_operation viewing = near.receive_view();
  co_await far.send("five");
  auto view = co_await viewing;
  static_assert(std::is_same_v<decltype(view), std::string_view>);
  CHECK(view == "five");

  send_eof_operation ending = far.send_eof();
  co_await ending;
  auto end = co_await as_result(near.receive_view());
  CHECK(end.error() == errc::end_of_stream);
  aclose_operation closing = near.aclose();
  co_await closing;
  CHECK_FALSE(static_cast<bool>(near));
}

}  // namespace

TEST_CASE("an operation can be awaited, awaited for its result, or named") { run(all_faces); }

TEST_CASE("a named operation can be started again from its callback") {
  loop l;
  auto [near, far] = create_memory_stream_pair();
  counting_reader reader(near);
  reader.begin();
  byte_stream& sender = far;
  sender.send("Hello, all you worlds").start([&sender](result<> r) {
    CHECK(r.has_value());
    sender.send_eof().start([](result<> ended) { CHECK(ended.has_value()); });
  });
  l.run();
  CHECK(reader.text == "Hello, all you worlds");
  CHECK(reader.last == errc::end_of_stream);
}

TEST_CASE("a temporary operation accepts a move-only callable, and calls it only inside run") {
  loop l;
  auto [near, far] = create_memory_stream_pair();
  std::array<char, 8> buf{};
  std::size_t got = 0;
  bool called = false;
  near.receive(buf).start([&, owned = std::make_unique<int>(7)](result<std::size_t> r) {
    got = r.value_or(0) + static_cast<std::size_t>(*owned);
    called = true;
  });
  far.send("x").start([](auto) {});
  CHECK_FALSE(called);
  l.run();
  CHECK(got == 8);
}

TEST_CASE("assigning an empty operation cancels") {
  loop l;
  auto [near, far] = create_memory_stream_pair();
  std::array<char, 8> buf{};
  bool called = false;
  receive_operation op = near.receive(buf);
  op.start([&called](const auto&) { called = true; });
  op = {};
  far.send("kept").start([](result<>) {});
  l.run();
  CHECK_FALSE(called);
  std::string text;
  near.receive().start([&text](result<std::string> r) { text = std::move(r).value_or("nothing"); });
  l.run();
  CHECK(text == "kept");
}

TEST_CASE("a default-constructed operation is an invalid argument") {
  loop l;
  std::vector<errc> seen;
  const auto note = [&seen](const auto& r) { seen.push_back(r.error().code()); };
  receive_operation a;
  receive_string_operation b;
  receive_view_operation c;
  send_operation d;
  send_eof_operation e;
  aclose_operation f;
  accept_operation<tcp_stream> g;
  accept_operation<unix_stream> h;
  a.start(note);
  b.start(note);
  c.start(note);
  d.start(note);
  e.start(note);
  f.start(note);
  g.start(note);
  h.start(note);
  CHECK(seen.empty());
  l.run();
  CHECK(seen == std::vector<errc>(8, errc::invalid_argument));
}

// ---- every type of bytes --------------------------------------------------------------------------

namespace {

task<> sends_of_every_type() {
  auto [near, far] = create_memory_stream_pair();
  std::string text = "b";
  const std::string constant = "c";
  std::string_view view = "d";
  const char* pointer = "e";
  char array[2] = {'f', 'g'};
  std::vector<char> letters = {'h'};
  const std::vector<std::byte> bytes = {std::byte{'i'}};
  std::array<unsigned char, 1> octets = {'j'};
  std::span<const std::byte> part(bytes);
  std::span<char> chars(array);
  co_await near.send("a");
  co_await near.send(text);
  co_await near.send(constant);
  co_await near.send(view);
  co_await near.send(pointer);
  co_await near.send(array);
  co_await near.send(letters);
  co_await near.send(bytes);
  co_await near.send(octets);
  co_await near.send(part);
  co_await near.send(chars);
  co_await near.send(std::string("k"));
  co_await near.send("l"s + "m");
  co_await near.send("n"sv);
  co_await near.send(const_buffer(array, 1));
  co_await near.send(const_buffer("o"));
  co_await near.send(mutable_buffer(array));
  co_await near.send("p\0q");
  co_await near.send("");
  co_await near.send(const_buffer{});

  const_buffer parts[] = {"r", text, constant};
  co_await near.send(parts);
  const std::vector<const_buffer> list(parts, parts + 3);
  co_await near.send(list);
  co_await near.send(std::array<const_buffer, 2>{"s", "t"});
  co_await near.send(std::span<const const_buffer>(parts, 1));
  co_await near.send_eof();
  const std::string all = co_await all_of(far);
  CHECK(all == "abcdefghijifgklmnfofgp\0qrbcrbcstr"s);
}

task<> receives_of_every_type() {
  auto [near, far] = create_memory_stream_pair();
  byte_stream& sender = far;
  const auto fill = [&sender]() { return sender.send("1234"); };
  std::string text(4, ' ');
  std::vector<std::byte> bytes(2);
  std::array<unsigned char, 1> octets{};
  char letters[4];
  std::size_t n = 0;
  co_await fill();
  n = co_await near.receive(text);
  CHECK(n == 4);
  CHECK(text == "1234");
  co_await fill();
  n = co_await near.receive(bytes);
  CHECK(n == 2);
  n = co_await near.receive(octets);
  CHECK(n == 1);
  n = co_await near.receive(std::span(letters).subspan(1));
  CHECK(n == 1);
  CHECK(letters[1] == '4');
  co_await fill();
  n = co_await near.receive(letters);
  CHECK(n == 4);
  co_await fill();
  n = co_await near.receive(mutable_buffer(letters, 3));
  CHECK(n == 3);
  const std::string rest = co_await near.receive(1);
  CHECK(rest == "4");
  auto nothing = co_await as_result(near.receive(0));
  CHECK(nothing.error() == errc::invalid_argument);
  auto none = co_await as_result(near.receive(mutable_buffer()));
  CHECK(none.error() == errc::invalid_argument);
}

}  // namespace

TEST_CASE("bytes can be sent from every kind of buffer") { run(sends_of_every_type); }

TEST_CASE("bytes can be received into every kind of buffer") { run(receives_of_every_type); }

// ---- rules of every stream ------------------------------------------------------------------------

namespace {

task<> busy_and_closed() {
  auto pair = co_await make_tcp_pair();
  tcp_stream& stream = pair->client;
  std::array<char, 4> buf{};

  receive_operation first = stream.receive(buf);
  std::optional<errc> ended;
  first.start([&ended](result<std::size_t> r) { ended = r.error().code(); });
  auto second = co_await as_result(stream.receive(buf));
  CHECK(second.error() == errc::busy_resource);
  second = co_await as_result(stream.receive(mutable_buffer(buf.data(), 0)));
  CHECK(second.error() == errc::invalid_argument);
  auto third = co_await as_result(stream.receive_view());
  CHECK(third.error() == errc::busy_resource);
  CHECK_FALSE(ended.has_value());

  stream.cancel();
  CHECK_FALSE(ended.has_value());
  co_await sleep(0s);
  CHECK(ended == errc::cancelled);
  CHECK(static_cast<bool>(stream));

  ended.reset();
  first = stream.receive(buf);
  first.start([&ended](result<std::size_t> r) { ended = r.error().code(); });
  const int fd = stream.native_handle();
  stream.close();
  CHECK(::fcntl(fd, F_GETFD) == -1);
  CHECK_FALSE(ended.has_value());
  co_await sleep(0s);
  CHECK(ended == errc::closed_resource);
  CHECK_FALSE(static_cast<bool>(stream));
  stream.close();

  second = co_await as_result(stream.receive(buf));
  CHECK(second.error() == errc::closed_resource);
  CHECK(second.error().operation() == "receive");
  auto sent = co_await as_result(stream.send("x"));
  CHECK(sent.error() == errc::closed_resource);
  CHECK(sent.error().operation() == "send");
  sent = co_await as_result(stream.send(""));
  CHECK(sent.error() == errc::closed_resource);
  auto closed = co_await as_result(stream.aclose());
  CHECK(closed.has_value());
  auto at_end = co_await as_result(pair->server.receive());
  CHECK(at_end.error() == errc::end_of_stream);
  at_end = co_await as_result(pair->server.receive(9));
  CHECK(at_end.error() == errc::end_of_stream);
}

task<> half_close() {
  auto pair = co_await make_tcp_pair();
  co_await pair->client.send_eof();
  co_await pair->client.send_eof();
  auto sent = co_await as_result(pair->client.send("x"));
  CHECK(sent.error() == errc::closed_resource);
  auto end = co_await as_result(pair->server.receive());
  CHECK(end.error() == errc::end_of_stream);
  co_await pair->server.send("still here");
  const std::string text = co_await pair->client.receive();
  CHECK(text == "still here");
}

task<> moves_while_waiting() {
  auto [near, far] = create_memory_stream_pair();
  std::array<char, 8> buf{};
  auto op = near.receive(buf);
  std::size_t got = 0;
  op.start([&got](auto r) { got = r.value_or(0); });
  memory_stream elsewhere = std::move(near);
  CHECK_FALSE(static_cast<bool>(near));
  CHECK(static_cast<bool>(elsewhere));
  co_await far.send("abc");
  co_await sleep(0s);
  CHECK(got == 3);
  near = std::move(elsewhere);
  co_await near.send("back");
  const std::string text = co_await far.receive();
  CHECK(text == "back");
}

task<> stays_with_its_stream() {
  auto pair = co_await make_tcp_pair();
  auto waiting = pair->client.receive();
  bool called = false;
  waiting.start([&called](result<std::string>) { called = true; });
  tcp_stream moved(std::move(pair->client));
  CHECK(moved.remote_endpoint().port == pair->listener.local_port());
  co_await pair->server.send("abc");
  CHECK_FALSE(called);
  while (!called) co_await sleep(1ms);
}

task<> timeouts_of_streams() {
  auto pair = co_await make_tcp_pair();
  std::array<char, 8> buf{};
  timeout_operation<receive_operation> op = fail_after(0s, pair->client.receive(buf));
  auto r = co_await as_result(std::move(op));
  static_assert(std::is_same_v<decltype(r), result<std::size_t>>);
  CHECK(r.error() == errc::timed_out);
  op = fail_after(10s, pair->client.receive(buf));
  co_await pair->server.send("in time");
  const std::size_t n = co_await op;
  CHECK(n == 7);
  auto maybe = co_await move_on_after(0ms, pair->client.receive(buf));
  static_assert(std::is_same_v<decltype(maybe), std::optional<std::size_t>>);
  CHECK_FALSE(maybe.has_value());
  auto sent = co_await move_on_after(1h, pair->client.send("x"));
  static_assert(std::is_same_v<decltype(sent), bool>);
  CHECK(sent);
}

}  // namespace

TEST_CASE("size, closed and busy are checked in this order") { run(busy_and_closed); }
TEST_CASE("a half-closed stream can still receive") { run(half_close); }
TEST_CASE("a stream can be moved while operations are pending") { run(moves_while_waiting); }
TEST_CASE("an operation belongs to the connection, not to the stream object") { run(stays_with_its_stream); }
TEST_CASE("a timeout can enclose the operation of a stream") { run(timeouts_of_streams); }

TEST_CASE("default-constructed streams and listeners are closed") {
  loop l;
  tcp_stream tcp;
  socket_stream any;
  unix_stream local;
  fd_stream pipe;
  memory_stream memory;
  tcp_listener tcp_door;
  unix_listener local_door;
  CHECK_FALSE(static_cast<bool>(tcp));
  CHECK_FALSE(static_cast<bool>(any));
  CHECK_FALSE(static_cast<bool>(local));
  CHECK_FALSE(static_cast<bool>(pipe));
  CHECK_FALSE(static_cast<bool>(memory));
  CHECK_FALSE(static_cast<bool>(tcp_door));
  CHECK_FALSE(static_cast<bool>(local_door));
  CHECK(run(as_result(tcp.receive())).error() == errc::closed_resource);
  CHECK(run(as_result(local.receive())).error() == errc::closed_resource);
  CHECK(run(as_result(pipe.receive())).error() == errc::closed_resource);
  CHECK(run(as_result(memory.receive())).error() == errc::closed_resource);
  CHECK(run(as_result(tcp_door.accept())).error() == errc::closed_resource);
  CHECK(run(as_result(local_door.accept())).error() == errc::closed_resource);
  CHECK(run(as_result(memory.send("x"))).error() == errc::closed_resource);
  CHECK(tcp.set_no_delay(true).error() == errc::closed_resource);
  CHECK(tcp.get_option(SOL_SOCKET, SO_TYPE).error() == errc::closed_resource);
  CHECK(run(as_result(any.wait_readable())).error() == errc::closed_resource);
  CHECK(run(as_result(any.wait_writable())).error() == errc::closed_resource);
  any.abort();
  tcp.close();
  tcp.cancel();
  memory.close();
  tcp_door.close();
  local_door.close();
}

// ---- all streams through their base ---------------------------------------------------------------

namespace {

task<std::string> ask(byte_stream& stream, std::string_view question) {
  co_await stream.send(question);
  co_await stream.send_eof();
  std::string answer = co_await all_of(stream);
  co_return answer;
}

task<> echoes_over_every_stream() {
  {
    auto [near, far] = create_memory_stream_pair();
    auto [nothing, answer] =
        co_await when_all(echo(std::make_unique<memory_stream>(std::move(far))), ask(near, "memory"));
    static_assert(std::is_same_v<decltype(nothing), std::monostate>);
    CHECK(answer == "memory");
    CHECK(near.socket() == nullptr);
  }
  {
    auto ends = create_unix_stream_pair();
    CHECK(ends.has_value());
    auto& [near, far] = *ends;
    auto [nothing, answer] =
        co_await when_all(echo(std::make_unique<unix_stream>(std::move(far))), ask(near, "unix"));
    CHECK(answer == "unix");
    CHECK(near.socket() == &near);
  }
  {
    auto pair = co_await make_tcp_pair();
    std::unique_ptr<byte_stream> far = std::make_unique<tcp_stream>(std::move(pair->server));
    auto wrapped = std::make_unique<buffered_stream>(std::move(far));
    buffered_stream near(pair->client);
    CHECK(near.socket() == &pair->client);
    auto [nothing, answer] = co_await when_all(echo(std::move(wrapped)), ask(near, "tcp"));
    CHECK(answer == "tcp");
  }
}

task<> pipes() {
  int ends[2];
  CHECK(::pipe(ends) == 0);
  auto reader = fd_stream::from_fd(ends[0]);
  auto writer = fd_stream::from_fd(ends[1]);
  CHECK(reader.has_value());
  CHECK(writer.has_value());
  CHECK(reader->native_handle() == ends[0]);
  CHECK((::fcntl(ends[0], F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(ends[0], F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(reader->socket() == nullptr);
  co_await writer->send("through a pipe");
  const std::string_view view = co_await reader->receive_view();
  CHECK(view == "through a pipe");
  const unique_fd own(writer->release());
  CHECK(own.get() == ends[1]);
  CHECK_FALSE(static_cast<bool>(*writer));
}

}  // namespace

TEST_CASE("one function template works for every byte stream") { run(echoes_over_every_stream); }
TEST_CASE("the ends of a pipe are streams") { run(pipes); }

// ---- buffered -------------------------------------------------------------------------------------

namespace {

task<> buffered_reads() {
  auto [near, far] = create_memory_stream_pair();
  buffered_stream in(near);
  co_await far.send("line one\r\nline two\nkey: value;;rest1234");
  std::string line = co_await in.receive_line();
  CHECK(line == "line one");
  line = co_await in.receive_line(100);
  CHECK(line == "line two");
  std::string part = co_await in.receive_until(";;", 64);
  CHECK(part == "key: value");
  part = co_await in.receive_exactly(4);
  CHECK(part == "rest");
  std::array<char, 2> two{};
  co_await in.receive_exactly(two);
  CHECK(std::string_view(two.data(), 2) == "12");
  part = co_await in.receive_exactly(0);
  CHECK(part.empty());
  CHECK(in.buffer() == "34");
  in.feed_data("56");
  CHECK(in.buffer() == "3456");
  part = co_await in.receive(3);
  CHECK(part == "345");

  auto missing = co_await as_result(in.receive_until("x", 1));
  CHECK(missing.error() == errc::delimiter_not_found);
  CHECK(in.buffer() == "6");
  auto late = co_await move_on_after(1ms, in.receive_exactly(2));
  static_assert(std::is_same_v<decltype(late), std::optional<std::string>>);
  CHECK_FALSE(late.has_value());
  co_await far.send_eof();
  auto rest = co_await as_result(in.receive_exactly(2));
  CHECK(rest.error() == errc::incomplete_read);
  CHECK(in.buffer() == "6");
  auto until = co_await as_result(in.receive_line());
  CHECK(until.error() == errc::incomplete_read);
  part = co_await in.receive();
  CHECK(part == "6");
  until = co_await as_result(in.receive_line());
  CHECK(until.error() == errc::end_of_stream);
  co_await in.send("answer");
  part = co_await far.receive();
  CHECK(part == "answer");
}

}  // namespace

TEST_CASE("a buffered stream reads an exact size, until a delimiter, and lines") { run(buffered_reads); }

// ---- TCP ------------------------------------------------------------------------------------------

namespace {

task<> tcp_members() {
  tcp_listener listener = co_await create_tcp_listener({.local_host = "127.0.0.1", .backlog = 16});
  CHECK(static_cast<bool>(listener));
  CHECK(listener.local_endpoints() ==
        std::vector{ip_endpoint{ip_address::loopback_v4(), listener.local_port()}});
  CHECK(listener.native_handles().size() == 1);

  tcp_stream client = co_await connect_tcp(listener.local_endpoints().front());
  accept_operation<tcp_stream> accepting = listener.accept();
  tcp_stream server = co_await accepting;
  CHECK(client.remote_endpoint() == listener.local_endpoints()[0]);
  CHECK(client.local_endpoint() == server.remote_endpoint());
  CHECK(std::as_const(server).local_endpoint().to_string() ==
        "127.0.0.1:" + std::to_string(listener.local_port()));
  CHECK(client.get_option(IPPROTO_TCP, TCP_NODELAY).value_or(0) != 0);
  CHECK(server.get_option(IPPROTO_TCP, TCP_NODELAY).value_or(0) != 0);
  CHECK(client.set_no_delay(false).has_value());
  CHECK(client.get_option(IPPROTO_TCP, TCP_NODELAY).value_or(1) == 0);
  CHECK(client.set_keep_alive(30s, 5s, 3).has_value());
  CHECK(client.get_option(SOL_SOCKET, SO_KEEPALIVE).value_or(0) != 0);
  CHECK(client.set_option(SOL_SOCKET, SO_RCVBUF, 20000).has_value());
  const linger patience{1, 5};
  CHECK(client.set_option(SOL_SOCKET, SO_LINGER, patience).has_value());
  const result<linger> lingers = client.get_option<linger>(SOL_SOCKET, SO_LINGER);
  CHECK(lingers->l_linger == 5);
  CHECK(client.set_option(SOL_SOCKET, SO_LINGER, linger{}).has_value());
  std::array<char, 3> seen{};
  co_await server.send("abc");
  co_await client.wait_readable();
  co_await server.wait_writable();
  const std::size_t peeked = co_await client.peek(seen);
  CHECK(peeked > 0);
  co_await buffered_stream(client).receive_exactly(seen);
  result<int> bad = client.get_option(SOL_SOCKET, 9999);
  CHECK(bad.error() == errc::os_error);
  CHECK(bad.error() == std::errc::no_protocol_option);

  const ip_endpoint remote = client.remote_endpoint();
  result<tcp_stream> again = tcp_stream::from_fd(client.release());
  CHECK(again.has_value());
  CHECK_FALSE(static_cast<bool>(client));
  CHECK(again->remote_endpoint() == remote);
  co_await again->send("after release");
  const std::string text = co_await server.receive(100);
  CHECK(text == "after release");
  server.close();
  CHECK(server.remote_endpoint().port != 0);
  listener.close();
  CHECK_FALSE(static_cast<bool>(listener));
}

task<> sends_files(std::string path) {
  const unique_fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  CHECK(static_cast<bool>(file));
  CHECK(::write(file.get(), "0123456789", 10) == 10);
  auto pair = co_await make_tcp_pair();
  const std::uint64_t n = co_await pair->client.send_file(file.get(), 2, 5);
  CHECK(n == 5);
  const std::uint64_t rest = co_await pair->client.send_file(file.get(), 8, 100);
  CHECK(rest == 2);
  co_await pair->client.send_eof();
  const std::string all = co_await all_of(pair->server);
  CHECK(all == "2345689");
}

task<> relays_and_queues() {
  auto near = create_memory_stream_pair();
  auto far = create_memory_stream_pair();
  send_queue queue(near.first, 1 << 16);
  task_group group;
  group.start_soon(queue.run());
  CHECK(queue.try_send("one "));
  co_await queue.send("two");
  co_await queue.flush();
  CHECK(queue.size() == 0);
  co_await near.first.send_eof();
  co_await far.second.send("answer");
  co_await far.second.send_eof();
  const relay_result moved = co_await relay(near.second, far.first, {.idle = 10s});
  CHECK(moved.a_to_b == 7);
  CHECK(moved.b_to_a == 6);
  const std::string asked = co_await all_of(far.second);
  CHECK(asked == "one two");
  auto third = create_memory_stream_pair();
  const std::uint64_t copied = co_await copy(near.first, third.first);
  CHECK(copied == 6);
  const std::string answer = co_await third.second.receive();
  CHECK(answer == "answer");
  third.first.close();
  const auto closed = co_await as_result(relay(third.first, third.second));
  CHECK(closed.error() == errc::closed_resource);
  static_assert(relay_options{}.idle == duration::max());
  group.cancel();
}

task<> refusals() {
  auto pair = co_await make_tcp_pair();
  const ip_endpoint gone = pair->listener.local_endpoints()[0];
  pair->listener.close();
  auto refused = co_await as_result(connect_tcp(gone));
  CHECK(refused.error() == errc::os_error);
  CHECK(refused.error() == std::errc::connection_refused);
  CHECK(refused.error().os_error() == ECONNREFUSED);
  CHECK(refused.error().operation() == "connect");
  CHECK(refused.error().message() == "connect: connection refused (ECONNREFUSED)");

  auto taken = co_await as_result(
      create_tcp_listener({.local_host = "127.0.0.1", .local_port = pair->client.local_endpoint().port}));
  CHECK(taken.error() == std::errc::address_in_use);
  CHECK(taken.error().operation() == "bind");

  auto unknown = co_await as_result(connect_tcp("not an \xff address", 80));
  CHECK(unknown.error() == errc::invalid_argument);
  auto in_family = co_await as_result(connect_tcp("127.0.0.1", 1, {.family = AF_INET6}));
  CHECK_FALSE(in_family.has_value());
}

int count_calls(int fd, void* data) {
  *static_cast<int*>(data) += fd >= 0 ? 1 : 0;
  return 0;
}
int refuse(int, void*) { return EPERM; }

task<> prepares() {
  int calls = 0;
  auto listener = co_await create_tcp_listener(
      {.local_host = "127.0.0.1", .prepare = count_calls, .prepare_data = &calls});
  CHECK(calls == 1);
  auto client = co_await connect_tcp("127.0.0.1", listener.local_port(),
                                     {.prepare = count_calls, .prepare_data = &calls});
  CHECK(calls == 2);
  auto refused = co_await as_result(connect_tcp("127.0.0.1", listener.local_port(), {.prepare = refuse}));
  CHECK(refused.error() == std::errc::operation_not_permitted);
}

}  // namespace

TEST_CASE("TCP streams and listeners have the documented members") { run(tcp_members); }
TEST_CASE("a TCP stream sends a file") {
  const support::temp_dir dir;
  run(sends_files(dir.path("file")));
}
TEST_CASE("bytes are relayed, copied and queued") { run(relays_and_queues); }
TEST_CASE("TCP errors name the step and the cause") { run(refusals); }
TEST_CASE("prepare is called for each socket") { run(prepares); }

TEST_CASE("a listener on an endpoint opens immediately") {
  loop l;
  result<tcp_listener> listener = tcp_listener::open({ip_address::loopback_v4()}, {.backlog = 5});
  CHECK(listener.has_value());
  CHECK(listener->local_port() != 0);
  result<tcp_listener> other = tcp_listener::open(listener->local_endpoints().at(0));
  CHECK(other.error() == std::errc::address_in_use);
  const int copy = ::dup(listener->native_handles().at(0));
  listener->close();
  result<tcp_listener> taken = tcp_listener::from_fd(copy);
  CHECK(taken.has_value());
}

TEST_CASE("from_fd reports errors, and then does not take the descriptor") {
  loop l;
  int ends[2];
  CHECK(::pipe(ends) == 0);
  CHECK_FALSE(tcp_stream::from_fd(ends[0]).has_value());
  CHECK_FALSE(unix_stream::from_fd(ends[0]).has_value());
  CHECK_FALSE(tcp_listener::from_fd(ends[0]).has_value());
  CHECK_FALSE(unix_listener::from_fd(ends[0]).has_value());
  CHECK_FALSE(tcp_stream::from_fd(-1).has_value());
  CHECK_FALSE(fd_stream::from_fd(-1).has_value());
  CHECK(::close(ends[0]) == 0);
  CHECK(::close(ends[1]) == 0);
  const int datagrams = ::socket(AF_INET, SOCK_DGRAM, 0);
  CHECK_FALSE(tcp_stream::from_fd(datagrams).has_value());
  CHECK(::close(datagrams) == 0);
  const int unconnected = ::socket(AF_INET, SOCK_STREAM, 0);
  CHECK_FALSE(tcp_stream::from_fd(unconnected).has_value());
  CHECK_FALSE(unix_stream::from_fd(unconnected).has_value());
  CHECK(::close(unconnected) == 0);
}

// ---- serve ----------------------------------------------------------------------------------------

namespace {

task<> upper(tcp_stream stream) {
  std::string text = co_await stream.receive();
  for (char& c : text) c = static_cast<char>(c - 'a' + 'A');
  co_await stream.send(text);
}

void just_count(tcp_stream) {}

struct greeter {
  explicit greeter(std::string text) : greeting(std::move(text)) {}
  std::string greeting;
  task<> operator()(tcp_stream stream) { co_await stream.send(greeting); }
};

struct const_greeter {
  task<> operator()(tcp_stream stream) const { co_await stream.send("const"); }
};

task<> answer_generic(auto stream) { co_await stream.send("generic"); }

task<std::string> one_talk(tcp_listener& listener) {
  tcp_stream client = co_await connect_tcp("127.0.0.1", listener.local_port());
  auto sent = co_await as_result(client.send("hello"));
  auto heard = co_await as_result(client.receive());
  co_return heard ? *heard : std::string(to_string(heard.error().code()));
}

template <class Handler>
task<std::string> talk_with(Handler handler) {
  auto listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
  task_group group;
  group.start_soon(listener.serve(std::move(handler), {.max_connections = 5}));
  std::string answer = co_await one_talk(listener);
  listener.close();
  co_await group.join();
  co_return answer;
}

task<> handlers_of_every_kind() {
  std::string answer = co_await talk_with(upper);
  CHECK(answer == "HELLO");
  answer = co_await talk_with(&upper);
  CHECK(answer == "HELLO");
  answer = co_await talk_with(greeter("a functor"));
  CHECK(answer == "a functor");
  answer = co_await talk_with(const_greeter{});
  CHECK(answer == "const");
  answer = co_await talk_with([](auto stream) { return answer_generic(std::move(stream)); });
  CHECK(answer == "generic");
  // Not inside the co_await expression: g++ 12 destroys a closure created there twice.
  auto capturing = [text = "captured"s](tcp_stream stream) -> task<> { co_await stream.send(text); };
  answer = co_await talk_with(std::move(capturing));
  CHECK(answer == "captured");
  auto owning = [owned = std::make_unique<std::string>("move-only")](tcp_stream stream) mutable -> task<> {
    co_await stream.send(*owned);
  };
  answer = co_await talk_with(std::move(owning));
  CHECK(answer == "move-only");
  answer = co_await talk_with([](auto stream) -> task<> { co_await stream.send("auto"); });
  CHECK(answer == "auto");
  answer = co_await talk_with(just_count);
  CHECK((answer == "end_of_stream" || answer == "broken_resource"));
  int calls = 0;
  answer = co_await talk_with([&calls](tcp_stream) { ++calls; });
  CHECK(calls == 1);
}

task<> errors_of_handlers() {
  auto listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
  task_group group;
  std::vector<error> seen;
  group.start_soon(
      listener.serve([](tcp_stream) -> task<> { co_await raise(error(errc::os_error, ENOENT, "handler")); },
                     [&seen](const error& e) { seen.push_back(e); }, {.max_connections = 2}));
  co_await one_talk(listener);
  co_await one_talk(listener);
  auto busy = co_await as_result(listener.accept());
  CHECK(busy.error() == errc::busy_resource);
  while (seen.size() < 2) co_await sleep(1ms);
  CHECK(seen.at(0) == std::errc::no_such_file_or_directory);
  CHECK(seen.at(1).message().starts_with("handler: no such file"));
  CHECK(seen.at(1).message().ends_with("(ENOENT)"));
  listener.close();
  co_await group.join();
}

#if defined(__cpp_exceptions)
struct both_errors {
  std::vector<std::string>& seen;
  void operator()(const error& e) const { seen.emplace_back(to_string(e.code())); }
  void operator()(std::exception_ptr e) const {
    try {
      std::rethrow_exception(e);
    } catch (const std::exception& what) {
      seen.emplace_back(what.what());
    }
  }
};

task<> throws(tcp_stream stream) {
  const std::string text = co_await stream.receive();
  if (text == "hello") throw std::runtime_error("foreign");
}

task<> foreign_exceptions_of_handlers() {
  auto listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
  std::vector<std::string> seen;
  task_group group;
  group.start_soon(listener.serve(throws, both_errors{seen}));
  const std::string answer = co_await one_talk(listener);
  CHECK(seen == std::vector<std::string>{"foreign"});
  listener.close();
  co_await group.join();
}
#endif

task<> graceful_stop() {
  auto listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
  event finish;
  int done = 0;
  task_group group;
  group.start_soon(listener.serve([&](tcp_stream stream) -> task<> {
    co_await stream.send("ready");
    co_await finish.wait();
    ++done;
  }));
  tcp_stream client = co_await connect_tcp("127.0.0.1", listener.local_port());
  const std::string ready = co_await client.receive();
  CHECK(ready == "ready");
  listener.close();
  bool stopped = co_await move_on_after(1ms, group.join());
  CHECK_FALSE(stopped);
  finish.set();
  stopped = co_await move_on_after(10s, group.join());
  CHECK(stopped);
  CHECK(done == 1);
}

}  // namespace

TEST_CASE("a handler can be a function, a functor or a lambda, and a coroutine or not") {
  run(handlers_of_every_kind);
}
TEST_CASE("errors of handlers are reported and do not affect other connections") { run(errors_of_handlers); }
#if defined(__cpp_exceptions)
TEST_CASE("foreign exceptions of handlers are passed to an on_error that accepts them") {
  run(foreign_exceptions_of_handlers);
}
#endif
TEST_CASE("closing the listener and joining stops the server gracefully") { run(graceful_stop); }

// ---- UNIX -----------------------------------------------------------------------------------------

namespace {

task<> unix_members(std::string path) {
  unix_listener listener =
      co_await create_unix_listener(path, {.mode = 0600, .backlog = 8, .unlink_on_close = true});
  CHECK(listener.local_path() == path);
  CHECK(listener.native_handle() >= 0);
  struct stat status;
  CHECK(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);

  unix_stream client = co_await connect_unix(path);
  unix_stream server = co_await listener.accept();
  CHECK(client.remote_path() == path);
  CHECK(server.local_path() == path);
  CHECK(client.local_path().empty());
  CHECK(server.remote_path().empty());
  const result<peer_credentials> peer = server.credentials();
  CHECK(peer.has_value());
  CHECK(peer->pid == ::getpid());
  CHECK(peer->uid == ::getuid());
  CHECK(peer->gid == ::getgid());
  const auto [pid, uid, gid] = *peer;
  CHECK(pid == ::getpid());
  CHECK(uid == ::getuid());
  CHECK(gid == ::getgid());

  int ends[2];
  CHECK(::pipe(ends) == 0);
  const unique_fd reading(ends[0]);
  unique_fd writing(ends[1]);
  const int fds[] = {reading.get(), writing.get()};
  co_await client.send_fds("two", fds);
  fd_message message = co_await server.receive_fds(100, 4);
  CHECK(message.data == "two");
  CHECK(message.fds.size() == 2);
  CHECK((::fcntl(message.fds.at(0).get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(::write(message.fds.at(1).get(), "x", 1) == 1);
  co_await wait_readable(reading.get());

  co_await client.send_fds("one", std::span(fds).first(1));
  auto [data, received] = co_await server.receive_fds(100, 1);
  CHECK(data == "one");
  CHECK(received.size() == 1);
  unique_fd mine = std::move(received[0]);
  CHECK(static_cast<bool>(mine));
  CHECK_FALSE(static_cast<bool>(received[0]));
  CHECK(::close(mine.release()) == 0);
  CHECK_FALSE(static_cast<bool>(mine));
  CHECK_FALSE(static_cast<bool>(unique_fd()));

  co_await client.send_fds("many", fds);
  auto truncated = co_await as_result(server.receive_fds(100, 1));
  CHECK(truncated.error() == errc::fds_truncated);
  auto none = co_await as_result(client.send_fds("", fds));
  CHECK(none.error() == errc::invalid_argument);
  none = co_await as_result(client.send_fds("x", std::span<const int>()));
  CHECK(none.error() == errc::invalid_argument);
  auto zero = co_await as_result(server.receive_fds(1, 0));
  CHECK(zero.error() == errc::invalid_argument);

  auto live = co_await as_result(create_unix_listener(path));
  CHECK(live.error() == errc::os_error);
  CHECK(live.error() == std::errc::address_in_use);
  listener.close();
  CHECK(::access(path.c_str(), F_OK) == -1);
}

task<> unix_paths(std::string path) {
  {
    auto listener = co_await create_unix_listener(path);
    CHECK(static_cast<bool>(listener));
  }
  CHECK(::access(path.c_str(), F_OK) == 0);
  auto refused = co_await as_result(connect_unix(path));
  CHECK(refused.error() == std::errc::connection_refused);
  auto listener = co_await create_unix_listener(path);
  auto connected = co_await as_result(connect_unix(path));
  CHECK(connected.has_value());
  const auto fd = ::dup(listener.native_handle());
  result<unix_listener> second = unix_listener::from_fd(fd);
  CHECK(second.has_value());
  CHECK(second->local_path() == path);

  auto too_long = co_await as_result(connect_unix(std::string(200, 'x')));
  CHECK(too_long.error() == errc::os_error);
  CHECK(too_long.error().os_error() == ENAMETOOLONG);
  too_long = co_await as_result(connect_unix(path + ".missing"));
  CHECK(too_long.error() == std::errc::no_such_file_or_directory);
#if defined(__linux__)
  const std::string abstract = "\0anyio_net_test_"s + path;
  auto hidden = co_await create_unix_listener(abstract);
  CHECK(hidden.local_path() == abstract);
  auto found = co_await connect_unix(abstract);
  CHECK(found.remote_path() == abstract);
#endif
}

task<> unix_serve(std::string path) {
  auto listener = co_await create_unix_listener(std::string_view(path), {});
  task_group group;
  error met;
  group.start_soon(listener.serve([](unix_stream stream) -> task<> { co_await stream.send("served"); },
                                  [&met](const error& e) { met = e; }));
  auto client = co_await connect_unix(path);
  const std::string text = co_await client.receive();
  CHECK(text == "served");
  listener.close();
  co_await group.join();
  CHECK(met == errc::ok);
}

}  // namespace

TEST_CASE("UNIX streams and listeners have the documented members") {
  const support::temp_dir dir;
  run(unix_members(dir.path("socket")));
}
TEST_CASE("a stale socket file is replaced, and other files are not") {
  const support::temp_dir dir;
  run(unix_paths(dir.path("socket")));
}
TEST_CASE("a UNIX listener can serve") {
  const support::temp_dir dir;
  run(unix_serve(dir.path("socket")));
}
