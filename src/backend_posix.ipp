// The system calls of all POSIX systems; errno is read here, and where a poller waits, only.
#pragma once

#include "backend_posix.hpp"

#include "address.hpp"
#include "error.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <limits>
#include <type_traits>

#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/sendfile.h>
#endif

namespace anyio::inline ANYIO_NET_ABI::detail {

#if defined(MSG_NOSIGNAL)
inline constexpr int send_flags = MSG_NOSIGNAL;
#else
inline constexpr int send_flags = 0;  // SO_NOSIGPIPE is set on each socket instead
#endif
#if defined(MSG_CMSG_CLOEXEC)
inline constexpr int receive_message_flags = MSG_CMSG_CLOEXEC;
#else
inline constexpr int receive_message_flags = 0;
#endif

/// The result of a system call, or -errno; begun again as long as signals interrupt it.
template <class Call>
auto system_call(Call call) noexcept {
  using value = decltype(call());
  for (;;) {
    const value r = call();
    if (r >= 0) return r;
    if (errno != EINTR) return static_cast<value>(-errno);
  }
}

ANYIO_NET_FN void close_descriptor(int fd) noexcept { static_cast<void>(::close(fd)); }

ANYIO_NET_FN posix_backend::posix_backend() {
  // Once in the process, since other threads may read them already.
  [[maybe_unused]] static const bool names_known = [] {
    interface_lookup.index = [](const char* name) -> std::uint32_t { return ::if_nametoindex(name); };
    interface_lookup.name = [](std::uint32_t index, char* out) {
      static_assert(IF_NAMESIZE <= 64);
      return ::if_indextoname(index, out) != nullptr;
    };
    return true;
  }();
}

ANYIO_NET_FN posix_backend::~posix_backend() { ANYIO_NET_ASSERT(signal_slot_ < 0); }

// --- time and chance

ANYIO_NET_FN time_point posix_backend::now() { return std::chrono::steady_clock::now(); }

ANYIO_NET_FN std::uint64_t posix_backend::entropy() {
  std::uint64_t value = 0;
  if (::getentropy(&value, sizeof value) == 0) return value;
  // A kernel or a sandbox without the call. A guess would be worse than none.
  const int fd = system_call([] { return ::open("/dev/urandom", O_RDONLY | O_CLOEXEC); });
  const ssize_t n = fd < 0 ? fd : read(fd, &value, sizeof value);
  if (fd >= 0) ::close(fd);
  if (n != static_cast<ssize_t>(sizeof value)) {
    abort_with("no source of randomness",
               error(errc::os_error, n < 0 ? static_cast<int>(-n) : EIO, "entropy"));
  }
  return value;
}

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
  // poll(2) passes over a negative descriptor in silence.
  if (fd < 0) return -EBADF;
  pollfd entry{fd, poll_interest(interest), 0};
  const int n = system_call([&] { return ::poll(&entry, 1, 0); });
  if (n <= 0) return n;
  if ((entry.revents & POLLNVAL) != 0) return -EBADF;
  return static_cast<int>(readiness_of_poll(static_cast<unsigned short>(entry.revents)));
}

// --- sockets

/// What SOCK_NONBLOCK, SOCK_CLOEXEC and accept4, which came together everywhere, do where they are absent.
ANYIO_NET_FN int prepare_socket([[maybe_unused]] posix_backend& self, [[maybe_unused]] int fd) noexcept {
#if defined(SO_NOSIGPIPE) && (defined(__APPLE__) || !defined(MSG_NOSIGNAL))
  // Fails on macOS if the peer of an accepted connection is gone; what it asks for cannot happen then.
  const int on = 1;
  (void)::setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
#if defined(SOCK_NONBLOCK)
  return fd;
#else
  const int r = self.adopt(fd);
  if (r >= 0) return fd;
  ::close(fd);
  return r;
#endif
}

ANYIO_NET_FN int posix_backend::open_socket(int family, int type, int protocol) {
#if defined(SOCK_NONBLOCK)
  type |= SOCK_CLOEXEC | SOCK_NONBLOCK;
#endif
  const int fd = system_call([&] { return ::socket(family, type, protocol); });
  return fd < 0 ? fd : prepare_socket(*this, fd);
}

