// TLS over any byte stream: the driver of an engine.
//
// The driver reads ahead into one queue, calls the engine, sends after every call the bytes that the engine
// left in the pipe, and waits only when the engine was starved. Engine calls never wait, so a reader and a
// writer can meet only at the transport, where each has its own side. If the transport is full, bytes that a
// reader's call left are sent in the background. Data that the engine took is whole in the outgoing queue, so
// a cancelled send leaves the stream usable. This part must not know a TLS library, or sockets.
#pragma once

#include "base/address.hpp"
#include "base/buffer.hpp"
#include "base/byte_queue.hpp"
#include "base/config.hpp"
#include "base/result.hpp"
#include "base/standard.hpp"
#include "loop/loop.hpp"
#include "operation/operation.hpp"
#include "stream/relay.hpp"
#include "stream/stream.hpp"
#include "tls/engine/tls.hpp"

#include <string>
#include <string_view>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

class tls_stream;
class tls_wrap_operation;

/// The result of `tls_stream::unwrap`: the stream below, and the bytes that followed the end of TLS.
class tls_unwrapped {
 public:
  tls_unwrapped() = default;
  /// Constructs from both parts.
  tls_unwrapped(std::unique_ptr<byte_stream> stream, std::string rest)
      : transport(std::move(stream)), leftover(std::move(rest)) {}

  std::unique_ptr<byte_stream> transport;  ///< the stream below, open
  std::string leftover;                    ///< bytes received after the peer's close_notify
};

namespace detail {

class tls_resource final : public stream_resource {
 public:
  tls_resource(std::unique_ptr<byte_stream> transport, std::shared_ptr<tls_context> context,
               bool standard_compatible) noexcept;
  ANYIO_NET_FN ~tls_resource() override;

  /// Returns false if the context makes no engine: a name or a certificate is missing.
  [[nodiscard]] bool make_engine(bool client, std::string_view server_name);
  progress handshake(result<void>& out);
  ANYIO_NET_FN progress receive(mutable_buffer into, result<std::size_t>& out) override;
  ANYIO_NET_FN progress send(outgoing& data, result<void>& out) override;
  ANYIO_NET_FN progress send_eof(result<void>& out) override;
  ANYIO_NET_FN progress finish() override;
  progress unwrap(result<tls_unwrapped>& out);
  ANYIO_NET_FN void withdrawn(side s) noexcept override;
  [[nodiscard]] int descriptor() const noexcept override { return inner_->descriptor(); }

  [[nodiscard]] tls_info info() const;
  /// Null after `unwrap`.
  [[nodiscard]] byte_stream* transport() const noexcept { return transport_.get(); }

  ip_endpoint remote;

 private:
  /// Sends what can be sent without waiting, before the transport is closed.
  void end_without_waiting();
  ANYIO_NET_FN void shut() noexcept override;

  template <class Verb>
  tls_status call(Verb verb);
  [[nodiscard]] bool engine_failed() const noexcept { return engine_failure_.code() != errc::ok; }
  [[nodiscard]] bool must_pull() const noexcept { return pipe_.starved || incoming_.empty(); }
  progress pull(side who, error& failure);
  progress pull_once(error& failure);
  progress flush(error& failure);
  void flush_soon();
  void say_goodbye();
  tls_status read(mutable_buffer into, std::size_t& n, progress& p, error& failure);
  error end_of_reading(tls_status status);
  static void on_readable(resource& r, bool cancelled);
  static void on_writable(resource& r, bool cancelled);

  std::unique_ptr<byte_stream> transport_;
  ref<stream_resource> inner_;
  std::shared_ptr<tls_context> context_;
  byte_queue incoming_;  // as received
  byte_queue held_;      // plaintext that `unwrap` received
  tls_pipe pipe_;
  std::unique_ptr<tls_engine> engine_;
  relay relays_[2];
  error read_failure_;    // permanent; end of stream too
  error write_failure_;   // permanent
  error engine_failure_;  // permanent: the engine must not be called again
  bool standard_compatible_;
  bool established_ = false;
  bool goodbye_said_ = false;  // the close_notify is sent, or queued
  bool reader_awaits_flush_ = false;
  bool writer_awaits_input_ = false;
};

}  // namespace detail

namespace detail {

/// The operation that `tls_stream::unwrap` returns.
class [[nodiscard]] tls_unwrap_operation : public operation<tls_unwrap_operation, tls_unwrapped> {
 public:
  static constexpr const char* name = "unwrap";
  tls_unwrap_operation() = default;
  explicit tls_unwrap_operation(ref<tls_resource> r) noexcept : operation(true), resource_(std::move(r)) {}
  tls_unwrap_operation(tls_unwrap_operation&&) = default;
  tls_unwrap_operation& operator=(tls_unwrap_operation&& other) noexcept;
  ~tls_unwrap_operation() { left(); }

 private:
  friend class operation<tls_unwrap_operation, tls_unwrapped>;

  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] errc enter() noexcept;
  bool attempt(result<tls_unwrapped>& out);
  void left() noexcept;
  void refresh() noexcept;
  [[nodiscard]] loop_core& home() const;
  [[nodiscard]] int descriptor() const noexcept { return resource_ ? resource_->descriptor() : -1; }

  ref<tls_resource> resource_;
};

}  // namespace detail

