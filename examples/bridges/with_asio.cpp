// Asio and anyio_net in one thread: a loop inside Asio's, Asio's inside a loop; operations of ours with
// Asio's completion tokens, use_awaitable among them; and operations of Asio in a task. For Asio without
// Boost, 1.22 or later.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/bridges/with_asio.cpp -o with_asio
#include "anyio_net.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <coroutine>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>

#include <unistd.h>
#if defined(__clang__)  // Asio 1.22 looks for the coroutines of clang 5
#define ASIO_HAS_CO_AWAIT 1
#define ASIO_HAS_STD_COROUTINE 1
#endif
#include <asio/any_io_executor.hpp>
#include <asio/associated_cancellation_slot.hpp>
#include <asio/awaitable.hpp>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/read.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

using namespace std::chrono_literals;

// ---- a loop inside an io_context
// ---------------------------------------------------------------------------

/// Runs both until io.stop(). This takes the place of io.run(), since Asio has no hook that is called before
/// it waits: what its handlers start in our loop has to count.
static void run_both(asio::io_context& io, anyio::loop& net) {
  asio::posix::stream_descriptor readiness(io, ::dup(net.native_handle()));  // Asio closes what it has
  bool watched = false;
  while (!io.stopped()) {
    if (!watched) {
      watched = true;  // it only has to wake Asio
      readiness.async_wait(asio::posix::descriptor_base::wait_read,
                           [&](std::error_code) { watched = false; });
    }
    io.run_one_for(std::min<anyio::duration>(net.time_until_next(), 1h));
    io.poll();
    net.run_once(0s);
  }
}

// ---- an io_context inside a loop
// ---------------------------------------------------------------------------

/// Runs an io_context inside our loop until it has no more work. Asio shows no descriptor that tells when
/// there is something to do, so it is asked: at once while it is busy, else after `most` at the latest. Where
/// it matters, run our loop inside Asio's instead.
static anyio::task<> run_asio(asio::io_context& io, anyio::duration most = 5ms) {
  anyio::duration pause = 0ms;
  for (;;) {
    const auto ran = io.poll();
    if (io.stopped()) co_return;
    pause = ran != 0 ? 0ms : std::clamp<anyio::duration>(pause * 2, 50us, most);
    co_await anyio::sleep(pause);
  }
}

// ---- our operations with Asio's completion tokens
// ----------------------------------------------------------

template <class T>
struct completion {
  using signature = void(std::error_code, T);
};
template <>
struct completion<void> {
  using signature = void(std::error_code);
};

template <class T, class Operation, class Handler>
struct pending {
  pending(Operation op, Handler h, const asio::any_io_executor& e)
      : operation(std::move(op)), handler(std::move(h)), executor(e), work(e) {}

  void complete(anyio::result<T> r) {
    const auto kept = std::move(self);
    Handler h = *std::exchange(handler, std::nullopt);
    const std::error_code code = r ? std::error_code() : make_error_code(r.error());
    if constexpr (std::is_void_v<T>) {
      asio::post(executor, [h = std::move(h), code]() mutable { std::move(h)(code); });
    } else {
      T value = r ? *std::move(r) : T();
      asio::post(executor, [h = std::move(h), code, value = std::move(value)]() mutable {
        std::move(h)(code, std::move(value));
      });
    }
    operation = {};
  }

  Operation operation;
  std::optional<Handler> handler;
  asio::any_io_executor executor;
  asio::executor_work_guard<asio::any_io_executor> work;  // keeps run() of an io_context going
  std::shared_ptr<pending> self;
};

