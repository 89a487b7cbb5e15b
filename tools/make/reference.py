#!/usr/bin/env python3
"""Writes docs/reference.md from Doxygen's XML of src/, which `make reference` makes.

  reference.py XML PAGE           write the page
  reference.py --check XML PAGE   fail if the page is not what would be written

The page has the public types with their members, the functions, constants and macros. SECTIONS says where each part of
src/ belongs; a part with public names that is in none of them is an error. Names of `anyio::detail` are not shown: an
operation is shown by the type of its value, and members that a public type inherits from there are shown as its own.
A page that was made with another version of Doxygen is not compared.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "src" / "base" / "config.hpp"

SECTIONS = {
    "Operations": "operation/callback operation/operation operation/as_result operation/raise",
    "Errors and results": "base/error base/result",
    "Bytes and addresses": "base/buffer base/address",
    "Running": "operation/run loop/loop operation/sleep system/backend",
    "Tasks": "operation/task operation/task_group operation/combinators operation/synchronization operation/channel "
    "operation/result_group operation/signals operation/threads",
    "Byte streams": "stream/stream stream/descriptor_stream stream/socket stream/fd_stream stream/memory_stream "
    "stream/buffered stream/send_queue stream/copy",
    "TCP": "connection/connect connection/accept connection/listener connection/serving connection/serve_until",
    "UNIX": "stream/fd_passing system/unique_fd",
    "UDP and UNIX datagrams": "datagram/datagram datagram/udp_socket datagram/datagram_connect datagram/udp_batch "
    "datagram/udp_packet_info system/packet_info datagram/unix_datagram datagram/fd_packet",
    "TLS": "tls/tls_stream tls/tls_connect tls/tls_listener tls/engine/tls tls/mbedtls/tls_mbedtls "
    "tls/openssl/tls_openssl base/byte_queue",
    "Raw descriptors": "operation/descriptors connection/resolve",
    "Simulation": "simulation/sim simulation/sim_options simulation/fault_backend",
}
# Names that belong to another section than their part.
APART = {
    r"connect_unix|create_unix_listener\w*|unix_listener\w*": "UNIX",
    r"accept_operation<tls_stream>": "TLS",
}
# Types that programs name, and whose members are the library's.
OPAQUE = {"backend"}

INTRODUCTION = """# Reference

<!-- Written by `make reference` from the comments in src/, with Doxygen {version}. Do not edit. -->

