// Batches: recvmmsg(2) and sendmmsg(2), and the pieces of UDP_GRO and UDP_SEGMENT (udp(7)).
#pragma once

#include "base/exchange.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"
#include "datagram/udp_batch.hpp"

#include <cerrno>
#include <cstring>
#include <limits>

#include <netinet/in.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

ANYIO_NET_FN udp_batch::udp_batch(std::size_t count, std::size_t max_size)
    : capacity_(count), max_size_(max_size) {
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max() / 2;  // more than can be allocated
  const bool fits = max_size < most - sizeof(entry) && count < most / (sizeof(entry) + max_size);
  block_.reset(new std::byte[fits ? count * (sizeof(entry) + max_size) : most]);
  for (std::size_t i = 0; i < count; ++i) ::new (static_cast<void*>(entries() + i)) entry;
}

ANYIO_NET_FN void udp_batch::append(std::size_t size, const ip_endpoint& sender, bool truncated) noexcept {
  entry& e = entries()[size_];  // its packet information is not there, or set by the caller
  e.data = {slot(size_), size};
  e.sender = sender;
  e.truncated = truncated;
  ++size_;
}

ANYIO_NET_COLD void udp_batch::forget_infos() noexcept {
  for (std::size_t i = 0; i < size_; ++i) entries()[i].info = packet_info();
  received_ = 0;
  format_ = nullptr;
}

ANYIO_NET_FN bool udp_batch::push(const_buffer data, const ip_endpoint& to) {
  if (size_ == capacity_ || data.size() > max_size_) return false;
  if (!data.empty()) std::memcpy(slot(size_), data.data(), data.size());
  append(data.size(), to, false);
  return true;
}

namespace detail {

#if defined(__linux__)
// Option numbers of the kernel (<linux/udp.h>), which not every C library has.
inline constexpr int udp_segment_option = 103;
inline constexpr int udp_gro_option = 104;
inline constexpr bool has_pieces = true;
#else
inline constexpr int udp_segment_option = 0;
inline constexpr int udp_gro_option = 0;
inline constexpr bool has_pieces = false;
#endif

/// Room for one control message that holds one number, and for packet information.
struct control_room {
  alignas(cmsghdr) unsigned char bytes[CMSG_SPACE(sizeof(int)) + packet_info_room];
};

/// Room for one such message, after those that socket options add: timestamps, a mark, a drop count, packet
/// information, which on a socket of both families has two addresses.
struct receive_control_room {
  alignas(cmsghdr) unsigned char bytes[CMSG_SPACE(sizeof(int)) + 232 + 2 * packet_info_room];
};

ANYIO_NET_FN batch_source& batch_source::of(datagram_resource& socket) {
  if (!socket.source) socket.source.reset(new batch_source);
  return static_cast<batch_source&>(*socket.source);
}

ANYIO_NET_FN void batch_source::ask_for_pieces(datagram_resource& socket) {
  asked_for_pieces_ = true;
  if (!has_pieces) return;
  if (write_option(socket.core().system(), socket.descriptor(), IPPROTO_UDP, udp_gro_option, int{1}) < 0)
    return;
  memory_.reset(new std::byte[per_call * room]);  // uninitialized: unused parts take no memory
}

ANYIO_NET_FN void batch_source::ask_for_segments(datagram_resource& socket) {
  asked_for_segments_ = true;
  int value = 0;
  if (!has_pieces) return;
  // A kernel without this option would ignore the control message, and send all data in one datagram.
  if (read_option(socket.core().system(), socket.descriptor(), IPPROTO_UDP, udp_segment_option, value) < 0)
    return;
  segment_limit_ = largest_segmented;
}

// --- receiving

/// The size of the datagrams in a piece, from the message's control data; 0 if it has none.
inline std::size_t segment_of(const message& m) noexcept {
  msghdr header{};
  header.msg_control = m.control;
  header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = next_control(header, c)) {
    if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != udp_gro_option) continue;
    int size = 0;
    std::memcpy(&size, CMSG_DATA(c), sizeof size);
    return size > 0 ? static_cast<std::size_t>(size) : 0;
  }
  return 0;
}

