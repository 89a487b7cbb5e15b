// Socket calls before data is sent: addresses, listening, connecting.
#pragma once

#include "simulation/sim_network.hpp"

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/un.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// --- addresses

/// The name by which a UNIX socket is found. Each socket type has its own set of abstract names.
inline std::string place_of(const std::string& path, int type) {
  std::string place = path;
  if (!path.empty() && path.front() == '\0') place += type == SOCK_STREAM ? 's' : 'd';
  return place;
}

/// Reads an address for a socket of this family; an IPv6 socket accepts an IPv4 address in its mapped form.
ANYIO_NET_FN bool sim_network::read_address(const sim_socket& s, const sockaddr* address, socklen_t size,
                                            ip_endpoint& out) const {
  if (size < sizeof(sa_family_t) || address->sa_family != s.family) return false;
  const result<ip_endpoint> endpoint = ip_endpoint::from_sockaddr(address, size);
  if (endpoint) out = *endpoint;
  return endpoint.has_value();
}

inline void write_sim_address(const sim_socket& s, const ip_endpoint& endpoint, const std::string& path,
                              sockaddr* into, socklen_t* size) {
  sockaddr_storage storage{};
  socklen_t needed = 0;
  if (!s.is_ip()) {
    auto& un = reinterpret_cast<sockaddr_un&>(storage);
    un.sun_family = AF_UNIX;
    const std::size_t length = std::min(path.size(), sizeof un.sun_path);
    std::memcpy(un.sun_path, path.data(), length);
    const bool terminated = !path.empty() && path.front() != '\0' && length < sizeof un.sun_path;
    needed = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length + (terminated ? 1 : 0));
  } else if (s.family == AF_INET6 && endpoint.address.is_v4()) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(endpoint.port);
    const bool any = endpoint.address == ip_address::any_v4();
    if (!any) {
      in6.sin6_addr.s6_addr[10] = in6.sin6_addr.s6_addr[11] = 0xff;
      std::memcpy(&in6.sin6_addr.s6_addr[12], endpoint.address.bytes().data(), 4);
    }
    needed = sizeof in6;
  } else {
    needed = endpoint.to_sockaddr(storage);
  }
  if (into != nullptr) std::memcpy(into, &storage, std::min<std::size_t>(*size, needed));
  *size = needed;
}

inline bool is_any(const ip_address& a) { return a == ip_address::any_v4() || a == ip_address::any_v6(); }

/// Whether a bound socket receives data that is sent to this address.
inline bool covers(const sim_socket& s, const ip_address& target) {
  if (s.local.address == target) return true;
  if (!is_any(s.local.address)) return false;
  if (s.family == AF_INET) return target.is_v4();
  return target.is_v6() || s.option(IPPROTO_IPV6, IPV6_V6ONLY) == 0;
}

ANYIO_NET_FN std::vector<sim_handle> sim_network::bound_to(int type, std::uint16_t port) const {
  std::vector<sim_handle> found;
  for (const auto& place : ports_)
    if (const sim_handle s = place.lock();
        s != nullptr && !s->gone && s->type == type && s->local.port == port)
      found.push_back(s);
  return found;
}

ANYIO_NET_FN bool sim_network::is_taken(const sim_socket& s, const ip_endpoint& at) const {
  for (const sim_handle& other : bound_to(s.type, at.port)) {
    sim_socket wanted;
    wanted.family = s.family;
    wanted.local = at;
    wanted.options = s.options;
    if (!covers(*other, at.address) && !covers(wanted, other->local.address)) continue;
    const auto both = [&](int name) {
      return s.option(SOL_SOCKET, name) != 0 && other->option(SOL_SOCKET, name) != 0;
    };
    if (both(SO_REUSEPORT)) continue;
    const bool listens = other->stage == sim_socket::state::listening;
    if (both(SO_REUSEADDR) && (s.type == SOCK_DGRAM || !listens)) continue;
    return true;
  }
  return false;
}

