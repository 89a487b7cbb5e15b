#!/usr/bin/env bash
# The UDP examples, with socat at the other end.
source "$(dirname "$0")/lib.bash"
need socat

port=$(free_port)
start server "$examples/udp_hello" "$port"
eventually udp_is_bound "$port"
for name in one two; do
  wanted="Hello, $name"
  printf '%s' "$name" | socat -t 10 - "UDP4:127.0.0.1:$port,readbytes=${#wanted}" >"$work/answer"
  expect "$work/answer" "$wanted"
done

port=$(free_port)
socat -u "UDP4-RECV:$port,bind=127.0.0.1,readbytes=10" - >"$work/heard" &
socat=$!
eventually udp_is_bound "$port"
"$examples/udp_client" 127.0.0.1 "$port"
wait "$socat"
expect "$work/heard" 'Hi there!\n'
