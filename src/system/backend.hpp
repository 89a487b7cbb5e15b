// The seam: the interface between the library and the system.
//
// Sockets and the clock go through one abstract class, `backend`; files, names, threads, signals and
// randomness go through its services. No other code makes a system call or reads errno. Each call returns a
// value >= 0 or a negative errno. Only `wait` blocks (and, on a helper thread, `resolve` and `reverse`). The
// other calls do not block even if another process that shares the open file has cleared its O_NONBLOCK;
// `accept` and `connect` need `keep_non_blocking` for this. A backend must not know its callers.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <sys/socket.h>
#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

using duration = std::chrono::nanoseconds;                 ///< the type of durations in members and results
using time_point = std::chrono::steady_clock::time_point;  ///< a time of the loop's clock, see `now`

namespace detail {

/// Returns `base + d`, or the nearest representable time if the sum would overflow.
constexpr time_point add(time_point base, duration d) {
  if (d > duration::zero() && base > time_point::max() - d) return time_point::max();
  if (d < duration::zero() && base < time_point::min() - d) return time_point::min();
  return base + d;
}

/// The state of a descriptor, as `backend::wait` and `poll_now` report it.
enum readiness : std::uint32_t {
  ready_read = 1,  // data, or a connection to accept
  ready_write = 4,
  ready_end = 8,     // end of stream, hang-up or error: read until a call reports it
  ready_urgent = 2,  // out-of-band data divides the readable bytes
};

struct poll_event {
  std::uint64_t token;
  std::uint32_t ready;  // readiness bits
};

/// One message to send or receive, with the fields of `sendmsg` and `recvmsg`.
struct message {
  slice<const ::iovec> parts;
  sockaddr* address = nullptr;  // destination, or room for the sender
  socklen_t address_size = 0;   // in: size of the room or the address; out: of the sender's address
  void* control = nullptr;
  std::size_t control_size = 0;  // in: room or size; out: received size
  int flags = 0;                 // out: MSG_TRUNC, MSG_CTRUNC
  bool peek = false;             // in: leave the received data in the socket

  /// The size of all parts.
  [[nodiscard]] std::size_t size() const noexcept {
    std::size_t total = 0;
    for (const ::iovec& part : parts) total += part.iov_len;
    return total;
  }
};

/// The control message after `c`, or null. CMSG_NXTHDR of musl compares signed with unsigned.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
inline cmsghdr* next_control(const msghdr& header, cmsghdr* c) noexcept {
  return CMSG_NXTHDR(const_cast<msghdr*>(&header), c);
}
#pragma GCC diagnostic pop

/// Appends a control message to those of `m`; there must be `CMSG_SPACE(size)` bytes behind them.
inline void append_control(message& m, int level, int type, const void* data, std::size_t size) noexcept {
  auto* const place = static_cast<unsigned char*>(m.control) + m.control_size;
  cmsghdr header{};
  header.cmsg_len = static_cast<decltype(header.cmsg_len)>(CMSG_LEN(size));
  header.cmsg_level = level;
  header.cmsg_type = type;
  std::memset(place, 0, CMSG_SPACE(size));
  std::memcpy(place, &header, sizeof header);
  std::memcpy(place + CMSG_LEN(0), data, size);
  m.control_size += CMSG_SPACE(size);
}

struct file_identity {
  bool is_socket = false;
  bool is_character_device = false;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool is_fifo = false;
};

/// The result of a name look-up: endpoints, or the reason of the failure. `reason` is static text.
struct resolved {
  std::vector<ip_endpoint> endpoints;
  int status = 0;                // 0, or a negative errno (-ENOENT for an error of the resolver)
  const char* reason = nullptr;  // describes an error of the resolver
};

/// Whether a call failed because the system is short of memory, which is temporary.
[[nodiscard]] constexpr bool is_shortage(ssize_t status) noexcept {
  return status == -ENOBUFS || status == -ENOMEM;
}

/// The most calls that one attempt of an operation makes; then other operations have a turn.
inline constexpr int calls_of_attempt = 16;

// --- services: functions that few programs need. A virtual function is linked into every program that uses
// its class, so the services are separate classes, and none of them has a virtual destructor.

/// Name look-ups. `resolve` and `reverse` block, and are called on a helper thread.
class name_service {
 public:
  virtual resolved resolve(const std::string& host, std::uint16_t port, int family) = 0;
  /// Looks up the host and service of an address; the result is numeric where no name is known. 0 or a
  /// negative errno.
  virtual int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) = 0;
  /// Whether the system supports sockets of this family.
  virtual bool has_family(int family) = 0;

