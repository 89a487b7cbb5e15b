// Connecting to a TLS server by name. This part must not know a TLS library.
#pragma once

#include "base/config.hpp"
#include "base/standard.hpp"
#include "connection/connect.hpp"
#include "operation/operation.hpp"
#include "operation/part.hpp"
#include "tls/engine/tls.hpp"
#include "tls/tls_stream.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// The operation that `connect_tls` returns.
class [[nodiscard]] connect_tls_operation : public operation<connect_tls_operation, tls_stream> {
 public:
  static constexpr const char* name = "connect_tls";
  connect_tls_operation() = default;
  connect_tls_operation(std::string_view host, std::uint16_t port, std::shared_ptr<tls_context> context,
                        const tls_options& options, const tcp_connect_options& tcp_options);

 private:
  friend class operation<connect_tls_operation, tls_stream>;

  [[nodiscard]] errc check() const noexcept { return context_ ? errc::ok : errc::invalid_argument; }
  bool attempt(result<tls_stream>& out);
  void connected(result<tcp_stream>&& r) { connection_.hand_over(r, *this); }
  bool begin_handshake(result<tcp_stream>&& connection, result<tls_stream>& out);
  void shaken(result<tls_stream>&& r) { stream_.hand_over(r, *this); }
  void left() noexcept;
  void refresh() noexcept { last_ = true; }

  connect_tcp_operation connecting_;
  tls_wrap_operation shaking_;
  std::shared_ptr<tls_context> context_;
  std::string server_name_;
  tls_options options_;  // except its name, see `server_name_`
  bool begun_ = false;
  bool last_ = false;  // the handshake must try once more
  part_outcome<tcp_stream> connection_;
  part_outcome<tls_stream> stream_;
};

}  // namespace detail

/// Connects to a host, like `connect_tcp`, and begins TLS with it. `server_name` is the host unless the
/// options name another.
[[nodiscard]] inline detail::connect_tls_operation connect_tls(std::string_view host, std::uint16_t port,
                                                               std::shared_ptr<tls_context> context,
                                                               tls_options options = {},
                                                               tcp_connect_options tcp_options = {}) {
  return {host, port, std::move(context), options, tcp_options};
}

}}  // namespace anyio