ANYIO_NET_FN int posix_backend::open_pair(int family, int type, int (&fds)[2]) {
#if defined(SOCK_NONBLOCK)
  type |= SOCK_CLOEXEC | SOCK_NONBLOCK;
#endif
  const int r = system_call([&] { return ::socketpair(family, type, 0, fds); });
  if (r < 0) return r;
  const int first = prepare_socket(*this, fds[0]);
  const int second = prepare_socket(*this, fds[1]);
  if (first >= 0 && second >= 0) return 0;
  if (first >= 0) ::close(first);
  if (second >= 0) ::close(second);
  return std::min(first, second);
}

ANYIO_NET_FN int posix_backend::bind(int fd, const sockaddr* address, socklen_t size) {
  return system_call([&] { return ::bind(fd, address, size); });
}

ANYIO_NET_FN int posix_backend::listen(int fd, int backlog) {
  return system_call([&] { return ::listen(fd, backlog); });
}

ANYIO_NET_FN int posix_backend::connect(int fd, const sockaddr* address, socklen_t size) {
  if (::connect(fd, address, size) == 0) return 0;
  // An interrupted attempt goes on by itself (POSIX), and a second call would only get in its way.
  return errno == EINTR ? -EINPROGRESS : -errno;
}

ANYIO_NET_FN int posix_backend::accept(int fd, sockaddr* address, socklen_t* size) {
#if defined(SOCK_NONBLOCK)
  const int r = system_call([&] { return ::accept4(fd, address, size, SOCK_CLOEXEC | SOCK_NONBLOCK); });
#else
  const int r = system_call([&] { return ::accept(fd, address, size); });
#endif
  return r < 0 ? r : prepare_socket(*this, r);
}

ANYIO_NET_FN int posix_backend::shutdown(int fd, int how) {
  return system_call([&] { return ::shutdown(fd, how); });
}

ANYIO_NET_FN int posix_backend::close(int fd) {
  // Never again after EINTR: the number is free, and may be another's already.
  return ::close(fd) == 0 || errno == EINTR ? 0 : -errno;
}

ANYIO_NET_FN ssize_t posix_backend::receive(int fd, void* data, std::size_t size) {
  return system_call([&] { return ::recv(fd, data, size, 0); });
}

/// macOS says EPROTOTYPE when the connection breaks while bytes are handed over.
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

/// The header that `sendmsg` and `recvmsg` take. Neither writes through what a message holds as const.
ANYIO_NET_FN msghdr message_header(const message& m) noexcept {
  msghdr header{};  // musl and the BSDs have members and padding of their own
  header.msg_name = m.address;
  header.msg_namelen = m.address != nullptr ? m.address_size : 0;
  header.msg_iov = const_cast<::iovec*>(m.parts.data());
  header.msg_iovlen = static_cast<decltype(header.msg_iovlen)>(m.parts.size());
  header.msg_control = m.control_size != 0 ? m.control : nullptr;
  header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
  return header;
}

ANYIO_NET_FN void take_header(const msghdr& header, message& m) noexcept {
  m.address_size = m.address != nullptr ? header.msg_namelen : 0;
  m.control_size = static_cast<std::size_t>(header.msg_controllen);
  m.flags = header.msg_flags;
}

ANYIO_NET_FN ssize_t posix_backend::receive_message(int fd, message& m) {
  msghdr header{};
  const ssize_t n = system_call([&] {
    header = message_header(m);
    return ::recvmsg(fd, &header, receive_message_flags | (m.peek ? MSG_PEEK : 0));
  });
  if (n >= 0) take_header(header, m);
  return n;
}

ANYIO_NET_FN ssize_t posix_backend::send_message(int fd, const message& m) {
  const msghdr header = message_header(m);
  return sent_or_error(system_call([&] { return ::sendmsg(fd, &header, send_flags); }));
}

#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__)

inline constexpr std::size_t messages_per_call = 64;  // 4 KiB of stack

