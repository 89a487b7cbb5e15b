// Descriptors through a buffered stream. A peer sends plain bytes, and bytes with descriptors, over a
// simulated UNIX stream; reads of every kind, some of them cancelled, take the bytes. The bytes arrive in
// order, and `take_fds` returns each descriptor once, in order, when the first byte of its message has been
// taken: not later, and earlier only if the byte is in the buffer. More than `max_fds` at a time fail the
// stream for good, and at the end no descriptor is open.
#include <bit>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/world.hpp"

namespace {

using namespace std::chrono_literals;

class exchange {
 public:
  exchange(fuzz::input in, bool may_reset) noexcept : in_(in), may_reset_(may_reset) {}

  anyio::task<> run() {
    max_fds_ = 1 + in_.byte();
    auto made = anyio::create_unix_stream_pair();
    if (!made) co_return;
    from_ = std::move(made->first);
    to_ = std::move(made->second);
    anyio::buffered_stream s(to_, max_fds_);
    for (int calls = 0; calls < 80 && !in_.empty() && !over_; ++calls) co_await call(s);
    anyio::sim::heal();
    if (!sent_all_) co_return;
    from_.close();
    while (!over_) co_await receive(s, 5000, 1s);
    take_fds(s);
    if (ended_) FUZZ_CHECK(taken_ == bytes_.size() && returned_ == sent_.size());
  }

 private:
  struct sent_fd {
    std::uint64_t place;  // of the first byte of its message
    std::uint64_t identity;
  };

  anyio::task<> call(anyio::buffered_stream& s) {
    const unsigned what = in_.byte() % 11;
    // Cancelled at once, after a while, or not at all while there is something to read.
    const auto limit = std::chrono::microseconds(what < 3 ? 0 : in_.byte() % 4 * 50);
    const std::size_t before = taken_;
    switch (what) {
      case 0: co_await send(0); break;
      case 1: co_await send(1 + in_.pick(3)); break;
      case 2: co_await send(in_.length(260)); break;
      case 3: co_await exactly(s, in_.length(6000), limit); break;
      case 4: co_await exactly_into(s, in_.length(6000), limit); break;
      case 5: co_await receive(s, 1 + in_.length(6000), limit); break;
      case 6: co_await line(s, 1 + in_.length(600), limit); break;
      case 7: co_await number(s, limit); break;
      case 8: co_await view(s, limit); break;
      case 9: take_fds(s); break;
      case 10: held_.clear(); break;
    }
    FUZZ_CHECK(over_ || rest().starts_with(s.buffer()));
    if (3 <= what && what <= 8 && (what == 8 || taken_ == before)) read_ahead_ = true;
    if (s.buffer().empty()) read_ahead_ = false;
  }
  [[nodiscard]] std::string_view rest() const noexcept { return std::string_view(bytes_).substr(taken_); }

  std::uint64_t identity_of(int fd) {
    anyio::detail::file_identity identity;
    anyio::backend& system = anyio::detail::loop_core::current().system();
    FUZZ_CHECK(anyio::detail::files_of(system).identify(fd, identity) == 0);
    return identity.inode;
  }

  /// All of a message, or its beginning when the stream is full.
  anyio::task<> send(std::size_t count) {
    if (!sent_all_) co_return;
    const std::size_t size = 1 + in_.length(3000);
    std::string message = fuzz::payload(1, bytes_.size() + 1, size);
    if (in_.flag()) message.back() = '\n';
    std::vector<int> fds;
    for (std::size_t i = 0; i < count && i < 253; ++i) {
      if (held_.size() < 8) {
        auto one = anyio::udp_socket::open({anyio::ip_address::loopback_v4(), 0});
        if (!one) break;
        held_.push_back(std::move(*one));
      }
      fds.push_back(held_[(sent_.size() + i) % held_.size()].native_handle());
    }
    const std::uint64_t place = bytes_.size();
    bytes_ += message;
    anyio::result<bool> r = true;
    if (fds.empty()) {
      r = co_await anyio::as_result(anyio::move_on_after(0s, from_.send(anyio::const_buffer(message))));
    } else {
      for (const int fd : fds) sent_.push_back({place, identity_of(fd)});
      auto op = from_.send_fds(anyio::const_buffer(message), fds);
      r = co_await anyio::as_result(anyio::move_on_after(0s, std::move(op)));
    }
    // What went of it is not known; the bytes that arrive are a prefix all the same.
    if (!r || !*r) sent_all_ = false;
    if (!r) FUZZ_CHECK(may_reset_ || over_);
  }

