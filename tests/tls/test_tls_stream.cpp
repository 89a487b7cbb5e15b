// The promises of TLS streams, with the toy engine: beginning, ending, truncation, unwrapping.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/conformance.hpp"
#include "support/faces.hpp"
#include "support/sockets.hpp"
#include "support/toy_streams.hpp"

namespace {

using namespace std::chrono_literals;
using anyio::errc;
using anyio::memory_stream;
using anyio::result;
using anyio::task;
using anyio::tls_options;
using anyio::tls_stream;
using support::by_callback;
using support::by_coroutine;
using support::settle;
using support::toy_bytes;
using support::toy_client;
using support::toy_options;
using support::toy_record;
using support::toy_records;
using support::toy_server;
using support::waiting;

template <class Face, class Op>
errc code(Op op) {
  return Face::get(std::move(op)).error().code();
}

/// A transport, and its other end.
struct pipe {
  std::unique_ptr<memory_stream> near;
  memory_stream far;
  explicit pipe(std::size_t capacity = 65536) {
    auto [a, b] = anyio::create_memory_stream_pair(capacity);
    near = std::make_unique<memory_stream>(std::move(a));
    far = std::move(b);
  }
  /// The bytes that have arrived at the other end.
  std::string at_far() {
    std::string all;
    for (;;) {
      settle();
      auto r = by_callback::get(anyio::move_on_after(0ms, far.receive()));
      if (!r || !*r) return all;
      all += **r;
    }
  }
  bool far_ends() { return code<by_callback>(far.receive()) == errc::end_of_stream; }
  void feed(std::string_view bytes) { CHECK(by_callback::get(far.send(bytes))); }
};

/// A client after a handshake with the test, which plays the server.
struct played {
  anyio::loop loop;
  pipe wire;
  tls_stream stream;

  explicit played(bool standard_compatible = true, std::size_t capacity = 65536,
                  const char* version = "TLSv1.3")
      : wire(capacity) {
    const auto context = toy_client();
    context->version = version;
    waiting<tls_stream> shaking;
    by_callback::start(
        tls_stream::wrap_client(std::move(wire.near), context, toy_options(standard_compatible)), shaking);
    CHECK(toy_records(wire.at_far()) == "H");
    wire.feed(support::toy_server_hello());
    auto r = shaking.get();
    CHECK(r);
    if (r) stream = *std::move(r);
  }
  std::string records() { return toy_records(wire.at_far()); }
};

// ---- beginning ----------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("tls: a handshake of both ends, and the agreed settings", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  pipe p;
  waiting<tls_stream> server;
  Face::start(
      tls_stream::wrap_server(std::make_unique<memory_stream>(std::move(p.far)), toy_server(), toy_options()),
      server);
  auto a = Face::get(tls_stream::wrap_client(std::move(p.near), toy_client(), toy_options()));
  auto b = server.get();
  CHECK(a);
  CHECK(b);
  if (!a || !b) return;
  for (int i = 0; i < 2; ++i) {
    const anyio::tls_info client_info = a->info();
    CHECK(client_info.version == "TLSv1.3");
    CHECK(client_info.cipher == "TOY_XOR");
    CHECK(client_info.server_name == support::toy_name);
    CHECK(client_info.peer_certificate_der == support::toy_name);
    CHECK(!client_info.server_side);
    CHECK(b->info().server_side);
    CHECK(b->info().server_name == support::toy_name);
    a->close();  // it stays
    b->close();
  }
  CHECK(tls_stream().info().version.empty());
}

