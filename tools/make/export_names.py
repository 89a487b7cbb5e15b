#!/usr/bin/env python3
"""Writes anyio_net.cppm, a C++20 module that exports every public name of anyio_net.hpp.

The names are found in the joined header: what is declared in the namespace anyio or in a namespace inside it, in the
part before the definitions, and not in a namespace `detail`. A name that the header declares only with a macro set is
exported under the same condition. Members and friends come with their class. A
declaration that this tool does not understand is an error.

  export_names.py          write anyio_net.cppm, if it changed
  export_names.py --check  fail if anyio_net.cppm exports other names
  export_names.py --names  print the names, one a line
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from cpp_text import blank

HEADER = "anyio_net.hpp"
MODULE = "anyio_net.cppm"
DEFINITIONS = "#if ANYIO_NET_DEFINE"

BEGIN = """\
// anyio_net.cppm: anyio_net.hpp as a C++20 module. A program includes the standard headers that it uses, <coroutine>
// for coroutines, and then says `import anyio_net;`. Macros of the header are not exported.
//
// Generated: do not edit. tools/make/export_names.py finds the names in anyio_net.hpp.
//
// Macros that configure the library are set where this file is compiled. With ANYIO_NET_SPLIT, which makes importing
// cheaper, one other file holds the definitions, as for programs that include the header.
//
// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the anyio_net authors. The licence's text is in LICENSE.
module;

#include "anyio_net.hpp"

