// Children of one scope.
//
// Nothing that is started in a group outlives it: destroying the group destroys them. The first error
// of a child ends the others, and `join` raises it. Children begin from the loop, never inside the call
// that started them. This part must not know sockets.
#pragma once

#include "base/config.hpp"
#include "operation/coroutine.hpp"
#include "operation/operation.hpp"
#include "operation/synchronization.hpp"
#include "operation/task.hpp"

#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

class task_group;

namespace detail {

struct task_group_access;

/// Takes the ends of children that are not to cancel each other.
class outcome_sink {
 public:
  virtual void child_ended(result<void>&& outcome) = 0;
  /// What the children are a part of.
  [[nodiscard]] virtual node* whole() const noexcept = 0;

 protected:
  ~outcome_sink() = default;
};

/// A place among the children of a group.
struct membership : link {};

/// A child: the node stands for it, in the ready list until it begins, and as the owner of what it waits
/// for after that.
class group_child : public node, public membership {
 public:
  explicit group_child(task_group& group) : group_(group) {}
  virtual ~group_child() = default;

  void begin_soon();
  /// Whether it runs, or may run, for all that can be seen.
  [[nodiscard]] bool may_run_now() const noexcept { return in_call_ || is_active(*this, true); }
  [[nodiscard]] bool runs_now() const noexcept { return in_call_ || is_active(*this); }

  [[nodiscard]] membership& place() noexcept { return *this; }
  [[nodiscard]] static group_child& at(link& place) noexcept {
    return static_cast<group_child&>(static_cast<membership&>(place));
  }
  bool doomed = false;

 protected:
  virtual void begin_child() = 0;
  /// The end of this child, which is deleted.
  void completed(result<void>&& outcome);

  bool in_call_ = false;

 private:
  static void run(node& n) {
    auto& self = static_cast<group_child&>(n);
    self.retire();
    self.how = &face_of_child;  // still the one to ask for the owner
    self.begin_child();
  }
  static void abandon(node& n) { n.retire(); }
  static node* owner(node& n);
  static description describe(node&) { return {"task_group"}; }
  static constexpr face face_of_child{run, abandon, owner, describe};

  task_group& group_;
};

/// A child that is an operation, which takes a started operation's block, or a task, whose frame is apart.
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
      op_->start(done{this});
    } catch (...) {
      return completed(result_access::foreign<void>(std::current_exception()));
    }
#else
    op_->start(done{this});
#endif
    loop_core::current().advance_last();  // so one sleep(0) of others is enough for a child to begin
  }
  std::optional<Op> op_;

 private:
  struct done {
    using internal = void;
    operation_child* child;
    void operator()(result<value>&& r) const {
      child->completed(r.has_value() ? result<void>() : result_access::failure<void>(r));
    }
    node* owner() const noexcept { return child; }
  };
};

/// A plain function as a child has nothing to wait for.
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

/// A child that is a callable and its arguments, kept as long as it runs.
template <class F, class... Args>
class callable_child final : public operation_child<operation_or_none<std::invoke_result_t<F&, Args...>>> {
  using returned = std::invoke_result_t<F&, Args...>;
  using base = operation_child<operation_or_none<returned>>;

 public:
  template <class G, class... As>
  callable_child(task_group& group, G&& f, As&&... args)
      : base(group), f_(std::forward<G>(f)), args_(std::forward<As>(args)...) {}

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
      this->op_.emplace(std::apply(f_, std::move(args_)));
    } else {
      static_cast<void>(std::apply(f_, std::move(args_)));
    }
  }

  F f_;
  std::tuple<Args...> args_;
};

}  // namespace detail

/// Runs children together. Neither moves nor copies; must not be destroyed by a child of its own.
class task_group {
 public:
  task_group();
  task_group(const task_group&) = delete;
  task_group& operator=(const task_group&) = delete;
  /// Cancels what still runs.
  ~task_group();

  /// Begins it from the loop.
  template <class Op>
    requires detail::is_operation<Op>
  void start_soon(Op&& op) {
    static_assert(!std::is_lvalue_reference_v<Op>,
                  "an operation is handed over by std::move, or made in place");
    add(new detail::operation_child<std::remove_cvref_t<Op>>(*this, std::move(op)));
  }
  /// Calls it with the arguments from the loop, and runs the task or operation that it returns. Callable
  /// and arguments are kept until the child ends; references are given as std::ref.
  template <class F, class... Args>
    requires(!detail::is_operation<F>)
  void start_soon(F&& f, Args&&... args) {
    add(new detail::callable_child<std::decay_t<F>, std::unwrap_ref_decay_t<Args>...>(
        *this, std::forward<F>(f), std::forward<Args>(args)...));
  }

  class join_operation;
  /// Completes when no child is left; raises the first error of a child. Cancelled, it leaves the
  /// children running.
  [[nodiscard]] join_operation join();

  /// Ends the children at once; one that calls this itself ends when it next waits.
  void cancel() noexcept;

  /// How many children have not ended.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  friend class detail::group_child;
  friend class join_operation;

  /// Deletes what a child doomed by calling `cancel` from inside itself has left.
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

  detail::promise_base* host_;  // the coroutine that made the group, while place_ is linked
  detail::link place_;
  detail::ref<detail::loop_core> loop_;  // on which the children began
  detail::outcome_sink* sink_ = nullptr;
  detail::link children_;
  std::size_t size_ = 0;
  result<void> failure_;
  detail::wait_line joining_;
  reaper reaper_;
};

/// What `task_group::join` gives.
class [[nodiscard]] task_group::join_operation : public detail::operation<join_operation, void> {
 public:
  static constexpr const char* name = "join";
  join_operation() = default;
  explicit join_operation(task_group& g) : group_(&g) {}

 private:
  friend class detail::operation<join_operation, void>;

  [[nodiscard]] detail::loop_core& home() const {
    const bool waits = group_ != nullptr && group_->size_ != 0 && !place_.ended();
    return waits && group_->loop_->alive() ? *group_->loop_ : detail::loop_core::current();
  }
  [[nodiscard]] errc check() const noexcept { return group_ ? errc::ok : errc::invalid_argument; }
  [[nodiscard]] errc enter() {
    if (group_) group_->joining_.join(place_, *this);
    return check();
  }
  bool attempt(result<void>& out) {
    if (place_.ended()) {
      group_ = nullptr;
      out = error(errc::closed_resource, 0, name);
      return true;
    }
    if (group_->size_ != 0) return false;
    out = std::exchange(group_->failure_, result<void>());
    return true;
  }
  void left() noexcept { place_.unlink(); }

  task_group* group_ = nullptr;
  detail::wait_place place_;
};

namespace detail {

/// For parts that keep children apart.
struct task_group_access {
  static void set_sink(task_group& group, outcome_sink& sink) noexcept { group.sink_ = &sink; }
};

}  // namespace detail

inline task_group::join_operation task_group::join() { return join_operation(*this); }

}}  // namespace anyio
