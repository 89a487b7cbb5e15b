// The two forms of an operation, for tests that apply to both.
#pragma once

#include <chrono>
#include <optional>
#include <utility>

#include "anyio_net.hpp"

namespace support {

// A separate copy in each file: clang 14 cannot combine coroutine templates that the linker merges with
// -fsanitize=undefined ("Cannot represent a difference across sections").
namespace {

/// The result of a started operation; its loop is the current one.
template <class T>
class waiting {
 public:
  waiting() = default;
  waiting(const waiting&) = delete;
  waiting& operator=(const waiting&) = delete;

  bool done() const { return outcome_.has_value(); }
  /// Runs the loop until the result is available; `deadlock` if that takes more than seconds.
  anyio::result<T> get() {
    using clock = std::chrono::steady_clock;
    const auto end = clock::now() + std::chrono::seconds(10);
    while (!done() && clock::now() < end) anyio::loop::current().run_once(std::chrono::milliseconds(100));
    if (!done()) return anyio::error(anyio::errc::deadlock, 0, "the test waited in vain");
    anyio::result<T> r = std::move(*outcome_);
    outcome_.reset();
    return r;
  }

 private:
  friend struct by_callback;
  friend struct by_coroutine;
  std::optional<anyio::result<T>> outcome_;
  anyio::task<> running_;
};

struct by_callback {
  template <class Op>
  static void start(Op op, waiting<typename Op::value_type>& w) {
    using result = anyio::result<typename Op::value_type>;
    std::move(op).start([&w](result r) { w.outcome_.emplace(std::move(r)); });
  }
  template <class Op>
  static auto get(Op op) {
    waiting<typename Op::value_type> w;
    start(std::move(op), w);
    return w.get();
  }
};

struct by_coroutine {
  template <class Op>
  static void start(Op op, waiting<typename Op::value_type>& w) {
    w.running_ = await(std::move(op), w);
    w.running_.start([](anyio::result<>) {});
  }
  template <class Op>
  static auto get(Op op) {
    waiting<typename Op::value_type> w;
    start(std::move(op), w);
    return w.get();
  }

 private:
  template <class Op>
  static anyio::task<> await(Op op, waiting<typename Op::value_type>& w) {
    w.outcome_.emplace(co_await anyio::as_result(std::move(op)));
  }
};

/// Runs the loop until nothing is ready.
[[maybe_unused]] void settle() {
  while (anyio::loop::current().run_once(std::chrono::seconds(0))) {
  }
}

}  // namespace
}  // namespace support
