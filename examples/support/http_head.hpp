// Heads of HTTP/1 requests and answers (RFC 9110, 9112), for the four HTTP programs. An ambiguous head is
// rejected: a proxy that reads it differently would take one request for two, or two for one. Nothing is
// received or sent here, so fuzz/http_head.cpp can try everything.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace http {

// --- words

inline char lower(char c) { return 'A' <= c && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

inline bool same(std::string_view a, std::string_view b) {  // in upper or lower case
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}
inline bool begins_with(std::string_view text, std::string_view prefix) {
  return same(text.substr(0, prefix.size()), prefix);
}

/// At least one character, all of them letters, digits or among `others`.
inline bool is_made_of(std::string_view text, std::string_view others) {
  const auto fits = [others](char c) {
    return ('a' <= lower(c) && lower(c) <= 'z') || ('0' <= c && c <= '9') || others.find(c) != others.npos;
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), fits);
}
inline bool is_token(std::string_view text) { return is_made_of(text, "!#$%&'*+-.^_`|~"); }

inline bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == '\x7f';
  });
}

inline std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}

/// A number of digits, without a sign, spaces or anything else.
inline std::optional<std::uint64_t> number(std::string_view digits, int base = 10) {
  std::uint64_t n = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), n, base);
  const bool all = end == digits.data() + digits.size();
  return failure == std::errc() && all ? std::optional(n) : std::nullopt;
}

/// A host and optionally a port, without a user name before them.
inline bool is_host(std::string_view text) {
  const bool in_brackets = text.starts_with('[');
  const std::size_t end = in_brackets ? text.find(']') + 1 : std::min(text.find(':'), text.size());
  if (in_brackets && end < 2) return false;
  const std::string_view host = text.substr(0, end);
  const std::string_view port = text.substr(end);
  return is_made_of(host, in_brackets ? "[:.]" : "-._~%!$&'()*+,;=") &&
         (port.empty() || (port[0] == ':' && port.find_first_not_of("0123456789", 1) == port.npos));
}

/// A line of a head, or of the trailer after a body in chunks. No space may stand before the colon; nor may a
/// line begin with one, which would continue the line before.
inline bool is_field(std::string_view line) {
  return is_token(line.substr(0, line.find(':'))) && line.find(':') != line.npos && !has_control(line);
}

/// The size in the first line of a chunk; its extensions are ignored.
inline std::optional<std::uint64_t> chunk_size(std::string_view line) {
  std::string_view digits = line.substr(0, line.find(';'));
  while (digits.ends_with(' ') || digits.ends_with('\t')) digits.remove_suffix(1);
  return has_control(line) ? std::nullopt : number(digits, 16);
}

// --- heads

/// How a body is coded: not at all, in chunks, or in an unsupported way.
enum class coding { none, chunked, unknown };

/// The common parts of requests and answers.
class head {
 public:
  /// The first field of that name.
  [[nodiscard]] std::optional<std::string_view> field(std::string_view name) const {
    for (const auto& [key, value] : fields_)
      if (same(key, name)) return value;
    return std::nullopt;
  }
  [[nodiscard]] std::size_t count(std::string_view name) const {
    std::size_t n = 0;
    for (const auto& [key, value] : fields_)
      if (same(key, name)) ++n;
    return n;
  }
  /// The values between the commas of all fields of that name.
  [[nodiscard]] std::vector<std::string_view> list(std::string_view name) const {
    std::vector<std::string_view> all;
    for (const auto& [key, value] : fields_) {
      if (!same(key, name)) continue;
      for (std::size_t at = 0; at <= value.size();) {
        const std::size_t end = std::min(value.find(',', at), value.size());
        all.push_back(trimmed(std::string_view(value).substr(at, end - at)));
        at = end + 1;
      }
    }
    return all;
  }
  [[nodiscard]] bool lists(std::string_view name, std::string_view word) const {
    const auto all = list(name);
    return std::any_of(all.begin(), all.end(), [word](std::string_view each) { return same(each, word); });
  }

  [[nodiscard]] bool is_http_1_0() const { return is_http_1_0_; }
  /// Whether another request may follow on the connection (RFC 9112, section 9.3).
  [[nodiscard]] bool keeps_connection() const {
    return !lists("Connection", "close") && (!is_http_1_0_ || lists("Connection", "keep-alive"));
  }
  /// The value of Content-Length.
  [[nodiscard]] std::optional<std::uint64_t> body_size() const { return body_size_; }
  [[nodiscard]] coding body_coding() const {
    if (count("Transfer-Encoding") == 0) return coding::none;
    const auto all = list("Transfer-Encoding");
    return all.size() == 1 && same(all[0], "chunked") ? coding::chunked : coding::unknown;
  }

 protected:
  static bool is_version(std::string_view text) {
    return text.size() == 8 && text.starts_with("HTTP/") && is_digit(text[5]) && text[6] == '.' &&
           is_digit(text[7]);
  }
  static bool is_digit(char c) { return '0' <= c && c <= '9'; }

