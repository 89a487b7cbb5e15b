// Names that need no query, and the results of queries.
#pragma once

#include "base/standard.hpp"
#include "connection/resolve.hpp"

#include <cerrno>
#include <cstddef>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

ANYIO_NET_COLD void drop_missing_families(backend& system, std::vector<ip_endpoint>& all) {
  if (all.size() < 2) return;
  std::size_t kept = 0;
  for (const ip_endpoint& e : all)
    if (names_of(system).has_family(family_of(e.address))) all[kept++] = e;
  if (kept != 0) all.resize(kept);
}

ANYIO_NET_FN bool may_reach(const ip_endpoint& local, const ip_endpoint& remote) noexcept {
  return unmapped(local.address).is_v4() == unmapped(remote.address).is_v4();
}

/// Whether a name is `localhost` or a name under it. The trailing dot is removed already.
inline bool is_localhost(std::string_view name) noexcept {
  constexpr std::string_view local = "localhost";
  if (name.size() < local.size()) return false;
  const std::string_view end = name.substr(name.size() - local.size());
  return same_name(end, local) &&
         (name.size() == local.size() || name[name.size() - local.size() - 1] == '.');
}

ANYIO_NET_FN bool resolve_operation::answer_at_once(result<std::vector<ip_endpoint>>& out) const {
  constexpr std::size_t longest_name = 253;  // RFC 1035 section 2.3.4, as text without the trailing dot
  const auto fail = [&out](errc code, int os_error, const char* reason) {
    return complete(out, error_access::with_reason(error(code, os_error, name), reason));
  };
  if (family_ != AF_UNSPEC && family_ != AF_INET && family_ != AF_INET6) {
    return fail(errc::os_error, EAFNOSUPPORT, nullptr);
  }
  if (host_.empty()) return fail(errc::invalid_argument, 0, "the host is empty");
  for (const char c : host_) {
    if (c == '\0') return fail(errc::invalid_argument, 0, "the host contains a NUL byte");
    if (static_cast<unsigned char>(c) >= 0x80) {
      return fail(errc::invalid_argument, 0, "the host is not ASCII: use the xn-- form");
    }
  }
  if (const result<ip_address> address = ip_address::parse(host_)) {
    if (family_ != AF_UNSPEC && (family_ == AF_INET6) != address->is_v6()) {
      return fail(errc::name_resolution, 0, "the address is not of the requested family");
    }
    out = std::vector<ip_endpoint>(1, ip_endpoint{*address, port_});
    return true;
  }
  std::string_view host = host_;
  if (host.ends_with('.')) host.remove_suffix(1);
  if (host.size() > longest_name) {
    return fail(errc::invalid_argument, 0, "the host is longer than 253 characters");
  }
  if (!is_localhost(host)) return false;
  std::vector<ip_endpoint> both;
  both.reserve(2);
  if (family_ != AF_INET) both.push_back({ip_address::loopback_v6(), port_});
  if (family_ != AF_INET6) both.push_back({ip_address::loopback_v4(), port_});
  return complete(out, std::move(both));
}

ANYIO_NET_FN bool resolve_operation::attempt(result<std::vector<ip_endpoint>>& out) {
  loop_core& loop = core != nullptr ? *core : home();
  if (!call_) {
    if (answer_at_once(out)) return true;
    call_ = helper_call<name_look_up>({loop.share_system(), host_, port_, family_});
  }
  result<resolved> answer(errc::cancelled);
  if (!call_.attempt(loop, *this, name, answer)) return false;
  call_ = {};
  if (!answer.has_value()) return complete(out, result_access::failure<std::vector<ip_endpoint>>(answer));
  if (answer->status < 0 && answer->reason == nullptr)
    return complete(out, error(errc::os_error, -answer->status, name));
  if (answer->status < 0 || answer->endpoints.empty()) {
    const char* reason = answer->reason != nullptr ? answer->reason : "the name has no address";
    return complete(out, error_access::with_reason(error(errc::name_resolution, 0, name), reason));
  }
  // Resolvers report mapped addresses as IPv4, as sockets do; AF_INET6 asks for them as IPv6.
  if (family_ == AF_INET6)
    for (ip_endpoint& e : answer->endpoints) e.address = mapped(e.address);
  return complete(out, std::move(answer->endpoints));
}

ANYIO_NET_FN bool host_look_up::ask(node& whole, const std::string& host, std::uint16_t port, int family,
                                    result<std::vector<ip_endpoint>>& out) {
  if (answer_.take(out)) {
    query_.reset();
    return true;
  }
  if (query_) return false;
  resolve_operation look_up(host, port, family);
  if (look_up.answer_at_once(out)) return true;
  query_.reset(new resolve_operation(std::move(look_up)));
  if (query_->attempt_for_parent(out)) {
    query_.reset();
    return true;
  }
  whole_ = &whole;
  query_->start(part<&host_look_up::answered>(this));
  return false;
}

ANYIO_NET_FN address_look_up::names address_look_up::operator()() const {
  names found;
  found.status = names_of(*system).reverse(endpoint, found.host, found.service);
  return found;
}

ANYIO_NET_FN bool reverse_operation::attempt(result<name_info>& out) {
  loop_core& loop = core != nullptr ? *core : home();
  if (!call_) call_ = helper_call<address_look_up>({loop.share_system(), endpoint_});
  result<address_look_up::names> answer(errc::cancelled);
  if (!call_.attempt(loop, *this, name, answer)) return false;
  call_ = {};
  if (!answer.has_value()) return complete(out, result_access::failure<name_info>(answer));
  if (answer->status == -ENOENT)
    return complete(
        out, error_access::with_reason(error(errc::name_resolution, 0, name), "the address has no name"));
  if (answer->status < 0) return complete(out, error(errc::os_error, -answer->status, name));
  return complete(out, name_info(std::move(answer->host), std::move(answer->service)));
}

}}}  // namespace anyio::detail
