// A listener that meets errors: descriptors, memory and buffers run out for a while, again and again, and
// connections are reset before they are accepted, with planned clients. It survives all of it; while it
// cannot accept it does not spin: wake-ups are bounded by the number of events plus one per tenth of a
// second; and after the faults every waiting client is served, and so is a new one.
#include <array>
#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/world.hpp"

namespace {

using namespace std::chrono_literals;

std::uint64_t wake_ups = 0;

void count_wake_ups(std::string_view line) {
  if (line.find(": wait") != std::string_view::npos) ++wake_ups;
}

struct plan {
  fuzz::input in;
  bool unix_sockets = false;
  int served = 0;

  template <class Listener>
  anyio::task<> accept_all(Listener& listener) {
    if (in.flag()) {
      auto serving =
          listener.serve([this](auto s) { return this->echo(std::move(s)); },
                         [](const anyio::error& e) {
                           FUZZ_CHECK(e == anyio::errc::os_error || e == anyio::errc::broken_resource ||
                                      e == anyio::errc::closed_resource);
                         },
                         {.max_connections = in.byte() % 5U});
      co_await std::move(serving);
      co_return;
    }
    anyio::task_group handlers;
    for (;;) {
      auto r = co_await anyio::as_result(listener.accept());
      if (!r) {
        FUZZ_CHECK(r.error() == anyio::errc::closed_resource);
        co_return;
      }
      handlers.start_soon(quietly(std::move(*r)));
    }
  }
  template <class Stream>
  anyio::task<> quietly(Stream s) {
    static_cast<void>(co_await anyio::as_result(echo(std::move(s))));
  }
  template <class Stream>
  anyio::task<> echo(Stream s) {
    const std::string got = co_await s.receive();
    ++served;
    co_await s.send(anyio::const_buffer(got));
    co_await s.send_eof();
    static_cast<void>(co_await anyio::as_result(s.receive()));
  }

  template <class Stream>
  anyio::task<> talk(Stream s, bool impatient, int& answered) {
    co_await s.send("hello");
    if (impatient) co_return;  // closed while it is waiting to be accepted, perhaps
    const std::string got = co_await s.receive();
    FUZZ_CHECK(got == "hello");
    ++answered;
  }
  anyio::task<> client(bool impatient, int& answered) {
    auto done = co_await anyio::as_result(connect_and_talk(impatient, answered));
    if (done) co_return;
    // No descriptor for the client itself, a reset by a fault, or refused by a full backlog.
    const anyio::errc code = done.error().code();
    FUZZ_CHECK(code == anyio::errc::os_error || code == anyio::errc::broken_resource ||
               code == anyio::errc::end_of_stream);
  }
  anyio::task<> connect_and_talk(bool impatient, int& answered) {
    if (unix_sockets) {
      auto s = co_await anyio::connect_unix("/listener");
      co_await talk(std::move(s), impatient, answered);
    } else {
      auto s = co_await anyio::connect_tcp(anyio::ip_endpoint{anyio::ip_address::loopback_v4(), 80});
      co_await talk(std::move(s), impatient, answered);
    }
  }

  template <class Listener>
  anyio::task<> play(Listener& listener) {
    anyio::task_group group;
    group.start_soon(accept_all(listener));
    anyio::task_group clients;
    int answered = 0;
    for (int calls = 0; calls < 50 && !in.empty(); ++calls) {
      switch (in.byte() % 6) {
        case 0: clients.start_soon(client(false, answered)); break;
        case 1: clients.start_soon(client(true, answered)); break;
        case 2: {  // one kind of fault
          const unsigned b = in.byte();
          anyio::sim::faults f;
          if ((b & 1) != 0) f.accept_exhausted = (b & 2) != 0 ? 1 : 0.3;
          if ((b & 4) != 0) f.would_block = 0.2;
          if ((b & 8) != 0) f.reset = 0.02;
          if ((b & 16) != 0) f.interrupted = 0.2;
          anyio::sim::set_faults(f);
          break;
        }
        case 3: anyio::sim::heal(); break;
        case 4: co_await anyio::sleep(std::chrono::milliseconds(in.byte())); break;
        case 5: {  // only the exhaustion, for long
          co_await anyio::sleep(1s);
          anyio::sim::faults f;
          f.accept_exhausted = 1;
          anyio::sim::set_faults(f);
          clients.start_soon(client(false, answered));
          co_await anyio::sleep(1s);
          const std::uint64_t before = wake_ups;
          co_await anyio::sleep(10s);
          FUZZ_CHECK(wake_ups - before <= 100 + 60 * 20);  // connecting continues, with its own pauses
          anyio::sim::heal();
          break;
        }
      }
    }
    anyio::sim::heal();
    co_await clients.join();
    const int before = answered;
    clients.start_soon(client(false, answered));
    co_await anyio::fail_after(30s, clients.join());
    FUZZ_CHECK(answered == before + 1);
    listener.close();
    co_await anyio::fail_after(30s, group.join());
  }
  anyio::task<> run() {
    unix_sockets = in.flag();
    const int backlog = in.byte() % 4;
    if (unix_sockets) {
      auto listener = co_await anyio::create_unix_listener("/listener", {.backlog = backlog});
      co_await play(listener);
    } else {
      auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 80}, {.backlog = backlog});
      FUZZ_CHECK(listener.has_value());
      co_await play(*listener);
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  anyio::sim::options o = fuzz::new_options();
  o.choices = in.take_tail(in.byte());
  if (o.log == nullptr) o.log = count_wake_ups;
  wake_ups = 0;
  plan p{in};
  fuzz::check(anyio::sim::run(o, p.run()));
  return 0;
}
