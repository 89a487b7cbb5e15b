#!/usr/bin/env python3
"""Makes the archive of a release: build/dist/anyio_net-VERSION.tar.gz, and SHA256SUMS beside it.

It holds what a program needs to use the library: the header, the module, the licence, and the files for CMake, Meson,
Bazel, vcpkg and Conan. The header lies beside the archive too, for those who take nothing else. The bytes depend only
on those of the files: not on the time, the user, the permissions, or the order of a folder.

  dist.py [--root ROOT] [--into FOLDER]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import re
import tarfile
from pathlib import Path

HEADER = "anyio_net.hpp"
FILES = (
    HEADER, "anyio_net.cppm", "LICENSE", "README.md", "CHANGELOG.md", "CMakeLists.txt", "cmake/*", "meson.build", "meson_options.txt",
    "packaging/meson/*", "MODULE.bazel", "BUILD.bazel", "packaging/vcpkg/*/*", "packaging/conan/*.py",
)  # fmt: skip
MADE_IN = 946684800  # the first second of the year 2000: some programs take no time before 1980


def version_in(header: str) -> str:
    numbers = re.findall(r"^#define ANYIO_NET_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header, re.MULTILINE)
    if len(numbers) != 3:
        raise SystemExit(f"dist: {HEADER} states no version")
    return ".".join(numbers)


def archive(root: Path, name: str) -> bytes:
    """The files below the folder `name`, as a gzipped archive."""
    paths = sorted(path for pattern in FILES for path in some(root, pattern))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in paths:
            content = path.read_bytes()
            member = tarfile.TarInfo(f"{name}/{path.relative_to(root).as_posix()}")
            member.size, member.mode, member.mtime = len(content), 0o644, MADE_IN
            tar.addfile(member, io.BytesIO(content))
    zipped = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=zipped, mode="wb", compresslevel=9, mtime=MADE_IN) as file:
        file.write(packed.getvalue())
    return zipped.getvalue()


def some(root: Path, pattern: str) -> list[Path]:
    found = [path for path in root.glob(pattern) if path.is_file()]
    if not found:
        raise SystemExit(f"dist: there is no {pattern}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--into", type=Path, help="instead of build/dist")
    options = parser.parse_args()
    folder = options.into or options.root / "build" / "dist"
    folder.mkdir(parents=True, exist_ok=True)
    header = (options.root / HEADER).read_bytes()
    name = f"anyio_net-{version_in(header.decode())}"
    files = {f"{name}.tar.gz": archive(options.root, name), HEADER: header}
    files["SHA256SUMS"] = "".join(f"{hashlib.sha256(files[f]).hexdigest()}  {f}\n" for f in sorted(files)).encode()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    print(f"{folder / name}.tar.gz")


if __name__ == "__main__":
    main()
