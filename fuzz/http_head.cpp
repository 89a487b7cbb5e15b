// A custom protocol that is parsed by hand: the reader of HTTP heads in examples/support. Whatever bytes
// arrive, in whatever pieces, a server finds exactly the requests they contain; a more tolerant reader sees
// the same lengths and hosts in everything that the strict one accepts, so that no request can hide another;
// and nothing accepted contains a control character.
#include "examples/support/http_head.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "support/world.hpp"

namespace {

/// The requests that a server has read, as texts.
struct outcomes {
  std::vector<std::string> requests;
  bool whole = false;  // up to the end of the stream, or to a rejected request
};

constexpr std::size_t most = 1 << 20;  // bytes read ahead count beyond a limit, so no limit is reached here

/// The values of a field for a reader that accepts CR or LF as a line end, and spaces around names.
std::vector<std::string_view> forgiving(std::string_view head, std::string_view name) {
  std::vector<std::string_view> values;
  while (!head.empty()) {
    const std::size_t end = std::min(head.find_first_of("\r\n"), head.size());
    const std::string_view line = head.substr(0, end);
    const std::size_t colon = line.find(':');
    if (colon != line.npos && http::same(http::trimmed(line.substr(0, colon)), name))
      values.push_back(http::trimmed(line.substr(colon + 1)));
    head.remove_prefix(std::min(end + 1, head.size()));
  }
  return values;
}

bool is_clean(std::string_view head) {
  for (std::size_t at = head.find("\r\n"); at != head.npos; at = head.find("\r\n")) {
    if (http::has_control(head.substr(0, at))) return false;
    head.remove_prefix(at + 2);
  }
  return !http::has_control(head);
}

void check_lengths(const http::head& h, std::string_view text) {
  const auto sizes = forgiving(text, "Content-Length");
  FUZZ_CHECK(sizes.size() == (h.body_size() ? 1u : 0u));
  FUZZ_CHECK(sizes.empty() || http::number(sizes[0]) == h.body_size());
  FUZZ_CHECK(forgiving(text, "Transfer-Encoding").empty() == (h.body_coding() == http::coding::none));
  FUZZ_CHECK(is_clean(text));
}

/// Reads one request, and describes it; a body, if another request may follow it.
std::string read(std::string_view text, std::size_t& body) {
  http::request r;
  const int refused = r.read(text);
  if (refused != 0) return "refused " + std::to_string(refused);
  check_lengths(r, text);
  FUZZ_CHECK(r.body_coding() == http::coding::none || !r.body_size());
  const auto hosts = forgiving(text, "Host");
  FUZZ_CHECK(hosts.size() == 1 || (hosts.empty() && r.is_http_1_0()));
  FUZZ_CHECK(http::is_token(r.method()));
  FUZZ_CHECK(r.target().starts_with('/') || r.target() == "*" || r.method() == "CONNECT");
  body = static_cast<std::size_t>(std::min<std::uint64_t>(r.body_size().value_or(0), most));
  return r.method() + " " + r.target() + " " + std::to_string(body) + (r.keeps_connection() ? " keep" : "");
}

bool is_last(std::string_view request) { return !request.ends_with(" keep"); }

/// The requests in the bytes, when all are present.
outcomes expected_of(std::string_view bytes) {
  outcomes all;
  for (std::size_t end = bytes.find("\r\n\r\n"); end != bytes.npos; end = bytes.find("\r\n\r\n")) {
    std::size_t body = 0;
    all.requests.push_back(read(bytes.substr(0, end), body));
    bytes.remove_prefix(end + 4);
    if (is_last(all.requests.back()) || body > bytes.size()) break;
    bytes.remove_prefix(body);
  }
  return all;
}

anyio::task<> serve(anyio::tcp_stream client, outcomes& seen) {
  anyio::buffered_stream in(client);
  do {
    const auto head = co_await anyio::as_result(in.receive_until("\r\n\r\n", most));
    seen.whole = head.error() == anyio::errc::end_of_stream || head.error() == anyio::errc::incomplete_read;
    if (!head) co_return;
    std::size_t body = 0;
    seen.requests.push_back(read(*head, body));
    seen.whole = is_last(seen.requests.back());
    if (!seen.whole && !co_await anyio::as_result(in.receive_exactly(body))) co_return;
  } while (!seen.whole);
}

anyio::task<> play(std::string_view bytes, outcomes& seen) {
  auto listener = anyio::tcp_listener::open({anyio::ip_address::loopback_v4(), 80});
  if (!listener) co_return;
  anyio::task_group group;
  group.start_soon(
      listener->serve([&seen](anyio::tcp_stream client) { return serve(std::move(client), seen); }));
  auto client = co_await anyio::connect_tcp(listener->local_endpoints().front());
  co_await client.send(bytes);
  co_await client.send_eof();
  while (co_await anyio::as_result(client.receive_view())) {  // until the server closes
  }
  group.cancel();
}

void check_answer(std::string_view text) {
  http::answer a;
  if (a.read(std::string(text)) != nullptr) return;
  FUZZ_CHECK(a.status() >= 100 && a.status() <= 999);
  FUZZ_CHECK(a.text().size() == text.size());  // long fields are joined in place
  check_lengths(a, a.text());
}

void check_chunk(std::string_view line) {
  const auto size = http::chunk_size(line);
  if (!size) return;
  std::string digits(line.substr(0, line.find_first_not_of("0123456789abcdefABCDEF")));
  FUZZ_CHECK(!digits.empty() && *size == std::strtoull(digits.c_str(), nullptr, 16));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  const auto faults = in.take_tail(in.byte());
  const std::string_view bytes = fuzz::text_of(in.take(in.size()));
  check_answer(bytes);
  check_chunk(bytes);

  const outcomes expected = expected_of(bytes);
  outcomes seen;
  anyio::sim::fuzz(faults.data(), faults.size(), [&] { return play(bytes, seen); });
  FUZZ_CHECK(seen.requests.size() <= expected.requests.size());
  FUZZ_CHECK(std::equal(seen.requests.begin(), seen.requests.end(), expected.requests.begin()));
  if (seen.whole) FUZZ_CHECK(seen.requests == expected.requests);
  return 0;
}
