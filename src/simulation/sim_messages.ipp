// Socket calls for data: options, bytes, datagrams, passed descriptors.
#pragma once

#include "simulation/sim_network.hpp"
#include "simulation/sim_packet_info.ipp"
#include "simulation/sim_sockets.ipp"

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/un.h>

#if defined(__APPLE__) || defined(__FreeBSD__)
#include <sys/ucred.h>
#endif

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// --- options

/// The error for an option level that this kind of socket does not have, or 0. There is no GRO and no GSO.
inline int option_refusal(const sim_socket& s, int level, bool gets) {
  if (level == SOL_SOCKET) return 0;
  if (!s.is_ip()) return -EOPNOTSUPP;
  if (level == IPPROTO_UDP && s.type == SOCK_DGRAM) return -ENOPROTOOPT;
  const bool of_another = level == IPPROTO_UDP || (level == IPPROTO_TCP && s.type != SOCK_STREAM) ||
                          (level == IPPROTO_IPV6 && s.family == AF_INET);
  if (!of_another) return 0;
  return gets && s.family == AF_INET ? -EOPNOTSUPP : -ENOPROTOOPT;
}

ANYIO_NET_FN int sim_network::get_option(const sim_handle& s, int level, int name, void* value,
                                         socklen_t* size) {
#if defined(SO_PEERCRED)
  if (level == SOL_SOCKET && name == SO_PEERCRED) {
    const int who[3] = {1, 0, 0};  // process, user, group
    *size = std::min<socklen_t>(*size, sizeof who);
    std::memcpy(value, who, *size);
    return 0;
  }
#elif defined(LOCAL_PEERCRED) && defined(SOL_LOCAL)
  if (!s->is_ip() && level == SOL_LOCAL) {
    const int process = 1;
    const xucred who{};
    const bool is_process = name != LOCAL_PEERCRED;
    *size = std::min<socklen_t>(*size, is_process ? sizeof process : sizeof who);
    std::memcpy(value, is_process ? static_cast<const void*>(&process) : &who, *size);
    return 0;
  }
#endif
  if (const int status = option_refusal(*s, level, true); status < 0) return status;
  int out = s->option(level, name);
  if (level == SOL_SOCKET) {
    if (name == SO_TYPE) out = s->type;
    if (name == SO_ERROR) out = std::exchange(s->broken, 0);
    if (name == SO_ACCEPTCONN) out = s->stage == sim_socket::state::listening ? 1 : 0;
    if ((name == SO_RCVBUF || name == SO_SNDBUF) && out == 0) out = 131072;
  }
  *size = std::min<socklen_t>(*size, sizeof out);
  std::memcpy(value, &out, *size);
  return 0;
}

ANYIO_NET_FN int sim_network::set_option(const sim_handle& s, int level, int name, const void* value,
                                         socklen_t size) {
  if (profile_ != sim::profile::linux_ && s->reset) return -EINVAL;  // the connection is gone
  if (const int status = option_refusal(*s, level, false); status < 0) return status;
  if (level == SOL_SOCKET && (name == SO_ERROR || name == SO_TYPE || name == SO_ACCEPTCONN))
    return -ENOPROTOOPT;
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && s->bound && !is_over(*s) &&
      s->stage != sim_socket::state::refused)
    return -EINVAL;
  if (const int status = change_membership(*s, level, name, value, size); status <= 0) return status;
  if (level == SOL_SOCKET && name == SO_LINGER) {
    if (size < sizeof(linger)) return -EINVAL;
    linger l;
    std::memcpy(&l, value, sizeof l);
    s->options[{level, name}] = l.l_onoff != 0 && l.l_linger == 0 ? 1 : 0;
    return 0;
  }
  int number = 0;
  if (size == 1) {
    number = *static_cast<const unsigned char*>(value);
  } else {
    std::memcpy(&number, value, std::min<std::size_t>(size, sizeof number));
  }
  if (level == SOL_SOCKET && name == SO_REUSEPORT && !s->is_ip() && number != 0) return -EOPNOTSUPP;
  s->options[{level, name}] = number;
  return 0;
}

// --- descriptors in messages

