#!/usr/bin/env python3
"""Checks that the library includes and uses nothing that would make every program more expensive.

Streams with formatting, locales, regular expressions and `std::function` cost compile time, size and memory;
the library needs none of them. This check reads src/ without comments and literals, and rejects their headers
and their names. Headers that the standard library includes itself are not checked.

  check_includes.py [FILE...]    check these files, or all of src/
  check_includes.py --self-test  check the check
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "make"))

from cpp_text import blank

HEADERS = set(
    """
    iostream istream ostream sstream fstream iomanip ios iosfwd streambuf strstream syncstream format print
    locale clocale codecvt regex functional filesystem any future thread condition_variable
    """.split()
)
# Names that other headers declare too, so that checking the includes is not enough.
NAMES = set(
    """
    function move_only_function bind ref cref mem_fn invoke cin cout cerr clog locale setlocale regex
    ostream istream stringstream ostringstream istringstream ofstream ifstream fstream endl
    """.split()
)

INCLUDE = re.compile(r"\s*#\s*include\s*<([^>]+)>")
NAME = re.compile(r"\bstd\s*::\s*(\w+)")


def faults_in(text: str) -> list[tuple[int, str]]:
    """Every fault of a file's text, as line number and text."""
    faults = []
    for number, (line, code) in enumerate(zip(text.split("\n"), blank(text).split("\n")), 1):
        include = INCLUDE.match(line) if code.lstrip().startswith("#") else None
        if include and include[1] in HEADERS:
            faults.append((number, f"includes <{include[1]}>"))
        faults += [(number, f"uses std::{name}") for name in NAME.findall(code) if name in NAMES]
    return faults


GOOD = [
    "#include <system_error>\n#include <string>\n// #include <iostream>\n/* std::function */",
    'const char* s = "std::cout"; std::invoke_result_t<F&> r; my::function f; std::less<> l;',
    "std::bind_or_not(); function(); detail::regex x;",
]
BAD = [
    ("#include <iostream>", "iostream"),
    ("#if 1\n#  include <functional>  // for one thing\n#endif", "functional"),
    ("std::function<void()> f;", "std::function"),
    ("return std :: invoke(f);", "std::invoke"),
    ("std::cerr << 1;", "std::cerr"),
]


def self_test() -> int:
    """Runs the check on snippets that it must accept and snippets that it must reject."""
    wrong = [f"rejected, but is correct: {text!r}: {faults_in(text)}" for text in GOOD if faults_in(text)]
    for text, expected in BAD:
        if not any(expected in fault for _, fault in faults_in(text)):
            wrong.append(f"accepted, but {expected} is wrong: {text!r}: {faults_in(text)}")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"check_includes: {len(GOOD) + len(BAD)} snippets, {len(wrong)} wrong")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self-test", action="store_true", help="check the check")
    parser.add_argument("files", nargs="*", type=Path, help="instead of all of src/")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    src = Path(__file__).resolve().parents[2] / "src"
    count = 0
    for path in options.files or sorted(src.rglob("*.[hi]pp")):
        for number, fault in faults_in(path.read_text(encoding="utf-8")):
            shown = path.relative_to(src.parent) if path.is_relative_to(src.parent) else path
            print(f"{shown}:{number}: {fault}: not allowed in the header", file=sys.stderr)
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
