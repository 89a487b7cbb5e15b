// Runs a program on a simulated network, with virtual time and faults. A seed or a fuzzer's bytes decide the
// faults and the order of events. Equal input gives equal runs.
#pragma once

#include "base/config.hpp"
#include "loop/loop.hpp"
#include "operation/combinators.hpp"
#include "operation/operation.hpp"
#include "operation/run.hpp"
#include "simulation/fault_backend.hpp"
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

/// The outcome of a run.
class report {
 public:
  report() noexcept {}

  std::optional<error> failure;  ///< the error that ended the program; `deadlock`, or `timed_out` at a limit
#if ANYIO_NET_EXCEPTIONS
  std::exception_ptr exception;  ///< an exception that is not from anyio
#endif
  bool deadlock = false;              ///< everything waited, and no event could arrive
  std::uint64_t trace_hash = 0;       ///< hash of every call and its outcome
  duration virtual_time{};            ///< virtual duration of the run
  std::string dump;                   ///< sockets and pending operations, if the run did not end by itself
  std::size_t leaked_handles = 0;     ///< descriptors that were open after all objects were destroyed
  std::vector<std::uint8_t> choices;  ///< all decisions; as `options.choices` they repeat the run

  /// Whether the program ended by itself, without an error, and left no descriptor open.
  [[nodiscard]] bool ok() const noexcept;
  /// One line with the outcome and the choices in hexadecimal digits, which `parse_choices` reads.
  [[nodiscard]] std::string message() const;
};

/// Reads the choices from the hexadecimal digits in a report's message.
[[nodiscard]] std::vector<std::uint8_t> parse_choices(std::string_view digits);

}}}  // namespace anyio::sim

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// A run: the network, and the access to it from inside the run. Runs may be nested.
class sim_session {
 public:
  explicit sim_session(const sim::options& options);
  sim_session(const sim_session&) = delete;
  sim_session& operator=(const sim_session&) = delete;
  ~sim_session();

  [[nodiscard]] static sim_session& current() noexcept {
    ANYIO_NET_ASSERT(innermost != nullptr && "can be used only inside sim::run");
    return *innermost;
  }
  [[nodiscard]] std::unique_ptr<backend> make_backend();
  /// Runs the loop until the program has ended, the loop is gone, or the network reports a verdict.
  void drive(loop_core& core, const bool& done);
  /// Fills the report: `conclude` while the loop still lives, `finish` after it has ended.
  void conclude(loop_core& core, bool done, sim::report& out);
  void finish(sim::report& out);

  [[nodiscard]] sim_network& network() noexcept { return *network_; }
  void set_faults(const sim::faults& faults);

 private:
  static inline constinit thread_local sim_session* innermost = nullptr;
  static void close_descriptor_here(int fd) noexcept;

  std::shared_ptr<sim_network> network_;
  sim::options options_;
  faulty_backend* system_ = nullptr;  // valid while its loop lives
  sim_session* outer_;
  close_hook outer_close_;
  security_service* outer_security_;
};

/// Prints the report, and aborts.
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
    result<T> outcome(errc::cancelled);
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
    } catch (...) {  // from a callback, out of the loop; the report contains it
      out.exception = std::current_exception();
    }
    if (done && !out.exception) out.exception = result_access::foreign_of(outcome);
#else
    op.start(run_done<T>{&outcome, &done});
    session.drive(*core, done);
#endif
    session.conclude(*core, done, out);
    if (done && !outcome.has_value()) out.failure = outcome.error();
    if constexpr (is_result<T>) {
      if (outcome.has_value() && !(*outcome).has_value()) out.failure = (*outcome).error();
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

/// Runs a program, which is passed as to `anyio::run`, on its own simulated network: without system calls and
/// threads, and a sleep of an hour takes no time. The report contains an error that ends the program or that
/// the program returns as a `result`, but not the program's value.
template <class X>
[[nodiscard]] report run(const options& o, X&& x) {
  detail::sim_session session(o);
  return detail::sim_run(session, std::forward<X>(x));
}

/// The body of a fuzz target: the bytes decide payload, faults and order. The findings are: an exception that
/// is not from anyio, a deadlock, a reached limit, and a leaked descriptor. For a finding, prints the report
/// with the choices that repeat it and aborts. An anyio error that ends the program is no finding. Returns 0.
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

/// Draws a number less than `bound` from the run's choices, so that it is repeated and shrunk with them.
std::size_t draw(std::size_t bound);
/// Draws a string of at most `max` bytes from the run's choices.
std::string draw_bytes(std::size_t max);
/// Sets the faults of the whole run from now on. The latency and loss of `set_link` stay in force.
void set_faults(const faults& f);
/// Turns all faults off, except those of `set_link`. A correct program must then complete.
void heal();
/// Sets the latency and loss of one direction between two addresses, instead of those of the whole run.
void set_link(ip_address from, ip_address to, const faults& f);
/// Sets the addresses that a look-up of the name returns, in this order. Without addresses it fails.
void set_name(std::string_view name, std::span<const ip_address> addresses);
/// Delivers a signal to every receiver that named it.
void raise(int signal);

}}}  // namespace anyio::sim

#endif
