#!/usr/bin/env bash
# The forwarder between netcat and an echo server: both directions full, half-closes, a missing target,
# Ctrl-C.
source "$(dirname "$0")/lib.bash"
need "$python"
need_netcat

"$examples/forward" --help | grep -q '^usage: forward'
for wrong in '' '1 2' 'x y:1' '1 :1' '1 host' '99999 host:1' '1 host:1 more'; do
  status=0
  # shellcheck disable=SC2086
  "$examples/forward" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done

start target "$examples/echo_coroutine" 0
target=$(printed_port target)
start server "$examples/forward" 0 "127.0.0.1:$target"
eventually grep -qs '127.0.0.1:[0-9]*$' "$work/server"
port=$(sed -n 's/^listening on 127.0.0.1://p' "$work/server")

random_file 8 "$work/data"
for n in 1 2 3; do # it echoes until the end, which must be forwarded
  nc -N 127.0.0.1 "$port" <"$work/data" >"$work/echoed.$n" &
done
wait $(jobs -p | tail -n 3)
for n in 1 2 3; do same "$work/data" "$work/echoed.$n"; done

start nowhere "$examples/forward" 0 "127.0.0.1:$(free_port)"
eventually grep -qs '127.0.0.1:[0-9]*$' "$work/nowhere"
nc -N 127.0.0.1 "$(sed -n 's/^listening on 127.0.0.1://p' "$work/nowhere")" </dev/null >/dev/null || true
eventually grep -q 'forward: connect: connection refused (ECONNREFUSED)' "$work/nowhere.err"

"$python" - "$examples/forward" "$target" <<'PYTHON'
import signal, socket, subprocess, sys

def started():
    p = subprocess.Popen([sys.argv[1], "0", "127.0.0.1:" + sys.argv[2]], stdout=subprocess.PIPE, text=True)
    lines = [p.stdout.readline()]
    while "127.0.0.1" not in lines[-1]:
        lines.append(p.stdout.readline())
    return p, int(lines[-1].rsplit(":", 1)[1])

p, port = started()
p.send_signal(signal.SIGINT)
assert p.wait(timeout=20) == 0, "idle"

p, port = started()
s = socket.create_connection(("127.0.0.1", port), timeout=20)
s.sendall(b"x")
assert s.recv(1) == b"x"
p.send_signal(signal.SIGINT)  # it would wait for this one: the second signal stops that
p.send_signal(signal.SIGINT)
assert p.wait(timeout=20) == 0, "connected"
PYTHON
