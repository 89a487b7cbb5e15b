#!/usr/bin/env python3
"""Joins the parts in src/ into one header, anyio_net.hpp, and checks the layers.

src/manifest.txt lists the folders of src/, one a line, the lowest layer first; `#` begins a comment. A part is
`folder/name.hpp` (declarations and templates) or `folder/name.ipp` (definitions). The joined header holds all
.hpp, folder by folder, then all .ipp in one `#if ANYIO_NET_DEFINE` region. Within a folder a part comes
after the parts that it includes.

A part names what it uses with `#include "folder/other.hpp"`. It may name only parts of its own folder and of the
folders above it in the manifest. An include of a folder below, a cycle, and a folder that is not listed are
rejected with one line that states the place, the problem, and the fix.

  amalgamate.py                  write anyio_net.hpp, if it changed
  amalgamate.py --check          fail if anyio_net.hpp differs from the joined parts
  amalgamate.py --includes FILE  write a header that includes the parts in src/, so that
                                 compilers and coverage name the part and its line
  amalgamate.py --layers         print the folders and their parts in order
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
CONFIG = "base/config.hpp"
MACRO_PREFIX = "ANYIO_NET_"
WIDTH = 100

BANNER = """\
// anyio_net.hpp {version}: sockets for C++20 in one header.
//
// Generated: do not edit. Edit the parts in src/ and run `make`, which joins them with
// tools/make/amalgamate.py.
//
// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the anyio_net authors. The licence's text is in LICENSE.
#pragma once

// g++ would warn that parameters shadow a program's globals with the same name: `bytes`, `port`.
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
INCLUDE_DIRECTIVE = re.compile(r"\s*#\s*include\b")
INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
DEFINE = re.compile(r"\s*#\s*define\s+(\w+)")
VERSION = re.compile(r"^\s*#\s*define\s+ANYIO_NET_VERSION_(MAJOR|MINOR|PATCH)\s+(\d+)\b", re.MULTILINE)


