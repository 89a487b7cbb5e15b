// Listening sockets: how they are made, and the errors of accepting.
#pragma once

#include "connection/listener.hpp"
#include "connection/unix_bind.hpp"
#include "system/unique_fd.hpp"

#include <algorithm>
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
  registration place{fd, 0};
  const int status = core().watch(place, *this);
  if (status >= 0) sockets.push_back({place, local, any || transparent});
  return status;
}

ANYIO_NET_COLD void listener_resource::shut() noexcept {
  for (listening_socket& s : sockets) core().forget(s.place);
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
inline constexpr std::size_t calls_of_accept = 3;

/// The number of pending connections of a listening TCP socket; 0 where the system does not report it.
inline std::uint32_t waiting_connections([[maybe_unused]] backend& system, [[maybe_unused]] int fd) noexcept {
#if defined(__linux__) && defined(TCP_INFO)
  tcp_info info{};
  socklen_t size = sizeof info;
  if (system.get_option(fd, IPPROTO_TCP, TCP_INFO, &info, &size) >= 0) return info.tcpi_unacked;
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
    known_ = waiting_connections(core().system(), s.place.fd);
    exhausted[read_side] = known_ >= 2;
    // Another process may accept some of them; then the flag matters.
    if (known_ >= 2 && looks_++ % looks_of_check != 0) return;
    if (known_ < 2) known_ = in_a_row_ = 0;
  }
  core().system().keep_non_blocking(s.place.fd);
}

ANYIO_NET_FN listener_resource::outcome listener_resource::accept(accepted& a, error& why) {
  if (exhausted[read_side] && known_ == 0) return outcome::waiting;
  std::size_t empty = 0;
  for (int call = 0; call < calls_of_attempt; ++call) {
    const listening_socket& s = sockets[next_ % sockets.size()];
    if (known_ == 0) look(s);
    a.remote_size = sizeof a.remote;
    core().count_work(0, calls_of_accept);
    const int fd = core().system().accept(s.place.fd, reinterpret_cast<sockaddr*>(&a.remote), &a.remote_size);
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
    if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) return outcome::exhausted;
    if (!concerns_one_connection(-fd)) return outcome::fatal;
    report(why);
    return outcome::again;  // so that each error is reported
  }
  return outcome::again;
}

ANYIO_NET_COLD void listener_resource::pause(timer& t, node& waiter) {
  constexpr std::chrono::milliseconds pause_of_accept(100);
  core().wait_for_descriptor(place_);
  core().arm(t, core().now() + pause_of_accept, waiter);
}

ANYIO_NET_FN result<tcp_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                              const listener_resource::accepted& a, tcp_stream*) {
  backend& system = loop.system();
  if (from.no_delay) {  // an error does not matter: the connection may have been reset already
    const int on = 1;
    system.set_option(a.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  const ip_endpoint remote =
      ip_endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&a.remote), a.remote_size)
          .value_or(ip_endpoint());
  return socket_access::make_tcp(loop, a.fd, a.any_address ? nullptr : &a.local, &remote, "accept");
}

ANYIO_NET_FN result<unix_stream> make_accepted(loop_core& loop, const listener_resource& from,
                                               const listener_resource::accepted& a, unix_stream*) {
  std::string remote = unix_path(reinterpret_cast<const sockaddr*>(&a.remote), a.remote_size);
  return socket_access::make_unix(loop, a.fd, from.path, shared_path(std::move(remote)), "accept");
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
  socklen_t size = sizeof on;
  return system.get_option(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &on,
                           &size) >= 0 &&
         on != 0;
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
[[gnu::cold]] inline result<unique_fd> listen_at(backend& system, const ip_endpoint& local, bool dual_stack,
                                                 const tcp_listener_options& options) {
  const bool v6 = local.address.is_v6();
  unique_fd fd(system.open_socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0));
  if (!fd) return error(errc::os_error, -fd.get(), "socket");
  const auto set = [&](int level, int name, int value) {
    return system.set_option(fd.get(), level, name, &value, sizeof value);
  };
#if defined(SO_REUSEPORT_LB)
  constexpr int share_port = SO_REUSEPORT_LB;  // FreeBSD: SO_REUSEPORT gives one listener all connections
#else
  constexpr int share_port = SO_REUSEPORT;
#endif
  const char* step = "set_option";
  int status = set(SOL_SOCKET, SO_REUSEADDR, 1);
  if (status >= 0 && options.reuse_port) status = set(SOL_SOCKET, share_port, 1);
  if (status >= 0 && v6)
    status = set(IPPROTO_IPV6, IPV6_V6ONLY, dual_stack || is_mapped(local.address) ? 0 : 1);
  if (status >= 0 && options.prepare != nullptr) {
    step = "prepare";
    status = options.prepare(fd.get(), options.prepare_data);
    if (status > 0) status = -status;
  }
  if (status >= 0) {
    step = "bind";
    sockaddr_storage address{};
    const socklen_t size = local.to_sockaddr(address);
    status = system.bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size);
  }
  if (status >= 0) {
    step = "listen";
    status = system.listen(fd.get(), options.backlog);
  }
  if (status < 0) return error(errc::os_error, -status, step);
  return fd;
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
      result<unique_fd> fd = listen_at(system, at, dual_stack, options);
      if (!fd) {
        last = fd.error();
        const bool chosen_by_kernel = wanted_port == 0 && port != 0;
        if (chosen_by_kernel && last == std::errc::address_in_use) {
          in_use = true;
          break;
        }
        return last;
      }
      ip_endpoint local;
      int status = read_local_endpoint(system, fd->get(), local);
      port = local.port;
      const bool transparent = options.prepare != nullptr && is_transparent(system, fd->get(), local);
      if (status >= 0) status = r->add(fd->get(), local, transparent);
      if (status < 0) return error(errc::os_error, -status, "listen");
      static_cast<void>(fd->release());
    }
    if (!in_use) return listener_access::make<tcp_listener>(std::move(r));
  }
  return last;
}

