// Reads by length, by delimiter and of integers from the same bytes in two chunkings return equal results,
// which are those of a model without chunks: limits are honoured, a failed or cancelled read keeps every
// byte, and bytes read ahead are in `buffer()`. Only a delimiter beyond the limit depends on the bytes read
// ahead, and so on chunks; the model takes them from `buffer()` before the call.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/world.hpp"

namespace {

/// The results of the calls, as texts.
using outcomes = std::vector<std::string>;

class reading {
 public:
  reading(std::string_view all, fuzz::input program, fuzz::input chunks) noexcept
      : all_(all), program_(program), chunks_(chunks) {}

  anyio::task<> run() {
    auto ends = anyio::create_memory_stream_pair(200);
    anyio::memory_stream from = std::move(ends.first);
    anyio::buffered_stream s(std::make_unique<anyio::memory_stream>(std::move(ends.second)));
    anyio::task_group group;
    group.start_soon(write(from));
    for (int calls = 0; calls < 40 && !program_.empty(); ++calls) co_await call(s);
    group.cancel();
  }

  outcomes seen;
  bool beyond_limit = false;  // a delimiter found only because it was buffered

 private:
  anyio::task<> write(anyio::memory_stream& to) {
    std::string_view rest = all_;
    while (!rest.empty()) {
      const unsigned b = chunks_.byte();
      const std::size_t n = b == 0 ? rest.size() : std::min<std::size_t>(b, rest.size());
      co_await to.send(anyio::const_buffer(rest.substr(0, n)));
      rest.remove_prefix(n);
      if ((b & 1) != 0) co_await anyio::sleep(std::chrono::microseconds(b));
    }
    co_await to.send_eof();
  }
  [[nodiscard]] std::string_view rest() const noexcept { return all_.substr(place_); }

