// How the HTTP clients receive an answer (RFC 9112). Whatever the server sends, receiving ends: there are
// limits for each wait, for the answers before the final one, for the page, and for bytes after a page.
#pragma once

#include "anyio_net.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include <unistd.h>

#include "http_head.hpp"
#include "printable.hpp"

namespace http {

inline constexpr std::chrono::seconds patience(30);  // until the next bytes, or all of a head
inline constexpr std::size_t longest_head = 65536;   // and the longest trailers
inline constexpr std::size_t longest_chunk_line = 4096;
inline constexpr int most_interim_answers = 10;

/// The server violates HTTP.
inline anyio::error malformed(const char* what) { return {anyio::errc::broken_resource, EPROTO, what}; }

/// The final answer's head, after informational ones.
inline anyio::task<answer> receive_answer(anyio::buffered_stream& in) {
  for (int interim = 0; interim <= most_interim_answers; ++interim) {
    std::string text = co_await anyio::fail_after(patience, in.receive_until("\r\n\r\n", longest_head));
    answer a;
    if (const char* wrong = a.read(std::move(text))) co_await anyio::raise(malformed(wrong));
    if (a.status() == 101) co_await anyio::raise(malformed("a change of protocols that was not requested"));
    if (a.status() >= 200) co_return a;
  }
  co_await anyio::raise(malformed("too many answers before the final one"));
  co_return answer();
}

/// The destination of a page. Writing may block, and nothing else is done meanwhile. Only printable text is
/// written to a terminal.
class page {
 public:
  page(std::FILE* out, std::uint64_t most)
      : out_(out), left_(most), terminal_(::isatty(::fileno(out)) == 1) {}

  /// An error if this many more bytes exceed the limit.
  [[nodiscard]] anyio::result<> expect(std::uint64_t size) const {
    if (size > left_) return anyio::error(anyio::errc::os_error, EFBIG, "the page");
    return {};
  }
  anyio::result<> write(std::string_view bytes) {
    if (auto fits = expect(bytes.size()); !fits) return fits;
    left_ -= bytes.size();
    std::string text;
    if (terminal_) {
      begun_.append(bytes);
      const std::size_t whole = begun_.size() - unfinished_size(begun_);
      bytes = text = printable(std::string_view(begun_).substr(0, whole), true);
      begun_.erase(0, whole);
    }
    if (std::fwrite(bytes.data(), 1, bytes.size(), out_) == bytes.size()) return {};
    return anyio::error(anyio::errc::os_error, errno, "write");
  }

 private:
  std::FILE* out_;
  std::uint64_t left_;
  bool terminal_;
  std::string begun_;  // the beginning of a character
};

inline anyio::task<> receive_exactly(anyio::buffered_stream& in, std::uint64_t size, page& out) {
  co_await out.expect(size);
  while (size != 0) {
    const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>(size, 65536));
    const std::string bytes = co_await anyio::fail_after(patience, in.receive(piece));
    co_await out.write(bytes);
    size -= bytes.size();
  }
}

inline anyio::task<> receive_chunks(anyio::buffered_stream& in, page& out) {
  for (;;) {
    const std::string line =
        co_await anyio::fail_after(patience, in.receive_until("\r\n", longest_chunk_line));
    const auto size = chunk_size(line);
    if (!size) co_await anyio::raise(malformed("the size of a chunk"));
    if (*size == 0) break;
    co_await receive_exactly(in, *size, out);
    const std::string end = co_await anyio::fail_after(patience, in.receive_exactly(2));
    if (end != "\r\n") co_await anyio::raise(malformed("the end of a chunk"));
  }
  for (std::size_t left = longest_head;;) {  // trailers, which are ignored
    const std::string line = co_await anyio::fail_after(patience, in.receive_until("\r\n", left));
    if (line.empty()) break;
    if (!is_field(line) || line.size() + 2 >= left) co_await anyio::raise(malformed("the trailers"));
    left -= line.size() + 2;
  }
}

inline anyio::task<> receive_to_end(anyio::buffered_stream& in, page& out) {
  for (;;) {
    const auto bytes = co_await anyio::as_result(anyio::fail_after(patience, in.receive()));
    if (bytes.error() == anyio::errc::end_of_stream) co_return;
    co_await out.write(co_await bytes);
  }
}

/// What follows the head of an answer to GET. With chunks, the length field is ignored.
inline anyio::task<> receive_page(const answer& a, anyio::buffered_stream& in, page& out) {
  if (a.status() == 204 || a.status() == 205 || a.status() == 304) co_return;
  if (a.body_coding() == coding::unknown) co_await anyio::raise(malformed("the Transfer-Encoding"));
  if (a.body_coding() == coding::chunked) {
    co_await receive_chunks(in, out);
  } else if (a.body_size()) {
    co_await receive_exactly(in, *a.body_size(), out);
  } else {
    co_await receive_to_end(in, out);
  }
}

}  // namespace http
