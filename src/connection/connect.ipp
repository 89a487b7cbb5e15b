// The steps of connecting.
#pragma once

#include "base/standard.hpp"
#include "connection/connect.hpp"
#include "system/unique_fd.hpp"

#include <cerrno>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

// --- one address

ANYIO_NET_FN bool connect_attempt::attempt(result<tcp_stream>& out) {
  return resource_ ? finish_connect(out) : begin_connect(out);
}

ANYIO_NET_FN bool connect_attempt::begin_connect(result<tcp_stream>& out) {
  loop_core& loop = loop_core::current();
  backend& system = loop.system();
  const bool is_mapped_v4 = is_mapped(target_.address);
  new_socket made(system, family_of(target_.address), SOCK_STREAM);
  if (settings_.no_delay) made.set_option(IPPROTO_TCP, TCP_NODELAY, 1);
  // On some systems an IPv6 socket reaches IPv4 only with this off.
  if (is_mapped_v4) made.set_option(IPPROTO_IPV6, IPV6_V6ONLY, 0);
  made.prepare(settings_.prepare, settings_.prepare_data);
  // connect(2) has no flag for non-blocking calls.
  if (settings_.prepare != nullptr && !made.failed()) system.keep_non_blocking(made.fd());
  if (settings_.local) {
    ip_endpoint local = *settings_.local;
    if (is_mapped_v4) local.address = mapped(local.address);
    // An error does not matter here: binding reports what is wrong.
    if (local.port != 0 && !made.failed()) write_option(system, made.fd(), SOL_SOCKET, SO_REUSEADDR, int{1});
    made.bind(socket_address(local));
  }
  bool waits = false;
  made.step("connect", [&] {
    const socket_address to(target_);
    const int status = system.connect(made.fd(), to.get(), to.size);
    waits = status == -EINPROGRESS;
    if (status < 0 && !waits) return status;
    // Watched only now: pollers report a socket that was never connected as hung up.
    int watched = 0;
    ref<tcp_resource> r(new tcp_resource(loop, made.fd(), watched));
    if (watched >= 0) resource_ = std::move(r);
    return watched;
  });
  if (made.failed()) return complete(out, made.failure());
  made.taken_over();
  resource_->set_waiting(write_side, this);
  return waits ? false : finish_connect(out);
}

ANYIO_NET_FN bool connect_attempt::finish_connect(result<tcp_stream>& out) {
  backend& system = resource_->core().system();
  const int fd = resource_->descriptor();
  int error_number = 0;
  if (int status = read_option(system, fd, SOL_SOCKET, SO_ERROR, error_number); status < 0)
    error_number = -status;
  if (error_number != 0) return complete(out, error(errc::os_error, error_number, name));
  socket_address peer;
  if (int status = read_address(system, fd, peer, true); status < 0) {
    // After a spurious wake-up the attempt continues. After an immediate reset there is no peer either.
    const int bits = status == -ENOTCONN ? system.poll_now(fd, ready_write) : 0;
    if (bits == 0) return false;
    return complete(out, error(errc::os_error, status == -ENOTCONN ? ECONNRESET : -status, name));
  }
  const ip_endpoint local = local_address_of(system, fd).endpoint();
  const ip_endpoint remote{unmapped(target_.address), target_.port};
  if (local == remote) {  // simultaneous open with itself: no listener exists there
    return complete(out, error(errc::os_error, ECONNREFUSED, name));
  }
  resource_->set_waiting(write_side, nullptr);
  resource_->exhausted[write_side] = false;
  resource_->local = local;
  resource_->remote = remote;
  return complete(out, socket_access::wrap_tcp(std::move(resource_)));
}

// --- several addresses

ANYIO_NET_FN connect_tcp_operation::connect_tcp_operation(std::string_view host, std::uint16_t port,
                                                          const tcp_connect_options& options)
    : operation(true),
      host_(host),
      local_host_(options.local_host),
      port_(port),
      local_port_(options.local_port),
      family_(options.family),
      delay_(options.happy_eyeballs_delay),
      settings_{std::nullopt, options.no_delay, options.prepare, options.prepare_data} {
  // An address in text needs no look-up and no memory for one; the look-up rejects one of another family.
  const result<ip_address> address = ip_address::parse(host);
  if (address && (family_ == AF_UNSPEC || family_ == family_of(*address)))
    target_ = ip_endpoint{*address, port};
}