  void take(std::string_view bytes) {
    FUZZ_CHECK(rest().starts_with(bytes));
    taken_ += bytes.size();
  }
  void check_failure(const anyio::error& e) {
    if (e == anyio::errc::fds_truncated) {
      FUZZ_CHECK(sent_.size() - returned_ > max_fds_);
    } else if (e == anyio::errc::end_of_stream) {
      FUZZ_CHECK(!from_ && (rest().empty() || !sent_all_));
      ended_ = sent_all_;
    } else if (e == anyio::errc::incomplete_read) {
      FUZZ_CHECK(!from_);
      return;  // the bytes are still there
    } else {
      FUZZ_CHECK(e == anyio::errc::broken_resource && may_reset_);
    }
    over_ = true;
  }
  anyio::task<> exactly(anyio::buffered_stream& s, std::size_t size, std::chrono::microseconds limit) {
    auto r = co_await anyio::as_result(anyio::move_on_after(limit, s.receive_exactly(size)));
    if (!r) co_return check_failure(r.error());
    if (!*r) co_return;
    FUZZ_CHECK((*r)->size() == size);
    take(**r);
  }
  anyio::task<> exactly_into(anyio::buffered_stream& s, std::size_t size, std::chrono::microseconds limit) {
    std::string room(size, '\0');
    const anyio::mutable_buffer into(room.data(), size);
    auto r = co_await anyio::as_result(anyio::move_on_after(limit, s.receive_exactly(into)));
    if (!r) co_return check_failure(r.error());
    if (*r) take(room);
  }
  anyio::task<> receive(anyio::buffered_stream& s, std::size_t most, std::chrono::microseconds limit) {
    auto r = co_await anyio::as_result(anyio::move_on_after(limit, s.receive(most)));
    if (!r) co_return check_failure(r.error());
    if (!*r) co_return;
    FUZZ_CHECK(!(*r)->empty() && (*r)->size() <= most);
    take(**r);
  }
  anyio::task<> view(anyio::buffered_stream& s, std::chrono::microseconds limit) {
    auto r = co_await anyio::as_result(anyio::move_on_after(limit, s.receive_view()));
    if (!r) co_return check_failure(r.error());
    if (*r) take(**r);
  }
  anyio::task<> line(anyio::buffered_stream& s, std::size_t most, std::chrono::microseconds limit) {
    auto r = co_await anyio::as_result(anyio::move_on_after(limit, s.receive_line(most)));
    if (!r && r.error() == anyio::errc::delimiter_not_found) co_return;
    if (!r) co_return check_failure(r.error());
    if (!*r) co_return;
    const std::string_view got = **r;
    FUZZ_CHECK(got.find('\n') == got.npos);
    take(got);
    take(rest().substr(0, rest().find('\n') + 1));  // the end of the line, with CR if there is one
    FUZZ_CHECK(taken_ != 0 && bytes_[taken_ - 1] == '\n');
  }
  anyio::task<> number(anyio::buffered_stream& s, std::chrono::microseconds limit) {
    auto r = co_await anyio::as_result(
        anyio::move_on_after(limit, s.receive_int<std::uint32_t>(std::endian::big)));
    if (!r) co_return check_failure(r.error());
    if (!*r) co_return;
    std::string bytes;
    for (int i = 3; i >= 0; --i) bytes += static_cast<char>(**r >> (8 * i));
    take(bytes);
  }

  void take_fds(anyio::buffered_stream& s) {
    const std::vector<anyio::unique_fd> fds = s.take_fds();
    for (const anyio::unique_fd& fd : fds) {
      FUZZ_CHECK(returned_ < sent_.size());
      FUZZ_CHECK(identity_of(fd.get()) == sent_[returned_].identity);
      FUZZ_CHECK(sent_[returned_].place < taken_ + (read_ahead_ ? s.buffer().size() : 0));
      ++returned_;
    }
    FUZZ_CHECK(over_ || returned_ == sent_.size() || sent_[returned_].place >= taken_);
  }

  fuzz::input in_;
  bool may_reset_;
  std::size_t max_fds_ = 0;
  anyio::unix_stream from_, to_;
  std::vector<anyio::udp_socket> held_;
  std::vector<sent_fd> sent_;
  std::size_t returned_ = 0;
  std::string bytes_;  // all that was sent
  std::size_t taken_ = 0;
  bool read_ahead_ = false;  // bytes in the buffer are of a read that did not say what it wants
  bool sent_all_ = true;     // no message was cut short
  bool over_ = false;        // the stream has ended or failed
  bool ended_ = false;       // ... in an orderly way, with everything taken
};

anyio::task<> play(fuzz::input in, bool may_reset) {
  exchange e(in, may_reset);
  co_await e.run();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  const anyio::sim::options o = fuzz::options_of(in);
  fuzz::check(anyio::sim::run(o, play(in, o.faults.reset > 0)));
  return 0;
}
