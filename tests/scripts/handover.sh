#!/usr/bin/env bash
# A server is replaced twice, by new processes that take over its listening socket, while clients connect all
# the time: none is refused or cut off, and each old process ends with its last client.
source "$(dirname "$0")/lib.bash"
need "$python"

"$python" - "$examples/handover" "$work/control" <<'PYTHON'
import select, socket, subprocess, sys, threading

program, control = sys.argv[1:]

def start(*port):
    process = subprocess.Popen([program, control, *port], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert "serves port" in line, line
    return process, int(line.split()[-1])

process, port = start("0")
address = ("127.0.0.1", port)
served, trouble, over = 0, [], threading.Event()

def exchange(s, data):
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = s.recv(len(data))
        assert piece, "cut off"
        got += piece
    assert got == data

def load():
    global served
    try:
        while not over.is_set():
            with socket.create_connection(address, timeout=20) as s:
                exchange(s, b"hello")
                served += 1
    except (OSError, AssertionError) as e:
        trouble.append(e)

threads = [threading.Thread(target=load) for _ in range(4)]
for t in threads:
    t.start()

for _ in range(2):
    with socket.create_connection(address, timeout=20) as loyal:  # stays with the old process
        exchange(loyal, b"before")
        successor, same_port = start()
        assert same_port == port
        assert "has handed over" in process.stdout.readline()
        exchange(loyal, b"after")
        assert process.poll() is None, "it did not wait for its client"
        before = served
        while served < before + 100 and not trouble:
            over.wait(0.01)
    assert process.wait(timeout=20) == 0
    process = successor

over.set()
for t in threads:
    t.join()
assert not trouble, trouble
with socket.create_connection(address, timeout=20) as s:
    exchange(s, b"still there")
process.kill()
process.wait()
print(f"{served} connections")
PYTHON
