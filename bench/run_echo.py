#!/usr/bin/env python3
"""Measures the echo servers here beside a hand-written epoll loop, and prints tables.

Server and load have a core each (taskset), and the servers take turns, round by round, so that what else
the machine does falls on all of them alike. The figure to compare is the processor time of the server per
message, and of that the smallest round. System calls are counted by strace, instructions in user space by
callgrind, and allocations by a preloaded counter, each in a run of its own; what is not installed is left
out.

  run_echo.py [--rounds N] [--messages N] [--connections N] [--quick]
"""

from __future__ import annotations

import argparse
import mmap
import os
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "bench"
CXX = os.environ.get("CXX", "g++")
CC = os.environ.get("CC", "cc")
FLAGS = ["-std=c++20", "-pthread", "-I", str(ROOT)]
NO_EXCEPTIONS = ["-fno-exceptions", "-fno-rtti"]
BASE = "epoll_echo"
SERVERS = [BASE, "anyio_echo_callback", "anyio_echo_coroutine"]


def run(*command: str | Path, **options) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"run_echo: {' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def seconds_to(*command: str | Path) -> float:
    """The shortest of three times, of the processor rather than the clock."""
    shortest = float("inf")
    for _ in range(3):
        before = os.times()
        run(*command)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        shortest = min(shortest, used)
    return shortest


def on_core(core: int) -> list[str]:
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 and shutil.which("taskset") else []


@contextmanager
def server(name: str, wrapper: list[str] | None = None, env: dict[str, str] | None = None):
    """A running server: its port and its process."""
    command = [*on_core(0), *(wrapper or []), str(BUILD / name)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    )
    try:
        port = process.stdout.readline().decode().strip()
        if not port:
            sys.exit(f"run_echo: {name} does not start")
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        process.stdout.close()


def load(port: str, connections: int, messages: int, pid: int | None = None) -> tuple[float, float]:
    """Messages a second, and nanoseconds of the server's processor per message."""
    command = [*on_core(1), str(BUILD / "echo_load"), port, str(connections), str(messages)]
    rate, cost = run(*command, *([str(pid)] if pid else [])).split()
    return float(rate), float(cost)


