#!/usr/bin/env bash
# The echo server with static sessions allocates nothing once its loop waits: a preloaded allocator aborts it
# on an allocation. Many clients come at a time, more than it has sessions, and leave in every way. The server
# that allocates its sessions is aborted by the same allocator, which shows that the check works.
source "$(dirname "$0")/lib.bash"
need "$python"
[[ $(getconf GNU_LIBC_VERSION 2>/dev/null) ]] || skip "the allocator is for glibc"
! grep -q __asan_init "$examples/echo_static" || skip "the sanitizer has an allocator of its own"

${CXX:-g++} -std=c++20 -O1 -Wall -Wextra -shared -fPIC tests/preload/no_allocations.cpp -o "$work/no_allocations.so"
# A build as for small systems, beside the normal one of the example.
${CXX:-g++} -std=c++20 -Os -fno-exceptions -fno-rtti -fno-threadsafe-statics -DANYIO_NET_NO_THREADS -Wall -Wextra \
  -I. examples/echo_static.cpp -o "$work/small_program"

preloaded() { start "$1" env LD_PRELOAD="$work/no_allocations.so" "$2" 0; }
forbids() { grep -q '^no_allocations: from here on' "$work/$1.err"; }

for server in "$examples/echo_static" "$work/small_program"; do
  name=output_of_${server##*/}
  preloaded "$name" "$server"
  pid=${servers[-1]}
  port=$(printed_port "$name")
  eventually forbids "$name"
  "$python" - "$port" "$pid" <<'PYTHON'
import os, select, socket, struct, sys

address, pid, sessions = ("127.0.0.1", int(sys.argv[1])), sys.argv[2], 8

def connect():
    return socket.create_connection(address, timeout=20)

def echoed(s, data):
    """Whether all of it comes back, while it is still being sent."""
    got, at = bytearray(), 0
    while len(got) < len(data):
        readable, writable, _ = select.select([s], [s] if at < len(data) else [], [], 20)
        assert readable or writable, "the server does not answer"
        if writable:
            at += s.send(data[at:at + 65536])
        if readable:
            piece = s.recv(65536)
            assert piece, "the server has closed"
            got += piece
    return bytes(got) == data

def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()

def half_close(s):
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""
    s.close()

def sockets_of_server():
    folder, count = f"/proc/{pid}/fd/", 0
    for fd in os.listdir(folder):
        try:
            count += os.readlink(folder + fd).startswith("socket:")
        except FileNotFoundError:
            pass  # it was closed meanwhile
    return count

endings = (socket.socket.close, reset, half_close)
pattern = bytes(i % 251 for i in range(300000))
served = 0
for turn in range(60):
    clients = [connect() for _ in range(5 * sessions)]
    for s in clients:
        s.sendall(b"hello")
    # Clients with a session are answered; the others wait until one is free.
    while clients:
        answered, _, _ = select.select(clients, [], [], 20)
        assert answered, "nobody is answered"
        if len(clients) > sessions:
            assert len(answered) <= sessions, f"{len(answered)} are answered at once"
            assert sockets_of_server() <= 1 + sessions, "more connections are accepted than there are sessions"
        for s in answered:
            assert s.recv(100) == b"hello"
            size = (0, 1, 3000, 300000)[served % 4]
            assert echoed(s, pattern[:size])
            endings[served % 3](s)
            clients.remove(s)
            served += 1
assert served == 60 * 5 * sessions
# A client that does not read for long: its echo waits, and arrives whole.
slow = connect()
slow.setblocking(False)
sent = 0
try:
    while True:
        sent += slow.send(bytes(65536))
except BlockingIOError:
    slow.setblocking(True)
slow.shutdown(socket.SHUT_WR)
while sent:
    piece = slow.recv(1 << 20)
    assert piece, "the echo is cut short"
    sent -= len(piece)
slow.close()
# All sessions are free again: this many clients are served side by side.
clients = [connect() for _ in range(sessions)]
for s in clients:
    assert echoed(s, b"all at once")
PYTHON
  ! grep 'were asked for' "$work/$name.err" || fail "${server##*/} allocates"
done

# The proof that the allocator works.
LD_PRELOAD="$work/no_allocations.so" "$examples/echo_callback" 0 >"$work/callback" 2>"$work/callback.said" &
allocates=$!
port=$(printed_port callback)
"$python" -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20).recv(1)' \
  "$port" 2>/dev/null || true
status=0
wait "$allocates" 2>/dev/null || status=$?
((status == 134)) || fail "a server that allocates ended with $status, and not by abort"
grep -q 'bytes were asked for' "$work/callback.said"
