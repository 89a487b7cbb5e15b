// Children that give values, which are taken as they end.
//
// Each child is a task of a task group that keeps the child's outcome until somebody takes it; the memory for
// it exists from the start, so that no outcome can be lost. This part must not know sockets.
#pragma once

#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/recycler.hpp"
#include "base/result.hpp"
#include "base/standard.hpp"
#include "operation/as_result.hpp"
#include "operation/operation.hpp"
#include "operation/synchronization.hpp"
#include "operation/task.hpp"
#include "operation/task_group.hpp"

#include <cstddef>
#include <exception>
#include <tuple>
#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

template <class Op>
inline constexpr bool is_as_result = false;
template <class Op>
inline constexpr bool is_as_result<as_result_operation<Op>> = true;

/// What a result group needs whatever the type of its values is: the outcomes that are there, those who wait
/// for them, and how many are still to come.
class outcome_line {
 public:
  /// Room for the outcome of a child. It counts as one to come until it is destroyed.
  class entry : public link {
   public:
    explicit entry(outcome_line& line) noexcept : line_(line) { ++line_.left_; }
    entry(const entry&) = delete;
    entry& operator=(const entry&) = delete;
    ~entry() {
      if (--line_.left_ == 0) line_.waiting.wake_all();
    }
    /// The outcome is there: hands it over to the line.
    void arrived() noexcept {
      line_.there_.push_back(*this);
      line_.waiting.wake_first();
    }

   private:
    outcome_line& line_;
  };

  [[nodiscard]] entry* first() noexcept {
    return there_.empty() ? nullptr : static_cast<entry*>(there_.next);
  }
  [[nodiscard]] std::size_t left() const noexcept { return left_; }

  wait_line waiting;

 private:
  list there_;
  std::size_t left_ = 0;
};

}  // namespace detail

/// Runs children that give values, and gives those values as the children end. It can be neither moved nor
/// copied, and its own children must not destroy it. An error of a child is raised by `next`, and the other
/// children go on.
template <class T>
class result_group {
 public:
  result_group() = default;
  result_group(const result_group&) = delete;
  result_group& operator=(const result_group&) = delete;
  /// Cancels the children that have not ended, and drops the values that nobody took.
  ~result_group() {
    while (detail::outcome_line::entry* e = line_.first()) delete static_cast<kept*>(e);
  }

  /// Adds an operation or a task as a child, which begins from the loop.
  template <class Op>
    requires detail::is_operation<Op>
  void start_soon(Op&& op) {
    static_assert(!std::is_lvalue_reference_v<Op>,
                  "an operation must be passed by std::move or created in place");
    detail::keep_loan(op);
    children_.start_soon(run_operation<std::remove_cvref_t<Op>>(room(), std::move(op)));
  }
  /// Calls `f` with the arguments from the loop. `f` returns the value, or a task or an operation that gives
  /// it. The callable and the arguments are kept until the child ends. Pass references as std::ref.
  template <class F, class... Args>
    requires(!detail::is_operation<F>)
  void start_soon(F&& f, Args&&... args) {
    if constexpr (detail::callable_with<std::decay_t<F>, Args...>())
      children_.start_soon(run_callable<std::decay_t<F>, std::unwrap_ref_decay_t<Args>...>(
          room(), std::forward<F>(f), std::forward<Args>(args)...));
  }

  class next_operation;
  /// Gives the value of the next child that ends, or raises the error of that child. Raises `end_of_stream`
  /// when no child and no value is left. A cancelled one takes no value. Several may wait; they are served in
  /// order.
  [[nodiscard]] next_operation next() { return next_operation(*this); }

  /// Cancels the children that have not ended. Values that are there already stay for `next`. A child that
  /// calls this itself ends when it next waits.
  void cancel() noexcept { children_.cancel(); }

  /// How many values `next` can still give: those that are there, and those of children that have not ended.
  [[nodiscard]] std::size_t size() const noexcept { return line_.left(); }

 private:
  /// A child's outcome, which is there once it is in the line.
  struct kept : detail::outcome_line::entry, detail::recycled_aligned {
    using detail::outcome_line::entry::entry;
    result<T> outcome{errc::cancelled};

