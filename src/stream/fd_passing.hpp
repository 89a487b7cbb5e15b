// Passing descriptors over UNIX streams.
//
// Descriptors are sent as control data with bytes (unix(7), SCM_RIGHTS): attached to the first chunk of a
// message and never sent again after a short write. Received descriptors get an owner before anything else
// happens, and there is always room for as many as the kernel passes at once, so that none can leak. This
// part must not know how a connection was made.
#pragma once

#include "base/config.hpp"
#include "operation/resource_operation.hpp"
#include "stream/socket.hpp"
#include "system/unique_fd.hpp"

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

inline constexpr std::size_t max_fds_of_message = 253;  // SCM_MAX_FD of Linux

/// Receives bytes, and the descriptors that come with them, as many as fit in the capacity of `fds`. Without
/// room for bytes it receives only descriptors. `size` is the room that the caller has, which may be larger
/// than `room`. If not all descriptors fit, the outcome is `fds_truncated`.
[[nodiscard]] progress receive_with_fds(socket_resource& from, mutable_buffer room, std::size_t size,
                                        const char* name, std::vector<unique_fd>& fds,
                                        result<std::size_t>& out);

}  // namespace detail

/// Received bytes, and the descriptors that came with them.
class fd_message {
 public:
  fd_message() = default;
  /// Constructs a message from its bytes and its descriptors.
  fd_message(std::string bytes, std::vector<unique_fd> descriptors)
      : data(std::move(bytes)), fds(std::move(descriptors)) {}

  std::string data;            ///< the bytes; empty only if `max_bytes` was 0
  std::vector<unique_fd> fds;  ///< the descriptors in the order of sending; closed unless taken
};

/// The operation that `unix_stream::send_fds` returns.
class [[nodiscard]] send_fds_operation
    : public detail::resource_operation<send_fds_operation, void, detail::socket_resource,
                                        detail::write_side> {
 public:
  static constexpr const char* name = "send_fds";
  send_fds_operation() = default;
  send_fds_operation(detail::ref<detail::socket_resource> r, const_buffer message, std::span<const int> fds)
      : resource_operation(std::move(r)), message_(message), fds_(fds) {}

 private:
  friend class detail::operation<send_fds_operation, void>;

  [[nodiscard]] errc check() const noexcept;
  bool attempt(result<void>& out);
  void left() noexcept { sent_ = 0; }
  ssize_t send_first();

  const_buffer message_;
  std::span<const int> fds_;
  std::size_t sent_ = 0;
};

/// The operation that `unix_stream::receive_fds` returns.
class [[nodiscard]] receive_fds_operation
    : public detail::resource_operation<receive_fds_operation, fd_message, detail::socket_resource,
                                        detail::read_side> {
 public:
  static constexpr const char* name = "receive_fds";
  receive_fds_operation() = default;
  receive_fds_operation(detail::ref<detail::socket_resource> r, std::size_t max_bytes, std::size_t max_fds)
      : resource_operation(std::move(r)), max_bytes_(max_bytes), max_fds_(max_fds) {}

 private:
  friend class detail::operation<receive_fds_operation, fd_message>;

  [[nodiscard]] errc check() const noexcept {
    return max_fds_ == 0 ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<fd_message>& out);

  std::size_t max_bytes_ = 0;
  std::size_t max_fds_ = 0;
};

}}  // namespace anyio
