#!/usr/bin/env bash
# Lines for a log daemon (socat and Python): over a UNIX socket, over UDP, from the command line and from a
# file.
source "$(dirname "$0")/lib.bash"
need "$python"

"$examples/syslog" --help | grep -q '^usage: syslog'
for wrong in '--tag' '--severity loud x' '--what x'; do
  status=0
  # shellcheck disable=SC2086
  "$examples/syslog" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done
status=0
"$examples/syslog" --path "$work/nothing" hello 2>"$work/err" || status=$?
((status == 1)) && grep -q 'ENOENT' "$work/err" || fail "no receiver: exit code $status"

"$python" - "$examples/syslog" "$work" <<'PYTHON'
import os, re, socket, subprocess, sys

program, folder = sys.argv[1:]
line = re.compile(r"<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (\S+) (\S+) (\d+) - - (.*)", re.DOTALL)

local = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
local.bind(folder + "/log")
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))

def logged(daemon):
    daemon.settimeout(20)
    return line.fullmatch(daemon.recv(65536).decode()).groups()

def log(*words, **kind):
    p = subprocess.Popen([program, *words], **kind)
    assert p.wait(timeout=20) == 0
    return str(p.pid)

pid = log("--path", folder + "/log", "--tag", "test", "all", "is well")
assert logged(local) == ("13", socket.gethostname(), "test", pid, "all is well")
log("--server", "127.0.0.1:%d" % udp.getsockname()[1], "--severity", "crit", "fire")
assert logged(udp)[0::4] == ("10", "fire")
with open(folder + "/lines", "w") as f:
    f.write("first\n\nlast without an end")
log("--path", folder + "/log", stdin=open(folder + "/lines"))
assert [logged(local)[4] for _ in range(3)] == ["first", "", "last without an end"]
PYTHON