ANYIO_NET_FN int sim_network::bind_ip(const sim_handle& s, ip_endpoint at) {
  if (at.port == 0) {
    for (int tries = 0; tries < 28232; ++tries) {
      at.port = next_port_;
      next_port_ = next_port_ == 60999 ? 32768 : static_cast<std::uint16_t>(next_port_ + 1);
      if (!is_taken(*s, at)) break;
      at.port = 0;
    }
    if (at.port == 0) return -EADDRINUSE;
  } else if (is_taken(*s, at)) {
    return -EADDRINUSE;
  }
  s->bound = true;
  s->local = at;
  std::erase_if(ports_, [](const auto& place) { return place.expired(); });
  ports_.push_back(s);
  return 0;
}

ANYIO_NET_FN int sim_network::bind_any(const sim_handle& s) {
  return bind_ip(s, ip_endpoint{any_address(s->family == AF_INET6), 0});
}

ANYIO_NET_FN int sim_network::bind_path(const sim_handle& s, const std::string& path) {
  if (path.empty()) return -EINVAL;
  const bool is_abstract = path.front() == '\0';
  if (is_abstract && profile_ != sim::profile::linux_) return -ENOENT;
  if (is_abstract && s->bound) return -EINVAL;
  const std::string place = place_of(path, s->type);
  const bool is_left_behind = is_abstract && at_path(place) == nullptr;  // an abstract name leaves no file
  if (files_.contains(place) && !is_left_behind) return -EADDRINUSE;
  if (s->bound) return -EINVAL;
  files_[place] = file{s, next_inode_++};
  s->bound = true;
  s->local_path = path;
  if (const sim_handle peer = s->peer.lock(); peer != nullptr && peer->peer.lock() == s)
    peer->remote_path = path;
  return 0;
}

ANYIO_NET_FN sim_handle sim_network::at_path(const std::string& place) const {
  const auto found = files_.find(place);
  const sim_handle s = found == files_.end() ? nullptr : found->second.socket.lock();
  return s == nullptr || s->gone ? nullptr : s;
}

ANYIO_NET_FN int sim_network::bind(const sim_handle& s, const sockaddr* address, socklen_t size) {
  if (!s->is_ip()) return bind_path(s, unix_path(address, size));
  if (s->bound) return -EINVAL;
  ip_endpoint at;
  if (!read_address(*s, address, size, at)) return -EINVAL;
  if (s->family == AF_INET6 && at.address.is_v4() && s->option(IPPROTO_IPV6, IPV6_V6ONLY) != 0)
    return -EINVAL;
  const bool broadcast = at.address == ip_address::v4(0xffffffff);
  if (s->type == SOCK_STREAM && (at.address.is_multicast() || broadcast)) return -EADDRNOTAVAIL;
  const int status = bind_ip(s, at);
  // Linux: a socket that is bound to one IPv6 address receives no IPv4.
  if (status >= 0 && at.address.is_v6() && !is_any(at.address)) s->options[{IPPROTO_IPV6, IPV6_V6ONLY}] = 1;
  return status;
}

ANYIO_NET_FN int sim_network::listen(const sim_handle& s, int backlog) {
  if (s->type != SOCK_STREAM) return -EOPNOTSUPP;
  if (s->stage != sim_socket::state::fresh && s->stage != sim_socket::state::listening) return -EINVAL;
  if (!s->bound) {
    if (!s->is_ip()) return -EINVAL;
    if (const int status = bind_any(s); status < 0) return status;
  }
  for (const sim_handle& other : bound_to(SOCK_STREAM, s->local.port)) {
    if (!s->is_ip() || other == s || other->stage != sim_socket::state::listening) continue;
    if (!covers(*other, s->local.address) && !covers(*s, other->local.address)) continue;
    if (s->option(SOL_SOCKET, SO_REUSEPORT) == 0 || other->option(SOL_SOCKET, SO_REUSEPORT) == 0)
      return -EADDRINUSE;
  }
  s->stage = sim_socket::state::listening;
  s->backlog = static_cast<std::size_t>(std::clamp(backlog, 0, 4096)) + 1;  // somaxconn, plus one as on Linux
  return 0;
}

