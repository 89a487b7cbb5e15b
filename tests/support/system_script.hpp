// Scripts of system calls, which run on a backend and record the result of each call, in texts that do not
// depend on numbers the system chose. So the simulated network can be compared with the machine's own.
//
// Any bytes are a script. A descriptor is named by its slot, a port or a path by its index. After every call
// the runner lets everything happen that can, and records what has become ready: a missing edge is a
// difference too.
#pragma once

#include "anyio_net.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace support {

enum class socket_kind : std::uint8_t { tcp4, tcp6, udp4, udp6, unix_stream, unix_datagram };

/// Where to bind, connect or send to: for an IP socket the loopback or any address with a port, for a UNIX
/// socket a path (`port`), which is abstract if `host` is not 0.
struct place {
  std::uint8_t host = 0;  // 0: loopback, 1: any, 2: mapped IPv4 loopback for IPv6, 127.0.0.2 for IPv4
  std::uint8_t port = 0;  // 0 to 2: the same port each time; 3: any free port
};

/// One call.
struct system_op {
  enum class call : std::uint8_t {
    open,
    pair,
    bind,
    listen,
    connect,
    accept,
    send,
    receive,
    shutdown,
    close,
    send_to,
    receive_from,
    pass,
    take,
    set_option,
    get_option,
    local_address,
    remote_address,
    peek,
    unlink,
    connected_pair,
    count
  };
  static constexpr std::uint8_t pass_anything = 128;

  call what = call::close;
  std::uint8_t a = 0;  // a slot
  std::uint8_t b = 0;  // another slot, or the host of a place, or a kind or number
  std::uint8_t c = 0;  // the port of a place, or a value; from pass_anything on UNIX sockets may be passed
  std::uint16_t size = 0;
};

inline constexpr std::size_t slots_of_script = 6;

[[nodiscard]] std::vector<system_op> parse_script(std::span<const std::uint8_t> bytes);
/// The script as text, one call a line.
[[nodiscard]] std::string to_string(const system_op& op);

/// Runs a script. Paths are in the directory, which exists only for the machine's own backend; `patience` is
/// how long to wait after each call for late events.
[[nodiscard]] std::vector<std::string> run_script(anyio::backend& system, std::span<const system_op> script,
                                                  const std::string& folder,
                                                  anyio::duration patience = anyio::duration::zero());

/// Runs it on the simulated network and, with paths in a directory, on the machine: there once more and with
/// more patience if they differ. Empty if both results are equal, else a report of both.
[[nodiscard]] std::string compare_with_system(std::span<const system_op> script, const std::string& folder,
                                              anyio::duration patience = std::chrono::milliseconds(3));

}  // namespace support
