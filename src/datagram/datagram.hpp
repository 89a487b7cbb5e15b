// Datagram sockets: the common part of UDP and UNIX sockets.
//
// A datagram is received or sent whole, in one call, at the moment in which it is handed over: nothing is
// read ahead, so a cancelled receive loses none. After a call that found no data or no room, each side waits
// for the poller's next edge. This part must not know address families or names.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/owned.hpp"
#include "base/result.hpp"
#include "base/slice.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "operation/resource_operation.hpp"
#include "stream/lent_bytes.hpp"
#include "system/backend.hpp"
#include "system/new_socket.hpp"

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

struct packet_info;

namespace detail {

/// The size and the sender of a received datagram.
struct arrival {
  std::size_t size = 0;               // number of bytes received
  bool truncated = false;             // the datagram was longer
  const packet_info* info = nullptr;  // null: none was received; valid until the next call
  socket_address from;
};

class datagram_resource;

/// Stands between a socket and its user where the kernel returns several datagrams per call. Once it exists,
/// every datagram is received through it.
class datagram_source {
 public:
  datagram_source() = default;
  datagram_source(const datagram_source&) = delete;
  datagram_source& operator=(const datagram_source&) = delete;
  virtual ~datagram_source() = default;
  /// Receives one datagram, like `datagram_resource::receive`.
  virtual int receive(datagram_resource& socket, slice<const ::iovec> into, arrival& out) = 0;
};

/// A descriptor of a datagram socket. A call returns 0, -EAGAIN if the poller will report progress, or
/// another negative errno.
class datagram_resource : public resource {
 public:
  datagram_resource(loop_core& core, int family, bool connected) noexcept
      : resource(core), family_(family), connected_(connected) {}

  /// Takes over the descriptor; on failure it stays the caller's.
  [[nodiscard]] int watch(int fd);

  [[nodiscard]] int descriptor() const noexcept override { return registration_.fd; }
  [[nodiscard]] int family() const noexcept { return family_; }
  [[nodiscard]] bool connected() const noexcept { return connected_; }

  [[nodiscard]] int receive(slice<const ::iovec> into, arrival& out);
  /// Receives a message from the kernel, and its sender; the message may have room for control data.
  [[nodiscard]] int receive_message(message& m, arrival& out);
  /// Receives a whole datagram. Returns -EMSGSIZE if it is longer than the room for it, which raised limits
  /// of the system allow.
  [[nodiscard]] int receive_text(std::string& text, arrival& out);
  /// Sends one datagram; a null `to` means the connected peer.
  [[nodiscard]] int send(const_buffer data, const sockaddr* to, socklen_t size);
  /// Sends one datagram that has control data.
  [[nodiscard]] int send_message(const message& m);
  /// Room for one datagram of `size` bytes, or of any size: the loop's buffer, or for a UNIX socket a larger
  /// one of its own.
  [[nodiscard]] mutable_buffer room_for(std::size_t size);
  /// Connects to a peer in place of the former one, which may be the same. Returns 0 or a negative errno;
  /// then the socket stays connected to the former one, as far as the system allows.
  [[nodiscard]] int reconnect(const sockaddr* to, socklen_t size, const sockaddr* former,
                              socklen_t former_size);
  /// The error that a failed call means.
  [[nodiscard]] error failure(int status, const char* operation) const noexcept;

  owned<datagram_source> source;

 protected:
  ANYIO_NET_FN void shut() noexcept override;

