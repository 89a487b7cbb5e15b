"""What costs without time: system calls, allocations and instructions for each operation, memory of idle connections.

Each is the difference between a shorter and a longer load, so that starting and connecting do not count.
"""

from __future__ import annotations

import mmap
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from process import BUILD, Unsupported, on_core, run_scenario, running
from scenarios import Scenario, Server

WORDS = 8 + 1024  # of the file that malloc_count.c writes


def difference(operations: int, count: Callable[[list[str]], dict[str, float]]) -> dict[str, float]:
    """Per operation: what a load of three times as many takes more; the load adds a tenth for warming up."""
    short = count(["--operations", str(operations)])
    long = count(["--operations", str(3 * operations)])
    return {key: (long[key] - short.get(key, 0)) / (2.2 * operations) for key in long}


def system_calls(server: Server, scenario: Scenario, certificates: Path) -> dict[str, float] | None:
    if not shutil.which("strace"):
        return None

    def count(amount: list[str]) -> dict[str, float]:
        with tempfile.NamedTemporaryFile("r", suffix=".strace") as out:
            wrapper = ["strace", "-f", "-c", "-U", "calls,name", "-o", out.name]
            run_scenario(server, scenario, amount, certificates, wrapper=wrapper)
            found = re.findall(r"^\s*(\d+)\s+(\w+)\s*$", out.read(), re.MULTILINE)
        return {name: int(n) for n, name in found if name != "total"}

    calls = difference(scenario.counted, count)
    return {name: round(n, 3) for name, n in sorted(calls.items(), key=lambda c: -c[1]) if n >= 0.01}


@contextmanager
def allocation_counts():
    """The environment of a counted server, and how to read the words."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8 * WORDS))
        file.flush()
        with mmap.mmap(file.fileno(), 8 * WORDS) as place:
            env = {"LD_PRELOAD": str(BUILD / "malloc_count.so"), "MALLOC_COUNT_FILE": file.name}
            yield env, lambda: struct.unpack(f"{WORDS}q", place[:])


def allocations(server: Server, scenario: Scenario, certificates: Path) -> float:
    def count(amount: list[str]) -> dict[str, float]:
        with allocation_counts() as (env, words):
            run_scenario(server, scenario, amount, certificates, env=env)
            return {"allocations": words()[0]}

    return round(difference(scenario.counted * 5, count)["allocations"], 3)


def instructions(server: Server, scenario: Scenario, certificates: Path) -> float | None:
    """In user space, by callgrind."""
    if not shutil.which("valgrind"):
        return None

    def count(amount: list[str]) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "callgrind"
            wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
            run_scenario(server, scenario, amount, certificates, wrapper=wrapper)
            return {"all": int(re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)[1])}

    return round(difference(scenario.counted, count)["all"])


# ---- idle connections -------------------------------------------------------------------------------


def resident(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {key: int(re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024 for key in ("Rss", "Pss")}


@contextmanager
def idle_connections(server, connections: int):
    """Holds so many connections, each after one message."""
    command = [*on_core(1), str(BUILD / "load"), "idle", server.kind, server.where, "--connections", str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        try:
            if not load.stdout.readline():
                raise Unsupported("the load could not open so many connections")
            time.sleep(0.1)
            yield
        finally:
            load.stdin.close()
            load.wait()


def idle(server: Server, connections: int) -> dict:
    """Bytes for each idle connection: of the process, and what it allocated, by size of block."""
    with running(server, "tcp") as target:
        before = resident(target.pid)
        with idle_connections(target, connections):
            after = resident(target.pid)
    with allocation_counts() as (env, words), running(server, "tcp", env=env) as target:
        start = words()
        with idle_connections(target, connections):
            end = words()
    blocks = {}
    for i in range(WORDS - 8):
        each = (end[8 + i] - start[8 + i]) / connections
        if each >= 0.005:
            blocks[str(16 * i) if i < 1023 else "more"] = round(each, 2)
    return {
        "rss": round((after["Rss"] - before["Rss"]) / connections),
        "pss": round((after["Pss"] - before["Pss"]) / connections),
        "allocated": round((end[1] - start[1]) / connections),
        "blocks": blocks,
    }
