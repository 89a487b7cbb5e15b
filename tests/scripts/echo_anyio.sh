#!/usr/bin/env bash
# 16 MiB through echo servers, with AnyIO as client and as server, over TCP and UNIX sockets.
source "$(dirname "$0")/lib.bash"
need_anyio
random_file 16 "$work/sent"

start coroutine "$examples/echo_coroutine" 0
start callback "$examples/echo_callback" 0
start unix_echo "$peers/unix_echo" "$work/ours"
for face in coroutine callback; do
  "$python" tests/peers/anyio_peer.py transfer_tcp 127.0.0.1 "$(printed_port "$face")" \
    <"$work/sent" >"$work/answer"
  same "$work/sent" "$work/answer"
done
eventually unix_listens "$work/ours"
"$python" tests/peers/anyio_peer.py transfer_unix "$work/ours" <"$work/sent" >"$work/answer"
same "$work/sent" "$work/answer"

port=$(free_port)
start anyio_tcp "$python" tests/peers/anyio_peer.py tcp_echo "$port"
start anyio_unix "$python" tests/peers/anyio_peer.py unix_echo "$work/theirs"
eventually tcp_listens "$port"
eventually unix_listens "$work/theirs"
for where in "tcp localhost $port" "unix $work/theirs"; do
  # A pipe, since the relay cannot read a file. `echoed`, since AnyIO 3.6.2 over TCP never reports an end that
  # arrives together with data: nothing reads before the handler does, and a flag that both set is cleared
  # when the data is taken.
  # shellcheck disable=SC2002,SC2086
  cat "$work/sent" | "$peers/relay" echoed $where >"$work/answer"
  same "$work/sent" "$work/answer"
done