TEST_CASE_TEMPLATE("tls: invalid arguments of a handshake", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  const auto client = [&](std::unique_ptr<anyio::byte_stream> transport,
                          std::shared_ptr<anyio::tls_context> context, tls_options options = toy_options()) {
    return code<Face>(tls_stream::wrap_client(std::move(transport), std::move(context), options));
  };
  CHECK(code<Face>(anyio::tls_wrap_operation()) == errc::invalid_argument);
  CHECK(client(nullptr, toy_client()) == errc::closed_resource);
  CHECK(client(std::make_unique<memory_stream>(), toy_client()) == errc::closed_resource);
  pipe p;
  CHECK(client(std::move(p.near), nullptr) == errc::invalid_argument);
  CHECK(p.far_ends());
  p = pipe();
  CHECK(client(std::move(p.near), toy_client(), {}) == errc::invalid_argument);
  CHECK(p.at_far() == "");
  CHECK(p.far_ends());
  p = pipe();
  const std::string impossible(1000, 'n');
  tls_options with_it;
  with_it.server_name = impossible;
  CHECK(client(std::move(p.near), toy_client(), with_it) == errc::invalid_argument);
  CHECK(p.far_ends());
  p = pipe();
  const auto no_certificate = Face::get(tls_stream::wrap_server(std::move(p.near), toy_client()));
  CHECK(no_certificate.error() == errc::invalid_argument);
  CHECK(no_certificate.error().message().find("certificate") != std::string::npos);
  CHECK(p.far_ends());

  p = pipe();
  memory_stream& transport = *p.near;
  waiting<std::string> reading;
  by_callback::start(transport.receive(), reading);
  settle();
  CHECK(client(std::move(p.near), toy_client()) == errc::busy_resource);
  CHECK(reading.get().error() == errc::closed_resource);
}

TEST_CASE("tls: without verification no name is required") {
  anyio::loop loop;
  pipe p;
  const auto context = toy_client();
  context->verify = false;
  auto both = support::shake_hands(std::move(p.near), std::make_unique<memory_stream>(std::move(p.far)), {},
                                   context, toy_server());
  CHECK(both.first);
  CHECK(both.second);
}

TEST_CASE_TEMPLATE("tls: names are copied before wrapping returns", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  pipe p;
  std::optional<std::string> name("a name that is too long to lie inside a string.example");
  tls_options options;
  options.server_name = *name;
  auto op = tls_stream::wrap_client(std::move(p.near), toy_client(), options);
  name.reset();
  waiting<tls_stream> shaking;
  Face::start(std::move(op), shaking);
  CHECK(p.at_far() == support::toy_client_hello("a name that is too long to lie inside a string.example"));
}

TEST_CASE_TEMPLATE("tls: a server with another name is rejected, gets an alert, and is closed", Face,
                   by_callback, by_coroutine) {
  anyio::loop loop;
  pipe p;
  waiting<tls_stream> client;
  Face::start(tls_stream::wrap_client(std::move(p.near), toy_client(), toy_options()), client);
  const auto server =
      Face::get(tls_stream::wrap_server(std::make_unique<memory_stream>(std::move(p.far)),
                                        std::make_shared<support::toy_context>("other.example")));
  CHECK(server);  // it has sent everything
  const auto refused = client.get();
  CHECK(refused.error() == errc::tls);
  CHECK(refused.error().message() == "tls: handshake: the server has another name");
  if (!server) return;
  auto& stream = const_cast<tls_stream&>(*server);
  CHECK(Face::get(stream.receive()).error().message() ==
        "receive: the peer found that the server has another name");
}

TEST_CASE_TEMPLATE("tls: a handshake that takes too long fails and closes", Face, by_callback, by_coroutine) {
  support::scripted_loop scripted;
  scripted.system.virtual_time = true;
  pipe p;
  tls_options options = toy_options();
  options.handshake_timeout = 5s;
  const auto before = anyio::now();
  const auto r = Face::get(tls_stream::wrap_client(std::move(p.near), toy_client(), options));
  CHECK(r.error() == errc::timed_out);
  CHECK(r.error().operation() == "tls: handshake");
  CHECK(anyio::now() - before >= 5s);
  CHECK(anyio::now() - before < 6s);
  CHECK(toy_records(p.at_far()) == "H");
  CHECK(p.far_ends());
}

TEST_CASE_TEMPLATE("tls: a handshake with a time limit of 0 is tried once", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  tls_options options = toy_options();
  options.handshake_timeout = 0s;
  pipe p;
  CHECK(code<Face>(tls_stream::wrap_server(std::move(p.near), toy_server(), options)) == errc::timed_out);
  CHECK(p.far_ends());
  p = pipe();
  p.feed(support::toy_client_hello());
  CHECK(Face::get(tls_stream::wrap_server(std::move(p.near), toy_server(), options)));
}

