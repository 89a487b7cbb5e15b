#!/usr/bin/env bash
# Messages for a service manager, in Python: variables, descriptors to keep, and a barrier that it answers.
source "$(dirname "$0")/lib.bash"
need "$python"

"$examples/sd_notify" --help | grep -q '^usage: sd_notify'
for wrong in '' 'READY' '--store x' '--store' '=1' '--what x=1'; do
  status=0
  # shellcheck disable=SC2086
  NOTIFY_SOCKET=$work/none "$examples/sd_notify" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done
status=0
NOTIFY_SOCKET="" "$examples/sd_notify" READY=1 2>"$work/err" || status=$?
((status == 1)) && grep -q 'NOTIFY_SOCKET' "$work/err" || fail "no manager: exit status $status"
status=0
NOTIFY_SOCKET=$work/none "$examples/sd_notify" READY=1 2>"$work/err" || status=$?
((status == 1)) && grep -q 'ENOENT' "$work/err" || fail "no socket: exit status $status"

"$python" - "$examples/sd_notify" "$work" <<'PYTHON'
import os, socket, subprocess, sys

program, folder = sys.argv[1:]
kept = {}

def manage(name, *words):
    """Reads what the program tells, as a service manager does, until the barrier."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(20)
    manager.bind(name)
    shown = "@" + name[1:] if name[0] == "\0" else name
    sender = subprocess.Popen([program, *words], env=dict(os.environ, NOTIFY_SOCKET=shown))
    told = []
    while True:
        message, fds, flags, _ = socket.recv_fds(manager, 4096, 16)
        assert flags & socket.MSG_CTRUNC == 0
        variables = dict(line.split("=", 1) for line in message.decode().splitlines())
        if variables.get("FDSTORE") == "1":
            assert len(fds) == 1
            kept[variables["FDNAME"]] = fds[0]
        elif variables.get("BARRIER") == "1":
            assert len(fds) == 1
            assert sender.poll() is None  # it waits for this
            os.close(fds[0])
            assert sender.wait(timeout=20) == 0
            return told
        else:
            assert not fds
            told.append(variables)

with open(folder + "/state", "w") as f:
    f.write("kept")
assert manage(folder + "/notify", "READY=1", "STATUS=all is well") == [{"READY": "1", "STATUS": "all is well"}]
assert manage("\0anyio_net-" + folder, "--store", "first=" + folder + "/state", "--store",
              "new=" + folder + "/new", "WATCHDOG=1") == [{"WATCHDOG": "1"}]
assert os.read(kept["first"], 100) == b"kept"
os.write(kept["new"], b"written by the manager")
assert open(folder + "/new").read() == "written by the manager"
PYTHON
