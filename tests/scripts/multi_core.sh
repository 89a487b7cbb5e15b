#!/usr/bin/env bash
# Several threads, each with a loop, share one port: every connection is served by one of them, and all of them serve.
source "$(dirname "$0")/lib.bash"
need "$python"

start server "$examples/multi_core" 0 3
eventually grep -q '^port' "$work/server"
read -r _ port _ <"$work/server"
"$python" - "${port%,}" <<'PYTHON'
import socket, sys

# The probability that one of three threads gets none of 200 connections is 10^-35.
sockets = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) for _ in range(200)]
files = [s.makefile("rw", newline="\n") for s in sockets]
threads = {f.readline() for f in files}
assert threads == {"thread 0\n", "thread 1\n", "thread 2\n"}, threads
for n, f in enumerate(files):
    f.write(f"line {n}\n")
    f.flush()
assert all(f.readline() == f"line {n}\n" for n, f in enumerate(files))
PYTHON