ANYIO_NET_FN connect_tcp_operation::connect_tcp_operation(const ip_endpoint& target,
                                                          const tcp_connect_options& options)
    : connect_tcp_operation(std::string_view(), target.port, options) {
  target_ = target;
}

ANYIO_NET_FN connect_tcp_operation& connect_tcp_operation::operator=(connect_tcp_operation&& other) noexcept {
  left();
  operation::operator=(std::move(other));
  host_ = std::move(other.host_);
  local_host_ = std::move(other.local_host_);
  target_ = other.target_;
  port_ = other.port_;
  local_port_ = other.local_port_;
  family_ = other.family_;
  delay_ = other.delay_;
  settings_ = other.settings_;
  return *this;
}

ANYIO_NET_FN void connect_tcp_operation::left() noexcept {
  names_.withdraw();
  head_start_.cancel();
  while (!attempts_.empty()) delete static_cast<racing_attempt*>(attempts_.next);
  running_ = next_ = 0;
  stage_ = stage::fresh;
  locals_.clear();
  targets_.clear();
  first_failure_ = error();
}

ANYIO_NET_FN bool connect_tcp_operation::attempt(result<tcp_stream>& out) {
  switch (stage_) {
    case stage::fresh:
      if (!local_host_.empty()) return look_up(stage::local_name, out);
      if (!target_) return look_up(stage::name, out);
      return begin_race(out);
    case stage::local_name:
    case stage::name: return look_up(stage_, out);
    case stage::race: return go_on(out);
  }
  return false;
}

ANYIO_NET_FN bool connect_tcp_operation::look_up(stage s, result<tcp_stream>& out) {
  stage_ = s;
  result<std::vector<ip_endpoint>> names(errc::cancelled);
  const bool answered = s == stage::local_name ? names_.ask(*this, local_host_, local_port_, family_, names)
                                               : names_.ask(*this, host_, port_, reachable_family(), names);
  return answered && take_names(std::move(names), out);
}

/// The family of the addresses that the local end can reach; others need no query.
ANYIO_NET_FN int connect_tcp_operation::reachable_family() const noexcept {
  bool v4 = false;
  bool v6 = false;
  for (const ip_endpoint& local : locals_) (local.address.is_v6() ? v6 : v4) = true;
  return v4 == v6 ? family_ : v6 ? AF_INET6 : AF_INET;
}

ANYIO_NET_FN bool connect_tcp_operation::take_names(result<std::vector<ip_endpoint>>&& r,
                                                    result<tcp_stream>& out) {
  if (!r.has_value()) return complete(out, result_access::failure<tcp_stream>(r));
  if (stage_ == stage::local_name) {
    locals_ = *std::move(r);
    return target_ ? begin_race(out) : look_up(stage::name, out);
  }
  targets_ = *std::move(r);
  // Otherwise the reported error could be that of an address whose family this machine lacks.
  drop_missing_families(loop_core::current().system(), targets_);
  return begin_race(out);
}

/// RFC 8305, section 4: the families alternate, beginning with that of the first address.
inline void interleave_families(std::vector<ip_endpoint>& all) {
  for (std::size_t i = 1; i < all.size(); ++i) {
    const bool wanted = !all[i - 1].address.is_v6();
    std::size_t found = i;
    while (found != all.size() && all[found].address.is_v6() != wanted) ++found;
    if (found == all.size()) return;
    const ip_endpoint moved = all[found];
    for (; found != i; --found) all[found] = all[found - 1];
    all[i] = moved;
  }
}

ANYIO_NET_FN bool connect_tcp_operation::begin_race(result<tcp_stream>& out) {
  stage_ = stage::race;
  if (target_ && family_ != AF_UNSPEC && family_ != family_of(target_->address))
    return complete(out, error(errc::os_error, EAFNOSUPPORT, name));
  interleave_families(targets_);
  start_next();
  return go_on(out);
}

