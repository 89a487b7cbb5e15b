#!/usr/bin/env python3
"""The documents, and the comments and strings of the sources, do without the words that words.txt lists.

A document is read by paragraphs, list entries and table rows; a source by comments (those of neighbouring lines
are one) and strings. So a phrase is found also where it stands on two lines. The words under [prose] are not
looked for in titles, and not where a comment begins, which is often a noun and not a sentence.

  check_words.py [FILE...]     instead of README.md, CONTRIBUTING.md, docs/ and the sources
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "make"))

from cpp_text import TOKEN

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("words.txt")
CPP = {".cpp", ".hpp", ".ipp", ".h", ".c"}
SHELL = {".sh", ".bash", ".mk", ".gnuplot"}
SOURCES = ("src", "examples", "tests", "tools")
SENTENCE = r"(?:\A|(?<=[.!?]\s)|(?<=\n\n))"


@dataclass
class Block:
    """Words that belong together, and the number of their first line."""

    line: int
    text: str
    kind: str  # "comment", "string", "paragraph" or "title"


@dataclass
class Rule:
    pattern: re.Pattern[str]
    better: str
    section: str

    def concerns(self, block: Block, position: int) -> bool:
        if self.section == "comments":
            return block.kind == "comment"
        if self.section == "prose":
            return block.kind == "paragraph" or (block.kind == "comment" and position > 0)
        return True


@dataclass
class Finding:
    line: int
    words: str
    better: str


def rules(text: str) -> list[Rule]:
    """The rules of a list; a line that is none of its forms is an error."""
    found, section = [], ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if match := re.fullmatch(r"\[(everywhere|comments|prose)\]", line):
            section = match[1]
            continue
        pattern, arrow, better = line.partition(" => ")
        if not arrow or not section:
            raise ValueError(f"{LIST.name}:{number}: neither [SECTION] nor REGEX => BETTER")
        begin = r"\b"
        if pattern.startswith("<<"):
            begin, pattern = r"\A\s*", pattern[2:]
        elif pattern.startswith("<"):
            begin, pattern = SENTENCE + r"\s*", pattern[1:]
        body = f"(?:{pattern})".replace(" ", r"\s+")
        found.append(Rule(re.compile(begin + body + r"(?!\w)", re.IGNORECASE), better, section))
    return found


def of_cpp(text: str) -> Iterator[Block]:
    """Comments and strings of C++."""
    block: Block | None = None
    end = 0
    for match in TOKEN.finditer(text):
        comment, literal = match["comment"], match["raw"] or match["literal"]
        if comment is None and (literal is None or literal.startswith("'")):
            continue
        kind = "string" if comment is None else "comment"
        words = re.sub(r"^[ \t]*(?://[/!]?<?|/\*+|\*/?)|\*/$", "", match.group(), flags=re.MULTILINE)
        if comment is None:
            words = words[words.index('"') + 1 : -1].replace("\\n", "\v")  # which ends no line of the source
        between = text[end : match.start()]
        line = text.count("\n", 0, match.start()) + 1
        if block and block.kind == kind and not between.strip() and (kind == "string" or between.count("\n") == 1):
            block.text += ("\n" if "\n" in between else "") + words
        else:
            if block:
                yield block
            block = Block(line, words, kind)
        end = match.end()
    if block:
        yield block


def of_python(text: str) -> Iterator[Block]:
    """Comments and strings of Python."""
    block: Block | None = None
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING:
            words = re.sub(r"^\w*(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')$", "", token.string)
            yield Block(token.start[0], words, "string")
        elif token.type == tokenize.COMMENT:
            words = token.string.lstrip("#")
            if block and last == token.start[0] - 1:
                block.text += "\n" + words
            else:
                if block:
                    yield block
                block = Block(token.start[0], words, "comment")
            last = token.start[0]
    if block:
        yield block


def of_shell(text: str) -> Iterator[Block]:
    """Comments, and every other line by itself: strings need no quotes there."""
    comment: Block | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            words = line.lstrip(" \t#")
            if comment:
                comment.text += "\n" + words
            else:
                comment = Block(number, words, "comment")
            continue
        if comment:
            yield comment
            comment = None
        if line.strip():
            yield Block(number, line.strip(), "string")
    if comment:
        yield comment


def of_document(text: str) -> Iterator[Block]:
    """Paragraphs, list entries, table rows, titles, and the lines of code blocks."""
    block: Block | None = None
    code = False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        stripped = line.strip()
        fence = stripped.startswith("```")
        code ^= fence
        entry = re.match(r"(?:[-*+]|\d+\.)\s+|\|", stripped)
        title = stripped.startswith("#") and not code
        if block and (not stripped or fence or code or entry or title or block.kind == "title"):
            yield block
            block = None
        if not stripped or fence:
            continue
        words = stripped[entry.end() :] if entry else stripped.lstrip("# ") if title else stripped
        if block:
            block.text += "\n" + words
        else:
            block = Block(number, words, "title" if title else "string" if code else "paragraph")
    if block:
        yield block


def blocks_of(file: Path, text: str) -> Iterable[Block]:
    if file.suffix == ".md":
        return of_document(text)
    if file.suffix in CPP:
        return of_cpp(text)
    return of_python(text) if file.suffix == ".py" else of_shell(text)


def findings(blocks: Iterable[Block], listed: list[Rule]) -> list[Finding]:
    found = []
    for block in blocks:
        for rule in listed:
            for match in rule.pattern.finditer(block.text):
                if rule.concerns(block, match.start()):
                    words = match.group()
                    line = block.line + block.text.count("\n", 0, match.end() - len(words.lstrip()))
                    found.append(Finding(line, " ".join(words.split()), rule.better))
    return sorted(found, key=lambda finding: finding.line)


def files() -> list[Path]:
    sources = [f for d in SOURCES for f in (ROOT / d).rglob("*") if f.suffix in CPP | SHELL | {".py", ".md"}]
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", *(ROOT / "docs").glob("*.md")]
    return sorted(file for file in [*sources, *documents] if file.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    listed = rules(LIST.read_text(encoding="utf-8"))
    chosen = [file.resolve() for file in parser.parse_args().files] or files()
    count = 0
    for file in chosen:
        for finding in findings(blocks_of(file, file.read_text(encoding="utf-8")), listed):
            shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
            print(f"{shown}:{finding.line}: \"{finding.words}\": better: {finding.better}", file=sys.stderr)
            count += 1
    print(f"check_words: {len(chosen)} files, {count} findings")
    return 1 if count or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