export module anyio_net;
"""

TEMPLATE = re.compile(r"template\s*<")
TYPE = re.compile(
    r"(?:class|struct|union|enum(?:\s+(?:class|struct))?)\s+(?:alignas\s*\([^)]*\)\s*)?(?P<name>[\w:]+)\s*(?P<rest>.*)",
    re.DOTALL,
)
DIRECTIVE = re.compile(r"\s*#\s*(\w+)((?:\\\n|[^\n])*)")
NAMESPACE = re.compile(r"(?P<inline>inline\s+)?namespace\s+(?P<name>[\w:]+)$")
ALIAS = re.compile(r"using\s+(?P<name>\w+)\s*=")
CONCEPT = re.compile(r"concept\s+(?P<name>\w+)\s*=")
VARIABLE = re.compile(r"(?:\w[\w:<>, *&]*\s|[*&>])(?P<name>\w+)\s*(?:=.*|\{)?$", re.DOTALL)
FUNCTION = re.compile(r"(?P<name>[~\w:]+|\boperator\s*[^\w\s]+)\s*$")
OPERATOR = re.compile(r"\boperator\s*(?P<symbol>co_await|[^\w\s]+)\s*$")
IGNORED = re.compile(r"(?:static_assert\b|using\s+namespace\b|friend\b|extern\s*\"|$)")


class Unknown(Exception):
    """A declaration that this tool does not understand."""


@dataclass(frozen=True)
class Name:
    namespace: str  # "anyio", "anyio::sim"
    name: str
    condition: str  # as after `#if`; empty: always


def without_balanced(text: str, start: int, opening: str, closing: str) -> int:
    """The offset behind the bracket that closes the one at `start`."""
    depth = 0
    for offset in range(start, len(text)):
        depth += {opening: 1, closing: -1}.get(text[offset], 0)
        if depth == 0:
            return offset + 1
    raise Unknown(f"unbalanced {opening} in: {text[start : start + 80]}")


def plain(declaration: str) -> str:
    """A declaration without attributes, the library's macros, templates' heads and constraints."""
    text = re.sub(r"\[\[.*?\]\]", " ", declaration, flags=re.DOTALL)
    text = re.sub(r"__attribute__\s*\(\(.*?\)\)", " ", text, flags=re.DOTALL)
    text = re.sub(r"\bANYIO_NET_(?:FN|COLD|LAZY|HOT|LIFETIMEBOUND)\b", " ", text)
    text = text.replace("decltype(auto)", "auto").strip()
    while match := TEMPLATE.match(text):
        text = text[without_balanced(text, match.end() - 1, "<", ">") :].strip()
        while text.startswith("requires"):
            text = text[len("requires") :].strip()
            while True:  # terms joined by && and ||, each a name with arguments or in parentheses
                match = re.match(r"!?\s*(?:[\w:]+\s*)?", text)
                assert match
                text = text[match.end() :]
                for opening, closing in ("<>", "()"):
                    if text.startswith(opening):
                        text = text[without_balanced(text, 0, opening, closing) :].strip()
                more = re.match(r"\s*(?:&&|\|\|)\s*", text)
                if not more:
                    break
                text = text[more.end() :]
            text = text.strip()
    return text


def name_of(declaration: str) -> str:
    """The name that a declaration at namespace scope introduces; empty if it introduces none."""
    text = plain(declaration)
    if IGNORED.match(text):
        return ""
    for kind in (ALIAS, CONCEPT):
        if match := kind.match(text):
            return match["name"]
    if match := TYPE.match(text):
        if match["rest"].startswith("<") or "::" in match["name"]:  # a specialization, a class inside another
            return ""
        if not match["rest"] or match["rest"][0] in ":{f":  # not the type of a variable or a function
            return match["name"]
    head = text
    depth = 0
    for offset, character in enumerate(text):  # the first parenthesis outside template arguments
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "(" and depth == 0 and "=" not in re.sub(r"\boperator\s*[^\w\s]+", "", text[:offset]):
            head = text[:offset]
            match = FUNCTION.search(head)
            if not match:
                break
            if operator := OPERATOR.search(head):
                return f"operator {operator['symbol']}"
            guide = match.start() == 0 and "->" in text[offset:]
            if "::" in match["name"] or guide:  # a member that is defined outside its class
                return ""
            if match.start() == 0:
                break
            return match["name"]
    if match := VARIABLE.match(text):
        return match["name"]
    raise Unknown(f"not understood: {' '.join(declaration.split())[:120]}")


def declarations(code: str) -> Iterator[tuple[list[str], list[str], str]]:
    """Each declaration at namespace scope of a blanked text: the namespaces and the conditions around it, and its
    text, in which bodies are `{`."""
    namespaces: list[str] = []
    conditions: list[str] = []
    piece = ""
    braces = parentheses = 0  # inside the declaration
    position = 0
    while position < len(code):
        line_begins = position == 0 or code[position - 1] == "\n"
        directive = DIRECTIVE.match(code, position) if line_begins else None
        if directive and "\n" not in code[position : directive.start(1)]:
            word, rest = directive[1], directive[2].strip()
            if word in ("if", "ifdef", "ifndef"):
                conditions.append({"if": "", "ifdef": "defined ", "ifndef": "!defined "}[word] + rest)
            elif word in ("else", "elif"):
                conditions[-1] = f"!({conditions[-1]})" + (f" && ({rest})" if word == "elif" else "")
            elif word == "endif":
                conditions.pop()
            position = directive.end()
            continue
        character = code[position]
        position += 1
        if braces:
            braces += {"{": 1, "}": -1}.get(character, 0)
            if braces == 0 and ends_with_body(piece):
                yield namespaces, conditions, piece
                piece = ""
            continue
        parentheses += {"(": 1, ")": -1}.get(character, 0)
        if character == "{" and parentheses == 0:
            head = NAMESPACE.match(piece.strip())
            if head:
                namespaces.append("" if head["inline"] else head["name"])
                piece = ""
            elif re.match(r'\s*extern\s*"[^"]*"\s*$', piece):
                namespaces.append("detail")  # nothing of it has the namespace's name
                piece = ""
            else:
                piece += character
                braces = 1
        elif character == "{":
            position = without_balanced(code, position - 1, "{", "}")
        elif character == "}":
            namespaces.pop()
        elif character == ";" and parentheses == 0:
            yield namespaces, conditions, piece
            piece = ""
        else:
            piece += character


def ends_with_body(piece: str) -> bool:
    """Whether the brace that ends this text ends a function, after which no semicolon comes."""
    text = plain(piece)
    return not TYPE.match(text) and not CONCEPT.match(text) and "(" in text and not re.search(r"[^=!<>]=[^=]", text.split("(")[0])


def names_in(header: str) -> list[Name]:
    """Every public name, each once, in the order of the namespaces, the conditions and the alphabet."""
    code = blank(header.split(DEFINITIONS, 1)[0])
    found: dict[tuple[str, str], set[str]] = {}
    for namespaces, conditions, text in declarations(code):
        where = [part for name in namespaces for part in name.split("::") if part]
        if where[:1] != ["anyio"] or "detail" in where:
            continue
        name = name_of(text)
        if name:
            condition = " && ".join(c if len(conditions) == 1 else f"({c})" for c in conditions)
            found.setdefault(("::".join(where), name), set()).add(condition)
    names = [
        Name(namespace, name, "" if "" in conditions else " || ".join(sorted(conditions)))
        for (namespace, name), conditions in found.items()
    ]
    return sorted(names, key=lambda n: (n.namespace, n.condition, n.name))


def module_text(names: list[Name]) -> str:
    """The module that exports the names."""
    text = BEGIN
    for namespace in sorted({n.namespace for n in names}):
        conditions = sorted({n.condition for n in names if n.namespace == namespace})
        always = len(conditions) == 1  # the namespace may be absent without the condition
        if always and conditions[0]:
            text += f"\n#if {conditions[0]}"
        text += f"\nexport namespace {namespace} {{\n"
        for condition in conditions:
            if condition and not always:
                text += f"#if {condition}\n"
            for n in names:
                if (n.namespace, n.condition) == (namespace, condition):
                    text += f"using {namespace}::{n.name};\n"
            if condition and not always:
                text += "#endif\n"
        text += "}\n" + ("#endif\n" if always and conditions[0] else "")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--names", action="store_true")
    options = parser.parse_args()
    names = names_in((options.root / HEADER).read_text(encoding="utf-8"))
    if options.names:
        for n in names:
            print(f"{n.namespace}::{n.name}" + (f"  #if {n.condition}" if n.condition else ""))
        return 0
    text, file = module_text(names), options.root / MODULE
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    if options.check:
        if text != old:
            print(f"{MODULE} is not what {HEADER} declares: run `make`", file=sys.stderr)
        return int(text != old)
    if text != old:
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
