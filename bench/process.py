"""Servers and loads as processes: pinned, and always ended and waited for."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from scenarios import Scenario, Server

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
CORES = os.cpu_count() or 1


class Failed(Exception):
    """A program does not do what is asked; the text says which, and what it printed."""


class Unsupported(Exception):
    """The library has no means for this scenario."""


def on_core(core: int | None) -> list[str]:
    pinned = core is not None and CORES > 1 and shutil.which("taskset")
    return ["taskset", "-c", str(core)] if pinned else []


def first_line(process: subprocess.Popen, seconds: float) -> str:
    end = time.monotonic() + seconds
    text = b""
    while not text.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            return ""
        byte = os.read(process.stdout.fileno(), 1)
        if not byte:
            break
        text += byte
    return text.decode().strip()


def child_of(parent: int) -> int:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue  # it has gone meanwhile
        if int(text.rpartition(")")[2].split()[1]) == parent:
            return int(stat.parent.name)
    raise Failed(f"process {parent} has no child")


def end_process(process: subprocess.Popen, pid: int) -> None:
    """Ends the server, which may be a child of the process, and waits for the process."""
    try:
        os.kill(pid, 15)
    except ProcessLookupError:
        pass
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Running:
    """A server that listens."""

    def __init__(self, kind: str, where: str, pid: int) -> None:
        self.kind = kind
        self.where = where
        self.pid = pid

    def load(self, arguments: list[str], core: int | None = 1) -> dict:
        scenario, *options = arguments
        command = [*on_core(core), str(BUILD / "load"), scenario, self.kind, self.where]
        command += ["--server", str(self.pid), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)


@contextmanager
def running(server: Server, kind: str, wrapper: list[str] | None = None, env: dict[str, str] | None = None,
            threads: int = 1, core: int | None = 0, certificates: Path | None = None):
    """Starts a server and ends it; a wrapper is strace or valgrind."""
    program = BUILD / server.program
    if not program.exists():
        raise Unsupported(f"{server.program} was not built")
    with tempfile.TemporaryDirectory(prefix="anyio-bench-") as folder, tempfile.TemporaryFile() as errors:
        path = {"unix": f"{folder}/s", "unixgram": f"{folder}/s", "tls": str(certificates)}.get(kind, "-")
        command = [*on_core(core), *(wrapper or []), str(program), server.mode, kind, path, str(threads)]
        if server.form:
            command.append(server.form)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **(env or {})})
        pid = process.pid
        try:
            where = first_line(process, 60 if wrapper else 10)
            if where == "unsupported":
                raise Unsupported(server.label)
            if not where:
                errors.seek(0)
                raise Failed(f"{' '.join(command)} does not start:\n{errors.read().decode()}")
            if wrapper and wrapper[0] == "strace":
                pid = child_of(pid)
            yield Running(kind, where, pid)
        finally:
            end_process(process, pid)
            process.stdout.close()


def run_scenario(server: Server, scenario: Scenario, amount: list[str], certificates: Path, **options) -> dict:
    """One load of a scenario: `amount` is --seconds or --operations."""
    many = scenario.threads > 1
    core = None if many else 0
    with running(server, scenario.kind, threads=scenario.threads, core=core, certificates=certificates,
                 **options) as target:
        return target.load([*scenario.load, *amount], core=None if many else 1)


def make_certificates(folder: Path) -> Path:
    """A key and a certificate for it, both made here, for the servers of TLS."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "server.pem").exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-days", "3650", "-subj", "/CN=localhost", "-keyout", str(folder / "server.key"),
                   "-out", str(folder / "server.pem")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"openssl: {done.stderr}")
    return folder
