// The system calls that all POSIX systems share.
#pragma once

#include "base/slice.hpp"
#include "base/standard.hpp"
#include "system/posix_backend.hpp"

#include "base/address.hpp"
#include "base/error.hpp"

#include <cerrno>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// MSG_DONTWAIT in every call: O_NONBLOCK belongs to the open file, and a process that shares it may clear it.
#if defined(MSG_NOSIGNAL) && !defined(__APPLE__)  // older macOS kernels do not know it
inline constexpr int send_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#else
inline constexpr int send_flags = MSG_DONTWAIT;  // `adopt_descriptor` disables SIGPIPE for each socket
#endif
#if defined(MSG_CMSG_CLOEXEC)
inline constexpr int receive_message_flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
#else
inline constexpr int receive_message_flags = MSG_DONTWAIT;
#endif

/// Makes a system call and returns its result or -errno. Repeats the call if a signal interrupts it.
template <class Call>
[[gnu::always_inline]] inline auto system_call(Call call) noexcept {
  using value = decltype(call());
  for (;;) {
    const value r = call();
    if (r >= 0) [[likely]]
      return r;
    if (errno != EINTR) return static_cast<value>(-errno);
  }
}

// --- time

ANYIO_NET_FN time_point posix_backend::now() { return std::chrono::steady_clock::now(); }

// --- readiness

ANYIO_NET_FN short poll_interest(std::uint32_t readiness_bits) noexcept {
  int events = 0;
  if ((readiness_bits & ready_read) != 0) events |= POLLIN;
  if ((readiness_bits & ready_write) != 0) events |= POLLOUT;
  if ((readiness_bits & ready_urgent) != 0) events |= POLLPRI;
#if defined(POLLRDHUP)
  if ((readiness_bits & ready_end) != 0) events |= POLLRDHUP;
#endif
  return static_cast<short>(events);
}

ANYIO_NET_FN std::uint32_t readiness_of_poll(unsigned events) noexcept {
  if constexpr (POLLIN == ready_read && POLLOUT == ready_write) {
    if ((events & ~unsigned{POLLIN | POLLOUT}) == 0) [[likely]]
      return events;
  }
  std::uint32_t ready = 0;
  if ((events & POLLIN) != 0) ready |= ready_read;
  if ((events & POLLOUT) != 0) ready |= ready_write;
  if ((events & POLLPRI) != 0) ready |= ready_urgent | ready_read;
#if defined(POLLRDHUP)
  if ((events & POLLRDHUP) != 0) ready |= ready_end | ready_read;
#endif
  if ((events & (POLLHUP | POLLERR)) != 0) ready |= ready_end | ready_read | ready_write;
  return ready;
}

ANYIO_NET_FN int posix_backend::poll_now(int fd, std::uint32_t interest) {
  // poll(2) silently ignores a negative descriptor.
  if (fd < 0) return -EBADF;
  pollfd entry{fd, poll_interest(interest), 0};
  const int n = system_call([&] { return ::poll(&entry, 1, 0); });
  if (n <= 0) return n;
  if ((entry.revents & POLLNVAL) != 0) return -EBADF;
  return static_cast<int>(readiness_of_poll(static_cast<unsigned short>(entry.revents)));
}

// --- sockets

/// Replaces SOCK_NONBLOCK, SOCK_CLOEXEC and accept4 on systems without them; a system has all three or none.
inline int prepare_socket(int fd) noexcept {
#if defined(SOCK_NONBLOCK)
  return fd;
#else
  const int r = adopt_descriptor(fd);
  if (r >= 0) return fd;
  ::close(fd);
  return r;
#endif
}

ANYIO_NET_FN int open_posix_socket(int family, int type, int protocol) noexcept {
#if defined(SOCK_NONBLOCK)
  type |= SOCK_CLOEXEC | SOCK_NONBLOCK;
#endif
  const int fd = system_call([&] { return ::socket(family, type, protocol); });
  return fd < 0 ? fd : prepare_socket(fd);
}

