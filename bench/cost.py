"""What a program pays for a library: time to compile, and size; of the echo servers in minimal/."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from process import BUILD, ROOT, Failed

HERE = Path(__file__).resolve().parent
CXX = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++20", "-pthread", "-I", str(ROOT)]
SMALL = ["-Os", "-s", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
NO_EXCEPTIONS = ["-fno-exceptions", "-fno-rtti"]
# What who counts bytes would set for any library: no assertions, no tables for unwinding, which nothing uses without
# exceptions, and code and constants in one segment, which saves the padding between them.
SMALLEST = [*NO_EXCEPTIONS, "-DNDEBUG", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables",
            "-Wl,-z,noseparate-code"]
SPLIT = ["-DANYIO_NET_SPLIT"]
UNITS = [
    ("epoll", "epoll", [], []),
    ("anyio callback", "anyio_callback", [], []),
    ("anyio coroutine", "anyio_coroutine", [], []),
    ("anyio callback, split", "anyio_callback", SPLIT, []),
    ("anyio coroutine, split", "anyio_coroutine", SPLIT, []),
    ("Asio callback", "asio_callback", [], []),
    ("Asio coroutine", "asio_coroutine", [], []),
    ("Asio callback, all of asio.hpp", "asio_callback", ["-include", "asio.hpp"], []),
    ("Asio coroutine, all of asio.hpp", "asio_coroutine", ["-include", "asio.hpp"], []),
    ("libuv", "libuv", [], ["-luv"]),
    ("libevent", "libevent", [], ["-levent"]),
]
WITHOUT_EXCEPTIONS = {"asio_callback": ["-DASIO_NO_EXCEPTIONS", "-DASIO_NO_TYPEID"]}
ONLY_WITH_EXCEPTIONS = {"asio_coroutine"}


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def seconds_to(command: list[str], times: int) -> float:
    """The shortest of some times, of the processor rather than the clock."""
    shortest = float("inf")
    for _ in range(times):
        before = os.times()
        run(command)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        shortest = min(shortest, used)
    return round(shortest, 2)


def headers_alone() -> Path:
    """A unit of nothing but the headers of the standard library and the system that anyio_net.hpp takes."""
    text = (ROOT / "anyio_net.hpp").read_text()
    taken = sorted(set(re.findall(r"^# *include <([^>]+)>", text, re.MULTILINE)))
    taken = [h for h in taken if not h.startswith(("mbedtls/", "openssl/"))]
    unit = BUILD / "headers_alone.cpp"
    # Some are of other systems.
    lines = [f"#if __has_include(<{h}>)\n#include <{h}>\n#endif\n" for h in taken]
    unit.write_text("".join(lines) + "int main() {}\n")
    return unit


def compile_seconds(source: Path, flags: list[str], times: int) -> float:
    return seconds_to([CXX, *FLAGS, "-O2", *flags, "-c", str(source), "-o", str(BUILD / "cost.o")], times)


def size_of(program: str, libraries: list[str], flags: list[str]) -> int | None:
    if "-fno-exceptions" in flags:
        if program in ONLY_WITH_EXCEPTIONS:
            return None
        flags = [*flags, *WITHOUT_EXCEPTIONS.get(program, [])]
    out = BUILD / f"{program}.small"
    run([CXX, *FLAGS, *SMALL, *flags, str(HERE / "minimal" / f"{program}.cpp"), "-o", str(out), *libraries])
    return out.stat().st_size


def measure(times: int = 3) -> list[dict]:
    base = compile_seconds(headers_alone(), [], times)
    rows = [{"label": "headers alone", "compile": base, "ratio": 1.0}]
    for label, program, flags, libraries in UNITS:
        seconds = compile_seconds(HERE / "minimal" / f"{program}.cpp", flags, times)
        row = {"label": label, "compile": seconds, "ratio": round(seconds / base, 2)}
        if not flags:
            row["size"] = size_of(program, libraries, [])
            row["size_no_exceptions"] = size_of(program, libraries, NO_EXCEPTIONS)
            row["size_smallest"] = size_of(program, libraries, SMALLEST)
        rows.append(row)
    definitions = BUILD / "definitions.cpp"
    definitions.write_text('#define ANYIO_NET_IMPLEMENTATION\n#include "anyio_net.hpp"\n')
    seconds = compile_seconds(definitions, SPLIT, times)
    rows.append({"label": "anyio definitions of split, once", "compile": seconds, "ratio": round(seconds / base, 2)})
    return rows