/// An encrypted byte stream over another byte stream. `wrap_client`, `wrap_server`, `connect_tls` and
/// `tls_listener` make it.
///
/// At the peer's close_notify `receive` raises `end_of_stream`. A connection that ends without one raises
/// `broken_resource`, or `end_of_stream` if the stream was made with `standard_compatible = false`. An
/// invalid record raises `tls`, and ends the stream. `send_eof` sends a close_notify under TLS 1.3, and
/// raises `not_supported` under 1.2. `close`, `aclose` and the destructor send a close_notify, unless
/// `standard_compatible` is false, and close the stream below; `close` and the destructor do not wait.
///
/// `close` and the destructor can lose sent data if the peer sends anything later: the kernel resets a
/// connection that receives data after close. Under TLS 1.3 servers send tickets unasked (a `tls_listener` of
/// this library only with its data). `aclose` loses nothing.
class tls_stream : public byte_stream {
 public:
  tls_stream() = default;

  /// Begins TLS as a client. It needs a `server_name` (`invalid_argument` without), unless the context
  /// verifies no server. Nothing else may use the transport; before STARTTLS, make sure that no cleartext
  /// input is buffered. Raises `tls` if the handshake fails, `timed_out` if it takes too long,
  /// `broken_resource` if the connection ends during the handshake; then the transport is closed.
  [[nodiscard]] static tls_wrap_operation wrap_client(std::unique_ptr<byte_stream> transport,
                                                      std::shared_ptr<tls_context> context,
                                                      tls_options options = {});
  /// Begins TLS as a server, whose context needs a certificate (`invalid_argument` without). Transport and
  /// other errors are as for `wrap_client`.
  [[nodiscard]] static tls_wrap_operation wrap_server(std::unique_ptr<byte_stream> transport,
                                                      std::shared_ptr<tls_context> context,
                                                      tls_options options = {});

  /// The parameters that the handshake agreed on; remembered after closing.
  [[nodiscard]] tls_info info() const { return resource_ ? own().info() : tls_info(); }
  /// Ends TLS, but not the connection: exchanges close_notify with the peer and returns the stream below. No
  /// receive or send may be pending. If the peer sent data that was not received, fails with `tls` and loses
  /// nothing: then receive until the end of the stream, and unwrap again.
  [[nodiscard]] detail::tls_unwrap_operation unwrap() {
    return detail::tls_unwrap_operation(
        detail::ref<detail::tls_resource>(static_cast<detail::tls_resource*>(resource_.get())));
  }
  /// The stream below, which this stream still owns. There must be one: a stream that was default-constructed
  /// or unwrapped has none.
  [[nodiscard]] byte_stream& transport() const noexcept {
    ANYIO_NET_ASSERT(resource_ && own().transport() != nullptr && "this stream has no transport");
    return *own().transport();
  }
  /// The peer's address if the innermost stream is a TCP connection; remembered after either end has closed.
  [[nodiscard]] ip_endpoint remote_endpoint() const noexcept {
    return resource_ ? own().remote : ip_endpoint();
  }
  [[nodiscard]] ANYIO_NET_FN socket_stream* socket() noexcept override;

 private:
  friend class tls_wrap_operation;
  explicit tls_stream(detail::ref<detail::tls_resource> r) noexcept : byte_stream(std::move(r)) {}
  [[nodiscard]] detail::tls_resource& own() const noexcept {
    return static_cast<detail::tls_resource&>(*resource_);
  }
};

/// The operation that `tls_stream::wrap_client` and `wrap_server` return: the handshake. If it fails or is
/// destroyed, it closes the transport.
class [[nodiscard]] tls_wrap_operation : public detail::operation<tls_wrap_operation, tls_stream> {
 public:
  static constexpr const char* name = "tls: handshake";
  tls_wrap_operation() = default;
  tls_wrap_operation(bool client, std::unique_ptr<byte_stream> transport,
                     std::shared_ptr<tls_context> context, const tls_options& options);
  tls_wrap_operation(tls_wrap_operation&&) = default;
  tls_wrap_operation& operator=(tls_wrap_operation&& other) noexcept;
  ~tls_wrap_operation() { left(); }

  /// The peer's address, if it is known already.
  ip_endpoint remote;

 private:
  friend class detail::operation<tls_wrap_operation, tls_stream>;

  [[nodiscard]] errc check() const noexcept;
  [[nodiscard]] errc enter() noexcept;
  bool attempt(result<tls_stream>& out);
  bool begin_handshake(result<tls_stream>& out);
  void left() noexcept;
  void refresh() noexcept;
  [[nodiscard]] detail::loop_core& home() const;
  [[nodiscard]] int descriptor() const noexcept { return resource_ ? resource_->descriptor() : -1; }
  void take_places() noexcept;

  std::unique_ptr<byte_stream> transport_;
  std::shared_ptr<tls_context> context_;
  std::string server_name_;
  detail::ref<detail::tls_resource> resource_;
  duration limit_{};
  detail::timer patience_;
  bool client_ = false;
  bool standard_compatible_ = true;
  bool timed_ = false;
};

inline tls_wrap_operation tls_stream::wrap_client(std::unique_ptr<byte_stream> transport,
                                                  std::shared_ptr<tls_context> context, tls_options options) {
  return {true, std::move(transport), std::move(context), options};
}

inline tls_wrap_operation tls_stream::wrap_server(std::unique_ptr<byte_stream> transport,
                                                  std::shared_ptr<tls_context> context, tls_options options) {
  return {false, std::move(transport), std::move(context), options};
}

}}  // namespace anyio
