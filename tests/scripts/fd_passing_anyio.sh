#!/usr/bin/env bash
# Descriptors passed to AnyIO and received from it: the programs of its guide.
source "$(dirname "$0")/lib.bash"
need_anyio
printf 'what the file holds\n' >"$work/file"

start server "$examples/fd_server" "$work/ours" "$work/file"
eventually unix_listens "$work/ours"
"$python" tests/peers/anyio_peer.py fd_client "$work/ours" >"$work/answer"
expect "$work/answer" 'this message is ignored\nwhat the file holds\n'
"$examples/fd_client" "$work/ours" >"$work/answer"
expect "$work/answer" 'what the file holds\n'

# A server that sends only bytes.
"$python" - "$examples/fd_client" "$work/nothing" <<'PYTHON'
import socket, subprocess, sys

with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[2])
    listener.listen()
    client = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    listener.accept()[0].sendall(b"no descriptor")
    assert client.communicate(timeout=20) == (b"", b"the server sent no file that can be read\n")
    assert client.returncode == 1
PYTHON

start anyio "$python" tests/peers/anyio_peer.py fd_server "$work/theirs" "$work/file"
eventually unix_listens "$work/theirs"
"$examples/fd_client" "$work/theirs" >"$work/answer"
expect "$work/answer" 'what the file holds\n'
