// Every allocation of a program fails once. In each case `std::bad_alloc` leaves the loop, or was handled in
// it, the loop can be used afterwards, nothing leaks, and nothing is closed twice.
//
// Each run has its own thread, since the library keeps freed memory per thread: so all memory comes from
// operator new, and memory left when the thread has ended is a leak. The simulated system is not part of the
// program, and never fails. For files with ANYIO_NET_SIM; without exceptions there is nothing to sweep.
#pragma once

#include "anyio_net.hpp"

#include "allocations.hpp"

#include <doctest/doctest.h>

#if ANYIO_NET_EXCEPTIONS && ANYIO_NET_TEST_TSAN == 0

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <thread>
#include <utility>

namespace support {
namespace {

inline thread_local std::size_t closed_in_vain = 0;  // closed descriptors that were not open
inline thread_local anyio::detail::close_hook close_for_simulation = nullptr;

/// A backend whose own allocations never fail.
class unfailing_backend final : public anyio::backend,
                                private anyio::detail::name_service,
                                private anyio::detail::file_service,
                                private anyio::detail::path_service,
                                private anyio::detail::batch_service,
                                private anyio::detail::thread_service,
                                private anyio::detail::security_service,
                                private anyio::detail::signal_service {
  using message = anyio::detail::message;
  using identity = anyio::detail::file_identity;

 public:
  explicit unfailing_backend(std::unique_ptr<anyio::backend> inner)
      : inner_(std::move(inner)), security_(anyio::detail::security_of_thread) {
    anyio::detail::security_of_thread = this;
  }
  ~unfailing_backend() override {
    anyio::detail::security_of_thread = security_;
    const allow_allocations here;
    inner_.reset();
  }

  anyio::time_point now() override { return inner_->now(); }
  int watch(int fd, std::uint64_t token) override {
    const allow_allocations here;
    return inner_->watch(fd, token);
  }
  void forget(int fd) override {
    const allow_allocations here;
    inner_->forget(fd);
  }
  int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override {
    const allow_allocations here;
    return inner_->watch_once(fd, interest, token, again);
  }
  int poll_now(int fd, std::uint32_t interest) override {
    const allow_allocations here;
    return inner_->poll_now(fd, interest);
  }
  int wait(anyio::detail::slice<anyio::detail::poll_event> events, anyio::duration at_most) override {
    const allow_allocations here;
    return inner_->wait(events, at_most);
  }
  void wake() override { inner_->wake(); }
  int native_handle() const override { return inner_->native_handle(); }
  int wake_descriptor() const override { return inner_->wake_descriptor(); }

  int open_socket(int family, int type, int protocol) override {
    const allow_allocations here;
    return inner_->open_socket(family, type, protocol);
  }
  int open_pair(int family, int type, int (&fds)[2]) override {
    const allow_allocations here;
    return inner_->open_pair(family, type, fds);
  }
  int bind(int fd, const sockaddr* address, socklen_t size) override {
    const allow_allocations here;
    return inner_->bind(fd, address, size);
  }
  int listen(int fd, int backlog) override {
    const allow_allocations here;
    return inner_->listen(fd, backlog);
  }
  int connect(int fd, const sockaddr* address, socklen_t size) override {
    const allow_allocations here;
    return inner_->connect(fd, address, size);
  }
  int accept(int fd, sockaddr* address, socklen_t* size) override {
    const allow_allocations here;
    return inner_->accept(fd, address, size);
  }
  int shutdown(int fd, int how) override {
    const allow_allocations here;
    return inner_->shutdown(fd, how);
  }
  int close(int fd) override {
    const allow_allocations here;
    const int status = inner_->close(fd);
    if (status < 0) ++closed_in_vain;
    return status;
  }
  ssize_t receive(int fd, void* data, std::size_t size) override {
    const allow_allocations here;
    return inner_->receive(fd, data, size);
  }
  ssize_t send(int fd, const void* data, std::size_t size) override {
    const allow_allocations here;
    return inner_->send(fd, data, size);
  }
  ssize_t receive_message(int fd, message& m) override {
    const allow_allocations here;
    return inner_->receive_message(fd, m);
  }
  ssize_t send_message(int fd, const message& m) override {
    const allow_allocations here;
    return inner_->send_message(fd, m);
  }
  int get_option(int fd, int level, int name, void* value, socklen_t* size) override {
    const allow_allocations here;
    return inner_->get_option(fd, level, name, value, size);
  }
  int set_option(int fd, int level, int name, const void* value, socklen_t size) override {
    const allow_allocations here;
    return inner_->set_option(fd, level, name, value, size);
  }
  int local_address(int fd, sockaddr* address, socklen_t* size) override {
    const allow_allocations here;
    return inner_->local_address(fd, address, size);
  }
  int remote_address(int fd, sockaddr* address, socklen_t* size) override {
    const allow_allocations here;
    return inner_->remote_address(fd, address, size);
  }

  anyio::detail::name_service* names() override { return this; }
  anyio::detail::file_service* files() override { return this; }
  anyio::detail::path_service* paths() override { return this; }
  anyio::detail::batch_service* batches() override { return this; }
  anyio::detail::thread_service* threads() override { return this; }
  anyio::detail::signal_service* signals() override { return this; }

 private:
  anyio::detail::resolved resolve(const std::string& host, std::uint16_t port, int family) override {
    const allow_allocations here;
    return anyio::detail::names_of(*inner_).resolve(host, port, family);
  }
  int reverse(const anyio::ip_endpoint& endpoint, std::string& host, std::string& service) override {
    const allow_allocations here;
    return anyio::detail::names_of(*inner_).reverse(endpoint, host, service);
  }
  bool has_family(int family) override { return anyio::detail::names_of(*inner_).has_family(family); }

  int adopt(int fd) override {
    const allow_allocations here;
    return anyio::detail::files_of(*inner_).adopt(fd);
  }
  int make_blocking(int fd) override {
    const allow_allocations here;
    return anyio::detail::files_of(*inner_).make_blocking(fd);
  }
  int set_close_on_exec(int fd) override {
    const allow_allocations here;
    return anyio::detail::files_of(*inner_).set_close_on_exec(fd);
  }
  int identify(int fd, identity& out) override {
    const allow_allocations here;
    return anyio::detail::files_of(*inner_).identify(fd, out);
  }
  ssize_t read(int fd, void* data, std::size_t size) override {
    const allow_allocations here;
    return anyio::detail::files_of(*inner_).read(fd, data, size);
  }
  ssize_t write(int fd, anyio::detail::slice<const ::iovec> parts) override {
    const allow_allocations here;
    return anyio::detail::files_of(*inner_).write(fd, parts);
  }
  ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override {
    const allow_allocations here;
    return anyio::detail::files_of(*inner_).send_file(socket, file, offset, count);
  }

  int identify(const char* path, identity& out) override {
    const allow_allocations here;
    return anyio::detail::paths_of(*inner_).identify(path, out);
  }
  int change_mode(const char* path, mode_t mode) override {
    const allow_allocations here;
    return anyio::detail::paths_of(*inner_).change_mode(path, mode);
  }
  int unlink(const char* path) override {
    const allow_allocations here;
    return anyio::detail::paths_of(*inner_).unlink(path);
  }

  int receive_messages(int fd, anyio::detail::slice<message> messages,
                       anyio::detail::slice<std::size_t> sizes, bool& emptied) override {
    const allow_allocations here;
    return anyio::detail::batches_of(*inner_).receive_messages(fd, messages, sizes, emptied);
  }
  int send_messages(int fd, anyio::detail::slice<const message> messages) override {
    const allow_allocations here;
    return anyio::detail::batches_of(*inner_).send_messages(fd, messages);
  }

  bool uses_threads() const override { return anyio::detail::threads_of(*inner_).uses_threads(); }
  std::size_t turns_before_call() override {
    const allow_allocations here;
    return anyio::detail::threads_of(*inner_).turns_before_call();
  }
  int start_thread(void (*body)(void*), void* argument) override {
    const allow_allocations here;
    return anyio::detail::threads_of(*inner_).start_thread(body, argument);
  }

  std::int64_t calendar() override {
    const allow_allocations here;
    return security_->calendar();
  }
  std::uint64_t entropy() override {
    const allow_allocations here;
    return security_->entropy();
  }

  int catch_signal(int number) override {
    const allow_allocations here;
    return inner_->signals()->catch_signal(number);
  }
  void release_signal(int number) override {
    const allow_allocations here;
    inner_->signals()->release_signal(number);
  }
  bool take_signal(int number) override {
    const allow_allocations here;
    return inner_->signals()->take_signal(number);
  }

  std::unique_ptr<anyio::backend> inner_;
  anyio::detail::security_service* security_;
};

/// The result of one run.
struct allocation_verdict {
  bool reached = false;  // the allocation was one of the program's
  bool thrown = false;   // bad_alloc has left the loop
  bool stuck = false;    // nothing can happen any more, and no exception was reported
  bool usable = false;   // the loop after the run
  std::size_t leaked_descriptors = 0;
  std::size_t closed_in_vain = 0;
};

/// One run, passed to its body.
class failing_run {
 public:
  failing_run(anyio::detail::sim_session& world, std::size_t n) : world_(world), n_(n) {}

