// Several writers and one queue, over memory, UNIX and TCP streams, with a reader that is slow at times.
// Bytes arrive in the order in which messages were accepted, whole and once; `try_send` accepts exactly when
// there is room and nobody waits; a cancelled `send` has appended nothing; `flush` completes, and then
// nothing is left that was queued before it; a cancelled `run` is continued by the next one; after an error
// every call raises it; and operations that outlive the queue fail with `closed_resource`.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "support/world.hpp"

namespace {

using namespace std::chrono_literals;

class traffic {
 public:
  traffic(fuzz::input in, bool may_reset) noexcept : in_(in), may_reset_(may_reset) {}

  anyio::task<> run() {
    co_await make_streams();
    if (!near_) co_return;
    most_ = 1 + in_.length(3000);
    queue_.emplace(*near_, most_);
    begin_running();
    tasks_.start_soon(read());
    for (int calls = 0; calls < 80 && !in_.empty(); ++calls) co_await call();
    anyio::sim::heal();
    if (in_.flag()) co_return co_await outlive();
    pause_ = 0us;
    if (!running_ && !failure_) begin_running();
    do co_await anyio::sleep(1ms);  // all have begun; each gets room, or the error
    while (waiting_ != 0);
    const auto rest = co_await anyio::as_result(anyio::fail_after(1h, queue_->flush()));
    if (!rest) FUZZ_CHECK(failure_);
    if (failure_) co_return;
    FUZZ_CHECK(queue_->size() == 0);
    static_cast<void>(co_await anyio::as_result(near_->send_eof()));
    while (!read_all_) co_await anyio::sleep(1ms);
    FUZZ_CHECK(broken_ || !near_ || received_ == accepted_.size());
  }

