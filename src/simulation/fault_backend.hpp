// Fault injection for any backend, also for the real system: calls that do less than they could, or that fail
// as they can fail on a real system.
//
// Only faults that are legal for the kind of descriptor happen, and none that hangs a correct program: after
// an injected EAGAIN, readiness is reported soon. This part must not know whether a kernel is below.
#pragma once

#include "base/config.hpp"
#include "simulation/sim_choices.hpp"
#include "simulation/sim_options.hpp"
#include "system/backend.hpp"

#if defined(ANYIO_NET_SIM)

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// Selects one call to fail, for tests that let each call fail in turn. Calls that can fail count from 1.
struct fault_at_call {
  std::uint64_t call = 0;      // 0: none
  std::size_t which = 0;       // index among the errors that are legal for it
  std::uint64_t counted = 0;   // out: calls so far
  std::size_t choices = 0;     // out: how many errors were legal for it
  const char* name = nullptr;  // out: the name of the call
  int error_number = 0;        // out: the error of the call
};

/// Refuses to move bytes inside the kernel: a relay copies them through memory, where faults reach them.
class no_splices final : public splice_service {
 public:
  int open_pipe(int (&)[2]) override { return -ENOSYS; }
  void grow_pipe(int) override {}
  ssize_t splice_in(int, int, std::size_t) override { return -ENOSYS; }
  ssize_t splice_out(int, int, std::size_t) override { return -ENOSYS; }
};

/// A backend with faults, which may be changed while it is used.
class faulty_backend : public backend {
 public:
  [[nodiscard]] static std::unique_ptr<faulty_backend> make(std::unique_ptr<backend> inner,
                                                            std::shared_ptr<sim_choices> choices,
                                                            const sim::faults& all);
  sim::faults faults;
  fault_at_call* one_failure = nullptr;

 protected:
  explicit faulty_backend(const sim::faults& all) noexcept : faults(all) {}

  splice_service* splices() final { return &splices_; }

 private:
  no_splices splices_;
};

}  // namespace detail

/// Adds faults to a backend, according to the faults and choices of the options, for instance in
/// `loop l(fault_backend(system_backend(), o));`. Latency is only for simulated networks and is ignored here.
/// Returns null if `inner` is null.
[[nodiscard]] std::unique_ptr<backend> fault_backend(std::unique_ptr<backend> inner,
                                                     const sim::options& options);

}}  // namespace anyio

#endif
