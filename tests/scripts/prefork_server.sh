#!/usr/bin/env bash
# Children of one process share its listening socket: a killed child is replaced, the connections of the
# others continue, SIGTERM ends all of them, and so does the end of the parent.
source "$(dirname "$0")/lib.bash"
need "$python"

"$python" - "$examples/prefork_server" <<'PYTHON'
import os, signal, socket, subprocess, sys

def start():
    process = subprocess.Popen([sys.argv[1], "0", "3"], stdout=subprocess.PIPE, text=True)
    workers = {worker(process) for _ in range(3)}
    line = process.stdout.readline()
    assert line.startswith("listening on port "), line
    return process, workers, ("127.0.0.1", int(line.split()[-1]))

def worker(process):
    line = process.stdout.readline()
    assert line.startswith("process ") and line.endswith(" serves\n"), line
    return int(line.split()[1])

class Client:
    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=20)
        self.file = self.socket.makefile("rw", newline="\n")
        self.served_by = int(self.file.readline().split()[1])

    def echo(self, text):
        self.file.write(text + "\n")
        self.file.flush()
        assert self.file.readline() == text + "\n"

def is_gone(address):
    try:
        socket.create_connection(address, timeout=20).close()
    except ConnectionRefusedError:
        return True
    return False

process, workers, address = start()
clients = [Client(address) for _ in range(100)]
assert {c.served_by for c in clients} <= workers, (clients, workers)
for n, c in enumerate(clients):
    c.echo(f"line {n}")

killed = clients[0].served_by
os.kill(killed, signal.SIGKILL)
successor = worker(process)
assert successor not in workers
workers = workers - {killed} | {successor}
for c in clients:
    if c.served_by == killed:
        assert c.file.readline() == ""
    else:
        c.echo("it goes on")
more = [Client(address) for _ in range(100)]
assert {c.served_by for c in more} <= workers

process.send_signal(signal.SIGTERM)
assert process.wait(timeout=20) == 0
assert all(c.file.readline() == "" for c in more)
assert is_gone(address)

process, workers, address = start()
client = Client(address)
client.echo("hello")
process.kill()
process.wait()
assert client.file.readline() == ""
# Read to its end, which arrives when the last process that can write has ended.
assert process.stdout.read() == ""
assert is_gone(address)
PYTHON
