// Listening sockets: how they are made, and the errors of accepting.
#pragma once

#include "base/standard.hpp"
#include "connection/listener.hpp"
#include "connection/unix_bind.hpp"
#include "system/unique_fd.hpp"

#include <cerrno>
#include <cstdio>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

ANYIO_NET_COLD int listener_resource::add(int fd, const ip_endpoint& local, bool transparent) {
  const bool any = local.address == ip_address::any_v4() || local.address == ip_address::any_v6();
  sockets.reserve(sockets.size() + 1);  // `sockets` holds only watched descriptors, since `shut` forgets them
  registration watched{fd, 0};
  const int status = core().watch(watched, *this);
  if (status >= 0) sockets.push_back({watched, local, any || transparent});
  return status;
}

ANYIO_NET_COLD void listener_resource::shut() noexcept {
  for (listening_socket& s : sockets) core().forget(s.registration);
  if (tell_closed != nullptr) tell_closed(*server);
  // Not in a forked child: the parent still listens there.
  if (remove_own_file != nullptr && !core().inherited()) remove_own_file(*this);
}

[[gnu::cold]] inline void remove_file_of(const listener_resource& r) {
  file_identity now;
  path_service& paths = paths_of(r.core().system());
  const bool still_own = r.own_file.is_socket && paths.identify(r.own_path.c_str(), now) >= 0 &&
                         now.is_socket && now.device == r.own_file.device && now.inode == r.own_file.inode;
  if (still_own) paths.unlink(r.own_path.c_str());
}

/// Whether an error concerns only one connection, and not the listener (accept(2), "Error handling").
inline bool concerns_one_connection(int e) {
  switch (e) {
    case ECONNABORTED:
    case ECONNRESET:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENETUNREACH:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ETIMEDOUT:
#if defined(ENONET)
    case ENONET:
#endif
      return true;
    default: return false;
  }
}

/// The cost of a connection until its handler runs, in system calls.
inline constexpr std::size_t cost_of_accept = 3;

/// The number of pending connections of a listening TCP socket; 0 where the system does not report it.
inline std::uint32_t waiting_connections([[maybe_unused]] backend& system, [[maybe_unused]] int fd) noexcept {
#if defined(__linux__) && defined(TCP_INFO)
  tcp_info info{};
  if (read_option(system, fd, IPPROTO_TCP, TCP_INFO, info) >= 0) return info.tcpi_unacked;
#endif
  return 0;
}

/// accept(2) has no flag like MSG_DONTWAIT, and another user of the shared socket may have cleared
/// O_NONBLOCK. So the flag is restored before a call that might find no connection. Under load the pending
/// connections are counted instead: that many calls find one each, and the poller reports later ones.
ANYIO_NET_COLD void listener_resource::look(const listening_socket& s) {
  constexpr std::uint32_t looks_of_check = 16;
  const bool is_tcp = s.local.port != 0;
  if (in_a_row_ >= 2 && is_tcp && sockets.size() == 1) {
    known_ = waiting_connections(core().system(), s.registration.fd);
    exhausted[read_side] = known_ >= 2;
    // Another process may accept some of them; then the flag matters.
    if (known_ >= 2 && looks_++ % looks_of_check != 0) return;
    if (known_ < 2) known_ = in_a_row_ = 0;
  }
  core().system().keep_non_blocking(s.registration.fd);
}

ANYIO_NET_FN listener_resource::outcome listener_resource::accept(accepted& a, error& why) {
  if (exhausted[read_side] && known_ == 0) return outcome::waiting;
  std::size_t empty = 0;
  for (int call = 0; call < calls_of_attempt; ++call) {
    const listening_socket& s = sockets[next_ % sockets.size()];
    if (known_ == 0) look(s);
    a.remote.size = sizeof a.remote.storage;
    core().count_work(0, cost_of_accept);
    const int fd = core().system().accept(s.registration.fd, a.remote.get(), &a.remote.size);
    if (fd >= 0) {
      a.fd = fd;
      a.local = s.local;
      a.any_address = s.any_address;
      if (known_ != 0) --known_;
      if (++in_a_row_ % calls_of_attempt == 0) ++next_;  // the other sockets get a turn
      return outcome::connection;
    }
    known_ = 0;
    if (fd == -EAGAIN) {
      in_a_row_ = 0;
      ++next_;
      if (++empty < sockets.size()) continue;
      exhausted[read_side] = true;
      return outcome::waiting;
    }
    exhausted[read_side] = false;
    why = error(errc::os_error, -fd, "accept");
    if (fd == -EMFILE || fd == -ENFILE || is_shortage(fd)) return outcome::shortage;
    if (!concerns_one_connection(-fd)) return outcome::fatal;
    report(why);
    return outcome::again;  // so that each error is reported
  }
  return outcome::again;
}

