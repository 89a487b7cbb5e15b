// Makes foreign text safe for a terminal. Unchanged it could move the cursor, set the window's title, or make
// the terminal type an answer; and terminals disagree on invalid UTF-8.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// The size of the character at the beginning of the text; 0 if it is invalid or a control character.
inline std::size_t printable_size(std::string_view text) {
  const auto byte = [text](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : std::uint32_t{0};
  };
  std::uint32_t code = byte(0);
  if (code < 0x80) return code >= 0x20 && code != 0x7f ? 1 : 0;
  if (code < 0xc2 || code > 0xf4) return 0;
  const std::size_t size = code >= 0xf0 ? 4 : code >= 0xe0 ? 3 : 2;
  code &= 0x7fu >> size;
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3f);
  }
  constexpr std::uint32_t first[] = {0xa0, 0x800, 0x10000};  // of this size, beyond the controls up to U+009F
  const bool surrogate = 0xd800 <= code && code <= 0xdfff;
  const bool turns_direction = (0x2028 <= code && code <= 0x202e) || (0x2066 <= code && code <= 0x2069);
  return code >= first[size - 2] && code <= 0x10ffff && !surrogate && !turns_direction ? size : 0;
}

/// The text with a hexadecimal escape for each byte that is not printable. With `lines`, tabs and line ends
/// stay.
inline std::string printable(std::string_view text, bool lines = false) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  const auto is_plain = [](char c) { return ' ' <= c && c <= '~'; };
  while (!text.empty()) {
    const auto plain = std::find_if_not(text.begin(), text.end(), is_plain);  // most of it, in one step
    auto size = static_cast<std::size_t>(plain - text.begin());
    if (size == 0) size = printable_size(text);
    if (lines && size == 0) size = text.starts_with("\r\n") ? 2 : text[0] == '\n' || text[0] == '\t' ? 1 : 0;
    out.append(text.substr(0, size));
    if (size == 0) {
      const auto byte = static_cast<unsigned char>(text[0]);
      out.append("\\x").append({digits[byte / 16], digits[byte % 16]});
      size = 1;
    }
    text.remove_prefix(size);
  }
  return out;
}

/// The number of bytes at the end of a piece of text that depend on the next piece: an incomplete character,
/// or CR.
inline std::size_t unfinished_size(std::string_view text) {
  if (text.ends_with('\r')) return 1;
  for (std::size_t n = 1; n <= 3 && n <= text.size(); ++n) {
    const auto byte = static_cast<unsigned char>(text[text.size() - n]);
    if (byte >= 0xc0) return byte >= (n == 1 ? 0xc0 : n == 2 ? 0xe0 : 0xf0) ? n : 0;
  }
  return 0;
}
