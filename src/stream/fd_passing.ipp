// Sending and receiving control data.
#pragma once

#include "base/slice.hpp"
#include "stream/fd_passing.hpp"

#include <cerrno>
#include <cstring>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

#if defined(__linux__)
inline constexpr int pidfd_message = 4;  // SCM_PIDFD, which not every C library defines
#endif

/// Room for received control data: as many descriptors as the kernel passes at once, and the data that socket
/// options add. Without room for that data, the kernel would report truncated descriptors. A security label
/// (SCM_SECURITY) is the longest; it may take a page.
inline constexpr std::size_t control_size_of_message = CMSG_SPACE(max_fds_of_message * sizeof(int)) + 4352;

/// Takes the descriptors that the peer sent out of received control data. They go to `fds` as far as its
/// capacity allows; the others, and those that the kernel itself adds, are closed. Other control data is
/// ignored; parsing stops at malformed data. Returns false if a descriptor that the peer sent was closed.
[[nodiscard]] inline bool take_descriptors(backend& system, void* control, std::size_t size,
                                           std::vector<unique_fd>& fds) {
  bool all = true;
  const auto* bytes = static_cast<const unsigned char*>(control);
  std::size_t offset = 0;
  while (size - offset >= sizeof(cmsghdr)) {
    cmsghdr header;
    std::memcpy(&header, bytes + offset, sizeof header);
    const std::size_t length = header.cmsg_len;
    if (length < CMSG_LEN(0) || length > size - offset) break;
#if defined(__linux__)
    // SO_PASSPIDFD: a descriptor for the sender's process, or an errno in its place.
    if (header.cmsg_level == SOL_SOCKET && header.cmsg_type == pidfd_message &&
        length >= CMSG_LEN(sizeof(int))) {
      int fd;
      std::memcpy(&fd, bytes + offset + CMSG_LEN(0), sizeof fd);
      if (fd >= 0) close_descriptor(fd);
    }
#endif
    if (header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_RIGHTS) {
      const std::size_t count = (length - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd;
        std::memcpy(&fd, bytes + offset + CMSG_LEN(0) + i * sizeof(int), sizeof fd);
        unique_fd owned(fd);
        files_of(system).set_close_on_exec(fd);
        if (fds.size() == fds.capacity()) {
          all = false;
        } else {
          fds.push_back(std::move(owned));
        }
      }
    }
    const std::size_t step = CMSG_SPACE(length - CMSG_LEN(0));
    if (step >= size - offset) break;
    offset += step;
  }
  return all;
}

/// The control data that passes descriptors.
struct descriptor_control {
  alignas(cmsghdr) unsigned char bytes[CMSG_SPACE(max_fds_of_message * sizeof(int))];  // set by `attach`

  /// Makes it the control data of a message, with descriptors, at most as many as there is room for.
  void attach(message& m, std::span<const int> fds) noexcept {
    m.control = bytes;
    append_control(m, SOL_SOCKET, SCM_RIGHTS, fds.data(), fds.size_bytes());
  }
};

/// Whether an errno of sendmsg(2) concerns the descriptors, and not the connection.
[[gnu::cold]] inline bool concerns_descriptors(int e) noexcept {
  switch (e) {
    case EACCES:
    case EBADF:
    case EFAULT:
    case EINVAL:
    case EMFILE:
    case EMSGSIZE:
    case ENFILE:
    case EOPNOTSUPP:
    case EPERM:
    case ETOOMANYREFS:  // too many descriptors are in flight (unix(7))
      return true;
    default: return false;
  }
}

