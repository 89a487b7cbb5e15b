// The seam: everything that the library asks of the world.
//
// Sockets and the clock go through one abstract class, `backend`; files, names, threads, signals and
// randomness through the services that it gives. Nothing else makes a system call or reads errno. Each call
// gives a value >= 0 or a negative errno. No call blocks but `wait` (and, on a helper thread, `resolve` and
// `reverse`), even if O_NONBLOCK, which belongs to the open file, was cleared by somebody who shares it; only
// `accept` and `connect` need `keep_non_blocking` for that. A backend must not know who calls it.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/socket.h>
#include <sys/types.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

using duration = std::chrono::nanoseconds;                 ///< what members and results are in
using time_point = std::chrono::steady_clock::time_point;  ///< of the loop's clock, see `now`

namespace detail {

/// `base + d`, at the ends of time if it would overflow.
constexpr time_point add(time_point base, duration d) {
  if (d > duration::zero() && base > time_point::max() - d) return time_point::max();
  if (d < duration::zero() && base < time_point::min() - d) return time_point::min();
  return base + d;
}

/// What `backend::wait` and `poll_now` tell of a descriptor.
enum readiness : std::uint32_t {
  ready_read = 1,  // data, or a connection to accept
  ready_write = 2,
  ready_end = 4,     // end of stream, hang-up or error: read until it shows
  ready_urgent = 8,  // out-of-band data splits what can be read
};

struct poll_event {
  std::uint64_t token;
  std::uint32_t ready;  // readiness bits
};

/// One message in or out, as `sendmsg` and `recvmsg` see it.
struct message {
  std::span<const ::iovec> parts;
  sockaddr* address = nullptr;  // destination, or room for the sender
  socklen_t address_size = 0;   // in: size of the room or of the address; out: of the sender's
  void* control = nullptr;
  std::size_t control_size = 0;  // in: room or size; out: what came
  int flags = 0;                 // out: MSG_TRUNC, MSG_CTRUNC
  bool peek = false;             // in: leave what is received where it is
};

/// The control message behind `c`, or null: CMSG_NXTHDR, which in musl compares signed with unsigned.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
inline cmsghdr* next_control(const msghdr& header, cmsghdr* c) noexcept {
  return CMSG_NXTHDR(const_cast<msghdr*>(&header), c);
}
#pragma GCC diagnostic pop

struct file_identity {
  bool is_socket = false;
  bool is_character_device = false;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool is_fifo = false;
};

/// What a look-up gives: endpoints, or why there are none. `reason` is static text.
struct resolved {
  std::vector<ip_endpoint> endpoints;
  int status = 0;                // 0, or a negative errno (a plain resolver failure: -ENOENT)
  const char* reason = nullptr;  // the resolver's words for a failure of its own
};

/// Whether a call failed because the system is short of memory, which passes.
[[nodiscard]] constexpr bool is_shortage(ssize_t status) noexcept {
  return status == -ENOBUFS || status == -ENOMEM;
}

// --- services: what few programs need. A virtual function is linked into every program that has its class,
// so these are classes of their own, and none has a virtual destructor.

/// Names. `resolve` and `reverse` block, and are called on a helper thread.
class name_service {
 public:
  virtual resolved resolve(const std::string& host, std::uint16_t port, int family) = 0;
  /// Host and service of an address, numeric where no name is known. 0 or a negative errno.
  virtual int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) = 0;
  /// Whether a socket of this family can be made here at all.
  virtual bool has_family(int family) = 0;

 protected:
  ~name_service() = default;
};

/// Descriptors that the library did not open, and files.
class file_service {
 public:
  /// Makes it non-blocking and close-on-exec. 1 if it was blocking before, 0 if not, or a negative errno.
  virtual int adopt(int fd) = 0;
  /// Takes back that it is non-blocking.
  virtual int make_blocking(int fd) = 0;
  /// Makes a received descriptor close-on-exec where the kernel does not do so by itself.
  virtual int set_close_on_exec(int fd) = 0;
  virtual int identify(int fd, file_identity& identity) = 0;
  virtual ssize_t read(int fd, void* data, std::size_t size) = 0;
  virtual ssize_t write(int fd, std::span<const ::iovec> parts) = 0;
  virtual ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) = 0;

 protected:
  ~file_service() = default;
};