ANYIO_NET_FN int posix_backend::open_socket(int family, int type, int protocol) {
  return open_posix_socket(family, type, protocol);
}

ANYIO_NET_COLD int posix_backend::open_pair(int family, int type, int (&fds)[2]) {
#if defined(SOCK_NONBLOCK)
  type |= SOCK_CLOEXEC | SOCK_NONBLOCK;
#endif
  const int r = system_call([&] { return ::socketpair(family, type, 0, fds); });
  if (r < 0) return r;
  const int first = prepare_socket(fds[0]);
  const int second = prepare_socket(fds[1]);
  if (first >= 0 && second >= 0) return 0;
  if (first >= 0) ::close(first);
  if (second >= 0) ::close(second);
  return std::min(first, second);
}

ANYIO_NET_COLD int posix_backend::bind(int fd, const sockaddr* address, socklen_t size) {
  return system_call([&] { return ::bind(fd, address, size); });
}

ANYIO_NET_COLD int posix_backend::listen(int fd, int backlog) {
  return system_call([&] { return ::listen(fd, backlog); });
}

ANYIO_NET_FN int posix_backend::connect(int fd, const sockaddr* address, socklen_t size) {
  if (::connect(fd, address, size) == 0) return 0;
  // An interrupted attempt continues in the kernel (POSIX), so the call must not be repeated.
  return errno == EINTR ? -EINPROGRESS : -errno;
}

ANYIO_NET_FN int posix_backend::accept(int fd, sockaddr* address, socklen_t* size) {
#if defined(SOCK_NONBLOCK)
  const int r = system_call([&] { return ::accept4(fd, address, size, SOCK_CLOEXEC | SOCK_NONBLOCK); });
#else
  const int r = system_call([&] { return ::accept(fd, address, size); });
#endif
  return r < 0 ? r : prepare_socket(r);
}

