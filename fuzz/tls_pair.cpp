// A TLS client and a TLS server over a wire that the input controls: what is written, and how it is split,
// closed, truncated or changed on the way. The bytes read are always a prefix of those written; an unchanged
// wire delivers all of them; a truncated one is never an orderly end, and a changed one is an error or
// nothing, never other data.
#include <array>
#include <string>
#include <vector>

#include "support/tls_wire.hpp"

namespace {

class connection {
 public:
  explicit connection(fuzz::input in)
      : in_(in),
        context_(fuzz::make_context()),
        ends_{fuzz::tls_end(*context_, false), fuzz::tls_end(*context_, true)} {
    for (auto& w : wires_) w.bytes.reserve(capacity);
  }

  anyio::task<> run() {
    for (int calls = 0; calls < 100 && !in_.empty(); ++calls) call();
    const bool touched = wires_[0].touched || wires_[1].touched;
    if (!touched) {
      deliver_all();
      for (const std::size_t side : {0U, 1U}) {
        FUZZ_CHECK(ends_[side].complete && !ends_[side].failed);
        write(side, 10);
        close(side);
      }
      deliver_all();
      for (const std::size_t side : {0U, 1U}) {
        FUZZ_CHECK(ends_[side].received == plain_[1 - side]);
        FUZZ_CHECK(ends_[side].closed);
      }
    }
    for (const std::size_t side : {0U, 1U}) {  // the wires end
      ends_[side].pipe_.rx_eof = true;
      ends_[side].drive();
      check(side);
      fuzz::tls_end& e = ends_[side];
      FUZZ_CHECK(e.failed || e.closed || e.truncated);
    }
    co_return;
  }

 private:
  static constexpr std::size_t capacity = 400000;
  struct wire {                    // towards the end with the same number
    std::vector<std::byte> bytes;  // never moves
    std::size_t delivered = 0;
    bool touched = false;
  };

  void call() {
    const std::size_t side = in_.byte() & 1;
    switch (in_.byte() % 8) {
      case 0:
      case 1: deliver(side, 1 + in_.length(3000)); break;
      case 2: deliver_all(); break;
      case 3:
      case 4: write(side, in_.length(20000)); break;
      case 5: close(side); break;
      case 6: {
        wire& w = wires_[side];
        const std::size_t left = w.bytes.size() - w.delivered;
        if (left == 0) break;
        const std::size_t at = w.delivered + in_.number(2) % left;
        w.bytes[at] ^= static_cast<std::byte>(1 << (in_.byte() & 7));
        w.touched = true;
        break;
      }
      case 7:  // truncated, in the middle or between two records
        ends_[side].pipe_.rx_eof = true;
        wires_[side].touched = true;
        pump(side);
        break;
    }
  }
  void pump(std::size_t side) {
    fuzz::tls_end& e = ends_[side];
    e.drive();
    wire& out = wires_[1 - side];
    const auto sent = e.pipe_.tx.data();
    FUZZ_CHECK(out.bytes.size() + sent.size() <= capacity);
    out.bytes.insert(out.bytes.end(), sent.begin(), sent.end());
    e.pipe_.tx.consume(sent.size());
    check(side);
  }
  void check(std::size_t side) {
    const fuzz::tls_end& e = ends_[side];
    const std::string& plain = plain_[1 - side];
    FUZZ_CHECK(e.complete || e.received.empty());
    FUZZ_CHECK(plain.starts_with(e.received));
    if (e.closed && e.complete) {
      FUZZ_CHECK(closing_[1 - side]);
      FUZZ_CHECK(e.received == plain);
    }
    FUZZ_CHECK(!e.truncated || !e.closed);
    // Nothing fails without a cause.
    FUZZ_CHECK(!e.failed || wires_[0].touched || wires_[1].touched);
  }
  void deliver(std::size_t side, std::size_t size) {
    wire& w = wires_[side];
    fuzz::tls_end& e = ends_[side];
    if (!e.pipe_.rx_eof) {
      w.delivered = std::min(w.bytes.size(), w.delivered + size);
      e.give(std::span<const std::byte>(w.bytes.data(), w.delivered));
    }
    pump(side);
  }
  void deliver_all() {
    for (int rounds = 0; rounds < 12; ++rounds) {
      deliver(0, capacity);
      deliver(1, capacity);
    }
  }
  void write(std::size_t side, std::size_t size) {
    fuzz::tls_end& e = ends_[side];
    if (!e.complete || e.failed || closing_[side] || plain_[side].size() + size > 60000) return;
    std::string bytes = fuzz::payload(static_cast<std::uint8_t>(side + 1), plain_[side].size(), size);
    while (!bytes.empty()) {
      std::size_t n = 0;
      const anyio::tls_status status = e.engine().write(anyio::const_buffer(bytes), n);
      if (status == anyio::tls_status::failed) {
        FUZZ_CHECK(wires_[0].touched || wires_[1].touched);
        e.failed = true;
        break;
      }
      FUZZ_CHECK(status == anyio::tls_status::ok);
      FUZZ_CHECK(n >= 1 && n <= bytes.size());
      plain_[side].append(bytes, 0, n);
      bytes.erase(0, n);
    }
    pump(side);
  }
  void close(std::size_t side) {
    fuzz::tls_end& e = ends_[side];
    if (!e.complete || e.failed || closing_[side]) return;
    closing_[side] = true;
    const anyio::tls_status status = e.engine().close();
    if (status == anyio::tls_status::failed) e.failed = true;
    pump(side);
  }

  fuzz::input in_;
  std::shared_ptr<anyio::tls_context> context_;
  std::array<fuzz::tls_end, 2> ends_;
  std::array<wire, 2> wires_;
  std::array<std::string, 2> plain_;
  std::array<bool, 2> closing_ = {};
};

anyio::task<> play(fuzz::input in) {
  connection c(in);
  co_await c.run();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::check(anyio::sim::run(fuzz::new_options(), play(fuzz::input(data, size))));
  return 0;
}
