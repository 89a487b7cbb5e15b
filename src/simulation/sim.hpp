// Running a program on a simulated network: virtual time, faults, and an order of events that a seed or a
// fuzzer's bytes decide. The same input gives the same run.
#pragma once

#include "base/config.hpp"
#include "loop/loop.hpp"
#include "operation/combinators.hpp"
#include "operation/operation.hpp"
#include "operation/run.hpp"
#include "simulation/fault_backend.hpp"
#include "simulation/sim_backend.hpp"
#include "simulation/sim_network.hpp"
#include "simulation/sim_options.hpp"

#if defined(ANYIO_NET_SIM)

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if ANYIO_NET_EXCEPTIONS
#include <exception>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace sim {

/// How a run ended.
class report {
 public:
  report() noexcept {}

  std::optional<error> failure;  ///< that the program ended with; `deadlock`, or `timed_out` at a limit
#if ANYIO_NET_EXCEPTIONS
  std::exception_ptr exception;  ///< one that is not anyio's
#endif
  bool deadlock = false;              ///< all waited, and nothing was on its way
  std::uint64_t trace_hash = 0;       ///< of every call and its outcome
  duration virtual_time{};            ///< that the run took
  std::string dump;                   ///< sockets and waiting operations, if it did not end by itself
  std::size_t leaked_handles = 0;     ///< descriptors that were open after all was destroyed
  std::vector<std::uint8_t> choices;  ///< all decisions; as `options.choices` they repeat the run

  /// Whether the program ended by itself, without an error, and left nothing behind.
  [[nodiscard]] bool ok() const noexcept;
  /// One line: what happened, and the choices in hexadecimal digits, which `parse_choices` reads.
  [[nodiscard]] std::string message() const;
};

/// The choices of a report's message.
[[nodiscard]] std::vector<std::uint8_t> parse_choices(std::string_view digits);

}}}  // namespace anyio::sim

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// A run: the network, and the way to it from inside. Runs nest.
class sim_session {
 public:
  explicit sim_session(const sim::options& options);
  sim_session(const sim_session&) = delete;
  sim_session& operator=(const sim_session&) = delete;
  ~sim_session();

  [[nodiscard]] static sim_session& current() noexcept {
    ANYIO_NET_ASSERT(innermost != nullptr && "only inside sim::run");
    return *innermost;
  }
  [[nodiscard]] std::unique_ptr<backend> make_backend();
  /// Runs the loop until the program is through, or the network says that it never will be.
  void drive(loop_core& core, const bool& done);
  /// What is known while the loop still lives, and after it has ended.
  void conclude(loop_core& core, bool done, sim::report& out);
  void finish(sim::report& out);

  [[nodiscard]] sim_network& network() noexcept { return *network_; }
  void set_faults(const sim::faults& faults);

 private:
  static inline constinit thread_local sim_session* innermost = nullptr;
  static void close_descriptor_here(int fd) noexcept;

  std::shared_ptr<sim_network> network_;
  sim::options options_;
  faulty_backend* system_ = nullptr;  // while its loop lives
  sim_session* outer_;
  close_hook outer_close_;
};

/// Says what was found, and aborts.
[[noreturn]] void sim_finding(const sim::report& r);
[[nodiscard]] sim::options sim_fuzz_options(std::span<const std::uint8_t> input) noexcept;
void sim_choose_faults(sim_session& session);

template <class X>
sim::report sim_run(sim_session& session, X&& x) {
  using reference =
      std::conditional_t<is_operation<X> && std::is_lvalue_reference_v<X>, X, operation_of_t<X>>;
  using T = typename std::remove_reference_t<reference>::value_type;
  sim::report out;
  {
    loop world(session.make_backend());
    const ref<loop_core> core(&loop_core::current());
    std::optional<result<T>> outcome;
    bool done = false;
    const auto make = [&]() -> reference {
      if constexpr (std::is_lvalue_reference_v<reference>) {
        return x;
      } else {
        return as_operation(std::forward<X>(x));
      }
    };
    reference op = make();
    [[maybe_unused]] const withdraw_at_end<reference> guard{op};
#if ANYIO_NET_EXCEPTIONS
    try {
      op.start(run_done<T>{&outcome, &done});
      session.drive(*core, done);
    } catch (...) {  // of a callback, which leaves the loop; it is told of, not hidden
      out.exception = std::current_exception();
    }
    if (outcome && !out.exception) out.exception = result_access::foreign_of(*outcome);
#else
    op.start(run_done<T>{&outcome, &done});
    session.drive(*core, done);
#endif
    session.conclude(*core, done, out);
    if (outcome && !outcome->has_value()) out.failure = outcome->error();
    if constexpr (is_result<T>) {
      if (outcome && outcome->has_value() && !(**outcome).has_value()) out.failure = (**outcome).error();
    }
#if ANYIO_NET_EXCEPTIONS
    if (out.exception) out.failure.reset();
#endif
  }
  session.finish(out);
  return out;
}

}}}  // namespace anyio::detail

namespace anyio { inline namespace ANYIO_NET_ABI { namespace sim {

/// Runs a program, given as to `anyio::run`, on a network of its own: no system call, no thread, and an
/// hour's sleep takes no time. What its result says is not looked at, but an error that ends it is.
template <class X>
[[nodiscard]] report run(const options& o, X&& x) {
  detail::sim_session session(o);
  return detail::sim_run(session, std::forward<X>(x));
}

/// The body of a fuzz target: the bytes decide payload, faults and order. An anyio error that ends the
/// program is no finding; another exception, a deadlock, a limit or a leaked descriptor is: it is told of
/// with the choices that repeat it, and the process aborts. Gives 0.
template <class X>
int fuzz(const std::uint8_t* data, std::size_t size, X&& x) {
  detail::sim_session session(detail::sim_fuzz_options({data, size}));
  detail::sim_choose_faults(session);
  const report r = detail::sim_run(session, std::forward<X>(x));
  bool found = r.deadlock || r.leaked_handles != 0 || (r.failure && r.failure->operation() == "simulation");
#if ANYIO_NET_EXCEPTIONS
  found = found || r.exception != nullptr;
#endif
  if (found) detail::sim_finding(r);
  return 0;
}

// --- inside a run

/// Less than the bound, from the run's choices: shrunk and repeated with the rest.
std::size_t draw(std::size_t bound);
/// At most so many bytes.
std::string draw_bytes(std::size_t max);
/// From now on, everywhere.
void set_faults(const faults& f);
/// No more faults: what is right must now come to its end.
void heal();
/// Latency and loss of one way between two addresses, in place of those of everywhere.
void set_link(ip_address from, ip_address to, const faults& f);
/// What a look-up of the name gives, in this order; no addresses: it fails.
void set_name(std::string_view name, std::span<const ip_address> addresses);
/// A signal comes, for every receiver that named it.
void raise(int signal);

}}}  // namespace anyio::sim

#endif
