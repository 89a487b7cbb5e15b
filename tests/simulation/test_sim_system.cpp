// The simulated network compared with the machine's: the same calls have the same results, as recorded by
// support/system_script. Linux only: the values and orders are Linux's unless stated otherwise.
//
// Known differences, which are left out of the comparison or recorded with the same text:
//
//   numbers of descriptors, ports that the kernel chooses     named by slot and index
//   EINPROGRESS                                               as success: what comes of it shows
//   TIME_WAIT                                                 there is none; TCP has SO_REUSEADDR on
//   Nagle's algorithm                                         there is none; TCP_NODELAY is on
//   sizes of buffers                                          scripts stay below them
//   a TCP socket after its connection, bound or connected     nobody does that: it is left out, and
//   IPV6_V6ONLY
//                                                             with it
//   a second connect of IPv6 UDP, to another family           the kernel mixes both; left out
//   binding a UNIX datagram socket after it has sent          the kernel gives the later name; left out
//   what a peek reports of descriptors behind its bytes       the kernel looks further than it was asked
//   sending without a peer through a shut UNIX datagram       ENOTCONN or EPIPE, by the kernel's version
//   SO_REUSEPORT of UNIX sockets                              refused since Linux 6.13; left out
//   UNIX sockets that are passed through one another          the kernel collects them; only where scripts of
//                                                             this file know that they are not
#include "support/system_script.hpp"

#include <doctest/doctest.h>
#include <netinet/in.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/effort.hpp"
#include "support/temp_dir.hpp"

#if defined(__linux__)

