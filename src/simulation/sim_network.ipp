// The state of the network: descriptors, readiness, time, data in transit, names.
#pragma once

#include "base/slice.hpp"
#include "simulation/sim_network.hpp"

#if defined(ANYIO_NET_SIM)

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <netinet/in.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Not zero, so that times before the beginning can be represented.
inline constexpr time_point sim_beginning = time_point(std::chrono::hours(1));

ANYIO_NET_FN sim_network::sim_network(const sim::options& options)
    : choices(options.seed, options.choices),
      begin_(sim_beginning),
      now_(sim_beginning),
      time_limit_(options.time_limit),
      calendar_(options.calendar),
      step_limit_(options.step_limit),
      spin_limit_(std::max<std::uint64_t>(100'000, options.step_limit / 100)),
      log_(options.log),
      profile_(options.profile),
      everywhere_(options.faults) {}

/// Clears the inboxes, since sockets in one another's inboxes would never be destroyed.
ANYIO_NET_FN sim_network::~sim_network() {
  for (const auto& place : all_)
    if (const sim_handle s = place.lock()) s->inbox.clear();
}

// --- time

ANYIO_NET_FN void sim_network::trace(const char* call, int fd, std::int64_t outcome) {
  const auto add = [&](std::uint64_t value) {
    for (int i = 0; i < 8; ++i) hash_ = (hash_ ^ ((value >> (8 * i)) & 0xff)) * 0x100000001b3;
  };
  for (const char* p = call; *p != '\0'; ++p)
    hash_ = (hash_ ^ static_cast<unsigned char>(*p)) * 0x100000001b3;
  add(static_cast<std::uint64_t>(static_cast<std::uint32_t>(fd)));
  add(static_cast<std::uint64_t>(outcome));
  add(static_cast<std::uint64_t>(now_.time_since_epoch().count()));
  if (++steps_ >= step_limit_) end(sim_verdict::steps_over);
  if (++idle_steps_ >= spin_limit_) end(sim_verdict::spins);
  if (log_ == nullptr) return;
  std::string line = std::to_string(elapsed().count()) + " ns: " + call;
  if (fd >= 0) line += " fd " + std::to_string(fd);
  line += " = " + std::to_string(outcome);
  if (outcome < 0) {
    const std::string_view name = errno_name(static_cast<int>(-outcome));
    if (!name.empty()) line.append(" (").append(name).append(")");
  }
  log_(line);
}

ANYIO_NET_FN bool sim_network::advance(time_point deadline) {
  const time_point limit = anyio::detail::add(begin_, time_limit_);
  const bool something = !coming_.empty() && coming_.begin()->first <= deadline;
  const time_point next = something ? coming_.begin()->first : deadline;
  if (!something && deadline == time_point::max()) return false;
  if (next > limit) {
    now_ = std::max(now_, limit);
    end(sim_verdict::time_over);
    return false;
  }
  if (next > now_) idle_steps_ = 0;
  now_ = std::max(now_, next);
  while (!coming_.empty() && coming_.begin()->first <= now_) {
    arrival a = std::move(coming_.begin()->second);
    coming_.erase(coming_.begin());
    arrive(a);
  }
  return something;
}

ANYIO_NET_FN std::int64_t sim_network::calendar() {
  if (calendar_ == 0) calendar_ = system_calendar();
  return calendar_ + std::chrono::duration_cast<std::chrono::seconds>(elapsed()).count();
}

// --- descriptors

ANYIO_NET_FN sim_handle sim_network::find(int fd) const {
  const auto found = descriptors_.find(fd);
  return found == descriptors_.end() ? nullptr : found->second.socket;
}

ANYIO_NET_FN int sim_network::refusal(int fd) const noexcept {
  return fd >= 0 && fd < first_descriptor ? -EOPNOTSUPP : -EBADF;
}

ANYIO_NET_FN sim_handle sim_network::make(int family, int type) {
  auto socket = std::make_shared<sim_socket>();
  socket->family = family;
  socket->type = type;
  socket->serial = next_serial_++;
  if (all_.size() == all_.capacity()) std::erase_if(all_, [](const auto& place) { return place.expired(); });
  all_.push_back(socket);
  return socket;
}

ANYIO_NET_FN int sim_network::add(const sim_handle& socket) {
  int fd = next_;
  if (free_.empty()) {
    ++next_;
  } else {
    fd = *free_.begin();
    free_.erase(free_.begin());
  }
  descriptors_[fd].socket = socket;
  ++socket->descriptors;
  socket->numbers.push_back(fd);
  return fd;
}

ANYIO_NET_FN int sim_network::open(int family, int type) {
  if (family != AF_UNIX && family != AF_INET && family != AF_INET6) return -EAFNOSUPPORT;
  if (type != SOCK_STREAM && type != SOCK_DGRAM) return -EPROTONOSUPPORT;
  return add(make(family, type));
}

ANYIO_NET_FN int sim_network::open_pair(int family, int type, int (&fds)[2]) {
  if (family != AF_UNIX) return -EOPNOTSUPP;
  if (type != SOCK_STREAM && type != SOCK_DGRAM) return -EPROTONOSUPPORT;
  const sim_handle a = make(family, type);
  const sim_handle b = make(family, type);
  connect_ends(a, b);
  fds[0] = add(a);
  fds[1] = add(b);
  return 0;
}

ANYIO_NET_FN int sim_network::close(int fd) {
  const auto found = descriptors_.find(fd);
  if (found == descriptors_.end()) return refusal(fd);
  const sim_handle socket = found->second.socket;
  descriptors_.erase(found);
  free_.insert(fd);
  std::erase(socket->numbers, fd);
  drop(socket);
  return 0;
}

/// Drops one reference; the last one closes the socket.
ANYIO_NET_FN void sim_network::drop(const sim_handle& socket) {
  if (--socket->descriptors == 0) end_of_socket(*socket);
}

ANYIO_NET_FN void sim_network::drop_chunk(sim_chunk& chunk) {
  for (const sim_handle& passed : chunk.passed) drop(passed);
  chunk.passed.clear();
}

ANYIO_NET_FN void sim_network::end_of_socket(sim_socket& s) {
  s.gone = true;
  for (const sim_handle& waiting : std::exchange(s.accepted, {})) {
    send_to_peer(*waiting, arrival::kind::reset, ECONNRESET);
    waiting->gone = true;
  }
  const bool unread = !s.inbox.empty();
  for (sim_chunk& chunk : s.inbox) drop_chunk(chunk);
  s.inbox.clear();
  s.inbox_bytes = 0;
  drop_held(s);
  // The peer may have accepted the connection before this end knows of it.
  if (s.stage == sim_socket::state::connecting) return send_to_peer(s, arrival::kind::reset, ECONNRESET);
  if (s.stage != sim_socket::state::connected || s.type != SOCK_STREAM || s.reset) return;
  const bool at_once = s.is_ip() && s.option(SOL_SOCKET, SO_LINGER) != 0;  // SO_LINGER with a time of 0
  if (unread || at_once) {
    send_to_peer(s, arrival::kind::reset, ECONNRESET);
  } else {
    send_to_peer(s, arrival::kind::end);  // a second end has no effect
  }
}

// --- readiness

ANYIO_NET_FN std::uint32_t sim_network::level(sim_socket& s) const {
  constexpr std::uint32_t hung_up = ready_read | ready_write | ready_end;  // poll(2)'s POLLHUP and POLLERR
  const bool in_over = s.receiving_over || s.ended;
  std::uint32_t bits = 0;
  if (s.type == SOCK_DGRAM) {
    if (s.broken != 0 || (s.receiving_over && s.sending_over)) return hung_up;
    if (!s.inbox.empty()) bits |= ready_read;
    if (s.receiving_over) bits |= ready_read | ready_end;
    const sim_handle peer = s.family == AF_UNIX ? s.peer.lock() : nullptr;
    if (peer == nullptr || !is_full(*peer, s)) bits |= ready_write;
    return bits;
  }
  switch (s.stage) {
    case sim_socket::state::listening:
      if (!s.is_ip() && in_over) return s.sending_over ? hung_up : ready_read | ready_end;
      return s.accepted.empty() ? 0U : ready_read;
    case sim_socket::state::connecting: return 0;
    case sim_socket::state::fresh:
    case sim_socket::state::refused: return hung_up;
    case sim_socket::state::connected: break;
  }
  if (s.broken != 0 || s.reset || (in_over && s.sending_over)) return hung_up;
  if (s.inbox_bytes != 0) bits |= ready_read;
  if (in_over) bits |= ready_read | ready_end;
  const sim_handle peer = s.peer.lock();
  const bool room = peer == nullptr || peer->gone || peer->inbox_bytes + peer->on_the_way < window_of(*peer);
  if (room || s.sending_over) bits |= ready_write;
  return bits;
}

/// Whether a UNIX datagram socket accepts no message from `from` now. On Linux, two sockets that are
/// connected to each other may send as much as their buffer memory allows.
ANYIO_NET_FN bool sim_network::is_full(const sim_socket& to, const sim_socket& from) const {
  if (to.gone || &to == &from) return false;
  if (profile_ == sim::profile::linux_ && to.peer.lock().get() == &from) return to.inbox_bytes >= 131072;
  return to.inbox.size() + to.on_the_way >= window_of(to);
}

ANYIO_NET_FN void sim_network::signal(int fd, descriptor& d) {
  if (!std::exchange(d.signalled, true)) signalled_.push_back(fd);
}

ANYIO_NET_FN void sim_network::changed(sim_socket& s) {
  for (const int fd : s.numbers) {
    descriptor& d = descriptors_.find(fd)->second;
    if (d.watched || d.armed) signal(fd, d);
  }
}

ANYIO_NET_FN int sim_network::watch(int fd, std::uint64_t token, bool once, std::uint32_t interest) {
  const auto found = descriptors_.find(fd);
  if (found == descriptors_.end()) return refusal(fd);
  descriptor& d = found->second;
  if (d.watched) return -EEXIST;
  (once ? d.armed : d.watched) = true;
  if (once) d.interest = interest;
  d.token = token;
  signal(fd, d);
  return 0;
}

ANYIO_NET_FN void sim_network::forget(int fd) {
  const auto found = descriptors_.find(fd);
  if (found != descriptors_.end()) found->second.watched = found->second.armed = false;
}

ANYIO_NET_FN int sim_network::collect(slice<poll_event> events) {
  std::size_t count = 0;
  std::vector<int> later;
  while (!signalled_.empty()) {
    const std::size_t which = choices.pick(signalled_.size());
    const int fd = signalled_[which];
    signalled_.erase(signalled_.begin() + static_cast<std::ptrdiff_t>(which));
    const auto found = descriptors_.find(fd);
    if (found == descriptors_.end() || !found->second.signalled)
      continue;  // it was closed, and the number may be reused
    descriptor& d = found->second;
    if (count == events.size()) {
      later.push_back(fd);
      continue;
    }
    d.signalled = false;
    std::uint32_t bits = level(*d.socket);
    if (d.armed) bits &= d.interest | ready_end;
    if (bits == 0 || !(d.watched || d.armed)) continue;
    d.armed = false;
    events[count++] = {d.token, bits};
  }
  signalled_ = std::move(later);
  return static_cast<int>(count);
}

// --- data in transit

ANYIO_NET_FN const sim::faults& sim_network::link(const ip_address& from, const ip_address& to) const {
  const auto found = links_.find({from, to});
  return found == links_.end() ? everywhere_ : found->second;
}

ANYIO_NET_FN void sim_network::set_link(const ip_address& from, const ip_address& to,
                                        const sim::faults& faults) {
  links_[{from, to}] = faults;
}

ANYIO_NET_FN bool sim_network::is_dead(const ip_address& from, const ip_address& to) const {
  return link(from, to).drop >= 1;
}

/// The arrival time of data that is sent now. A lost segment of a stream is sent again, and arrives late.
ANYIO_NET_FN time_point sim_network::arrival_time(const ip_address& from, const ip_address& to,
                                                  bool reliable) {
  const sim::faults& way = link(from, to);
  duration time = std::max(way.latency_min, duration::zero());
  if (way.latency_max > time)
    time += duration(static_cast<std::int64_t>(
        choices.pick(static_cast<std::size_t>((way.latency_max - time).count()) + 1)));
  constexpr std::chrono::milliseconds again(200);
  for (int lost = 0; reliable && lost < 5 && choices.chance(way.drop); ++lost) time += again * (1 << lost);
  return anyio::detail::add(now_, time);
}

ANYIO_NET_FN void sim_network::dispatch(time_point when, arrival a) {
  const bool at_once = a.what == arrival::kind::bytes || a.what == arrival::kind::end ||
                       a.what == arrival::kind::reset || a.what == arrival::kind::datagram ||
                       a.what == arrival::kind::unreachable;
  const bool next = when <= now_ && (coming_.empty() || coming_.begin()->first > now_);
  if (at_once && next) return arrive(a);
  coming_.emplace(when, std::move(a));
}

ANYIO_NET_FN void sim_network::arrive(arrival& a) {
  const sim_handle to = a.to.lock();
  switch (a.what) {
    case arrival::kind::retry: return retry(a);
    case arrival::kind::call: return call(a);
    case arrival::kind::knock: return knock(a);
    case arrival::kind::datagram: {
      // The sending socket: if it is connected, it is notified of a datagram that no socket received.
      const sim_handle from = a.from.lock();
      if (to != nullptr) {  // UNIX: the receiver was found when the datagram was sent
        --to->on_the_way;
        if (to->gone) return drop_chunk(a.chunk);
        to->inbox_bytes += a.chunk.data.size();
        to->inbox.push_back(std::move(a.chunk));
        return changed(*to);
      }
      const std::vector<sim_handle> receivers = receivers_of(a.target, a.chunk.from);
      constexpr std::size_t room = 212992;  // Linux's net.core.rmem_default
      for (const sim_handle& s : receivers) {
        if (s->inbox_bytes + a.chunk.data.size() > room) continue;
        s->inbox_bytes += a.chunk.data.size();
        s->inbox.push_back(sim_chunk{a.chunk.data, {}, a.chunk.from, {}, a.chunk.info});
        changed(*s);
      }
      const bool nobody = receivers.empty() && !a.target.address.is_multicast() &&
                          !is_dead(a.target.address, a.chunk.from.address);
      const bool hears = from != nullptr && from->stage == sim_socket::state::connected && !from->gone &&
                         from->remote == a.target;
      if (nobody && hears) {
        arrival notice{arrival::kind::unreachable, from, {}, {}, {}, ECONNREFUSED};
        dispatch(arrival_time(a.target.address, from->local.address, false), std::move(notice));
      }
      return;
    }
    case arrival::kind::unreachable:
      if (to == nullptr || to->gone) return;
      to->broken = a.error_number;
      return changed(*to);
    case arrival::kind::established:
      if (to == nullptr || to->gone || to->stage != sim_socket::state::connecting) return;
      to->stage = sim_socket::state::connected;
      return changed(*to);
    case arrival::kind::refused:
      if (to == nullptr || to->gone || to->stage != sim_socket::state::connecting) return;
      to->stage = sim_socket::state::refused;
      to->broken = a.error_number;
      return changed(*to);
    case arrival::kind::bytes:
      if (to == nullptr) {  // an IP receiver was closed meanwhile; UNIX data arrives at once
        drop_chunk(a.chunk);
        const sim_handle from = a.from.lock();
        if (from != nullptr && !is_dead(from->remote.address, from->local.address))
          dispatch(arrival_time(from->remote.address, from->local.address, true),
                   arrival{arrival::kind::reset, from, {}, {}, {}, ECONNRESET});
        return;
      }
      to->on_the_way -= a.chunk.data.size();
      return arrive_bytes(*to, std::move(a.chunk));
    case arrival::kind::end:
      if (to == nullptr || to->gone || to->reset) return;
      to->ended = true;
      if (!to->is_ip()) {  // a UNIX socket knows at once that its closed peer will not receive
        const sim_handle closer = a.from.lock();
        if (closer == nullptr || closer->gone || closer->receiving_over) to->sending_over = true;
      }
      return changed(*to);
    case arrival::kind::reset:
      if (to == nullptr || to->gone) return;
      return break_stream(*to, a.error_number);
  }
}

ANYIO_NET_FN void sim_network::break_stream(sim_socket& s, int error_number) {
  if (s.reset) return;
  s.reset = true;
  s.broken = s.ended && s.is_ip() && error_number == ECONNRESET ? EPIPE : error_number;
  if (profile_ != sim::profile::linux_ && s.is_ip()) {  // unread data is lost on the BSDs and macOS
    s.inbox.clear();
    s.inbox_bytes = 0;
  }
  changed(s);
}

ANYIO_NET_FN void sim_network::arrive_bytes(sim_socket& s, sim_chunk&& chunk) {
  if (s.gone || s.reset) {
    // A segment for a connection that no longer exists is answered with a reset (RFC 9293, section 3.5.2).
    drop_chunk(chunk);
    send_to_peer(s, arrival::kind::reset, s.is_ip() ? ECONNRESET : EPIPE);
    return;
  }
  if (s.is_ip() && s.receiving_over && s.sending_over) {  // RFC 1122, section 4.2.2.13
    send_to_peer(s, arrival::kind::reset, ECONNRESET);
    return break_stream(s, ECONNRESET);
  }
  s.inbox_bytes += chunk.data.size();
  const bool joins = !s.inbox.empty() && s.inbox.back().passed.empty() && chunk.passed.empty();
  if (joins) {
    s.inbox.back().data += chunk.data;
  } else {
    s.inbox.push_back(std::move(chunk));
  }
  changed(s);
}

/// Sends an event to the peer of a stream, after the data that is in transit.
ANYIO_NET_FN void sim_network::send_to_peer(sim_socket& s, arrival::kind what, int error_number) {
  if (const sim_handle peer = s.peer.lock()) transmit(s, peer, arrival{what, peer, {}, {}, {}, error_number});
}

ANYIO_NET_FN void sim_network::transmit(sim_socket& s, const sim_handle& peer, arrival a) {
  a.from = s.weak_from_this();
  time_point when = now_;
  if (s.is_ip()) {
    const bool dead = is_dead(s.local.address, s.remote.address);
    if (a.what == arrival::kind::reset) {  // sent once; it also drops the held segments
      drop_held(*peer);
      if (dead) return;
    } else if (dead || !peer->held.empty()) {
      peer->held.push_back(std::move(a));
      if (peer->held.size() > 1) return;
      const time_point again = anyio::detail::add(now_, std::chrono::milliseconds(200));
      return dispatch(again, arrival{arrival::kind::retry, peer, s.weak_from_this(), {}, {}, 0});
    }
    when = std::max(arrival_time(s.local.address, s.remote.address, true), peer->last_arrival);
    peer->last_arrival = when;
  }
  dispatch(when, std::move(a));
}

ANYIO_NET_FN void sim_network::drop_held(sim_socket& s) {
  for (arrival& a : s.held) {
    s.on_the_way -= a.chunk.data.size();
    drop_chunk(a.chunk);
  }
  s.held.clear();
}

/// Sends the segments again that a dead link held back, at increasing intervals, until the sender gives up,
/// as with Linux's net.ipv4.tcp_retries2 of 15.
ANYIO_NET_FN void sim_network::retry(arrival& a) {
  constexpr int most_tries = 15;
  const sim_handle to = a.to.lock();
  const sim_handle from = a.from.lock();
  if (to == nullptr) {
    const bool answered = from != nullptr && !is_dead(from->local.address, from->remote.address) &&
                          !is_dead(from->remote.address, from->local.address);
    if (answered) break_stream(*from, ECONNRESET);
    return;
  }
  if (to->held.empty()) return;
  if (!is_dead(to->remote.address, to->local.address)) {
    for (arrival& held : std::exchange(to->held, {})) {
      const time_point when =
          std::max(arrival_time(to->remote.address, to->local.address, true), to->last_arrival);
      to->last_arrival = when;
      dispatch(when, std::move(held));
    }
    return;
  }
  if (a.tries++ == most_tries) {
    drop_held(*to);
    if (from != nullptr) break_stream(*from, ETIMEDOUT);
    return;
  }
  const duration pause =
      std::min<duration>(std::chrono::milliseconds(200) * (1 << a.tries), std::chrono::minutes(2));
  const time_point when = anyio::detail::add(now_, pause);
  dispatch(when, std::move(a));
}

// --- names, paths, signals

ANYIO_NET_FN int sim_network::identify(const char* path, file_identity& identity) {
  const auto found = files_.find(path);
  if (found == files_.end()) return -ENOENT;
  identity = {};
  identity.is_socket = true;
  identity.device = 1;
  identity.inode = found->second.inode;
  return 0;
}

ANYIO_NET_FN int sim_network::identify_socket(const sim_handle& s, file_identity& identity) {
  identity = {};
  identity.is_socket = true;
  identity.device = 2;
  identity.inode = s->serial;
  return 0;
}

ANYIO_NET_FN int sim_network::unlink(const char* path) { return files_.erase(path) != 0 ? 0 : -ENOENT; }

/// Converts a name to lower case and removes the final dot, since neither matters in a name.
inline std::string plain_name(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  std::string plain(name);
  for (char& c : plain)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return plain;
}

ANYIO_NET_FN resolved sim_network::resolve(const std::string& host, std::uint16_t port, int family) {
  resolved answer;
  const auto found = names_.find(plain_name(host));
  if (found == names_.end()) {
    answer.status = -ENOENT;
    answer.reason = "no such name in the simulation";
    return answer;
  }
  for (const ip_address& address : found->second) {
    if (family == AF_INET && !address.is_v4()) continue;
    if (family == AF_INET6 && !address.is_v6()) continue;
    answer.endpoints.push_back(ip_endpoint{address, port});
  }
  return answer;
}

ANYIO_NET_FN void sim_network::set_name(std::string_view name, std::span<const ip_address> addresses) {
  names_[plain_name(name)].assign(addresses.begin(), addresses.end());
}

ANYIO_NET_FN int sim_network::catch_signal(int number) {
  if (number < 1 || number > 64 || number == 9 || number == 19) return -EINVAL;  // SIGKILL, SIGSTOP
  ++caught_[number];
  return 0;
}

ANYIO_NET_FN void sim_network::release_signal(int number) {
  const auto found = caught_.find(number);
  if (found != caught_.end() && --found->second == 0) {
    caught_.erase(found);
    pending_signals_.erase(number);
  }
}

ANYIO_NET_FN bool sim_network::take_signal(int number) { return pending_signals_.erase(number) != 0; }

ANYIO_NET_FN void sim_network::raise(int number) {
  if (caught_.contains(number)) pending_signals_.insert(number);
}

// --- the report

ANYIO_NET_FN std::string sim_network::dump() const {
  std::string text;
  const auto name_of = [](const sim_socket& s, bool remote) {
    if (s.is_ip()) return (remote ? s.remote : s.local).to_string();
    std::string path = remote ? s.remote_path : s.local_path;
    if (!path.empty() && path.front() == '\0') path.front() = '@';
    return path.empty() ? std::string("-") : path;
  };
  for (const auto& [fd, d] : descriptors_) {
    const sim_socket& s = *d.socket;
    constexpr const char* stages[] = {"fresh", "listening", "connecting", "connected", "refused"};
    const char* kind = s.is_ip() ? (s.type == SOCK_STREAM ? "tcp" : "udp")
                                 : (s.type == SOCK_STREAM ? "unix" : "unix datagram");
    text += "fd " + std::to_string(fd);
    text.append(": ").append(kind).append(" ").append(stages[static_cast<std::size_t>(s.stage)]);
    text.append(" ").append(name_of(s, false)).append(" -> ").append(name_of(s, true));
    text += ", unread " + std::to_string(s.inbox_bytes) + ", on the way " + std::to_string(s.on_the_way);
    if (s.ended) text += ", ended";
    if (s.reset) text += ", reset";
    if (!s.accepted.empty()) text += ", to accept " + std::to_string(s.accepted.size());
    text += '\n';
  }
  return text;
}

}}}  // namespace anyio::detail

#endif