TEST_CASE_TEMPLATE("tls: destroying or cancelling a handshake closes the transport", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  {
    pipe p;
    {
      waiting<tls_stream> never;
      auto op = tls_stream::wrap_client(std::move(p.near), toy_client(), toy_options());
      op.start([](result<tls_stream>) { CHECK(false); });
      settle();
    }
    CHECK(toy_records(p.at_far()) == "H");
    CHECK(p.far_ends());
  }
  pipe p;
  auto op = tls_stream::wrap_client(std::move(p.near), toy_client(), toy_options());
  CHECK(code<Face>(anyio::fail_after(1ms, std::move(op))) == errc::timed_out);
  CHECK(toy_records(p.at_far()) == "H");
  CHECK(p.far_ends());
  {
    pipe unused;
    static_cast<void>(tls_stream::wrap_client(std::move(unused.near), toy_client(), toy_options()));
    CHECK(unused.far_ends());
  }
  pipe assigned;
  auto named = tls_stream::wrap_client(std::move(assigned.near), toy_client(), toy_options());
  named.start([](result<tls_stream>) { CHECK(false); });
  settle();
  named = {};
  CHECK(toy_records(assigned.at_far()) == "H");
  CHECK(assigned.far_ends());
}

TEST_CASE("tls: a connection that ends anywhere in the handshake is broken") {
  const std::string hello = support::toy_server_hello();
  for (std::size_t size = 0; size < hello.size(); ++size) {
    anyio::loop loop;
    pipe p;
    waiting<tls_stream> client;
    by_callback::start(tls_stream::wrap_client(std::move(p.near), toy_client(), toy_options()), client);
    p.feed(std::string_view(hello).substr(0, size));
    if (size % 2 == 0) settle();
    CHECK(by_callback::get(p.far.send_eof()));
    const auto r = client.get();
    CHECK(r.error() == errc::broken_resource);
    CHECK(r.error().message().find("during the handshake") != std::string::npos);
    CHECK(toy_records(p.at_far()) == "H");  // and no close_notify
    CHECK(p.far_ends());
  }
}

TEST_CASE("tls: garbage in place of a hello is answered with an alert") {
  anyio::loop loop;
  pipe p;
  p.feed("GET / HTTP/1.1\r\n\r\n");
  CHECK(code<by_callback>(tls_stream::wrap_server(std::move(p.near), toy_server())) == errc::tls);
  CHECK(toy_records(p.at_far()) == "A");
  CHECK(p.far_ends());
}

// ---- ending -------------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("tls: the peer's close_notify is the end, every time; sending continues", Face,
                   by_callback, by_coroutine) {
  played w;
  w.wire.feed(toy_bytes(toy_record::data, "last") + toy_bytes(toy_record::close_notify));
  CHECK(Face::get(w.stream.receive()).value_or("") == "last");
  std::string room(10, '\0');
  for (int i = 0; i < 3; ++i) {
    CHECK(code<Face>(w.stream.receive()) == errc::end_of_stream);
    CHECK(code<Face>(w.stream.receive(room)) == errc::end_of_stream);
    CHECK(code<Face>(w.stream.receive_view()) == errc::end_of_stream);
    CHECK(Face::get(w.stream.send("still")).has_value());
  }
  CHECK(w.records() == "D(still)D(still)D(still)");
  w.wire.far.close();
  CHECK(code<Face>(w.stream.receive()) == errc::end_of_stream);
}

enum class ending { aclose, close, destructor };

void end(played& w, ending how) {
  switch (how) {
    case ending::aclose: CHECK(by_callback::get(w.stream.aclose()).has_value()); break;
    case ending::close: w.stream.close(); break;
    case ending::destructor: w.stream = {}; break;
  }
  CHECK(!w.stream);
  CHECK(by_callback::get(w.stream.aclose()).has_value());
  w.stream.close();
}

constexpr ending endings[] = {ending::aclose, ending::close, ending::destructor};

TEST_CASE("tls: strict, each way to end sends exactly one close_notify") {
  for (const ending how : endings) {
    played w;
    CHECK(by_callback::get(w.stream.send("text")).has_value());
    end(w, how);
    CHECK(w.records() == "D(text)C");
    CHECK(w.wire.far_ends());
  }
}

