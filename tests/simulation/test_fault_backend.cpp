// Faults over the machine's own sockets: legal faults happen, and a correct program works.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/custom_backend.hpp"
#include "support/emulator.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::byte_stream;
using anyio::errc;
using anyio::task;
using anyio::detail::faulty_backend;
using anyio::detail::sim_choices;
using anyio::sim::faults;
using support::by_callback;
using support::by_coroutine;
using support::loopback;
using support::scripted_backend;

std::unique_ptr<anyio::backend> with(const faults& f, std::uint64_t seed = 1) {
  return anyio::fault_backend(anyio::system_backend(), {.seed = seed, .faults = f});
}

std::string pattern(std::size_t size, std::uint64_t seed = 1) {
  std::string text(size, '\0');
  std::uint64_t state = seed;
  for (char& c : text) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    c = static_cast<char>(state >> 56);
  }
  return text;
}

struct two_ends {
  std::unique_ptr<byte_stream> a, b;
};

struct tcp_ends {
  static constexpr bool both_ways = true;
  static two_ends make() {
    auto listener = anyio::tcp_listener::open(loopback()).value();
    auto a = by_coroutine::get(anyio::connect_tcp(loopback(listener.local_port()))).value();
    auto b = by_coroutine::get(listener.accept()).value();
    return {std::make_unique<anyio::tcp_stream>(std::move(a)),
            std::make_unique<anyio::tcp_stream>(std::move(b))};
  }
};

struct unix_ends {
  static constexpr bool both_ways = true;
  static two_ends make() {
    auto pair = anyio::create_unix_stream_pair().value();
    return {std::make_unique<anyio::unix_stream>(std::move(pair.first)),
            std::make_unique<anyio::unix_stream>(std::move(pair.second))};
  }
};

struct memory_ends {
  static constexpr bool both_ways = true;
  static two_ends make() {
    auto [a, b] = anyio::create_memory_stream_pair(1000);
    return {std::make_unique<anyio::memory_stream>(std::move(a)),
            std::make_unique<anyio::memory_stream>(std::move(b))};
  }
};

/// A pipe: `a` writes, `b` reads.
struct pipe_ends {
  static constexpr bool both_ways = false;
  static two_ends make() {
    int fds[2];
    CHECK(::pipe(fds) == 0);
    auto reader = anyio::fd_stream::from_fd(fds[0]).value();
    auto writer = anyio::fd_stream::from_fd(fds[1]).value();
    return {std::make_unique<anyio::fd_stream>(std::move(writer)),
            std::make_unique<anyio::fd_stream>(std::move(reader))};
  }
};

/// The bytes a receiver got, and the error that ended it.
struct received {
  std::string text;
  anyio::error end;
};

task<> send_all(byte_stream& to, std::string_view data, anyio::error& failure) {
  std::size_t piece = 1;
  while (!data.empty()) {
    const std::string_view part = data.substr(0, piece);
    if (piece % 3 == 0) {
      const anyio::const_buffer two[] = {part.substr(0, piece / 3),
                                         part.substr(std::min(piece / 3, part.size()))};
      const auto sent = co_await anyio::as_result(to.send(std::span<const anyio::const_buffer>(two)));
      failure = sent.error();
    } else {
      const auto sent = co_await anyio::as_result(to.send(part));
      failure = sent.error();
    }
    if (failure.code() != errc::ok) co_return;
    data.remove_prefix(part.size());
    piece = piece * 2 % 30011;
  }
  const auto ended = co_await anyio::as_result(to.send_eof());
  if (ended.error() == errc::not_supported) {
    to.close();
  } else {
    failure = ended.error();
  }
}

task<> receive_all(byte_stream& from, received& out) {
  std::string room(5000, '\0');
  for (int i = 0;; ++i) {
    if (i % 3 == 0) {
      const auto r = co_await anyio::as_result(from.receive(room));
      if (r) out.text.append(room, 0, *r);
      out.end = r.error();
    } else if (i % 3 == 1) {
      const auto r = co_await anyio::as_result(from.receive(700));
      if (r) out.text += *r;
      out.end = r.error();
    } else {
      const auto r = co_await anyio::as_result(from.receive_view());
      if (r) out.text += *r;
      out.end = r.error();
    }
    if (out.end.code() != errc::ok) co_return;
  }
}

