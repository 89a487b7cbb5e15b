#!/usr/bin/env python3
"""Compiles every C++ snippet of README.md, CONTRIBUTING.md and docs/*.md, so that none of them rots.

A fenced block that begins with ```cpp is compiled, syntax only; ```cpp nocompile is not compiled, and
```cpp openssl or ```cpp mbedtls is compiled with that TLS library.

- A block with `int main` is compiled as it is.
- Any other gets `#include "anyio_net.hpp"` and `<csignal>` in front. If it defines something at namespace scope (a
  function, a class, a namespace), it stands there; else it is the body of a coroutine,
  `anyio::task<> snippet() { ... }`. Both see `using namespace anyio` and `std::literals`.

A block that follows the line `<!-- copy of FILE -->` must be that file, word for word. A link to a file of the
repository must lead to one, and its `#anchor` to a heading there.

  check_snippets.py [FILE...]     CXX and SNIPPET_FLAGS are taken from the environment
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "make"))

from amalgamate import HEADER
from cpp_text import blank

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<indent>\s*)```cpp(?P<info>[^\n]*)\n(?P<code>.*?)^\s*```\s*$", re.MULTILINE | re.DOTALL)
COPY = re.compile(r"^<!-- copy of (\S+) -->\n+(?:```[^\n]*\n)?", re.MULTILINE)
TLS_LIBRARIES = {"openssl": "-DANYIO_NET_OPENSSL", "mbedtls": "-DANYIO_NET_MBEDTLS"}
PRELUDE = '#include "anyio_net.hpp"\n#include <csignal>\nusing namespace anyio;\nusing namespace std::literals;\n'
STATEMENTS = {"if", "for", "while", "switch", "catch", "return", "co_return", "co_await", "co_yield", "else", "throw"}
DEFINES = re.compile(r"\s*(?:template\b|struct\b|class\b|enum\b|namespace\b|concept\b|static\s+\w+|extern\b)")


@dataclass
class Snippet:
    """A fenced block and where its first line of code stands."""

    file: Path
    line: int
    code: str
    flags: tuple[str, ...] = ()


def snippets_of(file: Path) -> list[Snippet]:
    """The blocks of a file that are to be compiled."""
    text = file.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        info = match["info"].split()
        if "nocompile" in info:
            continue
        indent = match["indent"]
        code = "\n".join(line.removeprefix(indent) for line in match["code"].split("\n"))
        flags = tuple(TLS_LIBRARIES[word] for word in info if word in TLS_LIBRARIES)
        found.append(Snippet(file, text.count("\n", 0, match.start("code")) + 1, code, flags))
    return found


def stale_copies(text: str, root: Path) -> list[str]:
    """The files of which a document's text has a block that says it is a copy, and is not."""
    stale = []
    for match in COPY.finditer(text):
        original = (root / match[1]).read_text(encoding="utf-8")
        if not text.startswith(original + "```\n", match.end()):
            stale.append(match[1])
    return stale


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def dead_links(file: Path) -> list[str]:
    """The links of a document that lead to no file, or to no heading of a document."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        if re.match(r"\w+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            dead.append(link)
    return dead


def outermost(code: str) -> list[str]:
    """The pieces of a blanked text outside braces: each ends where a brace opens, or at a semicolon."""
    pieces, piece, braces, parentheses = [], "", 0, 0
    for character in code:
        if character == "{":
            if braces == 0 and parentheses == 0:
                pieces.append(piece + "{")
                piece = ""
            braces += 1
        elif character == "}":
            braces -= 1
        elif braces == 0:
            parentheses += {"(": 1, ")": -1}.get(character, 0)
            piece += character
            if character == ";" and parentheses == 0:
                pieces.append(piece)
                piece = ""
    return pieces


def is_definition(piece: str) -> bool:
    """Whether a piece of `outermost` can only stand at namespace scope."""
    if DEFINES.match(piece):
        return True
    if not piece.endswith("{") or "(" not in piece:
        return False
    head = piece.split("(", 1)[0]
    words = re.findall(r"[A-Za-z_]\w*", head)
    plain = not re.search(r"[=.?!+]|->|\[(?!\[)", head)  # `auto x = f(`, `a.b(`, a lambda
    return plain and len(words) >= 2 and not STATEMENTS & {words[0], words[-1]}


def program(snippet: Snippet) -> str:
    """A translation unit for a snippet; its own lines keep their file and number."""
    here = f'#line {snippet.line} "{snippet.file}"\n'
    ours = '#line 1 "(around the snippet)"\n'
    code = blank(snippet.code)
    if re.search(r"\bint\s+main\b", code):
        return here + snippet.code
    directives, plain = [], []
    for line, blanked in zip(snippet.code.split("\n"), code.split("\n")):
        is_directive = re.match(r"\s*(?:#|using\s+namespace\b|namespace\s+\w+\s*=)", blanked)
        directives.append(line if is_directive else "")
        plain.append("" if is_directive else line)
    # Macros of the snippet configure the header, so they stand before it.
    top = here + "\n".join(line for line in directives if line.lstrip().startswith("#define")) + "\n" + ours + PRELUDE
    top += here + "\n".join("" if line.lstrip().startswith("#define") else line for line in directives) + "\n"
    body = here + "\n".join(plain) + "\n"
    if any(is_definition(piece) for piece in outermost(blank("\n".join(plain)))):
        return top + body
    return f"{top}{ours}anyio::task<> snippet();\nanyio::task<> snippet() {{\n{body}{ours}co_return;\n}}\n"


def compiler(snippet: Snippet) -> list[str]:
    """The compiler with its flags; without the library's definitions, of which a snippet tells nothing."""
    flags = shlex.split(os.environ.get("SNIPPET_FLAGS", ""))
    return [os.environ.get("CXX", "g++"), "-std=c++20", "-w", "-DANYIO_NET_SPLIT", *flags, *snippet.flags]