    template <class Value>
    void keep(result<Value>&& r) {
      if (!r.has_value()) {
        outcome = detail::result_access::failure<T>(r);
      } else if constexpr (std::is_void_v<T>) {
        outcome = result<T>();
      } else {
        outcome = result<T>(static_cast<T>(*std::move(r)));
      }
    }
    template <class Op, class Outcome>
    void keep_of(Outcome&& r) {
      if constexpr (detail::is_as_result<Op>) {
        keep(result<Outcome>(std::move(r)));  // its value is a result
      } else {
        keep(std::move(r));
      }
    }
#if ANYIO_NET_EXCEPTIONS
    void keep_exception() {
      try {
        throw;
      } catch (const exception& e) {
        outcome = e.error();
      } catch (...) {
        outcome = detail::result_access::foreign<T>(std::current_exception());
      }
    }
#endif
  };
  using kept_ptr = detail::owned<kept>;

  [[nodiscard]] kept_ptr room() { return kept_ptr(new kept(line_)); }

  /// Awaits an operation without raising; the outcome is for `keep_of<Op>`.
  template <class Op>
  static auto without_raising(Op&& op) {
    if constexpr (detail::is_as_result<Op>) {
      return std::move(op);
    } else {
      return as_result(std::move(op));
    }
  }
  template <class Op>
#if defined(__clang__)
  [[clang::no_sanitize("function")]]  // as for detail::call_task
#endif
  static task<>
  run_operation(kept_ptr self, Op op) {
#if ANYIO_NET_EXCEPTIONS
    try {
      self->template keep_of<Op>(co_await without_raising(std::move(op)));
    } catch (...) {
      self->keep_exception();
    }
#else
    self->template keep_of<Op>(co_await without_raising(std::move(op)));
#endif
    self.release()->arrived();
  }
  template <class F, class... Args>
#if defined(__clang__)
  [[clang::no_sanitize("function")]]
#endif
  static task<>
  run_callable(kept_ptr self, F f, Args... args) {
    using returned = std::invoke_result_t<F&, Args...>;
#if ANYIO_NET_EXCEPTIONS
    try {
#endif
      if constexpr (detail::is_operation<returned>) {
        self->template keep_of<returned>(
            co_await without_raising(std::apply(f, std::forward_as_tuple(std::forward<Args>(args)...))));
      } else if constexpr (std::is_void_v<returned>) {
        std::apply(f, std::forward_as_tuple(std::forward<Args>(args)...));
        self->keep(result<void>());
      } else {
        self->keep(result<returned>(std::apply(f, std::forward_as_tuple(std::forward<Args>(args)...))));
      }
#if ANYIO_NET_EXCEPTIONS
    } catch (...) {
      self->keep_exception();
    }
#endif
    self.release()->arrived();
  }

  detail::outcome_line line_;
  task_group children_;  // ends first: its children refer to the line
};

/// The operation that `result_group::next` returns.
template <class T>
class [[nodiscard]] result_group<T>::next_operation : public detail::operation<next_operation, T> {
  using base = detail::operation<next_operation, T>;

 public:
  static constexpr const char* name = "next";
  next_operation() = default;
  explicit next_operation(result_group& g) : base(true), line_(&g.line_) {}
  next_operation(next_operation&&) noexcept = default;
  next_operation& operator=(next_operation&& other) noexcept {
    this->withdraw();
    base::operator=(std::move(other));
    line_ = other.line_;
    return *this;
  }
  ~next_operation() { this->withdraw(); }

 private:
  friend class detail::operation<next_operation, T>;

  [[nodiscard]] errc enter() {
    line_->waiting.join(place_, *this);
    return errc::ok;
  }
  bool attempt(result<T>& out) {
    if (this->pending() && place_.ended()) {
      this->made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    const detail::wait_place* first = line_->waiting.first();
    if (first != nullptr && first != &place_ && line_->left() != 0) return false;
    if (auto* const came = static_cast<kept*>(line_->first())) {
      const kept_ptr taken(came);
      out = std::move(taken->outcome);
      return true;
    }
    if (line_->left() != 0) return false;
    out = error(errc::end_of_stream, 0, name);
    return true;
  }
  void left() noexcept {
    if (!place_.linked()) return;
    place_.unlink();
    if (line_->first() != nullptr) line_->waiting.wake_first();  // there is another value
  }

  detail::outcome_line* line_ = nullptr;
  detail::wait_place place_;
};

}}  // namespace anyio
