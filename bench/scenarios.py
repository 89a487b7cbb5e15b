"""What is measured: which servers, in which scenarios."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Server:
    """A program of build/bench as it takes part in a scenario."""

    label: str
    program: str
    mode: str
    form: str = ""

    @property
    def by_hand(self) -> bool:
        return self.label.startswith("epoll")


@dataclass(frozen=True)
class Scenario:
    name: str
    group: str
    title: str
    servers: list[Server]
    kind: str
    load: list[str]  # the scenario of the load, and its options
    operation: str = "message"
    counted: int = 0  # operations for counting system calls, allocations and instructions; 0: not counted
    threads: int = 1
    options: list[str] = field(default_factory=list)


PROGRAMS = {
    "anyio callback": "anyio_callback",
    "anyio coroutine": "anyio_coroutine",
    "Asio callback": "asio_callback",
    "Asio coroutine": "asio_coroutine",
    "libuv": "libuv",
    "libevent": "libevent",
}


def epoll(mode: str, program: str = "epoll") -> list[Server]:
    return [Server("epoll edge", program, mode, "edge"), Server("epoll level", program, mode, "level")]


def everybody(mode: str, *but: str) -> list[Server]:
    return epoll(mode) + [Server(label, p, mode) for label, p in PROGRAMS.items() if label not in but]


def anyio_batch(mode: str) -> list[Server]:
    return [Server(f"{label} batch", PROGRAMS[label], mode) for label in ("anyio callback", "anyio coroutine")]


def tls(mode: str) -> list[Server]:
    return epoll(mode, "epoll_tls") + [
        Server("anyio callback, OpenSSL", "anyio_callback_openssl", mode),
        Server("anyio coroutine, OpenSSL", "anyio_coroutine_openssl", mode),
        Server("anyio callback, mbedTLS", "anyio_callback_mbedtls", mode),
        Server("anyio coroutine, mbedTLS", "anyio_coroutine_mbedtls", mode),
        Server("Asio callback", "asio_callback_tls", mode),
        Server("Asio coroutine", "asio_coroutine_tls", mode),
        Server("libevent", "libevent_tls", mode),
    ]


def udp_echo_batch() -> list[Server]:
    return [
        Server("epoll recvmmsg", "epoll", "echo-batch"),
        *anyio_batch("echo-batch"),
        Server("libuv recvmmsg", "libuv", "echo-batch"),
    ]


def udp_sink() -> list[Server]:
    return [
        *everybody("sink"),
        Server("epoll recvmmsg", "epoll", "sink-batch"),
        Server("epoll GRO", "epoll", "sink-gro"),
        *anyio_batch("sink-batch"),
        Server("libuv recvmmsg", "libuv", "sink-batch"),
    ]


def size_name(size: int) -> str:
    return f"{size} B" if size < 1024 else f"{size // 1024} KiB"


def echo(kind: str, connections: int, size: int, counted: int = 0) -> Scenario:
    name = f"echo-{kind}-{connections}" + ("" if size == 64 else f"-{size // 1024}k")
    plural = "connection" if connections == 1 else "connections"
    return Scenario(
        name,
        f"Echo over {kind.upper()}",
        f"{connections} {plural}, {size_name(size)}",
        everybody("echo"),
        kind,
        ["echo", "--connections", str(connections), "--size", str(size)],
        counted=counted,
    )


def bulk(kind: str) -> Scenario:
    return Scenario(
        f"bulk-{kind}",
        "One way",
        f"{kind.upper()}, one connection",
        everybody("sink"),
        kind,
        ["bulk", "--size", "65536"],
        operation="MiB",
        counted=60,
    )


def accept(kind: str) -> Scenario:
    return Scenario(
        f"accept-{kind}",
        "Accept, read the end, close",
        f"{kind.upper()}, 16 at a time",
        everybody("echo"),
        kind,
        ["accept", "--connections", "16"],
        operation="connection",
        counted=500,
    )


def flood(name: str, title: str, *options: str) -> Scenario:
    return Scenario(
        name, "UDP one way", title, udp_sink(), "udp", ["flood", "--size", "1024", *options], operation="datagram"
    )


THREADS = max(2, (os.cpu_count() or 1) // 2)

SCENARIOS = [
    echo("tcp", 1, 64, 1000),
    echo("tcp", 64, 64, 3000),
    echo("tcp", 1000, 64),
    echo("tcp", 1, 16384),
    echo("tcp", 64, 16384, 1000),
    echo("tcp", 1000, 16384),
    echo("unix", 1, 64, 1000),
    echo("unix", 64, 64, 3000),
    echo("unix", 1000, 64),
    echo("unix", 64, 16384),
    bulk("tcp"),
    bulk("unix"),
    accept("tcp"),
    accept("unix"),
    Scenario(
        "udp-echo",
        "Echo over UDP and UNIX datagrams",
        "UDP, 64 peers, 64 B, one datagram a call",
        everybody("echo"),
        "udp",
        ["echo"],
        counted=2000,
    ),
    Scenario(
        "udp-echo-batch",
        "Echo over UDP and UNIX datagrams",
        "UDP, 64 peers, 64 B, many datagrams a call",
        udp_echo_batch(),
        "udp",
        ["echo"],
        counted=2000,
    ),
    Scenario(
        "unixgram-echo",
        "Echo over UDP and UNIX datagrams",
        "UNIX, 64 peers, 64 B",
        everybody("echo", "libuv"),
        "unixgram",
        ["echo"],
        counted=2000,
    ),
    flood("udp-flood", "1 KiB datagrams, one a call"),
    flood("udp-flood-segmented", "1 KiB datagrams, 63 a call by UDP_SEGMENT", "--segment"),
    Scenario(
        "tls-echo",
        "TLS",
        "echo, 64 connections, 64 B",
        tls("echo"),
        "tls",
        ["echo"],
        counted=1000,
    ),
    Scenario(
        "tls-bulk",
        "TLS",
        "one way, one connection",
        tls("sink"),
        "tls",
        ["bulk", "--size", "65536"],
        operation="MiB",
    ),
    Scenario(
        "echo-tcp-threads",
        "Many cores",
        f"echo over TCP, 256 connections, 64 B, {THREADS} loops, one a thread",
        everybody("echo"),
        "tcp",
        ["echo", "--connections", "256"],
        threads=THREADS,
    ),
]

QUICK = ["echo-tcp-64", "echo-unix-64", "bulk-tcp", "accept-tcp", "udp-echo", "udp-flood-segmented", "tls-echo"]

IDLE = [
    *everybody("echo"),
    Server("anyio callback, clang", "anyio_callback_clang", "echo"),
    Server("anyio coroutine, clang", "anyio_coroutine_clang", "echo"),
]
