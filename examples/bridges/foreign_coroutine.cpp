// Coroutines of other libraries and ours, each awaiting the other: here a lazy coroutine as in cppcoro and
// libcoro, and a function with a callback, made awaitable in fifteen lines.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/bridges/foreign_coroutine.cpp -o foreign_coroutine
#include "anyio_net.hpp"

#include <chrono>
#include <coroutine>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <utility>

using namespace std::chrono_literals;

// ---- what another library has
// ------------------------------------------------------------------------------

/// A coroutine that begins when it is awaited. It knows nothing of anyio_net.
template <class T>
class lazy {
 public:
  struct promise_type {
    struct resume_waiter {
      bool await_ready() const noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> h) const noexcept {
        return h.promise().waiter;
      }
      void await_resume() const noexcept {}
    };
    lazy get_return_object() { return lazy(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    resume_waiter final_suspend() const noexcept { return {}; }
    void return_value(T v) { value = std::move(v); }
    void unhandled_exception() { exception = std::current_exception(); }

    std::coroutine_handle<> waiter;
    std::optional<T> value;
    std::exception_ptr exception;
  };

  explicit lazy(std::coroutine_handle<promise_type> h) : coroutine_(h) {}
  lazy(lazy&& other) noexcept : coroutine_(std::exchange(other.coroutine_, nullptr)) {}
  lazy& operator=(lazy&&) = delete;
  ~lazy() {
    if (coroutine_) coroutine_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiter) {
    coroutine_.promise().waiter = waiter;
    return coroutine_;
  }
  T await_resume() {
    if (coroutine_.promise().exception) std::rethrow_exception(coroutine_.promise().exception);
    return *std::move(coroutine_.promise().value);
  }

 private:
  std::coroutine_handle<promise_type> coroutine_;
};

/// A library that answers by a callback, some time later: `ask` keeps the callback, `answer` calls it.
class oracle {
 public:
  void ask(void (*callback)(void* data, int answer), void* data) {
    callback_ = callback;
    data_ = data;
  }
  void forget() { callback_ = nullptr; }
  bool is_asked() const { return callback_ != nullptr; }
  void answer(int a) { std::exchange(callback_, nullptr)(data_, a); }

 private:
  void (*callback_)(void*, int) = nullptr;
  void* data_ = nullptr;
};

// ---- the bridge to a callback: destroying it, as a timeout does, withdraws it
// ---------------------------------

class answer_of {
 public:
  explicit answer_of(oracle& from) : from_(from) {}
  answer_of(const answer_of&) = delete;
  answer_of& operator=(const answer_of&) = delete;
  ~answer_of() {
    if (waiter_) from_.forget();
  }

  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    from_.ask(
        [](void* data, int answer) {
          auto* self = static_cast<answer_of*>(data);
          self->answer_ = answer;
          std::exchange(self->waiter_, nullptr).resume();
        },
        this);
  }
  int await_resume() const { return answer_; }

 private:
  oracle& from_;
  std::coroutine_handle<> waiter_;
  int answer_ = 0;
};

// ---- a demonstration
// -----------------------------------------------------------------------------------------

static void check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "foreign_coroutine: %s\n", what);
  std::exit(1);
}

// The foreign coroutine awaits operations and tasks of ours. as_result gives an error as a value; without it
// the foreign coroutine gets an exception, which needs exceptions in the build.
static anyio::task<std::string> ask(anyio::byte_stream& stream) {
  co_await stream.send("question");
  co_return co_await stream.receive();
}
static lazy<std::string> converse(anyio::byte_stream& stream) {
  const auto slept = co_await as_result(anyio::sleep(1ms));
  check(slept.has_value(), "no sleep");
  const auto answer = co_await as_result(ask(stream));
  check(answer && *answer == "answer", "another answer");
  const auto end = co_await as_result(stream.receive());
  check(!end && end.error() == anyio::errc::end_of_stream, "no end");
  try {
    static_cast<void>(co_await stream.receive());
    check(false, "no exception");
  } catch (const anyio::end_of_stream&) {
  }
  co_return *answer + " and end";
}

static anyio::task<> reply(anyio::memory_stream stream) {
  check(co_await stream.receive() == "question", "another question");
  co_await stream.send("answer");
}

// A task awaits the foreign coroutine, which is a foreign awaitable as any other is.
static anyio::task<> both() {
  auto [near, far] = anyio::create_memory_stream_pair();
  anyio::task_group group;
  group.start_soon(reply(std::move(far)));
  check(co_await converse(near) == "answer and end", "another end");
  co_await group.join();
  std::puts("a task awaited a foreign coroutine, which awaited operations");
}

static anyio::task<> answer_soon(oracle& o) {
  co_await anyio::sleep(1ms);
  o.answer(42);
}
static anyio::task<int> wait_for(oracle& o) { co_return co_await answer_of(o); }

static anyio::task<> callbacks() {
  oracle o;
  const auto [answer, nothing] = co_await anyio::when_all(wait_for(o), answer_soon(o));
  static_cast<void>(nothing);
  check(answer == 42, "another answer");
  check(!co_await anyio::move_on_after(1ms, wait_for(o)), "an answer that nobody gave");
  check(!o.is_asked(), "a task that is gone still waits for its answer");
  std::puts("a task awaited a callback, and was withdrawn from another");
}

int main() {
  anyio::run(both());
  anyio::run(callbacks());
}
