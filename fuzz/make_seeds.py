#!/usr/bin/env python3
"""Writes the hand-made seed inputs in fuzz/corpus, one file for each case.

Inputs are programs of bytes; what they mean is said by the target's source. Files named regress-* are
kept as they were found, and not written here.
"""

from __future__ import annotations

import struct
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def write(target: str, name: str, *parts: bytes | list[int] | str) -> None:
    data = b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in parts)
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


# Kinds of faults, a bit each, as support/world.hpp reads them.
SHORT, BLOCK, INTERRUPT, RESET, DROP, DISORDER, EXHAUST, LATENCY = (1 << i for i in range(8))


def faulty(kinds: int, often: int, share: int) -> list[int]:
    """How an input begins: faults, and how much of its end decides them."""
    return [kinds, often, share] if kinds else [0, share]


def noise(size: int, seed: int = 7) -> bytes:
    """Choices that are neither all harmless nor all alike."""
    out = bytearray()
    for _ in range(size):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        out.append(seed >> 16 & 0xFF)
    return bytes(out)


def api_programs() -> dict[str, list[int]]:
    tcp4, tcp6, named, local = 0, 1, 2, 3
    listen4, listen6, listen_unix = [2, 0, 3], [2, 1, 3], [2, 2, 3, 1]
    accept4, accept6, accept_unix = [3], [4], [5]
    turn = [0, 0]
    some = [0, 40]
    long = [0, 255]
    return {
        "tcp-echo": listen4 + accept4 + [6, tcp4] + turn * 3 + [10, 0, 20, 12, 1, 0, 60] + some
        + [10, 1, 30, 12, 0, 1, 60] + some + [14, 0, 12, 1, 2, 9] + some,
        "tcp6-by-name-half-close": listen6 + listen4 + accept6 + accept4 + [6, named] + some
        + [10, 0, 200, 14, 0] + some + [12, 1, 0, 255] + turn + [12, 1, 0, 255] + turn + [12, 1, 0, 255] + some,
        "unix-send-cancelled-midway": listen_unix + accept_unix + [6, local] + some + [10, 0, 197] * 4 + turn
        + [20, 0, 0] + [12, 1, 2, 0] + turn + [10, 0, 5, 12, 1, 2, 0] + turn,
        "memory-window-of-3": [1, 3, 0, 10, 0, 50, 12, 1, 0, 10] + turn + [12, 1, 0, 10] + turn + [16, 0] + turn
        + [12, 1, 2, 0] + turn + [12, 1, 2, 0] + turn,
        "unix-pair-close-with-unread": [1, 9, 1, 10, 0, 80, 10, 1, 80] + turn + [16, 0, 12, 1, 2, 0] + turn
        + [12, 1, 2, 0] + turn,
        "busy-second-operation": [1, 9, 1, 12, 0, 0, 10] + turn + [12, 0, 0, 10] + turn + [19, 0, 0] + turn,
        "move-while-waiting": [1, 9, 0, 12, 0, 1, 10] + turn + [18, 0, 10, 1, 5] + turn,
        "aclose-peer-silent": listen4 + accept4 + [6, tcp4] + some + [15, 0, 10, 1, 90] + long + [15, 1] + long,
        "cancel-while-waiting": [1, 9, 1, 12, 0, 0, 10] + turn + [17, 0] + turn + [12, 0, 0, 10, 10, 1, 3] + turn,
        "listener-closed-with-backlog": listen4 + [6, tcp4] + some + [8, 1, 0] + some + [12, 0, 0, 9] + some,
        "connect-refused": [6, tcp4, 6, tcp6, 6, local] + some,
        "connect-withdrawn": listen4 + [6, tcp4, 7, 0] + accept4 + some + [12, 0, 0, 9] + some,
        "tasks-and-sleeps": [22, 100, 0, 2, 21, 1, 0, 9, 9, 0, 21, 1, 1, 1, 0, 1] + some
        + [23, 22, 9, 0, 1, 21, 0, 1] + some,
    }


