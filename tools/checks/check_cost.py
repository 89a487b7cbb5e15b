#!/usr/bin/env python3
"""Compares the current cost of operations with bench/cost_record.json, and fails when one costs more.

  check_cost.py PROGRAM [--jobs N] [SCENARIO...]        compare
  check_cost.py PROGRAM --record [--jobs N]             measure anew and write the record

PROGRAM is bench/cost.cpp. It runs with COUNT operations and with twice as many, and the difference divided
by COUNT is one operation's: instructions in user space by callgrind, system calls by strace, allocations as
it counts them itself, only of the library's side. Time is not measured.

5 % more instructions than recorded fail, and so do more system calls or allocations at all. Instructions
depend on the compiler: with another one than the record's they are left out. A figure that is too high is
measured again, and the lowest is used: if the kernel delivers an event late, the loop needs two turns instead
of one.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

RECORD = Path(__file__).resolve().parents[2] / "bench" / "cost_record.json"
INSTRUCTIONS, CALLS, ALLOCATIONS = FIGURES = ("instructions", "system calls", "allocations")
DIGITS = {INSTRUCTIONS: 1, CALLS: 3, ALLOCATIONS: 3}
MORE = 1.05  # of instructions, is too many
ROUNDING = 0.002  # of the other figures
TRIES = 3
TIMEOUT = 300

MARK = "getppid"  # around the library's side
# Needs no system call where the machine's clock allows that.
CLOCK = {"clock_gettime", "gettimeofday", "time"}
STRACE_LINE = re.compile(r"(?:\d+ +)?(\w+)\(")

# Nothing else of the caller's environment: its size would move the stack.
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", ""),
    "LC_ALL": "C",
    "LD_BIND_NOW": "1",
    # Every processor must run the same memcpy and memchr, those of baseline x86-64.
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-AVX2,-BMI2,-ERMS,-FSRM,-SSSE3,"
    "-Fast_Unaligned_Copy",
}

Figures = dict[str, float]


class Failure(Exception):
    """The reason why nothing could be measured."""


@dataclass
class Scenario:
    name: str
    count: int
    what: str


@dataclass
class Verdict:
    """The result of a comparison."""

    rows: list[tuple[str, ...]] = field(default_factory=list)
    too_high: dict[str, str] = field(default_factory=dict)  # by scenario
    lower: list[str] = field(default_factory=list)


# ---- measuring ------------------------------------------------------------------------------------


def run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=TIMEOUT, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def collected(profile: str) -> int:
    """The instructions in the output of callgrind."""
    found = re.search(r"^(?:summary|totals): (\d+)", profile, re.MULTILINE)
    if not found or int(found[1]) == 0:
        raise Failure("callgrind collected nothing: is there a function library_side?")
    return int(found[1])


def marked_calls(trace: str) -> dict[str, int]:
    """The number of system calls of each kind between the marks in the output of strace."""
    calls: dict[str, int] = {}
    inside, marks = False, 0
    for line in trace.splitlines():
        found = STRACE_LINE.match(line)
        if not found:
            continue  # a signal, an exit, or the end of a call that was begun above
        if found[1] == MARK:
            inside, marks = not inside, marks + 1
        elif inside and found[1] not in CLOCK:
            calls[found[1]] = calls.get(found[1], 0) + 1
    if marks == 0:
        raise Failure("strace recorded nothing: is tracing allowed here?")
    return calls


def instructions(program: str, scenario: str, count: int, folder: str) -> int:
    profile = Path(folder) / f"{scenario}.{count}.callgrind"
    tool = ["valgrind", "--tool=callgrind", "--toggle-collect=library_side", f"--callgrind-out-file={profile}"]
    run(*tool, program, scenario, str(count))
    return collected(profile.read_text(errors="replace"))


@functools.cache
def may_trace() -> bool:
    """Whether this user may trace their own processes; a container can forbid it."""
    return subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


def calls_and_allocations(program: str, scenario: str, count: int, folder: str) -> tuple[dict[str, int] | None, int]:
    if not may_trace():
        return None, int(run(program, scenario, str(count)).split()[-1])
    trace = Path(folder) / f"{scenario}.{count}.strace"
    tool = ["strace", "-f", "-qq", "-s", "0", "-e", "signal=none", "-o", str(trace)]
    said = run(*tool, program, scenario, str(count))
    return marked_calls(trace.read_text(errors="replace")), int(said.split()[-1])


def measure(program: str, scenario: Scenario, by_callgrind: bool) -> tuple[Figures, str]:
    """One operation's figures, and its system calls as text."""
    counts = (scenario.count, 2 * scenario.count)
    with tempfile.TemporaryDirectory() as folder:
        figures: Figures = {}
        if by_callgrind:
            once, twice = (instructions(program, scenario.name, n, folder) for n in counts)
            figures[INSTRUCTIONS] = (twice - once) / scenario.count
        (calls, some), (more_calls, more) = (calls_and_allocations(program, scenario.name, n, folder) for n in counts)
    each: dict[str, float] = {}
    if calls is not None and more_calls is not None:
        each = {name: (n - calls.get(name, 0)) / scenario.count for name, n in more_calls.items()}
        figures[CALLS] = sum(each.values())
    figures[ALLOCATIONS] = (more - some) / scenario.count
    words = ", ".join(f"{name} {n:.3f}" for name, n in sorted(each.items(), key=lambda e: -e[1]) if n)
    return {name: round(value, DIGITS[name]) for name, value in figures.items()}, words


def lowest(one: Figures, other: Figures) -> Figures:
    return {name: min(value, other[name]) for name, value in one.items()}


# ---- comparing ------------------------------------------------------------------------------------


