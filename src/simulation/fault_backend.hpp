// Fault injection for any backend, also for the real system: calls that do less than they could, or that fail
// as they can fail on a real system.
//
// Only faults that are legal for the kind of descriptor happen, and none that hangs a correct program: after
// an injected EAGAIN, readiness is reported soon. This part must not know whether a kernel is below.
#pragma once

#include "base/config.hpp"
#include "base/mutex.hpp"
#include "simulation/sim_choices.hpp"
#include "simulation/sim_options.hpp"
#include "system/backend.hpp"

#if defined(ANYIO_NET_SIM)

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

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

class faulty_backend final : public backend,
                             private name_service,
                             private file_service,
                             private path_service,
                             private batch_service,
                             private signal_service {
 public:
  faulty_backend(std::unique_ptr<backend> inner, std::shared_ptr<sim_choices> choices,
                 const sim::faults& all) noexcept
      : faults(all), inner_(std::move(inner)), choices_(std::move(choices)) {}

  sim::faults faults;
  fault_at_call* one_failure = nullptr;

  ANYIO_NET_FN time_point now() override;

  ANYIO_NET_FN int watch(int fd, std::uint64_t token) override;
  ANYIO_NET_FN void forget(int fd) override;
  ANYIO_NET_FN int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override;
  ANYIO_NET_FN int poll_now(int fd, std::uint32_t interest) override;
  ANYIO_NET_FN int wait(std::span<poll_event> events, duration at_most) override;
  ANYIO_NET_FN void wake() override;
  ANYIO_NET_FN int native_handle() const override;
  ANYIO_NET_FN int wake_descriptor() const override;
  ANYIO_NET_FN int after_fork() override;

  ANYIO_NET_FN int open_socket(int family, int type, int protocol) override;
  ANYIO_NET_FN int open_pair(int family, int type, int (&fds)[2]) override;
  ANYIO_NET_FN int bind(int fd, const sockaddr* address, socklen_t size) override;
  ANYIO_NET_FN int listen(int fd, int backlog) override;
  ANYIO_NET_FN int connect(int fd, const sockaddr* address, socklen_t size) override;
  ANYIO_NET_FN int accept(int fd, sockaddr* address, socklen_t* size) override;
  ANYIO_NET_FN void keep_non_blocking(int fd) override;
  ANYIO_NET_FN int shutdown(int fd, int how) override;
  ANYIO_NET_FN int close(int fd) override;
  ANYIO_NET_FN ssize_t receive(int fd, void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t send(int fd, const void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t receive_message(int fd, message& m) override;
  ANYIO_NET_FN ssize_t send_message(int fd, const message& m) override;
  ANYIO_NET_FN int get_option(int fd, int level, int name, void* value, socklen_t* size) override;
  ANYIO_NET_FN int set_option(int fd, int level, int name, const void* value, socklen_t size) override;
  ANYIO_NET_FN int local_address(int fd, sockaddr* address, socklen_t* size) override;
  ANYIO_NET_FN int remote_address(int fd, sockaddr* address, socklen_t* size) override;

  ANYIO_NET_FN name_service* names() override { return this; }
  ANYIO_NET_FN file_service* files() override { return this; }
  ANYIO_NET_FN path_service* paths() override { return this; }
  ANYIO_NET_FN batch_service* batches() override { return this; }
  ANYIO_NET_FN thread_service* threads() override { return inner_->threads(); }
  ANYIO_NET_FN signal_service* signals() override { return this; }

  ANYIO_NET_FN std::size_t transfer(std::size_t wanted) override;
  ANYIO_NET_FN int break_connection(int fd) override;

 private:
  enum class kind : std::uint8_t { other, stream, ip_datagram, unix_datagram };
  struct watched {
    std::uint64_t token = 0;
    std::uint32_t owed = 0;  // readiness that is still to be reported
    kind what = kind::other;
    bool broken = false;
    std::uint64_t denied_read = 0;  // the turn of the last EAGAIN
    std::uint64_t denied_write = 0;
  };
  struct held_datagram {
    int fd;
    std::string data;
    std::string address;
    std::string control;
  };

  ANYIO_NET_FN resolved resolve(const std::string& host, std::uint16_t port, int family) override;
  ANYIO_NET_FN int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) override;
  ANYIO_NET_FN bool has_family(int family) override;

  ANYIO_NET_FN int adopt(int fd) override;
  ANYIO_NET_FN int make_blocking(int fd) override;
  ANYIO_NET_FN int set_close_on_exec(int fd) override;
  ANYIO_NET_FN int identify(int fd, file_identity& identity) override;
  ANYIO_NET_FN ssize_t read(int fd, void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t write(int fd, std::span<const ::iovec> parts) override;
  ANYIO_NET_FN ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override;

  ANYIO_NET_FN int identify(const char* path, file_identity& identity) override;
  ANYIO_NET_FN int change_mode(const char* path, mode_t mode) override;
  ANYIO_NET_FN void prepare_mode(int fd, mode_t mode) override;
  ANYIO_NET_FN int unlink(const char* path) override;
  ANYIO_NET_FN std::string absolute(const std::string& path) override;

  ANYIO_NET_FN int receive_messages(int fd, std::span<message> messages, std::span<std::size_t> sizes,
                                    bool& emptied) override;
  ANYIO_NET_FN int send_messages(int fd, std::span<const message> messages) override;

  ANYIO_NET_FN int catch_signal(int number) override;
  ANYIO_NET_FN void release_signal(int number) override;
  ANYIO_NET_FN bool take_signal(int number) override;
  ANYIO_NET_FN void wake_by(int wake_descriptor) override;

  [[nodiscard]] signal_service& inner_signals();
  /// Returns the negative errno that this call must fail with, 0 if it must not fail.
  [[nodiscard]] int failure_of(const char* name, std::span<const int> legal);
  [[nodiscard]] kind kind_of(int fd);
  /// Applies faults to a transfer before it begins: returns a negative errno or 0, and may reduce the size.
  int meddle(int fd, const char* name, std::uint32_t direction, std::size_t& size);
  [[nodiscard]] bool chance(double probability);
  [[nodiscard]] std::size_t pick(std::size_t bound);
  [[nodiscard]] bool shorten(std::size_t& size);
  [[nodiscard]] bool denies(int fd, std::uint32_t direction);
  [[nodiscard]] bool is_broken(int fd) const;
  void break_here(int fd);
  void owe(int fd, std::uint32_t bits);
  ssize_t send_one(int fd, const message& m);
  void release_held(int fd);

  std::unique_ptr<backend> inner_;
  signal_service_ptr system_signals_{nullptr, nullptr};  // made at first use if the inner backend has none
  std::shared_ptr<sim_choices> choices_;
  std::map<int, watched> watched_;
  std::optional<held_datagram> held_;
  std::uint64_t turn_ = 2;
  bool owes_ = false;
  bool interrupted_ = false;
  process_mutex mutex_;  // protects the choices
};

}  // namespace detail

/// Adds faults to a backend, according to the faults and choices of the options, for instance in
/// `loop l(fault_backend(system_backend(), o));`. Latency is only for simulated networks and is ignored here.
/// Returns null if `inner` is null.
[[nodiscard]] std::unique_ptr<backend> fault_backend(std::unique_ptr<backend> inner,
                                                     const sim::options& options);

}}  // namespace anyio

#endif
