#!/usr/bin/env python3
"""Joins the parts in src/ into one header, anyio_net.hpp, and keeps the layers honest.

src/manifest.txt lists the parts, one a line, the lowest layer first; `#` begins a comment. A part is
`name.hpp` (declarations and templates) or `name.ipp` (definitions); every .ipp stands after every
.hpp, and in the joined header all of them lie in one `#if ANYIO_NET_DEFINE` region.

A part names what it uses with `#include "other.hpp"`. It may only name parts that stand above it, so
that a cycle cannot be written. Whatever breaks a rule is refused with one line that tells the place,
what is wrong there, and how to put it right.

  amalgamate.py                  write anyio_net.hpp, if it changed
  amalgamate.py --check          fail if anyio_net.hpp is not what the parts give
  amalgamate.py --includes FILE  write a header that includes the parts where they lie, so that
                                 compilers and coverage name the part and its line
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from cpp_text import blank

HEADER = "anyio_net.hpp"
MANIFEST = "manifest.txt"
MACRO_PREFIX = "ANYIO_NET_"
WIDTH = 100

BANNER = """\
// anyio_net.hpp {version}: sockets for C++20 in one header.
//
// Generated: do not edit. Edit the parts in src/ and run `make`, which joins them with
// tools/amalgamate.py.
//
// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the anyio_net authors. The licence's text is in LICENSE.
#pragma once

// g++ would say of each parameter that it shadows what a program's globals are called: `bytes`, `port`.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif
"""
ENDING = """\

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
"""

DIRECTIVE = re.compile(r"\s*#\s*(\w+)")
INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
DEFINE = re.compile(r"\s*#\s*define\s+(\w+)")
VERSION = re.compile(r"^\s*#\s*define\s+ANYIO_NET_VERSION_(MAJOR|MINOR|PATCH)\s+(\d+)\b", re.MULTILINE)


class Refusal(Exception):
    """What is wrong with the parts: one line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))


@dataclass
class Part:
    """A file of src/ and the line of the manifest that lists it."""

    name: str
    listed_at: int
    text: str = ""

    @property
    def is_definitions(self) -> bool:
        return self.name.endswith(".ipp")

    @property
    def title(self) -> str:
        stem = self.name.rsplit(".", 1)[0]
        return f"{stem}: definitions" if self.is_definitions else stem


def lines_of(text: str) -> list[str]:
    """The lines of a text; only a newline ends one, as for the compiler."""
    return text.removesuffix("\n").split("\n")


def read_manifest(src: Path) -> list[Part]:
    """The parts in order, with their text; refuses a manifest that does not describe src/."""
    manifest = src / MANIFEST
    if not manifest.is_file():
        raise Refusal([f"src/{MANIFEST}:1: is missing: list the parts there, the lowest layer first"])
    faults: list[str] = []
    parts: dict[str, Part] = {}
    definitions: Part | None = None
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
        name = line.split("#", 1)[0].strip()
        if not name:
            continue
        place = f"src/{MANIFEST}:{number}:"
        part = Part(name, number)
        if name in parts:
            faults.append(f"{place} {name} is listed twice, first in line {parts[name].listed_at}: remove one")
            continue
        if not re.fullmatch(r"\w+\.[hi]pp", name):
            faults.append(f"{place} '{name}' is no part: a line holds one file name, name.hpp or name.ipp")
            continue
        if part.is_definitions:
            definitions = definitions or part
        elif definitions is not None:
            faults.append(
                f"{place} {name} stands after {definitions.name} (line {definitions.listed_at}): "
                "move it above the first .ipp"
            )
        parts[name] = part
        if (src / name).is_file():
            part.text = (src / name).read_text(encoding="utf-8")
        else:
            faults.append(f"{place} src/{name} does not exist: create it, or remove the line")
    for entry in sorted(src.iterdir()):
        ignored = entry.name == MANIFEST or entry.name.startswith(".") or entry.name.endswith("~")
        if not ignored and entry.name not in parts:
            faults.append(f"src/{entry.name}:1: is not listed in src/{MANIFEST}: list it in its layer, or remove it")
    if not faults and not parts:
        faults.append(f"src/{MANIFEST}:1: lists no part")
    if faults:
        raise Refusal(faults)
    return list(parts.values())


def include_fault(part: Part, included: str, position: dict[str, int]) -> str | None:
    """Why `part` may not include `included`, or None."""
    if included not in position:
        return f'includes "{included}", which is not listed in src/{MANIFEST}: list it, or write <{included}>'
    if included == part.name:
        return "includes itself: remove the line"
    if position[included] > position[part.name]:
        return (
            f'includes "{included}", which stands below it in src/{MANIFEST}: '
            "move what both need into a lower part, or this part further down"
        )
    return None