/// Each kind of fault that a stream should hide, by itself and together.
constexpr faults harmless[] = {
    {.short_io = 0.5},
    {.short_io = 1},
    {.would_block = 0.4},
    {.would_block = 1},
    {.interrupted = 0.4},
    {.interrupted = 1},
    {.short_io = 0.3, .would_block = 0.3, .interrupted = 0.3},
    {.short_io = 1, .would_block = 1, .interrupted = 1},
};

TEST_CASE_TEMPLATE("a stream carries all bytes in order under all harmless faults", Ends, tcp_ends, unix_ends,
                   memory_ends, pipe_ends) {
  const std::string there = pattern(60000, 1), back = pattern(50000, 2);
  for (const faults& f : harmless) {
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      anyio::loop loop(with(f, seed));
      two_ends ends = Ends::make();
      received at_a, at_b;
      anyio::error from_a, from_b;
      anyio::task_group group;
      group.start_soon(send_all(*ends.a, there, from_a));
      group.start_soon(receive_all(*ends.b, at_b));
      if (Ends::both_ways) {
        group.start_soon(send_all(*ends.b, back, from_b));
        group.start_soon(receive_all(*ends.a, at_a));
      }
      CHECK(by_callback::get(group.join()));
      CHECK((at_b.text == there));
      CHECK(at_b.end == errc::end_of_stream);
      CHECK(from_a.code() == errc::ok);
      if (!Ends::both_ways) continue;
      CHECK((at_a.text == back));
      CHECK(at_a.end == errc::end_of_stream);
      CHECK(from_b.code() == errc::ok);
    }
  }
}

TEST_CASE("short calls vary in size: they are not all reads of one byte") {
  struct sizes_seen : support::custom_backend {
    std::vector<std::size_t>* sizes = nullptr;
    ssize_t send(int fd, const void* data, std::size_t size) override {
      sizes->push_back(size);
      return custom_backend::send(fd, data, size);
    }
  };
  const auto run = [](std::uint64_t seed) {
    std::vector<std::size_t> sizes;
    auto inner = std::make_unique<sizes_seen>();
    inner->sizes = &sizes;
    anyio::loop loop(anyio::fault_backend(std::move(inner), {.seed = seed, .faults = {.short_io = 0.5}}));
    two_ends ends = tcp_ends::make();
    for (int i = 0; i < 20; ++i) CHECK(by_callback::get(ends.a->send(pattern(100))));
    CHECK(std::any_of(sizes.begin(), sizes.end(), [](std::size_t n) { return n > 1 && n < 100; }));
    CHECK(std::all_of(sizes.begin(), sizes.end(), [](std::size_t n) { return n >= 1 && n <= 100; }));
    return sizes;
  };
  const auto first = run(7);
  CHECK(first == run(7));
  CHECK(first != run(8));
}

TEST_CASE("faults of probability 0 make no random draws and change nothing") {
  auto choices = std::make_shared<sim_choices>(1, std::span<const std::uint8_t>());
  {
    anyio::loop loop(faulty_backend::make(anyio::system_backend(), choices, faults{}));
    two_ends ends = tcp_ends::make();
    CHECK(by_callback::get(ends.a->send("hello")));
    CHECK(by_callback::get(ends.b->receive()).value_or("") == "hello");
    auto udp = anyio::udp_socket::open(loopback()).value();
    CHECK(by_callback::get(udp.send_to("datagram", udp.local_endpoint())));
    CHECK(by_callback::get(udp.receive()).value_or(anyio::udp_packet()).data == "datagram");
    auto [a, b] = anyio::create_memory_stream_pair();
    CHECK(by_callback::get(a.send("memory")));
    CHECK(by_callback::get(b.receive()).value_or("") == "memory");
  }
  CHECK(choices->taken().empty());
}

TEST_CASE("exhausted input causes no faults") {
  const std::uint8_t none = 0;
  anyio::loop loop(anyio::fault_backend(
      anyio::system_backend(),
      {.choices = std::span<const std::uint8_t>(&none, 0),
       .faults = {
           .short_io = 0.99, .would_block = 0.99, .reset = 0.99, .drop = 0.99, .accept_exhausted = 0.99}}));
  two_ends ends = tcp_ends::make();
  CHECK(by_callback::get(ends.a->send("all of it")));
  CHECK(by_callback::get(ends.b->receive()).value_or("") == "all of it");
}

TEST_CASE("a null backend stays null") { CHECK(anyio::fault_backend(nullptr, {}) == nullptr); }

// --- resets

