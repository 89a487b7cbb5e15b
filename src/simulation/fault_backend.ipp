// The faults that are possible for each call.
#pragma once

#include "simulation/fault_backend.hpp"

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

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

// --- decisions

ANYIO_NET_FN int faulty_backend::failure_of(const char* name, std::span<const int> legal) {
  if (one_failure == nullptr || ++one_failure->counted != one_failure->call) return 0;
  one_failure->name = name;
  one_failure->choices = legal.size();
  one_failure->error_number = legal[one_failure->which % legal.size()];
  return -one_failure->error_number;
}

ANYIO_NET_FN faulty_backend::kind faulty_backend::kind_of(int fd) {
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

/// Decides whether an event of this probability happens. Locks the choices, since names are looked up on
/// helper threads.
ANYIO_NET_FN bool faulty_backend::chance(double probability) {
  if (!(probability > 0)) return false;
  const process_lock lock(mutex_);
  return choices_->chance(probability);
}

ANYIO_NET_FN std::size_t faulty_backend::pick(std::size_t bound) {
  const process_lock lock(mutex_);
  return choices_->pick(bound);
}

/// Reduces the size, to at least 1, if the choices say so; returns whether it did.
ANYIO_NET_FN bool faulty_backend::shorten(std::size_t& size) {
  if (size < 2 || !chance(faults.short_io)) return false;
  size = 1 + pick(size - 1);
  return true;
}

/// Decides whether a call fails with EAGAIN. Only for a watched descriptor, which can get readiness later,
/// and not again in the next turn, so that the program makes progress.
ANYIO_NET_FN bool faulty_backend::denies(int fd, std::uint32_t direction) {
  const auto found = watched_.find(fd);
  if (found == watched_.end()) return false;
  std::uint64_t& last = direction == ready_read ? found->second.denied_read : found->second.denied_write;
  if (turn_ - last < 2 || !chance(faults.would_block)) return false;
  last = turn_;
  owe(fd, direction);
  return true;
}

/// Whether the connection was broken here, so that no more bytes move in either direction.
ANYIO_NET_FN bool faulty_backend::is_broken(int fd) const {
  const auto found = watched_.find(fd);
  return found != watched_.end() && found->second.broken;
}

ANYIO_NET_FN void faulty_backend::break_here(int fd) {
  inner_->break_connection(fd);
  const auto found = watched_.find(fd);
  if (found != watched_.end()) found->second.broken = true;
}

/// Makes one of the next waits report readiness, after an injected error or a short read.
ANYIO_NET_FN void faulty_backend::owe(int fd, std::uint32_t bits) {
  const auto found = watched_.find(fd);
  if (found == watched_.end()) return;
  found->second.owed |= bits;
  owes_ = true;
}

ANYIO_NET_FN int faulty_backend::meddle(int fd, const char* name, std::uint32_t direction,
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

ANYIO_NET_FN time_point faulty_backend::now() { return inner_->now(); }

ANYIO_NET_FN int faulty_backend::watch(int fd, std::uint64_t token) {
  if (const int failure = failure_of("watch", errors_of_watch); failure != 0) return failure;
  const int status = inner_->watch(fd, token);
  if (status >= 0) watched_[fd] = watched{token, 0, kind_of(fd), false, 0, 0};
  return status;
}

ANYIO_NET_FN void faulty_backend::forget(int fd) {
  release_held(fd);  // the owner may close the descriptor
  watched_.erase(fd);
  inner_->forget(fd);
}

ANYIO_NET_FN int faulty_backend::watch_once(int fd, std::uint32_t interest, std::uint64_t token, bool again) {
  if (const int failure = failure_of("watch_once", errors_of_watch); failure != 0) return failure;
  return inner_->watch_once(fd, interest, token, again);
}

ANYIO_NET_FN int faulty_backend::poll_now(int fd, std::uint32_t interest) {
  if (const int failure = failure_of("poll_now", errors_of_memory); failure != 0) return failure;
  return inner_->poll_now(fd, interest);
}

ANYIO_NET_FN int faulty_backend::wait(std::span<poll_event> events, duration at_most) {
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

ANYIO_NET_FN void faulty_backend::wake() { inner_->wake(); }

ANYIO_NET_FN int faulty_backend::native_handle() const { return inner_->native_handle(); }

// --- sockets

ANYIO_NET_FN int faulty_backend::open_socket(int family, int type, int protocol) {
  if (const int failure = failure_of("socket", errors_of_opening); failure != 0) return failure;
  if (chance(faults.accept_exhausted)) return -errors_of_opening[pick(std::size(errors_of_opening))];
  return inner_->open_socket(family, type, protocol);
}

ANYIO_NET_FN int faulty_backend::open_pair(int family, int type, int (&fds)[2]) {
  if (const int failure = failure_of("socketpair", errors_of_opening); failure != 0) return failure;
  if (chance(faults.accept_exhausted)) return -errors_of_opening[pick(std::size(errors_of_opening))];
  return inner_->open_pair(family, type, fds);
}

ANYIO_NET_FN int faulty_backend::bind(int fd, const sockaddr* address, socklen_t size) {
  if (const int failure = failure_of("bind", errors_of_bind); failure != 0) return failure;
  return inner_->bind(fd, address, size);
}

ANYIO_NET_FN int faulty_backend::listen(int fd, int backlog) {
  if (const int failure = failure_of("listen", errors_of_listen); failure != 0) return failure;
  return inner_->listen(fd, backlog);
}

ANYIO_NET_FN int faulty_backend::connect(int fd, const sockaddr* address, socklen_t size) {
  const std::span<const int> legal = address->sa_family == AF_UNIX
                                         ? std::span<const int>(errors_of_connect_unix)
                                         : std::span<const int>(errors_of_connect);
  if (const int failure = failure_of("connect", legal); failure != 0) return failure;
  return inner_->connect(fd, address, size);
}

ANYIO_NET_FN int faulty_backend::accept(int fd, sockaddr* address, socklen_t* size) {
  if (const int failure = failure_of("accept", errors_of_accept); failure != 0) {
    owe(fd, ready_read);  // the connection is still there
    return failure;
  }
  if (denies(fd, ready_read)) return -EAGAIN;
  if (chance(faults.accept_exhausted)) return -errors_of_opening[pick(std::size(errors_of_opening))];
  return inner_->accept(fd, address, size);
}

ANYIO_NET_FN void faulty_backend::keep_non_blocking(int fd) { inner_->keep_non_blocking(fd); }

ANYIO_NET_FN int faulty_backend::shutdown(int fd, int how) {
  if (const int failure = failure_of("shutdown", errors_of_shutdown); failure != 0) {
    break_here(fd);
    return failure;
  }
  return inner_->shutdown(fd, how);
}

ANYIO_NET_FN int faulty_backend::close(int fd) {
  release_held(fd);
  watched_.erase(fd);
  return inner_->close(fd);
}

ANYIO_NET_FN ssize_t faulty_backend::receive(int fd, void* data, std::size_t size) {
  if (is_broken(fd)) return 0;
  if (const int failure = meddle(fd, "receive", ready_read, size); failure != 0) return failure;
  return inner_->receive(fd, data, size);
}

ANYIO_NET_FN ssize_t faulty_backend::send(int fd, const void* data, std::size_t size) {
  if (is_broken(fd)) return -EPIPE;
  const ::iovec part{const_cast<void*>(data), size};
  if (kind_of(fd) == kind::ip_datagram) {
    message m;
    m.parts = std::span<const ::iovec>(&part, 1);
    return send_message(fd, m);
  }
  if (const int failure = meddle(fd, "send", ready_write, size); failure != 0) return failure;
  return inner_->send(fd, data, size);
}

inline std::size_t total_of(const message& m) noexcept {
  std::size_t total = 0;
  for (const ::iovec& part : m.parts) total += part.iov_len;
  return total;
}

/// A copy of a message that is limited to `size` bytes.
class shortened_message {
 public:
  shortened_message(const message& m, std::size_t size) : parts_(m.parts.begin(), m.parts.end()), m_(m) {
    for (::iovec& part : parts_) {
      part.iov_len = std::min(part.iov_len, size);
      size -= part.iov_len;
    }
    m_.parts = parts_;
  }
  message& get() noexcept { return m_; }

 private:
  std::vector<::iovec> parts_;
  message m_;
};

ANYIO_NET_FN ssize_t faulty_backend::receive_message(int fd, message& m) {
  if (is_broken(fd)) {
    m.control_size = 0;
    return 0;
  }
  const std::size_t total = total_of(m);
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

ANYIO_NET_FN ssize_t faulty_backend::send_message(int fd, const message& m) {
  if (is_broken(fd)) return -EPIPE;
  const std::size_t total = total_of(m);
  std::size_t size = total;
  if (const int failure = meddle(fd, "send_message", ready_write, size); failure != 0) return failure;
  if (kind_of(fd) == kind::ip_datagram) return send_one(fd, m);
  if (size == total) return inner_->send_message(fd, m);
  return inner_->send_message(fd, shortened_message(m, size).get());
}

/// Sends an IP datagram, which may be lost, duplicated or delayed. A datagram that is larger than an Ethernet
/// packet gets no faults: the system may reject it, and its sender must get that error.
ANYIO_NET_FN ssize_t faulty_backend::send_one(int fd, const message& m) {
  constexpr std::size_t fits_everywhere = 1472;
  const auto total = static_cast<ssize_t>(total_of(m));
  const bool in_pieces = m.control_size != 0;  // GSO: each part is one datagram
  if ((in_pieces ? m.parts.front().iov_len : total_of(m)) > fits_everywhere)
    return inner_->send_message(fd, m);
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
ANYIO_NET_FN void faulty_backend::release_held(int fd) {
  if (!held_ || held_->fd != fd) return;
  held_datagram h = std::move(*held_);
  held_.reset();
  const ::iovec part{h.data.data(), h.data.size()};
  message m;
  m.parts = std::span<const ::iovec>(&part, 1);
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

ANYIO_NET_FN int faulty_backend::receive_messages(int fd, std::span<message> messages,
                                                  std::span<std::size_t> sizes, bool& emptied) {
  std::size_t size = 1;
  if (const int failure = meddle(fd, "receive_messages", ready_read, size); failure != 0) return failure;
  return batches_of(*inner_).receive_messages(fd, messages, sizes, emptied);
}

ANYIO_NET_FN int faulty_backend::send_messages(int fd, std::span<const message> messages) {
  int done = 0;
  for (const message& m : messages) {
    const ssize_t n = send_message(fd, m);
    if (n < 0) return done != 0 ? done : static_cast<int>(n);
    ++done;
  }
  return done;
}

ANYIO_NET_FN ssize_t faulty_backend::send_file(int socket, int file, std::uint64_t offset,
                                               std::size_t count) {
  if (is_broken(socket)) return -EPIPE;
  if (const int failure = meddle(socket, "send_file", ready_write, count); failure != 0) return failure;
  return files_of(*inner_).send_file(socket, file, offset, count);
}

ANYIO_NET_FN int faulty_backend::get_option(int fd, int level, int name, void* value, socklen_t* size) {
  if (level == SOL_SOCKET && name == SO_ERROR && *size >= sizeof(int)) {
    if (const int failure = failure_of("connected", errors_of_connected); failure != 0) {
      break_here(fd);
      const int why = -failure;
      std::memcpy(value, &why, *size = sizeof why);
      return 0;
    }
  }
  return inner_->get_option(fd, level, name, value, size);
}

ANYIO_NET_FN int faulty_backend::set_option(int fd, int level, int name, const void* value, socklen_t size) {
  if (const int failure = failure_of("set_option", errors_of_options); failure != 0) return failure;
  return inner_->set_option(fd, level, name, value, size);
}

ANYIO_NET_FN int faulty_backend::local_address(int fd, sockaddr* address, socklen_t* size) {
  if (const int failure = failure_of("local_address", errors_of_names); failure != 0) return failure;
  return inner_->local_address(fd, address, size);
}

ANYIO_NET_FN int faulty_backend::remote_address(int fd, sockaddr* address, socklen_t* size) {
  if (const int failure = failure_of("remote_address", errors_of_shutdown); failure != 0) return failure;
  return inner_->remote_address(fd, address, size);
}

// --- the rest

ANYIO_NET_FN ssize_t faulty_backend::read(int fd, void* data, std::size_t size) {
  if (const int failure = failure_of("read", errors_of_reading); failure != 0) {
    if (failure == -EAGAIN) owe(fd, ready_read);
    return failure;
  }
  if (denies(fd, ready_read)) return -EAGAIN;
  static_cast<void>(shorten(size));
  return files_of(*inner_).read(fd, data, size);
}

ANYIO_NET_FN ssize_t faulty_backend::write(int fd, std::span<const ::iovec> parts) {
  if (const int failure = failure_of("write", errors_of_writing); failure != 0) {
    if (failure == -EAGAIN) owe(fd, ready_write);
    return failure;
  }
  if (denies(fd, ready_write)) return -EAGAIN;
  message m;
  m.parts = parts;
  std::size_t size = total_of(m);
  return files_of(*inner_).write(fd, shorten(size) ? shortened_message(m, size).get().parts : parts);
}

ANYIO_NET_FN int faulty_backend::adopt(int fd) { return files_of(*inner_).adopt(fd); }

ANYIO_NET_FN int faulty_backend::make_blocking(int fd) { return files_of(*inner_).make_blocking(fd); }

ANYIO_NET_FN int faulty_backend::set_close_on_exec(int fd) { return files_of(*inner_).set_close_on_exec(fd); }

ANYIO_NET_FN int faulty_backend::identify(const char* path, file_identity& identity) {
  if (const int failure = failure_of("identify", errors_of_paths); failure != 0) return failure;
  return paths_of(*inner_).identify(path, identity);
}

ANYIO_NET_FN int faulty_backend::identify(int fd, file_identity& identity) {
  return files_of(*inner_).identify(fd, identity);
}

ANYIO_NET_FN int faulty_backend::change_mode(const char* path, mode_t mode) {
  if (const int failure = failure_of("change_mode", errors_of_paths); failure != 0) return failure;
  return paths_of(*inner_).change_mode(path, mode);
}

ANYIO_NET_FN void faulty_backend::prepare_mode(int fd, mode_t mode) {
  paths_of(*inner_).prepare_mode(fd, mode);
}

ANYIO_NET_FN std::string faulty_backend::absolute(const std::string& path) {
  return paths_of(*inner_).absolute(path);
}

ANYIO_NET_FN int faulty_backend::unlink(const char* path) {
  if (const int failure = failure_of("unlink", errors_of_paths); failure != 0) return failure;
  return paths_of(*inner_).unlink(path);
}

ANYIO_NET_FN resolved faulty_backend::resolve(const std::string& host, std::uint16_t port, int family) {
  resolved failed;
  if (failure_of("resolve", errors_of_paths) != 0 || chance(faults.name_failure)) {
    failed.status = -ENOENT;
    failed.reason = "the name server does not answer";
    return failed;
  }
  return names_of(*inner_).resolve(host, port, family);
}

ANYIO_NET_FN int faulty_backend::reverse(const ip_endpoint& endpoint, std::string& host,
                                         std::string& service) {
  if (const int failure = failure_of("reverse", errors_of_paths); failure != 0) return failure;
  return names_of(*inner_).reverse(endpoint, host, service);
}

ANYIO_NET_FN bool faulty_backend::has_family(int family) { return names_of(*inner_).has_family(family); }

ANYIO_NET_FN int faulty_backend::wake_descriptor() const { return inner_->wake_descriptor(); }

ANYIO_NET_FN int faulty_backend::after_fork() {
  held_.reset();  // the parent sends the held datagram
  return inner_->after_fork();
}

ANYIO_NET_FN signal_service& faulty_backend::inner_signals() {
  if (signal_service* own = inner_->signals()) return *own;
  if (system_signals_ == nullptr) system_signals_ = system_signals(inner_->wake_descriptor());
  return *system_signals_;
}

ANYIO_NET_FN int faulty_backend::catch_signal(int number) {
  if (const int failure = failure_of("catch_signal", errors_of_signals); failure != 0) return failure;
  return inner_signals().catch_signal(number);
}

ANYIO_NET_FN void faulty_backend::release_signal(int number) { inner_signals().release_signal(number); }

ANYIO_NET_FN bool faulty_backend::take_signal(int number) { return inner_signals().take_signal(number); }

ANYIO_NET_FN void faulty_backend::wake_by(int wake_descriptor) {
  signal_service* const own = inner_->signals();
  if (own != nullptr || system_signals_ != nullptr) inner_signals().wake_by(wake_descriptor);
}

ANYIO_NET_FN std::size_t faulty_backend::transfer(std::size_t wanted) {
  static_cast<void>(shorten(wanted));
  return inner_->transfer(wanted);
}

ANYIO_NET_FN int faulty_backend::break_connection(int fd) { return inner_->break_connection(fd); }

}  // namespace detail

ANYIO_NET_FN std::unique_ptr<backend> fault_backend(std::unique_ptr<backend> inner,
                                                    const sim::options& options) {
  if (inner == nullptr) return nullptr;
  auto choices = std::make_shared<detail::sim_choices>(options.seed, options.choices);
  return std::make_unique<detail::faulty_backend>(std::move(inner), std::move(choices), options.faults);
}

}}  // namespace anyio

#endif