def system_calls(name: str, connections: int) -> str:
    """Calls per message while the load runs; strace slows the server, so that more is ready at a time."""
    if not shutil.which("strace"):
        return "-"
    messages = 4000
    with server(name) as (port, process), tempfile.NamedTemporaryFile("r", suffix=".strace") as counts:
        command = ["strace", "-f", "-c", "-U", "calls,name", "-o", counts.name, "-p", str(process.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(1)
        load(port, connections, messages)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        found = re.findall(r"^\s*(\d+)\s+(\w+)\s*$", counts.read(), re.MULTILINE)
    total = messages + messages // 10
    per_message = {call: int(n) / total for n, call in found if call != "total"}
    parts = ", ".join(f"{call} {n:.2f}" for call, n in sorted(per_message.items(), key=lambda i: -i[1]) if n >= 0.02)
    return f"{sum(per_message.values()):.2f} ({parts})"


def allocations(name: str, connections: int) -> str:
    """Allocations per message in steady state: the difference between a shorter and a longer load."""
    counter = BUILD / "malloc_count.so"
    messages = 20000
    with tempfile.NamedTemporaryFile() as counts:
        counts.write(bytes(8))
        counts.flush()
        totals = []
        for factor in (1, 3):
            with mmap.mmap(counts.fileno(), 8) as place:
                place[:8] = bytes(8)
                with server(name, env={"LD_PRELOAD": str(counter), "MALLOC_COUNT_FILE": counts.name}) as (port, _):
                    load(port, connections, factor * messages)
                    totals.append(struct.unpack("Q", place[:8])[0])
    return f"{(totals[1] - totals[0]) / (2 * messages * 1.1):.3f} ({totals[0]} in all)"


def instructions(name: str, connections: int) -> str:
    """Instructions in user space per message, likewise."""
    if not shutil.which("valgrind"):
        return "-"
    messages = 10000
    totals = []
    for factor in (1, 3):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "callgrind"
            wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
            with server(name, wrapper) as (port, _):
                load(port, connections, factor * messages)
            totals.append(int(re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)[1]))
    return f"{(totals[1] - totals[0]) / (2 * messages * 1.1):.0f}"


def table(head: list[str], rows: list[list[str]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for number, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print()


def build() -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in [*SERVERS, "echo_load"]:
        run(CXX, *FLAGS, "-O2", HERE / f"{name}.cpp", "-o", BUILD / name)
    run(CC, "-O2", "-shared", "-fPIC", HERE / "malloc_count.c", "-o", BUILD / "malloc_count.so")


def measure_rounds(rounds: int, connections: int, messages: int) -> None:
    figures = {name: [] for name in SERVERS}
    for number in range(rounds):
        for name in SERVERS if number % 2 == 0 else SERVERS[::-1]:
            with server(name) as (port, process):
                figures[name].append(load(port, connections, messages, process.pid))
    rows = []

    def ratio(values: dict[str, float], name: str) -> str:
        return f"{values[name]:.0f} ({values[name] / values[BASE]:.2f})"

    rate = {name: statistics.median(f[0] for f in figures[name]) for name in SERVERS}
    least = {name: min(f[1] for f in figures[name]) for name in SERVERS}
    middle = {name: statistics.median(f[1] for f in figures[name]) for name in SERVERS}
    for name in SERVERS:
        rows.append([name, ratio(least, name), ratio(middle, name), ratio(rate, name)])
    print(f"TCP, {connections} connections, 64 bytes a message, {rounds} rounds of {messages} messages;")
    print(f"in brackets the ratio to {BASE}:\n")
    table(["server", "processor ns/message, least", "median", "messages/s, median"], rows)


def measure_counts(connections: int) -> None:
    rows = [
        [
            name,
            system_calls(name, 1),
            system_calls(name, connections),
            instructions(name, connections),
            allocations(name, connections),
        ]
        for name in SERVERS
    ]
    many = f"{connections} connections"
    head = ["server", "system calls/message, 1 connection", many, "instructions/message", "allocations/message"]
    table(head, rows)


def measure_cost() -> None:
    """What a program pays for the header: time to compile, and size."""
    includes = sorted(set(re.findall(r"^#include <[^>]+>", (ROOT / "anyio_net.hpp").read_text(), re.MULTILINE)))
    absent = {"#include <sys/event.h>"}
    headers = BUILD / "headers_alone.cpp"
    headers.write_text("\n".join(i for i in includes if i not in absent) + "\nint main() {}\n")
    print(f"compiling, -O2 -c, processor seconds (least of 3); the same {len(includes)} headers of the standard")
    print("library and the system alone come first:\n")
    base = seconds_to(CXX, *FLAGS, "-O2", "-c", headers, "-o", BUILD / "cost.o")
    rows = [["headers alone", f"{base:.2f}", "1.00"]]
    for name in SERVERS:
        used = seconds_to(CXX, *FLAGS, "-O2", "-c", HERE / f"{name}.cpp", "-o", BUILD / "cost.o")
        rows.append([name, f"{used:.2f}", f"{used / base:.2f}"])
    table(["unit", "seconds", "ratio"], rows)

    print("size in KB, -Os, stripped, libstdc++ shared:\n")
    rows = []
    for name in SERVERS:
        sizes = []
        for flags in (NO_EXCEPTIONS, []):
            program = BUILD / f"{name}.small"
            small = ["-Os", "-s", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
            run(CXX, *FLAGS, *small, *flags, HERE / f"{name}.cpp", "-o", program)
            sizes.append(f"{program.stat().st_size / 1024:.1f}")
        rows.append([name, *sizes])
    table(["server", "no exceptions, no RTTI", "with both"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--messages", type=int, default=100000, help="a round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="the rounds alone")
    options = parser.parse_args()
    build()
    measure_rounds(options.rounds, options.connections, options.messages)
    if not options.quick:
        measure_counts(options.connections)
        measure_cost()
    return 0


if __name__ == "__main__":
    sys.exit(main())
