// The texts of TLS errors.
#pragma once

#include "base/mutex.hpp"
#include "base/standard.hpp"
#include "tls/engine/tls.hpp"

namespace anyio { inline namespace ANYIO_NET_ABI {

namespace detail {

/// A text that is kept for as long as the program runs.
struct kept_text {
  std::string text;
  kept_text* next;
};

/// A copy of a text that is kept for as long as the program runs. Null after too many different texts: then
/// they contain text from outside, for example from peers.
inline const char* keep_text(std::string_view text) {
  constexpr std::size_t most = 512;
  static kept_text* first = nullptr;
  static std::size_t count = 0;
  static process_mutex mutex;
  const process_lock lock(mutex);
  for (const kept_text* known = first; known != nullptr; known = known->next)
    if (known->text == text) return known->text.c_str();
  if (count == most) return nullptr;
  ++count;
  first = new kept_text{std::string(text), first};
  return first->text.c_str();
}

ANYIO_NET_FN error tls_failure(const char* operation, std::string_view reason) {
  constexpr std::size_t longest = 200;
  std::string line(reason.substr(0, longest));
  const auto unprintable = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  for (char& c : line)
    if (unprintable(c)) c = '?';
  const error e(errc::tls, 0, operation);
  return line.empty() ? e : error_access::with_reason(e, keep_text(line));
}

}  // namespace detail

ANYIO_NET_FN result<> tls_context::add_certificate(std::string_view, const tls_config&) {
  return error(errc::not_supported, 0, "add_certificate");
}

}}  // namespace anyio
