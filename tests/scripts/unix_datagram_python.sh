#!/usr/bin/env bash
# The UNIX datagram examples, with Python's own sockets at the other end. A sender without a path, one that
# leaves at once and an empty datagram do not disturb the service.
source "$(dirname "$0")/lib.bash"
need "$python"

start server "$examples/unix_datagram_hello" "$work/ours"
eventually unix_is_bound "$work/ours"
"$python" - "$work" <<'PYTHON'
import socket, sys

ours, here = sys.argv[1] + "/ours", sys.argv[1] + "/here"

def bound(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.bind(path)
    return s

unnamed = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
unnamed.sendto(b"nobody", ours)
with bound("\0anyio_net-" + here) as abstract:
    abstract.sendto(b"abstract", ours)
    assert abstract.recvfrom(100) == (b"Hello, abstract", ours)
with bound(sys.argv[1] + "/gone") as gone:
    gone.sendto(b"gone", ours)
with bound(here) as client:
    for name in (b"", b"Python", bytes(60000), b"\xff\0"):
        client.sendto(name, ours)
        answer, sender = client.recvfrom(70000)
        assert (answer, sender) == (b"Hello, " + name, ours), (answer[:100], sender)
PYTHON

"$python" - "$work/log" >"$work/heard" <<'PYTHON' &
import socket, sys

log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.settimeout(20)
log.bind(sys.argv[1])
print(log.recvfrom(100))
PYTHON
eventually unix_is_bound "$work/log"
"$examples/unix_datagram_client" "$work/log"
wait $!
expect "$work/heard" "(b'Hi there!\\\\n', None)\n"