/// Sets O_NONBLOCK for calls without a flag such as MSG_DONTWAIT. Checks first, since other processes see the
/// change.
inline void restore_non_blocking(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) static_cast<void>(::fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

ANYIO_NET_FN void posix_backend::keep_non_blocking(int fd) { restore_non_blocking(fd); }

ANYIO_NET_FN int posix_backend::shutdown(int fd, int how) {
  return system_call([&] { return ::shutdown(fd, how); });
}

ANYIO_NET_FN int posix_backend::close(int fd) {
  // No retry after EINTR: the number is free, and another thread may already use it.
  return ::close(fd) == 0 || errno == EINTR ? 0 : -errno;
}

ANYIO_NET_FN ssize_t posix_backend::receive(int fd, void* data, std::size_t size) {
  return system_call([&] { return ::recv(fd, data, size, MSG_DONTWAIT); });
}

/// Converts EPROTOTYPE, which macOS returns if the connection breaks during a send, to ECONNRESET.
template <class Result>
constexpr Result sent_or_error(Result r) noexcept {
#if defined(__APPLE__)
  if (r == -EPROTOTYPE) return -ECONNRESET;
#endif
  return r;
}

ANYIO_NET_FN ssize_t posix_backend::send(int fd, const void* data, std::size_t size) {
  return sent_or_error(system_call([&] { return ::send(fd, data, size, send_flags); }));
}

/// The header for `sendmsg` and `recvmsg`. Neither call writes to the const members of a message.
inline msghdr message_header(const message& m) noexcept {
  msghdr header{};  // musl and the BSDs have additional members and padding
  header.msg_name = m.address;
  header.msg_namelen = m.address != nullptr ? m.address_size : 0;
  header.msg_iov = const_cast<::iovec*>(m.parts.data());
  header.msg_iovlen = static_cast<decltype(header.msg_iovlen)>(m.parts.size());
  header.msg_control = m.control_size != 0 ? m.control : nullptr;
  header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
  return header;
}

inline void take_header(const msghdr& header, message& m) noexcept {
  m.address_size = m.address != nullptr ? header.msg_namelen : 0;
  m.control_size = static_cast<std::size_t>(header.msg_controllen);
  m.flags = header.msg_flags;
}

#if defined(__linux__)
/// Receives a datagram into one buffer with recvfrom, which is cheaper than recvmsg. With MSG_TRUNC the call
/// returns the full length of a truncated datagram (recv(2)).
inline ssize_t receive_datagram(int fd, message& m) {
  const ::iovec& room = m.parts.front();
  socklen_t size = 0;
  const ssize_t n = system_call([&] {
    size = m.address_size;
    return ::recvfrom(fd, room.iov_base, room.iov_len, MSG_DONTWAIT | MSG_TRUNC, m.address, &size);
  });
  if (n < 0) return n;
  const bool cut_off = static_cast<std::size_t>(n) > room.iov_len;
  m.address_size = size;
  m.flags = cut_off ? MSG_TRUNC : 0;
  return cut_off ? static_cast<ssize_t>(room.iov_len) : n;
}
#endif

// Inlined into the callers, since these are the hot paths of UNIX streams and of datagrams.
[[gnu::always_inline]] inline ssize_t receive_one(int fd, message& m) noexcept {
#if defined(__linux__)
  if (m.address != nullptr && m.parts.size() == 1 && m.control_size == 0 && !m.peek)
    return receive_datagram(fd, m);
#endif
  msghdr header{};
  const ssize_t n = system_call([&] {
    header = message_header(m);
    return ::recvmsg(fd, &header, receive_message_flags | (m.peek ? MSG_PEEK : 0));
  });
  if (n >= 0) take_header(header, m);
  return n;
}

[[gnu::always_inline]] inline ssize_t send_one(int fd, const message& m) noexcept {
  if (m.parts.size() == 1 && m.control_size == 0) {  // cheaper than `sendmsg`
    const ::iovec& part = m.parts.front();
    return sent_or_error(system_call(
        [&] { return ::sendto(fd, part.iov_base, part.iov_len, send_flags, m.address, m.address_size); }));
  }
  const msghdr header = message_header(m);
  return sent_or_error(system_call([&] { return ::sendmsg(fd, &header, send_flags); }));
}

ANYIO_NET_FN ssize_t posix_backend::receive_message(int fd, message& m) { return receive_one(fd, m); }

ANYIO_NET_FN ssize_t posix_backend::send_message(int fd, const message& m) { return send_one(fd, m); }

#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__)

inline constexpr std::size_t messages_per_call = 64;  // 4 KiB of stack

ANYIO_NET_FN int posix_batches::receive_messages(int fd, slice<message> messages, slice<std::size_t> sizes,
                                                 bool& emptied) {
  ANYIO_NET_ASSERT(sizes.size() >= messages.size());
  mmsghdr headers[messages_per_call];
  std::size_t done = 0;
  while (done < messages.size()) {
    const std::size_t room = std::min(messages.size() - done, messages_per_call);
    const int n = system_call([&] {
      for (std::size_t i = 0; i < room; ++i) {
        headers[i].msg_hdr = message_header(messages[done + i]);
        headers[i].msg_len = 0;
      }
      return static_cast<int>(
          ::recvmmsg(fd, headers, static_cast<unsigned>(room), receive_message_flags, nullptr));
    });
    // If a later datagram of a call fails, the kernel reports the error at the next call; the poller reports
    // it, since the error arrived after the call had begun. An error at the first datagram of a later call is
    // dropped here: it is either an ICMP error, on which no program may rely, or it persists.
    emptied = n == -EAGAIN || (n >= 0 && static_cast<std::size_t>(n) < room);
    if (n < 0) return done != 0 ? static_cast<int>(done) : n;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      take_header(headers[i].msg_hdr, messages[done + i]);
      sizes[done + i] = headers[i].msg_len;
    }
    done += static_cast<std::size_t>(n);
    if (static_cast<std::size_t>(n) < room) break;
  }
  return static_cast<int>(done);
}