def api() -> None:
    for name, program in api_programs().items():
        write("api_sequence", name, [0], faulty(0, 0, 0), program)
        if name in ("tcp-echo", "unix-send-cancelled-midway"):
            write("determinism", name, [0], faulty(0, 0, 0), program)
    echo = api_programs()["tcp-echo"]
    for name, kinds in {"short-io": SHORT, "would-block": BLOCK, "resets": RESET, "late-segments": DROP | LATENCY,
                        "out-of-descriptors": EXHAUST}.items():
        tail = noise(len(echo) * 3)
        write("api_sequence", "tcp-echo-" + name, [0], faulty(kinds, 2, 192), echo, tail)
        write("determinism", "tcp-echo-" + name, [0], faulty(kinds, 2, 192), echo, tail)
    write("api_sequence", "tcp-echo-darwin", [128 + 2], faulty(SHORT | BLOCK, 1, 192), echo, noise(len(echo) * 3))


def stream_pair() -> None:
    plan = [40, 5, 0, 30, 65, 100, 2, 200, 3, 60, 1, 9] + list(noise(80, 3))
    kinds = {"memory": 0, "unix-pair": 2, "unix": 3, "tcp4": 4, "tcp6": 5,
             "relay-from-memory": 96, "relay-from-unix-pair": 98, "relay-from-tcp4": 100,
             "tls-over-memory": 192, "tls-over-unix": 195, "tls-over-tcp4": 196}
    for name, kind in kinds.items():
        write("stream_pair", name, faulty(0, 0, 0), [kind, 60], plan)
        write("stream_pair", name + "-all-faults", faulty(SHORT | BLOCK | INTERRUPT | DROP | LATENCY, 2, 160),
              [kind, 60], plan, noise(len(plan) * 2))
    write("stream_pair", "tcp4-reset", faulty(RESET, 3, 160), [4, 0], plan, noise(len(plan) * 2))
    write("stream_pair", "relay-from-tcp4-reset", faulty(RESET, 3, 160), [100, 0], plan, noise(len(plan) * 2))
    write("stream_pair", "memory-window-of-1", faulty(0, 0, 0), [0, 1], plan)


