"""The part of C++'s grammar that the tools need: it separates code from comments and literals."""

from __future__ import annotations

import re

# Identifiers and numbers are matched too, so that 1'000 starts no character literal and a name that
# ends in R starts no raw string.
TOKEN = re.compile(
    r"""
      (?P<comment> //(?:\\\n|[^\n])* | /\*.*?(?:\*/|\Z) )
    | (?P<raw> (?:u8|[uUL])?R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)" )
    | (?P<literal> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
    | (?P<other> [A-Za-z_]\w* | \d(?:'?[\w.])* )
    """,
    re.VERBOSE | re.DOTALL,
)


def _spaces(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def blank(text: str) -> str:
    """The text with comments and the insides of literals replaced by spaces; every offset stays."""

    def replace(match: re.Match[str]) -> str:
        found = match.group()
        if match["comment"] is not None:
            return _spaces(found)
        if match["raw"] is not None:
            return '"' + _spaces(found[1:-1]) + '"'
        if match["literal"] is not None:
            return found[0] + _spaces(found[1:-1]) + found[-1]
        return found

    return TOKEN.sub(replace, text)
