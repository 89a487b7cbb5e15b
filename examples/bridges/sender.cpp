// Operations as senders of std::execution (P2300, C++26). Where the standard library has none yet, the few
// names that are used stand below, so that this compiles and runs today.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/bridges/sender.cpp -o sender
#include "anyio_net.hpp"

#include <chrono>
#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

using namespace std::chrono_literals;

namespace execution {
struct sender_t {};
struct receiver_t {};
struct operation_state_t {};
struct set_value_t {};
struct set_error_t {};
struct set_stopped_t {};
template <class... Signatures>
struct completion_signatures {};
template <class R>
concept receiver = std::derived_from<typename std::remove_cvref_t<R>::receiver_concept, receiver_t> &&
                   std::move_constructible<std::remove_cvref_t<R>>;
template <class S>
concept sender = std::derived_from<typename std::remove_cvref_t<S>::sender_concept, sender_t> &&
                 std::move_constructible<std::remove_cvref_t<S>>;
template <class O>
concept operation_state =
    std::derived_from<typename O::operation_state_concept, operation_state_t> && requires(O& o) {
      { o.start() } noexcept;
    };
template <class R, class... Values>
void set_value(R&& r, Values&&... values) noexcept {
  std::move(r).set_value(std::forward<Values>(values)...);
}
template <class R, class Error>
void set_error(R&& r, Error e) noexcept {
  std::move(r).set_error(std::move(e));
}
template <class R>
void set_stopped(R&& r) noexcept {
  std::move(r).set_stopped();
}
template <sender S, receiver R>
auto connect(S&& s, R&& r) {
  return std::forward<S>(s).connect(std::forward<R>(r));
}
template <operation_state O>
void start(O& o) noexcept {
  o.start();
}
}  // namespace execution
// ---- the bridge
// ----------------------------------------------------------------------------------------------

template <class T>
struct completions {
  using type =
      execution::completion_signatures<execution::set_value_t(T), execution::set_error_t(anyio::error),
                                       execution::set_stopped_t()>;
};
template <>
struct completions<void> {
  using type =
      execution::completion_signatures<execution::set_value_t(), execution::set_error_t(anyio::error),
                                       execution::set_stopped_t()>;
};

template <class Operation, execution::receiver Receiver>
class state {
  using T = typename Operation::value_type;
  struct on_stop {
    state* self;
    void operator()() noexcept { self->stop(); }
  };

 public:
  using operation_state_concept = execution::operation_state_t;
  state(Operation op, Receiver r) : operation_(std::move(op)), receiver_(std::move(r)) {}
  state(state&&) = delete;  // the operation calls back to it

  void start() & noexcept {
    operation_.start([this](anyio::result<T> r) { complete(std::move(r)); });
    stop_.emplace(receiver_.get_stop_token(), on_stop{this});  // calls at once if a stop was requested before
  }

 private:
  void complete(anyio::result<T> r) {
    stop_.reset();
    if (!r && r.error() == anyio::errc::cancelled) return execution::set_stopped(std::move(receiver_));
    if (!r) return execution::set_error(std::move(receiver_), r.error());
    if constexpr (std::is_void_v<T>) {
      execution::set_value(std::move(receiver_));
    } else {
      execution::set_value(std::move(receiver_), *std::move(r));
    }
  }
  // On the loop's thread. The operation is withdrawn now; the receiver may destroy this, so it is told from
  // the loop.
  void stop() noexcept {
    operation_ = {};
    anyio::loop::current().post([this] { complete(anyio::errc::cancelled); });
  }

  Operation operation_;
  Receiver receiver_;
  std::optional<std::stop_callback<on_stop>> stop_;
};

/// A sender that starts the operation on the thread's loop. A stop is requested on that thread.
template <class Operation>
class as_sender {
 public:
  using sender_concept = execution::sender_t;
  using completion_signatures = typename completions<typename Operation::value_type>::type;
  explicit as_sender(Operation op) : operation_(std::move(op)) {}

  template <execution::receiver Receiver>
  auto connect(Receiver r) && {
    return state<Operation, Receiver>(std::move(operation_), std::move(r));
  }

 private:
  Operation operation_;
};

// ---- a demonstration: a receiver that keeps what it receives
// ---------------------------------------------------

struct outcome {
  std::string said = "nothing";
  std::stop_source stop;
};

struct recorder {
  using receiver_concept = execution::receiver_t;
  outcome* into;

  void set_value() && noexcept { into->said = "done"; }
  void set_value(std::string text) && noexcept { into->said = std::move(text); }
  void set_error(anyio::error e) && noexcept { into->said = to_string(e.code()); }
  void set_stopped() && noexcept { into->said = "stopped"; }
  std::stop_token get_stop_token() const noexcept { return into->stop.get_token(); }
};

static void expect(const outcome& o, std::string_view said) {
  if (o.said == said) return;
  std::fprintf(stderr, "sender: %s in place of %.*s\n", o.said.c_str(), static_cast<int>(said.size()),
               said.data());
  std::exit(1);
}

int main() {
  anyio::loop loop;
  auto [near, far] = anyio::create_memory_stream_pair();
  outcome received, sent, ended, stopped, stopped_before;
  stopped_before.stop.request_stop();

  auto receiving = execution::connect(as_sender(far.receive(100)), recorder{&received});
  auto sending = execution::connect(as_sender(near.send("bytes")), recorder{&sent});
  auto sleeping = execution::connect(as_sender(anyio::sleep(1h)), recorder{&stopped});
  auto not_begun = execution::connect(as_sender(anyio::sleep(1h)), recorder{&stopped_before});
  execution::start(receiving);
  execution::start(sending);
  execution::start(sleeping);
  execution::start(not_begun);
  expect(received, "nothing");
  loop.post([&] { stopped.stop.request_stop(); });
  loop.run();
  expect(received, "bytes");
  expect(sent, "done");
  expect(stopped, "stopped");
  expect(stopped_before, "stopped");

  near.close();
  auto at_the_end = execution::connect(as_sender(far.receive(100)), recorder{&ended});
  execution::start(at_the_end);
  loop.run();
  expect(ended, "end_of_stream");
  std::puts("senders gave a value, an error and a stop");
}
