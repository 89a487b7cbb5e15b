// A backend on a network in memory: virtual time that jumps ahead when everything waits, and a trace of every
// call.
//
// This part must not know operations or faults.
#pragma once

#include "base/config.hpp"
#include "simulation/sim_network.hpp"
#include "system/backend.hpp"

#if defined(ANYIO_NET_SIM)

#include <memory>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class sim_backend final : public backend,
                          private name_service,
                          private file_service,
                          private path_service,
                          private batch_service,
                          private thread_service,
                          private signal_service {
 public:
  explicit sim_backend(std::shared_ptr<sim_network> network) noexcept : network_(std::move(network)) {}

  ANYIO_NET_FN time_point now() override;

  ANYIO_NET_FN int watch(int fd, std::uint64_t token) override;
  ANYIO_NET_FN void forget(int fd) override;
  ANYIO_NET_FN int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override;
  ANYIO_NET_FN int poll_now(int fd, std::uint32_t interest) override;
  ANYIO_NET_FN int wait(std::span<poll_event> events, duration at_most) override;
  ANYIO_NET_FN void wake() override;
  ANYIO_NET_FN int native_handle() const override;

  ANYIO_NET_FN int open_socket(int family, int type, int protocol) override;
  ANYIO_NET_FN int open_pair(int family, int type, int (&fds)[2]) override;
  ANYIO_NET_FN int bind(int fd, const sockaddr* address, socklen_t size) override;
  ANYIO_NET_FN int listen(int fd, int backlog) override;
  ANYIO_NET_FN int connect(int fd, const sockaddr* address, socklen_t size) override;
  ANYIO_NET_FN int accept(int fd, sockaddr* address, socklen_t* size) override;
  ANYIO_NET_FN int shutdown(int fd, int how) override;
  ANYIO_NET_FN int break_connection(int fd) override;
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
  ANYIO_NET_FN thread_service* threads() override { return this; }
  ANYIO_NET_FN signal_service* signals() override { return this; }

 private:
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
  ANYIO_NET_FN int unlink(const char* path) override;

  ANYIO_NET_FN int receive_messages(int fd, std::span<message> messages, std::span<std::size_t> sizes,
                                    bool& emptied) override;
  ANYIO_NET_FN int send_messages(int fd, std::span<const message> messages) override;

  ANYIO_NET_FN bool uses_threads() const override;
  ANYIO_NET_FN std::size_t turns_before_call() override;
  ANYIO_NET_FN int start_thread(void (*body)(void*), void* argument) override;

  ANYIO_NET_FN int catch_signal(int number) override;
  ANYIO_NET_FN void release_signal(int number) override;
  ANYIO_NET_FN bool take_signal(int number) override;

  template <class Outcome>
  Outcome traced(const char* call, int fd, Outcome outcome) {
    network_->trace(call, fd, static_cast<std::int64_t>(outcome));
    return outcome;
  }

  std::shared_ptr<sim_network> network_;
  bool woken_ = false;
};

}}}  // namespace anyio::detail

#endif
