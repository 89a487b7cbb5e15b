#!/usr/bin/env bash
# A server inside a foreign loop: sockets and standard input are served in turns, and the end of input ends
# it.
source "$(dirname "$0")/lib.bash"
need "$python"

"$python" - "$examples/foreign_loop" <<'PYTHON'
import socket, subprocess, sys

with subprocess.Popen([sys.argv[1], "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
    port = int(server.stdout.readline().split()[-1])

    def clients_counted():
        server.stdin.write("how many?\n")
        return server.stdout.readline().strip()

    def connect():
        return socket.create_connection(("127.0.0.1", port), timeout=20)

    def echoed(s, data):
        s.sendall(data)
        got = b""
        while len(got) < len(data):
            piece = s.recv(65536)
            assert piece, "the server has closed"
            got += piece
        return got == data

    assert clients_counted() == "0 clients"
    sockets = [connect() for _ in range(20)]
    assert all(echoed(s, b"x" * (1 + 1000 * n)) for n, s in enumerate(sockets))
    assert clients_counted() == "20 clients"
    for s in sockets[:15]:
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b"", "the server goes on after the end"
    assert clients_counted() == "5 clients"
    server.stdin.close()
    assert server.wait(timeout=20) == 0, "the end of input does not end it in order"
    assert sockets[19].recv(1) == b""
PYTHON