// --- connections

ANYIO_NET_FN void sim_network::connect_ends(const sim_handle& a, const sim_handle& b) {
  a->stage = b->stage = sim_socket::state::connected;
  a->peer = b;
  b->peer = a;
}

ANYIO_NET_FN sim_handle sim_network::listener_at(const ip_endpoint& at) {
  std::vector<sim_handle> found;
  bool special = false;
  for (const sim_handle& s : bound_to(SOCK_STREAM, at.port)) {
    if (s->stage != sim_socket::state::listening || !covers(*s, at.address)) continue;
    const bool is_special = !is_any(s->local.address);
    if (special && !is_special) continue;
    if (is_special && !special) found.clear();  // a specific address takes precedence
    special = is_special;
    found.push_back(s);
  }
  // Listeners that share a port take turns.
  return found.empty() ? nullptr : found[found.size() == 1 ? 0 : next_listener_++ % found.size()];
}

/// Disconnects a UNIX datagram socket. If it has unread datagrams, Linux discards them and reports ECONNRESET
/// to a peer that is connected to it.
ANYIO_NET_FN void sim_network::leave_peer(sim_socket& s) {
  const sim_handle peer = s.peer.lock();
  s.stage = sim_socket::state::fresh;
  s.peer.reset();
  if (!s.inbox.empty()) {
    for (sim_chunk& chunk : s.inbox) drop_chunk(chunk);
    s.inbox.clear();
    s.inbox_bytes = 0;
    if (peer != nullptr && !peer->gone && peer->peer.lock().get() == &s) {
      peer->broken = ECONNRESET;
      changed(*peer);
    }
  }
  changed(s);
}

ANYIO_NET_FN int sim_network::connect_unix(const sim_handle& s, const std::string& path) {
  if (path.empty()) return -EINVAL;
  const std::string place = place_of(path, s->type);
  if (!files_.contains(place)) return path.front() == '\0' ? -ECONNREFUSED : -ENOENT;
  const sim_handle target = at_path(place);
  if (target == nullptr) return -ECONNREFUSED;
  if (target->type != s->type) return -EPROTOTYPE;
  if (s->type == SOCK_DGRAM) {
    if (target->stage == sim_socket::state::connected && target->peer.lock() != s) return -EPERM;
    if (s->stage == sim_socket::state::connected && s->peer.lock() != target) leave_peer(*s);
    s->stage = sim_socket::state::connected;
    s->peer = target;
    s->remote_path = path;
    changed(*s);
    return 0;
  }
  if (target->stage != sim_socket::state::listening || target->receiving_over) return -ECONNREFUSED;
  if (target->accepted.size() >= target->backlog)
    return profile_ == sim::profile::linux_ ? -EAGAIN : -ECONNREFUSED;
  if (s->stage != sim_socket::state::fresh)
    return s->stage == sim_socket::state::connected ? -EISCONN : -EINVAL;
  const sim_handle server = make(AF_UNIX, SOCK_STREAM);
  server->bound = true;
  server->local_path = path;
  server->remote_path = s->local_path;
  s->remote_path = path;
  connect_ends(s, server);
  target->accepted.push_back(server);
  changed(*target);
  changed(*s);
  return 0;
}

/// The address that replaces the unspecified address as a destination: the machine itself.
inline ip_address own_address(const sim_socket& s, const ip_address& any) {
  const bool v4 = any.is_v4() || (s.bound && s.local.address.is_v4());
  if (s.family == AF_INET && s.bound && !is_any(s.local.address)) return s.local.address;
  return loopback_address(!v4);
}