/// Asks the kernel for up to `wanted` messages. Each goes to its slot. Bytes that do not fit there go to its
/// place in the memory, after the room for the slot's part. Returns the number of messages, or a negative
/// errno.
ANYIO_NET_FN int batch_source::fetch(datagram_resource& socket, std::size_t wanted, std::byte* slots,
                                     std::size_t stride) {
  message messages[per_call];
  ::iovec parts[per_call][2];
  std::size_t sizes[per_call];
  receive_control_room control[per_call];
  if (socket.exhausted[read_side]) return -EAGAIN;
  wanted = std::min(wanted, per_call);
  const bool takes_control = memory_ || format_ != nullptr;
  const std::size_t slot_size = std::min(stride, room);
  for (std::size_t i = 0; i < wanted; ++i) {
    parts[i][0] = {slots + i * stride, slot_size};
    std::size_t used = 1;
    if (memory_ && slot_size < room) {
      if (slot_size == 0) used = 0;
      parts[i][used++] = {memory_of(i) + slot_size, room - slot_size};
    }
    messages[i].parts = slice<const ::iovec>(parts[i], used);
    messages[i].address = pieces_[i].from.get();
    messages[i].address_size = sizeof pieces_[i].from.storage;
    if (!takes_control) continue;
    messages[i].control = control[i].bytes;
    messages[i].control_size = sizeof control[i].bytes;
  }
  bool emptied = false;
  const int n =
      batches_of(socket.core().system())
          .receive_messages(socket.descriptor(), slice(messages, wanted), slice(sizes, wanted), emptied);
  const bool nothing = n == -EAGAIN || n == 0;
  if (emptied || nothing) socket.exhausted[read_side] = true;
  if (nothing) return -EAGAIN;
  std::size_t bytes = 0;
  for (std::size_t i = 0; n > 0 && i < static_cast<std::size_t>(n); ++i) {
    piece& p = pieces_[i];
    p.size = sizes[i];
    bytes += p.size;
    p.segment = memory_ ? segment_of(messages[i]) : 0;
    if (p.segment >= p.size) p.segment = 0;
    p.used = 0;
    p.from.size = messages[i].address_size;
    p.truncated = (messages[i].flags & MSG_TRUNC) != 0;
  }
  if (format_ != nullptr && n > 0) read_infos(slice(messages, static_cast<std::size_t>(n)));
  // A message in a batch costs about half as much as a call of its own.
  socket.core().count_work(bytes, 1 + static_cast<std::size_t>(std::max(n, 0)) / 2);
  return n;
}

/// Keeps the fetched messages as left-over pieces: copies the parts in the slots to the other parts.
ANYIO_NET_FN void batch_source::keep_pieces(std::size_t count, const std::byte* slots, std::size_t stride) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t in_slot = std::min(pieces_[i].size, std::min(stride, room));
    if (slots != nullptr && in_slot != 0) std::memcpy(memory_of(i), slots + i * stride, in_slot);
  }
  first_ = 0;
  count_ = count;
}

ANYIO_NET_FN std::span<const std::byte> batch_source::next(arrival& out) {
  piece& p = pieces_[first_];
  const std::size_t rest = p.size - p.used;
  const std::size_t size = p.segment != 0 ? std::min(p.segment, rest) : rest;
  const std::span<const std::byte> data(memory_of(first_) + p.used, size);
  p.used += size;
  out.size = size;
  out.from = p.from;
  out.truncated = p.truncated && p.used == p.size;
  if (p.used == p.size) ++first_;
  return data;
}

ANYIO_NET_COLD void batch_source::read_infos(slice<const message> messages) noexcept {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    infos_[i] = packet_info();
    format_->read(messages[i], infos_[i]);
  }
}

/// Passes the information of the first pieces to the last datagrams of a batch.
ANYIO_NET_COLD void batch_source::hand_over_infos(udp_batch& batch, std::size_t count) const noexcept {
  for (std::size_t i = 0; i < count; ++i) batch.entries()[batch.size_ - count + i].info = infos_[i];
  batch.format_ = format_;
  batch.received_ = batch.size_;
}

