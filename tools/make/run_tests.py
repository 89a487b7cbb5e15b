#!/usr/bin/env python3
"""Runs steps, and ends with one summary line: `N passed, N failed`.

  --suite NAME BUILD BINARY  run the command BUILD, then the doctest program BINARY: counts its cases
  --check NAME COMMAND       a command that succeeds or fails: counts one
  --script FILE              the same, for a script
  --nested NAME COMMAND      a command that ends with such a line itself: counts what the line says

Steps run in the order given, with two exceptions: when a suite is built, the next steps begin while it runs, since a
test program keeps one processor busy (only one suite runs at a time); and scripts that follow each other run side by
side, since they mostly wait.

Each step prints one line when it ends. On a terminal a line below tells all the time which step is running, which
file is compiled, how many of how many, and for how many seconds. What a step prints is shown when it fails; the
lines that name a compiled file (`  gcc: tests/base/test_error.cpp`) are left out. Also shown are, of a build, its
warnings; of a check that passes, the lines that begin with `skipped: `; of a suite that passes, those that begin
with `emulator:`, which say what is left out. The most expensive steps are listed at the end, with the processor
time that they took.

A build that fails, a crash, a sanitizer's abort, no test at all and a timeout are failures. The exit status is 1 if
any step failed. A check, a script or a BUILD that ends with 77 cannot run here: that is said, and counts nothing.

With --record FILE a JSON file tells what was run where, and how each step ended. A step adds facts of its own by lines
`record: {"name": value, ...}`, which are not shown. tools/make/proved.py makes docs/proved.md of such files.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Sequence

DOCTEST_LINE = re.compile(r"\[doctest\] test cases:\s*(\d+) \|\s*(\d+) passed \|\s*(\d+) failed")
TALLY_LINE = re.compile(r"(\d+) passed, (\d+) failed\s*")
# What the Makefile prints before it compiles a file.
COMPILING = re.compile(r"^  ([\w+-]+: \S+\.[ch]pp(?:, .*)?)$", re.MULTILINE)
CALLS_MAKE = re.compile(r"\bmake\b")
BUILD_TIMEOUT = 1800.0
# Set for a nested command that is one of ours, to what it shall hand up: "costs", or "costs progress".
NESTED = "ANYIO_NET_NESTED_STEPS"
PROGRESS_LINE = re.compile(r"progress: ?(.*)\n")
RECORD_LINE = re.compile(r"^record: (\{.*\})$", re.MULTILINE)
STEP_LINE = re.compile(r"step: (\{.*\})\n")
COST_LINE = re.compile(r"cost: (\d+\.\d) (\d+\.\d) (.+)\n")

# Merged with the environment's values; otherwise doctest would handle SIGSEGV before the sanitizer.
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:handle_segv=2:handle_sigbus=2",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1",
}


@dataclass
class Tally:
    """The numbers of passed and failed steps."""

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
    """How a command ended; `status` is None after a timeout."""

    status: int | None
    output: str
    processor: float = 0.0  # seconds, of the command and of what it started and waited for

    @property
    def words(self) -> str:
        if self.status is None:
            return "timed out"
        if self.status < 0:
            return f"killed by {signal.Signals(-self.status).name}"
        return f"exit status {self.status}"


def environment() -> dict[str, str]:
    """Ours, with the sanitizers' options, and without the job server of a make above us."""
    env = dict(os.environ)
    for name, options in SANITIZER_OPTIONS.items():
        env[name] = ":".join(filter(None, [options, env.get(name, "")]))
    if "MAKEFLAGS" in env:
        env["MAKEFLAGS"] = re.sub(r"(?:^|\s)(?:--jobserver-\S+|-j\d*)(?=\s|$)", "", env["MAKEFLAGS"])
    for name in ("MAKELEVEL", "MFLAGS", NESTED):
        env.pop(name, None)
    return env