  /// Parses all lines but the first: null, or the part that is wrong.
  const char* read_fields(std::string_view lines, bool is_http_1_0) {
    is_http_1_0_ = is_http_1_0;
    fields_.clear();
    while (!lines.empty()) {
      const std::size_t end = std::min(lines.find("\r\n"), lines.size());
      const std::string_view line = lines.substr(0, end);
      if (!is_field(line)) return "a header field";
      const std::size_t colon = line.find(':');
      fields_.emplace_back(line.substr(0, colon), trimmed(line.substr(colon + 1)));
      lines.remove_prefix(std::min(end + 2, lines.size()));
    }
    const auto size = field("Content-Length");
    body_size_ = size ? number(*size) : std::nullopt;
    if (size.has_value() != body_size_.has_value() || count("Content-Length") > 1)
      return "the Content-Length";
    // HTTP/1.0 does not know chunks, so other readers would take the body for the next request.
    if (is_http_1_0_ && body_coding() != coding::none) return "the Transfer-Encoding";
    return nullptr;
  }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
  std::optional<std::uint64_t> body_size_;
  bool is_http_1_0_ = false;
};

class request : public head {
 public:
  [[nodiscard]] const std::string& method() const { return method_; }
  /// Path and query, also if the whole URL was sent; with OPTIONS perhaps "*", with CONNECT a host.
  [[nodiscard]] const std::string& target() const { return target_; }

  /// Parses all lines, without the empty one at the end: 0, or the status that rejects the request.
  int read(std::string_view text) {
    if (text.starts_with("\r\n")) text.remove_prefix(2);  // some clients send one after a body
    const std::string_view line = text.substr(0, text.find("\r\n"));
    text.remove_prefix(std::min(line.size() + 2, text.size()));
    const std::size_t first = line.find(' ');
    const std::size_t last = line.rfind(' ');
    if (first == line.npos || first == last) return 400;
    method_ = line.substr(0, first);
    const std::string_view version = line.substr(last + 1);
    if (!is_token(method_) || !is_version(version)) return 400;
    if (version[5] != '1') return 505;
    if (!read_target(line.substr(first + 1, last - first - 1))) return 400;
    if (read_fields(text, version[7] == '0') != nullptr) return 400;

    const auto host = field("Host");
    if (count("Host") > 1 || (!host && !is_http_1_0())) return 400;
    if (host && !host->empty() && !is_host(*host)) return 400;
    if (body_coding() == coding::none) return 0;
    // Chunks determine the end of the body, if they are the last coding and no other field states a length.
    const auto codings = list("Transfer-Encoding");
    const auto is_chunked = [](std::string_view each) { return same(each, "chunked"); };
    const bool once = std::count_if(codings.begin(), codings.end(), is_chunked) == 1;
    if (!once || !is_chunked(codings.back()) || body_size()) return 400;
    return body_coding() == coding::chunked ? 0 : 501;
  }

 private:
  // RFC 9112, section 3.2.
  bool read_target(std::string_view text) {
    const auto is_odd = [](char c) { return c <= ' ' || c > '~' || c == '#'; };
    if (std::any_of(text.begin(), text.end(), is_odd)) return false;
    target_ = text;
    if (method_ == "CONNECT") return is_host(text);
    if (text == "*") return method_ == "OPTIONS";
    for (const std::string_view scheme : {"http://", "https://"}) {
      if (!begins_with(text, scheme)) continue;
      text.remove_prefix(scheme.size());
      const std::size_t end = std::min(text.find_first_of("/?"), text.size());
      target_ = text.substr(end);
      if (!target_.starts_with('/')) target_.insert(0, 1, '/');
      return is_host(text.substr(0, end));
    }
    return text.starts_with('/');
  }

  std::string method_;
  std::string target_;
};

class answer : public head {
 public:
  /// All lines, without the empty one at the end.
  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] std::string_view first_line() const {
    return std::string_view(text_).substr(0, text_.find("\r\n"));
  }
  [[nodiscard]] int status() const { return status_; }

  /// Parses all lines, without the empty one at the end: null, or the part that is wrong.
  const char* read(std::string text) {
    text_ = std::move(text);
    const std::size_t end = first_line().size();
    // Old servers break long fields into lines that begin with a space; a client joins them.
    for (std::size_t at = text_.find("\r\n", end + 1); at < text_.size(); at = text_.find("\r\n", at + 2))
      if (text_[at + 2] == ' ' || text_[at + 2] == '\t') text_.replace(at, 2, "  ");

    const std::string_view line = first_line();
    const std::string_view version = line.substr(0, 8);
    const bool spaced = end >= 12 && line[8] == ' ' && (end == 12 || line[12] == ' ');
    const auto code = spaced ? number(line.substr(9, 3)) : std::nullopt;
    if (!code || *code < 100 || !is_version(version) || version[5] != '1' || has_control(line))
      return "the status line";
    status_ = static_cast<int>(*code);
    return read_fields(std::string_view(text_).substr(std::min(end + 2, text_.size())), version[7] == '0');
  }

 private:
  std::string text_;
  int status_ = 0;
};

}  // namespace http