/// Paths of UNIX sockets.
class path_service {
 public:
  virtual int identify(const char* path, file_identity& identity) = 0;  // does not follow links
  virtual int change_mode(const char* path, mode_t mode) = 0;
  /// The mode, less the umask, that the file will have which binding this socket makes. Where the system
  /// cannot do that it has no effect.
  virtual void prepare_mode(int /*fd*/, mode_t /*mode*/) {}
  virtual int unlink(const char* path) = 0;
  /// The path from the root on, which another working folder leaves as it is; as given if that is not known.
  virtual std::string absolute(const std::string& path) { return path; }

 protected:
  ~path_service() = default;
};

/// Many datagrams a call: how many went, or -errno if the first failed.
class batch_service {
 public:
  /// `emptied`: nothing more is there, and the poller will tell when something comes.
  virtual int receive_messages(int fd, std::span<message> messages, std::span<std::size_t> sizes,
                               bool& emptied) = 0;
  virtual int send_messages(int fd, std::span<const message> messages) = 0;

 protected:
  ~batch_service() = default;
};

/// Helper threads.
class thread_service {
 public:
  /// Whether helper threads may be used. False: what would run on one runs in place.
  virtual bool uses_threads() const { return true; }
  /// After how many turns of the loop what runs in place does so, 0 at once.
  virtual std::size_t turns_before_call() { return 0; }
  /// Runs `body(argument)` on a thread of its own that nobody joins and no signal interrupts. 0 or -errno.
  virtual int start_thread(void (*body)(void*), void* argument) = 0;

 protected:
  ~thread_service() = default;
};

/// What certificates and keys need of the world.
class security_service {
 public:
  /// Seconds since 1970, for the dates of certificates.
  virtual std::int64_t calendar() = 0;
  virtual std::uint64_t entropy() = 0;

 protected:
  ~security_service() = default;
};

/// Signals, for one loop: from the first `catch_signal` of a number to the last `release_signal` it is woken
/// (`wait` returns) when one comes, and `take_signal` tells once that it did.
class signal_service {
 public:
  /// 0 or a negative errno.
  virtual int catch_signal(int number) = 0;
  virtual void release_signal(int number) = 0;
  virtual bool take_signal(int number) = 0;
  /// From now on it is woken through this descriptor.
  virtual void wake_by(int) {}

 protected:
  ~signal_service() = default;
};
/// Ended by a function that comes with it: a virtual destructor would be linked into every program.
using signal_service_ptr = std::unique_ptr<signal_service, void (*)(signal_service*)>;

}  // namespace detail

/// The seam. `system_backend()` is the machine's; others simulate it or add faults to it.
class backend {
 public:
  backend() = default;
  backend(const backend&) = delete;
  backend& operator=(const backend&) = delete;
  virtual ~backend() = default;

  /// The clock of all timers.
  virtual time_point now() = 0;