  allocation_verdict verdict;

  /// Nothing will ever happen again.
  bool is_over() const { return world_.network().verdict() != anyio::detail::sim_verdict::none; }
  /// Calls the function under test.
  template <class F>
  void attempt(F f) {
    const fail_nth_allocation failure(n_);
    try {
      f();
    } catch (const std::bad_alloc&) {
      verdict.thrown = true;
    }
    verdict.reached = failure.reached();
    verdict.stuck = is_over() && !verdict.thrown;
  }
  /// Checks that this thread's loop can be used, if there is one.
  void try_out_loop() {
    verdict.usable = anyio::detail::loop_core::current_or_null() == nullptr || is_over();
    if (verdict.usable) return;
    try {
      run_to_end(try_out(verdict.usable));
    } catch (...) {
      verdict.usable = false;
    }
  }
  void run_to_end(anyio::task<>&& t) {
    bool done = false;
    t.start([&done](anyio::result<>) { done = true; });
    while (!done && !is_over()) anyio::loop::current().run_once(anyio::duration::max());
  }

 private:
  static anyio::task<> try_out(bool& usable) {
    auto pair = anyio::create_unix_stream_pair().value();
    co_await pair.first.send("still here");
    co_await anyio::sleep(std::chrono::milliseconds(1));
    usable = co_await pair.second.receive() == "still here";
  }