ANYIO_NET_FN int sim_network::connect(const sim_handle& s, const sockaddr* address, socklen_t size) {
  if (!s->is_ip()) {
    if (address->sa_family != AF_UNIX) return -EINVAL;
    return connect_unix(s, unix_path(address, size));
  }
  if (s->type == SOCK_STREAM) {
    switch (s->stage) {
      case sim_socket::state::connecting: return -EALREADY;
      case sim_socket::state::connected: return std::exchange(s->told, true) ? -EISCONN : 0;
      case sim_socket::state::listening: return -EISCONN;
      case sim_socket::state::refused:  // reports the error; the socket may try again
        s->stage = sim_socket::state::fresh;
        if (s->roaming) s->local.address = any_address(s->family == AF_INET6);
        if (s->unnamed) s->bound = false;
        return s->broken != 0 ? -std::exchange(s->broken, 0) : -ECONNABORTED;
      case sim_socket::state::fresh: break;
    }
  }
  ip_endpoint to;
  if (!read_address(*s, address, size, to)) return -EAFNOSUPPORT;
  if (is_any(to.address)) to.address = own_address(*s, to.address);
  if (to.address.is_v6() && s->bound && s->local.address.is_v4()) return -EAFNOSUPPORT;
  if (s->family == AF_INET6 && to.address.is_v4() && s->option(IPPROTO_IPV6, IPV6_V6ONLY) != 0)
    return -ENETUNREACH;
  if (s->type == SOCK_STREAM && to.address.is_multicast()) return -ENETUNREACH;
  if (!s->bound) {
    if (const int status = bind_any(s); status < 0) return status;
    s->unnamed = true;
  }
  s->roaming = s->roaming || is_any(s->local.address);
  if (is_any(s->local.address)) s->local.address = loopback_address(to.address.is_v6());
  s->remote = to;
  if (s->type == SOCK_DGRAM) {
    s->stage = sim_socket::state::connected;
    return 0;
  }
  s->stage = sim_socket::state::connecting;
  arrival a{arrival::kind::call, {}, s, {}, to, 0};
  call(a);
  return -EINPROGRESS;
}

/// Sends the first segment of a connection.
ANYIO_NET_FN void sim_network::call(arrival& a) {
  const sim_handle client = a.from.lock();
  if (client == nullptr || client->gone || client->stage != sim_socket::state::connecting) return;
  if (is_dead(client->local.address, a.target.address)) return call_again(a);
  a.what = arrival::kind::knock;
  const time_point when = arrival_time(client->local.address, a.target.address, true);
  dispatch(when, std::move(a));
}

/// Sends an unanswered first segment again after a pause. Gives up after 127 seconds, on the BSDs after 75.
ANYIO_NET_FN void sim_network::call_again(arrival& a) {
  const bool is_linux = profile_ == sim::profile::linux_;
  const int most_tries = is_linux ? 6 : 5;
  const bool over = a.tries == most_tries;
  const std::chrono::seconds pause(over && !is_linux ? 44 : 1 << a.tries);
  ++a.tries;
  if (over) {
    a.what = arrival::kind::refused;
    a.to = a.from;
    a.error_number = ETIMEDOUT;
  } else {
    a.what = arrival::kind::call;
  }
  const time_point when = anyio::detail::add(now_, pause);
  dispatch(when, std::move(a));
}

/// Handles the arrival of the first segment at its destination, where a listener may exist.
ANYIO_NET_FN void sim_network::knock(arrival& a) {
  const sim_handle client = a.from.lock();
  if (client == nullptr || client->gone || client->stage != sim_socket::state::connecting) return;
  const sim_handle listener = listener_at(a.target);
  const bool full = listener != nullptr && listener->accepted.size() >= listener->backlog;
  if (full || is_dead(a.target.address, client->local.address)) return call_again(a);
  const time_point answered = arrival_time(a.target.address, client->local.address, true);
  if (listener == nullptr && a.target == client->local) {  // it connects to itself
    client->peer = client;
    return dispatch(answered, arrival{arrival::kind::established, client, {}, {}, {}, 0});
  }
  if (listener == nullptr)
    return dispatch(answered, arrival{arrival::kind::refused, client, {}, {}, {}, ECONNREFUSED});
  const sim_handle server = make(client->family, SOCK_STREAM);
  server->family = listener->family;
  server->options = listener->options;
  server->bound = true;
  server->local = a.target;
  server->remote = client->local;
  server->stage = sim_socket::state::connected;
  server->told = true;
  server->peer = client;
  client->peer = server;
  listener->accepted.push_back(server);
  changed(*listener);
  client->last_arrival = answered;
  dispatch(answered, arrival{arrival::kind::established, client, {}, {}, {}, 0});
}