ANYIO_NET_COLD void listener_resource::pause(timer& t, node& waiter) {
  constexpr std::chrono::milliseconds pause_of_accept(100);
  core().wait_for_descriptor(starved_);
  core().arm(t, core().now() + pause_of_accept, waiter);
}

ANYIO_NET_FN result<tcp_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                              const listener_resource::accepted& a, tcp_stream*) {
  // An error does not matter: the connection may have been reset already.
  if (from.no_delay) write_option(loop.system(), a.fd, IPPROTO_TCP, TCP_NODELAY, int{1});
  return socket_access::make_tcp(loop, a.fd, a.any_address ? nullptr : &a.local, a.remote.endpoint(),
                                 "accept");
}

ANYIO_NET_FN result<unix_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                               const listener_resource::accepted& a, unix_stream*) {
  return socket_access::make_unix(loop, a.fd, from.path, shared_path(a.remote.path()), "accept");
}

#if ANYIO_NET_EXCEPTIONS
ANYIO_NET_COLD void print_exception(const char* where, const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& known) {
    std::fprintf(stderr, "anyio: %s: unhandled exception in a handler: %s\n", where, known.what());
  } catch (...) {
    std::fprintf(stderr, "anyio: %s: unhandled exception of an unknown type in a handler\n", where);
  }
}
#endif

/// Whether a listening socket accepts connections to addresses that are not its own (ip(7)).
[[gnu::cold]] inline bool is_transparent([[maybe_unused]] backend& system, [[maybe_unused]] int fd,
                                         [[maybe_unused]] const ip_endpoint& local) {
#if defined(IP_TRANSPARENT) && defined(IPV6_TRANSPARENT)
  const bool v6 = local.address.is_v6();
  int on = 0;
  const int status =
      read_option(system, fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, on);
  return status >= 0 && on != 0;
#else
  return false;
#endif
}

ANYIO_NET_COLD std::vector<ip_endpoint> any_addresses(backend& system, int family, std::uint16_t port,
                                                      bool& dual_stack) {
  const bool v6 = family != AF_INET && names_of(system).has_family(AF_INET6);
#if defined(__OpenBSD__)  // there a socket has only one family
  dual_stack = false;
  if (v6 && family == AF_UNSPEC)
    return {ip_endpoint{ip_address::any_v6(), port}, ip_endpoint{ip_address::any_v4(), port}};
#else
  dual_stack = v6 && family == AF_UNSPEC;
#endif
  if (v6 || family == AF_INET6) return {ip_endpoint{ip_address::any_v6(), port}};
  return {ip_endpoint{ip_address::any_v4(), port}};
}

/// Opens a listening socket at one address.
[[gnu::cold]] inline new_socket listen_at(backend& system, const ip_endpoint& local, bool dual_stack,
                                          const tcp_listener_options& options) {
  const bool v6 = local.address.is_v6();
  new_socket made(system, family_of(local.address), SOCK_STREAM);
#if defined(SO_REUSEPORT_LB)
  constexpr int share_port = SO_REUSEPORT_LB;  // FreeBSD: SO_REUSEPORT gives one listener all connections
#else
  constexpr int share_port = SO_REUSEPORT;
#endif
  made.set_option(SOL_SOCKET, SO_REUSEADDR, 1);
  if (options.reuse_port) made.set_option(SOL_SOCKET, share_port, 1);
  if (v6) made.set_option(IPPROTO_IPV6, IPV6_V6ONLY, dual_stack || is_mapped(local.address) ? 0 : 1);
  made.prepare(options.prepare, options.prepare_data);
  made.bind(socket_address(local));
  made.listen(options.backlog);
  return made;
}