  anyio::detail::sim_session& world_;
  const std::size_t n_;
};

/// Runs `body(system, run)`, which creates a loop on the system.
template <class Body>
allocation_verdict run_failing(const anyio::sim::options& o, std::size_t n, Body body) {
  anyio::detail::sim_session world(o);
  failing_run run(world, n);
  closed_in_vain = 0;
  close_for_simulation = std::exchange(anyio::detail::close_simulated, [](int fd) noexcept {
    const allow_allocations here;
    if (!anyio::detail::sim_session::current().network().is_open(fd)) ++closed_in_vain;
    close_for_simulation(fd);
  });
  body(std::make_unique<unfailing_backend>(world.make_backend()), run);
  run.verdict.leaked_descriptors = world.network().open_descriptors();
  run.verdict.closed_in_vain = closed_in_vain;
  anyio::detail::close_simulated = close_for_simulation;
  return run.verdict;
}

/// Fails each allocation in turn, and returns their number.
template <class Body>
std::size_t sweep_allocations(const char* what, const anyio::sim::options& o, Body body) {
  allocation_verdict v;
  const auto run = [&](std::size_t n) { std::thread([&] { v = run_failing(o, n, body); }).join(); };
  run(0);  // allocated once per process
  CHECK(!v.stuck);
  for (std::size_t n = 1;; ++n) {
    std::int64_t leaked = 0;
    for (int times = 0; times == 0 || (times == 1 && leaked != 0); ++times) {  // some texts are kept forever
      const std::int64_t before = live_allocations();
      run(n);
      leaked = live_allocations() - before;
    }
    const bool right =
        leaked == 0 && !v.stuck && v.usable && v.leaked_descriptors == 0 && v.closed_in_vain == 0;
    if (!right) {
      INFO(std::string(what), ": allocation ", n, " fails; thrown: ", v.thrown, ", stuck: ", v.stuck,
           ", usable: ", v.usable, ", leaked: ", leaked, " allocations, ", v.leaked_descriptors,
           " descriptors, closed in vain: ", v.closed_in_vain);
      CHECK(right);
    }
    if (!v.reached) return n - 1;
  }
}

/// Sweeps a program, as for `anyio::run`.
template <class Program>
std::size_t sweep_program(const char* what, const anyio::sim::options& o, Program p) {
  return sweep_allocations(what, o, [p](std::unique_ptr<anyio::backend> system, failing_run& run) {
    anyio::loop loop(std::move(system));
    run.attempt([&] { run.run_to_end(p()); });
    run.try_out_loop();
  });
}

}  // namespace
}  // namespace support

#endif