template <class Ends>
int resets_of(bool peer_notices) {
  const std::string there = pattern(20000, 3), back = pattern(20000, 4);
  int resets = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    anyio::loop loop(with({.short_io = 0.5, .would_block = 0.2, .reset = 0.02}, seed));
    two_ends ends = Ends::make();
    received at_a, at_b;
    anyio::error from_a, from_b;
    anyio::task_group group;
    group.start_soon(send_all(*ends.a, there, from_a));
    group.start_soon(receive_all(*ends.b, at_b));
    group.start_soon(send_all(*ends.b, back, from_b));
    group.start_soon(receive_all(*ends.a, at_a));
    CHECK(by_callback::get(group.join()));
    struct side {
      byte_stream& stream;
      const received& got;
      const anyio::error& sending;
      const std::string& sent;
      const anyio::error& of_sender;
    };
    for (const side& s :
         {side{*ends.a, at_a, from_a, back, from_b}, side{*ends.b, at_b, from_b, there, from_a}}) {
      CHECK((s.sent.compare(0, s.got.text.size(), s.got.text) == 0));
      const bool ended = s.got.end == errc::end_of_stream;
      const bool broken = s.got.end == errc::broken_resource;
      CHECK((ended || broken));
      if (ended && s.of_sender.code() == errc::ok) CHECK(s.got.text.size() == s.sent.size());
      if (ended && peer_notices) CHECK(s.got.text.size() == s.sent.size());
      if (broken) {
        ++resets;
        CHECK((s.got.end == std::errc::connection_reset || s.got.end == std::errc::broken_pipe));
      }
      if (s.sending.code() != errc::ok) CHECK(s.sending == errc::broken_resource);
      // After a reset was reported, it is reported again, and no more bytes are received.
      for (int i = 0; i < 2; ++i) {
        const auto more = by_callback::get(s.stream.receive());
        CHECK(more.error().code() == s.got.end.code());
        CHECK(more.error().os_error() == s.got.end.os_error());
      }
      if (broken) CHECK(by_callback::get(s.stream.send("x")).error() != errc::ok);
    }
  }
  return resets;
}

TEST_CASE("a TCP reset breaks both ends, and neither reports missing bytes as the end") {
  CHECK(resets_of<tcp_ends>(true) > 10);
}

TEST_CASE("a UNIX reset breaks the end that met it, and no wrong bytes are received") {
  CHECK(resets_of<unix_ends>(false) > 5);
}

TEST_CASE("after a reset all calls return ECONNRESET, even if bytes were available") {
  for (const bool unix_stream : {false, true}) {
    auto made = faulty_backend::make(
        anyio::system_backend(), std::make_shared<sim_choices>(1, std::span<const std::uint8_t>()), faults{});
    faulty_backend& system = *made;
    anyio::loop loop(std::move(made));
    two_ends ends = unix_stream ? unix_ends::make() : tcp_ends::make();
    CHECK(by_callback::get(ends.a->send("lost")));
    system.faults.reset = 1;
    for (int i = 0; i < 3; ++i) {
      const auto r = by_callback::get(ends.b->receive());
      CHECK(r.error() == errc::broken_resource);
      CHECK(r.error() == std::errc::connection_reset);
      const auto sent = by_callback::get(ends.b->send("x"));
      CHECK(sent.error() == errc::broken_resource);
      CHECK(sent.error() == std::errc::connection_reset);
    }
    CHECK(by_callback::get(ends.b->aclose()));
  }
}

TEST_CASE("a UNIX stream that could not send reports the reset, then and later") {
  anyio::loop loop;
  auto pair = anyio::create_unix_stream_pair().value();
  CHECK(by_callback::get(pair.first.send("never read")));
  pair.second.close();
  CHECK(by_callback::get(pair.first.send("x")).error() == std::errc::broken_pipe);
  for (int i = 0; i < 3; ++i) {
    const auto r = by_callback::get(pair.first.receive());
    CHECK(r.error() == errc::broken_resource);
    CHECK(r.error() == std::errc::connection_reset);
  }
}

// --- accepting