ANYIO_NET_COLD result<tcp_listener> listen_tcp(loop_core& core, std::vector<ip_endpoint> addresses,
                                               bool dual_stack, const tcp_listener_options& options) {
  backend& system = core.system();
  error last(errc::os_error, EADDRNOTAVAIL, "bind");
  // All addresses share one port. If the kernel chooses it for one address, it may be in use at another, so
  // each address gets to choose once.
  for (std::size_t round = 0; round < addresses.size(); ++round) {
    const std::uint16_t wanted_port = addresses[round].port;
    ref<listener_resource> r(new listener_resource(core));
    r->no_delay = options.no_delay;
    bool in_use = false;
    std::uint16_t port = wanted_port;
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      ip_endpoint at = addresses[(round + i) % addresses.size()];
      if (port != 0) at.port = port;
      new_socket made = listen_at(system, at, dual_stack, options);
      if (made.failed()) {
        last = made.failure();
        const bool chosen_by_kernel = wanted_port == 0 && port != 0;
        if (!chosen_by_kernel || last != std::errc::address_in_use) return last;
        in_use = true;
        break;
      }
      made.step("listen", [&] {
        socket_address address;
        if (const int status = read_address(system, made.fd(), address); status < 0) return status;
        const ip_endpoint local = address.endpoint();
        port = local.port;
        const bool transparent = options.prepare != nullptr && is_transparent(system, made.fd(), local);
        return r->add(made.fd(), local, transparent);
      });
      if (made.failed()) return made.failure();
      made.taken_over();
    }
    if (!in_use) return listener_access::make<tcp_listener>(std::move(r));
  }
  return last;
}

/// Takes over the listening socket that `from_fd` was given.
template <class Listener>
[[gnu::cold]] result<Listener> adopt_listener(int fd, const char* what, bool is_unix) {
  loop_core& core = loop_core::current();
  const auto adopted = adopt_socket(core.system(), fd, {what, is_unix, SOCK_STREAM, false, true});
  if (!adopted) return adopted.error();
  ref<listener_resource> r(new listener_resource(core));
  if (is_unix) r->path = shared_path(adopted->local.path());
  const ip_endpoint local = adopted->local.endpoint();
  const bool transparent = !is_unix && is_transparent(core.system(), fd, local);
  if (int status = r->add(fd, local, transparent); status < 0) return error(errc::os_error, -status, what);
  return listener_access::make<Listener>(std::move(r));
}

}  // namespace detail

ANYIO_NET_COLD result<tcp_listener> tcp_listener::open(ip_endpoint local, tcp_listener_options options) {
  return detail::listen_tcp(detail::loop_core::current(), {local}, false, options);
}

ANYIO_NET_COLD result<tcp_listener> tcp_listener::from_fd(int fd) {
  return detail::adopt_listener<tcp_listener>(fd, "tcp_listener", false);
}

ANYIO_NET_COLD std::vector<ip_endpoint> tcp_listener::local_endpoints() const {
  std::vector<ip_endpoint> all;
  if (resource_)
    for (const auto& s : resource_->sockets) all.push_back(s.local);
  return all;
}

ANYIO_NET_FN std::uint16_t tcp_listener::local_port() const noexcept {
  return resource_ && !resource_->sockets.empty() ? resource_->sockets.front().local.port : std::uint16_t{0};
}

ANYIO_NET_COLD std::vector<int> tcp_listener::native_handles() const {
  std::vector<int> all;
  if (*this)
    for (const auto& s : resource_->sockets) all.push_back(s.registration.fd);
  return all;
}

ANYIO_NET_COLD result<unix_listener> unix_listener::from_fd(int fd) {
  return detail::adopt_listener<unix_listener>(fd, "unix_listener", true);
}

ANYIO_NET_COLD std::string unix_listener::local_path() const {
  return resource_ && resource_->path ? *resource_->path : std::string();
}

ANYIO_NET_FN bool create_unix_listener_operation::attempt(result<unix_listener>& out) {
  detail::loop_core& loop = detail::loop_core::current();
  backend& system = loop.system();
  if (const auto address = detail::make_unix_address(path_, "bind"); !address) {
    return detail::complete(out, address.error());
  }
  detail::ref<detail::listener_resource> r(new detail::listener_resource(loop));
  r->path = detail::shared_path(path_);
  const bool is_file = path_.front() != '\0';
  if (options_.unlink_on_close && is_file) r->own_path = detail::paths_of(system).absolute(path_);
  detail::new_socket made(system, AF_UNIX, SOCK_STREAM);
  detail::bound_file file(made, system, path_, options_.mode);
  made.listen(options_.backlog);
  made.step("listen", [&] { return r->add(made.fd(), ip_endpoint()); });
  if (made.failed()) return detail::complete(out, made.failure());
  made.taken_over();
  file.keep();
  if (options_.unlink_on_close && is_file) {
    detail::paths_of(system).identify(path_.c_str(), r->own_file);
    r->remove_own_file = detail::remove_file_of;
  }
  return detail::complete(out, detail::listener_access::make<unix_listener>(std::move(r)));
}

}}  // namespace anyio