  anyio::task<> call(anyio::buffered_stream& s) {
    const unsigned what = program_.byte() % 8;
    const std::size_t before = s.buffer().size();
    FUZZ_CHECK(rest().starts_with(s.buffer()));
    switch (what) {
      case 0: co_await line(s, program_.length(600)); break;
      case 1: co_await until(s, program_.length(600)); break;
      case 2: co_await exactly(s, program_.length(900)); break;
      case 3: co_await exactly_into(s, program_.length(900)); break;
      case 4: {  // cancelled after a while, it has returned nothing, and the next one returns all
        const auto limit = std::chrono::microseconds(program_.byte());
        const std::size_t wanted = program_.length(900);
        auto r = co_await anyio::as_result(anyio::move_on_after(limit, s.receive_exactly(wanted)));
        if (r && *r) take(**r);
        if (!r) FUZZ_CHECK(wanted > rest().size());
        if (r && !*r && wanted <= rest().size()) co_await exactly_quietly(s, wanted);
        break;
      }
      case 5: {  // as much as arrives, which depends on the chunks
        if (rest().empty()) break;
        const std::size_t most = 1 + program_.length(300);
        const std::string got = co_await s.receive(most);
        FUZZ_CHECK(!got.empty() && got.size() <= most);
        FUZZ_CHECK(before == 0 || got.size() <= before);
        take(got);
        // Both chunkings must continue at the same place.
        co_await exactly_quietly(s, most - got.size());
        break;
      }
      case 6: co_await number(s, false); break;
      case 7: co_await number(s, true); break;
    }
    FUZZ_CHECK(rest().starts_with(s.buffer()));
  }
  void take(std::string_view bytes) {
    FUZZ_CHECK(rest().starts_with(bytes));
    place_ += bytes.size();
  }
  anyio::task<> exactly_quietly(anyio::buffered_stream& s, std::size_t size) {
    const auto r = co_await anyio::as_result(s.receive_exactly(std::min(size, rest().size())));
    FUZZ_CHECK(r.has_value());
    take(*r);
  }
  void check_end(const anyio::buffered_stream& s, const anyio::error& error) {
    FUZZ_CHECK(error == (rest().empty() ? anyio::errc::end_of_stream : anyio::errc::incomplete_read));
    FUZZ_CHECK(s.buffer() == rest());
  }
  anyio::task<> exactly(anyio::buffered_stream& s, std::size_t size) {
    auto r = co_await anyio::as_result(s.receive_exactly(size));
    note(r ? *r : std::string(anyio::to_string(r.error().code())));
    FUZZ_CHECK(r.has_value() == (size <= rest().size()));
    if (!r) co_return check_end(s, r.error());
    FUZZ_CHECK(r->size() == size);
    take(*r);
  }
  anyio::task<> exactly_into(anyio::buffered_stream& s, std::size_t size) {
    std::string room(size, '\0');
    auto r = co_await anyio::as_result(s.receive_exactly(anyio::mutable_buffer(room.data(), size)));
    note(r ? room : std::string(anyio::to_string(r.error().code())));
    FUZZ_CHECK(r.has_value() == (size <= rest().size()));
    if (!r) co_return check_end(s, r.error());
    take(room);
  }
  /// Of any type, in either order of bytes, and cancelled after a while or not.
  anyio::task<> number(anyio::buffered_stream& s, bool cancelled) {
    const unsigned which = program_.byte();
    const std::endian order = (which & 8) != 0 ? std::endian::little : std::endian::big;
    const auto limit = std::chrono::microseconds(cancelled ? program_.byte() : 0);
    switch (which & 7) {
      case 0: co_await number_of<std::uint8_t>(s, order, cancelled, limit); break;
      case 1: co_await number_of<std::uint16_t>(s, order, cancelled, limit); break;
      case 2: co_await number_of<std::uint32_t>(s, order, cancelled, limit); break;
      case 3: co_await number_of<std::uint64_t>(s, order, cancelled, limit); break;
      case 4: co_await number_of<std::int8_t>(s, order, cancelled, limit); break;
      case 5: co_await number_of<std::int16_t>(s, order, cancelled, limit); break;
      case 6: co_await number_of<std::int32_t>(s, order, cancelled, limit); break;
      case 7: co_await number_of<std::int64_t>(s, order, cancelled, limit); break;
    }
  }
  template <class Int>
  anyio::task<> number_of(anyio::buffered_stream& s, std::endian order, bool cancelled,
                          std::chrono::microseconds limit) {
    if (cancelled) {
      auto r = co_await anyio::as_result(anyio::move_on_after(limit, s.receive_int<Int>(order)));
      if (!r || *r) check_number<Int>(s, r ? anyio::result<Int>(**r) : r.error(), order);
      if (!r || *r) co_return;
    }
    const auto r = co_await anyio::as_result(s.receive_int<Int>(order));
    check_number<Int>(s, r, order);
  }
  template <class Int>
  void check_number(const anyio::buffered_stream& s, const anyio::result<Int>& r, std::endian order) {
    note(r ? std::to_string(*r) : std::string(anyio::to_string(r.error().code())));
    FUZZ_CHECK(r.has_value() == (sizeof(Int) <= rest().size()));
    if (!r) return check_end(s, r.error());
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < sizeof(Int); ++i) {
      const auto byte = static_cast<unsigned char>(rest()[i]);
      bits |= std::uint64_t{byte} << 8 * (order == std::endian::big ? sizeof(Int) - 1 - i : i);
    }
    FUZZ_CHECK(*r == static_cast<Int>(bits));
    place_ += sizeof(Int);
  }
  anyio::task<> line(anyio::buffered_stream& s, std::size_t most) {
    const std::size_t before = s.buffer().size();
    auto r = co_await anyio::as_result(s.receive_line(most));
    check_until(s, r, "\n", most, before, true);
  }
  anyio::task<> until(anyio::buffered_stream& s, std::size_t most) {
    constexpr std::string_view delimiters[] = {"\r\n", "aab", "\n\n\n", "a", ""};
    const std::string_view delimiter = delimiters[program_.pick(std::size(delimiters))];
    const std::size_t before = s.buffer().size();
    auto r = co_await anyio::as_result(s.receive_until(delimiter, most));
    check_until(s, r, delimiter, most, before, false);
  }
  void check_until(const anyio::buffered_stream& s, const anyio::result<std::string>& r,
                   std::string_view delimiter, std::size_t most, std::size_t before, bool line) {
    note(r ? *r : std::string(anyio::to_string(r.error().code())));
    if (delimiter.empty() || most == 0) {
      FUZZ_CHECK(!r && r.error() == anyio::errc::invalid_argument);
      return;
    }
    const std::size_t at = rest().find(delimiter);
    const std::size_t end = at == std::string_view::npos ? at : at + delimiter.size();
    if (end != std::string_view::npos && (end <= most || end <= before)) {
      beyond_limit = beyond_limit || end > most;
      FUZZ_CHECK(r.has_value());
      std::string_view expected = rest().substr(0, at);
      if (line && expected.ends_with('\r')) expected.remove_suffix(1);
      FUZZ_CHECK(*r == expected);
      place_ += end;
      return;
    }
    FUZZ_CHECK(!r.has_value());
    if (rest().size() >= most) {
      beyond_limit = beyond_limit || before > most || end != std::string_view::npos;
      FUZZ_CHECK(r.error() == anyio::errc::delimiter_not_found);
      FUZZ_CHECK(s.buffer().size() >= most && s.buffer().size() <= std::max(most, before));
    } else {
      check_end(s, r.error());
    }
  }
  void note(std::string outcome) { seen.push_back(std::move(outcome)); }

  std::string_view all_;
  std::size_t place_ = 0;
  fuzz::input program_;
  fuzz::input chunks_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  const auto chunks = in.take_tail(in.byte());
  const auto program = in.take_tail(in.byte());
  const std::string all(fuzz::text_of(in.take(in.size())));
  const std::size_t half = chunks.size() / 2;
  reading first(all, fuzz::input(program), fuzz::input(chunks.first(half)));
  reading second(all, fuzz::input(program), fuzz::input(chunks.subspan(half)));
  fuzz::check(anyio::sim::run(fuzz::new_options(), first.run()));
  fuzz::check(anyio::sim::run(fuzz::new_options(), second.run()));
  // A delimiter beyond the limit may give different results, depending on the bytes read ahead; all later
  // results may differ.
  if (!first.beyond_limit && !second.beyond_limit) FUZZ_CHECK(first.seen == second.seen);
  return 0;
}
