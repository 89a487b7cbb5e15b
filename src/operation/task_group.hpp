// Children of one scope.
//
// No child outlives its group: destroying the group destroys its children. The first error of a child ends
// the other children, and `join` raises it. Children begin from the loop, never inside the call that started
// them. This part must not know sockets.
#pragma once

#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/optional.hpp"
#include "operation/coroutine.hpp"
#include "operation/operation.hpp"
#include "operation/part.hpp"
#include "operation/synchronization.hpp"
#include "operation/task.hpp"

#include <tuple>
#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

class task_group;

namespace detail {

struct task_group_access;
class group_child;

/// Receives the outcomes of children whose errors do not cancel each other.
class outcome_sink {
 public:
  /// The child, which is deleted after this, is of the type that `start_soon` made for its arguments.
  virtual void child_ended(group_child& child, result<void>&& outcome) = 0;
  /// The node that the children are a part of.
  [[nodiscard]] virtual node* whole() const noexcept = 0;

 protected:
  ~outcome_sink() = default;
};

/// A place among the children of a group.
struct membership : link {};

/// A child. Its node lies in the ready list until the child begins. After that, the node is the owner of the
/// operation that the child waits for.
class group_child : public node, public membership {
 public:
  explicit group_child(task_group& group) : group_(group) {}
  virtual ~group_child() = default;

  void begin_soon();
  /// Whether it runs, or may run, as far as can be known.
  [[nodiscard]] bool may_run_now() const noexcept { return in_call_ || is_active(*this, true); }
  [[nodiscard]] bool runs_now() const noexcept { return in_call_ || is_active(*this); }

  [[nodiscard]] membership& place() noexcept { return *this; }
  [[nodiscard]] static group_child& at(link& place) noexcept {
    return static_cast<group_child&>(static_cast<membership&>(place));
  }
  bool doomed = false;

 protected:
  virtual void begin_child() = 0;
  /// Reports the end of this child, and deletes it.
  void completed(result<void>&& outcome);

  bool in_call_ = false;

 private:
  static void run(node& n) {
    auto& self = static_cast<group_child&>(n);
    self.retire();
    self.how = &face_of_child;  // still used to find the owner
    self.begin_child();
  }
  static void abandon(node& n) { n.retire(); }
  static node* owner(node& n);
  static description describe(node&) { return {"task_group"}; }
  static constexpr face face_of_child{run, abandon, owner, describe};

  task_group& group_;
};

/// A child that is an operation or a task. An operation is allocated in the pool of started operations; a
/// task has its own frame.
template <class Op>
class operation_child
    : public group_child,
      public std::conditional_t<is_task<Op>, recycled_aligned, pooled<recycler::operations>> {
  using value = typename Op::value_type;

 public:
  operation_child(task_group& group, Op&& op) : group_child(group) {
    detail::keep_loan(op);
    op_.emplace(std::move(op));
  }

 protected:
  explicit operation_child(task_group& group) : group_child(group) {}
  void begin_child() override {
#if ANYIO_NET_EXCEPTIONS
    try {
      op_->start(part<&operation_child::ended>(this));
    } catch (...) {
      return completed(result_access::foreign<void>(std::current_exception()));
    }
#else
    op_->start(part<&operation_child::ended>(this));
#endif
    loop_core::current().advance_last();  // so that one sleep(0) elsewhere is enough for a child to begin
  }
  optional<Op> op_;

 private:
  void ended(result<value>&& r) {
    this->completed(r.has_value() ? result<void>() : result_access::failure<void>(r));
  }
};

struct no_arguments {};

/// Stands for the operation of a child that is a plain function, which has none.
struct no_operation {
  using value_type = void;
};
template <>
class operation_child<no_operation> : public group_child, public pooled<recycler::operations> {
 protected:
  using group_child::group_child;
};

template <class R>
using operation_or_none = std::conditional_t<is_operation<R>, std::remove_cvref_t<R>, no_operation>;

/// A child that is a callable and its arguments, which are kept until the child ends.
template <class F, class... Args>
class callable_child final : public operation_child<operation_or_none<std::invoke_result_t<F&, Args...>>> {
  using returned = std::invoke_result_t<F&, Args...>;
  using base = operation_child<operation_or_none<returned>>;

 public:
  template <class G, class... As>
  callable_child(task_group& group, G&& f, As&&... args)
      : base(group), f_(std::forward<G>(f)), args_(std::forward<As>(args)...) {}

  [[nodiscard]] const F& callable() const noexcept { return f_; }

 private:
  void begin_child() override {
    this->in_call_ = true;
    result<void> outcome;
#if ANYIO_NET_EXCEPTIONS
    try {
      call();
    } catch (const exception& e) {
      outcome = e.error();
    } catch (...) {
      outcome = result_access::foreign<void>(std::current_exception());
    }
#else
    call();
#endif
    this->in_call_ = false;
    if constexpr (is_operation<returned>) {
      if (outcome.has_value() && !this->doomed) return base::begin_child();
    }
    this->completed(std::move(outcome));
  }
  void call() {
    if constexpr (is_operation<returned>) {
      this->op_.emplace(returned_value());
    } else {
      static_cast<void>(returned_value());
    }
  }
  returned returned_value() {
    if constexpr (sizeof...(Args) == 0 && !std::is_member_pointer_v<F>) {
      return f_();
    } else {
      return std::apply(f_, std::move(args_));
    }
  }