class Refusal(Exception):
    """The faults of the parts, one line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))


@dataclass
class Part:
    """A file of src/: `name` is its path there, `includes` the lines and parts that it names."""

    name: str
    text: str
    includes: list[tuple[int, str]]

    @property
    def is_definitions(self) -> bool:
        return self.name.endswith(".ipp")

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]


def lines_of(text: str) -> list[str]:
    """The lines of a text; only a newline ends a line, as for the compiler."""
    return text.removesuffix("\n").split("\n")


def read_folders(src: Path) -> list[str]:
    """The folders of src/, the lowest layer first; rejects a manifest that does not describe src/."""
    manifest = src / MANIFEST
    if not manifest.is_file():
        raise Refusal([f"src/{MANIFEST}:1: is missing: list the folders of src/ there, the lowest layer first"])
    faults: list[str] = []
    listed: dict[str, int] = {}
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
        folder = line.split("#", 1)[0].strip()
        if not folder:
            continue
        place = f"src/{MANIFEST}:{number}:"
        if folder in listed:
            faults.append(f"{place} {folder} is listed twice, first in line {listed[folder]}: remove one")
        elif not (src / folder).is_dir():
            faults.append(f"{place} src/{folder} is not a folder: create it, or remove the line")
        listed.setdefault(folder, number)
    for path in sorted(src.rglob("*")):
        name = path.relative_to(src).as_posix()
        if path.is_dir() or name == MANIFEST or path.name.startswith(".") or path.name.endswith("~"):
            continue
        folder = name.rpartition("/")[0]
        if folder not in listed:
            faults.append(
                f"src/{name}:1: lies in a folder that src/{MANIFEST} does not list: list it in its layer, or move the file"
            )
        elif not re.fullmatch(r"\w+\.[hi]pp", path.name):
            faults.append(f"src/{name}:1: is not a part: a part is name.hpp or name.ipp")
    if not faults and not listed:
        faults.append(f"src/{MANIFEST}:1: lists no folder")
    if faults:
        raise Refusal(faults)
    return list(listed)


def read_part(path: Path, name: str) -> Part:
    """A part, with the lines where it includes others."""
    text = path.read_text(encoding="utf-8")
    found = []
    for number, (line, code) in enumerate(zip(lines_of(text), lines_of(blank(text))), 1):
        include = INCLUDE.match(line) if INCLUDE_DIRECTIVE.match(code) else None
        if include and include[1] is not None:
            found.append((number, include[1]))
    return Part(name, text, found)


def include_fault(part: Part, included: str, parts: dict[str, Part], layer: dict[str, int]) -> str | None:
    """Why `part` may not include `included`, or None."""
    if included not in parts:
        return f'includes "{included}", which is not in src/: write "folder/part.hpp", or <{included}>'
    if included == part.name:
        return "includes itself: remove the line"
    other = parts[included]
    if other.is_definitions and not part.is_definitions:
        return f'includes "{included}": a part of declarations may not include definitions'
    if layer[other.folder] > layer[part.folder]:
        return (
            f'includes "{included}", but {other.folder} stands below {part.folder} in src/{MANIFEST}: '
            "move what both need into a lower part, or this part further down"
        )
    return None


def in_order(parts: dict[str, Part]) -> list[Part]:
    """Parts of one folder, each after those that it includes; rejects a cycle."""
    done: dict[str, Part] = {}
    path: list[str] = []  # from the part that is being placed to what it includes

    def place(part: Part) -> None:
        if part.name in done:
            return
        if part.name in path:
            cycle = [*path[path.index(part.name) :], part.name]
            raise Refusal([f"src/{part.name}:1: is in a cycle of includes: {' -> '.join(cycle)}: break it"])
        path.append(part.name)
        for _, name in part.includes:
            if name in parts:
                place(parts[name])
        path.pop()
        done[part.name] = part

    for name in sorted(parts):
        place(parts[name])
    return list(done.values())


def read_parts(src: Path) -> list[Part]:
    """All parts in the order of the joined header; rejects includes that break a rule of layers."""
    folders = read_folders(src)
    layer = {folder: index for index, folder in enumerate(folders)}
    parts = {
        name: read_part(path, name)
        for folder in folders
        for path in sorted((src / folder).glob("*.[hi]pp"))
        for name in [path.relative_to(src).as_posix()]
    }
    faults = []
    for part in parts.values():
        for number, included in part.includes:
            fault = include_fault(part, included, parts, layer)
            if fault:
                faults.append(f"src/{part.name}:{number}: {fault}")
    if faults:
        raise Refusal(faults)
    ordered = []
    for definitions in (False, True):
        for folder in folders:
            ordered += in_order(
                {p.name: p for p in parts.values() if p.folder == folder and p.is_definitions == definitions}
            )
    return ordered


def join_part(part: Part, included: set[str], faults: list[str]) -> list[str]:
    """The lines of a part as they appear in the joined header."""
    out: list[str] = []
    conditionals: list[int] = []  # lines of the open #if
    dropped = False               # the line before was omitted: join the blank lines around it
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
        found = dict(VERSION.findall(part.text)) if part.name == CONFIG else {}
        if len(found) == 3:
            return f"{found['MAJOR']}.{found['MINOR']}.{found['PATCH']}"
    raise Refusal(
        [f"src/{CONFIG}:1: lacks one of `#define ANYIO_NET_VERSION_MAJOR number`, _MINOR and _PATCH: add it"]
    )


def join(src: Path) -> str:
    """The text of the joined header."""
    parts = read_parts(src)
    included: set[str] = set()
    faults: list[str] = []
    lines = BANNER.format(version=version_of(parts)).splitlines()
    in_definitions = False
    for part in parts:
        if part.is_definitions and not in_definitions:
            in_definitions = True
            lines += ["", f"#if {MACRO_PREFIX}DEFINE"]
        title = f"// == {part.name} "
        lines += ["", title + "=" * (WIDTH - len(title)), ""]
        lines += join_part(part, included, faults)
    if in_definitions:
        lines += ["", f"#endif  // {MACRO_PREFIX}DEFINE"]
    if faults:
        raise Refusal(faults)
    return "\n".join(lines) + "\n" + ENDING


def includes(src: Path, target: Path) -> str:
    """The text of a header at `target` that includes the parts in src/."""
    join(src)  # for its checks
    parts = read_parts(src)
    where = os.path.relpath(src, target.parent)
    lines = ["// Generated by tools/make/amalgamate.py --includes.", "#pragma once"]
    lines += [f'#include "{where}/{part.name}"' for part in parts if not part.is_definitions]
    lines.append(f"#if {MACRO_PREFIX}DEFINE")
    lines += [f'#include "{where}/{part.name}"' for part in parts if part.is_definitions]
    lines.append("#endif")
    return "\n".join(lines) + "\n"


def layers(src: Path) -> str:
    """A line for each folder: its name, and the parts in order, each once."""
    names: dict[str, list[str]] = {folder: [] for folder in read_folders(src)}
    for part in read_parts(src):
        stem = Path(part.name).stem
        if stem not in names[part.folder]:
            names[part.folder].append(stem)
    return "\n".join(f"{folder}: {', '.join(stems)}" for folder, stems in names.items())


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
    parser.add_argument("--layers", action="store_true", help="print the folders and their parts in order")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parents[2], help="the project's folder"
    )
    options = parser.parse_args()
    src, header = options.root / "src", options.root / HEADER
    try:
        if options.includes:
            write(options.includes, includes(src, options.includes))
            return 0
        if options.layers:
            print(layers(src))
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