TEST_CASE("tls: strict, a close_notify sent by send_eof is not sent again") {
  for (const ending how : endings) {
    played w;
    CHECK(by_callback::get(w.stream.send_eof()).has_value());
    CHECK(by_callback::get(w.stream.send_eof()).has_value());
    CHECK(w.records() == "C");
    end(w, how);
    CHECK(w.records() == "");
    CHECK(w.wire.far_ends());
  }
}

TEST_CASE("tls: not strict, only send_eof sends a close_notify") {
  for (const ending how : endings) {
    for (const bool with_eof : {false, true}) {
      played w(false);
      CHECK(by_callback::get(w.stream.send("text")).has_value());
      if (with_eof) CHECK(by_callback::get(w.stream.send_eof()).has_value());
      end(w, how);
      CHECK(w.records() == (with_eof ? "D(text)C" : "D(text)"));
      CHECK(w.wire.far_ends());
    }
  }
}

TEST_CASE_TEMPLATE("tls: a connection that ends without a close_notify", Face, by_callback, by_coroutine) {
  const std::string last = toy_bytes(toy_record::data, "cut off");
  for (const bool strict : {true, false}) {
    for (std::size_t size = 0; size < last.size(); ++size) {
      played w(strict);
      w.wire.feed(toy_bytes(toy_record::data, "whole") + last.substr(0, size));
      CHECK(by_callback::get(w.wire.far.send_eof()));
      CHECK(Face::get(w.stream.receive()).value_or("") == "whole");
      for (int i = 0; i < 3; ++i) {
        const auto r = Face::get(w.stream.receive());
        CHECK(r.error() == (strict ? errc::broken_resource : errc::end_of_stream));
        if (strict) CHECK(r.error().message().find("close_notify") != std::string::npos);
      }
      end(w, endings[size % 3]);
      CHECK(w.records() == (strict ? "C" : ""));
      CHECK(w.wire.far_ends());
    }
  }
}

TEST_CASE("tls: a damaged record is an error of TLS, the peer gets an alert, and nothing follows it") {
  for (const ending how : endings) {
    played w;
    std::string record = toy_bytes(toy_record::data, "text");
    record.back() = static_cast<char>(record.back() ^ 1);
    w.wire.feed(toy_bytes(toy_record::data, "good") + record + toy_bytes(toy_record::data, "after"));
    CHECK(by_callback::get(w.stream.receive()).value_or("") == "good");
    for (int i = 0; i < 3; ++i) {
      CHECK(by_callback::get(w.stream.receive()).error().message() == "receive: a record is damaged");
      CHECK(by_callback::get(w.stream.send("x")).error().message() == "send: a record is damaged");
    }
    CHECK(code<by_callback>(w.stream.send_eof()) == errc::tls);
    end(w, how);
    CHECK(w.records() == "A");
    CHECK(w.wire.far_ends());
  }
}

TEST_CASE("tls: close does not wait for a blocked transport") {
  played w(true, 40);
  waiting<void> sent;
  by_callback::start(w.stream.send(std::string(1000, 'x')), sent);
  settle();
  w.stream.close();
  CHECK(!w.stream);
  CHECK(sent.get().error() == errc::closed_resource);
  CHECK(w.wire.at_far().size() == 40);
  CHECK(w.wire.far_ends());
}

TEST_CASE("tls: aclose sends a delayed close_notify when the peer reads the bytes before it") {
  played w(true, 40);
  waiting<void> sent;
  waiting<void> closed;
  by_callback::start(w.stream.send(std::string(1000, 'x')), sent);
  settle();
  by_callback::start(w.stream.aclose(), closed);
  CHECK(sent.get().error() == errc::closed_resource);
  settle();
  CHECK(!closed.done());
  CHECK(w.records() == "D(" + std::string(1000, 'x') + ")C");
  CHECK(closed.get().has_value());
  CHECK(w.wire.far_ends());
}

TEST_CASE("tls: aclose waits at most a second for a peer that is silent, or reads nothing") {
  for (const bool clogged : {false, true}) {
    for (const bool strict : {false, true}) {
      support::scripted_loop scripted;
      auto [a, b] = support::toy_socket_pair(toy_options(strict));
      waiting<void> sent;
      if (clogged) by_callback::start(a.send(std::string(std::size_t{4} << 20, 'x')), sent);
      settle();
      scripted.system.virtual_time = true;
      const auto before = anyio::now();
      CHECK(by_callback::get(a.aclose()).has_value());
      CHECK(anyio::now() - before >= 900ms);
      CHECK(anyio::now() - before < 1200ms);
      CHECK(a.socket()->native_handle() == -1);
      if (clogged) CHECK(sent.get().error() == errc::closed_resource);
    }
  }
}