ANYIO_NET_FN progress receive_with_fds(socket_resource& from, mutable_buffer room, std::size_t size,
                                       const char* name, std::vector<unique_fd>& fds,
                                       result<std::size_t>& out) {
  loop_core& loop = from.core();
  alignas(cmsghdr) unsigned char control[control_size_of_message];
  const ::iovec part{room.data(), room.size()};
  message m{slice(&part, 1)};
  m.control = control;
  m.control_size = sizeof control;
  const ssize_t n = loop.system().receive_message(from.descriptor(), m);
  loop.count_work(n > 0 ? static_cast<std::size_t>(n) : 0);
  if (from.must_wait(read_side, n)) return progress::waiting;
  if (n < 0) return complete<progress::done>(out, from.end_of_reading(static_cast<int>(-n), name));
  const bool all = take_descriptors(loop.system(), control, m.control_size, fds);
  if (!all || (m.flags & MSG_CTRUNC) != 0)
    return complete<progress::done>(out, error(errc::fds_truncated, 0, name));
  if (n == 0 && fds.empty()) {
    // No bytes and no descriptors: the end of the stream, unless no bytes were asked for and some are
    // available.
    std::byte one;
    const ::iovec look{&one, 1};
    message peek{slice(&look, 1)};
    peek.peek = true;
    const ssize_t there = room.empty() ? loop.system().receive_message(from.descriptor(), peek) : ssize_t{0};
    if (from.must_wait(read_side, there)) return progress::waiting;
    if (there <= 0) return complete<progress::done>(out, from.end_of_reading(static_cast<int>(-there), name));
  }
  // Control data of any kind ends a read early, so more bytes may follow.
  from.note_read(static_cast<std::size_t>(n), size, m.control_size != 0);
  return complete<progress::done>(out, static_cast<std::size_t>(n));
}

}  // namespace detail

ANYIO_NET_FN errc send_fds_operation::check() const noexcept {
  if (message_.empty() || fds_.empty() || fds_.size() > detail::max_fds_of_message)
    return errc::invalid_argument;
  const errc e = resource_operation::check();
  if (e == errc::ok && resource_->eof_sent()) return errc::closed_resource;
  return e;
}

ANYIO_NET_FN ssize_t send_fds_operation::send_first() {
  detail::descriptor_control control;
  const ::iovec part{const_cast<std::byte*>(message_.data()), message_.size()};
  detail::message m{detail::slice(&part, 1)};
  control.attach(m, fds_);
  resource_->core().count_work(message_.size());
  return resource_->core().system().send_message(resource_->descriptor(), m);
}

ANYIO_NET_FN bool send_fds_operation::attempt(result<void>& out) {
  if (sent_ == 0) {
    if (resource_->exhausted[detail::write_side]) return false;
    const ssize_t n = send_first();
    if (resource_->must_wait(detail::write_side, n)) return false;
    if (n < 0) {
      const int e = static_cast<int>(-n);
      return detail::complete(out,
                              detail::concerns_descriptors(e)
                                  ? error(e == EOPNOTSUPP ? errc::not_supported : errc::os_error, e, name)
                                  : resource_->end_of_writing(e, name));
    }
    sent_ = static_cast<std::size_t>(n);
  }
  const const_buffer whole(message_);
  detail::outgoing rest(std::span<const const_buffer>(&whole, 1));
  rest.advance(sent_);
  const detail::progress p = resource_->send(rest, out);
  sent_ = rest.sent();
  again = p == detail::progress::again;
  return p == detail::progress::done;
}

ANYIO_NET_FN bool receive_fds_operation::attempt(result<fd_message>& out) {
  if (resource_->exhausted[detail::read_side]) return false;
  const mutable_buffer all = resource_->core().buffer();
  const mutable_buffer room(all.data(), std::min(max_bytes_, all.size()));
  std::vector<unique_fd> fds;
  fds.reserve(std::min(max_fds_, detail::max_fds_of_message));  // now, so that lack of memory loses none
  result<std::size_t> n(errc::cancelled);
  if (detail::receive_with_fds(*resource_, room, room.size(), name, fds, n) != detail::progress::done)
    return false;
  if (!n.has_value()) return detail::complete(out, n.error());
  if (fds.size() > max_fds_) return detail::complete(out, error(errc::fds_truncated, 0, name));
  detail::received_bytes bytes(*resource_);
  out = fd_message(std::string(reinterpret_cast<const char*>(room.data()), *n), std::move(fds));
  bytes.handed_over();
  return true;
}

ANYIO_NET_FN send_fds_operation unix_stream::send_fds(const_buffer message, std::span<const int> fds) {
  return {detail::ref<detail::socket_resource>(resource()), message, fds};
}

ANYIO_NET_FN receive_fds_operation unix_stream::receive_fds(std::size_t max_bytes, std::size_t max_fds) {
  return {detail::ref<detail::socket_resource>(resource()), max_bytes, max_fds};
}

}}  // namespace anyio