 protected:
  ~name_service() = default;
};

/// Calls for files, and for descriptors that the library did not open.
class file_service {
 public:
  /// Makes a descriptor non-blocking and close-on-exec. Returns 1 if it was blocking before, 0 if not, or a
  /// negative errno.
  virtual int adopt(int fd) = 0;
  /// Makes a descriptor blocking again.
  virtual int make_blocking(int fd) = 0;
  /// Makes a received descriptor close-on-exec on systems where the kernel does not do it.
  virtual int set_close_on_exec(int fd) = 0;
  virtual int identify(int fd, file_identity& identity) = 0;
  virtual ssize_t read(int fd, void* data, std::size_t size) = 0;
  virtual ssize_t write(int fd, slice<const ::iovec> parts) = 0;
  virtual ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) = 0;

 protected:
  ~file_service() = default;
};

/// Moves bytes between sockets inside the kernel, through a pipe. A backend without it refuses to open one.
class splice_service {
 public:
  /// Opens a pipe that is non-blocking and close-on-exec; the first descriptor is the end to read from.
  virtual int open_pipe(int (&fds)[2]) = 0;
  /// Gives a pipe more room, as far as the system allows it.
  virtual void grow_pipe(int pipe) = 0;
  virtual ssize_t splice_in(int socket, int pipe, std::size_t most) = 0;
  virtual ssize_t splice_out(int pipe, int socket, std::size_t most) = 0;

 protected:
  ~splice_service() = default;
};

/// Calls for the paths of UNIX sockets.
class path_service {
 public:
  virtual int identify(const char* path, file_identity& identity) = 0;  // does not follow links
  virtual int change_mode(const char* path, mode_t mode) = 0;
  /// Sets the mode, reduced by the umask, of the file that `bind` will create for this socket. Has no effect
  /// on systems that cannot do it.
  virtual void prepare_mode(int /*fd*/, mode_t /*mode*/) {}
  virtual int unlink(const char* path) = 0;
  /// The absolute path, which stays valid if the working directory changes. Returns the path unchanged if the
  /// working directory is not known.
  virtual std::string absolute(const std::string& path) { return path; }

 protected:
  ~path_service() = default;
};

/// Many datagrams per call. Returns the number of datagrams transferred, or -errno if the first one failed.
class batch_service {
 public:
  /// Sets `emptied` if no more datagrams are there, and the poller will report the next one.
  virtual int receive_messages(int fd, slice<message> messages, slice<std::size_t> sizes, bool& emptied) = 0;
  virtual int send_messages(int fd, slice<const message> messages) = 0;

 protected:
  ~batch_service() = default;
};

/// A batch, one message after the other: `receive` makes one call.
template <class Receive>
int receive_each(slice<message> messages, slice<std::size_t> sizes, bool& emptied, Receive receive) {
  int done = 0;
  for (std::size_t i = 0; i < messages.size(); ++i, ++done) {
    const ssize_t n = receive(messages[i]);
    emptied = n == -EAGAIN;
    if (n < 0) return done != 0 ? done : static_cast<int>(n);
    sizes[i] = static_cast<std::size_t>(n);
  }
  return done;
}
/// A batch, one message after the other: `send` makes one call.
template <class Send>
int send_each(slice<const message> messages, Send send) {
  int done = 0;
  for (const message& m : messages) {
    const ssize_t n = send(m);
    if (n < 0) return done != 0 ? done : static_cast<int>(n);
    ++done;
  }
  return done;
}

/// Helper threads.
class thread_service {
 public:
  /// Whether helper threads may be used. If not, their jobs run on the loop's thread.
  virtual bool uses_threads() const { return true; }
  /// After how many turns of the loop a job runs on the loop's thread; 0 means at once.
  virtual std::size_t turns_before_call() { return 0; }
  /// Runs `body(argument)` on a new detached thread on which all signals are blocked. 0 or -errno.
  virtual int start_thread(void (*body)(void*), void* argument) = 0;

 protected:
  ~thread_service() = default;
};

/// The time and the randomness that certificates and keys need. Not a service of a backend, since TLS engines
/// know none: see `security_of_thread`.
class security_service {
 public:
  /// The current time in seconds since 1970, for the dates of certificates.
  virtual std::int64_t calendar() = 0;
  virtual std::uint64_t entropy() = 0;

 protected:
  ~security_service() = default;
};