TEST_CASE("tls: aclose discards bytes that the peer still sends, and ends with it") {
  support::scripted_loop scripted;
  auto [a, b] = support::toy_socket_pair();
  waiting<void> sent;
  waiting<void> closed;
  by_callback::start(b.send(std::string(1000000, 'x')), sent);
  CHECK(by_callback::get(a.send("goodbye")).has_value());
  scripted.system.virtual_time = true;
  const auto before = anyio::now();
  by_callback::start(a.aclose(), closed);
  CHECK(sent.get().has_value());
  CHECK(by_callback::get(b.receive()).value_or("") == "goodbye");
  CHECK(code<by_callback>(b.receive()) == errc::end_of_stream);
  CHECK(!closed.done());
  b.close();
  CHECK(closed.get().has_value());
  CHECK(anyio::now() - before < 900ms);
}

TEST_CASE_TEMPLATE("tls: send_eof under 1.3 ends one direction, under 1.2 it is not supported", Face,
                   by_callback, by_coroutine) {
  played three;
  CHECK(Face::get(three.stream.send_eof()).has_value());
  CHECK(three.records() == "C");
  CHECK(code<Face>(three.stream.send("x")) == errc::closed_resource);
  three.wire.feed(toy_bytes(toy_record::data, "the other way"));
  CHECK(Face::get(three.stream.receive()).value_or("") == "the other way");

  played two(true, 65536, "TLSv1.2");
  CHECK(two.stream.info().version == "TLSv1.2");
  for (int i = 0; i < 2; ++i) CHECK(code<Face>(two.stream.send_eof()) == errc::not_supported);
  CHECK(Face::get(two.stream.send("x")).has_value());
  CHECK(two.records() == "D(x)");
}

// ---- unwrapping ---------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("tls: both ends unwrap, and continue in clear text", Face, by_callback, by_coroutine) {
  anyio::loop loop;
  auto [a, b] = support::toy_socket_pair();
  CHECK(Face::get(a.send("secret")).has_value());
  CHECK(Face::get(b.receive()).value_or("") == "secret");
  waiting<anyio::tls_unwrapped> at_a;
  Face::start(a.unwrap(), at_a);
  settle();
  CHECK(!at_a.done());
  auto b_below = Face::get(b.unwrap());
  auto a_below = at_a.get();
  CHECK(a_below);
  CHECK(b_below);
  if (!a_below || !b_below) return;
  CHECK(a_below->leftover == "");
  CHECK(!a);
  CHECK(!b);
  CHECK(code<Face>(a.send("x")) == errc::closed_resource);
  CHECK(code<Face>(a.unwrap()) == errc::closed_resource);
  CHECK(a.socket() == nullptr);
  CHECK(a.info().version == "TLSv1.3");
  a = {};
  CHECK(a_below->transport->socket() != nullptr);
  CHECK(Face::get(a_below->transport->send("in clear")).has_value());
  CHECK(Face::get(b_below->transport->receive()).value_or("") == "in clear");
}

TEST_CASE_TEMPLATE("tls: bytes right after the peer's close_notify are left over", Face, by_callback,
                   by_coroutine) {
  played w;
  w.wire.feed(toy_bytes(toy_record::close_notify) + "220 in clear");
  auto r = Face::get(w.stream.unwrap());
  CHECK(r);
  if (!r) return;
  CHECK(r->leftover == "220 in clear");
  CHECK(w.records() == "C");
  CHECK(Face::get(r->transport->send("reply")).has_value());
  CHECK(w.wire.at_far() == "reply");
  w.wire.feed("more");
  CHECK(Face::get(r->transport->receive()).value_or("") == "more");
  w.stream.close();
  CHECK(*r->transport);
  w.stream = {};
  CHECK(*r->transport);
}