All public names of `anyio_net.hpp`, in `namespace anyio`. `f(…) -> T` is a function that returns an
[operation](#operation_tag): its value is a `T`. All other functions return
at once. The [README](../README.md) explains the
ideas, the [guide](guide.md) shows how common tasks are done.

"""

# Functions whose type the compiler finds, as `name(parameters)`, and the value of the operation that they return.
VALUES = {
    r"fail_(after|at)\(.*": "T",
    r"move_on_(after|at)\(.*": "std::optional<T>",
    r"when_all\(std::vector.*": "std::vector<T>",
    r"when_all\(Xs.*": "std::tuple<T...>",
    r"when_any\(Xs.*": "std::variant<T...>",
    r"to_thread::run_sync\(.*": "T",
    r"as_result\(.*": "result<T>",
    r"serve\(Handler.*": "void",
}


class Problem(Exception):
    """The page cannot be written."""


# ---- types and signatures -------------------------------------------------------------------------


def plain(element: ElementTree.Element | None) -> str:
    return " ".join("".join(element.itertext()).split()) if element is not None else ""


def arguments_of(text: str) -> list[str]:
    """The template arguments in `a<b, c<d>>` or the parts of `b, c<d>`, without the outer name."""
    inside = text[text.index("<") + 1 : text.rindex(">")] if "<" in text else ""
    parts, depth, part = [], 0, ""
    for character in inside:
        depth += (character in "<(") - (character in ">)")
        if character == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += character
    return [*parts, part.strip()] if part.strip() else parts


def tidy(text: str) -> str:
    """Doxygen's spaces around `<`, `&` and `*`, as in the sources."""
    text = re.sub(r"\s+", " ", text)
    while (tight := re.sub(r"(\w|\.\.\.)\s*< (.*?) >", r"\1<\2>", text)) != text:
        text = tight
    text = re.sub(r"< ", "<", re.sub(r" >(?!=)", ">", text))
    text = re.sub(r"(\w|>) ?(&&|&|\*)(?= ?[\w.)>,]|$)(?!&)", r"\1\2", text)
    text = re.sub(r"(&&|&|\*)(?=\w|\.\.\.\w)", r"\1 ", text).replace(" ...", "...").replace("& ...", "&...")
    text = re.sub(r"\((&|\*) (\w)", r"(\1\2", text)
    text = re.sub(r"(?<=[\w}>])=(?=[\w{\"'-])", " = ", text)
    return re.sub(r"(\w)\(([&*])", r"\1 (\2", text).strip()


@dataclass
class Class:
    """A class, struct or alias of Doxygen's XML."""

    name: str  # without anyio::
    kind: str
    parameters: list[str]  # of the template, as declared
    bases: list[str]
    element: ElementTree.Element
    public: bool
    value_type: str = ""
    members: list[ElementTree.Element] = field(default_factory=list)

    @property
    def parameter_names(self) -> list[str]:
        return [re.sub(r"=.*", "", parameter).strip().split()[-1].lstrip(".") for parameter in self.parameters]


def template_parameters(element: ElementTree.Element) -> list[str]:
    found = []
    for param in element.findall("templateparamlist/param"):
        kind = re.sub(r"\bdetail::\w+(?: ?<.*>)?", "class", plain(param.find("type")))  # a concept
        name = plain(param.find("declname"))
        default = plain(param.find("defval"))
        text = kind if not name or re.search(rf"\b{re.escape(name)}$", kind) else f"{kind} {name}"
        found.append(tidy(text + (f" = {default}" if default else "")))
    return found


def declared_base(element: ElementTree.Element) -> str:
    """The base of a class as the source has it."""
    file, line = line_of(element)
    text = " ".join((ROOT / file).read_text(encoding="utf-8").splitlines()[line - 1 : line + 4])
    match = re.search(r"\bpublic (.*?) \{", text)
    return match[1] if match else ""


class Library:
    """All that Doxygen found."""

    def __init__(self, folder: Path) -> None:
        self.classes: dict[str, Class] = {}
        self.results: dict[str, str] = {}  # types that functions of `detail` return
        self.free: list[tuple[str, ElementTree.Element]] = []  # with the namespace, "" or "sim::"
        index = ElementTree.parse(folder / "index.xml").getroot()
        self.version = index.get("version", "")
        for compound in sorted(index.findall("compound"), key=lambda c: c.get("refid", "")):
            if compound.get("kind") not in ("class", "struct", "union", "namespace"):
                continue
            root = ElementTree.parse(folder / f"{compound.get('refid')}.xml").getroot()
            for element in root.findall("compounddef"):
                self.read(element)

    def read(self, element: ElementTree.Element) -> None:
        full = tidy(element.findtext("compoundname", ""))
        if not re.match(r"anyio(::|$)", full):
            return
        name = full.removeprefix("anyio::") if full != "anyio" else ""
        members = [m for m in element.iter("memberdef")]
        if element.get("kind") == "namespace":
            scope = f"{name}::" if name else ""
            for member in members:
                if member.get("kind") == "function" and re.search(r"\bdetail\b", scope):
                    returned = tidy(plain(member.find("type"))).removeprefix("constexpr ")
                    self.results[member.findtext("name", "")] = returned
                if not re.search(r"\bdetail\b", scope):
                    self.free.append((scope, member))
                if member.get("kind") == "typedef":
                    alias = tidy(plain(member.find("type")))
                    key = scope + member.findtext("name", "")
                    self.classes[key] = Class(key, "alias", template_parameters(member), [alias], member, True)
            return
        public_bases = [b.text or "" for b in element.findall("basecompoundref") if b.get("prot") == "public"]
        bases = [tidy(base).removeprefix("anyio::") for base in public_bases]
        if any("::template " in base for base in bases):  # of which Doxygen leaves the arguments out
            bases = [declared_base(element)]
        is_public = element.get("prot") == "public"
        found = Class(name, element.get("kind", ""), template_parameters(element), bases, element, is_public)
        aliases: dict[str, str] = {}
        for member in members:
            if member.get("kind") == "typedef":
                aliases[member.findtext("name", "")] = tidy(plain(member.find("type")))
        found.value_type = aliases.pop("value_type", "")
        for alias, meaning in aliases.items():
            found.value_type = re.sub(rf"\b{alias}\b", meaning, found.value_type)
        found.members = members
        self.classes[name] = found

    def find(self, type_name: str, scope: str = "") -> tuple[Class, list[str]] | None:
        """The class that a type names, seen from inside `scope`, and its template arguments."""
        type_name = re.sub(r"::template ", "::", type_name).removeprefix("anyio::")
        name = re.sub(r"<.*?>(?=::)", "", type_name)
        scope = "" if type_name in self.classes and "<" in type_name else scope
        bare, arguments = name.split("<", 1)[0], arguments_of(name)
        if exact := None if scope else self.classes.get(type_name):
            return exact, []
        while True:
            for prefix in (f"{scope}::",) if scope else ("", "detail::"):
                if found := self.classes.get(prefix + bare):
                    return found, arguments
            if not scope:
                return None
            scope = scope.rpartition("::")[0]

    def called(self, type_name: str) -> str:
        """What a function of the library returns, if the type is spelled as the result of calling one."""
        match = re.fullmatch(r"std::invoke_result_t<decltype\((?:detail::)?(\w+)\).*>", type_name)
        return self.results.get(match[1], type_name) if match else type_name

    def value_of(self, type_name: str, scope: str = "") -> str | None:
        """The type of an operation's value; None if the type is none of an operation's."""
        found = self.find(type_name, scope)
        if found is None:
            return None
        cls, arguments = found
        if cls.name == "detail::operation":
            return self.called(arguments[1]) if len(arguments) == 2 else None
        if cls.name == "task":
            return arguments[0] if arguments else "void"
        value = cls.value_type if "operation_tag" in cls.bases else None
        for base in cls.bases:
            value = value or self.value_of(base, cls.name)
        if value is None:
            return None
        for parameter, argument in zip(cls.parameter_names, arguments):
            value = re.sub(rf"\b{re.escape(parameter)}\b", argument, value)
        return re.sub(r"(?:\btypename )?\b\w+(?:<\w+>)?::value_type\b", "T", self.called(value))


# ---- text -----------------------------------------------------------------------------------------


def slug(title: str) -> str:
    """The anchor of a title, which GitHub and python-markdown make alike."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def anchor(name: str) -> str:
    return slug(title_of(name))


def title_of(name: str) -> str:
    return name.replace("<", " of ").rstrip(">")


class Page:
    def __init__(self, library: Library) -> None:
        self.library = library
        self.anchors: dict[str, str] = {}  # of Doxygen's identifiers
        self.lines: list[str] = []

    # -- doc comments

    def inline(self, element: ElementTree.Element, code: bool = False) -> str:
        """Markdown of what an element holds."""
        text = element.text or ""
        pieces = [text if code else escape(text)]
        for child in element:
            tag = child.tag
            if tag == "computeroutput":
                inside = child.find("ref")
                target = self.anchors.get(inside.get("refid", "")) if inside is not None else None
                words = f"`{plain(child)}`"
                pieces.append(f"[{words}](#{target})" if target else words)
            elif tag == "ref":
                target = self.anchors.get(child.get("refid", ""))
                words = plain(child)
                pieces.append(words if code else f"[`{words}`](#{target})" if target else escape(words))
            elif tag in ("emphasis", "bold"):
                mark = "*" if tag == "emphasis" else "**"
                pieces.append(mark + self.inline(child) + mark)
            elif tag == "ulink":
                pieces.append(f"[{self.inline(child)}]({child.get('url')})")
            elif tag in CHARACTERS:
                pieces.append(CHARACTERS[tag])
            elif tag in BLOCKS:
                pieces.append("")  # see `blocks`
            else:
                raise Problem(f"a doc comment has <{tag}>, which is not known here: {plain(element)[:80]}")
            tail = child.tail or ""
            pieces.append(tail if code else escape(tail))
        return re.sub(r"\s+", " ", "".join(pieces))

    def blocks(self, description: ElementTree.Element | None) -> list[str]:
        """The paragraphs and lists of a description."""
        found: list[str] = []
        for para in description if description is not None else []:
            if para.tag != "para":
                raise Problem(f"a doc comment has <{para.tag}>: {plain(para)[:80]}")
            text = self.inline(para).strip()
            if text:
                found.append(text)
            for block in para:
                if block.tag in ("itemizedlist", "orderedlist"):
                    items = [" ".join(self.blocks(item)) for item in block.findall("listitem")]
                    found.append("\n".join(f"- {item}" for item in items))
                elif block.tag == "verbatim":
                    found.append(f"```text\n{(block.text or '').strip()}\n```")
                elif block.tag == "simplesect":
                    found += self.blocks(block)
                elif block.tag in ("programlisting", "table", "parameterlist"):
                    raise Problem(f"a doc comment has <{block.tag}>, which is not known here: {plain(para)[:80]}")
        return found

    def contract(self, element: ElementTree.Element) -> list[str]:
        brief = self.blocks(element.find("briefdescription"))
        detailed = self.blocks(element.find("detaileddescription"))
        joined = [*brief, *detailed]
        # Doxygen cuts the first paragraph behind its first sentence.
        if brief and detailed and same_paragraph(element) and not detailed[0].startswith(("- ", "```")):
            joined = [*brief[:-1], f"{brief[-1]} {detailed[0]}", *detailed[1:]]
        if joined:
            joined[0] = joined[0][0].upper() + joined[0][1:]
            if re.search(r"[\w)]$|[\w>)]`$", joined[-1]):
                joined[-1] += "."
        return joined

    # -- declarations

    def signature(
        self, member: ElementTree.Element, scope: str = "", names: dict[str, str] | None = None, prefix: str = ""
    ) -> str:
        """A member or a function as a reader writes it."""
        kind, name = member.get("kind"), prefix + member.findtext("name", "")
        type_text = tidy(plain(member.find("type")))
        type_text = re.sub(r"\b(result|task)$|\b(result|task)(?=[ &*])", r"\1\2<>", type_text)
        rest = plain(member.find("argsstring"))
        initializer = plain(member.find("initializer"))
        for parameter, argument in (names or {}).items():
            type_text, rest = (re.sub(rf"\b{parameter}\b", argument, t) for t in (type_text, rest))
        static = "static " if member.get("static") == "yes" else ""
        if kind == "variable":
            if static and type_text.startswith("constexpr"):
                shown = f" {initializer}" if re.fullmatch(r"= [\w.'()-]+", initializer) else ""
                return f"static {type_text} {name}{shown}"
            if type_text.endswith("(*"):
                return f"{tidy(type_text[:-2])} (*{name}{tidy(rest)} {initializer}".rstrip()
            shown = "" if initializer in ("", "= {}", "{}") else f" {initializer}"
            return f"{static}{type_text} {name}{shown}"
        rest = re.sub(r"=0$", "= 0", re.sub(r" ?override$| ?final$", "", rest))
        rest = re.sub(r"=default$", "", rest).strip()
        pure = "virtual " if member.get("virt") in ("pure-virtual", "virtual") and kind == "function" else ""
        rest = re.sub(r" ?= 0$", " = 0", tidy(rest))
        type_text = re.sub(r"^(?:(?:virtual|static|inline|explicit) )+", "", type_text)
        # A `constexpr` says how it is made, and `noexcept` what the contract says better.
        type_text = re.sub(r"^constexpr ?", "", type_text)
        parameters = [p for p in template_parameters(member) if p.split()[-1] not in ("class", "void") or "=" in p]
        parameters = [p for p in parameters if not re.match(r"(class|typename)( = void| void)?$", p)]
        template = f"template <{', '.join(parameters)}> " if parameters else ""
        explicit = "explicit " if member.get("explicit") == "yes" else ""
        value = self.library.value_of(type_text, scope) if type_text else None
        value = next((v for pattern, v in VALUES.items() if re.fullmatch(pattern, f"{name}{rest}")), value)
        if value is not None and not re.search(r"\b(detail|value_type|not_void|maybe)\b", value):
            head = rest.removesuffix(" noexcept")
            return f"{template}{static}{name}{head} -> {value}"
        if "detail::" in type_text:
            type_text = "auto"
        if name.startswith("operator ") and not type_text:
            return f"{template}{explicit}{name}{rest}"
        return f"{template}{static}{pure}{explicit}{type_text + ' ' if type_text else ''}{name}{rest}"

    # -- entries

    def kind_of_operation(self, value: str, template: str = "") -> str:
        if value == "T" and template == "Op":
            return "An [operation](#operation_tag) whose value is that of `Op`."
        if value == "void":
            return "An [operation](#operation_tag) without a value."
        return f"An [operation](#operation_tag) whose value is `{value}`."

    def add(self, *lines: str) -> None:
        self.lines += lines

    def bullet(self, signature: str, contract: list[str]) -> None:
        self.add(f"- `{signature}`", "")
        for block in contract:
            self.add(*("    " + line for line in block.split("\n")), "")

    def named_operation(self, member: ElementTree.Element, scope: str = "") -> list[str]:
        """A link to the public type of the operation that a function returns."""
        found = self.library.find(re.sub(r"\b(virtual|static) ", "", tidy(plain(member.find("type")))), scope)
        name = found[0].name if found else "task"
        if name == "task" or name.startswith("detail::") or not self.library.value_of(name):
            return []
        return [f"Returns {'an' if name[0] in 'aeio' else 'a'} [`{name}`](#{anchor(name)})."]

    def members(self, cls: Class, names: dict[str, str] | None = None) -> None:
        operation = self.library.value_of(cls.name) is not None and cls.name != "task"
        shown = sorted((m for m in cls.members if public(m)), key=line_of)
        for member in shown:
            name, kind = member.findtext("name", ""), member.get("kind")
            contract = self.contract(member)
            if name.startswith("~") and not contract:
                continue
            if member.find("reimplements") is not None or (contract and contract[0].startswith("Only for its message")):
                continue
            own = name == cls.name.rpartition("::")[2].split("<")[0]
            if own and (operation or (plain(member.find("argsstring")).startswith("()") and not contract)):
                continue
            if own and cls.name.startswith("detail::"):
                continue
            if kind in ("typedef", "enum") or (operation and kind == "variable"):
                continue
            if re.search(r"\bdetail::", plain(member.find("argsstring"))):
                continue
            signature = self.signature(member, cls.name, names)
            if kind == "friend" and not contract:
                contract = ["Compares them."]
            self.bullet(signature, contract + self.named_operation(member, cls.name))

    def inherited(self, cls: Class) -> None:
        """The members of bases: those of internal ones as its own, those of public ones by a link."""
        for base in cls.bases:
            found = self.library.find(base, cls.name)
            if found is None or self.library.value_of(cls.name):
                continue
            parent, arguments = found
            if parent.name.startswith("detail::"):
                self.members(parent, dict(zip(parent.parameter_names, arguments)))
                self.inherited(parent)
                continue
            functions = [m for m in parent.members if public(m) and m.get("kind") == "function"]
            names = sorted({m.findtext("name", "") for m in functions})
            own = {m.findtext("name", "") for m in cls.members if public(m)}
            names = [n for n in names if not n.startswith(("~", "operator")) and n != parent.name and n not in own]
            words = f": {', '.join(f'`{n}`' for n in names)}" if names else ""
            self.add(f"As [`{parent.name}`](#{anchor(parent.name)}){words}.", "")
            self.inherited(parent)

    def type(self, cls: Class) -> None:
        self.add(f"### {title_of(cls.name)}", "")
        template = f"template <{', '.join(cls.parameters)}> " if cls.parameters else ""
        value = self.library.value_of(cls.name)
        is_operation = value is not None and cls.name != "task"
        bases = [base for base in cls.bases if not base.startswith("detail::")]
        derived = f" : public {', '.join(bases)}" if bases else ""
        if not is_operation:
            self.add(f"`{template}{cls.kind} {cls.name}{derived}`", "")
        elif template:
            self.add(f"`{template}class {cls.name}`", "")
        for block in self.contract(cls.element):
            self.add(block, "")
        if is_operation:
            self.add(self.kind_of_operation(str(value), " ".join(cls.parameter_names)), "")
        elif cls.name == "task":
            self.add("A task is an [operation](#operation_tag) too.", "")
        if cls.name in OPAQUE:
            self.add("Its members belong to the library.", "")
            return
        self.members(cls)
        self.inherited(cls)

    def enumeration(self, scope: str, member: ElementTree.Element) -> None:
        name = scope + member.findtext("name", "")
        self.add(f"### {name}", "", f"`enum class {name}`", "")
        for block in self.contract(member):
            self.add(block, "")
        for value in member.findall("enumvalue"):
            brief, detailed = (self.blocks(value.find(f"{part}description")) for part in ("brief", "detailed"))
            text = " ".join(brief + detailed)
            self.add(f"- `{value.findtext('name')}`" + (f": {text}" if text else ""))
        self.add("")


CHARACTERS = {"ndash": "–", "mdash": "—", "hellip": "…", "lsquo": "‘", "rsquo": "’"} | dict.fromkeys(
    ("nonbreakablespace", "linebreak"), " "
)
BLOCKS = {"itemizedlist", "orderedlist", "simplesect", "programlisting", "verbatim", "table", "parameterlist"}


def escape(text: str) -> str:
    return re.sub(r"([<*\[\]\\])", r"\\\1", text)


def public(member: ElementTree.Element) -> bool:
    if member.findtext("name", "").endswith("_"):
        return False
    if member.get("kind") == "friend":
        return plain(member.find("name")).startswith("operator")
    return member.get("prot") == "public"


def line_of(member: ElementTree.Element) -> tuple[str, int]:
    location = member.find("location")
    return (location.get("file", ""), int(location.get("line", 0))) if location is not None else ("", 0)


def same_paragraph(element: ElementTree.Element) -> bool:
    """Whether the source has no blank comment line behind the first sentence."""
    brief = plain(element.find("briefdescription"))
    location = element.find("location")
    if location is None:
        return False
    lines = (ROOT / location.get("file", "")).read_text().splitlines()
    number = int(location.get("line", 1)) - 2
    comment: list[str] = []
    while number >= 0 and not re.match(r"\s*///", lines[number]) and number > int(location.get("line", 1)) - 8:
        number -= 1  # template heads and attributes stand between
    while number >= 0 and re.match(r"\s*///", lines[number]):
        comment.insert(0, lines[number].strip().removeprefix("///").strip())
        number -= 1
    first = " ".join(comment[: comment.index("")] if "" in comment else comment)
    return len(re.sub(r"\W", "", first)) > len(re.sub(r"\W", "", brief))


def macros() -> Iterator[tuple[str, str]]:
    """The macros that the comment at the top of the configuration lists, and those with a doc comment."""
    text = CONFIG.read_text(encoding="utf-8")
    top = text[: text.index("#pragma once")]
    for match in re.finditer(r"^//   (ANYIO_NET_\w+(?:\(\w+\))?) +(.*(?:\n//     +\S.*)*)", top, re.MULTILINE):
        yield match[1], " ".join(re.sub(r"\n//", " ", match[2]).split())
    for match in re.finditer(r"((?:^/// .*\n)+)#define (ANYIO_NET_VERSION)\b", text, re.MULTILINE):
        yield match[2], " ".join(match[1].replace("///", "").split())


def section_of(name: str, part: str) -> str:
    for pattern, section in APART.items():
        if re.fullmatch(pattern, name):
            return section
    for section, parts in SECTIONS.items():
        if part in parts.split():
            return section
    raise Problem(f"{name}: part {part} of src/ belongs to no section: add it to SECTIONS in tools/make/reference.py")


def order(section: str, part: str) -> int:
    listed = SECTIONS[section].split()
    return listed.index(part) if part in listed else len(listed)


def write(library: Library) -> str:
    page = Page(library)
    entries: dict[str, list[tuple[tuple[bool, int, int], str, object]]] = {section: [] for section in SECTIONS}
    exceptions = []

    def place(name: str, element: ElementTree.Element, what: object, late: bool = False) -> None:
        file, line = line_of(element)
        part = file.removeprefix("src/").rpartition(".")[0]
        section = section_of(name, part)
        entries[section].append(((late, order(section, part), line), name, what))

    operation = library.classes["operation_tag"]
    operation.members = [m for m in library.classes["detail::operation"].members if m.findtext("name") == "start"]
    for cls in library.classes.values():
        if not cls.public or re.search(r"\bdetail\b", cls.name) or cls.kind not in ("class", "struct"):
            continue
        if cls.bases == ["exception"] and not plain(cls.element.find("briefdescription")):
            exceptions.append(cls)
            continue
        outer = cls.name.rpartition("::")[0]
        if outer in library.classes and not library.classes[outer].public:
            continue
        late = library.value_of(cls.name) is not None and cls.name != "task"
        place(cls.name, cls.element, cls, late)
        page.anchors[cls.element.get("id", "")] = anchor(cls.name)
        for member in cls.members:
            page.anchors[member.get("id", "")] = anchor(cls.name)
    for cls in exceptions:
        page.anchors[cls.element.get("id", "")] = "exception"
    groups: dict[str, list[tuple[str, ElementTree.Element]]] = {}
    for scope, member in library.free:
        name = scope + member.findtext("name", "")
        kind = member.get("kind")
        page.anchors[member.get("id", "")] = anchor(name)
        if kind == "enum":
            for value in member.findall("enumvalue"):
                page.anchors[value.get("id", "")] = anchor(name)
            place(name, member, (scope, member))
        elif kind == "typedef":
            place(name, member, library.classes[name], library.value_of(name) is not None)
        elif kind in ("function", "variable") and plain(member.find("briefdescription")):
            if name not in groups:
                groups[name] = []
                place(name, member, groups[name])
            groups[name].append((scope, member))

    page.add(*INTRODUCTION.format(version=library.version).splitlines(), "")
    contents = [f"[{section}](#{slug(section)})" for section in [*SECTIONS, "Macros"]]
    page.add("Sections: " + ", ".join(contents) + ".", "")
    for section, found in entries.items():
        found.sort(key=lambda entry: entry[0])
        page.add(f"## {section}", "")
        links = [f"[`{name}`](#{anchor(name)})" for _, name, _ in found]
        page.add(" · ".join(links), "")
        for _, name, what in found:
            if isinstance(what, Class) and what.kind == "alias":
                page.add(f"### {name}", "")
                value = library.value_of(name)
                target = what.bases[0]
                if value is None:
                    page.add(f"`using {name} = {target};`", "")
                for block in page.contract(what.element):
                    page.add(block, "")
                if value is not None:
                    page.add(page.kind_of_operation(value), "")
            elif isinstance(what, Class):
                page.type(what)
                if name == "exception":
                    names = ", ".join(f"`{cls.name}`" for cls in sorted(exceptions, key=lambda c: c.name))
                    page.add(f"The classes derived from it, one for each code: {names}.", "")
            elif isinstance(what, tuple):
                page.enumeration(*what)
            else:
                page.add(f"### {name}", "")
                for scope, member in sorted(what, key=lambda pair: line_of(pair[1])):
                    contract = page.contract(member) + page.named_operation(member)
                    page.bullet(page.signature(member, prefix=scope), contract)
    page.add("## Macros", "", "A program defines them before it includes the header, or on the command line.", "")
    for name, text in macros():
        if name == "ANYIO_NET_VERSION":
            page.add("", "The header defines:", "")
        page.add(f"- `{name}`: {escape(text)}" + ("" if text.endswith(".") else "."))
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(page.lines)).rstrip() + "\n"
    check(text)
    return text


def check(text: str) -> None:
    """No internal name is shown, no two titles have one anchor, no link leads nowhere."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = [slug(title) for title in titles]
    twice = sorted({a for a in anchors if anchors.count(a) > 1})
    problems = [f"two titles have the anchor #{a}" for a in twice]
    problems += [f"there is no title for #{a}" for a in sorted(set(re.findall(r"\]\(#([^)]*)\)", text)) - set(anchors))]
    internal = [line for line in text.splitlines() if re.search(r"\bdetail\b|ANYIO_NET_(FN|LAZY|ABI|COLD)", line)]
    problems += [f"an internal name is shown: {line.strip()}" for line in internal]
    if problems:
        raise Problem("\n".join(problems))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("xml", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    try:
        library = Library(options.xml)
        old = options.page.read_text(encoding="utf-8") if options.page.is_file() else ""
        made_with = re.search(r"with Doxygen ([\d.]+\d)", old)
        if options.check and made_with and made_with[1] != library.version:
            print(f"skipped: {options.page} was made with Doxygen {made_with[1]}, and here is {library.version}")
            return 0
        text = write(library)
    except Problem as problem:
        print(f"reference: {problem}", file=sys.stderr)
        return 1
    if not options.check:
        options.page.write_text(text, encoding="utf-8")
        return 0
    if old == text:
        return 0
    changes = difflib.unified_diff(old.splitlines(), text.splitlines(), str(options.page), "src/", lineterm="", n=0)
    print("\n".join(list(changes)[:40]), f"\n{options.page} is not what src/ gives: run `make reference`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