/// Starts an operation and completes as an asynchronous operation of Asio does, on the handler's executor, or
/// else on `executor`. Asio's cancellation withdraws the operation.
template <class T, class Operation, class Token>
auto async_run(asio::any_io_executor executor, Operation operation, Token&& token) {
  const auto begin = [executor]<class Handler>(Handler&& handler, Operation op) {
    using state = pending<T, Operation, std::decay_t<Handler>>;
    const asio::any_io_executor own = asio::get_associated_executor(handler, executor);
    auto slot = asio::get_associated_cancellation_slot(handler);
    const auto p = std::make_shared<state>(std::move(op), std::forward<Handler>(handler), own);
    p->self = p;
    if (slot.is_connected()) {
      slot.assign([weak = std::weak_ptr<state>(p)](asio::cancellation_type) {
        if (const auto here = weak.lock(); here && here->handler)
          here->complete(anyio::error(anyio::errc::cancelled, ECANCELED));
      });
    }
    p->operation.start([q = p.get()](anyio::result<T> r) { q->complete(std::move(r)); });
  };
  return asio::async_initiate<Token, typename completion<T>::signature>(begin, token, std::move(operation));
}

// ---- Asio's operations in a task
// ---------------------------------------------------------------------------

/// A completion token: `co_await socket.async_read_some(buffer, use_task)` in a task gives the value, or
/// throws std::system_error as use_awaitable does. A task that is destroyed cancels the operation. Asio does
/// not touch the buffer afterwards, if it waits for readiness, as it does on everything but Windows.
struct use_task_t {};
inline constexpr use_task_t use_task;

template <class... Args>
class asio::async_result<use_task_t, void(std::error_code, Args...)> {
  struct outcome {
    std::coroutine_handle<> waiter;  // null once the task is gone
    std::optional<std::tuple<std::error_code, Args...>> values;
    asio::cancellation_signal cancel;
  };

  template <class Begin>
  class awaiter {
   public:
    explicit awaiter(Begin begin) : begin_(std::move(begin)) {}
    awaiter(awaiter&&) = default;
    awaiter& operator=(awaiter&&) = delete;
    ~awaiter() {
      if (!outcome_ || outcome_->values) return;
      outcome_->waiter = nullptr;
      outcome_->cancel.emit(asio::cancellation_type::all);
    }

    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
      outcome_ = std::make_shared<outcome>();
      outcome_->waiter = waiter;
      begin_(asio::bind_cancellation_slot(outcome_->cancel.slot(),
                                          [o = outcome_](std::error_code e, Args... values) {
                                            o->values.emplace(e, std::move(values)...);
                                            if (o->waiter) std::exchange(o->waiter, nullptr).resume();
                                          }));
    }
    auto await_resume() {
      auto& values = *outcome_->values;
      if (std::get<0>(values)) throw std::system_error(std::get<0>(values));
      if constexpr (sizeof...(Args) == 1) return std::get<1>(std::move(values));
    }

   private:
    Begin begin_;
    std::shared_ptr<outcome> outcome_;
  };

 public:
  template <class Initiation, class... Arguments>
  static auto initiate(Initiation initiation, use_task_t, Arguments... arguments) {
    auto begin = [initiation = std::move(initiation), ... kept = std::move(arguments)](auto handler) mutable {
      std::move(initiation)(std::move(handler), std::move(kept)...);
    };
    return awaiter<decltype(begin)>(std::move(begin));
  }
};

// ---- a demonstration
// ---------------------------------------------------------------------------------------

static constexpr int rounds = 1000;

static void check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "with_asio: %s\n", what);
  std::exit(1);
}

using asio::ip::tcp;

static anyio::task<> echo(anyio::tcp_stream client) {
  for (;;) co_await client.send(co_await client.receive_view());
}

static asio::awaitable<void> echo_by_asio(tcp::socket socket) {
  char bytes[64];
  try {
    for (;;) {
      const auto size = co_await socket.async_read_some(asio::buffer(bytes), asio::use_awaitable);
      co_await asio::async_write(socket, asio::buffer(bytes, size), asio::use_awaitable);
    }
  } catch (const std::system_error&) {  // the end
  }
}