/// Signals for one loop. From the first `catch_signal` of a number to its last `release_signal`, an arriving
/// signal wakes the loop (`wait` returns), and `take_signal` then returns true once.
class signal_service {
 public:
  /// Starts to catch a signal; calls are counted per number. 0 or a negative errno.
  virtual int catch_signal(int number) = 0;
  virtual void release_signal(int number) = 0;
  virtual bool take_signal(int number) = 0;
  /// Sets the descriptor through which signals wake the loop from now on.
  virtual void wake_by(int) {}
  virtual ~signal_service() = default;
};

}  // namespace detail

/// The interface to the system. `system_backend()` uses the real system; other backends simulate it or add
/// faults to it.
class backend {
 public:
  backend() = default;
  backend(const backend&) = delete;
  backend& operator=(const backend&) = delete;
  virtual ~backend() = default;

  /// The current time of the clock of all timers.
  virtual time_point now() = 0;

  // --- readiness
  /// Watches both directions of a descriptor, edge-triggered, until `forget`. 0 or a negative errno; -EEXIST
  /// if the descriptor is watched already.
  virtual int watch(int fd, std::uint64_t token) = 0;
  /// Ends the watching that `watch` or `watch_once` began. Called before the descriptor is closed.
  virtual void forget(int fd) = 0;
  /// Watches a descriptor for reading, writing or both, level-triggered. Reports once (some pollers report
  /// once per direction), then nothing until the next call.
  /// `again` says that the descriptor is in the poller already.
  virtual int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) = 0;
  /// Returns the current `readiness` bits of any descriptor, also of a watched one, or -errno.
  virtual int poll_now(int fd, std::uint32_t interest) = 0;
  /// Waits until a descriptor is ready, `wake` is called, or the time is over (negative: no limit).
  /// Returns the number of events, which may be 0 at any time, or -errno.
  virtual int wait(detail::slice<detail::poll_event> events, duration at_most) = 0;
  /// Ends the current `wait`, or else the next one. The only function that any thread may call.
  virtual void wake() = 0;
  /// A descriptor that is readable when `wait` would return events, for embedding; -1 if there is none.
  virtual int native_handle() const = 0;
  /// Eight bytes written to this descriptor end the current `wait`, or else the next one; a signal handler
  /// uses it. The descriptor changes only in `after_fork`; -1 if there is none.
  virtual int wake_descriptor() const { return -1; }
  /// In the child of fork(2): releases the poller of the parent, and makes a new one that watches nothing.
  /// 0 or a negative errno. Not called for a backend without `native_handle`, which shares nothing.
  virtual int after_fork() { return -ENOTSUP; }

  // --- sockets: close-on-exec, non-blocking, never SIGPIPE
  virtual int open_socket(int family, int type, int protocol) = 0;           ///< socket(2)
  virtual int open_pair(int family, int type, int (&fds)[2]) = 0;            ///< socketpair(2)
  virtual int bind(int fd, const sockaddr* address, socklen_t size) = 0;     ///< bind(2)
  virtual int listen(int fd, int backlog) = 0;                               ///< listen(2)
  virtual int connect(int fd, const sockaddr* address, socklen_t size) = 0;  ///< connect(2)
  virtual int accept(int fd, sockaddr* address, socklen_t* size) = 0;        ///< accept(2)
  /// Makes the descriptor non-blocking again if another process that shares it has made it blocking. Needed
  /// before calls that have no flag such as MSG_DONTWAIT.
  virtual void keep_non_blocking(int) {}
  virtual int shutdown(int fd, int how) = 0;  ///< shutdown(2)
  /// Breaks a connection as the network could break it, as far as the system allows.
  virtual int break_connection(int fd) {
    sockaddr nowhere{};
    nowhere.sa_family = AF_UNSPEC;  // on some systems this resets a TCP connection
    return connect(fd, &nowhere, sizeof nowhere) >= 0 ? 0 : shutdown(fd, SHUT_RDWR);
  }
  /// Closes any descriptor. The number is free afterwards, also if the call returns an error.
  virtual int close(int fd) = 0;
  virtual ssize_t receive(int fd, void* data, std::size_t size) = 0;                      ///< recv(2)
  virtual ssize_t send(int fd, const void* data, std::size_t size) = 0;                   ///< send(2)
  virtual ssize_t receive_message(int fd, detail::message& m) = 0;                        ///< recvmsg(2)
  virtual ssize_t send_message(int fd, const detail::message& m) = 0;                     ///< sendmsg(2)
  virtual int get_option(int fd, int level, int name, void* value, socklen_t* size) = 0;  ///< getsockopt(2)
  virtual int set_option(int fd, int level, int name, const void* value,
                         socklen_t size) = 0;                                  ///< setsockopt(2)
  virtual int local_address(int fd, sockaddr* address, socklen_t* size) = 0;   ///< getsockname(2)
  virtual int remote_address(int fd, sockaddr* address, socklen_t* size) = 0;  ///< getpeername(2)

  // --- this backend's own services; null: the caller uses the service of the system, which is linked only
  // into programs that name it
  virtual detail::name_service* names() { return nullptr; }
  virtual detail::file_service* files() { return nullptr; }
  virtual detail::splice_service* splices() { return nullptr; }
  virtual detail::path_service* paths() { return nullptr; }
  virtual detail::batch_service* batches() { return nullptr; }
  virtual detail::thread_service* threads() { return nullptr; }
  virtual detail::signal_service* signals() { return nullptr; }

  // --- memory
  /// How many bytes of a transfer between streams in memory to move now, at least 1. Less than `wanted` only
  /// with faults.
  virtual std::size_t transfer(std::size_t wanted) { return wanted; }
};