def end_group(process: subprocess.Popen[Any], number: int) -> None:
    """Signals the process that we started and what it started in turn."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


running: set[subprocess.Popen[Any]] = set()  # also those of other threads, to be ended when we are


def wait(process: subprocess.Popen[Any], timeout: float) -> float:
    """Waits for a process to end; gives the processor time that it took. Raises TimeoutExpired."""
    end = time.monotonic() + timeout
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime
        if time.monotonic() >= end:
            raise subprocess.TimeoutExpired(process.args, timeout)
        time.sleep(0.02)


def run(command: Sequence[str], timeout: float, activity: Activity | None = None, **variables: str) -> Outcome:
    """Runs a command in a session of its own, with these variables too, and keeps what it prints."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment(), **variables},
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(127, f"{command[0]}: {error.strerror}\n")
        running.add(process)
        if activity:
            activity.watch(output.fileno())
        status: int | None = None
        processor = 0.0
        try:
            processor = wait(process, timeout)
            status = process.returncode
        except subprocess.TimeoutExpired:
            end_group(process, signal.SIGTERM)  # doctest then names the case that runs
            try:
                processor = wait(process, 10)
            except subprocess.TimeoutExpired:
                pass
        finally:
            end_group(process, signal.SIGKILL)
            process.wait()
            running.discard(process)
            if activity:
                activity.watch(None)
        output.seek(0)
        return Outcome(status, output.read().decode(errors="replace"), processor)


# ---- what is shown --------------------------------------------------------------------------------


@dataclass
class Activity:
    """A command that runs, and how far it is; the lines of COMPILING in its output tell."""

    name: str
    total: int = 0  # of files to compile, if known
    started: float = field(default_factory=time.monotonic)
    compiled: int = 0
    latest: str = ""
    fd: int | None = None
    offset: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, fd: int | None) -> None:
        with self.lock:
            self.fd, self.offset = fd, 0

    def look(self) -> None:
        """Reads the whole lines that have been added to the output."""
        with self.lock:
            if self.fd is None:
                return
            more = os.pread(self.fd, 1 << 20, self.offset)
        whole = more[: more.rfind(b"\n") + 1]
        self.offset += len(whole)
        found = COMPILING.findall(whole.decode(errors="replace"))
        self.compiled += len(found)
        self.latest = found[-1] if found else self.latest

    def __str__(self) -> str:
        self.look()
        words = [self.name]
        if self.latest:
            count = f"{self.compiled} of {self.total}" if self.total >= self.compiled else str(self.compiled)
            words += [f"{count} {self.latest}"]
        return ", ".join([*words, f"{time.monotonic() - self.started:.0f} s"])


class Progress:
    """The line at the bottom of a terminal, or nothing where there is none."""

    def __init__(self, live: bool, nested: bool) -> None:
        self.live = live
        self.nested = nested  # a process above has the terminal
        self.activities: list[Activity] = []
        self.step = self.steps = 0
        self.lock = threading.RLock()
        self.drawn = ""
        if live or nested:
            threading.Thread(target=self.tick, daemon=True).start()

    def tick(self) -> None:
        while True:
            with self.lock:
                if self.activities:
                    self.draw(f"[{self.step} of {self.steps}] " + "; ".join(map(str, self.activities)))
            time.sleep(0.2)

    def draw(self, line: str) -> None:
        """Shows a line in place of the one before."""
        with self.lock:
            if self.nested:
                print(f"progress: {line}", flush=True)
            elif self.live:
                line = line[: max(shutil.get_terminal_size().columns - 1, 20)]
                print(f"\r\033[K{line}", end="", flush=True)
                self.drawn = line

    def say(self, text: str) -> None:
        """Prints text that stays."""
        with self.lock:
            drawn, self.drawn = self.drawn, ""
            print(("\r\033[K" if drawn else "") + text, end="" if text.endswith("\n") else "\n", flush=True)

    @contextlib.contextmanager
    def activity(self, name: str, total: int = 0) -> Iterator[Activity]:
        activity = Activity(name, total)
        with self.lock:
            self.activities.append(activity)
        try:
            yield activity
        finally:
            with self.lock:
                self.activities.remove(activity)
                if not self.activities:
                    self.draw("")
                    self.drawn = ""

    def count(self, command: str) -> int:
        """How many files a command that calls make will compile, if somebody wants to know."""
        if not (self.live or self.nested) or not CALLS_MAKE.search(command):
            return 0
        dry = run(["sh", "-c", command], 60.0, MAKEFLAGS="n")
        return len(re.findall(r'^(?:echo|printf) "  [\w+-]+: \S+\.[ch]pp\b', dry.output, re.MULTILINE))