// Asio's coroutine is the client of our server, and waits for operations of ours.
static asio::awaitable<void> visit_by_asio(asio::io_context& io, std::uint16_t port) {
  const auto ex = io.get_executor();
  tcp::socket socket(io);
  co_await socket.async_connect({asio::ip::address_v4::loopback(), port}, asio::use_awaitable);
  char bytes[5];
  for (int i = 0; i < rounds; ++i) {
    co_await asio::async_write(socket, asio::buffer("hello", 5), asio::use_awaitable);
    co_await asio::async_read(socket, asio::buffer(bytes), asio::use_awaitable);
    check(std::string_view(bytes, 5) == "hello", "another echo");
  }

  auto own =
      co_await async_run<anyio::tcp_stream>(ex, anyio::connect_tcp("127.0.0.1", port), asio::use_awaitable);
  co_await async_run<void>(ex, own.send("bytes"), asio::use_awaitable);
  check(co_await async_run<std::string>(ex, own.receive(), asio::use_awaitable) == "bytes", "receive");
  own.close();
  try {
    co_await async_run<std::string>(ex, own.receive(), asio::use_awaitable);
    check(false, "a closed stream is received from");
  } catch (const std::system_error& e) {
    check(e.code() == make_error_code(anyio::error(anyio::errc::closed_resource)), "another error");
  }

  // A callback, and one that Asio cancels.
  bool called = false;
  async_run<void>(ex, anyio::sleep(1ms), [&](std::error_code e) { called = !e; });
  asio::cancellation_signal signal;
  std::error_code cancelled;
  async_run<void>(ex, anyio::sleep(1h),
                  asio::bind_cancellation_slot(signal.slot(), [&](std::error_code e) { cancelled = e; }));
  signal.emit(asio::cancellation_type::all);
  signal.emit(asio::cancellation_type::all);
  co_await async_run<void>(ex, anyio::sleep(300ms), asio::use_awaitable);
  check(called && cancelled, "callbacks");
}

static void ours_in_theirs() {
  asio::io_context io;
  anyio::loop net;
  auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 0}).value();
  listener.serve(echo).start([](anyio::result<>) {});
  asio::co_spawn(io, visit_by_asio(io, listener.local_port()), [&](std::exception_ptr e) {
    if (e) std::rethrow_exception(e);
    io.stop();
  });
  run_both(io, net);
  std::puts("a loop inside Asio's: 1000 echoes");
}

// A task is the client of Asio's server, once with a socket of ours and once with one of Asio's.
static anyio::task<> visit(asio::io_context& io, std::uint16_t port) {
  auto stream = co_await anyio::connect_tcp("127.0.0.1", port);
  for (int i = 0; i < rounds; ++i) {
    co_await stream.send("hello");
    check(co_await stream.receive() == "hello", "another echo");
  }

  tcp::socket socket(io);
  co_await socket.async_connect({asio::ip::address_v4::loopback(), port}, use_task);
  char bytes[5];
  const std::size_t sent = co_await asio::async_write(socket, asio::buffer("hello", 5), use_task);
  check(sent == 5, "async_write");
  co_await asio::async_read(socket, asio::buffer(bytes), use_task);
  check(std::string_view(bytes, 5) == "hello", "another echo");

  // Cancelling is destroying, for Asio's operations too.
  const auto in_time = co_await anyio::move_on_after(20ms, [](tcp::socket& s) -> anyio::task<> {
    char more[5];
    co_await s.async_read_some(asio::buffer(more), use_task);
  }(socket));
  check(!in_time, "bytes that nobody sent");
  socket.close();
  try {
    co_await socket.async_read_some(asio::buffer(bytes), use_task);
    check(false, "a closed socket is read");
  } catch (const std::system_error& e) {
    check(e.code() == asio::error::bad_descriptor, "another error");
  }
  asio::steady_timer timer(io, 300ms);
  co_await timer.async_wait(use_task);
}

static anyio::task<> theirs_in_ours() {
  asio::io_context io;
  tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  const auto serve = [&]() -> asio::awaitable<void> {
    for (int i = 0; i < 2; ++i)
      asio::co_spawn(io, echo_by_asio(co_await acceptor.async_accept(asio::use_awaitable)), asio::detached);
  };
  asio::co_spawn(io, serve, asio::detached);
  co_await anyio::when_all(run_asio(io), visit(io, acceptor.local_endpoint().port()));
  std::puts("Asio's io_context inside a loop: 1000 echoes");
}

int main() {
  ours_in_theirs();
  anyio::run(theirs_in_ours());
}