/// Takes over the listening socket that `from_fd` was given.
[[gnu::cold]] inline result<ref<listener_resource>> adopt_listener(loop_core& core, int fd,
                                                                   const wanted_socket& wanted) {
  backend& system = core.system();
  if (auto adopted = adopt_socket(system, fd, wanted); !adopted) return adopted.error();
  ref<listener_resource> r(new listener_resource(core));
  if (wanted.is_unix) r->path = shared_path(local_path_of(system, fd));
  const ip_endpoint local = wanted.is_unix ? ip_endpoint() : local_endpoint_of(system, fd);
  const bool transparent = !wanted.is_unix && is_transparent(system, fd, local);
  if (int status = r->add(fd, local, transparent); status < 0)
    return error(errc::os_error, -status, wanted.what);
  return r;
}

}  // namespace detail

ANYIO_NET_COLD result<tcp_listener> tcp_listener::open(ip_endpoint local, tcp_listener_options options) {
  return detail::listen_tcp(detail::loop_core::current(), {local}, false, options);
}

ANYIO_NET_COLD result<tcp_listener> tcp_listener::from_fd(int fd) {
  auto r = detail::adopt_listener(detail::loop_core::current(), fd,
                                  {"tcp_listener", false, SOCK_STREAM, false, true});
  if (!r) return r.error();
  return detail::listener_access::make<tcp_listener>(*std::move(r));
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
    for (const auto& s : resource_->sockets) all.push_back(s.place.fd);
  return all;
}

ANYIO_NET_COLD result<unix_listener> unix_listener::from_fd(int fd) {
  auto r = detail::adopt_listener(detail::loop_core::current(), fd,
                                  {"unix_listener", true, SOCK_STREAM, false, true});
  if (!r) return r.error();
  return detail::listener_access::make<unix_listener>(*std::move(r));
}

ANYIO_NET_COLD std::string unix_listener::local_path() const {
  return resource_ && resource_->path ? *resource_->path : std::string();
}

ANYIO_NET_FN bool create_unix_listener_operation::attempt(result<unix_listener>& out) {
  detail::loop_core& loop = detail::loop_core::current();
  backend& system = loop.system();
  if (const auto address = detail::make_unix_address(path_, "bind"); !address) {
    out = address.error();
    return true;
  }
  const auto fail = [&](int status, const char* failed) {
    out = error(errc::os_error, -status, failed);
    return true;
  };
  detail::ref<detail::listener_resource> r(new detail::listener_resource(loop));
  r->path = detail::shared_path(path_);
  const bool is_file = path_.front() != '\0';
  if (options_.unlink_on_close && is_file) r->own_path = detail::paths_of(system).absolute(path_);
  unique_fd fd(system.open_socket(AF_UNIX, SOCK_STREAM, 0));
  if (!fd) return fail(fd.get(), "socket");
  const char* step = "bind";
  if (int status = detail::bind_unix(system, fd.get(), path_, options_.mode, step); status < 0)
    return fail(status, step);
  detail::bound_file file(system, is_file ? path_.c_str() : nullptr);
  if (int status = system.listen(fd.get(), options_.backlog); status < 0) return fail(status, "listen");
  if (int status = r->add(fd.get(), ip_endpoint()); status < 0) return fail(status, "listen");
  static_cast<void>(fd.release());
  file.keep();
  if (options_.unlink_on_close && is_file) {
    detail::paths_of(system).identify(path_.c_str(), r->own_file);
    r->remove_own_file = detail::remove_file_of;
  }
  out = detail::listener_access::make<unix_listener>(std::move(r));
  return true;
}

}}  // namespace anyio