ANYIO_NET_FN int posix_batches::send_messages(int fd, slice<const message> messages) {
  mmsghdr headers[messages_per_call];
  std::size_t done = 0;
  while (done < messages.size()) {
    const std::size_t room = std::min(messages.size() - done, messages_per_call);
    for (std::size_t i = 0; i < room; ++i) {
      headers[i].msg_hdr = message_header(messages[done + i]);
      headers[i].msg_len = 0;
    }
    const int n = system_call(
        [&] { return static_cast<int>(::sendmmsg(fd, headers, static_cast<unsigned>(room), send_flags)); });
    if (n < 0) return done != 0 ? static_cast<int>(done) : n;
    done += static_cast<std::size_t>(n);
    if (static_cast<std::size_t>(n) < room) break;
  }
  return static_cast<int>(done);
}

#else

ANYIO_NET_FN int posix_batches::receive_messages(int fd, slice<message> messages, slice<std::size_t> sizes,
                                                 bool& emptied) {
  ANYIO_NET_ASSERT(sizes.size() >= messages.size());
  return receive_each(messages, sizes, emptied, [&](message& m) { return receive_one(fd, m); });
}

ANYIO_NET_FN int posix_batches::send_messages(int fd, slice<const message> messages) {
  return send_each(messages, [&](const message& m) { return send_one(fd, m); });
}

#endif

ANYIO_NET_FN int posix_backend::get_option(int fd, int level, int name, void* value, socklen_t* size) {
  return system_call([&] { return ::getsockopt(fd, level, name, value, size); });
}

ANYIO_NET_FN int posix_backend::set_option(int fd, int level, int name, const void* value, socklen_t size) {
  return system_call([&] { return ::setsockopt(fd, level, name, value, size); });
}

ANYIO_NET_FN int posix_backend::local_address(int fd, sockaddr* address, socklen_t* size) {
  return system_call([&] { return ::getsockname(fd, address, size); });
}

ANYIO_NET_FN int posix_backend::remote_address(int fd, sockaddr* address, socklen_t* size) {
  return system_call([&] { return ::getpeername(fd, address, size); });
}

// --- batches, as a service

ANYIO_NET_FN batch_service& system_batches() noexcept {
  struct own final : posix_batches {};
  static constinit own batches;
  return batches;
}

ANYIO_NET_COLD int adopt_descriptor(int fd) noexcept {
#if defined(F_SETNOSIGPIPE)
  // Also for pipes, whose calls have no flag for it. Fails on macOS if the peer of an accepted connection is
  // gone; then no SIGPIPE can occur.
  (void)::fcntl(fd, F_SETNOSIGPIPE, 1);
#elif defined(SO_NOSIGPIPE) && !defined(MSG_NOSIGNAL)
  const int on = 1;
  (void)::setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
  const int flags = system_call([&] { return ::fcntl(fd, F_GETFL); });
  if (flags < 0) return flags;
  const int was_blocking = (flags & O_NONBLOCK) == 0 ? 1 : 0;
  if (was_blocking != 0) {
    const int r = system_call([&] { return ::fcntl(fd, F_SETFL, flags | O_NONBLOCK); });
    if (r < 0) return r;
  }
  const int descriptor_flags = system_call([&] { return ::fcntl(fd, F_GETFD); });
  if (descriptor_flags < 0) return descriptor_flags;
  if ((descriptor_flags & FD_CLOEXEC) != 0) return was_blocking;
  const int r = system_call([&] { return ::fcntl(fd, F_SETFD, descriptor_flags | FD_CLOEXEC); });
  return r < 0 ? r : was_blocking;
}

}}}  // namespace anyio::detail