ANYIO_NET_FN int sim_network::read_passed(const message& m, std::vector<sim_handle>& passed) {
  if (m.control == nullptr || m.control_size == 0) return 0;
  msghdr header{};
  header.msg_control = m.control;
  header.msg_controllen = static_cast<decltype(header.msg_controllen)>(m.control_size);
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = next_control(header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    constexpr std::size_t most = 253;  // SCM_MAX_FD of Linux
    if (passed.size() + count > most) return -EINVAL;
    for (std::size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      const sim_handle s = find(fd);
      if (s == nullptr) return refusal(fd);
      passed.push_back(s);
    }
  }
  return 0;
}

ANYIO_NET_FN void sim_network::hand_over(std::vector<sim_handle>&& passed, message& m, bool takes_control) {
  const std::size_t room =
      takes_control && m.control_size >= CMSG_LEN(0) ? (m.control_size - CMSG_LEN(0)) / sizeof(int) : 0;
  const std::size_t count = std::min(room, passed.size());
  if (passed.size() > count) m.flags |= MSG_CTRUNC;
  if (count != 0) {
    cmsghdr header{};
    header.cmsg_len = static_cast<decltype(header.cmsg_len)>(CMSG_LEN(count * sizeof(int)));
    header.cmsg_level = SOL_SOCKET;
    header.cmsg_type = SCM_RIGHTS;
    std::byte* place = static_cast<std::byte*>(m.control);
    std::memcpy(place, &header, sizeof header);
    place += CMSG_LEN(0);
    for (std::size_t i = 0; i < count; ++i, place += sizeof(int)) {
      const int fd = add(passed[i]);
      std::memcpy(place, &fd, sizeof fd);
    }
    m.control_size = std::min<std::size_t>(m.control_size, CMSG_SPACE(count * sizeof(int)));
  } else {
    m.control_size = 0;
  }
  for (const sim_handle& s : passed) drop(s);  // the reference of the message
}

// --- bytes

inline std::size_t gather(const message& m, std::size_t most, std::string& out) {
  for (const ::iovec& part : m.parts) {
    const std::size_t n = std::min(part.iov_len, most - out.size());
    out.append(static_cast<const char*>(part.iov_base), n);
  }
  return out.size();
}

/// Copies bytes to the parts of a message, after the first `offset` bytes.
inline void scatter(const message& m, std::size_t offset, std::string_view bytes) {
  for (const ::iovec& part : m.parts) {
    if (offset >= part.iov_len) {
      offset -= part.iov_len;
      continue;
    }
    const std::size_t n = std::min(part.iov_len - offset, bytes.size());
    std::memcpy(static_cast<char*>(part.iov_base) + offset, bytes.data(), n);
    bytes.remove_prefix(n);
    offset = 0;
    if (bytes.empty()) return;
  }
}

ANYIO_NET_FN std::size_t sim_network::window_of(const sim_socket& to) const noexcept {
  constexpr std::size_t datagrams = 11;  // Linux's net.unix.max_dgram_qlen plus one
  constexpr std::size_t usual = 131072;
  if (to.type == SOCK_DGRAM) return datagrams;
  const int chosen = to.option(SOL_SOCKET, SO_RCVBUF);
  return chosen > 0 ? static_cast<std::size_t>(std::max(chosen, 2304)) : usual;
}

ANYIO_NET_FN ssize_t sim_network::send(const sim_handle& s, const message& m) {
  std::vector<sim_handle> passed;
  if (const int status = read_passed(m, passed); status < 0) return status;
  if (!passed.empty() && s->is_ip()) return -EINVAL;
  const ssize_t n =
      s->type == SOCK_STREAM ? send_stream(s, m, std::move(passed)) : send_datagram(s, m, std::move(passed));
  if (n > 0) idle_steps_ = 0;
  return n;
}

