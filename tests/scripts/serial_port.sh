#!/usr/bin/env bash
# The terminal for a serial port, on a pseudo terminal: settings, all bytes in both directions, Ctrl-C, the loss of the
# device.
source "$(dirname "$0")/lib.bash"
need "$python"

program=$examples/serial_port
"$program" --help | grep -q '^usage: serial_port'
for wrong in '' '--speed 9600' '--speed 1 device' '--speed x device' '--flow' '--what device' 'device device'; do
  status=0
  # shellcheck disable=SC2086
  "$program" $wrong >/dev/null 2>&1 </dev/null || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done
for wrong in "$work/nothing" "$work" /dev/null; do
  status=0
  "$program" "$wrong" >/dev/null 2>"$work/said" </dev/null || status=$?
  ((status == 1)) && grep -q '(E[A-Z]*)' "$work/said" || fail "$wrong: exit status $status: $(cat "$work/said")"
done

"$python" - "$program" <<'PYTHON'
import os, signal, subprocess, sys, termios, threading

every_byte = bytes(range(256))  # with ^C, ^D, ^S, CR and LF, none of which may mean anything

def started(*options):
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    p = subprocess.Popen([sys.argv[1], *options, os.ttyname(slave)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    assert b"connected" in p.stderr.readline()
    return p, master, slave, before

def exactly(n, read):
    got = b""
    while len(got) < n:
        piece = read(n - len(got))
        assert piece, f"ended after {len(got)} of {n} bytes"
        got += piece
    return got

p, master, slave, before = started("--speed", "115200")
settings = termios.tcgetattr(slave)
assert settings[4] == settings[5] == termios.B115200
assert settings[2] & termios.CSIZE == termios.CS8 and settings[2] & (termios.PARENB | termios.CSTOPB) == 0
assert settings[3] & (termios.ECHO | termios.ICANON | termios.ISIG) == 0

# Both directions at once, each with more than the terminal's buffer holds.
sent = every_byte * 400
def give():
    p.stdin.write(sent)
    p.stdin.close()
thread = threading.Thread(target=give)
thread.start()
arrived = []
reader = threading.Thread(target=lambda: arrived.append(exactly(len(sent), p.stdout.read1)))
reader.start()
feeder = threading.Thread(target=lambda: [os.write(master, sent[i:i + 256]) for i in range(0, len(sent), 256)])
feeder.start()
assert exactly(len(sent), lambda n: os.read(master, n)) == sent
for t in (thread, feeder, reader):
    t.join()
assert arrived == [sent]
assert b"all input is sent" in p.stderr.readline()
os.write(master, b"later")
assert exactly(5, p.stdout.read1) == b"later", "the end of input ends the other direction"
p.send_signal(signal.SIGINT)
assert p.wait(timeout=20) == 0
assert termios.tcgetattr(slave) == before, "the settings are not restored"

p, master, slave, before = started()
assert termios.tcgetattr(slave)[4] == termios.B9600
os.close(slave)
os.close(master)
assert b"the device is gone" in p.stderr.read()
assert p.wait(timeout=20) == 0
PYTHON