namespace detail {

// --- functions of the system that belong to no loop

/// Counts the calls of fork(2) in the ancestry of this process, from the first loop on; it differs between a
/// child and its parent. Written only in a new child, which has one thread.
inline constinit std::uint32_t forks_so_far = 0;
/// Registers handlers for each later fork(2): the first is called before the fork, the second in the parent
/// and the third in the child (pthread_atfork(3)). A null pointer means no handler.
void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)());
void close_descriptor(int fd) noexcept;
/// Descriptors from this number on belong to a simulation. While it runs, its thread closes them through
/// `close_simulated`.
inline constexpr int first_simulated_descriptor = 1 << 30;
using close_hook = void (*)(int fd) noexcept;
inline constinit thread_local close_hook close_simulated = nullptr;
/// While a simulation runs on this thread: its time and randomness. Null means those of the system.
inline constinit thread_local security_service* security_of_thread = nullptr;
[[nodiscard]] std::int64_t system_calendar() noexcept;
[[nodiscard]] std::uint64_t system_entropy();
/// Reads a whole file. 0 or a negative errno; -EFBIG for a file of more than 16 MiB.
[[nodiscard]] int read_file(const char* path, std::string& content);
/// The path of the system's trust store (a file of CA certificates), null if there is none. The environment
/// variable SSL_CERT_FILE takes precedence.
[[nodiscard]] const char* trust_file();
[[nodiscard]] name_service& system_names() noexcept;
[[nodiscard]] file_service& system_files() noexcept;
[[nodiscard]] splice_service& system_splices() noexcept;
[[nodiscard]] path_service& system_paths() noexcept;
[[nodiscard]] batch_service& system_batches() noexcept;
[[nodiscard]] thread_service& system_threads() noexcept;
/// Makes a service whose signal handlers write to the descriptor. They stop when the service is destroyed. In
/// the child of a fork they do not write before `wake_by` names a descriptor of the child.
[[nodiscard]] owned<signal_service> system_signals(int wake_descriptor);
/// The numbers of the signals that ask a program to end: SIGINT and SIGTERM.
struct ending_signals {
  int interrupt;
  int terminate;
};
[[nodiscard]] ending_signals signals_that_end() noexcept;

// --- the services of a loop on this backend

template <class Service>
Service& own_or(Service* own, Service& (*machines)() noexcept) {
  return own != nullptr ? *own : machines();
}
[[nodiscard]] inline name_service& names_of(backend& b) { return own_or(b.names(), system_names); }
[[nodiscard]] inline file_service& files_of(backend& b) { return own_or(b.files(), system_files); }
[[nodiscard]] inline splice_service& splices_of(backend& b) { return own_or(b.splices(), system_splices); }
[[nodiscard]] inline path_service& paths_of(backend& b) { return own_or(b.paths(), system_paths); }
[[nodiscard]] inline batch_service& batches_of(backend& b) { return own_or(b.batches(), system_batches); }
[[nodiscard]] inline thread_service& threads_of(backend& b) { return own_or(b.threads(), system_threads); }

}  // namespace detail

/// Makes the backend of this system: epoll on Linux, kqueue on the BSDs and macOS. Null if the poller cannot
/// be created (out of descriptors).
[[nodiscard]] std::unique_ptr<backend> system_backend();

}}  // namespace anyio