ANYIO_NET_FN ssize_t sim_network::send_stream(const sim_handle& s, const message& m,
                                              std::vector<sim_handle>&& passed) {
  if (!s->is_ip() && m.address != nullptr)
    return s->stage == sim_socket::state::connected ? -EISCONN : -EOPNOTSUPP;
  if (s->is_ip() && s->broken != 0) return -std::exchange(s->broken, 0);
  switch (s->stage) {
    case sim_socket::state::connecting: return -EAGAIN;
    case sim_socket::state::fresh:
    case sim_socket::state::listening: return s->is_ip() ? -EPIPE : -ENOTCONN;
    case sim_socket::state::refused: return -EPIPE;
    case sim_socket::state::connected: break;
  }
  if (s->sending_over || s->reset) return -EPIPE;
  const std::size_t total = m.size();
  const sim_handle peer = s->peer.lock();
  if (peer == nullptr || peer->gone) {
    if (!s->is_ip()) return -EPIPE;
    // The segment is sent, and is answered with a reset, or not answered.
    if (total == 0) return 0;
    if (is_dead(s->local.address, s->remote.address) || is_dead(s->remote.address, s->local.address)) {
      dispatch(anyio::detail::add(now_, std::chrono::milliseconds(924600)),
               arrival{arrival::kind::reset, s, {}, {}, {}, ETIMEDOUT});
      return static_cast<ssize_t>(total);
    }
    const time_point there = arrival_time(s->local.address, s->remote.address, true);
    const time_point back = there + (arrival_time(s->remote.address, s->local.address, true) - now_);
    dispatch(back, arrival{arrival::kind::reset, s, {}, {}, {}, ECONNRESET});
    return static_cast<ssize_t>(total);
  }
  if (!s->is_ip() && peer->receiving_over) return -EPIPE;
  if (total == 0) return 0;
  const std::size_t used = peer->inbox_bytes + peer->on_the_way;
  const std::size_t window = window_of(*peer);
  if (used >= window) return -EAGAIN;
  arrival a{arrival::kind::bytes, peer, {}, {}, {}, 0};
  const std::size_t n = gather(m, window - used, a.chunk.data);
  for (const sim_handle& p : passed) ++p->descriptors;
  a.chunk.passed = std::move(passed);
  peer->on_the_way += n;
  transmit(*s, peer, std::move(a));
  return static_cast<ssize_t>(n);
}

ANYIO_NET_FN ssize_t sim_network::receive(const sim_handle& s, message& m, bool takes_control) {
  m.flags = 0;
  const ssize_t n =
      s->type == SOCK_STREAM ? receive_stream(*s, m, takes_control) : receive_datagram(*s, m, takes_control);
  if (n > 0 && !m.peek) idle_steps_ = 0;
  return n;
}

ANYIO_NET_FN ssize_t sim_network::receive_stream(sim_socket& s, message& m, bool takes_control) {
  if (m.address != nullptr) write_sim_address(s, s.remote, s.remote_path, m.address, &m.address_size);
  const auto nothing = [&](ssize_t outcome) {
    m.control_size = 0;
    return outcome;
  };
  const bool unconnected = s.stage == sim_socket::state::fresh || s.stage == sim_socket::state::listening;
  if (unconnected && !s.is_ip()) return nothing(-EINVAL);
  if (s.stage == sim_socket::state::listening) return nothing(-ENOTCONN);
  if (s.inbox.empty()) {
    if (s.ended && s.is_ip()) return nothing(0);  // the end came before the reset
    if (s.broken != 0) return nothing(-std::exchange(s.broken, 0));
    if (s.ended || s.reset || s.receiving_over) return nothing(0);
    if (unconnected) return nothing(-ENOTCONN);
    if (s.stage == sim_socket::state::refused) return nothing(0);
    return nothing(-EAGAIN);
  }
  const std::size_t room = m.size();
  const bool was_full = s.inbox_bytes + s.on_the_way >= window_of(s);
  std::size_t got = 0;
  std::vector<sim_handle> passed;
  if (m.peek) {
    for (const sim_chunk& chunk : s.inbox) {
      const std::size_t n = std::min(room - got, chunk.data.size());
      scatter(m, got, std::string_view(chunk.data).substr(0, n));
      got += n;
      if (!chunk.passed.empty()) {
        passed = chunk.passed;
        for (const sim_handle& p : passed) ++p->descriptors;
        break;
      }
      if (got == room) break;
    }
  }
  const bool takes_descriptors = room == 0;  // the descriptors of the first byte come without it
  while (!m.peek && (got < room || takes_descriptors) && !s.inbox.empty()) {
    sim_chunk& chunk = s.inbox.front();
    const std::size_t n = std::min(room - got, chunk.data.size());
    scatter(m, got, std::string_view(chunk.data).substr(0, n));
    got += n;
    s.inbox_bytes -= n;
    const bool ends = !chunk.passed.empty();
    passed = std::move(chunk.passed);
    chunk.passed.clear();
    if (n == chunk.data.size()) {
      s.inbox.pop_front();
    } else {
      chunk.data.erase(0, n);
    }
    if (ends || takes_descriptors) break;
  }
  if (was_full && !m.peek)
    if (const sim_handle peer = s.peer.lock()) changed(*peer);
  hand_over(std::move(passed), m, takes_control);
  return static_cast<ssize_t>(got);
}