TEST_CASE_TEMPLATE("tls: unwrap after the end was received, and after send_eof", Face, by_callback,
                   by_coroutine) {
  played w;
  CHECK(Face::get(w.stream.send_eof()).has_value());
  w.wire.feed(toy_bytes(toy_record::close_notify) + "clear");
  CHECK(code<Face>(w.stream.receive()) == errc::end_of_stream);
  auto r = Face::get(w.stream.unwrap());
  CHECK(r);
  CHECK((r && r->leftover == "clear"));
  CHECK(w.records() == "C");
}

TEST_CASE_TEMPLATE("tls: unwrap fails and loses nothing if data was not received; it works later", Face,
                   by_callback, by_coroutine) {
  played w;
  w.wire.feed(toy_bytes(toy_record::data, "unread") + toy_bytes(toy_record::data, " too"));
  for (int i = 0; i < 2; ++i) {
    const auto refused = Face::get(w.stream.unwrap());
    CHECK(refused.error() == errc::tls);
    CHECK(refused.error().operation() == "unwrap");
    CHECK(w.stream);
  }
  CHECK(w.records() == "C");
  CHECK(code<Face>(w.stream.send("x")) == errc::closed_resource);  // that direction has ended
  CHECK(Face::get(w.stream.receive(2)).value_or("") == "un");
  CHECK(code<Face>(w.stream.unwrap()) == errc::tls);
  CHECK(Face::get(w.stream.receive()).value_or("") == "read");
  CHECK(Face::get(w.stream.receive()).value_or("") == " too");
  w.wire.feed(toy_bytes(toy_record::close_notify) + "clear");
  CHECK(code<Face>(w.stream.receive()) == errc::end_of_stream);
  auto r = Face::get(w.stream.unwrap());
  CHECK(r);
  CHECK((r && r->leftover == "clear"));
}

TEST_CASE_TEMPLATE("tls: unwrap needs both directions, and can be cancelled and started again", Face,
                   by_callback, by_coroutine) {
  played w;
  waiting<std::string> got;
  {
    auto op = w.stream.receive();
    by_callback::start(std::move(op), got);
    settle();
    CHECK(code<Face>(w.stream.unwrap()) == errc::busy_resource);
    w.wire.feed(toy_bytes(toy_record::data, "x"));
    CHECK(got.get().value_or("") == "x");
  }
  CHECK(w.records() == "");  // not even started
  CHECK(code<Face>(anyio::fail_after(1ms, w.stream.unwrap())) == errc::timed_out);
  {
    auto op = w.stream.unwrap();
    op.start([](result<anyio::tls_unwrapped>) { CHECK(false); });
    settle();
    CHECK(code<Face>(w.stream.receive()) == errc::busy_resource);
  }
  CHECK(w.stream);
  CHECK(w.records() == "C");
  w.wire.feed(toy_bytes(toy_record::close_notify));
  auto r = Face::get(w.stream.unwrap());
  CHECK(r);
  CHECK((r && r->transport != nullptr && *r->transport));
}

TEST_CASE("tls: a pending unwrap ends when the stream is closed, or the connection breaks") {
  for (const bool closed : {true, false}) {
    played w;
    waiting<anyio::tls_unwrapped> unwrapping;
    by_callback::start(w.stream.unwrap(), unwrapping);
    settle();
    if (closed) {
      w.stream.close();
    } else {
      w.wire.far.close();
    }
    CHECK(unwrapping.get().error() == (closed ? errc::closed_resource : errc::broken_resource));
  }
  anyio::loop loop;
  CHECK(code<by_callback>(tls_stream().unwrap()) == errc::closed_resource);
}

TEST_CASE("tls: STARTTLS on a stream used in clear text, back to clear text, and again") {
  anyio::loop loop;
  pipe p;
  std::unique_ptr<anyio::byte_stream> near = std::move(p.near);
  std::unique_ptr<anyio::byte_stream> far = std::make_unique<memory_stream>(std::move(p.far));
  for (int round = 0; round < 3; ++round) {
    CHECK(by_callback::get(near->send("STARTTLS")).has_value());
    CHECK(by_callback::get(far->receive()).value_or("") == "STARTTLS");
    auto both = support::shake_hands(std::move(near), std::move(far));
    if (!both.first || !both.second) return;
    CHECK(by_callback::get(both.second.send("secret")).has_value());
    CHECK(by_callback::get(both.first.receive()).value_or("") == "secret");
    waiting<anyio::tls_unwrapped> unwrapping;
    by_callback::start(both.first.unwrap(), unwrapping);
    auto theirs = by_callback::get(both.second.unwrap());
    auto mine = unwrapping.get();
    CHECK(theirs);
    CHECK(mine);
    if (!theirs || !mine) return;
    near = std::move(mine->transport);
    far = std::move(theirs->transport);
  }
}

