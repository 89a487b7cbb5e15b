#!/usr/bin/env bash
# The UDP examples, with netcat at the other end.
source "$(dirname "$0")/lib.bash"
need_netcat

port=$(free_port)
start server "$examples/udp_hello" "$port"
eventually udp_is_bound "$port"
for name in one two three; do
  printf '%s' "$name" | nc -u -W 1 127.0.0.1 "$port" >"$work/answer"
  expect "$work/answer" "Hello, $name"
done

port=$(free_port)
nc -u -l -W 1 127.0.0.1 "$port" >"$work/heard" </dev/null &
netcat=$!
eventually udp_is_bound "$port"
"$examples/udp_client" 127.0.0.1 "$port"
wait "$netcat"
expect "$work/heard" 'Hi there!\n'
