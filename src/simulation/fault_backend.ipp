// The faults that are possible for each call.
#pragma once

#include "base/mutex.hpp"
#include "base/slice.hpp"
#include "simulation/fault_backend.hpp"

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

inline constexpr int errors_of_opening[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
inline constexpr int errors_of_bind[] = {EADDRINUSE, EACCES, EADDRNOTAVAIL};
inline constexpr int errors_of_listen[] = {EADDRINUSE};
inline constexpr int errors_of_connect[] = {ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EADDRNOTAVAIL};
inline constexpr int errors_of_connect_unix[] = {ECONNREFUSED, ENOENT, EACCES, EAGAIN};
inline constexpr int errors_of_connected[] = {ECONNREFUSED, ETIMEDOUT, ECONNRESET, EHOSTUNREACH};
inline constexpr int errors_of_accept[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED, EPROTO, EAGAIN};
inline constexpr int errors_of_stream_in[] = {ECONNRESET, ETIMEDOUT, EAGAIN, ENOMEM};
inline constexpr int errors_of_stream_out[] = {ECONNRESET, EPIPE, ETIMEDOUT, EAGAIN, ENOBUFS};
inline constexpr int errors_of_datagram_in[] = {ECONNREFUSED, EAGAIN};
inline constexpr int errors_of_datagram_out[] = {ECONNREFUSED, ENOBUFS, EPERM, EAGAIN};
inline constexpr int errors_of_reading[] = {EIO, EAGAIN, ENOMEM};
inline constexpr int errors_of_writing[] = {EPIPE, EIO, EAGAIN, ENOMEM};
inline constexpr int errors_of_watch[] = {ENOMEM, ENOSPC};
inline constexpr int errors_of_memory[] = {ENOMEM};
inline constexpr int errors_of_options[] = {ENOPROTOOPT, EINVAL};
inline constexpr int errors_of_shutdown[] = {ENOTCONN};
inline constexpr int errors_of_names[] = {ENOBUFS};
inline constexpr int errors_of_signals[] = {EINVAL, EMFILE};
inline constexpr int errors_of_paths[] = {EACCES, EIO};

/// A copy of a message that is limited to `size` bytes.
class shortened_message {
 public:
  shortened_message(const message& m, std::size_t size) : parts_(m.parts.begin(), m.parts.end()), m_(m) {
    for (::iovec& part : parts_) {
      part.iov_len = std::min(part.iov_len, size);
      size -= part.iov_len;
    }
    m_.parts = {parts_.data(), parts_.size()};
  }
  message& get() noexcept { return m_; }

 private:
  std::vector<::iovec> parts_;
  message m_;
};

class fault_injector final : public faulty_backend,
                             private name_service,
                             private file_service,
                             private path_service,
                             private batch_service,
                             private signal_service {
 public:
  fault_injector(std::unique_ptr<backend> inner, std::shared_ptr<sim_choices> choices,
                 const sim::faults& all) noexcept
      : faulty_backend(all), inner_(std::move(inner)), choices_(std::move(choices)) {}

  time_point now() override { return inner_->now(); }

  int watch(int fd, std::uint64_t token) override {
    if (const int failure = failure_of("watch", errors_of_watch); failure != 0) return failure;
    const int status = inner_->watch(fd, token);
    if (status >= 0) watched_[fd] = watched{token, 0, kind_of(fd), false, 0, 0};
    return status;
  }
  void forget(int fd) override {
    release_held(fd);  // the owner may close the descriptor
    watched_.erase(fd);
    inner_->forget(fd);
  }
  int watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) override {
    return unless_failing("watch_once", errors_of_watch,
                          [&] { return inner_->watch_once(fd, interest, token, again); });
  }
  int poll_now(int fd, std::uint32_t interest) override {
    return unless_failing("poll_now", errors_of_memory, [&] { return inner_->poll_now(fd, interest); });
  }
  ANYIO_NET_FN int wait(slice<poll_event> events, duration at_most) override;
  void wake() override { inner_->wake(); }
  int native_handle() const override { return inner_->native_handle(); }
  int wake_descriptor() const override { return inner_->wake_descriptor(); }
  int after_fork() override {
    held_.reset();  // the parent sends the held datagram
    return inner_->after_fork();
  }

  int open_socket(int family, int type, int protocol) override {
    return unless_failing("socket", errors_of_opening, [&] {
      const int lack = lack_of_descriptors();
      return lack != 0 ? lack : inner_->open_socket(family, type, protocol);
    });
  }
  int open_pair(int family, int type, int (&fds)[2]) override {
    return unless_failing("socketpair", errors_of_opening, [&] {
      const int lack = lack_of_descriptors();
      return lack != 0 ? lack : inner_->open_pair(family, type, fds);
    });
  }
  int bind(int fd, const sockaddr* address, socklen_t size) override {
    return unless_failing("bind", errors_of_bind, [&] { return inner_->bind(fd, address, size); });
  }
  int listen(int fd, int backlog) override {
    return unless_failing("listen", errors_of_listen, [&] { return inner_->listen(fd, backlog); });
  }
  int connect(int fd, const sockaddr* address, socklen_t size) override {
    const std::span<const int> legal = address->sa_family == AF_UNIX
                                           ? std::span<const int>(errors_of_connect_unix)
                                           : std::span<const int>(errors_of_connect);
    return unless_failing("connect", legal, [&] { return inner_->connect(fd, address, size); });
  }
  ANYIO_NET_FN int accept(int fd, sockaddr* address, socklen_t* size) override;
  void keep_non_blocking(int fd) override { inner_->keep_non_blocking(fd); }
  int shutdown(int fd, int how) override {
    if (const int failure = failure_of("shutdown", errors_of_shutdown); failure != 0) {
      break_here(fd);
      return failure;
    }
    return inner_->shutdown(fd, how);
  }
  int close(int fd) override {
    release_held(fd);
    watched_.erase(fd);
    return inner_->close(fd);
  }
  ssize_t receive(int fd, void* data, std::size_t size) override {
    if (is_broken(fd)) return 0;
    if (const int failure = meddle(fd, "receive", ready_read, size); failure != 0) return failure;
    return inner_->receive(fd, data, size);
  }
  ANYIO_NET_FN ssize_t send(int fd, const void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t receive_message(int fd, message& m) override;
  ANYIO_NET_FN ssize_t send_message(int fd, const message& m) override;
  ANYIO_NET_FN int get_option(int fd, int level, int name, void* value, socklen_t* size) override;
  int set_option(int fd, int level, int name, const void* value, socklen_t size) override {
    return unless_failing("set_option", errors_of_options,
                          [&] { return inner_->set_option(fd, level, name, value, size); });
  }
  int local_address(int fd, sockaddr* address, socklen_t* size) override {
    return unless_failing("local_address", errors_of_names,
                          [&] { return inner_->local_address(fd, address, size); });
  }
  int remote_address(int fd, sockaddr* address, socklen_t* size) override {
    return unless_failing("remote_address", errors_of_shutdown,
                          [&] { return inner_->remote_address(fd, address, size); });
  }

  name_service* names() override { return this; }
  file_service* files() override { return this; }
  path_service* paths() override { return this; }
  batch_service* batches() override { return this; }
  thread_service* threads() override { return inner_->threads(); }
  signal_service* signals() override { return this; }

  std::size_t transfer(std::size_t wanted) override {
    static_cast<void>(shorten(wanted));
    return inner_->transfer(wanted);
  }
  int break_connection(int fd) override { return inner_->break_connection(fd); }

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
  int reverse(const ip_endpoint& endpoint, std::string& host, std::string& service) override {
    return unless_failing("reverse", errors_of_paths,
                          [&] { return names_of(*inner_).reverse(endpoint, host, service); });
  }
  bool has_family(int family) override { return names_of(*inner_).has_family(family); }

  int adopt(int fd) override { return files_of(*inner_).adopt(fd); }
  int make_blocking(int fd) override { return files_of(*inner_).make_blocking(fd); }
  int set_close_on_exec(int fd) override { return files_of(*inner_).set_close_on_exec(fd); }
  int identify(int fd, file_identity& identity) override { return files_of(*inner_).identify(fd, identity); }
  ANYIO_NET_FN ssize_t read(int fd, void* data, std::size_t size) override;
  ANYIO_NET_FN ssize_t write(int fd, slice<const ::iovec> parts) override;
  ssize_t send_file(int socket, int file, std::uint64_t offset, std::size_t count) override {
    if (is_broken(socket)) return -EPIPE;
    if (const int failure = meddle(socket, "send_file", ready_write, count); failure != 0) return failure;
    return files_of(*inner_).send_file(socket, file, offset, count);
  }

  int identify(const char* path, file_identity& identity) override {
    return unless_failing("identify", errors_of_paths,
                          [&] { return paths_of(*inner_).identify(path, identity); });
  }
  int change_mode(const char* path, mode_t mode) override {
    return unless_failing("change_mode", errors_of_paths,
                          [&] { return paths_of(*inner_).change_mode(path, mode); });
  }
  void prepare_mode(int fd, mode_t mode) override { paths_of(*inner_).prepare_mode(fd, mode); }
  int unlink(const char* path) override {
    return unless_failing("unlink", errors_of_paths, [&] { return paths_of(*inner_).unlink(path); });
  }
  std::string absolute(const std::string& path) override { return paths_of(*inner_).absolute(path); }

  int receive_messages(int fd, slice<message> messages, slice<std::size_t> sizes, bool& emptied) override {
    std::size_t size = 1;
    if (const int failure = meddle(fd, "receive_messages", ready_read, size); failure != 0) return failure;
    return batches_of(*inner_).receive_messages(fd, messages, sizes, emptied);
  }
  int send_messages(int fd, slice<const message> messages) override {
    return send_each(messages, [&](const message& m) { return send_message(fd, m); });
  }

  int catch_signal(int number) override {
    return unless_failing("catch_signal", errors_of_signals,
                          [&] { return inner_signals().catch_signal(number); });
  }
  void release_signal(int number) override { inner_signals().release_signal(number); }
  bool take_signal(int number) override { return inner_signals().take_signal(number); }
  void wake_by(int wake_descriptor) override {
    signal_service* const own = inner_->signals();
    if (own != nullptr || system_signals_) inner_signals().wake_by(wake_descriptor);
  }

  [[nodiscard]] signal_service& inner_signals() {
    if (signal_service* own = inner_->signals()) return *own;
    if (!system_signals_) system_signals_ = system_signals(inner_->wake_descriptor());
    return *system_signals_;
  }
  /// Returns the negative errno that this call must fail with, 0 if it must not fail.
  [[nodiscard]] int failure_of(const char* name, std::span<const int> legal) {
    if (one_failure == nullptr || ++one_failure->counted != one_failure->call) return 0;
    one_failure->name = name;
    one_failure->choices = legal.size();
    one_failure->error_number = legal[one_failure->which % legal.size()];
    return -one_failure->error_number;
  }
  /// Makes a call, unless it must fail.
  template <class Call>
  std::invoke_result_t<Call> unless_failing(const char* name, std::span<const int> legal, Call call) {
    const int failure = failure_of(name, legal);
    return failure != 0 ? failure : call();
  }
  [[nodiscard]] int lack_of_descriptors() {
    return chance(faults.accept_exhausted) ? -errors_of_opening[pick(std::size(errors_of_opening))] : 0;
  }
  [[nodiscard]] kind kind_of(int fd);
  /// Applies faults to a transfer before it begins: returns a negative errno or 0, and may reduce the size.
  int meddle(int fd, const char* name, std::uint32_t direction, std::size_t& size);
  /// Decides whether an event of this probability happens. Locks the choices, since names are looked up on
  /// helper threads.
  [[nodiscard]] bool chance(double probability) {
    if (!(probability > 0)) return false;
    const process_lock lock(mutex_);
    return choices_->chance(probability);
  }
  [[nodiscard]] std::size_t pick(std::size_t bound) {
    const process_lock lock(mutex_);
    return choices_->pick(bound);
  }
  /// Reduces the size, to at least 1, if the choices say so; returns whether it did.
  [[nodiscard]] bool shorten(std::size_t& size) {
    if (size < 2 || !chance(faults.short_io)) return false;
    size = 1 + pick(size - 1);
    return true;
  }
  [[nodiscard]] bool denies(int fd, std::uint32_t direction);
  /// Whether the connection was broken here, so that no more bytes move in either direction.
  [[nodiscard]] bool is_broken(int fd) const {
    const auto found = watched_.find(fd);
    return found != watched_.end() && found->second.broken;
  }
  void break_here(int fd) {
    inner_->break_connection(fd);
    const auto found = watched_.find(fd);
    if (found != watched_.end()) found->second.broken = true;
  }
  /// Makes one of the next waits report readiness, after an injected error or a short read.
  void owe(int fd, std::uint32_t bits) {
    const auto found = watched_.find(fd);
    if (found == watched_.end()) return;
    found->second.owed |= bits;
    owes_ = true;
  }
  ssize_t send_one(int fd, const message& m);
  void release_held(int fd);

  std::unique_ptr<backend> inner_;
  owned<signal_service> system_signals_;  // made at first use if the inner backend has none
  std::shared_ptr<sim_choices> choices_;
  std::map<int, watched> watched_;
  std::optional<held_datagram> held_;
  std::uint64_t turn_ = 2;
  bool owes_ = false;
  bool interrupted_ = false;
  process_mutex mutex_;  // protects the choices
};

ANYIO_NET_FN std::unique_ptr<faulty_backend> faulty_backend::make(std::unique_ptr<backend> inner,
                                                                  std::shared_ptr<sim_choices> choices,
                                                                  const sim::faults& all) {
  return std::make_unique<fault_injector>(std::move(inner), std::move(choices), all);
}

// --- decisions

ANYIO_NET_FN fault_injector::kind fault_injector::kind_of(int fd) {
  const auto found = watched_.find(fd);
  if (found != watched_.end() && found->second.what != kind::other) return found->second.what;
  int type = 0;
  socklen_t size = sizeof type;
  if (inner_->get_option(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) return kind::other;
  if (type == SOCK_STREAM) return kind::stream;
  sockaddr_storage address{};
  size = sizeof address;
  if (inner_->local_address(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) return kind::other;
  return address.ss_family == AF_UNIX ? kind::unix_datagram : kind::ip_datagram;
}

/// Decides whether a call fails with EAGAIN. Only for a watched descriptor, which can get readiness later,
/// and not again in the next turn, so that the program makes progress.
ANYIO_NET_FN bool fault_injector::denies(int fd, std::uint32_t direction) {
  const auto found = watched_.find(fd);
  if (found == watched_.end()) return false;
  std::uint64_t& last = direction == ready_read ? found->second.denied_read : found->second.denied_write;
  if (turn_ - last < 2 || !chance(faults.would_block)) return false;
  last = turn_;
  owe(fd, direction);
  return true;
}

ANYIO_NET_FN int fault_injector::meddle(int fd, const char* name, std::uint32_t direction,
                                        std::size_t& size) {
  const kind what = kind_of(fd);
  const bool in = direction == ready_read;
  const bool stream = what == kind::stream;
  const std::span<const int> legal =
      stream
          ? (in ? std::span<const int>(errors_of_stream_in) : std::span<const int>(errors_of_stream_out))
          : (in ? std::span<const int>(errors_of_datagram_in) : std::span<const int>(errors_of_datagram_out));
  if (const int failure = what == kind::other ? 0 : failure_of(name, legal); failure != 0) {
    if (failure == -EAGAIN) {
      owe(fd, direction);
    } else if (stream && !is_shortage(failure)) {
      break_here(fd);
    }
    return failure;
  }
  if (denies(fd, direction)) return -EAGAIN;
  if (!stream) return 0;
  if (chance(faults.reset)) {
    break_here(fd);
    return -ECONNRESET;
  }
  if (shorten(size) && in) owe(fd, direction);  // fewer bytes than fit, although more may be there
  return 0;
}

// --- time and chance, readiness

ANYIO_NET_FN int fault_injector::wait(slice<poll_event> events, duration at_most) {
  if (held_) release_held(held_->fd);
  interrupted_ = !interrupted_ && chance(faults.interrupted);  // never twice in a row, so that time passes
  if (interrupted_) return 0;
  ++turn_;
  const int n = inner_->wait(events, owes_ ? duration::zero() : at_most);
  if (n < 0 || !owes_) return n;
  auto count = static_cast<std::size_t>(n);
  owes_ = false;
  for (auto& [fd, w] : watched_) {
    if (w.owed == 0) continue;
    if (count == events.size()) {
      owes_ = true;
      break;
    }
    events[count++] = {w.token, std::exchange(w.owed, 0)};
  }
  return static_cast<int>(count);
}

// --- sockets

ANYIO_NET_FN int fault_injector::accept(int fd, sockaddr* address, socklen_t* size) {
  if (const int failure = failure_of("accept", errors_of_accept); failure != 0) {
    owe(fd, ready_read);  // the connection is still there
    return failure;
  }
  if (denies(fd, ready_read)) return -EAGAIN;
  if (const int lack = lack_of_descriptors(); lack != 0) return lack;
  return inner_->accept(fd, address, size);
}

ANYIO_NET_FN ssize_t fault_injector::send(int fd, const void* data, std::size_t size) {
  if (is_broken(fd)) return -EPIPE;
  const ::iovec part{const_cast<void*>(data), size};
  if (kind_of(fd) == kind::ip_datagram) return send_message(fd, message{slice(&part, 1)});
  if (const int failure = meddle(fd, "send", ready_write, size); failure != 0) return failure;
  return inner_->send(fd, data, size);
}

ANYIO_NET_FN ssize_t fault_injector::receive_message(int fd, message& m) {
  if (is_broken(fd)) {
    m.control_size = 0;
    return 0;
  }
  const std::size_t total = m.size();
  std::size_t size = total;
  if (const int failure = meddle(fd, "receive_message", ready_read, size); failure != 0) return failure;
  if (size == total) return inner_->receive_message(fd, m);
  shortened_message shorter(m, size);
  const ssize_t n = inner_->receive_message(fd, shorter.get());
  m.flags = shorter.get().flags;
  m.address_size = shorter.get().address_size;
  m.control_size = shorter.get().control_size;
  return n;
}

ANYIO_NET_FN ssize_t fault_injector::send_message(int fd, const message& m) {
  if (is_broken(fd)) return -EPIPE;
  const std::size_t total = m.size();
  std::size_t size = total;
  if (const int failure = meddle(fd, "send_message", ready_write, size); failure != 0) return failure;
  if (kind_of(fd) == kind::ip_datagram) return send_one(fd, m);
  if (size == total) return inner_->send_message(fd, m);
  return inner_->send_message(fd, shortened_message(m, size).get());
}

/// Sends an IP datagram, which may be lost, duplicated or delayed. A datagram that is larger than an Ethernet
/// packet gets no faults: the system may reject it, and its sender must get that error.
ANYIO_NET_FN ssize_t fault_injector::send_one(int fd, const message& m) {
  constexpr std::size_t fits_everywhere = 1472;
  const auto total = static_cast<ssize_t>(m.size());
  const bool in_pieces = m.control_size != 0;  // GSO: each part is one datagram
  if ((in_pieces ? m.parts.front().iov_len : m.size()) > fits_everywhere) return inner_->send_message(fd, m);
  if (chance(faults.drop)) return total;
  if (!held_ && chance(faults.reorder)) {
    held_datagram h{fd, {}, {}, {}};
    for (const ::iovec& part : m.parts) h.data.append(static_cast<const char*>(part.iov_base), part.iov_len);
    if (m.address != nullptr) h.address.assign(reinterpret_cast<const char*>(m.address), m.address_size);
    if (m.control_size != 0) h.control.assign(static_cast<const char*>(m.control), m.control_size);
    held_ = std::move(h);
    return total;
  }
  const ssize_t n = inner_->send_message(fd, m);
  if (n >= 0 && chance(faults.duplicate)) inner_->send_message(fd, m);
  release_held(fd);
  return n;
}

/// Sends the datagram of this descriptor that was held back, after the datagram that followed it.
ANYIO_NET_FN void fault_injector::release_held(int fd) {
  if (!held_ || held_->fd != fd) return;
  held_datagram h = std::move(*held_);
  held_.reset();
  const ::iovec part{h.data.data(), h.data.size()};
  message m{slice(&part, 1)};
  sockaddr_storage address{};
  if (!h.address.empty()) {
    std::memcpy(&address, h.address.data(), std::min(h.address.size(), sizeof address));
    m.address = reinterpret_cast<sockaddr*>(&address);
    m.address_size = static_cast<socklen_t>(h.address.size());
  }
  m.control = h.control.data();
  m.control_size = h.control.size();
  inner_->send_message(fd, m);
}

ANYIO_NET_FN int fault_injector::get_option(int fd, int level, int name, void* value, socklen_t* size) {
  if (level == SOL_SOCKET && name == SO_ERROR && *size >= sizeof(int) && kind_of(fd) == kind::stream) {
    if (const int failure = failure_of("connected", errors_of_connected); failure != 0) {
      break_here(fd);
      const int why = -failure;
      std::memcpy(value, &why, *size = sizeof why);
      return 0;
    }
  }
  return inner_->get_option(fd, level, name, value, size);
}

// --- the rest

ANYIO_NET_FN ssize_t fault_injector::read(int fd, void* data, std::size_t size) {
  if (const int failure = failure_of("read", errors_of_reading); failure != 0) {
    if (failure == -EAGAIN) owe(fd, ready_read);
    return failure;
  }
  if (denies(fd, ready_read)) return -EAGAIN;
  static_cast<void>(shorten(size));
  return files_of(*inner_).read(fd, data, size);
}

ANYIO_NET_FN ssize_t fault_injector::write(int fd, slice<const ::iovec> parts) {
  if (const int failure = failure_of("write", errors_of_writing); failure != 0) {
    if (failure == -EAGAIN) owe(fd, ready_write);
    return failure;
  }
  if (denies(fd, ready_write)) return -EAGAIN;
  const message m{parts};
  std::size_t size = m.size();
  return files_of(*inner_).write(fd, shorten(size) ? shortened_message(m, size).get().parts : parts);
}

ANYIO_NET_FN resolved fault_injector::resolve(const std::string& host, std::uint16_t port, int family) {
  resolved failed;
  if (failure_of("resolve", errors_of_paths) != 0 || chance(faults.name_failure)) {
    failed.status = -ENOENT;
    failed.reason = "the name server does not answer";
    return failed;
  }
  return names_of(*inner_).resolve(host, port, family);
}

}  // namespace detail

ANYIO_NET_FN std::unique_ptr<backend> fault_backend(std::unique_ptr<backend> inner,
                                                    const sim::options& options) {
  if (inner == nullptr) return nullptr;
  auto choices = std::make_shared<detail::sim_choices>(options.seed, options.choices);
  return detail::faulty_backend::make(std::move(inner), std::move(choices), options.faults);
}

}}  // namespace anyio

#endif