def join_part(part: Part, position: dict[str, int], included: set[str], faults: list[str]) -> list[str]:
    """The lines of a part as they stand in the joined header."""
    out: list[str] = []
    conditionals: list[int] = []  # lines of the open #if
    dropped = False               # the line before was left out: join the blank lines around it
    guarded = False
    for number, (line, code) in enumerate(zip(lines_of(part.text), lines_of(blank(part.text))), 1):
        place = f"src/{part.name}:{number}:"
        directive = DIRECTIVE.match(code)
        word = directive[1] if directive else ""
        keep = True
        if word in ("if", "ifdef", "ifndef"):
            conditionals.append(number)
        elif word == "endif":
            if conditionals:
                conditionals.pop()
            else:
                faults.append(f"{place} #endif without #if: remove it")
        elif word == "pragma" and code.split()[-1] == "once":
            keep, guarded = False, True
        elif word == "define":
            name = DEFINE.match(code)
            if name is None or not name[1].startswith(MACRO_PREFIX):
                faults.append(f"{place} defines {name[1] if name else 'a macro'}: begin its name with {MACRO_PREFIX}")
        elif word == "include":
            include = INCLUDE.match(line)
            if include is None:
                faults.append(f'{place} has an #include that names no file: write "part.hpp" or <system>')
            elif include[1] is not None:
                keep = False
                fault = include_fault(part, include[1], position)
                if fault:
                    faults.append(f"{place} {fault}")
            elif not conditionals:
                keep = include[2] not in included
                included.add(include[2])
        if not keep:
            dropped = True
        elif dropped and not line.strip() and (not out or not out[-1]):
            continue
        else:
            dropped = False
            out.append(line)
    for number in conditionals:
        faults.append(f"src/{part.name}:{number}: #if without #endif: close it in the same part")
    if not guarded and not part.is_definitions:
        faults.append(f"src/{part.name}:1: has no `#pragma once`: add it below the part's opening comment")
    while out and not out[-1]:
        out.pop()
    while out and not out[0]:
        out.pop(0)
    return out


def version_of(parts: list[Part]) -> str:
    """major.minor.patch, from the macros in config.hpp."""
    for part in parts:
        found = dict(VERSION.findall(part.text)) if part.name == "config.hpp" else {}
        if len(found) == 3:
            return f"{found['MAJOR']}.{found['MINOR']}.{found['PATCH']}"
    raise Refusal(
        ["src/config.hpp:1: lacks one of `#define ANYIO_NET_VERSION_MAJOR number`, _MINOR and _PATCH: add it"]
    )


def join(src: Path) -> str:
    """The text of the joined header."""
    parts = read_manifest(src)
    position = {part.name: index for index, part in enumerate(parts)}
    included: set[str] = set()
    faults: list[str] = []
    lines = BANNER.format(version=version_of(parts)).splitlines()
    in_definitions = False
    for part in parts:
        if part.is_definitions and not in_definitions:
            in_definitions = True
            lines += ["", f"#if {MACRO_PREFIX}DEFINE"]
        title = f"// == {part.title} "
        lines += ["", title + "=" * (WIDTH - len(title)), ""]
        lines += join_part(part, position, included, faults)
    if in_definitions:
        lines += ["", f"#endif  // {MACRO_PREFIX}DEFINE"]
    if faults:
        raise Refusal(faults)
    return "\n".join(lines) + "\n" + ENDING


def includes(src: Path, target: Path) -> str:
    """The text of a header at `target` that includes the parts where they lie."""
    join(src)  # for its refusals
    parts = read_manifest(src)
    where = os.path.relpath(src, target.parent)
    lines = ["// Generated by tools/amalgamate.py --includes.", "#pragma once"]
    lines += [f'#include "{where}/{part.name}"' for part in parts if not part.is_definitions]
    lines.append(f"#if {MACRO_PREFIX}DEFINE")
    lines += [f'#include "{where}/{part.name}"' for part in parts if part.is_definitions]
    lines.append("#endif")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> bool:
    """Writes whole or not at all; false if the file held the text already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return True


def first_difference(old: str, new: str) -> int:
    """The first line, counted from 1, in which two texts differ."""
    for number, (left, right) in enumerate(zip(old.splitlines(), new.splitlines()), 1):
        if left != right:
            return number
    return min(old.count("\n"), new.count("\n")) + 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if the joined header is stale")
    parser.add_argument("--includes", metavar="FILE", type=Path, help="write a header of includes instead")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the project's folder"
    )
    options = parser.parse_args()
    src, header = options.root / "src", options.root / HEADER
    try:
        if options.includes:
            write(options.includes, includes(src, options.includes))
            return 0
        text = join(src)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    if options.check:
        old = header.read_text(encoding="utf-8") if header.is_file() else ""
        if old == text:
            return 0
        print(
            f"{HEADER}:{first_difference(old, text)}: is not what src/ gives: run `make` and commit {HEADER}",
            file=sys.stderr,
        )
        return 1
    if write(header, text):
        print(f"{HEADER}: {text.count(chr(10))} lines from src/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