 private:
  anyio::task<> make_streams() {
    const unsigned kind = in_.byte() % 3;
    if (kind == 0) {
      auto ends = anyio::create_memory_stream_pair(1 + in_.length(5000));
      near_ = std::make_unique<anyio::memory_stream>(std::move(ends.first));
      far_ = std::make_unique<anyio::memory_stream>(std::move(ends.second));
    } else if (kind == 1) {
      auto ends = anyio::create_unix_stream_pair();
      if (!ends) co_return;
      near_ = std::make_unique<anyio::unix_stream>(std::move(ends->first));
      far_ = std::make_unique<anyio::unix_stream>(std::move(ends->second));
    } else {
      auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0});
      if (!listener) co_return;
      auto to = anyio::connect_tcp(listener->local_endpoints().front());
      auto ends = co_await anyio::as_result(anyio::when_all(std::move(to), listener->accept()));
      if (!ends) co_return;
      near_ = std::make_unique<anyio::tcp_stream>(std::move(std::get<0>(*ends)));
      far_ = std::make_unique<anyio::tcp_stream>(std::move(std::get<1>(*ends)));
    }
  }

  anyio::task<> call() {
    switch (in_.byte() % 10) {
      case 0:
      case 1: try_send(); break;
      case 2:
      case 3: {
        const std::size_t size = in_.length(500);
        const unsigned limit = in_.byte();
        tasks_.start_soon(send(size, limit));
        break;
      }
      case 4: tasks_.start_soon(flush(in_.byte())); break;
      case 5: co_await anyio::sleep(std::chrono::microseconds(in_.byte() * 10)); break;
      case 6: pause_ = std::chrono::microseconds(in_.byte() * 20); break;  // of the reader
      case 7:  // cancelled, and begun again at once or later
        if (running_)
          stop_running();
        else if (!failure_)
          begin_running();
        break;
      case 8:
        if (begun_) {
          const auto second = co_await anyio::as_result(queue_->run());
          FUZZ_CHECK(!second && (second.error() == anyio::errc::busy_resource || !running_));
        }
        break;
      case 9:
        if (in_.byte() % 8 == 0) {
          near_->close();
          closed_ = true;
        }
        break;
    }
  }

  std::string new_message(std::size_t size) {
    ++messages_;
    return fuzz::payload(static_cast<std::uint8_t>(messages_ % 200), messages_ * 37, size);
  }
  [[nodiscard]] bool has_room(std::size_t size) const {
    return queue_->size() == 0 || queue_->size() + size <= most_;
  }
  void try_send() {
    std::string message = new_message(in_.length(500));
    const std::string copy = message;
    const bool wanted = !failure_ && waiting_ == 0 && has_room(copy.size());
    const bool taken = queue_->try_send(std::move(message));
    FUZZ_CHECK(taken == wanted);
    if (taken) accepted_ += copy;
  }
  anyio::task<> send(std::size_t size, unsigned limit) {
    std::string message = new_message(size);
    const std::string copy = message;
    ++waiting_;
    anyio::result<bool> r = true;
    if (limit % 2 == 0) {
      const auto sent = co_await anyio::as_result(queue_->send(std::move(message)));
      if (!sent) r = sent.error();
    } else {
      auto sending = queue_->send(std::move(message));
      r = co_await anyio::as_result(
          anyio::move_on_after(std::chrono::microseconds(limit * 10), std::move(sending)));
    }
    --waiting_;
    if (!r) co_return check_failure(r.error());
    if (!*r) co_return;
    FUZZ_CHECK(!failure_);
    accepted_ += copy;
  }
  anyio::task<> flush(unsigned limit) {
    const std::size_t before = accepted_.size();
    const auto r = co_await anyio::as_result(
        anyio::move_on_after(std::chrono::microseconds(limit * 50), queue_->flush()));
    if (!r) co_return check_failure(r.error());
    if (*r && queue_) FUZZ_CHECK(accepted_.size() - queue_->size() >= before);
  }
  void check_failure(const anyio::error& e) {
    if (!queue_) {
      FUZZ_CHECK(e == anyio::errc::closed_resource);
      return;
    }
    // The error of `run`, which may not have been told yet.
    FUZZ_CHECK(failure_ ? e.code() == failure_->code() && e.os_error() == failure_->os_error() : running_);
  }

  void begin_running() {
    running_ = true;
    runner_ = std::make_unique<anyio::task_group>();
    runner_->start_soon(send_all());
  }
  void stop_running() {
    runner_.reset();
    running_ = begun_ = false;
  }
  anyio::task<> send_all() {
    begun_ = true;
    const auto r = co_await anyio::as_result(queue_->run());
    FUZZ_CHECK(!r);
    running_ = begun_ = false;
    if (!queue_) {
      FUZZ_CHECK(r.error() == anyio::errc::closed_resource);
      co_return;
    }
    failure_ = r.error();
    if (r.error() == anyio::errc::closed_resource)
      FUZZ_CHECK(closed_);
    else
      FUZZ_CHECK(r.error() == anyio::errc::broken_resource && may_reset_);
  }

  anyio::task<> read() {
    for (;;) {
      const auto r = co_await anyio::as_result(far_->receive(1 + received_ % 3000));
      if (!r) {
        broken_ = r.error() != anyio::errc::end_of_stream;
        FUZZ_CHECK(!broken_ || may_reset_);
        break;
      }
      FUZZ_CHECK(std::string_view(accepted_).substr(received_).starts_with(*r));
      received_ += r->size();
      if (pause_ != 0us) co_await anyio::sleep(pause_);
    }
    read_all_ = true;
  }

  /// The queue ends while operations wait for it.
  anyio::task<> outlive() {
    pause_ = 1h;
    tasks_.start_soon(send(3000, 0));
    tasks_.start_soon(flush(255));
    co_await anyio::sleep(1us);
    queue_.reset();
    co_await anyio::sleep(10us);
    FUZZ_CHECK(!running_);
    FUZZ_CHECK(waiting_ == 0);
  }

  fuzz::input in_;
  bool may_reset_;
  std::size_t most_ = 0;
  std::unique_ptr<anyio::byte_stream> near_, far_;
  std::optional<anyio::send_queue> queue_;
  std::string accepted_;      // all messages that the queue took
  std::size_t received_ = 0;  // of these bytes, by the reader
  std::size_t waiting_ = 0;   // calls of `send`
  std::uint64_t messages_ = 0;
  std::chrono::microseconds pause_{};
  std::optional<anyio::error> failure_;
  bool running_ = false, begun_ = false, closed_ = false, broken_ = false, read_all_ = false;
  anyio::task_group tasks_;
  std::unique_ptr<anyio::task_group> runner_;
};

anyio::task<> play(fuzz::input in, bool may_reset) {
  traffic t(in, may_reset);
  co_await t.run();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  const anyio::sim::options o = fuzz::options_of(in);
  const bool may_reset = o.faults.reset > 0;
  fuzz::check(anyio::sim::run(o, play(in, may_reset)));
  return 0;
}
