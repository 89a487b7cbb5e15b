#!/usr/bin/env python3
"""Measures anyio_net beside its peers and beside epoll by hand; bench/README.md tells how and what.

  run.py                           everything, into bench/results: `make bench`
  run.py --quick                   some scenarios, two short rounds: `make bench-quick`
  run.py --only echo-tcp-64 tls-echo --rounds 3
  run.py --only idle cost micro    these parts alone
  run.py --report                  measures nothing: tables and plots anew, from results.json in the output folder
  run.py --list                    what there is
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cost
import counts
import process
import report
from process import BUILD, ROOT, Failed, Unsupported
from scenarios import IDLE, QUICK, SCENARIOS, Scenario

PARTS = ["idle", "cost", "micro"]
PROBLEMS = (Failed, subprocess.SubprocessError, OSError)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip()


def meta(options: argparse.Namespace) -> dict:
    models = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")]
    changed = bool(output_of("git", "status", "--porcelain", "--", "src", "anyio_net.hpp", "bench/servers"))
    return {
        "date": time.strftime("%Y-%m-%d"),
        "kernel": platform.release(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "compiler": output_of(cost.CXX, "--version").splitlines()[0],
        "commit": output_of("git", "rev-parse", "--short", "HEAD") + (" with changes" if changed else ""),
        "rounds": options.rounds,
        "seconds": options.seconds,
    }


class Measurement:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.certificates = process.make_certificates(BUILD / "certificates")
        self.failures = 0

    def failed(self, what: str, problem: Exception, problems: list[str]) -> None:
        self.failures += 1
        say(f"{what} FAILED: {problem}")
        problems.append(f"{what}: {str(problem).splitlines()[0]}")

    def rounds(self, scenario: Scenario) -> tuple[dict[str, dict], list[str]]:
        """Servers take turns, so that what else the machine does falls on all of them alike."""
        problems: list[str] = []
        done: dict[str, list[dict]] = {s.label: [] for s in scenario.servers}
        out: set[str] = set()
        amount = ["--seconds", str(self.options.seconds)]
        for number in range(self.options.rounds):
            for server in scenario.servers if number % 2 == 0 else scenario.servers[::-1]:
                if server.label in out:
                    continue
                try:
                    done[server.label].append(process.run_scenario(server, scenario, amount, self.certificates))
                except Unsupported as why:
                    out.add(server.label)
                    say(f"{scenario.name}: left out: {why}")
                except PROBLEMS as problem:
                    out.add(server.label)
                    self.failed(f"{scenario.name}, {server.label}", problem, problems)
        complete = {label: r for label, r in done.items() if label not in out}
        return report.summarise(complete), problems

    def counts(self, scenario: Scenario, problems: list[str]) -> dict[str, dict]:
        result = {}
        for server in scenario.servers:
            row = result[server.label] = {}
            try:
                row["system_calls"] = counts.system_calls(server, scenario, self.certificates)
                row["allocations"] = counts.allocations(server, scenario, self.certificates)
                row["instructions"] = counts.instructions(server, scenario, self.certificates)
            except Unsupported:
                del result[server.label]
            except PROBLEMS as problem:
                self.failed(f"{scenario.name}, {server.label}, counting", problem, problems)
        return result

    def scenario(self, scenario: Scenario) -> dict:
        say(f"{scenario.name}: {scenario.group}: {scenario.title}")
        servers, problems = self.rounds(scenario) if self.options.rounds else ({}, [])
        entry = {"group": scenario.group, "title": scenario.title, "operation": scenario.operation, "servers": servers}
        if self.options.counts and scenario.counted:
            entry["counts"] = self.counts(scenario, problems)
        if problems:
            entry["problems"] = problems
        print(f"\n{scenario.name}: {scenario.group}: {scenario.title}\n")
        if servers:
            print(report.scenario_table(scenario.operation, servers))
        if entry.get("counts"):
            print(report.counts_table(scenario.operation, entry["counts"]))
        sys.stdout.flush()
        return entry

    def idle(self) -> dict:
        result = {}
        for server in IDLE:
            say(f"idle: {server.label}")
            try:
                result[server.label] = counts.idle(server, self.options.idle_connections)
            except Unsupported as why:
                say(f"idle: left out: {why}")
            except PROBLEMS as problem:
                self.failed(f"idle, {server.label}", problem, [])
        print(f"\n{self.options.idle_connections} idle connections\n\n{report.idle_table(result)}")
        return result


def micro(quick: bool) -> list[dict]:
    command = [str(BUILD / "micro"), "--benchmark_format=json"]  # on all cores: some have two threads
    command += [f"--benchmark_min_time={0.05 if quick else 0.3}", "--benchmark_repetitions=" + ("1" if quick else "5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}:\n{done.stderr}")
    best: dict[str, dict] = {}
    to_ns = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}
    for b in json.loads(done.stdout)["benchmarks"]:
        if b["run_type"] != "iteration":
            continue
        # Per item where an iteration is of many.
        ns = 1e9 / b["items_per_second"] if "items_per_second" in b else b["cpu_time"] * to_ns[b["time_unit"]]
        name = b.get("run_name", b["name"])
        if name not in best or ns < best[name]["ns"]:
            best[name] = {"name": name, "ns": round(ns, 2)}
            if "allocations" in b:
                best[name]["allocations"] = round(b["allocations"], 3)
    return list(best.values())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="of each server in each scenario (7; 0: only count)")
    parser.add_argument("--seconds", type=float, help="of each load (0.8)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="scenarios, or idle, cost, micro")
    parser.add_argument("--quick", action="store_true", help="a minute in all")
    parser.add_argument("--no-counts", dest="counts", action="store_false", help="no strace, no callgrind")
    parser.add_argument("--idle-connections", type=int, default=10000)
    parser.add_argument("--output", type=Path, help="folder; with --only or --quick build/bench/results")
    parser.add_argument("--report", action="store_true", help="only write tables and plots, from recorded results")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    names = [s.name for s in SCENARIOS]
    if options.list:
        print("\n".join([*names, *PARTS]))
        sys.exit(0)
    unknown = set(options.only or []) - {*names, *PARTS}
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if options.rounds is None:
        options.rounds = 2 if options.quick else 7
    if options.seconds is None:
        options.seconds = 0.25 if options.quick else 0.8
    options.counts = options.counts and not options.quick
    if options.output is None:
        partial = options.only or options.quick
        options.output = BUILD / "results" if partial else Path(__file__).resolve().parent / "results"
    options.chosen = options.only or (QUICK if options.quick else [*names, *PARTS])
    return options


def write_report(results: dict, folder: Path) -> None:
    (folder / "table.md").write_text(report.markdown(results))


def main() -> int:
    options = parse()
    if options.report:
        recorded = json.loads((options.output / "results.json").read_text())
        write_report(recorded, options.output)
        report.plots(recorded, options.output)
        return 0
    # A signal ends the servers, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    m = Measurement(options)
    results: dict = {"meta": meta(options), "scenarios": {}}
    options.output.mkdir(parents=True, exist_ok=True)

    def write() -> None:
        (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        write_report(results, options.output)

    for scenario in SCENARIOS:
        if scenario.name in options.chosen:
            results["scenarios"][scenario.name] = m.scenario(scenario)
            write()
    if "idle" in options.chosen:
        results["idle_connections"] = options.idle_connections
        results["idle"] = m.idle()
        write()
    for name, part in (("cost", lambda: cost.measure(1 if options.quick else 3)), ("micro", lambda: micro(options.quick))):
        if name not in options.chosen:
            continue
        say(name)
        try:
            results[name] = part()
        except PROBLEMS as problem:
            m.failed(name, problem, [])
            continue
        print(report.cost_table(results[name]) if name == "cost" else report.micro_table(results[name]))
    write()
    report.plots(results, options.output)
    say(f"written: {os.path.relpath(options.output)}")
    return 1 if m.failures else 0


if __name__ == "__main__":
    sys.exit(main())
