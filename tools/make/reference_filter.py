#!/usr/bin/env python3
"""Shows Doxygen a part as its users see it: the namespace without its ABI's name, no macros before
functions; and hides members that only the library uses, and those that every class has.

  reference_filter.py FILE           the part, to standard output; lines keep their numbers
  reference_filter.py --bases FILE   with the bases of operations, which say what their values are
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CLASS = re.compile(r"^(?:template <.*> *)?(?:class|struct) (?:\[\[\w+\]\] )?(?:\w+(?:<\w+>)?::)?(\w+)\b[^;]*$")
HIDDEN = re.compile(
    r"  (?:"
    + "|".join(
        (
            r"(?:explicit |constexpr )*\w+\(.*\bdetail::",  # created only by the library
            r"(?:\[\[nodiscard\]\] )?(?:virtual )?(?:const )?detail::(?!\w*_operation\b)\w+[&*<]",
            r"static constexpr const char\* name =|void keep_loan\(|bool await_",
            r"using (?:detail::)?\w+(?:<.*>)?::\w+;|using \w+ = .*detail::",
            r"(?:explicit )?(\w+)\((?:const )?\1&&?(?: \w+)?\)",  # copied and moved
            r"(?:\[\[gnu::always_inline\]\] )?\w+& operator=\((?:const )?\w+&",
            r"template <detail::string_rvalue S>",  # told with the one that takes any bytes
        )
    )
    + ")"
)

# How the standard library learns what a structured binding of a type binds.
BINDING = re.compile(r"^template <.*>\nstruct std::tuple_\w+<[^;{]*\{\};", re.MULTILINE)

# The bases of operations are internal; users see them as one.
OPERATION = re.compile(r"(class (?:\[\[nodiscard\]\] )?[\w:<>]*_operation(?: final)?\s*):\s*public detail::[^{;]*\{")


def as_operation(match: re.Match[str]) -> str:
    return match[1] + ": public operation_tag {" + "\n" * match[0][len(match[1]) :].count("\n")


def seen_by_users(text: str, bases: bool = False) -> str:
    lines = []
    name = ""  # of the class that this line belongs to
    inside = False  # behind "for the parts of the library", until the class ends
    text = text.replace("ANYIO_NET_LAZY", "[[nodiscard]]")
    text = BINDING.sub(lambda match: "\n" * match[0].count("\n"), text)
    text = text if bases else OPERATION.sub(as_operation, text)
    for line in text.splitlines():
        line = re.sub(r"^}(}+  // namespace anyio)", r"\1", line)
        line = line.replace(" inline namespace ANYIO_NET_ABI {", "").replace("ANYIO_NET_FN ", "").replace("ANYIO_NET_HOT ", "").replace(" ANYIO_NET_LIFETIMEBOUND", "").replace("protected:", "private:")
        if match := CLASS.match(line):
            name = match[1]
        elif line.startswith("};"):
            name = ""
        if line.endswith("// --- for the parts of the library"):
            inside = True
            line = "/** @cond */"
        elif inside and re.match(r" ?(private:|};)", line):
            inside = False
            line = "/** @endcond */ " + line
        elif re.match(r"  friend (class |struct |detail::)", line):
            line = ""
        elif name and HIDDEN.match(line):
            line = "/** @private */ " + line
        elif name.endswith("_operation") and re.match(rf"  (?:explicit )?{name}\(\w", line):
            line = "/** @private */ " + line  # created by functions that return it
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(seen_by_users(Path(sys.argv[-1]).read_text(), "--bases" in sys.argv))
