#!/usr/bin/env bash
# Sockets created by a supervisor and passed by LISTEN_FDS: TCP, UNIX, UDP and UNIX datagrams are all served,
# also connections made before the server began; and an unsupported descriptor is reported.
source "$(dirname "$0")/lib.bash"
need "$python"

status=0
"$examples/socket_activation" >/dev/null 2>"$work/none.err" || status=$?
((status == 2)) && grep -q 'no sockets were passed' "$work/none.err" || fail "no sockets: exit code $status"
status=0 # descriptors meant for another process are ignored
LISTEN_PID=1 LISTEN_FDS=1 "$examples/socket_activation" 2>/dev/null || status=$?
((status == 2)) || fail "another's sockets: exit code $status"

"$python" - "$examples/socket_activation" "$work" <<'PYTHON'
import os, socket, subprocess, sys

program, folder = sys.argv[1:]

def listening(family, kind, address):
    s = socket.socket(family, kind)
    s.bind(address)
    if kind == socket.SOCK_STREAM:
        s.listen()
    return s

stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
sockets = [
    listening(socket.AF_INET, stream, ("127.0.0.1", 0)),
    listening(socket.AF_UNIX, stream, folder + "/stream"),
    listening(socket.AF_INET, datagram, ("127.0.0.1", 0)),
    listening(socket.AF_UNIX, datagram, folder + "/datagram"),
]
early = socket.create_connection(sockets[0].getsockname(), timeout=20)
early.sendall(b"early")

child = os.fork()
if child == 0:
    passed = [s.fileno() for s in sockets] + [os.open("/dev/null", os.O_RDONLY)]
    above = [os.dup2(fd, 100 + n) for n, fd in enumerate(passed)]
    for n, fd in enumerate(above):
        os.dup2(fd, 3 + n, inheritable=True)
        os.close(fd)
    os.dup2(os.open(folder + "/complaints", os.O_WRONLY | os.O_CREAT), 2)
    os.execve(program, [program], {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(passed))})

def exchange(s, data):
    s.settimeout(20)
    s.send(data)
    assert s.recv(100) == data

assert early.recv(100) == b"early"
exchange(socket.create_connection(sockets[0].getsockname()), b"tcp")
local = socket.socket(socket.AF_UNIX, stream)
local.connect(folder + "/stream")
exchange(local, b"unix")
udp = socket.socket(socket.AF_INET, datagram)
udp.connect(sockets[2].getsockname())
exchange(udp, b"udp")
nameless = socket.socket(socket.AF_UNIX, datagram)  # has no address for an answer, and must not end the server
nameless.sendto(b"nobody", folder + "/datagram")
named = listening(socket.AF_UNIX, datagram, folder + "/client")
named.connect(folder + "/datagram")
exchange(named, b"unix datagram")
os.kill(child, 15)
os.waitpid(child, 0)
assert "descriptor 7 is not a supported socket" in open(folder + "/complaints").read()
PYTHON