namespace {

using support::system_op;
using call = support::system_op::call;

constexpr std::uint8_t tcp4 = 0, tcp6 = 1, udp4 = 2, udp6 = 3, unix_stream = 4, unix_datagram = 5;
constexpr std::uint8_t loopback = 0, any = 1, mapped = 2, file = 0, abstract = 1;
constexpr std::uint8_t port_a = 0, port_b = 1, nobody = 2;
constexpr std::uint8_t so_error = 0, v6only = 7, linger = 9, keep_alive = 4;
constexpr std::uint8_t receiving = 0, sending = 1, both = 2;

// --- calls, by name

system_op open(std::uint8_t slot, std::uint8_t kind) { return {call::open, slot, kind}; }
system_op bind(std::uint8_t slot, std::uint8_t host, std::uint8_t port) {
  return {call::bind, slot, host, port};
}
system_op listen(std::uint8_t slot, std::uint8_t backlog) { return {call::listen, slot, 0, backlog}; }
system_op connect(std::uint8_t slot, std::uint8_t host, std::uint8_t port) {
  return {call::connect, slot, host, port};
}
system_op accept(std::uint8_t slot, std::uint8_t into) { return {call::accept, slot, into}; }
system_op send(std::uint8_t slot, std::uint16_t size) { return {call::send, slot, 0, 0, size}; }
system_op receive(std::uint8_t slot, std::uint16_t size) { return {call::receive, slot, 0, 0, size}; }
system_op peek(std::uint8_t slot, std::uint16_t size) { return {call::peek, slot, 0, 0, size}; }
system_op send_to(std::uint8_t slot, std::uint8_t host, std::uint8_t port, std::uint16_t size) {
  return {call::send_to, slot, host, port, size};
}
system_op receive_from(std::uint8_t slot, std::uint16_t size) {
  return {call::receive_from, slot, 0, 0, size};
}
system_op shutdown(std::uint8_t slot, std::uint8_t how) { return {call::shutdown, slot, 0, how}; }
system_op close(std::uint8_t slot) { return {call::close, slot}; }
system_op pass(std::uint8_t slot, std::uint8_t passed, std::uint16_t size, std::uint8_t count = 1) {
  return {call::pass, slot, passed, static_cast<std::uint8_t>(system_op::pass_anything + count - 1), size};
}
system_op take(std::uint8_t slot, std::uint8_t into, std::uint16_t size, std::uint8_t room) {
  return {call::take, slot, into, room, size};
}
system_op pair(std::uint8_t a, std::uint8_t b) { return {call::pair, a, b, 0}; }
system_op datagram_pair(std::uint8_t a, std::uint8_t b) { return {call::pair, a, b, 1}; }
system_op tcp_pair(std::uint8_t a, std::uint8_t b, bool v6 = false) {
  return {call::connected_pair, a, b, static_cast<std::uint8_t>(v6 ? 1 : 0)};
}
system_op unix_pair(std::uint8_t a, std::uint8_t b) { return {call::connected_pair, a, b, 2}; }
system_op set(std::uint8_t slot, std::uint8_t option, std::uint8_t value) {
  return {call::set_option, slot, option, value};
}
system_op get(std::uint8_t slot, std::uint8_t option) { return {call::get_option, slot, option}; }
system_op own_name(std::uint8_t slot) { return {call::local_address, slot}; }
system_op peer_name(std::uint8_t slot) { return {call::remote_address, slot}; }
system_op unlink(std::uint8_t path) { return {call::unlink, 0, 0, path}; }

void same(std::initializer_list<system_op> script) {
  const support::temp_dir folder;
  const std::string difference = support::compare_with_system(std::vector<system_op>(script), folder.path());
  CHECK_MESSAGE(difference.empty(), difference);
}

// --- TCP

TEST_CASE("as on the system: a TCP connection carries bytes both ways, and its addresses are known") {
  for (const bool v6 : {false, true})
    same({tcp_pair(0, 1, v6), send(0, 100), send(0, 10), receive(1, 50), peek(1, 200), receive(1, 200),
          send(1, 3), receive(0, 1), receive(0, 5), receive(0, 5), peer_name(1), get(0, so_error), send(0, 0),
          receive(1, 1)});
}

TEST_CASE("as on the system: half-closing, the end after the data, and the end again") {
  same({tcp_pair(0, 1), send(0, 10), shutdown(0, sending), send(0, 1), receive(1, 3), receive(1, 100),
        receive(1, 1), receive(1, 1), send(1, 5), receive(0, 5), shutdown(1, sending), receive(0, 1),
        peer_name(0), peer_name(1), shutdown(0, sending)});
}

TEST_CASE("as on the system: closing without unread bytes is the end, and sending then resets") {
  same({tcp_pair(0, 1), send(0, 10), close(0), receive(1, 100), receive(1, 1), send(1, 5), receive(1, 1),
        send(1, 5), get(1, so_error), peer_name(1)});
}

TEST_CASE("as on the system: closing with unread bytes resets, after the bytes sent before") {
  same({tcp_pair(0, 1), send(1, 10), send(0, 20), close(0), peek(1, 5), receive(1, 100), receive(1, 1),
        receive(1, 1), send(1, 1), send(1, 1)});
  same(
      {tcp_pair(0, 1), send(1, 10), close(0), get(1, so_error), get(1, so_error), receive(1, 1), send(1, 1)});
}

TEST_CASE("as on the system: a linger time of 0 resets") {
  same({tcp_pair(0, 1), set(0, linger, 1), close(0), receive(1, 1), receive(1, 1)});
  same({tcp_pair(0, 1), set(0, linger, 1), send(0, 10), close(0), receive(1, 100), send(1, 1), send(1, 1)});
}

TEST_CASE("as on the system: shutting down the receiving side keeps available and later bytes") {
  same({tcp_pair(0, 1), send(0, 10), shutdown(1, receiving), receive(1, 100), receive(1, 1), send(0, 5),
        receive(1, 9), send(1, 1)});
  same({tcp_pair(0, 1), shutdown(1, both), send(0, 5), send(0, 5), receive(1, 1), receive(1, 1)});
}

TEST_CASE("as on the system: connecting without a listener is refused") {
  for (const std::uint8_t kind : {tcp4, tcp6}) {
    same({open(0, kind), connect(0, loopback, nobody), get(0, so_error), get(0, so_error), receive(0, 1),
          send(0, 1)});
    same({open(0, kind), connect(0, loopback, nobody), receive(0, 1), receive(0, 1), peer_name(0)});
    same({open(0, kind), connect(0, loopback, nobody), connect(0, loopback, nobody), own_name(0)});
  }
}

TEST_CASE("as on the system: a socket can connect to itself") {
  same({open(0, tcp4), bind(0, loopback, port_a), connect(0, loopback, port_a), own_name(0), peer_name(0),
        send(0, 10), receive(0, 20), shutdown(0, sending), receive(0, 1)});
}

TEST_CASE("as on the system: calls before a connection exists") {
  for (const std::uint8_t kind : {tcp4, tcp6, unix_stream})
    same({open(0, kind), send(0, 1), receive(0, 1), shutdown(0, sending), peer_name(0), own_name(0),
          accept(0, 1), get(0, so_error), close(0), open(0, kind), listen(0, 1), send(0, 1), receive(0, 1),
          accept(0, 1)});
}

TEST_CASE("as on the system: a backlog of n holds n + 1 connections") {
  same({open(0, tcp4), bind(0, loopback, port_a), listen(0, 1), open(1, tcp4), connect(1, loopback, port_a),
        open(2, tcp4), connect(2, loopback, port_a), open(3, tcp4), connect(3, loopback, port_a),
        accept(0, 4), accept(0, 5), accept(0, 5)});
}

TEST_CASE("as on the system: bytes and a reset may arrive before accept") {
  same({open(0, tcp4), bind(0, loopback, port_a), listen(0, 3), open(1, tcp4), connect(1, loopback, port_a),
        send(1, 10), close(1), accept(0, 2), receive(2, 100), receive(2, 1)});
  same({open(0, tcp4), bind(0, loopback, port_a), listen(0, 3), open(1, tcp4), connect(1, loopback, port_a),
        set(1, linger, 1), close(1), accept(0, 2), receive(2, 1), receive(2, 1)});
  same({open(0, tcp4), bind(0, loopback, port_a), listen(0, 3), open(1, tcp4), connect(1, loopback, port_a),
        close(0), receive(1, 1), receive(1, 1)});
}

TEST_CASE("as on the system: which sockets may share a port") {
  same({open(0, tcp4), bind(0, any, port_a), listen(0, 1), open(1, tcp4), bind(1, loopback, port_a),
        open(2, tcp6), bind(2, any, port_a), set(2, v6only, 1), bind(2, any, port_a), set(2, v6only, 0),
        listen(2, 1)});
  same({open(0, udp4), bind(0, loopback, port_a), open(1, udp4), bind(1, loopback, port_a),
        bind(1, any, port_a), bind(1, mapped, port_a), open(2, udp6), bind(2, any, port_a),
        bind(2, loopback, port_a), bind(2, any, port_b)});
  same({open(0, tcp6), bind(0, any, port_a), listen(0, 2), open(1, tcp4), connect(1, loopback, port_a),
        accept(0, 2), own_name(2), peer_name(2), own_name(1), peer_name(1)});
}

TEST_CASE("as on the system: shutting down a listener ends it") {
  same({open(0, tcp4), bind(0, loopback, port_a), listen(0, 3), open(1, tcp4), connect(1, loopback, port_a),
        shutdown(0, sending), shutdown(0, receiving), receive(1, 1), accept(0, 2), own_name(0)});
}

TEST_CASE("as on the system: which options exist, and which ones accepted sockets inherit") {
  for (const std::uint8_t kind : {tcp4, tcp6, udp4, udp6, unix_stream, unix_datagram})
    for (std::uint8_t o = 0; o < 10; ++o)
      same({open(0, kind), get(0, o), set(0, o, 1), get(0, o), set(0, o, 0)});
  same({open(0, tcp4), set(0, keep_alive, 1), bind(0, loopback, port_a), listen(0, 1), open(1, tcp4),
        connect(1, loopback, port_a), accept(0, 2), get(2, keep_alive), get(1, keep_alive)});
}

// --- UNIX streams

TEST_CASE("as on the system: UNIX listeners with a path and an abstract name, and the names of both ends") {
  for (const std::uint8_t where : {file, abstract})
    same({open(0, unix_stream), bind(0, where, port_a), own_name(0), listen(0, 1), open(1, unix_stream),
          connect(1, where, port_a), accept(0, 2), own_name(1), peer_name(1), own_name(2), peer_name(2),
          send(1, 9), receive(2, 20), close(1), receive(2, 1), send(2, 1)});
}

TEST_CASE("as on the system: a UNIX connection whose listener is closed") {
  same({unix_pair(0, 1), own_name(0), peer_name(0), own_name(1), peer_name(1), send(1, 30), send(1, 3),
        peek(0, 31), receive(0, 10), receive(0, 100), set(1, linger, 1), close(1), receive(0, 1),
        send(0, 1)});
}

TEST_CASE("as on the system: connecting to a missing socket, one that does not listen, or another type") {
  for (const std::uint8_t where : {file, abstract})
    same({open(0, unix_stream), connect(0, where, port_a), open(1, unix_stream), bind(1, where, port_a),
          connect(0, where, port_a), open(2, unix_datagram), connect(2, where, port_a),
          bind(2, where, port_b), connect(0, where, port_b)});
}

TEST_CASE("as on the system: a socket file stays, refuses connections, and blocks bind until it is removed") {
  same({open(0, unix_stream), bind(0, file, port_a), listen(0, 1), close(0), open(1, unix_stream),
        connect(1, file, port_a), bind(1, file, port_a), unlink(port_a), unlink(port_a),
        bind(1, file, port_a), bind(1, file, port_a), bind(1, file, port_b), bind(1, abstract, port_b)});
  same({open(0, unix_stream), bind(0, abstract, port_a), close(0), open(1, unix_stream),
        bind(1, abstract, port_a)});
  same({open(0, unix_stream), bind(0, file, port_a), listen(0, 1), unlink(port_a), open(1, unix_stream),
        connect(1, file, port_a)});
}

TEST_CASE("as on the system: a full backlog of a UNIX listener is EAGAIN, until a connection is accepted") {
  same({open(0, unix_stream), bind(0, file, port_a), listen(0, 0), open(1, unix_stream),
        connect(1, file, port_a), open(2, unix_stream), connect(2, file, port_a), accept(0, 3),
        connect(2, file, port_a), connect(2, file, port_a), close(0), send(2, 1), receive(2, 1),
        receive(2, 1)});
}

TEST_CASE("as on the system: closing a UNIX stream with unread bytes is reported once") {
  same({pair(0, 1), send(0, 10), close(1), receive(0, 1), receive(0, 1), send(0, 1)});
  same({pair(0, 1), send(0, 10), send(1, 5), close(1), send(0, 1), receive(0, 100), receive(0, 1),
        receive(0, 1)});
  same({pair(0, 1), send(0, 10), close(1), get(0, so_error), receive(0, 1)});
}

TEST_CASE("as on the system: shutting down each side of a UNIX stream") {
  for (const std::uint8_t how : {receiving, sending, both})
    same({pair(0, 1), send(0, 10), send(1, 10), shutdown(0, how), send(0, 1), send(1, 1), receive(0, 100),
          receive(1, 100), receive(0, 1), receive(1, 1), shutdown(1, how), peer_name(0)});
}

TEST_CASE("as on the system: descriptors arrive with the bytes around them") {
  same({pair(0, 1), pair(2, 3), send(0, 10), pass(0, 2, 10), send(0, 3), take(1, 4, 100, 2), receive(1, 100),
        send(4, 3), receive(3, 10)});
  same({pair(0, 1), pair(2, 3), pass(0, 2, 10), pass(0, 3, 10), take(1, 4, 100, 2), take(1, 5, 100, 2)});
  same({pair(0, 1), pair(2, 3), pass(0, 2, 10, 3), take(1, 4, 3, 2), take(1, 5, 100, 2)});
  same({pair(0, 1), pair(2, 3), pass(0, 2, 10), take(1, 4, 0, 2), take(1, 5, 100, 2)});
}

TEST_CASE("as on the system: a plain receive drops descriptors, and an empty message loses them") {
  same({pair(0, 1), pair(2, 3), pass(0, 2, 10), close(2), receive(1, 100), receive(3, 1)});
  same({pair(0, 1), pair(2, 3), pass(0, 2, 0), close(2), receive(3, 1), take(1, 4, 10, 2)});
}

TEST_CASE("as on the system: a descriptor in flight keeps its socket open until the message is lost") {
  same({pair(0, 1), pair(2, 3), pass(0, 2, 10), close(2), receive(3, 1), send(3, 5), take(1, 4, 100, 1),
        receive(4, 9)});
  same({pair(0, 1), pair(2, 3), pass(0, 2, 10), close(2), close(1), receive(3, 1)});
}

// --- datagrams

TEST_CASE("as on the system: UDP keeps boundaries, truncates to the buffer, and allows empty datagrams") {
  for (const std::uint8_t kind : {udp4, udp6})
    same({open(0, kind), bind(0, loopback, port_a), open(1, kind), bind(1, any, port_b),
          send_to(1, loopback, port_a, 100), send_to(1, loopback, port_a, 0),
          send_to(1, loopback, port_a, 10), receive_from(0, 50), peek(0, 1), receive_from(0, 50),
          receive(0, 50), receive(0, 50), own_name(1), send(0, 1)});
}

TEST_CASE(
    "as on the system: a connected UDP socket reports a refusal once, and receives from no other peer") {
  for (const std::uint8_t kind : {udp4, udp6}) {
    same({open(0, kind), connect(0, loopback, nobody), peer_name(0), send(0, 5), receive(0, 1),
          receive(0, 1)});
    same({open(0, kind), connect(0, loopback, nobody), send(0, 5), send(0, 5), send(0, 5), get(0, so_error)});
    same({open(0, kind), bind(0, loopback, port_a), open(1, kind), bind(1, loopback, port_b), open(2, kind),
          connect(0, loopback, port_b), send_to(2, loopback, port_a, 5), receive(0, 10),
          send_to(1, loopback, port_a, 6), receive_from(0, 10), send_to(0, loopback, nobody, 1),
          receive(0, 1)});
  }
}

TEST_CASE("as on the system: IPv4 over IPv6 sockets") {
  same({open(0, udp6), bind(0, any, port_a), open(1, udp4), send_to(1, loopback, port_a, 10),
        receive_from(0, 10), send_to(0, mapped, port_a, 3), receive_from(0, 10)});
  same({open(0, udp6), bind(0, loopback, port_a), send_to(0, mapped, port_a, 3), get(0, v6only)});
  same({open(0, udp6), set(0, v6only, 1), bind(0, mapped, port_a), send_to(0, mapped, port_a, 3)});
  same({open(0, udp6), bind(0, mapped, port_a), send_to(0, loopback, port_a, 3), connect(0, loopback, port_a),
        own_name(0)});
}

TEST_CASE("as on the system: shutting down a datagram socket") {
  for (const std::uint8_t how : {receiving, sending, both}) {
    same({open(0, udp4), shutdown(0, how), send_to(0, loopback, nobody, 1), receive(0, 1)});
    same({open(0, udp4), connect(0, loopback, nobody), shutdown(0, how), send(0, 1), receive(0, 1)});
    same({datagram_pair(0, 1), send(1, 5), shutdown(0, how), send(0, 1), send(1, 1), receive(0, 10),
          receive(0, 1), receive(1, 1)});
  }
}

TEST_CASE("as on the system: UNIX datagrams by path, their senders' names, and missing paths") {
  for (const std::uint8_t where : {file, abstract})
    same({open(0, unix_datagram), send_to(0, where, port_a, 1), open(1, unix_datagram),
          bind(1, where, port_a), send_to(0, where, port_a, 5), receive_from(1, 10), bind(0, where, port_b),
          own_name(0), open(2, unix_datagram), connect(2, where, port_a), peer_name(2), send(2, 7),
          receive_from(1, 3), close(1), send(2, 1), send(2, 1), peer_name(2), send_to(2, where, port_a, 1)});
}

TEST_CASE("as on the system: a connected UNIX datagram socket receives only from its peer") {
  same({datagram_pair(0, 1), open(2, unix_datagram), bind(0, file, port_a), send_to(2, file, port_a, 1),
        connect(2, file, port_a), send(1, 5), receive_from(0, 10)});
}

TEST_CASE("as on the system: a UNIX datagram queue is full after 11, but not between two connected sockets") {
  std::vector<system_op> one_way = {open(0, unix_datagram), bind(0, file, port_a), open(1, unix_datagram),
                                    connect(1, file, port_a)};
  std::vector<system_op> two_ways = {datagram_pair(0, 1)};
  for (int i = 0; i < 13; ++i) {
    one_way.push_back(send(1, 10));
    two_ways.push_back(send(1, 10));
  }
  for (int i = 0; i < 13; ++i) {
    one_way.push_back(receive(0, 10));
    two_ways.push_back(receive(0, 10));
  }
  const support::temp_dir folder;
  for (const auto& script : {one_way, two_ways}) {
    const std::string difference = support::compare_with_system(script, folder.path());
    CHECK_MESSAGE(difference.empty(), difference);
  }
}

TEST_CASE("as on the system: unread UNIX datagrams are lost when the connected peer closes") {
  same({datagram_pair(0, 1), send(1, 5), close(1), send(0, 1), receive(0, 10), send(0, 1)});
  same({datagram_pair(0, 1), send(1, 5), close(1), receive(0, 10), receive(0, 10)});
}

TEST_CASE("as on the system: descriptors with datagrams, also without room for them") {
  same({datagram_pair(0, 1), pair(2, 3), pass(0, 2, 10), pass(0, 2, 0), take(1, 4, 4, 1), take(1, 5, 10, 1),
        send(4, 1)});
  same({datagram_pair(0, 1), pair(2, 3), pass(0, 2, 10, 3), take(1, 4, 10, 2), pass(0, 2, 10),
        take(1, 4, 10, 0)});
}

// --- random scripts

TEST_CASE("as on the system: thousands of random scripts") {
  const support::temp_dir folder;
  const std::uint32_t scripts = support::some_of(3000u);
  std::uint64_t state = 20;
  for (std::uint32_t i = 0; i < scripts; ++i) {
    std::vector<std::uint8_t> bytes(4 * (10 + i % 60));
    for (std::uint8_t& b : bytes) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      b = static_cast<std::uint8_t>(state >> 56);
    }
    const std::string difference = support::compare_with_system(support::parse_script(bytes), folder.path());
    CHECK_MESSAGE(difference.empty(), "script " << i << "\n" << difference);
    if (!difference.empty()) return;
  }
}

}  // namespace

#endif
