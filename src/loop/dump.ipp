// The pending operations of a loop, as text for a person.
//
// A program that does not call `dump` has none of this: peers are asked of the system then, and the chains of
// those who wait are followed then. This part must not know what an operation does.
#pragma once

#include "base/address.hpp"
#include "loop/loop.hpp"
#include "system/new_socket.hpp"

#include <cstddef>
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

/// The chain of those who wait, innermost first. Of many equal names in a row only the first are named.
class owner_chain {
 public:
  explicit owner_chain(std::string& text) : text_(text) {}
  [[gnu::cold]] void add(std::string_view name) {
    if (name != last_) end();
    last_ = name;
    if (++in_a_row_ <= most_in_a_row) append(name);
  }
  /// Tells how many equal names were left out, if any.
  [[gnu::cold]] void end() {
    if (in_a_row_ > most_in_a_row) append(std::to_string(in_a_row_ - most_in_a_row) + " more");
    in_a_row_ = 0;
  }

 private:
  static constexpr std::size_t most_in_a_row = 8;
  void append(std::string_view name) {
    text_ += is_empty_ ? ", in " : " < ";
    text_ += name;
    is_empty_ = false;
  }

  std::string& text_;
  std::string_view last_;
  std::size_t in_a_row_ = 0;
  bool is_empty_ = true;
};

/// Appends a line about a node.
ANYIO_NET_COLD void loop_core::describe(node& n, bool ready, std::uint32_t time, std::string& text) {
  const description d = n.how->describe(n);
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
  char part[64];
  std::snprintf(part, sizeof part, ", %u.%03u s", age / 1000, age % 1000);
  text += part;
  if (ready) text += ", ready";
  owner_chain chain(text);
  for (node* owner = n.how->owner(n); owner != nullptr;) {
    const bool known = owner != unknown_owner() && owner->how != nullptr;
    if (owner == unknown_owner()) {
      chain.add("a coroutine of another library");
    } else if (owner == runner_) {
      chain.add("run");
    } else if (known && owner->how->describe != nullptr) {
      chain.add(owner->how->describe(*owner).operation);
    }
    owner = known ? owner->how->owner(*owner) : nullptr;
  }
  chain.end();
  text += '\n';
}

ANYIO_NET_COLD std::string loop_core::dump() {
  std::string text;
  const auto time = static_cast<std::uint32_t>(now().time_since_epoch() / std::chrono::milliseconds(1));
  for (const list* nodes : {&round_, &ready_, &parked_})
    for (link* l = nodes->next; l != nodes; l = l->next)
      describe(static_cast<node&>(*l), nodes != &parked_, time, text);
  for (link* l = resources_.next; l != &resources_; l = l->next)
    for (node* const n : resource::at(*l).waiting_)
      if (n != nullptr && n->pending() && !n->linked()) describe(*n, false, time, text);
  return text;
}

}}}  // namespace anyio::detail
