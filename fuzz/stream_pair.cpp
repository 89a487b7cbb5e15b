// One flow of bytes each way between two connected ends, TCP, UNIX or memory, plain, through a relay to a
// second connection, or under TLS (the driver, with a cheap engine), in planned chunks, under faults. The
// received bytes are always a prefix of the sent ones; once the network has recovered all arrive, unless a
// fault reset the connection; the end is reported only after the sender has ended, and after the last byte.
#include <array>
#include <chrono>
#include <optional>
#include <vector>

#include "support/world.hpp"
#include "tests/support/toy_tls.hpp"

namespace {

using namespace std::chrono_literals;

class transfer {
 public:
  transfer(fuzz::input in, bool may_reset) noexcept : in_(in), may_reset_(may_reset) {}

  anyio::task<> run() {
    const unsigned kind = in_.byte();
    kind_ = kind % 6;
    co_await connect();
    if (a_ == nullptr || b_ == nullptr) co_return;
    anyio::task_group both;
    if (kind >= 192) {
      co_await wrap();
      if (a_ == nullptr || b_ == nullptr) co_return;
    } else if (kind >= 96) {
      auto ends = anyio::create_memory_stream_pair(1 + in_.length(3000));
      left_ = std::move(b_);
      right_ = std::make_unique<anyio::memory_stream>(std::move(ends.first));
      b_ = std::make_unique<anyio::memory_stream>(std::move(ends.second));
      both.start_soon(pass_on());
    }
    both.start_soon(write(*a_, flows_[0]));
    both.start_soon(read(*b_, flows_[0]));
    both.start_soon(write(*b_, flows_[1]));
    both.start_soon(read(*a_, flows_[1]));
    both.start_soon(heal_later());
    co_await both.join();
    // An end without a reset has all bytes.
    const bool broken = flows_[0].broken || flows_[1].broken || cut_off_;
    FUZZ_CHECK(!broken || may_reset_);
    for (const flow& f : flows_) {
      FUZZ_CHECK(f.received <= f.sent);
      FUZZ_CHECK(broken || (f.ended && f.received == f.sent));
    }
  }

 private:
  struct flow {
    std::uint8_t number;
    std::uint64_t sent = 0;  // passed to a send
    std::uint64_t received = 0;
    bool over = false;  // the sender has started to end it
    bool ended = false;
    bool broken = false;
  };

