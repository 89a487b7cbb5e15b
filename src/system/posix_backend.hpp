// The part of the backend that all POSIX systems share.
//
// Sockets, the clock and the services are nearly the same on all systems, and the few differences are handled
// here, so that the backend of a system adds only its poller. This part must not know how a poller waits: a
// signal wakes it through a descriptor.
#pragma once

#include "base/atomic.hpp"
#include "base/config.hpp"
#include "base/slice.hpp"
#include "system/backend.hpp"

#include <cstddef>
#include <cstdint>
#include <string>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

class posix_backend : public backend {
 public:
  ANYIO_NET_FN time_point now() override;
  ANYIO_NET_FN int poll_now(int fd, std::uint32_t interest) override;

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
};

class posix_names : public name_service {
 public:
  ANYIO_NET_FN resolved resolve(const std::string& host, std::uint16_t port, int family) override;
  ANYIO_NET_FN int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) override;
  ANYIO_NET_FN bool has_family(int family) override;

 protected:
  ~posix_names() = default;

 private:
  atomic<signed char> has_ipv4_{-1};  // -1: not known yet
  atomic<signed char> has_ipv6_{-1};
};

class posix_files : public file_service {
 public:
  ANYIO_NET_FN int adopt(int fd) override;
  ANYIO_NET_FN int make_blocking(int fd) override;
  ANYIO_NET_FN int set_close_on_exec(int fd) override;
  ANYIO_NET_FN int identify(int fd, file_identity& identity) override;
  ANYIO_NET_FN ssize_t read(int fd, void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t write(int fd, slice<const ::iovec> parts) override;
  ANYIO_NET_FN ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override;

 protected:
  ~posix_files() = default;
};

class posix_splices : public splice_service {
 public:
  ANYIO_NET_FN int open_pipe(int (&fds)[2]) override;
  ANYIO_NET_FN void grow_pipe(int pipe) override;
  ANYIO_NET_FN ssize_t splice_in(int socket, int pipe, std::size_t most) override;
  ANYIO_NET_FN ssize_t splice_out(int pipe, int socket, std::size_t most) override;

 protected:
  ~posix_splices() = default;
};

class posix_paths : public path_service {
 public:
  ANYIO_NET_FN int identify(const char* path, file_identity& identity) override;
  ANYIO_NET_FN int change_mode(const char* path, mode_t mode) override;
  ANYIO_NET_FN void prepare_mode(int fd, mode_t mode) override;
  ANYIO_NET_FN int unlink(const char* path) override;
  ANYIO_NET_FN std::string absolute(const std::string& path) override;

 protected:
  ~posix_paths() = default;
};

class posix_batches : public batch_service {
 public:
  ANYIO_NET_FN int receive_messages(int fd, slice<message> messages, slice<std::size_t> sizes,
                                    bool& emptied) override;
  ANYIO_NET_FN int send_messages(int fd, slice<const message> messages) override;

 protected:
  ~posix_batches() = default;
};

class posix_threads : public thread_service {
 public:
  ANYIO_NET_FN bool uses_threads() const override;
  ANYIO_NET_FN int start_thread(void (*body)(void*), void* argument) override;

 protected:
  ~posix_threads() = default;
};

/// Makes a descriptor non-blocking and close-on-exec, and disables SIGPIPE on systems where that is a
/// property of the descriptor. Returns 1 if it was blocking before, 0 if not, or a negative errno.
[[nodiscard]] int adopt_descriptor(int fd) noexcept;
/// Opens a socket that is non-blocking and close-on-exec. Returns the descriptor or a negative errno.
[[nodiscard]] int open_posix_socket(int family, int type, int protocol) noexcept;

/// Converts readiness bits to the bits of poll(2).
[[nodiscard]] short poll_interest(std::uint32_t readiness_bits) noexcept;

/// Converts the bits of poll(2) to readiness bits. A hang-up or an error wakes both directions, and the next
/// call reports which it is. The end of the peer's data does not wake writers.
[[nodiscard]] std::uint32_t readiness_of_poll(unsigned events) noexcept;

}}}  // namespace anyio::detail
