// Foreign text that is written to a terminal contains no control character, whatever it contained; safe text
// is unchanged; and text in pieces gives the same output as the whole.
#include "examples/support/printable.hpp"

#include <string>
#include <string_view>

#include "support/input.hpp"

namespace {

void check_clean(std::string_view shown, bool lines) {
  while (!shown.empty()) {
    std::size_t size = printable_size(shown);
    if (lines && size == 0)
      size = shown[0] == '\n' || shown[0] == '\t' ? 1 : shown.starts_with("\r\n") ? 2 : 0;
    FUZZ_CHECK(size != 0 && size <= shown.size());
    // The two 8-bit controls that terminals accept also as UTF-8, for a terminal that reads byte by byte.
    FUZZ_CHECK(!shown.starts_with("\xc2\x9b") && !shown.starts_with("\xc2\x9d"));
    shown.remove_prefix(size);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input in(data, size);
  const std::size_t step = 1 + in.byte();
  const std::string_view text = fuzz::text_of(in.take(in.size()));
  for (const bool lines : {false, true}) {
    const std::string shown = printable(text, lines);
    check_clean(shown, lines);
    FUZZ_CHECK(printable(shown, lines) == shown);
  }

  std::string pieces;
  std::string begun;
  for (std::size_t at = 0; at < text.size(); at += step) {
    begun.append(text.substr(at, step));
    const std::size_t whole = begun.size() - unfinished_size(begun);
    pieces += printable(std::string_view(begun).substr(0, whole), true);
    begun.erase(0, whole);
    FUZZ_CHECK(begun.size() <= 3);
  }
  FUZZ_CHECK(pieces + printable(begun, true) == printable(text, true));
  return 0;
}
