#!/usr/bin/env bash
# The nc-like tool with nc, socat and openssl, and with itself: each kind, both roles, half-closes, files as
# input, refusals, Ctrl-C, and progress that is shown only on a terminal.
source "$(dirname "$0")/lib.bash"
source "$(dirname "$0")/tls.bash"
need socat "$python"
need_netcat
net_cat=$examples-openssl/net_cat

"$net_cat" --help | grep -q '^usage: net_cat'
for wrong in '' 'host' 'host x' 'host 1 2' '--what host 1' '--unix' '--unix path host 1' '--tls --unix path' '--tls --datagram host 1' 'host 99999'; do
  status=0
  # shellcheck disable=SC2086
  "$net_cat" $wrong >/dev/null 2>&1 </dev/null || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done
status=0
"$net_cat" 127.0.0.1 "$(free_port)" </dev/null 2>"$work/err" || status=$?
((status == 1)) && grep -q 'net_cat: connect: connection refused (ECONNREFUSED)' "$work/err" || fail "refused: $status"

random_file 5 "$work/there"
random_file 3 "$work/back"
port_of() { eventually grep -qs '^listening on port' "$work/$1.err" && sed -n 's/^listening on port //p' "$work/$1.err"; }

# As a client of nc: both files at once, from files, each end passed on.
port=$(free_port)
nc -N -l 127.0.0.1 "$port" <"$work/back" >"$work/got.there" &
eventually tcp_listens "$port"
"$net_cat" 127.0.0.1 "$port" <"$work/there" >"$work/got.back"
wait $!
same "$work/there" "$work/got.there"
same "$work/back" "$work/got.back"

# As a server for socat, which half-closes and then waits for the answer.
"$net_cat" --listen 127.0.0.1 0 <"$work/back" >"$work/got.there2" 2>"$work/tcp.err" &
socat -t 20 - "TCP:127.0.0.1:$(port_of tcp)" <"$work/there" >"$work/got.back2"
wait $!
same "$work/there" "$work/got.there2"
same "$work/back" "$work/got.back2"

# UNIX sockets, with itself.
"$net_cat" --listen --unix "$work/socket" <"$work/back" >"$work/got.there3" 2>/dev/null &
eventually test -S "$work/socket"
"$net_cat" --unix "$work/socket" <"$work/there" >"$work/got.back3"
wait $!
same "$work/there" "$work/got.there3"
same "$work/back" "$work/got.back3"
[[ ! -e $work/socket ]] || fail "the listener's file is left"

# Datagrams, with socat's echo and between two instances.
port=$(free_port)
start udp socat "UDP-LISTEN:$port,bind=127.0.0.1,fork" PIPE
eventually udp_is_bound "$port"
[[ $(echo over UDP | "$net_cat" --datagram 127.0.0.1 "$port") == 'over UDP' ]]
start datagrams socat "UNIX-RECVFROM:$work/unix_datagrams,fork" PIPE
eventually unix_is_bound "$work/unix_datagrams"
[[ $(echo over UNIX | "$net_cat" --datagram --unix "$work/unix_datagrams") == 'over UNIX' ]]
mkfifo "$work/typed"
"$net_cat" --listen --datagram 127.0.0.1 0 <"$work/typed" >"$work/first" 2>"$work/udp2.err" &
listener=$!
exec 7>"$work/typed"
port=$(port_of udp2)
(echo question && eventually grep -q question "$work/first") | "$net_cat" --datagram 127.0.0.1 "$port" >"$work/answer" &
asker=$!
eventually grep -q question "$work/first"
echo answer >&7
exec 7>&-
wait "$listener" "$asker"
expect "$work/answer" 'answer\n'

# TLS, with both engines and openssl's server, which reverses each line.
for engine in $engines; do
  port=$(free_port)
  start "s_server.$engine" openssl s_server -quiet -accept "127.0.0.1:$port" -cert "$certificates/server.pem" \
    -key "$certificates/server.key" -rev
  eventually tcp_listens "$port"
  "$examples-$engine/net_cat" --tls --ca "$ca" localhost "$port" <"$work/typed" >"$work/reversed.$engine" &
  exec 7>"$work/typed"
  echo stressed >&7
  eventually grep -q desserts "$work/reversed.$engine"
  exec 7>&-
  wait $!
  must_fail 1 "$work/complaint" "$examples-$engine/net_cat" --tls localhost "$port" </dev/null
  holds "$work/complaint" 'net_cat: tls'
  "$examples-$engine/net_cat" --listen --tls --certificate "$certificates/server.pem" --key "$certificates/server.key" \
    127.0.0.1 0 </dev/null >"$work/tls.$engine" 2>"$work/tls_server.$engine.err" &
  echo hello | timeout 20 "$examples-$engine/net_cat" --tls --ca "$ca" localhost "$(port_of "tls_server.$engine")"
  wait $!
  expect "$work/tls.$engine" 'hello\n'
done

# Progress is printed to a terminal, not to a pipe; Ctrl-C.
"$python" - "$net_cat" <<'PYTHON'
import os, pty, signal, socket, subprocess, sys, threading

listener = socket.create_server(("127.0.0.1", 0))
address = [str(x) for x in listener.getsockname()]

def transfer(stderr):
    p = subprocess.Popen([sys.argv[1], *address], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr)
    peer = listener.accept()[0]
    threading.Thread(target=lambda: [None for _ in iter(lambda: peer.recv(1 << 20), b"")], daemon=True).start()
    return p

shown = b""
controller, terminal = pty.openpty()
silent = transfer(subprocess.PIPE)  # started first: when the other has printed something, this one would have too
talking = transfer(terminal)

def look():
    global shown
    while b"iB/s" not in shown:
        shown += os.read(controller, 1000)

watcher = threading.Thread(target=look)
watcher.start()
while watcher.is_alive():
    silent.stdin.write(bytes(100000))
    talking.stdin.write(bytes(100000))
assert b" sent, 0 B received, " in shown, shown
talking.send_signal(signal.SIGINT)
silent.send_signal(signal.SIGTERM)
assert talking.wait(timeout=20) == 130
assert silent.wait(timeout=20) == 130
assert silent.stderr.read() == b""
os._exit(0)
PYTHON