// --- datagrams

ANYIO_NET_FN std::vector<sim_handle> sim_network::receivers_of(const ip_endpoint& target,
                                                               const ip_endpoint& from) const {
  std::vector<sim_handle> found;
  const bool broadcast = target.address == ip_address::v4(0xffffffff);
  int best = -1;
  for (const sim_handle& s : bound_to(SOCK_DGRAM, target.port)) {
    const bool connected = s->stage == sim_socket::state::connected;
    if (connected && s->remote != from) continue;
    if (target.address.is_multicast()) {
      const auto group = s->groups.find(without_scope(target.address));
      const bool hears = group != s->groups.end() &&
                         (group->second.empty() || group->second.contains(from.address)) &&
                         (is_any(s->local.address) || s->local.address == target.address);
      if (hears) found.push_back(s);
      continue;
    }
    if (!covers(*s, target.address)) continue;
    if (broadcast) {
      found.push_back(s);
      continue;
    }
    const int rank = (connected ? 2 : 0) + (is_any(s->local.address) ? 0 : 1);
    if (rank < best) continue;
    const bool shares = s->option(SOL_SOCKET, SO_REUSEPORT) != 0 && rank == best &&
                        found.front()->option(SOL_SOCKET, SO_REUSEPORT) != 0;
    best = rank;
    if (!shares) found.clear();  // the socket that was bound last receives it
    found.push_back(s);
  }
  if (best < 0 || found.size() < 2) return found;
  // Sockets that share a port divide the senders, so that all datagrams of a sender go to one socket.
  return {found[from.port % found.size()]};
}

