// Names on POSIX systems: the resolver, and the available address families.
#pragma once

#include "base/standard.hpp"
#include "system/posix_backend.hpp"

#include "base/address.hpp"

#include <cerrno>
#include <cstring>

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_FN std::uint32_t interface_index(const char* name) noexcept { return ::if_nametoindex(name); }

ANYIO_NET_FN bool interface_name(std::uint32_t index, char* out) noexcept {
  static_assert(IF_NAMESIZE <= 64);
  return ::if_indextoname(index, out) != nullptr;
}

/// The text for an error of the resolver. Not gai_strerror, whose text depends on the locale.
[[gnu::cold]] inline const char* resolver_words(int status) noexcept {
  switch (status) {
    case EAI_NONAME: return "name or service not known";
    case EAI_AGAIN: return "temporary failure in name resolution";
    case EAI_FAIL: return "permanent failure in name resolution";
    case EAI_FAMILY: return "address family not supported";
    case EAI_SERVICE: return "service not supported for this type of socket";
    case EAI_SOCKTYPE: return "type of socket not supported";
#if defined(EAI_NODATA)
#if EAI_NODATA != EAI_NONAME
    case EAI_NODATA: return "the name has no address";
#endif
#endif
#if defined(EAI_ADDRFAMILY)
    case EAI_ADDRFAMILY: return "the name has no address of this family";
#endif
#if defined(EAI_OVERFLOW)
    case EAI_OVERFLOW: return "name too long";
#endif
    default: return "name resolution failed";
  }
}

ANYIO_NET_FN name_service& system_names() noexcept {
  struct own final : posix_names {};
  static constinit own names;
  return names;
}

ANYIO_NET_COLD resolved posix_names::resolve(const std::string& host, std::uint16_t port, int family) {
  resolved found;
  addrinfo hints{};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;  // otherwise each address appears once per socket type
  addrinfo* list = nullptr;
  // The port is set below: some resolvers accept only service names, or reject the number 0.
  const int status = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (status == EAI_SYSTEM) {
    found.status = errno != 0 ? -errno : -EIO;
    return found;
  }
  if (status == EAI_MEMORY) {
    found.status = -ENOMEM;
    return found;
  }
  if (status != 0) {
    found.status = -ENOENT;
    found.reason = resolver_words(status);
    return found;
  }
  struct freed_at_end {
    addrinfo* list;
    ~freed_at_end() { ::freeaddrinfo(list); }
  } const all{list};
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
    const result<ip_endpoint> endpoint = ip_endpoint::from_sockaddr(entry->ai_addr, entry->ai_addrlen);
    if (!endpoint) continue;
    const ip_endpoint with_port{endpoint->address, port};
    bool is_new = true;
    for (const ip_endpoint& known : found.endpoints) is_new &= known != with_port;
    if (is_new) found.endpoints.push_back(with_port);
  }
  if (found.endpoints.empty()) {
    found.status = -ENOENT;
    found.reason = "the name has no IPv4 or IPv6 address";
  }
  return found;
}

ANYIO_NET_COLD int posix_names::reverse(const ip_endpoint& endpoint, std::string& host,
                                        std::string& service) {
  sockaddr_storage address{};
  const socklen_t size = endpoint.to_sockaddr(address);
  char host_text[1025];  // NI_MAXHOST and at least NI_MAXSERV, which some systems do not declare
  char service_text[64];
  const auto look_up = [&](int flags) {
    return ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host_text, sizeof host_text,
                         service_text, sizeof service_text, flags);
  };
  int status = look_up(0);
  // If the name server does not answer, the result is numeric.
  if (status != 0) status = look_up(NI_NUMERICHOST | NI_NUMERICSERV);
  if (status == EAI_SYSTEM) return errno != 0 ? -errno : -EIO;
  if (status == EAI_MEMORY) return -ENOMEM;
  if (status != 0) return -ENOENT;
  host = host_text;
  service = service_text;
  return 0;
}

/// Whether the machine has an address of this family. If IPv6 is turned off in a running kernel, a socket can
/// still be opened, and even bound to "::", but all IPv6 addresses are gone, ::1 included.
[[gnu::cold]] inline bool has_address(int fd, int family) noexcept {
  sockaddr_storage loopback{};
  const ip_address own = loopback_address(family == AF_INET6);
  const socklen_t size = ip_endpoint{own, 0}.to_sockaddr(loopback);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&loopback), size) == 0) return true;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return false;
  bool found = false;
  for (const ifaddrs* entry = list; entry != nullptr && !found; entry = entry->ifa_next) {
    found = entry->ifa_addr != nullptr && entry->ifa_addr->sa_family == family;
  }
  ::freeifaddrs(list);
  return found;
}

ANYIO_NET_COLD bool posix_names::has_family(int family) {
  atomic<signed char>* known = family == AF_INET ? &has_ipv4_ : family == AF_INET6 ? &has_ipv6_ : nullptr;
  if (known != nullptr) {
    const signed char answer = known->load();
    if (answer >= 0) return answer != 0;
  }
  const int fd = open_posix_socket(family, SOCK_DGRAM, 0);
  // A lack of descriptors or memory says nothing about the family; the caller's own open will report it.
  if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) return true;
  const bool has = fd >= 0 && (known == nullptr || has_address(fd, family));
  if (fd >= 0) ::close(fd);
  if (known != nullptr) known->store(has ? 1 : 0);
  return has;
}

}}}  // namespace anyio::detail