  F f_;
  [[no_unique_address]] std::conditional_t<sizeof...(Args) == 0, no_arguments, std::tuple<Args...>> args_;
};

/// Whether a callable can be called with copies of these arguments; if not, a message says why.
template <class F, class... Args>
consteval bool callable_with() {
  if constexpr (std::is_invocable_v<F&, std::unwrap_ref_decay_t<Args>...>) {
    return true;
  } else {
    constexpr bool by_reference = std::is_invocable_v<F&, std::remove_reference_t<Args>&...>;
    static_assert(
        !by_reference,
        "start_soon keeps copies of the arguments, but the callable takes one by reference: pass it as "
        "std::ref(x)");
    static_assert(by_reference, "the callable cannot be called with these arguments");
    return false;
  }
}

}  // namespace detail

/// Runs children concurrently. It can be neither moved nor copied, and its own children must not destroy it.
class task_group {
 public:
  task_group();
  task_group(const task_group&) = delete;
  task_group& operator=(const task_group&) = delete;
  /// Cancels the children that have not ended.
  ~task_group();

  /// Adds an operation or a task as a child, which begins from the loop.
  template <class Op>
    requires detail::is_operation<Op>
  void start_soon(Op&& op) {
    static_assert(!std::is_lvalue_reference_v<Op>,
                  "an operation must be passed by std::move or created in place");
    add(new detail::operation_child<std::remove_cvref_t<Op>>(*this, std::move(op)));
  }
  /// Calls `f` with the arguments from the loop, and runs the task or operation that it returns. The callable
  /// and the arguments are kept until the child ends. Pass references as std::ref.
  template <class F, class... Args>
    requires(!detail::is_operation<F>)
  void start_soon(F&& f, Args&&... args) {
    if constexpr (detail::callable_with<std::decay_t<F>, Args...>())
      add(new detail::callable_child<std::decay_t<F>, std::unwrap_ref_decay_t<Args>...>(
          *this, std::forward<F>(f), std::forward<Args>(args)...));
  }

  class join_operation;
  /// Completes when no child is left; raises the first error of a child. If `join` is cancelled, the children
  /// continue to run.
  [[nodiscard]] join_operation join();

  /// Cancels the children at once. A child that calls this itself ends when it next waits.
  void cancel() noexcept;

  /// The number of children that have not ended.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  friend class detail::group_child;
  friend class join_operation;

  /// Deletes the children that `cancel` could not delete at once, because the call came from inside them.
  struct reaper : detail::node {
    task_group* group = nullptr;
    static void run(detail::node& n) {
      n.retire();
      static_cast<reaper&>(n).group->end_doomed();
    }
    static void abandon(detail::node& n) { n.retire(); }
    static detail::node* owner(detail::node&) { return nullptr; }
    static detail::description describe(detail::node&) { return {"task_group"}; }
    static constexpr detail::face face_of_reaper{run, abandon, owner, describe};
  };

  friend struct detail::task_group_access;

  void add(detail::group_child* child);
  void end_children(bool (*keep)(task_group&, detail::group_child&)) noexcept;
  void end_doomed() noexcept;
  void one_less() noexcept {
    if (--size_ == 0) joining_.wake_all();
  }
  void child_completed(detail::group_child& child, result<void>&& outcome);

  detail::promise_base* host_;  // the coroutine that made the group; valid while place_ is linked
  detail::link place_;
  detail::ref<detail::loop_core> loop_;  // the loop on which the children began
  detail::outcome_sink* sink_ = nullptr;
  detail::list children_;
  std::size_t size_ = 0;
  result<void> failure_;
  detail::wait_line joining_;
  reaper reaper_;
};

/// The operation that `task_group::join` returns.
class [[nodiscard]] task_group::join_operation : public detail::operation<join_operation, void> {
 public:
  static constexpr const char* name = "join";
  join_operation() = default;
  explicit join_operation(task_group& g) : operation(true), group_(&g) {}

 private:
  friend class detail::operation<join_operation, void>;

  [[nodiscard]] detail::loop_core& home() const {
    const bool waits = made && group_->size_ != 0 && !place_.ended();
    return waits && group_->loop_->alive() ? *group_->loop_ : detail::loop_core::current();
  }
  [[nodiscard]] errc enter() {
    group_->joining_.join(place_, *this);
    return errc::ok;
  }
  bool attempt(result<void>& out) {
    if (place_.ended()) {
      made = false;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    if (group_->size_ != 0) return false;
    out = detail::exchange(group_->failure_, result<void>());
    return true;
  }
  void left() noexcept { place_.unlink(); }

  task_group* group_ = nullptr;
  detail::wait_place place_;
};

namespace detail {

/// For parts that handle the outcome of each child separately.
struct task_group_access {
  static void set_sink(task_group& group, outcome_sink& sink) noexcept { group.sink_ = &sink; }
};

}  // namespace detail

inline task_group::join_operation task_group::join() { return join_operation(*this); }

}}  // namespace anyio
