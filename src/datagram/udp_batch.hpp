// Many UDP datagrams per system call.
//
// A batch is one block of memory, for a number of datagrams of a maximum size. One operation fills or sends a
// batch, with few system calls. Where the kernel can pass a run of equal-sized datagrams in one piece
// (UDP_GRO, UDP_SEGMENT on Linux), it is asked to; elsewhere nothing else changes. Datagrams of a piece that
// do not fit into a batch stay with the socket until the next receive. This part must not know names.
#pragma once

#include "base/address.hpp"
#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/exchange.hpp"
#include "base/owned.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"
#include "datagram/datagram.hpp"
#include "datagram/udp_socket.hpp"
#include "operation/resource_operation.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {
class batch_source;
}

/// Datagrams to send, or received datagrams. Allocates once, on construction.
class udp_batch {
 public:
  /// One datagram: its bytes, which lie in the batch, and its sender, or its receiver if it is to be sent.
  struct entry {
    std::span<const std::byte> data{};  ///< lies in the batch
    ip_endpoint sender{};               ///< or the receiver, of a datagram to send
    bool truncated = false;             ///< the datagram was longer than `max_size`; the rest of it is lost
    packet_info info{};                 ///< see `set_packet_info`; no part of structured bindings
  };
  using value_type = entry;             ///< for ranges
  using const_iterator = const entry*;  ///< random access
  using iterator = const_iterator;      ///< entries change only by `push` and by receiving

  /// Room for `count` datagrams of at most `max_size` bytes each.
  explicit udp_batch(std::size_t count, std::size_t max_size = 2048);
  udp_batch(udp_batch&& other) noexcept
      : block_(std::move(other.block_)),
        capacity_(detail::exchange(other.capacity_, 0)),
        max_size_(other.max_size_),
        size_(detail::exchange(other.size_, 0)),
        format_(other.format_),
        received_(other.received_) {}
  udp_batch& operator=(udp_batch&& other) noexcept {
    block_ = std::move(other.block_);
    capacity_ = detail::exchange(other.capacity_, 0);
    max_size_ = other.max_size_;
    size_ = detail::exchange(other.size_, 0);
    format_ = other.format_;
    received_ = other.received_;
    return *this;
  }

  /// Appends a copy of a datagram. Returns false, and changes nothing, if the batch is full or the datagram
  /// is longer than `max_size`. A connected socket needs no address.
  bool push(const_buffer data, const ip_endpoint& to = {});
  /// Appends a copy of a datagram that goes from an address, by an interface and with marks of its own.
  /// Returns false also if the information cannot be sent: a number is out of range, or the address is of the
  /// other family.
  bool push(const_buffer data, const ip_endpoint& to, const packet_info& info);
  /// Removes all datagrams; the memory stays.
  void clear() noexcept {
    if (format_ != nullptr) forget_infos();
    size_ = 0;
  }

  /// The number of datagrams in the batch.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// Whether the batch holds no datagram.
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  /// The maximum number of datagrams.
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  /// The maximum size of a datagram, in bytes.
  [[nodiscard]] std::size_t max_size() const noexcept { return max_size_; }
  /// The i-th datagram, which must exist.
  [[nodiscard]] const entry& operator[](std::size_t i) const noexcept {
    ANYIO_NET_ASSERT(i < size_);
    return entries()[i];
  }
  /// The first datagram; valid until the batch changes.
  [[nodiscard]] const_iterator begin() const noexcept { return entries(); }
  /// One past the last datagram.
  [[nodiscard]] const_iterator end() const noexcept { return entries() + size_; }

 private:
  friend class detail::batch_source;

  [[nodiscard]] entry* entries() const noexcept {
    return static_cast<entry*>(static_cast<void*>(block_.get()));
  }
  /// The memory for the bytes of the i-th datagram.
  [[nodiscard]] std::byte* slot(std::size_t i) const noexcept {
    return block_.get() + capacity_ * sizeof(entry) + i * max_size_;
  }
  void append(std::size_t size, const ip_endpoint& sender, bool truncated) noexcept;
  void forget_infos() noexcept;
  /// The information with which the i-th datagram is sent. Of a received one only the address goes back: its
  /// marks were the sender's, and its hops are partly used up.
  [[nodiscard]] packet_info info_to_send(std::size_t i) const noexcept {
    packet_info info;
    if (i >= received_) return entries()[i].info;
    info.local = entries()[i].info.local;
    return info;
  }

  detail::owned<std::byte[]> block_;  // entries, then their bytes
  std::size_t capacity_ = 0;
  std::size_t max_size_ = 0;
  std::size_t size_ = 0;
  // Null: no entry in the block has packet information, so that nothing must be done about it.
  const detail::packet_info_format* format_ = nullptr;
  std::size_t received_ = 0;  // with packet information: how many were received; they are the first ones
};

namespace detail {

template <>
inline constexpr std::size_t bound_members<udp_batch::entry> = 3;

/// The state that a socket needs for batches, created when the first batch is used.
class batch_source final : public datagram_source {
 public:
  /// The batch source of a socket, created if it does not exist yet.
  static batch_source& of(datagram_resource& socket);