ANYIO_NET_FN void batch_source::fill(udp_batch& batch) {
  const bool has_infos = format_ != nullptr;
  while (has_left_over() && batch.size_ < batch.capacity_) {
    const std::size_t from = first_;
    arrival one;
    const std::span<const std::byte> data = next(one);
    const std::size_t size = std::min(data.size(), batch.max_size_);
    if (size != 0) std::memcpy(batch.slot(batch.size_), data.data(), size);
    batch.append(size, one.from.endpoint(), one.truncated || data.size() > size);
    if (has_infos) batch.entries()[batch.size_ - 1].info = infos_[from];
  }
  if (has_infos) hand_over_infos(batch, 0);
}

ANYIO_NET_FN int batch_source::receive(datagram_resource& socket, slice<const ::iovec> into, arrival& out) {
  if (!has_left_over()) {
    if (deferred_ != 0) return detail::exchange(deferred_, 0);
    if (!memory_) {
      message m{into};
      if (format_ == nullptr) return socket.receive_message(m, out);
      receive_control_room control;
      m.control = control.bytes;
      m.control_size = sizeof control.bytes;
      const int status = socket.receive_message(m, out);
      if (status < 0) return status;
      read_infos(slice(&m, 1));
      out.info = &infos_[0];
      return 0;
    }
    const int n = fetch(socket, 1, nullptr, 0);
    if (n < 0) return n;
    first_ = 0;
    count_ = 1;
  }
  if (format_ != nullptr) out.info = &infos_[first_];
  std::span<const std::byte> data = next(out);
  out.size = 0;
  for (const ::iovec& part : into) {
    const std::size_t size = std::min(part.iov_len, data.size());
    if (size != 0) std::memcpy(part.iov_base, data.data(), size);
    data = data.subspan(size);
    out.size += size;
  }
  if (!data.empty()) out.truncated = true;
  return 0;
}

ANYIO_NET_FN int batch_source::receive_batch(datagram_resource& socket, udp_batch& batch) {
  if (has_left_over()) {
    batch.clear();
    fill(batch);
    return 0;
  }
  if (deferred_ != 0) return detail::exchange(deferred_, 0);
  if (!asked_for_pieces_) ask_for_pieces(socket);
  for (std::size_t have = 0;;) {
    const std::size_t wanted = std::min(batch.capacity_ - have, expected_);
    const int n = fetch(socket, wanted, batch.slot(have), batch.max_size_);
    if (n < 0) {
      if (have == 0) return n;
      if (n != -EAGAIN) deferred_ = n;
      return 0;
    }
    if (have == 0) batch.clear();
    const auto count = static_cast<std::size_t>(n);
    expected_ = std::min(std::max(2 * count, fewest_expected), per_call);
    bool in_segments = false;
    for (std::size_t i = 0; i < count; ++i) in_segments |= pieces_[i].segment != 0;
    if (in_segments) {
      keep_pieces(count, batch.slot(have), batch.max_size_);
      fill(batch);
      return 0;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const piece& p = pieces_[i];
      const std::size_t size = std::min(p.size, batch.max_size_);
      batch.append(size, p.from.endpoint(), p.truncated || p.size > size);
    }
    if (format_ != nullptr) hand_over_infos(batch, count);
    have += count;
    if (count < wanted || have == batch.capacity_ || have >= most_of_attempt) return 0;
  }
}

// --- sending

ANYIO_NET_FN std::size_t batch_source::run_length(const udp_batch& batch, std::size_t i,
                                                  bool connected) const noexcept {
  const udp_batch::entry& first = batch[i];
  const std::size_t segment = first.data.size();
  if (segment == 0 || segment > segment_limit_) return 1;
  std::size_t total = segment;
  std::size_t n = 1;
  while (i + n < batch.size() && n < most_segments) {
    const udp_batch::entry& other = batch[i + n];
    const std::size_t size = other.data.size();
    if (size == 0 || size > segment || total + size > largest_segmented) break;
    if (!connected && other.sender != first.sender) break;
    if (batch.format_ != nullptr && !(batch.info_to_send(i) == batch.info_to_send(i + n))) break;
    total += size;
    ++n;
    if (size < segment) break;  // only the last one may be shorter
  }
  return n;
}

/// Whether a send may have failed because it was a piece; the limit of the socket is lowered then.
inline bool refuses_pieces(int status) noexcept {
  return status == -EINVAL || status == -EMSGSIZE || status == -EIO || status == -EOPNOTSUPP ||
         status == -ENOPROTOOPT;
}

