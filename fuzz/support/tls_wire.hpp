// How a TLS engine handles arbitrary bytes from the wire.
#pragma once

#if !defined(ANYIO_NET_MBEDTLS)
#error "the TLS targets need ANYIO_NET_MBEDTLS, and its libraries"
#endif

#include "anyio_net.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <utility>

#include "credentials.hpp"
#include "input.hpp"
#include "world.hpp"

// mbedTLS 2.28 begins the random bytes of a hello with the time from the C library, whatever its random
// source is. Here that is the simulation's beginning.
extern "C" std::time_t time(std::time_t* out) noexcept {
  constexpr std::time_t fixed = 1'800'000'000;
  if (out != nullptr) *out = fixed;
  return fixed;
}

namespace fuzz {

inline std::shared_ptr<anyio::tls_context> make_context() {
  auto made = anyio::mbedtls_context(
      {.ca_pem = certificate, .certificate_pem = certificate, .private_key_pem = private_key});
  FUZZ_CHECK(made.has_value());
  return std::move(*made);
}

inline std::unique_ptr<anyio::tls_engine> make_engine(anyio::tls_context& context, anyio::tls_pipe& pipe,
                                                      bool server_side) {
  auto engine = server_side ? context.server(pipe) : context.client(pipe, "fuzz.example");
  FUZZ_CHECK(engine != nullptr);
  return engine;
}

/// One engine's end, which checks the rules for every call.
class tls_end {
 public:
  tls_end(anyio::tls_context& context, bool server_side)
      : engine_(make_engine(context, pipe_, server_side)) {}
  tls_end(const tls_end&) = delete;
  tls_end& operator=(const tls_end&) = delete;

  anyio::tls_pipe pipe_;
  bool complete = false;
  bool failed = false;
  bool closed = false;  // the peer's close_notify has arrived
  bool truncated = false;
  std::string received;

  /// More bytes after the earlier ones, all of them: the bytes stay where they are.
  void give(std::span<const std::byte> all) {
    pipe_.rx = all.subspan(taken_);
    known_ = all.size();
  }
  /// Continues as far as it can with its input.
  void drive() {
    for (int idle = 0; !failed && !closed && !truncated;) {
      const std::size_t before = pipe_.rx.size();
      const std::size_t out = pipe_.tx.size();
      pipe_.starved = false;
      std::array<char, 300> room;
      std::size_t n = 0;
      FUZZ_CHECK(complete || !engine_->pending());
      const bool reads = complete;
      const anyio::tls_status status =
          reads ? engine_->read(anyio::mutable_buffer(room), n) : engine_->handshake();
      FUZZ_CHECK(pipe_.rx.size() <= before);
      taken_ = known_ - pipe_.rx.size();
      FUZZ_CHECK(pipe_.tx.size() - out <= 40000);  // at most one flight
      switch (status) {
        case anyio::tls_status::ok:
          if (!reads) {
            complete = true;
            continue;
          }
          FUZZ_CHECK(n >= 1 && n <= room.size());
          received.append(room.data(), n);
          continue;
        case anyio::tls_status::again:
          idle = pipe_.rx.size() == before ? idle + 1 : 0;
          FUZZ_CHECK(idle < 100);
          continue;
        case anyio::tls_status::want_input:
          FUZZ_CHECK(pipe_.starved || pipe_.rx.empty());
          FUZZ_CHECK(!pipe_.rx_eof);
          return;
        case anyio::tls_status::closed: closed = true; return;
        case anyio::tls_status::truncated:
          FUZZ_CHECK(pipe_.rx_eof);
          truncated = true;
          return;
        case anyio::tls_status::failed:
          failed = true;
          FUZZ_CHECK(!engine_->last_error().empty());
          return;
      }
    }
  }
  [[nodiscard]] std::size_t taken() const noexcept { return taken_; }
  anyio::tls_engine& engine() noexcept { return *engine_; }

 private:
  std::unique_ptr<anyio::tls_engine> engine_;
  std::size_t taken_ = 0;
  std::size_t known_ = 0;
};

/// The input's bytes for an engine, in pieces whose size is the first byte.
inline anyio::task<> attack(input in, bool server_side) {
  const auto context = make_context();
  tls_end end(*context, server_side);
  const std::size_t step = in.byte();
  const auto rest = in.take(in.size());
  const auto wire = std::make_unique<std::byte[]>(rest.size());
  std::transform(rest.begin(), rest.end(), wire.get(), [](std::uint8_t b) { return std::byte{b}; });
  end.drive();
  FUZZ_CHECK(!end.complete && !end.failed);
  for (std::size_t given = 0; given < rest.size() && !end.failed && !end.closed;) {
    given = step == 0 ? rest.size() : std::min(rest.size(), given + step);
    end.give(std::span<const std::byte>(wire.get(), given));
    end.drive();
    FUZZ_CHECK(end.complete || end.received.empty());
    FUZZ_CHECK(end.pipe_.tx.size() <= 20000 + 100 * end.taken());
    FUZZ_CHECK(end.received.size() <= end.taken());
  }
  end.pipe_.rx_eof = true;
  end.drive();
  FUZZ_CHECK(end.failed || end.closed || end.truncated);
  co_return;
}

inline void attack_engine(const std::uint8_t* data, std::size_t size, bool server_side) {
  check(anyio::sim::run(new_options(), attack(input(data, size), server_side)));
}

}  // namespace fuzz