ANYIO_NET_FN int posix_backend::receive_messages(int fd, std::span<message> messages,
                                                 std::span<std::size_t> sizes) {
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
    // What fails inside a call the kernel keeps and reports at the next. What the first of a later call
    // meets is dropped here: it can only be an ICMP notice, which nobody may rely on, or lasts.
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

ANYIO_NET_FN int posix_backend::send_messages(int fd, std::span<const message> messages) {
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

ANYIO_NET_FN int posix_backend::receive_messages(int fd, std::span<message> messages,
                                                 std::span<std::size_t> sizes) {
  ANYIO_NET_ASSERT(sizes.size() >= messages.size());
  int done = 0;
  for (std::size_t i = 0; i < messages.size(); ++i, ++done) {
    const ssize_t n = receive_message(fd, messages[i]);
    if (n < 0) return done != 0 ? done : static_cast<int>(n);
    sizes[i] = static_cast<std::size_t>(n);
  }
  return done;
}

ANYIO_NET_FN int posix_backend::send_messages(int fd, std::span<const message> messages) {
  int done = 0;
  for (const message& m : messages) {
    const ssize_t n = send_message(fd, m);
    if (n < 0) return done != 0 ? done : static_cast<int>(n);
    ++done;
  }
  return done;
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

// --- descriptors of other kinds

/// Keeps a SIGPIPE of this thread's own making from being delivered, where no flag of the call does.
/// The disposition belongs to the whole process, so it stays as it is.
class sigpipe_guard {
 public:
  sigpipe_guard() noexcept {
    sigset_t pipe;
    ::sigemptyset(&pipe);
    ::sigaddset(&pipe, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe, &before_);
    // One that is pending already is the program's, and swallows ours; it can be only if it was blocked.
    was_blocked_ = ::sigismember(&before_, SIGPIPE) == 1;
    was_pending_ = was_blocked_ && is_pending();
  }
  sigpipe_guard(const sigpipe_guard&) = delete;
  sigpipe_guard& operator=(const sigpipe_guard&) = delete;
  ~sigpipe_guard() {
    if (!was_blocked_) ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  /// To be called when a call gave EPIPE.
  void consume() noexcept {
    if (was_pending_ || !is_pending()) return;
    sigset_t pipe;
    ::sigemptyset(&pipe);
    ::sigaddset(&pipe, SIGPIPE);
#if defined(__APPLE__) || defined(__OpenBSD__)
    int number = 0;
    ::sigwait(&pipe, &number);
#else
    const timespec at_once{};
    while (::sigtimedwait(&pipe, nullptr, &at_once) < 0 && errno == EINTR) {
    }
#endif
  }

 private:
  static bool is_pending() noexcept {
    sigset_t pending;
    ::sigemptyset(&pending);
    ::sigpending(&pending);
    return ::sigismember(&pending, SIGPIPE) == 1;
  }

  sigset_t before_{};
  bool was_blocked_ = false;
  bool was_pending_ = false;
};

ANYIO_NET_FN ssize_t posix_backend::send_file(int socket, int file, std::uint64_t offset, std::size_t count) {
  if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) return -EOVERFLOW;
  sigpipe_guard guard;  // there is no MSG_NOSIGNAL for it
  const ssize_t n = system_call([&]() -> ssize_t {
#if defined(__linux__)
    auto position = static_cast<off_t>(offset);
    return ::sendfile(socket, file, &position, count);
#elif defined(__APPLE__) || defined(__FreeBSD__)
    // Both may fail and have sent something, which counts; to both, a count of 0 is the whole file.
    if (count == 0) return 0;
    const std::size_t size = std::min<std::size_t>(count, INT_MAX);
#if defined(__APPLE__)
    auto sent = static_cast<off_t>(size);
    const int r = ::sendfile(file, socket, static_cast<off_t>(offset), &sent, nullptr, 0);
#else
    off_t sent = 0;
    const int r = ::sendfile(file, socket, static_cast<off_t>(offset), size, nullptr, &sent, 0);
#endif
    return r < 0 && sent == 0 ? -1 : static_cast<ssize_t>(sent);
#else
    char block[16384];
    const ssize_t got = ::pread(file, block, std::min(count, sizeof block), static_cast<off_t>(offset));
    return got <= 0 ? got : ::send(socket, block, static_cast<std::size_t>(got), send_flags);
#endif
  });
  if (n == -EPIPE) guard.consume();
  return sent_or_error(n);
}

ANYIO_NET_FN ssize_t posix_backend::read(int fd, void* data, std::size_t size) {
  return system_call([&] { return ::read(fd, data, size); });
}

ANYIO_NET_FN ssize_t posix_backend::write(int fd, std::span<const ::iovec> parts) {
  // More parts than the kernel takes would be refused; a short write is none the worse.
  const int count = static_cast<int>(std::min<std::size_t>(parts.size(), IOV_MAX));
  sigpipe_guard guard;
  const ssize_t n = system_call([&] { return ::writev(fd, parts.data(), count); });
  if (n == -EPIPE) guard.consume();
  return n;
}

ANYIO_NET_FN int posix_backend::adopt(int fd) {
  const int flags = system_call([&] { return ::fcntl(fd, F_GETFL); });
  if (flags < 0) return flags;
  if ((flags & O_NONBLOCK) == 0) {
    const int r = system_call([&] { return ::fcntl(fd, F_SETFL, flags | O_NONBLOCK); });
    if (r < 0) return r;
  }
  const int descriptor_flags = system_call([&] { return ::fcntl(fd, F_GETFD); });
  if (descriptor_flags < 0) return descriptor_flags;
  if ((descriptor_flags & FD_CLOEXEC) != 0) return 0;
  const int r = system_call([&] { return ::fcntl(fd, F_SETFD, descriptor_flags | FD_CLOEXEC); });
  return r < 0 ? r : 0;
}

ANYIO_NET_FN int posix_backend::set_close_on_exec([[maybe_unused]] int fd) {
#if defined(MSG_CMSG_CLOEXEC)
  return 0;
#else
  const int r = system_call([&] { return ::fcntl(fd, F_SETFD, FD_CLOEXEC); });
  return r < 0 ? r : 0;
#endif
}

// --- paths

ANYIO_NET_FN int posix_backend::identify(const char* path, file_identity& identity) {
  struct stat status;
  const int r = system_call([&] { return ::lstat(path, &status); });
  if (r < 0) return r;
  identity.is_socket = S_ISSOCK(status.st_mode);
  identity.device = static_cast<std::uint64_t>(status.st_dev);
  identity.inode = static_cast<std::uint64_t>(status.st_ino);
  return 0;
}

ANYIO_NET_FN int posix_backend::change_mode(const char* path, mode_t mode) {
  return system_call([&] { return ::chmod(path, mode); });
}

ANYIO_NET_FN int posix_backend::unlink(const char* path) {
  return system_call([&] { return ::unlink(path); });
}

// --- names

/// The words for a failure of the resolver's own. Not gai_strerror, which speaks the user's language.
ANYIO_NET_FN const char* resolver_words(int status) noexcept {
  switch (status) {
    case EAI_NONAME: return "name or service not known";
    case EAI_AGAIN: return "temporary failure in name resolution";
    case EAI_FAIL: return "permanent failure in name resolution";
    case EAI_FAMILY: return "address family not supported";
    case EAI_SERVICE: return "service not supported for this type of socket";
    case EAI_SOCKTYPE: return "type of socket not supported";
#if defined(EAI_NODATA)
#if EAI_NODATA != EAI_NONAME
    case EAI_NODATA: return "no address is known for the name";
#endif
#endif
#if defined(EAI_ADDRFAMILY)
    case EAI_ADDRFAMILY: return "the name has no address of this family";
#endif
#if defined(EAI_OVERFLOW)
    case EAI_OVERFLOW: return "name too long";
#endif
    default: return "name resolution failed";
  }
}

ANYIO_NET_FN resolved posix_backend::resolve(const std::string& host, std::uint16_t port, int family) {
  resolved found;
  addrinfo hints{};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;  // else every address comes once for each type of socket
  addrinfo* list = nullptr;
  // The port is put in below: some resolvers know services by name only, or refuse number 0.
  const int status = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (status == EAI_SYSTEM) {
    found.status = errno != 0 ? -errno : -EIO;
    return found;
  }
  if (status == EAI_MEMORY) {
    found.status = -ENOMEM;
    return found;
  }
  if (status != 0) {
    found.status = -ENOENT;
    found.reason = resolver_words(status);
    return found;
  }
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
    const result<ip_endpoint> endpoint = ip_endpoint::from_sockaddr(entry->ai_addr, entry->ai_addrlen);
    if (!endpoint) continue;
    const ip_endpoint with_port{endpoint->address, port};
    if (std::find(found.endpoints.begin(), found.endpoints.end(), with_port) == found.endpoints.end()) {
      found.endpoints.push_back(with_port);
    }
  }
  ::freeaddrinfo(list);
  if (found.endpoints.empty()) {
    found.status = -ENOENT;
    found.reason = "no internet address is known for the name";
  }
  return found;
}

ANYIO_NET_FN int posix_backend::reverse(const ip_endpoint& endpoint, std::string& host,
                                        std::string& service) {
  sockaddr_storage address{};
  const socklen_t size = endpoint.to_sockaddr(address);
  char host_text[1025];  // NI_MAXHOST and NI_MAXSERV, which not every system declares
  char service_text[64];
  const auto look_up = [&](int flags) {
    return ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host_text, sizeof host_text,
                         service_text, sizeof service_text, flags);
  };
  int status = look_up(0);
  // A name server that does not answer is no reason to tell less than the numbers.
  if (status != 0) status = look_up(NI_NUMERICHOST | NI_NUMERICSERV);
  if (status == EAI_SYSTEM) return errno != 0 ? -errno : -EIO;
  if (status == EAI_MEMORY) return -ENOMEM;
  if (status != 0) return -ENOENT;
  host = host_text;
  service = service_text;
  return 0;
}

/// With IPv6 off in a running kernel sockets can still be made, and even bound to "::"; what is gone
/// is every address, ::1 first of all.
ANYIO_NET_FN bool has_ipv6_address(int fd) noexcept {
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&loopback), sizeof loopback) == 0) return true;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return false;
  bool found = false;
  for (const ifaddrs* entry = list; entry != nullptr && !found; entry = entry->ifa_next) {
    found = entry->ifa_addr != nullptr && entry->ifa_addr->sa_family == AF_INET6;
  }
  ::freeifaddrs(list);
  return found;
}

