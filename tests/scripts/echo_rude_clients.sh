#!/usr/bin/env bash
# Both echo servers with clients that reset the connection, never read, or come in great numbers: the servers
# continue to serve others.
source "$(dirname "$0")/lib.bash"
need "$python"

for face in coroutine callback; do
  start "$face" "$examples/echo_$face" 0
  "$python" - "$(printed_port "$face")" <<'PYTHON'
import socket, struct, sys

address = ("127.0.0.1", int(sys.argv[1]))

def connect():
    return socket.create_connection(address, timeout=10)

def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()

def echoed(s, data):
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = s.recv(65536)
        assert piece, "the server has closed"
        got += piece
    assert got == data

deaf = connect()
deaf.setblocking(False)
try:
    while True:
        deaf.send(bytes(65536))
except BlockingIOError:
    pass
for data in (b"", b"x", bytes(100000)):
    s = connect()
    s.send(data)
    reset(s)
many = [connect() for _ in range(300)]
for i, s in enumerate(many):
    echoed(s, b"client %d" % i)
for i, s in enumerate(many):
    reset(s) if i % 2 else s.close()
echoed(connect(), b"the last one")
reset(deaf)
echoed(connect(), b"after the deaf one")
PYTHON
done