progress = Progress(False, False)


def show(output: str) -> None:
    """Prints what a command printed, but for the lines that name a compiled file."""
    lines = [line for line in output.splitlines(True) if not COMPILING.match(line.rstrip("\n"))]
    output = "".join(line for line in lines if not RECORD_LINE.match(line))
    if output:
        progress.say(output)


# The seconds, the processor's seconds and the name of each step that has ended.
costs: list[tuple[float, float, str]] = []


# Each step that has ended, for --record.
records: list[dict[str, Any]] = []


def report(
    name: str, tally: Tally, started: float, note: str = "", processor: float = 0.0, built: float = 0.0, output: str = ""
) -> None:
    """Prints a step's line; `built` are the seconds of a suite's build, which went before. `output` may have facts."""
    seconds = time.monotonic() - started
    costs.append((seconds + built, processor, name))
    facts = [json.loads(fact) for fact in RECORD_LINE.findall(output)]
    skipped = re.findall(r"^skipped: (.*)$", output, re.MULTILINE)
    record = {"name": name, "passed": tally.passed, "failed": tally.failed, "note": note, "skipped": skipped, "facts": facts}
    records.append({**record, "seconds": round(seconds + built, 1), "processor": round(processor, 1)})
    verdict = "FAIL" if tally.failed else "ok" if tally.passed else "skip"
    times = f"built in {built:.1f} s, {seconds:.1f} s" if built else f"{seconds:.1f} s"
    progress.say(f"{verdict:5} {name}: {note or tally} ({times})")


def show_costs(least: float = 10.0, most: int = 20) -> None:
    """A table of the steps that took much of a processor's time, the most expensive first."""
    expensive = sorted((cost for cost in costs if max(cost[:2]) >= least), key=lambda cost: max(cost[:2]), reverse=True)
    if expensive:
        progress.say("processor  seconds  step")
    for seconds, processor, name in expensive[:most]:
        progress.say(f"{processor:9.0f}  {seconds:7.0f}  {name}")


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


def build_suite(name: str, command: str) -> tuple[Tally | None, Outcome, float]:
    """Builds a suite: what it counts if that is all, how it ended, and the seconds that it took."""
    with progress.activity(f"building {name}", progress.count(command)) as activity:
        started = time.monotonic()
        built = run(["sh", "-c", command], BUILD_TIMEOUT, activity)
    with progress.lock:
        show(built.output)  # warnings are worth a look
        if built.status == 0:
            return None, built, time.monotonic() - started
        tally, note = FAILED, f"`{command}` failed: {built.words}"
        if built.status == SKIP_STATUS:
            tally, note = SKIPPED, "skipped"
        report(name, tally, started, note, built.processor, output=built.output)
    return tally, built, 0.0


def run_suite(name: str, binary: str, timeout: float, built: Outcome, seconds: float) -> Tally:
    with progress.activity(name) as activity:
        started = time.monotonic()
        outcome = run([os.path.abspath(binary), "--no-colors"], timeout, activity)
    tally, note = judge(outcome)
    lines = outcome.output.splitlines(keepends=True)
    with progress.lock:  # so that what one step prints stays together
        show("".join(line for line in lines if tally.failed or line.startswith("emulator:")))
        processor = built.processor + outcome.processor
        report(name, tally, started, note, processor, seconds, built.output + outcome.output)
    return tally


def run_check(name: str, command: Sequence[str], timeout: float) -> Tally:
    with progress.activity(name, progress.count(command[-1])) as activity:
        started = time.monotonic()
        outcome = run(command, timeout, activity)
    with progress.lock:
        return judge_check(name, outcome, started)