ANYIO_NET_FN bool posix_backend::has_family(int family) {
  std::atomic<signed char>* known = family == AF_INET    ? &has_ipv4_
                                    : family == AF_INET6 ? &has_ipv6_
                                                         : nullptr;
  if (known != nullptr) {
    const signed char answer = known->load(std::memory_order_relaxed);
    if (answer >= 0) return answer != 0;
  }
  const int fd = open_socket(family, SOCK_DGRAM, 0);
  // Nothing is learned from a lack of descriptors: who opens the socket meets it anyway.
  if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) return true;
  const bool has = fd >= 0 && (family != AF_INET6 || has_ipv6_address(fd));
  if (fd >= 0) ::close(fd);
  if (known != nullptr) known->store(has ? 1 : 0, std::memory_order_relaxed);
  return has;
}

// --- signals

/// A backend as the signal handler sees it. It counts as free or taken for those who hold the lock;
/// the handler uses `wake_fd` only while a bit is set in `caught`.
struct signal_slot {
  std::atomic<std::uint32_t> caught[2]{};   // a bit for each number: words of 32, since every target
  std::atomic<std::uint32_t> pending[2]{};  // we know has them lock-free
  std::atomic<int> wake_fd{0};
  bool taken = false;
};

/// The one table of the process. Everything in it is zero at first, and nothing is ever destroyed, so
/// that a handler may run before main and after it.
struct signal_table {
  static constexpr int slot_count = 256;

#if !defined(ANYIO_NET_NO_THREADS)
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;  // taken by all but the handler
#endif
  std::atomic<int> handlers{0};    // how many run now
  std::atomic<int> slots_used{0};  // one past the highest slot that was ever taken
  signal_slot slots[slot_count]{};
  std::uint32_t catchers[64]{};  // backends that catch a number, at number - 1
  struct sigaction before[64]{};
};

