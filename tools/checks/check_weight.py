#!/usr/bin/env python3
"""Compares what programs pay for the header with bench/weight_record.json, and fails when one pays more.

  check_weight.py [--jobs N]             compare
  check_weight.py --record [--jobs N]    measure anew and write the record

Measured are the compiler's own memory for a unit, in MB, joined and split: it follows the time that compiling takes,
and is the same in every run. And the size of a stripped program for small systems, in KB; and the bytes of objects
that a program has many of, as bench/minimal/anyio_objects.cpp prints them. All depend on the compiler: with another one
than the record's nothing is compared. 1 % more than recorded fails.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "bench" / "weight_record.json"
COMPILER = ["g++", "-std=c++20", "-pthread", f"-I{ROOT}"]
MORE = 1.01
TOTAL = re.compile(r"^ TOTAL\b.*?([\d.]+)([kMG])\s*$", re.MULTILINE)
UNIT = {"k": 1 / 1024, "M": 1.0, "G": 1024.0}
SPLIT = ["-DANYIO_NET_SPLIT"]
SMALL = ["-Os", "-fno-exceptions", "-fno-rtti"]

Figure = tuple[str, list[str]]  # a program, and options


def program(name: str) -> str:
    return (ROOT / f"{name}.cpp").read_text().replace("../../anyio_net.hpp", "anyio_net.hpp")


NOTHING = '#include "anyio_net.hpp"\n'
MEMORY: dict[str, Figure] = {
    f"{name}{', split' if options else ''}": (text, options)
    for name, text in (
        ("nothing used", NOTHING),
        ("callback echo server", program("bench/minimal/anyio_callback")),
        ("coroutine echo server", program("bench/minimal/anyio_coroutine")),
        ("proxy", program("bench/minimal/anyio_proxy")),
    )
    for options in ([], SPLIT)
}
MEMORY["examples/http_server.cpp, split"] = (program("examples/http_server"), [f"-I{ROOT}/examples", *SPLIT])
SIZE: dict[str, Figure] = {
    "callback echo server, no exceptions": (program("bench/minimal/anyio_callback"), SMALL),
    "coroutine echo server": (program("bench/minimal/anyio_coroutine"), ["-Os"]),
}


class Failure(Exception):
    """The reason why nothing could be measured."""


def compile_(text: str, options: list[str]) -> str:
    """Returns what the compiler printed."""
    done = subprocess.run([*COMPILER, *options, "-x", "c++", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"cannot compile: {done.stderr.splitlines()[0] if done.stderr else done.returncode}")
    return done.stderr


def memory_of(figure: Figure) -> float:
    text, options = figure
    report = compile_(text, ["-O2", "-ftime-report", *options, "-c", "-o", "/dev/null"])
    total = TOTAL.search(report)
    if total is None:
        raise Failure("the compiler's report has no total")
    return round(float(total[1]) * UNIT[total[2]], 1)


def size_of(figure: Figure) -> float:
    text, options = figure
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "program"
        compile_(text, [*options, "-s", "-o", str(made)])
        return round(made.stat().st_size / 1000, 1)


def objects() -> dict[str, float]:
    """The bytes of objects, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "program"
        compile_(program("bench/minimal/anyio_objects"), ["-O2", "-o", str(made)])
        printed = subprocess.run([made], capture_output=True, text=True, check=True).stdout
    return {name: float(size) for name, _, size in (line.partition(": ") for line in printed.splitlines())}


def measure(jobs: int) -> dict[str, dict[str, float]]:
    with ThreadPoolExecutor(jobs) as pool:
        memory = pool.map(memory_of, MEMORY.values())
        size = pool.map(size_of, SIZE.values())
        bytes_of = pool.submit(objects)
        return {
            "compiler memory, MB": dict(zip(MEMORY, memory)),
            "size, KB": dict(zip(SIZE, size)),
            "objects, bytes": bytes_of.result(),
        }


def compare(old: dict[str, dict[str, float]], new: dict[str, dict[str, float]]) -> list[str]:
    """Prints a table, and returns what is too heavy."""
    heavy = []
    for kind, figures in new.items():
        for name, now in figures.items():
            before = old.get(kind, {}).get(name)
            if before is None:
                heavy.append(f"{name}: not in the record")
                continue
            more = now > before * MORE
            print(f"{kind:20} {name:36} {before:7.1f} {now:7.1f}  {now / before:.3f}{'  MORE' if more else ''}")
            if more:
                heavy.append(f"{name}, {kind}: {now} in place of {before}")
    return heavy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if not options.record and record.get("compiler") != compiler:
        print(f"skipped: the record is for {record.get('compiler')}, here is {compiler}")
        return 0
    try:
        now = measure(options.jobs)
    except Failure as failure:
        print(f"check_weight: {failure}", file=sys.stderr)
        return 1
    if options.record:
        RECORD.write_text(json.dumps({"compiler": compiler, **now}, indent=2) + "\n")
        return 0
    heavy = compare(record, now)
    for what in heavy:
        print(f"check_weight: {what}", file=sys.stderr)
    if heavy:
        print("check_weight: make it lighter, or accept it with `make record-weight`", file=sys.stderr)
    return 1 if heavy else 0


if __name__ == "__main__":
    sys.exit(main())