ANYIO_NET_FN int batch_source::send_batch(datagram_resource& socket, const udp_batch& batch,
                                          std::size_t& sent) {
  constexpr std::size_t most_parts = 256;
  if (!asked_for_segments_) ask_for_segments(socket);
  message messages[per_call];
  ::iovec parts[most_parts];
  std::size_t runs[per_call];
  socket_address addresses[per_call];
  control_room control[per_call];
  traffic_classes classes;
  std::size_t limit_before = 0;  // of pieces, before a piece was refused
  const std::size_t before = sent;
  const std::size_t all = batch.size();
  while (sent < all) {
    if (socket.exhausted[write_side]) return -EAGAIN;
    std::size_t count = 0;
    std::size_t used = 0;
    for (std::size_t i = sent; i < all && count < per_call; ++count) {
      const std::size_t run = run_length(batch, i, socket.connected());
      if (used + run > most_parts) break;
      for (std::size_t k = 0; k < run; ++k) {
        const std::span<const std::byte> data = batch[i + k].data;
        parts[used + k] = {const_cast<std::byte*>(data.data()), data.size()};
      }
      message& m = messages[count];
      m = message{};
      m.parts = slice<const ::iovec>(parts + used, run);
      if (!socket.connected()) {
        addresses[count].set(batch[i].sender, socket.family());
        m.address = addresses[count].get();
        m.address_size = addresses[count].size;
      }
      if (run > 1) {
        m.control = control[count].bytes;
        const auto segment = static_cast<std::uint16_t>(batch[i].data.size());
        append_control(m, IPPROTO_UDP, udp_segment_option, &segment, sizeof segment);
      }
      if (batch.format_ != nullptr) {
        m.control = control[count].bytes;
        const ip_endpoint& to =
            socket.connected() ? static_cast<const udp_resource&>(socket).remote : batch[i].sender;
        batch.format_->write(socket.core().system(), socket.descriptor(), batch.info_to_send(i), to.address,
                             classes, m);
      }
      runs[count] = run;
      used += run;
      i += run;
    }
    const int n = batches_of(socket.core().system())
                      .send_messages(socket.descriptor(), slice<const message>(messages, count));
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < used; ++i) bytes += parts[i].iov_len;
    socket.core().count_work(bytes, count);
    if (n == -EAGAIN || n == 0) {
      socket.exhausted[write_side] = true;
      return -EAGAIN;
    }
    if (n < 0) {
      if (runs[0] == 1 || !refuses_pieces(n)) {
        if (limit_before != 0) segment_limit_ = limit_before;  // it was not for being a piece
        return n;
      }
      limit_before = segment_limit_;
      // Too long for the path, or pieces are impossible there: such datagrams go one by one from here on.
      const bool too_long = n == -EINVAL || n == -EMSGSIZE;
      segment_limit_ = too_long ? batch[sent].data.size() - 1 : 0;
      continue;
    }
    limit_before = 0;
    for (int i = 0; i < n; ++i) sent += runs[i];
    if (sent < all && sent - before >= per_call && socket.core().share_spent()) return 1;
  }
  return 0;
}

}  // namespace detail

ANYIO_NET_FN errc receive_batch_operation::check() const noexcept {
  if (batch_ == nullptr || batch_->capacity() == 0 || batch_->max_size() == 0) return errc::invalid_argument;
  return resource_operation::check();
}

ANYIO_NET_FN bool receive_batch_operation::attempt(result<std::size_t>& out) {
  const int status = detail::batch_source::of(*resource_).receive_batch(*resource_, *batch_);
  if (status == -EAGAIN) return false;
  if (status < 0) return detail::complete(out, resource_->failure(status, name));
  return detail::complete(out, batch_->size());
}

ANYIO_NET_FN bool send_batch_operation::attempt(result<std::size_t>& out) {
  if (detail::exchange(restart_, false)) sent_ = 0;
  const int status = detail::batch_source::of(*resource_).send_batch(*resource_, *batch_, sent_);
  again = status == 1;
  if (again || status == -EAGAIN) return false;
  if (status < 0 && sent_ == 0) return detail::complete(out, resource_->failure(status, name));
  return detail::complete(out, sent_);
}

}}  // namespace anyio
