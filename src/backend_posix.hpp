// What POSIX systems have in common behind the seam.
//
// Sockets, files, names, paths, signals, the clock and randomness are nearly the same everywhere, and
// the few differences are settled here, so that a system's own backend adds no more than its poller.
// This part must not know how a poller waits: to be woken by a signal it has a descriptor to write to.
#pragma once

#include "backend.hpp"
#include "config.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace anyio::inline ANYIO_NET_ABI::detail {

class posix_backend : public backend {
 public:
  posix_backend();
  /// The derived class has called `release_signals` before it closed its wake descriptor.
  ~posix_backend() override;

  time_point now() override;
  std::uint64_t entropy() override;
  int poll_now(int fd, std::uint32_t interest) override;

  int open_socket(int family, int type, int protocol) override;
  int open_pair(int family, int type, int (&fds)[2]) override;
  int bind(int fd, const sockaddr* address, socklen_t size) override;
  int listen(int fd, int backlog) override;
  int connect(int fd, const sockaddr* address, socklen_t size) override;
  int accept(int fd, sockaddr* address, socklen_t* size) override;
  int shutdown(int fd, int how) override;
  int close(int fd) override;
  ssize_t receive(int fd, void* data, std::size_t size) override;
  ssize_t send(int fd, const void* data, std::size_t size) override;
  ssize_t receive_message(int fd, message& m) override;
  ssize_t send_message(int fd, const message& m) override;
  int receive_messages(int fd, std::span<message> messages, std::span<std::size_t> sizes) override;
  int send_messages(int fd, std::span<const message> messages) override;
  ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override;
  int get_option(int fd, int level, int name, void* value, socklen_t* size) override;
  int set_option(int fd, int level, int name, const void* value, socklen_t size) override;
  int local_address(int fd, sockaddr* address, socklen_t* size) override;
  int remote_address(int fd, sockaddr* address, socklen_t* size) override;

  ssize_t read(int fd, void* data, std::size_t size) override;
  ssize_t write(int fd, std::span<const ::iovec> parts) override;
  int adopt(int fd) override;
  int set_close_on_exec(int fd) override;

  int identify(const char* path, file_identity& identity) override;
  int change_mode(const char* path, mode_t mode) override;
  int unlink(const char* path) override;

  resolved resolve(const std::string& host, std::uint16_t port, int family) override;
  int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) override;
  bool has_family(int family) override;

  int catch_signal(int number) override;
  void release_signal(int number) override;
  bool take_signal(int number) override;

  bool uses_threads() const override;
  int start_thread(void (*body)(void*), void* argument) override;

 protected:
  /// A non-blocking descriptor, or -errno. Eight bytes written to it end a `wait`, this one or the
  /// next; a signal handler does so, hence it stays the same until `release_signals`.
  virtual int wake_descriptor() = 0;

  /// Releases all that was caught. Afterwards nobody writes to the wake descriptor.
  void release_signals();

 private:
  static constexpr int signal_limit = 64;  // the highest number that can be caught

  std::atomic<signed char> has_ipv4_{-1};  // -1: not known yet
  std::atomic<signed char> has_ipv6_{-1};
  int signal_slot_ = -1;                          // in the table of the process; -1: none yet
  std::uint32_t signals_caught_[signal_limit]{};  // how many times each number is, at number - 1
};

/// The bits of poll(2) for readiness bits.
[[nodiscard]] short poll_interest(std::uint32_t readiness_bits) noexcept;

/// The readiness bits for what poll(2) gave. A hang-up or an error wakes both directions, and the
/// next call tells what it is; the end of what the peer sends leaves writers alone.
[[nodiscard]] std::uint32_t readiness_of_poll(unsigned events) noexcept;

}  // namespace anyio::inline ANYIO_NET_ABI::detail