def judge_check(name: str, outcome: Outcome, started: float) -> Tally:
    """Shows what is worth it of a check that has ended, and counts it."""
    if outcome.status == 0:
        show("".join(line for line in outcome.output.splitlines(True) if line.startswith("skipped: ")))
        report(name, PASSED, started, "passed", outcome.processor, output=outcome.output)
        return PASSED
    if outcome.status == SKIP_STATUS:
        report(name, SKIPPED, started, outcome.output.strip() or "skipped", outcome.processor)
        return SKIPPED
    show(outcome.output)
    report(name, FAILED, started, outcome.words, outcome.processor)
    return FAILED


def run_scripts(files: Sequence[str], timeout: float, at_once: int = 4) -> Tally:
    """Runs scripts side by side."""
    total = Tally()
    with ThreadPoolExecutor(at_once) as pool:
        for tally in pool.map(lambda file: run_check(Path(file).name, ["bash", file], timeout), files):
            total.add(tally)
    return total


def run_nested(name: str, command: str) -> Tally:
    """Passes the command's output on as it comes, but for its closing line and what it hands up."""
    started = time.monotonic()
    found: re.Match[str] | None = None
    inner = False  # whether the steps inside have told what they cost
    wants = "costs progress" if progress.live or progress.nested else "costs"
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**environment(), NESTED: wants},
        start_new_session=True,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            for line in process.stdout:
                closing = TALLY_LINE.fullmatch(line)
                found = closing or found
                if drawn := PROGRESS_LINE.fullmatch(line):
                    progress.draw(drawn[1] and f"{name} {drawn[1]}")
                elif step := STEP_LINE.fullmatch(line):
                    records.append(json.loads(step[1]))
                elif cost := COST_LINE.fullmatch(line):
                    costs.append((float(cost[1]), float(cost[2]), cost[3]))
                    inner = True
                elif not closing:
                    progress.say(line)
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
    if inner:
        costs.pop()  # in favour of its steps
        records.pop()
    return tally


def write_record(file: Path, total: Tally) -> None:
    """Writes what was run, where, and how it ended."""

    def said(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:
            return ""

    system = {}
    if Path("/etc/os-release").is_file():
        system = dict(re.findall(r'^(\w+)="?(.*?)"?$', Path("/etc/os-release").read_text(encoding="utf-8"), re.MULTILINE))
    file.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": said("git", "rev-parse", "--short", "HEAD"),
        "changed": bool(said("git", "status", "--porcelain", "--untracked-files=no")),
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "system": system.get("PRETTY_NAME", ""),
        "passed": total.passed,
        "failed": total.failed,
        "steps": records,
    }
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


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
    parser.add_argument("--record", type=Path, metavar="FILE", help="what was run, for tools/make/proved.py")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    nested = os.environ.get(NESTED, "")
    global progress
    progress = Progress(sys.stdout.isatty(), "progress" in nested)
    total = Tally()
    steps = options.steps or []
    progress.steps = len(steps)
    suites = ThreadPoolExecutor(1)  # runs one after the other, beside what the main thread does
    runs: list[Future[Tally]] = []
    try:
        for step, (kind, arguments) in enumerate(steps):
            progress.step = step + 1
            if kind == "suite":
                name, command, binary = arguments
                tally, built, seconds = build_suite(name, command)
                if tally is not None:
                    total.add(tally)
                else:
                    runs.append(suites.submit(run_suite, name, binary, options.timeout, built, seconds))
            elif kind == "check":
                total.add(run_check(arguments[0], ["sh", "-c", arguments[1]], options.timeout))
            elif kind == "script":
                if step == 0 or steps[step - 1][0] != "script":
                    following = itertools.takewhile(lambda s: s[0] == "script", steps[step:])
                    total.add(run_scripts([files[0] for _, files in following], options.timeout))
            else:
                total.add(run_nested(*arguments))
        for suite in runs:
            total.add(suite.result())
    except KeyboardInterrupt:
        suites.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            end_group(process, signal.SIGTERM)
        progress.say("interrupted")
        total.failed += 1
    if nested:
        for seconds, processor, name in costs:
            progress.say(f"cost: {seconds:.1f} {processor:.1f} {name}")
        for record in records:
            progress.say(f"step: {json.dumps(record)}")
    else:
        show_costs()
        if options.record:
            write_record(options.record, total)
    progress.say(str(total))
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
