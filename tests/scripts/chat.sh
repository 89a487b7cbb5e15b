#!/usr/bin/env bash
# The chat with clients in Python: names, lines sent to all others, leaving in every way, a client that does
# not read, text with terminal escapes, a log that is not flooded.
source "$(dirname "$0")/lib.bash"
need "$python"

"$examples/chat" --help | grep -q '^usage: chat'
for wrong in '' 'x' '1 2' '99999'; do
  status=0
  # shellcheck disable=SC2086
  "$examples/chat" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done

"$python" - "$examples/chat" "$work/complaints" <<'PYTHON'
import signal, socket, struct, subprocess, sys, time

server = subprocess.Popen([sys.argv[1], "0"], stdout=subprocess.PIPE, stderr=open(sys.argv[2], "w"), text=True)
port = int(server.stdout.readline().split()[-1])

class Client:
    def __init__(self, name, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self.lines = self.socket.makefile("r", newline="\n")
        assert self.lines.readline() == "name?\n"
        self.say(name)

    def say(self, text):
        self.socket.sendall(text.encode() + b"\n")

    def hears(self, text):
        line = self.lines.readline()
        assert line == text + "\n", (line, text)

ann = Client("ann")
bob = Client("bob")
ann.hears("* bob comes in")
eve = Client("eve")
ann.hears("* eve comes in")
bob.hears("* eve comes in")
ann.say("hello")
bob.hears("ann: hello")
eve.hears("ann: hello")
bob.say("two\nlines")
for c in ann, eve:
    c.hears("bob: two")
    c.hears("bob: lines")
eve.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
eve.lines.close()
eve.socket.close()  # a reset
ann.hears("* eve leaves")
bob.hears("* eve leaves")
bob.socket.sendall(b"x" * 100000)  # longer than the limit of a line
ann.hears("* bob leaves")

# A name is used once, and neither it nor a line contains a control character.
other = Client("ann")
other.hears("that name is taken")
other.hears("name?")
other.say("")
other.hears("name?")
other.say("\x1b[2J\u009bAnn")
ann.hears(r"* \x1b[2J\xc2\x9bAnn comes in")
other.say("\x1b]0;é\x07\u202e\t")
ann.hears(r"\x1b[2J\xc2\x9bAnn: \x1b]0;é\x07\xe2\x80\xae\x09")
ann.say("\rbob: hello")
other.hears(r"ann: \x0dbob: hello")
other.lines.close()
other.socket.close()
ann.hears(r"* \x1b[2J\xc2\x9bAnn leaves")

# However many errors occur, the log gets some lines a second, and in the end their number.
begin = time.monotonic()
def fail():
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"x" * 200)  # longer than the limit of a name
        try:
            while s.recv(100):
                pass
        except ConnectionResetError:
            pass
for _ in range(200):
    fail()
deadline = begin + 15
while "omitted" not in (text := open(sys.argv[2]).read()):
    assert time.monotonic() < deadline, text
    fail()
assert len(text.splitlines()) <= 11 * (time.monotonic() - begin + 2), text

lazy = Client("lazy", receive_buffer=2048)
ann.hears("* lazy comes in")
for _ in range(200000):  # unread lines of `lazy` must not stop the others: it is disconnected
    ann.say("y" * 900)
    ann.socket.setblocking(False)
    try:
        if ann.socket.recv(100, socket.MSG_PEEK):
            break
    except BlockingIOError:
        pass
    finally:
        ann.socket.settimeout(20)
ann.hears("* lazy leaves")

server.send_signal(signal.SIGINT)
ann.hears("* the chat is closed")
assert server.wait(timeout=20) == 0
assert ann.lines.readline() == ""
PYTHON