// ---- the rest -----------------------------------------------------------------------------------------

TEST_CASE("tls: transport, socket and addresses") {
  anyio::loop loop;
  auto connection = anyio::run(support::tcp::pair());
  const anyio::ip_endpoint server_address = connection.first.remote_endpoint();
  const anyio::ip_endpoint client_address = connection.second.remote_endpoint();
  auto [a, b] = support::shake_hands(std::make_unique<anyio::tcp_stream>(std::move(connection.first)),
                                     std::make_unique<anyio::tcp_stream>(std::move(connection.second)));
  CHECK(a.socket() == &a.transport());
  CHECK(a.socket()->native_handle() >= 0);
  CHECK(a.remote_endpoint() == server_address);
  CHECK(b.remote_endpoint() == client_address);
  b.close();
  a.close();
  CHECK(a.remote_endpoint() == server_address);
  CHECK(a.socket()->native_handle() == -1);
  tls_stream moved = std::move(a);
  CHECK(moved.remote_endpoint() == server_address);
  CHECK(a.remote_endpoint() == anyio::ip_endpoint());
  CHECK(a.socket() == nullptr);
  CHECK(!a);

  auto inner = support::toy_socket_pair();
  anyio::byte_stream* const below = &inner.first.transport();
  auto outer = support::shake_hands(std::make_unique<tls_stream>(std::move(inner.first)),
                                    std::make_unique<tls_stream>(std::move(inner.second)));
  CHECK(outer.first.socket() == below);
  CHECK(outer.first.remote_endpoint() == anyio::ip_endpoint());  // of a UNIX socket
}

TEST_CASE_TEMPLATE("tls: a stream can be moved while its operations are pending", Face, by_callback,
                   by_coroutine) {
  anyio::loop loop;
  auto [a, b] = support::toy_pair(40);
  waiting<std::string> got;
  waiting<void> sent;
  const std::string data = conformance::pattern(50000);
  Face::start(a.receive(), got);
  Face::start(a.send(data), sent);
  settle();
  tls_stream moved = std::move(a);
  std::optional<tls_stream> again(std::in_place);
  *again = std::move(moved);
  CHECK(!a);
  CHECK(*again);
  std::string all;
  while (all.size() < data.size()) all += Face::get(b.receive()).value_or(std::string(data.size(), '?'));
  CHECK((all == data));
  CHECK(sent.get().has_value());
  CHECK(Face::get(b.send("hey")).has_value());
  CHECK(got.get().value_or("") == "hey");
  Face::start(again->receive(), got);
  settle();
  again.reset();
  CHECK(got.get().error() == errc::closed_resource);
  CHECK(code<Face>(b.receive()) == errc::end_of_stream);
}

TEST_CASE("tls: assigning to a stream closes the old one, with a close_notify") {
  anyio::loop loop;
  auto first = support::toy_pair();
  auto second = support::toy_pair();
  first.first = std::move(second.first);
  CHECK(code<by_callback>(first.second.receive()) == errc::end_of_stream);
  CHECK(by_callback::get(first.first.send("x")).has_value());
  CHECK(by_callback::get(second.second.receive()).value_or("") == "x");
}

