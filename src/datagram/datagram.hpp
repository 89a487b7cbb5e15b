// Datagram sockets: what UDP and UNIX ones have in common.
//
// A datagram is received or sent whole, in one call, in the moment in which it is handed over: nothing is
// read ahead, so a receive that is cancelled loses none. Both sides wait for the poller's next edge once a
// call had nothing to give. This part must not know families of addresses or names.
#pragma once

#include "base/buffer.hpp"
#include "base/config.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"
#include "stream/lent_bytes.hpp"
#include "system/backend.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A datagram as it came.
struct arrival {
  std::size_t size = 0;    // how much of it there is
  bool truncated = false;  // it was longer
  socklen_t from_size = 0;
  sockaddr_storage from;
};

class datagram_resource;

/// Stands between a socket and its user where the kernel gives several datagrams at a time. Once it is
/// there every datagram comes from it.
class datagram_source {
 public:
  datagram_source() = default;
  datagram_source(const datagram_source&) = delete;
  datagram_source& operator=(const datagram_source&) = delete;
  virtual ~datagram_source() = default;
  /// As `datagram_resource::receive`.
  virtual int receive(datagram_resource& socket, std::span<const ::iovec> into, arrival& out) = 0;
};

/// A descriptor of a datagram socket. A call gives 0, -EAGAIN when the poller will tell, or another
/// negative errno.
class datagram_resource : public resource {
 public:
  datagram_resource(loop_core& core, int family, bool connected) noexcept
      : resource(core), family_(family), connected_(connected) {}

  /// Takes the descriptor over; on failure it stays the caller's.
  [[nodiscard]] int watch(int fd);

  [[nodiscard]] int descriptor() const noexcept override { return place_.fd; }
  [[nodiscard]] int family() const noexcept { return family_; }
  [[nodiscard]] bool connected() const noexcept { return connected_; }

  [[nodiscard]] int receive(std::span<const ::iovec> into, arrival& out);
  [[nodiscard]] int receive_from_kernel(std::span<const ::iovec> into, arrival& out);
  /// All of it, or -EMSGSIZE where a sender was allowed more than anybody makes room for.
  [[nodiscard]] int receive_text(std::string& text, arrival& out);
  /// Without an address to whom it is connected.
  [[nodiscard]] int send(const_buffer data, const sockaddr* to, socklen_t size);
  /// What a failed call means.
  [[nodiscard]] error failure(int status, const char* operation) const noexcept;

  std::unique_ptr<datagram_source> source;

 protected:
  ANYIO_NET_FN void shut() noexcept override;

 private:
  registration place_;
  int family_;
  bool connected_;
  std::unique_ptr<std::byte[]> room_;  // of a UNIX socket, whose datagrams are longer than the loop's buffer
};

/// The base of operations that give a datagram as an object of its own. Derived makes a T of it.
template <class Derived, class T>
class datagram_receive : public resource_operation<Derived, T, datagram_resource, read_side> {
  using base = resource_operation<Derived, T, datagram_resource, read_side>;

 public:
  static constexpr const char* name = "receive";
  using base::base;

 private:
  friend class operation<Derived, T>;

  bool attempt(result<T>& out) {
    if (!this->resource_->open()) {
      out = this->closed();
      return true;
    }
    std::string text;
    arrival one;
    const int status = this->resource_->receive_text(text, one);
    if (status == -EAGAIN) return false;
    if (status < 0) {
      out = this->resource_->failure(status, name);
    } else {
      out = Derived::make(std::move(text), one);
    }
    return true;
  }
};

/// The same into a buffer of the caller's.
template <class Derived, class T>
class datagram_receive_into : public resource_operation<Derived, T, datagram_resource, read_side> {
  using base = resource_operation<Derived, T, datagram_resource, read_side>;

 public:
  static constexpr const char* name = "receive";
  datagram_receive_into() = default;
  datagram_receive_into(ref<datagram_resource> r, mutable_buffer into) noexcept
      : base(std::move(r)), into_(into) {}