ANYIO_NET_FN int sim_network::accept(const sim_handle& s, sockaddr* address, socklen_t* size) {
  if (s->type != SOCK_STREAM) return -EOPNOTSUPP;
  if (s->stage != sim_socket::state::listening) return -EINVAL;
  if (s->accepted.empty()) return -EAGAIN;
  const sim_handle connection = std::move(s->accepted.front());
  s->accepted.pop_front();
  if (connection->reset && profile_ != sim::profile::linux_) return -ECONNABORTED;
  write_sim_address(*connection, connection->remote, connection->remote_path, address, size);
  idle_steps_ = 0;
  return add(connection);
}

/// Whether this connection is closed in both directions; Linux then forgets its remote address.
inline bool is_over(const sim_socket& s) {
  return s.is_ip() && s.type == SOCK_STREAM && (s.reset || (s.ended && s.sending_over));
}

ANYIO_NET_FN int sim_network::shutdown(const sim_handle& s, int how) {
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return -EINVAL;
  if (s->is_ip() && s->stage == sim_socket::state::listening) {
    if (how != SHUT_WR) stop_listening(*s);
    return 0;
  }
  if (s->is_ip() && s->stage == sim_socket::state::connecting) {
    s->stage = sim_socket::state::fresh;
    changed(*s);
    return 0;
  }
  const bool connected = s->stage == sim_socket::state::connected;
  const bool sends = connected && !s->sending_over && !is_over(*s);
  const int status = s->is_ip() && (!connected || is_over(*s)) ? -ENOTCONN : 0;
  if (how != SHUT_WR) s->receiving_over = true;
  if (how != SHUT_RD) s->sending_over = true;
  if (how != SHUT_RD && sends && s->type == SOCK_STREAM) send_to_peer(*s, arrival::kind::end);
  if (const sim_handle peer = s->peer.lock();
      how != SHUT_WR && peer != nullptr && !s->is_ip() && s->type == SOCK_STREAM) {
    peer->sending_over = true;  // UNIX sockets know at once that the peer will not receive
    changed(*peer);
  }
  changed(*s);
  return status;
}

ANYIO_NET_FN void sim_network::stop_listening(sim_socket& s) {
  s.stage = sim_socket::state::fresh;
  for (const sim_handle& waiting : std::exchange(s.accepted, {})) {
    send_to_peer(*waiting, arrival::kind::reset, ECONNRESET);
    waiting->gone = true;
  }
  changed(s);
}

ANYIO_NET_FN int sim_network::break_connection(const sim_handle& s) {
  if (s->stage != sim_socket::state::connected || s->type != SOCK_STREAM || s->reset) return -ENOTCONN;
  send_to_peer(*s, arrival::kind::reset, ECONNRESET);
  break_stream(*s, 0);
  return 0;
}

ANYIO_NET_FN int sim_network::address_of(const sim_handle& s, bool remote, sockaddr* address,
                                         socklen_t* size) {
  if (remote && (s->stage != sim_socket::state::connected || is_over(*s))) return -ENOTCONN;
  ip_endpoint endpoint = remote ? s->remote : s->local;
  if (!remote && !s->bound && s->is_ip()) endpoint.address = any_address(s->family == AF_INET6);
  write_sim_address(*s, endpoint, remote ? s->remote_path : s->local_path, address, size);
  return 0;
}

}}}  // namespace anyio::detail

#endif