def precompile(snippets: list[Snippet], folder: Path) -> dict[tuple[str, ...], Path]:
    """A folder with the header precompiled, for each set of flags; g++ takes it where no macro stands before it."""
    folders = {}
    for number, snippet in enumerate({snippet.flags: snippet for snippet in snippets}.values()):
        where = folder / str(number)
        where.mkdir()
        folders[snippet.flags] = where
        target = ["-o", str(where / f"{HEADER}.gch"), "-x", "c++-header", str(ROOT / HEADER)]
        subprocess.run([*compiler(snippet), *target], stderr=subprocess.DEVNULL, check=False)
    return folders


def compile_snippet(snippet: Snippet, precompiled: Path) -> str:
    """The compiler's errors for a snippet; empty if there are none."""
    command = [*compiler(snippet), "-fsyntax-only", f"-I{ROOT}", "-x", "c++", "-"]
    # From that folder, since the one in which a compiler stands comes first.
    done = subprocess.run(
        command, cwd=precompiled, input=program(snippet), capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="instead of README.md, CONTRIBUTING.md and docs/*.md")
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    files = parser.parse_args().files or documents
    files = [file for file in files if file.is_file()]
    snippets = [snippet for file in files for snippet in snippets_of(file)]
    stale = [(file, path) for file in files for path in stale_copies(file.read_text(encoding="utf-8"), ROOT)]
    for file, path in stale:
        print(f"{file}: the copy of {path} differs from it", file=sys.stderr)
    dead = [(file, link) for file in files for link in dead_links(file)]
    for file, link in dead:
        print(f"{file}: the link {link} leads nowhere", file=sys.stderr)
    failures = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        folders = precompile(snippets, Path(folder))
        complaints = pool.map(lambda snippet: compile_snippet(snippet, folders[snippet.flags]), snippets)
        for snippet, complaint in zip(snippets, complaints):
            if complaint:
                failures += 1
                print(f"{snippet.file}:{snippet.line}: this snippet does not compile:\n{complaint}", file=sys.stderr)
    print(f"check_snippets: {len(snippets)} snippets, {failures} do not compile, {len(stale)} copies are stale, "
          f"{len(dead)} links are dead")
    return 1 if failures or stale or dead else 0


if __name__ == "__main__":
    sys.exit(main())