def buffered() -> None:
    def one(name: str, text: str, program: list[int], first: list[int], second: list[int]) -> None:
        count = max(len(first), len(second))
        chunks = bytes((first + [0] * count)[:count] + (second + [0] * count)[:count])
        # Shares in 256ths of what is left, rounded up until they fit.
        body = len(text)
        total = body + len(program) + len(chunks) + 1
        share = next(s for s in range(256) if total * s // 256 == len(chunks))
        left = total - len(chunks) - 1
        inner = next(s for s in range(256) if left * s // 256 == len(program))
        write("buffered", name, [share, inner], text, program, chunks)

    one("lines-byte-by-byte", "one\r\ntwo\nthree\n\nlast", [0, 60] * 6, [1] * 20, [0])
    one("delimiter-across-chunks", "xxaabyyaab" * 3, [1, 60, 1] * 6, [4, 3, 3], [7, 2, 9])
    one("limit-met", "a" * 40 + "\n" + "b" * 10 + "\n", [0, 20, 2, 30, 0, 20, 0, 20], [5] * 9, [0])
    one("exact-then-incomplete", "0123456789", [2, 4, 3, 3, 2, 9, 3, 3], [2] * 5, [9])
    one("numbers-in-both-orders", "0123456789" * 4, [6, 0, 6, 1, 6, 2, 6, 3, 6, 8 + 2, 6, 8 + 7, 6, 4, 6, 3],
        [1] * 40, [7] * 9)
    one("number-then-incomplete", "abcdefg", [6, 2, 6, 3, 6, 1, 6, 0, 6, 0], [3] * 3, [2] * 5)
    one("given-up-numbers", "0123456789" * 3, [7, 3, 2, 7, 11, 30, 7, 2, 255, 0, 60], [3] * 10, [1] * 30)
    one("given-up-loses-nothing", "0123456789" * 3, [4, 2, 25, 5, 3, 2, 10], [3] * 9, [1] * 9)


def address() -> None:
    for text in ["127.0.0.1", "255.255.255.255:65535", "::", "::1", "[::1]:80", "fe80::1%3", "[fe80::1%3]:443",
                 "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "1::8", "01.2.3.4", "1.2.3", "[::1]", "1.2.3.4:", "1:2::3::4",
                 "::ffff:1.2.3.4%7"]:
        name = text.replace(":", "_").replace("%", "-scope-").replace("[", "").replace("]", "")
        write("address", ("in-brackets-" if "[" in text else "text-") + name, text)
    v4 = struct.pack("=H", 2) + struct.pack(">H4B", 80, 127, 0, 0, 1) + bytes(8)
    v6 = struct.pack("=H", 10) + struct.pack(">HI", 443, 0) + bytes(15) + b"\1" + struct.pack("=I", 4)
    mapped = struct.pack("=H", 10) + struct.pack(">HI", 443, 0) + bytes(10) + b"\xff\xff\1\2\3\4" + struct.pack("=I", 4)
    unix = struct.pack("=H", 1)
    for name, raw in {"v4": v4, "v6": v6, "v6-mapped-with-scope": mapped, "unix-unnamed": unix,
                      "unix-path": unix + b"/tmp/s\0", "unix-abstract": unix + b"\0name\0more",
                      "unix-full-unterminated": unix + b"p" * 108}.items():
        write("address", "raw-" + name, "r", [len(raw)], raw)
    write("address", "raw-unix-size-beyond", "r", [111], unix + b"p" * 108)
    write("address", "raw-v6-too-short", "r", [20], v6[:20])
    write("address", "raw-nothing", "r", [0])
    write("address", "path-107", "p", "q" * 107)
    write("address", "path-108-too-long", "p", "q" * 108)
    write("address", "path-abstract-with-nul", "p", b"\0a\0b")


def control() -> None:
    def header(length: int, level: int, kind: int) -> bytes:
        return struct.pack("=Qii", length, level, kind)

    write("control", "raw-two-descriptors", [1], [0, 8], struct.pack("=ii", 5, 6))
    write("control", "raw-length-too-great", [1], [2 | 64, 4], struct.pack("=i", 5), [200])
    write("control", "raw-length-too-small", [1], [1, 16], header(3, 1, 1))
    write("control", "raw-length-wraps", [1], [1, 16], header(2**64 - 1, 1, 1), [1, 16], header(20, 1, 1))
    write("control", "raw-other-kind-first", [1], [8, 4], struct.pack("=i", 7), [99], [0, 4], struct.pack("=i", 8))
    send = [0, 30, 0, 2, 10, 10]  # 30 bytes, two new descriptors
    take = [3, 60, 0]  # up to 60 bytes, all descriptors
    start = [0] + faulty(0, 0, 0)
    write("control", "two-and-back", start, send, take, send, send, take, take)
    write("control", "too-many-taken", start, send, [3, 60, 1, 0])
    write("control", "plain-receive-closes", start, send, [7, 60])
    write("control", "closed-on-their-way", start, send, [10, 1])
    write("control", "receiver-closed", start, send, [10, 0], take)
    write("control", "itself-through-itself", start, [0, 30, 0, 2, 1, 2], [10, 1, 10, 0])
    write("control", "itself-and-taken", start, [0, 30, 0, 2, 1, 2], take, [10, 1, 10, 0, 9])
    write("control", "bytes-merge", start, [6, 20], send, [6, 20], send, take, take, take)
    write("control", "253-and-254", start, [0, 30, 1, 253], [10] * 253, take, [0, 30, 1, 254], [10] * 254)
    write("control", "given-up", start, [11, 5, 1], send, take)
    write("control", "short-io", [0], faulty(SHORT | BLOCK, 2, 128), send, take, send, take, take, noise(30))


def take_fds() -> None:
    def start(kinds: int = 0, often: int = 0, share: int = 0, most: int = 60) -> list[int]:
        return faulty(kinds, often, share) + [most - 1]

    bytes_, one, three, take = [0, 19, 0], [1, 0, 9, 0], [1, 2, 9, 0], [9]
    exactly, into, receive, line, number, view = (lambda n: [3, 3, n]), (lambda n: [4, 3, n]), \
        (lambda n: [5, 3, n - 1]), [6, 3, 255], [7, 3], [8, 3]
    every = one + exactly(10) + take + one + into(10) + take + one + receive(10) + take + one + view + take + one \
        + number + take + exactly(6) + take
    write("take_fds", "every-kind-of-read", start(), every)
    write("take_fds", "bytes-between", start(), bytes_, one, bytes_, three, exactly(20), take, exactly(10), take,
          exactly(20), take, exactly(10), take)
    write("take_fds", "line-by-line", start(), [0, 19, 1], [1, 0, 9, 1], [0, 19, 1], [1, 0, 9, 1], (line + take) * 4)
    write("take_fds", "in-the-middle-of-a-message", start(), three, exactly(3), take, bytes_, exactly(4), take, number)
    write("take_fds", "taken-late", start(), one, one, three, exactly(30), take)
    write("take_fds", "read-ahead", start(), [0, 2, 0], one, receive(1), take, receive(2), take, receive(9), take)
    write("take_fds", "given-up", start(), one, [3, 0, 30], take, one, [3, 1, 30], take, exactly(20), take)
    write("take_fds", "too-many", start(most=3), three, exactly(10), one, exactly(10), take)
    write("take_fds", "253-at-once", start(most=256), [2, 253, 9, 0], exactly(10), take)
    write("take_fds", "large-messages", start(), [1, 1, 131, 0] * 3, exactly(133), take, [3, 3, 132] * 2, take)
    write("take_fds", "closed-before-they-are-taken", start(), one, [10], exactly(10), take)
    tail = noise(200)
    write("take_fds", "all-faults", start(SHORT | BLOCK | INTERRUPT, 2, 160), every, [0, 19, 1], every, tail)
    write("take_fds", "resets", start(RESET | SHORT, 3, 160), every, every, tail)


def send_queue() -> None:
    memory, unix, tcp = 0, 1, 2
    add, wait, flush, pause = (lambda n: [0, n]), (lambda n, limit=0: [2, n, limit]), [4, 255], (lambda n: [5, n])
    slow, fast, toggle, second, close = [6, 250], [6, 0], [7], [8], [9, 0]
    program = add(30) + wait(40) + wait(50, 9) + add(10) + pause(1) + flush + wait(0) + add(0) + pause(9)
    for name, kind in {"memory": [memory, 100], "unix": [unix], "tcp": [tcp]}.items():
        start = faulty(0, 0, 0) + kind
        write("send_queue", name, start, [100], program)
        write("send_queue", name + "-one-at-a-time", start, [0], program)
        write("send_queue", name + "-all-faults", faulty(SHORT | BLOCK | INTERRUPT | LATENCY, 2, 160), kind, [200],
              program * 3, noise(240))
    write("send_queue", "run-is-continued", faulty(0, 0, 0), [memory, 7, 60], slow, program, toggle, pause(9), add(5),
          toggle, pause(9), toggle, toggle, second, fast, program)
    write("send_queue", "sends-given-up", faulty(0, 0, 0), [memory, 7, 60], slow, wait(50, 1), wait(50, 3), wait(9, 5),
          wait(60), pause(50), fast, program)
    write("send_queue", "closed", faulty(0, 0, 0), [unix, 60], slow, program, close, program, toggle, program)
    write("send_queue", "reset", faulty(RESET, 3, 160), [tcp, 200], program * 3, noise(160))
    write("send_queue", "large-messages", faulty(0, 0, 0), [tcp, 200], slow, (add(131) + wait(131)) * 8, flush,
          pause(200))
    # After 80 calls one flag: the queue ends before its operations.
    write("send_queue", "outlived", faulty(0, 0, 0), [memory, 7, 60], slow, program, pause(1) * (80 - 10), [1])


def datagram() -> None:
    udp, connected, local = 0, 1, 2
    to, take, drain = [0, 30], [1, 1], [2]
    write("datagram", "udp-in-order", faulty(0, 0, 0), [udp, 0], to, [0, 0], to, take, take, take, drain)
    write("datagram", "udp6-truncated", faulty(0, 0, 0), [udp, 1], to, [1, 16 | 1, 4], to, [1, 16 | 1, 29])
    write("datagram", "udp-batch", faulty(0, 0, 0), [udp, 0], [3, 9, 4, 20, 0, 30, 40, 200, 9], drain)
    write("datagram", "udp-too-large", faulty(0, 0, 0), [udp, 0], [0, 145], drain)
    write("datagram", "udp-empty-ones", faulty(0, 0, 0), [udp, 0], [0, 0] * 4, drain)
    for name, kinds in {"lost": DROP, "doubled-and-late": DISORDER, "all": DROP | DISORDER | BLOCK | LATENCY}.items():
        program = (to + take) * 6
        write("datagram", "udp-" + name, faulty(kinds, 2, 150), [udp, 0], program, noise(40))
    write("datagram", "icmp-refusal", faulty(0, 0, 0), [connected], [0, 5, 2, 0, 5, 0, 5, 3, 0, 5, 1, 1, 4, 0, 5, 2])
    write("datagram", "unix-full-queue", faulty(0, 0, 0), [local], [1, 9] * 14, [0] * 5, [1, 9] * 3)


def timers() -> None:
    arm = [0, 5, 30]  # after 30 ns
    write("timers", "heap-equal-deadlines", [0], *[[i] + arm for i in range(8)], [0, 3, 40])
    write("timers", "heap-reversed-and-cancelled", [0], *[[i, 0, 5, 60 - i] for i in range(12)],
          *[[i, 2] for i in range(0, 12, 3)], [0, 3, 55, 0, 3, 100])
    write("timers", "heap-ends-of-time", [0], [0, 0, 15, 0], [1, 0, 14, 0], [2, 0, 5, 9], [0, 4])
    for shape, name in enumerate(["nanoseconds", "negative", "longest", "shortest", "hours-max", "minus-infinity",
                                  "infinity", "unsigned-years", "before-time", "end-of-time", "float", "deadline"]):
        write("timers", "sleep-" + name, [1], [0, 0], bytes([7, 1, 2, 3, 0, 0, 0, 0]), [shape], [0, 3, 0, 0, 0, 1])
    write("timers", "sleep-cancelled", [1], [0, 0], struct.pack("<Q", 900), [0], [0, 2], [0, 3, 255, 255, 0, 0])


def happy_eyeballs() -> None:
    v6, v4 = 0, 1
    answers, refuses, silent, fails = (f << 1 for f in range(4))

    def race(name: str, places: list[tuple[int, int]], delay: int = 240, cancel: list[int] | None = None) -> None:
        flat = [b for place in places for b in place]
        write("happy_eyeballs", name, [0, len(places) - 1], flat, [delay], [1] + cancel if cancel else [0])

    race("one-answers", [(v4 | answers, 5)])
    race("second-family-overtakes", [(v6 | silent, 0), (v4 | answers, 9)])
    race("refused-starts-next-at-once", [(v6 | refuses, 9), (v6 | refuses, 3), (v4 | answers, 9)])
    race("all-refuse-slowest-first", [(v6 | refuses, 250), (v4 | refuses, 1), (v6 | refuses, 2)])
    race("fails-at-once", [(v6 | fails, 0), (v4 | fails, 0), (v6 | answers, 1)])
    race("all-fail-at-once", [(v6 | fails, 0), (v4 | fails, 0)])
    race("interleaved-of-seven", [(v6 | silent, 0), (v6 | silent, 0), (v6 | silent, 0), (v4 | silent, 0),
                                  (v4 | silent, 0), (v4 | silent, 0), (v6 | answers, 1)], 5)
    race("both-answer", [(v6 | answers, 130), (v4 | answers, 1)], 100)
    race("cancelled-in-the-middle", [(v6 | silent, 0), (v4 | answers, 200)], 100, [200, 1])


def listener() -> None:
    client, leaver, trouble, heal, wait, long = [0], [1], lambda b: [2, b], [3], lambda t: [4, t], [5]
    for name, unix in {"tcp": 0, "unix": 1}.items():
        write("listener", name + "-serve", [0, unix, 3, 1, 0], client, client, wait(9), leaver, wait(9))
        write("listener", name + "-accept", [0, unix, 3, 0], client, client, wait(9), leaver, wait(9))
        write("listener", name + "-exhausted-for-long", [0, unix, 3, 0], client, long, client, long)
        write("listener", name + "-serve-one-at-a-time", [0, unix, 0, 1, 1], client * 5, wait(99))
        program = client * 3 + trouble(1 | 4 | 8) + wait(200) + client * 3 + heal + wait(50)
        write("listener", name + "-all-kinds", [150, unix, 1, 0], program, noise(30))


def protocol() -> None:
    # Choices for sim::fuzz: kinds of faults, then what the run draws.
    write("protocol_fixed", "no-faults", [0, 5, 1, 0, 9, 0, 0, 1, 0, 7])
    write("protocol_fixed", "lines-in-pieces", [1, 2], noise(60))
    write("protocol_fixed", "all-faults", [255, 2, 1, 0, 0, 1, 0, 1, 5], noise(120))
    write("protocol_bug", "no-faults", [0, 5, 1, 0, 9, 0, 0, 1, 0, 7])


def http() -> None:
    get, host, end = "GET / HTTP/1.1\r\n", "Host: x\r\n", "\r\n"
    post, zero, chunked = "POST / HTTP/1.1\r\n" + host, "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n"
    for name, text in {
        "two-requests": (get + host + end) * 2,
        "body-between": post + "Content-Length: 3\r\n\r\nabc" + get + host + end,
        "old-kept": "GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n" + get + host + end,
        "closes": get + host + "Connection: x\r\nConnection: Close\r\n\r\n" + get + host + end,
        "whole-address": "GET HTTP://[::1]:80?query HTTP/1.1\r\n" + host + end,
        "asterisk": "OPTIONS * HTTP/1.1\r\n" + host + end,
        "connect": "CONNECT x:80 HTTP/1.1\r\n" + host + end,
        "empty-line-first": "\r\n" + get + host + end,
        "two-lengths": post + zero + zero + end,
        "length-and-chunks": post + zero + chunked + end,
        "chunks": post + chunked + end,
        "chunks-not-last": post + "Transfer-Encoding: chunked, gzip\r\n\r\n",
        "blank-before-colon": post + "Content-Length : 0\r\n\r\n",
        "line-goes-on": post + "X: y\r\n\tz\r\n\r\n",
        "two-hosts": get + host + host + end,
        "lone-cr": get + host + "X: a\rContent-Length: 1\r\n\r\n",
        "lone-lf": get + host + "X: a\nContent-Length: 1\r\n\r\n",
        "nul": get + host + "X: a\0b\r\n\r\n",
        "version-2": "GET / HTTP/2.0\r\n" + host + end,
        "answer": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX:\r\n y",
        "answer-no-reason": "HTTP/1.0 404",
        "chunk": "1aF;name=value",
    }.items():
        write("http_head", name, [0], text)
    write("http_head", "in-pieces", [128], (get + host + end) * 2, [1, 2], noise(60))
    for name, text in {
        "plain": "one line", "lines": "a\tb\r\nc\n", "escape": "\x1b]0;x\x07", "controls-of-8-bits": "a\u009b\u009d",
        "characters": "\u00e9\u20ac\U0001f600", "turned": "\u202eabc\u2066", "surrogate": b"\xed\xa0\x80",
        "too-long": b"\xc0\x9b\xe0\x82\x9b\xf0\x80\x82\x9b", "beyond": b"\xf4\x90\x80\x80\xff\x9b", "cut-off": b"a\xe2\x82",
    }.items():
        write("printable", name, [0], text)


def tls() -> None:
    write("tls_client", "nothing", [0])
    write("tls_client", "fatal-alert", [0], bytes.fromhex("15030300020228"))
    write("tls_client", "alert-in-pieces", [1], bytes.fromhex("15030300020100"))
    write("tls_client", "plain-http-answer", [0], "HTTP/1.1 400 Bad Request\r\n\r\n")
    write("tls_client", "server-hello-done-first", [0], bytes.fromhex("16030300040e000000"))
    write("tls_server", "nothing", [0])
    write("tls_server", "plain-http-request", [0], "GET / HTTP/1.1\r\n\r\n")
    write("tls_server", "close-notify-first", [0], bytes.fromhex("15030300020100"))
    write("tls_server", "record-too-long", [0], bytes.fromhex("160303ffff"))
    write("tls_server", "application-data-first", [0], bytes.fromhex("170303000101"))
    deliver, both, close = lambda side: [side, 0, 40], [0, 2], lambda side: [side, 5]
    write("tls_pair", "untouched", both, [0, 3, 100, 1, 3, 200], both, close(0))
    write("tls_pair", "byte-by-byte-handshake", [0, 0, 0, 1, 0, 0] * 20)
    write("tls_pair", "handshake-changed", [0, 0, 1], [1, 6, 60, 0, 3], both)
    write("tls_pair", "record-changed", both, [0, 3, 100], [1, 6, 40, 0, 1], deliver(1), both)
    write("tls_pair", "cut-off-behind-a-record", both, [0, 3, 100], both, [1, 7])
    write("tls_pair", "cut-off-inside-a-record", both, [0, 3, 100], [1, 0, 9], [1, 7])
    write("tls_pair", "cut-off-in-the-handshake", [0, 0, 1], [1, 7])
    write("tls_pair", "closed-by-both", both, close(0), close(1), both)
    write("tls_pair", "large-records", both, [0, 3, 188, 1, 3, 188], both)


def sim_system() -> None:
    # A call is four bytes: what, the slot (and 6 times the number of a size), and two more.
    # Kinds: 0 TCP, 2 UDP, 4 UNIX stream, 5 UNIX datagram.
    open_, bind, listen, connect, accept = (lambda a, kind: [0, a, kind, 0]), (lambda a: [4, a, 0, 0]), \
        (lambda a: [6, a, 0, 1]), (lambda a: [7, a, 0, 0]), (lambda a, into: [9, a, into, 0])
    send, receive, shut, close = (lambda a: [11, a + 6, 0, 0]), (lambda a: [14, a + 12, 0, 0]), \
        (lambda a, how: [17, a, 0, how]), (lambda a: [18, a, 0, 0])
    for name, kind in (("tcp", 0), ("unix-stream", 4)):
        serve = open_(0, kind) + bind(0) + listen(0) + open_(1, kind) + connect(1) + accept(0, 2)
        write("sim_system", name + "-both-ways", serve, send(1), receive(2), send(2), receive(1), close(1), receive(2))
        write("sim_system", name + "-half-close", serve, shut(1, 1), receive(2), send(2), receive(1))
        write("sim_system", name + "-closed-with-unread-data", serve, send(1), close(2), receive(1), send(1), send(1))
        write("sim_system", name + "-nobody-listens", open_(0, kind), connect(0), send(0), receive(0))
    write("sim_system", "udp-refused", open_(0, 2), connect(0), send(0), receive(0), send(0))
    write("sim_system", "udp-to-itself", open_(0, 2), bind(0), connect(0), send(0), receive(0))
    write("sim_system", "unix-datagram-queue-full", open_(0, 5), bind(0), open_(1, 5), connect(1), send(1) * 13, receive(0),
          send(1))
    write("sim_system", "pair-closed", [3, 0, 1, 0], send(0), close(1), receive(0), send(0))


if __name__ == "__main__":
    for make in (api, stream_pair, buffered, address, control, take_fds, send_queue, datagram, timers, happy_eyeballs,
                 listener, protocol, http, tls, sim_system):
        make()