TEST_CASE("accepting pauses without descriptors, does not spin, and loses no client") {
  auto scripted = std::make_unique<scripted_backend>();
  scripted_backend& inner = *scripted;
  inner.virtual_time = true;
  auto made = faulty_backend::make(
      std::move(scripted), std::make_shared<sim_choices>(1, std::span<const std::uint8_t>()), faults{});
  faulty_backend& system = *made;
  anyio::loop loop(std::move(made));
  auto listener = anyio::tcp_listener::open(loopback()).value();
  std::vector<anyio::tcp_stream> clients;
  for (int i = 0; i < 5; ++i)
    clients.push_back(by_coroutine::get(anyio::connect_tcp(loopback(listener.local_port()))).value());

  system.faults.accept_exhausted = 1;
  std::vector<anyio::tcp_stream> accepted;
  support::waiting<anyio::tcp_stream> one;
  by_callback::start(listener.accept(), one);
  const anyio::time_point begun = anyio::now();
  inner.waits = inner.accepts = 0;
  while (anyio::now() - begun < 10s) loop.run_once(1s);
  CHECK(!one.done());
  CHECK(inner.accepts == 0);  // all were refused above it
  CHECK(inner.waits < 500);

  system.faults = {};
  accepted.push_back(one.get().value());
  for (int i = 1; i < 5; ++i) accepted.push_back(by_callback::get(listener.accept()).value());
  CHECK(anyio::now() - begun < 11s);

  system.faults.accept_exhausted = 1;
  CHECK(by_callback::get(anyio::connect_tcp(loopback(1))).error() == errc::os_error);
  const auto pair = anyio::create_unix_stream_pair();
  CHECK(pair.error() == errc::os_error);
  const int why = pair.error().os_error();
  CHECK((why == EMFILE || why == ENFILE || why == ENOBUFS || why == ENOMEM));
}

TEST_CASE("all clients are served although accept often fails") {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    auto scripted = std::make_unique<scripted_backend>();
    scripted->virtual_time = true;
    auto made = faulty_backend::make(
        std::move(scripted), std::make_shared<sim_choices>(seed, std::span<const std::uint8_t>()), faults{});
    faulty_backend& system = *made;
    anyio::loop loop(std::move(made));
    auto listener = anyio::tcp_listener::open(loopback()).value();
    std::vector<anyio::tcp_stream> clients;
    for (int i = 0; i < 20; ++i)
      clients.push_back(by_coroutine::get(anyio::connect_tcp(loopback(listener.local_port()))).value());
    system.faults = {.would_block = 0.3, .interrupted = 0.3, .accept_exhausted = 0.5};
    support::waiting<void> serving;
    const auto handler = [](anyio::tcp_stream s) -> task<> { co_await s.send("hi"); };
    by_coroutine::start(listener.serve(handler), serving);
    for (anyio::tcp_stream& c : clients) CHECK(by_callback::get(c.receive()).value_or("") == "hi");
    listener.close();
    CHECK(serving.get());
  }
}

// --- names

TEST_CASE("name look-ups fail with the set probability; addresses and localhost never fail") {
  int failed = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    auto scripted = std::make_unique<scripted_backend>();
    scripted->on_resolve = [](const std::string&, std::uint16_t port, int) {
      return anyio::detail::resolved{{loopback(port)}, 0, nullptr};
    };
    anyio::loop loop(
        anyio::fault_backend(std::move(scripted), {.seed = seed, .faults = {.name_failure = 0.5}}));
    const auto r = by_coroutine::get(anyio::getaddrinfo("somewhere.example", 80));
    if (r) {
      CHECK(r->size() == 1);
    } else {
      CHECK(r.error() == errc::name_resolution);
      ++failed;
    }
    CHECK(by_coroutine::get(anyio::getaddrinfo("localhost", 80)));
    CHECK(by_coroutine::get(anyio::getaddrinfo("192.0.2.1", 80)));
  }
  CHECK(failed > 2);
  CHECK(failed < 18);
}

// --- datagrams

task<> collect(anyio::udp_socket& from, std::vector<std::string>& got) {
  for (;;) {  // sent datagrams are available at once on the loopback interface
    auto r = co_await anyio::move_on_after(0ms, from.receive());
    if (!r) co_return;
    got.push_back(r->data);
  }
}

template <class Socket>
task<> send_numbers(Socket& from, int count, std::optional<anyio::ip_endpoint> to) {
  for (int i = 0; i < count; ++i) {
    std::string text = std::to_string(i);
    if constexpr (std::is_same_v<Socket, anyio::udp_socket>) {
      co_await from.send_to(std::move(text), *to);
    } else {
      co_await from.send(std::move(text));
    }
  }
}

enum class way { connected, unconnected, batch };