  ANYIO_NET_FN int receive(datagram_resource& socket, slice<const ::iovec> into, arrival& out) override;
  /// Returns 0 if at least one datagram was received.
  int receive_batch(datagram_resource& socket, udp_batch& batch);
  /// Sends from the `sent`-th datagram on. Returns 0 when all are sent, 1 when other tasks get a turn.
  int send_batch(datagram_resource& socket, const udp_batch& batch, std::size_t& sent);

  // --- packet information
  /// Makes room for it.
  void prepare_infos() {
    if (!infos_) infos_.reset(new packet_info[per_call]);
  }
  /// Sets how received messages hold it; null: they do not.
  void set_format(const packet_info_format* format) noexcept { format_ = format; }

 private:
  static constexpr std::size_t per_call = 32;
  static constexpr std::size_t fewest_expected = 4;
  static constexpr std::size_t most_of_attempt = 256;
  static constexpr std::size_t room = 65536;               // for one piece from the kernel
  static constexpr std::size_t largest_segmented = 65487;  // 65535, less the headers of IPv6 and UDP
  static constexpr std::size_t most_segments = 64;

  /// One piece from the kernel: datagrams of equal size, except the last one.
  struct piece {
    std::size_t size;
    std::size_t segment;  // size of the datagrams; 0: the piece is one datagram
    std::size_t used;
    bool truncated;
    socket_address from;
  };

  void ask_for_pieces(datagram_resource& socket);
  void ask_for_segments(datagram_resource& socket);
  int fetch(datagram_resource& socket, std::size_t wanted, std::byte* slots, std::size_t stride);
  void read_infos(slice<const message> messages) noexcept;
  void hand_over_infos(udp_batch& batch, std::size_t count) const noexcept;
  [[nodiscard]] bool has_left_over() const noexcept { return first_ < count_; }
  /// Takes the next datagram of the pieces that are left over.
  std::span<const std::byte> next(arrival& out);
  void fill(udp_batch& batch);
  void keep_pieces(std::size_t count, const std::byte* slots, std::size_t stride);
  [[nodiscard]] std::byte* memory_of(std::size_t i) const noexcept { return memory_.get() + i * room; }
  /// How many datagrams from the i-th on can be sent as one piece.
  [[nodiscard]] std::size_t run_length(const udp_batch& batch, std::size_t i, bool connected) const noexcept;

  owned<std::byte[]> memory_;   // `per_call` pieces, if the kernel can pass them
  owned<packet_info[]> infos_;  // of the pieces, once packet information was on
  const packet_info_format* format_ = nullptr;
  std::size_t first_ = 0;  // of the pieces that are left over
  std::size_t count_ = 0;
  std::size_t expected_ = per_call;  // how many messages to prepare for: unused ones also cost time
  std::size_t segment_limit_ = 0;    // datagrams up to this size may be sent as one piece
  int deferred_ = 0;                 // an error that followed delivered datagrams
  bool asked_for_pieces_ = false;
  bool asked_for_segments_ = false;
  piece pieces_[per_call];
};

}  // namespace detail

/// The operation that `receive_batch` returns.
class [[nodiscard]] receive_batch_operation
    : public detail::resource_operation<receive_batch_operation, std::size_t, detail::datagram_resource,
                                        detail::read_side> {
 public:
  static constexpr const char* name = "receive_batch";
  receive_batch_operation() = default;
  receive_batch_operation(detail::ref<detail::datagram_resource> r, udp_batch& batch) noexcept
      : resource_operation(std::move(r)), batch_(&batch) {}

 private:
  friend class detail::operation<receive_batch_operation, std::size_t>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<std::size_t>& out);
  udp_batch* batch_ = nullptr;
};

/// The operation that `send_batch` returns.
class [[nodiscard]] send_batch_operation
    : public detail::resource_operation<send_batch_operation, std::size_t, detail::datagram_resource,
                                        detail::write_side> {
 public:
  static constexpr const char* name = "send_batch";
  send_batch_operation() = default;
  send_batch_operation(detail::ref<detail::datagram_resource> r, const udp_batch& batch) noexcept
      : resource_operation(std::move(r)), batch_(&batch) {}

  /// How many datagrams were sent, also if the operation was cancelled, timed out, failed or found the socket
  /// closed. An operation that is started again counts from zero.
  [[nodiscard]] std::size_t sent() const noexcept { return sent_; }

 private:
  friend class detail::operation<send_batch_operation, std::size_t>;

  bool attempt(result<std::size_t>& out);
  void left() noexcept { restart_ = true; }
  const udp_batch* batch_ = nullptr;
  std::size_t sent_ = 0;
  bool restart_ = false;  // the next attempt is the first of a new send
};

inline receive_batch_operation udp_socket::receive_batch(udp_batch& batch) { return {resource_, batch}; }
inline send_batch_operation udp_socket::send_batch(udp_batch& batch) { return {resource_, batch}; }
inline receive_batch_operation connected_udp_socket::receive_batch(udp_batch& batch) {
  return {resource_, batch};
}
inline send_batch_operation connected_udp_socket::send_batch(udp_batch& batch) { return {resource_, batch}; }

}}  // namespace anyio

template <>
struct std::tuple_size<anyio::udp_batch::entry> : std::integral_constant<std::size_t, 3> {};
template <std::size_t I>
struct std::tuple_element<I, anyio::udp_batch::entry>
    : anyio::detail::bound_member<I, anyio::udp_batch::entry> {};
