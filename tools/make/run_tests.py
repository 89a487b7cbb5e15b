#!/usr/bin/env python3
"""Runs steps, and ends with one line over all of them: `N passed, N failed`.

  --suite NAME BUILD BINARY  run the command BUILD, then the doctest program BINARY: counts its cases
  --check NAME COMMAND       a command that succeeds or fails: counts one
  --script FILE              the same, for a script
  --nested NAME COMMAND      a command that ends with such a line itself: counts what the line says

Steps run in the order given, with two exceptions: the next suite is built while one runs, since a test program
keeps one processor busy, and scripts that follow each other run side by side, since they mostly wait. What a step
prints is shown when it fails, and of a step that passes the lines that begin with `skipped: `. The most expensive
steps are listed at the end. A build that fails, a crash,
a sanitizer's abort, no test at all and a timeout are failures. The exit status is 1 if any step failed.
A check, a script or a BUILD that ends with 77 cannot run here: that is said, and counts nothing. Of a suite
that passes, the lines are shown that begin with `emulator:`; they say what is left out.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

DOCTEST_LINE = re.compile(r"\[doctest\] test cases:\s*(\d+) \|\s*(\d+) passed \|\s*(\d+) failed")
TALLY_LINE = re.compile(r"(\d+) passed, (\d+) failed\s*")
BUILD_TIMEOUT = 1800.0

# Merged with what the environment says already; doctest would else take SIGSEGV before the sanitizer.
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:handle_segv=2:handle_sigbus=2",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1",
}


@dataclass
class Tally:
    """How much passed and failed."""

    passed: int = 0
    failed: int = 0

    def add(self, other: Tally) -> None:
        self.passed += other.passed
        self.failed += other.failed

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed"


PASSED, FAILED, SKIPPED = Tally(1, 0), Tally(0, 1), Tally()
SKIP_STATUS = 77


@dataclass
class Outcome:
    """How a command ended; `status` is None when time ran out."""

    status: int | None
    output: str

    @property
    def words(self) -> str:
        if self.status is None:
            return "timed out"
        if self.status < 0:
            return f"died of {signal.Signals(-self.status).name}"
        return f"exit status {self.status}"


def environment() -> dict[str, str]:
    """Ours, with the sanitizers' options, and without the job server of a make above us."""
    env = dict(os.environ)
    for name, options in SANITIZER_OPTIONS.items():
        env[name] = ":".join(filter(None, [options, env.get(name, "")]))
    if "MAKEFLAGS" in env:
        env["MAKEFLAGS"] = re.sub(r"(?:^|\s)(?:--jobserver-\S+|-j\d*)(?=\s|$)", "", env["MAKEFLAGS"])
    for name in ("MAKELEVEL", "MFLAGS"):
        env.pop(name, None)
    return env


def end_group(process: subprocess.Popen[Any], number: int) -> None:
    """Signals the process that we started and what it started in turn."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


running: set[subprocess.Popen[Any]] = set()  # also those of other threads, to be ended when we are


def run(command: Sequence[str], timeout: float) -> Outcome:
    """Runs a command in a session of its own and keeps what it prints."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(127, f"{command[0]}: {error.strerror}\n")
        running.add(process)
        status: int | None = None
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            end_group(process, signal.SIGTERM)  # doctest then names the case that runs
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                pass
        finally:
            end_group(process, signal.SIGKILL)
            process.wait()
            running.discard(process)
        output.seek(0)
        return Outcome(status, output.read().decode(errors="replace"))


def show(output: str) -> None:
    if output:
        print(output, end="" if output.endswith("\n") else "\n")


costs: list[tuple[float, str]] = []  # the seconds and the name of each step that has ended


def report(name: str, tally: Tally, started: float, note: str = "") -> None:
    seconds = time.monotonic() - started
    costs.append((seconds, name))
    verdict = "FAIL" if tally.failed else "ok" if tally.passed else "skip"
    print(f"{verdict:5} {name}: {note or tally} ({seconds:.1f} s)", flush=True)


def show_costs(least: float = 10.0, most: int = 12) -> None:
    """A table of the steps that took long, the longest first."""
    expensive = sorted((cost for cost in costs if cost[0] >= least), reverse=True)[:most]
    if expensive:
        print("seconds  step")
    for seconds, name in expensive:
        print(f"{seconds:7.0f}  {name}", flush=True)


def judge(outcome: Outcome) -> tuple[Tally, str]:
    """What a doctest program's run counts, and words for it."""
    lines = DOCTEST_LINE.findall(outcome.output)
    if not lines:
        return FAILED, f"{outcome.words}, and no summary from doctest"
    cases, passed, failed = map(int, lines[-1])
    if cases == 0:
        return FAILED, "no test ran"
    if outcome.status == 0:
        return Tally(passed, failed), ""
    return Tally(passed, max(failed, 1)), f"{passed} passed, {max(failed, 1)} failed, {outcome.words}"


