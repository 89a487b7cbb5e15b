#!/usr/bin/env python3
"""Writes docs/proved.md: what was tested where, from the records that tools/make/run_tests.py --record writes.

  proved.py PAGE RECORD...     a record that does not exist is an error, and so is one of a run that failed

The page has a section for each record. Nothing in it is written by hand: a step that was not run is not there.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Iterable, Sequence

INTRODUCTION = """# What was tested where

<!-- Written by `make proved` from the records of runs. Do not edit. -->

The sections are runs of the tests; each says what it ran, and on what. `.ci/run` writes the record of the first one. The
others are `make check-long`, `make compilers`, `make cross` and `make fuzz`, if they were run before this page was written.
"""

COMMANDS = {
    "ci": ".ci/run", "long": "make check-long", "compilers": "make compilers", "cross": "make cross", "fuzz": "make fuzz",
}  # fmt: skip
SANITIZERS = {"address": "AddressSanitizer", "undefined": "UBSan", "thread": "ThreadSanitizer"}


def number(n: int) -> str:
    return f"{n:,}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [number(cell) if isinstance(cell, int) else str(cell).replace("|", "\\|") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def compiler_of(words: str, flags: str = "") -> str:
    """A compiler by name and version: what `--version` says is different for each."""
    found = re.search(r"(clang version|g\+\+|gcc).*?(\d+\.\d+\.\d+)\s*(?:\(|$)", words)
    name = f"{'clang' if 'clang' in found[1] else 'g++'} {found[2]}" if found else words
    return name + (", libc++" if "libc++" in flags else "")


def standard_of(flags: str) -> str:
    return re.findall(r"-std=(\S+)", flags)[-1].replace("2b", "23")


def sanitizers_of(flags: str) -> str:
    named = {name for value in re.findall(r"-fsanitize=(\S+)", flags) for name in value.split(",")}
    return ", ".join(SANITIZERS.get(name, name) for name in sorted(named)) or "–"


def kind_of(flags: str) -> str:
    kinds = ["no exceptions, no RTTI"] if "-fno-exceptions" in flags else []
    kinds += ["kqueue backend over epoll"] if "-DANYIO_NET_KQUEUE" in flags else []
    kinds += ["split"] if "-DANYIO_NET_SPLIT" in flags else ["header only"]
    return ", ".join(kinds)


def all_facts(record: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [fact for step in record["steps"] for fact in step["facts"] if name in fact]


def suites(record: dict[str, Any]) -> str:
    rows = []
    for step in record["steps"]:
        facts: dict[str, Any] = {}
        for fact in step["facts"]:
            facts.update(fact)
        if "mode" not in facts or not step["passed"]:
            continue
        flags = facts["flags"]
        emulator = re.search(r"(qemu-\w+) version ([\d.]+)", facts.get("emulator", ""))
        place = facts["target"].split("-")[0] + (f" ({emulator[1]} {emulator[2]})" if emulator else "")
        level = (re.findall(r"-O\w", flags) or ["-O0"])[-1]
        rows.append(
            (facts["mode"], compiler_of(facts["compiler"], flags), standard_of(flags), place, level, sanitizers_of(flags),
             kind_of(flags), step["passed"], facts.get("simulated_runs", "–"))
        )  # fmt: skip
    if not rows:
        return ""
    head = ("mode", "compiler", "standard", "processor", "level", "sanitizers", "build", "tests passed", "simulated runs")
    engines = sorted({fact["tls"] for fact in all_facts(record, "tls")})
    words = f"\nTLS by {' and '.join(engines)}.\n" if engines else ""
    return "### Tests\n\n" + table(head, rows) + words


def configurations(record: dict[str, Any]) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for fact in all_facts(record, "compiled"):
        name, standard, *options = fact["compiled"].split("-")
        compiler = compiler_of(fact["compiler"], "libc++" if name == "libcxx" else "")
        if not name.startswith(("gcc", "clang", "libcxx")):
            compiler += f" for {name}"
        groups.setdefault((compiler, standard.replace("2b", "23")), []).append(" ".join(options) or "all features")
    if not groups:
        return ""
    rows = [(*key, "; ".join(sorted(options))) for key, options in sorted(groups.items())]
    words = "The header with all definitions, with a strong list of warnings as errors. `noexc`: no exceptions, no RTTI.\n\n"
    return "### Compiled without a warning\n\n" + words + table(("compiler", "standard", "builds"), rows)


def fuzzing(record: dict[str, Any]) -> str:
    rows = [
        (step["name"], fact["fuzz_targets"], fact["inputs"], fact["random_inputs"])
        for step in record["steps"] for fact in step["facts"] if "fuzz_targets" in fact
    ]  # fmt: skip
    text = table(("step", "targets", "inputs of the corpora", "random inputs"), rows) if rows else ""
    runs = [(fact["fuzz_target"], fact["runs"], fact["seconds"]) for fact in all_facts(record, "fuzz_target")]
    text += table(("target", "inputs tried by libFuzzer", "seconds"), runs) if runs else ""
    return "### Fuzz targets\n\n" + text if text else ""


def others(record: dict[str, Any]) -> str:
    rows = []
    for step in record["steps"]:
        if step["passed"] and any("mode" in fact or "fuzz_target" in fact for fact in step["facts"]):
            continue
        notes = []
        small = [fact["small_build"] for fact in step["facts"] if "small_build" in fact]
        notes += [", ".join(small)] if small else []
        for fact in step["facts"]:
            if "cases" in fact:
                notes.append(f"{fact['cases'] - fact['cases_skipped']} of {fact['cases']} programs")
        notes += [f"left out: {words}" for words in step["skipped"]]
        result = "passed" if step["passed"] else "skipped: " + step["note"].removeprefix("skipped: ")
        rows.append((step["name"], result if step["passed"] <= 1 else f"{step['passed']} passed", "; ".join(notes)))
    return "### All other steps\n\n" + table(("step", "result", "what"), rows) if rows else ""


def section(file: Path, record: dict[str, Any]) -> str:
    if record["failed"] or not record["passed"]:
        raise ValueError(f"{file}: a run with {record['passed']} passed, {record['failed']} failed shows nothing")
    command = COMMANDS.get(file.stem, file.stem)
    changed = ", with changes that are in no commit" if record["changed"] else ""
    words = (
        f"## `{command}`, {record['date']}\n\nCommit {record['commit']}{changed}; {record['system']}, {record['kernel']}, "
        f"{record['processor']}. {number(record['passed'])} passed, none failed.\n"
    )
    parts = [suites(record), configurations(record), fuzzing(record), others(record)]
    return "\n".join([words, *filter(None, parts)])


def page(records: list[tuple[Path, dict[str, Any]]]) -> str:
    return "\n".join([INTRODUCTION, *(section(*entry) for entry in records)])


def main() -> int:
    target, *files = map(Path, sys.argv[1:])
    try:
        text = page([(file, json.loads(file.read_text(encoding="utf-8"))) for file in files])
    except (OSError, ValueError) as error:
        print(f"proved: {error}", file=sys.stderr)
        return 1
    target.write_text(text, encoding="utf-8")
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