static_assert(std::atomic<std::uint32_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "a signal handler needs atomics without locks");

ANYIO_NET_FN signal_table& posix_signals() noexcept {
  static constinit signal_table table;
  return table;
}

class signal_lock {
 public:
#if !defined(ANYIO_NET_NO_THREADS)
  signal_lock() noexcept { ::pthread_mutex_lock(&posix_signals().mutex); }
  ~signal_lock() { ::pthread_mutex_unlock(&posix_signals().mutex); }
#else
  signal_lock() noexcept {}
#endif
  signal_lock(const signal_lock&) = delete;
  signal_lock& operator=(const signal_lock&) = delete;
};

/// The only handler: notes the number in every backend that catches it, and wakes them.
ANYIO_NET_FN void note_signal(int number) noexcept {
  const int saved_errno = errno;
  signal_table& table = posix_signals();
  table.handlers.fetch_add(1);
  const auto index = static_cast<unsigned>(number - 1);
  const unsigned word = index / 32;
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  const int used = table.slots_used.load();
  for (int i = 0; i < used; ++i) {
    signal_slot& slot = table.slots[i];
    if ((slot.caught[word].load() & bit) == 0) continue;
    slot.pending[word].fetch_or(bit);
    const std::uint64_t one = 1;
    // Full means that the wake-up is there already.
    [[maybe_unused]] const ssize_t n = ::write(slot.wake_fd.load(), &one, sizeof one);
  }
  table.handlers.fetch_sub(1);
  errno = saved_errno;
}