ANYIO_NET_FN void connect_tcp_operation::start_next() {
  const std::size_t count = target_ ? 1 : targets_.size();
  if (next_ == count) return;
  const ip_endpoint& target = target_ ? *target_ : targets_[next_];
  connect_settings settings = settings_;
  if (!local_host_.empty()) {
    // Without a local address of the family the attempt fails in bind, with the first local address.
    auto found = locals_.begin();
    while (found != locals_.end() && !may_reach(*found, target)) ++found;
    settings.local = found == locals_.end() ? locals_.front() : *found;
  } else if (local_port_ != 0) {
    settings.local = ip_endpoint{any_address(target.address.is_v6()), local_port_};
  }
  auto* a = new racing_attempt(connect_attempt(target, settings));
  a->is_first = next_++ == 0;
  attempts_.push_back(*a);
  ++running_;
  a->op.start(part<&connect_tcp_operation::ended>(this, a));
  loop_core& loop = loop_core::current();
  if (next_ < count) loop.arm(head_start_, add(loop.now(), std::max(delay_, duration::zero())), *this);
}

ANYIO_NET_FN bool connect_tcp_operation::go_on(result<tcp_stream>& out) {
  if (won_.take(out)) return true;
  const std::size_t count = target_ ? 1 : targets_.size();
  if (running_ == 0 && next_ == count) return complete(out, first_failure_);
  if (next_ < count && !head_start_.armed()) start_next();
  return false;
}

ANYIO_NET_FN void connect_tcp_operation::ended(racing_attempt* which, result<tcp_stream>&& r) {
  const bool first = which->is_first;
  delete which;
  --running_;
  if (r.has_value() || result_access::is_foreign(r)) {  // an exception from `prepare` also ends the race
    return won_.hand_over(r, *this);
  }
  // The error of the first address tried, if it failed. It may still run when a later one has failed.
  if (first || first_failure_.code() == errc::ok) first_failure_ = r.error();
  head_start_.cancel();  // the next address begins at once
  run_now(*this);
}

// --- UNIX

ANYIO_NET_FN bool connect_unix_operation::attempt(result<unix_stream>& out) {
  constexpr std::chrono::milliseconds first_pause(1);
  constexpr std::chrono::milliseconds longest_pause(50);
  if (pause_.armed()) return false;
  loop_core& loop = loop_core::current();
  backend& system = loop.system();
  const auto fail = [&](int error_number, const char* step) {
    out = error(errc::os_error, error_number, step);
    fd_.reset();
    return true;
  };
  const result<unix_address> address = make_unix_address(path_, name);
  if (!address) return complete(out, address.error());
  if (!fd_) {
    const int fd = system.open_socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return fail(-fd, "socket");
    fd_.reset(fd);
    next_pause_ = first_pause;
  }
  const int status =
      system.connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address->storage), address->size);
  if (status == -EAGAIN) {  // the backlog is full, and no event reports when it has room
    loop.arm(pause_, add(loop.now(), next_pause_), *this);
    next_pause_ = std::min<duration>(next_pause_ * 2, longest_pause);
    return false;
  }
  if (status < 0) return fail(-status, name);
  std::string local = local_address_of(system, fd_.get()).path();
  out = socket_access::make_unix(loop, fd_.get(), shared_path(std::move(local)), shared_path(path_), name);
  if (out.has_value()) static_cast<void>(fd_.release());
  return true;
}

// --- listening at a name

ANYIO_NET_FN bool create_tcp_listener_operation::attempt(result<tcp_listener>& out) {
  loop_core& loop = loop_core::current();
  const bool known =
      options_.family == AF_UNSPEC || options_.family == AF_INET || options_.family == AF_INET6;
  if (!known) return complete(out, error(errc::os_error, EAFNOSUPPORT, name));
  if (host_.empty()) {
    bool dual_stack = false;
    auto addresses = any_addresses(loop.system(), options_.family, options_.local_port, dual_stack);
    return complete(out, listen_tcp(loop, std::move(addresses), dual_stack, options_));
  }
  result<std::vector<ip_endpoint>> names(errc::cancelled);
  if (!names_.ask(*this, host_, options_.local_port, options_.family, names)) return false;
  if (!names.has_value()) return complete(out, result_access::failure<tcp_listener>(names));
  drop_missing_families(loop.system(), *names);
  return complete(out, listen_tcp(loop, *std::move(names), false, options_));
}

}}}  // namespace anyio::detail