 private:
  registration registration_;
  int family_;
  bool connected_;
  owned<std::byte[]> room_;  // for a UNIX socket: datagrams can be longer than the loop's buffer
};

/// Receives a datagram into a new object, which `make` makes of its bytes and its arrival.
template <auto make, class T = std::invoke_result_t<decltype(make), std::string&&, const arrival&>>
class [[nodiscard]] datagram_receive
    : public resource_operation<datagram_receive<make, T>, T, datagram_resource, read_side> {
  using base = resource_operation<datagram_receive, T, datagram_resource, read_side>;

 public:
  static constexpr const char* name = "receive";
  using base::base;

 private:
  friend class operation<datagram_receive, T>;

  bool attempt(result<T>& out) {
    std::string text;
    arrival one;
    const int status = this->resource_->receive_text(text, one);
    if (status == -EAGAIN) return false;
    if (status < 0) return complete(out, this->resource_->failure(status, name));
    return complete(out, make(std::move(text), one));
  }
};

/// Receives a datagram into a buffer of the caller; `make` makes the result of its arrival.
template <auto make, class T = std::invoke_result_t<decltype(make), const arrival&>>
class [[nodiscard]] datagram_receive_into
    : public resource_operation<datagram_receive_into<make, T>, T, datagram_resource, read_side> {
  using base = resource_operation<datagram_receive_into, T, datagram_resource, read_side>;

 public:
  static constexpr const char* name = "receive";
  datagram_receive_into() = default;
  datagram_receive_into(ref<datagram_resource> r, mutable_buffer into) noexcept
      : base(std::move(r)), into_(into) {}

 private:
  friend class operation<datagram_receive_into, T>;

  [[nodiscard]] errc check() const noexcept { return into_.empty() ? errc::invalid_argument : base::check(); }
  bool attempt(result<T>& out) {
    const ::iovec part{into_.data(), into_.size()};
    arrival one;
    const int status = this->resource_->receive(slice(&part, 1), one);
    if (status == -EAGAIN) return false;
    if (status < 0) return complete(out, this->resource_->failure(status, name));
    return result_access::complete_by(out, [&one] { return make(one); });
  }

  mutable_buffer into_;
};

/// The base of sends. Derived has `bool transfer(result<void>&)`, one try. The first try runs inside `start`,
/// so the data may be a view of the loop's buffer; it is copied from there if the send has to wait.
template <class Derived>
class datagram_send : public resource_operation<Derived, void, datagram_resource, write_side> {
  using base = resource_operation<Derived, void, datagram_resource, write_side>;

 public:
  datagram_send() = default;
  datagram_send(ref<datagram_resource> r, lent_bytes&& bytes) noexcept
      : base(std::move(r)), bytes_(std::move(bytes)) {}

  void keep_loan() {
    if (this->resource_) bytes_.keep(this->resource_->core());
  }

 protected:
  friend class operation<Derived, void>;

  bool attempt(result<void>& out) {
    if (found_.is_set()) return found_.get(out);
    if (static_cast<Derived*>(this)->transfer(out)) return true;
    keep_loan();
    return false;
  }
  void started() {
    result<void> out = result_access::room<void>();
    if (attempt(out)) found_.set(out);
  }
  [[nodiscard]] bool reports(result<void>& out) const noexcept {
    return found_.is_set() && this->resource_->open() && found_.get(out);
  }
  void left() noexcept { found_.clear(); }
  /// Sets the outcome of a call. Returns false if the send has to wait.
  bool settle(int status, result<void>& out) {
    if (status == -EAGAIN) return false;
    if (status < 0) return complete(out, this->resource_->failure(status, Derived::name));
    return result_access::succeed(out);
  }

  lent_bytes bytes_;

 private:
  [[no_unique_address]] found_outcome found_;
};

/// Makes the sockets that users hold, and finds what they hold.
struct datagram_access {
  template <class Socket, class Resource>
  static result<Socket> wrap(const result<ref<Resource>>& r) {
    if (!r) return r.error();
    return Socket(*r);
  }
  template <class Socket>
  static const ref<datagram_resource>& resource_of(const Socket& s) noexcept {
    return s.resource_;
  }
};

}  // namespace detail

/// The common base of all datagram sockets. One task may receive and one may send at a time. A
/// default-constructed or moved-from socket is closed; the destructor closes a socket at once. No error ends
/// a socket. A shortage of memory in the system is `os_error` with ENOBUFS or ENOMEM; of these, a send waits
/// only for a full queue of a UNIX socket, which is ENOBUFS on macOS and the BSDs.
class datagram_socket {
 public:
  datagram_socket(datagram_socket&&) noexcept = default;
  datagram_socket& operator=(datagram_socket&& other) noexcept {
    if (this == &other) return *this;
    close();
    resource_ = std::move(other.resource_);
    return *this;
  }

  /// Whether the socket is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }
  /// The descriptor, which stays the socket's; -1 once closed.
  [[nodiscard]] int native_handle() const noexcept { return *this ? resource_->descriptor() : -1; }

  /// Calls setsockopt(2) with an int. Returns errors and raises none: `os_error` with the errno, or
  /// `closed_resource`.
  result<> set_option(int level, int name, int value);
  /// Calls getsockopt(2) for an int. Returns errors and raises none.
  result<int> get_option(int level, int name) const;

  /// Completes pending operations with `errc::cancelled`, after one more attempt.
  void cancel() noexcept {
    if (resource_) resource_->cancel();
  }
  /// Closes the socket; the descriptor is free when this returns. Pending operations complete with
  /// `closed_resource`. Calling it again has no effect.
  void close() noexcept {
    if (resource_) resource_->close();
  }

 protected:
  datagram_socket() = default;
  explicit datagram_socket(detail::ref<detail::datagram_resource> r) noexcept : resource_(std::move(r)) {}
  ~datagram_socket() { close(); }

  detail::ref<detail::datagram_resource> resource_;
};

}}  // namespace anyio
