#!/usr/bin/env python3
"""Processor time per GiB of proxies: anyio::relay, the same through memory, splice(2) by hand, socat.

  relay.py PROGRAM [--gib 4] [--rounds 5]

PROGRAM is build/bench/relay. Each proxy carries so many GiB from one connection to another; what counts is the
time that its process took, in user mode and in the kernel. The rounds alternate between the proxies, and the
median is printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import threading

PIECE = 1 << 20


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connect(port: int) -> socket.socket:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            pass


def measure(command: list[str], port: int | None, target: socket.socket, gib: int) -> float:
    """Seconds of processor time per GiB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE if port is None else None)
    if process.stdout is not None:
        port = int(process.stdout.readline())
    assert port is not None
    with connect(port) as client:
        server, _ = target.accept()
        received = 0

        def drain() -> None:
            nonlocal received
            room = bytearray(PIECE)
            while n := server.recv_into(room):
                received += n
            server.close()

        reader = threading.Thread(target=drain)
        reader.start()
        block = bytes(PIECE)
        for _ in range(gib * 1024):
            client.sendall(block)
        client.shutdown(socket.SHUT_WR)
        reader.join()
        client.recv(1)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status != 0 or received != gib << 30:
        raise SystemExit(f"relay.py: {command[0]}: status {status}, {received} bytes")
    return (usage.ru_utime + usage.ru_stime) / gib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--gib", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = ["relay", "splice", "memory"] + (["socat"] if shutil.which("socat") else [])
    times: dict[str, list[float]] = {name: [] for name in names}
    with socket.create_server(("127.0.0.1", 0)) as target:
        to = target.getsockname()[1]
        for _ in range(options.rounds):
            for name in names:
                if name == "socat":
                    port = free_port()
                    command = ["socat", f"TCP-LISTEN:{port},reuseaddr,bind=127.0.0.1", f"TCP:127.0.0.1:{to}"]
                    times[name].append(measure(command, port, target, options.gib))
                else:
                    times[name].append(measure([options.program, name, str(to)], None, target, options.gib))
    reference = statistics.median(times["splice"])
    print("| proxy | processor time, s/GiB | beside splice by hand |")
    print("|---|---|---|")
    for name in names:
        median = statistics.median(times[name])
        print(f"| {name} | {median:.3f} ({min(times[name]):.3f} to {max(times[name]):.3f}) | {median / reference:.2f} |")


if __name__ == "__main__":
    main()