/// Returns when no handler runs that may have seen an older state of the table. The handler first
/// counts itself in and then looks, we first change and then look at the count: with both orders the
/// same for everyone, one of the two sees the other.
ANYIO_NET_FN void wait_for_handlers() noexcept {
  for (int spins = 0; posix_signals().handlers.load() != 0; ++spins) {
    if (spins > 1000) ::poll(nullptr, 0, 1);  // let it run, whatever its thread's priority
  }
}

ANYIO_NET_FN int posix_backend::catch_signal(int number) {
  if (number < 1 || number > signal_limit) return -EINVAL;
  const auto index = static_cast<unsigned>(number - 1);
  const unsigned word = index / 32;
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  if (signals_caught_[index] != 0) {
    ++signals_caught_[index];
    return 0;
  }

  const signal_lock lock;
  signal_table& table = posix_signals();
  if (signal_slot_ < 0) {
    const int fd = wake_descriptor();
    if (fd < 0) return fd;
    int first_free = 0;
    while (first_free < signal_table::slot_count && table.slots[first_free].taken) ++first_free;
    if (first_free == signal_table::slot_count) return -EMFILE;
    table.slots[first_free].taken = true;
    table.slots[first_free].wake_fd.store(fd);
    if (first_free >= table.slots_used.load()) table.slots_used.store(first_free + 1);
    signal_slot_ = first_free;
  }

  signal_slot& slot = table.slots[signal_slot_];
  slot.caught[word].fetch_or(bit);
  if (table.catchers[index] == 0) {
    struct sigaction action {};
    action.sa_handler = note_signal;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    ::sigfillset(&action.sa_mask);
    if (::sigaction(number, &action, &table.before[index]) != 0) {
      const int reason = errno;
      slot.caught[word].fetch_and(~bit);
      return -reason;
    }
  }
  ++table.catchers[index];
  ++signals_caught_[index];
  return 0;
}

ANYIO_NET_FN void posix_backend::release_signal(int number) {
  if (number < 1 || number > signal_limit) return;
  const auto index = static_cast<unsigned>(number - 1);
  const unsigned word = index / 32;
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  if (signals_caught_[index] == 0 || --signals_caught_[index] != 0) return;

  const signal_lock lock;
  signal_table& table = posix_signals();
  // The disposition first: there is no moment in which a signal is caught and reaches nobody.
  if (--table.catchers[index] == 0) ::sigaction(number, &table.before[index], nullptr);
  signal_slot& slot = table.slots[signal_slot_];
  slot.caught[word].fetch_and(~bit);
  wait_for_handlers();
  slot.pending[word].fetch_and(~bit);
}

ANYIO_NET_FN bool posix_backend::take_signal(int number) {
  if (number < 1 || number > signal_limit || signal_slot_ < 0) return false;
  const auto index = static_cast<unsigned>(number - 1);
  const std::uint32_t bit = std::uint32_t{1} << (index % 32);
  std::atomic<std::uint32_t>& pending = posix_signals().slots[signal_slot_].pending[index / 32];
  return (pending.load() & bit) != 0 && (pending.fetch_and(~bit) & bit) != 0;
}

ANYIO_NET_FN void posix_backend::release_signals() {
  if (signal_slot_ < 0) return;
  for (int number = 1; number <= signal_limit; ++number) {
    std::uint32_t& caught = signals_caught_[number - 1];
    if (caught == 0) continue;
    caught = 1;
    release_signal(number);
  }
  const signal_lock lock;
  posix_signals().slots[signal_slot_].taken = false;
  signal_slot_ = -1;
}

ANYIO_NET_FN bool posix_backend::uses_threads() const {
#if defined(ANYIO_NET_NO_THREADS)
  return false;
#else
  return true;
#endif
}

}  // namespace anyio::inline ANYIO_NET_ABI::detail