TEST_CASE("tls: the loop may end before its streams, handshakes and operations") {
  std::optional<anyio::loop> loop(std::in_place);
  auto sockets = support::toy_socket_pair();
  auto inner = support::toy_pair(100);
  auto outer = support::shake_hands(std::make_unique<tls_stream>(std::move(inner.first)),
                                    std::make_unique<tls_stream>(std::move(inner.second)));
  const std::string much(std::size_t{4} << 20, 'x');
  auto reading = sockets.first.receive();
  auto sending = outer.first.send(much);
  auto closing = outer.second.aclose();
  auto others = support::toy_socket_pair();
  auto unwrapping = others.second.unwrap();
  pipe p;
  auto shaking = tls_stream::wrap_client(std::move(p.near), toy_client(), toy_options());
  reading.start([](result<std::string>) { CHECK(false); });
  sending.start([](result<void>) { CHECK(false); });
  unwrapping.start([](result<anyio::tls_unwrapped>) { CHECK(false); });
  shaking.start([](result<tls_stream>) { CHECK(false); });
  pipe q;
  tls_stream::wrap_server(std::move(q.near), toy_server()).start([](result<tls_stream>) { CHECK(false); });
  for (int i = 0; i < 3; ++i) loop->run_once(0ms);
  closing.start([](result<void>) { CHECK(false); });
  loop.reset();
  CHECK(!sockets.first);
  CHECK(!outer.first);
  CHECK(!reading.pending());
  anyio::loop other;
  CHECK(code<by_callback>(sockets.first.send("x")) == errc::closed_resource);
  CHECK(by_callback::get(sockets.first.aclose()).has_value());
  CHECK(sockets.first.info().version == "TLSv1.3");
}

TEST_CASE("tls: a completion may destroy its stream and its operation") {
  anyio::loop loop;
  auto both = support::toy_pair();
  struct everything {
    std::unique_ptr<tls_stream> stream;
    anyio::receive_string_operation op;
    std::string got;
  } all{std::make_unique<tls_stream>(std::move(both.second)), {}, {}};
  all.op = all.stream->receive();
  all.op.start([e = &all](result<std::string> r) {
    e->got = r.value_or("");
    e->stream.reset();
    e->op = {};
  });
  CHECK(by_callback::get(both.first.send("x")).has_value());
  settle();
  CHECK(all.got == "x");
  CHECK(code<by_callback>(both.first.receive()) == errc::end_of_stream);
}

task<> ping(tls_stream& a, tls_stream& b, const std::string& text, std::string& room, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    co_await a.send(text);
    CHECK((co_await b.receive_view()).size() == text.size());
    co_await b.send(text);
    CHECK(co_await a.receive(room) == text.size());
  }
}

TEST_CASE("tls: sending and receiving allocate nothing in steady state") {
  if (!support::counts_allocations) return;
  anyio::loop loop;
  auto [a, b] = support::toy_socket_pair();
  std::string room(20000, '\0');
  for (const std::size_t size : {std::size_t{1}, std::size_t{100}, std::size_t{3000}, std::size_t{16000}}) {
    const std::string text(size, 'x');
    anyio::run(ping(a, b, text, room, 5));
    auto measured = ping(a, b, text, room, 50);
    const support::fail_allocations none;
    anyio::run(std::move(measured));
  }
  // With callbacks, and a pending operation.
  struct session {
    tls_stream& from;
    tls_stream& to;
    std::string text;
    int rounds = 0;
    anyio::receive_view_operation receiving;
    anyio::send_operation sending;
    void next() {
      receiving = to.receive_view();
      receiving.start([this](result<std::string_view> r) {
        CHECK(r.has_value());
        if (++rounds % 50 != 0) next();
      });
      sending = from.send(text);
      sending.start([](result<void> r) { CHECK(r.has_value()); });
    }
  } s{a, b, std::string(500, 'y'), 0, {}, {}};
  s.next();
  loop.run();
  {
    const support::fail_allocations none;
    s.next();
    loop.run();
  }
  CHECK(s.rounds == 100);
}

TEST_CASE("tls: waiting streams hold no buffers") {
  if (!support::counts_allocations) return;
  anyio::loop loop;
  constexpr std::size_t count = 50;
  std::vector<std::pair<tls_stream, tls_stream>> pairs;
  std::vector<anyio::receive_string_operation> waiters(count);
  for (std::size_t i = 0; i < count; ++i) pairs.push_back(support::toy_socket_pair());
  const support::allocation_scope scope;
  for (std::size_t i = 0; i < count; ++i) {
    waiters[i] = pairs[i].second.receive();
    waiters[i].start([](result<std::string>) { CHECK(false); });
  }
  settle();
  CHECK(scope.bytes() < count * 4096);
}

}  // namespace
