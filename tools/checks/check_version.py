#!/usr/bin/env python3
"""Fails unless the newest entry of CHANGELOG.md, README.md and the files of package managers have the version of
src/base/config.hpp and anyio_net.hpp.

  check_version.py             the entry may still be unreleased
  check_version.py --released  it must have its own heading with a day: `## [1.2.3] - 2026-12-31`
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "make"))

from amalgamate import CONFIG, HEADER, Refusal, read_part, version_of

NAMED = re.compile(r"\bversion (\d+\.\d+\.\d+)\b")
# Files of package managers that cannot read it from the header, and what stands before it.
STATED = {"packaging/vcpkg/anyio-net/vcpkg.json": '"version": "', "MODULE.bazel": '    version = "'}
ENTRY = re.compile(r"^##+ \[?(\d+\.\d+\.\d+)\b", re.MULTILINE)


def faults_of(version: str, changelog: str, released: bool) -> list[str]:
    """The places that disagree with the version."""
    newest = ENTRY.search(changelog)
    if newest is None or newest[1] != version:
        entry = newest[1] if newest else "none"
        return [f"CHANGELOG.md: its newest entry is {entry}, and src/{CONFIG} states {version}"]
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    if released and not re.search(heading, changelog, re.MULTILINE):
        return [f"CHANGELOG.md: has no heading `## [{version}] - year-month-day`"]
    return []


def faults_of_readme(version: str, readme: str) -> list[str]:
    """The versions in a README's text that are not the version; one must be there."""
    named = NAMED.findall(readme)
    if not named:
        return ["README.md: names no version"]
    return [f"README.md: says version {other}, and src/{CONFIG} states {version}" for other in named if other != version]


def stated_fault(version: str, name: str, text: str) -> list[str]:
    """What is wrong with the version that this file of a package manager states."""
    if f'{STATED[name]}{version}"' in text:
        return []
    return [f"{name}: states another version, and src/{CONFIG} states {version}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--released", action="store_true", help="the newest entry is that of a release")
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    try:
        version = version_of([read_part(root / "src" / CONFIG, CONFIG)])
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    faults = faults_of(version, (root / "CHANGELOG.md").read_text(encoding="utf-8"), options.released)
    faults += faults_of_readme(version, (root / "README.md").read_text(encoding="utf-8"))
    if not (root / HEADER).read_text(encoding="utf-8").startswith(f"// {HEADER} {version}:"):
        faults.append(f"{HEADER}: is not of version {version}: run `make`")
    for name in STATED:
        faults += stated_fault(version, name, (root / name).read_text(encoding="utf-8"))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