/// Which of this many numbered datagrams arrive.
std::vector<std::string> udp_exchange(const faults& f, int count, way how) {
  anyio::loop loop(with(f));
  auto receiver = anyio::udp_socket::open(loopback()).value();
  std::vector<std::string> got;
  if (how == way::connected) {
    auto sender = by_coroutine::get(anyio::create_connected_udp_socket(receiver.local_endpoint())).value();
    CHECK(by_callback::get(send_numbers(sender, count, std::nullopt)));
  } else {
    auto sender = anyio::udp_socket::open(loopback()).value();
    if (how == way::unconnected) {
      CHECK(by_callback::get(send_numbers(sender, count, receiver.local_endpoint())));
    } else {
      anyio::udp_batch batch(64);
      for (int i = 0; i < count; ++i) {
        std::string text = std::to_string(i);
        text.resize(static_cast<std::size_t>(2 + i), '.');  // of different sizes: sent one by one
        CHECK(batch.push(text, receiver.local_endpoint()));
      }
      CHECK(by_callback::get(sender.send_batch(batch)).value_or(0) == static_cast<std::size_t>(count));
    }
  }
  support::settle();
  CHECK(by_callback::get(collect(receiver, got)));
  for (std::string& text : got) text.resize(std::min(text.find('.'), text.size()));
  return got;
}

using texts = std::vector<std::string>;
constexpr way ways[] = {way::connected, way::unconnected, way::batch};

TEST_CASE("an IP datagram may be lost, although its send succeeded") {
  for (const way how : ways) {
    CHECK(udp_exchange({.drop = 1}, 4, how).empty());
    CHECK(udp_exchange({}, 4, how) == texts{"0", "1", "2", "3"});
    const texts some = udp_exchange({.drop = 0.5}, 40, how);
    CHECK(some.size() > 5);
    CHECK(some.size() < 35);
  }
}

TEST_CASE("an IP datagram may arrive twice") {
  for (const way how : ways)
    CHECK(udp_exchange({.duplicate = 1}, 3, how) == texts{"0", "0", "1", "1", "2", "2"});
}

TEST_CASE("an IP datagram may arrive after the next one, and the last one arrives in the end") {
  for (const way how : ways) CHECK(udp_exchange({.reorder = 1}, 5, how) == texts{"1", "0", "3", "2", "4"});
}

TEST_CASE("datagrams are never truncated, and would-block and interruptions lose none") {
  for (const way how : ways) {
    const texts all =
        udp_exchange({.short_io = 1, .would_block = 0.5, .interrupted = 0.5, .reset = 1}, 30, how);
    CHECK(all.size() == 30);
    for (std::size_t i = 0; i < all.size(); ++i) CHECK(all[i] == std::to_string(i));
  }
}

TEST_CASE("segmented datagrams meet the same faults, each as a whole") {
  if (support::emulator_has(support::emulator_fault::udp_control)) return;
  const auto arrived = [](const faults& f) {
    anyio::loop loop(with(f));
    auto receiver = anyio::udp_socket::open(loopback()).value();
    auto sender = anyio::udp_socket::open(loopback()).value();
    anyio::udp_batch batch(16);
    for (const char* text : {"same", "size", "each"}) CHECK(batch.push(text, receiver.local_endpoint()));
    CHECK(by_callback::get(sender.send_batch(batch)).value_or(0) == 3);
    support::settle();
    texts got;
    CHECK(by_callback::get(collect(receiver, got)));
    return got;
  };
  CHECK(arrived({}) == texts{"same", "size", "each"});
  CHECK(arrived({.reorder = 1}) == texts{"same", "size", "each"});
  CHECK(arrived({.duplicate = 1}) == texts{"same", "size", "each", "same", "size", "each"});
  CHECK(arrived({.drop = 1}).empty());
}

TEST_CASE("a datagram that is too large is rejected, not lost or delayed") {
  for (const faults& f : {faults{.reorder = 1}, faults{.drop = 1}}) {
    anyio::loop loop(with(f));
    auto receiver = anyio::udp_socket::open(loopback()).value();
    auto sender = anyio::udp_socket::open(loopback()).value();
    const auto sent = by_callback::get(sender.send_to(std::string(66000, 'l'), receiver.local_endpoint()));
    CHECK_FALSE(sent);
    if (!sent) CHECK(sent.error() == std::errc::message_size);
  }
}

TEST_CASE("a delayed datagram is sent before its descriptor is closed") {
  anyio::loop loop(with({.reorder = 1}));
  auto receiver = anyio::udp_socket::open(loopback()).value();
  auto sender = by_coroutine::get(anyio::create_connected_udp_socket(receiver.local_endpoint())).value();
  auto held = sender.send("held");
  held.start([](anyio::result<void>) {});
  sender.close();
  texts got;
  CHECK(by_callback::get(collect(receiver, got)));
  CHECK(got == texts{"held"});
}