class Build(threading.Thread):
    """A build under way."""

    def __init__(self, command: str) -> None:
        super().__init__(daemon=True)
        self.command = command
        self.started = time.monotonic()
        self.seconds = 0.0
        self.start()

    def run(self) -> None:
        self.outcome = run(["sh", "-c", self.command], BUILD_TIMEOUT)
        self.seconds = time.monotonic() - self.started

    def wait(self) -> Outcome:
        self.join()
        return self.outcome


def run_suite(name: str, build: Build, binary: str, timeout: float, next_build: Callable[[], None]) -> Tally:
    built = build.wait()
    show(built.output)  # warnings are worth a look
    if built.status == SKIP_STATUS:
        next_build()
        report(name, SKIPPED, build.started, "skipped")
        return SKIPPED
    if built.status != 0:
        report(name, FAILED, build.started, f"`{build.command}` failed: {built.words}")
        return FAILED
    print(f"      {name}: built in {build.seconds:.1f} s", flush=True)
    next_build()
    started = time.monotonic()
    outcome = run([os.path.abspath(binary), "--no-colors"], timeout)
    tally, note = judge(outcome)
    lines = outcome.output.splitlines(keepends=True)
    show("".join(line for line in lines if tally.failed or line.startswith("emulator:")))
    report(name, tally, started, note)
    return tally


printing = threading.Lock()  # so that what one step prints stays together


def run_check(name: str, command: Sequence[str], timeout: float) -> Tally:
    started = time.monotonic()
    outcome = run(command, timeout)
    with printing:
        return judge_check(name, outcome, started)


def judge_check(name: str, outcome: Outcome, started: float) -> Tally:
    """Shows what is worth it of a check that has ended, and counts it."""
    if outcome.status == 0:
        show("".join(line for line in outcome.output.splitlines(True) if line.startswith("skipped: ")))
        report(name, PASSED, started, "passed")
        return PASSED
    if outcome.status == SKIP_STATUS:
        report(name, SKIPPED, started, outcome.output.strip() or "skipped")
        return SKIPPED
    show(outcome.output)
    report(name, FAILED, started, outcome.words)
    return FAILED


def run_scripts(files: Sequence[str], timeout: float, at_once: int = 4) -> Tally:
    """Runs scripts side by side."""
    total = Tally()
    with ThreadPoolExecutor(at_once) as pool:
        for tally in pool.map(lambda file: run_check(Path(file).name, ["bash", file], timeout), files):
            total.add(tally)
    return total


def run_nested(name: str, command: str) -> Tally:
    """Passes the command's output on as it comes, but for its closing line."""
    started = time.monotonic()
    found: re.Match[str] | None = None
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        start_new_session=True,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            closing = TALLY_LINE.fullmatch(line)
            found = closing or found
            if not closing:
                print(line, end="", flush=True)
        status = process.wait()
    except BaseException:
        end_group(process, signal.SIGTERM)
        raise
    tally = Tally(int(found[1]), int(found[2])) if found else Tally()
    if found is None:
        tally = PASSED if status == 0 else FAILED
    elif status != 0 and tally.failed == 0:
        tally.failed = 1
    report(name, tally, started)
    return tally


class AppendStep(argparse.Action):
    """Keeps steps of all kinds in the order of the command line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        arguments = [values] if isinstance(values, str) else list(values)
        namespace.steps = [*(namespace.steps or []), (self.const, arguments)]


def add_step(parser: argparse.ArgumentParser, kind: str, *names: str) -> None:
    parser.add_argument(
        f"--{kind}", action=AppendStep, const=kind, nargs=len(names) if len(names) > 1 else None,
        metavar=names if len(names) > 1 else names[0], dest="steps", default=None,
    )  # fmt: skip


def interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_step(parser, "suite", "NAME", "BUILD", "BINARY")
    add_step(parser, "check", "NAME", "COMMAND")
    add_step(parser, "script", "FILE")
    add_step(parser, "nested", "NAME", "COMMAND")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for each program, check and script")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    total = Tally()
    steps = options.steps or []
    builds: dict[int, Build] = {}

    def prepare(step: int) -> None:
        if step < len(steps) and steps[step][0] == "suite" and step not in builds:
            builds[step] = Build(steps[step][1][1])

    try:
        for step, (kind, arguments) in enumerate(steps):
            if kind == "suite":
                prepare(step)
                name, _, binary = arguments
                total.add(run_suite(name, builds[step], binary, options.timeout, lambda: prepare(step + 1)))
            elif kind == "check":
                total.add(run_check(arguments[0], ["sh", "-c", arguments[1]], options.timeout))
            elif kind == "script":
                if step == 0 or steps[step - 1][0] != "script":
                    following = itertools.takewhile(lambda s: s[0] == "script", steps[step:])
                    total.add(run_scripts([files[0] for _, files in following], options.timeout))
            else:
                total.add(run_nested(*arguments))
    except KeyboardInterrupt:
        for process in list(running):
            end_group(process, signal.SIGTERM)
        print("interrupted")
        total.failed += 1
    show_costs()
    print(total, flush=True)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