ANYIO_NET_FN ssize_t sim_network::send_datagram(const sim_handle& s, const message& m,
                                                std::vector<sim_handle>&& passed) {
  const std::size_t total = m.size();
  arrival a{arrival::kind::datagram, {}, s, {}, {}, 0};
  if (s->is_ip()) {
    if (!s->bound)
      if (const int status = bind_any(s); status < 0) return status;
    ip_endpoint to = s->remote;
    if (m.address != nullptr) {
      if (!read_address(*s, m.address, m.address_size, to)) return -EAFNOSUPPORT;
    } else if (s->stage != sim_socket::state::connected) {
      return -EDESTADDRREQ;
    }
    if (to.port == 0) return -EINVAL;
    constexpr std::size_t most = 65507;  // 65535 minus the headers of IPv4 and UDP
    if (total > (to.address.is_v6() ? most + 20 : most)) return -EMSGSIZE;
    if (to.address == ip_address::v4(0xffffffff) && s->option(SOL_SOCKET, SO_BROADCAST) == 0) return -EACCES;
    if (is_any(to.address)) to.address = own_address(*s, to.address);
    if (to.address.is_v6() && s->local.address.is_v4()) return -EAFNOSUPPORT;
    if (s->family == AF_INET6 && to.address.is_v4() && s->option(IPPROTO_IPV6, IPV6_V6ONLY) != 0)
      return -ENETUNREACH;
    if (s->broken != 0) return -std::exchange(s->broken, 0);
    if (s->sending_over) return -EPIPE;
    a.target = to;
    a.chunk.from = s->local;
    a.chunk.info = info_of_sent(*s, to.address, m);
    if (!is_any(a.chunk.info.local)) a.chunk.from.address = a.chunk.info.local;
    if (is_any(a.chunk.from.address)) a.chunk.from.address = loopback_address(to.address.is_v6());
    a.chunk.info.local = to.address;
    a.chunk.info.interface_index = 1;
    gather(m, total, a.chunk.data);
    const bool multicast = to.address.is_multicast();
    const bool v4 = to.address.is_v4();
    const auto silent =
        s->options.find({v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MULTICAST_LOOP : IPV6_MULTICAST_LOOP});
    if (multicast && silent != s->options.end() && silent->second == 0) return static_cast<ssize_t>(total);
    if (!choices.chance(link(a.chunk.from.address, to.address).drop))
      dispatch(arrival_time(a.chunk.from.address, to.address, false), std::move(a));
    return static_cast<ssize_t>(total);
  }
  const bool named = m.address != nullptr;
  if (!named && s->stage != sim_socket::state::connected) return -ENOTCONN;
  constexpr std::size_t most = 212960;  // Linux's net.core.wmem_default minus the kernel's overhead
  if (total > most) return -EMSGSIZE;
  if (s->broken != 0) return -std::exchange(s->broken, 0);
  if (s->sending_over) return -EPIPE;
  sim_handle to = s->peer.lock();
  if (named) {
    const std::string path = unix_path(m.address, m.address_size);
    const std::string place = place_of(path, SOCK_DGRAM);
    if (!files_.contains(place)) return !path.empty() && path.front() == '\0' ? -ECONNREFUSED : -ENOENT;
    to = at_path(place);
  }
  if (to == nullptr || to->gone) {
    if (!named) leave_peer(*s);  // the sender gets the error once
    return -ECONNREFUSED;
  }
  if (to->type != SOCK_DGRAM) return -EPROTOTYPE;
  if (to->stage == sim_socket::state::connected && to->peer.lock() != s) return -EPERM;
  if (to->receiving_over) return -EPIPE;
  if (is_full(*to, *s)) return profile_ == sim::profile::linux_ ? -EAGAIN : -ENOBUFS;
  gather(m, total, a.chunk.data);
  a.chunk.from_path = s->local_path;
  for (const sim_handle& p : passed) ++p->descriptors;
  a.chunk.passed = std::move(passed);
  a.to = to;
  ++to->on_the_way;
  dispatch(now_, std::move(a));
  return static_cast<ssize_t>(total);
}

ANYIO_NET_FN ssize_t sim_network::receive_datagram(sim_socket& s, message& m, bool takes_control) {
  const auto nothing = [&](ssize_t outcome) {
    m.control_size = 0;
    return outcome;
  };
  if (s.broken != 0) return nothing(-std::exchange(s.broken, 0));
  if (s.inbox.empty()) return nothing(-EAGAIN);
  sim_chunk& chunk = s.inbox.front();
  const std::size_t n = std::min(m.size(), chunk.data.size());
  scatter(m, 0, std::string_view(chunk.data).substr(0, n));
  if (n < chunk.data.size()) m.flags |= MSG_TRUNC;
  if (m.address != nullptr) {
    write_sim_address(s, chunk.from, chunk.from_path, m.address, &m.address_size);
    if (!s.is_ip() && chunk.from_path.empty()) m.address_size = 0;
  }
  if (m.peek) {
    for (const sim_handle& p : chunk.passed) ++p->descriptors;
    hand_over(std::vector<sim_handle>(chunk.passed), m, takes_control);
    return static_cast<ssize_t>(n);
  }
  std::vector<sim_handle> passed = std::move(chunk.passed);
  const packet_info info = chunk.info;
  s.inbox_bytes -= chunk.data.size();
  s.inbox.pop_front();
  if (s.is_ip()) {
    hand_over_info(s, info, m, takes_control);
  } else {
    hand_over(std::move(passed), m, takes_control);
    // Sockets that are connected to it may send again.
    for (auto& [fd, d] : descriptors_)
      if (d.socket->peer.lock().get() == &s) changed(*d.socket);
  }
  return static_cast<ssize_t>(n);
}

}}}  // namespace anyio::detail

#endif