TEST_CASE("UNIX datagrams keep their order and none is lost") {
  support::temp_dir dir;
  const std::string at = dir.path("receiver");
  anyio::loop loop(with({.short_io = 1,
                         .would_block = 0.3,
                         .interrupted = 0.3,
                         .reset = 1,
                         .drop = 1,
                         .duplicate = 1,
                         .reorder = 1}));
  auto receiver = anyio::unix_datagram_socket::open({.local_path = at}).value();
  auto sender = anyio::connected_unix_datagram_socket::open(at).value();
  auto other = anyio::unix_datagram_socket::open().value();
  anyio::task_group group;
  texts got;
  const auto send = [&]() -> task<> {
    for (int i = 0; i < 50; ++i) {
      std::string text = pattern(static_cast<std::size_t>(i * 37), static_cast<std::uint64_t>(i));
      if (i % 2 == 0) {
        co_await sender.send(text);
      } else {
        co_await other.send_to(text, at);
      }
    }
  };
  const auto receive = [&]() -> task<> {
    while (got.size() < 50) {
      auto packet = co_await receiver.receive();
      got.push_back(packet.data);
    }
  };
  group.start_soon(send);
  group.start_soon(receive);
  CHECK(by_callback::get(group.join()));
  for (std::size_t i = 0; i < got.size(); ++i) CHECK((got[i] == pattern(i * 37, i)));
}

// --- descriptors in messages

TEST_CASE("descriptors arrive once each, although the message around them is split") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    anyio::loop loop(with({.short_io = 0.7, .would_block = 0.3}, seed));
    auto pair = anyio::create_unix_stream_pair().value();
    int pipe[2];
    CHECK(::pipe(pipe) == 0);
    const std::string text = pattern(3000, seed);
    const int both[] = {pipe[0], pipe[1]};
    std::string got;
    std::vector<anyio::unique_fd> fds;
    const auto receive = [&]() -> task<> {
      while (got.size() < text.size()) {
        auto m = co_await pair.second.receive_fds(1000, 2);
        got += m.data;
        for (anyio::unique_fd& fd : m.fds) fds.push_back(std::move(fd));
      }
    };
    support::waiting<void> receiving;
    by_coroutine::start(receive(), receiving);
    CHECK(by_callback::get(pair.first.send_fds(text, both)));
    CHECK(receiving.get());
    CHECK((got == text));
    CHECK(fds.size() == 2);
    for (const int fd : pipe) ::close(fd);
  }
}

TEST_CASE("a postponed peek is not taken for the end") {
  anyio::loop loop(with({.would_block = 1}));
  auto pair = anyio::create_unix_stream_pair().value();
  CHECK(by_callback::get(pair.first.send("still there")));
  const auto none = by_callback::get(pair.second.receive_fds(0, 1));
  CHECK(none);
  if (none) CHECK(none->data.empty());
  CHECK(by_callback::get(pair.second.receive()).value_or("") == "still there");
  pair.first.close();
  CHECK(by_callback::get(pair.second.receive_fds(0, 1)).error() == errc::end_of_stream);
}

TEST_CASE("a peek that meets a reset reports it") {
  auto made = faulty_backend::make(
      anyio::system_backend(), std::make_shared<sim_choices>(1, std::span<const std::uint8_t>()), faults{});
  faulty_backend& system = *made;
  anyio::loop loop(std::move(made));
  auto pair = anyio::create_unix_stream_pair().value();
  CHECK(by_callback::get(pair.first.send("lost")));
  anyio::detail::fault_at_call second_call{.call = 2};
  system.one_failure = &second_call;
  const auto r = by_callback::get(pair.second.receive_fds(0, 1));
  CHECK(r.error() == errc::broken_resource);
  CHECK(r.error() == std::errc::connection_reset);
  system.one_failure = nullptr;
}

// --- waiting

TEST_CASE("timers and posted calls run although every wait is interrupted") {
  anyio::loop loop(with({.interrupted = 1}));
  CHECK(by_callback::get(anyio::sleep(1ms)));
  bool ran = false;
  loop.post([&] { ran = true; });
  support::settle();
  CHECK(ran);
  anyio::event never;
  CHECK(by_callback::get(anyio::fail_after(1ms, never.wait())).error() == errc::timed_out);
}

}  // namespace