  anyio::task<> connect() {
    if (kind_ < 2) {
      auto ends = anyio::create_memory_stream_pair(in_.length(70000));
      a_ = std::make_unique<anyio::memory_stream>(std::move(ends.first));
      b_ = std::make_unique<anyio::memory_stream>(std::move(ends.second));
    } else if (kind_ == 2) {
      auto ends = anyio::create_unix_stream_pair();
      if (!ends) co_return;
      a_ = std::make_unique<anyio::unix_stream>(std::move(ends->first));
      b_ = std::make_unique<anyio::unix_stream>(std::move(ends->second));
    } else if (kind_ == 3) {
      auto listener = co_await anyio::create_unix_listener("/s");
      auto to = anyio::connect_unix("/s");
      auto from = listener.accept();
      auto ends = co_await anyio::when_all(std::move(to), std::move(from));
      a_ = std::make_unique<anyio::unix_stream>(std::move(std::get<0>(ends)));
      b_ = std::make_unique<anyio::unix_stream>(std::move(std::get<1>(ends)));
    } else {
      const auto here = kind_ == 4 ? anyio::ip_address::loopback_v4() : anyio::ip_address::loopback_v6();
      auto listener = anyio::tcp_listener::open({here, 0});
      if (!listener) co_return;
      auto to = anyio::connect_tcp(listener->local_endpoints().front());
      auto from = listener->accept();
      auto ends = co_await anyio::when_all(std::move(to), std::move(from));
      a_ = std::make_unique<anyio::tcp_stream>(std::move(std::get<0>(ends)));
      b_ = std::make_unique<anyio::tcp_stream>(std::move(std::get<1>(ends)));
      const std::size_t window = in_.length(8192);
      if (window != 0)
        static_cast<void>(b_->socket()->set_option(SOL_SOCKET, SO_RCVBUF, static_cast<int>(window)));
    }
  }
  /// Only a reset makes the handshake fail.
  anyio::task<> wrap() {
    const auto context = std::make_shared<support::toy_context>("a.server");
    auto client = anyio::tls_stream::wrap_client(std::move(a_), context,
                                                 {.server_name = "a.server", .handshake_timeout = 24h});
    auto server = anyio::tls_stream::wrap_server(std::move(b_), context, {.handshake_timeout = 24h});
    auto ends = co_await anyio::as_result(anyio::when_all(std::move(client), std::move(server)));
    FUZZ_CHECK(ends.has_value() || may_reset_);
    if (!ends) co_return;
    a_ = std::make_unique<anyio::tls_stream>(std::move(std::get<0>(*ends)));
    b_ = std::make_unique<anyio::tls_stream>(std::move(std::get<1>(*ends)));
  }
  /// A relay that ended has passed on all bytes. Cancelled after a while, it continues with those that it
  /// took.
  anyio::task<> pass_on() {
    anyio::relay_operation relaying = anyio::relay(*left_, *right_);
    for (int cancelled = 0;; ++cancelled) {
      anyio::result<anyio::relay_result> r;
      if (cancelled < 3 && in_.byte() % 2 == 1) {
        anyio::task_group group;
        group.start_soon(cancel_later());
        r = co_await anyio::as_result(relaying);
        group.cancel();
      } else {
        r = co_await anyio::as_result(relaying);
      }
      if (!r && r.error() == anyio::errc::cancelled) continue;
      FUZZ_CHECK(r.has_value() || may_reset_);
      if (r) FUZZ_CHECK(r->a_to_b == flows_[0].sent && r->b_to_a == flows_[1].sent);
      cut_off_ = !r.has_value();
      break;
    }
    left_->close();
    right_->close();
  }
  anyio::task<> cancel_later() {
    co_await anyio::sleep(std::chrono::microseconds(in_.byte() * 20));
    if (anyio::socket_stream* s = left_->socket()) s->cancel();
  }
  anyio::task<> heal_later() {
    co_await anyio::sleep(std::chrono::milliseconds(in_.byte()));
    anyio::sim::heal();
  }
  void check_failure(const anyio::error& error, flow& f) {
    FUZZ_CHECK(error == anyio::errc::broken_resource);
    f.broken = true;
  }
  anyio::task<> write(anyio::byte_stream& s, flow& f) {
    for (std::size_t chunks = in_.pick(12); chunks != 0; --chunks) {
      const unsigned how = in_.byte();
      const std::string bytes = fuzz::payload(f.number, f.sent, in_.length(6000));
      f.sent += bytes.size();
      anyio::result<> r;
      if ((how & 3) == 0) {
        r = co_await anyio::as_result(s.send(anyio::const_buffer(bytes)));
      } else if ((how & 3) == 1) {
        std::string copy = bytes;
        r = co_await anyio::as_result(s.send(std::move(copy)));
      } else {
        const std::size_t cut = bytes.size() * (how >> 2) / 64;
        const std::array<anyio::const_buffer, 3> parts = {
            anyio::const_buffer(bytes.data(), cut), anyio::const_buffer(bytes.data(), 0),
            anyio::const_buffer(bytes.data() + cut, bytes.size() - cut)};
        r = co_await anyio::as_result(s.send(std::span<const anyio::const_buffer>(parts)));
      }
      if (!r) co_return check_failure(r.error(), f);
      if ((how & 64) != 0) co_await anyio::sleep(std::chrono::microseconds(how));
    }
    f.over = true;
    const auto r = co_await anyio::as_result(s.send_eof());
    if (!r) check_failure(r.error(), f);
  }
  anyio::task<> read(anyio::byte_stream& s, flow& f) {
    std::vector<char> room(3000);
    for (;;) {
      const unsigned how = in_.byte();
      const std::size_t most = 1 + in_.length(room.size() - 1);
      anyio::error failure;
      std::string_view got;
      std::string kept;
      if ((how & 3) == 0) {
        const auto r = co_await anyio::as_result(s.receive_view());
        if (r) got = *r;
        if (!r) failure = r.error();
      } else if ((how & 3) == 1) {
        auto r = co_await anyio::as_result(s.receive(most));
        if (r) kept = std::move(*r);
        if (!r) failure = r.error();
        FUZZ_CHECK(kept.size() <= most);
        got = kept;
      } else if ((how & 3) == 2) {
        const auto r = co_await anyio::as_result(s.receive(anyio::mutable_buffer(room.data(), most)));
        if (r) got = std::string_view(room.data(), *r);
        if (!r) failure = r.error();
      } else {  // a cancelled receive loses nothing
        auto r =
            co_await anyio::as_result(anyio::move_on_after(std::chrono::microseconds(how), s.receive(most)));
        if (!r) failure = r.error();
        if (r && !*r) continue;
        if (r) kept = std::move(**r);
        got = kept;
      }
      if (failure == anyio::errc::end_of_stream) {
        FUZZ_CHECK(cut_off_ || f.over);
        FUZZ_CHECK(cut_off_ || f.received == f.sent);
        f.ended = true;
        co_return;
      }
      if (failure != anyio::errc::ok) co_return check_failure(failure, f);
      FUZZ_CHECK(!got.empty());
      FUZZ_CHECK(fuzz::is_payload(f.number, f.received, got));
      f.received += got.size();
      FUZZ_CHECK(f.received <= f.sent);
      if ((how & 64) != 0) co_await anyio::sleep(std::chrono::microseconds(how * 50));
    }
  }

  fuzz::input in_;
  bool may_reset_;
  unsigned kind_ = 0;
  bool cut_off_ = false;  // the relay has failed
  std::unique_ptr<anyio::byte_stream> a_, b_;
  std::unique_ptr<anyio::byte_stream> left_, right_;  // of the relay
  std::array<flow, 2> flows_ = {flow{1}, flow{2}};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  const anyio::sim::options o = fuzz::options_of(in);
  transfer t(in, o.faults.reset > 0);
  const anyio::sim::report r = anyio::sim::run(o, t.run());
  // Only connecting may fail.
  if (!r.failure || r.failure->operation() == "simulation") return fuzz::check(r), 0;
  FUZZ_CHECK(*r.failure == anyio::errc::os_error);
  FUZZ_CHECK(r.leaked_handles == 0);
  return 0;
}