 private:
  friend class operation<Derived, T>;
  friend base;

  [[nodiscard]] errc check() const noexcept { return into_.empty() ? errc::invalid_argument : base::check(); }
  bool attempt(result<T>& out) {
    if (!this->resource_->open()) {
      out = this->closed();
      return true;
    }
    const ::iovec part{into_.data(), into_.size()};
    arrival one;
    const int status = this->resource_->receive(std::span(&part, 1), one);
    if (status == -EAGAIN) return false;
    if (status < 0) {
      out = this->resource_->failure(status, name);
    } else {
      out = Derived::make(one);
    }
    return true;
  }

  mutable_buffer into_;
};

/// The base of sends. Derived has `bool transfer(result<void>&)`, one try. It begins inside `start`, so that
/// a view of the loop's buffer can be given to it; what has to wait is copied out of there.
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
  friend base;

  bool attempt(result<void>& out) {
    if (!this->resource_->open()) {
      out = this->closed();
      return true;
    }
    if (over_) {
      out = outcome_.code() == errc::ok ? result<void>() : result<void>(outcome_);
      return true;
    }
    if (static_cast<Derived*>(this)->transfer(out)) return true;
    keep_loan();
    return false;
  }
  void started() {
    if (this->early != errc::ok) return;
    result<void> out;
    if (!attempt(out)) return;
    over_ = true;
    outcome_ = out.error();
  }
  void left() noexcept {
    base::left();
    over_ = false;
  }
  /// The outcome of a call; false: it has to wait.
  bool settle(int status, result<void>& out) {
    if (status == -EAGAIN) return false;
    if (status < 0) {
      out = this->resource_->failure(status, Derived::name);
    } else {
      out = result<void>();
    }
    return true;
  }

  lent_bytes bytes_;

 private:
  [[no_unique_address]] error outcome_;
  bool over_ = false;  // all happened in `started`, and is yet to be told
};

}  // namespace detail

/// What every datagram socket has. One task may receive and one may send at a time; a default-constructed
/// or moved-from socket is closed; destroying one closes it at once. No error ends a socket. A shortage of
/// memory in the system is `os_error` with ENOBUFS or ENOMEM; only a full queue of a UNIX socket, which is
/// ENOBUFS on macOS and the BSDs, is waited for.
class datagram_socket {
 public:
  datagram_socket(datagram_socket&&) noexcept = default;
  datagram_socket& operator=(datagram_socket&& other) noexcept {
    if (this == &other) return *this;
    close();
    resource_ = std::move(other.resource_);
    return *this;
  }

  /// Whether it is open.
  explicit operator bool() const noexcept { return resource_ && resource_->open(); }
  /// The descriptor, which stays the socket's; -1 once closed.
  [[nodiscard]] int native_handle() const noexcept { return *this ? resource_->descriptor() : -1; }

  /// setsockopt(2) with an int. Raises nothing: `os_error` with the errno, or `closed_resource`.
  result<> set_option(int level, int name, int value);
  /// getsockopt(2) of an int.
  result<int> get_option(int level, int name) const;

  /// Completes what waits with `errc::cancelled`, after one more attempt.
  void cancel() noexcept {
    if (resource_) resource_->cancel();
  }
  /// Closes; the descriptor is free when this returns. What waits ends with `closed_resource`. Again is a
  /// no-op.
  void close() noexcept {
    if (resource_) resource_->close();
  }

 protected:
  datagram_socket() = default;
  explicit datagram_socket(detail::ref<detail::datagram_resource> r) noexcept : resource_(std::move(r)) {}
  ~datagram_socket() { close(); }

  /// setsockopt(2) of anything.
  result<> set_raw_option(int level, int name, const void* value, socklen_t size, const char* operation);

  detail::ref<detail::datagram_resource> resource_;
};

}}  // namespace anyio