def same_compiler(recorded: str, now: str) -> bool:
    """Name, major version and machine: "g++ 12.2.0, x86_64"."""

    def decisive(words: str) -> tuple[str, ...]:
        return tuple(re.sub(r"(\d+)\.[^,]*", r"\1", words).split())

    return decisive(recorded) == decisive(now)


def too_much(figure: str, old: float, new: float) -> bool:
    return new > old * MORE if figure == INSTRUCTIONS else new > old + ROUNDING


def much_less(figure: str, old: float, new: float) -> bool:
    return new < old / MORE if figure == INSTRUCTIONS else new < old - ROUNDING


def compare(recorded: dict[str, Figures], measured: dict[str, Figures]) -> Verdict:
    """Compares only measured figures."""
    verdict = Verdict()
    for name, figures in measured.items():
        if name not in recorded:
            verdict.too_high[name] = "is not in the record"
            continue
        for figure, new in figures.items():
            old = recorded[name][figure]
            mark = ""
            if too_much(figure, old, new):
                mark = "MORE"
                verdict.too_high[name] = "costs more"
            elif much_less(figure, old, new):
                mark = "less"
                verdict.lower.append(name)
            ratio = f"{new / old:.3f}" if old else "" if not new else "new"
            verdict.rows.append((name, figure, f"{old:.{DIGITS[figure]}f}", f"{new:.{DIGITS[figure]}f}", ratio, mark))
    return verdict


def table(rows: list[tuple[str, ...]]) -> str:
    rows = [("scenario", "an operation's", "record", "now", "ratio", ""), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines, before = [], ""
    for row in rows:
        cells = ["" if row[0] == before else row[0], *row[1:]]
        before = row[0]
        text = [cell.ljust(w) if i in (0, 1, 5) else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths))]
        lines.append("  ".join(text).rstrip())
    return "\n".join(lines)


# ---- the program ----------------------------------------------------------------------------------


def scenarios_of(program: str) -> list[Scenario]:
    lines = [line.split(" ", 2) for line in run(program, "--list").splitlines()]
    return [Scenario(name, int(count), what) for name, count, what in lines]


def measure_all(program: str, wanted: list[Scenario], by_callgrind: bool, jobs: int) -> dict[str, tuple[Figures, str]]:
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        results = pool.map(lambda scenario: measure(program, scenario, by_callgrind), wanted)
        return {scenario.name: result for scenario, result in zip(wanted, results)}


def write_record(options: argparse.Namespace, scenarios: list[Scenario], built_with: str) -> int:
    least: dict[str, Figures] = {}
    for _ in range(TRIES):
        for name, (figures, _) in measure_all(options.program, scenarios, True, options.jobs).items():
            least[name] = lowest(least.get(name, figures), figures)
    lines = [f"    {json.dumps(s.name)}: {json.dumps({**least[s.name], 'of': s.what})}" for s in scenarios]
    text = f'{{\n  "compiler": {json.dumps(built_with)},\n  "scenarios": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
    options.record_file.write_text(text)
    print(f"check_cost: wrote {options.record_file.name}; commit it together with the change that caused it")
    return 0


def check(options: argparse.Namespace, scenarios: list[Scenario], built_with: str) -> int:
    if not options.record_file.exists():
        raise Failure(f"no {options.record_file.name}: `make record-cost` writes it")
    record = json.loads(options.record_file.read_text())
    by_callgrind = same_compiler(record["compiler"], built_with)
    if not by_callgrind:
        print(
            f"check_cost: instructions skipped: recorded with {record['compiler']}, this is {built_with}; "
            "system calls and allocations are checked"
        )
    if not may_trace():
        print("check_cost: system calls skipped: tracing is forbidden here")
    wanted = [s for s in scenarios if not options.scenarios or s.name in options.scenarios]
    figures: dict[str, Figures] = {}
    words: dict[str, str] = {}
    verdict = Verdict()
    again = wanted
    for _ in range(TRIES):
        for name, (measured, calls) in measure_all(options.program, again, by_callgrind, options.jobs).items():
            figures[name] = lowest(figures.get(name, measured), measured)
            words[name] = calls
        verdict = compare(record["scenarios"], figures)
        again = [s for s in wanted if verdict.too_high.get(s.name) == "costs more"]
        if not again:
            break
    print(table(verdict.rows))
    for name, why in verdict.too_high.items():
        print(f"check_cost: {name} {why}; its system calls: {words[name] or 'none'}")
    gone = record["scenarios"].keys() - {s.name for s in scenarios}
    for name in sorted(gone):
        print(f"check_cost: {name} is in the record, but is not a scenario")
    if verdict.too_high or gone:
        print("check_cost: restore the old cost, or accept the new one with `make record-cost`")
        return 1
    if verdict.lower:
        names = ", ".join(dict.fromkeys(verdict.lower))
        print(f"check_cost: cheaper than recorded: {names}; `make record-cost` records it")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--record", action="store_true", help="write the record instead of comparing")
    parser.add_argument("--record-file", type=Path, default=RECORD)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    options.program = os.path.abspath(options.program)
    try:
        for tool in ("valgrind", "strace"):
            if not shutil.which(tool):
                raise Failure(f"{tool} is missing: `tools/make/install_deps.sh check` installs it")
        scenarios = scenarios_of(options.program)
        unknown = set(options.scenarios) - {s.name for s in scenarios}
        if unknown:
            raise Failure(f"no such scenario: {', '.join(sorted(unknown))}")
        built_with = run(options.program, "--built-with").strip()
        return (write_record if options.record else check)(options, scenarios, built_with)
    except Failure as failure:
        print(f"check_cost: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