  // --- readiness
  /// Watches both directions, edge-triggered, until `forget`. 0 or a negative errno; -EEXIST if it is
  /// watched already.
  virtual int watch(int fd, std::uint64_t token) = 0;
  /// Ends what `watch` or `watch_once` began, before the descriptor is closed.
  virtual void forget(int fd) = 0;
  /// Watches for reading, writing or both, level-triggered; reports once (some pollers once for each of
  /// the two), then is silent until armed again.
  /// `again` says that the descriptor is in the poller already.
  virtual int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) = 0;
  /// The `readiness` bits that hold now (any descriptor, also one that is watched), or -errno.
  virtual int poll_now(int fd, std::uint32_t interest) = 0;
  /// Waits until something is ready, `wake` is called, or the time is over (negative: no limit).
  /// The number of events, which may be 0 at any time, or -errno.
  virtual int wait(std::span<detail::poll_event> events, duration at_most) = 0;
  /// Ends a `wait`, this one or the next. The only call that may come from any thread.
  virtual void wake() = 0;
  /// A descriptor that is readable when `wait` would give events, for embedding; -1 if there is none.
  virtual int native_handle() const = 0;
  /// Eight bytes written to this descriptor end a `wait`, this one or the next: a signal handler can do no
  /// more. It changes only in `after_fork`; -1 if there is none.
  virtual int wake_descriptor() const { return -1; }
  /// In the child of fork(2): gives up the poller that the parent uses, and makes one that watches nothing.
  /// 0 or a negative errno. Not called for a backend without `native_handle`, which shares nothing.
  virtual int after_fork() { return -ENOTSUP; }

  // --- sockets: close-on-exec, non-blocking, never SIGPIPE
  virtual int open_socket(int family, int type, int protocol) = 0;           ///< socket(2)
  virtual int open_pair(int family, int type, int (&fds)[2]) = 0;            ///< socketpair(2)
  virtual int bind(int fd, const sockaddr* address, socklen_t size) = 0;     ///< bind(2)
  virtual int listen(int fd, int backlog) = 0;                               ///< listen(2)
  virtual int connect(int fd, const sockaddr* address, socklen_t size) = 0;  ///< connect(2)
  virtual int accept(int fd, sockaddr* address, socklen_t* size) = 0;        ///< accept(2)
  /// Makes the descriptor non-blocking again if another process that shares it has made it blocking. For
  /// calls that have no flag for it.
  virtual void keep_non_blocking(int) {}
  virtual int shutdown(int fd, int how) = 0;  ///< shutdown(2)
  /// Breaks a connection in the way that the network could, as far as that can be done here.
  virtual int break_connection(int fd) {
    sockaddr nowhere{};
    nowhere.sa_family = AF_UNSPEC;  // some systems reset TCP then
    return connect(fd, &nowhere, sizeof nowhere) >= 0 ? 0 : shutdown(fd, SHUT_RDWR);
  }
  /// Closes any descriptor. The number is free afterwards, whatever it returns.
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

  // --- services of this backend's own; null: whoever needs one names the machine's, which is linked only
  // into programs that do
  virtual detail::name_service* names() { return nullptr; }
  virtual detail::file_service* files() { return nullptr; }
  virtual detail::path_service* paths() { return nullptr; }
  virtual detail::batch_service* batches() { return nullptr; }
  virtual detail::thread_service* threads() { return nullptr; }
  virtual detail::security_service* security() { return nullptr; }
  virtual detail::signal_service* signals() { return nullptr; }

  // --- memory
  /// How much of a transfer between streams in memory goes now, at least 1: all of it, unless it is made
  /// hard.
  virtual std::size_t transfer(std::size_t wanted) { return wanted; }
};

namespace detail {

// --- the machine's own, for what belongs to no loop

/// How many times fork(2) was called on the way to this process, once there is a loop: it tells a child from
/// its parent. Written only in a child that was just made, which has one thread.
inline constinit std::uint32_t forks_so_far = 0;
/// From now on each fork(2) calls the first before it, then the second in the parent and the third in the
/// child (pthread_atfork(3)). Null for none.
void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)());
void close_descriptor(int fd) noexcept;
/// Numbers from here on are a simulation's, whose close this thread has while it runs there.
inline constexpr int first_simulated_descriptor = 1 << 30;
using close_hook = void (*)(int fd) noexcept;
inline constinit thread_local close_hook close_simulated = nullptr;
[[nodiscard]] std::int64_t system_calendar() noexcept;
[[nodiscard]] std::uint64_t system_entropy();
/// A whole file. 0 or a negative errno: -EFBIG for one of more than 16 MiB.
[[nodiscard]] int read_file(const char* path, std::string& content);
/// The file of the authorities that this system trusts, null if there is none. SSL_CERT_FILE in the
/// environment goes first.
[[nodiscard]] const char* trust_file();
[[nodiscard]] name_service& system_names() noexcept;
[[nodiscard]] file_service& system_files() noexcept;
[[nodiscard]] path_service& system_paths() noexcept;
[[nodiscard]] batch_service& system_batches() noexcept;
[[nodiscard]] thread_service& system_threads() noexcept;
/// Writes to the descriptor from signal handlers; no longer once it is destroyed, and not in the child of a
/// fork before `wake_by` names a descriptor of the child's own.
[[nodiscard]] signal_service_ptr system_signals(int wake_descriptor);

// --- the services of a loop on this backend

template <class Service>
Service& own_or(Service* own, Service& (*machines)() noexcept) {
  return own != nullptr ? *own : machines();
}
[[nodiscard]] inline name_service& names_of(backend& b) { return own_or(b.names(), system_names); }
[[nodiscard]] inline file_service& files_of(backend& b) { return own_or(b.files(), system_files); }
[[nodiscard]] inline path_service& paths_of(backend& b) { return own_or(b.paths(), system_paths); }
[[nodiscard]] inline batch_service& batches_of(backend& b) { return own_or(b.batches(), system_batches); }
[[nodiscard]] inline thread_service& threads_of(backend& b) { return own_or(b.threads(), system_threads); }

}  // namespace detail

/// epoll on Linux, kqueue on the BSDs and macOS. Null if the poller cannot be made (out of descriptors).
[[nodiscard]] std::unique_ptr<backend> system_backend();

}}  // namespace anyio
