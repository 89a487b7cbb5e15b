// Looking at a stream socket without taking anything: peeking, and waiting until it is ready.
//
// These operations wait in the place of the reader or the writer, like a receive or a send, so that a stream
// never has two of them. This part must not know what is done with the stream afterwards.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "operation/resource_operation.hpp"
#include "stream/socket.hpp"

#include <cstddef>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// The operation that `socket_stream::peek` returns.
class [[nodiscard]] peek_operation
    : public resource_operation<peek_operation, std::size_t, socket_resource, read_side> {
 public:
  static constexpr const char* name = "peek";
  peek_operation() = default;
  peek_operation(ref<socket_resource> r, mutable_buffer into)
      : resource_operation(std::move(r)), into_(into) {}

 private:
  friend class operation<peek_operation, std::size_t>;

  [[nodiscard]] errc check() const noexcept {
    return into_.empty() ? errc::invalid_argument : resource_operation::check();
  }
  bool attempt(result<std::size_t>& out);

  mutable_buffer into_;
};

/// Whether an operation on that side need not wait. Otherwise it is woken when it may look again. A negative
/// errno if the system does not tell.
[[nodiscard]] int look_at_readiness(socket_resource& r, side s);

/// The operation that `socket_stream::wait_readable` or `wait_writable` returns.
template <side Side>
class [[nodiscard]] readiness_operation
    : public resource_operation<readiness_operation<Side>, void, socket_resource, Side> {
  using base = resource_operation<readiness_operation, void, socket_resource, Side>;

 public:
  static constexpr const char* name = Side == read_side ? "wait_readable" : "wait_writable";
  readiness_operation() = default;
  explicit readiness_operation(ref<socket_resource> r) noexcept : base(std::move(r)) {}

 private:
  friend class operation<readiness_operation, void>;
  [[nodiscard]] errc check() const noexcept {
    const errc e = base::check();
    return e == errc::ok && Side == write_side && this->resource_->eof_sent() ? errc::closed_resource : e;
  }
  bool attempt(result<void>& out) {
    const int ready = look_at_readiness(*this->resource_, Side);
    if (ready == 0) return false;
    return complete(out, ready > 0 ? result<void>() : result<void>(error(errc::os_error, -ready, name)));
  }
};

}}}  // namespace anyio::detail
