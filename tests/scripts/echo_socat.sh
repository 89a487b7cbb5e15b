#!/usr/bin/env bash
# 64 MiB through both echo servers with socat, and through socat with our client; over UNIX sockets too.
source "$(dirname "$0")/lib.bash"
need socat sha256sum
random_file 64 "$work/sent"
checksum=$(sha256sum <"$work/sent")

arrives() { # arrives WHERE COMMAND…: the sent bytes come back
  local where=$1 got
  shift
  got=$("$@" <"$work/sent" | sha256sum)
  [[ $got == "$checksum" ]] || fail "the answer differs from the sent bytes: $where"
}
relay() { cat | "$peers/relay" "$@"; }

for face in coroutine callback; do
  start "$face" "$examples/echo_$face" 0
  arrives "echo_$face" socat -t 30 - "TCP4:127.0.0.1:$(printed_port "$face")"
done
start unix_echo "$peers/unix_echo" "$work/ours"
eventually unix_listens "$work/ours"
arrives unix_echo socat -t 30 - "UNIX-CONNECT:$work/ours"

port=$(free_port)
start socat_tcp socat -t 30 "TCP4-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork" EXEC:cat
start socat_unix socat -t 30 "UNIX-LISTEN:$work/theirs,fork" EXEC:cat
eventually tcp_listens "$port"
eventually unix_listens "$work/theirs"
arrives "socat over TCP" relay tcp 127.0.0.1 "$port"
arrives "socat over UNIX" relay unix "$work/theirs"
