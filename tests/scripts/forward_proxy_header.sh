#!/usr/bin/env bash
# The PROXY protocol of the forwarder, in Python: the headers that it sends, byte by byte, those that it accepts, and
# those that it refuses.
source "$(dirname "$0")/lib.bash"
need "$python"

for wrong in '--send-proxy 1 host:1' '--send-proxy v3 1 host:1' '--accept-proxy 1' '--what 1 host:1' '--send-proxy v1'; do
  status=0
  # shellcheck disable=SC2086
  "$examples/forward" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done

"$python" - "$examples/forward" "$work/errors" <<'PYTHON'
import socket, struct, subprocess, sys

target = socket.create_server(("127.0.0.1", 0))
target.settimeout(20)
signature = b"\r\n\r\n\0\r\nQUIT\n"
errors = open(sys.argv[2], "w+")
running = []

def started(*options, host="127.0.0.1"):
    """Starts the forwarder; gives where it listens."""
    p = subprocess.Popen([sys.argv[1], *options, f"[{host}]:0", "127.0.0.1:%d" % target.getsockname()[1]],
                         stdout=subprocess.PIPE, stderr=errors, text=True)
    running.append(p)
    return host, int(p.stdout.readline().rsplit(":", 1)[1])

def forwarded(to, *pieces):
    """What the target gets of a client that sends these pieces, and the client's two addresses."""
    with socket.create_connection(to, timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        addresses = client.getsockname(), client.getpeername()
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        server, _ = target.accept()
        with server:
            server.settimeout(20)
            got = b""
            while piece := server.recv(65536):
                got += piece
            server.sendall(b"bye")
        assert client.recv(10) == b"bye"
        return got, *addresses

def refused(to, header):
    """The forwarder closes a connection with this header, and makes none to the target."""
    with socket.create_connection(to, timeout=20) as client:
        client.sendall(header)
        client.shutdown(socket.SHUT_WR)
        try:
            assert client.recv(1) == b"", header
        except ConnectionResetError:
            pass
    target.settimeout(0)
    try:
        target.accept()
        raise AssertionError(f"{header} was accepted")
    except BlockingIOError:
        target.settimeout(20)

def v2(command, family, block):
    return signature + bytes([command, family]) + struct.pack(">H", len(block)) + block

# What it sends.
to = started("--send-proxy", "v1")
got, source, destination = forwarded(to, b"hello")
assert got == b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\nhello" % (source[1], destination[1]), got
to = started("--send-proxy", "v2")
got, source, destination = forwarded(to, b"hello")
local = socket.inet_aton("127.0.0.1")
assert got == v2(0x21, 0x11, local + local + struct.pack(">HH", source[1], destination[1])) + b"hello", got
if socket.has_ipv6:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        print("no IPv6")
    else:
        to = started("--send-proxy", "v1", host="::1")
        got, source, destination = forwarded(to, b"hello")
        assert got == b"PROXY TCP6 ::1 ::1 %d %d\r\nhello" % (source[1], destination[1]), got
        to = started("--send-proxy", "v2", host="::1")
        got, source, destination = forwarded(to, b"hello")
        local = socket.inet_pton(socket.AF_INET6, "::1")
        assert got == v2(0x21, 0x21, local + local + struct.pack(">HH", source[1], destination[1])) + b"hello", got

# What it accepts: each version translated into the other, in one piece and byte by byte, with bytes behind it.
four = b"PROXY TCP4 192.0.2.1 198.51.100.7 4660 80\r\n"
six = b"PROXY TCP6 2001:db8::1 2001:db8::ff 65535 1\r\n"
four2 = v2(0x21, 0x11, bytes([192, 0, 2, 1, 198, 51, 100, 7, 0x12, 0x34, 0, 80]))
six2 = v2(0x21, 0x21, socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "2001:db8::ff")
          + struct.pack(">HH", 65535, 1))
extended = v2(0x21, 0x11, four2[16:] + b"\x04\x00\x03abc" + b"\x20\x00\x00")
unknown = b"PROXY UNKNOWN\r\n"
local = v2(0x20, 0x00, b"")
into_v1 = started("--accept-proxy", "--send-proxy", "v1")
into_v2 = started("--accept-proxy", "--send-proxy", "v2")
dropping = started("--accept-proxy")
longest = b"PROXY TCP6 " + b" ".join([b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2) + b" 65535 65535\r\n"
assert len(longest) == 104
for header, as_v1, as_v2 in [
    (four, four, four2), (four2, four, four2), (extended, four, four2), (six, six, six2), (six2, six, six2),
    (unknown, unknown, local), (local, unknown, local), (b"PROXY UNKNOWN ff ff what\r\n", unknown, local),
    (v2(0x20, 0x11, four2[16:]), unknown, local),               # LOCAL: the addresses mean nothing
    (v2(0x21, 0x31, bytes(216)), unknown, local),               # UNIX
    (v2(0x21, 0x00, bytes(65535)), unknown, local),
    (longest, longest, None),
]:
    for pieces in ([header + b"hello"], [bytes([b]) for b in header[:120]] + [header[120:], b"hello"]):
        assert forwarded(into_v1, *pieces)[0] == as_v1 + b"hello", header[:120]
        if as_v2:
            assert forwarded(into_v2, *pieces)[0] == as_v2 + b"hello", header[:120]
        assert forwarded(dropping, *pieces)[0] == b"hello", header[:120]

# What it refuses.
for header in [
    b"GET / HTTP/1.1\r\n\r\n", b"PROXY", b"PROXY TCP4 192.0.2.1 198.51.100.7 4660 80", b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::ff 1 1\r\n", b"PROXY TCP6 192.0.2.1 198.51.100.7 1 1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 80\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 80 \r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n", b"PROXY TCP4  192.0.2.1 198.51.100.7 1 80\r\n", b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP6 fe80::1%lo fe80::1%lo 1 1\r\n", b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n", b"PROXY " + b"x" * 100000,
    signature, v2(0x21, 0x11, bytes(11)), v2(0x21, 0x21, bytes(35)), v2(0x22, 0x11, four2[16:]), v2(0x11, 0x11, four2[16:]),
    four2[:-1], signature[:-1] + b"\r" + four2[12:],
]:
    refused(into_v1, header)
assert forwarded(into_v1, four)[0] == four, "it does not go on"
errors.seek(0)
assert "forward: PROXY protocol: no header" in errors.read()
for p in running:
    assert p.poll() is None, "it has ended"
    p.kill()
    p.wait()
PYTHON
