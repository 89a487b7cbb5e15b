// What waits on a loop, as text for a person.
//
// A program that does not call `dump` has none of this: peers are asked of the system then, and the chains of
// those who wait are followed then. This part must not know what an operation does.
#pragma once

#include "base/address.hpp"
#include "loop/loop.hpp"
#include "system/new_socket.hpp"

#include <cstdio>
#include <string>
#include <string_view>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

/// Appends a socket's address: an IP endpoint, or a path, in which bytes that are no visible characters are
/// shown as "?", but the NUL that begins an abstract name as "@".
[[gnu::cold]] inline void append_address(std::string& text, const socket_address& a) {
  const int family = a.storage.ss_family;
  if (family == AF_INET || family == AF_INET6) {
    text += a.endpoint().to_string();
  } else if (family == AF_UNIX) {
    std::string path = a.path();
    for (char& c : path)
      if (c < ' ' || c == '\x7f') c = c == '\0' && &c == path.data() ? '@' : '?';
    text += path;
  }
}

/// The peer of a socket, or, if it has none, its own address after "at"; empty for other descriptors.
[[gnu::cold]] inline std::string address_for_dump(backend& system, int fd) {
  constexpr socklen_t size_of_family = sizeof(sa_family_t);
  std::string text;
  if (const socket_address peer = remote_address_of(system, fd); peer.size > size_of_family)
    append_address(text, peer);
  if (!text.empty()) return text;
  if (const socket_address own = local_address_of(system, fd); own.size > size_of_family)
    append_address(text, own);
  return text.empty() ? text : "at " + text;
}

ANYIO_NET_COLD std::string loop_core::dump() {
  std::string text;
  const auto time = static_cast<std::uint32_t>(now().time_since_epoch() / std::chrono::milliseconds(1));
  for (const link* list : {&round_, &ready_, &parked_}) {
    for (const link* l = list->next; l != list; l = l->next) {
      auto& n = const_cast<node&>(static_cast<const node&>(*l));
      const description d = n.how->describe(n);
      char part[64];
      if (d.fd >= 0) {
        text += "fd " + std::to_string(d.fd);
        if (const std::string address = address_for_dump(*system_, d.fd); !address.empty())
          text += " (" + address + ")";
        text += ": ";
      } else {
        text += "-: ";
      }
      text += d.operation;
      if (d.moved != description::no_count) text += ", " + std::to_string(d.bytes()) + " bytes";
      const std::uint32_t age = time - n.since;
      std::snprintf(part, sizeof part, ", %u.%03u s", age / 1000, age % 1000);
      text += part;
      if (list != &parked_) text += ", ready";
      const char* before = ", in ";
      for (node* owner = n.how->owner(n); owner != nullptr;) {
        const bool known = owner != unknown_owner() && owner->how != nullptr;
        const char* name = owner == unknown_owner()                   ? "a coroutine of another library"
                           : owner == runner_                         ? "run"
                           : known && owner->how->describe != nullptr ? owner->how->describe(*owner).operation
                                                                      : nullptr;
        if (name != nullptr) {
          text += before;
          text += name;
          before = " < ";
        }
        owner = known ? owner->how->owner(*owner) : nullptr;
      }
      text += '\n';
    }
  }
  return text;
}

}}}  // namespace anyio::detail
